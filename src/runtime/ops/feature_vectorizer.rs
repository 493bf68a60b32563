//! `FeatureVectorizer`: the rows of several inputs one after the other, as floats.
//!
//! Semantics as in ONNX Runtime (`onnxruntime/core/providers/cpu/ml/feature_vectorizer.cc`): an
//! input that is narrower than `inputdimensions` says is filled up with zeros, a wider one is cut.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Datum, TValue, TVec, TractResult, tvec};
use tract_onnx::tract_hir::internal::{anyhow, bail};

use super::attributes;
use super::kernel::{Built, Fact, Kernel, operator};
use super::tensors::{check_number, filled, floats};

#[derive(Debug)]
struct FeatureVectorizer {
    widths: Vec<usize>,
}

/// Builds `FeatureVectorizer`.
pub(super) fn feature_vectorizer(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let widths = attributes::ints(node, "inputdimensions")?;
    let widths: Vec<usize> = widths
        .into_iter()
        .map(usize::try_from)
        .collect::<Result<_, _>>()?;
    if widths.len() != node.input.len() {
        bail!(
            "has inputdimensions for {} inputs and {} inputs",
            widths.len(),
            node.input.len()
        );
    }
    Ok(operator(FeatureVectorizer { widths }))
}

/// Rows of an input, and values in a row.
fn rows_and_width(shape: &[usize]) -> TractResult<(usize, usize)> {
    match shape {
        [] => Err(anyhow!("takes no single value; it needs an axis")),
        [width] => Ok((1, *width)),
        [rows, rest @ ..] => Ok((*rows, rest.iter().product())),
    }
}

impl Kernel for FeatureVectorizer {
    fn name(&self) -> &'static str {
        "FeatureVectorizer"
    }

    fn inputs(&self) -> usize {
        self.widths.len()
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        for input in inputs {
            check_number(input.element)?;
        }
        let rows = |input: &Fact| match input.shape.as_slice() {
            [] | [_] => 1.into(),
            [rows, ..] => rows.clone(),
        };
        let mut all = inputs.iter().map(rows);
        let first = all.next().ok_or_else(|| anyhow!("has no inputs"))?;
        if all.any(|rows| rows != first) {
            bail!("the inputs have different numbers of rows");
        }
        let total: usize = self.widths.iter().sum();
        Ok(tvec!(Fact::new(f32::datum_type(), [first, total.into()])))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let total: usize = self.widths.iter().sum();
        let first = inputs.first().ok_or_else(|| anyhow!("has no inputs"))?;
        let (rows, _) = rows_and_width(first.shape())?;
        let y = filled(&[rows, total], |y: &mut [f32]| {
            let mut start = 0;
            for (x, width) in inputs.iter().zip(&self.widths) {
                let (_, own) = rows_and_width(x.shape())?;
                let values = floats(x)?;
                let rows = values.chunks_exact(own.max(1));
                for (row, y) in rows.zip(y.chunks_exact_mut(total.max(1))) {
                    let y = y.iter_mut().skip(start).take(*width);
                    y.zip(row).for_each(|(y, x)| *y = *x);
                }
                start += width;
            }
            Ok(())
        })?;
        Ok(tvec!(y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ops::tensors::{tensor_of, values};

    #[test]
    fn inputs_are_cut_and_filled_up() {
        let kernel = FeatureVectorizer { widths: vec![1, 3] };
        let wide = tensor_of(&[2, 2], vec![1.0_f32, 2.0, 3.0, 4.0]).unwrap();
        let narrow = tensor_of(&[2, 1], vec![5_i64, 6]).unwrap();
        let y = kernel.eval(&[wide, narrow]).unwrap();
        let expected = [1.0, 5.0, 0.0, 0.0, 3.0, 6.0, 0.0, 0.0];
        assert_eq!(values::<f32>(&y[0]).unwrap(), expected);
        let fact = |rows: usize| Fact::new(f32::datum_type(), [rows.into(), 2.into()]);
        assert!(kernel.facts(&[fact(2), fact(3)]).is_err());
    }
}
