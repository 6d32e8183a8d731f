//! The life of a connection: how it comes, is secured, moved, watched and ended.

use std::net::SocketAddr;

use crate::limits::{IDLE_BEFORE_PING, LOGIN_TIME_MAX, OPENING_TIME_MAX, STREAM_CLOSE_TIME_MAX};
use crate::policy::Security;
use crate::shard::client::Login;
use crate::shard::conn::{Arrival, Conn, Parcel, Role};
use crate::shard::kernel::{ConnId, Ending, Read, ShardId, Ticket};
use crate::shard::outbox::Outbox;
use crate::shard::peer_in::PeerIn;
use crate::shard::settings::{ListenerId, Party};
use crate::shard::{Request, Shard, Timer};
use crate::time::Moment;
use crate::tls::{self, TlsFault};
use crate::xmpp::fault::StreamFault;
use crate::xmpp::write;

impl Shard {
    /// A connection on a listener.
    pub(super) fn accepted(&mut self, id: ConnId, listener: ListenerId, remote: SocketAddr) {
        if self.stopping {
            return self.requests.push(Request::Close(id, Ending::Abort));
        }
        let listener = self.settings.listeners.get(usize::from(listener.0));
        let Some((party, security)) = listener.map(|it| (it.party, it.security)) else {
            return self.requests.push(Request::Close(id, Ending::Abort));
        };
        let (role, what) = match party {
            Party::Client => (Role::Login(Box::new(Login::new(security))), tls::Use::C2s),
            Party::Peer => (Role::PeerIn(Box::new(PeerIn::new(security))), tls::Use::S2s),
            Party::Sip(carrier) => {
                let proxied = listener.is_some_and(|it| it.is_proxy(remote.ip()));
                return self.sip_accepted(id, carrier, remote, proxied);
            }
        };
        if !self.admits(remote) {
            return self.requests.push(Request::Close(id, Ending::Abort));
        }
        let mut conn = Box::new(Conn::new(id, role, remote, self.now.moment));
        conn.is_stranger = true;
        if security == Security::Direct {
            conn.tls = Some(Box::new(tls::Session::server(&self.settings.tls, what, None)));
        }
        self.counters.accepted += 1;
        self.watch(&mut conn, self.now.moment + OPENING_TIME_MAX);
        self.read_on(&conn);
        self.conns.insert(conn, Outbox::default());
    }

    /// A client whose home is here, handed over by the shard that accepted it.
    pub(super) fn arrived(&mut self, id: ConnId, parcel: Parcel) {
        let Parcel { mut conn, mut outbox, arrival } = parcel;
        outbox.arrived();
        conn.id = id;
        conn.armed = Moment::NEVER;
        let deadline = conn.deadline;
        self.watch(&mut conn, deadline);
        self.conns.insert(conn, outbox);
        self.mark(id);
        let Some(mut conn) = self.conns.take(id) else { return };
        self.counters.moved_in += 1;
        if self.stopping {
            self.stream_fault(&mut conn, StreamFault::SystemShutdown);
        } else if self.was_kicked(&conn) {
            self.stream_fault(&mut conn, StreamFault::NotAuthorized);
        } else {
            match arrival {
                Arrival::Bind(bind_id) => self.bound(&mut conn, &bind_id),
                Arrival::Resume(id, handled) => self.resume(&mut conn, id, handled),
                Arrival::Sip => self.sip_arrived(&mut conn),
            }
        }
        // What came behind the request waits in the tail.
        self.clear(&mut conn, &[]);
        self.done_with(conn);
    }

    /// Moves a client to its home shard. Nothing of it may be under way: it is read one delivery
    /// at a time until here, so there is no receive to cancel.
    pub(super) fn hand_over(&mut self, id: ConnId, to: ShardId, arrival: Arrival) {
        let Some((mut conn, outbox)) = self.conns.remove(id) else { return };
        self.known(&mut conn);
        self.counters.moved_out += 1;
        self.requests.push(Request::HandOver(id, to, Box::new(Parcel { conn, outbox, arrival })));
    }

    /// The TLS handshake is complete.
    pub(super) fn secured(&mut self, conn: &mut Conn) {
        self.counters.tls_handshakes += 1;
        match conn.role {
            Role::Login(_) => self.login_secured(conn),
            Role::PeerIn(_) => self.peer_secured(conn),
            Role::PeerOut(_) => self.way_secured(conn),
            Role::Sip(_) => self.sip_secured(conn),
            Role::Bound(_) => {}
        }
    }

