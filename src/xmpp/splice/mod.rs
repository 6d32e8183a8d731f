//! Hands a stanza on as ranges of the original, with a few insertions and cuts.
//!
//! What was proven once is copied, never written anew: the root's addresses are exchanged, a few of
//! its attributes and forged children are cut, all else goes out octet for octet. What can't be
//! handed on so is refused (`Unforwardable`). Answers to a stanza (RFC 6120, 8.2.3, 8.3) are made here
//! too, since they repeat its id and, if it is small, its content.

use std::ops::Range;

use crate::xmpp::{
    fault::StanzaFault,
    read::{self, Event, Reader},
    stanza::{Attr, Kind, Ns, Quirks, Stanza},
    write,
};

/// What is different on the way out. The default changes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edits<'a> {
    /// The sender, instead of the original's.
    pub from: Option<&'a str>,
    /// The receiver, instead of the original's.
    pub to: Option<&'a str>,
    /// The id, instead of the original's.
    pub id: Option<&'a str>,
    /// The language of the sender's stream, if the stanza names none itself (RFC 6120, 4.7.4).
    pub lang: Option<&'a str>,
    /// The receiver's stream has the other content namespace: the root's own declaration is cut, and
    /// so are those of its children that repeat it.
    pub exchange: bool,
    /// Children that must not go on, in their order; see `Child::range`.
    pub cuts: &'a [Range<u32>],
}

/// The stanza names a content namespace in a way that can't be exchanged by cutting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unforwardable;

/// Appends `stanza`, which was scanned from the start of `frame`, with `edits`.
///
/// Nothing is appended if it is refused.
#[inline]
pub fn forward(
    frame: &[u8],
    stanza: &Stanza,
    edits: &Edits<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Unforwardable> {
    let (name_end, len) = (stanza.name_end as usize, stanza.len as usize);
    let mut spots = Cuts::default();
    spots.attr(stanza.from, edits.from.is_some());
    spots.attr(stanza.to, edits.to.is_some());
    spots.attr(stanza.id, edits.id.is_some());
    let mut nested = Vec::new();
    if edits.exchange && stanza.quirks.has(Quirks::CHILD_CONTENT | Quirks::CONTENT_BOUND) {
        declarations(frame, stanza, &mut nested)?;
    }
    spots.attr(stanza.xmlns, edits.exchange && stanza.ns.is_content());
    let (Some(name), Some(_)) = (frame.get(..name_end), frame.get(name_end..len)) else {
        return Err(Unforwardable);
    };
    out.reserve(len + 512);
    out.extend_from_slice(name);
    insert("from", edits.from, out);
    insert("to", edits.to, out);
    insert("id", edits.id, out);
    if stanza.lang.is_none() {
        insert("xml:lang", edits.lang, out);
    }
    let mut at = name_end;
    for cut in spots.all() {
        at = copy_past(frame, at, cut, out);
    }
    if nested.is_empty() {
        for cut in edits.cuts {
            at = copy_past(frame, at, cut, out);
        }
    } else {
        nested.extend_from_slice(edits.cuts);
        nested.sort_by_key(|it| it.start);
        for cut in &nested {
            at = copy_past(frame, at, cut, out);
        }
    }
    out.extend_from_slice(frame.get(at..len).unwrap_or_default());
    Ok(())
}

/// Copies from `at` to the cut; returns where it ends. A cut within the one before is nothing new.
#[inline(always)]
fn copy_past(frame: &[u8], at: usize, cut: &Range<u32>, out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(frame.get(at..cut.start as usize).unwrap_or_default());
    at.max(cut.end as usize)
}

#[inline(always)]
fn insert(name: &str, value: Option<&str>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        write::attr(name, value, out);
    }
}

/// Attributes of the root to cut, in their order.
#[derive(Default)]
struct Cuts {
    count: usize,
    all: [Range<u32>; 4],
}

impl Cuts {
    #[inline(always)]
    fn attr(&mut self, attr: Option<Attr>, cut: bool) {
        let Some(attr) = attr.filter(|_| cut) else { return };
        if let Some(slot) = self.all.get_mut(self.count) {
            *slot = attr.whole();
            self.count += 1;
        }
        let used = self.all.get_mut(..self.count).unwrap_or_default();
        if used.len() > 1 {
            used.sort_unstable_by_key(|it| it.start);
        }
    }

    #[inline(always)]
    fn all(&self) -> &[Range<u32>] {
        self.all.get(..self.count).unwrap_or_default()
    }
}

