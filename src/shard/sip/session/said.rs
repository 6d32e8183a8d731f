//! What local users say to SIP contacts, and what becomes of it.
//!
//! A text waits with its account until the session knows its outcome; its errors are those of
//! RFC 7247, 7. Receipts have no place in SIP and are dropped (RFC 7573, 7 maps them for MSRP only).

use crate::envelope::Purpose;
use crate::gateway::fault::{Alarm, to_xmpp};
use crate::gateway::message::{Manner, language, subject};
use crate::gateway::session::{Input, LegId, Why};
use crate::gateway::typing::ChatState;
use crate::limits::{IM_ANSWER_TIME_MAX, IM_TEXT_BYTES_MAX};
use crate::policy::Im as Mode;
use crate::shard::Shard;
use crate::shard::account::Outcome;
use crate::shard::deliver::{Carry, Text, reread};
use crate::shard::post::carried;
use crate::shard::sip::session::{Asked, REQUEST_TIME};
use crate::shard::sip::{Asker, Heard};
use crate::sip::message::Message;
use crate::stdx::Key;
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::stanza::{ChildKind, Stanza};
use std::time::Duration;

/// A text with its account.
#[derive(Debug)]
pub(super) struct Held {
    /// The stanza, as a record of `post`.
    pub(super) record: Vec<u8>,
    pub(super) body: String,
    pub(super) subject: Option<String>,
    pub(super) lang: Option<String>,
    pub(super) thread: Option<String>,
    /// The domain it goes to.
    pub(super) far: Box<str>,
}

impl Shard {
    /// A message of a local user for a SIP contact, an error about one of the contact's included.
    pub(in crate::shard::sip) fn session_stanza(&mut self, carry: &Carry<'_>) {
        let read = match &carry.text {
            Text::Original { frame, stanza, .. } => Some(read_said(frame, stanza)),
            Text::Written(text) => reread(text).map(|stanza| read_said(text, &stanza)),
        };
        let Some(read) = read else { return self.bounce(carry, StanzaFault::BadRequest) };
        let manner = match carry.purpose {
            Purpose::Error => Manner::Dropped,
            Purpose::Groupchat => Manner::Refused,
            Purpose::Headline => Manner::Page,
            _ => Manner::Chat,
        };
        match (manner, read.body.is_empty()) {
            (Manner::Dropped, _) => {
                self.error_said(carry);
                self.outcome(carry.origin, Outcome::ByRule);
            }
            (Manner::Refused, _) => self.bounce(carry, StanzaFault::ServiceUnavailable),
            (_, true) => self.state_said(carry, read.state),
            (Manner::Page, false) => self.page_said(carry, read),
            (Manner::Chat, false) => {
                if self.pages(carry, self.sip.im.find(carry.from, carry.to)) {
                    self.page_said(carry, read);
                } else {
                    self.text_said(carry, read);
                }
            }
        }
    }

    /// By the rule of the domain, unless they have made a session.
    fn pages(&self, carry: &Carry<'_>, chat: Option<Key>) -> bool {
        let rule = &self.settings.policy.verdict(carry.to.domain()).0.protocol;
        let live = chat.and_then(|key| self.sip.im.chats.get(key));
        rule.sip().is_some_and(|it| it.im == Mode::Page) && live.is_none_or(|it| it.legs.is_empty())
    }

    /// A chat state alone means something in a conversation only (RFC 7573, 6.1).
    fn state_said(&mut self, carry: &Carry<'_>, state: Option<ChatState>) {
        let key = self.sip.im.find(carry.from, carry.to);
        let (Some(key), Some(state)) = (key, state) else {
            return self.outcome(carry.origin, Outcome::ByRule);
        };
        self.outcome(carry.origin, Outcome::Delivered);
        if self.pages(carry, Some(key)) {
            return self.page_state(key, carry, state);
        }
        self.in_chat(key, |it, now, out| it.typed(state.toward_sip(), now, out));
    }

    fn text_said(&mut self, carry: &Carry<'_>, read: Read) {
        let deadline = carry.since + IM_ANSWER_TIME_MAX;
        let Some(number) = self.take_text(carry, read) else { return };
        let Some(key) = self.chat_of(carry.from, carry.to) else {
            return self.text_bounced(number, Why::Full);
        };
        let mut said = Ok(());
        self.in_chat(key, |it, now, out| said = it.say(number, deadline, now, out));
        if said.is_err() {
            self.counters.sip.im_full += 1;
            self.text_bounced(number, Why::Full);
        }
    }

    /// Takes a text into our care; `None`: it has gone back.
    pub(super) fn take_text(&mut self, carry: &Carry<'_>, read: Read) -> Option<u32> {
        let late = self.now.moment >= carry.since + IM_ANSWER_TIME_MAX;
        let fault = match carried(carry) {
            _ if late => StanzaFault::RemoteServerTimeout,
            _ if read.body.len() > IM_TEXT_BYTES_MAX => StanzaFault::PolicyViolation,
            Err(_) => StanzaFault::NotAcceptable,
            Ok(record) => {
                let im = &mut self.sip.im;
                im.number = im.number.wrapping_add(1);
                let Read { body, subject, lang, thread, .. } = read;
                let far = carry.to.domain().into();
                let held = Held { record, body, subject, lang, thread, far };
                im.texts.insert(im.number, held);
                return Some(im.number);
            }
        };
        self.bounce(carry, fault);
        None
    }

    /// The far end has acknowledged it.
    pub(super) fn text_delivered(&mut self, number: u32) {
        let Some(held) = self.sip.im.texts.remove(&number) else { return };
        self.with_carry(&held.record, |shard, carry| {
            shard.outcome(carry.origin, Outcome::Delivered);
        });
    }

