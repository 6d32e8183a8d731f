//! SIP dialogs as rows.
//!
//! Each row has its user's slot beside his address, so that a shard that starts reads its own users'
//! dialogs without parsing the addresses of all others. Does **not** begin or end transactions.

use rusqlite::{Connection, params};

use super::Mine;
use super::rows::{address, integer, natural, unreadable};
use crate::address::Slot;
use crate::home::dialogs::{DialogChange, DialogKind, DialogRow};
use crate::limits::{STORE_DIALOGS_MAX, STORE_FETCH_BYTES_MAX};
use crate::route::shard_of;
use crate::time::Wall;

/// Makes the changes in their order.
pub(super) fn keep(connection: &Connection, changes: &[DialogChange]) -> rusqlite::Result<()> {
    for change in changes {
        match change {
            DialogChange::Put(row) => put(connection, row)?,
            DialogChange::Remove(key) => {
                connection
                    .prepare_cached("DELETE FROM dialogs WHERE dialog = ?1")?
                    .execute(params![key])?;
            }
        }
    }
    Ok(())
}

fn put(connection: &Connection, row: &DialogRow) -> rusqlite::Result<()> {
    // Without the account there is no row to select, and nothing is kept.
    connection
        .prepare_cached(
            "INSERT INTO dialogs (dialog, address, slot, kind, expires, octets)
             SELECT ?1, address, ?3, ?4, ?5, ?6 FROM accounts WHERE address = ?2
             ON CONFLICT (dialog) DO UPDATE SET
             address = excluded.address, slot = excluded.slot, kind = excluded.kind,
             expires = excluded.expires, octets = excluded.octets",
        )?
        .execute(params![
            row.key,
            row.user.bare(),
            row.user.slot().number(),
            row.kind.index(),
            integer(row.expires.0),
            row.data
        ])
        .map(drop)
}

/// The dialogs behind `after` in order of key of the users whose home is the shard that asks.
pub(super) fn page(
    connection: &Connection,
    mine: Mine,
    after: &str,
    count: u32,
) -> rusqlite::Result<Vec<DialogRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT dialog, slot, address, kind, expires, octets FROM dialogs
         WHERE dialog > ?1 ORDER BY dialog",
    )?;
    let mut rows = statement.query(params![after])?;
    let mut found = Vec::new();
    let (mut sum, most) = (0, count.min(STORE_DIALOGS_MAX) as usize);
    while let Some(row) = rows.next()? {
        let slot = Slot::new(row.get(1)?).ok_or_else(|| unreadable(1, "no slot"))?;
        if shard_of(slot, mine.shards) != mine.shard {
            continue;
        }
        let octets = row.get_ref(5)?.as_blob()?;
        sum += octets.len();
        if found.len() >= most || (sum > STORE_FETCH_BYTES_MAX && !found.is_empty()) {
            break;
        }
        let kind = DialogKind::from_index(row.get(3)?);
        found.push(DialogRow {
            key: row.get_ref(0)?.as_str()?.into(),
            user: address(row, 2)?,
            kind: kind.ok_or_else(|| unreadable(3, "an unknown kind"))?,
            expires: Wall(natural(row.get(4)?)),
            data: octets.into(),
        });
    }
    Ok(found)
}
