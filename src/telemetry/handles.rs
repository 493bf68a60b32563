//! The process's metrics and the handles through which the parts count: a handle is made once and
//! counts without looking up labels.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder};

use super::families::{Families, gauges, lock};
use super::metrics::{
    self, CommitOutcome, HoldOutcome, KafkaClient, KafkaErrorKind, Label, LoadStage, RebalanceKind,
    STAGES, SwapOutcome, TransactionOutcome, WorkerState,
};
use super::process::ProcessCollector;

/// All metrics of one process (or one test): nothing global. Share it by `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Arc<Families>,
    kafka_errors: BTreeMap<&'static str, Counters<KafkaErrorKind>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// New metrics, all at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let families = Arc::new(Families::new(&registry));
        let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        gauges(&registry, &metrics::BUILD_INFO)
            .with_label_values(&[env!("CARGO_PKG_VERSION"), &target])
            .set(1);
        if let Ok(process) = ProcessCollector::new() {
            // Fails only where a name occurs twice; a test compares what is exported.
            drop(registry.register(Box::new(process)));
        }
        let kafka_errors = KafkaClient::ALL
            .iter()
            .map(|client| client.as_str())
            .map(|client| (client, Counters::new(&families.kafka_errors, client)))
            .collect();
        Self {
            registry,
            families,
            kafka_errors,
        }
    }

    /// The text exposition format, version 0.0.4.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let due = lock(&self.families.retirements).take_due(Instant::now());
        for (model, version) in due {
            self.retire_version(&model, &version);
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// The handles of a stream. Its series exist from here on, at zero.
    pub fn stream(&self, stream: &str) -> StreamMetrics {
        StreamMetrics::new(&self.families, stream)
    }

    /// The handles of a model. Its series exist from here on, at zero.
    pub fn model(&self, model: &str) -> ModelMetrics {
        ModelMetrics {
            model: model.to_owned(),
            swaps: Counters::new(&self.families.model_swaps, model),
            load: LoadStage::ALL
                .iter()
                .map(|stage| [model, stage.as_str()])
                .map(|labels| self.families.model_load.with_label_values(&labels))
                .collect(),
            families: Arc::clone(&self.families),
        }
    }

    /// Removes the series by version of `model`'s `version`, in all streams.
    ///
    /// For versions that will not serve again soon, a few scrapes after they stopped: what was
    /// counted since the last scrape is gone. Handles made before count into nothing.
    pub fn retire_version(&self, model: &str, version: &str) {
        let families = &self.families;
        lock(&families.versions).retain(|labels| {
            let [_, of_model, of_version] = labels;
            if of_model != model || of_version != version {
                return true;
            }
            // Fails only where the series is gone already.
            drop(families.predictions.remove_label_values(labels));
            drop(families.inference.remove_label_values(labels));
            drop(families.end_to_end.remove_label_values(labels));
            false
        });
    }

    /// Says how many bytes the loaded models hold, and how many they may.
    pub fn set_model_memory(&self, used: u64, limit: u64) {
        let gauge = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.families.model_memory.set(gauge(used));
        self.families.model_memory_limit.set(gauge(limit));
    }

    /// Says whether this instance has read the registry topics to their end.
    pub fn set_registry_caught_up(&self, caught_up: bool) {
        self.families.registry_caught_up.set(caught_up.into());
    }

    /// Counts an error of a Kafka client.
    pub fn kafka_error(&self, client: KafkaClient, kind: KafkaErrorKind) {
        if let Some(counters) = self.kafka_errors.get(client.as_str()) {
            counters.inc(kind);
        }
    }
}

/// One counter for each value of a label.
#[derive(Clone)]
pub struct Counters<L> {
    counters: Vec<IntCounter>,
    label: PhantomData<L>,
}

impl<L> fmt::Debug for Counters<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.counters.iter().map(IntCounter::get);
        f.debug_list().entries(values).finish()
    }
}

impl<L: Label> Counters<L> {
    fn new(vector: &IntCounterVec, first_label: &str) -> Self {
        let counter = |label: &L| vector.with_label_values(&[first_label, label.as_str()]);
        Self {
            counters: L::ALL.iter().map(counter).collect(),
            label: PhantomData,
        }
    }

    /// Counts one.
    pub fn inc(&self, label: L) {
        if let Some(counter) = self.counters.get(label.index()) {
            counter.inc();
        }
    }

