//! Queues and interrupts of network cards.

use crate::tune::check::{Found, Outcome};
use crate::tune::host::{Host, Virtual};

const NONE: &str = "no network card is seen here";

/// Above so many cores some are for interrupts alone, one in as many.
const CORES_SHARED: usize = 16;

/// As many queues as shards, each interrupting one core.
pub(super) fn queues(host: &Host) -> Found {
    let cores = host.cores();
    let wanted = if cores > CORES_SHARED { cores - cores / CORES_SHARED } else { cores };
    let Some((card, queues)) = fewest(host) else { return Found::skipped(NONE) };
    let now = told(&card, queues);
    if queues >= wanted {
        return placed(host, &card, &now);
    }
    if host.virtual_kind() != Virtual::Metal && queues == 1 {
        return Found::skipped(&format!("{now}; its host decides how many a guest has"));
    }
    Found::bad(Outcome::Low, &now, &format!("{cores} cores, so {wanted} queues"))
        .mend("if the card has more")
        .command(&format!("ethtool -L {card} combined {wanted}"))
}

fn told(card: &str, queues: usize) -> String {
    format!("{card} has {queues} queue{}", if queues == 1 { "" } else { "s" })
}

/// Whether each interrupt of a card has one core.
fn placed(host: &Host, card: &str, now: &str) -> Found {
    let irqs = host.list(&format!("/sys/class/net/{card}/device/msi_irqs"));
    let spread: Vec<&String> = irqs
        .iter()
        .filter(|it| {
            let cores = host.read(&format!("/proc/irq/{it}/effective_affinity_list"));
            cores.is_ok_and(|it| it.contains(['-', ',']))
        })
        .collect();
    let Some(first) = spread.first() else { return Found::ok(now) };
    Found::bad(
        Outcome::Differs,
        now,
        &format!("{} of its interrupts go to several cores", spread.len()),
    )
    .mend("queue i to the core of shard i; the first of them")
    .command(&format!("echo 0 > /proc/irq/{first}/smp_affinity_list"))
}

/// The card with the fewest queues to receive.
fn fewest(host: &Host) -> Option<(String, usize)> {
    let count = |card: String| {
        let queues = host.matching(&format!("/sys/class/net/{card}/queues/rx-*")).len();
        (card, queues)
    };
    host.cards().into_iter().map(count).min_by_key(|it| it.1)
}

/// Sends complete on the core that began them.
pub(super) fn xps(host: &Host) -> Found {
    let Some((card, _)) = fewest(host) else { return Found::skipped(NONE) };
    let queues = host.matching(&format!("/sys/class/net/{card}/queues/tx-*"));
    if queues.len() < 2 {
        return Found::skipped(&format!("{card} sends by one queue: nothing to choose"));
    }
    let masks: Vec<Option<bool>> = queues
        .iter()
        .map(|it| host.read(&format!("{it}/xps_cpus")).ok().map(|it| is_empty(&it)))
        .collect();
    if masks.iter().all(Option::is_none) {
        return Found::skipped(&format!("{card} has no xps_cpus"));
    }
    let unset = masks.iter().filter(|it| **it == Some(true)).count();
    if unset == 0 {
        return Found::ok("by CPU");
    }
    Found::bad(Outcome::Low, &format!("{unset} queues unset"), &format!("{card} picks by hash"))
        .mend("queue i for the core of shard i; the first of them")
        .command(&format!("echo 1 > /sys/class/net/{card}/queues/tx-0/xps_cpus"))
}

/// Packets steered in software, where the card can't.
pub(super) fn rps(host: &Host) -> Found {
    let Some((card, count)) = fewest(host) else { return Found::skipped(NONE) };
    let queues = host.matching(&format!("/sys/class/net/{card}/queues/rx-*"));
    let masks: Vec<String> =
        queues.iter().filter_map(|it| host.read(&format!("{it}/rps_cpus")).ok()).collect();
    if masks.is_empty() {
        return Found::skipped(&format!("{card} has no rps_cpus"));
    }
    let flows = queues.iter().filter_map(|it| host.number(&format!("{it}/rps_flow_cnt"))).max();
    let is_on = masks.iter().any(|it| !is_empty(it));
    let word = if is_on { "on" } else { "off" };
    let (cores, has) = (host.cores(), told(&card, count));
    match (is_on, count < cores) {
        _ if flows.is_some_and(|it| it > 0) => Found::bad(
            Outcome::High,
            "RFS is on",
            "it moves packets after threads, and ours are pinned",
        )
        .mend("off, on each queue")
        .command(&format!("echo 0 > /sys/class/net/{card}/queues/rx-0/rps_flow_cnt")),
        (false, true) => {
            let mask = (0..cores.min(64)).fold(0_u64, |mask, core| mask | 1 << core);
            Found::bad(Outcome::Low, word, &format!("{has} for {cores} cores"))
                .mend("worth a try under load, not before")
                .command(&format!("echo {mask:x} > /sys/class/net/{card}/queues/rx-0/rps_cpus"))
        }
        (true, false) => {
            Found::bad(Outcome::High, word, &format!("{has}: the card does it by itself"))
                .mend("off, on each queue")
                .command(&format!("echo 0 > /sys/class/net/{card}/queues/rx-0/rps_cpus"))
        }
        _ => Found::ok(word),
    }
}

/// Whether a mask like `00000000,00000003` names no core.
fn is_empty(mask: &str) -> bool {
    mask.chars().all(|it| matches!(it, '0' | ',' | '\n'))
}

/// It moves interrupts that were placed.
pub(super) fn irqbalance(host: &Host) -> Found {
    let Some((pid, line)) = host.processes("irqbalance").into_iter().next() else {
        return Found::ok("is off");
    };
    let files = ["/etc/default/irqbalance", "/etc/sysconfig/irqbalance"];
    let text = files.iter().filter_map(|it| host.read(it).ok()).collect::<Vec<_>>().join("\n");
    let set = text.lines().any(|it| {
        let it = it.trim();
        !it.starts_with('#') && (it.starts_with("IRQBALANCE_BANNED_") || it.contains("--banirq"))
    });
    if set || line.iter().any(|it| it.starts_with("--banirq")) {
        return Found::ok("runs, and leaves some alone");
    }
    if fewest(host).is_none_or(|it| it.1 < 2) {
        return Found::ok("runs, nothing to undo");
    }
    Found::bad(
        Outcome::Conflict,
        &format!("runs (process {pid})"),
        "within ten seconds it moves what was placed",
    )
    .mend("ban the card's interrupts in IRQBALANCE_ARGS=\"--banirq=N\", or")
    .command("systemctl disable --now irqbalance")
}
