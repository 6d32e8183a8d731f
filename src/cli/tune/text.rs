//! What `tandem tune` shows to people, within 80 columns where the words allow it.

use std::fmt::Write as _;

use crate::tune::{
    Advice, Host, Kind, Knob, Outcome, Profile, Report, Role, Row, Severity, Virtual,
};

/// All outcomes, in the order in which they are counted.
pub(super) const OUTCOMES: [Outcome; 6] = [
    Outcome::Ok,
    Outcome::Low,
    Outcome::High,
    Outcome::Differs,
    Outcome::Conflict,
    Outcome::Skipped,
];

const WIDTH: usize = 80;
const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "1;31";
const PURPLE: &str = "35";

#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    /// A text, padded first: colours take no room.
    fn with(self, code: &str, text: &str, width: usize) -> String {
        let padded = format!("{text:width$}");
        if self.0 && !text.is_empty() { format!("\x1b[{code}m{padded}\x1b[0m") } else { padded }
    }
}

/// What is wanted, for people.
pub(super) fn wanted(profile: &Profile, knob: &Knob) -> String {
    match knob.kind {
        Kind::Check | Kind::Leave => knob.value.clone(),
        _ => profile.want(knob).to_string(),
    }
}

/// `tune list`.
pub(super) fn list(all: &[(Role, Profile)], advice: &Advice, host: &Host, colour: bool) -> String {
    let paint = Paint(colour);
    let mut out = String::new();
    // Writing to a String can't fail, here and below.
    for (_, profile) in all.iter().filter(|it| it.0 == Role::Profile) {
        let fits = profile.name == advice.profile;
        let mark = if fits { "*" } else { " " };
        let name = paint.with(if fits { GREEN } else { BOLD }, &profile.name, 11);
        writeln!(out, "{mark} {name} {}", profile.summary).ok();
    }
    for (_, profile) in all.iter().filter(|it| it.0 == Role::Trait) {
        let name = paint.with(BOLD, &format!("+{}", profile.name), 11);
        writeln!(out, "  {name} {}", profile.summary).ok();
    }
    writeln!(out, "\nHere: {}", host.summary()).ok();
    let fits = paint.with(GREEN, advice.profile, 0);
    writeln!(out, "Fits: {fits}, since {}", advice.why).ok();
    if host.virtual_kind() != Virtual::Metal {
        let words = "What it can't set or see is skipped, not failed.";
        writeln!(out, "      {words}").ok();
    }
    writeln!(out, "Next: tandem tune check {}", advice.profile).ok();
    out
}

/// `tune explain`.
pub(super) fn explain(profile: &Profile, knobs: &[&Knob], colour: bool) -> String {
    let paint = Paint(colour);
    let mut out = String::new();
    let head =
        format!("{}: {}; for {} connections", profile.name, profile.summary, profile.connections);
    fold(&mut out, "", "", &head);
    for knob in knobs {
        let counts = profile.knobs().any(|it| it.key == knob.key);
        let from = format!("from {} connections on: not counted here", knob.from_connections);
        let how = match knob.kind {
            Kind::Leave => "left alone",
            Kind::Check => "checked only",
            _ if !counts => &from,
            _ if !knob.exported => "checked only",
            _ => "",
        };
        let how = if how.is_empty() { String::new() } else { format!("  ({how})") };
        let wanted = wanted(profile, knob);
        writeln!(out, "\n{}  {wanted}{how}", paint.with(BOLD, &knob.key, 0)).ok();
        fold(&mut out, "  why       ", "            ", &knob.reason);
        let evidence = if knob.evidence.is_empty() {
            "none found: the row is there because operators ask"
        } else {
            &knob.evidence
        };
        fold(&mut out, "  evidence  ", "            ", evidence);
        for (word, text) in [("risk", &knob.risk), ("read", &knob.read), ("others", &knob.others)] {
            if !text.is_empty() {
                fold(&mut out, &format!("  {word:<8}  "), "            ", text);
            }
        }
        if knob.kind != Kind::Leave {
            fold(&mut out, "  severity  ", "            ", knob.severity.word());
        }
    }
    out
}

/// `tune check`.
pub(super) fn report(report: &Report, why: &str, quiet: bool, colour: bool) -> String {
    let paint = Paint(colour);
    let mut out = String::new();
    if !quiet {
        let name = &report.profile.name;
        fold(&mut out, "Host     ", "         ", &report.host);
        let chosen = if why.is_empty() { String::new() } else { format!(", chosen since {why}") };
        let profile = format!("{name}, for {} connections{chosen}", report.profile.connections);
        fold(&mut out, "Profile  ", "         ", &profile);
        fold(&mut out, "Limits   ", "         ", &format!("of {}", report.process));
        out.push('\n');
    }
    table(&mut out, report, quiet, paint);
    for tuner in &report.tuners {
        out.push('\n');
        fold(&mut out, "! ", "  ", tuner);
    }
    let bad: Vec<&Row> = report.rows.iter().filter(|it| it.found.outcome.is_bad()).collect();
    if !bad.is_empty() {
        writeln!(out, "\n{}", paint.with(BOLD, "What to change", 0)).ok();
    }
    let mut before: &[String] = &[];
    for row in &bad {
        change(&mut out, row, before, paint);
        before = &row.found.commands;
    }
    if bad.iter().any(|it| it.knob.kind == Kind::Sysctl && it.knob.exported) {
        kept(&mut out, report);
    }
    let counts: Vec<String> = OUTCOMES
        .iter()
        .map(|it| (report.count(*it), it))
        .filter(|(count, it)| *count > 0 || **it == Outcome::Ok)
        .map(|(count, it)| format!("{count} {}", it.word()))
        .collect();
    let fatal = match report.bad(Severity::Fatal) {
        0 => paint.with(GREEN, "nothing fatal", 0),
        count => paint.with(RED, &format!("{count} fatal"), 0),
    };
    if !quiet || !bad.is_empty() {
        writeln!(out, "\n{}: {fatal}", counts.join(", ")).ok();
    }
    out
}

