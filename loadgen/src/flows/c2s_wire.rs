//! Stanzas in what a server sends to a client, by byte search: cheaper than any server's reader.
//!
//! Trusts that tags hold no `>` in an attribute and that stanzas of one name are not nested, as
//! all known servers write. Does **not** judge XML.

use memchr::memmem::{Finder, find};
use memchr::{memchr, memrchr};

/// The prepared searches, shared by all clients.
pub(super) struct Wire {
    message: Finder<'static>,
    presence: Finder<'static>,
    iq: Finder<'static>,
    body: Finder<'static>,
    status: Finder<'static>,
}

/// One element of a stream; the text is the whole of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// `<message/>`, with the octets of its opening tag.
    Message(&'a [u8], usize),
    /// `<presence/>`, the same.
    Presence(&'a [u8], usize),
    /// `<iq/>`, the same.
    Iq(&'a [u8], usize),
    /// `<r/>`.
    Request,
    /// `<a/>` with its count, if it has one.
    Acknowledged(Option<u32>),
    /// `<stream:error>`, as far as it came.
    StreamError(&'a [u8]),
    /// `</stream:stream>`.
    StreamEnd,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            message: Finder::new(b"</message>"),
            presence: Finder::new(b"</presence>"),
            iq: Finder::new(b"</iq>"),
            body: Finder::new(b"<body>tl1 "),
            status: Finder::new(b"<status>tl1 "),
        }
    }
}

impl Wire {
    /// Calls `each` for every whole element and says how many octets are done with.
    pub(super) fn read<'a>(&self, bytes: &'a [u8], mut each: impl FnMut(Item<'a>)) -> usize {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            if rest[0] != b'<' {
                // White space keeps a connection alive.
                done += memchr(b'<', rest).unwrap_or(rest.len());
                continue;
            }
            let Some(tag) = memchr(b'>', rest) else { break };
            let head = tag + 1;
            let alone = rest[tag - 1] == b'/';
            let whole = |close: &Finder<'_>| {
                if alone {
                    return Some(head);
                }
                Some(head + close.find(&rest[head..])? + close.needle().len())
            };
            let end = if rest.starts_with(b"<message") {
                let Some(end) = whole(&self.message) else { break };
                each(Item::Message(&rest[..end], head));
                end
            } else if rest.starts_with(b"<presence") {
                let Some(end) = whole(&self.presence) else { break };
                each(Item::Presence(&rest[..end], head));
                end
            } else if rest.starts_with(b"<iq") {
                let Some(end) = whole(&self.iq) else { break };
                each(Item::Iq(&rest[..end], head));
                end
            } else if rest.starts_with(b"<r ") || rest.starts_with(b"<r/") {
                each(Item::Request);
                head
            } else if rest.starts_with(b"<a ") {
                each(Item::Acknowledged(count(&rest[..head])));
                head
            } else if rest.starts_with(b"<stream:error") {
                let close = b"</stream:error>";
                let Some(end) = find(rest, close) else { break };
                each(Item::StreamError(&rest[..end]));
                end + close.len()
            } else {
                if rest.starts_with(b"</stream:stream") {
                    each(Item::StreamEnd);
                }
                head
            };
            done += end;
        }
        done
    }

    /// What begins with a mark in the body of a message.
    pub(super) fn body<'a>(&self, whole: &'a [u8], head: usize) -> Option<&'a [u8]> {
        let inner = whole.get(head..)?;
        if inner.starts_with(b"<body>tl1 ") {
            return inner.get(b"<body>".len()..);
        }
        inner.get(self.body.find(inner)? + b"<body>".len()..)
    }

    /// What begins with a mark in the status of a presence.
    pub(super) fn status<'a>(&self, whole: &'a [u8], head: usize) -> Option<&'a [u8]> {
        let inner = whole.get(head..)?;
        if inner.starts_with(b"<status>tl1 ") {
            return inner.get(b"<status>".len()..);
        }
        inner.get(self.status.find(inner)? + b"<status>".len()..)
    }
}

/// The `h` of an `<a/>`.
fn count(head: &[u8]) -> Option<u32> {
    std::str::from_utf8(attribute(head, b" h=")?).ok()?.parse().ok()
}

/// The value behind ` name=`, in either kind of quotes.
pub(super) fn attribute<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (quote, value) = head.get(find(head, name)? + name.len()..)?.split_first()?;
    value.get(..memchr(*quote, value)?)
}

/// The name of the condition in an `<error/>`, a `<failure/>` or a stream's error: that of its
/// first child that is not a text.
pub(super) fn condition(whole: &[u8]) -> &str {
    let starts = [&b"<error"[..], b"<failure", b"<stream:error", b"<failed"];
    let Some(at) = starts.iter().find_map(|start| find(whole, start)) else { return "unknown" };
    let mut rest = whole.get(at + 1..).unwrap_or_default();
    while let Some(open) = memchr(b'<', rest) {
        rest = rest.get(open + 1..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|b| !b.is_ascii_alphanumeric() && *b != b'-')
            .unwrap_or(rest.len());
        let name = rest.get(..length).unwrap_or_default();
        if !name.is_empty() && name != b"text" {
            return std::str::from_utf8(name).unwrap_or("unknown");
        }
    }
    "unknown"
}

/// Calls `each` with every whole tag of a piece of XML.
pub(super) fn tags(bytes: &[u8], mut each: impl FnMut(&[u8])) {
    let Some(last) = memrchr(b'>', bytes) else { return };
    let mut rest = bytes.get(..=last).unwrap_or_default();
    while let Some(open) = memchr(b'<', rest) {
        let Some(length) = memchr(b'>', &rest[open..]) else { return };
        each(&rest[open..=open + length]);
        rest = &rest[open + length + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_found_whole_in_any_pieces() {
        let text = b" <message from='a'><body>tl1 x</body></message>\n<r xmlns='s'/><presence/>\
            <presence from='b'><x/><status>tl1 y</status></presence><iq id='1'/><iq><q/></iq>\
            <a h='7' xmlns='s'/><message/><stream:error><conflict xmlns='c'/></stream:error>\
            </stream:stream><mess";
        let wire = Wire::default();
        for piece in 1..text.len() {
            let (mut held, mut found) = (Vec::new(), String::new());
            for part in text.chunks(piece) {
                held.extend_from_slice(part);
                let done = wire.read(&held, |item| {
                    found += &match item {
                        Item::Message(w, h) => format!("m{} ", wire.body(w, h).is_some()),
                        Item::Presence(w, h) => format!("p{} ", wire.status(w, h).is_some()),
                        Item::Iq(..) => "i ".to_owned(),
                        Item::Request => "r ".to_owned(),
                        Item::Acknowledged(h) => format!("a{} ", h.unwrap_or(0)),
                        Item::StreamError(w) => format!("{} ", condition(w)),
                        Item::StreamEnd => "end".to_owned(),
                    }
                });
                held.drain(..done);
            }
            assert_eq!(found, "mtrue r pfalse ptrue i i a7 mfalse conflict end", "by {piece}");
            assert_eq!(held, b"<mess");
        }
    }

    #[test]
    fn conditions_are_named() {
        let rows: [(&[u8], &str); 4] = [
            (
                b"<m type='error'><body>x</body><error type='cancel'><text>y</text><gone/></error>",
                "gone",
            ),
            (b"<failure xmlns='s'><not-authorized/></failure>", "not-authorized"),
            (b"<stream:error><host-unknown xmlns='x'/>", "host-unknown"),
            (b"<m/>", "unknown"),
        ];
        for (text, name) in rows {
            assert_eq!(condition(text), name);
        }
    }
}
