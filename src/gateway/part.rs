//! A MIME entity: its type, its parts, and its octets as text (RFC 2045, RFC 2046).
//!
//! Reads what Microsoft's clients and others send in SIP bodies. Ranges of the input until a part is
//! decoded. Comments in headers and encoded words are **not** read.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use memchr::memmem;

/// An entity whose headers were read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    /// The value of Content-Type; empty: none, which is plain text (RFC 2045, 5.2).
    pub(super) media: &'a str,
    /// The value of Content-Transfer-Encoding; empty: none.
    pub(super) encoding: &'a str,
    /// It is a file, not a text to be shown (RFC 2183, 2.2).
    pub(super) attached: bool,
    pub(super) octets: &'a [u8],
}

impl<'a> Part<'a> {
    /// An entity with its headers, as it stands in a multipart.
    fn read(entity: &'a [u8]) -> Self {
        let mut part = Part { media: "", encoding: "", attached: false, octets: &[] };
        let mut rest = entity;
        loop {
            let (line, behind) = header_line(rest);
            if line.trim_ascii().is_empty() {
                // The blank line, or an entity without a body.
                part.octets = behind;
                return part;
            }
            rest = behind;
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let Some((name, value)) = line.split_once(':') else { continue };
            let (name, value) = (name.trim(), value.trim());
            if name.eq_ignore_ascii_case("content-type") {
                part.media = value;
            } else if name.eq_ignore_ascii_case("content-transfer-encoding") {
                part.encoding = value;
            } else if name.eq_ignore_ascii_case("content-disposition") {
                part.attached = is(first(value), "attachment");
            }
        }
    }

    /// `type/subtype`, as it was written.
    pub(super) fn kind(&self) -> &'a str {
        match first(self.media) {
            "" => "text/plain",
            kind => kind,
        }
    }

    /// The parts of a multipart, in their order; empty if it has no usable boundary.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part<'a>> {
        // RFC 2046, 5.1.1: 1 to 70 characters.
        let boundary = param(self.media, "boundary").filter(|it| (1..=70).contains(&it.len()));
        let delimiter = boundary.map(|it| format!("--{it}"));
        // A multipart is never encoded as a whole (RFC 2045, 6.4).
        let mut rest = self.octets;
        let mut open = delimiter.as_ref().is_some_and(|it| skip_preamble(&mut rest, it.as_bytes()));
        std::iter::from_fn(move || {
            if !open {
                return None;
            }
            let (entity, goes_on) = match &delimiter {
                Some(it) => next_entity(&mut rest, it.as_bytes()),
                None => return None,
            };
            open = goes_on;
            Some(Part::read(entity))
        })
    }

    /// The text, if encoding and charset are known.
    pub(super) fn text(&self) -> Option<String> {
        let octets = match first(self.encoding).to_ascii_lowercase().as_str() {
            "" | "7bit" | "8bit" | "binary" => Cow::Borrowed(self.octets),
            "base64" => Cow::Owned(base64(self.octets)?),
            "quoted-printable" => Cow::Owned(quoted_printable(self.octets)),
            _ => return None,
        };
        characters(&octets, param(self.media, "charset").as_deref().unwrap_or("utf-8"))
    }
}

/// One header line with what is folded below it (RFC 5322, 2.2.3), and what follows.
fn header_line(text: &[u8]) -> (&[u8], &[u8]) {
    let mut end = 0;
    loop {
        let rest = text.get(end..).unwrap_or_default();
        let Some(len) = memchr::memchr(b'\n', rest) else { return (text, &[]) };
        let blank = text.get(..end + len).unwrap_or_default().trim_ascii().is_empty();
        end += len + 1;
        if blank || !matches!(text.get(end), Some(b' ' | b'\t')) {
            return (text.get(..end).unwrap_or_default(), text.get(end..).unwrap_or_default());
        }
    }
}

/// Where the next delimiter stands at the start of a line: what is before it without its line end,
/// what is behind its line, and whether it is the last one (RFC 2046, 5.1.1).
fn delimiter_at<'a>(text: &'a [u8], delimiter: &[u8]) -> Option<(&'a [u8], &'a [u8], bool)> {
    for at in memmem::find_iter(text, delimiter) {
        let before = text.get(..at)?;
        if !before.is_empty() && before.last() != Some(&b'\n') {
            continue;
        }
        let behind = text.get(at + delimiter.len()..)?;
        let line_end = memchr::memchr(b'\n', behind).unwrap_or(behind.len());
        let line = behind.get(..line_end)?.trim_ascii_end();
        let last = line == b"--";
        if !last && !line.is_empty() {
            // A longer boundary that begins alike.
            continue;
        }
        let before = before.strip_suffix(b"\n").unwrap_or(before);
        let before = before.strip_suffix(b"\r").unwrap_or(before);
        return Some((before, behind.get(line_end + 1..).unwrap_or_default(), last));
    }
    None
}

