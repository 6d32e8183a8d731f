//! Instant messages between a local user and a SIP contact: one session, in one dialog or several.
//!
//! RFC 7573, RFC 3261 13 and 15, and what Microsoft's clients do. A text waits until there is a
//! dialog, which is made if there is none; one MESSAGE is out at a time, so they arrive in order.
//! Whoever invites is let in: when both do at once both dialogs stay, texts go into the one that was
//! established first, and the other ends when it has been idle long enough. Each text has a deadline
//! and exactly one outcome. Writes **no** message and knows **no** store: what is to be done comes
//! out as [`Effect`]s.
//!
//! Table of one dialog: `leg.table`.

mod effect;
mod leg;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::gateway::typing::{ChatState, Last, Toward, Typing};
use crate::limits::{
    IM_ANSWER_TIME_MAX, IM_IDLE_TIME_MAX, IM_LEGS_MAX, IM_OVERDUE_TIME, IM_TEXTS_WAITING_MAX,
};
use crate::stdx::Bounded;
use crate::time::Moment;

pub use effect::{Effect, Why};
pub use leg::{Act, Input, State};

/// Names one dialog of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LegId(pub u32);

#[derive(Clone, Copy, Debug)]
struct Leg {
    id: LegId,
    state: State,
    since: Moment,
    /// Something was said in it last.
    talked: Moment,
    /// Their INVITE, when we had a dialog already: they have a new window.
    replaces: bool,
    /// When the 200 goes out again, and how long after that once more.
    again: (Moment, Duration),
}

/// A text of the local user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Text {
    number: u32,
    deadline: Moment,
    /// Its dialog was gone once already.
    again: bool,
}

/// The texts that wait are as many as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A local user's session with one contact.
#[derive(Debug)]
pub struct Session {
    legs: Vec<Leg>,
    /// Where texts go.
    current: Option<LegId>,
    waiting: Bounded<Text>,
    /// The one that goes first, since it was sent before.
    first: Option<Text>,
    /// Nothing goes before then (Retry-After).
    hold: Moment,
    out: Option<(LegId, Text)>,
    /// The user has left: it ends when all texts have gone.
    leaving: bool,
    /// We said that the user types.
    typed: bool,
    /// What the user was told of the contact's typing, and how long it holds.
    told: Last,
    types_until: Moment,
    next: u32,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            legs: Vec::new(),
            current: None,
            waiting: Bounded::new(IM_TEXTS_WAITING_MAX),
            first: None,
            hold: Moment::default(),
            out: None,
            leaving: false,
            typed: false,
            told: Last::default(),
            types_until: Moment::NEVER,
            next: 0,
        }
    }
}

/// RFC 3261, 17.1.1.1: T1, T2, and 64 T1.
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
const ACK_TIME: Duration = Duration::from_secs(32);

