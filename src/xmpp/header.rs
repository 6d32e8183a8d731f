//! The header of a stream (RFC 6120, 4.2, 4.7, 4.8) and the XML declaration before it.
//!
//! The prefix `stream` is required, as RFC 6120, 4.8.5 allows; so is `jabber:client` or
//! `jabber:server` as the default. Whether the names in it are ours is **not** decided here.

use std::{borrow::Cow, ops::Range};

use crate::xmpp::{
    chars::{self, Stop},
    fault::StreamFault,
    frame::{Content, Limits},
    namespace, read,
    scan::{self, ATTRIBUTES_OPEN},
    stanza::Ns,
};

/// A stream header, as ranges into the octets it was read from; values are still escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The default namespace.
    pub content: Content,
    /// `xmlns:db` is there: the far end speaks dialback.
    pub dialback: bool,
    /// The address it speaks to.
    pub to: Option<Range<u32>>,
    /// The address it speaks for.
    pub from: Option<Range<u32>>,
    /// The stream's id.
    pub id: Option<Range<u32>>,
    /// The version; none: before 1.0.
    pub version: Option<Range<u32>>,
    /// The default language of its stanzas.
    pub lang: Option<Range<u32>>,
}

impl Header {
    /// The value at one of the ranges, as meant.
    pub fn value<'a>(frame: &'a [u8], range: &Option<Range<u32>>) -> Option<Cow<'a, str>> {
        let range = range.as_ref()?;
        let octets = frame.get(range.start as usize..range.end as usize)?;
        std::str::from_utf8(octets).ok().map(read::unescape)
    }

    /// The version as numbers; none if there is none or it is no version (RFC 6120, 4.7.5).
    pub fn version(&self, frame: &[u8]) -> Option<(u32, u32)> {
        let text = Self::value(frame, &self.version)?;
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }
}

/// Reads the declaration, if there is one, and the header; returns how many octets they take.
pub(crate) fn read(buf: &[u8], limits: &Limits) -> Result<(Header, usize), Stop> {
    let start = declaration(buf)?;
    match buf.get(start..start + 2) {
        None => return Err(Stop::Incomplete),
        // RFC 6120, 11.1: neither DTD nor comment; a second declaration is an instruction.
        Some(b"<!" | b"<?") => return Err(StreamFault::RestrictedXml.into()),
        Some([b'<', _]) => {}
        Some(_) => return Err(StreamFault::NotWellFormed.into()),
    }
    let name = chars::name(buf, start + 1)?;
    let mut tag =
        Tag { header: Header::default(), attrs: [const { 0..0 }; ATTRIBUTES_OPEN], count: 0 };
    let mut at = name.end;
    loop {
        let blanks = chars::blanks(buf, at);
        match buf.get(blanks) {
            None => return Err(Stop::Incomplete),
            Some(b'>') => {
                at = blanks + 1;
                break;
            }
            // An empty root has no stream in it.
            Some(b'/') => return Err(StreamFault::NotWellFormed.into()),
            Some(_) if blanks == at => return Err(StreamFault::NotWellFormed.into()),
            Some(_) => at = tag.attribute(buf, blanks, limits)?,
        }
    }
    tag.judge(buf, buf.get(start + 1..name.end).unwrap_or_default())?;
    Ok((tag.header, at))
}

struct Tag {
    header: Header,
    attrs: [Range<usize>; ATTRIBUTES_OPEN],
    count: usize,
}

impl Tag {
    /// One attribute; returns where it ends. `attrs` has the name and, in `header`, the known values.
    fn attribute(&mut self, buf: &[u8], at: usize, limits: &Limits) -> Result<usize, Stop> {
        let name = chars::name(buf, at)?;
        let (quote, start) = scan::equals(buf, name.end)?;
        let end = chars::value(buf, start, quote)?;
        let octets = buf.get(at..name.end).unwrap_or_default();
        let before = self.attrs.get(..self.count).unwrap_or_default();
        if before.iter().any(|it| {
            buf.get(it.start..it.start + octets.len() + 1) == buf.get(at..name.end + 1)
                || scan::name_at(buf, it.start as u32) == octets
        }) {
            return Err(StreamFault::NotWellFormed.into());
        }
        if self.count >= usize::from(limits.attributes_max) {
            return Err(StreamFault::PolicyViolation.into());
        }
        let slot = self.attrs.get_mut(self.count).ok_or(StreamFault::PolicyViolation)?;
        *slot = at..end;
        self.count += 1;
        let value = Some(start as u32..end as u32);
        match octets {
            b"to" => self.header.to = value,
            b"from" => self.header.from = value,
            b"id" => self.header.id = value,
            b"version" => self.header.version = value,
            b"xml:lang" => self.header.lang = value,
            _ => {}
        }
        Ok(end + 1)
    }

