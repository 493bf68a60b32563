//! Which operators this build runs, and runs rightly.

use std::collections::HashSet;

use super::summary::{OnnxSummary, OperatorCount};
use super::{LoadError, maps, ops};

/// Refuses a graph with operators that are not supported, naming all of them.
///
/// tract looks operators up by their bare name: one of a foreign domain, or of `ai.onnx.ml` under
/// the default domain, would run as something else.
pub(super) fn check(summary: &OnnxSummary) -> Result<(), LoadError> {
    let onnx = ops::onnx();
    let registered: HashSet<&str> = onnx.op_register.0.keys().map(String::as_str).collect();
    let runs = |operator: &&OperatorCount| {
        let name = operator.op_type.as_str();
        // tract's tree ensembles give wrong labels without an error.
        let of_ml = ops::ML_OPERATORS.contains(&name) || name.starts_with("TreeEnsemble");
        match operator.domain.as_str() {
            "ai.onnx" => registered.contains(name) && !of_ml,
            "ai.onnx.ml" => ops::ML_OPERATORS.contains(&name) || maps::OPERATORS.contains(&name),
            _ => false,
        }
    };
    let missing: Vec<String> = summary
        .operators
        .iter()
        .filter(|operator| !runs(operator))
        .map(ToString::to_string)
        .collect();
    match missing.as_slice() {
        [] => Ok(()),
        [one] => Err(LoadError::new(format!(
            "operator {one} is not supported by this build"
        ))),
        many => Err(LoadError::new(format!(
            "operators {} are not supported by this build",
            many.join(", ")
        ))),
    }
}
