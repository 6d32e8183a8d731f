//! The words of scenes about users: what the store has, what a user does that is more than one
//! stanza, and how a peer proves who it is.

use tandem::address::Address;
use tandem::home::record::List;
use tandem::shard::kernel::{Order, Ticket};

use crate::actors::Actor;
use crate::scene::{Done, Line, Stage};
use crate::store;
use crate::world::{PEERS, World};
use crate::xml::{Element, Item};

impl Stage {
    /// A line about the store or the node; `None`: it is about something else.
    pub(crate) fn play_store(&mut self, line: &Line) -> Option<Done> {
        let (words, rest) = line.text.split_once(':').unwrap_or((&line.text, ""));
        let words: Vec<&str> = words.split_whitespace().collect();
        let block = if line.block.is_empty() { rest.trim() } else { &line.block };
        Some(match words.as_slice() {
            ["user", jid] => self.user(jid).map(drop),
            ["roster", jid] => self.put_roster(jid, rest),
            [list @ ("blocked" | "allowed" | "denied"), jid] => self.put_rules(jid, list, rest),
            ["stored", jid] => self.user(jid).map(|bare| {
                let at = self.world.wall();
                self.world.core.control.store.put_message(&bare, at, block);
            }),
            ["store", "has", "roster", jid] => self.has_roster(jid, rest),
            ["store", "has", list @ ("blocked" | "allowed" | "denied"), jid] => {
                self.has_rules(jid, list, rest)
            }
            ["store", "has", count, "messages" | "message", "for", jid] => {
                self.world.settle();
                bare_of(jid).and_then(|bare| {
                    let there = self.world.core.control.store.messages(&bare);
                    let texts: Vec<_> =
                        there.iter().map(|it| String::from_utf8_lossy(&it.octets)).collect();
                    (there.len().to_string() == *count)
                        .then_some(())
                        .ok_or_else(|| format!("it has {}: {texts:?}", there.len()))
                })
            }
            ["rule", jid, list, deed @ ("add" | "remove"), rule] => {
                self.order_rule(jid, list, rule, *deed == "add")
            }
            ["remove", "user", jid] => bare_of(jid).map(|bare| {
                let control = &mut self.world.core.control;
                control.accounts.remove(&bare);
                control.store.close(&bare);
                let user = Address::parse(&bare).expect("it was parsed");
                for shard in 0..self.world.shards() {
                    self.world.order(shard, Order::Kick { user: user.clone() });
                }
                self.world.settle();
            }),
            ["the", "node", "dies"] => {
                self.world.die();
                Ok(())
            }
            _ => return None,
        })
    }

    /// There is an account.
    fn user(&mut self, jid: &str) -> Result<String, String> {
        let bare = bare_of(jid)?;
        let control = &mut self.world.core.control;
        control.accounts.entry(bare.clone()).or_insert_with(|| "pencil".to_owned());
        control.store.open(&bare);
        Ok(bare)
    }

    fn put_roster(&mut self, jid: &str, rest: &str) -> Done {
        let bare = self.user(jid)?;
        let items: Vec<_> =
            parts(rest).iter().map(|text| store::item(text, &bare)).collect::<Result<_, _>>()?;
        self.world.core.control.store.put_items(&bare, &items);
        Ok(())
    }

    fn put_rules(&mut self, jid: &str, list: &str, rest: &str) -> Done {
        let bare = self.user(jid)?;
        for rule in parts(rest) {
            let rule = Address::parse(&rule).map_err(|e| format!("{rule}: {e:?}"))?;
            self.world.core.control.store.add_rule(&bare, list_of(list)?, &rule);
        }
        Ok(())
    }

    /// All of the roster, no more and no less.
    fn has_roster(&mut self, jid: &str, rest: &str) -> Done {
        self.world.settle();
        let bare = bare_of(jid)?;
        let there = self.world.core.control.store.items(&bare);
        let there: Vec<_> = there.iter().map(store::shown).collect();
        let mut wanted: Vec<_> = parts(rest)
            .iter()
            .map(|text| store::item(text, &bare).map(|item| store::shown(&item)))
            .collect::<Result<_, _>>()?;
        wanted.sort();
        let mut sorted = there.clone();
        sorted.sort();
        (sorted == wanted).then_some(()).ok_or_else(|| format!("it has {there:?}"))
    }

