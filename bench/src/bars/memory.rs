//! V9: what one more idle client costs in memory.

use std::io::{self, BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tandem_loadgen::proc::Memory;

use super::outcome::Outcome;
use super::rounds::{Spread, place, verdict};
use super::{Bars, beside, say};
use crate::servers::{self, Running, Stage, Subject};

impl Bars {
    /// V9: memory before and after clients that log in and say nothing. What a process makes once,
    /// such as its receive buffers, is told apart from what each connection costs by measuring two
    /// counts: the bar is about the difference between them.
    pub(super) fn idle_memory(&self, stage: &Stage) -> Result<Value, String> {
        let mut raw = Vec::new();
        for &subject in &self.subjects {
            for (tls, limit) in [(false, 1536.0), (true, 12_288.0)] {
                let kind = if tls { "tls" } else { "plain" };
                let mut points: Vec<(f64, f64)> = Vec::new();
                for &clients in &self.idle {
                    let server = servers::start(subject, tls, stage)?;
                    let (pss, rss) = self.idle_once(subject, tls, &server, clients)?;
                    say(&format!(
                        "  {:<15} {pss:.0} B each, all told (rss {rss:.0} B) ({kind}, {clients})",
                        subject.name()
                    ))?;
                    points.push((clients as f64, pss * clients as f64));
                    raw.push(json!({
                        "subject": subject.name(), "tls": tls, "clients": clients,
                        "pss_per_connection": pss, "rss_per_connection": rss,
                    }));
                }
                let (Some(few), Some(many)) = (points.first(), points.last()) else { continue };
                let each = (many.1 - few.1) / (many.0 - few.0);
                let once = (many.1 - each * many.0) / 1e6;
                self.tell(&Outcome {
                    bar: stage.bar.clone(),
                    figure: Spread::of(vec![each]),
                    limit,
                    unit: "B",
                    // Too few clients, and what is made once hides what each costs.
                    verdict: verdict(each <= limit, many.0 > few.0 && each > 0.0),
                    subject: format!("{}, {kind}", subject.name()),
                    base: String::new(),
                    told: format!(", {} to {}; {once:.1} MB once", few.0, many.0),
                })?;
            }
        }
        Ok(json!(raw))
    }

    fn idle_once(
        &self,
        subject: Subject,
        tls: bool,
        server: &Running,
        clients: usize,
    ) -> Result<(f64, f64), String> {
        let fault = |e: io::Error| e.to_string();
        // One client first, so that what is made once per process is not counted.
        drop(self.idle_clients(subject, tls, server, 1)?);
        let before = Memory::of(server.pid()).map_err(fault)?;
        let held = self.idle_clients(subject, tls, server, clients)?;
        let after = Memory::of(server.pid()).map_err(fault)?;
        drop(held);
        let per = |a: u64, b: u64| (a as f64 - b as f64) / clients as f64;
        Ok((per(after.pss, before.pss), per(after.rss, before.rss)))
    }

    fn idle_clients(
        &self,
        subject: Subject,
        tls: bool,
        server: &Running,
        clients: usize,
    ) -> Result<Held, String> {
        let mut command = Command::new(beside("tandem-loadgen")?);
        command.args(["idle", "--roster", "--presence"]);
        place(&mut command, subject, tls, server, clients);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let out = child.stdout.take().ok_or("no output")?;
        let held = Held(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).map_err(|e| e.to_string())?;
        if line.contains("ready") { Ok(held) } else { Err("idle clients did not log in".into()) }
    }
}

/// Clients that stay as long as this lives.
struct Held(std::process::Child);

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}
