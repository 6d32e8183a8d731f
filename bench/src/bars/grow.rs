//! How cost grows with connections, watchers, and foreign domains that a node knows.
//!
//! One round a point, since a curve is looked at and not judged; each point has a fresh server, so that the
//! most it ever had in memory is that point's own. A domain that is *known* has a rule of its own in the
//! configuration; the traffic beside it is local. Does **not** federate with them.

use serde_json::{Value, json};

use super::rounds::{Case, Work, number};
use super::shards::is_tandem;
use super::{Bar, Bars, say};
use crate::servers::{Stage, Subject};

const CONNECTIONS: [usize; 3] = [100, 1_000, 10_000];
const WATCHERS: [usize; 4] = [1, 10, 100, 1_000];
const DOMAINS: [usize; 4] = [10, 100, 1_000, 10_000];
/// Who change their presence.
const PRESENTITIES: usize = 50;

impl Bars {
    /// All curves.
    pub(super) fn grow(&self, stage: &Stage) -> Result<Value, String> {
        let bare = [Subject::BareUring, Subject::BareEpoll];
        let chat = Work::Chat { managed: false, by_lot: false };
        let presence = Work::Presence { together: false };
        let mut points = Vec::new();
        for (axis, steps, work) in [
            ("connections", CONNECTIONS.as_slice(), chat),
            ("watchers", WATCHERS.as_slice(), presence),
            ("domains", DOMAINS.as_slice(), chat),
        ] {
            for &step in steps {
                // The sizes of what a bare sender says are Tandem's.
                let mut octets = 0;
                for &subject in self.subjects.iter().chain(&bare) {
                    if axis == "domains" && !is_tandem(subject) {
                        continue;
                    }
                    let mut run = self.clone();
                    let mut stage = Stage { bar: format!("GROW-{axis}-{step}"), ..stage.clone() };
                    match axis {
                        "connections" => run.clients = step,
                        "watchers" => {
                            (run.presentities, run.watchers) = (PRESENTITIES, step);
                            stage.presentities = PRESENTITIES;
                        }
                        _ => stage.domains = step,
                    }
                    let bar = if work == presence { Bar::V4 } else { Bar::V1 };
                    stage.users = run.users(bar);
                    stage.octets = octets;
                    let case = Case { bar, work, ..Case::plain() };
                    let mut server = None;
                    run.stand(case, subject, &mut server, &stage)?;
                    let Some(server) = server else { continue };
                    let row = run.load(case, subject, &server, &stage)?;
                    if octets == 0 {
                        octets = super::rounds::octets(&row);
                    }
                    let cpu = number(&row, "/server/cpu_ns_per_message");
                    let peak = server.peak().unwrap_or(f64::NAN);
                    say(&format!(
                        "GROW {axis} {step}: {:<13} {:.2} us/message, {:.1} MiB at most{}",
                        subject.name(),
                        cpu / 1e3,
                        peak / 1_048_576.0,
                        if row["sound"] == json!(true) { "" } else { ", UNSOUND" }
                    ))?;
                    points.push(json!({
                        "axis": axis, "at": step, "subject": subject.name(), "cpu_ns": cpu,
                        "peak_bytes": peak, "row": row,
                    }));
                }
            }
        }
        Ok(json!(points))
    }
}
