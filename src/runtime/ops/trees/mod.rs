//! Tree ensembles of `ai.onnx.ml`: `TreeEnsembleClassifier`, `TreeEnsembleRegressor` and
//! `TreeEnsemble`.
//!
//! ```text
//! attributes ─▶ ensemble ─▶ lower ─▶ pack ─▶ kernel ─▶ compiled ─▶ head ─▶ op
//! versions_…    in plain    all by   ├▶ leaves │ walks   sums      scores  as tract
//!               words       x <= t   └─────────┘                   labels  sees it
//! ```
//!
//! `walk` takes rows through a forest: by `bits` what is compared at once, by `gather` or single steps
//! what is walked.

#[cfg(test)]
mod attribute_tests;
mod attributes;
mod bits;
mod compiled;
mod ensemble;
#[cfg(target_arch = "x86_64")]
mod gather;
mod head;
#[cfg(test)]
mod head_tests;
mod kernel;
mod leaves;
mod lower;
mod op;
mod pack;
#[cfg(test)]
mod random;
mod real;
#[cfg(test)]
mod tests;
mod version_5;
mod versions_1_3;
mod walk;

use tract_onnx::model::OnnxOpRegister;

pub(super) use op::{held, score};

/// Puts the operators in place of tract's.
pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("TreeEnsembleClassifier", op::classifier);
    operators.insert("TreeEnsembleRegressor", op::regressor);
    operators.insert("TreeEnsemble", op::ensemble);
}
