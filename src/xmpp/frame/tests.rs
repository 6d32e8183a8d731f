//! What a stream may hold and how it is cut.

use crate::xmpp::{
    fault::StreamFault,
    frame::{Framer, Limits, Next},
    stanza::{ChildKind, Kind, Ns, Stanza},
};

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback' \
    to='example.com' from='juliet@example.com' version='1.0' xml:lang='en'>";

fn open() -> Framer {
    let mut framer = Framer::default();
    let next = framer.next(HEADER.as_bytes(), &Limits::CLIENT);
    assert!(matches!(next, Ok(Next::Open(_, len)) if len == HEADER.len()), "{next:?}");
    framer
}

fn one(element: &str) -> Result<Stanza, StreamFault> {
    match open().next(element.as_bytes(), &Limits::CLIENT) {
        Ok(Next::Element(stanza, len)) => {
            assert_eq!(len, element.len(), "{element}");
            Ok(stanza)
        }
        Ok(next) => panic!("{element}: {next:?}"),
        Err(fault) => Err(fault),
    }
}

#[test]
fn namespaces_are_found_by_name() {
    for ns in Ns::ALL {
        assert_eq!(Ns::of(ns.name().as_bytes()), *ns);
    }
    assert_eq!(Ns::of(b"jabber:clienT"), Ns::Other);
}

#[test]
fn header_tells_addresses_and_namespaces() {
    let mut framer = Framer::default();
    let Ok(Next::Open(header, _)) = framer.next(HEADER.as_bytes(), &Limits::CLIENT) else {
        panic!("no header");
    };
    let text =
        |range| super::Header::value(HEADER.as_bytes(), range).expect("is there").into_owned();
    assert_eq!(text(&header.to), "example.com");
    assert_eq!(text(&header.from), "juliet@example.com");
    assert_eq!(text(&header.lang), "en");
    assert_eq!(header.version(HEADER.as_bytes()), Some((1, 0)));
    assert!(header.dialback);
    assert_eq!(header.id, None);
}

#[test]
fn message_tells_its_root_and_children() {
    let text = "<message xmlns='jabber:client' from='a@b/c' to=\"d&amp;e@f\" id='x' type='chat' \
        xml:lang='de'><body>hi &lt;there&gt;</body><active \
        xmlns='http://jabber.org/protocol/chatstates'/><r:request xmlns:r='urn:xmpp:receipts'/>\
        <x xmlns='foo'><body>no</body></x></message>";
    let stanza = one(text).unwrap();
    let frame = text.as_bytes();
    assert_eq!((stanza.kind, stanza.ns), (Kind::Message, Ns::Client));
    assert_eq!(stanza.to.unwrap().raw(frame), "d&amp;e@f");
    assert_eq!(stanza.to.unwrap().value(frame), "d&e@f");
    assert_eq!(stanza.from.unwrap().raw(frame), "a@b/c");
    assert_eq!(stanza.lang.unwrap().raw(frame), "de");
    assert_eq!(stanza.child_text(frame, ChildKind::Body).unwrap(), "hi <there>");
    let kinds: Vec<_> = stanza.children().iter().map(|it| it.kind).collect();
    let wanted =
        [ChildKind::Body, ChildKind::ChatActive, ChildKind::ReceiptRequest, ChildKind::Other];
    assert_eq!(kinds, wanted);
    assert_eq!(stanza.elements, 6);
}

#[test]
fn stream_elements_are_known() {
    for (text, kind) in [
        ("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", Kind::StartTls),
        ("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AA=</auth>", Kind::Auth),
        ("<stream:features/>", Kind::Features),
        (
            "<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
            Kind::StreamError,
        ),
        ("<db:result from='a' to='b'>0</db:result>", Kind::DbResult),
        ("<d:verify xmlns:d='jabber:server:dialback'/>", Kind::DbVerify),
        ("<message xmlns='jabber:server'/>", Kind::Unknown),
        ("<message xmlns=''/>", Kind::Unknown),
        ("<r xmlns='urn:xmpp:sm:3'/>", Kind::Sm),
    ] {
        assert_eq!(one(text).map(|it| it.kind), Ok(kind), "{text}");
    }
}

