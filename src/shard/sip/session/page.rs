//! Messages outside of any dialog (RFC 3428, RFC 7572).
//!
//! One is out to a contact at a time, so that they arrive in order and a contact is not flooded
//! (RFC 3428, 8). One of more than 1,300 octets is refused, never split. The thread is the Call-ID,
//! both ways. Typing goes as isComposing (RFC 3994), between messages only, and not to who refuses it;
//! `active` is **not** repeated, since a client that types on for two minutes is rare.

use std::hash::Hasher;

use xxhash_rust::xxh3::Xxh3;

use crate::address::Address;
use crate::gateway::address::{to_address, to_uri};
use crate::gateway::message::{PAGE_OCTETS_MAX, call_id};
use crate::gateway::session::Why;
use crate::gateway::typing::{COMPOSING_TYPE, ChatState, Toward, Typing, write_composing};
use crate::limits::{IM_IDLE_TIME_MAX, IM_TEXTS_WAITING_MAX, PAGE_ANSWER_TIME_MAX};
use crate::shard::Shard;
use crate::shard::deliver::Carry;
use crate::shard::sip::session::given::{Giving, Place};
use crate::shard::sip::session::said::Read;
use crate::shard::sip::session::{Asked, REQUEST_TIME};
use crate::shard::sip::{Asker, Class, Outgoing, Txn};
use crate::sip::message::Message;
use crate::sip::write::{self, Writer};
use crate::stdx::{Bounded, Key};
use crate::time::Moment;
use crate::xmpp::fault::StanzaFault;

/// What goes to a contact without a session.
#[derive(Debug)]
pub(super) struct Pages {
    /// The one that is out.
    out: Option<u32>,
    waiting: Bounded<Page>,
    /// So long is this a conversation, in which typing is told.
    pub(super) until: Moment,
    /// We said that the user types.
    typed: bool,
    /// They know nothing of isComposing.
    deaf: bool,
}

#[derive(Debug)]
struct Page {
    number: u32,
    deadline: Moment,
    text: Vec<u8>,
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            out: None,
            waiting: Bounded::new(IM_TEXTS_WAITING_MAX),
            until: Moment::default(),
            typed: false,
            deaf: false,
        }
    }
}

impl Pages {
    pub(super) fn is_over(&self, now: Moment) -> bool {
        self.out.is_none() && self.waiting.is_empty() && self.until <= now
    }

    /// When it is no conversation any more.
    pub(super) fn due(&self) -> Moment {
        if self.until == Moment::default() { Moment::NEVER } else { self.until }
    }
}

/// Room for the Via that the transport puts in.
const VIA_OCTETS: usize = 128;

impl Shard {
    /// A message of a local user, on its own.
    pub(super) fn page_said(&mut self, carry: &Carry<'_>, read: Read) {
        let mut text = Vec::new();
        let mut writer = self.page(carry, read.thread.as_deref(), &mut text);
        if let Some(subject) = &read.subject {
            writer = writer.header("Subject", subject.as_bytes());
        }
        if let Some(lang) = &read.lang {
            writer = writer.header("Content-Language", lang.as_bytes());
        }
        writer.body(super::TEXT, read.body.as_bytes());
        if text.len() + VIA_OCTETS > PAGE_OCTETS_MAX {
            return self.bounce(carry, StanzaFault::PolicyViolation);
        }
        let deadline = carry.since + PAGE_ANSWER_TIME_MAX;
        let Some(number) = self.take_text(carry, read) else { return };
        let key = self.chat_of(carry.from, carry.to);
        let page = Page { number, deadline, text };
        let queued = key.and_then(|key| {
            let chat = self.sip.im.chats.get_mut(key)?;
            chat.pages.waiting.push(page).is_ok().then_some(key)
        });
        match queued {
            Some(key) => {
                self.page_talked(key);
                self.page_next(key);
            }
            None => {
                self.counters.sip.im_full += 1;
                self.text_bounced(number, Why::Full);
            }
        }
    }

