//! A result as a person reads it on a terminal, 100 columns wide at most.

use std::fmt::Write as _;

use serde_json::Value;

use crate::plot::{Unit, shown};
use crate::report::{bounced, list, number, plain, text};

/// The whole of it; the verdict comes first.
pub fn of(result: &Value) -> String {
    let mut out = String::new();
    // Writing into a String does not fail.
    _ = writeln!(out, "{}  {}", text(&result["verdict"], "word"), text(result, "name"));
    for rule in list(&result["verdict"], "rules").iter().filter(|it| it["ok"] == false) {
        _ = writeln!(
            out,
            "  {}: {} (limit {})",
            text(rule, "rule"),
            plain(&rule["value"]),
            plain(&rule["limit"])
        );
    }
    for stage in list(result, "stages").iter().filter(|it| text(it, "type") != "pause") {
        let rate = |key: &str| format!("{}/s", shown(number(stage, key), Unit::Count));
        let asked = match number(stage, "asked_per_s") {
            0.0 => "closed loop".to_owned(),
            _ => format!("asked {}", rate("asked_per_s")),
        };
        _ = writeln!(
            out,
            "  {:<7} {:>4.0} s  {asked:<18} sent {:<12} delivered {}",
            text(stage, "type"),
            number(stage, "to_s") - number(stage, "from_s"),
            rate("achieved_per_s"),
            rate("delivered_per_s")
        );
    }
    latencies(result, &mut out);
    accounts(result, &mut out);
    steps(result, &mut out);
    let generator = &result["generator"];
    let per_message = |it: &Value| match it["cpu_per_message_ns"].as_f64() {
        Some(ns) => shown(ns, Unit::Nanoseconds),
        None => "–".to_owned(),
    };
    let busy = list(generator, "threads").iter().map(|it| number(it, "busy")).fold(0.0, f64::max);
    _ = writeln!(
        out,
        "\ngenerator    {} a message, late p99 {}, busiest thread {}",
        per_message(generator),
        shown(number(generator, "late_p99_ns"), Unit::Nanoseconds),
        shown(busy, Unit::Share)
    );
    if !result["server"].is_null() {
        let server = &result["server"];
        let rss = shown(number(server, "rss_bytes"), Unit::Octets);
        _ = writeln!(out, "server       {} a message, {rss} resident", per_message(server));
    }
    for it in list(result, "thresholds") {
        let word = match it["ok"].as_bool() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not judged",
        };
        _ = writeln!(
            out,
            "threshold    {} {}: {} {word}",
            text(it, "key"),
            plain(&it["want"]),
            plain(&it["got"])
        );
    }
    out
}

fn latencies(result: &Value, out: &mut String) {
    let heads = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];
    let keys = ["p50", "p90", "p99", "p999", "p9999", "max"];
    let flows = list(result, "flows");
    if flows.iter().any(|it| number(&it["latency_ns"], "count") > 0.0) {
        let cells = heads.map(|head| format!("{head:>10}")).concat();
        _ = writeln!(out, "\n{:<24}{cells}", "latency");
    }
    for flow in flows {
        let mut row = |name: String, times: &Value| {
            if number(times, "count") > 0.0 {
                let cells =
                    keys.map(|key| format!("{:>10}", shown(number(times, key), Unit::Nanoseconds)));
                _ = writeln!(out, "{name:<24}{}", cells.concat());
            }
        };
        row(format!("  {}", text(flow, "name")), &flow["latency_ns"]);
        row("    service time".to_owned(), &flow["service_ns"]);
    }
}

fn accounts(result: &Value, out: &mut String) {
    let heads = ["sent", "delivered", "came back", "lost", "doubled", "reordered", "corrupt"];
    _ = writeln!(out, "\n{:<24}{}", "account", heads.map(|it| format!("{it:>10}")).concat());
    for flow in list(result, "flows") {
        let cells = [
            number(flow, "sent"),
            number(flow, "delivered"),
            bounced(flow),
            number(flow, "lost"),
            number(flow, "duplicated"),
            number(flow, "reordered"),
            number(flow, "corrupt"),
        ];
        let name = format!("  {}", text(flow, "name"));
        _ = writeln!(out, "{name:<24}{}", cells.map(|it| format!("{it:>10.0}")).concat());
    }
}

fn steps(result: &Value, out: &mut String) {
    for step in list(result, "steps") {
        let failed = step["failed"].as_object();
        let reasons: Vec<String> = failed
            .into_iter()
            .flatten()
            .map(|(why, count)| format!("{} failed: {why}", plain(count)))
            .collect();
        let times = &step["ns"];
        let ns = |key: &str| shown(number(times, key), Unit::Nanoseconds);
        _ = writeln!(
            out,
            "{:<12} {:>8.0} done  p50 {:>8}  p99 {:>8}  max {:>8}  {}",
            text(step, "name"),
            number(step, "ok"),
            ns("p50"),
            ns("p99"),
            ns("max"),
            reasons.join(", ")
        );
    }
}
