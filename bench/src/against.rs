//! The load generator used against each server as its users would: shipped scenarios, reports kept.
//!
//! Each server stands by itself, pinned to core 0, with the configuration of the bars; the generator
//! has core 1. The scenarios are those that `tandem-loadgen show` prints, with the names of our users
//! put in. Says nothing of which server is the quicker: that is what the bars are for, which load them
//! until they are busy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::bars::{beside, say};
use crate::servers::{self, DOMAIN, Running, Stage, Subject};
use crate::sip::Sip;

/// Run the load generator's own scenarios against each server and keep the reports.
#[derive(clap::Args)]
pub(crate) struct Against {
    /// Which servers.
    #[arg(value_enum, default_values = ["prosody", "ejabberd", "kamailio", "tandem-ring"])]
    servers: Vec<Subject>,
    /// Which scenarios; those that the server can play if none is named.
    #[arg(long, value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Tandem's program; otherwise the one beside this program.
    #[arg(long)]
    tandem: Option<PathBuf>,
    /// Each run gets a folder in here, named after the server and the scenario.
    #[arg(long, default_value = "bench/results/against")]
    results: PathBuf,
}

/// A scenario that is shipped, and how fast it goes here.
struct Play {
    name: &'static str,
    rate: &'static str,
    /// `--tls`.
    tls: &'static str,
}

impl Play {
    fn speaks_sip(&self) -> bool {
        self.name.starts_with("sip") || self.name == "im-gateway"
    }
}

const OF_XMPP: &[Play] = &[
    Play { name: "im-chat", rate: "2000/s", tls: "none" },
    Play { name: "im-chat", rate: "2000/s", tls: "direct" },
    Play { name: "presence-storm", rate: "20/s", tls: "none" },
    Play { name: "login", rate: "40/s", tls: "direct" },
];
/// Kamailio's; by TCP, as it is configured for the bars.
const OF_SIP: &[Play] = &[Play { name: "sip-server", rate: "500/s", tls: "none" }];
/// Between XMPP and SIP, which is Tandem's alone.
const OF_BOTH: &[Play] = &[
    Play { name: "im-gateway", rate: "1000/s", tls: "none" },
    Play { name: "sip-im", rate: "100/s", tls: "none" },
    Play { name: "sip-watchers", rate: "200/s", tls: "none" },
];
/// As many as the largest of the scenarios needs.
const USERS: usize = 1100;

impl Against {
    /// Plays everything in turn.
    pub(crate) fn run(self) -> Result<(), String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        servers::certificate(dir.path())?;
        fs::create_dir_all(&self.results)
            .map_err(|e| format!("{}: {e}", self.results.display()))?;
        let mut failed = Vec::new();
        for &subject in &self.servers {
            let ours = matches!(subject, Subject::TandemRing | Subject::TandemEpoll);
            let plays = if subject.is_sip() { OF_SIP } else { OF_XMPP };
            let more = if ours { OF_BOTH } else { &[] };
            for play in plays.iter().chain(more).filter(|it| self.wants(it.name)) {
                if let Err(fault) = self.play(play, subject, dir.path()) {
                    failed.push(format!("{} {}: {fault}", subject.name(), play.name));
                }
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        // The logs of the servers are what explains it.
        say(&format!("kept: {}", dir.keep().display()))?;
        Err(failed.join("; "))
    }

    fn wants(&self, name: &str) -> bool {
        self.scenarios.is_empty() || self.scenarios.iter().any(|it| it == name)
    }

    /// One server, one scenario, one folder.
    fn play(&self, play: &Play, subject: Subject, dir: &Path) -> Result<(), String> {
        let name = format!("{}-{}-{}", subject.name(), play.name, play.tls);
        let name = name.trim_end_matches("-none");
        let tandem = self.tandem.clone().map_or_else(|| beside("tandem"), Ok)?;
        let of_sip = Sip { profile: "lync", rate: 0, back: false, sizes: [0; 4] };
        let stage = Stage {
            bar: name.to_owned(),
            users: USERS,
            sip: play.speaks_sip().then_some(of_sip),
            ..Stage::of(dir, tandem)
        };
        let direct = play.tls == "direct";
        let server = servers::start(subject, direct, &stage)?;
        let scenario = dir.join(format!("{}.toml", play.name));
        let edge = format!("listen = \"{}\"", server.edge);
        let text = text(play.name)?.replace("listen = \"127.0.0.5:5060\"", &edge);
        servers::write(&scenario, &text)?;
        let out = self.results.join(name);
        let code = self.load(play, &server, direct, &scenario, &out)?;
        say(&format!("{name:<36} exit {code:<3} {}", line(&out)?))
    }

    /// Runs the generator; gives its exit code. What it says of itself goes to standard error.
    fn load(
        &self,
        play: &Play,
        server: &Running,
        direct: bool,
        scenario: &Path,
        out: &Path,
    ) -> Result<i32, String> {
        let target = match play.name {
            "sip-server" => server.sip,
            _ if direct => server.tls,
            _ => server.plain,
        };
        let mut command = Command::new("taskset");
        command.args(["-c", "1"]).arg(beside("tandem-loadgen")?).arg("run").arg(scenario);
        command.args(["--target", &target.to_string(), "--rate", play.rate, "--threads", "1"]);
        command.args(["--domain", DOMAIN, "--tls", play.tls]);
        if play.speaks_sip() {
            command.args(["--transport", "tcp"]);
        }
        if play.speaks_sip() && play.name != "sip-server" {
            command.args(["--target", &format!("sip={}", server.sip)]);
        }
        command.args(["--server-pid", &server.pid().to_string()]);
        command.args(["--duration", &format!("{}s", self.seconds)]).arg("--out").arg(out);
        let done = command.stdout(Stdio::null()).status().map_err(|e| e.to_string())?;
        let code = done.code().unwrap_or(-1);
        // 97 and 78 are ours to mend; the rest is a result.
        if matches!(code, 0 | 98 | 99) { Ok(code) } else { Err(format!("ended with {done}")) }
    }
}

/// The shipped scenario with the names of our users.
fn text(name: &str) -> Result<String, String> {
    let shown = Command::new(beside("tandem-loadgen")?)
        .args(["show", name])
        .output()
        .map_err(|e| e.to_string())?;
    if !shown.status.success() {
        return Err(String::from_utf8_lossy(&shown.stderr).into_owned());
    }
    Ok(String::from_utf8_lossy(&shown.stdout).replace("\"user%05d@", "\"u%d@"))
}

/// What came out, in a line.
fn line(out: &Path) -> Result<String, String> {
    let path = out.join("run.json");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let run: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let number = |at: &str| run.pointer(at).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let word = run.pointer("/verdict/word").and_then(Value::as_str).unwrap_or("?");
    Ok(format!(
        "{word}: {} delivered, {} lost, p50 {:.2} ms, p99 {:.2} ms, server {:.1} us a message, \
         generator {:.1} us",
        number("/totals/delivered"),
        number("/totals/lost"),
        number("/flows/0/latency_ns/p50") / 1e6,
        number("/flows/0/latency_ns/p99") / 1e6,
        number("/server/cpu_per_message_ns") / 1e3,
        number("/generator/cpu_per_message_ns") / 1e3,
    ))
}
