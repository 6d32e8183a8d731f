//! Makes the subscriptions of a fan-out over XMPP itself (RFC 6121, 3.1), so that it works against
//! any server: every watcher asks every presentity, and who is asked approves.
//!
//! Pipelined, a bounded number of requests per watcher. The watcher's own roster decides what is
//! done: its pushes, and the roster itself when pushes stay away. Does **not** cancel anything.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use memchr::memmem::find;
use memchr::{memchr, memrchr};
use serde_json::{Value, json};

use crate::population::{EVENTS, Population};
use crate::sys::Event;

/// Requests of a watcher on their way: with 1,000 watchers of 50, some 40 at each presentity, which
/// is below what servers keep for one user.
const WINDOW: usize = 2;
/// Silence after which the rosters are believed to have come.
const QUIET: Duration = Duration::from_millis(500);
/// Silence after which what is missing is asked for again.
const STALLED: Duration = Duration::from_secs(5);
/// How often that is tried.
const ATTEMPTS: usize = 10;

struct End {
    /// What was not read to its end.
    held: Vec<u8>,
    /// Watcher: whom it sees already.
    sees: Vec<bool>,
    missing: usize,
    /// Where it looks next for one it doesn't see.
    next: usize,
    /// How many are still to be asked in this attempt.
    left: usize,
    dirty: bool,
}

struct Work {
    population: Population,
    presentities: usize,
    /// Bare JIDs of the presentities.
    jids: Vec<String>,
    index: BTreeMap<Vec<u8>, usize>,
    ends: Vec<End>,
    dirty: Vec<usize>,
    missing: usize,
    asked: u64,
    raw: Vec<u8>,
    clear: Vec<u8>,
}

/// One tag that matters.
enum Seen {
    /// Somebody asks.
    Subscribe(Vec<u8>),
    /// A roster item through which presence comes.
    Sees(usize),
}

/// The first `presentities` clients approve, all others ask; returns when every roster says so.
/// The clients are logged in and have sent presence.
pub fn make(population: Population, presentities: usize) -> Result<Value, String> {
    let begin = Instant::now();
    let bare = |jid: &str| jid.split('/').next().unwrap_or_default().to_owned();
    let jids: Vec<String> =
        population.clients.iter().take(presentities).map(|c| bare(&c.jid)).collect();
    let index = jids.iter().enumerate().map(|(i, j)| (j.clone().into_bytes(), i)).collect();
    let watchers = population.clients.len().saturating_sub(presentities);
    let ends = (0..population.clients.len()).map(|at| End {
        held: Vec::new(),
        sees: vec![false; if at < presentities { 0 } else { presentities }],
        missing: if at < presentities { 0 } else { presentities },
        next: at,
        left: 0,
        dirty: false,
    });
    let mut work = Work {
        ends: ends.collect(),
        population,
        presentities,
        jids,
        index,
        dirty: Vec::new(),
        missing: watchers * presentities,
        asked: 0,
        raw: vec![0; 64 << 10],
        clear: Vec::new(),
    };
    for _ in 0..ATTEMPTS {
        work.fetch()?;
        work.turn_until_quiet(QUIET)?;
        work.ask()?;
        work.turn_until_quiet(STALLED)?;
        if work.missing == 0 {
            return Ok(json!({
                "subscriptions": watchers * presentities,
                "asked": work.asked,
                "seconds": begin.elapsed().as_secs_f64(),
            }));
        }
    }
    Err(format!("{} of {} subscriptions did not come", work.missing, watchers * presentities))
}

impl Work {
    /// Fetches the roster of every watcher that misses something; it is interested from then on.
    fn fetch(&mut self) -> Result<(), String> {
        for at in self.presentities..self.ends.len() {
            if self.ends[at].missing > 0 {
                self.say(at, b"<iq type='get' id='have'><query xmlns='jabber:iq:roster'/></iq>")?;
            }
        }
        Ok(())
    }

    fn ask(&mut self) -> Result<(), String> {
        for at in self.presentities..self.ends.len() {
            self.ends[at].left = self.ends[at].missing;
            for _ in 0..WINDOW {
                self.ask_next(at)?;
            }
        }
        Ok(())
    }

    /// Asks the next presentity that this watcher doesn't see. Everybody begins at another one, so
    /// that no presentity is asked by all at once.
    fn ask_next(&mut self, at: usize) -> Result<(), String> {
        let end = &mut self.ends[at];
        if end.left == 0 || end.missing == 0 {
            return Ok(());
        }
        end.left -= 1;
        for _ in 0..end.sees.len() {
            let whom = end.next % end.sees.len();
            end.next += 1;
            if !end.sees[whom] {
                let line = format!("<presence to='{}' type='subscribe'/>", self.jids[whom]);
                self.asked += 1;
                return self.say(at, line.as_bytes());
            }
        }
        Ok(())
    }

