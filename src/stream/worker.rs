//! A worker: waits until its model serves, joins the group, runs a session, and starts anew after
//! what can be mended.

use std::collections::VecDeque;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::StreamSettings;
use super::health::WorkerHealth;
use super::pace::Pace;
use super::partitions::Partitions;
use super::parts::Parts;
use super::session::{Active, Exit, Rebalance, Session};
use super::topics::Topics;
use crate::kafka::{Producer, Source};
use crate::serving::{Serving, ServingModel};
use crate::telemetry::{StreamMetrics, WorkerState};

/// How long a waiting worker sleeps at most; also how soon it notices a shutdown.
const WAIT: Duration = Duration::from_millis(100);
/// First and longest pause before a session is started anew.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A session that ran this long starts the pauses anew.
const HEALTHY_AFTER: Duration = Duration::from_mins(1);
/// How long closing a consumer may hold the worker up.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// One worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) settings: Arc<StreamSettings>,
    pub(super) topics: Arc<Topics>,
    pub(super) serving: Arc<Serving>,
    pub(super) metrics: Arc<StreamMetrics>,
    pub(super) parts: Arc<Parts>,
    pub(super) health: Arc<WorkerHealth>,
}

impl Worker {
    /// Runs until the process stops, or until only an operator can help: then gives the reason.
    pub(super) fn run(&self) -> Result<(), String> {
        let mut backoff = BACKOFF.0;
        loop {
            let Some(model) = self.wait_for_model() else {
                return Ok(());
            };
            let start = Instant::now();
            match self.join(model) {
                Exit::Shutdown => return Ok(()),
                Exit::ModelGone => {}
                Exit::Failed(reason) => return Err(reason),
                Exit::Rebuild(_) if self.parts.stopping() => return Ok(()),
                Exit::Rebuild(reason) => {
                    if start.elapsed() >= HEALTHY_AFTER {
                        backoff = BACKOFF.0;
                    }
                    tracing::warn!(
                        stream = self.settings.name,
                        "{reason}; rebuilding clients and joining again in {backoff:?}"
                    );
                    self.health.set(WorkerState::Recovering, Some(reason));
                    self.pause(backoff);
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// No model, no consumption: waits outside the group. `None` when the process stops.
    fn wait_for_model(&self) -> Option<Arc<ServingModel>> {
        let mut seen = self.serving.generation();
        let mut told = false;
        loop {
            if self.parts.stopping() {
                return None;
            }
            if let Some(model) = self.serving.load().serving(&self.settings.model) {
                return Some(Arc::clone(model));
            }
            if !told {
                let reason = format!("no version of model {} serves", self.settings.model);
                self.health.set(WorkerState::WaitingForModel, Some(reason));
                told = true;
            }
            self.health.beat();
            seen = self.serving.wait_for_change(seen, WAIT);
        }
    }

    fn pause(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.parts.stopping() && Instant::now() < end {
            self.health.beat();
            std::thread::park_timeout(WAIT.min(end.saturating_duration_since(Instant::now())));
        }
    }

    /// One session, from joining the group to leaving it.
    fn join(&self, model: Arc<ServingModel>) -> Exit {
        let active = match Active::new(model, &self.settings, &self.metrics, 1) {
            Ok(active) => active,
            Err(reason) => return Exit::Rebuild(reason),
        };
        let parts = &self.parts;
        let producer = match Producer::new(&parts.kafka, parts.memory, self.topics.limits()) {
            Ok(producer) => producer,
            Err(error) => return Exit::Rebuild(error.to_string()),
        };
        let group = &self.settings.group_id;
        let inputs = &self.settings.input_topics;
        let source = match Source::join(&parts.kafka, group, inputs, parts.memory) {
            Ok(source) => source,
            Err(error) => return Exit::Rebuild(error.to_string()),
        };
        self.health.set(WorkerState::Running, None);
        let exit = self.session(&source, producer, active);
        self.health.set_partitions(0);
        source.close(CLOSE_TIMEOUT);
        exit
    }

    fn session(&self, source: &Source, producer: Producer, active: Active) -> Exit {
        let now = Instant::now();
        let mut session = Session {
            settings: &self.settings,
            topics: &self.topics,
            serving: &self.serving,
            metrics: &self.metrics,
            parts: &self.parts,
            health: &self.health,
            source,
            producer,
            partitions: Partitions::default(),
            active,
            versions: VecDeque::new(),
            batch: Vec::new(),
            stash: VecDeque::new(),
            rebalances: VecDeque::new(),
            troubled: false,
            pace: Pace::default(),
            cycle_start: now,
            cycle_records: 0,
            lag: Vec::new(),
            lag_at: now,
            in_flight_shown: 0,
            tokens: Vec::new(),
            text: Vec::new(),
        };
        let exit = session.run();
        session.metrics.in_flight.sub(session.in_flight_shown);
        session
            .metrics
            .held_partitions
            .sub(session.partitions.held() as i64);
        for rebalance in session.rebalances.drain(..) {
            match rebalance {
                Rebalance::Assigned(partitions) => source.abandon(partitions, &[]),
                Rebalance::Revoked(partitions) => source.abandon(Vec::new(), &partitions),
            }
        }
        exit
    }
}
