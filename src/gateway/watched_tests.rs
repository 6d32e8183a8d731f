//! The notifier's machine, row by row, and its clock.

use super::*;

fn states() -> Vec<(&'static str, State)> {
    let last = Last { reason: Reason::Timeout, body: Body::Empty };
    vec![
        ("init", State::Init),
        ("unsure", State::Unsure),
        ("pending", State::Pending),
        ("active", State::Active),
        ("hidden", State::Hidden),
        ("terminated", State::Terminated(last)),
    ]
}

fn inputs() -> Vec<Input> {
    let mut inputs = Vec::new();
    inputs.extend(Standing::ALL.map(Input::Subscribe));
    inputs.extend(Standing::ALL.map(Input::End));
    inputs.extend(Standing::ALL.map(Input::Decided));
    inputs.push(Input::Changed);
    let answers = [Answer::Accepted, Answer::Over, Answer::Later(9), Answer::Other];
    inputs.extend(answers.map(Input::Answered));
    inputs.extend([Input::Expired, Input::Removed, Input::Refused, Input::GaveUp]);
    inputs
}

/// Table: `watched.table`.
#[test]
fn the_table_of_a_notifier() {
    let mut table = String::new();
    for (name, state) in states() {
        for input in inputs() {
            let step = state.handle(input);
            let reply = step.reply.map_or(String::new(), |it| format!(", reply {it:?}"));
            let tell = match step.tell {
                Tell::Nothing => String::new(),
                tell => format!(
                    ", NOTIFY {tell:?}: {} {:?}",
                    step.next.written(60).replace(";expires=60", ""),
                    step.next.body()
                ),
            };
            let next = match step.next {
                State::Terminated(_) => "terminated".to_owned(),
                next => format!("{next:?}").to_lowercase(),
            };
            let ask = if step.ask { ", the user is asked" } else { "" };
            let left = if step.left { ", the user hears of it" } else { "" };
            table += &format!("{name:<10} + {input:?} -> {next}{reply}{tell}{ask}{left}\n");
        }
    }
    let (path, checked_in) = ("src/gateway/watched.table", include_str!("watched.table"));
    crate::stdx::table::check(path, &table, checked_in);
}

#[test]
fn what_a_politely_denied_watcher_gets_is_what_one_of_an_offline_user_gets() {
    // The bytes follow from the state's text, the body and the moment; an offline user's current
    // document is the closed one.
    let shape = |step: Step| (step.reply, step.tell, step.next.written(7), step.ask);
    for (real, polite) in
        [(Standing::Allowed, Standing::Denied), (Standing::Allowed, Standing::Blocked)]
    {
        for (from_real, from_polite) in [(State::Init, State::Init), (State::Active, State::Hidden)]
        {
            for make in [Input::Subscribe, Input::End] {
                let (real, polite) =
                    (from_real.handle(make(real)), from_polite.handle(make(polite)));
                assert_eq!(shape(real), shape(polite));
                assert_ne!(polite.next.body(), Body::Current);
                assert_eq!(real.next.body() == Body::Empty, polite.next.body() == Body::Empty);
            }
        }
        for from in [State::Pending, State::Unsure] {
            let (real, polite) =
                (from.handle(Input::Decided(real)), from.handle(Input::Decided(polite)));
            assert_eq!(shape(real), shape(polite));
        }
    }
}

#[test]
fn answers_say_what_rfc_6665_section_4_2_2_reads_in_them() {
    for status in [404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604] {
        assert_eq!(Answer::of(status, Some(3)), Answer::Over, "{status}");
    }
    for status in [400, 401, 403, 407, 408, 423, 486, 488, 500, 503, 603] {
        assert_eq!(Answer::of(status, None), Answer::Other, "{status}");
    }
    assert_eq!(Answer::of(503, Some(30)), Answer::Later(30));
    assert_eq!(Answer::of(200, None), Answer::Accepted);
    assert_eq!(Answer::of(202, Some(1)), Answer::Accepted);
}

#[test]
fn a_lease_is_granted_between_its_bounds() {
    let cases = [
        (None, Lease::For(3_600)),
        (Some(0), Lease::Ends),
        (Some(1), Lease::TooBrief(60)),
        (Some(59), Lease::TooBrief(60)),
        (Some(60), Lease::For(60)),
        (Some(3_600), Lease::For(3_600)),
        (Some(29_087), Lease::For(7_200)),
        (Some(u32::MAX), Lease::For(7_200)),
    ];
    for (asked, granted) in cases {
        assert_eq!(Lease::of(asked, 3_600), granted, "{asked:?}");
    }
    assert_eq!(Lease::of(None, 7_200), Lease::For(7_200));
}

#[test]
fn documents_keep_their_distance_and_the_newest_wins() {
    let second = |n: u64| Moment(n * 1_000_000_000);
    let mut pace = Pace::default();
    assert_eq!(pace.due(), None);
    pace.want(Tell::Paced);
    assert_eq!(pace.due(), Some(Moment(0)), "the first goes at once");
    pace.sent(second(100), true);
    pace.want(Tell::Paced);
    pace.want(Tell::Paced);
    assert_eq!(pace.due(), None, "one is out");
    pace.answered(second(101), Answer::Accepted);
    assert_eq!(pace.due(), Some(second(105)));
    pace.want(Tell::Now);
    assert!(pace.is_urgent() && pace.due() == Some(Moment(0)), "the answer to a SUBSCRIBE");
    pace.sent(second(102), true);
    pace.answered(second(102), Answer::Accepted);
    assert_eq!(pace.due(), None, "it said all");
    // What has no document makes nothing wait.
    let mut pace = Pace::default();
    pace.want(Tell::Now);
    pace.sent(second(100), false);
    pace.answered(second(100), Answer::Accepted);
    pace.want(Tell::Paced);
    assert_eq!(pace.due(), Some(Moment(0)));
}

#[test]
fn what_did_not_arrive_is_told_again_with_growing_pauses() {
    let second = |n: u64| Moment(n * 1_000_000_000);
    let mut pace = Pace::default();
    pace.want(Tell::Now);
    let mut pauses = Vec::new();
    let mut now = 1_000;
    for _ in 0..7 {
        pace.sent(second(now), true);
        pace.answered(second(now), Answer::Other);
        let due = pace.due().unwrap().0 / 1_000_000_000;
        pauses.push(due - now);
        now = due;
    }
    assert_eq!(pauses, [30, 60, 120, 240, 480, 600, 600]);
    pace.sent(second(now), true);
    pace.answered(second(now), Answer::Later(77));
    assert_eq!(pace.due(), Some(second(now + 77)));
    pace.sent(second(now + 77), true);
    pace.answered(second(now + 77), Answer::Accepted);
    assert_eq!(pace.due(), None);
    pace.want(Tell::Now);
    pace.sent(second(now + 100), true);
    pace.answered(second(now + 100), Answer::Other);
    assert_eq!(pace.due(), Some(second(now + 130)), "it has begun anew");
}
