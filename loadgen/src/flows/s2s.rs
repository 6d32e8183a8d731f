//! XMPP servers that the generator plays (RFC 6120, XEP-0220, XEP-0178): their domains, how they
//! are found, and which connection carries what.
//!
//! A played domain has one stream to the server under test, which carries all its users' stanzas
//! (`s2s_out.rs`), and takes any number from it (`s2s_in.rs`). What an incoming stream wants
//! answered goes out on the domain's own, over the boxes here. Does **not** judge the server's
//! certificate.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::flows::s2s_in::Inbound;
use crate::flows::s2s_out::{Errand, Outbound};
use crate::pairs::{self, Pairs};
use crate::party::{Call, Cast, Desk, Ear, Order, Party, PartyId, Way, Wish};
use crate::played::certificates::Authority;
use crate::played::names::{self, Services, Zones};
use crate::played::security::Identities;
use crate::scenario::model::{Kind, Population, Scenario, Tls};

/// Connections with this number and above verify a key for a stream that came in.
const VERIFIERS: usize = 1 << 24;
/// Octets that wait for a domain's stream; more are lost and counted.
const BOX_MAX: usize = 1 << 20;
/// Verifications at once; more are refused.
const VERIFICATIONS_MAX: usize = 16_384;

/// What all streams of a population share.
pub(super) struct Shared {
    pub(super) population: Population,
    /// The server under test's domain.
    pub(super) far: String,
    pub(super) tls: Tls,
    pub(super) domains: Vec<Domain>,
    pub(super) identities: Identities,
    pub(super) pairs: Arc<Pairs>,
    /// By flow: what this population receives of it.
    pub(super) receives: Vec<Option<Kind>>,
    /// By user, the bare address.
    pub(super) addresses: Vec<Arc<str>>,
    users: HashMap<Arc<str>, u32>,
    pub(super) watched: Vec<Watched>,
    /// By flow of presence from here: the addresses of the watchers' population.
    pub(super) watchers: Vec<Vec<Arc<str>>>,
    missing: AtomicUsize,
    secret: [u8; 32],
    streams: AtomicU64,
    verifications: Mutex<HashMap<usize, Verification>>,
    /// By thread: domains whose boxes were filled on another one.
    pub(super) posts: Vec<Mutex<Vec<u32>>>,
}

/// A played domain.
pub(super) struct Domain {
    pub(super) name: String,
    /// What its stream is to send for others.
    letters: Mutex<Vec<u8>>,
    /// Its party while it stands: the thread above, the number plus one below; zero: none.
    seat: AtomicU64,
}

/// Presentities of a flow whose watchers are here.
pub(super) struct Watched {
    pub(super) flow: usize,
    pub(super) addresses: Vec<Arc<str>>,
    by_address: HashMap<Arc<str>, u32>,
    /// By presentity and place: whether the subscription stands.
    stands: Vec<AtomicBool>,
}

/// A key that the server under test sent, to be asked for at its own door.
#[derive(Clone, Debug)]
pub(super) struct Verification {
    pub(super) asker: PartyId,
    pub(super) domain: usize,
    pub(super) far: String,
    pub(super) id: String,
    pub(super) key: String,
    pub(super) verdict: Option<bool>,
}

