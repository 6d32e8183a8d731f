//! The one strict scan of a stanza.
//!
//! It finds the element's end and proves, octet by octet, that every parser after us will read what
//! we read: UTF-8 and XML 1.0 characters, legal names, balanced tags, no attribute twice (also not
//! after namespace resolution), the five entities and characters by number, every prefix declared
//! inside. DTDs, processing instructions, comments and an XML declaration are refused (RFC 6120,
//! 11.1); CDATA sections pass. On the way it notes the root's attributes and the kinds and places of
//! the first-level children, so that nobody reads the stanza twice.
//!
//! It keeps no tree, allocates nothing and never looks back further than to the names of what is
//! open. Stricter than XML, on purpose: stanzas bear no prefix, a namespace name is a plain URI, and
//! names keep to the letters that `chars` lists, and there is no `xml:id`.

use std::num::NonZeroU32;

use crate::xmpp::{
    chars::{self, Name, Stop},
    fault::StreamFault,
    frame::{Limits, Setting},
    namespace,
    scope::Scope,
    stanza::{Attr, Child, ChildKind, Kind, Ns, Quirks, Stanza},
};

/// Scans the element at the start of `buf`, which begins with `<`, and fills in `stanza`.
///
/// Returns how many octets it takes.
#[inline]
pub(crate) fn scan(
    buf: &[u8],
    setting: Setting,
    limits: &Limits,
    stanza: &mut Stanza,
) -> Result<usize, Stop> {
    let window = buf.get(..limits.octets_max as usize).unwrap_or(buf);
    let mut scan = Scan {
        buf: window,
        setting,
        depth_max: usize::from(limits.depth_max).min(DEPTH_OPEN),
        attributes_max: usize::from(limits.attributes_max).min(ATTRIBUTES_OPEN),
        elements_max: limits.elements_max,
        stanza,
        at: 0,
        depth: 0,
        open: [0; DEPTH_OPEN],
        attrs: [0; ATTRIBUTES_OPEN],
        scope: Scope::default(),
        child_kind: ChildKind::Other,
        child_ns: Ns::Other,
        child_start: 0,
    };
    match scan.element() {
        // Octets are counted as they arrive: a stanza over the limit is never held.
        Err(Stop::Incomplete) if buf.len() >= limits.octets_max as usize => {
            Err(StreamFault::PolicyViolation.into())
        }
        result => result,
    }
}

/// Elements that may be open at once, whatever the limits say.
pub(crate) const DEPTH_OPEN: usize = 64;
/// Attributes of one element, whatever the limits say.
pub(crate) const ATTRIBUTES_OPEN: usize = 64;

/// What a start tag says of itself.
struct Tag {
    name: Name,
    /// Its own default namespace, if it declares one.
    default: Option<Ns>,
    attr_count: usize,
    prefixed: bool,
    empty: bool,
}

struct Scan<'a> {
    buf: &'a [u8],
    setting: Setting,
    depth_max: usize,
    attributes_max: usize,
    elements_max: u32,
    stanza: &'a mut Stanza,
    at: usize,
    depth: usize,
    /// Where the names of the open elements begin.
    open: [u32; DEPTH_OPEN],
    /// Where the names of the current element's attributes begin.
    attrs: [u32; ATTRIBUTES_OPEN],
    scope: Scope,
    child_kind: ChildKind,
    child_ns: Ns,
    child_start: u32,
}

const NOT_WELL_FORMED: Stop = Stop::Fault(StreamFault::NotWellFormed);
const TOO_MUCH: Stop = Stop::Fault(StreamFault::PolicyViolation);