#[test]
fn nasties_end_the_stream() {
    use StreamFault::{
        BadNamespacePrefix, InvalidNamespace, NotWellFormed, PolicyViolation, RestrictedXml,
    };
    for (text, fault) in [
        ("<message><!-- x --></message>", RestrictedXml),
        ("<!DOCTYPE a>", RestrictedXml),
        ("<!-- x -->", RestrictedXml),
        ("<?php ?>", RestrictedXml),
        ("<message><!DOCTYPE a></message>", RestrictedXml),
        ("<message><?php ?></message>", RestrictedXml),
        ("<message><body>&foo;</body></message>", RestrictedXml),
        ("<message a='&foo;'/>", RestrictedXml),
        ("<message><body>&#0;</body></message>", NotWellFormed),
        ("<message><body>&#xD800;</body></message>", NotWellFormed),
        ("<message><body>&#xFFFE;</body></message>", NotWellFormed),
        ("<message><body>&#x110000;</body></message>", NotWellFormed),
        ("<message><body>&#X41;</body></message>", NotWellFormed),
        ("<message><body>& </body></message>", NotWellFormed),
        ("<message><body>]]></body></message>", NotWellFormed),
        ("<message><body>\u{1}</body></message>", NotWellFormed),
        ("<message><body>\u{FFFE}</body></message>", NotWellFormed),
        ("<message a='<'/>", NotWellFormed),
        ("<message a='1' a='2'/>", NotWellFormed),
        ("<message a='1'b='2'/>", NotWellFormed),
        ("<message a=1/>", NotWellFormed),
        ("<message a/>", NotWellFormed),
        ("<message / >", NotWellFormed),
        ("<message><body></message></body>", NotWellFormed),
        ("<message></messages>", NotWellFormed),
        ("<message></messag>", NotWellFormed),
        ("<message><a:b:c/></message>", NotWellFormed),
        ("<message><:b/></message>", NotWellFormed),
        ("<message><b:/></message>", NotWellFormed),
        ("<message><1b/></message>", NotWellFormed),
        ("<message>< b/></message>", NotWellFormed),
        ("<message><x:b/></message>", BadNamespacePrefix),
        ("<message><stream:b/></message>", BadNamespacePrefix),
        ("<message><db:b/></message>", BadNamespacePrefix),
        ("<message x:a='1'/>", BadNamespacePrefix),
        ("<message><a xmlns:p='q'/><p:b/></message>", BadNamespacePrefix),
        ("<c:message xmlns:c='jabber:client'/>", BadNamespacePrefix),
        ("<m><a xmlns:p='u' xmlns:q='u' p:a='' q:a=''/></m>", NotWellFormed),
        ("<m><a xmlns:p=''/></m>", InvalidNamespace),
        ("<m><a xmlns:xml='u'/></m>", InvalidNamespace),
        ("<m><a xmlns:xmlns='u'/></m>", InvalidNamespace),
        ("<m><a xmlns='http://www.w3.org/2000/xmlns/'/></m>", InvalidNamespace),
        ("<m><a xmlns='jabber:&#99;lient'/></m>", InvalidNamespace),
        ("<m><a xmlns='a b'/></m>", InvalidNamespace),
        ("text", NotWellFormed),
        ("</message>", NotWellFormed),
    ] {
        assert_eq!(one(text), Err(fault), "{text}");
    }
    let many: String = (0..65).map(|i| format!(" a{i}=''")).collect();
    assert_eq!(one(&format!("<m{many}/>")), Err(PolicyViolation));
    let deep = format!("{}{}", "<a>".repeat(65), "</a>".repeat(65));
    assert_eq!(one(&deep), Err(PolicyViolation));
}

#[test]
fn what_xml_allows_passes() {
    for text in [
        "<message><body><![CDATA[<a>&b;]]]]></body></message>",
        "<message\n\tto = 'a'\r\n/>",
        "<message  ></message \n>",
        "<message><body>]] > ]> \u{7F} \u{10FFFF} \u{FFFD} &#x10FFFF;&#9;</body></message>",
        "<message a='>' b=\"'\" c='\"'/>",
        "<message><größe xmlns='x'/></message>",
        "<m><a xmlns:p='u' xmlns:q='v' p:a='' q:a='' a=''/></m>",
        "<m><a xmlns:p='u'><p:b xmlns:p='v' p:x=''/><p:c/></a></m>",
        "<m xml:lang='en' xml:space='x'><a xml:lang='de'/></m>",
        "<m><a xmlns:xml='http://www.w3.org/XML/1998/namespace'/></m>",
        "<m to='a' ot='b' from='c' morf='d'/>",
    ] {
        assert!(one(text).is_ok(), "{text}: {:?}", one(text));
    }
    let many: String = (0..64).map(|i| format!(" a{i}=''")).collect();
    assert!(one(&format!("<m{many}/>")).is_ok());
    let deep = format!("{}{}", "<a>".repeat(64), "</a>".repeat(64));
    assert!(one(&deep).is_ok());
}

