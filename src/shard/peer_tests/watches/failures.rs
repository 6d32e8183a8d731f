//! What becomes of a subscription that is refused, lost, ended or left without an answer.

use std::time::Duration;

use super::{ALICE, pidf, scene};
use crate::gateway::watch::TIMER_N;
use crate::limits::WATCH_GRACE;
use crate::policy::Profile;
use crate::shard::sip::Failure;

#[test]
fn refusals() {
    for (profile, status, said) in [
        (Profile::Xmpp, "403 Forbidden", "type='unsubscribed'"),
        (Profile::Lync, "489 Bad Event", "type='unsubscribed'"),
        (Profile::Lync, "603 Decline", "type='unsubscribed'"),
        (Profile::Lync, "404 Not Found", "<item-not-found "),
        (Profile::Lync, "604 Nowhere", "<item-not-found "),
        (Profile::Lync, "410 Gone", "<gone "),
    ] {
        let mut scene = scene(profile);
        let bob = scene.client("bob@a.example/1");
        let asked = scene.subscribe(bob);
        scene.world.heard(bob);
        scene.answer(&asked, status, "", "");
        let heard = scene.world.heard(bob);
        assert!(heard.contains(said) && heard.contains("type='unsubscribed'"), "{status} {heard}");
        assert!(heard.contains("subscription='none'") && !heard.contains("ask="), "{heard}");
        scene.pass(100_000);
        scene.none();
        // He may ask again.
        scene.subscribe(bob);
        scene.world.balanced();
    }
}

#[test]
fn an_edge_without_us_on_its_list_is_asked_hourly_and_an_operator_told() {
    let mut scene = scene(Profile::Lync);
    let bob = scene.client("bob@a.example/1");
    let mut asked = scene.subscribe(bob);
    scene.world.heard(bob);
    for (least, most) in [(2_700, 3_600), (5_400, 7_200), (10_800, 14_400)] {
        scene.answer(&asked, "403 Forbidden", "", "");
        scene.pass(least - 1);
        scene.none();
        scene.pass(most - least + 1);
        let next = scene.asked();
        assert_ne!(next.header("Call-ID"), asked.header("Call-ID"));
        asked = next;
    }
    assert_eq!(scene.world.heard(bob), "");
    assert_eq!(scene.world.notices.len(), 3);
    assert_eq!(scene.world.notices[0].event, "sip_watch_refused");
    scene.answer(&asked, "200 OK", "Expires: 7200\r\n", "");
    scene.notify(&asked, "active;expires=7200", "");
    assert!(scene.world.heard(bob).contains("type='subscribed'"));
}

#[test]
fn too_brief_and_busy_and_silent() {
    let mut scene = scene(Profile::Xmpp);
    let bob = scene.client("bob@a.example/1");
    let asked = scene.subscribe(bob);
    scene.answer(&asked, "423 Interval Too Brief", "Min-Expires: 9000\r\n", "");
    let asked = scene.asked();
    assert_eq!(asked.expires(), 9_000);
    scene.answer(&asked, "503 Service Unavailable", "Retry-After: 20\r\n", "");
    scene.pass(19);
    scene.none();
    scene.pass(1);
    let asked = scene.asked();
    // Timer N: no NOTIFY comes.
    scene.answer(&asked, "200 OK", "Expires: 9000\r\n", "");
    scene.pass(TIMER_N.as_secs() - 1);
    scene.none();
    scene.pass(1);
    scene.pass(4);
    let asked = scene.asked();
    // The failures so far make the pauses longer, up to ten minutes.
    let mut asked = asked;
    for _ in 0..12 {
        scene.fail(&asked, Failure::Unreachable);
        scene.pass(600);
        asked = scene.asked();
    }
    scene.fail(&asked, Failure::Unreachable);
    scene.pass(449);
    scene.none();
    // It says so again and again: no loop.
    scene.pass(151);
    let mut asked = scene.asked();
    for _ in 0..2 {
        scene.answer(&asked, "423 Interval Too Brief", "Min-Expires: 9001\r\n", "");
        asked = scene.asked();
    }
    scene.answer(&asked, "423 Interval Too Brief", "Min-Expires: 9001\r\n", "");
    scene.none();
}

