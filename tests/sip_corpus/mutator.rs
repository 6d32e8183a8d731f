//! Spoils SIP messages and values the same way for the same seed.

use std::collections::BTreeMap;

/// Pieces that make or break SIP.
const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\r\n ",
    b"\r\n\t",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"::",
    b":::",
    b";",
    b";;",
    b",",
    b"=",
    b"\"",
    b"\\",
    b"\\\"",
    b"<",
    b">",
    b"<>",
    b"@",
    b"?",
    b"&",
    b"/",
    b"[",
    b"]",
    b"[::1]",
    b"%",
    b"%00",
    b"%4",
    b"*",
    b"\xFF",
    b"\xC3\xA9",
    b"\x7F",
    b"-1",
    b"0",
    b"4294967296",
    b"99999999999999999999999999",
    b"SIP/2.0 200 OK",
    b" SIP/2.0",
    b"SIP/3.0",
    b"SIP/",
    b"sip:",
    b"sips:a@b",
    b"tel:",
    b";lr",
    b";tag=x",
    b";tag",
    b";branch=z9hG4bK",
    b";rport",
    b";received=",
    b"Via: SIP/2.0/UDP x;branch=z9hG4bK1\r\n",
    b"v:",
    b"l: 0\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length",
    b"From: <sip:a@b>\r\n",
    b"t: <sip:a@b>\r\n",
    b"CSeq: 1 INVITE\r\n",
    b"Contact: *\r\n",
    b"Max-Forwards: 256\r\n",
    b"INVITE",
    b"ACK",
    b"BENOTIFY",
    b"NOTIFY",
];

/// Always the same for the same seed.
pub(crate) struct Mutator {
    state: u64,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    /// Spoils these; the longest are used least, since they cost most.
    pub(crate) fn new(seed: u64, texts: impl Iterator<Item = Vec<u8>>) -> Self {
        let mut by_length = BTreeMap::<usize, Vec<Vec<u8>>>::new();
        for text in texts {
            by_length.entry(text.len() / 600).or_default().push(text);
        }
        let mut seeds = Vec::new();
        for (length, texts) in by_length {
            for _ in 0..(12 / (length + 1)).max(1) {
                seeds.extend(texts.iter().cloned());
            }
        }
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
        out.extend_from_slice(&self.seeds[seed]);
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
                let length = self.seeds[other].len();
                let from = self.below(length);
                let to = length.min(from + self.below(60));
                out.splice(at..end, self.seeds[other][from..to].iter().copied());
            }
            6 => {
                let token = TOKENS[self.below(TOKENS.len())];
                out.splice(at..end, token.iter().copied());
            }
            _ => {
                // Mostly where structure is: before or behind a mark.
                let marks = |b: &u8| matches!(*b, b'<' | b'>' | b':' | b';' | b'\r' | b'=' | b' ');
                let at = out[at..].iter().position(marks).map_or(at, |skip| at + skip);
                let at = (at + self.below(2)).min(out.len());
                let token = TOKENS[self.below(TOKENS.len())];
                out.splice(at..at, token.iter().copied());
            }
        }
    }
}
