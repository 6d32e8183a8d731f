//! SIP watchers of local users, as conversations with a partner over TCP.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::address::Address;
use crate::home::record::{Item, List, Record};
use crate::home::subscription::{Denial, State};
use crate::limits::{RESTORE_UNKNOWN_TIME, WATCHED_PENDING_TIME_MAX};
use crate::policy::{Identity, Rule, Transport};
use crate::shard::kernel::Order;
use crate::shard::peer_tests::world::bare;
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
        self.notifies.pop().map_or("nothing".into(), |it| said(&it))
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

#[test]
fn one_on_whom_nothing_is_decided_waits_and_the_user_is_asked_once() {
    let mut scene = Scene::new(2);
    let bob = scene.client("bob@b.example/desk");
    scene.says(bob, "<presence/>");
    scene.world.heard(bob);
    assert!(scene.watch("c1").starts_with("SIP/2.0 200 "));
    assert_eq!(scene.notify(), "pending empty");
    let heard = scene.world.heard(bob);
    assert_eq!(heard.matches("type='subscribe'").count(), 1, "{heard}");
    assert!(heard.contains("from='alice@a.example'"), "{heard}");
    scene.watch("c1");
    scene.watch("c2");
    assert_eq!(scene.notifies.len(), 2);
    scene.notifies.clear();
    assert_eq!(scene.world.heard(bob), "");
    // Yes: both dialogs are told, and it is kept.
    scene.says(bob, "<presence type='subscribed' to='alice@a.example'/>");
    let told: Vec<_> = scene.notifies.drain(..).map(|it| said(&it)).collect();
    assert_eq!(told, ["active open", "active open"]);
    let items = &scene.world.store.records[&(0, "bob@b.example".to_owned())].items;
    assert_eq!(items[0].state, State::From);
    scene.watch("c3");
    assert_eq!(scene.notify(), "active open");
}