    /// The head of a message of its own.
    fn page<'o>(
        &mut self,
        carry: &Carry<'_>,
        thread: Option<&str>,
        text: &'o mut Vec<u8>,
    ) -> Writer<'o> {
        let (token, tag) = (self.sip_token(), self.sip_token());
        let call = thread.and_then(call_id).unwrap_or(&token);
        // RFC 3261, 8.1.1.5: below 2^31.
        self.sip.im.cseq = self.sip.im.cseq % (1 << 30) + 1;
        write::request("MESSAGE", to_uri(carry.to).as_bytes(), text)
            .header("Max-Forwards", b"70")
            .header("From", format!("<{}>;tag={tag}", to_uri(carry.from)).as_bytes())
            .header("To", format!("<{}>", to_uri(carry.to.without_resource())).as_bytes())
            .header("Call-ID", call.as_bytes())
            .header("CSeq", format!("{} MESSAGE", self.sip.im.cseq).as_bytes())
    }

    /// A chat state alone, where no session is (RFC 3994): `gone` has no word there.
    pub(super) fn page_state(&mut self, key: Key, carry: &Carry<'_>, state: ChatState) {
        let (Toward::Typing(typing), Some(chat)) =
            (state.toward_sip(), self.sip.im.chats.get_mut(key))
        else {
            return;
        };
        let (pages, types) = (&mut chat.pages, typing == Typing::Active);
        let waits = pages.out.is_some() || !pages.waiting.is_empty();
        if pages.deaf || waits || pages.typed == types || pages.until <= self.now.moment {
            return;
        }
        pages.typed = types;
        let mut body = Vec::new();
        write_composing(typing, &mut body);
        let mut text = Vec::new();
        self.page(carry, None, &mut text).body(COMPOSING_TYPE, &body);
        // Lost with the bound: it is only typing.
        let Ok(asked) = self.sip.im.asks.insert(Asked::PageTyping(key)) else { return };
        let (near, far) = (carry.from.domain().into(), carry.to.domain().into());
        let (class, deadline) = (Class::New, self.now.moment + REQUEST_TIME);
        self.sip_send(Asker::Page(asked), Outgoing { near, far, class, deadline, text });
    }

    /// Somebody who does not want to know of typing hears no more of it.
    pub(super) fn page_typing_answered(&mut self, key: Key, outcome: Result<(), Why>) {
        if let (Err(Why::Status(_)), Some(chat)) = (outcome, self.sip.im.chats.get_mut(key)) {
            chat.pages.deaf = true;
        }
    }

    /// Somebody said something: it is a conversation for a while.
    fn page_talked(&mut self, key: Key) {
        let until = self.now.moment + IM_IDLE_TIME_MAX;
        if let Some(chat) = self.sip.im.chats.get_mut(key) {
            chat.pages.until = until;
            chat.pages.typed = false;
        }
    }

    fn page_next(&mut self, key: Key) {
        loop {
            let Some(chat) = self.sip.im.chats.get_mut(key) else { return };
            if chat.pages.out.is_some() {
                return;
            }
            let (near, far) = (chat.user.domain().into(), chat.contact.domain().into());
            let Some(page) = chat.pages.waiting.take() else { return self.chat_rests(key) };
            let asked = match self.sip.im.asks.insert(Asked::Page(key, page.number)) {
                _ if page.deadline <= self.now.moment => Err(Why::Timeout),
                Ok(asked) => Ok(asked),
                Err(_) => Err(Why::Full),
            };
            match asked {
                Err(why) => self.text_bounced(page.number, why),
                Ok(asked) => {
                    self.counters.sip.im_texts_out += 1;
                    if let Some(chat) = self.sip.im.chats.get_mut(key) {
                        chat.pages.out = Some(page.number);
                    }
                    let (class, deadline, text) = (Class::New, page.deadline, page.text);
                    let out = Outgoing { near, far, class, deadline, text };
                    self.sip_send(Asker::Page(asked), out);
                    return;
                }
            }
        }
    }

    pub(super) fn page_answered(&mut self, key: Key, number: u32, outcome: Result<(), Why>) {
        match outcome {
            Ok(()) => self.text_delivered(number),
            Err(why) => self.text_bounced(number, why),
        }
        if let Some(chat) = self.sip.im.chats.get_mut(key) {
            chat.pages.out = None;
        }
        self.page_next(key);
    }

    /// A message of a partner's, outside of any dialog.
    pub(in crate::shard::sip) fn session_message(
        &mut self,
        txn: Txn,
        user: &Address,
        contact: &Address,
        request: &Message<'_>,
    ) {
        let (Ok(call), Ok((number, _)), Ok(from)) =
            (request.call_id(), request.cseq(), request.from())
        else {
            return;
        };
        let mut hash = Xxh3::new();
        for part in [call.as_bytes(), from.tag().unwrap_or_default(), contact.bare().as_bytes()] {
            hash.write_usize(part.len());
            hash.write(part);
        }
        hash.write_u32(number);
        let place = Place::Page(hash.finish());
        if self.is_repeat(place, txn, request) {
            return;
        }
        if let Err(fault) = self.may_talk(user, contact, request) {
            return self.im_refuse(txn, request, &fault);
        }
        // RFC 7572, 5: a known GRUU makes it a full address.
        let full = to_address(from.uri).ok().filter(|it| it.bare() == contact.bare());
        let contact = full.as_ref().unwrap_or(contact);
        if let Some(key) = self.sip.im.find(user.view(), contact.view()) {
            self.page_talked(key);
        }
        let giving = Giving { txn, place, user, contact, thread: call, chat: false };
        self.give(giving, request);
    }
}
