//! What all workers of a stream share, the order to stop included.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::kafka::{ClientMemory, KafkaSettings};
use crate::telemetry::Metrics;

/// What all workers of a stream share.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) kafka: KafkaSettings,
    pub(super) memory: ClientMemory,
    pub(super) metrics: Arc<Metrics>,
    /// How long a revocation may wait for acknowledgements.
    pub(super) revoke_timeout: Duration,
    stop: AtomicBool,
    stop_by: Mutex<Option<Instant>>,
}

impl Parts {
    pub(super) fn new(kafka: KafkaSettings, memory: ClientMemory, metrics: Arc<Metrics>) -> Self {
        Self {
            kafka,
            memory,
            metrics,
            revoke_timeout: Duration::from_secs(10),
            stop: AtomicBool::new(false),
            stop_by: Mutex::new(None),
        }
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

    /// Whether the time for leaving is over.
    pub(super) fn leave_overdue(&self, now: Instant) -> bool {
        self.stopping() && self.stop_by().is_some_and(|deadline| now >= deadline)
    }
}
