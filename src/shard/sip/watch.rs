//! SIP contacts watched by local users: what of it concerns the engine.
//!
//! What a subscription does is `gateway::watch`'s table; here it is found, heard and timed.
//! `watch_run.rs` does what the table says, `watch_tell.rs` is what the user hears, `watch_kept.rs`
//! what outlives the process. One dialog for each pair of user and contact, on the user's home
//! shard, whoever else watches the contact. RFC 6665, 4.1; RFC 8048, 5 and 7.
//!
//! A subscription lives as long as the roster wants it, not as long as a client is there; but who
//! has not been seen for [`WATCH_UNSEEN_MAX`] is refreshed no more (RFC 8048, 8.1).

use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::envelope::Purpose;
use crate::gateway::watch::{self, Input, Level, Reason, State};
use crate::limits::{
    FETCHES_MAX, GRANTED_MIN, STREAM_CLOSE_TIME_MAX, WATCH_AGAIN_AFTER, WATCH_BRIEF_MAX,
    WATCH_STALE_AFTER, WATCH_UNSEEN_MAX,
};
use crate::policy::Profile;
use crate::shard::account::Outcome;
use crate::shard::deliver::Carry;
use crate::shard::sip::watch_tell::Seen;
use crate::shard::sip::watches::{Document, News, Watch};
use crate::shard::sip::{DialogOf, Due, Failure, Heard, Txn, dialog_key};
use crate::shard::{Shard, Timer};
use crate::sip::dialog;
use crate::sip::header::State as Named;
use crate::sip::message::Message;
use crate::sip::{Fault, Method, Name, write};
use crate::stdx::Key;
use crate::time::{Moment, Wall};
use crate::xmpp::fault::StanzaFault;

impl Shard {
    /// A local user subscribes to a SIP contact, probes or leaves him. His record is there.
    pub(super) fn watch_stanza(&mut self, carry: &Carry<'_>) {
        let user = carry.from.without_resource().to_address();
        let contact = carry.to.without_resource().to_address();
        let is_probe = carry.purpose == Purpose::Probe;
        let input = match carry.purpose {
            Purpose::Unsubscribe => Input::Unwanted,
            Purpose::Probe if !self.wants_to_watch(&user, &contact) => Input::Probe,
            _ => Input::Wanted,
        };
        let now = self.now;
        let watches = &mut self.sip.watches;
        let key = match (watches.find(user.bare(), contact.bare()), input) {
            (None, Input::Unwanted) => return self.outcome(carry.origin, Outcome::Delivered),
            (None, Input::Probe) if watches.fetching >= FETCHES_MAX => None,
            (None, _) => watches.enter(&user, &contact, now.wall),
            (found, _) => found,
        };
        let Some(key) = key else {
            self.counters.sip.watches_full += 1;
            return self.bounce(carry, StanzaFault::ResourceConstraint);
        };
        self.outcome(carry.origin, Outcome::Delivered);
        let Some(watch) = self.sip.watches.all.get_mut(key) else { return };
        watch.wanted = now.wall;
        if !is_probe || watch.is_leaving() {
            return self.watch_input(key, input, News::default());
        }
        // What was last seen; and anew, if that was long ago.
        let is_stale = watch.seen.is_none() || now.moment.since(watch.heard) >= WATCH_STALE_AFTER;
        if is_stale && matches!(watch.state, State::Standing(_)) {
            let soon = Duration::from_millis(self.random.number() % SOON_MS);
            watch.due = watch.due.min(now.moment + soon);
            self.watch_arm(key);
        }
        self.watch_answer_probe(key, carry.from);
    }

    /// The roster says that the user sees the contact, or has asked to.
    pub(super) fn wants_to_watch(&self, user: &Address, contact: &Address) -> bool {
        let account = self.home.account(user.bare());
        let state = account.map(|it| it.relation(contact.view()).state);
        state.is_some_and(|it| it.has_to() || it.pending_out())
    }

    /// NOTIFY or BENOTIFY with our tag in To; its dialog may not stand yet.
    pub(super) fn watch_notify(&mut self, txn: Txn, request: &Message<'_>) {
        self.counters.sip.notifies_in += 1;
        match self.notified(request) {
            Ok((key, document)) => {
                self.watch_reply(txn, request, document.as_ref().err());
                // The subscription itself is not to blame for its document.
                self.watch_notified(key, request, document.ok().flatten());
            }
            Err(fault) => {
                self.counters.sip.notifies_refused += 1;
                self.watch_reply(txn, request, Some(&fault));
            }
        }
    }

