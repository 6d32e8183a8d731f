//! Two nodes and scripted peers: the streams between domains as conversations.

mod watches;
pub(super) mod world;

use std::net::SocketAddr;
use std::time::Duration;

use world::{Ca, HEADER, Node, World, address, bare, rule, script_address};

use crate::limits::WAY_QUEUE_TIME_MAX;
use crate::policy::{PeerAuth, Rule, Security};
use crate::route::shard_of_domain;
use crate::shard::kernel::{Event, Order};
use crate::tls;

/// a.example and b.example in clear text, each knowing where the other is.
fn plain(shards: u16) -> World {
    let mut world = World::new();
    for (i, domain) in ["a.example", "b.example"].into_iter().enumerate() {
        let other = ["b.example", "a.example"][i];
        let (auth, security) = (PeerAuth::Dialback, Security::Optional);
        let rules = vec![
            (other, rule(auth, security, &[address(1 - i)])),
            ("script.example", rule(auth, security, &[script_address()])),
            ("hole.example", rule(auth, security, &[SocketAddr::from(([127, 0, 0, 77], 1)); 9])),
            ("self.example", rule(auth, security, &[address(i)])),
            ("denied.example", Rule { allow: false, ..rule(auth, security, &[]) }),
        ];
        world.add(Node { domain, shards, auth, security, rules, tls: bare() });
    }
    world
}

fn message(to: &str, id: &str) -> String {
    format!("<message to='{to}' type='chat' id='{id}'><body>{id}</body></message>")
}

#[test]
fn a_message_each_way_over_dialback_on_one_and_two_shards() {
    for shards in [1, 2, 3] {
        let mut world = plain(shards);
        let x = world.client(0, "x@a.example/1");
        let y = world.client(1, "y@b.example/1");
        world.say(x, &message("y@b.example/1", "m1"));
        let heard = world.heard(y);
        assert_eq!(
            heard,
            "<message from='x@a.example/1' to='y@b.example/1' type='chat' id='m1'><body>m1</body></message>",
            "{shards} {:?}",
            world.notices
        );
        world.say(y, &message("x@a.example/1", "m2"));
        let heard = world.heard(x);
        assert!(heard.contains("id='m2'") && !heard.contains("error"), "{heard}");
        assert_eq!(world.sum(0, |it| it.counters.peer_streams_out), 1);
        assert_eq!(world.sum(0, |it| it.counters.peer_streams_in), 1);
        assert_eq!(world.sum(1, |it| it.counters.dialback_valid), 1);
        // To nobody: the error comes back over the other stream.
        let heard = world.say(x, &message("nobody@b.example", "m3")) + &world.heard(x);
        assert!(heard.contains("type='error'") && heard.contains("id='m3'"), "{heard}");
        assert_eq!(world.trouble(), Vec::<String>::new());
        world.balanced();
    }
}

