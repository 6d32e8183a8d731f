//! What partners ask for: a session, and everything in its dialog.
//!
//! An INVITE is looked at in the order of RFC 3261, 8.2: is the contact blocked, does it require what
//! we lack, is it for two, does it offer texts. Group chat and media are refused in a dialog as
//! before one, and the dialog stays (RFC 3261, 14.2).

use crate::address::Address;
use crate::gateway::address::to_uri;
use crate::gateway::fault::ACCEPT_SDP;
use crate::gateway::session::{Input, LegId};
use crate::gateway::typing::{KEYBOARD_SECONDS, KEYBOARD_TYPE, read_keyboard};
use crate::home::dialogs::DialogChange;
use crate::shard::Shard;
use crate::shard::sip::session::given::Answers;
use crate::shard::sip::session::{Leg, Offered};
use crate::shard::sip::user::ALLOW;
use crate::shard::sip::{DialogOf, Txn, dialog_key};
use crate::sip::dialog::Dialog;
use crate::sip::fault::Fault;
use crate::sip::header::MediaType;
use crate::sip::message::Message;
use crate::sip::method::Method;
use crate::sip::name::Name;
use crate::sip::sdp::{self, Body, Offer};
use crate::sip::write;
use crate::stdx::Key;
use std::time::Duration;

impl Shard {
    /// A partner wants a session.
    pub(in crate::shard::sip) fn session_invite(
        &mut self,
        txn: Txn,
        user: &Address,
        contact: &Address,
        request: &Message<'_>,
    ) {
        let made = self.may_talk(user, contact, request).and_then(|()| {
            let offer = self.offer_of(user.domain(), request)?;
            let tag = self.sip_token();
            let dialog = Dialog::uas(request, &tag, self.sip_name(user.domain()))?;
            Ok((offer, dialog, request.cseq()?.0))
        });
        let (offer, dialog, invite) = match made {
            Ok(made) => made,
            Err(fault) => return self.im_refuse(txn, request, &fault),
        };
        self.counters.sip.im_invites_in += 1;
        let mut invited = None;
        let key = self.chat_of(user.view(), contact.view());
        if let Some(key) = key {
            self.in_chat(key, |it, now, out| invited = it.invited(now, out));
        }
        let (Some(key), Some(id)) = (key, invited) else {
            self.counters.sip.im_full += 1;
            // Of this pair alone, so no Retry-After and no 503.
            return self.im_refuse(txn, request, &Fault::new(480));
        };
        let answer = self.answer_to(request, &dialog, user, contact, &offer, true);
        let leg = Leg {
            id,
            invite,
            key: dialog_key(dialog.call_id(), dialog.local_tag()),
            thread: dialog.call_id().to_owned(),
            dialog,
            ask: None,
            offered: Some(Offered { txn, frame: request.frame().to_vec(), answer }),
            answers: Answers::of_dialog(),
            kept: None,
        };
        let row_key = leg.key.clone();
        if let Some(chat) = self.sip.im.chats.get_mut(key) {
            chat.legs.push(leg);
        }
        if !self.dialog_enter(row_key, DialogOf::Session(key)) {
            return self.chat_input(key, id, Input::NotKept);
        }
        self.sip.im.offers.insert((txn.shard.0, txn.key), (key, id));
        let Some(row) = self.leg_row(key, id) else { return };
        let after = move |shard: &mut Self, done: Result<(), _>| {
            shard.sip.im.offers.remove(&(txn.shard.0, txn.key));
            let input = if done.is_ok() { Input::Kept } else { Input::NotKept };
            shard.chat_input(key, id, input);
        };
        self.keep(DialogChange::Put(row), Box::new(after));
    }

    /// The INVITE of that transaction was cancelled and has had its 487.
    pub(in crate::shard::sip) fn session_cancelled(&mut self, txn: Txn) {
        if let Some((key, id)) = self.sip.im.offers.remove(&(txn.shard.0, txn.key)) {
            self.chat_input(key, id, Input::Withdrawn);
        }
    }

    /// Anything in a session's dialog, an ACK included.
    pub(in crate::shard::sip) fn session_request(
        &mut self,
        key: Key,
        txn: Txn,
        request: &Message<'_>,
    ) {
        let Some(id) = self.leg_of(key, request) else {
            self.counters.sip.dialog_unknown += 1;
            if request.method().is_answered() {
                self.sip_refuse(txn, request, &Fault::new(481));
            }
            return;
        };
        match request.method() {
            Method::Ack => return self.acknowledged_by(key, id, request),
            // A repeat comes late, and is answered as before.
            Method::Message => return self.text_came(key, id, txn, request),
            _ => {}
        }
        if let Err(fault) = self.leg_hears(key, id, request) {
            return self.im_refuse(txn, request, &fault);
        }
        match request.method() {
            Method::Bye => {
                self.im_ok(txn, request);
                self.chat_input(key, id, Input::Bye);
            }
            Method::Info => self.info_came(key, id, txn, request),
            Method::Invite => self.invited_again(key, id, txn, request),
            Method::Options => self.sip_options(txn, request),
            // RFC 6665, 4.5.2: such as `conference`, which a group would need.
            Method::Subscribe => {
                let fault = Fault::new(489).with("Allow-Events", "presence");
                self.im_refuse(txn, request, &fault);
            }
            Method::Notify => self.im_refuse(txn, request, &Fault::new(481)),
            Method::Benotify => {}
            _ => self.im_refuse(txn, request, &Fault::new(405).with("Allow", ALLOW)),
        }
    }

