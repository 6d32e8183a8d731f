//! Who is typing: `KeyboardActivity` of Microsoft's clients, isComposing (RFC 3994), chat states
//! (XEP-0085).
//!
//! SIP knows two words, XMPP five. A state is told once, and again only after another; when typing
//! was last heard of is for the session to know: **no** time is kept here.

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::gateway::cut;
use crate::limits::GATEWAY_XML_EVENTS_MAX;
use crate::xmpp::stanza::{ChildKind, Ns, Stanza};
use crate::xmpp::write;

/// What SIP says of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typing {
    /// `active`, or `type`.
    Active,
    Idle,
}

/// XEP-0085, 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatState {
    Active,
    Composing,
    Paused,
    Inactive,
    Gone,
}

/// What a chat state of XMPP becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    Typing(Typing),
    /// `gone`: the session ends, if there is one.
    End,
}

impl ChatState {
    const ALL: [(Self, ChildKind, &'static str); 5] = [
        (Self::Active, ChildKind::ChatActive, "active"),
        (Self::Composing, ChildKind::ChatComposing, "composing"),
        (Self::Paused, ChildKind::ChatPaused, "paused"),
        (Self::Inactive, ChildKind::ChatInactive, "inactive"),
        (Self::Gone, ChildKind::ChatGone, "gone"),
    ];

    /// The chat state in a message.
    pub fn of(stanza: &Stanza) -> Option<Self> {
        Self::ALL.iter().find(|(_, kind, _)| stanza.has(*kind)).map(|(state, ..)| *state)
    }

    /// The name of the element.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Composing => "composing",
            Self::Paused => "paused",
            Self::Inactive => "inactive",
            Self::Gone => "gone",
        }
    }

    /// Appends the element.
    pub fn write(self, out: &mut Vec<u8>) {
        out.push(b'<');
        out.extend_from_slice(self.name().as_bytes());
        write::attr("xmlns", Ns::ChatStates.name(), out);
        out.extend_from_slice(b"/>");
    }

    /// What SIP is told.
    pub fn toward_sip(self) -> Toward {
        match self {
            Self::Composing => Toward::Typing(Typing::Active),
            Self::Active | Self::Paused | Self::Inactive => Toward::Typing(Typing::Idle),
            Self::Gone => Toward::End,
        }
    }
}

impl Typing {
    /// What XMPP is told; `paused` comes when nothing more is heard.
    pub fn toward_xmpp(self) -> ChatState {
        match self {
            Self::Active => ChatState::Composing,
            Self::Idle => ChatState::Active,
        }
    }
}

/// The state that was told last: none is told twice in a row (XEP-0085, 5.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Last(Option<ChatState>);

impl Last {
    /// Whether this state, standing alone, is to be told now.
    pub fn tell(&mut self, state: ChatState) -> bool {
        self.0.replace(state) != Some(state)
    }

    /// A message with a body was told, which means `active`.
    pub fn spoke(&mut self) {
        self.0 = Some(ChatState::Active);
    }

    /// Whether the last that was told is that somebody types.
    pub fn is_composing(self) -> bool {
        self.0 == Some(ChatState::Composing)
    }
}

/// Typing lasts so long after an INFO that said so, in seconds; Microsoft names no time.
pub const KEYBOARD_SECONDS: u64 = 30;
/// RFC 3994, 3.2: `active` lasts so long if nothing else is said, in seconds.
pub const REFRESH_SECONDS: u32 = 120;
/// RFC 3994, 3.3: no refresh is asked for below this, in seconds.
const REFRESH_SECONDS_FLOOR: u32 = 60;

/// The content type of `KeyboardActivity`.
pub const KEYBOARD_TYPE: &str = "application/xml";
/// The content type of isComposing.
pub const COMPOSING_TYPE: &str = "application/im-iscomposing+xml";

/// Reads the body of an INFO: `None` if it is of something else.
pub fn read_keyboard(body: &[u8]) -> Option<Typing> {
    let mut within = false;
    let mut found = None;
    walk(body, |step| match step {
        Step::Start("KeyboardActivity", _) => within = true,
        Step::Start("status", attribute) if within && found.is_none() => {
            found = match attribute.to_ascii_lowercase().as_str() {
                "type" => Some(Typing::Active),
                "idle" => Some(Typing::Idle),
                _ => None,
            };
        }
        _ => {}
    })?;
    found
}

/// Appends the body of an INFO.
pub fn write_keyboard(typing: Typing, out: &mut Vec<u8>) {
    let word: &[u8] = match typing {
        Typing::Active => b"type",
        Typing::Idle => b"idle",
    };
    out.extend_from_slice(b"<?xml version=\"1.0\"?><KeyboardActivity><status status=\"");
    out.extend_from_slice(word);
    out.extend_from_slice(b"\" /></KeyboardActivity>");
}

/// What a document of RFC 3994 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Composing {
    pub typing: Typing,
    /// It holds so long, in seconds.
    pub refresh: u32,
}

/// Reads a document of RFC 3994; `None` if it is none. A state it does not know is `idle` (3.1).
pub fn read_composing(body: &[u8]) -> Option<Composing> {
    let mut depth = 0_usize;
    let (mut state, mut refresh) = (None, None);
    let mut at = String::new();
    walk(body, |step| match step {
        Step::Start(name, _) => {
            depth += 1;
            at = if depth == 1 && name != "isComposing" { "?".into() } else { name.to_owned() };
            if at == "?" {
                state = Some(String::from("?"));
            }
        }
        Step::Text(text) if depth == 2 && at == "state" && state.is_none() => {
            state = Some(text.trim().to_owned());
        }
        Step::Text(text) if depth == 2 && at == "refresh" => refresh = text.trim().parse().ok(),
        Step::Text(_) => {}
        Step::End => {
            depth = depth.saturating_sub(1);
            at.clear();
        }
    })?;
    let typing = match state?.as_str() {
        "?" => return None,
        "active" => Typing::Active,
        _ => Typing::Idle,
    };
    let refresh: u32 = refresh.unwrap_or(REFRESH_SECONDS);
    Some(Composing { typing, refresh: refresh.clamp(REFRESH_SECONDS_FLOOR, 3_600) })
}

