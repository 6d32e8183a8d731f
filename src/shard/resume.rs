//! A session goes on with another connection.
//!
//! XEP-0198, 5. The client logs in and names its session instead of a resource; its connection moves to
//! the home shard as for a bind. What it has not acknowledged is sent again in its order. A session is
//! **not** resumed on another node, nor after a restart.

use crate::limits::RESUMING_WAITING_MAX;
use crate::route::shard_of;
use crate::shard::Shard;
use crate::shard::account::Outcome;
use crate::shard::conn::{Arrival, Bound, Conn, Role};
use crate::shard::kernel::{ConnId, ShardId};
use crate::shard::session::{Detached, key_of};
use crate::xmpp::fault::{StanzaFault, StreamFault};
use crate::xmpp::sm::{self, Input, Managed, SessionId};

impl Shard {
    /// `<resume/>` from a client that has logged in: its home shard decides.
    pub(super) fn resume_requested(&mut self, conn: &mut Conn, previd: &str, handled: u32) {
        let Role::Login(login) = &conn.role else { return };
        let Some(user) = login.user.as_ref().filter(|_| login.may_bind()) else {
            return self.stream_fault(conn, StreamFault::NotAuthorized);
        };
        let home = ShardId(shard_of(user.slot(), self.settings.shards));
        let Some(id) = SessionId::parse(previd) else {
            self.counters.sessions_unknown += 1;
            return self.management_failed(conn.id, StanzaFault::ItemNotFound, None);
        };
        if home == self.id {
            self.resume(conn, id, handled);
        } else {
            conn.parked = true;
            conn.moving = Some(Box::new((home, Arrival::Resume(id, handled))));
        }
    }

    /// On the home shard: the session goes on here, or the client is told to bind.
    pub(super) fn resume(&mut self, conn: &mut Conn, id: SessionId, handled: u32) {
        conn.parked = false;
        let Role::Login(login) = &conn.role else { return };
        let Some(bare) = login.user.as_ref().map(|user| user.bare().to_owned()) else { return };
        let known = self.sessions.get(id.stream).filter(|it| {
            let same = it.id == id && it.address.bare() == bare;
            same && it.state.handle(Input::Taken).is_ok()
        });
        let Some(key) = known.map(|it| it.key) else {
            self.counters.sessions_unknown += 1;
            let handled = self.sessions.recall(id, &bare);
            return self.management_failed(conn.id, StanzaFault::ItemNotFound, handled);
        };
        self.take_from(key);
        let waiting = self.conns.outbox(conn.id).map_or(0, |outbox| outbox.waiting_bytes());
        if waiting > RESUMING_WAITING_MAX {
            // It asked so often in vain that what its session holds would not fit behind the answers.
            return self.stream_fault(conn, StreamFault::PolicyViolation);
        }
        let Some((stream, detached)) = self.detached_of(key_of(id.stream)) else { return };
        let Ok(more) = sm::advance(detached.acked, handled, detached.sent as u32) else {
            let sent = detached.acked.wrapping_add(detached.sent as u32);
            return self.handled_too_high(conn, handled, sent);
        };
        let Some(session) = self.sessions.get_mut(stream) else { return };
        let Some(mut detached) = session.detached.take() else { return };
        session.state = Managed::On(true);
        session.key = conn.id;
        session.inbound.resumed();
        let (address, counted) = (session.address.clone(), session.inbound.handled());
        self.sessions.detached -= 1;
        self.counters.sessions_resumed += 1;
        self.home.rekey(&bare, key_of(stream), conn.id);
        let copied = self.is_copied(&bare, conn.id);
        let blocks = self.has_blocks(&bare);
        let lang = match &mut conn.role {
            Role::Login(login) => login.lang.take(),
            _ => None,
        };
        conn.role = Role::Bound(Box::new(Bound { address, lang, copied, stream, blocks }));
        self.write(conn.id, |out| sm::resumed(&id.to_string(), counted, out));
        for held in detached.queue.drain(..more as usize) {
            self.outcome(held.origin, Outcome::Delivered);
        }
        self.send_again(conn.id, handled, &detached);
        self.stream_from_now(conn);
    }

    /// Its old connection, if there still is one, ends with `conflict` (XEP-0198, 5).
    fn take_from(&mut self, key: ConnId) {
        // Its state is not resumed (XEP-0352, 5): what was held belongs to the session.
        self.client_active(key);
        let unacked = self.conns.outbox(key).and_then(|outbox| outbox.take_managed());
        let Some(mut old) = self.conns.take(key) else { return };
        self.detach(&mut old, unacked, false);
        self.stream_fault(&mut old, StreamFault::Conflict);
        self.conns.put_back(old);
    }

    /// What the client did not acknowledge, in the order in which it was first written.
    fn send_again(&mut self, id: ConnId, acked: u32, detached: &Detached) {
        let now = self.now.moment;
        let Some(outbox) = self.conns.outbox(id) else { return };
        outbox.manage(acked, now);
        for held in detached.queue.iter().filter(|it| !it.text.is_empty()) {
            outbox.buffer().extend_from_slice(&held.text);
            let is_open = held.origin.is_some_and(|it| it.row().is_none());
            let since = if is_open { held.since } else { now };
            outbox.stanza(held.text.len(), held.origin, since);
        }
        if outbox.is_owing() {
            self.watch_outbox(id);
        }
    }
}
