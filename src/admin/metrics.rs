//! `/metrics`: what the shards and control counted, as OpenMetrics text.
//!
//! The shards name their figures; here they are summed over the shards. A name that ends in
//! `_total` is a counter, every other one a gauge; a name without `tandem_` before it gets it.
//! Labels come from closed sets, so the number of series is bounded, and cut if it is not.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::control::Node;
use crate::limits::METRIC_SERIES_MAX;

/// Bytes of a page and ticks of a second: what Linux shows them in on every platform we run on.
const PAGE_BYTES: f64 = 4_096.0;
const TICKS: f64 = 100.0;

type Labels = Vec<(&'static str, String)>;

/// All series of one scrape, in order.
#[derive(Debug, Default)]
struct Snapshot {
    families: BTreeMap<String, BTreeMap<Labels, Number>>,
    series: usize,
}

#[derive(Clone, Copy, Debug)]
enum Number {
    Whole(u64),
    Real(f64),
}

impl Snapshot {
    fn add(&mut self, name: &str, labels: Labels, value: u64) {
        if let Some(Number::Whole(sum)) = self.entry(name, labels) {
            *sum = sum.saturating_add(value);
        }
    }

    fn set(&mut self, name: &str, labels: Labels, value: f64) {
        if let Some(it) = self.entry(name, labels) {
            *it = Number::Real(value);
        }
    }

    fn entry(&mut self, name: &str, labels: Labels) -> Option<&mut Number> {
        let name = if name.starts_with("tandem_") || name.starts_with("process_") {
            name.to_owned()
        } else {
            format!("tandem_{name}")
        };
        let family = self.families.entry(name).or_default();
        if !family.contains_key(&labels) {
            if self.series >= METRIC_SERIES_MAX {
                return None;
            }
            self.series += 1;
        }
        Some(family.entry(labels).or_insert(Number::Whole(0)))
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, series) in &self.families {
            let counter = name.strip_suffix("_total");
            let kind = if counter.is_some() { MetricType::Counter } else { MetricType::Gauge };
            let shown = counter.unwrap_or(name);
            let mut metric = encoder.encode_descriptor(shown, help(shown), None, kind)?;
            for (labels, value) in series {
                // An empty set would be written as `{}`, which few expect.
                if labels.is_empty() {
                    value.encode(&mut metric, counter.is_some())?;
                } else {
                    value.encode(&mut metric.encode_family(labels)?, counter.is_some())?;
                }
            }
        }
        Ok(())
    }
}

impl Number {
    fn encode(self, out: &mut MetricEncoder<'_>, counter: bool) -> fmt::Result {
        match (counter, self) {
            (true, Self::Whole(it)) => out.encode_counter::<NoLabelSet, u64, u64>(&it, None),
            (true, Self::Real(it)) => out.encode_counter::<NoLabelSet, f64, u64>(&it, None),
            (false, Self::Whole(it)) => out.encode_gauge(&i64::try_from(it).unwrap_or(i64::MAX)),
            (false, Self::Real(it)) => out.encode_gauge(&it),
        }
    }
}

/// One sentence for a family; the shards' own are told by their names.
fn help(name: &str) -> &'static str {
    match name {
        "tandem_build_info" => "The running program",
        "tandem_config_version" => "Counts up with each reload that took effect",
        "tandem_config_reloads" => "Reloads by their result",
        "tandem_certificate_reload_failures" => "Certificates that were refused when re-read",
        "tandem_certificate_not_after_timestamp_seconds" => "When the certificate ends",
        "tandem_shard_heartbeat_age_seconds" => "Since the shard last answered",
        "tandem_workers_refused" => "Jobs that found the workers' queue full",
        "tandem_questions_refused" => "Questions of shards that found control overloaded",
        "tandem_lane_dropped" => "Messages to a shard that takes nothing",
        "tandem_notices" => "What shards reported for operators, before folding",
        "tandem_uptime_seconds" => "Since the node was started",
        "process_cpu_seconds" => "User and system CPU time",
        "process_resident_memory_bytes" => "Resident memory",
        "process_open_fds" => "Open descriptors",
        "process_threads" => "Threads",
        _ => "Summed over the shards",
    }
}

/// The text of one scrape, from what the shards last said.
pub(crate) fn write(node: &Node) -> Result<String, fmt::Error> {
    let mut snapshot = Snapshot::default();
    let now = Instant::now();
    node.reports.each(|shard, latest| {
        for (name, labels, value) in &latest.report.figures {
            let labels = labels.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
            snapshot.add(name, labels, *value);
        }
        let age = now.duration_since(latest.answered.unwrap_or(node.started)).as_secs_f64();
        let labels = vec![("shard", shard.0.to_string())];
        snapshot.set("tandem_shard_heartbeat_age_seconds", labels, age);
    });
    own(node, &mut snapshot, now);
    certificates(node, &mut snapshot);
    process(&mut snapshot);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn own(node: &Node, snapshot: &mut Snapshot, now: Instant) {
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    snapshot.add("tandem_build_info", version, 1);
    snapshot.add("tandem_config_version", Vec::new(), node.settings().version);
    let uptime = now.duration_since(node.started).as_secs_f64();
    snapshot.set("tandem_uptime_seconds", Vec::new(), uptime);
    let counters = &node.counters;
    let mut plain = |name: &str, counter: &Cell<u64>| {
        snapshot.add(name, Vec::new(), counter.get());
    };
    plain("tandem_questions_refused_total", &counters.questions_refused);
    plain("tandem_lane_dropped_total", &counters.backlog_dropped);
    plain("tandem_notices_total", &counters.notices);
    plain("tandem_certificate_reload_failures_total", &counters.certificates_failed);
    for (result, counter) in [("ok", &counters.reloads_done), ("refused", &counters.reloads_failed)]
    {
        let labels = vec![("result", result.to_owned())];
        snapshot.add("tandem_config_reloads_total", labels, counter.get());
    }
    for (pool, refused) in
        [("passwords", node.workers.passwords.refused()), ("chains", node.workers.chains.refused())]
    {
        snapshot.add("tandem_workers_refused_total", vec![("pool", pool.to_owned())], refused);
    }
}

/// When our certificates end, by the first name in each.
fn certificates(node: &Node, snapshot: &mut Snapshot) {
    for material in node.settings().tls.materials() {
        let name = material.names().dns().next().unwrap_or_default().to_owned();
        let (_, not_after) = material.validity();
        let labels = vec![("name", name)];
        snapshot.set(
            "tandem_certificate_not_after_timestamp_seconds",
            labels,
            // Exact for some millions of years.
            not_after as f64,
        );
    }
}

/// What Linux knows of this process. A figure that can't be read is left out.
fn process(snapshot: &mut Snapshot) {
    if let Ok(stat) = fs::read_to_string("/proc/self/stat") {
        // proc(5): the fields behind the name, which may hold anything, start with the third.
        let fields: Vec<&str> =
            stat.rsplit(')').next().map(|it| it.split_whitespace().collect()).unwrap_or_default();
        let field = |n: usize| fields.get(n - 3).and_then(|it| it.parse::<f64>().ok());
        if let (Some(user), Some(system)) = (field(14), field(15)) {
            snapshot.set("process_cpu_seconds_total", Vec::new(), (user + system) / TICKS);
        }
        if let Some(threads) = field(20) {
            snapshot.set("process_threads", Vec::new(), threads);
        }
        if let Some(pages) = field(24) {
            snapshot.set("process_resident_memory_bytes", Vec::new(), pages * PAGE_BYTES);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        snapshot.add("process_open_fds", Vec::new(), open.count() as u64);
    }
}
