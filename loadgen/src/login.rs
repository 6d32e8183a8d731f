//! From an open connection to a bound resource, as bytes in and bytes out (RFC 6120, 4 to 7).
//!
//! Reads by byte search and trusts the server to write `stream:` as its prefix, as all known
//! servers do. Does **not** resume or register.

use memchr::memmem::find;

use crate::sasl::{Exchange, Mechanism, Salted};

/// Who logs in and how.
#[derive(Clone, Debug)]
pub struct Account {
    /// The local part.
    pub user: String,
    /// The domain.
    pub domain: String,
    /// The password.
    pub password: String,
    /// The one mechanism wanted, or the strongest offered.
    pub mechanism: Option<Mechanism>,
    /// Whether STARTTLS comes first.
    pub starttls: bool,
    /// What follows the binding.
    pub after: After,
}

/// What a client does once bound, before its login counts as done.
#[derive(Clone, Copy, Debug, Default)]
pub struct After {
    /// Fetches its roster (RFC 6121, 2.2).
    pub roster: bool,
    /// Enables stream management without resumption (XEP-0198, 3).
    pub managed: bool,
    /// Says `<presence/>`.
    pub presence: bool,
}

enum State {
    Features { secured: bool, proved: bool },
    Proceed,
    Challenge(Box<Exchange>),
    Bind,
    Roster,
    Enable,
    Bound,
}

/// One login in progress.
pub struct Login {
    account: Account,
    state: State,
    held: Vec<u8>,
    nonce: u64,
    /// The full JID that the server gave.
    pub jid: String,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// More bytes.
    Wait,
    /// The TLS handshake, then [`Login::secured`].
    Secure,
    /// Nothing: the resource is bound.
    Done,
}

impl Login {
    /// Begins a login; `secured` says that TLS stands already.
    pub fn begin(account: Account, secured: bool, nonce: u64, out: &mut Vec<u8>) -> Self {
        let state = State::Features { secured, proved: false };
        let login = Self { account, state, held: Vec::new(), nonce, jid: String::new() };
        login.open(out);
        login
    }