    fn say(&mut self, at: usize, text: &[u8]) -> Result<(), String> {
        self.population.clients[at].link.queue(text).map_err(|e| e.to_string())?;
        if !self.ends[at].dirty {
            self.ends[at].dirty = true;
            self.dirty.push(at);
        }
        Ok(())
    }

    /// Works until nothing comes any more for a while, or nothing is missing.
    fn turn_until_quiet(&mut self, quiet: Duration) -> Result<(), String> {
        let mut last = Instant::now();
        let mut events = vec![Event::EMPTY; EVENTS];
        while self.missing > 0 && last.elapsed() < quiet {
            for at in std::mem::take(&mut self.dirty) {
                self.ends[at].dirty = false;
                self.population.flush(at).map_err(|e| e.to_string())?;
            }
            let wait = Some(Duration::from_millis(50));
            let count = self.population.epoll.wait(&mut events, wait).map_err(|e| e.to_string())?;
            for event in events.iter().take(count) {
                let at = event.token() as usize;
                last = Instant::now();
                if event.writable() {
                    self.population.flush(at).map_err(|e| e.to_string())?;
                }
                while event.readable() && self.take(at)? {}
            }
        }
        Ok(())
    }

    /// Reads once; true if there may be more.
    fn take(&mut self, at: usize) -> Result<bool, String> {
        let client = &mut self.population.clients[at];
        let read = client.link.read(&mut self.raw, &mut self.clear).map_err(|e| e.to_string())?;
        let bytes = read.ok_or_else(|| format!("the server closed on {}", client.jid))?;
        let end = &mut self.ends[at];
        end.held.extend_from_slice(bytes);
        if find(&end.held, b"<stream:error").is_some() {
            return Err(String::from_utf8_lossy(&end.held).into_owned());
        }
        let mut seen = Vec::new();
        let held = std::mem::take(&mut end.held);
        let done = tags(&held, |head| seen.extend(self.index_of(head)));
        self.ends[at].held = held;
        self.ends[at].held.drain(..done);
        for one in seen {
            match one {
                Seen::Subscribe(from) if at < self.presentities => {
                    let to = String::from_utf8_lossy(&from);
                    let line = format!("<presence to='{to}' type='subscribed'/>");
                    self.say(at, line.as_bytes())?;
                }
                Seen::Sees(whom) => self.sees(at, whom)?,
                Seen::Subscribe(_) => {}
            }
        }
        Ok(self.population.clients[at].link.may_have_more)
    }

    fn index_of(&self, head: &[u8]) -> Option<Seen> {
        if head.starts_with(b"<presence") {
            let asks = attribute(head, b" type=")? == b"subscribe";
            return asks.then(|| Some(Seen::Subscribe(attribute(head, b" from=")?.to_vec())))?;
        }
        if head.starts_with(b"<item") {
            let subscription = attribute(head, b" subscription=")?;
            let sees = subscription == b"to" || subscription == b"both";
            let whom = *self.index.get(attribute(head, b" jid=")?)?;
            return sees.then_some(Seen::Sees(whom));
        }
        None
    }

    fn sees(&mut self, at: usize, whom: usize) -> Result<(), String> {
        let end = &mut self.ends[at];
        if let Some(sees) = end.sees.get_mut(whom).filter(|s| !**s) {
            *sees = true;
            end.missing -= 1;
            self.missing -= 1;
            return self.ask_next(at);
        }
        Ok(())
    }
}

/// Calls `each` with every whole tag and says how many bytes are done with.
pub(crate) fn tags(bytes: &[u8], mut each: impl FnMut(&[u8])) -> usize {
    let Some(last) = memrchr(b'>', bytes) else { return 0 };
    let mut rest = &bytes[..=last];
    while let Some(open) = memchr(b'<', rest) {
        let Some(length) = memchr(b'>', &rest[open..]) else { break };
        each(&rest[open..=open + length]);
        rest = &rest[open + length + 1..];
    }
    last + 1
}

/// The value behind ` name=`, in either kind of quotes.
pub(crate) fn attribute<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (quote, value) = head.get(find(head, name)? + name.len()..)?.split_first()?;
    value.get(..memchr(*quote, value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_whole_and_attributes_in_either_quotes() {
        let text = b"x<presence from='a@d' type=\"subscribe\"/><iq><item jid='b@d'/></iq><pre";
        let mut heads = Vec::new();
        let done = tags(text, |head| heads.push(head.to_vec()));
        assert_eq!(&text[done..], b"<pre");
        assert_eq!(heads.len(), 4);
        assert_eq!(attribute(&heads[0], b" type="), Some(&b"subscribe"[..]));
        assert_eq!(attribute(&heads[0], b" from="), Some(&b"a@d"[..]));
        assert_eq!(attribute(&heads[0], b" to="), None);
    }
}
