//! A run as one HTML file: nothing is loaded, it opens anywhere, now and in ten years.
//!
//! Reads results in the form of schema 1, whoever wrote them; what is missing is left out.
//! Does **not** judge: the verdict is in the result.

mod charts;
mod tables;

use std::fmt::Write as _;

use serde_json::Value;

use crate::plot::{Unit, escaped, shown};

/// The page of one run, or of several laid over one another.
pub fn page(runs: &[Value]) -> String {
    let title = match runs {
        [run] => text(run, "name").to_owned(),
        _ => format!("{} runs compared", runs.len()),
    };
    let mut body = String::new();
    match runs {
        [run] => single(run, &mut body),
        _ => several(runs, &mut body),
    }
    whole(&title, &body)
}

/// A whole page around `body`, with the style and the script of all pages.
pub fn whole(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{}</title><style>{}</style></head><body><main>{body}</main>\
         <script>{}</script></body></html>\n",
        escaped(title),
        include_str!("style.css"),
        include_str!("script.js")
    )
}

/// A text of a result, or nothing.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// A number of a result, or zero.
pub(crate) fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or(0.0)
}

/// The elements of a list, none if it is not there.
pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// All bounces of an account, whatever their reason.
pub(crate) fn bounced(account: &Value) -> f64 {
    let all = account["bounced"].as_object();
    all.map_or(0.0, |it| it.values().filter_map(Value::as_f64).fold(0.0, |sum, it| sum + it))
}

fn badge(run: &Value) -> String {
    let word = text(&run["verdict"], "word");
    let class = match word {
        "VALID" => "good",
        "SERVER-LIMITED" => "warn",
        _ => "bad",
    };
    format!("<span class=\"badge {class}\">{}</span>", escaped(word))
}

fn verdict_line(run: &Value) -> String {
    let failed: Vec<String> = list(&run["verdict"], "rules")
        .iter()
        .filter(|rule| rule["ok"] == false)
        .map(|rule| {
            format!(
                "{}: {} (wanted {})",
                text(rule, "rule"),
                plain(&rule["value"]),
                plain(&rule["limit"])
            )
        })
        .collect();
    let why = match text(&run["verdict"], "word") {
        "VALID" => "The generator kept its schedule and was not the bottleneck.",
        "SERVER-LIMITED" => {
            "The generator kept its schedule; the server did not answer in time. That is a result."
        }
        "GENERATOR-LIMITED" => {
            "The generator could not do what was asked of it: the figures below say nothing about the server."
        }
        _ => "",
    };
    let why =
        if failed.is_empty() { why.to_owned() } else { format!("{why} {}.", failed.join("; ")) };
    format!("<p>{}</p>", escaped(&why))
}

/// A value of a result as text.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "–".to_owned(),
        Value::Number(n) => {
            let value = n.as_f64().unwrap_or(0.0);
            if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.4}") }
        }
        other => other.to_string(),
    }
}

fn single(run: &Value, out: &mut String) {
    let greyed = text(&run["verdict"], "word") == "GENERATOR-LIMITED";
    let class = if greyed { " class=\"greyed\"" } else { "" };
    let about = text(run, "about");
    // Writing into a String does not fail.
    _ = write!(
        out,
        "<div{class}><h1>{}{}</h1><p class=\"soft\">{}{}{}</p>{}",
        escaped(text(run, "name")),
        badge(run),
        escaped(about),
        if about.is_empty() { "" } else { " · " },
        escaped(&when(run)),
        verdict_line(run)
    );
    cards(run, out);
    out.push_str(
        "<p class=\"soft\">Latency counts from the moment the schedule wanted a message sent, service time from the moment \
         it was sent: a server that stalls makes its callers wait, and only the first shows it.</p>",
    );
    out.push_str("<div class=\"charts\">");
    for chart in charts::of_run(run) {
        out.push_str(&chart.html());
    }
    out.push_str("</div>");
    tables::of_run(run, out);
    _ = write!(
        out,
        "<details><summary>Scenario</summary><pre>{}</pre></details>\
         <p class=\"soft\"><code>{}</code></p></div>",
        escaped(text(run, "scenario_text")),
        escaped(
            &list(run, "command").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        )
    );
}

fn when(run: &Value) -> String {
    let environment = &run["environment"];
    let mut parts = Vec::new();
    if let Some(ms) = run["started_unix_ms"].as_u64() {
        parts.push(tandem::time::Wall(ms * 1_000).stamp().replace('T', " ").replace('Z', " UTC"));
    }
    parts.push(format!("{:.0} s", number(run, "seconds")));
    for key in ["server", "cpu", "kernel"] {
        let value = text(environment, key);
        if !value.is_empty() {
            parts.push(value.to_owned());
        }
    }
    parts.join(" · ")
}

fn card(out: &mut String, name: &str, value: &str, more: &str, class: &str) {
    _ = write!(
        out,
        "<div class=\"card\"><span>{}</span><b class=\"{class}\">{}</b><em>{}</em></div>",
        escaped(name),
        escaped(value),
        escaped(more)
    );
}

fn cards(run: &Value, out: &mut String) {
    let totals = &run["totals"];
    out.push_str("<div class=\"cards\">");
    let holds: Vec<&Value> =
        list(run, "stages").iter().filter(|s| matches!(text(s, "type"), "hold" | "step")).collect();
    if let Some(last) = holds.last() {
        let (asked, achieved) = (number(last, "asked_per_s"), number(last, "achieved_per_s"));
        let more = if asked > 0.0 {
            format!("of {}/s asked", shown(asked, Unit::Count))
        } else {
            "closed loop".to_owned()
        };
        card(out, "rate held", &format!("{}/s", shown(achieved, Unit::Count)), &more, "");
    }
    let times = charts::headline(run);
    if number(&times, "count") > 0.0 {
        let ns = |key| shown(number(&times, key), Unit::Nanoseconds);
        card(out, "latency p50", &ns("p50"), "", "");
        card(out, "latency p99", &ns("p99"), &format!("p99.9 {}", ns("p999")), "");
        card(out, "latency max", &ns("max"), "", "");
    }
    let lost = number(totals, "lost");
    let class = if lost > 0.0 { "bad" } else { "good" };
    let more = format!("of {} sent", shown(number(totals, "sent"), Unit::Count));
    card(out, "lost", &shown(lost, Unit::Count), &more, class);
    let odd =
        number(totals, "duplicated") + number(totals, "reordered") + number(totals, "corrupt");
    let class = if odd > 0.0 { "bad" } else { "good" };
    let more = format!("{} came back", shown(bounced(totals), Unit::Count));
    card(out, "doubled, reordered, corrupt", &shown(odd, Unit::Count), &more, class);
    if !run["server"].is_null() {
        let server = &run["server"];
        let cpu = shown(number(server, "cpu_per_message_ns"), Unit::Nanoseconds);
        let rss = number(server, "rss_bytes");
        let more = if rss > 0.0 { shown(rss, Unit::Octets) } else { String::new() };
        card(out, "server CPU per message", &cpu, &more, "");
    }
    let own = shown(number(&run["generator"], "cpu_per_message_ns"), Unit::Nanoseconds);
    card(out, "generator CPU per message", &own, "", "");
    out.push_str("</div>");
}

fn several(runs: &[Value], out: &mut String) {
    out.push_str("<h1>Runs compared</h1><div class=\"charts\">");
    for chart in charts::overlay(runs) {
        out.push_str(&chart.html());
    }
    out.push_str("</div>");
    tables::compared(runs, out);
}

#[cfg(test)]
mod tests;
