//! A user's record as rows, and its changes as statements.
//!
//! Every statement names the user first, so each finds its rows by one key; all go with the account
//! (`ON DELETE CASCADE`). What is read was in normal form when it was written: a row that can't be
//! read is a fault of the file, and the whole record is withheld rather than shown in part, since a
//! block that is lost would let somebody in.
//!
//! Does **not** begin or end transactions.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::address::Address;
use crate::home::record::{Change, Fetch, Fetched, Item, Last, List, Message, Record};
use crate::home::subscription::State;
use crate::limits::{STORE_FETCH_BYTES_MAX, STORE_MESSAGES_MAX};
use crate::time::Wall;

/// The record of a user; `None`: there is no such account.
pub(super) fn load(connection: &Connection, user: &str) -> rusqlite::Result<Option<Box<Record>>> {
    let found = connection
        .prepare_cached(
            "SELECT roster_version, next_message, last_at, last_status FROM accounts
             WHERE address = ?1",
        )?
        .query_row(params![user], |row| {
            let last = match row.get::<_, Option<i64>>(2)? {
                Some(at) => Some(Last { at: Wall(natural(at)), status: text(row, 3)? }),
                None => None,
            };
            Ok(Record {
                roster_version: natural(row.get(0)?),
                next_message: natural(row.get(1)?),
                last,
                ..Record::default()
            })
        })
        .optional()?;
    let Some(mut record) = found else { return Ok(None) };
    record.items = connection
        .prepare_cached(
            "SELECT contact, listed, state, approved, name, group_names, request, asked
             FROM roster_items WHERE address = ?1",
        )?
        .query_map(params![user], item)?
        .collect::<rusqlite::Result<_>>()?;
    record.rules = connection
        .prepare_cached("SELECT list, pattern FROM rules WHERE address = ?1")?
        .query_map(params![user], |row| {
            let name = row.get_ref(0)?.as_str()?;
            let list = List::ALL.into_iter().find(|it| it.name() == name);
            Ok((list.ok_or_else(|| unreadable(0, "an unknown list"))?, address(row, 1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    record.messages = connection
        .prepare_cached("SELECT count(*) FROM messages WHERE address = ?1")?
        .query_row(params![user], |row| row.get(0))?;
    Ok(Some(Box::new(record)))
}

fn item(row: &Row<'_>) -> rusqlite::Result<Item> {
    let groups = row.get_ref(5)?.as_str()?;
    let groups = if groups.is_empty() {
        Box::default()
    } else {
        serde_json::from_str(groups).map_err(|_| unreadable(5, "no list of groups"))?
    };
    Ok(Item {
        contact: address(row, 0)?,
        listed: row.get(1)?,
        state: State::from_index(row.get(2)?).ok_or_else(|| unreadable(2, "an unknown state"))?,
        approved: row.get(3)?,
        name: text(row, 4)?,
        groups,
        request: blob(row.get_ref(6)?.as_blob_or_null()?),
        asked: Wall(natural(row.get(7)?)),
    })
}

/// Something of a user that is not part of the record.
pub(super) fn fetch(
    connection: &Connection,
    user: &str,
    what: &Fetch,
) -> rusqlite::Result<Fetched> {
    let octets = |row: &Row<'_>| Ok(Box::from(row.get_ref(0)?.as_blob()?));
    Ok(match what {
        Fetch::Vcard => Fetched::Payload(
            connection
                .prepare_cached("SELECT octets FROM vcards WHERE address = ?1")?
                .query_row(params![user], octets)
                .optional()?,
        ),
        Fetch::Private(name) => Fetched::Payload(
            connection
                .prepare_cached("SELECT octets FROM private_data WHERE address = ?1 AND name = ?2")?
                .query_row(params![user, name], octets)
                .optional()?,
        ),
        Fetch::Messages { after, count } => {
            Fetched::Messages(messages(connection, user, *after, *count)?)
        }
    })
}

fn messages(
    connection: &Connection,
    user: &str,
    after: u64,
    count: u32,
) -> rusqlite::Result<Vec<Message>> {
    let mut statement = connection.prepare_cached(
        "SELECT number, taken_at, octets FROM messages WHERE address = ?1 AND number > ?2
         ORDER BY number LIMIT ?3",
    )?;
    let mut rows = statement.query(params![user, integer(after), count.min(STORE_MESSAGES_MAX)])?;
    let mut found = Vec::new();
    let mut sum = 0;
    while let Some(row) = rows.next()? {
        let octets = row.get_ref(2)?.as_blob()?;
        sum += octets.len();
        if sum > STORE_FETCH_BYTES_MAX && !found.is_empty() {
            break;
        }
        let (number, at) = (natural(row.get(0)?), Wall(natural(row.get(1)?)));
        found.push(Message { number, at, octets: octets.into() });
    }
    Ok(found)
}

/// Makes the changes in their order; false: there is no such account, and nothing was done.
pub(super) fn apply(
    connection: &Connection,
    user: &str,
    changes: &[Change],
) -> rusqlite::Result<bool> {
    let known = connection
        .prepare_cached("SELECT 1 FROM accounts WHERE address = ?1")?
        .exists(params![user])?;
    if known {
        for change in changes {
            apply_one(connection, user, change)?;
        }
    }
    Ok(known)
}

fn apply_one(connection: &Connection, user: &str, change: &Change) -> rusqlite::Result<()> {
    let prepared = |sql| connection.prepare_cached(sql);
    match change {
        Change::PutItem(item) => return put_item(connection, user, item),
        Change::StoreMessage(message) => return store_message(connection, user, message),
        Change::RemoveMessages(numbers) => {
            let mut delete = prepared("DELETE FROM messages WHERE address = ?1 AND number = ?2")?;
            for number in numbers {
                delete.execute(params![user, integer(*number)])?;
            }
            return Ok(());
        }
        Change::RemoveItem(contact) => {
            prepared("DELETE FROM roster_items WHERE address = ?1 AND contact = ?2")?
                .execute(params![user, contact.full()])
        }
        Change::RosterVersion(version) => {
            prepared("UPDATE accounts SET roster_version = ?2 WHERE address = ?1")?
                .execute(params![user, integer(*version)])
        }
        Change::AddRule(list, rule) => prepared(
            "INSERT INTO rules (address, list, pattern) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )?
        .execute(params![user, list.name(), rule.full()]),
        Change::RemoveRule(list, rule) => {
            prepared("DELETE FROM rules WHERE address = ?1 AND list = ?2 AND pattern = ?3")?
                .execute(params![user, list.name(), rule.full()])
        }
        Change::Last(last) => {
            prepared("UPDATE accounts SET last_at = ?2, last_status = ?3 WHERE address = ?1")?
                .execute(params![user, integer(last.at.0), last.status])
        }
        Change::Private { name, octets } => prepared(
            "INSERT INTO private_data (address, name, octets) VALUES (?1, ?2, ?3)
             ON CONFLICT (address, name) DO UPDATE SET octets = excluded.octets",
        )?
        .execute(params![user, name, octets]),
        Change::Vcard(Some(octets)) => prepared(
            "INSERT INTO vcards (address, octets) VALUES (?1, ?2)
             ON CONFLICT (address) DO UPDATE SET octets = excluded.octets",
        )?
        .execute(params![user, octets]),
        Change::Vcard(None) => {
            prepared("DELETE FROM vcards WHERE address = ?1")?.execute(params![user])
        }
    }
    .map(drop)
}

fn put_item(connection: &Connection, user: &str, item: &Item) -> rusqlite::Result<()> {
    let groups = if item.groups.is_empty() {
        String::new()
    } else {
        serde_json::to_string(&item.groups).map_err(|it| {
            // Texts always can be written as JSON.
            rusqlite::Error::ToSqlConversionFailure(Box::new(it))
        })?
    };
    connection
        .prepare_cached(
            "INSERT INTO roster_items
             (address, contact, listed, state, approved, name, group_names, request, asked)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (address, contact) DO UPDATE SET
             listed = excluded.listed, state = excluded.state, approved = excluded.approved,
             name = excluded.name, group_names = excluded.group_names,
             request = excluded.request, asked = excluded.asked",
        )?
        .execute(params![
            user,
            item.contact.full(),
            item.listed,
            item.state.index(),
            item.approved,
            item.name,
            groups,
            item.request,
            integer(item.asked.0)
        ])
        .map(drop)
}

/// A number that was given once is never given again, also when its message is gone; so a second
/// message of the same number is refused, not put in the place of the first.
fn store_message(connection: &Connection, user: &str, it: &Message) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO messages (address, number, taken_at, octets) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![user, integer(it.number), integer(it.at.0), it.octets])?;
    connection
        .prepare_cached(
            "UPDATE accounts SET next_message = ?2 WHERE address = ?1 AND next_message < ?2",
        )?
        .execute(params![user, integer(it.number.saturating_add(1))])?;
    Ok(())
}

/// As the tables hold it; nothing of ours counts so far.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn natural(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Box<str>> {
    Ok(row.get_ref(column)?.as_str_or_null()?.unwrap_or_default().into())
}

fn blob(octets: Option<&[u8]>) -> Option<Box<[u8]>> {
    octets.map(Box::from)
}

pub(super) fn address(row: &Row<'_>, column: usize) -> rusqlite::Result<Address> {
    Address::parse(row.get_ref(column)?.as_str()?)
        .map_err(|fault| unreadable(column, fault.reason()))
}

pub(super) fn unreadable(column: usize, what: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, what.into())
}
