//! Where everything is in one message (RFC 3261, 7), found in one pass.
//!
//! `Index` holds ranges and is used again for the next message, so that reading one allocates nothing.
//! Hardly anything is refused here: what a message must hold is judged by `Message::check`, so that even
//! a bad request can be answered with what there is of it (RFC 4475, 3.3.1).
//! Values are **not** read before somebody asks.

use crate::{
    limits,
    sip::{
        chars,
        fault::Fault,
        header::{Event, MediaType, NameAddr, SubscriptionState, Via},
        method::Method,
        name::Name,
        uri::Uri,
    },
};

/// Scratch for the places of headers.
#[derive(Clone, Debug)]
pub struct Index {
    lines: Vec<Line>,
    /// Of each name, the first and the last line.
    ends: [(u16, u16); Name::COUNT],
}

/// No line.
const NONE: u16 = u16::MAX;

const _: () = assert!(limits::SIP_HEADERS_MAX < NONE as usize);

impl Default for Index {
    fn default() -> Self {
        Self { lines: Vec::new(), ends: [(NONE, NONE); Name::COUNT] }
    }
}

/// One header field, with the lines that continue it.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: u32,
    colon: u32,
    end: u32,
    /// The next line of the same name.
    next: u16,
}

/// One message: the octets, and where the headers are.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub(super) frame: &'a [u8],
    pub(super) head: usize,
    /// Lines of the head.
    pub(super) count: usize,
    pub(super) index: &'a Index,
    pub(super) start: Start<'a>,
    /// What was wrong already with the lines.
    pub(super) broken: Option<(u16, &'static str)>,
    /// What was read when it was judged.
    pub(super) known: Option<Known<'a>>,
}

/// The values that nearly every step of a message's way asks for, read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known<'a> {
    pub(super) via: Via<'a>,
    pub(super) from: NameAddr<'a>,
    pub(super) to: NameAddr<'a>,
    pub(super) from_uri: Uri<'a>,
    pub(super) to_uri: Uri<'a>,
    /// Of a request.
    pub(super) uri: Option<Uri<'a>>,
    pub(super) call_id: &'a str,
    pub(super) cseq: (u32, Method<'a>),
}

/// The first line.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start<'a> {
    Request { method: &'a [u8], uri: &'a [u8], version: &'a [u8] },
    Response { version: &'a [u8], status: u16, reason: &'a [u8] },
}

impl Index {
    /// Reads the start line and the places of the headers of one framed message.
    ///
    /// Fails only where nothing could be answered: there is no first line. All else that is wrong with the
    /// lines is told by `Message::check`.
    pub fn read<'a>(&'a mut self, frame: &'a [u8]) -> Result<Message<'a>, Fault> {
        if frame.len() > u32::MAX as usize {
            return Err(Fault::new(513));
        }
        self.lines.clear();
        self.ends = [(NONE, NONE); Name::COUNT];
        let (mut first, mut broken) = (None, None);
        // Where the line begins that is being read, how many there were, and where the head ends.
        let (mut begin, mut count, mut head) = (0, 0, frame.len());
        for at in memchr::memchr_iter(b'\n', frame) {
            let whole = frame.get(begin..at).unwrap_or_default();
            let line = whole.strip_suffix(b"\r").unwrap_or_else(|| {
                broken.get_or_insert(BARE);
                whole
            });
            count += 1;
            if line.is_empty() && first.is_some() {
                head = at + 1;
                break;
            } else if first.is_none() {
                first = Some(line).filter(|it| !it.is_empty());
            } else if let Err(fault) = self.take(line, begin) {
                broken.get_or_insert(fault);
            }
            begin = at + 1;
        }
        let (start, sound) = Start::read(first.ok_or(Fault::bad("No Start Line"))?);
        let broken = if sound { broken } else { Some((400, "Malformed Start Line")) };
        Ok(Message { frame, head, count, index: self, start, broken, known: None })
    }

