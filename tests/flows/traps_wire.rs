//! Traps of the wire and of odd requests: how octets arrive, and what is asked for that is not there.

use std::time::{Duration, Instant};

use tandem::cli::demo::edge::Message;

use crate::QUIET;
use crate::presence::{active, approve};
use crate::sessions::{open, writes};
use crate::stage::{Seen, Stage, ensure, local, presence, status, text};

/// The fourth trap: CRLFs anywhere, one octet at a time, and two messages in one record.
pub(crate) fn octets(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let call = open(stage, &mut bob)?;
    let before = stage.edge.counts().blanks;
    stage.edge.send_raw(crate::stage::LOCAL, b"\r\n\r\n")?;
    stage.edge.counted("the pong", |it| it.blanks > before)?;
    stage.edge.drip(true);
    stage.edge.send_raw(crate::stage::LOCAL, b"\r\n\r\n\r\n")?;
    let long = format!("ms-im-format: text/html; charset=UTF-8; ms-body={}", "Pj".repeat(2_500));
    let body = Some(tandem::cli::demo::edge::offer());
    let invite = stage.edge.begin("INVITE", "zoe", &local("bob"), &[&long], body)?;
    let len = stage.edge.request(invite).map_or(0, |it| it.raw.len());
    status(&stage.edge.answer(invite)?, 200)?;
    writes(stage, invite, &mut bob, "drop by drop")?;
    stage.edge.drip(false);
    // Both are one that was answered already, so that the answers say whether both were seen.
    let sent = stage.edge.message(call.dialog, "again")?;
    bob.wait("the text", text("again"))?;
    status(&stage.edge.answer(sent)?, 200)?;
    let raw = stage.edge.request(sent).map(|it| it.raw).unwrap_or_default();
    stage.edge.send_raw(crate::stage::LOCAL, &[raw.as_slice(), b"\r\n", &raw].concat())?;
    bob.none(QUIET, text("again"))?;
    let answers = stage.edge.answers(sent).len();
    ensure(answers == 3, format!("{answers} answers"))?;
    Ok(format!("pong, an INVITE of {len} octets one by one, two messages in one record"))
}

/// The fifth: methods nobody has heard of, and one that is never answered.
pub(crate) fn methods(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let call = open(stage, &mut bob)?;
    for method in ["SERVICE", "WHATEVER"] {
        let body = Some(("application/SOAP+xml".to_owned(), b"<what/>".to_vec()));
        let sent = stage.edge.begin(method, "zoe", &local("bob"), &[], body)?;
        status(&stage.edge.answer(sent)?, 501)?;
    }
    for method in ["REGISTER", "PUBLISH"] {
        let sent = stage.edge.begin(method, "zoe", &local("bob"), &[], None)?;
        let answer = stage.edge.answer(sent)?;
        status(&answer, 405)?;
        ensure(answer.list("Allow").contains(&"SUBSCRIBE"), "405 without Allow")?;
    }
    let extra = ["Event: presence", "subscription-state: active;expires=100", "Require: eventlist"];
    let sent = stage.edge.begin("BENOTIFY", "zoe", &local("bob"), &extra, None)?;
    writes(stage, call, &mut bob, "behind it")?;
    ensure(stage.edge.answers(sent).is_empty(), "BENOTIFY was answered")?;
    Ok("501, 405 with Allow, and silence to BENOTIFY".to_owned())
}

/// The sixth: what a SUBSCRIBE may ask for.
pub(crate) fn subscribes(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    approve(&mut bob, "zoe@contoso.example")?;
    let ask = |extra: &[&str]| {
        let call = stage.edge.begin("SUBSCRIBE", "zoe", &local("bob"), extra, None)?;
        stage.edge.answer(call)
    };
    let answer = ask(&["Event: presence", "Accept: application/xpidf+xml, text/xml+msrtc.pidf"])?;
    status(&answer, 406)?;
    ensure(answer.header("Accept").contains("application/pidf+xml"), "406 without Accept")?;
    let answer = ask(&["Event: presence", "Require: adhoclist, categoryList"])?;
    status(&answer, 420)?;
    ensure(answer.list("Unsupported") == ["adhoclist", "categoryList"], "Unsupported")?;
    for event in
        ["Event: presence.wpending", "Event: vnd-microsoft-provisioning-v2", "X-Nothing: 1"]
    {
        let answer = ask(&[event])?;
        ensure([489, 400].contains(&answer.status), format!("{event}: {answer:?}"))?;
        ensure(answer.header("Allow-Events") == "presence", "489 without Allow-Events")?;
    }
    status(&ask(&["Event: presence;id=7"])?, 200)?;
    let notify = stage.edge.next("NOTIFY", |it| it.method == "NOTIFY")?;
    ensure(notify.header("Event") == "presence;id=7", format!("Event {}", notify.header("Event")))?;
    status(&ask(&["o: presence", "Accept: application/pidf+xml", "Expires: 0"])?, 200)?;
    let once = stage.edge.next("NOTIFY", |it| it.method == "NOTIFY")?;
    ensure(once.header("Subscription-State") == "terminated;reason=timeout", format!("{once:?}"))?;
    status(&ask(&["Event: presence", "Proxy-Require: ms-benotify"])?, 200)?;
    active(&stage.edge.next("NOTIFY", |it| it.method == "NOTIFY")?, "open")?;
    Ok("406, 420, 489 with what is due; event id, one look, ms-benotify".to_owned())
}

/// The twenty-first: a partner that has merely discovered us would block more than 20 a second.
pub(crate) fn paced(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let began = Instant::now();
    for i in 0..PACED {
        let user = format!("p{i}");
        stage.edge.user(&user);
        bob.send(&format!("<presence to='{user}@contoso.example' type='subscribe'/>"))?;
    }
    let is_it = |it: &Message| it.method == "SUBSCRIBE";
    for _ in 0..PACED {
        stage.edge.next_within("each", Duration::from_secs(10), is_it)?;
    }
    let took = began.elapsed().as_secs_f64();
    ensure(took >= 1.9, format!("{PACED} SUBSCRIBEs within {took:.1} s"))?;
    for i in 0..PACED {
        let user = format!("p{i}@contoso.example");
        let shown = |it: &tandem::cli::demo::element::Element| {
            it.name == "presence" && it.attribute("from") == user && it.attribute("type").is_empty()
        };
        bob.wait("each presence", shown)?;
    }
    bob.none(QUIET, presence("zoe@contoso.example", ""))?;
    Ok(format!("{PACED} SUBSCRIBEs in {took:.1} s, none lost"))
}

const PACED: usize = 61;
