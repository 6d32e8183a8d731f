//! An edge that watches users, over and over in the dialogs it has; or that keeps its dialogs and looks
//! what it is told when the server comes back from a crash.
//!
//! Closed loop: a number of refreshes is on its way, each in a dialog of its own, and one is done
//! when its SUBSCRIBE is answered and its NOTIFY has come and been answered. Users are XMPP clients,
//! who approve; of a presence server they are published by SIP instead.

use std::io::{self, BufRead as _, Write as _};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::contact::document;
use super::dialog::DOMAIN;
use super::stage::{Counts, Seen, Stage};
use super::text::request;
use crate::measure::Watched;
use crate::population::{Population, Wanted};

/// SUBSCRIBEs that begin dialogs, on their way at one time.
const BEGINNING: usize = 64;
/// How long may nothing happen while dialogs are begun.
const PATIENCE: Duration = Duration::from_secs(30);
const DRAIN: Duration = Duration::from_secs(10);
/// How long after a restart the truth is waited for.
const TRUTH_TIME: Duration = Duration::from_secs(150);

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the edge listens and dials from.
    pub edge: SocketAddr,
    /// The server's SIP listener.
    pub sip: SocketAddr,
    /// Connections of the edge.
    pub lines: usize,
    /// Dialogs.
    pub dialogs: usize,
    /// Refreshes on their way.
    pub in_flight: usize,
    /// Users are published by SIP, in this domain; they are no clients.
    pub published: Option<String>,
    /// Users.
    pub users: usize,
    /// Traffic before the window.
    pub warmup: Duration,
    /// The window that is measured.
    pub window: Duration,
    /// The server.
    pub watched: Watched,
}

/// Begins the dialogs and waits until each was told that its user is there.
pub fn begin(plan: &Plan, population: Population) -> Result<Stage, String> {
    let fault = |e: io::Error| e.to_string();
    let users: Vec<String> = match &plan.published {
        Some(domain) => (0..plan.users).map(|it| format!("u{it}@{domain}")).collect(),
        None => population.clients.iter().map(|it| bare(&it.jid)).collect(),
    };
    let mut stage = Stage::new(population, plan.edge).map_err(fault)?;
    let lines: io::Result<Vec<usize>> = (0..plan.lines.max(1))
        .map(|_| stage.edge.dial(plan.sip, &stage.population.epoll))
        .collect();
    let lines = lines.map_err(fault)?;
    if plan.published.is_some() {
        publish(&mut stage, &users, lines[0])?;
    }
    stage.watch(plan.dialogs, &users, &lines);
    establish(&mut stage, BEGINNING)?;
    Ok(stage)
}

/// Begins all dialogs that are not, and waits until each was told that its user is there.
pub fn establish(stage: &mut Stage, at_once: usize) -> Result<(), String> {
    let (mut begun, mut last) = (0, Instant::now());
    let mut before = 0;
    let there = |stage: &Stage| stage.watchers.iter().filter(|it| it.seen == Seen::Open).count();
    let mut open = 0;
    let waits = |stage: &Stage| stage.watchers.iter().any(|it| it.asked || it.waits);
    while open < stage.watchers.len() || waits(stage) {
        let answered = stage.counts.pairs as usize + stage.counts.refused as usize;
        while begun < stage.watchers.len() && begun < answered.max(open) + at_once {
            stage.subscribe(begun).map_err(|e| e.to_string())?;
            begun += 1;
        }
        stage.turn(Duration::from_millis(10))?;
        stage.done.clear();
        if stage.turns.is_multiple_of(16) || begun == stage.watchers.len() {
            open = there(stage);
        }
        let sum = stage.counts.notified;
        if sum != before {
            (before, last) = (sum, Instant::now());
        }
        if last.elapsed() > PATIENCE {
            let (all, reason) =
                (stage.watchers.len(), stage.reason.as_deref().unwrap_or("nothing"));
            return Err(format!("{open} of {all} dialogs stand; {reason}"));
        }
    }
    Ok(())
}

/// The bare JID.
pub fn bare(jid: &str) -> String {
    jid.split('/').next().unwrap_or_default().to_owned()
}

/// Each user says that he is there (RFC 3903).
fn publish(stage: &mut Stage, users: &[String], line: usize) -> Result<(), String> {
    for (number, user) in users.iter().enumerate() {
        let at = stage.edge.at;
        let head = format!(
            "Via: SIP/2.0/TCP {at};branch=z9hG4bKp{number}\r\nMax-Forwards: 70\r\nFrom: <sip:{user}>\
             ;tag=p{number}\r\nTo: <sip:{user}>\r\nCall-ID: publish{number}@{DOMAIN}\r\nCSeq: 1 PUBLISH\r\n\
             Event: presence\r\nExpires: 3600\r\nContent-Type: application/pidf+xml\r\n"
        );
        let text = request("PUBLISH", &format!("sip:{user}"), &head, &document(user, true));
        stage.edge.queue(line, text.as_bytes()).map_err(|e| e.to_string())?;
        if number % 32 == 31 {
            stage.turn(Duration::from_millis(20))?;
        }
    }
    // What is refused is told with the first dialog that does not stand.
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        stage.turn(Duration::from_millis(20))?;
    }
    Ok(())
}

