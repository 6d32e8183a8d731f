//! F5 to F9: sessions of texts.

use tandem::cli::demo::client::{Client, Trouble};
use tandem::cli::demo::edge::{Answer, Call, Message};
use tandem::cli::demo::element::Element;

use crate::QUIET;
use crate::stage::{Seen, Stage, bounce, contains, ensure, local, say, status, text};

/// `type='chat'` of zoe with a chat state.
pub(crate) fn chat_state(state: &'static str) -> impl Fn(&Element) -> bool {
    move |it| {
        it.name == "message"
            && it.attribute("from").starts_with("zoe@")
            && it.child(state).is_some()
    }
}

/// zoe opens a window to bob; what was embedded in the offer must not be shown.
pub(crate) fn open(stage: &Stage, bob: &mut Client) -> Result<Call, Trouble> {
    let call = stage.edge.invite("zoe", &local("bob"))?;
    let answer = stage.edge.answer(call)?;
    status(&answer, 200)?;
    contains(&answer, "m=message 5060 sip sip:bob@fabrikam.example")?;
    contains(&answer, "a=accept-types:text/plain")?;
    for method in
        ["INVITE", "ACK", "CANCEL", "BYE", "MESSAGE", "INFO", "OPTIONS", "NOTIFY", "SUBSCRIBE"]
    {
        ensure(answer.list("Allow").contains(&method), format!("Allow lacks {method}"))?;
    }
    ensure(answer.header("Content-Type") == "application/sdp", "no SDP in the 200")?;
    let first = stage.edge.answers(call).first().map_or(0, |it| it.status);
    // RFC 3261, 17.2.1: 100 is due where the answer takes longer than 200 ms.
    ensure([100, 200].contains(&first), format!("the first answer is {first}"))?;
    bob.none(QUIET, text("not agreed"))?;
    Ok(call)
}

/// A text of zoe, and that bob has it.
pub(crate) fn writes(
    stage: &Stage,
    call: Call,
    bob: &mut Client,
    words: &str,
) -> Result<(), Trouble> {
    let sent = stage.edge.message(call.dialog, words)?;
    let shown = bob.wait("the text", text(words))?;
    ensure(shown.attribute("type") == "chat", "not a chat")?;
    ensure(shown.attribute("from").starts_with("zoe@contoso.example"), "not from zoe")?;
    status(&stage.edge.answer(sent)?, 200)
}

/// A text of bob in a session that is there.
pub(crate) fn replies(
    stage: &Stage,
    dialog: usize,
    bob: &mut Client,
    words: &str,
) -> Result<Message, Trouble> {
    say(bob, "zoe@contoso.example", words, words)?;
    let heard = stage.edge.next_in(dialog, "MESSAGE")?;
    ensure(heard.text() == words, format!("\"{words}\" came as\n{heard:?}"))?;
    ensure(heard.header("Content-Type").starts_with("text/plain"), "not text/plain")?;
    Ok(heard)
}

/// F5.
pub(crate) fn inbound(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let call = open(stage, &mut bob)?;
    writes(stage, call, &mut bob, "hi <bob> & all 你好")?;
    let first = replies(stage, call.dialog, &mut bob, "hi zoe")?;
    let second = replies(stage, call.dialog, &mut bob, "again")?;
    ensure(second.number() == first.number() + 1, "CSeq did not grow by one")?;
    writes(stage, call, &mut bob, "bye")?;
    ensure(stage.edge.counts().accepted == 0, "the switch opened a connection of its own")?;
    Ok("200 with SDP, texts both ways in one dialog; ms-text-format not taken".to_owned())
}

/// F6.
pub(crate) fn outbound(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    for words in ["one", "two", "three"] {
        say(&mut bob, "zoe@contoso.example", words, words)?;
    }
    let (invite, dialog) = stage.edge.next_dialog("INVITE")?;
    ensure(invite.uri == "sip:zoe@contoso.example", "Request-URI")?;
    contains(&invite, "m=message 5060 sip null")?;
    contains(&invite, "a=accept-types:text/plain")?;
    stage.edge.acknowledged(dialog)?;
    for words in ["one", "two", "three"] {
        let heard = stage.edge.next_in(dialog, "MESSAGE")?;
        ensure(heard.text() == words, format!("{words} was due, not {}", heard.text()))?;
    }
    let back = stage.edge.message(dialog, "four")?;
    bob.wait("the reply", text("four"))?;
    status(&stage.edge.answer(back)?, 200)?;
    replies(stage, dialog, &mut bob, "five")?;
    ensure(stage.edge.count(|it| it.method == "INVITE") == 1, "more than one INVITE")?;
    // What can't be opened gives each text back.
    stage.edge.user("ann");
    stage.edge.answer_next("INVITE", Answer::status(480, "Temporarily Unavailable"));
    say(&mut bob, "ann@contoso.example", "b1", "anybody?")?;
    let condition = bounce(&mut bob, "b1")?;
    ensure(condition == "recipient-unavailable", format!("480 is {condition}"))?;
    say(&mut bob, "nobody@contoso.example", "b2", "anybody?")?;
    let condition = bounce(&mut bob, "b2")?;
    ensure(condition == "item-not-found", format!("404 is {condition}"))?;
    Ok("101 and two 180 borne, queued texts in order, the dialog used by both, 480 and 404 back"
        .to_owned())
}

