//! From a graph to one plan of tract's, for inputs whose types and shapes are known.

use tract_onnx::Onnx;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{
    Framework, InferenceFact, InferenceModel, InferenceModelExt, TractResult, TypedModel, TypedNode,
};
use tract_onnx::tract_hir::internal::{Cost, DimLike};

pub(super) use super::ops::Packed;
use super::{LoadError, brief, ops, panics, standard};

/// tract with the operators that this build runs.
pub(super) fn framework() -> Onnx {
    // What exporters note about inner tensors contradicts a pinned batch.
    let mut onnx = ops::onnx().with_ignore_value_info(true);
    standard::register(&mut onnx);
    onnx
}

/// The graph as tract reads it. All plans are made of it, so that they share what they can.
pub(super) fn parse(proto: &ModelProto) -> TractResult<InferenceModel> {
    framework().model_for_proto_model(proto)
}

/// The graph with all types and shapes known, for inputs of `facts`.
pub(super) fn typed(parsed: &InferenceModel, facts: &[InferenceFact]) -> TractResult<TypedModel> {
    let mut model = parsed.clone();
    for (index, fact) in facts.iter().enumerate() {
        model.set_input_fact(index, fact.clone())?;
    }
    let mut model = model.into_typed()?;
    standard::make_precise(&mut model);
    Ok(model)
}

/// A graph that is ready to be planned.
pub(super) struct Prepared {
    pub(super) model: TypedModel,
    /// Why it is not optimised, where it is not: some graphs that tract cannot simplify run as
    /// they are.
    pub(super) failure: Option<Trouble>,
}

/// The graph optimised for inputs of `facts`, or as it is where tract cannot optimise it. Matrices
/// that it shares with another plan of `packed` are kept once.
pub(super) fn prepare(
    parsed: &InferenceModel,
    facts: &[InferenceFact],
    packed: &Packed,
) -> Result<Prepared, Trouble> {
    let typed = || typed(parsed, facts);
    let optimised = guarded(|| {
        let mut model = typed()?;
        model.declutter()?;
        ops::replace(&mut model, packed)?;
        model.optimize()?;
        Ok(model)
    });
    match optimised {
        Ok(model) => Ok(Prepared {
            model,
            failure: None,
        }),
        Err(failure) => match guarded(|| {
            let mut model = typed()?;
            ops::replace(&mut model, packed)?;
            Ok(model)
        }) {
            Ok(model) => Ok(Prepared {
                model,
                failure: Some(failure),
            }),
            Err(_) => Err(failure),
        },
    }
}

/// How many multiplications a run takes, as far as the operators tell; loops count once.
pub(super) fn multiplications(model: &TypedModel) -> usize {
    let of = |node: &TypedNode| {
        let facts = model.node_input_facts(node.id).ok()?;
        let costs = node.op.cost(&facts).ok()?;
        let known = costs
            .iter()
            .filter(|(cost, _)| matches!(cost, Cost::FMA(_)));
        Some(
            known
                .filter_map(|(_, times)| times.to_usize().ok())
                .sum::<usize>(),
        )
    };
    model.nodes.iter().filter_map(of).sum()
}

/// Refuses a graph in which the size of a tensor hangs on the values of an event: one event could
/// take all memory, and an allocation that fails ends the process.
pub(super) fn check_bounded(model: &TypedModel) -> Result<(), LoadError> {
    for node in &model.nodes {
        for output in &node.outputs {
            if output.fact.shape.as_concrete().is_none() {
                return Err(LoadError::new(format!(
                    "the size of what node {:?} ({}) computes depends on the data; the memory that \
                     the model takes would have no bound",
                    node.name,
                    node.op.name()
                )));
            }
        }
    }
    Ok(())
}

/// Why tract cannot do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    Failed(String),
    Panicked(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "tract cannot compile the model: {error}"),
            Self::Panicked(panic) => write!(f, "tract cannot compile the model: panic: {panic}"),
        }
    }
}

/// Runs `work` of tract's; an error or a panic becomes its message.
pub(super) fn guarded<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, Trouble> {
    match panics::catch(work) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Trouble::Failed(brief(&error))),
        Err(panic) => Err(Trouble::Panicked(panic)),
    }
}
