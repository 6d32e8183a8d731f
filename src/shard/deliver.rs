//! The way of a stanza once its sender is known: to a local user's resources, to another shard,
//! to a peer's way, or back as an error.

use crate::address::AddressRef;
use crate::envelope::{Kind, Purpose};
use crate::home::{Delivery, Habits, Receivers};
use crate::limits::{IN_FLIGHT_TIME_MAX, OUTBOX_BYTES_MAX, SPILL_AFTER, SWEEP_EVERY, TRY_TIME_MAX};
use crate::route::{shard_of, shard_of_domain};
use crate::shard::account::{Account, Handled, Origin, Outcome, Outcomes};
use crate::shard::buffers::Buffers;
use crate::shard::conn::Role;
use crate::shard::kernel::{ConnId, Ending, Kernel, ShardId};
use crate::shard::outbox::Outbox;
use crate::shard::post::Record;
use crate::shard::session::stream_of;
use crate::shard::{Shard, Timer};
use crate::stdx::Key;
use crate::time::Moment;
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::frame::Content;
use crate::xmpp::splice::{self, Edits, Unforwardable};
use crate::xmpp::stanza::Stanza;

/// A stanza on its way, with all that routing asks of it.
#[derive(Clone, Debug)]
pub(super) struct Carry<'a> {
    /// On whose account; `None`: an answer of ours, or a copy beside the one that counts.
    pub(super) origin: Option<Origin>,
    pub(super) since: Moment,
    pub(super) kind: Kind,
    pub(super) purpose: Purpose,
    pub(super) from: AddressRef<'a>,
    pub(super) to: AddressRef<'a>,
    pub(super) text: Text<'a>,
}

/// The octets of a stanza: as they came, with the edits that make them another's; or as written.
#[derive(Clone, Debug)]
pub(super) enum Text<'a> {
    Original {
        frame: &'a [u8],
        stanza: &'a Stanza,
        edits: Edits<'a>,
    },
    /// Complete, in the namespace of the receiver's stream.
    Written(&'a [u8]),
}

impl Text<'_> {
    /// Appends the stanza for a receiver whose stream has the same content namespace.
    #[inline]
    pub(super) fn append(&self, out: &mut Vec<u8>) -> Result<usize, Unforwardable> {
        let start = out.len();
        match self {
            Self::Original { frame, stanza, edits } => splice::forward(frame, stanza, edits, out)?,
            Self::Written(text) => out.extend_from_slice(text),
        }
        Ok(out.len() - start)
    }

    /// The same for a receiver whose stream has the other content namespace.
    pub(super) fn append_exchanged(&self, out: &mut Vec<u8>) -> Result<usize, Unforwardable> {
        match self {
            Self::Original { frame, stanza, edits } => {
                let edits = Edits { exchange: true, ..*edits };
                Text::Original { frame, stanza, edits }.append(out)
            }
            Self::Written(_) => self.append(out),
        }
    }
}

impl Shard {
    /// Where a stanza goes: to us, to a local user, to another domain.
    pub(super) fn route(&mut self, carry: &Carry<'_>) {
        if self.settings.domain(carry.to.domain()).is_none() {
            return self.route_out(carry);
        }
        if carry.to.local().is_none() {
            return self.serve(carry);
        }
        let home = match self.settings.shards {
            1 => self.id,
            shards => ShardId(shard_of(carry.to.slot(), shards)),
        };
        if home == self.id {
            self.deliver(carry);
        } else if self.posts.stanza(home, Record::Stanza, carry, false).is_err() {
            self.bounce(carry, StanzaFault::NotAcceptable);
        }
    }

    /// On the home shard of `to`, whose record is there.
    pub(super) fn deliver_now(&mut self, carry: &Carry<'_>) {
        let habits = self.home.glance(carry.to.bare()).1;
        self.deliver_by(habits, carry);
    }

    /// The same, of a user who was looked at already.
    pub(super) fn deliver_by(&mut self, habits: Habits, carry: &Carry<'_>) {
        let Habits { special, ruled } = habits;
        if ruled && self.blocked_inbound(carry) {
            return;
        }
        let shares = || self.shares_presence(carry.to, carry.from);
        match self.home.deliver(carry.to, carry.kind, carry.purpose, true, shares) {
            Delivery::To(receivers) if self.hand_by_kind(&receivers, carry) => {}
            Delivery::To(receivers) if special && carry.kind == Kind::Message => {
                self.message_for(receivers, carry);
            }
            Delivery::To(Receivers::One(id)) => self.hand_to(id, carry),
            Delivery::To(Receivers::Several(ids)) => self.hand_to_all(&ids, carry),
            Delivery::Refused(fault) => self.bounce(carry, fault),
            Delivery::Discarded => self.outcome(carry.origin, Outcome::ByRule),
            Delivery::Server => self.serve(carry),
            Delivery::Probe => self.probed(carry),
            Delivery::Store => self.message_for_later(carry),
            Delivery::Subscription => self.contact_subscribes(carry),
        }
    }

