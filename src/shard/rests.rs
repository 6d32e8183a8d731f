//! Users whose records nobody needs just now: forgotten after a while, the oldest first.

use crate::limits::RECORD_IDLE_TIME;
use crate::shard::{Shard, Timer};

impl Shard {
    /// Nobody needs this user's record now: it is forgotten after a while.
    pub(super) fn rests(&mut self, bare: &str) {
        if self.home.is_used(bare) {
            return;
        }
        if !self.gates.idle.has_room(0)
            && let Some((_, oldest)) = self.gates.idle.take()
        {
            self.home.forget(&oldest, false);
        }
        drop(self.gates.idle.push((self.now.moment, bare.into())));
        if !std::mem::replace(&mut self.gates.sweeping, true) {
            self.timers.set(self.now.moment + RECORD_IDLE_TIME, Timer::Records);
        }
    }

    /// Forgets users that nobody needed for a while. One that was needed meanwhile goes a little
    /// early, which costs a look into the store.
    pub(super) fn forget_idle(&mut self) {
        self.gates.sweeping = false;
        while let Some((since, bare)) = self.gates.idle.front() {
            let due = *since + RECORD_IDLE_TIME;
            if due > self.now.moment {
                self.gates.sweeping = true;
                return self.timers.set(due, Timer::Records);
            }
            self.home.forget(bare, false);
            self.gates.idle.take();
        }
    }
}
