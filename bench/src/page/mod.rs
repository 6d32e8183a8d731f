//! A run of the bench as one HTML page: every bar against its bound, what each server costs, how cost
//! grows, and what it was measured on. Nothing is loaded, so it opens anywhere.
//!
//! Reads the file of a run; what is not in it is left out. Does **not** judge: verdicts are in the file.

use std::fmt::Write as _;

use serde_json::Value;
use tandem_loadgen::plot::escaped;
use tandem_loadgen::report::whole;

mod drawings;

/// What belongs to this page alone.
const STYLE: &str = "<style>.wide{grid-column:1/-1}.row text{font-size:13px;fill:var(--ink)}.row .soft{fill:var(--soft)}\
.range{stroke-width:3;stroke-linecap:round}.holds{fill:var(--good);stroke:var(--good)}.missed{fill:var(--bad);stroke:var(--bad)}\
.invalid{fill:var(--warn);stroke:var(--warn)}.row text.verdict{font-weight:600;stroke:none}.stripe{fill:var(--odd)}\
.row text.holds{fill:var(--good)}.row text.missed{fill:var(--bad)}.row text.invalid{fill:var(--warn)}\
.charts.three{grid-template-columns:repeat(auto-fit,minmax(340px,1fr))}td.holds{color:var(--good);background:none}\
td.missed{color:var(--bad)}td.invalid{color:var(--warn)}td.fault{color:var(--bad)}</style>";

/// One outcome of a bar.
#[derive(Clone, Debug)]
struct Row<'a> {
    bar: &'a str,
    who: String,
    figure: [f64; 3],
    limit: f64,
    unit: &'a str,
    verdict: &'a str,
}

impl Row<'_> {
    /// The class of its colours.
    fn class(&self) -> &'static str {
        match self.verdict {
            "holds" => "holds",
            "MISSED" => "missed",
            _ => "invalid",
        }
    }

    /// The figure as it is printed.
    fn shown(&self) -> String {
        let [median, min, max] = self.figure;
        match (self.unit, min == max) {
            ("", _) => {
                // Of a small bound more is seen.
                let digits = if self.limit < 0.5 { 3 } else { 2 };
                format!(
                    "{median:.digits$} ({min:.digits$}..{max:.digits$}) of {:.digits$}",
                    self.limit
                )
            }
            (unit, true) => format!("{median:.0} of {:.0} {unit}", self.limit),
            (unit, false) => {
                format!("{median:.0} ({min:.0}..{max:.0}) of {:.0} {unit}", self.limit)
            }
        }
    }
}

/// The page of a run.
pub(crate) fn of(run: &Value) -> String {
    let rows = rows(run);
    let count = |verdict: &str| rows.iter().filter(|row| row.class() == verdict).count();
    let quick = run["what"]["quick"] == true;
    let mut body = format!("{STYLE}<h1>Bench</h1><p class=\"soft\">{}</p>", escaped(&about(run)));
    if quick {
        body.push_str(
            "<p>A quick run: three short rounds show that everything works, and prove nothing.</p>",
        );
    }
    body.push_str("<div class=\"cards\">");
    for (name, class, verdict, more) in [
        ("holds", "good", "holds", "figures within their bound"),
        ("missed", "bad", "missed", "figures beyond it"),
        ("invalid", "warn", "invalid", "a core idled, or the account is wrong"),
    ] {
        // Writing into a String does not fail.
        _ = write!(
            body,
            "<div class=\"card\"><span>{name}</span><b class=\"{class}\">{}</b><em>{more}</em></div>",
            count(verdict)
        );
    }
    body.push_str("</div>");
    if !rows.is_empty() {
        body.push_str("<h2>Every bar against its bound</h2>");
        body.push_str(&drawings::bounds(&rows));
    }
    table(run, &rows, &mut body);
    let costs = drawings::costs(run);
    if !costs.is_empty() {
        _ = write!(
            body,
            "<h2>What a message costs</h2><p class=\"soft\">Server CPU per message, presence or login: the median of \
             the rounds, with the smallest and the largest.</p><div class=\"charts three\">{costs}</div>"
        );
    }
    let growth = drawings::growth(run);
    if !growth.is_empty() {
        _ = write!(
            body,
            "<h2>How cost grows</h2><p class=\"soft\">The work grows by powers of ten: where a line stays level, cost \
             grows no faster than the work.</p><div class=\"charts\">{growth}</div>"
        );
    }
    environment(run, &mut body);
    whole("Bench", &body)
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn rows(run: &Value) -> Vec<Row<'_>> {
    let outcomes = list(run, "bars").iter().flat_map(|bar| list(bar, "outcomes"));
    outcomes
        .map(|it| {
            let number = |key: &str| it[key].as_f64().unwrap_or(f64::NAN);
            let (subject, base) = (text(it, "subject"), text(it, "base"));
            let by = if base.is_empty() { "" } else { " / " };
            Row {
                bar: text(it, "bar"),
                who: format!("{subject}{by}{base}"),
                figure: ["median", "min", "max"].map(number),
                limit: number("limit"),
                unit: text(it, "unit"),
                verdict: text(it, "verdict"),
            }
        })
        .filter(|row| row.figure[0].is_finite())
        .collect()
}

