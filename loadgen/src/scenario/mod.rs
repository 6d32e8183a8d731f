//! What a run shall do: scenarios as files, as shipped, and as plain values.
//!
//! A scenario is a TOML file, by path or by the name of a built-in. What is wrong with it is told
//! in one go, with line and column, in the form of the server's own configuration.

pub mod built_in;
pub mod model;
mod overrides;
mod read;
mod section;
mod thresholds;
pub mod units;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use tandem::config::{Finding, Findings};

pub use overrides::{Overrides, set_rate};
pub use read::{kind_word, parse, phase_word};
pub use thresholds::of_line;

use crate::scenario::model::Scenario;

/// A scenario with the text it was read from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub scenario: Scenario,
    /// As written.
    pub text: String,
}

/// Reads a scenario by path, or a built-in by name.
pub fn load(name: &str) -> Result<Loaded, Findings> {
    let (path, text) = match built_in::find(name) {
        Some(it) => (PathBuf::from(format!("{name}.toml")), it.text.to_owned()),
        None => (PathBuf::from(name), read_file(name)?),
    };
    let scenario = parse(&path, &text)?;
    Ok(Loaded { scenario, text })
}

fn read_file(name: &str) -> Result<String, Findings> {
    let path = Path::new(name);
    std::fs::read_to_string(path).map_err(|fault| {
        let mut found = Findings::new(path, "");
        let names: Vec<&str> = built_in::ALL.iter().map(|it| it.name).collect();
        let near = section::did_you_mean(name, &names);
        let what = format!(
            "no scenario can be read here: {fault}{}{near}",
            if near.is_empty() { "" } else { "; " }
        );
        found.push(
            Finding::error("L0006", 0..0, what)
                .mend(format!("give a file, or one of {}", section::listed(&names))),
        );
        found
    })
}
