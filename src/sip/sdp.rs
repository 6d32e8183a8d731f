//! SDP for instant messages that travel in the SIP dialog itself (RFC 4566, RFC 3264; Microsoft's
//! `m=message`).
//!
//! An offer is read as far as it matters: whether there is a line for messages over SIP, what it
//! takes, and which other media must be turned down in the answer. Address and port are dummies and
//! **never** connected to. The last line may lack its end and `accept-types` may end in a blank, as
//! Microsoft writes them. MSRP (`TCP/MSRP`) is **not** spoken, so such a line is of no use here.

use crate::sip::message::Message;
use crate::sip::multipart;

/// What an offer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// One for each `m=` line, in their order.
    media: Vec<Media>,
}

/// One `m=` line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Media {
    /// Messages in this dialog; the word of the line, and what they take.
    Texts { word: &'static str, takes: Takes },
    /// Turned down: the line without its port, cut where the port stood.
    Other(String, String),
}

/// Which bodies the far end takes in a MESSAGE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takes {
    /// `text/plain`, without which nobody can talk to it.
    pub plain: bool,
    /// `application/im-iscomposing+xml` (RFC 3994).
    pub composing: bool,
}

/// What an INVITE carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// An offer in which texts can be talked about.
    Texts(Offer),
    /// Media of other kinds only, or no offer at all: 488.
    Media,
    /// An invitation to a conference (`application/ms-conf-invite+xml`): 488.
    Group,
    /// Of a type that says nothing to us: 415.
    Unknown,
    /// Not SDP although it says so, or a multipart without its boundary: 400.
    Malformed,
}

/// Looks at the body of an INVITE, whatever it is wrapped in.
pub fn read_body(request: &Message<'_>) -> Body {
    let body = request.body();
    let Some(type_) = request.content_type() else {
        return if body.is_empty() { Body::Media } else { Body::Unknown };
    };
    let essence = [type_.type_, b"/", type_.subtype].concat();
    if !type_.type_.eq_ignore_ascii_case(b"multipart") {
        return read_part(&essence, body);
    }
    let Some(boundary) = type_.param("boundary") else { return Body::Malformed };
    let mut best = Body::Unknown;
    for part in multipart::parts(boundary, body) {
        let found = match part.nested() {
            Some(nested) => {
                nested.map(|it| read_part(&it.essence(), it.body)).fold(Body::Unknown, weightier)
            }
            None => read_part(&part.essence(), part.body),
        };
        best = weightier(best, found);
    }
    best
}

/// The Accept of a 415: what an INVITE may carry.
pub const ACCEPT: &str = "application/sdp, multipart/mixed, multipart/alternative";

/// Which part of a multipart decides: one that forbids before one that allows.
fn weightier(a: Body, b: Body) -> Body {
    let weight = |it: &Body| match it {
        Body::Group => 4,
        Body::Texts(_) => 3,
        Body::Malformed => 2,
        Body::Media => 1,
        Body::Unknown => 0,
    };
    if weight(&b) > weight(&a) { b } else { a }
}

fn read_part(essence: &[u8], body: &[u8]) -> Body {
    if essence.eq_ignore_ascii_case(b"application/ms-conf-invite+xml") {
        return Body::Group;
    }
    if !essence.eq_ignore_ascii_case(b"application/sdp") {
        return Body::Unknown;
    }
    match Offer::read(body) {
        Ok(Some(offer)) => Body::Texts(offer),
        Ok(None) => Body::Media,
        Err(Malformed) => Body::Malformed,
    }
}

