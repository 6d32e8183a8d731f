//! What must outlive the process: accounts, their SCRAM keys, and what their homes keep.
//!
//! [`Store`] is the interface; SQLite stands behind it now and PostgreSQL will, with the same
//! tables. A write is answered only after its commit is on the disk. Passwords are never stored,
//! only what RFC 5802, 3 calls StoredKey and ServerKey.
//!
//! What is asked about one user's record is done in the order of the calls of [`Store::load`],
//! [`Store::commit`] and [`Store::fetch`]: a question takes its place when it is called, not when
//! its answer is awaited. Questions about others may overtake.
//!
//! Does **not** prepare addresses or passwords: what comes in is in normal form already. Has **no**
//! rules: what a change means was settled before it came.

mod accounts;
mod dialogs;
mod rows;
mod schema;
mod sqlite;

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

pub use sqlite::OpenFault;

use crate::address::Address;
use crate::home::dialogs::{DialogChange, DialogKey, DialogRow};
use crate::home::record::{Change, Fetch, Fetched, Record};
use crate::limits::STORE_BULK_MAX;
use crate::xmpp::sasl::scram::{Credentials, Hash};

/// What an account has for one hash. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    pub hash: Hash,
    pub credentials: Credentials,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({:?}, {} iterations)", self.hash, self.credentials.iterations)
    }
}

/// A new account, or an old one with its new keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Bare and in normal form.
    pub address: String,
    pub keys: Vec<Keys>,
}

/// One row of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    pub address: String,
    /// Microseconds since 1970-01-01 UTC.
    pub created: u64,
}

/// Why an operation was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is such an account already.
    Exists,
    /// There is no such account.
    Absent,
    /// Too much waits already; later it may work.
    Busy,
    /// The bulk is larger than `STORE_BULK_MAX`.
    TooMany,
    /// The store failed; the text is for the operator.
    Failed(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => write!(f, "there is such an account already"),
            Self::Absent => write!(f, "there is no such account"),
            Self::Busy => write!(f, "the store has too much to do; try again"),
            Self::TooMany => write!(f, "more than {STORE_BULK_MAX} accounts at once"),
            Self::Failed(text) => write!(f, "{text}"),
        }
    }
}

impl std::error::Error for Fault {}

/// Where an answer goes.
type Reply<T> = oneshot::Sender<Result<T, Fault>>;

/// An answer that is on its way. What was asked is done whether it is awaited or not.
#[derive(Debug)]
pub struct Asked<T>(Result<oneshot::Receiver<Result<T, Fault>>, Fault>);

impl<T> Future for Asked<T> {
    type Output = Result<T, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ok(answer) => Pin::new(answer)
                .poll(cx)
                .map(|it| it.unwrap_or_else(|_| Err(Fault::Failed("the store has ended".into())))),
            Err(fault) => Poll::Ready(Err(fault.clone())),
        }
    }
}

/// A question: served between commits; waits for none, unless it must see what is being committed.
enum Read {
    Credentials { address: String, hash: Hash, reply: Reply<Option<Credentials>> },
    Exists { address: String, reply: Reply<bool> },
    List { after: String, rows: usize, reply: Reply<Vec<AccountRow>> },
    Count { reply: Reply<u64> },
    Load { user: String, reply: Reply<Option<Box<Record>>> },
    Fetch { user: String, what: Fetch, reply: Reply<Fetched> },
    Dialogs { mine: Mine, after: DialogKey, count: u32, reply: Reply<Vec<DialogRow>> },
}

/// Which shard of how many asks: it gets what belongs to its own users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mine {
    pub shard: u16,
    pub shards: u16,
}

