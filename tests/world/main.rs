//! The simulated world: several shards in one thread, virtual time, scripted far ends.
//!
//! `scenes` plays every conversation of `tests/scenes` under several ways to cut octets; `storm`
//! lets random traffic and failures loose on the same checkers.

mod actors;
mod control;
mod cuts;
mod edges;
mod ends;
mod homes;
mod kernel;
mod random;
mod scene;
mod scram;
mod store;
mod storm;
mod turn;
mod words;
mod world;
mod xml;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::kernel::Cut;

/// Every scene of the folder, three times; all that fail are told.
#[test]
fn scenes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenes");
    let wanted = std::env::var("SCENE").unwrap_or_default();
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "scene"))
        .filter(|path| path.to_string_lossy().contains(&wanted))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "there are no scenes");
    let mut failures = Vec::new();
    for path in &paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).unwrap();
        for (seed, cut) in [(1, Cut::Whole), (2, Cut::Single), (3, Cut::Random), (4, Cut::Random)] {
            let played = catch_unwind(AssertUnwindSafe(|| scene::play(&text, seed, cut)));
            let why = match played {
                Ok(Ok(())) => continue,
                Ok(Err(why)) => why,
                Err(panic) => said(&*panic),
            };
            failures.push(format!("{name} (seed {seed}, {cut:?}): {why}"));
            break;
        }
    }
    let names: Vec<_> = failures.iter().filter_map(|f| f.lines().next()).collect();
    assert!(
        failures.is_empty(),
        "{} of {} scenes failed\n\n{}\n\n{}",
        failures.len(),
        paths.len(),
        failures.join("\n\n"),
        names.join("\n")
    );
}

/// Fifty seeds, as many as `SEEDS` says, or the one of `STORM_SEED`.
#[test]
fn storm() {
    seeds("STORM_SEED", 50, storm::rage);
}

/// Forty seeds, as many as `SEEDS` says, or the one of `HOMES_SEED`.
#[test]
fn storm_over_homes() {
    seeds("HOMES_SEED", 40, homes::rage);
}

fn seeds(variable: &str, count: u64, rage: impl Fn(u64) -> Result<(), String>) {
    let number = |name: &str| std::env::var(name).ok().and_then(|it| it.parse::<u64>().ok());
    let seeds = match number(variable) {
        Some(seed) => seed..seed + 1,
        None => 1..number("SEEDS").unwrap_or(count) + 1,
    };
    let mut failures = Vec::new();
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| rage(seed))) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => failures.push(format!("{variable}={seed}: {why}")),
            Err(panic) => failures.push(format!("{variable}={seed}: {}", said(&*panic))),
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// A thousand cuts and more, or those of `CUTS_SEED`.
#[test]
fn cuts() {
    let seeds = match std::env::var("CUTS_SEED").ok().and_then(|seed| seed.parse::<u64>().ok()) {
        Some(seed) => seed..seed + 1,
        None => 1..81,
    };
    let (mut failures, mut sums) = (Vec::new(), [0; 3]);
    let all = seeds.end - seeds.start > 1;
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| cuts::cut(seed))) {
            Ok(Ok(counts)) => sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count),
            Ok(Err(why)) => failures.push(format!("CUTS_SEED={seed}: {why}")),
            Err(panic) => failures.push(format!("CUTS_SEED={seed}: {}", said(&*panic))),
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    let [cuts, swallowed, stored] = sums;
    eprintln!(
        "{cuts} cuts: 0 lost, 0 doubled, order kept; {swallowed} heard again, {stored} stored"
    );
    assert!(!all || cuts >= 1_000 && swallowed > 100 && stored > 100, "too few of something");
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    format!("panic: {}", text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?"))
}
