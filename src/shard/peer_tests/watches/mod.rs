//! Local users who watch SIP contacts, with a far end that the test speaks for: RFC 6665, 4.1 and
//! RFC 8048, 5, request by request.

mod failures;

use std::time::Duration;

use crate::policy::{
    Identity, Im, PeerAuth, Pidf, Profile, Protocol, Rule, Security, SipRule, Transport,
};
use crate::shard::Shard;
use crate::shard::kernel::{Event, Order, ShardId};
use crate::shard::peer_tests::world::{Node, World, address, bare, rule};
use crate::shard::sip::{Asker, Class, Failure, Heard, Txn};
use crate::stdx::Key;

const ALICE: &str = "alice@contoso.example";

/// A domain whose users watch contacts in contoso.example.
struct Scene {
    world: World,
    /// The next number of a NOTIFY.
    cseq: u32,
}

/// A SUBSCRIBE of ours.
struct Asked {
    key: Key,
    text: String,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        let lines = self.text.split("\r\n");
        lines.filter_map(|it| it.split_once(": ")).find(|it| it.0 == name).map_or("", |it| it.1)
    }

    fn expires(&self) -> u64 {
        self.header("Expires").parse().unwrap()
    }
}

fn sip(profile: Profile, rate: u32) -> Rule {
    let sip = SipRule {
        identity: Identity::Microsoft,
        names: Vec::new(),
        targets: Vec::new(),
        transport: Transport::Tls,
        rate,
        im: Im::Session,
        pidf: Pidf::Microsoft,
    };
    let plain = rule(PeerAuth::Both, Security::StartTls, &[]);
    Rule { protocol: Protocol::Sip(Box::new(sip)), profile, ..plain }
}

fn scene(profile: Profile) -> Scene {
    let mut world = World::new();
    world.add(Node {
        domain: "a.example",
        shards: 1,
        auth: PeerAuth::Dialback,
        security: Security::Optional,
        rules: vec![
            ("contoso.example", sip(profile, 20)),
            ("b.example", rule(PeerAuth::Both, Security::Optional, &[address(7)])),
        ],
        tls: bare(),
    });
    let mut scene = Scene { world, cseq: 0 };
    scene.shard().watch_script();
    scene
}

fn pidf(basic: &str, activity: &str) -> String {
    format!(
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' \
         xmlns:ep='urn:ietf:params:xml:ns:pidf:status:rpid-status' entity='sip:{ALICE}'>\
         <tuple id='0'><status><basic>{basic}</basic>{activity}</status></tuple></presence>"
    )
}

impl Scene {
    fn shard(&mut self) -> &mut Shard {
        &mut self.world.shards.get_mut(&(0, 0)).unwrap().0
    }

    /// A client that is available and knows the roster.
    fn client(&mut self, full: &str) -> usize {
        let client = self.world.client(0, full);
        let roster = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";
        self.world.say(client, roster);
        self.world.say(client, "<presence/>");
        client
    }

    /// All SUBSCRIBEs since the last look.
    fn all(&mut self) -> Vec<Asked> {
        self.world.run();
        let requests = std::mem::take(&mut self.shard().watch_script().requests);
        let text = |it: Vec<u8>| String::from_utf8(it).unwrap();
        requests.into_iter().map(|(key, out)| Asked { key, text: text(out.text) }).collect()
    }

    /// The one SUBSCRIBE since the last look.
    fn asked(&mut self) -> Asked {
        let mut all = self.all();
        assert_eq!(all.len(), 1, "{:?}", all.iter().map(|it| &it.text).collect::<Vec<_>>());
        all.remove(0)
    }

    fn none(&mut self) {
        assert_eq!(self.all().len(), 0);
    }

    /// Bob asks to see alice; what goes out.
    fn subscribe(&mut self, client: usize) -> Asked {
        self.world.say(client, &format!("<presence type='subscribe' to='{ALICE}'/>"));
        self.asked()
    }

    /// Bob sees alice, as available.
    fn established(&mut self, client: usize) -> Asked {
        let asked = self.subscribe(client);
        self.answer(&asked, "200 OK", "Expires: 3600\r\n", "");
        assert_eq!(self.notify(&asked, "active;expires=3600", &pidf("open", "")), [200]);
        self.world.heard(client);
        asked
    }

