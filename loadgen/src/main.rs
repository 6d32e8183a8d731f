//! `tandem-loadgen`: the command line over the library.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tandem_loadgen::login::After;
use tandem_loadgen::measure::Watched;
use tandem_loadgen::population::{Names, Population, Tls, Wanted};
use tandem_loadgen::run::{self, Plan};
use tandem_loadgen::sasl::Mechanism;
use tandem_loadgen::{fanout, logins, rosters, sys};

mod cli;
mod line_played;
mod line_sip;

/// Loads XMPP servers, plays their SIP partners, and accounts for every message.
#[derive(Parser)]
#[command(version)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a scenario: open loop, an account of every message, a verdict.
    Run(Box<cli::run::Run>),
    /// The scenarios that are built in.
    List,
    /// Prints one of them.
    Show { name: String },
    /// Makes the page of a stored run again.
    Report(cli::run::Report),
    /// Holds runs against the first of them.
    Compare(cli::compare::Compare),
    #[command(flatten)]
    More(cli::More),
    /// Pairs of clients that chat through a server.
    Chat(Box<Chat>),
    /// The same bytes through a bare relay, without XMPP.
    Raw(Box<Raw>),
    /// Clients that log in and say nothing, until standard input ends.
    Idle(Box<Idle>),
    /// Makes all clients but the first few watch those, by subscriptions over XMPP.
    Rosters(Box<Rosters>),
    /// Presence from a few to many; the subscriptions are there already.
    Fanout(Box<Fanout>),
    /// The same bytes through a bare sender, without XMPP.
    RawFanout(Box<RawFanout>),
    /// Logins over and over.
    Logins(Box<Logins>),
    /// Sessions of instant messages between an edge of SIP and clients.
    SipChat(Box<line_sip::SipChat>),
    /// The same packets through a relay, without SIP and XMPP.
    SipRaw(Box<line_sip::SipRaw>),
    /// An edge that watches users and refreshes, or holds its dialogs over restarts.
    SipWatch(Box<line_sip::SipWatch>),
    /// A partner that restarts.
    SipPartner(Box<line_sip::SipPartner>),
    /// Pairs of a played XMPP server's user and a client that chat through a server.
    S2sChat(Box<line_played::S2sChat>),
    /// Makes a throw-away authority and the certificates of played domains.
    Certificates(line_played::Certificates),
    /// Answers for the names of played domains, until standard input ends.
    Dns(line_played::Dns),
    /// Prints the users of a run, one `name password` a line, to provision them beforehand.
    Users {
        /// Those of a scenario's clients instead.
        #[arg(long, conflicts_with_all = ["count", "prefix", "password"])]
        scenario: Option<String>,
        /// Whole addresses.
        #[arg(long, requires = "scenario")]
        jids: bool,
        /// How many.
        #[arg(long, default_value_t = 1_000)]
        count: usize,
        /// Written as JIDs of this domain.
        #[arg(long)]
        domain: Option<String>,
        #[arg(long, default_value = "u")]
        prefix: String,
        #[arg(long, default_value = "pw")]
        password: String,
    },
}

#[derive(Args)]
struct Place {
    /// Where the server listens; several are taken round and round.
    #[arg(long, required = true)]
    target: Vec<SocketAddr>,
    /// How many clients.
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// The core this process stays on.
    #[arg(long)]
    core: Option<usize>,
    #[arg(long, value_enum, default_value = "none")]
    tls: TlsArg,
}

#[derive(Args)]
struct Who {
    /// The domain of the users.
    #[arg(long)]
    domain: String,
    /// Users are PREFIX0, PREFIX1, …
    #[arg(long, default_value = "u")]
    prefix: String,
    /// Names from a file instead, one a line.
    #[arg(long)]
    users: Option<PathBuf>,
    #[arg(long, default_value = "pw")]
    password: String,
    #[arg(long, value_enum, default_value = "auto")]
    sasl: SaslArg,
    /// Say `<presence/>` once bound.
    #[arg(long)]
    presence: bool,
    /// Fetch the roster once bound.
    #[arg(long)]
    roster: bool,
    /// Enable stream management (XEP-0198), answer requests, request every 16 stanzas.
    #[arg(long)]
    managed: bool,
}

#[derive(Args)]
struct Traffic {
    /// Messages that each pair keeps on their way (closed loop).
    #[arg(long, default_value_t = 1)]
    outstanding: usize,
    /// Open loop: messages a second of all clients together.
    #[arg(long)]
    rate: Option<u64>,
    /// Bytes of a message stanza as sent.
    #[arg(long, default_value_t = 300)]
    bytes: usize,
    /// Closed loop: one of a pair says everything, the other one nothing.
    #[arg(long, conflicts_with = "rate")]
    one_way: bool,
    #[command(flatten)]
    window: Window,
}

