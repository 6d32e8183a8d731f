//! The table, and the times.

use std::fmt::Write as _;

use super::*;

/// Table: `watch.table`.
#[test]
fn the_table_of_a_subscription() {
    use Level::{Active, Pending};
    let states = [
        State::Idle,
        State::Subscribing,
        State::Accepted,
        State::Standing(Pending),
        State::Standing(Active),
        State::Refreshing(Pending),
        State::Refreshing(Active),
        State::BackingOff,
        State::Held,
        State::Kept,
        State::Leaving,
        State::Ending,
        State::Parting,
        State::Fetching,
        State::Ended,
    ];
    let inputs = [
        Input::Wanted,
        Input::Unwanted,
        Input::Probe,
        Input::Accepted,
        Input::TooBrief,
        Input::Refused,
        Input::NoUser,
        Input::Unlisted,
        Input::Unfit,
        Input::Gone,
        Input::Trouble,
        Input::Lost,
        Input::Notified(Pending),
        Input::Notified(Active),
        Input::Terminated(Reason::Deactivated),
        Input::Terminated(Reason::Probation),
        Input::Terminated(Reason::Rejected),
        Input::Terminated(Reason::Timeout),
        Input::Terminated(Reason::GiveUp),
        Input::Terminated(Reason::NoResource),
        Input::Terminated(Reason::Invariant),
        Input::Silent,
        Input::Due,
        Input::Expired,
        Input::PeerBack,
    ];
    let mut table = String::new();
    for state in states {
        for input in inputs {
            let step = state.handle(input);
            let (state, input) = (format!("{state:?}"), format!("{input:?}"));
            write!(table, "{state:<19} {input:<23} -> {:?}", step.next).unwrap();
            if step.drop {
                table += ", drop";
            }
            if let Some(send) = step.send {
                write!(table, ", send {send:?}").unwrap();
            }
            if let Some(tell) = step.tell {
                write!(table, ", tell {tell:?}").unwrap();
            }
            if step.wait != Wait::Unchanged {
                write!(table, ", wait {:?}", step.wait).unwrap();
            }
            table += if step.alarm { ", alarm\n" } else { "\n" };
        }
    }
    crate::stdx::table::check("src/gateway/watch.table", &table, include_str!("watch.table"));
}

#[test]
fn each_answer_has_its_class() {
    for (status, first, refresh) in [
        (200, Input::Accepted, Input::Accepted),
        (202, Input::Accepted, Input::Accepted),
        (302, Input::Unfit, Input::Unfit),
        (400, Input::Unfit, Input::Unfit),
        (401, Input::Unfit, Input::Unfit),
        (403, Input::Refused, Input::Refused),
        (404, Input::NoUser, Input::Gone),
        (405, Input::Unfit, Input::Gone),
        (406, Input::Refused, Input::Refused),
        (407, Input::Unfit, Input::Unfit),
        (408, Input::Trouble, Input::Gone),
        (410, Input::NoUser, Input::Gone),
        (416, Input::Unfit, Input::Gone),
        (420, Input::Unfit, Input::Unfit),
        (423, Input::TooBrief, Input::TooBrief),
        (480, Input::Trouble, Input::Gone),
        (481, Input::Trouble, Input::Gone),
        (482, Input::Unfit, Input::Gone),
        (483, Input::Unfit, Input::Gone),
        (484, Input::Unfit, Input::Gone),
        (485, Input::Unfit, Input::Gone),
        (486, Input::Trouble, Input::Trouble),
        (489, Input::Refused, Input::Refused),
        (500, Input::Trouble, Input::Trouble),
        (501, Input::Unfit, Input::Gone),
        (503, Input::Trouble, Input::Trouble),
        (504, Input::Trouble, Input::Trouble),
        (603, Input::Refused, Input::Refused),
        (604, Input::NoUser, Input::Gone),
        (606, Input::Unfit, Input::Unfit),
    ] {
        assert_eq!((answer(status, false, false), answer(status, true, false)), (first, refresh));
    }
    assert_eq!(answer(403, false, true), Input::Unlisted);
    assert_eq!(answer(403, true, true), Input::Unlisted);
    assert_eq!(answer(603, false, true), Input::Refused);
}

#[test]
fn times_are_spread_within_their_bounds() {
    for dice in (0..10_000).chain([u64::MAX]) {
        assert_eq!(expires(false, dice), 3_600);
        assert!((7_200..=7_800).contains(&expires(true, dice)));
        let hour = Duration::from_secs(3_600);
        let refresh = refresh_after(hour, dice);
        assert!(refresh >= hour * 85 / 100 && refresh <= hour * 90 / 100, "{refresh:?}");
        assert!(soon(dice) <= Duration::from_secs(5));
        assert!((750..=1_000).contains(&backoff(1, dice).as_millis()));
        assert!((3_000..=4_000).contains(&backoff(3, dice).as_millis()));
        for failures in [11, 32, 33, u32::MAX] {
            assert!((450..=600).contains(&backoff(failures, dice).as_secs()));
            assert!((18 * 3_600..=24 * 3_600).contains(&hold(failures, dice).as_secs()));
        }
        assert!((2_700..=3_600).contains(&hold(1, dice).as_secs()));
    }
    assert_ne!(expires(true, 1), expires(true, 2));
}

#[test]
fn reasons_are_read_in_any_case() {
    assert_eq!(Reason::read(Some(b"NoResource")), Reason::NoResource);
    assert_eq!(Reason::read(Some(b"rejected")), Reason::Rejected);
    assert_eq!(Reason::read(Some(b"whim")), Reason::Timeout);
    assert_eq!(Reason::read(None), Reason::Timeout);
}
