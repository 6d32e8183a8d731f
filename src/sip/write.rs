//! Writes messages (RFC 3261, 7, 8.2.6).
//!
//! What is echoed goes out octet for octet; only what could end a line can't pass: CR, LF and NUL become
//! blanks, so a fold becomes blanks too (RFC 3261, 7.3.1 allows it, and we never fold). Names and values
//! are otherwise the caller's. Via of our own is **not** written here: `insert_via` puts it in.

use crate::sip::{chars, fault::Fault, message::Message, name::Name};

pub use crate::sip::{check::ALLOW, fault::reason};

/// A message that is being written; `body` or `end` finishes it.
#[derive(Debug)]
#[must_use = "a message without its end is none"]
pub struct Writer<'o> {
    out: &'o mut Vec<u8>,
}

/// Begins a request: its start line only.
pub fn request<'o>(method: &str, uri: &[u8], out: &'o mut Vec<u8>) -> Writer<'o> {
    one_line(method.as_bytes(), out);
    out.push(b' ');
    one_line(uri, out);
    out.extend_from_slice(b" SIP/2.0\r\n");
    Writer { out }
}

/// Begins a response: status line, and the Vias, From, To, Call-ID and CSeq of the request as they came
/// (RFC 3261, 8.2.6.2). To gets the tag if it has none. What a bad request lacks is left out.
pub fn response<'o>(
    request: &Message<'_>,
    status: u16,
    reason: &str,
    to_tag: Option<&str>,
    out: &'o mut Vec<u8>,
) -> Writer<'o> {
    out.extend_from_slice(b"SIP/2.0 ");
    digits(u64::from(status), out);
    out.push(b' ');
    one_line(reason.as_bytes(), out);
    out.extend_from_slice(b"\r\n");
    let mut writer = Writer { out }.each("Via", request.headers(Name::Via));
    if let Some(from) = request.header(Name::From) {
        writer = writer.header("From", from);
    }
    if let Some(to) = request.header(Name::To) {
        // A To that can't be read may have a tag that nobody sees: it goes back as it came.
        let tag = to_tag.filter(|_| request.to().is_ok_and(|it| it.tag().is_none()));
        writer = writer.tagged("To", to, tag);
    }
    if let Some(call_id) = request.header(Name::CallId) {
        writer = writer.header("Call-ID", call_id);
    }
    if let Some(cseq) = request.header(Name::CSeq) {
        writer = writer.header("CSeq", cseq);
    }
    writer
}

/// The whole response that says what is wrong with a request.
pub fn refusal(request: &Message<'_>, fault: &Fault, to_tag: Option<&str>, out: &mut Vec<u8>) {
    let mut writer = response(request, fault.status, fault.reason, to_tag, out);
    for (name, value) in &fault.extra {
        writer = writer.header(name, value.as_bytes());
    }
    writer.end();
}

/// The request with one more Via, as its first header.
pub fn insert_via(request: &[u8], via: &[u8], out: &mut Vec<u8>) {
    let end = memchr::memchr(b'\n', request).map_or(request.len(), |it| it + 1);
    let (start, rest) = request.split_at(end);
    out.reserve(request.len() + via.len() + 7);
    out.extend_from_slice(start);
    Writer { out }.each("Via", std::iter::once(via)).out.extend_from_slice(rest);
}

/// Goes on with a request that has everything before its CSeq.
pub(super) fn numbered<'o>(number: u32, method: &str, out: &'o mut Vec<u8>) -> Writer<'o> {
    out.extend_from_slice(b"CSeq: ");
    digits(number.into(), out);
    out.push(b' ');
    one_line(method.as_bytes(), out);
    out.extend_from_slice(b"\r\n");
    Writer { out }
}