    /// It goes back with the error that this means (RFC 7247, 7.2).
    pub(super) fn text_bounced(&mut self, number: u32, why: Why) {
        let Some(held) = self.sip.im.texts.remove(&number) else { return };
        self.counters.sip.im_texts_bounced += 1;
        let fault = match why {
            Why::Status(status) => {
                let verdict = to_xmpp(status, None, false, self.profile_of(&held.far));
                match verdict.alarm {
                    Some(Alarm::Challenged) => self.counters.sip.im_challenged += 1,
                    Some(Alarm::Loop) => self.counters.sip.im_loops += 1,
                    Some(Alarm::EdgeCheck) => self.counters.sip.im_edge_checks += 1,
                    None => {}
                }
                verdict.fault
            }
            Why::Timeout | Why::Unreachable | Why::Denied => StanzaFault::RemoteServerTimeout,
            Why::Unresolved => StanzaFault::RemoteServerNotFound,
            Why::Full => StanzaFault::ResourceConstraint,
            Why::Stopping => StanzaFault::RecipientUnavailable,
        };
        self.with_carry(&held.record, |shard, carry| shard.bounce(carry, fault));
    }

    /// The answer to a request in a session.
    pub(in crate::shard::sip) fn session_heard(&mut self, asked: Key, heard: Heard<'_>) {
        let Some(ask) = self.sip.im.asks.get(asked).copied() else { return };
        if let (Asked::Invite(key, id), heard) = (ask, &heard) {
            return self.invite_heard(key, id, heard);
        }
        let (status, later) = match &heard {
            Heard::Response(it) if it.status() < 200 => return,
            Heard::Response(it) => (Ok(it.status()), it.retry_after()),
            Heard::Failed(failure) => (Err(Why::from(*failure)), None),
        };
        self.sip.im.asks.remove(asked);
        let outcome = match status {
            Ok(200..=299) => Ok(()),
            Ok(status) => Err(Why::Status(status)),
            Err(why) => Err(why),
        };
        match ask {
            Asked::Text(key, id, number) => {
                let later = later.map(|it| Duration::from_secs(it.into()));
                let outcome = outcome.map_err(|why| (why, later));
                self.in_chat(key, |it, now, out| it.answered(id, number, outcome, now, out));
            }
            Asked::Typing(key, id) => {
                if let Err(why) = outcome {
                    self.in_chat(key, |it, now, out| it.typing_answered(id, why, now, out));
                }
            }
            Asked::Bye(key, id) => self.chat_input(key, id, Input::Ended),
            Asked::Page(key, number) => self.page_answered(key, number, outcome),
            Asked::PageTyping(key) => self.page_typing_answered(key, outcome),
            Asked::Invite(..) => {}
        }
    }

    /// The same for a message outside of any dialog.
    pub(in crate::shard::sip) fn page_heard(&mut self, asked: Key, heard: Heard<'_>) {
        self.session_heard(asked, heard);
    }

    fn invite_heard(&mut self, key: Key, id: LegId, heard: &Heard<'_>) {
        let response = match heard {
            Heard::Response(response) => response,
            Heard::Failed(failure) => {
                let why = Why::from(*failure);
                return self.in_chat(key, |it, now, out| it.refused(id, why, now, out));
            }
        };
        match response.status() {
            ..=199 => self.chat_input(key, id, Input::Progress),
            200..=299 => self.invite_accepted(key, id, response),
            status => {
                let why = Why::Status(status);
                self.in_chat(key, |it, now, out| it.refused(id, why, now, out));
            }
        }
    }

    fn invite_accepted(&mut self, key: Key, id: LegId, response: &Message<'_>) {
        let Some(near) = self.sip.im.chats.get(key).map(|it| it.user.domain().to_owned()) else {
            return;
        };
        let own = self.sip_name(&near).to_owned();
        let Some(leg) = self.sip.im.leg(key, id) else { return };
        match leg.dialog.learn(response, &own) {
            Ok(true) => {
                // While we wanted it no more, it is ended at once: nothing to keep.
                self.keep_leg(key, id, true);
                self.chat_input(key, id, Input::Accepted);
            }
            Ok(false) => {
                // They fork: this one answered after the one we talk to.
                let mut other = leg.dialog.fork(leg.invite);
                if other.learn(response, &own).is_ok() {
                    let deadline = self.now.moment + REQUEST_TIME;
                    for method in ["ACK", "BYE"] {
                        let mut text = Vec::new();
                        match method {
                            "ACK" => other.again(method, other.cseq(), &mut text).end(),
                            _ => other.request(method, &mut text).end(),
                        }
                        self.leg_sends(key, Asker::Nobody, deadline, text);
                    }
                }
            }
            Err(_) => {
                self.counters.sip.im_answers_malformed += 1;
                let why = Why::Status(502);
                self.in_chat(key, |it, now, out| it.refused(id, why, now, out));
            }
        }
    }
}

/// What of a message has a place in SIP.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) body: String,
    pub(super) subject: Option<String>,
    pub(super) lang: Option<String>,
    pub(super) thread: Option<String>,
    pub(super) state: Option<ChatState>,
}

fn read_said(frame: &[u8], stanza: &Stanza) -> Read {
    let text = |kind| stanza.child_text(frame, kind);
    let lang = stanza.lang.map(|it| it.value(frame));
    Read {
        body: text(ChildKind::Body).unwrap_or_default(),
        subject: text(ChildKind::Subject).and_then(|it| subject(&it)),
        lang: lang.as_deref().and_then(language).map(str::to_owned),
        thread: text(ChildKind::Thread).filter(|it| !it.is_empty()),
        state: ChatState::of(stanza),
    }
}
