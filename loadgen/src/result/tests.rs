//! Judgements on results made up here, and files that read back.

use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::{Value, json};

use super::*;
use crate::scenario::model::{Flow, Kind, Size, Target, Than, Threshold, Tls};

fn sound() -> Value {
    json!({
        "closed": null, "clock_step_ns": 0, "steal": 0.0, "aborted": false,
        "stages": [{ "type": "hold", "asked_per_s": 1000.0, "achieved_per_s": 1000.0, "due": 1000, "delivered": 999 }],
        "flows": [{ "name": "f", "lost": 0, "latency_ns": { "p99": 2_000_000, "count": 1000 }, "bounced": {} }],
        "totals": { "dropped": 0 },
        "generator": { "late_p99_ns": 50_000, "threads": [{ "busy": 0.5, "receive_lag_p99_ns": 10_000 }] },
    })
}

fn below(key: &str, value: f64) -> Threshold {
    Threshold { key: key.to_owned(), than: Than::Less, value, text: "< x".to_owned() }
}

#[test]
fn each_rule_alone_makes_a_run_invalid() {
    type Spoil = fn(&mut Value);
    let spoil: [(&str, Spoil); 9] = [
        ("rate sent", |r| r["stages"][0]["achieved_per_s"] = 980.into()),
        ("lateness p99", |r| r["generator"]["late_p99_ns"] = 1_100_000.into()),
        ("of the latency's", |r| r["flows"][0]["latency_ns"]["p99"] = 300_000.into()),
        ("want of room", |r| r["totals"]["dropped"] = 1.into()),
        ("receive lag", |r| r["generator"]["threads"][0]["receive_lag_p99_ns"] = 2_000_000.into()),
        ("busiest", |r| r["generator"]["threads"][0]["busy"] = 0.9.into()),
        ("clock", |r| r["clock_step_ns"] = 60_000_000.into()),
        ("stolen", |r| r["steal"] = 0.02.into()),
        ("to its end", |r| r["aborted"] = true.into()),
    ];
    let mut good = sound();
    judge::judge(&mut good, &[below("latency_p99", 3e6)]);
    assert_eq!((&good["verdict"]["word"], &good["exit"]), (&json!("VALID"), &json!(0)), "{good}");
    for (rule, spoil) in spoil {
        let mut result = sound();
        spoil(&mut result);
        judge::judge(&mut result, &[below("latency_p99", 1.0)]);
        assert_eq!(result["verdict"]["word"], "GENERATOR-LIMITED", "{rule}");
        assert_eq!((&result["exit"], &result["thresholds"][0]["ok"]), (&json!(98), &Value::Null));
        let rules = result["verdict"]["rules"].as_array().unwrap();
        let failed = |it: &&Value| it["ok"] == false;
        assert!(
            rules.iter().filter(failed).any(|it| it["rule"].as_str().unwrap().contains(rule)),
            "{rule}: {rules:?}"
        );
    }
}

#[test]
fn thresholds_are_judged_and_a_slow_server_is_a_result() {
    let mut result = sound();
    result["stages"][0]["delivered"] = 900.into();
    judge::judge(&mut result, &[]);
    assert_eq!(
        (&result["verdict"]["word"], &result["exit"]),
        (&json!("SERVER-LIMITED"), &json!(0))
    );
    for (key, value, ok) in [
        ("latency_p99", 1e6, false),
        ("f.latency_p99", 3e6, true),
        ("g.latency_p99", 3e6, false),
        ("lost", 1.0, true),
        ("bounced", 1.0, true),
        ("server_cpu_per_message", 1e9, false),
    ] {
        let mut result = sound();
        judge::judge(&mut result, &[below(key, value)]);
        assert_eq!(result["thresholds"][0]["ok"], ok, "{key}");
        assert_eq!(result["exit"], if ok { 0 } else { 99 }, "{key}");
    }
}

