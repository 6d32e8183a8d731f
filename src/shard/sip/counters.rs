//! What a shard counts of SIP, each with its metric name; see `shard/counters.rs`.

macro_rules! counters {
    ($($field:ident: $name:literal,)*) => {
        /// Since the process started.
        #[derive(Clone, Debug, Default)]
        pub(crate) struct SipCounters {
            $(pub(crate) $field: u64,)*
        }

        impl SipCounters {
            pub(crate) fn figures(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($name, self.$field),)*].into_iter()
            }
        }
    };
}

counters! {
    requests_home: "tandem_sip_requests_total",
    dialogs_full: "tandem_sip_dialogs_full_total",
    dialog_unknown: "tandem_sip_dialog_unknown_total",
    user_unknown: "tandem_sip_user_unknown_total",
    restoring_full: "tandem_sip_restoring_full_total",
    accepted: "tandem_sip_connections_accepted_total",
    acks_lost: "tandem_sip_acks_lost_total",
    amplifying: "tandem_sip_amplifying_total",
    asked: "tandem_sip_requests_sent_total",
    asks_overdue: "tandem_sip_asks_overdue_total",
    bad_chain: "tandem_sip_bad_chain_total",
    bare_504: "tandem_sip_bare_504_total",
    challenged: "tandem_sip_challenged_total",
    clients_full: "tandem_sip_clients_full_total",
    connected: "tandem_sip_connections_made_total",
    datagrams: "tandem_sip_datagrams_received_total",
    denied: "tandem_sip_domains_denied_total",
    dropped: "tandem_sip_messages_dropped_total",
    extensions: "tandem_sip_extensions_refused_total",
    failed: "tandem_sip_requests_failed_total",
    foreign_targets: "tandem_sip_foreign_targets_total",
    idle_closed: "tandem_sip_idle_closed_total",
    lines_dead: "tandem_sip_lines_dead_total",
    loops: "tandem_sip_loops_refused_total",
    malformed: "tandem_sip_malformed_total",
    many_uris: "tandem_sip_many_uris_total",
    merged: "tandem_sip_merged_refused_total",
    methods: "tandem_sip_methods_refused_total",
    moved: "tandem_sip_connections_moved_total",
    no_certificate: "tandem_sip_no_certificate_total",
    not_ours: "tandem_sip_domains_not_ours_total",
    overload: "tandem_sip_overload_refused_total",
    pings: "tandem_sip_pings_total",
    queue_full: "tandem_sip_queue_full_total",
    queue_late: "tandem_sip_queue_late_total",
    read_timeouts: "tandem_sip_read_timeouts_total",
    received: "tandem_sip_messages_received_total",
    refused: "tandem_sip_refused_total",
    relay_denied: "tandem_sip_relay_denied_total",
    repeated: "tandem_sip_requests_seen_again_total",
    repeats: "tandem_sip_requests_repeated_total",
    replies_elsewhere: "tandem_sip_replies_elsewhere_total",
    replies_late: "tandem_sip_replies_late_total",
    replies_lost: "tandem_sip_replies_lost_total",
    responses_stray: "tandem_sip_responses_stray_total",
    rested: "tandem_sip_requests_rested_total",
    retried: "tandem_sip_retried_total",
    retry_afters: "tandem_sip_retry_afters_total",
    sent: "tandem_sip_messages_sent_total",
    servers_full: "tandem_sip_servers_full_total",
    settled: "tandem_sip_connections_settled_total",
    strangers: "tandem_sip_strangers_closed_total",
    unanswered: "tandem_sip_unanswered_total",
    unasked: "tandem_sip_requests_not_sent_total",
    uncovered: "tandem_sip_identity_mismatches_total",
    unframed: "tandem_sip_unframed_total",
    unsent: "tandem_sip_messages_unsent_total",
    unverified: "tandem_sip_unverified_total",
    peers_back: "tandem_sip_peers_back_total",
    bad_proxy: "tandem_sip_proxy_headers_refused_total",
    im_invites_in: "tandem_im_invites_in_total",
    im_invites_out: "tandem_im_invites_out_total",
    im_texts_in: "tandem_im_texts_in_total",
    im_texts_out: "tandem_im_texts_out_total",
    im_texts_bounced: "tandem_im_texts_bounced_total",
    im_repeats: "tandem_im_repeats_total",
    im_blocked: "tandem_im_blocked_total",
    im_groups_refused: "tandem_im_groups_refused_total",
    im_media_refused: "tandem_im_media_refused_total",
    im_sdp_malformed: "tandem_im_sdp_malformed_total",
    im_bodies_unusable: "tandem_im_bodies_unusable_total",
    im_refused: "tandem_im_refused_total",
    im_answers_malformed: "tandem_im_answers_malformed_total",
    im_challenged: "tandem_im_challenged_total",
    im_loops: "tandem_im_loops_total",
    im_edge_checks: "tandem_im_edge_checks_total",
    im_full: "tandem_im_full_total",
    im_rows_unreadable: "tandem_im_rows_unreadable_total",
}
