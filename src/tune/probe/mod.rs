//! Checks that are more than a number in a file.
//!
//! Each looks and says what it found; none sets anything, and what it advises is printed only.

use crate::net::{self, Unusable};
use crate::tune::check::{Found, Outcome};
use crate::tune::host::{Host, Virtual};
use crate::tune::profile::Profile;

mod card;
mod process;

/// What the checks go by.
pub(super) struct Context<'a> {
    pub host: &'a Host,
    pub profile: &'a Profile,
    /// The process whose limits count, as `/proc` names it.
    pub process: &'a str,
}

/// The names of all checks.
pub(super) const NAMES: &[&str] = &[
    "io_uring",
    "cgroup.cpu",
    "cgroup.memory",
    "clocksource",
    "ntp",
    "softnet",
    "audit",
    "nic.queues",
    "nic.xps",
    "nic.rps",
    "irqbalance",
    "conntrack",
    "cstates",
];

/// Looks.
pub(super) fn look(name: &str, on: &Context<'_>) -> Found {
    match name {
        "io_uring" => io_uring(on.host),
        "cgroup.cpu" => process::quota(on),
        "cgroup.memory" => process::memory(on),
        "clocksource" => clocksource(on.host),
        "ntp" => clock(on.host),
        "softnet" => softnet(on.host),
        "audit" => audit(on.host),
        "nic.queues" => card::queues(on.host),
        "nic.xps" => card::xps(on.host),
        "nic.rps" => card::rps(on.host),
        "irqbalance" => card::irqbalance(on.host),
        "conntrack" => conntrack(on.host),
        "cstates" => cstates(on.host),
        _ => Found::skipped("this version knows no such check"),
    }
}

fn io_uring(host: &Host) -> Found {
    if !host.is_live() {
        return Found::skipped("only the running kernel can tell");
    }
    let Err(fault) = net::ring_usable() else { return Found::ok("usable") };
    let why = fault.to_string();
    let mend = match fault {
        Unusable::SwitchedOff { .. } => {
            "a security decision: kernel.io_uring_disabled=0 lets all users, 1 lets \
             root and the group in kernel.io_uring_group; the node runs on epoll meanwhile"
        }
        Unusable::Forbidden => {
            "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp \
             profile; the node runs on epoll meanwhile"
        }
        Unusable::MemoryLock { .. } => "raise the limit of locked memory (see memlock)",
        Unusable::Absent | Unusable::TooOld { .. } => {
            "Linux 6.1 or newer; the node runs on epoll meanwhile"
        }
        Unusable::Other(_) => "the node runs on epoll meanwhile",
    };
    Found::bad(Outcome::Low, "not usable", &why).mend(mend)
}

fn clocksource(host: &Host) -> Found {
    let folder = "/sys/devices/system/clocksource/clocksource0";
    let Ok(now) = host.read(&format!("{folder}/current_clocksource")) else {
        return Found::skipped("this kernel does not tell");
    };
    let is_guest = host.virtual_kind() != Virtual::Metal;
    if now == "tsc" || is_guest && now == "kvm-clock" || now == "arch_sys_counter" {
        return Found::ok(&now);
    }
    let there = host.read(&format!("{folder}/available_clocksource")).unwrap_or_default();
    let found =
        Found::bad(Outcome::Differs, &now, "each look at the clock is a call into the kernel");
    if there.split_whitespace().any(|it| it == "tsc") {
        found
            .mend("tsc is there; the kernel may have had a reason not to trust it (dmesg)")
            .command(&format!("echo tsc > {folder}/current_clocksource"))
    } else {
        found.mend("this machine offers nothing better")
    }
}

fn clock(host: &Host) -> Found {
    if !host.is_live() {
        return Found::skipped("only the running kernel can tell");
    }
    match net::clock::is_synchronised() {
        Some(true) => Found::ok("synchronised"),
        Some(false) if host.virtual_kind() == Virtual::Container => {
            Found::skipped("not synchronised; the clock is the host's of this container")
        }
        Some(false) => {
            Found::bad(Outcome::Differs, "not synchronised", "nobody keeps the clock right")
                .mend("run one of systemd-timesyncd, chrony, ntpsec")
                .command("timedatectl set-ntp true")
        }
        None => Found::skipped("adjtimex is not permitted here"),
    }
}

