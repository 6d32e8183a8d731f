//! The style of the sources, checked as text.
//!
//! Reads every source file, prints all findings as `path:line: what -> what instead`, and fails if
//! there is one. It asks for a reason more often than it forbids. Each rule has a test in
//! `tidy/awake.rs` that feeds it a bad text, so that none can fall asleep.
//!
//! Does **not** parse Rust: paths made by macros and floors broken through callbacks pass unseen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use text::{Source, has_word, is_under, mod_line, normal, paths_from, quoted, walk};

#[path = "tidy/awake.rs"]
mod awake;
#[path = "tidy/text.rs"]
mod text;

#[test]
fn the_sources_are_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    walk(root, &mut paths);
    paths.sort();
    let name = |path: &PathBuf| {
        path.strip_prefix(root).expect("walked from the root").to_string_lossy().into_owned()
    };
    let mut findings = Vec::new();
    let mut sources = Vec::new();
    let mut manifests = Vec::new();
    for path in &paths {
        let name = name(path);
        blob(&name, fs::metadata(path).map_or(0, |it| it.len()), &mut findings);
        if name.ends_with(".rs") {
            sources.push(Source::new(&name, &fs::read_to_string(path).expect("readable")));
        } else if name.ends_with("Cargo.toml") {
            manifests.push((name, fs::read_to_string(path).expect("readable")));
        }
    }
    let scenes: Vec<String> = paths.iter().map(name).filter(|it| it.ends_with(".scene")).collect();
    let lib = sources.iter().find(|it| it.path == "src/lib.rs").expect("src/lib.rs exists");
    let floors = Floors::read(lib, &mut findings);
    for source in &sources {
        floors_hold(source, &floors, &mut findings);
        kernel_words(source, &floors, &mut findings);
        lock_words(source, &floors, &mut findings);
        header(source, &mut findings);
        length(source, &mut findings);
        replaced_words(source, &mut findings);
        leftovers(source, &mut findings);
        bounds(source, &mut findings);
    }
    unreached(&sources, &manifests, &mut findings);
    unread(&sources, &scenes, &mut findings);
    for (name, text) in &manifests {
        dependencies(name, text, &mut findings);
    }
    let changelog = fs::read_to_string(root.join("CHANGELOG.md")).unwrap_or_default();
    changelog_heads("CHANGELOG.md", &changelog, &mut findings);
    for source in sources.iter().filter(|it| it.is_long_on_purpose()) {
        eprintln!("{}: {} lines, long on purpose", source.path, source.text.len());
    }
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// The floors as `src/lib.rs` lists them.
#[derive(Default)]
struct Floors {
    floor_of: BTreeMap<String, u32>,
}

/// The floor from which on a module may touch the kernel, and the one that may use everything.
const FLOOR_KERNEL: u32 = 6;
const FLOOR_PROCESS: u32 = 7;

/// Uses within one floor that the architecture grants.
const GRANTED: &[(&str, &str, &str)] = &[
    ("envelope", "address", "an envelope carries addresses"),
    ("presence", "policy", "the tables of availability go by the rule's profile"),
    ("stdx", "limits", "bounded things know their bounds"),
    ("stdx", "time", "a timer wheel turns on moments"),
];

impl Floors {
    fn read(lib: &Source, findings: &mut Vec<String>) -> Self {
        let mut floors = Self::default();
        let mut floor = None;
        let mut forbids = false;
        for (at, line) in lib.text.iter().enumerate() {
            let line = line.trim();
            if let Some(rest) = line.strip_prefix("// Floor ") {
                floor = rest.split([':', '.']).next().and_then(|it| it.trim().parse().ok());
            } else if line.contains("#[forbid(unsafe_code)]") {
                forbids = true;
            } else if let Some(name) = mod_line(line) {
                match floor {
                    Some(floor) => {
                        floors.floor_of.insert(name.into(), floor);
                    }
                    None => find(
                        findings,
                        &lib.path,
                        at,
                        "a module on no floor",
                        "`// Floor N: ...` above it",
                    ),
                }
                if name != "net" && !forbids {
                    find(
                        findings,
                        &lib.path,
                        at,
                        "a mod line that allows unsafe",
                        "`#[forbid(unsafe_code)]`",
                    );
                }
                forbids = false;
            }
        }
        floors
    }
}

