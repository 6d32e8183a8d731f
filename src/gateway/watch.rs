//! A local user's subscription to one SIP contact: what it does at each thing that happens.
//!
//! ```text
//!  Idle --wanted--> Subscribing --2xx--> Accepted --NOTIFY--> Standing(pending | active)
//!    Subscribing --NOTIFY (it overtook the 2xx)--> Refreshing --2xx--> Standing
//!    Standing --due--> Refreshing --2xx, or an error that ends nothing--> Standing
//!    all of them --dialog over--> BackingOff --due--> Subscribing;   --403 of Lync--> Held --due--> Subscribing
//!    all of them --unwanted--> Ending --2xx--> Parting --last NOTIFY--> Ended
//!  Idle --asked for once--> Fetching --NOTIFY--> Ended
//! ```
//!
//! RFC 6665, 4.1 is the subscriber; RFC 8048, 5 and 7 say what the user hears; RFC 6665, 4.1.3 the
//! reasons for which it ends. One dialog for each pair of user and contact. Nothing is written,
//! sent or timed here: a [`Step`] says what follows. Who counts as wanted is **not** decided here.
//!
//! Where the texts leave a choice: an error that does not end the dialog leaves it up to its expiry;
//! a dialog that ended because it moved or ran out is replaced at once, and its last document stays
//! until the new one fails to come.
//!
//! Table: `watch.table`.

use std::time::Duration;

use crate::limits::{WATCH_BACKOFF_MAX, WATCH_BACKOFF_MIN, WATCH_HOLD_MAX, WATCH_HOLD_MIN};

/// How far a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing was asked.
    Idle,
    /// The first SUBSCRIBE is out; there is no dialog.
    Subscribing,
    /// It was accepted: the first NOTIFY must come (timer N).
    Accepted,
    /// There is a dialog, and nothing of ours is out.
    Standing(Level),
    /// There is a dialog, and a SUBSCRIBE is out.
    Refreshing(Level),
    /// There is no dialog, and the next try has its time.
    BackingOff,
    /// The same, for a reason that an administrator must remove.
    Held,
    /// The contact's state will never change (RFC 6665, 4.1.3, `invariant`).
    Kept,
    /// Not wanted any more, but the first SUBSCRIBE is still out.
    Leaving,
    /// A SUBSCRIBE with Expires 0 is out.
    Ending,
    /// That was accepted: the last NOTIFY must come.
    Parting,
    /// The state is asked for once, without a subscription (RFC 8048, 7.1).
    Fetching,
    /// It is over.
    Ended,
}

/// What the contact's side has decided so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing.
    Pending,
    /// The user may see the contact.
    Active,
}

/// What happens to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The user shall see the contact's presence.
    Wanted,
    /// He shall do so no longer.
    Unwanted,
    /// The contact's state is asked for.
    Probe,
    /// 2xx.
    Accepted,
    /// 423: the time was too short.
    TooBrief,
    /// The answer cancels the authorisation for good (RFC 8048, 5.2.2).
    Refused,
    /// There is no such contact.
    NoUser,
    /// 403 of an edge that may not have us on its list.
    Unlisted,
    /// Neither the contact nor the moment is to blame, so trying soon again is of no use.
    Unfit,
    /// The answer, or a time-out, says that there is no such dialog (RFC 6665, 4.1.2.2).
    Gone,
    /// Another failure, which may pass.
    Trouble,
    /// The peer could not be reached.
    Lost,
    /// NOTIFY, pending or active.
    Notified(Level),
    /// NOTIFY, terminated.
    Terminated(Reason),
    /// Timer N.
    Silent,
    /// The time for the next SUBSCRIBE has come.
    Due,
    /// What was granted is over.
    Expired,
    /// The peer can be reached again after a failure.
    PeerBack,
}

/// Why a notifier ended a subscription (RFC 6665, 4.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Deactivated,
    Probation,
    Rejected,
    /// Also if there is none, or an unknown one.
    Timeout,
    GiveUp,
    NoResource,
    Invariant,
}

/// A request to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Send {
    /// SUBSCRIBE that makes a new dialog.
    Subscribe,
    /// SUBSCRIBE in the dialog.
    Refresh,
    /// SUBSCRIBE in the dialog, Expires 0.
    End,
    /// SUBSCRIBE in a new dialog, Expires 0.
    Fetch,
}

