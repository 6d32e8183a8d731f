//! We connected to a peer: header, features, TLS, the judgement of its certificate, and the proof
//! of who we are.
//!
//! What may follow what is `peer::Talk`'s table. RFC 6120, 4 to 6; XEP-0178; XEP-0220, 2.1. What the
//! far end sends on this stream is answers only: there is **no** bidirectional stream (XEP-0288) yet.

use std::net::SocketAddr;

use crate::dns;
use crate::limits::{DIALBACK_TIME_MAX, NEGOTIATE_TIME_MAX};
use crate::peer::{Heard, Input, Method, Offer, Stage, Talk, method};
use crate::policy::{PeerAuth, Security};
use crate::shard::conn::{Conn, Role};
use crate::shard::kernel::{ConnId, Question};
use crate::shard::outbox::Outbox;
use crate::shard::peer_dialback::{Said, read_dialback};
use crate::shard::post::Verdict;
use crate::shard::ways::StreamEnd;
use crate::shard::{Shard, kernel};
use crate::stdx::Key;
use crate::tls;
use crate::xmpp::dialback::{self, Outcome};
use crate::xmpp::fault::{StanzaFault, StreamFault};
use crate::xmpp::frame::{Content, Framer};
use crate::xmpp::header::Header;
use crate::xmpp::stanza::{Kind, Ns, Stanza};
use crate::xmpp::stream::Trust;
use crate::xmpp::{read, sasl, write};

/// A stream that we opened.
#[derive(Debug)]
pub(crate) struct PeerOut {
    /// The way it belongs to.
    pub(super) key: Key,
    near: String,
    far: String,
    pub(super) talk: Talk,
    /// TLS from the first octet.
    direct: bool,
    /// The rule lets it do without TLS.
    optional: bool,
    auth: PeerAuth,
    /// Their id of the stream: our key depends on it.
    stream_id: String,
    offer: Offer,
    /// They refused our certificate on this connection.
    external_refused: bool,
    /// Why it ends, if that is more than a target that is no good.
    pub(super) end: Option<StreamEnd>,
}

impl PeerOut {
    pub(crate) fn far(&self) -> String {
        self.far.clone()
    }

    pub(crate) fn near(&self) -> String {
        self.near.clone()
    }

    pub(crate) fn state(&self) -> &'static str {
        self.talk.name()
    }
}

impl Shard {
    /// The connection stands: TLS or our header.
    pub(super) fn way_begin(&mut self, key: Key, id: ConnId, remote: SocketAddr) {
        let Some(way) = self.ways.get(key) else { return };
        let rule = self.settings.policy.verdict(&way.far).0;
        let target = way.target.as_ref();
        let direct = target.is_some_and(|it| it.kind == dns::Kind::DirectTls);
        let of_target = rule.targets.iter().find(|it| it.address == remote).map(|it| it.security);
        let peer = PeerOut {
            key,
            near: way.near.clone(),
            far: way.far.clone(),
            talk: if direct { Talk::Securing } else { Talk::Opening(Trust::Clear) },
            direct,
            optional: of_target.unwrap_or(rule.security) == Security::Optional,
            auth: rule.auth,
            stream_id: String::new(),
            offer: Offer::default(),
            external_refused: false,
            end: None,
        };
        let mut conn =
            Box::new(Conn::new(id, Role::PeerOut(Box::new(peer)), remote, self.now.moment));
        self.watch(&mut conn, self.now.moment + NEGOTIATE_TIME_MAX);
        self.conns.insert(conn, Outbox::default());
        let Some(mut conn) = self.conns.take(id) else { return };
        if direct {
            self.way_greet(&mut conn);
        } else {
            self.way_header(&conn);
        }
        self.read_on(&conn);
        self.conns.put_back(conn);
    }

    /// Our side of TLS begins.
    fn way_greet(&mut self, conn: &mut Conn) {
        let Role::PeerOut(peer) = &conn.role else { return };
        let ours = self.settings.tls.find(&peer.near).map(|_| peer.near.as_str());
        let session =
            tls::Session::client(&self.settings.tls, tls::Use::S2s, ours, &peer.far, peer.direct);
        match session {
            Ok(session) => {
                conn.tls = Some(Box::new(session));
                conn.framer = Framer::default();
                self.mark(conn.id);
            }
            Err(fault) => self.tls_failed(conn, &fault),
        }
    }

    fn way_header(&mut self, conn: &Conn) {
        let Role::PeerOut(peer) = &conn.role else { return };
        let header = write::StreamHeader {
            content: Content::Server,
            dialback: true,
            from: Some(&peer.near),
            to: Some(&peer.far),
            ..write::StreamHeader::default()
        };
        let mut text = Vec::new();
        header.write(&mut text);
        self.write(conn.id, |out| out.extend_from_slice(&text));
    }

