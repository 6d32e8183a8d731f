//! A small XMPP client over a real socket: STARTTLS, SCRAM-SHA-256-PLUS, bind, and stanzas.
//!
//! Blocking and for loopback; it believes a server only by the certificate authority it is given.
//! Does **not** do direct TLS, stream management or anything a person would want of a client.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cli::demo::element::{Element, next};
use crate::cli::demo::scram::Scram;
use crate::tls::{CertStore, Roots, Session, Usage, Use, judge};

/// Why a step did not hold, in words.
#[derive(Clone, Debug)]
pub struct Trouble(pub String);

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(fault: std::io::Error) -> Self {
        Self(match fault.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
                "no answer in time".to_owned()
            }
            _ => fault.to_string(),
        })
    }
}

/// Where and as whom to log in.
#[derive(Clone, Debug)]
pub struct Login {
    /// Its port for clients.
    pub server: SocketAddr,
    /// Whose certificate it must have.
    pub domain: &'static str,
    /// The account's local part.
    pub user: &'static str,
    /// Its password.
    pub password: String,
    /// What to bind.
    pub resource: &'static str,
    /// Who is believed.
    pub roots: Arc<Roots>,
    /// TLS settings without a certificate.
    pub tls: Arc<CertStore>,
}

/// A client that is logged in.
pub struct Client {
    socket: TcpStream,
    tls: Option<Session>,
    /// Clear text that is not an element yet.
    inbox: Vec<u8>,
    /// Elements that nobody waited for so far.
    unread: Vec<Element>,
    /// Full JID.
    pub jid: String,
    /// What the login used.
    pub mechanism: &'static str,
    /// TLS version and suite.
    pub secured: String,
    /// How long it waits for anything.
    pub patience: Duration,
}

impl Client {
    /// Connects, secures, logs in and binds.
    pub fn login(login: &Login) -> Result<Self, Trouble> {
        let socket = TcpStream::connect_timeout(&login.server, PATIENCE)?;
        socket.set_nodelay(true)?;
        let mut client = Self {
            socket,
            tls: None,
            inbox: Vec::new(),
            unread: Vec::new(),
            jid: String::new(),
            mechanism: "",
            secured: String::new(),
            patience: PATIENCE,
        };
        let features = client.open(login.domain)?;
        expect(features.child("starttls").is_some(), "STARTTLS is not offered")?;
        client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")?;
        client.wait("proceed", |it| it.name == "proceed")?;
        client.secure(login)?;
        let features = client.open(login.domain)?;
        client.authenticate(login, &features)?;
        client.open(login.domain)?;
        let bind = format!(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{}</resource></bind></iq>",
            login.resource
        );
        client.send(&bind)?;
        let bound = client.wait("bind", |it| it.attribute("id") == "bind")?;
        client.jid =
            bound.child("bind").map(|it| it.child_text("jid").to_owned()).unwrap_or_default();
        expect(!client.jid.is_empty(), "no JID was bound")?;
        Ok(client)
    }

    /// Opens a stream; gives the features.
    fn open(&mut self, domain: &str) -> Result<Element, Trouble> {
        // RFC 6120, 4.3.3: what came before belonged to the old stream.
        self.inbox.clear();
        self.send(&format!(
            "<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
        ))?;
        self.wait("stream header", |it| it.name == "stream:stream")?;
        self.wait("features", |it| it.name == "stream:features")
    }

    fn secure(&mut self, login: &Login) -> Result<(), Trouble> {
        let session = Session::client(&login.tls, Use::C2s, None, login.domain, false);
        let mut session = session.map_err(|it| Trouble(it.to_string()))?;
        let deadline = Instant::now() + PATIENCE;
        while !session.is_established() {
            let mut cipher = Vec::new();
            session.pending_out(&mut cipher);
            self.socket.write_all(&cipher)?;
            let mut buffer = [0; 16_384];
            let len = self.read_raw(&mut buffer, deadline)?;
            let fed = session.feed(buffer.get(..len).unwrap_or_default(), &mut self.inbox);
            fed.map_err(|it| Trouble(it.to_string()))?;
        }
        let mut cipher = Vec::new();
        session.pending_out(&mut cipher);
        self.socket.write_all(&cipher)?;
        let verdict = judge(session.peer_certificates(), &login.roots, now(), Usage::AsServer);
        verdict.proves(login.domain, Use::C2s).map_err(|it| Trouble(it.to_string()))?;
        self.secured =
            format!("{} {}", session.version().unwrap_or("?"), session.suite().unwrap_or("?"));
        self.tls = Some(session);
        Ok(())
    }

