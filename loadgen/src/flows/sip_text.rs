//! Requests of an edge by templates, and checks of what arrives, both by rsip.
//!
//! A template is parsed and judged once; a request then is its pieces with the fields between
//! them. Does **not** cut messages out of a stream; [`crate::sip::text`] does.

use std::io::Write as _;
use std::net::SocketAddr;

use rsip::prelude::{HeadersExt as _, UntypedHeader as _};

use crate::sip::text::{Frame, Reader};

/// A text in a session or outside of one.
pub(super) const MESSAGE: &str = "MESSAGE {uri} SIP/2.0\r\n{route}Via: SIP/2.0/{transport} {at};branch={branch}\r\n\
    Max-Forwards: 70\r\nFrom: <sip:{from}>;tag={tag}\r\nTo: <sip:{to}>{totag}\r\nCall-ID: {call}\r\n\
    CSeq: {cseq} MESSAGE\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Length: {length}\r\n\r\n{text}";

/// Every other request; `{method}` and `{more}` say which.
const REQUEST: &str = "{method} {uri} SIP/2.0\r\n{route}Via: SIP/2.0/{transport} {at};branch={branch}\r\n\
    Max-Forwards: 70\r\nFrom: <sip:{from}>;tag={tag}\r\nTo: <sip:{to}>{totag}\r\nCall-ID: {call}\r\n\
    CSeq: {cseq} {method}\r\nContact: <sip:{user}@{at};transport={lower}>\r\n{more}\
    Content-Length: {length}\r\n\r\n{text}";

/// What goes between the pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Method,
    Uri,
    Route,
    Branch,
    From,
    User,
    To,
    Tag,
    ToTag,
    Call,
    CSeq,
    More,
    Length,
    Text,
}

/// The values of one request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Values<'a> {
    pub(super) method: &'a str,
    pub(super) uri: &'a str,
    /// Whole lines.
    pub(super) route: &'a str,
    pub(super) branch: u64,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) tag: &'a str,
    /// Nothing before there is a dialog.
    pub(super) remote_tag: &'a str,
    pub(super) call: &'a str,
    pub(super) cseq: u32,
    /// Whole lines.
    pub(super) more: &'a str,
    pub(super) text: &'a [u8],
}

/// A request with places for its fields.
#[derive(Debug)]
pub(super) struct Template {
    pieces: Vec<(Vec<u8>, Option<Field>)>,
}

impl Template {
    /// Takes a template apart and has rsip judge what it makes.
    pub(super) fn new(
        text: &str,
        transport: &str,
        at: SocketAddr,
        run: u32,
    ) -> Result<Self, String> {
        let text = text.replace("\r\n", "\n").replace('\n', "\r\n");
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        let mut piece = String::new();
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("a `{` of a template has no `}`")?;
            piece.push_str(before);
            rest = after;
            let field = match name {
                "transport" => {
                    piece.push_str(transport);
                    continue;
                }
                "lower" => {
                    piece.push_str(&transport.to_ascii_lowercase());
                    continue;
                }
                "at" => {
                    piece.push_str(&at.to_string());
                    continue;
                }
                "method" => Field::Method,
                "uri" => Field::Uri,
                "route" => Field::Route,
                "branch" => {
                    piece.push_str(&prefix(run));
                    Field::Branch
                }
                "from" => Field::From,
                "user" => Field::User,
                "to" => Field::To,
                "tag" => Field::Tag,
                "totag" => Field::ToTag,
                "call" => Field::Call,
                "cseq" => Field::CSeq,
                "more" => Field::More,
                "length" => Field::Length,
                "text" => Field::Text,
                other => return Err(format!("a template has no field {{{other}}}")),
            };
            pieces.push((std::mem::take(&mut piece).into_bytes(), Some(field)));
        }
        piece.push_str(rest);
        pieces.push((piece.into_bytes(), None));
        let it = Self { pieces };
        it.judge()?;
        Ok(it)
    }

    /// The request that all but MESSAGE are.
    pub(super) fn request(transport: &str, at: SocketAddr, run: u32) -> Result<Self, String> {
        Self::new(REQUEST, transport, at, run)
    }

    /// Appends a request.
    pub(super) fn put(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        for (piece, field) in &self.pieces {
            out.extend_from_slice(piece);
            let text = match field {
                None => continue,
                Some(Field::Method) => values.method,
                Some(Field::Uri) => values.uri,
                Some(Field::Route) => values.route,
                Some(Field::From) => values.from,
                Some(Field::User) => values.from.split('@').next().unwrap_or_default(),
                Some(Field::To) => values.to,
                Some(Field::Tag) => values.tag,
                Some(Field::ToTag) => {
                    if values.remote_tag.is_empty() {
                        continue;
                    }
                    out.extend_from_slice(b";tag=");
                    values.remote_tag
                }
                Some(Field::Call) => values.call,
                Some(Field::More) => values.more,
                Some(Field::Text) => {
                    out.extend_from_slice(values.text);
                    continue;
                }
                // Into memory: it takes all there is.
                Some(Field::Branch) => {
                    drop(write!(out, "{:016x}", values.branch));
                    continue;
                }
                Some(Field::CSeq) => {
                    drop(write!(out, "{}", values.cseq));
                    continue;
                }
                Some(Field::Length) => {
                    drop(write!(out, "{}", values.text.len()));
                    continue;
                }
            };
            out.extend_from_slice(text.as_bytes());
        }
    }

    fn judge(&self) -> Result<(), String> {
        let values = Values {
            method: "OPTIONS",
            uri: "sip:b@b.example",
            branch: 1,
            from: "a@a.example",
            to: "b@b.example",
            tag: "t",
            call: "tl",
            cseq: 7,
            text: b"text",
            ..Values::default()
        };
        let mut out = Vec::new();
        self.put(&values, &mut out);
        let reader = Reader::default();
        let (frame, length) = reader.cut(&out)?.ok_or("a template makes no whole request")?;
        if length != out.len() || frame.body != values.text {
            return Err("a template's length is not that of its text".to_owned());
        }
        check(&out, &frame, &reader).map_err(|reason| format!("a template: {reason}"))
    }
}

