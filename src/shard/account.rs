//! The account: nothing is lost, and it can be checked by adding up.
//!
//! `offered = pending + refused + taken` and `taken = delivered + stored + bounced + in flight`
//! hold at the shard that took the stanza, per kind. The edge opens an account when its framer has
//! the stanza and closes it when an outcome is reported; homes and ways report, they do not count.

use crate::envelope::Kind;
pub(crate) use crate::envelope::Origin;

/// How a taken stanza ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The receiver has it: its kernel acknowledged the octets, or we answered ourselves.
    Delivered,
    /// A part of delivered: written to a remote stream that acknowledges nothing but TCP.
    Unconfirmed,
    /// Committed to a store.
    Stored,
    /// Presence, or the answer to an IQ, kept in memory for a session whose connection is lost
    /// (XEP-0198, 5). If the session is not resumed nobody wants it any more.
    Held,
    /// The sender got an error.
    Bounced,
    /// The standard orders the discard (RFC 6121, 8.5), or forbids an answer (RFC 6120, 8.3.1).
    ByRule,
    /// A bound of ours left no room, and nobody may be told (RFC 6120, 8.3.1).
    Dropped,
}

impl Outcome {
    pub(crate) const COUNT: usize = 7;

    pub(crate) const ALL: [Self; Self::COUNT] = [
        Self::Delivered,
        Self::Unconfirmed,
        Self::Stored,
        Self::Held,
        Self::Bounced,
        Self::ByRule,
        Self::Dropped,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Unconfirmed => "unconfirmed",
            Self::Stored => "stored",
            Self::Held => "held",
            Self::Bounced => "bounced",
            Self::ByRule => "by_rule",
            Self::Dropped => "dropped",
        }
    }
}

/// The books of one shard, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    offered: [u64; 3],
    refused: [u64; 3],
    taken: [u64; 3],
    outcomes: [[u64; Outcome::COUNT]; 3],
}

impl Account {
    /// A whole stanza left the framer and is decided on at once, so pending is always zero here.
    pub(crate) fn offer(&mut self, kind: Kind) {
        self.offered[kind.index()] += 1;
    }

    /// A protocol error was returned before acceptance, or its stream ended for it.
    pub(crate) fn refuse(&mut self, kind: Kind) {
        self.refused[kind.index()] += 1;
    }

    /// It passed policy: from here on it must have an outcome.
    pub(crate) fn take(&mut self, kind: Kind) {
        self.taken[kind.index()] += 1;
    }

    /// Closes `count` accounts.
    pub(crate) fn close(&mut self, kind: Kind, outcome: Outcome, count: u64) {
        self.outcomes[kind.index()][outcome as usize] += count;
        // More outcomes than stanzas: somebody counted twice, and every figure after is a lie.
        debug_assert!(self.closed(kind) <= self.taken[kind.index()]);
    }

    /// Taken and without an outcome yet.
    pub(crate) fn in_flight(&self, kind: Kind) -> u64 {
        self.taken[kind.index()].saturating_sub(self.closed(kind))
    }

    /// `(label, value)` of every figure of a kind.
    pub(crate) fn figures(&self, kind: Kind) -> impl Iterator<Item = (&'static str, u64)> {
        let k = kind.index();
        let outcomes = self.outcomes[k];
        [("offered", self.offered[k]), ("refused", self.refused[k]), ("taken", self.taken[k])]
            .into_iter()
            .chain(Outcome::ALL.map(|o| (o.name(), outcomes[o as usize])))
            .chain([("in_flight", self.in_flight(kind))])
    }

    fn closed(&self, kind: Kind) -> u64 {
        self.outcomes[kind.index()].iter().sum()
    }
}

/// A stanza of a managed stream whose account is closed: its stream and its number there.
pub(crate) type Handled = (u32, u32);

/// Outcomes of stanzas that other shards took, gathered over a turn and told once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcomes {
    pub(crate) counts: [[u32; Outcome::COUNT]; 3],
    pub(crate) any: bool,
    /// Which they were, where the sender counts (XEP-0198).
    pub(crate) handled: Vec<Handled>,
}

impl Outcomes {
    pub(crate) fn add(&mut self, origin: Origin, outcome: Outcome) {
        self.count(origin.kind, outcome, 1);
        if origin.stream != 0 {
            self.handled.push((origin.stream, origin.number));
        }
    }

    /// They are told: the room for the next stays.
    pub(crate) fn clear(&mut self) {
        self.counts = Default::default();
        self.any = false;
        self.handled.clear();
    }

    pub(crate) fn count(&mut self, kind: Kind, outcome: Outcome, count: u32) {
        self.counts[kind.index()][outcome as usize] += count;
        self.any = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_balance() {
        let mut account = Account::default();
        for _ in 0..3 {
            account.offer(Kind::Message);
        }
        account.refuse(Kind::Message);
        account.take(Kind::Message);
        account.take(Kind::Message);
        assert_eq!(account.in_flight(Kind::Message), 2);
        account.close(Kind::Message, Outcome::Delivered, 1);
        account.close(Kind::Message, Outcome::Bounced, 1);
        assert_eq!(account.in_flight(Kind::Message), 0);
        let figures: Vec<_> = account.figures(Kind::Message).collect();
        assert_eq!(figures[0], ("offered", 3));
        assert_eq!(figures.last(), Some(&("in_flight", 0)));
    }

    #[test]
    fn only_who_counts_hears_which_it_was() {
        let mut outcomes = Outcomes::default();
        outcomes.add(Origin::plain(1, Kind::Iq), Outcome::Delivered);
        let counted = Origin { stream: 7, number: 3, ..Origin::plain(1, Kind::Iq) };
        outcomes.add(counted, Outcome::Delivered);
        assert_eq!(outcomes.counts[Kind::Iq.index()][Outcome::Delivered as usize], 2);
        assert_eq!(outcomes.handled, [(7, 3)]);
    }
}