    /// A BENOTIFY is never answered, not even with an error.
    fn watch_reply(&mut self, txn: Txn, request: &Message<'_>, fault: Option<&Fault>) {
        if request.method() == Method::Benotify {
            return;
        }
        #[cfg(test)]
        if let Some(script) = &mut self.sip.watches.script {
            return script.answers.push(fault.map_or(200, |it| it.status));
        }
        match fault {
            Some(fault) => self.sip_refuse(txn, request, fault),
            None => {
                let mut text = Vec::new();
                write::response(request, 200, "OK", None, &mut text).end();
                self.sip_reply(txn, text);
            }
        }
    }

    /// Whose NOTIFY it is and what its document says, or what is wrong with it.
    fn notified(&mut self, request: &Message<'_>) -> Result<(Key, Document), Fault> {
        let unknown = || Fault::new(481);
        let (call_id, to) = (request.call_id()?, request.to()?);
        let tag = to.tag().and_then(|tag| std::str::from_utf8(tag).ok()).unwrap_or_default();
        let Some(DialogOf::Watch(key)) = self.dialog_of(&dialog_key(call_id, tag)) else {
            return Err(unknown());
        };
        let Some(event) = request.event().filter(|it| it.is("presence")) else {
            return Err(Fault::new(489).with("Allow-Events", "presence"));
        };
        // RFC 6665, 4.1.3: we gave it no id.
        if event.id.is_some() {
            return Err(unknown());
        }
        let own = self.own_name(key);
        let watch = self.sip.watches.all.get_mut(key);
        let Some(dialog) = watch.and_then(|it| it.dialog.as_mut()) else { return Err(unknown()) };
        if dialog.state() != dialog::State::Confirmed && !dialog.learn(request, &own)? {
            return Err(unknown());
        }
        // RFC 3856, 6.9: a second tag is that of another fork.
        dialog.hears(request)?;
        if request.subscription_state().is_none() {
            return Err(Fault::bad("Subscription-State missing"));
        }
        Ok((key, self.watch_document(request)))
    }

    /// A NOTIFY, or the answer that stands for one. `seen`: what its document says.
    fn watch_notified(&mut self, key: Key, message: &Message<'_>, seen: Option<Seen>) {
        let now = self.now.moment;
        let mut news = News { seen, ..News::default() };
        let Some(watch) = self.sip.watches.all.get_mut(key) else { return };
        watch.heard = now;
        let state = message.subscription_state();
        let named = state.map_or(Named::Active, |it| it.state);
        if named == Named::Terminated {
            let reason = Reason::read(state.and_then(|it| it.reason));
            news.retry_after = pause(state.and_then(|it| it.retry_after));
            return self.watch_input(key, Input::Terminated(reason), news);
        }
        watch.stood.get_or_insert(now);
        match watch.state {
            // The 2xx is still to come.
            State::Subscribing => watch.expiry = now + Duration::from_secs(EXPIRES_ABSENT.into()),
            State::Accepted => watch.expiry = watch.granted,
            _ => {}
        }
        // RFC 6665, 4.2.2: it may shorten what was granted.
        let rest = state.and_then(|it| it.expires).filter(|it| *it > 0);
        let end = rest.map(|it| now + Duration::from_secs(it.into()).max(GRANTED_MIN));
        if let Some(end) = end.filter(|it| *it < watch.expiry) {
            watch.expiry = end;
            if watch.due != Moment::NEVER {
                let dice = self.random.number();
                watch.due = watch.due.min(now + watch::refresh_after(end.since(now), dice));
            }
        }
        // RFC 6665, 4.1.3: another name is an extension; the contact has not said no.
        let level = if named == Named::Pending { Level::Pending } else { Level::Active };
        self.watch_input(key, Input::Notified(level), news);
    }

    /// What became of a request of ours.
    pub(super) fn watch_heard(&mut self, ask: Key, heard: Heard<'_>) {
        if matches!(&heard, Heard::Response(answer) if answer.status() < 200) {
            return;
        }
        // The answer to a request that another one took the place of is nobody's.
        let Some(key) = self.sip.watches.asks.remove(ask) else { return };
        let Some(watch) = self.sip.watches.all.get_mut(key).filter(|it| it.ask == Some(ask)) else {
            return;
        };
        watch.ask = None;
        let far = watch.contact.domain().to_owned();
        let in_dialog = matches!(watch.state, State::Refreshing(_) | State::Ending);
        match heard {
            Heard::Response(_) => self.watch_reached(&far, true),
            Heard::Failed(Failure::Unreachable | Failure::Unresolved) => {
                self.watch_reached(&far, false);
            }
            Heard::Failed(_) => {}
        }
        match heard {
            Heard::Response(answer) if answer.status() < 300 => self.watch_accepted(key, &answer),
            Heard::Response(answer) => self.watch_refused(key, &answer, in_dialog),
            Heard::Failed(failure) => {
                let input = match failure {
                    // RFC 6665, 4.1.2.2.
                    Failure::Timeout if in_dialog => Input::Gone,
                    Failure::Timeout | Failure::Denied => Input::Trouble,
                    Failure::Unreachable
                    | Failure::Unresolved
                    | Failure::Overload
                    | Failure::Stopping => Input::Lost,
                };
                self.watch_input(key, input, News::default());
            }
        }
    }

