//! What `inspect` tells about a file: what is in it, whether this build runs it, and how fast.

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::samples::{Random, append, random_row};
use super::summary::OnnxSummary;
use super::{CompileOptions, CompiledModel, LoadError, RunError, compile, live_rows, metadata};
use crate::codec::Columns;
use crate::model::Signature;

/// Value of `schema` in an inspection.
pub const INSPECTION_SCHEMA: &str = "swapstream.inspection/v1";

/// The batch sizes that are timed.
const BATCHES: [usize; 5] = [1, 8, 32, 128, 512];

/// A batch size is timed in this many rounds, or as many as fit into [`TIME_PER_BATCH`].
const ROUNDS: usize = 51;
const TIME_PER_BATCH: Duration = Duration::from_millis(300);

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
    /// Rows that one plan takes.
    pub plan_rows: usize,
    /// Time to load it, the checks included.
    pub compile_ms: f64,
    /// Time per batch on one thread of this machine; empty where the model fails on random rows.
    pub timings: Vec<BatchTime>,
}

/// Time per batch of one size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BatchTime {
    /// Rows of the batch.
    pub rows: usize,
    /// Median time to run it.
    pub median_us: f64,
}

/// Looks into `bytes`, compiles them and times the model. An error only where they are no ONNX
/// file.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, LoadError> {
    let summary = metadata(bytes)?;
    let (refused, runs) = match runs(bytes) {
        Ok(runs) => (None, Some(runs)),
        Err(error) => (Some(error.message), None),
    };
    Ok(Inspection {
        schema: INSPECTION_SCHEMA.to_owned(),
        bytes: bytes.len(),
        summary,
        refused,
        runs,
    })
}

fn runs(bytes: &[u8]) -> Result<Runs, LoadError> {
    let start = Instant::now();
    let model = compile(bytes, &CompileOptions::default())?;
    let compile_ms = start.elapsed().as_secs_f64() * 1e3;
    let info = model.info();
    let timings = live_rows::on_trial(|| BATCHES.map(|rows| time(&*model, rows)));
    Ok(Runs {
        runtime: info.runtime.to_owned(),
        signature: model.signature().clone(),
        batch_invariant: info.batch_invariant,
        plan_rows: info.plan_rows,
        compile_ms,
        timings: timings.into_iter().filter_map(Result::ok).collect(),
    })
}

fn time(model: &dyn CompiledModel, rows: usize) -> Result<BatchTime, RunError> {
    let signature = model.signature();
    let mut random = Random(rows as u64);
    let mut inputs = Columns::new(&signature.inputs);
    for _ in 0..rows {
        append(
            &mut inputs,
            &random_row(&signature.inputs, &mut random, 1.0),
        );
    }
    let mut outputs = Columns::new(&signature.outputs);
    let mut runner = model.runner()?;
    runner.run(&inputs, &mut outputs)?;
    let begin = Instant::now();
    let mut times = Vec::with_capacity(ROUNDS);
    while times.is_empty() || (times.len() < ROUNDS && begin.elapsed() < TIME_PER_BATCH) {
        let start = Instant::now();
        runner.run(&inputs, &mut outputs)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    Ok(BatchTime {
        rows,
        median_us: median.as_secs_f64() * 1e6,
    })
}
