//! What the partner hears: frames cut by Content-Length, read by rsip where it can, else here.
//!
//! RFC 3261, 7 and 18.3, as far as a partner of ours needs them. Nothing is shared with the switch's own reader, so
//! that a mistake there can't hide in a mirror. rsip reads no GRUU (colons in URI parameters), no unknown method and
//! no reason phrase; such messages fall to a small reader below, and each message says which of the two it was. Where
//! both can read they must agree on every header. Does **not** refuse what is merely odd: that is the tests' business.

use std::fmt;

/// Which reader understood a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The crate.
    Rsip,
    /// The small one of this module.
    Own,
}

/// What stands at the front of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Not whole yet.
    More,
    /// A CRLF between messages: keep-alive (RFC 5626, 4.4.1).
    Blank,
    /// A message of so many octets.
    Message(usize),
}

/// Finds the end of the first message, or says why there can't be one.
pub(super) fn cut(bytes: &[u8]) -> Result<Cut, String> {
    if bytes.starts_with(b"\r\n") {
        return Ok(Cut::Blank);
    }
    let Some(head) = bytes.windows(4).position(|it| it == b"\r\n\r\n").map(|it| it + 4) else {
        let tail = bytes.iter().take(80).map(|it| char::from(*it)).collect::<String>();
        return if bytes.len() > 65_536 {
            Err(format!("no end of headers: {tail}"))
        } else {
            Ok(Cut::More)
        };
    };
    let text = String::from_utf8_lossy(bytes.get(..head).unwrap_or_default());
    let lengths: Vec<&str> = text
        .split("\r\n")
        .filter_map(|it| it.split_once(':'))
        .filter(|(name, _)| ["content-length", "l"].contains(&name.trim().to_lowercase().as_str()))
        .map(|(_, value)| value.trim())
        .collect();
    let [length] = lengths.as_slice() else {
        return Err(format!("{} Content-Lengths, wanted one", lengths.len()));
    };
    let length: usize = length.parse().map_err(|_| format!("Content-Length is {length}"))?;
    Ok(if bytes.len() < head + length { Cut::More } else { Cut::Message(head + length) })
}

/// A message as the partner has understood it.
#[derive(Clone)]
pub struct Message {
    /// As it was on the wire.
    pub raw: Vec<u8>,
    /// Who has read it.
    pub reader: Reader,
    /// A request's method; for a response the one of CSeq.
    pub method: String,
    /// A request's URI; empty in a response.
    pub uri: String,
    /// A response's status; 0 in a request.
    pub status: u16,
    /// A response's reason phrase.
    pub reason: String,
    /// Names and values in their order.
    pub headers: Vec<(String, String)>,
    /// Behind the blank line.
    pub body: Vec<u8>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.raw))
    }
}

impl Message {
    /// Reads a whole frame. With it comes a complaint if both readers could, and differ.
    pub(super) fn read(raw: &[u8]) -> Result<(Self, Option<String>), String> {
        let own = by_hand(raw)?;
        let Some(by_rsip) = by_rsip(raw, &own) else { return Ok((own, None)) };
        let same = (own.headers == by_rsip.headers)
            && (own.method, own.uri, own.status, own.body)
                == (
                    by_rsip.method.clone(),
                    by_rsip.uri.clone(),
                    by_rsip.status,
                    by_rsip.body.clone(),
                );
        let complaint =
            (!same).then(|| format!("rsip and the small reader differ over\n{by_rsip:?}"));
        Ok((by_rsip, complaint))
    }

    /// The first header of that name, in any case; absent is empty.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|it| it.0.eq_ignore_ascii_case(name)).map_or("", |it| &it.1)
    }

    /// Whether it has a header of that name.
    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|it| it.0.eq_ignore_ascii_case(name))
    }

    /// All values of that name: lines in their order, each cut at its commas.
    pub fn list(&self, name: &str) -> Vec<&str> {
        let lines = self.headers.iter().filter(|it| it.0.eq_ignore_ascii_case(name));
        lines.flat_map(|it| split(&it.1, ',')).map(str::trim).filter(|it| !it.is_empty()).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The number of CSeq.
    pub fn number(&self) -> u32 {
        self.header("CSeq").split_whitespace().next().and_then(|it| it.parse().ok()).unwrap_or(0)
    }

    /// The branch of the top Via.
    pub(super) fn branch(&self) -> &str {
        self.list("Via").first().map_or("", |it| param(it, "branch"))
    }
}

