//! Texts of partners: they become stanzas, and the partner is answered once the home has them.
//!
//! A text is delivered or stored before it is answered with 200; if it goes nowhere the answer is
//! the error's (RFC 7247, 7.1). The same text again (Call-ID, From-tag, CSeq) gets the same answer
//! and is not delivered twice.

use crate::address::Address;
use crate::envelope::{Kind, Purpose};
use crate::gateway::body::{self, Unusable};
use crate::gateway::fault::{self, Told, to_sip};
use crate::gateway::message::{Said, StanzaId, language, subject};
use crate::gateway::session::LegId;
use crate::gateway::typing::{self, ChatState};
use crate::limits::{IM_ANSWERS_MAX, IM_GIVEN_MAX, PAGE_ANSWERS_MAX};
use crate::shard::Shard;
use crate::shard::account::Outcome;
use crate::shard::deliver::{Carry, Text, reread};
use crate::shard::sip::Txn;
use crate::sip::fault::Fault;
use crate::sip::message::Message;
use crate::sip::name::Name;
use crate::stdx::{Bounded, Key, Map};
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::read;
use crate::xmpp::stanza::ChildKind;
use std::time::Duration;

/// A text that the home was given.
#[derive(Debug)]
pub(super) struct Given {
    /// Who waits, the request and its repeats, and what each is told if all goes well; `None`: what
    /// its transaction has, which is on this shard.
    waiting: Vec<(Txn, Option<Vec<u8>>)>,
    place: Place,
    id: StanzaId,
    far: Box<str>,
    /// What its error means.
    status: Option<u16>,
}

/// Where its answer is remembered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// In a dialog, by CSeq.
    Leg(Key, LegId, u64),
    /// Outside of any, by a hash.
    Page(u64),
}

/// Answers that are given again, the oldest forgotten first.
#[derive(Debug)]
pub(super) struct Answers {
    of: Map<u64, Answered>,
    order: Bounded<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    /// Not yet: the number it was given under.
    Soon(u32),
    Status(u16),
}

impl Answers {
    pub(super) fn of_dialog() -> Self {
        // The far end's own numbers: it has nothing of collisions.
        Self { of: Map::seeded(0), order: Bounded::new(IM_ANSWERS_MAX) }
    }

    pub(super) fn of_shard(seed: u64) -> Self {
        Self { of: Map::seeded(seed), order: Bounded::new(PAGE_ANSWERS_MAX) }
    }

    fn set(&mut self, which: u64, answered: Answered) {
        if self.of.insert(which, answered).is_some() {
            return;
        }
        if !self.order.has_room(0)
            && let Some(oldest) = self.order.take()
        {
            self.of.remove(&oldest);
        }
        // There is room now.
        self.order.push(which).ok();
    }
}

/// What a partner says, and to whom.
#[derive(Debug)]
pub(super) struct Giving<'a> {
    pub(super) txn: Txn,
    pub(super) place: Place,
    pub(super) user: &'a Address,
    pub(super) contact: &'a Address,
    pub(super) thread: &'a str,
    /// In a session.
    pub(super) chat: bool,
}

impl Shard {
    /// A MESSAGE in a session's dialog.
    pub(super) fn text_came(&mut self, key: Key, id: LegId, txn: Txn, request: &Message<'_>) {
        let Ok((number, _)) = request.cseq() else { return };
        let place = Place::Leg(key, id, u64::from(number));
        if self.is_repeat(place, txn, request) {
            return;
        }
        if let Err(fault) = self.leg_hears(key, id, request) {
            return self.im_refuse(txn, request, &fault);
        }
        let mut live = false;
        self.in_chat(key, |it, now, out| live = it.hears(id, now, out));
        let Some(chat) = self.sip.im.chats.get(key).filter(|_| live) else {
            // It crosses our BYE.
            return self.im_refuse(txn, request, &Fault::new(481));
        };
        let (user, contact) = (chat.user.clone(), chat.contact.clone());
        let thread = chat.legs.iter().find(|it| it.id == id).map(|it| it.thread.clone());
        let thread = thread.unwrap_or_default();
        let giving =
            Giving { txn, place, user: &user, contact: &contact, thread: &thread, chat: true };
        self.give(giving, request);
    }

