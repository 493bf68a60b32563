//! `SVMRegressor`: a weighted sum of kernel values, or one dot product where there are no support
//! vectors; with `one_class` its sign.
//!
//! Semantics as in ONNX Runtime (`onnxruntime/core/providers/cpu/ml/svmregressor.cc`), which does
//! not look at `post_transform`.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Datum, TValue, TVec, TractResult, tvec};
use tract_onnx::tract_hir::internal::bail;

use super::attributes;
use super::kernel::{Built, Fact, Kernel, operator};
use super::linear::one_matrix;
use super::math::dot;
use super::svm::Function;
use super::tensors::{filled, floats, input, matrix};

#[derive(Debug)]
struct SvmRegressor {
    function: Function,
    /// Empty: the coefficients are those of the features.
    vectors: Vec<f32>,
    coefficients: Vec<f32>,
    rho: f32,
    one_class: bool,
}

/// Builds `SVMRegressor`.
pub(super) fn regressor(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let supports = attributes::int(node, "n_supports", 0)?;
    let coefficients = attributes::floats(node, "coefficients")?;
    let vectors = attributes::floats(node, "support_vectors")?;
    let rho = attributes::floats(node, "rho")?;
    if supports > 0 && usize::try_from(supports).ok() != Some(coefficients.len()) {
        bail!(
            "has {} coefficients for {supports} support vectors",
            coefficients.len()
        );
    }
    Ok(operator(SvmRegressor {
        function: Function::of(node)?,
        vectors: if supports > 0 { vectors } else { Vec::new() },
        coefficients,
        rho: rho.first().copied().unwrap_or_default(),
        one_class: attributes::int(node, "one_class", 0)? != 0,
    }))
}

impl Kernel for SvmRegressor {
    fn name(&self) -> &'static str {
        "SVMRegressor"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (rows, features) = one_matrix(inputs)?;
        let wanted = if self.vectors.is_empty() {
            self.coefficients.len()
        } else {
            self.vectors.len() / self.coefficients.len().max(1)
        };
        if features != wanted || features == 0 {
            bail!("is made for rows of {wanted} values, not of {features}");
        }
        Ok(tvec!(Fact::new(f32::datum_type(), [rows, 1.into()])))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = input(inputs, 0)?;
        let [rows, features] = matrix(x.shape())?;
        let x = floats(x)?;
        let mut kernels = vec![0.0; self.coefficients.len()];
        let scores = filled(&[rows, 1], |scores| {
            for (score, row) in scores.iter_mut().zip(x.chunks_exact(features.max(1))) {
                *score = if self.vectors.is_empty() {
                    dot(row, &self.coefficients) + self.rho
                } else {
                    self.function.each(row, &self.vectors, &mut kernels);
                    dot(&kernels, &self.coefficients) + self.rho
                };
                if self.one_class {
                    *score = if *score > 0.0 { 1.0 } else { -1.0 };
                }
            }
            Ok(())
        })?;
        Ok(tvec!(scores))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ops::tensors::{tensor_of, values};

    fn run(kernel: &SvmRegressor) -> Vec<f32> {
        let x = tensor_of(&[2, 2], vec![1.0_f32, 2.0, -1.0, 0.5]).unwrap();
        let outputs = kernel.eval(&[x]).unwrap();
        values::<f32>(&outputs[0]).unwrap().to_vec()
    }

    #[test]
    fn kernel_values_are_weighted() {
        let mut kernel = SvmRegressor {
            function: Function::Polynomial {
                gamma: 1.0,
                coef0: 1.0,
                degree: 2.0,
            },
            vectors: vec![1.0, 0.0, 0.0, 2.0],
            coefficients: vec![0.5, -0.25],
            rho: 1.0,
            one_class: false,
        };
        // (1+1)²/2 − (4+1)²/4 + 1 and 0 − (1+1)²/4 + 1.
        assert_eq!(run(&kernel), [-3.25, 0.0]);
        kernel.one_class = true;
        assert_eq!(run(&kernel), [-1.0, -1.0]);
    }

    #[test]
    fn without_support_vectors_it_is_linear() {
        let kernel = SvmRegressor {
            function: Function::Radial { gamma: 1.0 },
            vectors: Vec::new(),
            coefficients: vec![2.0, 4.0],
            rho: -1.0,
            one_class: false,
        };
        assert_eq!(run(&kernel), [9.0, -1.0]);
        let fact = |features: usize| [Fact::new(f32::datum_type(), [3.into(), features.into()])];
        assert!(kernel.facts(&fact(2)).is_ok());
        let error = kernel.facts(&fact(3)).unwrap_err().to_string();
        assert_eq!(error, "is made for rows of 2 values, not of 3");
    }
}
