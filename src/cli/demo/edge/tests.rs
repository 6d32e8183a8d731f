//! Two partners in conversation with each other, so that what they do is known without a switch between them.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::*;
use crate::control::authority::{Authority, Purpose};
use crate::time::Wall;

const DAY: u64 = 86_400_000_000;

fn authority() -> Authority {
    let now = crate::cli::demo::client::now().0;
    Authority::new("edges", Wall(now - DAY), Wall(now + DAY)).expect("an authority")
}

fn keys(authority: &Authority, names: &[&str]) -> Keys {
    let issued = authority.issue(names, Purpose::Both).expect("a certificate");
    Keys {
        certificate: issued.cert_pem,
        key: issued.key_pem,
        roots: authority.root_pem().to_owned(),
    }
}

fn edge(domain: &str, keys: Option<Keys>) -> Edge {
    let (domain, name) = (domain.to_owned(), format!("edge.{domain}"));
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    Edge::start(&Setup { domain, name, listen, keys, strict: false }).expect("a port")
}

fn acquaint(one: &Edge, domain: &str, other: &Edge) {
    let (domain, name) = (domain.to_owned(), format!("edge.{domain}"));
    one.partner(Partner { domain, name, address: other.listens });
}

fn pair(secure: bool) -> (Edge, Edge) {
    let authority = authority();
    let keys = |names: &[&str]| secure.then(|| keys(&authority, names));
    let here = edge("contoso.example", keys(&["edge.contoso.example"]));
    let there = edge("fabrikam.example", keys(&["edge.fabrikam.example"]));
    acquaint(&here, "fabrikam.example", &there);
    acquaint(&there, "contoso.example", &here);
    here.user("zoe");
    there.user("bob");
    (here, there)
}

fn held<T>(seen: Result<T, Trouble>) -> T {
    seen.unwrap_or_else(|it| panic!("{it}"))
}

fn without_faults(edges: &[&Edge]) {
    for edge in edges {
        assert_eq!(edge.faults(), Vec::<String>::new());
    }
}

fn presence(here: &Edge, there: &Edge) {
    let call = held(here.subscribe("zoe", "bob@fabrikam.example"));
    assert_eq!(held(here.answer(call)).status, 200);
    let first = held(here.next_in(call.dialog, "NOTIFY"));
    assert_eq!(first.header("Subscription-State"), "active;expires=7200");
    assert!(first.text().contains("<basic>open</basic>"));
    assert_eq!(held(there.publish("bob", true, "busy")), 1);
    let second = held(here.next_in(call.dialog, "NOTIFY"));
    assert!(second.text().contains("<ep:activity>busy</ep:activity>"));
    let call = held(here.refresh(call.dialog, 0));
    assert_eq!(held(here.answer(call)).header("Expires"), "0");
    let last = held(here.next_in(call.dialog, "NOTIFY"));
    assert_eq!(last.header("Subscription-State"), "terminated;reason=timeout");
    let call = held(here.refresh(call.dialog, 600));
    assert_eq!(held(here.answer(call)).status, 481);
}

fn conversation(here: &Edge, there: &Edge) {
    let call = held(here.invite("zoe", "bob@fabrikam.example"));
    let answer = held(here.answer(call));
    assert_eq!(answer.status, 200);
    let statuses: Vec<u16> = here.answers(call).iter().map(|it| it.status).collect();
    assert_eq!(statuses, [100, 101, 180, 180, 200]);
    let (_, session) = held(there.next_dialog("INVITE"));
    held(there.acknowledged(session));
    let text = held(here.message(call.dialog, "hi <bob>"));
    assert_eq!(held(here.answer(text)).status, 200);
    assert_eq!(held(there.next_in(session, "MESSAGE")).text(), "hi <bob>");
    let text = held(there.message(session, "hi zoë"));
    assert_eq!(held(there.answer(text)).status, 200);
    let heard = held(here.next_in(call.dialog, "MESSAGE"));
    assert_eq!((heard.text().as_str(), heard.reader), ("hi zoë", Reader::Own));
    let typing = held(here.typing(call.dialog, "type"));
    assert_eq!(held(here.answer(typing)).status, 200);
    assert!(held(there.next_in(session, "INFO")).text().contains("status=\"type\""));
    let bye = held(there.bye(session));
    assert_eq!(held(there.answer(bye)).status, 200);
    let late = held(here.message(call.dialog, "too late"));
    assert_eq!(held(here.answer(late)).status, 481);
}

