//! A client until it has a resource: header, features, STARTTLS, login, bind.
//!
//! RFC 6120, 4 to 7. What may follow what is `xmpp::stream`'s table; this file does what the table
//! allows. The SASL exchange is in `login.rs`, what comes after the bind in `bound.rs`.

use crate::address::Address;
use crate::home::Readiness;
use crate::limits::{PRELOGIN_ELEMENTS_MAX, PRELOGIN_OCTETS_MAX};
use crate::policy::Security;
use crate::route::shard_of;
use crate::shard::Shard;
use crate::shard::conn::{Arrival, Bound, Conn, Role};
use crate::shard::kernel::{ConnId, ShardId};
use crate::shard::login::{self, Exchange, Offer};
use crate::shard::services::disco;
use crate::tls;
use crate::xmpp::fault::{StanzaFault, StreamFault};
use crate::xmpp::frame::{Content, Framer};
use crate::xmpp::header::Header;
use crate::xmpp::stanza::{ChildKind, Kind, Ns, Stanza};
use crate::xmpp::stream::{Input, Party, Stream, Trust};
use crate::xmpp::{read, splice, write};

/// What is known of a client that has no resource yet.
#[derive(Debug)]
pub(crate) struct Login {
    pub(super) stream: Stream,
    security: Security,
    /// Our domain it spoke to, frozen with its first header.
    pub(super) domain: Option<String>,
    pub(super) lang: Option<Box<str>>,
    said_header: bool,
    /// Octets and elements so far: a stranger has a small, constant budget.
    octets: u64,
    elements: u32,
    pub(super) attempts: u8,
    pub(super) exchange: Exchange,
    /// Who it proved to be; after the bind request with the resource.
    pub(super) user: Option<Address>,
}

impl Login {
    pub(crate) fn new(security: Security) -> Self {
        let stream = match security {
            Security::Direct => Stream::Securing,
            Security::StartTls | Security::Optional => Stream::Opening(Trust::Clear),
        };
        Self {
            stream,
            security,
            domain: None,
            lang: None,
            said_header: false,
            octets: 0,
            elements: 0,
            attempts: 0,
            exchange: Exchange::None,
            user: None,
        }
    }

    pub(crate) fn is_proved(&self) -> bool {
        self.stream.is_proved()
    }

    /// The bare address it has proven or is about to prove.
    pub(super) fn claims(&self) -> Option<&str> {
        self.user.as_ref().or_else(|| self.exchange.user()).map(Address::bare)
    }

    /// It has logged in and opened the stream anew: what comes next is a resource, or its session.
    pub(super) fn may_bind(&self) -> bool {
        self.stream == Stream::Negotiating(Trust::Proved)
    }

    pub(crate) fn has_said_header(&self) -> bool {
        self.said_header
    }
}

impl Shard {
    /// The client's stream header.
    pub(super) fn login_open(&mut self, conn: &mut Conn, frame: &[u8], header: &Header) {
        let Role::Login(login) = &mut conn.role else { return };
        login.octets += frame.len() as u64;
        match login.stream.handle(Party::Client, Input::Open) {
            Ok(next) => login.stream = next,
            Err(fault) => return self.stream_fault(conn, fault),
        }
        login.said_header = false;
        let to = Header::value(frame, &header.to);
        let domain = to.as_deref().and_then(|to| crate::address::prepare_domain(to).ok());
        let known = domain.as_deref().is_some_and(|d| self.settings.domain(d).is_some());
        let fault = if header.content != Content::Client {
            Some(StreamFault::InvalidNamespace)
        } else if header.version(frame).is_none_or(|(major, _)| major < 1) {
            Some(StreamFault::UnsupportedVersion)
        } else if !known {
            Some(StreamFault::HostUnknown)
        } else if login.domain.is_some()
            && login.user.is_some()
            && login.domain.as_deref() != domain.as_deref()
        {
            // Who has logged in to one domain does not wander to another.
            Some(StreamFault::NotAuthorized)
        } else {
            None
        };
        if known {
            login.domain = domain.map(std::borrow::Cow::into_owned);
        }
        login.lang =
            Header::value(frame, &header.lang).filter(|l| l.len() <= 35).map(|l| (*l).into());
        if let Some(fault) = fault {
            return self.stream_fault(conn, fault);
        }
        self.header_came(conn);
        self.login_say_header(conn);
        self.login_features(conn);
    }

