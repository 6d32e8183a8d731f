//! The host as its files show it: `/proc`, `/sys`, `/etc`.
//!
//! A host is a folder, so that tests make their own. Reads only, and says why something can't be read
//! or could not be set. Does **not** run programs.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::limits::{TUNE_FILE_BYTES_MAX, TUNE_MATCHES_MAX};

/// Where knobs are read.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    /// This very host, so that the kernel may be asked too.
    live: bool,
}

/// Why a file could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    Absent,
    /// Another user may.
    Denied,
    Other(String),
}

/// What this system runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Virtual {
    Metal,
    Guest,
    Container,
}

impl Virtual {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Metal => "no virtualisation",
            Self::Guest => "a virtual machine",
            Self::Container => "a container",
        }
    }
}

impl Host {
    /// This one.
    pub fn live() -> Self {
        Self { root: PathBuf::from("/"), live: true }
    }

    /// One in a folder: an image, or a test's.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), live: false }
    }

    /// Whether the kernel may be asked about it.
    pub fn is_live(&self) -> bool {
        self.live
    }

    fn place(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's text, without the blanks at its end.
    pub fn read(&self, path: &str) -> Result<String, Unread> {
        let unread = |fault: std::io::Error| match fault.kind() {
            ErrorKind::NotFound => Unread::Absent,
            ErrorKind::PermissionDenied => Unread::Denied,
            _ => Unread::Other(crate::config::in_words(&fault)),
        };
        let mut octets = Vec::new();
        let file = File::open(self.place(path)).map_err(unread)?;
        file.take(TUNE_FILE_BYTES_MAX).read_to_end(&mut octets).map_err(unread)?;
        Ok(String::from_utf8_lossy(&octets).trim_end().to_owned())
    }

    /// A number in a file.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.read(path).ok()?.trim().parse().ok()
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.place(path).exists()
    }

    /// Names in a folder, sorted.
    pub(super) fn list(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.place(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|it| it.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// What a pattern means: `*` stands for anything within one name.
    pub(super) fn matching(&self, pattern: &str) -> Vec<String> {
        let mut paths = vec![String::new()];
        for name in pattern.split('/').filter(|it| !it.is_empty()) {
            let Some((before, after)) = name.split_once('*') else {
                paths.iter_mut().for_each(|it| *it = format!("{it}/{name}"));
                continue;
            };
            let is_meant = |it: &String| {
                it.len() >= before.len() + after.len()
                    && it.starts_with(before)
                    && it.ends_with(after)
            };
            let below = |path: String| {
                let names = self.list(&path).into_iter().filter(is_meant);
                names.map(|it| format!("{path}/{it}")).collect::<Vec<_>>()
            };
            paths = paths.into_iter().flat_map(below).take(TUNE_MATCHES_MAX).collect();
        }
        paths.retain(|it| self.exists(it));
        paths
    }

    /// Why a file of `/proc/sys` can't be written by anybody here; `None` if root can.
    pub(super) fn fixed(&self, path: &str) -> Option<String> {
        let mode = fs::metadata(self.place(path)).ok()?.permissions().mode();
        if mode & 0o222 == 0 {
            return Some("read-only in this network namespace: it is the host's".to_owned());
        }
        self.sysctls_are_fixed().then(|| "/proc/sys is read-only in this container".to_owned())
    }

    fn sysctls_are_fixed(&self) -> bool {
        let mounts = self.read("/proc/self/mountinfo").unwrap_or_default();
        let options = |line: &str| {
            let mut fields = line.split(' ').skip(4);
            let is_it = fields.next() == Some("/proc/sys");
            is_it.then(|| fields.next().is_some_and(|it| it.split(',').any(|it| it == "ro")))
        };
        mounts.lines().rev().find_map(options).unwrap_or(false)
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.read("/proc/sys/kernel/hostname").unwrap_or_else(|_| "this host".to_owned())
    }

    /// The kernel's release.
    pub fn kernel(&self) -> String {
        self.read("/proc/sys/kernel/osrelease").unwrap_or_else(|_| "unknown".to_owned())
    }

    /// Processors that are on.
    pub fn cores(&self) -> usize {
        let online = self.read("/sys/devices/system/cpu/online").unwrap_or_default();
        let ranges = crate::tune::want::ranges(&online).unwrap_or_default();
        let cores: u64 = ranges.iter().map(|it| it.1 - it.0 + 1).sum();
        usize::try_from(cores).unwrap_or(1).max(1)
    }

    /// Octets of memory.
    pub fn memory(&self) -> u64 {
        let text = self.read("/proc/meminfo").unwrap_or_default();
        let total = text.lines().find_map(|it| it.strip_prefix("MemTotal:"));
        let kib = total.and_then(|it| it.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1_024
    }

    /// What it runs in.
    pub fn virtual_kind(&self) -> Virtual {
        let marks = ["/.dockerenv", "/run/.containerenv", "/run/systemd/container"];
        if marks.iter().any(|it| self.exists(it)) {
            return Virtual::Container;
        }
        let cpu = self.read("/proc/cpuinfo").unwrap_or_default();
        let flags = cpu.lines().find(|it| it.starts_with("flags"));
        let is_guest = flags.is_some_and(|it| it.split_whitespace().any(|it| it == "hypervisor"));
        if is_guest || self.exists("/sys/hypervisor/type") {
            Virtual::Guest
        } else {
            Virtual::Metal
        }
    }

    /// One line about it.
    pub fn summary(&self) -> String {
        let gib = self.memory().div_ceil(1 << 30);
        let cores = self.cores();
        let plural = if cores == 1 { "" } else { "s" };
        format!(
            "{cores} core{plural}, {gib} GiB, Linux {}, {}",
            self.kernel(),
            self.virtual_kind().word()
        )
    }

    /// Processes of a name, with what they were started with.
    pub(super) fn processes(&self, name: &str) -> Vec<(u32, Vec<String>)> {
        // The kernel keeps 15 octets of a name.
        let short: String = name.chars().take(15).collect();
        let named = |id: String| {
            let number: u32 = id.parse().ok()?;
            let comm = self.read(&format!("/proc/{id}/comm")).ok()?;
            let line = self.read(&format!("/proc/{id}/cmdline")).unwrap_or_default();
            let line = line.split('\0').map(str::to_owned).collect();
            (comm == short).then_some((number, line))
        };
        self.list("/proc").into_iter().filter_map(named).collect()
    }

    /// Network cards: what has a device behind it.
    pub(super) fn cards(&self) -> Vec<String> {
        let has_device = |it: &String| self.exists(&format!("/sys/class/net/{it}/device"));
        self.list("/sys/class/net").into_iter().filter(has_device).collect()
    }
}

/// Where a sysctl stands. `net/ipv4/conf/eth0.7/x` spells a name with a dot in it.
pub(super) fn sysctl_path(key: &str) -> String {
    let first = key.find(['.', '/']).and_then(|it| key.get(it..=it));
    let path = if first == Some("/") { key.to_owned() } else { key.replace('.', "/") };
    format!("/proc/sys/{path}")
}
