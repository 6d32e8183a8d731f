//! What passes, what is cut, what is refused.

use super::*;
use crate::xmpp::frame::{Content, one};
use crate::xmpp::splice::{Edits, forward};

const TO: &str = "romeo@example.net/orchard";

fn found(author: Author, text: &str, to: &str) -> Forged {
    let stanza = one(text.as_bytes(), Content::Client).unwrap();
    let to = Address::parse(to).unwrap();
    find(text.as_bytes(), &stanza, author, to.view(), |it| it == "example.net")
}

/// What is left of a message with this content.
fn left(author: Author, inner: &str) -> String {
    let text = format!("<message>{inner}</message>");
    let stanza = one(text.as_bytes(), Content::Client).unwrap();
    let cuts = match found(author, &text, TO) {
        Forged::Nothing => Vec::new(),
        Forged::Cut(cuts) => cuts,
        Forged::Refused => return "refused".into(),
    };
    let edits = Edits { cuts: &cuts, ..Edits::default() };
    let mut out = Vec::new();
    forward(text.as_bytes(), &stanza, &edits, &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    let inner = out.strip_prefix("<message>").and_then(|it| it.strip_suffix("</message>"));
    inner.unwrap().to_owned()
}

const BOTH: [Author; 2] = [Author::Client, Author::Peer];

#[test]
fn wrappers_and_pushes_are_refused() {
    for author in BOTH {
        for name in ["sent", "received"] {
            let wrapper = format!("<body>x</body><{name} xmlns='urn:xmpp:carbons:2'/>");
            assert_eq!(left(author, &wrapper), "refused");
            assert_eq!(left(author, &format!("<a/>{}", wrapper.repeat(20))), "refused");
        }
        let push = |type_: &str, inner: &str, to: &str| {
            found(author, &format!("<iq type='{type_}' id='1'>{inner}</iq>"), to)
        };
        let roster = "<query xmlns='jabber:iq:roster'><item jid='a@b'/></query>";
        let block = "<block xmlns='urn:xmpp:blocking'/>";
        for payload in [roster, block, "<r:query xmlns:r='jabber:iq:roster'/>"] {
            assert_eq!(push("set", payload, TO), Forged::Refused);
            assert_eq!(push("s&#101;t", payload, TO), Forged::Refused);
            assert_eq!(push("set", payload, "romeo@example.net"), Forged::Nothing);
            assert_eq!(push("get", payload, TO), Forged::Nothing);
            assert_eq!(push("result", payload, TO), Forged::Nothing);
        }
        assert_eq!(push("set", "<x xmlns='u'/>", TO), Forged::Nothing);
    }
}

#[test]
fn ids_in_our_name_are_cut() {
    let id = |by: &str| format!("<stanza-id xmlns='urn:xmpp:sid:0' id='1' {by}/>");
    for author in BOTH {
        for by in [
            "by='example.net'",
            "by='Example.NET'",
            "by='romeo@example.net'",
            "by='other@example.net'",
            "by='romeo&#64;example.net/x'",
            "by=' '",
            "",
        ] {
            let text = format!("<a xmlns='u'/>{}<body>x</body>{}", id(by), id(by));
            assert_eq!(left(author, &text), "<a xmlns='u'/><body>x</body>", "{by}");
        }
        for by in ["by='room@chat.example.net'", "by='peer.example'", "by='xexample.net'"] {
            assert_eq!(left(author, &id(by)), id(by));
        }
        let origin = "<origin-id xmlns='urn:xmpp:sid:0' id='1'/>";
        assert_eq!(left(author, origin), origin);
    }
}

#[test]
fn stamps_in_our_name_are_cut() {
    let delay = |from: &str| format!("<delay xmlns='urn:xmpp:delay' {from} stamp='x'>y</delay>");
    for author in BOTH {
        for from in ["from='example.net'", "from='romeo@EXAMPLE.net'", "from='romeo@example.net/x'"]
        {
            let text = format!("{0}<body>x</body>{0}", delay(from));
            assert_eq!(left(author, &text), "<body>x</body>", "{from}");
        }
        for from in ["", "from='juliet@example.net'", "from='room@chat.example.net'", "from='@'"] {
            assert_eq!(left(author, &delay(from)), delay(from), "{from}");
        }
        // A quotation stays.
        let quoted = format!(
            "<forwarded xmlns='urn:xmpp:forward:0'>{}</forwarded>",
            delay("from='example.net'")
        );
        assert_eq!(left(author, &quoted), quoted);
        let presence = format!("<presence>{}</presence>", delay("from='example.net'"));
        assert!(matches!(found(author, &presence, TO), Forged::Cut(cuts) if cuts.len() == 1));
    }
}

#[test]
fn occupants_are_named_by_rooms() {
    let occupant = "<occupant-id xmlns='urn:xmpp:occupant-id:0' id='1'/>";
    assert_eq!(left(Author::Client, &format!("{occupant}<body/>{occupant}")), "<body/>");
    assert_eq!(left(Author::Peer, occupant), occupant);
}

#[test]
fn nothing_hides_behind_many_children() {
    let many = "<a xmlns='u'><b/></a>\n<c xmlns='v'/>".repeat(20);
    for (forged, author) in [
        ("<stanza-id xmlns='urn:xmpp:sid:0' by='example.net'/>", Author::Peer),
        (
            "<s:stanza-id by='example.net' xmlns:s='urn:xmpp:sid:0'><s:x/></s:stanza-id>",
            Author::Peer,
        ),
        ("<delay xmlns='urn:xmpp:delay' from='example.net'></delay>", Author::Peer),
        ("<occupant-id xmlns='urn:xmpp:occupant-id:0' id='1'/>", Author::Client),
    ] {
        let text = format!("{forged}{many}{forged}{forged}x<body>x</body>{forged}");
        assert_eq!(left(author, &text), format!("{many}x<body>x</body>"), "{forged}");
    }
    // A prefix, or the default, of the root.
    for (root, child) in [
        ("xmlns:s='urn:xmpp:sid:0'", "<s:stanza-id by='example.net'/>"),
        ("xmlns='jabber:client' xmlns:s='urn:xmpp:sid:0'", "<s:stanza-id/>"),
    ] {
        let text = format!("<message {root}>{many}{child}</message>");
        let Forged::Cut(cuts) = found(Author::Peer, &text, TO) else { panic!("{text}") };
        let at = text.find(child).unwrap() as u32;
        let range = at..at + child.len() as u32;
        assert!(cuts.into_iter().eq(std::iter::once(range)));
    }
}

/// The slow way finds the same children as the scan, where the scan remembers them all.
#[test]
fn both_ways_see_the_same_children() {
    let text = "<message xmlns:p='urn:xmpp:delay' to='a'>x<body>y<![CDATA[<z/>]]></body>\
        <p:delay from='a'/><d:delay xmlns:d='urn:xmpp:delay'>\
        <d:delay/></d:delay><x xmlns='u' a='>'/> <delay xmlns='urn:xmpp:delay'/></message>";
    let stanza = one(text.as_bytes(), Content::Client).unwrap();
    assert_eq!(all_children(text.as_bytes(), &stanza), stanza.children());
}