    /// The value of the attribute of this name.
    fn value<'a>(&self, buf: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        let range = self
            .attrs
            .get(..self.count)?
            .iter()
            .find(|it| scan::name_at(buf, it.start as u32) == name)?;
        let (_, start) = scan::equals(buf, range.start + name.len()).ok()?;
        buf.get(start..range.end)
    }

    /// RFC 6120, 4.8: the namespaces and the prefix are the right ones.
    fn judge(&mut self, buf: &[u8], root: &[u8]) -> Result<(), Stop> {
        let ranges = self.attrs.get(..self.count).unwrap_or_default();
        for range in ranges {
            let name = scan::name_at(buf, range.start as u32);
            let Some(colon) = name.iter().position(|b| *b == b':') else { continue };
            match name.split_at_checked(colon) {
                Some((b"xmlns", _)) => {
                    let ns = namespace::declared(self.value(buf, name).unwrap_or_default())?;
                    let reserved = matches!(ns, Ns::Absent | Ns::Xmlns);
                    if reserved
                        || (name == b"xmlns:xml") != (ns == Ns::Xml)
                        || name == b"xmlns:xmlns"
                    {
                        return Err(StreamFault::InvalidNamespace.into());
                    }
                }
                Some((b"xml", _)) => {}
                Some((prefix, _)) => {
                    let mut declared = b"xmlns:".to_vec();
                    declared.extend_from_slice(prefix);
                    if self.value(buf, &declared).is_none() {
                        return Err(StreamFault::BadNamespacePrefix.into());
                    }
                }
                None => {}
            }
        }
        let ns_of = |name: &[u8]| self.value(buf, name).map(Ns::of);
        match root {
            b"stream:stream" if ns_of(b"xmlns:stream") == Some(Ns::Stream) => {}
            b"stream:stream" => return Err(StreamFault::InvalidNamespace.into()),
            _ if root.ends_with(b":stream") || root == b"stream" => {
                return Err(StreamFault::BadNamespacePrefix.into());
            }
            _ => return Err(StreamFault::BadFormat.into()),
        }
        let content = match ns_of(b"xmlns") {
            Some(Ns::Client) => Content::Client,
            Some(Ns::Server) => Content::Server,
            _ => return Err(StreamFault::InvalidNamespace.into()),
        };
        let dialback = match ns_of(b"xmlns:db") {
            // XEP-0220, 2.1: a wrong namespace for `db` is an error of the stream.
            Some(ns) if ns != Ns::Dialback => return Err(StreamFault::InvalidNamespace.into()),
            found => found.is_some(),
        };
        self.header.content = content;
        self.header.dialback = dialback;
        Ok(())
    }
}

/// Passes an XML declaration and the blanks behind it; returns where the header begins.
fn declaration(buf: &[u8]) -> Result<usize, Stop> {
    const OPEN: &[u8] = b"<?xml";
    let Some(rest) = buf.strip_prefix(OPEN) else {
        return if OPEN.starts_with(buf) { Err(Stop::Incomplete) } else { Ok(0) };
    };
    match rest.first() {
        None => return Err(Stop::Incomplete),
        Some(b) if chars::is_blank(*b) => {}
        // `<?xmlfoo`: another instruction.
        Some(_) => return Err(StreamFault::RestrictedXml.into()),
    }
    let Some(len) = memchr::memmem::find(rest, b"?>") else { return Err(Stop::Incomplete) };
    let mut text = rest.get(..len).unwrap_or_default();
    // XML 1.0, 2.8: the three in this order, the first required.
    let version = pseudo_attribute(&mut text, b"version")?;
    if version != Some(b"1.0") {
        return Err(StreamFault::NotWellFormed.into());
    }
    if let Some(encoding) = pseudo_attribute(&mut text, b"encoding")? {
        // RFC 6120, 11.6.
        if !encoding.eq_ignore_ascii_case(b"utf-8") {
            return Err(StreamFault::UnsupportedEncoding.into());
        }
    }
    if !matches!(pseudo_attribute(&mut text, b"standalone")?, None | Some(b"yes" | b"no"))
        || chars::blanks(text, 0) != text.len()
    {
        return Err(StreamFault::NotWellFormed.into());
    }
    Ok(chars::blanks(buf, OPEN.len() + len + 2))
}

/// Takes ` name='value'` from the front of `text`, if it is this name's.
fn pseudo_attribute<'a>(text: &mut &'a [u8], name: &[u8]) -> Result<Option<&'a [u8]>, Stop> {
    const BAD: Stop = Stop::Fault(StreamFault::NotWellFormed);
    let skip = chars::blanks(text, 0);
    let rest = text.get(skip..).unwrap_or_default();
    if !rest.starts_with(name) || skip == 0 {
        return Ok(None);
    }
    let (quote, start) = scan::equals(rest, name.len()).map_err(|_| BAD)?;
    let value = rest.get(start..).unwrap_or_default();
    let len = memchr::memchr(quote, value).ok_or(BAD)?;
    *text = value.get(len + 1..).unwrap_or_default();
    Ok(value.get(..len))
}
