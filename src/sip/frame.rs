//! Cuts streams and datagrams into messages (RFC 3261, 7.5, 18.3; RFC 5626, 4.4.1).
//!
//! On a stream Content-Length says where a message ends, so one that is missing, malformed or doubtful
//! ends the connection. Octets are looked at once, however they were cut. A lone LF ends **no** line.
//! Holds no octets: `buf` is the caller's, and begins at the first octet not yet consumed.

use crate::{
    limits,
    sip::{chars, fault::Fault, name::Name},
};

/// The place in a stream of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framer {
    /// Octets of the head that were looked at.
    seen: u32,
    /// Where the line begins that is being looked at.
    line: u32,
    /// Where the first Content-Length stands.
    at: u32,
    /// How many of them there are, three standing for more.
    lengths: u8,
    /// A CRLF was consumed: another one makes it a ping.
    half: bool,
    /// Head and length of the message whose rest is to come.
    found: Option<(u32, u32)>,
}

const _: () = assert!(size_of::<Framer>() <= 32, "idle connections hold one each");

/// How large a message may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets of the start line and the headers, the empty line included.
    pub head_octets_max: u32,
    /// Octets of the whole message.
    pub message_octets_max: u32,
}

impl Limits {
    /// Of any peer.
    pub const PEER: Self = Self {
        head_octets_max: limits::SIP_HEAD_BYTES_MAX as u32,
        message_octets_max: limits::SIP_MESSAGE_BYTES_MAX as u32,
    };
}

/// What stands next in the stream; the number is how many octets of `buf` it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing whole yet.
    Incomplete,
    /// A CRLF between messages: to be dropped.
    Blank(usize),
    /// A double CRLF (or more) between messages: to be answered with one CRLF.
    Ping(usize),
    /// A message of `length` octets, of which `head` are before its body.
    Message {
        /// Octets before the body.
        head: usize,
        /// Octets of all.
        length: usize,
    },
}

/// Why nothing more can be read: a stream ends after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameFault {
    /// What is wrong.
    pub fault: Fault,
    /// So many octets are a head from which an answer can be built, if it is a request's.
    pub head: Option<usize>,
}

impl Framer {
    /// What stands at the beginning of `buf`.
    ///
    /// After `Incomplete` the same octets are given again with more behind them.
    pub fn next(&mut self, buf: &[u8], limits: &Limits) -> Result<Next, FrameFault> {
        let (head, length) = match self.found {
            Some(found) => found,
            None => {
                if self.seen == 0
                    && let Some(next) = self.between(buf)?
                {
                    return Ok(next);
                }
                let Some(head) = self.head(buf, limits)? else { return Ok(Next::Incomplete) };
                let length = self.length(buf, head, limits)?;
                (head as u32, length)
            }
        };
        if buf.len() < length as usize {
            self.found = Some((head, length));
            return Ok(Next::Incomplete);
        }
        *self = Self::default();
        Ok(Next::Message { head: head as usize, length: length as usize })
    }

    /// Whether octets of an unfinished message were seen.
    pub const fn is_within(&self) -> bool {
        self.seen > 0 || self.found.is_some()
    }

    /// RFC 3261, 7.5: CRLFs before a start line are ignored. None: a message begins.
    fn between(&mut self, buf: &[u8]) -> Result<Option<Next>, FrameFault> {
        let pairs = buf.chunks_exact(2).take_while(|it| *it == b"\r\n").count();
        if pairs > 0 {
            let ping = self.half || pairs > 1;
            self.half = !ping;
            return Ok(Some(if ping { Next::Ping(2 * pairs) } else { Next::Blank(2 * pairs) }));
        }
        match buf {
            [] | [b'\r'] => Ok(Some(Next::Incomplete)),
            [first, ..] if chars::is_token(*first) => Ok(None),
            _ => Err(lost("Malformed Start Line")),
        }
    }

