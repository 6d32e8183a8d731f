//! A client's roster: items set and removed as ordered (RFC 6121, 2.3 to 2.5), and the
//! subscriptions that a flow of presence needs, asked for where they are not there (RFC 6121, 3.1).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::flows::c2s::Shared;
use crate::flows::c2s_wire::{attribute, condition, tags};
use crate::party::{Desk, Wish};

/// Requests of a watcher on their way: with 1,000 watchers of 50, some 40 at each presentity,
/// which is below what servers keep for one user.
const WINDOW: usize = 2;
/// Silence after which what is missing is asked for again.
const AGAIN_NS: u64 = 5_000_000_000;

/// Changes of the roster that were ordered.
#[derive(Default)]
pub(super) struct Changes {
    open: VecDeque<Change>,
    count: u64,
    /// The contact is there and the next change takes it away.
    there: bool,
}

struct Change {
    flow: u16,
    number: u64,
    contact: Arc<str>,
    intended_ns: u64,
    sent_ns: u64,
    result: bool,
    push: bool,
}

impl Changes {
    /// Sets the item, or takes it away if it is there.
    pub(super) fn order(
        &mut self,
        flow: u16,
        pair: u32,
        contact: &str,
        intended_ns: u64,
        desk: &mut Desk<'_>,
    ) {
        // Somebody who is nobody: a contact that is seen would lose its subscription.
        let bare = contact.split('/').next().unwrap_or_default();
        let contact: Arc<str> = format!("x-{bare}").into();
        self.count += 1;
        let number = self.count;
        let how = if self.there { " subscription='remove'" } else { " name='load'" };
        self.there = !self.there;
        let line = format!(
            "<iq type='set' id='c{pair:x}-{number:x}'><query xmlns='jabber:iq:roster'>\
             <item jid='{contact}'{how}/></query></iq>"
        );
        desk.out.extend_from_slice(line.as_bytes());
        let sent_ns = desk.now_ns;
        let (result, push) = (false, false);
        self.open.push_back(Change { flow, number, contact, intended_ns, sent_ns, result, push });
        desk.ledger.sent(flow, 1, intended_ns, sent_ns);
    }

    /// An iq came: a result of ours, or a push.
    pub(super) fn heard(&mut self, kind: &[u8], id: &[u8], whole: &[u8], desk: &mut Desk<'_>) {
        if self.open.is_empty() {
            return;
        }
        match kind {
            b"set" => {
                // Pushes come in the order of the changes; another contact's is not ours.
                tags(whole, |tag| {
                    let jid = attribute(tag, b" jid=").filter(|_| tag.starts_with(b"<item"));
                    let ours = |change: &&mut Change| {
                        !change.push && jid == Some(change.contact.as_bytes())
                    };
                    if let Some(change) = self.open.iter_mut().find(ours) {
                        change.push = true;
                    }
                });
            }
            b"result" | b"error" => {
                let Some(number) = number_of(id) else { return };
                let Some(at) = self.open.iter().position(|it| it.number == number) else { return };
                if kind == b"error" {
                    if let Some(change) = self.open.remove(at) {
                        desk.ledger.bounced(change.flow, condition(whole));
                    }
                    return;
                }
                if let Some(change) = self.open.get_mut(at) {
                    change.result = true;
                }
            }
            _ => return,
        }
        let mut at = 0;
        while let Some(change) = self.open.get(at) {
            if change.result && change.push {
                let Change { flow, intended_ns, sent_ns, .. } = *change;
                desk.ledger.completed(flow, intended_ns, sent_ns, desk.now_ns);
                self.open.remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// The connection is gone, and with it the answers.
    pub(super) fn gone(&mut self, desk: &mut Desk<'_>) {
        for change in self.open.drain(..) {
            desk.ledger.bounced(change.flow, "connection gone");
        }
    }
}

fn number_of(id: &[u8]) -> Option<u64> {
    let (_, number) = std::str::from_utf8(id).ok()?.strip_prefix('c')?.split_once('-')?;
    u64::from_str_radix(number, 16).ok()
}

/// The subscriptions of one watcher.
pub(super) struct Subscriptions {
    /// Place in the shared list of flows, presentity, whether it is seen.
    wanted: Vec<(usize, u32, bool)>,
    missing: usize,
    next: usize,
}

impl Subscriptions {
    /// What a user has to see, if anything; asks for its roster.
    pub(super) fn of(shared: &Shared, user: u32, desk: &mut Desk<'_>) -> Option<Self> {
        let mut wanted = Vec::new();
        for (at, watched) in shared.watched.iter().enumerate() {
            let watchers = shared.pairs.flows.get(watched.flow)?.watchers;
            let seen = (0..watched.addresses.len() as u32)
                .filter(|&presentity| watchers.place(presentity, user).is_some());
            wanted.extend(seen.map(|presentity| (at, presentity, false)));
        }
        if wanted.is_empty() || shared.missing.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let it = Self { missing: wanted.len(), next: user as usize, wanted };
        it.again(desk);
        Some(it)
    }

    /// Fetches the roster and asks for what it lacks, now or after some silence.
    pub(super) fn again(&self, desk: &mut Desk<'_>) {
        if self.missing > 0 {
            desk.out.extend_from_slice(
                b"<iq type='get' id='have'><query xmlns='jabber:iq:roster'/></iq>",
            );
            desk.wishes.push(Wish::Wake(desk.now_ns + AGAIN_NS));
        }
    }

    /// A roster or a push of it came.
    pub(super) fn heard(&mut self, shared: &Shared, whole: &[u8], desk: &mut Desk<'_>) {
        if self.missing == 0 {
            return;
        }
        let mut came = 0;
        tags(whole, |tag| {
            let subscription = attribute(tag, b" subscription=").unwrap_or_default();
            let jid = attribute(tag, b" jid=").unwrap_or_default();
            if !tag.starts_with(b"<item") || !matches!(subscription, b"to" | b"both") {
                return;
            }
            for (at, presentity, seen) in self.wanted.iter_mut().filter(|it| !it.2) {
                let watched = shared.watched.get(*at);
                if watched.and_then(|it| it.by_address.get(jid)) == Some(presentity) {
                    *seen = true;
                    self.missing -= 1;
                    came += 1;
                    shared.missing.fetch_sub(1, Ordering::Relaxed);
                }
            }
        });
        let whole_roster = attribute(whole, b" id=") == Some(b"have");
        let count = if whole_roster { WINDOW } else { came };
        for _ in 0..count.min(self.missing) {
            self.ask_next(shared, desk);
        }
    }

    /// Everybody begins at another one, so that no presentity is asked by all at once.
    fn ask_next(&mut self, shared: &Shared, desk: &mut Desk<'_>) {
        for _ in 0..self.wanted.len() {
            let at = self.next % self.wanted.len();
            self.next += 1;
            let Some(&(list, presentity, false)) = self.wanted.get(at) else { continue };
            let watched = shared.watched.get(list);
            if let Some(to) = watched.and_then(|it| it.addresses.get(presentity as usize)) {
                desk.out.extend_from_slice(b"<presence to='");
                desk.out.extend_from_slice(to.as_bytes());
                desk.out.extend_from_slice(b"' type='subscribe'/>");
                return;
            }
        }
    }
}
