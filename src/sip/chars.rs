//! Classes of octets, and how values are cut (RFC 3261, 25.1).
//!
//! Values may be folded (RFC 3261, 7.3.1), so CR and LF count as blanks here. A value is **not**
//! promised to be UTF-8.

use std::borrow::Cow;

/// Whether an octet may stand in a token.
pub(super) fn is_token(octet: u8) -> bool {
    TOKEN.get(usize::from(octet)).is_some_and(|it| *it)
}

/// Whether all of it is one token.
pub(super) fn token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|it| is_token(*it))
}

/// Blanks between words, folds included.
pub(super) const fn is_blank(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r' | b'\n')
}

/// Without blanks at both ends.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    trim_end(trim_start(text))
}

/// Without blanks before it.
pub(super) fn trim_start(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_blank(*first)
    {
        text = rest;
    }
    text
}

fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., last] = text
        && is_blank(*last)
    {
        text = rest;
    }
    text
}

/// The value as one line (RFC 3261, 7.3.1: a fold is worth one space).
pub fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'\r', b'\n', value).is_none() {
        return Cow::Borrowed(value);
    }
    let mut line = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        let (before, after) = rest.split_at(at);
        line.extend_from_slice(trim_end(before));
        line.push(b' ');
        rest = trim_start(after);
    }
    line.extend_from_slice(rest);
    Cow::Owned(line)
}

/// All but the first `count` octets.
pub(super) fn skip(text: &[u8], count: usize) -> &[u8] {
    text.get(count..).unwrap_or_default()
}

/// What stands before an octet and behind it.
pub(super) fn split_once(text: &[u8], octet: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(octet, text)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Where a header's name ends: at the first colon. Names are short, so eight octets are looked at together
/// and no search begins that would cost more than it finds.
pub(super) fn colon(line: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    let (mut rest, mut at) = (line, 0);
    while let Some((eight, behind)) = rest.split_first_chunk() {
        // The lowest octet that is a colon has its highest bit set in this, and none below it has.
        let other = u64::from_le_bytes(*eight) ^ u64::from_le_bytes([b':'; 8]);
        let found = other.wrapping_sub(ONES) & !other & HIGH;
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        (rest, at) = (behind, at + 8);
    }
    rest.iter().position(|it| *it == b':').map(|it| at + it)
}

/// Where the quoted string that begins here ends, its closing quote included.
pub(super) fn quoted_end(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text.get(at) == Some(&b'"') {
            return Some(at + 1);
        }
        // RFC 3261, 25.1: quoted-pair, whatever octet follows.
        at += 2;
    }
}

/// What stands before the first `stop` outside quotes and angle brackets, and behind it.
///
/// A quote that is never closed reaches to the end, and so does a bracket.
pub(super) fn cut(text: &[u8], stop: u8) -> (&[u8], Option<&[u8]>) {
    let mut at = 0;
    while let Some(found) = memchr::memchr3(stop, b'"', b'<', skip(text, at)) {
        at += found;
        let rest = skip(text, at);
        let length = match rest.first() {
            Some(b'"') => quoted_end(rest),
            Some(b'<') => memchr::memchr(b'>', rest).map(|it| it + 1),
            _ => return (text.get(..at).unwrap_or_default(), Some(skip(rest, 1))),
        };
        match length {
            Some(length) => at += length,
            None => break,
        }
    }
    (text, None)
}

/// A number in decimal digits only; one that is too large becomes the largest.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(sum.saturating_mul(10).saturating_add(digit))
    })
}

/// Whether an octet may stand in a host's name.
pub(super) fn is_host(octet: u8) -> bool {
    matches!(octet, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_')
}

/// Whether an octet may stand in a value without quotes, where `;` ends it.
pub(super) fn is_plain(octet: u8) -> bool {
    PLAIN.get(usize::from(octet)).is_some_and(|it| *it)
}

const PLAIN: [bool; 256] = {
    let mut table = [true; 256];
    let mut octet = 0;
    while octet <= b' ' as usize {
        #[expect(clippy::indexing_slicing, reason = "at compile time")]
        {
            table[octet] = false;
        }
        octet += 1;
    }
    #[expect(clippy::indexing_slicing, reason = "at compile time")]
    {
        table[b'"' as usize] = false;
        table[b'<' as usize] = false;
        table[b'>' as usize] = false;
        table[b',' as usize] = false;
        table[b';' as usize] = false;
        table[0x7F] = false;
    }
    table
};

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut octet = 0_u8;
    while octet < 128 {
        #[expect(clippy::indexing_slicing, reason = "at compile time")]
        {
            table[octet as usize] = octet.is_ascii_alphanumeric()
                || matches!(
                    octet,
                    b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~'
                );
        }
        octet += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cut_outside_quotes_and_brackets() {
        let (first, rest) = cut(br#""a,\"b" <sip:c,d>;e="x,y", f"#, b',');
        assert_eq!(first, br#""a,\"b" <sip:c,d>;e="x,y""#);
        assert_eq!(rest, Some(&b" f"[..]));
        assert_eq!(cut(b"\"never closed, not cut", b','), (&b"\"never closed, not cut"[..], None));
    }

    #[test]
    fn the_first_colon_is_found_wherever_it_is() {
        for length in 0..40 {
            let mut line = vec![b'a'; length];
            assert_eq!(colon(&line), None);
            for at in (0..length).rev() {
                line[at] = b':';
                assert_eq!(colon(&line), Some(at), "{length}");
                line[at] = b';';
            }
        }
        assert_eq!(colon(b"abc;:::9:"), Some(4));
    }

    #[test]
    fn folds_become_one_space() {
        assert_eq!(&*unfold(b"a \r\n\t b\r\n c"), b"a b c");
        assert!(matches!(unfold(b"a b"), Cow::Borrowed(_)));
    }

    #[test]
    fn numbers_are_digits_and_saturate() {
        assert_eq!(number(b"0068"), Some(68));
        assert_eq!(number(b"99999999999999999999999"), Some(u64::MAX));
        assert_eq!((number(b""), number(b"-1"), number(b"1 ")), (None, None, None));
    }
}
