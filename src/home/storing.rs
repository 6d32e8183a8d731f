//! Which messages may wait for a user who is away.
//!
//! XEP-0160, 3: normal and chat, but not what is only a chat state; XEP-0334, 4: not what says
//! `no-store`. Errors, headlines and groupchat never wait. A hint is a wish to do less: `store` grants nothing (XEP-0334, 7), and
//! `no-permanent-store` is about archives, of which we have none. Whether there is room is **not**
//! asked here.
//!
//! Table: `storing.table`.

use crate::envelope::{Kind, Purpose};
use crate::xmpp::stanza::{ChildKind, Stanza};

/// What becomes of a message for a user who is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storing {
    /// It waits, if there is room.
    Stored,
    /// Its sender is told that nobody is there.
    Refused,
    /// Nothing: XEP-0085, 5.1: a mere chat state is worth no error either.
    Dropped,
}

/// Whether a stanza may wait until the user comes.
pub fn storing(kind: Kind, purpose: Purpose, stanza: &Stanza) -> Storing {
    if kind != Kind::Message || !matches!(purpose, Purpose::Normal | Purpose::Chat) {
        return Storing::Refused;
    }
    match (stanza.has_any(!EMPTY), stanza.has_any(ChildKind::CHAT_STATES)) {
        (true, _) if !stanza.has(ChildKind::NoStore) => Storing::Stored,
        (false, true) => Storing::Dropped,
        _ => Storing::Refused,
    }
}

/// Children that alone are worth nothing later.
const EMPTY: u64 = ChildKind::CHAT_STATES
    | ChildKind::Thread.bit()
    | ChildKind::NoStore.bit()
    | ChildKind::NoPermanentStore.bit()
    | ChildKind::NoCopy.bit()
    | ChildKind::Store.bit()
    | ChildKind::Delay.bit()
    | ChildKind::StanzaId.bit()
    | ChildKind::OriginId.bit()
    | ChildKind::OccupantId.bit()
    | ChildKind::CarbonsPrivate.bit();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xmpp::frame::{Content, one};

    /// Table: `storing.table`.
    #[test]
    fn the_table_of_what_is_stored() {
        const STATE: &str = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
        let hint = |name: &str| format!("<{name} xmlns='urn:xmpp:hints'/>");
        let receipt = "<received xmlns='urn:xmpp:receipts' id='1'/>";
        let inner = [
            ("body", "<body>x</body>".to_owned()),
            ("subject", "<subject>x</subject>".into()),
            ("nothing", String::new()),
            ("chat state", STATE.into()),
            ("chat state, thread", format!("{STATE}<thread>x</thread>")),
            ("chat state, body", format!("{STATE}<body>x</body>")),
            ("chat state, origin-id", format!("{STATE}<origin-id xmlns='urn:xmpp:sid:0' id='1'/>")),
            ("chat state, store", format!("{STATE}{}", hint("store"))),
            ("chat state, no-store", format!("{STATE}{}", hint("no-store"))),
            ("receipt", receipt.into()),
            ("something else", "<x xmlns='u'/>".into()),
            ("body, no-store", format!("<body>x</body>{}", hint("no-store"))),
            ("body, no-store, store", format!("<body/>{}{}", hint("no-store"), hint("store"))),
            ("body, no-permanent-store", format!("<body/>{}", hint("no-permanent-store"))),
            ("body, no-copy", format!("<body>x</body>{}", hint("no-copy"))),
        ];
        let mut table = String::new();
        for type_ in ["normal", "chat", "groupchat", "headline", "error"] {
            for (name, inner) in &inner {
                let text = format!("<message type='{type_}'>{inner}</message>");
                let stanza = one(text.as_bytes(), Content::Client).unwrap();
                let purpose = Purpose::read(Kind::Message, Some(type_)).unwrap();
                let stored = storing(Kind::Message, purpose, &stanza);
                let stored = format!("{stored:?}").to_lowercase();
                table += &format!("{type_:<9} {name:<25} -> {stored}\n");
            }
        }
        crate::stdx::table::check("src/home/storing.table", &table, include_str!("storing.table"));
    }

    #[test]
    fn only_messages_are_stored() {
        let text = "<presence><status>x</status></presence>";
        let stanza = one(text.as_bytes(), Content::Client).unwrap();
        assert_eq!(storing(Kind::Presence, Purpose::Available, &stanza), Storing::Refused);
    }
}
