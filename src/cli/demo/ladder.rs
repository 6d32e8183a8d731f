//! The conversation as people read it: time, who to whom, what, and whether it held.

use std::time::Instant;

use crate::cli::demo::client::Trouble;
use crate::cli::output::{colour_out, say};

/// Prints steps and counts them.
pub(super) struct Ladder {
    started: Instant,
    colour: bool,
    held: usize,
    failed: Vec<String>,
}

impl Ladder {
    /// The clock starts.
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), colour: colour_out(), held: 0, failed: Vec::new() }
    }

    /// A heading.
    pub(super) fn head(&self, text: &str) {
        say("");
        say(self.paint(BOLD, text));
    }

    /// Does one step and prints what came of it. The step says in words what it saw.
    pub(super) fn step(
        &mut self,
        from: &str,
        to: &str,
        what: &str,
        act: impl FnOnce() -> Result<String, Trouble>,
    ) -> bool {
        let begun = Instant::now();
        let outcome = act();
        let took = begun.elapsed().as_secs_f64() * 1_000.0;
        let at = self.started.elapsed().as_secs_f64();
        let arrow = self.paint(DIM, "->");
        let (mark, seen) = match &outcome {
            Ok(seen) => (self.paint(GREEN, "held  "), seen.clone()),
            Err(trouble) => (self.paint(RED, "FAILED"), trouble.to_string()),
        };
        say(format!(
            "{at:>7.3}s  {from:<7}{arrow} {to:<21} {what:<32} {mark} {took:>6.1} ms  {seen}"
        ));
        match outcome {
            Ok(_) => self.held += 1,
            Err(trouble) => self.failed.push(format!("{from} -> {to}, {what}: {trouble}")),
        }
        self.failed.is_empty()
    }

    /// `31 steps, all held` or which did not; true if all held.
    pub(super) fn summary(&self) -> bool {
        let steps = self.held + self.failed.len();
        let seconds = self.started.elapsed().as_secs_f64();
        say("");
        if self.failed.is_empty() {
            let text = format!("{steps} steps, all held, in {seconds:.1} s");
            say(self.paint(GREEN, &text));
            return steps > 0;
        }
        say(self.paint(RED, &format!("{steps} steps, {} failed:", self.failed.len())));
        for it in &self.failed {
            say(format!("  {it}"));
        }
        false
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const RED: &str = "1;31";
