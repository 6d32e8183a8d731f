//! Sessions: the table of one dialog, and the conversations of several.

use super::*;

/// Table: `leg.table`.
#[test]
fn the_table_of_states_and_inputs() {
    use Input as I;
    use State as S;
    let mut table = String::new();
    for state in [
        S::Inviting,
        S::Progressing,
        S::Cancelling,
        S::Offered,
        S::Accepting,
        S::Established,
        S::Ending,
        S::Gone,
    ] {
        for input in [
            I::Progress,
            I::Accepted,
            I::Refused,
            I::Limit,
            I::Kept,
            I::NotKept,
            I::Withdrawn,
            I::Acked,
            I::NoAck,
            I::Bye,
            I::Ended,
            I::Lost,
            I::Close,
        ] {
            let (next, act) = state.handle(input);
            let (state, input) = (format!("{state:?}"), format!("{input:?}"));
            let next = match act {
                Act::Nothing if format!("{next:?}") == state => "-".to_owned(),
                Act::Nothing => format!("{next:?}"),
                act => format!("{next:?}, {act:?}"),
            };
            table += &format!("{state:<12} {input:<10} -> {next}\n");
        }
    }
    crate::stdx::table::check("src/gateway/session/leg.table", &table, include_str!("leg.table"));
}

/// A session, its clock and what it wants.
struct World {
    session: Session,
    now: Moment,
    out: Vec<Effect>,
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl World {
    fn new() -> Self {
        Self { session: Session::default(), now: Moment(1), out: Vec::new() }
    }

    fn say(&mut self, number: u32) {
        let deadline = self.now + IM_ANSWER_TIME_MAX;
        self.session.say(number, deadline, self.now, &mut self.out).unwrap();
    }

    fn input(&mut self, id: u32, input: Input) {
        self.session.input(LegId(id), input, self.now, &mut self.out);
    }

    fn answered(&mut self, id: u32, number: u32, status: u16) {
        let outcome = if status < 300 { Ok(()) } else { Err((Why::Status(status), None)) };
        self.session.answered(LegId(id), number, outcome, self.now, &mut self.out);
    }

    fn invited(&mut self) -> u32 {
        let id = self.session.invited(self.now, &mut self.out).unwrap();
        self.session.input(id, Input::Kept, self.now, &mut self.out);
        id.0
    }

    /// Lets time pass, in the steps that the session asks for.
    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while self.session.due() <= end {
            self.now = self.now.max(self.session.due());
            self.session.fire(self.now, &mut self.out);
        }
        self.now = end;
    }

    /// What it wants, in short.
    fn wants(&mut self) -> String {
        let words = std::mem::take(&mut self.out).into_iter().map(|effect| match effect {
            Effect::Send(id, number, _) => format!("send {}:{number}", id.0),
            Effect::Delivered(number) => format!("delivered {number}"),
            Effect::Bounced(number, why) => format!("bounced {number} {why:?}"),
            Effect::Invite(id) => format!("invite {}", id.0),
            Effect::Cancel(id) => format!("cancel {}", id.0),
            Effect::Ack(id) => format!("ack {}", id.0),
            Effect::Answer(id) => format!("answer {}", id.0),
            Effect::Refuse(id) => format!("refuse {}", id.0),
            Effect::Bye(id) => format!("bye {}", id.0),
            Effect::Over(id) => format!("over {}", id.0),
            Effect::Type(id, typing) => format!("type {}:{typing:?}", id.0),
            Effect::Tell(state) => format!("tell {state:?}"),
        });
        words.collect::<Vec<_>>().join(", ")
    }
}

/// RFC 7573, 5; one MESSAGE is out at a time.
#[test]
fn texts_wait_for_the_dialog_and_go_in_their_order() {
    let mut world = World::new();
    world.say(1);
    world.say(2);
    assert_eq!(world.wants(), "invite 0");
    world.input(0, Input::Progress);
    world.input(0, Input::Progress);
    assert_eq!(world.wants(), "");
    world.input(0, Input::Accepted);
    assert_eq!(world.wants(), "ack 0, send 0:1");
    world.say(3);
    world.input(0, Input::Accepted);
    assert_eq!(world.wants(), "ack 0", "the 2xx once more");
    world.answered(0, 1, 200);
    assert_eq!(world.wants(), "delivered 1, send 0:2");
    world.answered(0, 2, 415);
    assert_eq!(world.wants(), "bounced 2 Status(415), send 0:3");
    world.answered(0, 3, 202);
    assert_eq!(world.wants(), "delivered 3");
    world.say(4);
    assert_eq!(world.wants(), "send 0:4", "the dialog is used again");
}

