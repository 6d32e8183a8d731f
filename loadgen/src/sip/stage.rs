//! Presence across SIP: an edge that watches users, and users that watch those of the edge.
//!
//! What an edge is told is judged dialog by dialog: by tags and rising numbers, and by what is true at
//! the time. Users approve whoever asks. Who asks when is for [`super::watch`] and
//! [`super::partner`] to say.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use memchr::memmem::find;

use super::contact::{Contact, routes};
use super::dialog::{DOMAIN, Dialog};
use super::edge::{self, EDGE, Edge};
use super::text::{Frame, Reader, uri_in};
use crate::population::{EVENTS, Population};
use crate::rosters::{attribute, tags};
use crate::sys::Event;

/// What a watcher was last told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// Nothing yet.
    #[default]
    Nothing,
    /// The user has not decided.
    Pending,
    /// Active, without a document.
    Unknown,
    /// Not there.
    Closed,
    /// There.
    Open,
    /// The subscription is over.
    Over,
}

/// A user of the edge's who watches one of the server's.
#[derive(Debug, Default)]
pub struct Watcher {
    /// Its dialog.
    pub dialog: Dialog,
    /// Where its requests go.
    pub line: usize,
    /// What it was last told.
    pub seen: Seen,
    /// A SUBSCRIBE is not answered yet.
    pub asked: bool,
    /// No NOTIFY came since.
    pub waits: bool,
}

/// One client's reading.
#[derive(Debug, Default)]
struct End {
    held: Vec<u8>,
    /// The presence that is being read, and whether it has a `<show/>`.
    from: Option<(Vec<u8>, bool)>,
    /// What it was last told of each contact: there with `<show/>`, there without, or gone.
    sees: HashMap<Vec<u8>, Option<bool>>,
    dirty: bool,
}

/// Counts of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// SUBSCRIBEs answered with 200 whose NOTIFY has come.
    pub pairs: u64,
    /// SUBSCRIBEs answered with something else.
    pub refused: u64,
    /// NOTIFYs that came.
    pub notified: u64,
    /// NOTIFYs in no dialog of this edge, with wrong tags or a number that does not rise.
    pub stray: u64,
    /// NOTIFYs that said something that is not true, or that was never to be said.
    pub wrong: u64,
    /// NOTIFYs without a document.
    pub unknown: u64,
    /// SUBSCRIBEs of the server: new ones, in known dialogs, in unknown ones.
    pub asked_new: u64,
    pub asked_again: u64,
    pub asked_unknown: u64,
    /// Octets that came to the edge.
    pub octets_in: u64,
}

/// The whole of it.
pub struct Stage {
    /// The clients.
    pub population: Population,
    /// The edge.
    pub edge: Edge,
    /// Dialogs of the edge.
    pub watchers: Vec<Watcher>,
    /// Which of them have come to a pair in this turn.
    pub done: Vec<usize>,
    /// What is true now; NOTIFYs with another document are wrong.
    pub truth: Option<Seen>,
    /// How many watchers were told the truth since it was set, and when the last was.
    pub told: usize,
    /// When the first and the last of them was.
    pub told_at: Option<(Instant, Instant)>,
    /// Counts.
    pub counts: Counts,
    /// Connections may end without harm.
    pub may_break: bool,
    /// The first thing that was not as expected.
    pub reason: Option<String>,
    /// Which state the contacts are in: with an activity or without.
    pub busy: bool,
    /// SUBSCRIBEs of the server, by tenths of a second since it was emptied.
    pub arrivals: Vec<u32>,
    /// Since when they are counted.
    pub since: Instant,
    /// Turns.
    pub turns: u64,
    generation: u32,
    contacts: HashMap<String, Contact>,
    ends: Vec<End>,
    dirty: Vec<usize>,
    sip: Reader,
    raw: Vec<u8>,
    clear: Vec<u8>,
    out: Vec<u8>,
}