fn floors_hold(source: &Source, floors: &Floors, findings: &mut Vec<String>) {
    let Some(own) = source.module() else { return };
    let Some(&floor) = floors.floor_of.get(own) else { return };
    for (at, path) in paths_from(&source.code, "crate") {
        let used = path.split("::").nth(1).unwrap_or_default();
        let Some(&used_floor) = floors.floor_of.get(used) else { continue };
        let granted =
            used_floor == floor && GRANTED.iter().any(|&(from, to, _)| (from, to) == (own, used));
        if used == own || used_floor < floor || floor >= FLOOR_PROCESS || granted {
            continue;
        }
        let what = format!("`{own}` (floor {floor}) uses `crate::{used}` (floor {used_floor})");
        find(findings, &source.path, at, &what, "lower floors only; see ARCHITECTURE.md");
    }
}

const KERNEL_CRATES: &[&str] = &["glommio", "io_uring", "tokio", "libc"];
const KERNEL_PATHS: &[&str] = &[
    "std::fs",
    "std::thread",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::os::unix::net",
];

fn kernel_words(source: &Source, floors: &Floors, findings: &mut Vec<String>) {
    let floor = source.module().and_then(|it| floors.floor_of.get(it));
    if floor.is_none_or(|&it| it >= FLOOR_KERNEL) {
        return;
    }
    for (at, line) in source.code.iter().enumerate() {
        for word in KERNEL_CRATES.iter().filter(|it| has_word(line, it)) {
            find(
                findings,
                &source.path,
                at,
                &format!("`{word}` below `net`"),
                "bytes, events and `now` as arguments",
            );
        }
    }
    for (at, path) in paths_from(&source.code, "std") {
        if KERNEL_PATHS.iter().any(|it| is_under(&path, it)) {
            find(
                findings,
                &source.path,
                at,
                &format!("`{path}` below `net`"),
                "bytes, events and `now` as arguments",
            );
        }
    }
}

/// What waits for another thread, or is written by several.
const LOCKS: &[&str] = &[
    "Mutex",
    "RwLock",
    "Condvar",
    "Barrier",
    "OnceLock",
    "LazyLock",
    "parking_lot",
    "crossbeam",
    "mpsc",
    "atomic",
];

/// Where such things may be all the same: path, word, and why no message waits there.
const UNLOCKED: &[(&str, &str, &str)] = &[
    ("src/stdx/map.rs", "OnceLock", "the seed of all maps, written once; read when a map is made"),
    ("src/tls/mod.rs", "atomic", "the second of the wall clock, stored once a turn for rustls"),
    ("src/net/buffers.rs", "atomic", "the tail of the ring of buffers, which the kernel reads"),
    ("src/net/mesh.rs", "atomic", "the two counters of a ring between shards, one writer each"),
    ("src/net/lanes.rs", "atomic", "who sleeps is flagged, open connections are counted"),
    ("src/net/lanes.rs", "OnceLock", "a shard's ring, written once at its start; read to wake it"),
    ("src/net/lanes.rs", "mpsc", "lanes to the control thread and parcels: logins, not messages"),
    ("src/net/phases.rs", "atomic", "a connection is counted when it comes and goes"),
    ("src/net/phases.rs", "mpsc", "what goes to the control thread finds room or is refused"),
    ("src/net/surface.rs", "atomic", "a connection is counted when it comes and goes"),
    ("src/net/node.rs", "mpsc", "threads are started and ended"),
    ("src/net/clock.rs", "LazyLock", "when the process began, written once"),
];

/// The path of a message takes no lock and shares nothing but the mesh's counters.
fn lock_words(source: &Source, floors: &Floors, findings: &mut Vec<String>) {
    let floor = source.module().and_then(|it| floors.floor_of.get(it));
    let is_test = ["tests", "testing"].iter().any(|it| source.path.contains(it));
    if floor.is_none_or(|&it| it >= FLOOR_PROCESS) || is_test {
        return;
    }
    for (at, line) in source.code.iter().enumerate() {
        for word in LOCKS.iter().filter(|it| has_word(line, it)) {
            if UNLOCKED.iter().any(|&(path, of, _)| (path, of) == (source.path.as_str(), *word)) {
                continue;
            }
            find(
                findings,
                &source.path,
                at,
                &format!("`{word}` at or below `net`"),
                "one shard owns it, or name it in `UNLOCKED` with its reason",
            );
        }
    }
}

