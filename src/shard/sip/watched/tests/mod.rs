//! SIP watchers of local users, as conversations with a partner over TCP.

mod life;
mod rights;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::home::record::{Item, List, Record};
use crate::home::subscription::{Denial, State};
use crate::limits::{RESTORE_UNKNOWN_TIME, WATCHED_PENDING_TIME_MAX};
use crate::policy::{Identity, Rule, Transport};
use crate::shard::kernel::Order;
use crate::shard::peer_tests::world::bare;
use crate::shard::settings::Settings;
use crate::shard::sip::tests::world::{TCP, World, settings, sip};

const PARTNER: &str = "192.0.2.9:31000";

/// A node, a partner and what is between them.
struct Scene {
    world: World,
    partner: usize,
    clients: Vec<usize>,
    /// What each NOTIFY is answered with; empty: nothing.
    answer: &'static str,
    notifies: Vec<String>,
    /// What else it heard.
    others: Vec<String>,
    /// Calls: our tag, and the last CSeq of the partner.
    calls: BTreeMap<String, (String, u32)>,
}

fn rule() -> Rule {
    sip(Transport::Tcp, Identity::Fixed, &["192.0.2.9:5060".parse().unwrap()])
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn item(contact: &str, state: State) -> Item {
    Item { listed: true, state, ..Item::new(address(contact)) }
}

impl Scene {
    fn new(shards: u16) -> Self {
        let mut world = World::new();
        world.scripted.push("192.0.2.9:5060".parse().unwrap());
        world.add("b.example", shards, vec![("a.example", rule())], Vec::new(), bare());
        let mut scene = Self {
            world,
            partner: 0,
            clients: Vec::new(),
            answer: "200 OK",
            notifies: Vec::new(),
            others: Vec::new(),
            calls: BTreeMap::new(),
        };
        scene.dial();
        scene
    }

    fn dial(&mut self) {
        self.partner = self.world.partner((0, 0), TCP, PARTNER);
    }

    fn record(&mut self, user: &str, record: Record) {
        self.world.store.records.insert((0, user.to_owned()), record);
    }

    /// bob sees alice's presence or not.
    fn subscribed(&mut self, state: State) {
        let items = vec![item("alice@a.example", state)];
        self.record("bob@b.example", Record { items, ..Record::default() });
    }

    /// Takes what the partner heard on all his connections, answers the NOTIFYs, until nothing more
    /// comes.
    fn listen(&mut self) {
        self.world.run();
        let mut idle = false;
        while !std::mem::replace(&mut idle, true) {
            for script in 0..self.world.scripts.len() {
                if self.clients.contains(&script) {
                    continue;
                }
                let text = self.world.heard(script);
                idle &= text.is_empty();
                let answers = self.heard(&text);
                self.world.tell_script(script, answers.into_bytes());
            }
        }
    }

    /// Messages of one connection; what is answered.
    fn heard(&mut self, text: &str) -> String {
        let mut answers = String::new();
        let mut rest = text;
        while let Some((head, behind)) = rest.split_once("\r\n\r\n") {
            let length: usize = line(head, "Content-Length").parse().unwrap_or(0);
            let (body, behind) = behind.split_at(length);
            rest = behind;
            let message = format!("{head}\r\n\r\n{body}");
            if head.starts_with("NOTIFY ") {
                if !self.answer.is_empty() {
                    answers += &answer(head, self.answer);
                }
                self.notifies.push(message);
            } else if head.starts_with("SIP/2.0 ") {
                self.others.push(message);
            }
        }
        answers
    }

    fn client(&mut self, address: &str) -> usize {
        let client = self.world.client(0, address);
        self.clients.push(client);
        client
    }

    fn pass(&mut self, time: Duration) {
        self.world.pass(time);
        self.listen();
    }

    /// A SUBSCRIBE; what it is answered.
    fn subscribe(&mut self, call: &str, who: &str, to: &str, more: &str) -> String {
        let known = self.calls.get(call).cloned();
        let (tag, number) = known.unwrap_or_default();
        let number = number + 1;
        let to_tag = if tag.is_empty() { String::new() } else { format!(";tag={tag}") };
        let event = if more.contains("Event:") { "" } else { "Event: presence\r\n" };
        let text = format!(
            "SUBSCRIBE sip:{to} SIP/2.0\r\nVia: SIP/2.0/TCP a.example;branch=z9hG4bK{call}{number}\r\n\
             Max-Forwards: 70\r\nRecord-Route: <sip:edge.a.example;lr;x=A>;tag=q\r\n\
             From: \"A\"<sip:{who}>;epid=9;tag=f{call}\r\nTo: <sip:{to}>{to_tag}\r\nCall-ID: {call}\r\n\
             CSeq: {number} SUBSCRIBE\r\nContact: <sip:{who};opaque=user:epid:x;gruu>\r\n{event}{more}\
             Content-Length: 0\r\n\r\n"
        );
        self.others.clear();
        self.world.tell_script(self.partner, text.into_bytes());
        self.listen();
        let reply = self.others.pop().unwrap_or_default();
        let tag = line(&reply, "To").split_once(";tag=").map_or("", |it| it.1).to_owned();
        if reply.starts_with("SIP/2.0 2") || self.calls.contains_key(call) {
            self.calls.insert(call.to_owned(), (tag, number));
        }
        reply
    }

    /// alice watches bob in that call.
    fn watch(&mut self, call: &str) -> String {
        self.subscribe(call, "alice@a.example", "bob@b.example", "")
    }

    /// State and document of the only NOTIFY since.
    fn notify(&mut self) -> String {
        self.listen();
        assert!(self.notifies.len() <= 1, "{:#?}", self.notifies);
        self.notifies.pop().map_or_else(|| "nothing".to_owned(), |it| said(&it))
    }

    /// Denials are explicit from now on.
    fn explicit(&mut self) {
        let shards = self.world.shards.len() as u16;
        let rules = vec![("a.example", rule())];
        let mut explicit = settings(0, "b.example", shards, rules, Vec::new(), bare());
        explicit.domains[0].denial = Denial::Explicit;
        self.order(explicit);
    }

    fn order(&mut self, settings: Settings) {
        let settings = Arc::new(settings);
        self.world.order(0, || Order::Settings(Arc::clone(&settings)));
    }

    fn sum(&self, figure: impl Fn(&crate::shard::Shard) -> u64) -> u64 {
        self.world.sum(0, figure)
    }

    fn dialogs(&self) -> usize {
        self.sum(|it| it.sip.dialogs() as u64) as usize
    }

    fn says(&mut self, client: usize, stanza: &str) -> String {
        let heard = self.world.say(client, stanza);
        self.listen();
        heard
    }
}

fn line<'a>(text: &'a str, name: &str) -> &'a str {
    let lines = text.split("\r\n").filter_map(|it| it.split_once(": "));
    lines.filter(|it| it.0 == name).map(|it| it.1).next().unwrap_or_default()
}

