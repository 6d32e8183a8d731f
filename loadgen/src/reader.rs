//! Finds stanzas in what a server sends, by byte search alone: `<message` … `</message>`, and
//! `<presence` … `</presence>` where presence is what is counted.
//!
//! Everything between is passed over, but for the elements of stream management where they are
//! asked for. Does **not** judge XML: a generator must be cheaper than any server.

use memchr::memmem::{Finder, find};
use memchr::{memchr, memrchr};

/// The prepared searches for messages.
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

/// What is found on a stream under stream management.
#[derive(Debug, PartialEq, Eq)]
pub enum Managed<'a> {
    /// A message.
    Message(Found<'a>),
    /// Another stanza, which counts too.
    Other,
    /// `<r/>`.
    Request,
    /// `<a/>` with its count; `None` if it has none.
    Acknowledged(Option<u32>),
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
            each(self.found(&rest[start..end]));
            done += end;
        }
        done
    }

    /// The same, with each element told apart, as XEP-0198 counts them.
    pub fn read_managed(&self, bytes: &[u8], mut each: impl FnMut(Managed<'_>)) -> usize {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|r| !r.is_empty()) {
            if rest.starts_with(b"<message") {
                let Some(end) = self.close.find(rest) else { break };
                let end = end + b"</message>".len();
                each(Managed::Message(self.found(&rest[..end])));
                done += end;
                continue;
            }
            // White space between elements keeps a connection alive.
            let blank = memchr(b'<', rest).unwrap_or(rest.len());
            if blank > 0 {
                done += blank;
                continue;
            }
            let Some(tag) = memchr(b'>', rest) else { break };
            let head = &rest[..=tag];
            let mut end = tag + 1;
            if rest.starts_with(b"<r ") || rest.starts_with(b"<r/") {
                each(Managed::Request);
            } else if rest.starts_with(b"<a ") {
                each(Managed::Acknowledged(count(head)));
            } else if rest.starts_with(b"<presence") || rest.starts_with(b"<iq") {
                if !head.ends_with(b"/>") {
                    let close: &[u8] =
                        if rest.starts_with(b"<iq") { b"</iq>" } else { b"</presence>" };
                    let Some(at) = find(rest, close) else { break };
                    end = at + close.len();
                }
                each(Managed::Other);
            }
            done += end;
        }
        done
    }

    fn found<'a>(&self, message: &'a [u8]) -> Found<'a> {
        let mark = self.mark.find(message).map(|at| &message[at + 6..]);
        let bounced = mark.is_none_or(|m| m.len() + 200 < message.len())
            && self.error.find(message).is_some();
        Found { mark, bounced }
    }
}

/// The `h` of an `<a/>`.
fn count(head: &[u8]) -> Option<u32> {
    let at = find(head, b" h=")? + 4;
    let digits = head.get(at..)?;
    let length = digits.iter().position(|b| !b.is_ascii_digit())?;
    std::str::from_utf8(digits.get(..length)?).ok()?.parse().ok()
}

/// The prepared searches for presences.
pub struct PresenceReader {
    close: Finder<'static>,
    mark: Finder<'static>,
    from: Finder<'static>,
}

/// One presence as found.
#[derive(Debug, PartialEq, Eq)]
pub struct Presence<'a> {
    /// The address in `from`.
    pub from: &'a [u8],
    /// From the mark in `<status/>` on, if there is one.
    pub mark: Option<&'a [u8]>,
}

impl Default for PresenceReader {
    fn default() -> Self {
        Self {
            close: Finder::new(b"</presence>"),
            mark: Finder::new(b"<status>tl1 "),
            from: Finder::new(b" from="),
        }
    }
}

impl PresenceReader {
    /// Calls `each` for every whole presence that has content and says how many bytes are done
    /// with. One without content, and whatever else lies between, is passed over.
    pub fn read(&self, bytes: &[u8], mut each: impl FnMut(Presence<'_>)) -> usize {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|r| !r.is_empty()) {
            let Some(end) = self.close.find(rest) else { break };
            let presence = &rest[..end];
            let mark_at = self.mark.find(presence);
            let head = &presence[..mark_at.unwrap_or(end)];
            // Most often nothing lies before, and no other child before the status.
            let start = match memrchr(b'<', head) {
                Some(0) | None => 0,
                Some(_) => memchr::memmem::rfind(head, b"<presence").unwrap_or(0),
            };
            each(Presence {
                from: self.from(&head[start..]),
                mark: mark_at.map(|at| &presence[at + b"<status>".len()..]),
            });
            done += end + b"</presence>".len();
        }
        done
    }

    fn from<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        let Some(at) = self.from.find(head) else { return &[] };
        let value = &head[at + b" from=".len()..];
        let Some((quote, value)) = value.split_first() else { return &[] };
        &value[..memchr(*quote, value).unwrap_or(0)]
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

    #[test]
    fn a_managed_stream_is_counted_in_any_pieces() {
        let text = b"<r xmlns='urn:xmpp:sm:3'/><message><body>tl1 x</body></message>\
            <presence from='a'/><presence><show>away</show></presence><iq><query/></iq>\
            <a xmlns='urn:xmpp:sm:3' h='4294967295'/>\n<a h=\"17\" xmlns='urn:xmpp:sm:3'/><r xm";
        let reader = Reader::default();
        for piece in 1..text.len() {
            let (mut held, mut found) = (Vec::new(), String::new());
            for part in text.chunks(piece) {
                held.extend_from_slice(part);
                let done = reader.read_managed(&held, |f| {
                    found += &match f {
                        Managed::Message(m) => if m.mark.is_some() { "m " } else { "? " }.into(),
                        Managed::Other => "o ".to_owned(),
                        Managed::Request => "r ".to_owned(),
                        Managed::Acknowledged(h) => format!("{} ", h.unwrap_or(0)),
                    };
                });
                held.drain(..done);
            }
            assert_eq!(found, "r m o o o 4294967295 17 ", "pieces of {piece}");
        }
    }

    #[test]
    fn presences_are_found_with_their_origin_and_in_any_pieces() {
        let text = b"<presence from='x'/><iq from='y'/><presence from='a@d/r' to='b@d'>\
            <status>tl1 1</status></presence><presence to='b' from=\"c@d/r\"><show>away</show>\
            <status>tl1 2</status></presence><presence from='e@d'><show>dnd</show></presence><pre";
        let reader = PresenceReader::default();
        for piece in 1..text.len() {
            let (mut held, mut found) = (Vec::new(), Vec::new());
            for part in text.chunks(piece) {
                held.extend_from_slice(part);
                let done = reader.read(&held, |p| {
                    found.push((p.from.to_vec(), p.mark.and_then(|m| m.get(..5)?.last().copied())));
                });
                held.drain(..done);
            }
            let expected = [
                (b"a@d/r".to_vec(), Some(b'1')),
                (b"c@d/r".to_vec(), Some(b'2')),
                (b"e@d".to_vec(), None),
            ];
            assert_eq!(found, expected, "pieces of {piece}");
            assert_eq!(held, b"<pre");
        }
    }
}
