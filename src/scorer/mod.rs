//! Scores a batch of events with one version: decode, infer, encode. What fails is told row by
//! row; a failing row never takes its neighbours with it. Used by the workers, by `score` and by
//! the golden check, so that all three answer alike.

pub mod golden;
pub mod warm_up;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::{
    Columns, Decoder, InputRef, NonFiniteOutputs, PredictionEncoder, RowError, Stage,
};
use crate::model::{Contract, Digest, ModelName, Version};
use crate::runtime::{CompiledModel, RunError, Runner};

/// What predictions are tagged with.
#[derive(Debug, Clone, Copy)]
pub struct Tag<'a> {
    /// The model's name; `score` may have none.
    pub model: Option<&'a ModelName>,
    /// The version; `score` has none.
    pub version: Option<&'a Version>,
    /// Digest of the artifact.
    pub digest: &'a Digest,
    /// Revision of the deployment event; `score` has none.
    pub revision: Option<i64>,
}

/// A decoded event: its row in the batch and its included fields.
#[derive(Debug, Clone)]
struct Row {
    row: usize,
    include: Range<usize>,
}

/// Scores batches with one version. Each thread has its own; memory is reused from batch to
/// batch.
pub struct Scorer {
    compiled: Arc<dyn CompiledModel>,
    runner: Box<dyn Runner>,
    decoder: Decoder,
    encoder: PredictionEncoder,
    includes: bool,
    inputs: Columns,
    outputs: Columns,
    included: Vec<u8>,
    rows: Vec<Result<Row, RowError>>,
}

impl std::fmt::Debug for Scorer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scorer")
            .field("compiled", &self.compiled)
            .finish_non_exhaustive()
    }
}

impl Scorer {
    /// A scorer for `compiled`, whose predictions copy the event fields `include`.
    pub fn new(
        compiled: Arc<dyn CompiledModel>,
        contract: &Contract,
        tag: Tag<'_>,
        include: &[String],
        non_finite: NonFiniteOutputs,
    ) -> Result<Self, RunError> {
        let runner = compiled.runner()?;
        let signature = compiled.signature();
        Ok(Self {
            decoder: Decoder::new(contract, include),
            encoder: PredictionEncoder::new(
                tag.model,
                tag.version,
                tag.digest,
                tag.revision,
                contract,
                non_finite,
            ),
            includes: !include.is_empty(),
            inputs: Columns::new(&signature.inputs),
            outputs: Columns::new(&signature.outputs),
            included: Vec::new(),
            rows: Vec::new(),
            runner,
            compiled,
        })
    }

    /// Forgets the last batch.
    pub fn clear(&mut self) {
        self.inputs.clear();
        self.included.clear();
        self.rows.clear();
    }

    /// Adds an event to the batch; the n-th one added has index n.
    pub fn push(&mut self, event: Option<&[u8]>) {
        let row = self.inputs.rows;
        let start = self.included.len();
        let decoded = self
            .decoder
            .decode(event, &mut self.inputs, &mut self.included);
        self.rows.push(decoded.map(|()| Row {
            row,
            include: start..self.included.len(),
        }));
    }

    /// Number of events in the batch.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the batch has no events.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Runs the model over all events that could be decoded; gives their number and the time the
    /// model took. Where the batch fails, every row is run alone, and only the rows that fail then
    /// are condemned.
    pub fn run(&mut self) -> (usize, Duration) {
        let rows = self.inputs.rows;
        if rows == 0 {
            return (0, Duration::ZERO);
        }
        let start = Instant::now();
        if let Err(error) = self.runner.run(&self.inputs, &mut self.outputs) {
            tracing::debug!(rows, "batch failed, scoring row by row: {error}");
            self.run_row_by_row();
        }
        (rows, start.elapsed())
    }

    fn run_row_by_row(&mut self) {
        let mut all = Columns::new(&self.compiled.signature().outputs);
        for decoded in &mut self.rows {
            let Ok(row) = decoded else { continue };
            match self
                .runner
                .run(&self.inputs.row(row.row), &mut self.outputs)
            {
                Ok(()) => {
                    row.row = all.rows;
                    all.append(&self.outputs);
                }
                Err(error) => *decoded = Err(row_error(&error)),
            }
        }
        self.outputs = all;
    }

    /// Appends the prediction of the event with `index` to `out`.
    ///
    /// # Errors
    /// Why the event has no prediction; `out` is left as it was.
    pub fn encode(
        &self,
        index: usize,
        input: InputRef<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), RowError> {
        let row = match self.rows.get(index) {
            Some(Ok(row)) => row,
            Some(Err(error)) => return Err(error.clone()),
            None => return Err(RowError::new(Stage::Encode, "internal", "no such event")),
        };
        let include = self
            .included
            .get(row.include.clone())
            .filter(|_| self.includes);
        let before = out.len();
        let encoded = self
            .encoder
            .encode(&self.outputs, row.row, input, include, out);
        if encoded.is_err() {
            out.truncate(before);
        }
        encoded
    }
}

fn row_error(error: &RunError) -> RowError {
    let class = match error {
        RunError::Failed(_) => "runtime_error",
        RunError::Panicked(_) => "model_panicked",
    };
    RowError::new(Stage::Infer, class, error.to_string())
}