fn header(source: &Source, findings: &mut Vec<String>) {
    if !source.text.first().is_some_and(|it| it.starts_with("//!")) {
        find(
            findings,
            &source.path,
            0,
            "no module header",
            "`//!`: what it is, which RFC, what it does **not** do",
        );
    }
}

const FILE_LINES_MAX: usize = 500;

fn length(source: &Source, findings: &mut Vec<String>) {
    if source.text.len() > FILE_LINES_MAX && !source.is_long_on_purpose() {
        let what = format!("{} lines", source.text.len());
        find(
            findings,
            &source.path,
            FILE_LINES_MAX,
            &what,
            "split by meaning, or `//! Long on purpose: ...`",
        );
    }
}

/// Word, what to write instead, and where the word is at home.
const REPLACED: &[(&str, &str, &[&str])] = &[
    ("super::super", "start at `crate::`", &[]),
    (
        "VecDeque::new(",
        "`stdx::Bounded`, which says what happens when full",
        &["src/stdx", "tests", "loadgen", "bench"],
    ),
    (
        "std::fs",
        "take bytes as an argument",
        &[
            "src/net",
            "src/control",
            "src/admin",
            "src/config",
            "src/cli",
            "src/tune",
            "src/main.rs",
            "tests",
            "loadgen",
            "bench",
        ],
    ),
];

fn replaced_words(source: &Source, findings: &mut Vec<String>) {
    for &(word, instead, homes) in REPLACED {
        if homes.iter().any(|it| source.path.starts_with(it)) {
            continue;
        }
        for (at, line) in source.code.iter().enumerate().filter(|(_, it)| it.contains(word)) {
            find(findings, &source.path, at, &format!("`{word}` in `{}`", line.trim()), instead);
        }
    }
}

fn leftovers(source: &Source, findings: &mut Vec<String>) {
    let what_to_do = "finish it, or write it down as an omission in the header";
    for (at, line) in source.comments.iter().enumerate().filter(|(_, it)| it.contains("FIXME")) {
        find(findings, &source.path, at, line.trim(), what_to_do);
    }
    for (at, line) in source.code.iter().enumerate() {
        for word in
            ["todo!(", "unimplemented!(", "#[ignore"].iter().filter(|it| line.contains(**it))
        {
            find(findings, &source.path, at, &format!("`{word}`"), what_to_do);
        }
        if line.contains("#![allow") {
            find(
                findings,
                &source.path,
                at,
                "a blanket allow",
                "`#[expect(lint, reason = ...)]` at the item",
            );
        }
    }
}

fn bounds(source: &Source, findings: &mut Vec<String>) {
    if !source.path.starts_with("src/")
        || source.path == "src/limits.rs"
        || source.path.starts_with("src/limits/")
    {
        return;
    }
    for (at, line) in source.code.iter().enumerate() {
        let Some((_, rest)) = line.split_once("const ") else { continue };
        let name =
            rest.split(|it: char| !it.is_alphanumeric() && it != '_').next().unwrap_or_default();
        let is_const_item = rest.trim_start_matches(name).trim_start().starts_with(':');
        if !name.ends_with("_MAX") || !is_const_item {
            continue;
        }
        let mut above =
            source.text.iter().take(at).rev().take_while(|it| it.trim_start().starts_with("//"));
        if !above.any(|it| it.contains("RFC ") || it.contains("XEP-")) {
            find(
                findings,
                &source.path,
                at,
                &format!("`{name}` outside limits.rs"),
                "move it there, or cite the RFC above",
            );
        }
    }
}

