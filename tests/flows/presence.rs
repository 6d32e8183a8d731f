//! F1 to F4: who watches whom, and what they see.

use std::time::Duration;

use tandem::cli::demo::client::{Client, Trouble};
use tandem::cli::demo::edge::{Answer, Call, Message, Rule, param};

use crate::QUIET;
use crate::stage::{Seen, Stage, contains, ensure, local, presence, status};

/// Says yes before anybody has asked (RFC 6121, 3.4).
pub(crate) fn approve(client: &mut Client, who: &str) -> Result<(), Trouble> {
    client.send(&format!("<presence to='{who}' type='subscribed'/>"))
}

/// The subscription-state of a NOTIFY, without its parameters.
fn state(notify: &Message) -> &str {
    notify.header("Subscription-State").split(';').next().unwrap_or_default()
}

pub(crate) fn active(notify: &Message, basic: &str) -> Result<(), Trouble> {
    ensure(state(notify) == "active", format!("not active:\n{notify:?}"))?;
    contains(notify, "\r\nEvent: presence")?;
    ensure(notify.header("Content-Type").starts_with("application/pidf+xml"), "no PIDF")?;
    contains(notify, &format!("<basic>{basic}</basic>"))
}

/// Subscribes and expects to be told at once.
pub(crate) fn watch(stage: &Stage, user: &str) -> Result<(Call, Message), Trouble> {
    let call = stage.edge.subscribe("zoe", &local(user))?;
    let answer = stage.edge.answer(call)?;
    status(&answer, 200)?;
    ensure(answer.header("Expires") == "7200", "Expires is not 7200")?;
    ensure(answer.header("Event") == "presence", "no Event in the 200")?;
    let notify = stage.edge.next_in(call.dialog, "NOTIFY")?;
    Ok((call, notify))
}

/// F1.
pub(crate) fn accepted(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    approve(&mut bob, "zoe@contoso.example")?;
    let (call, first) = watch(stage, "bob")?;
    active(&first, "open")?;
    ensure(first.header("Subscription-State").starts_with("active;expires="), "no expires")?;
    bob.send("<presence><show>away</show></presence>")?;
    let away = stage.edge.next_in(call.dialog, "NOTIFY")?;
    active(&away, "open")?;
    contains(&away, ">away<")?;
    ensure(away.number() == first.number() + 1, "CSeq did not grow by one")?;
    let call = stage.edge.refresh(call.dialog, 7_200)?;
    status(&stage.edge.answer(call)?, 200)?;
    let full = stage.edge.next_in(call.dialog, "NOTIFY")?;
    active(&full, "open")?;
    contains(&full, ">away<")?;
    let call = stage.edge.refresh(call.dialog, 0)?;
    ensure(stage.edge.answer(call)?.header("Expires") == "0", "the end has no Expires: 0")?;
    let last = stage.edge.next_in(call.dialog, "NOTIFY")?;
    ensure(last.header("Subscription-State") == "terminated;reason=timeout", format!("{last:?}"))?;
    let call = stage.edge.refresh(call.dialog, 7_200)?;
    status(&stage.edge.answer(call)?, 481)?;
    ensure(stage.edge.counts().accepted == 0, "the switch opened a connection of its own")?;
    Ok("active, away, refreshed, ended; routes and epid byte for byte".to_owned())
}

/// F2.
pub(crate) fn pending(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let (call, first) = watch(stage, "bob")?;
    ensure(
        first.header("Subscription-State").starts_with("pending;expires="),
        format!("{first:?}"),
    )?;
    ensure(first.body.is_empty() && !first.has("Content-Type"), "a pending NOTIFY has a body")?;
    bob.wait("the request", presence("zoe@contoso.example", "subscribe"))?;
    approve(&mut bob, "zoe@contoso.example")?;
    let second = stage.edge.next_in(call.dialog, "NOTIFY")?;
    active(&second, "open")?;
    let rest: u32 =
        param(second.header("Subscription-State"), "expires").parse().unwrap_or_default();
    ensure((7_100..=7_200).contains(&rest), format!("{rest} s are left"))?;
    let (_, notify) = watch(stage, "bob")?;
    active(&notify, "open")?;
    bob.none(QUIET, presence("zoe@contoso.example", "subscribe"))?;
    Ok("pending without a body, active after the user's word, asked once".to_owned())
}

