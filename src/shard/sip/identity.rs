//! Whose request it is: the domain of its From against policy and against what the connection has
//! shown (7.5 and 7.6, step 5, of our rules; F10, F12).
//!
//! Over TLS the certificate must hold the name that the domain's rule expects; for Microsoft's rule
//! that is the target of the domain's SRV record, which is asked for once and kept. Without TLS the
//! source address is one of the rule's fixed targets. All connections of a peer live on one shard:
//! a connection that has shown whose it is goes there. Does **not** look at users.

use std::net::IpAddr;
use std::time::Duration;

use crate::dns::SipFound;
use crate::limits::{SIP_CLEARED_MAX, SIP_TARGETS_TIME_MAX, SIP_TARGETS_TIME_MIN};
use crate::peer::sip_identity::{Mismatch, Shown, Speaks, is_of_somebody, speaks_for};
use crate::route::shard_of_domain;
use crate::shard::Shard;
use crate::shard::conn::{Arrival, Conn, Role};
use crate::shard::kernel::{Ending, Question, ShardId};
use crate::shard::sip::transport::{Place, SrvTargets};
use crate::sip::Fault;
use crate::tls::Names;

/// May this domain be in a From on this connection?
pub(super) enum May {
    Yes,
    /// It is being found out.
    Wait,
    No(Fault),
}

impl Shard {
    /// Whether a request with that From may be worked on.
    pub(super) fn sip_may(&mut self, conn: &mut Conn, far: &str, near: Option<&str>) -> May {
        let version = self.settings.version;
        let Role::Sip(sip) = &mut conn.role else { return May::No(Fault::new(500)) };
        if sip.version != version {
            // Other rules may hold now; the connection itself is not touched.
            sip.cleared.clear();
            sip.version = version;
        }
        let settled = sip.peer.is_some() && near.is_none_or(|it| sip.near.as_deref() == Some(it));
        let cleared = sip.cleared.iter().any(|it| **it == *far);
        if cleared && settled {
            return May::Yes;
        }
        let policy = std::sync::Arc::clone(&self.settings.policy);
        let Some(peer) = policy.sip(far) else {
            let names = sip.verdict.as_ref().map(|it| it.names.to_string()).unwrap_or_default();
            return May::No(self.sip_denied(far, conn.remote.ip(), names));
        };
        if !cleared {
            match self.sip_shown(conn, far) {
                May::Yes => {}
                other => return other,
            }
        }
        self.sip_place(conn, peer.name(far), far, near)
    }

    /// Whether the connection has shown that it may speak for the domain.
    fn sip_shown(&mut self, conn: &mut Conn, far: &str) -> May {
        let now = self.now.moment;
        let Role::Sip(sip) = &mut conn.role else { return May::No(Fault::new(500)) };
        let known = self.transport.srv_targets.get(far).filter(|it| it.until > now);
        let targets = known.map(|it| it.hosts.as_slice());
        let shown = match &sip.verdict {
            Some(verdict) => Shown::Certificate(verdict),
            None if sip.vouched.is_some() => {
                Shown::Vouched(sip.vouched.as_deref().unwrap_or_default())
            }
            None => Shown::Address(conn.remote.ip()),
        };
        let mismatch = match speaks_for(&self.settings.policy, far, shown, targets) {
            Speaks::Yes => {
                if sip.cleared.len() >= SIP_CLEARED_MAX {
                    sip.cleared.clear();
                }
                sip.cleared.push(far.into());
                sip.asking = None;
                return May::Yes;
            }
            Speaks::AskDns if sip.asking.as_deref() == Some(far) => {
                // It was asked, and there was no answer.
                sip.asking = None;
                self.counters.sip.unverified += 1;
                return May::No(Fault::new(504));
            }
            Speaks::AskDns => {
                sip.asking = Some(far.into());
                let (ticket, domain) = (Self::ticket_of(conn.id), far.to_owned());
                self.park(conn, Question::ResolveSip { ticket, domain, rfc3263: false });
                return May::Wait;
            }
            Speaks::No(mismatch) => mismatch,
        };
        sip.asking = None;
        May::No(self.sip_uncovered(conn.remote.ip(), far, &mismatch))
    }

