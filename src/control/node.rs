//! The node as control sees it: what becomes of a question, an order, a reload, a stop.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::lanes::{Lanes, ToShard};
use super::notices::{Fold, push_value};
use super::records::Orders;
use super::reports::Reports;
use super::resolver::{Fault, Resolver};
use super::store::Store;
use super::workers::Workers;
use super::{Ending, Reloaded, Setup, Source, passwords};
use crate::address::Address;
use crate::dns::{self, SipFound};
use crate::limits::{LANE_BACKLOG_MAX, QUESTIONS_OPEN_MAX, RESOLVE_MAX};
use crate::net::Unsent;
use crate::shard::kernel::{Answer, Order, Question, ShardId, Ticket, Unavailable};
use crate::shard::settings::Settings;
use crate::shard::{Notice, StreamRow};
use crate::time::Wall;
use crate::tls;

/// Reloads are at least this far apart.
const RELOAD_APART: Duration = Duration::from_secs(1);

/// Where the node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not every shard has answered yet.
    Starting,
    /// In service.
    Ready,
    /// Says goodbye; the time is up at the instant.
    Stopping(Instant),
    /// Told twice.
    Cut,
}

/// What control counts itself.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) questions_refused: Cell<u64>,
    pub(crate) backlog_dropped: Cell<u64>,
    pub(crate) reloads_done: Cell<u64>,
    pub(crate) reloads_failed: Cell<u64>,
    pub(crate) certificates_failed: Cell<u64>,
    pub(crate) notices: Cell<u64>,
}

/// One more.
pub(crate) fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

/// Everything the control thread owns.
pub(crate) struct Node {
    pub(crate) lanes: Box<dyn Lanes>,
    pub(crate) store: Store,
    pub(crate) workers: Workers,
    pub(crate) reports: Reports,
    pub(crate) counters: Counters,
    pub(crate) started: Instant,
    pub(super) orders: Orders,
    resolver: Resolver,
    roots: RefCell<Arc<tls::Roots>>,
    settings: RefCell<Arc<Settings>>,
    source: RefCell<Box<dyn Source + Send>>,
    backlog: RefCell<Vec<VecDeque<ToShard>>>,
    notices: RefCell<Fold>,
    phase: Cell<Phase>,
    stop_within: Duration,
    change: Notify,
    questions: Cell<usize>,
    resolves: Cell<usize>,
    reloading: tokio::sync::Mutex<Option<Instant>>,
}

/// The wall clock.
pub(super) fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// Too many names are being looked up.
fn lookup_refused(ticket: Ticket) -> Answer {
    Answer::Resolved { ticket, direct: dns::Answer::Failed, starttls: dns::Answer::Failed }
}

/// Too many chains wait for a verdict: the peer is not believed now and may come again.
fn verdict_refused() -> tls::Verdict {
    let fault = tls::ChainFault::Other("too many certificates wait to be judged".into());
    tls::Verdict { chain: Err(fault), names: tls::Names::default(), not_after: None }
}

/// Holds one place of a bounded number.
struct Place<'a>(&'a Cell<usize>);