/// What the branches of a run begin with.
fn prefix(run: u32) -> String {
    format!("z9hG4bKtl{run:08x}")
}

/// The transaction that an answer is for, by its branch.
pub(super) fn branch(frame: &Frame<'_>, run: u32) -> Option<u64> {
    const MAGIC: &[u8] = b"z9hG4bKtl";
    let at = memchr::memmem::find(frame.head, MAGIC)? + MAGIC.len();
    let digits = std::str::from_utf8(frame.head.get(at..at + 24)?).ok()?;
    let (own, id) = digits.split_at_checked(8)?;
    let own = u32::from_str_radix(own, 16).ok()?;
    u64::from_str_radix(id, 16).ok().filter(|_| own == run)
}

/// Whether rsip reads a message as the fast reader did.
pub(super) fn check(whole: &[u8], frame: &Frame<'_>, reader: &Reader) -> Result<(), String> {
    let message = rsip::SipMessage::try_from(whole.trim_ascii_start()).map_err(|e| {
        let reason: String = e.to_string().chars().take(60).collect();
        format!("rsip does not read it: {reason}")
    })?;
    let call = message.call_id_header().map_err(|e| e.to_string())?.value().to_owned();
    let cseq = message.cseq_header().and_then(|it| it.seq()).map_err(|e| e.to_string())?;
    let body = match &message {
        rsip::SipMessage::Request(it) => &it.body,
        rsip::SipMessage::Response(it) => &it.body,
    };
    let same = call.as_bytes() == reader.call(frame)
        && cseq == reader.cseq(frame).0
        && body.as_slice() == frame.body;
    if same { Ok(()) } else { Err("rsip reads it in another way".to_owned()) }
}

/// Whether a MESSAGE of a scenario's own can be sent.
pub fn judge_template(text: &str) -> Result<(), String> {
    Template::new(text, "TCP", SocketAddr::from(([127, 0, 0, 1], 5_060)), 0).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 5], 5066))
    }

    #[test]
    fn a_template_is_judged_once_and_filled_many_times() {
        let it = Template::new(MESSAGE, "TCP", at(), 7).unwrap();
        let values =
            Values { uri: "sip:b@b", cseq: 3, text: b"abc", branch: 9, ..Values::default() };
        let mut out = Vec::new();
        it.put(&values, &mut out);
        let reader = Reader::default();
        let (frame, _) = reader.cut(&out).unwrap().unwrap();
        assert_eq!(branch(&frame, 8), None);
        assert_eq!(
            (branch(&frame, 7), frame.body, reader.cseq(&frame).0),
            (Some(9), &b"abc"[..], 3)
        );
        Template::request("UDP", at(), 7).unwrap();
    }

    #[test]
    fn wrong_templates_are_refused_in_words() {
        for (text, says) in [
            ("MESSAGE {nobody} SIP/2.0\n\n", "no field {nobody}"),
            ("MESSAGE {uri", "no `}`"),
            ("MESSAGE {uri} SIP/2.0\nCall-ID: {call}\nContent-Length: 1\n\n{text}", "length"),
            ("MESSAGE {uri} SIP/2.0\nContent-Length: {length}\n\n{text}", "rsip"),
        ] {
            let reason = Template::new(text, "TCP", at(), 7).unwrap_err();
            assert!(reason.contains(says) || reason.contains("template"), "{reason}");
        }
    }
}