    /// The connection goes where its peer's are, or carries requests to it from now on.
    fn sip_place(&mut self, conn: &mut Conn, peer: &str, far: &str, near: Option<&str>) -> May {
        let shard = ShardId(shard_of_domain(peer, self.settings.shards));
        let Role::Sip(sip) = &mut conn.role else { return May::No(Fault::new(500)) };
        if shard != self.id && !conn.streaming && sip.ours.is_none() {
            conn.moving = Some(Box::new((shard, Arrival::Sip)));
            return May::Wait;
        }
        let first = sip.peer.is_none();
        if first {
            sip.peer = Some(peer.into());
            self.counters.sip.settled += 1;
        }
        if let Some(near) = near {
            sip.near = Some(near.into());
        }
        let (carrier, ours) = (sip.carrier, sip.ours.is_some());
        if first {
            self.sip_settled(conn);
        }
        // A connection of another peer's shard carries what came on it, and its answers.
        if let Some(near) = near.filter(|_| shard == self.id)
            && let Some(way) = self.way_enter(near, peer, far)
        {
            let Role::Sip(sip) = &mut conn.role else { return May::Yes };
            if sip.carries(way) {
                self.transport.conn_ways.insert(conn.id, way);
                self.line_enter(way, Place::Conn(conn.id), conn.remote, carrier, ours);
            }
        }
        May::Yes
    }

    /// What DNS says of the domain that a connection's request is from.
    pub(super) fn sip_target_found(&mut self, conn: &Conn, found: SipFound) {
        let now = self.now.moment;
        let Role::Sip(sip) = &conn.role else { return };
        let Some(domain) = sip.asking.clone() else { return };
        let (hosts, seconds) = match found {
            SipFound::Records { records, seconds, .. } => {
                let host =
                    |it: crate::dns::Srv| it.target.trim_end_matches('.').to_ascii_lowercase();
                (records.into_iter().map(host).collect(), seconds)
            }
            SipFound::NotOffered | SipFound::Absent => (Vec::new(), 0),
            // Not the domain's word: the request is answered, the next asks again.
            SipFound::Failed => return,
        };
        let life = Duration::from_secs(seconds.into());
        let life = life.clamp(SIP_TARGETS_TIME_MIN, SIP_TARGETS_TIME_MAX);
        self.transport.keep_targets(&domain, SrvTargets { hosts, until: now + life }, now);
    }

    /// The chain is good. In a closed federation a stranger's connection ends here.
    pub(super) fn sip_named(&mut self, conn: &mut Conn, names: &Names) {
        if !is_of_somebody(&self.settings.policy, names) {
            let why = format!("no partner of ours: the certificate has {names}");
            self.counters.sip.strangers += 1;
            self.sip_conn_troubled(conn, "auth", why);
            self.close(conn, Ending::Orderly);
        }
    }

    /// F10: the domain may not be talked to. Its user is not asked.
    pub(super) fn sip_denied(&mut self, far: &str, remote: IpAddr, names: String) -> Fault {
        self.counters.policy_denied += 1;
        self.counters.sip.denied += 1;
        let fields =
            vec![("peer", far.to_owned()), ("certificate", names), ("target", remote.to_string())];
        self.notice("sip_denied", fields);
        Fault::new(403)
    }

    /// F12: the connection may not speak for the domain.
    pub(super) fn sip_uncovered(
        &mut self,
        remote: IpAddr,
        far: &str,
        mismatch: &Mismatch,
    ) -> Fault {
        self.counters.sip.uncovered += 1;
        let fields = vec![
            ("peer", far.to_owned()),
            ("reason", mismatch.to_string()),
            ("target", remote.to_string()),
        ];
        self.notice("sip_identity_mismatch", fields);
        let host = self.settings.domains.first().map_or("tandem", |it| it.sip_name.as_str());
        let warning = format!("399 {host} \"Certificate of peer does not match domain of From\"");
        Fault::new(403).with("Warning", warning)
    }
}
