//! A small world for SIP's transport: engines of some nodes, the links between them, partners that a
//! test speaks for, time by hand.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::dns::{self, SipFound};
use crate::address::Address;
use crate::home::dialogs::{DialogChange, DialogRow};
use crate::home::record::{Change, Fetched, Record};
use crate::policy::{
    Edge, Identity, Im, Pattern, PeerAuth, Pidf, Policy, Profile, Protocol, Rule, Security,
    SipHost, SipRule, SipTarget, Transport,
};
use crate::shard::kernel::*;
use crate::route::shard_of;
use crate::shard::conn::{Bound, Conn, Role};
use crate::shard::outbox::Outbox;
use crate::shard::peer_tests::world::{HEADER, TODAY, rule};
use crate::shard::settings::{Domain, Listener, ListenerId, Party, Settings};
use crate::shard::sip::{Ask, Asker, Class, Outgoing};
use crate::shard::{Notice, Parcel, Shard};
use crate::stdx::Key;
use crate::time::{Moment, Now, Wall};
use crate::xmpp::frame::Limits;
use crate::tls;

pub(super) const TCP: ListenerId = ListenerId(0);
pub(super) const TLS: ListenerId = ListenerId(1);
pub(super) const UDP: ListenerId = ListenerId(2);

const START: u64 = 1_000_000_000_000;

enum Heard {
    Event(Event<'static>),
    Received(ConnId, Vec<u8>),
    Datagram(SocketAddr, Vec<u8>),
    Posted(ShardId, Vec<u8>),
    Arrived(Link, Box<Parcel>),
}

enum Done {
    Send(ConnId, Vec<u8>),
    Close(ConnId),
    Connect(Ticket, SocketAddr),
    Post(ShardId, Vec<u8>),
    HandOver(ConnId, ShardId, Box<Parcel>),
    Datagram(SocketAddr, Vec<u8>),
    Ask(Question),
}

#[derive(Default)]
pub(super) struct Fake {
    inbox: VecDeque<Heard>,
    current: Vec<u8>,
    done: Vec<Done>,
    next_index: u32,
    arrived: Vec<(ConnId, Link)>,
    /// The mesh is full.
    pub(super) full: bool,
}

impl Fake {
    fn conn(&mut self) -> ConnId {
        self.next_index += 1;
        ConnId { index: self.next_index, generation: 1 }
    }
}

impl Kernel for Fake {
    fn next(&mut self) -> Option<Event<'_>> {
        Some(match self.inbox.pop_front()? {
            Heard::Event(event) => event,
            Heard::Received(conn, bytes) => {
                self.current = bytes;
                Event::Received { conn, bytes: &self.current }
            }
            Heard::Datagram(remote, bytes) => {
                self.current = bytes;
                Event::Datagram { listener: UDP, remote, bytes: &self.current }
            }
            Heard::Posted(from, record) => {
                self.current = record;
                Event::Posted { from, record: &self.current }
            }
            Heard::Arrived(link, parcel) => {
                let conn = self.conn();
                self.arrived.push((conn, link));
                Event::Arrived { conn, parcel }
            }
        })
    }
    fn read(&mut self, _: ConnId, _: Read) {}
    fn send(&mut self, conn: ConnId, bytes: Vec<u8>) {
        self.done.push(Done::Send(conn, bytes));
    }
    fn close(&mut self, conn: ConnId, _: Ending) {
        self.done.push(Done::Close(conn));
    }
    fn unacknowledged(&mut self, _: ConnId) -> u64 {
        0
    }
    fn connect(&mut self, ticket: Ticket, target: SocketAddr) {
        self.done.push(Done::Connect(ticket, target));
    }
    fn post(&mut self, to: ShardId, record: &[u8]) -> Result<(), Full> {
        if self.full {
            return Err(Full);
        }
        self.done.push(Done::Post(to, record.to_vec()));
        Ok(())
    }
    fn hand_over(&mut self, conn: ConnId, to: ShardId, parcel: Box<Parcel>) {
        self.done.push(Done::HandOver(conn, to, parcel));
    }
    fn send_datagram(&mut self, _: ListenerId, remote: SocketAddr, bytes: &[u8]) {
        self.done.push(Done::Datagram(remote, bytes.to_vec()));
    }
    fn ask(&mut self, question: Question) -> Result<(), Box<Question>> {
        self.done.push(Done::Ask(question));
        Ok(())
    }
}

