//! Clients of the server under test (RFC 6120 and 6121): who they are and how they connect.
//!
//! What one says on its connection is in `c2s_client.rs`. Does **not** register accounts: the
//! server has them.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::ClientConfig;

use crate::flows::c2s_client::Client;
use crate::flows::c2s_wire::Wire;
use crate::ledger::{Ledger, PAIR_BITS};
use crate::link;
use crate::login::After;
use crate::mark::Mark;
use crate::pairs::{self, Pairs};
use crate::party::{Call, Cast, Desk, Way};
use crate::sasl::Mechanism;
use crate::scenario::model::{Kind, Population, Sasl, Scenario, Tls};

/// What all clients of a population share.
pub(super) struct Shared {
    pub(super) population: Population,
    pub(super) domain: String,
    pub(super) tls: Tls,
    pub(super) mechanism: Option<Mechanism>,
    pub(super) after: After,
    pub(super) pairs: Arc<Pairs>,
    pub(super) wire: Wire,
    /// By flow: whether this population is the one that receives.
    pub(super) receives: Vec<Option<Kind>>,
    /// Flows of presence whose watchers are here: the flow, and its presentities by address.
    pub(super) watched: Vec<Watched>,
    /// Subscriptions that are still missing.
    pub(super) missing: AtomicUsize,
    /// Whether somebody here approves subscriptions.
    pub(super) approves: bool,
    /// By flow of presence, presentity and the last few changes: number of the change above, how
    /// many watchers it reached below.
    changes: Vec<Vec<AtomicU64>>,
}

/// Changes of one presentity that may be on their way at once and still be timed to the last.
const CHANGES: usize = 8;

/// The presentities of a flow.
pub(super) struct Watched {
    pub(super) flow: usize,
    pub(super) addresses: Vec<String>,
    pub(super) by_address: HashMap<Vec<u8>, u32>,
}

/// The cast.
pub(super) struct Clients {
    shared: Arc<Shared>,
    targets: Vec<SocketAddr>,
    config: Option<Arc<ClientConfig>>,
    reads: HashMap<usize, u64>,
}

impl Clients {
    /// For a population of the scenario.
    pub(super) fn new(
        scenario: &Scenario,
        place: usize,
        pairs: &Arc<Pairs>,
    ) -> Result<Self, String> {
        let population = scenario.populations.get(place).ok_or("no such population")?.clone();
        let target = scenario
            .targets
            .iter()
            .find(|target| target.name == population.target)
            .ok_or_else(|| format!("no target {}", population.target))?;
        if target.addresses.is_empty() {
            return Err(format!("target {} has no address", target.name));
        }
        let config = match target.tls {
            Tls::Direct => Some(link::any_tls_config(true).map_err(|e| e.to_string())?),
            Tls::None | Tls::StartTls => None,
        };
        let flows = || scenario.flows.iter().zip(&pairs.flows);
        let mut watched = Vec::new();
        let mut missing = 0;
        for (flow, (_, paired)) in
            flows().enumerate().filter(|(_, (f, p))| f.kind == Kind::Presence && p.to == place)
        {
            let presentities = scenario.populations.get(paired.from).ok_or("no such population")?;
            let addresses: Vec<String> =
                paired.users.iter().map(|u| pairs::address(presentities, u.0 as usize)).collect();
            let by_address = addresses
                .iter()
                .enumerate()
                .map(|(at, address)| (address.clone().into_bytes(), at as u32))
                .collect();
            missing += paired.users.len() * paired.watchers.each as usize;
            watched.push(Watched { flow, addresses, by_address });
        }
        let of = |kind: Kind, from: bool| {
            flows()
                .any(|(f, p)| f.kind == kind && if from { p.from == place } else { p.to == place })
        };
        let approves = of(Kind::Presence, true) || of(Kind::Subscribe, false);
        let after = After {
            // Only who has asked for his roster is told of changes (RFC 6121, 2.2).
            roster: population.roster || of(Kind::Roster, true),
            managed: population.managed,
            presence: population.presence || approves || !watched.is_empty(),
        };
        let mut reads = HashMap::new();
        for (flow, paired) in flows().filter(|(f, p)| f.read_octets_per_s > 0 && p.to == place) {
            reads.extend(paired.users.iter().map(|u| (u.1 as usize, flow.read_octets_per_s)));
        }
        let shared = Shared {
            domain: target.domain.clone(),
            tls: target.tls,
            mechanism: population.sasl.map(|sasl| match sasl {
                Sasl::ScramSha256 => Mechanism::ScramSha256,
                Sasl::ScramSha1 => Mechanism::ScramSha1,
                Sasl::Plain => Mechanism::Plain,
                Sasl::Anonymous => Mechanism::Anonymous,
            }),
            after,
            receives: flows().map(|(f, p)| (p.to == place).then_some(f.kind)).collect(),
            pairs: Arc::clone(pairs),
            wire: Wire::default(),
            changes: flows()
                .map(|(f, p)| {
                    let here = f.kind == Kind::Presence && p.to == place;
                    let places = if here { p.users.len() * CHANGES } else { 0 };
                    (0..places).map(|_| AtomicU64::new(0)).collect()
                })
                .collect(),
            watched,
            missing: AtomicUsize::new(missing),
            approves,
            population,
        };
        Ok(Self { shared: Arc::new(shared), targets: target.addresses.clone(), config, reads })
    }
}

