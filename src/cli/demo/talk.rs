//! What the four say over XMPP, and what each of them must see; `across.rs` is about SIP.

use crate::cli::demo::client::{Client, Login, Trouble};
use crate::cli::demo::element::Element;
use crate::cli::demo::ladder::Ladder;

/// The four, logged in.
pub(super) struct Cast {
    pub(super) alice: Client,
    pub(super) bob: Client,
    pub(super) carol: Client,
    pub(super) dave: Client,
}

type Seen = Result<String, Trouble>;

/// Logs all in; `None` if one can't, for then there is nobody to talk.
pub(super) fn log_in(ladder: &mut Ladder, logins: &[Login; 4]) -> Option<Cast> {
    ladder.head("Four users log in: STARTTLS, SCRAM bound to the TLS channel, a resource each");
    let mut clients = Vec::new();
    for login in logins {
        ladder.step(login.user, login.domain, "login", || {
            let client = Client::login(login)?;
            let seen = format!("{} with {}, {}", client.jid, client.mechanism, client.secured);
            clients.push(client);
            Ok(seen)
        });
    }
    for (client, login) in clients.iter_mut().zip(logins) {
        ladder.step(login.user, login.domain, "roster, presence", || {
            // Who has asked for the roster hears of subscriptions (RFC 6121, 2.2).
            client.send("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>")?;
            let got = client.wait("the roster", |it| it.attribute("id") == "roster")?;
            result(&got)?;
            client.send("<presence/>")?;
            // The answer to a ping behind it shows that the presence was taken.
            ping(client, login.domain, "ready").map(|_| "available".to_owned())
        });
    }
    let [alice, bob, carol, dave] = clients.try_into().ok()?;
    Some(Cast { alice, bob, carol, dave })
}

/// The conversation.
pub(super) fn talk(ladder: &mut Ladder, cast: &mut Cast) {
    let Cast { alice, bob, carol, dave } = cast;
    ladder.head("In one domain: alice and bob live on different shards");
    ladder.step("alice", "bob", "chat", || {
        chat(alice, bob, "bob@example.com", "Shall we eat at noon?")
    });
    let to = alice.jid.clone();
    ladder.step("bob", "alice", "chat, to her very client", || {
        chat(bob, alice, &to, "At half past.")
    });
    ladder.step("alice", "bob", "subscription, both ways", || befriend(alice, bob));
    ladder.step("alice", "bob", "presence: away", || away(alice, bob));
    ladder.step("alice", "example.com", "IQ: ping", || ping(alice, "example.com", "p1"));
    ladder.step("alice", "example.com", "IQ: what can you do", || {
        features(alice, "example.com", "d1")
    });
    ladder.step("alice", "bob", "IQ: ping, bob's client answers", || ping_client(alice, bob, "p2"));

    [&mut *alice, bob, carol, dave].into_iter().for_each(Client::forget);
    ladder.head("Between the domains: SRV, STARTTLS, and each proves that it is who it says");
    ladder.step("alice", "carol", "chat, opens the stream there", || {
        chat(alice, carol, "carol@partner.example", "Hello over there!")
    });
    ladder.step("carol", "alice", "chat, opens the stream back", || {
        chat(carol, alice, "alice@example.com", "Hello over here!")
    });
    ladder.step("dave", "bob", "chat", || {
        chat(dave, bob, "bob@example.com", "Is this thing on? <&>\"'")
    });
    ladder.step("bob", "dave", "chat", || {
        chat(bob, dave, "dave@partner.example", "It is: 你好, ☕.")
    });
    ladder.step("alice", "carol", "subscription, both ways", || befriend(alice, carol));
    ladder.step("alice", "partner.example", "IQ: ping", || ping(alice, "partner.example", "p3"));
    ladder.step("carol", "example.com", "IQ: ping", || ping(carol, "example.com", "p4"));
    ladder
        .step("alice", "carol", "IQ: ping, her client answers", || ping_client(alice, carol, "p5"));
    ladder.step("alice", "carol", "presence: away", || away(alice, carol));
    ladder.step("alice", "carol", "100 messages, order kept", || {
        in_order(alice, carol, "carol@partner.example")
    });
    ladder.step("carol", "alice", "100 messages, order kept", || {
        in_order(carol, alice, "alice@example.com")
    });

    [&mut *alice, bob, carol, dave].into_iter().for_each(Client::forget);
    ladder.head("What can't be delivered comes back");
    ladder.step("alice", "nobody", "chat to a user there is not", || {
        bounced(alice, "nobody@example.com", "b1", "service-unavailable")
    });
    ladder.step("alice", "nobody, far", "chat to a user there is not", || {
        bounced(alice, "nobody@partner.example", "b2", "service-unavailable")
    });
    ladder.step("alice", "nowhere.example", "chat to a domain there is not", || {
        bounced(alice, "somebody@nowhere.example", "b3", "remote-server-not-found")
    });
}

