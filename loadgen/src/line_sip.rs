//! The part of the command line that is about SIP.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tandem_loadgen::login::After;
use tandem_loadgen::population::{Population, Wanted};
use tandem_loadgen::sip;

use super::{Place, Who, Window, pin, tell, wanted};

#[derive(Args)]
struct EdgeArgs {
    /// Where the edge listens and dials from.
    #[arg(long)]
    edge: SocketAddr,
    /// The server's SIP listener, plain TCP.
    #[arg(long)]
    sip: SocketAddr,
    /// Connections that the edge opens.
    #[arg(long, default_value_t = 1)]
    lines: usize,
}

#[derive(Args)]
pub(super) struct SipChat {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    edge: EdgeArgs,
    /// From the clients to the edge.
    #[arg(long)]
    back: bool,
    /// Octets of a text.
    #[arg(long, default_value_t = 150)]
    bytes: usize,
    #[command(flatten)]
    window: Window,
}

#[derive(Args)]
pub(super) struct SipRaw {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    edge: EdgeArgs,
    /// From the clients to the edge.
    #[arg(long)]
    back: bool,
    /// Octets of what asks, is passed on, acknowledges and answers.
    #[arg(long, value_delimiter = ',', required = true)]
    sizes: Vec<usize>,
    #[command(flatten)]
    window: Window,
}

#[derive(Args)]
struct Watching {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    edge: EdgeArgs,
    /// Dialogs of the edge, over all users in turn.
    #[arg(long, default_value_t = 10_000)]
    dialogs: usize,
    /// SUBSCRIBEs on their way.
    #[arg(long, default_value_t = 256)]
    in_flight: usize,
    #[command(flatten)]
    window: Window,
}

#[derive(Args)]
pub(super) struct SipWatch {
    #[command(flatten)]
    watching: Watching,
    /// Users are published by SIP and are no clients.
    #[arg(long)]
    published: bool,
    /// Keep the dialogs; each line of standard input (`back`, `away`) is a restart that happened.
    #[arg(long)]
    hold: bool,
}

#[derive(Args)]
pub(super) struct SipPartner {
    #[command(flatten)]
    watching: Watching,
    /// Contacts that each client watches.
    #[arg(long, default_value_t = 10)]
    contacts: usize,
    /// Seconds that the partner is away.
    #[arg(long, default_value_t = 5.0)]
    away: f64,
    /// Seconds that both sides may take to see the truth again.
    #[arg(long, default_value_t = 300.0)]
    patience: f64,
}

impl SipChat {
    pub(super) fn run(&self) -> Result<ExitCode, String> {
        pin(self.place.core)?;
        let mut wanted = wanted(&self.place, Some(&self.who))?;
        wanted.after = After { roster: false, presence: true, managed: true };
        let plan = sip::chat::Plan {
            edge: self.edge.edge,
            sip: self.edge.sip()?,
            lines: self.edge.lines,
            back: self.back,
            bytes: self.bytes,
            warmup: Duration::from_secs_f64(self.window.warmup),
            window: Duration::from_secs_f64(self.window.window),
            watched: self.window.watched(),
        };
        tell(&sip::chat::run(Population::open(&wanted)?, &plan)?)
    }
}

impl SipRaw {
    pub(super) fn run(&self) -> Result<ExitCode, String> {
        pin(self.place.core)?;
        let &[request, pass, ack, answer] = self.sizes.as_slice() else {
            return Err("--sizes wants four".to_owned());
        };
        let plan = sip::raw::Plan {
            edge: self.edge.edge,
            sip: self.edge.sip()?,
            lines: self.edge.lines,
            back: self.back,
            sizes: sip::raw::Sizes { request, pass, ack, answer },
            warmup: Duration::from_secs_f64(self.window.warmup),
            window: Duration::from_secs_f64(self.window.window),
            watched: self.window.watched(),
        };
        tell(&sip::raw::run(Population::open(&wanted(&self.place, None)?)?, &plan)?)
    }
}

impl SipWatch {
    pub(super) fn run(&self) -> Result<ExitCode, String> {
        pin(self.watching.place.core)?;
        let mut wanted = there(&self.watching)?;
        if self.published {
            wanted.count = 0;
        }
        let plan = self.watching.plan(self.published)?;
        let stage = sip::watch::begin(&plan, Population::open(&wanted)?)?;
        if self.hold {
            return sip::watch::hold(&wanted, stage).map(|()| ExitCode::SUCCESS);
        }
        tell(&sip::watch::refresh(&plan, stage)?)
    }
}

impl SipPartner {
    pub(super) fn run(&self) -> Result<ExitCode, String> {
        let it = &self.watching;
        pin(it.place.core)?;
        let restart = sip::partner::Restart {
            contacts: self.contacts,
            away: Duration::from_secs_f64(self.away),
            patience: Duration::from_secs_f64(self.patience),
        };
        let population = Population::open(&there(it)?)?;
        tell(&sip::partner::run(&it.plan(false)?, &restart, population)?)
    }
}

/// Clients that are there and have asked for their rosters, so that they hear of requests.
fn there(it: &Watching) -> Result<Wanted, String> {
    let mut wanted = wanted(&it.place, Some(&it.who))?;
    wanted.after = After { roster: true, presence: true, managed: false };
    Ok(wanted)
}

impl EdgeArgs {
    fn sip(&self) -> Result<SocketAddr, String> {
        match [self.edge, self.sip].into_iter().find(|it| !it.ip().is_loopback()) {
            Some(other) => Err(format!("{other} is not on this host: only loopback is loaded")),
            None => Ok(self.sip),
        }
    }
}

impl Watching {
    fn plan(&self, published: bool) -> Result<sip::watch::Plan, String> {
        Ok(sip::watch::Plan {
            edge: self.edge.edge,
            sip: self.edge.sip()?,
            lines: self.edge.lines,
            dialogs: self.dialogs,
            in_flight: self.in_flight,
            published: published.then(|| self.who.domain.clone()),
            users: self.place.clients,
            warmup: Duration::from_secs_f64(self.window.warmup),
            window: Duration::from_secs_f64(self.window.window),
            watched: self.window.watched(),
        })
    }
}
