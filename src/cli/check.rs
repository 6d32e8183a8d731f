//! `tandem check`: looks for mistakes without running anything.

use serde_json::json;

use crate::address::Address;
use crate::admin::Exit;
use crate::cli::output::{colour_out, say};
use crate::cli::{CheckConfigArgs, CheckPolicyArgs, Output};
use crate::config::{self, Findings, Loaded};

/// `check config`: all that is wrong, and what would run.
pub(super) fn config(args: &CheckConfigArgs) -> Exit {
    if args.keys {
        say(config::keys::reference().trim_end());
        return Exit::Done;
    }
    let outcome = config::load(&args.config);
    let found = outcome.as_ref().map_or_else(|it| it, |it| &it.warnings);
    let exit = match &outcome {
        Err(_) => Exit::Config,
        Ok(_) if found.warnings() > 0 && args.deny_warnings => Exit::Warnings,
        Ok(_) => Exit::Done,
    };
    match args.output {
        Output::Json => say(document(found, outcome.as_ref().ok())),
        Output::Text => {
            let text = found.render(colour_out());
            if !text.is_empty() {
                say(text.trim_end());
                say("");
            }
            if let (Ok(loaded), false) = (&outcome, args.quiet) {
                say(loaded.summary());
            }
            if !args.quiet || exit != Exit::Done {
                say(format!("{} in {}", found.count(), args.config.display()));
            }
        }
    }
    exit
}

fn document(found: &Findings, loaded: Option<&Loaded>) -> serde_json::Value {
    json!({
        "schema": 1,
        "errors": found.errors(),
        "warnings": found.warnings(),
        "findings": found.json(),
        "runs": loaded.map(Loaded::summary_json),
    })
}

/// `check policy`: the verdict and the rule behind it.
pub(super) fn policy(args: &CheckPolicyArgs) -> Exit {
    let loaded = match config::load(&args.config) {
        Ok(loaded) => loaded,
        Err(found) => {
            say(found.render(colour_out()).trim_end());
            return Exit::Config;
        }
    };
    let mut domains = Vec::new();
    for written in [&args.from, &args.to] {
        match Address::parse(written) {
            Ok(address) => domains.push(address.domain().to_owned()),
            Err(fault) => {
                say(format!("{written}: {}", fault.reason()));
                return Exit::Refused;
            }
        }
    }
    let is_local = |domain: &str| loaded.settings.domain(domain).is_some();
    let foreign: Vec<&String> = domains.iter().filter(|it| !is_local(it)).collect();
    let (allowed, why, rule) = match foreign.as_slice() {
        [] => (true, "both are served here; no rule of federation is asked".to_owned(), None),
        [foreign] => {
            let (rule, pattern) = loaded.settings.policy.verdict(foreign);
            let pattern = pattern.map(config::pattern_text);
            let why = match &pattern {
                Some(pattern) => {
                    format!("the rule \"{pattern}\" is the most specific one for {foreign}")
                }
                None => format!("no rule is about {foreign}, so the default holds"),
            };
            let edge = loaded.settings.policy.edge(foreign);
            let how = match edge.filter(|_| rule.protocol.sip().is_some() && rule.allow) {
                Some(edge) => format!("{}, behind the edge {}", config::rule_text(rule), edge.name),
                None => config::rule_text(rule),
            };
            (rule.allow, why, Some(how))
        }
        _ => (
            false,
            "neither domain is served here, and a switch relays for nobody else".to_owned(),
            None,
        ),
    };
    match args.output {
        Output::Json => {
            let spoken = foreign.first().filter(|_| foreign.len() == 1).map(|it| {
                let rule = loaded.settings.policy.verdict(it).0;
                let protocol = if rule.protocol.sip().is_some() { "sip" } else { "xmpp" };
                json!({ "protocol": protocol, "profile": rule.profile.word() })
            });
            say(json!({ "schema": 1, "allowed": allowed, "why": why, "rule": rule,
                        "speaks": spoken }));
        }
        Output::Text => {
            say(format!(
                "{}: {} -> {}",
                if allowed { "allowed" } else { "denied" },
                args.from,
                args.to
            ));
            say(format!("  because {why}"));
            if let Some(rule) = rule {
                say(format!("  how     {rule}"));
            }
        }
    }
    if allowed { Exit::Done } else { Exit::Refused }
}
