//! Profiles as they are built in, and hosts of the tests' making held against them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::limits::ACCEPT_BACKLOG_MAX;
use crate::tune::export::{self, Format};
use crate::tune::{
    Host, How, Kind, Outcome, Profile, Report, Role, Row, Severity, Virtual, advise, built_in,
    check, find, from_file,
};

struct Made {
    folder: tempfile::TempDir,
}

impl Made {
    /// A machine on which every knob of `edge` is as it should be.
    fn good() -> Self {
        let made = Self { folder: tempfile::tempdir().expect("a folder") };
        let rows = "Limit  Soft Limit  Hard Limit  Units\nMax open files 1024 1048576 files\n\
                    Max locked memory unlimited unlimited bytes\n";
        for (path, text) in [
            ("/proc/self/limits", rows),
            ("/proc/self/cgroup", "0::/system.slice/tandem.service\n"),
            ("/proc/cpuinfo", "flags\t\t: fpu sse2\n"),
            ("/proc/meminfo", "MemTotal:       65536000 kB\n"),
            ("/sys/devices/system/cpu/online", "0-3\n"),
            ("/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
            ("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
            ("/proc/net/softnet_stat", "00001000 00000000 00000000\n"),
        ] {
            made.put(path, text);
        }
        for profile in ["edge", "core", "loadgen"] {
            let profile = find(profile).expect("built in");
            for knob in profile.all_knobs().iter().filter(|it| it.kind == Kind::Sysctl) {
                let value = profile.want(knob).value().replace('_', "4096");
                made.put(&format!("/proc/sys/{}", knob.key.replace('.', "/")), &value);
            }
        }
        made
    }

    fn put(&self, path: &str, text: &str) -> &Self {
        let path = self.folder.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a folder")).expect("our folder");
        fs::write(path, text).expect("our folder");
        self
    }

    fn host(&self) -> Host {
        Host::at(self.folder.path())
    }

    fn check(&self, profile: &str) -> Report {
        check(&find(profile).expect("built in"), &self.host(), None)
    }

    fn row(&self, profile: &str, key: &str) -> Row {
        let rows = self.check(profile).rows;
        rows.into_iter().find(|it| it.knob.key == key).expect("a row of that key")
    }
}

const SOMAXCONN: &str = "net.core.somaxconn";
const SOMAXCONN_FILE: &str = "/proc/sys/net/core/somaxconn";

#[test]
fn every_knob_says_why_and_how_to_read_it() {
    for (role, profile) in built_in() {
        assert!(profile.connections > 0, "{}", profile.name);
        for knob in profile.all_knobs() {
            let place = format!("{}: {}", profile.name, knob.key);
            assert!(!knob.reason.is_empty() && !knob.read.is_empty(), "{place}");
            // TuneD compares single numbers: with a row of them it would write the sign too.
            let compared = matches!(knob.how, How::Raise | How::Lower);
            let is_row = profile.want(knob).value().contains(' ');
            assert!(!(knob.exported && compared && is_row), "{place}");
        }
        if role == Role::Profile {
            assert!(profile.knobs().any(|it| it.severity == Severity::Fatal), "{}", profile.name);
        }
    }
}

#[test]
fn what_is_checked_in_is_what_the_profiles_make() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning");
    for &(path, name, format) in export::FILES {
        let made = export::export(&find(name).expect("built in"), format).expect("has one");
        let kept = fs::read_to_string(folder.join(path)).unwrap_or_default();
        assert!(made == kept, "tuning/{path} is not what the profile makes: run tuning/make");
    }
}

#[test]
fn a_laptop_has_nothing_for_tools_that_change_the_host() {
    let laptop = find("laptop").expect("built in");
    assert!(export::export(&laptop, Format::Tuned).is_err());
    assert!(export::export(&laptop, Format::Sysctl).is_err());
    assert!(laptop.knobs().all(|it| matches!(it.kind, Kind::Limit | Kind::Check)));
}

#[test]
fn traits_are_added_by_a_plus_sign() {
    let both = find("core+latency").expect("built in");
    let has = |profile: &Profile, key: &str| profile.knobs().any(|it| it.key == key);
    assert!(has(&both, "governor") && !has(&find("core").expect("built in"), "governor"));
    let text = export::export(&both, Format::Tuned).expect("has one");
    assert!(text.contains("[cpu]") && text.contains("governor=performance"), "{text}");
    let plain = export::export(&find("core+throughput").expect("built in"), Format::Tuned);
    assert!(plain.expect("has one").contains("include=throughput-performance"));
    let fault = find("edge+latncy").expect_err("a slip");
    assert_eq!(fault.near.as_deref(), Some("latency"));
    assert_eq!(find("egde").expect_err("a slip").near.as_deref(), Some("edge"));
}

#[test]
fn the_number_of_connections_decides() {
    let mut core = find("core").expect("built in");
    let has = |profile: &Profile, key: &str| profile.knobs().any(|it| it.key == key);
    assert!(has(&core, "fs.nr_open") && has(&core, "net.ipv4.tcp_mem"));
    assert!(export::export(&core, Format::Systemd).expect("one").contains("LimitNOFILE=2097152"));
    core.connections = 100_000;
    assert!(!has(&core, "fs.nr_open") && !has(&core, "net.ipv4.tcp_mem"));
    // Never less than what the unit has without us.
    assert!(export::export(&core, Format::Systemd).expect("one").contains("LimitNOFILE=1048576"));
    assert_eq!(core.descriptors(), 110_000);
}

#[test]
fn a_node_asks_for_what_the_profile_permits() {
    let edge = find("edge").expect("built in");
    let knob = edge.knobs().find(|it| it.key == SOMAXCONN).expect("a row");
    assert_eq!(edge.want(knob).value(), ACCEPT_BACKLOG_MAX.to_string());
}

#[test]
fn a_good_host_has_nothing_to_change() {
    for profile in ["edge", "core", "loadgen", "laptop"] {
        let made = Made::good();
        made.put(
            "/proc/self/limits",
            "Max open files 1 2000000 files\nMax locked memory unlimited unlimited bytes",
        );
        let report = made.check(profile);
        let bad: Vec<&Row> = report.rows.iter().filter(|it| it.found.outcome.is_bad()).collect();
        assert!(bad.is_empty(), "{profile}: {bad:?}");
        assert!(report.count(Outcome::Ok) > 3, "{profile}");
    }
}

#[test]
fn low_high_and_better_than_wanted() {
    let made = Made::good();
    made.put(SOMAXCONN_FILE, "128\n").put("/proc/sys/vm/swappiness", "60\n");
    let low = made.row("edge", SOMAXCONN).found;
    assert_eq!((low.outcome, low.now.as_str()), (Outcome::Low, "128"));
    assert_eq!(low.commands, ["sysctl -w net.core.somaxconn=65535"]);
    assert_eq!(made.row("edge", "vm.swappiness").found.outcome, Outcome::High);
    made.put(SOMAXCONN_FILE, "1000000\n").put("/proc/sys/vm/swappiness", "0\n");
    assert_eq!(made.row("edge", SOMAXCONN).found.outcome, Outcome::Ok);
    assert_eq!(made.row("edge", "vm.swappiness").found.outcome, Outcome::Ok);
    made.put("/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never");
    let differs = made.row("edge", "transparent_hugepages").found;
    assert_eq!((differs.outcome, differs.now.as_str()), (Outcome::Differs, "always"));
    made.put("/proc/self/limits", "Max open files 1024 4096 files\nMax locked memory 1 1 bytes");
    let report = made.check("edge");
    assert_eq!(report.bad(Severity::Fatal), 1, "descriptors");
}

#[test]
fn what_another_file_undoes_is_a_conflict() {
    let made = Made::good();
    made.put("/etc/sysctl.d/10-site.conf", "net.core.somaxconn = 512\n");
    // The value is good now, but nothing of ours is there to keep it.
    let row = made.row("edge", SOMAXCONN);
    assert_eq!(row.found.outcome, Outcome::Conflict);
    assert!(row.found.why.contains("/etc/sysctl.d/10-site.conf:1 sets 512"), "{:?}", row.found);
    // Ours comes after it and wins.
    made.put("/etc/sysctl.d/60-tandem-edge.conf", "net.core.somaxconn = 65535\n");
    assert_eq!(made.row("edge", SOMAXCONN).found.outcome, Outcome::Ok);
    made.put(SOMAXCONN_FILE, "512");
    assert_eq!(made.row("edge", SOMAXCONN).found.outcome, Outcome::Low);
    // One that is read later wins over ours, also if it is written by paths and in /usr/lib.
    made.put("/usr/lib/sysctl.d/90-cloud.conf", "# agent\n-net/core/somaxconn=1024\n");
    let row = made.row("edge", SOMAXCONN);
    assert_eq!(row.found.outcome, Outcome::Conflict);
    assert!(row.found.mend.contains("/usr/lib/sysctl.d/90-cloud.conf:2"), "{:?}", row.found);
    assert_eq!(row.at_boot.expect("somebody").1, "1024");
    // A file of the same name in /etc hides it.
    made.put("/etc/sysctl.d/90-cloud.conf", "");
    assert_eq!(made.row("edge", SOMAXCONN).found.outcome, Outcome::Low);
}

#[test]
fn tuned_wins_unless_it_gives_way() {
    let made = Made::good();
    let profile = "[main]\ninclude=base\n[sysctl]\nnet.core.somaxconn=2048\n";
    made.put("/usr/lib/tuned/site/tuned.conf", profile);
    made.put(
        "/usr/lib/tuned/base/tuned.conf",
        "[sysctl]\nvm.swappiness=30\nnet.core.rmem_max=>1\n",
    );
    made.put("/etc/tuned/active_profile", "site\n");
    // Neither runs nor starts at boot.
    assert_eq!(made.row("edge", SOMAXCONN).found.outcome, Outcome::Ok);
    made.put("/run/tuned/tuned.pid", "7");
    let row = made.row("edge", SOMAXCONN);
    assert_eq!(row.found.outcome, Outcome::Conflict);
    assert!(row.found.mend.contains("TuneD's profile site wins"), "{:?}", row.found);
    assert_eq!(made.row("edge", "vm.swappiness").found.outcome, Outcome::Conflict);
    assert_eq!(made.row("edge", "net.core.rmem_max").found.outcome, Outcome::Ok);
    assert_eq!(made.check("edge").tuners.len(), 1);
    // It sets again what /etc/sysctl.d says, unless told not to.
    made.put("/etc/sysctl.d/60-tandem-edge.conf", "net.core.somaxconn = 65535\n");
    assert_eq!(made.row("edge", SOMAXCONN).found.outcome, Outcome::Ok);
    made.put("/etc/tuned/tuned-main.conf", "reapply_sysctl = 0\n");
    assert_eq!(made.row("edge", SOMAXCONN).found.outcome, Outcome::Conflict);
}

#[test]
fn what_is_not_there_or_not_ours_is_skipped() {
    let made = Made::good();
    made.put(SOMAXCONN_FILE, "128");
    let path = made.folder.path().join("proc/sys/net/core/somaxconn");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("our file");
    let row = made.row("edge", SOMAXCONN).found;
    assert_eq!(row.outcome, Outcome::Skipped);
    assert!(row.why.contains("namespace") && row.now == "128", "{row:?}");
    fs::remove_file(&path).expect("our file");
    assert_eq!(made.row("edge", SOMAXCONN).found.outcome, Outcome::Skipped);
    made.put(SOMAXCONN_FILE, "128");
    made.put(
        "/proc/self/mountinfo",
        "1 2 0:3 / /proc rw - proc proc rw\n3 1 0:3 /sys /proc/sys ro,nosuid - proc proc rw",
    );
    let row = made.row("edge", SOMAXCONN).found;
    assert!(row.outcome == Outcome::Skipped && row.why.contains("container"), "{row:?}");
}

#[test]
fn a_shell_proves_nothing_about_a_unit() {
    let made = Made::good();
    made.put("/proc/self/limits", "Max open files 1024 4096 files\nMax locked memory 1 1 bytes");
    assert_eq!(made.row("edge", "nofile").found.outcome, Outcome::Low);
    made.put("/usr/lib/systemd/system/tandem.service", "[Service]");
    assert_eq!(made.row("edge", "nofile").found.outcome, Outcome::Skipped);
    // The node runs: its own limits count.
    made.put("/proc/77/comm", "tandem\n").put("/proc/77/cmdline", "tandem\0run\0x.toml\0");
    made.put("/proc/77/limits", "Max open files 1024 100000 files\n");
    made.put("/proc/76/comm", "tandem\n").put("/proc/76/cmdline", "tandem\0tune\0check\0");
    let row = made.row("edge", "nofile").found;
    assert_eq!((row.outcome, row.now.as_str()), (Outcome::Low, "100000"));
    assert!(made.check("edge").process.contains("77"));
}

#[test]
fn a_quota_and_a_memory_limit_above_the_process_are_seen() {
    let made = Made::good();
    made.put("/sys/fs/cgroup/system.slice/cpu.max", "50000 100000\n");
    made.put("/sys/fs/cgroup/system.slice/cpu.stat", "usage_usec 1\nnr_throttled 12\n");
    made.put("/sys/fs/cgroup/system.slice/tandem.service/cpu.max", "max 100000\n");
    let row = made.row("edge", "cgroup.cpu").found;
    assert_eq!((row.outcome, row.now.as_str()), (Outcome::Low, "50000 of 100000 us"));
    assert!(row.why.contains("throttled 12 times"), "{row:?}");
    made.put("/sys/fs/cgroup/system.slice/memory.high", "104857600\n");
    assert_eq!(made.row("edge", "cgroup.memory").found.outcome, Outcome::Low);
    made.put("/sys/fs/cgroup/system.slice/memory.high", "max\n");
    assert_eq!(made.row("edge", "cgroup.memory").found.outcome, Outcome::Ok);
}

#[test]
fn cards_are_looked_at() {
    let made = Made::good();
    assert_eq!(made.row("edge", "nic.queues").found.outcome, Outcome::Skipped);
    made.put("/sys/class/net/eth0/device/vendor", "x");
    for queue in ["rx-0", "tx-0"] {
        made.put(&format!("/sys/class/net/eth0/queues/{queue}/rps_cpus"), "0");
    }
    assert_eq!(made.row("edge", "nic.queues").found.outcome, Outcome::Low);
    let row = made.row("edge", "nic.rps").found;
    assert!(row.commands.iter().any(|it| it.starts_with("echo f >")), "{row:?}");
    for queue in 0..4 {
        made.put(&format!("/sys/class/net/eth0/queues/rx-{queue}/rps_cpus"), "0,00000000");
        made.put(&format!("/sys/class/net/eth0/queues/tx-{queue}/xps_cpus"), "0");
    }
    assert_eq!(made.row("edge", "nic.queues").found.outcome, Outcome::Ok);
    assert_eq!(made.row("edge", "nic.rps").found.outcome, Outcome::Ok);
    assert_eq!(made.row("edge", "nic.xps").found.outcome, Outcome::Low);
    made.put("/proc/9/comm", "irqbalance\n");
    assert_eq!(made.row("edge", "irqbalance").found.outcome, Outcome::Conflict);
    made.put("/etc/default/irqbalance", "IRQBALANCE_ARGS=\"--banirq=33\"\n");
    assert_eq!(made.row("edge", "irqbalance").found.outcome, Outcome::Ok);
    made.put("/sys/class/net/eth0/device/msi_irqs/33", "msi");
    made.put("/proc/irq/33/effective_affinity_list", "0-3\n");
    assert_eq!(made.row("edge", "nic.queues").found.outcome, Outcome::Differs);
}

#[test]
fn the_host_tells_which_profile_fits() {
    let made = Made::good();
    assert_eq!(advise(&made.host(), None).profile, "edge");
    made.put("/proc/5/comm", "tandem-loadgen\n");
    assert_eq!(advise(&made.host(), None).profile, "loadgen");
    made.put("/sys/devices/system/cpu/online", "0-1");
    made.put("/proc/5/comm", "other\n").put("/proc/cpuinfo", "flags : fpu hypervisor\n");
    assert_eq!(made.host().virtual_kind(), Virtual::Guest);
    assert_eq!(advise(&made.host(), None).profile, "laptop");
    made.put("/run/.containerenv", "");
    assert_eq!(made.host().virtual_kind(), Virtual::Container);
}

fn mine(text: &str) -> Result<Profile, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mine.toml");
    fs::write(&path, text).expect("our folder");
    from_file(&path).map_err(|it| it.to_string())
}

