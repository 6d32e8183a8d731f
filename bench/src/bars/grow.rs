//! How cost grows with connections, watchers, foreign domains that a node knows, and foreign domains
//! that it talks to.
//!
//! One round a point, since a curve is looked at and not judged; each point has a fresh server, so that the
//! most it ever had in memory is that point's own. A domain that is *known* has a rule of its own in the
//! configuration; the traffic beside it is local. A *federated* one has a stream of its own that
//! messages come or go on all the time. Does **not** go beyond the descriptors of a process.

use serde_json::{Value, json};

use super::rounds::{Case, Work, number};
use super::shards::is_tandem;
use super::{Bar, Bars, say};
use crate::federation::Federation;
use crate::servers::{Stage, Subject};

const CONNECTIONS: [usize; 3] = [100, 1_000, 10_000];
const WATCHERS: [usize; 4] = [1, 10, 100, 1_000];
const DOMAINS: [usize; 4] = [10, 100, 1_000, 10_000];
/// Generator and server both have a played domain's own stream beside the one to it.
const DOMAINS_OUT: [usize; 4] = [10, 100, 1_000, 9_000];
const FROM_DOMAINS: &str = "domains-in";
const TO_DOMAINS: &str = "domains-out";
/// Who change their presence.
const PRESENTITIES: usize = 50;

/// One curve.
#[derive(Clone, Copy)]
struct Axis {
    name: &'static str,
    steps: &'static [usize],
    work: Work,
    tls: bool,
}

const AXES: [Axis; 5] = {
    let chat = Work::Chat { managed: false, by_lot: false };
    let presence = Work::Presence { together: false };
    [
        Axis { name: "connections", steps: &CONNECTIONS, work: chat, tls: false },
        Axis { name: "watchers", steps: &WATCHERS, work: presence, tls: false },
        Axis { name: "domains", steps: &DOMAINS, work: chat, tls: false },
        Axis { name: FROM_DOMAINS, steps: &DOMAINS, work: Work::Federated, tls: true },
        Axis { name: TO_DOMAINS, steps: &DOMAINS_OUT, work: Work::Federated, tls: true },
    ]
};

impl Bars {
    /// All curves.
    pub(super) fn grow(&self, stage: &Stage) -> Result<Value, String> {
        let bare = [Subject::BareUring, Subject::BareEpoll];
        let mut points = Vec::new();
        if let Some(name) = self.curves.iter().find(|it| AXES.iter().all(|axis| axis.name != *it)) {
            return Err(format!("GROW has no curve {name}"));
        }
        let wanted =
            |axis: &Axis| self.curves.is_empty() || self.curves.iter().any(|it| it == axis.name);
        for axis in AXES.into_iter().filter(wanted) {
            for &step in axis.steps {
                // The sizes of what a bare sender says are Tandem's.
                let mut octets = 0;
                for &subject in self.subjects.iter().chain(&bare) {
                    if axis.name == "domains" && !is_tandem(subject) {
                        continue;
                    }
                    let point = self.point(axis, step, subject, &mut octets, stage)?;
                    points.extend(point);
                }
            }
        }
        Ok(json!(points))
    }

    /// One point of a curve.
    fn point(
        &self,
        axis: Axis,
        step: usize,
        subject: Subject,
        octets: &mut usize,
        stage: &Stage,
    ) -> Result<Option<Value>, String> {
        let mut run = self.clone();
        let mut stage = Stage { bar: format!("GROW-{}-{step}", axis.name), ..stage.clone() };
        match axis.name {
            "connections" => run.clients = step,
            "watchers" => {
                (run.presentities, run.watchers) = (PRESENTITIES, step);
                stage.presentities = PRESENTITIES;
            }
            "domains" => stage.domains = step,
            name => {
                let (clients, peers) = (run.clients, run.clients.max(step));
                let back = name == TO_DOMAINS;
                stage.federation = Some(Federation { back, clients, peers, domains: step });
                if subject.is_bare() {
                    // As many connections as Tandem has.
                    run.clients += step;
                }
            }
        }
        let bar = if axis.name == "watchers" { Bar::V4 } else { Bar::V1 };
        stage.users = run.users(bar);
        stage.octets = *octets;
        let case = Case { bar, work: axis.work, tls: axis.tls, ..Case::plain() };
        let mut server = None;
        run.stand(case, subject, &mut server, &stage)?;
        let Some(server) = server else { return Ok(None) };
        let row = run.load(case, subject, &server, &stage)?;
        if *octets == 0 {
            *octets = super::rounds::octets(&row);
        }
        let cpu = number(&row, "/server/cpu_ns_per_message");
        let peak = server.peak().unwrap_or(f64::NAN);
        say(&format!(
            "GROW {} {step}: {:<13} {:.2} us/message, {:.1} MiB at most{}",
            axis.name,
            subject.name(),
            cpu / 1e3,
            peak / 1_048_576.0,
            if row["sound"] == json!(true) { "" } else { ", UNSOUND" }
        ))?;
        Ok(Some(json!({
            "axis": axis.name, "at": step, "subject": subject.name(), "cpu_ns": cpu,
            "peak_bytes": peak, "row": row,
        })))
    }
}
