//! `tandem tune` as a shell sees it, and in a network namespace whose knobs the test sets.
//!
//! Only knobs that each network namespace has for itself are written: `fs.`, `vm.` and `kernel.`
//! are the host's in there too. Without the right to make a namespace those tests say so and pass.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tandem");

fn tune(args: &[&str]) -> Output {
    Command::new(PROGRAM).arg("tune").args(args).output().expect("the program starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|fault| panic!("{fault}: {text}"))
}

/// Runs a script in a network namespace of its own; `$T` is the program. `None`: not permitted here.
fn in_namespace(script: &str) -> Option<String> {
    let unshare = |flags: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sh", "-euc", script]).env("T", PROGRAM).output().ok()
    };
    let tried = |flags: &[&str]| {
        let done = Command::new("unshare").args(flags).arg("true").output();
        done.is_ok_and(|it| it.status.success())
    };
    let flags = [&["-n"][..], &["-rn"][..]].into_iter().find(|it| tried(it));
    let Some(flags) = flags else {
        eprintln!("skipped: no network namespace can be made here");
        return None;
    };
    let output = unshare(flags).expect("it could a moment ago");
    assert!(output.status.success(), "{output:?}");
    Some(stdout(&output))
}

fn result<'a>(report: &'a Value, key: &str) -> &'a str {
    let rows = report["rows"].as_array().expect("rows");
    let row = rows.iter().find(|it| it["key"] == key).unwrap_or_else(|| panic!("no row {key}"));
    row["result"].as_str().expect("a word")
}

#[test]
fn the_profiles_are_listed_and_one_fits() {
    let output = tune(&["list"]);
    assert_eq!(code(&output), 0);
    let text = stdout(&output);
    for name in ["edge", "core", "loadgen", "laptop", "+latency", "+throughput"] {
        assert!(text.lines().any(|it| it.contains(name)), "{name}: {text}");
    }
    let json = json(&stdout(&tune(&["list", "-o", "json"])));
    let fits = json["fits"].as_str().expect("a name");
    assert!(text.contains(&format!("* {fits}")), "{text}");
}

#[test]
fn each_knob_is_explained() {
    let output = tune(&["explain", "edge"]);
    assert_eq!(code(&output), 0);
    let text = stdout(&output);
    for part in
        ["net.core.somaxconn  >= 65535", "evidence  none found", "mitigations", "left alone"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.lines().all(|it| it.chars().count() <= 80), "{text}");
    let one = stdout(&tune(&["explain", "core", "fs.nr_open"]));
    assert!(one.contains("2097152") && !one.contains("somaxconn"), "{one}");
    let slip = tune(&["explain", "core", "fs.nr_opn"]);
    assert_eq!(code(&slip), 2);
    assert!(stderr(&slip).contains("did you mean `fs.nr_open`?"), "{slip:?}");
    let slip = tune(&["check", "egde"]);
    assert_eq!(code(&slip), 2);
    assert!(stderr(&slip).contains("did you mean `edge`?"), "{slip:?}");
}

#[test]
fn what_is_exported_is_what_is_checked_in() {
    for (profile, format, path) in [
        ("edge", "tuned", "tuning/tuned/tandem-edge/tuned.conf"),
        ("loadgen", "sysctl", "tuning/sysctl.d/60-tandem-loadgen.conf"),
        ("core", "limits", "tuning/limits.d/60-tandem-core.conf"),
        ("core", "systemd", "tuning/systemd/core/tandem.service.d/50-tuning.conf"),
    ] {
        let output = tune(&["export", profile, "--format", format]);
        assert_eq!(stdout(&output), fs::read_to_string(path).expect("checked in"), "{path}");
    }
    assert_eq!(code(&tune(&["export", "laptop", "--format", "tuned"])), 1);
    assert_eq!(code(&tune(&["export", "edge", "--format", "puppet"])), 2);
}

#[test]
fn low_limits_are_fatal() {
    let checked = |limit: &str| {
        // Of itself: a node that happens to run here would be looked at else.
        let script = format!("ulimit -n {limit} && exec \"$0\" tune check laptop --json --pid $$");
        let output = Command::new("bash").args(["-c", &script, PROGRAM]).output().expect("bash");
        (code(&output), json(&stdout(&output)))
    };
    let (low, report) = checked("512");
    assert_eq!((low, result(&report, "nofile")), (1, "low"));
    assert_eq!(report["fatal"], 1);
    let (good, report) = checked("2048");
    assert_eq!((good, result(&report, "nofile")), (0, "ok"));
}