    /// A text, or that somebody types.
    pub(super) fn give(&mut self, giving: Giving<'_>, request: &Message<'_>) {
        let Giving { txn, place, user, contact, thread, chat } = giving;
        // Nearly all is `text/`.
        let other = request.header(Name::ContentType).is_some_and(|it| !matches!(it, [b't', ..]));
        if other
            && request.content_type().is_some_and(|it| it.is("application", "im-iscomposing+xml"))
        {
            return self.composing_came(&giving, request);
        }
        let text = body::text(&body::Body {
            media: request.header(Name::ContentType),
            transfer: request.header(Name::ContentTransferEncoding),
            coding: request.header(Name::ContentEncoding),
            octets: request.body(),
        });
        let text = match text {
            Ok(text) => text,
            Err(unusable) => return self.unusable_came(txn, request, unusable),
        };
        if text.is_empty() {
            return self.im_ok(txn, request);
        }
        if self.sip.im.given.len() >= IM_GIVEN_MAX {
            self.counters.sip.im_full += 1;
            return self.im_refuse(txn, request, &Fault::new(500).with("Retry-After", "5"));
        }
        self.counters.sip.im_texts_in += 1;
        let (Ok(call_id), Ok((number, _)), Ok(from)) =
            (request.call_id(), request.cseq(), request.from())
        else {
            return;
        };
        let id = StanzaId::new(call_id, number, from.tag().unwrap_or_default());
        let written_id = id.text();
        let header = |name| request.header(name).map(String::from_utf8_lossy);
        let (lang, about) = (header(Name::ContentLanguage), header(Name::Subject));
        let about = about.as_deref().and_then(subject);
        let said = Said {
            from: contact.view(),
            to: user.view(),
            id: Some(&written_id),
            chat,
            lang: lang.as_deref().and_then(language),
            subject: about.as_deref(),
            thread: Some(thread),
            body: Some(&text),
            state: chat.then_some(ChatState::Active),
        };
        let mut written = Vec::with_capacity(text.len() + 512);
        said.write(&mut written);
        let origin = self.sip_origin();
        let given = Given {
            waiting: vec![(txn, self.answer_to_come(txn, request))],
            place,
            id,
            far: contact.domain().into(),
            status: None,
        };
        self.sip.im.given.insert(origin.number, given);
        self.sip.im.ids.insert(id, origin.number);
        self.remember(place, Answered::Soon(origin.number));
        self.deliver(&Carry {
            origin: Some(origin),
            since: self.now.moment,
            kind: Kind::Message,
            purpose: if chat { Purpose::Chat } else { Purpose::Normal },
            from: contact.view(),
            to: user.view(),
            text: Text::Written(&written),
        });
    }

    /// The 200 that a text has once it is delivered.
    fn answer_to_come(&mut self, txn: Txn, request: &Message<'_>) -> Option<Vec<u8>> {
        (!self.sip_has_answer(txn, request)).then(|| self.im_answer(request))
    }

    fn unusable_came(&mut self, txn: Txn, request: &Message<'_>, unusable: Unusable) {
        self.counters.sip.im_bodies_unusable += 1;
        let (name, value) = unusable.companion();
        self.im_refuse(txn, request, &Fault::new(415).with(name, value));
    }

    /// RFC 3994.
    fn composing_came(&mut self, giving: &Giving<'_>, request: &Message<'_>) {
        let Some(composing) = typing::read_composing(request.body()) else {
            self.counters.sip.im_bodies_unusable += 1;
            let fault = Fault::bad("Bad isComposing document");
            return self.im_refuse(giving.txn, request, &fault);
        };
        self.im_ok(giving.txn, request);
        let Some(key) = self.chat_of(giving.user.view(), giving.contact.view()) else { return };
        let lasts = Duration::from_secs(composing.refresh.into());
        self.in_chat(key, |it, now, out| it.types(composing.typing, lasts, now, out));
    }

