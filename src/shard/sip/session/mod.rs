//! Instant messages of this shard's users with SIP contacts.
//!
//! `gateway::session` decides; here its dialogs are written and read, its texts go back to whom they
//! belong, and what partners say becomes a stanza. In reading order: `said` is what local users say,
//! `called` what partners ask for, `given` the texts of partners until the home has them, `page` the
//! messages outside of any dialog, `kept` what outlives the process. RFC 7572, 7573; XEP-0085.
//!
//! **Not** here: MSRP, group chat, files, IMDN; a 2xx of a re-INVITE is
//! not repeated.

mod called;
mod given;
mod kept;
mod page;
mod said;

use crate::address::{Address, AddressRef};
use crate::envelope::{Kind, Purpose};
use crate::gateway::address::to_uri;
use crate::gateway::message::{Said, StanzaId};
use crate::gateway::session::{Effect, Input, LegId, Session, Why};
use crate::gateway::typing::{ChatState, KEYBOARD_TYPE, Typing, write_keyboard};
use crate::home::dialogs::{DialogChange, DialogKey};
use crate::limits::{IM_ANSWER_TIME_MAX, IM_ASKS_MAX, IM_SESSIONS_MAX};
use crate::policy::Profile;
use crate::shard::deliver::{Carry, Text};
use crate::shard::sip::session::given::{Answers, Given};
use crate::shard::sip::session::page::Pages;
use crate::shard::sip::session::said::Held;
use crate::shard::sip::user::ALLOW;
use crate::shard::sip::{Ask, Asker, Class, DialogOf, Due, Failure, Outgoing, Txn, dialog_key};
use crate::shard::{Shard, Timer};
use crate::sip::dialog::Dialog;
use crate::sip::fault::Fault;
use crate::sip::sdp;
use crate::sip::write::Writer;
use crate::stdx::{Key, Map, Slab};
use crate::time::{Moment, Wall};
use std::time::Duration;

/// All sessions of a shard.
#[derive(Debug)]
pub(in crate::shard) struct Im {
    chats: Slab<Chat>,
    /// By user and contact, bare.
    pairs: Map<Box<str>, Key>,
    asks: Slab<Asked>,
    /// What local users said and has no outcome yet.
    texts: Map<u32, Held>,
    /// The last number of those.
    number: u32,
    /// What partners said and has no outcome yet, by the number of its origin.
    given: Map<u32, Given>,
    /// The same by the id of the stanza.
    ids: Map<StanzaId, u32>,
    /// INVITEs that may still be taken back.
    offers: Map<(u16, u64), (Key, LegId)>,
    /// Answers to messages outside of any dialog.
    answers: Answers,
    /// CSeq of our messages outside of any dialog.
    cseq: u32,
}

/// A local user and a contact.
#[derive(Debug)]
struct Chat {
    /// Bare, as the contact.
    user: Address,
    contact: Address,
    session: Session,
    legs: Vec<Leg>,
    pages: Pages,
    /// When its timer is set for.
    armed: Moment,
}

/// A dialog of theirs.
#[derive(Debug)]
struct Leg {
    id: LegId,
    dialog: Dialog,
    key: DialogKey,
    /// The CSeq of the INVITE that made it, ours or theirs.
    invite: u32,
    /// Ours, and where its answers are heard.
    ask: Option<(Ask, Key)>,
    /// Theirs.
    offered: Option<Offered>,
    /// Of the conversation (RFC 7573, 4.1).
    thread: String,
    answers: Answers,
    /// When it was stored last.
    kept: Option<Wall>,
}

#[derive(Debug)]
struct Offered {
    txn: Txn,
    /// Their INVITE.
    frame: Vec<u8>,
    /// Our 200.
    answer: Vec<u8>,
}

/// A request of ours whose answer is not known yet.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Invite(Key, LegId),
    Text(Key, LegId, u32),
    Typing(Key, LegId),
    Bye(Key, LegId),
    Page(Key, u32),
    PageTyping(Key),
}

/// A request that nobody waits for much: as long as a transaction lasts (RFC 3261, 17.1.2.2).
const REQUEST_TIME: Duration = Duration::from_secs(32);

impl Im {
    pub(in crate::shard::sip) fn new(seed: u64) -> Self {
        Self {
            chats: Slab::new(IM_SESSIONS_MAX),
            pairs: Map::seeded(seed),
            asks: Slab::new(IM_ASKS_MAX),
            texts: Map::seeded(seed),
            number: 0,
            given: Map::seeded(seed),
            ids: Map::seeded(seed),
            offers: Map::seeded(seed),
            answers: Answers::of_shard(seed),
            cseq: 0,
        }
    }