/// A change: answered when its transaction is committed.
enum Write {
    Add {
        account: Account,
        created: u64,
        reply: Reply<()>,
    },
    Passwd {
        account: Account,
        reply: Reply<()>,
    },
    Delete {
        address: String,
        reply: Reply<()>,
    },
    /// Those that exist are left alone; the answer says which were added.
    AddBulk {
        accounts: Vec<Account>,
        created: u64,
        reply: Reply<Vec<bool>>,
    },
    Commit {
        user: String,
        changes: Vec<Change>,
        reply: Reply<()>,
    },
    Keep {
        changes: Vec<DialogChange>,
        reply: Reply<()>,
    },
}

enum Job {
    Read(Read),
    Write(Write),
}

impl Job {
    /// What a change brings; the rest is small, and the queue's places bound it.
    fn octets(&self) -> usize {
        if let Self::Write(Write::Keep { changes, .. }) = self {
            return changes.iter().map(DialogChange::octets).sum();
        }
        let Self::Write(Write::Commit { changes, .. }) = self else { return 0 };
        let of = |change: &Change| match change {
            Change::PutItem(item) => {
                let groups: usize = item.groups.iter().map(|it| it.len()).sum();
                item.name.len() + groups + item.request.as_ref().map_or(0, |it| it.len())
            }
            Change::StoreMessage(message) => message.octets.len(),
            Change::Private { octets, .. } | Change::Vcard(Some(octets)) => octets.len(),
            Change::RemoveMessages(numbers) => size_of_val(numbers.as_slice()),
            Change::Last(last) => last.status.len(),
            _ => 0,
        };
        changes.iter().map(|it| size_of::<Change>() + of(it)).sum()
    }
}

impl Read {
    /// Whether it must see what `write`, which was asked for before, changes.
    fn follows(&self, write: &Write) -> bool {
        match self {
            Self::Load { user, .. } | Self::Fetch { user, .. } => write.concerns(user),
            // A dialog that is over must not come back.
            Self::Dialogs { .. } => matches!(write, Write::Keep { .. } | Write::Delete { .. }),
            _ => false,
        }
    }
}

impl Write {
    /// Whether it changes anything of `user`.
    fn concerns(&self, user: &str) -> bool {
        match self {
            Self::Add { account, .. } | Self::Passwd { account, .. } => account.address == user,
            Self::Delete { address, .. } => address == user,
            Self::AddBulk { accounts, .. } => accounts.iter().any(|it| it.address == user),
            Self::Commit { user: other, .. } => other == user,
            Self::Keep { .. } => false,
        }
    }
}

/// A handle; clones lead to the same store. The store ends, with everything accepted committed,
/// when the last handle is gone.
#[derive(Clone)]
pub struct Store {
    backend: Backend,
}

#[derive(Clone)]
enum Backend {
    Sqlite(sqlite::Queue),
}

impl Store {
    /// Opens or creates the SQLite file at `path` and starts its thread.
    pub fn open_sqlite(path: &Path) -> Result<Self, OpenFault> {
        Ok(Self { backend: Backend::Sqlite(sqlite::open(path)?) })
    }

