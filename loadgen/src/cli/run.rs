//! `run` and `report`, `list` and `show`.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;
use tandem::net::Interface;
use tandem_loadgen::engine::{self, Options};
use tandem_loadgen::result::{Recorder, judge, table, write};
use tandem_loadgen::scenario::model::{Sasl, Side};
use tandem_loadgen::scenario::{self, Loaded, Overrides, built_in};
use tandem_loadgen::spread::Spread;
use tandem_loadgen::view::View;
use tandem_loadgen::{pairs, report, sys};

#[derive(Args)]
pub(crate) struct Run {
    /// A file, or the name of a built-in scenario (`list` has them).
    scenario: String,
    #[command(flatten)]
    overrides: Overrides,
    /// A folder for run.json, run.csv, run.hlog and report.html.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    /// So many times; then the figures with median, least, most and an interval.
    #[arg(long, default_value_t = 1, value_name = "N")]
    repeat: usize,
    /// Prints the result as JSON on standard output, and no table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum InterfaceArg {
    Auto,
    Ring,
    Epoll,
}

#[derive(Args)]
pub(crate) struct Report {
    /// A run's folder, or its run.json.
    run: PathBuf,
    /// Where the page goes.
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
}

/// How it runs on this host.
#[derive(Args, Clone, Copy)]
pub(crate) struct How {
    /// What carries the connections.
    #[arg(long, value_enum, default_value = "auto")]
    interface: InterfaceArg,
    /// Seconds from the begin of a connect to the end of its login.
    #[arg(long, default_value_t = 30)]
    patience: u64,
}

/// To standard output.
pub(super) fn say(text: &str) -> Result<(), String> {
    io::stdout().write_all(text.as_bytes()).map_err(|e| e.to_string())
}

/// To standard error; if nobody listens there, nobody wants to know.
pub(super) fn tell(text: &str) {
    drop(io::stderr().write_all(text.as_bytes()));
}

/// A scenario with the command line's values and room for its connections, or the exit code after
/// its mistakes were told.
pub(super) fn load(name: &str, overrides: &Overrides) -> Result<Result<Loaded, ExitCode>, String> {
    let mut loaded = match scenario::load(name) {
        Ok(loaded) => loaded,
        Err(found) => {
            tell(&format!("{}{}\n", found.render(io::stderr().is_terminal()), found.count()));
            return Ok(Err(ExitCode::from(judge::SCENARIO)));
        }
    };
    if let Err(fault) = overrides.apply(&mut loaded.scenario) {
        tell(&format!("tandem-loadgen: {fault}\n"));
        return Ok(Err(ExitCode::from(2)));
    }
    sys::catch_interrupts();
    let has = sys::raise_descriptors().map_err(|e| e.to_string())?;
    let users: usize = loaded.scenario.populations.iter().map(|it| it.users).sum();
    let wants = users as u64 + 64 * (loaded.scenario.run.threads as u64 + 1);
    if wants > has {
        return Err(format!("needs {wants} descriptors, has {has}: ulimit -n {wants}"));
    }
    Ok(Ok(loaded))
}

/// One run with its log; the fault is that of its set-up.
pub(super) fn once(loaded: &Loaded, how: How, shown: bool) -> Result<(Value, write::Log), String> {
    let scenario = &loaded.scenario;
    let mut view = View::new(&scenario.name);
    let mut recorder = Recorder::new(scenario);
    let mut log = write::Log::new(scenario);
    let options = Options {
        interface: match how.interface {
            InterfaceArg::Auto => Interface::Auto,
            InterfaceArg::Ring => Interface::Ring,
            InterfaceArg::Epoll => Interface::Epoll,
        },
        patience: Duration::from_secs(how.patience),
    };
    let raw = engine::run_with(scenario, options, &mut |tick| {
        log.tick(tick);
        let second = recorder.tick(tick);
        if shown {
            view.second(second);
        }
    })
    .map_err(|fault| format!("set-up failed: {fault}"))?;
    let command: Vec<String> = std::env::args().collect();
    Ok((recorder.finish(&raw, &loaded.text, &command), log))
}

