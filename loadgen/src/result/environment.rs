//! Where a run took place: what one has to know to repeat it, or to refuse a comparison.

use std::fs;

use serde_json::{Value, json};

use crate::scenario::model::Scenario;

fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|it| !it.is_empty())
}

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|it| it.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// This host now. What can't be read is left out.
pub fn here(scenario: &Scenario, interface: &str) -> Value {
    let cpu = read("/proc/cpuinfo").unwrap_or_default();
    let limits = read("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find(|it| it.starts_with("Max open files"));
    let is_guest = cpu.contains(" hypervisor");
    let mitigations = fs::read_dir("/sys/devices/system/cpu/vulnerabilities").ok().map(|dir| {
        let all = dir.filter_map(Result::ok);
        let open = all.filter_map(|it| fs::read_to_string(it.path()).ok());
        let open = open.filter(|text| text.starts_with("Vulnerable")).count();
        if open == 0 { "on".to_owned() } else { format!("{open} not mitigated") }
    });
    let tls: Vec<String> =
        scenario.targets.iter().map(|it| format!("{:?}", it.tls).to_lowercase()).collect();
    let addresses: Vec<String> = scenario
        .targets
        .iter()
        .flat_map(|it| it.addresses.iter().map(ToString::to_string))
        .collect();
    let servers: Vec<String> =
        scenario.targets.iter().filter_map(|it| read(&format!("/proc/{}/comm", it.pid?))).collect();
    json!({
        "generator": concat!("tandem-loadgen ", env!("CARGO_PKG_VERSION")),
        "interface": interface,
        "server": (!servers.is_empty()).then(|| servers.join(", ")),
        "target": addresses.join(", "),
        "tls": tls.join(", "),
        "threads": scenario.run.threads,
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpu": field(&cpu, "model name"),
        "cores": std::thread::available_parallelism().ok().map(usize::from),
        "guest": is_guest,
        "mitigations": mitigations,
        "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "clock_source": read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "congestion_control": read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "open_files": files.and_then(|it| it.split_whitespace().nth(3)),
        "somaxconn": read("/proc/sys/net/core/somaxconn"),
        "tuned_profile": read("/etc/tuned/active_profile"),
    })
}

/// Keys in which two runs may differ and still be compared: what is measured, not where.
const MAY_DIFFER: [&str; 3] = ["server", "target", "open_files"];

/// What makes two runs incomparable: key, here, there.
pub fn differences(one: &Value, other: &Value) -> Vec<(String, String, String)> {
    let (one, other) = (&one["environment"], &other["environment"]);
    let keys = one.as_object().into_iter().flatten().map(|it| it.0);
    keys.filter(|key| !MAY_DIFFER.contains(&key.as_str()) && one[*key] != other[*key])
        .map(|key| {
            let plain = |it: &Value| crate::report::plain(&it[key]);
            (key.clone(), plain(one), plain(other))
        })
        .collect()
}
