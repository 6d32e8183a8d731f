//! The bars of the data plane, each one line: a ratio with its spread, the bar, and a verdict.
//!
//! Rounds are interleaved over all subjects, so that a noisy minute hits all of them. Does **not**
//! believe a closed-loop round in which a server slept: it is printed as invalid.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tandem_loadgen::proc::Memory;

use crate::scan;
use crate::servers::{self, DOMAIN, Running, Stage, Subject};

/// A server that was idle for more than the rest of this share was not at its limit.
const BUSY_MIN: f64 = 0.95;

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
    /// V1 against Prosody.
    V2,
    /// Chat over TLS 1.3.
    V3,
    /// Memory of an idle connection.
    V9,
    /// Strict scan and address.
    V10,
}

/// The middle and the ends of some rounds.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        Self { median: at(last / 2), min: at(0), max: at(last) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:.2} ({:.2}..{:.2})", self.median, self.min, self.max)
    }
}

impl Bars {
    /// Measures and prints.
    pub(crate) fn run(&self) -> Result<(), String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        servers::certificate(dir.path())?;
        let users = self.clients.max(self.idle.iter().copied().max().unwrap_or(0));
        let stage = Stage {
            dir: dir.path().to_owned(),
            cores: "0".to_owned(),
            tandem: self.tandem.clone().map_or_else(|| beside("tandem"), Ok)?,
            users,
            shards: 1,
        };
        let done = self.bars.iter().try_for_each(|&bar| self.measure(bar, &stage));
        if done.is_err() {
            // The logs of the servers are what explains it.
            say(&format!("kept: {}", dir.keep().display()))?;
        }
        done
    }

    fn measure(&self, bar: Bar, stage: &Stage) -> Result<(), String> {
        let raw = match bar {
            Bar::V1 => self.chat(bar, false, 1.25, stage)?,
            Bar::V3 => self.chat(bar, true, 1.25, stage)?,
            Bar::V2 => self.chat(bar, false, 1.0 / 8.0, stage)?,
            Bar::V1Two => {
                // Core 1 is the generator's: with a third core the shards get one each.
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                let cores = if cores > 2 { "0,2" } else { "0" };
                let stage = Stage { shards: 2, cores: cores.to_owned(), ..stage.clone() };
                self.chat(bar, false, 1.5, &stage)?
            }
            Bar::V9 => self.idle_memory(stage)?,
            Bar::V10 => self.scan()?,
        };
        self.keep(bar, &raw)
    }

    fn rounds(&self) -> usize {
        if self.quick { 3 } else { 5 }
    }

    /// CPU per message of all subjects over that of the cheaper denominator.
    fn chat(&self, bar: Bar, tls: bool, limit: f64, stage: &Stage) -> Result<Value, String> {
        let bases: &[Subject] = match bar {
            Bar::V2 => &[Subject::Prosody],
            _ => &[Subject::BareEpoll, Subject::BareUring],
        };
        let subjects: Vec<Subject> = bases.iter().chain(&self.subjects).copied().collect();
        let mut running: Vec<Option<Running>> = subjects.iter().map(|_| None).collect();
        let mut rows: Vec<Vec<Value>> = subjects.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.rounds() {
            for (at, &subject) in subjects.iter().enumerate() {
                // A relay pairs in the order of accept and starts fresh; others stay.
                if subject.is_bare() || running[at].is_none() {
                    running[at] = None;
                    let cores = if subject.is_bare() { "0" } else { &stage.cores };
                    let stage = Stage { cores: cores.to_owned(), ..stage.clone() };
                    running[at] = Some(servers::start(subject, tls, &stage)?);
                }
                if let Some(server) = &running[at] {
                    rows[at].push(self.load(bar, subject, tls, server)?);
                }
                if subject.is_bare() {
                    running[at] = None;
                }
            }
        }
        let base = (0..bases.len())
            .min_by(|&a, &b| cost(&rows[a]).median.total_cmp(&cost(&rows[b]).median))
            .ok_or("nothing to divide by")?;
        for (subject, rows) in subjects.iter().zip(&rows) {
            say(&describe(*subject, rows))?;
        }
        for at in bases.len()..subjects.len() {
            let each = |row: &Value| number(row, "/server/cpu_ns_per_message");
            let pairs = rows[at].iter().zip(&rows[base]);
            let ratio = Spread::of(pairs.map(|(a, b)| each(a) / each(b)).collect());
            let valid = is_valid(&rows[at]) && is_valid(&rows[base]);
            let verdict = verdict(ratio.median <= limit, valid);
            let (name, base) = (subjects[at].name(), subjects[base].name());
            say(&format!("{bar:?} {ratio} bar {limit:.2} {verdict} ({name} / {base})"))?;
        }
        let named = subjects.iter().zip(rows).map(|(s, r)| (s.name().to_owned(), json!(r)));
        Ok(Value::Object(named.collect()))
    }

    /// One round of load on one server.
    fn load(&self, bar: Bar, subject: Subject, tls: bool, on: &Running) -> Result<Value, String> {
        let (warmup, window) = if self.quick { ("0.5", "3") } else { ("2", "10") };
        let mut command = Command::new(beside("tandem-loadgen")?);
        command.arg(if subject.is_bare() { "raw" } else { "chat" });
        self.place(&mut command, subject, tls, on, self.clients);
        command.args(["--outstanding", &self.outstanding.to_string()]);
        command.args(["--warmup", warmup, "--window", window, "--server-core", "0"]);
        command.args(["--server-pid", &on.pid().to_string()]);
        if let Some(counters) = &on.counters {
            command.arg("--server-counters").arg(counters);
        }
        if bar == Bar::V1Two && !subject.is_bare() {
            command.args(["--random-pairs", "7"]);
        }
        let before = on.turns();
        let done = command.stderr(Stdio::inherit()).output().map_err(|e| e.to_string())?;
        let mut row: Value = serde_json::from_slice(&done.stdout)
            .map_err(|_| format!("{}: the load generator gave no result", subject.name()))?;
        if let (Some(before), Some(after)) = (before, on.turns()) {
            // Over the whole run, logins included: a little below what the window had.
            let turns = (after.1 - before.1).max(1.0);
            row["server"]["messages_per_turn"] = json!((after.0 - before.0) / turns);
        }
        Ok(row)
    }

    fn place(&self, on: &mut Command, subject: Subject, tls: bool, at: &Running, clients: usize) {
        let target = if tls { at.tls } else { at.plain };
        on.args(["--core", "1", "--target", &target.to_string()]);
        on.args(["--clients", &clients.to_string()]);
        on.args(["--tls", if tls { "direct" } else { "none" }]);
        if !subject.is_bare() {
            on.args(["--domain", DOMAIN]);
        }
    }

    /// V9: memory before and after clients that log in and say nothing. What a process makes once,
    /// such as its receive buffers, is told apart from what each connection costs by measuring two
    /// counts: the bar is about the difference between them.
    fn idle_memory(&self, stage: &Stage) -> Result<Value, String> {
        let mut raw = Vec::new();
        for &subject in &self.subjects {
            for (tls, limit) in [(false, 1536.0), (true, 12_288.0)] {
                let kind = if tls { "tls" } else { "plain" };
                let mut points: Vec<(f64, f64)> = Vec::new();
                for &clients in &self.idle {
                    let server = servers::start(subject, tls, stage)?;
                    let (pss, rss) = self.idle_once(subject, tls, &server, clients)?;
                    say(&format!(
                        "  {:<15} {pss:.0} B each, all told (rss {rss:.0} B) ({kind}, {clients})",
                        subject.name()
                    ))?;
                    points.push((clients as f64, pss * clients as f64));
                    raw.push(json!({
                        "subject": subject.name(), "tls": tls, "clients": clients,
                        "pss_per_connection": pss, "rss_per_connection": rss,
                    }));
                }
                let (Some(few), Some(many)) = (points.first(), points.last()) else { continue };
                let each = (many.1 - few.1) / (many.0 - few.0);
                let once = (many.1 - each * many.0) / 1e6;
                let verdict = verdict(each <= limit, many.0 > few.0);
                say(&format!(
                    "V9 {each:.0} B bar {limit:.0} {verdict} ({}, {kind}, {} to {}; {once:.1} MB once)",
                    subject.name(),
                    few.0,
                    many.0
                ))?;
            }
        }
        Ok(json!(raw))
    }

    fn idle_once(
        &self,
        subject: Subject,
        tls: bool,
        server: &Running,
        clients: usize,
    ) -> Result<(f64, f64), String> {
        let fault = |e: io::Error| e.to_string();
        // One client first, so that what is made once per process is not counted.
        drop(self.idle_clients(subject, tls, server, 1)?);
        let before = Memory::of(server.pid()).map_err(fault)?;
        let held = self.idle_clients(subject, tls, server, clients)?;
        let after = Memory::of(server.pid()).map_err(fault)?;
        drop(held);
        let per = |a: u64, b: u64| (a as f64 - b as f64) / clients as f64;
        Ok((per(after.pss, before.pss), per(after.rss, before.rss)))
    }

    fn idle_clients(
        &self,
        subject: Subject,
        tls: bool,
        server: &Running,
        clients: usize,
    ) -> Result<Held, String> {
        let mut command = Command::new(beside("tandem-loadgen")?);
        command.arg("idle");
        self.place(&mut command, subject, tls, server, clients);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let out = child.stdout.take().ok_or("no output")?;
        let held = Held(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).map_err(|e| e.to_string())?;
        if line.contains("ready") { Ok(held) } else { Err("idle clients did not log in".into()) }
    }

    /// V10: nanoseconds and allocations of the core's first two steps.
    fn scan(&self) -> Result<Value, String> {
        tandem_loadgen::sys::pin(0).map_err(|e| e.to_string())?;
        let rounds = scan::rounds(self.rounds() * 3, if self.quick { 500 } else { 4000 })?;
        let ns = Spread::of(rounds.iter().map(|r| r.ns).collect());
        let allocations: u64 = rounds.iter().map(|r| r.allocations).sum();
        let verdict = verdict(ns.median <= 350.0 && allocations == 0, true);
        say(&format!("V10 {ns} ns bar 350 {verdict} ({allocations} allocations)"))?;
        Ok(
            json!({ "ns": rounds.iter().map(|r| r.ns).collect::<Vec<_>>(), "allocations": allocations }),
        )
    }

    /// Keeps the raw rounds with what is needed to repeat them.
    fn keep(&self, bar: Bar, raw: &Value) -> Result<(), String> {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let run = |program: &str, line: &[&str]| {
            let done = Command::new(program).args(line).output().ok()?;
            Some(String::from_utf8_lossy(&done.stdout).trim().to_owned())
        };
        let result = json!({
            "bar": format!("{bar:?}"), "unix_s": at, "quick": self.quick, "clients": self.clients,
            "outstanding": self.outstanding, "kernel": run("uname", &["-a"]),
            "commit": run("git", &["rev-parse", "HEAD"]),
            "load_average": std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
            "raw": raw,
        });
        std::fs::create_dir_all(&self.results).map_err(|e| e.to_string())?;
        let path = self.results.join(format!("{at}-{bar:?}.json"));
        std::fs::write(&path, format!("{result:#}\n")).map_err(|e| e.to_string())
    }
}

