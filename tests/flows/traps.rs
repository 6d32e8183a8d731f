//! Traps of sessions and of what carries them.

use std::time::{Duration, Instant};

use base64::Engine as _;
use tandem::cli::demo::edge::{Answer, Message};

use crate::QUIET;
use crate::sessions::{chat_state, open, replies, writes};
use crate::stage::{Seen, Stage, bounce, ensure, local, presence, say, status, text};

/// The user answers late, as one with several endpoints may (ms-delayed-accept).
pub(crate) fn late(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    stage.edge.answer_next("INVITE", Answer::held());
    say(&mut bob, "zoe@contoso.example", "m1", "hello")?;
    let began = Instant::now();
    for (code, reason) in
        [(100, "Trying"), (101, "Progress Report"), (180, "Ringing"), (180, "Ringing")]
    {
        stage.edge.answer_held("INVITE", &Answer::status(code, reason))?;
    }
    stage
        .edge
        .none(Duration::from_secs(12), |it| ["CANCEL", "MESSAGE"].contains(&it.method.as_str()))?;
    let (kind, sdp) = tandem::cli::demo::edge::offer();
    let answer = Answer { body: Some((kind, sdp)), ..Answer::status(200, "OK") };
    stage.edge.answer_held("INVITE", &answer)?;
    let (_, dialog) = stage.edge.next_dialog("INVITE")?;
    ensure(stage.edge.next_in(dialog, "MESSAGE")?.text() == "hello", "another text")?;
    Ok(format!("waited {:.0} s, text delivered", began.elapsed().as_secs_f64()))
}

/// RFC 3261, 13.2.2.4: each 2xx is acknowledged, and the second one's dialog ended.
pub(crate) fn forked(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    stage.edge.answer_next("INVITE", Answer::held());
    say(&mut bob, "zoe@contoso.example", "m1", "hello")?;
    let answer =
        Answer { body: Some(tandem::cli::demo::edge::offer()), ..Answer::status(200, "OK") };
    stage.edge.answer_held("INVITE", &answer.clone().forking())?;
    stage.edge.answer_held("INVITE", &answer.forking())?;
    let heard = stage.edge.next("a text", |it| it.method == "MESSAGE")?;
    let goodbye = stage.edge.next("BYE", |it| it.method == "BYE")?;
    ensure(heard.header("To") != goodbye.header("To"), "the session in use was ended")?;
    stage.edge.next("an ACK", |it| it.method == "ACK")?;
    stage.edge.next("another ACK", |it| it.method == "ACK")?;
    ensure(stage.edge.count(|it| it.method == "MESSAGE") == 1, "the text went out twice")?;
    Ok("both acknowledged, the second ended, the text once".to_owned())
}

/// Office Communications Server 2005.
pub(crate) fn old_media(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let sdp = "v=0\r\no=- 0 0 IN IP4 198.51.100.77\r\ns=session\r\nc=IN IP4 198.51.100.77\r\nt=0 0\r\nm=x-ms-message 5060 sip null\r\na=accept-types:text/plain \r\n";
    let body = Some(("application/sdp".to_owned(), sdp.as_bytes().to_vec()));
    let call = stage.edge.begin("INVITE", "zoe", &local("bob"), &[], body)?;
    status(&stage.edge.answer(call)?, 200)?;
    writes(stage, call, &mut bob, "from long ago")?;
    Ok("accepted".to_owned())
}