/// The cast.
pub(super) struct Peers {
    shared: Arc<Shared>,
    targets: Vec<SocketAddr>,
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The domains of a population, by number.
pub fn domains(population: &Population) -> Vec<String> {
    let domain = population.address.rsplit('@').next().unwrap_or_default();
    (0..population.domains.max(1)).map(|n| pairs::numbered(domain, n)).collect()
}

impl Peers {
    /// For a population of the scenario.
    pub(super) fn new(
        scenario: &Scenario,
        place: usize,
        pairs: &Arc<Pairs>,
    ) -> Result<Self, String> {
        let population = scenario.populations.get(place).ok_or("no such population")?;
        let target = scenario
            .targets
            .iter()
            .find(|target| target.name == population.target)
            .ok_or_else(|| format!("no target {}", population.target))?;
        if target.addresses.is_empty() {
            return Err(format!("target {} has no address", target.name));
        }
        let names = domains(population);
        let authority = Authority::open(population.certificates.as_deref())?;
        let alpn = (target.tls == Tls::Direct).then_some(&b"xmpp-server"[..]);
        let identities = Identities::new(&authority, &names, alpn)?;
        let shared = Shared {
            far: target.domain.clone(),
            tls: target.tls,
            ..Shared::new(scenario, place, pairs, names, identities)
        };
        shared.publish()?;
        Ok(Self { shared: Arc::new(shared), targets: target.addresses.clone() })
    }
}

impl Shared {
    pub(super) fn new(
        scenario: &Scenario,
        place: usize,
        pairs: &Arc<Pairs>,
        names: Vec<String>,
        identities: Identities,
    ) -> Self {
        let population = scenario.populations[place].clone();
        let flows = || scenario.flows.iter().zip(&pairs.flows).enumerate();
        let everybody = |at: usize| -> Vec<Arc<str>> {
            let Some(of) = scenario.populations.get(at) else { return Vec::new() };
            (0..of.users).map(|user| pairs::address(of, user).into()).collect()
        };
        let addresses = everybody(place);
        let mut watched = Vec::new();
        for (flow, (_, it)) in flows().filter(|(_, (f, p))| is_presence(f.kind) && p.to == place) {
            let Some(from) = scenario.populations.get(it.from) else { continue };
            let addresses: Vec<Arc<str>> =
                it.users.iter().map(|u| pairs::address(from, u.0 as usize).into()).collect();
            let all = it.users.len() * it.watchers.each as usize;
            watched.push(Watched {
                flow,
                by_address: addresses.iter().cloned().zip(0..).collect(),
                addresses,
                stands: (0..all).map(|_| AtomicBool::new(false)).collect(),
            });
        }
        let domain = |name| Domain { name, letters: Mutex::default(), seat: AtomicU64::new(0) };
        Self {
            far: String::new(),
            tls: Tls::None,
            domains: names.into_iter().map(domain).collect(),
            identities,
            pairs: Arc::clone(pairs),
            receives: flows().map(|(_, (f, p))| (p.to == place).then_some(f.kind)).collect(),
            users: addresses.iter().cloned().zip(0..).collect(),
            addresses,
            missing: AtomicUsize::new(watched.iter().map(|w| w.stands.len()).sum()),
            watched,
            watchers: flows()
                .map(|(_, (f, p))| {
                    let here = is_presence(f.kind) && p.from == place;
                    if here { everybody(p.to) } else { Vec::new() }
                })
                .collect(),
            secret: secret(),
            streams: AtomicU64::new(0),
            verifications: Mutex::default(),
            posts: (0..scenario.run.threads.max(1)).map(|_| Mutex::default()).collect(),
            population,
        }
    }

    /// Puts the domains' names where the server under test asks for them.
    fn publish(&self) -> Result<(), String> {
        let (Some(at), Some(listen)) = (self.population.listen_dns, self.population.listen) else {
            return Ok(());
        };
        let services = match self.tls {
            Tls::Direct => Services { xmpps: Some(listen), ..Services::default() },
            Tls::None | Tls::StartTls => Services { xmpp: Some(listen), ..Services::default() },
        };
        let mut zones = Zones::default();
        for domain in &self.domains {
            zones.add(&domain.name, services);
        }
        names::serve(at, zones).map(drop).map_err(|e| format!("names at {at}: {e}"))
    }

    /// The key of a stream (XEP-0220, 2.4; XEP-0185, 2): who knows the secret can tell it again.
    pub(super) fn key(&self, receiving: &str, originating: &str, id: &str) -> String {
        self.hex(&format!("{receiving} {originating} {id}"))
    }

    /// A stream's id that nobody guesses.
    pub(super) fn stream_id(&self) -> String {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let mut id = self.hex(&format!("stream {number}"));
        id.truncate(24);
        id
    }

