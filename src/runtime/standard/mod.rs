//! Operators of the standard domain that tract gets wrong or lacks, put right.

mod precise;
mod qlinear;

use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::{NodeProto, TensorProto};
use tract_onnx::prelude::{IntoArcTensor, TractResult, tensor0};
use tract_onnx::tract_hir::internal::{InferenceOp, anyhow, expand};
use tract_onnx::tract_hir::ops::array::ConstantOfShape;

pub(super) use precise::make_precise;

/// Puts our operators in the place of tract's.
pub(super) fn register(onnx: &mut Onnx) {
    onnx.op_register.insert("ConstantOfShape", zeros_of_shape);
    onnx.op_register.insert("QLinearMatMul", qlinear::build);
}

/// `ConstantOfShape`, whose value is a float where none is given; tract's is a double.
fn zeros_of_shape(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let value = match node.get_attr_opt::<&TensorProto>("value")? {
        Some(value) => context.load_tensor(value)?,
        None => tensor0(0f32),
    };
    if value.len() != 1 {
        let len = value.len();
        return Err(anyhow!("ConstantOfShape takes one value, it has {len}"));
    }
    let value = value.nth(0)?.into_arc_tensor();
    Ok((expand(ConstantOfShape::new(value)), vec![]))
}
