//! What goes to other shards of the node, as records of octets: fixed fields, then texts.
//!
//! Written over the turn, handed to the mesh at its end. Both ends are the same program, so a
//! record that can't be read is our own fault.

use crate::address::AddressRef;
use crate::envelope::{Kind, Purpose};
use crate::limits::POSTS_KEPT_BYTES_MAX;
use crate::shard::Shard;
use crate::shard::account::{Handled, Origin, Outcome, Outcomes};
use crate::shard::deliver::{Carry, Text};
use crate::shard::kernel::{Kernel, ShardId, Ticket};
use crate::time::Moment;
use crate::xmpp::dialback::Condition;
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::splice::Unforwardable;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A stanza for a local user of the receiving shard.
    Stanza,
    /// A stanza for a domain whose way the receiving shard owns.
    Outbound,
    /// How stanzas that the receiving shard took have ended.
    Outcomes,
    /// A dialback key that the receiving shard's way shall have verified (XEP-0220, 2.2).
    Verify,
    /// What came of it.
    Verified,
    /// A peer has proven itself on a stream: the receiving shard's way to it pauses no longer.
    Heard,
    /// Presence of a user of the sending shard, for all his watchers on the receiving one.
    Fanout,
    /// Who these watchers are.
    Watchers,
    /// The receiving shard's set of watchers is not known, or of another version.
    WatchersWanted,
    /// A stanza of a user of the receiving shard for somebody in a SIP domain.
    Gateway,
    /// A partner's request, for its user's home.
    SipRequest,
    /// The home's answer to it.
    SipReply,
    /// Its caller has given up.
    SipCancelled,
    /// A request of a user, for the shard of its way.
    SipOut,
    /// Nobody wants its answer any more.
    SipCancel,
    /// Its answer, or why there is none.
    SipAnswer,
    /// A response that came on another shard's connection or socket.
    SipStray,
    /// A peer that was away is back.
    SipBack,
    /// A datagram of a peer whose way is on the receiving shard.
    SipDatagram,
}

impl Record {
    const ALL: [Self; 19] = [
        Self::Stanza,
        Self::Outbound,
        Self::Outcomes,
        Self::Verify,
        Self::Verified,
        Self::Heard,
        Self::Fanout,
        Self::Watchers,
        Self::WatchersWanted,
        Self::Gateway,
        Self::SipRequest,
        Self::SipReply,
        Self::SipCancelled,
        Self::SipOut,
        Self::SipCancel,
        Self::SipAnswer,
        Self::SipStray,
        Self::SipBack,
        Self::SipDatagram,
    ];
}

/// The records of a turn.
#[derive(Debug, Default)]
pub(super) struct Posts {
    bytes: Vec<u8>,
    ends: Vec<(ShardId, usize)>,
}

/// A key to be verified by the domain that is said to have made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verify {
    /// The stream that waits for it.
    pub(super) ticket: Ticket,
    /// Our domain, which received the key.
    pub(super) near: String,
    /// The domain that is said to have sent it.
    pub(super) far: String,
    /// The id of the stream it came on.
    pub(super) stream_id: String,
    pub(super) key: String,
}

/// What the authoritative server said of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Valid,
    Invalid,
    /// It could not be asked (XEP-0220, 2.5).
    Failed(Condition),
}

impl Posts {
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Keeps a record for the next turn, while there are few.
    #[must_use]
    fn keep(&mut self, to: ShardId, record: &[u8]) -> bool {
        let room = self.bytes.len() < POSTS_KEPT_BYTES_MAX;
        if room {
            self.bytes.extend_from_slice(record);
            self.ends.push((to, self.bytes.len()));
        }
        room
    }

    /// A stanza for another shard; `exchange` writes it for a peer's stream.
    pub(super) fn stanza(
        &mut self,
        to: ShardId,
        record: Record,
        carry: &Carry<'_>,
        exchange: bool,
    ) -> Result<(), Unforwardable> {
        let start = self.bytes.len();
        self.bytes.push(record as u8);
        if let Err(unforwardable) = put_carry(carry, exchange, &mut self.bytes) {
            self.bytes.truncate(start);
            return Err(unforwardable);
        }
        self.ends.push((to, self.bytes.len()));
        Ok(())
    }

