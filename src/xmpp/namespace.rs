//! Namespaces: those we know, by a table made while compiling, and what a name for one may be.
//!
//! Namespaces in XML 1.0, 2.1 and 2.2. A namespace we don't know is as good as another; which prefix
//! stands for which is `scope`'s.

use crate::xmpp::{
    chars::{self, Stop},
    fault::StreamFault,
};

macro_rules! namespaces {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        /// Namespaces we know.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Ns {
            $(#[doc = concat!("`", $name, "`.")] $variant,)+
            /// One we don't know.
            #[default]
            Other,
        }

        impl Ns {
            /// All that have a name.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name; empty for one we don't know.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                    Self::Other => "",
                }
            }
        }
    };
}

namespaces! {
    Absent = "",
    Client = "jabber:client",
    Server = "jabber:server",
    Dialback = "jabber:server:dialback",
    Stream = "http://etherx.jabber.org/streams",
    StreamErrors = "urn:ietf:params:xml:ns:xmpp-streams",
    StanzaErrors = "urn:ietf:params:xml:ns:xmpp-stanzas",
    Tls = "urn:ietf:params:xml:ns:xmpp-tls",
    Sasl = "urn:ietf:params:xml:ns:xmpp-sasl",
    Bind = "urn:ietf:params:xml:ns:xmpp-bind",
    Session = "urn:ietf:params:xml:ns:xmpp-session",
    Compress = "http://jabber.org/protocol/compress",
    Sm = "urn:xmpp:sm:3",
    Roster = "jabber:iq:roster",
    Register = "jabber:iq:register",
    Privacy = "jabber:iq:privacy",
    Private = "jabber:iq:private",
    Last = "jabber:iq:last",
    Version = "jabber:iq:version",
    Vcard = "vcard-temp",
    VcardUpdate = "vcard-temp:x:update",
    Ping = "urn:xmpp:ping",
    Time = "urn:xmpp:time",
    Blocking = "urn:xmpp:blocking",
    DiscoInfo = "http://jabber.org/protocol/disco#info",
    DiscoItems = "http://jabber.org/protocol/disco#items",
    Caps = "http://jabber.org/protocol/caps",
    ChatStates = "http://jabber.org/protocol/chatstates",
    Receipts = "urn:xmpp:receipts",
    Hints = "urn:xmpp:hints",
    Delay = "urn:xmpp:delay",
    StanzaId = "urn:xmpp:sid:0",
    OccupantId = "urn:xmpp:occupant-id:0",
    Carbons = "urn:xmpp:carbons:2",
    Forward = "urn:xmpp:forward:0",
    ClientState = "urn:xmpp:csi:0",
    Limits = "urn:xmpp:stream-limits:0",
    Commands = "http://jabber.org/protocol/commands",
    Data = "jabber:x:data",
    PubSub = "http://jabber.org/protocol/pubsub",
    Muc = "http://jabber.org/protocol/muc",
    MucUser = "http://jabber.org/protocol/muc#user",
    Xml = "http://www.w3.org/XML/1998/namespace",
    Xmlns = "http://www.w3.org/2000/xmlns/",
}

impl Ns {
    /// The namespace of this name.
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        let mut slot = slot(name);
        loop {
            let found = SLOTS.get(slot & (SLOTS.len() - 1)).copied().unwrap_or_default();
            if found == Self::Other || found.name().as_bytes() == name {
                return found;
            }
            slot += 1;
        }
    }

    /// True for `jabber:client` and `jabber:server`, which are exchanged on the way.
    pub const fn is_content(self) -> bool {
        matches!(self, Self::Client | Self::Server)
    }
}

/// Namespaces by a hash of their names, made while compiling; `Other` is an empty slot.
static SLOTS: [Ns; 128] = slots();

#[expect(clippy::indexing_slicing, reason = "runs while compiling, where a slip is an error")]
const fn slots() -> [Ns; 128] {
    let mut slots = [Ns::Other; 128];
    let mut i = 0;
    while i < Ns::ALL.len() {
        let mut at = slot(Ns::ALL[i].name().as_bytes());
        while !matches!(slots[at & 127], Ns::Other) {
            at += 1;
        }
        slots[at & 127] = Ns::ALL[i];
        i += 1;
    }
    slots
}

/// Where the search for a name begins: its length, its last octet and one in the middle.
#[inline(always)]
const fn slot(name: &[u8]) -> usize {
    let (_, middle) = name.split_at(name.len() / 2);
    match (middle.first(), name.last()) {
        (Some(middle), Some(last)) => name.len() * 7 + *last as usize * 3 + *middle as usize,
        _ => 0,
    }
}

/// The namespace of this name, which is known or at least a plain URI.
#[inline]
pub(crate) fn declared(name: &[u8]) -> Result<Ns, Stop> {
    let ns = Ns::of(name);
    if ns == Ns::Other && !is_name(name) {
        return Err(StreamFault::InvalidNamespace.into());
    }
    Ok(ns)
}

/// True for a namespace name we take: a URI reference (RFC 3986, 4.1) written plainly, without
/// references or escapes.
///
/// A reference would let one namespace be written in two ways, of which we might know only one; and
/// libxml2 refuses what is no URI.
fn is_name(name: &[u8]) -> bool {
    if !name.iter().all(|b| chars::is_uri(*b)) || name.iter().filter(|b| **b == b'#').count() > 1 {
        return false;
    }
    let mark = name.iter().position(|b| matches!(*b, b':' | b'/' | b'?' | b'#'));
    match mark.and_then(|at| name.split_at_checked(at)) {
        Some((scheme, [b':', rest @ ..])) => is_scheme(scheme) && is_hierarchy(rest),
        _ => !name.starts_with(b"//"),
    }
}

/// RFC 3986, 3.1.
fn is_scheme(scheme: &[u8]) -> bool {
    scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// RFC 3986, 3: what follows the scheme; its authority is a host and perhaps a port.
fn is_hierarchy(rest: &[u8]) -> bool {
    let Some(rest) = rest.strip_prefix(b"//") else { return true };
    let end = rest.iter().position(|b| matches!(*b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let authority = rest.get(..end).unwrap_or_default();
    let mut parts = authority.splitn(2, |b| *b == b':');
    let host = parts.next().unwrap_or_default();
    let is_host = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    let is_port = |it: &[u8]| matches!(it.len(), 1..=5) && it.iter().all(u8::is_ascii_digit);
    !host.is_empty() && host.iter().all(is_host) && parts.next().is_none_or(is_port)
}