    fn answer(&mut self, asked: &Asked, status: &str, headers: &str, body: &str) {
        self.world.run();
        let to = asked.header("To");
        let tag = if to.contains("tag=") { "" } else { ";tag=e" };
        let text = format!(
            "SIP/2.0 {status}\r\nFrom: {}\r\nTo: {to}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n\
             Record-Route: <sip:edge.contoso.example:5061;transport=tls;lr;opaque=x>;y=Z\r\n\
             Record-Route: <sip:a.example:5061;transport=tls;lr>\r\n\
             Contact: <sip:{ALICE};opaque=user:epid:q;gruu>\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            asked.header("From"),
            asked.header("Call-ID"),
            asked.header("CSeq"),
            body.len(),
        );
        let asker = Asker::Watch(asked.key);
        self.shard().with_message(text.as_bytes(), |shard, message| {
            shard.sip_heard(asker, Heard::Response(message));
        });
        self.world.run();
    }

    fn fail(&mut self, asked: &Asked, failure: Failure) {
        self.world.run();
        self.shard().sip_heard(Asker::Watch(asked.key), Heard::Failed(failure));
        self.world.run();
    }

    /// A request in the dialog; the statuses of our answers.
    fn said(
        &mut self,
        asked: &Asked,
        method: &str,
        tag: &str,
        headers: &str,
        body: &str,
    ) -> Vec<u16> {
        self.cseq += 1;
        let text = format!(
            "{method} sip:a.example:5061 SIP/2.0\r\nFrom: <sip:{ALICE}>;epid=01;tag={tag}\r\nTo: {}\r\n\
             Call-ID: {}\r\nCSeq: {} {method}\r\nContact: <sip:{ALICE};gruu>\r\n{headers}\
             Content-Length: {}\r\n\r\n{body}",
            asked.header("From"),
            asked.header("Call-ID"),
            self.cseq,
            body.len(),
        );
        let txn = Txn { shard: ShardId(0), key: 1 };
        self.shard().sip_request_came(txn, "contoso.example", text.as_bytes());
        self.world.run();
        std::mem::take(&mut self.shard().watch_script().answers)
    }

    fn notify(&mut self, asked: &Asked, state: &str, body: &str) -> Vec<u16> {
        let mut headers = format!("Event: presence\r\nSubscription-State: {state}\r\n");
        if !body.is_empty() {
            headers += "Content-Type: application/pidf+xml\r\n";
        }
        self.said(asked, "NOTIFY", "e", &headers, body)
    }

    fn pass(&mut self, seconds: u64) {
        self.world.now = self.world.now + Duration::from_secs(seconds);
        self.world.run();
        // A pause that is over now may have set the next.
        self.world.now = self.world.now + Duration::from_millis(20);
        self.world.run();
    }
}

#[test]
fn pending_then_allowed() {
    let mut scene = scene(Profile::Lync);
    let bob = scene.client("bob@a.example/1");
    let asked = scene.subscribe(bob);
    let text = &asked.text;
    assert!(text.starts_with(&format!("SUBSCRIBE sip:{ALICE} SIP/2.0\r\n")), "{text}");
    assert!(!text.contains("Via:") && !text.contains("Supported"), "{text}");
    for (name, value) in [
        ("Record-Route", "<sip:a.example:5061;transport=tls;lr>"),
        ("Max-Forwards", "70"),
        ("To", "<sip:alice@contoso.example>"),
        ("CSeq", "1 SUBSCRIBE"),
        ("Contact", "<sip:a.example:5061;transport=tls>"),
        ("Event", "presence"),
        ("Accept", "application/pidf+xml"),
        ("Allow-Events", "presence"),
        ("Content-Length", "0"),
    ] {
        assert_eq!(asked.header(name), value, "{text}");
    }
    assert!(asked.header("From").starts_with("<sip:bob@a.example>;tag=t1."), "{text}");
    assert!((7_200..=7_800).contains(&asked.expires()));
    scene.world.heard(bob);
    scene.answer(&asked, "202 Accepted", "Expires: 7300\r\n", "");
    assert_eq!(scene.notify(&asked, "pending;expires=7300", ""), [200]);
    assert_eq!(scene.world.heard(bob), "");
    assert_eq!(scene.world.dialogs.len(), 1);
    let busy = "<ep:activities><ep:activity>busy</ep:activity></ep:activities>";
    assert_eq!(scene.notify(&asked, "active;expires=7200", &pidf("open", busy)), [200]);
    let heard = scene.world.heard(bob);
    let granted = heard.find("type='subscribed'").expect("it is granted");
    let shown = heard.find("<show>away</show><status>Busy</status>").expect("it is shown");
    assert!(granted < shown && heard.contains("subscription='to'"), "{heard}");
    assert_eq!(scene.notify(&asked, "active;expires=7100", &pidf("closed", "")), [200]);
    let heard = scene.world.heard(bob);
    assert!(heard.contains("type='unavailable'") && !heard.contains("subscribed"), "{heard}");
    // Without a document nothing is said.
    assert_eq!(scene.notify(&asked, "active;expires=7000", ""), [200]);
    assert_eq!(scene.world.heard(bob), "");
    scene.none();
    scene.world.balanced();
}

