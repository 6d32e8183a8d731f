//! Client transactions: a request of ours on a connection, until its answer.
//!
//! What may follow what is `sip::transaction`'s; where the request goes is `ways.rs`'. Each try is a
//! transaction of its own with a branch of its own. Who asked hears provisional answers and exactly
//! one end. After a 503 or no answer another target is tried, if the peer has one (RFC 3261, 8.1.3.1;
//! RFC 3263, 4.3) and there is time. The ACK of a 2xx is **not** here: it is its dialog's.

use std::time::Duration;

use crate::limits::{SIP_TRIES_MAX, SIP_TRY_TIME_MIN};
use crate::shard::kernel::ShardId;
use crate::shard::sip::line::Line;
use crate::shard::sip::transport::Place;
use crate::shard::sip::{Class, Due, Failure};
use crate::shard::{Shard, Timer};
use crate::sip::transaction::{Action, Branch, Input, InviteClient, LIFE, Machine, branch};
use crate::sip::write;
use crate::sip::{Message, Method, Name};
use crate::stdx::Key;
use crate::time::Moment;

/// One of them.
#[derive(Debug)]
pub(super) struct ClientTxn {
    /// `None`: in its way's queue.
    machine: Option<Machine>,
    pub(super) is_invite: bool,
    /// Who asked, and the number of the question there; 0: nobody.
    home: ShardId,
    ask: u64,
    pub(super) way: Key,
    place: Option<Place>,
    branch: Branch,
    /// The top Via of this try.
    via: Box<[u8]>,
    /// Whole, but for the Via.
    pub(super) text: Vec<u8>,
    pub(super) class: Class,
    pub(super) deadline: Moment,
    tries: u8,
    cancel: Cancel,
    again: Moment,
    pause: (Duration, Duration),
    end: Moment,
    armed: Moment,
}

/// RFC 3261, 9.1: a CANCEL goes out behind the first 1xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cancel {
    No,
    Wanted,
    Sent,
}

/// A request as its way is given it.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) home: ShardId,
    pub(super) ask: u64,
    pub(super) class: Class,
    pub(super) deadline: Moment,
    pub(super) text: Vec<u8>,
    pub(super) tries: u8,
}

/// How a transaction ended for who asked.
enum End {
    Response,
    Failed(Failure),
}

impl Shard {
    /// Enters a request that waits for its way; `None`: there are too many.
    pub(super) fn client_enter(&mut self, way: Key, wanted: Wanted) -> Result<Key, Wanted> {
        let Wanted { home, ask, class, deadline, text, tries } = wanted;
        if self.transport.clients.is_full() {
            self.counters.sip.clients_full += 1;
            return Err(Wanted { home, ask, class, deadline, text, tries });
        }
        let txn = ClientTxn {
            machine: None,
            is_invite: text.starts_with(b"INVITE "),
            home,
            ask,
            way,
            place: None,
            branch: Branch { shard: 0, key: 0, secret: 0 },
            via: Box::default(),
            text,
            class,
            deadline,
            tries,
            cancel: Cancel::No,
            again: Moment::NEVER,
            pause: Default::default(),
            end: Moment::NEVER,
            armed: Moment::NEVER,
        };
        let Ok(key) = self.transport.clients.insert(txn) else { unreachable!("there is room") };
        if ask != 0 {
            self.transport.client_asks.insert((home.0, ask), key);
        }
        Ok(key)
    }

    /// It goes out on that line; false: it could not.
    pub(super) fn client_start(&mut self, key: Key, line: &Line) -> bool {
        let now = self.now.moment;
        let secret = self.random.number();
        let shard = self.id.0;
        let Some(txn) = self.transport.clients.get_mut(key) else { return true };
        txn.branch = Branch { shard, key: key.to_u64(), secret };
        txn.via = line.via(&branch(txn.branch)).into();
        txn.place = Some(line.place);
        txn.tries += 1;
        let step = Machine::client(txn.is_invite, line.place.is_reliable());
        txn.machine = Some(step.next);
        let mut text = Vec::with_capacity(txn.text.len() + txn.via.len() + 8);
        write::insert_via(&txn.text, &txn.via, &mut text);
        let place = line.place;
        if !self.put(place, &text) {
            if let Some(txn) = self.transport.clients.get_mut(key) {
                txn.machine = None;
            }
            return false;
        }
        for action in step.actions {
            if let Some(txn) = self.transport.clients.get_mut(key) {
                txn.timer(*action, now);
            }
        }
        self.watch_client(key);
        true
    }

    /// A response came: it is of a request of ours, or of nobody's.
    pub(super) fn client_response(&mut self, response: &Message<'_>) {
        let found = response.via().ok().and_then(|via| Branch::read(via.branch()?));
        let Some(branch) = found else { return self.counters.sip.responses_stray += 1 };
        if branch.shard != self.id.0 {
            if branch.shard < self.settings.shards {
                return self.post_stray(ShardId(branch.shard), response.frame());
            }
            return self.counters.sip.responses_stray += 1;
        }
        let key = Key::from_u64(branch.key);
        let Some(txn) = self.transport.clients.get(key).filter(|it| it.branch == branch) else {
            return self.counters.sip.responses_stray += 1;
        };
        let of_invite = matches!(response.method(), Method::Invite);
        if of_invite != txn.is_invite || matches!(response.method(), Method::Cancel) {
            // What they say to our CANCEL; the INVITE has its own answer.
            return;
        }
        let status = response.status();
        self.way_hears(txn.way, txn.place, status, response);
        if status == 503 && self.client_elsewhere(key) {
            return self.client_step(key, Input::Failure, Some(response));
        }
        self.client_step(key, Input::of_status(status), Some(response));
        self.client_cancel_on(key);
    }

