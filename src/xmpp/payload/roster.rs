//! `jabber:iq:roster`: what a client asks or changes, and the items that it is told.
//!
//! RFC 6121, 2. The rules of form of 2.3.3 are checked here: one item, groups that are there once,
//! lengths. What a client says of `subscription` (but `remove`), `ask` and `approved` is passed over
//! (2.1.2). Who the contact is and whether there is room is **not** asked here.

use crate::limits::{ITEM_GROUPS_MAX, ITEM_TEXT_OCTETS_MAX};
use crate::xmpp::payload::{Item, Misread, Payload, attribute, open_set, open_tag};
use crate::xmpp::stanza::{Ns, Stanza};
use crate::xmpp::write;

/// What a roster set changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RosterSet {
    /// RFC 6121, 2.3 and 2.4: an item is added, or all of it replaced.
    Put {
        /// As written.
        jid: String,
        /// Empty: none.
        name: Box<str>,
        /// Sorted, none twice, none empty.
        groups: Box<[Box<str>]>,
    },
    /// RFC 6121, 2.5.
    Remove {
        /// As written.
        jid: String,
    },
}

/// Reads a roster get: the version that the client has, or `None` if it has no use for versions
/// (RFC 6121, 2.6.2). An empty text is one that has nothing yet.
pub fn read_get(frame: &[u8], stanza: &Stanza) -> Result<Option<String>, Misread> {
    let mut payload = Payload::new(frame, stanza, Ns::Roster)?;
    let query = payload.open(&["query"])?;
    attribute(&query, "ver")
}

/// Reads a roster set.
pub fn read_set(frame: &[u8], stanza: &Stanza) -> Result<RosterSet, Misread> {
    let mut payload = Payload::new(frame, stanza, Ns::Roster)?;
    payload.open(&["query"])?;
    let mut set = None;
    while let Some(item) = payload.next()? {
        match item {
            Item::Element(1, start) if start.local_name().into_inner() == "item" => {
                // RFC 6121, 2.1.5: one item.
                if set.is_some() {
                    return Err(Misread::Doubled);
                }
                let jid = attribute(&start, "jid")?.ok_or(Misread::Missing)?;
                let remove = attribute(&start, "subscription")?.is_some_and(|it| it == "remove");
                let name = attribute(&start, "name")?.unwrap_or_default();
                let groups = read_groups(&mut payload)?;
                if name.len() > ITEM_TEXT_OCTETS_MAX {
                    return Err(Misread::BadLength);
                }
                set = Some(if remove {
                    RosterSet::Remove { jid }
                } else {
                    RosterSet::Put { jid, name: name.into(), groups }
                });
            }
            Item::Element(0, _) => return Err(Misread::Doubled),
            _ => {}
        }
    }
    set.ok_or(Misread::Missing)
}

/// The groups of an item, up to its end.
fn read_groups(payload: &mut Payload<'_>) -> Result<Box<[Box<str>]>, Misread> {
    let mut groups: Vec<Box<str>> = Vec::new();
    let mut group: Option<String> = None;
    while let Some(item) = payload.next()? {
        match item {
            Item::Element(2, start) if start.local_name().into_inner() == "group" => {
                group = Some(String::new());
            }
            Item::Text(2, text) => {
                if let Some(group) = &mut group {
                    group.push_str(&text);
                }
            }
            Item::End(2) => {
                if let Some(group) = group.take() {
                    // RFC 6121, 2.3.3: of length zero, or longer than the server takes.
                    if group.is_empty() || group.len() > ITEM_TEXT_OCTETS_MAX {
                        return Err(Misread::BadLength);
                    }
                    if groups.len() >= ITEM_GROUPS_MAX {
                        return Err(Misread::TooMany);
                    }
                    groups.push(group.into());
                }
            }
            Item::End(1) => break,
            _ => {}
        }
    }
    groups.sort_unstable();
    // RFC 6121, 2.3.3: the same group twice is a bad request.
    if groups.is_sorted_by(|a, b| a < b) { Ok(groups.into()) } else { Err(Misread::Doubled) }
}