/// What the user hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// `subscribed` if he has not heard it, then what the document says, if there is one.
    Seen,
    /// What the document says, if there is one.
    Fetched,
    /// What was last seen, for who asks.
    Last,
    /// `unavailable`, if he has seen more.
    Offline,
    /// `unavailable`, if he has seen more, then `unsubscribed`.
    Refused,
    /// An error, then as [`Tell::Refused`].
    NoUser,
    /// `unsubscribed`, as he wished.
    Left,
}

/// When the next thing is due by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// As it was set before.
    #[default]
    Unchanged,
    /// An answer will come, or nothing.
    Nothing,
    /// Timer N.
    Notify,
    /// [`refresh_after`].
    Refresh,
    /// [`soon`]; what was seen stays until it is clear that nothing new comes.
    Soon,
    /// [`backoff`].
    Backoff,
    /// What the notifier asked for, or [`backoff`].
    RetryAfter,
    /// [`hold`].
    Hold,
    /// At the peer's pace.
    Paced,
}

/// What one input does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The state afterwards.
    pub next: State,
    /// The dialog is over, if there is one; comes before `send`.
    pub drop: bool,
    pub send: Option<Send>,
    pub tell: Option<Tell>,
    pub wait: Wait,
    /// An administrator should know.
    pub alarm: bool,
}

impl State {
    /// Advances by one input.
    pub fn handle(self, input: Input) -> Step {
        match input {
            Input::Wanted => self.wanted(),
            Input::Unwanted => self.unwanted(),
            Input::Probe => match self {
                Self::Idle | Self::Ended => {
                    Step::to(Self::Fetching).send(Send::Fetch).wait(Wait::Nothing)
                }
                _ => Step::to(self).tell(Tell::Last),
            },
            Input::Accepted => self.accepted(),
            Input::TooBrief
            | Input::Refused
            | Input::NoUser
            | Input::Unlisted
            | Input::Unfit
            | Input::Gone
            | Input::Trouble
            | Input::Lost => self.failed(input),
            Input::Notified(level) => self.notified(level),
            Input::Terminated(reason) => self.terminated(reason),
            Input::Silent => match self {
                // RFC 6665, 4.1.2.4: as a 408.
                Self::Accepted => Step::to(Self::BackingOff).drop().wait(Wait::Backoff),
                Self::Parting | Self::Fetching => Step::to(Self::Ended).drop(),
                _ => Step::to(self),
            },
            Input::Due => match self {
                Self::Standing(level) => {
                    Step::to(Self::Refreshing(level)).send(Send::Refresh).wait(Wait::Nothing)
                }
                Self::BackingOff | Self::Held => Self::begin(),
                _ => Step::to(self),
            },
            Input::Expired => match self {
                Self::Standing(_) | Self::Refreshing(_) => {
                    Step::to(Self::BackingOff).drop().tell(Tell::Offline).wait(Wait::Backoff)
                }
                // The dialog went before its time did.
                Self::Subscribing | Self::Accepted | Self::BackingOff | Self::Held => {
                    Step::to(self).tell(Tell::Offline)
                }
                _ => Step::to(self),
            },
            Input::PeerBack => match self {
                // It may have forgotten everything: the refresh will show.
                Self::Standing(_) | Self::BackingOff => Step::to(self).wait(Wait::Paced),
                _ => Step::to(self),
            },
        }
    }

    fn begin() -> Step {
        Step::to(Self::Subscribing).send(Send::Subscribe).wait(Wait::Nothing)
    }

    fn wanted(self) -> Step {
        match self {
            // An old dialog that is being ended is left to itself.
            Self::Fetching | Self::Ending | Self::Parting => Self::begin().drop(),
            Self::Idle | Self::Held | Self::Kept | Self::Ended => Self::begin(),
            Self::Leaving => Step::to(Self::Subscribing),
            Self::Standing(Level::Active) | Self::Refreshing(Level::Active) => {
                Step::to(self).tell(Tell::Seen)
            }
            _ => Step::to(self),
        }
    }

    fn unwanted(self) -> Step {
        match self {
            Self::Subscribing => Step::to(Self::Leaving),
            Self::Accepted | Self::Standing(_) | Self::Refreshing(_) => {
                Step::to(Self::Ending).send(Send::End).wait(Wait::Nothing)
            }
            Self::BackingOff | Self::Held | Self::Kept | Self::Fetching => {
                Step::to(Self::Ended).drop()
            }
            _ => Step::to(self),
        }
    }

