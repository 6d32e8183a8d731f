//! The partner's people, its dialogs, and what it sent and heard.
//!
//! RFC 3261, 12.1: each side's tag, the route set, the target, the numbers.

use std::time::Instant;

use super::state::State;
use super::words::{Message, address, param, uri};
use super::{Manner, Rule};

/// One of the partner's people.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) open: bool,
    pub(super) activity: String,
    pub(super) rule: Rule,
    pub(super) manner: Manner,
}

/// What a dialog is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ours watches somebody there.
    Watching,
    /// Ours is watched from there.
    Watched,
    /// Texts.
    Session,
}

/// A dialog, from its first request on.
#[derive(Clone, Debug)]
pub(super) struct Dialog {
    pub(super) kind: Kind,
    pub(super) user: String,
    /// `bob@fabrikam.example`.
    pub(super) far: String,
    pub(super) call_id: String,
    /// Our From or To, whole.
    pub(super) local: String,
    pub(super) local_tag: String,
    pub(super) epid: String,
    /// Theirs, whole; without a tag until there is one.
    pub(super) remote: String,
    pub(super) remote_tag: String,
    /// What stands in our Route.
    pub(super) routes: Vec<String>,
    /// The Request-URI of what we send.
    pub(super) target: String,
    pub(super) number: u32,
    pub(super) far_number: u32,
    pub(super) expires: u32,
    pub(super) up: bool,
    pub(super) over: bool,
    /// Whether their ACK has come, or ours gone.
    pub(super) acknowledged: bool,
    /// Octets of our ACK, should their 2xx come again.
    pub(super) ack: Vec<u8>,
}

/// A request of ours.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) branch: String,
    pub(super) dialog: Option<usize>,
    pub(super) message: Message,
    /// Places of its answers in what was heard.
    pub(super) answers: Vec<usize>,
}

/// A message that came in.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) link: u64,
    pub(super) at: Instant,
    pub(super) message: Message,
    pub(super) dialog: Option<usize>,
    /// Whether a script has had it.
    pub(super) taken: bool,
}

impl State {
    /// A dialog of ours begins.
    pub(super) fn dialog(&mut self, method: &str, user: &str, far: &str) -> usize {
        let (tag, call_id) = (self.token(), self.token());
        let epid = "787f6c813e".to_owned();
        // Somebody of another domain only if a script wants to see what becomes of it.
        let own = format!("{user}@{}", self.site.domain);
        let who = if user.contains('@') { user } else { own.as_str() };
        let dialog = Dialog {
            kind: if method == "INVITE" { Kind::Session } else { Kind::Watching },
            user: user.to_owned(),
            far: far.to_owned(),
            call_id,
            local: format!("\"Zoë, <{user}>\"<sip:{who}>;epid={epid};tag={tag}"),
            local_tag: tag,
            epid,
            remote: format!("<sip:{far}>"),
            remote_tag: String::new(),
            routes: Vec::new(),
            target: format!("sip:{far}"),
            number: 0,
            far_number: 0,
            expires: 0,
            up: false,
            over: false,
            acknowledged: false,
            ack: Vec::new(),
        };
        self.dialogs.push(dialog);
        self.dialogs.len() - 1
    }

    /// A dialog of theirs begins here.
    pub(super) fn accept(&mut self, place: usize, message: &Message) -> usize {
        let (tag, epid) = (self.token(), "54fa23d827".to_owned());
        let user = address(&message.uri).split('@').next().unwrap_or_default().to_owned();
        let from = message.header("From");
        let dialog = Dialog {
            kind: if message.method == "INVITE" { Kind::Session } else { Kind::Watched },
            user,
            far: address(uri(from)).to_owned(),
            call_id: message.header("Call-ID").to_owned(),
            local: format!("{};epid={epid};tag={tag}", message.header("To")),
            local_tag: tag,
            epid,
            remote: from.to_owned(),
            remote_tag: param(from, "tag").to_owned(),
            routes: message.list("Record-Route").into_iter().map(str::to_owned).collect(),
            target: uri(message.header("Contact")).to_owned(),
            number: 0,
            far_number: message.number(),
            expires: 0,
            up: true,
            over: false,
            acknowledged: false,
            ack: Vec::new(),
        };
        self.dialogs.push(dialog);
        let at = self.dialogs.len() - 1;
        if let Some(heard) = self.heard.get_mut(place) {
            heard.dialog = Some(at);
        }
        at
    }

    pub(super) fn dialog_of(&self, message: &Message) -> Option<usize> {
        let ours = if message.status == 0 { "To" } else { "From" };
        let tag = param(message.header(ours), "tag");
        let (call_id, request) = (message.header("Call-ID"), message.status == 0);
        let is_it = |it: &Dialog| it.call_id == call_id && !tag.is_empty() && it.local_tag == tag;
        // A response to what they asked for is ours by its From; one of a dialog they began has ours in To as well.
        let found = self.dialogs.iter().position(is_it);
        found.filter(|_| request || message.status != 0)
    }
}
