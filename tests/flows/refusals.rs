//! F10 to F12: who is not permitted, not there, or not who they say.

use tandem::cli::demo::client::{Trouble, now};
use tandem::cli::demo::edge::{Edge, Partner};
use tandem::control::authority::Authority;
use tandem::time::Wall;

use crate::QUIET;
use crate::sessions;
use crate::stage::{Seen, Stage, bounce, contains, ensure, local, presence, say, status};

/// F10.
pub(crate) fn domain(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    stage.edge.user("x@other.example");
    for method in ["SUBSCRIBE", "INVITE", "MESSAGE"] {
        let body = match method {
            "INVITE" => Some(tandem::cli::demo::edge::offer()),
            "MESSAGE" => Some(("text/plain".to_owned(), b"hello".to_vec())),
            _ => None,
        };
        let extra: &[&str] = if method == "SUBSCRIBE" { &["Event: presence"] } else { &[] };
        let asked = stage.edge.begin(method, "x@other.example", &local("bob"), extra, body)?;
        status(&stage.edge.answer(asked)?, 403)?;
    }
    bob.none(QUIET, |it| it.attribute("from").contains("other.example"))?;
    // The connection bears it: what is permitted goes on.
    let call = sessions::open(stage, &mut bob)?;
    sessions::writes(stage, call, &mut bob, "still here")?;
    Ok("403 to SUBSCRIBE, INVITE and MESSAGE; the user hears nothing".to_owned())
}

/// F11.
pub(crate) fn unknown(stage: &Stage) -> Seen {
    let nobody = local("nobody");
    let subscribe = stage.edge.subscribe("zoe", &nobody)?;
    let invite = stage.edge.invite("zoe", &nobody)?;
    let body = Some(("text/plain".to_owned(), b"hello".to_vec()));
    let message = stage.edge.begin("MESSAGE", "zoe", &nobody, &[], body)?;
    let options = stage.edge.begin("OPTIONS", "zoe", &nobody, &[], None)?;
    for call in [subscribe, invite, message, options] {
        status(&stage.edge.answer(call)?, 404)?;
    }
    for whom in ["fabrikam.example", "imp1.fabrikam.example"] {
        let far = format!("sip:{whom}");
        let options = stage.edge.options("zoe", "fabrikam.example", &far)?;
        let answer = stage.edge.answer(options)?;
        status(&answer, 200)?;
        for header in ["Allow", "Accept", "Allow-Events", "Supported"] {
            ensure(answer.has(header), format!("OPTIONS of {whom} without {header}"))?;
        }
    }
    Ok("404 to SUBSCRIBE, INVITE, MESSAGE and OPTIONS; 200 to OPTIONS of the domain".to_owned())
}

/// Whoever is not let in finds the connection closed, sooner or later in the handshake.
fn shut_out(edge: &Edge) -> Result<&'static str, Trouble> {
    let Ok(call) = edge.subscribe("zoe", &local("bob")) else { return Ok("in the handshake") };
    edge.counted("the end of the connection", |it| it.ended > 0)?;
    ensure(edge.answers(call).is_empty(), "a stranger got an answer")?;
    Ok("behind it")
}

/// F12, inbound: the chain.
pub(crate) fn stranger(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let (now, day) = (now().0, 86_400_000_000);
    let other = Authority::new("others", Wall(now - day), Wall(now + day));
    let other = other.map_err(|it| Trouble(it.to_string()))?;
    // It believes ours, so that it is the switch that says no.
    let edge = stage.another_of(&other, "contoso.example", &["edge.contoso.example"])?;
    let place = shut_out(&edge)?;
    bob.none(QUIET, presence("zoe@contoso.example", "subscribe"))?;
    Ok(format!("closed {place}"))
}

/// F12, inbound: the name.
pub(crate) fn uninvited(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let edge = stage.another("stranger.example", &["edge.stranger.example"])?;
    let place = shut_out(&edge)?;
    bob.none(QUIET, presence("zoe@stranger.example", "subscribe"))?;
    Ok(format!("closed {place}"))
}

/// F12, inbound: the From.
pub(crate) fn uncovered(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    // It is connected as itself first: a connection speaks for nobody else later.
    let call = sessions::open(stage, &mut bob)?;
    let asked = stage.edge.begin(
        "SUBSCRIBE",
        "zoe@litware.example",
        &local("bob"),
        &["Event: presence"],
        None,
    )?;
    let answer = stage.edge.answer(asked)?;
    status(&answer, 403)?;
    contains(&answer, "399 ")?;
    contains(&answer, "Certificate of peer does not match domain of From")?;
    bob.none(QUIET, presence("zoe@litware.example", "subscribe"))?;
    sessions::writes(stage, call, &mut bob, "still me")?;
    Ok("403 with Warning 399; the user hears nothing".to_owned())
}

/// F12, outbound: their certificate.
pub(crate) fn wrong_name(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    say(&mut bob, "zoe@contoso.example", "m1", "hello")?;
    let condition = bounce(&mut bob, "m1")?;
    ensure(condition == "remote-server-timeout", format!("it came back with {condition}"))?;
    ensure(stage.edge.count(|_| true) == 0, "it was sent all the same")?;
    Ok("closed with nothing sent; remote-server-timeout".to_owned())
}

/// F12, outbound: the place.
pub(crate) fn target_elsewhere(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    say(&mut bob, "zoe@evil.example", "m1", "hello")?;
    let condition = bounce(&mut bob, "m1")?;
    ensure(condition == "remote-server-timeout", format!("it came back with {condition}"))?;
    let counts = stage.edge.counts();
    ensure((counts.accepted, counts.refused) == (0, 0), "it was called all the same")?;
    Ok("not even called; remote-server-timeout".to_owned())
}

/// F12: our own mistake, as it shows.
pub(crate) fn bare_504(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    // They look for another name in our certificate than we have.
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    let name = "sip.fabrikam.example".to_owned();
    stage.edge.partner(Partner { domain: "fabrikam.example".to_owned(), name, address });
    say(&mut bob, "zoe@contoso.example", "m1", "hello")?;
    let condition = bounce(&mut bob, "m1")?;
    ensure(condition == "remote-server-timeout", format!("504 is {condition}"))?;
    stage.edge.counted("a mismatch", |it| it.mismatches > 0)?;
    // Not what it holds against us: there it is by another name.
    stage.edge.next("the ACK", |it| it.method == "ACK")?;
    drop(stage.edge.faults());
    Ok("504 of their edge is remote-server-timeout".to_owned())
}
