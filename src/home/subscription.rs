//! Who sees whose presence: the states of RFC 6121, A.1.

/// How far the subscriptions between a user and a contact are, seen from the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    #[default]
    None,
    /// The user's request is pending.
    NoneOut,
    /// The contact's request is pending.
    NoneIn,
    /// Both are.
    NoneBoth,
    /// The user sees the contact.
    To,
    ToIn,
    /// The contact sees the user.
    From,
    FromOut,
    Both,
}

impl State {
    /// In the order of [`State::index`].
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

    /// Dense; the store keeps it.
    pub fn index(self) -> u8 {
        self as u8
    }

    /// The inverse of [`State::index`].
    pub fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }

    /// The contact sees the user's presence.
    pub fn has_from(self) -> bool {
        matches!(self, Self::From | Self::FromOut | Self::Both)
    }

    /// The user sees the contact's presence.
    pub fn has_to(self) -> bool {
        matches!(self, Self::To | Self::ToIn | Self::Both)
    }
}