impl Writer<'_> {
    /// What is written so far is gone on with elsewhere.
    pub(super) fn pause(self) {}

    /// One header.
    pub fn header(self, name: &str, value: &[u8]) -> Self {
        self.tagged(name, value, None)
    }

    /// A header per value: Route, Record-Route and what else is repeated, each value whole.
    pub fn each<'v>(mut self, name: &str, values: impl Iterator<Item = &'v [u8]>) -> Self {
        for value in values {
            self = self.header(name, value);
        }
        self
    }

    /// One header with the tag behind it that From and To have.
    pub fn tagged(self, name: &str, value: &[u8], tag: Option<&str>) -> Self {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        one_line(value, self.out);
        if let Some(tag) = tag {
            self.out.extend_from_slice(b";tag=");
            one_line(tag.as_bytes(), self.out);
        }
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// One header with a number.
    pub fn uint(self, name: &str, value: u64) -> Self {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        digits(value, self.out);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Ends the message with a body of this type.
    pub fn body(self, media_type: &str, body: &[u8]) {
        let writer = self.header("Content-Type", media_type.as_bytes());
        let writer = writer.uint("Content-Length", body.len() as u64);
        writer.out.extend_from_slice(b"\r\n");
        writer.out.extend_from_slice(body);
    }

    /// Ends the message without a body.
    pub fn end(self) {
        self.uint("Content-Length", 0).out.extend_from_slice(b"\r\n");
    }
}

/// Octets that stay within their line.
fn one_line(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = memchr::memchr3(b'\r', b'\n', b'\0', rest) {
        out.extend_from_slice(rest.get(..at).unwrap_or_default());
        out.push(b' ');
        rest = chars::skip(rest, at + 1);
    }
    out.extend_from_slice(rest);
}

fn digits(mut number: u64, out: &mut Vec<u8>) {
    let begin = out.len();
    loop {
        out.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.get_mut(begin..).unwrap_or_default().reverse();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Index;

    const ASKED: &str = "BYE sip:b@b SIP/2.0\r\nv: SIP/2.0/TLS x;branch=z9hG4bK1\r\nMax-Forwards: 7\r\n\
        Via:SIP/2.0/TLS  y;ms-received-cid=A,\r\n SIP/2.0/TCP z\r\nf: \"\u{17B}\"<sip:a@a>;epid=1;tag=2\r\n\
        t: <sip:b@b>;epid=3\r\ni: abc\r\nCSeq: 7  BYE\r\nl: 0\r\n\r\n";

    #[test]
    fn responses_echo_what_they_must_and_nothing_else() {
        let mut index = Index::default();
        let request = index.read(ASKED.as_bytes()).expect("a start line");
        let mut out = Vec::new();
        response(&request, 481, reason(481), Some("g1"), &mut out)
            .uint("Retry-After", 18_000)
            .end();
        let expected = "SIP/2.0 481 Call/Transaction Does Not Exist\r\n\
            Via: SIP/2.0/TLS x;branch=z9hG4bK1\r\n\
            Via: SIP/2.0/TLS  y;ms-received-cid=A,   SIP/2.0/TCP z\r\n\
            From: \"\u{17B}\"<sip:a@a>;epid=1;tag=2\r\nTo: <sip:b@b>;epid=3;tag=g1\r\n\
            Call-ID: abc\r\nCSeq: 7  BYE\r\nRetry-After: 18000\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn no_value_ends_its_line() {
        let mut out = Vec::new();
        request("MESSAGE", b"sip:a@b\r\nX: y", &mut out)
            .header("Subject", b"a\r\nContact: <sip:evil>\0\n")
            .body("text/plain", b"a\r\n\0");
        let expected = "MESSAGE sip:a@b  X: y SIP/2.0\r\nSubject: a  Contact: <sip:evil>  \r\n\
            Content-Type: text/plain\r\nContent-Length: 4\r\n\r\na\r\n\0";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn our_hop_comes_first() {
        let mut out = Vec::new();
        insert_via(ASKED.as_bytes(), b"SIP/2.0/TLS imp1;branch=z9hG4bKus;alias", &mut out);
        let mut index = Index::default();
        let request = index.read(&out).expect("a start line");
        assert_eq!(request.via().map(|it| it.host), Ok(&b"imp1"[..]));
        assert_eq!(request.list(Name::Via).count(), 4);
        assert!(out.ends_with(&ASKED.as_bytes()[21..]));
    }

    #[test]
    fn refusals_carry_what_their_status_asks_for() {
        let mut index = Index::default();
        let request = index.read(ASKED.as_bytes()).expect("a start line");
        let fault = Fault::new(406)
            .with("Accept", "application/pidf+xml")
            .with("X-Why", "a\r\nb".to_owned());
        let mut out = Vec::new();
        refusal(&request, &fault, Some("t"), &mut out);
        let mut index = Index::default();
        let answer = index.read(&out).expect("a status line");
        assert_eq!((answer.status(), answer.reason()), (406, &b"Not Acceptable"[..]));
        assert_eq!(answer.header(Name::Accept), Some(&b"application/pidf+xml"[..]));
        assert_eq!(answer.other("x-why").next(), Some(&b"a  b"[..]));
    }
}