    fn hex(&self, text: &str) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.secret) else {
            return String::new();
        };
        mac.update(text.as_bytes());
        let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
        let bytes = mac.finalize().into_bytes();
        bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }

    /// The user with this address, with a resource or without.
    pub(super) fn user(&self, address: &str) -> Option<u32> {
        let bare = address.split('/').next().unwrap_or_default();
        self.users.get(bare).copied()
    }

    /// The domain of a user.
    pub(super) fn domain_of(&self, user: u32) -> usize {
        user as usize % self.domains.len().max(1)
    }

    /// Something for a domain's own stream, said by a party of some thread.
    pub(super) fn post(&self, domain: usize, text: &[u8], desk: &mut Desk<'_>) {
        let Some(it) = self.domains.get(domain) else { return };
        {
            let mut letters = lock(&it.letters);
            if letters.len() + text.len() > BOX_MAX {
                drop(letters);
                desk.ledger.step_failed("answer", "no stream to send it on");
                return;
            }
            letters.extend_from_slice(text);
        }
        let seat = it.seat.load(Ordering::Acquire);
        let (thread, party) = ((seat >> 32) as usize, seat as u32);
        if party == 0 {
            // It looks once it stands.
            return;
        }
        if thread == desk.thread {
            desk.wishes.push(Wish::Tell(PartyId(party - 1), Order::Heed));
        } else if let Some(post) = self.posts.get(thread) {
            lock(post).push(domain as u32);
        }
    }

    /// What waits for a domain's stream.
    pub(super) fn collect(&self, domain: usize, out: &mut Vec<u8>) {
        if let Some(it) = self.domains.get(domain) {
            out.append(&mut lock(&it.letters));
        }
    }

    /// A domain's stream stands, or stands no more.
    pub(super) fn seat(&self, domain: usize, party: Option<(usize, PartyId)>) {
        let seat = party.map_or(0, |(thread, id)| (thread as u64) << 32 | u64::from(id.0 + 1));
        if let Some(it) = self.domains.get(domain) {
            it.seat.store(seat, Ordering::Release);
        }
    }

    /// The party of a domain, if it is on that thread.
    pub(super) fn seated(&self, domain: usize, on: usize) -> Option<PartyId> {
        let seat = self.domains.get(domain)?.seat.load(Ordering::Acquire);
        let (thread, party) = ((seat >> 32) as usize, seat as u32);
        (thread == on && party > 0).then(|| PartyId(party - 1))
    }

    /// Asks the server under test whether a key is its own; the asker is told to heed the answer.
    pub(super) fn verify(&self, it: Verification, desk: &mut Desk<'_>) -> Option<usize> {
        let mut all = lock(&self.verifications);
        if all.len() >= VERIFICATIONS_MAX {
            return None;
        }
        let n = VERIFIERS + self.streams.fetch_add(1, Ordering::Relaxed) as usize;
        all.insert(n, it);
        desk.wishes.push(Wish::Dial(n));
        Some(n)
    }

    pub(super) fn verification(&self, n: usize) -> Option<Verification> {
        lock(&self.verifications).get(&n).cloned()
    }

    pub(super) fn judge(&self, n: usize, verdict: bool, desk: &mut Desk<'_>) {
        if let Some(it) = lock(&self.verifications).get_mut(&n) {
            it.verdict = Some(verdict);
            desk.wishes.push(Wish::Tell(it.asker, Order::Heed));
        }
    }

    /// The verdict, once: then it is forgotten.
    pub(super) fn verdict(&self, n: usize) -> Option<bool> {
        let mut all = lock(&self.verifications);
        let verdict = all.get(&n)?.verdict?;
        all.remove(&n);
        Some(verdict)
    }

    pub(super) fn forget(&self, n: usize) {
        lock(&self.verifications).remove(&n);
    }

    /// A subscription of a watcher here stands.
    pub(super) fn subscribed(&self, presentity: &str, watcher: u32) {
        let presentity = presentity.split('/').next().unwrap_or_default();
        for watched in &self.watched {
            let Some(&pair) = watched.by_address.get(presentity) else { continue };
            let Some(watchers) = self.pairs.flows.get(watched.flow).map(|f| f.watchers) else {
                continue;
            };
            let Some(place) = watchers.place(pair, watcher) else { continue };
            let at = pair as usize * watchers.each as usize + place as usize;
            if watched.stands.get(at).is_some_and(|it| !it.swap(true, Ordering::Relaxed)) {
                self.missing.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Says the subscriptions of a domain's users that do not stand yet; how many there were.
    pub(super) fn subscribe(&self, domain: usize, out: &mut Vec<u8>) -> usize {
        let mut count = 0;
        for watched in &self.watched {
            let Some(watchers) = self.pairs.flows.get(watched.flow).map(|f| f.watchers) else {
                continue;
            };
            let each = watchers.each as usize;
            for (at, stands) in watched.stands.iter().enumerate() {
                let pair = at / each.max(1);
                let user = watchers.user(pair as u32, (at % each.max(1)) as u32);
                if self.domain_of(user) != domain || stands.load(Ordering::Relaxed) {
                    continue;
                }
                let (Some(to), Some(from)) =
                    (watched.addresses.get(pair), self.addresses.get(user as usize))
                else {
                    continue;
                };
                count += 1;
                let text = format!("<presence from='{from}' to='{to}' type='subscribe'/>");
                out.extend_from_slice(text.as_bytes());
            }
        }
        count
    }
}

fn is_presence(kind: Kind) -> bool {
    kind == Kind::Presence
}

/// Not the same for two runs; nothing worth more than a run depends on it.
fn secret() -> [u8; 32] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut out = [0; 32];
    let (time, rest) = out.split_at_mut(16);
    time.copy_from_slice(&now.as_nanos().to_be_bytes());
    if let Some(id) = rest.get_mut(..4) {
        id.copy_from_slice(&std::process::id().to_be_bytes());
    }
    out
}

impl Cast for Peers {
    fn carriers(&self) -> usize {
        self.shared.domains.len()
    }

    fn carrier_of(&self, user: usize) -> usize {
        user % self.shared.domains.len().max(1)
    }

    fn dial(&self, n: usize) -> Call {
        let shared = &self.shared;
        let verification = (n >= VERIFIERS).then(|| shared.verification(n)).flatten();
        let (domain, errand) = match verification {
            Some(it) => (it.domain, Errand::Verify(n, it)),
            None if n >= VERIFIERS => (0, Errand::Nothing),
            None => (n, Errand::Carry),
        };
        let sources = &shared.population.sources;
        let config = shared.identities.client(domain).ok().filter(|_| shared.tls == Tls::Direct);
        Call {
            way: Way::Stream(self.targets[n % self.targets.len()]),
            source: (!sources.is_empty()).then(|| sources[n % sources.len()]),
            tls: config.map(|config| (config, shared.far.clone())),
            party: Box::new(Outbound::new(Arc::clone(shared), domain, errand)),
        }
    }

    fn ears(&self) -> Vec<Ear> {
        let Some(at) = self.shared.population.listen else { return Vec::new() };
        let tls = match self.shared.tls {
            Tls::Direct => self.shared.identities.server(0).ok(),
            Tls::None | Tls::StartTls => None,
        };
        vec![Ear { at, datagrams: false, tls }]
    }

    fn accepted(&self, _: usize, _: SocketAddr) -> Option<Box<dyn Party>> {
        Some(Box::new(Inbound::new(Arc::clone(&self.shared))))
    }

    fn unready(&self) -> Option<String> {
        let missing = self.shared.missing.load(Ordering::Relaxed);
        (missing > 0).then(|| format!("{missing} subscriptions over s2s did not come yet"))
    }

    fn address_of(&self, user: usize) -> Arc<str> {
        self.shared.addresses.get(user).cloned().unwrap_or_else(|| Arc::from(""))
    }
}