fn scenario() -> Scenario {
    let size = Size { p50: 1, p99: 1, max: 1 };
    Scenario {
        name: "s".to_owned(),
        targets: vec![Target {
            name: "default".to_owned(),
            addresses: vec!["127.0.0.1:1".parse().unwrap()],
            domain: "d".to_owned(),
            tls: Tls::None,
            pid: None,
        }],
        flows: vec![Flow {
            name: "a, b".to_owned(),
            kind: Kind::Message,
            from: "p".to_owned(),
            to: "p".to_owned(),
            share: 1.0,
            size,
            watchers: 0,
            presentities: 0,
            random_pairs: false,
            expires_s: 0,
            read_octets_per_s: 0,
            cut: 0.0,
        }],
        stages: vec![Stage { phase: Phase::Hold, rate_per_s: 100.0, for_ns: 2_000_000_000 }],
        ..Scenario::default()
    }
}

fn tick(second: u64) -> Tick {
    let mut part = Ledger::new(&[1]);
    part.flows[0].counts.sent = 100;
    part.flows[0].counts.due = 100;
    part.flows[0].counts.delivered = 100;
    for i in 1..=100 {
        part.flows[0].latency.record(i * 10_000).unwrap();
    }
    Tick {
        from_ns: second * 1_000_000_000,
        to_ns: (second + 1) * 1_000_000_000,
        stage: Some(0),
        asked: 100.0,
        part,
        in_flight: 0,
        connections: 2,
        threads: Vec::new(),
        steal: 0.0,
    }
}

#[test]
fn a_run_is_written_and_read_back() {
    let scenario = scenario();
    let mut recorder = Recorder::new(&scenario);
    let mut log = write::Log::new(&scenario);
    let mut total = Ledger::new(&[1]);
    for second in 0..2 {
        let tick = tick(second);
        assert_eq!(recorder.tick(&tick).delivered, 100.0);
        log.tick(&tick);
        total.add(&tick.part);
    }
    let raw = Raw {
        started_unix_ms: 1_795_400_000_000,
        pieces: crate::engine::schedule::pieces(&scenario.stages),
        ended_ns: 2_000_000_000,
        total,
        threads: Vec::new(),
        interrupted: false,
        aborted: false,
        interface: "epoll",
        clock_step_ns: 0,
    };
    let result = recorder.finish(&raw, "name = 's'", &["x".to_owned()]);
    assert_eq!(result["verdict"]["word"], "VALID", "{}", result["verdict"]);
    assert_eq!(result["flows"][0]["latency_ns"]["count"], 200);
    assert_eq!((&result["totals"]["sent"], &result["totals"]["lost"]), (&json!(200), &json!(0)));
    let dir = tempfile::tempdir().unwrap();
    let paths = write::all(dir.path(), &result, &log).unwrap();
    assert_eq!(paths.len(), 4);
    let again = write::read(dir.path()).unwrap();
    assert_eq!(again["flows"], result["flows"]);
    assert_eq!(write::csv(&again).lines().count(), 3);
    assert!(write::csv(&again).lines().nth(1).unwrap().starts_with("0.0,0,100.0,100,100,0,"));
    let text = std::fs::read(dir.path().join("run.hlog")).unwrap();
    let mut seen = Vec::new();
    for entry in IntervalLogIterator::new(&text) {
        if let LogEntry::Interval(it) = entry.unwrap() {
            assert_eq!(it.tag().unwrap().as_str(), "a__b");
            seen.push((it.start_timestamp(), it.duration()));
        }
    }
    let second = std::time::Duration::from_secs;
    assert_eq!(seen, [(second(0), second(1)), (second(1), second(1))]);
    let table = table::of(&result);
    assert!(table.starts_with("VALID  s\n") && table.contains("a, b"), "{table}");
    assert!(table.lines().all(|it| it.chars().count() <= 100), "{table}");
    std::fs::write(dir.path().join("run.json"), "{\"schema\": 9}").unwrap();
    assert!(write::read(dir.path()).unwrap_err().contains("schema 1 is wanted"));
}