    /// The TLS handshake is complete: whose certificate is it?
    pub(super) fn way_secured(&mut self, conn: &mut Conn) {
        conn.framer = Framer::default();
        if !self.way_handle(conn, Heard::Secured) {
            return;
        }
        let Role::PeerOut(peer) = &conn.role else { return };
        if peer.auth == PeerAuth::Dialback {
            // Identity rests on DNS alone, whatever it showed.
            return self.way_header(conn);
        }
        let chain = conn.tls.as_ref().map(|tls| tls.peer_certificates().to_vec());
        let question = Question::Judge {
            ticket: Self::ticket_of(conn.id),
            chain: chain.unwrap_or_default(),
            usage: tls::Usage::AsServer,
        };
        self.park(conn, question);
    }

    /// What the server's certificates show.
    pub(super) fn way_judged(&mut self, conn: &mut Conn, verdict: &tls::Verdict) {
        let Role::PeerOut(peer) = &mut conn.role else { return };
        match verdict.proves(&peer.far, tls::Use::S2s) {
            Ok(()) => {
                peer.offer.good = true;
                self.way_header(conn);
            }
            Err(unproven) => {
                self.way_troubled(conn, "auth", || unproven.to_string());
                self.close(conn, kernel::Ending::Orderly);
            }
        }
    }

    /// Their stream header.
    pub(super) fn way_open(&mut self, conn: &mut Conn, frame: &[u8], header: &Header) {
        if !self.way_handle(conn, Heard::Header) {
            return;
        }
        let Role::PeerOut(peer) = &mut conn.role else { return };
        peer.stream_id = Header::value(frame, &header.id).unwrap_or_default().into_owned();
        peer.offer.dialback = header.dialback && !peer.stream_id.is_empty();
        let fault = if header.content != Content::Server {
            Some(StreamFault::InvalidNamespace)
        } else if header.version(frame).is_none_or(|(major, _)| major < 1) {
            Some(StreamFault::UnsupportedVersion)
        } else {
            None
        };
        if let Some(fault) = fault {
            self.stream_fault(conn, fault);
        }
    }

    /// A first-level element on a stream that we opened.
    pub(super) fn way_element(&mut self, conn: &mut Conn, frame: &[u8], stanza: &Stanza) {
        match stanza.kind {
            Kind::Features => self.way_features(conn, frame, stanza),
            Kind::Proceed => {
                if self.way_handle(conn, Heard::Proceed) {
                    self.way_greet(conn);
                }
            }
            Kind::TlsFailure => {
                self.way_troubled(conn, "tls", || "the peer refused STARTTLS".to_owned());
                self.close_stream(conn);
            }
            Kind::SaslSuccess => {
                if self.way_handle(conn, Heard::Success) {
                    conn.framer = Framer::default();
                    self.way_header(conn);
                }
            }
            Kind::SaslFailure => self.way_refused(conn, frame, stanza),
            Kind::DbResult | Kind::DbVerify => self.way_dialback(conn, frame, stanza),
            Kind::StreamError => {
                let condition = first_child(frame, stanza);
                self.way_troubled(conn, "stream", || format!("the peer said: {condition}"));
                self.close_stream(conn);
            }
            // RFC 6120, 4.9.3.12: we offered nothing that would let it speak for somebody here.
            kind if kind.is_stanza() => self.stream_fault(conn, StreamFault::NotAuthorized),
            _ => self.stream_fault(conn, StreamFault::UnsupportedStanzaType),
        }
    }

    /// `<stream:features/>`: TLS first, then we may verify keys and show who we are.
    fn way_features(&mut self, conn: &mut Conn, frame: &[u8], stanza: &Stanza) {
        let secured = conn.tls.is_some();
        let Role::PeerOut(peer) = &mut conn.role else { return };
        let mut starttls = false;
        peer.offer.secured = secured;
        peer.offer.external = false;
        for child in stanza.children() {
            let octets = child.octets(frame);
            match child.ns {
                Ns::Tls => starttls = true,
                Ns::Sasl => {
                    let named = |it: &[u8]| read::text_of(it).trim() == "EXTERNAL";
                    peer.offer.external |= read::children(octets).any(named);
                }
                _ => {}
            }
        }
        peer.offer.external &=
            !peer.external_refused && self.settings.tls.find(&peer.near).is_some();
        if peer.talk == Talk::Announcing(Trust::Clear) {
            if starttls {
                if self.way_handle(conn, Heard::AskTls) {
                    self.write(conn.id, write::starttls);
                }
                return;
            }
            if !peer.optional {
                self.way_troubled(conn, "tls", || "the peer offers no STARTTLS".to_owned());
                return self.close_stream(conn);
            }
        }
        if !self.way_handle(conn, Heard::Features) {
            return;
        }
        let Role::PeerOut(peer) = &conn.role else { return };
        let (key, talk) = (peer.key, peer.talk);
        self.way_usable(key);
        if talk == Talk::Ready(Trust::Proved) {
            self.way_proved(conn);
        } else {
            self.way_prove(conn);
        }
    }