/// F3, and the eighth trap: a denied watcher can't tell it from an absent user.
pub(crate) fn denied(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    let (call, first) = watch(stage, "bob")?;
    ensure(state(&first) == "pending", "not pending")?;
    bob.wait("the request", presence("zoe@contoso.example", "subscribe"))?;
    bob.send("<presence to='zoe@contoso.example' type='unsubscribed'/>")?;
    let denied = stage.edge.next_in(call.dialog, "NOTIFY")?;
    active(&denied, "closed")?;
    // Somebody who has allowed it, and is away for good.
    let mut ben = stage.login("ben")?;
    approve(&mut ben, "zoe@contoso.example")?;
    ben.send("<presence type='unavailable'/>")?;
    ben.close();
    let (blocked_call, blocked) = watch(stage, "bob")?;
    let (absent_call, absent) = watch(stage, "ben")?;
    bob.send("<presence><show>away</show></presence>")?;
    bob.none(QUIET, presence("zoe@contoso.example", "subscribe"))?;
    stage.edge.none(QUIET, |it| it.method == "NOTIFY")?;
    let shape = |it: &Message, user: &str| {
        let variable = ["Via", "Call-ID", "From", "To"];
        let lines = it.headers.iter().filter(|it| !variable.contains(&it.0.as_str()));
        let lines: Vec<String> = lines.map(|it| format!("{}: {}\n", it.0, it.1)).collect();
        (lines.concat() + &it.text()).replace(user, "USER")
    };
    let (blocked, absent) = (shape(&blocked, "bob"), shape(&absent, "ben"));
    // The seconds that are left may differ by one.
    let (blocked, absent) = (blocked.replace("7199", "7200"), absent.replace("7199", "7200"));
    ensure(blocked == absent, format!("denied:\n{blocked}\nabsent:\n{absent}"))?;
    let ends = [blocked_call, absent_call].map(|it| stage.edge.refresh(it.dialog, 0));
    for end in ends {
        status(&stage.edge.answer(end?)?, 200)?;
    }
    Ok("closed for ever, in the shape of an absent user; asked once".to_owned())
}

/// F4.
pub(crate) fn outbound(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    stage.edge.rule("zoe", Rule::Pending);
    // Less is refreshed no sooner.
    stage.edge.grant(60);
    bob.send("<presence to='zoe@contoso.example' type='subscribe'/>")?;
    let (asked, dialog) = stage.edge.next_dialog("SUBSCRIBE")?;
    ensure(asked.uri == "sip:zoe@contoso.example", format!("Request-URI {}", asked.uri))?;
    ensure(asked.header("Accept") == "application/pidf+xml", "Accept is not PIDF alone")?;
    let expires: u32 = asked.header("Expires").parse().unwrap_or_default();
    ensure((7_200..=7_800).contains(&expires), format!("Expires {expires}"))?;
    ensure(asked.header("Max-Forwards") == "70", "Max-Forwards")?;
    bob.none(QUIET, |it| it.name == "presence" && it.attribute("from").contains("contoso"))?;
    stage.edge.decide("zoe", Rule::Allow)?;
    bob.wait("the approval", presence("zoe@contoso.example", "subscribed"))?;
    bob.wait("the presence", presence("zoe@contoso.example", ""))?;
    stage.edge.publish("zoe", true, "busy")?;
    let busy = bob.wait("busy", presence("zoe@contoso.example", ""))?;
    ensure(busy.child_text("show") == "away", format!("busy is {busy:?}"))?;
    stage.edge.publish("zoe", false, "")?;
    bob.wait("offline", presence("zoe@contoso.example", "unavailable"))?;
    // Whoever has forgotten the dialog says so, and is asked anew.
    let gone = Answer::status(481, "Call leg/transaction does not exist").forgetting();
    stage.edge.answer_next("SUBSCRIBE", gone);
    let refreshed = stage.edge.next_within("the refresh", Duration::from_secs(60), |it| {
        it.method == "SUBSCRIBE" && it.header("Call-ID") == asked.header("Call-ID")
    })?;
    ensure(refreshed.number() > asked.number(), "CSeq did not grow")?;
    let (again, anew) = stage.edge.next_dialog("SUBSCRIBE")?;
    ensure(again.header("Call-ID") != asked.header("Call-ID"), "an old Call-ID")?;
    ensure(anew != dialog, "the same dialog")?;
    bob.send("<presence to='zoe@contoso.example' type='unsubscribe'/>")?;
    let call_id = again.header("Call-ID").to_owned();
    stage.edge.next("the end", |it| {
        it.method == "SUBSCRIBE" && it.header("Expires") == "0" && it.header("Call-ID") == call_id
    })?;
    Ok("pending told nobody; active, busy, offline; refreshed, taken up anew, ended".to_owned())
}
