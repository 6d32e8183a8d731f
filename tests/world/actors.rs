//! Scripted far ends: clients that know how to log in, and peers that answer when they are told.

use std::collections::VecDeque;

use tandem::address::Address;

use crate::scram;
use crate::world::{CLIENTS, World};
use crate::xml::{self, Element, Item, Node};

#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) name: String,
    /// A client's full address; a peer's domain.
    pub(crate) address: Address,
    pub(crate) password: String,
    /// The namespace of its streams.
    pub(crate) content: &'static str,
    pub(crate) wire: Option<usize>,
    pub(crate) items: VecDeque<Item>,
    /// The rest may be anything.
    pub(crate) careless: bool,
    /// What went to and fro.
    pub(crate) ladder: Vec<String>,
}

type Done = Result<(), String>;

impl Actor {
    pub(crate) fn new(name: &str, address: Address, password: &str, content: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            address,
            password: password.to_owned(),
            content,
            wire: None,
            items: VecDeque::new(),
            careless: false,
            ladder: Vec::new(),
        }
    }

    pub(crate) fn wire(&self) -> Result<usize, String> {
        self.wire.ok_or_else(|| format!("{} is not connected", self.name))
    }

    pub(crate) fn connect(&mut self, world: &mut World, shard: usize, listener: u16) {
        self.wire = Some(world.core.dial(shard, listener));
        self.ladder.push(format!("{} connects to shard {shard}", self.name));
        world.settle();
    }

    /// The shard that is home to this actor.
    pub(crate) fn home(&self, world: &World) -> usize {
        usize::from(tandem::route::shard_of(self.address.slot(), world.shards() as u16))
    }

    pub(crate) fn say(&mut self, world: &mut World, text: &str) -> Done {
        let wire = self.wire()?;
        self.ladder.push(format!("{} > {}", self.name, shown(text)));
        world.core.say(wire, text.as_bytes());
        Ok(())
    }

    /// Takes what came and cuts it.
    pub(crate) fn listen(&mut self, world: &mut World) -> Done {
        let Some(wire) = self.wire else { return Ok(()) };
        let inbound = &mut world.core.wires[wire].inbound;
        if self.careless {
            inbound.clear();
        }
        if inbound.is_empty() {
            return Ok(());
        }
        if let Ok(text) = std::str::from_utf8(inbound) {
            self.ladder.push(format!("{} < {}", self.name, shown(text)));
        }
        while let Some(item) = xml::cut(inbound, self.content)
            .map_err(|why| format!("{} got what is no stream: {why}", self.name))?
        {
            self.items.push_back(item);
        }
        Ok(())
    }

    /// Waits for the next piece.
    pub(crate) fn hear(&mut self, world: &mut World) -> Result<Item, String> {
        self.listen(world)?;
        if self.items.is_empty() {
            world.settle();
            self.listen(world)?;
        }
        self.items.pop_front().ok_or_else(|| format!("{} receives nothing", self.name))
    }

    pub(crate) fn hear_element(
        &mut self,
        world: &mut World,
        name: &str,
    ) -> Result<Element, String> {
        match self.hear(world)? {
            Item::Element(element) if element.name == name => Ok(element),
            other => Err(format!("{} receives {other:?} instead of <{name}>", self.name)),
        }
    }

    /// Takes the first element out that is so.
    pub(crate) fn take_element(&mut self, is_so: impl Fn(&Element) -> bool) -> Option<Element> {
        let at = self
            .items
            .iter()
            .position(|item| matches!(item, Item::Element(element) if is_so(element)))?;
        match self.items.remove(at) {
            Some(Item::Element(element)) => Some(element),
            _ => None,
        }
    }

    pub(crate) fn header(&self) -> String {
        format!(
            "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xml:lang='en' \
             xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
            self.address.domain()
        )
    }

    /// Stream header and features.
    pub(crate) fn open(&mut self, world: &mut World) -> Result<Element, String> {
        let header = self.header();
        self.say(world, &header)?;
        match self.hear(world)? {
            Item::Open(_) => self.hear_element(world, "features"),
            other => Err(format!("{} receives {other:?} instead of a header", self.name)),
        }
    }

    /// From the connection to the features after SASL.
    pub(crate) fn log_in(&mut self, world: &mut World) -> Done {
        if self.wire.is_none_or(|wire| world.core.wires[wire].conn.is_none()) {
            let home = self.home(world);
            self.connect(world, home, CLIENTS);
        }
        self.open(world)?;
        let user = self.address.local().unwrap_or_default().to_owned();
        let nonce = format!("{:016x}", world.core.random.number());
        let first = scram::first(&user, &nonce);
        let payload = scram::encode(&format!("n,,{first}"));
        self.say(
            world,
            &format!(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>{payload}</auth>"
            ),
        )?;
        let challenge = text_of(&self.hear_element(world, "challenge")?);
        let (last, expected) = scram::last(&first, &scram::decode(&challenge), &self.password);
        let payload = scram::encode(&last);
        self.say(
            world,
            &format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{payload}</response>"),
        )?;
        let success = text_of(&self.hear_element(world, "success")?);
        if scram::decode(&success) != expected {
            return Err("the server's signature is wrong".into());
        }
        self.open(world).map(drop)
    }

    pub(crate) fn bind_request(&self) -> String {
        format!(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <resource>{}</resource></bind></iq>",
            self.address.resource().unwrap_or("generated")
        )
    }

    pub(crate) fn bind(&mut self, world: &mut World) -> Done {
        let request = self.bind_request();
        self.say(world, &request)?;
        self.bound(world)
    }

    /// The answer to a bind request.
    pub(crate) fn bound(&mut self, world: &mut World) -> Done {
        let result = self.hear_element(world, "iq")?;
        match result.attrs.get("type").map(String::as_str) {
            Some("result") => Ok(()),
            _ => Err(format!("{} is not bound: {result:?}", self.name)),
        }
    }
}

/// All text of an element.
pub(crate) fn text_of(element: &Element) -> String {
    element
        .children
        .iter()
        .map(|node| match node {
            Node::Text(text) => text.clone(),
            Node::Element(child) => text_of(child),
        })
        .collect()
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(400) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}... ({} octets)", &text[..end], text.len()),
    }
}