/// An item as a client is told of it (RFC 6121, 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RosterItem<'a> {
    pub jid: &'a str,
    /// Empty: none.
    pub name: &'a str,
    pub groups: &'a [Box<str>],
    /// `none`, `to`, `from`, `both`, or `remove`.
    pub subscription: &'a str,
    /// `subscribe`, or none.
    pub ask: Option<&'a str>,
    pub approved: bool,
}

impl RosterItem<'_> {
    /// Appends `<item/>`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<item");
        write::attr("jid", self.jid, out);
        write::attr("subscription", self.subscription, out);
        if let Some(ask) = self.ask {
            write::attr("ask", ask, out);
        }
        if self.approved {
            write::attr("approved", "true", out);
        }
        if !self.name.is_empty() {
            write::attr("name", self.name, out);
        }
        if self.groups.is_empty() {
            return out.extend_from_slice(b"/>");
        }
        out.push(b'>');
        for group in self.groups {
            out.extend_from_slice(b"<group>");
            write::escape_into(group, out);
            out.extend_from_slice(b"</group>");
        }
        out.extend_from_slice(b"</item>");
    }
}

/// Appends the payload of a roster result or push, with the version that it brings (RFC 6121, 2.6).
pub fn write_query<'a>(
    version: u64,
    items: impl IntoIterator<Item = RosterItem<'a>>,
    out: &mut Vec<u8>,
) {
    open_tag("query", Ns::Roster, out);
    write::attr("ver", &version.to_string(), out);
    let mut items = items.into_iter().peekable();
    if items.peek().is_none() {
        return out.extend_from_slice(b"/>");
    }
    out.push(b'>');
    for item in items {
        item.write(out);
    }
    out.extend_from_slice(b"</query>");
}