    /// Whom that session is with.
    pub(in crate::shard::sip) fn contact(&self, key: Key) -> Option<&Address> {
        self.chats.get(key).map(|it| &it.contact)
    }

    fn find(&self, user: AddressRef<'_>, contact: AddressRef<'_>) -> Option<Key> {
        self.pairs.get(pair(user, contact).as_str()).copied()
    }

    fn leg(&mut self, key: Key, id: LegId) -> Option<&mut Leg> {
        self.chats.get_mut(key)?.legs.iter_mut().find(|it| it.id == id)
    }
}

fn pair(user: AddressRef<'_>, contact: AddressRef<'_>) -> String {
    [user.bare(), " ", contact.bare()].concat()
}

impl From<Failure> for Why {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Timeout => Self::Timeout,
            Failure::Unreachable => Self::Unreachable,
            Failure::Unresolved => Self::Unresolved,
            Failure::Denied => Self::Denied,
            Failure::Overload => Self::Full,
            Failure::Stopping => Self::Stopping,
        }
    }
}

impl Shard {
    /// A session's timer.
    pub(super) fn session_due(&mut self, key: Key) {
        let now = self.now.moment;
        let Some(chat) = self.sip.im.chats.get_mut(key) else { return };
        // One that was set before an earlier one.
        if now < chat.armed {
            return;
        }
        chat.armed = Moment::NEVER;
        self.in_chat(key, Session::fire);
    }

    /// The account is gone or has another password: its sessions end.
    pub(in crate::shard) fn session_kicked(&mut self, user: &Address) {
        let of_user = |it: &(Key, &Chat)| it.1.user.bare() == user.bare();
        let keys: Vec<Key> = self.sip.im.chats.iter().filter(of_user).map(|it| it.0).collect();
        for key in keys {
            self.in_chat(key, |it, now, out| it.close(Why::Stopping, now, out));
        }
    }

    /// The session of these two; `None`: there are too many.
    fn chat_of(&mut self, user: AddressRef<'_>, contact: AddressRef<'_>) -> Option<Key> {
        if let Some(key) = self.sip.im.find(user, contact) {
            return Some(key);
        }
        let chat = Chat {
            user: user.without_resource().to_address(),
            contact: contact.without_resource().to_address(),
            session: Session::default(),
            legs: Vec::new(),
            pages: Pages::default(),
            armed: Moment::NEVER,
        };
        let Ok(key) = self.sip.im.chats.insert(chat) else {
            self.counters.sip.im_full += 1;
            return None;
        };
        self.sip.im.pairs.insert(pair(user, contact).into(), key);
        Some(key)
    }

