//! A small world for SIP's transport: engines of some nodes, the links between them, partners that a
//! test speaks for, time by hand.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::fake::{Done, Fake, Heard};
use super::store::Store;
use crate::dns::{self, SipFound};
use crate::home::record::Fetched;
use crate::policy::{
    Edge, Identity, Im, Pattern, PeerAuth, Pidf, Policy, Profile, Protocol, Rule, Security,
    SipHost, SipRule, SipTarget, Transport,
};
use crate::shard::kernel::*;
use crate::shard::peer_tests::world::{TODAY, rule};
use crate::shard::settings::{Domain, Listener, ListenerId, Party, Settings};
use crate::shard::sip::{Ask, Asker, Class, Outgoing};
use crate::shard::{Notice, Shard};
use crate::stdx::Key;
use crate::time::{Moment, Now, Wall};
use crate::tls;

const START: u64 = 1_000_000_000_000;

pub(in crate::shard::sip) const TCP: ListenerId = ListenerId(0);
pub(in crate::shard::sip) const TLS: ListenerId = ListenerId(1);
pub(in crate::shard::sip) const UDP: ListenerId = ListenerId(2);

/// One shard of one node.
pub(in crate::shard::sip) type Place = (usize, u16);

#[derive(Clone, Copy, Debug)]
pub(in crate::shard::sip) enum Link {
    /// The far end is a node; its half of the link.
    Node(usize),
    Script(usize),
}

/// A far end that the test speaks for.
pub(in crate::shard::sip) struct Script {
    pub(super) at: Option<(Place, ConnId)>,
    pub(in crate::shard::sip) heard: Vec<u8>,
    pub(in crate::shard::sip) closed: bool,
}

#[derive(Default)]
pub(in crate::shard::sip) struct World {
    pub(in crate::shard::sip) shards: BTreeMap<Place, (Shard, Fake)>,
    pub(super) links: BTreeMap<(Place, ConnId), Link>,
    /// Halves of links between nodes: the other half, and where this one is.
    halves: Vec<(usize, Option<(Place, ConnId)>)>,
    pub(in crate::shard::sip) scripts: Vec<Script>,
    listening: BTreeMap<SocketAddr, (usize, ListenerId)>,
    /// Scripts answer here.
    pub(in crate::shard::sip) scripted: Vec<SocketAddr>,
    /// Nobody answers here, and the kernel says so at once.
    pub(in crate::shard::sip) refusing: Vec<SocketAddr>,
    pub(in crate::shard::sip) datagrams: Vec<(SocketAddr, String)>,
    pub(in crate::shard::sip) roots: tls::Roots,
    pub(in crate::shard::sip) srv: BTreeMap<String, SipFound>,
    pub(in crate::shard::sip) hosts: BTreeMap<String, Vec<IpAddr>>,
    pub(in crate::shard::sip) asked: Vec<String>,
    pub(in crate::shard::sip) notices: Vec<Notice>,
    /// The store does not answer.
    pub(in crate::shard::sip) silent: bool,
    /// What is kept.
    pub(in crate::shard::sip) store: Store,
    pub(in crate::shard::sip) now: Moment,
    pub(super) dice: u16,
}

pub(in crate::shard::sip) fn node_address(node: usize, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([127, 0, 0, node as u8 + 1]), port)
}

/// A SIP rule with fixed targets, or by DNS without.
pub(in crate::shard::sip) fn sip(
    transport: Transport,
    identity: Identity,
    targets: &[SocketAddr],
) -> Rule {
    let target = |it: &SocketAddr| SipTarget { host: SipHost::Address(it.ip()), port: it.port() };
    let sip = SipRule {
        identity,
        names: Vec::new(),
        targets: targets.iter().map(target).collect(),
        transport,
        rate: 0,
        im: Im::Session,
        pidf: Pidf::Microsoft,
    };
    Rule {
        protocol: Protocol::Sip(Box::new(sip)),
        profile: Profile::Lync,
        ..rule(PeerAuth::Both, Security::StartTls, &[])
    }
}

/// Its SIP part.
pub(in crate::shard::sip) fn sip_of(rule: &mut Rule) -> &mut SipRule {
    match &mut rule.protocol {
        Protocol::Sip(sip) => sip,
        Protocol::Xmpp => panic!("not SIP"),
    }
}

impl World {
    pub(in crate::shard::sip) fn new() -> Self {
        Self { now: Moment(START), ..Self::default() }
    }

