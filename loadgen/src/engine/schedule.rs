//! When events are to happen: absolute times that exist before the run.
//!
//! The rate is a straight line within each stage, so the time of the `n`th event is the root of a
//! quadratic. Poisson arrivals are the same with steps of random length. Each thread has the part
//! of the rate that its pairs have of all. Does **not** look at a clock.

use crate::scenario::model::{Phase, Stage};

/// A stage with its place in time and the rate at both of its ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Piece {
    /// From when on, in nanoseconds since the first stage began.
    pub from_ns: u64,
    /// Until when.
    pub to_ns: u64,
    /// Events a second at the begin.
    pub from_per_s: f64,
    /// And at the end.
    pub to_per_s: f64,
}

impl Piece {
    fn seconds(&self) -> f64 {
        (self.to_ns - self.from_ns) as f64 / 1e9
    }

    /// How many events it has.
    pub fn events(&self) -> f64 {
        (self.from_per_s + self.to_per_s) / 2.0 * self.seconds()
    }

    /// How many there are until a time within it.
    fn events_until(&self, at_ns: u64) -> f64 {
        let x = at_ns.clamp(self.from_ns, self.to_ns).saturating_sub(self.from_ns) as f64 / 1e9;
        let slope = (self.to_per_s - self.from_per_s) / self.seconds().max(1e-9);
        self.from_per_s * x + slope * x * x / 2.0
    }

    /// When the `n`th happens.
    fn time_of(&self, n: f64) -> u64 {
        let slope = (self.to_per_s - self.from_per_s) / self.seconds().max(1e-9);
        let x = if slope.abs() < 1e-9 {
            n / self.from_per_s
        } else {
            // Of `slope/2 x² + from x - n`; in the form that loses no digits for small slopes.
            let root = (self.from_per_s * self.from_per_s + 2.0 * slope * n).max(0.0).sqrt();
            2.0 * n / (self.from_per_s + root)
        };
        self.from_ns + (x * 1e9) as u64
    }
}

/// The stages' places in time, with all of the rate.
pub fn pieces(stages: &[Stage]) -> Vec<Piece> {
    let (mut at_ns, mut rate) = (0_u64, 0.0);
    let piece = |stage: &Stage| {
        let own = if stage.phase == Phase::Pause { 0.0 } else { stage.rate_per_s.max(0.0) };
        let from_per_s = if stage.phase == Phase::Ramp { rate } else { own };
        let from_ns = at_ns;
        at_ns = at_ns.saturating_add(stage.for_ns);
        rate = own;
        Piece { from_ns, to_ns: at_ns, from_per_s, to_per_s: own }
    };
    stages.iter().map(piece).collect()
}

/// How many events are asked for between two times.
pub fn asked(pieces: &[Piece], from_ns: u64, to_ns: u64) -> f64 {
    pieces.iter().map(|p| p.events_until(to_ns) - p.events_until(from_ns)).sum()
}

/// Events in the order of their times.
#[derive(Clone, Debug)]
pub struct Schedule {
    pieces: Vec<Piece>,
    at: usize,
    /// Events of the pieces before `at`.
    before: f64,
    /// The next one, counted from the first.
    target: f64,
    lot: Option<Lot>,
    next_ns: Option<u64>,
}

impl Schedule {
    /// A `part` of the rate of all pieces; `phase`, between 0 and 1, keeps threads apart.
    pub fn new(pieces: &[Piece], part: f64, phase: f64, poisson: Option<u64>) -> Self {
        let pieces = pieces
            .iter()
            .map(|p| Piece { from_per_s: p.from_per_s * part, to_per_s: p.to_per_s * part, ..*p })
            .collect();
        let mut lot = poisson.map(Lot::new);
        let target = lot.as_mut().map_or(phase, Lot::exponential);
        let mut it = Self { pieces, at: 0, before: 0.0, target, lot, next_ns: None };
        it.find();
        it
    }

    /// The time of the next event; `None`: there are no more.
    pub fn next_ns(&self) -> Option<u64> {
        self.next_ns
    }

    /// Passes on to the one after.
    pub fn advance(&mut self) {
        self.target += self.lot.as_mut().map_or(1.0, Lot::exponential);
        self.find();
    }

    fn find(&mut self) {
        while let Some(piece) = self.pieces.get(self.at) {
            let events = piece.events();
            let n = self.target - self.before;
            if n < events {
                self.next_ns = Some(piece.time_of(n));
                return;
            }
            self.before += events;
            self.at += 1;
        }
        self.next_ns = None;
    }
}

/// Random numbers that are the same for a seed everywhere.
#[derive(Clone, Debug)]
pub struct Lot(u64);

impl Lot {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Splitmix64.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Above 0, up to 1.
    pub fn unit(&mut self) -> f64 {
        ((self.draw() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self) -> f64 {
        -self.unit().ln()
    }

    /// Mean 0, deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(phase: Phase, rate_per_s: f64, seconds: u64) -> Stage {
        Stage { phase, rate_per_s, for_ns: seconds * 1_000_000_000 }
    }

    fn times(mut schedule: Schedule) -> Vec<u64> {
        let mut out = Vec::new();
        while let Some(at) = schedule.next_ns() {
            out.push(at);
            schedule.advance();
        }
        out
    }

    #[test]
    fn a_hold_is_even_and_a_ramp_grows_into_it() {
        let stages = [
            stage(Phase::Ramp, 1000.0, 2),
            stage(Phase::Pause, 7.0, 1),
            stage(Phase::Hold, 1000.0, 1),
        ];
        let pieces = pieces(&stages);
        assert_eq!(asked(&pieces, 0, 4_000_000_000).round() as u64, 2000);
        assert_eq!(asked(&pieces, 0, 1_000_000_000).round() as u64, 250);
        let times = times(Schedule::new(&pieces, 1.0, 0.5, None));
        assert_eq!(times.len(), 2000);
        assert!(times.windows(2).all(|two| two[0] <= two[1]));
        // A quarter of a ramp's events lie in its first half.
        assert_eq!(times.iter().filter(|&&t| t < 1_000_000_000).count(), 250);
        assert_eq!(times.iter().filter(|&&t| t < 3_000_000_000).count(), 1000);
        assert_eq!(times[1000], 3_000_500_000);
    }

    #[test]
    fn poisson_keeps_the_rate_and_repeats_by_seed() {
        let pieces = pieces(&[stage(Phase::Hold, 10_000.0, 5)]);
        let one = times(Schedule::new(&pieces, 0.5, 0.0, Some(7)));
        assert_eq!(one, times(Schedule::new(&pieces, 0.5, 0.0, Some(7))));
        assert!((24_000..26_000).contains(&one.len()), "{}", one.len());
        let gaps: Vec<f64> = one.windows(2).map(|two| (two[1] - two[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation =
            (gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!(
            (0.95..1.05).contains(&(deviation / mean)),
            "of an exponential: {deviation} {mean}"
        );
    }
}
