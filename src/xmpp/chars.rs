//! The alphabet of an XMPP stream: which octets may stand where, and how far a run of them goes.
//!
//! Everything here looks at octets only; what an element means is `scan`'s. XML 1.0, 2.2 (Char), 2.3
//! (Name), 4.1 (references); UTF-8 as RFC 3629, 4 defines it. Plain runs are taken eight octets at a
//! time, in ordinary integers. Names may use letters that both the fourth and the fifth edition of
//! XML 1.0 know, since the next parser may follow either; other names are **not** accepted.

use crate::xmpp::fault::StreamFault;

/// Why a scan did not come to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// What is there is right so far, and more must come.
    Incomplete,
    /// What is there earns this stream error.
    Fault(StreamFault),
}

impl From<StreamFault> for Stop {
    fn from(fault: StreamFault) -> Self {
        Self::Fault(fault)
    }
}

/// May begin a name.
const START: u8 = 1;
/// May go on in a name.
const NAME: u8 = 2;
/// White space of XML 1.0, 2.3.
const BLANK: u8 = 4;
/// May stand in a namespace name: the characters of a URI (RFC 3986, 2).
const URI: u8 = 8;

static CLASS: [u8; 256] = classes();

#[expect(clippy::indexing_slicing, reason = "runs while compiling, where a slip is an error")]
const fn classes() -> [u8; 256] {
    let mut table = [0_u8; 256];
    let mut i = 0_usize;
    while i < 128 {
        let b = i as u8;
        let mut class = 0;
        if b.is_ascii_alphabetic() || b == b'_' {
            class |= START | NAME;
        }
        if b.is_ascii_digit() || b == b'-' || b == b'.' {
            class |= NAME;
        }
        if matches!(b, b' ' | b'\t' | b'\r' | b'\n') {
            class |= BLANK;
        }
        if b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b':'
                    | b'/'
                    | b'?'
                    | b'#'
                    | b'@'
                    | b'!'
                    | b'$'
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
            )
        {
            class |= URI;
        }
        table[i] = class;
        i += 1;
    }
    table
}

#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "an octet cannot leave a table of 256 entries")]
fn class(octet: u8) -> u8 {
    CLASS[octet as usize]
}

/// True for space, tab, carriage return and line feed.
#[inline(always)]
pub(crate) fn is_blank(octet: u8) -> bool {
    class(octet) & BLANK != 0
}

/// True for what may stand in a name, so also for a colon and whatever is not ASCII.
#[inline(always)]
pub(crate) fn is_name(octet: u8) -> bool {
    class(octet) & NAME != 0 || octet == b':' || octet >= 0x80
}

/// True for what may stand in a URI (RFC 3986, 2), without escapes and apostrophes.
pub(crate) fn is_uri(octet: u8) -> bool {
    class(octet) & URI != 0
}

/// Where a run of blanks beginning at `at` ends.
#[inline(always)]
pub(crate) fn blanks(buf: &[u8], mut at: usize) -> usize {
    while buf.get(at).is_some_and(|b| is_blank(*b)) {
        at += 1;
    }
    at
}

/// A qualified name: where it ends, and where its colon is (0: it has none).
#[derive(Clone, Copy)]
pub(crate) struct Name {
    pub(crate) end: usize,
    pub(crate) colon: usize,
}

/// Reads the qualified name that begins at `at`.
#[inline(always)]
pub(crate) fn name(buf: &[u8], at: usize) -> Result<Name, Stop> {
    let Some(&first) = buf.get(at) else { return Err(Stop::Incomplete) };
    if class(first) & START == 0 {
        return name_beyond_ascii(buf, at);
    }
    let mut end = at + 1;
    loop {
        let Some(&b) = buf.get(end) else { return Err(Stop::Incomplete) };
        if class(b) & NAME == 0 {
            if b == b':' || b >= 0x80 {
                return name_beyond_ascii(buf, at);
            }
            return Ok(Name { end, colon: 0 });
        }
        end += 1;
    }
}