#[test]
fn a_notify_may_come_first_and_second_forks_are_nobodys() {
    let mut scene = scene(Profile::Xmpp);
    let bob = scene.client("bob@a.example/1");
    let asked = scene.subscribe(bob);
    assert_eq!(asked.expires(), 3_600);
    assert_eq!(scene.notify(&asked, "active;expires=3600", &pidf("open", "")), [200]);
    assert!(scene.world.heard(bob).contains("type='subscribed'"));
    let active = "Event: presence\r\nSubscription-State: active\r\n";
    assert_eq!(scene.said(&asked, "NOTIFY", "other", active, ""), [481]);
    scene.answer(&asked, "200 OK", "Expires: 3600\r\n", "");
    assert_eq!(scene.notify(&asked, "active;expires=3600", &pidf("closed", "")), [200]);
    // What is wrong with others.
    let other = Asked { key: asked.key, text: asked.text.replace("tag=t1.", "tag=t1.0") };
    assert_eq!(scene.notify(&other, "active", ""), [481]);
    assert_eq!(scene.said(&asked, "NOTIFY", "e", "Subscription-State: active\r\n", ""), [489]);
    let winfo = "Event: presence.winfo\r\nSubscription-State: active\r\n";
    assert_eq!(scene.said(&asked, "NOTIFY", "e", winfo, ""), [489]);
    assert_eq!(scene.said(&asked, "NOTIFY", "e", "Event: presence\r\n", ""), [400]);
    assert_eq!(scene.notify(&asked, "active", "<presence"), [400]);
    let typed = format!("{active}Content-Type: text/plain\r\n");
    assert_eq!(scene.said(&asked, "NOTIFY", "e", &typed, "hi"), [415]);
    assert_eq!(scene.shard().counters.sip.documents_refused, 2);
    // A BENOTIFY is never answered, but heard.
    scene.world.heard(bob);
    assert_eq!(scene.said(&asked, "BENOTIFY", "other", active, ""), [0_u16; 0]);
    let typed = format!("{active}Content-Type: text/xml+msrtc.pidf\r\n");
    let msrtc = "<presentity uri='alice@contoso.example'><availability aggregate='300' epid='1'/>\
         <activity aggregate='600'/></presentity>";
    assert_eq!(scene.said(&asked, "BENOTIFY", "e", &typed, msrtc), [0_u16; 0]);
    assert!(scene.world.heard(bob).contains("<presence from='alice@contoso.example'"));
}

#[test]
fn the_first_notify_may_be_in_the_200() {
    let mut scene = scene(Profile::Lync);
    let bob = scene.client("bob@a.example/1");
    let asked = scene.subscribe(bob);
    let headers = "Event: presence\r\nsubscription-state: active;expires=29087\r\nExpires: 29087\r\n\
         ms-piggyback-cseq: 1\r\nContent-Type: application/pidf+xml\r\n";
    scene.answer(&asked, "200 OK", headers, &pidf("open", ""));
    let heard = scene.world.heard(bob);
    assert!(heard.contains("type='subscribed'") && heard.contains("from='alice@"), "{heard}");
    // Nothing is missed: no timer N.
    scene.pass(24_000);
    scene.none();
    scene.pass(2_200);
    assert_eq!(scene.asked().header("CSeq"), "2 SUBSCRIBE");
}

