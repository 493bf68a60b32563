//! How many events are due. Pure: takes the time, gives a number.

use std::time::Duration;

/// What is not sent within this time because the feed had to wait is not made up for: it would
/// come as one burst.
const MAX_BACKLOG: Duration = Duration::from_millis(100);

/// A steady rate.
#[derive(Debug)]
pub(super) struct Pace {
    rate: u32,
    /// When the schedule began; moves on when it cannot be kept.
    origin: Duration,
    /// Events sent since `origin`.
    sent: u64,
}

impl Pace {
    /// `rate` events a second from `start` on.
    pub(super) fn new(rate: u32, start: Duration) -> Self {
        Self {
            rate,
            origin: start,
            sent: 0,
        }
    }

    /// Events that are due at `now`.
    pub(super) fn due(&mut self, now: Duration) -> u64 {
        let scheduled = self.scheduled(now);
        // One more than fits: a part of an event may have been left over before.
        let most = self.scheduled(self.origin + MAX_BACKLOG) + 1;
        if scheduled.saturating_sub(self.sent) > most {
            self.origin = now.saturating_sub(MAX_BACKLOG);
            self.sent = 0;
            return self.scheduled(now);
        }
        scheduled.saturating_sub(self.sent)
    }

    /// One event was sent.
    pub(super) fn sent(&mut self) {
        self.sent += 1;
    }

    fn scheduled(&self, now: Duration) -> u64 {
        let nanos = now.saturating_sub(self.origin).as_nanos();
        (nanos * u128::from(self.rate) / 1_000_000_000) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_feed_that_had_to_wait_does_not_burst() {
        let mut pace = Pace::new(1000, Duration::ZERO);
        assert_eq!(pace.due(Duration::from_secs(5)), 100);
        assert_eq!(pace.due(Duration::from_secs(5)), 100);
    }

    proptest! {
        /// Looked at often enough, what is due adds up to the rate.
        #[test]
        fn the_rate_is_kept(
            rate in 1..1_000_000_u32,
            steps in prop::collection::vec(0..90_u64, 1..100),
        ) {
            let start = Duration::from_secs(3);
            let mut pace = Pace::new(rate, start);
            let (mut now, mut sent) = (start, 0);
            for step in steps {
                now += Duration::from_millis(step);
                for _ in 0..pace.due(now) {
                    pace.sent();
                    sent += 1;
                }
            }
            let wanted = (now.checked_sub(start).unwrap().as_nanos() * u128::from(rate)
                / 1_000_000_000) as u64;
            prop_assert_eq!(sent, wanted);
        }
    }
}
