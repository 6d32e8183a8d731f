//! Which profile fits a host.

use crate::config::Loaded;
use crate::shard::settings::Party;
use crate::tune::host::{Host, Virtual};

/// A profile and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    pub profile: &'static str,
    pub why: String,
}

/// Goes by what the host is and, if there is a node's configuration, by who connects to it.
pub fn advise(host: &Host, node: Option<&Loaded>) -> Advice {
    let advice = |profile, why: &str| Advice { profile, why: why.to_owned() };
    if host.virtual_kind() == Virtual::Container {
        return advice("laptop", "this is a container: its host has the knobs");
    }
    if let Some(node) = node {
        let listeners = &node.settings.listeners;
        let federates = listeners.iter().any(|it| !matches!(it.party, Party::Client));
        return if federates {
            advice("edge", "the node's configuration listens for other domains")
        } else {
            advice("core", "the node's configuration listens for clients alone")
        };
    }
    if !host.processes("tandem-loadgen").is_empty() {
        return advice("loadgen", "the load generator runs here, and no node is configured");
    }
    let cores = host.cores();
    if cores <= SMALL_CORES {
        return Advice {
            profile: "laptop",
            why: format!("{cores} cores and no node's configuration: development, it seems"),
        };
    }
    advice("edge", "no node's configuration tells what it is for, and an edge lacks least")
}

/// A host of so few cores is no server of its own.
const SMALL_CORES: usize = 2;
