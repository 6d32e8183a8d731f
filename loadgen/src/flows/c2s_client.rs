//! One client on one connection: login, then what it is ordered to say, and what it makes of what
//! comes.
//!
//! Does **not** resume a stream; who is cut logs in anew.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use crate::flows::c2s::Shared;
use crate::flows::c2s_roster::{Changes, Subscriptions};
use crate::flows::c2s_wire::{Item, attribute, condition};
use crate::ledger::{Ledger, PAIR_BITS};
use crate::login::{Account, Login, Next};
use crate::mark;
use crate::party::{Desk, Order, Party, Wish};
use crate::sasl::Salted;
use crate::scenario::model::{Kind, Tls};
use crate::sm::{self, Managed};

/// Octets of one element above which the far end talks nonsense; a roster of thousands is less.
const HELD_MAX: usize = 4 << 20;
/// The same before the login is done.
const LOGIN_HELD_MAX: usize = 256 << 10;

thread_local! {
    /// What this thread salted before; clients of a population often share salts.
    static SALTED: RefCell<Salted> = RefCell::default();
}

/// A client.
pub(super) struct Client {
    shared: Arc<Shared>,
    user: u32,
    login: Option<Box<Login>>,
    began_ns: u64,
    held: Vec<u8>,
    managed: Managed,
    rest: Option<Box<Rest>>,
}

/// What few clients need.
#[derive(Default)]
struct Rest {
    changes: Changes,
    subscriptions: Option<Subscriptions>,
}

impl Client {
    pub(super) fn new(shared: Arc<Shared>, user: u32) -> Self {
        let managed = Managed::default();
        Self { shared, user, login: None, began_ns: 0, held: Vec::new(), managed, rest: None }
    }

    fn log_in(&mut self, bytes: &[u8], desk: &mut Desk<'_>) {
        let Some(login) = &mut self.login else { return };
        if login.held() + bytes.len() > LOGIN_HELD_MAX {
            desk.wishes.push(Wish::Fail("login", "garbage: no end of an element".to_owned()));
            return;
        }
        let next = SALTED.with_borrow_mut(|salted| login.handle(bytes, salted, desk.out));
        match next {
            Ok(Next::Wait) => {}
            Ok(Next::Secure) => {
                let name = self.shared.domain_of(self.user as usize);
                desk.wishes.push(Wish::Secure(name));
            }
            Ok(Next::Done) => {
                let jid: Arc<str> = login.jid.as_str().into();
                let rest = login.rest();
                self.login = None;
                let took_ns = desk.now_ns.saturating_sub(self.began_ns);
                desk.ledger.step("login", Duration::from_nanos(took_ns));
                desk.wishes.push(Wish::Known(self.user as usize, jid));
                desk.wishes.push(Wish::Ready);
                if let Some(subscriptions) = Subscriptions::of(&self.shared, self.user, desk) {
                    self.rest.get_or_insert_default().subscriptions = Some(subscriptions);
                }
                if !rest.is_empty() {
                    self.read(&rest, desk);
                }
            }
            Err(said) => {
                let failed = ["<failure", "<stream:error", "<error", "<failed"]
                    .iter()
                    .any(|start| said.contains(start));
                let reason =
                    if failed { condition(said.as_bytes()).to_owned() } else { short(&said) };
                desk.wishes.push(Wish::Fail("login", reason));
            }
        }
    }

    fn read(&mut self, bytes: &[u8], desk: &mut Desk<'_>) {
        let shared = Arc::clone(&self.shared);
        if self.held.is_empty() {
            let done = shared.wire.read(bytes, |item| self.item(item, desk));
            self.held.extend_from_slice(bytes.get(done..).unwrap_or_default());
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(bytes);
            let done = shared.wire.read(&held, |item| self.item(item, desk));
            held.drain(..done);
            // Many idle clients hold no memory.
            self.held = if held.is_empty() { Vec::new() } else { held };
        }
        if self.held.len() > HELD_MAX {
            let reason = "garbage: no end of an element".to_owned();
            desk.wishes.push(Wish::Fail("stream", reason));
        }
    }

