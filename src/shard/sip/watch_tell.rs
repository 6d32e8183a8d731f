//! What a local user hears of a SIP contact that he watches.
//!
//! A document becomes presence from the contact's bare address to the user's, delivered as if a
//! peer's server had sent it, so that blocking and the roster have their say. RFC 8048, 5.2 and 6;
//! a document is read by `gateway::pidf`.

use crate::address::AddressRef;
use crate::envelope::{Kind, Purpose};
use crate::gateway::watch::Tell;
use crate::gateway::{fault, pidf};
use crate::presence::availability::Show;
use crate::shard::Shard;
use crate::shard::deliver::{Carry, Text};
use crate::shard::sip::watches::{Document, News};
use crate::sip::message::Message;
use crate::sip::{Fault, Name};
use crate::stdx::Key;
use crate::xmpp::write;

/// What is shown of a contact.
pub(super) use crate::gateway::pidf::Shown as Seen;

/// The forms of presence documents that are read, asked for or not.
const DOCUMENTS: [(&str, &str); 5] = [
    ("application", "pidf+xml"),
    ("application", "cpim-pidf+xml"),
    ("application", "xpidf+xml"),
    ("text", "xml+msrtc.pidf"),
    ("application", "msrtc-event-categories+xml"),
];

impl Shard {
    /// What the document of a NOTIFY, or of the answer that stands for one, says.
    pub(super) fn watch_document(&mut self, message: &Message<'_>) -> Document {
        if message.body().is_empty() {
            return Ok(None);
        }
        let refused = |shard: &mut Self, fault: Fault| {
            shard.counters.sip.documents_refused += 1;
            Err(fault)
        };
        let coding = message.header(Name::ContentEncoding);
        if coding.is_some_and(|it| !it.eq_ignore_ascii_case(b"identity")) {
            return refused(self, Fault::new(415).with("Accept-Encoding", "identity"));
        }
        let media = message.content_type();
        let is_known =
            media.is_none_or(|it| DOCUMENTS.iter().any(|(type_, subtype)| it.is(type_, subtype)));
        if !is_known {
            return refused(self, Fault::new(415).with("Accept", pidf::MEDIA_TYPE));
        }
        let lang = message.header(Name::ContentLanguage);
        let lang = lang.and_then(|it| std::str::from_utf8(it).ok());
        match pidf::read(message.body(), lang) {
            Ok(document) => {
                self.counters.sip.activities_unknown += u64::from(document.unknown);
                Ok(Some(document.shown))
            }
            Err(pidf::Malformed) => refused(self, Fault::bad("Malformed presence document")),
        }
    }

    /// The table says so.
    pub(super) fn watch_tell(&mut self, key: Key, tell: Tell, news: News) {
        match tell {
            Tell::Seen => self.watch_seen(key, news.seen),
            Tell::Fetched => {
                self.watch_learned(key, news.seen);
                self.watch_show(key);
            }
            // Who asked is told where he asked.
            Tell::Last => {}
            Tell::Offline => self.watch_offline(key),
            Tell::Refused => {
                self.watch_offline(key);
                self.watch_say(key, "unsubscribed");
            }
            Tell::NoUser => {
                self.watch_offline(key);
                self.watch_error(key, news.status);
                self.watch_say(key, "unsubscribed");
            }
            Tell::Left => {
                // He may have asked again, or only been away for too long.
                let watch = self.sip.watches.all.get(key);
                let pair = watch.map(|it| (it.user.clone(), it.contact.clone()));
                if pair.is_some_and(|(user, contact)| !self.wants_to_watch(&user, &contact)) {
                    self.watch_say(key, "unsubscribed");
                }
            }
        }
    }

