//! The SASL exchange of a client: which mechanisms are offered, and who it proves to be.
//!
//! The machines are `xmpp::sasl`'s; credentials come from the store by way of the control thread,
//! and the stream is parked meanwhile. RFC 6120, 6; RFC 5802; XEP-0440.

use crate::address::Address;
use crate::limits::LOGIN_ATTEMPTS_MAX;
use crate::shard::client::Login;
use crate::shard::conn::{Conn, Role};
use crate::shard::kernel::{Question, Unavailable};
use crate::shard::settings::Domain;
use crate::shard::{Request, Shard};
use crate::tls;
use crate::xmpp::fault::StreamFault;
use crate::xmpp::frame::Framer;
use crate::xmpp::sasl::scram::{
    self, BindingKind, Bindings, Credentials, Decoy, Hash, NeedCredentials, WaitFinal,
};
use crate::xmpp::sasl::{self, Mechanism, Plain, SaslFault};
use crate::xmpp::stanza::Stanza;
use crate::xmpp::stream::{Input, Party};
use crate::xmpp::{read, write};

pub(super) const ENCRYPTION_REQUIRED: SaslFault = SaslFault::EncryptionRequired;
pub(super) const ABORTED: SaslFault = SaslFault::Aborted;

/// How far a SASL exchange is.
pub(crate) enum Exchange {
    None,
    /// The mechanism was named without an initial response (RFC 6120, 6.4.2): it comes next.
    Named(Mechanism),
    /// Waits for the store to tell of this user.
    Scram(Address, Box<NeedCredentials>),
    /// Waits for this user's proof.
    Final(Address, Box<WaitFinal>),
    /// Waits for a worker to check the password of this user.
    Password(Address),
}

impl Exchange {
    /// Who it is about.
    pub(super) fn user(&self) -> Option<&Address> {
        match self {
            Self::None | Self::Named(_) => None,
            Self::Scram(user, _) | Self::Final(user, _) | Self::Password(user) => Some(user),
        }
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Named(_) => "Named",
            Self::Scram(..) => "Scram",
            Self::Final(..) => "Final",
            Self::Password(_) => "Password",
        })
    }
}

/// What a client of a domain may log in with.
pub(super) struct Offer {
    secured: bool,
    plain: bool,
    bindings: Bindings,
}

impl Offer {
    /// With channel binding where there is TLS and the domain has it on; PLAIN only where it is
    /// switched on and TLS hides it.
    pub(super) fn of(session: Option<&tls::Session>, domain: Option<&Domain>) -> Self {
        let bound = session.filter(|_| domain.is_none_or(|d| d.channel_binding));
        Self {
            secured: session.is_some(),
            plain: domain.is_some_and(|d| d.plain),
            bindings: Bindings {
                tls_exporter: bound.and_then(tls::Session::exporter).map(|e| e.to_vec()),
                tls_server_end_point: bound.and_then(tls::Session::end_point),
            },
        }
    }

    /// The mechanisms by name, best first.
    pub(super) fn mechanisms(&self) -> Vec<&'static str> {
        Mechanism::ALL.into_iter().filter(|m| self.has(*m)).map(Mechanism::name).collect()
    }

    /// The channel bindings that go with them (XEP-0440).
    pub(super) fn bindings(&self) -> Vec<&'static str> {
        self.bindings.kinds().map(BindingKind::name).collect()
    }

    fn has(&self, mechanism: Mechanism) -> bool {
        match mechanism {
            Mechanism::Scram { plus, .. } => !plus || self.bindings.kinds().next().is_some(),
            Mechanism::Plain => self.plain && self.secured,
            Mechanism::External => false,
        }
    }
}

impl Shard {
    /// `<auth/>`.
    pub(super) fn auth(&mut self, conn: &mut Conn, frame: &[u8], stanza: &Stanza) {
        let Role::Login(login) = &mut conn.role else { return };
        let domain = login.domain.as_deref().and_then(|d| self.settings.domain(d));
        let offer = Offer::of(conn.tls.as_deref(), domain);
        let named = stanza.attr(frame, b"mechanism").and_then(|name| Mechanism::parse(&name));
        // A mechanism that was not offered is not accepted.
        let Some(mechanism) = named.filter(|m| offer.has(*m)) else {
            return self.login_failed(conn, SaslFault::InvalidMechanism);
        };
        let payload = read::text_of(frame);
        if payload.is_empty() {
            login.exchange = Exchange::Named(mechanism);
            return self.write(conn.id, |out| write::sasl_challenge("", out));
        }
        match sasl::decode(payload.trim()) {
            Ok(payload) => self.initial_response(conn, mechanism, &payload),
            Err(fault) => self.login_failed(conn, fault),
        }
    }

    fn initial_response(&mut self, conn: &mut Conn, mechanism: Mechanism, payload: &[u8]) {
        let Role::Login(login) = &mut conn.role else { return };
        let Some(domain) = login.domain.clone() else { return };
        match mechanism {
            Mechanism::Scram { hash, plus } => {
                let served = self.settings.domain(&domain);
                let Offer { bindings, .. } = Offer::of(conn.tls.as_deref(), served);
                let plus_offered = bindings.kinds().next().is_some();
                let start = scram::Start::new(hash, plus, plus_offered, &domain, bindings);
                match start.client_first(payload) {
                    Err(fault) => self.login_failed(conn, fault.into()),
                    Ok(need) => self.need_credentials(conn, need, &domain, hash),
                }
            }
            Mechanism::Plain => match Plain::parse(payload, &domain) {
                Err(fault) => self.login_failed(conn, fault),
                Ok(Plain { username, password }) => {
                    let Ok(user) = Address::of(Some(&username), &domain, None) else {
                        return self.login_failed(conn, SaslFault::NotAuthorized);
                    };
                    login.exchange = Exchange::Password(user.clone());
                    let ticket = Self::ticket_of(conn.id);
                    self.park(conn, Question::Password { ticket, user, password });
                }
            },
            Mechanism::External => self.login_failed(conn, SaslFault::InvalidMechanism),
        }
    }

