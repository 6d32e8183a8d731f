//! The host held against a profile: a row for each knob, and what to change in words.
//!
//! What is better already is good. What can't be read or set here is skipped with the reason and is
//! no fault. What is good now but will be undone at the next boot is a conflict.

use crate::tune::host::{Host, Unread, sysctl_path};
use crate::tune::persisted::{Persisted, Setting};
use crate::tune::probe::{self, Context};
use crate::tune::profile::{Kind, Knob, Profile, Severity};
use crate::tune::want::Want;

/// How a knob stands. In the order in which one hides another among several of a knob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Ok,
    Skipped,
    /// Less than wanted.
    Low,
    /// More than wanted.
    High,
    /// Another word than wanted.
    Differs,
    /// Somebody else undoes it, or will.
    Conflict,
}

impl Outcome {
    /// For people and programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Low => "low",
            Self::High => "high",
            Self::Differs => "differs",
            Self::Conflict => "conflict",
        }
    }

    /// Whether something should be changed.
    pub fn is_bad(self) -> bool {
        !matches!(self, Self::Ok | Self::Skipped)
    }
}

/// What was found about one knob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub outcome: Outcome,
    /// As it stands; empty if it could not be seen.
    pub now: String,
    /// Why it is skipped, or what makes it bad.
    pub why: String,
    /// What to change, in words.
    pub mend: String,
    /// What to paste.
    pub commands: Vec<String>,
}

impl Found {
    pub(super) fn ok(now: &str) -> Self {
        Self::bad(Outcome::Ok, now, "")
    }

    pub(super) fn skipped(why: &str) -> Self {
        Self::bad(Outcome::Skipped, "", why)
    }

    pub(super) fn bad(outcome: Outcome, now: &str, why: &str) -> Self {
        let (now, why) = (now.to_owned(), why.to_owned());
        Self { outcome, now, why, mend: String::new(), commands: Vec::new() }
    }

    pub(super) fn mend(self, mend: &str) -> Self {
        Self { mend: mend.to_owned(), ..self }
    }

    pub(super) fn command(mut self, command: &str) -> Self {
        self.commands.push(command.to_owned());
        self
    }
}

/// One knob, held against the host.
#[derive(Clone, Debug)]
pub struct Row {
    pub knob: Knob,
    /// For people: `>= 65535`.
    pub wanted: String,
    pub found: Found,
    /// Who sets it at the next boot, and to what.
    pub at_boot: Option<(String, String)>,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Report {
    pub profile: Profile,
    pub host: String,
    /// Whose limits were read.
    pub process: String,
    pub rows: Vec<Row>,
    /// Who else tunes this host.
    pub tuners: Vec<String>,
}

impl Report {
    /// How many rows came out so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.rows.iter().filter(|it| it.found.outcome == outcome).count()
    }

    /// Bad rows of a severity.
    pub fn bad(&self, severity: Severity) -> usize {
        let is_it = |it: &&Row| it.knob.severity == severity && it.found.outcome.is_bad();
        self.rows.iter().filter(is_it).count()
    }
}

/// Looks at every knob. `pid`: the process whose limits count; otherwise the one that runs.
pub fn check(profile: &Profile, host: &Host, pid: Option<u32>) -> Report {
    let node = pid.or_else(|| running(profile, host));
    let process = node.map_or_else(|| "self".to_owned(), |it| it.to_string());
    let persisted = Persisted::of(host);
    let on = Context { host, profile, process: &process };
    let rows = profile
        .knobs()
        .filter(|it| it.kind != Kind::Leave)
        .map(|knob| row(knob, &on, &persisted, node))
        .collect();
    let name = &profile.process;
    let process = match node {
        Some(pid) => format!("{name}, process {pid}"),
        None => format!("this shell ({name} does not run)"),
    };
    let host_line = format!("{}: {}", host.name(), host.summary());
    let tuners = tuners(host, &persisted);
    Report { profile: profile.clone(), host: host_line, process, rows, tuners }
}

