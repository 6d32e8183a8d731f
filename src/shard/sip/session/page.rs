//! Messages outside of any dialog (RFC 3428, RFC 7572).
//!
//! One is out to a contact at a time, so that they arrive in order and a contact is not flooded
//! (RFC 3428, 8). One of more than 1,300 octets is refused, never split. The thread is the Call-ID,
//! both ways. Typing is heard and **not** sent.

use std::hash::Hasher;

use xxhash_rust::xxh3::Xxh3;

use crate::address::Address;
use crate::gateway::address::{to_address, to_uri};
use crate::gateway::message::{PAGE_OCTETS_MAX, call_id};
use crate::gateway::session::Why;
use crate::limits::{IM_ANSWER_TIME_MAX, IM_TEXTS_WAITING_MAX};
use crate::shard::Shard;
use crate::shard::deliver::Carry;
use crate::shard::sip::session::Asked;
use crate::shard::sip::session::given::{Giving, Place};
use crate::shard::sip::session::said::Read;
use crate::shard::sip::{Asker, Class, Outgoing, Txn};
use crate::sip::message::Message;
use crate::sip::write;
use crate::stdx::{Bounded, Key};
use crate::time::Moment;
use crate::xmpp::fault::StanzaFault;

/// What goes to a contact without a session.
#[derive(Debug)]
pub(super) struct Pages {
    /// The one that is out.
    out: Option<u32>,
    waiting: Bounded<Page>,
}

#[derive(Debug)]
struct Page {
    number: u32,
    deadline: Moment,
    text: Vec<u8>,
}

impl Default for Pages {
    fn default() -> Self {
        Self { out: None, waiting: Bounded::new(IM_TEXTS_WAITING_MAX) }
    }
}

impl Pages {
    pub(super) fn is_empty(&self) -> bool {
        self.out.is_none() && self.waiting.is_empty()
    }
}

/// Room for the Via that the transport puts in.
const VIA_OCTETS: usize = 128;

impl Shard {
    /// A message of a local user, on its own.
    pub(super) fn page_said(&mut self, carry: &Carry<'_>, read: Read) {
        let token = self.sip_token();
        let call = read.thread.as_deref().and_then(call_id).unwrap_or(&token).to_owned();
        let tag = self.sip_token();
        self.sip.im.cseq = self.sip.im.cseq % (1 << 30) + 1;
        let to = to_uri(carry.to.without_resource());
        let mut text = Vec::new();
        let mut writer = write::request("MESSAGE", to_uri(carry.to).as_bytes(), &mut text)
            .header("Max-Forwards", b"70")
            .header("From", format!("<{}>;tag={tag}", to_uri(carry.from)).as_bytes())
            .header("To", format!("<{to}>").as_bytes())
            .header("Call-ID", call.as_bytes())
            .header("CSeq", format!("{} MESSAGE", self.sip.im.cseq).as_bytes());
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
        let deadline = carry.since + IM_ANSWER_TIME_MAX;
        let Some(number) = self.take_text(carry, read) else { return };
        let key = self.chat_of(carry.from, carry.to);
        let page = Page { number, deadline, text };
        let queued = key.and_then(|key| {
            let chat = self.sip.im.chats.get_mut(key)?;
            chat.pages.waiting.push(page).is_ok().then_some(key)
        });
        match queued {
            Some(key) => self.page_next(key),
            None => {
                self.counters.sip.im_full += 1;
                self.text_bounced(number, Why::Full);
            }
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
        let giving = Giving { txn, place, user, contact, thread: call, chat: false };
        self.give(giving, request);
    }
}
