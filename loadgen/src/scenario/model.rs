//! A scenario: the servers, who is played, what they do, in which stages, and what is asked of the
//! result. Times in nanoseconds, rates in events a second, sizes in octets.
//!
//! Does **not** read files; [`super`] does.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// A whole scenario, checked: every name that is used exists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scenario {
    /// Its name, for results.
    pub name: String,
    /// What it is for, a sentence.
    pub about: String,
    /// Of schedule and sizes.
    pub seed: u64,
    /// The servers under test; most runs have one.
    pub targets: Vec<Target>,
    /// Who is played.
    pub populations: Vec<Population>,
    /// What they do.
    pub flows: Vec<Flow>,
    /// When and how fast.
    pub stages: Vec<Stage>,
    /// What is asked of the result: key and condition as written.
    pub thresholds: Vec<Threshold>,
    /// How the generator itself runs.
    pub run: Run,
}

/// A server under test, one address and protocol of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its name in the scenario; `default` if there is one only.
    pub name: String,
    /// Where it listens; several are taken round and round.
    pub addresses: Vec<SocketAddr>,
    /// The domain that its users have.
    pub domain: String,
    /// How connections to it are secured.
    pub tls: Tls,
    /// Process whose CPU and memory are read, if it runs here.
    pub pid: Option<u32>,
}

/// How a connection is secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Clear text.
    #[default]
    None,
    /// STARTTLS (RFC 6120, 5).
    StartTls,
    /// From the first octet (XEP-0368; SIP over TLS).
    Direct,
}

/// Which side of the server somebody is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A client of the server under test (c2s).
    Client,
    /// A user behind an XMPP server that the generator plays (s2s).
    Peer,
    /// A user behind a SIP edge that the generator plays.
    Edge,
    /// A user of the server under test whom nobody plays: he is only written to, asked or watched.
    Addressed,
}

/// People that are played.
#[derive(Clone, Debug, PartialEq)]
pub struct Population {
    /// Its name in the scenario.
    pub name: String,
    /// Which side.
    pub side: Side,
    /// Name of the [`Target`].
    pub target: String,
    /// How many users.
    pub users: usize,
    /// Address pattern: `user%05d@t.example`; `%d` in the domain spreads users over domains.
    pub address: String,
    /// How many domains the pattern's domain part has; 1 without a `%d` there.
    pub domains: usize,
    /// Password of all, `%d` is the number.
    pub password: String,
    /// One mechanism, or the strongest offered.
    pub sasl: Option<Sasl>,
    /// Clients: fetch the roster, say presence, enable stream management.
    pub roster: bool,
    /// Initial presence.
    pub presence: bool,
    /// XEP-0198 without resumption.
    pub managed: bool,
    /// Source addresses, taken round and round; empty: the kernel's choice.
    pub sources: Vec<Ipv4Addr>,
    /// Peers and edges: where the generator listens for the server's connections.
    pub listen: Option<SocketAddr>,
    /// Peers and edges: where the generator answers for the played domains' names (DNS, UDP and TCP).
    pub listen_dns: Option<SocketAddr>,
    /// Peers: prove themselves by dialback alone (XEP-0220), although a certificate is there.
    pub dialback: bool,
    /// Peers and edges: certificates and keys (PEM) of the played domains, made if absent: directory.
    pub certificates: Option<PathBuf>,
    /// Edges: texts go each for itself (RFC 3428), as plain SIP servers take them, not in sessions.
    pub pager: bool,
    /// Edges: a file with the MESSAGE to be sent, with fields such as `{from}`, `{to}`, `{call}`.
    pub template: Option<PathBuf>,
    /// Edges: transport.
    pub transport: Transport,
    /// Connections a second while they are made.
    pub connect_per_s: u64,
}

/// Client mechanisms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sasl {
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-1.
    ScramSha1,
    /// PLAIN.
    Plain,
    /// ANONYMOUS.
    Anonymous,
}

