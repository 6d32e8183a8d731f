//! One file of `tuning/`, or one of somebody's own, as text.
//!
//! Collects all that is wrong with its place, like the node's configuration does. What is read may
//! end in files that other programs read, so keys, values and names hold only what belongs there.

use std::ops::Range;

use toml::de::DeTable;

use crate::config::keys::{self, Book, Key, key};
use crate::config::{At, Finding, Findings, Section, did_you_mean, not_toml, printable, tables};
use crate::limits::TUNE_CONNECTIONS_MAX;
use crate::tune::probe;
use crate::tune::profile::{
    HOWS, How, KINDS, Kind, Knob, Role, SEVERITIES, Scope, Severity, names,
};
use crate::tune::want::{ANY, number, ranges};

/// A file by itself: what it includes is named only.
#[derive(Clone, Debug, Default)]
pub(super) struct Sheet {
    pub name: String,
    pub summary: String,
    pub tuned_summary: String,
    pub include: Vec<String>,
    pub connections: u64,
    pub tuned: Option<String>,
    pub process: String,
    pub knobs: Vec<Knob>,
}

/// Reads the text; `None` if there is not even a name.
pub(super) fn sheet(source: &str, found: &mut Findings) -> Option<Sheet> {
    let (root, faults) = DeTable::parse_recoverable(source);
    if !faults.is_empty() {
        not_toml(source, faults, found);
        return None;
    }
    let mut sheet = None;
    let mut knobs: Vec<(Range<usize>, Knob)> = Vec::new();
    for (key, value) in root.into_inner() {
        let (span, written) = (key.span(), key.into_inner());
        let known = BOOK.tables();
        let Some(name) = known.iter().copied().find(|it| *it == written) else {
            let near = keys::nearest(&written, &known).map(|it| BOOK.title(it));
            let what = format!("unknown table or key `{}`", printable(&written));
            let finding = Finding::error("C0104", span, what)
                .mark(did_you_mean(near.as_deref(), '`'))
                .mend("a profile has one [profile] and several [[knob]]");
            found.push(finding);
            continue;
        };
        for (span, table) in tables(value) {
            let Some(table) = table else {
                let what = format!("`{name}` is a table: write {}", BOOK.title(name));
                found.push(Finding::error("C0105", span, what));
                continue;
            };
            let mut section = Section::of(&BOOK, name, span.clone(), table, found);
            if name == "profile" {
                sheet = head(&mut section);
                section.finish();
            } else if let Some((place, knob)) = knob(section) {
                told_twice(&knobs, &place, &knob, found);
                knobs.push((place, knob));
            }
        }
    }
    let mut sheet = sheet.or_else(|| {
        if found.errors() == 0 {
            let what = "there is no [profile]";
            let mend = "begin with: [profile] name = \"mine\", include = [\"edge\"]";
            found.push(Finding::error("C0107", 0..0, what).mend(mend));
        }
        None
    })?;
    sheet.knobs = knobs.into_iter().map(|it| it.1).collect();
    Some(sheet)
}

fn told_twice(
    knobs: &[(Range<usize>, Knob)],
    place: &Range<usize>,
    knob: &Knob,
    found: &mut Findings,
) {
    if let Some((first, _)) = knobs.iter().find(|it| it.1.key == knob.key) {
        let what = format!("the knob `{}` comes twice", knob.key);
        found.push(
            Finding::error("T0104", place.clone(), what)
                .mark("again here")
                .other(first.clone(), "first here"),
        );
    }
}

fn head(it: &mut Section<'_, '_>) -> Option<Sheet> {
    let name = it.string("name");
    if name.is_none() {
        it.missing("name", "reports and files are called after it", "name = \"mine\"");
    }
    let name = name.and_then(|name| plain(it, name, "name", is_name, "small letters and digits"));
    let mut include = Vec::new();
    let known: Vec<&str> = [names(Role::Profile), names(Role::Part)].concat();
    for other in it.strings("include").unwrap_or_default() {
        if known.contains(&other.value.as_str()) {
            include.push(other.value);
        } else {
            let near = keys::nearest(&other.value, &known);
            let what = format!("there is no profile `{}` to include", printable(&other.value));
            it.push(
                Finding::error("T0105", other.span, what)
                    .mark(did_you_mean(near, '"'))
                    .mend(format!("there are {}", known.join(", "))),
            );
        }
    }
    let bounds = 1..i64::from(TUNE_CONNECTIONS_MAX) + 1;
    let connections = it.integer("connections", None, bounds).and_then(|it| it.value);
    let summary = line(it, "summary").unwrap_or_default();
    let tuned_summary = line(it, "tuned_summary").unwrap_or_else(|| summary.clone());
    let tuned = it.string("tuned");
    let tuned = tuned.and_then(|word| plain(it, word, "tuned", is_name, "the name of a profile"));
    let process = it.string("process");
    let process = process.and_then(|word| plain(it, word, "process", is_name, "a program's name"));
    Some(Sheet {
        name: name?,
        tuned_summary,
        summary,
        include,
        connections: connections.and_then(|it| u64::try_from(it).ok()).unwrap_or(1_000),
        tuned,
        process: process.unwrap_or_else(|| "tandem".to_owned()),
        knobs: Vec::new(),
    })
}

