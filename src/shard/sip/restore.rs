//! Dialogs of before a restart.

use crate::home::dialogs::DialogRow;
use crate::shard::Shard;
use crate::shard::kernel::Unavailable;

impl Shard {
    /// A page of all users' dialogs.
    pub(in crate::shard) fn dialogs_loaded(&mut self, rows: Result<Vec<DialogRow>, Unavailable>) {
        drop(rows);
        self.dialogs_restored();
    }
}
