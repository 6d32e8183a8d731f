//! What is refused at the edge, with which answer, and what of it the operator reads.

use std::time::Duration;

use super::world::{TCP, TLS, World, found, node_address, sip};
use super::{PARTNER, clear, header, ours, request};
use crate::policy::{Identity, Policy, Rule, Transport};
use crate::shard::peer_tests::world::Ca;
use crate::shard::sip::Class;

/// What is wrong, a request with it, and its status.
fn faults() -> Vec<(&'static str, String, u16)> {
    let base = request("OPTIONS", "sip:bob@b.example", "1", "");
    vec![
        ("not permitted", base.replace("alice@a.example", "alice@other.example"), 403),
        ("a parent is another party", base.replace("alice@a.example", "alice@example"), 403),
        ("a subdomain is another party", base.replace("alice@a.", "alice@sub.a."), 403),
        ("our own", base.replace("alice@a.example", "alice@b.example"), 403),
        ("not ours", request("OPTIONS", "sip:bob@c.example", "1", ""), 404),
        ("nobody", request("OPTIONS", "sip:nobody@b.example", "1", ""), 404),
        ("version", base.replace("example SIP/2.0", "example SIP/7.0"), 505),
        ("scheme", request("OPTIONS", "nobodyKnowsThis:b.example", "1", ""), 416),
        ("method", request("FROBNICATE", "sip:bob@b.example", "1", ""), 501),
        ("method not here", request("REGISTER", "sip:b.example", "1", ""), 405),
        ("hops", request("MESSAGE", "sip:bob@b.example", "1", "").replace(": 70", ": 0"), 483),
        ("hops of OPTIONS", base.replace(": 70", ": 0"), 200),
        ("CSeq", base.replace("CSeq: 1 OPTIONS", "CSeq: 1 INVITE"), 400),
        ("no From", base.replace("From:", "Frum:"), 400),
        (
            "relay",
            request("OPTIONS", "sip:bob@b.example", "1", "Route: <sip:x.example;lr>\r\n"),
            403,
        ),
        (
            "our route",
            request("OPTIONS", "sip:bob@b.example", "1", "Route: <sip:sip.b.example:5061;lr>\r\n"),
            200,
        ),
        (
            "extension",
            request(
                "OPTIONS",
                "sip:bob@b.example",
                "1",
                "Require: com.microsoft.rtc-multiparty\r\n",
            ),
            420,
        ),
        (
            "proxies' extension",
            request("OPTIONS", "sip:bob@b.example", "1", "Proxy-Require: ms-benotify\r\n"),
            200,
        ),
        ("the domain", request("OPTIONS", "sip:b.example", "1", ""), 200),
        ("the FQDN", request("OPTIONS", "sip:sip.b.example:5061", "1", ""), 200),
        ("nobody named", request("MESSAGE", "sip:b.example", "1", ""), 404),
        ("CANCEL of nothing", request("CANCEL", "sip:bob@b.example", "1", ""), 481),
        (
            "no dialog",
            base.replace("To: <sip:bob@b.example>", "To: <sip:bob@b.example>;tag=t1.x")
                .replace("OPTIONS", "BYE"),
            481,
        ),
    ]
}

#[test]
fn each_fault_has_its_answer_and_the_connection_lives() {
    for shards in [1, 2] {
        for (name, text, status) in &faults() {
            let mut world = clear(shards);
            let partner = world.partner((0, 0), TCP, PARTNER);
            let heard = world.say(partner, text);
            assert!(heard.starts_with(&format!("SIP/2.0 {status} ")), "{name}: {heard}");
            assert_eq!(header(&heard, "Via"), header(text, "Via"), "{name}");
            assert!(status < &300 || !heard.contains("SIP/2.0 200"), "{name}");
            assert!(!world.scripts[partner].closed, "{name}");
            match status {
                405 | 501 => assert!(heard.contains("Allow: INVITE, ACK"), "{heard}"),
                420 => assert!(heard.contains("Unsupported: com.microsoft.rtc-multiparty")),
                _ => {}
            }
            // It still works.
            let heard = world.say(partner, request("OPTIONS", "sip:bob@b.example", "9", ""));
            assert!(heard.starts_with("SIP/2.0 200"), "{name}: {heard}");
            world.at_rest(0);
        }
    }
}

