//! What a run was worth: its figures in a form that programs read, and the judgement on them.
//!
//! A [`Recorder`] sees every second as it comes, and makes a result of the whole: one JSON value of
//! schema 1, which everything else (the page, the tables, comparisons) is made from.
//! Does **not** measure: the engine does.

pub mod environment;
pub mod judge;
pub mod table;
pub mod write;

use std::collections::BTreeMap;

use base64::Engine as _;
use hdrhistogram::serialization::{Serializer as _, V2Serializer};
use serde_json::{Value, json};

use crate::engine::raw::{Raw, Tick};
use crate::ledger::{Counts, Ledger, StepAccount, Times, times};
use crate::proc::{Memory, Usage};
use crate::scenario::model::{Phase, Scenario, Stage};
use crate::view::Second;

/// The schema of results; a reader refuses others.
pub const SCHEMA: u64 = 1;

/// One second as it is kept.
struct Row {
    tick: Tick,
    /// CPU of the servers under test, if they run here.
    server_cpu_ns: Option<u64>,
}

/// Collects the seconds of a run.
pub struct Recorder<'a> {
    scenario: &'a Scenario,
    pids: Vec<u32>,
    /// Their CPU so far.
    server_cpu_ns: Option<u64>,
    rows: Vec<Row>,
    total: Option<Ledger>,
    latency: Times,
    length_s: f64,
}

impl<'a> Recorder<'a> {
    /// Before the run.
    pub fn new(scenario: &'a Scenario) -> Self {
        let pids: Vec<u32> = scenario.targets.iter().filter_map(|it| it.pid).collect();
        let length_ns: u64 = scenario.stages.iter().map(|it| it.for_ns).sum();
        Self {
            scenario,
            server_cpu_ns: cpu_of(&pids),
            pids,
            rows: Vec::new(),
            total: None,
            latency: times(),
            length_s: length_ns as f64 / 1e9,
        }
    }

    /// A second is over; what a view shows of it.
    pub fn tick(&mut self, tick: &Tick) -> Second {
        let now_ns = cpu_of(&self.pids);
        let server_cpu_ns =
            now_ns.zip(self.server_cpu_ns).map(|(now, before)| now.saturating_sub(before));
        self.server_cpu_ns = now_ns;
        match &mut self.total {
            Some(total) => total.add(&tick.part),
            None => self.total = Some(tick.part.clone()),
        }
        let all = all_times(&tick.part);
        self.latency = self.total.as_ref().map_or_else(times, all_times);
        let second = self.second(tick, &all, server_cpu_ns);
        self.rows.push(Row { tick: tick.clone(), server_cpu_ns });
        second
    }

    fn second(&self, tick: &Tick, all: &Times, server_cpu_ns: Option<u64>) -> Second {
        let span_s = (tick.to_ns - tick.from_ns).max(1) as f64 / 1e9;
        let now = sum(&tick.part);
        let so_far = self.total.as_ref().map(sum).unwrap_or_default();
        let four = |it: &Times| [0.5, 0.9, 0.99].map(|q| it.value_at_quantile(q));
        let quantiles = |it: &Times| {
            let [p50, p90, p99] = four(it);
            [p50, p90, p99, it.max()]
        };
        let stage = tick.stage.and_then(|at| Some((at, self.scenario.stages.get(at)?)));
        let failed = self.total.iter().flat_map(|it| it.steps.values());
        Second {
            at_s: tick.to_ns as f64 / 1e9,
            of_s: self.length_s,
            stage: stage.map_or_else(
                || "drain".to_owned(),
                |(at, it)| format!("{} {}/{}", word(it.phase), at + 1, self.scenario.stages.len()),
            ),
            asked: tick.asked / span_s,
            sent: now.sent as f64 / span_s,
            delivered: now.delivered as f64 / span_s,
            latency_ns: quantiles(all),
            all_latency_ns: quantiles(&self.latency),
            in_flight: tick.in_flight,
            connections: tick.connections,
            bounced: so_far.bounced.values().sum(),
            duplicated: so_far.duplicated,
            reordered: so_far.reordered,
            corrupt: so_far.corrupt,
            dropped: so_far.dropped,
            failed: failed.flat_map(|it| it.failed.values()).sum(),
            late_p99_ns: tick.threads.iter().map(|t| t.late_ns[1]).max().unwrap_or(0),
            busy: tick.threads.iter().map(|t| t.busy).fold(0.0, f64::max),
            server_cpu_per_message_ns: server_cpu_ns
                .filter(|_| now.delivered > 0)
                .map(|cpu| cpu as f64 / now.delivered as f64),
        }
    }

