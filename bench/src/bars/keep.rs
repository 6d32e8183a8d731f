//! The file of a run: everything that was measured, with what is needed to repeat it, and its page.
//!
//! Written anew after each bar, so that a run which is cut short keeps what it has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::say;
use crate::page;

/// What a run has measured so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    at: u64,
    environment: Value,
    /// Bars that are done: name, outcomes, raw rounds.
    bars: Vec<Value>,
    /// Outcomes of the bar that is being measured.
    pub told: Vec<Value>,
}

impl Kept {
    /// One that begins now.
    pub(super) fn begin() -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Self { at, environment: environment(), ..Self::default() }
    }

    /// A bar is done.
    pub(super) fn add(&mut self, bar: &str, raw: &Value, took_s: f64) {
        let outcomes = std::mem::take(&mut self.told);
        self.bars.push(json!({ "bar": bar, "took_s": took_s, "outcomes": outcomes, "raw": raw }));
    }

    /// Writes the file and its page; gives where the page is.
    pub(super) fn write(&self, results: &Path, what: &Value) -> Result<PathBuf, String> {
        let took: f64 = self.bars.iter().filter_map(|bar| bar["took_s"].as_f64()).sum();
        let run = json!({
            "schema": 1, "unix_s": self.at, "took_s": took, "what": what,
            "environment": self.environment, "bars": self.bars,
        });
        fs::create_dir_all(results).map_err(|e| format!("{}: {e}", results.display()))?;
        let path = results.join(format!("{}-run.json", self.at));
        fs::write(&path, format!("{run:#}\n")).map_err(|e| format!("{}: {e}", path.display()))?;
        write_page(&path, &run)
    }
}

fn write_page(json: &Path, run: &Value) -> Result<PathBuf, String> {
    let path = json.with_extension("html");
    fs::write(&path, page::of(run)).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

/// Makes the page of a run again.
#[derive(clap::Args)]
pub(crate) struct Report {
    /// The file of the run; the newest one otherwise.
    file: Option<PathBuf>,
    /// Where to look for the newest one.
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

impl Report {
    /// Writes the page beside the file and says where.
    pub(crate) fn run(&self) -> Result<(), String> {
        let path = match &self.file {
            Some(path) => path.clone(),
            None => newest(&self.results)?,
        };
        let fault = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let text = fs::read_to_string(&path).map_err(|e| fault(&e))?;
        let run: Value = serde_json::from_str(&text).map_err(|e| fault(&e))?;
        say(&format!("{}", write_page(&path, &run)?.display()))
    }
}

fn newest(results: &Path) -> Result<PathBuf, String> {
    let fault = |e| format!("{}: {e}", results.display());
    let files = fs::read_dir(results).map_err(fault)?.filter_map(Result::ok);
    let runs = files.map(|it| it.path()).filter(|it| it.to_string_lossy().ends_with("-run.json"));
    // Their names begin with the time.
    runs.max().ok_or_else(|| format!("{}: no run is kept there", results.display()))
}

fn environment() -> Value {
    let run = |program: &str, line: &[&str]| {
        let done = Command::new(program).args(line).output().ok()?;
        Some(String::from_utf8_lossy(&done.stdout).trim().to_owned()).filter(|it| !it.is_empty())
    };
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let package = |name| run("dpkg-query", &["-W", "-f", "${Version}", name]);
    json!({
        "kernel": run("uname", &["-sr"]),
        "cpu": model.map(|it| it.1.to_owned()),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": info_of("/proc/meminfo", "MemTotal:"),
        "commit": run("git", &["rev-parse", "--short=12", "HEAD"]),
        "changed": run("git", &["status", "--porcelain", "-uno"]).is_some(),
        "rustc": run("rustc", &["--version"]),
        "load_average": read("/proc/loadavg"),
        "clocksource": read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "congestion": read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "prosody": package("prosody"),
        "ejabberd": package("ejabberd"),
        "kamailio": package("kamailio"),
    })
}

fn info_of(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)).map(|it| it.trim().to_owned())
}