/// A parameter behind a value's `>`, or behind the URI where there are no brackets.
pub fn param<'a>(value: &'a str, name: &str) -> &'a str {
    let behind = value.rfind('>').map_or(value, |at| value.get(at + 1..).unwrap_or_default());
    split(behind, ';')
        .into_iter()
        .skip(1)
        .map(|it| it.split_once('=').unwrap_or((it, "")))
        .find(|it| it.0.trim().eq_ignore_ascii_case(name))
        .map_or("", |it| it.1.trim())
}

/// The URI of a From, To, Contact, Route.
pub fn uri(value: &str) -> &str {
    // A display name in quotes may hold brackets of its own.
    let end =
        value.rfind('>').filter(|&end| split(value.get(..end).unwrap_or_default(), '<').len() > 1);
    match end.and_then(|end| value.get(..end)) {
        Some(front) => split(front, '<').last().copied().unwrap_or_default(),
        None => split(value, ';').first().map_or("", |it| it.trim()),
    }
}

/// `sip:user@host;..` without scheme, port and parameters.
pub fn address(uri: &str) -> &str {
    let bare = uri.split_once(':').map_or(uri, |it| it.1);
    let bare = bare.split(';').next().unwrap_or_default();
    match bare.rfind(':') {
        Some(at) if bare.rfind('@').is_none_or(|it| it < at) => bare.get(..at).unwrap_or_default(),
        _ => bare,
    }
}

/// The domain of `user@domain`.
pub(super) fn domain(address: &str) -> &str {
    address.rsplit('@').next().unwrap_or_default()
}

/// Cuts at a character, but not inside quotes or brackets.
fn split(text: &str, at: char) -> Vec<&str> {
    let (mut parts, mut begin, mut quoted, mut angled, mut escaped) =
        (Vec::new(), 0, false, false, false);
    for (i, it) in text.char_indices() {
        match it {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if it == at && !quoted && !angled => {
                parts.push(text.get(begin..i).unwrap_or_default());
                begin = i + it.len_utf8();
            }
            '<' if !quoted => angled = true,
            '>' if !quoted => angled = false,
            _ => {}
        }
    }
    parts.push(text.get(begin..).unwrap_or_default());
    parts
}

/// Names are made whole, for the two readers must agree and rsip knows no compact forms.
fn by_hand(raw: &[u8]) -> Result<Message, String> {
    let end = raw.windows(4).position(|it| it == b"\r\n\r\n").ok_or("no end of headers")?;
    let head = String::from_utf8_lossy(raw.get(..end).unwrap_or_default()).into_owned();
    let body = raw.get(end + 4..).unwrap_or_default().to_vec();
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap_or_default();
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in lines {
        if line.starts_with([' ', '\t']) {
            let (_, value) = headers.last_mut().ok_or("a fold without a header")?;
            value.push(' ');
            value.push_str(line.trim());
        } else {
            let (name, value) = line.split_once(':').ok_or_else(|| format!("no header: {line}"))?;
            headers.push((whole_name(name.trim()).to_owned(), value.trim().to_owned()));
        }
    }
    let mut message = Message {
        raw: raw.to_vec(),
        reader: Reader::Own,
        method: String::new(),
        uri: String::new(),
        status: 0,
        reason: String::new(),
        headers,
        body,
    };
    let parts: Vec<&str> = start.splitn(3, ' ').collect();
    match parts.as_slice() {
        ["SIP/2.0", status, reason] => {
            message.status = status.parse().map_err(|_| format!("status {status}"))?;
            message.reason = (*reason).to_owned();
            message.method =
                message.header("CSeq").split_whitespace().nth(1).unwrap_or_default().to_owned();
        }
        [method, uri, "SIP/2.0"] => {
            (message.method, message.uri) = ((*method).to_owned(), (*uri).to_owned())
        }
        _ => return Err(format!("no start line: {start}")),
    }
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        if !message.has(name) {
            return Err(format!("no {name} in\n{message:?}"));
        }
    }
    Ok(message)
}

/// `own` is for what rsip loses: the phrase and, in a response, the method.
fn by_rsip(raw: &[u8], own: &Message) -> Option<Message> {
    let named = |headers: &rsip::Headers| {
        headers
            .iter()
            .map(|it| {
                let text = it.to_string();
                let (name, value) = text.split_once(':').unwrap_or((&text, ""));
                // Its own spelling of the name; the one on the wire is gone.
                (whole_name(name.trim()).to_owned(), value.trim().to_owned())
            })
            .collect::<Vec<_>>()
    };
    let read = rsip::SipMessage::try_from(raw).ok()?;
    let mut headers = match &read {
        rsip::SipMessage::Request(it) => named(&it.headers),
        rsip::SipMessage::Response(it) => named(&it.headers),
    };
    // The spelling counts for nothing, so the wire's is kept: the value is what both have to find.
    for (one, other) in headers.iter_mut().zip(&own.headers) {
        if one.0.eq_ignore_ascii_case(&other.0) {
            one.0.clone_from(&other.0);
        }
    }
    let mut message = Message { raw: raw.to_vec(), reader: Reader::Rsip, headers, ..own.clone() };
    match read {
        rsip::SipMessage::Request(it) => {
            (message.method, message.uri, message.body) =
                (it.method.to_string(), it.uri.to_string(), it.body);
        }
        rsip::SipMessage::Response(it) => {
            (message.status, message.body) = (it.status_code.code(), it.body);
        }
    }
    Some(message)
}

