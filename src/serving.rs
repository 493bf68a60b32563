//! The serving snapshot: which version of each model serves now. The registry writes it, the
//! workers read it; it is all that the control plane and the data plane share.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use crate::model::{Contract, Digest, ModelName, Version};
use crate::runtime::CompiledModel;

/// A version that serves.
#[derive(Debug)]
pub struct ServingModel {
    /// The model's name.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// Digest of its artifact.
    pub digest: Digest,
    /// Offset of the deployment event that deployed it.
    pub revision: i64,
    /// How events fill its inputs and which outputs it emits.
    pub contract: Contract,
    /// What runs it.
    pub compiled: Arc<dyn CompiledModel>,
}

/// What one model's deployment log has come to on this instance.
#[derive(Debug, Clone, Default)]
pub struct ModelState {
    /// What serves; `None` while nothing has been loaded, or after an undeploy.
    pub serving: Option<Arc<ServingModel>>,
    /// The newest revision that this instance has reached or refused; −1 before the first. A
    /// worker holds a partition back whose committed offset carries a higher one.
    pub settled_revision: i64,
}

/// Immutable map of model to what serves it; swapped as a whole.
#[derive(Debug, Default)]
pub struct ServingSnapshot {
    models: BTreeMap<ModelName, ModelState>,
}

impl ServingSnapshot {
    /// The state of `model`, if its log has an event.
    pub fn get(&self, model: &ModelName) -> Option<&ModelState> {
        self.models.get(model)
    }

    /// What serves `model`.
    pub fn serving(&self, model: &ModelName) -> Option<&Arc<ServingModel>> {
        self.models
            .get(model)
            .and_then(|state| state.serving.as_ref())
    }

    /// All models, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ModelName, &ModelState)> {
        self.models.iter()
    }
}

/// The one value that both planes share.
#[derive(Debug, Default)]
pub struct Serving {
    snapshot: ArcSwap<ServingSnapshot>,
    generation: Mutex<u64>,
    changed: Condvar,
}

impl Serving {
    /// Nothing serves.
    pub fn new() -> Self {
        Self::default()
    }

    /// The snapshot of this moment: one atomic load.
    pub fn load(&self) -> Guard<Arc<ServingSnapshot>> {
        self.snapshot.load()
    }

    /// Replaces the state of `model` and wakes who waits. One writer: the registry.
    pub fn set(&self, model: &ModelName, state: ModelState) {
        let mut models = self.snapshot.load().models.clone();
        models.insert(model.clone(), state);
        self.snapshot.store(Arc::new(ServingSnapshot { models }));
        *self
            .generation
            .lock()
            .unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Number of changes so far; for [`Self::wait_for_change`].
    pub fn generation(&self) -> u64 {
        *self
            .generation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until the snapshot has changed since `seen`, at most `timeout`; gives the newest
    /// generation. For worker threads only.
    pub fn wait_for_change(&self, seen: u64, timeout: Duration) -> u64 {
        let guard = self
            .generation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(guard, timeout, |now| *now == seen);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