#[test]
fn the_refresh_goes_in_the_dialog_and_a_lost_one_is_made_anew() {
    let mut scene = scene(Profile::Lync);
    let bob = scene.client("bob@a.example/1");
    let first = scene.established(bob);
    scene.pass(3_059);
    scene.none();
    scene.pass(181);
    let refresh = scene.asked();
    assert!(refresh.text.starts_with(&format!("SUBSCRIBE sip:{ALICE};gruu SIP/2.0\r\n")));
    assert_eq!(
        refresh.header("Route"),
        "<sip:edge.contoso.example:5061;transport=tls;lr;opaque=x>;y=Z"
    );
    assert_eq!(refresh.text.matches("Route: ").count(), 1, "{}", refresh.text);
    assert_eq!(refresh.header("CSeq"), "2 SUBSCRIBE");
    assert_eq!(refresh.header("To"), "<sip:alice@contoso.example>;tag=e");
    assert_eq!(refresh.header("Call-ID"), first.header("Call-ID"));
    // An error that may pass leaves the dialog as it is.
    scene.answer(&refresh, "500 Server Internal Error", "", "");
    scene.pass(1);
    let refresh = scene.asked();
    assert_eq!(refresh.header("CSeq"), "3 SUBSCRIBE");
    scene.fail(&refresh, Failure::Unreachable);
    scene.pass(2);
    let refresh = scene.asked();
    assert_eq!(refresh.header("CSeq"), "4 SUBSCRIBE");
    // The partner has forgotten it.
    scene.world.heard(bob);
    scene.answer(&refresh, "481 Call/Transaction Does Not Exist", "", "");
    scene.pass(4);
    let second = scene.asked();
    assert_ne!(second.header("Call-ID"), first.header("Call-ID"));
    assert_eq!(second.header("CSeq"), "1 SUBSCRIBE");
    assert_eq!(scene.notify(&first, "active", ""), [481]);
    scene.answer(&second, "200 OK", "Expires: 3600\r\n", "");
    assert_eq!(scene.world.heard(bob), "", "nothing of this is the user's business");
    scene.cseq = 0;
    scene.notify(&second, "active;expires=3600", &pidf("open", ""));
    let heard = scene.world.heard(bob);
    assert!(heard.contains("<presence from=") && !heard.contains("subscribed"), "{heard}");
    assert_eq!(scene.world.dialogs.len(), 1);
}

#[test]
fn each_answer_that_ends_the_dialog_makes_a_new_one() {
    for status in [404, 405, 408, 410, 416, 480, 481, 482, 483, 484, 485, 501, 604] {
        let mut scene = scene(Profile::Lync);
        let bob = scene.client("bob@a.example/1");
        let first = scene.established(bob);
        scene.pass(3_240);
        let refresh = scene.asked();
        scene.answer(&refresh, &format!("{status} No"), "", "");
        scene.pass(1);
        assert_ne!(scene.asked().header("Call-ID"), first.header("Call-ID"), "{status}");
        assert_eq!(scene.world.heard(bob), "", "{status}");
    }
    for status in [400, 403, 406, 423, 491, 500, 503, 504, 600, 606] {
        let mut scene = scene(Profile::Lync);
        let bob = scene.client("bob@a.example/1");
        let first = scene.established(bob);
        scene.pass(3_240);
        let refresh = scene.asked();
        let headers = if status == 423 { "Min-Expires: 3601\r\n" } else { "" };
        scene.answer(&refresh, &format!("{status} No"), headers, "");
        scene.pass(1);
        if status == 406 {
            assert!(scene.world.heard(bob).contains("type='unsubscribed'"));
            continue;
        }
        assert_eq!(scene.asked().header("Call-ID"), first.header("Call-ID"), "{status}");
    }
}

#[test]
fn beyond_the_expiry_an_unreachable_peers_contacts_are_offline_once() {
    let mut scene = scene(Profile::Lync);
    let bob = scene.client("bob@a.example/1");
    scene.established(bob);
    scene.pass(3_240);
    let mut asked = scene.asked();
    let mut heard = String::new();
    for _ in 0..80 {
        scene.fail(&asked, Failure::Unreachable);
        heard += &scene.world.heard(bob);
        for _ in 0..600 {
            scene.pass(1);
            heard += &scene.world.heard(bob);
            if let Some(next) = scene.all().pop() {
                asked = next;
                break;
            }
        }
    }
    assert_eq!(heard.matches("type='unavailable'").count(), 1, "{heard}");
    assert!(!heard.contains("unsubscribed"), "{heard}");
    // It is back: at once, in a new dialog.
    scene.fail(&asked, Failure::Unreachable);
    scene.shard().watch_peer_back("a.example", "contoso.example");
    scene.pass(1);
    let asked = scene.asked();
    assert_eq!(asked.header("CSeq"), "1 SUBSCRIBE");
    scene.answer(&asked, "200 OK", "Expires: 3600\r\n", "");
    scene.cseq = 0;
    scene.notify(&asked, "active;expires=3600", &pidf("open", ""));
    assert!(scene.world.heard(bob).contains("<presence from='alice@contoso.example'"));
}