/// The node, or the generator.
fn running(profile: &Profile, host: &Host) -> Option<u32> {
    let found = host.processes(&profile.process);
    // `tandem tune` is called tandem too.
    let is_it = |line: &[String]| profile.process != "tandem" || line.iter().any(|it| it == "run");
    found.into_iter().find(|it| is_it(&it.1)).map(|it| it.0)
}

fn tuners(host: &Host, persisted: &Persisted) -> Vec<String> {
    let mut tuners = Vec::new();
    if let Some(profile) = &persisted.tuned {
        tuners.push(format!(
            "TuneD applies its profile {profile}: give it ours instead of writing files beside it"
        ));
    }
    if !host.processes("bpftune").is_empty() {
        tuners.push(
            "bpftune runs: it raises buffers by itself, and gives way to what you set".to_owned(),
        );
    }
    tuners
}

fn row(knob: &Knob, on: &Context<'_>, persisted: &Persisted, node: Option<u32>) -> Row {
    let want = on.profile.want(knob);
    let (found, wanted, setting) = match knob.kind {
        Kind::Sysctl => {
            let setting = persisted.last(&knob.key);
            (sysctl(knob, &want, on, setting), want.to_string(), setting)
        }
        Kind::Sysfs => {
            let setting = knob.tuned.as_ref().and_then(|it| persisted.last(it));
            (sysfs(knob, &want, on, setting), want.to_string(), setting)
        }
        Kind::Limit => (limit(knob, &want, on, node), want.to_string(), None),
        Kind::Check | Kind::Leave => (probe::look(&knob.key, on), knob.value.clone(), None),
    };
    let at_boot = setting.map(|it| (it.by.clone(), it.value.clone()));
    Row { knob: knob.clone(), wanted, found, at_boot }
}

/// The file of ours that `export` makes.
fn own_file(profile: &Profile) -> String {
    format!("60-tandem-{}.conf", profile.name.replace('+', "-"))
}

fn unread(fault: &Unread) -> Found {
    Found::skipped(&match fault {
        Unread::Absent => "this kernel, container or namespace does not have it".to_owned(),
        Unread::Denied => "may not be read by this user: run as root".to_owned(),
        Unread::Other(text) => format!("can't be read: {text}"),
    })
}

fn sysctl(knob: &Knob, want: &Want, on: &Context<'_>, setting: Option<&Setting>) -> Found {
    let path = sysctl_path(&knob.key);
    let now = match on.host.read(&path) {
        Ok(now) => now.split_whitespace().collect::<Vec<_>>().join(" "),
        Err(fault) => return unread(&fault),
    };
    let outcome = want.judge(&now);
    let own = own_file(on.profile);
    let undone = setting.filter(|it| want.judge(&it.value).is_bad());
    if !outcome.is_bad() {
        let Some(undone) = undone else { return Found::ok(&now) };
        let why = format!("at the next boot {} sets {}", undone.by, undone.value);
        let found = Found::bad(Outcome::Conflict, &now, &why);
        return found.mend(&out_of_the_way(undone, &own));
    }
    if let Some(why) = on.host.fixed(&path) {
        return Found { now, ..Found::skipped(&why) };
    }
    let mended = want.mended(&now);
    let quoted = if mended.contains(' ') { format!("\"{mended}\"") } else { mended };
    let command = format!("sysctl -w {}={quoted}", knob.key);
    // A file that is read after ours, and TuneD after all files, would undo it again.
    match undone.filter(|it| it.file.as_ref().is_none_or(|file| *file > own)) {
        Some(undone) => {
            let why = format!("{} sets {} and is read after {own}", undone.by, undone.value);
            let found = Found::bad(Outcome::Conflict, &now, &why).command(&command);
            found.mend(&format!("set it, and {}", out_of_the_way(undone, &own)))
        }
        None => Found::bad(outcome, &now, "").mend("set it").command(&command),
    }
}