/// It is no session description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Offer {
    /// Reads an offer or an answer; `None`: it has no line for texts that could be used.
    pub fn read(body: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut lines =
            body.split(|it| *it == b'\n').map(|it| it.strip_suffix(b"\r").unwrap_or(it));
        // RFC 4566, 5: the version comes first, and there is one.
        if lines.next() != Some(b"v=0") {
            return Err(Malformed);
        }
        let mut media = Vec::new();
        for line in lines {
            if line.is_empty() {
                continue;
            }
            let Some((letter, value)) = line.split_at_checked(2) else { return Err(Malformed) };
            match letter {
                b"m=" if media.len() >= LINES => return Err(Malformed),
                b"m=" => media.push(read_media(value)?),
                b"a=" => {
                    if let Some(Media::Texts { takes, .. }) = media.last_mut()
                        && let Some(types) = value.strip_prefix(b"accept-types:")
                    {
                        *takes = read_types(types);
                    }
                }
                [b'a'..=b'z', b'='] => {}
                _ => return Err(Malformed),
            }
        }
        let offer = Self { media };
        Ok(offer.takes().is_some_and(|it| it.plain).then_some(offer))
    }

    /// What the far end takes.
    pub fn takes(&self) -> Option<Takes> {
        self.media.iter().find_map(|it| match it {
            Media::Texts { takes, .. } => Some(*takes),
            Media::Other(..) => None,
        })
    }

    /// Our answer: texts for the user of this URI, nothing else (RFC 3264, 6). `host`: our FQDN, a
    /// dummy that must be there.
    pub fn answer(&self, host: &str, user: &str, types: &str) -> Vec<u8> {
        let mut text = head(host);
        let mut is_first = true;
        for media in &self.media {
            match media {
                Media::Texts { word, .. } if std::mem::take(&mut is_first) => {
                    text += &format!("m={word} 5060 sip {user}\r\na=accept-types:{types}\r\n");
                }
                Media::Texts { word, .. } => text += &format!("m={word} 0 sip null\r\n"),
                Media::Other(word, rest) => text += &format!("m={word} 0 {rest}\r\n"),
            }
        }
        text.into_bytes()
    }
}

/// Our offer.
pub fn offer(host: &str, types: &str) -> Vec<u8> {
    let head = head(host);
    format!("{head}m=message 5060 sip null\r\na=accept-types:{types}\r\n").into_bytes()
}

/// `m=` lines of one description; nobody needs as many.
const LINES: usize = 16;

fn head(host: &str) -> String {
    format!("v=0\r\no=- 0 0 IN IP4 {host}\r\ns=session\r\nc=IN IP4 {host}\r\nt=0 0\r\n")
}

/// RFC 4566, 5.14: media, port, protocol, formats.
fn read_media(value: &[u8]) -> Result<Media, Malformed> {
    let value = std::str::from_utf8(value).map_err(|_| Malformed)?;
    let mut words = value.split_ascii_whitespace();
    let (Some(media), Some(port), Some(protocol)) = (words.next(), words.next(), words.next())
    else {
        return Err(Malformed);
    };
    let number = port.split('/').next().unwrap_or_default();
    if !media.bytes().all(|it| it.is_ascii_graphic()) || number.parse::<u16>().is_err() {
        return Err(Malformed);
    }
    let word = match media {
        "message" => "message",
        "x-ms-message" => "x-ms-message",
        _ => "",
    };
    // RFC 3264, 6: port 0 is a line that was turned down before.
    if !word.is_empty() && protocol.eq_ignore_ascii_case("sip") && number != "0" {
        let takes = Takes { plain: true, composing: false };
        return Ok(Media::Texts { word, takes });
    }
    let rest = [protocol].into_iter().chain(words).collect::<Vec<_>>().join(" ");
    Ok(Media::Other(media.to_owned(), rest))
}

