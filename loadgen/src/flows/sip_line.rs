//! One line of an edge: requests and their answers (RFC 3261, 17.1), and what has its time.
//!
//! What is asked in dialogs is in `sip_dialog.rs`, what the server asks in `sip_heard.rs`. Does
//! **not** cancel an INVITE that is given up.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::flows::sip::Shared;
use crate::flows::sip_heard::Answers;
use crate::flows::sip_text::{self, Values};
use crate::party::{Desk, Order, Party, Wish};
use crate::scenario::model::Transport;
use crate::sip::text::{Frame, Reader};

/// Octets that wait for the end of a message above which the far end talks nonsense.
const HELD_MAX: usize = 2 << 20;
/// RFC 3261, 17.1.1.1: the first pause, the longest, and when a transaction is given up.
pub(super) const T1_NS: u64 = 500_000_000;
const T2_NS: u64 = 4_000_000_000;
pub(super) const GIVE_UP_NS: u64 = 64 * T1_NS;
/// How exactly that is kept: one look for many.
const GRAIN_NS: u64 = 250_000_000;
/// Every so many messages that come, one is checked by rsip.
const CHECKED: u64 = 1_000;
/// Kinds of start lines whose first is checked, too.
const KINDS: usize = 64;

/// Whose request it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A dialog's, or what begins one: flow, index, generation.
    Dialog(u16, u32, u16),
    /// Told to one who watches this user; with the pair whose change it is.
    Notify(usize, Arc<str>, Option<(u16, u32)>),
}

/// A request that is not answered.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) method: &'static str,
    pub(super) what: What,
    pub(super) cseq: u32,
    pub(super) intended_ns: u64,
    pub(super) sent_ns: u64,
    /// The pause before it is said again; 0: not any more.
    again_ns: u64,
    text: Vec<u8>,
}

impl Pending {
    pub(super) fn new(method: &'static str, what: What, cseq: u32, times: (u64, u64)) -> Self {
        let (intended_ns, sent_ns) = times;
        Self { method, what, cseq, intended_ns, sent_ns, again_ns: 0, text: Vec::new() }
    }
}

/// What has its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A request goes again.
    Again(u64),
    /// A 200 to an INVITE goes again.
    Accepted(u64),
    /// A subscription is refreshed, or begun.
    Refresh(u16, u32),
    /// The SUBSCRIBE with that number should have been followed by a NOTIFY (RFC 6665, 4.1.2.4).
    Unheard(u16, u32, u32),
}

/// A line.
pub(super) struct Line {
    pub(super) shared: Arc<Shared>,
    /// The number of the one that was dialled.
    pub(super) n: Option<u32>,
    pub(super) reader: Arc<Reader>,
    held: Vec<u8>,
    pending: HashMap<u64, Pending>,
    /// When which of them is given up.
    ends: VecDeque<(u64, u64)>,
    timers: BinaryHeap<Reverse<(u64, Timer)>>,
    last: u64,
    /// Where requests go, and where the last datagram came from.
    target: SocketAddr,
    remote: SocketAddr,
    pub(super) datagrams: bool,
    pub(super) answers: Answers,
    /// First bytes of start lines that were checked.
    kinds: Vec<[u8; 12]>,
    /// The connection is gone.
    pub(super) over: bool,
}

impl Line {
    pub(super) fn new(shared: Arc<Shared>, n: Option<u32>) -> Self {
        let target = shared.targets[n.unwrap_or(0) as usize % shared.targets.len()];
        Self {
            n,
            reader: Arc::default(),
            held: Vec::new(),
            pending: HashMap::new(),
            ends: VecDeque::new(),
            timers: BinaryHeap::new(),
            last: shared.made.fetch_add(1, Ordering::Relaxed) << 40,
            target,
            remote: target,
            datagrams: shared.population.transport == Transport::Udp,
            answers: Answers::default(),
            kinds: Vec::new(),
            over: false,
            shared,
        }
    }

    /// What was appended since `begin` is a request.
    pub(super) fn said(&self, begin: usize, desk: &mut Desk<'_>) {
        self.said_to(begin, self.target, desk);
    }

    /// What was appended since `begin` is an answer to what came last.
    pub(super) fn answered(&self, begin: usize, desk: &mut Desk<'_>) {
        self.said_to(begin, self.remote, desk);
    }

    fn said_to(&self, begin: usize, to: SocketAddr, desk: &mut Desk<'_>) {
        if self.datagrams {
            desk.wishes.push(Wish::To(to, desk.out.len() - begin));
        }
    }

