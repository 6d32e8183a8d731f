//! A stream that a played domain opened to the server under test (RFC 6120, 4): it carries what
//! the domain's users say, or verifies a key at the server's own door (XEP-0220, 2.1.2).
//!
//! TLS by STARTTLS where the server has it, then SASL EXTERNAL with the domain's certificate
//! (XEP-0178), and dialback where that is not offered or failed. Does **not** take stanzas: those
//! come on streams of the server's own.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::flows::s2s::{Shared, Verification};
use crate::flows::s2s_wire::{Garbage, HELD_MAX, Piece, condition, name, next, text};
use crate::ledger::Ledger;
use crate::mark;
use crate::party::{Desk, Order, Party, Wish};
use crate::scenario::model::Tls;

/// A subscription that was not answered is said again after so long.
const AGAIN_NS: u64 = 5_000_000_000;
/// How often letters from other threads are looked for.
const POST_NS: u64 = 10_000_000;

/// What a stream is for.
pub(super) enum Errand {
    /// The domain's own stream.
    Carry,
    /// A key, under that number.
    Verify(usize, Verification),
    /// It was too late.
    Nothing,
}

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The server's header is awaited.
    Header,
    /// Its features.
    Features,
    /// TLS was asked for.
    Proceed,
    /// EXTERNAL was.
    External,
    /// A key was sent: this domain's, or the one to be verified.
    Dialback,
    /// It carries stanzas.
    Stands,
    /// Nothing counts any more.
    Over,
}

/// The party.
pub(super) struct Outbound {
    shared: Arc<Shared>,
    domain: usize,
    errand: Errand,
    state: State,
    secured: bool,
    authenticated: bool,
    refused: bool,
    began_ns: u64,
    /// The stream's id, as the server gave it.
    id: String,
    held: Vec<u8>,
    subscribes: bool,
}

impl Outbound {
    pub(super) fn new(shared: Arc<Shared>, domain: usize, errand: Errand) -> Self {
        Self {
            shared,
            domain,
            errand,
            state: State::Header,
            secured: false,
            authenticated: false,
            refused: false,
            began_ns: 0,
            id: String::new(),
            held: Vec::new(),
            subscribes: false,
        }
    }

    fn name(&self) -> &str {
        self.shared.domains.get(self.domain).map_or("", |it| &it.name)
    }