#[derive(Args)]
struct Window {
    /// Seconds before the window.
    #[arg(long, default_value_t = 2.0)]
    warmup: f64,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10.0)]
    window: f64,
    /// The server's process, to read its CPU.
    #[arg(long)]
    server_pid: Option<u32>,
    /// The server's core, to read how busy it was.
    #[arg(long)]
    server_core: Option<usize>,
    /// A file of u64 counters that the server keeps: turns, messages.
    #[arg(long)]
    server_counters: Option<PathBuf>,
}

#[derive(Args)]
struct Chat {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    traffic: Traffic,
    /// Pairs by lot with this seed instead of neighbours.
    #[arg(long)]
    random_pairs: Option<u64>,
}

#[derive(Args)]
struct Raw {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    traffic: Traffic,
}

#[derive(Args)]
struct Idle {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    who: Who,
}

#[derive(Args)]
struct Rosters {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    who: Who,
    /// How many are watched.
    #[arg(long, default_value_t = 50)]
    presentities: usize,
}

#[derive(Args)]
struct Changes {
    /// How many change and are watched.
    #[arg(long, default_value_t = 50)]
    presentities: usize,
    /// Changes on their way in all.
    #[arg(long, default_value_t = 8)]
    in_flight: usize,
    /// Changes don't wait until the one before is well on its way.
    #[arg(long)]
    together: bool,
    /// Bytes of a presence stanza as sent.
    #[arg(long, default_value_t = 240)]
    bytes: usize,
    #[command(flatten)]
    window: Window,
}

#[derive(Args)]
struct Fanout {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    changes: Changes,
}

#[derive(Args)]
struct RawFanout {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    changes: Changes,
}

#[derive(Args)]
struct Logins {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    who: Who,
    /// Logins in progress at any time.
    #[arg(long, default_value_t = 64)]
    concurrent: usize,
    /// Every user only once, in a window without warm-up.
    #[arg(long)]
    once: bool,
    /// A file that keeps salted passwords from one run to the next.
    #[arg(long)]
    kept: Option<PathBuf>,
    #[command(flatten)]
    window: Window,
}

#[derive(Clone, Copy, ValueEnum)]
enum TlsArg {
    None,
    Starttls,
    Direct,
}

#[derive(Clone, Copy, ValueEnum)]
enum SaslArg {
    Auto,
    Plain,
    ScramSha1,
    ScramSha256,
}

fn main() -> ExitCode {
    match work(Line::parse().command) {
        Ok(code) => code,
        Err(fault) => {
            // Standard error may be closed; there is nobody left to tell.
            drop(writeln!(io::stderr(), "tandem-loadgen: {fault}"));
            ExitCode::from(97)
        }
    }
}

