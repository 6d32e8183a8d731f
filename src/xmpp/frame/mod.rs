//! Cuts a stream of octets into its header, its first-level elements and its end.
//!
//! RFC 6120, 4.2 (header), 4.4 (end), 11.1 (what a stream may not hold). A whole element at first
//! sight is scanned once and nothing else is done; only when an element arrives in pieces does
//! `boundary` look for its end, over new octets only, so that the cost per octet does not depend on
//! how they were cut. Octets are counted as they arrive: nothing over the limit is waited for.
//!
//! Holds no octets: `buf` is the caller's, and begins at the first octet not yet consumed.

use crate::{
    limits,
    xmpp::{
        boundary::{Boundary, Sight},
        chars::{self, Stop},
        fault::StreamFault,
        header, scan,
        stanza::{Ns, Stanza},
    },
};

pub use crate::xmpp::header::Header;

/// The place in a stream of one connection. A new stream (RFC 6120, 5.4.3.3, 6.4.6) has a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framer {
    boundary: Boundary,
    phase: Phase,
    setting: Setting,
}

const _: () = assert!(size_of::<Framer>() <= 24, "idle connections hold one each");

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Header,
    Elements,
    Closed,
}

/// What the header said about all elements after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// The default namespace.
    pub content: Content,
    /// The prefix `db` is declared for dialback.
    pub dialback: bool,
}

/// The content namespace of a stream (RFC 6120, 4.8.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// `jabber:client`.
    #[default]
    Client,
    /// `jabber:server`.
    Server,
}

impl Content {
    /// Its namespace.
    pub const fn ns(self) -> Ns {
        match self {
            Self::Client => Ns::Client,
            Self::Server => Ns::Server,
        }
    }
}

/// How much of what a first-level element may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets of one element.
    pub octets_max: u32,
    /// Elements in one element, itself included.
    pub elements_max: u32,
    /// Elements open at once.
    pub depth_max: u16,
    /// Attributes of one element.
    pub attributes_max: u16,
}

impl Limits {
    /// Before the far end has shown who it is.
    pub const STRANGER: Self = Self {
        octets_max: limits::PRELOGIN_OCTETS_MAX as u32,
        elements_max: limits::PRELOGIN_ELEMENTS_MAX,
        depth_max: limits::PRELOGIN_DEPTH_MAX,
        attributes_max: limits::ATTRIBUTES_MAX as u16,
    };
    /// A server that we called: its features may be many.
    pub const CALLED: Self = Self { elements_max: limits::FEATURES_ELEMENTS_MAX, ..Self::STRANGER };
    /// A client that has logged in.
    pub const CLIENT: Self = Self {
        octets_max: limits::CLIENT_STANZA_BYTES_MAX as u32,
        elements_max: limits::STANZA_ELEMENTS_MAX,
        depth_max: limits::STANZA_DEPTH_MAX,
        attributes_max: limits::ATTRIBUTES_MAX as u16,
    };
    /// A server whose name is proven.
    pub const SERVER: Self =
        Self { octets_max: limits::PEER_STANZA_BYTES_MAX as u32, ..Self::CLIENT };
}

/// What stands next in the stream; the number is how many octets of `buf` it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "made once per stanza on the stack, never stored")]
pub enum Next {
    /// Nothing whole yet.
    Incomplete,
    /// Blanks between elements, or whatever follows the end of the stream: to be dropped.
    Whitespace(usize),
    /// The header, with its XML declaration if there is one.
    Open(Header, usize),
    /// A whole element, proven.
    Element(Stanza, usize),
    /// The end of the stream.
    Close(usize),
}

impl Framer {
    /// What stands at the start of `buf`.
    ///
    /// After `Incomplete` the next call must show the same octets again with more behind them. A
    /// fault ends the stream, and the framer is of no use after it.
    #[inline]
    pub fn next(&mut self, buf: &[u8], limits: &Limits) -> Result<Next, StreamFault> {
        if self.boundary.scanned() > 0 {
            return self.resume(buf, limits);
        }
        match (self.phase, buf) {
            (_, []) => Ok(Next::Incomplete),
            (Phase::Closed, _) => Ok(Next::Whitespace(buf.len())),
            (_, [blank, ..]) if chars::is_blank(*blank) => {
                Ok(Next::Whitespace(chars::blanks(buf, 1)))
            }
            (Phase::Elements, [b'<', b'/', ..]) => self.close(buf),
            // RFC 6120, 11.1: comments, instructions and DTDs, between stanzas as within them.
            (Phase::Elements, [b'<', b'?', ..]) => Err(StreamFault::RestrictedXml),
            (Phase::Elements, [b'<', b'!', ..]) => declaration(buf),
            (Phase::Elements, [b'<', ..]) => {
                let mut stanza = Stanza::default();
                match scan::scan(buf, self.setting, limits, &mut stanza) {
                    Ok(len) => Ok(Next::Element(stanza, len)),
                    Err(Stop::Incomplete) => self.resume(buf, limits),
                    Err(Stop::Fault(fault)) => Err(fault),
                }
            }
            (Phase::Header, [b'<', ..]) => match self.header(buf, limits) {
                Err(Stop::Incomplete) => self.resume(buf, limits),
                Err(Stop::Fault(fault)) => Err(fault),
                Ok(next) => Ok(next),
            },
            // A byte order mark of UTF-16 (RFC 6120, 11.6); else text where no text is.
            (_, [0xFE | 0xFF, ..]) => Err(StreamFault::UnsupportedEncoding),
            _ => Err(StreamFault::NotWellFormed),
        }
    }

