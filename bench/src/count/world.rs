//! One shard on a kernel that is only tables: what goes in comes from a driver, what comes out is kept
//! for it, and the control thread answers at once.
//!
//! Time moves by a fixed step a turn, and every seed is a constant, so a driver takes the same path in
//! each run. The kernel costs a copy of what is sent and little else. Does **not** check what a shard
//! asks of it (the simulated world of the tests does) and knows neither TLS nor a second shard.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use tandem::dns::{self, SipFound};
use tandem::home::record::{Fetch, Fetched, Record};
use tandem::policy::{
    Clients, Identity, Im, Pattern, PeerAuth, Pidf, Policy, Profile, Protocol, Rule, Security,
    SipHost, SipRule, SipTarget, Transport,
};
use tandem::shard::kernel::{
    Answer, ConnId, Ending, Engine as _, Event, Full, Gone, Kernel, Next, Question, Read, ShardId,
    Ticket,
};
use tandem::shard::settings::{Denial, Domain, Listener, ListenerId, Party, Settings};
use tandem::shard::{Parcel, Shard};
use tandem::time::{Moment, Now, Wall};
use tandem::tls::{CertStore, Clock};
use tandem::xmpp::sasl::scram::{self, Credentials};
use tandem_loadgen::login::{Account, After, Login, Next as Step};
use tandem_loadgen::sasl::Salted;

use super::counted;

pub(super) const DOMAIN: &str = "load.example";
const PASSWORD: &str = "pw";
const CLIENTS: ListenerId = ListenerId(0);
const SIP: ListenerId = ListenerId(1);
/// The derivation of keys is not what is counted.
const ITERATIONS: u32 = 4;
const SALT: &[u8] = b"a salt of 16 oct";
/// How far two turns are apart.
#[derive(Clone, Copy, Default)]
pub(super) enum Pace {
    /// 20 us, as under load.
    #[default]
    Quick,
    /// 2 ms, so that few turns reach the timers of seconds.
    #[cfg(test)]
    Slow,
    /// 100 us, where a user's turn comes seldom.
    #[cfg(test)]
    Alone,
}

impl Pace {
    fn ns(self) -> u64 {
        match self {
            Self::Quick => 20_000,
            #[cfg(test)]
            Self::Slow => 2_000_000,
            #[cfg(test)]
            Self::Alone => 100_000,
        }
    }
}
const EPOCH_US: u64 = 1_700_000_000_000_000;

/// An event that owns what it lends later.
enum Heard {
    Accepted(ConnId, ListenerId, SocketAddr),
    Received(ConnId, Vec<u8>),
    Sent(ConnId, Vec<u8>),
    Gone(ConnId),
    Answered(Answer),
}

/// The kernel below the shard.
#[derive(Default)]
struct Tables {
    inbox: VecDeque<Heard>,
    lent: Vec<u8>,
    /// What each connection was sent and its far end has not read yet.
    out: Vec<Vec<u8>>,
    records: BTreeMap<String, Record>,
}

/// A shard, its kernel and its clock.
pub(super) struct World {
    shard: Shard,
    tables: Tables,
    now: Moment,
    deadline: Moment,
    pace: Pace,
    kept: Salted,
}

impl World {
    /// A shard that serves one domain and has one SIP partner, whose edge connects from `edge`.
    pub(super) fn new(edge: SocketAddr) -> Result<Self, String> {
        let settings = Arc::new(settings(edge)?);
        Ok(Self {
            shard: Shard::new(ShardId(0), settings, [7; 32]),
            tables: Tables::default(),
            now: Moment(1_000_000_000),
            deadline: Moment::NEVER,
            pace: Pace::default(),
            kept: Salted::default(),
        })
    }