/// Expat's vectors of CVE-2022-25235: malformed UTF-8 in names, values and text.
#[test]
fn malformed_utf8_is_refused_everywhere() {
    let bad: &[&[u8]] = &[
        b"\x80",
        b"\xBF",
        b"\xC0\x80",
        b"\xC1\xBF",
        b"\xC3\x28",
        b"\xC3",
        b"\xDF\x7F",
        b"\xDF\xC0",
        b"\xE0\x80\x80",
        b"\xE0\x9F\xBF",
        b"\xE2\x28\xA1",
        b"\xE2\x82\x28",
        b"\xE2\x82",
        b"\xED\xA0\x80",
        b"\xED\xBF\xBF",
        b"\xEF\x3F\xBF",
        b"\xEF\xBF",
        b"\xEF\xBF\x3F",
        b"\xF0\x80\x80\x80",
        b"\xF0\x8F\xBF\xBF",
        b"\xF0\x28\x8C\xBC",
        b"\xF0\x90\x28\xBC",
        b"\xF0\x90\x8C\x28",
        b"\xF0\x90\x8C",
        b"\xF4\x90\x80\x80",
        b"\xF5\x80\x80\x80",
        b"\xF8\x88\x80\x80\x80",
        b"\xFC\x84\x80\x80\x80\x80",
        b"\xFE",
        b"\xFF",
        b"\xC3\xA9\x80",
        b"\xEF\xBF\xBE",
        b"\xEF\xBF\xBF",
    ];
    let places: &[(&[u8], &[u8])] = &[
        (b"<message><body>text", b"</body></message>"),
        (b"<message><body>", b" text and more of it</body></message>"),
        (b"<message to='a", b"'/>"),
        (b"<message><a", b" xmlns='x'/></message>"),
        (b"<message><a ", b"='x'/></message>"),
        (b"<message><a xmlns:p", b"='x'/></message>"),
        (b"<message><a xmlns='x", b"'/></message>"),
        (b"<message><![CDATA[x", b"]]></message>"),
        (b"<message><a></a", b"></message>"),
    ];
    for octets in bad {
        for (before, behind) in places {
            let text = [*before, octets, *behind].concat();
            let next = open().next(&text, &Limits::CLIENT);
            assert!(next.is_err(), "{:?}: {next:?}", String::from_utf8_lossy(&text));
        }
    }
}

#[test]
fn headers_that_are_none_of_ours_are_refused() {
    let good = "<stream:stream xmlns='jabber:server' \
        xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
    let cases = [
        (good.replace("etherx", "ether"), StreamFault::InvalidNamespace),
        (good.replace("jabber:server", "jabber:other"), StreamFault::InvalidNamespace),
        (
            good.replace("<stream:", "<s:").replace("xmlns:stream", "xmlns:s"),
            StreamFault::BadNamespacePrefix,
        ),
        (good.replace("<stream:stream", "<stream:flood"), StreamFault::BadFormat),
        (good.replace(" version", " xmlns:db='x' version"), StreamFault::InvalidNamespace),
        (good.replace(" version", " q:v"), StreamFault::BadNamespacePrefix),
        (good.replace(" version", " xmlns='a' version"), StreamFault::NotWellFormed),
        (good.replace('>', "/>"), StreamFault::NotWellFormed),
        (
            format!("<?xml version='1.0' encoding='latin1'?>{good}"),
            StreamFault::UnsupportedEncoding,
        ),
        (format!("<?xml version='1.1'?>{good}"), StreamFault::NotWellFormed),
        (format!("<?xml encoding='utf-8'?>{good}"), StreamFault::NotWellFormed),
        (format!("<?xml version='1.0'?><?xml version='1.0'?>{good}"), StreamFault::RestrictedXml),
        (format!("<?php ?>{good}"), StreamFault::RestrictedXml),
        (format!("<!DOCTYPE a []>{good}"), StreamFault::RestrictedXml),
        ("GET / HTTP/1.1\r\n".to_owned(), StreamFault::NotWellFormed),
        ("\u{FEFF}<stream:stream>".to_owned(), StreamFault::NotWellFormed),
    ];
    for (text, fault) in cases {
        let next = Framer::default().next(text.as_bytes(), &Limits::STRANGER);
        assert_eq!(next, Err(fault), "{text}");
    }
    let declared = format!("<?xml version=\"1.0\" encoding='UTF-8' standalone='yes' ?>\n{good}");
    let next = Framer::default().next(declared.as_bytes(), &Limits::STRANGER);
    assert!(matches!(next, Ok(Next::Open(..))), "{next:?}");
}

