//! What of a user must outlive the process, in the words that the home and the store share.
//!
//! A [`Record`] is what the store hands over when the user is needed; a [`Change`] is what the home
//! has decided and the store shall keep. The store has no rules: what a change means was settled
//! before it was asked for. All addresses are in normal form; those of users and contacts are bare.

use crate::address::Address;
use crate::home::subscription::State;
use crate::time::Wall;

/// A user as the store knows it. Messages, vCards and private data stay there until asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// In no particular order; one for each contact.
    pub items: Vec<Item>,
    /// Counts up with each change of a listed item (RFC 6121, 2.6).
    pub roster_version: u64,
    /// In no particular order.
    pub rules: Vec<(List, Address)>,
    /// When the last resource went, and what it said (XEP-0012, 4; RFC 6121, 4.7.2.2).
    pub last: Option<Last>,
    /// Messages that wait for the user.
    pub messages: u32,
    /// The number that the next stored message gets: above all that were ever given.
    pub next_message: u64,
}

/// A contact in the roster, or somebody whose request waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Bare.
    pub contact: Address,
    /// The user's clients see it. A mere request is kept without being listed (RFC 6121, A.1).
    pub listed: bool,
    /// Who sees whose presence.
    pub state: State,
    /// A request of the contact will be granted without asking (RFC 6121, 3.4).
    pub approved: bool,
    /// The user's name for it; empty: none.
    pub name: Box<str>,
    /// Sorted, none twice.
    pub groups: Box<[Box<str>]>,
    /// The contact's request as it came, while it is pending (RFC 6121, 3.1.3).
    pub request: Option<Box<[u8]>>,
    /// When the user's own request was last sent; zero: never.
    pub asked: Wall,
}

/// Which of a user's lists of persons and domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum List {
    /// XEP-0191.
    Blocked,
    /// They may see the user without asking.
    Allowed,
    /// They were denied politely: they see somebody who is offline.
    Denied,
}

/// When and how a user was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Last {
    pub at: Wall,
    /// The text of the last unavailable presence; may be empty.
    pub status: Box<str>,
}

/// A message that waits for its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Given by the home, counting up: the order of arrival.
    pub number: u64,
    /// When it was taken.
    pub at: Wall,
    /// The stanza as it goes to a client, `from` and `to` included.
    pub octets: Box<[u8]>,
}

/// One thing to be kept. Those that are committed together are there together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new item, or all of an old one.
    PutItem(Box<Item>),
    /// The item of this contact.
    RemoveItem(Address),
    RosterVersion(u64),
    AddRule(List, Address),
    RemoveRule(List, Address),
    Last(Last),
    StoreMessage(Message),
    /// By number; some may be gone already.
    RemoveMessages(Vec<u64>),
    /// XEP-0049, by the name of the element with its namespace, as `{namespace}name`.
    Private {
        name: Box<str>,
        octets: Box<[u8]>,
    },
    /// XEP-0054; `None` takes it away.
    Vcard(Option<Box<[u8]>>),
}

/// What is asked for when it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetch {
    Vcard,
    /// By the name of [`Change::Private`].
    Private(Box<str>),
    /// Those above `after`, the first `count` by number.
    Messages {
        after: u64,
        count: u32,
    },
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    Payload(Option<Box<[u8]>>),
    Messages(Vec<Message>),
}

/// The private element that lists the names of the user's others, one a line. No element of a client
/// has that name, since theirs begin with a brace.
pub const PRIVATE_NAMES: &str = "names";

impl List {
    /// In the order of their declaration.
    pub const ALL: [Self; 3] = [Self::Blocked, Self::Allowed, Self::Denied];

    /// As the store and `tandem ctl` call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Allowed => "allowed",
            Self::Denied => "denied",
        }
    }
}
