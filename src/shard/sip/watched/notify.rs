//! NOTIFYs to SIP watchers: when they go, what stands in them, and what their answers mean.
//!
//! A document is made when it goes, from what is true then: the user's resources, his rules and the
//! subscription decide anew each time, so nothing can be said that was forbidden meanwhile (RFC
//! 8048, 8.2).

use std::hash::{DefaultHasher, Hasher};

use crate::gateway::pidf::{self, Resource, Shown};
use crate::gateway::watched::{Answer, Body, Input, Last, Standing, State, Tell};
use crate::home::dialogs::DialogChange;
use crate::limits::{WATCHED_NOTIFY_TIME_MAX, WATCHED_PENDING_TIME_MAX, WATCHED_STORE_AGAIN_AFTER};
use crate::policy::Pidf;
use crate::shard::deliver::reread;
use crate::shard::sip::watched::table::Watching;
use crate::shard::sip::{Asker, Class, Due, Failure, Heard, Outgoing};
use crate::shard::{Shard, Timer};
use crate::stdx::Key;

/// A document, and the language of what is written in it.
struct Document {
    octets: Vec<u8>,
    lang: Option<String>,
}

impl Shard {
    /// Sees to it that what is to be told is told: now, or when its time has come.
    pub(super) fn watched_go(&mut self, key: Key) {
        let now = self.now.moment;
        let Some(it) = self.sip.watched.get(key) else { return };
        if it.state == State::Init {
            return;
        }
        if it.pace.due().is_some_and(|at| at <= now) {
            let far: Box<str> = it.watcher.domain().into();
            self.sip.watched.queue(key);
            self.watched_pump(&far);
        }
        self.watched_arm(key);
    }

    /// It is to be told something.
    pub(in crate::shard::sip) fn watched_tell(&mut self, key: Key, tell: Tell) {
        if let Some(it) = self.sip.watched.get_mut(key) {
            it.pace.want(tell);
        }
        self.watched_go(key);
    }

    /// Its timer, for whatever comes first.
    pub(super) fn watched_arm(&mut self, key: Key) {
        let now = self.now;
        let Some(it) = self.sip.watched.get_mut(key) else { return };
        let due = it.pace.due().filter(|due| *due > now.moment);
        // What is over waits for its peer, or for its pause.
        let mut at = match due {
            Some(due) if it.state.is_terminated() => due,
            None if it.state.is_terminated() => return,
            _ => it.expires,
        };
        if it.state == State::Pending {
            let waited = now.wall.0.saturating_sub(it.pending.0);
            let waited = std::time::Duration::from_micros(waited);
            at = at.min(now.moment + WATCHED_PENDING_TIME_MAX.saturating_sub(waited));
        }
        if let Some(due) = due {
            at = at.min(due);
        }
        if at < it.armed {
            it.armed = at;
            self.timers.set(at, Timer::Sip(Due::Watched(key)));
        }
    }

    pub(in crate::shard::sip) fn watched_due(&mut self, key: Key) {
        let now = self.now;
        let Some(it) = self.sip.watched.get_mut(key) else { return };
        if it.armed > now.moment {
            return;
        }
        it.armed = crate::time::Moment::NEVER;
        let waited = now.wall.0.saturating_sub(it.pending.0);
        let pending_max = u64::try_from(WATCHED_PENDING_TIME_MAX.as_micros()).unwrap_or(u64::MAX);
        if std::mem::replace(&mut it.doubted, false) {
            self.watched_look(key);
        } else if it.state.is_terminated() {
            self.watched_go(key);
        } else if it.expires <= now.moment {
            self.counters.sip.watched_expired += 1;
            self.watched_feed(key, Input::Expired);
        } else if it.state == State::Pending && waited >= pending_max {
            self.counters.sip.watched_given_up += 1;
            self.watched_feed(key, Input::GaveUp);
        } else {
            self.watched_go(key);
        }
    }

