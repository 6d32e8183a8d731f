//! Texts that are like the one before them: the same comes of them as of others.

use super::world::{TCP, World};
use super::{PARTNER, bare, clear, sip};
use crate::policy::{Identity, Transport};

const BELOW: &str = "z9hG4bKq100030000000100000002ffffffffffffffff";

/// A text in a dialog that nobody has; `more` is a header.
fn text(number: u32, below: &str, more: &str) -> String {
    format!(
        "MESSAGE sip:sip.b.example:5060 SIP/2.0\r\n\
         Via: SIP/2.0/TCP a.example:5060;branch=z9hG4bK{number:04}\r\n\
         Via: SIP/2.0/TCP sip.b.example:5060;branch={below}\r\nMax-Forwards: 70\r\n\
         Route: <sip:sip.b.example:5060;lr>\r\nFrom: <sip:alice@a.example>;tag=f1\r\n\
         To: <sip:bob@b.example>;tag=t1.9\r\nCALL-ID: c1@a.example\r\nCSeq: {number:04} MESSAGE\r\n\
         {more}Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nHi"
    )
}

fn alike(world: &World) -> u64 {
    world.sum(0, |it| it.counters.sip.alike)
}

#[test]
fn what_is_alike_is_answered_as_what_is_not() {
    for shards in [1, 2] {
        let (mut world, mut other) = (clear(shards), clear(shards));
        let partner = world.partner((0, 0), TCP, PARTNER);
        let stranger = other.partner((0, 0), TCP, PARTNER);
        for number in 1..=4 {
            let heard = world.say(partner, text(number, BELOW, ""));
            assert!(heard.starts_with("SIP/2.0 481 "), "{heard}");
            assert!(heard.contains(&format!("branch=z9hG4bK{number:04}\r\n")), "{heard}");
            assert!(heard.contains(&format!("CSeq: {number:04} MESSAGE\r\n")), "{heard}");
            let more = format!("Subject: {number}\r\n");
            assert_eq!(other.say(stranger, text(number, BELOW, &more)), heard);
        }
        assert_eq!((alike(&world), alike(&other)), (3, 0));
        // Two in one piece, and cut.
        let heard = world.say(partner, text(5, BELOW, "") + &text(6, BELOW, ""));
        assert_eq!(heard.matches("SIP/2.0 481").count(), 2);
        for octet in text(7, BELOW, "").bytes() {
            world.say(partner, [octet]);
        }
        assert_eq!(alike(&world), 6);
        world.at_rest(0);
    }
}

#[test]
fn a_loop_is_found_in_what_is_alike_but_for_its_branch() {
    let mut world = clear(1);
    let partner = world.partner((0, 0), TCP, PARTNER);
    world.say(partner, text(1, BELOW, ""));
    let heard = world.say(partner, text(2, &BELOW.replace("q1", "t1"), ""));
    assert!(heard.starts_with("SIP/2.0 482 "), "{heard}");
    assert_eq!((alike(&world), world.sum(0, |it| it.counters.sip.loops)), (0, 1));
}

#[test]
fn each_connection_must_be_one_that_may_say_it() {
    let mut world = clear(1);
    let partner = world.partner((0, 0), TCP, PARTNER);
    world.say(partner, text(1, BELOW, ""));
    let stranger = world.partner((0, 0), TCP, "192.0.2.66:31000");
    let heard = world.say(stranger, text(2, BELOW, ""));
    assert!(heard.starts_with("SIP/2.0 403 "), "{heard}");
    assert_eq!(world.sum(0, |it| it.counters.sip.uncovered), 1);
}

#[test]
fn other_settings_judge_anew() {
    let mut world = clear(1);
    let partner = world.partner((0, 0), TCP, PARTNER);
    world.say(partner, text(1, BELOW, ""));
    world.reload(0, |_| {});
    assert!(world.say(partner, text(2, BELOW, "")).starts_with("SIP/2.0 481 "));
    assert_eq!(alike(&world), 0);
    assert!(world.say(partner, text(3, BELOW, "")).starts_with("SIP/2.0 481 "));
    assert_eq!(alike(&world), 1);
    world.reload(0, |settings| settings.domains[0].sip_name = "sip.c.example".to_owned());
    let heard = world.say(partner, text(4, BELOW, ""));
    assert!(heard.starts_with("SIP/2.0 403 "), "relayed to nobody: {heard}");
    assert_eq!(alike(&world), 1);
}

#[test]
fn what_is_never_alike_takes_no_place_of_use() {
    let mut world = World::new();
    let partner = "192.0.2.9:5060".parse().unwrap();
    let rules = vec![("a.example", sip(Transport::Tcp, Identity::Fixed, &[partner]))];
    world.add("b.example", 1, rules, Vec::new(), bare());
    let partner = world.partner((0, 0), TCP, PARTNER);
    for number in 1..200 {
        let more = format!("Subject: {}\r\n", "x".repeat(number as usize));
        world.say(partner, text(number, BELOW, &more));
    }
    assert_eq!(alike(&world), 0);
    assert!(world.say(partner, text(200, BELOW, "")).starts_with("SIP/2.0 481 "));
}
