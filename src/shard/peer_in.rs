//! A peer connected to us: header, TLS, features, EXTERNAL, and its stanzas.
//!
//! What may follow what is `xmpp::stream`'s table; dialback is in `peer_dialback.rs`. Which pairs of
//! domains the far end may speak for is a list per stream, asked for every stanza. RFC 6120, 4 to 6
//! and 8.1; XEP-0178, 3. `from` is **never** changed: it is true or the stream ends.

use crate::address::{AddressRef, prepare_domain};
use crate::envelope::{Kind, Purpose};
use crate::limits::{LOGIN_ATTEMPTS_MAX, PRELOGIN_ELEMENTS_MAX, PRELOGIN_OCTETS_MAX};
use crate::policy::{PeerAuth, Security};
use crate::shard::Shard;
use crate::shard::account::Origin;
use crate::shard::bound::{is_whole_iq, kind_of};
use crate::shard::conn::{Conn, Role};
use crate::shard::deliver::{Carry, Text};
use crate::shard::kernel::Question;
use crate::shard::services::disco;
use crate::tls;
use crate::xmpp::fault::{StanzaFault, StreamFault};
use crate::xmpp::forged::{self, Author, Forged};
use crate::xmpp::frame::{Content, Framer};
use crate::xmpp::header::Header;
use crate::xmpp::sasl::{self, SaslFault};
use crate::xmpp::splice::Edits;
use crate::xmpp::stanza::{self, Stanza};
use crate::xmpp::stream::{Input, Party, Stream, Trust};
use crate::xmpp::{read, write};

/// A stream that a peer opened.
#[derive(Debug)]
pub(crate) struct PeerIn {
    stream: Stream,
    pub(super) security: Security,
    said_header: bool,
    /// Our id of the stream, which keys depend on.
    pub(super) id: String,
    /// Whom its header speaks to: a domain of ours.
    near: Option<String>,
    /// Whom its header speaks for, unproven.
    far: Option<String>,
    lang: Option<Box<str>>,
    /// What its certificates show, if it showed any.
    pub(super) verdict: Option<Box<tls::Verdict>>,
    /// It asked for a verdict on a key of ours: a good reason to come and not to prove anything.
    pub(super) served: bool,
    /// EXTERNAL was offered.
    external: bool,
    attempts: u8,
    octets: u64,
    elements: u32,
    pub(super) pairs: Vec<Pair>,
}

/// A domain of theirs that wants to send to a domain of ours.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) far: String,
    pub(super) near: String,
    /// It may; before, its key is being judged.
    pub(super) proved: bool,
}

impl PeerIn {
    pub(crate) fn new(security: Security) -> Self {
        let stream = match security {
            Security::Direct => Stream::Securing,
            Security::StartTls | Security::Optional => Stream::Opening(Trust::Clear),
        };
        Self {
            stream,
            security,
            said_header: false,
            id: String::new(),
            near: None,
            far: None,
            lang: None,
            verdict: None,
            served: false,
            external: false,
            attempts: 0,
            octets: 0,
            elements: 0,
            pairs: Vec::new(),
        }
    }

    /// Some pair is proven.
    pub(crate) fn is_proved(&self) -> bool {
        self.pairs.iter().any(|pair| pair.proved)
    }

    pub(crate) fn has_said_header(&self) -> bool {
        self.said_header
    }

    pub(super) fn pair(&self, far: &str, near: &str) -> Option<&Pair> {
        self.pairs.iter().find(|it| it.far == far && it.near == near)
    }

    fn proved(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(|pair| pair.proved)
    }

    pub(crate) fn far(&self) -> String {
        let proved = self.proved().next().map(|pair| pair.far.clone());
        proved.or_else(|| self.far.clone()).unwrap_or_default()
    }

    pub(crate) fn near(&self) -> String {
        let proved = self.proved().next().map(|pair| pair.near.clone());
        proved.or_else(|| self.near.clone()).unwrap_or_default()
    }

