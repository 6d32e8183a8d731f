//! What a bar came to: its line on the terminal, and the same as data for the file of the run.

use std::fmt;

use serde_json::{Value, json};

use super::rounds::Spread;

/// One verdict of a bar.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// The bar's name.
    pub bar: String,
    /// Over the rounds.
    pub figure: Spread,
    /// What is allowed.
    pub limit: f64,
    /// Of figure and limit; empty for a ratio.
    pub unit: &'static str,
    /// `holds`, `MISSED` or `invalid`.
    pub verdict: &'static str,
    /// Who was measured.
    pub subject: String,
    /// Who it was divided by; empty if by nobody.
    pub base: String,
    /// What else is to be said.
    pub told: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bar, figure, limit, unit, verdict, subject, base, told } = self;
        let by = if base.is_empty() { "" } else { " / " };
        if unit.is_empty() {
            // Of a small bound more is seen.
            let digits = if *limit < 0.5 { 3 } else { 2 };
            write!(
                out,
                "{bar} {figure:.digits$} bar {limit:.digits$} {verdict} ({subject}{by}{base}{told})"
            )
        } else {
            write!(
                out,
                "{bar} {figure:.0} {unit} bar {limit:.0} {verdict} ({subject}{by}{base}{told})"
            )
        }
    }
}

impl Outcome {
    /// As it stands in the file.
    pub(super) fn json(&self) -> Value {
        json!({
            "bar": self.bar, "median": self.figure.median, "min": self.figure.min,
            "max": self.figure.max, "limit": self.limit, "unit": self.unit,
            "verdict": self.verdict, "subject": self.subject, "base": self.base,
            "told": self.told, "line": self.to_string(),
        })
    }
}
