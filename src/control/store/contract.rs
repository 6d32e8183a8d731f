//! What every backend of the store promises about users' records.
//!
//! Each test takes a store that holds nothing and says nothing of what stands behind it; the list
//! at the end runs them all on SQLite.

use super::*;
use crate::home::dialogs::DialogKind;
use crate::home::record::{Item, Last, List, Message};
use crate::home::subscription::State;
use crate::time::Wall;

fn user(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

/// A user that the store knows.
pub(super) async fn known(store: &Store, address: &str) -> Address {
    let account = Account { address: address.into(), keys: Vec::new() };
    store.add(account, 0).await.expect("added");
    user(address)
}

fn item(contact: &str) -> Item {
    Item {
        contact: user(contact),
        listed: true,
        state: State::Both,
        approved: false,
        name: "".into(),
        groups: [].into(),
        request: None,
        asked: Wall(0),
    }
}

fn put(contact: &str) -> Change {
    Change::PutItem(Box::new(item(contact)))
}

pub(super) fn message(number: u64) -> Change {
    let octets = format!("<message id='{number}'/>").into_bytes().into();
    Change::StoreMessage(Message { number, at: Wall(number * 10), octets })
}

async fn loaded(store: &Store, user: &Address) -> Record {
    let mut record = *store.load(user).await.expect("no fault").expect("an account");
    record.items.sort_by(|a, b| a.contact.cmp(&b.contact));
    record.rules.sort();
    record
}

async fn numbers(store: &Store, user: &Address, after: u64, count: u32) -> Vec<u64> {
    match store.fetch(user, Fetch::Messages { after, count }).await.expect("no fault") {
        Fetched::Messages(found) => found.iter().map(|it| it.number).collect(),
        Fetched::Payload(_) => panic!("another answer"),
    }
}

async fn payload(store: &Store, user: &Address, what: Fetch) -> Option<Box<[u8]>> {
    match store.fetch(user, what).await.expect("no fault") {
        Fetched::Payload(found) => found,
        Fetched::Messages(_) => panic!("another answer"),
    }
}

async fn a_record_comes_back_as_it_was(store: &Store) {
    let romeo = known(store, "romeo@example.net").await;
    assert_eq!(loaded(store, &romeo).await, Record { next_message: 1, ..Record::default() });
    let mut items: Vec<Item> = State::ALL
        .iter()
        .map(|state| Item { state: *state, ..item(&format!("c{}@example.com", state.index())) })
        .collect();
    items.push(Item {
        listed: false,
        approved: true,
        name: "Ωmega \"'\\ , [] \u{1f600}".into(),
        groups: ["".into(), "Friends, [old]".into(), "\"]\u{0}".into()].into(),
        request: Some(b"<presence type='subscribe'>\xff\x00</presence>".as_slice().into()),
        asked: Wall(1_700_000_000_000_001),
        ..item("example.org")
    });
    items.push(Item { request: Some([].into()), ..item("müller@example.org") });
    let rules = List::ALL
        .into_iter()
        .flat_map(|list| [(list, user("tybalt@example.net")), (list, user("evil.example"))]);
    let mut expected = Record {
        items,
        roster_version: 7,
        rules: rules.collect(),
        last: Some(Last { at: Wall(99), status: "".into() }),
        messages: 1,
        next_message: 6,
    };
    let mut changes: Vec<Change> =
        expected.items.iter().map(|it| Change::PutItem(Box::new(it.clone()))).collect();
    changes.extend(expected.rules.iter().map(|(list, it)| Change::AddRule(*list, it.clone())));
    changes.push(Change::RosterVersion(7));
    changes.push(Change::Last(expected.last.clone().expect("set above")));
    changes.push(message(5));
    assert_eq!(store.commit(&romeo, changes).await, Ok(()));
    expected.items.sort_by(|a, b| a.contact.cmp(&b.contact));
    expected.rules.sort();
    assert_eq!(loaded(store, &romeo).await, expected);
    // What was said last counts, and a resource in the question does not.
    let last = Last { at: Wall(100), status: "gone".into() };
    let balcony = user("romeo@example.net/balcony");
    assert_eq!(store.commit(&balcony, vec![Change::Last(last.clone())]).await, Ok(()));
    assert_eq!(loaded(store, &balcony).await, Record { last: Some(last), ..expected });
}

async fn what_is_put_again_is_replaced_and_what_is_removed_is_gone(store: &Store) {
    let juliet = known(store, "juliet@example.com").await;
    let private = |name: &str, text: &str| Change::Private {
        name: name.into(),
        octets: text.as_bytes().into(),
    };
    let nurse = Item { name: "Nurse".into(), ..item("nurse@example.com") };
    let evil = user("evil.example");
    let changes = vec![
        put("nurse@example.com"),
        put("paris@example.com"),
        Change::PutItem(Box::new(nurse.clone())),
        Change::RemoveItem(user("paris@example.com")),
        Change::RemoveItem(user("nobody@example.com")),
        Change::AddRule(List::Blocked, evil.clone()),
        Change::AddRule(List::Blocked, evil.clone()),
        Change::AddRule(List::Allowed, evil.clone()),
        Change::RemoveRule(List::Denied, evil.clone()),
        Change::RemoveRule(List::Blocked, evil.clone()),
        private("{a}x", "1"),
        private("{b}x", "2"),
        private("{a}x", "3"),
        Change::Vcard(Some(b"<vCard/>".as_slice().into())),
    ];
    assert_eq!(store.commit(&juliet, changes).await, Ok(()));
    let record = loaded(store, &juliet).await;
    assert_eq!(record.items, [nurse]);
    assert_eq!(record.rules, [(List::Allowed, evil)]);
    let of = |name: &str| Fetch::Private(name.into());
    assert_eq!(payload(store, &juliet, of("{a}x")).await.as_deref(), Some(b"3".as_slice()));
    assert_eq!(payload(store, &juliet, of("{b}x")).await.as_deref(), Some(b"2".as_slice()));
    assert_eq!(payload(store, &juliet, of("{c}x")).await, None);
    assert!(payload(store, &juliet, Fetch::Vcard).await.is_some());
    let large: Box<[u8]> = vec![b'v'; 524_288].into();
    for vcard in [Some(large), None] {
        let changes = vec![Change::Vcard(vcard.clone())];
        assert_eq!(store.commit(&juliet, changes).await, Ok(()));
        assert_eq!(payload(store, &juliet, Fetch::Vcard).await, vcard);
    }
    assert_eq!(store.commit(&juliet, Vec::new()).await, Ok(()));
}

async fn messages_come_in_the_order_of_their_numbers(store: &Store) {
    let romeo = known(store, "romeo@example.net").await;
    let other = known(store, "romeo@example.nets").await;
    for number in [3, 1, 9, 2] {
        assert_eq!(store.commit(&romeo, vec![message(number)]).await, Ok(()));
        assert_eq!(store.commit(&other, vec![message(number)]).await, Ok(()));
    }
    assert_eq!(numbers(store, &romeo, 0, 100).await, [1, 2, 3, 9]);
    assert_eq!(numbers(store, &romeo, 1, 2).await, [2, 3]);
    assert_eq!(numbers(store, &romeo, 9, 2).await, [0; 0]);
    assert_eq!(numbers(store, &romeo, 0, 0).await, [0; 0]);
    assert_eq!(numbers(store, &romeo, u64::MAX, u32::MAX).await, [0; 0]);
    let Ok(Fetched::Messages(found)) =
        store.fetch(&romeo, Fetch::Messages { after: 3, count: 1 }).await
    else {
        panic!("another answer")
    };
    assert_eq!((found[0].at, &*found[0].octets), (Wall(90), b"<message id='9'/>".as_slice()));
    // A number is never given again, however many are gone.
    let gone = vec![Change::RemoveMessages(vec![9, 77, 1])];
    assert_eq!(store.commit(&romeo, gone).await, Ok(()));
    let record = loaded(store, &romeo).await;
    assert_eq!((record.messages, record.next_message), (2, 10));
    let gone = vec![Change::RemoveMessages(vec![2, 3])];
    assert_eq!(store.commit(&romeo, gone).await, Ok(()));
    let record = loaded(store, &romeo).await;
    assert_eq!((record.messages, record.next_message), (0, 10));
    assert_eq!(numbers(store, &other, 0, 100).await, [1, 2, 3, 9]);
}

async fn large_messages_come_in_smaller_portions(store: &Store) {
    let romeo = known(store, "romeo@example.net").await;
    for number in 1..=20 {
        let octets = vec![b'm'; 524_288].into();
        let large = Message { number, at: Wall(0), octets };
        assert_eq!(store.commit(&romeo, vec![Change::StoreMessage(large)]).await, Ok(()));
    }
    let first = numbers(store, &romeo, 0, 20).await;
    assert_eq!(first, (1..=16).collect::<Vec<u64>>());
    assert_eq!(numbers(store, &romeo, 16, 20).await, [17, 18, 19, 20]);
}

async fn all_of_a_commit_is_kept_or_nothing(store: &Store) {
    let romeo = known(store, "romeo@example.net").await;
    let juliet = known(store, "juliet@example.com").await;
    assert_eq!(store.commit(&romeo, vec![message(4)]).await, Ok(()));
    // They may share one transaction: the fault of the second is its own.
    let before = store.commit(&juliet, vec![put("nurse@example.com")]);
    let twice = vec![put("a@example.com"), Change::RosterVersion(3), message(4), message(5)];
    let twice = store.commit(&romeo, twice);
    let nobody = store.commit(&user("nobody@example.com"), vec![put("a@example.com")]);
    let behind = store.commit(&romeo, vec![message(6)]);
    let seen = store.load(&romeo);
    assert_eq!(before.await, Ok(()));
    assert!(matches!(twice.await, Err(Fault::Failed(_))));
    assert_eq!(nobody.await, Err(Fault::Absent));
    assert_eq!(behind.await, Ok(()));
    let record = seen.await.expect("no fault").expect("an account");
    assert_eq!((record.items.len(), record.roster_version), (0, 0));
    assert_eq!(numbers(store, &romeo, 0, 9).await, [4, 6]);
    assert_eq!(loaded(store, &juliet).await.items, [item("nurse@example.com")]);
    assert_eq!(store.load(&user("nobody@example.com")).await, Ok(None));
    assert_eq!(payload(store, &user("nobody@example.com"), Fetch::Vcard).await, None);
}

async fn everything_goes_with_the_account(store: &Store) {
    let romeo = known(store, "romeo@example.net").await;
    let juliet = known(store, "juliet@example.com").await;
    let name: Box<str> = "{a}x".into();
    let all = vec![
        put("nurse@example.com"),
        Change::RosterVersion(3),
        Change::AddRule(List::Blocked, user("evil.example")),
        Change::Last(Last::default()),
        message(8),
        Change::Private { name: name.clone(), octets: b"x".as_slice().into() },
        Change::Vcard(Some(b"x".as_slice().into())),
    ];
    assert_eq!(store.commit(&romeo, all.clone()).await, Ok(()));
    assert_eq!(store.commit(&juliet, all.clone()).await, Ok(()));
    let kept = loaded(store, &juliet).await;
    assert_eq!(store.delete("romeo@example.net".into()).await, Ok(()));
    assert_eq!(store.load(&romeo).await, Ok(None));
    assert_eq!(store.commit(&romeo, all).await, Err(Fault::Absent));
    let romeo = known(store, "romeo@example.net").await;
    assert_eq!(loaded(store, &romeo).await, Record { next_message: 1, ..Record::default() });
    assert_eq!(numbers(store, &romeo, 0, 9).await, [0; 0]);
    assert_eq!(payload(store, &romeo, Fetch::Vcard).await, None);
    assert_eq!(payload(store, &romeo, Fetch::Private(name.clone())).await, None);
    assert_eq!(loaded(store, &juliet).await, kept);
    assert!(payload(store, &juliet, Fetch::Private(name)).await.is_some());
}

async fn a_users_questions_are_answered_in_their_order(store: &Store) {
    let romeo = known(store, "romeo@example.net").await;
    let mut asked = Vec::new();
    for n in 1..=300 {
        let done = store.commit(&romeo, vec![Change::RosterVersion(n), message(n)]);
        let seen = store.load(&romeo);
        let what = Fetch::Messages { after: n - 1, count: 9 };
        let found = store.fetch(&romeo, what);
        asked.push((n, done, seen, found));
    }
    for (n, done, seen, found) in asked {
        assert_eq!(done.await, Ok(()));
        let record = seen.await.expect("no fault").expect("an account");
        // What was asked for later is not seen either.
        assert_eq!((record.roster_version, record.next_message), (n, n + 1));
        let Ok(Fetched::Messages(found)) = found.await else { panic!("another answer") };
        assert_eq!(found.iter().map(|it| it.number).collect::<Vec<_>>(), [n]);
    }
}

async fn many_users_at_once_keep_apart(store: &Store) {
    let mut users = tokio::task::JoinSet::new();
    for n in 0..64_u64 {
        let store = store.clone();
        let user = known(&store, &format!("u{n}@example.com")).await;
        users.spawn(async move {
            for version in 1..=20 {
                let changes = vec![Change::RosterVersion(version), message(version * 100 + n)];
                assert_eq!(store.commit(&user, changes).await, Ok(()));
                let record = loaded(&store, &user).await;
                assert_eq!(record.roster_version, version);
                assert_eq!(u64::from(record.messages), version);
            }
            assert_eq!(numbers(&store, &user, 0, 1).await, [100 + n]);
        });
    }
    users.join_all().await;
}

/// All shards in one.
const ALONE: Mine = Mine { shard: 0, shards: 1 };

pub(super) fn dialog(key: &str, user: &Address, expires: u64) -> DialogRow {
    DialogRow {
        key: key.into(),
        user: user.clone(),
        kind: DialogKind::Watched,
        expires: Wall(expires),
        data: [&[1, 0, 255][..], key.as_bytes()].concat().into(),
    }
}

pub(super) fn put_dialog(key: &str, user: &Address, expires: u64) -> DialogChange {
    DialogChange::Put(Box::new(dialog(key, user, expires)))
}

pub(super) async fn dialogs(store: &Store) -> Vec<DialogRow> {
    store.dialogs(ALONE, None, 1_000).await.expect("no fault")
}

async fn dialogs_come_back_as_they_were(store: &Store) {
    let romeo = known(store, "romeo@example.net").await;
    let juliet = known(store, "müller@example.com").await;
    let mut rows: Vec<DialogRow> = DialogKind::ALL
        .iter()
        .map(|kind| {
            let key = format!("call-{}@edge.example t1.x", kind.index());
            DialogRow { kind: *kind, ..dialog(&key, &romeo, 1_700_000_000_000_001) }
        })
        .collect();
    rows.push(DialogRow { data: [].into(), ..dialog("Ω t1.y", &juliet, 0) });
    let changes = rows.iter().map(|it| DialogChange::Put(Box::new(it.clone()))).collect();
    assert_eq!(store.keep(changes).await, Ok(()));
    assert_eq!(dialogs(store).await, rows);
    // Put again it is replaced, and what is removed is gone; what is unknown is no fault.
    rows[0] = DialogRow { data: [7; 3_000].into(), expires: Wall(9), ..rows[0].clone() };
    let changes = vec![
        DialogChange::Put(Box::new(rows[0].clone())),
        DialogChange::Remove(rows[1].key.clone()),
        DialogChange::Remove("nobody's".into()),
        put_dialog("short-lived", &romeo, 1),
        DialogChange::Remove("short-lived".into()),
    ];
    assert_eq!(store.keep(changes).await, Ok(()));
    rows.remove(1);
    assert_eq!(dialogs(store).await, rows);
    assert_eq!(store.keep(Vec::new()).await, Ok(()));
}

async fn dialogs_come_in_pages_to_the_shard_of_their_user(store: &Store) {
    let mut changes = Vec::new();
    for n in 0..20 {
        let user = known(store, &format!("u{n}@example.com")).await;
        changes.extend((0..10).map(|k| put_dialog(&format!("call-{k} t1.{n:02}"), &user, 1)));
    }
    assert_eq!(store.keep(changes).await, Ok(()));
    let mut seen = Vec::new();
    for shard in 0..3 {
        let mine = Mine { shard, shards: 3 };
        let mut after = None;
        loop {
            let page = store.dialogs(mine, after, 7).await.expect("no fault");
            assert!(page.len() <= 7);
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            assert!(page.iter().all(|it| crate::route::shard_of(it.user.slot(), 3) == shard));
            assert!(page.is_sorted_by_key(|it| it.key.clone()));
            seen.extend(page.into_iter().map(|it| it.key));
        }
    }
    seen.sort();
    assert_eq!(seen, dialogs(store).await.into_iter().map(|it| it.key).collect::<Vec<_>>());
    assert_eq!(seen.len(), 200);
    assert_eq!(store.dialogs(ALONE, None, 0).await, Ok(Vec::new()));
}

async fn large_dialogs_come_in_smaller_portions(store: &Store) {
    let romeo = known(store, "romeo@example.net").await;
    for n in 0..20 {
        let data = vec![b'd'; 524_288].into();
        let row = DialogRow { data, ..dialog(&format!("call-{n:02}"), &romeo, 1) };
        assert_eq!(store.keep(vec![DialogChange::Put(Box::new(row))]).await, Ok(()));
    }
    assert_eq!(dialogs(store).await.len(), 16);
    assert_eq!(store.dialogs(ALONE, Some("call-15".into()), 99).await.map(|it| it.len()), Ok(4));
}

async fn dialogs_go_with_their_user_and_of_strangers_none_is_kept(store: &Store) {
    let romeo = known(store, "romeo@example.net").await;
    let juliet = known(store, "juliet@example.com").await;
    let nobody = user("nobody@example.com");
    // Somebody who was removed spoils nothing for the others of the same turn.
    let changes = vec![
        put_dialog("a", &romeo, 1),
        put_dialog("b", &nobody, 1),
        put_dialog("c", &juliet, 1),
        put_dialog("d", &romeo, 1),
    ];
    assert_eq!(store.keep(changes).await, Ok(()));
    let keys =
        async || dialogs(store).await.iter().map(|it| it.key.to_string()).collect::<String>();
    assert_eq!(keys().await, "acd");
    // Asked one behind the other: each sees what was asked before it.
    let gone = store.delete("romeo@example.net".into());
    let late = async { store.keep(vec![put_dialog("e", &romeo, 1)]).await };
    let (gone, late) = tokio::join!(gone, late);
    assert_eq!((gone, late), (Ok(()), Ok(())));
    assert_eq!(keys().await, "c");
    let romeo = known(store, "romeo@example.net").await;
    assert_eq!(keys().await, "c");
    assert_eq!(store.keep(vec![put_dialog("f", &romeo, 1)]).await, Ok(()));
    assert_eq!(keys().await, "cf");
}

async fn a_page_of_dialogs_shows_what_was_asked_before(store: &Store) {
    let romeo = known(store, "romeo@example.net").await;
    let mut asked = Vec::new();
    for n in 1..=200_u64 {
        let put = store.keep(vec![put_dialog("call t1.a", &romeo, n)]);
        let seen = store.dialogs(ALONE, None, 9);
        let removed = store.keep(vec![DialogChange::Remove("call t1.a".into())]);
        let gone = store.dialogs(ALONE, None, 9);
        asked.push((n, put, seen, removed, gone));
    }
    for (n, put, seen, removed, gone) in asked {
        assert_eq!((put.await, removed.await), (Ok(()), Ok(())));
        assert_eq!(seen.await, Ok(vec![dialog("call t1.a", &romeo, n)]));
        assert_eq!(gone.await, Ok(Vec::new()));
    }
}

/// A promise as a test on SQLite.
macro_rules! promises {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(#[test]
            fn $name() {
                let directory = tempfile::tempdir().unwrap();
                let store = super::Store::open_sqlite(&directory.path().join("t.db")).unwrap();
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(super::$name(&store));
            })*
        }
    };
}

promises! {
    a_record_comes_back_as_it_was
    what_is_put_again_is_replaced_and_what_is_removed_is_gone
    messages_come_in_the_order_of_their_numbers
    large_messages_come_in_smaller_portions
    all_of_a_commit_is_kept_or_nothing
    everything_goes_with_the_account
    a_users_questions_are_answered_in_their_order
    many_users_at_once_keep_apart
    dialogs_come_back_as_they_were
    dialogs_come_in_pages_to_the_shard_of_their_user
    large_dialogs_come_in_smaller_portions
    dialogs_go_with_their_user_and_of_strangers_none_is_kept
    a_page_of_dialogs_shows_what_was_asked_before
}
