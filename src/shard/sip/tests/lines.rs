//! Ways and their lines: answers, losses, other targets, pace, rest.

use std::time::Duration;

use super::world::{TCP, World, sip, sip_of};
use super::{PARTNER, answer, clear, header, ours, request};
use crate::policy::{Identity, Transport};
use crate::shard::peer_tests::world::bare;
use crate::shard::sip::Class;

/// b.example whose partner has two targets.
fn two_targets(rate: u32) -> World {
    let mut world = World::new();
    let targets = ["192.0.2.9:5060".parse().unwrap(), "192.0.2.10:5060".parse().unwrap()];
    world.scripted.extend(targets);
    let mut rule = sip(Transport::Tcp, Identity::Fixed, &targets);
    sip_of(&mut rule).rate = rate;
    world.add("b.example", 2, vec![("a.example", rule)], Vec::new(), bare());
    world
}

#[test]
fn an_invite_rings_is_cancelled_and_acknowledged() {
    let mut world = clear(2);
    let ask = world.send((0, 0), &ours("INVITE", "i1"), Class::New, "a.example");
    let invite = world.heard(0);
    world.cancel((0, 0), ask);
    assert_eq!(world.heard(0), "", "not before they have answered");
    let heard = world.say(0, answer(&invite, "180 Ringing", ""));
    assert!(heard.starts_with("CANCEL sip:alice@a.example SIP/2.0\r\n"), "{heard}");
    assert_eq!(header(&heard, "Via"), header(&invite, "Via"));
    assert!(heard.contains("CSeq: 1 CANCEL"));
    assert_eq!(world.say(0, answer(&heard, "200 OK", "")), "");
    let heard = world.say(
        0,
        answer(&invite, "487 Request Terminated", "")
            .replace("To: <sip:alice@a.example>", "To: <sip:alice@a.example>;tag=far"),
    );
    assert!(heard.starts_with("ACK sip:alice@a.example SIP/2.0\r\n"), "{heard}");
    assert_eq!(header(&heard, "Via"), header(&invite, "Via"));
    assert!(header(&heard, "To").ends_with(";tag=far"), "{heard}");
    assert_eq!(world.answers(0), ["180", "487"]);
    world.at_rest(0);
}

#[test]
fn each_2xx_of_an_invite_is_passed_on_and_the_ack_goes_its_way() {
    let mut world = clear(2);
    world.send((0, 1), &ours("INVITE", "i1"), Class::New, "a.example");
    let invite = world.heard(0);
    for _ in 0..3 {
        assert_eq!(world.say(0, answer(&invite, "200 OK", "")), "");
    }
    assert_eq!(world.answers(0), ["200", "200", "200"]);
    world.send((0, 1), &ours("ACK", "i1"), Class::InDialog, "a.example");
    let ack = world.heard(0);
    assert!(ack.starts_with("ACK ") && header(&ack, "Via") != header(&invite, "Via"), "{ack}");
    world.pass(Duration::from_secs(33));
    world.say(0, answer(&invite, "200 OK", ""));
    assert_eq!(world.answers(0), Vec::<String>::new());
    world.pass(Duration::from_secs(6));
    world.at_rest(0);
}

#[test]
fn who_asks_waits_no_longer_than_he_said() {
    let mut world = clear(2);
    world.send((0, 0), &ours("INVITE", "i1"), Class::New, "a.example");
    let invite = world.heard(0);
    world.say(0, answer(&invite, "180 Ringing", ""));
    world.pass(Duration::from_secs(39));
    assert_eq!(world.answers(0), ["180", "Timeout"]);
    assert!(world.heard(0).starts_with("CANCEL "));
    let heard = world.say(0, answer(&invite, "487 Request Terminated", ""));
    assert!(heard.starts_with("ACK "));
    world.at_rest(0);
}

#[test]
fn silence_ends_after_32_seconds_and_the_line_with_it() {
    let mut world = clear(1);
    world.send((0, 0), &ours("NOTIFY", "n1"), Class::InDialog, "a.example");
    world.pass(Duration::from_secs(31));
    assert_eq!(world.answers(0), Vec::<String>::new());
    world.pass(Duration::from_secs(2));
    assert_eq!(world.answers(0), ["Timeout"]);
    assert!(world.scripts[0].closed);
    world.at_rest(0);
}

