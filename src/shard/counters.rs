//! What a shard counts. Plain numbers that only the shard touches; the control thread gets copies.
//!
//! Long on purpose of one list: every counter has its metric name here and nowhere else.

use crate::envelope::Kind;
use crate::shard::account::Account;
use crate::shard::kernel::NetCounters;
use crate::shard::report::Figure;
use crate::shard::sip::SipCounters;
use crate::xmpp::fault::{StanzaFault, StreamFault};
use crate::xmpp::sasl::SaslFault;

/// Since the process started.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    pub(crate) accepted: u64,
    pub(crate) strangers_refused: u64,
    pub(crate) gone: u64,
    pub(crate) bound: u64,
    pub(crate) replaced: u64,
    pub(crate) logins: u64,
    pub(crate) moved_in: u64,
    pub(crate) moved_out: u64,
    pub(crate) tls_handshakes: u64,
    pub(crate) tls_failures: u64,
    pub(crate) pipelined_before_tls: u64,
    pub(crate) prelogin_limits: u64,
    pub(crate) login_timeouts: u64,
    pub(crate) resources_refused: u64,
    pub(crate) choked: u64,
    pub(crate) outbox_full: u64,
    pub(crate) stalled: u64,
    pub(crate) undelivered: u64,
    pub(crate) sm_enabled: u64,
    pub(crate) sm_refused: u64,
    pub(crate) sm_too_high: u64,
    pub(crate) sm_held_up: u64,
    pub(crate) spilled: u64,
    pub(crate) sessions_detached: u64,
    pub(crate) sessions_resumed: u64,
    pub(crate) sessions_unknown: u64,
    pub(crate) sessions_timed_out: u64,
    pub(crate) sessions_full: u64,
    pub(crate) duplicates_swallowed: u64,
    pub(crate) mesh_full: u64,
    pub(crate) control_full: u64,
    pub(crate) policy_denied: u64,
    pub(crate) peer_streams_in: u64,
    pub(crate) peer_streams_out: u64,
    pub(crate) peer_setup_failed: u64,
    pub(crate) peer_streams_lost: u64,
    pub(crate) ways_full: u64,
    pub(crate) dialback_valid: u64,
    pub(crate) dialback_invalid: u64,
    pub(crate) dialback_failed: u64,
    pub(crate) dialback_unsolicited: u64,
    pub(crate) records_loaded: u64,
    pub(crate) records_unavailable: u64,
    pub(crate) gate_waits: u64,
    pub(crate) gates_full: u64,
    pub(crate) commits: u64,
    pub(crate) commits_failed: u64,
    pub(crate) pushes_missed: u64,
    pub(crate) posts_lost: u64,
    pub(crate) carbons: u64,
    pub(crate) forged_refused: u64,
    pub(crate) forged_cut: u64,
    pub(crate) messages_stored: u64,
    pub(crate) offline_full: u64,
    pub(crate) watchers_wanted: u64,
    pub(crate) presences_told: u64,
    /// Presence that shows another state where it went: to domains of another profile, to clients
    /// of another kind.
    pub(crate) presences_rewritten: u64,
    pub(crate) roster_refused: u64,
    pub(crate) requests_refused: u64,
    pub(crate) later_refused: u64,
    pub(crate) later_overdue: u64,
    pub(crate) stored_refused: u64,
    pub(crate) blocked_in: u64,
    pub(crate) blocked_out: u64,
    pub(crate) rules_refused: u64,
    pub(crate) held: u64,
    pub(crate) held_replaced: u64,
    pub(crate) held_lost: u64,
    pub(crate) sip: SipCounters,
    pub(crate) stream_faults: Vec<u64>,
    pub(crate) stanza_faults: Vec<u64>,
    pub(crate) sasl_faults: Vec<u64>,
}

