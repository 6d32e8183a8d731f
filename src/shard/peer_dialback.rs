//! Dialback on streams that peers open to us: keys shown to us, keys that we are asked about.
//!
//! XEP-0220, 2.1.2, 2.2 and 2.3; XEP-0344, 2.4. A key that somebody shows is judged by the domain it
//! is said to come from, on the way that the shard of that domain owns; a key that we are asked about
//! is judged here and now, since nothing is remembered of it.

use crate::address::prepare_domain;
use crate::limits::{DIALBACK_TIME_MAX, PAIRS_PER_STREAM_MAX, PAIRS_UNPROVEN_MAX};
use crate::policy::{PeerAuth, Security};
use crate::route::shard_of_domain;
use crate::shard::Shard;
use crate::shard::conn::{Conn, Role};
use crate::shard::kernel::{ShardId, Ticket};
use crate::shard::peer_in::Pair;
use crate::shard::post::{Verdict, Verify};
use crate::tls;
use crate::xmpp::dialback::{self, Condition, Dialback, Element, Malformed, Outcome, Secrets};
use crate::xmpp::fault::StreamFault;
use crate::xmpp::read;
use crate::xmpp::stanza::{Kind, Stanza};

/// One element of dialback, its domains prepared.
#[derive(Debug)]
pub(super) enum Said {
    ResultRequest { from: String, to: String, key: String },
    ResultAnswer { from: String, to: String, outcome: Outcome },
    VerifyRequest { from: String, to: String, id: String, key: String },
    VerifyAnswer { from: String, to: String, id: String, outcome: Outcome },
}

/// Reads `<db:result/>` or `<db:verify/>`.
pub(super) fn read_dialback(frame: &[u8], stanza: &Stanza) -> Result<Said, Malformed> {
    let value = |attr: &Option<crate::xmpp::stanza::Attr>| attr.map(|it| it.value(frame));
    let (from, to, id) = (value(&stanza.from), value(&stanza.to), value(&stanza.id));
    let (kind, text) = (value(&stanza.type_), read::text_of(frame));
    let local = |element| {
        let name: &[u8] = read::name_of(element);
        name.rsplit(|octet| *octet == b':').next().unwrap_or_default().to_vec()
    };
    let condition = read::children(frame)
        .find(|it| local(it) == b"error")
        .and_then(|it| read::children(it).next().map(local))
        .and_then(|name| String::from_utf8(name).ok());
    let element = Element {
        name: if stanza.kind == Kind::DbResult { "result" } else { "verify" },
        from: from.as_deref(),
        to: to.as_deref(),
        id: id.as_deref(),
        kind: kind.as_deref(),
        text: &text,
        condition: condition.as_deref(),
    };
    let domain = |raw: &str| prepare_domain(raw).map(String::from).map_err(|_| Malformed);
    Ok(match Dialback::parse(&element)? {
        Dialback::ResultRequest { from, to, key } => {
            Said::ResultRequest { from: domain(from)?, to: domain(to)?, key: key.to_owned() }
        }
        Dialback::ResultAnswer { from, to, outcome } => {
            Said::ResultAnswer { from: domain(from)?, to: domain(to)?, outcome }
        }
        Dialback::VerifyRequest { from, to, id, key } => Said::VerifyRequest {
            from: domain(from)?,
            to: domain(to)?,
            id: id.to_owned(),
            key: key.to_owned(),
        },
        Dialback::VerifyAnswer { from, to, id, outcome } => {
            Said::VerifyAnswer { from: domain(from)?, to: domain(to)?, id: id.to_owned(), outcome }
        }
    })
}

impl Shard {
    /// The secrets of this installation.
    pub(super) fn secrets(&self) -> Secrets {
        let mut secrets = self.settings.dialback_secrets.iter().map(Vec::as_slice);
        Secrets::new(secrets.next().unwrap_or_default(), secrets.next())
    }

    /// An element of dialback on a stream that a peer opened.
    pub(super) fn peer_dialback(&mut self, conn: &mut Conn, frame: &[u8], stanza: &Stanza) {
        match read_dialback(frame, stanza) {
            Err(Malformed) => self.stream_fault(conn, StreamFault::BadFormat),
            Ok(Said::ResultRequest { from, to, key }) => self.key_shown(conn, from, to, key),
            Ok(Said::VerifyRequest { from, to, id, key }) => {
                self.key_asked(conn, &from, &to, &id, &key);
            }
            // XEP-0220, 3.1: we asked nothing on this stream.
            Ok(Said::ResultAnswer { .. } | Said::VerifyAnswer { .. }) => {
                self.counters.dialback_unsolicited += 1;
            }
        }
    }

    /// TLS is missing where the listener demands it.
    fn lacks_tls(&self, conn: &Conn) -> bool {
        let Role::PeerIn(peer) = &conn.role else { return true };
        conn.tls.is_none() && peer.security != Security::Optional
    }

    /// `from` asks whether we (`to`) made a key for its stream `id` (XEP-0220, 2.3).
    fn key_asked(&mut self, conn: &mut Conn, from: &str, to: &str, id: &str, key: &str) {
        let refused = if self.lacks_tls(conn) {
            Some(Condition::PolicyViolation)
        } else if self.settings.domain(to).is_none() {
            Some(Condition::ItemNotFound)
        } else {
            None
        };
        if let Role::PeerIn(peer) = &mut conn.role {
            peer.served = true;
        }
        let judged = self.secrets().check(key, from, to, id);
        self.write(conn.id, |out| match (refused, judged) {
            (Some(condition), _) => dialback::verify_error(out, to, from, id, condition),
            (None, Ok(())) => dialback::verify_valid(out, to, from, id),
            (None, Err(_)) => dialback::verify_invalid(out, to, from, id),
        });
    }