/// Appends a document of RFC 3994.
pub fn write_composing(typing: Typing, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
          <isComposing xmlns=\"urn:ietf:params:xml:ns:im-iscomposing\"><state>",
    );
    match typing {
        Typing::Active => {
            out.extend_from_slice(b"active</state><contenttype>text/plain</contenttype><refresh>");
            out.extend_from_slice(REFRESH_SECONDS.to_string().as_bytes());
            out.extend_from_slice(b"</refresh>");
        }
        Typing::Idle => out.extend_from_slice(b"idle</state><contenttype>text/plain</contenttype>"),
    }
    out.extend_from_slice(b"</isComposing>");
}

enum Step<'a> {
    /// An element by its local name, and its attribute `status`.
    Start(&'a str, &'a str),
    Text(&'a str),
    End,
}

/// A small document, step by step; `None` if it is not XML or more than a small one.
fn walk(body: &[u8], mut step: impl FnMut(Step<'_>)) -> Option<()> {
    let text = std::str::from_utf8(body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)).ok()?;
    let mut reader = Reader::from_str(text);
    let mut open = 0_usize;
    for _ in 0..GATEWAY_XML_EVENTS_MAX {
        match reader.read_event().ok()? {
            Event::Eof => return (open == 0).then_some(()),
            Event::DocType(_) => return None,
            event @ (Event::Start(_) | Event::Empty(_)) => {
                let ends = matches!(event, Event::Empty(_));
                let (Event::Start(start) | Event::Empty(start)) = event else { return None };
                let status = start.try_get_attribute("status").ok()?;
                let status = status.as_ref().map_or("", |it| &*it.value);
                step(Step::Start(start.local_name().into_inner(), cut(status, 64)));
                if ends {
                    step(Step::End);
                } else {
                    open += 1;
                }
            }
            Event::Text(text) => step(Step::Text(&text)),
            Event::End(_) => {
                open = open.saturating_sub(1);
                step(Step::End);
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyboard_activity_both_ways() {
        for typing in [Typing::Active, Typing::Idle] {
            let mut out = Vec::new();
            write_keyboard(typing, &mut out);
            assert_eq!(read_keyboard(&out), Some(typing));
        }
        let mut out = Vec::new();
        write_keyboard(Typing::Active, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "<?xml version=\"1.0\"?><KeyboardActivity><status status=\"type\" /></KeyboardActivity>"
        );
        for other in [
            &b"<KeyboardActivity/>"[..],
            b"<KeyboardActivity><status status='dance'/></KeyboardActivity>",
            b"<status status='type'/>",
            b"<KeyboardActivity><status status='type'/>",
            b"<!DOCTYPE x []><KeyboardActivity><status status='type'/></KeyboardActivity>",
            b"not xml",
            b"\xFF",
            b"",
        ] {
            assert_eq!(read_keyboard(other), None, "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn is_composing_both_ways() {
        for typing in [Typing::Active, Typing::Idle] {
            let mut out = Vec::new();
            write_composing(typing, &mut out);
            assert_eq!(read_composing(&out), Some(Composing { typing, refresh: 120 }));
        }
        // RFC 3994, 6.
        let text = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
            <isComposing xmlns=\"urn:ietf:params:xml:ns:im-iscomposing\"\n\
            xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\n\
            <state>active</state>\n<contenttype>text/plain</contenttype>\n\
            <refresh>90</refresh>\n</isComposing>";
        let read = read_composing(text);
        assert_eq!(read, Some(Composing { typing: Typing::Active, refresh: 90 }));
        let odd = b"<x:isComposing xmlns:x='y'><x:state>dreaming</x:state><x:refresh>1</x:refresh>\
            </x:isComposing>";
        assert_eq!(read_composing(odd), Some(Composing { typing: Typing::Idle, refresh: 60 }));
        for other in
            [&b"<a><state>active</state></a>"[..], b"<isComposing/>", b"", b"<isComposing>"]
        {
            assert_eq!(read_composing(other), None, "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn chat_states_in_and_out() {
        use ChatState as S;
        for (state, toward) in [
            (S::Composing, Toward::Typing(Typing::Active)),
            (S::Active, Toward::Typing(Typing::Idle)),
            (S::Inactive, Toward::Typing(Typing::Idle)),
            (S::Paused, Toward::Typing(Typing::Idle)),
            (S::Gone, Toward::End),
        ] {
            assert_eq!(state.toward_sip(), toward);
        }
        assert_eq!(Typing::Active.toward_xmpp(), S::Composing);
        assert_eq!(Typing::Idle.toward_xmpp(), S::Active);
        for (state, kind, name) in ChatState::ALL {
            assert_eq!(state.name(), name);
            let stanza = Stanza { kinds: kind.bit(), ..Stanza::default() };
            assert_eq!(ChatState::of(&stanza), Some(state));
        }
        assert_eq!(ChatState::of(&Stanza::default()), None);
    }

    #[test]
    fn no_state_is_told_twice_in_a_row() {
        let mut last = Last::default();
        assert!(last.tell(ChatState::Composing) && last.is_composing());
        assert!(!last.tell(ChatState::Composing));
        assert!(last.tell(ChatState::Paused) && last.tell(ChatState::Composing));
        last.spoke();
        assert!(!last.tell(ChatState::Active) && last.tell(ChatState::Composing));
    }
}