    /// Keys may be verified here from now on.
    fn way_usable(&mut self, key: Key) {
        if self.ways.get_mut(key).is_some_and(|way| way.handle(Input::Usable).is_ok()) {
            self.way_on(key);
        }
    }

    /// Shows who we are, once a stanza waits for it.
    pub(super) fn way_prove(&mut self, conn: &mut Conn) {
        let now = self.now.moment;
        let Role::PeerOut(peer) = &conn.role else { return };
        let (key, Talk::Ready(_)) = (peer.key, peer.talk) else { return };
        let Some(way) = self.ways.get_mut(key) else { return };
        if way.queue.is_empty() || way.prove_at > now || conn.is_closing() {
            return;
        }
        match method(peer.auth, peer.offer) {
            Err(reason) => {
                self.way_troubled(conn, "auth", || reason.to_owned());
                self.close_stream(conn);
            }
            Ok(Method::External) => {
                let payload = sasl::external_payload(&peer.near);
                // What is written until `<success/>` would be lost with the stream before it.
                if way.handle(Input::Busy).is_ok() && self.way_handle(conn, Heard::AskExternal) {
                    self.write(conn.id, |out| write::sasl_auth("EXTERNAL", Some(&payload), out));
                }
            }
            Ok(Method::Dialback) => {
                let secrets = self.secrets();
                let (near, far) = (peer.near.clone(), peer.far.clone());
                let shown = secrets.key(&far, &near, &peer.stream_id);
                if self.way_handle(conn, Heard::ShowKey) {
                    self.write(conn.id, |out| dialback::result_request(out, &near, &far, &shown));
                    self.watch(conn, now + DIALBACK_TIME_MAX);
                }
            }
        }
    }

    /// They don't take our certificate: dialback on the same stream where the rule allows it.
    fn way_refused(&mut self, conn: &mut Conn, frame: &[u8], stanza: &Stanza) {
        if !self.way_handle(conn, Heard::Refused) {
            return;
        }
        let condition = first_child(frame, stanza);
        self.way_troubled(conn, "auth", || format!("the peer refused EXTERNAL: {condition}"));
        let Role::PeerOut(peer) = &mut conn.role else { return };
        peer.external_refused = true;
        peer.offer.external = false;
        let fields = vec![
            ("peer", peer.far.clone()),
            ("local", peer.near.clone()),
            ("reason", condition.to_string()),
        ];
        let (key, allowed) = (peer.key, method(peer.auth, peer.offer).is_ok());
        self.notice("peer_external_refused", fields);
        if !allowed {
            return self.close_stream(conn);
        }
        self.way_usable(key);
        self.way_prove(conn);
    }

    /// Answers of dialback; each needs a question on this stream (XEP-0220, 3.1).
    fn way_dialback(&mut self, conn: &mut Conn, frame: &[u8], stanza: &Stanza) {
        let Role::PeerOut(peer) = &conn.role else { return };
        let Ok(said) = read_dialback(frame, stanza) else {
            return self.stream_fault(conn, StreamFault::BadFormat);
        };
        let matches = |from: &str, to: &str| from == peer.far && to == peer.near;
        match said {
            Said::ResultAnswer { from, to, outcome }
                if matches(&from, &to) && matches!(peer.talk, Talk::Dialback(_)) =>
            {
                self.way_result(conn, outcome);
            }
            Said::VerifyAnswer { from, to, id, outcome } if matches(&from, &to) => {
                let answered = match self.ways.get_mut(peer.key) {
                    Some(way) if way.stage().key() == Some(conn.id) => way.judged(&id),
                    _ => Vec::new(),
                };
                if answered.is_empty() {
                    self.counters.dialback_unsolicited += 1;
                }
                let verdict = match outcome {
                    Outcome::Valid => Verdict::Valid,
                    Outcome::Invalid => Verdict::Invalid,
                    Outcome::Error(condition) => Verdict::Failed(condition),
                };
                for it in answered {
                    let (shard, ticket) = (kernel::ShardId(it.asker), kernel::Ticket(it.ticket));
                    self.tell_verdict(shard, ticket, &to, &from, verdict);
                }
            }
            _ => self.counters.dialback_unsolicited += 1,
        }
    }

