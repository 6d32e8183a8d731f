//! A SIP partner of the scenes: an edge with its calls, in Microsoft's shapes.
//!
//! It reads and writes as the demo's partner does, with nothing of the switch's parser. What a line
//! leaves out of a request is filled in as a well-behaved user agent would: Via, From, To, Call-ID,
//! CSeq, Contact, Record-Route, Route. The words are listed in `tests/scenes/README.md`.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use tandem::cli::demo::script::{Call, Identity, Message, call};

use crate::scene::{Done, Stage, duration};
use crate::world::{SIP, World};
use crate::xml::{self, Captures};

#[derive(Debug)]
pub(crate) struct Edge {
    name: String,
    identity: Identity,
    address: IpAddr,
    wire: Option<usize>,
    /// Octets of each connection that are no whole message yet.
    rests: BTreeMap<usize, Vec<u8>>,
    /// With the connection each came on.
    heard: VecDeque<(usize, Message)>,
    calls: BTreeMap<String, Call>,
    /// The last request that was heard in a line.
    asked: Option<(usize, Message)>,
    number: u32,
    pub(crate) careless: bool,
    pub(crate) ladder: Vec<String>,
}

impl Edge {
    fn new(name: &str, domain: &str, address: IpAddr) -> Self {
        Self {
            name: name.to_owned(),
            identity: Identity {
                domain: domain.to_owned(),
                fqdn: format!("edge.{domain}"),
                transport: "TCP",
            },
            address,
            wire: None,
            rests: BTreeMap::new(),
            heard: VecDeque::new(),
            calls: BTreeMap::new(),
            asked: None,
            number: 0,
            careless: false,
            ladder: Vec::new(),
        }
    }

    /// What came on all its connections.
    pub(crate) fn listen(&mut self, world: &mut World) -> Done {
        while let Some(at) = world.core.connected.iter().position(|(name, _)| *name == self.name) {
            let wire = world.core.connected.remove(at).1;
            self.wire = Some(wire);
            self.rests.insert(wire, Vec::new());
        }
        for (&wire, rest) in &mut self.rests {
            rest.append(&mut world.core.wires[wire].inbound);
            while let Some((message, length)) = Message::cut(rest)? {
                rest.drain(..length);
                self.ladder.push(format!("    {} <- {}", self.name, message.shown()));
                // It may come or not (RFC 3261, 17.2.1).
                if message.what() != "100" {
                    self.heard.push_back((wire, message));
                }
            }
        }
        Ok(())
    }

    fn say(&mut self, world: &mut World, wire: usize, text: &str) {
        self.ladder.push(format!("    {} -> {}", self.name, text.replace("\r\n", " | ")));
        world.core.say(wire, text.as_bytes());
    }

    pub(crate) fn leftover(&self) -> Option<&Message> {
        self.heard.front().map(|it| &it.1).filter(|_| !self.careless)
    }

    pub(crate) fn wires(&self) -> impl Iterator<Item = usize> {
        self.rests.keys().copied()
    }

    /// The connection that stands.
    fn standing(&self, world: &World) -> Result<usize, String> {
        let stands = |wire: &usize| {
            let it = &world.core.wires[*wire];
            (it.conn.is_some() || it.moving.is_some()) && !it.saw_fin && !it.saw_reset && !it.broken
        };
        self.wire
            .filter(stands)
            .or_else(|| self.wires().find(|it| stands(it)))
            .ok_or_else(|| format!("{} has no connection", self.name))
    }

    fn dial(&mut self, world: &mut World, shard: usize) {
        let wire = world.core.dial_from(self.address, shard, SIP);
        self.wire = Some(wire);
        self.rests.insert(wire, Vec::new());
    }

    /// A request in a call, which begins with it if `parties` are named.
    fn request(
        &mut self,
        world: &mut World,
        method: &str,
        name: &str,
        parties: Option<(&str, &str)>,
        block: &str,
    ) -> Done {
        self.number += 1;
        let number = self.number;
        if let Some((from, to)) = parties {
            let id = format!("{name}{:08x}", world.core.random.number() as u32);
            let call = Call::begin(&self.identity, &id, &format!("e{number}"), from, to);
            self.calls.insert(name.to_owned(), call);
        }
        let wire = self.standing(world)?;
        let (own, body) = parts(block);
        let call = self.calls.get_mut(name).ok_or_else(|| format!("there is no call {name}"))?;
        let text = call.request(&self.identity, method, number, own, &body);
        self.say(world, wire, &text);
        world.settle();
        Ok(())
    }