    /// The run is over: its result, with the verdict and the exit code in it.
    pub fn finish(self, raw: &Raw, text: &str, command: &[String]) -> Value {
        let total = sum(&raw.total);
        let flows: Vec<Value> = self
            .scenario
            .flows
            .iter()
            .zip(&raw.total.flows)
            .map(|(flow, account)| {
                let mut value = counts_json(&account.counts);
                value["name"] = flow.name.as_str().into();
                value["kind"] = format!("{:?}", flow.kind).to_lowercase().into();
                value["latency_ns"] = times_json(&account.latency);
                value["service_ns"] = times_json(&account.service);
                value["histogram"] = encoded(&account.latency).into();
                value["service_histogram"] = encoded(&account.service).into();
                value
            })
            .collect();
        let mut result = json!({
            "schema": SCHEMA,
            "name": self.scenario.name,
            "about": self.scenario.about,
            "scenario_text": text,
            "command": command,
            "seed": self.scenario.seed,
            "closed": self.scenario.run.closed,
            "started_unix_ms": raw.started_unix_ms,
            "seconds": raw.ended_ns as f64 / 1e9,
            "interrupted": raw.interrupted,
            "aborted": raw.aborted,
            "environment": environment::here(self.scenario, raw.interface),
            "stages": self.stages(raw),
            "totals": counts_json(&total),
            "stale": raw.total.stale,
            "flows": flows,
            "steps": raw.total.steps.iter().map(|(name, it)| step_json(name, it)).collect::<Vec<_>>(),
            "series": self.rows.iter().map(row_json).collect::<Vec<_>>(),
            "generator": self.generator(raw),
            "server": self.server(),
            "clock_step_ns": raw.clock_step_ns,
            "steal": self.held().map(|it| it.tick.steal).fold(0.0, f64::max),
        });
        judge::judge(&mut result, &self.scenario.thresholds);
        result
    }

    /// Seconds of the stages that make headline figures.
    fn held(&self) -> impl Iterator<Item = &Row> {
        let is_held = |stage: &Stage| matches!(stage.phase, Phase::Hold | Phase::Step);
        let stages = &self.scenario.stages;
        self.rows
            .iter()
            .filter(move |it| it.tick.stage.and_then(|at| stages.get(at)).is_some_and(is_held))
    }

    fn stages(&self, raw: &Raw) -> Vec<Value> {
        let of = |at: usize| self.rows.iter().filter(move |it| it.tick.stage == Some(at));
        self.scenario
            .stages
            .iter()
            .zip(&raw.pieces)
            .enumerate()
            .map(|(at, (stage, piece))| {
                let to_ns = piece.to_ns.min(raw.ended_ns.max(piece.from_ns));
                let span_s = ((to_ns - piece.from_ns) as f64 / 1e9).max(1e-9);
                let asked: f64 = of(at).map(|it| it.tick.asked).sum();
                let sent: u64 = of(at).map(|it| sum(&it.tick.part).sent).sum();
                let delivered: u64 = of(at).map(|it| sum(&it.tick.part).delivered).sum();
                json!({
                    "type": word(stage.phase),
                    "from_s": piece.from_ns as f64 / 1e9,
                    "to_s": to_ns as f64 / 1e9,
                    "asked_per_s": asked / span_s,
                    "achieved_per_s": sent as f64 / span_s,
                    "delivered_per_s": delivered as f64 / span_s,
                    "due": of(at).map(|it| sum(&it.tick.part).due).sum::<u64>(),
                    "delivered": delivered,
                })
            })
            .collect()
    }

    fn generator(&self, raw: &Raw) -> Value {
        let threads: Vec<Value> = raw
            .threads
            .iter()
            .map(|it| {
                json!({
                    "busy": it.busy, "late_p50_ns": it.late_ns[0], "late_p99_ns": it.late_ns[1],
                    "late_max_ns": it.late_ns[2], "receive_lag_p99_ns": it.receive_lag_p99_ns,
                    "run_queue_ns": it.run_queue_ns, "cpu_ns": it.cpu_ns,
                })
            })
            .collect();
        let delivered: u64 = self.rows.iter().map(|it| sum(&it.tick.part).delivered).sum();
        let cpu: u64 = raw.threads.iter().map(|it| it.cpu_ns).sum();
        json!({
            "threads": threads,
            "interface": raw.interface,
            "cpu_per_message_ns": per(cpu, delivered),
            "dropped": sum(&raw.total).dropped,
            "late_p99_ns": raw.total.lateness.value_at_quantile(0.99),
        })
    }

