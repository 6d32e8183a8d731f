//! A closed loop over streams between servers: every pair keeps so many messages on their way
//! from a peer to a client, or back. What the bench divides by a relay.
//!
//! Runs on the engine, with a scenario made here. Does **not** provision the clients.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::engine::{self, raw::Raw};
use crate::ledger::{self, Counts, Times};
use crate::measure::{Reading, Watched};
use crate::pairs;
use crate::scenario::model::{
    Flow, Kind, Phase, Population, Run, Scenario, Side, Size, Stage, Target, Tls, Transport,
};

/// Which way the messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From peers to clients.
    In,
    /// From clients to peers.
    Out,
    /// Both at once.
    Both,
}

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the server takes streams of other servers.
    pub servers: SocketAddr,
    /// Where it takes those of clients.
    pub clients: SocketAddr,
    /// Its domain.
    pub domain: String,
    /// How streams between servers are secured.
    pub tls: Tls,
    /// How those of clients are.
    pub client_tls: Tls,
    /// Pattern of the clients' addresses before the `@`.
    pub users: String,
    /// Their password.
    pub password: String,
    /// How many clients.
    pub count: usize,
    /// How many peers; the larger number of both is that of the pairs.
    pub peers: usize,
    /// Pattern of the played domains.
    pub played: String,
    /// How many there are.
    pub domains: usize,
    /// Where they are listening.
    pub listen: SocketAddr,
    /// Where their names are answered for.
    pub listen_dns: Option<SocketAddr>,
    /// Where their certificates are.
    pub certificates: Option<PathBuf>,
    /// Whether dialback alone is their proof.
    pub dialback: bool,
    /// Which way.
    pub way: Way,
    /// Messages of each pair on their way.
    pub outstanding: usize,
    /// Messages a second instead (open loop).
    pub rate: Option<f64>,
    /// Octets of text.
    pub octets: usize,
    /// The core of the generator.
    pub core: Option<usize>,
    /// Before the window.
    pub warmup: Duration,
    /// What is measured.
    pub window: Duration,
    /// The server's process.
    pub watched: Watched,
}

impl Plan {
    /// Octets of text that make a stanza of so many, as its sender says it, between a client in the
    /// middle and its peer.
    pub fn text_octets(&self, stanza: usize) -> usize {
        let populations = self.populations();
        let length =
            |it: Option<&Population>| it.map_or(0, |it| pairs::address(it, it.users / 2).len());
        let (client, peer) = (length(populations.first()) + "/r".len(), length(populations.get(1)));
        let around = match self.way {
            Way::Out => "<message to=''".len() + peer,
            Way::In | Way::Both => "<message from='/tl' to=''".len() + peer + client,
        };
        let rest = " type='chat' id='00000000'><body></body></message>".len();
        stanza.saturating_sub(around + rest)
    }

    /// The same as a scenario.
    pub fn scenario(&self) -> Scenario {
        let target = |name: &str, address, tls| Target {
            name: name.to_owned(),
            addresses: vec![address],
            domain: self.domain.clone(),
            tls,
            pid: self.watched.pid,
        };
        let flow = |name: &str, from: &str, to: &str| Flow {
            name: name.to_owned(),
            kind: Kind::Message,
            from: from.to_owned(),
            to: to.to_owned(),
            share: 1.0,
            size: Size { p50: self.octets, p99: self.octets, max: self.octets },
            watchers: 0,
            presentities: 0,
            random_pairs: false,
            expires_s: 0,
            read_octets_per_s: 0,
            cut: 0.0,
        };
        let mut flows = Vec::new();
        if self.way != Way::Out {
            flows.push(flow("in", "peers", "clients"));
        }
        if self.way != Way::In {
            flows.push(flow("out", "clients", "peers"));
        }
        let rate_per_s = self.rate.unwrap_or(0.0);
        let stage =
            |phase, time: Duration| Stage { phase, rate_per_s, for_ns: time.as_nanos() as u64 };
        Scenario {
            name: "s2s-chat".to_owned(),
            seed: 1,
            targets: vec![
                target("servers", self.servers, self.tls),
                target("clients", self.clients, self.client_tls),
            ],
            populations: self.populations(),
            flows,
            stages: vec![stage(Phase::Warmup, self.warmup), stage(Phase::Hold, self.window)],
            run: Run {
                cores: self.core.into_iter().collect(),
                closed: self.rate.is_none().then_some(self.outstanding),
                drain_ns: 5_000_000_000,
                ..Run::default()
            },
            ..Scenario::default()
        }
    }

