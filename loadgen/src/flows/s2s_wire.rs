//! The pieces of a stream between servers: headers, whole elements, its end.
//!
//! Follows tags and quotes, so an element may hold others of its name. Does **not** judge XML
//! beyond that, or resolve entities.

use memchr::memmem::find;
use memchr::{memchr, memchr3};

/// Octets of one element above which the far end talks nonsense.
pub(super) const HELD_MAX: usize = 1 << 20;

/// A piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// `<stream:stream …>`.
    Header(&'a [u8]),
    /// A child of the stream, whole, with the octets of its opening tag.
    Element(&'a [u8], usize),
    /// `</stream:stream>`.
    End,
}

/// What can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbage;

/// The first piece of `bytes`, and how many octets are done with; no piece: more must come.
pub(super) fn next(bytes: &[u8]) -> Result<(usize, Option<Piece<'_>>), Garbage> {
    let mut at = 0;
    loop {
        // White space keeps a connection alive.
        let rest = bytes.get(at..).unwrap_or_default();
        let blank = rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        at += blank;
        let rest = rest.get(blank..).unwrap_or_default();
        match rest.first() {
            None => return Ok((at, None)),
            Some(b'<') => {}
            Some(_) => return Err(Garbage),
        }
        if rest.starts_with(b"<?") {
            match find(rest, b"?>") {
                Some(end) => at += end + 2,
                None => return Ok((at, None)),
            }
            continue;
        }
        let Some(head) = tag(rest) else { return Ok((at, None)) };
        let opening = rest.get(..head).unwrap_or_default();
        if opening.starts_with(b"<stream:stream") {
            return Ok((at + head, Some(Piece::Header(opening))));
        }
        if opening.starts_with(b"</") {
            let ends = opening.starts_with(b"</stream:stream");
            return if ends { Ok((at + head, Some(Piece::End))) } else { Err(Garbage) };
        }
        let Some(end) = element(rest, head)? else { return Ok((at, None)) };
        let whole = rest.get(..end).unwrap_or_default();
        return Ok((at + end, Some(Piece::Element(whole, head))));
    }
}

/// Octets of the tag at the begin, to its `>` outside of quotes.
fn tag(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let found = at + memchr3(b'>', b'"', b'\'', bytes.get(at..)?)?;
        let &byte = bytes.get(found)?;
        if byte == b'>' {
            return Some(found + 1);
        }
        at = found + 2 + memchr(byte, bytes.get(found + 1..)?)?;
    }
}

/// Octets of the element whose opening tag has `head`.
fn element(bytes: &[u8], head: usize) -> Result<Option<usize>, Garbage> {
    let closed = |tag: &[u8]| tag.ends_with(b"/>");
    if closed(bytes.get(..head).unwrap_or_default()) {
        return Ok(Some(head));
    }
    let (mut depth, mut at) = (1_usize, head);
    while depth > 0 {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(open) = memchr(b'<', rest) else { return Ok(None) };
        let rest = rest.get(open..).unwrap_or_default();
        if rest.starts_with(b"<![CDATA[") {
            let Some(end) = find(rest, b"]]>") else { return Ok(None) };
            at += open + end + 3;
            continue;
        }
        let Some(length) = tag(rest) else { return Ok(None) };
        let tag = rest.get(..length).unwrap_or_default();
        if tag.starts_with(b"</") {
            depth -= 1;
        } else if tag.starts_with(b"<!") || tag.starts_with(b"<?") {
            // RFC 6120, 11.1: neither comments nor instructions.
            return Err(Garbage);
        } else if !closed(tag) {
            depth += 1;
        }
        at += open + length;
    }
    Ok(Some(at))
}

/// The name of an element, without a prefix.
pub(super) fn name(whole: &[u8]) -> &[u8] {
    let inner = whole.get(1..).unwrap_or_default();
    let end = inner.iter().position(|b| b" \t\r\n/>".contains(b)).unwrap_or(inner.len());
    let name = inner.get(..end).unwrap_or_default();
    memchr(b':', name).map_or(name, |at| name.get(at + 1..).unwrap_or_default())
}

/// The value of an attribute in an opening tag; `name` begins with a blank and ends with `=`.
pub(super) fn attribute<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (quote, value) = head.get(find(head, name)? + name.len()..)?.split_first()?;
    value.get(..memchr(*quote, value)?)
}

/// The same as text; empty if it is not there.
pub(super) fn text<'a>(head: &'a [u8], name: &[u8]) -> &'a str {
    attribute(head, name).and_then(|it| std::str::from_utf8(it).ok()).unwrap_or_default()
}

/// The name of the condition in an error: the first child that is not a text.
pub(super) fn condition(whole: &[u8]) -> &str {
    let starts = [&b"<error"[..], b"<failure", b"<stream:error"];
    let Some(at) = starts.iter().find_map(|start| find(whole, start)) else { return "unknown" };
    let mut rest = whole.get(at + 1..).unwrap_or_default();
    while let Some(open) = memchr(b'<', rest) {
        rest = rest.get(open..).unwrap_or_default();
        let name = name(rest);
        rest = rest.get(1..).unwrap_or_default();
        let plain = name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
        if !name.is_empty() && name != b"text" && plain {
            return std::str::from_utf8(name).unwrap_or("unknown");
        }
    }
    "unknown"
}

/// The text of an element that holds nothing else.
pub(super) fn content(whole: &[u8], head: usize) -> &[u8] {
    let inner = whole.get(head..).unwrap_or_default();
    inner.get(..memchr(b'<', inner).unwrap_or(inner.len())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_however_they_come() {
        let text = b"<?xml version='1.0'?><stream:stream id='a>b' to='x'> \n<stream:features/>\
            <message to='y'><body>1 &lt; 2</body><forwarded><message><body/></message></forwarded>\
            </message><a><![CDATA[</a>]]></a></stream:stream>";
        for piece in 1..text.len() {
            let (mut held, mut found) = (Vec::new(), Vec::new());
            for part in text.chunks(piece) {
                held.extend_from_slice(part);
                while let Ok((done, Some(it))) = next(&held) {
                    found.push(match it {
                        Piece::Header(h) => format!("h{}", text_of(attribute(h, b" id=").unwrap())),
                        Piece::Element(w, h) => {
                            format!("{} {h} {}", text_of(name(w)), w.len())
                        }
                        Piece::End => "end".to_owned(),
                    });
                    held.drain(..done);
                }
            }
            let wanted = ["ha>b", "features 18 18", "message 16 96", "a 3 23", "end"];
            assert_eq!(found, wanted, "pieces of {piece}");
        }
    }

    fn text_of(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_is_no_stream_is_garbage() {
        for text in [&b"HTTP/1.1 400"[..], b"</presence>", b"<a><!-- x --></a>", b"\x16\x03\x01"] {
            assert_eq!(next(text), Err(Garbage), "{}", String::from_utf8_lossy(text));
        }
    }
}
