//! The bars of the data plane, each one line: a ratio with its spread, the bar, and a verdict.
//!
//! Rounds are interleaved over all subjects, so that a noisy minute hits all of them. Does **not**
//! run anything beside the server and the generator.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::servers::{self, Stage, Subject};
use crate::sip::Sip;
use crate::{index, scan};

mod memory;
mod restart;
mod rounds;

use rounds::{Case, Spread, Work, verdict};

/// SIP watchers of each user.
const WATCHERS_EACH: usize = 10;
/// PARTNER has so many times fewer dialogs.
const PARTNER_SHARE: usize = 5;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Bars {
    /// Which bars.
    #[arg(value_enum, required = true)]
    bars: Vec<Bar>,
    /// Three short rounds instead of five long ones: shows that it works, proves nothing.
    #[arg(long)]
    quick: bool,
    /// Whom to measure against the bare relay.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tandem-ring,tandem-epoll")]
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
    /// Where the raw results go.
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
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
    /// V1 against Prosody.
    V2,
    /// Chat over TLS 1.3.
    V3,
    /// Presence of a few to many, one change after another.
    V4,
    /// The same with all changes at once.
    #[value(name = "V4-BURST")]
    V4Burst,
    /// V4 against Prosody.
    V5,
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
}

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
    pub(crate) fn run(&self) -> Result<(), String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        servers::certificate(dir.path())?;
        let stage = Stage {
            bar: String::new(),
            dir: dir.path().to_owned(),
            cores: "0".to_owned(),
            tandem: self.tandem.clone().map_or_else(|| beside("tandem"), Ok)?,
            users: 0,
            shards: 1,
            presentities: 0,
            managed: false,
            octets: 0,
            sip: None,
        };
        let done = self.bars.iter().try_for_each(|&bar| self.measure(bar, &stage));
        if done.is_err() {
            // The logs of the servers are what explains it.
            say(&format!("kept: {}", dir.keep().display()))?;
        }
        done
    }

    fn measure(&self, bar: Bar, stage: &Stage) -> Result<(), String> {
        const BARE: &[Subject] = &[Subject::BareEpoll, Subject::BareUring];
        let chat = Work::Chat { managed: false, by_lot: false };
        let case = Case { bar, work: chat, tls: false, limit: 1.25, bases: BARE, beside: &[] };
        let sip = |profile| Sip { profile, rate: 0, back: false, sizes: [0; 4] };
        let mut stage = Stage { bar: bar.name(), users: self.users(bar), ..stage.clone() };
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
            Bar::V2 => Case { limit: 1.0 / 8.0, bases: &[Subject::Prosody], ..case },
            Bar::V3 => Case { tls: true, ..case },
            Bar::V4 | Bar::V4Burst | Bar::V5 => {
                stage.presentities = self.presentities;
                let work = Work::Presence { together: bar == Bar::V4Burst };
                let case = Case { work, limit: 1.15, ..case };
                if bar == Bar::V5 {
                    Case { limit: 1.0 / 15.0, bases: &[Subject::Prosody], ..case }
                } else {
                    case
                }
            }
            Bar::V12 | Bar::V12Cold => {
                let work = Work::Logins { cold: bar == Bar::V12Cold };
                Case { work, tls: true, limit: 1.3, bases: &[Subject::Scripted], ..case }
            }
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
                return self.keep(bar, &self.restart(&stage)?);
            }
            Bar::Partner => {
                stage.sip = Some(sip("lync"));
                return self.keep(bar, &self.partner(&stage)?);
            }
            Bar::V9 => return self.keep(bar, &self.idle_memory(&stage)?),
            Bar::V10 => return self.keep(bar, &self.scan()?),
        };
        self.keep(bar, &self.interleave(case, &stage)?)
    }

    /// How many users a bar needs, who are its clients too but for V9.
    fn users(&self, bar: Bar) -> usize {
        match bar {
            Bar::V4 | Bar::V4Burst | Bar::V5 => self.presentities + self.watchers,
            Bar::V9 => self.idle.iter().copied().max().unwrap_or(0),
            Bar::V12Cold => self.cold_users,
            Bar::V8 | Bar::Restart => self.dialogs() / WATCHERS_EACH,
            Bar::Partner => self.dialogs() / WATCHERS_EACH / PARTNER_SHARE,
            _ => self.clients,
        }
    }

    /// Dialogs of SIP watchers.
    fn dialogs(&self) -> usize {
        if self.quick { self.dialogs.min(1_000) } else { self.dialogs }
    }

    fn rounds(&self) -> usize {
        if self.quick { 3 } else { 5 }
    }

    /// V10: nanoseconds and allocations of the core's first two steps.
    fn scan(&self) -> Result<Value, String> {
        tandem_loadgen::sys::pin(0).map_err(|e| e.to_string())?;
        let rounds = scan::rounds(self.rounds() * 3, if self.quick { 500 } else { 4000 })?;
        let ns = Spread::of(rounds.iter().map(|r| r.ns).collect());
        let allocations: u64 = rounds.iter().map(|r| r.allocations).sum();
        let holds = verdict(ns.median <= 350.0 && allocations == 0, true);
        say(&format!("V10 {ns} ns bar 350 {holds} ({allocations} allocations)"))?;
        let sip = index::rounds(self.rounds() * 3, if self.quick { 1_000 } else { 8_000 })?;
        let index = Spread::of(sip.iter().map(|r| r.index_ns).collect());
        let whole = Spread::of(sip.iter().map(|r| r.whole_ns).collect());
        let sip_allocations: u64 = sip.iter().map(|r| r.allocations).sum();
        let holds = verdict(index.median <= 600.0 && sip_allocations == 0, true);
        say(&format!(
            "V10-SIP {index} ns bar 600 {holds} ({sip_allocations} allocations; framed, indexed and checked {whole} ns)"
        ))?;
        Ok(json!({
            "ns": rounds.iter().map(|r| r.ns).collect::<Vec<_>>(), "allocations": allocations,
            "sip_index_ns": sip.iter().map(|r| r.index_ns).collect::<Vec<_>>(),
            "sip_whole_ns": sip.iter().map(|r| r.whole_ns).collect::<Vec<_>>(),
            "sip_allocations": sip_allocations,
        }))
    }

    /// Keeps the raw rounds with what is needed to repeat them.
    fn keep(&self, bar: Bar, raw: &Value) -> Result<(), String> {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let run = |program: &str, line: &[&str]| {
            let done = Command::new(program).args(line).output().ok()?;
            Some(String::from_utf8_lossy(&done.stdout).trim().to_owned())
        };
        let result = json!({
            "bar": bar.name(), "unix_s": at, "quick": self.quick, "clients": self.users(bar),
            "outstanding": self.outstanding, "kernel": run("uname", &["-a"]),
            "commit": run("git", &["rev-parse", "HEAD"]),
            "load_average": std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
            "raw": raw,
        });
        std::fs::create_dir_all(&self.results).map_err(|e| e.to_string())?;
        let path = self.results.join(format!("{at}-{}.json", bar.name()));
        std::fs::write(&path, format!("{result:#}\n")).map_err(|e| e.to_string())
    }
}

fn beside(name: &str) -> Result<PathBuf, String> {
    std::env::current_exe().map(|own| own.with_file_name(name)).map_err(|e| e.to_string())
}

pub(crate) fn say(line: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{line}").map_err(|e| e.to_string())
}
