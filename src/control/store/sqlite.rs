//! The store in one SQLite file, on a thread of its own.
//!
//! WAL with `synchronous=FULL`: a commit that was answered survives a kill and a power cut (a disk
//! that lies about flushing may cost the last commits, never consistency). Writes that wait
//! together share one transaction and one flush, and are answered behind it; reads are answered
//! before the group in front of which they were found, so a login never waits for more than the
//! commit that runs. But a read of a record that the group changes takes its place in the group: it
//! sees what was asked for before it and is told after the commit, like those.
//!
//! Within a group each user's changes stand behind a savepoint of their own: what is wrong with
//! them is their fault alone. A fault of the file is everybody's.
//!
//! Does **not** keep a second process from opening the file; SQLite's locks keep it whole.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::{Fault, Job, Read, Reply, Write, accounts, dialogs, rows, schema};
use crate::control::notices::Fold;
use crate::limits::{
    STORE_BUSY_MS_MAX, STORE_GROUP_MAX, STORE_QUEUE_BYTES_MAX, STORE_QUEUE_MAX,
    STORE_STATEMENTS_MAX,
};
use crate::shard::Notice;

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
    /// Of all that was pushed and is not done.
    octets: Arc<AtomicUsize>,
}

/// The thread's end of it.
pub(super) struct Served {
    from: Receiver<Job>,
    octets: Arc<AtomicUsize>,
}

impl Queue {
    /// Both ends.
    pub(super) fn new() -> (Self, Served) {
        let (to, from) = sync_channel(STORE_QUEUE_MAX);
        let octets = Arc::new(AtomicUsize::new(0));
        (Self { to, octets: Arc::clone(&octets) }, Served { from, octets })
    }

    pub(super) fn push(&self, job: Job) -> Result<(), Fault> {
        let octets = job.octets();
        let before = self.octets.fetch_add(octets, Ordering::Relaxed);
        let sent = if before + octets <= STORE_QUEUE_BYTES_MAX {
            self.to.try_send(job).map_err(|error| match error {
                TrySendError::Full(_) => Fault::Busy,
                TrySendError::Disconnected(_) => Fault::Failed("the store has ended".into()),
            })
        } else {
            Err(Fault::Busy)
        };
        if sent.is_err() {
            self.octets.fetch_sub(octets, Ordering::Relaxed);
        }
        sent
    }
}

/// Opens the file, brings it to the present version, and starts the thread.
pub(super) fn open(path: &Path) -> Result<Queue, OpenFault> {
    let connection = connect(path)?;
    let (queue, served) = Queue::new();
    let thread = thread::Builder::new().name("tandem-store".into());
    let spawned = thread.spawn(move || serve(connection, &served));
    spawned.map_err(|error| OpenFault {
        path: path.into(),
        what: format!("its thread can't be started: {error}"),
        mend: "raise the limit of processes (ulimit -u, TasksMax)".into(),
    })?;
    Ok(queue)
}

pub(super) fn connect(path: &Path) -> Result<Connection, OpenFault> {
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
    connection.set_prepared_statement_cache_capacity(STORE_STATEMENTS_MAX);
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
pub(super) fn serve(mut connection: Connection, served: &Served) {
    let Served { from, octets } = served;
    let mut group = Vec::with_capacity(STORE_GROUP_MAX);
    let mut told = Fold::default();
    while let Ok(first) = from.recv() {
        let mut next = Some(first);
        // Reads count too: however many come, what waits for its commit gets it.
        let mut room = STORE_GROUP_MAX;
        let mut taken = 0;
        while let Some(job) = next.take() {
            taken += job.octets();
            match job {
                Job::Read(read) if !joins(&read, &group) => answer(&connection, read),
                job => group.push(job),
            }
            room -= 1;
            if room > 0 {
                next = from.try_recv().ok();
            }
        }
        if !group.is_empty()
            && let Err(fault) = commit(&mut connection, &mut group)
        {
            let fields = vec![("text", fault.to_string())];
            let notice = Notice { event: "store_commit_failed", fields };
            if let Some(line) = told.push(Instant::now(), notice) {
                tracing::error!("{line}");
            }
        }
        octets.fetch_sub(taken, Ordering::Relaxed);
    }
}

/// Whether a read must see what the group does.
fn joins(read: &Read, group: &[Job]) -> bool {
    group.iter().any(|it| matches!(it, Job::Write(write) if read.follows(write)))
}

/// An answer that waits for the commit.
type Pending = Box<dyn FnOnce(Option<&Fault>)>;

fn commit(connection: &mut Connection, group: &mut Vec<Job>) -> Result<(), Fault> {
    let mut pending: Vec<Pending> = Vec::with_capacity(group.len());
    let done = apply_all(connection, group, &mut pending).map_err(|error| failed(&error));
    // Whatever was not reached when the transaction failed hears the same.
    if let Err(fault) = &done {
        for job in group.drain(..) {
            refuse(job, fault);
        }
    }
    for it in pending {
        it(done.as_ref().err());
    }
    done
}

fn apply_all(
    connection: &mut Connection,
    group: &mut Vec<Job>,
    pending: &mut Vec<Pending>,
) -> rusqlite::Result<()> {
    // Dropped without commit it rolls back: then nobody of the group was told it is done.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for job in group.drain(..) {
        match job {
            Job::Write(write) => apply(&transaction, write, pending)?,
            Job::Read(Read::Load { user, reply }) => {
                let found = rows::load(&transaction, &user);
                defer(pending, reply, found.map_err(|error| failed(&error)));
            }
            Job::Read(Read::Fetch { user, what, reply }) => {
                let found = rows::fetch(&transaction, &user, &what);
                defer(pending, reply, found.map_err(|error| failed(&error)));
            }
            Job::Read(Read::Dialogs { mine, after, count, reply }) => {
                let found = dialogs::page(&transaction, mine, &after, count);
                defer(pending, reply, found.map_err(|error| failed(&error)));
            }
            // Follows no change, so never in a group.
            Job::Read(read) => answer(&transaction, read),
        }
    }
    transaction.commit()
}