/// The fifteenth trap: where the text is, and how it is wrapped.
pub(crate) fn bodies(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let call = open(stage, &mut bob)?;
    let base64 = |it: &str| base64::engine::general_purpose::STANDARD.encode(it);
    let rtf = base64("{\\rtf1\\ansi{\\fonttbl{\\f0 Segoe UI;}}\\f0 not this}");
    let alternative = format!(
        "------=_1\r\nContent-Type: text/rtf\r\nContent-Transfer-Encoding: base64\r\n\r\n{rtf}\r\n------=_1\r\nContent-Type: text/plain; charset=UTF-8; msgr=WAAtAE0A\r\n\r\nplain wins\r\n------=_1--\r\n"
    );
    let cases: [(&str, &str, Vec<u8>, &[&str]); 6] = [
        ("plain wins", "multipart/alternative;boundary=\"----=_1\"", alternative.into_bytes(), &[]),
        (
            "decodéd",
            "text/plain; charset=UTF-8",
            base64("decodéd").into_bytes(),
            &["Content-Transfer-Encoding: base64"],
        ),
        (
            "a=b ü",
            "text/plain; charset=UTF-8",
            b"a=3Db =C3=BC".to_vec(),
            &["Content-Transfer-Encoding: quoted-printable"],
        ),
        (
            "bold & more",
            "text/html",
            b"<html><body><p>bold &amp; <b>more</b></p></body></html>".to_vec(),
            &[],
        ),
        (
            "rich text",
            "text/rtf",
            b"{\\rtf1\\ansi\\deff0{\\fonttbl{\\f0 Segoe UI;}}\\f0\\fs20 rich \\b text\\b0}"
                .to_vec(),
            &[],
        ),
        ("plain\nlines", "text/plain;charset=utf-8;msgr=WAA", b"plain\r\nlines".to_vec(), &[]),
    ];
    for (wanted, kind, body, extra) in cases {
        let sent =
            stage.edge.within(call.dialog, "MESSAGE", extra, Some((kind.to_owned(), body)))?;
        let shown = bob.wait(kind, |it| it.name == "message" && it.child("body").is_some())?;
        let seen = shown.child_text("body").trim().replace("\r\n", "\n");
        ensure(seen == wanted, format!("{kind} is \"{seen}\", not \"{wanted}\""))?;
        status(&stage.edge.answer(sent)?, 200)?;
    }
    let ink = Some(("application/x-ms-ink".to_owned(), vec![0, 1, 2, 255]));
    let answer = stage.edge.answer(stage.edge.within(call.dialog, "MESSAGE", &[], ink)?)?;
    status(&answer, 415)?;
    ensure(answer.header("Accept").contains("text/plain"), "415 without Accept")?;
    Ok("alternative, base64, quoted-printable, HTML, RTF shown; ink 415".to_owned())
}

/// Their dialog is gone, and their BYE never came.
pub(crate) fn gone(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let call = open(stage, &mut bob)?;
    writes(stage, call, &mut bob, "hello")?;
    for code in [481, 480, 408] {
        let words = format!("after {code}");
        stage.edge.answer_next("MESSAGE", Answer::status(code, "Gone").forgetting());
        say(&mut bob, "zoe@contoso.example", &words, &words)?;
        stage.edge.next("the first try", |it| it.method == "MESSAGE" && it.text() == words)?;
        let (_, dialog) = stage.edge.next_dialog("INVITE")?;
        let again = stage.edge.next_in(dialog, "MESSAGE")?;
        ensure(again.text() == words, format!("{words} was due, not {}", again.text()))?;
    }
    bob.none(QUIET, |it| it.attribute("type") == "error")?;
    Ok("one INVITE each after 481, 480 and 408, the text in it, no error".to_owned())
}

/// The text that crossed their BYE goes out once more, in a session of its own.
pub(crate) fn crossing(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let call = open(stage, &mut bob)?;
    writes(stage, call, &mut bob, "hello")?;
    stage.edge.answer_next("MESSAGE", Answer::held());
    say(&mut bob, "zoe@contoso.example", "m1", "crossing")?;
    stage.edge.next("the text", |it| it.method == "MESSAGE")?;
    let bye = stage.edge.bye(call.dialog)?;
    status(&stage.edge.answer(bye)?, 200)?;
    stage.edge.answer_held("MESSAGE", &Answer::status(481, "Gone").forgetting())?;
    let (_, dialog) = stage.edge.next_dialog("INVITE")?;
    ensure(stage.edge.next_in(dialog, "MESSAGE")?.text() == "crossing", "another text")?;
    stage.edge.none(QUIET, |it| it.method == "MESSAGE")?;
    bob.none(QUIET, |it| it.attribute("type") == "error")?;
    Ok("481 to the text, one INVITE, the text once more in it".to_owned())
}