impl<'a> Place<'a> {
    fn take(taken: &'a Cell<usize>, max: usize) -> Option<Self> {
        (taken.get() < max).then(|| {
            taken.set(taken.get() + 1);
            Self(taken)
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Node {
    pub(super) fn new(setup: Setup) -> Self {
        let shards = setup.lanes.shards();
        Self {
            lanes: setup.lanes,
            store: setup.store,
            workers: setup.workers,
            reports: Reports::new(shards),
            counters: Counters::default(),
            started: Instant::now(),
            orders: Orders::default(),
            resolver: Resolver::new(setup.nameserver),
            roots: RefCell::new(setup.roots),
            settings: RefCell::new(setup.settings),
            source: RefCell::new(setup.source),
            backlog: RefCell::new((0..shards).map(|_| VecDeque::with_capacity(0)).collect()),
            notices: RefCell::default(),
            phase: Cell::new(Phase::Starting),
            stop_within: setup.stop_within,
            change: Notify::new(),
            questions: Cell::new(0),
            resolves: Cell::new(0),
            reloading: tokio::sync::Mutex::new(None),
        }
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// A shard asks. What takes time goes on in a task of its own.
    pub(super) fn asked(self: &Rc<Self>, shard: ShardId, question: Question) {
        match question {
            Question::Report { ticket, report } => {
                self.reports.take(shard, ticket, *report, Instant::now());
                self.look_ready();
                return;
            }
            Question::Tell(notice) => {
                count(&self.counters.notices);
                self.tell(Instant::now(), notice);
                return;
            }
            Question::Done { ticket, done } => return self.orders.done(ticket, done),
            _ => {}
        }
        if self.questions.get() >= QUESTIONS_OPEN_MAX {
            count(&self.counters.questions_refused);
            self.answer(shard, self.refusal(question));
            return;
        }
        if let Some(question) = self.asked_store(shard, question) {
            let node = Rc::clone(self);
            self.answer_later(shard, async move { node.find(question).await });
        }
    }

    /// Answers when the answer is found.
    pub(super) fn answer_later(
        self: &Rc<Self>,
        shard: ShardId,
        answer: impl Future<Output = Option<Answer>> + 'static,
    ) {
        let node = Rc::clone(self);
        self.questions.set(self.questions.get() + 1);
        spawn_local(async move {
            let answer = answer.await;
            node.questions.set(node.questions.get() - 1);
            node.answer(shard, answer);
        });
    }

    /// Tells the operator, at most once a minute for each event and peer.
    pub(super) fn tell(&self, now: Instant, notice: Notice) {
        if let Some(line) = self.notices.borrow_mut().push(now, notice) {
            tracing::warn!("{line}");
        }
    }

    /// The answer that nothing can be found out now.
    fn refusal(&self, question: Question) -> Option<Answer> {
        Some(match question {
            Question::Credentials { ticket, .. } => {
                Answer::Credentials { ticket, credentials: Err(Unavailable) }
            }
            Question::Password { ticket, .. } => {
                Answer::Password { ticket, good: Err(Unavailable) }
            }
            Question::Load { ticket, .. } => Answer::Loaded { ticket, record: Err(Unavailable) },
            Question::Commit { ticket, .. } => Answer::Committed { ticket, done: Err(Unavailable) },
            Question::Fetch { ticket, .. } => Answer::Fetched { ticket, found: Err(Unavailable) },
            Question::Keep { ticket, .. } => Answer::Kept { ticket, done: Err(Unavailable) },
            Question::Dialogs { ticket, .. } => Answer::Dialogs { ticket, rows: Err(Unavailable) },
            Question::ResolveSip { ticket, .. } => {
                Answer::ResolvedSip { ticket, found: SipFound::Failed }
            }
            Question::Resolve { ticket, .. } => lookup_refused(ticket),
            Question::Addresses { ticket, host } => {
                Answer::Addresses { ticket, host, addresses: None }
            }
            Question::Judge { ticket, .. } => {
                Answer::Judged { ticket, verdict: Box::new(verdict_refused()) }
            }
            Question::Report { .. } | Question::Tell(_) | Question::Done { .. } => return None,
        })
    }

    async fn find(&self, question: Question) -> Option<Answer> {
        Some(match question {
            Question::Credentials { ticket, user, hash } => {
                let keys = self.keys(&user, hash).await;
                Answer::Credentials { ticket, credentials: keys }
            }
            Question::Password { ticket, user, password } => {
                Answer::Password { ticket, good: self.check_password(&user, password).await }
            }
            Question::Resolve { ticket, domain } => self.resolve(ticket, &domain).await,
            Question::ResolveSip { ticket, domain, rfc3263 } => {
                let found = self.resolve_sip(&domain, rfc3263).await;
                Answer::ResolvedSip { ticket, found }
            }
            Question::Addresses { ticket, host } => {
                let addresses = self.addresses(&host).await;
                Answer::Addresses { ticket, host, addresses }
            }
            Question::Judge { ticket, chain, usage } => {
                Answer::Judged { ticket, verdict: Box::new(self.verdict(chain, usage).await) }
            }
            // Answered before it comes here.
            _ => return None,
        })
    }

    async fn check_password(&self, user: &Address, password: String) -> Result<bool, Unavailable> {
        // An unknown user costs what a wrong password does, so that the time tells nothing.
        let known = self.keys(user, passwords::CHECKED).await?;
        let keys = known.unwrap_or_else(|| passwords::nobody(self.settings().scram_iterations));
        self.workers.passwords.run(move || passwords::check(&password, &keys)).await
    }

    async fn resolve(&self, ticket: Ticket, domain: &str) -> Answer {
        let Some(_place) = Place::take(&self.resolves, RESOLVE_MAX) else {
            count(&self.counters.questions_refused);
            return lookup_refused(ticket);
        };
        let (direct, starttls) = self.resolver.services(domain).await;
        Answer::Resolved { ticket, direct, starttls }
    }

    async fn resolve_sip(&self, domain: &str, rfc3263: bool) -> SipFound {
        let Some(_place) = Place::take(&self.resolves, RESOLVE_MAX) else {
            count(&self.counters.questions_refused);
            return SipFound::Failed;
        };
        self.resolver.sip(domain, rfc3263).await
    }

    async fn addresses(&self, host: &str) -> Option<Vec<IpAddr>> {
        let Some(_place) = Place::take(&self.resolves, RESOLVE_MAX) else {
            count(&self.counters.questions_refused);
            return None;
        };
        match self.resolver.addresses(host).await {
            Ok(found) => Some(found),
            // The name server's word that there are none.
            Err(Fault::NoDomain | Fault::NoData) => Some(Vec::new()),
            Err(Fault::Failed(_) | Fault::TimedOut) => None,
        }
    }

    async fn verdict(&self, chain: Vec<tls::Der>, usage: tls::Usage) -> tls::Verdict {
        let (roots, now) = (Arc::clone(&self.roots.borrow()), wall());
        let verdict = self.workers.chains.run(move || tls::judge(&chain, &roots, now, usage)).await;
        verdict.unwrap_or_else(|Unavailable| verdict_refused())
    }

    fn answer(&self, shard: ShardId, answer: Option<Answer>) {
        if let Some(answer) = answer {
            self.send(shard, ToShard::Answered(answer));
        }
    }

    /// An order to every shard that has not ended.
    pub(crate) fn order_all(&self, order: impl Fn() -> Order) {
        for shard in self.reports.alive() {
            self.send(shard, ToShard::Ordered(order()));
        }
    }

    /// An order to one shard.
    pub(super) fn order(&self, shard: ShardId, order: Order) {
        self.send(shard, ToShard::Ordered(order));
    }

    fn send(&self, shard: ShardId, message: ToShard) {
        let mut backlogs = self.backlog.borrow_mut();
        let Some(backlog) = backlogs.get_mut(usize::from(shard.0)) else { return };
        let mut message = message;
        if backlog.is_empty() {
            match self.lanes.send(shard, message) {
                // An answer to a shard that has ended is nobody's.
                Ok(()) | Err(Unsent::Gone) => return,
                Err(Unsent::Full(back)) => message = back,
            }
        }
        if backlog.len() < LANE_BACKLOG_MAX {
            backlog.push_back(message);
            self.change.notify_one();
        } else {
            // A shard that takes nothing for so long is beyond answers; its health says so.
            count(&self.counters.backlog_dropped);
        }
    }

    pub(super) fn has_backlog(&self) -> bool {
        self.backlog.borrow().iter().any(|it| !it.is_empty())
    }

    /// Sends what found no room before, in order.
    pub(super) fn retry(&self) {
        for (n, backlog) in (0u16..).zip(self.backlog.borrow_mut().iter_mut()) {
            while let Some(message) = backlog.pop_front() {
                if let Err(Unsent::Full(back)) = self.lanes.send(ShardId(n), message) {
                    backlog.push_front(back);
                    break;
                }
            }
        }
    }

    /// Asks every shard for a sign of life, unless it still owes one.
    pub(super) fn beat(&self) {
        for shard in self.reports.alive() {
            if self.reports.ask(shard) {
                let ticket = self.reports.ticket();
                self.send(shard, ToShard::Ordered(Order::Report { ticket, streams: false }));
            }
        }
    }

    /// Fresh reports of all shards, as far as they come within `within`; returns the streams (if
    /// asked for) and how many shards did not answer.
    pub(crate) async fn gather(&self, streams: bool, within: Duration) -> (Vec<StreamRow>, usize) {
        let alive = self.reports.alive().len();
        let gathering = self.reports.open();
        let ticket: Ticket = gathering.ticket;
        self.order_all(|| Order::Report { ticket, streams });
        let (rows, answered) = gathering.wait(alive, within).await;
        (rows, alive - answered)
    }

    pub(super) fn fire_notices(&self, now: Instant) {
        for line in self.notices.borrow_mut().fire(now) {
            tracing::warn!("{line}");
        }
    }

    fn look_ready(&self) {
        if self.phase.get() != Phase::Starting {
            return;
        }
        let mut all = true;
        self.reports.each(|_, it| all &= it.answered.is_some());
        if all {
            self.phase.set(Phase::Ready);
            tracing::info!("event=node_ready shards={}", self.lanes.shards());
        }
    }

    /// A shard's thread has ended.
    pub(super) fn ended(&self, shard: ShardId) {
        self.reports.end(shard);
        if let Some(backlog) = self.backlog.borrow_mut().get_mut(usize::from(shard.0)) {
            backlog.clear();
        }
        tracing::info!("event=shard_ended shard={}", shard.0);
    }

    /// Stops the node in order; told a second time, at once.
    pub(crate) fn stop(&self, origin: &str) {
        match self.phase.get() {
            Phase::Starting | Phase::Ready => {
                tracing::info!("event=node_stopping origin={origin}");
                self.phase.set(Phase::Stopping(Instant::now() + self.stop_within));
                self.order_all(|| Order::Stop);
            }
            Phase::Stopping(_) | Phase::Cut => self.phase.set(Phase::Cut),
        }
        self.change.notify_one();
    }

    /// Something changed that the main loop should look at.
    pub(super) async fn changed(&self) {
        self.change.notified().await;
    }

    /// Whether the node has stopped, and how.
    pub(super) fn ending(&self, now: Instant) -> Option<Ending> {
        let shards = self.reports.alive().len();
        match self.phase.get() {
            Phase::Stopping(_) | Phase::Cut if shards == 0 => Some(Ending::Orderly),
            Phase::Stopping(deadline) if now < deadline => None,
            Phase::Stopping(_) | Phase::Cut => Some(Ending::Cut { shards }),
            Phase::Starting | Phase::Ready => None,
        }
    }

    /// Reads the configuration anew: all of it or nothing. Returns what changed.
    pub(crate) async fn reload(&self, origin: &str) -> Result<Vec<String>, String> {
        // One after another, at least a second apart.
        let mut last = self.reloading.lock().await;
        if let Some(at) = *last {
            tokio::time::sleep_until((at + RELOAD_APART).into()).await;
        }
        let loaded = self.source.borrow_mut().reload();
        *last = Some(Instant::now());
        match loaded {
            Ok(reloaded) => {
                count(&self.counters.reloads_done);
                Ok(self.adopt(reloaded, origin))
            }
            Err(text) => {
                count(&self.counters.reloads_failed);
                let mut escaped = String::new();
                push_value(&mut escaped, &text);
                tracing::error!("event=reload_failed origin={origin} text={escaped}");
                Err(text)
            }
        }
    }

    pub(super) fn reread_certificates(&self) {
        // The borrow ends before the settings are handed on.
        let found = self.source.borrow_mut().certificates();
        match found {
            Ok(Some(reloaded)) => drop(self.adopt(reloaded, "certificates")),
            Ok(None) => {}
            Err(text) => {
                count(&self.counters.certificates_failed);
                let mut escaped = String::new();
                push_value(&mut escaped, &text);
                tracing::error!("event=certificate_reload_failed text={escaped}");
            }
        }
    }

    fn adopt(&self, reloaded: Reloaded, origin: &str) -> Vec<String> {
        let Reloaded { mut settings, roots, changes } = reloaded;
        *self.roots.borrow_mut() = roots;
        let old = self.settings();
        settings.version = old.version + 1;
        // Fixed while the process lives.
        settings.shards = old.shards;
        let settings = Arc::new(settings);
        *self.settings.borrow_mut() = Arc::clone(&settings);
        self.order_all(|| Order::Settings(Arc::clone(&settings)));
        let mut text = String::new();
        push_value(&mut text, &changes.join(", "));
        tracing::info!(
            "event=settings_adopted version={} origin={origin} changes={text}",
            settings.version
        );
        changes
    }
}
