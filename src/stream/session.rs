//! A worker's time in its group: poll, score, produce, commit, until it leaves.
//!
//! One thread runs the whole line, batch by batch, in straight-line code. What may interrupt it is
//! a closed list, [`Exit`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::assignment::list;
use super::complaints::Complaints;
use super::health::WorkerHealth;
use super::pace::Pace;
use super::partitions::Partitions;
use super::parts::Parts;
use super::room::Room;
use super::stall::Stall;
use super::topics::Topics;
use super::transaction::Transaction;
use super::{ErrorPolicy, StreamSettings};
use crate::codec::{MODEL_DIGEST, MODEL_NAME, MODEL_VERSION, Stage};
use crate::failpoints::{broken, fail_point};
use crate::kafka::{ErrorKind, InputRecord, KafkaError, Polled, Producer, RecordHeaders, Source};
use crate::record::{RecordOffset, TopicPartition};
use crate::scorer::{Scorer, Tag};
use crate::serving::{Serving, ServingModel};
use crate::telemetry::{
    HoldOutcome, KafkaClient, KafkaErrorKind, LagGauge, RebalanceKind, StreamMetrics,
    VersionMetrics, WorkerState,
};

/// How often the lag gauges are set.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// Versions whose late acknowledgements are still told apart.
const KEPT_VERSIONS: usize = 8;

/// Why a worker leaves its group.
#[derive(Debug)]
pub(super) enum Exit {
    /// The process stops.
    Shutdown,
    /// No version of the model serves any more.
    ModelGone,
    /// The transaction cannot be committed: it is aborted, reading is rewound, and the session
    /// goes on.
    Abort(String),
    /// Another producer has taken over the transactional id.
    Fenced(String),
    /// The clients are to be rebuilt and the group joined anew; nothing was committed past the
    /// last acknowledged cycle.
    Rebuild(String),
    /// Only an operator can help.
    Failed(String),
}

impl From<KafkaError> for Exit {
    fn from(error: KafkaError) -> Self {
        Self::Rebuild(error.to_string())
    }
}

/// A step that may end the session.
pub(super) type Step<T = ()> = Result<T, Exit>;

/// A rebalance that waits for its answer.
#[derive(Debug)]
pub(super) enum Rebalance {
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
}

/// The version that scores now, with everything that is made once for it.
pub(super) struct Active {
    pub(super) scorer: Scorer,
    pub(super) metrics: VersionMetrics,
    /// Tells acknowledgements of this version from those of earlier ones.
    pub(super) slot: u16,
    /// Dropped after the scorer, which holds the model as well: the last hold on it is the
    /// registry's then, and large memory is never freed on a worker.
    pub(super) serving: Arc<ServingModel>,
}

/// A worker's time in its group.
pub(super) struct Session<'s> {
    pub(super) settings: &'s StreamSettings,
    pub(super) topics: &'s Topics,
    pub(super) serving: &'s Serving,
    pub(super) metrics: &'s StreamMetrics,
    pub(super) parts: &'s Parts,
    pub(super) health: &'s WorkerHealth,
    pub(super) source: &'s Source,
    pub(super) producer: Producer,
    pub(super) partitions: Partitions,
    pub(super) active: Active,
    /// Metrics of the versions whose acknowledgements may still come, by slot.
    pub(super) versions: VecDeque<(u16, VersionMetrics)>,
    pub(super) batch: Vec<InputRecord<'s>>,
    pub(super) rebalances: VecDeque<Rebalance>,
    /// Since when the starts of new partitions could not be looked up.
    pub(super) look_up_since: Option<Instant>,
    pub(super) transaction: Transaction,
    /// Whether reading waits for commits.
    pub(super) held_back: bool,
    /// Whether an abort waits for its rewind.
    pub(super) rewind_due: bool,
    /// Errors that have not ended the session.
    pub(super) troubles: Complaints,
    /// Commits that failed since the last one that did not.
    pub(super) failed_commits: Complaints,
    /// The newest answer to a commit, where that was an error.
    pub(super) commit_error: Option<KafkaError>,
    pub(super) pace: Pace,
    pub(super) room: Room,
    pub(super) stall: Stall,
    pub(super) cycle_start: Instant,
    pub(super) cycle_records: usize,
    pub(super) lag: Vec<(TopicPartition, LagGauge)>,
    pub(super) lag_at: Instant,
    /// Whether the group had taken the worker in when it was last looked at.
    pub(super) member: bool,
    /// The id that the group knew the worker by when it last took partitions over.
    pub(super) member_id: String,
    pub(super) in_flight_shown: i64,
    /// Of acknowledged records that are not counted yet.
    pub(super) tokens: Vec<u64>,
    /// Dead letters and skipped records that are not counted yet.
    pub(super) failed: Vec<(ErrorPolicy, Stage)>,
    pub(super) text: Vec<u8>,
    /// When the batch was scored, milliseconds since 1970.
    pub(super) now_ms: i64,
}

