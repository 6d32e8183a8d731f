//! Reads and plays a scene: a conversation as lines that say who does what, with XML below them.
//!
//! The words are listed in `tests/scenes/README.md`. After each line the checkers of the world look
//! at the books; after the last one everybody leaves, and nothing may be left behind.

use std::collections::BTreeMap;
use std::time::Duration;

use tandem::address::Address;
use tandem::home::subscription::Denial;
use tandem::shard::kernel::Order;

use crate::actors::Actor;
use crate::control::Dns;
use crate::edges::Edge;
use crate::kernel::Cut;
use crate::world::{CLIENTS, CLIENTS_STARTTLS, PEERS, World};
use crate::xml::{self, Captures, Item};

/// A line and the block below it.
pub(crate) struct Line {
    number: usize,
    pub(crate) text: String,
    pub(crate) block: String,
}

pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) actors: BTreeMap<String, Actor>,
    pub(crate) edges: BTreeMap<String, Edge>,
    pub(crate) captures: Captures,
    ladder: Vec<String>,
}

pub(crate) type Done = Result<(), String>;

/// Plays a scene; the error tells where it went wrong and what was said before.
pub(crate) fn play(text: &str, seed: u64, cut: Cut) -> Done {
    let lines = read(text);
    let shards = lines
        .iter()
        .find_map(|line| line.text.strip_prefix("shards "))
        .map_or(Ok(2), |n| n.trim().parse())
        .map_err(|e| format!("shards: {e}"))?;
    let denial = match lines.iter().any(|line| line.text == "denial explicit") {
        true => Denial::Explicit,
        false => Denial::Polite,
    };
    let mut stage = Stage {
        world: World::with(shards, seed, cut, denial),
        actors: BTreeMap::new(),
        edges: BTreeMap::new(),
        captures: Captures::new(),
        ladder: Vec::new(),
    };
    for line in &lines {
        stage
            .ladder
            .push(format!("{:>12?}  [{}] {}", stage.world.core.now, line.number, line.text));
        let done = stage.play(line).and_then(|()| {
            stage.gather()?;
            // To ask is a turn more, which would hide that somebody was not woken.
            if seed.is_multiple_of(2) { stage.world.figures().map(drop) } else { Ok(()) }
        });
        if let Err(why) = done {
            return Err(stage.tell(line.number, &line.text, &why));
        }
    }
    stage.end().map_err(|why| stage.tell(0, "(the end)", &why))
}

fn read(text: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let is_block = line.starts_with([' ', '\t']);
        if is_block {
            if let Some(last) = lines.last_mut() {
                if !last.block.is_empty() {
                    last.block.push('\n');
                }
                last.block.push_str(line.trim());
            }
        } else if !line.trim().is_empty() && !line.starts_with('#') {
            let text = line.trim().to_owned();
            lines.push(Line { number, text, block: String::new() });
        }
    }
    lines
}