    /// What the header said; the default before it was seen.
    pub fn setting(&self) -> Setting {
        self.setting
    }

    /// Looks for the end in what is new; once it is found, the whole is scanned.
    #[cold]
    fn resume(&mut self, buf: &[u8], limits: &Limits) -> Result<Next, StreamFault> {
        if self.phase == Phase::Elements && buf.starts_with(b"<!") {
            return declaration(buf);
        }
        let header = self.phase == Phase::Header;
        let end = match self.boundary.look(buf, header, limits.depth_max) {
            Sight::Open if buf.len() >= limits.octets_max as usize => {
                return Err(StreamFault::PolicyViolation);
            }
            Sight::Open => return Ok(Next::Incomplete),
            Sight::Deep => return Err(StreamFault::PolicyViolation),
            Sight::End(end) if end > limits.octets_max as usize => {
                return Err(StreamFault::PolicyViolation);
            }
            Sight::End(end) => end,
            // Something is wrong up to here: the scan knows its name.
            Sight::Odd(end) => end,
        };
        self.boundary = Boundary::default();
        let whole = buf.get(..end).unwrap_or(buf);
        if header {
            return self.header(whole, limits).map_err(named);
        }
        if whole.starts_with(b"</") {
            return self.close(buf);
        }
        if whole.starts_with(b"<?") {
            return Err(StreamFault::RestrictedXml);
        }
        let mut stanza = Stanza::default();
        match scan::scan(whole, self.setting, limits, &mut stanza).map_err(named)? {
            len if len == end => Ok(Next::Element(stanza, len)),
            // The two disagree on where it ends, so nobody may go on from here.
            _ => Err(StreamFault::NotWellFormed),
        }
    }

    fn header(&mut self, buf: &[u8], limits: &Limits) -> Result<Next, Stop> {
        let window = buf.get(..limits.octets_max as usize).unwrap_or(buf);
        let (header, len) = header::read(window, limits)?;
        self.setting = Setting { content: header.content, dialback: header.dialback };
        self.phase = Phase::Elements;
        Ok(Next::Open(header, len))
    }

    /// RFC 6120, 4.4: `</stream:stream>`.
    fn close(&mut self, buf: &[u8]) -> Result<Next, StreamFault> {
        const CLOSE: &[u8] = b"</stream:stream";
        /// More blanks than this before the `>` are no one's honest end.
        const CLOSE_OCTETS: usize = 64;
        let Some(rest) = buf.strip_prefix(CLOSE) else {
            return match CLOSE.starts_with(buf) {
                true => Ok(Next::Incomplete),
                false => Err(StreamFault::NotWellFormed),
            };
        };
        let at = chars::blanks(rest, 0);
        match rest.get(at) {
            Some(b'>') => {
                self.phase = Phase::Closed;
                Ok(Next::Close(CLOSE.len() + at + 1))
            }
            None if buf.len() < CLOSE_OCTETS => Ok(Next::Incomplete),
            _ => Err(StreamFault::NotWellFormed),
        }
    }
}

/// A scan that wants more where `boundary` saw the end has met what is no XML.
fn named(stop: Stop) -> StreamFault {
    match stop {
        Stop::Incomplete => StreamFault::NotWellFormed,
        Stop::Fault(fault) => fault,
    }
}

/// What begins with `<!` between stanzas: a comment or a DTD is restricted (RFC 6120, 11.1), a CDATA
/// section is character data where only blanks may be.
fn declaration(buf: &[u8]) -> Result<Next, StreamFault> {
    match buf.get(2) {
        None => Ok(Next::Incomplete),
        Some(b'[') => Err(StreamFault::NotWellFormed),
        Some(_) => Err(StreamFault::RestrictedXml),
    }
}

/// Reads one whole element that stands alone, as if in a stream of that namespace; `None` if it is
/// anything else. For stanzas that were proven or written here before.
pub fn one(element: &[u8], content: Content) -> Option<Stanza> {
    if element.first() != Some(&b'<') {
        return None;
    }
    let mut stanza = Stanza::default();
    let setting = Setting { content, dialback: false };
    match scan::scan(element, setting, &Limits::SERVER, &mut stanza) {
        Ok(length) if length == element.len() => Some(stanza),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
