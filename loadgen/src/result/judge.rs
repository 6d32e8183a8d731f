//! The verdict on a run, its thresholds, and the exit code that follows.
//!
//! First the generator judges itself: a run in which it was late, busy or short of anything says
//! nothing about the server, and then no threshold is judged.

use serde_json::{Value, json};

use crate::plot::{Unit, shown};
use crate::scenario::model::Threshold;
use crate::scenario::units;

/// Everything held.
pub const GOOD: u8 = 0;
/// A threshold failed.
pub const MISSED: u8 = 99;
/// The generator was the bottleneck: no verdict on the server.
pub const LIMITED: u8 = 98;
/// The set-up failed: nothing was measured.
pub const SETUP: u8 = 97;
/// The scenario is wrong.
pub const SCENARIO: u8 = 78;

/// The larger of two problems: 78, 97, 98, 99, then none.
pub fn larger_problem(a: u8, b: u8) -> u8 {
    let order = [SCENARIO, SETUP, LIMITED, MISSED];
    let rank = |code: u8| order.iter().position(|it| *it == code).unwrap_or(order.len());
    if rank(a) <= rank(b) { a } else { b }
}

/// Lateness and receive lag above which a run is not valid, in nanoseconds.
const LATE_NS: f64 = 1e6;
/// A wall clock that moves further than this against the monotonic one was set.
const CLOCK_NS: f64 = 50e6;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn held(result: &Value) -> impl Iterator<Item = &Value> {
    let stages = result["stages"].as_array().into_iter().flatten();
    stages.filter(|it| matches!(it["type"].as_str(), Some("hold" | "step")))
}

/// Part of the asked rate that was sent, in the worst stage that counts.
fn achieved(result: &Value) -> f64 {
    let part = |it: &Value| number(&it["achieved_per_s"]) / number(&it["asked_per_s"]);
    let parts = held(result).filter(|it| number(&it["asked_per_s"]) > 0.0).map(part);
    parts.fold(1.0, f64::min)
}

fn most(result: &Value, key: &str) -> f64 {
    let threads = result["generator"]["threads"].as_array().into_iter().flatten();
    threads.map(|it| number(&it[key])).fold(0.0, f64::max)
}

fn latency_p99(result: &Value) -> f64 {
    let flows = result["flows"].as_array().into_iter().flatten();
    let counted = flows.filter(|it| number(&it["latency_ns"]["count"]) > 0.0);
    counted.map(|it| number(&it["latency_ns"]["p99"])).fold(f64::INFINITY, f64::min)
}

/// The rules of validity: what, limit, measured, whether it holds.
fn rules(result: &Value) -> Vec<(&'static str, String, String, bool)> {
    let share = |v: f64| shown(v, Unit::Share);
    let ns = |v: f64| shown(v, Unit::Nanoseconds);
    let (busy, lag) = (most(result, "busy"), most(result, "receive_lag_p99_ns"));
    let mut rules = Vec::new();
    if result["closed"].is_null() {
        let (achieved, late) = (achieved(result), number(&result["generator"]["late_p99_ns"]));
        let dropped = number(&result["totals"]["dropped"]);
        rules.push((
            "rate sent in each hold",
            "99 %".to_owned(),
            share(achieved),
            achieved >= 0.99,
        ));
        rules.push(("lateness p99", ns(LATE_NS), ns(late), late <= LATE_NS));
        let p99 = latency_p99(result);
        if p99.is_finite() {
            let part = late / p99.max(1.0);
            rules.push((
                "lateness p99, of the latency's",
                "10 %".to_owned(),
                share(part),
                part <= 0.1,
            ));
        }
        rules.push((
            "not sent for want of room",
            "0".to_owned(),
            format!("{dropped:.0}"),
            dropped == 0.0,
        ));
    }
    rules.push(("receive lag p99", ns(LATE_NS), ns(lag), lag <= LATE_NS));
    rules.push((
        "busiest thread",
        "85 %".to_owned(),
        share(busy),
        busy <= 0.85 || !result["closed"].is_null(),
    ));
    let step = number(&result["clock_step_ns"]);
    rules.push(("clock set meanwhile", ns(CLOCK_NS), ns(step), step <= CLOCK_NS));
    let steal = number(&result["steal"]);
    rules.push(("time stolen by the host", "1 %".to_owned(), share(steal), steal <= 0.01));
    // Descriptors, ports and memory of this host are no fault of the server.
    let own = ["open files", "not available", "annot allocate", "uffer space"];
    let steps = result["steps"].as_array().into_iter().flatten();
    let failed = steps.filter_map(|it| it["failed"].as_object()).flatten();
    let hit: f64 = failed
        .filter(|(why, _)| own.iter().any(|it| why.contains(it)))
        .map(|it| number(it.1))
        .sum();
    rules.push(("limits of this host hit", "0".to_owned(), format!("{hit:.0}"), hit == 0.0));
    let cut = result["aborted"] == true;
    rules.push((
        "ran to its end",
        "yes".to_owned(),
        if cut { "no, it was late" } else { "yes" }.to_owned(),
        !cut,
    ));
    rules
}

