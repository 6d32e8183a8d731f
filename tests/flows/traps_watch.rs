//! Traps of subscriptions: in what order, in what shape, and how they end.

use std::time::{Duration, Instant};

use tandem::cli::demo::client::Trouble;
use tandem::cli::demo::edge::{Answer, Manner, Message};
use tandem::cli::demo::element::Element;

use crate::QUIET;
use crate::presence::{active, approve, watch};
use crate::stage::{Seen, Stage, ensure, local, presence, status};

/// bob watches zoe, whatever way she tells.
fn told(stage: &Stage, manner: Manner) -> Result<tandem::cli::demo::client::Client, Trouble> {
    let mut bob = stage.login("bob")?;
    stage.edge.manner("zoe", manner);
    bob.send("<presence to='zoe@contoso.example' type='subscribe'/>")?;
    bob.wait("the approval", presence("zoe@contoso.example", "subscribed"))?;
    bob.wait("the presence", presence("zoe@contoso.example", ""))?;
    stage.edge.publish("zoe", true, "busy")?;
    let busy = bob.wait("busy", presence("zoe@contoso.example", ""))?;
    ensure(busy.child_text("show") == "away", format!("busy is {busy:?}"))?;
    Ok(bob)
}

pub(crate) fn notify_first(stage: &Stage) -> Seen {
    told(stage, Manner::NotifyFirst)?;
    ensure(stage.edge.count(|it| it.method == "SUBSCRIBE") == 1, "asked more than once")?;
    Ok("subscribed and seen, one SUBSCRIBE".to_owned())
}

pub(crate) fn piggyback(stage: &Stage) -> Seen {
    told(stage, Manner::Piggyback)?;
    Ok("shown at once from the 200's text/xml+msrtc.pidf".to_owned())
}

pub(crate) fn benotify(stage: &Stage) -> Seen {
    told(stage, Manner::Benotify)?;
    // An answer would be held against the switch as one to nothing it has to answer.
    let answers = stage.edge.answers_to("BENOTIFY");
    ensure(answers == 0, format!("{answers} answers to BENOTIFY"))?;
    Ok("seen, and no answer given, not even an error".to_owned())
}

pub(crate) fn notify_for_nothing(stage: &Stage) -> Seen {
    stage.login("bob")?;
    let extra = ["Event: presence", "Subscription-State: active;expires=100"];
    let call = stage.edge.begin("NOTIFY", "zoe", &local("bob"), &extra, None)?;
    status(&stage.edge.answer(call)?, 481)?;
    Ok("481".to_owned())
}

pub(crate) fn too_brief(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    approve(&mut bob, "zoe@contoso.example")?;
    let brief = ["Event: presence", "Expires: 30"];
    let call = stage.edge.begin("SUBSCRIBE", "zoe", &local("bob"), &brief, None)?;
    let answer = stage.edge.answer(call)?;
    status(&answer, 423)?;
    ensure(answer.header("Min-Expires") == "60", "Min-Expires is not 60")?;
    stage.edge.answer_next(
        "SUBSCRIBE",
        Answer::status(423, "Interval Too Brief").with("Min-Expires: 9000"),
    );
    bob.send("<presence to='zoe@contoso.example' type='subscribe'/>")?;
    bob.wait("the presence", presence("zoe@contoso.example", ""))?;
    let (asked, _) = stage.edge.next_dialog("SUBSCRIBE")?;
    let expires: u32 = asked.header("Expires").parse().unwrap_or_default();
    ensure(expires >= 9_000, format!("Expires {expires} after Min-Expires 9000"))?;
    Ok("Min-Expires 60 said, 9000 obeyed".to_owned())
}

/// What each reason makes of a subscription of ours.
pub(crate) fn reasons(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    for user in ["deactivated", "timeout", "rejected", "noresource"] {
        stage.edge.user(user);
        bob.send(&format!("<presence to='{user}@contoso.example' type='subscribe'/>"))?;
        let (asked, dialog) = stage.edge.next_dialog("SUBSCRIBE")?;
        let is_from = |kind: &'static str| {
            move |it: &Element| {
                it.name == "presence"
                    && it.attribute("type") == kind
                    && it.attribute("from").starts_with(user)
            }
        };
        bob.wait("the presence", is_from(""))?;
        let state = format!("subscription-state: terminated;reason={user}");
        stage.edge.terminate(dialog, &["Event: presence", &state])?;
        let other = |it: &Message| {
            it.method == "SUBSCRIBE"
                && it.header("To").contains(user)
                && it.header("Call-ID") != asked.header("Call-ID")
        };
        match user {
            "rejected" | "noresource" => {
                bob.wait("the end", is_from("unsubscribed"))?;
                stage.edge.none(QUIET, other)?;
            }
            _ => drop(stage.edge.next(user, other)?),
        }
    }
    Ok("deactivated and timeout ask anew; rejected and noresource end it".to_owned())
}

/// What each answer to a NOTIFY makes of a subscription of theirs (RFC 6665, 4.2.2).
pub(crate) fn codes(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    approve(&mut bob, "zoe@contoso.example")?;
    let fatal = [404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604];
    let all = fatal.iter().map(|&it| (it, true)).chain([(500, false), (503, false), (400, false)]);
    for (code, ends) in all {
        stage
            .edge
            .answer_next("NOTIFY", Answer::status(code, "As You Like").with("Retry-After: 1"));
        let (call, _) = watch(stage, "bob")?;
        // The answer is on its way; a ping of the same connection is behind it.
        let refresh = stage.edge.refresh(call.dialog, 7_200)?;
        let answer = stage.edge.answer(refresh)?;
        let wanted = if ends { 481 } else { 200 };
        ensure(
            answer.status == wanted,
            format!("after {code} a refresh was answered {}", answer.status),
        )?;
        if !ends {
            let notify = stage.edge.next_in(call.dialog, "NOTIFY")?;
            active(&notify, "open")?;
        }
    }
    stage.edge.none(Duration::from_millis(50), |it| it.method == "INVITE")?;
    Ok(format!("{} codes end it, 400, 500 and 503 do not", fatal.len()))
}