/// Transports of SIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// One stream for many dialogs.
    #[default]
    Tcp,
    /// Mutual TLS.
    Tls,
    /// Datagrams.
    Udp,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text from one user to another; SIP edges speak it in sessions.
    Message,
    /// One change of presence, to all its watchers.
    Presence,
    /// Connect, log in, log out.
    Login,
    /// Connections that say nothing.
    Idle,
    /// Roster items set and removed.
    Roster,
    /// All connections cut at once, and taken up again.
    Reconnect,
    /// SIP watchers of local users: SUBSCRIBE, NOTIFY, refresh in the dialog.
    Subscribe,
    /// SIP sessions made and ended: INVITE, a MESSAGE, BYE.
    Session,
    /// SIP: OPTIONS, and the time to its answer.
    Options,
}

/// Something that is done by pairs of two populations, or by one.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// Its name in results.
    pub name: String,
    /// What.
    pub kind: Kind,
    /// Name of the population that does it.
    pub from: String,
    /// Name of the population that gets it; the same one for pairs within it.
    pub to: String,
    /// Its part of the stage's rate; shares are relative to one another.
    pub share: f64,
    /// Octets of text.
    pub size: Size,
    /// Presence, subscribe: watchers of each presentity.
    pub watchers: usize,
    /// Presence: how many of `from` change.
    pub presentities: usize,
    /// Pairs by lot (of the seed) instead of neighbours.
    pub random_pairs: bool,
    /// Subscribe: seconds of a subscription; refreshed at four fifths.
    pub expires_s: u64,
    /// A receiver that reads so many octets a second only (slow reader); 0: all there is.
    pub read_octets_per_s: u64,
    /// Reconnect: which part of the connections is cut.
    pub cut: f64,
}

/// Octets of a text: log-normal through the median and the 99th percentile, cut at `max`; all three
/// equal: always the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// Median.
    pub p50: usize,
    /// 99th percentile.
    pub p99: usize,
    /// Upper bound.
    pub max: usize,
}

/// Kinds of stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its samples are left out.
    Warmup,
    /// From the rate before to its own, evenly.
    Ramp,
    /// Its own rate; only these make headline figures.
    Hold,
    /// Its own rate at once, counted as a hold.
    Step,
    /// Its own rate for a moment; tagged, left out of the headline.
    Spike,
    /// Nothing.
    Pause,
}

/// A piece of the schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Which kind.
    pub phase: Phase,
    /// Events a second of all flows together, at its end; ignored in a closed loop.
    pub rate_per_s: f64,
    /// How long.
    pub for_ns: u64,
}

/// A condition on the result, such as `latency_p99 = "< 20ms"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// What is looked at: `latency_p99`, `lost`, `achieved`, `server_cpu_per_message`, …; with a
    /// flow's name and a dot before it, of that flow alone.
    pub key: String,
    /// The comparison.
    pub than: Than,
    /// Nanoseconds, counts or a fraction, by key.
    pub value: f64,
    /// As written.
    pub text: String,
}

/// Comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Than {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `=`
    Equal,
    /// `>=`
    AtLeast,
    /// `>`
    More,
}

/// How the generator runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Threads; each has its connections and its core.
    pub threads: usize,
    /// Cores, by number; empty: all it may use.
    pub cores: Vec<usize>,
    /// Poisson arrivals instead of uniform ones.
    pub poisson: bool,
    /// Closed loop: so many outstanding per pair, in place of the stages' rates.
    pub closed: Option<usize>,
    /// Messages in flight above which sending is given up as dropped.
    pub in_flight_max: u64,
    /// After the last stage, how long is waited for what is on its way.
    pub drain_ns: u64,
    /// Stop as soon as the generator is late.
    pub abort_if_late: bool,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            threads: 1,
            cores: Vec::new(),
            poisson: false,
            closed: None,
            in_flight_max: 1 << 20,
            drain_ns: 40_000_000_000,
            abort_if_late: false,
        }
    }
}