/// `text/plain text/rtf ... ` (RFC 4975, 8.6).
fn read_types(types: &[u8]) -> Takes {
    let mut takes = Takes::default();
    for it in types.split(u8::is_ascii_whitespace) {
        let it = it.to_ascii_lowercase();
        match it.as_slice() {
            b"text/plain" | b"text/*" | b"*" => takes.plain = true,
            b"application/im-iscomposing+xml" => takes.composing = true,
            _ => {}
        }
    }
    takes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Index;

    const OFFER: &str = "v=0\r\no=- 0 0 IN IP4 198.51.100.77\r\ns=session\r\n\
c=IN IP4 198.51.100.77\r\nt=0 0\r\nm=message 5060 sip null\r\n\
a=accept-types:text/plain text/rtf multipart/alternative image/gif ";

    fn body(type_: &str, body: &str) -> Body {
        let length = body.len();
        let text = format!(
            "INVITE sip:bob@a.example SIP/2.0\r\nVia: SIP/2.0/TLS b.example;branch=z9hG4bK1\r\n\
From: <sip:a@b.example>;tag=1\r\nTo: <sip:bob@a.example>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\
Content-Type: {type_}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let mut index = Index::default();
        read_body(&index.read(text.as_bytes()).unwrap())
    }

    /// The last line may lack its end, and end in a blank.
    #[test]
    fn the_offer_of_lync_is_answered_for_the_user() {
        let Body::Texts(offer) = body("application/sdp;call-type=im", OFFER) else { panic!() };
        assert_eq!(offer.takes(), Some(Takes { plain: true, composing: false }));
        let answer = offer.answer("imp1.a.example", "sip:bob@a.example", "text/plain");
        assert_eq!(
            String::from_utf8(answer).unwrap(),
            "v=0\r\no=- 0 0 IN IP4 imp1.a.example\r\ns=session\r\nc=IN IP4 imp1.a.example\r\n\
t=0 0\r\nm=message 5060 sip sip:bob@a.example\r\na=accept-types:text/plain\r\n"
        );
        let old = OFFER.replace("m=message", "m=x-ms-message");
        let Body::Texts(offer) = body("Application/SDP", &old) else { panic!() };
        let answer = String::from_utf8(offer.answer("h", "sip:u@h", "text/plain")).unwrap();
        assert!(answer.contains("m=x-ms-message 5060 sip sip:u@h\r\n"));
    }

    #[test]
    fn what_is_not_for_texts_is_told_apart() {
        let audio = OFFER.replace("m=message 5060 sip null", "m=audio 49152 RTP/AVP 0 8");
        assert_eq!(body("application/sdp", &audio), Body::Media);
        let msrp = OFFER.replace("5060 sip null", "7394 TCP/MSRP *");
        assert_eq!(body("application/sdp", &msrp), Body::Media);
        let off = OFFER.replace("5060 sip", "0 sip");
        assert_eq!(body("application/sdp", &off), Body::Media);
        let only = OFFER.replace("text/plain", "application/x-ms-ink");
        assert_eq!(body("application/sdp", &only), Body::Media);
        assert_eq!(body("application/ms-conf-invite+xml", "<Conferencing/>"), Body::Group);
        assert_eq!(body("application/unknown", "x"), Body::Unknown);
        for bad in ["", "x", "v=1\r\n", "v=0\r\nm=\r\n", "v=0\r\nm=audio x y z", "v=0\r\n?!"] {
            assert_eq!(body("application/sdp", bad), Body::Malformed, "{bad}");
        }
    }

    /// RFC 3264, 6: as many lines in the answer, and in their order.
    #[test]
    fn other_media_beside_texts_are_turned_down() {
        let both = OFFER.replace("m=message", "m=audio 49152 RTP/AVP 0 8\r\na=x\r\nm=message");
        let Body::Texts(offer) = body("application/sdp", &both) else { panic!() };
        let answer = String::from_utf8(offer.answer("h", "sip:u@h", "text/plain")).unwrap();
        assert!(answer.ends_with(
            "m=audio 0 RTP/AVP 0 8\r\nm=message 5060 sip sip:u@h\r\na=accept-types:text/plain\r\n"
        ));
    }

    #[test]
    fn offers_are_found_in_parts() {
        let inside = format!(
            "--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\nContent-Type: application/sdp\r\n\r\n{OFFER}\r\n--b--\r\n"
        );
        assert!(matches!(body("multipart/mixed;boundary=\"b\"", &inside), Body::Texts(_)));
        assert_eq!(body("multipart/mixed", &inside), Body::Malformed);
        let group = inside.replace("text/plain", "application/ms-conf-invite+xml");
        assert_eq!(body("multipart/alternative;boundary=b", &group), Body::Group);
    }

    /// Whatever comes, it is one of the four answers.
    #[test]
    fn damaged_offers_are_told_apart_or_refused() {
        let octets = OFFER.as_bytes();
        for at in 0..octets.len() {
            drop(Offer::read(octets.get(..at).unwrap()));
            for value in [0, b'\n', b'\r', b'=', b' ', b'm', 0x80, 0xff] {
                let mut other = octets.to_vec();
                *other.get_mut(at).unwrap() = value;
                if let Ok(Some(offer)) = Offer::read(&other) {
                    let answer = offer.answer("h.example", "sip:u@h.example", "text/plain");
                    assert!(matches!(Offer::read(&answer), Ok(Some(_))));
                }
            }
        }
        let many = format!("{OFFER}\r\n{}", "m=audio 1 RTP/AVP 0\r\n".repeat(LINES));
        assert_eq!(Offer::read(many.as_bytes()), Err(Malformed));
    }

    #[test]
    fn our_offer_can_be_read() {
        let offer = offer("h.example", "text/plain");
        assert!(matches!(Offer::read(&offer), Ok(Some(_))));
    }
}
