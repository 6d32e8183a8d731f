//! Two scripted shards and everything control needs, for tests.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::lanes::{FromShard, Lanes, ToShard};
use super::store::Store;
use super::workers::Workers;
use super::{Ending, Node, Reloaded, Setup, Socket, Source, run};
use crate::net::Unsent;
use crate::policy::{Pattern, PeerAuth, Policy, Profile, Protocol, Rule, Security};
use crate::shard::kernel::{Order, Question, ShardId};
use crate::shard::settings::{Domain, Settings};
use crate::shard::{Report, StreamRow};
use crate::tls;

/// What a lane holds.
const ROOM: usize = 4;

/// Lanes over channels.
pub(crate) struct FakeLanes {
    shards: Vec<(mpsc::Sender<ToShard>, Arc<AtomicUsize>)>,
    from: RefCell<UnboundedReceiver<FromShard>>,
}

impl Lanes for FakeLanes {
    fn shards(&self) -> u16 {
        u16::try_from(self.shards.len()).expect("a few")
    }

    fn send(&self, shard: ShardId, message: ToShard) -> Result<(), Unsent<ToShard>> {
        let (to, held) = &self.shards[usize::from(shard.0)];
        if held.load(Ordering::SeqCst) >= ROOM {
            return Err(Unsent::Full(message));
        }
        held.fetch_add(1, Ordering::SeqCst);
        to.send(message).map_err(|_| Unsent::Gone)
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<FromShard> {
        match self.from.borrow_mut().poll_recv(cx) {
            Poll::Ready(Some(it)) => Poll::Ready(it),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// A shard that reports and ends when told, and shows the test what else it hears.
fn shard(
    id: ShardId,
    inbox: &mpsc::Receiver<ToShard>,
    held: &AtomicUsize,
    up: &UnboundedSender<FromShard>,
    seen: &mpsc::Sender<(ShardId, ToShard)>,
) {
    while let Ok(message) = inbox.recv() {
        held.fetch_sub(1, Ordering::SeqCst);
        let answer = match message {
            ToShard::Ordered(Order::Report { ticket, streams }) => {
                let report = Box::new(report(id, streams));
                FromShard::Asked(id, Question::Report { ticket, report })
            }
            ToShard::Ordered(Order::Stop) => {
                drop(up.send(FromShard::Ended(id)));
                return;
            }
            other => {
                drop(seen.send((id, other)));
                continue;
            }
        };
        drop(up.send(answer));
    }
}

fn report(id: ShardId, streams: bool) -> Report {
    let row = |n: u64| StreamRow {
        kind: "c2s",
        far: format!("u{n}@example.com/r{}", id.0),
        near: "example.com".into(),
        state: "bound",
        remote: "127.0.0.1:5".into(),
        tls: "TLSv1.3".into(),
        age_seconds: n,
        outbox_bytes: 0,
    };
    Report {
        shard: id.0,
        figures: vec![
            ("tandem_messages_offered_total", vec![("kind", "chat")], 10 + u64::from(id.0)),
            ("tandem_connections", vec![("state", "bound")], 2),
        ],
        streams: if streams { (0..3).map(row).collect() } else { Vec::new() },
    }
}

/// Settings that serve example.com.
pub(crate) fn settings() -> Settings {
    let rule = |allow| Rule {
        allow,
        protocol: Protocol::Xmpp,
        profile: Profile::Xmpp,
        auth: PeerAuth::Both,
        security: Security::StartTls,
        targets: Vec::new(),
        private_addresses: false,
    };
    let rules = vec![(Pattern::parse("*.bad.example").expect("a pattern"), rule(false))];
    let clock = tls::Clock::default();
    Settings {
        version: 1,
        shards: 2,
        listeners: Vec::new(),
        own_addresses: Vec::new(),
        domains: vec![Domain {
            name: "example.com".into(),
            sip_name: "example.com".into(),
            plain: true,
            channel_binding: true,
            denial: Default::default(),
        }],
        tls: Arc::new(
            tls::CertStore::build(&[], super::node::wall(), &clock).expect("no certificates"),
        ),
        policy: Arc::new(Policy::new(rule(true), rules)),
        clients: Default::default(),
        dialback_secrets: vec![vec![0; 32]],
        scram_secret: vec![0; 32],
        strangers_per_address: 0,
        scram_iterations: 16,
    }
}

/// Gives what the test put in; else nothing changed.
pub(crate) struct Scripted(pub(crate) mpsc::Receiver<Result<(), String>>);

impl Source for Scripted {
    fn reload(&mut self) -> Result<Reloaded, String> {
        self.0.try_recv().unwrap_or(Ok(())).map(|()| Reloaded {
            settings: settings(),
            roots: Arc::new(tls::Roots::default()),
            changes: vec!["policy.default".into()],
        })
    }

    fn certificates(&mut self) -> Result<Option<Reloaded>, String> {
        Ok(None)
    }
}

fn setup(
    directory: &TempDir,
    lanes: Box<dyn Lanes + Send>,
    source: mpsc::Receiver<Result<(), String>>,
) -> Setup {
    Setup {
        lanes,
        settings: Arc::new(settings()),
        source: Box::new(Scripted(source)),
        store: Store::open_sqlite(&directory.path().join("t.db")).expect("opens"),
        workers: Workers::start().expect("threads"),
        // Nobody answers there: a query fails at once.
        nameserver: Some(SocketAddr::from(([127, 0, 0, 1], 9))),
        roots: Arc::new(tls::Roots::default()),
        admin: None,
        ctl: None,
        stop_within: Duration::from_secs(30),
        signals: false,
    }
}

/// A node whose shards never say anything by themselves.
pub(crate) fn node(directory: &TempDir) -> Node {
    let mute = || (mpsc::channel().0, Arc::new(AtomicUsize::new(0)));
    let lanes =
        FakeLanes { shards: vec![mute(), mute()], from: RefCell::new(unbounded_channel().1) };
    Node::new(setup(directory, Box::new(lanes), mpsc::channel().1))
}

/// A control thread with two shards, an admin port and a control socket.
pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) admin: SocketAddr,
    pub(crate) socket: PathBuf,
    /// Speaks for the shards.
    pub(crate) up: UnboundedSender<FromShard>,
    /// What the shards heard, but for reports and stop.
    pub(crate) seen: mpsc::Receiver<(ShardId, ToShard)>,
    /// Outcomes of the next reloads.
    pub(crate) reloads: mpsc::Sender<Result<(), String>>,
    control: JoinHandle<std::io::Result<Ending>>,
}

impl World {
    /// Starts it; the shards in `mute` take nothing.
    pub(crate) fn start(mute: &[u16], signals: bool) -> Self {
        let (up, from) = unbounded_channel();
        let (show, seen) = mpsc::channel();
        let mut lanes = Vec::new();
        for n in 0..2 {
            let (to, inbox) = mpsc::channel();
            let held = Arc::new(AtomicUsize::new(0));
            lanes.push((to, Arc::clone(&held)));
            let (up, show, mute) = (up.clone(), show.clone(), mute.contains(&n));
            thread::spawn(move || {
                if mute {
                    // Holds its inbox until the test has ended.
                    thread::park();
                }
                shard(ShardId(n), &inbox, &held, &up, &show);
            });
        }
        let lanes = FakeLanes { shards: lanes, from: RefCell::new(from) };
        Self::start_with(Box::new(lanes), up, seen, signals)
    }

    /// Starts it on the lanes of somebody else's shards.
    pub(crate) fn start_on(lanes: Box<dyn Lanes + Send>) -> Self {
        Self::start_with(lanes, unbounded_channel().0, mpsc::channel().1, false)
    }

    fn start_with(
        lanes: Box<dyn Lanes + Send>,
        up: UnboundedSender<FromShard>,
        seen: mpsc::Receiver<(ShardId, ToShard)>,
        signals: bool,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (reloads, source) = mpsc::channel();
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let admin = listener.local_addr().expect("has an address");
        let socket = directory.path().join("ctl.sock");
        let mut setup = setup(&directory, lanes, source);
        setup.admin = Some(listener);
        setup.ctl = Some(Socket { path: socket.clone(), mode: 0o600 });
        setup.signals = signals;
        let control = thread::spawn(move || run(setup));
        let world = Self { directory, admin, socket, up, seen, reloads, control };
        world.wait_for_socket();
        world
    }

    /// The socket appears when the node serves it.
    fn wait_for_socket(&self) {
        while std::os::unix::net::UnixStream::connect(&self.socket).is_err() {
            assert!(!self.control.is_finished(), "control ended early");
            thread::yield_now();
        }
    }

    /// A shard asks; the answer of that shard.
    pub(crate) fn ask(&self, shard: u16, question: Question) -> ToShard {
        drop(self.up.send(FromShard::Asked(ShardId(shard), question)));
        let (heard, message) = self.seen.recv_timeout(Duration::from_secs(30)).expect("an answer");
        assert_eq!(heard, ShardId(shard));
        message
    }

    /// Waits until control has ended.
    pub(crate) fn end(self) -> Ending {
        self.control.join().expect("no panic").expect("no fault")
    }
}