    /// There is no such account (RFC 6121, 8.5.1).
    pub(super) fn deliver_to_nobody(&mut self, carry: &Carry<'_>) {
        match self.home.deliver(carry.to, carry.kind, carry.purpose, false, || false) {
            Delivery::Refused(fault) => self.bounce(carry, fault),
            Delivery::Probe => {
                // As of one who has not been allowed to ask (RFC 6121, 4.3.2, rule 1).
                self.outcome(carry.origin, Outcome::ByRule);
                let (user, asker) = (carry.to.without_resource(), carry.from.without_resource());
                self.say("unsubscribed", user, asker);
            }
            _ => self.outcome(carry.origin, Outcome::ByRule),
        }
    }

    /// Into the outbox of a receiver, or back.
    pub(super) fn hand_to(&mut self, id: ConnId, carry: &Carry<'_>) {
        if let Err(fault) = self.put_into(id, carry) {
            self.bounce(carry, fault);
        }
    }

    /// Into the outboxes of several: the first that takes it counts, the others get a copy. The
    /// sender hears of it only if none took it.
    pub(super) fn hand_to_all(&mut self, ids: &[ConnId], carry: &Carry<'_>) {
        // Who is connected first: what is kept for a session may come to its user once more.
        let mut ids = ids.to_vec();
        ids.sort_by_key(|id| stream_of(*id).is_some());
        let mut copy = carry.clone();
        let mut taken = false;
        let mut fault = StanzaFault::RecipientUnavailable;
        for id in &ids {
            match self.put_into(*id, &copy) {
                Ok(()) => {
                    taken = true;
                    copy.origin = None;
                }
                Err(why) => fault = why,
            }
        }
        if !taken {
            self.bounce(carry, fault);
        }
    }

    /// Into the outbox of a client, unless nobody looks at it and the stanza can wait.
    pub(super) fn put_into(&mut self, id: ConnId, carry: &Carry<'_>) -> Result<(), StanzaFault> {
        let Some((outbox, first)) = self.conns.outbox_for_writing(id, &mut self.buffers) else {
            return self.hold(id, carry);
        };
        if first {
            self.dirty.push(id);
        }
        if outbox.is_idle() || (carry.kind == Kind::Presence && outbox.grows_slow()) {
            return self.put_into_idle(id, carry);
        }
        if !outbox.has_room() {
            self.counters.outbox_full += 1;
            return Err(StanzaFault::ResourceConstraint);
        }
        let before = outbox.buffer().len();
        let Ok(length) = carry.text.append(outbox.buffer()) else {
            return Err(StanzaFault::NotAcceptable);
        };
        if outbox.buffer().len() > OUTBOX_BYTES_MAX {
            outbox.buffer().truncate(before);
            return Err(StanzaFault::NotAcceptable);
        }
        if outbox.stanza(length, carry.origin, carry.since)
            && !std::mem::replace(&mut outbox.listed, true)
        {
            self.owe(id);
        }
        Ok(())
    }

    /// This connection owes an acknowledgement.
    pub(super) fn owe(&mut self, id: ConnId) {
        if self.owing.is_empty() {
            self.settle_at = self.now.moment + SWEEP_EVERY;
            self.timers.set(self.settle_at, Timer::Sweep);
        }
        self.owing.push(id);
    }

    /// To another domain, through the shard that owns the way there.
    fn route_out(&mut self, carry: &Carry<'_>) {
        let rule = self.settings.policy.verdict(carry.to.domain()).0;
        if !rule.allow {
            self.counters.policy_denied += 1;
            return self.bounce(carry, StanzaFault::NotAllowed);
        }
        if rule.protocol.sip().is_some() {
            return self.route_to_sip(carry);
        }
        let profile = rule.profile;
        if let Some(text) = self.told_outward(carry, profile) {
            return self.onward(&Carry { text: Text::Written(&text), ..carry.clone() });
        }
        self.onward(carry);
    }

    /// To the shard that owns the way to another domain.
    fn onward(&mut self, carry: &Carry<'_>) {
        let owner = ShardId(shard_of_domain(carry.to.domain(), self.settings.shards));
        if owner == self.id {
            if let Text::Original { frame, stanza, edits } = &carry.text
                && let Some(id) = self.open_way(carry.from.domain(), carry.to.domain())
            {
                // Written once, where it goes out.
                let edits = Edits { exchange: true, ..*edits };
                let text = Text::Original { frame, stanza, edits };
                return self.hand_to(id, &Carry { text, ..carry.clone() });
            }
            let mut text = Vec::new();
            match carry.text.append_exchanged(&mut text) {
                Ok(_) => self.onto_way(&Carry { text: Text::Written(&text), ..carry.clone() }),
                Err(_) => self.bounce(carry, StanzaFault::NotAcceptable),
            }
        } else if self.posts.stanza(owner, Record::Outbound, carry, true).is_err() {
            self.bounce(carry, StanzaFault::NotAcceptable);
        }
    }

