//! What will be set at the next boot, by whom, and who wins.
//!
//! sysctl.d(5): files of all folders in the order of their names, a name in a better folder hiding
//! the others, the last line about a key wins. TuneD comes after that; with its `reapply_sysctl` it
//! then sets again what `/run/sysctl.d`, `/etc/sysctl.d` and `/etc/sysctl.conf` say. Conditions of
//! TuneD's sections and its `${...}` are **not** understood: such lines are passed over.

use std::collections::BTreeMap;

use crate::limits::TUNE_INCLUDES_MAX;
use crate::tune::host::Host;

/// All settings, by key.
#[derive(Clone, Debug, Default)]
pub struct Persisted {
    last: BTreeMap<String, Setting>,
    /// The profile that TuneD is to apply, if any.
    pub tuned: Option<String>,
}

/// Who sets a key last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub value: String,
    /// `/etc/sysctl.d/99-x.conf:3`, `TuneD's profile balanced`.
    pub by: String,
    /// What decides the order among files; `None`: after all of them.
    pub file: Option<String>,
}

impl Persisted {
    /// Reads what there is.
    pub fn of(host: &Host) -> Self {
        let mut all = Self::default();
        let files = sysctl_files(host);
        for (file, path) in &files {
            all.take_file(host, file, path);
        }
        let active = host.read("/etc/tuned/active_profile").unwrap_or_default();
        let runs = host.exists("/run/tuned/tuned.pid");
        let starts = host.exists("/etc/systemd/system/multi-user.target.wants/tuned.service");
        if active.trim().is_empty() || !(runs || starts) {
            return all;
        }
        for profile in active.split_whitespace() {
            all.take_tuned(host, profile, profile, 0);
        }
        all.tuned = Some(active.trim().to_owned());
        let main = host.read("/etc/tuned/tuned-main.conf").unwrap_or_default();
        let reapply = main.lines().find_map(|it| it.trim().strip_prefix("reapply_sysctl"));
        let off =
            reapply.is_some_and(|it| it.trim_start_matches([' ', '=']).starts_with(['0', 'F']));
        if !off {
            let again = |it: &&(String, String)| {
                ["/run/sysctl.d/", "/etc/sysctl.d/"].iter().any(|dir| it.1.starts_with(dir))
            };
            files.iter().filter(again).for_each(|(file, path)| all.take_file(host, file, path));
            if host.exists("/etc/sysctl.conf") {
                all.take_file(host, "sysctl.conf", "/etc/sysctl.conf");
            }
        }
        all
    }

    /// Who sets a key last.
    pub(super) fn last(&self, key: &str) -> Option<&Setting> {
        self.last.get(key)
    }

    fn take_file(&mut self, host: &Host, file: &str, path: &str) {
        let text = host.read(path).unwrap_or_default();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with(['#', ';']) {
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            // A minus before the key means that a failure is no matter.
            let key = key.trim().trim_start_matches('-');
            let by = format!("{path}:{}", at + 1);
            let value = value.trim().to_owned();
            let setting = Setting { value, by, file: Some(file.to_owned()) };
            self.last.insert(dotted(key), setting);
        }
    }

    fn take_tuned(&mut self, host: &Host, name: &str, active: &str, depth: usize) {
        let folders =
            ["/etc/tuned", "/etc/tuned/profiles", "/usr/lib/tuned", "/usr/lib/tuned/profiles"];
        let path = folders.map(|it| format!("{it}/{name}/tuned.conf"));
        let Some(text) = path.iter().find_map(|it| host.read(it).ok()) else { return };
        let rows = ini(&text);
        for (section, option, value) in &rows {
            if section == "main" && option == "include" && depth < TUNE_INCLUDES_MAX {
                for other in value.split([',', ';']) {
                    self.take_tuned(host, other.trim(), active, depth + 1);
                }
            }
        }
        let bound = |section: &str| {
            rows.iter().any(|it| {
                it.0 == section && matches!(it.1.as_str(), "uname_regex" | "cpuinfo_regex")
            })
        };
        for (section, option, value) in &rows {
            // `>5` only raises and `<5` only lowers: neither undoes what is better.
            if value.starts_with(['>', '<', '$']) || bound(section) {
                continue;
            }
            let key = match section.as_str() {
                "sysctl" => dotted(option),
                "vm" => format!("vm.{option}"),
                _ => continue,
            };
            let by = format!("TuneD's profile {active}");
            self.last.insert(key, Setting { value: value.clone(), by, file: None });
        }
    }
}

/// File names in the order in which they count, with their paths.
fn sysctl_files(host: &Host) -> Vec<(String, String)> {
    let mut files = BTreeMap::new();
    for folder in ["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"]
    {
        for file in host.list(folder).into_iter().filter(|it| it.ends_with(".conf")) {
            let path = format!("{folder}/{file}");
            files.entry(file).or_insert(path);
        }
    }
    let has_link = files.contains_key("99-sysctl.conf");
    let mut files: Vec<(String, String)> = files.into_iter().collect();
    // Without systemd, `sysctl --system` of procps reads it after all others.
    if !has_link && !host.exists("/run/systemd/system") && host.exists("/etc/sysctl.conf") {
        files.push(("~sysctl.conf".to_owned(), "/etc/sysctl.conf".to_owned()));
    }
    files
}

/// `net/core/somaxconn` and `net.core.somaxconn` are the same.
fn dotted(key: &str) -> String {
    let first = key.find(['.', '/']).and_then(|it| key.get(it..=it));
    if first == Some("/") { key.replace('/', ".") } else { key.to_owned() }
}

/// Section, option, value.
fn ini(text: &str) -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut rows = Vec::new();
    for line in text.lines().map(str::trim).filter(|it| !it.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            section = name.trim().to_owned();
        } else if let Some((option, value)) = line.split_once('=') {
            rows.push((section.clone(), option.trim().to_owned(), value.trim().to_owned()));
        }
    }
    rows
}