    /// The count so far.
    pub fn get(&self, label: L) -> u64 {
        self.counters.get(label.index()).map_or(0, IntCounter::get)
    }
}

/// What a stream's workers count. Workers of one stream share the series: gauges are moved by
/// differences.
#[derive(Debug, Clone)]
pub struct StreamMetrics {
    /// Input records taken from Kafka.
    pub records_in: IntCounter,
    /// Records in a batch.
    pub batch_size: Histogram,
    /// Records produced and not acknowledged.
    pub in_flight: IntGauge,
    /// Partitions held back for a revision.
    pub held_partitions: IntGauge,
    /// Offset commits.
    pub commits: Counters<CommitOutcome>,
    /// Transactions.
    pub transactions: Counters<TransactionOutcome>,
    /// Seconds from a transaction's start to its commit.
    pub transaction_time: Histogram,
    /// Rebalance events.
    pub rebalances: Counters<RebalanceKind>,
    /// Ended holds.
    pub revision_holds: Counters<HoldOutcome>,
    dead_letters: Vec<IntCounter>,
    skipped: Vec<IntCounter>,
    stream: String,
    families: Arc<Families>,
}

impl StreamMetrics {
    fn new(families: &Arc<Families>, stream: &str) -> Self {
        let stages = |vector: &IntCounterVec| {
            STAGES
                .iter()
                .map(|stage| vector.with_label_values(&[stream, stage]))
                .collect()
        };
        for state in WorkerState::ALL {
            families
                .workers
                .with_label_values(&[stream, state.as_str()]);
        }
        Self {
            records_in: families.records_in.with_label_values(&[stream]),
            batch_size: families.batch_size.with_label_values(&[stream]),
            in_flight: families.in_flight.with_label_values(&[stream]),
            held_partitions: families.held_partitions.with_label_values(&[stream]),
            commits: Counters::new(&families.commits, stream),
            transactions: Counters::new(&families.transactions, stream),
            transaction_time: families.transaction_time.with_label_values(&[stream]),
            rebalances: Counters::new(&families.rebalances, stream),
            revision_holds: Counters::new(&families.revision_holds, stream),
            dead_letters: stages(&families.dead_letters),
            skipped: stages(&families.skipped),
            stream: stream.to_owned(),
            families: Arc::clone(families),
        }
    }

    /// Counts a dead letter of `stage`, one of [`STAGES`].
    pub fn dead_letter(&self, stage: &str) {
        inc_stage(&self.dead_letters, stage);
    }

    /// Counts a record of `stage`, one of [`STAGES`], that the policy leaves out.
    pub fn skipped(&self, stage: &str) {
        inc_stage(&self.skipped, stage);
    }

    /// A worker of this stream, counted in its state until it is dropped.
    pub fn worker(&self, state: WorkerState) -> WorkerGauge {
        let gauge = |state: &WorkerState| {
            let labels = [self.stream.as_str(), state.as_str()];
            self.families.workers.with_label_values(&labels)
        };
        let gauges: Vec<IntGauge> = WorkerState::ALL.iter().map(gauge).collect();
        let worker = WorkerGauge { gauges, state };
        worker.add(1);
        worker
    }

    /// The lag of a partition that is assigned to this instance; its series lives as long as the
    /// handle.
    pub fn lag(&self, topic: &str, partition: i32) -> LagGauge {
        let labels = [self.stream.clone(), topic.to_owned(), partition.to_string()];
        LagGauge {
            gauge: self.families.lag.with_label_values(&labels),
            labels,
            families: Arc::clone(&self.families),
        }
    }

    /// The handles of a version that scores this stream. To be made when the version changes, not
    /// for each batch.
    pub fn version(&self, model: &str, version: &str) -> VersionMetrics {
        let labels = [self.stream.clone(), model.to_owned(), version.to_owned()];
        let families = &self.families;
        let mut versions = lock(&families.versions);
        let handles = VersionMetrics {
            predictions: families.predictions.with_label_values(&labels),
            inference: families.inference.with_label_values(&labels),
            end_to_end: families.end_to_end.with_label_values(&labels),
        };
        versions.insert(labels);
        handles
    }
}