    fn authenticate(&mut self, login: &Login, features: &Element) -> Result<(), Trouble> {
        let offered =
            features.child("mechanisms").map(|it| it.children.as_slice()).unwrap_or_default();
        let offers = |name: &str| offered.iter().any(|it| it.text == name);
        let exporter = self.tls.as_ref().and_then(Session::exporter);
        let (mechanism, exporter) = match exporter {
            Some(exporter) if offers("SCRAM-SHA-256-PLUS") => {
                ("SCRAM-SHA-256-PLUS", Some(exporter))
            }
            _ if offers("SCRAM-SHA-256") => ("SCRAM-SHA-256", None),
            _ => return Err(Trouble("SCRAM-SHA-256 is not offered".to_owned())),
        };
        let mut nonce = [0; 12];
        getrandom::fill(&mut nonce).map_err(|it| Trouble(it.to_string()))?;
        let nonce: String = nonce.iter().map(|it| format!("{it:02x}")).collect();
        let mut scram = Scram::new(login.user, &login.password, &nonce, exporter);
        self.send(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{}</auth>",
            scram.first()
        ))?;
        let is_next =
            |it: &Element| ["challenge", "success", "failure"].contains(&it.name.as_str());
        let challenge = self.wait("SASL challenge", is_next)?;
        expect(challenge.name == "challenge", "login was refused")?;
        let proof = scram
            .prove(&challenge.text)
            .ok_or_else(|| Trouble("a challenge that is none".to_owned()))?;
        self.send(&format!(
            "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{proof}</response>"
        ))?;
        let success = self.wait("SASL success", is_next)?;
        expect(success.name == "success", "login was refused: wrong password?")?;
        expect(
            scram.is_server_proven(&success.text),
            "the server does not know the account's keys",
        )?;
        self.mechanism = mechanism;
        Ok(())
    }

    /// Sends text as it is.
    pub fn send(&mut self, text: &str) -> Result<(), Trouble> {
        let Some(tls) = &mut self.tls else { return Ok(self.socket.write_all(text.as_bytes())?) };
        let mut cipher = Vec::new();
        tls.seal(text.as_bytes(), &mut cipher).map_err(|it| Trouble(it.to_string()))?;
        Ok(self.socket.write_all(&cipher)?)
    }

    /// Waits for an element; others stay for later. `what` is for the words of a failure.
    pub fn wait(
        &mut self,
        what: &str,
        wanted: impl Fn(&Element) -> bool,
    ) -> Result<Element, Trouble> {
        if let Some(i) = self.unread.iter().position(&wanted) {
            return Ok(self.unread.remove(i));
        }
        let deadline = Instant::now() + self.patience;
        loop {
            while let Some((element, len)) = next(&self.inbox) {
                self.inbox.drain(..len);
                match element.name.as_str() {
                    "stream:error" => {
                        let condition = element.children.first().map_or("", |it| it.name.as_str());
                        return Err(Trouble(format!(
                            "the stream ended with {condition} while waiting for {what}"
                        )));
                    }
                    "/stream" => {
                        return Err(Trouble(format!(
                            "the stream was closed while waiting for {what}"
                        )));
                    }
                    _ if wanted(&element) => return Ok(element),
                    _ => self.unread.push(element),
                }
            }
            self.read(deadline).map_err(|it| Trouble(format!("{what}: {it}")))?;
        }
    }

    /// Fails if an element that fits comes within that time.
    pub fn none(
        &mut self,
        time: Duration,
        wanted: impl Fn(&Element) -> bool,
    ) -> Result<(), Trouble> {
        let patience = std::mem::replace(&mut self.patience, time);
        let seen = self.wait("nothing", wanted);
        self.patience = patience;
        match seen {
            Ok(element) => Err(Trouble(format!("not expected: {element:?}"))),
            Err(_) => Ok(()),
        }
    }

    /// The condition of an error that came back for the stanza `id`, if one did.
    pub fn bounce_of(&mut self, id: &str) -> Option<String> {
        // A moment, for it may be on its way; the receiver was waited for long before.
        self.read(Instant::now() + Duration::from_millis(100)).ok();
        while let Some((element, len)) = next(&self.inbox) {
            self.inbox.drain(..len);
            self.unread.push(element);
        }
        let is_bounce = |it: &&Element| it.attribute("id") == id && it.attribute("type") == "error";
        self.unread.iter().find(is_bounce).map(|it| it.condition().to_owned())
    }

    /// Forgets what nobody waited for, so that one step that fails does not disturb the next.
    pub fn forget(&mut self) {
        self.unread.clear();
    }

    fn read(&mut self, deadline: Instant) -> Result<(), Trouble> {
        let mut buffer = [0; 16_384];
        let len = self.read_raw(&mut buffer, deadline)?;
        let bytes = buffer.get(..len).unwrap_or_default();
        let Some(tls) = &mut self.tls else {
            self.inbox.extend_from_slice(bytes);
            return Ok(());
        };
        tls.feed(bytes, &mut self.inbox).map_err(|it| Trouble(it.to_string()))?;
        let mut cipher = Vec::new();
        tls.pending_out(&mut cipher);
        Ok(self.socket.write_all(&cipher)?)
    }

    fn read_raw(&mut self, buffer: &mut [u8], deadline: Instant) -> Result<usize, Trouble> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(left))?;
        match self.socket.read(buffer)? {
            0 => Err(Trouble("the server closed the connection".to_owned())),
            len => Ok(len),
        }
    }

    /// Says goodbye. What the server answers is not waited for.
    pub fn close(mut self) {
        self.send("</stream:stream>").ok();
    }
}

fn expect(holds: bool, otherwise: &str) -> Result<(), Trouble> {
    if holds { Ok(()) } else { Err(Trouble(otherwise.to_owned())) }
}

/// Wall time, for certificates.
pub fn now() -> crate::time::Wall {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    crate::time::Wall(u64::try_from(since.as_micros()).unwrap_or_default())
}

/// On loopback everything is there in milliseconds; what takes this long does not come.
const PATIENCE: Duration = Duration::from_secs(4);
