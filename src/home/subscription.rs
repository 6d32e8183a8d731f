//! Who sees whose presence: the states of a subscription, and what each stanza does to them.
//!
//! RFC 6121, 3 and appendix A, for one user and one contact, seen from the user's server: nine
//! states, four stanzas, two directions, pre-approval (3.4), the removal of the roster item (2.5.2),
//! and the polite denial that stands in for `unsubscribed`. A `Step` says all that follows; nothing
//! is sent, stored or looked up here.
//!
//! Where the RFC leaves a choice: a pre-approval is spent by the request it answers, a contact that
//! asks again for what it has is answered and told the current presence, and a contact that was
//! denied politely stays so until the user approves of it. Does **not** bound anything.
//!
//! Table: `subscription.table`.

use crate::envelope::Purpose;

/// A subscription with its pending requests (RFC 6121, A.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// Neither sees the other.
    #[default]
    None,
    /// None + Pending Out: the user has asked.
    NoneOut,
    /// None + Pending In: the contact has asked.
    NoneIn,
    /// None + Pending Out+In: both have.
    NoneBoth,
    /// The user sees the contact.
    To,
    /// To + Pending In.
    ToIn,
    /// The contact sees the user.
    From,
    /// From + Pending Out.
    FromOut,
    /// Both see each other.
    Both,
}

/// The stanzas that manage a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Asks for the other's presence.
    Subscribe,
    /// Wants it no longer.
    Unsubscribe,
    /// Lets the other see, or will.
    Subscribed,
    /// Does so no longer, or never will.
    Unsubscribed,
}

/// How a user's *no* looks to the contact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Denial {
    /// As if the user said yes and were offline ever since.
    #[default]
    Polite,
    /// `unsubscribed`, as the RFC has it.
    Explicit,
}

/// All that decides about a stanza between a user and a contact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relation {
    /// The subscription; a contact without a roster item has `None`, or `NoneIn` if a request of it
    /// is kept.
    pub state: State,
    /// The user approved in advance: the item's flag, or an entry of the allow list.
    pub approved: bool,
    /// The user denied the contact politely: it believes that it sees an offline user.
    pub denied: bool,
}

/// What happens to the item's flag of pre-approval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approval {
    /// Nothing.
    #[default]
    Kept,
    /// RFC 6121, 3.4.2: noted.
    Set,
    /// Spent by the request it answered.
    Used,
    /// RFC 6121, 3.2: taken back.
    Cancelled,
}

/// What happens to the contact's place among the politely denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Denied {
    /// Nothing.
    #[default]
    Kept,
    /// It becomes one of them.
    Entered,
    /// It is one of them no longer.
    Left,
}

/// What else the contact hears of the user's presence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// Nothing.
    #[default]
    Nothing,
    /// The current presence of each available resource.
    Current,
    /// `unavailable` from each available resource; from the bare address if there is none.
    Unavailable,
    /// `unavailable` from the bare address, since the contact must not learn of resources.
    Offline,
}

/// What one stanza does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The state afterwards.
    pub next: State,
    /// The stanza goes on: the user's to the contact, the contact's to the user's resources.
    pub passed: bool,
    /// Sent to the contact's bare address in the name of the user's.
    pub reply: Option<Act>,
    /// What the contact hears beside it.
    pub presence: Presence,
    /// The flag of pre-approval.
    pub approval: Approval,
    /// The list of the politely denied.
    pub denied: Denied,
    /// The roster item looks different now: it is pushed, and made if there was none.
    pub push: bool,
}

/// What goes to the contact: see [`Step::to_contact`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The user's own stanza, as it came.
    Original,
    /// An empty presence stanza of this type, in the user's name.
    Reply(Act),
    /// See [`Presence::Current`].
    Current,
    /// See [`Presence::Unavailable`].
    Unavailable,
    /// See [`Presence::Offline`].
    Offline,
}

/// What the removal of a roster item sends to the contact (RFC 6121, 2.5.2), in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// `unsubscribe`.
    pub unsubscribe: bool,
    /// What a `subscription` that ends sends: `reply`, `presence` and `denied` count.
    pub step: Step,
}

