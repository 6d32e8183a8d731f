//! A storm over rosters, subscriptions, presence and stored messages, with nodes that die.
//!
//! When all is quiet again, every client sees of its contacts what is so, the subscriptions of two
//! users are mirror images, no message that was taken is lost, and what was answered is on the
//! disk. `HOMES_SEED=7` repeats one run. Two subscription stanzas of one pair are never under way
//! at once here: those may well leave two states that don't fit (RFC 6121 knows no remedy).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tandem::address::Address;
use tandem::home::subscription::Denial;
use tandem::time::Moment;

use crate::actors::Actor;
use crate::kernel::Cut;
use crate::random::Random;
use crate::world::{CLIENTS, World};
use crate::xml::{Element, Item, Node};

const USERS: [&str; 4] = ["alice", "romeo", "mercutio", "nurse"];
const CHAIRS: usize = 8;
const STEPS: usize = 250;
/// Longer than any session without a stream.
const CALM: Duration = Duration::from_secs(420);

/// A client's connection.
struct Life {
    actor: Actor,
    wire: usize,
    user: usize,
    broken: bool,
    /// What it broadcast last; `None`: it is not available.
    status: Option<String>,
    /// When it became unavailable: what comes late is of the time before.
    away: Moment,
    /// The last presence of others, by full address: what they said.
    view: BTreeMap<String, String>,
    received: Vec<usize>,
    returned: BTreeSet<usize>,
    /// It counts stanzas (XEP-0198): messages by their number among all it sent.
    counts: bool,
    sent: Vec<Option<usize>>,
    heard: u32,
    acknowledged: usize,
}

/// A change of a user's roster, asked for by the user's first chair.
struct Edit {
    user: usize,
    contact: usize,
    /// `None`: the item is to be removed.
    name: Option<String>,
    answer: Option<bool>,
}

struct Storm {
    world: World,
    random: Random,
    lives: Vec<Life>,
    chairs: [Option<usize>; CHAIRS],
    /// Messages: who sent them, and to whom.
    messages: Vec<(usize, usize)>,
    edits: Vec<Edit>,
    words: usize,
    /// Nothing fails that may leave a pair's subscriptions apart.
    gentle: bool,
    /// How often the node died or the store went away.
    failures: usize,
}

/// One run.
pub(crate) fn rage(seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed ^ 0x4085_0000);
    let shards = 1 + random.below(3) as u16;
    let gentle = random.chance(50);
    let denial = if gentle { Denial::Explicit } else { Denial::Polite };
    let mut storm = Storm {
        world: World::with(shards, seed, Cut::Random, denial),
        random,
        lives: Vec::new(),
        chairs: [None; CHAIRS],
        messages: Vec::new(),
        edits: Vec::new(),
        words: 0,
        gentle,
        failures: 0,
    };
    for user in 0..USERS.len() {
        let control = &mut storm.world.core.control;
        control.accounts.insert(bare(user), "pencil".to_owned());
        control.store.open(&bare(user));
    }
    for _ in 0..STEPS {
        storm.step()?;
    }
    storm.calm()
}

fn bare(user: usize) -> String {
    format!("{}@a.example", USERS[user])
}

fn user_of(address: &str) -> Option<usize> {
    (0..USERS.len()).find(|user| address.split('/').next() == Some(&bare(*user)))
}

fn text_of(element: &Element, name: &str) -> String {
    let child = element.children.iter().find_map(|node| match node {
        Node::Element(child) if child.name == name => Some(crate::actors::text_of(child)),
        _ => None,
    });
    child.unwrap_or_default()
}

impl Storm {
    fn step(&mut self) -> Result<(), String> {
        let chair = self.random.below(CHAIRS as u64) as usize;
        let what = self.random.below(100);
        match (self.chairs[chair], what) {
            (None, 0..50) => self.enter(chair),
            (Some(life), 0..25) => self.message(life),
            (Some(life), 25..37) => self.presence(life),
            (Some(life), 37..67) => self.subscription(life, what),
            (Some(life), 67..75) if chair < USERS.len() => self.edit(life),
            (Some(life), 75..80) => self.end(chair, life, what),
            (_, 80..85) if !self.gentle => self.fail(what),
            (_, 85..90) => self.world.advance(Duration::from_secs(self.random.below(8))),
            _ => {}
        }
        let micros = self.random.below(4_000);
        self.world.advance(Duration::from_micros(micros));
        self.listen()?;
        if self.random.chance(5) {
            self.world.figures()?;
        }
        Ok(())
    }

