//! The highest rate that stays within an objective: doubles until it does not, then bisects, and
//! wants the answer confirmed.
//!
//! Does **not** run anything: it asks for a probe at a rate.

/// What one step gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Events a second that were asked for.
    pub rate: f64,
    /// Within the objective, and no backlog grew.
    pub good: bool,
    /// The generator was the limit: nothing above can be known.
    pub generator_limited: bool,
    /// Latency at p50, p99, p99.9 in nanoseconds.
    pub latency_ns: [u64; 3],
    /// CPU of the server for each message.
    pub server_cpu_ns: Option<f64>,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The highest confirmed rate; `None`: not even the first was good.
    pub rate: Option<f64>,
    /// The generator was the limit before the server was.
    pub generator_limited: bool,
    /// Every step, in the order of the search.
    pub curve: Vec<Probe>,
}

/// How a search goes.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// Where it begins.
    pub from: f64,
    /// Where it ends at the latest.
    pub most: f64,
    /// Ends when the bounds are so near one another, as a part of the lower.
    pub near: f64,
    /// How often the answer must hold.
    pub confirm: usize,
}

impl Search {
    /// Searches; a fault of a probe ends it.
    pub fn run<E>(&self, mut probe: impl FnMut(f64) -> Result<Probe, E>) -> Result<Found, E> {
        let mut curve = Vec::new();
        let mut good = None;
        let mut bad = None;
        let mut limited = false;
        let mut rate = self.from;
        let mut ask = |rate: f64, limited: &mut bool| -> Result<bool, E> {
            let it = probe(rate)?;
            *limited |= it.generator_limited;
            let fine = it.good && !it.generator_limited;
            curve.push(it);
            Ok(fine)
        };
        while bad.is_none() && rate <= self.most {
            if ask(rate, &mut limited)? {
                good = Some(rate);
                rate *= 2.0;
            } else {
                bad = Some(rate);
            }
        }
        loop {
            if let (Some(low), Some(high)) = (good, bad)
                && high - low > low * self.near
            {
                let middle = f64::midpoint(low, high);
                if ask(middle, &mut limited)? {
                    good = Some(middle)
                } else {
                    bad = Some(middle)
                }
                continue;
            }
            let Some(low) = good else { break };
            let mut held = true;
            for _ in 1..self.confirm {
                held = held && ask(low, &mut limited)?;
            }
            if held {
                break;
            }
            // It held once by luck: a little less.
            bad = Some(low);
            good = Some(low * (1.0 - self.near)).filter(|it| *it >= self.from * self.near);
        }
        Ok(Found { rate: good, generator_limited: limited, curve })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEARCH: Search = Search { from: 100.0, most: 1e6, near: 0.05, confirm: 3 };

    /// A server of one queue: its latency grows without end towards its capacity.
    fn server(capacity: f64) -> impl FnMut(f64) -> Result<Probe, ()> {
        move |rate| {
            let free = (1.0 - rate / capacity).max(1e-6);
            let p99 = (1e6 / free) as u64;
            Ok(Probe {
                rate,
                good: p99 < 20_000_000,
                generator_limited: false,
                latency_ns: [p99 / 4, p99, p99 * 2],
                server_cpu_ns: None,
            })
        }
    }

    #[test]
    fn the_knee_of_a_known_curve_is_found() {
        for capacity in [300.0, 5_000.0, 77_777.0] {
            let found = SEARCH.run(server(capacity)).unwrap();
            let knee = capacity * 0.95;
            let rate = found.rate.unwrap();
            assert!(rate <= knee && rate > knee * 0.9, "{rate} of {knee}");
            assert!(
                found.curve.iter().filter(|it| it.rate.to_bits() == rate.to_bits()).count() >= 3
            );
        }
    }

    #[test]
    fn a_generator_at_its_end_is_said() {
        let mut inner = server(1e9);
        let probe = |rate| inner(rate).map(|it| Probe { generator_limited: rate > 1_000.0, ..it });
        let found = SEARCH.run(probe).unwrap();
        assert!(found.generator_limited && found.rate.unwrap() <= 1_000.0);
    }

    #[test]
    fn luck_is_no_answer_and_nothing_good_is_none() {
        let mut calls = 0;
        let found = SEARCH.run(|rate| {
            calls += 1;
            let good = rate < 1_000.0 || calls == 5;
            server(1e9)(rate).map(|it| Probe { good, ..it })
        });
        assert!(found.unwrap().rate.unwrap() < 1_000.0);
        assert_eq!(SEARCH.run(server(10.0)).unwrap().rate, None);
    }
}
