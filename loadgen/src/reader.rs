//! Finds `<message` … `</message>` in what a server sends, by byte search alone.
//!
//! Everything between messages (presence, IQs, acknowledgements) is passed over. Does **not**
//! judge XML: a generator must be cheaper than any server.

use memchr::memmem::Finder;

/// The prepared searches.
pub struct Reader {
    open: Finder<'static>,
    close: Finder<'static>,
    mark: Finder<'static>,
    error: Finder<'static>,
}

/// One message as found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// From the mark on, if there is one.
    pub mark: Option<&'a [u8]>,
    /// Whether it came with type error.
    pub bounced: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            open: Finder::new(b"<message"),
            close: Finder::new(b"</message>"),
            mark: Finder::new(b"<body>tl1 "),
            error: Finder::new(b"<error"),
        }
    }
}

impl Reader {
    /// Calls `each` for every whole message and says how many bytes are done with.
    pub fn read(&self, bytes: &[u8], mut each: impl FnMut(Found<'_>)) -> usize {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|r| !r.is_empty()) {
            let Some(end) = self.close.find(rest) else { break };
            let end = end + b"</message>".len();
            // Most often the message begins at the first byte.
            let start = if rest.starts_with(b"<message") {
                0
            } else {
                self.open.find(&rest[..end]).unwrap_or(0)
            };
            let message = &rest[start..end];
            let mark = self.mark.find(message).map(|at| &message[at + 6..]);
            let bounced = mark.is_none_or(|m| m.len() + 200 < message.len())
                && self.error.find(message).is_some();
            each(Found { mark, bounced });
            done += end;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_between_other_things_and_in_any_pieces() {
        let text = b"<presence/><message from='a'><body>tl1 x</body></message>\n<r xmlns='s'/>\
            <message type='error'><error type='cancel'/></message><mess";
        let reader = Reader::default();
        for piece in 1..text.len() {
            let (mut held, mut found) = (Vec::new(), Vec::new());
            for part in text.chunks(piece) {
                held.extend_from_slice(part);
                let done = reader.read(&held, |f| found.push((f.mark.is_some(), f.bounced)));
                held.drain(..done);
            }
            assert_eq!(found, [(true, false), (false, true)], "pieces of {piece}");
            assert_eq!(held, b"<mess");
        }
    }
}
