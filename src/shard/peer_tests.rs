//! Two nodes and scripted peers on a small world of their own: no sockets, time by hand.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::dns;
use crate::limits::WAY_QUEUE_TIME_MAX;
use crate::policy::{Pattern, PeerAuth, Policy, Rule, Security, Target};
use crate::route::{shard_of, shard_of_domain};
use crate::shard::conn::{Bound, Conn, Role};
use crate::shard::kernel::*;
use crate::shard::outbox::Outbox;
use crate::shard::settings::{Domain, Listener, ListenerId, Party, Settings};
use crate::shard::{Notice, Shard};
use crate::time::{Moment, Now, Wall};
use crate::tls;
use crate::xmpp::frame::Limits;

/// 2026-01-01.
const TODAY: Wall = Wall(1_767_225_600_000_000);
const HEADER: &str = "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' \
     xmlns:db='jabber:server:dialback' version='1.0'";

enum Heard {
    Event(Event<'static>),
    Received(ConnId, Vec<u8>),
    Posted(ShardId, Vec<u8>),
}

enum Done {
    Send(ConnId, Vec<u8>),
    Close(ConnId),
    Connect(Ticket, SocketAddr),
    Post(ShardId, Vec<u8>),
    Ask(Question),
}

#[derive(Default)]
struct Fake {
    inbox: VecDeque<Heard>,
    current: Vec<u8>,
    done: Vec<Done>,
    next_index: u32,
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
type Place = (usize, u16);

#[derive(Clone, Copy)]
enum End {
    Conn(Place, ConnId),
    Script(usize),
}

/// A far end that the test speaks for.
struct Script {
    at: (Place, ConnId),
    heard: String,
    closed: bool,
}

struct World {
    shards: BTreeMap<Place, (Shard, Fake)>,
    links: BTreeMap<(Place, ConnId), End>,
    scripts: Vec<Script>,
    /// Nodes by the address they listen at; others are black holes.
    listening: BTreeMap<SocketAddr, usize>,
    /// A script answers here.
    scripted: Option<SocketAddr>,
    roots: tls::Roots,
    notices: Vec<Notice>,
    now: Moment,
    dice: u16,
}

fn address(node: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::from([127, 0, 0, node as u8 + 1]), 5269)
}

fn script_address() -> SocketAddr {
    "127.0.0.9:5269".parse().unwrap()
}

fn rule(auth: PeerAuth, security: Security, targets: &[SocketAddr]) -> Rule {
    let targets = targets.iter().map(|it| Target { address: *it, security }).collect();
    Rule { allow: true, auth, security, targets, private_addresses: false }
}

struct Node<'a> {
    domain: &'a str,
    shards: u16,
    auth: PeerAuth,
    security: Security,
    rules: Vec<(&'a str, Rule)>,
    tls: Arc<tls::CertStore>,
}

impl World {
    fn new() -> Self {
        Self {
            shards: BTreeMap::new(),
            links: BTreeMap::new(),
            scripts: Vec::new(),
            listening: BTreeMap::new(),
            scripted: None,
            roots: tls::Roots::default(),
            notices: Vec::new(),
            now: Moment(1_000_000_000),
            dice: 0,
        }
    }