impl Stage {
    #[expect(clippy::too_many_lines, reason = "one arm per word of the language")]
    fn play(&mut self, line: &Line) -> Done {
        let words: Vec<&str> = line.text.split_whitespace().collect();
        match words.as_slice() {
            ["shards", _] | ["denial", "explicit"] => Ok(()),
            ["client", name, "=", jid, rest @ ..] => self.client(name, jid, rest),
            ["peer", name, "=", domain, "at", at] => self.peer(name, domain, at),
            ["edge", name, "=", domain, "at", at] => self.edge(name, domain, at),
            ["home", jid, "=", shard] => {
                let address = Address::parse(jid).map_err(|e| format!("{jid}: {e:?}"))?;
                let shards = self.world.shards() as u16;
                let home = tandem::route::shard_of(address.slot(), shards).to_string();
                same("home", &home, shard)
            }
            ["domain", domain, "=", shard] => {
                let shards = self.world.shards() as u16;
                same("way", &tandem::route::shard_of_domain(domain, shards).to_string(), shard)
            }
            ["store", "unavailable"] => {
                self.world.core.control.store.available = false;
                Ok(())
            }
            ["store", "available"] => {
                self.world.core.control.store.available = true;
                Ok(())
            }
            ["store", "takes", time] => {
                self.world.core.control.store.delay = duration(time)?;
                Ok(())
            }
            ["control", state] => on_off(state, &mut self.world.core.control_full),
            ["mesh", state] => on_off(state, &mut self.world.core.mesh_full),
            ["dns", domain, "=", what] => {
                let dns = match *what {
                    "absent" => Dns::Absent,
                    "failed" => Dns::Failed,
                    at => Dns::At(at.parse().map_err(|e| format!("{at}: {e}"))?),
                };
                self.world.core.control.dns.insert((*domain).to_owned(), dns);
                Ok(())
            }
            ["advance", time] => {
                self.world.advance(duration(time)?);
                self.world.settle();
                Ok(())
            }
            ["stop"] => {
                for shard in 0..self.world.shards() {
                    self.world.order(shard, Order::Stop);
                }
                self.world.settle();
                Ok(())
            }
            ["all", "shards", "are", "done"] => match self.world.done.iter().all(|done| *done) {
                true => Ok(()),
                false => Err(format!("done: {:?}", self.world.done)),
            },
            ["kick", jid] => {
                let user = Address::parse(jid).map_err(|e| format!("{jid}: {e:?}"))?;
                for shard in 0..self.world.shards() {
                    self.world.order(shard, Order::Kick { user: user.clone() });
                }
                self.world.settle();
                Ok(())
            }
            ["account", kind, figure, "=", value] => {
                self.world.advance(Duration::from_millis(400));
                self.world.settle();
                let key = match *figure {
                    "offered" | "refused" | "taken" => {
                        format!("tandem_stanzas_{figure}_total{{kind={kind}}}")
                    }
                    "in_flight" => format!("tandem_stanzas_in_flight{{kind={kind}}}"),
                    outcome => {
                        format!("tandem_stanzas_closed_total{{kind={kind},outcome={outcome}}}")
                    }
                };
                self.figure(&key, value)
            }
            ["counter", key, "=", value] => self.figure(key, value),
            [name, deed @ ..] if self.actors.contains_key(*name) => {
                let mut actor = self.actors.remove(*name).expect("it is there");
                let done = self.act(&mut actor, deed, &line.block);
                self.actors.insert((*name).to_owned(), actor);
                done
            }
            [name, deed @ ..] if self.edges.contains_key(*name) => {
                let mut edge = self.edges.remove(*name).expect("it is there");
                let done = self.edge_deed(&mut edge, deed, &line.block);
                self.edges.insert((*name).to_owned(), edge);
                done
            }
            _ => {
                self.play_store(line).unwrap_or_else(|| Err("nobody knows what to do here".into()))
            }
        }
    }

    fn client(&mut self, name: &str, jid: &str, rest: &[&str]) -> Done {
        let address = Address::parse(jid).map_err(|e| format!("{jid}: {e:?}"))?;
        let mut password = "pencil";
        let mut has_account = true;
        match rest {
            [] => {}
            ["without", "account"] => has_account = false,
            ["who", "says", "password", wrong] => password = wrong,
            _ => return Err("clients are: client NAME = JID [without account]".into()),
        }
        if has_account {
            let accounts = &mut self.world.core.control.accounts;
            accounts.insert(address.bare().to_owned(), "pencil".to_owned());
            self.world.core.control.store.open(address.bare());
        }
        let actor = Actor::new(name, address, password, "jabber:client");
        self.actors.insert(name.to_owned(), actor);
        Ok(())
    }

    fn peer(&mut self, name: &str, domain: &str, at: &str) -> Done {
        let address = Address::parse(domain).map_err(|e| format!("{domain}: {e:?}"))?;
        let socket = at.parse().map_err(|e| format!("{at}: {e}"))?;
        self.world.core.listening.insert(socket, name.to_owned());
        self.actors.insert(name.to_owned(), Actor::new(name, address, "", "jabber:server"));
        Ok(())
    }

