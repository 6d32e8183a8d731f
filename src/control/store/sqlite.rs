//! The store in one SQLite file, on a thread of its own.
//!
//! WAL with `synchronous=FULL`: a commit that was answered survives a kill and a power cut (a disk
//! that lies about flushing may cost the last commits, never consistency). Writes that wait
//! together share one transaction and one flush, and are answered behind it; reads are answered
//! before the group in front of which they were found, so a login never waits for more than the
//! commit that runs.
//!
//! Does **not** keep a second process from opening the file; SQLite's locks keep it whole.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::{Account, AccountRow, Fault, Job, Read, Reply, Write, hash_name, schema};
use crate::limits::{STORE_BUSY_MS_MAX, STORE_GROUP_MAX, STORE_PAGE_MAX, STORE_QUEUE_MAX};
use crate::xmpp::sasl::scram::{Credentials, Hash, Keys};

/// Files up to this size are checked whole when they are opened; it takes some 0.1 s.
const CHECKED_BYTES: u64 = 64 << 20;

/// Why the file can't be used, told to the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFault {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

impl fmt::Display for OpenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store {}: {}; {}", self.path.display(), self.what, self.mend)
    }
}

impl std::error::Error for OpenFault {}

/// The way to the thread.
#[derive(Clone)]
pub(super) struct Queue {
    to: SyncSender<Job>,
}

impl Queue {
    pub(super) fn push(&self, job: Job) -> Result<(), Fault> {
        self.to.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Fault::Busy,
            TrySendError::Disconnected(_) => Fault::Failed("the store has ended".into()),
        })
    }
}

/// Opens the file, brings it to the present version, and starts the thread.
pub(super) fn open(path: &Path) -> Result<Queue, OpenFault> {
    let connection = connect(path)?;
    let (to, from) = sync_channel(STORE_QUEUE_MAX);
    let spawned =
        thread::Builder::new().name("tandem-store".into()).spawn(move || serve(connection, &from));
    spawned.map_err(|error| OpenFault {
        path: path.into(),
        what: format!("its thread can't be started: {error}"),
        mend: "raise the limit of processes (ulimit -u, TasksMax)".into(),
    })?;
    Ok(Queue { to })
}

fn connect(path: &Path) -> Result<Connection, OpenFault> {
    create(path).map_err(|error| creation_fault(path, &error))?;
    let fault = |error: rusqlite::Error| open_fault(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(fault)?;
    connection.busy_timeout(Duration::from_millis(STORE_BUSY_MS_MAX)).map_err(fault)?;
    let id: i32 =
        connection.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(fault)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .map_err(fault)?;
    if id != schema::APPLICATION_ID && (id != 0 || tables != 0) {
        return Err(OpenFault {
            path: path.into(),
            what: "this is another program's SQLite file".into(),
            mend: "name another path for the store".into(),
        });
    }
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(fault)?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(OpenFault {
            path: path.into(),
            what: format!("the file system does not take a write-ahead log (journal is {mode})"),
            mend: "put the store on a local disk, not on a network share".into(),
        });
    }
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
        .map_err(fault)?;
    check_whole(path, &connection)?;
    let before = schema::migrate(&mut connection).map_err(|error| match error {
        schema::Fault::Sqlite(error) => open_fault(path, &error),
        schema::Fault::Newer(found) => OpenFault {
            path: path.into(),
            what: format!(
                "it has schema version {found}, this program knows up to {}",
                schema::VERSION
            ),
            mend: "start the newer Tandem that wrote it, or restore the backup made before".into(),
        },
    })?;
    if before != schema::VERSION {
        tracing::info!(
            "event=store_migrated path={:?} from={before} to={}",
            path.display().to_string(),
            schema::VERSION
        );
    }
    Ok(connection)
}

/// Makes the file, if there is none, readable for its owner only: keys are secrets. SQLite gives
/// the log files beside it the same mode.
fn create(path: &Path) -> io::Result<()> {
    let made: io::Result<File> = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    made.map(drop)
}