    /// The dialog of our tag in this request.
    fn leg_of(&self, key: Key, request: &Message<'_>) -> Option<LegId> {
        let (call_id, to) = (request.call_id().ok()?, request.to().ok()?);
        let tag = std::str::from_utf8(to.tag()?).ok()?;
        let legs = &self.sip.im.chats.get(key)?.legs;
        let is_it = |it: &&Leg| it.dialog.call_id() == call_id && it.dialog.local_tag() == tag;
        legs.iter().find(is_it).map(|it| it.id)
    }

    /// Whether a request is in its turn; its Contact is where we send from now on.
    pub(super) fn leg_hears(
        &mut self,
        key: Key,
        id: LegId,
        request: &Message<'_>,
    ) -> Result<(), Fault> {
        let Some(leg) = self.sip.im.leg(key, id) else { return Err(Fault::new(481)) };
        let target = (request.method() != Method::Message).then(|| leg.dialog.target().to_vec());
        leg.dialog.hears(request)?;
        // RFC 3261, 12.2: a MESSAGE leaves it as it is.
        let changed = leg.kept.is_some() && target.is_some_and(|it| leg.dialog.target() != it);
        self.keep_leg(key, id, changed);
        Ok(())
    }

    fn acknowledged_by(&mut self, key: Key, id: LegId, request: &Message<'_>) {
        let number = request.cseq().map(|it| it.0);
        let Some(leg) = self.sip.im.leg(key, id) else { return };
        // That of a re-INVITE says nothing new.
        if number == Ok(leg.invite) && leg.dialog.hears(request).is_ok() {
            self.chat_input(key, id, Input::Acked);
        }
    }

    fn info_came(&mut self, key: Key, id: LegId, txn: Txn, request: &Message<'_>) {
        let mut live = false;
        self.in_chat(key, |it, now, out| live = it.hears(id, now, out));
        if !live {
            return self.im_refuse(txn, request, &Fault::new(481));
        }
        // Conversation data and the like: XML that we have no use for is no error.
        let known = request.content_type().is_none_or(|it| is_xml(&it));
        if !known && !request.body().is_empty() {
            self.counters.sip.im_bodies_unusable += 1;
            let fault = Fault::new(415).with("Accept", KEYBOARD_TYPE);
            return self.im_refuse(txn, request, &fault);
        }
        self.im_ok(txn, request);
        if let Some(typing) = read_keyboard(request.body()) {
            let lasts = Duration::from_secs(KEYBOARD_SECONDS);
            self.in_chat(key, |it, now, out| it.types(typing, lasts, now, out));
        }
    }

    /// RFC 3261, 14.2: what it would change can't be changed; what it leaves as it is, is answered.
    fn invited_again(&mut self, key: Key, id: LegId, txn: Txn, request: &Message<'_>) {
        let mut live = false;
        self.in_chat(key, |it, now, out| live = it.hears(id, now, out));
        let Some((user, contact)) =
            self.sip.im.chats.get(key).map(|it| (it.user.clone(), it.contact.clone()))
        else {
            return;
        };
        if !live {
            return self.im_refuse(txn, request, &Fault::new(481));
        }
        let offer = self.requires(request).and_then(|()| self.offer_of(user.domain(), request));
        let offer = match offer {
            Ok(offer) => offer,
            Err(fault) => return self.im_refuse(txn, request, &fault),
        };
        let Some(dialog) = self.sip.im.leg(key, id).map(|it| it.dialog.clone()) else { return };
        let text = self.answer_to(request, &dialog, &user, &contact, &offer, false);
        self.sip_reply(txn, text);
    }

    /// Whether this contact may say anything to the user, in a session or without.
    pub(super) fn may_talk(
        &mut self,
        user: &Address,
        contact: &Address,
        request: &Message<'_>,
    ) -> Result<(), Fault> {
        let account = self.home.account(user.bare());
        if account.is_some_and(|it| it.privacy.is_blocked(contact.view())) {
            self.counters.sip.im_blocked += 1;
            // As for one who is away and keeps nothing (XEP-0191, 3.3).
            return Err(Fault::new(480));
        }
        self.requires(request)
    }

