//! Writes what is our own: headers, features, errors, and the small elements of a negotiation.
//!
//! RFC 6120, 4.2, 4.9, 5.4, 6.4; XEP-0220. Every value is escaped on its way out, so no caller can
//! write markup by mistake; what is markup already has `_raw` in its name. Stanzas that are handed on
//! are **not** written here but spliced.

use crate::xmpp::{
    chars,
    fault::{FaultType, StanzaFault, StreamFault},
    frame::Content,
    stanza::Ns,
};

/// Appends `text` so that it reads the same in text and in an attribute of either quote.
pub fn escape_into(text: &str, out: &mut Vec<u8>) {
    let octets = text.as_bytes();
    if chars::is_literal(octets) {
        return out.extend_from_slice(octets);
    }
    let special = |b: &u8| *b < b' ' || matches!(*b, b'<' | b'>' | b'&' | b'\'' | b'"' | 0xEF);
    let mut rest = octets;
    while let Some((plain, octet, behind)) = rest
        .iter()
        .position(special)
        .and_then(|at| Some((rest.get(..at)?, *rest.get(at)?, rest.get(at + 1..)?)))
    {
        out.extend_from_slice(plain);
        rest = behind;
        out.extend_from_slice(match octet {
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            b'&' => b"&amp;",
            b'\'' => b"&apos;",
            b'"' => b"&quot;",
            b'\t' => b"&#9;",
            b'\n' => b"&#10;",
            b'\r' => b"&#13;",
            // U+FFFE and U+FFFF, which XML 1.0, 2.2 does not know.
            0xEF if matches!(behind, [0xBF, 0xBE | 0xBF, ..]) => {
                rest = behind.get(2..).unwrap_or_default();
                REPLACEMENT
            }
            0xEF => b"\xEF",
            // Other control characters can't be written in XML 1.0 at all.
            _ => REPLACEMENT,
        });
    }
    out.extend_from_slice(rest);
}

const REPLACEMENT: &[u8] = "\u{FFFD}".as_bytes();

/// Appends ` name='value'`.
pub fn attr(name: &str, value: &str, out: &mut Vec<u8>) {
    attr_open(name, out);
    escape_into(value, out);
    out.push(b'\'');
}

/// Appends ` name='value'`, where `value` is escaped already.
pub fn attr_raw(name: &str, value: &str, out: &mut Vec<u8>) {
    attr_open(name, out);
    out.extend_from_slice(value.as_bytes());
    out.push(b'\'');
}

/// Appends ` name='number'` without a string in between.
pub fn attr_number(name: &str, number: u32, out: &mut Vec<u8>) {
    attr_open(name, out);
    let (mut rest, mut digits, mut count) = (number, [0_u8; 10], 0);
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - count..).unwrap_or_default());
    out.push(b'\'');
}

fn attr_open(name: &str, out: &mut Vec<u8>) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"='");
}

fn attr_some(name: &str, value: Option<&str>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        attr(name, value, out);
    }
}

/// A stream header with its XML declaration.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamHeader<'a> {
    /// The content namespace.
    pub content: Content,
    /// Declares `xmlns:db`.
    pub dialback: bool,
    /// Our name.
    pub from: Option<&'a str>,
    /// Theirs.
    pub to: Option<&'a str>,
    /// The stream's id, from the side that answers (RFC 6120, 4.7.3).
    pub id: Option<&'a str>,
    /// The default language.
    pub lang: Option<&'a str>,
}

impl StreamHeader<'_> {
    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<?xml version='1.0'?><stream:stream");
        attr("xmlns", self.content.ns().name(), out);
        attr("xmlns:stream", Ns::Stream.name(), out);
        if self.dialback {
            attr("xmlns:db", Ns::Dialback.name(), out);
        }
        attr_some("from", self.from, out);
        attr_some("to", self.to, out);
        attr_some("id", self.id, out);
        attr_some("xml:lang", self.lang, out);
        out.extend_from_slice(b" version='1.0'>");
    }
}

