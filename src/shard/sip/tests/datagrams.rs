//! The same in datagrams: repetition, where an answer goes, and how much a stranger gets.

use std::time::Duration;

use super::world::{World, sip};
use super::{answer, header, ours, request};
use crate::policy::{Identity, Transport};
use crate::shard::peer_tests::world::bare;
use crate::shard::sip::Class;

const PARTNER: &str = "192.0.2.9:5060";

fn datagrams(shards: u16) -> World {
    let mut world = World::new();
    let partner = PARTNER.parse().unwrap();
    let rules = vec![("a.example", sip(Transport::Udp, Identity::Fixed, &[partner]))];
    world.add("b.example", shards, rules, Vec::new(), bare());
    world
}

fn udp(method: &str, uri: &str, branch: &str) -> String {
    request(method, uri, branch, "").replace("/TCP", "/UDP")
}

#[test]
fn a_request_is_answered_where_it_came_from_and_again_when_it_comes_again() {
    for shards in [1, 2] {
        let mut world = datagrams(shards);
        let text = udp("OPTIONS", "sip:bob@b.example", "1");
        let sent = world.datagram((0, 0), PARTNER, &text);
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].0, PARTNER.parse().unwrap());
        assert!(sent[0].1.starts_with("SIP/2.0 200 OK"), "{}", sent[0].1);
        // The name of its Via is not its address (RFC 3261, 18.2.1).
        assert!(header(&sent[0].1, "Via").ends_with(";branch=z9hG4bK1;received=192.0.2.9"));
        assert_eq!(world.datagram((0, 0), PARTNER, &text), sent, "timer J");
        assert_eq!(world.sum(0, |it| it.counters.sip.repeated), 1);
        world.pass(Duration::from_secs(33));
        world.at_rest(0);
    }
}

#[test]
fn a_partners_datagrams_are_one_shards_on_whichever_socket_they_come() {
    let mut world = datagrams(2);
    let text = udp("OPTIONS", "sip:bob@b.example", "1");
    let sent = world.datagram((0, 0), PARTNER, &text);
    assert_eq!(sent.len(), 1);
    assert_eq!(world.datagram((0, 1), PARTNER, &text), sent, "the same transaction");
    assert_eq!(world.sum(0, |it| it.counters.sip.repeated), 1);
    world.pass(Duration::from_secs(33));
    world.at_rest(0);
}

#[test]
fn rport_says_where_to() {
    let mut world = datagrams(1);
    let text = udp("OPTIONS", "sip:bob@b.example", "1").replace("z9hG4bK1", "z9hG4bK1;rport");
    let sent = world.datagram((0, 0), "192.0.2.9:40001", &text);
    assert_eq!(sent[0].0, "192.0.2.9:40001".parse().unwrap());
    assert!(header(&sent[0].1, "Via").ends_with(";received=192.0.2.9;rport=40001"));
    // Without it the port of its Via counts.
    let text = udp("OPTIONS", "sip:bob@b.example", "2");
    let sent = world.datagram((0, 0), "192.0.2.9:40001", &text);
    assert_eq!(sent[0].0, PARTNER.parse().unwrap());
}

#[test]
fn a_stranger_gets_one_packet_that_is_no_larger_than_half_again() {
    let mut world = datagrams(2);
    for from in ["alice@a.example", "alice@other.example"] {
        for method in ["INVITE", "OPTIONS", "SUBSCRIBE", "FROB"] {
            let text = udp(method, "sip:bob@b.example", "1").replace("alice@a.example", from);
            let sent = world.datagram((0, 1), "198.51.100.7:5060", &text);
            assert!(sent.len() <= 1, "{sent:?}");
            assert!(sent.iter().all(|it| it.1.len() <= text.len() + text.len() / 2));
            world.datagrams.clear();
            world.pass(Duration::from_secs(5));
            assert!(world.datagrams.is_empty());
        }
    }
    for junk in
        ["", "\r\n\r\n", "x", "SIP/2.0 200 OK\r\n\r\n", "INVITE sip:b.example SIP/2.0\r\n\r\n"]
    {
        let sent = world.datagram((0, 0), "198.51.100.7:5060", junk);
        assert!(sent.is_empty(), "{sent:?}");
    }
    world.at_rest(0);
}

#[test]
fn a_request_of_ours_is_repeated_until_it_is_answered_on_whichever_socket() {
    let mut world = datagrams(2);
    world.send((0, 0), &ours("NOTIFY", "n1"), Class::InDialog, "a.example");
    let first = world.datagrams[0].clone();
    assert_eq!(first.0, PARTNER.parse().unwrap());
    assert!(
        header(&first.1, "Via").starts_with("Via: SIP/2.0/UDP sip.b.example:5060;branch=z9hG4bKt1")
    );
    assert!(header(&first.1, "Via").ends_with(";rport"));
    world.pass(Duration::from_millis(3_900));
    // After 0.5, 1.5 and 3.5 s (timer E), each the same.
    assert_eq!(world.datagrams.len(), 4);
    assert!(world.datagrams.iter().all(|it| *it == first));
    for shard in [0, 1] {
        world.datagram((0, shard), PARTNER, &answer(&first.1, "200 OK", ""));
    }
    assert_eq!(world.answers(0), ["200"]);
    world.pass(Duration::from_secs(6));
    world.at_rest(0);
}

#[test]
fn an_invite_that_fails_is_acknowledged_each_time() {
    let mut world = datagrams(1);
    world.send((0, 0), &ours("INVITE", "i1"), Class::New, "a.example");
    let invite = world.datagrams[0].1.clone();
    let refused = answer(&invite, "486 Busy Here", "");
    for _ in 0..3 {
        let sent = world.datagram((0, 0), PARTNER, &refused);
        assert_eq!(sent.len(), 1);
        assert!(sent[0].1.starts_with("ACK "));
    }
    assert_eq!(world.answers(0), ["486"]);
    world.pass(Duration::from_secs(33));
    world.at_rest(0);
}

#[test]
fn silence_is_a_timeout_in_datagrams_too() {
    let mut world = datagrams(1);
    world.send((0, 0), &ours("INVITE", "i1"), Class::New, "a.example");
    world.pass(Duration::from_secs(33));
    assert_eq!(world.answers(0), ["Timeout"]);
    // 0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5 s.
    assert_eq!(world.datagrams.len(), 7);
    world.at_rest(0);
}

#[test]
fn a_refused_invite_is_repeated_until_its_ack() {
    let mut world = datagrams(1);
    let invite = udp("INVITE", "sip:nobody@b.example", "1");
    let sent = world.datagram((0, 0), PARTNER, &invite);
    assert!(sent.last().unwrap().1.starts_with("SIP/2.0 404 "), "{sent:?}");
    world.datagrams.clear();
    world.pass(Duration::from_millis(1_600));
    assert_eq!(world.datagrams.len(), 2, "timer G");
    world.datagram((0, 0), PARTNER, &invite.replace("INVITE", "ACK"));
    world.pass(Duration::from_secs(10));
    assert!(world.datagrams.is_empty());
    world.at_rest(0);
}
