//! A presence stanza that shows another state than it was written with.
//!
//! Only the text of `<show/>` and of the first `<status/>` is exchanged, or `<show/>` is left out;
//! everything else goes on octet for octet. A state is **never** added to a stanza that has none.

use std::borrow::Cow;
use std::ops::Range;

use crate::presence::availability::{Show, Wire};
use crate::xmpp::read::Reader;
use crate::xmpp::stanza::{Child, ChildKind, Stanza};
use crate::xmpp::write::escape_into;

/// The stanza as `change` would have it; `None` if that is as it is. It is one without a type.
pub fn rewritten(
    text: &[u8],
    stanza: &Stanza,
    change: impl for<'a> Fn(Wire<'a>) -> Wire<'a>,
) -> Option<Vec<u8>> {
    // Only a stanza with a show may have to be another: available has no text that counts.
    let show = stanza.child(ChildKind::Show)?;
    let status = stanza.child(ChildKind::Status);
    let said = stanza.child_text(text, ChildKind::Status);
    let word = stanza.child_text(text, ChildKind::Show)?;
    let before = Wire { show: Show::read(&word), status: said.as_deref() };
    let after = change(before);
    if after == before {
        return None;
    }
    let mut edits: Vec<(Range<usize>, Cow<'_, str>)> = Vec::with_capacity(2);
    if after.show != before.show {
        match after.show.word() {
            Some(word) => edits.push((content(text, show)?, word.into())),
            None => edits.push((show.start as usize..show.end as usize, "".into())),
        }
    }
    if let (Some(status), Some(new)) = (status, after.status)
        && after.status != before.status
    {
        edits.push((content(text, status)?, new.into()));
    }
    edits.sort_by_key(|(range, _)| range.start);
    let mut out = Vec::with_capacity(text.len() + 16);
    let mut at = 0;
    for (range, new) in edits {
        out.extend_from_slice(text.get(at..range.start)?);
        escape_into(&new, &mut out);
        at = range.end;
    }
    out.extend_from_slice(text.get(at..stanza.len as usize)?);
    Some(out)
}

/// What is between the tags of a child.
fn content(text: &[u8], child: &Child) -> Option<Range<usize>> {
    let octets = child.octets(text);
    let mut reader = Reader::new(octets);
    reader.next()?;
    let end = octets.iter().rposition(|it| *it == b'<')?;
    let start = child.start as usize;
    (reader.at() <= end).then(|| start + reader.at()..start + end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Profile;
    use crate::presence::availability::{incoming, outgoing};
    use crate::xmpp::frame::{Content, one};

    fn change(text: &str, change: impl for<'a> Fn(Wire<'a>) -> Wire<'a>) -> Option<String> {
        let stanza = one(text.as_bytes(), Content::Client).unwrap_or_else(|| panic!("{text}"));
        rewritten(text.as_bytes(), &stanza, change).map(|it| {
            assert!(one(&it, Content::Client).is_some());
            String::from_utf8(it).unwrap()
        })
    }

    #[test]
    fn only_what_differs_is_exchanged() {
        let busy = "<presence from='a@b'><c xmlns='x' node='n'/><show>away</show>\
            <status>Busy</status><priority>5</priority></presence>";
        let webex = |it: &str| change(it, |wire| outgoing(Profile::Webex, wire));
        assert_eq!(webex(busy).unwrap(), busy.replace("Busy", "Idle"));
        let turned = "<presence><status xml:lang='en'>B&#117;sy</status><show ><![CDATA[away]]></show\
            ></presence>";
        assert_eq!(webex(turned).unwrap(), turned.replace("B&#117;sy", "Idle"));
        assert_eq!(webex(&busy.replace("away", "dnd")), None);
        assert_eq!(webex("<presence><status>Busy</status></presence>"), None);
        assert_eq!(webex("<presence/>"), None);
        assert_eq!(webex("<presence><show/><status>Busy</status></presence>"), None);
        let sametime = |it: &str| change(it, |wire| outgoing(Profile::Sametime, wire));
        let xa = "<presence><show>xa</show><status>gone &amp; back</status></presence>";
        assert_eq!(sametime(xa).unwrap(), xa.replace("xa", "away"));
        assert_eq!(sametime(busy), None);
        let meeting = "<presence><show>away</show><status>In a meeting</status></presence>";
        let to = |client| change(meeting, |wire| incoming(Profile::Webex, client, wire));
        assert_eq!(to(Profile::Xmpp).unwrap(), meeting.replace("<show>away</show>", ""));
        assert_eq!(to(Profile::Jabber), None);
    }
}