    pub(in crate::shard::sip) fn add(
        &mut self,
        domain: &str,
        shards: u16,
        rules: Vec<(&str, Rule)>,
        edges: Vec<Edge>,
        tls: Arc<tls::CertStore>,
    ) -> usize {
        let index = self.shards.keys().map(|it| it.0 + 1).max().unwrap_or(0);
        let settings = Arc::new(settings(index, domain, shards, rules, edges, tls));
        for shard in 0..shards {
            let seed = [index as u8 * 16 + shard as u8 + 1; 32];
            let engine = Shard::new(ShardId(shard), Arc::clone(&settings), seed);
            self.shards.insert((index, shard), (engine, Fake::default()));
        }
        self.listening.insert(node_address(index, 5060), (index, TCP));
        self.listening.insert(node_address(index, 5061), (index, TLS));
        index
    }

    /// Runs until nothing is left to do at this moment.
    pub(in crate::shard::sip) fn run(&mut self) {
        for _ in 0..10_000 {
            let mut idle = true;
            for place in self.shards.keys().copied().collect::<Vec<_>>() {
                let (shard, fake) = self.shards.get_mut(&place).unwrap();
                let passed = (self.now.0 - START) / 1_000;
                let now = Now { moment: self.now, wall: Wall(TODAY.0 + passed) };
                shard.step(now, fake);
                let done = std::mem::take(&mut fake.done);
                idle &= done.is_empty() && fake.inbox.is_empty();
                for (conn, link) in std::mem::take(&mut fake.arrived) {
                    self.settle(place, conn, link);
                }
                for it in done {
                    self.carry(place, it);
                }
            }
            if idle && self.shards.values().all(|it| it.1.inbox.is_empty()) {
                return;
            }
        }
        panic!("they never stop");
    }