#[test]
fn a_lost_line_fails_what_went_out_on_it_and_the_next_has_another() {
    let mut world = clear(2);
    for i in 0..3 {
        world.send((0, i % 2), &ours("NOTIFY", &format!("n{i}")), Class::InDialog, "a.example");
    }
    world.hang_up(0);
    assert_eq!(world.answers(0), ["Unreachable"; 3]);
    world.send((0, 0), &ours("NOTIFY", "n4"), Class::InDialog, "a.example");
    let heard = world.heard(1);
    world.say(1, answer(&heard, "200 OK", ""));
    assert_eq!(world.answers(0), ["200"]);
    assert!(world.sum(0, |it| it.counters.sip.peers_back) > 0);
    world.at_rest(0);
}

#[test]
fn a_target_that_refuses_is_passed_over_and_none_is_unreachable() {
    let mut world = two_targets(0);
    world.refusing.push("192.0.2.9:5060".parse().unwrap());
    world.send((0, 0), &ours("NOTIFY", "n1"), Class::InDialog, "a.example");
    assert!(world.heard(0).starts_with("NOTIFY "));
    world.refusing.push("192.0.2.10:5060".parse().unwrap());
    world.hang_up(0);
    world.answers(0);
    world.send((0, 0), &ours("NOTIFY", "n2"), Class::InDialog, "a.example");
    assert_eq!(world.answers(0), ["Unreachable"]);
    assert_eq!(world.trouble(), ["sip_setup_failed out tcp"]);
    // It is back: found within seconds, and what waited goes.
    world.refusing.clear();
    world.send((0, 0), &ours("NOTIFY", "n3"), Class::InDialog, "a.example");
    world.pass(Duration::from_secs(9));
    let last = world.scripts.len() - 1;
    assert!(world.heard(last).starts_with("NOTIFY "));
}

#[test]
fn a_503_is_tried_elsewhere_once_there_is_elsewhere() {
    let mut world = two_targets(0);
    world.send((0, 0), &ours("INVITE", "i1"), Class::New, "a.example");
    let first = world.heard(0);
    let heard = world.say(0, answer(&first, "503 Service Unavailable", ""));
    assert!(heard.starts_with("ACK "), "{heard}");
    let second = world.heard(1);
    assert!(second.starts_with("INVITE ") && header(&second, "Via") != header(&first, "Via"));
    world.say(1, answer(&second, "200 OK", ""));
    assert_eq!(world.answers(0), ["200"]);
    // Both of them: it is over.
    world.send((0, 0), &ours("MESSAGE", "m1"), Class::New, "a.example");
    let mut tries = 0;
    for _ in 0..4 {
        for script in 0..world.scripts.len() {
            let heard = world.heard(script);
            if heard.starts_with("MESSAGE ") {
                tries += 1;
                world.say(script, answer(&heard, "503 Service Unavailable", ""));
            }
        }
    }
    assert_eq!(world.answers(0), ["503"]);
    assert!((1..=3).contains(&tries), "{tries}");
}

#[test]
fn retry_after_is_kept_for_a_peer_with_one_target() {
    let mut world = clear(2);
    world.send((0, 0), &ours("SUBSCRIBE", "s1"), Class::New, "a.example");
    let heard = world.heard(0);
    world.say(0, answer(&heard, "503 Service Unavailable", "Retry-After: 10\r\n"));
    assert_eq!(world.answers(0), ["503"]);
    world.send((0, 0), &ours("SUBSCRIBE", "s2"), Class::New, "a.example");
    assert_eq!(world.answers(0), ["Overload"]);
    // In a dialog it waits.
    world.send((0, 0), &ours("NOTIFY", "n1"), Class::InDialog, "a.example");
    assert_eq!(world.heard(0), "");
    world.pass(Duration::from_secs(11));
    assert!(world.heard(0).starts_with("NOTIFY "));
    assert_eq!(world.scripts.len(), 1);
}

#[test]
fn a_peer_is_paced_and_what_is_in_a_dialog_goes_first() {
    let mut world = two_targets(20);
    for i in 0..45 {
        world.send((0, 0), &ours("SUBSCRIBE", &format!("s{i}")), Class::New, "a.example");
    }
    world.send((0, 1), &ours("NOTIFY", "n0"), Class::InDialog, "a.example");
    let mut most = 0;
    let mut all = String::new();
    for _ in 0..4 {
        world.pass(Duration::from_secs(1));
        let heard = world.heard(0);
        most = most.max(heard.matches("CSeq").count());
        all += &heard;
    }
    assert!(most <= 20, "{most}");
    assert_eq!(all.matches("CSeq").count(), 46);
    let place = all.find("NOTIFY ").unwrap();
    assert!(all[..place].matches("CSeq").count() <= 6, "{}", all[..place].matches("CSeq").count());
    assert_eq!(world.answers(0), Vec::<String>::new());
}

