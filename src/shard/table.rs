//! The connections of a shard, by the ids that the kernel side allots.
//!
//! A connection is taken out while its frames are worked on and put back afterwards, so that what
//! it says may touch everything else of the shard. Its outbox stays: anybody may write to it.

use crate::shard::buffers::Buffers;
use crate::shard::conn::Conn;
use crate::shard::kernel::ConnId;
use crate::shard::outbox::Outbox;

/// By [`ConnId::index`], which is dense.
#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    count: usize,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    /// Something is here; the connection itself may be taken out for a moment.
    used: bool,
    dirty: bool,
    conn: Option<Box<Conn>>,
    outbox: Outbox,
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn insert(&mut self, conn: Box<Conn>, outbox: Outbox) {
        let id = conn.id;
        let index = id.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        let slot = &mut self.slots[index];
        assert!(!slot.used, "the kernel side allots an index once at a time");
        *slot =
            Slot { generation: id.generation, used: true, dirty: false, conn: Some(conn), outbox };
        self.count += 1;
    }

    /// Takes a connection out to work on it; `None` if it is gone (or is being worked on).
    pub(crate) fn take(&mut self, id: ConnId) -> Option<Box<Conn>> {
        self.slot(id)?.conn.take()
    }

    pub(crate) fn put_back(&mut self, conn: Box<Conn>) {
        let slot = self.slot(conn.id).expect("a connection is removed only when it is not taken");
        slot.conn = Some(conn);
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<(Box<Conn>, Outbox)> {
        let slot = self.slot(id)?;
        let conn = slot.conn.take()?;
        slot.used = false;
        let outbox = std::mem::take(&mut slot.outbox);
        self.count -= 1;
        Some((conn, outbox))
    }

    pub(crate) fn get(&self, id: ConnId) -> Option<&Conn> {
        let slot = self.slots.get(id.index as usize)?;
        (slot.used && slot.generation == id.generation).then_some(())?;
        slot.conn.as_deref()
    }

    /// The same, to be changed; `None` also while it is being worked on.
    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.slot(id)?.conn.as_deref_mut()
    }

    pub(crate) fn outbox(&mut self, id: ConnId) -> Option<&mut Outbox> {
        self.slot(id).map(|slot| &mut slot.outbox)
    }

    /// The outbox to write to; true: it was not marked for this turn's flush before.
    pub(crate) fn outbox_for_writing(
        &mut self,
        id: ConnId,
        buffers: &mut Buffers,
    ) -> Option<(&mut Outbox, bool)> {
        let slot = self.slot(id)?;
        let first = !std::mem::replace(&mut slot.dirty, true);
        slot.outbox.make_room(buffers);
        Some((&mut slot.outbox, first))
    }

    /// Both halves, at the flush; the mark goes.
    pub(crate) fn flushing(&mut self, id: ConnId) -> Option<(&mut Conn, &mut Outbox)> {
        let slot = self.slot(id)?;
        slot.dirty = false;
        let conn = slot.conn.as_deref_mut()?;
        Some((conn, &mut slot.outbox))
    }

    /// Both halves.
    pub(crate) fn both(&mut self, id: ConnId) -> Option<(&mut Conn, &mut Outbox)> {
        let slot = self.slot(id)?;
        Some((slot.conn.as_deref_mut()?, &mut slot.outbox))
    }

    /// All that are in use, by index.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ConnId> {
        (0_u32..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.used)
            .map(|(index, slot)| ConnId { index, generation: slot.generation })
    }

    fn slot(&mut self, id: ConnId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id.index as usize)?;
        (slot.used && slot.generation == id.generation).then_some(slot)
    }
}