    /// Our own stream header: the response, or what goes before a stream error.
    pub(super) fn login_say_header(&mut self, conn: &mut Conn) {
        let id = self.random.id();
        let Role::Login(login) = &mut conn.role else { return };
        login.said_header = true;
        let from = login
            .domain
            .as_deref()
            .or_else(|| self.settings.domains.first().map(|d| d.name.as_str()));
        let header = write::StreamHeader {
            content: Content::Client,
            dialback: false,
            from,
            to: None,
            id: Some(&id),
            lang: Some("en"),
        };
        let mut text = Vec::new();
        header.write(&mut text);
        self.write(conn.id, |out| out.extend_from_slice(&text));
    }

    fn login_features(&mut self, conn: &Conn) {
        let Role::Login(login) = &conn.role else { return };
        let domain = login.domain.as_deref().and_then(|d| self.settings.domain(d));
        let offer = Offer::of(conn.tls.as_deref(), domain);
        let (mechanisms, bindings) = (offer.mechanisms(), offer.bindings());
        let mut features = write::Features::default();
        let more;
        match login.stream {
            Stream::Negotiating(Trust::Clear) => {
                features.starttls = Some(login.security != Security::Optional);
                if login.security == Security::Optional {
                    features.mechanisms = &mechanisms;
                }
            }
            Stream::Negotiating(Trust::Secured) => {
                features.mechanisms = &mechanisms;
                features.bindings = &bindings;
            }
            _ => {
                features.bind = true;
                features.session = true;
                features.sm = true;
                more = disco::client_features();
                features.more_raw = &more;
            }
        }
        let mut text = Vec::new();
        features.write(&mut text);
        self.write(conn.id, |out| out.extend_from_slice(&text));
    }

    /// A first-level element before a resource is bound.
    pub(super) fn login_element(&mut self, conn: &mut Conn, frame: &[u8], stanza: &Stanza) {
        let Role::Login(login) = &mut conn.role else { return };
        login.octets += frame.len() as u64;
        login.elements += stanza.elements;
        let proved = login.is_proved();
        if !proved && (login.octets > PRELOGIN_OCTETS_MAX || login.elements > PRELOGIN_ELEMENTS_MAX)
        {
            self.counters.prelogin_limits += 1;
            return self.stream_fault(conn, StreamFault::PolicyViolation);
        }
        let is_bind = stanza.kind == Kind::Iq && stanza.has(ChildKind::Bind);
        let input = match stanza.kind {
            Kind::StartTls => Input::StartTls,
            Kind::Auth => Input::Auth,
            Kind::Response | Kind::SaslAbort => Input::Response,
            // The answer to a bind request is what binds; until then the state stays.
            Kind::Iq if is_bind && proved => return self.bind_requested(conn, frame, stanza),
            Kind::Sm if login.may_bind() => return self.login_managed(conn, frame, stanza),
            kind if kind.is_stanza() => Input::Stanza,
            _ => Input::Other,
        };
        if stanza.kind == Kind::Compress {
            return self.refuse_compression(conn.id);
        }
        let before = login.stream;
        match login.stream.handle(Party::Client, input) {
            Ok(next) => login.stream = next,
            Err(fault) => return self.stream_fault(conn, fault),
        }
        match (before, input) {
            (Stream::Negotiating(trust), Input::Auth) => {
                if trust == Trust::Clear && login.security != Security::Optional {
                    // RFC 6120, 6.3.4: no SASL before TLS where TLS is required.
                    return self.login_failed(conn, login::ENCRYPTION_REQUIRED);
                }
                self.auth(conn, frame, stanza);
            }
            (_, Input::Response) if stanza.kind == Kind::SaslAbort => {
                self.login_failed(conn, login::ABORTED)
            }
            (_, Input::Response) => self.sasl_response(conn, frame),
            (_, Input::StartTls) => self.starttls(conn),
            _ => {}
        }
    }

    /// XEP-0138 is obsolete: what is compressed with secrets beside it leaks them.
    pub(super) fn refuse_compression(&mut self, id: ConnId) {
        self.write(id, |out| {
            out.extend_from_slice(b"<failure");
            write::attr("xmlns", Ns::Compress.name(), out);
            out.extend_from_slice(b"><unsupported-method/></failure>");
        });
    }

    /// RFC 6120, 5.4.2.3.
    fn starttls(&mut self, conn: &mut Conn) {
        self.write(conn.id, write::proceed);
        let Role::Login(login) = &conn.role else { return };
        let session =
            tls::Session::server(&self.settings.tls, tls::Use::C2s, login.domain.as_deref());
        conn.tls = Some(Box::new(session));
        conn.framer = Framer::default();
    }

    /// The handshake is complete: all that was learnt before is forgotten (RFC 6120, 5.4.3.3).
    pub(super) fn login_secured(&mut self, conn: &mut Conn) {
        let Role::Login(login) = &mut conn.role else { return };
        match login.stream.handle(Party::Client, Input::Secured) {
            Ok(next) => login.stream = next,
            Err(fault) => return self.stream_fault(conn, fault),
        }
        login.domain = None;
        conn.framer = Framer::default();
        self.header_came(conn);
    }

