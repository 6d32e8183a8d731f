//! SIP's transport in conversations: a node or two, partners that the test speaks for.

mod alike;
mod datagrams;
mod fake;
mod files;
mod lines;
mod refusals;
mod store;
mod torture;
pub(in crate::shard::sip) mod world;

use std::time::Duration;

use world::{TCP, World, found, node_address, sip};

use crate::policy::{Identity, Rule, Transport};
use crate::route::shard_of_domain;
use crate::shard::peer_tests::world::{Ca, bare};
use crate::shard::sip::Class;

const PARTNER: &str = "192.0.2.9:31000";

/// b.example with a partner `a.example` in clear text at 192.0.2.9.
fn clear(shards: u16) -> World {
    let mut world = World::new();
    let partner = "192.0.2.9:5060".parse().unwrap();
    world.scripted.push(partner);
    let rules = vec![("a.example", sip(Transport::Tcp, Identity::Fixed, &[partner]))];
    world.add("b.example", shards, rules, Vec::new(), bare());
    world
}

fn request(method: &str, uri: &str, branch: &str, more: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/TCP a.example:5060;branch=z9hG4bK{branch}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:alice@a.example>;tag=f1\r\nTo: <{uri}>\r\n\
         Call-ID: c-{branch}\r\nCSeq: 1 {method}\r\n{more}Content-Length: 0\r\n\r\n"
    )
}

/// A request of ours, as a home writes it.
fn ours(method: &str, id: &str) -> String {
    format!(
        "{method} sip:alice@a.example SIP/2.0\r\nMax-Forwards: 70\r\n\
         From: <sip:bob@b.example>;tag=t1.1\r\nTo: <sip:alice@a.example>\r\nCall-ID: {id}\r\n\
         CSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
    )
}

/// An answer to a request that was heard.
fn answer(request: &str, status: &str, more: &str) -> String {
    let copied: String = request
        .split("\r\n")
        .filter(|it| ["Via", "From", "To", "Call-ID", "CSeq"].iter().any(|n| it.starts_with(n)))
        .map(|it| format!("{it}\r\n"))
        .collect();
    format!("SIP/2.0 {status}\r\n{copied}{more}Content-Length: 0\r\n\r\n")
}

fn header<'a>(text: &'a str, name: &str) -> &'a str {
    text.split("\r\n").find(|it| it.starts_with(name)).unwrap_or_default()
}

#[test]
fn a_request_reaches_its_users_home_and_is_answered_where_it_came_from() {
    for shards in [1, 2, 3] {
        for edge in 0..shards {
            let mut world = clear(shards);
            let partner = world.partner((0, edge), TCP, PARTNER);
            let text = request("OPTIONS", "sip:bob@b.example", "1", "");
            let heard = world.say(partner, &text);
            assert!(
                heard.starts_with(
                    "SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP a.example:5060;branch=z9hG4bK1\r\n"
                ),
                "{heard}"
            );
            assert!(
                heard.contains("Allow: INVITE") && heard.contains("To: <sip:bob@b.example>;tag=")
            );
            // Pipelined, cut at every place, with CRLFs between.
            let two = format!(
                "{}\r\n\r\n{}",
                request("OPTIONS", "sip:bob@b.example", "2", ""),
                request("OPTIONS", "sip:nobody@b.example", "3", "")
            );
            let mut heard = String::new();
            for octet in two.bytes() {
                heard += &world.say(partner, [octet]);
            }
            assert_eq!(heard.matches("SIP/2.0 200").count(), 1, "{heard}");
            assert_eq!(heard.matches("SIP/2.0 404").count(), 1, "{heard}");
            assert!(!world.scripts[partner].closed);
            assert_eq!(world.sum(0, |it| it.counters.sip.pings), 1);
            world.at_rest(0);
        }
    }
}

#[test]
fn a_request_of_ours_is_answered_over_a_connection_of_ours() {
    for shards in [1, 2, 3] {
        for home in 0..shards {
            let mut world = clear(shards);
            world.send((0, home), &ours("SUBSCRIBE", "s1"), Class::New, "a.example");
            assert_eq!(world.scripts.len(), 1, "{:?}", world.trouble());
            let heard = world.heard(0);
            assert!(heard.starts_with("SUBSCRIBE sip:alice@a.example SIP/2.0\r\nVia: SIP/2.0/TCP sip.b.example:5060;branch=z9hG4bKt1"), "{heard}");
            assert_eq!(world.answers(0), Vec::<String>::new());
            world.say(0, answer(&heard, "100 Trying", ""));
            world.say(0, answer(&heard, "200 OK", ""));
            assert_eq!(world.answers(0), ["100", "200"]);
            world.say(0, answer(&heard, "200 OK", ""));
            assert_eq!(world.answers(0), Vec::<String>::new(), "once");
            world.at_rest(0);
        }
    }
}

#[test]
fn a_connection_carries_requests_both_ways() {
    let mut world = clear(2);
    let way = shard_of_domain("a.example", 2);
    // It comes in on the other shard and moves.
    let partner = world.partner((0, 1 - way), TCP, PARTNER);
    world.say(partner, request("OPTIONS", "sip:bob@b.example", "1", ""));
    assert_eq!(world.sum(0, |it| it.counters.sip.moved), 1);
    world.send((0, 0), &ours("NOTIFY", "n1"), Class::InDialog, "a.example");
    let heard = world.heard(partner);
    assert!(heard.starts_with("NOTIFY "), "{heard}");
    assert_eq!(world.scripts.len(), 1, "no connection of our own");
    world.say(partner, answer(&heard, "200 OK", ""));
    assert_eq!(world.answers(0), ["200"]);
    // Without it there is one of our own.
    world.hang_up(partner);
    world.send((0, 0), &ours("NOTIFY", "n2"), Class::InDialog, "a.example");
    assert_eq!(world.scripts.len(), 2);
    assert!(world.heard(1).starts_with("NOTIFY "));
}

#[test]
fn mutual_tls_with_the_srv_target_as_its_name() {
    for shards in [1, 2] {
        let mut world = World::new();
        let ca = Ca::new();
        world.roots = crate::tls::Roots::from_pem(ca.pem.as_bytes()).0;
        for (i, domain) in ["a.example", "b.example"].into_iter().enumerate() {
            let other = ["b.example", "a.example"][i];
            let rule =
                Rule { private_addresses: true, ..sip(Transport::Tls, Identity::Microsoft, &[]) };
            let rules = vec![(other, rule)];
            let name = format!("sip.{domain}");
            let tls = ca.store(domain, &name);
            let node = world.add(domain, shards, rules, Vec::new(), tls);
            world.srv.insert(domain.to_owned(), found(&name));
            world.hosts.insert(name, vec![node_address(node, 5061).ip()]);
        }
        let text = ours("OPTIONS", "o1")
            .replace("a.example", "x.example")
            .replace("b.example", "a.example")
            .replace("x.example", "b.example");
        world.send((0, 0), &text, Class::New, "b.example");
        world.pass(Duration::from_millis(50));
        assert_eq!(world.answers(0), ["200"], "{:?}", world.notices);
        assert_eq!(world.sum(1, |it| it.counters.sip.settled), 1);
        // Back over the same connection.
        let text = ours("OPTIONS", "o2");
        world.send((1, 0), &text, Class::New, "a.example");
        assert_eq!(world.answers(1), ["200"], "{:?}", world.notices);
        assert_eq!(world.sum(1, |it| it.counters.sip.connected), 0);
        world.at_rest(0);
        world.at_rest(1);
    }
}
