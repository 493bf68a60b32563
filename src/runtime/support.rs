//! Which operators this build runs, and runs rightly.

use std::collections::HashSet;

use super::summary::{OnnxSummary, OperatorCount};
use super::{LoadError, plan};

/// Operators of `ai.onnx.ml` that are computed rightly, by tract or by [`ops`](super::ops).
const ML_RIGHT: [&str; 8] = [
    "ArrayFeatureExtractor",
    "CategoryMapper",
    "LinearClassifier",
    "LinearRegressor",
    "Normalizer",
    "TreeEnsemble",
    "TreeEnsembleClassifier",
    "TreeEnsembleRegressor",
];

/// Refuses a graph with operators that are not supported, naming all of them.
///
/// tract looks operators up by their bare name: one of a foreign domain, or of `ai.onnx.ml` under
/// the default domain, would run as something else.
pub(super) fn check(summary: &OnnxSummary) -> Result<(), LoadError> {
    let tract = plan::framework().op_register.0;
    let registered: HashSet<&str> = tract.keys().map(String::as_str).collect();
    let runs = |operator: &&OperatorCount| {
        let name = operator.op_type.as_str();
        let right_ml = ML_RIGHT.contains(&name);
        match operator.domain.as_str() {
            "ai.onnx" => registered.contains(name) && !right_ml,
            "ai.onnx.ml" => right_ml,
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