    /// The same once more: it is answered as the first was, or with it.
    pub(super) fn is_repeat(&mut self, place: Place, txn: Txn, request: &Message<'_>) -> bool {
        let Some(answered) = self.remembered(place) else { return false };
        self.counters.sip.im_repeats += 1;
        match answered {
            Answered::Status(200) => self.im_ok(txn, request),
            Answered::Status(status) => self.im_refuse(txn, request, &Fault::new(status)),
            Answered::Soon(number) => {
                let answer = self.answer_to_come(txn, request);
                if let Some(given) = self.sip.im.given.get_mut(&number)
                    && given.waiting.len() < REPEATS
                {
                    given.waiting.push((txn, answer));
                }
            }
        }
        true
    }

    fn remembered(&mut self, place: Place) -> Option<Answered> {
        match place {
            Place::Leg(key, id, which) => self.sip.im.leg(key, id)?.answers.of.get(&which).copied(),
            Place::Page(which) => self.sip.im.answers.of.get(&which).copied(),
        }
    }

    fn remember(&mut self, place: Place, answered: Answered) {
        match place {
            Place::Leg(key, id, which) => {
                if let Some(leg) = self.sip.im.leg(key, id) {
                    leg.answers.set(which, answered);
                }
            }
            Place::Page(which) => self.sip.im.answers.set(which, answered),
        }
    }

    /// An error about something that a partner said: what its sender is answered.
    pub(super) fn error_said(&mut self, carry: &Carry<'_>) {
        let (frame, stanza) = match &carry.text {
            Text::Original { frame, stanza, .. } => (*frame, (*stanza).clone()),
            Text::Written(text) => match reread(text) {
                Some(stanza) => (*text, stanza),
                None => return,
            },
        };
        let Some(id) = stanza.id.map(|it| it.value(frame)) else { return };
        let Some(id) = StanzaId::read(&id) else { return };
        let Some(number) = self.sip.im.ids.get(&id).copied() else { return };
        let error = stanza.child(ChildKind::Error).map(|it| it.octets(frame));
        let mut names = error.into_iter().flat_map(read::children).map(read::name_of);
        let told = names.find_map(|name| {
            StanzaFault::ALL.iter().copied().find(|it| it.name().as_bytes() == name)
        });
        let Some(given) = self.sip.im.given.get_mut(&number) else { return };
        let profile = self.settings.policy.verdict(&given.far).0.profile;
        given.status = Some(match told {
            // Not there, or not for this one: both look the same.
            None | Some(StanzaFault::ServiceUnavailable | StanzaFault::RecipientUnavailable) => 480,
            Some(told) => to_sip(&Told::plain(told), fault::Asked::Message, profile).status,
        });
    }

    /// What became of the message that [`Shard::sip_origin`] numbered.
    pub(in crate::shard::sip) fn session_handled(&mut self, number: u32, outcome: Outcome) {
        let Some(given) = self.sip.im.given.remove(&number) else { return };
        if self.sip.im.ids.get(&given.id) == Some(&number) {
            self.sip.im.ids.remove(&given.id);
        }
        let status = match outcome {
            Outcome::Bounced => given.status.unwrap_or(480),
            Outcome::Dropped => 500,
            _ => 200,
        };
        self.remember(given.place, Answered::Status(status));
        for (txn, answer) in given.waiting {
            let answer = match answer {
                Some(answer) if status == 200 => {
                    self.sip_reply(txn, answer);
                    continue;
                }
                None if status == 200 => {
                    self.sip_ok(txn);
                    continue;
                }
                Some(answer) => answer,
                None => self.sip_trying(txn),
            };
            // It has all of the request's that a refusal has.
            self.with_message(&answer, |shard, answer| {
                shard.im_refuse(txn, &answer, &Fault::new(status));
            });
        }
        if let (200, Place::Leg(key, ..)) = (status, given.place) {
            self.in_chat(key, |it, _, _| it.spoke());
        }
    }
}

/// Repeats of one text that wait for its answer.
const REPEATS: usize = 4;