/// A text that must arrive as it was sent.
fn chat(from: &mut Client, to: &mut Client, address: &str, text: &str) -> Seen {
    let body = quick_xml::escape::escape(text);
    let id = format!("chat-{}-{}", from.jid.len(), text.len());
    from.send(&format!(
        "<message to='{address}' type='chat' id='{id}'><body>{body}</body></message>"
    ))?;
    let sender = from.jid.clone();
    let is_it = |it: &Element| {
        it.name == "message" && it.attribute("from") == sender && it.attribute("type") == "chat"
    };
    let got = to.wait("the message", is_it).map_err(|it| explained(from, &id, it))?;
    same("text", got.child_text("body"), text)?;
    same("id", got.attribute("id"), &id)?;
    Ok(format!("\"{text}\""))
}

/// Why it did not arrive, if the sender was told.
fn explained(from: &mut Client, id: &str, trouble: Trouble) -> Trouble {
    match from.bounce_of(id) {
        Some(condition) => Trouble(format!("it came back with {condition}")),
        None => trouble,
    }
}

/// RFC 6121, 3.1: each asks, each grants, and each sees the other come.
fn befriend(one: &mut Client, other: &mut Client) -> Seen {
    subscribe(one, other)?;
    subscribe(other, one)?;
    Ok("each sees the other".to_owned())
}

fn subscribe(from: &mut Client, to: &mut Client) -> Result<(), Trouble> {
    let is = |type_: &'static str, who: &str| {
        let who = who.to_owned();
        move |it: &Element| {
            it.name == "presence" && it.attribute("type") == type_ && it.attribute("from") == who
        }
    };
    let (asker, asked) = (bare(&from.jid), bare(&to.jid));
    from.send(&format!("<presence to='{asked}' type='subscribe'/>"))?;
    to.wait("the request", is("subscribe", &asker))?;
    to.send(&format!("<presence to='{asker}' type='subscribed'/>"))?;
    from.wait("the approval", is("subscribed", &asked))?;
    from.wait("the presence", is("", &to.jid))?;
    Ok(())
}

fn bare(jid: &str) -> String {
    jid.split('/').next().unwrap_or_default().to_owned()
}

fn away(from: &mut Client, to: &mut Client) -> Seen {
    from.send(&format!("<presence to='{}'><show>away</show></presence>", to.jid))?;
    let sender = from.jid.clone();
    let is_it = |it: &Element| it.name == "presence" && it.attribute("from") == sender;
    let got = to.wait("the presence", |it| is_it(it) && !it.child_text("show").is_empty())?;
    same("show", got.child_text("show"), "away")?;
    Ok("seen".to_owned())
}

/// XEP-0199 to a server.
fn ping(client: &mut Client, to: &str, id: &str) -> Seen {
    client
        .send(&format!("<iq type='get' to='{to}' id='{id}'><ping xmlns='urn:xmpp:ping'/></iq>"))?;
    let got = client.wait("the answer", |it| it.name == "iq" && it.attribute("id") == id)?;
    result(&got)?;
    Ok("result".to_owned())
}

/// An answer that is no error.
fn result(answer: &Element) -> Result<(), Trouble> {
    match answer.attribute("type") {
        "result" => Ok(()),
        _ => Err(Trouble(format!("it came back with {}", answer.condition()))),
    }
}

