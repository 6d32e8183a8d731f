//! What the server itself answers: ping, disco, version, and the little a client needs to log in.
//!
//! For the server's own address and on behalf of local users (RFC 6121, 8.5.1). XEP-0030, XEP-0092,
//! XEP-0199. Rosters, vCards, private data and last activity are **not** here yet: a roster is asked
//! for by every client and is answered as empty, which it is, and a change of it is refused.

mod disco;

use crate::envelope::{Kind, Purpose};
use crate::shard::Shard;
use crate::shard::account::Outcome;
use crate::shard::deliver::{Carry, Text, reread};
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::splice;
use crate::xmpp::stanza::{ChildKind, Ns, Stanza};
use crate::xmpp::{read, write};

impl Shard {
    /// A stanza for the server, or for an account where the server answers.
    pub(super) fn serve(&mut self, carry: &Carry<'_>) {
        match (carry.kind, carry.purpose) {
            (Kind::Iq, Purpose::Get | Purpose::Set) => {}
            // RFC 6120, 10.5.2: presence and answers for the server itself end here.
            (Kind::Presence | Kind::Iq, _) => return self.outcome(carry.origin, Outcome::ByRule),
            (Kind::Message, _) => return self.bounce(carry, StanzaFault::ServiceUnavailable),
        }
        let mut text = Vec::new();
        let answer = match &carry.text {
            Text::Original { frame, stanza, .. } => self.answer_of(carry, frame, stanza, &mut text),
            Text::Written(frame) => match reread(frame) {
                Some(stanza) => self.answer_of(carry, frame, &stanza, &mut text),
                None => Err(StanzaFault::BadRequest),
            },
        };
        match answer {
            Err(fault) => self.bounce(carry, fault),
            Ok(()) => {
                self.outcome(carry.origin, Outcome::Delivered);
                self.answer(carry.to, carry.from, Kind::Iq, Purpose::Result, &text);
            }
        }
    }

    /// Writes the result; the fault says why there is none.
    fn answer_of(
        &self,
        carry: &Carry<'_>,
        frame: &[u8],
        stanza: &Stanza,
        out: &mut Vec<u8>,
    ) -> Result<(), StanzaFault> {
        let get = carry.purpose == Purpose::Get;
        let is_server = carry.to.local().is_none();
        let own = carry.from.bare() == carry.to.bare();
        let child = stanza.children().first().ok_or(StanzaFault::BadRequest)?;
        let mut payload = Vec::new();
        match child.kind {
            ChildKind::Ping if get => {}
            ChildKind::Session if !get && (own || is_server) => {}
            ChildKind::DiscoInfo if get => {
                let node = read::attr_of(child.octets(frame), b"node");
                if node.is_some_and(|node| !node.is_empty()) {
                    return Err(StanzaFault::ItemNotFound);
                }
                if !is_server && !own {
                    // RFC 6121, 8.5.1: what an account offers is for those who see its presence.
                    return Err(StanzaFault::ServiceUnavailable);
                }
                disco::info(is_server, &mut payload);
            }
            ChildKind::DiscoItems if get && (is_server || own) => {
                payload.extend_from_slice(b"<query");
                write::attr("xmlns", Ns::DiscoItems.name(), &mut payload);
                payload.extend_from_slice(b"/>");
            }
            ChildKind::Version if get && is_server => {
                payload.extend_from_slice(
                    b"<query xmlns='jabber:iq:version'><name>Tandem</name><version>",
                );
                write::escape_into(env!("CARGO_PKG_VERSION"), &mut payload);
                payload.extend_from_slice(b"</version></query>");
            }
            ChildKind::Roster if get && own => {
                payload.extend_from_slice(b"<query xmlns='jabber:iq:roster'/>");
            }
            ChildKind::Roster if own => return Err(StanzaFault::FeatureNotImplemented),
            _ => return Err(StanzaFault::ServiceUnavailable),
        }
        let (from, to) = (Some(carry.to.full()), Some(carry.from.full()));
        splice::result_reply(frame, stanza, from, to, &payload, out);
        Ok(())
    }
}
