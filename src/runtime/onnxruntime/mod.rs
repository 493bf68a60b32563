//! Runs models with ONNX Runtime: a shared library that is loaded when the first model asks for it.
//!
//! A batch runs at its own size where that leaves the bits of its rows alone; where kernels differ
//! by the size of the batch, it is padded to a multiple that was found to be safe.

mod element;
mod library;
mod session;

use std::sync::Arc;

use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};
use prost::Message;

use self::session::{Batching, OnnxRuntimeRunner, Sessions};
use super::axes::{self, Computed};
use super::invariance::Purpose;
use super::maps::Maps;
use super::onnx_file::{self, OnnxFile};
use super::summary::OnnxValue;
use super::{
    CompileOptions, CompiledInfo, CompiledModel, LoadError, RunError, Runner, invariance, panics,
    samples,
};
use crate::model::{ElementType, Signature, TensorSpec};

pub(super) use self::library::configure;

/// Most rows of one call where the model leaves the batch size open: it bounds the memory. Models
/// with large inputs get fewer, down to the second.
const MOST_ROWS: usize = 512;
const FEWEST_ROWS: usize = 32;

/// What batches may be padded to a multiple of, the cheapest first.
const MULTIPLES: [usize; 4] = [1, 2, 8, 32];

/// Batch sizes at which rows are compared with themselves alone, besides the largest one: kernels
/// change with the size.
const SIZES: [usize; 7] = [2, 3, 5, 8, 17, 32, 100];

/// The other batch size at which the outputs' shapes are looked at.
const OTHER_ROWS: usize = 7;

/// Whether the library is there; loads it.
pub(super) fn check() -> Result<(), LoadError> {
    library::environment().map(drop)
}

/// Loads `bytes` into a session, runs them on zeros, and finds out whether rows are independent.
pub(super) fn compile(
    bytes: &[u8],
    options: &CompileOptions,
) -> Result<Arc<dyn CompiledModel>, LoadError> {
    let OnnxFile {
        proto,
        maps,
        summary,
    } = onnx_file::parse(bytes, &options.limits)?;
    let (inputs, fixed_rows) = axes::inputs(&maps.declared_inputs(&summary.inputs), &maps)?;
    let most = fixed_rows.unwrap_or_else(|| most_rows(&inputs, options));
    axes::check_size(&inputs, most, &options.limits)?;

    // Maps are slow in ONNX Runtime too: it gets the graph without them.
    let sessions = if maps == Maps::default() {
        Sessions::new(bytes.into())
    } else {
        Sessions::new(proto.encode_to_vec().into())
    };
    let sessions = Arc::new(sessions?);
    let mut session = sessions.take()?;
    check_names("inputs", session.inputs(), &summary.inputs)?;
    check_names("outputs", session.outputs(), &summary.outputs)?;
    let first = computed(&mut session, &inputs, most)?;
    let outputs = axes::outputs(&summary.outputs, &maps, &first, most)?;
    if fixed_rows.is_none() {
        let other = computed(&mut session, &inputs, OTHER_ROWS)?;
        let other = axes::outputs(&summary.outputs, &maps, &other, OTHER_ROWS)?;
        axes::same_rows(&outputs, &other)?;
    }
    sessions.give_back(session);

    let signature = Arc::new(Signature { inputs, outputs });
    let weights = summary.initialiser_bytes;
    let (batching, batch_invariant) =
        find_batching(&sessions, &signature, fixed_rows, most, weights)?;
    Ok(Arc::new(OnnxRuntimeModel {
        sessions,
        signature,
        batching,
        info: CompiledInfo {
            runtime: "onnxruntime",
            batch_invariant,
            plan_rows: most,
            plans: 0,
            plan_bytes: 0,
        },
    }))
}

/// As many as the limits allow; a power of two, and so a multiple of what batches are padded to.
fn most_rows(inputs: &[TensorSpec], options: &CompileOptions) -> usize {
    let widest = inputs.iter().map(TensorSpec::row_len).max().unwrap_or(1);
    let fit = options.limits.max_input_values / widest.max(1);
    let mut most = MOST_ROWS;
    while most > fit && most > FEWEST_ROWS {
        most /= 2;
    }
    most
}

