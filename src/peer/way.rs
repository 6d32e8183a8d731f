//! One way: what waits for a domain, and how far its set-up is.
//!
//! ```text
//!  Idle --wanted--> Resolving --planned--> LookingUp --chosen--> Connecting --connected--> Negotiating
//!   Negotiating --usable--> Usable (verifications pass) --proved--> Open (stanzas pass)
//!   Connecting, Negotiating, Usable --next target--> LookingUp;   all of them --gave up--> BackingOff
//!   BackingOff --retry--> Idle;   Negotiating, Usable, Open --ended--> Idle
//! ```
//!
//! Stanzas wait here, in one order, until the far domain has accepted who we are (XEP-0220, 2.1.1);
//! each has a deadline of its own. Keys that the far domain shall verify wait here too: they may go
//! before that. Newer presence does **not** yet replace older presence in the queue.

use std::time::Duration;

use crate::address::Address;
use crate::dns::{Plan, Target};
use crate::envelope::{Kind, Origin, Purpose};
use crate::limits::{
    BACKOFF_MAX, BACKOFF_MIN, VERIFIES_PER_WAY_MAX, WAY_IDLE_MAX, WAY_QUEUE_BYTES_MAX,
    WAY_QUEUE_STANZAS_MAX,
};
use crate::stdx::Bounded;
use crate::time::Moment;

/// How far the set-up of a way is. `K` names its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage<K> {
    /// Nothing is under way.
    Idle,
    /// All targets failed at `since`; the next try is at `until`.
    BackingOff { since: Moment, until: Moment },
    /// Waits for the domain's SRV records.
    Resolving,
    /// Waits for a host's addresses, or chooses a target.
    LookingUp,
    /// Waits for a connection.
    Connecting,
    /// Stream, TLS or SASL are under way: nothing else may be written.
    Negotiating(K),
    /// The far end is who it should be; what we are is not shown yet.
    Usable(K),
    /// Both are.
    Open(K),
}

/// What happens to a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<K> {
    /// Something waits for a stream.
    Wanted,
    /// The pause is over.
    Retry,
    /// It is known which hosts to try.
    Planned,
    /// A target is chosen.
    Chosen,
    /// The connection stands.
    Connected(K),
    /// Features are told, and the certificate is good enough.
    Usable,
    /// SASL began: nothing else may be written until it has ended.
    Busy,
    /// The far domain accepted who we are.
    Proved,
    /// This target is no good.
    NextTarget,
    /// No target is any good.
    GaveUp { since: Moment, until: Moment },
    /// The stream is closed and nobody is to blame.
    Ended,
}

/// The input is about something that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

impl<K: Copy> Stage<K> {
    /// Advances by one input.
    pub fn handle(self, input: Input<K>) -> Result<Self, Stale> {
        use Stage::{
            BackingOff, Connecting, Idle, LookingUp, Negotiating, Open, Resolving, Usable,
        };
        Ok(match (self, input) {
            (Idle, Input::Wanted) => Resolving,
            (BackingOff { .. }, Input::Retry) => Idle,
            (Resolving, Input::Planned) => LookingUp,
            (LookingUp, Input::Chosen) => Connecting,
            (Connecting, Input::Connected(key)) => Negotiating(key),
            (Negotiating(key), Input::Usable) => Usable(key),
            (Usable(key), Input::Busy) => Negotiating(key),
            (Usable(key), Input::Proved) => Open(key),
            (Connecting | Negotiating(_) | Usable(_), Input::NextTarget) => LookingUp,
            (Idle | BackingOff { .. }, Input::GaveUp { .. }) => return Err(Stale),
            (_, Input::GaveUp { since, until }) => BackingOff { since, until },
            (Negotiating(_) | Usable(_) | Open(_), Input::Ended) => Idle,
            (_, _) => return Err(Stale),
        })
    }

    /// The connection it is about.
    pub fn key(self) -> Option<K> {
        match self {
            Self::Negotiating(key) | Self::Usable(key) | Self::Open(key) => Some(key),
            _ => None,
        }
    }
}

/// A stanza that waits for a stream.
#[derive(Debug)]
pub struct Waiting {
    pub from: Address,
    pub to: Address,
    pub kind: Kind,
    pub purpose: Purpose,
    /// On whose account; `None`: on nobody's.
    pub origin: Option<Origin>,
    /// When it was taken.
    pub since: Moment,
    /// Then it bounces.
    pub deadline: Moment,
    /// As it goes out.
    pub text: Box<[u8]>,
}

