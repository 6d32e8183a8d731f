//! Shards on the made-up kernel: turns in virtual time, and the checkers that hold at all times.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tandem::home::subscription::Denial;
use tandem::limits::OUTBOX_BYTES_MAX;
use tandem::policy::{
    Clients, Identity, Im, PeerAuth, Pidf, Policy, Profile, Protocol, Rule, Security, SipHost,
    SipRule, SipTarget, Transport,
};
use tandem::shard::Shard;
use tandem::shard::kernel::{Engine as _, Order, ShardId, Ticket};
use tandem::shard::settings::{Domain, Listener, Party, Settings};
use tandem::time::{Moment, Now, Wall};
use tandem::tls::{CertStore, Clock};

use crate::control::ITERATIONS;
use crate::kernel::{Core, Cut, Happening, Heard};
use crate::turn::Turn;

/// Listeners: clients, peers, clients that must use TLS.
pub(crate) const CLIENTS: u16 = 0;
pub(crate) const PEERS: u16 = 1;
pub(crate) const CLIENTS_STARTTLS: u16 = 2;
/// SIP partners over plain TCP.
pub(crate) const SIP: u16 = 3;
/// The served domains.
pub(crate) const DOMAINS: [&str; 2] = ["a.example", "z.example"];
/// Time between happenings below which they belong together.
const TOGETHER: Duration = Duration::from_millis(50);
/// More turns than this at one moment: a shard spins.
const TURNS_AT_A_MOMENT: u32 = 100_000;

pub(crate) struct World {
    pub(crate) core: Core,
    settings: Arc<Settings>,
    seed: u64,
    /// How often the node was started.
    starts: u64,
    shards: Vec<Shard>,
    deadlines: Vec<Moment>,
    pub(crate) done: Vec<bool>,
    spins: (Moment, u32),
}

/// Figures of all shards, added up.
pub(crate) type Figures = BTreeMap<String, u64>;

impl World {
    pub(crate) fn new(shards: u16, seed: u64, cut: Cut) -> Self {
        Self::with(shards, seed, cut, Denial::Polite)
    }

    pub(crate) fn with(shards: u16, seed: u64, cut: Cut, denial: Denial) -> Self {
        let settings = Arc::new(settings(shards, denial));
        let core = Core::new(usize::from(shards), seed, cut);
        let mut world = Self {
            core,
            settings,
            seed,
            starts: 0,
            shards: Vec::new(),
            deadlines: vec![Moment::NEVER; usize::from(shards)],
            done: vec![false; usize::from(shards)],
            spins: (Moment(0), 0),
        };
        world.start();
        world
    }

    /// New shards; what they knew is gone.
    fn start(&mut self) {
        let shards = self.settings.shards;
        let made = (0..shards).map(|id| {
            let mut entropy = [7; 32];
            entropy[..8].copy_from_slice(&self.seed.to_le_bytes());
            entropy[8..10].copy_from_slice(&id.to_le_bytes());
            entropy[10..18].copy_from_slice(&self.starts.to_le_bytes());
            Shard::new(ShardId(id), Arc::clone(&self.settings), entropy)
        });
        self.shards = made.collect();
        self.deadlines = vec![Moment::NEVER; usize::from(shards)];
        self.done = vec![false; usize::from(shards)];
        self.starts += 1;
    }

    /// As if by kill -9: all connections break, all that was only in memory is gone, and the node
    /// is started again.
    pub(crate) fn die(&mut self) {
        self.core.die();
        self.start();
        self.settle();
    }

    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Lets happen what is under way, without waiting for timers of the shards.
    pub(crate) fn settle(&mut self) {
        loop {
            self.turns();
            match self.core.queue.first_key_value() {
                Some(((at, _), _)) if *at <= self.core.now + TOGETHER => self.next(),
                _ => return,
            }
        }
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        let until = self.core.now + by;
        loop {
            self.turns();
            let queue = self.core.queue.first_key_value().map_or(Moment::NEVER, |((at, _), _)| *at);
            let timers = self.deadlines.iter().min().copied().unwrap_or(Moment::NEVER);
            if queue.min(timers) > until {
                break;
            }
            self.next();
        }
        self.core.now = until;
    }