    /// The line is gone: what went out on it has no answer any more.
    pub(super) fn client_line_lost(&mut self, place: Place) {
        let lost: Vec<Key> = self
            .transport
            .clients
            .iter()
            .filter(|(_, it)| it.place == Some(place) && it.machine.is_some())
            .map(|(key, _)| key)
            .collect();
        for key in lost {
            self.client_step(key, Input::Lost, None);
        }
    }

    /// Whether another target is worth a try; then the transaction at hand is nobody's any more.
    fn client_elsewhere(&mut self, key: Key) -> bool {
        let now = self.now.moment;
        let Some(txn) = self.transport.clients.get(key) else { return false };
        let has_time = txn.deadline.since(now) >= SIP_TRY_TIME_MIN;
        let open = txn.machine.is_some_and(Machine::is_open) && txn.cancel == Cancel::No;
        if !open || !has_time || txn.tries >= SIP_TRIES_MAX || !self.way_has_others(txn.way) {
            return false;
        }
        let Some(txn) = self.transport.clients.get_mut(key) else { return false };
        let wanted = Wanted {
            home: txn.home,
            ask: std::mem::take(&mut txn.ask),
            class: txn.class,
            deadline: txn.deadline,
            text: txn.text.clone(),
            tries: txn.tries,
        };
        let (way, place) = (txn.way, txn.place);
        if wanted.ask != 0 {
            self.transport.client_asks.remove(&(wanted.home.0, wanted.ask));
        }
        self.counters.sip.retried += 1;
        self.way_avoid(way, place);
        self.way_want(way, wanted);
        true
    }

    fn client_step(&mut self, key: Key, input: Input, response: Option<&Message<'_>>) {
        let now = self.now.moment;
        let Some(txn) = self.transport.clients.get_mut(key) else { return };
        let reliable = txn.place.is_none_or(Place::is_reliable);
        let Some(step) = txn.machine.and_then(|it| it.handle(input, reliable)) else { return };
        txn.machine = Some(step.next);
        let mut end = None;
        for action in step.actions {
            let Some(txn) = self.transport.clients.get_mut(key) else { return };
            match *action {
                Action::Repeat => self.client_repeat(key),
                Action::Ack => self.client_ack(key, response),
                Action::Pass => end = Some(End::Response),
                Action::Timeout => end = Some(End::Failed(Failure::Timeout)),
                Action::Lost => end = Some(End::Failed(Failure::Unreachable)),
                timer => txn.timer(timer, now),
            }
        }
        let Some(txn) = self.transport.clients.get(key) else { return };
        let (home, ask) = (txn.home, txn.ask);
        if step.next == Machine::Terminated {
            self.client_end(key);
        } else {
            self.watch_client(key);
        }
        match (end, response) {
            (Some(End::Response), Some(response)) => self.tell_response(home, ask, response),
            (Some(End::Failed(failure)), _) => self.tell_failure(home, ask, failure),
            _ => {}
        }
    }

    /// On a datagram: the same once more.
    fn client_repeat(&mut self, key: Key) {
        let Some(txn) = self.transport.clients.get(key) else { return };
        let mut text = Vec::with_capacity(txn.text.len() + txn.via.len() + 8);
        write::insert_via(&txn.text, &txn.via, &mut text);
        self.counters.sip.repeats += 1;
        if let Some(place) = txn.place {
            self.put_or_lose(place, &text);
        }
    }

    /// RFC 3261, 17.1.1.3.
    fn client_ack(&mut self, key: Key, response: Option<&Message<'_>>) {
        let to = response.and_then(|it| it.header(Name::To)).map(<[u8]>::to_vec);
        self.client_hop(key, "ACK", to.as_deref());
    }

    /// An ACK or CANCEL of an INVITE: the same branch, the same route.
    fn client_hop(&mut self, key: Key, method: &str, to: Option<&[u8]>) {
        let Some(txn) = self.transport.clients.get_mut(key) else { return };
        let (place, via, invite) = (txn.place, txn.via.clone(), std::mem::take(&mut txn.text));
        let text = self.with_read(&invite, |_, it| {
            let mut text = Vec::new();
            let (number, _) = it.cseq().ok()?;
            let mut out = write::request(method, it.uri(), &mut text);
            out = out.header("Via", &via).header("Max-Forwards", b"70");
            for route in it.headers(Name::Route) {
                out = out.header("Route", route);
            }
            let said = |name| it.header(name).unwrap_or_default();
            out.header("From", said(Name::From))
                .header("To", to.unwrap_or_else(|| said(Name::To)))
                .header("Call-ID", said(Name::CallId))
                .header("CSeq", format!("{number} {method}").as_bytes())
                .end();
            Some(text)
        });
        if let Some(txn) = self.transport.clients.get_mut(key) {
            txn.text = invite;
        }
        if let (Some(place), Some(Some(text))) = (place, text) {
            // Where it is lost the far end's timers end what there is.
            self.put_or_lose(place, &text);
        }
    }