    fn has_rules(&mut self, jid: &str, list: &str, rest: &str) -> Done {
        self.world.settle();
        let there = self.world.core.control.store.rules(&bare_of(jid)?, list_of(list)?);
        let there: Vec<_> = there.iter().map(ToString::to_string).collect();
        let mut wanted = parts(rest);
        wanted.sort();
        (there == wanted).then_some(()).ok_or_else(|| format!("it has {there:?}"))
    }

    fn order_rule(&mut self, jid: &str, list: &str, rule: &str, add: bool) -> Done {
        let user = Address::parse(jid).map_err(|e| format!("{jid}: {e:?}"))?;
        let rule = Address::parse(rule).map_err(|e| format!("{rule}: {e:?}"))?;
        let home = tandem::route::shard_of(user.slot(), self.world.shards() as u16);
        let order = Order::Rule { ticket: Ticket(1), user, list: list_of(list)?, rule, add };
        self.world.order(usize::from(home), order);
        self.world.settle();
        Ok(())
    }

    /// A deed of more than one stanza; `None`: it is another one.
    pub(crate) fn long_deed(&mut self, actor: &mut Actor, deed: &[&str]) -> Option<Done> {
        Some(match deed {
            ["is", "online"] => self.online(actor, false),
            ["is", "here"] => self.online(actor, true),
            ["asks", "for", "the", "roster"] => self.ask_roster(actor),
            ["listens"] => self.peer_listens(actor),
            ["speaks"] => self.peer_speaks(actor),
            _ => return None,
        })
    }

    /// Logs in, binds and sends presence; `here`: it asks for the roster before, so that it is told
    /// of changes (RFC 6121, 2.1.6). Its own presence that comes back to it is not told of.
    fn online(&mut self, actor: &mut Actor, here: bool) -> Done {
        actor.log_in(&mut self.world)?;
        actor.bind(&mut self.world)?;
        if here {
            self.ask_roster(actor)?;
        }
        actor.say(&mut self.world, "<presence/>")?;
        self.world.settle();
        actor.listen(&mut self.world)?;
        let full = actor.address.full().to_owned();
        let own = |it: &Element| {
            it.name == "presence"
                && it.attrs.get("from").is_some_and(|from| *from == full)
                && !it.attrs.contains_key("type")
        };
        drop(actor.take_element(own));
        Ok(())
    }

    fn ask_roster(&mut self, actor: &mut Actor) -> Done {
        let world = &mut self.world;
        actor.say(world, "<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>")?;
        world.settle();
        actor.listen(world)?;
        let answer = actor.take_element(|it| {
            it.name == "iq" && it.attrs.get("id").is_some_and(|id| id == "roster")
        });
        match answer {
            Some(it) if it.attrs.get("type").is_some_and(|t| t == "result") => Ok(()),
            it => Err(format!("{} asked for the roster and got {it:?}", actor.name)),
        }
    }

    /// Takes the connection that a shard made to it, or the one it was asked about a key on, and
    /// believes our key.
    fn peer_listens(&mut self, actor: &mut Actor) -> Done {
        let world = &mut self.world;
        world.settle();
        if actor.wire.is_none_or(|wire| world.core.wires[wire].conn.is_none()) {
            let at = world.core.connected.iter().position(|(name, _)| *name == actor.name);
            let at = at.ok_or_else(|| format!("nobody connects to {}", actor.name))?;
            actor.wire = Some(world.core.connected.remove(at).1);
            peer_answers(actor, world)?;
        }
        let result = actor.hear_element(world, "result")?;
        let from = result.attrs.get("from").cloned().unwrap_or_default();
        let to = actor.address.domain().to_owned();
        actor.say(world, &format!("<db:result from='{to}' to='{from}' type='valid'/>"))?;
        world.settle();
        Ok(())
    }