const STREAM: &str = " <message to='a>b'><body>x<![CDATA[</body>]]>]]&gt;</body></message>\n\n\
    <presence/><iq type='get' id=\"'\"><ping xmlns='urn:xmpp:ping'/></iq>\
    <message><body>gr\u{FC}\u{DF}e \u{1F600}</body><a/><b></b ></message></stream:stream >rest";

/// The items of a stream that arrives in pieces of these lengths.
fn items(text: &[u8], mut piece: impl FnMut() -> usize) -> Vec<Result<Next, StreamFault>> {
    let (mut framer, mut start, mut end) = (Framer::default(), 0, 0);
    let mut items = Vec::new();
    while start < text.len() {
        let step = match framer.next(&text[start..end], &Limits::CLIENT) {
            Ok(Next::Incomplete) if end == text.len() => break,
            Ok(Next::Incomplete) => {
                end = text.len().min(end + piece());
                continue;
            }
            Ok(Next::Whitespace(len)) => {
                start += len;
                continue;
            }
            Err(fault) => {
                items.push(Err(fault));
                break;
            }
            Ok(next) => next,
        };
        start += match &step {
            Next::Open(_, len) | Next::Element(_, len) | Next::Close(len) => *len,
            Next::Incomplete | Next::Whitespace(_) => 0,
        };
        items.push(Ok(step));
    }
    items
}

#[test]
fn pieces_make_no_difference() {
    let text = [HEADER, STREAM].concat();
    let whole = items(text.as_bytes(), || text.len());
    assert_eq!(whole.len(), 6);
    for cut in 1..text.len() {
        let mut first = true;
        let cut_once =
            items(text.as_bytes(), || if std::mem::take(&mut first) { cut } else { text.len() });
        assert_eq!(cut_once, whole, "cut at {cut}");
    }
    for seed in 1..200_u64 {
        let mut state = seed;
        let random = items(text.as_bytes(), || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % 23 + 1
        });
        assert_eq!(random, whole, "seed {seed}");
    }
    assert_eq!(items(text.as_bytes(), || 1), whole);
}

#[test]
fn forbidden_xml_in_pieces_is_refused_at_once() {
    let header = HEADER.len();
    for (bad, fault) in [
        ("<message><!DOCTYPE", StreamFault::RestrictedXml),
        ("<message><!--", StreamFault::RestrictedXml),
        ("<message><?x", StreamFault::RestrictedXml),
        ("<?xml ", StreamFault::RestrictedXml),
        ("<message a='<", StreamFault::NotWellFormed),
        ("</message", StreamFault::NotWellFormed),
    ] {
        let text = [HEADER, bad].concat();
        let found = items(text.as_bytes(), || 1);
        assert_eq!(found.last(), Some(&Err(fault)), "{bad} after {header}");
    }
}

#[test]
fn a_stanza_over_the_limit_is_not_waited_for() {
    let limits = Limits { octets_max: 100, ..Limits::CLIENT };
    let fits = format!("<m>{}</m>", "x".repeat(93));
    let over = format!("<m>{}</m>", "x".repeat(94));
    let next = open().next(fits.as_bytes(), &limits);
    assert!(matches!(next, Ok(Next::Element(_, 100))), "{next:?}");
    assert_eq!(open().next(over.as_bytes(), &limits), Err(StreamFault::PolicyViolation));
    for (text, wanted) in [(&fits, true), (&over, false)] {
        let mut framer = open();
        let mut last = Ok(Next::Incomplete);
        for end in 1..=text.len() {
            last = framer.next(&text.as_bytes()[..end], &limits);
            if last != Ok(Next::Incomplete) {
                assert!(end <= 100);
                break;
            }
        }
        assert_eq!(last.is_ok(), wanted, "{last:?}");
    }
}

#[test]
fn cost_is_linear_however_octets_come() {
    // The finder goes on where it stopped: what it went over is all but what is there.
    let text = format!("<m>{}</m>", "<a b='c'>x</a>".repeat(4_000));
    let limits = Limits::SERVER;
    let mut framer = open();
    for end in 1..text.len() {
        assert_eq!(framer.next(&text.as_bytes()[..end], &limits), Ok(Next::Incomplete));
        assert_eq!(framer.boundary.scanned() as usize, end);
    }
    let next = framer.next(text.as_bytes(), &limits);
    assert!(matches!(next, Ok(Next::Element(_, len)) if len == text.len()));
    assert_eq!(framer.boundary.scanned(), 0);
}
