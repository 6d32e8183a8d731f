//! What the shards ask the store, and orders about a user's lists.
//!
//! A question about a record takes its place in the store's order when it is heard, before its task
//! first runs: so two commits of one user stay in the order in which they were asked for. Does
//! **not** know what a record means; the user's home does.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::accounts::Refusal;
use super::node::Node;
use super::store;
use crate::address::Address;
use crate::home::record::{List, Record};
use crate::route::shard_of;
use crate::shard::Notice;
use crate::shard::kernel::{Answer, Order, Question, ShardId, Ticket, Unavailable};
use crate::xmpp::sasl::scram::{Credentials, Hash};

/// How long a user's home has for an order about his lists: it may have to load his record first,
/// and its commit comes behind others.
const RULE: Duration = Duration::from_secs(15);

/// What came of an order, in the shard's words.
type Done = Result<(), &'static str>;

/// Orders whose outcome somebody waits for; as many at most as the control socket has connections.
#[derive(Default)]
pub(super) struct Orders {
    last: Cell<u64>,
    waiting: RefCell<BTreeMap<u64, oneshot::Sender<Done>>>,
}

/// Somebody waits for one order.
struct Outcome<'a> {
    orders: &'a Orders,
    ticket: Ticket,
    done: oneshot::Receiver<Done>,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        self.orders.waiting.borrow_mut().remove(&self.ticket.0);
    }
}

impl Orders {
    fn open(&self) -> Outcome<'_> {
        let ticket = Ticket(self.last.get() + 1);
        self.last.set(ticket.0);
        let (to, done) = oneshot::channel();
        self.waiting.borrow_mut().insert(ticket.0, to);
        Outcome { orders: self, ticket, done }
    }

    /// A shard tells what came of an order.
    pub(super) fn done(&self, ticket: Ticket, done: Done) {
        if let Some(to) = self.waiting.borrow_mut().remove(&ticket.0) {
            // Who waited may have given up.
            to.send(done).ok();
        }
    }
}

impl Node {
    /// Asks the store at once and answers in a task. A question that is not about a record comes
    /// back.
    pub(super) fn asked_store(
        self: &Rc<Self>,
        shard: ShardId,
        question: Question,
    ) -> Option<Question> {
        let node = Rc::clone(self);
        match question {
            Question::Load { ticket, user } => {
                let found = self.store.load(&user);
                self.answer_later(shard, async move {
                    let record = node.heard("store_load_failed", found.await);
                    Some(Answer::Loaded { ticket, record })
                });
            }
            Question::Commit { ticket, user, changes } => {
                let done = self.store.commit(&user, changes);
                self.answer_later(shard, async move {
                    let done = node.heard("store_changes_failed", done.await);
                    Some(Answer::Committed { ticket, done })
                });
            }
            Question::Fetch { ticket, user, what } => {
                let found = self.store.fetch(&user, what);
                self.answer_later(shard, async move {
                    let found = node.heard("store_fetch_failed", found.await);
                    Some(Answer::Fetched { ticket, found })
                });
            }
            Question::Keep { ticket, changes } => {
                let done = self.store.keep(changes);
                self.answer_later(shard, async move {
                    let done = node.heard("store_dialogs_failed", done.await);
                    Some(Answer::Kept { ticket, done })
                });
            }
            Question::Dialogs { ticket, after, count } => {
                let mine = store::Mine { shard: shard.0, shards: self.lanes.shards() };
                let found = self.store.dialogs(mine, after, count);
                self.answer_later(shard, async move {
                    let rows = node.heard("store_dialogs_failed", found.await);
                    Some(Answer::Dialogs { ticket, rows })
                });
            }
            other => return Some(other),
        }
        None
    }

    /// The SCRAM keys of an account for one hash.
    pub(super) async fn keys(
        &self,
        user: &Address,
        hash: Hash,
    ) -> Result<Option<Credentials>, Unavailable> {
        let found = self.store.credentials(user.bare().to_owned(), hash).await;
        self.heard("store_read_failed", found)
    }

    /// What a shard hears of the store; a fault is told to the operator, once a minute.
    fn heard<T>(
        &self,
        event: &'static str,
        outcome: Result<T, store::Fault>,
    ) -> Result<T, Unavailable> {
        outcome.map_err(|fault| {
            // An account that was removed meanwhile is no fault of the store.
            if fault != store::Fault::Absent {
                let notice = Notice { event, fields: vec![("text", fault.to_string())] };
                self.tell(Instant::now(), notice);
            }
            Unavailable
        })
    }