impl Stage {
    /// A stage with clients that are logged in, or none, and an edge that listens there.
    pub fn new(population: Population, at: SocketAddr) -> io::Result<Self> {
        let mut edge = Edge::new(at);
        edge.listen(&population.epoll)?;
        let ends = population.clients.iter().map(|_| End::default()).collect();
        Ok(Self {
            population,
            edge,
            watchers: Vec::new(),
            done: Vec::new(),
            truth: None,
            told: 0,
            told_at: None,
            counts: Counts::default(),
            may_break: false,
            reason: None,
            busy: false,
            arrivals: Vec::new(),
            since: Instant::now(),
            turns: 0,
            generation: 0,
            contacts: HashMap::new(),
            ends,
            dirty: Vec::new(),
            sip: Reader::default(),
            raw: vec![0; 64 << 10],
            clear: Vec::new(),
            out: Vec::new(),
        })
    }

    /// New dialogs, none of them begun: `count` of them over so many users, on those connections.
    pub fn watch(&mut self, count: usize, users: &[String], lines: &[usize]) {
        self.generation += 1;
        let (generation, at) = (self.generation, self.edge.at);
        let watcher = |number: usize| {
            let user = &users[number % users.len()];
            let from = format!("w{}@{DOMAIN}", number / users.len());
            let dialog = Dialog::begin(number, generation, &from, user, at);
            Watcher { dialog, line: lines[number % lines.len()], ..Watcher::default() }
        };
        self.watchers = (0..count).map(watcher).collect();
        self.expect(None);
    }

    /// From now on this is true.
    pub fn expect(&mut self, truth: Option<Seen>) {
        self.truth = truth;
        self.told = 0;
        self.told_at = None;
        self.watchers.iter_mut().for_each(|it| it.seen = Seen::Nothing);
    }

    /// A SUBSCRIBE in one of the dialogs.
    pub fn subscribe(&mut self, number: usize) -> io::Result<()> {
        let it = &mut self.watchers[number];
        let more = format!(
            "Contact: {}\r\nEvent: presence\r\nAccept: application/pidf+xml\r\nExpires: 3600\r\n",
            it.dialog.contact
        );
        let text = it.dialog.request("SUBSCRIBE", &more, "");
        (it.asked, it.waits) = (true, true);
        self.edge.queue(it.line, text.as_bytes())
    }

    /// The contacts are forgotten, as by a restart.
    pub fn forget(&mut self) {
        self.contacts.clear();
    }

    /// How many pairs of a client and a contact are as they should be.
    pub fn seen_by_clients(&self) -> usize {
        let is_so = |it: &&Option<bool>| **it == Some(self.busy);
        self.ends.iter().map(|it| it.sees.values().filter(is_so).count()).sum()
    }

    /// A line of a client's.
    pub fn say(&mut self, client: usize, text: &str) -> io::Result<()> {
        self.population.clients[client].link.queue(text.as_bytes())?;
        if !std::mem::replace(&mut self.ends[client].dirty, true) {
            self.dirty.push(client);
        }
        Ok(())
    }

    /// Sends what waits and takes what comes.
    pub fn turn(&mut self, wait: Duration) -> Result<(), String> {
        let fault = |e: io::Error| e.to_string();
        for client in std::mem::take(&mut self.dirty) {
            self.ends[client].dirty = false;
            if self.population.flush(client).is_err() && !self.may_break {
                return Err("the server closed on a client".to_owned());
            }
        }
        self.edge.flush(&self.population.epoll).map_err(fault)?;
        let mut events = [Event::EMPTY; EVENTS];
        let count = self.population.epoll.wait(&mut events, Some(wait)).map_err(fault)?;
        self.turns += 1;
        for event in events.iter().take(count) {
            if event.token() >= EDGE {
                self.edge_event(*event)?;
                continue;
            }
            let client = event.token() as usize;
            if event.writable() {
                // Its end is seen when it is read.
                drop(self.population.flush(client));
            }
            while event.readable() && self.take(client)? {}
        }
        self.edge.flush(&self.population.epoll).map_err(fault)
    }