    fn populations(&self) -> Vec<Population> {
        let clients = Population {
            name: "clients".to_owned(),
            side: Side::Client,
            target: "clients".to_owned(),
            users: self.count,
            address: format!("{}@{}", self.users, self.domain),
            domains: 1,
            password: self.password.clone(),
            sasl: None,
            roster: false,
            presence: true,
            managed: false,
            sources: Vec::new(),
            listen: None,
            listen_dns: None,
            dialback: false,
            pager: false,
            template: None,
            certificates: None,
            transport: Transport::Tcp,
            connect_per_s: 0,
        };
        let peers = Population {
            name: "peers".to_owned(),
            side: Side::Peer,
            target: "servers".to_owned(),
            users: self.peers,
            address: format!("p%05d@{}", self.played),
            domains: self.domains,
            presence: false,
            listen: Some(self.listen),
            listen_dns: self.listen_dns,
            dialback: self.dialback,
            pager: false,
            template: None,
            certificates: self.certificates.clone(),
            ..clients.clone()
        };
        vec![clients, peers]
    }
}

/// Runs it; the result has the form that the other closed loops' have.
pub fn run(plan: &Plan) -> Result<Value, String> {
    let scenario = plan.scenario();
    let warmup_ns = plan.warmup.as_nanos() as u64;
    let end_ns = warmup_ns + plan.window.as_nanos() as u64;
    let mut readings: Vec<Result<Reading, String>> = Vec::new();
    let mut done = 0;
    let raw = engine::run(&scenario, &mut |tick| {
        done += tick.part.flows.iter().map(|flow| flow.counts.delivered).sum::<u64>();
        let marks = [warmup_ns, end_ns];
        if marks.get(readings.len()).is_some_and(|at| tick.to_ns >= *at) {
            readings.push(plan.watched.read(done, 0).map_err(|e| e.to_string()));
        }
    })
    .map_err(|fault| fault.to_string())?;
    let mut readings = readings.into_iter();
    let (Some(from), Some(to)) = (readings.next(), readings.next()) else {
        return Err("the run ended before its window".to_owned());
    };
    let span = to?.since(&from?);
    let (account, sound) = account(&raw);
    Ok(json!({
        "clients": plan.count,
        "peers": plan.peers,
        "domains": plan.domains,
        "delivered_in_window": span.done,
        "wall_s": span.wall_ns / 1e9,
        "per_s": span.done as f64 * 1e9 / span.wall_ns,
        "latency_us": latency(&raw),
        "account": account,
        "sound": sound,
        "steps": steps(&raw),
        "interface": raw.interface,
        "generator": span.generator,
        "server": span.server,
    }))
}

fn latency(raw: &Raw) -> Value {
    let mut all: Times = ledger::times();
    for flow in &raw.total.flows {
        // Same bounds, so it fits.
        all.add(&flow.latency).unwrap_or(());
    }
    let at = |part: f64| all.value_at_quantile(part) as f64 / 1e3;
    let max = all.max() as f64 / 1e3;
    json!({ "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": max })
}

/// What became of all messages, and whether every one arrived once and in order.
fn account(raw: &Raw) -> (Value, bool) {
    let mut sum = Counts::default();
    raw.total.flows.iter().for_each(|flow| sum.add(&flow.counts));
    let bounced: u64 = sum.bounced.values().sum();
    let odd = sum.duplicated + sum.reordered + sum.corrupt + sum.dropped + bounced;
    let told = json!({
        "sent": sum.sent, "delivered": sum.delivered, "bounced": sum.bounced,
        "duplicated": sum.duplicated, "reordered": sum.reordered, "corrupt": sum.corrupt,
        "dropped": sum.dropped, "lost": sum.open(),
    });
    (told, odd == 0 && sum.open() == 0)
}

fn steps(raw: &Raw) -> Value {
    raw.total
        .steps
        .iter()
        .map(|(&name, step)| {
            let p50 = step.times.value_at_quantile(0.5);
            (name.to_owned(), json!({ "ok": step.ok, "failed": step.failed, "p50_ns": p50 }))
        })
        .collect::<serde_json::Map<String, Value>>()
        .into()
}
