//! The metric families of one process, registered, with the series that come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::metrics::{self, Family};
use super::retirement::Retirements;

/// The families with labels, and which series there are where they come and go.
#[derive(Debug)]
pub(super) struct Families {
    pub(super) records_in: IntCounterVec,
    pub(super) predictions: IntCounterVec,
    pub(super) dead_letters: IntCounterVec,
    pub(super) skipped: IntCounterVec,
    pub(super) batch_size: HistogramVec,
    pub(super) inference: HistogramVec,
    pub(super) end_to_end: HistogramVec,
    pub(super) lag: IntGaugeVec,
    pub(super) in_flight: IntGaugeVec,
    pub(super) commits: IntCounterVec,
    pub(super) transactions: IntCounterVec,
    pub(super) transaction_time: HistogramVec,
    pub(super) rebalances: IntCounterVec,
    pub(super) workers: IntGaugeVec,
    pub(super) held_partitions: IntGaugeVec,
    pub(super) revision_holds: IntCounterVec,
    pub(super) model_info: IntGaugeVec,
    pub(super) model_plans: IntGaugeVec,
    pub(super) model_plan_bytes: IntGaugeVec,
    pub(super) model_swaps: IntCounterVec,
    pub(super) model_load: HistogramVec,
    pub(super) model_memory: IntGauge,
    pub(super) model_memory_limit: IntGauge,
    pub(super) registry_caught_up: IntGauge,
    pub(super) kafka_errors: IntCounterVec,
    /// `[stream, model, version]` of every series by version.
    pub(super) versions: Mutex<BTreeSet<[String; 3]>>,
    /// The labels of the one `model_info` series of each model.
    pub(super) served: Mutex<BTreeMap<String, [String; 5]>>,
    /// Versions whose series are to be removed.
    pub(super) retirements: Mutex<Retirements>,
}

/// Registers what was made from a [`Family`].
#[expect(
    clippy::expect_used,
    reason = "names, labels and buckets are constants, and every test that makes metrics checks them"
)]
fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("a valid metric");
    registry
        .register(Box::new(collector.clone()))
        .expect("a metric name that occurs once");
    collector
}

fn counters(registry: &Registry, family: &Family) -> IntCounterVec {
    let opts = Opts::new(family.name, family.help);
    register(registry, IntCounterVec::new(opts, family.labels))
}

pub(super) fn gauges(registry: &Registry, family: &Family) -> IntGaugeVec {
    let opts = Opts::new(family.name, family.help);
    register(registry, IntGaugeVec::new(opts, family.labels))
}

/// A gauge without labels.
fn gauge(registry: &Registry, family: &Family) -> IntGauge {
    gauges(registry, family).with_label_values::<&str>(&[])
}

fn histograms(registry: &Registry, family: &Family) -> HistogramVec {
    let opts = HistogramOpts::new(family.name, family.help).buckets(family.buckets.to_vec());
    register(registry, HistogramVec::new(opts, family.labels))
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            records_in: counters(registry, &metrics::RECORDS_IN),
            predictions: counters(registry, &metrics::PREDICTIONS),
            dead_letters: counters(registry, &metrics::DEAD_LETTERS),
            skipped: counters(registry, &metrics::SKIPPED_RECORDS),
            batch_size: histograms(registry, &metrics::BATCH_SIZE),
            inference: histograms(registry, &metrics::INFERENCE_DURATION),
            end_to_end: histograms(registry, &metrics::END_TO_END_LATENCY),
            lag: gauges(registry, &metrics::CONSUMER_LAG),
            in_flight: gauges(registry, &metrics::IN_FLIGHT_RECORDS),
            commits: counters(registry, &metrics::COMMITS),
            transactions: counters(registry, &metrics::TRANSACTIONS),
            transaction_time: histograms(registry, &metrics::TRANSACTION_DURATION),
            rebalances: counters(registry, &metrics::REBALANCES),
            workers: gauges(registry, &metrics::WORKERS),
            held_partitions: gauges(registry, &metrics::HELD_PARTITIONS),
            revision_holds: counters(registry, &metrics::REVISION_HOLDS),
            model_info: gauges(registry, &metrics::MODEL_INFO),
            model_plans: gauges(registry, &metrics::MODEL_PLANS),
            model_plan_bytes: gauges(registry, &metrics::MODEL_PLAN_BYTES),
            model_swaps: counters(registry, &metrics::MODEL_SWAPS),
            model_load: histograms(registry, &metrics::MODEL_LOAD_DURATION),
            model_memory: gauge(registry, &metrics::MODEL_MEMORY),
            model_memory_limit: gauge(registry, &metrics::MODEL_MEMORY_LIMIT),
            registry_caught_up: gauge(registry, &metrics::REGISTRY_CAUGHT_UP),
            kafka_errors: counters(registry, &metrics::KAFKA_ERRORS),
            versions: Mutex::default(),
            served: Mutex::default(),
            retirements: Mutex::default(),
        }
    }
}

/// Locks, whatever happened to who held the lock before.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
