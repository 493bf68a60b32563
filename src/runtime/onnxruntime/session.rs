//! The sessions of a model, and how batches go through one: padded to a multiple of rows, split
//! where they are larger than the most.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ort::session::builder::{PrepackedWeights, SessionBuilder};
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Shape};

use super::super::{LoadError, RunError, Runner, one_line, panics};
use super::element::Element;
use super::library;
use crate::codec::{Column, Columns};
use crate::model::{Signature, TensorSpec};
use crate::with_values;

/// Sessions of one model. A session runs one batch at a time, so every runner has one of its own;
/// what a runner gives back is used again. They share the weights that ONNX Runtime packs for its
/// kernels.
pub(super) struct Sessions {
    bytes: Box<[u8]>,
    weights: PrepackedWeights,
    idle: Mutex<Vec<Session>>,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

impl Sessions {
    /// Of the model `bytes`; none is made yet.
    pub(super) fn new(bytes: Box<[u8]>) -> Result<Self, LoadError> {
        library::environment()?;
        Ok(Self {
            bytes,
            weights: PrepackedWeights::new(),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// One that nobody uses, else a new one.
    pub(super) fn take(&self) -> Result<Session, LoadError> {
        let idle = self.idle().pop();
        match idle {
            Some(session) => Ok(session),
            None => self.make(),
        }
    }

    /// For whoever takes one next.
    pub(super) fn give_back(&self, session: Session) {
        self.idle().push(session);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self) -> Result<Session, LoadError> {
        let environment = library::environment()?;
        let refused = |why: &dyn fmt::Display| {
            let why = one_line(&why.to_string());
            LoadError::new(format!("ONNX Runtime refuses the model: {why}"))
        };
        let made = panics::catch(|| {
            let builder = SessionBuilder::new(environment)?;
            let mut builder = single_threaded(builder)?.with_prepacked_weights(&self.weights)?;
            builder.commit_from_memory(&self.bytes)
        });
        match made {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(error)) => Err(refused(&error)),
            Err(panic) => Err(refused(&format!("panic: {panic}"))),
        }
    }
}

/// A worker is one thread, and so is its session.
fn single_threaded(builder: SessionBuilder) -> ort::Result<SessionBuilder> {
    Ok(builder
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_parallel_execution(false)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?)
}

/// How batches are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Batching {
    /// Batches are padded to a multiple of this.
    pub(super) multiple: usize,
    /// And split to at most this, itself a multiple.
    pub(super) most: usize,
}

/// One worker's session.
pub(super) struct OnnxRuntimeRunner {
    sessions: Arc<Sessions>,
    signature: Arc<Signature>,
    batching: Batching,
    /// `None` after a panic; the next run takes another.
    session: Option<Session>,
    /// Rows with their padding.
    padded: Columns,
}

impl OnnxRuntimeRunner {
    pub(super) fn new(
        sessions: Arc<Sessions>,
        signature: Arc<Signature>,
        batching: Batching,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            session: Some(sessions.take()?),
            padded: Columns::new(&signature.inputs),
            sessions,
            signature,
            batching,
        })
    }

    /// From now on, batches are cut like this.
    pub(super) fn set_batching(&mut self, batching: Batching) {
        self.batching = batching;
    }

    fn run_all(&mut self, inputs: &Columns, outputs: &mut Columns) -> Result<(), String> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.sessions.take().map_err(|error| error.message)?,
        };
        let session = self.session.insert(session);
        let Batching { multiple, most } = self.batching;
        for start in (0..inputs.rows).step_by(most) {
            let rows = start..inputs.rows.min(start + most);
            let padded = rows.len().next_multiple_of(multiple);
            let (from, range) = if padded == rows.len() {
                (inputs, rows.clone())
            } else {
                pad(inputs, rows.clone(), padded, &mut self.padded)?;
                (&self.padded, 0..padded)
            };
            let tensors = tensors(&self.signature.inputs, from, range)?;
            let computed = session.run(&tensors[..]).map_err(|error| text(&error))?;
            if computed.len() != self.signature.outputs.len() {
                return Err("ONNX Runtime gave another number of outputs".to_owned());
            }
            let specs = self.signature.outputs.iter();
            let columns = specs.zip(computed.values()).zip(&mut outputs.columns);
            for ((spec, value), column) in columns {
                append(spec, &value, padded, rows.len(), column)?;
            }
            outputs.rows += rows.len();
        }
        Ok(())
    }
}

impl Runner for OnnxRuntimeRunner {
    fn run(&mut self, inputs: &Columns, outputs: &mut Columns) -> Result<(), RunError> {
        outputs.clear();
        let error = match panics::catch(|| self.run_all(inputs, outputs)) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => RunError::Failed(error),
            Err(panic) => {
                self.session = None;
                RunError::Panicked(panic)
            }
        };
        outputs.clear();
        Err(error)
    }
}

impl Drop for OnnxRuntimeRunner {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.sessions.give_back(session);
        }
    }
}

/// Copies `rows` into `to`, and the last of them again as often as it takes: zeros might be what an
/// operator refuses.
fn pad(
    columns: &Columns,
    rows: Range<usize>,
    padded: usize,
    to: &mut Columns,
) -> Result<(), String> {
    to.clear();
    for (to, from) in to.columns.iter_mut().zip(&columns.columns) {
        let range = rows.start * from.row_len..rows.end * from.row_len;
        if range.end > from.values.len() {
            return Err("a column has too few values".to_owned());
        }
        to.values.extend_from(&from.values, range);
        let last = (rows.end - 1) * from.row_len..rows.end * from.row_len;
        for _ in rows.len()..padded {
            to.values.extend_from(&from.values, last.clone());
        }
    }
    to.rows = padded;
    Ok(())
}

/// `rows` of `columns` as the model's inputs.
pub(super) fn tensors<'v>(
    specs: &[TensorSpec],
    columns: &'v Columns,
    rows: Range<usize>,
) -> Result<Vec<SessionInputValue<'v>>, String> {
    let pairs = specs.iter().zip(&columns.columns);
    let tensors = pairs.map(|(spec, column)| {
        let len = spec.row_len();
        let range = rows.start * len..rows.end * len;
        let axes = [rows.len()]
            .into_iter()
            .chain(spec.row_shape.iter().copied());
        let shape = Shape::new(axes.map(|axis| axis as i64));
        with_values!(&column.values, values => match values.get(range) {
            Some(values) => Element::tensor(shape, values).map_err(|error| text(&error)),
            None => Err(format!("the column of input {:?} has too few values", spec.name)),
        })
    });
    tensors.collect()
}

/// Appends the first `rows` of the `computed` rows of an output.
fn append(
    spec: &TensorSpec,
    value: &DynValue,
    computed: usize,
    rows: usize,
    column: &mut Column,
) -> Result<(), String> {
    let (len, take) = (computed * spec.row_len(), rows * spec.row_len());
    let expected = |shape: &[i64]| shape.first() == i64::try_from(computed).ok().as_ref();
    with_values!(&mut column.values, to => {
        Element::read(value, |shape, values| {
            if expected(shape) && values.len() == len {
                to.extend_from_slice(values.get(..take).unwrap_or_default());
                Ok(())
            } else {
                let name = &spec.name;
                Err(format!("output {name:?} has the shape {shape:?} for a batch of {computed}"))
            }
        })
        .map_err(|error| text(&error))?
    })
}

/// What an error of ONNX Runtime's says.
pub(super) fn text(error: &ort::Error) -> String {
    one_line(&error.to_string())
}