    fn accepted(self) -> Step {
        match self {
            Self::Subscribing => Step::to(Self::Accepted).wait(Wait::Notify),
            Self::Refreshing(level) => Step::to(Self::Standing(level)).wait(Wait::Refresh),
            Self::Leaving => Step::to(Self::Ending).send(Send::End).wait(Wait::Nothing),
            // RFC 8048, 5.2.3.
            Self::Ending => Step::to(Self::Parting).tell(Tell::Left).wait(Wait::Notify),
            Self::Fetching => Step::to(self).wait(Wait::Notify),
            _ => Step::to(self),
        }
    }

    fn failed(self, how: Input) -> Step {
        match (self, how) {
            (Self::Subscribing, Input::TooBrief) => Self::begin(),
            (Self::Refreshing(level), Input::TooBrief) => {
                Step::to(Self::Refreshing(level)).send(Send::Refresh).wait(Wait::Nothing)
            }
            (Self::Subscribing | Self::Refreshing(_), Input::Refused) => {
                Step::to(Self::Ended).drop().tell(Tell::Refused)
            }
            (Self::Subscribing, Input::NoUser) => Step::to(Self::Ended).drop().tell(Tell::NoUser),
            (Self::Subscribing, Input::Unlisted | Input::Unfit) => {
                Step::to(Self::Held).drop().wait(Wait::Hold).alarm()
            }
            (Self::Subscribing, _) => Step::to(Self::BackingOff).drop().wait(Wait::Backoff),
            // A new SUBSCRIBE will show whether there is no such contact.
            (Self::Refreshing(_), Input::Gone | Input::NoUser) => {
                Step::to(Self::BackingOff).drop().wait(Wait::Backoff)
            }
            // RFC 6665, 4.1.2.2: it is good up to its expiry.
            (Self::Refreshing(level), Input::Unlisted | Input::Unfit) => {
                Step::to(Self::Standing(level)).wait(Wait::Backoff).alarm()
            }
            (Self::Refreshing(level), _) => Step::to(Self::Standing(level)).wait(Wait::Backoff),
            (Self::Leaving | Self::Ending | Self::Fetching, _) => Step::to(Self::Ended).drop(),
            _ => Step::to(self),
        }
    }

    fn notified(self, level: Level) -> Step {
        let step = match self {
            // RFC 6665, 4.4.1: the NOTIFY makes the dialog; the answer is still to come.
            Self::Subscribing => Step::to(Self::Refreshing(level)).wait(Wait::Nothing),
            Self::Accepted => Step::to(Self::Standing(level)).wait(Wait::Refresh),
            Self::Standing(_) => Step::to(Self::Standing(level)),
            Self::Refreshing(_) => Step::to(Self::Refreshing(level)),
            Self::Leaving => return Step::to(Self::Ending).send(Send::End).wait(Wait::Nothing),
            Self::Fetching if level == Level::Active => {
                return Step::to(Self::Ended).drop().tell(Tell::Fetched);
            }
            Self::Fetching => return Step::to(Self::Ended).drop(),
            _ => return Step::to(self),
        };
        // RFC 8048, 5.2.1: while it is pending the user hears nothing.
        if level == Level::Active { step.tell(Tell::Seen) } else { step }
    }

    fn terminated(self, reason: Reason) -> Step {
        match self {
            Self::Subscribing | Self::Accepted | Self::Standing(_) | Self::Refreshing(_) => {
                let again = Step::to(Self::BackingOff).drop();
                match reason {
                    Reason::Deactivated | Reason::Timeout => again.wait(Wait::Soon),
                    Reason::Probation | Reason::GiveUp => {
                        again.tell(Tell::Offline).wait(Wait::RetryAfter)
                    }
                    Reason::Rejected | Reason::NoResource => {
                        Step::to(Self::Ended).drop().tell(Tell::Refused)
                    }
                    Reason::Invariant => Step::to(Self::Kept).drop().wait(Wait::Nothing),
                }
            }
            Self::Ending => Step::to(Self::Ended).drop().tell(Tell::Left),
            Self::Leaving | Self::Parting => Step::to(Self::Ended).drop(),
            // RFC 8048, 7.2: with what the contact lets this user see.
            Self::Fetching => Step::to(Self::Ended).drop().tell(Tell::Fetched),
            _ => Step::to(self),
        }
    }
}

