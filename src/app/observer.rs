//! Turns what happens to models into metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::ModelName;
use crate::registry::{ControlEvent, LoadState, Observer};
use crate::telemetry::{LoadStage, Metrics, ModelMetrics, Served, SwapOutcome};

/// An observer that counts; the series of `models` exist from the start.
pub(super) fn observer<'a>(
    metrics: Arc<Metrics>,
    models: impl Iterator<Item = &'a ModelName>,
) -> Observer {
    let known: BTreeMap<ModelName, ModelMetrics> = models
        .map(|model| (model.clone(), metrics.model(model.as_str())))
        .collect();
    let known = Mutex::new(known);
    Arc::new(move |event| {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        observe(event, &mut |model: &ModelName| {
            let made = || metrics.model(model.as_str());
            known.entry(model.clone()).or_insert_with(made).clone()
        });
    })
}

fn observe(event: &ControlEvent, of: &mut dyn FnMut(&ModelName) -> ModelMetrics) {
    match event {
        ControlEvent::Activated {
            model,
            version,
            digest,
            revision,
            info,
            ..
        } => {
            let metrics = of(model);
            metrics.swaps.inc(SwapOutcome::Activated);
            metrics.set_served(Some(Served {
                version: version.as_str(),
                digest: &digest.to_string(),
                revision: *revision,
                runtime: info.runtime,
                plans: info.plans,
                plan_bytes: info.plan_bytes,
            }));
        }
        ControlEvent::Retired { model, .. } => {
            let metrics = of(model);
            metrics.swaps.inc(SwapOutcome::Undeployed);
            metrics.set_served(None);
        }
        ControlEvent::Refused { model, .. } => of(model).swaps.inc(SwapOutcome::Refused),
        ControlEvent::Reached {
            model, state, took, ..
        } => {
            if let Some(stage) = stage_before(*state) {
                of(model).loaded(stage, took.as_secs_f64());
            }
        }
        ControlEvent::Retrying { .. } => {}
    }
}

/// The stage that ends with `state`.
fn stage_before(state: LoadState) -> Option<LoadStage> {
    match state {
        LoadState::Fetched => Some(LoadStage::Fetch),
        LoadState::Verified => Some(LoadStage::Verify),
        LoadState::Probed => Some(LoadStage::Probe),
        LoadState::Compiled => Some(LoadStage::Compile),
        LoadState::Checked => Some(LoadStage::Check),
        LoadState::WarmedUp => Some(LoadStage::WarmUp),
        LoadState::Announced | LoadState::Active => None,
    }
}
