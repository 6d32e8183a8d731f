//! The store, made up: what is kept of each user, answered in the order of the questions.
//!
//! What was asked to be kept is seen by whoever asks later, but it is on the disk only when its
//! answer is due: a node that dies before may have kept it or not, and not what was asked after
//! something that it lost. It has **no** rules of its own, like the real one.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tandem::address::Address;
use tandem::home::dialogs::{DialogChange, DialogKey, DialogRow};
use tandem::home::record::{Change, Fetch, Fetched, Item, List, Message, Record};
use tandem::home::subscription::State;
use tandem::route::shard_of;
use tandem::shard::kernel::{Answer, Question, Unavailable};
use tandem::time::{Moment, Wall};

use crate::random::Random;

/// All of one user.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    record: Record,
    messages: BTreeMap<u64, Message>,
    private: BTreeMap<Box<str>, Box<[u8]>>,
    vcard: Option<Box<[u8]>>,
}

/// All that is kept.
#[derive(Clone, Debug, Default)]
struct Contents {
    /// Users by bare address.
    users: BTreeMap<String, Kept>,
    dialogs: BTreeMap<DialogKey, DialogRow>,
}

/// What one question brings.
#[derive(Clone, Debug)]
enum Written {
    User(String, Vec<Change>),
    Dialogs(Vec<DialogChange>),
}

