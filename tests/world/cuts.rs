//! Two clients that count stanzas, and connections that are cut at random octets.
//!
//! Each cut is followed by a resumption (XEP-0198, 5), perhaps at another shard, perhaps while the old
//! stream is still open. In the end nothing is lost, nothing is doubled, and the order is kept.
//! `CUTS_SEED=7` repeats one run.

use std::collections::VecDeque;
use std::time::Duration;

use tandem::address::Address;

use crate::actors::Actor;
use crate::kernel::Cut;
use crate::random::Random;
use crate::world::{CLIENTS, World};
use crate::xml::{Element, Item};

const STEPS: usize = 120;

struct Client {
    actor: Actor,
    previd: String,
    /// Sent and not acknowledged, oldest first.
    unacked: VecDeque<String>,
    /// What the server has acknowledged in all.
    acked: u32,
    /// Stanzas handled in all.
    handled: u32,
    sent: usize,
    received: Vec<usize>,
}

struct Run {
    world: World,
    random: Random,
    clients: Vec<Client>,
    cuts: u64,
}

/// One run: connections cut, stanzas passed over because they were heard before, messages stored.
pub(crate) fn cut(seed: u64) -> Result<[u64; 3], String> {
    let mut random = Random::new(seed ^ 0xC075_0000);
    let shards = 1 + random.below(3) as u16;
    let world = World::new(shards, seed, Cut::Random);
    let mut run = Run { world, random, clients: Vec::new(), cuts: 0 };
    for name in ["romeo", "juliet"] {
        run.enter(name)?;
    }
    for _ in 0..STEPS {
        run.step()?;
    }
    run.calm()?;
    let figures = run.world.figures()?;
    let of = |name: &str| figures[name];
    let swallowed = of("tandem_duplicates_swallowed_total");
    Ok([run.cuts, swallowed, of("tandem_messages_spilled_total")])
}