    fn header(&mut self, desk: &mut Desk<'_>) {
        self.state = State::Header;
        // RFC 6120, 4.3.3: what came of the stream before counts no more.
        self.held.clear();
        let text = format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
             xmlns:stream='http://etherx.jabber.org/streams' from='{}' to='{}' version='1.0'>",
            self.name(),
            self.shared.far
        );
        desk.out.extend_from_slice(text.as_bytes());
    }

    fn fail(&mut self, step: &'static str, reason: &str, desk: &mut Desk<'_>) {
        if self.state != State::Over {
            self.state = State::Over;
            desk.wishes.push(Wish::Fail(step, reason.to_owned()));
        }
    }

    fn piece(&mut self, piece: Piece<'_>, desk: &mut Desk<'_>) {
        match piece {
            Piece::Header(head) if self.state == State::Header => {
                self.id = text(head, b" id=").to_owned();
                self.state = State::Features;
                // RFC 6120, 4.7.5: before version 1.0 there are no features.
                if text(head, b" version=").is_empty() {
                    self.dial_back(desk);
                }
            }
            Piece::Header(_) => self.fail("stream", "a header that nobody asked for", desk),
            Piece::End => {
                desk.out.extend_from_slice(b"</stream:stream>");
                if self.state == State::Stands {
                    self.fail("connection", "closed by the far end", desk);
                } else {
                    self.fail("stream", "closed before it stood", desk);
                }
            }
            Piece::Element(whole, head) => self.element(whole, head, desk),
        }
    }

    fn element(&mut self, whole: &[u8], head: usize, desk: &mut Desk<'_>) {
        let opening = whole.get(..head).unwrap_or_default();
        match (self.state, name(whole)) {
            (_, b"error") if opening.starts_with(b"<stream:error") => {
                self.fail("stream", condition(whole), desk);
            }
            (State::Features, b"features") => self.features(whole, desk),
            (State::Proceed, b"proceed") => match self.shared.identities.client(self.domain) {
                Ok(config) => {
                    self.held.clear();
                    desk.wishes.push(Wish::SecureAs(config, self.shared.far.clone()));
                }
                Err(reason) => self.fail("tls", &reason, desk),
            },
            (State::Proceed, _) => self.fail("starttls", "refused", desk),
            (State::External, b"success") => {
                self.authenticated = true;
                self.header(desk);
            }
            (State::External, b"failure") => {
                // Counted, and tried by the older way.
                desk.ledger.step_failed("external", condition(whole));
                self.refused = true;
                self.dial_back(desk);
            }
            (State::Dialback, b"result" | b"verify") => self.verdict(whole, opening, desk),
            // Nothing else is of use here; what servers say of their own accord is passed over.
            _ => {}
        }
    }

    fn features(&mut self, whole: &[u8], desk: &mut Desk<'_>) {
        let offers = |what: &[u8]| memchr::memmem::find(whole, what).is_some();
        if !self.secured && self.shared.tls == Tls::StartTls {
            if !offers(b"<starttls") {
                return self.fail("starttls", "not offered", desk);
            }
            desk.out.extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            self.state = State::Proceed;
            return;
        }
        if self.authenticated {
            return self.stands(desk);
        }
        let carries = matches!(self.errand, Errand::Carry);
        let external = carries && !self.shared.population.dialback && !self.refused;
        if external && offers(b">EXTERNAL<") {
            let name = STANDARD.encode(self.name());
            let text = format!(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>{name}</auth>"
            );
            desk.out.extend_from_slice(text.as_bytes());
            self.state = State::External;
            return;
        }
        self.dial_back(desk);
    }

    fn dial_back(&mut self, desk: &mut Desk<'_>) {
        let text = match &self.errand {
            Errand::Nothing => {
                self.state = State::Over;
                desk.out.extend_from_slice(b"</stream:stream>");
                desk.wishes.push(Wish::Close);
                return;
            }
            Errand::Carry => {
                let key = self.shared.key(&self.shared.far, self.name(), &self.id);
                let (from, to) = (self.name(), &self.shared.far);
                format!("<db:result from='{from}' to='{to}'>{key}</db:result>")
            }
            Errand::Verify(_, it) => {
                let (from, id) = (self.name(), it.id.as_str());
                let (to, key) = (it.far.as_str(), it.key.as_str());
                format!("<db:verify from='{from}' to='{to}' id='{id}'>{key}</db:verify>")
            }
        };
        self.state = State::Dialback;
        desk.out.extend_from_slice(text.as_bytes());
    }

    fn verdict(&mut self, whole: &[u8], opening: &[u8], desk: &mut Desk<'_>) {
        let (kind, valid) = match text(opening, b" type=") {
            "valid" => ("valid", true),
            "error" => (condition(whole), false),
            "invalid" => ("invalid", false),
            _ => ("garbage", false),
        };
        match (&self.errand, name(whole)) {
            (Errand::Carry, b"result") if valid => self.stands(desk),
            (Errand::Carry, b"result") => self.fail("dialback", kind, desk),
            (&Errand::Verify(n, _), b"verify") => {
                self.state = State::Over;
                self.shared.judge(n, valid, desk);
                desk.out.extend_from_slice(b"</stream:stream>");
                desk.wishes.push(Wish::Close);
            }
            _ => {}
        }
    }

    fn stands(&mut self, desk: &mut Desk<'_>) {
        self.state = State::Stands;
        let took_ns = desk.now_ns.saturating_sub(self.began_ns);
        desk.ledger.step("stream", Duration::from_nanos(took_ns));
        desk.wishes.push(Wish::Ready);
        self.shared.seat(self.domain, Some((desk.thread, desk.me)));
        self.shared.collect(self.domain, desk.out);
        self.subscribes = self.shared.subscribe(self.domain, desk.out) > 0;
        if self.subscribes {
            desk.wishes.push(Wish::Wake(desk.now_ns + AGAIN_NS));
        }
        if self.carries_post(desk.thread) {
            desk.wishes.push(Wish::Wake(desk.now_ns + POST_NS));
        }
    }

    /// One stream of each thread looks for what others left for those beside it.
    fn carries_post(&self, thread: usize) -> bool {
        self.shared.posts.len() > 1 && self.domain == thread
    }

    fn message(&self, it: Texts<'_>, desk: &mut Desk<'_>) {
        let mark = desk.ledger.mark(it.flow, it.pair, it.intended_ns);
        let out = &mut *desk.out;
        out.extend_from_slice(b"<message from='");
        out.extend_from_slice(it.from.as_bytes());
        out.extend_from_slice(b"/tl' to='");
        out.extend_from_slice(it.to.as_bytes());
        out.extend_from_slice(b"' type='chat' id='");
        out.extend_from_slice(&digits(Ledger::flow_of(it.flow, it.pair)));
        out.extend_from_slice(b"'><body>");
        mark::put(mark, desk.now_ns, it.octets, out);
        out.extend_from_slice(b"</body></message>");
        desk.ledger.sent(it.flow, 1, it.intended_ns, desk.now_ns);
    }

    /// RFC 6121, 4.4.2: a copy for each watcher, since each is asked of by its own address.
    fn presence(&self, it: Texts<'_>, desk: &mut Desk<'_>) {
        let shared = Arc::clone(&self.shared);
        let Some(pairs) = shared.pairs.flows.get(usize::from(it.flow)) else { return };
        let user = pairs.users.get(it.pair as usize).map_or(0, |users| users.0);
        let Some(from) = shared.addresses.get(user as usize) else { return };
        let mark = desk.ledger.mark(it.flow, it.pair, it.intended_ns);
        let tos = shared.watchers.get(usize::from(it.flow)).map_or(&[][..], Vec::as_slice);
        for place in 0..pairs.watchers.each {
            let to = tos.get(pairs.watchers.user(it.pair, place) as usize);
            let Some(to) = to else { continue };
            let out = &mut *desk.out;
            out.extend_from_slice(b"<presence from='");
            out.extend_from_slice(from.as_bytes());
            out.extend_from_slice(b"/tl' to='");
            out.extend_from_slice(to.as_bytes());
            out.extend_from_slice(b"'><status>");
            mark::put(mark, desk.now_ns, it.octets, out);
            out.extend_from_slice(b"</status></presence>");
        }
        let due = u64::from(pairs.watchers.each);
        desk.ledger.sent(it.flow, due, it.intended_ns, desk.now_ns);
    }
}