    /// Who asked does not want it any more.
    pub(super) fn client_cancel(&mut self, home: ShardId, ask: u64) {
        let Some(key) = self.transport.client_asks.get(&(home.0, ask)).copied() else { return };
        let Some(txn) = self.transport.clients.get_mut(key).filter(|it| it.is_invite) else {
            return;
        };
        if txn.machine.is_none() {
            // Never sent: there is nobody to be told but who asked.
            self.client_end(key);
            return self.tell_failure(home, ask, Failure::Timeout);
        }
        if txn.cancel == Cancel::No {
            txn.cancel = Cancel::Wanted;
        }
        self.client_cancel_on(key);
    }

    fn client_cancel_on(&mut self, key: Key) {
        let Some(txn) = self.transport.clients.get_mut(key) else { return };
        let rings = txn.machine == Some(Machine::InviteClient(InviteClient::Proceeding));
        if rings && txn.cancel == Cancel::Wanted {
            txn.cancel = Cancel::Sent;
            // Where no answer comes, the transaction ends all the same (9.1).
            txn.end = self.now.moment + LIFE;
            self.client_hop(key, "CANCEL", None);
            self.watch_client(key);
        }
    }

    pub(super) fn client_due(&mut self, key: Key) {
        let now = self.now.moment;
        let Some(txn) = self.transport.clients.get_mut(key) else { return };
        if txn.armed <= now {
            txn.armed = Moment::NEVER;
        }
        let Some(machine) = txn.machine else { return };
        if machine.is_open() && txn.deadline.min(txn.end) <= now {
            return self.client_overdue(key, machine);
        }
        if txn.end <= now {
            return self.client_step(key, Input::End, None);
        }
        if txn.again <= now {
            txn.pause.0 = (txn.pause.0 * 2).min(txn.pause.1);
            txn.again = now + txn.pause.0;
            self.client_step(key, Input::Again, None);
        }
        self.watch_client(key);
    }

    /// No final answer in time.
    fn client_overdue(&mut self, key: Key, machine: Machine) {
        let now = self.now.moment;
        let Some(txn) = self.transport.clients.get_mut(key) else { return };
        let (home, ask, way, place) = (txn.home, txn.ask, txn.way, txn.place);
        if machine == Machine::InviteClient(InviteClient::Proceeding) {
            if txn.cancel == Cancel::Sent && txn.end <= now {
                self.client_end(key);
            } else {
                // It rings, and who asked can wait no longer; its answer is acknowledged still.
                txn.deadline = Moment::NEVER;
                txn.end = now + LIFE;
                txn.cancel = Cancel::Wanted;
                txn.ask = 0;
                self.transport.client_asks.remove(&(home.0, ask));
                self.client_cancel_on(key);
            }
            return self.tell_failure(home, ask, Failure::Timeout);
        }
        let is_silent = txn.end <= now;
        if is_silent && self.client_elsewhere(key) {
            self.client_end(key);
        } else if is_silent {
            self.client_step(key, Input::End, None);
        } else {
            self.client_end(key);
            self.tell_failure(home, ask, Failure::Timeout);
        }
        if is_silent {
            self.way_silent(way, place);
        }
    }

    fn watch_client(&mut self, key: Key) {
        let Some(txn) = self.transport.clients.get_mut(key) else { return };
        let open = txn.machine.is_some_and(Machine::is_open);
        let deadline = txn.again.min(txn.end).min(if open { txn.deadline } else { Moment::NEVER });
        if deadline < txn.armed {
            txn.armed = deadline;
            self.timers.set(deadline, Timer::Sip(Due::Client(key)));
        }
    }

    /// Forgets it.
    pub(super) fn client_end(&mut self, key: Key) {
        let Some(txn) = self.transport.clients.remove(key) else { return };
        if self.transport.client_asks.get(&(txn.home.0, txn.ask)) == Some(&key) {
            self.transport.client_asks.remove(&(txn.home.0, txn.ask));
        }
    }

    /// Forgets it and says why.
    pub(super) fn client_fail(&mut self, key: Key, failure: Failure) {
        let Some(txn) = self.transport.clients.get(key) else { return };
        let (home, ask) = (txn.home, txn.ask);
        self.client_end(key);
        self.tell_failure(home, ask, failure);
    }
}

impl ClientTxn {
    fn timer(&mut self, action: Action, now: Moment) {
        match action {
            Action::Again(pause, most) => {
                self.again = now + pause;
                self.pause = (pause, most);
            }
            Action::Quiet => self.again = Moment::NEVER,
            Action::End(life) => self.end = now + life,
            // The deadline of who asked.
            Action::Open => self.end = Moment::NEVER,
            _ => {}
        }
    }
}
