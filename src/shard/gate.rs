//! The gate before a user's record: what waits for it, and one durable change after another.
//!
//! A record that is not in memory is loaded when somebody needs it; stanzas for its user wait in the
//! order of their arrival, a bounded number for a bounded time. A durable change goes to the store
//! and is taken into memory when it is committed; what must not overtake it waits in the same
//! queue. After the commit come, in this order: memory, push, answer, routed stanza; all but the
//! first are the business of who asked ([`After`]).

use std::fmt;

use crate::address::{Address, AddressRef};
use crate::envelope::{Kind, Purpose};
use crate::home::Readiness;
use crate::home::dialogs::{DialogChange, DialogKey, DialogRow};
use crate::home::record::{Change, Fetch, Fetched, Record};
use crate::limits::{
    GATE_BYTES_MAX, GATE_OWN_MIN, GATE_STANZAS_MAX, GATE_TIME_MAX, RECORDS_IDLE_MAX, STORE_JOBS_MAX,
};
use crate::shard::deliver::Carry;
use crate::shard::kernel::{Answer, ConnId, Full, Question, Ticket, Unavailable};
use crate::shard::{Request, Shard, Timer, sip};
use crate::stdx::{Bounded, Key, Map, Slab};
use crate::time::Moment;
use crate::xmpp::fault::StanzaFault;

/// What follows a commit; memory is changed already.
pub(super) type After = Box<dyn FnOnce(&mut Shard, Result<(), Unavailable>)>;
/// What needs a record that is there and at rest.
pub(super) type Work = Box<dyn FnOnce(&mut Shard)>;
/// What is done with what was fetched.
pub(super) type Found = Box<dyn FnOnce(&mut Shard, Result<Fetched, Unavailable>)>;

/// A question to the store that is not answered yet.
pub(super) enum Job {
    Load(Address),
    /// `gated`: nothing of the user overtakes it.
    Commit {
        user: Address,
        changes: Vec<Change>,
        gated: bool,
        after: After,
    },
    Fetch(Found),
    /// Dialogs of SIP, of several users; who waits for them.
    Keep(Vec<After>),
    /// A page of the dialogs that were kept.
    Dialogs,
}

/// Everything that waits at a user's gate.
#[derive(Debug)]
struct Gate {
    waiting: Bounded<Waiting>,
    /// The hash of the contact whose stanza is being committed; zero: the user's own doing.
    by: u64,
}

/// One thing that waits.
enum Waiting {
    /// A stanza for the user, as a record of `post`, and the hash of its sender.
    Stanza(u64, Vec<u8>),
    /// What is to be done, and the hash of who causes it; zero: the user himself.
    Work(u64, Work),
}

/// The gates of a shard and the questions behind them.
#[derive(Debug)]
pub(super) struct Gates {
    gates: Map<Box<str>, Gate>,
    jobs: Slab<Job>,
    /// Users that were not in use at that time, oldest first.
    pub(super) idle: Bounded<(Moment, Box<str>)>,
    pub(super) sweeping: bool,
    /// The work that is being done waited for a record of an account that does not exist.
    no_account: bool,
}

impl Gates {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            gates: Map::seeded(seed),
            jobs: Slab::new(STORE_JOBS_MAX),
            idle: Bounded::new(RECORDS_IDLE_MAX),
            sweeping: false,
            no_account: false,
        }
    }

    /// The store owes no answer.
    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// For a work that found no account: there is none. Else its record can't be had now.
    pub(super) fn has_no_account(&self) -> bool {
        self.no_account
    }

    /// Something may wait.
    pub(super) fn are_closed(&self) -> bool {
        !self.gates.is_empty()
    }

    /// Something that this sender caused waits for the user, or is being committed.
    pub(super) fn holds(&self, bare: &str, sender: u64) -> bool {
        self.gates.get(bare).is_some_and(|gate| gate.holds(sender))
    }
}

impl Gate {
    fn new() -> Self {
        let weigh = |it: &Waiting| match it {
            Waiting::Stanza(_, record) => record.len(),
            Waiting::Work(..) => 0,
        };
        Self { waiting: Bounded::weighed(GATE_STANZAS_MAX, GATE_BYTES_MAX, weigh), by: 0 }
    }

    /// Something of this sender waits or is being committed: what he sends now must not overtake it.
    fn holds(&self, sender: u64) -> bool {
        let by = |it: &Waiting| match it {
            Waiting::Stanza(by, _) | Waiting::Work(by, _) => *by,
        };
        self.by == sender || self.waiting.iter().any(|it| by(it) == sender)
    }
}

