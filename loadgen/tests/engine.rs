//! Whole runs of the engine against a small server in this process: what is sent arrives and is
//! accounted for, and servers that refuse, close, stall or talk nonsense are counted and no more.

#![expect(clippy::unwrap_used, reason = "constants of the tests are sound")]

mod null;

use std::time::{Duration, Instant};

use null::{Manners, Null};
use tandem_loadgen::engine::raw::{Raw, SetupFault, Tick};
use tandem_loadgen::engine::{Options, run_with};
use tandem_loadgen::scenario::model::{
    Flow, Kind, Phase, Population, Run, Sasl, Scenario, Side, Size, Stage, Target, Tls, Transport,
};

fn flow(kind: Kind) -> Flow {
    Flow {
        name: "f".to_owned(),
        kind,
        from: "p".to_owned(),
        to: "p".to_owned(),
        share: 1.0,
        size: Size { p50: 100, p99: 300, max: 1_000 },
        watchers: 6,
        presentities: 2,
        random_pairs: false,
        expires_s: 60,
        read_octets_per_s: 0,
        cut: 0.5,
    }
}

fn scenario(null: &Null, flows: Vec<Flow>, rate_per_s: f64) -> Scenario {
    let stage = |phase, for_ns| Stage { phase, rate_per_s, for_ns };
    Scenario {
        name: "test".to_owned(),
        seed: 7,
        targets: vec![Target {
            name: "default".to_owned(),
            addresses: vec![null.at],
            domain: "load.example".to_owned(),
            tls: Tls::None,
            pid: None,
        }],
        populations: vec![Population {
            name: "p".to_owned(),
            side: Side::Client,
            target: "default".to_owned(),
            users: 10,
            address: "u%02d@load.example".to_owned(),
            domains: 1,
            password: "pw".to_owned(),
            sasl: Some(Sasl::Plain),
            roster: false,
            presence: false,
            managed: false,
            sources: vec!["127.0.9.1".parse().unwrap(), "127.0.9.2".parse().unwrap()],
            listen: None,
            listen_dns: None,
            dialback: false,
            pager: false,
            template: None,
            certificates: None,
            transport: Transport::Tcp,
            connect_per_s: 0,
        }],
        flows,
        stages: vec![stage(Phase::Warmup, 200_000_000), stage(Phase::Hold, 600_000_000)],
        run: Run { drain_ns: 2_000_000_000, ..Run::default() },
        ..Scenario::default()
    }
}

fn play(scenario: &Scenario) -> (Result<Raw, SetupFault>, Vec<Tick>) {
    let mut ticks = Vec::new();
    let options = Options { patience: Duration::from_secs(2), ..Options::default() };
    let raw = run_with(scenario, options, &mut |tick: &Tick| ticks.push(tick.clone()));
    (raw, ticks)
}

#[test]
fn every_message_of_pairs_is_accounted_for_on_two_threads() {
    let null = Null::start(Manners::Good);
    let mut scenario = scenario(&null, vec![flow(Kind::Message)], 500.0);
    scenario.run.threads = 2;
    let (raw, ticks) = play(&scenario);
    let raw = raw.unwrap();
    let flow = &raw.total.flows[0];
    assert_eq!((flow.counts.sent, flow.counts.delivered), (400, 400), "{:?}", flow.counts);
    assert_eq!((flow.counts.open(), flow.counts.corrupt, flow.counts.duplicated), (0, 0, 0));
    // What the warm-up sent is set aside, by the intended time.
    assert_eq!((flow.aside.len(), flow.latency.len(), flow.service.len()), (100, 300, 300));
    assert_eq!(raw.total.steps["login"].ok, 10);
    assert_eq!(ticks.iter().map(|t| t.part.flows[0].counts.delivered).sum::<u64>(), 400);
    assert_eq!(ticks[0].stage, Some(0));
    assert_eq!(ticks[1].stage, Some(1));
    let asked: f64 = ticks.iter().map(|t| t.asked).sum();
    assert!((399.0..401.0).contains(&asked), "{asked}");
}

#[test]
fn a_closed_loop_keeps_its_messages_outstanding() {
    let null = Null::start(Manners::Good);
    let mut scenario = scenario(&null, vec![flow(Kind::Message)], 0.0);
    scenario.run.threads = 2;
    scenario.run.closed = Some(2);
    let raw = play(&scenario).0.unwrap();
    let counts = &raw.total.flows[0].counts;
    assert!(counts.sent > 40 && counts.open() == 0, "{counts:?}");
}

#[test]
fn presence_reaches_every_watcher_once_it_has_asked() {
    let null = Null::start(Manners::Good);
    let raw = play(&scenario(&null, vec![flow(Kind::Presence)], 50.0)).0.unwrap();
    let counts = &raw.total.flows[0].counts;
    assert_eq!((counts.sent, counts.due, counts.delivered), (40, 240, 240), "{counts:?}");
    assert_eq!(raw.total.steps["last watcher"].ok, 40);
}

#[test]
fn logins_rosters_and_reconnects_have_their_ends() {
    let null = Null::start(Manners::Good);
    for kind in [Kind::Login, Kind::Roster] {
        let raw = play(&scenario(&null, vec![flow(kind)], 20.0)).0.unwrap();
        let counts = &raw.total.flows[0].counts;
        assert_eq!((counts.sent, counts.delivered), (16, 16), "{kind:?} {counts:?}");
    }
    let flows = vec![flow(Kind::Reconnect), flow(Kind::Message)];
    let raw = play(&scenario(&null, flows, 100.0)).0.unwrap();
    let (cut, sent) = (&raw.total.flows[0].counts, &raw.total.flows[1].counts);
    assert!(cut.sent > 0 && cut.sent == cut.delivered, "{cut:?}");
    assert_eq!(sent.sent + sent.dropped, 80, "{sent:?}");
    assert_eq!(raw.total.steps["login"].ok, 10 + cut.sent);
}

#[test]
fn bad_servers_are_counted_by_kind_and_end_the_set_up() {
    let rows = [
        (Manners::Closes, "login", "closed by the far end"),
        (Manners::Stalls, "login", "timed out"),
        (Manners::Garbage, "login", "garbage"),
        (Manners::RefusesLogin, "login", "not-authorized"),
    ];
    for (manners, step, reason) in rows {
        let null = Null::start(manners);
        let begin = Instant::now();
        let fault = play(&scenario(&null, vec![flow(Kind::Message)], 100.0)).0.unwrap_err();
        assert_eq!(fault.step, step, "{manners:?}: {fault}");
        assert!(fault.reason.contains(reason), "{manners:?}: {fault}");
        assert!(begin.elapsed() < Duration::from_secs(60));
    }
}

#[test]
fn what_a_server_does_to_messages_is_told_apart() {
    let null = Null::start(Manners::Lies);
    let raw = play(&scenario(&null, vec![flow(Kind::Message)], 500.0)).0.unwrap();
    let counts = &raw.total.flows[0].counts;
    // Of ten: one lost, one doubled, one with a wrong digit, one sent back.
    assert_eq!(counts.sent, 400);
    assert_eq!(counts.bounced.get("service-unavailable"), Some(&40), "{counts:?}");
    assert_eq!(counts.duplicated, 40, "{counts:?}");
    assert_eq!(counts.corrupt, 40, "{counts:?}");
    // The changed ones never came as what they were.
    assert_eq!(counts.open(), 80, "{counts:?}");
}
