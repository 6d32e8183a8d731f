//! The notifier's side of a subscription: what one dialog of a SIP watcher is told, and when.
//!
//! RFC 6665, 4.2; RFC 3856, 6; RFC 8048, 5.3 and 7.2. [`State`] is the machine of one dialog and
//! [`Pace`] its clock: at most one NOTIFY is out, a document follows another after five seconds at
//! the soonest, and the newest wins. How the watcher stands to the user is the home's to say
//! ([`Standing`]); a watcher that was denied politely or is blocked sees what one of a user who is
//! really offline sees, in shape and in time. Writes **no** message and **no** document.
//!
//! Table: `watched.table`.

use std::time::Duration;

use crate::limits::{
    WATCHED_AGAIN_MAX, WATCHED_AGAIN_MIN, WATCHED_EXPIRES_FLOOR, WATCHED_EXPIRES_MAX,
    WATCHED_GIVE_UP_SECONDS, WATCHED_PACE,
};
use crate::time::Moment;

/// How far a dialog is (RFC 6665, 4.2.2).
///
/// ```text
///   init -> pending -> active <-> hidden       each of them -> terminated
///      \______________/ \_ unsure (after a restart, until somebody knows) -> any of the three
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The SUBSCRIBE has come and is not answered.
    Init,
    /// Nothing is known of the user yet: we have just started, and no client of his is back.
    Unsure,
    /// The user has not decided.
    Pending,
    /// The watcher sees the user.
    Active,
    /// The watcher believes that he sees a user who is offline.
    Hidden,
    /// It is over; this is the last word.
    Terminated(Last),
}

/// The last NOTIFY of a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    pub reason: Reason,
    pub body: Body,
}

/// Why a subscription is over (RFC 6665, 4.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It expired, or its watcher ended it.
    Timeout,
    /// The user said no, in the explicit style; or our policy does.
    Rejected,
    /// There is no such user any more.
    NoResource,
    /// Too many wait, or this one did for too long.
    GiveUp,
}

/// What stands in a NOTIFY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing: there is nothing to be known, or not by him.
    Empty,
    /// What the watcher may see.
    Current,
    /// A user who is offline.
    Closed,
}

/// How a watcher stands to the user: the rows of the authorisation rules, in the home's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// He may see the user.
    Allowed,
    /// He may, and the request that makes it so must be put to the home first.
    Approved,
    /// The user has not decided, or has not been asked.
    Undecided,
    /// The same, and too many wait for the user already.
    Crowded,
    /// Denied, in the polite style.
    Denied,
    /// Denied, in the explicit style.
    Rejected,
    /// Blocked (XEP-0191).
    Blocked,
    /// Nobody can say what the user's state is.
    Unknown,
}

/// What happens to a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A SUBSCRIBE that makes it or refreshes it.
    Subscribe(Standing),
    /// A SUBSCRIBE with `Expires: 0`.
    End(Standing),
    /// The user has decided, has blocked somebody or blocks him no longer; or is known again.
    Decided(Standing),
    /// The user's state is another.
    Changed,
    /// What came of a NOTIFY.
    Answered(Answer),
    /// Nobody has refreshed it in time.
    Expired,
    /// The account is gone.
    Removed,
    /// Our policy has no place for the watcher's domain any more.
    Refused,
    /// A bound of ours.
    GaveUp,
}

/// What came of a NOTIFY (RFC 6665, 4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// The watcher has no such dialog, or does not answer at all.
    Over,
    /// Not now, but after so many seconds.
    Later(u32),
    /// It says nothing about the subscription.
    Other,
}

/// What a SUBSCRIBE is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// 200. RFC 6665, 8.3.1: 202 is of the past.
    Accepted,
    /// 403.
    Forbidden,
    /// 481.
    NoDialog,
}

/// Whether there is something to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    Nothing,
    /// As soon as no other NOTIFY is out.
    Now,
    /// When the pace allows, and only if it says something new.
    Paced,
    /// What was told did not arrive.
    Again,
}

/// What one input does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub next: State,
    pub reply: Option<Reply>,
    pub tell: Tell,
    /// The watcher's request goes to the user.
    pub ask: bool,
    /// The user's clients hear that the watcher left (RFC 8048, 5.3.3).
    pub left: bool,
}

impl Standing {
    /// In the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Allowed,
        Self::Approved,
        Self::Undecided,
        Self::Crowded,
        Self::Denied,
        Self::Rejected,
        Self::Blocked,
        Self::Unknown,
    ];
}