/// Files that no `mod` line reaches.
fn unreached(sources: &[Source], manifests: &[(String, String)], findings: &mut Vec<String>) {
    let declared: BTreeSet<String> = manifests
        .iter()
        .flat_map(|(name, text)| {
            let folder = name.trim_end_matches("Cargo.toml");
            text.lines().filter_map(move |it| {
                Some(format!("{folder}{}", quoted(it.trim().strip_prefix("path = ")?)?))
            })
        })
        .collect();
    let is_root = |path: &str| {
        let inner =
            ["loadgen/", "bench/"].iter().find_map(|it| path.strip_prefix(it)).unwrap_or(path);
        let in_folder = |it: &str| {
            inner.strip_prefix(it).is_some_and(|it| !it.contains('/') || it.ends_with("/main.rs"))
        };
        matches!(inner, "src/lib.rs" | "src/main.rs" | "build.rs")
            || ["tests/", "benches/", "examples/", "src/bin/"].iter().any(|it| in_folder(it))
            || declared.contains(path)
    };
    let mut reached: BTreeSet<String> =
        sources.iter().map(|it| it.path.clone()).filter(|it| is_root(it)).collect();
    let mut open: Vec<(String, bool)> = reached.iter().map(|it| (it.clone(), true)).collect();
    while let Some((path, is_root)) = open.pop() {
        let Some(source) = sources.iter().find(|it| it.path == path) else { continue };
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", &path));
        let below = if is_root || file == "mod.rs" {
            folder.to_owned()
        } else {
            path.trim_end_matches(".rs").to_owned()
        };
        for (at, line) in source.code.iter().enumerate() {
            let Some(name) = mod_line(line.trim()) else { continue };
            let above =
                at.checked_sub(1).and_then(|it| source.text.get(it)).map_or("", |it| it.trim());
            let named = above
                .strip_prefix("#[path = ")
                .and_then(quoted)
                .map(|it| normal(&format!("{folder}/{it}")));
            for it in named
                .into_iter()
                .chain([format!("{below}/{name}.rs"), format!("{below}/{name}/mod.rs")])
            {
                if reached.insert(it.clone()) {
                    open.push((it, false));
                }
            }
        }
    }
    for source in sources.iter().filter(|it| !reached.contains(&it.path)) {
        find(
            findings,
            &source.path,
            0,
            "no `mod` line reaches this file",
            "declare it, or remove it",
        );
    }
}

/// Scenes that no test names, by file or by folder.
fn unread(sources: &[Source], scenes: &[String], findings: &mut Vec<String>) {
    for scene in scenes {
        let file = scene.rsplit('/').next().unwrap_or_default();
        let folder = scene.rsplit('/').nth(1).unwrap_or_default();
        let named = |it: &Source| {
            it.text.iter().any(|it| {
                it.contains(file)
                    || it.contains(&format!("{folder}/"))
                    || it.contains(&format!("{folder}\""))
            })
        };
        if !sources.iter().any(named) {
            find(findings, scene, 0, "a scene that no test reads", "read it, or remove it");
        }
    }
}

fn dependencies(name: &str, text: &str, findings: &mut Vec<String>) {
    let mut within = false;
    let mut explained = false;
    for (at, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            (within, explained) = (line.contains("dependencies"), false);
        } else if line.starts_with('#') {
            explained = true;
        } else if line.trim().is_empty() {
            explained = false;
        } else if within && !explained && !line.starts_with([' ', '\t', ']', '}']) {
            find(findings, name, at, line, "a comment above it: what it spares us");
        }
    }
}

const BLOB_BYTES_MAX: u64 = 256 * 1024;

/// Larger files that are meant to be here.
const BLOBS: &[&str] = &[];

fn blob(name: &str, size: u64, findings: &mut Vec<String>) {
    if size > BLOB_BYTES_MAX && !name.starts_with("tests/corpus/") && !BLOBS.contains(&name) {
        find(
            findings,
            name,
            0,
            &format!("{size} bytes"),
            "keep it small, or name it in `BLOBS` with its use",
        );
    }
}

const HEADS: &[&str] = &["### Correctness and speed", "### Features", "### Operations"];

fn changelog_heads(name: &str, text: &str, findings: &mut Vec<String>) {
    let mut released = false;
    let mut headed = false;
    for (at, line) in text.lines().enumerate() {
        if line.starts_with("## ") {
            (released, headed) = (true, false);
        } else if line.starts_with('#') && released {
            headed = HEADS.contains(&line);
            if !headed {
                find(findings, name, at, line, "one of the three heads");
            }
        } else if line.starts_with("- ") && !headed {
            find(findings, name, at, line, "an entry stands under one of the three heads");
        } else if released && !line.is_empty() && !line.starts_with("- ") {
            find(findings, name, at, line, "an entry is one line, beginning with `- `");
        }
    }
    if !released {
        find(findings, name, 0, "no `## ` head", "a changelog with its versions");
    }
}

fn find(findings: &mut Vec<String>, path: &str, at: usize, what: &str, instead: &str) {
    findings.push(format!("{path}:{}: {what} -> {instead}", at + 1));
}
