//! An edge without a socket: what it says, hears and counts.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::flows::sip::Edges;
use crate::ledger::Ledger;
use crate::mark::{self, Mark};
use crate::pairs::Pairs;
use crate::party::{Cast as _, Desk, Order, Party, PartyId, Wish};
use crate::scenario::model::{
    Flow, Kind, Population, Scenario, Side, Size, Target, Tls, Transport,
};

const CLIENT: &str = "u0@d.example";
const EDGE: &str = "e0@edge.example";

fn population(name: &str, side: Side, address: &str, pager: bool) -> Population {
    Population {
        name: name.to_owned(),
        side,
        target: "default".to_owned(),
        users: 2,
        address: address.to_owned(),
        domains: 1,
        password: String::new(),
        sasl: None,
        roster: false,
        presence: false,
        managed: false,
        sources: Vec::new(),
        listen: Some(SocketAddr::from(([127, 0, 0, 5], 5_066))),
        listen_dns: None,
        dialback: false,
        pager,
        template: None,
        certificates: None,
        transport: Transport::Tcp,
        connect_per_s: 0,
    }
}

struct Stand {
    edges: Edges,
    line: Box<dyn Party>,
    ledger: Ledger,
    wishes: Vec<Wish>,
    now_ns: u64,
}

impl Stand {
    fn new(kind: Kind, from_edge: bool, pager: bool, transport: Transport) -> Self {
        let size = Size { p50: 100, p99: 100, max: 100 };
        let (from, to) = if from_edge { ("e", "c") } else { ("c", "e") };
        let flow = Flow {
            name: "f".to_owned(),
            kind,
            from: from.to_owned(),
            to: to.to_owned(),
            share: 1.0,
            size,
            watchers: 1,
            presentities: 1,
            random_pairs: false,
            expires_s: 60,
            read_octets_per_s: 0,
            cut: 0.5,
        };
        let target = Target {
            name: "default".to_owned(),
            addresses: vec![SocketAddr::from(([127, 0, 0, 1], 5_060))],
            domain: "d.example".to_owned(),
            tls: Tls::None,
            pid: None,
        };
        let mut edge = population("e", Side::Edge, "e%d@edge.example", pager);
        edge.transport = transport;
        let scenario = Scenario {
            targets: vec![target],
            populations: vec![population("c", Side::Client, "u%d@d.example", false), edge],
            flows: vec![flow],
            ..Scenario::default()
        };
        let pairs = Arc::new(Pairs::of(&scenario));
        let edges = Edges::new(&scenario, 1, &pairs).unwrap();
        let line = edges.dial(0).party;
        let ledger = Ledger::new(&[4]);
        Self { edges, line, ledger, wishes: Vec::new(), now_ns: 1_000 }
    }

    fn call(&mut self, f: impl FnOnce(&mut dyn Party, &mut Desk<'_>)) -> String {
        let mut out = Vec::new();
        self.wishes.clear();
        let (ledger, wishes) = (&mut self.ledger, &mut self.wishes);
        let now_ns = self.now_ns;
        let me = PartyId(0);
        f(&mut *self.line, &mut Desk { me, thread: 0, now_ns, out: &mut out, ledger, wishes });
        String::from_utf8(out).unwrap()
    }

    fn hears(&mut self, text: &str) -> String {
        self.call(|party, desk| party.received(text.as_bytes(), desk))
    }

    fn message(&mut self) -> String {
        let order = Order::MessageFrom {
            flow: 0,
            pair: 0,
            from: EDGE.into(),
            to: "u0@d.example/r".into(),
            octets: 100,
            intended_ns: 500,
        };
        self.call(|party, desk| party.order(order, desk))
    }

    fn failed(&self, step: &str, reason: &str) -> u64 {
        self.ledger.steps.get(step).and_then(|it| it.failed.get(reason)).copied().unwrap_or(0)
    }
}

fn value<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_default()
}

fn answer(to: &str, status: &str, more: &str) -> String {
    format!(
        "SIP/2.0 {status}\r\nVia: {}\r\nFrom: {}\r\nTo: {};tag=far\r\nCall-ID: {}\r\nCSeq: {}\r\n\
         {more}Content-Length: 0\r\n\r\n",
        value(to, "Via"),
        value(to, "From"),
        value(to, "To"),
        value(to, "Call-ID"),
        value(to, "CSeq"),
    )
}

const CONTACT: &str = "Contact: <sip:gw@127.0.0.1:5060>\r\n";