    /// RFC 3261, 8.2.2.3: we know no extension by its tag.
    fn requires(&mut self, request: &Message<'_>) -> Result<(), Fault> {
        let tags: Vec<_> = request.list(Name::Require).map(String::from_utf8_lossy).collect();
        if tags.is_empty() {
            return Ok(());
        }
        if tags.iter().any(|it| it.eq_ignore_ascii_case("com.microsoft.rtc-multiparty")) {
            self.counters.sip.im_groups_refused += 1;
        }
        Err(Fault::new(420).with("Unsupported", tags.join(", ")))
    }

    /// The offer of texts between two in an INVITE.
    fn offer_of(&mut self, near: &str, request: &Message<'_>) -> Result<Offer, Fault> {
        let name = self.sip_name(near);
        let group =
            Fault::new(488).with("Warning", format!("399 {name} \"Group chat is not supported\""));
        let media =
            Fault::new(488).with("Warning", format!("304 {name} \"Media type not available\""));
        let counters = &mut self.counters.sip;
        if is_group(request) {
            counters.im_groups_refused += 1;
            return Err(group);
        }
        if request.header(Name::ContentEncoding).is_some_and(|it| it != b"identity") {
            counters.im_bodies_unusable += 1;
            return Err(Fault::new(415).with("Accept-Encoding", "identity"));
        }
        let mut accepted = request.list(Name::Accept).peekable();
        let takes_sdp =
            |it: &[u8]| MediaType::parse(it).is_some_and(|it| it.accepts("application", "sdp"));
        if accepted.peek().is_some() && !accepted.any(takes_sdp) {
            counters.im_media_refused += 1;
            return Err(Fault::new(406).with("Accept", ACCEPT_SDP));
        }
        match sdp::read_body(request) {
            Body::Texts(offer) => Ok(offer),
            Body::Media => {
                counters.im_media_refused += 1;
                Err(media)
            }
            Body::Group => {
                counters.im_groups_refused += 1;
                Err(group)
            }
            Body::Unknown => {
                counters.im_bodies_unusable += 1;
                Err(Fault::new(415).with("Accept", sdp::ACCEPT))
            }
            Body::Malformed => {
                counters.im_sdp_malformed += 1;
                Err(Fault::bad("Bad session description"))
            }
        }
    }

    /// Our 200 to an INVITE.
    fn answer_to(
        &self,
        request: &Message<'_>,
        dialog: &Dialog,
        user: &Address,
        contact: &Address,
        offer: &Offer,
        is_first: bool,
    ) -> Vec<u8> {
        let (near, far) = (user.domain(), contact.domain());
        let name = self.sip_name(near);
        let body = offer.answer(name, &to_uri(user.view()), self.sip_types(far));
        let mut text = Vec::new();
        let mut writer = write::response(request, 200, "OK", Some(dialog.local_tag()), &mut text);
        if is_first {
            // RFC 3261, 12.1.1: all of theirs, and ours above, since we are next.
            writer = writer
                .header("Record-Route", self.own_route(near, far).as_bytes())
                .each("Record-Route", request.headers(Name::RecordRoute));
        }
        writer
            .header("Contact", format!("<{}>", self.own_contact(near, far)).as_bytes())
            .header("Allow", ALLOW.as_bytes())
            .body("application/sdp", &body);
        text
    }

    pub(super) fn im_ok(&mut self, txn: Txn, request: &Message<'_>) {
        let text = self.im_answer(request);
        self.sip_reply(txn, text);
    }

    /// The 200 to a request.
    pub(super) fn im_answer(&mut self, request: &Message<'_>) -> Vec<u8> {
        let mut text = Vec::with_capacity(512);
        let tagged = request.to().is_ok_and(|it| it.tag().is_some());
        let tag = (!tagged).then(|| self.sip_token());
        write::response(request, 200, "OK", tag.as_deref(), &mut text).end();
        text
    }

    pub(super) fn im_refuse(&mut self, txn: Txn, request: &Message<'_>, fault: &Fault) {
        self.counters.sip.im_refused += 1;
        self.sip_refuse(txn, request, fault);
    }
}

/// More than two, or on the way to it: what Microsoft's clients write when they invite to a group.
fn is_group(request: &Message<'_>) -> bool {
    let triggered =
        request.headers(Name::TriggeredInvite).any(|it| it.eq_ignore_ascii_case(b"TRUE"));
    triggered || request.list(Name::EndPoints).count() > 2
}

fn is_xml(type_: &MediaType<'_>) -> bool {
    let subtype = type_.subtype.to_ascii_lowercase();
    type_.type_.eq_ignore_ascii_case(b"application")
        && (subtype.windows(3).any(|it| it == b"xml") || subtype == b"x-ms-mim")
}