#[test]
fn a_file_of_ones_own_changes_a_row() {
    let profile = mine(
        "[profile]\nname = \"mine\"\ninclude = [\"edge\"]\nconnections = 5000\n\
         [[knob]]\nkey = \"net.core.somaxconn\"\nkind = \"sysctl\"\nhow = \"raise\"\nvalue = \"8192\"\n",
    )
    .expect("a good file");
    let rows: Vec<_> = profile.all_knobs().iter().filter(|it| it.key == SOMAXCONN).collect();
    assert_eq!((rows.len(), rows[0].value.as_str()), (1, "8192"));
    assert!(profile.knobs().any(|it| it.key == "nic.queues"));
    assert_eq!(profile.connections, 5_000);
}

#[test]
fn mistakes_are_told_with_their_place() {
    let told = mine(
        "[profile]\nname = \"Mine/..\"\ninclude = [\"egde\"]\nconnection = 5\n\
         [[knob]]\nkey = \"net.core.somaxconn\"\nkind = \"sysctrl\"\nvalue = \"1\"\n\
         [[knob]]\nkey = \"ntpd\"\nkind = \"check\"\nvalue = \"x\"\n\
         [[knob]]\nkey = \"a.b\\nc = 1\"\nkind = \"sysctl\"\nvalue = \"1\"\n\
         [[knob]]\nkey = \"vm.swappiness\"\nkind = \"sysctl\"\nhow = \"lower\"\nvalue = \"ten\"\n\
         [[knob]]\nkey = \"thp\"\nkind = \"sysfs\"\nvalue = \"1\"\npath = \"/etc/passwd\"\n\
         [[knobs]]\nx = 1\n",
    )
    .expect_err("a bad file");
    for part in [
        ":2:8\n",
        "did you mean \"edge\"?",
        ":4:1\n",
        "did you mean `connections`?",
        ":7:8\n",
        "did you mean \"sysctl\"?",
        "did you mean \"ntp\"?",
        "`key` can't be",
        "`value` can't be \"ten\"",
        "`path` can't be",
        "did you mean `[[knob]]`?",
    ] {
        assert!(told.contains(part), "{part}:\n{told}");
    }
    let twice =
        "[profile]\nname = \"a\"\n[[knob]]\nkey = \"ntp\"\nkind = \"check\"\nvalue = \"x\"\n";
    let knob = "[[knob]]\nkey = \"ntp\"\nkind = \"check\"\nvalue = \"x\"\n";
    assert!(mine(&format!("{twice}{knob}")).expect_err("twice").contains("first here"));
    assert!(mine("").expect_err("empty").contains("there is no [profile]"));
    assert!(mine("[profile\n").expect_err("no TOML").contains(":1:9"));
    assert!(mine("profile = 3\n").expect_err("a number").contains("is a table"));
}