    /// Logs in, asks for the roster, is available; a store that is slow or away may spoil it.
    fn enter(&mut self, chair: usize) {
        let user = chair % USERS.len();
        let Ok(address) = Address::parse(&format!("{}/{chair}", bare(user))) else { return };
        let mut actor = Actor::new(&format!("c{chair}"), address, "pencil", "jabber:client");
        let shard = self.random.below(self.world.shards() as u64) as usize;
        actor.connect(&mut self.world, shard, CLIENTS);
        let Ok(wire) = actor.wire() else { return };
        if actor.log_in(&mut self.world).is_err() || actor.bind(&mut self.world).is_err() {
            return self.world.core.reset(wire);
        }
        let counts = chair.is_multiple_of(2);
        let mut life = Life {
            actor,
            wire,
            user,
            broken: false,
            status: None,
            away: Moment(0),
            view: BTreeMap::new(),
            received: Vec::new(),
            returned: BTreeSet::new(),
            counts,
            sent: Vec::new(),
            heard: 0,
            acknowledged: 0,
        };
        if counts {
            self.world.core.say(wire, b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        }
        let get = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";
        self.world.core.say(wire, get.as_bytes());
        life.sent.push(None);
        self.chairs[chair] = Some(self.lives.len());
        self.lives.push(life);
        self.available(self.lives.len() - 1);
    }

    fn say(&mut self, life: usize, text: &str, message: Option<usize>) {
        let life = &mut self.lives[life];
        life.sent.push(message);
        self.world.core.say(life.wire, text.as_bytes());
        if life.counts {
            self.world.core.say(life.wire, b"<r xmlns='urn:xmpp:sm:3'/>");
        }
    }

    fn word(&mut self) -> String {
        self.words += 1;
        format!("w{}", self.words)
    }

    fn message(&mut self, life: usize) {
        let to = self.random.below(USERS.len() as u64) as usize;
        let n = self.messages.len();
        self.messages.push((life, to));
        let to = bare(to);
        let text = format!("<message to='{to}' type='chat' id='{n}'><body>{n}</body></message>");
        self.say(life, &text, Some(n));
    }

    fn available(&mut self, life: usize) {
        let word = self.word();
        let priority = self.random.below(4) as i64 - 1;
        let text =
            format!("<presence><status>{word}</status><priority>{priority}</priority></presence>");
        self.lives[life].status = Some(word);
        self.say(life, &text, None);
    }

    fn presence(&mut self, life: usize) {
        let now = self.world.core.now;
        let state = &self.lives[life];
        if state.status.is_none() && now.since(state.away) < Duration::from_secs(1) {
            return;
        }
        if state.status.is_none() || self.random.chance(75) {
            return self.available(life);
        }
        self.lives[life].status = None;
        self.lives[life].away = now;
        self.lives[life].view.clear();
        self.say(life, "<presence type='unavailable'/>", None);
    }

    fn subscription(&mut self, life: usize, what: u64) {
        let kind = match what {
            37..48 => "subscribe",
            48..59 => "subscribed",
            59..63 => "unsubscribe",
            _ => "unsubscribed",
        };
        let to = self.random.below(USERS.len() as u64) as usize;
        let to = bare(to);
        self.say(life, &format!("<presence type='{kind}' to='{to}'/>"), None);
        self.quieten();
    }

    fn edit(&mut self, life: usize) {
        let (user, n) = (self.lives[life].user, self.edits.len());
        let contact = (user + 1 + self.random.below(USERS.len() as u64 - 1) as usize) % USERS.len();
        let name = self.random.chance(75).then(|| self.word());
        let item = match &name {
            Some(name) => format!("<item jid='{}' name='{name}'/>", bare(contact)),
            None => format!("<item jid='{}' subscription='remove'/>", bare(contact)),
        };
        self.edits.push(Edit { user, contact, name, answer: None });
        let query = format!("<query xmlns='jabber:iq:roster'>{item}</query>");
        self.say(life, &format!("<iq type='set' id='e{n}'>{query}</iq>"), None);
        self.quieten();
    }

    /// What was begun for a pair comes to its end.
    fn quieten(&mut self) {
        if self.gentle {
            self.world.advance(Duration::from_millis(60));
        }
    }

    fn end(&mut self, chair: usize, life: usize, what: u64) {
        self.chairs[chair] = None;
        let life = &mut self.lives[life];
        life.broken = true;
        match what {
            75..77 => self.world.core.reset(life.wire),
            77..79 => self.world.core.say_fin(life.wire),
            _ => self.world.core.wires[life.wire].silent = true,
        }
    }

    fn fail(&mut self, what: u64) {
        let store = &mut self.world.core.control.store;
        match what {
            80 => store.delay = Duration::from_millis(self.random.below(300)),
            81 => {
                self.failures += 1;
                store.available = self.random.chance(70);
            }
            82 => store.available = true,
            _ if self.random.chance(60) => {
                self.failures += 1;
                self.world.die();
            }
            _ => {}
        }
    }

    /// Notes what everybody heard, and acknowledges.
    fn listen(&mut self) -> Result<(), String> {
        for life in &mut self.lives {
            life.actor.listen(&mut self.world)?;
            life.actor.ladder.clear();
            for item in std::mem::take(&mut life.actor.items) {
                if let Item::Element(element) = item {
                    hear(life, &element, &mut self.edits, &mut self.world)?;
                }
            }
            let w = &self.world.core.wires[life.wire];
            life.broken |= w.saw_fin || w.saw_reset;
        }
        for chair in &mut self.chairs {
            if chair.is_some_and(|life| self.lives[life].broken) {
                *chair = None;
            }
        }
        Ok(())
    }

    fn calm(&mut self) -> Result<(), String> {
        self.world.core.control.store.available = true;
        self.world.core.control.store.delay = Duration::from_micros(300);
        // In pieces: questions after the state of a stream want their answers.
        for _ in 0..CALM.as_secs() / 5 {
            self.world.advance(Duration::from_secs(5));
            self.listen()?;
        }
        let figures = self.world.figures()?;
        if World::in_flight(&figures) != 0 {
            return Err(format!("{} stanzas stay in flight", World::in_flight(&figures)));
        }
        self.check_messages()?;
        self.check_edits()?;
        self.check_views()?;
        if self.gentle { self.check_mirrors() } else { Ok(()) }
    }

    /// Nothing that was taken is lost, nothing is doubled without need.
    fn check_messages(&self) -> Result<(), String> {
        let mut stored = BTreeMap::<usize, usize>::new();
        for user in 0..USERS.len() {
            for message in self.world.core.control.store.messages(&bare(user)) {
                let text = String::from_utf8_lossy(&message.octets).into_owned();
                for item in crate::xml::items(&text, "jabber:client")? {
                    let Item::Element(element) = item else { continue };
                    let id = element.attrs.get("id").and_then(|id| id.parse().ok());
                    *stored.entry(id.ok_or("a message without id is stored")?).or_default() += 1;
                }
            }
        }
        for (n, (by, to)) in self.messages.iter().enumerate() {
            let sender = &self.lives[*by];
            let place = sender.sent.iter().position(|sent| *sent == Some(n));
            let taken = sender.counts && place.is_some_and(|at| at < sender.acknowledged);
            let received: usize = self
                .lives
                .iter()
                .map(|life| life.received.iter().filter(|m| **m == n).count())
                .sum();
            let stored = stored.get(&n).copied().unwrap_or_default();
            let returned = usize::from(sender.returned.contains(&n));
            let there = received + stored + returned;
            if there == 0 && (taken || !sender.broken) {
                return Err(format!("{n} of life {by} to {} is lost", bare(*to)));
            }
            let resources = self.lives.iter().filter(|life| life.user == *to).count();
            let may_double = resources > 1 || self.failures > 0;
            if stored > 1 || (there > 1 && !may_double) {
                return Err(format!(
                    "{n} to {}: {received} times received, {stored} stored, {returned} returned",
                    bare(*to)
                ));
            }
        }
        Ok(())
    }

    /// The roster has the last change that was answered, or one behind it.
    fn check_edits(&self) -> Result<(), String> {
        for user in 0..USERS.len() {
            let items = self.world.core.control.store.items(&bare(user));
            for contact in 0..USERS.len() {
                let mut allowed: Vec<Option<&str>> = vec![None];
                let own = self.edits.iter().filter(|e| (e.user, e.contact) == (user, contact));
                for edit in own {
                    match edit.answer {
                        Some(true) => allowed = vec![edit.name.as_deref()],
                        Some(false) => {}
                        None => allowed.push(edit.name.as_deref()),
                    }
                }
                let item = items.iter().find(|item| item.contact.full() == bare(contact));
                let name = item.map(|item| &*item.name).filter(|name| !name.is_empty());
                if !allowed.contains(&name) {
                    return Err(format!(
                        "{} has {name:?} for {}, not one of {allowed:?}",
                        bare(user),
                        bare(contact)
                    ));
                }
            }
        }
        Ok(())
    }

    /// Each client that is available sees the resources of those who let it, and of nobody else.
    fn check_views(&self) -> Result<(), String> {
        let there: Vec<&Life> =
            self.chairs.iter().flatten().map(|life| &self.lives[*life]).collect();
        let mut wrong = Vec::new();
        for life in there.iter().filter(|life| life.status.is_some()) {
            let mut wanted = BTreeMap::new();
            for other in &there {
                let items = self.world.core.control.store.items(&bare(other.user));
                let seen = other.user == life.user
                    || items.iter().any(|item| {
                        item.contact.full() == bare(life.user) && item.state.has_from()
                    });
                if let (true, Some(status)) = (seen, &other.status) {
                    wanted.insert(other.actor.address.full().to_owned(), status.clone());
                }
            }
            if life.view != wanted {
                let (who, view) = (&life.actor.address, &life.view);
                wrong.push(format!("{who} sees {view:?}, but it is {wanted:?}"));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n  ")) }
    }

    /// What one sees of the other is what the other shows.
    fn check_mirrors(&self) -> Result<(), String> {
        let state = |user: usize, contact: usize| {
            let items = self.world.core.control.store.items(&bare(user));
            let item = items.into_iter().find(|item| item.contact.full() == bare(contact));
            item.map(|item| item.state).unwrap_or_default()
        };
        for a in 0..USERS.len() {
            for b in (0..USERS.len()).filter(|b| *b != a) {
                let (ab, ba) = (state(a, b), state(b, a));
                if ab.has_to() != ba.has_from() || ab.pending_out() != ba.pending_in() {
                    return Err(format!(
                        "{} has {ab:?} for {}, which has {ba:?}",
                        bare(a),
                        bare(b)
                    ));
                }
            }
        }
        Ok(())
    }
}

/// One element that a client got.
fn hear(
    life: &mut Life,
    element: &Element,
    edits: &mut [Edit],
    world: &mut World,
) -> Result<(), String> {
    let attr = |name: &str| element.attrs.get(name).map(String::as_str).unwrap_or_default();
    if element.ns == "urn:xmpp:sm:3" {
        match element.name.as_str() {
            "a" => life.acknowledged = attr("h").parse().map_err(|e| format!("h: {e}"))?,
            "r" if !life.broken => {
                let answer = format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", life.heard);
                world.core.say(life.wire, answer.as_bytes());
            }
            _ => {}
        }
        return Ok(());
    }
    life.heard += 1;
    match (element.name.as_str(), attr("type")) {
        ("message", "error") => drop(life.returned.insert(attr("id").parse().unwrap_or_default())),
        ("message", _) => {
            let n = attr("id").parse().map_err(|_| format!("{element:?} has no number"))?;
            life.received.push(n);
        }
        ("presence", "") if life.status.is_some() && user_of(attr("from")).is_some() => {
            life.view.insert(attr("from").to_owned(), text_of(element, "status"));
        }
        ("presence", "unavailable") => match attr("from").contains('/') {
            true => drop(life.view.remove(attr("from"))),
            false => life.view.retain(|from, _| user_of(from) != user_of(attr("from"))),
        },
        ("iq", kind @ ("result" | "error")) => {
            let edit = attr("id").strip_prefix('e').and_then(|n| n.parse::<usize>().ok());
            if let Some(edit) = edit.and_then(|n| edits.get_mut(n)) {
                edit.answer = Some(kind == "result");
            }
        }
        _ => {}
    }
    Ok(())
}
