//! The rules of the four machines, row by row.

use super::{
    Action, Client, Input, InviteClient, InviteServer, LIFE, Machine, Server, Step, T1, T2, T4,
    TIMER_D,
};

use Action::{Ack, Again, End, Lost, Open, Pass, Quiet, Repeat, Send, Timeout, Trying};

fn over(actions: &'static [Action]) -> Option<Step> {
    Some(Step { next: Machine::Terminated, actions })
}

/// RFC 3261, figure 5, with RFC 6026, 8.4.
pub(super) fn invite_client(state: InviteClient, input: Input, reliable: bool) -> Option<Step> {
    use InviteClient::{Accepted, Calling, Completed, Proceeding};
    let to = |next, actions| Some(Step { next: Machine::InviteClient(next), actions });
    match (state, input) {
        (Calling, Input::Provisional) => to(Proceeding, &[Quiet, Open, Pass]),
        (Proceeding, Input::Provisional) => to(Proceeding, &[Pass]),
        (Calling | Proceeding, Input::Success) => to(Accepted, &[Quiet, End(LIFE), Pass]),
        (Calling | Proceeding, Input::Failure) if reliable => over(&[Ack, Pass]),
        (Calling | Proceeding, Input::Failure) => to(Completed, &[Quiet, End(TIMER_D), Ack, Pass]),
        (Calling, Input::Again) => to(Calling, &[Repeat]),
        (Calling, Input::End) => over(&[Timeout]),
        (Calling | Proceeding, Input::Lost) => over(&[Lost]),
        // RFC 6026, 8.4: each goes to the user, who acknowledges it.
        (Accepted, Input::Success) => to(Accepted, &[Pass]),
        (Completed, Input::Failure) => to(Completed, &[Ack]),
        (Accepted | Completed, Input::End | Input::Lost) => over(&[]),
        _ => None,
    }
}

/// RFC 3261, figure 6.
pub(super) fn client(state: Client, input: Input, reliable: bool) -> Option<Step> {
    use Client::{Completed, Proceeding, Trying};
    let to = |next, actions| Some(Step { next: Machine::Client(next), actions });
    match (state, input) {
        (Trying, Input::Provisional) if reliable => to(Proceeding, &[Pass]),
        (Trying, Input::Provisional) => to(Proceeding, &[Again(T2, T2), Pass]),
        (Proceeding, Input::Provisional) => to(Proceeding, &[Pass]),
        (Trying | Proceeding, Input::Success | Input::Failure) if reliable => over(&[Pass]),
        (Trying | Proceeding, Input::Success | Input::Failure) => {
            to(Completed, &[Quiet, End(T4), Pass])
        }
        (Trying | Proceeding, Input::Again) => to(state, &[Repeat]),
        (Trying | Proceeding, Input::End) => over(&[Timeout]),
        (Trying | Proceeding, Input::Lost) => over(&[Lost]),
        (Completed, Input::End | Input::Lost) => over(&[]),
        _ => None,
    }
}

/// RFC 3261, figure 7, with RFC 6026, 8.2. The connection's loss is no reason to stop: a response
/// finds another way (18.2.2).
pub(super) fn invite_server(state: InviteServer, input: Input, reliable: bool) -> Option<Step> {
    use InviteServer::{Accepted, Completed, Confirmed, Proceeding, Trying as Waiting};
    let to = |next, actions| Some(Step { next: Machine::InviteServer(next), actions });
    match (state, input) {
        (Waiting, Input::Again) => to(Proceeding, &[Quiet, Trying]),
        (Waiting, Input::Request) => to(Proceeding, &[Quiet, Trying]),
        (Waiting | Proceeding, Input::Provisional) => to(Proceeding, &[Quiet, Send]),
        (Proceeding, Input::Request) => to(Proceeding, &[Repeat]),
        (Waiting | Proceeding, Input::Success) => to(Accepted, &[Quiet, End(LIFE), Send]),
        (Waiting | Proceeding, Input::Failure) if reliable => {
            to(Completed, &[Quiet, End(LIFE), Send])
        }
        (Waiting | Proceeding, Input::Failure) => to(Completed, &[Again(T1, T2), End(LIFE), Send]),
        // The user repeats its own 2xx; a request that comes again is absorbed.
        (Accepted, Input::Success) => to(Accepted, &[Send]),
        (Accepted, Input::Ack) => to(Accepted, &[Pass]),
        (Completed, Input::Request | Input::Again) => to(Completed, &[Repeat]),
        (Completed, Input::Ack) if reliable => over(&[]),
        (Completed, Input::Ack) => to(Confirmed, &[Quiet, End(T4)]),
        (Accepted | Completed | Confirmed, Input::End) => over(&[]),
        _ => None,
    }
}

