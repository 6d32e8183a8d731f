//! A storm: random traffic and failures from a seed, against checkers.
//!
//! Nothing is lost: every stanza that a client sent while its connection lived is received, or comes
//! back. Nothing is doubled, unless a receiver's connection broke under it. The order of a sender is
//! kept. The books balance, at the end nothing is in flight. `STORM_SEED=81` repeats one run.

use std::collections::BTreeMap;
use std::time::Duration;

use tandem::address::Address;

use crate::actors::Actor;
use crate::kernel::Cut;
use crate::random::Random;
use crate::world::{CLIENTS, World};
use crate::xml::Item;

const CLIENTS_MAX: usize = 8;
const STEPS: usize = 250;
const USERS: [&str; 4] = ["alice", "romeo", "mercutio", "nurse"];

/// A client's connection, from its login to its end.
struct Life {
    actor: Actor,
    wire: usize,
    /// Something happened to its connection that may cost octets on their way.
    broken: bool,
    /// Numbers of what it received, by sender, and of what came back to it.
    received: Vec<(usize, usize)>,
    returned: Vec<usize>,
    /// It counts stanzas (XEP-0198), and has handled so many; its session is never resumed.
    handled: Option<u32>,
}

struct Sent {
    by: usize,
    to: String,
}

struct Storm {
    world: World,
    random: Random,
    lives: Vec<Life>,
    /// The life that sits on each chair.
    chairs: [Option<usize>; CLIENTS_MAX],
    sent: Vec<Sent>,
}

/// One run.
pub(crate) fn rage(seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed ^ 0x5707_0000);
    let shards = 1 + random.below(4) as u16;
    let cut = if random.chance(20) { Cut::Whole } else { Cut::Random };
    let mut storm = Storm {
        world: World::new(shards, seed, cut),
        random,
        lives: Vec::new(),
        chairs: [None; CLIENTS_MAX],
        sent: Vec::new(),
    };
    storm.world.core.mesh_max = [10_000, 5][storm.random.below(2) as usize];
    for user in USERS {
        let accounts = &mut storm.world.core.control.accounts;
        accounts.insert(format!("{user}@a.example"), "pencil".to_owned());
        storm.world.core.control.store.open(&format!("{user}@a.example"));
    }
    for _ in 0..STEPS {
        storm.step()?;
    }
    storm.calm()
}

fn address_of(chair: usize) -> String {
    format!("{}@a.example/{chair}", USERS[chair % USERS.len()])
}

impl Storm {
    fn step(&mut self) -> Result<(), String> {
        let chair = self.random.below(CLIENTS_MAX as u64) as usize;
        match (self.chairs[chair], self.random.below(100)) {
            (None, 0..40) => self.enter(chair)?,
            (Some(life), 0..70) => {
                for _ in 0..=self.random.below(4) {
                    self.send(life);
                }
            }
            (Some(life), 70..73) => {
                self.leave(chair);
                self.world.core.reset(self.lives[life].wire);
            }
            (Some(life), 73..75) => {
                self.leave(chair);
                self.world.core.say_fin(self.lives[life].wire);
            }
            (Some(life), 75..77) => {
                self.leave(chair);
                self.world.core.wires[self.lives[life].wire].silent = true;
            }
            (Some(life), 77..85) => {
                let reading = self.random.chance(60);
                self.world.core.set_reading(self.lives[life].wire, reading);
            }
            (_, 85..88) => self.world.core.mesh_full = !self.world.core.mesh_full,
            (_, 88..90) => self.world.advance(Duration::from_secs(self.random.below(15))),
            _ => {}
        }
        let micros = self.random.below(4_000);
        self.world.advance(Duration::from_micros(micros));
        self.listen()?;
        if self.random.chance(10) {
            self.world.figures()?;
        }
        Ok(())
    }

