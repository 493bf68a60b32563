//! What workers give up for a load that does not get on: it runs on what they leave of the cores,
//! and workers that catch up with a backlog leave nothing. Pure.

use std::time::Duration;

/// The share of its work that a worker rests, as a divisor.
const SHARE: u32 = 10;
/// Work between two rests: they are long enough then for the other thread to get on.
const AT_LEAST: Duration = Duration::from_millis(20);

/// Longest rest: a batch that had to wait for the broker is no work.
const AT_MOST: Duration = Duration::from_millis(100);

/// How long a worker has worked without a rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Room {
    worked: Duration,
}

impl Room {
    /// Notes work; gives how long to rest now.
    pub(super) fn after(&mut self, worked: Duration) -> Option<Duration> {
        self.worked += worked;
        if self.worked < AT_LEAST {
            return None;
        }
        Some((std::mem::take(&mut self.worked) / SHARE).min(AT_MOST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_work_is_rest() {
        for step in [1, 7, 20, 300] {
            let (mut room, mut rested) = (Room::default(), Duration::ZERO);
            let worked = Duration::from_millis(step);
            for _ in 0..8400 / step {
                let rest = room.after(worked).unwrap_or_default();
                assert!(rest.is_zero() || rest >= AT_LEAST / SHARE);
                rested += rest;
            }
            let left = room.worked / SHARE;
            assert_eq!(
                rested + left,
                Duration::from_millis(840),
                "steps of {step} ms"
            );
        }
    }

    #[test]
    fn a_batch_that_stood_still_costs_no_long_rest() {
        let mut room = Room::default();
        assert_eq!(room.after(Duration::from_mins(5)), Some(AT_MOST));
        assert_eq!(room.worked, Duration::ZERO, "and is not made up for");
    }
}
