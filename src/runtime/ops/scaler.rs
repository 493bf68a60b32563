//! `Scaler`: (x − offset) · scale, by column or for all of them.
//!
//! Semantics as in ONNX Runtime (`onnxruntime/core/providers/cpu/ml/scaler.cc`): doubles are
//! scaled as doubles and rounded at the end, integers as floats. Beyond it, an attribute that is
//! absent changes nothing.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Datum, DatumType, TValue, TVec, TractResult, tvec};
use tract_onnx::tract_hir::internal::bail;

use super::attributes;
use super::kernel::{Built, Fact, Kernel, operator};
use super::tensors::{check_number, features, filled, floats, input, known, values};

#[derive(Debug)]
struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

/// Builds `Scaler`.
pub(super) fn scaler(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let or = |values: Vec<f32>, default| {
        if values.is_empty() {
            vec![default]
        } else {
            values
        }
    };
    Ok(operator(Scaler {
        offset: or(attributes::floats(node, "offset")?, 0.0),
        scale: or(attributes::floats(node, "scale")?, 1.0),
    }))
}

/// One value for each of `columns`, from as many values or a single one.
pub(super) fn by_column<T: Copy>(values: &[T], columns: usize, what: &str) -> TractResult<Vec<T>> {
    match values {
        [value] => Ok(vec![*value; columns]),
        values if values.len() == columns => Ok(values.to_vec()),
        values => bail!(
            "has {} values of {what} for {columns} columns; one for each or one for all are needed",
            values.len()
        ),
    }
}

impl Kernel for Scaler {
    fn name(&self) -> &'static str {
        "Scaler"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let [input] = inputs else {
            bail!("takes one input, not {}", inputs.len());
        };
        check_number(input.element)?;
        let columns = known(&features(&input.shape)?)?;
        by_column(&self.offset, columns, "offset")?;
        by_column(&self.scale, columns, "scale")?;
        Ok(tvec!(Fact::new(f32::datum_type(), input.shape.clone())))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = input(inputs, 0)?;
        let columns = features(x.shape())?;
        let offset = by_column(&self.offset, columns, "offset")?;
        let scale = by_column(&self.scale, columns, "scale")?;
        let y = filled(x.shape(), |y| {
            if x.datum_type() == DatumType::F64 {
                let by_row = values::<f64>(x)?.chunks_exact(columns.max(1));
                for (row, y) in by_row.zip(y.chunks_exact_mut(columns.max(1))) {
                    for (((x, y), offset), scale) in row.iter().zip(y).zip(&offset).zip(&scale) {
                        *y = ((x - f64::from(*offset)) * f64::from(*scale)) as f32;
                    }
                }
                return Ok(());
            }
            let x = floats(x)?;
            let by_row = x.chunks_exact(columns.max(1));
            for (row, y) in by_row.zip(y.chunks_exact_mut(columns.max(1))) {
                for (((x, y), offset), scale) in row.iter().zip(y).zip(&offset).zip(&scale) {
                    *y = (x - offset) * scale;
                }
            }
            Ok(())
        })?;
        Ok(tvec!(y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ops::tensors::tensor_of;

    #[test]
    fn columns_are_scaled_each_by_its_own_or_all_alike() {
        let scale = |offset: &[f32], scale: &[f32], x: TValue| {
            let kernel = Scaler {
                offset: offset.to_vec(),
                scale: scale.to_vec(),
            };
            let y = kernel.eval(&[x]).unwrap();
            values::<f32>(&y[0]).unwrap().to_vec()
        };
        let x = || tensor_of(&[2, 2], vec![1.0_f32, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(scale(&[1.0, 2.0], &[2.0, 3.0], x()), [0.0, 0.0, 4.0, 6.0]);
        assert_eq!(scale(&[1.0], &[2.0], x()), [0.0, 2.0, 4.0, 6.0]);
        let ints = tensor_of(&[1, 2], vec![5_i64, -1]).unwrap();
        assert_eq!(scale(&[1.0], &[0.5], ints), [2.0, -1.0]);
        // As floats, 0.1 would be rounded before it is subtracted from.
        let doubles = tensor_of(&[1, 1], vec![0.1_f64]).unwrap();
        assert_eq!(scale(&[0.1], &[1e9], doubles), [-1.490_116_1]);
    }

    #[test]
    fn attributes_of_another_length_are_refused() {
        let kernel = Scaler {
            offset: vec![0.0; 3],
            scale: vec![1.0],
        };
        let fact = Fact::new(f32::datum_type(), [2.into(), 2.into()]);
        let error = kernel.facts(&[fact]).unwrap_err().to_string();
        assert!(
            error.contains("3 values of offset for 2 columns"),
            "{error}"
        );
    }
}
