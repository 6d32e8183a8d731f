//! What is carried: the neutral facts about a stanza on its way, the same for both wires.

use crate::stdx::Key;

/// The three kinds of stanza; the account is kept per kind (RFC 6120, 8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Pushed once, wants an outcome.
    Message,
    /// Newest state wins.
    Presence,
    /// Asked and answered.
    Iq,
}

impl Kind {
    /// In the order of [`Kind::index`].
    pub const ALL: [Self; 3] = [Self::Message, Self::Presence, Self::Iq];

    /// Dense, for tables of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The element's local name, which is also the metrics label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Presence => "presence",
            Self::Iq => "iq",
        }
    }

    /// The inverse of [`Kind::index`], for records of other shards.
    pub fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }
}

/// Whose account a stanza is on, carried with it to wherever it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The shard that took it.
    pub shard: u16,
    /// What was taken.
    pub kind: Kind,
    /// The managed stream of that shard it came on (XEP-0198); 0: its sender counts nothing.
    pub stream: u32,
    /// Its number on that stream.
    pub number: u32,
}

impl Origin {
    /// Stands for a shard where there is none: the message is in the store, and its row waits to hear
    /// that it was delivered. Its account is closed.
    const STORED: u16 = u16::MAX;

    /// Of a message that is handed out from the store; `row` names it on the shard that does so.
    pub fn stored(row: Key) -> Self {
        Self { shard: Self::STORED, kind: Kind::Message, stream: row.index, number: row.generation }
    }

    /// The row that [`Origin::stored`] named.
    pub fn row(self) -> Option<Key> {
        (self.shard == Self::STORED).then_some(Key { index: self.stream, generation: self.number })
    }

    /// The stream of messages that a SIP partner sent: their outcomes are what it is answered.
    const GATEWAY: u32 = u32::MAX;

    /// Of a message that a SIP partner waits for; `number` names it on the shard that took it.
    pub fn of_gateway(shard: u16, number: u32) -> Self {
        Self { shard, kind: Kind::Message, stream: Self::GATEWAY, number }
    }

    /// The number that [`Origin::of_gateway`] gave it.
    pub fn gateway(self) -> Option<u32> {
        (self.stream == Self::GATEWAY && self.shard != Self::STORED).then_some(self.number)
    }

    /// Of a sender that does not count what was handled.
    pub fn plain(shard: u16, kind: Kind) -> Self {
        Self { shard, kind, stream: 0, number: 0 }
    }
}

/// What a stanza of any kind means to routing, from its `type` (RFC 6121, 4.7.1, 5.2.2;
/// RFC 6120, 8.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Message `normal`, or a type unknown to us (RFC 6121, 5.2.2).
    Normal,
    Chat,
    Groupchat,
    Headline,
    /// Of any kind: never answered with an error (RFC 6120, 8.3.1).
    Error,
    /// Presence without type.
    Available,
    Unavailable,
    Probe,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    Get,
    Set,
    Result,
}

impl Purpose {
    /// In the order of [`Purpose::index`].
    pub const ALL: [Self; 15] = [
        Self::Normal,
        Self::Chat,
        Self::Groupchat,
        Self::Headline,
        Self::Error,
        Self::Available,
        Self::Unavailable,
        Self::Probe,
        Self::Subscribe,
        Self::Subscribed,
        Self::Unsubscribe,
        Self::Unsubscribed,
        Self::Get,
        Self::Set,
        Self::Result,
    ];

    /// Dense, for records of other shards.
    pub fn index(self) -> u8 {
        self as u8
    }

    /// The inverse of [`Purpose::index`].
    pub fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }

    /// Reads the `type` attribute; `None` where the standard knows no such type for the kind.
    pub fn read(kind: Kind, attribute: Option<&str>) -> Option<Self> {
        Some(match (kind, attribute) {
            (Kind::Message, Some("chat")) => Self::Chat,
            (Kind::Message, Some("groupchat")) => Self::Groupchat,
            (Kind::Message, Some("headline")) => Self::Headline,
            (_, Some("error")) => Self::Error,
            // RFC 6121, 5.2.2: an unknown type of message is treated as normal.
            (Kind::Message, _) => Self::Normal,
            (Kind::Presence, None) => Self::Available,
            (Kind::Presence, Some("unavailable")) => Self::Unavailable,
            (Kind::Presence, Some("probe")) => Self::Probe,
            (Kind::Presence, Some("subscribe")) => Self::Subscribe,
            (Kind::Presence, Some("subscribed")) => Self::Subscribed,
            (Kind::Presence, Some("unsubscribe")) => Self::Unsubscribe,
            (Kind::Presence, Some("unsubscribed")) => Self::Unsubscribed,
            (Kind::Iq, Some("get")) => Self::Get,
            (Kind::Iq, Some("set")) => Self::Set,
            (Kind::Iq, Some("result")) => Self::Result,
            (Kind::Presence | Kind::Iq, _) => return None,
        })
    }

    /// Presence that manages a subscription (RFC 6121, 3).
    pub fn is_subscription(self) -> bool {
        matches!(self, Self::Subscribe | Self::Subscribed | Self::Unsubscribe | Self::Unsubscribed)
    }

    /// An error about this stanza may be sent: it is neither an error nor the answer to an IQ,
    /// nor presence that only tells (RFC 6120, 8.3.1; RFC 6121, 8.5).
    pub fn answerable(self) -> bool {
        !matches!(
            self,
            Self::Error
                | Self::Result
                | Self::Available
                | Self::Unavailable
                | Self::Subscribed
                | Self::Unsubscribed
                | Self::Unsubscribe
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_inverse() {
        for (i, purpose) in Purpose::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(purpose.index()), i);
            assert_eq!(Purpose::from_index(purpose.index()), Some(purpose));
        }
        for kind in Kind::ALL {
            assert_eq!(Kind::from_index(u8::try_from(kind.index()).unwrap()), Some(kind));
        }
    }

    #[test]
    fn unknown_types_are_normal_messages_and_nothing_else() {
        assert_eq!(Purpose::read(Kind::Message, Some("shout")), Some(Purpose::Normal));
        assert_eq!(Purpose::read(Kind::Presence, Some("shout")), None);
        assert_eq!(Purpose::read(Kind::Iq, None), None);
    }
}