    /// To a SIP domain: the dialogs are the sender's, so his home shard speaks.
    fn route_to_sip(&mut self, carry: &Carry<'_>) {
        let home = ShardId(shard_of(carry.from.slot(), self.settings.shards));
        if home == self.id {
            self.sip_stanza(carry);
        } else if self.posts.stanza(home, Record::Gateway, carry, false).is_err() {
            self.bounce(carry, StanzaFault::NotAcceptable);
        }
    }

    /// Sends an answer of ours, which is on nobody's account.
    pub(super) fn answer(
        &mut self,
        from: AddressRef<'_>,
        to: AddressRef<'_>,
        kind: Kind,
        purpose: Purpose,
        text: &[u8],
    ) {
        let text = Text::Written(text);
        self.route(&Carry { origin: None, since: self.now.moment, kind, purpose, from, to, text });
    }

    /// Tells the sender that his stanza went nowhere, if he may be told.
    pub(super) fn bounce(&mut self, carry: &Carry<'_>, fault: StanzaFault) {
        if let Some(row) = carry.origin.and_then(Origin::row) {
            return match self.take_account(row) {
                // It is in the store and stays there.
                None => self.row_returned(row),
                origin => self.bounce(&Carry { origin, ..carry.clone() }, fault),
            };
        }
        if !carry.purpose.answerable() {
            // RFC 6120, 8.3.1: no error may be sent about it. That it was our own bound is counted.
            let ours = fault == StanzaFault::ResourceConstraint;
            let outcome = if ours { Outcome::Dropped } else { Outcome::ByRule };
            return self.outcome(carry.origin, outcome);
        }
        self.outcome(carry.origin, Outcome::Bounced);
        self.counters.stanza_faults[fault.index()] += 1;
        let mut text = Vec::new();
        let (from, to) = (Some(carry.to.full()), Some(carry.from.full()));
        match &carry.text {
            Text::Original { frame, stanza, .. } => {
                splice::error_reply(frame, stanza, fault, from, to, None, &mut text);
            }
            Text::Written(written) => {
                let Some(stanza) = reread(written) else { return };
                splice::error_reply(written, &stanza, fault, from, to, None, &mut text);
            }
        }
        self.answer(carry.to, carry.from, carry.kind, Purpose::Error, &text);
    }

    /// A stanza whose connection broke before it arrived: another resource, or back.
    pub(super) fn another_way(&mut self, origin: Option<Origin>, since: Moment, written: &[u8]) {
        if let Some(row) = origin.and_then(Origin::row) {
            return match self.take_account(row) {
                None => self.row_returned(row),
                origin => self.another_way(origin, since, written),
            };
        }
        self.with_written(origin, since, written, |shard, carry| {
            // One budget for all tries: another one starts only if the whole of it still fits.
            let late = shard.now.moment.since(since) + TRY_TIME_MAX > IN_FLIGHT_TIME_MAX;
            if shard.settings.domain(carry.to.domain()).is_none() {
                shard.bounce(carry, StanzaFault::RemoteServerTimeout);
            } else if late {
                shard.bounce(carry, StanzaFault::RecipientUnavailable);
            } else {
                shard.deliver(carry);
            }
        });
    }

    /// Reads a stanza on an account that was written before, for whoever must send it elsewhere.
    pub(super) fn with_written(
        &mut self,
        origin: Option<Origin>,
        since: Moment,
        written: &[u8],
        work: impl FnOnce(&mut Self, &Carry<'_>),
    ) {
        let Some(kind) = origin.map(|it| it.kind) else { return };
        let (mut a, mut b) = (String::new(), String::new());
        let Some(stanza) = reread(written) else {
            return self.outcome(origin, Outcome::ByRule);
        };
        let (Some(from), Some(to)) = (stanza.from, stanza.to) else {
            return self.outcome(origin, Outcome::ByRule);
        };
        let (from, to) = (from.value(written), to.value(written));
        let (Ok(from), Ok(to)) = (AddressRef::parse(&from, &mut a), AddressRef::parse(&to, &mut b))
        else {
            return self.outcome(origin, Outcome::ByRule);
        };
        let purpose = Purpose::read(kind, stanza.type_.map(|t| t.raw(written)));
        let carry = Carry {
            origin,
            since,
            kind,
            purpose: purpose.unwrap_or(Purpose::Normal),
            from,
            to,
            text: Text::Written(written),
        };
        work(self, &carry);
    }

    /// An account is closed: here, or at the end of the turn on the shard that opened it.
    pub(super) fn outcome(&mut self, origin: Option<Origin>, outcome: Outcome) {
        let unconfirmed = false;
        self.books(unconfirmed).report(origin, outcome);
    }

    /// Where outcomes are written.
    pub(super) fn books(&mut self, unconfirmed: bool) -> Books<'_> {
        Books {
            account: &mut self.account,
            outcomes: &mut self.outcomes,
            handled: &mut self.handled,
            delivered: &mut self.rows.delivered,
            gateway: &mut self.sip.handled,
            shard: self.id,
            unconfirmed,
        }
    }

