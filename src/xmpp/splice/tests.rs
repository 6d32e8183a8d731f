//! What is handed on, octet for octet.

use crate::xmpp::{
    fault::StanzaFault,
    frame::{Content, Framer, Limits, Next},
    splice::{Edits, Unforwardable, error_reply, forward, result_reply},
    stanza::{ChildKind, Stanza},
    write::StreamHeader,
};

fn scan(content: Content, text: &str) -> Stanza {
    let (mut framer, mut header) = (Framer::default(), Vec::new());
    StreamHeader { content, ..StreamHeader::default() }.write(&mut header);
    framer.next(&header, &Limits::SERVER).unwrap();
    match framer.next(text.as_bytes(), &Limits::SERVER) {
        Ok(Next::Element(stanza, len)) if len == text.len() => stanza,
        other => panic!("{text}: {other:?}"),
    }
}

fn client(text: &str, edits: &Edits<'_>) -> Result<String, Unforwardable> {
    let mut out = Vec::new();
    forward(text.as_bytes(), &scan(Content::Client, text), edits, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn nothing_changes_without_edits() {
    let text = "<message xmlns='jabber:client'  to='a' ><body>x</body>\n</message >";
    assert_eq!(client(text, &Edits::default()).unwrap(), text);
}

#[test]
fn addresses_are_replaced_or_added() {
    let edits =
        Edits { from: Some("me@x/<'>"), to: Some("you"), id: Some("7"), ..Edits::default() };
    let wanted = "<message from='me@x/&lt;&apos;&gt;' to='you' id='7'";
    for (text, rest) in [
        ("<message/>", "/>"),
        ("<message\n from = 'a' type='chat' to=\"b\" id='c'/>", " type='chat'/>"),
        (
            "<message id='c' a='1' from='a'><body>x</body></message>",
            " a='1'><body>x</body></message>",
        ),
    ] {
        assert_eq!(client(text, &edits).unwrap(), format!("{wanted}{rest}"));
    }
}

#[test]
fn language_of_the_stream_is_added_where_none_is() {
    let edits = Edits { lang: Some("de"), ..Edits::default() };
    assert_eq!(client("<presence/>", &edits).unwrap(), "<presence xml:lang='de'/>");
    let own = "<presence xml:lang='en'/>";
    assert_eq!(client(own, &edits).unwrap(), own);
}

#[test]
fn children_are_cut() {
    let text = "<message><body>x</body><delay xmlns='urn:xmpp:delay' from='us'/>y<a/></message>";
    let stanza = scan(Content::Client, text);
    let cuts: Vec<_> = stanza
        .children()
        .iter()
        .filter(|it| it.kind == ChildKind::Delay)
        .map(|it| it.range())
        .collect();
    let edits = Edits { cuts: &cuts, ..Edits::default() };
    assert_eq!(client(text, &edits).unwrap(), "<message><body>x</body>y<a/></message>");
}

#[test]
fn content_namespaces_are_exchanged() {
    let edits = Edits { exchange: true, ..Edits::default() };
    for (text, wanted) in [
        ("<iq xmlns='jabber:client' id='a'/>", Some("<iq id='a'/>")),
        (
            "<message xmlns='jabber:client'><body a='1' xmlns=\"jabber:client\">x</body><b/></message>",
            Some("<message><body a='1'>x</body><b/></message>"),
        ),
        (
            "<message><x xmlns='u'><message xmlns='jabber:client'/></x></message>",
            Some("<message><x xmlns='u'><message xmlns='jabber:client'/></x></message>"),
        ),
        ("<message><body xmlns='jabber:server'/></message>", None),
        ("<message><c:body xmlns:c='jabber:client'/></message>", None),
        ("<message xmlns:c='jabber:client'><c:body/></message>", None),
        ("<message><error><a xmlns='jabber:client'/></error></message>", None),
    ] {
        assert_eq!(client(text, &edits).ok().as_deref(), wanted, "{text}");
        assert!(client(text, &Edits::default()).is_ok(), "{text}");
    }
}

#[test]
fn declarations_and_forged_children_are_cut_together() {
    let text = "<message><a xmlns='jabber:client'/><delay xmlns='urn:xmpp:delay'/>\
        <b xmlns='jabber:client'/></message>";
    let stanza = scan(Content::Client, text);
    for (i, wanted) in [(0, "<delay xmlns='urn:xmpp:delay'/><b/>"), (1, "<a/><b/>")] {
        let cuts = [stanza.children()[i].range()];
        let edits = Edits { exchange: true, cuts: &cuts, ..Edits::default() };
        assert_eq!(client(text, &edits).unwrap(), format!("<message>{wanted}</message>"));
    }
}

fn error(text: &str, from: Option<&str>, to: Option<&str>) -> Option<String> {
    let (stanza, mut out) = (scan(Content::Client, text), Vec::new());
    let fault = StanzaFault::ServiceUnavailable;
    error_reply(text.as_bytes(), &stanza, fault, from, to, None, &mut out)
        .then(|| String::from_utf8(out).unwrap())
}

#[test]
fn errors_swap_addresses_and_repeat_small_content() {
    const ERROR: &str = "<error type='cancel'><service-unavailable \
        xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    let text =
        "<iq type='get' from=\"d'a@x\" to='b&amp;c' id='7'><ping xmlns='urn:xmpp:ping'/></iq>";
    assert_eq!(
        error(text, None, None).unwrap(),
        format!(
            "<iq type='error' id='7' from='b&amp;c' to='d&apos;a@x'>\
             <ping xmlns='urn:xmpp:ping'/>{ERROR}</iq>"
        )
    );
    assert_eq!(
        error(text, Some("us"), Some("them")).unwrap(),
        format!(
            "<iq type='error' id='7' from='us' to='them'><ping xmlns='urn:xmpp:ping'/>{ERROR}</iq>"
        )
    );
    let long = format!("<message><body>{}</body></message>", "x".repeat(2_000));
    assert_eq!(
        error(&long, None, None).unwrap(),
        format!("<message type='error'>{ERROR}</message>")
    );
}

#[test]
fn errors_and_results_are_not_answered_with_errors() {
    for text in [
        "<message type='error'/>",
        "<message type='&#101;rror'/>",
        "<iq type='result' id='a'/>",
        "<iq type='error' id='a'/>",
        "<r xmlns='urn:xmpp:sm:3'/>",
    ] {
        assert_eq!(error(text, None, None), None, "{text}");
    }
}

#[test]
fn results_keep_the_id() {
    let text = "<iq type='get' from='a' to='b' id='&lt;'><ping xmlns='urn:xmpp:ping'/></iq>";
    let (stanza, mut out) = (scan(Content::Client, text), Vec::new());
    result_reply(text.as_bytes(), &stanza, None, None, b"", &mut out);
    result_reply(text.as_bytes(), &stanza, Some("c"), None, b"<x/>", &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "<iq type='result' id='&lt;' from='b' to='a'/>\
         <iq type='result' id='&lt;' from='c' to='a'><x/></iq>"
    );
}
