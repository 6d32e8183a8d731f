//! Elements that are kept as they came: vCards (XEP-0054), private data (XEP-0049).
//!
//! What is kept must mean the same when it is handed out again, in another stanza: an element that
//! needs a prefix or a default namespace from outside is refused. What is in it is **not** read.

use quick_xml::NsReader;
use quick_xml::events::Event;
use quick_xml::name::{Namespace, ResolveResult};

use crate::xmpp::payload::Misread;
use crate::xmpp::read;
use crate::xmpp::stanza::Ns;

/// The name of an element that stands alone, as `{namespace}name`.
pub fn name_of(element: &[u8]) -> Result<String, Misread> {
    let text = std::str::from_utf8(element).map_err(|_| Misread::Unreadable)?;
    let mut reader = NsReader::from_str(text);
    let mut name = None;
    loop {
        let (ns, event) = reader.read_resolved_event().map_err(|_| Misread::Unreadable)?;
        let (ns, start) = match (ns, event) {
            (_, Event::Eof) => break,
            (ResolveResult::Unknown(_), _) => return Err(Misread::Unreadable),
            (ResolveResult::Bound(Namespace(ns)), Event::Start(it) | Event::Empty(it)) => (ns, it),
            (_, Event::Start(it) | Event::Empty(it)) => ("", it),
            _ => continue,
        };
        if name.is_none() {
            // Without a namespace it would take that of whatever stands around it.
            // Nor is one taken that is written in a roundabout way: it would have two names.
            if ns.is_empty() || ns.contains(|c: char| c <= ' ' || c == '&') {
                return Err(Misread::Unreadable);
            }
            name = Some(format!("{{{ns}}}{}", start.local_name().into_inner()));
        }
        for attribute in start.attributes() {
            let key = attribute.map_err(|_| Misread::Unreadable)?.key;
            let is_declaration = key.as_namespace_binding().is_some();
            if !is_declaration
                && let (ResolveResult::Unknown(_), _) = reader.resolver().resolve_attribute(key)
            {
                return Err(Misread::Unreadable);
            }
        }
    }
    name.ok_or(Misread::Missing)
}

/// Reads `<vCard/>`: all of it, or `None` if nothing is in it.
pub fn vcard(element: &[u8]) -> Result<Option<&[u8]>, Misread> {
    let expected = format!("{{{}}}vCard", Ns::Vcard.name());
    if name_of(element)? != expected {
        return Err(Misread::Unreadable);
    }
    Ok(read::children(element).next().map(|_| element))
}

/// Reads the one element in a `<query/>` of private data, and its name.
pub fn private(query: &[u8]) -> Result<(String, &[u8]), Misread> {
    let mut children = read::children(query);
    let element = children.next().ok_or(Misread::Missing)?;
    if children.next().is_some() {
        return Err(Misread::Doubled);
    }
    Ok((name_of(element)?, element))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_alone_has_a_name() {
        for (text, name) in [
            ("<a xmlns='u'/>", Ok("{u}a")),
            ("<p:a xmlns:p='u' p:x='1' xml:lang='en'><b xmlns=''/><p:c/></p:a>", Ok("{u}a")),
            ("<a xmlns='u'><b xmlns:q='v'><q:c q:d='&amp;'>t</q:c></b></a>", Ok("{u}a")),
            ("<a/>", Err(Misread::Unreadable)),
            ("<a xmlns='u&#10;v'/>", Err(Misread::Unreadable)),
            ("<a xmlns='u\nv'/>", Err(Misread::Unreadable)),
            ("<a xmlns=''/>", Err(Misread::Unreadable)),
            ("<p:a/>", Err(Misread::Unreadable)),
            ("<a xmlns='u'><p:b/></a>", Err(Misread::Unreadable)),
            ("<a xmlns='u' p:x='1'/>", Err(Misread::Unreadable)),
            ("<a xmlns='u'><b xmlns:q='v'/><q:c/></a>", Err(Misread::Unreadable)),
            ("", Err(Misread::Missing)),
        ] {
            assert_eq!(name_of(text.as_bytes()).as_deref(), name.as_deref(), "{text}");
        }
    }

    #[test]
    fn a_card_without_content_is_none() {
        let card = b"<vCard xmlns='vcard-temp'><FN>x</FN></vCard>".as_slice();
        assert_eq!(vcard(card), Ok(Some(card)));
        assert_eq!(vcard(b"<vCard xmlns='vcard-temp'> </vCard>"), Ok(None));
        assert_eq!(vcard(b"<vCard xmlns='u'/>"), Err(Misread::Unreadable));
    }

    #[test]
    fn private_data_is_one_element() {
        let query = |inner: &str| format!("<query xmlns='jabber:iq:private'>{inner}</query>");
        let read = |text: &str| {
            let text = query(text);
            private(text.as_bytes())
                .map(|(name, octets)| (name, String::from_utf8(octets.to_vec()).unwrap()))
        };
        let element = "<storage xmlns='storage:bookmarks'><c/></storage>";
        assert_eq!(read(element), Ok(("{storage:bookmarks}storage".into(), element.into())));
        assert_eq!(read(""), Err(Misread::Missing));
        assert_eq!(read("<a xmlns='u'/><a xmlns='u'/>"), Err(Misread::Doubled));
        assert_eq!(read("<a/>"), Err(Misread::Unreadable));
    }
}
