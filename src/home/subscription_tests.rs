//! The tables of subscriptions: all of ours, and the RFC's own beside it.

use super::*;

fn line(who: &str, relation: Relation, input: &str, step: Step) -> String {
    let mut line = format!(
        "{who:<8} {:<8} {:<8} {:<6} {input:<13} -> {:<8}",
        format!("{:?}", relation.state),
        if relation.approved { "approved" } else { "" },
        if relation.denied { "denied" } else { "" },
        format!("{:?}", step.next),
    );
    let from_user = who != "contact";
    if step.passed {
        line += if from_user { " routed" } else { " delivered" };
    }
    if step.push {
        line += " push";
    }
    for notice in step.to_contact(from_user).filter(|it| *it != Notice::Original) {
        line += &match notice {
            Notice::Reply(act) => format!(" reply:{}", act.name()),
            other => format!(" {other:?}").to_lowercase(),
        };
    }
    if step.approval != Approval::Kept {
        line += &format!(" approval:{:?}", step.approval).to_lowercase();
    }
    if step.denied != Denied::Kept {
        line += &format!(" denied:{:?}", step.denied).to_lowercase();
    }
    if step.keeps_request(relation.state) {
        line += " request:kept";
    }
    if step.drops_request(relation.state) {
        line += " request:dropped";
    }
    line.trim_end().to_owned() + "\n"
}

/// Table: `subscription.table`.
#[test]
fn the_table_of_rfc_6121_appendix_a() {
    let mut table = String::new();
    for (denied, approved) in [(false, false), (false, true), (true, false), (true, true)] {
        for state in State::ALL {
            let relation = Relation { state, approved, denied };
            for act in Act::ALL {
                let explicit = relation.user_sends(act, Denial::Explicit);
                table += &line("user", relation, act.name(), explicit);
                let polite = relation.user_sends(act, Denial::Polite);
                if polite != explicit {
                    table += &line("polite", relation, act.name(), polite);
                }
            }
            for act in Act::ALL {
                table += &line("contact", relation, act.name(), relation.contact_sends(act));
            }
            table += &line("contact", relation, "probe", relation.contact_probes());
            for (who, style) in [("user", Denial::Explicit), ("polite", Denial::Polite)] {
                let Removal { unsubscribe, step } = relation.user_removes(style);
                let input = if unsubscribe { "remove+unsub" } else { "remove" };
                table += &line(who, relation, input, step);
            }
        }
    }
    crate::stdx::table::check(
        "src/home/subscription.table",
        &table,
        include_str!("subscription.table"),
    );
}

/// The tables A.2.1 to A.3.4 as the RFC prints them, by themselves: routed or delivered (`R`),
/// and the next state.
#[test]
fn the_rfc_without_pre_approval_and_politeness() {
    const N: &str = "N";
    let name = |it: State| ["N", "NO", "NI", "NOI", "T", "TI", "F", "FO", "B"][it as usize];
    let user = [
        ["R NO", "R N", "- N", "- N"],
        ["R NO", "R N", "- NO", "- NO"],
        ["R NOI", "R NI", "R F", "R N"],
        ["R NOI", "R NI", "R FO", "R NO"],
        ["R T", "R N", "- T", "- T"],
        ["R TI", "R NI", "R B", "R T"],
        ["R FO", "R F", "- F", "R N"],
        ["R FO", "R F", "- FO", "R NO"],
        ["R B", "R F", "- B", "R T"],
    ];
    let contact = [
        ["R NI", "- N", "- N", "- N"],
        ["R NOI", "- NO", "R T", "R N"],
        ["- NI", "R N", "- NI", "- NI"],
        ["- NOI", "R NO", "R TI", "R NI"],
        ["R TI", "- T", "- T", "R N"],
        ["- TI", "R T", "- TI", "R NI"],
        ["- F", "R N", "- F", "- F"],
        ["- FO", "R NO", "R B", "R F"],
        ["- B", "R T", "- B", "R F"],
    ];
    assert_eq!(name(State::None), N);
    for (i, state) in State::ALL.into_iter().enumerate() {
        let relation = Relation { state, ..Relation::default() };
        for (k, act) in Act::ALL.into_iter().enumerate() {
            let said =
                |it: Step| format!("{} {}", if it.passed { "R" } else { "-" }, name(it.next));
            let out = relation.user_sends(act, Denial::Explicit);
            assert_eq!(said(out), user[i][k], "user, {state:?}, {act:?}");
            let inward = relation.contact_sends(act);
            assert_eq!(said(inward), contact[i][k], "contact, {state:?}, {act:?}");
        }
    }
}

#[test]
fn states_have_two_halves_and_a_number() {
    for (i, state) in State::ALL.into_iter().enumerate() {
        assert_eq!(usize::from(state.index()), i);
        assert_eq!(State::from_index(state.index()), Some(state));
        assert_eq!(State::of(state.to(), state.from()), state);
    }
    assert_eq!(State::from_index(9), None);
}

/// Whoever was denied politely has seen what an approved contact of an offline user sees.
#[test]
fn a_polite_denial_looks_like_an_offline_user() {
    let asked = Relation { state: State::NoneIn, ..Relation::default() };
    let denied = asked.user_sends(Act::Unsubscribed, Denial::Polite);
    let wanted = [Notice::Reply(Act::Subscribed), Notice::Offline];
    assert!(denied.to_contact(true).eq(wanted));
    let later = Relation { state: denied.next, approved: false, denied: true };
    assert!(later.contact_sends(Act::Subscribe).to_contact(false).eq(wanted));
    assert!(later.contact_probes().to_contact(false).eq([Notice::Offline]));
    assert_eq!(denied.denied, Denied::Entered);
    // The user thinks better of it; the contact, which waits for nothing, sees at once.
    let approved = later.user_sends(Act::Subscribed, Denial::Polite);
    assert_eq!((approved.next, approved.denied), (State::From, Denied::Left));
    assert!(approved.to_contact(true).eq([Notice::Original, Notice::Current]));
}
