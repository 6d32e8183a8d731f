//! A SIP message as the demo's partner reads it: with rsip where that can, else line by line.
//!
//! rsip refuses URIs with a colon in a parameter and methods it does not know; such messages are
//! read by the few lines here. Nothing of the switch's own reader is used, so that what both agree
//! on was said by two programs. Does **not** read folded headers or compact names: the switch writes
//! neither.

use std::fmt::Write as _;

/// A whole message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The first line.
    pub start: String,
    /// Names and values as they stood.
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// rsip could read it.
    pub by_rsip: bool,
}

impl Message {
    /// The first whole message in `octets` and how many it took; `None`: there is none yet.
    pub fn cut(octets: &[u8]) -> Result<Option<(Self, usize)>, String> {
        let blanks = octets.iter().take_while(|it| matches!(it, b'\r' | b'\n')).count();
        let rest = octets.get(blanks..).unwrap_or_default();
        let Some(head) = rest.windows(4).position(|it| it == b"\r\n\r\n") else { return Ok(None) };
        let text = String::from_utf8_lossy(rest.get(..head).unwrap_or_default()).into_owned();
        let mut message = Self::lines(&text)?;
        let length = message.header("Content-Length").trim().to_owned();
        let length: usize =
            length.parse().map_err(|_| format!("no Content-Length in {}", message.start))?;
        let end = head + 4 + length;
        let Some(whole) = rest.get(..end) else { return Ok(None) };
        message.body =
            String::from_utf8_lossy(whole.get(head + 4..).unwrap_or_default()).into_owned();
        if let Some(theirs) = Self::rsip(whole) {
            let same = |(one, other): (&(String, String), &(String, String))| {
                // rsip writes the names that it knows in its own way.
                one.0.eq_ignore_ascii_case(&other.0) && one.1 == other.1
            };
            if theirs.headers.len() != message.headers.len()
                || !theirs.headers.iter().zip(&message.headers).all(same)
                || theirs.body != message.body
            {
                return Err(format!(
                    "rsip reads {} instead of {}",
                    theirs.shown(),
                    message.shown()
                ));
            }
            message.by_rsip = true;
        }
        Ok(Some((message, blanks + end)))
    }

    fn lines(head: &str) -> Result<Self, String> {
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let pair = |line: &str| {
            let (name, value) =
                line.split_once(':').ok_or_else(|| format!("\"{line}\" is no header"))?;
            Ok::<_, String>((name.trim().to_owned(), value.trim().to_owned()))
        };
        let headers = lines.map(pair).collect::<Result<_, _>>()?;
        Ok(Self { start, headers, ..Self::default() })
    }

    /// The same by rsip, if it can.
    fn rsip(whole: &[u8]) -> Option<Self> {
        let message = rsip::SipMessage::try_from(whole).ok()?;
        let (headers, body) = match &message {
            rsip::SipMessage::Request(it) => (&it.headers, &it.body),
            rsip::SipMessage::Response(it) => (&it.headers, &it.body),
        };
        let lines: Vec<String> = headers.iter().map(ToString::to_string).collect();
        let mut read = Self::lines(&format!("\r\n{}", lines.join("\r\n"))).ok()?;
        read.body = String::from_utf8_lossy(body).into_owned();
        Some(read)
    }

    /// All values of a header, whatever the case of its name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(it, _)| it.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The first value of a header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(it, _)| it.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value.as_str())
    }

    /// The method of a request, the status of a response.
    pub fn what(&self) -> &str {
        match self.start.strip_prefix("SIP/2.0 ") {
            Some(rest) => rest.get(..3).unwrap_or_default(),
            None => self.start.split(' ').next().unwrap_or_default(),
        }
    }

    /// The Request-URI.
    pub fn uri(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// It answers something.
    pub fn is_response(&self) -> bool {
        self.start.starts_with("SIP/2.0 ")
    }

    /// A parameter of a header's first value that stands behind the address.
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.header(name).rsplit('>').next()?.split(';').find_map(|it| it.strip_prefix("tag="))
    }

    /// On one line, for people.
    pub fn shown(&self) -> String {
        let mut out = self.start.clone();
        for (name, value) in &self.headers {
            // To a String nothing can fail.
            write!(out, " | {name}: {value}").ok();
        }
        write!(out, " | {}", self.body.replace("\r\n", " | ")).ok();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "MESSAGE sip:ann@b.example SIP/2.0\r\nVia: SIP/2.0/TCP a.example;branch=z9hG4bK1\r\nFrom: <sip:bob@a.example>;tag=1\r\nTo: <sip:ann@b.example>\r\nCall-ID: c1\r\nCSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi";

    #[test]
    fn a_plain_message_is_read_by_rsip_and_one_with_a_gruu_is_not() {
        let two = format!("\r\n{PLAIN}{PLAIN}");
        let (first, length) = Message::cut(two.as_bytes()).unwrap().unwrap();
        assert_eq!((first.what(), &*first.body, first.by_rsip), ("MESSAGE", "hi", true));
        assert_eq!(length, PLAIN.len() + 2);
        let gruu =
            PLAIN.replace("sip:ann@b.example SIP", "sip:ann@b.example;opaque=user:epid:x;gruu SIP");
        let (message, _) = Message::cut(gruu.as_bytes()).unwrap().unwrap();
        assert!(!message.by_rsip);
        assert_eq!(message.uri(), "sip:ann@b.example;opaque=user:epid:x;gruu");
        assert_eq!(message.tag("From"), Some("1"));
        assert_eq!(message.tag("To"), None);
    }

    #[test]
    fn what_is_not_whole_waits() {
        for end in 0..PLAIN.len() {
            assert_eq!(Message::cut(PLAIN.as_bytes().get(..end).unwrap()).unwrap(), None);
        }
    }
}
