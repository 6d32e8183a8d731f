//! As written becomes as run: what the values mean together.
//!
//! Goes on after each error with something harmless in its place, so that one run shows all;
//! what was put together that way is thrown away at the end.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::file::{File, Pump};
use crate::config::finding::{Finding, Findings};
use crate::config::read::{At, printable};
use crate::config::{Admin, Environment, Loaded, Node};
use crate::limits::STRANGERS_PER_ADDRESS;
use crate::policy::Clients;
use crate::shard::settings::{Party, Settings};

mod domains;
mod federation;
mod listen;
mod secrets;
mod sip;

pub use secrets::keep_scram_secret;

/// What all checks use.
struct Checks<'a> {
    found: Findings,
    host: &'a Environment,
    /// Relative paths start here: the folder of the file.
    folder: &'a Path,
    watched: Vec<PathBuf>,
}

/// Everything or all that is wrong.
pub(super) fn check(
    path: &Path,
    folder: &Path,
    file: File,
    host: &Environment,
    found: Findings,
) -> Result<Loaded, Findings> {
    if found.iter().any(|it| it.code == "C0101") {
        // The rest was not read, so nothing can be said about what is missing.
        return Err(found);
    }
    let mut checks = Checks { found, host, folder, watched: vec![path.to_owned()] };
    let (node, shards) = checks.node(&file);
    let (domains, store, clock) = checks.domains(&file.domains);
    let names: Vec<String> = domains.iter().map(|it| it.name.clone()).collect();
    let admin = checks.admin(&file, &node.state);
    let (listeners, addresses) =
        checks.listens(&file.listens, file.admin.http.as_ref(), admin.http);
    let policy = checks.policy(&file.federation, &file.peers, &file.edges, &names);
    checks.sip_peers_can_connect(&file.listens, &file.peers);
    checks.not_our_sip_name(&file.peers, &domains);
    if let Some(store) = &store {
        let listens = listeners.iter().any(|it| matches!(it.party, Party::Sip(_)));
        checks.sip_names(&file.domains, &domains, store, &policy, listens);
    }
    let nameserver = checks.nameserver(&file);
    let dialback_secrets = checks.dialback_secrets(&file.federation);
    let roots = checks.roots(file.ca_bundle.as_ref());
    let database = checks.database(&file, &node.state);
    checks.reachable_by_peers(&file, &policy);
    let scram_secret = secrets::scram_secret(&node.state);
    let Checks { mut found, watched, .. } = checks;
    found.sort();
    let (Some(tls), 0) = (store, found.errors()) else { return Err(found) };
    let strangers = file.node.strangers.as_ref().and_then(|it| u32::try_from(it.value?).ok());
    let settings = Settings {
        version: 1,
        shards,
        listeners,
        own_addresses: addresses.clone(),
        domains,
        tls: Arc::new(tls),
        policy: Arc::new(policy),
        clients: file.jabber_clients.map_or_else(Clients::default, |it| {
            Clients::new(it.into_iter().map(|it| it.value).collect())
        }),
        dialback_secrets,
        strangers_per_address: strangers.unwrap_or(STRANGERS_PER_ADDRESS),
        scram_secret,
        scram_iterations: file
            .scram_iterations
            .and_then(|it| u32::try_from(it.value?).ok())
            .unwrap_or(SCRAM_ITERATIONS),
    };
    Ok(Loaded {
        settings: Arc::new(settings),
        node,
        addresses,
        nameserver,
        store: database,
        admin,
        secret_is_drawn: file.federation.dialback_secrets.is_none()
            && file.federation.dialback_secret_file.is_none(),
        log_level: file.log_level.map_or("info", |it| it.value),
        roots: Arc::new(roots),
        clock,
        watched,
        warnings: found,
    })
}

