//! A stream that the server under test opened to a played domain (RFC 6120, 4): proof of who it
//! is, then stanzas.
//!
//! STARTTLS with the certificate of the domain that is asked for, EXTERNAL (XEP-0178) and dialback
//! (XEP-0220) are offered; a key is verified at the server's own door, and keys of our own streams
//! are told to be right or not. Messages and presence are accounted for, requests are answered on
//! the domain's own stream. Does **not** look at the certificate that the server shows.

use std::sync::Arc;
use std::time::Duration;

use memchr::memmem::find;

use crate::flows::s2s::{Shared, Verification};
use crate::flows::s2s_wire::{
    Garbage, HELD_MAX, Piece, attribute, condition, content, name, next, text,
};
use crate::ledger::PAIR_BITS;
use crate::mark;
use crate::party::{Desk, Order, Party, Wish};
use crate::scenario::model::{Kind, Tls};

/// From the connection to a proof of who the server is.
const PATIENCE_NS: u64 = 30_000_000_000;
/// Verifications that one stream may have under way.
const VERIFYING_MAX: usize = 64;

/// The party.
pub(super) struct Inbound {
    shared: Arc<Shared>,
    domain: usize,
    /// A header came, so the features were said.
    began: bool,
    secured: bool,
    /// Who the server proved to be.
    proven: bool,
    /// It asked about a key, so it may well say nothing else.
    asked: bool,
    over: bool,
    opened_ns: u64,
    id: String,
    verifying: Vec<(usize, String, String)>,
    held: Vec<u8>,
}

