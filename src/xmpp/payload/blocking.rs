//! `urn:xmpp:blocking`: what a client blocks or unblocks, and the lists and pushes that it is told.
//!
//! XEP-0191. Reports that come with a block (XEP-0377) are **not** read.

use crate::limits::RULES_MAX;
use crate::xmpp::payload::{Item, Misread, Payload, attribute, open_set, open_tag};
use crate::xmpp::stanza::{Ns, Stanza};
use crate::xmpp::write;

/// What a client wants of its block list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// XEP-0191, 3.2: all of it.
    List,
    /// XEP-0191, 3.3: at least one address, as written.
    Block(Vec<String>),
    /// XEP-0191, 3.4: at least one address, as written.
    Unblock(Vec<String>),
    /// XEP-0191, 3.5.
    UnblockAll,
}

/// Reads the payload of an IQ; `is_set`: of a set, not of a get.
pub fn read(frame: &[u8], stanza: &Stanza, is_set: bool) -> Result<Blocking, Misread> {
    let mut payload = Payload::new(frame, stanza, Ns::Blocking)?;
    if !is_set {
        payload.open(&["blocklist"])?;
        return Ok(Blocking::List);
    }
    let is_block = payload.open(&["block", "unblock"])?.local_name().into_inner() == "block";
    let mut jids = Vec::new();
    while let Some(item) = payload.next()? {
        match item {
            Item::Element(1, start) if start.local_name().into_inner() == "item" => {
                if jids.len() >= RULES_MAX {
                    return Err(Misread::TooMany);
                }
                jids.push(attribute(&start, "jid")?.ok_or(Misread::Missing)?);
            }
            Item::Element(0, _) => return Err(Misread::Doubled),
            _ => {}
        }
    }
    match (is_block, jids.is_empty()) {
        // XEP-0191, 3.3: nothing to block.
        (true, true) => Err(Misread::Missing),
        (true, false) => Ok(Blocking::Block(jids)),
        (false, true) => Ok(Blocking::UnblockAll),
        (false, false) => Ok(Blocking::Unblock(jids)),
    }
}

/// What stands beside `not-acceptable` for a stanza to somebody whom its sender blocks (XEP-0191,
/// 3.3).
pub const BLOCKED_RAW: &str = "<blocked xmlns='urn:xmpp:blocking:errors'/>";

/// Appends the payload that answers a get.
pub fn write_list<'a>(jids: impl IntoIterator<Item = &'a str>, out: &mut Vec<u8>) {
    write("blocklist", jids, out);
}

/// Appends the push of a block for the client at the full address `to`.
pub fn write_block_push<'a>(
    to: &str,
    id: &str,
    jids: impl IntoIterator<Item = &'a str>,
    out: &mut Vec<u8>,
) {
    write_push("block", to, id, jids, out);
}

/// Appends the push of an unblock; no addresses: of all.
pub fn write_unblock_push<'a>(
    to: &str,
    id: &str,
    jids: impl IntoIterator<Item = &'a str>,
    out: &mut Vec<u8>,
) {
    write_push("unblock", to, id, jids, out);
}

fn write_push<'a>(
    name: &str,
    to: &str,
    id: &str,
    jids: impl IntoIterator<Item = &'a str>,
    out: &mut Vec<u8>,
) {
    open_set(to, id, out);
    write(name, jids, out);
    out.extend_from_slice(b"</iq>");
}

fn write<'a>(name: &str, jids: impl IntoIterator<Item = &'a str>, out: &mut Vec<u8>) {
    open_tag(name, Ns::Blocking, out);
    let mut jids = jids.into_iter().peekable();
    if jids.peek().is_none() {
        return out.extend_from_slice(b"/>");
    }
    out.push(b'>');
    for jid in jids {
        out.extend_from_slice(b"<item");
        write::attr("jid", jid, out);
        out.extend_from_slice(b"/>");
    }
    out.extend_from_slice(b"</");
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xmpp::frame::{Content, one};

    fn read_text(text: &str, is_set: bool) -> Result<Blocking, Misread> {
        let text = format!("<iq type='set' id='1'>{text}</iq>");
        read(text.as_bytes(), &one(text.as_bytes(), Content::Client).unwrap(), is_set)
    }

    #[test]
    fn blocks_and_unblocks_are_read() {
        let item = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let blocking = |name: &str, inner: &str| {
            read_text(&format!("<{name} xmlns='urn:xmpp:blocking'>{inner}</{name}>"), true)
        };
        assert_eq!(
            blocking("block", "<item jid='a@b'><report xmlns='u'/></item><item jid='c&apos;d'/>"),
            Ok(Blocking::Block(item(&["a@b", "c'd"])))
        );
        assert_eq!(blocking("unblock", "<item jid='b'/>"), Ok(Blocking::Unblock(item(&["b"]))));
        assert_eq!(blocking("unblock", ""), Ok(Blocking::UnblockAll));
        assert_eq!(blocking("block", ""), Err(Misread::Missing));
        assert_eq!(blocking("block", "<item/>"), Err(Misread::Missing));
        assert_eq!(blocking("block", "<item xmlns='u' jid='a'/>"), Err(Misread::Missing));
        assert_eq!(blocking("blocklist", ""), Err(Misread::Missing));
        let many = "<item jid='a'/>".repeat(RULES_MAX + 1);
        assert_eq!(blocking("block", &many), Err(Misread::TooMany));
        assert_eq!(read_text("<blocklist xmlns='urn:xmpp:blocking'/>", false), Ok(Blocking::List));
        assert_eq!(read_text("<block xmlns='urn:xmpp:blocking'/>", false), Err(Misread::Missing));
    }

    #[test]
    fn lists_and_pushes_are_written() {
        let mut out = Vec::new();
        write_list([], &mut out);
        write_list(["a&b"], &mut out);
        write_block_push("me/1", "p", ["a", "b"], &mut out);
        write_unblock_push("me/1", "p", [], &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "<blocklist xmlns='urn:xmpp:blocking'/>\
             <blocklist xmlns='urn:xmpp:blocking'><item jid='a&amp;b'/></blocklist>\
             <iq type='set' id='p' to='me/1'><block xmlns='urn:xmpp:blocking'><item jid='a'/>\
             <item jid='b'/></block></iq>\
             <iq type='set' id='p' to='me/1'><unblock xmlns='urn:xmpp:blocking'/></iq>"
        );
    }
}
