//! The subscriptions of SIP watchers to users of a shard, and what waits for their peers.
//!
//! One dialog is a [`Watching`]. A peer is handed a bounded number of NOTIFYs at a time; the others
//! wait here as keys, so what is said in the end is what is true then, and no queue of the transport
//! can overflow, however many must be told at once.

use std::collections::VecDeque;

use crate::address::Address;
use crate::gateway::pidf::Shown;
use crate::gateway::watched::{Pace, State};
use crate::home::dialogs::DialogKey;
use crate::limits::{SIP_DIALOGS_MAX, WATCHED_OUT_MAX};
use crate::sip::dialog::Dialog;
use crate::stdx::{Key, Map, Slab};
use crate::time::{Moment, Wall};

/// One dialog of a watcher.
#[derive(Debug)]
pub(in crate::shard::sip) struct Watching {
    /// Bare.
    pub(in crate::shard::sip) user: Address,
    /// Bare.
    pub(in crate::shard::sip) watcher: Address,
    pub(super) row: DialogKey,
    pub(super) dialog: Dialog,
    /// Its Event, with the id if it has one.
    pub(super) event: Box<[u8]>,
    pub(in crate::shard::sip) state: State,
    pub(super) pace: Pace,
    pub(super) expires: Moment,
    /// When it began to wait for the user; counts while it is pending.
    pub(super) pending: Wall,
    /// A hash of what the watcher was told last; zero: of nothing that he has.
    pub(super) told: u64,
    /// What resources said to this watcher alone; `None`: that they are not there.
    pub(super) directed: Vec<(Box<str>, Option<Shown>)>,
    /// Numbers up to this one may be used: they are kept.
    pub(super) usable: u32,
    /// More of them are being kept.
    pub(super) reserving: bool,
    /// When its timer comes.
    pub(super) armed: Moment,
    /// When the NOTIFY that is out was handed over.
    pub(super) asked: Moment,
    /// It waits for its peer.
    queued: bool,
    /// It has one of its peer's places.
    pub(super) placed: bool,
    /// Its last NOTIFY is out.
    pub(super) last: bool,
    /// The account may be gone.
    pub(super) doubted: bool,
}

impl Watching {
    pub(super) fn new(
        (user, watcher): (&Address, &Address),
        row: DialogKey,
        dialog: Dialog,
        event: &[u8],
        expires: Moment,
    ) -> Self {
        Self {
            user: user.clone(),
            watcher: watcher.clone(),
            row,
            dialog,
            event: event.into(),
            state: State::Init,
            pace: Pace::default(),
            expires,
            pending: Wall::default(),
            told: 0,
            directed: Vec::new(),
            usable: 0,
            reserving: false,
            armed: Moment::NEVER,
            asked: Moment::default(),
            queued: false,
            placed: false,
            last: false,
            doubted: false,
        }
    }
}

/// What waits for one SIP domain.
#[derive(Debug, Default)]
struct Peer {
    /// Dialogs with a NOTIFY under way, or being written.
    out: usize,
    /// Answers to SUBSCRIBEs and last words.
    urgent: VecDeque<Key>,
    others: VecDeque<Key>,
}

/// All of a shard.
#[derive(Debug)]
pub(crate) struct Watched {
    all: Slab<Watching>,
    /// By `user watcher`, the oldest first.
    pairs: Map<Box<str>, Vec<Key>>,
    users: Map<Box<str>, Vec<Key>>,
    peers: Map<Box<str>, Peer>,
    /// Until then a user without a client is unknown.
    pub(in crate::shard::sip) unsure_until: Moment,
}

impl Watched {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            all: Slab::new(u32::try_from(SIP_DIALOGS_MAX).unwrap_or(u32::MAX)),
            pairs: Map::seeded(seed),
            users: Map::seeded(seed.rotate_left(21)),
            peers: Map::seeded(seed.rotate_left(42)),
            unsure_until: Moment::default(),
        }
    }

    pub(super) fn insert(&mut self, watching: Watching) -> Option<Key> {
        let pair = pair_of(&watching.user, &watching.watcher);
        let user: Box<str> = watching.user.full().into();
        let key = self.all.insert(watching).ok()?;
        for (map, name) in [(&mut self.pairs, pair), (&mut self.users, user)] {
            match map.get_mut(&*name) {
                Some(keys) => keys.push(key),
                None => drop(map.insert(name, vec![key])),
            }
        }
        Some(key)
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Watching> {
        self.free(key);
        let gone = self.all.remove(key)?;
        let pair = pair_of(&gone.user, &gone.watcher);
        for (map, name) in [(&mut self.pairs, &*pair), (&mut self.users, gone.user.full())] {
            if let Some(keys) = map.get_mut(name) {
                keys.retain(|it| *it != key);
                if keys.is_empty() {
                    map.remove(name);
                }
            }
        }
        Some(gone)
    }

    pub(in crate::shard::sip) fn get(&self, key: Key) -> Option<&Watching> {
        self.all.get(key)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Watching> {
        self.all.get_mut(key)
    }

    /// Dialogs of one user and one watcher, the oldest first.
    pub(super) fn of_pair(&self, user: &Address, watcher: &Address) -> Vec<Key> {
        if self.all.is_empty() {
            return Vec::new();
        }
        self.pairs.get(&*pair_of(user, watcher)).cloned().unwrap_or_default()
    }

    /// All dialogs of a user.
    pub(super) fn of_user(&self, bare: &str) -> Vec<Key> {
        self.users.get(bare).cloned().unwrap_or_default()
    }

    pub(in crate::shard::sip) fn keys_of(&self, which: impl Fn(&Watching) -> bool) -> Vec<Key> {
        self.all.iter().filter(|it| which(it.1)).map(|it| it.0).collect()
    }

    /// It waits for its peer from now on.
    pub(super) fn queue(&mut self, key: Key) {
        let Some(it) = self.all.get_mut(key) else { return };
        if it.placed || std::mem::replace(&mut it.queued, true) {
            return;
        }
        let far = it.watcher.domain();
        let peer = match self.peers.get_mut(far) {
            Some(peer) => peer,
            None => self.peers.entry(far.into()).or_default(),
        };
        if it.pace.is_urgent() { peer.urgent.push_back(key) } else { peer.others.push_back(key) }
    }

    /// The next dialog of that peer, which has a place from now on.
    pub(super) fn next(&mut self, far: &str) -> Option<Key> {
        let peer = self.peers.get_mut(far)?;
        while peer.out < WATCHED_OUT_MAX {
            let key = match peer.urgent.pop_front() {
                Some(key) => key,
                None => peer.others.pop_front()?,
            };
            if let Some(it) = self.all.get_mut(key).filter(|it| it.queued) {
                it.queued = false;
                it.placed = true;
                peer.out += 1;
                return Some(key);
            }
        }
        None
    }

    /// It gives its place back.
    pub(super) fn free(&mut self, key: Key) {
        let Some(it) = self.all.get_mut(key) else { return };
        if !std::mem::replace(&mut it.placed, false) {
            return;
        }
        let far = it.watcher.domain();
        if let Some(peer) = self.peers.get_mut(far) {
            peer.out -= 1;
            if peer.out == 0 && peer.urgent.is_empty() && peer.others.is_empty() {
                self.peers.remove(far);
            }
        }
    }
}

fn pair_of(user: &Address, watcher: &Address) -> Box<str> {
    // No address has a blank before its resource.
    format!("{} {}", user.bare(), watcher.bare()).into()
}