impl Shard {
    /// A stanza for a user of this shard, when his record is there.
    pub(super) fn deliver(&mut self, carry: &Carry<'_>) {
        if self.is_needless(carry) {
            return;
        }
        let (readiness, habits) = self.home.glance(carry.to.bare());
        match readiness {
            Readiness::Ready => self.deliver_by(habits, carry),
            Readiness::Busy if self.may_overtake(carry) => self.deliver_by(habits, carry),
            _ => self.wait_at_gate(carry),
        }
    }

    /// Messages, questions and presence that only tells don't wait for a change of the roster, unless
    /// their own sender made it.
    fn may_overtake(&self, carry: &Carry<'_>) -> bool {
        let sender = carry.from.bare_hash();
        let tells = matches!(carry.purpose, Purpose::Available | Purpose::Unavailable);
        (carry.kind != Kind::Presence || tells)
            && self.gates.gates.get(carry.to.bare()).is_none_or(|gate| !gate.holds(sender))
    }

    fn wait_at_gate(&mut self, carry: &Carry<'_>) {
        let user = carry.to.without_resource().to_address();
        let record = crate::shard::post::carried(carry);
        let Ok(record) = record else { return self.bounce(carry, StanzaFault::NotAcceptable) };
        let waiting = Waiting::Stanza(carry.from.bare_hash(), record);
        if self.queue_at_gate(&user, waiting).is_err() {
            self.counters.gates_full += 1;
            self.bounce(carry, StanzaFault::ResourceConstraint);
        }
    }

    /// Does `work` when the user's record is there and no change of it is under way: at once, or
    /// behind what waits already. If the record can't be had, it finds no account. False: too much
    /// waits, and nothing will be done.
    #[must_use]
    pub(super) fn with_record(&mut self, user: &Address, work: Work) -> bool {
        if self.home.readiness(user.bare()) == Readiness::Ready {
            work(self);
            return true;
        }
        let queued = self.queue_at_gate(user, Waiting::Work(0, work)).is_ok();
        self.counters.gates_full += u64::from(!queued);
        queued
    }

    /// A client's own doing that may need a commit. `act` says whether it has asked for one, behind
    /// which it lets the client go (`unpark`). The answer: whether the client must be parked until
    /// then, so that nothing it says afterwards overtakes. An error: too much waits, and nothing will
    /// be done.
    pub(super) fn on_own_record(
        &mut self,
        id: ConnId,
        user: &Address,
        act: impl FnOnce(&mut Self) -> bool + 'static,
    ) -> Result<bool, Full> {
        if self.home.readiness(user.bare()) == Readiness::Ready {
            return Ok(act(self));
        }
        let ticket = Self::ticket_of(id);
        let work = move |shard: &mut Self| {
            if !act(shard) {
                shard.unpark(ticket, |_, _| {});
            }
        };
        if self.with_record(user, Box::new(work)) { Ok(true) } else { Err(Full) }
    }

    /// The same for what somebody else causes, behind which what he sends now must not come. It is
    /// lost with a gate that is full, as a stanza would be.
    pub(super) fn behind_gate(&mut self, user: &Address, by: u64, work: Work) {
        let queued = self.queue_at_gate(user, Waiting::Work(by, work)).is_ok();
        self.counters.gates_full += u64::from(!queued);
    }

    fn queue_at_gate(&mut self, user: &Address, waiting: Waiting) -> Result<(), Waiting> {
        let bare = user.bare();
        let unknown = self.home.readiness(bare) == Readiness::Unknown;
        let waits = self.gates.gates.get(bare).map_or(0, |gate| gate.waiting.len());
        if matches!(waiting, Waiting::Stanza(..)) && waits >= GATE_STANZAS_MAX - GATE_OWN_MIN {
            // The rest is for the user's own doings.
            return Err(waiting);
        }
        let gate = match self.gates.gates.get_mut(bare) {
            Some(gate) => gate,
            None => self.gates.gates.entry(bare.into()).or_insert(Gate::new()),
        };
        gate.waiting.push(waiting)?;
        if unknown {
            self.home.load(bare);
            let user = user.to_bare();
            self.ask_store(Job::Load(user.clone()), |ticket| Question::Load { ticket, user });
        }
        Ok(())
    }

    /// A durable change that nothing of the user may overtake; he must be [`Readiness::Ready`].
    /// `by`: the contact who causes it, if it is not the user himself.
    pub(super) fn commit(
        &mut self,
        user: &Address,
        by: Option<AddressRef<'_>>,
        changes: Vec<Change>,
        after: After,
    ) {
        debug_assert_eq!(self.home.readiness(user.bare()), Readiness::Ready);
        self.home.set_busy(user.bare(), true);
        let by = by.map_or(0, AddressRef::bare_hash);
        match self.gates.gates.get_mut(user.bare()) {
            Some(gate) => gate.by = by,
            None => drop(self.gates.gates.insert(user.bare().into(), Gate { by, ..Gate::new() })),
        }
        self.commit_as(user, changes, true, after);
    }

