//! What an edge asks in its dialogs, and what comes of the answers: sessions of texts
//! (RFC 3261, 13; RFC 3428) and subscriptions with their refreshes (RFC 6665, 4.1).
//!
//! A subscription is done when its SUBSCRIBE is answered **and** a NOTIFY came since. Does **not**
//! know transactions; `sip_line.rs` does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::flows::sip::{Asked, Dialog, Stand};
use crate::flows::sip_line::{GIVE_UP_NS, Line, Pending, Timer, What};
use crate::flows::sip_text::Values;
use crate::mark;
use crate::party::{Desk, Order};
use crate::scenario::model::Kind;
use crate::sip::text::{Frame, uri_in};

/// Texts that wait for one session.
const WAITING_MAX: usize = 64;
/// The pause before what has to stand is tried again.
const AGAIN_NS: u64 = 2_000_000_000;
/// A refresh that comes later than this is late.
const LATE_NS: u64 = 1_000_000_000;

impl Line {
    /// A request in a dialog, or the one that begins it.
    pub(super) fn ask_in(
        &mut self,
        dialog: &mut Dialog,
        of: (u16, u32),
        method: &'static str,
        intended_ns: u64,
        (more, text): (&str, &[u8]),
        desk: &mut Desk<'_>,
    ) {
        dialog.cseq += 1;
        let shared = Arc::clone(&self.shared);
        let call = shared.call(of.0, of.1, dialog.generation);
        let fresh = format!("sip:{}", dialog.to);
        let what = What::Dialog(of.0, of.1, dialog.generation);
        let pending = Pending::new(method, what, dialog.cseq, (intended_ns, desk.now_ns));
        let values = Values {
            uri: if dialog.target.is_empty() { &fresh } else { &dialog.target },
            route: &dialog.route,
            from: &dialog.from,
            to: &dialog.to,
            tag: &shared.tags.0,
            remote_tag: &dialog.remote_tag,
            call: &call,
            cseq: dialog.cseq,
            more,
            text,
            ..Values::default()
        };
        self.ask(pending, &values, desk);
    }

    /// One text, in a session that stands or for itself.
    fn text(
        &mut self,
        dialog: &mut Dialog,
        of: (u16, u32),
        (octets, intended_ns): (usize, u64),
        desk: &mut Desk<'_>,
    ) {
        let mark = desk.ledger.mark(of.0, of.1, intended_ns);
        let mut text = Vec::with_capacity(octets);
        mark::put(mark, desk.now_ns, octets, &mut text);
        self.ask_in(dialog, of, "MESSAGE", intended_ns, ("", &text), desk);
    }

    fn invite(&mut self, dialog: &mut Dialog, of: (u16, u32), desk: &mut Desk<'_>) {
        forget(dialog);
        dialog.stand = Stand::Asked;
        dialog.invite = dialog.cseq + 1;
        let sdp = session(&dialog.from, self.shared.at);
        let more = "Allow: INVITE, BYE, ACK, CANCEL, INFO, MESSAGE, UPDATE\r\n\
            Content-Type: application/sdp\r\n";
        self.ask_in(dialog, of, "INVITE", desk.now_ns, (more, sdp.as_bytes()), desk);
    }

    fn subscribe(
        &mut self,
        dialog: &mut Dialog,
        of: (u16, u32),
        intended_ns: Option<u64>,
        desk: &mut Desk<'_>,
    ) {
        let refresh = dialog.stand == Stand::Live;
        if !refresh {
            forget(dialog);
            dialog.stand = Stand::Asked;
        }
        let (sent_ns, answered, notified) = (desk.now_ns, false, false);
        dialog.asked = Some(Asked { intended_ns, sent_ns, refresh, answered, notified });
        let expires_s = dialog.expires_s.max(dialog.least_s).max(1);
        let more =
            format!("Event: presence\r\nAccept: application/pidf+xml\r\nExpires: {expires_s}\r\n");
        let intended_ns = intended_ns.unwrap_or(desk.now_ns);
        self.ask_in(dialog, of, "SUBSCRIBE", intended_ns, (&more, b""), desk);
        let unheard_ns = desk.now_ns + GIVE_UP_NS + LATE_NS;
        self.at(unheard_ns, Timer::Unheard(of.0, of.1, dialog.cseq), desk);
    }

