//! Dialogs of sessions that outlive the process: the next text in a window that is open over there
//! is answered and delivered.
//!
//! A row has the contact, the thread and the dialog. It is stored before our 200 makes the dialog,
//! and once our INVITE is accepted; after that only when the reserved numbers come to their end, or
//! twice a day. Texts that wait are **not** here: their accounts are the sender's.

use crate::address::Address;
use crate::gateway::session::LegId;
use crate::home::dialogs::{DialogChange, DialogKind, DialogRow};
use crate::shard::Shard;
use crate::shard::sip::DialogOf;
use crate::shard::sip::session::given::Answers;
use crate::shard::sip::session::{Chat, Leg};
use crate::sip::dialog::Dialog;
use crate::stdx::Key;
use crate::stdx::fields::{Fields, put};
use crate::time::Wall;

/// In front of what is kept.
const VERSION: u8 = 1;
/// A row of a day ago is nobody's any more; it is written anew after half of that. In microseconds.
const DAY: u64 = 86_400_000_000;

impl Shard {
    /// What the store shall have of a dialog, now.
    pub(super) fn leg_row(&mut self, key: Key, id: LegId) -> Option<Box<DialogRow>> {
        let wall = self.now.wall;
        let chat = self.sip.im.chats.get_mut(key)?;
        let Chat { user, contact, legs, .. } = chat;
        let leg = legs.iter_mut().find(|it| it.id == id)?;
        leg.kept = Some(wall);
        let mut data = vec![VERSION];
        put(contact.full().as_bytes(), &mut data);
        put(leg.thread.as_bytes(), &mut data);
        leg.dialog.encode(&mut data);
        Some(Box::new(DialogRow {
            key: leg.key.clone(),
            user: user.clone(),
            kind: DialogKind::Session,
            expires: Wall(wall.0 + DAY),
            data: data.into(),
        }))
    }

    /// Keeps a dialog that has changed, or whose numbers come to their end.
    pub(super) fn keep_leg(&mut self, key: Key, id: LegId, changed: bool) {
        let wall = self.now.wall;
        let Some(leg) = self.sip.im.leg(key, id) else { return };
        let low = leg.dialog.is_low();
        if low {
            leg.dialog.reserve();
        }
        let old = leg.kept.is_some_and(|kept| wall.0.saturating_sub(kept.0) > DAY / 2);
        if !(changed || old || (low && leg.kept.is_some())) {
            return;
        }
        if let Some(row) = self.leg_row(key, id) {
            self.keep_later(DialogChange::Put(row));
        }
    }

    /// A dialog of before a restart. False: it is no use, and goes.
    #[must_use]
    pub(in crate::shard::sip) fn session_restored(&mut self, row: &DialogRow) -> bool {
        let Some((contact, thread, dialog)) = read(&row.data) else {
            self.counters.sip.im_rows_unreadable += 1;
            return false;
        };
        let Some(key) = self.chat_of(row.user.view(), contact.view()) else { return false };
        let now = self.now.moment;
        let restored = self.sip.im.chats.get_mut(key).and_then(|it| it.session.restored(now));
        let Some(id) = restored else { return false };
        let leg = Leg {
            id,
            dialog,
            key: row.key.clone(),
            invite: 0,
            ask: None,
            offered: None,
            thread,
            answers: Answers::of_dialog(),
            kept: Some(self.now.wall),
        };
        if let Some(chat) = self.sip.im.chats.get_mut(key) {
            chat.legs.push(leg);
        }
        let entered = self.dialog_enter(row.key.clone(), DialogOf::Session(key));
        self.keep_leg(key, id, false);
        self.chat_rests(key);
        entered
    }
}

fn read(data: &[u8]) -> Option<(Address, String, Dialog)> {
    let mut fields = Fields::new(data);
    if fields.u8()? != VERSION {
        return None;
    }
    let contact = Address::parse(fields.text()?).ok()?;
    let thread = fields.text()?.to_owned();
    let dialog = Dialog::decode(&mut fields).ok()?;
    fields.is_empty().then_some((contact, thread, dialog))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_damaged_is_no_dialog() {
        let mut data = vec![VERSION];
        put(b"alice@contoso.example", &mut data);
        put(b"thread", &mut data);
        let dialog = Dialog::uac("c", "t1.g", "sip:bob@fabrikam.example", "sip:a@contoso.example");
        dialog.encode(&mut data);
        let (contact, thread, _) = read(&data).unwrap();
        assert_eq!((contact.full(), thread.as_str()), ("alice@contoso.example", "thread"));
        for cut in 0..data.len() {
            assert!(read(&data[..cut]).is_none(), "{cut}");
        }
        data.push(0);
        assert!(read(&data).is_none());
    }
}