/// RFC 3261, figure 8, with RFC 4320: of the 1xx a 100 alone, nothing after timer F.
pub(super) fn server(state: Server, input: Input, reliable: bool) -> Option<Step> {
    use Server::{Completed, Proceeding, Trying as Waiting};
    let to = |next, actions| Some(Step { next: Machine::Server(next), actions });
    match (state, input) {
        (Waiting, Input::Again) => to(Proceeding, &[Quiet, Trying]),
        (Waiting | Proceeding, Input::Provisional) => to(Proceeding, &[Quiet, Send]),
        (Proceeding, Input::Request) => to(Proceeding, &[Repeat]),
        (Waiting | Proceeding, Input::Success | Input::Failure) if reliable => over(&[Send]),
        (Waiting | Proceeding, Input::Success | Input::Failure) => {
            to(Completed, &[Quiet, End(LIFE), Send])
        }
        (Waiting | Proceeding, Input::End) => over(&[Timeout]),
        (Completed, Input::Request) => to(Completed, &[Repeat]),
        (Completed, Input::End) => over(&[]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn all() -> Vec<Machine> {
        use InviteClient as A;
        use InviteServer as B;
        [A::Calling, A::Proceeding, A::Completed, A::Accepted]
            .map(Machine::InviteClient)
            .into_iter()
            .chain([Client::Trying, Client::Proceeding, Client::Completed].map(Machine::Client))
            .chain(
                [B::Trying, B::Proceeding, B::Completed, B::Confirmed, B::Accepted]
                    .map(Machine::InviteServer),
            )
            .chain([Server::Trying, Server::Proceeding, Server::Completed].map(Machine::Server))
            .chain([Machine::Terminated])
            .collect()
    }

    #[test]
    fn the_table_is_as_checked_in() {
        let mut table = String::new();
        for machine in all() {
            for input in Input::ALL {
                for (reliable, name) in [(true, "stream  "), (false, "datagram")] {
                    let step = machine.handle(input, reliable).map_or_else(
                        || "-".to_owned(),
                        |it| format!("{:?} {:?}", it.next, it.actions),
                    );
                    let machine = format!("{machine:?}");
                    let input = format!("{input:?}");
                    writeln!(table, "{machine:<26} {input:<11} {name} -> {step}").unwrap();
                }
            }
        }
        crate::stdx::table::check(
            "src/sip/transaction/transaction.table",
            &table,
            include_str!("transaction.table"),
        );
    }

    #[test]
    fn nothing_is_repeated_on_a_stream() {
        for machine in all() {
            for input in Input::ALL {
                let Some(step) = machine.handle(input, true) else { continue };
                let again = step.actions.iter().any(|it| matches!(it, Again(..)));
                assert!(!again, "{machine:?} {input:?}");
            }
        }
        for is_invite in [true, false] {
            let step = Machine::client(is_invite, true);
            assert!(step.actions.iter().all(|it| !matches!(it, Again(..))));
        }
    }

    #[test]
    fn the_user_hears_exactly_one_end_of_a_request() {
        // Whatever comes, in any order: one Pass of a final answer, one Timeout or one Lost (the
        // further 2xx of RFC 6026 apart).
        let inputs = [Input::Provisional, Input::Success, Input::Failure, Input::End, Input::Lost];
        for is_invite in [true, false] {
            for reliable in [true, false] {
                for path in 0..5_usize.pow(5) {
                    let mut machine = Machine::client(is_invite, reliable).next;
                    let (mut ends, mut code) = (0, path);
                    for _ in 0..5 {
                        let input = inputs[code % 5];
                        code /= 5;
                        let was_open = machine.is_open();
                        let Some(step) = machine.handle(input, reliable) else { continue };
                        let ended = step.actions.iter().any(|it| match it {
                            Pass => input != Input::Provisional,
                            Timeout | Lost => true,
                            _ => false,
                        });
                        ends += u32::from(ended && was_open);
                        assert_eq!(was_open && !step.next.is_open(), ended && was_open);
                        machine = step.next;
                    }
                    assert_eq!(ends, u32::from(!machine.is_open()));
                }
            }
        }
    }
}