impl Run {
    fn enter(&mut self, name: &str) -> Result<(), String> {
        let bare = format!("{name}@a.example");
        let control = &mut self.world.core.control;
        control.accounts.insert(bare.clone(), "pencil".to_owned());
        control.store.open(&bare);
        let address = Address::parse(&format!("{bare}/x")).map_err(|e| format!("{e:?}"))?;
        let mut actor = Actor::new(name, address, "pencil", "jabber:client");
        actor.log_in(&mut self.world)?;
        actor.bind(&mut self.world)?;
        actor.say(&mut self.world, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>")?;
        let Item::Element(enabled) = actor.hear(&mut self.world)? else {
            return Err("it is not enabled".into());
        };
        let previd = enabled.attrs.get("id").cloned().ok_or("no id")?;
        self.clients.push(Client {
            actor,
            previd,
            unacked: VecDeque::new(),
            acked: 0,
            handled: 0,
            sent: 0,
            received: Vec::new(),
        });
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        let who = self.random.below(2) as usize;
        match self.random.below(100) {
            0..60 => self.send(who, false)?,
            60..68 => self.send(who, true)?,
            68..72 => {
                let wire = self.clients[who].actor.wire()?;
                match self.random.below(3) {
                    0 => self.world.core.say_fin(wire),
                    1 => self.world.core.reset(wire),
                    _ => self.world.core.wires[wire].silent = true,
                }
                self.resume(who)?;
            }
            72..76 => {
                let ms = self.random.below(1_500);
                self.world.advance(Duration::from_millis(ms));
            }
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

    /// A few messages; `cut`: the connection breaks within them.
    fn send(&mut self, who: usize, cut: bool) -> Result<(), String> {
        let to = ["juliet", "romeo"][who];
        let mut text = String::new();
        for _ in 0..=self.random.below(4) {
            let padding = "x".repeat(self.random.below(300) as usize);
            let client = &mut self.clients[who];
            let stanza = format!(
                "<message to='{to}@a.example/x' type='chat' id='{}'><body>{padding}</body></message>",
                client.sent
            );
            client.sent += 1;
            text += &stanza;
            client.unacked.push_back(stanza);
        }
        if self.random.chance(30) {
            text += "<r xmlns='urn:xmpp:sm:3'/>";
        }
        let wire = self.clients[who].actor.wire()?;
        if !cut {
            self.world.core.say(wire, text.as_bytes());
            return Ok(());
        }
        let at = self.random.below(text.len() as u64) as usize;
        self.world.core.say(wire, &text.as_bytes()[..at]);
        let micros = self.random.below(3_000);
        self.world.advance(Duration::from_micros(micros));
        self.world.core.reset(wire);
        self.resume(who)
    }

    fn resume(&mut self, who: usize) -> Result<(), String> {
        self.cuts += 1;
        let ms = [0, 1, 20, 3_000][self.random.below(4) as usize];
        self.world.advance(Duration::from_millis(ms));
        // What had arrived was handled.
        self.listen()?;
        let shard = self.random.below(self.world.shards() as u64) as usize;
        let client = &mut self.clients[who];
        client.actor.items.clear();
        client.actor.connect(&mut self.world, shard, CLIENTS);
        client.actor.log_in(&mut self.world)?;
        let text = format!(
            "<resume xmlns='urn:xmpp:sm:3' h='{}' previd='{}'/>",
            client.handled, client.previd
        );
        client.actor.say(&mut self.world, &text)?;
        match client.actor.hear(&mut self.world)? {
            Item::Element(it) if it.name == "resumed" => client.acknowledged(&it)?,
            other => return Err(format!("{} receives {other:?}", client.actor.name)),
        }
        let wire = client.actor.wire()?;
        let again: String = client.unacked.iter().map(String::as_str).collect();
        if self.random.chance(20) && !again.is_empty() {
            let at = self.random.below(again.len() as u64) as usize;
            self.world.core.say(wire, &again.as_bytes()[..at]);
            let micros = self.random.below(3_000);
            self.world.advance(Duration::from_micros(micros));
            self.world.core.reset(wire);
            return self.resume(who);
        }
        self.world.core.say(wire, again.as_bytes());
        Ok(())
    }

    fn listen(&mut self) -> Result<(), String> {
        for client in &mut self.clients {
            client.actor.listen(&mut self.world)?;
            client.actor.ladder.clear();
            while let Some(item) = client.actor.items.pop_front() {
                let Item::Element(element) = item else { continue };
                match element.name.as_str() {
                    "r" => {
                        let text = format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", client.handled);
                        let wire = client.actor.wire()?;
                        self.world.core.say(wire, text.as_bytes());
                    }
                    "a" => client.acknowledged(&element)?,
                    "message" => {
                        client.handled = client.handled.wrapping_add(1);
                        let id = element.attrs.get("id").and_then(|id| id.parse().ok());
                        let n = id.ok_or_else(|| format!("what is this? {element:?}"))?;
                        if element.attrs.get("type").is_some_and(|it| it == "error") {
                            return Err(format!("{n} came back to {}", client.actor.name));
                        }
                        client.received.push(n);
                    }
                    // The end of a stream that another has taken over.
                    "error" => {}
                    _ => return Err(format!("{} receives {element:?}", client.actor.name)),
                }
            }
        }
        Ok(())
    }

    fn calm(&mut self) -> Result<(), String> {
        for _ in 0..4 {
            for client in &self.clients {
                self.world.core.say(client.actor.wire()?, b"<r xmlns='urn:xmpp:sm:3'/>");
            }
            self.world.advance(Duration::from_secs(2));
            self.listen()?;
        }
        self.world.advance(Duration::from_secs(2));
        let figures = self.world.figures()?;
        if World::in_flight(&figures) != 0 {
            return Err(format!("{} stanzas stay in flight", World::in_flight(&figures)));
        }
        for (client, other) in [(0, 1), (1, 0)].map(|(a, b)| (&self.clients[a], &self.clients[b])) {
            let name = &client.actor.name;
            if !client.unacked.is_empty() {
                return Err(format!("{} of {name} are never acknowledged", client.unacked.len()));
            }
            if !client.received.iter().copied().eq(0..other.sent) {
                let (got, sent) = (&client.received, other.sent);
                return Err(format!("{name} received {got:?} of {sent}"));
            }
            let kept = self.world.core.control.store.messages(client.actor.address.bare()).len();
            if kept != 0 {
                return Err(format!("{kept} messages of {name} stay in the store"));
            }
        }
        Ok(())
    }
}

impl Client {
    /// The server's `h`: what it covers is forgotten.
    fn acknowledged(&mut self, element: &Element) -> Result<(), String> {
        let h: u32 = element.attrs.get("h").and_then(|h| h.parse().ok()).ok_or("no h")?;
        let more = h.wrapping_sub(self.acked) as usize;
        if more > self.unacked.len() {
            return Err(format!("{} is told {h}, {} are out", self.actor.name, self.unacked.len()));
        }
        self.unacked.drain(..more);
        self.acked = h;
        Ok(())
    }
}