    fn enter(&mut self, chair: usize) -> Result<(), String> {
        let address = Address::parse(&address_of(chair)).map_err(|e| format!("{e:?}"))?;
        let mut actor = Actor::new(&format!("c{chair}"), address, "pencil", "jabber:client");
        let shard = self.random.below(self.world.shards() as u64) as usize;
        actor.connect(&mut self.world, shard, CLIENTS);
        actor.log_in(&mut self.world)?;
        // One who sends right behind the bind request.
        let text =
            format!("{}<presence><priority>{chair}</priority></presence>", actor.bind_request());
        actor.say(&mut self.world, &text)?;
        actor.bound(&mut self.world)?;
        let wire = actor.wire()?;
        self.chairs[chair] = Some(self.lives.len());
        let (received, returned) = (Vec::new(), Vec::new());
        let handled = self.random.chance(40).then_some(0);
        if handled.is_some() {
            actor.say(&mut self.world, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>")?;
        }
        self.lives.push(Life { actor, wire, broken: false, received, returned, handled });
        Ok(())
    }

    fn leave(&mut self, chair: usize) {
        if let Some(life) = self.chairs[chair].take() {
            self.lives[life].broken = true;
        }
    }

    fn send(&mut self, life: usize) {
        let to = address_of(self.random.below(CLIENTS_MAX as u64) as usize);
        let n = self.sent.len();
        let padding = "x".repeat(self.random.below(2_000) as usize);
        let text = match self.random.below(10) {
            0..5 => format!("<message to='{to}' id='{n}'><body>{padding}</body></message>"),
            5..8 => {
                format!("<message to='{to}' type='chat' id='{n}'><body>{padding}</body></message>")
            }
            8 => format!("<iq to='{to}' type='get' id='{n}'><q xmlns='urn:x'>{padding}</q></iq>"),
            _ => {
                let text = format!(
                    "<presence><status>{padding}</status><priority>{}</priority></presence>",
                    self.random.below(9)
                );
                return self.world.core.say(self.lives[life].wire, text.as_bytes());
            }
        };
        self.sent.push(Sent { by: life, to });
        self.world.core.say(self.lives[life].wire, text.as_bytes());
    }

    /// Notes what everybody received.
    fn listen(&mut self) -> Result<(), String> {
        for life in &mut self.lives {
            life.actor.listen(&mut self.world)?;
            life.actor.ladder.clear();
            for item in life.actor.items.drain(..) {
                let Item::Element(element) = item else { continue };
                match (element.name.as_str(), &mut life.handled) {
                    ("enabled", Some(handled)) => *handled = 0,
                    ("message" | "presence" | "iq", Some(handled)) => *handled += 1,
                    ("r", Some(handled)) => {
                        let text = format!("<a xmlns='urn:xmpp:sm:3' h='{handled}'/>");
                        self.world.core.say(life.wire, text.as_bytes());
                    }
                    _ => {}
                }
                let number = element.attrs.get("id").and_then(|id| id.parse::<usize>().ok());
                let Some(n) = number else { continue };
                if element.attrs.get("type").is_some_and(|t| t == "error") {
                    life.returned.push(n);
                } else if element.name != "presence" {
                    let by = self.sent.get(n).ok_or_else(|| format!("{n} was never sent"))?.by;
                    life.received.push((by, n));
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

    /// The wind drops: all that is under way comes to its end, and is added up.
    fn calm(&mut self) -> Result<(), String> {
        self.world.core.mesh_full = false;
        for life in &self.lives {
            self.world.core.set_reading(life.wire, true);
        }
        for _ in 0..15 {
            self.world.advance(Duration::from_secs(10));
            self.listen()?;
        }
        let figures = self.world.figures()?;
        if World::in_flight(&figures) != 0 {
            return Err(format!("{} stanzas stay in flight", World::in_flight(&figures)));
        }
        if figures["tandem_sm_too_high_total"] != 0 {
            return Err("an h counts more than was sent".into());
        }
        let alive = self.chairs.iter().flatten().count() as u64;
        if figures["tandem_connections"] != alive {
            return Err(format!("{} connections, {alive} clients", figures["tandem_connections"]));
        }
        for (i, life) in self.lives.iter().enumerate() {
            let mut last: BTreeMap<usize, usize> = BTreeMap::new();
            for (by, n) in &life.received {
                // What is sent another way may come late: only who stays has a place in line.
                if let Some(before) = last.insert(*by, *n)
                    && before > *n
                    && !self.others_broke(&self.sent[*n].to, i)
                {
                    return Err(format!("{n} arrived behind {before}, both of life {by}"));
                }
            }
        }
        for (n, sent) in self.sent.iter().enumerate() {
            let received: usize = self
                .lives
                .iter()
                .map(|life| life.received.iter().filter(|(_, m)| *m == n).count())
                .sum();
            let sender = &self.lives[sent.by];
            let returned = sender.returned.iter().filter(|m| **m == n).count();
            let user = sent.to.split('/').next().unwrap_or_default();
            let kept = self
                .world
                .core
                .control
                .store
                .messages(user)
                .iter()
                .any(|it| String::from_utf8_lossy(&it.octets).contains(&format!(" id='{n}'")));
            if received + returned == 0 && !kept && !sender.broken {
                return Err(format!("{n} to {} is lost", sent.to));
            }
            if received + returned > 1 && !self.others_broke(&sent.to, usize::MAX) {
                return Err(format!(
                    "{n} to {}: {received} times received, {returned} times returned",
                    sent.to
                ));
            }
        }
        Ok(())
    }

    /// Another connection of that user broke at some time.
    fn others_broke(&self, to: &str, than: usize) -> bool {
        let user = to.split('/').next().unwrap_or_default();
        self.lives
            .iter()
            .enumerate()
            .any(|(i, life)| i != than && life.broken && life.actor.address.bare() == user)
    }
}