impl Scan<'_> {
    /// One element from `<` to its end.
    fn element(&mut self) -> Result<usize, Stop> {
        self.start()?;
        while self.depth > 0 {
            // Mostly tag follows tag.
            if self.buf.get(self.at) != Some(&b'<') {
                self.at = chars::text(self.buf, self.at)?;
            }
            match self.buf.get(self.at + 1) {
                Some(b'/') => self.end()?,
                Some(b'!') => self.section()?,
                // RFC 6120, 11.1.
                Some(b'?') => return Err(StreamFault::RestrictedXml.into()),
                Some(_) => self.start()?,
                None => return Err(Stop::Incomplete),
            }
        }
        self.stanza.len = self.at as u32;
        Ok(self.at)
    }

    /// A start tag; `at` is on its `<`.
    #[inline]
    fn start(&mut self) -> Result<(), Stop> {
        let start = self.at;
        self.stanza.elements += 1;
        if self.stanza.elements > self.elements_max || self.depth >= self.depth_max {
            return Err(TOO_MUCH);
        }
        let tag = self.tag()?;
        if tag.prefixed {
            self.resolve(start + 1, &tag)?;
        }
        match self.depth {
            0 => self.begin_root(&tag)?,
            1 => self.begin_child(start, &tag),
            // A name that is exchanged, below a child that changes with it, would part from it.
            _ if self.child_ns.is_content() && tag.default.is_some_and(Ns::is_content) => {
                self.stanza.quirks.0 |= Quirks::CONTENT_BOUND;
            }
            _ => {}
        }
        if tag.empty {
            self.finish(self.at);
            self.scope.unbind(self.depth);
        } else {
            if let Some(slot) = self.open.get_mut(self.depth) {
                *slot = start as u32 + 1;
            }
            self.depth += 1;
        }
        Ok(())
    }

    /// Reads a start tag up to behind its `>`.
    #[inline]
    fn tag(&mut self) -> Result<Tag, Stop> {
        let buf = self.buf;
        let name = chars::name(buf, self.at + 1)?;
        let mut tag =
            Tag { name, default: None, attr_count: 0, prefixed: name.colon != 0, empty: false };
        let mut seen = 0_u64;
        let mut at = name.end;
        loop {
            let cut = at;
            let Some(&b) = buf.get(at) else { return Err(Stop::Incomplete) };
            match b {
                b'>' => break,
                b'/' => {
                    tag.empty = true;
                    at += 1;
                    match buf.get(at) {
                        Some(b'>') => break,
                        Some(_) => return Err(NOT_WELL_FORMED),
                        None => return Err(Stop::Incomplete),
                    }
                }
                _ if chars::is_blank(b) => {
                    at = chars::blanks(buf, at + 1);
                    if matches!(buf.get(at), Some(b'>' | b'/')) {
                        continue;
                    }
                }
                _ => return Err(NOT_WELL_FORMED),
            }
            at = self.attribute(at, cut, &mut tag, &mut seen)?;
        }
        self.at = at + 1;
        Ok(tag)
    }

    /// One attribute whose name begins at `at`; returns where it ends.
    #[inline(always)]
    fn attribute(
        &mut self,
        at: usize,
        cut: usize,
        tag: &mut Tag,
        seen: &mut u64,
    ) -> Result<usize, Stop> {
        let buf = self.buf;
        let name = chars::name(buf, at)?;
        if tag.attr_count >= self.attributes_max {
            return Err(TOO_MUCH);
        }
        let octets = buf.get(at..name.end).unwrap_or_default();
        self.once(at, octets, tag.attr_count, seen)?;
        if let Some(slot) = self.attrs.get_mut(tag.attr_count) {
            *slot = at as u32;
        }
        tag.attr_count += 1;
        let (quote, start) = match (buf.get(name.end), buf.get(name.end + 1)) {
            (Some(b'='), Some(&quote @ (b'\'' | b'"'))) => (quote, name.end + 2),
            _ => equals(buf, name.end)?,
        };
        let end = chars::value(buf, start, quote)?;
        if name.colon != 0 {
            self.prefixed(octets, at, start, end, tag)?;
            if self.depth == 0 && octets == b"xml:lang" {
                self.stanza.lang = place(cut, start, end);
            }
        } else if octets == b"xmlns" {
            let ns = namespace::declared(buf.get(start..end).unwrap_or_default())?;
            // Namespaces in XML 1.0, 3: these two are nobody's default.
            if matches!(ns, Ns::Xml | Ns::Xmlns) {
                return Err(StreamFault::InvalidNamespace.into());
            }
            tag.default = Some(ns);
            if self.depth == 0 {
                self.stanza.xmlns = place(cut, start, end);
            }
        } else if self.depth == 0 {
            let slot = match octets {
                b"to" => &mut self.stanza.to,
                b"from" => &mut self.stanza.from,
                b"id" => &mut self.stanza.id,
                b"type" => &mut self.stanza.type_,
                _ => return Ok(end + 1),
            };
            *slot = place(cut, start, end);
        }
        Ok(end + 1)
    }

    /// XML 1.0, 3.1: no attribute twice. A set of 64 bits answers for nearly all.
    #[inline(always)]
    fn once(&self, at: usize, name: &[u8], count: usize, seen: &mut u64) -> Result<(), Stop> {
        let (Some(first), Some(last)) = (name.first(), name.last()) else {
            return Err(NOT_WELL_FORMED);
        };
        let bit = 1_u64 << ((usize::from(*first) * 5 + usize::from(*last) + name.len()) & 63);
        if *seen & bit != 0 && self.twice(at, count) {
            return Err(NOT_WELL_FORMED);
        }
        *seen |= bit;
        Ok(())
    }

    #[cold]
    fn twice(&self, at: usize, count: usize) -> bool {
        let name = name_at(self.buf, at as u32);
        self.attrs.iter().take(count).any(|it| {
            let other = self.buf.get(*it as usize..).unwrap_or_default();
            other.starts_with(name) && !other.get(name.len()).is_some_and(|b| chars::is_name(*b))
        })
    }

    /// Notes a prefixed attribute, and what it declares.
    #[cold]
    fn prefixed(
        &mut self,
        name: &[u8],
        at: usize,
        start: usize,
        end: usize,
        tag: &mut Tag,
    ) -> Result<(), Stop> {
        let Some(prefix) = name.strip_prefix(b"xmlns:") else {
            // Some parsers take only a name of XML for it, and each only once; XMPP has no use for it.
            if name == b"xml:id" {
                return Err(StreamFault::InvalidXml.into());
            }
            tag.prefixed = true;
            return Ok(());
        };
        let uri = self.buf.get(start..end).unwrap_or_default();
        let ns = namespace::declared(uri)?;
        // Namespaces in XML 1.0, 3: `xml` has its name alone, `xmlns` is never declared, and no
        // prefix is undeclared.
        if (prefix == b"xml") != (ns == Ns::Xml)
            || prefix == b"xmlns"
            || matches!(ns, Ns::Xmlns | Ns::Absent)
        {
            return Err(StreamFault::InvalidNamespace.into());
        }
        if self.depth == 0 {
            self.stanza.quirks.0 |= Quirks::ROOT_PREFIX;
        }
        if ns.is_content() && self.depth <= 1 {
            self.stanza.quirks.0 |= Quirks::CONTENT_BOUND;
        }
        let prefix = at + b"xmlns:".len()..at + name.len();
        self.scope.bind(prefix, start..end, self.depth)
    }

    /// Proves the prefixes of a tag declared, and its attributes distinct once they are resolved.
    #[cold]
    fn resolve(&self, name_start: usize, tag: &Tag) -> Result<(), Stop> {
        if tag.name.colon != 0 && self.depth > 0 {
            let prefix = self.buf.get(name_start..tag.name.colon).unwrap_or_default();
            self.scope.bound(self.buf, prefix)?;
        }
        self.scope.distinct(self.buf, self.attrs.get(..tag.attr_count).unwrap_or_default())
    }

    /// The namespace of an element at depth 0 or 1 that bears a prefix.
    #[cold]
    fn prefix_ns(&self, prefix: &[u8]) -> Result<Ns, Stop> {
        match self.scope.bound(self.buf, prefix) {
            Ok(uri) => Ok(Ns::of(uri)),
            // Only these two names of the header reach into the stream, and only for its own
            // elements (RFC 6120, 4.8.5; XEP-0220).
            Err(_) if self.depth == 0 && prefix == b"stream" => Ok(Ns::Stream),
            Err(_) if self.depth == 0 && prefix == b"db" && self.setting.dialback => {
                Ok(Ns::Dialback)
            }
            Err(stop) => Err(stop),
        }
    }

    /// The root's start tag has been read.
    #[inline]
    fn begin_root(&mut self, tag: &Tag) -> Result<(), Stop> {
        let content = self.setting.content.ns();
        let octets = self.buf.get(1..tag.name.end).unwrap_or_default();
        let (ns, local) = if tag.name.colon == 0 {
            (tag.default.unwrap_or(content), octets)
        } else {
            let prefix = octets.get(..tag.name.colon - 1).unwrap_or_default();
            let ns = self.prefix_ns(prefix)?;
            // RFC 6120, 4.8.5: stanzas with a prefix are allowed to be unsupported.
            if ns.is_content() {
                return Err(StreamFault::BadNamespacePrefix.into());
            }
            (ns, octets.get(tag.name.colon..).unwrap_or_default())
        };
        self.stanza.ns = ns;
        self.stanza.kind = Kind::of(local, ns, content);
        self.stanza.name_end = tag.name.end as u32;
        self.stanza.inner_start = self.at as u32;
        self.stanza.inner_end = self.at as u32;
        self.stanza.empty = tag.empty;
        Ok(())
    }

    /// A first-level child's start tag has been read.
    #[inline]
    fn begin_child(&mut self, start: usize, tag: &Tag) {
        let inherited = match self.stanza.xmlns {
            None => self.setting.content.ns(),
            Some(_) if self.stanza.ns.is_content() => self.stanza.ns,
            Some(xmlns) => {
                Ns::of(self.buf.get(xmlns.start as usize..xmlns.end as usize).unwrap_or_default())
            }
        };
        let (ns, local) = if tag.name.colon == 0 {
            if tag.default.is_some_and(Ns::is_content) {
                self.stanza.quirks.0 |= Quirks::CHILD_CONTENT;
            }
            (tag.default.unwrap_or(inherited), self.buf.get(start + 1..tag.name.end))
        } else {
            let prefix = self.buf.get(start + 1..tag.name.colon).unwrap_or_default();
            // `resolve` has proven it declared.
            let ns = self.prefix_ns(prefix).unwrap_or_default();
            if tag.default.is_some_and(Ns::is_content) {
                self.stanza.quirks.0 |= Quirks::CONTENT_BOUND;
            }
            (ns, self.buf.get(tag.name.colon + 1..tag.name.end))
        };
        let kind = ChildKind::of(local.unwrap_or_default(), ns, self.setting.content.ns());
        self.stanza.kinds |= kind.bit();
        self.child_kind = kind;
        self.child_ns = ns;
        self.child_start = start as u32;
    }

    /// An element has ended before `at`, at the depth that it began at.
    #[inline(always)]
    fn finish(&mut self, at: usize) {
        if self.depth != 1 {
            return;
        }
        let child = Child {
            kind: self.child_kind,
            ns: self.child_ns,
            start: self.child_start,
            end: at as u32,
        };
        if let Some(slot) = self.stanza.placed.get_mut(usize::from(self.stanza.placed_count)) {
            *slot = child;
            self.stanza.placed_count += 1;
        } else {
            self.stanza.quirks.0 |= Quirks::OVERFLOW;
        }
    }

    /// An end tag; `at` is on its `<`.
    #[inline]
    fn end(&mut self) -> Result<(), Stop> {
        let buf = self.buf;
        let start = self.at;
        let Some(&open) = self.depth.checked_sub(1).and_then(|it| self.open.get(it)) else {
            return Err(NOT_WELL_FORMED);
        };
        // The name that was opened ends where no name octet follows; so must this one.
        let (mut theirs, mut at) = (open as usize, start + 2);
        loop {
            let Some(&b) = buf.get(at) else { return Err(Stop::Incomplete) };
            if buf.get(theirs) != Some(&b) {
                break;
            }
            // No `>` follows a name in both: `<a>` and `</a>` agree up to here.
            if !chars::is_name(b) {
                break;
            }
            theirs += 1;
            at += 1;
        }
        let ended = |i: usize| buf.get(i).is_none_or(|b| !chars::is_name(*b));
        if !ended(theirs) || !ended(at) {
            return Err(NOT_WELL_FORMED);
        }
        at = chars::blanks(buf, at);
        match buf.get(at) {
            Some(b'>') => {}
            Some(_) => return Err(NOT_WELL_FORMED),
            None => return Err(Stop::Incomplete),
        }
        self.at = at + 1;
        self.depth -= 1;
        if self.depth == 0 {
            self.stanza.inner_end = start as u32;
        }
        self.finish(self.at);
        self.scope.unbind(self.depth);
        Ok(())
    }

    /// What begins with `<!`: a CDATA section, or what RFC 6120, 11.1 forbids.
    #[cold]
    fn section(&mut self) -> Result<(), Stop> {
        const CDATA: &[u8] = b"<![CDATA[";
        let rest = self.buf.get(self.at..).unwrap_or_default();
        if rest.starts_with(CDATA) {
            self.at = chars::cdata(self.buf, self.at + CDATA.len())?;
            return Ok(());
        }
        Err(if CDATA.starts_with(rest) {
            Stop::Incomplete
        } else {
            StreamFault::RestrictedXml.into()
        })
    }
}

/// Passes an equals sign with blanks around it and a quote.
#[cold]
pub(crate) fn equals(buf: &[u8], at: usize) -> Result<(u8, usize), Stop> {
    let at = chars::blanks(buf, at);
    match buf.get(at) {
        Some(b'=') => {}
        Some(_) => return Err(NOT_WELL_FORMED),
        None => return Err(Stop::Incomplete),
    }
    let at = chars::blanks(buf, at + 1);
    match buf.get(at) {
        Some(&quote @ (b'\'' | b'"')) => Ok((quote, at + 1)),
        Some(_) => Err(NOT_WELL_FORMED),
        None => Err(Stop::Incomplete),
    }
}

#[inline(always)]
fn place(cut: usize, start: usize, end: usize) -> Option<Attr> {
    NonZeroU32::new(cut as u32).map(|cut| Attr { cut, start: start as u32, end: end as u32 })
}

/// The name that begins at `at`.
pub(crate) fn name_at(buf: &[u8], at: u32) -> &[u8] {
    let rest = buf.get(at as usize..).unwrap_or_default();
    let len = rest.iter().position(|b| !chars::is_name(*b)).unwrap_or(rest.len());
    rest.get(..len).unwrap_or_default()
}