fn request(method: &str, call: &str, cseq: u32, to: &str, more: &str, body: &str) -> String {
    format!(
        "{method} sip:{to} SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK{cseq}\r\n\
         From: <sip:{CLIENT}>;tag=far\r\nTo: <sip:{to}>\r\nCall-ID: {call}\r\nCSeq: {cseq} {method}\r\n\
         {CONTACT}{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn a_text_waits_for_its_session_and_a_lost_one_is_begun_anew() {
    let mut it = Stand::new(Kind::Message, true, false, Transport::Tcp);
    let invite = it.message();
    assert!(invite.starts_with("INVITE sip:u0@d.example SIP/2.0\r\n"), "{invite}");
    assert_eq!(it.message(), "");
    let said = it.hears(&answer(&invite, "200 OK", CONTACT));
    assert!(said.starts_with("ACK sip:gw@127.0.0.1:5060 SIP/2.0\r\n"), "{said}");
    assert_eq!(said.matches("\r\nMESSAGE sip:gw").count() + said.matches("xMESSAGE").count(), 2);
    let next = it.message();
    assert!(next.starts_with("MESSAGE sip:gw@127.0.0.1:5060"), "{next}");
    assert!(next.contains(";tag=far\r\n"), "{next}");
    assert_eq!(it.hears(&answer(&next, "481 Gone", "")), "");
    assert_eq!(it.ledger.flows[0].counts.bounced.get("481"), Some(&1));
    assert!(it.message().starts_with("INVITE "));
    assert_eq!(it.ledger.flows[0].counts.sent, 4);
    assert_eq!(it.ledger.flows[0].counts.corrupt, 0);
}

#[test]
fn answers_that_are_wrong_are_counted_by_kind() {
    let mut it = Stand::new(Kind::Message, true, true, Transport::Tcp);
    let text = it.message();
    assert!(text.starts_with("MESSAGE sip:u0@d.example"), "{text}");
    let right = answer(&text, "200 OK", "");
    it.hears(&right.replace("CSeq: 1 ", "CSeq: 2 "));
    assert_eq!(it.failed("answer", "wrong CSeq"), 1);
    it.hears(&right.replace("Call-ID: tl", "Call-ID: x"));
    assert_eq!(it.failed("answer", "wrong Call-ID"), 1);
    it.hears(&right);
    it.hears(&right);
    assert_eq!(it.failed("retransmission", "of no transaction"), 1);
    assert_eq!(it.ledger.steps["message"].ok, 1);
    it.hears("SIP/2.0 200 OK\r\n\r\n");
    assert!(matches!(&it.wishes[..], [Wish::Fail("sip", _)]));
    for garbage in ["\0\u{1}\r\n\r\n", "x\r\nContent-Length: 18446744073709551615\r\n\r\n"] {
        it.hears(garbage);
        assert!(matches!(&it.wishes[..], [Wish::Fail("sip", _)]), "{garbage:?}");
    }
}

#[test]
fn a_server_that_stalls_is_given_up() {
    let mut it = Stand::new(Kind::Message, true, true, Transport::Tcp);
    it.message();
    it.now_ns += 33_000_000_000;
    it.call(|party, desk| party.due(desk));
    assert_eq!(it.ledger.flows[0].counts.bounced.get("408"), Some(&1));
    it.message();
    it.call(|party, desk| party.gone(false, desk));
    assert_eq!(it.ledger.flows[0].counts.bounced.get("503"), Some(&1));
}

#[test]
fn datagrams_are_said_again_and_repeats_of_theirs_are_not_taken_twice() {
    let mut it = Stand::new(Kind::Message, true, true, Transport::Udp);
    let text = it.message();
    assert!(matches!(it.wishes.first(), Some(Wish::To(_, octets)) if *octets == text.len()));
    it.now_ns += 600_000_000;
    assert_eq!(it.call(|party, desk| party.due(desk)), text);
    assert_eq!(it.failed("retransmission", "ours"), 1);

    let mut it = Stand::new(Kind::Message, false, true, Transport::Udp);
    let mut body = Vec::new();
    mark::put(Mark { flow: 0, seq: 0, at_ns: 5 }, 6, 100, &mut body);
    let came = request("MESSAGE", "c1", 1, EDGE, "", std::str::from_utf8(&body).unwrap());
    let from = SocketAddr::from(([127, 0, 0, 1], 5_060));
    let first = it.call(|party, desk| party.datagram(from, came.as_bytes(), desk));
    let again = it.call(|party, desk| party.datagram(from, came.as_bytes(), desk));
    assert!(first.starts_with("SIP/2.0 200 OK\r\n") && first == again, "{first}");
    assert_eq!(it.failed("retransmission", "theirs"), 1);
    let counts = &it.ledger.flows[0].counts;
    assert_eq!((counts.delivered, counts.duplicated, counts.corrupt), (1, 0, 0));
}

#[test]
fn a_watcher_stands_is_told_and_refreshes() {
    let mut it = Stand::new(Kind::Subscribe, true, false, Transport::Tcp);
    let order = Order::Subscribe {
        flow: 0,
        pair: 0,
        from: EDGE.into(),
        to: CLIENT.into(),
        expires_s: 60,
        intended_ns: 500,
    };
    let ask = it.call(|party, desk| party.order(order, desk));
    assert!(ask.starts_with("SUBSCRIBE sip:u0@d.example"), "{ask}");
    it.hears(&answer(&ask, "200 OK", &format!("{CONTACT}Expires: 60\r\n")));
    let call = value(&ask, "Call-ID").to_owned();
    let more = "Event: presence\r\nSubscription-State: active;expires=60\r\n";
    let said = it.hears(&request("NOTIFY", &call, 1, EDGE, more, ""));
    assert!(said.starts_with("SIP/2.0 200 OK"), "{said}");
    assert_eq!(it.ledger.flows[0].counts.delivered, 1);
    assert_eq!(it.ledger.steps["subscribe_notify"].ok, 1);
    it.now_ns += 48_000_000_001;
    let again = it.call(|party, desk| party.due(desk));
    assert!(again.contains("SUBSCRIBE sip:gw@127.0.0.1:5060"), "{again}");
    let anew = it.hears(&answer(&again, "481 Unknown", ""));
    let _ = anew;
    let fresh = it.call(|party, desk| party.due(desk));
    assert!(fresh.starts_with("SUBSCRIBE sip:u0@d.example"), "{fresh}");
    let said = it.hears(&request("NOTIFY", "nobody", 1, EDGE, more, ""));
    assert!(said.starts_with("SIP/2.0 481 "), "{said}");
    assert_eq!(it.failed("notify", "in no dialog"), 1);
}

#[test]
fn who_watches_an_edge_is_told_of_each_change() {
    let mut it = Stand::new(Kind::Presence, true, false, Transport::Tcp);
    let more = "Event: presence\r\nExpires: 600\r\n";
    let said = it.hears(&request("SUBSCRIBE", "w1", 1, EDGE, more, ""));
    assert!(said.starts_with("SIP/2.0 200 OK") && said.contains("NOTIFY sip:gw@"), "{said}");
    let order = Order::Presence { flow: 0, pair: 0, octets: 100, intended_ns: 500 };
    let told = it.call(|party, desk| party.order(order, desk));
    assert!(
        told.contains("<note>tl1 ") && told.contains("To: <sip:u0@d.example>;tag=far"),
        "{told}"
    );
    let said = it.hears(&request("SUBSCRIBE", "w2", 1, "nobody@edge.example", more, ""));
    assert!(said.starts_with("SIP/2.0 404"), "{said}");
}

#[test]
fn an_edge_that_watches_waits_until_all_are_active() {
    let mut it = Stand::new(Kind::Presence, false, false, Transport::Tcp);
    assert!(it.edges.unready().is_some());
    it.call(|party, desk| party.opened(desk));
    let ask = it.call(|party, desk| party.due(desk));
    it.hears(&answer(&ask, "200 OK", CONTACT));
    let mut note = Vec::new();
    mark::put(Mark { flow: 0, seq: 0, at_ns: 5 }, 6, 100, &mut note);
    let body = format!("<note>{}</note>", String::from_utf8(note).unwrap());
    let more = "Event: presence\r\nSubscription-State: active\r\n";
    it.hears(&request("NOTIFY", value(&ask, "Call-ID"), 1, EDGE, more, &body));
    assert_eq!(it.edges.unready(), None);
    assert_eq!(it.ledger.flows[0].counts.delivered, 1);
}

#[test]
fn a_notice_is_a_transaction() {
    let mut it = Stand::new(Kind::Presence, true, false, Transport::Udp);
    let from = SocketAddr::from(([127, 0, 0, 1], 5_060));
    let more = "Event: presence\r\nExpires: 600\r\n";
    let ask = request("SUBSCRIBE", "w1", 1, EDGE, more, "");
    let said = it.call(|party, desk| party.datagram(from, ask.as_bytes(), desk));
    let first = said.split_at(said.find("NOTIFY").unwrap()).1.to_owned();
    assert!(first.contains("Subscription-State: active;expires=600\r\n"), "{first}");
    it.call(|party, desk| party.datagram(from, answer(&first, "200 OK", "").as_bytes(), desk));
    assert_eq!(it.ledger.steps["notify"].ok, 1);
    let order = || Order::Presence { flow: 0, pair: 0, octets: 100, intended_ns: 500 };
    let told = it.call(|party, desk| party.order(order(), desk));
    it.now_ns += 600_000_000;
    assert_eq!(it.call(|party, desk| party.due(desk)), told, "said again");
    // Who does not know of it watches no more.
    let no = answer(&told, "481 Unknown", "");
    it.call(|party, desk| party.datagram(from, no.as_bytes(), desk));
    assert_eq!(it.ledger.flows[0].counts.bounced.get("481"), Some(&1));
    assert_eq!(it.call(|party, desk| party.order(order(), desk)), "");
}

#[test]
fn a_subscription_without_its_notify_is_lost_and_no_more() {
    let mut it = Stand::new(Kind::Subscribe, true, false, Transport::Tcp);
    let order = || Order::Subscribe {
        flow: 0,
        pair: 0,
        from: EDGE.into(),
        to: CLIENT.into(),
        expires_s: 600,
        intended_ns: 500,
    };
    let ask = it.call(|party, desk| party.order(order(), desk));
    it.hears(&answer(&ask, "200 OK", CONTACT));
    assert_eq!(it.call(|party, desk| party.order(order(), desk)), "");
    assert_eq!(it.ledger.flows[0].counts.bounced.get("the last one is not done"), Some(&1));
    it.now_ns += 34_000_000_000;
    it.call(|party, desk| party.due(desk));
    assert_eq!(it.failed("notify", "none came after SUBSCRIBE"), 1);
    assert_eq!(it.ledger.flows[0].counts.open(), 1);
    let again = it.call(|party, desk| party.order(order(), desk));
    assert!(again.starts_with("SUBSCRIBE sip:gw@"), "{again}");
}

#[test]
fn a_new_line_takes_up_what_stands_with_branches_of_its_own() {
    let mut it = Stand::new(Kind::Presence, false, false, Transport::Tcp);
    it.call(|party, desk| party.opened(desk));
    let ask = it.call(|party, desk| party.due(desk));
    it.hears(&answer(&ask, "200 OK", &format!("{CONTACT}Expires: 100\r\n")));
    let more = "Event: presence\r\nSubscription-State: active\r\n";
    it.hears(&request("NOTIFY", value(&ask, "Call-ID"), 1, EDGE, more, ""));
    it.call(|party, desk| party.gone(false, desk));
    it.line = it.edges.dial(0).party;
    it.call(|party, desk| party.opened(desk));
    assert!(matches!(it.wishes.last(), Some(Wish::Wake(at)) if *at == it.now_ns + 80_000_000_000));
    it.now_ns += 80_000_000_000;
    let again = it.call(|party, desk| party.due(desk));
    assert!(again.starts_with("SUBSCRIBE sip:gw@"), "{again}");
    assert_eq!(value(&again, "Call-ID"), value(&ask, "Call-ID"));
    assert_ne!(value(&again, "Via"), value(&ask, "Via"));
}

#[test]
fn sessions_of_a_pair_follow_one_another() {
    let mut it = Stand::new(Kind::Session, true, false, Transport::Tcp);
    let invite = it.message();
    assert_eq!(it.message(), "");
    let said = it.hears(&answer(&invite, "200 OK", CONTACT));
    let text = said.split_at(said.find("MESSAGE sip:gw").unwrap()).1.to_owned();
    assert_eq!(said.matches("MESSAGE sip:gw").count(), 1);
    let said = it.hears(&answer(&text, "200 OK", ""));
    assert!(said.starts_with("BYE sip:gw@") && said.contains("\r\n\r\nINVITE sip:u0@"), "{said}");
    let invite = said.split_at(said.find("INVITE sip:u0").unwrap()).1.to_owned();
    let said = it.hears(&answer(&invite, "486 Busy Here", ""));
    assert!(said.starts_with("ACK sip:u0@"), "{said}");
    assert_eq!(it.ledger.flows[0].counts.bounced.get("486"), Some(&1));
}

#[test]
fn an_accepted_invite_is_answered_until_it_is_acknowledged() {
    let mut it = Stand::new(Kind::Message, false, false, Transport::Udp);
    let from = SocketAddr::from(([127, 0, 0, 1], 5_060));
    let invite = request("INVITE", "s1", 1, EDGE, "", "");
    let said = it.call(|party, desk| party.datagram(from, invite.as_bytes(), desk));
    assert!(said.contains("m=message 5066 sip sip:e0@edge.example"), "{said}");
    it.now_ns += 500_000_000;
    assert_eq!(it.call(|party, desk| party.due(desk)), said);
    let ack = request("ACK", "s1", 1, EDGE, "", "");
    it.call(|party, desk| party.datagram(from, ack.as_bytes(), desk));
    it.now_ns += 5_000_000_000;
    assert_eq!(it.call(|party, desk| party.due(desk)), "");
}
