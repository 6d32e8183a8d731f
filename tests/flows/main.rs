//! The flows of SIP federation, each with a switch of its own, over mutual TLS.
//!
//! The switch is the program, in a process; its partner is the demo's small Access Edge, which shares no parser with
//! it; users are the demo's clients. Whatever the partner holds against the bytes it got (routes, tags, `epid`, CSeq,
//! names where there should be names) fails the flow in which it happened. `FLOW=F4 cargo test --test flows` runs one.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "threads beside the switch that wait, read the clock, and print a table"
)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use stage::{Seen, Stage};

mod domains;
mod presence;
mod refusals;
mod restart;
mod sessions;
mod stage;
mod traps;
mod traps_watch;
mod traps_wire;

/// A flow: its name, what it shows, and how.
type Flow = (&'static str, &'static str, fn(&Stage) -> Seen);

/// Twelve flows and the traps that need a live switch.
const FLOWS: &[Flow] = &[
    ("F1", "inbound SUBSCRIBE, accepted", presence::accepted),
    ("F2", "inbound SUBSCRIBE, pending, then allowed", presence::pending),
    ("F3", "inbound SUBSCRIBE, denied politely", presence::denied),
    ("F4", "outbound SUBSCRIBE, refresh, end", presence::outbound),
    ("F5", "inbound session", sessions::inbound),
    ("F6", "outbound session and its reuse", sessions::outbound),
    ("F7", "typing", sessions::typing),
    ("F8", "BYE", sessions::goodbye),
    ("F9", "group chat and media refused", sessions::group),
    ("F10", "domain not permitted", refusals::domain),
    ("F11", "user unknown", refusals::unknown),
    ("F12a", "caller's chain invalid", refusals::stranger),
    ("F12b", "caller's name not among the peers", refusals::uninvited),
    ("F12c", "From not covered by the certificate", refusals::uncovered),
    ("F12d", "their certificate lacks the SRV target", refusals::wrong_name),
    ("F12e", "SRV target outside the SIP domain", refusals::target_elsewhere),
    ("F12f", "our certificate is wrong to them", refusals::bare_504),
    ("T4", "octets as they come", traps_wire::octets),
    ("T5", "methods that are not there", traps_wire::methods),
    ("T6", "what a SUBSCRIBE may ask for", traps_wire::subscribes),
    ("T7a", "NOTIFY before the 200", traps_watch::notify_first),
    ("T7b", "piggybacked first NOTIFY", traps_watch::piggyback),
    ("T7c", "BENOTIFY is not answered", traps_watch::benotify),
    ("T7d", "NOTIFY for nothing", traps_watch::notify_for_nothing),
    ("T10a", "423 with Min-Expires, both ways", traps_watch::too_brief),
    ("T10b", "reasons of terminated", traps_watch::reasons),
    ("T10c", "codes that end a subscription, or not", traps_watch::codes),
    ("T10d", "codes that answer a refresh", traps_watch::refresh_codes),
    ("T10e", "nobody refreshes", traps_watch::expiry),
    ("T11a", "kill -9 with stored dialogs", restart::kept),
    ("T11b", "all state lost", restart::lost),
    ("T12a", "200 after 12 s", traps::late),
    ("T12b", "two 200 with different tags", traps::forked),
    ("T13", "m=x-ms-message", traps::old_media),
    ("T14", "first text in ms-text-format only", traps::embedded),
    ("T15", "bodies of many kinds", traps::bodies),
    ("T16a", "481 to MESSAGE", traps::gone),
    ("T16b", "both invite at once", traps::glare),
    ("T16c", "order of queued texts", traps::order),
    ("T16d", "BYE crossing MESSAGE", traps::crossing),
    ("T17a", "no ACK", traps::no_ack),
    ("T17b", "the same MESSAGE twice", traps::twice),
    ("T19", "typing into a dead dialog, unknown INFO", traps::typing),
    ("T21", "20 requests a second", traps_wire::paced),
    ("T22", "connections: reused, never for another domain", traps::connections),
    ("T23a", "503 with and without Retry-After", traps::overloaded),
    ("T23b", "connection lost with transactions open", traps::lost),
    ("S1", "the switch in a subdomain of the partner", domains::subdomains),
    ("S2", "the partner in a subdomain of the switch", domains::subdomains),
    ("S3", "both in subdomains of one domain", domains::subdomains),
    ("R2", "reload: partners, a certificate", domains::reload),
    ("R1", "the partner restarts without its dialogs", traps_watch::restarted),
];

#[test]
fn every_flow_holds_over_mutual_tls() {
    let wanted = std::env::var("FLOW").unwrap_or_default();
    let mut flows: Vec<&Flow> = FLOWS
        .iter()
        .filter(|it| wanted.is_empty() || wanted.split(',').any(|only| only == it.0))
        .collect();
    // The longest first, so that nothing is left to wait for at the end.
    flows.sort_by_key(|it| !LONG.contains(&it.0));
    let (next, lines) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((place, flow)) = take(&next, &flows) {
                    let line = play(flow);
                    lines.lock().expect("no flow panics").push((place, line));
                }
            });
        }
    });
    let mut lines = lines.into_inner().expect("no flow panics");
    let order = |name: &str| FLOWS.iter().position(|it| it.0 == name);
    lines.sort_by_key(|it: &(usize, (bool, String))| flows.get(it.0).and_then(|it| order(it.0)));
    let failed = lines.iter().filter(|it| !it.1.0).count();
    for (_, (_, line)) in &lines {
        println!("{line}");
    }
    let [by_rsip, by_hand] = [&READ[0], &READ[1]].map(|it| it.load(Ordering::Relaxed));
    println!("the partner read {by_rsip} messages by rsip, {by_hand} by hand");
    println!("{} flows, {failed} failed", lines.len());
    assert_eq!(failed, 0);
}

fn take<'a>(next: &AtomicUsize, flows: &[&'a Flow]) -> Option<(usize, &'a Flow)> {
    let place = next.fetch_add(1, Ordering::Relaxed);
    flows.get(place).map(|it| (place, *it))
}

/// One flow on a stage of its own; the line that tells of it.
fn play(&(name, what, act): &Flow) -> (bool, String) {
    let began = Instant::now();
    let outcome = Stage::new(name).and_then(|stage| {
        let seen = act(&stage).map_err(|it| stage.explained(it))?;
        stage.faultless()?;
        let counts = stage.edge.counts();
        READ[0].fetch_add(counts.by_rsip, Ordering::Relaxed);
        READ[1].fetch_add(counts.by_hand, Ordering::Relaxed);
        Ok(seen)
    });
    let took = began.elapsed().as_secs_f64();
    match outcome {
        Ok(seen) => (true, format!("{name:<5} {what:<45} held   {took:>5.1} s  {seen}")),
        Err(trouble) => (false, format!("{name:<5} {what:<45} FAILED {took:>5.1} s  {trouble}")),
    }
}

/// What both readers can read they agree on, or the flow fails.
static READ: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// Most of a flow is waiting, for presence may be held back 5 s.
const AT_ONCE: usize = 8;
/// A minute is the shortest time for which anybody watches anybody.
const LONG: &[&str] = &["T10e", "T10d", "F4", "T17a", "T12a"];
/// Long enough to believe that nothing comes.
const QUIET: Duration = Duration::from_millis(300);
