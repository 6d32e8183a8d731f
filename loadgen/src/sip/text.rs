//! SIP messages in a stream: cut out, searched, answered (RFC 3261, 7, 18.3, 8.2.6).

use memchr::memchr;
use memchr::memmem::Finder;

/// Octets of a body above which the far end talks nonsense.
const LENGTH_MAX: usize = 1 << 20;

/// Names in short.
const SHORT: [(&[u8], &str); 9] = [
    (b"c", "Content-Type"),
    (b"f", "From"),
    (b"i", "Call-ID"),
    (b"l", "Content-Length"),
    (b"m", "Contact"),
    (b"o", "Event"),
    (b"t", "To"),
    (b"u", "Allow-Events"),
    (b"v", "Via"),
];

/// The prepared searches.
pub struct Reader {
    end: Finder<'static>,
    length: Finder<'static>,
    call: Finder<'static>,
    number: Finder<'static>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            end: Finder::new(b"\r\n\r\n"),
            length: Finder::new(b"\r\nContent-Length:"),
            call: Finder::new(b"\r\nCall-ID:"),
            number: Finder::new(b"\r\nCSeq:"),
        }
    }
}

/// One whole message.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Start line and headers, with the blank line.
    pub head: &'a [u8],
    /// What follows.
    pub body: &'a [u8],
    /// Of a response; 0 for a request.
    pub status: u16,
}

impl Reader {
    /// The first message and its length, if it is whole; CRLFs before it belong to it.
    pub fn cut<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, String> {
        let blank = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let rest = bytes.get(blank..).unwrap_or_default();
        let Some(end) = self.end.find(rest) else { return Ok(None) };
        let head = rest.get(..end + 4).unwrap_or_default();
        let length = self.value(head, &self.length).and_then(number).filter(|it| *it <= LENGTH_MAX);
        let length = length.ok_or_else(|| format!("no length: {}", shown(head)))?;
        let Some(body) = rest.get(end + 4..end + 4 + length) else { return Ok(None) };
        Ok(Some((Frame { head, body, status: status(head) }, blank + end + 4 + length)))
    }

    /// The message in a datagram, whose end is its own where it tells no length (RFC 3261, 18.3).
    pub fn datagram<'a>(&self, bytes: &'a [u8]) -> Result<Option<Frame<'a>>, String> {
        let blank = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let rest = bytes.get(blank..).unwrap_or_default();
        let Some(end) = self.end.find(rest) else { return Ok(None) };
        let (head, rest) = rest.split_at(end + 4);
        let body = match self.value(head, &self.length) {
            None => Some(rest),
            Some(length) => number(length).and_then(|length| rest.get(..length)),
        };
        let body = body.ok_or_else(|| format!("cut off: {}", shown(head)))?;
        Ok(Some(Frame { head, body, status: status(head) }))
    }

    fn value<'a>(&self, head: &'a [u8], name: &Finder<'_>) -> Option<&'a [u8]> {
        let Some(at) = name.find(head) else {
            // Written in another way, or in short.
            let name = name.needle().trim_ascii();
            let name = std::str::from_utf8(name.strip_suffix(b":").unwrap_or(name)).ok()?;
            return lines(head).find_map(|line| of(line, name));
        };
        let at = at + name.needle().len();
        let rest = head.get(at..)?;
        Some(rest.get(..memchr(b'\r', rest)?)?.trim_ascii())
    }

    /// Its Call-ID.
    pub fn call<'a>(&self, frame: &Frame<'a>) -> &'a [u8] {
        self.value(frame.head, &self.call).unwrap_or_default()
    }

    /// Number and method of its CSeq.
    pub fn cseq<'a>(&self, frame: &Frame<'a>) -> (u32, &'a [u8]) {
        let value = self.value(frame.head, &self.number).unwrap_or_default();
        let blank = memchr(b' ', value).unwrap_or(value.len());
        let count = value.get(..blank).and_then(number).unwrap_or(0) as u32;
        (count, value.get(blank..).unwrap_or_default().trim_ascii())
    }
}

impl<'a> Frame<'a> {
    /// The method of a request.
    pub fn method(&self) -> &'a [u8] {
        self.head.get(..memchr(b' ', self.head).unwrap_or(0)).unwrap_or_default()
    }

    /// The URI of a request.
    pub fn uri(&self) -> &'a [u8] {
        self.head.split(|b| *b == b' ').nth(1).unwrap_or_default()
    }

    /// All values of a header, one a line.
    pub fn headers(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        lines(self.head).filter_map(move |line| of(line, name))
    }

    /// The first value of a header as text, or nothing.
    pub fn header(&self, name: &'a str) -> &'a str {
        self.headers(name).next().map(|it| std::str::from_utf8(it).unwrap_or("")).unwrap_or("")
    }

    /// The tag in From or To.
    pub fn tag(&self, name: &'a str) -> &'a str {
        let value = self.header(name);
        let params = value.rsplit_once('>').map_or(value, |it| it.1);
        params.split(';').find_map(|it| it.trim().strip_prefix("tag=")).unwrap_or("")
    }

    /// Both as text, for a message to a person.
    pub fn shown(&self) -> String {
        format!("{}{}", shown(self.head), shown(self.body))
    }

    /// Answers a request; `tag` goes to To where there is none.
    pub fn answer(&self, status: &str, tag: &str, more: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"SIP/2.0 ");
        out.extend_from_slice(status.as_bytes());
        out.extend_from_slice(b"\r\n");
        for line in lines(self.head) {
            let is_to = of(line, "To").is_some();
            let echoed = match line.first().map(u8::to_ascii_lowercase) {
                Some(b'v') => of(line, "Via").is_some(),
                Some(b'f') => of(line, "From").is_some(),
                Some(b'i') => of(line, "Call-ID").is_some(),
                Some(b'c') => of(line, "Call-ID").or_else(|| of(line, "CSeq")).is_some(),
                _ => is_to,
            };
            if echoed {
                out.extend_from_slice(line);
                if is_to && memchr::memmem::find(line, b";tag=").is_none() {
                    out.extend_from_slice(b";tag=");
                    out.extend_from_slice(tag.as_bytes());
                }
                out.extend_from_slice(b"\r\n");
            }
        }
        out.extend_from_slice(more.as_bytes());
        out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    }
}

