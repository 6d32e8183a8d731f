//! The words of the control socket: one JSON object a line, a request up, an answer down.
//!
//! `{"op":"user_add","address":"juliet@example.com","password":"…"}` is answered
//! `{"schema":1,"ok":true,"result":{…}}` or
//! `{"schema":1,"ok":false,"error":{"reason":"exists","text":"…"}}`. Any number of requests may
//! follow each other on one connection; each is answered before the next is read.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of all results. Fields may be added within one version, never changed.
pub const SCHEMA: u32 = 1;

/// Rows of a list when nobody says how many.
pub const ROWS: usize = 100;

fn rows() -> usize {
    ROWS
}

/// Something nobody prints.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// How the node is.
    Status,
    /// Makes an account.
    UserAdd { address: String, password: Secret },
    /// Sets a password and ends the user's streams.
    UserPasswd { address: String, password: Secret },
    /// Removes an account and ends the user's streams.
    UserDelete { address: String },
    /// Accounts in order of address, from behind `after`.
    UserList {
        #[serde(default)]
        after: String,
        #[serde(default = "rows")]
        limit: usize,
    },
    /// Makes many accounts; at most `STORE_BULK_MAX` in one request.
    UserImport { users: Vec<(String, Secret)> },
    /// Lets a person or a domain see a user without asking.
    UserAllow { address: String, pattern: String },
    /// Blocks a person or a domain for a user (XEP-0191).
    UserBlock { address: String, pattern: String },
    /// Takes a person or a domain off all lists of a user.
    UserUnlist { address: String, pattern: String },
    /// Whom a user has blocked, allowed or denied, from behind `after`, which is a `next` of the
    /// answer before.
    UserLists {
        address: String,
        #[serde(default)]
        after: String,
        #[serde(default = "rows")]
        limit: usize,
    },
    /// A user's contacts in order of address, from behind `after`.
    UserRoster {
        address: String,
        #[serde(default)]
        after: String,
        #[serde(default = "rows")]
        limit: usize,
    },
    /// Served domains, and the rules for others.
    Domains,
    /// The streams that stand.
    Streams {
        #[serde(default = "rows")]
        limit: usize,
    },
    /// Reads the configuration anew.
    Reload,
    /// Stops the node in order; a second one, at once.
    Stop,
}

impl Request {
    /// Its word on the wire.
    pub fn op(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::UserAdd { .. } => "user_add",
            Self::UserPasswd { .. } => "user_passwd",
            Self::UserDelete { .. } => "user_delete",
            Self::UserList { .. } => "user_list",
            Self::UserImport { .. } => "user_import",
            Self::UserAllow { .. } => "user_allow",
            Self::UserBlock { .. } => "user_block",
            Self::UserUnlist { .. } => "user_unlist",
            Self::UserLists { .. } => "user_lists",
            Self::UserRoster { .. } => "user_roster",
            Self::Domains => "domains",
            Self::Streams { .. } => "streams",
            Self::Reload => "reload",
            Self::Stop => "stop",
        }
    }

    /// Whether it changes something, so that it goes into the audit log.
    pub fn changes(&self) -> bool {
        !matches!(
            self,
            Self::Status
                | Self::UserList { .. }
                | Self::UserLists { .. }
                | Self::UserRoster { .. }
                | Self::Domains
                | Self::Streams { .. }
        )
    }
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For programs: `malformed`, `exists`, `absent`, `domain`, `password`, `busy`, `too_many`,
    /// `store_failed`, `config`, `refused`, `unavailable`.
    pub reason: String,
    /// For people.
    pub text: String,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    pub schema: u32,
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub result: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Refused>,
}

impl Response {
    /// It was done.
    pub fn done(result: Value) -> Self {
        Self { schema: SCHEMA, ok: true, result, error: None }
    }

    /// It was not done.
    pub fn refused(reason: &str, text: impl Into<String>) -> Self {
        let error = Refused { reason: reason.into(), text: text.into() };
        Self { schema: SCHEMA, ok: false, result: Value::Null, error: Some(error) }
    }
}