impl Cast for Clients {
    fn carriers(&self) -> usize {
        self.shared.population.users
    }

    fn carrier_of(&self, user: usize) -> usize {
        user
    }

    fn dial(&self, n: usize) -> Call {
        let target = self.targets[n % self.targets.len()];
        let sources: &[Ipv4Addr] = &self.shared.population.sources;
        let domain = self.shared.domain_of(n);
        Call {
            way: Way::Stream(target),
            source: (!sources.is_empty()).then(|| sources[n % sources.len()]),
            tls: self.config.as_ref().map(|config| (Arc::clone(config), domain)),
            party: Box::new(Client::new(Arc::clone(&self.shared), n as u32)),
        }
    }

    fn unready(&self) -> Option<String> {
        let missing = self.shared.missing.load(Ordering::Relaxed);
        (missing > 0).then(|| format!("{missing} subscriptions did not come yet"))
    }

    fn address_of(&self, user: usize) -> Arc<str> {
        pairs::address(&self.shared.population, user).into()
    }

    fn reads_per_s(&self, carrier: usize) -> u64 {
        self.reads.get(&carrier).copied().unwrap_or(0)
    }
}

impl Shared {
    /// The domain that a user's stream is for.
    pub(super) fn domain_of(&self, user: usize) -> String {
        let address = pairs::address(&self.population, user);
        match address.split_once('@') {
            Some((_, domain)) if self.mechanism != Some(Mechanism::Anonymous) => domain.to_owned(),
            _ => self.domain.clone(),
        }
    }

    /// Name and password of a user.
    pub(super) fn credentials(&self, user: usize) -> (String, String) {
        let address = pairs::address(&self.population, user);
        let name = address.split('@').next().unwrap_or_default().to_owned();
        (name, pairs::numbered(&self.population.password, user))
    }

    /// A flow whose texts come here, for those that say of no flow that they are its.
    pub(super) fn first_received(&self) -> u16 {
        self.receives.iter().position(Option::is_some).unwrap_or(0) as u16
    }

    /// A change of presence reached one more watcher; the last one makes the time of the change.
    pub(super) fn one_of_all(&self, flow: usize, mark: Mark, each: u32, desk: &mut Desk<'_>) {
        let pair = mark.flow & ((1 << PAIR_BITS) - 1);
        let changes = self.changes.get(flow).map_or(&[][..], Vec::as_slice);
        let place = (pair as usize).wrapping_mul(CHANGES) + mark.seq as usize % CHANGES;
        let Some(slot) = changes.get(place) else { return };
        let mut now = slot.load(Ordering::Relaxed);
        loop {
            let same = now >> 32 == u64::from(mark.seq);
            if !same && now >> 32 > u64::from(mark.seq) && now != 0 {
                return;
            }
            let count = if same { (now & 0xffff_ffff) + 1 } else { 1 };
            let next = u64::from(mark.seq) << 32 | count;
            match slot.compare_exchange_weak(now, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) if count == u64::from(each) => {
                    let took_ns = desk.now_ns.saturating_sub(Ledger::intended(mark));
                    desk.ledger.step("last watcher", Duration::from_nanos(took_ns));
                    return;
                }
                Ok(_) => return,
                Err(other) => now = other,
            }
        }
    }

    /// Who gets texts of this pair, if somebody of this population.
    pub(super) fn receiver(&self, flow: u32, pair: u32, kind: Kind) -> Option<u32> {
        let here = (*self.receives.get(flow as usize)?)?;
        // A session of an edge is a text to its client.
        if here != kind && (here, kind) != (Kind::Session, Kind::Message) {
            return None;
        }
        self.pairs.flows.get(flow as usize)?.users.get(pair as usize).map(|users| users.1)
    }
}