/// A knob and the place of its key.
fn knob(mut it: Section<'_, '_>) -> Option<(Range<usize>, Knob)> {
    let key = it.string("key");
    if key.is_none() {
        it.missing("key", "it says which knob this is", "key = \"net.core.somaxconn\"");
    }
    let kind = it.choice("kind", KINDS);
    if kind.is_none() && !it.told("kind") {
        it.missing("kind", "it says how the knob is read", "kind = \"sysctl\"");
    }
    let how = it.choice("how", HOWS).map_or(How::Exact, |it| it.value);
    let value = it.string("value");
    let path = it.string("path");
    let kind_word = kind.as_ref().map(|it| it.value);
    let path = path.and_then(|text| plain(&mut it, text, "path", is_sysfs, "a path below /sys/"));
    if kind_word == Some(Kind::Sysfs) && path.is_none() && !it.told("path") {
        it.missing("path", "a knob of sysfs is a file", "path = \"/sys/kernel/mm/...\"");
    }
    let tuned = it.string("tuned");
    let tuned =
        tuned.and_then(|text| plain(&mut it, text, "tuned", is_option, "\"section.option\""));
    let bounds = 0..i64::from(TUNE_CONNECTIONS_MAX) + 1;
    let from = it.integer("from_connections", None, bounds).and_then(|it| it.value);
    let scopes = [("namespace", Scope::Namespace), ("host", Scope::Host)];
    let scope = it.choice("scope", &scopes).map_or(Scope::Host, |it| it.value);
    let severity = it.choice("severity", SEVERITIES).map_or(Severity::Warning, |it| it.value);
    let exported = it.boolean("exported").is_none_or(|it| it.value);
    let mut text = |key| line(&mut it, key).unwrap_or_default();
    let (reason, evidence) = (text("reason"), text("evidence"));
    let (risk, read, others) = (text("risk"), text("read"), text("others"));
    let place = key.as_ref().map(|it| it.span.clone());
    let key = key.zip(kind_word).and_then(|(key, kind)| key_of(&mut it, key, kind));
    let value = value_of(&mut it, value, kind_word, how);
    it.finish();
    let knob = Knob {
        key: key?,
        kind: kind_word?,
        how,
        value: value?,
        scope,
        severity,
        exported,
        from_connections: from.and_then(|it| u64::try_from(it).ok()).unwrap_or(0),
        path,
        tuned,
        reason,
        evidence,
        risk,
        read,
        others,
    };
    Some((place?, knob))
}

/// The key, if its kind knows it.
fn key_of(it: &mut Section<'_, '_>, key: At<String>, kind: Kind) -> Option<String> {
    let known: &[&str] = match kind {
        Kind::Limit => LIMITS,
        Kind::Check => probe::NAMES,
        Kind::Sysctl => {
            return plain(it, key, "key", is_sysctl, "a name as sysctl has it: net.core.somaxconn");
        }
        Kind::Sysfs | Kind::Leave => return plain(it, key, "key", is_line, "one line"),
    };
    if known.contains(&key.value.as_str()) {
        return Some(key.value);
    }
    let what = format!("no {} is called `{}`", kind.word(), printable(&key.value));
    it.push(
        Finding::error("T0102", key.span, what)
            .mark(did_you_mean(keys::nearest(&key.value, known), '"'))
            .mend(format!("there are {}", known.join(", "))),
    );
    None
}

