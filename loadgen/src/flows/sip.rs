//! SIP edges that the generator plays: who they are, how they connect, and the dialogs they have.
//!
//! A population's users stand behind one edge, whose lines (connections, or one socket for
//! datagrams) share its dialogs: a server answers on the line that asked, but begins on any. What
//! lines say is in `sip_line.rs` and `sip_dialog.rs`, what they hear in `sip_heard.rs` and
//! `sip_notify.rs`. Does **not** challenge or authenticate (RFC 3261, 22).

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::flows::gateway::{self, Role};
use crate::flows::sip_line::Line;
use crate::flows::sip_text::{MESSAGE, Template};
use crate::pairs::{self, Pairs};
use crate::party::{Call, Cast, Ear, Party, Way};
use crate::played::certificates::Authority;
use crate::played::security::Identities;
use crate::scenario::model::{Population, Scenario, Transport};

/// Connections of an edge: servers keep few to one partner.
const LINES: usize = 4;

/// Where a dialog, or what begins one, is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stand {
    /// Nothing was asked.
    #[default]
    Idle,
    /// The first request is not answered.
    Asked,
    /// There is a dialog.
    Live,
}

/// A SUBSCRIBE that is not done: answered, and notified since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// The schedule's, and not the dialog's own.
    pub(super) intended_ns: Option<u64>,
    pub(super) sent_ns: u64,
    pub(super) refresh: bool,
    pub(super) answered: bool,
    pub(super) notified: bool,
}

/// What an edge has with one other user for one flow.
#[derive(Debug, Default)]
pub(super) struct Dialog {
    pub(super) stand: Stand,
    pub(super) from: Arc<str>,
    pub(super) to: Arc<str>,
    /// The line that asks.
    pub(super) line: u32,
    pub(super) generation: u16,
    pub(super) remote_tag: String,
    pub(super) target: String,
    pub(super) route: String,
    pub(super) cseq: u32,
    /// The INVITE's, for its ACK.
    pub(super) invite: u32,
    pub(super) heard: u32,
    /// Texts that wait for the session, or each for its own: octets and intended times.
    pub(super) waiting: VecDeque<(usize, u64)>,
    pub(super) asked: Option<Asked>,
    pub(super) expires_s: u64,
    /// The server's word on the shortest time (RFC 3261, 21.4.17).
    pub(super) least_s: u64,
    /// When it is refreshed; 0: not at all.
    pub(super) refresh_ns: u64,
    /// It has to stand without the schedule's word.
    pub(super) stays: bool,
    /// A NOTIFY said active once.
    pub(super) active: bool,
}

/// Somebody who watches a user of the edge (RFC 6665).
#[derive(Debug, Default)]
pub(super) struct Notifier {
    pub(super) call: Arc<str>,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) target: String,
    pub(super) route: String,
    pub(super) cseq: u32,
    pub(super) until_ns: u64,
}

/// What all lines of an edge share.
pub(super) struct Shared {
    pub(super) population: Population,
    pub(super) pairs: Arc<Pairs>,
    pub(super) transport: &'static str,
    /// Where it listens and says it is.
    pub(super) at: SocketAddr,
    pub(super) targets: Vec<SocketAddr>,
    pub(super) users: Vec<Arc<str>>,
    by_address: HashMap<Arc<str>, usize>,
    /// By flow.
    pub(super) roles: Vec<Role>,
    /// By flow and pair (presence: and watcher).
    pub(super) dialogs: Vec<Vec<Mutex<Dialog>>>,
    /// By user.
    notifiers: Vec<Mutex<Vec<Notifier>>>,
    pub(super) missing: AtomicUsize,
    /// The last status that refused what the first stage waits for.
    pub(super) refused: AtomicU32,
    pub(super) message: Template,
    pub(super) request: Template,
    /// Messages received, of which some are checked.
    pub(super) received: AtomicU64,
    /// This run, in Call-IDs, branches and tags.
    pub(super) run: u32,
    /// The tags of its requests and of its answers.
    pub(super) tags: (String, String),
    /// Lines made so far, each with branches of its own.
    pub(super) made: AtomicU64,
    pub(super) lines: usize,
}

