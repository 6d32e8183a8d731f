//! Profiles and their knobs, as `tuning/*.toml` has them.
//!
//! A profile includes parts, and a trait is added to it by a plus sign (`edge+latency`). A knob that
//! comes twice is the later one's, so a file of one's own may include a profile and change a row.

use std::path::Path;

use crate::config::{Finding, Findings, in_words, keys};
use crate::tune::read::{self, Sheet};
use crate::tune::want::Want;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A kind of host.
    Profile,
    /// Rows that profiles share.
    Part,
    /// Rows that are added to a profile.
    Trait,
}

/// One knob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knob {
    pub key: String,
    pub kind: Kind,
    pub how: How,
    /// As written: numbers, words, `_` for "whatever it is", `$NAME` for what depends on the number
    /// of connections.
    pub value: String,
    pub scope: Scope,
    pub severity: Severity,
    /// Whether files that are made from the profile have it.
    pub exported: bool,
    /// The row is there from so many connections on.
    pub from_connections: u64,
    /// Where sysfs has it; may have `*`.
    pub path: Option<String>,
    /// Section and option of a TuneD profile, where they are not `sysctl` and the key.
    pub tuned: Option<String>,
    pub reason: String,
    /// Empty: none was found.
    pub evidence: String,
    pub risk: String,
    /// How to read it back.
    pub read: String,
    /// Who else sets it.
    pub others: String,
}

/// What a knob is and how it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/proc/sys`.
    Sysctl,
    /// A limit of the process.
    Limit,
    /// `/sys`.
    Sysfs,
    /// Looked at by code of its own, never set.
    Check,
    /// Neither looked at nor set: `explain` says why.
    Leave,
}

impl Kind {
    /// As written.
    pub fn word(self) -> &'static str {
        KINDS.iter().find(|it| it.1 == self).map_or("", |it| it.0)
    }
}

/// The words for them.
pub(super) const KINDS: &[(&str, Kind)] = &[
    ("sysctl", Kind::Sysctl),
    ("limit", Kind::Limit),
    ("sysfs", Kind::Sysfs),
    ("check", Kind::Check),
    ("leave", Kind::Leave),
];

/// What is good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// This much or more: never lowered.
    Raise,
    /// This much or less: never raised.
    Lower,
    /// This.
    Exact,
    /// This among others: lists of ports.
    Include,
}

/// The words for them.
pub(super) const HOWS: &[(&str, How)] = &[
    ("raise", How::Raise),
    ("lower", How::Lower),
    ("exact", How::Exact),
    ("include", How::Include),
];

/// Whose knob it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each network namespace has its own.
    Namespace,
    /// The host has one for all.
    Host,
}

/// What it means if it isn't so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The node will not do what it is there for.
    Fatal,
    /// It costs, under load.
    Warning,
    /// Worth a look.
    Advice,
}

impl Severity {
    /// As written.
    pub fn word(self) -> &'static str {
        SEVERITIES.iter().find(|it| it.1 == self).map_or("", |it| it.0)
    }
}

/// The words for them.
pub(super) const SEVERITIES: &[(&str, Severity)] =
    &[("fatal", Severity::Fatal), ("warning", Severity::Warning), ("advice", Severity::Advice)];

/// A kind of host, with its parts and traits put together.
#[derive(Clone, Debug)]
pub struct Profile {
    /// `edge`, `edge+latency`.
    pub name: String,
    pub summary: String,
    /// The summary of the TuneD profile.
    pub tuned_summary: String,
    /// The TuneD profile that ours includes; without one there is none of ours.
    pub tuned: Option<String>,
    /// How many connections it is for.
    pub connections: u64,
    /// The program whose limits count.
    pub process: String,
    knobs: Vec<Knob>,
}

impl Profile {
    /// The knobs that count for its number of connections, in reading order.
    pub fn knobs(&self) -> impl Iterator<Item = &Knob> {
        self.knobs.iter().filter(|it| it.from_connections <= self.connections)
    }

    /// All knobs.
    pub fn all_knobs(&self) -> &[Knob] {
        &self.knobs
    }

    /// What a knob should be, numbers filled in.
    pub fn want(&self, knob: &Knob) -> Want {
        Want::new(knob.how, &self.filled(&knob.value))
    }

    fn filled(&self, value: &str) -> String {
        match value {
            "$NOFILE" => self.descriptors().to_string(),
            "$NR_OPEN" => self.descriptors().next_power_of_two().to_string(),
            "$TCP_MEM" => {
                // As the kernel does: pressure at two thirds of the high mark, nothing below half.
                let high = self.connections * SOCKET_BYTES * 5 / 4 / PAGE_BYTES;
                format!("{} {} {high}", high / 2, high * 2 / 3)
            }
            other => other.to_owned(),
        }
    }

    /// Descriptors for its connections.
    pub fn descriptors(&self) -> u64 {
        self.connections.saturating_mul(11).div_ceil(10)
    }

    /// Adds a trait.
    fn add(&mut self, other: &Sheet) {
        self.name = format!("{}+{}", self.name, other.name);
        self.tuned_summary = format!("{} ({})", self.tuned_summary, other.name);
        if self.tuned.is_some() {
            self.tuned = other.tuned.clone().or_else(|| self.tuned.take());
        }
        self.take(&other.knobs);
    }