    /// RFC 6120, 7: the client wants a resource, its own name for it or one of ours.
    fn bind_requested(&mut self, conn: &mut Conn, frame: &[u8], stanza: &Stanza) {
        let id = stanza.id.map(|id| id.value(frame).into_owned()).unwrap_or_default();
        let is_set = stanza.type_.is_some_and(|t| t.raw(frame) == "set");
        let wanted = stanza
            .child(ChildKind::Bind)
            .and_then(|bind| read::child_of(bind.octets(frame), b"resource"))
            .map(read::text_of)
            .filter(|name| !name.is_empty());
        let random = self.random.number();
        let Role::Login(login) = &mut conn.role else { return };
        if !login.may_bind() {
            return self.stream_fault(conn, StreamFault::NotAuthorized);
        }
        let Some(user) = login.user.as_ref() else { return };
        let name = wanted.unwrap_or_else(|| format!("{random:016x}"));
        let full = user.to_bare().with_resource(&name);
        let (true, Ok(full)) = (is_set, full) else {
            let mut text = Vec::new();
            splice::error_reply(
                frame,
                stanza,
                StanzaFault::BadRequest,
                None,
                None,
                None,
                &mut text,
            );
            return self.write(conn.id, |out| out.extend_from_slice(&text));
        };
        let home = ShardId(shard_of(full.slot(), self.settings.shards));
        login.user = Some(full);
        if home == self.id {
            self.bound(conn, &id);
        } else {
            conn.parked = true;
            conn.moving = Some(Box::new((home, Arrival::Bind(id))));
        }
    }

    /// On the home shard: the user's record is loaded, then the resource is taken. So whoever has a
    /// resource has a record in memory.
    pub(super) fn bound(&mut self, conn: &mut Conn, bind_id: &str) {
        let Role::Login(login) = &conn.role else { return };
        let Some(user) = login.user.as_ref().map(Address::to_bare) else { return };
        self.home.forget_doomed(user.bare());
        if self.home.readiness(user.bare()) == Readiness::Ready {
            return self.bound_now(conn, bind_id);
        }
        conn.parked = true;
        let (ticket, bind_id) = (Self::ticket_of(conn.id), bind_id.to_owned());
        let work = move |shard: &mut Self| {
            shard.unpark(ticket, |shard, conn| shard.bound_now(conn, &bind_id));
        };
        if !self.with_record(&user, Box::new(work)) {
            self.stream_fault(conn, StreamFault::ResourceConstraint);
        }
    }

    /// The resource is taken, and the stream carries stanzas from now on.
    fn bound_now(&mut self, conn: &mut Conn, bind_id: &str) {
        conn.parked = false;
        let Role::Login(login) = &mut conn.role else { return };
        if login.user.as_ref().is_none_or(|user| self.home.account(user.bare()).is_none()) {
            // The store can't be had, or the account was removed since the login.
            return self.stream_fault(conn, StreamFault::ResourceConstraint);
        }
        let Some(full) = login.user.take() else { return };
        let lang = login.lang.take();
        let resource = full.resource().unwrap_or_default().to_owned();
        let mut text = Vec::new();
        let mut taken = self.home.bind(full.bare(), &resource, conn.id);
        if taken.is_err() && self.end_oldest_session(full.bare()) {
            taken = self.home.bind(full.bare(), &resource, conn.id);
        }
        let Ok(replaced) = taken else {
            self.counters.resources_refused += 1;
            text.extend_from_slice(b"<iq type='error'");
            write::attr("id", bind_id, &mut text);
            text.push(b'>');
            write::stanza_error(StanzaFault::ResourceConstraint, None, &mut text);
            text.extend_from_slice(b"</iq>");
            self.write(conn.id, |out| out.extend_from_slice(&text));
            return self.close_stream(conn);
        };
        text.extend_from_slice(b"<iq type='result'");
        write::attr("id", bind_id, &mut text);
        text.extend_from_slice(b"><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>");
        write::escape_into(full.full(), &mut text);
        text.extend_from_slice(b"</jid></bind></iq>");
        self.counters.bound += 1;
        self.write(conn.id, |out| out.extend_from_slice(&text));
        if let Some(old) = replaced {
            // Behind the answer, since what the old one held may come to the new one.
            self.replaced(old, &full);
        }
        let copied = self.is_copied(full.bare(), conn.id);
        let blocks = self.has_blocks(full.bare());
        let bound = Bound { address: full, lang, copied, stream: 0, blocks };
        conn.role = Role::Bound(Box::new(bound));
        self.stream_from_now(conn);
    }
}
