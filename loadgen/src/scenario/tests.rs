//! Scenarios read, and mistakes in them told with their places.

use std::path::Path;

use super::*;
use crate::scenario::model::{Phase, Side, Size, Than, Transport};

const SPEC: &str = r#"
name = "im-s2s"
[target]
address = "127.0.0.1:5269"
tls = "starttls"
[population]
local = "user%05d@t.example"
remote = "u%05d@d%03d.load.example"
users = 2000
domains = 100
[[flow]]
kind = "message"
from = "remote"
to = "local"
size = { p50 = 180, p99 = 1200, max = 8000 }
share = 0.8
[[stage]]
type = "warmup"
rate = "2000/s"
for = "5s"
[[stage]]
type = "hold"
rate = "20000/s"
for = "60s"
[threshold]
latency_p99 = "< 20ms"
lost = "= 0"
achieved = ">= 99%"
server_cpu_per_message = "< 5us"
"#;

#[test]
fn the_form_of_the_manual_is_read() {
    let it = parse(Path::new("x.toml"), SPEC).unwrap();
    assert_eq!(it.populations.len(), 2);
    assert_eq!((it.populations[0].side, it.populations[1].side), (Side::Client, Side::Peer));
    assert_eq!(it.flows[0].size, Size { p50: 180, p99: 1200, max: 8000 });
    assert_eq!((it.stages[1].phase, it.stages[1].rate_per_s), (Phase::Hold, 20_000.0));
    assert_eq!(it.thresholds.len(), 4);
    let latency = it.thresholds.iter().find(|t| t.key == "latency_p99").unwrap();
    assert_eq!((latency.than, latency.value), (Than::Less, 20e6));
}

#[test]
fn everything_shipped_is_read() {
    for shipped in built_in::ALL {
        let loaded = load(shipped.name).unwrap_or_else(|found| panic!("{}", found.render(false)));
        assert_eq!(loaded.scenario.name, shipped.name);
        assert!(shipped.about().ends_with('.'), "{}", shipped.name);
        let mut it = loaded.scenario;
        Overrides::default().apply(&mut it).unwrap();
        assert!(it.targets.iter().all(|t| t.addresses.iter().all(|a| a.ip().is_loopback())));
    }
}

#[test]
fn all_mistakes_are_told_with_their_places() {
    let wrong = SPEC
        .replace("tls = \"starttls\"", "tls = \"startls\"")
        .replace("from = \"remote\"", "from = \"remot\"")
        .replace("share = 0.8", "shar = 0.8")
        .replace("rate = \"2000/s\"", "rate = 2000")
        .replace("lost = \"= 0\"", "losst = \"= 0\"")
        .replace("\"< 20ms\"", "\"20ms\"");
    let found = parse(Path::new("my.toml"), &wrong).unwrap_err();
    let text = found.render(false);
    for wanted in [
        "my.toml:5:7",
        "did you mean \"starttls\"?",
        "my.toml:13:8",
        "did you mean \"remote\"?",
        "unknown key `shar`",
        "did you mean \"share\"?",
        "has no unit",
        "write it as in rate = \"2000/s\"",
        "did you mean \"lost\"?",
        "begins with none of",
    ] {
        assert!(text.contains(wanted), "{wanted} not in\n{text}");
    }
    assert_eq!(found.errors(), 6, "{text}");
}

#[test]
fn no_toml_and_no_file_are_told_too() {
    let found = parse(Path::new("x.toml"), "name = \"a\n").unwrap_err();
    assert!(found.render(false).contains("x.toml:1:"), "{}", found.render(false));
    let found = load("im-chta").unwrap_err();
    assert!(found.render(false).contains("did you mean \"im-chat\"?"));
    let found = parse(Path::new("x.toml"), "name = \"x\"").unwrap_err();
    assert!(found.errors() == 4, "{}", found.render(false));
}

#[test]
fn the_command_line_changes_values() {
    let mut it = parse(Path::new("x.toml"), SPEC).unwrap();
    let line = Overrides {
        rate: Some("1000/s".to_owned()),
        duration: Some("6s".to_owned()),
        connections: Some(40),
        target: vec!["127.0.0.1:7".to_owned()],
        domain: Some("other.example".to_owned()),
        ..Overrides::default()
    };
    line.apply(&mut it).unwrap();
    assert_eq!((it.stages[0].rate_per_s, it.stages[1].rate_per_s), (100.0, 1000.0));
    assert_eq!(it.stages[1].for_ns, 6_000_000_000);
    assert_eq!(it.populations[0].users, 20);
    assert_eq!(it.populations[0].address, "user%05d@other.example");
    assert_eq!(it.targets[0].domain, "other.example");
    let far = Overrides { target: vec!["192.0.2.1:5222".to_owned()], ..Overrides::default() };
    assert!(far.apply(&mut it).unwrap_err().contains("--i-own-this-target"));
}

#[test]
fn edges_have_their_own_words() {
    let it = load("im-gateway").unwrap().scenario;
    let edge = it.populations.iter().find(|p| p.side == Side::Edge).unwrap();
    assert!(!edge.pager && edge.listen.is_some());
    let text = built_in::find("sip-options").unwrap().text;
    let wrong = text
        .replace("from = \"edge\"", "from = \"known\"")
        .replace("transport = \"udp\"", "transport = \"udpp\"\ntemplate = \"/nowhere\"\npager = 1");
    let found = parse(Path::new("my.toml"), &wrong).unwrap_err();
    let text = found.render(false);
    for wanted in [
        "did you mean \"udp\"?",
        "\"/nowhere\" is no template",
        "`pager`",
        "\"known\" has side = \"addressed\" and can not do kind = \"options\"",
    ] {
        assert!(text.contains(wanted), "{wanted} not in\n{text}");
    }
    assert_eq!(found.errors(), 4, "{text}");
    let mut it = load("sip-options").unwrap().scenario;
    let line = Overrides {
        transport: Some("tls".to_owned()),
        domain: Some("other.example".to_owned()),
        ..Overrides::default()
    };
    line.apply(&mut it).unwrap();
    let known = it.populations.iter().find(|p| p.side == Side::Addressed).unwrap();
    assert_eq!(known.address, "user%05d@other.example");
    assert!(it.populations.iter().all(|p| p.transport == Transport::Tls));
}