/// ONNX Runtime and we must mean the same tensors.
fn check_names(what: &str, theirs: &[Outlet], ours: &[OnnxValue]) -> Result<(), LoadError> {
    let theirs: Vec<&str> = theirs.iter().map(Outlet::name).collect();
    let ours: Vec<&str> = ours.iter().map(|value| value.name.as_str()).collect();
    if theirs == ours {
        return Ok(());
    }
    Err(LoadError::new(format!(
        "ONNX Runtime sees the {what} {theirs:?}, the file declares {ours:?}"
    )))
}

/// What the outputs are for a batch of `rows` zeros.
fn computed(
    session: &mut Session,
    inputs: &[TensorSpec],
    rows: usize,
) -> Result<Vec<Computed>, LoadError> {
    let zeros = samples::zeros(inputs, rows);
    let failed =
        |why: &str| LoadError::new(format!("fails on a batch of {rows} rows of zeros: {why}"));
    let run = || -> Result<Vec<Computed>, String> {
        let tensors = session::tensors(inputs, &zeros, 0..rows)?;
        let values = session
            .run(&tensors[..])
            .map_err(|error| session::text(&error))?;
        Ok(values.values().map(|value| of(value.dtype())).collect())
    };
    match panics::catch(run) {
        Ok(Ok(computed)) => Ok(computed),
        Ok(Err(why)) => Err(failed(&why)),
        Err(panic) => Err(failed(&format!("panic: {panic}"))),
    }
}

fn of(computed: &ValueType) -> Computed {
    match computed {
        ValueType::Tensor { ty, shape, .. } => Computed {
            element: element_type(*ty),
            shape: shape
                .iter()
                .map(|axis| usize::try_from(*axis).ok())
                .collect(),
        },
        _ => Computed {
            element: None,
            shape: Vec::new(),
        },
    }
}

/// Our word for what ONNX Runtime computes; `None` where we have none.
fn element_type(theirs: TensorElementType) -> Option<ElementType> {
    Some(match theirs {
        TensorElementType::Float32 => ElementType::Float,
        TensorElementType::Float64 => ElementType::Double,
        TensorElementType::Int8 => ElementType::Int8,
        TensorElementType::Int16 => ElementType::Int16,
        TensorElementType::Int32 => ElementType::Int32,
        TensorElementType::Int64 => ElementType::Int64,
        TensorElementType::Uint8 => ElementType::Uint8,
        TensorElementType::Uint16 => ElementType::Uint16,
        TensorElementType::Uint32 => ElementType::Uint32,
        TensorElementType::Uint64 => ElementType::Uint64,
        TensorElementType::Bool => ElementType::Bool,
        TensorElementType::String => ElementType::String,
        _ => return None,
    })
}

/// The cheapest way to cut batches that leaves the bits of a row alone; where there is none,
/// batches run as they come.
fn find_batching(
    sessions: &Arc<Sessions>,
    signature: &Arc<Signature>,
    fixed_rows: Option<usize>,
    most: usize,
    weights: usize,
) -> Result<(Batching, bool), LoadError> {
    let own_size = Batching {
        multiple: fixed_rows.unwrap_or(1),
        most,
    };
    let mut runner = OnnxRuntimeRunner::new(Arc::clone(sessions), Arc::clone(signature), own_size)?;
    let multiples: &[usize] = if fixed_rows.is_some() {
        &[own_size.multiple]
    } else {
        &MULTIPLES
    };
    for &multiple in multiples {
        let batching = Batching { multiple, most };
        runner.set_batching(batching);
        let sizes: Vec<usize> = SIZES
            .into_iter()
            .filter(|rows| *rows < most)
            .chain([most, most + 3])
            .collect();
        let purpose = Purpose::Decide { weights };
        if invariance::holds(&mut runner, signature, &sizes, purpose) {
            return Ok((batching, true));
        }
    }
    Ok((own_size, false))
}

/// A model that ONNX Runtime runs.
#[derive(Debug)]
struct OnnxRuntimeModel {
    sessions: Arc<Sessions>,
    signature: Arc<Signature>,
    batching: Batching,
    info: CompiledInfo,
}

impl CompiledModel for OnnxRuntimeModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn info(&self) -> &CompiledInfo {
        &self.info
    }

    fn runner(&self) -> Result<Box<dyn Runner>, RunError> {
        let sessions = Arc::clone(&self.sessions);
        let runner = OnnxRuntimeRunner::new(sessions, Arc::clone(&self.signature), self.batching);
        match runner {
            Ok(runner) => Ok(Box::new(runner)),
            Err(error) => Err(RunError::Failed(error.message)),
        }
    }
}