#[test]
fn acks_and_benotifies_get_no_answer_whatever_is_wrong_with_them() {
    let mut world = clear(2);
    let partner = world.partner((0, 0), TCP, PARTNER);
    for method in ["ACK", "BENOTIFY"] {
        for from in ["a.example", "other.example"] {
            let text = request(method, "sip:bob@b.example", "1", "");
            assert_eq!(world.say(partner, text.replace("alice@a.example", from)), "");
        }
    }
    assert!(!world.scripts[partner].closed);
}

#[test]
fn a_lost_boundary_ends_the_connection_after_its_answer() {
    let good = request("OPTIONS", "sip:bob@b.example", "1", "");
    for (bad, answer) in [
        (good.replace("Content-Length: 0\r\n", ""), "SIP/2.0 400"),
        (good.replace("Length: 0", "Length: -999"), "SIP/2.0 400"),
        (good.replace("Length: 0", "Length: 0\r\nContent-Length: 7"), "SIP/2.0 400"),
        (good.replace("Length: 0", "Length: 99999999"), "SIP/2.0 413"),
        (
            good.replace("Subject", "x")
                .replace("Call-ID", &format!("X: {}\r\nCall-ID", "y".repeat(40_000))),
            "SIP/2.0 513",
        ),
        ("\0\0\0\0".to_owned(), ""),
    ] {
        let mut world = clear(1);
        let partner = world.partner((0, 0), TCP, PARTNER);
        let heard = world.say(partner, &bad);
        assert!(heard.starts_with(answer), "{bad:.300}: {heard}");
        assert!(world.scripts[partner].closed);
        assert_eq!(world.sum(0, |it| it.counters.sip.unframed), 1);
    }
}

#[test]
fn a_message_without_an_end_is_waited_for_but_not_for_ever() {
    let mut world = clear(1);
    let partner = world.partner((0, 0), TCP, PARTNER);
    world.say(partner, request("OPTIONS", "sip:bob@b.example", "1", ""));
    let half = request("OPTIONS", "sip:bob@b.example", "2", "");
    world.say(partner, &half[..half.len() - 9]);
    world.pass(Duration::from_secs(15));
    assert!(!world.scripts[partner].closed);
    world.pass(Duration::from_secs(10));
    assert!(world.scripts[partner].closed);
    assert_eq!(world.sum(0, |it| it.counters.sip.read_timeouts), 1);
    // And one that never says anything.
    let partner = world.partner((0, 0), TCP, PARTNER);
    world.pass(Duration::from_secs(40));
    assert!(world.scripts[partner].closed);
}

#[test]
fn an_idle_connection_is_closed_and_one_that_pings_is_not() {
    let mut world = clear(1);
    let idle = world.partner((0, 0), TCP, PARTNER);
    let alive = world.partner((0, 0), TCP, PARTNER);
    for partner in [idle, alive] {
        world.say(partner, request("OPTIONS", "sip:bob@b.example", "1", ""));
    }
    for _ in 0..8 {
        world.pass(Duration::from_secs(100));
        if !world.scripts[alive].closed {
            assert_eq!(world.say(alive, "\r\n\r\n"), "\r\n");
        }
    }
    assert!(world.scripts[idle].closed && !world.scripts[alive].closed);
}

#[test]
fn clear_text_is_believed_by_its_address_alone() {
    let mut world = clear(1);
    let stranger = world.partner((0, 0), TCP, "192.0.2.66:31000");
    let heard = world.say(stranger, request("OPTIONS", "sip:bob@b.example", "1", ""));
    assert!(heard.starts_with("SIP/2.0 403 "), "{heard}");
    assert_eq!(world.sum(0, |it| it.counters.sip.uncovered), 1);
    assert_eq!(world.trouble(), ["sip_identity_mismatch"]);
}

#[test]
fn a_reload_holds_for_the_next_request_of_a_connection_there_is() {
    let mut world = clear(2);
    let partner = world.partner((0, 0), TCP, PARTNER);
    let text = request("OPTIONS", "sip:bob@b.example", "1", "");
    assert!(world.say(partner, &text).starts_with("SIP/2.0 200 "));
    let policy = |it: &Policy| Policy::new(it.default.clone(), Vec::new());
    world.reload(0, |it| it.policy = policy(&it.policy).into());
    assert!(world.say(partner, &text).starts_with("SIP/2.0 403 "));
    assert!(!world.scripts[partner].closed);
    assert_eq!(world.trouble(), ["sip_denied"]);
}