/// What a stream offers (RFC 6120, 4.3.2).
#[derive(Clone, Copy, Debug, Default)]
pub struct Features<'a> {
    /// STARTTLS; true: required (RFC 6120, 5.3.1).
    pub starttls: Option<bool>,
    /// SASL mechanisms, best first.
    pub mechanisms: &'a [&'a str],
    /// Channel bindings for them (XEP-0440).
    pub bindings: &'a [&'a str],
    /// Dialback, with errors (XEP-0220, 2.4.1).
    pub dialback: bool,
    /// Resource binding (RFC 6120, 7).
    pub bind: bool,
    /// The session of RFC 3921, 3, which is no longer needed but asked for by old clients.
    pub session: bool,
    /// Stream management (XEP-0198).
    pub sm: bool,
    /// Further features, proven XML of our own.
    pub more_raw: &'a str,
}

impl Features<'_> {
    /// Appends `<stream:features/>`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<stream:features>");
        if let Some(required) = self.starttls {
            let inner = if required { "<required/>" } else { "" };
            element("starttls", Ns::Tls.name(), inner, out);
        }
        if !self.mechanisms.is_empty() {
            out.extend_from_slice(b"<mechanisms");
            attr("xmlns", Ns::Sasl.name(), out);
            out.push(b'>');
            for mechanism in self.mechanisms {
                out.extend_from_slice(b"<mechanism>");
                escape_into(mechanism, out);
                out.extend_from_slice(b"</mechanism>");
            }
            out.extend_from_slice(b"</mechanisms>");
        }
        if !self.bindings.is_empty() {
            out.extend_from_slice(b"<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'>");
            for binding in self.bindings {
                out.extend_from_slice(b"<channel-binding");
                attr("type", binding, out);
                out.extend_from_slice(b"/>");
            }
            out.extend_from_slice(b"</sasl-channel-binding>");
        }
        if self.dialback {
            element("dialback", "urn:xmpp:features:dialback", "<errors/>", out);
        }
        if self.bind {
            element("bind", Ns::Bind.name(), "", out);
        }
        if self.session {
            element("session", Ns::Session.name(), "<optional/>", out);
        }
        if self.sm {
            element("sm", Ns::Sm.name(), "", out);
        }
        out.extend_from_slice(self.more_raw.as_bytes());
        out.extend_from_slice(b"</stream:features>");
    }
}

/// Appends an element of this namespace around markup of our own.
fn element(name: &str, xmlns: &str, inner_raw: &str, out: &mut Vec<u8>) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    attr("xmlns", xmlns, out);
    if inner_raw.is_empty() {
        out.extend_from_slice(b"/>");
        return;
    }
    out.push(b'>');
    out.extend_from_slice(inner_raw.as_bytes());
    end(name, out);
}

fn end(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"</");
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
}

/// The end of a stream (RFC 6120, 4.4).
pub const STREAM_END: &[u8] = b"</stream:stream>";

/// Appends a stream error and the end of the stream (RFC 6120, 4.9.1).
pub fn stream_error(fault: StreamFault, text: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<stream:error>");
    condition(fault.name(), Ns::StreamErrors.name(), text, out);
    out.extend_from_slice(b"</stream:error>");
    out.extend_from_slice(STREAM_END);
}

/// Appends `<error/>` for a stanza (RFC 6120, 8.3.2).
pub fn stanza_error(fault: StanzaFault, text: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<error");
    attr("type", fault.fault_type().name(), out);
    out.push(b'>');
    condition(fault.name(), Ns::StanzaErrors.name(), text, out);
    out.extend_from_slice(b"</error>");
}

/// Appends `<error/>` of another type than the condition's usual one, with an application's own
/// condition beside it (RFC 6120, 8.3.4).
pub fn stanza_error_with(
    fault: StanzaFault,
    fault_type: FaultType,
    more_raw: &str,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"<error");
    attr("type", fault_type.name(), out);
    out.push(b'>');
    condition(fault.name(), Ns::StanzaErrors.name(), None, out);
    out.extend_from_slice(more_raw.as_bytes());
    out.extend_from_slice(b"</error>");
}

fn condition(name: &str, xmlns: &str, text: Option<&str>, out: &mut Vec<u8>) {
    element(name, xmlns, "", out);
    if let Some(text) = text {
        out.extend_from_slice(b"<text");
        attr("xmlns", xmlns, out);
        out.extend_from_slice(b" xml:lang='en'>");
        escape_into(text, out);
        out.extend_from_slice(b"</text>");
    }
}