#[test]
fn a_refused_invitation_returns_all_that_waits() {
    let mut world = World::new();
    world.say(1);
    world.say(2);
    world.wants();
    world.session.refused(LegId(0), Why::Status(486), world.now, &mut world.out);
    assert_eq!(world.wants(), "bounced 1 Status(486), bounced 2 Status(486), over 0");
    assert!(world.session.is_over());
    world.say(3);
    assert_eq!(world.wants(), "invite 1", "the next begins anew");
}

#[test]
fn nobody_answers_an_invitation() {
    let mut world = World::new();
    world.say(1);
    world.input(0, Input::Progress);
    world.advance(seconds(12));
    assert_eq!(world.wants(), "invite 0", "12 s are not too long");
    world.say(2);
    world.advance(seconds(25));
    assert_eq!(world.wants(), "");
    world.advance(seconds(2));
    assert_eq!(world.wants(), "bounced 1 Timeout, bounced 2 Timeout, cancel 0");
    world.input(0, Input::Accepted);
    assert_eq!(world.wants(), "ack 0, bye 0", "its answer crossed the CANCEL");
    world.input(0, Input::Ended);
    assert_eq!(world.wants(), "over 0");
    assert!(world.session.is_over());
}

/// The dialog is gone: one new one, and the text once more; twice is enough.
#[test]
fn a_lost_dialog_costs_one_more_try() {
    for status in [481, 408, 480] {
        let mut world = World::new();
        world.say(1);
        world.input(0, Input::Accepted);
        world.say(2);
        world.wants();
        world.answered(0, 1, status);
        assert_eq!(world.wants(), "over 0, invite 1");
        world.input(1, Input::Accepted);
        assert_eq!(world.wants(), "ack 1, send 1:1", "before those that came later");
        world.answered(1, 1, status);
        assert_eq!(world.wants(), format!("bounced 1 Status({status}), over 1, invite 2"));
        world.input(2, Input::Accepted);
        assert_eq!(world.wants(), "ack 2, send 2:2");
    }
}

#[test]
fn all_tries_share_the_time_of_the_text() {
    let mut world = World::new();
    world.say(1);
    world.input(0, Input::Accepted);
    world.advance(seconds(32));
    world.wants();
    let lost = Err((Why::Timeout, None));
    world.session.answered(LegId(0), 1, lost, world.now, &mut world.out);
    assert_eq!(world.wants(), "over 0, invite 1");
    world.advance(seconds(7));
    assert_eq!(world.wants(), "bounced 1 Timeout, cancel 1");
    // An answer that never comes.
    let mut world = World::new();
    world.say(1);
    world.input(0, Input::Accepted);
    world.wants();
    world.advance(IM_ANSWER_TIME_MAX + IM_OVERDUE_TIME);
    assert_eq!(world.wants(), "bounced 1 Timeout, over 0");
}

#[test]
fn a_busy_server_is_given_its_time() {
    let mut world = World::new();
    world.say(1);
    world.input(0, Input::Accepted);
    world.say(2);
    world.wants();
    let later = |after| Err((Why::Status(503), Some(seconds(after))));
    world.session.answered(LegId(0), 1, later(10), world.now, &mut world.out);
    world.advance(seconds(9));
    assert_eq!(world.wants(), "");
    world.advance(seconds(2));
    assert_eq!(world.wants(), "send 0:1");
    world.session.answered(LegId(0), 1, later(60), world.now, &mut world.out);
    assert_eq!(world.wants(), "bounced 1 Status(503), send 0:2");
    // RFC 3261, 21.5.4: without Retry-After it is a 500.
    world.answered(0, 2, 503);
    assert_eq!(world.wants(), "bounced 2 Status(503)");
}

/// RFC 3261, 13.3.1.4.
#[test]
fn our_answer_is_repeated_until_the_ack() {
    let mut world = World::new();
    let id = world.invited();
    assert_eq!(world.wants(), "answer 0");
    world.advance(seconds(8));
    assert_eq!(world.wants(), "answer 0, answer 0, answer 0, answer 0", "0.5, 1.5, 3.5, 7.5");
    world.say(1);
    assert_eq!(world.wants(), "", "it waits for the ACK");
    world.input(id, Input::Acked);
    assert_eq!(world.wants(), "send 0:1");
    // None in 32 s.
    let mut world = World::new();
    let id = world.invited();
    world.advance(seconds(33));
    assert!(world.wants().ends_with("answer 0, bye 0"));
    world.input(id, Input::Ended);
    assert_eq!(world.wants(), "over 0");
}