    /// One actor's deed.
    fn act(&mut self, actor: &mut Actor, deed: &[&str], block: &str) -> Done {
        let world = &mut self.world;
        match deed {
            ["connects", rest @ ..] => {
                let is_peer = actor.content == "jabber:server";
                let (listener, rest) = match rest {
                    ["with", "starttls", rest @ ..] => (CLIENTS_STARTTLS, rest),
                    rest => (if is_peer { PEERS } else { CLIENTS }, rest),
                };
                let shard = match rest {
                    ["at", "shard", n] => n.parse().map_err(|e| format!("{n}: {e}"))?,
                    _ => actor.home(world),
                };
                actor.connect(world, shard, listener);
                Ok(())
            }
            ["accepts"] => {
                world.settle();
                let at = world.core.connected.iter().position(|(name, _)| *name == actor.name);
                let at = at.ok_or_else(|| format!("nobody connects to {}", actor.name))?;
                actor.wire = Some(world.core.connected.remove(at).1);
                Ok(())
            }
            ["opens"] => actor.open(world).map(drop),
            ["logs", "in"] => actor.log_in(world),
            ["binds"] => actor.bind(world),
            ["enters"] => actor.log_in(world).and_then(|()| actor.bind(world)),
            ["sends:"] => {
                let text = xml::fill(block, &self.captures);
                actor.say(world, &text)?;
                world.settle();
                Ok(())
            }
            ["sends", "octets:"] => {
                let wire = actor.wire()?;
                world.core.say(wire, &unescape(block));
                world.settle();
                Ok(())
            }
            ["sends", count, "x:"] => {
                let count: usize = count.parse().map_err(|e| format!("{count}: {e}"))?;
                let text = xml::fill(block, &self.captures);
                let wire = actor.wire()?;
                for n in 1..=count {
                    world.core.say(wire, text.replace("{n}", &n.to_string()).as_bytes());
                }
                world.settle();
                Ok(())
            }
            ["receives:"] => self.receives(actor, block),
            ["receives", count, "x:"] => {
                let count: usize = count.parse().map_err(|e| format!("{count}: {e}"))?;
                (1..=count)
                    .try_for_each(|n| self.receives(actor, &block.replace("{n}", &n.to_string())))
            }
            ["receives", "in", "any", "order:"] => self.receives_any(actor, block),
            ["receives", "nothing"] => {
                world.settle();
                actor.listen(world)?;
                match actor.items.front() {
                    None => Ok(()),
                    Some(item) => Err(format!("{} receives {item:?}", actor.name)),
                }
            }
            deed => match self.long_deed(actor, deed) {
                Some(done) => done,
                None => self.wire_deed(actor, deed),
            },
        }
    }

    /// What happens to an actor's connection.
    fn wire_deed(&mut self, actor: &mut Actor, deed: &[&str]) -> Done {
        let world = &mut self.world;
        let wire = actor.wire()?;
        match deed {
            ["disconnects"] => world.core.say_fin(wire),
            ["resets"] => world.core.reset(wire),
            ["stops", "reading"] => world.core.set_reading(wire, false),
            ["reads", "on"] => world.core.set_reading(wire, true),
            ["goes", "silent"] => world.core.wires[wire].silent = true,
            ["lingers"] => world.core.wires[wire].polite = false,
            ["ignores", "what", "came"] => {
                world.settle();
                actor.listen(world)?;
                actor.items.clear();
            }
            ["ignores", "the", "rest"] => {
                world.settle();
                actor.listen(world)?;
                actor.items.clear();
                actor.careless = true;
            }
            ["is", "disconnected"] => {
                world.settle();
                let w = &world.core.wires[wire];
                return (w.saw_fin || w.saw_reset).then_some(()).ok_or_else(|| "it is not".into());
            }
            ["is", "reset"] => {
                world.settle();
                return world.core.wires[wire]
                    .saw_reset
                    .then_some(())
                    .ok_or_else(|| "it is not".into());
            }
            ["is", "connected"] => {
                world.settle();
                let w = &world.core.wires[wire];
                return (!w.saw_fin && !w.saw_reset)
                    .then_some(())
                    .ok_or_else(|| "it is not".into());
            }
            ["is", "at", "shard", n] => {
                world.settle();
                return same("shard", &world.core.wires[wire].shard.to_string(), n);
            }
            _ => return Err("nobody knows how to do this".into()),
        }
        self.world.settle();
        Ok(())
    }