impl State {
    /// All, in the order of `index`.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::NoneOut,
        Self::NoneIn,
        Self::NoneBoth,
        Self::To,
        Self::ToIn,
        Self::From,
        Self::FromOut,
        Self::Both,
    ];

    /// Dense, for the store.
    pub const fn index(self) -> u8 {
        self as u8
    }

    /// The inverse of [`State::index`].
    pub fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }

    /// The user sees the contact's presence.
    pub const fn has_to(self) -> bool {
        matches!(self, Self::To | Self::ToIn | Self::Both)
    }

    /// The contact sees the user's presence.
    pub const fn has_from(self) -> bool {
        matches!(self, Self::From | Self::FromOut | Self::Both)
    }

    /// The user's request has no answer yet.
    pub const fn pending_out(self) -> bool {
        matches!(self, Self::NoneOut | Self::NoneBoth | Self::FromOut)
    }

    /// The contact's request has no answer yet.
    pub const fn pending_in(self) -> bool {
        matches!(self, Self::NoneIn | Self::NoneBoth | Self::ToIn)
    }

    /// The item's attribute `subscription` (RFC 6121, 2.1.2.5).
    pub const fn subscription(self) -> &'static str {
        match self {
            Self::None | Self::NoneOut | Self::NoneIn | Self::NoneBoth => "none",
            Self::To | Self::ToIn => "to",
            Self::From | Self::FromOut => "from",
            Self::Both => "both",
        }
    }

    /// The item's attribute `ask` (RFC 6121, 2.1.2.2).
    pub const fn ask(self) -> Option<&'static str> {
        if self.pending_out() { Some("subscribe") } else { None }
    }

    /// The state with these halves: what the user sees of the contact, and the reverse.
    const fn of(to: Half, from: Half) -> Self {
        match (to, from) {
            (Half::No, Half::No) => Self::None,
            (Half::Asked, Half::No) => Self::NoneOut,
            (Half::No, Half::Asked) => Self::NoneIn,
            (Half::Asked, Half::Asked) => Self::NoneBoth,
            (Half::Yes, Half::No) => Self::To,
            (Half::Yes, Half::Asked) => Self::ToIn,
            (Half::No, Half::Yes) => Self::From,
            (Half::Asked, Half::Yes) => Self::FromOut,
            (Half::Yes, Half::Yes) => Self::Both,
        }
    }

    const fn to(self) -> Half {
        Half::of(self.has_to(), self.pending_out())
    }

    const fn from(self) -> Half {
        Half::of(self.has_from(), self.pending_in())
    }

    const fn with_to(self, to: Half) -> Self {
        Self::of(to, self.from())
    }

    /// The same with another answer to whether the contact sees the user.
    const fn with_from(self, from: Half) -> Self {
        Self::of(self.to(), from)
    }

    /// True if clients see the same of both: a request of the contact shows in no attribute.
    fn looks_like(self, other: Self) -> bool {
        self.subscription() == other.subscription() && self.ask() == other.ask()
    }
}

/// One direction of a subscription. Each of the four stanzas changes one half only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    No,
    Asked,
    Yes,
}

impl Half {
    const fn of(yes: bool, asked: bool) -> Self {
        match (yes, asked) {
            (true, _) => Self::Yes,
            (false, true) => Self::Asked,
            (false, false) => Self::No,
        }
    }
}

impl Act {
    /// All, in the order of the RFC's tables.
    pub const ALL: [Self; 4] =
        [Self::Subscribe, Self::Unsubscribe, Self::Subscribed, Self::Unsubscribed];

    /// What a presence stanza of this purpose does to a subscription, if anything.
    pub const fn of(purpose: Purpose) -> Option<Self> {
        match purpose {
            Purpose::Subscribe => Some(Self::Subscribe),
            Purpose::Unsubscribe => Some(Self::Unsubscribe),
            Purpose::Subscribed => Some(Self::Subscribed),
            Purpose::Unsubscribed => Some(Self::Unsubscribed),
            _ => None,
        }
    }

    /// The purpose of the stanza.
    pub const fn purpose(self) -> Purpose {
        match self {
            Self::Subscribe => Purpose::Subscribe,
            Self::Unsubscribe => Purpose::Unsubscribe,
            Self::Subscribed => Purpose::Subscribed,
            Self::Unsubscribed => Purpose::Unsubscribed,
        }
    }

    /// The stanza's attribute `type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Subscribed => "subscribed",
            Self::Unsubscribed => "unsubscribed",
        }
    }
}

impl Relation {
    /// The user sends `act` to the contact (RFC 6121, A.2).
    ///
    /// A caller whose list of denied contacts is full passes `Explicit`.
    pub fn user_sends(self, act: Act, style: Denial) -> Step {
        let step = self.unchanged();
        let step = match act {
            // A.2.1: always routed, since the contact's server may have lost what it had.
            Act::Subscribe => {
                let to = if self.state.has_to() { Half::Yes } else { Half::Asked };
                Step { next: self.state.with_to(to), passed: true, ..step }
            }
            // A.2.2.
            Act::Unsubscribe => Step { next: self.state.with_to(Half::No), passed: true, ..step },
            Act::Subscribed => self.approves(),
            Act::Unsubscribed => self.denies(style),
        };
        self.pushing(step)
    }

    /// A.2.3 and 3.4.2.
    fn approves(self) -> Step {
        let step = self.unchanged();
        match self.state.from() {
            Half::Yes => step,
            // One that was denied politely will not ask again: for it the approval came long ago.
            Half::No if !self.denied => Step {
                approval: if self.approved { Approval::Kept } else { Approval::Set },
                ..step
            },
            Half::Asked | Half::No => Step {
                next: self.state.with_from(Half::Yes),
                passed: true,
                presence: Presence::Current,
                approval: if self.approved { Approval::Used } else { Approval::Kept },
                denied: if self.denied { Denied::Left } else { Denied::Kept },
                ..step
            },
        }
    }