#[test]
fn invite_its_100_its_cancel_and_its_ack() {
    for shards in [1, 2] {
        let mut world = clear(shards);
        world.silent = true;
        let partner = world.partner((0, 0), TCP, PARTNER);
        let invite = request("INVITE", "sip:bob@b.example", "1", "");
        assert_eq!(world.say(partner, &invite), "");
        world.pass(Duration::from_millis(300));
        let heard = world.heard(partner);
        assert!(heard.starts_with("SIP/2.0 100 Trying\r\n"), "{heard}");
        // Again: the same again.
        assert_eq!(world.say(partner, &invite), heard);
        let cancel = invite.replace("INVITE", "CANCEL");
        let heard = world.say(partner, &cancel);
        assert!(heard.contains("SIP/2.0 487 ") && heard.contains("SIP/2.0 200 OK"), "{heard}");
        assert!(heard.contains("CSeq: 1 CANCEL") && heard.contains("CSeq: 1 INVITE"));
        assert_eq!(world.say(partner, invite.replace("INVITE", "ACK")), "");
        assert!(world.say(partner, &cancel).starts_with("SIP/2.0 481 "));
        world.at_rest(0);
    }
}

#[test]
fn a_merged_request_is_refused_and_a_loop_too() {
    let mut world = clear(2);
    world.silent = true;
    let partner = world.partner((0, 0), TCP, PARTNER);
    let text = request("MESSAGE", "sip:bob@b.example", "1", "");
    assert_eq!(world.say(partner, &text), "");
    assert_eq!(world.say(partner, &text), "", "the same again is absorbed");
    let heard = world.say(partner, text.replace("z9hG4bK1", "z9hG4bKfork"));
    assert!(heard.starts_with("SIP/2.0 482 "), "{heard}");
    let via = "Via: SIP/2.0/TLS sip.b.example:5061;branch=z9hG4bKt1000000000000000000010000000000000001\r\n";
    let heard = world.say(partner, request("OPTIONS", "sip:bob@b.example", "2", via));
    assert!(heard.starts_with("SIP/2.0 482 "), "{heard}");
    // RFC 4320, 4.1: a 100 when a client would have given up repeating often.
    world.pass(Duration::from_secs(4));
    assert!(world.heard(partner).starts_with("SIP/2.0 100 "));
}

/// b.example and a node of another domain where a.example should be.
fn secure(far: &str, b_rules: &[&str]) -> World {
    let mut world = World::new();
    let ca = Ca::new();
    world.roots = crate::tls::Roots::from_pem(ca.pem.as_bytes()).0;
    let rule = || Rule { private_addresses: true, ..sip(Transport::Tls, Identity::Microsoft, &[]) };
    let tls = ca.store(far, &format!("sip.{far}"));
    world.add(far, 1, vec![("b.example", rule())], Vec::new(), tls);
    let rules = b_rules.iter().map(|it| (*it, rule())).collect();
    world.add("b.example", 2, rules, Vec::new(), ca.store("b.example", "sip.b.example"));
    for (node, domain) in ["a.example", "b.example"].into_iter().enumerate() {
        world.srv.insert(domain.to_owned(), found(&format!("sip.{domain}")));
        world.hosts.insert(format!("sip.{domain}"), vec![node_address(node, 5061).ip()]);
    }
    world.srv.insert("c.example".to_owned(), found("sip.c.example"));
    world
}

fn toward_b(method: &str) -> String {
    ours(method, "o1")
        .replace("alice@a.", "alice@x.")
        .replace("bob@b.", "bob@a.")
        .replace("@x.", "@b.")
        .replace("sip:alice@x.", "sip:alice@b.")
}

