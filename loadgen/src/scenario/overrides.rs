//! What the command line changes about a scenario.

use std::net::SocketAddr;

use clap::Args;

use super::read::{TLS, TRANSPORTS};
use super::units;
use crate::scenario::model::{Phase, Scenario, Side};

/// Values in place of the scenario's.
#[derive(Args, Clone, Debug, Default)]
pub struct Overrides {
    /// The largest rate of the stages; the others keep their proportion to it: 5000/s.
    #[arg(long, value_name = "RATE")]
    pub rate: Option<String>,
    /// How long the hold stages take together: 30s.
    #[arg(long, value_name = "TIME")]
    pub duration: Option<String>,
    /// How many users all populations have together, in the scenario's proportions.
    #[arg(long, value_name = "N")]
    pub connections: Option<usize>,
    /// Where the server listens, instead of the first target's addresses; NAME=ADDRESS for another
    /// target.
    #[arg(long, value_name = "ADDRESS")]
    pub target: Vec<String>,
    /// Of schedule and sizes.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Threads of the generator.
    #[arg(long)]
    pub threads: Option<usize>,
    /// The server's process, whose CPU and memory are read.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// none, starttls or direct, for all targets.
    #[arg(long)]
    pub tls: Option<String>,
    /// tcp, tls or udp, for all edges.
    #[arg(long)]
    pub transport: Option<String>,
    /// The domain of all clients, of who is only addressed, and of the first target.
    #[arg(long)]
    pub domain: Option<String>,
    /// The password of all clients; %d is the user's number.
    #[arg(long)]
    pub password: Option<String>,
    /// A closed loop: so many messages outstanding for each pair.
    #[arg(long, value_name = "N")]
    pub closed: Option<usize>,
    /// How long is waited, after the last stage, for what is on its way: 40s.
    #[arg(long, value_name = "TIME")]
    pub drain: Option<String>,
    /// End the run as soon as the generator is late.
    #[arg(long)]
    pub abort_if_late: bool,
    /// Allow targets that are not on this host.
    #[arg(long)]
    pub i_own_this_target: bool,
}

impl Overrides {
    /// Changes the scenario. The fault is one of usage.
    pub fn apply(&self, it: &mut Scenario) -> Result<(), String> {
        self.apply_targets(it)?;
        if let Some(text) = &self.rate {
            let rate = units::rate(text).ok_or_else(|| format!("--rate {text}: write 2000/s"))?;
            set_rate(it, rate);
        }
        if let Some(text) = &self.duration {
            let wanted =
                units::duration(text).ok_or_else(|| format!("--duration {text}: write 60s"))?;
            let holds = |phase| matches!(phase, Phase::Hold | Phase::Step);
            let now: u64 = it.stages.iter().filter(|s| holds(s.phase)).map(|s| s.for_ns).sum();
            for stage in it.stages.iter_mut().filter(|s| holds(s.phase)) {
                stage.for_ns = (stage.for_ns as f64 * wanted as f64 / now.max(1) as f64) as u64;
            }
        }
        if let Some(wanted) = self.connections {
            let now: usize = it.populations.iter().map(|p| p.users).sum();
            for people in &mut it.populations {
                people.users = (people.users * wanted / now.max(1)).max(1);
            }
        }
        if let Some(text) = &self.drain {
            it.run.drain_ns =
                units::duration(text).ok_or_else(|| format!("--drain {text}: write 40s"))?;
        }
        it.seed = self.seed.unwrap_or(it.seed);
        it.run.threads = self.threads.unwrap_or(it.run.threads).clamp(1, 256);
        it.run.closed = self.closed.or(it.run.closed);
        it.run.abort_if_late |= self.abort_if_late;
        if let Some(password) = &self.password {
            for people in &mut it.populations {
                people.password.clone_from(password);
            }
        }
        Ok(())
    }

    fn apply_targets(&self, it: &mut Scenario) -> Result<(), String> {
        let mut named: Vec<(String, Vec<SocketAddr>)> = Vec::new();
        for text in &self.target {
            let first = it.targets.first().map_or("", |t| t.name.as_str());
            let (name, address) = text.split_once('=').unwrap_or((first, text));
            let address =
                address.parse().map_err(|_| format!("--target {text}: write 127.0.0.1:5222"))?;
            match named.iter_mut().find(|it| it.0 == name) {
                Some(it) => it.1.push(address),
                None => named.push((name.to_owned(), vec![address])),
            }
        }
        for (name, addresses) in named {
            let target = it.targets.iter_mut().find(|t| t.name == name);
            target.ok_or_else(|| format!("--target: no target {name}"))?.addresses = addresses;
        }
        if let Some(word) = &self.tls {
            let tls = TLS.iter().find(|it| it.0 == word).map(|it| it.1);
            let tls = tls.ok_or_else(|| format!("--tls {word}: one of none, starttls, direct"))?;
            it.targets.iter_mut().for_each(|target| target.tls = tls);
        }
        if let Some(word) = &self.transport {
            let found = TRANSPORTS.iter().find(|it| it.0 == word).map(|it| it.1);
            let transport =
                found.ok_or_else(|| format!("--transport {word}: one of tcp, tls, udp"))?;
            it.populations.iter_mut().for_each(|people| people.transport = transport);
        }
        if let Some(domain) = &self.domain {
            for people in it.populations.iter_mut() {
                if !matches!(people.side, Side::Client | Side::Addressed) {
                    continue;
                }
                let local = people.address.split('@').next().unwrap_or_default().to_owned();
                people.address = format!("{local}@{domain}");
            }
        }
        let domains: Vec<Option<String>> =
            it.targets.iter().map(|t| domain_of(it, &t.name)).collect();
        for (number, (target, own)) in it.targets.iter_mut().zip(domains).enumerate() {
            match &self.domain {
                Some(domain) if number == 0 => target.domain.clone_from(domain),
                _ if target.domain.is_empty() => target.domain = own.unwrap_or_default(),
                _ => {}
            }
        }
        if let Some(target) = it.targets.first_mut() {
            target.pid = self.server_pid.or(target.pid);
        }
        let other = it.targets.iter().flat_map(|t| &t.addresses).find(|a| !a.ip().is_loopback());
        match other {
            Some(other) if !self.i_own_this_target => Err(format!(
                "{other} is not on this host: say --i-own-this-target if you may load it"
            )),
            _ => Ok(()),
        }
    }
}

/// The domain of a target's clients, where the scenario names none.
fn domain_of(it: &Scenario, target: &str) -> Option<String> {
    let clients = it.populations.iter().find(|p| p.side == Side::Client && p.target == target)?;
    Some(clients.address.split_once('@')?.1.to_owned())
}

/// Sets the largest rate of the stages; the others keep their proportion.
pub fn set_rate(it: &mut Scenario, rate: f64) {
    let most = it.stages.iter().map(|s| s.rate_per_s).fold(0.0, f64::max);
    for stage in &mut it.stages {
        stage.rate_per_s = if most > 0.0 { stage.rate_per_s * rate / most } else { rate };
    }
}