impl Shared {
    /// The dialog of a flow's pair or watcher.
    pub(super) fn dialog(&self, flow: u16, index: u32) -> Option<MutexGuard<'_, Dialog>> {
        let it = self.dialogs.get(usize::from(flow))?.get(index as usize)?;
        Some(it.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a flow is here.
    pub(super) fn role(&self, flow: u16) -> Role {
        self.roles.get(usize::from(flow)).copied().unwrap_or_default()
    }

    /// The Call-ID of a dialog.
    pub(super) fn call(&self, flow: u16, index: u32, generation: u16) -> String {
        format!("tl{flow:04x}{index:08x}{generation:04x}{:08x}@{}", self.run, self.at.ip())
    }

    /// Flow, index and generation in a Call-ID of ours.
    pub(super) fn parts(&self, call: &[u8]) -> Option<(u16, u32, u16)> {
        let hex = |at: std::ops::Range<usize>| {
            u32::from_str_radix(std::str::from_utf8(call.get(at)?).ok()?, 16).ok()
        };
        if !call.starts_with(b"tl") || hex(18..26)? != self.run {
            return None;
        }
        Some((hex(2..6)? as u16, hex(6..14)?, hex(14..18)? as u16))
    }

    /// The user with that address.
    pub(super) fn user(&self, address: &str) -> Option<usize> {
        self.by_address.get(address).copied()
    }

    /// Those who watch one of its users.
    pub(super) fn watching(&self, user: usize) -> Option<MutexGuard<'_, Vec<Notifier>>> {
        Some(self.notifiers.get(user)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The cast.
pub(super) struct Edges {
    shared: Arc<Shared>,
    identities: Option<Identities>,
    /// Whose certificate the server shows.
    server: String,
}

impl Edges {
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
            .filter(|target| !target.addresses.is_empty())
            .ok_or_else(|| format!("no target {} with an address", population.target))?;
        let (transport, lines) = match population.transport {
            Transport::Tcp => ("TCP", LINES.min(population.users.max(1))),
            Transport::Tls => ("TLS", LINES.min(population.users.max(1))),
            Transport::Udp => ("UDP", 1),
        };
        let fallback = SocketAddr::from(([127, 0, 0, 1], 5_060));
        let at = population.listen.unwrap_or(fallback);
        if population.transport == Transport::Udp && population.listen.is_none() {
            return Err(format!("{}: an edge on UDP needs `listen`", population.name));
        }
        let users: Vec<Arc<str>> =
            (0..population.users).map(|user| pairs::address(&population, user).into()).collect();
        let identities = (population.transport == Transport::Tls)
            .then(|| identities(&population, &users))
            .transpose()?;
        let named = [target].into_iter().chain(&scenario.targets).find(|it| !it.domain.is_empty());
        let server = match named {
            Some(target) => target.domain.clone(),
            None => target.addresses[0].ip().to_string(),
        };
        let text = match &population.template {
            Some(path) => {
                std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?
            }
            None => MESSAGE.to_owned(),
        };
        let run = lot();
        let shared = Shared {
            transport,
            at,
            targets: target.addresses.clone(),
            roles: gateway::roles(scenario, place, pairs),
            dialogs: gateway::dialogs(scenario, place, pairs, lines),
            notifiers: users.iter().map(|_| Mutex::default()).collect(),
            by_address: users.iter().enumerate().map(|(at, it)| (Arc::clone(it), at)).collect(),
            users,
            missing: AtomicUsize::new(gateway::missing(scenario, place, pairs)),
            refused: AtomicU32::new(0),
            message: Template::new(&text, transport, at, run)?,
            request: Template::request(transport, at, run)?,
            received: AtomicU64::new(0),
            run,
            tags: (format!("tl{run:08x}"), format!("te{run:08x}")),
            made: AtomicU64::new(1),
            lines,
            pairs: Arc::clone(pairs),
            population,
        };
        Ok(Self { shared: Arc::new(shared), identities, server })
    }
}

fn identities(population: &Population, users: &[Arc<str>]) -> Result<Identities, String> {
    if population.domains > 1 {
        return Err(format!("{}: an edge over TLS has one domain", population.name));
    }
    let domain = users.first().and_then(|user| user.split_once('@'));
    let domain = domain.map_or_else(String::new, |it| it.1.to_owned());
    let authority = Authority::open(population.certificates.as_deref())?;
    Identities::new(&authority, &[domain], None)
}

/// A number that another run has not: a server remembers Call-IDs and branches for a while.
fn lot() -> u32 {
    RandomState::new().hash_one(std::process::id()) as u32
}

impl Cast for Edges {
    fn carriers(&self) -> usize {
        self.shared.lines
    }

    fn carrier_of(&self, user: usize) -> usize {
        user % self.shared.lines
    }

    fn dial(&self, n: usize) -> Call {
        let target = self.shared.targets[n % self.shared.targets.len()];
        let sources: &[Ipv4Addr] = &self.shared.population.sources;
        // Servers know a partner without TLS by its address alone.
        let own = self.shared.population.listen.map(|at| at.ip());
        let own = own.filter(|ip| !ip.is_unspecified() && target.ip().is_loopback());
        let source = match own {
            _ if !sources.is_empty() => Some(sources[n % sources.len()]),
            Some(IpAddr::V4(ip)) => Some(ip),
            Some(IpAddr::V6(_)) | None => None,
        };
        let datagrams = self.shared.population.transport == Transport::Udp;
        let config = self.identities.as_ref().and_then(|it| it.client(0).ok());
        Call {
            way: if datagrams { Way::Datagrams(0) } else { Way::Stream(target) },
            source,
            tls: config.map(|config| (config, self.server.clone())),
            party: Box::new(Line::new(Arc::clone(&self.shared), Some(n as u32))),
        }
    }

    fn ears(&self) -> Vec<Ear> {
        let datagrams = self.shared.population.transport == Transport::Udp;
        let tls = self.identities.as_ref().and_then(|it| it.server(0).ok());
        let ear = |at| Ear { at, datagrams, tls };
        self.shared.population.listen.map(ear).into_iter().collect()
    }

    fn accepted(&self, _: usize, _: SocketAddr) -> Option<Box<dyn Party>> {
        Some(Box::new(Line::new(Arc::clone(&self.shared), None)))
    }

    fn unready(&self) -> Option<String> {
        let missing = self.shared.missing.load(Ordering::Relaxed);
        let refused = match self.shared.refused.load(Ordering::Relaxed) {
            0 => String::new(),
            status => format!(" (one was refused with {status})"),
        };
        (missing > 0).then(|| format!("{missing} SIP subscriptions are not active yet{refused}"))
    }

    fn address_of(&self, user: usize) -> Arc<str> {
        self.shared.users.get(user).map_or_else(|| Arc::from(""), Arc::clone)
    }
}