impl Contents {
    fn write(&mut self, written: &Written) {
        match written {
            Written::User(bare, changes) => {
                let Some(kept) = self.users.get_mut(bare) else { return };
                for change in changes {
                    kept.keep(change);
                }
            }
            Written::Dialogs(changes) => {
                for change in changes {
                    match change {
                        DialogChange::Put(row) if self.users.contains_key(row.user.bare()) => {
                            self.dialogs.insert(row.key.clone(), (**row).clone());
                        }
                        DialogChange::Put(_) => {}
                        DialogChange::Remove(key) => {
                            self.dialogs.remove(key);
                        }
                    }
                }
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Store {
    /// As whoever asks now sees it.
    now: Contents,
    /// As a node finds it that dies now, if it has lost all that is on its way.
    disk: Contents,
    /// What is on its way to the disk.
    written: VecDeque<(Moment, Written)>,
    /// Of the node.
    pub(crate) shards: u16,
    pub(crate) available: bool,
    /// How long it takes.
    pub(crate) delay: Duration,
    /// When the last answer is due: none comes before an older one.
    last: Moment,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            now: Contents::default(),
            disk: Contents::default(),
            written: VecDeque::new(),
            shards: 1,
            available: true,
            delay: Duration::from_micros(300),
            last: Moment(0),
        }
    }
}

impl Store {
    /// The answer and when it comes; `None`: it is nothing for the store.
    pub(crate) fn ask(
        &mut self,
        now: Moment,
        shard: usize,
        question: Question,
    ) -> Option<(Duration, Answer)> {
        self.flush(now);
        self.last = self.last.max(now + self.delay);
        let due = self.last;
        let answer = match question {
            Question::Load { ticket, user } => Answer::Loaded {
                ticket,
                record: self
                    .read(|it| it.now.users.get(user.bare()).map(|kept| kept.load().into())),
            },
            Question::Commit { ticket, user, changes } => {
                Answer::Committed { ticket, done: self.commit(due, user.bare(), changes) }
            }
            Question::Fetch { ticket, user, what } => {
                let found = match self.available {
                    true => Ok(self.now.users.get(user.bare()).map_or_else(
                        || match &what {
                            Fetch::Messages { .. } => Fetched::Messages(Vec::new()),
                            _ => Fetched::Payload(None),
                        },
                        |kept| kept.fetch(&what),
                    )),
                    false => Err(Unavailable),
                };
                Answer::Fetched { ticket, found }
            }
            Question::Keep { ticket, changes } => {
                Answer::Kept { ticket, done: self.keep(due, changes) }
            }
            Question::Dialogs { ticket, after, count } => {
                let after = after.unwrap_or_default();
                let is_mine =
                    |row: &&DialogRow| usize::from(shard_of(row.user.slot(), self.shards)) == shard;
                let rows = self.read(|it| {
                    let behind = it.now.dialogs.values().filter(|row| row.key > after);
                    behind.filter(is_mine).take(count as usize).cloned().collect()
                });
                Answer::Dialogs { ticket, rows }
            }
            _ => return None,
        };
        Some((due.since(now), answer))
    }

    /// What is read while nobody can be answered is not read.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Self) -> T) -> Result<T, Unavailable> {
        if self.available { Ok(read(self)) } else { Err(Unavailable) }
    }

    fn commit(&mut self, due: Moment, bare: &str, changes: Vec<Change>) -> Result<(), Unavailable> {
        if !self.available || !self.now.users.contains_key(bare) {
            return Err(Unavailable);
        }
        self.write(due, Written::User(bare.to_owned(), changes));
        Ok(())
    }

    fn keep(&mut self, due: Moment, changes: Vec<DialogChange>) -> Result<(), Unavailable> {
        if !self.available {
            return Err(Unavailable);
        }
        self.write(due, Written::Dialogs(changes));
        Ok(())
    }

    fn write(&mut self, due: Moment, written: Written) {
        self.now.write(&written);
        self.written.push_back((due, written));
    }

    /// What was answered is on the disk.
    fn flush(&mut self, now: Moment) {
        while self.written.front().is_some_and(|(due, ..)| *due <= now) {
            self.write_one();
        }
    }

    fn write_one(&mut self) {
        if let Some((_, written)) = self.written.pop_front() {
            self.disk.write(&written);
        }
    }

    /// The node dies: some of what was on its way is there, in the order in which it was asked for.
    pub(crate) fn die(&mut self, now: Moment, random: &mut Random) {
        self.flush(now);
        for _ in 0..random.below(self.written.len() as u64 + 1) {
            self.write_one();
        }
        self.written.clear();
        self.now = self.disk.clone();
        self.last = now;
    }

    // What scenes prepare and look at.

    /// There is an account.
    pub(crate) fn open(&mut self, bare: &str) {
        self.change(bare, |_| {});
    }

    /// The account is removed with all it has.
    pub(crate) fn close(&mut self, bare: &str) {
        for state in [&mut self.now, &mut self.disk] {
            state.users.remove(bare);
            state.dialogs.retain(|_, row| row.user.bare() != bare);
        }
    }

    fn change(&mut self, bare: &str, change: impl Fn(&mut Kept)) {
        for state in [&mut self.now, &mut self.disk] {
            change(state.users.entry(bare.to_owned()).or_insert_with(|| Kept {
                record: Record { next_message: 1, ..Record::default() },
                ..Kept::default()
            }));
        }
    }

    pub(crate) fn put_items(&mut self, bare: &str, items: &[Item]) {
        self.change(bare, |kept| {
            for item in items {
                kept.keep(&Change::PutItem(Box::new(item.clone())));
                kept.record.roster_version += 1;
            }
        });
    }

    pub(crate) fn add_rule(&mut self, bare: &str, list: List, rule: &Address) {
        self.change(bare, |kept| kept.keep(&Change::AddRule(list, rule.clone())));
    }

    pub(crate) fn put_message(&mut self, bare: &str, at: Wall, octets: &str) {
        self.change(bare, |kept| {
            let number = kept.record.next_message;
            let octets = octets.as_bytes().into();
            kept.keep(&Change::StoreMessage(Message { number, at, octets }));
        });
    }

    /// The items of a user, sorted by contact.
    pub(crate) fn items(&self, bare: &str) -> Vec<Item> {
        let mut items =
            self.now.users.get(bare).map_or(Vec::new(), |kept| kept.record.items.clone());
        items.sort_by(|a, b| a.contact.cmp(&b.contact));
        items
    }

    /// The rules on one list of a user, sorted.
    pub(crate) fn rules(&self, bare: &str, list: List) -> Vec<Address> {
        let rules = self.now.users.get(bare).map_or(&[] as &[_], |kept| &kept.record.rules);
        let mut rules: Vec<_> =
            rules.iter().filter(|(of, _)| *of == list).map(|(_, rule)| rule.clone()).collect();
        rules.sort();
        rules
    }

    /// The messages that wait for a user.
    pub(crate) fn messages(&self, bare: &str) -> Vec<Message> {
        self.now
            .users
            .get(bare)
            .map_or(Vec::new(), |kept| kept.messages.values().cloned().collect())
    }

    /// The dialogs of a user, by key.
    #[expect(dead_code, reason = "for scenes of SIP dialogs")]
    pub(crate) fn dialogs(&self, bare: &str) -> Vec<DialogRow> {
        self.now.dialogs.values().filter(|row| row.user.bare() == bare).cloned().collect()
    }
}

impl Kept {
    fn load(&self) -> Record {
        let messages = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        Record { messages, ..self.record.clone() }
    }