    pub(crate) fn state(&self) -> &'static str {
        if self.is_proved() { "open" } else { self.stream.name() }
    }
}

impl Shard {
    /// The peer's stream header.
    pub(super) fn peer_open(&mut self, conn: &mut Conn, frame: &[u8], header: &Header) {
        let Role::PeerIn(peer) = &mut conn.role else { return };
        peer.octets += frame.len() as u64;
        match peer.stream.handle(Party::Peer, Input::Open) {
            Ok(next) => peer.stream = next,
            Err(fault) => return self.stream_fault(conn, fault),
        }
        peer.said_header = false;
        let domain = |range| {
            let raw = Header::value(frame, range)?;
            Some(prepare_domain(&raw).map(String::from))
        };
        let to = domain(&header.to).and_then(Result::ok);
        let from = domain(&header.from);
        let known = to.as_deref().is_some_and(|to| self.settings.domain(to).is_some());
        let restarted = peer.stream == Stream::Negotiating(Trust::Proved);
        let fault = if header.content != Content::Server {
            Some(StreamFault::InvalidNamespace)
        } else if header.version(frame).is_none_or(|(major, _)| major < 1) {
            Some(StreamFault::UnsupportedVersion)
        } else if !known {
            Some(StreamFault::HostUnknown)
        } else if matches!(from, Some(Err(_))) {
            Some(StreamFault::ImproperAddressing)
        } else if matches!(&from, Some(Ok(from)) if self.settings.domain(from).is_some()) {
            // Nobody outside speaks for a domain of ours.
            Some(StreamFault::InvalidFrom)
        } else if restarted && (to != peer.near || from.clone().and_then(Result::ok) != peer.far) {
            // What was proven was proven for the other names.
            Some(StreamFault::NotAuthorized)
        } else {
            None
        };
        if known {
            peer.near = to;
        }
        peer.far = from.and_then(Result::ok);
        peer.lang =
            Header::value(frame, &header.lang).filter(|l| l.len() <= 35).map(|l| (*l).into());
        if let Some(fault) = fault {
            return self.stream_fault(conn, fault);
        }
        self.header_came(conn);
        self.peer_say_header(conn);
        self.peer_features(conn);
    }

    /// Our own stream header: the response, or what goes before a stream error.
    pub(super) fn peer_say_header(&mut self, conn: &mut Conn) {
        let id = self.random.id();
        let Role::PeerIn(peer) = &mut conn.role else { return };
        peer.said_header = true;
        peer.id = id;
        let first = || self.settings.domains.first().map(|domain| domain.name.as_str());
        let header = write::StreamHeader {
            content: Content::Server,
            dialback: true,
            from: peer.near.as_deref().or_else(first),
            to: peer.far.as_deref(),
            id: Some(&peer.id),
            lang: Some("en"),
        };
        let mut text = Vec::new();
        header.write(&mut text);
        self.write(conn.id, |out| out.extend_from_slice(&text));
    }