    fn outcomes(&mut self, to: ShardId, outcomes: &Outcomes) {
        self.bytes.push(Record::Outcomes as u8);
        for count in outcomes.counts.as_flattened() {
            self.bytes.extend_from_slice(&count.to_le_bytes());
        }
        for (stream, number) in &outcomes.handled {
            self.bytes.extend_from_slice(&stream.to_le_bytes());
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
        self.ends.push((to, self.bytes.len()));
    }

    /// A record whose fields are written by who knows them.
    pub(super) fn record(
        &mut self,
        to: ShardId,
        record: Record,
        fields: impl FnOnce(&mut Vec<u8>),
    ) {
        self.bytes.push(record as u8);
        fields(&mut self.bytes);
        self.ends.push((to, self.bytes.len()));
    }

    pub(super) fn verify(&mut self, to: ShardId, verify: &Verify) {
        self.bytes.push(Record::Verify as u8);
        self.bytes.extend_from_slice(&verify.ticket.0.to_le_bytes());
        for text in [&verify.near, &verify.far, &verify.stream_id, &verify.key] {
            put_text(text, &mut self.bytes);
        }
        self.ends.push((to, self.bytes.len()));
    }

    pub(super) fn verified(
        &mut self,
        to: ShardId,
        ticket: Ticket,
        near: &str,
        far: &str,
        verdict: Verdict,
    ) {
        self.bytes.push(Record::Verified as u8);
        self.bytes.extend_from_slice(&ticket.0.to_le_bytes());
        self.bytes.push(match verdict {
            Verdict::Valid => 0,
            Verdict::Invalid => 1,
            // Conditions are few: they fit beside the two.
            Verdict::Failed(condition) => 2 + condition.index() as u8,
        });
        put_text(near, &mut self.bytes);
        put_text(far, &mut self.bytes);
        self.ends.push((to, self.bytes.len()));
    }

    pub(super) fn heard(&mut self, to: ShardId, near: &str, far: &str) {
        self.bytes.push(Record::Heard as u8);
        put_text(near, &mut self.bytes);
        put_text(far, &mut self.bytes);
        self.ends.push((to, self.bytes.len()));
    }
}

impl Shard {
    /// Tells other shards how their stanzas ended.
    pub(super) fn post_outcomes(&mut self) {
        for (shard, outcomes) in (0_u16..).zip(&mut self.outcomes) {
            if outcomes.any {
                self.posts.outcomes(ShardId(shard), outcomes);
                outcomes.clear();
            }
        }
    }

    /// Hands the turn's records to the mesh. What finds no room is answered for.
    pub(super) fn send_posts<K: Kernel>(&mut self, kernel: &mut K) {
        if self.posts.ends.is_empty() {
            return;
        }
        let mut posts = std::mem::take(&mut self.posts);
        let (mut start, mut full) = (0, Vec::new());
        for (to, end) in posts.ends.drain(..) {
            let record = posts.bytes.get(start..end).unwrap_or_default();
            // Once one found no room none behind it may: a later one must not overtake it.
            if full.contains(&to) || kernel.post(to, record).is_err() {
                if !full.contains(&to) {
                    full.push(to);
                }
                self.unposted(to, record);
            }
            start = end;
        }
        posts.bytes.clear();
        // Answers to what found no room were written meanwhile; they go with the next turn.
        if self.posts.ends.is_empty() {
            self.posts = posts;
        }
    }