    fn keep(&mut self, change: &Change) {
        let record = &mut self.record;
        match change {
            Change::PutItem(item) => {
                record.items.retain(|it| it.contact != item.contact);
                record.items.push((**item).clone());
            }
            Change::RemoveItem(contact) => record.items.retain(|it| it.contact != *contact),
            Change::RosterVersion(version) => record.roster_version = *version,
            Change::AddRule(list, rule) => {
                if !record.rules.iter().any(|(l, r)| (l, r) == (list, rule)) {
                    record.rules.push((*list, rule.clone()));
                }
            }
            Change::RemoveRule(list, rule) => {
                record.rules.retain(|(l, r)| (l, r) != (list, rule));
            }
            Change::Last(last) => record.last = Some(last.clone()),
            Change::StoreMessage(message) => {
                record.next_message = record.next_message.max(message.number + 1);
                self.messages.insert(message.number, message.clone());
            }
            Change::RemoveMessages(numbers) => {
                for number in numbers {
                    self.messages.remove(number);
                }
            }
            Change::Private { name, octets } => {
                self.private.insert(name.clone(), octets.clone());
            }
            Change::Vcard(vcard) => self.vcard.clone_from(vcard),
        }
    }

    fn fetch(&self, what: &Fetch) -> Fetched {
        match what {
            Fetch::Vcard => Fetched::Payload(self.vcard.clone()),
            Fetch::Private(name) => Fetched::Payload(self.private.get(name).cloned()),
            Fetch::Messages { after, count } => Fetched::Messages(
                self.messages
                    .range(after.saturating_add(1)..)
                    .take(*count as usize)
                    .map(|(_, message)| message.clone())
                    .collect(),
            ),
        }
    }
}

/// An item as scenes write it: `bob@a.example both "Bob" [Friends, Work] approved`.
///
/// The states are `none`, `to`, `from`, `both`; `+out` behind them says that the user's request is
/// pending, `+in` that the contact's is. A mere request is not listed unless `listed` is said.
pub(crate) fn item(text: &str, user: &str) -> Result<Item, String> {
    let (text, groups) = match text.split_once('[') {
        Some((before, rest)) => {
            let (groups, after) = rest.split_once(']').ok_or("an open bracket")?;
            (format!("{before} {after}"), groups)
        }
        None => (text.to_owned(), ""),
    };
    let (text, name) = match text.split_once('"') {
        Some((before, rest)) => {
            let (name, after) = rest.split_once('"').ok_or("an open quote")?;
            (format!("{before} {after}"), name.to_owned())
        }
        None => (text, String::new()),
    };
    let mut words = text.split_whitespace();
    let contact = words.next().ok_or("an item without its contact")?;
    let contact = Address::parse(contact).map_err(|e| format!("{contact}: {e:?}"))?;
    let state = words.next().ok_or("an item without its state")?;
    let at = STATES.iter().position(|name| *name == state);
    let state = at.and_then(|at| State::ALL.get(at)).ok_or_else(|| format!("state {state}"))?;
    let pending_in = matches!(state, State::NoneIn | State::NoneBoth | State::ToIn).then(|| {
        format!("<presence type='subscribe' from='{contact}' to='{user}'/>").into_bytes().into()
    });
    let mut groups: Vec<Box<str>> =
        groups.split(',').map(str::trim).filter(|g| !g.is_empty()).map(Into::into).collect();
    groups.sort();
    let mut item = Item {
        contact,
        listed: *state != State::NoneIn,
        state: *state,
        approved: false,
        name: name.into(),
        groups: groups.into(),
        request: pending_in,
        asked: Wall(0),
    };
    for word in words {
        match word {
            "approved" => item.approved = true,
            "listed" => item.listed = true,
            "unlisted" => item.listed = false,
            word => return Err(format!("{word} is nothing an item can be")),
        }
    }
    Ok(item)
}

/// As [`State::ALL`].
const STATES: [&str; 9] =
    ["none", "none+out", "none+in", "none+out+in", "to", "to+in", "from", "from+out", "both"];

/// How scenes would write it.
pub(crate) fn shown(item: &Item) -> String {
    let mut text = format!("{} {}", item.contact, STATES[usize::from(item.state.index())]);
    if !item.name.is_empty() {
        text += &format!(" \"{}\"", item.name);
    }
    if !item.groups.is_empty() {
        text += &format!(" [{}]", item.groups.join(", "));
    }
    if item.approved {
        text += " approved";
    }
    match (item.listed, item.state == State::NoneIn) {
        (true, true) => text + " listed",
        (false, false) => text + " unlisted",
        _ => text,
    }
}