    /// Answers the last request that was heard.
    fn answer(&mut self, world: &mut World, status: &str, reason: &str, block: &str) -> Done {
        let (wire, asked) = self.asked.clone().ok_or("nothing was asked")?;
        let (own, body) = parts(block);
        let id = asked.header("Call-ID");
        let tag = self.calls.values().find(|it| it.id == id).map(|it| it.our_tag.clone());
        let tag = tag.unwrap_or_else(|| "edge".to_owned());
        let status = format!("{status} {reason}");
        let text = call::answer(&self.identity, &asked, &tag, &status, own, &body);
        self.say(world, wire, &text);
        world.settle();
        Ok(())
    }

    /// The next message must be so; `call` names its call, or that it shall be called so.
    fn hear(
        &mut self,
        world: &mut World,
        what: &str,
        call: Option<&str>,
        block: &str,
        captures: &mut Captures,
    ) -> Done {
        world.settle();
        self.listen(world)?;
        let (wire, message) =
            self.heard.pop_front().ok_or_else(|| format!("{} hears nothing", self.name))?;
        let heard = || format!("heard {}", message.shown());
        if message.what() != what {
            return Err(heard());
        }
        fits(&message, block, captures).map_err(|why| format!("{why}\n{}", heard()))?;
        let id = message.header("Call-ID");
        if let Some(name) = call {
            let fresh = || Call::answered(id, &format!("t{name}"));
            if self.calls.entry(name.to_owned()).or_insert_with(fresh).id != id {
                return Err(format!("another call: {}", heard()));
            }
        }
        if let Some(call) = self.calls.values_mut().find(|it| it.id == id) {
            call.learn(&message, &self.identity);
        }
        if !message.is_response() {
            self.asked = Some((wire, message));
        }
        Ok(())
    }
}

/// Own headers, and the body behind `--`.
fn parts(block: &str) -> (&str, String) {
    let (own, body) = match block.strip_prefix("--") {
        Some(body) => ("", body),
        None => block.split_once("\n--").unwrap_or((block, "")),
    };
    (own, body.trim_start_matches('\n').replace('\n', "\r\n"))
}

/// Lines of a pattern: `Header: value`, `no Header`, and behind `--` texts that the body must have,
/// or `no text`.
fn fits(message: &Message, block: &str, captures: &mut Captures) -> Done {
    let (head, body) = match block.strip_prefix("--") {
        Some(body) => ("", body),
        None => block.split_once("\n--").unwrap_or((block, "")),
    };
    for line in head.lines().filter(|it| !it.trim().is_empty()) {
        if let Some(name) = line.strip_prefix("no ") {
            if message.all(name.trim()).next().is_some() {
                return Err(format!("it has {name}"));
            }
            continue;
        }
        if line.starts_with("to ") {
            let wanted = line.trim_start_matches("to ");
            same(wanted, message.uri(), captures)?;
            continue;
        }
        let (name, wanted) = line.split_once(':').ok_or_else(|| format!("no pattern: {line}"))?;
        let fitting = message.all(name.trim()).any(|it| same(wanted.trim(), it, captures).is_ok());
        if !fitting {
            return Err(format!("no {name} fits {}", wanted.trim()));
        }
    }
    for line in body.lines().filter(|it| !it.trim().is_empty()) {
        let wanted = xml::fill(line.trim(), captures);
        match wanted.strip_prefix("no ") {
            Some(not) if message.body.contains(not) => return Err(format!("its body has {not}")),
            Some("body") if !message.body.is_empty() => return Err("it has a body".into()),
            Some(_) => {}
            None if message.body.contains(&wanted) => {}
            None => return Err(format!("its body has no {wanted}")),
        }
    }
    Ok(())
}

/// `{any}` is anything, `{is:x}` is bound to x, `{x}` is what was bound.
fn same(wanted: &str, actual: &str, captures: &mut Captures) -> Done {
    let wanted = xml::fill(wanted, captures);
    let differs = || format!("{actual} instead of {wanted}");
    let mut rest = actual;
    let mut pattern = wanted.as_str();
    let mut bound = Vec::new();
    while let Some((before, after)) = pattern.split_once('{') {
        rest = rest.strip_prefix(before).ok_or_else(differs)?;
        let (hole, after) = after.split_once('}').ok_or("a brace is open")?;
        let until = after.split('{').next().unwrap_or_default();
        let length =
            if until.is_empty() { rest.len() } else { rest.find(until).ok_or_else(differs)? };
        if let Some((_, name)) = hole.split_once(':') {
            bound.push((name.to_owned(), rest[..length].to_owned()));
        }
        rest = &rest[length..];
        pattern = after;
    }
    if rest != pattern {
        return Err(differs());
    }
    captures.extend(bound);
    Ok(())
}

