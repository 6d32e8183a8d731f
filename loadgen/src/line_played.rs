//! The commands around played XMPP servers: their certificates, their names, and a closed loop.

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tandem_loadgen::pairs::numbered;
use tandem_loadgen::played::certificates::Authority;
use tandem_loadgen::played::names::{self, Services, Zones};
use tandem_loadgen::s2s_chat::{self, Plan, Way};
use tandem_loadgen::scenario::model;

use crate::{TlsArg, Window, pin, tell};

#[derive(Args)]
struct Played {
    /// Pattern of the played domains, `%d` or `%03d` is the number.
    #[arg(long, default_value = "d%03d.load.example")]
    played: String,
    /// How many there are.
    #[arg(long, default_value_t = 1)]
    domains: usize,
}

impl Played {
    fn names(&self) -> impl Iterator<Item = String> {
        (0..self.domains).map(|n| numbered(&self.played, n))
    }
}

/// Makes a throw-away authority and certificates where there are none.
#[derive(Args)]
pub(super) struct Certificates {
    /// Where they are: `ca.crt` is what the server under test has to trust.
    directory: PathBuf,
    #[command(flatten)]
    played: Played,
    /// Further names that get one, such as that of the server under test.
    #[arg(long)]
    also: Vec<String>,
}

/// Answers for the played domains' names until standard input ends.
#[derive(Args)]
pub(super) struct Dns {
    /// Where it answers, over UDP and TCP.
    #[arg(long, default_value = "127.0.0.1:5300")]
    listen: SocketAddr,
    #[command(flatten)]
    played: Played,
    /// Where the played XMPP servers listen.
    #[arg(long)]
    xmpp: Option<SocketAddr>,
    /// The same, with TLS from the first octet.
    #[arg(long)]
    xmpps: Option<SocketAddr>,
    /// Where the played SIP edges listen for TCP.
    #[arg(long)]
    sip: Option<SocketAddr>,
    /// And for TLS.
    #[arg(long)]
    sips: Option<SocketAddr>,
}

/// Pairs of a peer and a client that chat through a server.
#[derive(Args)]
pub(super) struct S2sChat {
    /// Where the server takes streams of other servers.
    #[arg(long)]
    target: SocketAddr,
    /// Where it takes those of clients.
    #[arg(long)]
    client_target: SocketAddr,
    /// Its domain.
    #[arg(long)]
    domain: String,
    #[arg(long, value_enum, default_value = "starttls")]
    tls: TlsArg,
    #[arg(long, value_enum, default_value = "none")]
    client_tls: TlsArg,
    /// Pattern of the clients' names.
    #[arg(long, default_value = "u%d")]
    users: String,
    #[arg(long, default_value = "pw")]
    password: String,
    /// How many clients.
    #[arg(long, default_value_t = 100)]
    clients: usize,
    /// How many peers, otherwise as many; the larger number of both is that of the pairs.
    #[arg(long)]
    peers: Option<usize>,
    #[command(flatten)]
    played: Played,
    /// Where the played servers listen.
    #[arg(long, default_value = "127.0.0.1:15269")]
    listen: SocketAddr,
    /// Where their names are answered for.
    #[arg(long)]
    listen_dns: Option<SocketAddr>,
    /// Where their certificates are.
    #[arg(long)]
    certificates: Option<PathBuf>,
    /// Dialback alone, without EXTERNAL.
    #[arg(long)]
    dialback: bool,
    #[arg(long, value_enum, default_value = "in")]
    way: WayArg,
    /// Messages that each pair keeps on their way.
    #[arg(long, default_value_t = 1)]
    outstanding: usize,
    /// Open loop: messages a second of all.
    #[arg(long)]
    rate: Option<f64>,
    /// Octets of a message's text.
    #[arg(long, default_value_t = 200)]
    bytes: usize,
    /// Octets of a whole stanza as its sender says it, instead.
    #[arg(long, conflicts_with = "bytes")]
    stanza: Option<usize>,
    /// The core of the generator.
    #[arg(long)]
    core: Option<usize>,
    #[command(flatten)]
    window: Window,
}

#[derive(Clone, Copy, ValueEnum)]
enum WayArg {
    In,
    Out,
    Both,
}

impl Certificates {
    pub(super) fn run(&self) -> Result<ExitCode, String> {
        let authority = Authority::open(Some(&self.directory))?;
        for name in self.played.names().chain(self.also.iter().cloned()) {
            authority.certificate(&name)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Dns {
    pub(super) fn run(&self) -> Result<ExitCode, String> {
        let mut zones = Zones::default();
        let services =
            Services { xmpp: self.xmpp, xmpps: self.xmpps, sip: self.sip, sips: self.sips };
        for name in self.played.names() {
            zones.add(&name, services);
        }
        let at = names::serve(self.listen, zones).map_err(|e| format!("{}: {e}", self.listen))?;
        let told = tell(&serde_json::json!({ "dns": at.to_string() }))?;
        io::stdin().read_to_end(&mut Vec::new()).map_err(|e| e.to_string())?;
        Ok(told)
    }
}

impl S2sChat {
    pub(super) fn run(&self) -> Result<ExitCode, String> {
        let places = [self.target, self.client_target, self.listen];
        if let Some(other) = places.iter().find(|it| !it.ip().is_loopback()) {
            return Err(format!("{other} is not on this host: only loopback is loaded"));
        }
        let tls = |it| match it {
            TlsArg::None => model::Tls::None,
            TlsArg::Starttls => model::Tls::StartTls,
            TlsArg::Direct => model::Tls::Direct,
        };
        // All its threads, not those of the traffic alone.
        pin(self.core)?;
        let mut plan = Plan {
            servers: self.target,
            clients: self.client_target,
            domain: self.domain.clone(),
            tls: tls(self.tls),
            client_tls: tls(self.client_tls),
            users: self.users.clone(),
            password: self.password.clone(),
            count: self.clients,
            peers: self.peers.unwrap_or(self.clients),
            played: self.played.played.clone(),
            domains: self.played.domains,
            listen: self.listen,
            listen_dns: self.listen_dns,
            certificates: self.certificates.clone(),
            dialback: self.dialback,
            way: match self.way {
                WayArg::In => Way::In,
                WayArg::Out => Way::Out,
                WayArg::Both => Way::Both,
            },
            outstanding: self.outstanding,
            rate: self.rate,
            octets: self.bytes,
            core: self.core,
            warmup: Duration::from_secs_f64(self.window.warmup),
            window: Duration::from_secs_f64(self.window.window),
            watched: self.window.watched(),
        };
        if let Some(stanza) = self.stanza {
            plan.octets = plan.text_octets(stanza);
        }
        tell(&s2s_chat::run(&plan)?)
    }
}