    pub(in crate::shard::sip) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = (self.now + Duration::from_millis(50)).min(until);
            self.run();
        }
    }

    pub(super) fn settle(&mut self, place: Place, conn: ConnId, link: Link) {
        self.links.insert((place, conn), link);
        match link {
            Link::Node(half) => self.halves[half].1 = Some((place, conn)),
            Link::Script(script) => self.scripts[script].at = Some((place, conn)),
        }
    }

    fn tell(&mut self, place: Place, heard: Heard) {
        self.shards.get_mut(&place).unwrap().1.inbox.push_back(heard);
    }

    pub(super) fn event(&mut self, place: Place, event: Event<'static>) {
        self.tell(place, Heard::Event(event));
    }

    fn carry(&mut self, place: Place, done: Done) {
        match done {
            Done::Send(conn, bytes) => {
                match self.links.get(&(place, conn)).copied() {
                    Some(Link::Node(half)) => {
                        let other = self.halves[half].0;
                        if let Some((far, id)) = self.halves[other].1 {
                            self.tell(far, Heard::Received(id, bytes.clone()));
                        }
                    }
                    Some(Link::Script(index)) => {
                        self.scripts[index].heard.extend_from_slice(&bytes);
                    }
                    None => {}
                }
                self.event(place, Event::Sent { conn, buffer: bytes });
            }
            Done::Close(conn) => self.cut(place, conn),
            Done::Connect(ticket, target) => self.connect(place, ticket, target),
            Done::Post(to, record) => {
                self.tell((place.0, to.0), Heard::Posted(ShardId(place.1), record));
            }
            Done::HandOver(conn, to, parcel) => {
                let link = self.links.remove(&(place, conn)).unwrap();
                self.tell((place.0, to.0), Heard::Arrived(link, parcel));
            }
            Done::Datagram(remote, bytes) => {
                self.datagrams.push((remote, String::from_utf8_lossy(&bytes).into_owned()));
            }
            Done::Ask(question) => self.answer(place, question),
        }
    }

    fn cut(&mut self, place: Place, conn: ConnId) {
        let gone = |conn| Event::Gone { conn, why: Gone::Closed, unacknowledged: 0 };
        match self.links.remove(&(place, conn)) {
            Some(Link::Node(half)) => {
                let other = self.halves[half].0;
                if let Some((far, id)) = self.halves[other].1.take() {
                    self.links.remove(&(far, id));
                    self.event(far, gone(id));
                }
            }
            Some(Link::Script(index)) => {
                self.scripts[index].closed = true;
                self.scripts[index].at = None;
            }
            None => {}
        }
        self.event(place, gone(conn));
    }

    /// A script's end of its connection goes.
    pub(in crate::shard::sip) fn hang_up(&mut self, script: usize) {
        let Some((place, conn)) = self.scripts[script].at else { return };
        self.cut(place, conn);
        self.run();
    }

    fn connect(&mut self, place: Place, ticket: Ticket, target: SocketAddr) {
        if self.refusing.contains(&target) {
            let reason = "connection refused";
            return self.event(place, Event::ConnectFailed { ticket, reason });
        }
        let near = self.shards.get_mut(&place).unwrap().1.conn();
        if self.scripted.contains(&target) {
            self.script((place, near));
        } else if let Some((node, listener)) = self.listening.get(&target).copied() {
            let count = self.shards.keys().filter(|it| it.0 == node).count() as u16;
            self.dice += 1;
            let far = (node, self.dice % count);
            let id = self.shards.get_mut(&far).unwrap().1.conn();
            let half = self.halves.len();
            self.halves.push((half + 1, None));
            self.halves.push((half, None));
            self.settle(place, near, Link::Node(half));
            self.settle(far, id, Link::Node(half + 1));
            let remote = node_address(place.0, 40_000);
            self.event(far, Event::Accepted { conn: id, listener, remote });
        } else {
            return;
        }
        self.event(place, Event::Connected { conn: near, ticket, remote: target });
    }

    fn answer(&mut self, place: Place, question: Question) {
        let answer = match question {
            Question::ResolveSip { ticket, domain, .. } => {
                self.asked.push(domain.clone());
                let found = self.srv.get(&domain).cloned().unwrap_or(SipFound::Absent);
                Answer::ResolvedSip { ticket, found }
            }
            Question::Addresses { ticket, host } => {
                let addresses = self.hosts.get(&host).cloned();
                Answer::Addresses { ticket, host, addresses: Some(addresses.unwrap_or_default()) }
            }
            Question::Judge { ticket, chain, usage } => {
                let verdict = Box::new(tls::judge(&chain, &self.roots, TODAY, usage));
                Answer::Judged { ticket, verdict }
            }
            Question::Tell(notice) => return self.notices.push(notice),
            Question::Load { .. } if self.silent => return,
            question @ (Question::Load { .. }
            | Question::Commit { .. }
            | Question::Keep { .. }
            | Question::Dialogs { .. }) => self.store.answer(place.0, question),
            Question::Fetch { ticket, .. } => {
                Answer::Fetched { ticket, found: Ok(Fetched::Messages(Vec::new())) }
            }
            other => panic!("{other:?}"),
        };
        self.event(place, Event::Answered(answer));
    }

    pub(super) fn script(&mut self, at: (Place, ConnId)) -> usize {
        let index = self.scripts.len();
        self.scripts.push(Script { at: None, heard: Vec::new(), closed: false });
        self.settle(at.0, at.1, Link::Script(index));
        index
    }

    /// A scripted partner connects to a shard, from that address.
    pub(in crate::shard::sip) fn partner(
        &mut self,
        place: Place,
        listener: ListenerId,
        remote: &str,
    ) -> usize {
        let id = self.shards.get_mut(&place).unwrap().1.conn();
        let script = self.script((place, id));
        let remote = remote.parse().unwrap();
        self.event(place, Event::Accepted { conn: id, listener, remote });
        script
    }

    /// A scripted partner says something.
    pub(in crate::shard::sip) fn tell_script(&mut self, script: usize, text: Vec<u8>) {
        if let Some((place, id)) = self.scripts[script].at {
            self.tell(place, Heard::Received(id, text));
        }
        self.run();
    }

    /// A scripted partner says something; returns what it hears then.
    pub(in crate::shard::sip) fn say(&mut self, script: usize, text: impl AsRef<[u8]>) -> String {
        self.scripts[script].heard.clear();
        if let Some((place, id)) = self.scripts[script].at {
            self.tell(place, Heard::Received(id, text.as_ref().to_vec()));
        }
        self.run();
        self.heard(script)
    }

    pub(in crate::shard::sip) fn heard(&mut self, script: usize) -> String {
        self.run();
        String::from_utf8_lossy(&std::mem::take(&mut self.scripts[script].heard)).into_owned()
    }

    /// The same with any octets.
    pub(in crate::shard::sip) fn octets(
        &mut self,
        place: Place,
        remote: &str,
        octets: Vec<u8>,
    ) -> Vec<(SocketAddr, String)> {
        self.datagrams.clear();
        self.tell(place, Heard::Datagram(remote.parse().unwrap(), octets));
        self.run();
        std::mem::take(&mut self.datagrams)
    }

    /// A datagram comes; what goes out then.
    pub(in crate::shard::sip) fn datagram(
        &mut self,
        place: Place,
        remote: &str,
        text: &str,
    ) -> Vec<(SocketAddr, String)> {
        self.octets(place, remote, text.as_bytes().to_vec())
    }

    /// A user of a shard sends a request.
    pub(in crate::shard::sip) fn send(
        &mut self,
        place: Place,
        text: &str,
        class: Class,
        far: &str,
    ) -> Ask {
        let now = self.now;
        let (shard, _) = self.shards.get_mut(&place).unwrap();
        shard.now.moment = now;
        let near = shard.settings.domains[0].name.clone();
        let out = Outgoing {
            near: near.into(),
            far: far.into(),
            class,
            deadline: now + Duration::from_secs(38),
            text: text.as_bytes().to_vec(),
        };
        let ask = shard.sip_send(Asker::Page(Key { index: 0, generation: 0 }), out);
        self.run();
        ask
    }

    /// A user wants no answer any more.
    pub(in crate::shard::sip) fn cancel(&mut self, place: Place, ask: Ask) {
        let (shard, _) = self.shards.get_mut(&place).unwrap();
        shard.sip_cancel(ask);
        self.run();
    }

    /// A new configuration.
    pub(in crate::shard::sip) fn reload(
        &mut self,
        node: usize,
        change: impl FnOnce(&mut Settings),
    ) {
        let mut settings = (*self.shards[&(node, 0)].0.settings).clone();
        settings.version += 1;
        change(&mut settings);
        let settings = Arc::new(settings);
        for place in self.shards.keys().copied().filter(|it| it.0 == node).collect::<Vec<_>>() {
            self.event(place, Event::Ordered(Order::Settings(Arc::clone(&settings))));
        }
        self.run();
    }

    /// What askers of a node heard, as status or failure.
    pub(in crate::shard::sip) fn answers(&mut self, node: usize) -> Vec<String> {
        self.run();
        let shards = self.shards.iter_mut().filter(|it| it.0.0 == node);
        shards.flat_map(|(_, (shard, _))| std::mem::take(&mut shard.transport.heard)).collect()
    }

    pub(in crate::shard::sip) fn sum(&self, node: usize, figure: impl Fn(&Shard) -> u64) -> u64 {
        self.shards.iter().filter(|it| it.0.0 == node).map(|it| figure(&it.1.0)).sum()
    }

    /// Nothing is left behind.
    pub(in crate::shard::sip) fn at_rest(&mut self, node: usize) {
        self.run();
        for figure in 0..4 {
            let name = self.shards[&(node, 0)].0.transport.figures()[figure].0;
            if name != "tandem_sip_ways" {
                let sum = self.sum(node, |it| it.transport.figures()[figure].1);
                assert_eq!(sum, 0, "{name}");
            }
        }
    }

    pub(in crate::shard::sip) fn trouble(&self) -> Vec<String> {
        let text = |it: &Notice| {
            let field = |name| it.fields.iter().find(|f| f.0 == name).map(|f| f.1.as_str());
            format!("{} {} {}", it.event, field("dir").unwrap_or(""), field("step").unwrap_or(""))
        };
        self.notices.iter().map(|it| text(it).trim().to_owned()).collect()
    }
}

