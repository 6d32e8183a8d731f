//! Looks into an element that a scan has proven: for the few who need more than `Stanza` tells.
//!
//! Plain and a little wasteful, since it reads again what was read before; nothing on the path of a
//! message uses it. It trusts the proof: fed anything else it gives nonsense, never a panic.

use std::borrow::Cow;

use crate::xmpp::chars;

/// One thing in an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A start tag: its name, and all its attributes as on the wire; true if the element is empty.
    Start(&'a [u8], &'a [u8], bool),
    /// An end tag.
    End(&'a [u8]),
    /// Character data, escaped.
    Text(&'a [u8]),
    /// The content of a CDATA section.
    Cdata(&'a [u8]),
}

/// Reads a proven element from its `<` on.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    buf: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Begins at the start of `element`.
    pub fn new(element: &'a [u8]) -> Self {
        Self { buf: element, at: 0 }
    }

    /// Octets read so far.
    pub fn at(&self) -> usize {
        self.at
    }

    fn tag(&mut self) -> Option<Event<'a>> {
        let start = self.at + 1;
        let name = chars::name(self.buf, start).ok()?;
        let mut at = name.end;
        loop {
            match self.buf.get(at)? {
                b'>' => break,
                quote @ (b'\'' | b'"') => {
                    at += 2 + memchr::memchr(*quote, self.buf.get(at + 1..)?)?;
                }
                _ => at += 1,
            }
        }
        let attrs = self.buf.get(name.end..at)?;
        self.at = at + 1;
        let empty = attrs.last() == Some(&b'/');
        let attrs = attrs.strip_suffix(b"/").unwrap_or(attrs);
        Some(Event::Start(self.buf.get(start..name.end)?, attrs, empty))
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        const CDATA: &[u8] = b"<![CDATA[";
        let rest = self.buf.get(self.at..)?;
        if let Some(end) = rest.strip_prefix(b"</") {
            let len = memchr::memchr(b'>', end)?;
            self.at += len + 3;
            return Some(Event::End(end.get(..len)?.trim_ascii_end()));
        }
        if let Some(data) = rest.strip_prefix(CDATA) {
            let len = memchr::memmem::find(data, b"]]>")?;
            self.at += CDATA.len() + len + 3;
            return Some(Event::Cdata(data.get(..len)?));
        }
        match rest.first()? {
            b'<' => self.tag(),
            _ => {
                let len = memchr::memchr(b'<', rest).unwrap_or(rest.len());
                self.at += len;
                Some(Event::Text(rest.get(..len)?))
            }
        }
    }
}

/// The attributes of a start tag: name, value as on the wire, and where both lie in `attrs`.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    attrs: &'a [u8],
    at: usize,
}

/// The attributes in `attrs`, the second part of `Event::Start`.
pub fn attributes(attrs: &[u8]) -> Attributes<'_> {
    Attributes { attrs, at: 0 }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (&'a [u8], &'a str, std::ops::Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let cut = self.at;
        let start = chars::blanks(self.attrs, cut);
        let name = chars::name(self.attrs, start).ok()?;
        let equals = chars::blanks(self.attrs, name.end);
        let quote_at = chars::blanks(self.attrs, equals + 1);
        let quote = *self.attrs.get(quote_at)?;
        let len = memchr::memchr(quote, self.attrs.get(quote_at + 1..)?)?;
        let value = self.attrs.get(quote_at + 1..quote_at + 1 + len)?;
        self.at = quote_at + len + 2;
        let value = std::str::from_utf8(value).unwrap_or_default();
        Some((self.attrs.get(start..name.end)?, value, cut..self.at))
    }
}

/// The name of an element, with its prefix.
pub fn name_of(element: &[u8]) -> &[u8] {
    match Reader::new(element).next() {
        Some(Event::Start(name, _, _)) => name,
        _ => b"",
    }
}