#[test]
fn a_partner_that_is_back_is_asked_within_seconds_and_at_its_pace() {
    let mut scene = scene(Profile::Lync);
    let bob = scene.client("bob@a.example/1");
    for i in 0..30 {
        let to = format!("c{i}@contoso.example");
        scene.world.say(bob, &format!("<presence type='subscribe' to='{to}'/>"));
        let asked = scene.asked();
        scene.answer(&asked, "200 OK", "Expires: 7200\r\n", "");
        scene.cseq = 0;
        scene.notify(&asked, "active;expires=7200", "");
    }
    scene.pass(60);
    scene.none();
    // It comes and goes.
    for _ in 0..5 {
        scene.shard().watch_peer_back("", "contoso.example");
    }
    let mut each_100_ms = Vec::new();
    for _ in 0..40 {
        scene.world.now = scene.world.now + Duration::from_millis(100);
        each_100_ms.push(scene.all().len());
    }
    assert_eq!(each_100_ms.iter().sum::<usize>(), 30, "{each_100_ms:?}");
    assert!(each_100_ms.iter().all(|it| *it <= 3), "{each_100_ms:?}");
    assert_eq!(each_100_ms.iter().rev().take(15).sum::<usize>(), 0, "{each_100_ms:?}");
}

#[test]
fn an_answer_shows_that_a_peer_is_back() {
    let mut scene = scene(Profile::Lync);
    let bob = scene.client("bob@a.example/1");
    let mut all = Vec::new();
    for i in 0..10 {
        let to = format!("c{i}@contoso.example");
        scene.world.say(bob, &format!("<presence type='subscribe' to='{to}'/>"));
        all.push(scene.asked());
    }
    // All of them wait for minutes by now.
    for _ in 0..10 {
        for asked in &all {
            scene.fail(asked, Failure::Unreachable);
        }
        scene.pass(600);
        all = scene.all();
        assert_eq!(all.len(), 10);
    }
    let first = all.pop().unwrap();
    for asked in &all {
        scene.fail(asked, Failure::Unreachable);
    }
    scene.answer(&first, "200 OK", "Expires: 7200\r\n", "");
    let mut asked = 0;
    for _ in 0..20 {
        scene.world.now = scene.world.now + Duration::from_millis(100);
        asked += scene.all().len();
    }
    assert!(asked >= 7, "{asked} of nine in two seconds");
}

#[test]
fn reasons_of_the_end() {
    for (state, said, pause) in [
        ("terminated;reason=deactivated", "", Some(5)),
        ("terminated;reason=timeout", "", Some(5)),
        ("terminated", "", Some(5)),
        ("terminated;reason=probation;retry-after=300", "type='unavailable'", Some(300)),
        ("terminated;reason=giveup;retry-after=300", "type='unavailable'", Some(300)),
        ("terminated;reason=rejected", "type='unsubscribed'", None),
        ("terminated;reason=noresource", "type='unsubscribed'", None),
        ("terminated;reason=invariant", "", None),
    ] {
        let mut scene = scene(Profile::Lync);
        let bob = scene.client("bob@a.example/1");
        let asked = scene.established(bob);
        scene.pass(120);
        assert_eq!(scene.notify(&asked, state, ""), [200], "{state}");
        let heard = scene.world.heard(bob);
        assert!(heard.contains(said) && (said.is_empty() == heard.is_empty()), "{state} {heard}");
        assert_eq!(scene.world.dialogs.len(), 0, "{state}");
        match pause {
            None => {
                scene.pass(100_000);
                scene.none();
            }
            Some(pause) => {
                scene.pass(pause);
                let asked = scene.asked();
                // What was seen is not shown for ever.
                scene.fail(&asked, Failure::Timeout);
                scene.pass(WATCH_GRACE.as_secs());
                let heard = scene.world.heard(bob);
                let late = said.is_empty();
                assert_eq!(heard.contains("type='unavailable'"), late, "{state} {heard}");
            }
        }
    }
}

#[test]
fn a_dialog_that_ends_at_once_is_no_loop() {
    let mut scene = scene(Profile::Lync);
    let bob = scene.client("bob@a.example/1");
    let mut asked = Some(scene.subscribe(bob));
    for _ in 0..3_600 {
        if let Some(asked) = asked {
            scene.answer(&asked, "200 OK", "Expires: 7200\r\n", "");
            scene.cseq = 0;
            scene.notify(&asked, "active;expires=7200", "");
            scene.notify(&asked, "terminated;reason=deactivated", "");
        }
        scene.pass(1);
        asked = scene.all().pop();
    }
    let sent = scene.shard().counters.sip.subscribes_out;
    assert!(sent < 25, "{sent} in an hour");
}
