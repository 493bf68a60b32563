//! Operators of the standard domain that tract gets wrong or lacks, put right.

mod precise;
mod qlinear;

use tract_onnx::Onnx;

pub(super) use precise::make_precise;

/// Puts our operators in the place of tract's.
pub(super) fn register(onnx: &mut Onnx) {
    onnx.op_register.insert("QLinearMatMul", qlinear::build);
}