impl State {
    /// Takes one input.
    #[must_use]
    pub fn handle(self, input: Input) -> Step {
        match (self, input) {
            (Self::Terminated(_), Input::Subscribe(_) | Input::End(_)) => {
                Step { reply: Some(Reply::NoDialog), ..self.still() }
            }
            (Self::Terminated(_), _) => self.still(),
            (Self::Init, Input::Subscribe(standing)) => self.made(standing),
            (Self::Init, Input::End(standing)) => self.fetched(standing),
            // It is being kept; what is true then is asked when it is.
            (Self::Init, _) => self.still(),
            (_, Input::Subscribe(standing)) => self.refreshed(standing),
            (_, Input::End(_)) => {
                // RFC 8048, 5.3.3.
                let body = match self {
                    Self::Active | Self::Hidden => Body::Closed,
                    _ => Body::Empty,
                };
                let reply = Some(Reply::Accepted);
                let left = self == Self::Active;
                Step { reply, left, ..ended(Reason::Timeout, body) }
            }
            (_, Input::Decided(standing)) => self.decided(standing),
            (Self::Active, Input::Changed) => Step { tell: Tell::Paced, ..self.still() },
            (_, Input::Changed) => self.still(),
            (_, Input::Answered(answer)) => self.answered(answer),
            (_, Input::Expired) => ended(Reason::Timeout, self.body()),
            (_, Input::Removed) => ended(Reason::NoResource, Body::Empty),
            (_, Input::Refused) => ended(Reason::Rejected, Body::Empty),
            (_, Input::GaveUp) => ended(Reason::GiveUp, Body::Empty),
        }
    }

    /// A new dialog.
    fn made(self, standing: Standing) -> Step {
        if standing == Standing::Rejected {
            let over = ended(Reason::Rejected, Body::Empty);
            return Step { reply: Some(Reply::Forbidden), tell: Tell::Nothing, ..over };
        }
        self.refreshed(standing)
    }

    /// RFC 6665, 4.2.1.2: each SUBSCRIBE is followed by a NOTIFY at once.
    fn refreshed(self, standing: Standing) -> Step {
        let step = match standing {
            Standing::Rejected => ended(Reason::Rejected, Body::Empty),
            // One that waits already does not wait twice.
            Standing::Crowded if self != Self::Pending => ended(Reason::GiveUp, Body::Empty),
            Standing::Crowded => self.still(),
            _ => Self::seen_as(standing).still(),
        };
        let asks = match standing {
            Standing::Approved => true,
            Standing::Undecided => self != Self::Pending,
            _ => false,
        };
        Step { reply: Some(Reply::Accepted), tell: Tell::Now, ask: asks, ..step }
    }

    /// `Expires: 0` in a new dialog: one look and no more (RFC 6665, 4.4.3; RFC 8048, 7.2).
    fn fetched(self, standing: Standing) -> Step {
        if standing == Standing::Rejected {
            return self.made(standing);
        }
        let body = Self::seen_as(standing).body();
        Step { reply: Some(Reply::Accepted), ..ended(Reason::Timeout, body) }
    }

    fn decided(self, standing: Standing) -> Step {
        let next = match (self, standing) {
            (_, Standing::Rejected) => return ended(Reason::Rejected, Body::Empty),
            (_, Standing::Unknown) => return self.still(),
            // Who was blocked before he was decided on must not learn that he is not any more: his
            // next SUBSCRIBE asks the user.
            (Self::Hidden, Standing::Undecided | Standing::Crowded) => return self.still(),
            _ => Self::seen_as(standing),
        };
        let tell = match (self, next) {
            (Self::Pending, Self::Pending) | (Self::Hidden, Self::Hidden) => Tell::Nothing,
            _ => Tell::Paced,
        };
        Step { tell, ..next.still() }
    }

    fn answered(self, answer: Answer) -> Step {
        match answer {
            Answer::Accepted => self.still(),
            Answer::Over => Step { tell: Tell::Nothing, ..ended(Reason::Timeout, Body::Empty) },
            Answer::Later(_) | Answer::Other => Step { tell: Tell::Again, ..self.still() },
        }
    }

    /// The state of a live dialog whose watcher stands so.
    fn seen_as(standing: Standing) -> Self {
        match standing {
            Standing::Allowed | Standing::Approved => Self::Active,
            Standing::Undecided | Standing::Crowded | Standing::Rejected => Self::Pending,
            Standing::Denied | Standing::Blocked => Self::Hidden,
            Standing::Unknown => Self::Unsure,
        }
    }

    /// What stands in a NOTIFY of this state.
    pub fn body(self) -> Body {
        match self {
            Self::Init | Self::Pending | Self::Unsure => Body::Empty,
            Self::Active => Body::Current,
            Self::Hidden => Body::Closed,
            Self::Terminated(last) => last.body,
        }
    }

    /// It is over.
    pub fn is_terminated(self) -> bool {
        matches!(self, Self::Terminated(_))
    }

    /// The value of `Subscription-State` (RFC 6665, 8.4); `rest`: seconds to the expiry.
    pub fn written(self, rest: u32) -> String {
        match self {
            Self::Terminated(Last { reason: Reason::GiveUp, .. }) => {
                format!("terminated;reason=giveup;retry-after={WATCHED_GIVE_UP_SECONDS}")
            }
            Self::Terminated(last) => format!("terminated;reason={}", last.reason.name()),
            Self::Init | Self::Pending => format!("pending;expires={rest}"),
            Self::Unsure | Self::Active | Self::Hidden => format!("active;expires={rest}"),
        }
    }