#[test]
fn many_uris_and_challenges_and_a_bare_504_are_told() {
    let mut world = clear(1);
    world.send((0, 0), &ours("SUBSCRIBE", "s1"), Class::New, "a.example");
    let heard = world.heard(0);
    world.say(0, answer(&heard, "504 Server time-out", ""));
    assert_eq!(world.trouble(), ["sip_partner_refuses_us"]);
    world.send((0, 0), &ours("SUBSCRIBE", "s2"), Class::New, "a.example");
    let heard = world.heard(0);
    world.say(
        0,
        answer(
            &heard,
            "407 Proxy Authentication Required",
            "Proxy-Authenticate: NTLM realm=\"x\"\r\n",
        ),
    );
    assert_eq!(world.trouble().last().unwrap(), "sip_partner_wants_a_login");
    for i in 0..900 {
        let text = ours("SUBSCRIBE", "s3").replace("alice@", &format!("alice{i}@"));
        world.send((0, 0), &text, Class::New, "a.example");
    }
    let told = world.trouble().iter().filter(|it| *it == "sip_many_uris").count();
    assert_eq!(told, 1);
}

#[test]
fn an_answer_whose_connection_is_gone_goes_over_another() {
    let mut world = clear(1);
    world.silent = true;
    let partner = world.partner((0, 0), TCP, PARTNER);
    world.say(partner, request("MESSAGE", "sip:bob@b.example", "1", ""));
    world.hang_up(partner);
    // The record never came: the home refuses it.
    world.pass(Duration::from_secs(6));
    let heard = world.heard(1);
    assert!(heard.starts_with("SIP/2.0 "), "{heard}");
    assert!(heard.contains("branch=z9hG4bK1"), "{heard}");
}

#[test]
fn a_full_mesh_is_answered_for() {
    let mut world = clear(2);
    let way = crate::route::shard_of_domain("a.example", 2);
    world.shards.get_mut(&(0, 1 - way)).unwrap().1.full = true;
    world.send((0, 1 - way), &ours("SUBSCRIBE", "s1"), Class::New, "a.example");
    assert_eq!(world.answers(0), ["Overload"]);
    world.at_rest(0);
}

#[test]
fn strays_are_counted_and_no_more() {
    let mut world = clear(2);
    world.send((0, 0), &ours("NOTIFY", "n1"), Class::InDialog, "a.example");
    let heard = world.heard(0);
    let forged = answer(&heard, "200 OK", "");
    let branch = header(&heard, "Via").split("branch=").nth(1).unwrap().to_owned();
    let mut other = branch.clone();
    let last = if other.pop() == Some('0') { '1' } else { '0' };
    other.push(last);
    world.say(0, forged.replace(&branch, &other));
    world.say(0, forged.replace(&branch, "z9hG4bKnobody"));
    world.say(0, forged.replace("CSeq: 1 NOTIFY", "CSeq: 1 INVITE"));
    assert_eq!(world.answers(0), Vec::<String>::new());
    assert_eq!(world.sum(0, |it| it.counters.sip.responses_stray), 2);
    world.say(0, forged);
    assert_eq!(world.answers(0), ["200"]);
}

#[test]
fn a_peer_that_was_lost_is_looked_for_and_its_return_told_to_all() {
    let mut world = clear(3);
    let partner = world.partner((0, 0), TCP, PARTNER);
    world.say(partner, request("OPTIONS", "sip:bob@b.example", "1", ""));
    world.refusing.push("192.0.2.9:5060".parse().unwrap());
    world.hang_up(partner);
    world.pass(Duration::from_secs(60));
    assert_eq!((world.scripts.len(), world.sum(0, |it| it.counters.sip.peers_back)), (1, 0));
    world.refusing.clear();
    world.pass(Duration::from_secs(9));
    assert_eq!((world.scripts.len(), world.sum(0, |it| it.counters.sip.peers_back)), (2, 1));
    // One that goes in peace, after a long silence, is not.
    let other = world.scripts.len() - 1;
    world.pass(Duration::from_secs(400));
    world.hang_up(other);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.scripts.len(), 2);
}
