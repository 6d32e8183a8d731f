//! The tables, and how an older file becomes a newer one.
//!
//! Every version is a step from the one before it; a file runs the steps it lacks, each in its own
//! transaction together with its new number, so a crash between two leaves a whole version. A file
//! of a newer version is refused: what it means is not known here.
//!
//! The SQL is the subset that PostgreSQL shares but for two words, which its steps replace: `BLOB`
//! is spelled otherwise there, and `WITHOUT ROWID` has no equal. Columns avoid its reserved words.
//!
//! What a login reads as a whole (roster, rules) lies together by user, without a row number
//! between. Messages, vCards and private data are too large for that: their rows are appended, and
//! an index leads to them.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

/// Marks the file as ours (`PRAGMA application_id`): "tndm".
pub(super) const APPLICATION_ID: i32 = 0x746e_646d;

/// Step `n` leads from version `n` to `n + 1`.
const STEPS: [&str; 3] = [
    // 1: accounts and their SCRAM keys (RFC 5802, 3).
    "CREATE TABLE accounts (
        address TEXT NOT NULL PRIMARY KEY,
        created BIGINT NOT NULL
    );
    CREATE TABLE scram_keys (
        address TEXT NOT NULL REFERENCES accounts (address) ON DELETE CASCADE,
        hash TEXT NOT NULL,
        salt BLOB NOT NULL,
        iterations INTEGER NOT NULL,
        stored_key BLOB NOT NULL,
        server_key BLOB NOT NULL,
        PRIMARY KEY (address, hash)
    );",
    // 2: what a user's home keeps. `group_names` is a JSON array of texts, empty for none; `state`
    // is the index of `home::subscription::State`; moments are microseconds since 1970. The number 0
    // is no message's, so that all messages are above it.
    "ALTER TABLE accounts ADD COLUMN roster_version BIGINT NOT NULL DEFAULT 0;
    ALTER TABLE accounts ADD COLUMN next_message BIGINT NOT NULL DEFAULT 1;
    ALTER TABLE accounts ADD COLUMN last_at BIGINT;
    ALTER TABLE accounts ADD COLUMN last_status TEXT;
    CREATE TABLE roster_items (
        address TEXT NOT NULL REFERENCES accounts (address) ON DELETE CASCADE,
        contact TEXT NOT NULL,
        listed SMALLINT NOT NULL,
        state SMALLINT NOT NULL,
        approved SMALLINT NOT NULL,
        name TEXT NOT NULL,
        group_names TEXT NOT NULL,
        request BLOB,
        asked BIGINT NOT NULL,
        PRIMARY KEY (address, contact)
    ) WITHOUT ROWID;
    CREATE TABLE rules (
        address TEXT NOT NULL REFERENCES accounts (address) ON DELETE CASCADE,
        list TEXT NOT NULL,
        pattern TEXT NOT NULL,
        PRIMARY KEY (address, list, pattern)
    ) WITHOUT ROWID;
    CREATE TABLE messages (
        address TEXT NOT NULL REFERENCES accounts (address) ON DELETE CASCADE,
        number BIGINT NOT NULL,
        taken_at BIGINT NOT NULL,
        octets BLOB NOT NULL,
        PRIMARY KEY (address, number)
    );
    CREATE TABLE private_data (
        address TEXT NOT NULL REFERENCES accounts (address) ON DELETE CASCADE,
        name TEXT NOT NULL,
        octets BLOB NOT NULL,
        PRIMARY KEY (address, name)
    );
    CREATE TABLE vcards (
        address TEXT NOT NULL PRIMARY KEY REFERENCES accounts (address) ON DELETE CASCADE,
        octets BLOB NOT NULL
    );",
    // 3: SIP dialogs. `dialog` is Call-ID and our tag; `kind` is the index of
    // `home::dialogs::DialogKind`; `slot` is the slot of the address.
    "CREATE TABLE dialogs (
        dialog TEXT NOT NULL PRIMARY KEY,
        address TEXT NOT NULL REFERENCES accounts (address) ON DELETE CASCADE,
        slot INTEGER NOT NULL,
        kind SMALLINT NOT NULL,
        expires BIGINT NOT NULL,
        octets BLOB NOT NULL
    );
    CREATE INDEX dialogs_of ON dialogs (address);",
];

/// The version this program writes.
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// What stood in the way.
pub(super) enum Fault {
    /// The file is of this version, which is newer than ours.
    Newer(i64),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// The version of a file; 0 if nothing was ever written to it.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    let table: Option<i64> = connection
        .query_row(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_version'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    if table.is_none() {
        return Ok(0);
    }
    let found = connection
        .query_row("SELECT version FROM schema_version", [], |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or(0))
}

/// Brings the file to [`VERSION`]; returns the version it had.
pub(super) fn migrate(connection: &mut Connection) -> Result<i64, Fault> {
    let before = version(connection)?;
    if before > VERSION {
        return Err(Fault::Newer(before));
    }
    for (from, step) in (0i64..).zip(STEPS) {
        // Another process may have done the step meanwhile, so the version is read again under
        // the write lock.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if version(&transaction)? != from {
            continue;
        }
        transaction.execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL);
             DELETE FROM schema_version;",
        )?;
        transaction.execute_batch(step)?;
        transaction
            .execute("INSERT INTO schema_version (version) VALUES (?1)", params![from + 1])?;
        if from == 0 {
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        transaction.commit()?;
    }
    Ok(before)
}
