//! What goes where in the relay of a packet pattern: SIP's messages and their acknowledgements, in size
//! and number, without SIP or XMPP.
//!
//! On one side all sessions share a few lines, on the other each has its own connection. Frames have
//! fixed sizes and begin with 48 octets, of which those from the fourth on are the session's number;
//! these 48 are passed on, the rest is filler of the size that was told. Nothing is kept of a message.

use tandem_loadgen::mark::LEN;

/// Octets of each of the four packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    request: usize,
    pass: usize,
    ack: usize,
    answer: usize,
}

impl Sizes {
    /// From the command line.
    pub(super) fn of(sizes: &[usize]) -> Option<Self> {
        let &[request, pass, ack, answer] = sizes else { return None };
        Some(Self { request: request.max(LEN), pass: pass.max(LEN), ack: ack.max(1), answer })
    }
}

/// Where a connection was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Shared by sessions.
    Line,
    /// One session's.
    Own,
}

struct End {
    side: Side,
    /// In the order of its side.
    number: usize,
    held: Vec<u8>,
    out: Vec<u8>,
    dirty: bool,
}

/// All connections, without their sockets.
pub(super) struct Pattern {
    sizes: Sizes,
    /// Whether the own connections ask.
    back: bool,
    ends: Vec<End>,
    lines: Vec<usize>,
    owns: Vec<usize>,
    /// Connections that have something to send.
    pub(super) dirty: Vec<usize>,
    pass: Vec<u8>,
    answer: Vec<u8>,
}

impl Pattern {
    pub(super) fn new(sizes: Sizes, back: bool) -> Self {
        let ack = if back { sizes.ack.max(LEN) } else { sizes.ack };
        let answer = if back { 0 } else { sizes.answer.max(LEN) };
        Self {
            sizes: Sizes { ack, answer, ..sizes },
            back,
            ends: Vec::new(),
            lines: Vec::new(),
            owns: Vec::new(),
            dirty: Vec::new(),
            pass: vec![b'x'; sizes.pass],
            answer: vec![b'x'; answer],
        }
    }

    /// The next connection.
    pub(super) fn enter(&mut self, side: Side) {
        let of_side = if side == Side::Line { &mut self.lines } else { &mut self.owns };
        of_side.push(self.ends.len());
        let number = of_side.len() - 1;
        self.ends.push(End { side, number, held: Vec::new(), out: Vec::new(), dirty: false });
    }

    /// What waits to be sent on a connection; it is dirty no longer.
    pub(super) fn take_out(&mut self, at: usize, into: &mut Vec<u8>) {
        let end = &mut self.ends[at];
        end.dirty = false;
        if into.is_empty() {
            std::mem::swap(&mut end.out, into);
        } else {
            into.append(&mut end.out);
        }
    }

    /// Takes what came on a connection.
    pub(super) fn take(&mut self, at: usize, bytes: &[u8]) {
        let size = match (self.ends[at].side == Side::Own, self.back) {
            (true, true) | (false, false) => self.sizes.request,
            _ => self.sizes.ack,
        };
        let mut held = std::mem::take(&mut self.ends[at].held);
        let mut bytes = bytes;
        if !held.is_empty() {
            let wanted = (size - held.len()).min(bytes.len());
            let (head, rest) = bytes.split_at(wanted);
            held.extend_from_slice(head);
            bytes = rest;
            if held.len() == size {
                self.frame(at, &held);
                held.clear();
            }
        }
        let frames = bytes.chunks_exact(size);
        held.extend_from_slice(frames.remainder());
        frames.for_each(|frame| self.frame(at, frame));
        self.ends[at].held = held;
    }

    fn frame(&mut self, at: usize, frame: &[u8]) {
        let end = &self.ends[at];
        match (end.side, self.back) {
            (Side::Line, false) => {
                let Some(&to) = session(frame).and_then(|it| self.owns.get(it)) else { return };
                self.pass[..LEN].copy_from_slice(&frame[..LEN]);
                self.send(to, false);
            }
            (Side::Own, true) => {
                let to = self.lines[end.number % self.lines.len().max(1)];
                self.pass[..LEN].copy_from_slice(&frame[..LEN]);
                self.send(to, false);
            }
            (Side::Own, false) => {
                let mut number = end.number;
                let to = self.lines[number % self.lines.len().max(1)];
                for byte in self.answer[4..12].iter_mut().rev() {
                    *byte = b"0123456789abcdef"[number & 15];
                    number >>= 4;
                }
                self.send(to, true);
            }
            // As the asker of a stanza hears nothing of its answer, so here.
            (Side::Line, true) => {}
        }
    }

    fn send(&mut self, to: usize, is_answer: bool) {
        let end = &mut self.ends[to];
        end.out.extend_from_slice(if is_answer { &self.answer } else { &self.pass });
        if !std::mem::replace(&mut end.dirty, true) {
            self.dirty.push(to);
        }
    }
}

fn session(frame: &[u8]) -> Option<usize> {
    frame.get(4..12)?.iter().try_fold(0, |sum, &byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | usize::from(digit))
    })
}
