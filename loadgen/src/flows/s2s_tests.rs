//! The parties against each other and against scripts, in any pieces.

use std::sync::Arc;

use crate::flows::s2s::Shared;
use crate::flows::s2s_in::Inbound;
use crate::flows::s2s_out::{Errand, Outbound};
use crate::ledger::Ledger;
use crate::mark;
use crate::pairs::Pairs;
use crate::party::{Desk, Order, Party, PartyId, Wish};
use crate::played::certificates::Authority;
use crate::played::security::Identities;
use crate::scenario::model::{
    Flow, Kind, Population, Run, Scenario, Side, Size, Target, Tls, Transport,
};

fn population(name: &str, side: Side, address: &str, domains: usize) -> Population {
    Population {
        name: name.to_owned(),
        side,
        target: "default".to_owned(),
        users: 4,
        address: address.to_owned(),
        domains,
        password: String::new(),
        sasl: None,
        roster: false,
        presence: false,
        managed: false,
        sources: Vec::new(),
        listen: None,
        listen_dns: None,
        dialback: false,
        pager: false,
        template: None,
        certificates: None,
        transport: Transport::Tls,
        connect_per_s: 0,
    }
}

fn flow(kind: Kind, from: &str, to: &str) -> Flow {
    Flow {
        name: format!("{from}-{to}"),
        kind,
        from: from.to_owned(),
        to: to.to_owned(),
        share: 1.0,
        size: Size { p50: 100, p99: 100, max: 100 },
        watchers: 2,
        presentities: 1,
        random_pairs: false,
        expires_s: 0,
        read_octets_per_s: 0,
        cut: 0.0,
    }
}

/// Locals at `far.example`, peers at `d0.load.example` and `d1.load.example`; flows: messages out
/// and in, presence of locals and of peers.
fn scenario() -> Scenario {
    Scenario {
        populations: vec![
            population("local", Side::Client, "l%d@far.example", 1),
            population("peers", Side::Peer, "p%d@d%d.load.example", 2),
        ],
        targets: vec![Target {
            name: "default".to_owned(),
            addresses: vec!["127.0.0.1:1".parse().unwrap()],
            domain: "far.example".to_owned(),
            tls: Tls::StartTls,
            pid: None,
        }],
        flows: vec![
            flow(Kind::Message, "peers", "local"),
            flow(Kind::Message, "local", "peers"),
            flow(Kind::Presence, "local", "peers"),
            flow(Kind::Presence, "peers", "local"),
        ],
        run: Run::default(),
        ..Scenario::default()
    }
}

fn shared(names: &[&str], far: &str, tls: Tls, dialback: bool) -> Arc<Shared> {
    let scenario = scenario();
    let names: Vec<String> = names.iter().map(|&it| it.to_owned()).collect();
    let authority = Authority::open(None).unwrap();
    let identities = Identities::new(&authority, &names, None).unwrap();
    let pairs = Arc::new(Pairs::of(&scenario));
    let mut it = Shared::new(&scenario, 1, &pairs, names, identities);
    it.far = far.to_owned();
    it.tls = tls;
    it.population.dialback = dialback;
    Arc::new(it)
}

fn played(tls: Tls) -> Arc<Shared> {
    shared(&["d0.load.example", "d1.load.example"], "far.example", tls, false)
}

/// One end, and what it said and wished.
struct End {
    id: u32,
    party: Box<dyn Party>,
    out: Vec<u8>,
    wishes: Vec<Wish>,
    ready: bool,
    closed: bool,
    failed: Option<(&'static str, String)>,
}

struct Stage {
    ledger: Ledger,
    now_ns: u64,
    next: u32,
}

impl Stage {
    fn new() -> Self {
        let pairs = Pairs::of(&scenario());
        let windows = |f: &crate::pairs::FlowPairs| f.users.len() * f.watchers.each.max(1) as usize;
        let ledger = Ledger::new(&pairs.flows.iter().map(windows).collect::<Vec<_>>());
        Self { ledger, now_ns: 1_000, next: 0 }
    }

