//! Spoilt bodies, presence documents and URIs through the gateway's readers.

use tandem::gateway::body::{self, Body};
use tandem::gateway::pidf::{self, Resource};
use tandem::gateway::{address, typing};
use tandem::policy::Pidf;

use crate::corpus::Mutator;

const INPUTS: usize = if cfg!(debug_assertions) { 60_000 } else { 2_000_000 };

/// A sample, and pieces that are put into it.
struct Spoiler {
    dice: Mutator,
    samples: &'static [&'static str],
    pieces: &'static [&'static str],
}

impl Spoiler {
    fn next(&mut self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.samples[self.dice.below(self.samples.len())].as_bytes());
        for _ in 0..=self.dice.below(5) {
            let at = self.dice.below(out.len() + 1);
            let end = (at + self.dice.below(12)).min(out.len());
            match self.dice.below(6) {
                0 => out.truncate(at),
                1 => drop(out.drain(at..end)),
                2 => {
                    let octet = self.dice.below(256) as u8;
                    if let Some(it) = out.get_mut(at) {
                        *it = octet;
                    }
                }
                3 => {
                    let copy = out[at..end].to_vec();
                    let to = self.dice.below(out.len() + 1);
                    out.splice(to..to, copy.repeat(1 + self.dice.below(40)));
                }
                _ => {
                    let piece = self.pieces[self.dice.below(self.pieces.len())];
                    out.splice(at..at, piece.bytes());
                }
            }
        }
    }
}

const MULTIPART: &str = "--b\r\nContent-Type: text/rtf\r\n\r\n{\\rtf1\\ansi{\\fonttbl{\\f0 A;}}\\uc1 \
    a\\u252?\\'fc\\par{\\*\\x y}\\bin2 zz}\r\n--b\r\nContent-Type: text/html; charset=utf-16\r\n\
    Content-Transfer-Encoding: base64\r\n\r\nPGI+aHRtbDwvYj4=\r\n--b\r\nContent-Type: \
    multipart/mixed; boundary=\"c\"\r\n\r\n--c\r\nContent-Type: text/plain; msgr=WAA\r\n\
    Content-Transfer-Encoding: quoted-printable\r\n\r\npl=C3=A4in=\r\n\r\n--c--\r\n--b--\r\n";

#[test]
fn spoilt_bodies_have_a_text_or_none() {
    let mut spoiler = Spoiler {
        dice: Mutator::new(0x7A2D_0B0D),
        samples: &[
            MULTIPART,
            "<html><body><p title='a>b'>x &amp; &#252;<br/><!-- c --><script>s</script></p></body>",
            "{\\rtf1\\ansi\\ansicpg1252\\uc1 Hello \\u-10179?\\u-8704?\\par{\\pict\\bin3 abc}}",
            "plain text: Gr\u{fc}\u{df}e",
        ],
        pieces: &[
            "--b",
            "--b--",
            "\r\n",
            "\r\n\r\n",
            "<",
            ">",
            "&",
            "&#x",
            ";",
            "<!--",
            "{",
            "}",
            "\\",
            "\\u",
            "\\bin99",
            "\\uc9",
            "=",
            "=\r\n",
            "charset=utf-16",
            "\0",
            "\"",
            "text/html",
            "\u{FFFE}",
        ],
    };
    let media: [&[u8]; 6] = [
        b"multipart/alternative; boundary=b",
        b"text/html; charset=\"iso-8859-1\"",
        b"text/rtf",
        b"text/plain; charset=utf-16",
        b"multipart/related;boundary=\"b",
        b"text/html",
    ];
    let (mut octets, mut taken) = (Vec::new(), 0);
    for i in 0..INPUTS {
        spoiler.next(&mut octets);
        let body = Body { media: Some(media[i % media.len()]), octets: &octets, ..Body::default() };
        if let Ok(text) = body::text(&body) {
            taken += 1;
            assert!(text.len() <= 3 * octets.len() + 8, "{text}");
            let is_legal =
                |c: char| matches!(c, '\t' | '\n' | ' '..) && !matches!(c, '\u{FFFE}'..='\u{FFFF}');
            assert!(text.chars().all(is_legal), "{text:?}");
        }
        let media = std::str::from_utf8(&octets).ok().map(|_| octets.as_slice());
        body::text(&Body { media, transfer: media, octets: MULTIPART.as_bytes(), coding: None })
            .ok();
    }
    assert!(taken > INPUTS / 10 && taken < INPUTS, "{taken}");
}

