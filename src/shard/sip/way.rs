//! One way to a SIP peer as data: its stage, its lines and its two queues, with their bounds.
//!
//! What is done with it is in `ways.rs`, how it gets a connection in `reach.rs`.

use std::collections::VecDeque;

use crate::dns::{self, Plan};
use crate::limits::{SIP_URIS_WARN, SIP_WAY_QUEUE_BYTES_MAX, SIP_WAY_QUEUE_MAX};
use crate::peer::Trouble;
use crate::shard::kernel::ConnId;
use crate::shard::sip::Class;
use crate::shard::sip::line::{Line, Pace};
use crate::stdx::Key;
use crate::time::Moment;

/// A way.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) near: Box<str>,
    /// Names all connections to the same far side.
    pub(super) peer: Box<str>,
    /// A domain behind it: DNS is asked for the last that was wanted.
    pub(super) far: Box<str>,
    /// It had a line or tried to get one, and has none.
    pub(super) down: bool,
    /// It was lost in the middle of things: until then somebody looks whether it is back.
    pub(super) probe_until: Moment,
    pub(super) stage: Stage,
    pub(super) stage_deadline: Moment,
    pub(super) plan: Option<Plan>,
    pub(super) target: Option<dns::Target>,
    /// Targets that are known of; with more than one another is worth a try.
    pub(super) width: usize,
    pub(super) trouble: Option<Trouble>,
    /// Failures in a row.
    pub(super) failures: u32,
    pub(super) lines: Vec<Line>,
    /// It answered a request of ours at some time.
    pub(super) proven: bool,
    pub(super) dialog: VecDeque<Item>,
    pub(super) new: VecDeque<Item>,
    pub(super) bytes: usize,
    pub(super) pace: Pace,
    /// Its Retry-After.
    pub(super) rest_until: Moment,
    /// Hashes of the URIs that new requests went to.
    pub(super) uris: Vec<u64>,
    pub(super) used: Moment,
    pub(super) armed: Moment,
}

/// How far the next connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Idle,
    Resolving,
    LookingUp,
    Connecting,
    /// TLS, and the judgement of its certificate.
    Securing(ConnId),
    BackingOff,
}

#[derive(Debug)]
pub(super) enum Item {
    /// A client transaction that waits.
    Txn(Key),
    /// An ACK, which has no transaction and needs a Via.
    Ack(Vec<u8>, Moment),
    /// A response whose connection is gone.
    Response(Vec<u8>, Moment),
}

impl Way {
    pub(super) fn new(near: &str, peer: &str, far: &str, now: Moment) -> Self {
        Self {
            near: near.into(),
            peer: peer.into(),
            far: far.into(),
            down: false,
            probe_until: Moment::default(),
            stage: Stage::Idle,
            stage_deadline: Moment::NEVER,
            plan: None,
            target: None,
            width: 1,
            trouble: None,
            failures: 0,
            lines: Vec::new(),
            proven: false,
            // What may be in them is weighed where it is pushed.
            dialog: VecDeque::with_capacity(0),
            new: VecDeque::with_capacity(0),
            bytes: 0,
            pace: Pace::default(),
            rest_until: Moment::default(),
            uris: Vec::new(),
            used: now,
            armed: Moment::NEVER,
        }
    }

    /// Somebody waits.
    pub(super) fn is_wanted(&self) -> bool {
        !self.dialog.is_empty() || !self.new.is_empty()
    }

    pub(super) fn push(&mut self, class: Class, item: Item, bytes: usize) -> Result<(), Item> {
        let waiting = self.dialog.len() + self.new.len();
        if waiting >= SIP_WAY_QUEUE_MAX || self.bytes + bytes > SIP_WAY_QUEUE_BYTES_MAX {
            return Err(item);
        }
        self.bytes += bytes;
        match class {
            Class::InDialog => self.dialog.push_back(item),
            Class::New => self.new.push_back(item),
        }
        Ok(())
    }

    /// True: this URI makes a number that somebody should hear of.
    pub(super) fn saw(&mut self, uri: u64) -> bool {
        if self.uris.len() > SIP_URIS_WARN {
            return false;
        }
        match self.uris.binary_search(&uri) {
            Ok(_) => false,
            Err(at) => {
                self.uris.insert(at, uri);
                self.uris.len() == SIP_URIS_WARN
            }
        }
    }
}
