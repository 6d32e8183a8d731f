//! A client without a socket: what it says, hears and counts.

use std::sync::Arc;

use crate::flows::c2s::Clients;
use crate::ledger::Ledger;
use crate::mark::{self, Mark};
use crate::pairs::Pairs;
use crate::party::{Cast as _, Desk, Order, Party, PartyId, Wish};
use crate::scenario::model::{
    Flow, Kind, Population, Sasl, Scenario, Side, Size, Target, Tls, Transport,
};

fn scenario(kind: Kind, sasl: Sasl) -> Scenario {
    let size = Size { p50: 100, p99: 100, max: 100 };
    let flow = Flow {
        name: "f".to_owned(),
        kind,
        from: "p".to_owned(),
        to: "p".to_owned(),
        share: 1.0,
        size,
        watchers: 2,
        presentities: 1,
        random_pairs: false,
        expires_s: 60,
        read_octets_per_s: 0,
        cut: 0.5,
    };
    let target = Target {
        name: "default".to_owned(),
        addresses: vec!["127.0.0.1:5222".parse().unwrap()],
        domain: "d.example".to_owned(),
        tls: Tls::None,
        pid: None,
    };
    let population = Population {
        name: "p".to_owned(),
        side: Side::Client,
        target: "default".to_owned(),
        users: 4,
        address: "u%d@d.example".to_owned(),
        domains: 1,
        password: "pw%d".to_owned(),
        sasl: Some(sasl),
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
        transport: Transport::Tcp,
        connect_per_s: 0,
    };
    Scenario {
        targets: vec![target],
        populations: vec![population],
        flows: vec![flow],
        ..Scenario::default()
    }
}

/// One client and everything it is lent.
struct Stage {
    cast: Clients,
    party: Box<dyn Party>,
    ledger: Ledger,
    out: Vec<u8>,
    wishes: Vec<Wish>,
}

impl Stage {
    fn of(kind: Kind, sasl: Sasl, user: usize) -> Self {
        let scenario = scenario(kind, sasl);
        let pairs = Arc::new(Pairs::of(&scenario));
        let cast = Clients::new(&scenario, 0, &pairs).unwrap();
        let party = cast.dial(user).party;
        Self { cast, party, ledger: Ledger::new(&[8]), out: Vec::new(), wishes: Vec::new() }
    }