impl Default for Counters {
    #[expect(clippy::too_many_lines, reason = "one list")]
    fn default() -> Self {
        Self {
            accepted: 0,
            strangers_refused: 0,
            gone: 0,
            bound: 0,
            replaced: 0,
            logins: 0,
            moved_in: 0,
            moved_out: 0,
            tls_handshakes: 0,
            tls_failures: 0,
            pipelined_before_tls: 0,
            prelogin_limits: 0,
            login_timeouts: 0,
            resources_refused: 0,
            choked: 0,
            outbox_full: 0,
            stalled: 0,
            undelivered: 0,
            sm_enabled: 0,
            sm_refused: 0,
            sm_too_high: 0,
            sm_held_up: 0,
            spilled: 0,
            sessions_detached: 0,
            sessions_resumed: 0,
            sessions_unknown: 0,
            sessions_timed_out: 0,
            sessions_full: 0,
            duplicates_swallowed: 0,
            mesh_full: 0,
            control_full: 0,
            policy_denied: 0,
            peer_streams_in: 0,
            peer_streams_out: 0,
            peer_setup_failed: 0,
            peer_streams_lost: 0,
            ways_full: 0,
            dialback_valid: 0,
            dialback_invalid: 0,
            dialback_failed: 0,
            dialback_unsolicited: 0,
            records_loaded: 0,
            records_unavailable: 0,
            gate_waits: 0,
            gates_full: 0,
            commits: 0,
            commits_failed: 0,
            pushes_missed: 0,
            posts_lost: 0,
            carbons: 0,
            forged_refused: 0,
            forged_cut: 0,
            messages_stored: 0,
            offline_full: 0,
            watchers_wanted: 0,
            presences_told: 0,
            presences_rewritten: 0,
            roster_refused: 0,
            requests_refused: 0,
            later_refused: 0,
            later_overdue: 0,
            stored_refused: 0,
            blocked_in: 0,
            blocked_out: 0,
            rules_refused: 0,
            held: 0,
            held_replaced: 0,
            held_lost: 0,
            sip: SipCounters::default(),
            stream_faults: vec![0; StreamFault::ALL.len()],
            stanza_faults: vec![0; StanzaFault::ALL.len()],
            sasl_faults: vec![0; SaslFault::ALL.len()],
        }
    }
}

impl Counters {
    /// Everything as metrics. Counters end in `_total`, the rest are gauges.
    pub(crate) fn figures(&self, account: &Account, net: &NetCounters, out: &mut Vec<Figure>) {
        for kind in Kind::ALL {
            for (name, value) in account.figures(kind) {
                let labels = vec![("kind", kind.name())];
                out.push(match name {
                    "offered" => ("tandem_stanzas_offered_total", labels, value),
                    "refused" => ("tandem_stanzas_refused_total", labels, value),
                    "taken" => ("tandem_stanzas_taken_total", labels, value),
                    "in_flight" => ("tandem_stanzas_in_flight", labels, value),
                    outcome => {
                        let labels = vec![("kind", kind.name()), ("outcome", outcome)];
                        ("tandem_stanzas_closed_total", labels, value)
                    }
                });
            }
        }
        out.extend(self.plain().map(|(name, value)| (name, Vec::new(), value)));
        out.extend(self.sip.figures().map(|(name, value)| (name, Vec::new(), value)));
        out.extend(net.figures().map(|(name, value)| (name, Vec::new(), value)));
        for (fault, value) in StreamFault::ALL.iter().zip(&self.stream_faults) {
            out.push(("tandem_stream_errors_total", vec![("reason", fault.name())], *value));
        }
        for (fault, value) in StanzaFault::ALL.iter().zip(&self.stanza_faults) {
            out.push(("tandem_stanza_errors_total", vec![("reason", fault.name())], *value));
        }
        for (fault, value) in SaslFault::ALL.iter().zip(&self.sasl_faults) {
            out.push(("tandem_auth_failures_total", vec![("reason", fault.name())], *value));
        }
    }

