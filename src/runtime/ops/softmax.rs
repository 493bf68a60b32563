//! `Softmax` and `LogSoftmax`, one row at a time: tract's own rounds by the alignment of a row in
//! memory, so that a row's bits would depend on its position in the batch.

use tract_onnx::prelude::{TValue, TVec, TractResult, tvec};
use tract_onnx::tract_hir::internal::anyhow;

use super::kernel::{Fact, Kernel};
use super::math::{exp, sum};
use super::post_transform::softmax as softmax_row;
use super::rows::Rows;
use super::tensors::{filled, input, values};

/// The softmax of floats along neighbouring axes.
#[derive(Debug)]
pub(super) struct Softmax {
    pub(super) axes: TVec<usize>,
    pub(super) log: bool,
}

/// x − max − ln Σ e^(x − max), in place.
fn log_softmax_row(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::MIN, f32::max);
    let total = sum(row, |value| exp(value - max)).ln();
    for value in row {
        *value = (*value - max) - total;
    }
}

impl Kernel for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "LogSoftmax" } else { "Softmax" }
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        Ok(inputs.iter().cloned().collect())
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = input(inputs, 0)?;
        let rows = Rows::along(x.shape(), &self.axes);
        let rows = rows.ok_or_else(|| anyhow!("has the axes {:?}", self.axes))?;
        let from = values::<f32>(x)?;
        let y = filled(x.shape(), |y: &mut [f32]| {
            y.copy_from_slice(from);
            let each = if self.log {
                log_softmax_row
            } else {
                softmax_row
            };
            rows.update(y, each);
            Ok(())
        })?;
        Ok(tvec!(y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ops::tensors::tensor_of;

    fn run(axis: usize, log: bool, shape: &[usize], x: Vec<f32>) -> Vec<f32> {
        let kernel = Softmax {
            axes: tvec!(axis),
            log,
        };
        let y = kernel.eval(&[tensor_of(shape, x).unwrap()]).unwrap();
        values::<f32>(&y[0]).unwrap().to_vec()
    }

    #[test]
    fn rows_and_columns_agree_to_the_bit() {
        let by_rows = run(1, false, &[2, 3], vec![0.0, 1.0, 2.0, 3.0, 0.5, -1.0]);
        let by_columns = run(0, false, &[3, 2], vec![0.0, 3.0, 1.0, 0.5, 2.0, -1.0]);
        assert!((by_rows[0] - 0.090_030_57).abs() < 1e-6, "{by_rows:?}");
        for row in 0..2 {
            for column in 0..3 {
                let (a, b) = (by_rows[row * 3 + column], by_columns[column * 2 + row]);
                assert_eq!(a.to_bits(), b.to_bits());
            }
        }
    }

    #[test]
    fn logarithms_are_those_of_the_softmax() {
        let x = vec![0.0_f32, 1.0, 2.0, -50.0];
        let plain = run(1, false, &[1, 4], x.clone());
        for (p, log) in plain.iter().zip(run(1, true, &[1, 4], x)) {
            assert!((log - p.ln()).abs() < 1e-5, "{p} {log}");
        }
    }
}
