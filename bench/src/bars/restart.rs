//! Restarts: ours under the dialogs of SIP watchers, and a SIP partner's under those of both sides.
//!
//! What counts is how long somebody did not see the truth, and that nobody saw anything else. These are
//! not ratios, so there are no rounds; each row is one restart.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::rounds::{number, place, place_edge, result_of, verdict};
use super::{Bar, Bars, PARTNER_SHARE, beside, say};
use crate::servers::{self, Running, Stage, Subject};
use crate::sip::Sip;

/// From the moment a user is known again, or known to be away, until all his watchers are told.
const TOLD_SECONDS: f64 = 5.0;
/// After so long without a client a user is away.
const AWAY_SECONDS: f64 = 60.0;

impl Bars {
    /// Kill -9 under live dialogs: once all clients come back, once nobody does.
    pub(super) fn restart(&self, stage: &Stage) -> Result<Value, String> {
        let mut raw = Vec::new();
        for &subject in &self.subjects {
            let mut server = servers::start(subject, false, stage)?;
            let mut command = Command::new(beside("tandem-loadgen")?);
            command.args(["sip-watch", "--hold", "--dialogs", &self.dialogs().to_string()]);
            self.at(&mut command, Bar::Restart, subject, &server);
            let mut holder = Holder::start(command)?;
            say(&format!("  {:<13} {}", subject.name(), holder.line()?))?;
            for clients in ["back", "away"] {
                let began = Instant::now();
                server.again()?;
                let start_s = began.elapsed().as_secs_f64();
                holder.order(clients)?;
                let mut row = holder.line()?;
                row["start_s"] = json!(start_s);
                row["subject"] = json!(subject.name());
                self.say_restart(subject, &row)?;
                raw.push(row);
            }
        }
        Ok(json!(raw))
    }

    fn say_restart(&self, subject: Subject, row: &Value) -> Result<(), String> {
        let back = row["clients"] == json!("back");
        let last = number(row, "/last_told_s");
        let after = if back { number(row, "/last_after_clients_s") } else { last - AWAY_SECONDS };
        let clean = row["lost"] == json!(0) && row["wrong"] == json!(0) && row["stray"] == json!(0);
        let verdict = verdict(after <= TOLD_SECONDS && clean, true);
        let since = if back { "the last client was back" } else { "the minute was over" };
        say(&format!(
            "RESTART {after:.2} s after {since} bar {TOLD_SECONDS:.0} {verdict} ({}; the server listened {:.2} s \
             after kill -9; from then {last:.2} s to the last watcher, {:.2} s to the last login; {} dialogs, {} \
             lost, {} wrong, {} stray, {} told without a document)",
            subject.name(),
            number(row, "/start_s"),
            number(row, "/clients_back_s"),
            row["dialogs"],
            row["lost"],
            row["wrong"],
            row["stray"],
            row["without_a_document"],
        ))
    }

    /// The partner forgets all it knew.
    pub(super) fn partner(&self, stage: &Stage) -> Result<Value, String> {
        let mut raw = Vec::new();
        for &subject in &self.subjects {
            for rate in [0, self.rate] {
                let sip = stage.sip.clone().map(|it| Sip { rate, ..it });
                let server = servers::start(subject, false, &Stage { sip, ..stage.clone() })?;
                let mut command = Command::new(beside("tandem-loadgen")?);
                let dialogs = self.dialogs() / PARTNER_SHARE;
                command.args(["sip-partner", "--dialogs", &dialogs.to_string()]);
                self.at(&mut command, Bar::Partner, subject, &server);
                let mut row = result_of(command)?;
                row["rate"] = json!(rate);
                row["subject"] = json!(subject.name());
                let paced = if rate == 0 { "unpaced".into() } else { format!("{rate} a second") };
                say(&format!(
                    "PARTNER {:.2} s until {} of ours saw the truth, {:.2} s until {} of theirs did ({}, \
                     {paced}; {} of {} and {} of {} did; peak {} SUBSCRIBEs a second; {} wrong, {} refused)",
                    number(&row, "/outbound_last_s"),
                    row["outbound"],
                    number(&row, "/inbound_last_s"),
                    row["inbound"],
                    subject.name(),
                    row["outbound_seen"],
                    row["outbound"],
                    row["inbound_told"],
                    row["inbound"],
                    row["subscribes_peak_per_s"],
                    row["wrong"],
                    row["refused"],
                ))?;
                raw.push(row);
            }
        }
        Ok(json!(raw))
    }

    fn at(&self, command: &mut Command, bar: Bar, subject: Subject, server: &Running) {
        place(command, subject, false, server, self.users(bar));
        place_edge(command, server);
    }
}

/// A load generator that keeps its dialogs as long as this lives.
struct Holder {
    child: Child,
    orders: Option<ChildStdin>,
    results: BufReader<ChildStdout>,
}

impl Holder {
    fn start(mut command: Command) -> Result<Self, String> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let orders = child.stdin.take();
        let results = BufReader::new(child.stdout.take().ok_or("no output")?);
        Ok(Self { child, orders, results })
    }

    fn order(&mut self, what: &str) -> Result<(), String> {
        let Some(orders) = &mut self.orders else { return Ok(()) };
        writeln!(orders, "{what}").and_then(|()| orders.flush()).map_err(|e| e.to_string())
    }

    fn line(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        self.results.read_line(&mut line).map_err(|e| e.to_string())?;
        serde_json::from_str(&line).map_err(|_| "the load generator gave no result".to_owned())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.orders.take());
        drop(self.child.wait());
    }
}