    fn peer_features(&mut self, conn: &mut Conn) {
        let Role::PeerIn(peer) = &mut conn.role else { return };
        let mut features = write::Features::default();
        let more = disco::peer_features();
        match peer.stream {
            Stream::Negotiating(Trust::Clear) => {
                let required = peer.security != Security::Optional;
                // Without a certificate of ours there is nothing to offer.
                let can = self.settings.tls.choose(peer.near.as_deref()).is_some();
                features.starttls = (required || can).then_some(required);
                features.dialback = !required;
            }
            Stream::Negotiating(Trust::Secured) => {
                let rule = peer.far.as_deref().map(|far| self.settings.policy.verdict(far).0);
                let proves = match (&peer.verdict, &peer.far) {
                    (Some(verdict), Some(far)) => {
                        verdict.proves(far, tls::Use::S2s).map_err(|it| it.to_string())
                    }
                    _ => Err("the peer showed no certificate".to_owned()),
                };
                let auth = rule.map_or(PeerAuth::Both, |rule| rule.auth);
                peer.external = proves.is_ok()
                    && rule.is_some_and(|rule| rule.allow)
                    && auth != PeerAuth::Dialback;
                if let (PeerAuth::External, Err(reason)) = (auth, proves) {
                    self.way_troubled(conn, "auth", || reason);
                    return self.stream_fault(conn, StreamFault::NotAuthorized);
                }
                features.dialback = auth != PeerAuth::External;
                features.more_raw = &more;
                if peer.external {
                    features.mechanisms = &["EXTERNAL"];
                }
            }
            _ => {
                features.dialback = true;
                features.more_raw = &more;
            }
        }
        let mut text = Vec::new();
        features.write(&mut text);
        self.write(conn.id, |out| out.extend_from_slice(&text));
    }

    /// The handshake is complete: all that was learnt before is forgotten (RFC 6120, 5.4.3.3).
    pub(super) fn peer_secured(&mut self, conn: &mut Conn) {
        let Role::PeerIn(peer) = &mut conn.role else { return };
        match peer.stream.handle(Party::Peer, Input::Secured) {
            Ok(next) => peer.stream = next,
            Err(fault) => return self.stream_fault(conn, fault),
        }
        (peer.near, peer.far, peer.lang) = (None, None, None);
        // RFC 6120, 5.4.3.3: what was shown in clear text is forgotten.
        peer.pairs.clear();
        peer.said_header = false;
        conn.framer = Framer::default();
        self.header_came(conn);
        let chain = conn.tls.as_ref().map(|tls| tls.peer_certificates().to_vec());
        let Some(chain) = chain.filter(|chain| !chain.is_empty()) else { return };
        let ticket = Self::ticket_of(conn.id);
        self.park(conn, Question::Judge { ticket, chain, usage: tls::Usage::AsClient });
    }

    /// The chain a far end showed is judged: an inbound peer's, or that of a server we connected to.
    pub(super) fn judged(&mut self, conn: &mut Conn, verdict: tls::Verdict) {
        match &mut conn.role {
            Role::PeerIn(peer) => peer.verdict = Some(Box::new(verdict)),
            Role::PeerOut(_) => self.way_judged(conn, &verdict),
            Role::Sip(_) => self.sip_judged(conn, verdict),
            Role::Login(_) | Role::Bound(_) => {}
        }
    }

    /// A first-level element of a peer.
    pub(super) fn peer_element(&mut self, conn: &mut Conn, frame: &[u8], stanza: &Stanza) {
        let Role::PeerIn(peer) = &mut conn.role else { return };
        let proved = peer.is_proved();
        if proved && stanza.kind.is_stanza() {
            return self.peer_stanza(conn, frame, stanza);
        }
        peer.octets += frame.len() as u64;
        peer.elements += stanza.elements;
        if !proved && (peer.octets > PRELOGIN_OCTETS_MAX || peer.elements > PRELOGIN_ELEMENTS_MAX) {
            self.counters.prelogin_limits += 1;
            return self.stream_fault(conn, StreamFault::PolicyViolation);
        }
        let input = match stanza.kind {
            stanza::Kind::StartTls => Input::StartTls,
            stanza::Kind::Auth => Input::Auth,
            stanza::Kind::Response | stanza::Kind::SaslAbort => Input::Response,
            stanza::Kind::DbResult | stanza::Kind::DbVerify => Input::Dialback,
            stanza::Kind::StreamError => return self.close_stream(conn),
            // RFC 6120, 4.9.3.12.
            kind if kind.is_stanza() => {
                return self.stream_fault(conn, StreamFault::NotAuthorized);
            }
            _ => Input::Other,
        };
        match peer.stream.handle(Party::Peer, input) {
            Ok(next) => peer.stream = next,
            Err(fault) => return self.stream_fault(conn, fault),
        }
        match input {
            Input::StartTls => self.peer_starttls(conn),
            Input::Auth => self.peer_auth(conn, frame, stanza),
            Input::Response if stanza.kind == stanza::Kind::SaslAbort => {
                self.peer_auth_failed(conn, SaslFault::Aborted);
            }
            Input::Response => self.peer_external(conn, &read::text_of(frame)),
            Input::Dialback => self.peer_dialback(conn, frame, stanza),
            _ => {}
        }
    }