    fn end(&mut self, party: Box<dyn Party>) -> End {
        self.next += 1;
        let (out, wishes) = (Vec::new(), Vec::new());
        let mut end =
            End { id: self.next, party, out, wishes, ready: false, closed: false, failed: None };
        self.call(&mut end, |party, desk| party.opened(desk));
        end
    }

    fn call(&mut self, end: &mut End, what: impl FnOnce(&mut dyn Party, &mut Desk<'_>)) {
        let mut desk = Desk {
            me: PartyId(end.id),
            thread: 0,
            now_ns: self.now_ns,
            out: &mut end.out,
            ledger: &mut self.ledger,
            wishes: &mut end.wishes,
        };
        what(&mut *end.party, &mut desk);
        end.wishes.retain(|wish| {
            match wish {
                Wish::Ready => end.ready = true,
                Wish::Close => end.closed = true,
                Wish::Fail(step, reason) => end.failed = Some((step, reason.clone())),
                _ => return true,
            }
            false
        });
    }

    fn say(&mut self, end: &mut End, text: &[u8], piece: usize) -> String {
        for part in text.chunks(piece) {
            self.call(end, |party, desk| party.received(part, desk));
        }
        String::from_utf8(std::mem::take(&mut end.out)).unwrap()
    }

    /// Passes octets both ways until nobody says more; TLS stands as soon as both want it.
    fn converse(&mut self, a: &mut End, b: &mut End, piece: usize) {
        loop {
            let (to_b, to_a) = (std::mem::take(&mut a.out), std::mem::take(&mut b.out));
            if to_a.is_empty() && to_b.is_empty() {
                return;
            }
            for part in to_b.chunks(piece) {
                self.call(b, |party, desk| party.received(part, desk));
            }
            for part in to_a.chunks(piece) {
                self.call(a, |party, desk| party.received(part, desk));
            }
            let secures = |end: &End| end.wishes.iter().any(|w| matches!(w, Wish::SecureAs(..)));
            if secures(a) {
                assert!(b.wishes.iter().any(|w| matches!(w, Wish::Accept(_))));
                a.wishes.retain(|w| !matches!(w, Wish::SecureAs(..)));
                b.wishes.retain(|w| !matches!(w, Wish::Accept(_)));
                self.call(b, |party, desk| party.secured(desk));
                self.call(a, |party, desk| party.secured(desk));
            }
        }
    }
}

fn carrier(shared: &Arc<Shared>, domain: usize) -> Box<dyn Party> {
    Box::new(Outbound::new(Arc::clone(shared), domain, Errand::Carry))
}

#[test]
fn two_played_servers_prove_themselves_by_certificate_in_any_pieces() {
    for piece in [1, 7, 10_000] {
        for tls in [Tls::None, Tls::StartTls, Tls::Direct] {
            let one = played(tls);
            let two = shared(&["far.example"], "d1.load.example", tls, false);
            let mut stage = Stage::new();
            let mut out = stage.end(carrier(&one, 1));
            let mut accepted = stage.end(Box::new(Inbound::new(Arc::clone(&two))));
            stage.converse(&mut out, &mut accepted, piece);
            assert_eq!(out.failed, None);
            // In clear there is no certificate.
            assert_eq!(out.ready && accepted.ready, tls != Tls::None, "{tls:?} {piece}");
        }
    }
}

#[test]
fn a_key_is_verified_at_its_own_door_and_another_one_is_not() {
    for (tls, good) in [(Tls::None, true), (Tls::StartTls, true), (Tls::StartTls, false)] {
        let one = shared(&["d0.load.example"], "far.example", tls, true);
        let two = shared(&["far.example"], "d0.load.example", tls, true);
        let mut stage = Stage::new();
        let mut out = stage.end(carrier(&one, 0));
        let mut accepted = stage.end(Box::new(Inbound::new(Arc::clone(&two))));
        stage.converse(&mut out, &mut accepted, 5);
        assert!(!out.ready);
        let n = accepted.wishes.iter().find_map(|w| match w {
            Wish::Dial(n) => Some(*n),
            _ => None,
        });
        let n = n.expect("it dials back");
        let mut verification = two.verification(n).unwrap();
        if !good {
            verification.key = "0".repeat(64);
        }
        let verifier = Outbound::new(Arc::clone(&two), 0, Errand::Verify(n, verification));
        let mut verifier = stage.end(Box::new(verifier));
        let mut door = stage.end(Box::new(Inbound::new(Arc::clone(&one))));
        stage.converse(&mut verifier, &mut door, 3);
        assert!(verifier.closed && verifier.failed.is_none());
        assert!(
            matches!(verifier.wishes[..], [Wish::Tell(PartyId(id), Order::Heed)] if id == accepted.id)
        );
        stage.call(&mut accepted, |party, desk| party.order(Order::Heed, desk));
        stage.converse(&mut out, &mut accepted, 1);
        assert_eq!((out.ready, accepted.ready), (good, good));
        assert_eq!(out.failed.is_some(), !good);
        assert_eq!(two.verdict(n), None);
    }
}

/// A domain's own stream that stands, by dialback in clear.
fn standing(stage: &mut Stage, shared: &Arc<Shared>, domain: usize) -> (End, String) {
    let mut out = stage.end(carrier(shared, domain));
    let said = stage.say(&mut out, b"<stream:stream id='1' version='1.0'><stream:features/>", 1);
    assert!(said.contains("<db:result from='d"), "{said}");
    let said = stage.say(&mut out, b"<db:result type='valid'/>", 3);
    assert!(out.ready);
    (out, said)
}

/// An incoming stream that is proven.
fn proven(stage: &mut Stage, shared: &Arc<Shared>) -> End {
    let mut end = stage.end(Box::new(Inbound::new(Arc::clone(shared))));
    let header = b"<stream:stream to='d0.load.example' from='far.example' version='1.0'>";
    let said = stage.say(&mut end, header, 2);
    assert!(said.contains("<mechanism>EXTERNAL</mechanism>") && said.contains("id='"), "{said}");
    let auth =
        b"<auth mechanism='EXTERNAL'>=</auth><stream:stream to='d0.load.example' version='1.0'>";
    let said = stage.say(&mut end, auth, 4);
    assert!(
        end.ready
            && said.starts_with("<success")
            && said.ends_with("<stream:features></stream:features>")
    );
    end
}

#[test]
fn texts_go_out_with_marks_and_are_known_when_they_come() {
    let shared = played(Tls::None);
    let mut stage = Stage::new();
    let (mut out, _) = standing(&mut stage, &shared, 1);
    let order = Order::MessageFrom {
        flow: 0,
        pair: 3,
        from: "p3@d1.load.example".into(),
        to: "l3@far.example".into(),
        octets: 100,
        intended_ns: 500,
    };
    stage.call(&mut out, |party, desk| party.order(order, desk));
    let said = String::from_utf8(std::mem::take(&mut out.out)).unwrap();
    assert!(said.starts_with("<message from='p3@d1.load.example/tl' to='l3@far.example'"));
    let body = &said[said.find("tl1 ").unwrap()..said.find("</body>").unwrap()];
    assert_eq!(body.len(), 100);
    let (mark, sent_ns) = mark::take(body.as_bytes()).unwrap();
    assert_eq!((mark.flow, mark.seq, mark.at_ns, sent_ns), (3, 0, 500, 1_000));
    assert_eq!(stage.ledger.flows[0].counts.sent, 1);

    let direct = played(Tls::Direct);
    for piece in [1, 50, 10_000] {
        let mut stage = Stage::new();
        let mut end = proven(&mut stage, &direct);
        let mut text = Vec::new();
        for (pair, to) in
            [(2, "p2@d0.load.example/tl"), (3, "p3@d1.load.example"), (3, "p2@d0.load.example")]
        {
            let mark = stage.ledger.mark(1, pair, 10);
            text.extend_from_slice(
                format!("<message from=\"l@far.example/x\" to='{to}'><body>").as_bytes(),
            );
            mark::put(mark, 11, 90, &mut text);
            text.extend_from_slice(b"</body></message>");
        }
        text.extend_from_slice(
            b"<message type='error' id='00000003' from='l3@far.example'><body>tl1 </body>\
              <error type='wait'><text>.</text><resource-constraint/></error></message>",
        );
        assert_eq!(stage.say(&mut end, &text, piece), "");
        let counts = &stage.ledger.flows[1].counts;
        assert_eq!((counts.delivered, counts.corrupt), (2, 1), "one came to another user");
        assert_eq!(stage.ledger.flows[0].counts.bounced["resource-constraint"], 1);
    }
}

#[test]
fn presence_is_asked_for_answered_and_counted() {
    let shared = played(Tls::Direct);
    let mut stage = Stage::new();
    let mut end = proven(&mut stage, &shared);
    // Nobody sends for the domain yet, so this waits.
    let text = b"<presence type='subscribe' from='l0@far.example' to='p2@d0.load.example'/>\
        <iq type='get' id='a&quot;' from='far.example' to='d0.load.example'><ping xmlns='urn:xmpp:ping'/></iq>";
    assert_eq!(stage.say(&mut end, text, 9), "");
    let mut out = stage.end(carrier(&shared, 0));
    let said = stage.say(
        &mut out,
        b"<stream:stream id='1' version='1.0'><stream:features/><db:result type='valid'/>",
        9,
    );
    for wanted in [
        "<presence from='p2@d0.load.example' to='l0@far.example' type='subscribed'/>",
        "<iq type='error' from='d0.load.example' to='far.example' id='a&quot;'>",
        "<service-unavailable ",
        "<presence from='p0@d0.load.example' to='l0@far.example' type='subscribe'/>",
    ] {
        assert!(said.contains(wanted), "{wanted} in {said}");
    }
    let cast_missing = |shared: &Shared| {
        (0..2).map(|domain| shared.subscribe(domain, &mut Vec::new())).sum::<usize>()
    };
    assert_eq!(cast_missing(&shared), 2);
    let text = b"<presence type='subscribed' from='l0@far.example' to='p0@d0.load.example'/>\
        <presence type='subscribed' from='l0@far.example' to='p0@d0.load.example'/>\
        <presence type='probe' from='l1@far.example' to='p0@d0.load.example'/>";
    stage.say(&mut end, text, 1000);
    assert_eq!(cast_missing(&shared), 1);
    assert!(
        matches!(end.wishes.last(), Some(Wish::Tell(PartyId(id), Order::Heed)) if *id == out.id)
    );
    stage.call(&mut out, |party, desk| party.order(Order::Heed, desk));
    let said = String::from_utf8(std::mem::take(&mut out.out)).unwrap();
    assert_eq!(said, "<presence from='p0@d0.load.example/tl' to='l1@far.example'/>");
    // A change of the local user reaches the first two peers, one of them by this stream.
    let mark = stage.ledger.mark(2, 0, 10);
    let mut text = b"<presence from='l0@far.example/x' to='p0@d0.load.example'><status>".to_vec();
    mark::put(mark, 11, 90, &mut text);
    text.extend_from_slice(b"</status></presence>");
    stage.say(&mut end, &text, 10);
    assert_eq!(stage.ledger.flows[2].counts.delivered, 1);
    // And one of a peer goes to each of its watchers.
    let order = Order::Presence { flow: 3, pair: 0, octets: 80, intended_ns: 1 };
    stage.call(&mut out, |party, desk| party.order(order, desk));
    let said = String::from_utf8(std::mem::take(&mut out.out)).unwrap();
    assert_eq!(said.matches("<presence from='p0@d0.load.example/tl'").count(), 2);
    assert_eq!(stage.ledger.flows[3].counts.due, 2);
}

#[test]
fn what_a_bad_server_does_is_counted_by_kind_and_ends() {
    let rows: [(&[u8], &str); 6] = [
        (b"HTTP/1.1 400 Bad Request\r\n", "garbage"),
        (b"<stream:stream to='other.example' version='1.0'>", "for a domain that is not played"),
        (b"<stream:stream to='d0.load.example' version='1.0'><message/>", "a stanza before the proof"),
        (b"<stream:stream to='d0.load.example'><db:result to='no.example'>k</db:result>", "a key for a domain that is not played"),
        (b"<stream:stream to='d0.load.example' version='1.0'><stream:error><conflict/></stream:error>", "conflict"),
        (b"<stream:stream to='d0.load.example' version='1.0'><odd/>", "an element of no known kind"),
    ];
    for (text, reason) in rows {
        for piece in [1, 1000] {
            let mut stage = Stage::new();
            let mut end = stage.end(Box::new(Inbound::new(played(Tls::None))));
            stage.say(&mut end, text, piece);
            let failed = &stage.ledger.steps["inbound"].failed;
            assert_eq!(failed.keys().collect::<Vec<_>>(), [reason]);
        }
    }
    let mut stage = Stage::new();
    let mut end = stage.end(Box::new(Inbound::new(played(Tls::None))));
    stage.call(&mut end, |party, desk| party.due(desk));
    assert!(end.closed && stage.ledger.steps["inbound"].failed.contains_key("no proof in time"));

    let rows: [(&[u8], (&str, &str)); 6] = [
        (b"SSH-2.0-x\r\n", ("stream", "garbage")),
        (b"<stream:stream id='1' version='1.0'><stream:features/>", ("starttls", "not offered")),
        (b"<stream:stream id='1' version='1.0'><stream:error><host-unknown/></stream:error>", ("stream", "host-unknown")),
        (b"<stream:stream id='1' version='1.0'></stream:stream>", ("stream", "closed before it stood")),
        (b"<stream:stream id='1' version='1.0'><stream:features><starttls/></stream:features><failure/>", ("starttls", "refused")),
        (b"<stream:stream id='1'><db:result type='error'><error><remote-server-timeout/></error></db:result>", ("dialback", "remote-server-timeout")),
    ];
    for (text, wanted) in rows {
        for piece in [1, 1000] {
            let mut stage = Stage::new();
            let mut end = stage.end(carrier(&played(Tls::StartTls), 0));
            stage.say(&mut end, text, piece);
            let failed = end.failed.as_ref().map(|(step, reason)| (*step, reason.as_str()));
            assert_eq!(failed, Some(wanted));
        }
    }
}

#[test]
fn where_a_certificate_is_refused_the_key_is_tried() {
    let mut stage = Stage::new();
    let mut end = stage.end(carrier(&played(Tls::Direct), 0));
    let features =
        b"<stream:stream id='1' version='1.0'><stream:features><mechanisms><mechanism>EXTERNAL\
        </mechanism></mechanisms></stream:features>";
    let said = stage.say(&mut end, features, 6);
    assert!(said.contains("mechanism='EXTERNAL'>ZDAubG9hZC5leGFtcGxl</auth>"), "{said}");
    let said = stage.say(&mut end, b"<failure xmlns='x'><not-authorized/></failure>", 6);
    assert!(said.starts_with("<db:result "), "{said}");
    assert_eq!(stage.ledger.steps["external"].failed["not-authorized"], 1);
    stage.say(&mut end, b"<db:result type='valid'/>", 1);
    assert!(end.ready);
}
