//! Interleaved rounds of one piece of work over all subjects, and what they come to.
//!
//! A round counts if the server never waited for work and nothing went wrong; does **not** believe
//! any other and prints it as invalid.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::outcome::Outcome;
use super::{Bar, Bars, beside, say};
use crate::servers::{self, DOMAIN, KEY_TYPE, Running, Stage, Subject};

/// A server that was idle for more than the rest of this share was not at its limit.
const BUSY_MIN: f64 = 0.95;

/// V13: messages a second, each on its own.
const ALONE_PER_SECOND: u32 = 200;

/// V6-BACK: streams to other servers that Tandem makes and the generator takes in a second, at least.
const STREAMS_PER_SECOND: usize = 250;

/// What the load generator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Pairs of clients chat.
    Chat {
        /// With stream management on both ends.
        managed: bool,
        /// Pairs by lot instead of neighbours.
        by_lot: bool,
    },
    /// A few change their presence, all others watch them.
    Presence {
        /// All change at the same time.
        together: bool,
    },
    /// Clients log in and leave.
    Logins {
        /// Each once, on a server that was just started.
        cold: bool,
    },
    /// Sessions of instant messages across SIP.
    Sessions {
        /// From the clients to the edge.
        back: bool,
    },
    /// SUBSCRIBE and NOTIFY in dialogs that stand.
    Refresh,
    /// Peers to clients, or clients to peers, as the stage says.
    Federated,
    /// One pair, a message now and then, on a system that is idle otherwise.
    Alone,
}

impl Work {
    /// Whether SIP is spoken: what one round leaves in a server is in the way of the next.
    fn is_sip(self) -> bool {
        matches!(self, Self::Sessions { .. } | Self::Refresh)
    }

    /// Where a row has the figure that is divided.
    fn figure(self) -> &'static str {
        if self == Self::Alone { "/latency_us/p50" } else { "/server/cpu_ns_per_message" }
    }

    /// Whether the server waits for something else than work: there only the account counts.
    fn waits(self) -> bool {
        matches!(self, Self::Refresh | Self::Alone)
    }
}

/// One bar with its denominators.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub bar: Bar,
    pub work: Work,
    pub tls: bool,
    pub limit: f64,
    pub bases: &'a [Subject],
    /// Whom to divide by too, without a verdict.
    pub beside: &'a [Subject],
    /// Each of the bases has a verdict of its own, instead of the cheapest one alone.
    pub each: bool,
}

impl Case<'_> {
    /// Chat over plain TCP against the bare relay.
    pub(super) fn plain() -> Self {
        const BARE: &[Subject] = &[Subject::BareEpoll, Subject::BareUring];
        let work = Work::Chat { managed: false, by_lot: false };
        let (tls, limit, each) = (false, 1.25, false);
        Self { bar: Bar::V1, work, tls, limit, bases: BARE, beside: &[], each }
    }
}

/// The middle and the ends of some rounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        Self { median: at(last / 2), min: at(0), max: at(last) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = out.precision().unwrap_or(2);
        write!(out, "{:.digits$} ({:.digits$}..{:.digits$})", self.median, self.min, self.max)
    }
}

impl Bars {
    /// CPU per message of all subjects over that of the cheaper denominator.
    pub(super) fn interleave(&self, case: Case<'_>, stage: &Stage) -> Result<Value, String> {
        let bases = case.bases;
        let others = case.beside.iter().chain(&self.subjects);
        let subjects: Vec<Subject> = bases.iter().chain(others).copied().collect();
        let mut running: Vec<Option<Running>> = subjects.iter().map(|_| None).collect();
        let mut rows: Vec<Vec<Value>> = subjects.iter().map(|_| Vec::new()).collect();
        let mut stage = stage.clone();
        // Who knows nothing says as many octets as the first who does, so that one comes first.
        let order: Vec<usize> = match case.work {
            Work::Chat { .. } | Work::Alone | Work::Federated => (0..subjects.len()).collect(),
            _ => (bases.len()..subjects.len()).chain(0..bases.len()).collect(),
        };
        for _ in 0..self.rounds() {
            for &at in &order {
                let subject = subjects[at];
                self.stand(case, subject, &mut running[at], &stage)?;
                if let Some(server) = &running[at] {
                    let row = self.load(case, subject, server, &stage)?;
                    if stage.octets == 0 {
                        stage.octets = octets(&row);
                    }
                    if let Some(sip) = stage.sip.as_mut().filter(|it| it.sizes == [0; 4]) {
                        sip.sizes = sizes(&row);
                    }
                    rows[at].push(row);
                }
                if subject.is_bare() || case.work.is_sip() {
                    running[at] = None;
                }
            }
        }
        for (subject, rows) in subjects.iter().zip(&rows) {
            say(&describe(*subject, rows))?;
        }
        self.judge(case, &subjects, &rows)?;
        let named = subjects.iter().zip(rows).map(|(s, r)| (s.name().to_owned(), json!(r)));
        Ok(Value::Object(named.collect()))
    }