/// The value, if it can be compared in the way that is asked for.
fn value_of(
    it: &mut Section<'_, '_>,
    value: Option<At<String>>,
    kind: Option<Kind>,
    how: How,
) -> Option<String> {
    let Some(value) = value else {
        if !it.told("value") {
            it.missing("value", "it says what is wanted", "value = \"65535\"");
        }
        return None;
    };
    if matches!(kind, Some(Kind::Check | Kind::Leave)) {
        return plain(it, value, "value", is_line, "one line");
    }
    let is_known = |word: &str| VARIABLES.contains(&word);
    let is_good = |text: &str| match how {
        _ if is_known(text) => true,
        How::Raise | How::Lower => {
            !text.trim().is_empty()
                && text.split_whitespace().all(|it| it == ANY || number(it).is_some())
        }
        How::Include => ranges(text).is_some_and(|it| !it.is_empty()),
        How::Exact => is_line(text) && !text.contains(['$', '#', ';', '"']),
    };
    let takes = match how {
        How::Raise | How::Lower => "whole numbers, `_`, or one of $NOFILE, $NR_OPEN, $TCP_MEM",
        How::Include => "ports like 5060-5061,5222",
        How::Exact => "numbers or words",
    };
    plain(it, value, "value", is_good, takes)
}

/// A text that is as it must be.
fn plain(
    it: &mut Section<'_, '_>,
    text: At<String>,
    key: &str,
    is_good: impl Fn(&str) -> bool,
    takes: &str,
) -> Option<String> {
    if is_good(&text.value) && text.value.len() <= 400 {
        return Some(text.value);
    }
    let what = format!("`{key}` can't be \"{}\"", printable(&text.value));
    it.push(Finding::error("T0103", text.span, what).mark(format!("takes {takes}")));
    None
}

/// A text for people, on one line.
fn line(it: &mut Section<'_, '_>, key: &'static str) -> Option<String> {
    let text = it.string(key)?;
    plain(it, text, key, is_line, "one line of at most 400 octets")
}

fn is_line(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

fn is_name(text: &str) -> bool {
    let is_good = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
    !text.is_empty() && !text.starts_with('-') && text.chars().all(is_good)
}

fn is_sysctl(text: &str) -> bool {
    let is_good = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '_' | '-' | '/');
    text.contains('.') && !text.contains("..") && text.chars().all(is_good)
}

fn is_sysfs(text: &str) -> bool {
    text.starts_with("/sys/") && !text.contains("..") && is_line(text) && !text.contains(' ')
}

fn is_option(text: &str) -> bool {
    let is_good = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '-');
    text.split_once('.').is_some_and(|(section, option)| {
        [section, option].iter().all(|it| !it.is_empty() && it.chars().all(is_good))
    })
}

/// What depends on the number of connections.
const VARIABLES: &[&str] = &["$NOFILE", "$NR_OPEN", "$TCP_MEM"];
/// Limits that are known.
const LIMITS: &[&str] = &["nofile", "memlock"];

static BOOK: Book = Book { keys: KEYS, lists: &["knob"] };

const KEYS: &[Key] = &[
    key("profile", "name", "a word of small letters", "required", "what it is called"),
    key("profile", "summary", "a line", "\"\"", "what kind of host it is for"),
    key("profile", "tuned_summary", "a line", "summary", "the summary of the TuneD profile"),
    key("profile", "include", "a list of names", "[]", "profiles and parts to begin with"),
    key("profile", "connections", "a number", "1000", "how many connections it is for"),
    key("profile", "tuned", "a name", "none", "the TuneD profile that ours includes"),
    key("profile", "process", "a program", "\"tandem\"", "whose limits count"),
    key("knob", "key", "a name", "required", "which knob"),
    key("knob", "kind", "sysctl, limit, sysfs, check, leave", "required", "how it is read"),
    key("knob", "how", "raise, lower, exact, include", "\"exact\"", "what is good enough"),
    key("knob", "value", "a text", "required", "what is wanted"),
    key("knob", "path", "a path below /sys", "required for sysfs", "where it stands"),
    key("knob", "tuned", "\"section.option\"", "sysctl and the key", "its place in TuneD"),
    key("knob", "from_connections", "a number", "0", "counts from so many connections on"),
    key("knob", "scope", "namespace, host", "\"host\"", "whose knob it is"),
    key("knob", "severity", "fatal, warning, advice", "\"warning\"", "what it means if not"),
    key("knob", "exported", "true, false", "true", "stands in files that are made from this"),
    key("knob", "reason", "a line", "\"\"", "why"),
    key("knob", "evidence", "a line", "\"\"", "who says that it helps"),
    key("knob", "risk", "a line", "\"\"", "what it may cost"),
    key("knob", "read", "a line", "\"\"", "how to read it back"),
    key("knob", "others", "a line", "\"\"", "who else sets it"),
];