    /// What the store has of a local user; the address in normal form comes first.
    pub(crate) async fn record(&self, typed: &str) -> Result<(Address, Box<Record>), Refusal> {
        let user = self.local_user(typed)?;
        match self.store.load(&user).await? {
            Some(record) => Ok((user, record)),
            None => Err(Refusal::new("absent", format!("there is no account {}", user.bare()))),
        }
    }

    /// Puts a person or a domain on a user's list: the user's home does it. Returns both addresses
    /// in normal form.
    pub(crate) async fn enlist(
        &self,
        typed: &str,
        list: List,
        pattern: &str,
    ) -> Result<(Address, Address), Refusal> {
        let rule = pattern_of(pattern)?;
        let (user, _) = self.record(typed).await?;
        self.order_rule(&user, list, &rule, true).await?;
        Ok((user, rule))
    }

    /// Takes a person or a domain off every list of a user on which it stands; returns those.
    pub(crate) async fn unlist(
        &self,
        typed: &str,
        pattern: &str,
    ) -> Result<(Address, Address, Vec<List>), Refusal> {
        let rule = pattern_of(pattern)?;
        let (user, record) = self.record(typed).await?;
        let mut from = Vec::new();
        for list in List::ALL {
            if record.rules.iter().any(|(on, it)| *on == list && *it == rule) {
                self.order_rule(&user, list, &rule, false).await?;
                from.push(list);
            }
        }
        if from.is_empty() {
            let text = format!("{rule} is on no list of {user}; see: tandem ctl user lists {user}");
            return Err(Refusal::new("absent", text));
        }
        Ok((user, rule, from))
    }

    async fn order_rule(
        &self,
        user: &Address,
        list: List,
        rule: &Address,
        add: bool,
    ) -> Result<(), Refusal> {
        let shard = ShardId(shard_of(user.slot(), self.lanes.shards()));
        if !self.reports.alive().contains(&shard) {
            return Err(Refusal::new("unavailable", "the node is stopping"));
        }
        let mut outcome = self.orders.open();
        let (user, rule) = (user.clone(), rule.clone());
        self.order(shard, Order::Rule { ticket: outcome.ticket, user, list, rule, add });
        match timeout(RULE, &mut outcome.done).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(text))) => Err(Refusal::new("refused", text)),
            Ok(Err(_)) | Err(_) => {
                let text = "the user's shard gave no answer in time; see what the lists are now";
                Err(Refusal::new("unavailable", text))
            }
        }
    }
}

