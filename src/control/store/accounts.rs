//! Accounts and their SCRAM keys as rows.
//!
//! Does **not** begin or end transactions.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Account, AccountRow, hash_name};
use crate::limits::STORE_PAGE_MAX;
use crate::xmpp::sasl::scram::{Credentials, Hash, Keys};

pub(super) fn add(
    connection: &Connection,
    account: &Account,
    created: u64,
) -> rusqlite::Result<bool> {
    let created = i64::try_from(created).unwrap_or(i64::MAX);
    let new = connection
        .prepare_cached(
            "INSERT INTO accounts (address, created) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )?
        .execute(params![account.address, created])?;
    if new == 1 {
        insert_keys(connection, account)?;
    }
    Ok(new == 1)
}

pub(super) fn passwd(connection: &Connection, account: &Account) -> rusqlite::Result<bool> {
    if !exists(connection, &account.address)? {
        return Ok(false);
    }
    connection
        .prepare_cached("DELETE FROM scram_keys WHERE address = ?1")?
        .execute(params![account.address])?;
    insert_keys(connection, account)?;
    Ok(true)
}

pub(super) fn delete(connection: &Connection, address: &str) -> rusqlite::Result<bool> {
    let gone = connection
        .prepare_cached("DELETE FROM accounts WHERE address = ?1")?
        .execute(params![address])?;
    Ok(gone == 1)
}

fn insert_keys(connection: &Connection, account: &Account) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO scram_keys (address, hash, salt, iterations, stored_key, server_key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for it in &account.keys {
        let Credentials { salt, iterations, keys } = &it.credentials;
        insert.execute(params![
            account.address,
            hash_name(it.hash),
            salt,
            iterations,
            keys.stored_key,
            keys.server_key
        ])?;
    }
    Ok(())
}

pub(super) fn exists(connection: &Connection, address: &str) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM accounts WHERE address = ?1")?.exists(params![address])
}

pub(super) fn credentials(
    connection: &Connection,
    address: &str,
    hash: Hash,
) -> rusqlite::Result<Option<Credentials>> {
    connection
        .prepare_cached(
            "SELECT salt, iterations, stored_key, server_key FROM scram_keys
             WHERE address = ?1 AND hash = ?2",
        )?
        .query_row(params![address, hash_name(hash)], |row| {
            Ok(Credentials {
                salt: row.get(0)?,
                iterations: row.get(1)?,
                keys: Keys { stored_key: row.get(2)?, server_key: row.get(3)? },
            })
        })
        .optional()
}

pub(super) fn list(
    connection: &Connection,
    after: &str,
    rows: usize,
) -> rusqlite::Result<Vec<AccountRow>> {
    let rows = i64::try_from(rows.min(STORE_PAGE_MAX)).unwrap_or(0);
    connection
        .prepare_cached(
            "SELECT address, created FROM accounts WHERE address > ?1 ORDER BY address LIMIT ?2",
        )?
        .query_map(params![after, rows], |row| {
            let created: i64 = row.get(1)?;
            Ok(AccountRow { address: row.get(0)?, created: u64::try_from(created).unwrap_or(0) })
        })?
        .collect()
}

pub(super) fn count(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT count(*) FROM accounts")?
        .query_row([], |row| row.get::<_, i64>(0))
        .map(|it| u64::try_from(it).unwrap_or(0))
}
