//! What `inspect` tells about a file: what is in it, whether this build runs it, and how fast.

use std::sync::Arc;
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::measure::{BatchTime, measure};
use super::summary::OnnxSummary;
use super::{CompiledModel, LoadError, LoadLimits, choose, metadata};
use crate::model::{RuntimeKind, Signature};

/// Value of `schema` in an inspection.
pub const INSPECTION_SCHEMA: &str = "swapstream.inspection/v1";

/// What is known of an ONNX file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Inspection {
    /// Always `swapstream.inspection/v1`.
    pub schema: String,
    /// Size of the file.
    pub bytes: usize,
    /// What the file says about itself.
    pub summary: OnnxSummary,
    /// Why this build cannot run it.
    pub refused: Option<String>,
    /// What was found by running it, by the first runtime that can.
    pub runs: Option<Runs>,
    /// What the other runtimes of this build make of it.
    #[serde(default)]
    pub others: Vec<Attempt>,
}

/// What one runtime makes of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// The runtime.
    pub runtime: String,
    /// Why it cannot run it.
    pub refused: Option<String>,
    /// What was found by running it.
    pub runs: Option<Runs>,
}

/// What was found by compiling and running a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Runs {
    /// What runs it.
    pub runtime: String,
    /// Inputs and outputs, the batch axis dropped.
    pub signature: Signature,
    /// Whether a row's output bits were found not to depend on its batch and position.
    pub batch_invariant: bool,
    /// Rows that the largest plan takes; larger batches are split.
    pub plan_rows: usize,
    /// How many plans there are; 0 with ONNX Runtime, which has none.
    #[serde(default)]
    pub plans: usize,
    /// Bytes of the plans' constants and tables; 0 with ONNX Runtime, which does not tell.
    #[serde(default)]
    pub plan_bytes: usize,
    /// Time to load it, the checks included.
    pub compile_ms: f64,
    /// Time per batch on one thread of this machine; empty where the model fails on random rows.
    pub timings: Vec<BatchTime>,
}

/// Looks into `bytes`, compiles them for each runtime that this build has and times them. An error
/// only where they are no ONNX file.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, LoadError> {
    let summary = metadata(bytes)?;
    let mut attempts: Vec<(RuntimeKind, Result<Compiled, String>)> =
        choose::candidates(RuntimeKind::Auto)
            .iter()
            .map(|kind| (*kind, Compiled::new(bytes, *kind)))
            .collect();
    let running = attempts
        .iter()
        .filter_map(|(_, compiled)| Some(&*compiled.as_ref().ok()?.model));
    let mut times = measure(&running.collect::<Vec<_>>()).into_iter();
    let runs = |compiled: Compiled, timings: Option<Vec<BatchTime>>| {
        let info = compiled.model.info();
        Runs {
            runtime: info.runtime.to_owned(),
            signature: compiled.model.signature().clone(),
            batch_invariant: info.batch_invariant,
            plan_rows: info.plan_rows,
            plans: info.plans,
            plan_bytes: info.plan_bytes,
            compile_ms: compiled.compile_ms,
            timings: timings.unwrap_or_default(),
        }
    };
    let mut attempts: Vec<Attempt> = attempts
        .drain(..)
        .map(|(kind, compiled)| {
            let (refused, runs) = match compiled {
                Ok(compiled) => (None, Some(runs(compiled, times.next()))),
                Err(why) => (Some(why), None),
            };
            Attempt {
                runtime: kind.as_str().to_owned(),
                refused,
                runs,
            }
        })
        .collect();
    // What `auto` takes, golden rows aside; where nothing runs, what the default runtime says.
    let chosen = attempts.iter().position(|attempt| attempt.runs.is_some());
    let chosen = attempts.remove(chosen.unwrap_or(0));
    Ok(Inspection {
        schema: INSPECTION_SCHEMA.to_owned(),
        bytes: bytes.len(),
        summary,
        refused: chosen.refused,
        runs: chosen.runs,
        others: attempts,
    })
}

/// A model and how long it took to make.
struct Compiled {
    model: Arc<dyn CompiledModel>,
    compile_ms: f64,
}

impl Compiled {
    fn new(bytes: &[u8], kind: RuntimeKind) -> Result<Self, String> {
        let start = Instant::now();
        let model = choose::load(bytes, kind, LoadLimits::default());
        let model = model.map_err(|error| error.message)?;
        let compile_ms = start.elapsed().as_secs_f64() * 1e3;
        Ok(Self { model, compile_ms })
    }
}
