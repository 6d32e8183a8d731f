//! Presence documents: read in every dialect, written in two (RFC 3863, RFC 4480, RFC 8048, 6).
//!
//! `microsoft` is the draft of RPID with one tuple, as Lync and Skype for Business take it;
//! `standard` has a tuple for each resource, the show of XMPP in its status and RFC 4480 beside.
//! Read are both, XPIDF, Microsoft's aggregates and categories, wherever an activity stands and in
//! whatever namespace. Partial documents (RFC 5263) and resource lists are **not** read.

mod read;
mod write;

#[cfg(test)]
mod tests;

pub use read::{Document, Malformed, read};
pub use write::{Resource, best, tuple_id, write};

use crate::address::AddressRef;
use crate::gateway::message::element;
use crate::gateway::{cut, legal};
use crate::limits::NOTE_OCTETS_MAX;
use crate::presence::availability::{Show, State, Wire};
use crate::xmpp::stanza::{ChildKind, Stanza};
use crate::xmpp::write as xmpp;

/// The content type of what is written.
pub const MEDIA_TYPE: &str = "application/pidf+xml";

/// What one resource, or a whole user, shows: neither of one protocol nor of the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    pub show: Show,
    pub status: Option<String>,
    /// The language of the status.
    pub lang: Option<String>,
    /// RFC 6121, 4.7.2.3; `None`: nothing was said of it.
    pub priority: Option<i8>,
}

impl Shown {
    /// Reads a presence stanza without a type or of type `unavailable`.
    pub fn of_stanza(frame: &[u8], stanza: &Stanza) -> Self {
        let unavailable = stanza.type_.is_some_and(|it| it.raw(frame) == "unavailable");
        let show = if unavailable {
            Show::Offline
        } else {
            Show::read(&stanza.child_text(frame, ChildKind::Show).unwrap_or_default())
        };
        let status = stanza.child_text(frame, ChildKind::Status).and_then(|it| note(&it));
        let priority = stanza.child_text(frame, ChildKind::Priority);
        Self {
            show,
            status,
            lang: stanza.lang.map(|it| it.value(frame).into_owned()),
            priority: priority.and_then(|it| it.trim().parse().ok()),
        }
    }

    /// As it travels in XMPP.
    pub fn wire(&self) -> Wire<'_> {
        Wire { show: self.show, status: self.status.as_deref() }
    }

    /// The state it means.
    pub fn state(&self) -> State {
        self.wire().state()
    }

    /// Appends the presence stanza that says it.
    pub fn write_stanza(&self, from: AddressRef<'_>, to: AddressRef<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<presence");
        xmpp::attr("from", from.full(), out);
        xmpp::attr("to", to.full(), out);
        if self.show == Show::Offline {
            xmpp::attr("type", "unavailable", out);
        }
        if let Some(lang) = &self.lang {
            xmpp::attr("xml:lang", lang, out);
        }
        out.push(b'>');
        if let Some(show) = self.show.word() {
            element("show", show, out);
        }
        if let Some(status) = &self.status {
            element("status", status, out);
        }
        if let Some(priority) = self.priority.filter(|_| self.show != Show::Offline) {
            element("priority", &priority.to_string(), out);
        }
        out.extend_from_slice(b"</presence>");
    }
}

/// A note as status, or the other way: none if it is empty.
fn note(text: &str) -> Option<String> {
    let text = legal(text.trim());
    let text = cut(&text, NOTE_OCTETS_MAX);
    (!text.is_empty()).then(|| text.to_owned())
}

/// A priority of XMPP in thousandths, as a contact bears it; a negative one has no place there.
pub fn thousandths(priority: i8) -> Option<u16> {
    // At most 1,000, so the cast keeps all of it.
    u32::try_from(priority).ok().map(|p| (1_000 * p / 127) as u16)
}

/// The priority of XMPP for so many thousandths; the inverse of [`thousandths`].
pub fn priority(thousandths: u16) -> i8 {
    let priority = (127 * u32::from(thousandths.min(1_000))).div_ceil(1_000);
    i8::try_from(priority).unwrap_or(i8::MAX)
}

/// Reads the priority of a contact (RFC 3863, 4.1.5): 0 to 1 with up to three decimals that count.
fn qvalue(text: &str) -> Option<u16> {
    let text = text.trim();
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if !decimals.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    let digit = |at: usize| decimals.as_bytes().get(at).map_or(0, |it| u16::from(it - b'0'));
    let value = 100 * digit(0) + 10 * digit(1) + digit(2);
    match whole {
        "0" => Some(value),
        "1" if value == 0 => Some(1_000),
        _ => None,
    }
}
