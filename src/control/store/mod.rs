//! What must outlive the process: accounts and their SCRAM keys.
//!
//! [`Store`] is the interface; SQLite stands behind it now and PostgreSQL will, with the same
//! tables. A write is answered only after its commit is on the disk. Passwords are never stored,
//! only what RFC 5802, 3 calls StoredKey and ServerKey.
//!
//! Does **not** prepare addresses or passwords: what comes in is in normal form already.

mod schema;
mod sqlite;

use std::fmt;
use std::path::Path;

use tokio::sync::oneshot;

pub use sqlite::OpenFault;

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

/// A question: served between commits, never waits for one behind it.
enum Read {
    Credentials { address: String, hash: Hash, reply: Reply<Option<Credentials>> },
    Exists { address: String, reply: Reply<bool> },
    List { after: String, rows: usize, reply: Reply<Vec<AccountRow>> },
    Count { reply: Reply<u64> },
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
}

enum Job {
    Read(Read),
    Write(Write),
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

    /// Removes an account with its keys.
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

    async fn write<T>(&self, make: impl FnOnce(Reply<T>) -> Write) -> Result<T, Fault> {
        self.ask(|reply| Job::Write(make(reply))).await
    }

    async fn read<T>(&self, make: impl FnOnce(Reply<T>) -> Read) -> Result<T, Fault> {
        self.ask(|reply| Job::Read(make(reply))).await
    }

    async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Job) -> Result<T, Fault> {
        let (reply, answer) = oneshot::channel();
        match &self.backend {
            Backend::Sqlite(queue) => queue.push(make(reply))?,
        }
        answer.await.unwrap_or_else(|_| Err(Fault::Failed("the store has ended".into())))
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
#[expect(clippy::print_stdout, reason = "a child process tells its parent how far it is")]
mod tests;
