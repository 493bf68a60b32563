//! `Imputer`: puts values in the place of one that stands for missing.
//!
//! Semantics as in ONNX Runtime (`onnxruntime/core/providers/cpu/ml/imputer.cc`): where the number
//! of values is not the number of columns, the first goes into all. Beyond it, doubles and
//! 32-bit integers are taken, as in the specification.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Datum, DatumType, TValue, TVec, TractResult, tvec};
use tract_onnx::tract_hir::internal::{anyhow, bail};

use super::attributes;
use super::kernel::{Built, Fact, Kernel, operator};
use super::tensors::{features, filled, input, values};

#[derive(Debug)]
struct Imputer {
    floats: Vec<f32>,
    missing_float: f32,
    ints: Vec<i64>,
    missing_int: i64,
}

/// Builds `Imputer`.
pub(super) fn imputer(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    Ok(operator(Imputer {
        floats: attributes::floats(node, "imputed_value_floats")?,
        missing_float: attributes::float(node, "replaced_value_float", 0.0)?,
        ints: attributes::ints(node, "imputed_value_int64s")?,
        missing_int: attributes::int(node, "replaced_value_int64", 0)?,
    }))
}

/// Puts the value of its column, or the only one, in the place of what `is_missing`.
fn impute<T: Datum + Copy>(
    x: &TValue,
    imputed: &[T],
    is_missing: impl Fn(T) -> bool,
) -> TractResult<TValue> {
    let columns = features(x.shape())?;
    let by_column = match imputed {
        [] => bail!("has no values to put in the place of missing ones of this type"),
        values if values.len() == columns => values.to_vec(),
        [first, ..] => vec![*first; columns],
    };
    let x_values = values::<T>(x)?;
    filled(x.shape(), |y| {
        let width = columns.max(1);
        let rows = x_values.chunks_exact(width);
        for (row, y) in rows.zip(y.chunks_exact_mut(width)) {
            for ((x, y), imputed) in row.iter().zip(y).zip(&by_column) {
                *y = if is_missing(*x) { *imputed } else { *x };
            }
        }
        Ok(())
    })
}

impl Imputer {
    fn small_ints(&self) -> TractResult<(Vec<i32>, i32)> {
        let small = |value: &i64| {
            i32::try_from(*value).map_err(|_| anyhow!("{value} does not fit into the input's type"))
        };
        let imputed = self.ints.iter().map(small).collect::<TractResult<_>>()?;
        Ok((imputed, small(&self.missing_int)?))
    }
}

impl Kernel for Imputer {
    fn name(&self) -> &'static str {
        "Imputer"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let [input] = inputs else {
            bail!("takes one input, not {}", inputs.len());
        };
        features(&input.shape)?;
        let lacks = match input.element {
            DatumType::F32 | DatumType::F64 => self.floats.is_empty(),
            DatumType::I64 | DatumType::I32 => self.ints.is_empty(),
            other => bail!("takes float, double, int32 or int64, not {other:?}"),
        };
        if lacks {
            bail!(
                "has no values to put in the place of a missing {:?}",
                input.element
            );
        }
        Ok(tvec!(input.clone()))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        input(inputs, 0)?;
        let [x] = inputs else {
            bail!("takes one input, not {}", inputs.len());
        };
        let missing = self.missing_float;
        let nan = missing.is_nan();
        let y = match x.datum_type() {
            DatumType::F32 => {
                impute::<f32>(x, &self.floats, |x| x == missing || (nan && x.is_nan()))?
            }
            DatumType::F64 => {
                let imputed: Vec<f64> = self.floats.iter().copied().map(f64::from).collect();
                impute::<f64>(x, &imputed, |x| {
                    x == f64::from(missing) || (nan && x.is_nan())
                })?
            }
            DatumType::I32 => {
                let (imputed, missing) = self.small_ints()?;
                impute::<i32>(x, &imputed, |x| x == missing)?
            }
            _ => impute::<i64>(x, &self.ints, |x| x == self.missing_int)?,
        };
        Ok(tvec!(y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ops::tensors::tensor_of;

    fn imputer(floats: &[f32], missing_float: f32) -> Imputer {
        Imputer {
            floats: floats.to_vec(),
            missing_float,
            ints: vec![7],
            missing_int: -1,
        }
    }

    #[test]
    fn what_stands_for_missing_is_replaced() {
        let x = || tensor_of(&[2, 3], vec![f32::NAN, 2.0, 0.0, 0.0, f32::NAN, 1.0]).unwrap();
        let run = |kernel: &Imputer| {
            let y = kernel.eval(&[x()]).unwrap();
            values::<f32>(&y[0]).unwrap().to_vec()
        };
        let by_nan = run(&imputer(&[1.0, 2.0, 3.0], f32::NAN));
        assert_eq!(by_nan, [1.0, 2.0, 0.0, 0.0, 2.0, 1.0]);
        let by_zero = run(&imputer(&[1.0, 2.0, 3.0], 0.0));
        assert_eq!(by_zero[2..4], [3.0, 1.0]);
        assert!(by_zero[0].is_nan() && by_zero[4].is_nan());
        assert_eq!(run(&imputer(&[9.0], f32::NAN))[..2], [9.0, 2.0]);
    }

    #[test]
    fn integers_and_doubles_too() {
        let kernel = imputer(&[1.5], 0.0);
        let run = |x: TractResult<TValue>| kernel.eval(&[x.unwrap()]).unwrap();
        let wide = run(tensor_of(&[2], vec![-1_i64, 4]));
        assert_eq!(values::<i64>(&wide[0]).unwrap(), [7, 4]);
        let narrow = run(tensor_of(&[2], vec![-1_i32, 4]));
        assert_eq!(values::<i32>(&narrow[0]).unwrap(), [7, 4]);
        let double = run(tensor_of(&[2], vec![-0.0_f64, 4.0]));
        assert_eq!(values::<f64>(&double[0]).unwrap(), [1.5, 4.0]);
    }
}