    /// A durable change that others may overtake, as a message that is stored or is gone: the store
    /// itself keeps the order.
    pub(super) fn commit_aside(&mut self, user: &Address, changes: Vec<Change>, after: After) {
        self.commit_as(user, changes, false, after);
    }

    fn commit_as(&mut self, user: &Address, changes: Vec<Change>, gated: bool, after: After) {
        self.counters.commits += 1;
        let user = user.to_bare();
        let job = Job::Commit { user: user.clone(), changes: changes.clone(), gated, after };
        self.ask_store(job, |ticket| Question::Commit { ticket, user, changes });
    }

    /// Fetches what is not part of the record.
    pub(super) fn fetch(&mut self, user: &Address, what: Fetch, found: Found) {
        let user = user.to_bare();
        self.ask_store(Job::Fetch(found), |ticket| Question::Fetch { ticket, user, what });
    }

    /// Dialogs that are made, changed or over, in one commit.
    pub(super) fn commit_dialogs(&mut self, changes: Vec<DialogChange>, afters: Vec<After>) {
        self.counters.commits += 1;
        self.ask_store(Job::Keep(afters), |ticket| Question::Keep { ticket, changes });
    }

    /// A page of the dialogs of all users, behind that key.
    pub(super) fn load_dialogs(&mut self, after: Option<DialogKey>, count: u32) {
        self.ask_store(Job::Dialogs, |ticket| Question::Dialogs { ticket, after, count });
    }

    fn ask_store(&mut self, job: Job, question: impl FnOnce(Ticket) -> Question) {
        let key = match self.gates.jobs.insert(job) {
            Ok(key) => key,
            Err(job) => {
                self.counters.control_full += 1;
                // Behind what asks for it, which is not done yet.
                return self.requests.push(Request::Fail(job));
            }
        };
        let ticket = Ticket(key.to_u64());
        self.timers.set(self.now.moment + GATE_TIME_MAX, Timer::Job(ticket));
        self.requests.push(Request::Ask(question(ticket)));
    }

    /// An answer of the store.
    pub(super) fn store_answered(&mut self, answer: Answer) {
        let (ticket, answer) = match answer {
            Answer::Loaded { ticket, record } => (ticket, Stored::Loaded(record)),
            Answer::Committed { ticket, done } => (ticket, Stored::Committed(done)),
            Answer::Fetched { ticket, found } => (ticket, Stored::Fetched(found)),
            Answer::Kept { ticket, done } => (ticket, Stored::Committed(done)),
            Answer::Dialogs { ticket, rows } => (ticket, Stored::Dialogs(rows)),
            _ => return,
        };
        // A job whose time is up is gone, and a late answer is nobody's.
        let Some(job) = self.gates.jobs.remove(Key::from_u64(ticket.0)) else { return };
        match (job, answer) {
            (Job::Load(user), Stored::Loaded(record)) => self.record_loaded(&user, record),
            (Job::Commit { user, changes, gated, after }, Stored::Committed(Ok(()))) => {
                let is_rule =
                    |it: &Change| matches!(it, Change::AddRule(..) | Change::RemoveRule(..));
                if changes.iter().any(is_rule) {
                    self.home.changed();
                }
                if let Some(account) = self.home.account_mut(user.bare()) {
                    for change in changes {
                        account.apply(change);
                    }
                }
                self.committed(&user, gated, after, Ok(()));
            }
            (job @ Job::Commit { .. }, Stored::Committed(Err(Unavailable))) => {
                self.job_failed(job);
            }
            (Job::Fetch(found), Stored::Fetched(what)) => found(self, what),
            (Job::Keep(afters), Stored::Committed(done)) => sip::kept(self, afters, done),
            (Job::Dialogs, Stored::Dialogs(rows)) => self.dialogs_loaded(rows),
            _ => debug_assert!(false, "an answer to another question"),
        }
    }

    fn committed(
        &mut self,
        user: &Address,
        gated: bool,
        after: After,
        done: Result<(), Unavailable>,
    ) {
        after(self, done);
        if gated {
            self.home.set_busy(user.bare(), false);
            self.open_gate(user, None);
        }
    }

    /// The store can't be asked, or has failed.
    pub(super) fn job_failed(&mut self, job: Job) {
        match job {
            Job::Load(user) => self.record_loaded(&user, Err(Unavailable)),
            Job::Commit { user, gated, after, .. } => {
                self.counters.commits_failed += 1;
                self.committed(&user, gated, after, Err(Unavailable));
            }
            Job::Fetch(found) => found(self, Err(Unavailable)),
            Job::Keep(afters) => {
                self.counters.commits_failed += 1;
                sip::kept(self, afters, Err(Unavailable));
            }
            Job::Dialogs => self.dialogs_loaded(Err(Unavailable)),
        }
    }

