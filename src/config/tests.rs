//! Bad files with the words they get, checked in beside each other.
//!
//! `tests/config/NAME.toml` is read and what is said about it compared with `NAME.txt`. After a
//! change of words, `TANDEM_BLESS=1 cargo test --lib config` writes the texts anew; the difference
//! is then read in review.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::{Environment, keys, load_in};
use crate::time::Wall;

/// 2026-11-22: the test certificates know their day.
const NOW: Wall = Wall(1_795_305_600_000_000);

fn host() -> Environment {
    Environment { cores: 2, now: NOW, bundle: Some(PathBuf::from("tests/config/tls/ca.pem")) }
}

fn files() -> Vec<PathBuf> {
    let folder = std::fs::read_dir("tests/config").expect("the folder of bad files");
    let mut files: Vec<PathBuf> = folder
        .map(|it| it.expect("an entry").path())
        .filter(|it| it.extension().is_some_and(|it| it == "toml"))
        .collect();
    files.sort();
    files
}

/// What the file gets: all findings, then how it ends.
fn outcome(path: &Path) -> String {
    match load_in(path, &host()) {
        Ok(loaded) => {
            format!("{}{}\nruns:\n{}", loaded.warnings, loaded.warnings.count(), loaded.summary())
        }
        Err(found) => format!("{found}{}\n", found.count()),
    }
}

#[test]
fn every_bad_file_gets_the_words_beside_it() {
    // A checkout does not keep who may read a file.
    for entry in std::fs::read_dir("tests/config/tls").expect("the folder of certificates") {
        let path = entry.expect("an entry").path();
        let is_open = path.ends_with("open.key");
        std::fs::set_permissions(path, Permissions::from_mode(if is_open { 0o644 } else { 0o640 }))
            .expect("our own file");
    }
    let bless = std::env::var_os("TANDEM_BLESS").is_some();
    let mut wrong = Vec::new();
    for path in files() {
        let (said, beside) = (outcome(&path), path.with_extension("txt"));
        if bless {
            std::fs::write(&beside, &said).expect("a writable checkout");
        } else if std::fs::read_to_string(&beside).unwrap_or_default() != said {
            wrong.push(format!("{}:\n{said}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_mangled_file_panics() {
    let whole = std::fs::read_to_string("tests/config/good_full.toml").expect("the full file");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mangled.toml");
    for cut in (0..whole.len()).step_by(7).filter(|it| whole.is_char_boundary(*it)) {
        for text in [
            whole[..cut].to_owned(),
            whole[cut..].to_owned(),
            whole.replacen(&whole[cut..=cut], "\"", 1),
        ] {
            std::fs::write(&path, text).expect("our folder");
            // Certificates stand elsewhere, so this never loads; it has to be told, not to panic.
            let found = load_in(&path, &host()).expect_err("nothing to load from");
            assert!(found.errors() > 0);
            assert!(!found.render(true).is_empty() && found.json().is_array());
        }
    }
}

#[test]
fn the_full_file_has_every_key() {
    let text = std::fs::read_to_string("tests/config/good_full.toml").expect("the full file");
    // Only one of the two ways to give secrets may be there; PLAIN would be a warning.
    let absent = ["dialback_secrets", "plain"];
    for it in keys::KEYS.iter().filter(|it| !absent.contains(&it.name)) {
        assert!(text.contains(&format!("\n{} = ", it.name)), "{}", it.name);
    }
}
