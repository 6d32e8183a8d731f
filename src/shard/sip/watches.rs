//! Who of this shard's users watches whom over SIP: what is known of each subscription.
//!
//! What happens to it is `watch.rs`'s business.

use std::time::Duration;

use crate::address::Address;
use crate::gateway::watch::{Level, State};
use crate::limits::{SIP_DIALOGS_MAX, SIP_PEERS_MAX};
use crate::shard::sip::watch_tell::Seen;
use crate::sip::dialog::Dialog;
use crate::sip::fault::Fault;
use crate::stdx::{Key, Map, Slab};
use crate::time::{Moment, Wall};

/// Who of this shard's users watches whom over SIP.
#[derive(Debug)]
pub(super) struct Watches {
    pub(super) all: Slab<Watch>,
    /// By user and contact.
    pairs: Map<Box<str>, Key>,
    /// Requests that are out, each with the subscription it is of.
    pub(super) asks: Slab<Key>,
    /// The peers, by their names.
    peers: Map<Box<str>, Peer>,
    /// Subscriptions that ask once.
    pub(super) fetching: usize,
    /// What would go out, in tests that speak for the far end.
    #[cfg(test)]
    pub(super) script: Option<Box<Script>>,
}

/// Requests that wait for an answer of the test, and the statuses of our answers.
#[cfg(test)]
#[derive(Debug, Default)]
pub(in crate::shard) struct Script {
    pub(in crate::shard) requests: Vec<(Key, crate::shard::sip::Outgoing)>,
    pub(in crate::shard) answers: Vec<u16>,
}

/// What of a peer matters to all subscriptions that go there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peer {
    /// When it may be asked for the next of many.
    pub(super) free: Moment,
    /// The last request to it had no answer.
    pub(super) is_down: bool,
}

/// One local user's subscription to one contact.
#[derive(Debug)]
pub(super) struct Watch {
    /// Both bare.
    pub(super) user: Address,
    pub(super) contact: Address,
    pub(super) state: State,
    /// From the first SUBSCRIBE on.
    pub(super) dialog: Option<Dialog>,
    /// It is in the store.
    pub(super) is_kept: bool,
    /// The user was told that he may see the contact.
    pub(super) is_granted: bool,
    /// What was last seen; `None`: nothing is known.
    pub(super) seen: Option<Box<Seen>>,
    /// Failures in a row.
    pub(super) failures: u32,
    /// What 423 asked for, in seconds, and how often in a row it came.
    pub(super) expires_min: u32,
    pub(super) brief: u32,
    /// When the contact's side first said something in the dialog.
    pub(super) stood: Option<Moment>,
    /// When it last did, or took a refresh.
    pub(super) heard: Moment,
    /// The request that is out.
    pub(super) ask: Option<Key>,
    /// When something is to be sent.
    pub(super) due: Moment,
    /// What is granted ends; what was seen in an older dialog is good up to then, too.
    pub(super) expiry: Moment,
    /// The same of a dialog that was accepted and has said nothing yet.
    pub(super) granted: Moment,
    /// Timer N.
    pub(super) silent: Moment,
    /// The timer that is set.
    pub(super) armed: Moment,
    /// When the user last asked for it.
    pub(super) wanted: Wall,
    /// His account may be gone.
    pub(super) is_doubted: bool,
}

/// What comes with an input.
#[derive(Debug, Default)]
pub(super) struct News {
    /// What the document says.
    pub(super) seen: Option<Seen>,
    /// What the far end asks us to wait.
    pub(super) retry_after: Option<Duration>,
    /// The answer's status; 0: there was none.
    pub(super) status: u16,
}

/// What a body says, if there is one; or what is wrong with it.
pub(super) type Document = Result<Option<Seen>, Fault>;

impl Watches {
    /// `seed` makes the order of the tables unguessable.
    pub(super) fn new(seed: u64) -> Self {
        let max = u32::try_from(SIP_DIALOGS_MAX).unwrap_or(u32::MAX);
        Self {
            all: Slab::new(max),
            pairs: Map::seeded(seed),
            asks: Slab::new(max),
            peers: Map::seeded(seed),
            fetching: 0,
            #[cfg(test)]
            script: None,
        }
    }

    /// The subscription of that user to that contact, both bare.
    pub(super) fn find(&self, user: &str, contact: &str) -> Option<Key> {
        self.pairs.get(pair(user, contact).as_str()).copied()
    }

    /// A new one. `None`: there are too many.
    pub(super) fn enter(&mut self, user: &Address, contact: &Address, now: Wall) -> Option<Key> {
        let key = self.all.insert(Watch::new(user.clone(), contact.clone(), now)).ok()?;
        self.pairs.insert(pair(user.bare(), contact.bare()).into(), key);
        Some(key)
    }

    /// It is over.
    pub(super) fn remove(&mut self, key: Key) {
        if let Some(watch) = self.all.remove(key) {
            self.pairs.remove(pair(watch.user.bare(), watch.contact.bare()).as_str());
        }
    }

    /// What is known of a peer, to be changed.
    pub(super) fn peer(&mut self, name: &str, now: Moment) -> &mut Peer {
        if self.peers.len() >= SIP_PEERS_MAX && !self.peers.contains_key(name) {
            self.peers.retain(|_, it| it.is_down || it.free > now);
        }
        self.peers.entry(name.into()).or_default()
    }

    /// What follows from another state is counted.
    pub(super) fn moved(&mut self, before: State, after: State) {
        let fetching = |it| usize::from(it == State::Fetching);
        self.fetching += fetching(after);
        self.fetching -= fetching(before);
    }
}

fn pair(user: &str, contact: &str) -> String {
    format!("{user} {contact}")
}

impl Watch {
    fn new(user: Address, contact: Address, wanted: Wall) -> Self {
        Self {
            user,
            contact,
            state: State::Idle,
            dialog: None,
            is_kept: false,
            is_granted: false,
            seen: None,
            failures: 0,
            expires_min: 0,
            brief: 0,
            stood: None,
            heard: Moment::default(),
            ask: None,
            due: Moment::NEVER,
            expiry: Moment::NEVER,
            granted: Moment::NEVER,
            silent: Moment::NEVER,
            armed: Moment::NEVER,
            wanted,
            is_doubted: false,
        }
    }

    /// What the contact's side has decided, if there is a dialog.
    pub(super) fn level(&self) -> Option<Level> {
        match self.state {
            State::Standing(level) | State::Refreshing(level) => Some(level),
            _ => None,
        }
    }

    /// It is on its way out, or was never there.
    pub(super) fn is_leaving(&self) -> bool {
        use State::{Ended, Ending, Fetching, Idle, Leaving, Parting};
        matches!(self.state, Idle | Leaving | Ending | Parting | Fetching | Ended)
    }
}