    /// What they say to our key.
    fn way_result(&mut self, conn: &mut Conn, outcome: Outcome) {
        match outcome {
            Outcome::Valid => self.way_proved(conn),
            Outcome::Invalid => {
                // XEP-0220, 2.1.1: another target would say the same.
                self.way_troubled(conn, "dialback", || {
                    "the peer called our key invalid".to_owned()
                });
                self.way_end(conn, StreamEnd::Bounce(StanzaFault::InternalServerError));
            }
            Outcome::Error(condition) => {
                let why = format!("the peer could not judge our key: {}", condition.name());
                if !self.way_handle(conn, Heard::Unjudged) {
                    return;
                }
                let Role::PeerOut(peer) = &conn.role else { return };
                let (key, far, near) = (peer.key, peer.far.clone(), peer.near.clone());
                // XEP-0220, 2.4.2: the stream lives on, but not every stanza asks anew.
                let pause = crate::limits::BACKOFF_MAX / 2;
                if let Some(way) = self.ways.get_mut(key) {
                    way.prove_at = self.now.moment + pause;
                }
                self.counters.peer_setup_failed += 1;
                let fields = vec![
                    ("peer", far),
                    ("local", near),
                    ("dir", "out".to_owned()),
                    ("step", "dialback".to_owned()),
                    ("reason", why),
                    ("next_try_s", pause.as_secs().to_string()),
                    ("target", conn.remote.to_string()),
                ];
                self.notice("peer_setup_failed", fields);
                self.bounce_queue(key, StanzaFault::RemoteServerTimeout);
                self.watch(conn, self.now.moment + DIALBACK_TIME_MAX);
            }
        }
    }

    /// The far domain accepted who we are: what waits goes out, in its order.
    fn way_proved(&mut self, conn: &mut Conn) {
        if !self.way_handle(conn, Heard::Valid) {
            return;
        }
        let Role::PeerOut(peer) = &conn.role else { return };
        let key = peer.key;
        let Some(way) = self.ways.get_mut(key) else { return };
        if way.handle(Input::Proved).is_err() {
            return;
        }
        way.used = self.now.moment;
        if let Some(target) = way.target.take() {
            self.ways.failures.forget(target.address, target.port);
        }
        self.counters.peer_streams_out += 1;
        self.stream_from_now(conn);
        self.way_on(key);
    }

    /// Advances the stream's state; false: it ended with a fault.
    fn way_handle(&mut self, conn: &mut Conn, heard: Heard) -> bool {
        let Role::PeerOut(peer) = &mut conn.role else { return false };
        match peer.talk.handle(heard) {
            Ok(next) => {
                peer.talk = next;
                true
            }
            Err(fault) => {
                self.stream_fault(conn, fault);
                false
            }
        }
    }

    fn way_end(&mut self, conn: &mut Conn, end: StreamEnd) {
        if let Role::PeerOut(peer) = &mut conn.role {
            peer.end = Some(end);
        }
        self.close_stream(conn);
    }

    /// The stream has not come as far as it should by now.
    pub(super) fn way_overdue(&mut self, conn: &mut Conn) {
        let Role::PeerOut(peer) = &conn.role else { return };
        let Some(way) = self.ways.get(peer.key) else { return self.close_stream(conn) };
        match peer.talk {
            Talk::Ready(_) if !way.is_wanted() => self.way_end(conn, StreamEnd::Unwanted),
            // Keys that nobody answers have their own deadline; so has the queue.
            Talk::Ready(_) => self.watch(conn, self.now.moment + NEGOTIATE_TIME_MAX),
            talk => {
                let step = talk.step();
                self.way_troubled(conn, step, || "no answer in time".to_owned());
                self.close(conn, kernel::Ending::Orderly);
            }
        }
    }

    /// The outbox of a way has drained: what waits may follow.
    pub(super) fn way_has_room(&mut self, id: ConnId) {
        let Some(Role::PeerOut(peer)) = self.conns.get(id).map(|conn| &conn.role) else { return };
        let key = peer.key;
        if self.ways.get(key).is_some_and(|way| way.stage() == Stage::Open(id)) {
            self.way_drain(key, id);
        }
    }
}

/// The name of an element's first child, for whom it tells something.
fn first_child<'a>(frame: &'a [u8], stanza: &Stanza) -> std::borrow::Cow<'a, str> {
    let name = stanza.children().first().map(|child| read::name_of(child.octets(frame)));
    let name = name.unwrap_or_default();
    let local = name.rsplit(|octet| *octet == b':').next().unwrap_or_default();
    String::from_utf8_lossy(local)
}
