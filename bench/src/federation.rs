//! The part of what is measured that is between servers: an authority of the run's own, Tandem's
//! settings, and where the generator plays the far servers.
//!
//! Both sides of a message are under TLS 1.3, so the relay is that of V3. Does **not** say anything
//! about dialback: the played domains have certificates that Tandem trusts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tandem_loadgen::played::certificates::Authority;

use crate::servers::{DOMAIN, Running, free_port, text};

/// The played domains' names; not below Tandem's own.
const PLAYED: &str = "d%05d.far.example";
/// Octets of a stanza as its sender says it, as in V1.
const STANZA_OCTETS: usize = 300;

/// What of a stage is between servers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Federation {
    /// Whether messages go from clients to peers.
    pub back: bool,
    /// Clients who talk to peers.
    pub clients: usize,
    /// Peers, round and round over the domains.
    pub peers: usize,
    /// Played domains, each with a stream of its own each way that is used.
    pub domains: usize,
}

/// Where the servers of a run meet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    /// Where Tandem takes streams of other servers.
    servers: SocketAddr,
    /// Where the played ones listen.
    played: SocketAddr,
    /// Where their names are answered for.
    names: SocketAddr,
}

impl Places {
    pub(crate) fn free() -> Result<Self, String> {
        let free = || free_port("127.0.0.1");
        Ok(Self { servers: free()?, played: free()?, names: free()? })
    }

    /// What Tandem is told beside its domain, and its certificate with the key.
    pub(crate) fn tandem(&self, run: &Path) -> Result<(String, [PathBuf; 2]), String> {
        let Self { servers, names, .. } = self;
        let authority = authority(run);
        // The generator issues the others' itself; the authority is kept for it.
        Authority::open(Some(&authority))?.certificate(DOMAIN)?;
        let told = format!(
            "[[listen]]\naddress = \"{servers}\"\nparty = \"peer\"\nsecurity = \"starttls\"\n\
             [federation]\ndefault = \"allow\"\nnameserver = \"{names}\"\nprivate_addresses = true\n\
             [trust]\nca_bundle = \"{}\"\n",
            text(&authority.join("ca.crt"))
        );
        let own = ["crt", "key"].map(|kind| authority.join(format!("{DOMAIN}.{kind}")));
        Ok((told, own))
    }
}

/// The authority of a run and what it issued.
fn authority(run: &Path) -> PathBuf {
    run.join("authority")
}

impl Federation {
    /// Pairs of a client and a peer whose domain is its own.
    pub(crate) fn pairs(back: bool, pairs: usize) -> Self {
        Self { back, clients: pairs, peers: pairs, domains: pairs }
    }

    /// Tells the generator where all is and who talks to whom.
    pub(crate) fn place(self, on: &mut Command, at: &Running, run: &Path) {
        let Places { servers, played, names } = at.places;
        on.args(["--core", "1", "--domain", DOMAIN, "--client-tls", "direct"]);
        for (key, value) in [
            ("--target", servers),
            ("--client-target", at.tls),
            ("--listen", played),
            ("--listen-dns", names),
        ] {
            on.args([key, &value.to_string()]);
        }
        for (key, value) in [
            ("--clients", self.clients),
            ("--peers", self.peers),
            ("--domains", self.domains),
            ("--stanza", STANZA_OCTETS),
        ] {
            on.args([key, &value.to_string()]);
        }
        on.args(["--played", PLAYED, "--tls", "starttls"]);
        on.args(["--way", if self.back { "out" } else { "in" }]);
        on.arg("--certificates").arg(authority(run));
    }
}
