//! SIP in the engine: requests and answers between a partner's connection and a local user's home.
//!
//! **Transactions live with the transport**, on the shard that has the connection; **dialogs live
//! with the local user**, on his home shard. This file is what the two halves say to each other: a
//! request that came is handed to the home with the [`Txn`] to be answered ([`Shard::sip_reply`]); a
//! request of ours is handed to the transport without a Via ([`Shard::sip_send`]) and its answers come
//! back to the [`Asker`] ([`Heard`]). A user's home is found by the hash of his address, so a tag
//! names no place.
//!
//! To the home's rules a SIP domain is one more peer: what it says is written as a stanza and
//! delivered ([`Shard::deliver`]), and a stanza to it comes to [`Shard::sip_stanza`] on the home
//! shard of its sender. RFC 3261, 6665; RFC 7247.

mod client;
mod conn;
mod counters;
mod datagram;
mod heads;
mod identity;
mod inbound;
mod line;
mod reach;
mod relay;
mod restore;
mod server;
mod session;
mod signs;
#[cfg(test)]
mod tests;
mod transport;
mod user;
mod watch;
mod watch_kept;
mod watch_run;
mod watch_tell;
mod watched;
mod watches;
mod way;
mod ways;

use std::fmt;

pub(crate) use conn::SipConn;
pub(crate) use counters::SipCounters;
pub(in crate::shard) use reach::sip_way_of;
pub(crate) use transport::SipTransport;

use restore::Restore;
use watched::Watched;

use crate::envelope::{Kind, Origin};
use crate::home::dialogs::{DialogChange, DialogKey};
use crate::limits::SIP_DIALOGS_MAX;
use crate::policy::{Profile, Transport};
use crate::shard::Shard;
use crate::shard::account::Outcome;
use crate::shard::deliver::Carry;
use crate::shard::gate::After;
use crate::shard::kernel::{ShardId, Unavailable};
use crate::sip::message::{Index, Message};
use crate::stdx::{Key, Map};
use crate::time::Moment;

/// A server transaction, wherever its connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Txn {
    /// The shard that has the connection.
    pub(crate) shard: ShardId,
    /// Opaque but to that shard.
    pub(crate) key: u64,
}

/// Who hears the answers to a request of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// An ACK, which has none, or a BYE that nobody minds.
    Nobody,
    /// A partner's subscription to a local user.
    Watched(Key),
    /// A local user's subscription to a contact there.
    Watch(Key),
    /// An IM session.
    Session(Key),
    /// A MESSAGE outside of any dialog.
    Page(Key),
}

/// Which budget of the peer's pace a request is on (RFC 7339; Microsoft's limits for partners).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// In a dialog: goes first.
    InDialog,
    /// Makes something new.
    New,
}

/// A request of a local user, as the transport takes it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The local user's domain: whose certificate and name we show.
    pub(crate) near: Box<str>,
    /// The SIP domain it goes to.
    pub(crate) far: Box<str>,
    pub(crate) class: Class,
    /// All tries end here.
    pub(crate) deadline: Moment,
    /// Whole, but for the Via.
    pub(crate) text: Vec<u8>,
}

/// Names a request of ours that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ask(pub(crate) u64);

/// What became of a request of ours. Provisional answers come too; exactly one final answer or
/// failure comes for each request, unless [`Asker::Nobody`] asked.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "handed down and never kept")]
pub(crate) enum Heard<'a> {
    Response(Message<'a>),
    Failed(Failure),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Timer B or F, or the deadline.
    Timeout,
    /// No target, or the connection failed or was lost.
    Unreachable,
    /// DNS has no such domain, or no SIP server for it.
    Unresolved,
    /// Policy, or a certificate of another.
    Denied,
    /// A bound of ours, or the peer's Retry-After.
    Overload,
    /// This node is being stopped.
    Stopping,
}

/// Whose dialog it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DialogOf {
    Watched(Key),
    Watch(Key),
    Session(Key),
}

/// A timer of SIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Watched(Key),
    Watch(Key),
    Session(Key),
    /// A page of the dialogs of before the restart is to be asked for again.
    Restore,
    /// Users who have not come back since the restart are offline.
    Known,
    /// A server transaction of this shard.
    Server(Key),
    /// A client transaction of this shard.
    Client(Key),
    /// A way of this shard.
    Way(Key),
    /// The answer to a request of a user of this shard.
    Ask(Key),
}

/// The home's half: dialogs of this shard's users.
#[derive(Debug)]
pub(crate) struct Sip {
    dialogs: Map<DialogKey, DialogOf>,
    /// What shall be kept, and who waits for it; asked once at the end of the turn.
    keeping: Keeping,
    /// Outcomes of messages that were delivered for a partner, by the number they were given.
    pub(super) handled: Vec<(u32, Outcome)>,
    /// The last number given.
    number: u32,
    /// For messages that are read here; one at a time.
    index: Index,
    /// The dialogs of before are being loaded.
    pub(super) restoring: bool,
    /// Requests in dialogs that may be among them.
    waiting: Vec<user::Waiting>,
    im: session::Im,
    /// Contacts there that local users watch.
    watches: watches::Watches,
    restore: Restore,
    /// Partners' subscriptions to users of this shard.
    watched: Watched,
}

