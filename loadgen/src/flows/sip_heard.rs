//! What a server asks of an edge, and the answers (RFC 3261, 8.2, 13.3 and 17.2; RFC 3428).
//!
//! On datagrams answers are kept and said again. Does **not** judge whether a text came in a
//! session that stands: its mark tells whose it is.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use memchr::memmem::find;

use crate::flows::sip::{Dialog, Stand};
use crate::flows::sip_dialog::{lines, pair, session};
use crate::flows::sip_line::{GIVE_UP_NS, Line, T1_NS, Timer};
use crate::ledger::PAIR_BITS;
use crate::mark::{self, Mark};
use crate::party::Desk;
use crate::sip::text::{Frame, uri_in};

/// Answers that are kept to be said again, on datagrams.
const ANSWERS: usize = 1 << 15;

/// What was answered lately on datagrams.
#[derive(Default)]
pub(super) struct Answers {
    by_key: HashMap<u64, Vec<u8>>,
    order: VecDeque<u64>,
    /// 200s to INVITEs without their ACKs: text, receiver, the pause before the next.
    accepted: HashMap<u64, (Vec<u8>, SocketAddr, u64)>,
}

impl Answers {
    fn keep(&mut self, key: u64, text: &[u8]) {
        if self.order.len() >= ANSWERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
        self.order.push_back(key);
        self.by_key.insert(key, text.to_vec());
    }

    /// What is to be said again, to whom, and the pause after that (RFC 3261, 13.3.1.4).
    pub(super) fn unacknowledged(&mut self, key: u64) -> Option<(Vec<u8>, SocketAddr, u64)> {
        let it = self.accepted.get_mut(&key)?;
        it.2 *= 2;
        if it.2 >= GIVE_UP_NS / 2 {
            return self.accepted.remove(&key).filter(|_| false);
        }
        Some(it.clone())
    }
}

impl Line {
    /// A request of the server.
    pub(super) fn asked(&mut self, frame: &Frame<'_>, desk: &mut Desk<'_>) {
        let method = frame.method();
        if method == b"ACK" {
            if self.datagrams {
                self.answers.accepted.remove(&self.session_key(frame));
            }
            return;
        }
        let key = self.datagrams.then(|| key(frame));
        if let Some(text) = key.and_then(|key| self.answers.by_key.get(&key)) {
            let begin = desk.out.len();
            desk.out.extend_from_slice(text);
            self.answered(begin, desk);
            return desk.ledger.step_failed("retransmission", "theirs");
        }
        let begin = desk.out.len();
        let mut more = String::new();
        let mut notifies = None;
        let status = match method {
            b"MESSAGE" => {
                self.texted(frame, desk);
                "200 OK"
            }
            b"NOTIFY" => self.notified(frame, desk),
            b"SUBSCRIBE" => {
                let (status, said, who) = self.watched(frame, desk.now_ns);
                (more, notifies) = (said, who);
                status
            }
            b"INVITE" => {
                more = self.contact(frame);
                more.push_str("Content-Type: application/sdp\r\n");
                "200 OK"
            }
            b"BYE" => self.ended(frame),
            b"INFO" | b"OPTIONS" | b"UPDATE" | b"CANCEL" => "200 OK",
            _ => {
                desk.ledger.step_failed("request", "of no method we know");
                "405 Method Not Allowed"
            }
        };
        frame.answer(status, &self.shared.tags.1, &more, desk.out);
        if method == b"INVITE" {
            let body = session(address(frame, "To"), self.shared.at);
            desk.out.truncate(desk.out.len() - b"Content-Length: 0\r\n\r\n".len());
            let end = format!("Content-Length: {}\r\n\r\n{body}", body.len());
            desk.out.extend_from_slice(end.as_bytes());
        }
        if let Some(key) = key {
            self.answers.keep(key, desk.out.get(begin..).unwrap_or_default());
        }
        self.answered(begin, desk);
        if self.datagrams && method == b"INVITE" {
            let text = desk.out.get(begin..).unwrap_or_default().to_vec();
            let key = self.session_key(frame);
            self.answers.accepted.insert(key, (text, self.remote(), T1_NS));
            self.at(desk.now_ns + T1_NS, Timer::Accepted(key), desk);
        }
        if let Some((user, call)) = notifies {
            self.first_notify(user, &call, desk);
        }
    }

    /// An INVITE and its ACK have this in common.
    fn session_key(&self, frame: &Frame<'_>) -> u64 {
        let mut sum = DefaultHasher::new();
        (self.reader.call(frame), self.reader.cseq(frame).0).hash(&mut sum);
        sum.finish()
    }

    /// A flow that ends here, for texts that say of no flow that they are its.
    fn some_flow(&self) -> u16 {
        let roles = &self.shared.roles;
        roles.iter().position(|it| it.ends).unwrap_or(0) as u16
    }