    fn receives(&mut self, actor: &mut Actor, block: &str) -> Done {
        for pattern in xml::items(block, actor.content)? {
            let actual = actor.hear(&mut self.world)?;
            xml::matches(&pattern, &actual, &mut self.captures)
                .map_err(|why| format!("{why}\nreceived {actual:?}"))?;
        }
        Ok(())
    }

    fn receives_any(&mut self, actor: &mut Actor, block: &str) -> Done {
        let mut patterns = xml::items(block, actor.content)?;
        while !patterns.is_empty() {
            let actual: Item = actor.hear(&mut self.world)?;
            let captures = &mut self.captures;
            let at = patterns.iter().position(|p| {
                let mut tried = captures.clone();
                let fits = xml::matches(p, &actual, &mut tried).is_ok();
                if fits {
                    *captures = tried;
                }
                fits
            });
            patterns.remove(at.ok_or_else(|| format!("none of {patterns:?} fits {actual:?}"))?);
        }
        Ok(())
    }

    fn figure(&mut self, key: &str, value: &str) -> Done {
        let figures = self.world.figures()?;
        let found = figures.get(key).ok_or_else(|| format!("there is no figure {key}"))?;
        same(key, &found.to_string(), value)
    }

    /// Everybody listens, so that the ladder is in order.
    fn gather(&mut self) -> Done {
        for actor in self.actors.values_mut() {
            actor.listen(&mut self.world)?;
            self.ladder.append(&mut actor.ladder);
        }
        for edge in self.edges.values_mut() {
            edge.listen(&mut self.world)?;
            self.ladder.append(&mut edge.ladder);
        }
        Ok(())
    }

    /// Nothing unexpected was said; everybody leaves; nothing stays behind.
    fn end(&mut self) -> Done {
        self.world.settle();
        self.world.advance(Duration::from_millis(400));
        self.gather()?;
        for actor in self.actors.values() {
            if let (false, Some(item)) = (actor.careless, actor.items.front()) {
                return Err(format!("{} received {item:?} as well", actor.name));
            }
        }
        for (name, edge) in &self.edges {
            if let Some(message) = edge.leftover() {
                return Err(format!("{name} heard {message:?} as well"));
            }
        }
        for actor in self.actors.values() {
            if let Some(wire) = actor.wire {
                self.world.core.set_reading(wire, true);
                self.world.core.say_fin(wire);
            }
        }
        // Nobody is found either: a partner that was lost is looked for.
        self.world.core.listening.clear();
        for wire in 0..self.world.core.wires.len() {
            self.world.core.say_fin(wire);
        }
        self.world.core.mesh_full = false;
        self.world.core.control_full = false;
        // Longer than any deadline of a stream.
        self.world.advance(Duration::from_secs(200));
        let figures = self.world.figures()?;
        if World::in_flight(&figures) != 0 {
            return Err(format!("{} stanzas stay in flight", World::in_flight(&figures)));
        }
        same("connections at the end", &figures["tandem_connections"].to_string(), "0")
    }

    fn tell(&mut self, number: usize, line: &str, why: &str) -> String {
        let end = self.gather().err().unwrap_or_default();
        let from = self.ladder.len().saturating_sub(40);
        let ladder = self.ladder[from..].join("\n    ");
        format!("line {number}: {line}\n  {why} {end}\n    {ladder}")
    }
}

fn same(what: &str, actual: &str, wanted: &str) -> Done {
    (actual == wanted).then_some(()).ok_or_else(|| format!("{what} is {actual}, not {wanted}"))
}

fn on_off(state: &str, full: &mut bool) -> Done {
    *full = match state {
        "full" => true,
        "free" => false,
        _ => return Err("it is full or free".into()),
    };
    Ok(())
}

/// `300ms`, `32s`, `5min`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|e| format!("{text}: {e}"))?;
    match &text[digits..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "min" => Ok(Duration::from_secs(60 * number)),
        unit => Err(format!("{unit} is no unit of time")),
    }
}

/// `\xNN` in a block of octets.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x") {
        out.extend_from_slice(before.as_bytes());
        out.push(u8::from_str_radix(&after[..2], 16).expect("two hexadecimal digits"));
        rest = &after[2..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}
