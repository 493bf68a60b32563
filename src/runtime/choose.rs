//! Which runtime runs a model: the one that its manifest names, or the first that can.

use std::sync::Arc;

use super::{CompileOptions, CompiledModel, LoadError, LoadLimits, RuntimeSettings, compile};
use crate::model::RuntimeKind;

#[cfg(not(feature = "onnxruntime"))]
const NOT_BUILT_IN: &str = "this build has no ONNX Runtime: build it with the cargo feature `onnxruntime`, or set the \
     manifest's runtime to \"tract\" or \"auto\"";

/// The runtimes to try for `kind`, in this order: what `auto` means depends on the model alone,
/// not on speed.
pub fn candidates(kind: RuntimeKind) -> &'static [RuntimeKind] {
    match kind {
        RuntimeKind::OnnxRuntime => &[RuntimeKind::OnnxRuntime],
        RuntimeKind::Auto if cfg!(feature = "onnxruntime") => {
            &[RuntimeKind::Tract, RuntimeKind::OnnxRuntime]
        }
        RuntimeKind::Tract | RuntimeKind::Auto => &[RuntimeKind::Tract],
    }
}

/// Makes a model out of an ONNX file, for the runtime that its manifest asks for. For `auto` the
/// first that takes the file; who has golden rows tries [`candidates`] one by one.
pub fn load(
    bytes: &[u8],
    kind: RuntimeKind,
    limits: LoadLimits,
) -> Result<Arc<dyn CompiledModel>, LoadError> {
    let mut refusals = Vec::new();
    for &kind in candidates(kind) {
        match load_with(bytes, kind, limits) {
            Ok(model) => return Ok(model),
            Err(error) => refusals.push((kind, error.message)),
        }
    }
    Err(LoadError::new(all_refusals(&refusals)))
}

/// The reasons of all runtimes that were tried; each is named where there are several.
pub fn all_refusals(refusals: &[(RuntimeKind, String)]) -> String {
    match refusals {
        [(_, only)] => only.clone(),
        several => several
            .iter()
            .map(|(kind, why)| format!("{}: {why}", kind.as_str()))
            .collect::<Vec<_>>()
            .join("; "),
    }
}

fn load_with(
    bytes: &[u8],
    kind: RuntimeKind,
    limits: LoadLimits,
) -> Result<Arc<dyn CompiledModel>, LoadError> {
    let options = CompileOptions {
        limits,
        ..CompileOptions::default()
    };
    match kind {
        RuntimeKind::Tract | RuntimeKind::Auto => compile(bytes, &options),
        RuntimeKind::OnnxRuntime => onnxruntime(bytes, &options),
    }
}

/// Whether ONNX Runtime can be used here; loads its library.
pub fn check_onnxruntime() -> Result<(), LoadError> {
    #[cfg(feature = "onnxruntime")]
    return super::onnxruntime::check();
    #[cfg(not(feature = "onnxruntime"))]
    Err(LoadError::new(NOT_BUILT_IN))
}

#[cfg(feature = "onnxruntime")]
fn onnxruntime(
    bytes: &[u8],
    options: &CompileOptions,
) -> Result<Arc<dyn CompiledModel>, LoadError> {
    super::onnxruntime::compile(bytes, options)
}

#[cfg(not(feature = "onnxruntime"))]
fn onnxruntime(_: &[u8], _: &CompileOptions) -> Result<Arc<dyn CompiledModel>, LoadError> {
    Err(LoadError::new(NOT_BUILT_IN))
}

/// Takes `settings` for the whole process. The first call counts, and only before a model has asked
/// for ONNX Runtime.
pub fn configure(settings: &RuntimeSettings) {
    if let Some(path) = &settings.onnxruntime_library {
        #[cfg(feature = "onnxruntime")]
        super::onnxruntime::configure(path.clone());
        #[cfg(not(feature = "onnxruntime"))]
        tracing::warn!(
            "runtime.onnxruntime_library names {}, but this build has no ONNX Runtime: build it \
             with the cargo feature `onnxruntime`",
            path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_every_runtime_that_was_tried() {
        let one = (RuntimeKind::Tract, "no such operator".to_owned());
        assert_eq!(all_refusals(std::slice::from_ref(&one)), "no such operator");
        let two = (RuntimeKind::OnnxRuntime, "not installed".to_owned());
        assert_eq!(
            all_refusals(&[one, two]),
            "tract: no such operator; onnxruntime: not installed"
        );
    }

    #[test]
    fn tract_comes_first_whatever_is_asked() {
        let auto = candidates(RuntimeKind::Auto);
        assert_eq!(auto.first(), Some(&RuntimeKind::Tract));
        assert!(!auto.contains(&RuntimeKind::Auto));
    }
}