/// A key on one of our inbound streams, which the far domain shall judge (XEP-0220, 2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// The shard that wants to know, and its word for the stream.
    pub asker: u16,
    pub ticket: u64,
    /// The id of that stream.
    pub stream_id: String,
    pub key: String,
    pub deadline: Moment,
    /// It was asked on the present stream.
    pub asked: bool,
}

/// Why the last try failed, for who reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// `dns`, `tcp`, `tls`, `stream`, `auth` or `dialback`.
    pub step: &'static str,
    pub reason: String,
    /// The target it was with; empty: before there was one.
    pub target: String,
}

/// The way from one domain of ours to one of theirs.
#[derive(Debug)]
pub struct Way<K> {
    pub near: String,
    pub far: String,
    stage: Stage<K>,
    /// Up to when the present stage may last.
    pub stage_deadline: Moment,
    /// What is left to try, from the resolution on.
    pub plan: Option<Plan>,
    /// What is being tried.
    pub target: Option<Target>,
    pub trouble: Option<Trouble>,
    /// Rounds that failed since the last good one.
    failures: u32,
    pub queue: Bounded<Waiting>,
    verifications: Vec<Verification>,
    /// The far domain could not judge our key: the next try on this stream is not before this.
    pub prove_at: Moment,
    /// When a stanza last passed or came to wait.
    pub used: Moment,
    /// The timer that is set.
    pub armed: Moment,
}

impl<K: Copy + PartialEq> Way<K> {
    pub(super) fn new(near: &str, far: &str, now: Moment) -> Self {
        let weigh = |it: &Waiting| it.text.len() + it.from.full().len() + it.to.full().len();
        Self {
            near: near.to_owned(),
            far: far.to_owned(),
            stage: Stage::Idle,
            stage_deadline: Moment::NEVER,
            plan: None,
            target: None,
            trouble: None,
            failures: 0,
            queue: Bounded::weighed(WAY_QUEUE_STANZAS_MAX, WAY_QUEUE_BYTES_MAX, weigh),
            verifications: Vec::new(),
            prove_at: Moment::default(),
            used: now,
            armed: Moment::NEVER,
        }
    }

    pub fn stage(&self) -> Stage<K> {
        self.stage
    }

    /// Advances by one input; the new stage lasts as long as it likes until a deadline is set.
    pub fn handle(&mut self, input: Input<K>) -> Result<(), Stale> {
        self.stage = self.stage.handle(input)?;
        self.stage_deadline = Moment::NEVER;
        match self.stage {
            Stage::Idle | Stage::BackingOff { .. } => {
                self.plan = None;
                self.target = None;
            }
            Stage::Open(_) => {
                self.failures = 0;
                self.trouble = None;
            }
            _ => {}
        }
        if self.stage.key().is_none() {
            // What was asked on a stream that is gone is asked again on the next.
            self.verifications.iter_mut().for_each(|it| it.asked = false);
            self.prove_at = Moment::default();
        }
        Ok(())
    }

    /// The connection that takes stanzas at once, which nothing may pass that waits.
    pub fn direct(&self) -> Option<K> {
        match self.stage {
            Stage::Open(key) if self.queue.is_empty() => Some(key),
            _ => None,
        }
    }

    /// Somebody waits for this way.
    pub fn is_wanted(&self) -> bool {
        !self.queue.is_empty() || !self.verifications.is_empty()
    }

    /// Nobody would miss it.
    pub fn is_forgettable(&self) -> bool {
        !self.is_wanted() && matches!(self.stage, Stage::Idle | Stage::BackingOff { .. })
    }

    /// All targets failed: a pause, 1 s and doubled up to 60 s, of which `dice` leaves between half
    /// and all. Ends at once with [`Way::peer_is_there`].
    pub fn give_up(&mut self, now: Moment, dice: u64) -> Result<Duration, Stale> {
        let whole = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        let half = whole / 2;
        let pause = half + Duration::from_millis(dice % (half.as_millis() as u64 + 1));
        self.handle(Input::GaveUp { since: now, until: now + pause })?;
        self.failures += 1;
        self.stage_deadline = now + pause;
        Ok(pause)
    }

    /// The peer has shown itself on an inbound stream: no reason to wait any longer.
    pub fn peer_is_there(&mut self) {
        if self.handle(Input::Retry).is_ok() {
            self.failures = 0;
        }
    }

