//! The wrappers of carbons: a copy of a message for another resource of the same account.
//!
//! XEP-0280, 7 and 8; XEP-0297. Which messages are copied is **not** decided here.

use crate::xmpp::frame::{Content, one};
use crate::xmpp::stanza::{Ns, Stanza};
use crate::xmpp::{read, write};

/// Which way the message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To another resource of the account.
    Received,
    /// From another resource of the account.
    Sent,
}

/// Appends the carbon of `message` for the resource at the full address `to` of the account `bare`.
///
/// `message` is as it was written to a client. False, and nothing, if it is no whole message.
pub fn write_carbon(way: Way, bare: &str, to: &str, message: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(stanza) = one(message, Content::Client) else { return false };
    let (name_end, len) = (stanza.name_end as usize, stanza.len as usize);
    let (Some(name), Some(rest)) = (message.get(..name_end), message.get(name_end..len)) else {
        return false;
    };
    out.extend_from_slice(b"<message");
    // XEP-0280, 11: only wrappers of the own account are believed.
    write::attr("from", bare, out);
    write::attr("to", to, out);
    // XEP-0280, 7: the wrapper keeps the type.
    if let Some(type_) = stanza.type_ {
        write::attr("type", &type_.value(message), out);
    }
    let name_of_way = match way {
        Way::Received => "received",
        Way::Sent => "sent",
    };
    for (tag, ns) in [(name_of_way, Ns::Carbons), ("forwarded", Ns::Forward)] {
        out.extend_from_slice(b"><");
        out.extend_from_slice(tag.as_bytes());
        write::attr("xmlns", ns.name(), out);
    }
    out.push(b'>');
    out.extend_from_slice(name);
    // XEP-0297, 3.1: or else it would be an element of the wrapper.
    if stanza.xmlns.is_none() {
        write::attr("xmlns", Ns::Client.name(), out);
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(b"</forwarded></");
    out.extend_from_slice(name_of_way.as_bytes());
    out.extend_from_slice(b"></message>");
    true
}

/// The message in a carbon, for those who look at one; `None` if it is none.
pub fn forwarded<'a>(frame: &'a [u8], stanza: &Stanza) -> Option<&'a [u8]> {
    use crate::xmpp::stanza::ChildKind::{CarbonsReceived, CarbonsSent};
    let wrapper = stanza.child(CarbonsSent).or_else(|| stanza.child(CarbonsReceived))?;
    let forwarded = read::child_of(wrapper.octets(frame), b"forwarded")?;
    read::child_of(forwarded, b"message")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carbon(way: Way, message: &str) -> Option<String> {
        let mut out = Vec::new();
        write_carbon(way, "me@x", "me@x/'b", message.as_bytes(), &mut out)
            .then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_carbon_wraps_the_message_whole() {
        assert_eq!(
            carbon(
                Way::Sent,
                "<message from='me@x/a' to='you@y' type='chat'><body>é</body></message>"
            )
            .unwrap(),
            "<message from='me@x' to='me@x/&apos;b' type='chat'>\
             <sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
             <message xmlns='jabber:client' from='me@x/a' to='you@y' type='chat'><body>é</body>\
             </message></forwarded></sent></message>"
        );
        assert_eq!(
            carbon(Way::Received, "<message xmlns='jabber:client' from='a'/>").unwrap(),
            "<message from='me@x' to='me@x/&apos;b'><received xmlns='urn:xmpp:carbons:2'>\
             <forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='a'/>\
             </forwarded></received></message>"
        );
        assert_eq!(carbon(Way::Sent, "<message><body>x</message>"), None);
        assert_eq!(carbon(Way::Sent, ""), None);
    }

    #[test]
    fn a_carbon_can_be_looked_into() {
        let text = carbon(Way::Sent, "<message to='a'><body>x</body></message>").unwrap();
        let stanza = one(text.as_bytes(), Content::Client).unwrap();
        assert_eq!(
            forwarded(text.as_bytes(), &stanza).unwrap(),
            b"<message xmlns='jabber:client' to='a'><body>x</body></message>"
        );
        let text = "<message><body>x</body></message>";
        let stanza = one(text.as_bytes(), Content::Client).unwrap();
        assert_eq!(forwarded(text.as_bytes(), &stanza), None);
    }
}