#[test]
fn presence_texts_typing_and_goodbye_over_tls() {
    let (here, there) = pair(true);
    presence(&here, &there);
    conversation(&here, &there);
    without_faults(&[&here, &there]);
    // One connection served both directions.
    assert_eq!((here.counts().opened, there.counts().opened), (1, 0));
    assert!(here.counts().by_hand > 0 && here.counts().by_rsip > 0);
}

#[test]
fn the_same_in_clear_text() {
    let (here, there) = pair(false);
    presence(&here, &there);
    conversation(&here, &there);
    without_faults(&[&here, &there]);
}

#[test]
fn each_manner_of_telling() {
    let (here, there) = pair(true);
    for manner in [Manner::NotifyFirst, Manner::Piggyback, Manner::Benotify] {
        there.manner("bob", manner);
        let call = held(here.subscribe("zoe", "bob@fabrikam.example"));
        let answer = held(here.answer(call));
        match manner {
            Manner::Piggyback => assert!(answer.has("ms-piggyback-cseq"), "{answer:?}"),
            Manner::Benotify => drop(held(here.next("BENOTIFY", |it| it.method == "BENOTIFY"))),
            _ => drop(held(here.next_in(call.dialog, "NOTIFY"))),
        }
    }
}

#[test]
fn answers_on_demand() {
    let (here, there) = pair(false);
    there.answer_next(
        "SUBSCRIBE",
        Answer::status(423, "Interval Too Brief").with("Min-Expires: 900"),
    );
    let call = held(here.subscribe("zoe", "bob@fabrikam.example"));
    assert_eq!(held(here.answer(call)).header("Min-Expires"), "900");
    there.answer_next("INVITE", Answer::held());
    let call = held(here.invite("zoe", "bob@fabrikam.example"));
    held(there.answer_held("INVITE", &Answer::status(180, "Ringing")));
    held(there.answer_held("INVITE", &Answer::status(486, "Busy Here")));
    assert_eq!(held(here.answer(call)).status, 486);
    let call = held(here.subscribe("zoe", "nobody@fabrikam.example"));
    assert_eq!(held(here.answer(call)).status, 404);
}

#[test]
fn who_may_watch_is_decided_later() {
    let (here, there) = pair(false);
    there.rule("bob", Rule::Pending);
    let call = held(here.subscribe("zoe", "bob@fabrikam.example"));
    let first = held(here.next_in(call.dialog, "NOTIFY"));
    assert_eq!((first.header("Subscription-State"), first.body.len()), ("pending;expires=7200", 0));
    assert_eq!(held(there.decide("bob", Rule::Allow)), 1);
    let second = held(here.next_in(call.dialog, "NOTIFY"));
    assert_eq!(second.header("Subscription-State"), "active;expires=7200");
}

/// Microsoft's rule, and what a stranger's certificate gets.
#[test]
fn a_certificate_for_another_name_gets_a_bare_504() {
    let authority = authority();
    let here = edge("contoso.example", Some(keys(&authority, &["contoso.example"])));
    let there = edge("fabrikam.example", Some(keys(&authority, &["edge.fabrikam.example"])));
    acquaint(&here, "fabrikam.example", &there);
    acquaint(&there, "contoso.example", &here);
    let call = held(here.subscribe("zoe", "bob@fabrikam.example"));
    let answer = held(here.answer(call));
    assert_eq!((answer.status, answer.has("ms-diagnostics-public")), (504, false));
    assert_eq!(there.counts().mismatches, 1);
    let stranger =
        edge("contoso.example", Some(keys(&self::authority(), &["edge.contoso.example"])));
    acquaint(&stranger, "fabrikam.example", &there);
    assert!(stranger.subscribe("zoe", "bob@fabrikam.example").is_err());
    let quiet = here.none(Duration::from_millis(20), |_| true);
    assert!(quiet.is_ok());
}

/// What a visitor of the demo finds at the far end.
#[test]
fn texts_are_answered_when_nobody_plays() {
    let (here, there) = pair(true);
    thread::spawn(move || crate::cli::demo::across::answer_texts(&there));
    let call = held(here.invite("zoe", "bob@fabrikam.example"));
    assert_eq!(held(here.answer(call)).status, 200);
    held(here.message(call.dialog, "anybody?"));
    let back = held(here.next_in(call.dialog, "MESSAGE"));
    assert_eq!(back.text(), "Zoe here, behind SIP. You said: anybody?");
}