impl Active {
    pub(super) fn new(
        serving: Arc<ServingModel>,
        settings: &StreamSettings,
        metrics: &StreamMetrics,
        slot: u16,
    ) -> Result<Self, String> {
        let tag = Tag {
            model: Some(&serving.model),
            version: Some(&serving.version),
            digest: &serving.digest,
            revision: Some(serving.revision),
        };
        let scorer = Scorer::new(
            Arc::clone(&serving.compiled),
            &serving.contract,
            tag,
            &settings.include,
            settings.non_finite_outputs,
        )
        .map_err(|error| {
            format!(
                "version {} of model {} cannot run: {error}",
                serving.version, serving.model
            )
        })?;
        let metrics = metrics.version(serving.model.as_str(), serving.version.as_str());
        Ok(Self {
            scorer,
            metrics,
            slot,
            serving,
        })
    }

    /// Has `producer` give predictions the headers of this version.
    pub(super) fn set_headers(&self, producer: &Producer) {
        let serving = &self.serving;
        let headers = RecordHeaders::new(3)
            .with(MODEL_NAME, Some(serving.model.as_str().as_bytes()))
            .with(MODEL_VERSION, Some(serving.version.as_str().as_bytes()))
            .with(MODEL_DIGEST, Some(serving.digest.to_string().as_bytes()));
        producer.set_template(self.slot, headers);
    }
}

