//! Stream management on the wire (XEP-0198): its elements, its counters, and what may follow what
//! on a client's stream.
//!
//! ```text
//!  Unbound --bind--> Off --enable--> On(resumable) --lost--> Detached --taken--> On(resumable)
//!                                    On(not)       --lost--> Ended    Detached --timeout--> Ended
//! ```
//!
//! Reads what a client says and writes what a server says; the other roles and the `location` and
//! `max` that a client may wish for are **not** here. Who is acknowledged for what is the engine's.

use crate::xmpp::fault::{StanzaFault, StreamFault};
use crate::xmpp::read;
use crate::xmpp::stanza::{Ns, Stanza};
use crate::xmpp::write;

/// What a client says (XEP-0198, 3 to 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Element {
    /// `<enable/>`; true: it wants to resume.
    Enable(bool),
    /// `<r/>`.
    Ask,
    /// `<a/>` with its `h`.
    Ack(u32),
    /// `<resume/>` with its `previd` and its `h`.
    Resume(String, u32),
}

/// Reads an element of the namespace; the fault ends the stream.
pub fn parse(frame: &[u8], stanza: &Stanza) -> Result<Element, StreamFault> {
    let handled = || {
        let h = stanza.attr(frame, b"h").ok_or(StreamFault::BadFormat)?;
        h.trim().parse().map_err(|_| StreamFault::BadFormat)
    };
    match stanza.name(frame) {
        "enable" => {
            let resume = read::attr_of(frame, b"resume");
            Ok(Element::Enable(resume.is_some_and(|it| matches!(it.trim(), "true" | "1"))))
        }
        "r" => Ok(Element::Ask),
        "a" => Ok(Element::Ack(handled()?)),
        "resume" => {
            let previd = stanza.attr(frame, b"previd").ok_or(StreamFault::BadFormat)?;
            Ok(Element::Resume(previd.into_owned(), handled()?))
        }
        _ => Err(StreamFault::UnsupportedStanzaType),
    }
}

fn open(name: &str, out: &mut Vec<u8>) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    write::attr_raw("xmlns", Ns::Sm.name(), out);
}

/// Appends `<enabled/>`; with the id and the seconds for which it may be resumed.
pub fn enabled(resumable: Option<(&SessionId, u64)>, out: &mut Vec<u8>) {
    open("enabled", out);
    if let Some((id, seconds_max)) = resumable {
        write::attr_raw("id", &id.to_string(), out);
        write::attr_raw("resume", "true", out);
        write::attr_raw("max", &seconds_max.to_string(), out);
    }
    out.extend_from_slice(b"/>");
}

/// Appends `<r/>`.
pub fn ask(out: &mut Vec<u8>) {
    open("r", out);
    out.extend_from_slice(b"/>");
}

/// Appends `<a/>`.
pub fn ack(handled: u32, out: &mut Vec<u8>) {
    open("a", out);
    write::attr_number("h", handled, out);
    out.extend_from_slice(b"/>");
}

/// Appends `<resumed/>`.
pub fn resumed(previd: &str, handled: u32, out: &mut Vec<u8>) {
    open("resumed", out);
    write::attr("previd", previd, out);
    write::attr_number("h", handled, out);
    out.extend_from_slice(b"/>");
}

/// Appends `<failed/>`; `handled` if the session is still remembered (XEP-0198, 5).
pub fn failed(fault: StanzaFault, handled: Option<u32>, out: &mut Vec<u8>) {
    open("failed", out);
    if let Some(handled) = handled {
        write::attr_number("h", handled, out);
    }
    out.extend_from_slice(b"><");
    out.extend_from_slice(fault.name().as_bytes());
    write::attr_raw("xmlns", Ns::StanzaErrors.name(), out);
    out.extend_from_slice(b"/></failed>");
}