    /// A word for status: which engine.
    pub fn engine(&self) -> &'static str {
        match self.backend {
            Backend::Sqlite(_) => "sqlite",
        }
    }

    /// Adds an account.
    pub async fn add(&self, account: Account, created: u64) -> Result<(), Fault> {
        self.write(|reply| Write::Add { account, created, reply }).await
    }

    /// Adds up to `STORE_BULK_MAX` accounts in one transaction; tells for each whether it is new.
    pub async fn add_bulk(&self, accounts: Vec<Account>, created: u64) -> Result<Vec<bool>, Fault> {
        if accounts.len() > STORE_BULK_MAX {
            return Err(Fault::TooMany);
        }
        self.write(|reply| Write::AddBulk { accounts, created, reply }).await
    }

    /// Replaces all keys of an account.
    pub async fn passwd(&self, account: Account) -> Result<(), Fault> {
        self.write(|reply| Write::Passwd { account, reply }).await
    }

    /// Removes an account with all that is kept for it.
    pub async fn delete(&self, address: String) -> Result<(), Fault> {
        self.write(|reply| Write::Delete { address, reply }).await
    }

    /// The keys of an account for one hash, if it has any.
    pub async fn credentials(
        &self,
        address: String,
        hash: Hash,
    ) -> Result<Option<Credentials>, Fault> {
        self.read(|reply| Read::Credentials { address, hash, reply }).await
    }

    /// Whether there is such an account.
    pub async fn exists(&self, address: String) -> Result<bool, Fault> {
        self.read(|reply| Read::Exists { address, reply }).await
    }

    /// The accounts behind `after` in order of address, `rows` at most; empty `after`: from the
    /// start.
    pub async fn list(&self, after: String, rows: usize) -> Result<Vec<AccountRow>, Fault> {
        self.read(|reply| Read::List { after, rows, reply }).await
    }

    /// How many accounts there are.
    pub async fn count(&self) -> Result<u64, Fault> {
        self.read(|reply| Read::Count { reply }).await
    }

    /// The record of a user, with every change that was asked for before; `None`: there is no such
    /// account.
    pub fn load(&self, user: &Address) -> Asked<Option<Box<Record>>> {
        let user = user.bare().to_owned();
        self.read(|reply| Read::Load { user, reply })
    }

    /// Keeps changes of a user: all of them or none, behind those that were asked for before.
    /// [`Fault::Absent`]: there is no such account (any more), and nothing was kept.
    pub fn commit(&self, user: &Address, changes: Vec<Change>) -> Asked<()> {
        let user = user.bare().to_owned();
        self.write(|reply| Write::Commit { user, changes, reply })
    }

    /// Something of a user that is not part of the record, with every change that was asked for
    /// before. Of messages fewer may come than were asked for, at least one if there is any: those
    /// behind [`STORE_FETCH_BYTES_MAX`](crate::limits::STORE_FETCH_BYTES_MAX) are left for the next
    /// time.
    pub fn fetch(&self, user: &Address, what: Fetch) -> Asked<Fetched> {
        let user = user.bare().to_owned();
        self.read(|reply| Read::Fetch { user, what, reply })
    }

    /// Keeps changes of dialogs, of any users: all of them or none, behind those that were asked for
    /// before.
    pub fn keep(&self, changes: Vec<DialogChange>) -> Asked<()> {
        self.write(|reply| Write::Keep { changes, reply })
    }

    /// The dialogs of a shard's users behind `after` in order of key, with every change that was
    /// asked for before. Fewer may come than were asked for, at least one if there is any.
    pub fn dialogs(
        &self,
        mine: Mine,
        after: Option<DialogKey>,
        count: u32,
    ) -> Asked<Vec<DialogRow>> {
        let after = after.unwrap_or_default();
        self.read(|reply| Read::Dialogs { mine, after, count, reply })
    }

    fn write<T>(&self, make: impl FnOnce(Reply<T>) -> Write) -> Asked<T> {
        self.ask(|reply| Job::Write(make(reply)))
    }

    fn read<T>(&self, make: impl FnOnce(Reply<T>) -> Read) -> Asked<T> {
        self.ask(|reply| Job::Read(make(reply)))
    }

    fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Job) -> Asked<T> {
        let (reply, answer) = oneshot::channel();
        let pushed = match &self.backend {
            Backend::Sqlite(queue) => queue.push(make(reply)),
        };
        Asked(pushed.map(|()| answer))
    }
}

/// The name of a hash as the tables hold it.
pub(crate) fn hash_name(hash: Hash) -> &'static str {
    match hash {
        Hash::Sha1 => "SHA-1",
        Hash::Sha256 => "SHA-256",
        Hash::Sha512 => "SHA-512",
    }
}

#[cfg(test)]
mod contract;
#[cfg(test)]
#[expect(clippy::print_stdout, reason = "a child process tells its parent how far it is")]
mod kills;
#[cfg(test)]
mod tests;
