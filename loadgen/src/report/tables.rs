//! The tables of a run.

use std::fmt::Write as _;

use serde_json::Value;

use super::{bounced, charts, list, number, plain, text};
use crate::plot::{Unit, escaped, shown};

/// A table: its head, and rows of cells that are escaped here. A cell that begins with `!` is bad,
/// with `+` good.
pub(crate) fn table(out: &mut String, head: &[&str], rows: &[Vec<String>]) {
    out.push_str("<div class=\"table\"><table><tr>");
    for cell in head {
        _ = write!(out, "<th>{}</th>", escaped(cell));
    }
    out.push_str("</tr>");
    for row in rows {
        out.push_str("<tr>");
        for cell in row {
            let (class, cell) = match cell.as_bytes().first() {
                Some(b'!') => ("num bad", &cell[1..]),
                Some(b'+') => ("num good", &cell[1..]),
                _ => ("num", cell.as_str()),
            };
            _ = write!(out, "<td class=\"{class}\">{}</td>", escaped(cell));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div>");
}

fn ns(value: &Value, key: &str) -> String {
    if number(value, "count") > 0.0 || key == "value" {
        shown(number(value, key), Unit::Nanoseconds)
    } else {
        "–".to_owned()
    }
}

/// A count that should be zero.
fn naught(value: f64) -> String {
    if value > 0.0 { format!("!{value:.0}") } else { "0".to_owned() }
}

fn of_flow(name: &str, times: &Value) -> Vec<String> {
    let mut row = vec![name.to_owned()];
    row.extend(["p50", "p90", "p99", "p999", "p9999", "max"].map(|key| ns(times, key)));
    row.push(shown(number(times, "count"), Unit::Count));
    row
}

pub(super) fn of_run(run: &Value, out: &mut String) {
    thresholds(run, out);
    let mut rows = Vec::new();
    for flow in list(run, "flows") {
        rows.push(of_flow(text(flow, "name"), &flow["latency_ns"]));
        if number(&flow["service_ns"], "count") > 0.0 {
            rows.push(of_flow("  service time", &flow["service_ns"]));
        }
    }
    if !rows.is_empty() {
        out.push_str("<h2>Latency</h2>");
        table(out, &["flow", "p50", "p90", "p99", "p99.9", "p99.99", "max", "messages"], &rows);
    }
    account(run, out);
    steps(run, out);
    generator(run, out);
    let environment = run["environment"].as_object();
    let rows: Vec<Vec<String>> = environment
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| vec![key.replace('_', " "), plain(value)])
        .collect();
    if !rows.is_empty() {
        out.push_str("<h2>Where it ran</h2>");
        table(out, &["", ""], &rows);
    }
}

fn thresholds(run: &Value, out: &mut String) {
    let rows: Vec<Vec<String>> = list(run, "thresholds")
        .iter()
        .map(|it| {
            let word = match it["ok"].as_bool() {
                Some(true) => "+met",
                Some(false) => "!missed",
                None => "not judged",
            };
            vec![text(it, "key").to_owned(), plain(&it["want"]), plain(&it["got"]), word.to_owned()]
        })
        .collect();
    if !rows.is_empty() {
        out.push_str("<h2>Thresholds</h2>");
        table(out, &["of", "wanted", "got", ""], &rows);
    }
}

fn account(run: &Value, out: &mut String) {
    let row = |name: &str, it: &Value| {
        vec![
            name.to_owned(),
            shown(number(it, "sent"), Unit::Count),
            shown(number(it, "delivered"), Unit::Count),
            shown(bounced(it), Unit::Count),
            naught(number(it, "lost")),
            naught(number(it, "duplicated")),
            naught(number(it, "reordered")),
            naught(number(it, "corrupt")),
            format!("{:.0}", number(it, "superseded")),
            naught(number(it, "dropped")),
        ]
    };
    let mut rows: Vec<Vec<String>> =
        list(run, "flows").iter().map(|flow| row(text(flow, "name"), flow)).collect();
    if rows.len() != 1 {
        rows.push(row("all", &run["totals"]));
    }
    out.push_str("<h2>What became of every message</h2>");
    let head = [
        "flow",
        "sent",
        "delivered",
        "came back",
        "lost",
        "doubled",
        "reordered",
        "corrupt",
        "superseded",
        "not sent",
    ];
    table(out, &head, &rows);
    let reasons: Vec<Vec<String>> = run["totals"]["bounced"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(reason, count)| vec![reason.clone(), plain(count)])
        .collect();
    if !reasons.is_empty() {
        out.push_str("<h2>Came back</h2>");
        table(out, &["condition", "messages"], &reasons);
    }
}

fn steps(run: &Value, out: &mut String) {
    let mut rows = Vec::new();
    for step in list(run, "steps") {
        let failed = step["failed"].as_object();
        let all: f64 =
            failed.into_iter().flat_map(|it| it.values()).filter_map(Value::as_f64).sum();
        let reasons: Vec<String> =
            failed.into_iter().flatten().map(|(why, n)| format!("{} × {why}", plain(n))).collect();
        let times = &step["ns"];
        rows.push(vec![
            text(step, "name").replace('_', " "),
            format!("{:.0}", number(step, "ok")),
            naught(all),
            ns(times, "p50"),
            ns(times, "p99"),
            ns(times, "max"),
            reasons.join(", "),
        ]);
    }
    if !rows.is_empty() {
        out.push_str("<h2>Steps</h2>");
        table(out, &["step", "done", "failed", "p50", "p99", "max", "why"], &rows);
    }
}

fn generator(run: &Value, out: &mut String) {
    let rows: Vec<Vec<String>> = list(&run["generator"], "threads")
        .iter()
        .enumerate()
        .map(|(number_of, it)| {
            let time = |key| shown(number(it, key), Unit::Nanoseconds);
            vec![
                number_of.to_string(),
                shown(number(it, "busy"), Unit::Share),
                time("late_p50_ns"),
                time("late_p99_ns"),
                time("late_max_ns"),
                time("receive_lag_p99_ns"),
                time("run_queue_ns"),
            ]
        })
        .collect();
    if !rows.is_empty() {
        out.push_str("<h2>The generator itself</h2>");
        let head = [
            "thread",
            "busy",
            "late p50",
            "late p99",
            "late max",
            "receive lag p99",
            "waited for a core",
        ];
        table(out, &head, &rows);
    }
    let rules: Vec<Vec<String>> = list(&run["verdict"], "rules")
        .iter()
        .map(|it| {
            let word = if it["ok"] == true { "+holds" } else { "!fails" };
            vec![
                text(it, "rule").to_owned(),
                plain(&it["limit"]),
                plain(&it["value"]),
                word.to_owned(),
            ]
        })
        .collect();
    if !rules.is_empty() {
        out.push_str("<h2>Rules of the verdict</h2>");
        table(out, &["rule", "limit", "measured", ""], &rules);
    }
}

/// The headlines of several runs side by side.
pub(super) fn compared(runs: &[Value], out: &mut String) {
    let rows: Vec<Vec<String>> = runs
        .iter()
        .enumerate()
        .map(|(i, run)| {
            let times = charts::headline(run);
            let label = text(run, "label");
            let name = if label.is_empty() { text(run, "name") } else { label };
            let hold = list(run, "stages").iter().rfind(|s| text(s, "type") == "hold");
            let word = text(&run["verdict"], "word");
            vec![
                format!("{} {name}", i + 1),
                if word == "VALID" { format!("+{word}") } else { format!("!{word}") },
                hold.map_or_else(String::new, |s| shown(number(s, "achieved_per_s"), Unit::Count)),
                ns(&times, "p50"),
                ns(&times, "p99"),
                ns(&times, "p999"),
                ns(&times, "max"),
                naught(number(&run["totals"], "lost")),
                shown(number(&run["server"], "cpu_per_message_ns"), Unit::Nanoseconds),
            ]
        })
        .collect();
    out.push_str("<h2>Side by side</h2>");
    let head = [
        "run",
        "verdict",
        "per second",
        "p50",
        "p99",
        "p99.9",
        "max",
        "lost",
        "server CPU per message",
    ];
    table(out, &head, &rows);
}