pub(in crate::shard::sip) fn settings(
    index: usize,
    domain: &str,
    shards: u16,
    rules: Vec<(&str, Rule)>,
    edges: Vec<Edge>,
    tls: Arc<tls::CertStore>,
) -> Settings {
    let rules = rules.into_iter().map(|(p, r)| (Pattern::parse(p).unwrap(), r)).collect();
    let default = Rule { allow: false, ..rule(PeerAuth::Both, Security::StartTls, &[]) };
    Settings {
        version: 1,
        shards,
        listeners: vec![
            Listener::new(Party::Sip(Transport::Tcp), Security::Optional),
            Listener::new(Party::Sip(Transport::Tls), Security::Direct),
            Listener::new(Party::Sip(Transport::Udp), Security::Optional),
        ],
        clients: Default::default(),
        own_addresses: [5060, 5061, 5060].map(|port| node_address(index, port)).to_vec(),
        domains: vec![Domain {
            name: domain.to_owned(),
            sip_name: format!("sip.{domain}"),
            plain: false,
            channel_binding: true,
            denial: Default::default(),
        }],
        tls,
        policy: Arc::new(Policy::new(default, rules).with_edges(edges)),
        dialback_secrets: vec![vec![index as u8 + 1; 32]],
        scram_secret: vec![0; 32],
        strangers_per_address: 0,
        scram_iterations: 4_096,
    }
}

/// The SRV record of a domain.
pub(in crate::shard::sip) fn found(target: &str) -> SipFound {
    let record = dns::Srv { priority: 0, weight: 0, port: 5061, target: format!("{target}.") };
    let service = dns::SipService::Federation;
    SipFound::Records { service, records: vec![record], seconds: 300 }
}