/// The same with colons and letters beyond ASCII.
#[cold]
fn name_beyond_ascii(buf: &[u8], at: usize) -> Result<Name, Stop> {
    let (mut end, mut colon, mut part) = (at, 0, at);
    loop {
        let Some(&b) = buf.get(end) else { return Err(Stop::Incomplete) };
        if class(b) & START != 0 || (class(b) & NAME != 0 && end > part) {
            end += 1;
        } else if b == b':' && end > part {
            // Namespaces in XML 1.0, 4: one colon, with a name on either side.
            if colon != 0 {
                return Err(StreamFault::NotWellFormed.into());
            }
            colon = end;
            end += 1;
            part = end;
        } else if b >= 0x80 {
            let (code, len) = character(buf, end)?;
            if !is_letter(code) {
                return Err(StreamFault::NotWellFormed.into());
            }
            end += len;
        } else if end > part {
            return Ok(Name { end, colon });
        } else {
            return Err(StreamFault::NotWellFormed.into());
        }
    }
}

/// Letters beyond ASCII that may begin a name in both editions of XML 1.0 in use.
fn is_letter(code: u32) -> bool {
    matches!(code,
        0xC0..=0xD6 | 0xD8..=0xF6 | 0xF8..=0x131 | 0x134..=0x13E | 0x141..=0x148 | 0x14A..=0x17E
        | 0x388..=0x38A | 0x38E..=0x3A1 | 0x3A3..=0x3CE | 0x401..=0x40C | 0x40E..=0x44F
        | 0x451..=0x45C | 0x5D0..=0x5EA | 0x621..=0x63A | 0x641..=0x64A | 0x905..=0x939
        | 0x3041..=0x3094 | 0x30A1..=0x30FA | 0x4E00..=0x9FA5 | 0xAC00..=0xD7A3)
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Octets that end a plain run, besides control characters and whatever is not ASCII.
///
/// Two that differ in one bit are found by one comparison with that bit left out.
#[derive(Clone, Copy)]
struct Marks {
    /// One of the first two.
    pair: u8,
    /// All bits but the one they differ in.
    mask: u8,
    /// The third.
    third: u8,
}

/// `<`, `>` and `&`.
const TEXT: Marks = Marks { pair: b'<', mask: !(b'<' ^ b'>'), third: b'&' };

impl Marks {
    /// `&`, the quote and `<`.
    #[inline(always)]
    const fn value(quote: u8) -> Self {
        Self { pair: quote & b'&', mask: !(quote ^ b'&'), third: b'<' }
    }

    /// Whether the octet ends a plain run.
    #[inline(always)]
    fn stops(self, b: u8) -> bool {
        !(0x20..0x80).contains(&b) || b & self.mask == self.pair & self.mask || b == self.third
    }

    /// Whether one of so many octets ends a plain run: no branch, so the compiler makes vectors of it.
    #[inline(always)]
    fn stop_any(self, block: &[u8; WIDE]) -> bool {
        let pair = self.pair & self.mask;
        let mut any = false;
        for &b in block {
            // As a signed number whatever is not ASCII is below zero.
            any |= ((b as i8) < 0x20) | (b & self.mask == pair) | (b == self.third);
        }
        any
    }

    /// The high bits of eight octets; the lowest one set is the first octet that ends the run.
    ///
    /// A subtraction borrows from octets above one that is marked itself, and what it makes of octets
    /// beyond ASCII does not matter, since `word` marks them anyway.
    #[inline(always)]
    const fn find(self, word: u64) -> u64 {
        let pair = (word & (ONES * self.mask as u64)) ^ (ONES * (self.pair & self.mask) as u64);
        let third = word ^ (ONES * self.third as u64);
        let control = word.wrapping_sub(ONES * 0x20);
        (pair.wrapping_sub(ONES) | third.wrapping_sub(ONES) | control | word) & HIGHS
    }
}

const _: () = assert!((b'<' ^ b'>').is_power_of_two());
const _: () = assert!((b'\'' ^ b'&').is_power_of_two() && (b'"' ^ b'&').is_power_of_two());

/// Octets of text that are looked at together.
const WIDE: usize = 32;

/// Whether none of these octets is a mark-up character, a control character or beyond ASCII: what it
/// is in XML is what it is.
#[inline]
pub(crate) fn is_literal(octets: &[u8]) -> bool {
    const QUOTED: Marks = Marks { pair: b'&', mask: !(b'&' ^ b'\''), third: b'"' };
    let hit = |word: u64| TEXT.find(word) | QUOTED.find(word);
    // The last eight overlap those before them. A short run is put together in a register: written
    // octet by octet and read as a word it would wait for every store before it.
    let last = match octets.last_chunk::<8>() {
        Some(last) => u64::from_le_bytes(*last),
        None => octets.iter().fold(ONES * u64::from(b'x'), |word, b| word << 8 | u64::from(*b)),
    };
    let (words, _) = octets.as_chunks::<8>();
    words.iter().fold(hit(last), |all, word| all | hit(u64::from_le_bytes(*word))) == 0
}

const _: () = assert!((b'&' ^ b'\'').is_power_of_two());

/// The next octet from `at` on that ends a plain run.
#[inline(always)]
fn plain(buf: &[u8], mut at: usize, marks: Marks) -> Result<(usize, u8), Stop> {
    let rest = buf.get(at..).unwrap_or_default();
    let (words, tail) = rest.as_chunks::<8>();
    for word in words {
        let hit = marks.find(u64::from_le_bytes(*word));
        if hit != 0 {
            at += (hit.trailing_zeros() / 8) as usize;
            return buf.get(at).map(|b| (at, *b)).ok_or(Stop::Incomplete);
        }
        at += 8;
    }
    for &b in tail {
        if marks.stops(b) {
            return Ok((at, b));
        }
        at += 1;
    }
    Err(Stop::Incomplete)
}

/// Where the attribute value that begins at `at`, behind its quote, ends.
#[inline(always)]
pub(crate) fn value(buf: &[u8], mut at: usize, quote: u8) -> Result<usize, Stop> {
    loop {
        let (stop, b) = plain(buf, at, Marks::value(quote))?;
        if b == quote {
            return Ok(stop);
        }
        at = odd(buf, stop, b)?;
    }
}

/// Where character data that begins at `at` ends: at the next `<`.
#[inline(always)]
pub(crate) fn text(buf: &[u8], mut at: usize) -> Result<usize, Stop> {
    loop {
        let (blocks, _) = buf.get(at..).unwrap_or_default().as_chunks::<WIDE>();
        at += WIDE * blocks.iter().take_while(|it| !TEXT.stop_any(it)).count();
        let (stop, b) = plain(buf, at, TEXT)?;
        if b == b'<' {
            return Ok(stop);
        }
        at = if b == b'>' { greater(buf, stop)? } else { odd(buf, stop, b)? };
    }
}

/// Passes a `>` in text. XML 1.0, 2.4: `]]>` must not stand there.
///
/// Before the text is the `>` of a tag or a section, so what is looked at belongs to it.
#[cold]
fn greater(buf: &[u8], at: usize) -> Result<usize, Stop> {
    if buf.get(at.saturating_sub(2)..at) == Some(b"]]") {
        return Err(StreamFault::NotWellFormed.into());
    }
    Ok(at + 1)
}

/// Passes one thing that is not plain: a reference, a blank below 0x20, a character beyond ASCII.
fn odd(buf: &[u8], at: usize, octet: u8) -> Result<usize, Stop> {
    match octet {
        b'&' => reference(buf, at),
        b'\t' | b'\r' | b'\n' => Ok(at + 1),
        0x80.. => characters(buf, at),
        _ => Err(StreamFault::NotWellFormed.into()),
    }
}

/// Passes a run of characters beyond ASCII.
fn characters(buf: &[u8], mut at: usize) -> Result<usize, Stop> {
    while buf.get(at).is_some_and(|b| *b >= 0x80) {
        at += character(buf, at)?.1;
    }
    Ok(at)
}

/// The code point beyond ASCII that begins at `at`, and how many octets it takes.
fn character(buf: &[u8], at: usize) -> Result<(u32, usize), Stop> {
    // RFC 6120, 11.6: what is not UTF-8 is an encoding we do not support.
    const BAD: Stop = Stop::Fault(StreamFault::UnsupportedEncoding);
    let next = |n: usize, low: u8, high: u8| match buf.get(at + n) {
        None => Err(Stop::Incomplete),
        Some(b) if (low..=high).contains(b) => Ok(u32::from(*b & 0x3F)),
        Some(_) => Err(BAD),
    };
    let Some(&lead) = buf.get(at) else { return Err(Stop::Incomplete) };
    // RFC 3629, 4: the second octet's range shuts out overlong forms, surrogates and what is
    // beyond U+10FFFF.
    let (code, len) = match lead {
        0xC2..=0xDF => (u32::from(lead & 0x1F) << 6 | next(1, 0x80, 0xBF)?, 2),
        0xE0..=0xEF => {
            let low = if lead == 0xE0 { 0xA0 } else { 0x80 };
            let high = if lead == 0xED { 0x9F } else { 0xBF };
            let second = next(1, low, high)?;
            (u32::from(lead & 0x0F) << 12 | second << 6 | next(2, 0x80, 0xBF)?, 3)
        }
        0xF0..=0xF4 => {
            let low = if lead == 0xF0 { 0x90 } else { 0x80 };
            let high = if lead == 0xF4 { 0x8F } else { 0xBF };
            let (second, third) = (next(1, low, high)?, next(2, 0x80, 0xBF)?);
            (u32::from(lead & 0x07) << 18 | second << 12 | third << 6 | next(3, 0x80, 0xBF)?, 4)
        }
        _ => return Err(BAD),
    };
    if is_char(code) { Ok((code, len)) } else { Err(StreamFault::NotWellFormed.into()) }
}

/// XML 1.0, 2.2: the characters a document may hold.
pub(crate) fn is_char(code: u32) -> bool {
    matches!(code, 0x9 | 0xA | 0xD | 0x20..=0xD7FF | 0xE000..=0xFFFD | 0x1_0000..=0x10_FFFF)
}

/// Octets a reference may take between `&` and `;`: `&#x0010FFFF;` and then some.
const REFERENCE_OCTETS: usize = 12;

/// Passes the reference that begins at `at`.
#[cold]
fn reference(buf: &[u8], at: usize) -> Result<usize, Stop> {
    let rest = buf.get(at + 1..).unwrap_or_default();
    let head = rest.get(..=REFERENCE_OCTETS).unwrap_or(rest);
    let Some(len) = head.iter().position(|b| *b == b';') else {
        // A name that ends without a semicolon will not get better with more octets.
        let odd = head.iter().any(|b| !is_name(*b) && *b != b'#');
        return Err(match odd || head.len() > REFERENCE_OCTETS {
            true => StreamFault::NotWellFormed.into(),
            false => Stop::Incomplete,
        });
    };
    let body = head.get(..len).unwrap_or_default();
    match body {
        b"lt" | b"gt" | b"amp" | b"apos" | b"quot" => {}
        [b'#', number @ ..] => {
            if !code_of(number).is_some_and(is_char) {
                return Err(StreamFault::NotWellFormed.into());
            }
        }
        // RFC 6120, 11.1: entities other than the five.
        [first, rest @ ..] if class(*first) & START != 0 && rest.iter().all(|b| is_name(*b)) => {
            return Err(StreamFault::RestrictedXml.into());
        }
        _ => return Err(StreamFault::NotWellFormed.into()),
    }
    Ok(at + 1 + len + 1)
}

/// The number in a character reference, behind its `#`.
pub(crate) fn code_of(number: &[u8]) -> Option<u32> {
    let (digits, radix) = match number {
        [b'x', hex @ ..] => (hex, 16),
        decimal => (decimal, 10),
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |code, b| {
        let digit = char::from(*b).to_digit(radix)?;
        code.checked_mul(radix)?.checked_add(digit)
    })
}

/// Where the CDATA section whose content begins at `at` ends, behind its `]]>`.
pub(crate) fn cdata(buf: &[u8], mut at: usize) -> Result<usize, Stop> {
    loop {
        let Some(&b) = buf.get(at) else { return Err(Stop::Incomplete) };
        match b {
            b']' => match (buf.get(at + 1), buf.get(at + 2)) {
                (Some(b']'), Some(b'>')) => return Ok(at + 3),
                (None, _) | (Some(b']'), None) => return Err(Stop::Incomplete),
                _ => at += 1,
            },
            b'\t' | b'\r' | b'\n' | 0x20..=0x7F => at += 1,
            0x80.. => at = characters(buf, at)?,
            _ => return Err(StreamFault::NotWellFormed.into()),
        }
    }
}
