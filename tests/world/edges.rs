//! A SIP partner of the scenes: an edge with its calls, in Microsoft's shapes.
//!
//! Reads and writes by itself, a line at a time: nothing of the switch's parser is used. What it
//! leaves out of a request it fills in as a well-behaved user agent would: Via, From, To, Call-ID,
//! CSeq, Contact, Record-Route, Route. The words are listed in `tests/scenes/README.md`.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use crate::scene::{Done, Stage};
use crate::world::{SIP, World};
use crate::xml::{self, Captures};

/// A whole message as it came.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    start: String,
    headers: Vec<(String, String)>,
    body: String,
    wire: usize,
}

/// A dialog, or what may become one.
#[derive(Clone, Debug, Default)]
struct Call {
    id: String,
    /// Our From value without tag, and theirs.
    ours: String,
    theirs: String,
    our_tag: String,
    their_tag: Option<String>,
    cseq: u32,
    target: Option<String>,
    /// Their Record-Route entries, in the order in which a Route has them.
    routes: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Edge {
    name: String,
    domain: String,
    address: IpAddr,
    wire: Option<usize>,
    /// Octets of each connection that are no whole message yet.
    rests: BTreeMap<usize, Vec<u8>>,
    heard: VecDeque<Message>,
    calls: BTreeMap<String, Call>,
    /// The last request that was heard in a line.
    asked: Option<Message>,
    number: u32,
    pub(crate) careless: bool,
    pub(crate) ladder: Vec<String>,
}

impl Message {
    fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let name = name.to_ascii_lowercase();
        self.headers
            .iter()
            .filter(move |(it, _)| it.to_ascii_lowercase() == name)
            .map(|(_, value)| value.as_str())
    }

    fn header(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    /// The method of a request, the status of a response.
    fn what(&self) -> &str {
        match self.start.strip_prefix("SIP/2.0 ") {
            Some(rest) => rest.get(..3).unwrap_or_default(),
            None => self.start.split(' ').next().unwrap_or_default(),
        }
    }

    fn is_response(&self) -> bool {
        self.start.starts_with("SIP/2.0 ")
    }

    fn read(head: &str, body: &[u8], wire: usize) -> Result<Self, String> {
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let mut headers = Vec::new();
        for line in lines {
            let (name, value) =
                line.split_once(": ").ok_or_else(|| format!("no header: {line}"))?;
            headers.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self { start, headers, body: String::from_utf8_lossy(body).into_owned(), wire })
    }
}

impl Edge {
    fn new(name: &str, domain: &str, address: IpAddr) -> Self {
        Self {
            name: name.to_owned(),
            domain: domain.to_owned(),
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
            loop {
                while rest.starts_with(b"\r\n") {
                    rest.drain(..2);
                }
                let text = String::from_utf8_lossy(rest).into_owned();
                let Some((head, _)) = text.split_once("\r\n\r\n") else { break };
                let length = head
                    .lines()
                    .find_map(|it| it.strip_prefix("Content-Length: "))
                    .ok_or("a message without Content-Length")?;
                let length: usize = length.trim().parse().map_err(|e| format!("{length}: {e}"))?;
                let start = head.len() + 4;
                if rest.len() < start + length {
                    break;
                }
                let message = Message::read(head, &rest[start..start + length], wire)?;
                rest.drain(..start + length);
                self.ladder.push(format!("    {} <- {}", self.name, shown(&message)));
                self.heard.push_back(message);
            }
        }
        Ok(())
    }

    fn say(&mut self, world: &mut World, wire: usize, text: &str) {
        self.ladder.push(format!("    {} -> {}", self.name, text.replace("\r\n", " | ")));
        world.core.say(wire, text.as_bytes());
    }

