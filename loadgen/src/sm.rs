//! The client's end of stream management (XEP-0198, 4): counts, answers and requests.
//!
//! Does **not** resume, and keeps no stanzas: what the server has not acknowledged at the end of a
//! run is told by the account of messages.

/// Stanzas between two requests of a client.
const REQUEST_EVERY: u32 = 16;

/// A request for an acknowledgement.
pub const REQUEST: &[u8] = b"<r xmlns='urn:xmpp:sm:3'/>";

/// The counts of one stream since `<enabled/>`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Managed {
    sent: u32,
    received: u32,
    acknowledged: u32,
}

impl Managed {
    /// A stanza is sent; true if a request goes behind it.
    pub fn sends(&mut self) -> bool {
        self.sent = self.sent.wrapping_add(1);
        self.sent.is_multiple_of(REQUEST_EVERY)
    }

    /// A stanza came.
    pub fn receives(&mut self) {
        self.received = self.received.wrapping_add(1);
    }

    /// The server said how many it has handled; false if it cannot have.
    pub fn acknowledged(&mut self, h: u32) -> bool {
        // XEP-0198, 4: the count wraps at 2^32, so distances are compared.
        let sound = h.wrapping_sub(self.acknowledged) <= self.sent.wrapping_sub(self.acknowledged);
        self.acknowledged = h;
        sound
    }

    /// Sent and not acknowledged yet.
    pub fn open(&self) -> u32 {
        self.sent.wrapping_sub(self.acknowledged)
    }

    /// The answer to a request.
    pub fn answer(&self) -> String {
        format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sixteenth_asks_and_an_impossible_count_is_found() {
        let mut end = Managed::default();
        let asks: Vec<u32> = (1..=40).filter(|_| end.sends()).collect();
        assert_eq!(asks, [16, 32]);
        assert!(end.acknowledged(16) && end.acknowledged(16) && end.acknowledged(40));
        assert!(!end.acknowledged(41));
        let mut end = Managed { sent: 3, acknowledged: u32::MAX - 1, ..Managed::default() };
        assert_eq!(end.open(), 5);
        assert!(end.acknowledged(2) && !end.acknowledged(1));
        end.receives();
        assert_eq!(end.answer(), "<a xmlns='urn:xmpp:sm:3' h='1'/>");
    }
}
