//! `tandem tune`: is this host fit, and what would make it so. Changes nothing.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::admin::Exit;
use crate::cli::output::{colour_note, colour_out, note, note_text, say, say_text};
use crate::cli::{CONFIG, Output};
use crate::config;
use crate::limits::TUNE_CONNECTIONS_MAX;
use crate::tune::export::{self, Format};
use crate::tune::{self, Host, Knob, Profile, Report, Role, Row, Scope, Severity};

mod text;

/// What may be asked.
#[derive(Debug, Subcommand)]
pub(super) enum TuneCommand {
    /// Shows the profiles, and which one fits this host.
    #[command(after_help = "Example: tandem tune list\n\nExit codes: 0.")]
    List(ListArgs),
    /// Tells each knob of a profile: value, reason, evidence, risk, how to read it back.
    #[command(
        after_help = "Example: tandem tune explain edge\n         tandem tune explain core net.core.somaxconn\n\nExit codes: 0, 2 no such profile or knob, 78 a wrong --file."
    )]
    Explain(ExplainArgs),
    /// Holds this host against a profile and says what to change. Changes nothing, needs no root.
    #[command(
        after_help = "Example: tandem tune check edge\n         tandem tune check core --connections 200000\n         tandem tune check edge+latency -o json\n\nWithout a profile it takes the one that `tandem tune list` finds fit.\nExit codes: 0 nothing fatal, 1 something fatal, 2 no such profile, 78 a wrong --file."
    )]
    Check(CheckArgs),
    /// Prints a profile as another tool reads it.
    #[command(
        after_help = "Example: tandem tune export edge --format tuned > /etc/tuned/tandem-edge/tuned.conf\n         tandem tune export core --format systemd\n\nExit codes: 0, 1 the profile has nothing for that tool, 2 no such profile, 78 a wrong --file."
    )]
    Export(ExportArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// The node's configuration, which tells what the host is for.
    #[arg(long, default_value = CONFIG)]
    config: PathBuf,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Which profile.
#[derive(Debug, Args)]
struct Which {
    /// edge, core, loadgen, laptop; with a trait: edge+latency.
    profile: Option<String>,
    /// A profile of one's own instead; it may include ours.
    #[arg(long, conflicts_with = "profile")]
    file: Option<PathBuf>,
    /// For so many connections instead of as many as the profile says.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=u64::from(TUNE_CONNECTIONS_MAX)))]
    connections: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    which: Which,
    /// One knob alone.
    key: Option<String>,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    which: Which,
    /// The node's configuration, which tells what the host is for.
    #[arg(long, default_value = CONFIG)]
    config: PathBuf,
    /// The process whose limits count, instead of the node that runs.
    #[arg(long)]
    pid: Option<u32>,
    /// Shows only what is not ok.
    #[arg(long, short)]
    quiet: bool,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// The same as `--output json`.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    which: Which,
    /// Which tool's.
    #[arg(long, value_enum)]
    format: ExportFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExportFormat {
    /// TuneD: PROFILE/tuned.conf
    Tuned,
    /// sysctl.d
    Sysctl,
    /// A drop-in of the unit.
    Systemd,
    /// limits.d
    Limits,
}

impl From<ExportFormat> for Format {
    fn from(it: ExportFormat) -> Self {
        match it {
            ExportFormat::Tuned => Self::Tuned,
            ExportFormat::Sysctl => Self::Sysctl,
            ExportFormat::Systemd => Self::Systemd,
            ExportFormat::Limits => Self::Limits,
        }
    }
}

/// Does what was asked for.
pub(super) fn tune(command: &TuneCommand) -> Exit {
    let done = match command {
        TuneCommand::List(args) => Ok(list(args)),
        TuneCommand::Explain(args) => explain(args),
        TuneCommand::Check(args) => check(args),
        TuneCommand::Export(args) => export(args),
    };
    done.unwrap_or_else(|exit| exit)
}

/// The profile that is meant. `None` is for the caller to choose.
fn wanted(which: &Which) -> Result<Option<Profile>, Exit> {
    let profile = match (&which.profile, &which.file) {
        (_, Some(path)) => Some(tune::from_file(path).map_err(|found| {
            note_text(&found.render(colour_note()));
            note(format!("{} in {}", found.count(), path.display()));
            Exit::Config
        })?),
        (Some(name), None) => Some(named(name)?),
        (None, None) => None,
    };
    Ok(profile.map(|it| sized(it, which)))
}

fn named(name: &str) -> Result<Profile, Exit> {
    tune::find(name).map_err(|fault| {
        note(format!("tandem tune: {fault}"));
        Exit::Usage
    })
}

fn sized(mut profile: Profile, which: &Which) -> Profile {
    profile.connections = which.connections.unwrap_or(profile.connections);
    profile
}

fn required(which: &Which) -> Result<Profile, Exit> {
    wanted(which)?.ok_or_else(|| {
        note("tandem tune: which profile? `tandem tune list` shows them");
        Exit::Usage
    })
}

fn advice(host: &Host, config: &Path) -> tune::Advice {
    let node = config.exists().then(|| config::load(config).ok()).flatten();
    tune::advise(host, node.as_ref())
}

fn list(args: &ListArgs) -> Exit {
    let host = Host::live();
    let advice = advice(&host, &args.config);
    let all = tune::built_in();
    match args.output {
        Output::Text => say_text(&text::list(&all, &advice, &host, colour_out())),
        Output::Json => {
            let of = |role| -> Vec<Value> {
                let rows = all.iter().filter(|it| it.0 == role);
                let row = |it: &(Role, Profile)| {
                    json!({ "name": it.1.name, "summary": it.1.summary,
                            "connections": it.1.connections })
                };
                rows.map(row).collect()
            };
            say(json!({ "schema": 1, "profiles": of(Role::Profile), "traits": of(Role::Trait),
                        "host": host.summary(), "fits": advice.profile, "why": advice.why }));
        }
    }
    Exit::Done
}

fn explain(args: &ExplainArgs) -> Result<Exit, Exit> {
    let profile = required(&args.which)?;
    let mut knobs: Vec<&Knob> = profile.all_knobs().iter().collect();
    if let Some(key) = &args.key {
        let known: Vec<&str> = knobs.iter().map(|it| it.key.as_str()).collect();
        if !known.contains(&key.as_str()) {
            let near = config::keys::nearest(key, &known);
            let near = near.map_or_else(String::new, |it| format!("; did you mean `{it}`?"));
            note(format!("tandem tune: {} has no knob `{key}`{near}", profile.name));
            return Err(Exit::Usage);
        }
        knobs.retain(|it| it.key == *key);
    }
    match args.output {
        Output::Text => say_text(&text::explain(&profile, &knobs, colour_out())),
        Output::Json => {
            let rows: Vec<Value> = knobs.iter().map(|it| knob_json(&profile, it)).collect();
            say(json!({ "schema": 1, "profile": profile.name, "summary": profile.summary,
                        "connections": profile.connections, "knobs": rows }));
        }
    }
    Ok(Exit::Done)
}

fn knob_json(profile: &Profile, knob: &Knob) -> Value {
    let is_set = profile.knobs().any(|it| it.key == knob.key);
    json!({ "key": knob.key, "kind": knob.kind.word(), "wanted": text::wanted(profile, knob),
            "value": profile.want(knob).value(), "namespaced": knob.scope == Scope::Namespace,
            "severity": knob.severity.word(), "counts": is_set, "exported": knob.exported,
            "reason": knob.reason, "evidence": knob.evidence, "risk": knob.risk,
            "read": knob.read, "others": knob.others })
}

fn check(args: &CheckArgs) -> Result<Exit, Exit> {
    let host = Host::live();
    let (profile, why) = match wanted(&args.which)? {
        Some(profile) => (profile, String::new()),
        None => {
            let advice = advice(&host, &args.config);
            (sized(named(advice.profile)?, &args.which), advice.why)
        }
    };
    let report = tune::check(&profile, &host, args.pid);
    if args.json || args.output == Output::Json {
        say(report_json(&report, &why));
    } else {
        say_text(&text::report(&report, &why, args.quiet, colour_out()));
    }
    Ok(if report.bad(Severity::Fatal) > 0 { Exit::Refused } else { Exit::Done })
}

fn report_json(report: &Report, why: &str) -> Value {
    let row = |it: &Row| {
        let at_boot = it.at_boot.as_ref().map(|(by, value)| json!({ "by": by, "value": value }));
        let now = Some(&it.found.now).filter(|it| !it.is_empty());
        json!({ "key": it.knob.key, "kind": it.knob.kind.word(), "wanted": it.wanted, "now": now,
                "severity": it.knob.severity.word(), "result": it.found.outcome.word(),
                "why": it.found.why, "mend": it.found.mend, "commands": it.found.commands,
                "at_boot": at_boot })
    };
    let rows: Vec<Value> = report.rows.iter().map(row).collect();
    let counts: serde_json::Map<String, Value> =
        text::OUTCOMES.iter().map(|it| (it.word().to_owned(), report.count(*it).into())).collect();
    json!({ "schema": 1, "profile": report.profile.name, "chosen_because": why,
            "connections": report.profile.connections, "host": report.host,
            "limits_of": report.process, "tuners": report.tuners, "rows": rows, "counts": counts,
            "fatal": report.bad(Severity::Fatal) })
}

fn export(args: &ExportArgs) -> Result<Exit, Exit> {
    let profile = required(&args.which)?;
    match export::export(&profile, args.format.into()) {
        Ok(text) => {
            say_text(&text);
            Ok(Exit::Done)
        }
        Err(why) => {
            note(format!("tandem tune: {why}"));
            Err(Exit::Refused)
        }
    }
}