fn creation_fault(path: &Path, error: &io::Error) -> OpenFault {
    let directory =
        path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let (what, mend) = match error.kind() {
        io::ErrorKind::NotFound => (
            format!("there is no directory {}", directory.display()),
            format!("make it: install -d -m 0750 {}", directory.display()),
        ),
        io::ErrorKind::PermissionDenied => (
            "this user may not write it".to_owned(),
            format!("give {} and the file to the user that runs tandem", directory.display()),
        ),
        io::ErrorKind::ReadOnlyFilesystem => (
            "its file system is read-only".to_owned(),
            "name a path on a disk that can be written".to_owned(),
        ),
        io::ErrorKind::IsADirectory => {
            ("it is a directory".to_owned(), "name a file inside it".to_owned())
        }
        _ => (error.to_string(), "look at the file and its directory".to_owned()),
    };
    OpenFault { path: path.into(), what, mend }
}

fn open_fault(path: &Path, error: &rusqlite::Error) -> OpenFault {
    let (what, mend) = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            ("this is no SQLite file", "name another path, or restore the file from a backup")
        }
        Some(ErrorCode::DatabaseCorrupt) => (
            "the file is damaged",
            "restore it from a backup, or save what is readable: sqlite3 FILE .recover",
        ),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => (
            "the file or its directory can't be written by this user",
            "give both to the user that runs tandem (SQLite keeps its log beside the file)",
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            ("another process holds the file", "end it; `fuser FILE` names it")
        }
        Some(ErrorCode::DiskFull) => ("the disk is full", "make room"),
        Some(ErrorCode::SystemIoFailure) => ("the disk reports errors", "look at the kernel's log"),
        _ => {
            return OpenFault {
                path: path.into(),
                what: error.to_string(),
                mend: "look at the file and its directory".into(),
            };
        }
    };
    OpenFault { path: path.into(), what: format!("{what} ({error})"), mend: mend.into() }
}

fn check_whole(path: &Path, connection: &Connection) -> Result<(), OpenFault> {
    if path.metadata().map_or(0, |it| it.len()) > CHECKED_BYTES {
        return Ok(());
    }
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| open_fault(path, &error))?;
    if found == "ok" {
        return Ok(());
    }
    Err(OpenFault {
        path: path.into(),
        what: format!("the file is damaged ({})", found.escape_debug()),
        mend: "restore it from a backup, or save what is readable: sqlite3 FILE .recover".into(),
    })
}

/// The thread: takes what waits, answers the reads, commits the writes together.
fn serve(mut connection: Connection, from: &Receiver<Job>) {
    let mut group = Vec::with_capacity(STORE_GROUP_MAX);
    while let Ok(first) = from.recv() {
        let mut next = Some(first);
        while let Some(job) = next.take() {
            match job {
                Job::Read(read) => answer(&connection, read),
                Job::Write(write) => group.push(write),
            }
            if group.len() < STORE_GROUP_MAX {
                next = from.try_recv().ok();
            }
        }
        if !group.is_empty() {
            commit(&mut connection, &mut group);
        }
    }
}

/// An answer that waits for the commit.
type Pending = Box<dyn FnOnce(Option<&Fault>)>;

fn commit(connection: &mut Connection, group: &mut Vec<Write>) {
    let mut pending: Vec<Pending> = Vec::with_capacity(group.len());
    let done = apply_all(connection, group, &mut pending);
    // Whatever was not reached when the transaction failed hears the same.
    let fault = done.err().map(|error| failed(&error));
    if let Some(fault) = &fault {
        tracing::error!("event=store_commit_failed text={:?}", fault.to_string());
        for write in group.drain(..) {
            refuse(write, fault);
        }
    }
    for it in pending {
        it(fault.as_ref());
    }
}