impl Session {
    /// A text of the local user's; its outcome is known at the deadline.
    pub fn say(
        &mut self,
        number: u32,
        deadline: Moment,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<(), Full> {
        self.leaving = false;
        self.waiting.push(Text { number, deadline, again: false }).map_err(|_| Full)?;
        self.pump(now, out);
        Ok(())
    }

    /// They invite; `None`: there are too many dialogs.
    pub fn invited(&mut self, now: Moment, out: &mut Vec<Effect>) -> Option<LegId> {
        if self.legs.len() >= IM_LEGS_MAX {
            let oldest = self.legs.iter().filter(|it| it.state == State::Established);
            let oldest = oldest.min_by_key(|it| it.talked).map(|it| it.id);
            if let Some(id) = oldest {
                self.input(id, Input::Close, now, out);
            }
            return None;
        }
        Some(self.enter(State::Offered, now))
    }

    /// A dialog that was stored.
    pub fn restored(&mut self, now: Moment) -> Option<LegId> {
        if self.legs.len() >= IM_LEGS_MAX {
            return None;
        }
        let id = self.enter(State::Established, now);
        self.current = Some(id);
        Some(id)
    }

    /// Something happened to one dialog.
    pub fn input(&mut self, id: LegId, input: Input, now: Moment, out: &mut Vec<Effect>) {
        let Some(leg) = self.legs.iter_mut().find(|it| it.id == id) else { return };
        let before = leg.state;
        let (state, act) = before.handle(input);
        leg.state = state;
        match act {
            Act::Nothing => {}
            Act::Ack => out.push(Effect::Ack(id)),
            Act::AckBye => out.extend([Effect::Ack(id), Effect::Bye(id)]),
            Act::Cancel => out.push(Effect::Cancel(id)),
            Act::Answer => {
                (leg.since, leg.again) = (now, (now + T1, T1));
                out.push(Effect::Answer(id));
            }
            Act::Refuse => out.push(Effect::Refuse(id)),
            Act::Bye => out.push(Effect::Bye(id)),
        }
        if state == before {
            return;
        }
        let (was_established, replaces) = (before == State::Established, leg.replaces);
        if state == State::Established {
            leg.talked = now;
            if self.current.is_none() || replaces {
                self.current = Some(id);
            }
        } else if self.current == Some(id) {
            self.typed = false;
            let live = self.legs.iter().find(|it| it.state == State::Established);
            self.current = live.map(|it| it.id);
        }
        if state == State::Gone {
            self.legs.retain(|it| it.id != id);
            out.push(Effect::Over(id));
            if was_established && input == Input::Bye && self.current.is_none() {
                self.types_until = Moment::NEVER;
                self.tell(ChatState::Gone, out);
            }
        }
        self.pump(now, out);
    }

    /// Our INVITE found no dialog: what waits for it has no other hope, unless they invite.
    pub fn refused(&mut self, id: LegId, why: Why, now: Moment, out: &mut Vec<Effect>) {
        let wanted = self.legs.iter().any(|it| it.id == id && it.state != State::Cancelling);
        let others = self
            .legs
            .iter()
            .any(|it| it.id != id && (it.state.is_pending() || it.state == State::Established));
        if wanted && !others {
            self.bounce_all(why, out);
        }
        self.input(id, Input::Refused, now, out);
    }

    /// The answer to a MESSAGE, or that there is none. `later`: its Retry-After.
    pub fn answered(
        &mut self,
        id: LegId,
        number: u32,
        outcome: Result<(), (Why, Option<Duration>)>,
        now: Moment,
        out: &mut Vec<Effect>,
    ) {
        let Some((_, text)) = self.out.take_if(|(leg, text)| *leg == id && text.number == number)
        else {
            return;
        };
        match outcome {
            Ok(()) => {
                self.talked(id, now);
                out.push(Effect::Delivered(number));
            }
            Err((why, _)) if why.loses_dialog() => {
                if text.again || now >= text.deadline {
                    out.push(Effect::Bounced(number, why));
                } else {
                    self.first = Some(Text { again: true, ..text });
                }
                // Before the next is sent.
                self.input(id, Input::Lost, now, out);
            }
            Err((Why::Status(503), Some(later))) if now + later < text.deadline => {
                self.first = Some(text);
                self.hold = now + later;
            }
            Err((why, _)) => {
                out.push(Effect::Bounced(number, why));
                if why.ends_dialog() {
                    self.input(id, Input::Lost, now, out);
                }
            }
        }
        self.pump(now, out);
    }

    /// The answer to an INFO: it is never sent again.
    pub fn typing_answered(&mut self, id: LegId, why: Why, now: Moment, out: &mut Vec<Effect>) {
        if why.loses_dialog() || why.ends_dialog() {
            self.input(id, Input::Lost, now, out);
        }
    }

    /// They speak in this dialog, so they have our 200, and look there for what we say. False: it is
    /// over.
    #[must_use]
    pub fn hears(&mut self, id: LegId, now: Moment, out: &mut Vec<Effect>) -> bool {
        self.input(id, Input::Acked, now, out);
        let Some(leg) = self.legs.iter_mut().find(|it| it.id == id) else { return false };
        if leg.state != State::Established {
            return false;
        }
        leg.talked = now;
        self.current = Some(id);
        true
    }

    /// A text of theirs was delivered, which ends their typing.
    pub fn spoke(&mut self) {
        self.told.spoke();
        self.types_until = Moment::NEVER;
    }

    /// They type, or no longer; it holds for so long.
    pub fn types(&mut self, typing: Typing, lasts: Duration, now: Moment, out: &mut Vec<Effect>) {
        self.types_until = match typing {
            Typing::Active => now + lasts,
            Typing::Idle => Moment::NEVER,
        };
        self.tell(typing.toward_xmpp(), out);
    }

    /// A chat state of the local user's, standing alone (XEP-0085, 5.3).
    pub fn typed(&mut self, toward: Toward, now: Moment, out: &mut Vec<Effect>) {
        match toward {
            Toward::End => {
                self.leaving = true;
                self.leave(now, out);
            }
            Toward::Typing(typing) => {
                let types = typing == Typing::Active;
                let Some(id) = self.current else { return };
                // A text ends it by itself, and none overtakes what waits.
                if self.typed == types || self.has_texts() {
                    return;
                }
                self.typed = types;
                out.push(Effect::Type(id, typing));
            }
        }
    }

    /// It ends, whoever wants something of it.
    pub fn close(&mut self, why: Why, now: Moment, out: &mut Vec<Effect>) {
        if let Some((_, text)) = self.out.take() {
            out.push(Effect::Bounced(text.number, why));
        }
        self.bounce_all(why, out);
        self.close_legs(now, out);
    }

    /// What is due.
    pub fn fire(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if self.types_until <= now {
            self.types_until = Moment::NEVER;
            self.tell(ChatState::Paused, out);
        }
        self.expire(now, out);
        for leg in self.legs.clone() {
            match leg.state {
                State::Inviting | State::Progressing
                    if now >= leg.since + IM_ANSWER_TIME_MAX
                        // In a glare it stays, though all has gone the other way.
                        || (!self.has_texts() && self.current.is_none()) =>
                {
                    self.bounce_unless_other(leg.id, out);
                    self.input(leg.id, Input::Limit, now, out);
                }
                State::Accepting if now >= leg.since + ACK_TIME => {
                    self.input(leg.id, Input::NoAck, now, out);
                }
                State::Accepting if now >= leg.again.0 => {
                    let wait = (leg.again.1 * 2).min(T2);
                    if let Some(leg) = self.legs.iter_mut().find(|it| it.id == leg.id) {
                        leg.again = (now + wait, wait);
                    }
                    out.push(Effect::Answer(leg.id));
                }
                State::Established if now >= leg.talked + IM_IDLE_TIME_MAX => {
                    self.input(leg.id, Input::Close, now, out);
                }
                _ => {}
            }
        }
        self.pump(now, out);
    }

    /// When something is due next.
    pub fn due(&self) -> Moment {
        let texts = self.first.iter().chain(self.waiting.iter()).map(|it| it.deadline);
        let sent = self.out.map(|(_, it)| it.deadline + IM_OVERDUE_TIME);
        let held = self.first.is_some() && self.out.is_none() && self.hold > Moment::default();
        let legs = self.legs.iter().map(|leg| match leg.state {
            State::Inviting | State::Progressing => leg.since + IM_ANSWER_TIME_MAX,
            State::Accepting => leg.again.0.min(leg.since + ACK_TIME),
            State::Established => leg.talked + IM_IDLE_TIME_MAX,
            _ => Moment::NEVER,
        });
        let due = texts.chain(sent).chain(held.then_some(self.hold)).chain(legs).min();
        due.unwrap_or(Moment::NEVER).min(self.types_until)
    }

    /// The text that goes next.
    pub fn next_text(&self) -> Option<u32> {
        self.first.as_ref().or_else(|| self.waiting.front()).map(|it| it.number)
    }

    /// Nothing is left of it.
    pub fn is_over(&self) -> bool {
        self.legs.is_empty() && !self.has_texts() && self.types_until == Moment::NEVER
    }

    /// How far one dialog is.
    pub fn state(&self, id: LegId) -> Option<State> {
        self.legs.iter().find(|it| it.id == id).map(|it| it.state)
    }

    fn enter(&mut self, state: State, now: Moment) -> LegId {
        let id = LegId(self.next);
        self.next = self.next.wrapping_add(1);
        let replaces = self.current.is_some();
        let again = (Moment::NEVER, T1);
        self.legs.push(Leg { id, state, since: now, talked: now, replaces, again });
        id
    }

    /// The next text goes, if it may; if there is no dialog, one is made.
    fn pump(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if self.out.is_some() || (self.first.is_none() && self.waiting.is_empty()) {
            return self.leave(now, out);
        }
        if self.first.is_some() && now < self.hold {
            return;
        }
        self.hold = Moment::default();
        if let Some(id) = self.current {
            let Some(text) = self.first.take().or_else(|| self.waiting.take()) else { return };
            self.out = Some((id, text));
            self.typed = false;
            self.talked(id, now);
            return out.push(Effect::Send(id, text.number, text.deadline));
        }
        if self.legs.iter().any(|it| it.state.is_pending()) {
            return;
        }
        if self.legs.len() < 2 * IM_LEGS_MAX {
            let id = self.enter(State::Inviting, now);
            out.push(Effect::Invite(id));
        } else {
            self.bounce_all(Why::Full, out);
        }
    }

    /// The user has left, and nothing of his waits.
    fn leave(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if self.leaving && !self.has_texts() {
            self.leaving = false;
            self.close_legs(now, out);
        }
    }

    fn close_legs(&mut self, now: Moment, out: &mut Vec<Effect>) {
        for leg in self.legs.clone() {
            self.input(leg.id, Input::Close, now, out);
        }
    }

    /// Texts whose time is up.
    fn expire(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let mut late = |text: &Text| {
            let is_late = text.deadline <= now;
            if is_late {
                out.push(Effect::Bounced(text.number, Why::Timeout));
            }
            !is_late
        };
        self.first = self.first.filter(&mut late);
        self.waiting.retain(&mut late);
        // The transport owes an answer by then; the user's account waits for nobody.
        let overdue = self.out.take_if(|(_, text)| text.deadline + IM_OVERDUE_TIME <= now);
        if let Some((id, text)) = overdue {
            out.push(Effect::Bounced(text.number, Why::Timeout));
            self.input(id, Input::Lost, now, out);
        }
    }

    fn bounce_unless_other(&mut self, id: LegId, out: &mut Vec<Effect>) {
        let mut others = self.legs.iter().filter(|it| it.id != id);
        if !others.any(|it| it.state.is_pending() || it.state == State::Established) {
            self.bounce_all(Why::Timeout, out);
        }
    }

    fn bounce_all(&mut self, why: Why, out: &mut Vec<Effect>) {
        let first = self.first.take();
        for text in first.into_iter().chain(std::iter::from_fn(|| self.waiting.take())) {
            out.push(Effect::Bounced(text.number, why));
        }
    }

    fn has_texts(&self) -> bool {
        self.out.is_some() || self.first.is_some() || !self.waiting.is_empty()
    }

    fn talked(&mut self, id: LegId, now: Moment) {
        if let Some(leg) = self.legs.iter_mut().find(|it| it.id == id) {
            leg.talked = now;
        }
    }

    fn tell(&mut self, state: ChatState, out: &mut Vec<Effect>) {
        if self.told.tell(state) {
            out.push(Effect::Tell(state));
        }
    }
}
