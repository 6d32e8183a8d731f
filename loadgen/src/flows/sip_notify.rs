//! Users of an edge who are watched (RFC 6665, 4.2): who watches them, and what these are told.
//!
//! A notice is a PIDF document (RFC 3863) whose note begins with the mark. Each is a transaction: one
//! that is refused is a delivery that came back. Does **not** know authorization: all may watch.

use std::sync::Arc;

use crate::flows::sip::Notifier;
use crate::flows::sip_dialog::lines;
use crate::flows::sip_heard::address;
use crate::flows::sip_line::{Line, Pending, What};
use crate::flows::sip_text::Values;
use crate::mark;
use crate::party::Desk;
use crate::sip::text::{Frame, uri_in};

/// Who may watch one user.
const WATCHING_MAX: usize = 100_000;
/// The longest subscription, in seconds.
const EXPIRES_MAX: u64 = 3_600;

/// The status, further header lines, and who is to be told.
type Answer = (&'static str, String, Option<(usize, Arc<str>)>);

impl Line {
    /// Somebody watches a user of the edge, again or no more.
    pub(super) fn watched(&self, frame: &Frame<'_>, now_ns: u64) -> Answer {
        let refused = |status| (status, String::new(), None);
        let user = self.shared.user(address(frame, "To"));
        let Some((user, mut watching)) = user.and_then(|u| Some((u, self.shared.watching(u)?)))
        else {
            return refused("404 Not Found");
        };
        let call = self.reader.call(frame);
        let expires_s: u64 = frame.header("Expires").parse().unwrap_or(EXPIRES_MAX);
        let expires_s = expires_s.min(EXPIRES_MAX);
        let until_ns = now_ns + expires_s * 1_000_000_000;
        let place = watching.iter().position(|it| it.call.as_bytes() == call);
        let full = watching.len() >= WATCHING_MAX;
        let call = match place.and_then(|at| watching.get_mut(at)) {
            Some(known) => {
                known.until_ns = until_ns;
                Arc::clone(&known.call)
            }
            None if !frame.tag("To").is_empty() => {
                return refused("481 Subscription Does Not Exist");
            }
            None if full => return refused("503 Service Unavailable"),
            None => {
                let routes: Vec<&[u8]> = frame.headers("Record-Route").collect();
                let call: Arc<str> = String::from_utf8_lossy(call).into();
                watching.push(Notifier {
                    call: Arc::clone(&call),
                    from: frame.tag("From").to_owned(),
                    to: address(frame, "From").to_owned(),
                    target: uri_in(frame.header("Contact")).to_owned(),
                    route: lines("Route", &routes),
                    cseq: 0,
                    until_ns,
                });
                call
            }
        };
        let more = format!("{}Expires: {expires_s}\r\n", self.contact(frame));
        ("200 OK", more, Some((user, call)))
    }

    /// What follows every SUBSCRIBE.
    pub(super) fn first_notify(&mut self, user: usize, call: &str, desk: &mut Desk<'_>) {
        let shared = Arc::clone(&self.shared);
        let Some(mut watching) = shared.watching(user) else { return };
        let Some(at) = watching.iter().position(|it| *it.call == *call) else { return };
        self.notify(&mut watching[at], user, (b"", None), desk);
        if watching[at].until_ns <= desk.now_ns {
            watching.swap_remove(at);
        }
    }

    /// A user of the edge has another state: all who watch him are told.
    pub(super) fn changed(
        &mut self,
        flow: u16,
        pair: u32,
        octets: usize,
        intended_ns: u64,
        desk: &mut Desk<'_>,
    ) {
        let shared = Arc::clone(&self.shared);
        let paired = shared.pairs.flows.get(usize::from(flow));
        let user = paired.and_then(|it| Some((it.watchers, it.users.get(pair as usize)?.0)));
        let Some((watchers, user)) = user else { return desk.ledger.dropped(flow) };
        let mark = desk.ledger.mark(flow, pair, intended_ns);
        desk.ledger.sent(flow, u64::from(watchers.each), intended_ns, desk.now_ns);
        let mut note = Vec::new();
        mark::put(mark, desk.now_ns, octets, &mut note);
        let Some(mut watching) = shared.watching(user as usize) else { return };
        watching.retain(|it| it.until_ns > desk.now_ns);
        for notifier in watching.iter_mut() {
            self.notify(notifier, user as usize, (&note, Some((flow, pair))), desk);
        }
    }

    fn notify(
        &mut self,
        notifier: &mut Notifier,
        user: usize,
        (note, pair): (&[u8], Option<(u16, u32)>),
        desk: &mut Desk<'_>,
    ) {
        let shared = Arc::clone(&self.shared);
        let Some(own) = shared.users.get(user) else { return };
        notifier.cseq += 1;
        let left_s = notifier.until_ns.saturating_sub(desk.now_ns) / 1_000_000_000;
        let (more, body) = match left_s {
            0 => {
                let ended = "Event: presence\r\nSubscription-State: terminated;reason=timeout\r\n";
                (ended.to_owned(), Vec::new())
            }
            _ => {
                let state = format!(
                    "Event: presence\r\nSubscription-State: active;expires={left_s}\r\n\
                     Content-Type: application/pidf+xml\r\n"
                );
                (state, document(own, note))
            }
        };
        // Its From and To are those of the SUBSCRIBE, turned round.
        let values = Values {
            uri: &notifier.target,
            route: &notifier.route,
            from: own,
            to: &notifier.to,
            tag: &shared.tags.1,
            remote_tag: &notifier.from,
            call: &notifier.call,
            cseq: notifier.cseq,
            more: &more,
            text: &body,
            ..Values::default()
        };
        let what = What::Notify(user, Arc::clone(&notifier.call), pair);
        let times = (desk.now_ns, desk.now_ns);
        self.ask(Pending::new("NOTIFY", what, notifier.cseq, times), &values, desk);
    }

    /// A NOTIFY was answered, or never.
    pub(super) fn told(
        &self,
        user: usize,
        call: &str,
        pair: Option<(u16, u32)>,
        status: u16,
        desk: &mut Desk<'_>,
    ) {
        if (200..300).contains(&status) {
            return;
        }
        if let Some((flow, pair)) = pair {
            desk.ledger.bounced_of(flow, pair, &status.to_string());
        }
        // RFC 6665, 4.2.2: who does not know of a subscription has none.
        if matches!(status, 404 | 405 | 408 | 410 | 416 | 480..=485 | 489 | 501 | 604)
            && let Some(mut watching) = self.shared.watching(user)
        {
            watching.retain(|it| *it.call != *call);
        }
    }
}

/// A user of the edge is there, and says this.
fn document(user: &str, note: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "<?xml version=\"1.0\"?>\r\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:{user}\">\
         <tuple id=\"t0\"><status><basic>open</basic></status>"
    )
    .into_bytes();
    if !note.is_empty() {
        out.extend_from_slice(b"<note>");
        out.extend_from_slice(note);
        out.extend_from_slice(b"</note>");
    }
    out.extend_from_slice(b"</tuple></presence>");
    out
}
