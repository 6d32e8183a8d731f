//! Which charts a run has.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{list, number, text};
use crate::plot::{Band, Chart, Line, Scale, Unit};

/// The times of all messages: those of the flow with most of them.
pub(super) fn headline(run: &Value) -> Value {
    let count = |flow: &&Value| number(&flow["latency_ns"], "count") as u64;
    let most = list(run, "flows").iter().max_by_key(count);
    most.map_or_else(|| json!({}), |flow| flow["latency_ns"].clone())
}

fn line(name: &str, colour: usize, points: Vec<(f64, f64)>) -> Line {
    Line { name: name.to_owned(), colour, points, dashed: false, filled: false }
}

fn over_time(run: &Value, key: &str) -> Vec<(f64, f64)> {
    let rows = list(run, "series").iter();
    // What is waited for after the last stage is no part of a rate.
    let rows = rows.filter(|row| !row["stage"].is_null());
    rows.filter_map(|row| Some((number(row, "t_s"), row[key].as_f64()?))).collect()
}

fn bands(run: &Value) -> Vec<Band> {
    list(run, "stages")
        .iter()
        .map(|stage| Band {
            name: text(stage, "type").to_owned(),
            from: number(stage, "from_s"),
            to: number(stage, "to_s"),
            aside: matches!(text(stage, "type"), "warmup" | "pause"),
        })
        .collect()
}

/// Without points where nothing was measured: a percentile of nothing is none.
fn positive(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.into_iter().filter(|p| p.1 > 0.0).collect()
}

fn per_message(run: &Value, key: &str) -> Vec<(f64, f64)> {
    list(run, "series")
        .iter()
        .filter(|row| number(row, "delivered") > 0.0 && !row["stage"].is_null())
        .filter_map(|row| Some((number(row, "t_s"), row[key].as_f64()? / number(row, "delivered"))))
        .filter(|p| p.1 > 0.0)
        .collect()
}

/// All charts of one run.
pub(super) fn of_run(run: &Value) -> Vec<Chart> {
    let chart = |title: &str, note: &str, y, lines: Vec<Line>| Chart {
        title: title.to_owned(),
        note: note.to_owned(),
        x: (Scale::Linear, Unit::Seconds),
        y,
        lines: lines.into_iter().filter(|it| !it.points.is_empty()).collect(),
        bands: bands(run),
        bound: None,
    };
    let mut asked = line("asked", 6, over_time(run, "asked"));
    asked.dashed = true;
    let mut delivered = line("delivered", 0, over_time(run, "delivered"));
    delivered.filled = true;
    let sent = line("sent", 1, over_time(run, "sent"));
    let mut service = line("service time p99", 6, positive(over_time(run, "service_p99_ns")));
    service.dashed = true;
    let percentiles = vec![
        line("p50", 2, positive(over_time(run, "p50_ns"))),
        line("p90", 0, positive(over_time(run, "p90_ns"))),
        line("p99", 1, positive(over_time(run, "p99_ns"))),
        line("max", 3, positive(over_time(run, "max_ns"))),
        service,
    ];
    let cpu = vec![
        line("server", 0, per_message(run, "server_cpu_ns")),
        line("generator", 6, per_message(run, "generator_cpu_ns")),
    ];
    let mut charts = vec![
        chart(
            "Throughput",
            "Messages a second.",
            (Scale::Linear, Unit::Count),
            vec![asked, sent, delivered],
        ),
        chart(
            "Latency over time",
            "Of each second, from the intended send time; grey: the 99th percentile from the actual one.",
            (Scale::Log, Unit::Nanoseconds),
            percentiles,
        ),
    ];
    charts.extend(distribution(run));
    charts.push(chart(
        "CPU per message",
        "User and system time of all threads, over what was delivered in that second.",
        (Scale::Linear, Unit::Nanoseconds),
        cpu,
    ));
    charts.push(chart(
        "The generator's lateness",
        "99th percentile of actual minus intended send time. Above 1 ms a run is not valid.",
        (Scale::Log, Unit::Nanoseconds),
        vec![line("p99", 4, positive(over_time(run, "late_p99_ns")))],
    ));
    charts.push(chart(
        "In flight, and connections",
        "What was sent and has neither arrived nor come back.",
        (Scale::Linear, Unit::Count),
        vec![
            line("in flight", 0, over_time(run, "in_flight")),
            line("connections", 2, over_time(run, "connections")),
        ],
    ));
    charts.retain(|it| !it.lines.is_empty());
    charts
}

