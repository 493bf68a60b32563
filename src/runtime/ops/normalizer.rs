//! `Normalizer`: rows divided by their maximum, their sum of absolute values or their length.
//!
//! Semantics as in ONNX Runtime (`onnxruntime/core/providers/cpu/ml/normalizer.cc`): the maximum
//! is that of the values, not of their magnitudes, and rows whose norm is 0 stay as they are.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Datum, TValue, TVec, TractResult, tvec};
use tract_onnx::tract_hir::internal::bail;

use super::attributes;
use super::direct::Finish;
use super::kernel::{Built, Fact, Kernel, operator};
use super::math::sum;
use super::tensors::{check_number, filled, floats, input, matrix};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Norm {
    Max,
    L1,
    L2,
}

#[derive(Debug)]
struct Normalizer(Norm);

/// Builds `Normalizer`.
pub(super) fn normalizer(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let norm = match &*attributes::string(node, "norm", "MAX")? {
        "MAX" => Norm::Max,
        "L1" => Norm::L1,
        "L2" => Norm::L2,
        other => bail!("norm is {other:?}, which is not in the specification"),
    };
    Ok(operator(Normalizer(norm)))
}

impl Norm {
    fn apply(self, row: &mut [f32]) {
        let norm = match self {
            Self::Max => row.iter().copied().fold(f32::MIN, f32::max),
            Self::L1 => sum(row, f32::abs),
            Self::L2 => sum(row, |x| x * x),
        };
        let each = row.iter_mut();
        if norm == 0.0 {
            return;
        }
        if self == Self::L2 {
            // The squares are divided, so that no row overflows that the reference takes.
            each.for_each(|x| {
                let magnitude = (*x * *x / norm).sqrt();
                *x = if *x < 0.0 { -magnitude } else { magnitude };
            });
        } else {
            each.for_each(|x| *x /= norm);
        }
    }
}

impl Finish for Normalizer {
    fn finish(&self, values: &mut [f32], width: usize) {
        let rows = values.chunks_exact_mut(width.max(1));
        rows.for_each(|row| self.0.apply(row));
    }
}

impl Kernel for Normalizer {
    fn name(&self) -> &'static str {
        "Normalizer"
    }

    fn finish(&self) -> Option<&dyn Finish> {
        Some(self)
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let [input] = inputs else {
            bail!("takes one input, not {}", inputs.len());
        };
        check_number(input.element)?;
        matrix(&input.shape)?;
        Ok(tvec!(Fact::new(f32::datum_type(), input.shape.clone())))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = input(inputs, 0)?;
        let [_, columns] = matrix(x.shape())?;
        let values = floats(x)?;
        let y = filled(x.shape(), |y| {
            y.iter_mut().zip(&*values).for_each(|(y, x)| *y = *x);
            Finish::finish(self, y, columns);
            Ok(())
        })?;
        Ok(tvec!(y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ops::tensors::{tensor_of, values};

    // The expected numbers are ONNX Runtime's, 1.32.
    #[test]
    fn the_three_norms() {
        let x = tensor_of(&[3, 2], vec![-5.0_f32, 2.0, -1.0, -3.0, 0.0, -2.0]).unwrap();
        let run = |norm| {
            let y = Normalizer(norm).eval(std::slice::from_ref(&x)).unwrap();
            values::<f32>(&y[0]).unwrap().to_vec()
        };
        assert_eq!(run(Norm::Max), [-2.5, 1.0, 1.0, 3.0, 0.0, -2.0]);
        assert_eq!(run(Norm::L1)[..2], [-0.714_285_73, 0.285_714_3]);
        let l2 = run(Norm::L2);
        assert_eq!(l2[..2], [-0.928_476_7, 0.371_390_67]);
        assert_eq!(l2[4..], [0.0, -1.0]);
    }
}