fn skip_preamble(rest: &mut &[u8], delimiter: &[u8]) -> bool {
    let Some((_, behind, last)) = delimiter_at(rest, delimiter) else { return false };
    *rest = behind;
    !last
}

/// An entity up to the next delimiter or, where that is missing, all of it; whether more follow.
fn next_entity<'a>(rest: &mut &'a [u8], delimiter: &[u8]) -> (&'a [u8], bool) {
    match delimiter_at(rest, delimiter) {
        Some((entity, behind, last)) => {
            *rest = behind;
            (entity, !last)
        }
        None => (std::mem::take(rest), false),
    }
}

/// What is before the parameters of a header value.
pub(super) fn first(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

pub(super) fn is(value: &str, name: &str) -> bool {
    value.eq_ignore_ascii_case(name)
}

/// A parameter of a header value, without its quotes.
pub(super) fn param(value: &str, name: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (key, behind) = rest.split_once(['=', ';'])?;
        if rest.get(key.len()..).is_some_and(|it| it.starts_with(';')) {
            rest = behind;
            continue;
        }
        let behind = behind.trim_start();
        let (found, after) = match behind.strip_prefix('"') {
            Some(quoted) => {
                let mut text = String::new();
                let mut chars = quoted.char_indices();
                let mut end = quoted.len();
                while let Some((at, c)) = chars.next() {
                    match c {
                        '"' => {
                            end = at + 1;
                            break;
                        }
                        '\\' => text.extend(chars.next().map(|(_, c)| c)),
                        c => text.push(c),
                    }
                }
                (text, quoted.get(end..).unwrap_or_default())
            }
            None => {
                let text = behind.split(';').next().unwrap_or_default();
                (text.trim().to_owned(), behind.get(text.len()..).unwrap_or_default())
            }
        };
        if is(key.trim(), name) {
            return Some(found);
        }
        rest = after.split_once(';')?.1;
    }
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// RFC 2045, 6.8: characters that are none of it are passed over.
fn base64(octets: &[u8]) -> Option<Vec<u8>> {
    let plain: Vec<u8> = octets
        .iter()
        .copied()
        .filter(|it| it.is_ascii_alphanumeric() || matches!(it, b'+' | b'/' | b'='))
        .collect();
    BASE64.decode(plain).ok()
}

/// RFC 2045, 6.7; what is no escape stays as it is.
fn quoted_printable(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len());
    for line in octets.split_inclusive(|it| *it == b'\n') {
        let content = line.trim_ascii_end();
        let (content, soft) = match content.strip_suffix(b"=") {
            Some(content) => (content, true),
            None => (content, false),
        };
        let mut rest = content;
        while let Some((&octet, behind)) = rest.split_first() {
            rest = behind;
            let digit = |at: usize| behind.get(at).and_then(|it| char::from(*it).to_digit(16));
            match (octet, digit(0), digit(1)) {
                (b'=', Some(high), Some(low)) => {
                    // Two hexadecimal digits are an octet.
                    out.push((high * 16 + low) as u8);
                    rest = behind.get(2..).unwrap_or_default();
                }
                _ => out.push(octet),
            }
        }
        if !soft && line.ends_with(b"\n") {
            out.extend_from_slice(b"\n");
        }
    }
    out
}

/// Octets of a charset as characters; what is none becomes U+FFFD. `None`: a charset we don't know.
fn characters(octets: &[u8], charset: &str) -> Option<String> {
    let text = match charset.to_ascii_lowercase().as_str() {
        "utf-8" | "utf8" | "us-ascii" | "ascii" | "" => {
            let octets = octets.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(octets);
            String::from_utf8_lossy(octets).into_owned()
        }
        "iso-8859-1" | "latin1" | "iso8859-1" | "windows-1252" | "cp1252" => {
            octets.iter().copied().map(western).collect()
        }
        "utf-16" | "unicode" => utf_16(octets, None),
        "utf-16le" => utf_16(octets, Some(false)),
        "utf-16be" => utf_16(octets, Some(true)),
        _ => return None,
    };
    Some(text)
}