#[test]
fn spoilt_presence_documents_are_read_or_refused() {
    let mut spoiler = Spoiler {
        dice: Mutator::new(0x7A2D_091D),
        samples: &[
            "<?xml version=\"1.0\" encoding=\"utf-16\"?><presence xmlns=\"urn:ietf:params:xml:ns:pidf\" \
             entity=\"sip:a@b\"><tuple id=\"0\"><status><basic>open</basic><ep:activities><ep:activity>\
             busy</ep:activity></ep:activities><show>away</show></status><contact priority=\"0.5\">x\
             </contact><note xml:lang='de'>Gr\u{fc}\u{df}e &amp;</note></tuple><dm:person><rpid:activities>\
             <rpid:busy/></rpid:activities></dm:person></presence>",
            "<presence><presentity uri=\"sip:a@b\"/><atom id=\"1\"><address uri=\"sip:a@b\" \
             priority=\"0.8\"><status status=\"open\"/><msnsubstatus substatus=\"busy\"/></address></atom>\
             </presence>",
            "<presentity uri=\"a@b\"><availability aggregate=\"300\"/><activity aggregate=\"600\"/>\
             </presentity>",
            "<isComposing><state>active</state><refresh>90</refresh></isComposing>",
            "<KeyboardActivity><status status=\"type\"/></KeyboardActivity>",
        ],
        pieces: &[
            "<tuple>",
            "</tuple>",
            "<a>",
            "<a/>",
            "<basic>open",
            "&lt;",
            "&#1;",
            "&x;",
            "<!DOCTYPE a>",
            "<![CDATA[",
            "]]>",
            "<?x?>",
            " a='b'",
            "'",
            "\"",
            "<",
            ">",
            "\0",
            "priority='9'",
            "xml:lang=''",
        ],
    };
    let (mut octets, mut out, mut read) = (Vec::new(), Vec::new(), 0);
    let user = tandem::address::Address::parse("a@b.example").expect("an address");
    for _ in 0..INPUTS {
        spoiler.next(&mut octets);
        typing::read_composing(&octets);
        typing::read_keyboard(&octets);
        let Ok(document) = pidf::read(&octets, Some("en")) else { continue };
        read += 1;
        // What was read can be said in both protocols, and is what it was.
        out.clear();
        document.shown.write_stanza(user.view(), user.view(), &mut out);
        let text = String::from_utf8_lossy(&out);
        assert!(
            tandem::xmpp::frame::one(&out, tandem::xmpp::frame::Content::Client).is_some(),
            "{text}"
        );
        let resources = [Resource { name: "r", shown: &document.shown }];
        out.clear();
        pidf::write(Pidf::Standard, user.view(), None, &resources, &mut out);
        let again = pidf::read(&out, None).expect("our own");
        assert_eq!(again.shown.show, document.shown.show);
    }
    assert!(read > INPUTS / 50 && read < INPUTS, "{read}");
}

#[test]
fn spoilt_uris_are_addresses_or_refused() {
    let mut spoiler = Spoiler {
        dice: Mutator::new(0x7A2D_0ADD),
        samples: &[
            "sip:d'artagnan@xmpp.example;gr=B%C3%BCro%202",
            "sip:x%5C3Ay:secret@sip.example:5061;transport=tls?Subject=x",
            "sip:alice@contoso.example;opaque=user:epid:R-DtrGmC2mqnXUEvX3NdjCAA;gruu",
            "pres:%EF%BC%BC27@xn--bcher-kva.example",
            "sip:+15551234@sip.example;user=phone",
        ],
        pieces: &[
            "%", "%5C", "%zz", "%C3%BC", "%20", "@", ":", ";", "?", "=", "gr=", "\\27", "[", "]",
            ".", "-", "%00", "\u{130}", "\u{FB01}", "%CC%87", "'", "sips:",
        ],
    };
    let (mut octets, mut mapped) = (Vec::new(), 0);
    for _ in 0..INPUTS {
        spoiler.next(&mut octets);
        let Ok(found) = address::to_address(&octets) else { continue };
        mapped += 1;
        // The way back leads to the same user, and names no other.
        let uri = address::to_uri(found.view());
        assert!(uri.is_ascii() && !uri.contains(['<', '>', '"', ' ', '\r', '\n']), "{uri}");
        assert_eq!(address::to_address(uri.as_bytes()), Ok(found), "{uri}");
    }
    assert!(mapped > INPUTS / 10 && mapped < INPUTS, "{mapped}");
}
