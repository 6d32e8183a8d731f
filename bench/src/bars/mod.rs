//! The bars of the data plane, each one line: a ratio with its spread, the bar, and a verdict.
//!
//! Rounds are interleaved over all subjects, so that a noisy minute hits all of them. Does **not**
//! run anything beside the server and the generator.

use std::cell::RefCell;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};

use crate::federation::Federation;
use crate::servers::{self, Stage, Subject};
use crate::sip::Sip;
use crate::{index, scan};

mod grow;
mod keep;
mod memory;
mod outcome;
mod restart;
mod rounds;
mod shards;

pub(crate) use keep::Report;

use keep::Kept;
use outcome::Outcome;
use rounds::{Case, Spread, Work, verdict};

/// SIP watchers of each user.
const WATCHERS_EACH: usize = 10;
/// Who change their presence in a quick run, at most.
const QUICK_PRESENTITIES: usize = 20;
/// The most idle clients of a quick run.
const QUICK_IDLE: usize = 3000;
/// PARTNER has so many times fewer dialogs.
const PARTNER_SHARE: usize = 5;

/// What to measure.
#[derive(Clone, clap::Args)]
pub(crate) struct Bars {
    /// Which bars; those of the table if none is named.
    #[arg(value_enum)]
    bars: Vec<Bar>,
    /// Three short rounds instead of five long ones, and the ring alone: shows that it works, proves
    /// nothing.
    #[arg(long)]
    quick: bool,
    /// Rounds of each bar, instead of five.
    #[arg(long, conflicts_with = "quick", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Seconds that are measured in a round, instead of ten.
    #[arg(long, conflicts_with = "quick", value_parser = clap::value_parser!(u32).range(1..))]
    window: Option<u32>,
    /// Whom to measure against the bare relay: both pumps, with --quick the ring.
    #[arg(long, value_enum, value_delimiter = ',')]
    subjects: Vec<Subject>,
    /// Tandem's program; otherwise the one beside this program.
    #[arg(long)]
    tandem: Option<PathBuf>,
    /// Connections.
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Messages that each pair keeps on their way.
    #[arg(long, default_value_t = 1)]
    outstanding: usize,
    /// V4, V5: how many change their presence.
    #[arg(long, default_value_t = 50)]
    presentities: usize,
    /// V4, V5: how many watch each of them.
    #[arg(long, default_value_t = 1000)]
    watchers: usize,
    /// V4, V5: changes on their way, each well before the next.
    #[arg(long, default_value_t = 8)]
    in_flight: usize,
    /// V12: logins in progress.
    #[arg(long, default_value_t = 64)]
    concurrent: usize,
    /// V12-COLD: users, each of whom logs in once a round.
    #[arg(long, default_value_t = 8000)]
    cold_users: usize,
    /// V8, RESTART: dialogs of SIP watchers, ten of each user; PARTNER has a fifth of them each way.
    #[arg(long, default_value_t = 10_000)]
    dialogs: usize,
    /// PARTNER: requests a second where it is paced.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// V9: how many idle clients.
    #[arg(long, value_delimiter = ',', default_value = "1000,8000")]
    idle: Vec<usize>,
    /// GROW: which curves: connections, watchers, domains, domains-in, domains-out; otherwise all.
    #[arg(long, value_delimiter = ',')]
    curves: Vec<String>,
    /// Where the file of the run and its page go.
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
    #[arg(skip)]
    kept: RefCell<Kept>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
enum Bar {
    /// Chat over plain TCP, one shard.
    V1,
    /// The same over two shards, pairs by lot.
    #[value(name = "V1-TWO")]
    V1Two,
    /// V1 with stream management on both ends.
    #[value(name = "V1-SM")]
    V1Sm,
    /// V1 against Prosody and ejabberd.
    V2,
    /// Chat over TLS 1.3.
    V3,
    /// Presence of a few to many, one change after another.
    V4,
    /// The same with all changes at once.
    #[value(name = "V4-BURST")]
    V4Burst,
    /// V4 against Prosody and ejabberd.
    V5,
    /// A peer's stanza to a client, both under TLS.
    V6,
    /// A client's stanza to a peer.
    #[value(name = "V6-BACK")]
    V6Back,
    /// Memory of an idle connection.
    V9,
    /// A text of a SIP partner's to a client with acknowledgements, and its answer.
    V7,
    /// A client's text to a SIP partner, and its answer.
    #[value(name = "V7-BACK")]
    V7Back,
    /// SIP watchers refresh in their dialogs, durable.
    V8,
    /// The server crashes under SIP watchers.
    Restart,
    /// A SIP partner restarts.
    Partner,
    /// Strict scan and address.
    V10,
    /// Login storm over TLS 1.3, users in the server's memory.
    V12,
    /// The same right after the server's start.
    #[value(name = "V12-COLD")]
    V12Cold,
    /// One message on an idle system.
    V13,
    /// The same across two shards.
    #[value(name = "V13-TWO")]
    V13Two,
    /// Two shards against one.
    V14,
    /// Curves over connections, watchers and known domains.
    Grow,
}

/// What is measured if nothing is named.
const TABLE: &[Bar] = &[
    Bar::V1,
    Bar::V1Two,
    Bar::V1Sm,
    Bar::V2,
    Bar::V3,
    Bar::V4,
    Bar::V5,
    Bar::V6,
    Bar::V6Back,
    Bar::V7,
    Bar::V7Back,
    Bar::V8,
    Bar::V9,
    Bar::V10,
    Bar::V12,
    Bar::V13,
    Bar::V13Two,
    Bar::V14,
];

impl Bar {
    /// As it is written on the command line.
    fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self)
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

impl Bars {
    /// Measures and prints.
    pub(crate) fn run(mut self) -> Result<(), String> {
        if self.subjects.is_empty() {
            self.subjects.push(Subject::TandemRing);
            if !self.quick {
                self.subjects.push(Subject::TandemEpoll);
            }
        }
        if self.quick {
            // Most of the time of V9 goes into making the accounts, of V5 into the rosters.
            self.presentities = self.presentities.min(QUICK_PRESENTITIES);
            self.idle.retain(|it| *it <= QUICK_IDLE);
            self.idle.push(QUICK_IDLE);
            self.idle.dedup();
        }
        self.kept = RefCell::new(Kept::begin());
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        servers::certificate(dir.path())?;
        let tandem = self.tandem.clone().map_or_else(|| beside("tandem"), Ok)?;
        let stage = Stage::of(dir.path(), tandem);
        let bars = if self.bars.is_empty() { TABLE } else { &self.bars };
        let mut failed = Vec::new();
        for &bar in bars {
            let begin = Instant::now();
            // One that can't be measured here does not cost the others.
            let raw = self.measure(bar, &stage).unwrap_or_else(|fault| {
                failed.push(format!("{}: {fault}", bar.name()));
                json!({ "fault": fault })
            });
            if raw["fault"].is_string() {
                say(&format!("{} not measured: {}", bar.name(), raw["fault"]))?;
            }
            self.kept.borrow_mut().add(&bar.name(), &raw, begin.elapsed().as_secs_f64());
            let page = self.kept.borrow().write(&self.results, &self.what())?;
            if bars.last() == Some(&bar) {
                say(&format!("page: {}", page.display()))?;
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        // The logs of the servers are what explains it.
        say(&format!("kept: {}", dir.keep().display()))?;
        Err(failed.join("; "))
    }

    /// Says how a bar came out, and remembers it for the file.
    fn tell(&self, outcome: &Outcome) -> Result<(), String> {
        self.kept.borrow_mut().told.push(outcome.json());
        say(&outcome.to_string())
    }

    /// What this run was told.
    fn what(&self) -> Value {
        json!({
            "quick": self.quick, "rounds": self.rounds(), "window_s": self.window().1, "clients": self.clients,
            "outstanding": self.outstanding, "presentities": self.presentities,
            "watchers": self.watchers, "dialogs": self.dialogs(), "idle": self.idle,
        })
    }

    fn measure(&self, bar: Bar, stage: &Stage) -> Result<Value, String> {
        const PEERS: &[Subject] = &[Subject::Prosody, Subject::Ejabberd];
        let case = Case { bar, ..Case::plain() };
        let sip = |profile| Sip { profile, rate: 0, back: false, sizes: [0; 4] };
        let users = self.users(bar) + self.spare(bar);
        let federation = self.federation(bar);
        let mut stage = Stage { bar: bar.name(), users, federation, ..stage.clone() };
        let case = match bar {
            Bar::V1 => case,
            Bar::V1Two => {
                // Core 1 is the generator's: with a third core the shards get one each.
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                stage.cores = if cores > 2 { "0,2" } else { "0" }.to_owned();
                stage.shards = 2;
                let work = Work::Chat { managed: false, by_lot: true };
                Case { work, limit: 1.5, ..case }
            }
            Bar::V1Sm => {
                stage.managed = true;
                Case { work: Work::Chat { managed: true, by_lot: false }, ..case }
            }
            Bar::V2 => Case { limit: 1.0 / 8.0, bases: PEERS, each: true, ..case },
            Bar::V3 => Case { tls: true, ..case },
            Bar::V4 | Bar::V4Burst | Bar::V5 => {
                stage.presentities = self.presentities;
                let work = Work::Presence { together: bar == Bar::V4Burst };
                let case = Case { work, limit: 1.15, ..case };
                if bar == Bar::V5 {
                    Case { limit: 1.0 / 15.0, bases: PEERS, each: true, ..case }
                } else {
                    case
                }
            }
            Bar::V12 | Bar::V12Cold => {
                let work = Work::Logins { cold: bar == Bar::V12Cold };
                Case { work, tls: true, limit: 1.3, bases: &[Subject::Scripted], ..case }
            }
            Bar::V6 | Bar::V6Back => Case { work: Work::Federated, tls: true, ..case },
            Bar::V7 | Bar::V7Back => {
                let back = bar == Bar::V7Back;
                stage.managed = true;
                stage.sip = Some(Sip { back, ..sip("lync") });
                Case { work: Work::Sessions { back }, limit: 1.6, ..case }
            }
            Bar::V8 => {
                stage.sip = Some(sip("jabber"));
                let beside: &[Subject] = &[Subject::KamailioMemory];
                let bases: &[Subject] = &[Subject::Kamailio];
                Case { work: Work::Refresh, limit: 1.0 / 5.0, bases, beside, ..case }
            }
            Bar::Restart => {
                stage.sip = Some(sip("lync"));
                return self.restart(&stage);
            }
            Bar::Partner => {
                stage.sip = Some(sip("lync"));
                return self.partner(&stage);
            }
            Bar::V13 => Case { work: Work::Alone, limit: 1.3, ..case },
            Bar::V13Two => {
                let users = stage.users;
                stage.shards = 2;
                stage.names = Some(shards::names(&stage.dir, self.users(bar), users, true)?);
                Case { work: Work::Alone, limit: 2.0, ..case }
            }
            Bar::V14 => return self.two_shards(&stage),
            Bar::Grow => return self.grow(&stage),
            Bar::V9 => return self.idle_memory(&stage),
            Bar::V10 => return self.scan(),
        };
        self.interleave(case, &stage)
    }

    /// How many users a bar needs, who are its clients too but for V9.
    fn users(&self, bar: Bar) -> usize {
        match bar {
            Bar::V4 | Bar::V4Burst | Bar::V5 => self.presentities + self.watchers,
            Bar::V9 => self.idle.iter().copied().max().unwrap_or(0),
            Bar::V12Cold => self.cold_users,
            Bar::V8 | Bar::Restart => self.dialogs() / WATCHERS_EACH,
            Bar::Partner => self.dialogs() / WATCHERS_EACH / PARTNER_SHARE,
            Bar::V13 | Bar::V13Two => 2,
            _ => self.clients,
        }
    }

    /// V1's pairs with one of each at a played server that is its own.
    fn federation(&self, bar: Bar) -> Option<Federation> {
        let pairs = |back| Federation::pairs(back, self.clients / 2);
        match bar {
            Bar::V6 => Some(pairs(false)),
            Bar::V6Back => Some(pairs(true)),
            _ => None,
        }
    }

    /// Users beyond those, of whom the ones on the wanted shards are taken.
    fn spare(&self, bar: Bar) -> usize {
        match bar {
            Bar::V13Two => shards::SPARE_USERS,
            Bar::V14 => shards::SPARE_USERS + self.clients / 4,
            _ => 0,
        }
    }

    /// Dialogs of SIP watchers.
    fn dialogs(&self) -> usize {
        if self.quick { self.dialogs.min(1_000) } else { self.dialogs }
    }

    fn rounds(&self) -> usize {
        if self.quick { 3 } else { self.rounds.map_or(5, |it| it as usize) }
    }

    /// Seconds before what is measured in a round, and of it.
    fn window(&self) -> (&'static str, String) {
        match (self.quick, self.window) {
            (true, _) => ("0.5", "1".to_owned()),
            (false, Some(seconds)) => ("2", seconds.to_string()),
            (false, None) => ("2", "10".to_owned()),
        }
    }

    /// V10: nanoseconds and allocations of the core's first two steps.
    fn scan(&self) -> Result<Value, String> {
        tandem_loadgen::sys::pin(0).map_err(|e| e.to_string())?;
        let rounds = scan::rounds(self.rounds() * 3, if self.quick { 500 } else { 4000 })?;
        let ns = Spread::of(rounds.iter().map(|r| r.ns).collect());
        let allocations: u64 = rounds.iter().map(|r| r.allocations).sum();
        let nanoseconds = |bar: &str, what, figure: Spread, limit, allocations, told| Outcome {
            bar: bar.to_owned(),
            figure,
            limit,
            unit: "ns",
            verdict: verdict(figure.median <= limit && allocations == 0, true),
            subject: format!("{what}, {allocations} allocations"),
            base: String::new(),
            told,
        };
        self.tell(&nanoseconds("V10", "stanza", ns, 350.0, allocations, String::new()))?;
        let sip = index::rounds(self.rounds() * 3, if self.quick { 1_000 } else { 8_000 })?;
        let index = Spread::of(sip.iter().map(|r| r.index_ns).collect());
        let whole = Spread::of(sip.iter().map(|r| r.whole_ns).collect());
        let sip_allocations: u64 = sip.iter().map(|r| r.allocations).sum();
        let told = format!("; framed, indexed and checked {whole:.0} ns");
        self.tell(&nanoseconds("V10-SIP", "index", index, 600.0, sip_allocations, told))?;
        Ok(json!({
            "ns": rounds.iter().map(|r| r.ns).collect::<Vec<_>>(), "allocations": allocations,
            "sip_index_ns": sip.iter().map(|r| r.index_ns).collect::<Vec<_>>(),
            "sip_whole_ns": sip.iter().map(|r| r.whole_ns).collect::<Vec<_>>(),
            "sip_allocations": sip_allocations,
        }))
    }
}

/// The program of this name that lies beside this one.
pub(crate) fn beside(name: &str) -> Result<PathBuf, String> {
    std::env::current_exe().map(|own| own.with_file_name(name)).map_err(|e| e.to_string())
}

pub(crate) fn say(line: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{line}").map_err(|e| e.to_string())
}
