//! SIP dialogs of local users as they outlive the process.
//!
//! A dialog is known by its Call-ID and our tag. What it holds is encoded by whoever owns it, with
//! a version in front; here and in the store it is octets. Has **no** rules: when a dialog begins
//! and ends was settled before.

use crate::address::Address;
use crate::time::Wall;

/// `Call-ID local-tag`, with a single space between.
pub type DialogKey = Box<str>;

/// Whose state machine a dialog belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DialogKind {
    /// Somebody outside watches the user.
    Watched,
    /// The user watches somebody outside.
    Watch,
    /// A session of instant messages.
    Session,
}

impl DialogKind {
    /// All of them, by index.
    pub const ALL: [Self; 3] = [Self::Watched, Self::Watch, Self::Session];

    /// As the store has it.
    pub fn index(self) -> u8 {
        match self {
            Self::Watched => 0,
            Self::Watch => 1,
            Self::Session => 2,
        }
    }

    /// From the store.
    pub fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }
}

/// A dialog that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialogRow {
    pub key: DialogKey,
    /// The local user, bare.
    pub user: Address,
    pub kind: DialogKind,
    /// When it is over unless something happens.
    pub expires: Wall,
    /// Its owner's, with the version of the encoding in front.
    pub data: Box<[u8]>,
}

/// One change of what is kept. Those of one question are there together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialogChange {
    /// A new dialog, or a known one anew. Of a user without an account nothing is kept, which is no
    /// fault: he was removed, and his dialogs went with him.
    Put(Box<DialogRow>),
    /// It is over.
    Remove(DialogKey),
}

impl DialogChange {
    /// Which dialog.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(row) => &row.key,
            Self::Remove(key) => key,
        }
    }

    /// Octets in memory.
    pub fn octets(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Put(row) => size_of::<DialogRow>() + row.key.len() + row.data.len(),
                Self::Remove(key) => key.len(),
            }
    }
}
