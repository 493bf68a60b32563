//! Puts operators of our own in the place of tract's, in a graph that tract has simplified.

use tract_onnx::prelude::{DatumType, TractResult, TypedModel, TypedOp};
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::nn::SoftmaxKind;
use tract_onnx::tract_core::ops::nn::{Reduce as TractReduce, Reducer, Softmax as TractSoftmax};

use super::convolutions::replace_convolutions;
use super::kernel::typed;
use super::packed::Packed;
use super::products::replace_products;
use super::reduce::{Reduce, Reduction};
use super::rows::Rows;
use super::softmax::Softmax;

/// Replaces what rounds by a row's place in memory. The graph's facts stay as they are, but for
/// integers that are given as such.
pub(in crate::runtime) fn replace(model: &mut TypedModel, packed: &Packed) -> TractResult<()> {
    give_integers(model)?;
    replace_convolutions(model, packed)?;
    replace_products(model, packed)?;
    let replaced: Vec<(usize, Box<dyn TypedOp>)> = model
        .nodes
        .iter()
        .filter_map(|node| {
            let fact = model.outlet_fact(*node.inputs.first()?).ok()?;
            if fact.datum_type != DatumType::F32 {
                return None;
            }
            let shape = fact.shape.as_concrete()?;
            Some((node.id, instead_of(&*node.op, shape)?))
        })
        .collect();
    for (id, op) in replaced {
        if let Some(node) = model.nodes.iter_mut().find(|node| node.id == id) {
            node.op = op;
        }
    }
    Ok(())
}

/// Outputs that are integers cast to integers are what was cast. tract reads ONNX's cast to `int64`
/// as one to dimensions, which are symbolic and slow; the labels of `LightGBM` end in such a cast.
fn give_integers(model: &mut TypedModel) -> TractResult<()> {
    let outputs = model.outputs.iter().map(|outlet| {
        let node = model.node(outlet.node);
        let to = node.op_as::<Cast>().map(|cast| cast.to);
        match *node.inputs.as_slice() {
            [input] if matches!(to, Some(DatumType::TDim | DatumType::I64)) => {
                let is_integer = model.outlet_fact(input)?.datum_type == DatumType::I64;
                Ok(if is_integer { input } else { *outlet })
            }
            _ => Ok(*outlet),
        }
    });
    model.outputs = outputs.collect::<TractResult<_>>()?;
    Ok(())
}

/// Our operator for `op` on floats of `shape`.
fn instead_of(op: &dyn TypedOp, shape: &[usize]) -> Option<Box<dyn TypedOp>> {
    if let Some(softmax) = op.downcast_ref::<TractSoftmax>() {
        Rows::along(shape, &softmax.axes)?;
        return Some(typed(Softmax {
            axes: softmax.axes.clone(),
            log: softmax.kind == SoftmaxKind::LogSoftmax,
        }));
    }
    let reduce = op.downcast_ref::<TractReduce>()?;
    Rows::along(shape, &reduce.axes)?;
    let reduction = match reduce.reducer {
        Reducer::Sum => Reduction::Sum,
        Reducer::MeanOfSquares => Reduction::MeanOfSquares,
        Reducer::ArgMax(last) => Reduction::ArgMax { last },
        Reducer::ArgMin(last) => Reduction::ArgMin { last },
        // Their result does not depend on the order.
        Reducer::Max | Reducer::Min | Reducer::Prod | Reducer::All | Reducer::Any => return None,
    };
    Some(typed(Reduce {
        axes: reduce.axes.clone(),
        reduction,
    }))
}
