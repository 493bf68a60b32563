//! Turns what happens to models into log lines and metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::ModelName;
use crate::registry::{ControlEvent, Observer};
use crate::telemetry::{Label, LoadStage, Metrics, ModelMetrics, Served, SwapOutcome};

/// An observer that logs and counts; the series of `models` exist from the start.
pub(super) fn observer<'a>(
    metrics: Arc<Metrics>,
    models: impl Iterator<Item = &'a ModelName>,
) -> Observer {
    let known: BTreeMap<ModelName, ModelMetrics> =
        models.map(|model| (model.clone(), metrics.model(model.as_str()))).collect();
    let known = Mutex::new(known);
    Arc::new(move |event| {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        observe(event, &mut |model: &ModelName| {
            known
                .entry(model.clone())
                .or_insert_with(|| metrics.model(model.as_str()))
                .clone()
        });
    })
}

fn observe(event: &ControlEvent, of: &mut dyn FnMut(&ModelName) -> ModelMetrics) {
    match event {
        ControlEvent::Activated { model, version, digest, revision, runtime, previous, took } => {
            let metrics = of(model);
            metrics.swaps.inc(SwapOutcome::Activated);
            metrics.set_served(Some(Served {
                version: version.as_str(),
                digest: &digest.to_string(),
                revision: *revision,
                runtime,
            }));
            let before = previous.as_ref().map_or("nothing".to_owned(), ToString::to_string);
            let took = took.map_or(0, |took| took.as_millis());
            tracing::info!(
                revision,
                "model {model}: version {version} ({}) serves, {before} before; loaded in {took} ms",
                digest.short()
            );
        }
        ControlEvent::Retired { model, version } => {
            let metrics = of(model);
            metrics.swaps.inc(SwapOutcome::Undeployed);
            metrics.set_served(None);
            tracing::info!("model {model}: version {version} was undeployed, nothing serves");
        }
        ControlEvent::Refused { model, version, revision, refusal } => {
            of(model).swaps.inc(SwapOutcome::Refused);
            tracing::error!(
                revision,
                "model {model}: version {version} is refused ({}): {}; what served goes on",
                refusal.stage, refusal.reason
            );
        }
        ControlEvent::Retrying { model, version, failure } => {
            tracing::warn!("model {model}: loading version {version} is tried again: {failure}");
        }
        ControlEvent::Stage { model, stage, took } => {
            of(model).loaded(load_stage(stage), took.as_secs_f64());
        }
    }
}

fn load_stage(name: &str) -> LoadStage {
    let stage = LoadStage::ALL.iter().find(|stage| stage.as_str() == name);
    stage.copied().unwrap_or(LoadStage::Fetch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_its_name() {
        for stage in LoadStage::ALL {
            assert_eq!(load_stage(stage.as_str()), *stage);
        }
    }
}
