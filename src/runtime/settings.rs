//! What executes models, validated.

use std::path::PathBuf;

/// Settings of the runtimes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuntimeSettings {
    /// ONNX Runtime's shared library; `None`: that of an installed Python wheel.
    pub onnxruntime_library: Option<PathBuf>,
}