    /// A handshake or a record failed: an alert is all the far end could read.
    pub(super) fn tls_failed(&mut self, conn: &mut Conn, fault: &TlsFault) {
        self.counters.tls_failures += 1;
        self.way_troubled(conn, "tls", || fault.to_string());
        self.lose(conn, Ending::Orderly);
    }

    /// The far end's `</stream:stream>` (RFC 6120, 4.4): ours follows, then the connection ends.
    pub(super) fn far_end_closed(&mut self, conn: &mut Conn) {
        if !conn.is_closing() {
            self.close_stream(conn);
        }
    }

    /// Says `</stream:stream>` and closes.
    pub(super) fn close_stream(&mut self, conn: &mut Conn) {
        if self.may_speak(conn) && !matches!(conn.role, Role::Sip(_)) {
            self.write(conn.id, |out| out.extend_from_slice(b"</stream:stream>"));
        }
        self.close(conn, Ending::Orderly);
    }

    /// RFC 6120, 4.9.1.1: our header, then the error, then the end.
    pub(super) fn stream_fault(&mut self, conn: &mut Conn, fault: StreamFault) {
        if matches!(conn.role, Role::Sip(_)) {
            // SIP has no word for it.
            return self.close(conn, Ending::Orderly);
        }
        self.counters.stream_faults[fault.index()] += 1;
        if self.may_speak(conn) {
            if !Self::has_said_header(conn) {
                self.say_header(conn);
            }
            self.write(conn.id, |out| write::stream_error(fault, None, out));
        }
        self.way_troubled(conn, "stream", || format!("we refused it: {}", fault.name()));
        self.close(conn, Ending::Orderly);
    }

    /// A stream error can be read by the far end: in clear text or under a TLS that stands.
    fn may_speak(&self, conn: &Conn) -> bool {
        !conn.is_closing() && conn.tls.as_ref().is_none_or(|tls| tls.is_established())
    }

    fn has_said_header(conn: &Conn) -> bool {
        match &conn.role {
            Role::Login(login) => login.has_said_header(),
            Role::PeerIn(peer) => peer.has_said_header(),
            Role::Bound(_) | Role::PeerOut(_) | Role::Sip(_) => true,
        }
    }

    fn say_header(&mut self, conn: &mut Conn) {
        match conn.role {
            Role::Login(_) => self.login_say_header(conn),
            Role::PeerIn(_) => self.peer_say_header(conn),
            Role::Bound(_) | Role::PeerOut(_) | Role::Sip(_) => {}
        }
    }

    /// The connection is no good any more, but the stream was not ended: a session that may be
    /// resumed waits for another one.
    pub(super) fn lose(&mut self, conn: &mut Conn, ending: Ending) {
        if !conn.is_closing() && self.may_detach(conn) {
            self.client_active(conn.id);
            let unacked = self.conns.outbox(conn.id).and_then(|outbox| outbox.take_managed());
            self.detach(conn, unacked, true);
        }
        self.close(conn, ending);
    }

    /// From here on nothing it says is listened to; what waits for it is still sent, if orderly.
    pub(super) fn close(&mut self, conn: &mut Conn, ending: Ending) {
        if conn.closing.is_none() || ending == Ending::Abort {
            let first = conn.closing.is_none();
            conn.closing = Some(ending);
            conn.tail = Vec::new();
            self.watch(conn, self.now.moment + STREAM_CLOSE_TIME_MAX);
            self.mark(conn.id);
            if first {
                // Nothing more goes this way: what comes now needs another stream.
                self.way_gone(conn);
                self.sip_gone(conn);
                self.client_gone(conn);
            }
        }
    }

    /// The last event of a connection: whatever is not known to have arrived goes another way.
    pub(super) fn gone(&mut self, id: ConnId, unacknowledged: u64) {
        if self.conns.get(id).is_some_and(|conn| self.may_detach(conn)) {
            self.client_active(id);
        }
        let Some((mut conn, mut outbox)) = self.conns.remove(id) else { return };
        self.known(&mut conn);
        self.counters.gone += 1;
        let unconfirmed = matches!(conn.role, Role::PeerIn(_) | Role::PeerOut(_));
        let mut books = self.books(unconfirmed);
        outbox.acknowledge(unacknowledged, |receipt| books.close(receipt.origin), drop);
        if self.may_detach(&conn) {
            self.detach(&mut conn, outbox.take_managed(), true);
        }
        self.client_gone(&mut conn);
        self.way_gone(&conn);
        self.sip_gone(&conn);
        for (receipt, stanza) in outbox.lost() {
            self.counters.undelivered += u64::from(receipt.origin.is_some());
            self.another_way(receipt.origin, receipt.since, &stanza);
        }
    }