    fn record_loaded(&mut self, user: &Address, record: Result<Option<Box<Record>>, Unavailable>) {
        self.counters.records_loaded += 1;
        match record {
            Ok(Some(record)) => {
                self.home.loaded(user.bare(), *record);
                self.open_gate(user, None);
            }
            Ok(None) => {
                self.home.forget(user.bare(), true);
                self.open_gate(user, Some(StanzaFault::ServiceUnavailable));
            }
            Err(Unavailable) => {
                self.counters.records_unavailable += 1;
                self.home.forget(user.bare(), true);
                self.open_gate(user, Some(StanzaFault::ResourceConstraint));
            }
        }
    }

    /// Lets in what waited, until a change is under way again. With a fault there is no record:
    /// `service-unavailable` says that there is no account, all else that it can't be had.
    fn open_gate(&mut self, user: &Address, fault: Option<StanzaFault>) {
        while let Some(mut gate) = self.gates.gates.remove(user.bare()) {
            let Some(next) = gate.waiting.take() else { break };
            gate.by = 0;
            self.gates.gates.insert(user.bare().into(), gate);
            match next {
                Waiting::Work(_, work) => {
                    self.gates.no_account = fault == Some(StanzaFault::ServiceUnavailable);
                    work(self);
                    self.gates.no_account = false;
                }
                Waiting::Stanza(_, record) => {
                    self.counters.gate_waits += 1;
                    self.with_carry(&record, |shard, carry| match fault {
                        None => shard.deliver_now(carry),
                        Some(StanzaFault::ServiceUnavailable) => shard.deliver_to_nobody(carry),
                        Some(fault) => shard.bounce(carry, fault),
                    });
                }
            }
            match self.home.readiness(user.bare()) {
                Readiness::Ready => {}
                // A work that came for a record which is not there may ask for it anew.
                Readiness::Unknown if fault.is_some() => {}
                _ => return,
            }
        }
        self.rests(user.bare());
    }

    /// A question to the store is older than the gate's time.
    pub(super) fn job_due(&mut self, ticket: Ticket) {
        let key = Key::from_u64(ticket.0);
        match self.gates.jobs.get(key) {
            Some(Job::Load(user)) => {
                let user = user.clone();
                self.gates.jobs.remove(key);
                self.record_loaded(&user, Err(Unavailable));
            }
            Some(Job::Fetch(_) | Job::Dialogs) => {
                if let Some(job) = self.gates.jobs.remove(key) {
                    self.job_failed(job);
                }
            }
            // What became of it is not known before the answer; others need not wait so long.
            Some(Job::Commit { user, gated: true, .. }) => {
                let user = user.clone();
                self.turn_away(&user);
                self.timers.set(self.now.moment + GATE_TIME_MAX, Timer::Job(ticket));
            }
            _ => {}
        }
    }

    /// Stanzas that waited too long go back; the works stay, since somebody parked waits for them.
    fn turn_away(&mut self, user: &Address) {
        let Some(gate) = self.gates.gates.get_mut(user.bare()) else { return };
        let mut stay = Gate::new();
        stay.by = gate.by;
        let mut waited = std::mem::replace(gate, stay);
        while let Some(next) = waited.waiting.take() {
            match next {
                Waiting::Stanza(_, record) => self.with_carry(&record, |shard, carry| {
                    shard.bounce(carry, StanzaFault::ResourceConstraint);
                }),
                work @ Waiting::Work(..) => {
                    if let Some(gate) = self.gates.gates.get_mut(user.bare()) {
                        drop(gate.waiting.push(work));
                    }
                }
            }
        }
    }
}

/// The kinds of answer.
enum Stored {
    Loaded(Result<Option<Box<Record>>, Unavailable>),
    Committed(Result<(), Unavailable>),
    Fetched(Result<Fetched, Unavailable>),
    Dialogs(Result<Vec<DialogRow>, Unavailable>),
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(user) => write!(f, "Load({user})"),
            Self::Commit { user, changes, .. } => write!(f, "Commit({user}, {changes:?})"),
            Self::Fetch(_) => write!(f, "Fetch"),
            Self::Keep(afters) => write!(f, "Keep({} wait)", afters.len()),
            Self::Dialogs => write!(f, "Dialogs"),
        }
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stanza(by, record) => write!(f, "Stanza({by}, {} octets)", record.len()),
            Self::Work(..) => write!(f, "Work"),
        }
    }
}