/// Appends the stream error about an `h` that counts more than was sent (XEP-0198, 6).
pub fn too_high(handled: u32, sent: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<stream:error><");
    out.extend_from_slice(StreamFault::UndefinedCondition.name().as_bytes());
    write::attr_raw("xmlns", Ns::StreamErrors.name(), out);
    out.extend_from_slice(b"/>");
    open("handled-count-too-high", out);
    write::attr_number("h", handled, out);
    write::attr_number("send-count", sent, out);
    out.extend_from_slice(b"/></stream:error>");
    out.extend_from_slice(write::STREAM_END);
}

/// An `h` counts more stanzas than were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooHigh;

/// How many more than `before` the count `handled` covers, of at most `sent` (XEP-0198, 4: counts
/// wrap at 2^32).
pub fn advance(before: u32, handled: u32, sent: u32) -> Result<u32, TooHigh> {
    let more = handled.wrapping_sub(before);
    if more <= sent { Ok(more) } else { Err(TooHigh) }
}

/// Names a stream that may be resumed: a version, its number on its shard, 128 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId {
    /// Its number on its shard.
    pub stream: u32,
    /// What nobody can guess.
    pub secret: u128,
}

/// The version of the ids, first in each.
const VERSION: char = '1';

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{VERSION}{:08x}{:032x}", self.stream, self.secret)
    }
}

impl SessionId {
    /// Reads one of ours; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (stream, secret) = text.strip_prefix(VERSION)?.split_at_checked(8)?;
        let is_hex = |it: &str| it.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if secret.len() != 32 || !is_hex(stream) || !is_hex(secret) {
            return None;
        }
        let stream = u32::from_str_radix(stream, 16).ok()?;
        Some(Self { stream, secret: u128::from_str_radix(secret, 16).ok()? })
    }
}

/// How far a client's stream is with its management.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Managed {
    /// No resource is bound yet.
    Unbound,
    /// A resource is bound; nobody counts.
    Off,
    /// Stanzas are counted both ways; true: it may be resumed.
    On(bool),
    /// The connection is lost and the session waits for another.
    Detached,
    /// Nothing of it is left.
    Ended,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A resource is bound.
    Bind,
    /// `<enable/>`; true: to be resumed.
    Enable(bool),
    /// `<resume/>` on this stream.
    Resume,
    /// `<r/>`.
    Ask,
    /// `<a/>`.
    Ack,
    /// Another stream of the user resumes it.
    Taken,
    /// The connection ended without the stream's end.
    Lost,
    /// `</stream:stream>`, or a stream error.
    Close,
    /// It was detached for too long.
    Timeout,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `<failed/>` says so; the stream goes on (XEP-0198, 6: recoverable).
    Failed(StanzaFault),
    /// The stream ends.
    Stream(StreamFault),
}