    fn open(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            format!(
                "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xmlns='jabber:client' \
                 xmlns:stream='http://etherx.jabber.org/streams'>",
                self.account.domain
            )
            .as_bytes(),
        );
    }

    /// TLS stands: the stream starts anew (RFC 6120, 5.4.3.3).
    pub fn secured(&mut self, out: &mut Vec<u8>) {
        self.held.clear();
        self.state = State::Features { secured: true, proved: false };
        self.open(out);
    }

    /// Takes what the server said.
    pub fn handle(
        &mut self,
        bytes: &[u8],
        kept: &mut Salted,
        out: &mut Vec<u8>,
    ) -> Result<Next, String> {
        // What was looked through is not looked through again, or nonsense without end would cost
        // its length squared.
        let mut from = self.held.len().saturating_sub(16);
        self.held.extend_from_slice(bytes);
        loop {
            let new = self.held.get(std::mem::take(&mut from)..).unwrap_or_default();
            for fault in [&b"<stream:error"[..], b"<failure", b"type='error'", b"type=\"error\""] {
                if find(new, fault).is_some() {
                    return Err(String::from_utf8_lossy(&self.held).into_owned());
                }
            }
            match self.advance(kept, out)? {
                Some(next) => return Ok(next),
                None if self.held.is_empty() && !matches!(self.state, State::Bound) => {
                    return Ok(Next::Wait);
                }
                None => {}
            }
        }
    }

    /// One step; `None` says that a step was made and another may follow.
    fn advance(&mut self, kept: &mut Salted, out: &mut Vec<u8>) -> Result<Option<Next>, String> {
        match &mut self.state {
            State::Features { secured, proved } => {
                let (secured, proved) = (*secured, *proved);
                let Some(features) = self.take(b"</stream:features>") else {
                    return Ok(Some(Next::Wait));
                };
                self.choose(&features, secured, proved, out)?;
            }
            State::Proceed => {
                // Whole, since what follows its last byte is TLS.
                if find(&self.held, b"<proceed").is_none() || !self.held.ends_with(b">") {
                    return Ok(Some(Next::Wait));
                }
                return Ok(Some(Next::Secure));
            }
            State::Challenge(exchange) => {
                if let Some(challenge) = element(&self.held, b"<challenge", b"</challenge>") {
                    let answer = exchange.answer(challenge, kept).ok_or("not a SCRAM challenge")?;
                    self.held.clear();
                    out.extend_from_slice(b"<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>");
                    out.extend_from_slice(answer.as_bytes());
                    out.extend_from_slice(b"</response>");
                    return Ok(Some(Next::Wait));
                }
                let whole = find(&self.held, b"</success>").is_some()
                    || (find(&self.held, b"<success").is_some() && self.held.ends_with(b"/>"));
                if !whole {
                    return Ok(Some(Next::Wait));
                }
                let last = element(&self.held, b"<success", b"</success>").unwrap_or_default();
                if !exchange.proved(last) {
                    return Err("the server did not prove that it knows the keys".to_owned());
                }
                self.held.clear();
                // RFC 6120, 6.4.6: after SASL the stream starts anew.
                self.open(out);
                self.state = State::Features { secured: true, proved: true };
            }
            State::Bind => {
                let Some(answer) = self.take(b"</iq>") else { return Ok(Some(Next::Wait)) };
                let jid = element(&answer, b"<jid", b"</jid>").ok_or("bound without a JID")?;
                self.jid = String::from_utf8_lossy(jid).into_owned();
                self.bound(out);
            }
            State::Roster => {
                if self.take(b"</iq>").is_none() && self.take_empty_roster().is_none() {
                    return Ok(Some(Next::Wait));
                }
                self.bound(out);
            }
            State::Enable => {
                let Some(at) = find(&self.held, b"<enabled") else {
                    return match find(&self.held, b"<failed") {
                        Some(_) => Err("the server does not manage this stream".to_owned()),
                        None => Ok(Some(Next::Wait)),
                    };
                };
                let rest = self.held.get(at..).unwrap_or_default();
                let Some(end) = memchr::memchr(b'>', rest) else { return Ok(Some(Next::Wait)) };
                self.held.drain(..=at + end);
                self.account.after.managed = false;
                self.bound(out);
            }
            State::Bound => return Ok(Some(Next::Done)),
        }
        Ok(None)
    }

    /// The resource is bound: what is wanted next, one after another.
    fn bound(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.account.after.roster) {
            out.extend_from_slice(
                b"<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>",
            );
            self.state = State::Roster;
            return;
        }
        // Before the streams are managed, so that it isn't counted.
        if std::mem::take(&mut self.account.after.presence) {
            out.extend_from_slice(b"<presence/>");
        }
        self.state = if self.account.after.managed {
            out.extend_from_slice(b"<enable xmlns='urn:xmpp:sm:3'/>");
            State::Enable
        } else {
            State::Bound
        };
    }

    /// Takes a roster result without content, which is one tag.
    fn take_empty_roster(&mut self) -> Option<Vec<u8>> {
        let at = find(&self.held, b"<iq")?;
        let end = at + memchr::memchr(b'>', self.held.get(at..)?)? + 1;
        if !self.held.get(..end)?.ends_with(b"/>") {
            return None;
        }
        let rest = self.held.split_off(end);
        Some(std::mem::replace(&mut self.held, rest))
    }

    /// Octets that are held because their element is not whole.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// What came behind the login, which belongs to the traffic.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    fn choose(
        &mut self,
        features: &[u8],
        secured: bool,
        proved: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        if proved {
            out.extend_from_slice(
                b"<iq id='b' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                  <resource>r</resource></bind></iq>",
            );
            self.state = State::Bind;
            return Ok(());
        }
        if self.account.starttls && !secured {
            out.extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            self.state = State::Proceed;
            return Ok(());
        }
        let offered = |m: &Mechanism| {
            let name = format!(">{}<", m.name());
            find(features, name.as_bytes()).is_some()
        };
        let mechanism = match self.account.mechanism {
            Some(wanted) => Some(wanted).filter(offered),
            None => Mechanism::ALL.into_iter().find(offered),
        };
        let mechanism = mechanism.ok_or_else(|| {
            format!("no mechanism of ours is offered: {}", String::from_utf8_lossy(features))
        })?;
        let (exchange, initial) =
            Exchange::begin(mechanism, &self.account.user, &self.account.password, self.nonce);
        out.extend_from_slice(
            format!(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{}'>{initial}</auth>",
                mechanism.name()
            )
            .as_bytes(),
        );
        self.state = State::Challenge(Box::new(exchange));
        Ok(())
    }

    /// Takes the held bytes up to and with `end`, once they are there.
    fn take(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let at = find(&self.held, end)? + end.len();
        let rest = self.held.split_off(at);
        Some(std::mem::replace(&mut self.held, rest))
    }
}