    /// Something happens to a session: what it wants is done.
    fn in_chat(&mut self, key: Key, work: impl FnOnce(&mut Session, Moment, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        let Some(chat) = self.sip.im.chats.get_mut(key) else { return };
        work(&mut chat.session, self.now.moment, &mut effects);
        for effect in effects {
            self.im_effect(key, effect);
        }
        self.chat_rests(key);
    }

    fn chat_input(&mut self, key: Key, id: LegId, input: Input) {
        self.in_chat(key, |session, now, out| session.input(id, input, now, out));
    }

    /// Its timer is set, or it is over.
    fn chat_rests(&mut self, key: Key) {
        let Some(chat) = self.sip.im.chats.get_mut(key) else { return };
        let now = self.now.moment;
        if chat.pages.until <= now {
            chat.pages.until = Moment::default();
        }
        if chat.session.is_over() && chat.legs.is_empty() && chat.pages.is_over(now) {
            let pair = pair(chat.user.view(), chat.contact.view());
            self.sip.im.pairs.remove(pair.as_str());
            self.sip.im.chats.remove(key);
            return;
        }
        let due = chat.session.due().min(chat.pages.due());
        if due < chat.armed {
            chat.armed = due;
            self.timers.set(due, Timer::Sip(Due::Session(key)));
        }
    }

    fn im_effect(&mut self, key: Key, effect: Effect) {
        match effect {
            Effect::Invite(id) => self.leg_invites(key, id),
            Effect::Cancel(id) => {
                if let Some((ask, _)) = self.sip.im.leg(key, id).and_then(|it| it.ask) {
                    self.sip_cancel(ask);
                }
            }
            Effect::Ack(id) => self.leg_acknowledges(key, id),
            Effect::Answer(id) => {
                let offered = self.sip.im.leg(key, id).and_then(|it| it.offered.as_ref());
                if let Some((txn, answer)) = offered.map(|it| (it.txn, it.answer.clone())) {
                    self.sip_reply(txn, answer);
                }
            }
            Effect::Refuse(id) => {
                let offered = self.sip.im.leg(key, id).and_then(|it| it.offered.take());
                if let Some(Offered { txn, frame, .. }) = offered {
                    self.with_message(&frame, |shard, request| {
                        shard.sip_refuse(txn, &request, &Fault::new(500));
                    });
                }
            }
            Effect::Bye(id) => {
                let deadline = self.now.moment + REQUEST_TIME;
                let asked = Asked::Bye(key, id);
                if !self.leg_asks(key, id, "BYE", asked, deadline, |it| it.end()) {
                    self.chat_input(key, id, Input::Ended);
                }
            }
            Effect::Send(id, number, deadline) => self.leg_says(key, id, number, deadline),
            Effect::Type(id, typing) => self.leg_types(key, id, typing),
            Effect::Delivered(number) => self.text_delivered(number),
            Effect::Bounced(number, why) => self.text_bounced(number, why),
            Effect::Tell(state) => self.tell_state(key, state),
            Effect::Over(id) => self.leg_over(key, id),
        }
    }

    /// Our INVITE, which makes the dialog.
    fn leg_invites(&mut self, key: Key, id: LegId) {
        self.counters.sip.im_invites_out += 1;
        let (call_id, tag) = (self.sip_token(), self.sip_token());
        let Some(chat) = self.sip.im.chats.get(key) else { return };
        let (user, contact) = (chat.user.clone(), chat.contact.clone());
        let thread = chat.session.next_text().and_then(|number| self.sip.im.texts.get(&number));
        let thread = thread.and_then(|it| it.thread.clone()).unwrap_or_else(|| call_id.clone());
        let (near, far) = (user.domain(), contact.domain());
        let mut dialog = Dialog::uac(&call_id, &tag, &to_uri(user.view()), &to_uri(contact.view()));
        let offer = sdp::offer(self.sip_name(near), self.sip_types(far));
        let mut text = Vec::new();
        dialog
            .request("INVITE", &mut text)
            .header("Record-Route", self.own_route(near, far).as_bytes())
            .header("Contact", format!("<{}>", self.own_contact(near, far)).as_bytes())
            .header("Allow", ALLOW.as_bytes())
            .body("application/sdp", &offer);
        let row = dialog_key(&call_id, &tag);
        let asked = self.sip.im.asks.insert(Asked::Invite(key, id));
        let (Ok(asked), true) = (asked, self.dialog_enter(row.clone(), DialogOf::Session(key)))
        else {
            if let Ok(asked) = asked {
                self.sip.im.asks.remove(asked);
            }
            self.counters.sip.im_full += 1;
            return self.in_chat(key, |it, now, out| it.refused(id, Why::Full, now, out));
        };
        // Its end is the session's to say; what is left is for the CANCEL.
        let deadline = self.now.moment + IM_ANSWER_TIME_MAX + REQUEST_TIME;
        let out =
            Outgoing { near: near.into(), far: far.into(), class: Class::New, deadline, text };
        let ask = self.sip_send(Asker::Session(asked), out);
        let leg = Leg {
            id,
            invite: dialog.cseq(),
            dialog,
            key: row,
            ask: Some((ask, asked)),
            offered: None,
            thread,
            answers: Answers::of_dialog(),
            kept: None,
        };
        if let Some(chat) = self.sip.im.chats.get_mut(key) {
            chat.legs.push(leg);
        }
    }

    /// RFC 3261, 13.2.2.4: end to end, and nobody answers it.
    fn leg_acknowledges(&mut self, key: Key, id: LegId) {
        let Some(leg) = self.sip.im.leg(key, id) else { return };
        let mut text = Vec::new();
        leg.dialog.again("ACK", leg.invite, &mut text).end();
        self.leg_sends(key, Asker::Nobody, self.now.moment + REQUEST_TIME, text);
    }

    /// What a local user said. No dialog is used that may end before the text is sent.
    fn leg_says(&mut self, key: Key, id: LegId, number: u32, deadline: Moment) {
        self.counters.sip.im_texts_out += 1;
        let Some(held) = self.sip.im.texts.get(&number) else { return };
        let (body, subject, lang) = (held.body.clone(), held.subject.clone(), held.lang.clone());
        let finish = |mut writer: Writer<'_>| {
            if let Some(subject) = subject {
                writer = writer.header("Subject", subject.as_bytes());
            }
            if let Some(lang) = lang {
                writer = writer.header("Content-Language", lang.as_bytes());
            }
            writer.body(TEXT, body.as_bytes());
        };
        let asked = Asked::Text(key, id, number);
        if !self.leg_asks(key, id, "MESSAGE", asked, deadline, finish) {
            let full = Err((Why::Full, None));
            self.in_chat(key, |it, now, out| it.answered(id, number, full, now, out));
        }
    }