/// Refreshes over and over and gives the result.
pub fn refresh(plan: &Plan, mut stage: Stage) -> Result<Value, String> {
    let fault = |e: io::Error| e.to_string();
    stage.counts = Counts::default();
    stage.expect(Some(Seen::Open));
    let mut next = 0;
    for _ in 0..plan.in_flight.min(stage.watchers.len()) {
        stage.subscribe(next).map_err(fault)?;
        next += 1;
    }
    let mut asked = next as u64;
    turn_for(&mut stage, plan.warmup, &mut next, &mut asked)?;
    let octets = stage.counts.octets_in;
    let before = plan.watched.read(stage.counts.pairs, stage.turns).map_err(fault)?;
    turn_for(&mut stage, plan.window, &mut next, &mut asked)?;
    let after = plan.watched.read(stage.counts.pairs, stage.turns).map_err(fault)?;
    let octets = stage.counts.octets_in - octets;
    let end = Instant::now() + DRAIN;
    while stage.counts.pairs + stage.counts.refused < asked && Instant::now() < end {
        stage.turn(Duration::from_millis(10))?;
    }
    let span = after.since(&before);
    let c = stage.counts;
    Ok(json!({
        "loop": "closed", "dialogs": stage.watchers.len(), "in_flight": plan.in_flight,
        "delivered_in_window": span.done, "wall_s": span.wall_ns / 1e9,
        "per_s": span.done as f64 / span.wall_ns * 1e9,
        "account": {
            "asked": asked, "pairs": c.pairs, "refused": c.refused, "notified": c.notified,
            "stray": c.stray, "wrong": c.wrong, "unknown": c.unknown,
        },
        "octets_in_each": octets as f64 / (span.done as f64).max(1.0),
        "reason": stage.reason,
        "sound": c.pairs == asked && c.refused + c.stray + c.wrong + c.unknown == 0,
        "generator": span.generator, "server": span.server,
    }))
}

fn turn_for(
    stage: &mut Stage,
    span: Duration,
    next: &mut usize,
    asked: &mut u64,
) -> Result<(), String> {
    let end = Instant::now() + span;
    while Instant::now() < end {
        stage.turn(Duration::from_millis(10))?;
        let mut done = std::mem::take(&mut stage.done);
        for _ in done.drain(..) {
            // In turn: a dialog whose last refresh is still on its way is passed over.
            for _ in 0..stage.watchers.len() {
                *next = (*next + 1) % stage.watchers.len();
                let it = &stage.watchers[*next];
                if !it.asked && !it.waits {
                    break;
                }
            }
            stage.subscribe(*next).map_err(|e| e.to_string())?;
            *asked += 1;
        }
        stage.done = done;
    }
    Ok(())
}

/// Keeps the dialogs. Each line of standard input is a restart that has just happened: `back`, and the
/// clients log in again, or `away`, and nobody does. A line of result is printed for each.
pub fn hold(wanted: &Wanted, mut stage: Stage) -> Result<(), String> {
    tell(&json!({ "ready": stage.watchers.len() }))?;
    stage.may_break = true;
    let (to, orders) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    });
    // Those who are logged in again, and are only there.
    let mut back: Option<Population> = None;
    loop {
        stage.turn(Duration::from_millis(10))?;
        let order = match orders.try_recv() {
            Ok(order) => order,
            Err(mpsc::TryRecvError::Empty) => continue,
            Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
        };
        drop(back.take());
        let comes = order.trim() == "back";
        let (row, population) = restarted(wanted, &mut stage, comes)?;
        back = population;
        tell(&row)?;
    }
}

fn restarted(
    wanted: &Wanted,
    stage: &mut Stage,
    comes: bool,
) -> Result<(Value, Option<Population>), String> {
    let at = Instant::now();
    stage.counts = Counts::default();
    stage.reason = None;
    stage.expect(Some(if comes { Seen::Open } else { Seen::Closed }));
    let logins = comes.then(|| {
        let wanted = wanted.clone();
        thread::spawn(move || Population::open(&wanted).map(|it| (it, Instant::now())))
    });
    while stage.told < stage.watchers.len() && at.elapsed() < TRUTH_TIME {
        stage.turn(Duration::from_millis(10))?;
    }
    // A word too many would come soon.
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        stage.turn(Duration::from_millis(10))?;
    }
    let logins = logins.map(|it| it.join().map_err(|_| "the logins failed".to_owned()));
    let logins = logins.transpose()?.transpose()?;
    let seconds = |then: Instant| then.saturating_duration_since(at).as_secs_f64();
    let back_s = logins.as_ref().map(|it| seconds(it.1));
    let last_s = stage.told_at.map(|it| seconds(it.1));
    let c = stage.counts;
    let row = json!({
        "clients": if comes { "back" } else { "away" },
        "dialogs": stage.watchers.len(), "told": stage.told,
        "lost": stage.watchers.len() - stage.told,
        "wrong": c.wrong, "stray": c.stray, "without_a_document": c.unknown,
        "notified": c.notified,
        "clients_back_s": back_s,
        "first_told_s": stage.told_at.map(|it| seconds(it.0)),
        "last_told_s": last_s,
        "last_after_clients_s": back_s.zip(last_s).map(|(back, last)| last - back),
        "reason": stage.reason,
    });
    Ok((row, logins.map(|it| it.0)))
}

/// One line of result.
pub fn tell(row: &Value) -> Result<(), String> {
    let mut out = io::stdout();
    writeln!(out, "{row}").and_then(|()| out.flush()).map_err(|e| e.to_string())
}