    pub(crate) fn leftover(&self) -> Option<&Message> {
        self.heard.front().filter(|_| !self.careless)
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
            let call = Call {
                id: format!("{name}{:08x}", world.core.random.number() as u32),
                ours: format!("\"{from}\"<sip:{from}@{}>", self.domain),
                theirs: format!("<sip:{to}>"),
                our_tag: format!("e{number}"),
                target: Some(format!("sip:{to}")),
                ..Call::default()
            };
            self.calls.insert(name.to_owned(), call);
        }
        let wire = self.standing(world)?;
        let domain = self.domain.clone();
        let call = self.calls.get_mut(name).ok_or_else(|| format!("there is no call {name}"))?;
        if method != "ACK" && method != "CANCEL" {
            call.cseq += 1;
        }
        let (own, body) = block.split_once("\n--").unwrap_or((block, ""));
        let body = body.trim_start_matches('\n').replace('\n', "\r\n");
        let has = |name: &str| {
            own.lines().any(|it| {
                it.split_once(':').is_some_and(|(it, _)| it.trim().eq_ignore_ascii_case(name))
            })
        };
        let target = call.target.clone().unwrap_or_default();
        let mut text = format!("{method} {target} SIP/2.0\r\n");
        let mut add = |name: &str, value: String| {
            if !has(name) {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        };
        let first = call.their_tag.is_none();
        if first && matches!(method, "INVITE" | "SUBSCRIBE" | "MESSAGE") {
            add("Record-Route", record_route(&domain));
        }
        add(
            "Via",
            format!(
                "SIP/2.0/TCP edge.{domain}:5061;branch=z9hG4bK{number:04x}.{};branched=FALSE;ms-internal-info=\"a;b,c\"",
                call.id
            ),
        );
        add("Max-Forwards", "68".to_owned());
        // A second one without a branch, not beside the first.
        if !has("Via") {
            add(
                "via",
                "SIP/2.0/TLS 192.0.2.40:51233;ms-received-port=51233;ms-received-cid=81C4000"
                    .to_owned(),
            );
        }
        for route in &call.routes {
            add("Route", route.clone());
        }
        add("From", format!("{};epid=787f6c813e;tag={}", call.ours, call.our_tag));
        let to = match &call.their_tag {
            Some(tag) => format!("{};tag={tag}", call.theirs),
            None => call.theirs.clone(),
        };
        add("To", to);
        add("Call-ID", call.id.clone());
        add("CSeq", format!("{} {method}", call.cseq));
        if matches!(method, "INVITE" | "SUBSCRIBE") {
            let user = call.ours.split_once("<sip:").map_or("", |it| it.1);
            add(
                "Contact",
                format!("<sip:{};opaque=user:epid:x{};gruu>", user.trim_end_matches('>'), name),
            );
        }
        if method == "SUBSCRIBE" {
            add("Event", "presence".to_owned());
            add(
                "Accept",
                "application/msrtc-event-categories+xml, text/xml+msrtc.pidf, application/pidf+xml"
                    .to_owned(),
            );
        }
        if method == "MESSAGE" {
            add("Content-Type", "text/plain; charset=UTF-8".to_owned());
        }
        for line in own.lines().filter(|it| !it.trim().is_empty()) {
            text.push_str(&format!("{line}\r\n"));
        }
        if !has("Content-Length") {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str(&format!("\r\n{body}"));
        self.say(world, wire, &text);
        world.settle();
        Ok(())
    }

    /// Answers the last request that was heard.
    fn answer(&mut self, world: &mut World, status: &str, reason: &str, block: &str) -> Done {
        let asked = self.asked.clone().ok_or("nothing was asked")?;
        let (own, body) = block.split_once("\n--").unwrap_or((block, ""));
        let body = body.trim_start_matches('\n').replace('\n', "\r\n");
        let mut text = format!("SIP/2.0 {status} {reason}\r\n");
        let is_new = matches!(asked.what(), "INVITE" | "SUBSCRIBE");
        if is_new && status.starts_with('2') {
            text.push_str(&format!("Record-Route: {}\r\n", record_route(&self.domain)));
        }
        for name in ["Record-Route", "Via"] {
            for value in asked.all(name) {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        let to = asked.header("To");
        let id = asked.header("Call-ID").to_owned();
        let tag = self.calls.values().find(|it| it.id == id).map(|it| it.our_tag.clone());
        let to = match tag {
            Some(tag) if !to.contains(";tag=") => format!("{to};epid=54fa23d827;tag={tag}"),
            _ => to.to_owned(),
        };
        for (name, value) in [
            ("From", asked.header("From")),
            ("To", &to),
            ("Call-ID", &id),
            ("CSeq", asked.header("CSeq")),
        ] {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if is_new && !own.to_ascii_lowercase().contains("contact:") {
            let user = asked.header("To").split_once("<sip:").map_or("x", |it| it.1);
            let user = user.split(['>', ';']).next().unwrap_or_default();
            text.push_str(&format!("Contact: <sip:{user};opaque=user:epid:answer;gruu>\r\n"));
        }
        for line in own.lines().filter(|it| !it.trim().is_empty()) {
            text.push_str(&format!("{line}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        let wire = asked.wire;
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
        let message =
            self.heard.pop_front().ok_or_else(|| format!("{} hears nothing", self.name))?;
        if message.what() != what {
            return Err(format!("{} hears {}", self.name, shown(&message)));
        }
        fits(&message, block, captures)
            .map_err(|why| format!("{why}\nheard {}", shown(&message)))?;
        let id = message.header("Call-ID").to_owned();
        if let Some(name) = call {
            let domain = self.domain.clone();
            let fresh =
                || Call { id: id.clone(), our_tag: format!("t{}", id.len()), ..Call::default() };
            let it = self.calls.entry(name.to_owned()).or_insert_with(fresh);
            if it.id != id {
                return Err(format!("the call of {} is another", shown(&message)));
            }
            learn(it, &message, &domain);
        } else if let Some(it) = self.calls.values_mut().find(|it| it.id == id) {
            let domain = self.domain.clone();
            learn(it, &message, &domain);
        }
        if !message.is_response() {
            self.asked = Some(message);
        }
        Ok(())
    }
}

/// What a message tells of a call.
fn learn(call: &mut Call, message: &Message, domain: &str) {
    let (ours, theirs) = if message.is_response() { ("From", "To") } else { ("To", "From") };
    let tag = |value: &str| {
        value.split(';').find_map(|it| it.trim().strip_prefix("tag=")).map(str::to_owned)
    };
    let bare = |value: &str| value.split_once('>').map_or("", |it| it.0).to_owned() + ">";
    if call.ours.is_empty() {
        call.ours = bare(message.header(ours));
        call.theirs = bare(message.header(theirs));
    }
    if call.their_tag.is_none() {
        call.their_tag = tag(message.header(theirs));
    }
    let contact = message.header("Contact");
    if let Some(uri) = contact.split_once('<').and_then(|it| it.1.split_once('>')) {
        call.target = Some(uri.0.to_owned());
    }
    if call.routes.is_empty() && (!message.is_response() || message.what().starts_with('2')) {
        // Its own entries it takes off; what is left is ours, which may be one.
        let own = format!("edge.{domain}");
        call.routes = message
            .all("Record-Route")
            .filter(|it| !it.contains(&own))
            .map(str::to_owned)
            .collect();
    }
}

fn record_route(domain: &str) -> String {
    format!(
        "<sip:edge.{domain}:5061;transport=tcp;ms-fe=fe-07;opaque=state:F:Ci.R81c40;lr;ms-route-sig=wdii>;ms-rrsig=aTP7;tag=7C64"
    )
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
            let uri = message.start.split(' ').nth(1).unwrap_or_default();
            same(wanted, uri, captures)?;
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

fn shown(message: &Message) -> String {
    let headers: Vec<_> = message.headers.iter().map(|(n, v)| format!("{n}: {v}")).collect();
    format!("{} | {} | {}", message.start, headers.join(" | "), message.body.replace("\r\n", " | "))
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
                    Some(it) => Err(format!("{} hears {}", edge.name, shown(it))),
                }
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