    fn leg_types(&mut self, key: Key, id: LegId, typing: Typing) {
        let deadline = self.now.moment + REQUEST_TIME;
        let mut body = Vec::new();
        write_keyboard(typing, &mut body);
        let finish = |writer: Writer<'_>| writer.body(KEYBOARD_TYPE, &body);
        // Lost with the bound: it is only typing.
        self.leg_asks(key, id, "INFO", Asked::Typing(key, id), deadline, finish);
    }

    /// A request in a dialog; false: there is no room for its answer, or no dialog.
    fn leg_asks(
        &mut self,
        key: Key,
        id: LegId,
        method: &str,
        asked: Asked,
        deadline: Moment,
        finish: impl FnOnce(Writer<'_>),
    ) -> bool {
        let im = &mut self.sip.im;
        let Some(leg) =
            im.chats.get_mut(key).and_then(|it| it.legs.iter_mut().find(|it| it.id == id))
        else {
            return false;
        };
        let Ok(ask) = im.asks.insert(asked) else {
            self.counters.sip.im_full += 1;
            return false;
        };
        let mut text = Vec::new();
        finish(leg.dialog.request_of_many(method, &mut text));
        self.keep_leg(key, id, false);
        self.leg_sends(key, Asker::Session(ask), deadline, text);
        true
    }

    fn leg_sends(&mut self, key: Key, asker: Asker, deadline: Moment, text: Vec<u8>) {
        let Some(chat) = self.sip.im.chats.get(key) else { return };
        let (near, far) = (chat.user.domain().into(), chat.contact.domain().into());
        self.sip_send(asker, Outgoing { near, far, class: Class::InDialog, deadline, text });
    }

    fn leg_over(&mut self, key: Key, id: LegId) {
        let Some(chat) = self.sip.im.chats.get_mut(key) else { return };
        let Some(at) = chat.legs.iter().position(|it| it.id == id) else { return };
        let leg = chat.legs.swap_remove(at);
        if let Some((_, asked)) = leg.ask {
            self.sip.im.asks.remove(asked);
        }
        if let Some(offered) = &leg.offered {
            self.sip.im.offers.remove(&(offered.txn.shard.0, offered.txn.key));
        }
        self.dialog_forget(&leg.key);
        if leg.kept.is_some() {
            self.keep_later(DialogChange::Remove(leg.key));
        }
    }

    /// Typing of the contact's, or that he left (XEP-0085).
    fn tell_state(&mut self, key: Key, state: ChatState) {
        let Some(chat) = self.sip.im.chats.get(key) else { return };
        let (user, contact) = (chat.user.clone(), chat.contact.clone());
        let thread = chat.legs.last().map(|it| it.thread.clone());
        let said = Said {
            from: contact.view(),
            to: user.view(),
            id: None,
            chat: true,
            lang: None,
            subject: None,
            thread: thread.as_deref(),
            body: None,
            state: Some(state),
        };
        let mut text = Vec::new();
        said.write(&mut text);
        self.deliver(&Carry {
            origin: None,
            since: self.now.moment,
            kind: Kind::Message,
            purpose: Purpose::Chat,
            from: contact.view(),
            to: user.view(),
            text: Text::Written(&text),
        });
    }

    /// The FQDN under which that domain of ours is reached.
    fn sip_name<'a>(&'a self, near: &'a str) -> &'a str {
        self.settings.domain(near).map_or(near, |it| it.sip_name.as_str())
    }

    /// What we take in a MESSAGE, as `accept-types` says it.
    fn sip_types(&self, far: &str) -> &'static str {
        match self.profile_of(far) {
            Profile::Lync => "text/plain",
            _ => "text/plain text/html application/im-iscomposing+xml",
        }
    }
}

/// The content type of what we say.
const TEXT: &str = "text/plain; charset=UTF-8";