    /// Looks for the empty line, and for Content-Length on the way.
    fn head(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<usize>, FrameFault> {
        let most = limits.head_octets_max as usize;
        let from = self.seen as usize;
        let new = buf.get(from..buf.len().min(most)).unwrap_or_default();
        for at in memchr::memchr_iter(b'\n', new) {
            let end = from + at;
            let line = buf.get(self.line as usize..end).unwrap_or_default();
            let Some(line) = line.strip_suffix(b"\r") else { return Err(lost("Bare CR or LF")) };
            if line.is_empty() {
                return Ok(Some(end + 1));
            }
            if matches!(line.first(), Some(b'C' | b'c' | b'L' | b'l')) && is_length(line) {
                if self.lengths == 0 {
                    self.at = self.line;
                }
                self.lengths = (self.lengths + 1).min(3);
            }
            self.line = end as u32 + 1;
        }
        if buf.len() >= most {
            return Err(FrameFault { fault: Fault::new(513), head: None });
        }
        self.seen = buf.len() as u32;
        Ok(None)
    }

    /// The length of the message whose head is whole.
    fn length(&self, buf: &[u8], head: usize, limits: &Limits) -> Result<u32, FrameFault> {
        let text = buf.get(..head).unwrap_or_default();
        let body = match self.lengths {
            0 => Err(Fault::bad("Missing Content-Length")),
            1 => one_length(chars::skip(text, self.at as usize)),
            _ => content_length(text).and_then(|it| it.ok_or(DOUBTFUL)),
        };
        let body = body.map_err(|fault| FrameFault { fault, head: Some(head) })?;
        let length = body.saturating_add(head as u64);
        if length > u64::from(limits.message_octets_max) {
            return Err(FrameFault { fault: Fault::new(413), head: Some(head) });
        }
        Ok(length as u32)
    }
}

/// The head and the length of the message in a datagram; octets beyond are no part of it (RFC 3261, 18.3).
pub fn datagram(buf: &[u8], limits: &Limits) -> Result<(usize, usize), FrameFault> {
    let begin = buf.iter().take_while(|it| matches!(it, b'\r' | b'\n')).count();
    if begin > 0 || buf.is_empty() {
        return Err(lost("No Start Line"));
    }
    let Some(head) = memchr::memmem::find(buf, b"\r\n\r\n").map(|it| it + 4) else {
        // What is there of it may do for an answer.
        let head = Some(buf.len()).filter(|it| *it <= limits.head_octets_max as usize);
        return Err(FrameFault { fault: Fault::bad("No Empty Line"), head });
    };
    if head > limits.head_octets_max as usize {
        return Err(FrameFault { fault: Fault::new(513), head: None });
    }
    let text = buf.get(..head).unwrap_or_default();
    let length = match content_length(text) {
        Ok(Some(body)) => body.saturating_add(head as u64),
        Ok(None) => buf.len() as u64,
        Err(fault) => return Err(FrameFault { fault, head: Some(head) }),
    };
    if length > u64::from(limits.message_octets_max) {
        return Err(FrameFault { fault: Fault::new(413), head: Some(head) });
    }
    if length > buf.len() as u64 {
        let fault = Fault::bad("Content-Length Exceeds the Datagram");
        return Err(FrameFault { fault, head: Some(head) });
    }
    Ok((head, length as usize))
}

/// The one Content-Length of a head, however often it is told (7.1: two equal ones pass).
fn content_length(head: &[u8]) -> Result<Option<u64>, Fault> {
    let mut told = None;
    let mut line = 0;
    for at in memchr::memchr_iter(b'\n', head) {
        let text = head.get(line..at).unwrap_or_default();
        if is_length(text) {
            let length = one_length(chars::skip(head, line))?;
            if told.is_some_and(|it| it != length) {
                return Err(DOUBTFUL);
            }
            told = Some(length);
        }
        line = at + 1;
    }
    Ok(told)
}

/// Whether a line begins with the name of Content-Length.
fn is_length(line: &[u8]) -> bool {
    let Some((name, _)) = chars::split_once(line, b':') else { return false };
    Name::new(chars::trim(name)) == Name::ContentLength
        && !name.first().is_some_and(|it| chars::is_blank(*it))
}

/// The number in the header that begins here, which may be folded.
fn one_length(text: &[u8]) -> Result<u64, Fault> {
    let (_, mut value) = chars::split_once(text, b':').ok_or(DOUBTFUL)?;
    let mut end = 0;
    for at in memchr::memchr_iter(b'\n', value) {
        end = at;
        if !matches!(value.get(at + 1), Some(b' ' | b'\t')) {
            break;
        }
    }
    value = value.get(..end).unwrap_or_default();
    chars::number(chars::trim(value)).ok_or(DOUBTFUL)
}

const DOUBTFUL: Fault = Fault::bad("Malformed Content-Length");

const fn lost(reason: &'static str) -> FrameFault {
    FrameFault { fault: Fault::bad(reason), head: None }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
