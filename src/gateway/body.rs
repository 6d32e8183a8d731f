//! The text of a SIP MESSAGE, whatever it is wrapped in.
//!
//! RFC 3428, 7; RFC 7572, 7; and what Microsoft's clients send: plain text with or without a font
//! (`msgr=`), HTML, RTF, and multiparts of these. The plain text is taken wherever it stands, else
//! HTML without its markup, else RTF without its control words. Pictures, ink and files are **not**
//! taken; a multipart that has nothing else is of no use.

use std::borrow::Cow;

use crate::gateway::legal;
use crate::gateway::part::{Part, is};
use crate::limits::{BODY_DEPTH_MAX, BODY_PARTS_MAX};

/// A SIP body with what its headers say about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Body<'a> {
    /// The value of Content-Type.
    pub media: Option<&'a [u8]>,
    /// The value of Content-Transfer-Encoding.
    pub transfer: Option<&'a [u8]>,
    /// The value of Content-Encoding.
    pub coding: Option<&'a [u8]>,
    pub octets: &'a [u8],
}

/// There is no text in it that we can read: 415, with `Accept` of
/// [`ACCEPT_TEXT`](crate::gateway::fault::ACCEPT_TEXT) or, if it is `coding`, `Accept-Encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// It is compressed, which we don't read.
    pub coding: bool,
}

impl Unusable {
    /// The header that tells what would be read (RFC 3261, 21.4.13).
    pub fn companion(self) -> (&'static str, &'static str) {
        match self.coding {
            true => ("Accept-Encoding", "identity"),
            false => ("Accept", crate::gateway::fault::ACCEPT_TEXT),
        }
    }
}

/// The forms of one text, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Plain,
    Html,
    Rtf,
}

/// The text, with line ends of XML and nothing that XML does not know. Empty if that is what was
/// said.
pub fn text(body: &Body<'_>) -> Result<String, Unusable> {
    if let Some(text) = plain(body) {
        return Ok(text.to_owned());
    }
    let unusable = Unusable { coding: false };
    let value = |it: Option<&[u8]>| match it {
        None => Ok(String::new()),
        // A copy: a folded value becomes one line.
        Some(it) => std::str::from_utf8(it).map(|it| it.replace(['\r', '\n'], " ")),
    };
    if body.coding.is_some_and(|it| !it.trim_ascii().eq_ignore_ascii_case(b"identity")) {
        return Err(Unusable { coding: true });
    }
    let media = value(body.media).map_err(|_| unusable)?;
    let encoding = value(body.transfer).map_err(|_| unusable)?;
    let whole = Part {
        media: media.trim(),
        encoding: encoding.trim(),
        attached: false,
        octets: body.octets,
    };
    let mut found = Vec::new();
    let mut parts_left = BODY_PARTS_MAX;
    collect(whole, 0, &mut parts_left, &mut found);
    // Stable: of two alike, the first.
    found.sort_by_key(|(form, _)| *form);
    let mut empty = false;
    for (form, part) in found {
        let Some(text) = rendered(form, &part) else { continue };
        if !text.trim().is_empty() {
            return Ok(text);
        }
        empty = true;
    }
    if empty { Ok(String::new()) } else { Err(unusable) }
}

/// The text of a body that is nothing but text in UTF-8 and can be said as it is: what nearly all are.
/// `None` says nothing.
fn plain<'a>(body: &Body<'a>) -> Option<&'a str> {
    const PLAIN: &[u8] = b"text/plain";
    if body.coding.is_some() || body.transfer.is_some() {
        return None;
    }
    let (kind, params) = body.media?.split_at_checked(PLAIN.len())?;
    let is_simple = |it: &u8| !matches!(it, b'"' | b'\\' | b'\r' | b'\n');
    if !kind.eq_ignore_ascii_case(PLAIN) || !params.iter().all(is_simple) {
        return None;
    }
    let mut params = params.split(|it| *it == b';').map(<[u8]>::trim_ascii);
    if params.next().is_some_and(|it| !it.is_empty()) {
        return None;
    }
    let charset = params.find_map(|it| {
        let at = it.iter().position(|it| *it == b'=')?;
        let (name, value) = it.split_at_checked(at)?;
        name.trim_ascii().eq_ignore_ascii_case(b"charset").then_some(value)
    });
    if charset.is_some_and(|it| !it.eq_ignore_ascii_case(b"=utf-8")) {
        return None;
    }
    let text = std::str::from_utf8(body.octets).ok()?;
    let is_said = matches!(legal(text), Cow::Borrowed(_)) && !text.trim().is_empty();
    // A byte order mark is no part of a text.
    (is_said && !text.starts_with('\u{FEFF}')).then_some(text)
}