/// What is to be sent, and from whom to whom.
struct Texts<'a> {
    flow: u16,
    pair: u32,
    from: &'a str,
    to: &'a str,
    octets: usize,
    intended_ns: u64,
}

/// Eight hexadecimal digits, which no server changes.
fn digits(mut value: u32) -> [u8; 8] {
    let mut out = [0; 8];
    for place in out.iter_mut().rev() {
        *place = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
    out
}

impl Party for Outbound {
    fn opened(&mut self, desk: &mut Desk<'_>) {
        self.began_ns = desk.now_ns;
        self.secured = self.shared.tls == Tls::Direct;
        self.header(desk);
    }

    fn secured(&mut self, desk: &mut Desk<'_>) {
        self.secured = true;
        self.header(desk);
    }

    fn received(&mut self, bytes: &[u8], desk: &mut Desk<'_>) {
        self.held.extend_from_slice(bytes);
        loop {
            let held = std::mem::take(&mut self.held);
            let (done, more) = match next(&held) {
                Err(Garbage) => return self.fail("stream", "garbage", desk),
                Ok((done, None)) => (done, false),
                Ok((done, Some(piece))) => {
                    let restarts = self.state;
                    self.piece(piece, desk);
                    // A new stream begins with what comes next, not with what was held.
                    let anew = self.state == State::Header && restarts != State::Header;
                    (if anew { held.len() } else { done }, true)
                }
            };
            if self.state == State::Over {
                return;
            }
            self.held = held;
            self.held.drain(..done);
            if !more {
                break;
            }
        }
        if self.held.is_empty() {
            self.held = Vec::new();
        } else if self.held.len() > HELD_MAX {
            self.fail("stream", "garbage: no end of an element", desk);
        }
    }

    fn order(&mut self, order: Order, desk: &mut Desk<'_>) {
        match order {
            Order::MessageFrom { flow, pair, from, to, octets, intended_ns } => {
                let (from, to) = (&*from, &*to);
                self.message(Texts { flow, pair, from, to, octets, intended_ns }, desk);
            }
            Order::Presence { flow, pair, octets, intended_ns } => {
                let (from, to) = ("", "");
                self.presence(Texts { flow, pair, from, to, octets, intended_ns }, desk);
            }
            Order::Heed if self.state == State::Stands => {
                self.shared.collect(self.domain, desk.out);
            }
            Order::Heed => {}
            Order::Leave => {
                self.state = State::Over;
                self.shared.seat(self.domain, None);
                desk.out.extend_from_slice(b"</stream:stream>");
                desk.wishes.push(Wish::Close);
            }
            // What clients and edges do.
            Order::Message { flow, .. }
            | Order::Roster { flow, .. }
            | Order::Subscribe { flow, .. }
            | Order::Session { flow, .. } => desk.ledger.dropped(flow),
        }
    }

    fn due(&mut self, desk: &mut Desk<'_>) {
        if self.state != State::Stands {
            return;
        }
        if self.carries_post(desk.thread) {
            let post = self.shared.posts.get(desk.thread);
            let domains = post.map(|post| {
                std::mem::take(&mut *post.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
            });
            for domain in domains.into_iter().flatten() {
                if let Some(party) = self.shared.seated(domain as usize, desk.thread) {
                    desk.wishes.push(Wish::Tell(party, Order::Heed));
                }
            }
            desk.wishes.push(Wish::Wake(desk.now_ns + POST_NS));
        }
        if self.subscribes && desk.now_ns >= self.began_ns + AGAIN_NS {
            self.began_ns = desk.now_ns;
            self.subscribes = self.shared.subscribe(self.domain, desk.out) > 0;
            if self.subscribes {
                desk.wishes.push(Wish::Wake(desk.now_ns + AGAIN_NS));
            }
        }
    }

    fn gone(&mut self, _: bool, desk: &mut Desk<'_>) {
        match self.errand {
            Errand::Carry => {
                if self.shared.seated(self.domain, desk.thread) == Some(desk.me) {
                    self.shared.seat(self.domain, None);
                }
            }
            Errand::Verify(n, _) => {
                if self.shared.verification(n).is_some_and(|it| it.verdict.is_none()) {
                    self.shared.judge(n, false, desk);
                }
            }
            Errand::Nothing => {}
        }
    }
}
