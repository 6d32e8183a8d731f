//! A profile in the clothes of other tools: TuneD, sysctl.d, limits.d, a drop-in of the unit.
//!
//! What `tuning/` holds of these is made here, and a test compares. Rows that are checked only are
//! in none of them. The files have no moment and no host in them: the same profile, the same octets.

use std::fmt::Write as _;

use crate::tune::profile::{How, Kind, Knob, Profile};

/// Whose clothes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Tuned,
    Sysctl,
    Systemd,
    Limits,
}

impl Format {
    /// As the command line has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tuned => "tuned",
            Self::Sysctl => "sysctl",
            Self::Systemd => "systemd",
            Self::Limits => "limits",
        }
    }
}

/// The file; `Err` says why there is none.
pub fn export(profile: &Profile, format: Format) -> Result<String, String> {
    let name = &profile.name;
    match format {
        Format::Tuned => tuned(profile),
        Format::Sysctl => {
            if !exported(profile).any(|it| it.kind == Kind::Sysctl) {
                return Err(format!("the profile {name} sets no sysctl"));
            }
            Ok(sysctl(profile))
        }
        Format::Systemd => Ok(systemd(profile)),
        Format::Limits => Ok(limits(profile)),
    }
}

/// Where the file belongs on a host.
pub fn place(profile: &Profile, format: Format) -> String {
    let name = dashed(profile);
    match format {
        Format::Tuned => format!("/etc/tuned/tandem-{name}/tuned.conf"),
        Format::Sysctl => format!("/etc/sysctl.d/60-tandem-{name}.conf"),
        Format::Systemd => {
            format!("/etc/systemd/system/{}.service.d/50-tuning.conf", profile.process)
        }
        Format::Limits => format!("/etc/security/limits.d/60-tandem-{name}.conf"),
    }
}

fn dashed(profile: &Profile) -> String {
    profile.name.replace('+', "-")
}

fn exported(profile: &Profile) -> impl Iterator<Item = &Knob> {
    profile.knobs().filter(|it| it.exported)
}

fn head(profile: &Profile, format: Format) -> String {
    format!(
        "# Made by `tandem tune export {} --format {}` from tuning/*.toml: edit there.\n# {}\n",
        profile.name,
        format.word(),
        place(profile, format)
    )
}

fn tuned(profile: &Profile) -> Result<String, String> {
    let Some(parent) = &profile.tuned else {
        return Err(format!("the profile {} is none for TuneD: it sets nothing", profile.name));
    };
    let mut out = head(profile, Format::Tuned);
    // Writing to a String can't fail, here and below.
    write!(out, "[main]\nsummary={}\ninclude={parent}\n", profile.tuned_summary).ok();
    let mut sections: Vec<(&str, String)> = Vec::new();
    for knob in exported(profile) {
        let (section, option) = match (knob.kind, &knob.tuned) {
            (Kind::Sysctl | Kind::Sysfs, Some(place)) => place.split_once('.').unwrap_or_default(),
            (Kind::Sysctl, None) => ("sysctl", knob.key.as_str()),
            (Kind::Sysfs, None) => ("sysfs", knob.path.as_deref().unwrap_or_default()),
            _ => continue,
        };
        let line = format!("# {}\n{option}={}\n", knob.reason, profile.want(knob).tuned());
        match sections.iter_mut().find(|it| it.0 == section) {
            Some((_, lines)) => lines.push_str(&line),
            None => sections.push((section, line)),
        }
    }
    for (section, lines) in sections {
        write!(out, "\n[{section}]\n{lines}").ok();
    }
    Ok(out)
}

fn sysctl(profile: &Profile) -> String {
    let mut out = head(profile, Format::Sysctl);
    out.push_str(
        "# A line here sets its value even where the host has a better one. Take out what\n\
         # `tandem tune check` calls ok. TuneD does not need this file.\n",
    );
    for knob in exported(profile).filter(|it| it.kind == Kind::Sysctl) {
        let better = match knob.how {
            How::Raise => ", more is good",
            How::Lower => ", less is good",
            How::Exact | How::Include => "",
        };
        write!(out, "\n# {}{better}\n{} = {}\n", knob.reason, knob.key, profile.want(knob).value())
            .ok();
    }
    out
}

fn systemd(profile: &Profile) -> String {
    let mut out = head(profile, Format::Systemd) + "[Service]\n";
    for (knob, value) in limited(profile) {
        let name = if knob.key == "nofile" { "LimitNOFILE" } else { "LimitMEMLOCK" };
        let value = if value == "unlimited" { "infinity" } else { &value };
        write!(out, "# {}\n{name}={value}\n", knob.reason).ok();
    }
    out
}

fn limits(profile: &Profile) -> String {
    let mut out = head(profile, Format::Limits);
    // The node has a user of its own; who makes load is any user.
    let who = if profile.process == "tandem" { "tandem" } else { "*" };
    for (knob, value) in limited(profile) {
        write!(out, "# {}\n{who} - {} {value}\n", knob.reason, knob.key).ok();
    }
    out
}

/// Limits with the values that files give: never less than what the unit has without them.
fn limited(profile: &Profile) -> impl Iterator<Item = (&Knob, String)> {
    exported(profile).filter(|it| it.kind == Kind::Limit).map(|knob| {
        let value = profile.want(knob).value();
        let value = match value.parse::<u64>() {
            Ok(number) => number.next_power_of_two().max(NOFILE_UNIT).to_string(),
            Err(_) => value,
        };
        (knob, value)
    })
}

/// LimitNOFILE of the unit as it is shipped, and the kernel's default of fs.nr_open.
const NOFILE_UNIT: u64 = 1_048_576;

/// What is checked in: path, profile, format.
pub const FILES: &[(&str, &str, Format)] = &[
    ("tuned/tandem-edge/tuned.conf", "edge", Format::Tuned),
    ("tuned/tandem-core/tuned.conf", "core", Format::Tuned),
    ("tuned/tandem-loadgen/tuned.conf", "loadgen", Format::Tuned),
    ("sysctl.d/60-tandem-edge.conf", "edge", Format::Sysctl),
    ("sysctl.d/60-tandem-core.conf", "core", Format::Sysctl),
    ("sysctl.d/60-tandem-loadgen.conf", "loadgen", Format::Sysctl),
    ("limits.d/60-tandem-edge.conf", "edge", Format::Limits),
    ("limits.d/60-tandem-core.conf", "core", Format::Limits),
    ("limits.d/60-tandem-loadgen.conf", "loadgen", Format::Limits),
    ("systemd/edge/tandem.service.d/50-tuning.conf", "edge", Format::Systemd),
    ("systemd/core/tandem.service.d/50-tuning.conf", "core", Format::Systemd),
];