/// Changes of one turn and what follows them.
#[derive(Default)]
struct Keeping {
    changes: Vec<DialogChange>,
    afters: Vec<After>,
}

impl fmt::Debug for Keeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keeping({:?}, {} wait)", self.changes, self.afters.len())
    }
}

impl Sip {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            dialogs: Map::seeded(seed),
            keeping: Keeping::default(),
            handled: Vec::new(),
            number: 0,
            index: Index::default(),
            restoring: false,
            waiting: Vec::new(),
            im: session::Im::new(seed),
            watches: watches::Watches::new(seed),
            restore: Restore::default(),
            watched: Watched::new(seed),
        }
    }

    /// Dialogs of this shard's users.
    pub(crate) fn dialogs(&self) -> usize {
        self.dialogs.len()
    }
}

/// The key of a dialog: its Call-ID and our tag.
pub(crate) fn dialog_key(call_id: &str, local_tag: &str) -> DialogKey {
    let mut key = String::with_capacity(call_id.len() + 1 + local_tag.len());
    key.push_str(call_id);
    key.push(' ');
    key.push_str(local_tag);
    key.into()
}

impl Shard {
    /// Enters a dialog; false: there are too many.
    #[must_use]
    pub(crate) fn dialog_enter(&mut self, key: DialogKey, of: DialogOf) -> bool {
        if self.sip.dialogs.len() >= SIP_DIALOGS_MAX {
            self.counters.sip.dialogs_full += 1;
            return false;
        }
        self.sip.dialogs.insert(key, of);
        true
    }

    /// The dialog is over.
    pub(crate) fn dialog_forget(&mut self, key: &str) {
        self.sip.dialogs.remove(key);
    }

    /// Whose dialog that is.
    pub(crate) fn dialog_of(&self, key: &str) -> Option<DialogOf> {
        self.sip.dialogs.get(key).copied()
    }

    /// A tag or Call-ID of ours: unguessable, with the version of its form in front.
    pub(crate) fn sip_token(&mut self) -> String {
        format!("t1.{}", self.random.id())
    }

    /// Durable with the turn's batch; `after` runs when it is committed, or is not.
    pub(crate) fn keep(&mut self, change: DialogChange, after: After) {
        self.sip.keeping.changes.push(change);
        self.sip.keeping.afters.push(after);
    }

    /// Durable some time; nobody waits for it.
    pub(crate) fn keep_later(&mut self, change: DialogChange) {
        self.sip.keeping.changes.push(change);
    }

    /// At the end of the turn: one question for all that is to be kept.
    pub(super) fn ask_to_keep(&mut self) {
        if self.sip.keeping.changes.is_empty() {
            return;
        }
        let Keeping { changes, afters } = std::mem::take(&mut self.sip.keeping);
        self.commit_dialogs(changes, afters);
    }

    /// An account for a message that a partner sent: its outcome comes to
    /// [`Shard::session_handled`] with this number.
    pub(crate) fn sip_origin(&mut self) -> Origin {
        self.sip.number = self.sip.number.wrapping_add(1);
        self.account.offer(Kind::Message);
        self.account.take(Kind::Message);
        Origin::of_gateway(self.id.0, self.sip.number)
    }

    /// Messages for which partners wait, once their outcome is known.
    pub(super) fn settle_sip(&mut self) {
        while !self.sip.handled.is_empty() {
            for (number, outcome) in std::mem::take(&mut self.sip.handled) {
                self.session_handled(number, outcome);
            }
        }
    }

    /// Does `work` with a message that was read before.
    pub(crate) fn with_message<R>(
        &mut self,
        frame: &[u8],
        work: impl FnOnce(&mut Self, Message<'_>) -> R,
    ) -> Option<R> {
        let mut index = std::mem::take(&mut self.sip.index);
        let done = match index.read(frame) {
            Ok(message) => Some(work(self, message)),
            Err(_) => None,
        };
        self.sip.index = index;
        done
    }

    /// A stanza of a local user to somebody in a SIP domain, on the user's home shard.
    pub(super) fn sip_stanza(&mut self, carry: &Carry<'_>) {
        user::stanza(self, carry);
    }

    /// The URI that we stand under in dialogs with that domain: FQDN, port and transport.
    pub(crate) fn own_contact(&self, near: &str, far: &str) -> String {
        self.own_uri(near, far, "")
    }

    /// Our Record-Route in dialogs with that domain, in brackets.
    pub(crate) fn own_route(&self, near: &str, far: &str) -> String {
        format!("<{}>", self.own_uri(near, far, ";lr"))
    }

    fn own_uri(&self, near: &str, far: &str, more: &str) -> String {
        let settings = &self.settings;
        let name = settings.domain(near).map_or(near, |it| it.sip_name.as_str());
        let transport = settings.policy.sip(far).map_or(Transport::Tls, |it| it.transport());
        let port = settings.sip_port(transport);
        format!("sip:{name}:{port};transport={}{more}", transport.word())
    }

    /// Whose habits that domain has.
    pub(crate) fn profile_of(&self, far: &str) -> Profile {
        self.settings.policy.verdict(far).0.profile
    }
}

/// What the store made of a batch.
pub(super) fn kept(shard: &mut Shard, afters: Vec<After>, done: Result<(), Unavailable>) {
    for after in afters {
        after(shard, done);
    }
}