    /// From now on turns are so far apart.
    pub(super) fn keep(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// What the store has of a user.
    pub(super) fn put(&mut self, bare: &str, record: Record) {
        self.tables.records.insert(bare.to_owned(), record);
    }

    /// A connection to the listener of clients.
    fn connect(&mut self, listener: ListenerId, remote: SocketAddr) -> ConnId {
        let conn = ConnId { index: self.tables.out.len() as u32, generation: 1 };
        self.tables.out.push(Vec::new());
        self.tables.inbox.push_back(Heard::Accepted(conn, listener, remote));
        self.settle();
        conn
    }

    /// The edge connects.
    pub(super) fn edge(&mut self, remote: SocketAddr) -> ConnId {
        self.connect(SIP, remote)
    }

    /// A user logs in and does what comes after.
    pub(super) fn client(&mut self, user: usize, after: After) -> Result<ConnId, String> {
        let account = Account {
            user: format!("u{user}"),
            domain: DOMAIN.to_owned(),
            password: PASSWORD.to_owned(),
            mechanism: None,
            starttls: false,
            after,
        };
        let conn = self.connect(CLIENTS, ([127, 0, 0, 1], 40_000).into());
        let mut said = Vec::new();
        let mut login = Login::begin(account, false, user as u64 + 1, &mut said);
        for _ in 0..20 {
            self.say(conn, &std::mem::take(&mut said));
            self.settle();
            let heard = self.hear(conn);
            let mut kept = std::mem::take(&mut self.kept);
            let step = login.handle(&heard, &mut kept, &mut said);
            self.kept = kept;
            if step? == Step::Done {
                self.say(conn, &said);
                self.settle();
                return Ok(conn);
            }
        }
        Err(format!("u{user} did not get in"))
    }

    /// A far end speaks; heard with the next turn.
    pub(super) fn say(&mut self, conn: ConnId, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.tables.inbox.push_back(Heard::Received(conn, bytes.to_vec()));
        }
    }

    /// Takes what a far end was sent.
    pub(super) fn hear(&mut self, conn: ConnId) -> Vec<u8> {
        self.tables.out.get_mut(conn.index as usize).map(std::mem::take).unwrap_or_default()
    }

    /// The same, given away with the place it was in kept for the next.
    pub(super) fn heard(&mut self, conn: ConnId, with: impl FnOnce(&[u8])) {
        if let Some(out) = self.tables.out.get_mut(conn.index as usize) {
            with(out);
            out.clear();
        }
    }

    /// Turns that are not counted, until the shard wants nothing at once.
    pub(super) fn settle(&mut self) {
        while self.wants_turn() {
            self.turn();
        }
    }

    /// The same, counted.
    pub(super) fn settle_counted(&mut self) {
        while self.wants_turn() {
            counted(&mut || self.turn());
        }
    }

    /// One turn, counted.
    pub(super) fn turn_counted(&mut self) {
        counted(&mut || self.turn());
    }

    /// Lets time pass, with the turns that the shard wants meanwhile.
    pub(super) fn pass(&mut self, ns: u64) {
        let end = Moment(self.now.0 + ns);
        self.settle();
        while self.deadline <= end {
            self.now = self.now.max(self.deadline);
            self.turn();
            self.settle();
        }
        self.now = end;
    }

    fn wants_turn(&self) -> bool {
        !self.tables.inbox.is_empty() || self.deadline <= self.now
    }

    fn turn(&mut self) {
        self.now.0 += self.pace.ns();
        let now = Now { moment: self.now, wall: Wall(EPOCH_US + self.now.0 / 1_000) };
        let Next { deadline, .. } = self.shard.step(now, &mut self.tables);
        self.deadline = deadline;
    }
}

impl Kernel for Tables {
    fn next(&mut self) -> Option<Event<'_>> {
        Some(match self.inbox.pop_front()? {
            Heard::Accepted(conn, listener, remote) => Event::Accepted { conn, listener, remote },
            Heard::Received(conn, bytes) => {
                self.lent = bytes;
                Event::Received { conn, bytes: &self.lent }
            }
            Heard::Sent(conn, buffer) => Event::Sent { conn, buffer },
            Heard::Gone(conn) => Event::Gone { conn, why: Gone::Closed, unacknowledged: 0 },
            Heard::Answered(answer) => Event::Answered(answer),
        })
    }

    fn read(&mut self, _: ConnId, _: Read) {}

    fn send(&mut self, conn: ConnId, bytes: Vec<u8>) {
        if let Some(out) = self.out.get_mut(conn.index as usize) {
            out.extend_from_slice(&bytes);
        }
        self.inbox.push_back(Heard::Sent(conn, bytes));
    }

    /// As a socket with room takes it.
    fn send_now(&mut self, conn: ConnId, bytes: Vec<u8>) -> Option<Vec<u8>> {
        if let Some(out) = self.out.get_mut(conn.index as usize) {
            out.extend_from_slice(&bytes);
        }
        Some(bytes)
    }

    fn close(&mut self, conn: ConnId, _: Ending) {
        self.inbox.push_back(Heard::Gone(conn));
    }

    fn unacknowledged(&mut self, _: ConnId) -> u64 {
        0
    }

    /// Whoever is needed has connected by itself.
    fn connect(&mut self, _: Ticket, _: SocketAddr) {}

    fn post(&mut self, _: ShardId, _: &[u8]) -> Result<(), Full> {
        Err(Full)
    }

    fn hand_over(&mut self, _: ConnId, _: ShardId, _: Box<Parcel>) {}

    fn ask(&mut self, question: Question) -> Result<(), Box<Question>> {
        if let Some(answer) = self.answer(question) {
            self.inbox.push_back(Heard::Answered(answer));
        }
        Ok(())
    }
}