    fn call(&mut self, f: impl FnOnce(&mut dyn Party, &mut Desk<'_>)) -> String {
        self.out.clear();
        let (ledger, wishes) = (&mut self.ledger, &mut self.wishes);
        let (out, me) = (&mut self.out, PartyId(0));
        f(&mut *self.party, &mut Desk { me, thread: 0, now_ns: 5_000, out, ledger, wishes });
        String::from_utf8(self.out.clone()).unwrap()
    }

    fn hear(&mut self, text: &str) -> String {
        self.call(|party, desk| party.received(text.as_bytes(), desk))
    }

    /// A whole login.
    fn logged_in(mut self, mechanism: &str) -> Self {
        self.call(|party, desk| party.opened(desk));
        self.hear(&format!(
            "<stream:stream id='1'><stream:features><mechanisms><mechanism>{mechanism}</mechanism>\
             </mechanisms></stream:features>"
        ));
        self.hear("<success xmlns='s'/>");
        self.hear("<stream:stream id='2'><stream:features><bind/></stream:features>");
        self.hear("<iq id='b' type='result'><bind><jid>u@d.example/r</jid></bind></iq>");
        assert!(
            matches!(self.wishes[..], [Wish::Known(_, _), Wish::Ready, ..]),
            "{:?}",
            self.wishes
        );
        self.wishes.clear();
        self
    }
}

#[test]
fn a_login_names_the_user_and_his_password_by_number() {
    let mut stage = Stage::of(Kind::Message, Sasl::Plain, 3);
    let said = stage.call(|party, desk| party.opened(desk));
    assert!(said.contains("to='d.example'"), "{said}");
    let features = "<stream:stream><stream:features><mechanisms><mechanism>PLAIN</mechanism>\
        </mechanisms></stream:features>";
    // "\0u3\0pw3"
    assert!(stage.hear(features).contains("mechanism='PLAIN'>AHUzAHB3Mw==</auth>"));
    stage.hear("<failure xmlns='s'><not-authorized/></failure>");
    assert!(
        matches!(&stage.wishes[..], [Wish::Fail("login", why)] if why == "not-authorized"),
        "{:?}",
        stage.wishes
    );
    let stage = Stage::of(Kind::Message, Sasl::Anonymous, 3).logged_in("ANONYMOUS");
    assert_eq!(stage.ledger.steps["login"].ok, 1);
}

#[test]
fn a_message_goes_out_marked_and_what_comes_is_judged_by_its_receiver() {
    let mut stage = Stage::of(Kind::Message, Sasl::Plain, 1).logged_in("PLAIN");
    let order = Order::Message {
        flow: 0,
        pair: 1,
        to: Arc::from("u0@d.example/r"),
        octets: 100,
        intended_ns: 1_000,
    };
    let said = stage.call(|party, desk| party.order(order, desk));
    let body = said.split("<body>").nth(1).unwrap().strip_suffix("</body></message>").unwrap();
    assert!(said.starts_with("<message to='u0@d.example/r' type='chat' id='00000001'><body>tl1 "));
    assert_eq!(body.len(), 100);
    let mark = Mark { flow: 1, seq: 0, at_ns: 1_000 };
    assert_eq!(mark::take(body.as_bytes()), Some((mark, 5_000)));

    // Pair 0 is from user 0 to user 1; pair 1 is not for us.
    let text = |pair: u32, seq: u32| {
        let mut text = b"<message from='u0@d.example/r'><body>".to_vec();
        mark::put(Mark { flow: pair, seq, at_ns: 2_000 }, 3_000, 80, &mut text);
        String::from_utf8(text).unwrap() + "</body></message>"
    };
    for piece in text(0, 0).as_bytes().chunks(7) {
        stage.call(|party, desk| party.received(piece, desk));
    }
    stage.hear(&(text(0, 2) + &text(0, 1) + &text(0, 1) + &text(1, 0)));
    stage.hear(&text(0, 3).replacen("tl1 0", "tl1 1", 1));
    stage.hear(
        "<message type='error' id='00000001' from='x'><error type='cancel'><gone/></error>\
         </message>",
    );
    let flow = &stage.ledger.flows[0];
    let counts = &flow.counts;
    assert_eq!((counts.sent, counts.delivered, counts.duplicated), (1, 3, 1), "{counts:?}");
    assert_eq!((counts.reordered, counts.corrupt), (1, 2), "{counts:?}");
    assert_eq!(counts.bounced.get("gone"), Some(&1));
    assert!(flow.latency.equivalent(flow.latency.max(), 3_000));
    assert!(flow.service.equivalent(flow.service.max(), 2_000));
}

#[test]
fn a_roster_change_ends_with_its_result_and_its_push() {
    let mut stage = Stage::of(Kind::Roster, Sasl::Plain, 0);
    stage.call(|party, desk| party.opened(desk));
    stage = {
        stage.hear(
            "<stream:stream><stream:features><mechanisms><mechanism>PLAIN</mechanism>\
             </mechanisms></stream:features>",
        );
        stage.hear("<success xmlns='s'/>");
        stage.hear("<stream:stream><stream:features><bind/></stream:features>");
        stage.hear("<iq id='b' type='result'><bind><jid>u0@d.example/r</jid></bind></iq>");
        stage.hear("<iq id='roster' type='result'/>");
        stage
    };
    let order =
        || Order::Roster { flow: 0, pair: 0, to: Arc::from("u0@d.example/r"), intended_ns: 1 };
    let set = stage.call(|party, desk| party.order(order(), desk));
    assert!(set.contains("jid='x-u0@d.example' name="), "{set}");
    let push = "<iq type='set' id='p1'><query><item jid='x-u0@d.example'/></query></iq>";
    assert_eq!(stage.hear(push), "<iq type='result' id='p1'/>");
    assert_eq!(stage.ledger.flows[0].counts.delivered, 0);
    stage.hear("<iq type='result' id='c0-1'/>");
    assert_eq!(stage.ledger.flows[0].counts.delivered, 1);
    let remove = stage.call(|party, desk| party.order(order(), desk));
    assert!(remove.contains("subscription='remove'"), "{remove}");
    stage.hear("<iq type='error' id='c0-2'><error><item-not-found/></error></iq>");
    assert_eq!(stage.ledger.flows[0].counts.bounced.get("item-not-found"), Some(&1));
    stage.call(|party, desk| party.order(order(), desk));
    stage.call(|party, desk| party.gone(false, desk));
    assert_eq!(stage.ledger.flows[0].counts.bounced.get("connection gone"), Some(&1));
}

#[test]
fn a_watcher_asks_once_and_tells_replaced_states_from_lost_ones() {
    // User 0 is watched by users 1 and 2.
    let mut stage = Stage::of(Kind::Presence, Sasl::Plain, 1).logged_in("PLAIN");
    assert!(stage.cast.unready().is_some_and(|why| why.starts_with("2 ")));
    let asked = stage.hear("<iq type='result' id='have'><query/></iq>");
    assert_eq!(asked.matches("<presence to='u0@d.example' type='subscribe'/>").count(), 1);
    stage.hear(
        "<iq type='set' id='q'><query><item jid='u0@d.example' subscription='to'/></query></iq>",
    );
    assert!(stage.cast.unready().is_some_and(|why| why.starts_with("1 ")));
    stage.ledger.flows[0].supersedes = true;
    for seq in [0, 3] {
        let mut text = b"<presence from='u0@d.example/r'><status>".to_vec();
        mark::put(Mark { flow: 0, seq, at_ns: 2_000 }, 3_000, 80, &mut text);
        stage.hear(&(String::from_utf8(text).unwrap() + "</status></presence>"));
    }
    let counts = &stage.ledger.flows[0].counts;
    assert_eq!((counts.delivered, counts.superseded), (2, 2), "{counts:?}");
    // The one who is watched approves.
    let mut stage = Stage::of(Kind::Presence, Sasl::Plain, 0).logged_in("PLAIN");
    let said = stage.hear("<presence from='u1@d.example' type='subscribe'/>");
    assert_eq!(said, "<presence to='u1@d.example' type='subscribed'/>");
}

#[test]
fn nonsense_without_end_is_not_kept() {
    let mut stage = Stage::of(Kind::Message, Sasl::Plain, 1).logged_in("PLAIN");
    for _ in 0..5 {
        stage.hear(&format!("<message from='x'>{}", "y".repeat(1 << 20)));
    }
    assert!(matches!(&stage.wishes[..], [Wish::Fail("stream", _), ..]), "{:?}", stage.wishes);
}
