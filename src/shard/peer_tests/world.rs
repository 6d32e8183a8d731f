//! A small world for the streams of peers: engines, the links between them, time by hand. What is not
//! answered here (accounts, the moving of clients) is **not** needed for it; `tests/world` has all.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::dns;
use crate::home::dialogs::{DialogChange, DialogKey, DialogRow};
use crate::home::record::Fetched;
use crate::policy::{Pattern, PeerAuth, Policy, Profile, Protocol, Rule, Security, Target};
use crate::route::shard_of;
use crate::shard::conn::{Bound, Conn, Role};
use crate::shard::kernel::*;
use crate::shard::outbox::Outbox;
use crate::shard::settings::{Domain, Listener, ListenerId, Party, Settings};
use crate::shard::{Notice, Shard};
use crate::time::{Moment, Now, Wall};
use crate::tls;
use crate::xmpp::frame::Limits;

/// 2026-01-01.
pub(in crate::shard) const TODAY: Wall = Wall(1_767_225_600_000_000);
pub(in crate::shard) const HEADER: &str = "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' \
     xmlns:db='jabber:server:dialback' version='1.0'";

pub(super) enum Heard {
    Event(Event<'static>),
    Received(ConnId, Vec<u8>),
    Posted(ShardId, Vec<u8>),
}

pub(super) enum Done {
    Send(ConnId, Vec<u8>),
    Close(ConnId),
    Connect(Ticket, SocketAddr),
    Post(ShardId, Vec<u8>),
    Ask(Question),
}

#[derive(Default)]
pub(super) struct Fake {
    pub(super) inbox: VecDeque<Heard>,
    pub(super) current: Vec<u8>,
    pub(super) done: Vec<Done>,
    pub(super) next_index: u32,
}

impl Fake {
    pub(super) fn conn(&mut self) -> ConnId {
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
            Heard::Posted(from, record) => {
                self.current = record;
                Event::Posted { from, record: &self.current }
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
        self.done.push(Done::Post(to, record.to_vec()));
        Ok(())
    }
    fn hand_over(&mut self, _: ConnId, _: ShardId, _: Box<crate::shard::Parcel>) {
        unreachable!("nobody binds here")
    }
    fn ask(&mut self, question: Question) -> Result<(), Box<Question>> {
        self.done.push(Done::Ask(question));
        Ok(())
    }
}

/// One shard of one node.
pub(super) type Place = (usize, u16);

#[derive(Clone, Copy)]
pub(super) enum End {
    Conn(Place, ConnId),
    Script(usize),
}

/// A far end that the test speaks for.
pub(super) struct Script {
    pub(super) at: (Place, ConnId),
    pub(super) heard: String,
    pub(super) closed: bool,
}

pub(super) struct World {
    pub(super) shards: BTreeMap<Place, (Shard, Fake)>,
    pub(super) links: BTreeMap<(Place, ConnId), End>,
    pub(super) scripts: Vec<Script>,
    /// Nodes by the address they listen at; others are black holes.
    pub(super) listening: BTreeMap<SocketAddr, usize>,
    /// A script answers here.
    pub(super) scripted: Option<SocketAddr>,
    pub(super) roots: tls::Roots,
    pub(super) notices: Vec<Notice>,
    /// Dialogs that are kept, by key.
    pub(super) dialogs: BTreeMap<DialogKey, DialogRow>,
    pub(super) now: Moment,
    pub(super) dice: u16,
}

pub(super) fn address(node: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::from([127, 0, 0, node as u8 + 1]), 5269)
}

pub(super) fn script_address() -> SocketAddr {
    "127.0.0.9:5269".parse().unwrap()
}

pub(in crate::shard) fn rule(auth: PeerAuth, security: Security, targets: &[SocketAddr]) -> Rule {
    let targets = targets.iter().map(|it| Target { address: *it, security }).collect();
    Rule {
        allow: true,
        protocol: Protocol::Xmpp,
        profile: Profile::Xmpp,
        auth,
        security,
        targets,
        private_addresses: false,
    }
}

pub(super) struct Node<'a> {
    pub(super) domain: &'a str,
    pub(super) shards: u16,
    pub(super) auth: PeerAuth,
    pub(super) security: Security,
    pub(super) rules: Vec<(&'a str, Rule)>,
    pub(super) tls: Arc<tls::CertStore>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            shards: BTreeMap::new(),
            links: BTreeMap::new(),
            scripts: Vec::new(),
            listening: BTreeMap::new(),
            scripted: None,
            roots: tls::Roots::default(),
            notices: Vec::new(),
            dialogs: BTreeMap::new(),
            now: Moment(1_000_000_000),
            dice: 0,
        }
    }

    pub(super) fn add(&mut self, node: Node<'_>) -> usize {
        let index = self.listening.len();
        let rules = node.rules.into_iter().map(|(p, r)| (Pattern::parse(p).unwrap(), r)).collect();
        let settings = Arc::new(Settings {
            version: 1,
            shards: node.shards,
            listeners: vec![Listener::new(Party::Peer, node.security)],
            own_addresses: vec![address(index)],
            domains: vec![Domain {
                name: node.domain.to_owned(),
                sip_name: node.domain.to_owned(),
                plain: false,
                channel_binding: true,
                denial: Default::default(),
            }],
            tls: node.tls,
            policy: Arc::new(Policy::new(rule(node.auth, node.security, &[]), rules)),
            clients: Default::default(),
            dialback_secrets: vec![vec![index as u8 + 1; 32]],
            scram_secret: vec![0; 32],
            strangers_per_address: 0,
            scram_iterations: 4_096,
        });
        for shard in 0..node.shards {
            let seed = [index as u8 * 16 + shard as u8 + 1; 32];
            let engine = Shard::new(ShardId(shard), Arc::clone(&settings), seed);
            self.shards.insert((index, shard), (engine, Fake::default()));
        }
        self.listening.insert(address(index), index);
        index
    }

    /// Runs until nothing is left to do at this moment.
    pub(super) fn run(&mut self) {
        for _ in 0..10_000 {
            let mut idle = true;
            for place in self.shards.keys().copied().collect::<Vec<_>>() {
                let (shard, fake) = self.shards.get_mut(&place).unwrap();
                let now = Now { moment: self.now, wall: TODAY };
                shard.step(now, fake);
                let done = std::mem::take(&mut fake.done);
                idle &= done.is_empty() && fake.inbox.is_empty();
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
            self.now = (self.now + Duration::from_millis(100)).min(until);
            self.run();
        }
    }

    pub(super) fn tell(&mut self, place: Place, heard: Heard) {
        self.shards.get_mut(&place).unwrap().1.inbox.push_back(heard);
    }

    pub(super) fn event(&mut self, place: Place, event: Event<'static>) {
        self.tell(place, Heard::Event(event));
    }

    pub(super) fn carry(&mut self, place: Place, done: Done) {
        match done {
            Done::Send(conn, bytes) => {
                match self.links.get(&(place, conn)) {
                    Some(End::Conn(far, id)) => {
                        let (far, id) = (*far, *id);
                        self.tell(far, Heard::Received(id, bytes.clone()));
                    }
                    Some(End::Script(index)) => {
                        let text = String::from_utf8_lossy(&bytes);
                        self.scripts[*index].heard.push_str(&text);
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
            Done::Ask(question) => self.answer(place, question),
        }
    }

    pub(super) fn cut(&mut self, place: Place, conn: ConnId) {
        let gone = |conn| Event::Gone { conn, why: Gone::Closed, unacknowledged: 0 };
        match self.links.remove(&(place, conn)) {
            Some(End::Conn(far, id)) => {
                self.links.remove(&(far, id));
                self.event(far, gone(id));
            }
            Some(End::Script(index)) => self.scripts[index].closed = true,
            None => {}
        }
        self.event(place, gone(conn));
    }

    pub(super) fn connect(&mut self, place: Place, ticket: Ticket, target: SocketAddr) {
        let near = self.shards.get_mut(&place).unwrap().1.conn();
        if Some(target) == self.scripted {
            self.links.insert((place, near), End::Script(self.scripts.len()));
            let at = (place, near);
            self.scripts.push(Script { at, heard: String::new(), closed: false });
        } else if let Some(node) = self.listening.get(&target) {
            let count = self.shards.keys().filter(|it| it.0 == *node).count() as u16;
            self.dice += 1;
            let far = (*node, self.dice % count);
            let id = self.shards.get_mut(&far).unwrap().1.conn();
            self.links.insert((place, near), End::Conn(far, id));
            self.links.insert((far, id), End::Conn(place, near));
            let remote = address(place.0);
            self.event(far, Event::Accepted { conn: id, listener: ListenerId(0), remote });
        } else {
            return;
        }
        self.event(place, Event::Connected { conn: near, ticket, remote: target });
    }

    pub(super) fn answer(&mut self, place: Place, question: Question) {
        let answer = match question {
            Question::Resolve { ticket, .. } => Answer::Resolved {
                ticket,
                direct: dns::Answer::Absent,
                starttls: dns::Answer::Absent,
            },
            Question::Addresses { ticket, host } => {
                Answer::Addresses { ticket, host, addresses: Some(Vec::new()) }
            }
            Question::Judge { ticket, chain, usage } => {
                let verdict = Box::new(tls::judge(&chain, &self.roots, TODAY, usage));
                Answer::Judged { ticket, verdict }
            }
            Question::Tell(notice) => return self.notices.push(notice),
            Question::Load { ticket, user } => {
                let known = user.local() != Some("nobody");
                Answer::Loaded { ticket, record: Ok(known.then(Box::default)) }
            }
            Question::Commit { ticket, .. } => Answer::Committed { ticket, done: Ok(()) },
            Question::Fetch { ticket, .. } => {
                Answer::Fetched { ticket, found: Ok(Fetched::Messages(Vec::new())) }
            }
            Question::Keep { ticket, changes } => {
                for change in changes {
                    match change {
                        DialogChange::Put(row) => self.dialogs.insert(row.key.clone(), *row),
                        DialogChange::Remove(key) => self.dialogs.remove(&key),
                    };
                }
                Answer::Kept { ticket, done: Ok(()) }
            }
            // What was kept is given back by hand.
            Question::Dialogs { ticket, .. } => Answer::Dialogs { ticket, rows: Ok(Vec::new()) },
            other => panic!("{other:?}"),
        };
        self.event(place, Event::Answered(answer));
    }

    /// A client that has bound a resource, on its home shard.
    pub(super) fn client(&mut self, node: usize, address: &str) -> usize {
        let address = Address::parse(address).unwrap();
        let count = self.shards.keys().filter(|it| it.0 == node).count() as u16;
        let place = (node, shard_of(address.slot(), count));
        let (shard, fake) = self.shards.get_mut(&place).unwrap();
        let id = fake.conn();
        let remote = "127.0.0.1:1".parse().unwrap();
        shard.home.bind(address.bare(), address.resource().unwrap(), id).unwrap();
        shard.home.loaded(address.bare(), Default::default());
        let (copied, blocks) = (false, false);
        let bound = Bound { address, lang: None, copied, stream: 0, blocks };
        let role = Role::Bound(Box::new(bound));
        let mut conn = Box::new(Conn::new(id, role, remote, self.now));
        let header = HEADER.replace("jabber:server'", "jabber:client'") + ">";
        conn.framer.next(header.as_bytes(), &Limits::CLIENT).unwrap();
        conn.streaming = true;
        shard.conns.insert(conn, Outbox::default());
        self.links.insert((place, id), End::Script(self.scripts.len()));
        self.scripts.push(Script { at: (place, id), heard: String::new(), closed: false });
        self.scripts.len() - 1
    }

    /// A scripted peer that connects to a shard.
    pub(super) fn peer(&mut self, place: Place) -> usize {
        let id = self.shards.get_mut(&place).unwrap().1.conn();
        self.links.insert((place, id), End::Script(self.scripts.len()));
        self.scripts.push(Script { at: (place, id), heard: String::new(), closed: false });
        let remote = script_address();
        self.event(place, Event::Accepted { conn: id, listener: ListenerId(0), remote });
        self.scripts.len() - 1
    }

    /// A scripted far end says something; returns what it hears then.
    pub(super) fn say(&mut self, script: usize, text: &str) -> String {
        let (place, id) = self.scripts[script].at;
        self.scripts[script].heard.clear();
        self.tell(place, Heard::Received(id, text.as_bytes().to_vec()));
        self.run();
        self.scripts[script].heard.clone()
    }

    pub(super) fn heard(&mut self, script: usize) -> String {
        self.run();
        std::mem::take(&mut self.scripts[script].heard)
    }

    pub(super) fn sum(&self, node: usize, figure: impl Fn(&Shard) -> u64) -> u64 {
        self.shards.iter().filter(|it| it.0.0 == node).map(|it| figure(&it.1.0)).sum()
    }

    /// Every stanza that was taken has an outcome.
    pub(super) fn balanced(&mut self) {
        self.pass(Duration::from_millis(300));
        for node in 0..self.listening.len() {
            for kind in crate::envelope::Kind::ALL {
                assert_eq!(self.sum(node, |shard| shard.account.in_flight(kind)), 0, "{node}");
            }
        }
    }

    pub(super) fn trouble(&self) -> Vec<String> {
        let text = |it: &Notice| {
            let field = |name| it.fields.iter().find(|f| f.0 == name).map(|f| f.1.as_str());
            format!("{} {} {}", it.event, field("dir").unwrap_or(""), field("step").unwrap_or(""))
        };
        self.notices.iter().map(text).collect()
    }
}

pub(in crate::shard) fn bare() -> Arc<tls::CertStore> {
    Arc::new(tls::CertStore::build(&[], TODAY, &clock()).unwrap())
}

pub(in crate::shard) fn clock() -> tls::Clock {
    let clock = tls::Clock::default();
    clock.set(TODAY);
    clock
}

/// A small authority.
pub(in crate::shard) struct Ca {
    pub(in crate::shard) key: rcgen::KeyPair,
    pub(in crate::shard) params: rcgen::CertificateParams,
    pub(in crate::shard) pem: String,
}

impl Ca {
    pub(in crate::shard) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { key, params, pem }
    }

    pub(in crate::shard) fn store(&self, domain: &str, named: &str) -> Arc<tls::CertStore> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params =
            rcgen::CertificateParams::new(vec![domain.to_owned(), named.to_owned()]).unwrap();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        let pem = params.signed_by(&key, &issuer).unwrap().pem();
        let (key_pem, domains) = (key.serialize_pem(), [named.to_owned()]);
        let source = tls::MaterialSource {
            chain_pem: pem.as_bytes(),
            key_pem: key_pem.as_bytes(),
            domains: &domains,
        };
        Arc::new(tls::CertStore::build(&[source], TODAY, &clock()).unwrap())
    }
}