    /// RFC 3261, 13.2.2.4 and 17.1.1.3.
    fn acknowledge(
        &self,
        dialog: &Dialog,
        of: (u16, u32, u16),
        cseq: u32,
        branch: u64,
        desk: &mut Desk<'_>,
    ) {
        let shared = Arc::clone(&self.shared);
        let call = shared.call(of.0, of.1, of.2);
        let fresh = format!("sip:{}", dialog.to);
        let values = Values {
            method: "ACK",
            uri: if dialog.target.is_empty() { &fresh } else { &dialog.target },
            route: &dialog.route,
            branch,
            from: &dialog.from,
            to: &dialog.to,
            tag: &shared.tags.0,
            remote_tag: &dialog.remote_tag,
            call: &call,
            cseq,
            ..Values::default()
        };
        let begin = desk.out.len();
        shared.request.put(&values, desk.out);
        self.said(begin, desk);
    }

    /// The final answer to an INVITE came again: its ACK was lost.
    pub(super) fn acknowledge_again(
        &mut self,
        id: u64,
        cseq: u32,
        frame: &Frame<'_>,
        desk: &mut Desk<'_>,
    ) {
        let shared = Arc::clone(&self.shared);
        let Some(of) = shared.parts(self.reader.call(frame)) else { return };
        let Some(dialog) = shared.dialog(of.0, of.1) else { return };
        if dialog.generation == of.2 && dialog.invite == cseq {
            let good = frame.status < 300;
            let branch = if good { self.branch() } else { id };
            self.acknowledge(&dialog, of, cseq, branch, desk);
        }
    }

    /// A transaction of a dialog is over.
    pub(super) fn settled_in(
        &mut self,
        id: u64,
        p: &Pending,
        of: (u16, u32, u16),
        answer: (u16, Option<&Frame<'_>>),
        desk: &mut Desk<'_>,
    ) {
        let (status, good) = (answer.0, (200..300).contains(&answer.0));
        let shared = Arc::clone(&self.shared);
        let bounce = |desk: &mut Desk<'_>| {
            desk.ledger.bounced_of(of.0, of.1, &status.to_string());
        };
        match p.method {
            "OPTIONS" if good => {
                desk.ledger.completed_of(of.0, of.1, p.intended_ns, p.sent_ns, desk.now_ns);
                return;
            }
            "OPTIONS" => return bounce(desk),
            "MESSAGE" if !good => bounce(desk),
            _ => {}
        }
        let Some(mut dialog) = shared.dialog(of.0, of.1) else { return };
        if dialog.generation != of.2 {
            return;
        }
        match p.method {
            "MESSAGE" if shared.role(of.0).kind == Some(Kind::Session) => {
                if dialog.stand == Stand::Live && !self.over {
                    self.ask_in(&mut dialog, (of.0, of.1), "BYE", desk.now_ns, ("", b""), desk);
                }
                dialog.stand = Stand::Idle;
                self.next_session(&mut dialog, (of.0, of.1), status, desk);
            }
            // RFC 3261, 12.2.1.2.
            "MESSAGE" if matches!(status, 408 | 480 | 481) && dialog.stand == Stand::Live => {
                dialog.stand = Stand::Idle;
            }
            "INVITE" => self.invited(id, of, &mut dialog, p.cseq, answer, desk),
            "SUBSCRIBE" => self.subscribed((of.0, of.1), &mut dialog, answer, desk),
            _ => {}
        }
    }

