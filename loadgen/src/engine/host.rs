//! What the generator's own threads use of the host, read from /proc.

use std::fs;

/// Nanoseconds that the calling thread waited to run, if the kernel keeps that.
pub(super) fn run_queue_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_ascii_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// Ticks that a hypervisor kept for others, and all ticks, of all cores.
pub(super) fn steal() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> =
        line.split_ascii_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; what follows is contained in the first two.
    (ticks.get(7).copied().unwrap_or(0), ticks.iter().take(8).sum())
}