/// What each answer to a refresh makes of a subscription of ours (RFC 6665, 4.1.2.2): asked anew, or left as it is.
pub(crate) fn refresh_codes(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    stage.edge.grant(60);
    let fatal = [404, 405, 408, 410, 416, 480, 481, 482, 483, 484, 485, 501, 604];
    let others = [400, 500, 503];
    let name = |code: u16| format!("u{code}");
    for code in fatal.into_iter().chain(others) {
        let user = name(code);
        stage.edge.user(&user);
        bob.send(&format!("<presence to='{user}@contoso.example' type='subscribe'/>"))?;
        let is_from = |it: &Element| {
            it.name == "presence"
                && it.attribute("type").is_empty()
                && it.attribute("from").starts_with(&user)
        };
        bob.wait("the presence", is_from)?;
        stage.edge.next(&user, |it| it.method == "SUBSCRIBE" && it.header("To").contains(&user))?;
        stage.edge.answer_next_to(&user, "SUBSCRIBE", Answer::status(code, "As You Like"));
    }
    let refreshed = |user: &str| {
        let user = format!("<sip:{user}@");
        move |it: &Message| it.method == "SUBSCRIBE" && it.header("To").contains(&user)
    };
    for code in fatal.into_iter().chain(others) {
        let user = name(code);
        let it = stage.edge.next_within(&user, Duration::from_secs(65), refreshed(&user))?;
        ensure(it.number() == 2, format!("no refresh:\n{it:?}"))?;
    }
    let mut anew = Vec::new();
    for code in fatal {
        let user = name(code);
        // 404, 405, 410, 416, 501 and 604 say that there is nothing to ask; the others lose a dialog.
        if let Ok(it) = stage.edge.next_within(&user, Duration::from_secs(3), refreshed(&user)) {
            ensure(it.number() == 1, format!("{code}: the dialog goes on"))?;
            anew.push(code);
        }
    }
    for code in [408, 480, 481] {
        ensure(
            anew.contains(&code),
            format!("after {code} nobody asks anew, only after {anew:?}"),
        )?;
    }
    for code in others {
        let user = name(code);
        // It may try again, but in the dialog, which is valid until the time last agreed.
        if let Ok(it) = stage.edge.next_within(&user, QUIET, refreshed(&user)) {
            ensure(it.number() > 2, format!("after {code} the dialog was given up"))?;
        }
    }
    Ok(format!("asked anew after {anew:?}; 400, 500 and 503 go on in the dialog"))
}

/// Nobody has refreshed it: theirs is told so, ours is offline when its time is over.
pub(crate) fn expiry(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    approve(&mut bob, "zoe@contoso.example")?;
    stage.edge.grant(60);
    bob.send("<presence to='zoe@contoso.example' type='subscribe'/>")?;
    bob.wait("the presence", presence("zoe@contoso.example", ""))?;
    stage.edge.next("the first", |it| it.method == "SUBSCRIBE")?;
    stage.edge.answer_next("SUBSCRIBE", Answer::held());
    let minute = ["Event: presence", "Accept: application/pidf+xml", "Expires: 60"];
    let call = stage.edge.begin("SUBSCRIBE", "zoe", &local("bob"), &minute, None)?;
    let answer = stage.edge.answer(call)?;
    status(&answer, 200)?;
    ensure(answer.header("Expires") == "60", "60 s were not granted")?;
    active(&stage.edge.next_in(call.dialog, "NOTIFY")?, "open")?;
    let end =
        stage.edge.next_within("the end", Duration::from_secs(70), |it| it.method == "NOTIFY")?;
    ensure(end.header("Subscription-State") == "terminated;reason=timeout", format!("{end:?}"))?;
    // Their refresh has had no answer; they are gone for good, and what was seen of them is no longer true when the time is over.
    stage.edge.deaf(true);
    bob.patience = Duration::from_secs(90);
    bob.wait("offline", presence("zoe@contoso.example", "unavailable"))?;
    Ok("terminated;reason=timeout to theirs; unavailable of ours when nobody can be reached"
        .to_owned())
}

/// A partner that was restarted and knows nothing any more.
pub(crate) fn restarted(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    bob.send("<presence to='zoe@contoso.example' type='subscribe'/>")?;
    bob.wait("the presence", presence("zoe@contoso.example", ""))?;
    let (asked, _) = stage.edge.next_dialog("SUBSCRIBE")?;
    stage.edge.forget_dialogs();
    stage.edge.deaf(true);
    stage.edge.none(Duration::from_secs(2), |_| true)?;
    stage.edge.deaf(false);
    let began = Instant::now();
    let anew =
        |it: &Message| it.method == "SUBSCRIBE" && it.header("Call-ID") != asked.header("Call-ID");
    stage.edge.next_within("a new SUBSCRIBE", Duration::from_secs(30), anew)?;
    let took = began.elapsed().as_secs_f64();
    stage.edge.publish("zoe", true, "busy")?;
    let is_busy =
        |it: &Element| presence("zoe@contoso.example", "")(it) && it.child_text("show") == "away";
    bob.wait("busy", is_busy)?;
    let all = stage.edge.count(|it| it.method == "SUBSCRIBE");
    Ok(format!("{took:.1} s after its return it is asked anew, {all} SUBSCRIBEs in all"))
}
