//! The rules see what they are there to see: one bad text each.

use super::*;

const LIB: &str = "// Floor 0: ground.\n#[forbid(unsafe_code)]\npub mod stdx;\n// Floor 2: wires.\n\
    #[forbid(unsafe_code)]\npub mod sip;\n#[forbid(unsafe_code)]\npub mod xmpp;\n// Floor 6: kernel.\npub mod net;\n";

fn floors() -> Floors {
    Floors::read(&Source::new("src/lib.rs", LIB), &mut Vec::new())
}

fn findings(rule: impl Fn(&Source, &mut Vec<String>), path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    rule(&Source::new(path, text), &mut findings);
    findings
}

#[test]
fn a_floor_used_from_below_or_beside_is_found() {
    let rule = |it: &Source, out: &mut Vec<String>| floors_hold(it, &floors(), out);
    let text = "use crate::{stdx::Slab, sip::{self, Uri as U}};\nfn f() { crate::net::g() }\n";
    let found = findings(rule, "src/xmpp/jid.rs", text);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found
            .iter()
            .any(|it| it.starts_with("src/xmpp/jid.rs:2: `xmpp` (floor 2) uses `crate::net`"))
    );
    assert!(findings(rule, "src/xmpp/jid.rs", "// crate::net\nuse crate::xmpp::xml;\n").is_empty());
}

#[test]
fn unsafe_and_kernel_words_below_net_are_found() {
    let mut found = Vec::new();
    Floors::read(&Source::new("src/lib.rs", "// Floor 1: words.\npub mod time;\n"), &mut found);
    assert_eq!(found.len(), 1, "{found:?}");
    let rule = |it: &Source, out: &mut Vec<String>| kernel_words(it, &floors(), out);
    let text = "use std::{io, thread::{self}};\nuse tokio::time;\nuse std::net::IpAddr;\nfn f(s: std::net::TcpStream) {}\n";
    assert_eq!(findings(rule, "src/xmpp/jid.rs", text).len(), 3);
    assert!(findings(rule, "src/net/pump.rs", text).is_empty());
}

#[test]
fn a_lock_on_the_path_of_a_message_is_found() {
    let rule = |it: &Source, out: &mut Vec<String>| lock_words(it, &floors(), out);
    let text =
        "use std::sync::{Arc, Mutex};\nuse std::sync::mpsc::channel;\n// a Mutex\nfn once() {}\n";
    assert_eq!(findings(rule, "src/xmpp/jid.rs", text).len(), 2);
    assert_eq!(findings(rule, "src/net/pump.rs", text).len(), 2);
    assert_eq!(findings(rule, "src/net/node.rs", text).len(), 1);
    assert!(findings(rule, "src/stdx/map.rs", "use std::sync::OnceLock;\n").is_empty());
    assert!(findings(rule, "src/main.rs", text).is_empty());
}

#[test]
fn a_missing_header_and_a_long_file_are_found() {
    assert_eq!(findings(header, "src/time.rs", "use std::fmt;\n").len(), 1);
    let long = format!("//! What it is.\n{}", "\n".repeat(FILE_LINES_MAX));
    assert_eq!(findings(length, "src/time.rs", &long).len(), 1);
    assert!(
        findings(length, "src/time.rs", &format!("//! Long on purpose: a table.\n{long}"))
            .is_empty()
    );
}

#[test]
fn replaced_words_and_leftovers_are_found() {
    let text = "use super::super::x;\nlet q = VecDeque::new();\nlet s = \"super::super\";\n";
    assert_eq!(findings(replaced_words, "src/home/mod.rs", text).len(), 2);
    let text = "// FIXME later\n#[ignore = \"slow\"]\nfn f() { todo!() }\n#![allow(dead_code)]\n\"FIXME todo!(\"";
    assert_eq!(findings(leftovers, "src/home/mod.rs", text).len(), 4);
}

#[test]
fn a_bound_outside_limits_is_found() {
    let text = "const A_MAX: u32 = 1;\n/// RFC 3261, 17.1.1.2: T2.\npub const B_MAX: u32 = 2;\n";
    assert_eq!(findings(bounds, "src/xmpp/frame.rs", text).len(), 1);
    assert!(findings(bounds, "src/limits.rs", text).is_empty());
}

#[test]
fn an_unreached_file_and_an_unread_scene_are_found() {
    let sources = [
        Source::new("src/lib.rs", "pub mod a;\n"),
        Source::new("src/a/mod.rs", "mod b;\n#[path = \"../odd.rs\"]\nmod c;\n"),
        Source::new("src/a/b.rs", ""),
        Source::new("src/odd.rs", ""),
        Source::new("src/a/lost.rs", ""),
        Source::new("tests/world/main.rs", "const S: &str = \"talk.scene\";\n"),
    ];
    let mut found = Vec::new();
    unreached(&sources, &[], &mut found);
    unread(&sources, &["scenes/talk.scene".into(), "scenes/lost.scene".into()], &mut found);
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn bare_dependencies_blobs_and_loose_changelog_lines_are_found() {
    let mut found = Vec::new();
    let text =
        "[dependencies]\n# Why.\na = \"1\"\nb = \"1\"\n\nc = \"1\"\n[lints]\nworkspace = true\n";
    dependencies("Cargo.toml", text, &mut found);
    assert_eq!(found.len(), 1, "{found:?}");
    blob("dump.bin", BLOB_BYTES_MAX + 1, &mut found);
    assert_eq!(found.len(), 2, "{found:?}");
    let text = "# Changelog\n\nWords.\n\n## 1.0\n\n- loose\n\n### Fixes\n\n### Features\n\n- good\n  goes on\n";
    changelog_heads("CHANGELOG.md", text, &mut found);
    assert_eq!(found.len(), 5, "{found:?}");
}