/// One shard of one node.
pub(super) type Place = (usize, u16);

#[derive(Clone, Copy, Debug)]
pub(super) enum Link {
    /// The far end is a node; its half of the link.
    Node(usize),
    Script(usize),
}

/// A far end that the test speaks for.
pub(super) struct Script {
    at: Option<(Place, ConnId)>,
    pub(super) heard: Vec<u8>,
    pub(super) closed: bool,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) shards: BTreeMap<Place, (Shard, Fake)>,
    links: BTreeMap<(Place, ConnId), Link>,
    /// Halves of links between nodes: the other half, and where this one is.
    halves: Vec<(usize, Option<(Place, ConnId)>)>,
    pub(super) scripts: Vec<Script>,
    listening: BTreeMap<SocketAddr, (usize, ListenerId)>,
    /// Scripts answer here.
    pub(super) scripted: Vec<SocketAddr>,
    /// Nobody answers here, and the kernel says so at once.
    pub(super) refusing: Vec<SocketAddr>,
    pub(super) datagrams: Vec<(SocketAddr, String)>,
    pub(super) roots: tls::Roots,
    pub(super) srv: BTreeMap<String, SipFound>,
    pub(super) hosts: BTreeMap<String, Vec<IpAddr>>,
    pub(super) asked: Vec<String>,
    pub(super) notices: Vec<Notice>,
    /// The store does not answer.
    pub(super) silent: bool,
    pub(super) now: Moment,
    dice: u16,
    /// What each node's store has: users' records, and dialogs.
    pub(super) records: BTreeMap<(usize, String), Record>,
    pub(super) kept: BTreeMap<(usize, String), DialogRow>,
    /// The store can't be had.
    pub(super) store_fails: bool,
}

pub(super) fn node_address(node: usize, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([127, 0, 0, node as u8 + 1]), port)
}

