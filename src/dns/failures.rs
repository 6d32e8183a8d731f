//! Which targets failed lately, so that they are tried last.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::limits::DNS_FAILURES_MAX;
use crate::time::Moment;

/// Targets that failed lately, of all domains. A target that is remembered is tried after the others, never
/// left out: a memory must not be what keeps a domain unreachable.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    until: BTreeMap<(IpAddr, u16), Moment>,
}

impl Failures {
    /// Remembers that the target failed. Full: what would be forgotten first goes.
    pub fn note(&mut self, address: IpAddr, port: u16, now: Moment) {
        if self.until.len() >= DNS_FAILURES_MAX && !self.until.contains_key(&(address, port)) {
            self.until.retain(|_, until| *until > now);
            if self.until.len() >= DNS_FAILURES_MAX
                && let Some(first) = self.until.iter().min_by_key(|it| it.1).map(|it| *it.0)
            {
                self.until.remove(&first);
            }
        }
        self.until.insert((address, port), now + REMEMBERED);
    }

    /// Forgets a target: it was reached.
    pub fn forget(&mut self, address: IpAddr, port: u16) {
        self.until.remove(&(address, port));
    }

    /// Whether the target failed lately.
    pub fn has(&self, address: IpAddr, port: u16, now: Moment) -> bool {
        self.until.get(&(address, port)).is_some_and(|until| *until > now)
    }

    /// How many are remembered, stale ones included.
    pub fn len(&self) -> usize {
        self.until.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.until.is_empty()
    }
}

/// As long as the longest back-off of a peer, so that each round of tries begins with what is not known bad.
const REMEMBERED: Duration = Duration::from_secs(60);
