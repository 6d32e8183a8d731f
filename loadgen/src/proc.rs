//! What the kernel accounts to a process: CPU per thread, waiting, context switches, memory.

use std::collections::BTreeMap;
use std::{fs, io};

/// Counts of one thread.
#[derive(Clone, Debug, Default)]
pub struct Thread {
    /// The thread's name.
    pub name: String,
    /// Nanoseconds on a core.
    pub cpu_ns: u64,
    /// Nanoseconds ready to run without a core.
    pub wait_ns: u64,
    /// Context switches of its own will, that is: sleeps.
    pub sleeps: u64,
    /// Context switches against its will.
    pub preempted: u64,
}

/// Counts of all threads of a process and of its children.
#[derive(Clone, Debug, Default)]
pub struct Usage(pub BTreeMap<u32, Thread>);

impl Usage {
    /// Reads the counts of a process and of its children; threads that end meanwhile are left out.
    pub fn of(pid: u32) -> io::Result<Self> {
        let mut threads = BTreeMap::new();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        for child in children.unwrap_or_default().split_ascii_whitespace() {
            // One that has just ended has nothing to be counted.
            let of = child.parse().ok().and_then(|it| Self::of(it).ok());
            threads.extend(of.into_iter().flat_map(|it| it.0));
        }
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path();
            let Some(id) = path.file_name().and_then(|n| n.to_str()?.parse().ok()) else {
                continue;
            };
            let Ok(stat) = fs::read_to_string(path.join("schedstat")) else { continue };
            let mut fields = stat.split_ascii_whitespace().filter_map(|f| f.parse().ok());
            let status = fs::read_to_string(path.join("status")).unwrap_or_default();
            threads.insert(
                id,
                Thread {
                    name: field(&status, "Name:").unwrap_or_default().to_owned(),
                    cpu_ns: fields.next().unwrap_or(0),
                    wait_ns: fields.next().unwrap_or(0),
                    sleeps: number(&status, "voluntary_ctxt_switches:"),
                    preempted: number(&status, "nonvoluntary_ctxt_switches:"),
                },
            );
        }
        Ok(Self(threads))
    }

    /// What was added since an earlier reading; a thread born since counts whole.
    pub fn since(&self, before: &Self) -> Self {
        let mut grown = self.clone();
        for (id, thread) in &mut grown.0 {
            if let Some(old) = before.0.get(id) {
                thread.cpu_ns = thread.cpu_ns.saturating_sub(old.cpu_ns);
                thread.wait_ns = thread.wait_ns.saturating_sub(old.wait_ns);
                thread.sleeps = thread.sleeps.saturating_sub(old.sleeps);
                thread.preempted = thread.preempted.saturating_sub(old.preempted);
            }
        }
        grown
    }

    /// CPU of all threads.
    pub fn cpu_ns(&self) -> u64 {
        self.0.values().map(|t| t.cpu_ns).sum()
    }

    /// The thread that used most.
    pub fn busiest(&self) -> Thread {
        self.0.values().max_by_key(|t| t.cpu_ns).cloned().unwrap_or_default()
    }

    /// Context switches of all threads: of their own will, against it.
    pub fn switches(&self) -> (u64, u64) {
        self.0.values().fold((0, 0), |(s, p), t| (s + t.sleeps, p + t.preempted))
    }
}

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident.
    pub rss: u64,
    /// Resident, shared pages by their share.
    pub pss: u64,
}

impl Memory {
    /// Reads the memory of a process.
    pub fn of(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        Ok(Self { rss: number(&text, "Rss:") * 1024, pss: number(&text, "Pss:") * 1024 })
    }
}

/// Ticks a core was (busy, there at all), with softirq and steal among the busy ones.
pub fn core_ticks(core: usize) -> io::Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{core} ");
    let line = text.lines().find(|l| l.starts_with(&name)).unwrap_or_default();
    let ticks: Vec<u64> =
        line.split_ascii_whitespace().skip(1).take(8).filter_map(|f| f.parse().ok()).collect();
    let all: u64 = ticks.iter().sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Ok((all - idle, all))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|l| l.strip_prefix(name)).map(str::trim)
}

fn number(text: &str, name: &str) -> u64 {
    let value = field(text, name).unwrap_or_default();
    value.split_ascii_whitespace().next().and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_threads_and_memory() {
        let before = Usage::of(std::process::id()).unwrap();
        let sum: u64 = (0..3_000_000u64).map(std::hint::black_box).sum();
        assert!(sum > 0 && before.cpu_ns() > 0);
        let after = Usage::of(std::process::id()).unwrap();
        assert!(after.since(&before).cpu_ns() <= after.cpu_ns());
        assert!(Memory::of(std::process::id()).unwrap().rss > 4096);
        assert!(core_ticks(0).unwrap().1 > 0);
    }
}