/// Puts a request together; `head` has every header but the length, each with its CRLF.
pub fn request(method: &str, uri: &str, head: &str, body: &str) -> String {
    format!("{method} {uri} SIP/2.0\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// The URI in a name-addr.
pub fn uri_in(value: &str) -> &str {
    let Some((_, rest)) = value.split_once('<') else { return value };
    rest.split_once('>').map_or(rest, |it| it.0)
}

/// The value of a header line, if it has that name or its short form (RFC 3261, 7.3.3).
fn of<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (own, value) = line.split_at_checked(memchr(b':', line)?)?;
    let own = own.trim_ascii();
    let short = match own {
        [_] => SHORT.iter().find(|it| own.eq_ignore_ascii_case(it.0)).map(|it| it.1),
        _ => None,
    };
    let same = own.eq_ignore_ascii_case(name.as_bytes())
        || short.is_some_and(|it| it.eq_ignore_ascii_case(name));
    same.then(|| value.get(1..).unwrap_or_default().trim_ascii())
}

/// Of a start line; 0: a request.
fn status(head: &[u8]) -> u16 {
    match head.strip_prefix(b"SIP/2.0 ") {
        Some(line) => line.get(..3).and_then(number).unwrap_or(999) as u16,
        None => 0,
    }
}

fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = head;
    std::iter::from_fn(move || {
        let end = memchr(b'\n', rest)?;
        let line = rest.get(..end)?;
        rest = rest.get(end + 1..)?;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    })
}

fn number(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace("\r\n", " | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "NOTIFY sip:w@127.0.0.5 SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bKx\r\n\
        From: <sip:u0@d>;tag=abc\r\nTo: \"w\"<sip:w@e;x=1>\r\nCall-ID: c1\r\nCSeq: 12 NOTIFY\r\n\
        Record-Route: <sip:d;lr>\r\nContent-Length: 3\r\n\r\nabc";

    #[test]
    fn messages_are_cut_in_any_pieces_and_answered() {
        let reader = Reader::default();
        let answer = "SIP/2.0 200 OK\r\nCSeq: 1 X\r\nContent-Length: 0\r\n\r\n";
        let text = format!("\r\n\r\n{TEXT}{answer}{TEXT}SIP/2.0");
        for piece in 1..text.len() {
            let (mut held, mut found) = (Vec::new(), Vec::new());
            for part in text.as_bytes().chunks(piece) {
                held.extend_from_slice(part);
                while let Some((frame, length)) = reader.cut(&held).unwrap() {
                    found.push((frame.status, frame.body.len(), reader.cseq(&frame).0));
                    held.drain(..length);
                }
            }
            assert_eq!(found, [(0, 3, 12), (200, 0, 1), (0, 3, 12)], "pieces of {piece}");
        }
        let (frame, _) = reader.cut(TEXT.as_bytes()).unwrap().unwrap();
        assert_eq!((frame.method(), frame.uri()), (&b"NOTIFY"[..], &b"sip:w@127.0.0.5"[..]));
        assert_eq!((frame.tag("From"), frame.tag("To")), ("abc", ""));
        assert_eq!(frame.header("record-route"), "<sip:d;lr>");
        let mut out = Vec::new();
        frame.answer("200 OK", "t", "Expires: 1\r\n", &mut out);
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("To: \"w\"<sip:w@e;x=1>;tag=t\r\nCall-ID: c1\r\n"), "{out}");
        assert!(out.ends_with("Expires: 1\r\nContent-Length: 0\r\n\r\n") && !out.contains("Route"));
    }

    #[test]
    fn names_may_be_short_or_small_and_a_datagram_ends_by_itself() {
        let reader = Reader::default();
        let text = b"MESSAGE sip:a SIP/2.0\r\nv: SIP/2.0/UDP x;branch=z\r\nf: <sip:b>;tag=1\r\n\
            t: <sip:a>\r\ni: c9\r\ncseq : 4 MESSAGE\r\nl: 2\r\n\r\nhi";
        let (frame, length) = reader.cut(text).unwrap().unwrap();
        assert_eq!((length, frame.body, reader.cseq(&frame).0), (text.len(), &b"hi"[..], 4));
        assert_eq!((reader.call(&frame), frame.tag("From")), (&b"c9"[..], "1"));
        let mut out = Vec::new();
        frame.answer("200 OK", "t", "", &mut out);
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("t: <sip:a>;tag=t\r\ni: c9\r\ncseq : 4"), "{out}");
        let free = b"MESSAGE sip:a SIP/2.0\r\nVia: x\r\n\r\nhi";
        assert_eq!(reader.datagram(free).unwrap().unwrap().body, b"hi");
        assert!(reader.datagram(b"MESSAGE sip:a SIP/2.0\r\nl: 3\r\n\r\nhi").is_err());
    }

    #[test]
    fn a_message_without_a_length_is_not_for_this_reader() {
        assert!(Reader::default().cut(b"BYE sip:a SIP/2.0\r\n\r\n").is_err());
    }
}
