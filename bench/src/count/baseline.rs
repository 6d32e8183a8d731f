//! The counts that were accepted, in a file, and the verdict on new ones.
//!
//! Another compiler makes other code of the same text, and another processor makes valgrind show other
//! features to the byte searches, so beside the compiler and the features the counts were taken with,
//! a wider tolerance is kept for all others.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Figure;

const TOLERANCE_PERCENT: f64 = 2.0;
const TOLERANCE_ELSEWHERE_PERCENT: f64 = 15.0;

/// What is compared with.
#[derive(Clone, Debug, Default)]
pub(super) struct Baseline {
    tolerance: f64,
    elsewhere: f64,
    /// Compiler and processor features.
    made_by: String,
    own: String,
    counts: BTreeMap<String, f64>,
}

impl Baseline {
    /// A file that isn't there is an empty one.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = match fs::read_to_string(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
            read => read.map_err(|e| format!("{}: {e}", path.display()))?,
        };
        Self::parse(&text, toolchain()).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn parse(text: &str, own: String) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
        let number = |value: &toml::Value| {
            value.as_float().or_else(|| value.as_integer().map(|it| it as f64))
        };
        let percent = |key: &str, default| table.get(key).and_then(number).unwrap_or(default);
        let counts = table.get("instructions").and_then(toml::Value::as_table);
        let counts = counts.into_iter().flatten();
        Ok(Self {
            tolerance: percent("tolerance_percent", TOLERANCE_PERCENT),
            elsewhere: percent("tolerance_elsewhere_percent", TOLERANCE_ELSEWHERE_PERCENT),
            made_by: table.get("toolchain").and_then(toml::Value::as_str).unwrap_or("").to_owned(),
            own,
            counts: counts.filter_map(|(k, v)| Some((k.clone(), number(v)?))).collect(),
        })
    }

    fn is_elsewhere(&self) -> bool {
        self.made_by != self.own
    }

    fn allowed(&self) -> f64 {
        if self.is_elsewhere() { self.elsewhere } else { self.tolerance }
    }

    /// A line about a figure, and whether it is within the tolerance.
    pub(super) fn judge(&self, figure: &Figure) -> (String, bool) {
        let Figure { name, instructions } = figure;
        let Some(was) = self.counts.get(name).filter(|was| **was > 0.0) else {
            return (format!("{name:<16} {instructions:>10.1} instructions, no baseline"), true);
        };
        let change = (instructions / was - 1.0) * 100.0;
        let verdict = match change {
            it if it > self.allowed() => "GREW",
            it if it < -self.allowed() => "shrank: accept it",
            _ => "holds",
        };
        let line = format!(
            "{name:<16} {instructions:>10.1} instructions, baseline {was:>10.1} ({change:+.2} %) {verdict}"
        );
        (line, change <= self.allowed())
    }

    /// What is said below the figures.
    pub(super) fn note(&self, took: Duration) -> String {
        let seconds = took.as_secs_f64();
        let allowed = self.allowed();
        if self.counts.is_empty() || !self.is_elsewhere() {
            return format!("counted in {seconds:.0} s; tolerance {allowed} %");
        }
        format!(
            "counted in {seconds:.0} s; tolerance {allowed} %, since the baseline is of {} and this is {}",
            self.made_by, self.own
        )
    }

    /// The baseline with new figures, which all are of this toolchain.
    pub(super) fn with(&self, figures: &[Figure]) -> Self {
        let mut made = self.clone();
        if made.is_elsewhere() {
            // Counts of two compilers in one file would mean nothing.
            made.counts.clear();
        }
        made.made_by.clone_from(&made.own);
        let new = figures.iter().map(|it| (it.name.clone(), it.instructions));
        made.counts.extend(new);
        made
    }

    pub(super) fn text(&self) -> String {
        let counts: String =
            self.counts.iter().map(|(name, count)| format!("{name} = {count:.1}\n")).collect();
        format!(
            "# Instructions per operation of the core, as `tandem-bench count` counts them under callgrind.\n\
             # A change that makes one grow beyond the tolerance fails tests/run. To accept new counts run\n\
             # `tandem-bench count --accept` on a release build and say in the commit what they buy.\n\
             tolerance_percent = {:.1}\n\
             # With another compiler, or on a processor with other features.\n\
             tolerance_elsewhere_percent = {:.1}\n\
             toolchain = \"{}\"\n\n[instructions]\n{counts}",
            self.tolerance, self.elsewhere, self.made_by
        )
    }
}

/// The compiler in use, and whether the byte searches find AVX2.
fn toolchain() -> String {
    let asked = Command::new("rustc").arg("--version").output();
    let said = asked.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    let said = said.unwrap_or_default();
    let rustc: Vec<&str> = said.split_whitespace().take(2).collect();
    #[cfg(target_arch = "x86_64")]
    let avx2 = std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    let avx2 = false;
    let features = if avx2 { "with AVX2" } else { "without AVX2" };
    format!("{} {} {features}", rustc.join(" "), std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, instructions: f64) -> Figure {
        Figure { name: name.to_owned(), instructions }
    }

    #[test]
    fn growth_beyond_the_tolerance_fails_and_nothing_else_does() {
        let text = "toolchain = 'here'\n[instructions]\nscan = 1000\nmessage = 5000.5\n";
        let here = Baseline::parse(text, "here".to_owned()).unwrap();
        for (count, holds) in [(1_019.0, true), (1_021.0, false), (900.0, true)] {
            assert_eq!(here.judge(&figure("scan", count)).1, holds, "{count}");
        }
        assert!(here.judge(&figure("new", 1.0)).1);
        let there = Baseline::parse(text, "there".to_owned()).unwrap();
        assert!(there.judge(&figure("scan", 1_140.0)).1);
        assert!(!there.judge(&figure("scan", 1_160.0)).1);
        assert!(Baseline::parse("scan =", String::new()).is_err());
    }

    #[test]
    fn what_is_accepted_is_read_again() {
        let old = Baseline::parse("tolerance_percent = 3\n", "here".to_owned()).unwrap();
        let new = old.with(&[figure("scan", 1_234.56), figure("fan-out", 9.0)]);
        let again = Baseline::parse(&new.text(), "here".to_owned()).unwrap();
        assert_eq!(again.text(), new.text());
        assert_eq!((again.tolerance, again.is_elsewhere()), (3.0, false));
        assert!(again.judge(&figure("scan", 1_234.0)).0.ends_with("holds"));
    }
}