impl Checks<'_> {
    /// A path of the file, from its folder; `.` goes, so that it reads well in logs.
    fn path(&self, written: &str) -> PathBuf {
        self.folder.join(written).components().collect()
    }

    fn node(&mut self, file: &File) -> (Node, u16) {
        let written = &file.node;
        let shards = match &written.shards {
            Some(At { value: Some(number), span }) => {
                let number = u16::try_from(*number).unwrap_or(1);
                if number > self.host.cores {
                    let what = format!("{number} shards on {} cores", self.host.cores);
                    self.found.push(
                        Finding::warning("C0403", span.clone(), what)
                            .mark("more than there are cores")
                            .why("shards that share a core wait for each other; each is made to have one alone")
                            .mend("shards = \"auto\""),
                    );
                }
                number
            }
            _ => self.host.cores,
        };
        let state = self.path(written.state.as_ref().map_or("/var/lib/tandem", |it| &it.value));
        if let Some(at) = &written.state
            && state.exists()
            && !state.is_dir()
        {
            let what = format!("{} is not a folder", state.display());
            self.found.push(Finding::error("C0308", at.span.clone(), what));
        }
        let node = Node {
            name: written.name.as_ref().map_or_else(|| "tandem".to_owned(), |it| it.value.clone()),
            pump: written.pump.as_ref().map_or(Pump::Auto, |it| it.value),
            spin: written.spin.as_ref().map_or(Duration::ZERO, |it| it.value),
            state,
        };
        (node, shards)
    }

    fn admin(&mut self, file: &File, state: &Path) -> Admin {
        let http = file.admin.http.as_ref().and_then(|at| {
            let address = self.socket_address(at, 5280)?;
            if !address.ip().is_loopback() {
                let what = format!("the admin port would be open to others on {address}");
                self.found.push(
                    Finding::error("C0209", at.span.clone(), what)
                        .mark("not a loopback address")
                        .why("it speaks plain HTTP and shows the node's inside to whoever asks")
                        .mend(format!(
                            "http = \"127.0.0.1:{}\", and a TLS proxy in front for those outside",
                            address.port()
                        )),
                );
            }
            Some(address)
        });
        let socket = match &file.admin.socket {
            Some(at) => {
                let path = self.path(&at.value);
                // sockaddr_un has room for so many octets, and a zero behind them.
                if path.as_os_str().len() > SOCKET_PATH_OCTETS {
                    let what =
                        format!("the path of the socket has more than {SOCKET_PATH_OCTETS} octets");
                    let finding = Finding::error("C0109", at.span.clone(), what);
                    self.found
                        .push(finding.why("the kernel has no room for more in a socket's address"));
                }
                path
            }
            None => state.join("ctl.sock"),
        };
        Admin { http, socket }
    }

    fn database(&mut self, file: &File, state: &Path) -> PathBuf {
        let Some(at) = &file.store.path else { return state.join("tandem.db") };
        let path = self.path(&at.value);
        let folder = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
        if !folder.as_os_str().is_empty() && folder != state && !folder.is_dir() {
            let what = format!("the folder of the database does not exist: {}", folder.display());
            let mend = format!("mkdir -p {}", folder.display());
            self.found.push(Finding::error("C0308", at.span.clone(), what).mend(mend));
        }
        path
    }

    fn nameserver(&mut self, file: &File) -> Option<SocketAddr> {
        let at = file.federation.nameserver.as_ref()?;
        let text = at.value.as_str();
        let address =
            text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, 53)));
        if address.is_none() {
            let what = format!("\"{}\" is not the address of a name server", printable(text));
            self.found.push(
                Finding::error("C0108", at.span.clone(), what)
                    .mark("expected \"ip\" or \"ip:port\"")
                    .why("it is asked to find names, so it can't be given by a name itself")
                    .mend("nameserver = \"192.0.2.53\"; without the key the system's are asked"),
            );
        }
        address
    }

    /// An `ip:port`; says how to mend what people write instead.
    fn socket_address(&mut self, at: &At<String>, port: u16) -> Option<SocketAddr> {
        let text = at.value.as_str();
        if let Ok(address) = text.parse() {
            return Some(address);
        }
        let what = format!("\"{}\" is not an address and port", printable(text));
        let finding = Finding::error("C0108", at.span.clone(), what);
        let host = text.rsplit_once(':').map_or(text, |it| it.0);
        let written_port =
            text.rsplit(':').next().and_then(|it| it.parse::<u16>().ok()).unwrap_or(port);
        let finding = if let Ok(ip) = text.parse::<IpAddr>() {
            finding.mark("the port is missing").mend(format!("\"{}\"", SocketAddr::new(ip, port)))
        } else if host.is_empty() || host == "*" || text.parse::<u16>().is_ok() {
            let mend = format!(
                "\"0.0.0.0:{written_port}\" and \"[::]:{written_port}\" are all addresses of the host"
            );
            finding.mark("the address is missing").mend(mend)
        } else if host == "localhost" {
            finding.mark("a name, not an address").mend(format!("\"127.0.0.1:{written_port}\""))
        } else {
            finding
                .mark("expected \"ip:port\"")
                .why("names are not looked up here")
                .mend(format!("\"192.0.2.1:{port}\" or \"[2001:db8::1]:{port}\""))
        };
        self.found.push(finding);
        None
    }
}

/// RFC 7677, 4 asks for 4,096 at least; this is what servers in service use.
const SCRAM_ITERATIONS: u32 = 10_000;
/// Linux: `sun_path` without the final zero.
const SOCKET_PATH_OCTETS: usize = 107;
