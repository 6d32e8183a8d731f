//! Between SIP and XMPP: what each side's words mean on the other.
//!
//! The only floor below the engine that knows both wires. RFC 7247 (addresses, errors), RFC 8048
//! (presence), RFC 7572 and 7573 (messages and sessions), and what Microsoft's servers say instead.
//! Every dialect is read from everybody; the profile of a domain decides only what is sent.
//! Decisions and texts: **no** clock, connection or user is here.

pub mod activity;
pub mod address;
pub mod body;
pub mod fault;
pub mod message;
pub mod pidf;
pub mod session;
pub mod typing;
pub mod watch;
pub mod watched;

mod html;
mod part;
mod rtf;

use std::borrow::Cow;

/// The text with what XML 1.0, 2.2 does not know replaced by U+FFFD, and with line ends of XML (2.11).
pub fn legal(text: &str) -> Cow<'_, str> {
    let is_legal =
        |c: char| matches!(c, '\t' | '\n' | '\u{20}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}');
    // Nearly all is plain ASCII, of which many octets are judged together.
    let is_plain = |all: bool, it: &u8| all & ((0x20..0x7F).contains(it) | (*it == b'\n'));
    if text.bytes().fold(true, |all, it| is_plain(all, &it)) || text.chars().all(is_legal) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => {
                chars.next_if_eq(&'\n');
                out.push('\n');
            }
            c if is_legal(c) => out.push(c),
            _ => out.push(char::REPLACEMENT_CHARACTER),
        }
    }
    Cow::Owned(out)
}

/// At most so many octets of the text, whole characters.
fn cut(text: &str, octets: usize) -> &str {
    let mut end = text.len().min(octets);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_does_not_know_is_replaced() {
        assert_eq!(legal("a\tb\nc\u{10FFFF}"), "a\tb\nc\u{10FFFF}");
        assert_eq!(legal("a\r\nb\rc\0d\u{1}\u{FFFE}"), "a\nb\nc\u{FFFD}d\u{FFFD}\u{FFFD}");
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 9), "aé");
    }
}
