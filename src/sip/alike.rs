//! Messages that differ in nothing but what each has of its own: the branches of its Vias, the number
//! of its CSeq, its Content-Length, and the body.
//!
//! The next text of a dialog is nearly always such a message, and so is the next answer. All else in its
//! head is compared octet by octet with the head that was judged; then every octet is where it was, so
//! the end, the index and the values are taken over, and what judging found holds for it too. What a
//! message has of its own must be as long and of the same class of octets as before: tokens stay tokens,
//! digits stay digits, so no line and no parameter can end elsewhere. Anything else is **not** alike, and
//! is read in full.

use crate::sip::chars;
use crate::sip::header::{KeptAddr, KeptVia, Via};
use crate::sip::message::{Index, Known, Message, Start};
use crate::sip::method::Method;
use crate::sip::name::Name;
use crate::sip::span::Span;
use crate::sip::transaction::Branch;
use crate::sip::uri::KeptUri;

/// The head of a message that was judged.
#[derive(Debug)]
pub struct Alike {
    head: Box<[u8]>,
    /// In the order of their places.
    own: Box<[Own]>,
    index: Index,
    lines: usize,
    start: KeptStart,
    number: Span,
    /// Of CSeq.
    method: Span,
    length: Span,
    call_id: Span,
    via: KeptVia,
    from: KeptAddr,
    to: KeptAddr,
    from_uri: KeptUri,
    to_uri: KeptUri,
    asked_uri: Option<KeptUri>,
}

/// Where the parts of the first line lie.
#[derive(Clone, Copy, Debug)]
enum KeptStart {
    Request { method: Span, uri: Span, version: Span },
    Response { version: Span, status: u16, reason: Span },
}

/// What a message has of its own.
#[derive(Clone, Copy, Debug)]
struct Own {
    span: Span,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A branch of a request: a token, and none of ours.
    Branch,
    /// A branch of a response: a token.
    Token,
    /// Digits.
    Number,
}

impl Own {
    /// Whether this octet stands right before it.
    fn follows(self, octet: u8, text: &[u8]) -> bool {
        let before = (self.span.start as usize).checked_sub(1).and_then(|at| text.get(at));
        before == Some(&octet)
    }

    /// Whether these octets could stand in its place.
    fn takes(self, own: &[u8]) -> bool {
        match self.kind {
            // One that is perhaps ours is looked at in full: it may be a loop (RFC 3261, 16.3, 4).
            Kind::Branch => {
                own.iter().all(|it| chars::is_token(*it)) && !own.starts_with(Branch::BEGIN)
            }
            Kind::Token => own.iter().all(|it| chars::is_token(*it)),
            Kind::Number => own.iter().all(u8::is_ascii_digit),
        }
    }
}

impl Alike {
    /// Of a message that was judged and found sound; `None`: it is not of the kind that comes again.
    pub fn of(message: &Message<'_>) -> Option<Self> {
        let known = message.known.as_ref()?;
        // Alone in its head, or which one counts would be another question.
        let mut lengths = message.headers(Name::ContentLength);
        let (length, None) = (lengths.next()?, lengths.next()) else { return None };
        let head = message.frame.get(..message.head)?;
        if message.broken.is_some() || !head.ends_with(b"\r\n\r\n") {
            return None;
        }
        let cseq = message.header(Name::CSeq)?;
        let digits = cseq.iter().position(|it| !it.is_ascii_digit())?;
        let number = Span::of(cseq.get(..digits)?, head)?;
        let length = Span::of(length, head)?;
        let mut own = vec![
            Own { span: number, kind: Kind::Number },
            Own { span: length, kind: Kind::Number },
        ];
        let kind = if message.is_request() { Kind::Branch } else { Kind::Token };
        // One that can't be read is below the top.
        for via in message.list(Name::Via).filter_map(|it| Via::parse(it).ok()) {
            let Some(branch) = via.branch() else { continue };
            let own_branch = Own { span: Span::of(branch, head)?, kind };
            // Not in quotes, and not behind blanks, where fewer octets could be more blanks: there it is
            // no one's own, and must be as it is.
            if own_branch.follows(b'=', head) && own_branch.takes(branch) {
                own.push(own_branch);
            }
        }
        own.sort_by_key(|it| it.span.start);
        if own.iter().any(|it| it.span.start == it.span.end || !it.takes(it.span.cut(head))) {
            return None;
        }
        Some(Self {
            start: KeptStart::of(&message.start, head)?,
            method: Span::of(chars::trim(chars::skip(cseq, digits)), head)?,
            number,
            length,
            call_id: Span::of(known.call_id.as_bytes(), head)?,
            via: known.via.keep(head)?,
            from: known.from.keep(head)?,
            to: known.to.keep(head)?,
            from_uri: known.from_uri.keep(head)?,
            to_uri: known.to_uri.keep(head)?,
            asked_uri: match known.uri {
                Some(uri) => Some(uri.keep(head)?),
                None => None,
            },
            index: message.index.clone(),
            lines: message.count,
            own: own.into(),
            head: head.into(),
        })
    }

    /// The message that these octets begin with, if it is whole and all but what it has of its own is as
    /// in the one that was judged. One of more than `octets_max` octets is not.
    pub fn read<'a>(&'a self, octets: &'a [u8], octets_max: u32) -> Option<Message<'a>> {
        let head = octets.get(..self.head.len())?;
        let mut at = 0;
        for own in &self.own {
            let Span { start, end } = own.span;
            let (start, end) = (start as usize, end as usize);
            if head.get(at..start)? != self.head.get(at..start)?
                || !own.takes(head.get(start..end)?)
            {
                return None;
            }
            at = end;
        }
        if head.get(at..)? != self.head.get(at..)? {
            return None;
        }
        let length = chars::number(self.length.cut(head))?.saturating_add(head.len() as u64);
        let length = usize::try_from(length).ok().filter(|it| *it <= octets_max as usize)?;
        let frame = octets.get(..length)?;
        let number = chars::number(self.number.cut(head)).filter(|it| *it < 1 << 31)?;
        let known = Known {
            via: self.via.cut(head),
            from: self.from.cut(head),
            to: self.to.cut(head),
            from_uri: self.from_uri.cut(head),
            to_uri: self.to_uri.cut(head),
            uri: self.asked_uri.map(|it| it.cut(head)),
            call_id: std::str::from_utf8(self.call_id.cut(head)).ok()?,
            cseq: (number as u32, Method::new(self.method.cut(head))),
        };
        Some(Message {
            frame,
            head: self.head.len(),
            count: self.lines,
            index: &self.index,
            start: self.start.cut(head),
            broken: None,
            known: Some(known),
        })
    }
}

impl KeptStart {
    fn of(start: &Start<'_>, text: &[u8]) -> Option<Self> {
        Some(match *start {
            Start::Request { method, uri, version } => Self::Request {
                method: Span::of(method, text)?,
                uri: Span::of(uri, text)?,
                version: Span::of(version, text)?,
            },
            Start::Response { version, status, reason } => Self::Response {
                version: Span::of(version, text)?,
                status,
                reason: Span::of(reason, text)?,
            },
        })
    }

    fn cut<'a>(&self, text: &'a [u8]) -> Start<'a> {
        match *self {
            Self::Request { method, uri, version } => Start::Request {
                method: method.cut(text),
                uri: uri.cut(text),
                version: version.cut(text),
            },
            Self::Response { version, status, reason } => {
                Start::Response { version: version.cut(text), status, reason: reason.cut(text) }
            }
        }
    }
}

#[cfg(test)]
#[path = "alike_tests.rs"]
mod tests;