impl Run {
    pub(crate) fn run(&self) -> Result<ExitCode, String> {
        let loaded = match load(&self.scenario, &self.overrides)? {
            Ok(loaded) => loaded,
            Err(code) => return Ok(code),
        };
        let mut results = Vec::new();
        let mut exit = judge::GOOD;
        for number in 1..=self.repeat.max(1) {
            let (result, log) = match once(&loaded, self.how, true) {
                Ok(it) => it,
                Err(fault) => {
                    tell(&format!("tandem-loadgen: {fault}\n"));
                    exit = judge::larger_problem(exit, judge::SETUP);
                    break;
                }
            };
            self.hand_out(&result, &log, number)?;
            let code = result["exit"].as_u64().and_then(|it| u8::try_from(it).ok());
            exit = judge::larger_problem(exit, code.unwrap_or(judge::LIMITED));
            let stop = result["interrupted"] == true;
            results.push(result);
            if stop {
                break;
            }
        }
        if self.repeat > 1 && !self.json {
            say(&repeats(&results))?;
        }
        Ok(ExitCode::from(exit))
    }

    fn hand_out(&self, result: &Value, log: &write::Log, number: usize) -> Result<(), String> {
        if let Some(dir) = &self.out {
            let dir = if self.repeat > 1 { dir.join(number.to_string()) } else { dir.clone() };
            let files =
                write::all(&dir, result, log).map_err(|e| format!("{}: {e}", dir.display()))?;
            for file in files {
                tell(&format!("wrote {}\n", file.display()));
            }
        }
        if self.json { say(&format!("{result}\n")) } else { say(&table::of(result)) }
    }
}

/// Figures of many runs of the same: never one number.
fn repeats(results: &[Value]) -> String {
    let mut out = format!("\n{} runs: median (least..most), 95 % interval\n", results.len());
    for key in ["latency_p50", "latency_p99", "latency_p999", "server_cpu_per_message", "achieved"]
    {
        let values: Vec<f64> = results.iter().filter_map(|it| judge::figure(it, key)).collect();
        let Some(it) = Spread::of(&values) else { continue };
        let [median, least, most, low, high] =
            [it.median, it.least, it.most, it.low, it.high].map(|v| judge::written(key, v));
        // Writing into a String does not fail.
        _ = writeln!(out, "  {key:<24} {median} ({least}..{most}), {low}..{high}");
    }
    out
}

impl Report {
    pub(crate) fn run(&self) -> Result<ExitCode, String> {
        let result = write::read(&self.run)?;
        std::fs::write(&self.out, report::page(&[result]))
            .map_err(|e| format!("{}: {e}", self.out.display()))?;
        say(&format!("wrote {}\n", self.out.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The built-in scenarios, a line each.
pub(crate) fn list() -> Result<ExitCode, String> {
    let mut text = String::new();
    for it in built_in::ALL {
        _ = writeln!(text, "{:<18} {}", it.name, it.about());
    }
    say(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// One of them, as it is written.
pub(crate) fn show(name: &str) -> Result<ExitCode, String> {
    let found = built_in::find(name)
        .ok_or_else(|| format!("there is no scenario {name}; `tandem-loadgen list` has them"))?;
    say(found.text)?;
    Ok(ExitCode::SUCCESS)
}

/// The users of a scenario's clients, `name password` a line, or with whole addresses.
pub(crate) fn users(name: &str, domain: Option<String>, whole: bool) -> Result<ExitCode, String> {
    let overrides = Overrides { domain, ..Overrides::default() };
    let scenario = match load(name, &overrides)? {
        Ok(it) => it.scenario,
        Err(code) => return Ok(code),
    };
    let mut text = String::new();
    let clients = scenario.populations.iter().filter(|it| it.side == Side::Client);
    for people in clients.filter(|it| it.sasl != Some(Sasl::Anonymous)) {
        for user in 0..people.users {
            let address = pairs::address(people, user);
            let local = address.split('@').next().unwrap_or_default();
            let password = pairs::numbered(&people.password, user);
            _ = writeln!(text, "{} {password}", if whole { &address } else { local });
        }
    }
    say(&text)?;
    Ok(ExitCode::SUCCESS)
}