#[test]
fn unsubscribing_ends_the_dialog() {
    let mut scene = scene(Profile::Lync);
    let bob = scene.client("bob@a.example/1");
    let asked = scene.established(bob);
    let unsubscribe = format!("<presence type='unsubscribe' to='{ALICE}'/>");
    scene.world.say(bob, &unsubscribe);
    let end = scene.asked();
    assert_eq!((end.expires(), end.header("CSeq")), (0, "2 SUBSCRIBE"));
    assert_eq!(end.header("Call-ID"), asked.header("Call-ID"));
    scene.answer(&end, "200 OK", "Expires: 0\r\n", "");
    assert_eq!(scene.notify(&asked, "terminated;reason=timeout", &pidf("open", "")), [200]);
    assert_eq!(scene.notify(&asked, "terminated;reason=timeout", ""), [481]);
    let heard = scene.world.heard(bob);
    assert!(!heard.contains("<presence"), "{heard}");
    assert_eq!(scene.world.dialogs.len(), 0);
    // Before the dialog stands.
    let asked = scene.subscribe(bob);
    scene.world.say(bob, &unsubscribe);
    scene.none();
    scene.answer(&asked, "200 OK", "Expires: 7200\r\n", "");
    let end = scene.asked();
    assert_eq!((end.expires(), end.header("CSeq")), (0, "2 SUBSCRIBE"));
    // He changes his mind: a dialog of its own.
    let again = scene.subscribe(bob);
    assert_ne!(again.header("Call-ID"), asked.header("Call-ID"));
    scene.answer(&end, "200 OK", "Expires: 0\r\n", "");
    scene.answer(&again, "200 OK", "Expires: 7200\r\n", "");
    scene.cseq = 0;
    scene.notify(&again, "active;expires=7200", &pidf("open", ""));
    assert!(scene.world.heard(bob).contains("type='subscribed'"));
    scene.world.balanced();
}

#[test]
fn a_login_sees_what_was_last_seen() {
    let mut scene = scene(Profile::Lync);
    let bob = scene.client("bob@a.example/1");
    scene.established(bob);
    let second = scene.world.client(0, "bob@a.example/2");
    // `client` puts an empty record in the place of the old one.
    scene.world.say(bob, &format!("<presence type='subscribe' to='{ALICE}'/>"));
    scene.world.heard(second);
    scene.none();
    let heard = scene.world.say(second, "<presence/>");
    let shown = "<presence from='alice@contoso.example' to='bob@a.example/2'>";
    assert!(heard.contains(shown), "{heard}");
    assert!(!scene.world.heard(bob).contains("to='bob@a.example/2'"));
    scene.none();
    // After a while it is asked for anew, too.
    scene.pass(700);
    scene.world.say(second, "<presence type='unavailable'/>");
    let heard = scene.world.say(second, "<presence/>");
    assert!(heard.contains(shown), "{heard}");
    scene.pass(1);
    assert_eq!(scene.asked().header("CSeq"), "2 SUBSCRIBE");
}

#[test]
fn a_probe_without_a_subscription_asks_once() {
    let mut scene = scene(Profile::Lync);
    let bob = scene.client("bob@a.example/1");
    scene.world.say(bob, &format!("<presence type='probe' to='{ALICE}'/>"));
    let asked = scene.asked();
    assert_eq!((asked.expires(), asked.header("CSeq")), (0, "1 SUBSCRIBE"));
    scene.answer(&asked, "200 OK", "Expires: 0\r\n", "");
    assert_eq!(scene.notify(&asked, "terminated;reason=timeout", &pidf("open", "")), [200]);
    let heard = scene.world.heard(bob);
    assert!(heard.contains("<presence from='alice@contoso.example'"), "{heard}");
    assert!(!heard.contains("subscribed"), "{heard}");
    assert_eq!(scene.notify(&asked, "active", ""), [481]);
    scene.pass(100);
    scene.none();
    scene.world.balanced();
}