#[test]
fn an_invitation_that_is_taken_back_or_can_not_be_stored() {
    for (input, wants) in [(Input::Withdrawn, "over 0"), (Input::NotKept, "refuse 0, over 0")] {
        let mut world = World::new();
        let id = world.session.invited(world.now, &mut world.out).unwrap();
        world.input(id.0, input);
        assert_eq!(world.wants(), wants);
        assert!(world.session.is_over());
    }
}

/// Both invite at once: both stay, the first that is established carries, the other ends idle.
#[test]
fn glare() {
    let mut world = World::new();
    world.say(1);
    let theirs = world.invited();
    assert_eq!(world.wants(), "invite 0, answer 1");
    world.input(theirs, Input::Acked);
    assert_eq!(world.wants(), "send 1:1");
    world.input(0, Input::Accepted);
    assert_eq!(world.wants(), "ack 0");
    world.answered(1, 1, 200);
    world.say(2);
    assert_eq!(world.wants(), "delivered 1, send 1:2");
    world.answered(1, 2, 200);
    world.advance(seconds(600));
    assert!(world.session.hears(LegId(1), world.now, &mut world.out));
    world.wants();
    world.advance(seconds(301));
    assert_eq!(world.wants(), "bye 0");
    world.input(0, Input::Ended);
    assert_eq!(world.wants(), "over 0");
    // Ours is refused, theirs is not there yet: the text waits for it.
    let mut world = World::new();
    world.say(1);
    let theirs = world.invited();
    world.wants();
    world.session.refused(LegId(0), Why::Status(480), world.now, &mut world.out);
    assert_eq!(world.wants(), "over 0");
    world.input(theirs, Input::Acked);
    assert_eq!(world.wants(), "send 1:1");
}

/// A window of theirs that was opened anew is where they look.
#[test]
fn a_new_invitation_carries_from_then_on() {
    let mut world = World::new();
    world.say(1);
    world.input(0, Input::Accepted);
    world.answered(0, 1, 200);
    let theirs = world.invited();
    world.input(theirs, Input::Acked);
    world.wants();
    world.say(2);
    assert_eq!(world.wants(), "send 1:2");
    world.answered(1, 2, 200);
    assert!(world.session.hears(LegId(0), world.now, &mut world.out));
    world.say(3);
    assert_eq!(world.wants(), "delivered 2, send 0:3", "where they speak");
}

#[test]
fn a_bye_that_crosses_a_text() {
    let mut world = World::new();
    world.say(1);
    world.input(0, Input::Accepted);
    world.wants();
    world.input(0, Input::Bye);
    assert_eq!(world.wants(), "over 0, tell Gone");
    world.answered(0, 1, 481);
    assert_eq!(world.wants(), "invite 1");
    world.input(1, Input::Accepted);
    assert_eq!(world.wants(), "ack 1, send 1:1");
    // Ours, and theirs at the same time.
    world.answered(1, 1, 200);
    world.advance(IM_IDLE_TIME_MAX);
    assert_eq!(world.wants(), "delivered 1, bye 1");
    assert!(!world.session.hears(LegId(1), world.now, &mut world.out), "a text that crosses it");
    world.input(1, Input::Bye);
    assert_eq!(world.wants(), "over 1");
    world.input(1, Input::Ended);
    assert!(world.session.is_over() && world.wants().is_empty());
}

/// XEP-0085, 5.3 and 5.5; RFC 7573, 6.1.
#[test]
fn typing() {
    let mut world = World::new();
    let typed = |world: &mut World, typing| {
        world.session.typed(Toward::Typing(typing), world.now, &mut world.out);
    };
    typed(&mut world, Typing::Active);
    assert_eq!(world.wants(), "", "there is no dialog yet");
    world.say(1);
    typed(&mut world, Typing::Active);
    world.input(0, Input::Accepted);
    world.answered(0, 1, 200);
    world.wants();
    typed(&mut world, Typing::Idle);
    assert_eq!(world.wants(), "");
    typed(&mut world, Typing::Active);
    typed(&mut world, Typing::Active);
    assert_eq!(world.wants(), "type 0:Active");
    typed(&mut world, Typing::Idle);
    assert_eq!(world.wants(), "type 0:Idle");
    typed(&mut world, Typing::Active);
    world.say(2);
    world.answered(0, 2, 200);
    typed(&mut world, Typing::Idle);
    assert_eq!(world.wants(), "type 0:Active, send 0:2, delivered 2", "the text ended it");
    // Theirs.
    let lasts = seconds(30);
    world.session.types(Typing::Active, lasts, world.now, &mut world.out);
    world.session.types(Typing::Active, lasts, world.now, &mut world.out);
    assert_eq!(world.wants(), "tell Composing");
    world.advance(seconds(31));
    assert_eq!(world.wants(), "tell Paused");
    world.session.types(Typing::Active, lasts, world.now, &mut world.out);
    world.session.spoke();
    world.advance(seconds(31));
    assert_eq!(world.wants(), "tell Composing");
    world.session.types(Typing::Active, lasts, world.now, &mut world.out);
    world.session.types(Typing::Idle, lasts, world.now, &mut world.out);
    assert_eq!(world.wants(), "tell Composing, tell Active");
    // Into a dead dialog: nothing is sent again.
    world.session.typing_answered(LegId(0), Why::Status(481), world.now, &mut world.out);
    assert_eq!(world.wants(), "over 0");
    assert!(world.session.is_over());
}

