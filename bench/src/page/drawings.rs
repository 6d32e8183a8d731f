//! The drawings of the page: bars against bounds, cost of each server, growth.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use tandem_loadgen::plot::{Chart, Line, Scale, Unit, escaped, shown};

use super::{Row, list, text};

/// The colour of a subject, the same in every drawing.
fn colour(subject: &str) -> usize {
    match subject {
        it if it.starts_with("tandem-ring") => 0,
        it if it.starts_with("tandem-epoll") => 5,
        it if it.starts_with("bare") || it == "scripted" => 6,
        "ejabberd" | "kamailio-memory" => 4,
        _ => 1,
    }
}

/// All bars, each with its range, on one scale where 1 is its bound.
pub(super) fn bounds(rows: &[Row<'_>]) -> String {
    const WIDTH: f64 = 1_140.0;
    const LEFT: f64 = 330.0;
    const RIGHT: f64 = 320.0;
    const TOP: f64 = 26.0;
    const STEP: f64 = 25.0;
    let (low, high) = (0.05_f64, 8.0_f64);
    let at = |share: f64| {
        let place = (share.clamp(low, high) / low).ln() / (high / low).ln();
        LEFT + place * (WIDTH - LEFT - RIGHT)
    };
    let height = TOP + STEP * rows.len() as f64 + 10.0;
    let mut out = format!(
        "<figure class=\"chart\"><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"figure over bound\">"
    );
    for (number, _) in rows.iter().enumerate().filter(|(number, _)| number % 2 == 1) {
        let y = TOP + STEP * number as f64;
        // Writing into a String does not fail.
        _ = write!(
            out,
            "<rect class=\"stripe\" x=\"0\" y=\"{y:.1}\" width=\"{WIDTH}\" height=\"{STEP}\"/>"
        );
    }
    for tick in [0.1, 0.25, 0.5, 1.0, 2.0, 4.0] {
        let (x, base) = (at(tick), height - 8.0);
        let (class, name) = match tick == 1.0 {
            true => ("bound", "bound".to_owned()),
            false => ("grid", format!("{tick} x")),
        };
        let label = if tick == 1.0 { "boundname" } else { "tick" };
        _ = write!(
            out,
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{base:.1}\"/>\
             <text class=\"{label}\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
            TOP - 8.0
        );
    }
    for (number, row) in rows.iter().enumerate() {
        let y = TOP + STEP * (number as f64 + 0.5);
        let [median, min, max] = row.figure.map(|it| at(it / row.limit));
        let class = row.class();
        _ = write!(
            out,
            "<g class=\"row\"><text x=\"6\" y=\"{text:.1}\" font-weight=\"600\">{bar}</text>\
             <text class=\"soft\" x=\"92\" y=\"{text:.1}\">{who}</text>\
             <line class=\"range {class}\" x1=\"{min:.1}\" x2=\"{max:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <circle class=\"{class}\" cx=\"{median:.1}\" cy=\"{y:.1}\" r=\"5\"/>\
             <text x=\"{figure:.1}\" y=\"{text:.1}\">{shown}</text>\
             <text class=\"verdict {class}\" x=\"{end:.1}\" y=\"{text:.1}\" text-anchor=\"end\">{verdict}</text></g>",
            text = y + 4.5,
            bar = escaped(row.bar),
            who = escaped(&row.who),
            figure = WIDTH - RIGHT + 16.0,
            shown = row.shown(),
            end = WIDTH - 8.0,
            verdict = escaped(row.verdict),
        );
    }
    out + "</svg><figcaption>Figure over bound, the scale by powers: a dot is the median, its line goes \
           from the smallest to the largest round. Left of the bound is good.</figcaption></figure>"
}

/// One drawing for each bar that compares servers.
pub(super) fn costs(run: &Value) -> String {
    let mut out = String::new();
    for bar in list(run, "bars") {
        let Some(subjects) = bar["raw"].as_object() else { continue };
        let mut costs: Vec<(&str, [f64; 3])> = Vec::new();
        for (subject, rows) in subjects {
            let rows = rows.as_array().map_or(&[][..], Vec::as_slice);
            let cost = |row: &Value| row.pointer("/server/cpu_ns_per_message")?.as_f64();
            let mut values: Vec<f64> = rows.iter().filter_map(cost).collect();
            values.sort_by(f64::total_cmp);
            if let [min, .., max] | [min @ max] = values.as_slice() {
                let median = values.get((values.len() - 1) / 2).copied().unwrap_or(*min);
                costs.push((subject, [median, *min, *max]));
            }
        }
        costs.sort_by(|a, b| a.1[0].total_cmp(&b.1[0]));
        // V13 is about time that passes.
        if costs.len() > 1 && !text(bar, "bar").starts_with("V13") {
            out.push_str(&cost(text(bar, "bar"), &costs));
        }
    }
    out
}

fn cost(bar: &str, costs: &[(&str, [f64; 3])]) -> String {
    const WIDTH: f64 = 420.0;
    const RIGHT: f64 = 74.0;
    const STEP: f64 = 26.0;
    let longest = costs.iter().map(|it| it.0.chars().count()).max().unwrap_or(0);
    let left = 16.0 + 6.8 * longest as f64;
    let most = costs.iter().map(|it| it.1[2]).fold(1.0, f64::max);
    let wide = |value: f64| value / most * (WIDTH - left - RIGHT);
    let height = STEP * costs.len() as f64 + 6.0;
    let mut out = format!(
        "<figure class=\"chart\"><h3>{}</h3><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"{} per message\">",
        escaped(bar),
        escaped(bar)
    );
    for (number, (subject, [median, min, max])) in costs.iter().enumerate() {
        let y = STEP * number as f64 + 5.0;
        let (min, end) = (left + wide(*min), left + wide(*max));
        _ = write!(
            out,
            "<g class=\"row\"><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"bar c{}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\"/>\
             <line class=\"axis\" x1=\"{min:.1}\" x2=\"{end:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
            left - 8.0,
            y + 13.0,
            escaped(subject),
            colour(subject),
            wide(*median).max(1.0),
            STEP - 8.0,
            end.max(left + wide(*median)) + 7.0,
            y + 13.0,
            shown(*median, Unit::Nanoseconds),
            middle = y + (STEP - 8.0) / 2.0,
        );
    }
    out + "</svg></figure>"
}

/// Curves of CPU and memory.
pub(super) fn growth(run: &Value) -> String {
    let mut curves: BTreeMap<(usize, &str), Vec<Line>> = BTreeMap::new();
    let order = ["connections", "watchers", "domains", "domains-in", "domains-out"];
    let points = list(run, "bars").iter().filter(|bar| text(bar, "bar") == "GROW");
    for point in points.flat_map(|bar| list(bar, "raw")) {
        let Some(axis) = order.iter().position(|it| *it == text(point, "axis")) else { continue };
        for key in ["cpu_ns", "peak_bytes"] {
            let (Some(x), Some(y)) = (point["at"].as_f64(), point[key].as_f64()) else { continue };
            let name = text(point, "subject");
            let lines = curves.entry((axis, key)).or_default();
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push((x, y)),
                None => lines.push(Line {
                    name: name.to_owned(),
                    colour: colour(name),
                    points: vec![(x, y)],
                    dashed: name == "bare-epoll",
                    filled: false,
                }),
            }
        }
    }
    curves
        .into_iter()
        .map(|((axis, key), lines)| {
            let axis = order.get(axis).copied().unwrap_or_default();
            let (by, note) = match axis {
                "connections" => (axis, "Chat between pairs, one message on its way in each."),
                "watchers" => (axis, "Fifty users change their presence; cost of each delivery."),
                "domains" => (
                    "known domains",
                    "Local chat beside so many foreign domains with a rule of their own.",
                ),
                "domains-in" => (
                    "domains that send",
                    "Messages of so many foreign domains to 1,000 clients, each domain with a stream of its \
                     own, all under TLS. The relay has as many connections.",
                ),
                _ => (
                    "domains that are sent to",
                    "The other way: messages of 1,000 clients to so many foreign domains.",
                ),
            };
            let (title, y) = match key {
                "cpu_ns" => (format!("CPU per message by {by}"), Unit::Nanoseconds),
                _ => (format!("Memory at most by {by}"), Unit::Octets),
            };
            let (x, y) = ((Scale::Log, Unit::Count), (Scale::Linear, y));
            let (bands, bound) = (Vec::new(), None);
            Chart { title, note: note.to_owned(), x, y, lines, bands, bound }.html()
        })
        .collect()
}