impl Step {
    fn to(next: State) -> Self {
        Self { next, drop: false, send: None, tell: None, wait: Wait::Unchanged, alarm: false }
    }

    fn drop(self) -> Self {
        Self { drop: true, ..self }
    }

    fn send(self, send: Send) -> Self {
        Self { send: Some(send), ..self }
    }

    fn tell(self, tell: Tell) -> Self {
        Self { tell: Some(tell), ..self }
    }

    fn wait(self, wait: Wait) -> Self {
        Self { wait, ..self }
    }

    fn alarm(self) -> Self {
        Self { alarm: true, ..self }
    }
}

impl Reason {
    /// As it stands in `Subscription-State`.
    pub fn read(text: Option<&[u8]>) -> Self {
        let is = |name: &str| text.is_some_and(|it| it.eq_ignore_ascii_case(name.as_bytes()));
        match () {
            () if is("deactivated") => Self::Deactivated,
            () if is("probation") => Self::Probation,
            () if is("rejected") => Self::Rejected,
            () if is("giveup") => Self::GiveUp,
            () if is("noresource") => Self::NoResource,
            () if is("invariant") => Self::Invariant,
            () => Self::Timeout,
        }
    }
}

/// What a final answer to a SUBSCRIBE means. `in_dialog`: it was a refresh, so some answers end the
/// dialog and no more. `lync`: a 403 may mean that the whole domain is not on their list.
///
/// Interworking of RFC 8048, 5.2.2 and RFC 6665, 4.1.2.2.
pub fn answer(status: u16, in_dialog: bool, lync: bool) -> Input {
    match status {
        200..=299 => Input::Accepted,
        423 => Input::TooBrief,
        403 if lync => Input::Unlisted,
        403 | 489 | 603 => Input::Refused,
        404 | 405 | 408 | 410 | 416 | 480..=485 | 501 | 604 if in_dialog => Input::Gone,
        // The contact's server can't tell of presence in a form that we read.
        406 => Input::Refused,
        404 | 410 | 604 => Input::NoUser,
        408 | 480 | 481 | 486 | 487 | 491 | 500 | 502..=504 | 580 | 600 => Input::Trouble,
        _ => Input::Unfit,
    }
}

/// The Expires to ask for, in seconds: spread, so that a restart of theirs is not followed by a storm
/// two hours later.
pub fn expires(lync: bool, dice: u64) -> u32 {
    if lync { LYNC_EXPIRES + below(dice, u64::from(LYNC_SPREAD) + 1) } else { EXPIRES }
}

/// When to refresh what was granted: after 85 to 90 % of it.
pub fn refresh_after(granted: Duration, dice: u64) -> Duration {
    granted * (850 + below(dice, 51)) / 1_000
}

/// How long to wait before the next try after so many failures in a row, at least one.
pub fn backoff(failures: u32, dice: u64) -> Duration {
    doubled(WATCH_BACKOFF_MIN, WATCH_BACKOFF_MAX, failures, dice)
}

/// The same where an administrator has to do something first.
pub fn hold(failures: u32, dice: u64) -> Duration {
    doubled(WATCH_HOLD_MIN, WATCH_HOLD_MAX, failures, dice)
}

/// A subscription that moved or ran out is made anew after this.
pub fn soon(dice: u64) -> Duration {
    Duration::from_millis(u64::from(below(dice, 5_001)))
}

/// Doubles with each failure, and is spread by a quarter.
fn doubled(least: Duration, most: Duration, failures: u32, dice: u64) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let whole = least.saturating_mul(factor).min(most);
    whole * (750 + below(dice, 251)) / 1_000
}

fn below(dice: u64, bound: u64) -> u32 {
    // The bounds are small.
    u32::try_from(dice % bound).unwrap_or_default()
}

/// RFC 6665, 4.1.2.4: timer N, 64 * T1.
pub const TIMER_N: Duration = Duration::from_secs(32);
/// RFC 3856, 6.4.
const EXPIRES: u32 = 3_600;
/// What Microsoft's servers grant each other, about.
const LYNC_EXPIRES: u32 = 7_200;
const LYNC_SPREAD: u32 = 600;

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