    /// A client reads once; true if there may be more.
    fn take(&mut self, client: usize) -> Result<bool, String> {
        let Some(it) = self.population.clients.get_mut(client) else { return Ok(false) };
        let bytes = match it.link.read(&mut self.raw, &mut self.clear) {
            Ok(Some(bytes)) => bytes,
            Ok(None) | Err(_) if self.may_break => return Ok(false),
            Ok(None) | Err(_) => return Err(format!("the server closed on {}", it.jid)),
        };
        let more = it.link.may_have_more;
        let end = &mut self.ends[client];
        end.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut end.held);
        let mut approves = Vec::new();
        let done = tags(&held, |head| end.tag(head, &mut approves));
        end.held = held;
        end.held.drain(..done);
        for to in approves {
            self.say(client, &format!("<presence to='{to}' type='subscribed'/>"))
                .map_err(|e| e.to_string())?;
        }
        Ok(more)
    }

    fn edge_event(&mut self, event: Event) -> Result<(), String> {
        let fault = |e: io::Error| e.to_string();
        let at = self.edge.event(event.token(), &self.population.epoll).map_err(fault)?;
        let edge::Event::Line(line) = at else { return Ok(()) };
        if event.writable() {
            self.edge.flush_line(line, &self.population.epoll).map_err(fault)?;
        }
        let mut more = event.readable() && self.edge.is_open(line);
        while more {
            let Some((held, again)) = self.edge.read(line) else {
                if self.may_break {
                    return Ok(());
                }
                return Err("the server closed a connection of the edge".to_owned());
            };
            more = again;
            let mut done = 0;
            let sip = std::mem::take(&mut self.sip);
            while let Some((frame, length)) = sip.cut(held.get(done..).unwrap_or_default())? {
                done += length;
                self.counts.octets_in += length as u64;
                match (frame.status, frame.method()) {
                    (0, b"NOTIFY") => self.notified(line, &sip, &frame).map_err(fault)?,
                    (0, b"SUBSCRIBE") => self.subscribed(line, &sip, &frame).map_err(fault)?,
                    (0, b"ACK") => {}
                    (0, _) => {
                        self.answer(line, &frame, "405 Method Not Allowed", "").map_err(fault)?
                    }
                    _ => self.told(&sip, &frame),
                }
            }
            self.sip = sip;
            self.edge.give_back(line, held, done);
        }
        Ok(())
    }

    fn answer(
        &mut self,
        line: usize,
        frame: &Frame<'_>,
        status: &str,
        more: &str,
    ) -> io::Result<()> {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        frame.answer(status, "edge", more, &mut out);
        let done = self.edge.queue(line, &out);
        self.out = out;
        done
    }

    fn number_of(&self, call: &[u8]) -> Option<usize> {
        let (number, generation) = Dialog::number(call)?;
        (number < self.watchers.len() && generation == self.generation).then_some(number)
    }

    /// A watcher is told something.
    fn notified(&mut self, line: usize, sip: &Reader, frame: &Frame<'_>) -> io::Result<()> {
        self.counts.notified += 1;
        let Some(number) = self.number_of(sip.call(frame)) else {
            self.counts.stray += u64::from(!self.may_break);
            return self.answer(line, frame, "481 Subscription Does Not Exist", "");
        };
        let (cseq, _) = sip.cseq(frame);
        let it = &mut self.watchers[number];
        if !it.dialog.hears(frame, cseq) {
            self.counts.stray += 1;
            self.reason.get_or_insert_with(|| frame.shown());
        }
        let seen = seen(frame);
        self.counts.unknown += u64::from(seen == Seen::Unknown);
        let before = std::mem::replace(&mut it.seen, seen);
        it.waits = false;
        if let Some(truth) = self.truth {
            if seen == truth && before != truth {
                let now = Instant::now();
                self.told += 1;
                self.told_at = Some((self.told_at.map_or(now, |it| it.0), now));
            } else if seen != truth {
                self.told -= usize::from(before == truth);
                if seen != Seen::Unknown || before == truth {
                    self.counts.wrong += 1;
                    self.reason.get_or_insert_with(|| frame.shown());
                }
            }
        }
        self.pair(number);
        self.answer(line, frame, "200 OK", "")
    }

    fn pair(&mut self, number: usize) {
        let it = &self.watchers[number];
        if !it.asked && !it.waits {
            self.counts.pairs += 1;
            self.done.push(number);
        }
    }

    /// What was said to a request of the edge's.
    fn told(&mut self, sip: &Reader, frame: &Frame<'_>) {
        if frame.status < 200 || sip.cseq(frame).1 == b"NOTIFY" {
            return;
        }
        let Some(number) = self.number_of(sip.call(frame)) else {
            if frame.status >= 300 {
                self.counts.refused += 1;
                self.reason.get_or_insert_with(|| frame.shown());
            }
            return;
        };
        let it = &mut self.watchers[number];
        if frame.status >= 300 {
            self.counts.refused += 1;
            self.reason.get_or_insert_with(|| frame.shown());
            (it.asked, it.waits) = (false, false);
            return;
        }
        let was = std::mem::replace(&mut it.asked, false);
        if it.dialog.remote_tag.is_empty() {
            it.dialog.made(frame);
        }
        if was {
            self.pair(number);
        }
    }

    /// A user of the server's watches, or refreshes.
    fn subscribed(&mut self, line: usize, sip: &Reader, frame: &Frame<'_>) -> io::Result<()> {
        let tenth = (self.since.elapsed().as_millis() / 100) as usize;
        if self.arrivals.len() <= tenth {
            self.arrivals.resize(tenth + 1, 0);
        }
        self.arrivals[tenth] += 1;
        let call = String::from_utf8_lossy(sip.call(frame)).into_owned();
        let known = self.contacts.contains_key(&call);
        if !frame.tag("To").is_empty() && !known {
            self.counts.asked_unknown += 1;
            return self.answer(line, frame, "481 Subscription Does Not Exist", "");
        }
        if known {
            self.counts.asked_again += 1;
        } else {
            self.counts.asked_new += 1;
            let contact = Contact::of(frame, &call);
            self.contacts.insert(call.clone(), contact);
        }
        let name = uri_in(frame.header("To")).trim_start_matches("sip:").to_owned();
        let user = name.split('@').next().unwrap_or_default().to_owned();
        let at = self.edge.at;
        let more = format!(
            "{}Contact: <sip:{user}@{at};transport=tcp>\r\nExpires: {}\r\n",
            routes(frame),
            frame.header("Expires").parse().unwrap_or(3600).min(3600),
        );
        self.answer(line, frame, "200 OK", &more)?;
        let ends = frame.header("Expires") == "0";
        let text = self.contacts.get_mut(&call).map(|it| it.notify(&name, at, self.busy, ends));
        if ends {
            self.contacts.remove(&call);
        }
        self.edge.queue(line, text.unwrap_or_default().as_bytes())
    }
}