/// What the offer has embedded comes again as a MESSAGE, and is shown then only.
pub(crate) fn embedded(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let call = open(stage, &mut bob)?;
    writes(stage, call, &mut bob, "not agreed")?;
    bob.none(QUIET, text("not agreed"))?;
    Ok("shown exactly once".to_owned())
}

/// F6's end: theirs is accepted, texts go where a session is first.
pub(crate) fn glare(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    stage.edge.answer_next("INVITE", Answer::held());
    say(&mut bob, "zoe@contoso.example", "m1", "mine")?;
    stage.edge.answer_held("INVITE", &Answer::status(180, "Ringing"))?;
    let call = open(stage, &mut bob)?;
    writes(stage, call, &mut bob, "yours")?;
    let answer =
        Answer { body: Some(tandem::cli::demo::edge::offer()), ..Answer::status(200, "OK") };
    stage.edge.answer_held("INVITE", &answer)?;
    let heard = stage.edge.next("the text", |it| it.method == "MESSAGE")?;
    ensure(heard.text() == "mine", "another text")?;
    stage.edge.none(QUIET, |it| it.method == "MESSAGE")?;
    writes(stage, call, &mut bob, "both")?;
    Ok("theirs accepted while ours waits; each text once".to_owned())
}

pub(crate) fn order(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    stage.edge.answer_next("INVITE", Answer::held());
    for i in 0..20 {
        say(&mut bob, "zoe@contoso.example", &format!("m{i}"), &i.to_string())?;
    }
    let answer =
        Answer { body: Some(tandem::cli::demo::edge::offer()), ..Answer::status(200, "OK") };
    stage.edge.answer_held("INVITE", &answer)?;
    let (_, dialog) = stage.edge.next_dialog("INVITE")?;
    for i in 0..20 {
        let heard = stage.edge.next_in(dialog, "MESSAGE")?.text();
        ensure(heard == i.to_string(), format!("{i} was due, not {heard}"))?;
    }
    bob.none(QUIET, |it| it.attribute("type") == "error")?;
    Ok("20 texts as written".to_owned())
}

/// RFC 3261, 13.3.1.4: the 200 comes again until the ACK, and without one there is no session.
pub(crate) fn no_ack(stage: &Stage) -> Seen {
    stage.login("bob")?;
    stage.edge.withhold_acks();
    let call = stage.edge.invite("zoe", &local("bob"))?;
    status(&stage.edge.answer(call)?, 200)?;
    stage.edge.next_within("BYE", Duration::from_secs(40), |it| it.method == "BYE")?;
    let repeats = stage.edge.answers(call).iter().filter(|it| it.status == 200).count();
    ensure((9..=12).contains(&repeats), format!("the 200 came {repeats} times"))?;
    Ok(format!("{repeats} times 200, then BYE"))
}

pub(crate) fn twice(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let call = open(stage, &mut bob)?;
    let sent = stage.edge.message(call.dialog, "once")?;
    bob.wait("the text", text("once"))?;
    status(&stage.edge.answer(sent)?, 200)?;
    stage.edge.repeat(sent)?;
    bob.none(QUIET, text("once"))?;
    let answers = stage.edge.answers(sent);
    let raw: Vec<&[u8]> = answers.iter().map(|it| it.raw.as_slice()).collect();
    ensure(matches!(raw.as_slice(), [one, other] if one == other), format!("{answers:?}"))?;
    Ok("one delivery, two equal answers".to_owned())
}

pub(crate) fn typing(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let call = open(stage, &mut bob)?;
    writes(stage, call, &mut bob, "hello")?;
    for kind in ["application/xml+conversationinfo", "application/ms-filetransfer+xml"] {
        let body = Some((kind.to_owned(), b"<what/>".to_vec()));
        let answer = stage.edge.answer(stage.edge.within(call.dialog, "INFO", &[], body)?)?;
        ensure([200, 415].contains(&answer.status), format!("{kind}: {answer:?}"))?;
    }
    stage.edge.answer_next("INFO", Answer::status(481, "Gone").forgetting());
    bob.send("<message to='zoe@contoso.example' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>")?;
    stage.edge.next_in(call.dialog, "INFO")?;
    stage.edge.none(QUIET, |it| ["INVITE", "INFO"].contains(&it.method.as_str()))?;
    bob.none(QUIET, chat_state("composing"))?;
    say(&mut bob, "zoe@contoso.example", "m1", "anew")?;
    let (_, dialog) = stage.edge.next_dialog("INVITE")?;
    ensure(stage.edge.next_in(dialog, "MESSAGE")?.text() == "anew", "another text")?;
    Ok("unknown bodies borne; 481 forgets the dialog and sends nothing again".to_owned())
}

