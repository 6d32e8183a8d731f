//! What became of each message of a flow: delivered, doubled, out of order, lost.

/// The receiver's view of one flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    next: u32,
    /// Bit i: `next - 1 - i` has been seen.
    seen: u64,
    /// Distinct messages that came.
    pub distinct: u32,
}

/// What one arrival was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The next one, or one after a gap that may yet be filled.
    InOrder,
    /// One that was overtaken by a later one.
    Overtaken,
    /// One that had come before, or is older than the window tells.
    Duplicate,
}

impl Window {
    /// The number that would come next in order.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Takes the arrival of a sequence number.
    pub fn take(&mut self, seq: u32) -> Arrival {
        if seq >= self.next {
            let ahead = seq - self.next + 1;
            self.seen = if ahead >= 64 { 0 } else { self.seen << ahead } | 1;
            self.next = seq + 1;
            self.distinct += 1;
            return Arrival::InOrder;
        }
        let behind = self.next - 1 - seq;
        if behind >= 64 || self.seen >> behind & 1 == 1 {
            return Arrival::Duplicate;
        }
        self.seen |= 1 << behind;
        self.distinct += 1;
        Arrival::Overtaken
    }
}

/// The sums over all flows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// Handed to the kernel.
    pub sent: u64,
    /// Distinct arrivals.
    pub delivered: u64,
    /// Arrivals of what had come before.
    pub duplicated: u64,
    /// Arrivals after a later one of the same flow.
    pub reordered: u64,
    /// Messages that came to someone else.
    pub misdelivered: u64,
    /// Messages without a sound mark.
    pub corrupt: u64,
    /// Messages that came back with type error.
    pub bounced: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_doubles_and_late_ones_are_told_apart() {
        let mut window = Window::default();
        assert_eq!(window.take(0), Arrival::InOrder);
        assert_eq!(window.take(2), Arrival::InOrder);
        assert_eq!(window.take(1), Arrival::Overtaken);
        assert_eq!(window.take(1), Arrival::Duplicate);
        assert_eq!(window.take(2), Arrival::Duplicate);
        assert_eq!(window.take(100), Arrival::InOrder);
        assert_eq!(window.take(3), Arrival::Duplicate, "older than the window tells");
        assert_eq!(window.take(99), Arrival::Overtaken);
        assert_eq!(window.distinct, 5);
    }
}