    /// Connects and has its key verified by whoever listens for its domain.
    fn peer_speaks(&mut self, actor: &mut Actor) -> Done {
        let world = &mut self.world;
        let domain = actor.address.domain().to_owned();
        let home = tandem::route::shard_of_domain(&domain, world.shards() as u16);
        actor.connect(world, usize::from(home), PEERS);
        let header = format!(
            "<?xml version='1.0'?><stream:stream from='{domain}' to='a.example' version='1.0' \
             {PEER_NAMESPACES}>"
        );
        actor.say(world, &header)?;
        drop(actor.hear(world)?);
        drop(actor.hear_element(world, "features")?);
        let key = format!("<db:result from='{domain}' to='a.example'>0123456789abcdef</db:result>");
        actor.say(world, &key)?;
        world.settle();
        let asked = world.core.connected.pop();
        let authority = match &asked {
            // It listens itself; that is another connection.
            Some((name, _)) if *name == actor.name => {
                let name = format!("{name} who verifies");
                let fresh = Actor::new(&name, actor.address.clone(), "", "jabber:server");
                Some(self.actors.entry(name).or_insert(fresh))
            }
            Some((name, _)) => self.actors.get_mut(name),
            None => self.actors.values_mut().find(|it| {
                it.address == actor.address
                    && it.wire.is_some_and(|wire| world.core.wires[wire].conn.is_some())
            }),
        };
        let authority = authority.ok_or("nobody verifies its key")?;
        let aside = authority.name.ends_with(" who verifies");
        if let Some((_, wire)) = asked {
            authority.wire = Some(wire);
            peer_answers(authority, world)?;
        }
        world.settle();
        authority.listen(world)?;
        let verify = authority.take_element(|it| it.name == "verify").ok_or("no question")?;
        let id = verify.attrs.get("id").cloned().unwrap_or_default();
        let verified =
            format!("<db:verify from='{domain}' to='a.example' id='{id}' type='valid'/>");
        authority.say(world, &verified)?;
        world.settle();
        authority.careless |= aside;
        let result = actor.hear_element(world, "result")?;
        match result.attrs.get("type").map(String::as_str) {
            Some("valid") => Ok(()),
            _ => Err(format!("{} is not believed: {result:?}", actor.name)),
        }
    }
}

/// The headers of a connection that a shard made.
fn peer_answers(peer: &mut Actor, world: &mut World) -> Done {
    match peer.hear(world)? {
        Item::Open(_) => {}
        it => return Err(format!("{it:?} instead of a header")),
    }
    let domain = peer.address.domain().to_owned();
    peer.say(
        world,
        &format!(
            "<?xml version='1.0'?><stream:stream from='{domain}' to='a.example' id='s1' \
             version='1.0' {PEER_NAMESPACES}><stream:features>\
             <dialback xmlns='urn:xmpp:features:dialback'/></stream:features>"
        ),
    )?;
    world.settle();
    Ok(())
}

const PEER_NAMESPACES: &str = "xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' \
     xmlns:db='jabber:server:dialback'";

fn bare_of(jid: &str) -> Result<String, String> {
    Address::parse(jid).map(|it| it.bare().to_owned()).map_err(|e| format!("{jid}: {e:?}"))
}

fn list_of(name: &str) -> Result<List, String> {
    let found = List::ALL.into_iter().find(|list| list.name() == name);
    found.ok_or_else(|| format!("there is no list {name}"))
}

/// Cuts at commas outside quotes and brackets.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut quoted, mut bracketed) = (false, false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '[' => bracketed = true,
            ']' => bracketed = false,
            _ => {}
        }
        match c {
            ',' if !quoted && !bracketed => parts.push(String::new()),
            c => parts.last_mut().expect("there is one").push(c),
        }
    }
    parts.iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

impl World {
    /// The time of day.
    pub(crate) fn wall(&self) -> tandem::time::Wall {
        crate::world::wall(self.core.now)
    }
}
