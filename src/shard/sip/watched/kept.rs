//! What of a watcher's dialog outlives the process, and how it is put there.
//!
//! A dialog is kept before the 200 that makes or prolongs it, and its numbers before they are used.

use std::time::Duration;

use crate::address::Address;
use crate::gateway::watched::{State, Tell};
use crate::home::dialogs::{DialogChange, DialogKind, DialogRow};
use crate::limits::RESTORE_AGAIN_AFTER;
use crate::shard::Shard;
use crate::shard::kernel::Unavailable;
use crate::shard::sip::watched::table::Watching;
use crate::shard::sip::{DialogOf, dialog_key};
use crate::sip::dialog::Dialog;
use crate::stdx::Key;
use crate::stdx::fields::{Fields, put, put_u64};
use crate::time::{Now, Wall};

/// In front of what is kept.
const VERSION: u8 = 1;

impl Watching {
    /// As it is kept; `expires`: the end that is granted.
    pub(super) fn row(&self, rest: Duration, now: Now) -> Box<DialogRow> {
        let mut data = vec![VERSION];
        put(self.watcher.full().as_bytes(), &mut data);
        put(&self.event, &mut data);
        put_u64(self.pending.0, &mut data);
        self.dialog.encode(&mut data);
        let rest = u64::try_from(rest.as_micros()).unwrap_or(u64::MAX);
        Box::new(DialogRow {
            key: self.row.clone(),
            user: self.user.clone(),
            kind: DialogKind::Watched,
            expires: Wall(now.wall.0.saturating_add(rest)),
            data: data.into(),
        })
    }

    /// From what was kept.
    pub(super) fn of_row(row: &DialogRow, now: Now) -> Option<Self> {
        let mut fields = Fields::new(&row.data);
        if fields.u8()? != VERSION || row.kind != DialogKind::Watched {
            return None;
        }
        let watcher = Address::parse(fields.text()?).ok()?;
        let event = fields.octets()?;
        let pending = Wall(fields.u64()?);
        let dialog = Dialog::decode(&mut fields).ok()?;
        if row.key != dialog_key(dialog.call_id(), dialog.local_tag()) {
            return None;
        }
        let rest = Duration::from_micros(row.expires.0.saturating_sub(now.wall.0));
        let who = (&row.user, &watcher);
        let mut watching = Self::new(who, row.key.clone(), dialog, event, now.moment + rest);
        (watching.pending, watching.state) = (pending, State::Unsure);
        Some(watching)
    }
}

impl Shard {
    /// A dialog of before a restart. Its watcher is told what is true when that is known.
    pub(in crate::shard::sip) fn watched_restored(&mut self, row: &DialogRow) {
        let now = self.now;
        let watching = Watching::of_row(row, now).filter(|it| it.expires > now.moment);
        let Some(watching) = watching else {
            self.counters.sip.watched_unrestored += 1;
            return self.keep_later(DialogChange::Remove(row.key.clone()));
        };
        let user = watching.user.clone();
        let Some(key) = self.sip.watched.insert(watching) else { return };
        if !self.dialog_enter(row.key.clone(), DialogOf::Watched(key)) {
            self.sip.watched.remove(key);
            return;
        }
        self.counters.sip.watched_restored += 1;
        self.watched_reserve(key);
        self.watched_arm(key);
        // His client may have come back before the page with this dialog.
        if self.home.resources(user.bare()).iter().any(|it| it.available.is_some()) {
            self.watched_tell(key, Tell::Paced);
        }
    }

    /// The next numbers are kept, and used when they are.
    pub(super) fn watched_reserve(&mut self, key: Key) {
        let now = self.now;
        let Some(it) = self.sip.watched.get_mut(key) else { return };
        if it.state.is_terminated() || std::mem::replace(&mut it.reserving, true) {
            return;
        }
        it.dialog.reserve();
        let usable = it.dialog.ceiling();
        let row = it.row(it.expires.since(now.moment), now);
        let after = move |shard: &mut Self, done: Result<(), Unavailable>| {
            let again = shard.now.moment + RESTORE_AGAIN_AFTER;
            let Some(it) = shard.sip.watched.get_mut(key) else { return };
            it.reserving = false;
            match done {
                Ok(()) => it.usable = usable,
                Err(Unavailable) => it.pace.hold(again),
            }
            shard.watched_go(key);
        };
        self.keep(DialogChange::Put(row), Box::new(after));
    }
}