    /// A verdict on each subject.
    fn judge(
        &self,
        case: Case<'_>,
        subjects: &[Subject],
        rows: &[Vec<Value>],
    ) -> Result<(), String> {
        let (bases, figure) = (case.bases, case.work.figure());
        let middle = |at: usize| Spread::of(rows[at].iter().map(|r| number(r, figure)).collect());
        let cheapest =
            (0..bases.len()).min_by(|&a, &b| middle(a).median.total_cmp(&middle(b).median));
        let by: Vec<usize> =
            if case.each { (0..bases.len()).collect() } else { cheapest.into_iter().collect() };
        let told = match case.work {
            Work::Logins { cold: true } => format!("; {KEY_TYPE}, cold store"),
            Work::Logins { cold: false } => format!("; {KEY_TYPE}, warm store"),
            Work::Alone => String::from("; p50 of the latency"),
            _ => String::new(),
        };
        let ours = bases.len() + case.beside.len();
        let ratio = |at: usize, base: usize| {
            let pairs = rows[at].iter().zip(&rows[base]);
            Spread::of(pairs.map(|(a, b)| number(a, figure) / number(b, figure)).collect())
        };
        for at in ours..subjects.len() {
            for &base in &by {
                let valid = [at, base].into_iter().all(|it| is_valid(&rows[it], case.work.waits()));
                let figure = ratio(at, base);
                self.tell(&Outcome {
                    bar: case.bar.name(),
                    figure,
                    limit: case.limit,
                    unit: "",
                    verdict: verdict(figure.median <= case.limit, valid),
                    subject: subjects[at].name().to_owned(),
                    base: subjects[base].name().to_owned(),
                    told: told.clone(),
                })?;
            }
            for beside in bases.len()..ours {
                let (name, other) = (subjects[at].name(), subjects[beside].name());
                say(&format!("  {} beside it ({name} / {other})", ratio(at, beside)))?;
            }
        }
        Ok(())
    }

    /// Sees to it that a server runs and that what the work needs is there.
    pub(super) fn stand(
        &self,
        case: Case<'_>,
        subject: Subject,
        server: &mut Option<Running>,
        stage: &Stage,
    ) -> Result<(), String> {
        if let Some(server) = server {
            // A store is cold for a process that has read nothing of it.
            return if case.work == (Work::Logins { cold: true }) {
                server.again()
            } else {
                Ok(())
            };
        }
        let cores = if subject.is_bare() { "0" } else { &stage.cores };
        let stage = Stage { cores: cores.to_owned(), ..stage.clone() };
        let mut started = servers::start(subject, case.tls, &stage)?;
        match case.work {
            Work::Presence { .. } if !subject.is_bare() && !subject.has_rosters() => {
                let mut command = self.generator("rosters", case, subject, &started)?;
                command.args(["--presentities", &self.presentities.to_string()]);
                say(&format!("  {:<13} subscriptions {}", subject.name(), result_of(command)?))?;
            }
            Work::Logins { cold } if !subject.is_bare() => {
                // Everybody once, so that the generator has salted every password.
                let mut command = self.generator("logins", case, subject, &started)?;
                command.args(["--concurrent", &self.concurrent.to_string(), "--once"]);
                command.args(["--warmup", "0", "--window", "600", "--kept"]).arg(&started.kept);
                result_of(command)?;
                if cold {
                    started.again()?;
                }
            }
            _ => {}
        }
        *server = Some(started);
        Ok(())
    }