impl Session<'_> {
    /// Runs until the worker leaves its group; everything scored is committed by then, except
    /// after [`Exit::Rebuild`] and [`Exit::Failed`].
    pub(super) fn run(&mut self) -> Exit {
        loop {
            let exit = match self.turn() {
                Ok(()) => continue,
                Err(Exit::Abort(reason)) => match self.abort(&reason, None) {
                    Ok(()) => continue,
                    Err(exit) => exit,
                },
                Err(exit) => exit,
            };
            if matches!(exit, Exit::Shutdown | Exit::ModelGone) {
                self.health.set(WorkerState::Draining, None);
                if let Err(worse) = self.leave() {
                    return worse;
                }
            }
            return exit;
        }
    }

    /// One turn: form a batch, take the newest snapshot, score it, end the cycle when it is due.
    fn turn(&mut self) -> Step {
        self.health.beat();
        if self.parts.stopping() {
            return Err(Exit::Shutdown);
        }
        self.answer_rebalances()?;
        self.rewind()?;
        self.end_holds()?;
        if self.hold_back()? {
            return self.take_snapshot();
        }
        self.fill_batch()?;
        // After the wait for records: what serves when they are there scores them.
        self.take_snapshot()?;
        let cramped = self.serving.is_cramped().then(Instant::now);
        self.score_batch()?;
        if let Some(rest) = cramped.and_then(|since| self.room.after(since.elapsed())) {
            std::thread::sleep(rest);
        }
        self.serve_producer()?;
        self.settle_cycle()?;
        let now = Instant::now();
        if self.cycle_due(now) {
            self.turn_cycle()?;
        }
        if !self.member || now.duration_since(self.lag_at) >= LAG_INTERVAL {
            self.member = self.source.is_member();
            self.health.set_member(self.member);
            self.show_lag(now);
        }
        Ok(())
    }

    /// The one atomic load of a batch. A swap makes a new scorer, between two batches.
    fn take_snapshot(&mut self) -> Step {
        let snapshot = self.serving.load();
        let Some(serving) = snapshot.serving(&self.settings.model) else {
            return Err(Exit::ModelGone);
        };
        if Arc::ptr_eq(serving, &self.active.serving) {
            return Ok(());
        }
        // Slot 0 marks records whose latency is not measured.
        let slot = self.active.slot.wrapping_add(1).max(1);
        let next = Active::new(Arc::clone(serving), self.settings, self.metrics, slot)
            .map_err(Exit::Rebuild)?;
        tracing::info!(
            stream = self.settings.name,
            from = %self.active.serving.version,
            to = %next.serving.version,
            revision = next.serving.revision,
            "swapped model {}", self.settings.model
        );
        next.set_headers(&self.producer);
        let last = std::mem::replace(&mut self.active, next);
        self.versions.push_back((last.slot, last.metrics));
        while self.versions.len() > KEPT_VERSIONS {
            self.versions.pop_front();
        }
        Ok(())
    }

    /// Notes an event that is no record.
    pub(super) fn on_event(&mut self, event: Polled) -> Step {
        match event {
            Polled::Assigned(partitions) => {
                self.metrics.rebalances.inc(RebalanceKind::Assigned);
                self.rebalances.push_back(Rebalance::Assigned(partitions));
            }
            Polled::Revoked {
                partitions,
                lost: true,
            } => {
                self.metrics.rebalances.inc(RebalanceKind::Lost);
                // Not ready until the next turn finds it in its group again.
                self.member = false;
                self.health.set_member(false);
                // Another member may own them: nothing of theirs may be committed from now on.
                self.forget(&partitions);
                let lost = list(&partitions);
                self.rebalances.push_back(Rebalance::Revoked(partitions));
                if self.transaction.is_open() {
                    // It may hold predictions of theirs.
                    return Err(Exit::Abort(format!("lost {lost}")));
                }
            }
            Polled::Revoked {
                partitions,
                lost: false,
            } => {
                self.metrics.rebalances.inc(RebalanceKind::Revoked);
                self.drop_unscored(&partitions);
                self.rebalances.push_back(Rebalance::Revoked(partitions));
            }
            Polled::Committed(result) => self.on_committed(result),
            Polled::Error(error) => self.on_error(&error)?,
            Polled::PartitionError(error) => {
                self.rewind_due = true;
                self.on_error(&error)?;
                // Whatever its kind: until a record comes, nothing is read there.
                self.trouble(&error);
            }
            Polled::Records | Polled::Idle => {}
        }
        Ok(())
    }

    /// Drops polled records that were not scored; the next owner reads them again.
    fn drop_unscored(&mut self, partitions: &[TopicPartition]) {
        let keep = |record: &InputRecord<'_>| {
            let origin = record.origin();
            !partitions
                .iter()
                .any(|p| p.partition == origin.partition && *p.topic == *origin.topic)
        };
        self.batch.retain(keep);
    }

    /// Forgets everything about `partitions`.
    pub(super) fn forget(&mut self, partitions: &[TopicPartition]) {
        self.drop_unscored(partitions);
        let held = self.partitions.remove(partitions);
        for _ in 0..held {
            self.metrics.revision_holds.inc(HoldOutcome::Revoked);
        }
        self.metrics.held_partitions.sub(held as i64);
        self.lag
            .retain(|(partition, _)| !partitions.contains(partition));
        self.health.set_partitions(self.partitions.count());
    }

    /// Shows an error that does not end the session until a record comes or partitions do.
    pub(super) fn trouble(&mut self, error: &KafkaError) {
        let stream = &self.settings.name;
        let text = error.to_string();
        if self.troubles.note(&text) {
            tracing::warn!(stream, "{text}");
        } else {
            tracing::debug!(stream, "{text}");
        }
        self.health.set(WorkerState::Running, Some(text));
    }

    pub(super) fn clear_trouble(&mut self) {
        if self.troubles.over() > 0 {
            self.health.set(WorkerState::Running, None);
        }
    }

    fn on_error(&mut self, error: &KafkaError) -> Step {
        let kind = match error.kind {
            ErrorKind::Fatal | ErrorKind::Fenced => KafkaErrorKind::Fatal,
            _ => KafkaErrorKind::Retriable,
        };
        self.parts.metrics.kafka_error(KafkaClient::Consumer, kind);
        match error.kind {
            // Out of range: records were deleted under the worker. The partition is looked at anew
            // when it is assigned again, and `on_data_loss` decides.
            ErrorKind::OffsetOutOfRange
            | ErrorKind::Fatal
            | ErrorKind::Fenced
            | ErrorKind::Configuration => Err(Exit::Rebuild(error.to_string())),
            ErrorKind::MissingTopic | ErrorKind::Authorization => {
                self.trouble(error);
                Ok(())
            }
            _ => {
                tracing::debug!(stream = self.settings.name, "{error}");
                Ok(())
            }
        }
    }

    /// Produces the batch's predictions and dead letters, in order.
    fn score_batch(&mut self) -> Step {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        self.metrics.batch_size.observe(batch.len() as f64);
        let scorer = &mut self.active.scorer;
        scorer.clear();
        for record in &batch {
            scorer.push(record.value());
        }
        let (rows, took) = scorer.run();
        if rows > 0 {
            self.active.metrics.inference.observe(took.as_secs_f64());
            self.pace.observe(rows, took);
        }
        let revision = self.active.serving.revision;
        if broken("broken-commit-first") {
            self.commit_first(&batch)?;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        self.now_ms = since.unwrap_or_default().as_millis() as i64;
        fail_point("before-produce");
        for (index, record) in batch.iter().enumerate() {
            self.emit(index, record)?;
            let origin = record.origin();
            let offset = RecordOffset(origin.offset);
            self.partitions
                .done(origin.topic, origin.partition, offset, revision);
        }
        self.cycle_records += batch.len();
        fail_point("after-produce");
        // The records' memory goes back to the client; the vector's is kept.
        self.batch = batch;
        self.batch.clear();
        Ok(())
    }

    /// The deliberately broken variant `broken-commit-first`.
    fn commit_first(&self, batch: &[InputRecord<'_>]) -> Step {
        for record in batch {
            let origin = record.origin();
            let partition = TopicPartition::new(origin.topic, origin.partition);
            let next = RecordOffset(origin.offset).next();
            self.source.commit(&[(partition, next, String::new())])?;
        }
        Ok(())
    }

    fn show_lag(&mut self, now: Instant) {
        self.lag_at = now;
        for (partition, gauge) in &self.lag {
            let next = self.partitions.next(partition);
            let end = self.source.cached_end(partition);
            if let (Some(next), Some(end)) = (next, end) {
                gauge.set((end.0 - next.0).max(0));
            }
        }
    }
}