    /// RFC 6120, 5.4.2.
    fn peer_starttls(&mut self, conn: &mut Conn) {
        let Role::PeerIn(peer) = &conn.role else { return };
        let store = &self.settings.tls;
        if store.choose(peer.near.as_deref()).is_none() {
            self.write(conn.id, write::tls_failure);
            return self.close(conn, crate::shard::kernel::Ending::Orderly);
        }
        let session = tls::Session::server(store, tls::Use::S2s, peer.near.as_deref());
        self.write(conn.id, write::proceed);
        conn.tls = Some(Box::new(session));
        conn.framer = Framer::default();
    }

    fn peer_auth(&mut self, conn: &mut Conn, frame: &[u8], stanza: &Stanza) {
        let Role::PeerIn(peer) = &conn.role else { return };
        if conn.tls.is_none() {
            return self.peer_auth_failed(conn, SaslFault::EncryptionRequired);
        }
        let named = stanza.attr(frame, b"mechanism");
        // A mechanism that was not offered is not accepted.
        if !peer.external || named.as_deref() != Some("EXTERNAL") {
            return self.peer_auth_failed(conn, SaslFault::InvalidMechanism);
        }
        let payload = read::text_of(frame);
        if payload.is_empty() {
            // RFC 6120, 6.4.2: it comes with the next element.
            return self.write(conn.id, |out| write::sasl_challenge("", out));
        }
        self.peer_external(conn, &payload);
    }

    /// XEP-0178, 3: the identity is none, or the one that the certificate was checked for.
    fn peer_external(&mut self, conn: &mut Conn, payload: &str) {
        let Role::PeerIn(peer) = &mut conn.role else { return };
        let (Some(far), Some(near)) = (peer.far.clone(), peer.near.clone()) else {
            return self.peer_auth_failed(conn, SaslFault::NotAuthorized);
        };
        let checked =
            sasl::decode(payload.trim()).and_then(|payload| sasl::check_external(&payload, &far));
        if let Err(fault) = checked {
            return self.peer_auth_failed(conn, fault);
        }
        match peer.stream.handle(Party::Peer, Input::Proved) {
            Ok(next) => peer.stream = next,
            Err(fault) => return self.stream_fault(conn, fault),
        }
        let index = peer.pairs.iter().position(|it| it.far == far && it.near == near);
        let index = index.unwrap_or_else(|| {
            peer.pairs.push(Pair { far, near, proved: false });
            peer.pairs.len() - 1
        });
        self.write(conn.id, |out| write::sasl_success("", out));
        conn.framer = Framer::default();
        self.pair_proved(conn, index);
    }

    /// RFC 6120, 6.4.5: it may try again, or go on with dialback.
    fn peer_auth_failed(&mut self, conn: &mut Conn, fault: SaslFault) {
        self.counters.sasl_faults[fault.index()] += 1;
        self.write(conn.id, |out| write::sasl_failure(fault.name(), None, out));
        let Role::PeerIn(peer) = &mut conn.role else { return };
        peer.attempts += 1;
        if peer.attempts >= LOGIN_ATTEMPTS_MAX {
            return self.stream_fault(conn, StreamFault::PolicyViolation);
        }
        match peer.stream.handle(Party::Peer, Input::Failed) {
            Ok(next) => peer.stream = next,
            Err(fault) => self.stream_fault(conn, fault),
        }
    }

