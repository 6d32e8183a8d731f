//! What the server and the accounts offer, told on asking and by a hash.
//!
//! XEP-0030, XEP-0115. [`OFFERS`] is the one list: what stands there is offered, and nothing is
//! offered that does not stand there. An account tells those who may see its presence, and nobody
//! else (RFC 6121, 8.5.1). The caps of clients are **not** read here: they pass through.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::limits::{CLIENT_STANZA_BYTES_MAX, IDLE_BEFORE_PING, PEER_STANZA_BYTES_MAX};
use crate::shard::Shard;
use crate::shard::services::command;
use crate::shard::services::{Answered, Asked, now};
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::read;
use crate::xmpp::stanza::Ns;
use crate::xmpp::write;

/// Something that is offered.
struct Offer {
    name: &'static str,
    /// Told of the server.
    server: bool,
    /// Told of an account.
    account: bool,
}

const fn both(name: &'static str) -> Offer {
    Offer { name, server: true, account: true }
}

const fn server(name: &'static str) -> Offer {
    Offer { name, server: true, account: false }
}

/// In the order of their octets, which is that of the verification hash (XEP-0115, 5.1).
const OFFERS: &[Offer] = &[
    server(Ns::Caps.name()),
    // To the user himself, at either address.
    both(Ns::Commands.name()),
    both(Ns::DiscoInfo.name()),
    both(Ns::DiscoItems.name()),
    both(Ns::Last.name()),
    // To the owner.
    both(Ns::Private.name()),
    server(Ns::Roster.name()),
    server(Ns::Version.name()),
    // XEP-0160, 4.
    server("msgoffline"),
    // To the user, about his own account (XEP-0191, 3.1).
    server(Ns::Blocking.name()),
    server(Ns::Carbons.name()),
    both(Ns::Ping.name()),
    server(Ns::Time.name()),
    both(Ns::Vcard.name()),
];

/// XEP-0115, 4: what software this is the hash of.
const CAPS_NODE: &str = "urn:tandem:switch";
const SERVER_IDENTITY: &[u8] = b"<identity category='server' type='im' name='Tandem'/>";
/// As XEP-0115, 5.1 writes the identity down.
const SERVER_IDENTITY_HASHED: &str = "server/im//Tandem<";
const ACCOUNT_IDENTITY: &[u8] = b"<identity category='account' type='registered'/>";

/// XEP-0115, 5.1.
fn verification() -> String {
    let mut text = SERVER_IDENTITY_HASHED.to_owned();
    for offer in OFFERS.iter().filter(|it| it.server) {
        text.push_str(offer.name);
        text.push('<');
    }
    STANDARD.encode(Sha1::digest(text.as_bytes()))
}

