//! The store on real files: what was answered is there, and what is wrong is said plainly.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::limits::{STORE_QUEUE_BYTES_MAX, STORE_QUEUE_MAX};
use crate::xmpp::sasl::scram;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn keys(hash: Hash, seed: u8) -> Keys {
    let keys = scram::Keys { stored_key: vec![seed ^ 1; 32], server_key: vec![seed ^ 2; 32] };
    Keys { hash, credentials: Credentials { salt: vec![seed; 16], iterations: 4_096, keys } }
}

fn account(address: &str, seed: u8) -> Account {
    Account { address: address.into(), keys: Hash::ALL.map(|hash| keys(hash, seed)).into() }
}

fn open(directory: &TempDir) -> Store {
    Store::open_sqlite(&directory.path().join("t.db")).expect("opens")
}

#[test]
fn accounts_live_and_die() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    runtime().block_on(async {
        let romeo = "romeo@example.com";
        assert_eq!(store.exists(romeo.into()).await, Ok(false));
        assert_eq!(store.add(account(romeo, 1), 77).await, Ok(()));
        assert_eq!(store.add(account(romeo, 2), 78).await, Err(Fault::Exists));
        for hash in Hash::ALL {
            let found = store.credentials(romeo.into(), hash).await.unwrap();
            assert!(found == Some(keys(hash, 1).credentials));
        }
        assert_eq!(store.passwd(account(romeo, 3)).await, Ok(()));
        let new = store.credentials(romeo.into(), Hash::Sha1).await.unwrap();
        assert!(new == Some(keys(Hash::Sha1, 3).credentials));
        assert_eq!(store.passwd(account("nobody@example.com", 3)).await, Err(Fault::Absent));
        assert_eq!(store.delete(romeo.into()).await, Ok(()));
        assert_eq!(store.delete(romeo.into()).await, Err(Fault::Absent));
        assert!(store.credentials(romeo.into(), Hash::Sha1).await.unwrap().is_none());
        assert_eq!(store.count().await, Ok(0));
    });
    let mode = fs::metadata(directory.path().join("t.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn lists_come_in_pages() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    runtime().block_on(async {
        let many: Vec<_> = (0..25).map(|n| account(&format!("u{n:02}@example.com"), 1)).collect();
        assert_eq!(store.add(many[7].clone(), 1).await, Ok(()));
        let new = store.add_bulk(many, 5).await.unwrap();
        assert_eq!(new.iter().filter(|it| !**it).count(), 1);
        assert!(!new[7]);
        let mut seen = Vec::new();
        let mut after = String::new();
        loop {
            let page = store.list(after, 10).await.unwrap();
            let Some(last) = page.last() else { break };
            after = last.address.clone();
            assert!(page.len() <= 10);
            seen.extend(page);
        }
        assert_eq!(seen.len(), 25);
        assert!(seen.is_sorted_by(|a, b| a.address < b.address));
        assert_eq!(seen[7].created, 1);
        let too_many = vec![account("a@example.com", 1); STORE_BULK_MAX + 1];
        assert_eq!(store.add_bulk(too_many, 5).await, Err(Fault::TooMany));
    });
}

#[test]
fn writes_that_wait_together_are_all_answered() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    runtime().block_on(async {
        let mut answers = tokio::task::JoinSet::new();
        for n in 0..700_u32 {
            let store = store.clone();
            answers.spawn(async move {
                store.add(account(&format!("u{}@example.com", n % 350), 1), 0).await
            });
        }
        let answers = answers.join_all().await;
        assert_eq!(answers.iter().filter(|it| it.is_ok()).count(), 350);
        assert_eq!(answers.iter().filter(|it| **it == Err(Fault::Exists)).count(), 350);
        assert_eq!(store.count().await, Ok(350));
    });
}

#[test]
fn an_empty_file_of_version_0_is_migrated() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("CREATE TABLE schema_version (version BIGINT NOT NULL); INSERT INTO schema_version VALUES (0);")
        .unwrap();
    connection.pragma_update(None, "application_id", schema::APPLICATION_ID).unwrap();
    drop(connection);
    let store = Store::open_sqlite(&path).unwrap();
    runtime().block_on(async {
        assert_eq!(store.add(account("a@example.com", 1), 0).await, Ok(()));
    });
    let connection = Connection::open(&path).unwrap();
    assert_eq!(schema::version(&connection).unwrap(), schema::VERSION);
    let rows: i64 =
        connection.query_row("SELECT count(*) FROM schema_version", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
}

