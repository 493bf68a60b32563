//! The state of the control plane: takes records and the ends of loads, and says what to do. No
//! thread, no Kafka, no clock: `now` comes in as an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::catalog::{Catalog, parse_version_key};
use super::deployment_log::DeploymentLog;
use super::lifecycle::{Failure, LoadState, Refusal, backoff};
use super::loader::{LoadFailure, LoadJob, Loaded};
use super::status::ModelReport;
use super::trust::Trust;
use super::turn::Turn;
use crate::model::{Digest, Manifest, ModelName, Version};
use crate::record::OwnedRecord;
use crate::runtime::CompiledInfo;
use crate::serving::{ModelState, ServingModel};

/// Something happened to a model; for logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlEvent {
    /// A version serves from now on.
    Activated {
        /// The model.
        model: ModelName,
        /// The version.
        version: Version,
        /// Digest of its artifact.
        digest: Digest,
        /// Revision of the event that deployed it.
        revision: i64,
        /// The version that served before.
        previous: Option<Version>,
        /// What runs it, and how.
        info: CompiledInfo,
        /// How long the load took; `None`: the same bytes served before.
        took: Option<Duration>,
    },
    /// A load has reached a state.
    Reached {
        /// The model.
        model: ModelName,
        /// The version.
        version: Version,
        /// The state.
        state: LoadState,
        /// Time since the state before.
        took: Duration,
    },
    /// Nothing serves any more.
    Retired {
        /// The model.
        model: ModelName,
        /// The version that served.
        version: Version,
    },
    /// A version was refused.
    Refused {
        /// The model.
        model: ModelName,
        /// The version.
        version: Version,
        /// Revision of the event that deployed it.
        revision: i64,
        /// Where and why.
        refusal: Refusal,
    },
    /// A load failed and is tried again.
    Retrying {
        /// The model.
        model: ModelName,
        /// The version.
        version: Version,
        /// When, and why.
        failure: Failure,
    },
}

/// What the watcher has to do.
#[derive(Debug)]
pub(super) enum Effect {
    /// Put this into the serving snapshot.
    Serve(ModelName, ModelState),
    /// Load this, and tell [`Control::load_ended`].
    Load(LoadJob),
    /// Ask for the stable end of the versions topic, and tell [`Control::versions_end`].
    AskVersionsEnd(ModelName, i64),
    /// Show this.
    Report(ModelName, ModelReport),
    /// Tell this.
    Event(ControlEvent),
}

#[derive(Debug)]
pub(super) struct Loading {
    pub(super) revision: i64,
    pub(super) version: Version,
    pub(super) state: LoadState,
    pub(super) since: Instant,
    pub(super) reached_at: Instant,
    pub(super) cancelled: Arc<AtomicBool>,
}

/// What one model has come to.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) serving: Option<Arc<ServingModel>>,
    pub(super) told: Option<(Option<i64>, i64)>,
    pub(super) settled: Option<i64>,
    pub(super) refused: BTreeMap<i64, Refusal>,
    /// Refusals that end, and when.
    pub(super) banned: BTreeMap<i64, Instant>,
    pub(super) failures: BTreeMap<i64, Failure>,
    pub(super) loading: Option<Loading>,
    pub(super) ready: Option<(i64, Loaded, Arc<Manifest>, Duration)>,
    /// Up to where the versions topic has to be read before this revision's version is missing.
    pub(super) confirm: Option<(i64, i64)>,
    pub(super) judged: Option<(i64, Refusal)>,
    pub(super) report: Option<ModelReport>,
}

/// The state of the control plane.
#[derive(Debug)]
pub(super) struct Control {
    deployments: DeploymentLog,
    catalog: Catalog,
    versions_next: i64,
    models: BTreeMap<ModelName, Progress>,
    max_loads: usize,
}

impl Control {
    /// For an instance whose streams need `models`; at most `max_loads` load at the same time.
    pub(super) fn new(models: BTreeSet<ModelName>, max_loads: usize, trust: Trust) -> Self {
        Self {
            deployments: DeploymentLog::new(),
            catalog: Catalog::for_serving(trust),
            versions_next: 0,
            models: models
                .into_iter()
                .map(|model| (model, Progress::default()))
                .collect(),
            max_loads,
        }
    }

    /// Takes the next record of the deployment log.
    pub(super) fn deployment(&mut self, record: &OwnedRecord) {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let applied = self
            .deployments
            .apply(record.offset, key, value, record.timestamp);
        tracing::debug!(offset = record.offset, "deployment log: {applied:?}");
    }