    fn invited(
        &mut self,
        id: u64,
        of: (u16, u32, u16),
        dialog: &mut Dialog,
        cseq: u32,
        (status, frame): (u16, Option<&Frame<'_>>),
        desk: &mut Desk<'_>,
    ) {
        let session = self.shared.role(of.0).kind == Some(Kind::Session);
        let of2 = (of.0, of.1);
        if let Some(frame) = frame.filter(|_| (200..300).contains(&status)) {
            made(dialog, frame);
            let branch = self.branch();
            self.acknowledge(dialog, of, cseq, branch, desk);
            dialog.stand = Stand::Live;
            while let Some(text) = dialog.waiting.pop_front() {
                self.text(dialog, of2, text, desk);
                if session {
                    return;
                }
            }
            return;
        }
        if let Some(frame) = frame {
            frame.tag("To").clone_into(&mut dialog.remote_tag);
            self.acknowledge(dialog, of, cseq, id, desk);
        }
        dialog.stand = Stand::Idle;
        while dialog.waiting.pop_front().is_some() {
            desk.ledger.bounced_of(of.0, of.1, &status.to_string());
            if session {
                return self.next_session(dialog, of2, status, desk);
            }
        }
    }

    /// The session of the next text that waits for one of its own.
    fn next_session(
        &mut self,
        dialog: &mut Dialog,
        of: (u16, u32),
        status: u16,
        desk: &mut Desk<'_>,
    ) {
        if self.over {
            for _ in dialog.waiting.drain(..) {
                desk.ledger.bounced_of(of.0, of.1, &status.to_string());
            }
        } else if !dialog.waiting.is_empty() {
            self.invite(dialog, of, desk);
        }
    }

    fn subscribed(
        &mut self,
        of: (u16, u32),
        dialog: &mut Dialog,
        (status, frame): (u16, Option<&Frame<'_>>),
        desk: &mut Desk<'_>,
    ) {
        let Some(frame) = frame.filter(|_| (200..300).contains(&status)) else {
            return self.refused(of, dialog, status, frame, desk);
        };
        if dialog.stand != Stand::Live {
            made(dialog, frame);
            dialog.stand = Stand::Live;
        }
        let granted_s: u64 = frame.header("Expires").parse().unwrap_or(dialog.expires_s);
        dialog.refresh_ns = desk.now_ns + granted_s.clamp(1, 86_400) * 800_000_000;
        self.at(dialog.refresh_ns, Timer::Refresh(of.0, of.1), desk);
        if let Some(asked) = &mut dialog.asked {
            asked.answered = true;
        }
        pair(dialog, of, desk);
    }

    /// A SUBSCRIBE was refused, or not answered at all.
    fn refused(
        &mut self,
        of: (u16, u32),
        dialog: &mut Dialog,
        status: u16,
        frame: Option<&Frame<'_>>,
        desk: &mut Desk<'_>,
    ) {
        let Some(asked) = dialog.asked.take() else { return };
        dialog.stand = Stand::Idle;
        if asked.intended_ns.is_some() {
            desk.ledger.bounced_of(of.0, of.1, &status.to_string());
        } else if dialog.stays {
            self.shared.refused.store(u32::from(status), Ordering::Relaxed);
        }
        let least_s = frame.and_then(|it| it.header("Min-Expires").parse().ok());
        if let (423, Some(least_s)) = (status, least_s) {
            dialog.least_s = u64::min(least_s, 86_400);
        }
        // What the server knows no more begins anew, and what has to stand is tried again.
        let again = dialog.stays || asked.refresh && asked.intended_ns.is_none();
        let at_once = asked.refresh && status == 481;
        dialog.refresh_ns = match (again, at_once) {
            (false, _) => 0,
            (true, true) => desk.now_ns,
            (true, false) => desk.now_ns + AGAIN_NS,
        };
        if again && !self.over {
            self.at(dialog.refresh_ns, Timer::Refresh(of.0, of.1), desk);
        }
    }

    /// An order of the schedule.
    pub(super) fn ordered(&mut self, order: Order, desk: &mut Desk<'_>) {
        let shared = Arc::clone(&self.shared);
        match order {
            Order::MessageFrom { flow, pair, octets, intended_ns, .. }
            | Order::Session { flow, pair, octets, intended_ns, .. } => {
                self.wanted((flow, pair), (octets, intended_ns), desk);
            }
            Order::Subscribe { flow, pair, intended_ns, .. } => {
                let Some(mut dialog) = shared.dialog(flow, pair) else {
                    return desk.ledger.dropped(flow);
                };
                desk.ledger.sent(flow, 1, intended_ns, desk.now_ns);
                if dialog.asked.is_some() {
                    return desk.ledger.bounced_of(flow, pair, "the last one is not done");
                }
                self.subscribe(&mut dialog, (flow, pair), Some(intended_ns), desk);
            }
            Order::Presence { flow, pair, octets, intended_ns } => {
                self.changed(flow, pair, octets, intended_ns, desk);
            }
            Order::Message { flow, .. } | Order::Roster { flow, .. } => desk.ledger.dropped(flow),
            Order::Heed | Order::Leave => {}
        }
    }

    /// A text is to go out, or a question.
    fn wanted(&mut self, of: (u16, u32), text: (usize, u64), desk: &mut Desk<'_>) {
        let shared = Arc::clone(&self.shared);
        let Some(mut dialog) = shared.dialog(of.0, of.1) else {
            return desk.ledger.dropped(of.0);
        };
        let dialog = &mut *dialog;
        let (kind, intended_ns) = (shared.role(of.0).kind, text.1);
        if kind == Some(Kind::Options) {
            desk.ledger.sent(of.0, 1, intended_ns, desk.now_ns);
            let more = "Accept: application/sdp\r\n";
            return self.ask_in(dialog, of, "OPTIONS", intended_ns, (more, b""), desk);
        }
        let at_once = shared.population.pager || dialog.stand == Stand::Live;
        if at_once && kind != Some(Kind::Session) {
            desk.ledger.sent(of.0, 1, intended_ns, desk.now_ns);
            return self.text(dialog, of, text, desk);
        }
        if dialog.waiting.len() >= WAITING_MAX {
            return desk.ledger.dropped(of.0);
        }
        desk.ledger.sent(of.0, 1, intended_ns, desk.now_ns);
        dialog.waiting.push_back(text);
        if dialog.stand == Stand::Idle {
            self.invite(dialog, of, desk);
        }
    }

    /// A new line takes up the subscriptions that are its own: those that stand, and those that
    /// have to.
    pub(super) fn take_up(&mut self, desk: &mut Desk<'_>) {
        let Some(n) = self.n else { return };
        let shared = Arc::clone(&self.shared);
        let per_s = shared.population.connect_per_s;
        let gap_ns = (shared.lines as u64 * 1_000_000_000).checked_div(per_s).unwrap_or(0);
        let mut first_ns = desk.now_ns;
        for (flow, dialogs) in shared.dialogs.iter().enumerate() {
            for index in 0..dialogs.len() as u32 {
                let of = (flow as u16, index);
                let Some(mut dialog) = shared.dialog(of.0, of.1) else { continue };
                let begins = dialog.stays && dialog.stand == Stand::Idle;
                if dialog.line != n || !(begins || dialog.refresh_ns > 0) {
                    continue;
                }
                if begins {
                    dialog.refresh_ns = first_ns;
                    first_ns += gap_ns;
                }
                self.at(dialog.refresh_ns.max(desk.now_ns), Timer::Refresh(of.0, of.1), desk);
            }
        }
    }

    /// The time of a subscription has come.
    pub(super) fn refresh(&mut self, flow: u16, index: u32, desk: &mut Desk<'_>) {
        let shared = Arc::clone(&self.shared);
        let Some(mut dialog) = shared.dialog(flow, index) else { return };
        // One that was refreshed meanwhile has another time.
        let now = dialog.refresh_ns > 0 && dialog.refresh_ns <= desk.now_ns;
        if !now || dialog.asked.is_some() {
            return;
        }
        if desk.now_ns - dialog.refresh_ns > LATE_NS && dialog.stand == Stand::Live {
            desk.ledger.step_failed("refresh", "late");
        }
        self.subscribe(&mut dialog, (flow, index), None, desk);
    }

    /// No NOTIFY came for a SUBSCRIBE: what was wanted is lost, and may be wanted again.
    pub(super) fn unheard(&self, flow: u16, index: u32, cseq: u32, desk: &mut Desk<'_>) {
        let Some(mut dialog) = self.shared.dialog(flow, index) else { return };
        if dialog.cseq == cseq && dialog.asked.is_some_and(|asked| asked.answered) {
            dialog.asked = None;
            desk.ledger.step_failed("notify", "none came after SUBSCRIBE");
        }
    }

    /// Ends what stands.
    pub(super) fn leave(&mut self, desk: &mut Desk<'_>) {
        let Some(n) = self.n else { return };
        let shared = Arc::clone(&self.shared);
        for (flow, dialogs) in shared.dialogs.iter().enumerate() {
            for index in 0..dialogs.len() as u32 {
                let of = (flow as u16, index);
                let Some(mut dialog) = shared.dialog(of.0, of.1) else { continue };
                if dialog.line != n || dialog.stand != Stand::Live {
                    continue;
                }
                dialog.stand = Stand::Idle;
                dialog.refresh_ns = 0;
                let watches =
                    matches!(shared.role(of.0).kind, Some(Kind::Presence | Kind::Subscribe));
                let (method, more) = match watches {
                    true => ("SUBSCRIBE", "Event: presence\r\nExpires: 0\r\n"),
                    false => ("BYE", ""),
                };
                self.ask_in(&mut dialog, of, method, desk.now_ns, (more, b""), desk);
            }
        }
    }
}

/// A SUBSCRIBE is done when it is answered and a NOTIFY came since.
pub(super) fn pair(dialog: &mut Dialog, of: (u16, u32), desk: &mut Desk<'_>) {
    let Some(asked) = dialog.asked.filter(|it| it.answered && it.notified) else { return };
    dialog.asked = None;
    let step = if asked.refresh { "refresh" } else { "subscribe_notify" };
    desk.ledger.step(step, Duration::from_nanos(desk.now_ns.saturating_sub(asked.sent_ns)));
    if let Some(intended_ns) = asked.intended_ns {
        desk.ledger.completed_of(of.0, of.1, intended_ns, asked.sent_ns, desk.now_ns);
    }
}

/// RFC 3261, 12.1.2: the other's tag, target and routes.
fn made(dialog: &mut Dialog, answer: &Frame<'_>) {
    answer.tag("To").clone_into(&mut dialog.remote_tag);
    uri_in(answer.header("Contact")).clone_into(&mut dialog.target);
    let mut routes: Vec<&[u8]> = answer.headers("Record-Route").collect();
    routes.reverse();
    dialog.route = lines("Route", &routes);
}

/// Header lines.
pub(super) fn lines(name: &str, values: &[&[u8]]) -> String {
    let line = |it: &&[u8]| format!("{name}: {}\r\n", String::from_utf8_lossy(it));
    values.iter().map(line).collect()
}

fn forget(dialog: &mut Dialog) {
    dialog.generation = dialog.generation.wrapping_add(1);
    dialog.remote_tag.clear();
    dialog.target.clear();
    dialog.route.clear();
    dialog.heard = 0;
}

/// What an offer or an answer of texts says.
pub(super) fn session(user: &str, at: std::net::SocketAddr) -> String {
    let (ip, port) = (at.ip(), at.port());
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    format!(
        "v=0\r\no=- 0 0 IN {family} {ip}\r\ns=session\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
         m=message {port} sip sip:{user}\r\na=accept-types:text/plain\r\n"
    )
}