    /// `from` shows a key and wants to send to `to` (XEP-0220, 2.1.2).
    fn key_shown(&mut self, conn: &mut Conn, from: String, to: String, key: String) {
        let refused = self.why_not(conn, &from, &to);
        let Role::PeerIn(peer) = &mut conn.role else { return };
        if let Some(condition) = refused {
            self.counters.dialback_failed += 1;
            return self.write(conn.id, |out| dialback::result_error(out, &to, &from, condition));
        }
        match peer.pair(&from, &to) {
            Some(pair) if pair.proved => {
                return self.write(conn.id, |out| dialback::result_valid(out, &to, &from));
            }
            // The first key is being judged: its answer is theirs too.
            Some(_) => return self.counters.dialback_unsolicited += 1,
            None => {}
        }
        let auth = self.settings.policy.verdict(&from).0.auth;
        let good = peer.verdict.as_ref().is_some_and(|v| v.proves(&from, tls::Use::S2s).is_ok());
        peer.pairs.push(Pair { far: from.clone(), near: to.clone(), proved: false });
        if good && auth != PeerAuth::External {
            // XEP-0344, 2.4: the certificate has shown it already.
            return self.pair_judged(conn, &to, &from, Verdict::Valid);
        }
        let stream_id = peer.id.clone();
        let ticket = Self::ticket_of(conn.id);
        let owner = ShardId(shard_of_domain(&from, self.settings.shards));
        // A stranger's time is short, but the verdict may take its own.
        let until = self.now.moment + DIALBACK_TIME_MAX + DIALBACK_TIME_MAX / 10;
        if !conn.streaming && conn.deadline < until {
            self.watch(conn, until);
        }
        let verify = Verify { ticket, near: to, far: from, stream_id, key };
        if owner == self.id {
            self.verify_asked(owner, verify);
        } else {
            self.posts.verify(owner, &verify);
        }
    }

    /// Why a key is not even looked at (XEP-0220, 2.5).
    fn why_not(&mut self, conn: &Conn, from: &str, to: &str) -> Option<Condition> {
        let Role::PeerIn(peer) = &conn.role else { return None };
        if self.lacks_tls(conn) {
            return Some(Condition::PolicyViolation);
        }
        if self.settings.domain(to).is_none() {
            return Some(Condition::ItemNotFound);
        }
        let rule = self.settings.policy.verdict(from).0;
        if conn.tls.is_none() && rule.security != Security::Optional {
            // The listener may do without TLS; this domain may not.
            return Some(Condition::PolicyViolation);
        }
        if !rule.allow || self.settings.domain(from).is_some() {
            // Nobody outside speaks for a domain of ours, and denied ones don't speak at all.
            self.counters.policy_denied += 1;
            return Some(Condition::NotAuthorized);
        }
        if rule.auth == PeerAuth::External {
            return Some(Condition::NotAuthorized);
        }
        // Each unproven pair makes us look somebody up: a stranger gets few at a time.
        let unproven = peer.pairs.iter().filter(|pair| !pair.proved).count();
        let full = peer.pairs.len() >= PAIRS_PER_STREAM_MAX || unproven >= PAIRS_UNPROVEN_MAX;
        (full && peer.pair(from, to).is_none()).then_some(Condition::ResourceConstraint)
    }

    /// What the authoritative server said of a key that a stream of ours waits for.
    pub(super) fn verified(&mut self, ticket: Ticket, near: &str, far: &str, verdict: Verdict) {
        let Some(mut conn) = self.conns.take(Self::conn_of(ticket)) else { return };
        if !conn.is_closing() {
            self.pair_judged(&mut conn, near, far, verdict);
        }
        self.done_with(conn);
    }

    fn pair_judged(&mut self, conn: &mut Conn, near: &str, far: &str, verdict: Verdict) {
        let Role::PeerIn(peer) = &mut conn.role else { return };
        let waits = |it: &Pair| !it.proved && it.far == far && it.near == near;
        let Some(index) = peer.pairs.iter().position(waits) else { return };
        let others = peer.is_proved();
        match verdict {
            Verdict::Valid => {
                self.counters.dialback_valid += 1;
                self.write(conn.id, |out| dialback::result_valid(out, near, far));
                self.pair_proved(conn, index);
            }
            Verdict::Invalid => {
                peer.pairs.remove(index);
                self.counters.dialback_invalid += 1;
                if others {
                    // XEP-0220, 2.2.1: the other pairs of the stream are no worse for it.
                    let condition = Condition::Forbidden;
                    return self
                        .write(conn.id, |out| dialback::result_error(out, near, far, condition));
                }
                self.write(conn.id, |out| dialback::result_invalid(out, near, far));
                self.way_troubled(conn, "dialback", || format!("{far} did not make that key"));
                self.close_stream(conn);
            }
            Verdict::Failed(condition) => {
                peer.pairs.remove(index);
                self.counters.dialback_failed += 1;
                self.write(conn.id, |out| dialback::result_error(out, near, far, condition));
            }
        }
    }

    /// A pair of domains is proven on this stream: its stanzas pass.
    pub(super) fn pair_proved(&mut self, conn: &mut Conn, index: usize) {
        let Role::PeerIn(peer) = &mut conn.role else { return };
        let first = !peer.is_proved();
        let Some(pair) = peer.pairs.get_mut(index) else { return };
        pair.proved = true;
        let (near, far) = (pair.near.clone(), pair.far.clone());
        if first {
            self.counters.peer_streams_in += 1;
            self.stream_from_now(conn);
        }
        let owner = ShardId(shard_of_domain(&far, self.settings.shards));
        if owner == self.id {
            self.peer_heard(&near, &far);
        } else {
            self.posts.heard(owner, &near, &far);
        }
    }
}
