//! A partner that restarts: its connections and dialogs are gone, what its users are has changed, and
//! after a pause it is there again, watches anew and answers 481 to what it does not know.
//!
//! Told is how long each side was blind: until every client has the new state of each contact, and
//! until every watcher has been told in its new dialog; and how many SUBSCRIBEs the partner had
//! to take in one second.

use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::dialog::DOMAIN;
use super::stage::{Counts, Seen, Stage};
use super::watch::{self, Plan};
use crate::population::Population;

/// How long may nothing happen while the clients' subscriptions are made.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is wanted beside what [`watch`] wants.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// Contacts that each client watches.
    pub contacts: usize,
    /// How long the partner is away.
    pub away: Duration,
    /// How long both sides may take after that.
    pub patience: Duration,
}

/// Makes all subscriptions, restarts the partner, and gives the result.
pub fn run(plan: &Plan, restart: &Restart, population: Population) -> Result<Value, String> {
    let fault = |e: io::Error| e.to_string();
    let users: Vec<String> = population.clients.iter().map(|it| watch::bare(&it.jid)).collect();
    let mut stage = watch::begin(plan, population)?;
    let ours = users.len() * restart.contacts;
    subscribe_all(&mut stage, restart.contacts, ours)?;
    let before = stage.counts;
    stage.may_break = true;
    stage.edge.vanish();
    stage.forget();
    stage.busy = !stage.busy;
    stage.watchers.clear();
    let end = Instant::now() + restart.away;
    while Instant::now() < end {
        stage.turn(Duration::from_millis(10))?;
    }
    stage.counts = Counts::default();
    stage.reason = None;
    stage.arrivals.clear();
    stage.since = Instant::now();
    stage.edge.listen(&stage.population.epoll).map_err(fault)?;
    let lines: io::Result<Vec<usize>> = (0..plan.lines.max(1))
        .map(|_| stage.edge.dial(plan.sip, &stage.population.epoll))
        .collect();
    stage.watch(plan.dialogs, &users, &lines.map_err(fault)?);
    stage.expect(Some(Seen::Open));
    let (mut begun, mut ours_s) = (0, None);
    let at = stage.since;
    while at.elapsed() < restart.patience {
        let answered = (stage.counts.pairs + stage.counts.refused) as usize;
        while begun < stage.watchers.len() && begun < answered + plan.in_flight {
            stage.subscribe(begun).map_err(fault)?;
            begun += 1;
        }
        stage.turn(Duration::from_millis(10))?;
        stage.done.clear();
        if ours_s.is_none() && stage.turns.is_multiple_of(8) && stage.seen_by_clients() >= ours {
            ours_s = Some(at.elapsed().as_secs_f64());
        }
        if ours_s.is_some() && stage.told == stage.watchers.len() {
            break;
        }
    }
    let c = stage.counts;
    let theirs_s = (stage.told == stage.watchers.len())
        .then(|| stage.told_at.map(|it| it.1.saturating_duration_since(at).as_secs_f64()));
    let peak = (0..stage.arrivals.len())
        .map(|from| stage.arrivals.iter().skip(from).take(10).sum::<u32>())
        .max();
    Ok(json!({
        "outbound": ours, "inbound": stage.watchers.len(),
        "outbound_seen": stage.seen_by_clients(), "inbound_told": stage.told,
        "outbound_last_s": ours_s, "inbound_last_s": theirs_s,
        "subscribes_peak_per_s": peak.unwrap_or(0),
        "subscribes_new": c.asked_new, "subscribes_known": c.asked_again,
        "subscribes_481": c.asked_unknown,
        "wrong": c.wrong, "refused": c.refused, "reason": stage.reason,
        "before": { "subscribes_new": before.asked_new, "subscribes_known": before.asked_again },
    }))
}

/// Each client watches its contacts and sees them.
fn subscribe_all(stage: &mut Stage, contacts: usize, all: usize) -> Result<(), String> {
    stage.counts.asked_new = 0;
    for client in 0..stage.population.clients.len() {
        for contact in 0..contacts {
            let line = format!("<presence to='c{contact}@{DOMAIN}' type='subscribe'/>");
            stage.say(client, &line).map_err(|e| e.to_string())?;
        }
        stage.turn(Duration::from_millis(1))?;
    }
    let (mut last, mut seen) = (Instant::now(), 0);
    while seen < all {
        stage.turn(Duration::from_millis(10))?;
        let now = stage.seen_by_clients();
        if now != seen {
            (seen, last) = (now, Instant::now());
        }
        if last.elapsed() > PATIENCE {
            let reason = stage.reason.as_deref().unwrap_or("nothing");
            return Err(format!("{seen} of {all} contacts are seen; {reason}"));
        }
    }
    Ok(())
}
