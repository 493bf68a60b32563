//! How many rows a scoring call may take: bounded by the measured cost per row, so that a slow
//! model never keeps a worker from polling. Pure.

use std::time::Duration;

/// Weight of a new measurement in the moving average.
const WEIGHT: f64 = 0.2;

/// The most rows of a batch before anything is known of the model.
const FIRST_ROWS: usize = 32;

/// Moving average of the cost of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Pace {
    seconds_per_row: Option<f64>,
}

impl Pace {
    /// Notes that `rows` rows took `time`.
    pub(super) fn observe(&mut self, rows: usize, time: Duration) {
        let seconds = time.as_secs_f64() / rows.max(1) as f64;
        self.seconds_per_row = Some(match self.seconds_per_row {
            // A slower row counts at once: waiting for the average could cost an eviction.
            Some(known) if seconds < known => known + WEIGHT * (seconds - known),
            _ => seconds,
        });
    }

    /// The most rows of a batch: `limit`, or fewer where they would take longer than `time`.
    pub(super) fn rows(&self, limit: usize, time: Duration) -> usize {
        match self.seconds_per_row {
            Some(seconds) if seconds > 0.0 => {
                let rows = time.as_secs_f64() / seconds;
                (rows as usize).clamp(1, limit.max(1))
            }
            _ => limit.clamp(1, FIRST_ROWS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_model_gets_small_batches_and_recovers_slowly() {
        let mut pace = Pace::default();
        let second = Duration::from_secs(1);
        assert_eq!(pace.rows(256, second), 32);
        pace.observe(10, second);
        assert_eq!(pace.rows(256, second), 10);
        pace.observe(1, Duration::from_secs(5));
        assert_eq!(pace.rows(256, second), 1);
        for _ in 0..100 {
            pace.observe(256, Duration::from_millis(1));
        }
        assert_eq!(pace.rows(256, second), 256);
    }
}