/// Whom a rule is about: a person by the bare address, or a domain.
fn pattern_of(typed: &str) -> Result<Address, Refusal> {
    let malformed = |why: &str| {
        let text = format!("{typed:?} {why}; write person@domain or a domain");
        Refusal::new("malformed", text)
    };
    let rule = Address::parse(typed)
        .map_err(|fault| malformed(&format!("is no address ({})", fault.reason())))?;
    if rule.resource().is_some() { Err(malformed("names a resource")) } else { Ok(rule) }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use serde_json::json;
    use tokio::task::LocalSet;

    use super::*;
    use crate::admin::client::{Format, call, render};
    use crate::admin::protocol::{Request, Response, Secret};
    use crate::control::lanes::{FromShard, ToShard};
    use crate::control::store::Account;
    use crate::control::testing::{self, World};
    use crate::home::record::{Change, Fetch, Fetched, Item, Message};
    use crate::home::subscription::State;
    use crate::time::Wall;

    fn user(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn a_question_takes_its_place_before_its_task_runs() {
        let directory = tempfile::tempdir().unwrap();
        let node = Rc::new(testing::node(&directory));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let romeo = user("romeo@example.com");
            let account = Account { address: romeo.bare().to_owned(), keys: Vec::new() };
            node.store.add(account, 0).await.unwrap();
            for version in 1..=200 {
                let (user, changes) = (romeo.clone(), vec![Change::RosterVersion(version)]);
                node.asked(ShardId(0), Question::Commit { ticket: Ticket(0), user, changes });
            }
            // No task of these questions has had a turn yet.
            let record = node.store.load(&romeo).await.unwrap().unwrap();
            assert_eq!(record.roster_version, 200);
        });
    }

    #[test]
    fn patterns_are_persons_and_domains() {
        assert_eq!(pattern_of("Juliet@Example.COM").unwrap().full(), "juliet@example.com");
        assert_eq!(pattern_of("example.com").unwrap().full(), "example.com");
        for wrong in ["", "a@", "juliet@example.com/balcony", "*.example.com"] {
            let refusal = pattern_of(wrong).unwrap_err();
            assert_eq!(refusal.reason, "malformed", "{wrong}");
            assert!(refusal.text.contains("person@domain"), "{}", refusal.text);
        }
    }

    const ROMEO: &str = "romeo@example.com";

    fn world() -> World {
        let world = World::start(&[], false);
        let password = Secret("pencil".into());
        let add = Request::UserAdd { address: ROMEO.into(), password };
        assert!(call(&world.socket, &add).unwrap().ok);
        world
    }

    fn stop(world: World) {
        assert!(call(&world.socket, &Request::Stop).unwrap().ok);
        world.end();
    }

    fn commit(world: &World, user: Address, changes: Vec<Change>) -> Result<(), Unavailable> {
        let question = Question::Commit { ticket: Ticket(3), user, changes };
        match world.ask(1, question) {
            ToShard::Answered(Answer::Committed { ticket: Ticket(3), done }) => done,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_shard_has_its_changes_kept_and_given_back() {
        let world = world();
        let romeo = user(ROMEO);
        let octets: Box<[u8]> = b"<message/>".as_slice().into();
        let message = Message { number: 1, at: Wall(5), octets };
        assert_eq!(
            commit(&world, romeo.clone(), vec![Change::StoreMessage(message.clone())]),
            Ok(())
        );
        // A second message of that number is not taken.
        let again = vec![Change::StoreMessage(message.clone())];
        assert_eq!(commit(&world, romeo.clone(), again), Err(Unavailable));
        assert_eq!(commit(&world, user("nobody@example.com"), Vec::new()), Err(Unavailable));
        let question = Question::Load { ticket: Ticket(4), user: romeo.clone() };
        let ToShard::Answered(Answer::Loaded { record: Ok(Some(record)), .. }) =
            world.ask(0, question)
        else {
            panic!("no record")
        };
        assert_eq!((record.messages, record.next_message), (1, 2));
        let what = Fetch::Messages { after: 0, count: 10 };
        let question = Question::Fetch { ticket: Ticket(5), user: romeo, what };
        let ToShard::Answered(Answer::Fetched { found: Ok(Fetched::Messages(found)), .. }) =
            world.ask(0, question)
        else {
            panic!("no messages")
        };
        assert_eq!(found, [message]);
        let question = Question::Load { ticket: Ticket(6), user: user("nobody@example.com") };
        assert!(matches!(
            world.ask(0, question),
            ToShard::Answered(Answer::Loaded { ticket: Ticket(6), record: Ok(None) })
        ));
        stop(world);
    }

    /// Asks over the socket; `done` is what the user's home says to each order.
    fn ask_home(world: &World, request: &Request, done: &[Done]) -> (Response, Vec<(List, bool)>) {
        let home = ShardId(shard_of(user(ROMEO).slot(), 2));
        let socket = &world.socket;
        thread::scope(|scope| {
            let asked = scope.spawn(move || call(socket, request).unwrap());
            let mut heard = Vec::new();
            for done in done {
                let (shard, order) = world.seen.recv_timeout(Duration::from_secs(30)).unwrap();
                let ToShard::Ordered(Order::Rule { ticket, user, list, rule, add }) = order else {
                    panic!("{order:?}")
                };
                assert_eq!((shard, user.full(), rule.full()), (home, ROMEO, "evil.example"));
                heard.push((list, add));
                let question = Question::Done { ticket, done: *done };
                world.up.send(FromShard::Asked(shard, question)).unwrap();
            }
            (asked.join().unwrap(), heard)
        })
    }

    #[test]
    fn rules_go_to_the_users_home() {
        let world = world();
        let of = |pattern: &str| (ROMEO.to_owned(), pattern.to_owned());
        let (address, pattern) = of("Evil.Example");
        let block = Request::UserBlock { address, pattern };
        let (response, heard) = ask_home(&world, &block, &[Ok(())]);
        let told = json!({"address": ROMEO, "list": "blocked", "pattern": "evil.example"});
        assert_eq!(response.result, told);
        assert_eq!(heard, [(List::Blocked, true)]);
        let (address, pattern) = of("evil.example");
        let allow = Request::UserAllow { address, pattern };
        let (response, heard) = ask_home(&world, &allow, &[Err("the list is full")]);
        let error = response.error.unwrap();
        assert_eq!((error.reason.as_str(), error.text.as_str()), ("refused", "the list is full"));
        assert_eq!(heard, [(List::Allowed, true)]);

        // What is on no list can't be taken off; what is on two goes from both.
        let (address, pattern) = of("evil.example");
        let unlist = Request::UserUnlist { address, pattern };
        let (response, _) = ask_home(&world, &unlist, &[]);
        let error = response.error.unwrap();
        assert!(error.reason == "absent" && error.text.contains("on no list"), "{error:?}");
        let rule = user("evil.example");
        let rules = [List::Blocked, List::Denied].map(|it| Change::AddRule(it, rule.clone()));
        assert_eq!(commit(&world, user(ROMEO), rules.into()), Ok(()));
        let (response, heard) = ask_home(&world, &unlist, &[Ok(()), Ok(())]);
        assert_eq!(response.result["lists"], json!(["blocked", "denied"]));
        assert_eq!(heard, [(List::Blocked, false), (List::Denied, false)]);
        let shown = render(&unlist, &response, Format::Text);
        assert!(shown.contains("lists  blocked, denied"), "{shown}");

        for (address, pattern, reason, text) in [
            ("nobody@example.com", "evil.example", "absent", "no account nobody@example.com"),
            ("romeo@elsewhere.example", "evil.example", "domain", "not served"),
            ("example.com", "evil.example", "malformed", "user@domain"),
            (ROMEO, "evil.example/x", "malformed", "resource"),
        ] {
            let (address, pattern) = (address.to_owned(), pattern.to_owned());
            let error = call(&world.socket, &Request::UserBlock { address, pattern })
                .unwrap()
                .error
                .unwrap();
            assert!(error.reason == reason && error.text.contains(text), "{error:?}");
        }
        // Nobody is waited for who has ended.
        world.up.send(FromShard::Ended(ShardId(shard_of(user(ROMEO).slot(), 2)))).unwrap();
        assert!(call(&world.socket, &Request::Status).unwrap().ok);
        let error = call(&world.socket, &block).unwrap().error.unwrap();
        assert_eq!(error.reason, "unavailable");
        stop(world);
    }

    #[test]
    fn lists_and_rosters_are_shown() {
        let world = world();
        let item = |contact: &str, state, groups: &[&str]| {
            Change::PutItem(Box::new(Item {
                contact: user(contact),
                listed: true,
                state,
                approved: state == State::To,
                name: "\u{1b}[2J".into(),
                groups: groups.iter().map(|it| Box::from(*it)).collect(),
                request: None,
                asked: Wall(0),
            }))
        };
        let changes = vec![
            item("juliet@example.com", State::Both, &["Friends", "Lovers"]),
            item("nurse@example.com", State::ToIn, &[]),
            item("friar@example.com", State::FromOut, &[]),
            Change::RosterVersion(9),
            Change::AddRule(List::Blocked, user("tybalt@example.com")),
            Change::AddRule(List::Allowed, user("evil.example")),
        ];
        assert_eq!(commit(&world, user(ROMEO), changes), Ok(()));
        let of = |after: &str, limit| (ROMEO.to_owned(), after.to_owned(), limit);
        let (address, after, limit) = of("", 2);
        let request = Request::UserRoster { address, after, limit };
        let response = call(&world.socket, &request).unwrap();
        assert_eq!(response.result["version"], 9);
        let friar = &response.result["rows"][0];
        assert_eq!((&friar["subscription"], &friar["pending"]), (&json!("from"), &json!("out")));
        let shown = render(&request, &response, Format::Text);
        assert!(shown.starts_with("CONTACT") && !shown.contains('\u{1b}'), "{shown}");
        assert!(shown.contains("Friends, Lovers"), "{shown}");
        assert!(shown.contains("more: --after juliet@example.com"), "{shown}");
        let (address, after, limit) = of("juliet@example.com", 2);
        let rest = Request::UserRoster { address, after, limit };
        let rest = call(&world.socket, &rest).unwrap();
        assert_eq!(rest.result["rows"].as_array().unwrap().len(), 1);
        assert_eq!(rest.result["rows"][0]["pending"], "in");
        assert_eq!(rest.result["next"], serde_json::Value::Null);
        let (address, after, limit) = of("", 10);
        let request = Request::UserLists { address, after, limit };
        let response = call(&world.socket, &request).unwrap();
        let expected = json!([
            {"list": "allowed", "pattern": "evil.example"},
            {"list": "blocked", "pattern": "tybalt@example.com"},
        ]);
        assert_eq!(response.result["rows"], expected);
        assert!(render(&request, &response, Format::Text).starts_with("LIST"));
        stop(world);
    }
}