impl Tables {
    fn answer(&self, question: Question) -> Option<Answer> {
        Some(match question {
            Question::Credentials { ticket, hash, .. } => {
                let keys = scram::derive(hash, PASSWORD, SALT, ITERATIONS)?;
                let (salt, iterations) = (SALT.to_vec(), ITERATIONS);
                let credentials = Ok(Some(Credentials { salt, iterations, keys }));
                Answer::Credentials { ticket, credentials }
            }
            Question::Password { ticket, password, .. } => {
                Answer::Password { ticket, good: Ok(password == PASSWORD) }
            }
            Question::Load { ticket, user } => {
                let fresh = || Record { next_message: 1, ..Record::default() };
                let record = self.records.get(user.bare()).cloned().unwrap_or_else(fresh);
                Answer::Loaded { ticket, record: Ok(Some(Box::new(record))) }
            }
            Question::Commit { ticket, .. } => Answer::Committed { ticket, done: Ok(()) },
            Question::Keep { ticket, .. } => Answer::Kept { ticket, done: Ok(()) },
            Question::Fetch { ticket, what, .. } => {
                let found = match what {
                    Fetch::Messages { .. } => Fetched::Messages(Vec::new()),
                    _ => Fetched::Payload(None),
                };
                Answer::Fetched { ticket, found: Ok(found) }
            }
            Question::Dialogs { ticket, .. } => Answer::Dialogs { ticket, rows: Ok(Vec::new()) },
            Question::Resolve { ticket, .. } => {
                let (direct, starttls) = (dns::Answer::Absent, dns::Answer::Absent);
                Answer::Resolved { ticket, direct, starttls }
            }
            Question::ResolveSip { ticket, .. } => {
                Answer::ResolvedSip { ticket, found: SipFound::Absent }
            }
            Question::Addresses { ticket, host } => {
                Answer::Addresses { ticket, host, addresses: Some(Vec::new()) }
            }
            Question::Judge { .. }
            | Question::Done { .. }
            | Question::Report { .. }
            | Question::Tell(_) => return None,
        })
    }
}

fn settings(edge: SocketAddr) -> Result<Settings, String> {
    let wall = Wall(EPOCH_US);
    let tls = CertStore::build(&[], wall, &Clock::default())
        .map_err(|_| "no certificates are no fault".to_owned())?;
    let rule = Rule {
        allow: true,
        protocol: Protocol::Xmpp,
        profile: Profile::Xmpp,
        auth: PeerAuth::Dialback,
        security: Security::Optional,
        targets: Vec::new(),
        private_addresses: true,
    };
    let sip = SipRule {
        identity: Identity::Fixed,
        names: Vec::new(),
        targets: vec![SipTarget { host: SipHost::Address(edge.ip()), port: edge.port() }],
        transport: Transport::Tcp,
        rate: 0,
        im: Im::Session,
        pidf: Pidf::Microsoft,
    };
    let partner =
        Rule { protocol: Protocol::Sip(Box::new(sip)), profile: Profile::Lync, ..rule.clone() };
    let name = Pattern::parse(tandem_loadgen::sip::dialog::DOMAIN)
        .map_err(|_| "the partner's domain is no pattern".to_owned())?;
    Ok(Settings {
        version: 1,
        shards: 1,
        own_addresses: Vec::new(),
        listeners: vec![
            Listener::new(Party::Client, Security::Optional),
            Listener::new(Party::Sip(Transport::Tcp), Security::Optional),
        ],
        domains: vec![Domain {
            name: DOMAIN.to_owned(),
            sip_name: DOMAIN.to_owned(),
            plain: false,
            channel_binding: true,
            denial: Denial::Polite,
        }],
        tls: Arc::new(tls),
        policy: Arc::new(Policy::new(rule, vec![(name, partner)])),
        clients: Clients::default(),
        strangers_per_address: 0,
        dialback_secrets: vec![b"a secret of thirty-two octets ok".to_vec()],
        scram_secret: b"another secret of thirty-two oct".to_vec(),
        scram_iterations: ITERATIONS,
    })
}