#[test]
fn a_certificate_of_another_is_refused_on_either_side() {
    // Nobody's.
    let mut world = secure("evil.example", &["a.example"]);
    world.send((0, 0), &toward_b("OPTIONS"), Class::New, "b.example");
    world.pass(Duration::from_millis(100));
    assert_eq!(world.sum(1, |it| it.counters.sip.strangers), 1);
    assert_eq!(world.sum(1, |it| it.counters.sip.received), 0);
    // A partner's, but not that of the domain it speaks for.
    let mut world = secure("c.example", &["a.example", "c.example"]);
    world.send((0, 0), &toward_b("OPTIONS"), Class::New, "b.example");
    world.pass(Duration::from_millis(100));
    assert_eq!(world.answers(0), ["403"]);
    assert_eq!(world.sum(1, |it| it.counters.sip.uncovered), 1);
    // Its own domain it may speak for, on the same connection.
    let own = toward_b("OPTIONS").replace("bob@a.", "bob@c.");
    world.send((0, 0), &own, Class::New, "b.example");
    assert_eq!(world.answers(0), ["200"]);
    // Theirs lacks the target's name: nothing is sent.
    let mut world = secure("evil.example", &["a.example"]);
    world.send((1, 0), &ours("OPTIONS", "o2"), Class::New, "a.example");
    world.pass(Duration::from_millis(100));
    assert_eq!(world.answers(1), ["Denied"]);
    assert_eq!(world.sum(0, |it| it.counters.sip.received), 0);
    assert_eq!(world.trouble().last().unwrap(), "sip_setup_failed out auth");
}

#[test]
fn without_a_certificate_nobody_is_heard() {
    let mut world = secure("a.example", &["a.example"]);
    let store = crate::shard::peer_tests::world::bare();
    let session =
        crate::tls::Session::client(&store, crate::tls::Use::S2s, None, "sip.b.example", false);
    let mut session = session.unwrap();
    let partner = world.partner((1, 0), TLS, PARTNER);
    for _ in 0..4 {
        let mut out = Vec::new();
        session.pending_out(&mut out);
        world.tell_script(partner, out);
        let heard = std::mem::take(&mut world.scripts[partner].heard);
        session.feed(&heard, &mut Vec::new()).unwrap_or_default();
    }
    assert!(world.scripts[partner].closed);
    assert_eq!(world.sum(1, |it| it.counters.sip.no_certificate), 1);
}

#[test]
fn the_srv_target_must_lie_in_the_domain() {
    for target in ["sip.b.example.evil.example", "a.sip.b.example", "xb.example", "other.example"] {
        let mut world = secure("a.example", &["a.example"]);
        world.srv.insert("b.example".to_owned(), found(target));
        world.send((0, 0), &toward_b("OPTIONS"), Class::New, "b.example");
        assert_eq!(world.answers(0), ["Denied"], "{target}");
        assert_eq!(world.sum(0, |it| it.counters.sip.foreign_targets), 1);
    }
    let mut world = secure("a.example", &["a.example"]);
    world.srv.remove("b.example");
    world.send((0, 0), &toward_b("OPTIONS"), Class::New, "b.example");
    assert_eq!(world.answers(0), ["Unresolved"]);
}

#[test]
fn an_address_has_only_so_many_connections_that_have_not_shown_whose_they_are() {
    let mut world = clear(1);
    world.reload(0, |it| {
        it.strangers_per_address = 2;
        it.listeners[0].proxies = vec!["198.51.100.1".parse().unwrap()];
    });
    let from = |world: &mut World, address: &str| {
        let partner = world.partner((0, 0), TCP, address);
        world.run();
        partner
    };
    let first = from(&mut world, "192.0.2.9:4001");
    from(&mut world, "192.0.2.9:4002");
    let third = from(&mut world, "192.0.2.9:4003");
    assert!(world.scripts[third].closed && !world.scripts[first].closed);
    // Behind a proxy the address counts that it reports.
    let header = |address: [u8; 4]| {
        let mut text = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        text.extend(address);
        text.extend([10, 0, 0, 2, 0x10, 0, 0x13, 0xc4]);
        text
    };
    for (address, admitted) in [
        ([192, 0, 2, 9], false),
        ([192, 0, 2, 77], true),
        ([192, 0, 2, 77], true),
        ([192, 0, 2, 77], false),
    ] {
        let partner = from(&mut world, "198.51.100.1:5000");
        world.tell_script(partner, header(address));
        assert_eq!(!world.scripts[partner].closed, admitted, "{address:?}");
    }
    // Who has shown whose it is does not count any more.
    world.say(first, request("OPTIONS", "sip:bob@b.example", "1", ""));
    let fourth = from(&mut world, "192.0.2.9:4004");
    assert!(!world.scripts[fourth].closed && !world.scripts[first].closed);
    assert_eq!(world.sum(0, |it| it.counters.strangers_refused), 3);
}
