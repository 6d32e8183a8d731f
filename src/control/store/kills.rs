//! Processes that write and are killed: what they said is kept is there, and nothing is there by
//! half.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::home::dialogs::DialogKind;
use crate::home::record::{Item, Message};
use crate::home::subscription::State;
use crate::time::Wall;
use crate::xmpp::sasl::scram;

/// How often.
const KILLS: usize = 20;
/// What a line on stdout begins with; the rest was committed.
const KEPT: &str = "KEPT ";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The store this process shall write to until it is killed; `None`: it is no such child.
fn to_write_to() -> Option<Store> {
    let path = std::env::var_os("TANDEM_STORE_CHILD")?;
    Some(Store::open_sqlite(Path::new(&path)).expect("opens"))
}

fn say(what: &str) {
    println!("{KEPT}{what}");
    std::io::stdout().flush().expect("the parent reads");
}

/// Runs the test `child` in a process, kills it after a few lines, and returns all of them.
fn run_and_kill(child: &str, path: &Path, round: usize) -> Vec<String> {
    let mut process = Command::new(std::env::current_exe().expect("has a path"))
        .args(["--exact", &format!("control::store::kills::{child}"), "--nocapture"])
        .env("TANDEM_STORE_CHILD", path)
        .env("TANDEM_STORE_ROUND", round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
    let mut kept = Vec::new();
    let take = |line: String, kept: &mut Vec<String>| {
        kept.extend(line.split_once(KEPT).map(|(_, what)| what.to_owned()));
    };
    // Differs by round, so that the kill meets different moments of a commit.
    while kept.len() < 3 + round * 5 % 37 {
        take(lines.next().expect("the child goes on").expect("text"), &mut kept);
    }
    process.kill().expect("is ours");
    process.wait().expect("ends");
    for line in lines.map_while(Result::ok) {
        take(line, &mut kept);
    }
    kept
}

/// Not a test by itself: the process that [`accounts_survive_a_kill`] kills.
#[test]
fn child_that_adds_accounts() {
    let Some(store) = to_write_to() else { return };
    let round = std::env::var("TANDEM_STORE_ROUND").unwrap();
    let account = |address: &str| {
        let keys = scram::Keys { stored_key: vec![1; 32], server_key: vec![2; 32] };
        let credentials = Credentials { salt: vec![3; 16], iterations: 4_096, keys };
        let keys = Hash::ALL.map(|hash| Keys { hash, credentials: credentials.clone() });
        Account { address: address.into(), keys: keys.into() }
    };
    runtime().block_on(async {
        for n in 0..1_000_000_u32 {
            let address = format!("r{round}n{n}@example.com");
            if n % 3 == 2 {
                let bulk = (0..5).map(|k| account(&format!("b{k}-{address}"))).collect();
                store.add_bulk(bulk, 0).await.unwrap();
                say(&format!("b4-{address}"));
            } else {
                store.add(account(&address), 0).await.unwrap();
                say(&address);
            }
        }
    });
}

#[test]
fn accounts_survive_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let kept: Vec<String> = (0..KILLS)
        .flat_map(|round| run_and_kill("child_that_adds_accounts", &path, round))
        .collect();
    assert!(kept.len() >= KILLS * 3);
    let store = Store::open_sqlite(&path).unwrap();
    runtime().block_on(async {
        for address in &kept {
            let keys = store.credentials(address.clone(), Hash::Sha512).await.unwrap();
            assert!(keys.is_some(), "{address} was acknowledged and is gone");
        }
    });
}

/// Users that write at once, so that commits share a group.
const USERS: usize = 8;
/// Steps whose items and messages a user has; older ones are removed.
const STEPS_HELD: u64 = 4;

fn writer(n: usize) -> Address {
    Address::parse(&format!("u{n}@example.com")).expect("an address")
}

fn contact(side: &str, step: u64) -> Address {
    Address::parse(&format!("{side}{step}@example.net")).expect("an address")
}

fn message(step: u64) -> Message {
    Message { number: step, at: Wall(step), octets: vec![step as u8; 700].into() }
}

/// One commit: two items and a message come, those of an older step go.
fn step(n: u64) -> Vec<Change> {
    let put = |side| {
        Change::PutItem(Box::new(Item {
            contact: contact(side, n),
            listed: true,
            state: State::Both,
            approved: false,
            name: "".into(),
            groups: [].into(),
            request: None,
            asked: Wall(n),
        }))
    };
    let mut changes = vec![put("a"), Change::StoreMessage(message(n)), put("b")];
    if let Some(old) = n.checked_sub(STEPS_HELD) {
        changes.push(Change::RemoveItem(contact("a", old)));
        changes.push(Change::RemoveMessages(vec![old]));
        changes.push(Change::RemoveItem(contact("b", old)));
    }
    changes.push(Change::RosterVersion(n));
    changes
}

/// Not a test by itself: the process that [`records_survive_a_kill_and_are_never_torn`] kills.
#[test]
fn child_that_changes_records() {
    let Some(store) = to_write_to() else { return };
    runtime().block_on(async {
        let mut writers = tokio::task::JoinSet::new();
        for n in 0..USERS {
            let store = store.clone();
            writers.spawn(async move {
                let user = writer(n);
                let account = Account { address: user.bare().to_owned(), keys: Vec::new() };
                // From the second round on it exists.
                drop(store.add(account, 0).await);
                // Goes on where the one before it was killed.
                let mut next = store.load(&user).await.unwrap().unwrap().next_message;
                loop {
                    store.commit(&user, step(next)).await.unwrap();
                    say(&format!("{n} {next}"));
                    next += 1;
                }
            });
        }
        writers.join_all().await;
    });
}

