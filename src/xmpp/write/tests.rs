//! What is written reads as it was meant.

use crate::xmpp::{
    fault::{StanzaFault, StreamFault},
    frame::{Content, Framer, Header, Limits, Next},
    read,
    stanza::{Kind, Stanza},
    write::{self, Dialback, Features, StreamHeader},
};

/// Writes behind a header of ours and reads it back.
fn read_back(write: impl FnOnce(&mut Vec<u8>)) -> (Vec<u8>, Stanza) {
    let (mut framer, mut out) = (Framer::default(), Vec::new());
    StreamHeader { dialback: true, ..StreamHeader::default() }.write(&mut out);
    framer.next(&out, &Limits::STRANGER).unwrap();
    out.clear();
    write(&mut out);
    match framer.next(&out, &Limits::STRANGER) {
        Ok(Next::Element(stanza, len)) => {
            out.truncate(len);
            (out, stanza)
        }
        other => panic!("{}: {other:?}", String::from_utf8_lossy(&out)),
    }
}

#[test]
fn whatever_is_escaped_reads_the_same() {
    for text in
        ["", "plain", "<a b='c' d=\"e\">&amp;]]></a>", "\t\r\n x", "é\u{FFFD}\u{FEFF}\u{10FFFF}"]
    {
        let (out, _) = read_back(|out| {
            out.extend_from_slice(b"<a");
            write::attr("b", text, out);
            out.push(b'>');
            write::escape_into(text, out);
            out.extend_from_slice(b"</a>");
        });
        assert_eq!(read::attr_of(&out, b"b").unwrap(), text);
        assert_eq!(read::text_of(&out), text);
    }
}

#[test]
fn what_xml_cannot_hold_is_replaced() {
    let mut out = Vec::new();
    write::escape_into("a\0b\u{1F}c\u{FFFE}d\u{FFFF}", &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), "a\u{FFFD}b\u{FFFD}c\u{FFFD}d\u{FFFD}");
}

#[test]
fn headers_read_back() {
    let header = StreamHeader {
        content: Content::Server,
        dialback: true,
        from: Some("a.example"),
        to: Some("b'<"),
        id: Some("&"),
        lang: Some("en"),
    };
    let mut out = Vec::new();
    header.write(&mut out);
    let Ok(Next::Open(read, len)) = Framer::default().next(&out, &Limits::STRANGER) else {
        panic!("{}", String::from_utf8_lossy(&out));
    };
    assert_eq!((len, read.content, read.dialback), (out.len(), Content::Server, true));
    assert_eq!(Header::value(&out, &read.to).unwrap(), "b'<");
    assert_eq!(Header::value(&out, &read.id).unwrap(), "&");
    assert_eq!(read.version(&out), Some((1, 0)));
}

#[test]
fn negotiation_reads_back() {
    let features = Features {
        starttls: Some(true),
        mechanisms: &["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"],
        bindings: &["tls-exporter"],
        dialback: true,
        bind: true,
        session: true,
        sm: true,
        more_raw: "<ver xmlns='urn:xmpp:features:rosterver'/>",
    };
    let (out, stanza) = read_back(|out| features.write(out));
    assert_eq!(stanza.kind, Kind::Features);
    let names: Vec<_> = read::children(&out).map(read::name_of).collect();
    let wanted: [&[u8]; 8] = [
        b"starttls",
        b"mechanisms",
        b"sasl-channel-binding",
        b"dialback",
        b"bind",
        b"session",
        b"sm",
        b"ver",
    ];
    assert_eq!(names, wanted);
    let mechanisms = read::child_of(&out, b"mechanisms").unwrap();
    let mechanisms: Vec<_> = read::children(mechanisms).map(read::text_of).collect();
    assert_eq!(mechanisms, features.mechanisms);

    type Write = fn(&mut Vec<u8>);
    let cases: [(Write, Kind); 9] = [
        (write::starttls, Kind::StartTls),
        (write::proceed, Kind::Proceed),
        (write::tls_failure, Kind::TlsFailure),
        (|out| write::sasl_auth("PLAIN", Some(""), out), Kind::Auth),
        (|out| write::sasl_challenge("YQ==", out), Kind::Challenge),
        (|out| write::sasl_response("", out), Kind::Response),
        (|out| write::sasl_success("dj0=", out), Kind::SaslSuccess),
        (|out| write::sasl_failure("not-authorized", Some("<no>"), out), Kind::SaslFailure),
        (
            |out| write::stream_error(StreamFault::HostUnknown, Some("x & y"), out),
            Kind::StreamError,
        ),
    ];
    for (write, kind) in cases {
        assert_eq!(read_back(write).1.kind, kind);
    }
    let (out, _) = read_back(|out| write::sasl_auth("PLAIN", Some(""), out));
    assert_eq!(read::text_of(&out), "=");
}

#[test]
fn a_number_is_written_as_it_is_spoken() {
    for number in [0, 1, 9, 10, 99, 4_294_967_290, u32::MAX] {
        let (mut out, mut same) = (Vec::new(), Vec::new());
        write::attr_number("h", number, &mut out);
        write::attr_raw("h", &number.to_string(), &mut same);
        assert_eq!(out, same);
    }
}

#[test]
fn dialback_reads_back() {
    for (what, type_) in [
        (Dialback::Key("k"), None),
        (Dialback::Valid, Some("valid")),
        (Dialback::Invalid, Some("invalid")),
        (Dialback::Error(StanzaFault::ItemNotFound), Some("error")),
    ] {
        let (out, stanza) = read_back(|out| write::db_result("a", "b", what, out));
        assert_eq!(stanza.kind, Kind::DbResult);
        assert_eq!(stanza.type_.map(|it| it.raw(&out)), type_);
        let (out, stanza) = read_back(|out| write::db_verify("a", "b", "i", what, out));
        assert_eq!(stanza.kind, Kind::DbVerify);
        assert_eq!(stanza.id.map(|it| it.raw(&out)), Some("i"));
    }
}