/// Clients that stay as long as this lives.
struct Held(std::process::Child);

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

fn cost(rows: &[Value]) -> Spread {
    Spread::of(rows.iter().map(|r| number(r, "/server/cpu_ns_per_message")).collect())
}

fn number(row: &Value, at: &str) -> f64 {
    row.pointer(at).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

/// A closed-loop round counts if the server never waited for work and nothing went wrong.
fn is_valid(rows: &[Value]) -> bool {
    rows.iter().all(|r| number(r, "/server/wanted_core") >= BUSY_MIN && r["sound"] == json!(true))
}

fn verdict(holds: bool, valid: bool) -> &'static str {
    match (valid, holds) {
        (false, _) => "invalid",
        (true, true) => "holds",
        (true, false) => "MISSED",
    }
}

fn describe(subject: Subject, rows: &[Value]) -> String {
    let of = |at: &str| Spread::of(rows.iter().map(|r| number(r, at)).collect()).median;
    let unsound = rows.iter().filter(|r| r["sound"] != json!(true)).count();
    format!(
        "  {:<13} {:6.2} us/message ({:.2}..{:.2})  core {:.0} %, wanted {:.0} %  \
         {:.1} messages/turn  {:.0} sleeps, {:.0} preempted  generator {:.2} us  unsound {unsound}",
        subject.name(),
        cost(rows).median / 1e3,
        cost(rows).min / 1e3,
        cost(rows).max / 1e3,
        of("/server/busy") * 100.0,
        of("/server/wanted_core") * 100.0,
        of("/server/messages_per_turn"),
        of("/server/sleeps"),
        of("/server/preempted"),
        of("/generator/cpu_ns_per_message") / 1e3,
    )
}

fn beside(name: &str) -> Result<PathBuf, String> {
    std::env::current_exe().map(|own| own.with_file_name(name)).map_err(|e| e.to_string())
}

fn say(line: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{line}").map_err(|e| e.to_string())
}