    /// Adds a key to be judged; it comes back if there are too many.
    pub fn verify(&mut self, verification: Verification) -> Result<(), Verification> {
        if self.verifications.len() >= VERIFIES_PER_WAY_MAX {
            return Err(verification);
        }
        self.verifications.push(verification);
        if let Stage::BackingOff { since, until } = self.stage {
            // Who shows a key is there, but anybody can: the shortest pause is kept.
            let until = until.min(since + BACKOFF_MIN);
            self.stage = Stage::BackingOff { since, until };
            self.stage_deadline = until;
        }
        Ok(())
    }

    /// Those that were not asked on the present stream; they count as asked now.
    pub fn ask(&mut self) -> impl Iterator<Item = &Verification> {
        self.verifications
            .iter_mut()
            .filter_map(|it| (!std::mem::replace(&mut it.asked, true)).then_some(&*it))
    }

    /// The far domain judged the key of that stream; all who asked. Empty: nobody did.
    pub fn judged(&mut self, stream_id: &str) -> Vec<Verification> {
        self.take_verifications(|it| it.asked && it.stream_id == stream_id)
    }

    /// What waited too long.
    pub fn expire(&mut self, now: Moment) -> (Vec<Waiting>, Vec<Verification>) {
        let mut late = Vec::new();
        // Those of a stanza that came by another shard may be out of order by a hair.
        while self.queue.front().is_some_and(|it| it.deadline <= now) {
            late.extend(self.queue.take());
        }
        (late, self.take_verifications(|it| it.deadline <= now))
    }

    /// All that waits, for a way that leads nowhere.
    pub fn clear(&mut self) -> (Vec<Waiting>, Vec<Verification>) {
        let mut waiting = Vec::with_capacity(self.queue.len());
        while let Some(it) = self.queue.take() {
            waiting.push(it);
        }
        self.queue.shrink();
        (waiting, std::mem::take(&mut self.verifications))
    }

    /// When it must be looked at next.
    pub fn next_deadline(&self, now: Moment) -> Moment {
        let front = self.queue.front().map_or(Moment::NEVER, |it| it.deadline);
        let first = self.verifications.first().map_or(Moment::NEVER, |it| it.deadline);
        let rest = match self.stage {
            Stage::Usable(_) if !self.queue.is_empty() && self.prove_at > now => self.prove_at,
            Stage::Idle | Stage::Open(_) if !self.is_wanted() => self.used + WAY_IDLE_MAX,
            _ => Moment::NEVER,
        };
        self.stage_deadline.min(front).min(first).min(rest)
    }

