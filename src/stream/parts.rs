//! What all workers of a stream share, the order to stop included.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::kafka::{ClientShare, KafkaSettings};
use crate::telemetry::Metrics;

/// A client is given this long to close, however late it is.
const LEAST_CLOSE: Duration = Duration::from_millis(100);

/// What all workers of a stream share.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) kafka: KafkaSettings,
    pub(super) share: ClientShare,
    pub(super) metrics: Arc<Metrics>,
    pub(super) instance_id: String,
    /// How long a revocation may wait for acknowledgements.
    pub(super) revoke_timeout: Duration,
    stop: AtomicBool,
    stop_by: Mutex<Option<Instant>>,
    /// Why the process is to end.
    given_up: Mutex<Option<String>>,
}

impl Parts {
    pub(super) fn new(
        kafka: KafkaSettings,
        share: ClientShare,
        metrics: Arc<Metrics>,
        instance_id: String,
    ) -> Self {
        Self {
            instance_id,
            given_up: Mutex::new(None),
            kafka,
            share,
            metrics,
            revoke_timeout: Duration::from_secs(10),
            stop: AtomicBool::new(false),
            stop_by: Mutex::new(None),
        }
    }

    /// Asks for the end of the process.
    pub(super) fn give_up(&self, reason: String) {
        *self.given_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// Why the process is to end.
    pub(super) fn given_up(&self) -> Option<String> {
        let given_up = self.given_up.lock();
        given_up.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the workers to leave, by `deadline`.
    pub(super) fn stop(&self, deadline: Instant) {
        *self.stop_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(deadline);
        self.stop.store(true, Ordering::Release);
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn stop_by(&self) -> Option<Instant> {
        *self.stop_by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when a worker that leaves may wait for acknowledgements.
    pub(super) fn leave_deadline(&self) -> Instant {
        self.stop_by()
            .unwrap_or_else(|| Instant::now() + self.revoke_timeout)
    }

    /// How long a client may take to close: not much once the time to stop is nearly over.
    pub(super) fn close_timeout(&self, usual: Duration) -> Duration {
        let Some(stop_by) = self.stop_by().filter(|_| self.stopping()) else {
            return usual;
        };
        let left = stop_by.saturating_duration_since(Instant::now());
        usual.min(left.max(LEAST_CLOSE))
    }

    /// Whether the time for leaving is over.
    pub(super) fn leave_overdue(&self, now: Instant) -> bool {
        self.stopping() && self.stop_by().is_some_and(|deadline| now >= deadline)
    }
}