/// F7.
pub(crate) fn typing(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    // Nothing begins a session but a text.
    bob.send("<message to='zoe@contoso.example' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>")?;
    stage.edge.none(QUIET, |it| ["INVITE", "INFO"].contains(&it.method.as_str()))?;
    let call = open(stage, &mut bob)?;
    writes(stage, call, &mut bob, "hello")?;
    let types = stage.edge.typing(call.dialog, "type")?;
    bob.wait("composing", chat_state("composing"))?;
    status(&stage.edge.answer(types)?, 200)?;
    let idle = stage.edge.typing(call.dialog, "idle")?;
    status(&stage.edge.answer(idle)?, 200)?;
    bob.wait("active", chat_state("active"))?;
    for (state, wanted) in [("composing", "status=\"type\""), ("paused", "status=\"idle\"")] {
        bob.send(&format!(
            "<message to='zoe@contoso.example' type='chat'><{state} xmlns='http://jabber.org/protocol/chatstates'/></message>"
        ))?;
        let info = stage.edge.next_in(call.dialog, "INFO")?;
        contains(&info, wanted)?;
        ensure(info.header("Content-Type").starts_with("application/xml"), "not application/xml")?;
    }
    Ok("composing both ways as KeyboardActivity; none without a session".to_owned())
}

/// F8.
pub(crate) fn goodbye(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let call = open(stage, &mut bob)?;
    writes(stage, call, &mut bob, "hello")?;
    let bye = stage.edge.bye(call.dialog)?;
    status(&stage.edge.answer(bye)?, 200)?;
    let late = stage.edge.message(call.dialog, "too late")?;
    status(&stage.edge.answer(late)?, 481)?;
    bob.none(QUIET, text("too late"))?;
    // The next text begins anew, and whoever leaves says so.
    say(&mut bob, "zoe@contoso.example", "m1", "still there?")?;
    let (_, dialog) = stage.edge.next_dialog("INVITE")?;
    ensure(stage.edge.next_in(dialog, "MESSAGE")?.text() == "still there?", "another text")?;
    bob.send("<message to='zoe@contoso.example' type='chat'><gone xmlns='http://jabber.org/protocol/chatstates'/></message>")?;
    stage.edge.next_in(dialog, "BYE")?;
    Ok("481 behind it; the next text opens a session; gone is BYE".to_owned())
}

/// F9, and the eighteenth trap.
pub(crate) fn group(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let call = open(stage, &mut bob)?;
    let sdp = |media: &str| {
        let text = format!(
            "v=0\r\no=- 0 0 IN IP4 198.51.100.77\r\ns=session\r\nc=IN IP4 198.51.100.77\r\nt=0 0\r\n{media}\r\n"
        );
        Some(("application/sdp".to_owned(), text.into_bytes()))
    };
    let offer = Some(tandem::cli::demo::edge::offer());
    let conference = "<Conferencing version=\"2.0\"><focus-uri>sip:zoe@contoso.example;gruu;opaque=app:conf:focus:id:1</focus-uri></Conferencing>";
    let conference =
        Some(("application/ms-conf-invite+xml".to_owned(), conference.as_bytes().to_vec()));
    let three = "EndPoints: <sip:zoe@contoso.example>, <sip:bob@fabrikam.example>, <sip:ann@contoso.example>";
    let cases = [
        ("a conference", 488, &[][..], conference),
        ("rtc-multiparty", 420, &["Require: com.microsoft.rtc-multiparty"], offer.clone()),
        ("TriggeredInvite", 488, &["TriggeredInvite: TRUE"], offer.clone()),
        ("three endpoints", 488, &[three], offer),
        ("audio", 488, &[], sdp("m=audio 30000 RTP/AVP 0")),
        ("sharing", 488, &[], sdp("m=applicationsharing 30000 TCP/RTP/AVP 127")),
    ];
    for (what, wanted, extra, body) in cases {
        let asked = stage.edge.begin("INVITE", "zoe", &local("bob"), extra, body)?;
        let answer = stage.edge.answer(asked).map_err(|it| Trouble(format!("{what}: {it}")))?;
        status(&answer, wanted).map_err(|it| Trouble(format!("{what}: {it}")))?;
        if wanted == 420 {
            ensure(answer.header("Unsupported") == "com.microsoft.rtc-multiparty", "Unsupported")?;
        }
        if what == "a conference" {
            ensure(answer.header("Warning").contains("Group chat is not supported"), "no Warning")?;
        }
        if what == "audio" {
            ensure(answer.header("Warning").starts_with("304 "), "no Warning: 304")?;
        }
    }
    let refer =
        stage.edge.within(call.dialog, "REFER", &["Refer-To: <sip:ann@contoso.example>"], None)?;
    let refused = stage.edge.answer(refer)?;
    ensure([405, 603].contains(&refused.status), format!("REFER: {refused:?}"))?;
    let roster =
        stage.edge.begin("SUBSCRIBE", "zoe", &local("bob"), &["Event: conference"], None)?;
    let refused = stage.edge.answer(roster)?;
    status(&refused, 489)?;
    ensure(refused.header("Allow-Events").contains("presence"), "no Allow-Events")?;
    let again = stage.edge.within(call.dialog, "INVITE", &[], sdp("m=audio 30000 RTP/AVP 0"))?;
    status(&stage.edge.answer(again)?, 488)?;
    writes(stage, call, &mut bob, "the two of us")?;
    replies(stage, call.dialog, &mut bob, "remain")?;
    Ok("six offers, REFER, conference and re-INVITE refused; the session of two goes on".to_owned())
}