    fn take_verifications(
        &mut self,
        mut is_it: impl FnMut(&Verification) -> bool,
    ) -> Vec<Verification> {
        self.verifications.extract_if(.., |it| is_it(it)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Moment {
        Moment(seconds * SECOND)
    }

    /// Table: `way.table`.
    #[test]
    fn every_stage_meets_every_input() {
        let (since, until) = (Moment(1), Moment(2));
        let stages = [
            Stage::Idle,
            Stage::BackingOff { since, until },
            Stage::Resolving,
            Stage::LookingUp,
            Stage::Connecting,
            Stage::Negotiating(7),
            Stage::Usable(7),
            Stage::Open(7),
        ];
        let inputs = [
            Input::Wanted,
            Input::Retry,
            Input::Planned,
            Input::Chosen,
            Input::Connected(7),
            Input::Usable,
            Input::Busy,
            Input::Proved,
            Input::NextTarget,
            Input::GaveUp { since, until },
            Input::Ended,
        ];
        let mut table = String::new();
        for stage in stages {
            for input in inputs {
                let next = match stage.handle(input) {
                    Ok(next) => format!("{next:?}"),
                    Err(Stale) => "stale".to_owned(),
                };
                table += &format!("{stage:?} + {input:?} -> {next}\n");
            }
        }
        crate::stdx::table::check("src/peer/way.table", &table, include_str!("way.table"));
    }

    fn way() -> Way<u8> {
        Way::new("a.example", "b.example", at(0))
    }

    fn waiting(text: &str, deadline: Moment) -> Waiting {
        Waiting {
            from: Address::parse("x@a.example").unwrap(),
            to: Address::parse("y@b.example").unwrap(),
            kind: Kind::Message,
            purpose: Purpose::Chat,
            origin: None,
            since: at(0),
            deadline,
            text: text.as_bytes().into(),
        }
    }

    fn verification(stream_id: &str) -> Verification {
        let (stream_id, key) = (stream_id.to_owned(), "00".to_owned());
        Verification { asker: 0, ticket: 1, stream_id, key, deadline: at(20), asked: false }
    }

    #[test]
    fn the_pause_doubles_with_jitter_up_to_its_bound() {
        for dice in [0, 1, 17, u64::MAX] {
            let mut way = way();
            let mut now = at(1);
            for round in 0..10_u32 {
                way.handle(Input::Wanted).unwrap();
                let pause = way.give_up(now, dice).unwrap();
                let whole = Duration::from_secs(1 << round.min(6)).min(BACKOFF_MAX);
                assert!(pause >= whole / 2 && pause <= whole, "{round}: {pause:?}");
                assert_eq!(way.next_deadline(now), now + pause);
                now = now + pause;
                way.handle(Input::Retry).unwrap();
            }
            way.handle(Input::Wanted).unwrap();
            way.give_up(now, dice).unwrap();
            way.peer_is_there();
            assert_eq!(way.stage(), Stage::Idle);
            way.handle(Input::Wanted).unwrap();
            assert!(way.give_up(now, dice).unwrap() <= BACKOFF_MIN, "it begins anew");
        }
    }

    #[test]
    fn a_key_shortens_a_pause_to_the_shortest() {
        let mut way = way();
        for _ in 0..6 {
            way.handle(Input::Wanted).unwrap();
            way.give_up(at(100), 0).unwrap();
            way.handle(Input::Retry).unwrap();
        }
        way.handle(Input::Wanted).unwrap();
        assert!(way.give_up(at(100), 0).unwrap() > Duration::from_secs(20));
        way.verify(Verification { deadline: at(200), ..verification("1") }).unwrap();
        assert_eq!(way.next_deadline(at(100)), at(101));
    }

    #[test]
    fn each_stanza_has_its_deadline_and_the_rest_keeps_its_order() {
        let mut way = way();
        way.queue.push(waiting("one", at(30))).unwrap();
        way.queue.push(waiting("two", at(31))).unwrap();
        way.queue.push(waiting("three", at(32))).unwrap();
        way.verify(verification("1")).unwrap();
        assert_eq!(way.next_deadline(at(1)), at(20));
        let (late, unanswered) = way.expire(at(31));
        assert_eq!(late.iter().map(|it| &*it.text).collect::<Vec<_>>(), [&b"one"[..], b"two"]);
        assert_eq!(unanswered.len(), 1);
        assert_eq!(way.next_deadline(at(31)), at(32));
        assert!(way.is_wanted() && !way.is_forgettable());
        assert_eq!(way.clear().0.len(), 1);
        assert!(way.is_forgettable());
    }

    #[test]
    fn the_queue_is_bounded_in_octets_and_stanzas() {
        let mut heavy = way();
        let text = "x".repeat(WAY_QUEUE_BYTES_MAX / 4);
        let taken = (0..9).filter(|_| heavy.queue.push(waiting(&text, at(1))).is_ok()).count();
        assert_eq!(taken, 3, "addresses weigh too");
        let mut many = way();
        let taken = (0..WAY_QUEUE_STANZAS_MAX + 9)
            .filter(|_| many.queue.push(waiting("<a/>", at(1))).is_ok())
            .count();
        assert_eq!(taken, WAY_QUEUE_STANZAS_MAX);
        for i in 0..VERIFIES_PER_WAY_MAX {
            many.verify(verification(&i.to_string())).unwrap();
        }
        assert!(many.verify(verification("x")).is_err());
    }

    #[test]
    fn a_key_is_asked_once_per_stream_and_an_answer_needs_a_question() {
        let mut way = way();
        way.verify(verification("1")).unwrap();
        assert!(way.judged("1").is_empty(), "nobody asked yet");
        assert_eq!(way.ask().count(), 1);
        assert_eq!(way.ask().count(), 0);
        assert!(way.judged("2").is_empty());
        for input in [Input::Wanted, Input::Planned, Input::Chosen, Input::Connected(1)] {
            way.handle(input).unwrap();
        }
        way.handle(Input::NextTarget).unwrap();
        assert_eq!(way.ask().count(), 1, "asked again on the next stream");
        assert_eq!(way.judged("1").len(), 1);
        assert!(!way.is_wanted());
    }
}