    fn need_credentials(
        &mut self,
        conn: &mut Conn,
        need: NeedCredentials,
        domain: &str,
        hash: Hash,
    ) {
        let Ok(user) = Address::of(Some(need.username()), domain, None) else {
            return self.login_failed(conn, SaslFault::NotAuthorized);
        };
        let Role::Login(login) = &mut conn.role else { return };
        login.exchange = Exchange::Scram(user.clone(), Box::new(need));
        let ticket = Self::ticket_of(conn.id);
        self.park(conn, Question::Credentials { ticket, user, hash });
    }

    /// The store's answer: server-first goes out.
    pub(super) fn credentials(
        &mut self,
        conn: &mut Conn,
        credentials: Result<Option<Credentials>, Unavailable>,
    ) {
        let nonce = self.random.nonce();
        let Role::Login(login) = &mut conn.role else { return };
        let Exchange::Scram(user, need) = std::mem::replace(&mut login.exchange, Exchange::None)
        else {
            return;
        };
        let Ok(credentials) = credentials else {
            return self.login_failed(conn, SaslFault::TemporaryAuthFailure);
        };
        let decoy = Decoy {
            secret: &self.settings.scram_secret,
            iterations: self.settings.scram_iterations,
        };
        let (message, wait) = need.answer(credentials, &decoy, &nonce);
        login.exchange = Exchange::Final(user, Box::new(wait));
        self.write(conn.id, |out| write::sasl_challenge(&sasl::encode(message.as_bytes()), out));
    }

    /// `<response/>`.
    pub(super) fn sasl_response(&mut self, conn: &mut Conn, frame: &[u8]) {
        let payload = read::text_of(frame);
        let payload = match sasl::decode(payload.trim()) {
            Ok(payload) => payload,
            Err(fault) => return self.login_failed(conn, fault),
        };
        let Role::Login(login) = &mut conn.role else { return };
        match std::mem::replace(&mut login.exchange, Exchange::None) {
            Exchange::Named(mechanism) => self.initial_response(conn, mechanism, &payload),
            Exchange::Final(_, wait) => match wait.client_final(&payload) {
                Err(fault) => self.login_failed(conn, fault.into()),
                Ok(success) => {
                    let Some(domain) = login.domain.clone() else { return };
                    match Address::of(Some(&success.username), &domain, None) {
                        Ok(user) => self.logged_in(
                            conn,
                            user,
                            &sasl::encode(success.server_final.as_bytes()),
                        ),
                        Err(_) => self.login_failed(conn, SaslFault::NotAuthorized),
                    }
                }
            },
            Exchange::None | Exchange::Scram(..) | Exchange::Password(_) => {
                self.login_failed(conn, SaslFault::MalformedRequest);
            }
        }
    }

    /// A worker has checked the password of PLAIN.
    pub(super) fn password_checked(&mut self, conn: &mut Conn, good: Result<bool, Unavailable>) {
        let Role::Login(login) = &mut conn.role else { return };
        let Exchange::Password(user) = std::mem::replace(&mut login.exchange, Exchange::None)
        else {
            return;
        };
        match good {
            Ok(true) => self.logged_in(conn, user, ""),
            Ok(false) => self.login_failed(conn, SaslFault::NotAuthorized),
            Err(Unavailable) => self.login_failed(conn, SaslFault::TemporaryAuthFailure),
        }
    }

    /// RFC 6120, 6.4.6: the stream starts anew, with the user's name known.
    fn logged_in(&mut self, conn: &mut Conn, user: Address, payload: &str) {
        self.counters.logins += 1;
        self.write(conn.id, |out| write::sasl_success(payload, out));
        let Role::Login(login) = &mut conn.role else { return };
        match login.stream.handle(Party::Client, Input::Proved) {
            Ok(next) => login.stream = next,
            Err(fault) => return self.stream_fault(conn, fault),
        }
        login.user = Some(user);
        conn.framer = Framer::default();
    }

    /// RFC 6120, 6.4.5: the client may try again, a few times.
    pub(super) fn login_failed(&mut self, conn: &mut Conn, fault: SaslFault) {
        self.counters.sasl_faults[fault.index()] += 1;
        self.write(conn.id, |out| write::sasl_failure(fault.name(), None, out));
        let Role::Login(login) = &mut conn.role else { return };
        let Login { stream, attempts, exchange, .. } = &mut **login;
        *exchange = Exchange::None;
        *attempts += 1;
        if *attempts >= LOGIN_ATTEMPTS_MAX {
            return self.stream_fault(conn, StreamFault::PolicyViolation);
        }
        match stream.handle(Party::Client, Input::Failed) {
            Ok(next) => *stream = next,
            Err(fault) => self.stream_fault(conn, fault),
        }
    }

    /// Frames wait until the answer is there.
    pub(super) fn park(&mut self, conn: &mut Conn, question: Question) {
        conn.parked = true;
        self.requests.push(Request::Ask(question));
    }
}
