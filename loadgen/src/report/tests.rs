//! The pages of runs that are made up here.

use base64::Engine as _;
use hdrhistogram::serialization::{Serializer as _, V2Serializer};
use serde_json::{Value, json};

use super::*;
use crate::ledger::times;

/// A run of a minute with a stall in it.
pub(super) fn sample(label: &str, slow: f64) -> Value {
    let mut all = times();
    let mut series = Vec::new();
    for t in 0..65_u64 {
        let stall = if (30..33).contains(&t) { 40.0 } else { 1.0 };
        for i in 0..1_000_u64 {
            let spread = 1.0 + ((i * 7_919 + t * 104_729) % 1_000) as f64 / 250.0;
            all.saturating_record((180_000.0 * slow * spread * stall) as u64);
        }
        let ns = |f: f64| 180_000.0 * slow * stall * f;
        series.push(json!({
            "t_s": t, "stage": 1, "asked": 20_000, "sent": 20_000, "delivered": if stall > 1.0 { 14_000 } else { 20_000 },
            "p50_ns": ns(2.9), "p90_ns": ns(4.4), "p99_ns": ns(5.0), "max_ns": ns(9.0), "service_p99_ns": ns(4.0) / stall,
            "late_p99_ns": 30_000 + t * 500, "in_flight": 40.0 * stall, "connections": 2_000,
            "server_cpu_ns": 20_000.0 * 4_400.0 * slow, "generator_cpu_ns": 20_000 * 3_100,
        }));
    }
    let mut octets = Vec::new();
    V2Serializer::new().serialize(&all, &mut octets).unwrap();
    let at = |q: f64| all.value_at_quantile(q);
    let latency = json!({ "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "p9999": at(0.9999),
        "max": all.max(), "count": all.len() });
    let counts = json!({ "name": "chat <b>", "sent": 1_300_000, "delivered": 1_299_990, "bounced": { "service-unavailable": 10 },
        "lost": 0, "duplicated": 0, "reordered": 2, "corrupt": 0, "superseded": 0, "dropped": 0 });
    let mut flow = counts.clone();
    flow["latency_ns"] = latency.clone();
    flow["service_ns"] = latency;
    flow["histogram"] = base64::engine::general_purpose::STANDARD.encode(octets).into();
    json!({
        "schema": 1, "name": "im-chat", "label": label, "about": "Pairs of clients of one domain.", "seconds": 65.0,
        "started_unix_ms": 1_795_400_000_000_u64, "scenario_text": "name = \"im-chat\"\n[target]\n", "command": ["tandem-loadgen", "run", "im-chat"],
        "verdict": { "word": "VALID", "rules": [{ "rule": "lateness p99", "limit": "1 ms", "value": "62 µs", "ok": true }] },
        "environment": { "kernel": "6.18", "cpu": "Xeon", "server": "Tandem 0.1.0" },
        "stages": [{ "type": "warmup", "from_s": 0, "to_s": 5, "asked_per_s": 20_000, "achieved_per_s": 20_000 },
            { "type": "hold", "from_s": 5, "to_s": 65, "asked_per_s": 20_000, "achieved_per_s": 19_990 }],
        "totals": counts, "flows": [flow], "series": series,
        "steps": [{ "name": "login", "ok": 2_000, "failed": { "timed out": 3 }, "ns": { "p50": 900_000, "p99": 4_000_000, "max": 9e6, "count": 2_000 } }],
        "generator": { "threads": [{ "busy": 0.41, "late_p50_ns": 900, "late_p99_ns": 62_000, "late_max_ns": 400_000, "receive_lag_p99_ns": 9_000,
            "run_queue_ns": 1_000_000 }], "cpu_per_message_ns": 3_100 },
        "server": { "pid": 1, "cpu_per_message_ns": 4_400.0 * slow, "rss_bytes": 25_000_000, "name": "Tandem 0.1.0" },
        "thresholds": [{ "key": "latency_p99", "want": "< 20ms", "got": "0.9 ms", "ok": true }, { "key": "lost", "want": "= 0", "got": 0, "ok": true }],
        "exit": 0
    })
}

/// Set TANDEM_REPORT_DIR to look at the pages.
#[test]
fn a_run_and_a_comparison_are_whole_pages() {
    let one = page(&[sample("before", 1.0)]);
    let two = page(&[sample("before", 1.0), sample("after", 0.7)]);
    for page in [&one, &two] {
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        assert!(!page.contains("NaN") && !page.contains("chat <b>") && !page.contains("http"));
        assert!(page.matches("<svg").count() >= 4, "{}", page.matches("<svg").count());
    }
    assert!(one.contains("Distribution of latency") && one.contains("99.9 %"));
    if let Some(dir) = std::env::var_os("TANDEM_REPORT_DIR") {
        let dir = std::path::Path::new(&dir);
        std::fs::write(dir.join("one.html"), one).unwrap();
        std::fs::write(dir.join("two.html"), two).unwrap();
    }
}

#[test]
fn a_result_with_nothing_in_it_is_a_page_too() {
    for run in [
        json!({}),
        json!(null),
        json!({ "flows": 7, "series": [{}], "stages": [{}], "verdict": "x" }),
    ] {
        assert!(page(&[run.clone(), run.clone()]).contains("Side by side"));
        assert!(page(&[run]).ends_with("</html>\n"));
    }
}