/// The generator kept its schedule; did the server?
fn server_kept_up(result: &Value) -> bool {
    let (mut due, mut delivered) = (0.0, 0.0);
    for stage in held(result) {
        due += number(&stage["due"]);
        delivered += number(&stage["delivered"]);
    }
    due == 0.0 || delivered >= due * 0.99
}

/// What a threshold looks at, in nanoseconds, counts or a fraction; `None`: it is not there.
pub fn figure(result: &Value, key: &str) -> Option<f64> {
    let flows = result["flows"].as_array().map_or(&[][..], Vec::as_slice);
    let (name, own) = key.split_once('.').map_or((None, key), |(name, own)| (Some(name), own));
    let chosen: Vec<&Value> =
        flows.iter().filter(|it| name.is_none_or(|name| it["name"] == name)).collect();
    if name.is_some() && chosen.is_empty() {
        return None;
    }
    if let Some((what, quantile)) = own.split_once('_')
        && matches!(what, "latency" | "service")
    {
        let measured = chosen.iter().map(|it| &it[format!("{what}_ns")][quantile]);
        // Of several flows the worst.
        return measured.filter_map(Value::as_f64).reduce(f64::max);
    }
    let count = |key: &str| chosen.iter().map(|it| number(&it[key])).sum::<f64>();
    match own {
        "achieved" => Some(achieved(result)),
        "server_cpu_per_message" => result["server"]["cpu_per_message_ns"].as_f64(),
        "lost" | "delivered" | "sent" | "reordered" | "corrupt" | "dropped" => Some(count(own)),
        "duplicates" | "duplicated" => Some(count("duplicated")),
        "bounced" => Some(chosen.iter().map(|it| crate::report::bounced(it)).sum()),
        "failed" => {
            let steps = result["steps"].as_array().into_iter().flatten();
            let failed = steps.filter_map(|it| it["failed"].as_object());
            Some(failed.flat_map(|it| it.values()).map(number).sum())
        }
        "superseded" => Some(count(own)),
        "generator_cpu_per_message" => result["generator"]["cpu_per_message_ns"].as_f64(),
        "lateness_p99" => result["generator"]["late_p99_ns"].as_f64(),
        "server_rss" => result["server"]["rss_bytes"].as_f64(),
        // What is left is a step's: login_p99.
        _ => {
            let (step, quantile) = own.rsplit_once('_')?;
            let steps = result["steps"].as_array()?;
            let times = &steps.iter().find(|it| it["name"] == step)?["ns"];
            times[quantile].as_f64().filter(|_| number(&times["count"]) > 0.0)
        }
    }
}

/// A figure with its unit.
pub fn written(key: &str, got: f64) -> String {
    let own = key.rsplit('.').next().unwrap_or(key);
    if own == "achieved" {
        shown(got, Unit::Share)
    } else if own == "server_rss" {
        shown(got, Unit::Octets)
    } else if own.starts_with("latency")
        || own.starts_with("service")
        || own.ends_with("per_message")
        || own.rsplit_once('_').is_some_and(|it| it.1.starts_with('p') || it.1 == "max")
    {
        shown(got, Unit::Nanoseconds)
    } else {
        format!("{got:.0}")
    }
}

/// Adds the verdict, the thresholds' outcomes and the exit code to a result.
pub fn judge(result: &mut Value, thresholds: &[Threshold]) {
    let rules = rules(result);
    let sound = rules.iter().all(|it| it.3);
    let word = match (sound, server_kept_up(result)) {
        (false, _) => "GENERATOR-LIMITED",
        (true, false) => "SERVER-LIMITED",
        (true, true) => "VALID",
    };
    let mut missed = false;
    let outcomes: Vec<Value> = thresholds
        .iter()
        .map(|it| {
            let got = figure(result, &it.key);
            // What is not there can't hold.
            let ok = got.is_some_and(|got| units::holds(it.than, got, it.value));
            missed |= !ok;
            json!({
                "key": it.key, "want": it.text,
                "got": got.map_or_else(|| "not measured".to_owned(), |got| written(&it.key, got)),
                "ok": sound.then_some(ok),
            })
        })
        .collect();
    let rows: Vec<Value> = rules
        .into_iter()
        .map(|(rule, limit, value, ok)| json!({ "rule": rule, "limit": limit, "value": value, "ok": ok }))
        .collect();
    result["verdict"] = json!({ "word": word, "rules": rows });
    result["thresholds"] = outcomes.into();
    result["exit"] = match (sound, missed) {
        (false, _) => LIMITED,
        (true, true) => MISSED,
        (true, false) => GOOD,
    }
    .into();
}