impl Inbound {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            domain: 0,
            began: false,
            secured: false,
            proven: false,
            asked: false,
            over: false,
            opened_ns: 0,
            id: String::new(),
            verifying: Vec::new(),
            held: Vec::new(),
        }
    }

    /// Counts what the server did wrong, says so (RFC 6120, 4.9) and ends the stream.
    fn refuse(&mut self, error: &str, reason: &str, desk: &mut Desk<'_>) {
        if self.over {
            return;
        }
        if !self.began {
            self.say_header("", desk);
        }
        self.over = true;
        desk.ledger.step_failed("inbound", reason);
        let text = format!(
            "<stream:error><{error} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>\
             </stream:stream>"
        );
        desk.out.extend_from_slice(text.as_bytes());
        desk.wishes.push(Wish::Close);
    }

    fn end(&mut self, desk: &mut Desk<'_>) {
        if !self.over {
            self.over = true;
            desk.out.extend_from_slice(b"</stream:stream>");
            desk.wishes.push(Wish::Close);
        }
    }

    fn say_header(&mut self, to: &str, desk: &mut Desk<'_>) {
        self.began = true;
        self.id = self.shared.stream_id();
        let from = self.shared.domains.get(self.domain).map_or("", |it| it.name.as_str());
        let to = if to.is_empty() { String::new() } else { format!(" to='{}'", quoted(to)) };
        let text = format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
             xmlns:stream='http://etherx.jabber.org/streams' from='{from}'{to} id='{}' version='1.0'>",
            self.id
        );
        desk.out.extend_from_slice(text.as_bytes());
    }

    fn header(&mut self, head: &[u8], desk: &mut Desk<'_>) {
        let to = text(head, b" to=").to_ascii_lowercase();
        let from = text(head, b" from=").to_owned();
        match self.shared.identities.place(&to) {
            Some(domain) => self.domain = domain,
            // Before RFC 6120 the header named nobody; then the stanzas do.
            None if to.is_empty() => {}
            None => return self.refuse("host-unknown", "for a domain that is not played", desk),
        }
        self.say_header(&from, desk);
        if text(head, b" version=").is_empty() {
            return;
        }
        let mut features = String::from("<stream:features>");
        if !self.secured && self.shared.tls == Tls::StartTls {
            features += "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>";
        } else if !self.proven {
            if self.secured && !self.shared.population.dialback {
                features += "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
                             <mechanism>EXTERNAL</mechanism></mechanisms>";
            }
            features += "<dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback>";
        }
        features += "</stream:features>";
        desk.out.extend_from_slice(features.as_bytes());
    }

    fn element(&mut self, whole: &[u8], head: usize, desk: &mut Desk<'_>) {
        let opening = whole.get(..head).unwrap_or_default();
        match name(whole) {
            b"message" | b"presence" | b"iq" if !self.proven => {
                self.refuse("not-authorized", "a stanza before the proof", desk);
            }
            b"message" => self.message(whole, opening, desk),
            b"presence" => self.presence(whole, opening, desk),
            b"iq" => self.request(opening, desk),
            b"starttls" if !self.secured && self.shared.tls == Tls::StartTls => {
                match self.shared.identities.server(self.domain) {
                    Ok(config) => {
                        desk.out.extend_from_slice(
                            b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
                        );
                        self.began = false;
                        desk.wishes.push(Wish::Accept(config));
                    }
                    Err(reason) => self.refuse("internal-server-error", &reason, desk),
                }
            }
            b"auth" if self.secured && text(opening, b" mechanism=") == "EXTERNAL" => {
                desk.out.extend_from_slice(b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
                self.began = false;
                self.proves(desk);
            }
            b"auth" => {
                desk.ledger.step_failed("inbound", "a mechanism that was not offered");
                desk.out.extend_from_slice(
                    b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><invalid-mechanism/></failure>",
                );
            }
            b"result" => self.result(whole, head, desk),
            b"verify" => self.verify(whole, head, desk),
            b"error" => {
                self.over = true;
                desk.ledger.step_failed("inbound", condition(whole));
                desk.out.extend_from_slice(b"</stream:stream>");
                desk.wishes.push(Wish::Close);
            }
            _ => self.refuse("unsupported-stanza-type", "an element of no known kind", desk),
        }
    }

    fn proves(&mut self, desk: &mut Desk<'_>) {
        if !self.proven {
            self.proven = true;
            let took_ns = desk.now_ns.saturating_sub(self.opened_ns);
            desk.ledger.step("inbound", Duration::from_nanos(took_ns));
            desk.wishes.push(Wish::Ready);
        }
    }

    /// XEP-0220, 2.1.1: the server's key, to be verified at its own door.
    fn result(&mut self, whole: &[u8], head: usize, desk: &mut Desk<'_>) {
        let opening = whole.get(..head).unwrap_or_default();
        let (from, to) = (text(opening, b" from="), text(opening, b" to="));
        let Some(domain) = self.shared.identities.place(&to.to_ascii_lowercase()) else {
            let (from, to) = (quoted(from), quoted(to));
            let text = format!(
                "<db:result from='{to}' to='{from}' type='error'><error type='cancel'>\
                 <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></db:result>"
            );
            desk.ledger.step_failed("inbound", "a key for a domain that is not played");
            desk.out.extend_from_slice(text.as_bytes());
            return;
        };
        let key = String::from_utf8_lossy(content(whole, head)).into_owned();
        let verification = Verification {
            asker: desk.me,
            domain,
            far: quoted(from),
            id: self.id.clone(),
            key,
            verdict: None,
        };
        let begun = (self.verifying.len() < VERIFYING_MAX)
            .then(|| self.shared.verify(verification, desk))
            .flatten();
        match begun {
            Some(n) => self.verifying.push((n, quoted(from), quoted(to))),
            None => self.refuse("resource-constraint", "too many keys at once", desk),
        }
    }

    /// XEP-0220, 2.1.2: whether a key is one of ours.
    fn verify(&mut self, whole: &[u8], head: usize, desk: &mut Desk<'_>) {
        self.asked = true;
        let opening = whole.get(..head).unwrap_or_default();
        let (from, to) = (text(opening, b" from="), text(opening, b" to="));
        let id = text(opening, b" id=");
        let valid = self.shared.identities.place(to).is_some()
            && self.shared.key(from, to, id).as_bytes() == content(whole, head);
        if !valid {
            desk.ledger.step_failed("dialback", "a key that is not ours");
        }
        let kind = if valid { "valid" } else { "invalid" };
        let (from, to, id) = (quoted(from), quoted(to), quoted(id));
        let text = format!("<db:verify from='{to}' to='{from}' id='{id}' type='{kind}'/>");
        desk.out.extend_from_slice(text.as_bytes());
    }

    fn message(&self, whole: &[u8], opening: &[u8], desk: &mut Desk<'_>) {
        let error = attribute(opening, b" type=") == Some(b"error");
        if error {
            if let Some(of) = attribute(opening, b" id=").and_then(number) {
                let (flow, pair) = ((of >> PAIR_BITS) as u16, of & ((1 << PAIR_BITS) - 1));
                desk.ledger.bounced_of(flow, pair, condition(whole));
            }
            return;
        }
        let Some(body) = find(whole, b"<body>tl1 ").and_then(|at| whole.get(at + 6..)) else {
            return;
        };
        let Some((mark, sent_ns)) = mark::take(body) else {
            // A mark that does not agree with itself: whose it was is not known.
            let first = self.shared.receives.iter().position(Option::is_some).unwrap_or(0);
            desk.ledger.corrupt(first as u16);
            return;
        };
        let (flow, pair) = (mark.flow >> PAIR_BITS, mark.flow & ((1 << PAIR_BITS) - 1));
        let ours = self.shared.receives.get(flow as usize) == Some(&Some(Kind::Message));
        let flows = &self.shared.pairs.flows;
        let wanted = flows.get(flow as usize).and_then(|it| it.users.get(pair as usize));
        let wanted = wanted.and_then(|users| self.shared.addresses.get(users.1 as usize));
        let to = text(opening, b" to=");
        let right = wanted.is_some_and(|it| {
            to.strip_prefix(&**it).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        if ours && right {
            desk.ledger.arrived(mark, sent_ns, desk.now_ns);
        } else {
            desk.ledger.corrupt(flow as u16);
        }
    }

    fn presence(&self, whole: &[u8], opening: &[u8], desk: &mut Desk<'_>) {
        let (from, to) = (text(opening, b" from="), text(opening, b" to="));
        let Some(user) = self.shared.user(to) else { return };
        let status = find(whole, b"<status>tl1 ").and_then(|at| whole.get(at + 8..));
        if let Some((mark, sent_ns)) = status.and_then(mark::take) {
            let (flow, pair) = (mark.flow >> PAIR_BITS, mark.flow & ((1 << PAIR_BITS) - 1));
            let ours = self.shared.receives.get(flow as usize) == Some(&Some(Kind::Presence));
            let watchers = self.shared.pairs.flows.get(flow as usize).map(|it| it.watchers);
            if let Some(watchers) = watchers.filter(|_| ours)
                && let Some(place) = watchers.place(pair, user)
            {
                let place = pair * watchers.each + place;
                desk.ledger.arrived_at(mark, place, sent_ns, desk.now_ns);
            }
            return;
        }
        match attribute(opening, b" type=").unwrap_or_default() {
            b"subscribe" => self.approve(user, from, desk),
            b"subscribed" => self.shared.subscribed(from, user),
            b"probe" => self.answer(user, from, "", desk),
            b"unsubscribed" => desk.ledger.step_failed("subscribe", "refused"),
            b"error" => desk.ledger.step_failed("subscribe", condition(whole)),
            _ => {}
        }
    }

    /// RFC 6121, 3.1.5 and 3.1.6: yes, and this is how I am.
    fn approve(&self, user: u32, from: &str, desk: &mut Desk<'_>) {
        let Some(me) = self.shared.addresses.get(user as usize) else { return };
        let far = quoted(from.split('/').next().unwrap_or_default());
        let text = format!(
            "<presence from='{me}' to='{far}' type='subscribed'/><presence from='{me}/tl' to='{far}'/>"
        );
        self.shared.post(self.shared.domain_of(user), text.as_bytes(), desk);
    }

    fn answer(&self, user: u32, from: &str, kind: &str, desk: &mut Desk<'_>) {
        let Some(me) = self.shared.addresses.get(user as usize) else { return };
        let text = format!("<presence from='{me}/tl' to='{}'{kind}/>", quoted(from));
        self.shared.post(self.shared.domain_of(user), text.as_bytes(), desk);
    }

    /// RFC 6120, 8.2.3: every request is answered; there are no services here but pings.
    fn request(&self, opening: &[u8], desk: &mut Desk<'_>) {
        let kind = attribute(opening, b" type=").unwrap_or_default();
        if !matches!(kind, b"get" | b"set") {
            return;
        }
        let (from, to) = (quoted(text(opening, b" from=")), text(opening, b" to="));
        let id = quoted(text(opening, b" id="));
        let domain = to.split('/').next().unwrap_or_default().rsplit('@').next();
        let Some(domain) = domain.and_then(|it| self.shared.identities.place(it)) else { return };
        let to = quoted(to);
        let text = format!(
            "<iq type='error' from='{to}' to='{from}' id='{id}'><error type='cancel'>\
             <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        );
        self.shared.post(domain, text.as_bytes(), desk);
    }
}

/// Text of an attribute, to stand between single quotes.
fn quoted(raw: &str) -> String {
    raw.replace('\'', "&apos;").replace('<', "&lt;")
}

/// The eight hexadecimal digits of an id of ours.
fn number(id: &[u8]) -> Option<u32> {
    (id.len() == 8).then_some(())?;
    u32::from_str_radix(std::str::from_utf8(id).ok()?, 16).ok()
}

impl Party for Inbound {
    fn opened(&mut self, desk: &mut Desk<'_>) {
        self.opened_ns = desk.now_ns;
        self.secured = self.shared.tls == Tls::Direct;
        desk.wishes.push(Wish::Wake(desk.now_ns + PATIENCE_NS));
    }

    fn secured(&mut self, _: &mut Desk<'_>) {
        self.secured = true;
        self.held.clear();
    }

    fn received(&mut self, bytes: &[u8], desk: &mut Desk<'_>) {
        if self.over {
            return;
        }
        let mut held = std::mem::take(&mut self.held);
        let mut rest = bytes;
        if !held.is_empty() {
            held.extend_from_slice(bytes);
            rest = &held;
        }
        let mut at = 0;
        while !self.over {
            match next(rest.get(at..).unwrap_or_default()) {
                Err(Garbage) => return self.refuse("not-well-formed", "garbage", desk),
                Ok((done, None)) => {
                    at += done;
                    break;
                }
                Ok((done, Some(piece))) => {
                    at += done;
                    match piece {
                        Piece::Header(_) if self.began => {
                            self.refuse("bad-format", "a second header", desk);
                        }
                        Piece::Header(head) => self.header(head, desk),
                        Piece::Element(..) if !self.began => {
                            self.refuse("bad-format", "no header", desk);
                        }
                        Piece::Element(whole, head) => self.element(whole, head, desk),
                        Piece::End => self.end(desk),
                    }
                }
            }
        }
        self.held = rest.get(at..).unwrap_or_default().to_vec();
        if self.held.len() > HELD_MAX {
            self.refuse("policy-violation", "garbage: no end of an element", desk);
        }
    }

    fn order(&mut self, order: Order, desk: &mut Desk<'_>) {
        match order {
            Order::Heed => {
                let mut verifying = std::mem::take(&mut self.verifying);
                verifying.retain(|(n, from, to)| {
                    let Some(valid) = self.shared.verdict(*n) else { return true };
                    let kind = if valid { "valid" } else { "invalid" };
                    let text = format!("<db:result from='{to}' to='{from}' type='{kind}'/>");
                    desk.out.extend_from_slice(text.as_bytes());
                    if valid {
                        self.proves(desk);
                    } else {
                        desk.ledger.step_failed("inbound", "dialback: not its key");
                    }
                    false
                });
                self.verifying = verifying;
            }
            Order::Leave => self.end(desk),
            // The schedule gives its orders to the domain's own stream.
            Order::Message { flow, .. }
            | Order::MessageFrom { flow, .. }
            | Order::Presence { flow, .. }
            | Order::Roster { flow, .. }
            | Order::Subscribe { flow, .. }
            | Order::Session { flow, .. } => desk.ledger.dropped(flow),
        }
    }

    fn due(&mut self, desk: &mut Desk<'_>) {
        if self.proven || self.over {
            return;
        }
        if self.asked {
            self.end(desk);
        } else {
            self.refuse("connection-timeout", "no proof in time", desk);
        }
    }

    fn gone(&mut self, _: bool, _: &mut Desk<'_>) {
        for (n, ..) in self.verifying.drain(..) {
            self.shared.forget(n);
        }
    }
}