fn apply_all(
    connection: &mut Connection,
    group: &mut Vec<Write>,
    pending: &mut Vec<Pending>,
) -> rusqlite::Result<()> {
    // Dropped without commit it rolls back: then nobody of the group was told it is done.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for write in group.drain(..) {
        match write {
            Write::Add { account, created, reply } => {
                let added = add(&transaction, &account, created);
                pend(
                    pending,
                    reply,
                    added.map(|new| if new { Ok(()) } else { Err(Fault::Exists) }),
                )?;
            }
            Write::AddBulk { accounts, created, reply } => {
                let added: rusqlite::Result<Vec<bool>> =
                    accounts.iter().map(|it| add(&transaction, it, created)).collect();
                pend(pending, reply, added.map(Ok))?;
            }
            Write::Passwd { account, reply } => {
                pend(pending, reply, passwd(&transaction, &account).map(found))?;
            }
            Write::Delete { address, reply } => {
                pend(pending, reply, delete(&transaction, &address).map(found))?;
            }
        }
    }
    transaction.commit()
}

fn found(found: bool) -> Result<(), Fault> {
    if found { Ok(()) } else { Err(Fault::Absent) }
}

/// Notes the answer of one write; an error of SQLite is the whole group's.
fn pend<T: 'static>(
    pending: &mut Vec<Pending>,
    reply: Reply<T>,
    outcome: rusqlite::Result<Result<T, Fault>>,
) -> rusqlite::Result<()> {
    let (answer, error) = match outcome {
        Ok(answer) => (answer, None),
        Err(error) => (Err(failed(&error)), Some(error)),
    };
    pending.push(Box::new(move |fault| {
        // Who asked may be gone; the work is done all the same.
        drop(reply.send(fault.map_or(answer, |it| Err(it.clone()))));
    }));
    error.map_or(Ok(()), Err)
}

fn refuse(write: Write, fault: &Fault) {
    let fault = fault.clone();
    match write {
        Write::Add { reply, .. } | Write::Passwd { reply, .. } | Write::Delete { reply, .. } => {
            drop(reply.send(Err(fault)));
        }
        Write::AddBulk { reply, .. } => drop(reply.send(Err(fault))),
    }
}

fn failed(error: &rusqlite::Error) -> Fault {
    Fault::Failed(format!("store: {error}"))
}

fn add(connection: &Connection, account: &Account, created: u64) -> rusqlite::Result<bool> {
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

fn passwd(connection: &Connection, account: &Account) -> rusqlite::Result<bool> {
    if !exists(connection, &account.address)? {
        return Ok(false);
    }
    connection
        .prepare_cached("DELETE FROM scram_keys WHERE address = ?1")?
        .execute(params![account.address])?;
    insert_keys(connection, account)?;
    Ok(true)
}

fn delete(connection: &Connection, address: &str) -> rusqlite::Result<bool> {
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

fn answer(connection: &Connection, read: Read) {
    fn send<T>(reply: Reply<T>, outcome: rusqlite::Result<T>) {
        // Who asked may be gone.
        drop(reply.send(outcome.map_err(|error| failed(&error))));
    }
    match read {
        Read::Credentials { address, hash, reply } => {
            send(reply, credentials(connection, &address, hash));
        }
        Read::Exists { address, reply } => send(reply, exists(connection, &address)),
        Read::List { after, rows, reply } => send(reply, list(connection, &after, rows)),
        Read::Count { reply } => send(
            reply,
            connection
                .query_row("SELECT count(*) FROM accounts", [], |row| row.get::<_, i64>(0))
                .map(|it| u64::try_from(it).unwrap_or(0)),
        ),
    }
}

fn exists(connection: &Connection, address: &str) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM accounts WHERE address = ?1")?.exists(params![address])
}

fn credentials(
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

fn list(connection: &Connection, after: &str, rows: usize) -> rusqlite::Result<Vec<AccountRow>> {
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
