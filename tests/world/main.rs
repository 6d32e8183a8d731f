//! The simulated world: several shards in one thread, virtual time, scripted far ends.
//!
//! `scenes` plays every conversation of `tests/scenes` under several ways to cut octets; `storm`
//! lets random traffic and failures loose on the same checkers.

mod actors;
mod control;
mod kernel;
mod random;
mod scene;
mod scram;
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
                Err(panic) => format!(
                    "panic: {}",
                    panic
                        .downcast_ref::<String>()
                        .map(String::as_str)
                        .or_else(|| panic.downcast_ref::<&str>().copied())
                        .unwrap_or("?")
                ),
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