    /// One round of load on one server.
    pub(super) fn load(
        &self,
        case: Case<'_>,
        subject: Subject,
        on: &Running,
        stage: &Stage,
    ) -> Result<Value, String> {
        let what = match (case.work, subject.is_bare()) {
            (Work::Chat { .. } | Work::Alone | Work::Federated, true) => "raw",
            (Work::Federated, false) => "s2s-chat",
            (Work::Chat { .. } | Work::Alone, false) => "chat",
            (Work::Presence { .. }, true) => "raw-fanout",
            (Work::Presence { .. }, false) => "fanout",
            (Work::Logins { .. }, _) => "logins",
            (Work::Sessions { .. }, true) => "sip-raw",
            (Work::Sessions { .. }, false) => "sip-chat",
            (Work::Refresh, _) => "sip-watch",
        };
        let mut command = match stage.federation.filter(|_| !subject.is_bare()) {
            Some(federation) => {
                let mut command = Command::new(beside("tandem-loadgen")?);
                federation.place(command.arg(what), on, &stage.dir);
                command
            }
            None => self.generator(what, case, subject, on)?,
        };
        let (warmup, window) = self.describe_work(&mut command, case, subject, on, stage);
        command.args(["--warmup", &warmup, "--window", &window, "--server-core", "0"]);
        command.args(["--server-pid", &on.pid().to_string()]);
        if let Some(names) = stage.names.as_ref().filter(|_| !subject.is_bare()) {
            command.arg("--users").arg(names);
        }
        if let Some(counters) = &on.counters {
            command.arg("--server-counters").arg(counters);
        }
        let before = on.turns();
        let mut row = result_of(command).map_err(|e| format!("{}: {e}", subject.name()))?;
        if let (Some(before), Some(after)) = (before, on.turns()) {
            // Over the whole run, logins included: a little below what the window had.
            let turns = (after.1 - before.1).max(1.0);
            row["server"]["messages_per_turn"] = json!((after.0 - before.0) / turns);
        }
        if let Work::Logins { .. } = case.work {
            row["key"] = json!(KEY_TYPE);
        }
        Ok(row)
    }

    /// Tells the load generator what to do; returns the seconds before the window and in it.
    fn describe_work(
        &self,
        command: &mut Command,
        case: Case<'_>,
        subject: Subject,
        on: &Running,
        stage: &Stage,
    ) -> (String, String) {
        let (warmup, mut window) = self.window();
        let mut warmup = warmup.to_owned();
        match case.work {
            Work::Chat { managed, by_lot } => {
                command.args(["--outstanding", &self.outstanding.to_string()]);
                if managed && !subject.is_bare() {
                    command.arg("--managed");
                }
                if by_lot && !subject.is_bare() {
                    command.args(["--random-pairs", "7"]);
                }
            }
            Work::Federated => {
                command.args(["--outstanding", &self.outstanding.to_string()]);
                // A stream between servers goes one way.
                if subject.is_bare() {
                    command.arg("--one-way");
                }
                if let Some(it) = stage.federation.filter(|it| it.back && !subject.is_bare()) {
                    // Tandem's streams are made by the first messages.
                    warmup = (3 + it.domains / STREAMS_PER_SECOND).to_string();
                }
            }
            Work::Alone => {
                command.args(["--rate", &ALONE_PER_SECOND.to_string()]);
            }
            Work::Presence { together } => {
                let in_flight = if together { self.presentities } else { self.in_flight };
                command.args(["--presentities", &self.presentities.to_string()]);
                command.args(["--in-flight", &in_flight.to_string()]);
                if together {
                    command.arg("--together");
                }
                if subject.is_bare() && stage.octets > 0 {
                    command.args(["--bytes", &stage.octets.to_string()]);
                }
            }
            Work::Sessions { back } => {
                if back {
                    command.arg("--back");
                }
                if let Some(sip) = stage.sip.as_ref().filter(|_| subject.is_bare()) {
                    let sizes: Vec<String> = sip.sizes.iter().map(ToString::to_string).collect();
                    command.args(["--sizes", &sizes.join(",")]);
                }
            }
            Work::Refresh => {
                command.args(["--dialogs", &self.dialogs().to_string()]);
                if subject.is_sip() {
                    command.arg("--published");
                }
            }
            Work::Logins { cold } => {
                command.args(["--concurrent", &self.concurrent.to_string()]);
                command.arg("--kept").arg(&on.kept);
                if cold && !subject.is_bare() {
                    command.arg("--once");
                    // From the first login on; the last one ends it.
                    (warmup, window) = ("0".to_owned(), "600".to_owned());
                }
            }
        }
        (warmup, window)
    }

