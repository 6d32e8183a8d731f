//! One line of a way: a connection or a socket, our Via on it; and how fast a peer may be asked.
//!
//! RFC 3261, 18.1.1; RFC 3581; RFC 5923. Does **not** know what goes over it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::SIP_PACE_BURST_SHARE;
use crate::policy::Transport as Carrier;
use crate::shard::sip::transport::Place;
use crate::time::Moment;

/// A connection that may carry requests to the peer, or a socket of datagrams.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) place: Place,
    pub(super) address: SocketAddr,
    pub(super) carrier: Carrier,
    pub(super) sent_by: Arc<str>,
    /// We opened it and both sides proved themselves: RFC 5923, 5.
    pub(super) alias: bool,
    pub(super) resting_until: Moment,
}

impl Line {
    /// The value of our Via on it.
    pub(super) fn via(&self, branch: &str) -> Vec<u8> {
        let protocol = match self.carrier {
            Carrier::Tls => "TLS",
            Carrier::Tcp => "TCP",
            Carrier::Udp => "UDP",
        };
        let more = match self.carrier {
            Carrier::Tls if self.alias => ";alias",
            // RFC 3581.
            Carrier::Udp => ";rport",
            _ => "",
        };
        ["SIP/2.0/", protocol, " ", &self.sent_by, ";branch=", branch, more].concat().into_bytes()
    }
}

/// At most so many a second, spread, with a small burst: never more than the rate in any second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// When all that went so far is paid for.
    paid: Moment,
}

impl Pace {
    /// When the next may go; `rate` of 0: now.
    pub(super) fn next(self, rate: u32, now: Moment) -> Moment {
        if rate == 0 {
            return now;
        }
        let burst = Self::pause(rate) * (rate / SIP_PACE_BURST_SHARE).max(1).saturating_sub(1);
        let ahead = self.paid.since(now);
        if ahead <= burst { now } else { now + (ahead - burst) }
    }

    pub(super) fn pay(&mut self, rate: u32, now: Moment) {
        if rate > 0 {
            self.paid = self.paid.max(now) + Self::pause(rate);
        }
    }

    /// The share of the burst is taken off, so that both together are the rate.
    fn pause(rate: u32) -> Duration {
        Duration::from_secs(1) / (rate - rate / SIP_PACE_BURST_SHARE).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many go in each second, if as many as may do.
    fn counts(rate: u32, seconds: u64) -> Vec<u32> {
        let mut pace = Pace::default();
        let start = Moment(5_000_000_000);
        let mut sent = Vec::new();
        for tick in 0..seconds * 100 {
            let now = start + Duration::from_millis(10 * tick);
            while pace.next(rate, now) <= now && sent.len() < 100_000 {
                pace.pay(rate, now);
                sent.push(tick);
            }
        }
        // In any second, wherever it begins.
        let windows = (0..(seconds - 1) * 100).step_by(5);
        windows
            .map(|from| sent.iter().filter(|it| (from..from + 100).contains(*it)).count() as u32)
            .collect()
    }

    #[test]
    fn no_second_holds_more_than_the_rate_and_nothing_is_wasted() {
        for rate in [1, 2, 5, 20, 100, 500] {
            let counts = counts(rate, 6);
            let most = *counts.iter().max().unwrap();
            assert!(most <= rate.max(2), "{rate}: {counts:?}");
            assert!(counts.iter().all(|it| *it >= rate * 2 / 3), "{rate}: {counts:?}");
        }
    }

    #[test]
    fn unpaced_is_unpaced() {
        let mut pace = Pace::default();
        let now = Moment(1);
        for _ in 0..1_000 {
            assert_eq!(pace.next(0, now), now);
            pace.pay(0, now);
        }
    }
}