/// An attribute of an element, as meant; the name is with its prefix.
pub fn attr_of<'a>(element: &'a [u8], name: &[u8]) -> Option<Cow<'a, str>> {
    let Some(Event::Start(_, attrs, _)) = Reader::new(element).next() else { return None };
    attributes(attrs).find(|it| it.0 == name).map(|it| unescape(it.1))
}

/// The text directly in an element, as meant.
pub fn text_of(element: &[u8]) -> String {
    let (mut text, mut depth) = (String::new(), 0_usize);
    for event in Reader::new(element) {
        match event {
            Event::Start(_, _, true) => {}
            Event::Start(..) => depth += 1,
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Text(octets) if depth == 1 => {
                expand(std::str::from_utf8(octets).unwrap_or_default(), false, &mut text);
            }
            Event::Cdata(octets) if depth == 1 => {
                let data = std::str::from_utf8(octets).unwrap_or_default();
                text.push_str(&data.replace("\r\n", "\n").replace('\r', "\n"));
            }
            Event::Text(_) | Event::Cdata(_) => {}
        }
    }
    text
}

/// The children of an element, each with all its octets.
pub fn children(element: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut reader = Reader::new(element);
    let mut depth = 0_usize;
    std::iter::from_fn(move || {
        let mut start = 0;
        loop {
            let before = reader.at();
            match reader.next()? {
                Event::Start(_, _, empty) => {
                    if depth == 1 {
                        start = before;
                    }
                    if !empty {
                        depth += 1;
                    } else if depth == 1 {
                        return element.get(start..reader.at());
                    }
                }
                Event::End(_) => {
                    depth = depth.checked_sub(1)?;
                    if depth == 1 {
                        return element.get(start..reader.at());
                    }
                }
                Event::Text(_) | Event::Cdata(_) => {}
            }
        }
    })
}

/// The first child of this name, which is with its prefix.
pub fn child_of<'a>(element: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    children(element).find(|it| name_of(it) == name)
}

/// What an attribute value means: references resolved, blanks as spaces (XML 1.0, 3.3.3).
#[inline]
pub fn unescape(raw: &str) -> Cow<'_, str> {
    if chars::is_literal(raw.as_bytes()) || raw.bytes().all(|b| b != b'&' && b >= b' ') {
        return Cow::Borrowed(raw);
    }
    let mut out = String::with_capacity(raw.len());
    expand(raw, true, &mut out);
    Cow::Owned(out)
}

/// Appends what `raw` means; line ends are normalised (XML 1.0, 2.11).
#[cold]
fn expand(raw: &str, attribute: bool, out: &mut String) {
    let mut rest = raw;
    // In text a line feed and a tab are themselves.
    let stop = |it: &str| match attribute {
        true => it.find(['&', '\r', '\n', '\t']),
        false => memchr::memchr2(b'&', b'\r', it.as_bytes()),
    };
    while let Some(stop) = stop(rest) {
        let (plain, tail) = rest.split_at(stop);
        out.push_str(plain);
        let blank = |b| if attribute { ' ' } else { b };
        if let Some(reference) = tail.strip_prefix('&') {
            let (name, behind) = reference.split_once(';').unwrap_or((reference, ""));
            out.push(referred(name));
            rest = behind;
        } else if let Some(behind) = tail.strip_prefix("\r\n") {
            out.push(blank('\n'));
            rest = behind;
        } else {
            out.push(blank(if tail.starts_with('\t') { '\t' } else { '\n' }));
            rest = tail.get(1..).unwrap_or_default();
        }
    }
    out.push_str(rest);
}

/// The character a reference stands for.
fn referred(name: &str) -> char {
    match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "apos" => '\'',
        "quot" => '"',
        _ => name
            .strip_prefix('#')
            .and_then(|it| chars::code_of(it.as_bytes()))
            .and_then(char::from_u32)
            .unwrap_or(char::REPLACEMENT_CHARACTER),
    }
}