/// The twenty-second trap.
pub(crate) fn connections(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let call = open(stage, &mut bob)?;
    replies(stage, call.dialog, &mut bob, "here")?;
    bob.send("<message to='zoe@contoso.example' type='chat'><gone xmlns='http://jabber.org/protocol/chatstates'/></message>")?;
    stage.edge.next_in(call.dialog, "BYE")?;
    ensure(stage.edge.counts().accepted == 0, "BYE came on a connection of its own")?;
    // The same edge serves another domain too, by another name and so by another connection.
    say(&mut bob, "ann@litware.example", "m1", "there")?;
    stage.edge.next("a request to litware", |it| it.uri.contains("litware.example"))?;
    let counts = stage.edge.counts();
    ensure(
        counts.accepted == 1,
        format!("{} connections were opened for litware", counts.accepted),
    )?;
    // What it was called by there, it is called by here too: that is not held against the switch.
    drop(stage.edge.faults());
    Ok("BYE and MESSAGE on the peer's connection; another domain gets its own".to_owned())
}

pub(crate) fn overloaded(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    stage.edge.answer_next("INVITE", Answer::status(503, "Service Unavailable"));
    say(&mut bob, "zoe@contoso.example", "m1", "one")?;
    let condition = bounce(&mut bob, "m1")?;
    ensure(condition == "internal-server-error", format!("503 is {condition}"))?;
    say(&mut bob, "zoe@contoso.example", "m2", "two")?;
    stage.edge.next("the next", |it| it.method == "MESSAGE" && it.text() == "two")?;
    stage.edge.answer_next(
        "SUBSCRIBE",
        Answer::status(503, "Service Unavailable").with("Retry-After: 4"),
    );
    bob.send("<presence to='zoe@contoso.example' type='subscribe'/>")?;
    let is_it = |it: &Message| it.method == "SUBSCRIBE";
    stage.edge.next("the first", is_it)?;
    let first = stage.edge.last_at(is_it);
    stage.edge.next_within("the second", Duration::from_secs(30), is_it)?;
    let apart =
        stage.edge.last_at(is_it).zip(first).map_or(0.0, |(it, first)| (it - first).as_secs_f64());
    ensure(apart >= 4.0, format!("asked again after {apart:.1} s"))?;
    bob.wait("the presence", presence("zoe@contoso.example", ""))?;
    Ok(format!("bounced and gone on without, waited {apart:.1} s with"))
}

pub(crate) fn lost(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    stage.edge.answer_next("INVITE", Answer::held());
    say(&mut bob, "zoe@contoso.example", "m1", "one")?;
    stage.edge.next("the INVITE", |it| it.method == "INVITE")?;
    stage.edge.hang_up();
    stage.edge.counted("the end of the connection", |it| it.ended > 0)?;
    // It comes back, or it arrives: it is not lost.
    let began = Instant::now();
    let condition = bounce(&mut bob, "m1");
    let arrived = stage.edge.count(|it| it.method == "MESSAGE" && it.text() == "one");
    ensure(
        condition.is_ok() != (arrived == 1),
        format!("came back: {condition:?}, arrived: {arrived}"),
    )?;
    say(&mut bob, "zoe@contoso.example", "m2", "two")?;
    stage.edge.next("the next", |it| it.method == "MESSAGE" && it.text() == "two")?;
    let how = if condition.is_ok() { "came back" } else { "arrived" };
    Ok(format!(
        "the text {how} within {:.1} s, the next over a new connection",
        began.elapsed().as_secs_f64()
    ))
}
