//! How a dialog goes on and ends, and what a restart leaves of it.

use super::*;

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
    scene.order(settings(0, "b.example", 2, Vec::new(), Vec::new(), bare()));
    assert_eq!(scene.notify(), "terminated;reason=rejected empty");
    assert_eq!((scene.dialogs(), scene.world.store.dialogs.len()), (0, 0));
}

#[test]
fn nothing_is_answered_before_it_is_kept() {
    let mut scene = Scene::new(1);
    scene.subscribed(State::From);
    scene.client("bob@b.example/desk");
    scene.world.store.fails = true;
    assert!(scene.watch("c1").starts_with("SIP/2.0 500 "));
    // Nor is a user whose record can't be had one who is not there.
    let reply = scene.subscribe("c0", "alice@a.example", "zoe@b.example", "");
    assert!(reply.starts_with("SIP/2.0 500 "), "{reply}");
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