/// Appends a roster push for the client at the full address `to` (RFC 6121, 2.1.6).
pub fn write_push(to: &str, id: &str, version: u64, item: RosterItem<'_>, out: &mut Vec<u8>) {
    open_set(to, id, out);
    write_query(version, [item], out);
    out.extend_from_slice(b"</iq>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xmpp::fault::StanzaFault;
    use crate::xmpp::frame::{Content, one};

    fn set(inner: &str) -> Result<RosterSet, StanzaFault> {
        let text = format!("<iq type='set' id='1'>{inner}</iq>");
        let stanza = one(text.as_bytes(), Content::Client).unwrap();
        Ok(read_set(text.as_bytes(), &stanza)?)
    }

    fn item(inner: &str) -> Result<RosterSet, StanzaFault> {
        set(&format!("<query xmlns='jabber:iq:roster'>{inner}</query>"))
    }

    fn put(jid: &str, name: &str, groups: &[&str]) -> Result<RosterSet, StanzaFault> {
        let groups = groups.iter().map(|it| Box::from(*it)).collect();
        Ok(RosterSet::Put { jid: jid.into(), name: name.into(), groups })
    }

    #[test]
    fn a_set_is_read_as_it_is_meant() {
        assert_eq!(item("<item jid='a@b'/>"), put("a@b", "", &[]));
        assert_eq!(
            item(
                "<item jid='a&amp;@b' name='N&#10;&apos;é' subscription='both' ask='subscribe'>\n \
                 <group>Z</group><group>A &lt;<![CDATA[&]]></group><x xmlns='u'><group>no</group></x>\
                 </item><more xmlns='u'/>"
            ),
            put("a&@b", "N\n'é", &["A <&", "Z"])
        );
        assert_eq!(
            item("<item jid='a@b' subscription='remove' name='x'><group>g</group></item>"),
            Ok(RosterSet::Remove { jid: "a@b".into() })
        );
        // Prefixes, also those of the root.
        let text = "<iq type='set' id='1' xmlns:r='jabber:iq:roster'>\
            <r:query><r:item jid='a@b'><r:group>g</r:group><group>no</group></r:item></r:query></iq>";
        let stanza = one(text.as_bytes(), Content::Client).unwrap();
        assert_eq!(
            read_set(text.as_bytes(), &stanza).map_err(StanzaFault::from),
            put("a@b", "", &["g"])
        );
    }

    #[test]
    fn rules_of_form_have_their_errors() {
        use StanzaFault::{BadRequest, NotAcceptable};
        let long = "x".repeat(ITEM_TEXT_OCTETS_MAX + 1);
        let groups = |n: usize| (0..n).map(|i| format!("<group>{i}</group>")).collect::<String>();
        for (text, fault) in [
            (String::new(), BadRequest),
            ("<item/>".into(), BadRequest),
            ("<item name='x'/>".into(), BadRequest),
            ("<item jid='a@b'/><item jid='c@d'/>".into(), BadRequest),
            ("<item jid='a@b'/><item jid='a@b'/>".into(), BadRequest),
            ("<item jid='a@b'><group>x</group><group>x</group></item>".into(), BadRequest),
            ("<item jid='a@b'><group/></item>".into(), NotAcceptable),
            ("<item jid='a@b'><group></group></item>".into(), NotAcceptable),
            (format!("<item jid='a@b'><group>{long}</group></item>"), NotAcceptable),
            (format!("<item jid='a@b' name='{long}'/>"), NotAcceptable),
            (format!("<item jid='a@b'>{}</item>", groups(ITEM_GROUPS_MAX + 1)), NotAcceptable),
        ] {
            assert_eq!(item(&text), Err(fault), "{text}");
        }
        assert!(item(&format!("<item jid='a@b'>{}</item>", groups(ITEM_GROUPS_MAX))).is_ok());
        assert_eq!(set("<query xmlns='u'/>"), Err(BadRequest));
        assert_eq!(set("<x xmlns='jabber:iq:roster'><item jid='a@b'/></x>"), Err(BadRequest));
    }

    #[test]
    fn a_get_names_the_version_that_the_client_has() {
        for (text, wanted) in [
            ("<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>", None),
            ("<iq type='get' id='1'><query xmlns='jabber:iq:roster' ver=''/></iq>", Some("")),
            (
                "<iq type='get' id='1'><query xmlns='jabber:iq:roster' ver='7'></query></iq>",
                Some("7"),
            ),
        ] {
            let stanza = one(text.as_bytes(), Content::Client).unwrap();
            assert_eq!(read_get(text.as_bytes(), &stanza).unwrap().as_deref(), wanted);
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let groups: [Box<str>; 2] = ["A <&".into(), "é".into()];
        let item = RosterItem {
            jid: "a&@b",
            name: "N\n'",
            groups: &groups,
            subscription: "none",
            ask: Some("subscribe"),
            approved: true,
        };
        let mut out = Vec::new();
        write_push("me@x/y", "p1", 7, item, &mut out);
        let text = String::from_utf8(out.clone()).unwrap();
        assert_eq!(
            text,
            "<iq type='set' id='p1' to='me@x/y'><query xmlns='jabber:iq:roster' ver='7'>\
             <item jid='a&amp;@b' subscription='none' ask='subscribe' approved='true' \
             name='N&#10;&apos;'><group>A &lt;&amp;</group><group>é</group></item></query></iq>"
        );
        let stanza = one(&out, Content::Client).unwrap();
        assert_eq!(
            read_set(&out, &stanza).map_err(StanzaFault::from),
            put("a&@b", "N\n'", &["A <&", "é"])
        );
        out.clear();
        write_query(0, [], &mut out);
        assert_eq!(out, b"<query xmlns='jabber:iq:roster' ver='0'/>");
    }
}