    /// A record of another shard.
    pub(super) fn posted(&mut self, from: ShardId, record: &[u8]) {
        let Some((tag, rest)) = record.split_first() else { return };
        match Record::ALL.get(usize::from(*tag)) {
            Some(Record::Stanza) => self.with_carry(rest, |shard, carry| shard.deliver(carry)),
            Some(Record::Outbound) => self.with_carry(rest, |shard, carry| shard.onto_way(carry)),
            Some(Record::Gateway) => self.with_carry(rest, |shard, carry| shard.sip_stanza(carry)),
            Some(Record::Outcomes) => self.take_outcomes(rest),
            Some(Record::Verify) => {
                if let Some(verify) = read_verify(rest) {
                    self.verify_asked(from, verify);
                }
            }
            Some(Record::Verified) => {
                let mut at = rest;
                let ticket = take_u64(&mut at).map(Ticket);
                let verdict = take_u8(&mut at).and_then(verdict_of);
                if let (Some(ticket), Some(verdict), Some(near), Some(far)) =
                    (ticket, verdict, take_text(&mut at), take_text(&mut at))
                {
                    self.verified(ticket, near, far, verdict);
                }
            }
            Some(Record::Heard) => {
                let mut at = rest;
                if let (Some(near), Some(far)) = (take_text(&mut at), take_text(&mut at)) {
                    self.peer_heard(near, far);
                }
            }
            Some(Record::Fanout) => self.fanout_came(from, rest),
            Some(Record::Watchers) => self.watchers_came(rest),
            Some(Record::WatchersWanted) => self.watchers_wanted(from, rest),
            Some(record) => self.sip_posted(from, *record, rest),
            None => unreachable!("both ends are the same program"),
        }
    }