fn out_of_the_way(undone: &Setting, own: &str) -> String {
    match undone.file {
        Some(_) => format!("change {}, or it wins over {own} at every boot", undone.by),
        None => format!("{} wins at every boot: let TuneD apply ours", undone.by),
    }
}

fn sysfs(knob: &Knob, want: &Want, on: &Context<'_>, setting: Option<&Setting>) -> Found {
    let pattern = knob.path.as_deref().unwrap_or_default();
    let paths = on.host.matching(pattern);
    if paths.is_empty() {
        return unread(&Unread::Absent);
    }
    let mut worst: Option<(Outcome, String)> = None;
    for path in &paths {
        let now = match on.host.read(path) {
            Ok(now) => chosen(&now),
            Err(fault) => return unread(&fault),
        };
        let outcome = want.judge(&now);
        if worst.as_ref().is_none_or(|it| outcome > it.0) {
            worst = Some((outcome, now));
        }
    }
    let (outcome, now) = worst.unwrap_or((Outcome::Ok, String::new()));
    if !outcome.is_bad() {
        let undone = setting.filter(|it| want.judge(&it.value).is_bad());
        let Some(undone) = undone else { return Found::ok(&now) };
        let why = format!("at the next boot {} sets {}", undone.by, undone.value);
        let found = Found::bad(Outcome::Conflict, &now, &why);
        return found.mend(&out_of_the_way(undone, &own_file(on.profile)));
    }
    let value = want.mended(&now);
    let command = match paths.as_slice() {
        [path] => format!("echo {value} > {path}"),
        _ => format!("echo {value} | tee {pattern}"),
    };
    let mend = "set it; a boot forgets it, so TuneD or a unit of your own keeps it";
    Found::bad(outcome, &now, "").mend(mend).command(&command)
}

/// `always [madvise] never` means madvise.
fn chosen(text: &str) -> String {
    let inside = text.split_once('[').and_then(|it| it.1.split_once(']'));
    inside.map_or_else(|| text.trim(), |it| it.0).to_owned()
}

fn limit(knob: &Knob, want: &Want, on: &Context<'_>, node: Option<u32>) -> Found {
    let name = match knob.key.as_str() {
        "nofile" => "Max open files",
        _ => "Max locked memory",
    };
    let path = format!("/proc/{}/limits", on.process);
    let text = match on.host.read(&path) {
        Ok(text) => text,
        Err(Unread::Absent) if node.is_some() => {
            return Found::skipped(&format!("no process {} is seen here", on.process));
        }
        Err(fault) => return unread(&fault),
    };
    let fields = text.lines().find_map(|it| it.strip_prefix(name));
    let Some(hard) = fields.and_then(|it| it.split_whitespace().nth(1)) else {
        return Found::skipped("the kernel tells no such limit");
    };
    let outcome = want.judge(hard);
    if !outcome.is_bad() {
        return Found::ok(hard);
    }
    // Without a node the unit decides what it will have, and this shell proves nothing.
    let unit = ["/etc/systemd/system/tandem.service", "/usr/lib/systemd/system/tandem.service"];
    let is_unit = node.is_none() && on.profile.process == "tandem";
    if is_unit && unit.iter().any(|it| on.host.exists(it)) {
        let why = format!("this shell has {hard}; the unit decides, and no node runs");
        return Found::skipped(&why);
    }
    let name = &on.profile.name;
    let format = if on.profile.process == "tandem" { "systemd" } else { "limits" };
    let found = Found::bad(outcome, hard, "the hard limit");
    match (format, knob.key.as_str()) {
        ("systemd", _) => found
            .mend("for the unit; then systemctl daemon-reload and a restart of the node")
            .command("mkdir -p /etc/systemd/system/tandem.service.d")
            .command(&format!(
                "tandem tune export {name} --format systemd > \
                 /etc/systemd/system/tandem.service.d/50-tuning.conf"
            )),
        _ => found.mend("for logins; then log in again").command(&format!(
            "tandem tune export {name} --format limits > /etc/security/limits.d/60-tandem-{name}.conf"
        )),
    }
}