/// One turn cut short in so many packets is no matter.
const SQUEEZED_SHARE: u64 = 10_000;
/// One packet dropped in so many is no matter.
const DROPPED_SHARE: u64 = 1_000_000;

fn softnet(host: &Host) -> Found {
    let Ok(text) = host.read("/proc/net/softnet_stat") else {
        return Found::skipped("not in this network namespace");
    };
    let mut sums = [0_u64; 3];
    for line in text.lines() {
        let fields = line.split_whitespace().map(|it| u64::from_str_radix(it, 16).unwrap_or(0));
        sums.iter_mut().zip(fields).for_each(|(sum, it)| *sum += it);
    }
    let [packets, dropped, squeezed] = sums;
    let now = format!("{dropped} dropped, {squeezed} squeezed");
    if dropped * DROPPED_SHARE <= packets && squeezed * SQUEEZED_SHARE <= packets {
        return Found::ok(&now);
    }
    let why = format!("of {packets} packets since boot");
    let found = Found::bad(Outcome::High, &now, &why);
    if dropped * DROPPED_SHARE > packets {
        found
            .mend("watch whether it grows; then")
            .command("sysctl -w net.core.netdev_max_backlog=16384")
    } else {
        found.mend("watch whether it grows; then").command("sysctl -w net.core.netdev_budget=600")
    }
}

fn audit(host: &Host) -> Found {
    if host.processes("auditd").is_empty() {
        return Found::ok("no auditd");
    }
    Found::bad(Outcome::Differs, "auditd runs", "whether it has rules, root alone can see")
        .mend("look; rules on system calls (-S) are what costs")
        .command("auditctl -l")
}

fn conntrack(host: &Host) -> Found {
    let folder = "/proc/sys/net/netfilter";
    let Some(count) = host.number(&format!("{folder}/nf_conntrack_count")) else {
        return Found::ok("not loaded");
    };
    let max = host.number(&format!("{folder}/nf_conntrack_max")).unwrap_or(0);
    let now = format!("{count} of {max} followed");
    if count == 0 {
        return Found::ok(&now);
    }
    Found::bad(Outcome::High, &now, "the firewall follows connections, ours among them perhaps")
        .mend("a decision of the firewall's owner; the rules would be, with nft")
        .command(
            "nft add rule ip raw prerouting tcp dport { 5222, 5223, 5269, 5270, 5061 } notrack",
        )
        .command("nft add rule ip raw output tcp sport { 5222, 5223, 5269, 5270, 5061 } notrack")
}

fn cstates(host: &Host) -> Found {
    let driver = host.read("/sys/devices/system/cpu/cpuidle/current_driver").unwrap_or_default();
    if host.virtual_kind() != Virtual::Metal || matches!(driver.as_str(), "" | "none" | "haltpoll")
    {
        let driver = if driver.is_empty() { "none" } else { &driver };
        return Found::skipped(&format!(
            "a guest's processors sleep as the host lets them (driver {driver})"
        ));
    }
    let deep: Vec<String> = host
        .matching("/sys/devices/system/cpu/cpu0/cpuidle/state*")
        .into_iter()
        .filter(|it| host.number(&format!("{it}/disable")) != Some(1))
        .filter(|it| host.number(&format!("{it}/latency")).unwrap_or(0) > C1_US)
        .filter_map(|it| host.read(&format!("{it}/name")).ok())
        .collect();
    if deep.is_empty() {
        return Found::ok("C1 at most");
    }
    Found::bad(
        Outcome::High,
        &deep.join(" "),
        "unless somebody holds /dev/cpu_dma_latency, which can't be seen here",
    )
    .mend("TuneD's latency-performance does it; without TuneD")
    .command("cpupower idle-set -D 3")
}

/// Microseconds to wake from C1, at most.
const C1_US: u64 = 3;
