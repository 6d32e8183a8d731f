//! The node is gone and comes back: with its dialogs, and without.

use std::time::{Duration, Instant};

use tandem::cli::demo::client::Trouble;

use crate::presence::{active, approve, watch};
use crate::sessions;
use crate::stage::{Seen, Stage, ensure, local, presence, status, text};

/// No blind watcher: what was stored goes on.
pub(crate) fn kept(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    approve(&mut bob, "zoe@contoso.example")?;
    let (watched, first) = watch(stage, "bob")?;
    active(&first, "open")?;
    bob.send("<presence to='zoe@contoso.example' type='subscribe'/>")?;
    let (asked, _) = stage.edge.next_dialog("SUBSCRIBE")?;
    bob.wait("the presence", presence("zoe@contoso.example", ""))?;
    let session = sessions::open(stage, &mut bob)?;
    sessions::writes(stage, session, &mut bob, "before")?;
    stage.kill()?;
    stage.edge.forget();
    let began = Instant::now();
    stage.start()?;
    // Nothing comes by itself: the user is unknown until a client is back, and nobody flaps through offline.
    let mut bob = stage.login("bob")?;
    let told = stage.edge.next_in(watched.dialog, "NOTIFY")?;
    let took = began.elapsed();
    let truth =
        if told.body.is_empty() { stage.edge.next_in(watched.dialog, "NOTIFY")? } else { told };
    active(&truth, "open")?;
    ensure(truth.number() > first.number(), "CSeq did not grow over the restart")?;
    let after = stage.edge.message(session.dialog, "after")?;
    bob.wait("a text in the old window", text("after"))?;
    status(&stage.edge.answer(after)?, 200)?;
    let again = stage
        .edge
        .next_within("the refresh", Duration::from_secs(20), |it| it.method == "SUBSCRIBE")?;
    ensure(again.header("Call-ID") == asked.header("Call-ID"), "not in its dialog")?;
    bob.wait("the presence", presence("zoe@contoso.example", ""))?;
    Ok(format!(
        "NOTIFY in its dialog after {:.1} s, MESSAGE in the old window, refresh in the dialog",
        took.as_secs_f64()
    ))
}

/// All that was stored of dialogs is lost: 481 makes them ask anew, and ours come from the contact lists.
pub(crate) fn lost(stage: &Stage) -> Seen {
    let mut bob = stage.login("bob")?;
    approve(&mut bob, "zoe@contoso.example")?;
    let (watched, _) = watch(stage, "bob")?;
    bob.send("<presence to='zoe@contoso.example' type='subscribe'/>")?;
    let (asked, _) = stage.edge.next_dialog("SUBSCRIBE")?;
    bob.wait("the presence", presence("zoe@contoso.example", ""))?;
    stage.kill()?;
    forget_dialogs(stage)?;
    stage.edge.forget();
    stage.start()?;
    let refresh = stage.edge.refresh(watched.dialog, 7_200)?;
    status(&stage.edge.answer(refresh)?, 481)?;
    let mut bob = stage.login("bob")?;
    let (anew, notify) = watch(stage, "bob")?;
    active(&notify, "open")?;
    ensure(anew.dialog != watched.dialog, "the same dialog")?;
    let (again, _) = stage.edge.next_dialog("SUBSCRIBE")?;
    ensure(again.header("Call-ID") != asked.header("Call-ID"), "an old Call-ID")?;
    ensure(again.header("To").contains("zoe@"), "somebody else")?;
    bob.wait("the presence", presence("zoe@contoso.example", ""))?;
    ensure(again.header("From").contains(&local("bob")), "not for bob")?;
    Ok("481 to their refresh; theirs asked anew, ours made anew at login".to_owned())
}

fn forget_dialogs(stage: &Stage) -> Result<(), Trouble> {
    let words = |it: rusqlite::Error| Trouble(it.to_string());
    let store = rusqlite::Connection::open(stage.store()).map_err(words)?;
    let gone = store.execute("DELETE FROM dialogs", []).map_err(words)?;
    ensure(gone >= 2, format!("only {gone} dialogs were stored"))
}