fn about(run: &Value) -> String {
    let environment = &run["environment"];
    let at = run["unix_s"].as_u64().unwrap_or(0);
    let when = tandem::time::Wall(at * 1_000_000).stamp().replace('T', " ").replace('Z', " UTC");
    let mut parts = vec![when];
    for key in ["cpu", "kernel", "commit"] {
        let value = text(environment, key);
        if !value.is_empty() {
            let name = if key == "commit" { "commit " } else { "" };
            parts.push(format!("{name}{value}"));
        }
    }
    if let Some(took) = run["took_s"].as_f64() {
        parts.push(format!("{:.0} minutes", (took / 60.0).ceil()));
    }
    parts.join(" · ")
}

fn table(run: &Value, rows: &[Row<'_>], out: &mut String) {
    let any = list(run, "bars").iter().any(|bar| bar["raw"]["fault"].is_string());
    let open = if any { " open" } else { "" };
    _ = write!(out, "<details{open}>");
    out.push_str(
        "<summary>The same as a table</summary><div class=\"table\"><table><tr><th>bar</th><th class=\"text\">who</th>\
         <th>figure</th><th>verdict</th></tr>",
    );
    for row in rows {
        _ = write!(
            out,
            "<tr><td>{}</td><td class=\"text\">{}</td><td class=\"num\">{}</td><td class=\"{}\">{}</td></tr>",
            escaped(row.bar),
            escaped(&row.who),
            row.shown(),
            row.class(),
            escaped(row.verdict)
        );
    }
    for bar in list(run, "bars") {
        if let Some(fault) = bar["raw"]["fault"].as_str() {
            _ = write!(
                out,
                "<tr><td>{}</td><td class=\"text\" colspan=\"2\">{}</td><td class=\"fault\">not measured</td></tr>",
                escaped(text(bar, "bar")),
                escaped(fault)
            );
        }
    }
    out.push_str("</table></div></details>");
}

fn environment(run: &Value, out: &mut String) {
    out.push_str("<h2>Measured on</h2><div class=\"table\"><table>");
    for part in ["environment", "what"] {
        for (key, value) in run[part].as_object().into_iter().flatten() {
            let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if !value.is_null() {
                _ = write!(
                    out,
                    "<tr><td>{}</td><td class=\"text num\">{}</td></tr>",
                    escaped(&key.replace('_', " ")),
                    escaped(&shown)
                );
            }
        }
    }
    out.push_str("</table></div>");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_is_there_makes_a_page() {
        let outcome = json!({
            "bar": "V1", "median": 1.2, "min": 1.1, "max": 3e9, "limit": 1.25, "unit": "",
            "verdict": "holds", "subject": "<tandem>", "base": "bare",
        });
        let row = json!({ "server": { "cpu_ns_per_message": 4_000.0 } });
        let point = |at: u64| {
            json!({ "axis": "connections", "at": at, "subject": "tandem-ring",
            "cpu_ns": 4_000.0, "peak_bytes": 1e7 })
        };
        let run = json!({
            "unix_s": 1_795_000_000_u64, "took_s": 61.0, "what": { "quick": true },
            "environment": { "cpu": "a & b", "prosody": null },
            "bars": [
                { "bar": "V1", "outcomes": [outcome], "raw": { "tandem-ring": [row, row] } },
                { "bar": "GROW", "outcomes": [], "raw": [point(100), point(1_000)] },
                { "bar": "V8", "outcomes": [], "raw": { "fault": "no Kamailio" } },
            ],
        });
        let page = of(&run);
        for wanted in
            ["&lt;tandem&gt;", "1.20 (1.10..", "no Kamailio", "a &amp; b", "4 µs", "</html>"]
        {
            assert!(page.contains(wanted), "{wanted}");
        }
        assert!(!page.contains("NaN") && !page.contains("inf") && !page.contains("<tandem>"));
        assert!(of(&json!({})).ends_with("</html>\n"));
    }
}