    /// Takes a line behind the first, which begins at `begin`.
    fn take(&mut self, line: &[u8], begin: usize) -> Result<(), (u16, &'static str)> {
        let end = (begin + line.len()) as u32;
        if matches!(line.first(), Some(b' ' | b'\t')) {
            // RFC 3261, 7.3.1: it continues the line before.
            self.lines.last_mut().ok_or(MALFORMED)?.end = end;
            return Ok(());
        }
        let number = self.lines.len();
        if number >= limits::SIP_HEADERS_MAX {
            return Err((513, "Too Many Headers"));
        }
        let length = chars::colon(line).ok_or(MALFORMED)?;
        let mut name = line.get(..length).unwrap_or_default();
        while let [rest @ .., b' ' | b'\t'] = name {
            name = rest;
        }
        let known = Name::new(name);
        let (start, colon) = (begin as u32, (begin + length) as u32);
        self.lines.push(Line { start, colon, end, next: NONE });
        let number = number as u16;
        if let Some((first, last)) = self.ends.get_mut(known.place()) {
            match self.lines.get_mut(usize::from(*last)) {
                Some(before) => before.next = number,
                None => *first = number,
            }
            *last = number;
        }
        if known == Name::Other && !chars::token(name) {
            return Err(MALFORMED);
        }
        Ok(())
    }
}

const BARE: (u16, &str) = (400, "Bare CR or LF");
const MALFORMED: (u16, &str) = (400, "Malformed Header");

impl<'a> Start<'a> {
    /// Reads the first line; false: as much of it as could be read, which is malformed.
    fn read(line: &'a [u8]) -> (Self, bool) {
        let (first, rest) = chars::split_once(line, b' ').unwrap_or((line, b""));
        let (second, third) = chars::split_once(rest, b' ').unwrap_or((rest, b""));
        if first.get(..4).is_some_and(|it| it.eq_ignore_ascii_case(b"SIP/")) {
            let status = chars::number(second).filter(|it| (100..700).contains(it));
            let sound = status.is_some() && second.len() == 3 && is_version(first);
            let status = status.unwrap_or_default() as u16;
            return (Self::Response { version: first, status, reason: third }, sound);
        }
        // RFC 3261, 7.1: one space between, none before or behind, none in the URI.
        let sound = chars::token(first) && is_version(third) && !second.is_empty();
        (Self::Request { method: first, uri: second, version: third }, sound)
    }
}

/// `SIP/` and two numbers, whichever: another version is another fault.
fn is_version(text: &[u8]) -> bool {
    let Some((name, numbers)) = chars::split_once(text, b'/') else { return false };
    let Some((major, minor)) = chars::split_once(numbers, b'.') else { return false };
    name.eq_ignore_ascii_case(b"SIP")
        && chars::number(major).is_some()
        && chars::number(minor).is_some()
}

impl<'a> Message<'a> {
    /// What is wrong with the lines, whatever they say.
    pub(super) fn broken(&self) -> Option<Fault> {
        // Each line ends in CR LF; any further CR is in one.
        let head = self.frame.get(..self.head).unwrap_or_default();
        let bare = || memchr::memchr_iter(b'\r', head).count() != self.count;
        let fault = self.broken.or_else(|| bare().then_some(BARE));
        fault.map(|(status, reason)| Fault::saying(status, reason))
    }

    /// With what was read of it while it was judged.
    pub(super) fn knowing(self, known: Known<'a>) -> Self {
        Self { known: Some(known), ..self }
    }