    /// As many as the peer has places for.
    pub(super) fn watched_pump(&mut self, far: &str) {
        while let Some(key) = self.sip.watched.next(far) {
            self.watched_write(key);
        }
    }

    /// It has a place: its NOTIFY goes out, or the place is given back.
    fn watched_write(&mut self, key: Key) {
        let Some(it) = self.sip.watched.get(key) else { return };
        let needs_record = !matches!(it.state, State::Terminated(Last { body: Body::Empty, .. }));
        let user = it.user.clone();
        if needs_record && self.home.account(user.bare()).is_none() {
            let work = move |shard: &mut Self| {
                let it = shard.sip.watched.get(key);
                let far: Box<str> = it.map_or("", |it| it.watcher.domain()).into();
                if shard.home.account(user.bare()).is_some() {
                    shard.watched_write(key);
                } else if shard.gates.has_no_account() {
                    shard.watched_give_back(key);
                    shard.watched_feed(key, Input::Removed);
                } else {
                    shard.watched_wait(key);
                }
                shard.watched_pump(&far);
            };
            let user = it.user.clone();
            if !self.with_record(&user, Box::new(work)) {
                self.watched_wait(key);
            }
            return;
        }
        if it.dialog.cseq() >= it.usable {
            self.watched_give_back(key);
            return self.watched_reserve(key);
        }
        let low = it.dialog.is_low();
        self.watched_say(key);
        if low {
            self.watched_reserve(key);
        }
    }

    /// Not now: the store can't be asked, or too much waits for the user.
    fn watched_wait(&mut self, key: Key) {
        let again = self.now.moment + WATCHED_STORE_AGAIN_AFTER;
        if let Some(it) = self.sip.watched.get_mut(key) {
            it.pace.hold(again);
        }
        self.watched_give_back(key);
        self.watched_arm(key);
    }

    fn watched_give_back(&mut self, key: Key) {
        self.sip.watched.free(key);
    }

    /// Writes it and hands it over.
    fn watched_say(&mut self, key: Key) {
        let now = self.now.moment;
        let Some(it) = self.sip.watched.get(key) else { return };
        let standing =
            self.standing_of(&it.user, &it.watcher, it.state).unwrap_or(Standing::Unknown);
        let state = if it.state.is_terminated() {
            it.state
        } else {
            // What was decided since it was to be told.
            it.state.handle(Input::Decided(standing)).next
        };
        let document = self.document(it, state.body(), standing);
        let state_text = state.written(seconds_to(it.expires.since(now)));
        let mut hasher = DefaultHasher::new();
        hasher.write(state.written(0).as_bytes());
        hasher.write(document.as_ref().map_or(&[][..], |it| &it.octets));
        let hash = hasher.finish().max(1);
        let contact = format!("<{}>", self.own_contact(it.user.domain(), it.watcher.domain()));
        let is_over = state.is_terminated();
        let Some(it) = self.sip.watched.get_mut(key) else { return };
        let was_over = std::mem::replace(&mut it.state, state).is_terminated();
        if !it.pace.is_urgent() && it.told == hash && !is_over {
            it.pace.skipped();
            self.counters.sip.watched_same += 1;
            return self.watched_give_back(key);
        }
        let mut text = Vec::with_capacity(1_536);
        let mut writer = it
            .dialog
            .request("NOTIFY", &mut text)
            .header("Contact", contact.as_bytes())
            .header("Event", &it.event)
            .header("Subscription-State", state_text.as_bytes());
        match &document {
            None => writer.end(),
            Some(document) => {
                if let Some(lang) = &document.lang {
                    writer = writer.header("Content-Language", lang.as_bytes());
                }
                writer.body(pidf::MEDIA_TYPE, &document.octets);
            }
        }
        it.pace.sent(now, document.is_some());
        it.told = hash;
        it.asked = now;
        it.last = is_over;
        let deadline = now + WATCHED_NOTIFY_TIME_MAX;
        let (near, far) = (it.user.domain().into(), it.watcher.domain().into());
        let out = Outgoing { near, far, class: Class::InDialog, deadline, text };
        self.counters.sip.watched_notifies += 1;
        if is_over && !was_over {
            self.watched_over(key);
        }
        self.sip_send(Asker::Watched(key), out);
    }

