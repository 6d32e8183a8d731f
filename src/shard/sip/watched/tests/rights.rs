//! Who may see a user: each way to stand to him, and how it changes.

use super::*;

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

/// Name; what is kept; the answer to a new SUBSCRIBE; what the NOTIFY says; what the user's client
/// hears of it.
type Row = (&'static str, Record, &'static str, &'static str, &'static str);

/// The rows of the authorisation rules.
fn rows() -> Vec<Row> {
    use List::{Allowed, Blocked, Denied};
    const PENDING: &str = "pending empty";
    let alice = "alice@a.example";
    let with = |state| record(vec![item(alice, state)], vec![]);
    let on = |list, rule| record(vec![], vec![(list, rule)]);
    let approved = Item { approved: true, ..item(alice, State::To) };
    let from = vec![item(alice, State::From)];
    vec![
        ("3 none", Record::default(), "200", PENDING, "subscribe"),
        ("3 to", with(State::To), "200", PENDING, "subscribe"),
        ("4 pending in", with(State::NoneIn), "200", PENDING, ""),
        ("5 from", with(State::From), "200", "active open", ""),
        ("5 both", with(State::Both), "200", "active open", ""),
        ("6 pre-approved", record(vec![approved], vec![]), "200", "active open", "push"),
        ("7 explicit", on(Denied, alice), "403", "nothing", ""),
        ("8 polite", on(Denied, alice), "200", "active closed", ""),
        ("9 was from", record(from, vec![(Blocked, alice)]), "200", "active closed", ""),
        ("10 domain", on(Blocked, "a.example"), "200", "active closed", ""),
        ("11 allowed", on(Allowed, "a.example"), "200", "active open", "push"),
    ]
}

#[test]
fn the_eleven_rows_of_who_may_see_a_user() {
    for (name, record, status, told, client) in rows() {
        let mut scene = Scene::new(1);
        scene.record("bob@b.example", record);
        if status == "403" {
            scene.explicit();
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
    scene.explicit();
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
