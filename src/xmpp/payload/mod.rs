//! The payloads of IQs that have content: read strictly, written plainly.
//!
//! Read by quick-xml with namespaces, over the whole stanza, since a payload may use prefixes that
//! the root declares. The stanza was proven by a scan; what is checked here is what it says. What
//! an element means that none of the readers names is **not** asked: it is passed over.
//!
//! Knows no addresses: a `jid` is text here.

pub mod blocking;
pub mod carbons;
pub mod command;
pub mod roster;
pub mod stored;

use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{Namespace, ResolveResult};
use quick_xml::{NsReader, XmlVersion};

use crate::xmpp::fault::StanzaFault;
use crate::xmpp::stanza::{Ns, Stanza};
use crate::xmpp::write;

/// Why a payload is refused; always the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misread {
    /// The element or an attribute that must be there is not.
    Missing,
    /// What may be there once is there twice.
    Doubled,
    /// More of it than we take.
    TooMany,
    /// A text is empty or longer than we take.
    BadLength,
    /// Not what it should be.
    Unreadable,
}

impl From<Misread> for StanzaFault {
    /// RFC 6121, 2.3.3: lengths and numbers are `not-acceptable`, all else is a `bad-request`.
    fn from(misread: Misread) -> Self {
        match misread {
            Misread::Missing | Misread::Doubled | Misread::Unreadable => Self::BadRequest,
            Misread::TooMany | Misread::BadLength => Self::NotAcceptable,
        }
    }
}

/// One thing in a payload; elements of other namespaces than the payload's are left out with all
/// that is in them.
enum Item<'a> {
    /// An element of the payload's namespace, at this depth: 0 is the payload itself.
    Element(usize, BytesStart<'a>),
    /// Text directly in the last element of that depth.
    Text(usize, String),
    /// The element of this depth ends.
    End(usize),
}

/// Reads the first child of a stanza.
struct Payload<'a> {
    reader: NsReader<&'a [u8]>,
    ns: &'static str,
    /// Elements open below the root of the stanza.
    depth: usize,
    /// An empty element whose end is still to be told.
    ends: bool,
}

impl<'a> Payload<'a> {
    /// Of this namespace; anything else is left out.
    fn new(frame: &'a [u8], stanza: &Stanza, ns: Ns) -> Result<Self, Misread> {
        let octets = frame.get(..stanza.len as usize).ok_or(Misread::Unreadable)?;
        let text = std::str::from_utf8(octets).map_err(|_| Misread::Unreadable)?;
        let mut reader = NsReader::from_str(text);
        // The root of the stanza, which declares what it declares.
        match reader.read_event() {
            Ok(Event::Start(_)) => Ok(Self { reader, ns: ns.name(), depth: 0, ends: false }),
            Ok(Event::Empty(_)) => Err(Misread::Missing),
            _ => Err(Misread::Unreadable),
        }
    }

    /// The next thing; `None` at the end of the stanza.
    fn next(&mut self) -> Result<Option<Item<'a>>, Misread> {
        if std::mem::take(&mut self.ends) {
            return Ok(Some(Item::End(self.depth)));
        }
        loop {
            let (ns, event) = self.reader.read_resolved_event().map_err(|_| Misread::Unreadable)?;
            let ours = matches!(ns, ResolveResult::Bound(Namespace(it)) if it == self.ns);
            match event {
                Event::Start(start) if ours => {
                    self.depth += 1;
                    return Ok(Some(Item::Element(self.depth - 1, start)));
                }
                Event::Start(start) => {
                    let end = start.to_end();
                    self.reader.read_to_end(end.name()).map_err(|_| Misread::Unreadable)?;
                }
                Event::Empty(start) if ours => {
                    self.ends = true;
                    return Ok(Some(Item::Element(self.depth, start)));
                }
                Event::End(_) => {
                    let Some(depth) = self.depth.checked_sub(1) else { return Ok(None) };
                    self.depth = depth;
                    return Ok(Some(Item::End(depth)));
                }
                // Text between elements is of no payload that we read.
                Event::Text(text) if self.depth > 0 => {
                    return Ok(Some(Item::Text(self.depth - 1, text.xml10_content().into_owned())));
                }
                Event::CData(text) if self.depth > 0 => {
                    return Ok(Some(Item::Text(self.depth - 1, text.xml10_content().into_owned())));
                }
                Event::GeneralRef(reference) if self.depth > 0 => {
                    let text = format!("&{};", &*reference);
                    let text =
                        quick_xml::escape::unescape(&text).map_err(|_| Misread::Unreadable)?;
                    return Ok(Some(Item::Text(self.depth - 1, text.into_owned())));
                }
                Event::Eof => return Ok(None),
                _ => {}
            }
        }
    }

    /// The payload's own element, which bears one of `names`.
    fn open(&mut self, names: &[&str]) -> Result<BytesStart<'a>, Misread> {
        loop {
            match self.next()? {
                Some(Item::Element(0, start)) => {
                    let known = names.contains(&start.local_name().into_inner());
                    return if known { Ok(start) } else { Err(Misread::Missing) };
                }
                Some(_) => {}
                None => return Err(Misread::Missing),
            }
        }
    }
}

/// An attribute without a prefix, as meant.
fn attribute(start: &BytesStart<'_>, name: &str) -> Result<Option<String>, Misread> {
    match start.try_get_attribute(name) {
        Ok(None) => Ok(None),
        Ok(Some(it)) => match it.normalized_value(XmlVersion::Implicit1_0) {
            Ok(value) => Ok(Some(value.into_owned())),
            Err(_) => Err(Misread::Unreadable),
        },
        Err(_) => Err(Misread::Unreadable),
    }
}

/// Appends `<name xmlns='...'` with the tag still open.
fn open_tag(name: &str, ns: Ns, out: &mut Vec<u8>) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    write::attr("xmlns", ns.name(), out);
}

/// Appends the root of an IQ set of ours for a client (RFC 6121, 2.1.6; XEP-0191, 3.3).
///
/// Without `from`: it comes from the client's own account (RFC 6120, 8.1.2.1).
fn open_set(to: &str, id: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<iq type='set'");
    write::attr("id", id, out);
    write::attr("to", to, out);
    out.push(b'>');
}
