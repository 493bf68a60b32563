//! What executes a model. The only importer of tract.
//!
//! A runtime compiles an ONNX file into a [`CompiledModel`], shared by all workers; each worker
//! gets a [`Runner`] of its own from it, which keeps the state of a run and reuses it.

use std::fmt;

use crate::codec::Columns;
use crate::model::Signature;

/// Why a file cannot be loaded. Permanent: the same bytes fail again on the same build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LoadError {
    /// What is wrong, naming the operator, tensor or axis.
    pub message: String,
}

/// Why a batch could not be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The runtime gave an error.
    #[error("{0}")]
    Failed(String),
    /// The runtime panicked; the runner must not be used again.
    #[error("the model panicked: {0}")]
    Panicked(String),
}

/// What is known of a compiled model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledInfo {
    /// The runtime's name: `tract`.
    pub runtime: &'static str,
    /// Whether a row's output bits were found not to depend on its batch and position.
    pub batch_invariant: bool,
    /// Rows that one plan takes; batches are padded or split to it.
    pub plan_rows: usize,
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