/// What a client's stream offers beside what RFC 6120 knows: our caps (XEP-0115, 6.3), client state
/// (XEP-0352), roster versions and pre-approval, the limits (XEP-0478).
pub(in crate::shard) fn client_features() -> String {
    let mut out = Vec::new();
    out.extend_from_slice(b"<c hash='sha-1'");
    write::attr("xmlns", Ns::Caps.name(), &mut out);
    write::attr("node", CAPS_NODE, &mut out);
    write::attr("ver", &verification(), &mut out);
    out.extend_from_slice(b"/><csi");
    write::attr("xmlns", Ns::ClientState.name(), &mut out);
    // RFC 6121, 2.6.1 and 3.4.1.
    out.extend_from_slice(
        b"/><ver xmlns='urn:xmpp:features:rosterver'/><sub xmlns='urn:xmpp:features:pre-approval'/>",
    );
    limits(CLIENT_STANZA_BYTES_MAX, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// The same for a peer's stream.
pub(in crate::shard) fn peer_features() -> String {
    let mut out = Vec::new();
    limits(PEER_STANZA_BYTES_MAX, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// XEP-0478, 3. Who says nothing for the second number is asked whether he is there.
fn limits(bytes: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<limits");
    write::attr("xmlns", Ns::Limits.name(), out);
    out.extend_from_slice(b"><max-bytes>");
    write::escape_into(&bytes.to_string(), out);
    out.extend_from_slice(b"</max-bytes><idle-seconds>");
    write::escape_into(&IDLE_BEFORE_PING.as_secs().to_string(), out);
    out.extend_from_slice(b"</idle-seconds></limits>");
}

impl Shard {
    /// XEP-0030, 3.
    pub(super) fn disco_info(&self, asked: &Asked<'_>) -> Answered {
        let of_server = asked.of_server;
        if !of_server && !self.may_see(asked.carry.to, asked.carry.from) {
            return Err(StanzaFault::ServiceUnavailable);
        }
        let node = read::attr_of(asked.payload, b"node").filter(|node| !node.is_empty());
        let is_caps = |node: &str| {
            node.strip_prefix(CAPS_NODE)
                .and_then(|rest| rest.strip_prefix('#'))
                .is_some_and(|ver| ver == verification())
        };
        match node.as_deref() {
            None => now(|out| info(of_server, None, out)),
            // XEP-0115, 6.2: what the hash stands for.
            Some(node) if of_server && is_caps(node) => now(|out| info(true, Some(node), out)),
            Some(node) if self.commander(asked).is_some() => command::info(node),
            Some(_) => Err(StanzaFault::ItemNotFound),
        }
    }

    /// XEP-0030, 4: no items but the commands (XEP-0050, 2.1).
    pub(super) fn disco_items(&self, asked: &Asked<'_>) -> Answered {
        if !asked.of_server && !self.may_see(asked.carry.to, asked.carry.from) {
            return Err(StanzaFault::ServiceUnavailable);
        }
        let node = read::attr_of(asked.payload, b"node").filter(|node| !node.is_empty());
        match node.as_deref() {
            None => now(|out| {
                out.extend_from_slice(b"<query");
                write::attr("xmlns", Ns::DiscoItems.name(), out);
                out.extend_from_slice(b"/>");
            }),
            Some(node) if self.commander(asked).is_some() => {
                command::items(node, asked.carry.to.full())
            }
            Some(_) => Err(StanzaFault::ItemNotFound),
        }
    }
}

fn info(of_server: bool, node: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<query");
    write::attr("xmlns", Ns::DiscoInfo.name(), out);
    if let Some(node) = node {
        write::attr("node", node, out);
    }
    out.push(b'>');
    out.extend_from_slice(if of_server { SERVER_IDENTITY } else { ACCOUNT_IDENTITY });
    for offer in OFFERS.iter().filter(|it| if of_server { it.server } else { it.account }) {
        out.extend_from_slice(b"<feature");
        write::attr("var", offer.name, out);
        out.extend_from_slice(b"/>");
    }
    out.extend_from_slice(b"</query>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_in_order_and_told_once() {
        assert!(OFFERS.is_sorted_by(|a, b| a.name < b.name));
    }

    /// XEP-0115, 5.1, worked out from what is told and not from the list.
    #[test]
    fn the_hash_is_that_of_the_answer() {
        let mut out = Vec::new();
        info(true, None, &mut out);
        let of = |child: &[u8], name: &[u8]| read::attr_of(child, name).map(|it| it.into_owned());
        let (mut identities, mut features) = (Vec::new(), Vec::new());
        for child in read::children(&out) {
            if read::name_of(child) == b"identity" {
                let part = |name: &[u8]| of(child, name).unwrap_or_default();
                let (category, kind) = (part(b"category"), part(b"type"));
                identities.push(format!(
                    "{category}/{kind}/{}/{}<",
                    part(b"xml:lang"),
                    part(b"name")
                ));
            } else {
                features.push(of(child, b"var").unwrap() + "<");
            }
        }
        identities.sort();
        features.sort();
        let text = identities.concat() + &features.concat();
        assert_eq!(STANDARD.encode(Sha1::digest(text)), verification());
        assert!(client_features().contains(&format!("ver='{}'", verification())));
    }
}
