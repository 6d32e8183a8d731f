//! A subscription put to work: one input, and what the table says to it.

use std::sync::Arc;
use std::time::Duration;

use crate::gateway::address;
use crate::gateway::watch::{self, Input, Send, State, Wait};
use crate::home::dialogs::DialogChange;
use crate::limits::{IN_FLIGHT_TIME_MAX, WATCH_FLAP, WATCH_GRACE, WATCH_YOUNG};
use crate::policy::Profile;
use crate::shard::Shard;
use crate::shard::sip::watches::News;
use crate::shard::sip::{Asker, Class, DialogOf, Outgoing, dialog_key};
use crate::sip::dialog::Dialog;
use crate::stdx::Key;
use crate::time::Moment;

impl Shard {
    /// Something happens to a subscription.
    pub(super) fn watch_input(&mut self, key: Key, input: Input, news: News) {
        let now = self.now.moment;
        let Some(watch) = self.sip.watches.all.get_mut(key) else { return };
        let before = watch.state;
        let level = watch.level();
        let step = before.handle(input);
        watch.state = step.next;
        if watch.stood.is_some_and(|it| now.since(it) >= WATCH_YOUNG)
            && (step.drop || (input == Input::Accepted && matches!(before, State::Refreshing(_))))
        {
            watch.failures = 0;
        }
        if input == Input::Accepted {
            watch.brief = 0;
        }
        self.sip.watches.moved(before, step.next);
        self.watch_wait(key, step.wait, news.retry_after);
        if step.drop {
            self.watch_drop(key);
        }
        if step.alarm {
            self.watch_alarm(key, news.status);
        }
        if let Some(tell) = step.tell {
            self.watch_tell(key, tell, news);
        }
        if let Some(send) = step.send {
            self.watch_send(key, send);
        }
        let Some(watch) = self.sip.watches.all.get(key) else { return };
        if watch.state == State::Ended {
            self.watch_drop(key);
            self.sip.watches.remove(key);
            return;
        }
        let is_new = watch.level().is_some() && (level != watch.level() || !watch.is_kept);
        if is_new || (input == Input::Accepted && watch.level().is_some()) {
            self.watch_keep(key);
        }
        self.watch_arm(key);
    }

    /// When the next thing is due.
    fn watch_wait(&mut self, key: Key, wait: Wait, retry_after: Option<Duration>) {
        let now = self.now.moment;
        let dice = self.random.number();
        let slot = (wait == Wait::Paced).then(|| self.watch_forward(key)).flatten();
        let Some(watch) = self.sip.watches.all.get_mut(key) else { return };
        if !matches!(wait, Wait::Unchanged | Wait::Paced) {
            watch.silent = Moment::NEVER;
            watch.due = Moment::NEVER;
        }
        match wait {
            Wait::Unchanged | Wait::Nothing => {}
            Wait::Notify => watch.silent = now + watch::TIMER_N,
            Wait::Refresh => {
                watch.due = now + watch::refresh_after(watch.expiry.since(now), dice);
            }
            Wait::Paced => watch.due = watch.due.min(slot.unwrap_or(Moment::NEVER)),
            Wait::Soon => {
                let young = watch.stood.is_none_or(|it| now.since(it) < WATCH_YOUNG);
                watch.failures += u32::from(young);
                let pause =
                    if young { watch::backoff(watch.failures, dice) } else { watch::soon(dice) };
                watch.due = now + pause;
                // What was seen is shown until the new dialog should have said something.
                watch.expiry = watch.expiry.min(now + WATCH_GRACE);
            }
            Wait::Backoff | Wait::RetryAfter => {
                watch.failures = watch.failures.saturating_add(1);
                let pause = watch::backoff(watch.failures, dice);
                watch.due = now + retry_after.unwrap_or_default().max(pause);
            }
            Wait::Hold => {
                watch.failures = watch.failures.saturating_add(1);
                let pause = watch::hold(watch.failures, dice);
                watch.due = now + retry_after.unwrap_or_default().max(pause);
            }
        }
    }

    /// When one that is brought forward has its turn; `None`: it has it already.
    fn watch_forward(&mut self, key: Key) -> Option<Moment> {
        let now = self.now.moment;
        let watch = self.sip.watches.all.get(key)?;
        let domain = watch.contact.domain().to_owned();
        let policy = Arc::clone(&self.settings.policy);
        let name = policy.sip(&domain)?.name(&domain);
        let (due, level, heard) = (watch.due, watch.level(), watch.heard);
        if due <= self.sip.watches.peer(name, now).free.max(now) {
            return None;
        }
        // A connection that comes and goes is no reason to ask all the time.
        let least = level.map_or(now, |_| heard + WATCH_FLAP);
        Some(self.watch_slot(key)?.max(least))
    }

    /// When this one's turn is among many that go to the same peer at once: three quarters of the
    /// peer's rate are for them.
    pub(super) fn watch_slot(&mut self, key: Key) -> Option<Moment> {
        let now = self.now.moment;
        let domain = self.sip.watches.all.get(key)?.contact.domain().to_owned();
        let domain = domain.as_str();
        let policy = Arc::clone(&self.settings.policy);
        let peer = policy.sip(domain)?;
        let between = match peer.rule.rate {
            0 => UNPACED,
            rate => Duration::from_secs(u64::from(self.settings.shards)) * 4 / (rate * 3),
        };
        let dice = self.random.number();
        let spread = u64::try_from(between.as_nanos()).unwrap_or(u64::MAX).max(1);
        let peer = self.sip.watches.peer(peer.name(domain), now);
        let free = peer.free.max(now);
        peer.free = free + between;
        Some(free + Duration::from_nanos(dice % spread))
    }

