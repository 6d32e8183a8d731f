//! The conversation across SIP: zoe behind her edge, alice and bob at the switch.
//!
//! Presence, texts and typing in both directions over mutual TLS, with a partner that shares no parser with the
//! switch and tells at the end what it holds against it.

use std::net::{Ipv4Addr, SocketAddr};

use crate::cli::demo::client::{Client, Trouble};
use crate::cli::demo::edge::{Edge, Keys, Partner, Setup, address, uri};
use crate::cli::demo::element::Element;
use crate::cli::demo::ladder::Ladder;
use crate::cli::demo::world::Place;
use crate::control::authority::{Authority, Purpose};

type Seen = Result<String, Trouble>;

/// Opens the edge of contoso.example, which federates with the switch at `place`.
pub(super) fn partner(authority: &Authority, place: &Place) -> Result<Edge, Trouble> {
    let issued = authority.issue(&[EDGE], Purpose::Both).map_err(|it| Trouble(it.to_string()))?;
    let roots = authority.root_pem().to_owned();
    let edge = Edge::start(&Setup {
        domain: DOMAIN.to_owned(),
        name: EDGE.to_owned(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        keys: Some(Keys { certificate: issued.cert_pem, key: issued.key_pem, roots }),
        strict: true,
    })?;
    let domain = place.domain.to_owned();
    edge.partner(Partner { domain, name: place.sip_name(), address: place.sip });
    edge.user("zoe");
    Ok(edge)
}

/// What they say across, and what each must see.
pub(super) fn talk(ladder: &mut Ladder, edge: &Edge, alice: &mut Client, bob: &mut Client) {
    ladder.head(
        "Across SIP: zoe's edge speaks as Lync does, over mutual TLS, by a parser of its own",
    );
    ladder.step("zoe", "alice", "SUBSCRIBE: asks to watch her", || asks(edge, alice));
    ladder.step("alice", "zoe", "allows it, NOTIFY shows her", || allows(edge, alice));
    ladder.step("alice", "zoe", "subscription: zoe is shown", || watches(edge, alice));
    ladder.step("zoe", "alice", "presence: busy", || busy(edge, alice));
    let mut session = None;
    ladder.step("zoe", "alice", "INVITE and chat", || {
        let (dialog, seen) = opens(edge, alice)?;
        session = Some(dialog);
        Ok(seen)
    });
    let Some(session) = session else { return };
    ladder.step("alice", "zoe", "chat, in that session", || {
        writes(alice, edge, "Here. 你好, <zoe> & all.")
    });
    ladder.step("zoe", "alice", "typing", || types(edge, session, alice));
    ladder.step("alice", "zoe", "typing", || typed(alice, edge, session));
    ladder.step("bob", "zoe", "chat, opens a session", || writes(bob, edge, "And me?"));
    ladder.step("zoe", "alice", "BYE", || {
        let answer = edge.answer(edge.bye(session)?)?;
        same("the answer", &answer.status.to_string(), "200")?;
        Ok("200".to_owned())
    });
    ladder.step("bob", "nobody, by SIP", "chat to a user there is not", || bounced(bob));
    ladder.step("alice", "zoe", "presence: away, held up to 5 s", || away(alice, edge));
    ladder.step("zoe", "example.com", "was every octet as it should be", || {
        let counts = edge.counts();
        match edge.faults().first() {
            None => {
                Ok(format!("{} messages read by rsip, {} by hand", counts.by_rsip, counts.by_hand))
            }
            Some(fault) => Err(Trouble(fault.clone())),
        }
    });
}

fn asks(edge: &Edge, alice: &mut Client) -> Seen {
    let call = edge.subscribe("zoe", "alice@example.com")?;
    same("the answer", &edge.answer(call)?.status.to_string(), "200")?;
    let notify = edge.next_in(call.dialog, "NOTIFY")?;
    starts("the state", notify.header("Subscription-State"), "pending")?;
    same("the body", &notify.text(), "")?;
    alice.wait("the request", is_presence("subscribe"))?;
    Ok("pending, and nothing is shown".to_owned())
}

fn allows(edge: &Edge, alice: &mut Client) -> Seen {
    alice.send(&format!("<presence to='{ZOE}' type='subscribed'/>"))?;
    let notify = edge.next("NOTIFY", |it| it.method == "NOTIFY")?;
    starts("the state", notify.header("Subscription-State"), "active")?;
    within(&notify.text(), "<basic>open</basic>")?;
    Ok("active, open".to_owned())
}

fn watches(edge: &Edge, alice: &mut Client) -> Seen {
    alice.send(&format!("<presence to='{ZOE}' type='subscribe'/>"))?;
    alice.wait("the approval", is_presence("subscribed"))?;
    alice.wait("the presence", is_presence(""))?;
    let asked = edge.next("SUBSCRIBE", |it| it.method == "SUBSCRIBE")?;
    same("From", address(uri(asked.header("From"))), "alice@example.com")?;
    Ok("subscribed, available".to_owned())
}

fn busy(edge: &Edge, alice: &mut Client) -> Seen {
    edge.publish("zoe", true, "busy")?;
    let shown = alice.wait("the presence", is_presence(""))?;
    same("show", shown.child_text("show"), "away")?;
    same("status", shown.child_text("status"), "Busy")?;
    Ok("away, \"Busy\"".to_owned())
}

fn opens(edge: &Edge, alice: &mut Client) -> Result<(usize, String), Trouble> {
    let call = edge.invite("zoe", "alice@example.com")?;
    same("the answer", &edge.answer(call)?.status.to_string(), "200")?;
    let text = "Lunch? <12:30> & no later";
    let sent = edge.message(call.dialog, text)?;
    let shown = alice.wait("the text", is_text)?;
    same("text", shown.child_text("body"), text)?;
    same("the answer", &edge.answer(sent)?.status.to_string(), "200")?;
    Ok((call.dialog, format!("\"{text}\"")))
}

fn writes(from: &mut Client, edge: &Edge, text: &str) -> Seen {
    let body = quick_xml::escape::escape(text);
    from.send(&format!(
        "<message to='{ZOE}' type='chat' id='across'><body>{body}</body></message>"
    ))?;
    let heard = edge.next("MESSAGE", |it| it.method == "MESSAGE")?;
    same("text", &heard.text(), text)?;
    same(
        "From",
        address(uri(heard.header("From"))),
        from.jid.split('/').next().unwrap_or_default(),
    )?;
    Ok(format!("\"{text}\""))
}

fn types(edge: &Edge, session: usize, alice: &mut Client) -> Seen {
    let sent = edge.typing(session, "type")?;
    alice.wait("composing", |it| it.name == "message" && it.child("composing").is_some())?;
    same("the answer", &edge.answer(sent)?.status.to_string(), "200")?;
    Ok("composing".to_owned())
}

fn typed(alice: &mut Client, edge: &Edge, session: usize) -> Seen {
    alice.send(&format!(
        "<message to='{ZOE}' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>"
    ))?;
    within(&edge.next_in(session, "INFO")?.text(), "status=\"type\"")?;
    Ok("INFO, KeyboardActivity".to_owned())
}

fn bounced(bob: &mut Client) -> Seen {
    let to = format!("nobody@{DOMAIN}");
    bob.send(&format!("<message to='{to}' type='chat' id='b4'><body>Anybody?</body></message>"))?;
    let got = bob.wait("the error", |it| it.name == "message" && it.attribute("id") == "b4")?;
    same("condition", got.condition(), "item-not-found")?;
    Ok("item-not-found, from 404".to_owned())
}

fn away(alice: &mut Client, edge: &Edge) -> Seen {
    alice.send("<presence><show>away</show></presence>")?;
    let notify = edge.next("NOTIFY", |it| it.method == "NOTIFY")?;
    within(&notify.text(), ">away<")?;
    Ok("open, away".to_owned())
}

/// Answers every text, so that a person at a client of their own is not alone.
pub(super) fn answer_texts(edge: &Edge) {
    while edge.is_open() {
        // Nobody writes all the time.
        let Ok((message, dialog)) = edge.next_dialog("MESSAGE") else { continue };
        // Whoever has closed the window in between hears nothing more.
        edge.message(dialog, &format!("Zoe here, behind SIP. You said: {}", message.text())).ok();
    }
}

fn is_presence(kind: &'static str) -> impl Fn(&Element) -> bool {
    move |it| {
        let from = it.attribute("from").split('/').next().unwrap_or_default();
        it.name == "presence" && from == ZOE && it.attribute("type") == kind
    }
}

fn is_text(it: &Element) -> bool {
    it.name == "message" && it.attribute("from").starts_with(ZOE) && it.child("body").is_some()
}

fn same(what: &str, seen: &str, wanted: &str) -> Result<(), Trouble> {
    if seen == wanted {
        Ok(())
    } else {
        Err(Trouble(format!("{what} is \"{seen}\", not \"{wanted}\"")))
    }
}

fn starts(what: &str, seen: &str, wanted: &str) -> Result<(), Trouble> {
    if seen.starts_with(wanted) { Ok(()) } else { same(what, seen, wanted) }
}

fn within(seen: &str, wanted: &str) -> Result<(), Trouble> {
    if seen.contains(wanted) { Ok(()) } else { Err(Trouble(format!("no {wanted} in \"{seen}\""))) }
}

/// The partner's SIP domain.
pub(super) const DOMAIN: &str = "contoso.example";
/// The target of its SRV record: a host directly in that domain, as Microsoft's servers want it.
pub(super) const EDGE: &str = "edge.contoso.example";
const ZOE: &str = "zoe@contoso.example";