    /// RFC 8048, 5.2.1: the authorisation once, then the state if it is known.
    fn watch_seen(&mut self, key: Key, seen: Option<Seen>) {
        let Some(watch) = self.sip.watches.all.get(key) else { return };
        let account = self.home.account(watch.user.bare());
        let state = account.map(|it| it.relation(watch.contact.view()).state);
        // Of a user whose record is not at hand it is said; his roster will know.
        let asks = state.map_or(!watch.is_granted, |it| it.pending_out());
        let is_new = seen.is_some() || !watch.is_granted || asks;
        if asks {
            self.watch_say(key, "subscribed");
        }
        if let Some(watch) = self.sip.watches.all.get_mut(key) {
            watch.is_granted = true;
        }
        self.watch_learned(key, seen);
        if is_new {
            self.watch_show(key);
        }
    }

    fn watch_learned(&mut self, key: Key, seen: Option<Seen>) {
        if let (Some(watch), Some(seen)) = (self.sip.watches.all.get_mut(key), seen) {
            watch.seen = Some(Box::new(seen));
        }
    }

    /// To all of the user's available resources, if there are any.
    fn watch_show(&mut self, key: Key) {
        let Some(watch) = self.sip.watches.all.get(key) else { return };
        let resources = self.home.resources(watch.user.bare());
        if resources.iter().all(|it| it.available.is_none()) {
            // A login will ask.
            return;
        }
        let user = watch.user.clone();
        self.watch_show_to(key, user.view());
    }

    /// A probe: one resource is told what was last seen. What is not known is not told.
    pub(super) fn watch_answer_probe(&mut self, key: Key, asker: AddressRef<'_>) {
        self.watch_show_to(key, asker);
    }

    fn watch_show_to(&mut self, key: Key, to: AddressRef<'_>) {
        let Some(watch) = self.sip.watches.all.get(key) else { return };
        let Some(seen) = &watch.seen else { return };
        let contact = watch.contact.clone();
        let is_offline = seen.show == Show::Offline;
        let purpose = if is_offline { Purpose::Unavailable } else { Purpose::Available };
        let mut text = Vec::new();
        seen.write_stanza(contact.view(), to, &mut text);
        self.watch_deliver(contact.view(), to, purpose, &text);
    }

    /// The contact's state is not known any more, or shown no longer.
    fn watch_offline(&mut self, key: Key) {
        let Some(watch) = self.sip.watches.all.get_mut(key) else { return };
        let Some(seen) = watch.seen.take() else { return };
        if seen.show != Show::Offline {
            watch.seen = Some(Box::default());
            self.watch_show(key);
        }
        if let Some(watch) = self.sip.watches.all.get_mut(key) {
            // A login meanwhile hears nothing: a client takes him to be offline.
            watch.seen = None;
        }
    }

    fn watch_say(&mut self, key: Key, type_: &str) {
        let Some(watch) = self.sip.watches.all.get(key) else { return };
        let (user, contact) = (watch.user.clone(), watch.contact.clone());
        self.say(type_, contact.view(), user.view());
    }

    /// There is no such contact: what the subscription comes to.
    fn watch_error(&mut self, key: Key, status: u16) {
        let Some(watch) = self.sip.watches.all.get(key) else { return };
        let (user, contact) = (watch.user.clone(), watch.contact.clone());
        let profile = self.profile_of(contact.domain());
        let verdict = fault::to_xmpp(status, None, false, profile);
        let mut text = b"<presence type='error'".to_vec();
        write::attr("from", contact.full(), &mut text);
        write::attr("to", user.full(), &mut text);
        text.push(b'>');
        write::stanza_error(verdict.fault, None, &mut text);
        text.extend_from_slice(b"</presence>");
        self.counters.stanza_faults[verdict.fault.index()] += 1;
        self.watch_deliver(contact.view(), user.view(), Purpose::Error, &text);
    }

    fn watch_deliver(
        &mut self,
        from: AddressRef<'_>,
        to: AddressRef<'_>,
        purpose: Purpose,
        text: &[u8],
    ) {
        let (since, kind) = (self.now.moment, Kind::Presence);
        let text = Text::Written(text);
        self.deliver(&Carry { origin: None, since, kind, purpose, from, to, text });
    }
}
