//! Stanzas to test with, and a mutator that spoils them the same way for the same seed.
//!
//! `stanzas.txt` has one stanza a line that must pass; `refused.txt` one that must not, behind the
//! name of the stream error it earns.

use tandem::xmpp::{
    fault::StreamFault,
    frame::{Framer, Limits, Next},
    stanza::Stanza,
};

/// The header before every stanza of the corpus.
pub(crate) const HEADER: &str = "<stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback' version='1.0'>";

/// Stanzas that pass.
pub(crate) fn stanzas() -> Vec<&'static [u8]> {
    include_str!("stanzas.txt").lines().map(str::as_bytes).collect()
}

/// What must be refused, with the error's name.
pub(crate) fn refused() -> Vec<(&'static str, &'static [u8])> {
    include_str!("refused.txt")
        .lines()
        .map(|line| line.split_once('\t').expect("a name, a tab, a stanza"))
        .map(|(name, text)| (name, text.as_bytes()))
        .collect()
}

/// A framer that has seen `HEADER`.
pub(crate) fn open() -> Framer {
    let mut framer = Framer::default();
    let next = framer.next(HEADER.as_bytes(), &Limits::CLIENT);
    assert!(matches!(next, Ok(Next::Open(..))), "{next:?}");
    framer
}

/// What the framer makes of an element; none: it is incomplete, or no element.
pub(crate) fn judge(text: &[u8]) -> Result<Option<Stanza>, StreamFault> {
    Ok(match open_again().next(text, &Limits::CLIENT)? {
        Next::Element(stanza, _) => Some(stanza),
        _ => None,
    })
}

/// The same framer each time, without reading the header each time.
fn open_again() -> Framer {
    thread_local!(static FRAMER: Framer = open());
    FRAMER.with(|it| *it)
}

/// Pieces that make or break XML.
const TOKENS: &[&[u8]] = &[
    b"<",
    b">",
    b"/",
    b"/>",
    b"</",
    b"'",
    b"\"",
    b"=",
    b"&",
    b";",
    b":",
    b"]]>",
    b"]]",
    b"]",
    b"<![CDATA[",
    b"<!--",
    b"-->",
    b"<!DOCTYPE a>",
    b"<?x?>",
    b"&lt;",
    b"&#x0;",
    b"&#60;",
    b"&foo;",
    b"&#xD800;",
    b"&#x10FFFF;",
    b" ",
    b"\n",
    b"\t",
    b"\r",
    b"\r\n",
    b"\0",
    b"\x0B",
    b"\x7F",
    b"xmlns",
    b" xmlns='u'",
    b" xmlns=''",
    b" xmlns:p='u'",
    b" xmlns:q='u'",
    b" p:a='1'",
    b" q:a='1'",
    b" a='1'",
    b"<p:a/>",
    b"p:",
    b"stream:",
    b"db:",
    b"xml:",
    b"<a>",
    b"</a>",
    b"<a/>",
    b" xmlns='jabber:client'",
    b" xmlns='jabber:server'",
    b" xmlns:c='jabber:client'",
    b"c:",
    b" xml:lang='x'",
    b"message",
    b"body",
    b"</body>",
    b"</message>",
    b"<body>",
    b"\xC3\xA9",
    b"\xC2\x80",
    b"\xE2\x82\xAC",
    b"\xF0\x9F\x98\x80",
    b"\xEF\xBF\xBE",
    b"\xEF\xBF\xBD",
    b"\xED\xA0\x80",
    b"\xC0\xAF",
    b"\xE0\x80\xAF",
    b"\xF4\x90\x80\x80",
    b"\x80",
    b"\xFF",
    b"\xC3",
    b"\xE2\x82",
    b"\xEF\xBB\xBF",
    b"\xCC\x81",
    b"\xC2\xB7",
    b"\xE1\xB8\x80",
    b"\xD7\x90",
    b"_",
    b"-",
    b".",
    b"7",
];

/// Spoils stanzas of the corpus.
pub(crate) struct Mutator {
    state: u64,
    seeds: Vec<&'static [u8]>,
}

impl Mutator {
    /// Always the same for the same seed.
    pub(crate) fn new(seed: u64) -> Self {
        // What passes, a few times over, since most of it is spoilt anyway.
        let mut seeds = stanzas().repeat(5);
        seeds.extend(refused().into_iter().map(|it| it.1));
        Self { state: seed | 1, seeds }
    }

    /// A number below `bound`, by xorshift.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        ((self.state >> 16) % bound.max(1) as u64) as usize
    }

    /// Writes the next input to `out`.
    pub(crate) fn next(&mut self, out: &mut Vec<u8>) {
        out.clear();
        let seed = self.below(self.seeds.len());
        out.extend_from_slice(self.seeds[seed]);
        for _ in 0..=self.below(4) / 2 {
            self.spoil(out);
        }
    }

    fn spoil(&mut self, out: &mut Vec<u8>) {
        let at = self.below(out.len());
        let end = out.len().min(at + 1 + self.below(12));
        match self.below(10) {
            0 if at < out.len() => out[at] ^= 1 << self.below(8),
            1 if at < out.len() => out[at] = self.below(256) as u8,
            2 => drop(out.drain(at..end)),
            3 => out.truncate(at),
            4 => {
                let piece = out[at..end].to_vec();
                let to = self.below(out.len());
                out.splice(to..to, piece);
            }
            5 => {
                let other = self.below(self.seeds.len());
                let other = self.seeds[other];
                let from = self.below(other.len());
                let to = other.len().min(from + self.below(40));
                out.splice(at..end, other[from..to].iter().copied());
            }
            6 => {
                let token = TOKENS[self.below(TOKENS.len())];
                out.splice(at..end, token.iter().copied());
            }
            _ => {
                // Mostly where structure is: before or behind a mark.
                let marks = |b: &u8| matches!(*b, b'<' | b'>' | b'/' | b'\'' | b' ' | b'=');
                let at = out[at..].iter().position(marks).map_or(at, |skip| at + skip);
                let at = (at + self.below(2)).min(out.len());
                let token = TOKENS[self.below(TOKENS.len())];
                out.splice(at..at, token.iter().copied());
            }
        }
    }
}