    #[expect(clippy::too_many_lines, reason = "one list")]
    fn plain(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("tandem_connections_accepted_total", self.accepted),
            ("tandem_connections_refused_per_address_total", self.strangers_refused),
            ("tandem_connections_gone_total", self.gone),
            ("tandem_resources_bound_total", self.bound),
            ("tandem_resources_replaced_total", self.replaced),
            ("tandem_resources_refused_total", self.resources_refused),
            ("tandem_logins_total", self.logins),
            ("tandem_connections_moved_in_total", self.moved_in),
            ("tandem_connections_moved_out_total", self.moved_out),
            ("tandem_tls_handshakes_total", self.tls_handshakes),
            ("tandem_tls_failures_total", self.tls_failures),
            ("tandem_pipelined_before_tls_total", self.pipelined_before_tls),
            ("tandem_prelogin_limits_hit_total", self.prelogin_limits),
            ("tandem_login_timeouts_total", self.login_timeouts),
            ("tandem_readers_choked_total", self.choked),
            ("tandem_outbox_full_total", self.outbox_full),
            ("tandem_connections_stalled_total", self.stalled),
            ("tandem_stanzas_undelivered_total", self.undelivered),
            ("tandem_sm_enabled_total", self.sm_enabled),
            ("tandem_sm_refused_total", self.sm_refused),
            ("tandem_sm_too_high_total", self.sm_too_high),
            ("tandem_sm_held_up_total", self.sm_held_up),
            ("tandem_messages_spilled_total", self.spilled),
            ("tandem_sessions_lost_their_connection_total", self.sessions_detached),
            ("tandem_sessions_resumed_total", self.sessions_resumed),
            ("tandem_sessions_unknown_total", self.sessions_unknown),
            ("tandem_sessions_timed_out_total", self.sessions_timed_out),
            ("tandem_sessions_full_total", self.sessions_full),
            ("tandem_duplicates_swallowed_total", self.duplicates_swallowed),
            ("tandem_mesh_full_total", self.mesh_full),
            ("tandem_control_full_total", self.control_full),
            ("tandem_policy_denied_total", self.policy_denied),
            ("tandem_peer_streams_in_total", self.peer_streams_in),
            ("tandem_peer_streams_out_total", self.peer_streams_out),
            ("tandem_peer_setup_failed_total", self.peer_setup_failed),
            ("tandem_peer_streams_lost_total", self.peer_streams_lost),
            ("tandem_ways_full_total", self.ways_full),
            ("tandem_dialback_valid_total", self.dialback_valid),
            ("tandem_dialback_invalid_total", self.dialback_invalid),
            ("tandem_dialback_failed_total", self.dialback_failed),
            ("tandem_dialback_unsolicited_total", self.dialback_unsolicited),
            ("tandem_records_loaded_total", self.records_loaded),
            ("tandem_records_unavailable_total", self.records_unavailable),
            ("tandem_gate_waits_total", self.gate_waits),
            ("tandem_gates_full_total", self.gates_full),
            ("tandem_commits_total", self.commits),
            ("tandem_commits_failed_total", self.commits_failed),
            ("tandem_roster_pushes_missed_total", self.pushes_missed),
            ("tandem_mesh_answers_lost_total", self.posts_lost),
            ("tandem_carbons_total", self.carbons),
            ("tandem_forged_refused_total", self.forged_refused),
            ("tandem_forged_cut_total", self.forged_cut),
            ("tandem_messages_stored_total", self.messages_stored),
            ("tandem_offline_full_total", self.offline_full),
            ("tandem_watcher_sets_wanted_total", self.watchers_wanted),
            ("tandem_presences_told_total", self.presences_told),
            ("tandem_presences_rewritten_total", self.presences_rewritten),
            ("tandem_roster_sets_refused_total", self.roster_refused),
            ("tandem_subscription_requests_refused_total", self.requests_refused),
            ("tandem_questions_refused_total", self.later_refused),
            ("tandem_questions_overdue_total", self.later_overdue),
            ("tandem_stored_data_refused_total", self.stored_refused),
            ("tandem_blocked_inbound_total", self.blocked_in),
            ("tandem_blocked_outbound_total", self.blocked_out),
            ("tandem_rules_refused_total", self.rules_refused),
            ("tandem_stanzas_held_total", self.held),
            ("tandem_stanzas_held_replaced_total", self.held_replaced),
            ("tandem_stanzas_held_lost_total", self.held_lost),
        ]
        .into_iter()
    }
}
