//! Domains: above, below and beside each other; and such as come and go while the node runs.

use tandem::cli::demo::edge::offer;
use tandem::cli::demo::element::Element;

use crate::QUIET;
use crate::sessions;
use crate::stage::{LOCAL, Seen, Stage, contains, ensure, local, peer, say, status, text};

/// The partner above, below or beside the switch: neither is taken for the other.
pub(crate) fn subdomains(stage: &Stage) -> Seen {
    let (bob_at, zoe_at) = (format!("bob@{}", stage.local), format!("zoe@{}", stage.far));
    let mut bob = stage.login("bob")?;
    let from_zoe = |kind: &'static str| {
        let zoe_at = zoe_at.clone();
        move |it: &Element| {
            it.name == "presence"
                && it.attribute("from").split('/').next() == Some(&zoe_at)
                && it.attribute("type") == kind
        }
    };
    let call = stage.edge.subscribe("zoe", &bob_at)?;
    status(&stage.edge.answer(call)?, 200)?;
    stage.edge.next_in(call.dialog, "NOTIFY")?;
    bob.wait("the request", from_zoe("subscribe"))?;
    bob.send(&format!("<presence to='{zoe_at}' type='subscribed'/>"))?;
    let shown = stage.edge.next_in(call.dialog, "NOTIFY")?;
    contains(&shown, "<basic>open</basic>")?;
    bob.send(&format!("<presence to='{zoe_at}' type='subscribe'/>"))?;
    bob.wait("the presence", from_zoe(""))?;
    say(&mut bob, &zoe_at, "m1", "hello")?;
    let (_, dialog) = stage.edge.next_dialog("INVITE")?;
    ensure(stage.edge.next_in(dialog, "MESSAGE")?.text() == "hello", "another text")?;
    let back = stage.edge.message(dialog, "hello back")?;
    bob.wait("the reply", text("hello back"))?;
    status(&stage.edge.answer(back)?, 200)?;
    // Whoever is above, below or beside speaks for himself only; nobody outside speaks for us.
    for other in [stage.local, "other.cisco.example", "example"] {
        let who = format!("zoe@{other}");
        let asked = stage.edge.begin("INVITE", &who, &bob_at, &[], Some(offer()))?;
        status(&stage.edge.answer(asked)?, 403)?;
    }
    Ok(format!("{zoe_at} and {bob_at}: presence and texts both ways; 403 to every other domain"))
}

/// A partner and a certificate come without a restart and without a cut, and a partner goes.
pub(crate) fn reload(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let call = sessions::open(stage, &mut bob)?;
    sessions::writes(stage, call, &mut bob, "before")?;
    stage.renew()?;
    stage.reload(|it| it.replace("[admin]", &(peer("new.example") + "\n[admin]")))?;
    sessions::writes(stage, call, &mut bob, "between")?;
    // It calls, and sees the new certificate.
    let other = stage.another("new.example", &["edge.new.example"])?;
    let invited = other.invite("zoe", &local("bob"))?;
    status(&other.answer(invited)?, 200)?;
    let (old, new) = (stage.edge.certificate_of(LOCAL), other.certificate_of(LOCAL));
    ensure(old.is_some() && new.is_some() && old != new, "the certificate is the old one")?;
    other.message(invited.dialog, "I am new")?;
    bob.wait("the text", text("I am new"))?;
    sessions::writes(stage, call, &mut bob, "after")?;
    let ended = stage.edge.counts().ended;
    ensure(ended == 0, "a connection that stood was cut")?;
    // It goes again: what it asks for from now on is refused, or it is not heard at all.
    stage.reload(|it| it.replace(&(peer("new.example") + "\n[admin]"), "[admin]"))?;
    let asked = other.begin("INVITE", "zoe", &local("bob"), &[], Some(offer()));
    if let Some(answer) = asked.ok().and_then(|it| other.answer(it).ok()) {
        status(&answer, 403)?;
    }
    sessions::writes(stage, call, &mut bob, "to the end")?;
    sessions::replies(stage, call.dialog, &mut bob, "indeed")?;
    bob.none(QUIET, |it| it.attribute("type") == "error")?;
    ensure(stage.edge.counts().ended == 0, "a connection that stood was cut")?;
    Ok("a partner added, a certificate renewed, a partner removed; the session stood".to_owned())
}
