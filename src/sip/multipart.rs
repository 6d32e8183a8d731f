//! The parts of a multipart body (RFC 2046, 5.1).
//!
//! Parts are cut where they lie. A preamble and an epilogue are passed over, a last boundary that is
//! missing is forgiven. Does **not** undo transfer encodings.

/// One part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The lines of its headers.
    head: &'a [u8],
    /// What follows the blank line.
    pub body: &'a [u8],
}

/// The parts between these boundaries, at most [`PARTS`].
pub fn parts<'a>(boundary: &[u8], body: &'a [u8]) -> impl Iterator<Item = Part<'a>> + use<'a> {
    let delimiter = [b"--", boundary].concat();
    let mut rest = begin(&delimiter, body);
    std::iter::from_fn(move || {
        let text = rest?;
        let (part, next) = match find(&delimiter, text) {
            Some(at) => (text.get(..at)?, after(&delimiter, text.get(at..)?)),
            None => (text, None),
        };
        rest = next;
        Some(read(part))
    })
    .take(PARTS)
}

/// Parts of one body that are looked at.
pub const PARTS: usize = 16;

impl<'a> Part<'a> {
    /// A header of the part, trimmed; names are compared without case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.head.split(|it| *it == b'\n').find_map(|line| {
            let colon = line.iter().position(|it| *it == b':')?;
            let (found, value) = line.split_at_checked(colon)?;
            found
                .trim_ascii()
                .eq_ignore_ascii_case(name.as_bytes())
                .then(|| value.get(1..).unwrap_or_default().trim_ascii())
        })
    }

    /// Type and subtype; `text/plain` if nothing is said (RFC 2045, 5.2).
    pub fn essence(&self) -> Vec<u8> {
        let Some(type_) = self.header("Content-Type") else { return b"text/plain".to_vec() };
        let end = type_.iter().position(|it| *it == b';').unwrap_or(type_.len());
        type_.get(..end).unwrap_or_default().trim_ascii().to_ascii_lowercase()
    }

    /// The parts in this one, if it is a multipart itself.
    pub fn nested(&self) -> Option<impl Iterator<Item = Part<'a>> + use<'a>> {
        if !self.essence().starts_with(b"multipart/") {
            return None;
        }
        let type_ = self.header("Content-Type")?;
        let boundary = type_.split(|it| *it == b';').find_map(|it| {
            let (name, value) = it.split_at_checked(it.iter().position(|it| *it == b'=')?)?;
            let is_it = name.trim_ascii().eq_ignore_ascii_case(b"boundary");
            is_it.then(|| value.get(1..).unwrap_or_default().trim_ascii())
        })?;
        let bare = boundary.strip_prefix(b"\"").and_then(|it| it.strip_suffix(b"\""));
        Some(parts(bare.unwrap_or(boundary), self.body))
    }
}

/// What follows the first delimiter.
fn begin<'a>(delimiter: &[u8], body: &'a [u8]) -> Option<&'a [u8]> {
    if body.starts_with(delimiter) {
        return after(delimiter, body);
    }
    let at = find(delimiter, body)?;
    after(delimiter, body.get(at..)?)
}

/// Where the line break before the next delimiter is.
fn find(delimiter: &[u8], text: &[u8]) -> Option<usize> {
    memchr::memmem::find_iter(text, delimiter).find_map(|at| {
        let (before, line) = text.split_at_checked(at)?;
        let before = before.strip_suffix(b"\n")?;
        // RFC 2046, 5.1.1: a longer word is another line.
        let ends =
            matches!(line.get(delimiter.len()), None | Some(b' ' | b'\t' | b'\r' | b'\n' | b'-'));
        ends.then_some(before.strip_suffix(b"\r").unwrap_or(before).len())
    })
}

/// What follows the delimiter at the front; `None`: it was the last.
fn after<'a>(delimiter: &[u8], text: &'a [u8]) -> Option<&'a [u8]> {
    let at = memchr::memmem::find(text, delimiter)?;
    let rest = text.get(at + delimiter.len()..)?;
    if rest.starts_with(b"--") {
        return None;
    }
    rest.get(memchr::memchr(b'\n', rest)? + 1..)
}

fn read(part: &[u8]) -> Part<'_> {
    // No header at all: the blank line comes first.
    for (blank, skip) in [(&b"\r\n"[..], 2), (b"\n", 1)] {
        if part.starts_with(blank) {
            return Part { head: &[], body: part.get(skip..).unwrap_or_default() };
        }
    }
    for blank in [&b"\r\n\r\n"[..], b"\n\n"] {
        if let Some(at) = memchr::memmem::find(part, blank) {
            let head = part.get(..at).unwrap_or_default();
            return Part { head, body: part.get(at + blank.len()..).unwrap_or_default() };
        }
    }
    Part { head: part, body: &[] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_between_boundaries() {
        let body = b"preamble\r\n--b\r\nContent-Type: Text/HTML; charset=x\r\n\r\n<p>--b\r\n--bold\r\n--b \r\n\r\nplain\r\n--b--\r\nepilogue";
        let all: Vec<_> = parts(b"b", body).collect();
        assert_eq!(all.first().unwrap().essence(), b"text/html");
        assert_eq!(all.first().unwrap().body, b"<p>--b\r\n--bold");
        assert_eq!(all.get(1).unwrap().essence(), b"text/plain");
        assert_eq!(all.get(1).unwrap().body, b"plain");
        assert_eq!(all.len(), 2);
        assert_eq!(parts(b"b", b"nothing").count(), 0);
        assert_eq!(parts(b"b", b"--b\r\n\r\nno end").next().unwrap().body, b"no end");
    }

    #[test]
    fn damaged_bodies_have_few_parts() {
        let body = b"--b\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\nx\r\n--i--\r\n--b--";
        for at in 0..body.len() {
            for value in [0, b'\n', b'-', b'b', b':', 0xff] {
                let mut other = body.to_vec();
                *other.get_mut(at).unwrap() = value;
                for part in parts(b"b", &other) {
                    drop((part.essence(), part.nested().map(Iterator::count)));
                }
                assert!(parts(b"", &other).count() <= PARTS);
            }
        }
        assert_eq!(parts(b"b", "--b\r\n\r\n\r\n".repeat(99).as_bytes()).count(), PARTS);
    }

    #[test]
    fn parts_in_parts() {
        let body = b"--a\r\nContent-Type: multipart/alternative; boundary=\"i\"\r\n\r\n--i\r\n\r\nx\r\n--i--\r\n--a--";
        let outer = parts(b"a", body).next().unwrap();
        assert_eq!(outer.nested().unwrap().next().unwrap().body, b"x");
    }
}
