//! Notices a producer that delivers nothing although it has records to deliver. Pure.
//!
//! A client can lose track of a partition's leader for good while its broker is there: librdkafka
//! drops an update that comes while it still acts on the one before
//! (<https://github.com/confluentinc/librdkafka/pull/5593>), and one by which the leader is away
//! (<https://github.com/confluentinc/librdkafka/issues/5430>). Nothing tells of it, and records
//! without a time-out wait for ever.

use std::time::{Duration, Instant};

/// How long nothing may be acknowledged. Longer than librdkafka by default waits for one request
/// (`socket.timeout.ms`), and than a group by default keeps a member that it does not hear of: where the
/// broker is away, the worker is no member any more by then.
pub(super) const LIMIT: Duration = Duration::from_secs(70);

/// Since when nothing was acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stall(Option<Instant>);

impl Stall {
    /// Notes whether acknowledgements came at `now` and whether records still wait for theirs.
    /// Gives whether they have waited for [`LIMIT`] while the broker was there, which is asked for
    /// only then: without it they wait on.
    pub(super) fn after(
        &mut self,
        acknowledged: bool,
        waiting: bool,
        now: Instant,
        broker_is_there: impl FnOnce() -> bool,
    ) -> bool {
        if acknowledged || !waiting {
            self.0 = None;
        }
        if !waiting {
            return false;
        }
        let since = *self.0.get_or_insert(now);
        if now.duration_since(since) < LIMIT {
            return false;
        }
        let stalled = broker_is_there();
        if !stalled {
            self.0 = Some(now);
        }
        stalled
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_acknowledged_for_long_has_stalled() {
        let start = Instant::now();
        let mut stall = Stall::default();
        assert!(!stall.after(false, true, start, || panic!("asked too soon")));
        let soon = start + LIMIT.mul_f64(0.99);
        assert!(!stall.after(false, true, soon, || panic!("asked too soon")));
        assert!(stall.after(false, true, start + LIMIT, || true));
    }

    #[test]
    fn without_a_broker_the_wait_begins_anew() {
        let start = Instant::now();
        let mut stall = Stall::default();
        stall.after(false, true, start, || true);
        assert!(!stall.after(false, true, start + LIMIT, || false));
        assert!(!stall.after(false, true, start + LIMIT.mul_f64(1.99), || true));
        assert!(stall.after(false, true, start + LIMIT * 2, || true));
    }

    proptest! {
        /// It says so exactly if all looks within the limit saw records that waited, and none of
        /// them an acknowledgement.
        #[test]
        fn only_an_unbroken_wait_is_a_stall(
            looks in prop::collection::vec((0_u64..40, any::<bool>(), any::<bool>()), 1..60),
        ) {
            let mut now = Instant::now();
            let mut stall = Stall::default();
            let mut since = None;
            for (seconds, acknowledged, waiting) in looks {
                now += Duration::from_secs(seconds);
                since = match (waiting, acknowledged, since) {
                    (false, ..) => None,
                    (true, false, Some(since)) => Some(since),
                    (true, ..) => Some(now),
                };
                let expected = since.is_some_and(|since| now - since >= LIMIT);
                prop_assert_eq!(stall.after(acknowledged, waiting, now, || true), expected);
            }
        }
    }
}