/// A SIP rule with fixed targets, or by DNS without.
pub(super) fn sip(transport: Transport, identity: Identity, targets: &[SocketAddr]) -> Rule {
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
pub(super) fn sip_of(rule: &mut Rule) -> &mut SipRule {
    match &mut rule.protocol {
        Protocol::Sip(sip) => sip,
        Protocol::Xmpp => panic!("not SIP"),
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self { now: Moment(START), ..Self::default() }
    }

    pub(super) fn add(
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
    pub(super) fn run(&mut self) {
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

    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = (self.now + Duration::from_millis(50)).min(until);
            self.run();
        }
    }

    fn settle(&mut self, place: Place, conn: ConnId, link: Link) {
        self.links.insert((place, conn), link);
        match link {
            Link::Node(half) => self.halves[half].1 = Some((place, conn)),
            Link::Script(script) => self.scripts[script].at = Some((place, conn)),
        }
    }

    fn tell(&mut self, place: Place, heard: Heard) {
        self.shards.get_mut(&place).unwrap().1.inbox.push_back(heard);
    }

    fn event(&mut self, place: Place, event: Event<'static>) {
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
    pub(super) fn hang_up(&mut self, script: usize) {
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
            Question::Load { ticket, .. } if self.store_fails => {
                Answer::Loaded { ticket, record: Err(Unavailable) }
            }
            Question::Load { ticket, user } => {
                let known = user.local() != Some("nobody");
                let record = self.records.get(&(place.0, user.to_string())).cloned();
                let record = known.then(|| Box::new(record.unwrap_or_default()));
                Answer::Loaded { ticket, record: Ok(record) }
            }
            Question::Commit { ticket, .. } if self.store_fails => {
                Answer::Committed { ticket, done: Err(Unavailable) }
            }
            Question::Commit { ticket, user, changes } => {
                let record = self.records.entry((place.0, user.to_string())).or_default();
                changes.into_iter().for_each(|change| apply(record, change));
                Answer::Committed { ticket, done: Ok(()) }
            }
            Question::Keep { ticket, .. } if self.store_fails => {
                Answer::Kept { ticket, done: Err(Unavailable) }
            }
            Question::Keep { ticket, changes } => {
                for change in changes {
                    let key = (place.0, change.key().to_owned());
                    match change {
                        DialogChange::Put(row) => drop(self.kept.insert(key, *row)),
                        DialogChange::Remove(_) => drop(self.kept.remove(&key)),
                    }
                }
                Answer::Kept { ticket, done: Ok(()) }
            }
            Question::Dialogs { ticket, .. } if self.store_fails => {
                Answer::Dialogs { ticket, rows: Err(Unavailable) }
            }
            Question::Dialogs { ticket, after, count } => {
                let after = after.map_or(String::new(), String::from);
                let rows = self.kept.iter().filter(|it| it.0.0 == place.0 && it.0.1 > after);
                let rows = rows.take(count as usize).map(|it| it.1.clone()).collect();
                Answer::Dialogs { ticket, rows: Ok(rows) }
            }
            Question::Fetch { ticket, .. } => {
                Answer::Fetched { ticket, found: Ok(Fetched::Messages(Vec::new())) }
            }
            other => panic!("{other:?}"),
        };
        self.event(place, Event::Answered(answer));
    }

    fn script(&mut self, at: (Place, ConnId)) -> usize {
        let index = self.scripts.len();
        self.scripts.push(Script { at: None, heard: Vec::new(), closed: false });
        self.settle(at.0, at.1, Link::Script(index));
        index
    }

    /// A scripted partner connects to a shard, from that address.
    pub(super) fn partner(&mut self, place: Place, listener: ListenerId, remote: &str) -> usize {
        let id = self.shards.get_mut(&place).unwrap().1.conn();
        let script = self.script((place, id));
        let remote = remote.parse().unwrap();
        self.event(place, Event::Accepted { conn: id, listener, remote });
        script
    }

    /// A scripted partner says something.
    pub(super) fn tell_script(&mut self, script: usize, text: Vec<u8>) {
        if let Some((place, id)) = self.scripts[script].at {
            self.tell(place, Heard::Received(id, text));
        }
        self.run();
    }

    /// A client that has bound that address.
    pub(super) fn client(&mut self, node: usize, address: &str) -> usize {
        let address = Address::parse(address).unwrap();
        let count = self.shards.keys().filter(|it| it.0 == node).count() as u16;
        let place = (node, shard_of(address.slot(), count));
        let known = self.records.get(&(node, address.bare().to_owned()));
        let record = known.cloned().unwrap_or_default();
        let (shard, fake) = self.shards.get_mut(&place).unwrap();
        let id = fake.conn();
        let remote = "127.0.0.1:1".parse().unwrap();
        let loads = shard.home.account(address.bare()).is_none();
        shard.home.bind(address.bare(), address.resource().unwrap(), id).unwrap();
        if loads {
            shard.home.loaded(address.bare(), record);
        }
        let bound = Bound { address, lang: None, copied: false, stream: 0, blocks: false };
        let mut conn = Box::new(Conn::new(id, Role::Bound(Box::new(bound)), remote, self.now));
        let header = HEADER.replace("jabber:server'", "jabber:client'") + ">";
        conn.framer.next(header.as_bytes(), &Limits::CLIENT).unwrap();
        conn.streaming = true;
        shard.conns.insert(conn, Outbox::default());
        self.script((place, id))
    }

    /// The node is killed and started again; the store stays as it is.
    pub(super) fn restart(&mut self, node: usize) {
        self.links.retain(|(place, _), _| place.0 != node);
        for script in &mut self.scripts {
            if script.at.is_some_and(|(place, _)| place.0 == node) {
                script.at = None;
                script.closed = true;
            }
        }
        self.dice += 1;
        for (place, (shard, fake)) in self.shards.iter_mut().filter(|it| it.0.0 == node) {
            let seed = [100 + self.dice as u8 + place.1 as u8; 32];
            let next_index = fake.next_index;
            *shard = Shard::new(ShardId(place.1), Arc::clone(&shard.settings), seed);
            *fake = Fake { next_index, ..Fake::default() };
        }
    }

    /// An order of the control thread to all shards of a node.
    pub(super) fn order(&mut self, node: usize, order: impl Fn() -> Order) {
        for place in self.shards.keys().copied().filter(|it| it.0 == node).collect::<Vec<_>>() {
            self.event(place, Event::Ordered(order()));
        }
        self.run();
    }

    /// A scripted partner says something; returns what it hears then.
    pub(super) fn say(&mut self, script: usize, text: impl AsRef<[u8]>) -> String {
        self.scripts[script].heard.clear();
        if let Some((place, id)) = self.scripts[script].at {
            self.tell(place, Heard::Received(id, text.as_ref().to_vec()));
        }
        self.run();
        self.heard(script)
    }

    pub(super) fn heard(&mut self, script: usize) -> String {
        self.run();
        String::from_utf8(std::mem::take(&mut self.scripts[script].heard)).unwrap()
    }

    /// A datagram comes; what goes out then.
    pub(super) fn datagram(
        &mut self,
        place: Place,
        remote: &str,
        text: &str,
    ) -> Vec<(SocketAddr, String)> {
        self.datagrams.clear();
        self.tell(place, Heard::Datagram(remote.parse().unwrap(), text.as_bytes().to_vec()));
        self.run();
        std::mem::take(&mut self.datagrams)
    }

    /// A user of a shard sends a request.
    pub(super) fn send(&mut self, place: Place, text: &str, class: Class, far: &str) -> Ask {
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
    pub(super) fn cancel(&mut self, place: Place, ask: Ask) {
        let (shard, _) = self.shards.get_mut(&place).unwrap();
        shard.sip_cancel(ask);
        self.run();
    }

    /// A new configuration.
    pub(super) fn reload(&mut self, node: usize, change: impl FnOnce(&mut Settings)) {
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
    pub(super) fn answers(&mut self, node: usize) -> Vec<String> {
        self.run();
        let shards = self.shards.iter_mut().filter(|it| it.0.0 == node);
        shards.flat_map(|(_, (shard, _))| std::mem::take(&mut shard.transport.heard)).collect()
    }

    pub(super) fn sum(&self, node: usize, figure: impl Fn(&Shard) -> u64) -> u64 {
        self.shards.iter().filter(|it| it.0.0 == node).map(|it| figure(&it.1.0)).sum()
    }

    /// Nothing is left behind.
    pub(super) fn at_rest(&mut self, node: usize) {
        self.run();
        for figure in 0..4 {
            let name = self.shards[&(node, 0)].0.transport.figures()[figure].0;
            if name != "tandem_sip_ways" {
                let sum = self.sum(node, |it| it.transport.figures()[figure].1);
                assert_eq!(sum, 0, "{name}");
            }
        }
    }

    pub(super) fn trouble(&self) -> Vec<String> {
        let text = |it: &Notice| {
            let field = |name| it.fields.iter().find(|f| f.0 == name).map(|f| f.1.as_str());
            format!("{} {} {}", it.event, field("dir").unwrap_or(""), field("step").unwrap_or(""))
        };
        self.notices.iter().map(|it| text(it).trim().to_owned()).collect()
    }
}

pub(super) fn settings(
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
        scram_iterations: 4_096,
    }
}

/// The SRV record of a domain.
pub(super) fn found(target: &str) -> SipFound {
    let record = dns::Srv { priority: 0, weight: 0, port: 5061, target: format!("{target}.") };
    let service = dns::SipService::Federation;
    SipFound::Records { service, records: vec![record], seconds: 300 }
}

/// What the store makes of a change.
fn apply(record: &mut Record, change: Change) {
    match change {
        Change::PutItem(item) => {
            record.items.retain(|it| it.contact != item.contact);
            record.items.push(*item);
        }
        Change::RemoveItem(contact) => record.items.retain(|it| it.contact != contact),
        Change::RosterVersion(version) => record.roster_version = version,
        Change::AddRule(list, rule) => record.rules.push((list, rule)),
        Change::RemoveRule(list, rule) => record.rules.retain(|it| *it != (list, rule.clone())),
        Change::Last(last) => record.last = Some(last),
        _ => {}
    }
}