    fn still(self) -> Step {
        Step { next: self, reply: None, tell: Tell::Nothing, ask: false, left: false }
    }
}

fn ended(reason: Reason, body: Body) -> Step {
    Step { tell: Tell::Now, ..State::Terminated(Last { reason, body }).still() }
}

impl Reason {
    /// As RFC 6665, 4.1.3 calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Rejected => "rejected",
            Self::NoResource => "noresource",
            Self::GiveUp => "giveup",
        }
    }
}

impl Answer {
    /// What a final answer says of the subscription (RFC 6665, 4.2.2; RFC 5057, 5.1).
    pub fn of(status: u16, retry_after: Option<u32>) -> Self {
        match (status, retry_after) {
            (200..=299, _) => Self::Accepted,
            (404 | 405 | 410 | 416 | 480..=485 | 489 | 501 | 604, _) => Self::Over,
            (_, Some(seconds)) => Self::Later(seconds),
            (_, None) => Self::Other,
        }
    }
}

/// For how long a SUBSCRIBE is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// `Expires: 0`.
    Ends,
    /// Seconds.
    For(u32),
    /// 423, with this `Min-Expires`.
    TooBrief(u32),
}

impl Lease {
    /// `usual`: what counts if nothing was asked for. RFC 6665, 4.2.1.1 lets only what is below an
    /// hour be refused.
    pub fn of(asked: Option<u32>, usual: u32) -> Self {
        match asked.unwrap_or(usual) {
            0 => Self::Ends,
            brief if brief < WATCHED_EXPIRES_FLOOR => Self::TooBrief(WATCHED_EXPIRES_FLOOR),
            seconds => Self::For(seconds.min(WATCHED_EXPIRES_MAX)),
        }
    }
}

/// When the next NOTIFY of a dialog may go: one is out at a time, and documents keep their distance
/// (RFC 3856, 6.10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// One is out.
    out: bool,
    wanted: Wanted,
    /// No document before this.
    rests: Moment,
    /// Times in a row that nothing arrived.
    failures: u8,
}

/// What is to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wanted {
    #[default]
    Nothing,
    /// After the pause, if it is new.
    Paced,
    /// After the pause, in any case.
    Held,
    /// At once.
    Now,
}

impl Pace {
    /// Something is to be told; what waits already is told with it.
    pub fn want(&mut self, tell: Tell) {
        match tell {
            Tell::Nothing => {}
            Tell::Now => self.wanted = Wanted::Now,
            Tell::Paced | Tell::Again if self.wanted == Wanted::Nothing => {
                self.wanted = Wanted::Paced;
            }
            Tell::Paced | Tell::Again => {}
        }
    }

    /// When the next NOTIFY is due; `None`: nothing is to be told, or one is out.
    pub fn due(&self) -> Option<Moment> {
        match self.wanted {
            _ if self.out => None,
            Wanted::Nothing => None,
            Wanted::Now => Some(Moment::default()),
            Wanted::Paced | Wanted::Held => Some(self.rests),
        }
    }

    /// It must go out even if it says nothing new.
    pub fn is_urgent(&self) -> bool {
        matches!(self.wanted, Wanted::Now | Wanted::Held)
    }

    /// One is out.
    pub fn is_out(&self) -> bool {
        self.out
    }

    /// It goes out. Only a document makes the next one wait.
    pub fn sent(&mut self, now: Moment, document: bool) {
        self.out = true;
        self.wanted = Wanted::Nothing;
        if document {
            self.rests = now + WATCHED_PACE;
        }
    }

    /// Not before `until`, whatever it is.
    pub fn hold(&mut self, until: Moment) {
        self.rests = self.rests.max(until);
        if self.wanted == Wanted::Now {
            self.wanted = Wanted::Held;
        }
    }

    /// There was nothing new in it.
    pub fn skipped(&mut self) {
        self.wanted = Wanted::Nothing;
    }

    /// What came of it; after a failure the pause grows.
    pub fn answered(&mut self, now: Moment, answer: Answer) {
        self.out = false;
        let pause = match answer {
            Answer::Accepted | Answer::Over => {
                self.failures = 0;
                return;
            }
            Answer::Later(seconds) => {
                let longest = Duration::from_secs(WATCHED_EXPIRES_MAX.into());
                Duration::from_secs(seconds.into()).clamp(WATCHED_PACE, longest)
            }
            Answer::Other => {
                let doubled = WATCHED_AGAIN_MIN * (1 << self.failures.min(10));
                doubled.min(WATCHED_AGAIN_MAX)
            }
        };
        self.failures = self.failures.saturating_add(1);
        self.rests = self.rests.max(now + pause);
        if self.wanted == Wanted::Nothing {
            self.wanted = Wanted::Paced;
        }
    }
}

#[cfg(test)]
#[path = "watched_tests.rs"]
mod tests;
