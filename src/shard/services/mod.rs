//! What the server itself answers: for its own address, and on behalf of local users.
//!
//! RFC 6121, 8.5.1. Here is who may ask what; the answers are in the files beside this one: `disco`
//! (XEP-0030, 0115), `stored` (XEP-0049, 0054), `facts` (XEP-0012, 0092, 0202), `command`
//! (XEP-0050); block lists are in
//! `shard/blocking.rs`; rosters never come here.
//!
//! Order: a client whose set must be committed is not read before that is answered, so nothing of
//! his overtakes it (`later`). What is known in memory is answered at once and may overtake an
//! earlier get that needs the store; such gets are answered in their order.
//!
//! **Not** supported, and told to nobody: the message archive (XEP-0313), publish-subscribe and
//! personal eventing (XEP-0060, 0163), avatars but those in vCards (XEP-0084, 0153), vCard4
//! (XEP-0292), bookmarks but those in private data (XEP-0402), registration in band (XEP-0077),
//! push (XEP-0357), uploads (XEP-0363), contact search (XEP-0055), reports (XEP-0377), the older
//! privacy lists (XEP-0016), offline headers (XEP-0013), and the rest that an account or a server
//! might be asked: `service-unavailable`.

pub(super) mod command;
pub(super) mod disco;
mod facts;
mod later;
mod stored;

pub(super) use later::{Later, Laters};

use crate::address::AddressRef;
use crate::envelope::{Kind, Purpose};
use crate::shard::Shard;
use crate::shard::account::Outcome;
use crate::shard::deliver::{Carry, Text, reread};
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::splice;
use crate::xmpp::stanza::{ChildKind, Stanza};

/// A get or set that the server answers.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) carry: &'a Carry<'a>,
    pub(super) frame: &'a [u8],
    pub(super) stanza: &'a Stanza,
    /// Its one child.
    pub(super) payload: &'a [u8],
    pub(super) is_set: bool,
    /// It is about the server, not an account.
    pub(super) of_server: bool,
    /// A user asks about his own account.
    pub(super) own: bool,
}

/// What becomes of a question.
pub(super) enum Reply {
    /// The payload of the result.
    Now(Vec<u8>),
    /// Whoever took it upon himself answers by [`Shard::answer_later`].
    Later,
}

/// The fault says why there is no result.
pub(super) type Answered = Result<Reply, StanzaFault>;

impl Shard {
    /// A stanza for the server, or for an account where the server answers.
    pub(super) fn serve(&mut self, carry: &Carry<'_>) {
        match (carry.kind, carry.purpose) {
            (Kind::Iq, Purpose::Get | Purpose::Set) => {}
            // RFC 6120, 10.5.2: presence and answers for the server itself end here.
            (Kind::Presence | Kind::Iq, _) => return self.outcome(carry.origin, Outcome::ByRule),
            (Kind::Message, _) => return self.bounce(carry, StanzaFault::ServiceUnavailable),
        }
        match &carry.text {
            Text::Original { frame, stanza, .. } => self.serve_iq(carry, frame, stanza),
            Text::Written(frame) => match reread(frame) {
                Some(stanza) => self.serve_iq(carry, frame, &stanza),
                None => self.bounce(carry, StanzaFault::BadRequest),
            },
        }
    }

    fn serve_iq(&mut self, carry: &Carry<'_>, frame: &[u8], stanza: &Stanza) {
        let answered = match stanza.children().first() {
            None => Err(StanzaFault::BadRequest),
            Some(child) => {
                let asked = Asked {
                    carry,
                    frame,
                    stanza,
                    payload: child.octets(frame),
                    is_set: carry.purpose == Purpose::Set,
                    of_server: carry.to.local().is_none(),
                    own: carry.from.bare() == carry.to.bare(),
                };
                self.answer_of(&asked, child.kind)
            }
        };
        match answered {
            Err(fault) => self.bounce(carry, fault),
            Ok(Reply::Now(payload)) => self.result(carry, frame, stanza, &payload),
            Ok(Reply::Later) => {}
        }
    }

    /// One arm per payload.
    fn answer_of(&mut self, asked: &Asked<'_>, kind: ChildKind) -> Answered {
        let Asked { is_set, of_server, own, .. } = *asked;
        match kind {
            // A stranger does not learn whether there is such an account.
            ChildKind::Ping
                if !is_set && (of_server || self.may_see(asked.carry.to, asked.carry.from)) =>
            {
                now(|_| {})
            }
            // RFC 3921, 3, which old clients still ask for.
            ChildKind::Session if is_set && (own || of_server) => now(|_| {}),
            ChildKind::DiscoInfo if !is_set => self.disco_info(asked),
            ChildKind::DiscoItems if !is_set => self.disco_items(asked),
            ChildKind::Version if !is_set && of_server => now(facts::version),
            ChildKind::Time if !is_set && of_server => now(|out| facts::time(self.now.wall, out)),
            ChildKind::Last if !is_set => self.last_activity(asked),
            ChildKind::Vcard if !of_server => self.vcard(asked),
            ChildKind::Private if !of_server => self.private(asked),
            ChildKind::Blocking if own => self.block_list(asked),
            ChildKind::Command if is_set => self.command(asked),
            _ => Err(StanzaFault::ServiceUnavailable),
        }
    }

    /// The result of an IQ; its account is closed.
    fn result(&mut self, carry: &Carry<'_>, frame: &[u8], stanza: &Stanza, payload: &[u8]) {
        let mut text = Vec::new();
        let (from, to) = (Some(carry.to.full()), Some(carry.from.full()));
        splice::result_reply(frame, stanza, from, to, payload, &mut text);
        self.outcome(carry.origin, Outcome::Delivered);
        self.answer(carry.to, carry.from, Kind::Iq, Purpose::Result, &text);
    }

    /// `who` may know whether this user of the shard is there: himself, and those whose
    /// subscription he granted (RFC 6121, 8.5.1).
    pub(super) fn may_see(&self, user: AddressRef<'_>, who: AddressRef<'_>) -> bool {
        who.bare() == user.bare()
            || self.home.account(user.bare()).is_some_and(|it| it.is_seen_by(who.bare()))
    }
}

/// An answer that is known.
fn now(write: impl FnOnce(&mut Vec<u8>)) -> Answered {
    let mut out = Vec::new();
    write(&mut out);
    Ok(Reply::Now(out))
}
