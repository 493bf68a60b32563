//! What a worker says of itself; read by the health endpoints.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
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
    /// Whether the group has taken the worker in.
    member: AtomicBool,
    /// The client call that the worker is inside of.
    call: Mutex<Option<Call>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    gauge: WorkerGauge,
    detail: Option<String>,
}

/// A client call that may take its time, but not for ever.
#[derive(Debug, Clone, Copy)]
struct Call {
    name: &'static str,
    start: Instant,
    limit: Duration,
}

/// Ends with the call.
#[derive(Debug)]
pub(super) struct Watch<'h>(&'h WorkerHealth);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.set_call(None);
        self.0.beat();
    }
}

/// What one worker was doing a moment ago.
#[derive(Debug, Clone)]
pub(super) struct WorkerReport {
    pub(super) state: WorkerState,
    pub(super) detail: Option<String>,
    pub(super) silent_for: Duration,
    pub(super) partitions: usize,
    pub(super) member: bool,
    /// The call that takes longer than it should, and by how much.
    pub(super) overdue: Option<(&'static str, Duration)>,
}

impl WorkerHealth {
    pub(super) fn new(gauge: WorkerGauge) -> Self {
        Self {
            start: Instant::now(),
            beat: AtomicU64::new(0),
            partitions: AtomicUsize::new(0),
            member: AtomicBool::new(false),
            call: Mutex::new(None),
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

    /// Stands beside a client call that should be over after `limit`.
    pub(super) fn watch(&self, name: &'static str, limit: Duration) -> Watch<'_> {
        self.beat();
        let start = Instant::now();
        self.set_call(Some(Call { name, start, limit }));
        Watch(self)
    }

    fn set_call(&self, call: Option<Call>) {
        *self.call.lock().unwrap_or_else(PoisonError::into_inner) = call;
    }

    pub(super) fn set_member(&self, member: bool) {
        self.member.store(member, Ordering::Relaxed);
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
        let call = *self.call.lock().unwrap_or_else(PoisonError::into_inner);
        let overdue = call.and_then(|call| {
            let over = call.start.elapsed().checked_sub(call.limit)?;
            Some((call.name, over))
        });
        let beat = Duration::from_millis(self.beat.load(Ordering::Relaxed));
        WorkerReport {
            state: current.gauge.state(),
            detail: current.detail.clone(),
            silent_for: self.start.elapsed().saturating_sub(beat),
            partitions: self.partitions.load(Ordering::Relaxed),
            member: self.member.load(Ordering::Relaxed),
            overdue,
        }
    }
}