    /// The dialog is over, and whatever of ours is out in it is nobody's any more.
    pub(super) fn watch_drop(&mut self, key: Key) {
        let Some(watch) = self.sip.watches.all.get_mut(key) else { return };
        watch.stood = None;
        let ask = watch.ask.take();
        let kept = std::mem::take(&mut watch.is_kept);
        let dialog = watch.dialog.take();
        if let Some(ask) = ask {
            self.sip.watches.asks.remove(ask);
        }
        if let Some(dialog) = dialog {
            let name = dialog_key(dialog.call_id(), dialog.local_tag());
            self.dialog_forget(&name);
            if kept {
                self.keep_later(DialogChange::Remove(name));
            }
        }
    }

    /// Writes a SUBSCRIBE and sends it.
    fn watch_send(&mut self, key: Key, send: Send) {
        let Some(text) = self.watch_request(key, send) else {
            // No room for a dialog of ours.
            return self.watch_input(key, Input::Lost, News::default());
        };
        let Ok(ask) = self.sip.watches.asks.insert(key) else {
            return self.watch_input(key, Input::Lost, News::default());
        };
        let Some(watch) = self.sip.watches.all.get_mut(key) else { return };
        if let Some(former) = watch.ask.replace(ask) {
            self.sip.watches.asks.remove(former);
        }
        let out = Outgoing {
            near: watch.user.domain().into(),
            far: watch.contact.domain().into(),
            class: match send {
                Send::Subscribe | Send::Fetch => Class::New,
                Send::Refresh | Send::End => Class::InDialog,
            },
            deadline: self.now.moment + IN_FLIGHT_TIME_MAX,
            text,
        };
        self.counters.sip.subscribes_out += 1;
        #[cfg(test)]
        if let Some(script) = &mut self.sip.watches.script {
            return script.requests.push((ask, out));
        }
        self.sip_send(Asker::Watch(ask), out);
    }

    fn watch_request(&mut self, key: Key, send: Send) -> Option<Vec<u8>> {
        let dice = self.random.number();
        let watch = self.sip.watches.all.get(key)?;
        let (near, far) = (watch.user.domain(), watch.contact.domain());
        let contact = format!("<{}>", self.own_contact(near, far));
        let lync = self.profile_of(far) == Profile::Lync;
        let expires = watch::expires(lync, dice).max(watch.expires_min);
        let is_new = matches!(send, Send::Subscribe | Send::Fetch);
        let route = is_new.then(|| self.own_route(near, far));
        if is_new {
            self.watch_new_dialog(key)?;
        }
        let watch = self.sip.watches.all.get_mut(key)?;
        let dialog = watch.dialog.as_mut()?;
        let must_keep = !is_new && dialog.is_low();
        let mut text = Vec::new();
        let mut writer = dialog.request("SUBSCRIBE", &mut text);
        if let Some(route) = route {
            writer = writer.header("Record-Route", route.as_bytes());
        }
        let asked = matches!(send, Send::Subscribe | Send::Refresh);
        writer
            .header("Contact", contact.as_bytes())
            .header("Event", b"presence")
            // A Microsoft notifier takes the first form that it finds here and knows.
            .header("Accept", b"application/pidf+xml")
            .uint("Expires", if asked { expires.into() } else { 0 })
            .header("Allow-Events", b"presence")
            .end();
        if must_keep {
            self.watch_keep(key);
        }
        Some(text)
    }

    /// The beginning of a dialog. `None`: there are too many.
    fn watch_new_dialog(&mut self, key: Key) -> Option<()> {
        self.watch_drop(key);
        let (call_id, tag) = (self.random.id(), self.sip_token());
        if !self.dialog_enter(dialog_key(&call_id, &tag), DialogOf::Watch(key)) {
            return None;
        }
        let watch = self.sip.watches.all.get_mut(key)?;
        let (from, to) =
            (address::to_uri(watch.user.view()), address::to_uri(watch.contact.view()));
        watch.dialog = Some(Dialog::uac(&call_id, &tag, &from, &to));
        Some(())
    }

    /// Somebody must do something before the contact can be seen.
    fn watch_alarm(&mut self, key: Key, status: u16) {
        self.counters.sip.watches_held += 1;
        let Some(watch) = self.sip.watches.all.get(key) else { return };
        let hint = match status {
            401 | 407 => "the peer asks for a password, which no partner may",
            403 => "the peer may not have our domain on its list of partners",
            _ => "the peer does not take our SUBSCRIBE",
        };
        let fields = vec![
            ("peer", watch.contact.domain().to_owned()),
            ("local", watch.user.domain().to_owned()),
            ("status", status.to_string()),
            ("hint", hint.to_owned()),
        ];
        self.notice("sip_watch_refused", fields);
    }
}

/// Between two requests to a peer that is not paced.
const UNPACED: Duration = Duration::from_millis(1);