/// XEP-0199 to a client, which has to answer it itself.
fn ping_client(from: &mut Client, to: &mut Client, id: &str) -> Seen {
    from.send(&format!(
        "<iq type='get' to='{}' id='{id}'><ping xmlns='urn:xmpp:ping'/></iq>",
        to.jid
    ))?;
    let asked = to
        .wait("the question", |it| it.name == "iq" && it.attribute("type") == "get")
        .map_err(|it| explained(from, id, it))?;
    same("sender", asked.attribute("from"), &from.jid)?;
    let (back, answer_id) = (asked.attribute("from"), asked.attribute("id"));
    to.send(&format!("<iq type='result' to='{back}' id='{answer_id}'/>"))?;
    let got = from.wait("the answer", |it| it.name == "iq" && it.attribute("id") == id)?;
    result(&got)?;
    same("from", got.attribute("from"), &to.jid)?;
    Ok("result".to_owned())
}

/// XEP-0030.
fn features(client: &mut Client, to: &str, id: &str) -> Seen {
    let query = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    client.send(&format!("<iq type='get' to='{to}' id='{id}'>{query}</iq>"))?;
    let got = client.wait("the answer", |it| it.name == "iq" && it.attribute("id") == id)?;
    result(&got)?;
    let Some(query) = got.child("query") else {
        return Err(Trouble("no features in the answer".to_owned()));
    };
    Ok(format!("{} features", query.children.iter().filter(|it| it.name == "feature").count()))
}

fn in_order(from: &mut Client, to: &mut Client, address: &str) -> Seen {
    let text: String = (0..ORDERED)
        .map(|i| {
            format!("<message to='{address}' type='chat' id='order-{i}'><body>{i}</body></message>")
        })
        .collect();
    from.send(&text)?;
    let sender = from.jid.clone();
    let is_next =
        |it: &Element| it.attribute("id").starts_with("order-") && it.attribute("from") == sender;
    for i in 0..ORDERED {
        let got = to
            .wait("the next", is_next)
            .map_err(|it| explained(from, &format!("order-{i}"), it))?;
        same("number", got.child_text("body"), &i.to_string())?;
    }
    Ok("0 to 99".to_owned())
}

/// RFC 6121, 8.5.2 and RFC 6120, 10.4: the sender hears why.
fn bounced(client: &mut Client, to: &str, id: &str, condition: &str) -> Seen {
    client.send(&format!(
        "<message to='{to}' type='chat' id='{id}'><body>Anybody?</body></message>"
    ))?;
    let got = client.wait("the error", |it| it.name == "message" && it.attribute("id") == id)?;
    same("type", got.attribute("type"), "error")?;
    same("from", got.attribute("from"), to)?;
    same("condition", got.condition(), condition)?;
    Ok(condition.to_owned())
}

fn same(what: &str, seen: &str, wanted: &str) -> Result<(), Trouble> {
    if seen == wanted {
        Ok(())
    } else {
        Err(Trouble(format!("{what} is \"{seen}\", not \"{wanted}\"")))
    }
}

/// Answers every text, so that a person at a client of their own is not alone.
pub(super) fn answer_texts(mut client: Client, name: &'static str) {
    loop {
        match client.wait("a text", |it| it.name == "message" && !it.child_text("body").is_empty())
        {
            Ok(message) if message.attribute("type") != "error" => {
                let text = format!("{name} here. You said: {}", message.child_text("body"));
                let to = quick_xml::escape::escape(message.attribute("from"));
                let body = quick_xml::escape::escape(&text);
                let answer =
                    format!("<message to='{to}' type='chat'><body>{body}</body></message>");
                if client.send(&answer).is_err() {
                    return;
                }
            }
            Ok(_) => {}
            // Nobody writes all the time.
            Err(trouble) if trouble.0.ends_with("no answer in time") => {}
            Err(_) => return,
        }
    }
}

/// Enough to fill more than one turn of a shard.
const ORDERED: u32 = 100;

#[cfg(test)]
mod tests {
    use crate::address::Address;
    use crate::route::shard_of;

    /// The demo runs two shards; a conversation inside one would show half of the switch.
    #[test]
    fn alice_and_bob_live_on_different_shards() {
        let home = |user: &str| shard_of(Address::parse(user).expect("an address").slot(), 2);
        assert_ne!(home("alice@example.com"), home("bob@example.com"));
    }
}
