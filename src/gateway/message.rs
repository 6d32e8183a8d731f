//! Messages of both protocols: what of one has a place in the other (RFC 7572, RFC 7573).
//!
//! Small rules only. Which call or thread a message belongs to is known to the session; **nothing**
//! here remembers.

use crate::address::AddressRef;
use crate::gateway::typing::ChatState;
use crate::gateway::{cut, legal};
use crate::xmpp::write;

/// A SIP MESSAGE of more octets than this is refused outside a session, unless a rule says
/// otherwise (RFC 3428, 8; RFC 7572, 6).
pub const PAGE_OCTETS_MAX: usize = 1_300;

/// Octets of a subject that is carried over.
const SUBJECT_OCTETS: usize = 1_024;

/// What a message of XMPP becomes, by its `type` (RFC 7572, 5; RFC 7573, 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Part of a conversation: `chat` and, where sessions are used, `normal`.
    Chat,
    /// Alone: `headline`, and `normal` where no session is.
    Page,
    /// `groupchat`: refused with `service-unavailable`.
    Refused,
    /// `error`: never answered, never a request.
    Dropped,
}

impl Manner {
    /// By the value of `type`, absent and unknown being `normal` (RFC 6121, 5.2.2).
    pub fn of(type_: Option<&str>) -> Self {
        match type_ {
            Some("headline") => Self::Page,
            Some("groupchat") => Self::Refused,
            Some("error") => Self::Dropped,
            _ => Self::Chat,
        }
    }
}

/// `xml:lang` as `Content-Language`, and back: the first tag, if it is one (RFC 5646, 2.1).
pub fn language(raw: &str) -> Option<&str> {
    let tag = raw.split(',').next().unwrap_or_default().trim();
    let is_subtag =
        |it: &str| (1..=8).contains(&it.len()) && it.bytes().all(|b| b.is_ascii_alphanumeric());
    // RFC 5646, 4.4.1: 35 characters hold every tag in use.
    (tag.len() <= 35 && tag.split('-').all(is_subtag)).then_some(tag)
}

/// `<subject/>` as the value of `Subject`, or the other way: one line of text (RFC 3261, 20.36).
pub fn subject(raw: &str) -> Option<String> {
    let text: String = legal(raw).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = cut(text.trim(), SUBJECT_OCTETS).trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

/// `<thread/>` as a Call-ID, if it is one (RFC 3261, 25.1); that no other call has it is for the
/// caller to see. The way back is verbatim.
pub fn call_id(thread: &str) -> Option<&str> {
    // A longer one is legal; no client makes one.
    let (word, host) = thread.split_once('@').unwrap_or((thread, "a"));
    let is_word = |it: &str| {
        !it.is_empty()
            && it
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~()<>:\\\"/[]?{}".contains(&b))
    };
    (thread.len() <= 255 && is_word(word) && is_word(host)).then_some(thread)
}

/// The stanza's id for a SIP request: the same for a retransmission, which has the same three.
///
/// Not a secret and no proof: whoever makes two requests meet here has two messages of his own with
/// one id, which he may do in XMPP as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StanzaId(u128);

impl StanzaId {
    /// Of the request with these.
    pub fn new(call_id: &str, cseq: u32, from_tag: &[u8]) -> Self {
        let mut text = Vec::with_capacity(256);
        text.extend_from_slice(call_id.as_bytes());
        text.push(0);
        text.extend_from_slice(&cseq.to_be_bytes());
        text.extend_from_slice(from_tag);
        Self(xxhash_rust::xxh3::xxh3_128(&text))
    }

    /// As it is written.
    pub fn text(self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b's'; 33];
        let (pairs, _) = text[1..].as_chunks_mut::<2>();
        for (pair, octet) in pairs.iter_mut().zip(self.0.to_be_bytes()) {
            *pair = [DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 15)]];
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Reads what `text` wrote; `None`: something else.
    pub fn read(text: &str) -> Option<Self> {
        let hex = text.strip_prefix('s').filter(|it| it.len() == 32)?;
        let plain = hex.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
        plain.then(|| u128::from_str_radix(hex, 16).ok()).flatten().map(Self)
    }
}

