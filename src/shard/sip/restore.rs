//! Dialogs of before a restart.
//!
//! Each shard asks for all that were kept, page by page, and takes those of its users; requests in
//! dialogs that may be among them wait. Then nothing is told for a while: a user is *unknown* until a
//! client of his is back or a minute has passed, and his watchers hear no state rather than a wrong
//! one. From then on each hears what is true, in the dialog he has.

use crate::gateway::watched::{State, Tell};
use crate::home::dialogs::{DialogChange, DialogKey, DialogKind, DialogRow};
use crate::limits::{RESTORE_AGAIN_AFTER, RESTORE_PAGE, RESTORE_UNKNOWN_TIME};
use crate::route::shard_of;
use crate::shard::kernel::Unavailable;
use crate::shard::sip::Due;
use crate::shard::{Shard, Timer};
use crate::time::Moment;

/// How far it is.
#[derive(Debug, Default)]
pub(crate) struct Restore {
    /// The first page was asked for, or none needs to be.
    begun: bool,
    /// Behind this one the next page begins.
    after: Option<DialogKey>,
    /// There was something: this is a restart.
    found: bool,
}

impl Shard {
    /// In the first turn: asks for what was kept, if anybody can have kept anything.
    pub(in crate::shard) fn restore(&mut self) {
        if std::mem::replace(&mut self.sip.restore.begun, true) {
            return;
        }
        let is_sip = |rule: &crate::policy::Rule| rule.protocol.sip().is_some();
        if !self.settings.policy.rules().iter().any(|(_, rule)| is_sip(rule)) {
            return;
        }
        self.sip.restoring = true;
        // Until it is known that nothing was kept, this may be a restart.
        self.sip.watched.unsure_until = self.now.moment + RESTORE_UNKNOWN_TIME;
        self.load_dialogs(None, RESTORE_PAGE);
    }

    /// The page that could not be had.
    pub(super) fn restore_again(&mut self) {
        let after = self.sip.restore.after.clone();
        self.load_dialogs(after, RESTORE_PAGE);
    }

    /// A page of all users' dialogs.
    pub(in crate::shard) fn dialogs_loaded(&mut self, rows: Result<Vec<DialogRow>, Unavailable>) {
        let Ok(rows) = rows else {
            self.counters.sip.restore_failed += 1;
            let at = self.now.moment + RESTORE_AGAIN_AFTER;
            return self.timers.set(at, Timer::Sip(Due::Restore));
        };
        let Some(last) = rows.last() else { return self.restored() };
        self.sip.restore.found = true;
        self.sip.restore.after = Some(last.key.clone());
        for row in &rows {
            if shard_of(row.user.slot(), self.settings.shards) != self.id.0 {
                continue;
            }
            match row.kind {
                DialogKind::Watched => self.watched_restored(row),
                DialogKind::Watch => self.watch_restored(row),
                DialogKind::Session => {
                    if !self.session_restored(row) {
                        self.keep_later(DialogChange::Remove(row.key.clone()));
                    }
                }
            }
        }
        self.restore_again();
    }

    /// All are there: what waited for them goes on.
    fn restored(&mut self) {
        if self.sip.restore.found {
            let until = self.sip.watched.unsure_until;
            self.timers.set(until, Timer::Sip(Due::Known));
        } else {
            // Nobody watched anybody, so nobody can be misled.
            self.restore_known();
        }
        self.dialogs_restored();
    }

    /// The minute is over: whoever has not come back is offline, and all hear the truth.
    pub(super) fn restore_known(&mut self) {
        self.sip.watched.unsure_until = Moment::default();
        let waits = |state| matches!(state, State::Unsure | State::Pending);
        for key in self.sip.watched.keys_of(|it| waits(it.state)) {
            self.watched_tell(key, Tell::Paced);
        }
    }
}
