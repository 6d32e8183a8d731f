//! Accounts as operators handle them: addresses and passwords as typed, refusals in words.

use super::node::{Node, wall};
use super::passwords;
use super::store::{self, Account};
use crate::address::Address;
use crate::limits::STORE_BULK_MAX;
use crate::shard::kernel::{Order, Unavailable};

/// Why an operation on an account was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs: one of a closed set.
    pub reason: &'static str,
    /// For people: what is wrong and how to mend it.
    pub text: String,
}

impl Refusal {
    pub(super) fn new(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

impl From<store::Fault> for Refusal {
    fn from(fault: store::Fault) -> Self {
        let reason = match fault {
            store::Fault::Exists => "exists",
            store::Fault::Absent => "absent",
            store::Fault::Busy => "busy",
            store::Fault::TooMany => "too_many",
            store::Fault::Failed(_) => "store_failed",
        };
        Self::new(reason, fault.to_string())
    }
}

/// What became of each user of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub added: usize,
    /// They existed; their passwords are as they were.
    pub existed: usize,
    /// Address as typed, and what is wrong.
    pub refused: Vec<(String, String)>,
}

impl Node {
    /// The address of a local user in normal form.
    pub(crate) fn local_user(&self, typed: &str) -> Result<Address, Refusal> {
        let address = Address::parse(typed).map_err(|fault| {
            Refusal::new("malformed", format!("{typed:?} is no address: {}", fault.reason()))
        })?;
        if address.local().is_none() || address.resource().is_some() {
            let text = format!("{typed:?} is no user's address; write user@domain");
            return Err(Refusal::new("malformed", text));
        }
        let settings = self.settings();
        if settings.domain(address.domain()).is_none() {
            let served: Vec<_> = settings.domains.iter().map(|it| it.name.as_str()).collect();
            let text = format!(
                "{} is not served here; served: {}",
                address.domain(),
                if served.is_empty() { "nothing".to_owned() } else { served.join(", ") }
            );
            return Err(Refusal::new("domain", text));
        }
        Ok(address)
    }

    async fn account(&self, address: &Address, password: String) -> Result<Account, Refusal> {
        let iterations = self.settings().scram_iterations;
        let derived =
            self.workers.passwords.run(move || passwords::derive_all(&password, iterations)).await;
        let keys = derived
            .map_err(|Unavailable| {
                Refusal::new("busy", "too many passwords are being hashed; try again")
            })?
            .map_err(|fault| Refusal::new("password", fault.text()))?;
        Ok(Account { address: address.bare().to_owned(), keys })
    }

    /// Adds a user; returns the normal form of the address.
    pub(crate) async fn add_user(&self, typed: &str, password: String) -> Result<Address, Refusal> {
        let address = self.local_user(typed)?;
        let account = self.account(&address, password).await?;
        self.store.add(account, wall().0).await?;
        Ok(address)
    }

    /// Sets a user's password and ends the streams that logged in with the old one.
    pub(crate) async fn set_password(
        &self,
        typed: &str,
        password: String,
    ) -> Result<Address, Refusal> {
        let address = self.local_user(typed)?;
        let account = self.account(&address, password).await?;
        self.store.passwd(account).await?;
        self.kick(&address);
        Ok(address)
    }

    /// Removes a user and ends the user's streams. Works for domains that are no longer served.
    pub(crate) async fn delete_user(&self, typed: &str) -> Result<Address, Refusal> {
        let address = Address::parse(typed).map_err(|fault| {
            Refusal::new("malformed", format!("{typed:?} is no address: {}", fault.reason()))
        })?;
        self.store.delete(address.bare().to_owned()).await?;
        self.kick(&address);
        Ok(address)
    }

    /// Adds many; those that can't be added are named and the others are added all the same.
    pub(crate) async fn import_users(
        &self,
        users: Vec<(String, String)>,
    ) -> Result<Imported, Refusal> {
        if users.len() > STORE_BULK_MAX {
            return Err(store::Fault::TooMany.into());
        }
        let mut imported = Imported::default();
        let mut accounts = Vec::with_capacity(users.len());
        for (typed, password) in users {
            // One at a time, so that logins find the workers free between two.
            let made = match self.local_user(&typed) {
                Ok(address) => self.account(&address, password).await,
                Err(refusal) => Err(refusal),
            };
            match made {
                Ok(account) => accounts.push(account),
                Err(refusal) => imported.refused.push((typed, refusal.text)),
            }
        }
        for new in self.store.add_bulk(accounts, wall().0).await? {
            if new {
                imported.added += 1;
            } else {
                imported.existed += 1;
            }
        }
        Ok(imported)
    }

    /// Ends a user's streams. Every shard is told: a stream that has logged in and not yet bound
    /// may still be at its edge.
    fn kick(&self, address: &Address) {
        let user = address.to_bare();
        self.order_all(|| Order::Kick { user: user.clone() });
    }
}