    /// Does `work` with a stanza that [`carried`] wrote down, or another shard.
    pub(super) fn with_carry(&mut self, record: &[u8], work: impl FnOnce(&mut Self, &Carry<'_>)) {
        let mut at = record;
        let fields = (take_u8(&mut at), take_u8(&mut at), take_u8(&mut at), take_u16(&mut at));
        let (Some(kind), Some(purpose), Some(counted), Some(shard)) = fields else { return };
        let (Some(kind), Some(purpose)) = (Kind::from_index(kind), Purpose::from_index(purpose))
        else {
            return;
        };
        let mark = if counted == 2 { take_handled(&mut at) } else { Some((0, 0)) };
        let Some((stream, number)) = mark else { return };
        let Some(since) = take_u64(&mut at) else { return };
        let (Some(from), Some(to)) = (take_text(&mut at), take_text(&mut at)) else { return };
        let (mut a, mut b) = (String::new(), String::new());
        let (Ok(from), Ok(to)) = (AddressRef::parse(from, &mut a), AddressRef::parse(to, &mut b))
        else {
            return;
        };
        let origin = (counted > 0).then_some(Origin { shard, kind, stream, number });
        let text = Text::Written(at);
        work(self, &Carry { origin, since: Moment(since), kind, purpose, from, to, text });
    }

    fn take_outcomes(&mut self, mut at: &[u8]) {
        for kind in Kind::ALL {
            for outcome in Outcome::ALL {
                let count = take_u32(&mut at).unwrap_or(0);
                if count > 0 {
                    self.account.close(kind, outcome, u64::from(count));
                }
            }
        }
        while let Some(handled) = take_handled(&mut at) {
            self.handled.push(handled);
        }
    }

    /// Offered again with the next turn.
    fn keep_post(&mut self, to: ShardId, record: &[u8]) {
        if !self.posts.keep(to, record) {
            self.counters.posts_lost += 1;
        }
    }

    /// The mesh to that shard is full.
    fn unposted(&mut self, to: ShardId, record: &[u8]) {
        self.counters.mesh_full += 1;
        let Some((tag, rest)) = record.split_first() else { return };
        match Record::ALL.get(usize::from(*tag)) {
            // An answer of ours: nobody would hear that it was lost, so it is offered again.
            Some(Record::Stanza | Record::Outbound | Record::Gateway)
                if rest.get(2) == Some(&0) =>
            {
                self.keep_post(to, record);
            }
            Some(Record::Stanza | Record::Outbound | Record::Gateway) => {
                self.with_carry(rest, |shard, carry| {
                    shard.bounce(carry, StanzaFault::ResourceConstraint);
                })
            }
            Some(Record::Outcomes) => {
                let mut at = rest;
                let Some(outcomes) = self.outcomes.get_mut(usize::from(to.0)) else { return };
                for kind in Kind::ALL {
                    for outcome in Outcome::ALL {
                        match take_u32(&mut at).unwrap_or(0) {
                            0 => {}
                            count => outcomes.count(kind, outcome, count),
                        }
                    }
                }
                while let Some(handled) = take_handled(&mut at) {
                    outcomes.handled.push(handled);
                }
            }
            Some(Record::Verify) => {
                if let Some(verify) = read_verify(rest) {
                    let failed = Verdict::Failed(Condition::ResourceConstraint);
                    self.verified(verify.ticket, &verify.near, &verify.far, failed);
                }
            }
            Some(
                Record::Verified
                | Record::Heard
                | Record::Fanout
                | Record::Watchers
                | Record::WatchersWanted,
            ) => self.keep_post(to, record),
            Some(kind) if self.sip_unposted(*kind, rest) => self.keep_post(to, record),
            Some(_) | None => {}
        }
    }
}

/// A stanza written down, for whoever must wait with it on this shard.
pub(super) fn carried(carry: &Carry<'_>) -> Result<Vec<u8>, Unforwardable> {
    let text = match &carry.text {
        Text::Original { frame, .. } => frame.len(),
        Text::Written(text) => text.len(),
    };
    // What stands before it, and what an edit may add.
    let addresses = carry.from.full().len() + carry.to.full().len();
    let mut out = Vec::with_capacity(text + 2 * addresses + 64);
    put_carry(carry, false, &mut out)?;
    Ok(out)
}

fn put_carry(carry: &Carry<'_>, exchange: bool, out: &mut Vec<u8>) -> Result<(), Unforwardable> {
    out.push(carry.kind as u8);
    out.push(carry.purpose.index());
    // Only whose sender counts pays for the number.
    let counted = carry.origin.filter(|origin| (origin.stream, origin.number) != (0, 0));
    out.push(u8::from(carry.origin.is_some()) + u8::from(counted.is_some()));
    out.extend_from_slice(&carry.origin.map_or(0, |o| o.shard).to_le_bytes());
    if let Some(Origin { stream, number, .. }) = counted {
        out.extend_from_slice(&stream.to_le_bytes());
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&carry.since.0.to_le_bytes());
    for address in [carry.from.full(), carry.to.full()] {
        put_text(address, out);
    }
    if exchange {
        carry.text.append_exchanged(out)?
    } else {
        carry.text.append(out)?
    };
    Ok(())
}

fn read_verify(mut at: &[u8]) -> Option<Verify> {
    let ticket = Ticket(take_u64(&mut at)?);
    let mut text = || take_text(&mut at).map(str::to_owned);
    Some(Verify { ticket, near: text()?, far: text()?, stream_id: text()?, key: text()? })
}

fn verdict_of(octet: u8) -> Option<Verdict> {
    match octet {
        0 => Some(Verdict::Valid),
        1 => Some(Verdict::Invalid),
        n => Condition::ALL.get(usize::from(n) - 2).copied().map(Verdict::Failed),
    }
}

pub(super) fn put_text(text: &str, out: &mut Vec<u8>) {
    // Addresses are at most 3 x 1,023 octets, dialback's texts come in a stanza of a stranger.
    let length = u16::try_from(text.len()).expect("texts of records are short");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn take_text<'a>(at: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::from(take_u16(at)?);
    let (text, rest) = at.split_at_checked(length)?;
    *at = rest;
    std::str::from_utf8(text).ok()
}

fn take<const N: usize>(at: &mut &[u8]) -> Option<[u8; N]> {
    let (number, rest) = at.split_first_chunk::<N>()?;
    *at = rest;
    Some(*number)
}

fn take_u8(at: &mut &[u8]) -> Option<u8> {
    take::<1>(at).map(|[octet]| octet)
}

fn take_u16(at: &mut &[u8]) -> Option<u16> {
    take(at).map(u16::from_le_bytes)
}

fn take_u32(at: &mut &[u8]) -> Option<u32> {
    take(at).map(u32::from_le_bytes)
}

fn take_handled(at: &mut &[u8]) -> Option<Handled> {
    Some((take_u32(at)?, take_u32(at)?))
}

pub(super) fn take_u64(at: &mut &[u8]) -> Option<u64> {
    take(at).map(u64::from_le_bytes)
}
