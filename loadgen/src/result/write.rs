//! Results as files: JSON, CSV a line a second, HdrHistogram's interval log, the page.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use serde_json::Value;

use crate::engine::raw::Tick;
use crate::report;
use crate::result::SCHEMA;
use crate::scenario::model::Scenario;

const COLUMNS: [&str; 17] = [
    "t_s",
    "stage",
    "asked",
    "sent",
    "delivered",
    "bounced",
    "p50_ns",
    "p90_ns",
    "p99_ns",
    "max_ns",
    "service_p99_ns",
    "late_p99_ns",
    "in_flight",
    "connections",
    "server_cpu_ns",
    "generator_cpu_ns",
    "generator_busy",
];

/// One line a second.
pub fn csv(result: &Value) -> String {
    let mut out = COLUMNS.join(",") + "\n";
    for row in result["series"].as_array().into_iter().flatten() {
        let cell = |key: &&str| match &row[*key] {
            Value::Null => String::new(),
            it => it.to_string(),
        };
        let cells: Vec<String> = COLUMNS.iter().map(cell).collect();
        // Writing into a String does not fail.
        _ = writeln!(out, "{}", cells.join(","));
    }
    out
}

/// Collects the interval log: for each second and flow its histogram, with the interval's true
/// length. Values are nanoseconds; the log's maximum column is in milliseconds, as its readers expect.
pub struct Log {
    names: Vec<String>,
    intervals: Vec<(u64, u64, Vec<crate::ledger::Times>)>,
}

impl Log {
    /// Empty.
    pub fn new(scenario: &Scenario) -> Self {
        // A tag ends at a comma or a blank.
        let name = |it: &str| it.replace([',', ' ', '\n', '\r'], "_");
        let names = scenario.flows.iter().map(|it| name(&it.name)).collect();
        Self { names, intervals: Vec::new() }
    }

    /// A second is over.
    pub fn tick(&mut self, tick: &Tick) {
        let times = tick.part.flows.iter().map(|it| it.latency.clone()).collect();
        self.intervals.push((tick.from_ns, tick.to_ns, times));
    }

    /// The text of the log; the run began then, in milliseconds since 1970.
    pub fn text(&self, started_unix_ms: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        let failed = |e: &dyn std::fmt::Debug| io::Error::other(format!("{e:?}"));
        let start = std::time::UNIX_EPOCH + Duration::from_millis(started_unix_ms);
        let mut log = IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment("latency from the intended send time, nanoseconds")
            .with_start_time(start)
            .with_base_time(start)
            .with_max_value_divisor(1e6)
            .begin_log_with(&mut out, &mut serializer)?;
        for (from_ns, to_ns, flows) in &self.intervals {
            for (name, times) in self.names.iter().zip(flows).filter(|it| !it.1.is_empty()) {
                let from = Duration::from_nanos(*from_ns);
                let length = Duration::from_nanos(to_ns - from_ns);
                log.write_histogram(times, from, length, Tag::new(name)).map_err(|e| failed(&e))?;
            }
        }
        drop(log);
        Ok(out)
    }
}

/// Writes everything into a folder, which is made; says which files.
pub fn all(dir: &Path, result: &Value, log: &Log) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(dir)?;
    let started = result["started_unix_ms"].as_u64().unwrap_or(0);
    let files = [
        ("run.json", serde_json::to_vec_pretty(result)?),
        ("run.csv", csv(result).into_bytes()),
        ("run.hlog", log.text(started)?),
        ("report.html", report::page(std::slice::from_ref(result)).into_bytes()),
    ];
    let mut paths = Vec::new();
    for (name, octets) in files {
        let path = dir.join(name);
        fs::write(&path, octets)?;
        paths.push(path);
    }
    Ok(paths)
}

/// A stored result.
pub fn read(path: &Path) -> Result<Value, String> {
    let path = if path.is_dir() { path.join("run.json") } else { path.to_owned() };
    let fault = |why: String| format!("{}: {why}", path.display());
    let octets = fs::read(&path).map_err(|e| fault(e.to_string()))?;
    let mut result: Value = serde_json::from_slice(&octets).map_err(|e| fault(e.to_string()))?;
    if result["schema"] != SCHEMA {
        return Err(fault(format!("not a result of this program: schema {} is wanted", SCHEMA)));
    }
    // What tells several runs apart in one picture.
    let label = path.parent().and_then(Path::file_name).map(|it| it.to_string_lossy().into_owned());
    result["label"] = label.unwrap_or_default().into();
    Ok(result)
}
