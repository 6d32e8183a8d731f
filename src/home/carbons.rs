//! Which messages are copied to the user's other resources.
//!
//! XEP-0280, 6: chats; normal messages with a body or with the payloads of a conversation (XEP-0085,
//! XEP-0184); errors, since they may answer one of these, and nobody keeps track of which do. Not
//! what is private, what is itself a carbon, nor what came from a room, which each joined resource
//! gets by itself (6.1). XEP-0334, 4.3: not what says `no-copy`; hints on errors are passed over.
//! Who gets the copies is **not** decided here, nor how they look (`xmpp::payload::carbons`).
//!
//! Table: `carbons.table`.

use crate::envelope::{Kind, Purpose};
use crate::xmpp::payload::carbons::Way;
use crate::xmpp::stanza::{ChildKind, Stanza};

/// True if the other resources of the user get a copy of what he sent or received.
pub fn is_eligible(way: Way, kind: Kind, purpose: Purpose, stanza: &Stanza) -> bool {
    if kind != Kind::Message || stanza.has_any(NEVER) {
        return false;
    }
    // The one that a room sends to one resource of several; the user's own message to it is copied.
    if way == Way::Received && stanza.has(ChildKind::MucUser) {
        return false;
    }
    match purpose {
        Purpose::Chat => !stanza.has(ChildKind::NoCopy),
        Purpose::Normal => !stanza.has(ChildKind::NoCopy) && stanza.has_any(CONVERSATION),
        Purpose::Error => stanza.has_any(CONVERSATION),
        _ => false,
    }
}

/// A private message, and carbons themselves.
const NEVER: u64 = ChildKind::CarbonsPrivate.bit()
    | ChildKind::CarbonsSent.bit()
    | ChildKind::CarbonsReceived.bit();

/// What makes a message one of a conversation, whatever its type.
const CONVERSATION: u64 = ChildKind::Body.bit()
    | ChildKind::CHAT_STATES
    | ChildKind::ReceiptRequest.bit()
    | ChildKind::ReceiptReceived.bit();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xmpp::frame::{Content, one};

    /// Table: `carbons.table`.
    #[test]
    fn the_table_of_what_is_copied() {
        const BODY: &str = "<body>x</body>";
        let with = |more: &str| format!("{BODY}<{more}/>");
        let inner = [
            ("body", BODY.to_owned()),
            ("nothing", String::new()),
            ("subject", "<subject>x</subject>".into()),
            ("chat state", "<active xmlns='http://jabber.org/protocol/chatstates'/>".into()),
            ("receipt", "<received xmlns='urn:xmpp:receipts' id='1'/>".into()),
            ("something else", "<x xmlns='u'/>".into()),
            ("body, private", with("private xmlns='urn:xmpp:carbons:2'")),
            ("body, no-copy", with("no-copy xmlns='urn:xmpp:hints'")),
            ("body, no-store", with("no-store xmlns='urn:xmpp:hints'")),
            ("body, of a room", with("x xmlns='http://jabber.org/protocol/muc#user'")),
            ("a carbon", "<sent xmlns='urn:xmpp:carbons:2'/>".into()),
            ("body, a carbon", with("received xmlns='urn:xmpp:carbons:2'")),
            ("body, forwarded", with("forwarded xmlns='urn:xmpp:forward:0'")),
        ];
        let mut table = String::new();
        for type_ in ["normal", "chat", "groupchat", "headline", "error"] {
            for (name, inner) in &inner {
                let text = format!("<message type='{type_}'>{inner}</message>");
                let stanza = one(text.as_bytes(), Content::Client).unwrap();
                let purpose = Purpose::read(Kind::Message, Some(type_)).unwrap();
                let copied = [Way::Sent, Way::Received]
                    .map(|way| is_eligible(way, Kind::Message, purpose, &stanza));
                let copied = match copied {
                    [true, true] => "copied",
                    [true, false] => "copied if sent",
                    [false, true] => "copied if received",
                    [false, false] => "not copied",
                };
                table += &format!("{type_:<9} {name:<15} -> {copied}\n");
            }
        }
        crate::stdx::table::check("src/home/carbons.table", &table, include_str!("carbons.table"));
    }

    #[test]
    fn only_messages_are_copied() {
        let text = "<iq type='set' id='1'><x xmlns='u'/></iq>";
        let stanza = one(text.as_bytes(), Content::Client).unwrap();
        assert!(!is_eligible(Way::Sent, Kind::Iq, Purpose::Set, &stanza));
    }
}