    /// A stanza on a stream where some pair is proven (RFC 6120, 8.1).
    fn peer_stanza(&mut self, conn: &mut Conn, frame: &[u8], stanza: &Stanza) {
        let Some(kind) = kind_of(stanza) else { return };
        self.account.offer(kind);
        let mut from_scratch = String::new();
        let mut to_scratch = std::mem::take(&mut self.scratch);
        let addresses = stanza.from.zip(stanza.to);
        let raw = addresses.map(|(from, to)| (from.value(frame), to.value(frame)));
        let parsed = raw.as_ref().and_then(|(from, to)| {
            let from = AddressRef::parse(from, &mut from_scratch).ok()?;
            Some((from, AddressRef::parse(to, &mut to_scratch).ok()?))
        });
        let Role::PeerIn(peer) = &conn.role else { return };
        let fault = match parsed {
            // RFC 6120, 8.1.1.2 and 4.9.3.7.
            None => Some(StreamFault::ImproperAddressing),
            Some((from, to)) => {
                let proved = |it: &Pair| it.proved && it.far == from.domain();
                if peer.pairs.iter().any(|it| proved(it) && it.near == to.domain()) {
                    None
                } else if !peer.pairs.iter().any(proved) {
                    // RFC 6120, 8.1.2.2.
                    Some(StreamFault::InvalidFrom)
                } else if self.settings.domain(to.domain()).is_none() {
                    Some(StreamFault::HostUnknown)
                } else {
                    Some(StreamFault::NotAuthorized)
                }
            }
        };
        match (fault, parsed) {
            (None, Some((from, to))) => self.peer_carry(conn, kind, frame, stanza, from, to),
            (fault, _) => {
                self.account.refuse(kind);
                self.stream_fault(conn, fault.unwrap_or(StreamFault::ImproperAddressing));
            }
        }
        to_scratch.clear();
        self.scratch = to_scratch;
    }

    /// It is who it says: on to the receiver.
    fn peer_carry(
        &mut self,
        conn: &Conn,
        kind: Kind,
        frame: &[u8],
        stanza: &Stanza,
        from: AddressRef<'_>,
        to: AddressRef<'_>,
    ) {
        let Role::PeerIn(peer) = &conn.role else { return };
        let settings = &self.settings;
        let is_ours = |domain: &str| settings.domain(domain).is_some();
        let forged = forged::find(frame, stanza, Author::Peer, to, is_ours);
        let refused = forged == Forged::Refused;
        let cuts = if let Forged::Cut(cuts) = forged { cuts } else { Vec::new() };
        self.counters.forged_cut += u64::from(!cuts.is_empty());
        let lang = peer.lang.as_deref();
        let edits = Edits { lang, exchange: true, cuts: &cuts, ..Edits::default() };
        let text = Text::Original { frame, stanza, edits };
        let purpose = Purpose::read(kind, stanza.type_.map(|t| t.raw(frame)));
        let whole = kind != Kind::Iq || purpose.is_some_and(|it| is_whole_iq(stanza, it));
        let (origin, since) = (None, self.now.moment);
        let carry = Carry { origin, since, kind, purpose: Purpose::Normal, from, to, text };
        match purpose {
            Some(purpose) if refused => {
                self.counters.forged_refused += 1;
                self.account.refuse(kind);
                self.bounce(&Carry { purpose, ..carry }, StanzaFault::NotAllowed);
            }
            Some(purpose) if whole => {
                self.account.take(kind);
                let origin = Some(Origin::plain(self.id.0, kind));
                self.route(&Carry { origin, purpose, ..carry });
            }
            // A broken answer is not answered (RFC 6120, 8.3.1).
            Some(purpose) if !purpose.answerable() => self.account.refuse(kind),
            _ => {
                self.account.refuse(kind);
                self.bounce(&carry, StanzaFault::BadRequest);
            }
        }
    }
}
