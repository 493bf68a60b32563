//! The serving snapshot: which version of each model serves now. The registry writes it, the
//! workers read it; it is all that the control plane and the data plane share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// Who waits for which model: a change wakes those only whom it concerns.
    waiting: Mutex<BTreeMap<ModelName, Arc<Condvar>>>,
    /// Whether a load is slow and workers are to leave it some of their time.
    cramped: AtomicBool,
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

    /// Whether a load does not get on, so that workers rest a little.
    pub fn is_cramped(&self) -> bool {
        self.cramped.load(Ordering::Relaxed)
    }

    /// Asks the workers to leave loads some of their time, or no longer.
    pub fn set_cramped(&self, cramped: bool) {
        self.cramped.store(cramped, Ordering::Relaxed);
    }

    /// Replaces the state of `model` and wakes who waits for it. One writer: the registry.
    pub fn set(&self, model: &ModelName, state: ModelState) {
        self.set_all(vec![(model.clone(), state)]);
    }

    /// Replaces the states of several models in one swap.
    pub fn set_all(&self, states: Vec<(ModelName, ModelState)>) {
        let mut models = self.snapshot.load().models.clone();
        let changed: Vec<ModelName> = states.iter().map(|(model, _)| model.clone()).collect();
        models.extend(states);
        self.snapshot.store(Arc::new(ServingSnapshot { models }));
        // Taken after the swap: who has looked before it waits by now, or looks again.
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for model in changed {
            if let Some(waiter) = waiting.get(&model) {
                waiter.notify_all();
            }
        }
    }

    /// What serves `model`; where nothing does, blocks until something may, at most `timeout`. For
    /// worker threads only.
    pub fn wait_for(&self, model: &ModelName, timeout: Duration) -> Option<Arc<ServingModel>> {
        let serving = || self.load().serving(model).cloned();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(serving) = serving() {
            return Some(serving);
        }
        let waiter = Arc::clone(waiting.entry(model.clone()).or_default());
        // All conditions go with the one lock; it is not held while waiting.
        drop(waiter.wait_timeout(waiting, timeout));
        serving()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(model: &str) -> ModelName {
        ModelName::new(model).unwrap()
    }

    #[test]
    fn several_states_are_one_swap_and_the_others_stay() {
        let serving = Serving::new();
        let settled = |settled_revision| ModelState {
            serving: None,
            settled_revision,
        };
        serving.set(&name("a"), settled(1));
        let before = Arc::clone(&serving.load());
        serving.set_all(vec![(name("b"), settled(2)), (name("c"), settled(3))]);
        let after: Vec<_> = serving
            .load()
            .iter()
            .map(|(name, state)| (name.to_string(), state.settled_revision))
            .collect();
        let wanted = [("a", 1), ("b", 2), ("c", 3)].map(|(n, r)| (n.to_owned(), r));
        assert_eq!(after, wanted);
        assert_eq!(before.iter().count(), 1, "a snapshot never changes");
    }

    #[test]
    fn a_change_wakes_who_waits_for_that_model_only() {
        let serving = Serving::new();
        let long = Duration::from_mins(1);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| serving.wait_for(&name("a"), long).is_none());
            let other = scope.spawn(|| {
                let start = std::time::Instant::now();
                serving.wait_for(&name("b"), Duration::from_millis(300));
                start.elapsed()
            });
            while serving.waiting.lock().unwrap().len() < 2 {
                std::thread::yield_now();
            }
            serving.set(&name("a"), ModelState::default());
            assert!(waits.join().unwrap(), "woken, and nothing serves yet");
            assert!(other.join().unwrap() >= Duration::from_millis(300));
        });
    }
}