    /// The document that this watcher may see, if any.
    fn document(&self, it: &Watching, body: Body, standing: Standing) -> Option<Document> {
        let shown = match (body, standing) {
            (Body::Empty, _) => return None,
            (Body::Current, Standing::Allowed | Standing::Approved) => self.shown_to(it),
            (Body::Current, Standing::Unknown | Standing::Undecided | Standing::Crowded) => {
                return None;
            }
            (Body::Current | Body::Closed, _) => Vec::new(),
        };
        let resources: Vec<_> =
            shown.iter().map(|(name, shown)| Resource { name, shown }).collect();
        let sip = self.settings.policy.verdict(it.watcher.domain()).0.protocol.sip();
        let dialect = sip.map_or(Pidf::Standard, |it| it.pidf);
        let mut octets = Vec::with_capacity(512);
        let lang = pidf::write(dialect, it.user.view(), None, &resources, &mut octets);
        Some(Document { octets, lang })
    }

    /// What the user's resources show to one who may see them, the oldest first; what one said to
    /// this watcher alone counts before what it said to all.
    fn shown_to(&self, it: &Watching) -> Vec<(Box<str>, Shown)> {
        let mut shown = Vec::new();
        for resource in self.home.resources(it.user.bare()) {
            let directed = it.directed.iter().find(|(name, _)| *name == resource.name);
            let said = match directed {
                Some((_, said)) => said.clone(),
                None => resource.available.as_ref().and_then(|it| shown_in(&it.stanza)),
            };
            shown.extend(said.map(|it| (resource.name.clone(), it)));
        }
        shown
    }

    /// What came of a NOTIFY.
    pub(in crate::shard::sip) fn watched_heard(&mut self, key: Key, heard: Heard<'_>) {
        let now = self.now.moment;
        let Some(it) = self.sip.watched.get_mut(key) else { return };
        let answer = match heard {
            Heard::Response(response) if response.status() < 200 => return,
            Heard::Response(response) => Answer::of(response.status(), response.retry_after()),
            // Before its deadline it was sent and has no answer; else it never went.
            Heard::Failed(Failure::Timeout) if now < it.asked + WATCHED_NOTIFY_TIME_MAX => {
                Answer::Over
            }
            Heard::Failed(_) => Answer::Other,
        };
        let far: Box<str> = it.watcher.domain().into();
        it.pace.answered(now, answer);
        let is_done = it.last || (it.state.is_terminated() && answer == Answer::Over);
        if answer != Answer::Accepted {
            it.told = 0;
        }
        self.sip.watched.free(key);
        match answer {
            Answer::Accepted => self.counters.sip.watched_told += 1,
            Answer::Over => self.counters.sip.watched_lost += 1,
            Answer::Later(_) | Answer::Other => self.counters.sip.watched_failed += 1,
        }
        if is_done {
            self.sip.watched.remove(key);
        } else {
            self.watched_feed(key, Input::Answered(answer));
        }
        self.watched_pump(&far);
    }

    /// Nothing of it is kept or found any more.
    pub(super) fn watched_over(&mut self, key: Key) {
        let Some(it) = self.sip.watched.get(key) else { return };
        let row = it.row.clone();
        if row.is_empty() {
            // It was but a look.
            return;
        }
        self.dialog_forget(&row);
        self.keep_later(DialogChange::Remove(row));
    }
}

/// What a presence stanza shows.
pub(super) fn shown_in(stanza: &[u8]) -> Option<Shown> {
    Some(Shown::of_stanza(stanza, &reread(stanza)?))
}

fn seconds_to(rest: std::time::Duration) -> u32 {
    u32::try_from(rest.as_secs()).unwrap_or(u32::MAX)
}