    /// Goes to the next happening or deadline, whichever is first.
    fn next(&mut self) {
        let queue = self.core.queue.first_key_value().map_or(Moment::NEVER, |((at, _), _)| *at);
        let timers = self.deadlines.iter().min().copied().unwrap_or(Moment::NEVER);
        self.core.now = self.core.now.max(queue.min(timers));
        let now = self.core.now;
        while let Some(entry) = self.core.queue.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let happening = entry.remove();
            self.core.happen(happening);
        }
    }

    /// Turns of all shards that have something to hear or to do now, in an order that the seed gives.
    fn turns(&mut self) {
        loop {
            let now = self.core.now;
            let ready: Vec<usize> = (0..self.shards.len())
                .filter(|i| !self.core.sides[*i].inbox.is_empty() || self.deadlines[*i] <= now)
                .collect();
            if ready.is_empty() {
                return;
            }
            let chosen = self.core.random.below(ready.len() as u64) as usize;
            self.turn(ready[chosen]);
        }
    }

    fn turn(&mut self, shard: usize) {
        if self.spins.0 != self.core.now {
            self.spins = (self.core.now, 0);
        }
        self.spins.1 += 1;
        assert!(self.spins.1 < TURNS_AT_A_MOMENT, "shard {shard} spins at one moment");
        let budget = match self.core.cut {
            Cut::Random => 1 + self.core.random.below(40) as usize,
            Cut::Whole | Cut::Single => 256,
        };
        let moment = self.core.now;
        let now = Now { moment, wall: wall(moment) };
        let mut kernel = Turn { core: &mut self.core, shard, budget, lent: Vec::new() };
        let next = self.shards[shard].step(now, &mut kernel);
        self.core.sides[shard].turns += 1;
        self.deadlines[shard] = next.deadline;
        self.done[shard] = next.done;
    }

    pub(crate) fn order(&mut self, shard: usize, order: Order) {
        self.core.later(Duration::ZERO, Happening::Heard(shard, Heard::Ordered(order)));
    }

    /// Asks all shards for their books and checks them.
    pub(crate) fn figures(&mut self) -> Result<Figures, String> {
        self.core.control.reports.clear();
        for shard in 0..self.shards.len() {
            self.core
                .hear(shard, Heard::Ordered(Order::Report { ticket: Ticket(0), streams: true }));
        }
        self.turns();
        let mut sums = Figures::new();
        for (shard, report) in std::mem::take(&mut self.core.control.reports) {
            let mut own = Figures::new();
            for (name, labels, value) in &report.figures {
                let labels: Vec<String> =
                    labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let key = match labels.is_empty() {
                    true => (*name).to_owned(),
                    false => format!("{name}{{{}}}", labels.join(",")),
                };
                *own.entry(key).or_default() += value;
            }
            check_books(&own).map_err(|why| format!("shard {shard}: {why}"))?;
            for row in &report.streams {
                if row.outbox_bytes > OUTBOX_BYTES_MAX as u64 {
                    return Err(format!("shard {shard}: an outbox above its bound: {row:?}"));
                }
            }
            for (key, value) in own {
                *sums.entry(key).or_default() += value;
            }
        }
        if let Some(fault) = self.core.faults.first() {
            return Err(format!("the kernel was misused: {fault}"));
        }
        Ok(sums)
    }

    pub(crate) fn in_flight(figures: &Figures) -> u64 {
        ["message", "presence", "iq"]
            .map(|kind| figures[&format!("tandem_stanzas_in_flight{{kind={kind}}}")])
            .iter()
            .sum()
    }
}

/// The time of day at a moment.
pub(crate) fn wall(moment: Moment) -> Wall {
    Wall(1_700_000_000_000_000 + moment.0 / 1_000)
}