#[test]
fn what_cannot_be_used_is_said_plainly() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let says = |path: &Path| match Store::open_sqlite(path) {
        Ok(_) => String::new(),
        Err(fault) => fault.to_string(),
    };
    drop(open(&directory));
    let connection = Connection::open(&path).unwrap();
    connection.execute("UPDATE schema_version SET version = 99", []).unwrap();
    drop(connection);
    let text = says(&path);
    assert!(text.contains("schema version 99") && text.contains("newer Tandem"), "{text}");

    let foreign = directory.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE x (y)").unwrap();
    let text = says(&foreign);
    assert!(text.contains("another program's"), "{text}");

    let text = says(&directory.path().join("absent").join("t.db"));
    assert!(text.contains("there is no directory") && text.contains("install -d"), "{text}");

    let text = says(directory.path());
    assert!(text.contains("directory"), "{text}");

    let garbage = directory.path().join("garbage.db");
    fs::write(&garbage, vec![b'x'; 8_192]).unwrap();
    let text = says(&garbage);
    assert!(text.contains("no SQLite file") && text.contains("backup"), "{text}");
}

#[test]
fn a_damaged_page_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let store = open(&directory);
    runtime().block_on(async {
        for n in 0..4 {
            let many = (0..200).map(|k| account(&format!("u{n}-{k}@example.com"), 1)).collect();
            store.add_bulk(many, 0).await.unwrap();
        }
    });
    drop(store);
    // A second connection that closes last folds the log into the file.
    let connection = Connection::open(&path).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(connection);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4_096 * 4_096;
    bytes[middle..middle + 4_096].fill(0xA5);
    fs::write(&path, bytes).unwrap();
    let Err(fault) = Store::open_sqlite(&path) else { panic!("opened a damaged file") };
    assert!(fault.to_string().contains("damaged"), "{fault}");
}

#[test]
fn a_file_of_version_1_keeps_its_accounts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let store = open(&directory);
    runtime().block_on(store.add(account("a@example.com", 1), 5)).unwrap();
    drop(store);
    // As it was before there were records.
    let connection = Connection::open(&path).unwrap();
    for table in ["roster_items", "rules", "messages", "private_data", "vcards", "dialogs"] {
        connection.execute(&format!("DROP TABLE {table}"), []).unwrap();
    }
    for column in ["roster_version", "next_message", "last_at", "last_status"] {
        connection.execute(&format!("ALTER TABLE accounts DROP COLUMN {column}"), []).unwrap();
    }
    connection.execute("UPDATE schema_version SET version = 1", []).unwrap();
    drop(connection);
    let store = open(&directory);
    runtime().block_on(async {
        let user = Address::parse("a@example.com").unwrap();
        let keys = store.credentials("a@example.com".into(), Hash::Sha1).await.unwrap();
        assert!(keys.is_some());
        assert_eq!(store.list(String::new(), 9).await.unwrap()[0].created, 5);
        assert_eq!(store.commit(&user, vec![contract::message(1)]).await, Ok(()));
        let record = store.load(&user).await.unwrap().unwrap();
        assert_eq!((record.messages, record.next_message), (1, 2));
    });
}

#[test]
fn a_file_of_version_2_keeps_its_records_and_gets_dialogs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let store = open(&directory);
    runtime().block_on(async {
        let user = contract::known(&store, "a@example.com").await;
        assert_eq!(store.commit(&user, vec![contract::message(1)]).await, Ok(()));
    });
    drop(store);
    // As it was before dialogs were kept.
    let connection = Connection::open(&path).unwrap();
    connection.execute("DROP TABLE dialogs", []).unwrap();
    connection.execute("UPDATE schema_version SET version = 2", []).unwrap();
    drop(connection);
    let store = open(&directory);
    runtime().block_on(async {
        let user = Address::parse("a@example.com").unwrap();
        let record = store.load(&user).await.unwrap().unwrap();
        assert_eq!((record.messages, record.next_message), (1, 2));
        let change = contract::put_dialog("call@edge.example t1.a", &user, 5);
        assert_eq!(store.keep(vec![change]).await, Ok(()));
        assert_eq!(contract::dialogs(&store).await.len(), 1);
    });
}

/// What the file says to some rows, as a full disk might to all.
fn refuse_rows(path: &Path, name: &str, number: u64, how: &str) {
    let trigger = format!(
        "CREATE TRIGGER {name} BEFORE INSERT ON messages WHEN NEW.number = {number}
         BEGIN SELECT RAISE({how}, 'by the test'); END"
    );
    Connection::open(path).unwrap().execute_batch(&trigger).unwrap();
}

/// A store whose thread begins when it is told to: what is asked before is one group.
fn held(directory: &TempDir) -> (Store, impl FnOnce()) {
    let path = directory.path().join("t.db");
    let (queue, served) = sqlite::Queue::new();
    let connection = sqlite::connect(&path).expect("opens");
    let begin = move || drop(thread::spawn(move || sqlite::serve(connection, &served)));
    (Store { backend: Backend::Sqlite(queue) }, begin)
}