    /// A.2.4: a denial, a withdrawal, or the end of a pre-approval.
    fn denies(self, style: Denial) -> Step {
        let approval = if self.approved { Approval::Cancelled } else { Approval::Kept };
        let step = Step { next: self.state.with_from(Half::No), approval, ..self.unchanged() };
        let polite = style == Denial::Polite;
        let denied = if polite { Denied::Entered } else { Denied::Kept };
        match self.state.from() {
            Half::No => step,
            Half::Asked if polite => {
                Step { reply: Some(Act::Subscribed), presence: Presence::Offline, denied, ..step }
            }
            Half::Asked => Step { passed: true, ..step },
            Half::Yes => Step { passed: !polite, presence: Presence::Unavailable, denied, ..step },
        }
    }

    /// The contact sends `act` to the user (RFC 6121, A.3).
    pub fn contact_sends(self, act: Act) -> Step {
        let step = self.unchanged();
        let step = match act {
            Act::Subscribe => self.is_asked(),
            // A.3.2 and 3.3.3.
            Act::Unsubscribe => match self.state.from() {
                Half::No if self.denied => Step { reply: Some(Act::Unsubscribed), ..step },
                Half::No => step,
                from => Step {
                    next: self.state.with_from(Half::No),
                    passed: true,
                    reply: Some(Act::Unsubscribed),
                    presence: match from {
                        Half::Yes => Presence::Unavailable,
                        _ => Presence::Nothing,
                    },
                    ..step
                },
            },
            // A.3.3: only an answer to a question.
            Act::Subscribed if self.state.pending_out() => {
                Step { next: self.state.with_to(Half::Yes), passed: true, ..step }
            }
            // A.3.4.
            Act::Unsubscribed if self.state.pending_out() || self.state.has_to() => {
                Step { next: self.state.with_to(Half::No), passed: true, ..step }
            }
            Act::Subscribed | Act::Unsubscribed => step,
        };
        self.pushing(step)
    }

    /// A.3.1 and 3.1.3.
    fn is_asked(self) -> Step {
        let step = self.unchanged();
        let yes = Step { reply: Some(Act::Subscribed), presence: Presence::Current, ..step };
        match self.state.from() {
            // It has forgotten that it has it.
            Half::Yes => yes,
            _ if self.denied => Step { presence: Presence::Offline, ..yes },
            _ if self.approved => {
                Step { next: self.state.with_from(Half::Yes), approval: Approval::Used, ..yes }
            }
            // The request is kept and repeated at each login as it is.
            Half::Asked => step,
            Half::No => Step { next: self.state.with_from(Half::Asked), passed: true, ..step },
        }
    }

    /// The user removes the roster item (RFC 6121, 2.5.2).
    pub fn user_removes(self, style: Denial) -> Removal {
        let mut step = self.denies(style);
        if step.passed {
            // There is no stanza of the user's that could be passed on.
            (step.passed, step.reply) = (false, Some(Act::Unsubscribed));
        }
        (step.next, step.push) = (State::None, true);
        Removal { unsubscribe: self.state.has_to() || self.state.pending_out(), step }
    }

    /// What a probe of the contact is answered with, if its subscription decides it (RFC 6121,
    /// 4.3.2, rule 1): `Current` for one that may see, `Unavailable` being part of it.
    pub fn contact_probes(self) -> Step {
        let step = self.unchanged();
        match self.state.from() {
            Half::Yes => Step { presence: Presence::Current, ..step },
            _ if self.denied => Step { presence: Presence::Offline, ..step },
            _ => Step { reply: Some(Act::Unsubscribed), ..step },
        }
    }

    fn unchanged(self) -> Step {
        Step { next: self.state, ..Step::default() }
    }

    fn pushing(self, step: Step) -> Step {
        let flag = match step.approval {
            Approval::Kept => false,
            Approval::Set | Approval::Used | Approval::Cancelled => true,
        };
        Step { push: flag || !self.state.looks_like(step.next), ..step }
    }
}

impl Step {
    /// What goes to the contact, in its order; `from_user`: the stanza was the user's.
    ///
    /// Presence comes behind the word that lets the contact see it and before the word that ends it.
    /// On the user's own side: a stanza of the contact's is delivered before the push (RFC 6121,
    /// 3.1.6); a stanza of the user's is pushed before it goes on.
    pub fn to_contact(&self, from_user: bool) -> impl Iterator<Item = Notice> {
        let word = match self.reply {
            Some(act) => Some(Notice::Reply(act)),
            None => (self.passed && from_user).then_some(Notice::Original),
        };
        let [first, second] = match self.presence {
            Presence::Nothing => [word, None],
            Presence::Current => [word, Some(Notice::Current)],
            Presence::Offline => [word, Some(Notice::Offline)],
            Presence::Unavailable => [Some(Notice::Unavailable), word],
        };
        first.into_iter().chain(second)
    }

    /// A request of the contact's has come that must be kept until it is answered.
    pub fn keeps_request(&self, before: State) -> bool {
        self.next.pending_in() && !before.pending_in()
    }

    /// The request that was kept is answered or taken back.
    pub fn drops_request(&self, before: State) -> bool {
        before.pending_in() && !self.next.pending_in()
    }
}

#[cfg(test)]
#[path = "subscription_tests.rs"]
mod tests;