/// The declarations of first-level children that repeat the root's namespace.
///
/// A child that names the *other* content namespace would become one with the root by the exchange,
/// or part from it: that is refused, as is what binds one of the two to a prefix.
#[cold]
fn declarations(
    frame: &[u8],
    stanza: &Stanza,
    cuts: &mut Vec<Range<u32>>,
) -> Result<(), Unforwardable> {
    if stanza.quirks.has(Quirks::CONTENT_BOUND) || stanza.overflows() {
        return Err(Unforwardable);
    }
    for child in stanza.children().iter().filter(|it| it.ns.is_content()) {
        let mut reader = Reader::new(child.octets(frame));
        let Some(Event::Start(name, attrs, _)) = reader.next() else { continue };
        let base = child.start as usize + 1 + name.len();
        for (name, value, at) in read::attributes(attrs) {
            if name == b"xmlns" {
                if Ns::of(value.as_bytes()) != stanza.ns {
                    return Err(Unforwardable);
                }
                cuts.push((base + at.start) as u32..(base + at.end) as u32);
            }
        }
    }
    Ok(())
}

/// Content up to this many octets is repeated in an error.
const ECHO_OCTETS: usize = 1_024;

/// Appends the error that answers `stanza`; false, and nothing, where none may be sent.
///
/// RFC 6120, 8.3.1: addresses are swapped unless `from` or `to` says otherwise, the id is kept, an
/// error is never answered, nor is the result of an IQ.
pub fn error_reply(
    frame: &[u8],
    stanza: &Stanza,
    fault: StanzaFault,
    from: Option<&str>,
    to: Option<&str>,
    text: Option<&str>,
    out: &mut Vec<u8>,
) -> bool {
    error_reply_with(frame, stanza, from, to, out, |out| write::stanza_error(fault, text, out))
}

/// The same with an `<error/>` that `error` appends.
pub fn error_reply_with(
    frame: &[u8],
    stanza: &Stanza,
    from: Option<&str>,
    to: Option<&str>,
    out: &mut Vec<u8>,
    error: impl FnOnce(&mut Vec<u8>),
) -> bool {
    let kind = stanza.type_.map(|it| it.value(frame));
    match (stanza.kind, kind.as_deref()) {
        (_, Some("error")) | (Kind::Iq, Some("result")) => return false,
        (kind, _) if !kind.is_stanza() => return false,
        _ => {}
    }
    open_reply(frame, stanza, "error", from, to, out);
    out.push(b'>');
    let inner = stanza.inner(frame);
    let own = Quirks::CHILD_CONTENT | Quirks::CONTENT_BOUND | Quirks::ROOT_PREFIX;
    if inner.len() <= ECHO_OCTETS && !stanza.quirks.has(own) {
        out.extend_from_slice(inner);
    }
    error(out);
    out.extend_from_slice(b"</");
    out.extend_from_slice(stanza.name(frame).as_bytes());
    out.push(b'>');
    true
}

/// Appends the result that answers the IQ `stanza`, with a payload of our own.
pub fn result_reply(
    frame: &[u8],
    stanza: &Stanza,
    from: Option<&str>,
    to: Option<&str>,
    payload_raw: &[u8],
    out: &mut Vec<u8>,
) {
    open_reply(frame, stanza, "result", from, to, out);
    if payload_raw.is_empty() {
        out.extend_from_slice(b"/>");
        return;
    }
    out.push(b'>');
    out.extend_from_slice(payload_raw);
    out.extend_from_slice(b"</iq>");
}

/// Appends the root of an answer up to its last attribute.
fn open_reply(
    frame: &[u8],
    stanza: &Stanza,
    kind: &str,
    from: Option<&str>,
    to: Option<&str>,
    out: &mut Vec<u8>,
) {
    out.push(b'<');
    out.extend_from_slice(stanza.name(frame).as_bytes());
    write::attr("type", kind, out);
    address("id", None, stanza.id, frame, out);
    address("from", from, stanza.to, frame, out);
    address("to", to, stanza.from, frame, out);
}

/// Appends an attribute: `ours`, or else the raw value of `theirs`.
fn address(name: &str, ours: Option<&str>, theirs: Option<Attr>, frame: &[u8], out: &mut Vec<u8>) {
    match (ours, theirs) {
        (Some(ours), _) => write::attr(name, ours, out),
        // As it stood: written in double quotes it may hold an apostrophe.
        (None, Some(theirs)) => write::attr(name, &theirs.value(frame), out),
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests;