    /// The far end has taken nothing for as long as a stanza may be in flight.
    fn stalled(&mut self, id: ConnId) {
        let Some(mut conn) = self.conns.take(id) else { return };
        if conn.closing != Some(Ending::Abort) {
            self.counters.stalled += 1;
            self.lose(&mut conn, Ending::Abort);
        }
        self.conns.put_back(conn);
    }

    /// What this connection's far end has acknowledged by now; false: it owes nothing any more.
    pub(super) fn acknowledged<K: Kernel>(&mut self, id: ConnId, kernel: &mut K) -> bool {
        let unconfirmed = match self.conns.get(id) {
            None => return false,
            Some(conn) => matches!(conn.role, Role::PeerIn(_) | Role::PeerOut(_)),
        };
        let Some(outbox) = self.conns.outbox(id) else { return false };
        if outbox.asks_kernel() {
            let books = Books {
                account: &mut self.account,
                outcomes: &mut self.outcomes,
                handled: &mut self.handled,
                delivered: &mut self.rows.delivered,
                gateway: &mut self.sip.handled,
                shard: self.id,
                unconfirmed,
            };
            look(outbox, id, kernel, books, &mut self.buffers);
        }
        outbox.listed = outbox.is_owing() || !outbox.rests();
        let (listed, oldest) = (outbox.listed, outbox.oldest());
        if outbox.asks(self.now.moment) {
            self.mark(id);
        }
        let Some(waited) = oldest.map(|since| self.now.moment.since(since)) else { return listed };
        if waited >= SPILL_AFTER
            && let Some(Role::Bound(bound)) = self.conns.get(id).map(|conn| &conn.role)
        {
            let user = bound.address.clone();
            self.spill_late(id, &user);
        }
        if waited >= IN_FLIGHT_TIME_MAX {
            self.stalled(id);
        }
        listed
    }
}

/// Where a look at an outbox writes what it finds.
pub(super) struct Books<'a> {
    pub(super) account: &'a mut Account,
    pub(super) outcomes: &'a mut [Outcomes],
    pub(super) handled: &'a mut Vec<Handled>,
    /// Stored messages that have arrived.
    pub(super) delivered: &'a mut Vec<Key>,
    /// Messages for whose outcome a SIP partner waits.
    pub(super) gateway: &'a mut Vec<(u32, Outcome)>,
    pub(super) shard: ShardId,
    /// The far end is a peer, which acknowledges nothing but by TCP.
    pub(super) unconfirmed: bool,
}

impl Books<'_> {
    /// The far end has it.
    pub(super) fn close(&mut self, origin: Option<Origin>) {
        let outcome = if self.unconfirmed { Outcome::Unconfirmed } else { Outcome::Delivered };
        self.report(origin, outcome);
    }

    fn report(&mut self, origin: Option<Origin>, outcome: Outcome) {
        let Some(origin) = origin else { return };
        if let Some(row) = origin.row() {
            self.delivered.push(row);
        } else if origin.shard == self.shard.0 {
            self.account.close(origin.kind, outcome, 1);
            if let Some(number) = origin.gateway() {
                self.gateway.push((number, outcome));
            } else if origin.stream != 0 {
                self.handled.push((origin.stream, origin.number));
            }
        } else if let Some(outcomes) = self.outcomes.get_mut(usize::from(origin.shard)) {
            outcomes.add(origin, outcome);
        }
    }
}

/// Closes the accounts of what the far end's kernel has acknowledged.
pub(super) fn look<K: Kernel>(
    outbox: &mut Outbox,
    id: ConnId,
    kernel: &mut K,
    mut books: Books<'_>,
    buffers: &mut Buffers,
) {
    let unacknowledged = kernel.unacknowledged(id);
    outbox.acknowledge(
        unacknowledged,
        |receipt| books.close(receipt.origin),
        |buffer| buffers.give(buffer),
    );
}

/// Reads a stanza that we wrote or proved before; prefixes and namespaces are as in the stream of
/// a client (our own output never depends on the difference).
pub(super) fn reread(written: &[u8]) -> Option<Stanza> {
    crate::xmpp::frame::one(written, Content::Client)
}