/// A histogram as points: quantile and value, finer towards the end.
fn curve(encoded: &str) -> Option<Vec<(f64, f64)>> {
    let histogram = decode(encoded)?;
    if histogram.is_empty() {
        return None;
    }
    let most = 1.0 - 1.0 / histogram.len() as f64;
    let quantiles = (0..=120).map(|i| 1.0 - 10_f64.powf(-f64::from(i) / 20.0));
    let points = quantiles.take_while(|q| *q <= most).chain(std::iter::once(most));
    Some(points.map(|q| (q, histogram.value_at_quantile(q) as f64)).collect())
}

fn decode(encoded: &str) -> Option<Histogram<u64>> {
    use base64::Engine as _;
    let octets = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    hdrhistogram::serialization::Deserializer::new().deserialize(&mut octets.as_slice()).ok()
}

fn distribution_chart(title: &str, lines: Vec<Line>) -> Option<Chart> {
    if lines.is_empty() {
        return None;
    }
    Some(Chart {
        title: title.to_owned(),
        note: "Read: so much of all messages took at most so long. Each step to the right is a nine more.".to_owned(),
        x: (Scale::Nines, Unit::Quantile),
        y: (Scale::Log, Unit::Nanoseconds),
        lines,
        bands: Vec::new(),
        bound: None,
    })
}

fn distribution(run: &Value) -> Option<Chart> {
    let mut lines = Vec::new();
    for (number, flow) in list(run, "flows").iter().enumerate().take(5) {
        let name = text(flow, "name");
        if let Some(points) = curve(text(flow, "histogram")) {
            lines.push(line(name, number, points));
        }
        if let Some(points) = curve(text(flow, "service_histogram")) {
            let name = format!("{name}, service time");
            lines.push(Line { dashed: true, ..line(&name, number, points) });
        }
    }
    distribution_chart("Distribution of latency", lines)
}

/// Several runs in one picture.
pub(super) fn overlay(runs: &[Value]) -> Vec<Chart> {
    let named: Vec<(String, &Value)> = runs
        .iter()
        .enumerate()
        .map(|(i, run)| {
            let label = text(run, "label");
            let name = if label.is_empty() { text(run, "name") } else { label };
            (format!("{} {name}", i + 1), run)
        })
        .collect();
    let of = |title: &str, note: &str, y, pick: &dyn Fn(&Value) -> Vec<(f64, f64)>| Chart {
        title: title.to_owned(),
        note: note.to_owned(),
        x: (Scale::Linear, Unit::Seconds),
        y,
        lines: named
            .iter()
            .enumerate()
            .map(|(i, (name, run))| line(name, i % 7, pick(run)))
            .filter(|it| !it.points.is_empty())
            .collect(),
        bands: Vec::new(),
        bound: None,
    };
    let curves = named.iter().enumerate().filter_map(|(i, (name, run))| {
        let most = list(run, "flows")
            .iter()
            .max_by_key(|flow| number(&flow["latency_ns"], "count") as u64)?;
        Some(line(name, i % 7, curve(text(most, "histogram"))?))
    });
    let mut charts: Vec<Chart> =
        distribution_chart("Distribution of latency", curves.collect()).into_iter().collect();
    let ns = (Scale::Log, Unit::Nanoseconds);
    charts.push(of("Latency p99 over time", "Of each second.", ns, &|run| {
        positive(over_time(run, "p99_ns"))
    }));
    charts.push(of("Throughput", "Delivered a second.", (Scale::Linear, Unit::Count), &|run| {
        over_time(run, "delivered")
    }));
    let linear = (Scale::Linear, Unit::Nanoseconds);
    charts.push(of(
        "Server CPU per message",
        "User and system time of all threads.",
        linear,
        &|run| per_message(run, "server_cpu_ns"),
    ));
    charts.retain(|it| !it.lines.is_empty());
    charts
}