    fn item(&mut self, item: Item<'_>, desk: &mut Desk<'_>) {
        match item {
            Item::Message(whole, head) => {
                self.managed.receives();
                self.message(whole, head, desk);
            }
            Item::Presence(whole, head) => {
                self.managed.receives();
                self.presence(whole, head, desk);
            }
            Item::Iq(whole, head) => {
                self.managed.receives();
                self.iq(whole, head, desk);
            }
            Item::Request => desk.out.extend_from_slice(self.managed.answer().as_bytes()),
            Item::Acknowledged(h) => {
                if !h.is_some_and(|h| self.managed.acknowledged(h)) {
                    let reason = "acknowledged what was never sent".to_owned();
                    desk.ledger.step_failed("stream management", &reason);
                }
            }
            Item::StreamError(whole) => {
                desk.wishes.push(Wish::Fail("stream", condition(whole).to_owned()));
            }
            // After our own goodbye nothing is heard any more.
            Item::StreamEnd => {
                desk.wishes.push(Wish::Fail("stream", "ended by the server".to_owned()));
            }
        }
    }

    fn message(&self, whole: &[u8], head: usize, desk: &mut Desk<'_>) {
        let body = self.shared.wire.body(whole, head);
        if let Some((mark, sent_ns)) = body.and_then(mark::take) {
            let (flow, pair) = (mark.flow >> PAIR_BITS, mark.flow & ((1 << PAIR_BITS) - 1));
            if self.shared.receiver(flow, pair, Kind::Message) == Some(self.user) {
                desk.ledger.arrived(mark, sent_ns, desk.now_ns);
                return;
            }
            if !is_error(whole, head) {
                desk.ledger.corrupt(flow as u16);
                return;
            }
        }
        if is_error(whole, head) {
            let tag = whole.get(..head).unwrap_or_default();
            if let Some(of) = attribute(tag, b" id=").and_then(number) {
                let (flow, pair) = ((of >> PAIR_BITS) as u16, of & ((1 << PAIR_BITS) - 1));
                desk.ledger.bounced_of(flow, pair, condition(whole));
            }
        } else if body.is_some() {
            // A mark that does not agree with itself: whose it was is not known.
            desk.ledger.corrupt(self.shared.first_received());
        }
    }

    fn presence(&mut self, whole: &[u8], head: usize, desk: &mut Desk<'_>) {
        if let Some((mark, sent_ns)) = self.shared.wire.status(whole, head).and_then(mark::take) {
            let (flow, pair) = (mark.flow >> PAIR_BITS, mark.flow & ((1 << PAIR_BITS) - 1));
            let Some(paired) = self.shared.pairs.flows.get(flow as usize) else { return };
            let watchers = paired.watchers;
            if let Some(place) = watchers.place(pair, self.user)
                && self.shared.receives.get(flow as usize) == Some(&Some(Kind::Presence))
            {
                let place = pair * watchers.each + place;
                if desk.ledger.arrived_at(mark, place, sent_ns, desk.now_ns) {
                    self.shared.one_of_all(flow as usize, mark, watchers.each, desk);
                }
            }
            return;
        }
        let tag = whole.get(..head).unwrap_or_default();
        if self.shared.approves
            && attribute(tag, b" type=") == Some(b"subscribe")
            && let Some(from) = attribute(tag, b" from=")
        {
            desk.out.extend_from_slice(b"<presence to='");
            desk.out.extend_from_slice(from);
            desk.out.extend_from_slice(b"' type='subscribed'/>");
            self.counts(desk);
        }
    }

    fn iq(&mut self, whole: &[u8], head: usize, desk: &mut Desk<'_>) {
        let tag = whole.get(..head).unwrap_or_default();
        let kind = attribute(tag, b" type=").unwrap_or_default();
        let id = attribute(tag, b" id=").unwrap_or_default();
        if matches!(kind, b"get" | b"set") {
            // RFC 6120, 8.2.3: every request is answered; of pushes see RFC 6121, 2.1.6.
            desk.out.extend_from_slice(b"<iq type='result' id='");
            desk.out.extend_from_slice(id);
            if let Some(from) = attribute(tag, b" from=") {
                desk.out.extend_from_slice(b"' to='");
                desk.out.extend_from_slice(from);
            }
            desk.out.extend_from_slice(b"'/>");
            self.counts(desk);
        }
        let Some(rest) = &mut self.rest else { return };
        rest.changes.heard(kind, id, whole, desk);
        if let Some(subscriptions) = &mut rest.subscriptions {
            let before = desk.out.len();
            subscriptions.heard(&self.shared, whole, desk);
            if desk.out.len() > before {
                self.counts(desk);
            }
        }
    }

