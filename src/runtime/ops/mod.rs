//! Our own operators, where tract has none or a wrong or slow one.

mod trees;

use tract_onnx::Onnx;

/// Registers all of them.
pub(super) fn register(onnx: &mut Onnx) {
    trees::register(onnx);
}
