//! `compare`: results beside the first of them, and whether one is worse.
//!
//! Refuses runs of different hosts unless told, and judges nothing by a run that was limited by its
//! generator.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;
use tandem_loadgen::plot::{self, Unit};
use tandem_loadgen::report;
use tandem_loadgen::result::{environment, judge, write};

use super::run::say;

#[derive(Args)]
pub(crate) struct Compare {
    /// Folders or run.json of runs; the first is what the others are held against.
    #[arg(required = true, num_args = 2..)]
    runs: Vec<PathBuf>,
    /// A page with the runs laid over one another.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Exit code 99 if latency p99 or the server's CPU a message is so much worse than the first
    /// run's (`5%`), or if more was lost.
    #[arg(long, value_name = "PER CENT", value_parser = per_cent)]
    max_regression: Option<f64>,
    /// Compare although the runs took place in different environments.
    #[arg(long)]
    different_hosts: bool,
}

/// The figures that are compared: name, value, whether less is better.
fn figures(run: &Value) -> Vec<(&'static str, f64)> {
    let flows = run["flows"].as_array().into_iter().flatten();
    let most = flows.max_by_key(|it| it["latency_ns"]["count"].as_u64());
    let latency = |key: &str| most.and_then(|it| it["latency_ns"][key].as_f64());
    [
        ("latency p50", latency("p50")),
        ("latency p99", latency("p99")),
        ("latency p99.9", latency("p999")),
        ("server CPU a message", run["server"]["cpu_per_message_ns"].as_f64()),
        ("generator CPU a message", run["generator"]["cpu_per_message_ns"].as_f64()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// What was lost, over all flows.
fn lost(run: &Value) -> u64 {
    run["totals"]["lost"].as_u64().unwrap_or_default()
}

/// A run whose figures say nothing about the server.
fn is_limited(run: &Value) -> bool {
    run["verdict"]["word"].as_str() == Some("GENERATOR-LIMITED")
}

/// `5%` or `5`.
fn per_cent(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim_end();
    let value = number.parse::<f64>().ok().filter(|it| it.is_finite() && *it >= 0.0);
    value.ok_or_else(|| "per cent, as in 5%".to_owned())
}

/// The others beside the first, in words, and what that is as an exit code.
fn held(runs: &[Value], most: Option<f64>) -> (String, u8) {
    let Some((first, others)) = runs.split_first() else { return (String::new(), judge::GOOD) };
    let (mut text, mut worse) = (String::new(), false);
    let before = figures(first);
    for other in others {
        let (one, two) = (&first["label"], &other["label"]);
        // Writing into a String does not fail.
        _ = writeln!(text, "{} against {}", report::plain(two), report::plain(one));
        for (name, after) in figures(other) {
            let Some((_, before)) = before.iter().find(|it| it.0 == name) else { continue };
            let change = (after / before.max(1e-9) - 1.0) * 100.0;
            let ns = |it: f64| plot::shown(it, Unit::Nanoseconds);
            let (before, after) = (ns(*before), ns(after));
            _ = writeln!(text, "  {name:<26}{before:>10} -> {after:>10}  {change:+.1} %");
            let judged = matches!(name, "latency p99" | "server CPU a message");
            worse |= judged && most.is_some_and(|most| change > most);
        }
        let (before, after) = (lost(first), lost(other));
        if before + after > 0 {
            _ = writeln!(text, "  {:<26}{before:>10} -> {after:>10}", "lost");
        }
        worse |= most.is_some() && after > before;
    }
    let limited: Vec<_> = runs.iter().filter(|it| is_limited(it)).collect();
    for run in &limited {
        let name = report::plain(&run["label"]);
        _ = writeln!(text, "{name} was limited by its generator: nothing is judged by it");
    }
    let code = match (limited.is_empty(), worse) {
        (false, _) => judge::LIMITED,
        (true, true) => judge::MISSED,
        (true, false) => judge::GOOD,
    };
    (text, code)
}

impl Compare {
    pub(crate) fn run(&self) -> Result<ExitCode, String> {
        let runs: Vec<Value> =
            self.runs.iter().map(|it| write::read(it)).collect::<Result<_, _>>()?;
        let Some((first, others)) = runs.split_first() else { return Ok(ExitCode::from(2)) };
        let mut text = String::new();
        for other in others {
            let differences = environment::differences(first, other);
            for (key, one, two) in &differences {
                // Writing into a String does not fail.
                _ = writeln!(text, "differs: {} was {one}, is {two}", key.replace('_', " "));
            }
            if !differences.is_empty() && !self.different_hosts {
                say(&text)?;
                return Err(
                    "these runs took place in different environments; --different-hosts compares them all the same"
                        .to_owned(),
                );
            }
        }
        let (told, code) = held(&runs, self.max_regression);
        say(&(text + &told))?;
        if let Some(out) = &self.out {
            std::fs::write(out, report::page(&runs))
                .map_err(|e| format!("{}: {e}", out.display()))?;
            say(&format!("wrote {}\n", out.display()))?;
        }
        Ok(ExitCode::from(code))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(p99: u64, lost: u64, word: &str) -> Value {
        json!({
            "label": "a", "verdict": { "word": word }, "totals": { "lost": lost },
            "flows": [{ "latency_ns": { "count": 9, "p50": 1_000, "p99": p99 } }],
        })
    }

    #[test]
    fn a_regression_is_told_and_nothing_by_a_limited_run() {
        let valid = |p99, lost| run(p99, lost, "VALID");
        for (two, most, code) in [
            (valid(1_040, 0), Some(5.0), judge::GOOD),
            (valid(1_060, 0), Some(5.0), judge::MISSED),
            (valid(1_060, 0), None, judge::GOOD),
            (valid(900, 1), Some(5.0), judge::MISSED),
            (run(900, 0, "GENERATOR-LIMITED"), Some(5.0), judge::LIMITED),
            (run(9_000, 0, "SERVER-LIMITED"), Some(5.0), judge::MISSED),
        ] {
            let (text, got) = held(&[valid(1_000, 0), two], most);
            assert_eq!(got, code, "{text}");
        }
    }

    #[test]
    fn per_cent_takes_its_sign_or_none() {
        assert_eq!((per_cent("5%"), per_cent(" 2.5 ")), (Ok(5.0), Ok(2.5)));
        assert!(["", "%", "-1", "NaN", "five"].iter().all(|it| per_cent(it).is_err()));
    }
}