    /// A stanza was said.
    fn counts(&mut self, desk: &mut Desk<'_>) {
        if self.shared.after.managed && self.managed.sends() {
            desk.out.extend_from_slice(sm::REQUEST);
        }
    }
}

impl Party for Client {
    fn opened(&mut self, desk: &mut Desk<'_>) {
        self.began_ns = desk.now_ns;
        let user = self.user as usize;
        let (name, password) = self.shared.credentials(user);
        let account = Account {
            user: name,
            domain: self.shared.domain_of(user),
            password,
            mechanism: self.shared.mechanism,
            starttls: self.shared.tls == Tls::StartTls,
            after: self.shared.after,
        };
        let secured = self.shared.tls == Tls::Direct;
        let nonce = (u64::from(self.user) + 1) ^ desk.now_ns.rotate_left(32);
        self.login = Some(Box::new(Login::begin(account, secured, nonce, desk.out)));
    }

    fn secured(&mut self, desk: &mut Desk<'_>) {
        if let Some(login) = &mut self.login {
            login.secured(desk.out);
        }
    }

    fn received(&mut self, bytes: &[u8], desk: &mut Desk<'_>) {
        if self.login.is_some() {
            self.log_in(bytes, desk);
        } else {
            self.read(bytes, desk);
        }
    }

    fn order(&mut self, order: Order, desk: &mut Desk<'_>) {
        match order {
            Order::Message { flow, pair, to, octets, intended_ns } => {
                let mark = desk.ledger.mark(flow, pair, intended_ns);
                let out = &mut *desk.out;
                out.extend_from_slice(b"<message to='");
                out.extend_from_slice(to.as_bytes());
                out.extend_from_slice(b"' type='chat' id='");
                out.extend_from_slice(&digits(Ledger::flow_of(flow, pair)));
                out.extend_from_slice(b"'><body>");
                mark::put(mark, desk.now_ns, octets, out);
                out.extend_from_slice(b"</body></message>");
                desk.ledger.sent(flow, 1, intended_ns, desk.now_ns);
                self.counts(desk);
            }
            Order::Presence { flow, pair, octets, intended_ns } => {
                let mark = desk.ledger.mark(flow, pair, intended_ns);
                let out = &mut *desk.out;
                out.extend_from_slice(b"<presence><status>");
                mark::put(mark, desk.now_ns, octets, out);
                out.extend_from_slice(b"</status></presence>");
                let paired = self.shared.pairs.flows.get(usize::from(flow));
                let due = paired.map_or(0, |paired| u64::from(paired.watchers.each));
                desk.ledger.sent(flow, due, intended_ns, desk.now_ns);
                self.counts(desk);
            }
            Order::Roster { flow, pair, to, intended_ns } => {
                let changes = &mut self.rest.get_or_insert_default().changes;
                changes.order(flow, pair, &to, intended_ns, desk);
                self.counts(desk);
            }
            Order::Leave => {
                desk.out.extend_from_slice(b"</stream:stream>");
                desk.wishes.push(Wish::Close);
            }
            // Word from another party: a client has none to hear of.
            Order::Heed => {}
            // What a server or an edge does.
            Order::MessageFrom { flow, .. }
            | Order::Subscribe { flow, .. }
            | Order::Session { flow, .. } => desk.ledger.dropped(flow),
        }
    }

    fn due(&mut self, desk: &mut Desk<'_>) {
        let rest = self.rest.as_ref();
        if let Some(subscriptions) = rest.and_then(|rest| rest.subscriptions.as_ref()) {
            subscriptions.again(desk);
        }
    }

    fn gone(&mut self, _: bool, desk: &mut Desk<'_>) {
        if let Some(rest) = &mut self.rest {
            rest.changes.gone(desk);
        }
    }
}

fn is_error(whole: &[u8], head: usize) -> bool {
    let tag = whole.get(..head).unwrap_or_default();
    attribute(tag, b" type=") == Some(b"error")
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

fn number(id: &[u8]) -> Option<u32> {
    (id.len() == 8).then_some(())?;
    u32::from_str_radix(std::str::from_utf8(id).ok()?, 16).ok()
}

/// The begin of what somebody said, as a reason.
fn short(said: &str) -> String {
    said.split(':').next().unwrap_or_default().chars().take(60).collect()
}