fn answer(request: &str, status: &str) -> String {
    let names = ["Via: ", "From: ", "To: ", "Call-ID: ", "CSeq: "];
    let copied = request.split("\r\n").filter(|it| names.iter().any(|n| it.starts_with(n)));
    let copied: String = copied.map(|it| format!("{it}\r\n")).collect();
    format!("SIP/2.0 {status}\r\n{copied}Content-Length: 0\r\n\r\n")
}

/// `active open busy`: what a NOTIFY says.
fn said(notify: &str) -> String {
    let state = line(notify, "Subscription-State").replace(";expires=", " ");
    let state: String = state.split(' ').next().unwrap_or_default().to_owned();
    let (_, body) = notify.split_once("\r\n\r\n").unwrap();
    let between = |a: &str, b: &str| {
        body.split_once(a).and_then(|it| it.1.split_once(b)).map(|it| it.0.to_owned())
    };
    let mut words = vec![state];
    words.push(between("<basic>", "</basic>").unwrap_or_else(|| "empty".into()));
    words.extend(between("<ep:activity>", "</ep:activity>"));
    words.join(" ")
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn one_who_may_see_the_user_is_told_at_once_and_then_of_each_change() {
    for shards in [1, 2, 3] {
        let mut scene = Scene::new(shards);
        scene.subscribed(State::From);
        let bob = scene.client("bob@b.example/desk");
        scene.says(bob, "<presence/>");
        let reply = scene.watch("c1");
        assert!(reply.starts_with("SIP/2.0 200 OK\r\n"), "{reply}");
        assert_eq!(line(&reply, "Expires"), "7200");
        let routes: Vec<_> = reply.split("\r\n").filter(|it| it.starts_with("Record-")).collect();
        assert_eq!(
            routes,
            [
                "Record-Route: <sip:sip.b.example:5060;transport=tcp;lr>",
                "Record-Route: <sip:edge.a.example;lr;x=A>;tag=q"
            ]
        );
        let notify = scene.notifies[0].clone();
        assert!(notify.starts_with(
            "NOTIFY sip:alice@a.example;opaque=user:epid:x;gruu SIP/2.0\r\nVia: SIP/2.0/TCP "
        ));
        assert_eq!(line(&notify, "Route"), "<sip:edge.a.example;lr;x=A>;tag=q");
        assert_eq!(line(&notify, "To"), "\"A\"<sip:alice@a.example>;epid=9;tag=fc1");
        assert_eq!(line(&notify, "Event"), "presence");
        assert_eq!(line(&notify, "Subscription-State"), "active;expires=7200");
        assert_eq!(line(&notify, "Contact"), "<sip:sip.b.example:5060;transport=tcp>");
        assert_eq!(line(&notify, "CSeq"), "1 NOTIFY");
        assert_eq!(scene.notify(), "active open");
        // Held back for five seconds, and the newest wins.
        scene.says(bob, "<presence><show>away</show></presence>");
        scene.says(bob, "<presence><show>dnd</show></presence>");
        assert_eq!(scene.notify(), "nothing");
        scene.pass(6 * SECOND);
        assert_eq!(scene.notify(), "active open busy");
        // The same again is no news.
        scene.pass(6 * SECOND);
        scene.says(bob, "<presence><show>dnd</show></presence>");
        assert_eq!(scene.notify(), "nothing");
        scene.world.hang_up(bob);
        assert_eq!(scene.notify(), "active closed");
        // A refresh has the full state at once, and less time.
        let reply = scene.subscribe("c1", "alice@a.example", "bob@b.example", "Expires: 3600\r\n");
        assert_eq!(line(&reply, "Expires"), "3600");
        assert_eq!(scene.notify(), "active closed");
        let reply = scene.subscribe("c1", "alice@a.example", "bob@b.example", "Expires: 0\r\n");
        assert_eq!((&reply[..11], line(&reply, "Expires")), ("SIP/2.0 200", "0"));
        assert_eq!(scene.notify(), "terminated;reason=timeout closed");
        assert!(scene.world.store.dialogs.is_empty() && scene.dialogs() == 0);
        assert!(scene.watch("c1").starts_with("SIP/2.0 481 "));
        scene.world.at_rest(0);
    }
}

#[test]
fn what_is_not_understood_is_refused_and_counted() {
    let mut scene = Scene::new(2);
    scene.subscribed(State::From);
    let cases = [
        ("Event: conference\r\n", "489", "Allow-Events", "presence"),
        ("Event: presence.winfo\r\n", "489", "Allow-Events", "presence"),
        ("Accept: application/xpidf+xml\r\n", "406", "Accept", "application/pidf+xml"),
        ("Accept:\r\n", "406", "Accept", "application/pidf+xml"),
        ("Expires: 59\r\n", "423", "Min-Expires", "60"),
        ("Expires: -1\r\n", "400", "Expires", ""),
        ("Require: adhoclist, categoryList\r\n", "420", "Unsupported", "adhoclist, categoryList"),
    ];
    for (i, (more, status, name, value)) in cases.into_iter().enumerate() {
        let call = format!("c{i}");
        let reply = scene.subscribe(&call, "alice@a.example", "bob@b.example", more);
        assert!(reply.starts_with(&format!("SIP/2.0 {status} ")), "{more}: {reply}");
        assert_eq!(line(&reply, name), value, "{reply}");
    }
    assert_eq!(scene.sum(|it| it.counters.sip.watched_refused), 6);
    let accept = "Accept: application/msrtc-event-categories+xml, application/xpidf+xml, \
                  text/xml+msrtc.pidf, application/pidf+xml, application/rlmi+xml, multipart/related\r\n";
    for (call, more) in [("d1", accept), ("d2", "Accept: */*\r\n"), ("d3", "Expires: 60\r\n")] {
        let reply = scene.subscribe(call, "alice@a.example", "bob@b.example", more);
        assert!(reply.starts_with("SIP/2.0 200 "), "{reply}");
    }
    let reply = scene.subscribe("d4", "alice@a.example", "bob@b.example", "Expires: 29087\r\n");
    assert_eq!(line(&reply, "Expires"), "7200");
    let reply = scene.subscribe("d5", "alice@a.example", "nobody@b.example", "");
    assert!(reply.starts_with("SIP/2.0 404 "), "{reply}");
    // What the dialog does not know: another's tag, a number of before.
    scene.calls.insert("d1".into(), (scene.calls["d1"].0.clone(), 0));
    scene.calls.get_mut("d2").unwrap().1 = 4;
    scene.watch("d2");
    scene.calls.get_mut("d2").unwrap().1 = 2;
    assert!(scene.watch("d2").starts_with("SIP/2.0 500 "));
}

fn record(items: Vec<Item>, rules: Vec<(List, &str)>) -> Record {
    let rules = rules.into_iter().map(|(list, rule)| (list, address(rule))).collect();
    Record { items, rules, ..Record::default() }
}

#[test]
fn a_look_has_what_the_watcher_may_see_and_leaves_nothing() {
    for (state, told) in [(State::From, "open"), (State::None, "empty")] {
        let mut scene = Scene::new(2);
        scene.subscribed(state);
        let bob = scene.client("bob@b.example/desk");
        scene.says(bob, "<presence/>");
        scene.world.heard(bob);
        let reply = scene.subscribe("c1", "alice@a.example", "bob@b.example", "Expires: 0\r\n");
        assert_eq!((&reply[..11], line(&reply, "Expires")), ("SIP/2.0 200", "0"));
        assert_eq!(scene.notify(), format!("terminated;reason=timeout {told}"));
        assert_eq!(scene.world.heard(bob), "", "nobody is asked");
        assert!(scene.world.store.dialogs.is_empty() && scene.dialogs() == 0);
    }
}
