//! What the control thread is told and what it says: answers, orders, reports, notices.

use crate::address::Address;
use crate::limits::{KICKED_MAX, LOGIN_TIME_MAX};
use crate::shard::conn::{Conn, Role};
use crate::shard::kernel::{Answer, ConnId, Ending, Order, Question, Ticket, Unavailable};
use crate::shard::report::{Notice, Report, StreamRow};
use crate::shard::{Request, Shard};
use crate::xmpp::fault::StreamFault;

impl Shard {
    /// An answer of the control thread.
    pub(super) fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Credentials { ticket, credentials } => {
                self.unpark(ticket, |shard, conn| shard.credentials(conn, credentials));
            }
            Answer::Password { ticket, good } => {
                self.unpark(ticket, |shard, conn| shard.password_checked(conn, good));
            }
            Answer::Judged { ticket, verdict } => {
                self.unpark(ticket, |shard, conn| shard.judged(conn, *verdict));
            }
            answer @ (Answer::Loaded { .. }
            | Answer::Committed { .. }
            | Answer::Fetched { .. }
            | Answer::Kept { .. }
            | Answer::Dialogs { .. }) => self.store_answered(answer),
            Answer::Resolved { ticket, direct, starttls } => {
                self.resolved(ticket, direct, starttls)
            }
            Answer::Addresses { ticket, host, addresses } => {
                self.addresses(ticket, &host, addresses.as_deref());
            }
            Answer::ResolvedSip { ticket, found } => self.sip_resolved(ticket, found),
        }
    }

    /// What was parked goes on: first the answer, then the frames that waited behind it.
    pub(super) fn unpark(&mut self, ticket: Ticket, work: impl FnOnce(&mut Self, &mut Conn)) {
        let Some(mut conn) = self.conns.take(Self::conn_of(ticket)) else { return };
        if conn.parked && !conn.is_closing() {
            conn.parked = false;
            work(self, &mut conn);
            self.unchoke(&mut conn);
            self.clear(&mut conn, &[]);
        }
        self.done_with(conn);
    }

    /// The lane to the control thread is full: the question counts as unanswerable.
    pub(super) fn unasked(&mut self, question: Question) {
        self.counters.control_full += 1;
        match question {
            Question::Credentials { ticket, .. } => {
                self.answered(Answer::Credentials { ticket, credentials: Err(Unavailable) });
            }
            Question::Password { ticket, .. } => {
                self.answered(Answer::Password { ticket, good: Err(Unavailable) });
            }
            Question::Load { ticket, .. } => {
                self.answered(Answer::Loaded { ticket, record: Err(Unavailable) });
            }
            Question::Commit { ticket, .. } => {
                self.answered(Answer::Committed { ticket, done: Err(Unavailable) });
            }
            Question::Fetch { ticket, .. } => {
                self.answered(Answer::Fetched { ticket, found: Err(Unavailable) });
            }
            Question::Keep { ticket, .. } => {
                self.answered(Answer::Kept { ticket, done: Err(Unavailable) });
            }
            Question::Dialogs { ticket, .. } => {
                self.answered(Answer::Dialogs { ticket, rows: Err(Unavailable) });
            }
            Question::ResolveSip { ticket, .. } => {
                let found = crate::dns::SipFound::Failed;
                self.answered(Answer::ResolvedSip { ticket, found });
            }
            Question::Resolve { ticket, .. } => self.answered(Answer::Resolved {
                ticket,
                direct: crate::dns::Answer::Failed,
                starttls: crate::dns::Answer::Failed,
            }),
            Question::Addresses { ticket, host } => {
                self.answered(Answer::Addresses { ticket, host, addresses: None });
            }
            Question::Judge { ticket, .. } => {
                if let Some(mut conn) = self.conns.take(Self::conn_of(ticket)) {
                    self.stream_fault(&mut conn, StreamFault::ResourceConstraint);
                    self.conns.put_back(conn);
                }
            }
            Question::Report { .. } | Question::Tell(_) | Question::Done { .. } => {}
        }
    }

    /// An order of the control thread.
    pub(super) fn ordered(&mut self, order: Order) {
        match order {
            Order::Settings(settings) => {
                self.watched_policy(&settings);
                self.settings = settings;
            }
            Order::Stop => self.stop(),
            Order::Report { ticket, streams } => {
                let report = Box::new(self.report(streams));
                self.requests.push(Request::Ask(Question::Report { ticket, report }));
            }
            Order::Kick { user } => self.kick(&user),
            Order::Rule { ticket, user, list, rule, add } => {
                self.rule_ordered(ticket, &user, list, rule, add);
            }
        }
    }

    /// Says goodbye to everybody (RFC 6120, 4.9.3.20).
    fn stop(&mut self) {
        self.stopping = true;
        self.stop_ways();
        self.stop_sip_ways();
        self.end_sessions(None);
        let ids: Vec<ConnId> = self.conns.ids().collect();
        for id in ids {
            let Some(mut conn) = self.conns.take(id) else { continue };
            if !conn.is_closing() {
                self.stream_fault(&mut conn, StreamFault::SystemShutdown);
            }
            self.conns.put_back(conn);
        }
    }

    /// The account is gone or has another password: its streams end, also those that have only
    /// logged in, and one that is on its way here from another shard.
    fn kick(&mut self, user: &Address) {
        let ids: Vec<ConnId> = self.conns.ids().collect();
        for id in ids {
            let Some(mut conn) = self.conns.take(id) else { continue };
            let bare = match &conn.role {
                Role::Bound(bound) => Some(bound.address.bare()),
                Role::Login(login) => login.claims(),
                Role::PeerIn(_) | Role::PeerOut(_) | Role::Sip(_) => None,
            };
            if bare == Some(user.bare()) && !conn.is_closing() {
                self.stream_fault(&mut conn, StreamFault::NotAuthorized);
            }
            self.conns.put_back(conn);
        }
        self.end_sessions(Some(user.bare()));
        // What is known of the account may be known no longer.
        self.home.doom(user.bare());
        self.watch_doubted(user);
        self.watched_kicked(user);
        self.session_kicked(user);
        let now = self.now.moment;
        self.kicked.retain(|(_, at)| now.since(*at) <= LOGIN_TIME_MAX);
        if self.kicked.len() < KICKED_MAX {
            self.kicked.push((user.to_bare(), now));
        }
    }

    /// A connection that arrives was opened before its user was kicked.
    pub(super) fn was_kicked(&self, conn: &Conn) -> bool {
        let Role::Login(login) = &conn.role else { return false };
        self.kicked
            .iter()
            .any(|(user, at)| login.claims() == Some(user.bare()) && conn.opened <= *at)
    }

    fn report(&mut self, streams: bool) -> Report {
        let mut figures = Vec::new();
        self.counters.figures(&self.account, &self.net, &mut figures);
        figures.push(("tandem_connections", Vec::new(), self.conns.len() as u64));
        figures.push(("tandem_users_online", Vec::new(), self.home.online() as u64));
        figures.push(("tandem_sessions_detached", Vec::new(), self.sessions.detached()));
        figures.push(("tandem_ways", Vec::new(), self.ways.len() as u64));
        figures.push(("tandem_sip_dialogs", Vec::new(), self.sip.dialogs() as u64));
        figures.extend(self.transport.figures().map(|(name, value)| (name, Vec::new(), value)));
        let ids: Vec<ConnId> = if streams { self.conns.ids().collect() } else { Vec::new() };
        let streams = ids.into_iter().filter_map(|id| self.row(id)).collect();
        Report { shard: self.id.0, figures, streams }
    }

    fn row(&mut self, id: ConnId) -> Option<StreamRow> {
        let outbox_bytes = self.conns.outbox(id)?.waiting_bytes() as u64;
        let conn = self.conns.get(id)?;
        let (kind, far, near, state) = match &conn.role {
            Role::Login(login) => {
                let far = login.user.as_ref().map(|u| u.full().to_owned()).unwrap_or_default();
                ("c2s", far, login.domain.clone().unwrap_or_default(), login.stream.name())
            }
            Role::Bound(bound) => {
                let address = &bound.address;
                ("c2s", address.full().to_owned(), address.domain().to_owned(), "bound")
            }
            Role::PeerIn(peer) => ("s2s-in", peer.far(), peer.near(), peer.state()),
            Role::PeerOut(peer) => ("s2s-out", peer.far(), peer.near(), peer.state()),
            Role::Sip(sip) => sip.row(),
        };
        let tls = conn.tls.as_ref().map(|t| {
            format!("{} {}", t.version().unwrap_or("handshake"), t.suite().unwrap_or_default())
        });
        Some(StreamRow {
            kind,
            far,
            near,
            state,
            remote: conn.remote.to_string(),
            tls: tls.unwrap_or_default().trim().to_owned(),
            age_seconds: self.now.moment.since(conn.opened).as_secs(),
            outbox_bytes,
        })
    }

    /// Something an operator should read.
    pub(super) fn notice(&mut self, event: &'static str, fields: Vec<(&'static str, String)>) {
        self.requests.push(Request::Ask(Question::Tell(Notice { event, fields })));
    }

    /// Puts a connection back; one that is to move goes now.
    pub(super) fn done_with(&mut self, mut conn: Box<Conn>) {
        let (id, moving) = (conn.id, conn.moving.take());
        let leaves = moving.is_some() && conn.closing.is_none_or(|e| e != Ending::Abort);
        self.conns.put_back(conn);
        if let (true, Some(moving)) = (leaves, moving) {
            let (to, arrival) = *moving;
            self.hand_over(id, to, arrival);
        }
    }
}