    fn server(&self) -> Value {
        if self.pids.is_empty() || self.server_cpu_ns.is_none() {
            return Value::Null;
        }
        let cpu: u64 = self.held().filter_map(|it| it.server_cpu_ns).sum();
        let delivered: u64 = self.held().map(|it| sum(&it.tick.part).delivered).sum();
        let rss: u64 =
            self.pids.iter().filter_map(|it| Memory::of(*it).ok()).map(|it| it.rss).sum();
        json!({ "pid": self.pids, "cpu_per_message_ns": per(cpu, delivered), "rss_bytes": rss })
    }
}

fn per(ns: u64, count: u64) -> Value {
    if count == 0 { Value::Null } else { (ns as f64 / count as f64).into() }
}

/// CPU of processes and their children; `None` if none can be read.
fn cpu_of(pids: &[u32]) -> Option<u64> {
    let readable: Vec<u64> =
        pids.iter().filter_map(|it| Usage::of(*it).ok()).map(|it| it.cpu_ns()).collect();
    (!readable.is_empty()).then(|| readable.iter().sum())
}

/// The word of a stage's kind.
pub fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Warmup => "warmup",
        Phase::Ramp => "ramp",
        Phase::Hold => "hold",
        Phase::Step => "step",
        Phase::Spike => "spike",
        Phase::Pause => "pause",
    }
}

/// All flows' counts together.
fn sum(ledger: &Ledger) -> Counts {
    let mut all = Counts::default();
    ledger.flows.iter().for_each(|it| all.add(&it.counts));
    all
}

/// All latencies of a ledger together, those of a warm-up included.
fn all_times(ledger: &Ledger) -> Times {
    let mut all = times();
    for flow in &ledger.flows {
        for part in [&flow.latency, &flow.aside] {
            // Both grow as they must.
            if !part.is_empty() {
                let added = all.add(part);
                debug_assert!(added.is_ok());
            }
        }
    }
    all
}

fn counts_json(counts: &Counts) -> Value {
    let bounced: BTreeMap<&str, u64> =
        counts.bounced.iter().map(|(condition, count)| (condition.as_str(), *count)).collect();
    json!({
        "sent": counts.sent, "due": counts.due, "delivered": counts.delivered, "bounced": bounced,
        "lost": counts.open(), "duplicated": counts.duplicated, "reordered": counts.reordered,
        "reordered_max": counts.reordered_max, "corrupt": counts.corrupt,
        "superseded": counts.superseded, "dropped": counts.dropped,
    })
}

fn times_json(times: &Times) -> Value {
    let at = |q: f64| times.value_at_quantile(q);
    json!({
        "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "p9999": at(0.9999),
        "max": times.max(), "mean": times.mean().round(), "count": times.len(),
    })
}

fn step_json(name: &str, step: &StepAccount) -> Value {
    json!({ "name": name, "ok": step.ok, "failed": step.failed, "ns": times_json(&step.times) })
}

fn row_json(row: &Row) -> Value {
    let Row { tick, server_cpu_ns } = row;
    let (counts, all) = (sum(&tick.part), all_times(&tick.part));
    let mut service = times();
    for flow in &tick.part.flows {
        let added = service.add(&flow.service);
        debug_assert!(added.is_ok());
    }
    let at = |q: f64| all.value_at_quantile(q);
    let cpu: u64 = tick.threads.iter().map(|it| it.cpu_ns).sum();
    json!({
        "t_s": tick.from_ns as f64 / 1e9, "to_s": tick.to_ns as f64 / 1e9, "stage": tick.stage,
        "asked": tick.asked, "sent": counts.sent, "delivered": counts.delivered,
        "bounced": counts.bounced.values().sum::<u64>(), "due": counts.due,
        "p50_ns": at(0.5), "p90_ns": at(0.9), "p99_ns": at(0.99), "max_ns": all.max(),
        "service_p99_ns": service.value_at_quantile(0.99),
        "late_p99_ns": tick.part.lateness.value_at_quantile(0.99),
        "in_flight": tick.in_flight, "connections": tick.connections,
        "server_cpu_ns": server_cpu_ns, "generator_cpu_ns": cpu,
        "generator_busy": tick.threads.iter().map(|it| it.busy).fold(0.0, f64::max),
        "steal": tick.steal,
    })
}

/// A histogram as HdrHistogram writes it (V2), in base64.
fn encoded(times: &Times) -> String {
    let mut octets = Vec::new();
    match V2Serializer::new().serialize(times, &mut octets) {
        Ok(_) => base64::engine::general_purpose::STANDARD.encode(octets),
        // More than a vector holds: there is no such histogram.
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests;