fn work(command: Command) -> Result<ExitCode, String> {
    let fault = |e: io::Error| e.to_string();
    match command {
        Command::Run(it) => it.run(),
        Command::List => cli::run::list(),
        Command::Show { name } => cli::run::show(&name),
        Command::Report(it) => it.run(),
        Command::Compare(it) => it.run(),
        Command::More(it) => it.run(),
        Command::Chat(chat) => {
            let mut plan = plan(&chat.traffic, chat.random_pairs);
            plan.managed = chat.who.managed;
            traffic(&wanted(&chat.place, Some(&chat.who))?, &plan, chat.place.core)
        }
        Command::Raw(raw) => {
            traffic(&wanted(&raw.place, None)?, &plan(&raw.traffic, None), raw.place.core)
        }
        Command::Idle(idle) => {
            pin(idle.place.core)?;
            let population = Population::open(&wanted(&idle.place, Some(&idle.who))?)?;
            let ready = serde_json::json!({ "ready": population.clients.len() });
            writeln!(io::stdout(), "{ready}").map_err(fault)?;
            io::stdout().flush().map_err(fault)?;
            io::stdin().read_to_end(&mut Vec::new()).map_err(fault)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Rosters(rosters) => {
            pin(rosters.place.core)?;
            let mut wanted = wanted(&rosters.place, Some(&rosters.who))?;
            wanted.after.presence = true;
            tell(&rosters::make(Population::open(&wanted)?, rosters.presentities)?)
        }
        Command::Fanout(it) => {
            let mut wanted = wanted(&it.place, Some(&it.who))?;
            wanted.after = After { roster: true, presence: true, managed: false };
            presences(&wanted, &it.changes, false, it.place.core)
        }
        Command::RawFanout(it) => {
            presences(&wanted(&it.place, None)?, &it.changes, true, it.place.core)
        }
        Command::Logins(logins) => {
            pin(logins.place.core)?;
            let plan = logins::Plan {
                concurrent: logins.concurrent,
                once: logins.once,
                kept: logins.kept.clone(),
                warmup: Duration::from_secs_f64(logins.window.warmup),
                window: Duration::from_secs_f64(logins.window.window),
                watched: logins.window.watched(),
            };
            tell(&logins::run(&wanted(&logins.place, Some(&logins.who))?, &plan)?)
        }
        Command::SipChat(it) => it.run(),
        Command::SipRaw(it) => it.run(),
        Command::SipWatch(it) => it.run(),
        Command::SipPartner(it) => it.run(),
        Command::S2sChat(it) => it.run(),
        Command::Certificates(it) => it.run(),
        Command::Dns(it) => it.run(),
        Command::Users { scenario: Some(name), jids, domain, .. } => {
            cli::run::users(&name, domain, jids)
        }
        Command::Users { count, domain, prefix, password, .. } => {
            let at = domain.map_or_else(String::new, |d| format!("@{d}"));
            users(count, &format!("{at} {password}"), &prefix).map_err(fault)
        }
    }
}

fn users(count: usize, rest: &str, prefix: &str) -> io::Result<ExitCode> {
    let mut out = io::BufWriter::new(io::stdout());
    for index in 0..count {
        writeln!(out, "{prefix}{index}{rest}")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn traffic(wanted: &Wanted, plan: &Plan, core: Option<usize>) -> Result<ExitCode, String> {
    pin(core)?;
    let population = Population::open(wanted)?;
    let result = run::run(population, plan).map_err(|e| e.to_string())?;
    tell(&result)
}

fn presences(
    wanted: &Wanted,
    changes: &Changes,
    raw: bool,
    core: Option<usize>,
) -> Result<ExitCode, String> {
    pin(core)?;
    let plan = fanout::Plan {
        presentities: changes.presentities,
        in_flight: changes.in_flight,
        together: changes.together,
        bytes: changes.bytes,
        raw,
        warmup: Duration::from_secs_f64(changes.window.warmup),
        window: Duration::from_secs_f64(changes.window.window),
        watched: changes.window.watched(),
    };
    let population = Population::open(wanted)?;
    tell(&fanout::run(population, &plan).map_err(|e| e.to_string())?)
}

fn tell(result: &serde_json::Value) -> Result<ExitCode, String> {
    writeln!(io::stdout(), "{result}").map_err(|e| e.to_string())?;
    let late = result["generator"]["late"].as_bool().unwrap_or(false);
    Ok(if late { ExitCode::from(98) } else { ExitCode::SUCCESS })
}

impl Window {
    fn watched(&self) -> Watched {
        Watched {
            pid: self.server_pid,
            core: self.server_core,
            counters: self.server_counters.clone(),
        }
    }
}

fn pin(core: Option<usize>) -> Result<(), String> {
    core.map_or(Ok(()), |core| sys::pin(core).map_err(|e| e.to_string()))
}

fn plan(traffic: &Traffic, shuffle: Option<u64>) -> Plan {
    Plan {
        outstanding: traffic.outstanding,
        rate: traffic.rate,
        bytes: traffic.bytes,
        shuffle,
        warmup: Duration::from_secs_f64(traffic.window.warmup),
        window: Duration::from_secs_f64(traffic.window.window),
        watched: traffic.window.watched(),
        managed: false,
        one_way: traffic.one_way,
    }
}

fn wanted(place: &Place, who: Option<&Who>) -> Result<Wanted, String> {
    if let Some(other) = place.target.iter().find(|t| !t.ip().is_loopback()) {
        return Err(format!("{other} is not on this host: only loopback is loaded"));
    }
    let names = match who {
        Some(Who { users: Some(path), .. }) => {
            let text =
                std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            let name = |l: &str| l.split([' ', '@']).next().unwrap_or_default().to_owned();
            Names::List(text.lines().map(name).collect())
        }
        Some(who) => Names::Prefix(who.prefix.clone()),
        None => Names::Prefix("raw".to_owned()),
    };
    Ok(Wanted {
        targets: place.target.clone(),
        count: place.clients,
        tls: match place.tls {
            TlsArg::None => Tls::None,
            TlsArg::Starttls => Tls::StartTls,
            TlsArg::Direct => Tls::Direct,
        },
        domain: who.map(|w| w.domain.clone()),
        names,
        password: who.map_or_else(String::new, |w| w.password.clone()),
        mechanism: who.and_then(|w| match w.sasl {
            SaslArg::Auto => None,
            SaslArg::Plain => Some(Mechanism::Plain),
            SaslArg::ScramSha1 => Some(Mechanism::ScramSha1),
            SaslArg::ScramSha256 => Some(Mechanism::ScramSha256),
        }),
        after: who.map_or_else(After::default, |w| After {
            roster: w.roster,
            managed: w.managed,
            presence: w.presence,
        }),
    })
}
