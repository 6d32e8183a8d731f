//! What the cgroup of the process permits. Version 2, and the quota of version 1.

use crate::tune::check::{Found, Outcome};
use crate::tune::probe::Context;

/// A quota of processor time stops all shards at once.
pub(super) fn quota(on: &Context<'_>) -> Found {
    let files = files(on, "cpu.max");
    if files.is_empty() {
        return old_quota(on);
    }
    for path in &files {
        let Ok(text) = on.host.read(path) else { continue };
        if text.is_empty() || text.starts_with("max") {
            continue;
        }
        let stat = on.host.read(&path.replace("cpu.max", "cpu.stat")).unwrap_or_default();
        let throttled = stat.lines().find_map(|it| it.strip_prefix("nr_throttled "));
        let why = format!(
            "{path}; throttled {} times so far",
            throttled.unwrap_or("an unknown number of")
        );
        return limited(&format!("{} us", text.replacen(' ', " of ", 1)), &why);
    }
    Found::ok("no quota")
}

fn old_quota(on: &Context<'_>) -> Found {
    let groups = on.host.read(&format!("/proc/{}/cgroup", on.process)).unwrap_or_default();
    let own = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let is_cpu = fields.next()?.split(',').any(|it| it == "cpu");
        is_cpu.then(|| fields.next())?
    });
    let Some(own) = own else { return Found::skipped("no cgroup of processor time is seen here") };
    let own = own.trim_end_matches('/');
    match on.host.read(&format!("/sys/fs/cgroup/cpu{own}/cpu.cfs_quota_us")) {
        Ok(text) if text != "-1" => limited(&format!("{text} us"), "cpu.cfs_quota_us"),
        _ => Found::ok("no quota"),
    }
}

fn limited(now: &str, why: &str) -> Found {
    Found::bad(Outcome::Low, now, why)
        .mend("take the quota off the unit or the container; weights (CPUWeight=) share without stopping")
        .command("systemctl set-property tandem.service CPUQuota=")
}

/// Sockets count as memory of the cgroup.
pub(super) fn memory(on: &Context<'_>) -> Found {
    let files = [files(on, "memory.high"), files(on, "memory.max")].concat();
    let limit = files.iter().filter_map(|it| Some((on.host.number(it)?, it))).min();
    let Some((limit, path)) = limit else {
        return Found::ok("no limit");
    };
    let needed = on.profile.connections * IDLE_BYTES;
    let folder = path.rsplit_once('/').map_or("", |it| it.0);
    let used = on.host.number(&format!("{folder}/memory.current")).unwrap_or(0);
    let now = format!("{} MiB, {} used", limit >> 20, used >> 20);
    if limit >= needed && used <= limit / 10 * 9 {
        return Found::ok(&now);
    }
    let why = format!(
        "{path}; sockets alone want {} MiB for {} connections",
        needed >> 20,
        on.profile.connections
    );
    Found::bad(Outcome::Low, &now, &why)
        .mend("give it room above what sockets and the node need")
        .command("systemctl set-property tandem.service MemoryHigh=infinity")
}

/// Kernel memory of an idle socket, measured.
const IDLE_BYTES: u64 = 3_900;

/// A file in the process's cgroup and in all above it.
fn files(on: &Context<'_>, name: &str) -> Vec<String> {
    let groups = on.host.read(&format!("/proc/{}/cgroup", on.process)).unwrap_or_default();
    let own = groups.lines().find_map(|it| it.strip_prefix("0::")).unwrap_or("/").to_owned();
    let mut paths = Vec::new();
    let mut folder = own.trim_end_matches('/');
    loop {
        paths.push(format!("/sys/fs/cgroup{folder}/{name}"));
        match folder.rsplit_once('/') {
            Some((above, _)) => folder = above,
            None => break,
        }
    }
    paths.retain(|it| on.host.exists(it));
    paths
}
