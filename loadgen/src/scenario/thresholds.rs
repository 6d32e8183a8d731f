//! Conditions on a result: `latency_p99 = "< 20ms"`, of all flows or of one.

use tandem::config::Findings;
use toml::de::{DeTable, DeValue};

use super::section::{Section, Span, did_you_mean, printable};
use super::units;
use crate::scenario::model::Threshold;

/// How a key's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// With a unit of time.
    Time,
    /// A plain number.
    Count,
    /// Of one, or in per cent.
    Part,
    /// Octets.
    Octets,
}

const TIMES: [&str; 2] = ["latency", "service"];
const STEPS: [&str; 7] = ["connect", "tls", "login", "stream", "invite", "message", "subscribe"];
const POINTS: [&str; 7] = ["p50", "p90", "p99", "p999", "p9999", "max", "mean"];
const OTHERS: [(&str, Measure); 15] = [
    ("lost", Measure::Count),
    ("duplicates", Measure::Count),
    ("duplicated", Measure::Count),
    ("reordered", Measure::Count),
    ("corrupt", Measure::Count),
    ("bounced", Measure::Count),
    ("dropped", Measure::Count),
    ("superseded", Measure::Count),
    ("failed", Measure::Count),
    ("delivered", Measure::Count),
    ("achieved", Measure::Part),
    ("server_cpu_per_message", Measure::Time),
    ("generator_cpu_per_message", Measure::Time),
    ("server_rss", Measure::Octets),
    ("lateness_p99", Measure::Time),
];

/// How the value of a key is written; `None`: there is no such key.
pub(super) fn measure(key: &str) -> Option<Measure> {
    if let Some((_, measure)) = OTHERS.iter().find(|it| it.0 == key) {
        return Some(*measure);
    }
    let (what, point) = key.rsplit_once('_')?;
    let known = TIMES.contains(&what) || STEPS.contains(&what);
    (known && POINTS.contains(&point)).then_some(Measure::Time)
}

fn names() -> Vec<String> {
    let times = TIMES.iter().flat_map(|what| POINTS.iter().map(move |at| format!("{what}_{at}")));
    let others = OTHERS.iter().map(|it| it.0.to_owned());
    let steps = STEPS.iter().map(|what| format!("{what}_p99"));
    times.chain(others).chain(steps).collect()
}

/// A condition of the command line: `latency_p99 < 20ms`.
pub fn of_line(text: &str) -> Result<Threshold, String> {
    let end = text.find(['<', '>', '=']).ok_or("no comparison: write latency_p99 < 20ms")?;
    let (key, condition) = text.split_at(end);
    condition_of(key.trim(), condition)
}

fn condition_of(key: &str, text: &str) -> Result<Threshold, String> {
    let bare = key.rsplit_once('.').map_or(key, |it| it.1);
    let measure = measure(bare).ok_or_else(|| {
        let all = names();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        format!("nothing called {}; {}", printable(bare), did_you_mean(bare, &all))
    })?;
    let (than, value) = units::comparison(text).ok_or("begins with none of <, <=, =, >=, >")?;
    let (value, example) = match measure {
        Measure::Time => (units::duration(value).map(|ns| ns as f64), "20ms"),
        Measure::Count => (units::count(value), "0"),
        Measure::Part => (units::part(value), "99%"),
        Measure::Octets => (units::octets(value).map(|it| it as f64), "200MiB"),
    };
    let value = value.ok_or_else(|| format!("the value can't be read; one such is {example}"))?;
    Ok(Threshold { key: key.to_owned(), than, value, text: text.trim().to_owned() })
}

/// Reads the table; entries that are tables are those of flows.
pub(super) fn read(
    table: DeTable<'_>,
    span: Span,
    flows: &[&str],
    found: &mut Findings,
) -> Vec<Threshold> {
    let mut all = Vec::new();
    let section = Section::new("[threshold]", span, table, found);
    // Names are the flows' and the keys' own: none is taken by a fixed name.
    let mut places = Vec::new();
    for (key, value) in section.rest() {
        let (place, key) = (key.span(), key.into_inner().into_owned());
        let (value_at, value) = (value.span(), value.into_inner());
        match value {
            DeValue::Table(inner) => {
                for (inner_key, value) in inner {
                    let name = format!("{key}.{}", inner_key.get_ref());
                    places.push((name, inner_key.span(), value.span(), value.into_inner()));
                }
            }
            other => places.push((key, place, value_at, other)),
        }
    }
    let all_names = names();
    let known: Vec<&str> = all_names.iter().map(String::as_str).collect();
    for (key, key_at, value_at, value) in places {
        let mut section = Section::new("[threshold]", key_at.clone(), DeTable::new(), found);
        let (flow, bare) = key.rsplit_once('.').map_or((None, key.as_str()), |(f, k)| (Some(f), k));
        if let Some(flow) = flow.filter(|it| !flows.contains(it)) {
            let what = format!("no flow is called \"{}\"", printable(flow));
            section.wrong(key_at, what, &did_you_mean(flow, flows), "give a flow's name");
            continue;
        }
        if measure(bare).is_none() {
            let what = format!("nothing called `{}` is measured", printable(bare));
            let mend = "such are latency_p99, service_p50, lost, achieved, server_cpu_per_message";
            section.wrong(key_at, what, &did_you_mean(bare, &known), mend);
            continue;
        }
        let DeValue::String(text) = value else {
            let what = format!("the condition on `{}` is not a text", printable(&key));
            section.wrong(value_at, what, "", "write it as in \"< 20ms\", \"= 0\", \">= 99%\"");
            continue;
        };
        match condition_of(&key, &text) {
            Ok(it) => all.push(it),
            Err(why) => {
                let what = format!("the condition on `{}` can't be read", printable(&key));
                let mend = "write it as in \"< 20ms\", \"= 0\", \">= 99%\"";
                section.wrong(value_at, what, &why, mend);
            }
        }
    }
    all
}