#[test]
fn nobody_may_check_too() {
    let mut command = Command::new(PROGRAM);
    command.args(["tune", "check", "edge+latency", "-o", "json"]);
    // As root there is somebody with fewer rights to be.
    if fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0) {
        // The program has to be readable to him, which a target folder of root's may not be.
        let folder = tempfile::tempdir().expect("a folder");
        let copy = folder.path().join("tandem");
        fs::copy(PROGRAM, &copy).expect("a copy");
        let open =
            |path| fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755));
        open(folder.path()).and_then(|()| open(&copy)).expect("our files");
        command = Command::new(&copy);
        command.args(["tune", "check", "edge+latency", "-o", "json"]).current_dir("/");
        let output = command.uid(65_534).gid(65_534).output().expect("it starts");
        assert!(matches!(code(&output), 0 | 1), "{output:?}");
        let report = json(&stdout(&output));
        assert_eq!(report["schema"], 1);
        return;
    }
    let output = command.output().expect("it starts");
    assert!(matches!(code(&output), 0 | 1), "{output:?}");
}

#[test]
fn wrong_files_are_told_by_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mine.toml");
    let text = "[profile]\nname = \"mine\"\ninclude = [\"core\"]\n[[knob]]\nkey = \"vm.swappiness\"\nkind = \"sysctl\"\nhow = \"less\"\nvalue = \"1\"\n";
    fs::write(&path, text).expect("our folder");
    let path = path.display().to_string();
    let output = tune(&["check", "--file", &path]);
    assert_eq!(code(&output), 78);
    assert!(stderr(&output).contains(&format!("{path}:7:7")), "{output:?}");
    assert!(stdout(&output).is_empty());
    fs::write(&path, text.replace("less", "lower")).expect("our folder");
    let output = tune(&["explain", "--file", &path, "--connections", "1000"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(stdout(&output).contains("vm.swappiness  <= 1\n"), "{output:?}");
}

const NAMESPACED: &[(&str, &str, &str)] = &[
    ("net.core.somaxconn", "128", "65535"),
    ("net.ipv4.tcp_max_syn_backlog", "128", "100000"),
    ("net.ipv4.tcp_syncookies", "0", "1"),
    ("net.ipv4.tcp_slow_start_after_idle", "1", "0"),
    ("net.ipv4.tcp_notsent_lowat", "4294967295", "16384"),
    ("net.ipv4.tcp_rmem", "4096 131072 1048576", "4096 131072 8388608"),
    ("net.ipv4.tcp_wmem", "4096 16384 1048576", "4096 16384 4194304"),
    ("net.ipv4.tcp_autocorking", "0", "1"),
];

/// Lines of a script that write knobs of the namespace; `of` picks the wrong or the right value.
fn written(rows: &[(&str, &str, &str)], is_right: bool) -> String {
    let line = |&(key, wrong, right): &(&str, &str, &str)| {
        assert!(key.starts_with("net."), "the host's: {key}");
        let value = if is_right { right } else { wrong };
        format!("echo '{value}' > /proc/sys/{}\n", key.replace('.', "/"))
    };
    rows.iter().map(line).collect()
}

#[test]
fn a_namespace_set_wrong_is_low_and_set_right_is_ok() {
    let ask = "\"$T\" tune check edge --json || true";
    let Some(wrong) = in_namespace(&(written(NAMESPACED, false) + ask)) else { return };
    let report = json(&wrong);
    for (key, _, _) in NAMESPACED {
        assert!(matches!(result(&report, key), "low" | "high"), "{key}: {wrong}");
    }
    let Some(right) = in_namespace(&(written(NAMESPACED, true) + ask)) else { return };
    let report = json(&right);
    for (key, _, _) in NAMESPACED {
        assert_eq!(result(&report, key), "ok", "{key}: {right}");
    }
    // What a namespace has not, or only shows, is no fault of its.
    assert_eq!(result(&report, "net.core.busy_poll"), "skipped");
    assert!(matches!(result(&report, "net.core.rmem_max"), "skipped" | "ok"));
}

#[test]
fn what_the_check_says_to_paste_mends_the_namespace() {
    let rows = [
        ("net.ipv4.ip_local_port_range", "32768 60999", ""),
        ("net.ipv4.ip_local_reserved_ports", "9000", ""),
        ("net.ipv4.tcp_tw_reuse", "2", ""),
        ("net.ipv4.tcp_rmem", "4096 131072 1048576", ""),
        ("net.ipv4.tcp_max_syn_backlog", "128", ""),
    ];
    // Pastes what is about this namespace and nothing else.
    let script = written(&rows, false)
        + "\"$T\" tune check loadgen --json > before || true\n\
           python3 -c 'import json; [print(c) for r in json.load(open(\"before\"))[\"rows\"] for c in r[\"commands\"]]' \
           | grep '^sysctl -w net.ipv4' > paste\n\
           sh -e paste >&2\n\
           \"$T\" tune check loadgen --json || true";
    if Command::new("sysctl").arg("--version").output().is_err() {
        eprintln!("skipped: no sysctl(8) here");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let script = format!("cd '{}'\n{script}", folder.path().display());
    let Some(after) = in_namespace(&script) else { return };
    let before = fs::read_to_string(folder.path().join("before")).expect("written");
    let (before, after) = (json(&before), json(&after));
    for (key, _, _) in rows {
        assert!(matches!(result(&before, key), "low" | "high"), "{key}");
        assert_eq!(result(&after, key), "ok", "{key}");
    }
}