    fn add(&mut self, node: Node<'_>) -> usize {
        let index = self.listening.len();
        let rules = node.rules.into_iter().map(|(p, r)| (Pattern::parse(p).unwrap(), r)).collect();
        let settings = Arc::new(Settings {
            version: 1,
            shards: node.shards,
            listeners: vec![Listener { party: Party::Peer, security: node.security }],
            own_addresses: vec![address(index)],
            domains: vec![Domain { name: node.domain.to_owned(), plain: false }],
            tls: node.tls,
            policy: Arc::new(Policy::new(rule(node.auth, node.security, &[]), rules)),
            dialback_secrets: vec![vec![index as u8 + 1; 32]],
            scram_secret: vec![0; 32],
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
    fn run(&mut self) {
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

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = (self.now + Duration::from_millis(100)).min(until);
            self.run();
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

    fn cut(&mut self, place: Place, conn: ConnId) {
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

    fn connect(&mut self, place: Place, ticket: Ticket, target: SocketAddr) {
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

    fn answer(&mut self, place: Place, question: Question) {
        let answer = match question {
            Question::Resolve { ticket, .. } => Answer::Resolved {
                ticket,
                direct: dns::Answer::Absent,
                starttls: dns::Answer::Absent,
            },
            Question::Addresses { ticket, .. } => {
                Answer::Addresses { ticket, addresses: Some(Vec::new()) }
            }
            Question::Judge { ticket, chain, usage } => {
                let verdict = Box::new(tls::judge(&chain, &self.roots, TODAY, usage));
                Answer::Judged { ticket, verdict }
            }
            Question::Tell(notice) => return self.notices.push(notice),
            other => panic!("{other:?}"),
        };
        self.event(place, Event::Answered(answer));
    }

    /// A client that has bound a resource, on its home shard.
    fn client(&mut self, node: usize, address: &str) -> usize {
        let address = Address::parse(address).unwrap();
        let count = self.shards.keys().filter(|it| it.0 == node).count() as u16;
        let place = (node, shard_of(address.slot(), count));
        let (shard, fake) = self.shards.get_mut(&place).unwrap();
        let id = fake.conn();
        let remote = "127.0.0.1:1".parse().unwrap();
        shard.home.bind(address.bare(), address.resource().unwrap(), id).unwrap();
        let role = Role::Bound(Box::new(Bound { address, lang: None }));
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
    fn peer(&mut self, place: Place) -> usize {
        let id = self.shards.get_mut(&place).unwrap().1.conn();
        self.links.insert((place, id), End::Script(self.scripts.len()));
        self.scripts.push(Script { at: (place, id), heard: String::new(), closed: false });
        let remote = script_address();
        self.event(place, Event::Accepted { conn: id, listener: ListenerId(0), remote });
        self.scripts.len() - 1
    }

    /// A scripted far end says something; returns what it hears then.
    fn say(&mut self, script: usize, text: &str) -> String {
        let (place, id) = self.scripts[script].at;
        self.scripts[script].heard.clear();
        self.tell(place, Heard::Received(id, text.as_bytes().to_vec()));
        self.run();
        self.scripts[script].heard.clone()
    }

    fn heard(&mut self, script: usize) -> String {
        self.run();
        std::mem::take(&mut self.scripts[script].heard)
    }

    fn sum(&self, node: usize, figure: impl Fn(&Shard) -> u64) -> u64 {
        self.shards.iter().filter(|it| it.0.0 == node).map(|it| figure(&it.1.0)).sum()
    }

    /// Every stanza that was taken has an outcome.
    fn balanced(&mut self) {
        self.pass(Duration::from_millis(300));
        for node in 0..self.listening.len() {
            for kind in crate::envelope::Kind::ALL {
                assert_eq!(self.sum(node, |shard| shard.account.in_flight(kind)), 0, "{node}");
            }
        }
    }

    fn trouble(&self) -> Vec<String> {
        let text = |it: &Notice| {
            let field = |name| it.fields.iter().find(|f| f.0 == name).map(|f| f.1.as_str());
            format!("{} {} {}", it.event, field("dir").unwrap_or(""), field("step").unwrap_or(""))
        };
        self.notices.iter().map(text).collect()
    }
}

fn bare() -> Arc<tls::CertStore> {
    Arc::new(tls::CertStore::build(&[], TODAY, &clock()).unwrap())
}

fn clock() -> tls::Clock {
    let clock = tls::Clock::default();
    clock.set(TODAY);
    clock
}

/// a.example and b.example in clear text, each knowing where the other is.
fn plain(shards: u16) -> World {
    let mut world = World::new();
    for (i, domain) in ["a.example", "b.example"].into_iter().enumerate() {
        let other = ["b.example", "a.example"][i];
        let (auth, security) = (PeerAuth::Dialback, Security::Optional);
        let rules = vec![
            (other, rule(auth, security, &[address(1 - i)])),
            ("script.example", rule(auth, security, &[script_address()])),
            ("hole.example", rule(auth, security, &[SocketAddr::from(([127, 0, 0, 77], 1)); 9])),
            ("self.example", rule(auth, security, &[address(i)])),
            ("denied.example", Rule { allow: false, ..rule(auth, security, &[]) }),
        ];
        world.add(Node { domain, shards, auth, security, rules, tls: bare() });
    }
    world
}

fn message(to: &str, id: &str) -> String {
    format!("<message to='{to}' type='chat' id='{id}'><body>{id}</body></message>")
}

#[test]
fn a_message_each_way_over_dialback_on_one_and_two_shards() {
    for shards in [1, 2, 3] {
        let mut world = plain(shards);
        let x = world.client(0, "x@a.example/1");
        let y = world.client(1, "y@b.example/1");
        world.say(x, &message("y@b.example/1", "m1"));
        let heard = world.heard(y);
        assert_eq!(
            heard,
            "<message from='x@a.example/1' to='y@b.example/1' type='chat' id='m1'><body>m1</body></message>",
            "{shards} {:?}",
            world.notices
        );
        world.say(y, &message("x@a.example/1", "m2"));
        let heard = world.heard(x);
        assert!(heard.contains("id='m2'") && !heard.contains("error"), "{heard}");
        assert_eq!(world.sum(0, |it| it.counters.peer_streams_out), 1);
        assert_eq!(world.sum(0, |it| it.counters.peer_streams_in), 1);
        assert_eq!(world.sum(1, |it| it.counters.dialback_valid), 1);
        // To nobody: the error comes back over the other stream.
        let heard = world.say(x, &message("nobody@b.example", "m3")) + &world.heard(x);
        assert!(heard.contains("type='error'") && heard.contains("id='m3'"), "{heard}");
        assert_eq!(world.trouble(), Vec::<String>::new());
        world.balanced();
    }
}

#[test]
fn a_thousand_messages_keep_their_order_while_the_stream_is_made() {
    for size in [10, 700] {
        let mut world = plain(2);
        let x = world.client(0, "x@a.example/1");
        let y = world.client(1, "y@b.example/1");
        let body = "z".repeat(size);
        let all: String = (0..1_000)
            .map(|i| {
                format!("<message to='y@b.example/1' type='chat' id='m{i}'><body>{body}</body></message>")
            })
            .collect();
        world.say(x, &all);
        let heard = world.heard(y);
        let ids: Vec<usize> = heard
            .split(" id='m")
            .skip(1)
            .map(|it| it.split('\'').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(ids, (0..1_000).collect::<Vec<_>>());
        world.balanced();
    }
}

#[test]
fn a_wrong_key_is_called_invalid_and_the_stream_ends() {
    let mut world = plain(2);
    let peer = world.peer((1, 0));
    let heard = world.say(peer, &format!("{HEADER} from='a.example' to='b.example'>"));
    assert!(heard.contains("<dialback xmlns='urn:xmpp:features:dialback'><errors/>"), "{heard}");
    let heard = world.say(peer, "<db:result from='a.example' to='b.example'>00</db:result>");
    assert_eq!(
        heard,
        "<db:result from='b.example' to='a.example' type='invalid'/></stream:stream>"
    );
    assert!(world.scripts[peer].closed);
    assert_eq!(world.sum(1, |it| it.counters.dialback_invalid), 1);
    assert_eq!(world.trouble(), ["peer_setup_failed in dialback"]);
}

#[test]
fn what_nobody_asked_for_is_dropped_and_counted() {
    let mut world = plain(1);
    let peer = world.peer((1, 0));
    world.say(peer, &format!("{HEADER} from='a.example' to='b.example'>"));
    let unasked = "<db:result from='a.example' to='b.example' type='valid'/>\
         <db:verify from='a.example' to='b.example' id='1' type='valid'/>";
    assert_eq!(world.say(peer, unasked), "");
    assert_eq!(world.sum(1, |it| it.counters.dialback_unsolicited), 2);
    let stanza = "<message from='x@a.example' to='y@b.example'><body>hi</body></message>";
    let heard = world.say(peer, stanza);
    assert!(heard.contains("<not-authorized ") && world.scripts[peer].closed, "{heard}");
}

#[test]
fn answers_on_our_stream_need_a_question_and_stanzas_are_refused() {
    let mut world = plain(1);
    world.scripted = Some(script_address());
    let x = world.client(0, "x@a.example/1");
    world.say(x, &message("y@script.example", "m1"));
    let peer = world.scripts.len() - 1;
    assert!(world.heard(peer).contains("to='script.example'"));
    let features =
        "<stream:features><dialback xmlns='urn:xmpp:features:dialback'/></stream:features>";
    let heard = world.say(
        peer,
        &format!("{HEADER} from='script.example' id='<&amp;1'>").replace("'<&amp;1", "'&lt;&amp;1"),
    );
    assert_eq!(heard, "");
    let heard = world.say(peer, features);
    assert!(heard.starts_with("<db:result from='a.example' to='script.example'>"), "{heard}");
    let heard = world.say(
        peer,
        "<db:result from='other.example' to='a.example' type='valid'/>\
        <db:result from='script.example' to='c.example' type='valid'/>\
        <db:verify from='script.example' to='a.example' id='9' type='valid'/>",
    );
    assert_eq!((heard.as_str(), world.sum(0, |it| it.counters.dialback_unsolicited)), ("", 3));
    let heard = world.say(peer, "<db:result from='script.example' to='a.example' type='valid'/>");
    assert!(heard.contains("id='m1'"), "{heard}");
    let heard =
        world.say(peer, "<message from='y@script.example' to='x@a.example'><body/></message>");
    assert!(heard.contains("<not-authorized ") && world.scripts[peer].closed, "{heard}");
}

#[test]
fn the_answer_to_our_key_decides_how_the_queue_bounces() {
    for (answer, condition) in [
        ("type='invalid'/>", "internal-server-error"),
        (
            "type='error'><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></db:result>",
            "remote-server-timeout",
        ),
        ("", "remote-server-timeout"),
    ] {
        let mut world = plain(1);
        world.scripted = Some(script_address());
        let x = world.client(0, "x@a.example/1");
        world.say(x, &message("y@script.example", "m1"));
        let peer = world.scripts.len() - 1;
        world.say(peer, &format!("{HEADER} from='script.example' id='1'><stream:features/>"));
        if answer.is_empty() {
            world.pass(Duration::from_secs(21));
        } else {
            world.say(peer, &format!("<db:result from='script.example' to='a.example' {answer}"));
        }
        let heard = world.heard(x);
        assert!(heard.contains(condition), "{answer}: {heard}");
        assert_eq!(world.scripts[peer].closed, !answer.contains("error"), "{answer}");
        assert_eq!(world.trouble(), ["peer_setup_failed out dialback"]);
        world.balanced();
    }
}

#[test]
fn who_cannot_be_found_or_may_not_be_talked_to_is_named() {
    for (domain, condition) in [
        ("nowhere.example", "remote-server-not-found"),
        ("self.example", "remote-server-not-found"),
        ("denied.example", "not-allowed"),
    ] {
        let mut world = plain(2);
        let x = world.client(0, "x@a.example/1");
        world.say(x, &message(&format!("y@{domain}"), "m1"));
        let heard = world.heard(x);
        assert!(heard.contains(condition) && heard.contains("id='m1'"), "{domain}: {heard}");
        let trouble: &[&str] =
            if condition == "not-allowed" { &[] } else { &["peer_setup_failed out dns"] };
        assert_eq!(world.trouble(), trouble);
        world.balanced();
    }
}

#[test]
fn a_stanza_waits_for_its_deadline_and_no_longer() {
    let mut world = plain(1);
    let x = world.client(0, "x@a.example/1");
    world.say(x, &message("y@hole.example", "m1"));
    world.pass(Duration::from_secs(5));
    world.say(x, &message("y@hole.example", "m2"));
    world.pass(WAY_QUEUE_TIME_MAX - Duration::from_secs(6));
    assert_eq!(world.heard(x), "");
    world.pass(Duration::from_secs(2));
    let heard = world.heard(x);
    assert!(heard.contains("id='m1'") && heard.contains("remote-server-timeout"), "{heard}");
    assert!(!heard.contains("id='m2'"), "{heard}");
    world.pass(Duration::from_secs(5));
    assert!(world.heard(x).contains("id='m2'"));
    world.balanced();
    // Nobody waits and nobody came: it is forgotten in time.
    world.pass(Duration::from_secs(700));
    assert_eq!(world.sum(0, |it| it.ways.len() as u64), 0);
}

#[test]
fn a_peer_speaks_only_for_its_own() {
    let proven = |world: &mut World| {
        let x = world.client(0, "x@a.example/1");
        world.say(x, &message("y@b.example", "m0"));
        // A scripted peer beside the real one, with a key that the real one vouches for.
        let peer = world.peer((1, 0));
        let heard = world.say(peer, &format!("{HEADER} from='a.example' to='b.example'>"));
        let id = heard.split(" id='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
        let (shard, _) = &world.shards[&(0, 0)];
        let key = shard.secrets().key("b.example", "a.example", &id);
        let heard = world
            .say(peer, &format!("<db:result from='a.example' to='b.example'>{key}</db:result>"));
        assert_eq!(heard, "<db:result from='b.example' to='a.example' type='valid'/>");
        peer
    };
    for (stanza, fault) in [
        ("<message from='x@a.example' to='y@b.example/1'/>", None),
        ("<message from='x@c.example' to='y@b.example'/>", Some("invalid-from")),
        ("<message from='x@a.example' to='y@c.example'/>", Some("host-unknown")),
        ("<message from='x@a.example'/>", Some("improper-addressing")),
        ("<message to='y@b.example'/>", Some("improper-addressing")),
        ("<message from='@a.example' to='y@b.example'/>", Some("improper-addressing")),
        ("<foo/>", Some("unsupported-stanza-type")),
    ] {
        let mut world = plain(1);
        let peer = proven(&mut world);
        let y = world.client(1, "y@b.example/1");
        let heard = world.say(peer, stanza);
        match fault {
            None => assert!(world.heard(y).contains("from='x@a.example'")),
            Some(fault) => assert!(heard.contains(&format!("<{fault} ")), "{stanza}: {heard}"),
        }
        assert_eq!(world.scripts[peer].closed, fault.is_some(), "{stanza}");
        world.balanced();
    }
    // More pairs on the same stream: refused ones leave it alone.
    let mut world = plain(1);
    let peer = proven(&mut world);
    for (from, to, condition) in [
        ("a.example", "c.example", "item-not-found"),
        ("denied.example", "b.example", "not-authorized"),
        ("b.example", "b.example", "not-authorized"),
        ("nowhere.example", "b.example", "remote-server-not-found"),
    ] {
        let heard = world.say(peer, &format!("<db:result from='{from}' to='{to}'>00</db:result>"));
        assert!(heard.contains(condition), "{from} {to}: {heard}");
        assert!(!world.scripts[peer].closed);
    }
}

#[test]
fn headers_that_cannot_be_served_are_answered_by_name() {
    for (header, fault) in [
        ("from='a.example' to='c.example'>", "host-unknown"),
        ("from='a.example'>", "host-unknown"),
        ("from='..' to='b.example'>", "improper-addressing"),
        ("from='b.example' to='b.example'>", "invalid-from"),
    ] {
        let mut world = plain(1);
        let peer = world.peer((1, 0));
        let heard = world.say(peer, &format!("{HEADER} {header}"));
        assert!(heard.starts_with("<?xml version='1.0'?><stream:stream "), "{heard}");
        assert!(heard.contains(&format!("<{fault} ")), "{header}: {heard}");
        assert!(heard.ends_with("</stream:stream>") && world.scripts[peer].closed);
    }
}

#[test]
fn a_stop_says_goodbye_and_bounces_what_waits() {
    let mut world = plain(2);
    let x = world.client(0, "x@a.example/1");
    let y = world.client(1, "y@b.example/1");
    world.say(x, &message("y@b.example/1", "m1"));
    assert!(world.heard(y).contains("m1"));
    world.say(x, &message("y@hole.example", "m2"));
    for shard in [0, 1] {
        world.event((0, shard), Event::Ordered(Order::Stop));
    }
    let heard = world.heard(x);
    assert!(heard.contains("id='m2'") && heard.contains("system-shutdown"), "{heard}");
    assert_eq!(world.sum(0, |it| it.conns.len() as u64), 0);
    // The other side has lost its streams in order and is well.
    world.listening.clear();
    world.say(y, &message("x@a.example/1", "m3"));
    world.pass(Duration::from_secs(9));
    assert!(world.heard(y).contains("remote-server-timeout"));
}

/// A small authority.
struct Ca {
    key: rcgen::KeyPair,
    params: rcgen::CertificateParams,
    pem: String,
}

impl Ca {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { key, params, pem }
    }

    fn store(&self, domain: &str, named: &str) -> Arc<tls::CertStore> {
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

/// Both over TLS; `trusted`: a's certificate and b's are believed.
fn secured(auth: [PeerAuth; 2], security: Security, trusted: [bool; 2]) -> World {
    let mut world = World::new();
    let (good, bad) = (Ca::new(), Ca::new());
    world.roots = tls::Roots::from_pem(good.pem.as_bytes()).0;
    for (i, domain) in ["a.example", "b.example"].into_iter().enumerate() {
        let other = ["b.example", "a.example"][i];
        let rules = vec![(other, rule(auth[i], security, &[address(1 - i)]))];
        let ca = if trusted[i] { &good } else { &bad };
        let tls = ca.store(domain, domain);
        world.add(Node { domain, shards: 2, auth: auth[i], security, rules, tls });
    }
    world
}

#[test]
fn certificates_and_rules_decide_how_it_is_proven() {
    use PeerAuth::{Both, Dialback, External};
    for security in [Security::StartTls, Security::Direct] {
        for (auth, trusted, keys, reaches) in [
            // Good on both sides: no key is shown.
            ([Both, Both], [true, true], 0, true),
            ([External, External], [true, true], 0, true),
            // Ours is not believed: dialback, since theirs is good. They ask our server about the
            // key, whose certificate must be good then, and is not.
            ([Both, Both], [false, true], 0, false),
            ([Both, Dialback], [false, true], 1, true),
            // We show nothing but a key; a good certificate shortens it.
            ([Dialback, Dialback], [true, true], 1, true),
            ([Dialback, Dialback], [false, false], 1, true),
            // Theirs is not believed.
            ([Both, Dialback], [true, false], 0, false),
            ([External, Dialback], [true, true], 0, false),
            ([Dialback, External], [true, false], 0, false),
        ] {
            let case = format!("{security:?} {auth:?} {trusted:?}");
            let mut world = secured(auth, security, trusted);
            let x = world.client(0, "x@a.example/1");
            let y = world.client(1, "y@b.example/1");
            world.say(x, &message("y@b.example/1", "m1"));
            let heard = world.heard(y);
            assert_eq!(heard.contains("id='m1'"), reaches, "{case}: {:?}", world.notices);
            assert_eq!(world.sum(1, |it| it.counters.dialback_valid), keys, "{case}");
            let heard = world.heard(x);
            let bounced = heard.contains("remote-server-timeout");
            assert_eq!(bounced, !reaches, "{case}: {heard} {:?}", world.notices);
            assert_eq!(world.trouble().is_empty(), reaches, "{case}: {:?}", world.notices);
            world.balanced();
        }
    }
}

#[test]
fn octets_behind_starttls_end_the_connection() {
    let mut world = secured([PeerAuth::Both; 2], Security::StartTls, [true; 2]);
    let peer = world.peer((1, 0));
    let heard = world.say(peer, &format!("{HEADER} from='a.example' to='b.example'>"));
    assert!(heard.contains("<required/>"), "{heard}");
    let heard = world.say(peer, "<db:result from='a.example' to='b.example'>00</db:result>");
    assert!(heard.contains("<policy-violation "), "{heard}");
    world.say(peer, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><message/>");
    assert!(world.scripts[peer].closed);
}

#[test]
fn two_shards_agree_on_whose_way_it_is() {
    let owner = shard_of_domain("b.example", 2);
    let mut world = plain(2);
    let x = world.client(0, "x@a.example/1");
    world.say(x, &message("y@b.example", "m1"));
    assert_eq!(world.shards[&(0, owner)].0.ways.len(), 1);
    assert_eq!(world.shards[&(0, 1 - owner)].0.ways.len(), 0);
}