    fn take(&mut self, knobs: &[Knob]) {
        for knob in knobs {
            match self.knobs.iter_mut().find(|it| it.key == knob.key) {
                Some(place) => *place = knob.clone(),
                None => self.knobs.push(knob.clone()),
            }
        }
    }

    /// A sheet with what it includes.
    fn of(sheet: &Sheet, sheets: &[Sheet]) -> Self {
        let mut profile = Self {
            name: sheet.name.clone(),
            summary: sheet.summary.clone(),
            tuned_summary: sheet.tuned_summary.clone(),
            tuned: sheet.tuned.clone(),
            connections: sheet.connections,
            process: sheet.process.clone(),
            knobs: Vec::new(),
        };
        for name in &sheet.include {
            if let Some(other) = sheets.iter().find(|it| it.name == *name) {
                let other = Self::of(other, sheets);
                profile.take(&other.knobs);
            }
        }
        profile.take(&sheet.knobs);
        profile
    }
}

/// No profile is called so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    pub name: String,
    pub near: Option<String>,
    pub known: Vec<String>,
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "there is no profile `{}`", self.name)?;
        if let Some(near) = &self.near {
            write!(f, "; did you mean `{near}`?")?;
        }
        write!(f, " (there are {})", self.known.join(", "))
    }
}

/// All files that are built in: profiles first, then parts, then traits.
pub fn built_in() -> Vec<(Role, Profile)> {
    let sheets = sheets();
    let roles = SHEETS.iter().map(|it| it.0);
    roles.zip(&sheets).map(|(role, sheet)| (role, Profile::of(sheet, &sheets))).collect()
}

/// The names of built-in files of one role.
pub fn names(role: Role) -> Vec<&'static str> {
    SHEETS.iter().filter(|it| it.0 == role).map(|it| it.1).collect()
}

/// The built-in profile of a name like `edge` or `edge+latency`.
pub fn find(name: &str) -> Result<Profile, Unknown> {
    let sheets = sheets();
    let mut words = name.split('+');
    let get = |word: &str, role: Role| {
        let known = names(role);
        match known.iter().position(|it| *it == word) {
            Some(_) => Ok(sheets.iter().find(|it| it.name == word)),
            None => Err(Unknown {
                name: word.to_owned(),
                near: keys::nearest(word, &known).map(str::to_owned),
                known: known.iter().map(|it| (*it).to_owned()).collect(),
            }),
        }
    };
    let first = words.next().unwrap_or_default();
    let missing = || Unknown { name: name.to_owned(), near: None, known: Vec::new() };
    let mut profile = Profile::of(get(first, Role::Profile)?.ok_or_else(missing)?, &sheets);
    for word in words {
        profile.add(get(word, Role::Trait)?.ok_or_else(missing)?);
    }
    Ok(profile)
}

/// A profile out of somebody's own file, which may include ours.
pub fn from_file(path: &Path) -> Result<Profile, Findings> {
    let unreadable = |what: &str| {
        let mut found = Findings::new(path, "");
        let mend = "`tandem tune explain edge` shows what stands in one";
        found.push(Finding::error("C0102", 0..0, what).mend(mend));
        found
    };
    let source = match std::fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) => return Err(unreadable("the profile is not UTF-8 text")),
        Err(fault) => {
            return Err(unreadable(&format!("the profile can't be read: {}", in_words(&fault))));
        }
    };
    let mut found = Findings::new(path, &source);
    let sheet = read::sheet(&source, &mut found);
    found.sort();
    match sheet {
        Some(sheet) if found.errors() == 0 => Ok(Profile::of(&sheet, &sheets())),
        _ => Err(found),
    }
}

fn sheets() -> Vec<Sheet> {
    let read = |&(_, name, text): &(Role, &str, &str)| {
        let mut found = Findings::new(Path::new(name), text);
        let sheet = read::sheet(text, &mut found);
        assert!(found.errors() == 0, "a built-in profile is wrong:\n{found}");
        sheet.unwrap_or_default()
    };
    SHEETS.iter().map(read).collect()
}

/// What is built in.
const SHEETS: &[(Role, &str, &str)] = &[
    (Role::Profile, "edge", include_str!("../../tuning/edge.toml")),
    (Role::Profile, "core", include_str!("../../tuning/core.toml")),
    (Role::Profile, "loadgen", include_str!("../../tuning/loadgen.toml")),
    (Role::Profile, "laptop", include_str!("../../tuning/laptop.toml")),
    (Role::Part, "process", include_str!("../../tuning/parts/process.toml")),
    (Role::Part, "common", include_str!("../../tuning/parts/common.toml")),
    (Role::Part, "server", include_str!("../../tuning/parts/server.toml")),
    (Role::Trait, "latency", include_str!("../../tuning/traits/latency.toml")),
    (Role::Trait, "throughput", include_str!("../../tuning/traits/throughput.toml")),
];

/// Kernel memory of an idle socket under load, as its published high mark has it.
const SOCKET_BYTES: u64 = 4_400;
/// The unit of tcp_mem.
const PAGE_BYTES: u64 = 4_096;