/// `offered = refused + taken`, `taken = closed + in flight`, per kind.
fn check_books(figures: &Figures) -> Result<(), String> {
    for kind in ["message", "presence", "iq"] {
        let of = |what: &str| figures[&format!("tandem_stanzas_{what}{{kind={kind}}}")];
        let closed: u64 = figures
            .iter()
            .filter(|(k, _)| k.starts_with(&format!("tandem_stanzas_closed_total{{kind={kind},")))
            .map(|(_, value)| value)
            .sum();
        let (offered, refused) = (of("offered_total"), of("refused_total"));
        let (taken, in_flight) = (of("taken_total"), of("in_flight"));
        if offered != refused + taken || taken != closed + in_flight {
            return Err(format!(
                "the books of {kind} don't balance: offered {offered}, refused {refused}, taken \
                 {taken}, closed {closed}, in flight {in_flight}"
            ));
        }
    }
    Ok(())
}

fn rule_of(allow: bool) -> Rule {
    Rule {
        allow,
        protocol: Protocol::Xmpp,
        profile: Profile::Xmpp,
        auth: PeerAuth::Dialback,
        security: Security::Optional,
        targets: Vec::new(),
        private_addresses: true,
    }
}

fn settings(shards: u16, denial: Denial) -> Settings {
    thread_local! {
        static STORE: OnceCell<Arc<CertStore>> = const { OnceCell::new() };
    }
    let tls = STORE.with(|store| {
        let build = || CertStore::build(&[], Wall(1_700_000_000_000_000), &Clock::default());
        Arc::clone(store.get_or_init(|| Arc::new(build().expect("no certificates are no fault"))))
    });
    let closed = tandem::policy::Pattern::parse("closed.example").expect("a pattern");
    // What speaks SIP is known by where it connects from, since nobody has a certificate here.
    let sip = |name: &str, address: &str, profile, im, pidf| {
        let rule = SipRule {
            identity: Identity::Fixed,
            names: Vec::new(),
            targets: vec![SipTarget {
                host: SipHost::Address(address.parse().expect("an address")),
                port: 5061,
            }],
            transport: Transport::Tcp,
            rate: 0,
            im,
            pidf,
        };
        let protocol = Protocol::Sip(Box::new(rule));
        let pattern = tandem::policy::Pattern::parse(name).expect("a pattern");
        (pattern, Rule { protocol, profile, ..rule_of(true) })
    };
    let as_profile = |name: &str, profile| {
        let pattern = tandem::policy::Pattern::parse(name).expect("a pattern");
        (pattern, Rule { profile, ..rule_of(true) })
    };
    let rules = vec![
        (closed, rule_of(false)),
        as_profile("webex.example", Profile::Webex),
        as_profile("sametime.example", Profile::Sametime),
        sip("lync.example", "127.0.0.5", Profile::Lync, Im::Session, Pidf::Microsoft),
        sip("sub.lync.example", "127.0.0.7", Profile::Lync, Im::Session, Pidf::Microsoft),
        sip("sip.example", "127.0.0.6", Profile::Xmpp, Im::Page, Pidf::Standard),
    ];
    Settings {
        version: 1,
        shards,
        own_addresses: Vec::new(),
        listeners: vec![
            Listener::new(Party::Client, Security::Optional),
            Listener::new(Party::Peer, Security::Optional),
            Listener::new(Party::Client, Security::StartTls),
            Listener::new(Party::Sip(Transport::Tcp), Security::Optional),
        ],
        domains: DOMAINS
            .iter()
            .map(|n| Domain {
                name: (*n).to_owned(),
                sip_name: (*n).to_owned(),
                plain: false,
                channel_binding: true,
                denial,
            })
            .collect(),
        tls,
        policy: Arc::new(Policy::new(rule_of(true), rules)),
        clients: Clients::default(),
        dialback_secrets: vec![b"a secret of thirty-two octets ok".to_vec()],
        scram_secret: b"another secret of thirty-two oct".to_vec(),
        strangers_per_address: 0,
        scram_iterations: ITERATIONS,
    }
}