#[test]
fn a_thousand_messages_keep_their_order_while_the_stream_is_made() {
    for size in [10, 700] {
        let mut world = plain(2);
        let x = world.client(0, "x@a.example/1");
        let y = world.client(1, "y@b.example/1");
        let body = "z".repeat(size);
        let all: String = (0..1_000)
            .map(|i| {
                format!("<message to='y@b.example/1' type='chat' id='m{i}'><body>{body}</body></message>")
            })
            .collect();
        world.say(x, &all);
        let heard = world.heard(y);
        let ids: Vec<usize> = heard
            .split(" id='m")
            .skip(1)
            .map(|it| it.split('\'').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(ids, (0..1_000).collect::<Vec<_>>());
        world.balanced();
    }
}

#[test]
fn a_wrong_key_is_called_invalid_and_the_stream_ends() {
    let mut world = plain(2);
    let peer = world.peer((1, 0));
    let heard = world.say(peer, &format!("{HEADER} from='a.example' to='b.example'>"));
    assert!(heard.contains("<dialback xmlns='urn:xmpp:features:dialback'><errors/>"), "{heard}");
    let heard = world.say(peer, "<db:result from='a.example' to='b.example'>00</db:result>");
    assert_eq!(
        heard,
        "<db:result from='b.example' to='a.example' type='invalid'/></stream:stream>"
    );
    assert!(world.scripts[peer].closed);
    assert_eq!(world.sum(1, |it| it.counters.dialback_invalid), 1);
    assert_eq!(world.trouble(), ["peer_setup_failed in dialback"]);
}

#[test]
fn what_nobody_asked_for_is_dropped_and_counted() {
    let mut world = plain(1);
    let peer = world.peer((1, 0));
    world.say(peer, &format!("{HEADER} from='a.example' to='b.example'>"));
    let unasked = "<db:result from='a.example' to='b.example' type='valid'/>\
         <db:verify from='a.example' to='b.example' id='1' type='valid'/>";
    assert_eq!(world.say(peer, unasked), "");
    assert_eq!(world.sum(1, |it| it.counters.dialback_unsolicited), 2);
    let stanza = "<message from='x@a.example' to='y@b.example'><body>hi</body></message>";
    let heard = world.say(peer, stanza);
    assert!(heard.contains("<not-authorized ") && world.scripts[peer].closed, "{heard}");
}

#[test]
fn answers_on_our_stream_need_a_question_and_stanzas_are_refused() {
    let mut world = plain(1);
    world.scripted = Some(script_address());
    let x = world.client(0, "x@a.example/1");
    world.say(x, &message("y@script.example", "m1"));
    let peer = world.scripts.len() - 1;
    assert!(world.heard(peer).contains("to='script.example'"));
    let features =
        "<stream:features><dialback xmlns='urn:xmpp:features:dialback'/></stream:features>";
    let heard = world.say(
        peer,
        &format!("{HEADER} from='script.example' id='<&amp;1'>").replace("'<&amp;1", "'&lt;&amp;1"),
    );
    assert_eq!(heard, "");
    let heard = world.say(peer, features);
    assert!(heard.starts_with("<db:result from='a.example' to='script.example'>"), "{heard}");
    let heard = world.say(
        peer,
        "<db:result from='other.example' to='a.example' type='valid'/>\
        <db:result from='script.example' to='c.example' type='valid'/>\
        <db:verify from='script.example' to='a.example' id='9' type='valid'/>",
    );
    assert_eq!((heard.as_str(), world.sum(0, |it| it.counters.dialback_unsolicited)), ("", 3));
    let heard = world.say(peer, "<db:result from='script.example' to='a.example' type='valid'/>");
    assert!(heard.contains("id='m1'"), "{heard}");
    let heard =
        world.say(peer, "<message from='y@script.example' to='x@a.example'><body/></message>");
    assert!(heard.contains("<not-authorized ") && world.scripts[peer].closed, "{heard}");
}

#[test]
fn the_answer_to_our_key_decides_how_the_queue_bounces() {
    for (answer, condition) in [
        ("type='invalid'/>", "internal-server-error"),
        (
            "type='error'><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></db:result>",
            "remote-server-timeout",
        ),
        ("", "remote-server-timeout"),
    ] {
        let mut world = plain(1);
        world.scripted = Some(script_address());
        let x = world.client(0, "x@a.example/1");
        world.say(x, &message("y@script.example", "m1"));
        let peer = world.scripts.len() - 1;
        world.say(peer, &format!("{HEADER} from='script.example' id='1'><stream:features/>"));
        if answer.is_empty() {
            world.pass(Duration::from_secs(21));
        } else {
            world.say(peer, &format!("<db:result from='script.example' to='a.example' {answer}"));
        }
        let heard = world.heard(x);
        assert!(heard.contains(condition), "{answer}: {heard}");
        assert_eq!(world.scripts[peer].closed, !answer.contains("error"), "{answer}");
        assert_eq!(world.trouble(), ["peer_setup_failed out dialback"]);
        world.balanced();
    }
}

#[test]
fn who_cannot_be_found_or_may_not_be_talked_to_is_named() {
    for (domain, condition) in [
        ("nowhere.example", "remote-server-not-found"),
        ("self.example", "remote-server-not-found"),
        ("denied.example", "not-allowed"),
    ] {
        let mut world = plain(2);
        let x = world.client(0, "x@a.example/1");
        world.say(x, &message(&format!("y@{domain}"), "m1"));
        let heard = world.heard(x);
        assert!(heard.contains(condition) && heard.contains("id='m1'"), "{domain}: {heard}");
        let trouble: &[&str] =
            if condition == "not-allowed" { &[] } else { &["peer_setup_failed out dns"] };
        assert_eq!(world.trouble(), trouble);
        world.balanced();
    }
}

#[test]
fn a_stanza_waits_for_its_deadline_and_no_longer() {
    let mut world = plain(1);
    let x = world.client(0, "x@a.example/1");
    world.say(x, &message("y@hole.example", "m1"));
    world.pass(Duration::from_secs(5));
    world.say(x, &message("y@hole.example", "m2"));
    world.pass(WAY_QUEUE_TIME_MAX - Duration::from_secs(6));
    assert_eq!(world.heard(x), "");
    world.pass(Duration::from_secs(2));
    let heard = world.heard(x);
    assert!(heard.contains("id='m1'") && heard.contains("remote-server-timeout"), "{heard}");
    assert!(!heard.contains("id='m2'"), "{heard}");
    world.pass(Duration::from_secs(5));
    assert!(world.heard(x).contains("id='m2'"));
    world.balanced();
    // Nobody waits and nobody came: it is forgotten in time.
    world.pass(Duration::from_secs(700));
    assert_eq!(world.sum(0, |it| it.ways.len() as u64), 0);
}

#[test]
fn a_peer_speaks_only_for_its_own() {
    let proven = |world: &mut World| {
        let x = world.client(0, "x@a.example/1");
        world.say(x, &message("y@b.example", "m0"));
        // A scripted peer beside the real one, with a key that the real one vouches for.
        let peer = world.peer((1, 0));
        let heard = world.say(peer, &format!("{HEADER} from='a.example' to='b.example'>"));
        let id = heard.split(" id='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
        let (shard, _) = &world.shards[&(0, 0)];
        let key = shard.secrets().key("b.example", "a.example", &id);
        let heard = world
            .say(peer, &format!("<db:result from='a.example' to='b.example'>{key}</db:result>"));
        assert_eq!(heard, "<db:result from='b.example' to='a.example' type='valid'/>");
        peer
    };
    for (stanza, fault) in [
        ("<message from='x@a.example' to='y@b.example/1'/>", None),
        ("<message from='x@c.example' to='y@b.example'/>", Some("invalid-from")),
        ("<message from='x@a.example' to='y@c.example'/>", Some("host-unknown")),
        ("<message from='x@a.example'/>", Some("improper-addressing")),
        ("<message to='y@b.example'/>", Some("improper-addressing")),
        ("<message from='@a.example' to='y@b.example'/>", Some("improper-addressing")),
        ("<foo/>", Some("unsupported-stanza-type")),
    ] {
        let mut world = plain(1);
        let peer = proven(&mut world);
        let y = world.client(1, "y@b.example/1");
        let heard = world.say(peer, stanza);
        match fault {
            None => assert!(world.heard(y).contains("from='x@a.example'")),
            Some(fault) => assert!(heard.contains(&format!("<{fault} ")), "{stanza}: {heard}"),
        }
        assert_eq!(world.scripts[peer].closed, fault.is_some(), "{stanza}");
        world.balanced();
    }
    // More pairs on the same stream: refused ones leave it alone.
    let mut world = plain(1);
    let peer = proven(&mut world);
    for (from, to, condition) in [
        ("a.example", "c.example", "item-not-found"),
        ("denied.example", "b.example", "not-authorized"),
        ("b.example", "b.example", "not-authorized"),
        ("nowhere.example", "b.example", "remote-server-not-found"),
    ] {
        let heard = world.say(peer, &format!("<db:result from='{from}' to='{to}'>00</db:result>"));
        assert!(heard.contains(condition), "{from} {to}: {heard}");
        assert!(!world.scripts[peer].closed);
    }
}

#[test]
fn headers_that_cannot_be_served_are_answered_by_name() {
    for (header, fault) in [
        ("from='a.example' to='c.example'>", "host-unknown"),
        ("from='a.example'>", "host-unknown"),
        ("from='..' to='b.example'>", "improper-addressing"),
        ("from='b.example' to='b.example'>", "invalid-from"),
    ] {
        let mut world = plain(1);
        let peer = world.peer((1, 0));
        let heard = world.say(peer, &format!("{HEADER} {header}"));
        assert!(heard.starts_with("<?xml version='1.0'?><stream:stream "), "{heard}");
        assert!(heard.contains(&format!("<{fault} ")), "{header}: {heard}");
        assert!(heard.ends_with("</stream:stream>") && world.scripts[peer].closed);
    }
}

#[test]
fn a_stop_says_goodbye_and_bounces_what_waits() {
    let mut world = plain(2);
    let x = world.client(0, "x@a.example/1");
    let y = world.client(1, "y@b.example/1");
    world.say(x, &message("y@b.example/1", "m1"));
    assert!(world.heard(y).contains("m1"));
    world.say(x, &message("y@hole.example", "m2"));
    for shard in [0, 1] {
        world.event((0, shard), Event::Ordered(Order::Stop));
    }
    let heard = world.heard(x);
    assert!(heard.contains("id='m2'") && heard.contains("system-shutdown"), "{heard}");
    assert_eq!(world.sum(0, |it| it.conns.len() as u64), 0);
    // The other side has lost its streams in order and is well.
    world.listening.clear();
    world.say(y, &message("x@a.example/1", "m3"));
    world.pass(Duration::from_secs(9));
    assert!(world.heard(y).contains("remote-server-timeout"));
}

/// Both over TLS; `trusted`: a's certificate and b's are believed.
fn secured(auth: [PeerAuth; 2], security: Security, trusted: [bool; 2]) -> World {
    let mut world = World::new();
    let (good, bad) = (Ca::new(), Ca::new());
    world.roots = tls::Roots::from_pem(good.pem.as_bytes()).0;
    for (i, domain) in ["a.example", "b.example"].into_iter().enumerate() {
        let other = ["b.example", "a.example"][i];
        let rules = vec![(other, rule(auth[i], security, &[address(1 - i)]))];
        let ca = if trusted[i] { &good } else { &bad };
        let tls = ca.store(domain, domain);
        world.add(Node { domain, shards: 2, auth: auth[i], security, rules, tls });
    }
    world
}

#[test]
fn certificates_and_rules_decide_how_it_is_proven() {
    use PeerAuth::{Both, Dialback, External};
    for security in [Security::StartTls, Security::Direct] {
        for (auth, trusted, keys, reaches) in [
            // Good on both sides: no key is shown.
            ([Both, Both], [true, true], 0, true),
            ([External, External], [true, true], 0, true),
            // Ours is not believed: dialback, since theirs is good. They ask our server about the
            // key, whose certificate must be good then, and is not.
            ([Both, Both], [false, true], 0, false),
            ([Both, Dialback], [false, true], 1, true),
            // We show nothing but a key; a good certificate shortens it.
            ([Dialback, Dialback], [true, true], 1, true),
            ([Dialback, Dialback], [false, false], 1, true),
            // Theirs is not believed.
            ([Both, Dialback], [true, false], 0, false),
            ([External, Dialback], [true, true], 0, false),
            ([Dialback, External], [true, false], 0, false),
        ] {
            let case = format!("{security:?} {auth:?} {trusted:?}");
            let mut world = secured(auth, security, trusted);
            let x = world.client(0, "x@a.example/1");
            let y = world.client(1, "y@b.example/1");
            world.say(x, &message("y@b.example/1", "m1"));
            let heard = world.heard(y);
            assert_eq!(heard.contains("id='m1'"), reaches, "{case}: {:?}", world.notices);
            assert_eq!(world.sum(1, |it| it.counters.dialback_valid), keys, "{case}");
            let heard = world.heard(x);
            let bounced = heard.contains("remote-server-timeout");
            assert_eq!(bounced, !reaches, "{case}: {heard} {:?}", world.notices);
            assert_eq!(world.trouble().is_empty(), reaches, "{case}: {:?}", world.notices);
            world.balanced();
        }
    }
}

#[test]
fn octets_behind_starttls_end_the_connection() {
    let mut world = secured([PeerAuth::Both; 2], Security::StartTls, [true; 2]);
    let peer = world.peer((1, 0));
    let heard = world.say(peer, &format!("{HEADER} from='a.example' to='b.example'>"));
    assert!(heard.contains("<required/>"), "{heard}");
    let heard = world.say(peer, "<db:result from='a.example' to='b.example'>00</db:result>");
    assert!(heard.contains("<policy-violation "), "{heard}");
    world.say(peer, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><message/>");
    assert!(world.scripts[peer].closed);
}

#[test]
fn two_shards_agree_on_whose_way_it_is() {
    let owner = shard_of_domain("b.example", 2);
    let mut world = plain(2);
    let x = world.client(0, "x@a.example/1");
    world.say(x, &message("y@b.example", "m1"));
    assert_eq!(world.shards[&(0, owner)].0.ways.len(), 1);
    assert_eq!(world.shards[&(0, 1 - owner)].0.ways.len(), 0);
}

#[test]
fn who_only_has_a_key_verified_is_answered_and_seen_off() {
    let mut world = plain(2);
    let key = world.shards[&(1, 0)].0.secrets().key("a.example", "b.example", "<1>");
    let peer = world.peer((1, 1));
    world.say(peer, &format!("{HEADER} from='a.example' to='b.example'>"));
    let ask = |to: &str, id: &str| {
        format!("<db:verify from='a.example' to='{to}' id='{id}'>{key}</db:verify>")
    };
    let heard = world.say(peer, &ask("b.example", "&lt;1>"));
    assert_eq!(heard, "<db:verify from='b.example' to='a.example' id='&lt;1&gt;' type='valid'/>");
    let heard = world.say(peer, &ask("b.example", "2"));
    assert_eq!(heard, "<db:verify from='b.example' to='a.example' id='2' type='invalid'/>");
    assert!(world.say(peer, &ask("c.example", "2")).contains("<item-not-found "));
    world.heard(peer);
    world.pass(Duration::from_secs(16));
    assert_eq!(world.heard(peer), "</stream:stream>");
    assert!(world.scripts[peer].closed && world.trouble().is_empty());
}

#[test]
fn a_stranger_has_a_small_budget() {
    let key = "<db:verify from='a.example' to='b.example' id='1'>00</db:verify>";
    let long =
        format!("<db:result from='a.example' to='b.example'>{}</db:result>", "0".repeat(9_000));
    for text in [key.repeat(40), long] {
        let mut world = plain(1);
        let peer = world.peer((1, 0));
        world.say(peer, &format!("{HEADER} from='a.example' to='b.example'>"));
        let heard = world.say(peer, &text);
        assert!(heard.contains("<policy-violation ") && world.scripts[peer].closed, "{heard}");
    }
    let mut world = plain(1);
    let peer = world.peer((1, 0));
    world.pass(Duration::from_secs(6));
    assert!(world.heard(peer).contains("<connection-timeout "));
}

#[test]
fn a_pause_ends_when_the_peer_shows_itself() {
    let mut world = plain(2);
    let x = world.client(0, "x@a.example/1");
    let y = world.client(1, "y@b.example/1");
    // b is away: nobody answers at its address, and the pauses grow.
    let away = world.listening.remove(&address(1)).unwrap();
    for i in 0..5 {
        world.say(x, &message("y@b.example/1", &format!("m{i}")));
        while !world.heard(x).contains("remote-server-timeout") {
            world.pass(Duration::from_millis(100));
        }
    }
    world.listening.insert(address(1), away);
    world.say(x, &message("y@b.example/1", "last"));
    world.pass(Duration::from_secs(3));
    assert_eq!(world.heard(y), "", "the fifth pause is eight seconds or more");
    world.say(y, &message("x@a.example/1", "here"));
    world.pass(Duration::from_secs(1));
    assert!(world.heard(x).contains("id='here'"));
    assert!(world.heard(y).contains("id='last'"));
    world.balanced();
}

#[test]
fn a_stream_that_they_end_is_made_anew_for_what_comes_next() {
    for farewell in [
        "</stream:stream>",
        "<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>",
    ] {
        let mut world = plain(1);
        world.scripted = Some(script_address());
        let x = world.client(0, "x@a.example/1");
        world.say(x, &message("y@script.example", "m1"));
        for round in ["m1", "m2"] {
            let peer = world.scripts.len() - 1;
            world.say(peer, &format!("{HEADER} from='script.example' id='1'><stream:features/>"));
            let valid = "<db:result from='script.example' to='a.example' type='valid'/>";
            assert!(world.say(peer, valid).contains(&format!("id='{round}'")));
            assert!(world.say(peer, farewell).contains("</stream:stream>"));
            assert!(world.scripts[peer].closed);
            world.say(x, &message("y@script.example", "m2"));
            world.pass(Duration::from_millis(1_100));
            assert_eq!(world.scripts.len() - 1, peer + 1, "{farewell}");
        }
        assert_eq!(world.heard(x), "");
    }
}