    pub(super) fn at(&mut self, when: u64, timer: Timer, desk: &mut Desk<'_>) {
        let first = self.timers.peek().is_none_or(|Reverse((first, _))| when < *first);
        self.timers.push(Reverse((when, timer)));
        if first {
            desk.wishes.push(Wish::Wake(when));
        }
    }

    /// The number of a branch that no other line has.
    pub(super) fn branch(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Says a request and awaits its answer.
    pub(super) fn ask(&mut self, mut pending: Pending, values: &Values<'_>, desk: &mut Desk<'_>) {
        let id = self.branch();
        let begin = desk.out.len();
        let template = match pending.method {
            "MESSAGE" => &self.shared.message,
            _ => &self.shared.request,
        };
        template.put(&Values { branch: id, method: pending.method, ..*values }, desk.out);
        self.said(begin, desk);
        if self.datagrams {
            pending.text = desk.out.get(begin..).unwrap_or_default().to_vec();
            pending.again_ns = T1_NS;
            self.at(desk.now_ns + T1_NS, Timer::Again(id), desk);
        }
        let end_ns = desk.now_ns + GIVE_UP_NS;
        if self.ends.is_empty() {
            desk.wishes.push(Wish::Wake(end_ns + GRAIN_NS));
        }
        self.ends.push_back((end_ns, id));
        self.pending.insert(id, pending);
    }

    /// One message of the server.
    fn heard(&mut self, frame: &Frame<'_>, whole: &[u8], desk: &mut Desk<'_>) {
        let count = self.shared.received.fetch_add(1, Ordering::Relaxed);
        let mut kind = [0; 12];
        for (to, from) in kind.iter_mut().zip(whole) {
            *to = *from;
        }
        let first = self.kinds.len() < KINDS && !self.kinds.contains(&kind);
        if first || count.is_multiple_of(CHECKED) {
            if first {
                self.kinds.push(kind);
            }
            if let Err(reason) = sip_text::check(whole, frame, &self.reader) {
                desk.ledger.step_failed("check", &reason);
            }
        }
        if frame.status == 0 {
            self.asked(frame, desk);
        } else {
            self.answer(frame, desk);
        }
    }

    /// An answer of the server.
    fn answer(&mut self, frame: &Frame<'_>, desk: &mut Desk<'_>) {
        let (cseq, method) = self.reader.cseq(frame);
        let branch = sip_text::branch(frame, self.shared.run);
        let Some((id, p)) = branch.and_then(|id| Some((id, self.pending.get(&id)?))) else {
            if let Some(id) = branch.filter(|_| method == b"INVITE" && frame.status >= 200) {
                self.acknowledge_again(id, cseq, frame, desk);
            }
            // A final answer that comes again is one of theirs said twice.
            let why = if self.datagrams { "theirs" } else { "of no transaction" };
            desk.ledger.step_failed("retransmission", why);
            return;
        };
        let call = self.reader.call(frame);
        let same = match &p.what {
            What::Dialog(flow, index, generation) => {
                self.shared.parts(call) == Some((*flow, *index, *generation))
            }
            What::Notify(_, own, _) => call == own.as_bytes(),
        };
        if method != p.method.as_bytes() || cseq != p.cseq {
            return desk.ledger.step_failed("answer", "wrong CSeq");
        }
        if !same {
            return desk.ledger.step_failed("answer", "wrong Call-ID");
        }
        if frame.status < 200 {
            if let Some(p) = self.pending.get_mut(&id) {
                // An INVITE is heard; others go on slowly (RFC 3261, 17.1.2.2).
                let slow = if p.again_ns > 0 { T2_NS } else { 0 };
                p.again_ns = if p.method == "INVITE" { 0 } else { slow };
            }
            return;
        }
        if let Some(p) = self.pending.remove(&id) {
            self.settled(id, &p, frame.status, Some(frame), desk);
        }
    }

    /// A transaction is over.
    fn settled(
        &mut self,
        id: u64,
        p: &Pending,
        status: u16,
        frame: Option<&Frame<'_>>,
        desk: &mut Desk<'_>,
    ) {
        let step = match p.method {
            "MESSAGE" => "message",
            "INVITE" => "invite",
            "OPTIONS" => "options",
            "BYE" => "bye",
            "NOTIFY" => "notify",
            _ => "subscribe",
        };
        if (200..300).contains(&status) {
            desk.ledger.step(step, Duration::from_nanos(desk.now_ns.saturating_sub(p.sent_ns)));
        } else {
            desk.ledger.step_failed(step, &status.to_string());
        }
        match &p.what {
            What::Dialog(flow, index, generation) => {
                let of = (*flow, *index, *generation);
                self.settled_in(id, p, of, (status, frame), desk);
            }
            What::Notify(user, call, pair) => self.told(*user, call, *pair, status, desk),
        }
    }

    /// Takes whole messages and says how many octets are done with.
    fn read(&mut self, bytes: &[u8], desk: &mut Desk<'_>) -> usize {
        let reader = Arc::clone(&self.reader);
        let mut done = 0;
        loop {
            let rest = bytes.get(done..).unwrap_or_default();
            match reader.cut(rest) {
                Ok(Some((frame, length))) => {
                    self.heard(&frame, rest.get(..length).unwrap_or_default(), desk);
                    done += length;
                }
                Ok(None) if rest.len() <= HELD_MAX => return done,
                Ok(None) | Err(_) => {
                    desk.wishes.push(Wish::Fail("sip", "garbage".to_owned()));
                    return bytes.len();
                }
            }
        }
    }

    fn fire(&mut self, timer: Timer, desk: &mut Desk<'_>) {
        match timer {
            Timer::Again(id) => {
                let Some(p) = self.pending.get_mut(&id).filter(|p| p.again_ns > 0) else { return };
                let longest = if p.method == "INVITE" { u64::MAX } else { T2_NS };
                p.again_ns = (p.again_ns * 2).min(longest);
                let (begin, next) = (desk.out.len(), desk.now_ns + p.again_ns);
                desk.out.extend_from_slice(&p.text);
                self.said(begin, desk);
                desk.ledger.step_failed("retransmission", "ours");
                self.at(next, Timer::Again(id), desk);
            }
            Timer::Accepted(key) => {
                let Some((text, to, pause_ns)) = self.answers.unacknowledged(key) else { return };
                let begin = desk.out.len();
                desk.out.extend_from_slice(&text);
                self.said_to(begin, to, desk);
                desk.ledger.step_failed("retransmission", "ours");
                self.at(desk.now_ns + pause_ns, Timer::Accepted(key), desk);
            }
            Timer::Refresh(flow, index) => self.refresh(flow, index, desk),
            Timer::Unheard(flow, index, cseq) => self.unheard(flow, index, cseq, desk),
        }
    }

    /// Who the last datagram came from.
    pub(super) fn remote(&self) -> SocketAddr {
        self.remote
    }
}

impl Party for Line {
    fn opened(&mut self, desk: &mut Desk<'_>) {
        desk.wishes.push(Wish::Ready);
        self.take_up(desk);
    }

