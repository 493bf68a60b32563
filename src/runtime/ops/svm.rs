//! What `SVMClassifier` and `SVMRegressor` share: the kernel function between a row and a support
//! vector.
//!
//! Semantics as in ONNX Runtime (`onnxruntime/core/providers/cpu/ml/svmclassifier.h`).

use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::TractResult;
use tract_onnx::tract_hir::internal::bail;

use super::attributes;
use super::math::{dot, exp, squared_distance};

/// The attributes `kernel_type` and `kernel_params` (gamma, coef0, degree).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Function {
    /// x·s.
    Linear,
    /// (gamma x·s + coef0)^degree.
    Polynomial { gamma: f32, coef0: f32, degree: f32 },
    /// exp(−gamma |x−s|²).
    Radial { gamma: f32 },
    /// tanh(gamma x·s + coef0).
    Sigmoid { gamma: f32, coef0: f32 },
}

impl Function {
    pub(super) fn of(node: &NodeProto) -> TractResult<Self> {
        let parameters = attributes::floats(node, "kernel_params")?;
        let [gamma, coef0, degree] = match parameters.as_slice() {
            [] => [0.0; 3],
            [gamma, coef0, degree, ..] => [*gamma, *coef0, *degree],
            _ => bail!(
                "node {:?} has {} kernel_params, three are needed",
                node.name,
                parameters.len()
            ),
        };
        Ok(match &*attributes::string(node, "kernel_type", "LINEAR")? {
            "LINEAR" => Self::Linear,
            "POLY" => Self::Polynomial {
                gamma,
                coef0,
                degree,
            },
            "RBF" => Self::Radial { gamma },
            "SIGMOID" => Self::Sigmoid { gamma, coef0 },
            other => bail!("kernel_type is {other:?}, which is not in the specification"),
        })
    }

    fn apply(self, x: &[f32], vector: &[f32]) -> f32 {
        match self {
            Self::Linear => dot(x, vector),
            Self::Polynomial {
                gamma,
                coef0,
                degree,
            } => power(gamma * dot(x, vector) + coef0, degree),
            Self::Radial { gamma } => exp(-gamma * squared_distance(x, vector)),
            Self::Sigmoid { gamma, coef0 } => (gamma * dot(x, vector) + coef0).tanh(),
        }
    }

    /// The function between `x` and each of `vectors`, which lie one after the other.
    pub(super) fn each(self, x: &[f32], vectors: &[f32], to: &mut [f32]) {
        for (to, vector) in to.iter_mut().zip(vectors.chunks_exact(x.len().max(1))) {
            *to = self.apply(x, vector);
        }
    }
}

fn power(base: f32, degree: f32) -> f32 {
    if degree == 2.0 {
        base * base
    } else if degree == 3.0 {
        base * base * base
    } else {
        base.powf(degree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_functions() {
        let (x, s) = ([1.0, 2.0], [3.0, -1.0]);
        let (gamma, coef0) = (0.5, 1.0);
        let polynomial = |degree| Function::Polynomial {
            gamma,
            coef0,
            degree,
        };
        assert_eq!(Function::Linear.apply(&x, &s), 1.0);
        assert_eq!(polynomial(2.0).apply(&x, &s), 2.25);
        assert_eq!(polynomial(3.0).apply(&x, &s), 3.375);
        assert!((polynomial(0.5).apply(&x, &s) - 1.5_f32.sqrt()).abs() < 1e-6);
        let radial = Function::Radial { gamma }.apply(&x, &s);
        assert!((radial - (-6.5_f32).exp()).abs() < 1e-8, "{radial}");
        assert_eq!(
            Function::Sigmoid { gamma, coef0 }.apply(&x, &s),
            1.5_f32.tanh()
        );
    }
}