#[test]
fn each_user_has_a_dialog_of_his_own() {
    let mut scene = scene(Profile::Lync);
    let (bob, eve) = (scene.client("bob@a.example/1"), scene.client("eve@a.example/1"));
    let (first, second) = (scene.subscribe(bob), scene.subscribe(eve));
    assert_ne!(first.header("Call-ID"), second.header("Call-ID"));
    for asked in [&first, &second] {
        scene.answer(asked, "200 OK", "Expires: 7200\r\n", "");
    }
    scene.world.heard(eve);
    scene.notify(&first, "active;expires=7200", &pidf("open", ""));
    assert!(scene.world.heard(bob).contains("type='subscribed'"));
    assert_eq!(scene.world.heard(eve), "");
}

#[test]
fn who_is_blocked_is_not_shown() {
    let mut scene = scene(Profile::Lync);
    let bob = scene.client("bob@a.example/1");
    let asked = scene.established(bob);
    let block = format!(
        "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='{ALICE}'/></block></iq>"
    );
    scene.world.say(bob, &block);
    scene.world.heard(bob);
    assert_eq!(scene.notify(&asked, "active;expires=7200", &pidf("closed", "")), [200]);
    assert_eq!(scene.world.heard(bob), "");
    assert_eq!(scene.shard().counters.blocked_in, 1);
}

#[test]
fn a_removed_user_watches_nobody() {
    let mut scene = scene(Profile::Lync);
    let bob = scene.client("nobody@a.example/1");
    scene.established(bob);
    let user = crate::address::Address::parse("nobody@a.example").unwrap();
    scene.world.event((0, 0), Event::Ordered(Order::Kick { user }));
    scene.world.run();
    scene.pass(7);
    assert_eq!(scene.asked().expires(), 0);
}

#[test]
fn dialogs_of_before_a_restart_are_refreshed_and_nobody_flaps() {
    let mut old = scene(Profile::Lync);
    let bob = old.client("bob@a.example/1");
    let first = old.established(bob);
    let rows = std::mem::take(&mut old.world.dialogs);
    assert_eq!(rows.len(), 1);

    let mut scene = scene(Profile::Lync);
    let mut row = rows.into_values().next().unwrap();
    scene.world.dialogs.insert(row.key.clone(), row.clone());
    scene.world.run();
    scene.shard().watch_restored(&row);
    let bob = scene.client("bob@a.example/1");
    // The roster of this world's users is empty after a restart.
    let heard = scene.world.say(bob, &format!("<presence type='subscribe' to='{ALICE}'/>"));
    assert!(!heard.contains("unavailable"), "{heard}");
    scene.pass(3);
    let refresh = scene.asked();
    assert_eq!(refresh.header("Call-ID"), first.header("Call-ID"));
    assert_eq!(refresh.header("CSeq"), "1001 SUBSCRIBE");
    assert_eq!(refresh.header("To"), "<sip:alice@contoso.example>;tag=e");
    scene.cseq = old.cseq;
    assert_eq!(scene.notify(&first, "active;expires=7000", &pidf("open", "")), [200]);
    let heard = scene.world.heard(bob);
    assert!(heard.contains("<presence from='alice@contoso.example'"), "{heard}");
    scene.answer(&refresh, "200 OK", "Expires: 7000\r\n", "");
    // The pair is there: a second row is one too many. One that can't be read is as well.
    row.key = "x y".into();
    scene.shard().watch_restored(&row);
    row.data = Box::from(&b"\x09rubbish"[..]);
    scene.shard().watch_restored(&row);
    assert_eq!(scene.shard().counters.sip.watches_unrestored, 2);
    scene.none();
}

#[test]
fn requests_say_which_budget_they_are_on() {
    let mut scene = scene(Profile::Lync);
    let bob = scene.client("bob@a.example/1");
    scene.world.say(bob, &format!("<presence type='subscribe' to='{ALICE}'/>"));
    let class =
        |scene: &mut Scene| scene.shard().watch_script().requests.first().map(|it| it.1.class);
    assert_eq!(class(&mut scene), Some(Class::New));
    let asked = scene.asked();
    scene.answer(&asked, "200 OK", "Expires: 3600\r\n", "");
    scene.notify(&asked, "active;expires=3600", "");
    scene.pass(3_240);
    assert_eq!(class(&mut scene), Some(Class::InDialog));
}
