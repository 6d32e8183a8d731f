//! Children that claim what their sender may not: in our name, or in the account's own.
//!
//! Asked once for each stanza that comes from a client or a peer, never for what we write. Nearly
//! all have no such child, which one look at the kinds of the scan tells. The rules:
//!
//! * carbons come from the account's own server only: who sends one is refused (XEP-0280, 11);
//! * so do roster pushes (RFC 6121, 2.1.6) and block pushes (XEP-0191, 3.3);
//! * a `stanza-id` by a domain or account of ours is cut (XEP-0359, 5), and one by nobody;
//! * an `occupant-id` is a room's to give: cut from clients (XEP-0421, 6);
//! * a `delay` in the name of a domain of ours or of the receiver is cut (XEP-0203, 5).
//!
//! What is inside a `forwarded` is a quotation and is **not** touched; whether it is believed is its
//! reader's.

use std::ops::Range;

use crate::address::{Address, AddressRef};
use crate::xmpp::read::{self, Event, Reader};
use crate::xmpp::stanza::{Child, ChildKind, Kind, Ns, Stanza};

/// Who sent a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// A client of ours.
    Client,
    /// A server that speaks for another domain.
    Peer,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Forged {
    /// Nothing.
    #[default]
    Nothing,
    /// The stanza goes on without these children: see `splice::Edits::cuts`.
    Cut(Vec<Range<u32>>),
    /// The stanza goes nowhere.
    Refused,
}

/// Looks for what `author` may not say to `to`, which is the author's own bare address if the stanza
/// names none; `is_ours` knows our domains.
#[inline]
pub fn find(
    frame: &[u8],
    stanza: &Stanza,
    author: Author,
    to: AddressRef<'_>,
    is_ours: impl Fn(&str) -> bool,
) -> Forged {
    if stanza.has_any(SUSPECTS) {
        look(frame, stanza, author, to, &is_ours)
    } else {
        Forged::Nothing
    }
}

/// Kinds that may be forged.
const SUSPECTS: u64 = CARBONS | PUSHES | STAMPS;
const CARBONS: u64 = ChildKind::CarbonsSent.bit() | ChildKind::CarbonsReceived.bit();
const PUSHES: u64 = ChildKind::Roster.bit() | ChildKind::Blocking.bit();
const STAMPS: u64 =
    ChildKind::StanzaId.bit() | ChildKind::OccupantId.bit() | ChildKind::Delay.bit();

#[cold]
fn look(
    frame: &[u8],
    stanza: &Stanza,
    author: Author,
    to: AddressRef<'_>,
    is_ours: &dyn Fn(&str) -> bool,
) -> Forged {
    match stanza.kind {
        Kind::Message if stanza.has_any(CARBONS) => return Forged::Refused,
        // To a bare address it is a request, which the server answers.
        Kind::Iq if stanza.has_any(PUSHES) && to.resource().is_some() => {
            let is_set = stanza.type_.is_some_and(|it| it.value(frame) == "set");
            return if is_set { Forged::Refused } else { Forged::Nothing };
        }
        Kind::Message | Kind::Presence if stanza.has_any(STAMPS) => {}
        _ => return Forged::Nothing,
    }
    let forged = |child: &Child| is_forged(child, frame, author, to, is_ours);
    let cuts: Vec<_> = if stanza.overflows() {
        all_children(frame, stanza).iter().filter(|it| forged(it)).map(Child::range).collect()
    } else {
        stanza.children().iter().filter(|it| forged(it)).map(Child::range).collect()
    };
    if cuts.is_empty() { Forged::Nothing } else { Forged::Cut(cuts) }
}

fn is_forged(
    child: &Child,
    frame: &[u8],
    author: Author,
    to: AddressRef<'_>,
    is_ours: &dyn Fn(&str) -> bool,
) -> bool {
    let claimed = |name: &[u8]| read::attr_of(child.octets(frame), name);
    match child.kind {
        ChildKind::OccupantId => author == Author::Client,
        // Without a readable `by` it says nothing that anybody may believe.
        ChildKind::StanzaId => claimed(b"by")
            .and_then(|by| Address::parse(&by).ok())
            .is_none_or(|by| is_ours(by.domain())),
        ChildKind::Delay => claimed(b"from")
            .and_then(|from| Address::parse(&from).ok())
            .is_some_and(|from| match from.local() {
                None => is_ours(from.domain()),
                Some(_) => from.bare() == to.bare(),
            }),
        _ => false,
    }
}

/// All first-level children: read anew, since a scan remembers the places of the first few only.
fn all_children(frame: &[u8], stanza: &Stanza) -> Vec<Child> {
    let root = frame.get(..stanza.len as usize).unwrap_or_default();
    let mut reader = Reader::new(root);
    let Some(Event::Start(_, root_attrs, _)) = reader.next() else { return Vec::new() };
    let (mut children, mut depth, mut child) = (Vec::new(), 0_usize, Child::default());
    loop {
        let start = reader.at() as u32;
        let Some(event) = reader.next() else { return children };
        let ended = match event {
            Event::Start(name, attrs, empty) => {
                if depth == 0 {
                    child = child_of(name, attrs, root_attrs, stanza.ns);
                    child.start = start;
                }
                depth += usize::from(!empty);
                empty
            }
            Event::End(_) => {
                let Some(less) = depth.checked_sub(1) else { return children };
                depth = less;
                true
            }
            Event::Text(_) | Event::Cdata(_) => false,
        };
        if ended && depth == 0 {
            children.push(Child { end: reader.at() as u32, ..child });
        }
    }
}

/// What a first-level child is, by its own declarations and those of the root.
///
/// A namespace name holds no references (`namespace`), so it is compared as written.
fn child_of(name: &[u8], attrs: &[u8], root_attrs: &[u8], content: Ns) -> Child {
    let colon = name.iter().position(|b| *b == b':');
    let (declaration, local) = match colon.and_then(|at| name.split_at_checked(at)) {
        Some((prefix, local)) => ([b"xmlns:", prefix].concat(), local.get(1..).unwrap_or_default()),
        None => (b"xmlns".to_vec(), name),
    };
    let declared = |attrs| {
        let mut all = read::attributes(attrs);
        all.find(|it| it.0 == declaration).map(|it| Ns::of(it.1.as_bytes()))
    };
    let ns = declared(attrs).or_else(|| declared(root_attrs)).unwrap_or(content);
    Child { kind: ChildKind::of(local, ns, content), ns, start: 0, end: 0 }
}

#[cfg(test)]
#[path = "forged_tests.rs"]
mod tests;