/// XEP-0085, 5.7: the session ends, once all texts have gone.
#[test]
fn a_user_who_leaves() {
    let mut world = World::new();
    world.say(1);
    world.session.typed(Toward::End, world.now, &mut world.out);
    world.input(0, Input::Accepted);
    assert_eq!(world.wants(), "invite 0, ack 0, send 0:1");
    world.answered(0, 1, 200);
    assert_eq!(world.wants(), "delivered 1, bye 0");
}

#[test]
fn an_end_for_good() {
    let mut world = World::new();
    world.say(1);
    world.input(0, Input::Accepted);
    world.say(2);
    world.wants();
    world.session.close(Why::Stopping, world.now, &mut world.out);
    assert_eq!(world.wants(), "bounced 1 Stopping, bounced 2 Stopping, bye 0");
    world.answered(0, 1, 200);
    assert_eq!(world.wants(), "");
}

#[test]
fn too_much_is_refused() {
    let mut world = World::new();
    for number in 0..u32::try_from(IM_TEXTS_WAITING_MAX).unwrap() {
        world.say(number);
    }
    let deadline = world.now + seconds(1);
    assert_eq!(world.session.say(99, deadline, world.now, &mut world.out), Err(Full));
    let mut world = World::new();
    for _ in 0..IM_LEGS_MAX {
        let id = world.invited();
        world.input(id, Input::Acked);
    }
    world.wants();
    assert_eq!(world.session.invited(world.now, &mut world.out), None);
    assert_eq!(world.wants(), "bye 0", "there is room for the next");
}

/// Whatever comes in whatever order: each text has one outcome, and the clock always moves.
#[test]
fn each_text_has_one_outcome() {
    for seed in 0..2_000_u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut world = World::new();
        let mut outcomes = std::collections::BTreeMap::new();
        let mut sent = Vec::new();
        let mut texts = 0;
        for _ in 0..60 {
            let leg = LegId(u32::try_from(random(4)).unwrap());
            match random(12) {
                0 | 1 => {
                    world.say(texts);
                    texts += 1;
                }
                2 => drop(world.session.invited(world.now, &mut world.out)),
                3 => world.session.refused(leg, Why::Status(486), world.now, &mut world.out),
                4 | 5 => {
                    if let Some((leg, number)) = sent.pop() {
                        let status = [200, 481, 503, 415][usize::try_from(random(4)).unwrap()];
                        world.answered(leg, number, status);
                    }
                }
                6 => world.advance(seconds(random(40))),
                kind => {
                    let inputs = [
                        Input::Progress,
                        Input::Accepted,
                        Input::Kept,
                        Input::Acked,
                        Input::Bye,
                        Input::Ended,
                        Input::Close,
                    ];
                    let kind = usize::try_from(kind + random(3)).unwrap() % inputs.len();
                    world.session.input(leg, inputs[kind], world.now, &mut world.out);
                }
            }
            for effect in &world.out {
                match effect {
                    Effect::Send(id, number, _) => sent.push((id.0, *number)),
                    Effect::Delivered(it) | Effect::Bounced(it, _) => {
                        *outcomes.entry(*it).or_insert(0) += 1;
                    }
                    _ => {}
                }
            }
            world.wants();
        }
        world.advance(seconds(40));
        for effect in &world.out {
            if let Effect::Delivered(it) | Effect::Bounced(it, _) = effect {
                *outcomes.entry(*it).or_insert(0) += 1;
            }
        }
        let all = (0..texts).all(|it| outcomes.get(&it) == Some(&1));
        assert!(all, "seed {seed}: {texts} texts, {outcomes:?}");
    }
}