    /// A client's resource ends with its connection, and its session too, unless that was detached.
    fn client_gone(&mut self, conn: &mut Conn) {
        self.forget_held(conn.id);
        let Role::Bound(bound) = &mut conn.role else { return };
        let (address, stream) = (bound.address.clone(), std::mem::take(&mut bound.stream));
        self.resource_gone(conn.id, &address);
        self.end_session(stream);
    }

    /// Something of a connection may be overdue.
    pub(super) fn conn_due(&mut self, id: ConnId) {
        let Some(mut conn) = self.conns.take(id) else { return };
        if conn.armed <= self.now.moment {
            conn.armed = Moment::NEVER;
        }
        if conn.deadline > self.now.moment {
            let deadline = conn.deadline;
            self.watch(&mut conn, deadline);
        } else {
            self.overdue(&mut conn);
        }
        self.conns.put_back(conn);
    }

    fn overdue(&mut self, conn: &mut Conn) {
        if conn.is_closing() {
            return self.close(conn, Ending::Abort);
        }
        if matches!(conn.role, Role::Sip(_)) {
            return self.sip_overdue(conn);
        }
        if !conn.streaming && matches!(conn.role, Role::PeerOut(_)) {
            return self.way_overdue(conn);
        }
        if !conn.streaming && matches!(&conn.role, Role::PeerIn(peer) if peer.served) {
            // XEP-0220, 2.2: it came to have a key verified, and that is done.
            return self.close_stream(conn);
        }
        if !conn.streaming {
            self.counters.login_timeouts += 1;
            return self.stream_fault(conn, StreamFault::ConnectionTimeout);
        }
        let silence = self.now.moment.since(conn.heard);
        if silence >= IDLE_BEFORE_PING {
            // RFC 6120, 4.6.1: a blank is enough, since the kernel breaks a connection whose far
            // end does not acknowledge it.
            self.write(conn.id, |out| out.push(b' '));
        }
        self.watch(
            conn,
            self.now.moment + IDLE_BEFORE_PING.saturating_sub(silence).max(IDLE_BEFORE_PING / 4),
        );
    }

    /// Who has opened a stream in time gets until the login's end.
    pub(super) fn header_came(&mut self, conn: &mut Conn) {
        let until = conn.opened + LOGIN_TIME_MAX;
        if !conn.streaming && conn.deadline < until {
            self.watch(conn, until);
        }
    }

    /// The far end has proven who it is: it is read as a stream from now on, for good.
    pub(super) fn stream_from_now(&mut self, conn: &mut Conn) {
        conn.streaming = true;
        self.known(conn);
        self.requests.push(Request::Read(conn.id, Read::Stream));
        self.watch(conn, self.now.moment + IDLE_BEFORE_PING);
    }

    /// Sets when to look after a connection. The wheel keeps one token per connection: a later
    /// deadline is found out when the token comes.
    pub(super) fn watch(&mut self, conn: &mut Conn, deadline: Moment) {
        conn.deadline = deadline;
        if deadline < conn.armed {
            conn.armed = deadline;
            self.timers.set(deadline, Timer::Conn(conn.id));
        }
    }

    /// Appends to an outbox and marks it for this turn's flush.
    pub(super) fn write(&mut self, id: ConnId, say: impl FnOnce(&mut Vec<u8>)) {
        let Some((outbox, first)) = self.conns.outbox_for_writing(id, &mut self.buffers) else {
            return;
        };
        say(outbox.buffer());
        if first {
            self.dirty.push(id);
        }
    }

    /// Looks at this connection at the turn's end.
    pub(super) fn mark(&mut self, id: ConnId) {
        self.write(id, |_| {});
    }

    /// A ticket that names a connection.
    pub(super) fn ticket_of(id: ConnId) -> Ticket {
        Ticket(u64::from(id.index) << 32 | u64::from(id.generation))
    }

    /// The connection a ticket names.
    pub(super) fn conn_of(ticket: Ticket) -> ConnId {
        ConnId { index: (ticket.0 >> 32) as u32, generation: ticket.0 as u32 }
    }
}