    /// All its octets.
    pub const fn frame(&self) -> &'a [u8] {
        self.frame
    }

    /// What stands behind the empty line.
    pub fn body(&self) -> &'a [u8] {
        chars::skip(self.frame, self.head)
    }

    /// A request, or a response.
    pub const fn is_request(&self) -> bool {
        matches!(self.start, Start::Request { .. })
    }

    /// Of a response, the method that CSeq names.
    pub fn method(&self) -> Method<'a> {
        match self.start {
            Start::Request { method, .. } => Method::new(method),
            Start::Response { .. } => self.cseq().map_or(Method::Other(b""), |it| it.1),
        }
    }

    /// The Request-URI; empty for a response.
    pub const fn uri(&self) -> &'a [u8] {
        match self.start {
            Start::Request { uri, .. } => uri,
            Start::Response { .. } => b"",
        }
    }

    /// The status of a response; 0 for a request.
    pub const fn status(&self) -> u16 {
        match self.start {
            Start::Request { .. } => 0,
            Start::Response { status, .. } => status,
        }
    }

    /// The phrase of a response as it came, perhaps empty, perhaps not UTF-8.
    pub const fn reason(&self) -> &'a [u8] {
        match self.start {
            Start::Request { .. } => b"",
            Start::Response { reason, .. } => reason,
        }
    }

    /// `SIP/2.0`, or what stands there instead.
    pub const fn version(&self) -> &'a [u8] {
        match self.start {
            Start::Request { version, .. } | Start::Response { version, .. } => version,
        }
    }

    /// The value of the first header of this name, without blanks around it; folds are kept.
    pub fn header(&self, name: Name) -> Option<&'a [u8]> {
        self.headers(name).next()
    }

    /// The values of all headers of this name, one per header.
    pub fn headers(&self, name: Name) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.lines_of(name).map(|it| it.1)
    }

    /// Names as they came, and values, of all lines of one name.
    fn lines_of(&self, name: Name) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let (frame, index) = (self.frame, self.index);
        let mut next = index.ends.get(name.place()).map_or(NONE, |it| it.0);
        std::iter::from_fn(move || {
            let line = index.lines.get(usize::from(next))?;
            next = line.next;
            Some((line.name(frame), line.value(frame)))
        })
    }

    /// All values of a list header: of all its lines, cut at commas outside quotes and brackets.
    pub fn list(&self, name: Name) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.headers(name).flat_map(|it| {
            let mut rest = Some(it);
            std::iter::from_fn(move || {
                let (one, behind) = chars::cut(rest?, b',');
                rest = behind;
                Some(chars::trim(one))
            })
            .filter(|it| !it.is_empty())
        })
    }

    /// The values of a header that `Name` does not list, in any case.
    pub fn other(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let same = move |it: &(&[u8], &[u8])| it.0.eq_ignore_ascii_case(name.as_bytes());
        self.lines_of(Name::Other).filter(same).map(|it| it.1)
    }

    /// All headers as they came: names, and values without blanks around them.
    pub fn all(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let frame = self.frame;
        self.index.lines.iter().map(move |it| (it.name(frame), it.value(frame)))
    }

    /// The top Via: where the answer goes.
    pub fn via(&self) -> Result<Via<'a>, Fault> {
        if let Some(known) = &self.known {
            return Ok(known.via);
        }
        Via::parse(self.list(Name::Via).next().ok_or(Fault::bad("Missing Via"))?)
    }

    /// Who asks.
    pub fn from(&self) -> Result<NameAddr<'a>, Fault> {
        if let Some(known) = &self.known {
            return Ok(known.from);
        }
        NameAddr::parse(self.header(Name::From).ok_or(Fault::bad("Missing From"))?)
    }

    /// Who is asked.
    pub fn to(&self) -> Result<NameAddr<'a>, Fault> {
        if let Some(known) = &self.known {
            return Ok(known.to);
        }
        NameAddr::parse(self.header(Name::To).ok_or(Fault::bad("Missing To"))?)
    }

    /// The address of who asks.
    pub fn from_uri(&self) -> Result<Uri<'a>, Fault> {
        match &self.known {
            Some(known) => Ok(known.from_uri),
            None => self.from()?.uri(),
        }
    }

    /// The address of who is asked.
    pub fn to_uri(&self) -> Result<Uri<'a>, Fault> {
        match &self.known {
            Some(known) => Ok(known.to_uri),
            None => self.to()?.uri(),
        }
    }

    /// The Request-URI, read.
    pub fn read_uri(&self) -> Result<Uri<'a>, Fault> {
        match self.known.as_ref().and_then(|it| it.uri) {
            Some(uri) => Ok(uri),
            None => Uri::parse(self.uri()),
        }
    }

    /// The Call-ID, whatever characters it has; one that is no text is refused.
    pub fn call_id(&self) -> Result<&'a str, Fault> {
        if let Some(known) = &self.known {
            return Ok(known.call_id);
        }
        let value = self.header(Name::CallId).ok_or(Fault::bad("Missing Call-ID"))?;
        let text = std::str::from_utf8(value).ok().filter(|it| !it.is_empty());
        text.filter(|it| !it.bytes().any(|it| it <= b' ' || it == 0x7F))
            .ok_or(Fault::bad("Malformed Call-ID"))
    }

    /// The number and the method of CSeq. RFC 3261, 8.1.1.5: the number is less than 2^31.
    pub fn cseq(&self) -> Result<(u32, Method<'a>), Fault> {
        if let Some(known) = &self.known {
            return Ok(known.cseq);
        }
        let value = self.header(Name::CSeq).ok_or(Fault::bad("Missing CSeq"))?;
        let end = value.iter().position(|it| chars::is_blank(*it)).unwrap_or(value.len());
        let number = chars::number(value.get(..end).unwrap_or_default());
        let number = number.filter(|it| *it < 1 << 31).ok_or(Fault::bad("Malformed CSeq"))?;
        let method = chars::trim(chars::skip(value, end));
        if !chars::token(method) {
            return Err(Fault::bad("Malformed CSeq"));
        }
        Ok((number as u32, Method::new(method)))
    }

    /// The first Contact; none too for `*`.
    pub fn contact(&self) -> Result<Option<NameAddr<'a>>, Fault> {
        let first = self.list(Name::Contact).next().filter(|it| *it != b"*");
        first.map(NameAddr::parse).transpose()
    }

    /// How many hops are left.
    pub fn max_forwards(&self) -> Result<Option<u32>, Fault> {
        self.seconds(Name::MaxForwards, Fault::bad("Malformed Max-Forwards"))
    }

    /// Seconds; too many of them are the most there can be.
    pub fn expires(&self) -> Result<Option<u32>, Fault> {
        self.seconds(Name::Expires, Fault::bad("Malformed Expires"))
    }

    /// Seconds that the refuser of an Expires would take.
    pub fn min_expires(&self) -> Result<Option<u32>, Fault> {
        self.seconds(Name::MinExpires, Fault::bad("Malformed Min-Expires"))
    }

    /// Seconds, whatever comment or parameter follows (RFC 3261, 20.33).
    pub fn retry_after(&self) -> Option<u32> {
        let value = self.header(Name::RetryAfter)?;
        let end = value.iter().position(|it| !it.is_ascii_digit()).unwrap_or(value.len());
        Some(u32::try_from(chars::number(value.get(..end)?)?).unwrap_or(u32::MAX))
    }

    fn seconds(&self, name: Name, fault: Fault) -> Result<Option<u32>, Fault> {
        let Some(value) = self.header(name) else { return Ok(None) };
        let seconds = chars::number(value).ok_or(fault)?;
        Ok(Some(u32::try_from(seconds).unwrap_or(u32::MAX)))
    }

    /// The event package; none too where it is malformed.
    pub fn event(&self) -> Option<Event<'a>> {
        Event::parse(self.header(Name::Event)?)
    }

    /// The type of the body; none too where it is malformed.
    pub fn content_type(&self) -> Option<MediaType<'a>> {
        MediaType::parse(self.header(Name::ContentType)?)
    }

    /// What a notifier says; none too where it is malformed.
    pub fn subscription_state(&self) -> Option<SubscriptionState<'a>> {
        SubscriptionState::parse(self.header(Name::SubscriptionState)?)
    }

    /// Whether a list header (Require, Supported, Allow and the like) has this token, in any case.
    pub fn has_token(&self, name: Name, token: &str) -> bool {
        self.list(name).any(|it| it.eq_ignore_ascii_case(token.as_bytes()))
    }
}

impl Line {
    fn name<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        chars::trim(frame.get(self.start as usize..self.colon as usize).unwrap_or_default())
    }

    fn value<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        chars::trim(frame.get(self.colon as usize + 1..self.end as usize).unwrap_or_default())
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