fn table(out: &mut String, report: &Report, quiet: bool, paint: Paint) {
    let rows: Vec<&Row> =
        report.rows.iter().filter(|it| !quiet || it.found.outcome.is_bad()).collect();
    let widest = |of: fn(&Row) -> usize, least: usize, most: usize| {
        rows.iter().map(|it| of(it)).filter(|it| *it <= most).max().unwrap_or(0).max(least)
    };
    let (knob, want) = (widest(|it| it.knob.key.len(), 4, 36), widest(|it| it.wanted.len(), 6, 14));
    if rows.is_empty() {
        return;
    }
    let head =
        format!("{:<8} {:<8} {:knob$}  {:want$}  now", "result", "severity", "knob", "wanted");
    writeln!(out, "{}", paint.with(BOLD, &head, 0)).ok();
    for row in rows {
        let result = paint.with(tint(row), row.found.outcome.word(), 8);
        let severity = row.knob.severity.word();
        let line = format!("{severity:<8} {:knob$}  {:want$}", row.knob.key, row.wanted);
        let now = &row.found.now;
        // What would be cut off at the edge goes below its knob.
        if 9 + line.chars().count() + 2 + now.chars().count() > WIDTH {
            writeln!(out, "{result} {}\n{:18}now {now}", line.trim_end(), "").ok();
        } else {
            writeln!(out, "{result} {}", format!("{line}  {now}").trim_end()).ok();
        }
        if row.found.outcome == Outcome::Skipped {
            let mut why = String::new();
            let indent = " ".repeat(18);
            fold(&mut why, &indent, &indent, &row.found.why);
            out.push_str(&paint.with(DIM, why.trim_end(), 0));
            out.push('\n');
        }
    }
}

fn tint(row: &Row) -> &'static str {
    match row.found.outcome {
        Outcome::Ok => GREEN,
        Outcome::Skipped => DIM,
        Outcome::Conflict => PURPLE,
        _ if row.knob.severity == Severity::Fatal => RED,
        _ => YELLOW,
    }
}

/// One knob that should be changed, in words.
fn change(out: &mut String, row: &Row, before: &[String], paint: Paint) {
    let found = &row.found;
    let name = paint.with(tint(row), &row.knob.key, 0);
    let now = if found.now.is_empty() { "unknown" } else { &found.now };
    writeln!(out, "\n  {name}: {now}, wanted {}", row.wanted).ok();
    let indent = "    ";
    if !found.why.is_empty() {
        fold(out, indent, indent, &found.why);
    }
    fold(out, indent, indent, &row.knob.reason);
    if !found.commands.is_empty() && found.commands == before {
        fold(out, indent, indent, "the command above does it too.");
        return;
    }
    if !found.mend.is_empty() {
        let end = if found.commands.is_empty() { "." } else { ":" };
        fold(out, indent, indent, &format!("{}{end}", found.mend));
    }
    for command in &found.commands {
        // Not folded: it is there to be pasted.
        writeln!(out, "      {}", paint.with(BOLD, command, 0)).ok();
    }
}

/// How to make sysctls outlive a boot.
fn kept(out: &mut String, report: &Report) {
    let name = &report.profile.name;
    let file = name.replace('+', "-");
    let by_tuned = report.tuners.iter().any(|it| it.starts_with("TuneD"));
    out.push('\n');
    fold(out, "  ", "  ", "To keep the sysctls over a boot, as root:");
    if by_tuned {
        writeln!(out, "    mkdir -p /etc/tuned/tandem-{file}").ok();
        writeln!(
            out,
            "    tandem tune export {name} --format tuned > /etc/tuned/tandem-{file}/tuned.conf"
        )
        .ok();
        writeln!(out, "    tuned-adm profile tandem-{file}").ok();
    } else {
        writeln!(
            out,
            "    tandem tune export {name} --format sysctl > /etc/sysctl.d/60-tandem-{file}.conf"
        )
        .ok();
    }
}

/// Words within the width, the first line with one beginning and the others with another.
fn fold(out: &mut String, first: &str, other: &str, text: &str) {
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            writeln!(out, "{line}").ok();
            line = other.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    writeln!(out, "{line}").ok();
}
