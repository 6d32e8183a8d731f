//! The mark that travels in a message's text, since only text survives a gateway.
//!
//! `tl1 FLOW SEQ NS CHECK `, all hexadecimal and of fixed width, so that a sender patches it in
//! place. The check covers the three numbers: a mark that doesn't agree with itself was corrupted.

/// Bytes of a mark, the closing blank included.
pub const LEN: usize = 4 + 9 + 9 + 17 + 9;

/// Who sent it, the how-manieth it is, and when it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The sender's number.
    pub flow: u32,
    /// Counts from 0 for each flow.
    pub seq: u32,
    /// Nanoseconds since the generator began; the intended time in an open loop.
    pub at_ns: u64,
}

impl Mark {
    /// Writes the mark over the first [`LEN`] bytes.
    pub fn write(self, text: &mut [u8]) {
        text[..4].copy_from_slice(b"tl1 ");
        hex(u64::from(self.flow), &mut text[4..12]);
        text[12] = b' ';
        hex(u64::from(self.seq), &mut text[13..21]);
        text[21] = b' ';
        hex(self.at_ns, &mut text[22..38]);
        text[38] = b' ';
        hex(u64::from(self.check()), &mut text[39..47]);
        text[47] = b' ';
    }

    /// Reads a mark that begins at the first byte; `None` if it is not one or is corrupt.
    pub fn read(text: &[u8]) -> Option<Self> {
        let text = text.get(..LEN)?;
        if &text[..4] != b"tl1 " {
            return None;
        }
        let mark = Self {
            flow: u32::try_from(unhex(&text[4..12])?).ok()?,
            seq: u32::try_from(unhex(&text[13..21])?).ok()?,
            at_ns: unhex(&text[22..38])?,
        };
        (unhex(&text[39..47])? == u64::from(mark.check())).then_some(mark)
    }

    fn check(self) -> u32 {
        let mixed = (u64::from(self.flow) << 32 | u64::from(self.seq)) ^ self.at_ns.rotate_left(17);
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
    }
}

/// Octets of a mark and the time of its sending behind it, the closing blank included.
pub const TEXT_MIN: usize = LEN + 17;

/// Appends a text of `octets` (at least [`TEXT_MIN`]): mark, time of sending, blank, padding.
pub fn put(mark: Mark, sent_ns: u64, octets: usize, out: &mut Vec<u8>) {
    let mut head = [b' '; TEXT_MIN];
    mark.write(&mut head);
    hex(sent_ns, &mut head[LEN..LEN + 16]);
    out.extend_from_slice(&head);
    out.resize(out.len() + octets.saturating_sub(TEXT_MIN), b'x');
}

/// Reads what [`put`] wrote: the mark, and the time of sending, zero if there is none.
pub fn take(text: &[u8]) -> Option<(Mark, u64)> {
    let mark = Mark::read(text)?;
    let sent_ns = text.get(LEN..LEN + 16).and_then(unhex).unwrap_or(0);
    Some((mark, sent_ns))
}

fn hex(mut value: u64, out: &mut [u8]) {
    for byte in out.iter_mut().rev() {
        *byte = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

fn unhex(text: &[u8]) -> Option<u64> {
    let mut value = 0;
    for &byte in text {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        value = value << 4 | u64::from(digit);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_its_size_and_both_times() {
        let mark = Mark { flow: 1, seq: 2, at_ns: 3 };
        let mut text = b"<body>".to_vec();
        put(mark, 4, 100, &mut text);
        assert_eq!(text.len(), 106);
        assert_eq!(take(&text[6..]), Some((mark, 4)));
        assert_eq!(take(&text[6..6 + LEN]), Some((mark, 0)));
        assert_eq!(take(&text[..60]), None);
    }

    #[test]
    fn a_mark_comes_back_and_a_changed_one_does_not() {
        let mark = Mark { flow: 7, seq: 0xfff, at_ns: 123_456_789_012 };
        let mut text = [b'x'; LEN + 4];
        mark.write(&mut text);
        assert_eq!(Mark::read(&text), Some(mark));
        for at in 0..LEN - 1 {
            if matches!(at, 12 | 21 | 38) {
                continue;
            }
            let mut bad = text;
            bad[at] = if bad[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(Mark::read(&bad), None, "byte {at}");
        }
        assert_eq!(Mark::read(&text[..LEN - 1]), None);
    }
}