/// RFC 3261, 7.3.3.
fn whole_name(name: &str) -> &str {
    match name {
        "v" | "V" => "Via",
        "f" | "F" => "From",
        "t" | "T" => "To",
        "i" | "I" => "Call-ID",
        "m" | "M" => "Contact",
        "l" | "L" => "Content-Length",
        "c" | "C" => "Content-Type",
        "o" | "O" => "Event",
        "k" | "K" => "Supported",
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "MESSAGE sip:alice@contoso.example SIP/2.0\r\nVia: SIP/2.0/TLS sip.a.example:5061;branch=z9hG4bK1\r\n\
        From: <sip:bob@a.example>;tag=g\r\nTo: <sip:alice@contoso.example>\r\nCall-ID: c1\r\nCSeq: 1 MESSAGE\r\n\
        Content-Type: text/plain\r\nContent-Length: 3\r\n\r\nhi!";

    fn read(text: &str) -> (Message, Option<String>) {
        Message::read(text.as_bytes()).expect("a message")
    }

    #[test]
    fn rsip_reads_what_it_can_and_the_small_reader_the_rest() {
        let (message, complaint) = read(PLAIN);
        assert_eq!((message.reader, complaint), (Reader::Rsip, None));
        let gruu = PLAIN.replace(
            "alice@contoso.example SIP",
            "alice@contoso.example;opaque=user:epid:x-1;gruu SIP",
        );
        let (message, complaint) = read(&gruu);
        assert_eq!((message.reader, complaint), (Reader::Own, None));
        assert_eq!(message.uri, "sip:alice@contoso.example;opaque=user:epid:x-1;gruu");
        assert_eq!(
            (message.method.as_str(), message.number(), message.text().as_str()),
            ("MESSAGE", 1, "hi!")
        );
        let (message, _) = read(&PLAIN.replace("MESSAGE", "BENOTIFY"));
        assert_eq!((message.reader, message.method.as_str()), (Reader::Own, "BENOTIFY"));
    }

    #[test]
    fn a_stream_is_cut_by_its_lengths() {
        let two = format!("\r\n\r\n{PLAIN}{PLAIN}");
        let mut rest = two.as_bytes();
        let mut cuts = Vec::new();
        while !rest.is_empty() {
            let cut = cut(rest).expect("well made");
            cuts.push(cut);
            rest = match cut {
                Cut::Blank => &rest[2..],
                Cut::Message(len) => &rest[len..],
                Cut::More => panic!("it is all there"),
            };
        }
        let whole = Cut::Message(PLAIN.len());
        assert_eq!(cuts, [Cut::Blank, Cut::Blank, whole, whole]);
        for end in 1..PLAIN.len() {
            assert_eq!(cut(&PLAIN.as_bytes()[..end]), Ok(Cut::More), "{end}");
        }
        assert!(cut(PLAIN.replace("Content-Length: 3\r\n", "").as_bytes()).is_err());
    }

    #[test]
    fn values_come_apart_where_they_should() {
        let value = "\"a,b;<c>\"<sip:x@y.example:5061;opaque=state:F:Q;lr>;epid=12;TAG=\"q;,\"";
        assert_eq!(split(&format!("{value}, <sip:z@y>"), ','), [value, " <sip:z@y>"]);
        assert_eq!((param(value, "epid"), param(value, "tag")), ("12", "\"q;,\""));
        assert_eq!(uri("\"a <b>\"<sip:x@y;p=1>;tag=2"), "sip:x@y;p=1");
        assert_eq!((uri("sip:x@y;tag=2"), uri("<sip:x@y>")), ("sip:x@y", "sip:x@y"));
        assert_eq!(param("<sip:x@y;tag=no>", "tag"), "");
        assert_eq!(param("SIP/2.0/TLS a.example;branch=z9hG4bK7;k=\"1;2\"", "branch"), "z9hG4bK7");
        assert_eq!(address("sip:x@y.example:5061;transport=tls"), "x@y.example");
        assert_eq!(address("sip:y.example;transport=tls"), "y.example");
    }
}