/// The rows of the authorisation rules: what a new SUBSCRIBE is answered, what the NOTIFY says, and
/// whether the user's client hears of it.
#[test]
fn the_eleven_rows_of_who_may_see_a_user() {
    let alice = "alice@a.example";
    let with = |state| vec![item(alice, state)];
    let rows: Vec<(&str, Record, Denial, &str, &str, &str)> = vec![
        ("3 none", record(vec![], vec![]), Denial::Polite, "200", "pending empty", "subscribe"),
        (
            "3 to",
            record(with(State::To), vec![]),
            Denial::Polite,
            "200",
            "pending empty",
            "subscribe",
        ),
        (
            "4 pending in",
            record(with(State::NoneIn), vec![]),
            Denial::Polite,
            "200",
            "pending empty",
            "",
        ),
        ("5 from", record(with(State::From), vec![]), Denial::Polite, "200", "active open", ""),
        ("5 both", record(with(State::Both), vec![]), Denial::Polite, "200", "active open", ""),
        (
            "6 pre-approved",
            record(vec![Item { approved: true, ..item(alice, State::To) }], vec![]),
            Denial::Polite,
            "200",
            "active open",
            "push",
        ),
        (
            "7 explicit",
            record(vec![], vec![(List::Denied, alice)]),
            Denial::Explicit,
            "403",
            "nothing",
            "",
        ),
        (
            "8 polite",
            record(vec![], vec![(List::Denied, alice)]),
            Denial::Polite,
            "200",
            "active closed",
            "",
        ),
        (
            "9 blocked, was from",
            record(with(State::From), vec![(List::Blocked, alice)]),
            Denial::Polite,
            "200",
            "active closed",
            "",
        ),
        (
            "10 domain blocked",
            record(vec![], vec![(List::Blocked, "a.example")]),
            Denial::Polite,
            "200",
            "active closed",
            "",
        ),
        (
            "11 allowed",
            record(vec![], vec![(List::Allowed, "a.example")]),
            Denial::Polite,
            "200",
            "active open",
            "push",
        ),
    ];
    for (name, record, denial, status, told, client) in rows {
        let mut scene = Scene::new(1);
        scene.record("bob@b.example", record);
        if denial == Denial::Explicit {
            let mut settings =
                settings(0, "b.example", 1, vec![("a.example", rule())], Vec::new(), bare());
            settings.domains[0].denial = denial;
            let settings = std::sync::Arc::new(settings);
            scene.world.order(0, || Order::Settings(settings.clone()));
        }
        let bob = scene.client("bob@b.example/desk");
        scene.says(bob, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
        scene.says(bob, "<presence/>");
        scene.world.heard(bob);
        let reply = scene.watch("c1");
        assert!(reply.starts_with(&format!("SIP/2.0 {status} ")), "{name}: {reply}");
        assert_eq!(scene.notify(), told, "{name}");
        let heard = scene.world.heard(bob);
        let heard = match heard {
            heard if heard.contains("type='subscribe'") => "subscribe",
            heard if heard.contains("jabber:iq:roster") => "push",
            heard => heard.leak(),
        };
        assert_eq!(heard, client, "{name}");
        if client == "push" {
            let items = &scene.world.store.records[&(0, "bob@b.example".to_owned())].items;
            assert!(items[0].state.has_from(), "{name}");
        }
    }
}

fn record(items: Vec<Item>, rules: Vec<(List, &str)>) -> Record {
    let rules = rules.into_iter().map(|(list, rule)| (list, address(rule))).collect();
    Record { items, rules, ..Record::default() }
}

#[test]
fn a_denied_and_a_blocked_watcher_hear_what_one_of_an_offline_user_hears() {
    // Octets and timing of three conversations: of a user who is offline, one who says no, one who
    // blocks; the latter two are online all the time.
    let mut heard = Vec::new();
    for case in ["offline", "denies", "blocks"] {
        let mut scene = Scene::new(1);
        let mut told = Vec::new();
        if case == "offline" {
            scene.subscribed(State::From);
        } else {
            let list = if case == "denies" { List::Denied } else { List::Blocked };
            scene.record("bob@b.example", record(vec![], vec![(list, "alice@a.example")]));
            let bob = scene.client("bob@b.example/desk");
            scene.says(bob, "<presence><status>here</status></presence>");
        }
        let mut replies = vec![scene.watch("c1")];
        for _ in 0..3 {
            scene.pass(60 * SECOND);
            told.push(scene.notifies.len());
            replies.push(scene.watch("c1"));
        }
        replies.push(scene.subscribe("c2", "alice@a.example", "bob@b.example", "Expires: 0\r\n"));
        scene.pass(7_300 * SECOND);
        let drop_tags = |text: &String| {
            let keep =
                |it: &&str| !["Via: ", "To: ", "From: "].iter().any(|name| it.starts_with(name));
            text.split("\r\n").filter(keep).collect::<Vec<_>>().join("\n")
        };
        let texts: Vec<_> = replies.iter().chain(&scene.notifies).map(drop_tags).collect();
        heard.push((texts, told));
    }
    assert_eq!(heard[0], heard[1]);
    assert_eq!(heard[0], heard[2]);
    let (texts, _) = &heard[0];
    assert!(texts.iter().any(|it| it.contains("terminated;reason=timeout")), "{texts:#?}");
}

#[test]
fn a_user_who_blocks_goes_once_and_comes_back_when_he_blocks_no_longer() {
    for rule in ["alice@a.example", "a.example"] {
        let mut scene = Scene::new(2);
        scene.subscribed(State::Both);
        let bob = scene.client("bob@b.example/desk");
        scene.says(bob, "<presence/>");
        scene.watch("c1");
        assert_eq!(scene.notify(), "active open");
        scene.pass(6 * SECOND);
        let block = |verb: &str| {
            format!(
                "<iq type='set' id='b'><{verb} xmlns='urn:xmpp:blocking'><item jid='{rule}'/></{verb}></iq>"
            )
        };
        scene.says(bob, &block("block"));
        assert_eq!(scene.notify(), "active closed");
        scene.says(bob, "<presence><show>away</show></presence>");
        scene.pass(10 * SECOND);
        assert_eq!(scene.notify(), "nothing");
        scene.watch("c1");
        assert_eq!(scene.notify(), "active closed");
        scene.pass(10 * SECOND);
        scene.says(bob, &block("unblock"));
        assert_eq!(scene.notify(), "active open away");
    }
    // One who waits for a decision learns nothing but that the user is offline.
    let mut scene = Scene::new(1);
    let bob = scene.client("bob@b.example/desk");
    scene.says(bob, "<presence/>");
    scene.watch("c1");
    assert_eq!(scene.notify(), "pending empty");
    scene.says(bob, "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='a.example'/></block></iq>");
    assert_eq!(scene.notify(), "active closed");
    scene.says(bob, "<iq type='set' id='b'><unblock xmlns='urn:xmpp:blocking'/></iq>");
    scene.pass(10 * SECOND);
    assert_eq!(scene.notify(), "nothing");
    scene.watch("c1");
    assert_eq!(scene.notify(), "pending empty");
}

#[test]
fn an_explicit_no_ends_it_and_is_remembered_until_a_yes() {
    let mut scene = Scene::new(1);
    let mut explicit = settings(0, "b.example", 1, vec![("a.example", rule())], Vec::new(), bare());
    explicit.domains[0].denial = Denial::Explicit;
    let explicit = std::sync::Arc::new(explicit);
    scene.world.order(0, || Order::Settings(explicit.clone()));
    let bob = scene.client("bob@b.example/desk");
    scene.says(bob, "<presence/>");
    scene.watch("c1");
    assert_eq!(scene.notify(), "pending empty");
    scene.says(bob, "<presence type='unsubscribed' to='alice@a.example'/>");
    assert_eq!(scene.notify(), "terminated;reason=rejected empty");
    scene.world.heard(bob);
    assert!(scene.watch("c2").starts_with("SIP/2.0 403 "));
    assert_eq!(scene.notify(), "nothing");
    assert_eq!(scene.world.heard(bob), "");
    scene.says(bob, "<presence type='subscribed' to='alice@a.example'/>");
    assert!(scene.watch("c3").starts_with("SIP/2.0 200 "));
    assert_eq!(scene.notify(), "active open");
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

#[test]
fn answers_to_a_notify_end_the_dialog_or_make_it_wait() {
    for status in [404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604] {
        let mut scene = Scene::new(1);
        scene.subscribed(State::From);
        scene.answer = format!("{status} No").leak();
        scene.watch("c1");
        assert_eq!((scene.dialogs(), scene.world.store.dialogs.len()), (0, 0), "{status}");
    }
    let mut scene = Scene::new(1);
    scene.subscribed(State::From);
    scene.answer = "500 No\r\nRetry-After: 50";
    scene.watch("c1");
    assert_eq!(scene.notifies.len(), 1);
    scene.answer = "403 No";
    scene.pass(49 * SECOND);
    assert_eq!(scene.notifies.len(), 1);
    scene.pass(2 * SECOND);
    assert_eq!(scene.notifies.len(), 2, "as it was asked for");
    scene.answer = "200 OK";
    scene.pass(59 * SECOND);
    assert_eq!(scene.notifies.len(), 2);
    scene.pass(2 * SECOND);
    assert_eq!(scene.notifies.len(), 3, "twice as long as the first pause of ours");
    scene.pass(1_000 * SECOND);
    assert_eq!((scene.notifies.len(), scene.dialogs()), (3, 1));
    // Nobody answers at all.
    scene.answer = "";
    scene.dial();
    assert!(scene.watch("c1").starts_with("SIP/2.0 200 "));
    scene.pass(130 * SECOND);
    assert_eq!((scene.dialogs(), scene.world.store.dialogs.len()), (0, 0));
}

#[test]
fn nobody_refreshes_it_and_it_is_over() {
    let mut scene = Scene::new(1);
    scene.subscribed(State::From);
    scene.subscribe("c1", "alice@a.example", "bob@b.example", "Expires: 600\r\n");
    assert_eq!(scene.notify(), "active closed");
    scene.pass(599 * SECOND);
    assert_eq!(scene.notify(), "nothing");
    scene.pass(2 * SECOND);
    assert_eq!(scene.notify(), "terminated;reason=timeout closed");
    assert_eq!((scene.dialogs(), scene.world.store.dialogs.len()), (0, 0));
}

#[test]
fn the_ninth_dialog_of_a_pair_takes_the_place_of_the_first() {
    let mut scene = Scene::new(1);
    scene.subscribed(State::From);
    for i in 0..8 {
        scene.watch(&format!("c{i}"));
    }
    assert_eq!(scene.notifies.drain(..).filter(|it| said(it) == "active closed").count(), 8);
    scene.watch("c8");
    let told: Vec<_> = scene.notifies.drain(..).map(|it| said(&it)).collect();
    assert_eq!(told, ["terminated;reason=giveup;retry-after=3600 empty", "active closed"]);
    assert_eq!((scene.dialogs(), scene.world.store.dialogs.len()), (8, 8));
    assert!(scene.watch("c0").starts_with("SIP/2.0 481 "));
}

#[test]
fn too_many_or_too_long_pending_is_given_up() {
    let mut scene = Scene::new(1);
    for i in 0..26 {
        scene.subscribe(&format!("c{i}"), &format!("u{i}@a.example"), "bob@b.example", "");
    }
    let told: Vec<_> = scene.notifies.drain(..).map(|it| said(&it)).collect();
    assert_eq!(told.iter().filter(|it| *it == "pending empty").count(), 25);
    assert_eq!(told[25], "terminated;reason=giveup;retry-after=3600 empty");
    let mut scene = Scene::new(1);
    scene.watch("c1");
    assert_eq!(scene.notify(), "pending empty");
    // Refreshed all the time.
    let mut told = Vec::new();
    for _ in 0..=WATCHED_PENDING_TIME_MAX.as_secs() / 6_000 {
        scene.world.now = scene.world.now + 6_000 * SECOND;
        scene.watch("c1");
        told.extend(scene.notifies.drain(..).map(|it| said(&it)));
    }
    let last = "terminated;reason=giveup;retry-after=3600 empty";
    assert!(told.iter().any(|it| it == last), "{told:?}");
}

#[test]
fn watchers_of_a_removed_user_and_of_a_removed_rule_hear_it() {
    let mut scene = Scene::new(2);
    scene.subscribed(State::From);
    scene.watch("c1");
    assert_eq!(scene.notify(), "active closed");
    let settings = std::sync::Arc::new(settings(0, "b.example", 2, Vec::new(), Vec::new(), bare()));
    scene.world.order(0, || Order::Settings(settings.clone()));
    assert_eq!(scene.notify(), "terminated;reason=rejected empty");
    assert_eq!((scene.dialogs(), scene.world.store.dialogs.len()), (0, 0));
}

#[test]
fn presence_sent_to_a_watcher_alone_is_in_his_document_alone() {
    let mut scene = Scene::new(1);
    scene.record(
        "bob@b.example",
        record(
            vec![item("alice@a.example", State::From), item("anna@a.example", State::From)],
            vec![],
        ),
    );
    let bob = scene.client("bob@b.example/desk");
    scene.says(bob, "<presence/>");
    scene.watch("c1");
    scene.subscribe("c2", "anna@a.example", "bob@b.example", "");
    scene.notifies.clear();
    scene.pass(6 * SECOND);
    scene.says(bob, "<presence to='alice@a.example'><show>dnd</show></presence>");
    let notify = scene.notifies.pop().unwrap();
    assert_eq!((line(&notify, "Call-ID"), &*said(&notify)), ("c1", "active open busy"));
    assert!(scene.notifies.is_empty());
    scene.pass(6 * SECOND);
    scene.says(bob, "<presence type='unavailable' to='alice@a.example'/>");
    assert_eq!(scene.notify(), "active closed");
    scene.pass(6 * SECOND);
    // To all again.
    scene.says(bob, "<presence><show>away</show></presence>");
    let told: Vec<_> = scene.notifies.drain(..).map(|it| said(&it)).collect();
    assert_eq!(told, ["active open away", "active open away"]);
}

#[test]
fn nothing_is_answered_before_it_is_kept() {
    let mut scene = Scene::new(1);
    scene.subscribed(State::From);
    scene.client("bob@b.example/desk");
    scene.world.store.fails = true;
    assert!(scene.watch("c1").starts_with("SIP/2.0 500 "));
    assert_eq!(scene.notify(), "nothing");
    assert_eq!(scene.dialogs(), 0);
    scene.world.store.fails = false;
    assert!(scene.watch("c2").starts_with("SIP/2.0 200 "));
    scene.notifies.clear();
    scene.world.store.fails = true;
    let reply = scene.watch("c2");
    assert!(reply.starts_with("SIP/2.0 500 ") && line(&reply, "Retry-After") == "5", "{reply}");
    assert_eq!(scene.dialogs(), 1, "it goes on as it was");
    scene.world.store.fails = false;
    // The number was used by the one that failed.
    assert!(scene.watch("c2").starts_with("SIP/2.0 200 "));
}

#[test]
fn after_a_restart_each_watcher_hears_the_truth_and_nobody_flaps() {
    for shards in [1, 3] {
        let mut scene = Scene::new(shards);
        let watched = |state| record(vec![item("alice@a.example", state)], vec![]);
        scene.record("bob@b.example", watched(State::From));
        scene.record("carl@b.example", watched(State::From));
        scene.record("dora@b.example", record(vec![], vec![(List::Denied, "alice@a.example")]));
        let bob = scene.client("bob@b.example/desk");
        scene.says(bob, "<presence/>");
        for user in ["bob", "carl", "dora", "eve"] {
            scene.subscribe(user, "alice@a.example", &format!("{user}@b.example"), "");
        }
        assert_eq!(scene.notifies.drain(..).count(), 4);
        scene.world.restart(0);
        // A refresh comes before the dialogs are loaded.
        scene.world.store.fails = true;
        scene.dial();
        assert_eq!(scene.subscribe("bob", "alice@a.example", "bob@b.example", ""), "");
        scene.world.store.fails = false;
        scene.pass(2 * SECOND);
        let reply = scene.others.pop().unwrap();
        assert!(reply.starts_with("SIP/2.0 200 "), "{reply}");
        assert_eq!(scene.sum(|it| it.counters.sip.watched_restored), 4);
        let notify = scene.notifies.pop().unwrap();
        assert_eq!(said(&notify), "active empty", "nothing is known of him");
        assert_eq!(line(&notify, "CSeq"), "1001 NOTIFY");
        assert!(scene.notifies.is_empty());
        let number = |name: &str, scene: &Scene| scene.calls[name].1;
        let next = number("bob", &scene) + 1;
        scene.calls.get_mut("bob").unwrap().1 = next;
        scene.calls.get_mut("bob").unwrap().0 =
            line(&reply, "To").split_once(";tag=").unwrap().1.to_owned();
        // A client comes back; his watcher hears it at once.
        scene.pass(10 * SECOND);
        assert_eq!(scene.notify(), "nothing");
        let bob = scene.client("bob@b.example/desk");
        scene.says(bob, "<presence><show>dnd</show></presence>");
        assert_eq!(scene.notify(), "active open busy");
        scene.pass(RESTORE_UNKNOWN_TIME - 15 * SECOND);
        assert_eq!(scene.notify(), "nothing");
        scene.pass(5 * SECOND);
        let mut told: Vec<_> = scene
            .notifies
            .drain(..)
            .map(|it| (line(&it, "Call-ID").to_owned(), said(&it)))
            .collect();
        told.sort();
        let expected =
            [("carl", "active closed"), ("dora", "active closed"), ("eve", "pending empty")];
        assert_eq!(told, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        // All goes on as before.
        scene.subscribe("carl", "alice@a.example", "carl@b.example", "");
        assert_eq!(scene.notify(), "active closed");
        scene.world.at_rest(0);
    }
}

#[test]
fn ten_thousand_watchers_hear_the_truth_within_seconds() {
    let mut scene = Scene::new(2);
    let users = 100;
    for user in 0..users {
        let items = (0..100).map(|i| item(&format!("w{i}@a.example"), State::From)).collect();
        scene.record(&format!("u{user}@b.example"), Record { items, ..Record::default() });
    }
    for user in 0..users {
        for i in 0..100 {
            let (call, who) = (format!("c{user}.{i}"), format!("w{i}@a.example"));
            scene.subscribe(&call, &who, &format!("u{user}@b.example"), "");
        }
    }
    assert_eq!((scene.notifies.len(), scene.world.store.dialogs.len()), (10_000, 10_000));
    scene.notifies.clear();
    scene.world.restart(0);
    scene.dial();
    scene.pass(RESTORE_UNKNOWN_TIME - SECOND);
    assert_eq!(scene.notifies.len(), 0);
    scene.pass(2 * SECOND);
    assert_eq!(scene.notifies.len(), 10_000);
    assert!(scene.notifies.iter().all(|it| said(it) == "active closed"));
    assert_eq!(scene.sum(|it| it.counters.sip.watched_failed), 0);
    scene.world.at_rest(0);
}
