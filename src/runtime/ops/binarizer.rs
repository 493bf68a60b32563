//! `Binarizer`: 1 above the threshold, 0 elsewhere.
//!
//! Semantics as in ONNX Runtime (`onnxruntime/core/providers/cpu/ml/binarizer.cc`), which refuses
//! NaN.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{DatumType, TValue, TVec, TractResult, tvec};
use tract_onnx::tract_hir::internal::bail;

use super::attributes;
use super::kernel::{Built, Fact, Kernel, operator};
use super::tensors::{check_number, filled, input, values, with_number_type};
use crate::runtime::live_rows;

#[derive(Debug)]
struct Binarizer {
    threshold: f32,
}

/// Builds `Binarizer`.
pub(super) fn binarizer(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let threshold = attributes::float(node, "threshold", 0.0)?;
    Ok(operator(Binarizer { threshold }))
}

impl Kernel for Binarizer {
    fn name(&self) -> &'static str {
        "Binarizer"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let [input] = inputs else {
            bail!("takes one input, not {}", inputs.len());
        };
        check_number(input.element)?;
        Ok(tvec!(input.clone()))
    }

    #[expect(
        clippy::unnecessary_cast,
        reason = "one of the types of the macro is f64"
    )]
    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = input(inputs, 0)?;
        let threshold = f64::from(self.threshold);
        let rows = x.shape().first().copied().unwrap_or(1);
        let live = live_rows::count(rows, x.len());
        let y = with_number_type!(x.datum_type(), T => {
            let x_values = values::<T>(x)?;
            #[expect(clippy::eq_op, reason = "NaN is what differs from itself")]
            if x_values.iter().take(live).any(|x| x != x) {
                bail!("the input holds NaN, which has no place above or below a threshold");
            }
            filled::<T>(x.shape(), |y| {
                for (x, y) in x_values.iter().zip(y) {
                    *y = u8::from(*x as f64 > threshold) as T;
                }
                Ok(())
            })?
        });
        Ok(tvec!(y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ops::tensors::tensor_of;

    #[test]
    fn above_is_one_and_nan_is_refused() {
        let kernel = Binarizer { threshold: 0.5 };
        let y = kernel.eval(&[tensor_of(&[3], vec![0.5_f32, 0.6, -1.0]).unwrap()]);
        assert_eq!(values::<f32>(&y.unwrap()[0]).unwrap(), [0.0, 1.0, 0.0]);
        let y = kernel.eval(&[tensor_of(&[3], vec![0_i64, 1, -1]).unwrap()]);
        assert_eq!(values::<i64>(&y.unwrap()[0]).unwrap(), [0, 1, 0]);
        let nan = [tensor_of(&[2, 1], vec![1.0, f32::NAN]).unwrap()];
        assert!(kernel.eval(&nan).unwrap_err().to_string().contains("NaN"));
        // Padding may hold anything.
        live_rows::with(2, 1, || kernel.eval(&nan).unwrap());
    }
}
