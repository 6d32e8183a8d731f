//! What the demo's client reads: elements of a stream, one at a time.
//!
//! A client for one conversation, so it trusts the order of prefixes that servers write and looks
//! at names only. The switch itself reads streams by `xmpp`.

use std::collections::BTreeMap;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

/// An element with everything in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// With its prefix, as written.
    pub name: String,
    /// By name, as written.
    pub attributes: BTreeMap<String, String>,
    /// In their order.
    pub children: Vec<Self>,
    /// All of its own.
    pub text: String,
}

impl Element {
    /// An attribute; absent is empty.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// The first child of that name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|it| it.name == name)
    }

    /// The text of the first child of that name; absent is empty.
    pub fn child_text(&self, name: &str) -> &str {
        self.child(name).map_or("", |it| it.text.as_str())
    }

    /// The name of the condition in `<error/>`, as RFC 6120, 8.3.2 puts it first.
    pub fn condition(&self) -> &str {
        self.child("error").and_then(|it| it.children.first()).map_or("", |it| it.name.as_str())
    }

    fn of(start: &BytesStart<'_>) -> Option<Self> {
        let mut element = Self {
            name: String::from_utf8_lossy(start.name().as_ref().as_ref()).into_owned(),
            ..Self::default()
        };
        for attribute in start.attributes() {
            let attribute = attribute.ok()?;
            let name = String::from_utf8_lossy(attribute.key.as_ref().as_ref()).into_owned();
            element.attributes.insert(
                name,
                attribute.normalized_value(XmlVersion::Implicit1_0).ok()?.into_owned(),
            );
        }
        Some(element)
    }
}

/// The next element of `bytes` and how many octets it took; `None` as long as it is not whole.
/// The stream's own start tag counts as an element without children, its end tag as `/stream`.
pub fn next(bytes: &[u8]) -> Option<(Element, usize)> {
    // Only whole characters: the rest of one may come with the next read.
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(fault) => std::str::from_utf8(bytes.get(..fault.valid_up_to())?).ok()?,
    };
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_end_names = false;
    reader.config_mut().allow_unmatched_ends = true;
    let mut open: Vec<Element> = Vec::new();
    loop {
        let event = reader.read_event().ok()?;
        let done = match event {
            Event::Start(start) => {
                let element = Element::of(&start)?;
                if open.is_empty() && element.name == "stream:stream" {
                    Some(element)
                } else {
                    open.push(element);
                    None
                }
            }
            Event::Empty(start) => close(&mut open, Element::of(&start)?),
            Event::End(_) => match open.pop() {
                Some(element) => close(&mut open, element),
                None => Some(Element { name: "/stream".to_owned(), ..Element::default() }),
            },
            Event::Text(text) => {
                if let Some(parent) = open.last_mut() {
                    parent.text.push_str(&text.into_inner());
                }
                None
            }
            Event::GeneralRef(reference) => {
                let text = format!("&{};", reference.into_inner());
                if let Some(parent) = open.last_mut() {
                    parent.text.push_str(&quick_xml::escape::unescape(&text).ok()?);
                }
                None
            }
            Event::Eof => return None,
            _ => None,
        };
        if let Some(element) = done {
            return Some((element, usize::try_from(reader.buffer_position()).ok()?));
        }
    }
}

/// Gives the element to its parent, or out if it has none.
fn close(open: &mut [Element], element: Element) -> Option<Element> {
    match open.last_mut() {
        Some(parent) => {
            parent.children.push(element);
            None
        }
        None => Some(element),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_comes_out_element_by_element_however_it_is_cut() {
        let text = "<?xml version='1.0'?><stream:stream id='1'><message to='a&amp;b'><body>é &lt;3</body></message><r/></stream:stream>";
        let whole = text.as_bytes();
        let (mut seen, mut at) = (Vec::new(), 0);
        for end in 0..=whole.len() {
            while let Some((element, len)) = next(&whole[at..end]) {
                at += len;
                seen.push(element);
            }
        }
        let names: Vec<&str> = seen.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["stream:stream", "message", "r", "/stream"]);
        assert_eq!(seen[1].attribute("to"), "a&b");
        assert_eq!(seen[1].child_text("body"), "é <3");
    }
}