    fn received(&mut self, bytes: &[u8], desk: &mut Desk<'_>) {
        if self.held.is_empty() {
            let done = self.read(bytes, desk);
            self.held.extend_from_slice(bytes.get(done..).unwrap_or_default());
            return;
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        let done = self.read(&held, desk);
        held.drain(..done);
        self.held = if held.is_empty() { Vec::new() } else { held };
    }

    fn datagram(&mut self, remote: SocketAddr, bytes: &[u8], desk: &mut Desk<'_>) {
        let reader = Arc::clone(&self.reader);
        match reader.datagram(bytes) {
            Ok(Some(frame)) => {
                self.remote = remote;
                self.heard(&frame, bytes, desk);
            }
            // A keep-alive (RFC 5626, 4.4.1).
            Ok(None) if bytes.trim_ascii().is_empty() => {}
            Ok(None) | Err(_) => desk.ledger.step_failed("sip", "garbage"),
        }
    }

    fn order(&mut self, order: Order, desk: &mut Desk<'_>) {
        match order {
            Order::Leave => {
                self.leave(desk);
                desk.wishes.push(Wish::Close);
            }
            order => self.ordered(order, desk),
        }
    }

    fn due(&mut self, desk: &mut Desk<'_>) {
        while let Some(&(when, id)) = self.ends.front() {
            let stands = self.pending.contains_key(&id);
            if stands && when > desk.now_ns {
                desk.wishes.push(Wish::Wake(when + GRAIN_NS));
                break;
            }
            self.ends.pop_front();
            if let Some(p) = self.pending.remove(&id) {
                self.settled(id, &p, 408, None, desk);
            }
        }
        while let Some(&Reverse((when, timer))) = self.timers.peek() {
            if when > desk.now_ns {
                desk.wishes.push(Wish::Wake(when));
                return;
            }
            self.timers.pop();
            self.fire(timer, desk);
        }
    }

    fn gone(&mut self, _: bool, desk: &mut Desk<'_>) {
        self.over = true;
        let mut left: Vec<(u64, Pending)> = self.pending.drain().collect();
        left.sort_unstable_by_key(|it| it.0);
        for (id, p) in left {
            self.settled(id, &p, 503, None, desk);
        }
    }
}
