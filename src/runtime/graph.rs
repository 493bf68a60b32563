//! Runs any graph on tensors of any shape, through the same parsing, operators and plans as a
//! model that serves. For conformance tests: a model that serves has a batch axis and a contract,
//! a test of one operator has neither.

use std::sync::Arc;

use tract_onnx::prelude::{DatumType, InferenceFact, IntoTValue, TVec, Tensor, TypedSimplePlan};
use tract_onnx::{data_resolver, pb, tensor};

use super::onnx_file::{self, LoadLimits};
use super::plan::{self, Packed, Trouble, guarded};
use super::summary::{OnnxSummary, OnnxValue, OperatorCount};
use super::{panics, support, types};

/// Inputs of at most this many elements are made initialisers when that is asked for.
const MOST_FOLDED: usize = 1024;

/// Why a graph gives no outputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// It is refused, or fails with an error.
    #[error("{0}")]
    Refused(String),
    /// Something panicked.
    #[error("panic: {0}")]
    Panicked(String),
}

impl From<Trouble> for GraphError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Failed(error) => Self::Refused(error),
            Trouble::Panicked(panic) => Self::Panicked(panic),
        }
    }
}

fn refused(error: impl std::fmt::Display) -> GraphError {
    GraphError::Refused(error.to_string())
}

/// A tensor in plain types.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainTensor {
    /// Element type in ONNX's own words, lower-case.
    pub element: String,
    /// Axes.
    pub shape: Vec<usize>,
    /// Elements, row by row.
    pub values: PlainValues,
}

/// Elements of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum PlainValues {
    /// Floats and integers.
    Numbers(Vec<f64>),
    /// Booleans.
    Booleans(Vec<bool>),
    /// Strings.
    Strings(Vec<String>),
}

/// Reads a serialised `TensorProto`.
pub fn read_tensor(bytes: &[u8]) -> Result<PlainTensor, GraphError> {
    plain(&load(&parse_tensor(bytes)?)?)
}

/// Runs `model` on `inputs`, each a serialised `TensorProto`, and gives all outputs.
///
/// With `fold`, inputs after the first become initialisers where they are small, as exporters
/// write them.
pub fn run_graph(
    model: &[u8],
    inputs: &[Vec<u8>],
    fold: bool,
) -> Result<Vec<PlainTensor>, GraphError> {
    let file = onnx_file::parse(model, &LoadLimits::default()).map_err(refused)?;
    support::check(&file.summary).map_err(refused)?;
    let mut proto = file.proto;
    let declared = file.summary.inputs.iter().chain(&file.summary.outputs);
    declared.into_iter().try_for_each(check_declared)?;
    let graph = proto.graph.get_or_insert_default();
    let constants = graph.initializer.iter().map(|tensor| tensor.name.clone());
    let constants: Vec<String> = constants.collect();
    graph.input.retain(|input| !constants.contains(&input.name));
    if inputs.len() != graph.input.len() {
        let (given, takes) = (inputs.len(), graph.input.len());
        let message = format!("the graph takes {takes} inputs, {given} are given");
        return Err(GraphError::Refused(message));
    }
    let mut tensors: TVec<Tensor> = TVec::new();
    let mut folded = Vec::new();
    for (index, bytes) in inputs.iter().enumerate() {
        let mut constant = parse_tensor(bytes)?;
        let tensor = load(&constant)?;
        let name = graph.input.get(index).map(|input| input.name.clone());
        if fold && index > 0 && tensor.len() <= MOST_FOLDED {
            constant.name = name.unwrap_or_default();
            folded.push(constant);
        } else {
            tensors.push(tensor);
        }
    }
    graph
        .input
        .retain(|input| !folded.iter().any(|constant| constant.name == input.name));
    graph.initializer.extend(folded);
    run(&proto, tensors)
}

/// What a model that serves may declare, and float16.
fn check_declared(value: &OnnxValue) -> Result<(), GraphError> {
    match value.element.as_deref() {
        Some("float16") => Ok(()),
        Some(_) if value.element_type().is_some() => Ok(()),
        Some(other) => Err(refused(format!(
            "the element type {other} is not supported"
        ))),
        None => Err(refused(
            "sequences, maps and optional values are not supported",
        )),
    }
}

fn run(proto: &pb::ModelProto, inputs: TVec<Tensor>) -> Result<Vec<PlainTensor>, GraphError> {
    let facts: Vec<InferenceFact> = inputs
        .iter()
        .map(|tensor| InferenceFact::dt_shape(tensor.datum_type(), tensor.shape()))
        .collect();
    let parsed = guarded(|| plan::parse(proto))?;
    let prepared = plan::prepare(&parsed, &facts, &Packed::default())?;
    let plan = guarded(|| TypedSimplePlan::new(prepared.model))?;
    let inputs: TVec<_> = inputs.into_iter().map(IntoTValue::into_tvalue).collect();
    let outputs = guarded(|| Arc::clone(&plan).run(inputs))?;
    outputs.iter().map(|output| plain(output)).collect()
}

fn parse_tensor(bytes: &[u8]) -> Result<pb::TensorProto, GraphError> {
    tensor::proto_from_reader(bytes).map_err(refused)
}

fn load(proto: &pb::TensorProto) -> Result<Tensor, GraphError> {
    let resolver = data_resolver::default();
    match panics::catch(|| tensor::load_tensor(&*resolver, proto, None)) {
        Ok(tensor) => tensor.map_err(refused),
        // tract has no such element type.
        Err(panic) => Err(GraphError::Refused(panic)),
    }
}

fn plain(tensor: &Tensor) -> Result<PlainTensor, GraphError> {
    let element = match tensor.datum_type() {
        DatumType::F16 => "float16".to_owned(),
        other => types::element_type(other)
            .map(|element| element.to_string())
            .ok_or_else(|| refused(format!("the element type {other:?} is not supported")))?,
    };
    let values = match tensor.datum_type() {
        DatumType::Bool => PlainValues::Booleans(elements(tensor)?),
        DatumType::String => PlainValues::Strings(elements(tensor)?),
        DatumType::TDim => {
            let lengths = tensor.cast_to::<i64>().map_err(refused)?;
            PlainValues::Numbers(elements(&*lengths.cast_to::<f64>().map_err(refused)?)?)
        }
        _ => PlainValues::Numbers(elements(&*tensor.cast_to::<f64>().map_err(refused)?)?),
    };
    Ok(PlainTensor {
        element,
        shape: tensor.shape().to_vec(),
        values,
    })
}

fn elements<T: tract_onnx::prelude::Datum + Clone>(tensor: &Tensor) -> Result<Vec<T>, GraphError> {
    let view = tensor.try_as_plain_ram().map_err(refused)?;
    Ok(view.as_slice::<T>().map_err(refused)?.to_vec())
}

/// Whether this build runs an operator at all.
pub fn runs_operator(domain: &str, operator: &str) -> bool {
    let summary = OnnxSummary {
        operators: vec![OperatorCount {
            domain: domain.to_owned(),
            op_type: operator.to_owned(),
            count: 1,
        }],
        ..OnnxSummary::default()
    };
    support::check(&summary).is_ok()
}