fn inc_stage(counters: &[IntCounter], stage: &str) {
    let position = STAGES.iter().position(|known| *known == stage);
    debug_assert!(position.is_some(), "unknown stage {stage}");
    if let Some(counter) = position.and_then(|position| counters.get(position)) {
        counter.inc();
    }
}

/// What is counted by version.
#[derive(Debug, Clone)]
pub struct VersionMetrics {
    /// Acknowledged predictions.
    pub predictions: IntCounter,
    /// Seconds that the model took for a batch.
    pub inference: Histogram,
    /// Seconds from the input's timestamp to the prediction's acknowledgement. Where it is
    /// observed for each record, `local()` gives a buffer without atomics; flush it per cycle.
    pub end_to_end: Histogram,
}

/// One worker in the gauge of worker states.
#[derive(Debug)]
pub struct WorkerGauge {
    gauges: Vec<IntGauge>,
    state: WorkerState,
}

impl WorkerGauge {
    /// Moves the worker to `state`.
    pub fn set(&mut self, state: WorkerState) {
        self.add(-1);
        self.state = state;
        self.add(1);
    }

    /// The worker's state.
    pub fn state(&self) -> WorkerState {
        self.state
    }

    fn add(&self, count: i64) {
        if let Some(gauge) = self.gauges.get(self.state.index()) {
            gauge.add(count);
        }
    }
}

impl Drop for WorkerGauge {
    fn drop(&mut self) {
        self.add(-1);
    }
}

/// The lag of one assigned partition.
#[derive(Debug)]
pub struct LagGauge {
    gauge: IntGauge,
    labels: [String; 3],
    families: Arc<Families>,
}

impl LagGauge {
    /// Records between the position and the end of the partition.
    pub fn set(&self, records: i64) {
        self.gauge.set(records);
    }
}

impl Drop for LagGauge {
    fn drop(&mut self) {
        // Fails only where the series is gone already.
        drop(self.families.lag.remove_label_values(&self.labels));
    }
}

/// What is counted by model.
#[derive(Debug, Clone)]
pub struct ModelMetrics {
    /// Deployment events, by what came of them.
    pub swaps: Counters<SwapOutcome>,
    load: Vec<Histogram>,
    model: String,
    families: Arc<Families>,
}

/// What `model_info` says about a version that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served<'a> {
    /// The version.
    pub version: &'a str,
    /// Digest of its artifact.
    pub digest: &'a str,
    /// Revision of its deployment event.
    pub revision: i64,
    /// What runs it.
    pub runtime: &'a str,
    /// How many plans it is compiled into.
    pub plans: usize,
    /// Bytes that the plans hold.
    pub plan_bytes: usize,
}

impl ModelMetrics {
    /// Observes how long a stage of loading took.
    pub fn loaded(&self, stage: LoadStage, seconds: f64) {
        if let Some(histogram) = self.load.get(stage.index()) {
            histogram.observe(seconds);
        }
    }

    /// Says what serves the model now. The series of what served before are removed after 15
    /// minutes.
    pub fn set_served(&self, served: Option<Served<'_>>) {
        let families = &self.families;
        let mut all = lock(&families.served);
        if let Some(before) = all.remove(&self.model) {
            // Fails only where the series is gone already.
            drop(families.model_info.remove_label_values(&before));
            let [model, version, ..] = &before;
            let of_version = [model, version];
            drop(families.model_plans.remove_label_values(&of_version));
            drop(families.model_plan_bytes.remove_label_values(&of_version));
            lock(&families.retirements).retire(model, version, Instant::now());
        }
        if let Some(served) = served {
            lock(&families.retirements).serve(&self.model, served.version);
            let labels = [
                self.model.clone(),
                served.version.to_owned(),
                served.digest.to_owned(),
                served.revision.to_string(),
                served.runtime.to_owned(),
            ];
            families.model_info.with_label_values(&labels).set(1);
            let [model, version, ..] = &labels;
            let gauge = |number| i64::try_from(number).unwrap_or(i64::MAX);
            let plans = families.model_plans.with_label_values(&[model, version]);
            plans.set(gauge(served.plans));
            let bytes = &families.model_plan_bytes;
            let bytes = bytes.with_label_values(&[model, version]);
            bytes.set(gauge(served.plan_bytes));
            all.insert(self.model.clone(), labels);
        }
    }
}

#[cfg(test)]
#[path = "handles_tests.rs"]
mod tests;
