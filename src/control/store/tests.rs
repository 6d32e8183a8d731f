//! The store on real files: what was answered is there, and what is wrong is said plainly.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
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

/// Not a test by itself: the process that [`what_was_acknowledged_survives_a_kill`] kills.
#[test]
fn child_that_writes() {
    let Some(path) = std::env::var_os("TANDEM_STORE_CHILD") else { return };
    let store = Store::open_sqlite(Path::new(&path)).unwrap();
    let round = std::env::var("TANDEM_STORE_ROUND").unwrap();
    runtime().block_on(async {
        for n in 0..1_000_000_u32 {
            let address = format!("r{round}n{n}@example.com");
            if n % 3 == 2 {
                let bulk = (0..5).map(|k| account(&format!("b{k}-{address}"), 1)).collect();
                store.add_bulk(bulk, 0).await.unwrap();
                println!("ACK b4-{address}");
            } else {
                store.add(account(&address, 1), 0).await.unwrap();
                println!("ACK {address}");
            }
            std::io::stdout().flush().unwrap();
        }
    });
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let mut acknowledged = Vec::new();
    for round in 0..20_usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "control::store::tests::child_that_writes", "--nocapture"])
            .env("TANDEM_STORE_CHILD", &path)
            .env("TANDEM_STORE_ROUND", round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        // Differs by round, so that the kill meets different moments of a commit.
        while seen < 3 + round % 7 {
            let line = lines.next().expect("the child goes on").unwrap();
            if let Some((_, address)) = line.split_once("ACK ") {
                acknowledged.push(address.to_owned());
                seen += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            if let Some((_, address)) = line.split_once("ACK ") {
                acknowledged.push(address.to_owned());
            }
        }
    }
    let store = open(&directory);
    runtime().block_on(async {
        for address in &acknowledged {
            let keys = store.credentials(address.clone(), Hash::Sha512).await.unwrap();
            assert!(keys.is_some(), "{address} was acknowledged and is gone");
        }
    });
    assert!(acknowledged.len() >= 20 * 3);
}
