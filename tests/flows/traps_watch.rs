//! Traps of subscriptions: in what order, in what shape, and how they end.

use std::time::Duration;

use tandem::cli::demo::client::Trouble;
use tandem::cli::demo::edge::{Answer, Manner, Message};

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
            move |it: &tandem::cli::demo::element::Element| {
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
