//! Figures of repeated runs: never one number.

/// Resamples of a bootstrap.
const RESAMPLES: usize = 2_000;

/// Median, bounds, and the interval that holds 95 % of the medians of resamples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |n: usize| values.get(n).copied().unwrap_or(0.0);
    let half = values.len() / 2;
    if values.len().is_multiple_of(2) {
        f64::midpoint(at(half.saturating_sub(1)), at(half))
    } else {
        at(half)
    }
}

impl Spread {
    /// Of values; `None` of none. The same values give the same interval.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let mut sorted = values.to_vec();
        let middle = median(&mut sorted);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) % values.len() as u64) as usize
        };
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                let mut sample: Vec<f64> = (0..values.len()).map(|_| sorted[draw()]).collect();
                median(&mut sample)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        Some(Self {
            median: middle,
            least: sorted[0],
            most: sorted[sorted.len() - 1],
            low: medians[RESAMPLES / 40],
            high: medians[RESAMPLES - 1 - RESAMPLES / 40],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_lies_within_the_bounds_around_the_median() {
        let it = Spread::of(&[5.0, 1.0, 2.0, 4.0, 3.0]).unwrap();
        assert_eq!((it.median, it.least, it.most), (3.0, 1.0, 5.0));
        assert!(it.low >= 1.0 && it.low < 3.0 && it.high > 3.0 && it.high <= 5.0, "{it:?}");
        let same = Spread::of(&[7.0]).unwrap();
        assert_eq!((same.low, same.high), (7.0, 7.0));
        assert_eq!(Spread::of(&[]), None);
        assert!((Spread::of(&[1.0, 2.0]).unwrap().median - 1.5).abs() < 1e-9);
    }
}
