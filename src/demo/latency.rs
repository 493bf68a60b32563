//! Times of all answers in bounded memory: buckets of less than 1 % width, from a microsecond up.
//! Pure.

use std::time::Duration;

/// Buckets for each doubling: a value is off by at most 1/256 of itself.
const STEPS: u64 = 128;
/// Doublings above the first `STEPS` microseconds: up to 150 hours.
const DOUBLINGS: u64 = 32;

/// Counts by time.
#[derive(Debug)]
pub(super) struct Latencies {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            counts: vec![0; (STEPS * (DOUBLINGS + 1)) as usize],
            total: 0,
        }
    }
}

impl Latencies {
    /// Adds one time.
    pub(super) fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let last = self.counts.len() - 1;
        if let Some(count) = self.counts.get_mut(bucket(micros).min(last)) {
            *count += 1;
            self.total += 1;
        }
    }

    /// The time that a share of `quantile` of all does not exceed, in milliseconds; `None` where
    /// there is none.
    pub(super) fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        let rank = ((self.total as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(middle(found) / 1000.0)
    }
}

/// The bucket of a time: exact below `STEPS`, then `STEPS` for each doubling.
fn bucket(micros: u64) -> usize {
    let doubling = (micros / STEPS)
        .checked_ilog2()
        .map_or(0, |log| u64::from(log) + 1);
    let position = if doubling == 0 {
        micros
    } else {
        (micros >> (doubling - 1)) - STEPS
    };
    (doubling * STEPS + position) as usize
}

/// The middle of a bucket, in microseconds.
fn middle(bucket: usize) -> f64 {
    let (doubling, position) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    if doubling == 0 {
        return position as f64;
    }
    let width = 1_u64 << (doubling - 1);
    ((STEPS + position) * width) as f64 + (width - 1) as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_has_no_quantile_and_extremes_are_kept() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile_ms(0.5), None);
        latencies.add(Duration::ZERO);
        assert_eq!(latencies.quantile_ms(0.999), Some(0.0));
        latencies.add(Duration::MAX);
        assert!(latencies.quantile_ms(1.0).unwrap() > 3.6e6);
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_times(
            mut micros in prop::collection::vec(
                prop_oneof![0..2_000_u64, 0..200_000_u64, 0..90_000_000_u64], 1..200),
            quantile in prop_oneof![Just(0.5), Just(0.99), Just(0.999), 0.0..1.0],
        ) {
            let mut latencies = Latencies::default();
            for time in &micros {
                latencies.add(Duration::from_micros(*time));
            }
            micros.sort_unstable();
            let rank = ((micros.len() as f64 * quantile).ceil() as usize).max(1);
            let exact = micros[rank - 1] as f64 / 1000.0;
            let found = latencies.quantile_ms(quantile).unwrap();
            prop_assert!((found - exact).abs() <= exact / 128.0, "{found} for {exact}");
        }
    }
}