    /// Takes the next record of the versions topic; only what this instance needs is kept.
    pub(super) fn version(&mut self, record: OwnedRecord) {
        let of = parse_version_key(record.key.as_deref());
        if of.is_some_and(|(model, _)| self.models.contains_key(&model)) {
            self.catalog.apply(record);
        }
    }

    /// Up to where the versions topic has been read.
    pub(super) fn versions_read_to(&mut self, next: i64) {
        self.versions_next = self.versions_next.max(next);
    }

    /// The versions topic's stable end, asked for after the event at `revision` was seen.
    pub(super) fn versions_end(&mut self, model: &ModelName, revision: i64, end: i64) {
        if let Some(progress) = self.models.get_mut(model) {
            progress.confirm = Some((revision, end));
        }
    }

    /// A load has come so far, at this moment.
    pub(super) fn load_reached(
        &mut self,
        model: &ModelName,
        revision: i64,
        state: LoadState,
        at: Instant,
    ) -> Option<ControlEvent> {
        let loading = self.models.get_mut(model)?.loading.as_mut();
        let loading = loading.filter(|loading| loading.revision == revision)?;
        let took = at.saturating_duration_since(loading.reached_at);
        loading.state = state;
        loading.reached_at = at;
        Some(ControlEvent::Reached {
            model: model.clone(),
            version: loading.version.clone(),
            state,
            took,
        })
    }

    /// A load has ended.
    pub(super) fn load_ended(
        &mut self,
        job: &LoadJob,
        result: Result<Loaded, LoadFailure>,
        now: Instant,
    ) -> Option<ControlEvent> {
        let (model, version) = (&job.manifest.model, &job.manifest.version);
        let revision = job.revision;
        let progress = self.models.get_mut(model)?;
        let ended = progress
            .loading
            .take_if(|loading| loading.revision == revision)?;
        let (model, version) = (model.clone(), version.clone());
        match result {
            Ok(loaded) => {
                let took = now.saturating_duration_since(ended.since);
                progress.ready = Some((revision, loaded, Arc::clone(&job.manifest), took));
                None
            }
            Err(LoadFailure::Cancelled) => None,
            Err(LoadFailure::Banned(refusal, left)) => {
                progress.failures.remove(&revision);
                progress.banned.insert(revision, now + left);
                progress.refused.insert(revision, refusal.clone());
                Some(ControlEvent::Refused {
                    model,
                    version,
                    revision,
                    refusal,
                })
            }
            Err(LoadFailure::Refused(refusal)) => {
                progress.failures.remove(&revision);
                progress.refused.insert(revision, refusal.clone());
                Some(ControlEvent::Refused {
                    model,
                    version,
                    revision,
                    refusal,
                })
            }
            Err(LoadFailure::Transient(reason)) => {
                let attempts = progress.failures.get(&revision).map_or(0, |f| f.attempts) + 1;
                let retry_at = now + backoff(attempts);
                let failure = Failure {
                    attempts,
                    retry_at,
                    reason,
                };
                progress.failures.insert(revision, failure.clone());
                Some(ControlEvent::Retrying {
                    model,
                    version,
                    failure,
                })
            }
        }
    }

    /// Whether anything loads.
    pub(super) fn is_loading(&self) -> bool {
        self.loading_since().is_some()
    }

    /// Since when the oldest load that goes on has been under way.
    pub(super) fn loading_since(&self) -> Option<Instant> {
        let loading = self.models.values().filter_map(|p| p.loading.as_ref());
        loading.map(|loading| loading.since).min()
    }

    /// Ends all loads.
    pub(super) fn cancel(&self) {
        for loading in self.models.values().filter_map(|p| p.loading.as_ref()) {
            loading.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// What to do now, and when to ask again at the latest.
    pub(super) fn step(&mut self, now: Instant) -> (Vec<Effect>, Option<Instant>) {
        let mut effects = Vec::new();
        let mut wake: Option<Instant> = None;
        let mut loads = self.models.values().filter(|p| p.loading.is_some()).count();
        for (model, progress) in &mut self.models {
            let mut turn = Turn {
                model,
                log: self.deployments.model(model),
                catalog: &self.catalog,
                versions_next: self.versions_next,
                now,
                may_load: loads < self.max_loads,
                effects: &mut effects,
            };
            let was_loading = progress.loading.is_some();
            let at = turn.take(progress);
            loads += usize::from(progress.loading.is_some() && !was_loading);
            wake = [wake, at].into_iter().flatten().min();
        }
        (effects, wake)
    }
}
