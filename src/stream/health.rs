//! What a worker says of itself; read by the health endpoints.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::telemetry::{WorkerGauge, WorkerState};

/// One worker's state. The worker writes, the endpoints read.
#[derive(Debug)]
pub(super) struct WorkerHealth {
    start: Instant,
    /// Milliseconds since `start` of the last turn of the worker's loop.
    beat: AtomicU64,
    partitions: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    gauge: WorkerGauge,
    detail: Option<String>,
}

/// What one worker was doing a moment ago.
#[derive(Debug, Clone)]
pub(super) struct WorkerReport {
    pub(super) state: WorkerState,
    pub(super) detail: Option<String>,
    pub(super) silent_for: Duration,
    pub(super) partitions: usize,
}

impl WorkerHealth {
    pub(super) fn new(gauge: WorkerGauge) -> Self {
        Self {
            start: Instant::now(),
            beat: AtomicU64::new(0),
            partitions: AtomicUsize::new(0),
            state: Mutex::new(State {
                gauge,
                detail: None,
            }),
        }
    }

    /// The worker's loop has turned.
    pub(super) fn beat(&self) {
        self.beat
            .store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    pub(super) fn set_partitions(&self, count: usize) {
        self.partitions.store(count, Ordering::Relaxed);
    }

    /// The worker is in `state` now, `detail` says why where that is not plain.
    pub(super) fn set(&self, state: WorkerState, detail: Option<String>) {
        let mut current = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        current.gauge.set(state);
        current.detail = detail;
        drop(current);
        self.beat();
    }

    pub(super) fn report(&self) -> WorkerReport {
        let current = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let beat = Duration::from_millis(self.beat.load(Ordering::Relaxed));
        WorkerReport {
            state: current.gauge.state(),
            detail: current.detail.clone(),
            silent_for: self.start.elapsed().saturating_sub(beat),
            partitions: self.partitions.load(Ordering::Relaxed),
        }
    }
}