#[test]
fn a_fault_of_the_group_is_everybodys_and_passes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let store = open(&directory);
    let (romeo, juliet) = runtime().block_on(async {
        let romeo = contract::known(&store, "romeo@example.net").await;
        (romeo, contract::known(&store, "juliet@example.com").await)
    });
    refuse_rows(&path, "own_fault", 666, "ABORT");
    refuse_rows(&path, "every_fault", 999, "ROLLBACK");
    for (bad, kept) in [(666, 1), (999, 1)] {
        let (store, begin) = held(&directory);
        let good = store.commit(&romeo, vec![Change::RosterVersion(bad)]);
        let seen = store.load(&romeo);
        let half = vec![Change::RosterVersion(9), contract::message(bad)];
        let half = store.commit(&juliet, half);
        let behind = store.commit(&romeo, vec![Change::RosterVersion(kept)]);
        begin();
        runtime().block_on(async {
            assert!(matches!(half.await, Err(Fault::Failed(_))));
            if bad == 666 {
                assert_eq!((good.await, behind.await), (Ok(()), Ok(())));
                assert_eq!(seen.await.unwrap().unwrap().roster_version, bad);
            } else {
                assert!(matches!(good.await, Err(Fault::Failed(_))));
                assert!(matches!(behind.await, Err(Fault::Failed(_))));
                assert!(matches!(seen.await, Err(Fault::Failed(_))));
            }
            let of = async |user| store.load(user).await.unwrap().unwrap().roster_version;
            assert_eq!((of(&romeo).await, of(&juliet).await), (kept, 0));
            assert_eq!(store.commit(&romeo, vec![Change::RosterVersion(1)]).await, Ok(()));
        });
    }
}

#[test]
fn a_full_queue_is_said_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let romeo = runtime().block_on(contract::known(&open(&directory), "romeo@example.net"));
    let (store, begin) = held(&directory);
    let asked: Vec<_> = (1..=STORE_QUEUE_MAX as u64)
        .map(|n| store.commit(&romeo, vec![Change::RosterVersion(n)]))
        .collect();
    runtime().block_on(async {
        let more = store.commit(&romeo, vec![Change::RosterVersion(0)]);
        assert_eq!(more.await, Err(Fault::Busy));
        assert_eq!(store.load(&romeo).await, Err(Fault::Busy));
        begin();
        for done in asked {
            assert_eq!(done.await, Ok(()));
        }
        let record = store.load(&romeo).await.unwrap().unwrap();
        assert_eq!(record.roster_version, STORE_QUEUE_MAX as u64);
    });
}

#[test]
fn what_waits_is_bounded_in_octets_too() {
    let directory = tempfile::tempdir().unwrap();
    let romeo = runtime().block_on(contract::known(&open(&directory), "romeo@example.net"));
    let (store, begin) = held(&directory);
    let vcard = || vec![Change::Vcard(Some(vec![b'v'; 524_288].into()))];
    let asked: Vec<_> = (0..200).map(|_| store.commit(&romeo, vcard())).collect();
    let small = store.load(&romeo);
    begin();
    runtime().block_on(async {
        let mut kept = 0;
        for done in asked {
            match done.await {
                Ok(()) => kept += 1,
                Err(fault) => assert_eq!(fault, Fault::Busy),
            }
        }
        assert_eq!(kept, STORE_QUEUE_BYTES_MAX / 524_288 - 1);
        assert!(small.await.unwrap().is_some());
        // What is done makes room. It is counted a moment after it was told.
        while store.commit(&romeo, vcard()).await.is_err() {}
    });
}

#[test]
fn other_users_are_read_before_the_group() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let (romeo, juliet) = runtime().block_on(async {
        let romeo = contract::known(&store, "romeo@example.net").await;
        (romeo, contract::known(&store, "juliet@example.com").await)
    });
    let (store, begin) = held(&directory);
    // While somebody else holds the file no group is committed.
    let other = Connection::open(directory.path().join("t.db")).unwrap();
    let done = store.commit(&romeo, vec![Change::RosterVersion(1)]);
    let own = store.load(&romeo);
    let others = store.load(&juliet);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    begin();
    runtime().block_on(async {
        assert!(others.await.unwrap().is_some());
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(own.await.unwrap().unwrap().roster_version, 1);
        assert_eq!(done.await, Ok(()));
    });
}

#[test]
fn a_row_that_cannot_be_read_withholds_the_record() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let other = Connection::open(directory.path().join("t.db")).unwrap();
    runtime().block_on(async {
        let romeo = contract::known(&store, "romeo@example.net").await;
        for row in [
            "rules VALUES ('romeo@example.net', 'blocked', '@')",
            "rules VALUES ('romeo@example.net', 'liked', 'a@example.net')",
            "roster_items VALUES ('romeo@example.net', 'a@b.example', 1, 9, 0, '', '', NULL, 0)",
            "roster_items VALUES ('romeo@example.net', 'a@b.example', 1, 0, 0, '', '{', NULL, 0)",
        ] {
            other.execute(&format!("INSERT INTO {row}"), []).unwrap();
            assert!(matches!(store.load(&romeo).await, Err(Fault::Failed(_))), "{row}");
            other.execute_batch("DELETE FROM rules; DELETE FROM roster_items").unwrap();
            assert!(store.load(&romeo).await.is_ok());
        }
    });
}
