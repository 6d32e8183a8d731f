//! `tandem run`: the node, in the foreground. Puts it together: load, store, net, control, wait.

use std::cell::Cell;
use std::fmt::Display;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use crate::admin::Exit;
use crate::cli::ctl;
use crate::cli::output::{colour_note, note, note_text, say};
use crate::cli::reload::Files;
use crate::config::{self, Loaded, Pump};
use crate::control::lanes::{FromShard, Lanes, NetLanes, ToShard};
use crate::control::store::Store;
use crate::control::workers::Workers;
use crate::control::{self, Ending, Setup, Socket};
use crate::net::{self, Interface, Plan, Running, Unsent};
use crate::policy::Transport;
use crate::shard::Shard;
use crate::shard::kernel::{Seeds, ShardId};
use crate::shard::settings::{Party, Settings};

/// Runs until it is told to stop.
pub(super) fn run(path: &Path, while_stdin: bool) -> Exit {
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(found) => {
            note_text(&found.render(colour_note()));
            note(format!("{} in {}; nothing runs", found.count(), path.display()));
            return Exit::Config;
        }
    };
    note_text(&loaded.warnings.render(colour_note()));
    log(loaded.log_level);
    if while_stdin {
        stop_after_stdin(loaded.admin.socket.clone());
    }
    match serve(path, loaded) {
        Ok(Ending::Orderly) => Exit::Done,
        Ok(Ending::Cut { shards }) => {
            note(format!("tandem: {shards} shards did not end in time"));
            Exit::Refused
        }
        Err(text) => {
            note(format!("tandem: {text}"));
            Exit::Unavailable
        }
    }
}

/// So that a demo which is killed leaves nothing running.
fn stop_after_stdin(socket: PathBuf) {
    thread::spawn(move || {
        std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).ok();
        if ctl::stop(&socket).is_err() {
            // Nobody listens yet, and nobody is connected either.
            std::process::exit(i32::from(Exit::Unavailable.code()));
        }
    });
}

/// The one line to fill a shard's place with an engine.
fn engine(settings: &Arc<Settings>) -> impl Fn(ShardId, Seeds) -> Shard + Send + Sync + 'static {
    let settings = Arc::clone(settings);
    move |shard, seeds| Shard::new(shard, Arc::clone(&settings), seeds.ids)
}

fn serve(path: &Path, loaded: Loaded) -> Result<Ending, String> {
    // Going on without one of the shards would lose its users' messages silently.
    net::abort_on_panic();
    prepare_state(&loaded)?;
    let store = Store::open_sqlite(&loaded.store).map_err(words)?;
    let admin = match loaded.admin.http {
        Some(address) => {
            let bound = TcpListener::bind(address);
            Some(bound.map_err(|it| format!("the admin port can't listen on {address}: {it}"))?)
        }
        None => None,
    };
    let workers = Workers::start().map_err(words)?;
    let running = net::run(&plan(&loaded), engine(&loaded.settings)).map_err(words)?;
    let line = ready_line(&loaded, &running);
    let (handle, questions, joiner) = running.split();
    let lanes = NetLanes::new(handle, questions, joiner).map_err(words)?;
    let setup = Setup {
        lanes: Box::new(Announced { lanes, line: Cell::new(Some(line)) }),
        settings: Arc::clone(&loaded.settings),
        store,
        workers,
        nameserver: loaded.nameserver,
        roots: Arc::clone(&loaded.roots),
        admin,
        ctl: Some(Socket { path: loaded.admin.socket.clone(), mode: 0o660 }),
        stop_within: STOP,
        signals: true,
        source: Box::new(Files::new(path, loaded)),
    };
    control::run(setup).map_err(words)
}

fn words(fault: impl Display) -> String {
    fault.to_string()
}

/// The folder for what outlives the process.
fn prepare_state(loaded: &Loaded) -> Result<(), String> {
    let state = &loaded.node.state;
    fs::create_dir_all(state).map_err(|it| {
        format!("the folder {} can't be made: {it}; make it, or set node.state", state.display())
    })?;
    config::keep_scram_secret(state, &loaded.settings.scram_secret)
        .map_err(|it| format!("{} can't be written to: {it}", state.display()))
}

fn plan(loaded: &Loaded) -> Plan {
    let listeners = loaded.settings.listeners.iter().enumerate();
    let datagrams =
        listeners.filter(|(_, it)| it.party == Party::Sip(Transport::Udp)).map(|(place, _)| place);
    Plan {
        shards: loaded.settings.shards,
        listeners: loaded.addresses.clone(),
        datagrams: datagrams.collect(),
        interface: match loaded.node.pump {
            Pump::Auto => Interface::Auto,
            Pump::Ring => Interface::Ring,
            Pump::Epoll => Interface::Epoll,
        },
        spin_us: u32::try_from(loaded.node.spin.as_micros()).unwrap_or_default(),
        ..Plan::default()
    }
}

/// What an operator, a script and the demo wait for.
fn ready_line(loaded: &Loaded, running: &Running) -> String {
    let domains: Vec<&str> = loaded.settings.domains.iter().map(|it| it.name.as_str()).collect();
    let addresses: Vec<String> = running.addresses.iter().map(ToString::to_string).collect();
    let interface = match running.interface {
        Interface::Ring => "io_uring",
        Interface::Epoll | Interface::Auto => "epoll",
    };
    let shards = loaded.settings.shards;
    let plural = if shards == 1 { "" } else { "s" };
    format!(
        "ready: {} on {}, {shards} shard{plural} on {interface}",
        domains.join(", "),
        addresses.join(", ")
    )
}

/// Lanes that print the ready line when control begins to listen to them: its sockets stand then.
struct Announced {
    lanes: NetLanes,
    line: Cell<Option<String>>,
}

impl Lanes for Announced {
    fn shards(&self) -> u16 {
        self.lanes.shards()
    }

    fn send(&self, shard: ShardId, message: ToShard) -> Result<(), Unsent<ToShard>> {
        self.lanes.send(shard, message)
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<FromShard> {
        if let Some(line) = self.line.take() {
            say(line);
        }
        self.lanes.poll(cx)
    }
}

/// Lines of events on stderr.
fn log(level: &str) {
    let filter = tracing_subscriber::EnvFilter::new(format!("warn,tandem={level}"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(colour_note())
        .with_writer(std::io::stderr);
    // It is there already only in a test that runs two nodes.
    subscriber.try_init().ok();
}

/// RFC 6120 names no time for a goodbye; a unit's TimeoutStopSec is 90 s.
const STOP: Duration = Duration::from_secs(10);
