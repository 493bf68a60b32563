//! Our own operators, where tract has none or a wrong or slow one.

mod trees;

use tract_onnx::Onnx;

/// tract's reader of ONNX files, with our operators.
pub(super) fn onnx() -> Onnx {
    let mut onnx = tract_onnx::onnx();
    register(&mut onnx);
    onnx
}

/// Registers all of them.
pub(super) fn register(onnx: &mut Onnx) {
    trees::register(onnx);
}
