//! `swapstream model publish --measure`: times a model with every runtime that runs it rightly, and
//! picks the one for its manifest.

use serde::Serialize;

use super::{Failure, terminal};
use crate::model::{Manifest, RuntimeKind};
use crate::registry::{Loaded, prepare_for};
use crate::runtime::{self, BatchTime, faster};

/// Another runtime than tract must be this many times faster: less is noise, and a library more.
const WORTH_IT: f64 = 1.1;

/// What one runtime makes of the model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Measured {
    runtime: RuntimeKind,
    /// Why it does not serve the model.
    refused: Option<String>,
    batch_invariant: Option<bool>,
    timings: Vec<BatchTime>,
}

/// Measures the runtimes and puts the better one into `manifest`.
pub(super) fn choose(
    bytes: &[u8],
    manifest: &mut Manifest,
    max_bytes: u64,
) -> Result<Vec<Measured>, Failure> {
    let kinds = runtime::candidates(RuntimeKind::Auto);
    let mut loaded: Vec<(RuntimeKind, Result<Loaded, String>)> = Vec::new();
    for &kind in kinds {
        let result = prepare_for(kind, bytes, manifest, max_bytes, &mut |_| {});
        loaded.push((kind, result.map_err(|refusal| refusal.reason)));
    }
    let running = loaded.iter().filter_map(|(_, l)| l.as_ref().ok());
    let models: Vec<_> = running.map(|loaded| &*loaded.compiled).collect();
    let mut times = runtime::measure(&models).into_iter();
    let measured: Vec<Measured> = loaded
        .into_iter()
        .map(|(runtime, loaded)| match loaded {
            Ok(loaded) => Measured {
                runtime,
                refused: None,
                batch_invariant: Some(loaded.compiled.info().batch_invariant),
                timings: times.next().unwrap_or_default(),
            },
            Err(refused) => Measured {
                runtime,
                refused: Some(refused),
                batch_invariant: None,
                timings: Vec::new(),
            },
        })
        .collect();
    for one in &measured {
        terminal::note(&text(one));
    }
    let Some(best) = better(&measured) else {
        let refusals = measured
            .into_iter()
            .filter_map(|one| Some((one.runtime, one.refused?)));
        let why = runtime::all_refusals(&refusals.collect::<Vec<_>>());
        return Err(Failure::Failed(format!("no runtime runs the model: {why}")));
    };
    terminal::note(&format!("the manifest takes {}", best.as_str()));
    manifest.runtime = best;
    Ok(measured)
}

/// The one for the manifest: whose rows do not depend on their batch, then the faster.
fn better(measured: &[Measured]) -> Option<RuntimeKind> {
    let mut best: Option<&Measured> = None;
    for one in measured.iter().filter(|one| one.refused.is_none()) {
        let wins = best.is_none_or(|best| match (one.batch_invariant, best.batch_invariant) {
            (Some(true), Some(false)) => true,
            (Some(false), Some(true)) => false,
            _ => faster(&one.timings, &best.timings).is_some_and(|times| times > WORTH_IT),
        });
        if wins {
            best = Some(one);
        }
    }
    best.map(|best| best.runtime)
}

fn text(one: &Measured) -> String {
    let name = one.runtime.as_str();
    if let Some(why) = &one.refused {
        return format!("{name}: {why}");
    }
    let times = one
        .timings
        .iter()
        .map(|time| format!("{} rows {:.1} µs", time.rows, time.median_us));
    let dependent = match one.batch_invariant {
        Some(false) => " (a row's bits depend on its batch)",
        _ => "",
    };
    format!(
        "{name}: {}{dependent}",
        times.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(runtime: RuntimeKind, invariant: bool, median_us: f64) -> Measured {
        let time = BatchTime { rows: 1, median_us };
        Measured {
            runtime,
            refused: None,
            batch_invariant: Some(invariant),
            timings: vec![time],
        }
    }

    #[test]
    fn the_manifest_takes_what_runs_the_model() {
        use crate::model::{Artifact, Digest, ManifestDraft, ModelName, Version};
        let chosen = |name: &str| {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
            let bytes = std::fs::read(folder.join(format!("{name}.onnx"))).unwrap();
            let artifact = Artifact {
                digest: Digest::of(&bytes),
                bytes: bytes.len() as u64,
                uri: None,
            };
            let (model, version) = (ModelName::new("m").unwrap(), Version::new("1").unwrap());
            let draft = ManifestDraft::default();
            let mut manifest = draft.finish(model, version, artifact, Vec::new());
            let measured = choose(&bytes, &mut manifest, 1 << 20);
            measured.map(|measured| (manifest.runtime, measured))
        };
        let (runtime, measured) = chosen("trees").unwrap();
        assert_eq!(measured.len(), runtime::candidates(RuntimeKind::Auto).len());
        let tract = &measured[0];
        assert_eq!((tract.runtime, &tract.refused), (RuntimeKind::Tract, &None));
        assert!(!tract.timings.is_empty() && tract.batch_invariant == Some(true));
        assert_eq!(Some(runtime), better(&measured));
        // An operator that tract lacks: the other runtime, or no one.
        let chosen = chosen("contrib");
        if runtime::check_onnxruntime().is_ok() {
            let (runtime, measured) = chosen.unwrap();
            assert_eq!(runtime, RuntimeKind::OnnxRuntime);
            assert!(measured[0].refused.as_ref().unwrap().contains("Gelu"));
            assert!(!measured[1].timings.is_empty());
        } else {
            let Err(Failure::Failed(why)) = chosen else {
                panic!("nothing runs it");
            };
            assert!(why.contains("no runtime runs the model: tract:"), "{why}");
        }
    }

    #[test]
    fn the_faster_wins_by_a_margin_and_never_at_the_cost_of_invariance() {
        use RuntimeKind::{OnnxRuntime, Tract};
        let pick = |tract: (bool, f64), ort: (bool, f64)| {
            better(&[one(Tract, tract.0, tract.1), one(OnnxRuntime, ort.0, ort.1)])
        };
        assert_eq!(pick((true, 2.0), (true, 1.0)), Some(OnnxRuntime));
        assert_eq!(pick((true, 1.05), (true, 1.0)), Some(Tract));
        assert_eq!(pick((true, 1.0), (true, 2.0)), Some(Tract));
        assert_eq!(pick((true, 9.0), (false, 1.0)), Some(Tract));
        assert_eq!(pick((false, 1.0), (true, 9.0)), Some(OnnxRuntime));
        let mut refused = one(Tract, true, 0.1);
        refused.refused = Some("no".to_owned());
        assert_eq!(
            better(&[refused.clone(), one(OnnxRuntime, true, 1.0)]),
            Some(OnnxRuntime)
        );
        assert_eq!(better(&[refused]), None);
    }
}
