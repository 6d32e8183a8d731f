//! Instructions per operation of the core below the kernel, counted by callgrind, and the gate on them.
//!
//! Each operation has a driver with fixed inputs and fixed seeds, run in a process of its own under
//! valgrind without an environment; only what happens inside [`counted`] is counted. What comes out is
//! steady to the last digits, so it says whether a change costs something where time says nothing.
//! Does **not** count the kernel, TLS, or anything that waits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::bars::say;
use crate::{index, scan};

mod baseline;
mod chat;
mod gateway;
#[cfg(test)]
mod steady;
mod world;

use baseline::Baseline;
use world::Pace;

/// What callgrind counts: the name is on its command line.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    #[cfg(test)]
    let before = crate::counting::allocations_here();
    work();
    #[cfg(test)]
    steady::note(crate::counting::allocations_here() - before);
}

/// What to count.
#[derive(clap::Args)]
pub(crate) struct Count {
    /// Which operations; all of them if none is named.
    #[arg(value_enum)]
    which: Vec<Operation>,
    /// What is compared with.
    #[arg(long, default_value = "bench/counts.toml")]
    baseline: PathBuf,
    /// Takes what was counted as the new baseline.
    #[arg(long)]
    accept: bool,
    /// Keeps callgrind's files there, one for each operation, for `callgrind_annotate`.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Runs one operation here and prints how often: what is called under callgrind.
    #[arg(long, hide = true)]
    here: bool,
}

/// An operation of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Operation {
    /// The strict scan and the address of a stanza of 300 octets.
    Scan,
    /// The index of a SIP message of 3,000 octets.
    SipIndex,
    /// Framing, index and the checks of such a request.
    SipChecked,
    /// A chat message through the engine, alone in its turn.
    Message,
    /// The same with 64 in a turn.
    MessageBusy,
    /// The same with stream management on both ends.
    MessageManaged,
    /// One delivery of a change of presence to 1,000 watchers.
    FanOut,
    /// A MESSAGE in a dialog to a client, its acknowledgement, the answer.
    GatewayIn,
    /// A client's message, MESSAGE in a dialog, its answer.
    GatewayOut,
}

impl Operation {
    fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self)
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    /// Runs it and says how often.
    fn run(self) -> Result<u64, String> {
        match self {
            Self::Scan => scan::repeat(20, |pass| counted(pass)),
            Self::SipIndex => index::repeat(20, false, |pass| counted(pass)),
            Self::SipChecked => index::repeat(20, true, |pass| counted(pass)),
            Self::Message => chat::messages(64, 1, 2_000, false, Pace::Quick),
            Self::MessageBusy => chat::messages(64, 64, 64, false, Pace::Quick),
            Self::MessageManaged => chat::messages(64, 64, 64, true, Pace::Quick),
            Self::FanOut => chat::fan_out(1_000, 8),
            Self::GatewayIn => gateway::messages(16, false),
            Self::GatewayOut => gateway::messages(16, true),
        }
    }
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
struct Figure {
    name: String,
    instructions: f64,
}

impl Count {
    /// Counts, prints and judges; an error is a figure that grew, or no figure at all.
    pub(crate) fn run(&self) -> Result<(), String> {
        let all = <Operation as clap::ValueEnum>::value_variants();
        let which = if self.which.is_empty() { all } else { &self.which };
        if self.here {
            return which.iter().try_for_each(|it| say(&it.run()?.to_string()));
        }
        let baseline = Baseline::read(&self.baseline)?;
        let begin = Instant::now();
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let keep = self.keep.as_deref().unwrap_or_else(|| dir.path());
        fs::create_dir_all(keep).map_err(|e| format!("{}: {e}", keep.display()))?;
        let (mut figures, mut grown) = (Vec::new(), Vec::new());
        for it in which {
            let figure = count(*it, keep)?;
            let (line, holds) = baseline.judge(&figure);
            say(&line)?;
            if !holds {
                grown.push(figure.name.clone());
            }
            figures.push(figure);
        }
        say(&baseline.note(begin.elapsed()))?;
        if self.accept {
            fs::write(&self.baseline, baseline.with(&figures).text())
                .map_err(|e| format!("{}: {e}", self.baseline.display()))?;
            return say(&format!("written to {}", self.baseline.display()));
        }
        if grown.is_empty() {
            return Ok(());
        }
        Err(format!(
            "more instructions than allowed: {}. Where they go: `tandem-bench count {} --keep DIR`, \
             then `callgrind_annotate DIR/{}.out`. If they are worth it, `tandem-bench count --accept` \
             and commit {} with the reason",
            grown.join(", "),
            grown.join(" "),
            grown.first().map_or("", String::as_str),
            self.baseline.display(),
        ))
    }
}

/// Runs one operation under callgrind, `keep` being where its file goes.
fn count(operation: Operation, keep: &Path) -> Result<Figure, String> {
    let name = operation.name();
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let path = keep.join(format!("{name}.out"));
    let out = Command::new("valgrind")
        // What is in the environment moves the stack.
        .env_clear()
        .args(["--tool=callgrind", "--error-exitcode=9", "--quiet"])
        .arg("--toggle-collect=tandem_bench::count::counted")
        .arg(format!("--callgrind-out-file={}", path.display()))
        .arg(own)
        .args(["count", "--here", &name])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("valgrind: {e} (Debian's package valgrind)"))?;
    let said = String::from_utf8_lossy(&out.stdout);
    let times: Option<u64> = said.lines().next_back().and_then(|line| line.trim().parse().ok());
    let Some(times) = times.filter(|_| out.status.success()) else {
        return Err(format!("{name}: {}{said}", String::from_utf8_lossy(&out.stderr)));
    };
    let file = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let sum = total(&file).filter(|sum| *sum > 0).ok_or_else(|| format!("{name}: no count"))?;
    Ok(Figure { name, instructions: sum as f64 / times.max(1) as f64 })
}

/// The sum in a file of callgrind's.
fn total(file: &str) -> Option<u64> {
    let of = |key| file.lines().rev().find_map(|line| line.strip_prefix(key))?.trim().parse().ok();
    of("totals:").or_else(|| of("summary:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The drivers are sound: every message comes, none is bounced or refused.
    #[test]
    fn each_operation_does_what_it_says() {
        for operation in <Operation as clap::ValueEnum>::value_variants() {
            let times = operation.run().unwrap_or_else(|e| panic!("{}: {e}", operation.name()));
            assert!(times > 0, "{}", operation.name());
        }
    }

    #[test]
    fn the_sum_is_read_from_either_line() {
        assert_eq!(total("events: Ir\nsummary: 12\n\ntotals: 13\n"), Some(13));
        assert_eq!(total("events: Ir\nsummary: 12\n"), Some(12));
        assert_eq!(total("events: Ir\n"), None);
    }
}