    /// The load generator for one kind of work, told where to go.
    fn generator(
        &self,
        what: &str,
        case: Case<'_>,
        subject: Subject,
        on: &Running,
    ) -> Result<Command, String> {
        let mut command = Command::new(beside("tandem-loadgen")?);
        command.arg(what);
        place(&mut command, subject, case.tls, on, self.users(case.bar));
        if case.work.is_sip() {
            place_edge(&mut command, on);
        }
        if let Work::Logins { .. } = case.work {
            // The scripted server has users too: it takes everybody.
            if subject.is_bare() {
                command.args(["--domain", DOMAIN]);
            }
            command.args(["--sasl", "scram-sha256"]);
        }
        Ok(command)
    }
}

/// Tells the load generator where the server is and who its clients are.
pub(super) fn place(on: &mut Command, subject: Subject, tls: bool, at: &Running, clients: usize) {
    let target = if tls { at.tls } else { at.plain };
    on.args(["--core", "1", "--target", &target.to_string()]);
    on.args(["--clients", &clients.to_string()]);
    on.args(["--tls", if tls { "direct" } else { "none" }]);
    if !subject.is_bare() {
        on.args(["--domain", DOMAIN]);
    }
}

/// Tells it where SIP is spoken.
pub(super) fn place_edge(on: &mut Command, at: &Running) {
    on.args(["--edge", &at.edge.to_string(), "--sip", &at.sip.to_string()]);
}

pub(super) fn result_of(mut command: Command) -> Result<Value, String> {
    let done = command.stderr(Stdio::inherit()).output().map_err(|e| e.to_string())?;
    serde_json::from_slice(&done.stdout).map_err(|_| "the load generator gave no result".to_owned())
}

/// What one delivery or one login was in octets.
pub(super) fn octets(row: &Value) -> usize {
    let of = |at: &str| row.pointer(at).and_then(Value::as_f64);
    of("/octets_each").or_else(|| of("/octets_in_each")).unwrap_or(0.0).round() as usize
}

/// What the four packets of a message were.
fn sizes(row: &Value) -> [usize; 4] {
    let of = |at: &str| number(row, at).round() as usize;
    ["/sizes/request", "/sizes/pass", "/sizes/ack", "/sizes/answer"].map(of)
}

pub(super) fn cost(rows: &[Value]) -> Spread {
    Spread::of(rows.iter().map(|r| number(r, "/server/cpu_ns_per_message")).collect())
}

pub(super) fn number(row: &Value, at: &str) -> f64 {
    row.pointer(at).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

/// A closed-loop round counts if the server never waited for work and nothing went wrong. Its
/// busiest thread wanted the core all the time, or its threads together had it.
pub(super) fn is_valid(rows: &[Value], may_wait: bool) -> bool {
    rows.iter().all(|r| {
        let share = number(r, "/server/wanted_core").max(number(r, "/server/busy_all_threads"));
        let in_time = r["generator"]["late"] != json!(true);
        (may_wait || share >= BUSY_MIN) && in_time && r["sound"] == json!(true)
    })
}

pub(super) fn verdict(holds: bool, valid: bool) -> &'static str {
    match (valid, holds) {
        (false, _) => "invalid",
        (true, true) => "holds",
        (true, false) => "MISSED",
    }
}

fn describe(subject: Subject, rows: &[Value]) -> String {
    let of = |at: &str| Spread::of(rows.iter().map(|r| number(r, at)).collect()).median;
    let unsound = rows.iter().filter(|r| r["sound"] != json!(true)).count();
    let each = of("/presences_per_read");
    let each = if each.is_nan() { String::new() } else { format!("  {each:.1} presences a read") };
    format!(
        "  {:<13} {:6.2} us/message ({:.2}..{:.2})  core {:.0} % (all threads {:.0} %), \
         wanted {:.0} %  {:.1} messages/turn  {:.0} sleeps, {:.0} preempted  \
         generator {:.2} us{each}  unsound {unsound}",
        subject.name(),
        cost(rows).median / 1e3,
        cost(rows).min / 1e3,
        cost(rows).max / 1e3,
        of("/server/busy") * 100.0,
        of("/server/busy_all_threads") * 100.0,
        of("/server/wanted_core") * 100.0,
        of("/server/messages_per_turn"),
        of("/server/sleeps"),
        of("/server/preempted"),
        of("/generator/cpu_ns_per_message") / 1e3,
    )
}
