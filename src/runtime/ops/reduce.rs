//! Sums and positions of the largest along axes. tract's own sums round by the alignment of a row
//! in memory, and its searches take a view for each row.

use tract_onnx::prelude::{Datum, TValue, TVec, TractResult, tvec};
use tract_onnx::tract_hir::internal::anyhow;

use super::kernel::{Fact, Kernel};
use super::math::sum;
use super::rows::Rows;
use super::tensors::{filled, input, values};

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reduction {
    Sum,
    MeanOfSquares,
    /// The position of the largest; of several the last, if so set. A NaN is never the largest.
    ArgMax {
        last: bool,
    },
    /// The position of the smallest, likewise.
    ArgMin {
        last: bool,
    },
}

/// A reduction of floats along neighbouring axes, which keep the length 1.
#[derive(Debug)]
pub(super) struct Reduce {
    pub(super) axes: TVec<usize>,
    pub(super) reduction: Reduction,
}

fn position(row: &[f32], last: bool, largest: bool) -> i64 {
    let worst = if largest { f32::MIN } else { f32::MAX };
    let mut best = (0, worst);
    for (at, value) in row.iter().enumerate() {
        let better = if largest {
            *value > best.1
        } else {
            *value < best.1
        };
        if better || (last && *value == best.1) {
            best = (at, *value);
        }
    }
    best.0 as i64
}

impl Kernel for Reduce {
    fn name(&self) -> &'static str {
        match self.reduction {
            Reduction::Sum => "ReduceSum",
            Reduction::MeanOfSquares => "ReduceMeanOfSquares",
            Reduction::ArgMax { .. } => "ArgMax",
            Reduction::ArgMin { .. } => "ArgMin",
        }
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let [input] = inputs else {
            return Err(anyhow!("takes one input, not {}", inputs.len()));
        };
        let element = match self.reduction {
            Reduction::Sum | Reduction::MeanOfSquares => f32::datum_type(),
            Reduction::ArgMax { .. } | Reduction::ArgMin { .. } => i64::datum_type(),
        };
        let shape = input.shape.iter().enumerate().map(|(axis, length)| {
            if self.axes.contains(&axis) {
                1.into()
            } else {
                length.clone()
            }
        });
        Ok(tvec!(Fact::new(element, shape)))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = input(inputs, 0)?;
        let rows = Rows::along(x.shape(), &self.axes);
        let rows = rows.ok_or_else(|| anyhow!("has the axes {:?}", self.axes))?;
        let values = values::<f32>(x)?;
        let axes = x.shape().iter().enumerate();
        let shape: TVec<usize> = axes
            .map(|(axis, length)| {
                if self.axes.contains(&axis) {
                    1
                } else {
                    *length
                }
            })
            .collect();
        let floats = |each: &dyn Fn(&[f32]) -> f32| {
            filled(&shape, |to: &mut [f32]| {
                rows.reduce(values, to, each);
                Ok(())
            })
        };
        let positions = |last, largest| {
            filled(&shape, |to: &mut [i64]| {
                rows.reduce(values, to, |row| position(row, last, largest));
                Ok(())
            })
        };
        let y = match self.reduction {
            Reduction::Sum => floats(&|row| sum(row, |value| value))?,
            Reduction::MeanOfSquares => {
                let factor = 1.0 / rows.length as f32;
                floats(&|row| sum(row, |value| value * value) * factor)?
            }
            Reduction::ArgMax { last } => positions(last, true)?,
            Reduction::ArgMin { last } => positions(last, false)?,
        };
        Ok(tvec!(y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ops::tensors::tensor_of;

    fn run(reduction: Reduction, axis: usize) -> TValue {
        let kernel = Reduce {
            axes: tvec!(axis),
            reduction,
        };
        let x = vec![1.0_f32, 3.0, 3.0, -2.0, f32::NAN, -4.0];
        let x = tensor_of(&[2, 3], x).unwrap();
        kernel.eval(&[x]).unwrap().remove(0)
    }

    #[test]
    fn rows_are_reduced_along_their_axis() {
        let sums = run(Reduction::Sum, 1);
        assert_eq!(sums.shape(), [2, 1]);
        assert_eq!(values::<f32>(&sums).unwrap()[0], 7.0);
        let means = run(Reduction::MeanOfSquares, 0);
        assert_eq!(means.shape(), [1, 3]);
        assert_eq!(values::<f32>(&means).unwrap()[..1], [2.5]);
        let positions = |reduction| values::<i64>(&run(reduction, 1)).unwrap().to_vec();
        assert_eq!(positions(Reduction::ArgMax { last: false }), [1, 0]);
        assert_eq!(positions(Reduction::ArgMax { last: true }), [2, 0]);
        assert_eq!(positions(Reduction::ArgMin { last: false }), [0, 2]);
    }
}