/// RFC 2781: by its mark; without one by where the zeros are, as Microsoft writes little-endian.
pub(super) fn utf_16(octets: &[u8], big: Option<bool>) -> String {
    let (octets, marked) = match octets {
        [0xFF, 0xFE, rest @ ..] => (rest, Some(false)),
        [0xFE, 0xFF, rest @ ..] => (rest, Some(true)),
        _ => (octets, None),
    };
    let guessed = || matches!(octets, [0, second, ..] if *second != 0);
    let big = marked.or(big).unwrap_or_else(guessed);
    let units = octets.chunks(2).map(|it| match (it, big) {
        ([a, b], true) => u16::from_be_bytes([*a, *b]),
        ([a, b], false) => u16::from_le_bytes([*a, *b]),
        _ => 0xFFFD,
    });
    char::decode_utf16(units).map(|it| it.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// Windows-1252, which is what is meant by Latin-1 too.
pub(super) fn western(octet: u8) -> char {
    const HIGH: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8D}', 'Ž',
        '\u{8F}', '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9D}',
        'ž', 'Ÿ',
    ];
    match octet {
        0x80..=0x9F => HIGH.get(usize::from(octet - 0x80)).copied().unwrap_or('?'),
        _ => char::from(octet),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_with_and_without_quotes() {
        let value = r#"text/plain; a ; charset="UTF-8"; x=";\"y"; msgr=WABQ; boundary = "a b""#;
        assert_eq!(param(value, "charset").as_deref(), Some("UTF-8"));
        assert_eq!(param(value, "X").as_deref(), Some(";\"y"));
        assert_eq!(param(value, "msgr").as_deref(), Some("WABQ"));
        assert_eq!(param(value, "boundary").as_deref(), Some("a b"));
        assert_eq!(param(value, "none"), None);
        for odd in ["text/plain", "", ";", ";=", ";a", ";a=\"", ";a=\"\\", "x;;;a;b=c;"] {
            param(odd, "charset");
        }
        assert_eq!(param("x;;;a;b=c;", "b").as_deref(), Some("c"));
    }

    #[test]
    fn parts_lie_between_their_delimiters() {
        let part = |octets| Part {
            media: "multipart/mixed; boundary=b",
            encoding: "",
            attached: false,
            octets,
        };
        let text = b"preamble --b\r\n--b\r\nContent-Type: text/html;\r\n charset=utf-8\r\n\r\none\r\n--bc\r\n\
            --b  \r\n\r\ntwo\n--b\nContent-Disposition: attachment\n\nthree\r\n--b--\r\nepilogue";
        let all: Vec<_> = part(text).parts().collect();
        let octets: Vec<_> = all.iter().map(|it| it.octets).collect();
        assert_eq!(octets, [&b"one\r\n--bc"[..], b"two", b"three"]);
        assert_eq!(param(all[0].media, "charset").as_deref(), Some("utf-8"));
        assert_eq!((all[0].kind(), all[1].kind()), ("text/html", "text/plain"));
        assert!(all[2].attached && !all[1].attached);
        // The end is missing, or all is.
        assert_eq!(
            part(b"--b\r\n\r\none").parts().map(|it| it.octets).collect::<Vec<_>>(),
            [b"one"]
        );
        assert_eq!(part(b"--b--").parts().count(), 0);
        assert_eq!(part(b"").parts().count(), 0);
    }

    #[test]
    fn encodings_and_charsets() {
        let text =
            |media, encoding, octets| Part { media, encoding, attached: false, octets }.text();
        let plain = "text/plain";
        assert_eq!(text(plain, "", "ü".as_bytes()).unwrap(), "ü");
        assert_eq!(text(plain, "BASE64", b"w7w\r\n").unwrap(), "ü");
        assert_eq!(text(plain, "base64", b"w7w=\r\n").unwrap(), "ü");
        assert_eq!(text(plain, "base64", b"w"), None);
        assert_eq!(
            text(plain, "Quoted-Printable", b"a=C3=BC=\r\nb =\n=zz=\r\n").unwrap(),
            "aüb =zz"
        );
        assert_eq!(text(plain, "quoted-printable", b"a  \r\nb").unwrap(), "a\nb");
        assert_eq!(text(plain, "x-uuencode", b"a"), None);
        assert_eq!(text("text/plain; charset=iso-8859-1", "", b"\xFC\x80").unwrap(), "ü€");
        assert_eq!(text("text/plain; charset=utf-16", "", b"\xFF\xFE\xFC\x00").unwrap(), "ü");
        assert_eq!(text("text/plain; charset=UTF-16", "", b"a\0b\0").unwrap(), "ab");
        assert_eq!(text("text/plain; charset=UTF-16", "", b"\0a\0b").unwrap(), "ab");
        assert_eq!(
            text("text/plain; charset=utf-16be", "", b"\xD8\x3D\xDE\x00\xD8\x00").unwrap(),
            "😀\u{FFFD}"
        );
        assert_eq!(text("text/plain; charset=koi8-r", "", b"a"), None);
        assert_eq!(text("text/plain", "", b"\xFFa").unwrap(), "\u{FFFD}a");
    }
}