/// The text between `<name …>` and its end.
fn element<'a>(bytes: &'a [u8], open: &[u8], close: &[u8]) -> Option<&'a [u8]> {
    let from = find(bytes, open)?;
    let start = from + bytes.get(from..)?.iter().position(|&b| b == b'>')? + 1;
    let end = start + find(bytes.get(start..)?, close)?;
    bytes.get(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_login_by_plain_in_any_pieces() {
        let account = Account {
            user: "u0".to_owned(),
            domain: "d.example".to_owned(),
            password: "pw".to_owned(),
            mechanism: None,
            starttls: true,
            after: After { roster: true, managed: true, presence: true },
        };
        for piece in [1, 2, 7, 1000] {
            let (mut out, mut kept) = (Vec::new(), Salted::default());
            let mut login = Login::begin(account.clone(), false, 1, &mut out);
            let mut say = |login: &mut Login, text: &[u8], out: &mut Vec<u8>| {
                let mut next = Next::Wait;
                for part in text.chunks(piece) {
                    next = login.handle(part, &mut kept, out).unwrap();
                    if next != Next::Wait {
                        break;
                    }
                }
                next
            };
            let features = b"<stream:stream id='1'><stream:features><starttls/></stream:features>";
            assert_eq!(say(&mut login, features, &mut out), Next::Wait);
            assert!(out.ends_with(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"));
            assert_eq!(say(&mut login, b"<proceed xmlns='t'/>", &mut out), Next::Secure);
            login.secured(&mut out);
            let features = b"<stream:stream id='2'><stream:features><mechanisms><mechanism>PLAIN\
                </mechanism></mechanisms></stream:features>";
            assert_eq!(say(&mut login, features, &mut out), Next::Wait);
            assert!(out.ends_with(b"mechanism='PLAIN'>AHUwAHB3</auth>"));
            assert_eq!(say(&mut login, b"<success xmlns='s'/>", &mut out), Next::Wait);
            let features = b"<stream:stream id='3'><stream:features><bind/></stream:features>";
            assert_eq!(say(&mut login, features, &mut out), Next::Wait);
            let bound = b"<iq id='b' type='result'><bind><jid>u0@d.example/r</jid></bind></iq>";
            assert_eq!(say(&mut login, bound, &mut out), Next::Wait);
            assert_eq!(login.jid, "u0@d.example/r");
            let roster = b"<iq id='roster' type='result'><query xmlns='jabber:iq:roster'/></iq>";
            assert_eq!(say(&mut login, roster, &mut out), Next::Wait);
            assert!(out.ends_with(b"<presence/><enable xmlns='urn:xmpp:sm:3'/>"));
            assert_eq!(say(&mut login, b"<enabled xmlns='urn:xmpp:sm:3'/>", &mut out), Next::Done);
        }
    }
}