fn apply(
    transaction: &Connection,
    write: Write,
    pending: &mut Vec<Pending>,
) -> rusqlite::Result<()> {
    match write {
        Write::Add { account, created, reply } => {
            let added = accounts::add(transaction, &account, created);
            pend(pending, reply, added.map(|new| if new { Ok(()) } else { Err(Fault::Exists) }))
        }
        Write::AddBulk { accounts, created, reply } => {
            let added: rusqlite::Result<Vec<bool>> =
                accounts.iter().map(|it| accounts::add(transaction, it, created)).collect();
            pend(pending, reply, added.map(Ok))
        }
        Write::Passwd { account, reply } => {
            pend(pending, reply, accounts::passwd(transaction, &account).map(found))
        }
        Write::Delete { address, reply } => {
            pend(pending, reply, accounts::delete(transaction, &address).map(found))
        }
        Write::Commit { user, changes, reply } => {
            let work = || rows::apply(transaction, &user, &changes).map(found);
            pend(pending, reply, apart(transaction, work))
        }
        Write::Keep { changes, reply } => {
            let work = || dialogs::keep(transaction, &changes).map(Ok);
            pend(pending, reply, apart(transaction, work))
        }
    }
}

/// All changes of one question or, if something is wrong with them, none.
fn apart(
    connection: &Connection,
    work: impl FnOnce() -> rusqlite::Result<Result<(), Fault>>,
) -> rusqlite::Result<Result<(), Fault>> {
    let say = |sql| connection.prepare_cached(sql)?.execute([]).map(drop);
    say("SAVEPOINT changes")?;
    let done = match work() {
        Ok(done) => done,
        // Some errors end the whole transaction; then nothing is left to roll back to.
        Err(error) if is_everybodys(&error) || connection.is_autocommit() => return Err(error),
        Err(error) => {
            say("ROLLBACK TO changes")?;
            Err(failed(&error))
        }
    };
    say("RELEASE changes")?;
    Ok(done)
}

/// Whether the file or the machine is at fault, not what was to be written.
fn is_everybodys(error: &rusqlite::Error) -> bool {
    let own = [
        ErrorCode::ConstraintViolation,
        ErrorCode::TooBig,
        ErrorCode::TypeMismatch,
        ErrorCode::ParameterOutOfRange,
    ];
    error.sqlite_error_code().is_some_and(|code| !own.contains(&code))
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
    defer(pending, reply, answer);
    error.map_or(Ok(()), Err)
}

/// Keeps an answer until the commit.
fn defer<T: 'static>(pending: &mut Vec<Pending>, reply: Reply<T>, answer: Result<T, Fault>) {
    pending.push(Box::new(move |fault| {
        // Who asked may be gone; the work is done all the same.
        drop(reply.send(fault.map_or(answer, |it| Err(it.clone()))));
    }));
}

fn refuse(job: Job, fault: &Fault) {
    let fault = fault.clone();
    match job {
        Job::Write(
            Write::Add { reply, .. }
            | Write::Passwd { reply, .. }
            | Write::Delete { reply, .. }
            | Write::Commit { reply, .. }
            | Write::Keep { reply, .. },
        ) => drop(reply.send(Err(fault))),
        Job::Write(Write::AddBulk { reply, .. }) => drop(reply.send(Err(fault))),
        Job::Read(Read::Load { reply, .. }) => drop(reply.send(Err(fault))),
        Job::Read(Read::Fetch { reply, .. }) => drop(reply.send(Err(fault))),
        Job::Read(Read::Dialogs { reply, .. }) => drop(reply.send(Err(fault))),
        // Never in a group.
        Job::Read(_) => {}
    }
}

fn failed(error: &rusqlite::Error) -> Fault {
    Fault::Failed(format!("store: {error}"))
}

fn answer(connection: &Connection, read: Read) {
    fn send<T>(reply: Reply<T>, outcome: rusqlite::Result<T>) {
        // Who asked may be gone.
        drop(reply.send(outcome.map_err(|error| failed(&error))));
    }
    match read {
        Read::Credentials { address, hash, reply } => {
            send(reply, accounts::credentials(connection, &address, hash));
        }
        Read::Exists { address, reply } => send(reply, accounts::exists(connection, &address)),
        Read::List { after, rows, reply } => send(reply, accounts::list(connection, &after, rows)),
        Read::Load { user, reply } => send(reply, rows::load(connection, &user)),
        Read::Fetch { user, what, reply } => send(reply, rows::fetch(connection, &user, &what)),
        Read::Dialogs { mine, after, count, reply } => {
            send(reply, dialogs::page(connection, mine, &after, count));
        }
        Read::Count { reply } => send(reply, accounts::count(connection)),
    }
}
