//! The commands as a shell sees them: what they print where, and the code they end with.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn tandem(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tandem")).args(args).output().expect("the program starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A folder with a good configuration, as `demo --write` leaves it.
fn furnished() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let output = tandem(&["demo", "--write", &folder.path().display().to_string()]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(stdout(&output).contains("Next:    tandem check config"));
    let path = folder.path().join("tandem.toml").display().to_string();
    (folder, path)
}

fn edit(path: &str, from: &str, to: &str) {
    let text = fs::read_to_string(path).expect("the file");
    assert!(text.contains(from), "{from}");
    fs::write(path, text.replace(from, to)).expect("our folder");
}

#[test]
fn check_config_tells_by_its_code() {
    let (_folder, path) = furnished();
    let good = tandem(&["check", "config", &path]);
    assert_eq!(code(&good), 0, "{good:?}");
    assert!(stdout(&good).contains("example.com, certificate until"));

    edit(&path, "key = \"tls/example.com.key\"", "key = \"tls/example.com.key\"\nplain = true");
    assert_eq!(code(&tandem(&["check", "config", &path])), 0);
    assert_eq!(code(&tandem(&["check", "config", "--deny-warnings", &path])), 3);

    edit(&path, "party = \"peer\"", "party = \"pear\"");
    let bad = tandem(&["check", "config", "-o", "json", &path]);
    assert_eq!(code(&bad), 78);
    let json: serde_json::Value = serde_json::from_str(&stdout(&bad)).expect("JSON");
    assert_eq!(json["schema"], 1);
    assert_eq!(json["errors"], 1);
    let finding =
        json["findings"].as_array().and_then(|it| it.iter().find(|it| it["code"] == "C0106"));
    assert_eq!(finding.expect("the finding")["mark"], "did you mean \"peer\"?");

    let run = tandem(&["run", &path]);
    assert_eq!(code(&run), 78);
    assert!(String::from_utf8_lossy(&run.stderr).contains("nothing runs"));
}

#[test]
fn no_colour_reaches_a_pipe() {
    let output = tandem(&["check", "config", "tests/config/many_mistakes.toml"]);
    assert!(!stdout(&output).contains('\u{1b}'));
    assert_eq!(code(&output), 78);
}

#[test]
fn check_policy_explains() {
    let (_folder, path) = furnished();
    let text = fs::read_to_string(&path).expect("the file");
    fs::write(&path, text + "\n[[peer]]\npattern = \".bad.example\"\naction = \"deny\"\n")
        .expect("our folder");
    let ask = |to: &str| tandem(&["check", "policy", &path, "alice@example.com", to]);
    let allowed = ask("carol@partner.example");
    assert_eq!(code(&allowed), 0);
    assert!(stdout(&allowed).contains("no rule is about partner.example"), "{allowed:?}");
    let denied = ask("mallory@very.bad.example");
    assert_eq!(code(&denied), 1);
    assert!(stdout(&denied).contains("the rule \".bad.example\""), "{denied:?}");
    assert_eq!(code(&ask("bob@example.com")), 0);
}

#[test]
fn check_policy_tells_the_protocol() {
    let (_folder, path) = furnished();
    let text = fs::read_to_string(&path).expect("the file");
    let sip = "\n[[listen]]\naddress = \"127.0.0.1:5061\"\nparty = \"sip\"\n
[[peer]]\npattern = \"lync.example\"\naction = \"allow\"\nprotocol = \"sip\"\n
[[peer]]\npattern = \"*.behind.example\"\naction = \"allow\"\nprotocol = \"sip\"\n
[[edge]]\nname = \"edge.example\"\nspeaks_for = [\"*.behind.example\"]\n";
    fs::write(&path, text + sip).expect("our folder");
    let ask = |to: &str, more: &[&str]| {
        tandem(&[&["check", "policy", &path, "alice@example.com", to], more].concat())
    };
    let lync = ask("bob@lync.example", &[]);
    assert_eq!(code(&lync), 0, "{lync:?}");
    assert!(stdout(&lync).contains("sip over tls as lync"), "{lync:?}");
    let behind = stdout(&ask("bob@a.behind.example", &[]));
    assert!(behind.contains("behind the edge edge.example"), "{behind}");
    for (to, protocol, profile) in [
        ("bob@lync.example", "sip", "lync"),
        ("bob@sub.lync.example", "xmpp", "xmpp"),
        ("bob@partner.example", "xmpp", "xmpp"),
    ] {
        let json = ask(to, &["--output", "json"]);
        let json: serde_json::Value = serde_json::from_str(&stdout(&json)).expect("JSON");
        assert_eq!(json["speaks"]["protocol"], protocol, "{to}");
        assert_eq!(json["speaks"]["profile"], profile, "{to}");
    }
}

#[test]
fn ctl_without_a_node_is_unavailable() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("ctl.sock").display().to_string();
    assert_eq!(code(&tandem(&["ctl", "--socket", &socket, "status"])), 69);
    assert_eq!(code(&tandem(&["ctl", "--socket", &socket, "no-such-command"])), 2);
}

#[test]
fn nothing_is_written_over() {
    let (folder, path) = furnished();
    let before = fs::read(&path).expect("the file");
    let again = tandem(&["demo", "--write", &folder.path().display().to_string()]);
    assert_eq!(code(&again), 1);
    assert_eq!(fs::read(Path::new(&path)).expect("the file"), before);
}

#[test]
fn the_demo_holds_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_tandem"))
        .args(["demo", "--once"])
        .env("TMPDIR", folder.path())
        .output()
        .expect("the program starts");
    assert_eq!(code(&output), 0, "{}", stdout(&output));
    assert!(stdout(&output).contains("51 steps, all held"), "{}", stdout(&output));
    assert_eq!(fs::read_dir(folder.path()).expect("our folder").count(), 0);
}

#[test]
fn every_command_has_help_with_an_example() {
    for args in [
        &["run"][..],
        &["check", "config"],
        &["check", "policy"],
        &["ctl"],
        &["ctl", "user", "add"],
        &["demo"],
    ] {
        let output = tandem(&[args, &["--help"]].concat());
        assert_eq!(code(&output), 0, "{args:?}");
        assert!(stdout(&output).contains("Example: tandem"), "{args:?}");
    }
}