impl Stage {
    /// `edge NAME = DOMAIN at ADDRESS`.
    pub(crate) fn edge(&mut self, name: &str, domain: &str, at: &str) -> Done {
        let socket: std::net::SocketAddr = at.parse().map_err(|e| format!("{at}: {e}"))?;
        self.world.core.listening.insert(socket, name.to_owned());
        self.edges.insert(name.to_owned(), Edge::new(name, domain, socket.ip()));
        Ok(())
    }

    /// One edge's deed.
    #[expect(clippy::too_many_lines, reason = "one arm per word of the language")]
    pub(crate) fn edge_deed(&mut self, edge: &mut Edge, deed: &[&str], block: &str) -> Done {
        let world = &mut self.world;
        let block = xml::fill(block, &self.captures);
        match deed {
            ["dials"] => {
                edge.dial(world, 0);
                world.settle();
                Ok(())
            }
            ["dials", "at", "shard", n] => {
                edge.dial(world, n.parse().map_err(|e| format!("{n}: {e}"))?);
                world.settle();
                Ok(())
            }
            ["sends", "octets:"] => {
                let wire = edge.standing(world)?;
                let text = block.replace("\n--\n", "\n\n").replace('\n', "\r\n");
                edge.say(world, wire, &text.replace("\\r\\n", "\r\n"));
                world.settle();
                Ok(())
            }
            ["sends", method, "in", call, "from", from, "to", to] => {
                let to = to.trim_end_matches(':');
                edge.request(world, method, call, Some((from, to)), &block)
            }
            ["sends", method, "in", call] => {
                edge.request(world, method, call.trim_end_matches(':'), None, &block)
            }
            ["hears", "nothing"] => {
                world.settle();
                edge.listen(world)?;
                match edge.heard.front() {
                    None => Ok(()),
                    Some((_, it)) => Err(format!("{} hears {}", edge.name, it.shown())),
                }
            }
            ["hears", what, "in" | "as", call, "within", time] => {
                let until = world.core.now + duration(time.trim_end_matches(':'))?;
                while world.core.now < until && edge.heard.is_empty() {
                    world.advance(Duration::from_secs(1));
                    world.settle();
                    edge.listen(world)?;
                }
                edge.hear(world, what, Some(call), &block, &mut self.captures)
            }
            ["hears", what, "in" | "as", call] => {
                let call = call.trim_end_matches(':');
                edge.hear(world, what, Some(call), &block, &mut self.captures)
            }
            ["hears", what] => {
                edge.hear(world, what.trim_end_matches(':'), None, &block, &mut self.captures)
            }
            ["answers", status, reason @ ..] => {
                let reason = reason.join(" ");
                edge.answer(
                    world,
                    status.trim_end_matches(':'),
                    reason.trim_end_matches(':'),
                    &block,
                )
            }
            ["ignores", "what", "came"] => {
                world.settle();
                edge.listen(world)?;
                edge.heard.clear();
                Ok(())
            }
            ["ignores", "the", "rest"] => {
                world.settle();
                edge.listen(world)?;
                edge.heard.clear();
                edge.careless = true;
                Ok(())
            }
            ["disconnects"] | ["resets"] => {
                let wires: Vec<usize> = edge.wires().collect();
                for wire in wires {
                    match deed {
                        ["resets"] => world.core.reset(wire),
                        _ => world.core.say_fin(wire),
                    }
                }
                edge.wire = None;
                edge.rests.clear();
                world.settle();
                Ok(())
            }
            ["goes", "away"] => {
                let name = edge.name.clone();
                world.core.listening.retain(|_, it| *it != name);
                Ok(())
            }
            ["comes", "back", "at", at] => {
                let socket = at.parse().map_err(|e| format!("{at}: {e}"))?;
                world.core.listening.insert(socket, edge.name.clone());
                Ok(())
            }
            ["is", "disconnected"] => {
                world.settle();
                match edge.standing(world) {
                    Ok(_) => Err("it is not".into()),
                    Err(_) => Ok(()),
                }
            }
            _ => Err("nobody knows how an edge does this".into()),
        }
    }
}