/// Appends `<starttls/>` (RFC 6120, 5.4.2.1).
pub fn starttls(out: &mut Vec<u8>) {
    element("starttls", Ns::Tls.name(), "", out);
}

/// Appends `<proceed/>` (RFC 6120, 5.4.2.3).
pub fn proceed(out: &mut Vec<u8>) {
    element("proceed", Ns::Tls.name(), "", out);
}

/// Appends the `<failure/>` of STARTTLS and the end of the stream (RFC 6120, 5.4.2.2).
pub fn tls_failure(out: &mut Vec<u8>) {
    element("failure", Ns::Tls.name(), "", out);
    out.extend_from_slice(STREAM_END);
}

/// Appends `<auth/>` with the initial response in base64; empty: `=` (RFC 6120, 6.4.2).
pub fn sasl_auth(mechanism: &str, response: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<auth");
    attr("xmlns", Ns::Sasl.name(), out);
    attr("mechanism", mechanism, out);
    out.push(b'>');
    if let Some(response) = response {
        escape_into(if response.is_empty() { "=" } else { response }, out);
    }
    out.extend_from_slice(b"</auth>");
}

/// Appends `<challenge/>` with its payload in base64 (RFC 6120, 6.4.3).
pub fn sasl_challenge(payload: &str, out: &mut Vec<u8>) {
    sasl("challenge", payload, out);
}

/// Appends `<response/>` with its payload in base64 (RFC 6120, 6.4.3).
pub fn sasl_response(payload: &str, out: &mut Vec<u8>) {
    sasl("response", payload, out);
}

/// Appends `<success/>` with its payload in base64, if any (RFC 6120, 6.4.6).
pub fn sasl_success(payload: &str, out: &mut Vec<u8>) {
    sasl("success", payload, out);
}

fn sasl(name: &str, payload: &str, out: &mut Vec<u8>) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    attr("xmlns", Ns::Sasl.name(), out);
    if payload.is_empty() {
        out.extend_from_slice(b"/>");
        return;
    }
    out.push(b'>');
    escape_into(payload, out);
    end(name, out);
}

/// Appends the `<failure/>` of SASL; `name` is a condition of RFC 6120, 6.5.
pub fn sasl_failure(name: &str, text: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<failure");
    attr("xmlns", Ns::Sasl.name(), out);
    out.extend_from_slice(b"><");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"/>");
    if let Some(text) = text {
        out.extend_from_slice(b"<text xml:lang='en'>");
        escape_into(text, out);
        out.extend_from_slice(b"</text>");
    }
    out.extend_from_slice(b"</failure>");
}

/// What an element of dialback says (XEP-0220, 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialback<'a> {
    /// A key, to be judged.
    Key(&'a str),
    /// It is right.
    Valid,
    /// It is wrong.
    Invalid,
    /// It could not be judged (XEP-0220, 2.4.2).
    Error(StanzaFault),
}

/// Appends `<db:result/>`; the prefix is declared by the header.
pub fn db_result(from: &str, to: &str, what: Dialback<'_>, out: &mut Vec<u8>) {
    dialback("db:result", from, to, None, what, out);
}

/// Appends `<db:verify/>`; the prefix is declared by the header.
pub fn db_verify(from: &str, to: &str, id: &str, what: Dialback<'_>, out: &mut Vec<u8>) {
    dialback("db:verify", from, to, Some(id), what, out);
}

fn dialback(
    name: &str,
    from: &str,
    to: &str,
    id: Option<&str>,
    what: Dialback<'_>,
    out: &mut Vec<u8>,
) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    attr("from", from, out);
    attr("to", to, out);
    attr_some("id", id, out);
    match what {
        Dialback::Key(key) => {
            out.push(b'>');
            escape_into(key, out);
            end(name, out);
        }
        Dialback::Valid => out.extend_from_slice(b" type='valid'/>"),
        Dialback::Invalid => out.extend_from_slice(b" type='invalid'/>"),
        Dialback::Error(fault) => {
            out.extend_from_slice(b" type='error'>");
            stanza_error(fault, None, out);
            end(name, out);
        }
    }
}

#[cfg(test)]
mod tests;
