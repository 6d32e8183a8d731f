//! Subscriptions of local users that outlive the process.
//!
//! The dialog is kept, not what was seen in it: after a restart nothing is known until the refresh
//! in the dialog has brought a NOTIFY, and nobody is told meanwhile that a contact is offline. A
//! subscription without a dialog is not kept: the next login makes it anew from the roster.

use std::time::Duration;

use crate::address::Address;
use crate::gateway::watch::{Level, State};
use crate::home::dialogs::{DialogChange, DialogKind, DialogRow};
use crate::shard::Shard;
use crate::shard::sip::{DialogOf, dialog_key};
use crate::sip::dialog::Dialog;
use crate::stdx::Key;
use crate::stdx::fields::{Fields, put, put_u64};
use crate::time::{Moment, Wall};

/// In front of what is kept.
const VERSION: u8 = 1;

/// What of a subscription is kept.
struct Kept {
    contact: Address,
    level: Level,
    is_granted: bool,
    /// When the user last asked for it.
    wanted: Wall,
    dialog: Dialog,
}

impl Kept {
    fn decode(data: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(data);
        if fields.u8()? != VERSION {
            return None;
        }
        let level = match fields.u8()? {
            0 => Level::Pending,
            1 => Level::Active,
            _ => return None,
        };
        Some(Self {
            level,
            is_granted: fields.u8()? == 1,
            wanted: Wall(fields.u64()?),
            contact: Address::parse(fields.text()?).ok()?,
            dialog: Dialog::decode(&mut fields).ok()?,
        })
    }
}

impl Shard {
    /// The dialog as it is now; nobody waits for it. One that is lost costs a SUBSCRIBE.
    pub(super) fn watch_keep(&mut self, key: Key) {
        let now = self.now;
        let Some(watch) = self.sip.watches.all.get_mut(key) else { return };
        let Some(level) = watch.level() else { return };
        let Some(dialog) = watch.dialog.as_mut() else { return };
        if dialog.is_low() {
            dialog.reserve();
        }
        let mut data = vec![VERSION, u8::from(level == Level::Active), u8::from(watch.is_granted)];
        put_u64(watch.wanted.0, &mut data);
        put(watch.contact.full().as_bytes(), &mut data);
        dialog.encode(&mut data);
        let rest = watch.expiry.since(now.moment).min(DAY);
        let rest = u64::try_from(rest.as_micros()).unwrap_or_default();
        let row = DialogRow {
            key: dialog_key(dialog.call_id(), dialog.local_tag()),
            user: watch.user.clone(),
            kind: DialogKind::Watch,
            expires: Wall(now.wall.0.saturating_add(rest)),
            data: data.into(),
        };
        watch.is_kept = true;
        self.keep_later(DialogChange::Put(Box::new(row)));
    }

    /// A dialog of before the restart: it is refreshed in its turn. What has run out is asked for
    /// anew; what can't be read, or is there already, is forgotten.
    pub(in crate::shard) fn watch_restored(&mut self, row: &DialogRow) {
        let kept = Kept::decode(&row.data);
        let known =
            kept.as_ref().and_then(|it| self.sip.watches.find(row.user.bare(), it.contact.bare()));
        let Some(kept) = kept.filter(|_| known.is_none()) else {
            self.counters.sip.watches_unrestored += 1;
            return self.keep_later(DialogChange::Remove(row.key.clone()));
        };
        let Some(key) = self.sip.watches.enter(&row.user, &kept.contact, kept.wanted) else {
            // It stays in the store for the next start.
            self.counters.sip.watches_full += 1;
            return;
        };
        self.counters.sip.watches_restored += 1;
        let now = self.now;
        let rest = Duration::from_micros(row.expires.0.saturating_sub(now.wall.0));
        let lives = !rest.is_zero() && self.dialog_enter(row.key.clone(), DialogOf::Watch(key));
        let slot = self.watch_slot(key).unwrap_or(now.moment);
        let Some(watch) = self.sip.watches.all.get_mut(key) else { return };
        watch.is_granted = kept.is_granted;
        // Above the numbers that are being reserved nothing is sent before that is done.
        watch.due = slot.max(now.moment + RESERVED_AFTER);
        if lives {
            watch.state = State::Standing(kept.level);
            watch.dialog = Some(kept.dialog);
            watch.stood = Some(now.moment);
            watch.expiry = now.moment + rest;
            self.watch_keep(key);
        } else {
            watch.state = State::BackingOff;
            watch.expiry = Moment::NEVER;
            self.keep_later(DialogChange::Remove(row.key.clone()));
        }
        self.watch_arm(key);
    }
}

const DAY: Duration = Duration::from_secs(86_400);
/// A commit is done after this, or the store is away for longer than a turn.
const RESERVED_AFTER: Duration = Duration::from_secs(1);