    /// A peer can be reached or can't. One that can again is as good as one whose way is back.
    fn watch_reached(&mut self, far: &str, is_there: bool) {
        let policy = Arc::clone(&self.settings.policy);
        let Some(name) = policy.sip(far).map(|it| it.name(far)) else { return };
        let peer = self.sip.watches.peer(name, self.now.moment);
        if std::mem::replace(&mut peer.is_down, !is_there) && is_there {
            self.watch_peer_back("", name);
        }
    }

    /// 2xx.
    fn watch_accepted(&mut self, key: Key, answer: &Message<'_>) {
        let now = self.now.moment;
        let own = self.own_name(key);
        let Some(watch) = self.sip.watches.all.get_mut(key) else { return };
        let learned = watch.dialog.as_mut().map(|it| it.learn(answer, &own));
        if matches!(learned, Some(Err(_))) {
            // Nothing can be sent to it.
            return self.watch_input(key, Input::Trouble, News::default());
        }
        watch.heard = now;
        let granted = answer.expires().ok().flatten().unwrap_or(EXPIRES_ABSENT).min(EXPIRES_LAST);
        watch.granted = now + Duration::from_secs(granted.into()).max(GRANTED_MIN);
        if matches!(watch.state, State::Refreshing(_)) {
            watch.expiry = watch.granted;
        }
        self.watch_input(key, Input::Accepted, News::default());
        // Microsoft's notifiers put the first NOTIFY into their 200, asked or not.
        let stands_for_notify = answer.header(Name::MsPiggybackCSeq).is_some()
            || (answer.event().is_some() && !answer.body().is_empty());
        if stands_for_notify && self.sip.watches.all.contains(key) {
            let seen = self.watch_document(answer).ok().flatten();
            self.watch_notified(key, answer, seen);
        }
    }

    fn watch_refused(&mut self, key: Key, answer: &Message<'_>, in_dialog: bool) {
        let Some(watch) = self.sip.watches.all.get_mut(key) else { return };
        let status = answer.status();
        let lync = self.settings.policy.verdict(watch.contact.domain()).0.profile == Profile::Lync;
        let mut input = watch::answer(status, in_dialog, lync);
        if input == Input::TooBrief {
            watch.brief += 1;
            match answer.min_expires() {
                Ok(Some(least)) if least <= EXPIRES_LAST && watch.brief <= WATCH_BRIEF_MAX => {
                    watch.expires_min = watch.expires_min.max(least);
                }
                // It says so again and again, or not what it wants.
                _ => input = Input::Unfit,
            }
        }
        let news = News { retry_after: pause(answer.retry_after()), status, ..News::default() };
        self.watch_input(key, input, news);
    }

    /// Something of a subscription is due.
    pub(super) fn watch_due(&mut self, key: Key) {
        let now = self.now.moment;
        let Some(watch) = self.sip.watches.all.get_mut(key) else { return };
        if watch.armed <= now {
            watch.armed = Moment::NEVER;
        }
        if watch.silent <= now {
            watch.silent = Moment::NEVER;
            self.watch_input(key, Input::Silent, News::default());
        }
        let Some(watch) = self.sip.watches.all.get_mut(key) else { return };
        if watch.expiry <= now {
            watch.expiry = Moment::NEVER;
            self.watch_input(key, Input::Expired, News::default());
        }
        let Some(watch) = self.sip.watches.all.get_mut(key) else { return };
        if watch.due <= now {
            watch.due = Moment::NEVER;
            let user = watch.user.clone();
            if watch.is_doubted {
                self.home.forget_doomed(user.bare());
            }
            let work = move |shard: &mut Self| shard.watch_tried(key);
            if !self.with_record(&user, Box::new(work)) {
                self.watch_later(key);
            }
        }
        self.watch_arm(key);
    }