impl Managed {
    /// Advances by one input.
    pub fn handle(self, input: Input) -> Result<Self, Refusal> {
        use Managed::{Detached, Ended, Off, On, Unbound};
        Ok(match (self, input) {
            (Ended, _) | (_, Input::Close) => Ended,
            (Unbound, Input::Bind) => Off,
            // What becomes of it is the old session's to say.
            (Unbound, Input::Resume) => Unbound,
            (Off, Input::Enable(resumable)) => On(resumable),
            // XEP-0198, 3: at most one attempt on a stream.
            (On(_), Input::Enable(_)) => return Err(Refusal::Stream(StreamFault::PolicyViolation)),
            (On(resumable), Input::Ask | Input::Ack) => On(resumable),
            (On(true), Input::Lost) => Detached,
            (On(true) | Detached, Input::Taken) => On(true),
            (Detached, Input::Timeout) | (Unbound | Off | On(false), Input::Lost) => Ended,
            (state, Input::Timeout | Input::Lost) => state,
            (_, Input::Taken) => return Err(Refusal::Failed(StanzaFault::ItemNotFound)),
            // XEP-0198, 3: not before a resource is bound; 5: not after.
            (_, _) => return Err(Refusal::Failed(StanzaFault::UnexpectedRequest)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xmpp::frame::{Content, one};

    fn read(text: &str) -> Result<Element, StreamFault> {
        parse(text.as_bytes(), &one(text.as_bytes(), Content::Client).unwrap())
    }

    #[test]
    fn elements_are_read() {
        let sm = "xmlns='urn:xmpp:sm:3'";
        assert_eq!(read(&format!("<enable {sm}/>")), Ok(Element::Enable(false)));
        assert_eq!(read(&format!("<enable {sm} resume='1'/>")), Ok(Element::Enable(true)));
        assert_eq!(read(&format!("<r {sm}/>")), Ok(Element::Ask));
        assert_eq!(read(&format!("<a {sm} h='4294967295'/>")), Ok(Element::Ack(u32::MAX)));
        assert_eq!(
            read(&format!("<resume {sm} h='3' previd='a&amp;b'/>")),
            Ok(Element::Resume("a&b".into(), 3))
        );
        for bad in ["<a h='4294967296'", "<a h='-1'", "<a", "<resume h='1'", "<resume previd='x'"] {
            assert_eq!(read(&format!("{bad} {sm}/>")), Err(StreamFault::BadFormat), "{bad}");
        }
        assert_eq!(read(&format!("<what {sm}/>")), Err(StreamFault::UnsupportedStanzaType));
    }

    #[test]
    fn elements_are_written() {
        let id = SessionId { stream: 5, secret: 0xAB };
        let mut out = Vec::new();
        enabled(Some((&id, 300)), &mut out);
        ask(&mut out);
        ack(7, &mut out);
        resumed("x'y", 8, &mut out);
        failed(StanzaFault::ItemNotFound, Some(9), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "<enabled xmlns='urn:xmpp:sm:3' id='100000005000000000000000000000000000000ab' \
             resume='true' max='300'/><r xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='7'/>\
             <resumed xmlns='urn:xmpp:sm:3' previd='x&apos;y' h='8'/>\
             <failed xmlns='urn:xmpp:sm:3' h='9'><item-not-found \
             xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
        );
        assert_eq!(SessionId::parse(&id.to_string()), Some(id));
        for bad in ["", "1", "2000000050000000000000000000000000000000ab", "1é0000000", "1+0000005"]
        {
            assert_eq!(SessionId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn counts_wrap() {
        assert_eq!(advance(3, 3, 0), Ok(0));
        assert_eq!(advance(3, 5, 2), Ok(2));
        assert_eq!(advance(3, 6, 2), Err(TooHigh));
        assert_eq!(advance(3, 2, 5), Err(TooHigh), "it never goes back");
        assert_eq!(advance(u32::MAX - 1, 1, 3), Ok(3));
        assert_eq!(advance(u32::MAX, 0, 1), Ok(1));
        assert_eq!(advance(u32::MAX, 1, 1), Err(TooHigh));
    }

    /// Table: `sm.table`.
    #[test]
    fn every_state_meets_every_input() {
        let states = [
            Managed::Unbound,
            Managed::Off,
            Managed::On(false),
            Managed::On(true),
            Managed::Detached,
            Managed::Ended,
        ];
        let inputs = [
            Input::Bind,
            Input::Enable(false),
            Input::Enable(true),
            Input::Resume,
            Input::Ask,
            Input::Ack,
            Input::Taken,
            Input::Lost,
            Input::Close,
            Input::Timeout,
        ];
        let mut table = String::new();
        for state in states {
            for input in inputs {
                let next = match state.handle(input) {
                    Ok(next) => format!("{next:?}"),
                    Err(Refusal::Failed(fault)) => format!("failed {fault}"),
                    Err(Refusal::Stream(fault)) => format!("stream error {fault}"),
                };
                table += &format!("{state:?} + {input:?} -> {next}\n");
            }
        }
        crate::stdx::table::check("src/xmpp/sm.table", &table, include_str!("sm.table"));
    }
}