/// The last step that the store has of a user, which it must have whole.
async fn last_whole_step(store: &Store, n: usize) -> u64 {
    let user = writer(n);
    let Some(mut record) = store.load(&user).await.unwrap() else { return 0 };
    let last = record.next_message - 1;
    let held = (last + 1).saturating_sub(STEPS_HELD).max(1)..=last;
    let mut expected: Vec<Address> =
        held.clone().flat_map(|it| [contact("a", it), contact("b", it)]).collect();
    expected.sort();
    record.items.sort_by(|a, b| a.contact.cmp(&b.contact));
    let contacts: Vec<Address> = record.items.iter().map(|it| it.contact.clone()).collect();
    assert_eq!(contacts, expected, "{user} at step {last}");
    assert_eq!(record.roster_version, last);
    let fetched = store.fetch(&user, Fetch::Messages { after: 0, count: 99 }).await.unwrap();
    assert_eq!(fetched, Fetched::Messages(held.map(message).collect()));
    last
}

#[test]
fn records_survive_a_kill_and_are_never_torn() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let mut acknowledged = [0; USERS];
    for round in 0..KILLS {
        for line in run_and_kill("child_that_changes_records", &path, round) {
            let (n, step) = line.split_once(' ').unwrap();
            let (n, step): (usize, u64) = (n.parse().unwrap(), step.parse().unwrap());
            assert!(step > acknowledged[n], "{line} was acknowledged before");
            acknowledged[n] = step;
        }
        let store = Store::open_sqlite(&path).unwrap();
        runtime().block_on(async {
            for (n, step) in acknowledged.iter_mut().enumerate() {
                let last = last_whole_step(&store, n).await;
                // The commit that ran when it was killed may be there, unacknowledged.
                assert!((*step..=*step + 1).contains(&last), "{n}: {last} after {step}");
                *step = last;
            }
        });
    }
    assert!(acknowledged.iter().sum::<u64>() >= 20 * 3);
}

/// The key of a dialog: of the pair that a step brings, `side` is the one.
fn dialog(n: usize, side: &str, step: u64) -> DialogRow {
    DialogRow {
        key: format!("{n}-{step:08}@edge.example t1.{side}").into(),
        user: writer(n),
        kind: DialogKind::Watched,
        expires: Wall(step),
        data: vec![step as u8; 900].into(),
    }
}

/// One turn: a pair of dialogs comes, that of an older step goes.
fn turn(n: usize, step: u64) -> Vec<DialogChange> {
    let mut changes = Vec::new();
    for side in ["a", "b"] {
        changes.push(DialogChange::Put(Box::new(dialog(n, side, step))));
        if let Some(old) = step.checked_sub(STEPS_HELD) {
            changes.push(DialogChange::Remove(dialog(n, side, old).key));
        }
    }
    changes
}

const ALONE: Mine = Mine { shard: 0, shards: 1 };

/// The dialogs of a user, and the last step that brought some.
async fn dialogs_of(store: &Store, n: usize) -> (Vec<DialogRow>, u64) {
    let mut rows = store.dialogs(ALONE, None, 1_000).await.expect("no fault");
    rows.retain(|it| it.user == writer(n));
    let last = rows.iter().map(|it| it.expires.0).max().unwrap_or(0);
    (rows, last)
}

/// Not a test by itself: the process that [`dialogs_survive_a_kill_and_are_never_torn`] kills.
#[test]
fn child_that_keeps_dialogs() {
    let Some(store) = to_write_to() else { return };
    runtime().block_on(async {
        let mut writers = tokio::task::JoinSet::new();
        for n in 0..USERS {
            let store = store.clone();
            writers.spawn(async move {
                let account = Account { address: writer(n).bare().to_owned(), keys: Vec::new() };
                // From the second round on it exists.
                drop(store.add(account, 0).await);
                // Goes on where the one before it was killed.
                let mut next = dialogs_of(&store, n).await.1 + 1;
                loop {
                    store.keep(turn(n, next)).await.unwrap();
                    say(&format!("{n} {next}"));
                    next += 1;
                }
            });
        }
        writers.join_all().await;
    });
}

#[test]
fn dialogs_survive_a_kill_and_are_never_torn() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let mut acknowledged = [0; USERS];
    for round in 0..KILLS {
        for line in run_and_kill("child_that_keeps_dialogs", &path, round) {
            let (n, step) = line.split_once(' ').unwrap();
            let (n, step): (usize, u64) = (n.parse().unwrap(), step.parse().unwrap());
            assert!(step > acknowledged[n], "{line} was acknowledged before");
            acknowledged[n] = step;
        }
        let store = Store::open_sqlite(&path).unwrap();
        runtime().block_on(async {
            for (n, step) in acknowledged.iter_mut().enumerate() {
                let (rows, last) = dialogs_of(&store, n).await;
                // The turn that was under way when it was killed may be there, unacknowledged.
                assert!((*step..=*step + 1).contains(&last), "{n}: {last} after {step}");
                let held = (last + 1).saturating_sub(STEPS_HELD).max(1)..=last;
                let pair = |step| ["a", "b"].map(|side| dialog(n, side, step));
                assert_eq!(rows, held.flat_map(pair).collect::<Vec<_>>(), "{n} at step {last}");
                *step = last;
            }
        });
    }
    assert!(acknowledged.iter().sum::<u64>() >= 20 * 3);
}