    /// The next SUBSCRIBE, if it is still wanted (RFC 8048, 8.1). The user's record was asked for.
    fn watch_tried(&mut self, key: Key) {
        let Some(watch) = self.sip.watches.all.get_mut(key) else { return };
        let is_doubted = std::mem::take(&mut watch.is_doubted);
        let (user, contact) = (watch.user.clone(), watch.contact.clone());
        let wanted_at = watch.wanted;
        let Some(account) = self.home.account(user.bare()) else {
            // One who was removed is there no more; of others the store can't say now.
            if is_doubted {
                return self.watch_input(key, Input::Unwanted, News::default());
            }
            return self.watch_later(key);
        };
        let last = account.last.as_ref().map_or_else(Wall::default, |it| it.at).max(wanted_at);
        let unseen = Duration::from_micros(self.now.wall.0.saturating_sub(last.0));
        let is_seen = unseen < WATCH_UNSEEN_MAX || !self.home.resources(user.bare()).is_empty();
        let may = self.settings.policy.sip(contact.domain()).is_some();
        let wanted = is_seen && may && self.wants_to_watch(&user, &contact);
        let input = if wanted { Input::Due } else { Input::Unwanted };
        self.watch_input(key, input, News::default());
    }

    fn watch_later(&mut self, key: Key) {
        let at = self.now.moment + WATCH_AGAIN_AFTER;
        if let Some(watch) = self.sip.watches.all.get_mut(key) {
            watch.due = at;
            self.watch_arm(key);
        }
    }

    /// Keeps one token in the wheel for it.
    pub(super) fn watch_arm(&mut self, key: Key) {
        let now = self.now.moment;
        let Some(watch) = self.sip.watches.all.get_mut(key) else { return };
        let mut at = watch.due.min(watch.expiry).min(watch.silent);
        if at <= now {
            // Not again in this turn: time has to move in between.
            at = now + TICK;
        }
        if at < watch.armed {
            watch.armed = at;
            self.timers.set(at, Timer::Sip(Due::Watch(key)));
        }
    }

    /// The way to that peer stands again after it had failed. `near`: empty for all of our domains;
    /// `far`: the SIP domain, or the name that the peer has for several.
    pub(in crate::shard) fn watch_peer_back(&mut self, near: &str, far: &str) {
        let policy = Arc::clone(&self.settings.policy);
        let is_there = |watch: &Watch| {
            let domain = watch.contact.domain();
            (near.is_empty() || watch.user.domain() == near)
                && (domain == far || policy.sip(domain).is_some_and(|it| it.name(domain) == far))
        };
        let all = self.sip.watches.all.iter();
        let keys: Vec<Key> = all.filter(|it| is_there(it.1)).map(|it| it.0).collect();
        for key in keys {
            self.watch_input(key, Input::PeerBack, News::default());
        }
    }

    /// The user's account was removed, or something else of it changed: once his streams are gone,
    /// the store says which.
    pub(in crate::shard) fn watch_doubted(&mut self, user: &Address) {
        let at = self.now.moment + STREAM_CLOSE_TIME_MAX + SECOND;
        let all = self.sip.watches.all.iter();
        let keys: Vec<Key> = all.filter(|it| it.1.user == *user).map(|it| it.0).collect();
        for key in keys {
            if let Some(watch) = self.sip.watches.all.get_mut(key) {
                watch.is_doubted = true;
                watch.due = watch.due.min(at);
            }
            self.watch_arm(key);
        }
    }

    /// The test speaks for the far end from now on.
    #[cfg(test)]
    pub(in crate::shard) fn watch_script(&mut self) -> &mut crate::shard::sip::watches::Script {
        self.sip.watches.script.get_or_insert_default()
    }

    /// Our name in dialogs of this subscription.
    fn own_name(&self, key: Key) -> String {
        let near = self.sip.watches.all.get(key).map_or("", |it| it.user.domain());
        self.settings.domain(near).map_or(near, |it| it.sip_name.as_str()).to_owned()
    }
}

/// What a far end asks us to wait; a day at the most.
fn pause(seconds: Option<u32>) -> Option<Duration> {
    seconds.map(|it| Duration::from_secs(it.min(EXPIRES_LAST).into()))
}

/// An answer without Expires, which it must have (RFC 6665, 4.2.1.1): the package's default.
const EXPIRES_ABSENT: u32 = 3_600;
/// No subscription is asked for that is longer than a day.
const EXPIRES_LAST: u32 = 86_400;
/// A refresh for somebody who has just logged in goes out within this.
const SOON_MS: u64 = 500;
/// Streams take this much longer to be gone than they may.
const SECOND: Duration = Duration::from_secs(1);
/// A deadline that has passed is looked at again after this.
const TICK: Duration = Duration::from_millis(10);