fn collect<'a>(
    part: Part<'a>,
    depth: usize,
    parts_left: &mut usize,
    found: &mut Vec<(Form, Part<'a>)>,
) {
    let kind = part.kind();
    let form = match kind {
        it if is(it, "text/plain") => Form::Plain,
        it if is(it, "text/html") => Form::Html,
        it if is(it, "text/rtf") || is(it, "application/rtf") => Form::Rtf,
        it if it.get(..10).is_some_and(|it| is(it, "multipart/")) && depth < BODY_DEPTH_MAX => {
            for part in part.parts() {
                let Some(left) = parts_left.checked_sub(1) else { return };
                *parts_left = left;
                if !part.attached {
                    collect(part, depth + 1, parts_left, found);
                }
            }
            return;
        }
        _ => return,
    };
    found.push((form, part));
}

fn rendered(form: Form, part: &Part<'_>) -> Option<String> {
    let text = part.text()?;
    let text = match form {
        Form::Plain => text,
        Form::Html => super::html::text_of(&text),
        Form::Rtf => super::rtf::text_of(&text)?,
    };
    Some(match legal(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(text) => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(media: &str, octets: &str) -> Result<String, Unusable> {
        text(&Body { media: Some(media.as_bytes()), octets: octets.as_bytes(), ..Body::default() })
    }

    fn taken(media: &str, octets: &str) -> String {
        of(media, octets).unwrap_or_else(|_| panic!("{media}: {octets}"))
    }

    #[test]
    fn plain_html_and_rtf_alone() {
        assert_eq!(taken("text/plain; charset=UTF-8", "Grüße"), "Grüße");
        assert_eq!(taken("text/plain;charset=UTF-8;msgr=WABNAFMA", "hi"), "hi");
        assert_eq!(taken("TEXT/PLAIN", "a\r\nb\u{1}"), "a\nb\u{FFFD}");
        assert_eq!(taken("text/html", "<p>a<br>b</p>"), "a\nb");
        assert_eq!(taken("text/rtf", r"{\rtf1 a\par b}"), "a\nb");
        assert_eq!(taken("text/plain", ""), "");
        assert_eq!(taken("text/html", "&#0;&#1;"), "\u{FFFD}\u{FFFD}");
        let none = Body { octets: b"hi", ..Body::default() };
        assert_eq!(text(&none).unwrap(), "hi");
        let coded = Body { transfer: Some(b"base64"), octets: b"aGk=", ..Body::default() };
        assert_eq!(text(&coded).unwrap(), "hi");
        let folded =
            Body { media: Some(b"text/plain;\r\n charset=\"utf-16\""), octets: b"h\0i\0", ..none };
        assert_eq!(text(&folded).unwrap(), "hi");
    }

    #[test]
    fn what_is_of_no_use_says_what_would_be() {
        for media in [
            "image/gif",
            "text/x-msmsgsinvite; charset=UTF-8",
            "application/x-ms-ink",
            "application/ms-imdn+xml",
            "text/plain; charset=koi8-r",
            "text/rtf",
            "multipart/mixed",
            "message/cpim",
            "multipart",
        ] {
            let unusable = of(media, "x").unwrap_err();
            assert!(!unusable.coding);
            assert_eq!(unusable.companion().0, "Accept");
            assert!(unusable.companion().1.starts_with("text/plain, "));
        }
        let zipped = Body { coding: Some(b"gzip"), octets: b"x", ..Body::default() };
        assert_eq!(text(&zipped).unwrap_err().companion().0, "Accept-Encoding");
        let plain = Body { coding: Some(b" Identity"), octets: b"x", ..Body::default() };
        assert_eq!(text(&plain).unwrap(), "x");
    }

    const ALTERNATIVE: &str = "--b\r\nContent-Type: text/rtf\r\n\r\n{\\rtf1 rtf}\r\n\
        --b\r\nContent-Type: text/html; charset=UTF-8\r\nContent-Transfer-Encoding: base64\r\n\r\n\
        PGI+aHRtbDwvYj4=\r\n\
        --b\r\nContent-Type: text/plain; charset=UTF-8; msgr=WAAtAE0A\r\n\
        Content-Transfer-Encoding: quoted-printable\r\n\r\npl=C3=A4in=\r\n\r\n--b--\r\n";

    #[test]
    fn the_plainest_form_wins_wherever_it_stands() {
        let media = "multipart/alternative; boundary=b";
        assert_eq!(taken(media, ALTERNATIVE), "pläin");
        let no_plain = ALTERNATIVE.replace("text/plain", "image/gif");
        assert_eq!(taken(media, &no_plain), "html");
        let no_html = no_plain.replace("text/html", "application/x-ms-ink");
        assert_eq!(taken(media, &no_html), "rtf");
        let nothing = no_html.replace("text/rtf", "image/png");
        assert!(of(media, &nothing).is_err());
        // What can't be decoded is passed over for the next best.
        let spoilt = ALTERNATIVE.replace("quoted-printable", "x-unknown");
        assert_eq!(taken(media, &spoilt), "html");
        let files = ALTERNATIVE.replace(
            "Content-Type: text/plain",
            "Content-Disposition: attachment; filename=x\r\nContent-Type: text/plain",
        );
        assert_eq!(taken(media, &files), "html");
    }

    #[test]
    fn multiparts_nest_to_a_bound() {
        let mut body = "one".to_owned();
        let mut media = "text/plain".to_owned();
        for depth in 0..12 {
            let result = of(&media, &body);
            assert_eq!(result.is_ok(), depth <= BODY_DEPTH_MAX, "{depth}");
            body = format!("--b{depth}\r\nContent-Type: {media}\r\n\r\n{body}\r\n--b{depth}--\r\n");
            media = format!("multipart/mixed;\r\n boundary=\"b{depth}\"");
        }
        let wide =
            format!("{}\r\n\r\nlast\r\n--b--", "--b\r\nContent-Type: a/b\r\n\r\n.\r\n".repeat(70));
        assert!(of("multipart/mixed; boundary=b", &format!("{wide}--b\r\n\r\nx")).is_err());
        let related = "--b\r\nContent-Type: text/html\r\n\r\n<img src=cid:x>see\r\n\
            --b\r\nContent-Type: image/gif\r\n\r\nGIF\r\n--b--";
        assert_eq!(taken("multipart/related; type=\"text/html\"; boundary=b", related), "see");
    }

    #[test]
    fn spoilt_bodies_never_stop_us() {
        let samples = [
            ("multipart/alternative; boundary=b", ALTERNATIVE),
            ("text/html", "<p a=\"b\">x &amp; y<br><!-- c --><script>s</script></p>"),
            ("text/rtf", r"{\rtf1{\fonttbl x}\uc1 a\u252?\'fc\par{\*\x y}\bin2 zz}"),
        ];
        for (media, sample) in samples {
            for cut in 0..sample.len() {
                let octets = sample.as_bytes();
                let (head, tail) = octets.split_at(cut);
                for spoilt in [head.to_vec(), tail.to_vec(), [tail, head].concat()] {
                    for media in [media, "multipart/x;boundary=b", "text/html", "text/rtf"] {
                        let media = Some(media.as_bytes());
                        text(&Body { media, octets: &spoilt, ..Body::default() }).ok();
                    }
                }
            }
        }
    }
}
