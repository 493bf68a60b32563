//! What executes a model. The only importer of tract and of ONNX Runtime.
//!
//! A runtime compiles an ONNX file into a [`CompiledModel`], shared by all workers; each worker
//! gets a [`Runner`] of its own from it, which keeps the state of a run and reuses it.
//!
//! ```text
//! bytes ─▶ onnx_file (is it ONNX?) ─▶ summary ─▶ support (operators) ─▶ axes (where is the batch?)
//!       ─▶ tract (a few plans) ─▶ run on zeros ─▶ invariance ─▶ CompiledModel ─▶ runner (one a worker)
//!       └▶ onnxruntime (a session), instead or where tract refuses: choose
//! ```
//!
//! A model is not trusted: whatever it does while it is loaded or run comes back as an error.

mod axes;
mod choose;
mod clock;
mod direct;
mod fingerprint;
mod footprint;
#[doc(hidden)]
pub mod graph;
mod inspect;
mod invariance;
mod live_rows;
mod maps;
mod measure;
mod onnx_file;
#[cfg(feature = "onnxruntime")]
mod onnxruntime;
mod ops;
mod panics;
mod plan;
mod plans;
mod runner;
mod samples;
mod settings;
mod standard;
mod summary;
mod support;
mod tract;
mod types;
mod values;

use std::fmt;

use tract_onnx::prelude::TractError;

use crate::codec::Columns;
use crate::model::Signature;

pub use choose::{all_refusals, candidates, check_onnxruntime, configure, load};
pub(crate) use clock::thread_time;
pub use fingerprint::fingerprint;
pub use inspect::{Attempt, INSPECTION_SCHEMA, Inspection, Runs, inspect};
pub use measure::{BatchTime, faster, measure};
pub use onnx_file::{LoadLimits, metadata};
pub use plans::PLAN_ROWS;
pub use settings::RuntimeSettings;
pub use summary::{OnnxDim, OnnxSummary, OnnxValue, OperatorCount};
pub use tract::{CompileOptions, compile};

/// Why a file cannot be loaded. Permanent: the same bytes fail again on the same build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LoadError {
    /// What is wrong, naming the operator, tensor or axis.
    pub message: String,
}

impl LoadError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }
}

/// Why a batch could not be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The runtime gave an error.
    #[error("{0}")]
    Failed(String),
    /// The runtime panicked. The runner starts anew and can be used on.
    #[error("the model panicked: {0}")]
    Panicked(String),
}

/// What is known of a compiled model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledInfo {
    /// The runtime's name: `tract` or `onnxruntime`.
    pub runtime: &'static str,
    /// Whether a row's output bits were found not to depend on its batch and position.
    pub batch_invariant: bool,
    /// Rows that the largest plan takes; larger batches are split. ONNX Runtime has no plans, but
    /// splits as well.
    pub plan_rows: usize,
    /// How many plans there are; 0 where the runtime has none.
    pub plans: usize,
    /// Bytes of the plans' constants and tables, those that they share counted once; 0 where the
    /// runtime does not tell.
    pub plan_bytes: usize,
}

/// A model that is ready to run. Shared by all workers.
pub trait CompiledModel: Send + Sync + fmt::Debug {
    /// Inputs and outputs.
    fn signature(&self) -> &Signature;
    /// What else is known.
    fn info(&self) -> &CompiledInfo;
    /// A runner for one worker thread.
    fn runner(&self) -> Result<Box<dyn Runner>, RunError>;
}

/// One thread's way to run a model.
pub trait Runner: Send {
    /// Runs `inputs` (at least one row; columns in the order of the signature's inputs) and puts
    /// as many rows of each output into `outputs`, which is cleared first. The bits of a row do
    /// not depend on the others. A panic inside the runtime is caught and comes back as
    /// [`RunError::Panicked`].
    fn run(&mut self, inputs: &Columns, outputs: &mut Columns) -> Result<(), RunError>;
}

/// An error of tract's with its causes.
fn brief(error: &TractError) -> String {
    one_line(&format!("{error:#}"))
}

/// `text` on one line, and not longer than people read.
fn one_line(text: &str) -> String {
    const MOST: usize = 400;
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(MOST) {
        line.truncate(end);
        line.push('…');
    }
    line
}