/// A message that SIP said, for XMPP.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    pub from: AddressRef<'a>,
    pub to: AddressRef<'a>,
    pub id: Option<&'a str>,
    /// Part of a session: `type='chat'`. In page mode it has no type (RFC 7572, 5).
    pub chat: bool,
    pub lang: Option<&'a str>,
    pub subject: Option<&'a str>,
    pub thread: Option<&'a str>,
    pub body: Option<&'a str>,
    /// Beside a body `active`, else clients send no chat states back (XEP-0085, 5.1).
    pub state: Option<ChatState>,
}

impl Said<'_> {
    /// Appends the stanza.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<message");
        write::attr("from", self.from.full(), out);
        write::attr("to", self.to.full(), out);
        if self.chat {
            write::attr("type", "chat", out);
        }
        if let Some(id) = self.id {
            write::attr("id", id, out);
        }
        if let Some(lang) = self.lang {
            write::attr("xml:lang", lang, out);
        }
        out.push(b'>');
        for (name, text) in
            [("subject", self.subject), ("body", self.body), ("thread", self.thread)]
        {
            if let Some(text) = text {
                element(name, text, out);
            }
        }
        if let Some(state) = self.state {
            state.write(out);
        }
        out.extend_from_slice(b"</message>");
    }
}

/// Appends `<name>text</name>`.
pub(super) fn element(name: &str, text: &str, out: &mut Vec<u8>) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
    write::escape_into(text, out);
    out.extend_from_slice(b"</");
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;

    #[test]
    fn languages_are_one_tag() {
        for (raw, tag) in [
            ("en", Some("en")),
            (" de-CH , en", Some("de-CH")),
            ("", None),
            ("*", None),
            ("e n", None),
            ("en\r\nVia: x", None),
            ("toolonglanguage", None),
            ("x--y", None),
        ] {
            assert_eq!(language(raw), tag, "{raw}");
        }
    }

    #[test]
    fn subjects_are_one_line() {
        assert_eq!(subject("Hi\r\nthere").as_deref(), Some("Hi there"));
        assert_eq!(subject("\n"), None);
        assert_eq!(subject(&"ü".repeat(1_000)).unwrap().len(), SUBJECT_OCTETS);
    }

    #[test]
    fn threads_that_are_call_ids() {
        for good in ["a", "e0ffe42b28561960c6b12b944a092794b9683a38@host.example", "a<b>{c}"] {
            assert_eq!(call_id(good), Some(good));
        }
        for bad in ["", "@a", "a@", "a@b@c", "a b", "ü", "a;b", "a,b", "a\r\nb", &"a".repeat(256)]
        {
            assert_eq!(call_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_repeat_keeps_its_id() {
        let id = StanzaId::new("c", 2, b"t");
        assert_eq!(id, StanzaId::new("c", 2, b"t"));
        assert_eq!((id.text().len(), StanzaId::read(&id.text())), (33, Some(id)));
        for (call, number, tag) in [("c", 3, b"t"), ("c", 2, b"u"), ("d", 2, b"t")] {
            assert_ne!(id, StanzaId::new(call, number, tag));
        }
        let text = id.text();
        for other in ["", "s", &text[1..], &format!("{text}0"), &text.to_uppercase()] {
            assert_eq!(StanzaId::read(other), None, "{other}");
        }
    }

    #[test]
    fn what_a_type_becomes() {
        for (type_, manner) in [
            (None, Manner::Chat),
            (Some("chat"), Manner::Chat),
            (Some("normal"), Manner::Chat),
            (Some("headline"), Manner::Page),
            (Some("groupchat"), Manner::Refused),
            (Some("error"), Manner::Dropped),
        ] {
            assert_eq!(Manner::of(type_), manner, "{type_:?}");
        }
    }

    #[test]
    fn a_message_is_escaped() {
        let (from, to) =
            (Address::parse("a@b.example").unwrap(), Address::parse("c@d.example/e").unwrap());
        let mut out = Vec::new();
        let said = Said {
            from: from.view(),
            to: to.view(),
            id: Some("s1"),
            chat: true,
            lang: Some("en"),
            subject: Some("<s>"),
            thread: Some("a<b>"),
            body: Some("1 < 2 & '3'\0"),
            state: Some(ChatState::Active),
        };
        said.write(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "<message from='a@b.example' to='c@d.example/e' type='chat' id='s1' xml:lang='en'>\
             <subject>&lt;s&gt;</subject><body>1 &lt; 2 &amp; &apos;3&apos;\u{FFFD}</body>\
             <thread>a&lt;b&gt;</thread>\
             <active xmlns='http://jabber.org/protocol/chatstates'/></message>"
        );
    }
}