    /// A text came.
    fn texted(&self, frame: &Frame<'_>, desk: &mut Desk<'_>) {
        let Some((mark, sent_ns)) = mark::take(frame.body) else {
            return desk.ledger.corrupt(self.some_flow());
        };
        let (flow, pair) = parts(mark);
        let paired = self.shared.pairs.flows.get(usize::from(flow));
        let to = paired.and_then(|it| it.users.get(pair as usize));
        let user = to.and_then(|users| self.shared.users.get(users.1 as usize));
        let right = user.is_some_and(|user| **user == *address(frame, "To"));
        if right && self.shared.role(flow).takes_texts() {
            desk.ledger.arrived(mark, sent_ns, desk.now_ns);
        } else {
            desk.ledger.corrupt(flow);
        }
    }

    /// A watcher of the edge is told.
    fn notified(&mut self, frame: &Frame<'_>, desk: &mut Desk<'_>) -> &'static str {
        let shared = Arc::clone(&self.shared);
        let of = shared.parts(self.reader.call(frame));
        let found = of.and_then(|(flow, index, generation)| {
            let dialog = shared.dialog(flow, index)?;
            (dialog.generation == generation).then_some((flow, index, dialog))
        });
        let Some((flow, index, mut dialog)) = found else {
            desk.ledger.step_failed("notify", "in no dialog");
            return "481 Subscription Does Not Exist";
        };
        let (cseq, _) = self.reader.cseq(frame);
        if cseq <= dialog.heard {
            desk.ledger.step_failed("notify", "a CSeq that does not rise");
        }
        dialog.heard = dialog.heard.max(cseq);
        let state = frame.header("Subscription-State");
        if state.starts_with("active") && !std::mem::replace(&mut dialog.active, true) {
            // Each dialog is active for the first time once, so this ends at zero.
            if shared.role(flow).watches() {
                shared.missing.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if let Some(asked) = &mut dialog.asked {
            asked.notified = true;
        }
        pair(&mut dialog, (flow, index), desk);
        if state.starts_with("terminated") {
            desk.ledger.step_failed("notify", "terminated");
            self.terminated(&mut dialog, (flow, index), desk);
        }
        drop(dialog);
        let note = find(frame.body, b"tl1 ").and_then(|at| frame.body.get(at..));
        if let Some((mark, sent_ns)) = note.and_then(mark::take) {
            let each = shared.pairs.flows.get(usize::from(flow)).map_or(1, |it| it.watchers.each);
            if parts(mark) == (flow, index / each.max(1)) {
                desk.ledger.arrived_at(mark, index, sent_ns, desk.now_ns);
            } else if !shared.role(flow).watches() || parts(mark).0 != flow {
                // The note of another flow's change, to a watcher who was never owed it.
            } else {
                desk.ledger.corrupt(flow);
            }
        } else if note.is_some() {
            desk.ledger.corrupt(flow);
        }
        "200 OK"
    }

    /// The server ends a subscription; what has to stand begins anew.
    fn terminated(&mut self, dialog: &mut Dialog, of: (u16, u32), desk: &mut Desk<'_>) {
        if dialog.stand == Stand::Live {
            dialog.stand = Stand::Idle;
            let again = dialog.refresh_ns > 0;
            dialog.refresh_ns = if again { desk.now_ns + T1_NS } else { 0 };
            if again {
                self.at(dialog.refresh_ns, Timer::Refresh(of.0, of.1), desk);
            }
        }
    }

    fn ended(&self, frame: &Frame<'_>) -> &'static str {
        if let Some((flow, index, generation)) = self.shared.parts(self.reader.call(frame)) {
            let dialog = self.shared.dialog(flow, index);
            let live = |it: &std::sync::MutexGuard<'_, Dialog>| {
                it.generation == generation && it.stand == Stand::Live
            };
            if let Some(mut dialog) = dialog.filter(live) {
                dialog.stand = Stand::Idle;
            }
        }
        "200 OK"
    }

    /// What an answer that makes a dialog says of the edge.
    pub(super) fn contact(&self, frame: &Frame<'_>) -> String {
        let routes: Vec<&[u8]> = frame.headers("Record-Route").collect();
        format!(
            "{}Contact: <sip:{}@{};transport={}>\r\n",
            lines("Record-Route", &routes),
            address(frame, "To").split('@').next().unwrap_or_default(),
            self.shared.at,
            self.shared.transport.to_ascii_lowercase(),
        )
    }
}

/// The user in From or To, without scheme and parameters.
pub(super) fn address<'a>(frame: &Frame<'a>, name: &'a str) -> &'a str {
    let uri = uri_in(frame.header(name));
    let uri = uri.split_once(':').map_or(uri, |it| it.1);
    uri.split([';', '?']).next().unwrap_or_default()
}

fn parts(mark: Mark) -> (u16, u32) {
    ((mark.flow >> PAIR_BITS) as u16, mark.flow & ((1 << PAIR_BITS) - 1))
}

/// RFC 3261, 17.2.3: the top Via and the method.
fn key(frame: &Frame<'_>) -> u64 {
    let mut sum = DefaultHasher::new();
    frame.headers("Via").next().hash(&mut sum);
    frame.method().hash(&mut sum);
    sum.finish()
}