fn seen(frame: &Frame<'_>) -> Seen {
    let state = frame.header("Subscription-State");
    if state.starts_with("pending") {
        return Seen::Pending;
    }
    if !state.starts_with("active") {
        return Seen::Over;
    }
    if find(frame.body, b"<basic>open<").is_some() {
        return Seen::Open;
    }
    if frame.body.is_empty() { Seen::Unknown } else { Seen::Closed }
}

impl End {
    fn tag(&mut self, head: &[u8], approves: &mut Vec<String>) {
        if head.starts_with(b"<presence") {
            let Some(from) = attribute(head, b" from=") else { return };
            let bare = from.split(|b| *b == b'/').next().unwrap_or_default();
            match attribute(head, b" type=") {
                Some(b"subscribe") => approves.push(String::from_utf8_lossy(bare).into_owned()),
                Some(b"unavailable") => drop(self.sees.insert(bare.to_vec(), None)),
                Some(_) => {}
                None if !bare.ends_with(DOMAIN.as_bytes()) => {}
                None if head.ends_with(b"/>") => drop(self.sees.insert(bare.to_vec(), Some(false))),
                None => self.from = Some((bare.to_vec(), false)),
            }
        } else if head.starts_with(b"<show") {
            self.from.iter_mut().for_each(|it| it.1 = true);
        } else if head.starts_with(b"</presence")
            && let Some((from, show)) = self.from.take()
        {
            self.sees.insert(from, Some(show));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_approves_and_sees_contacts_with_and_without_show() {
        let mut end = End::default();
        let mut approves = Vec::new();
        let text = b"<presence type='subscribe' from='w1@edge.example'/><presence from='c1@edge.example'>\
            <show>dnd</show></presence><presence from='c2@edge.example/x'/><presence from='u1@load.example'/>\
            <presence type='unavailable' from='c3@edge.example'/>";
        assert_eq!(tags(text, |head| end.tag(head, &mut approves)), text.len());
        assert_eq!(approves, ["w1@edge.example"]);
        let sees = |name: &[u8]| end.sees.get(name).copied();
        assert_eq!(sees(b"c1@edge.example"), Some(Some(true)));
        assert_eq!(sees(b"c2@edge.example"), Some(Some(false)));
        assert_eq!(sees(b"c3@edge.example"), Some(None));
        assert_eq!(end.sees.len(), 3);
    }
}
