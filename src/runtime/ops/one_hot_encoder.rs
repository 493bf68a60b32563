//! `OneHotEncoder`: a category as a row of zeros with a one at its position.
//!
//! Semantics as in ONNX Runtime (`onnxruntime/core/providers/cpu/ml/onehotencoder.cc`): numbers
//! are cut to integers, and without `zeros` an unknown category is an error.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Datum, DatumType, TDim, TValue, TVec, TractResult, tvec};
use tract_onnx::tract_hir::internal::{anyhow, bail};

use super::attributes;
use super::kernel::{Built, Fact, Kernel, operator};
use super::lookup::{Keys, Twice};
use super::tensors::{filled, input, is_number};
use crate::runtime::live_rows;

#[derive(Debug)]
struct OneHotEncoder {
    categories: Keys,
    count: usize,
    /// Whether an unknown category is all zeros.
    zeros: bool,
}

/// Builds `OneHotEncoder`.
pub(super) fn one_hot_encoder(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let ints = attributes::ints(node, "cats_int64s")?;
    let strings = attributes::strings(node, "cats_strings")?;
    let categories = match (ints.is_empty(), strings.is_empty()) {
        (false, true) => Keys::ints(&ints, Twice::Last),
        (true, false) => Keys::strings(&strings, Twice::Last),
        (true, true) => bail!("has no categories"),
        (false, false) => bail!("has both integer and string categories"),
    };
    Ok(operator(OneHotEncoder {
        categories,
        count: ints.len().max(strings.len()),
        zeros: attributes::int(node, "zeros", 1)? != 0,
    }))
}

impl Kernel for OneHotEncoder {
    fn name(&self) -> &'static str {
        "OneHotEncoder"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let [input] = inputs else {
            bail!("takes one input, not {}", inputs.len());
        };
        let fits = match &self.categories {
            Keys::Strings(_) => input.element == DatumType::String,
            Keys::Ints(_) | Keys::Floats { .. } => is_number(input.element),
        };
        if !fits {
            bail!("has other categories than the input's {:?}", input.element);
        }
        let count = TDim::from(self.count);
        let shape = input.shape.iter().cloned().chain([count]);
        Ok(tvec!(Fact::new(f32::datum_type(), shape)))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = input(inputs, 0)?;
        let rows = x.shape().first().copied().unwrap_or(1);
        let mut live = if self.zeros {
            0
        } else {
            live_rows::count(rows, x.len())
        };
        let shape: Vec<usize> = x.shape().iter().copied().chain([self.count]).collect();
        let y = filled(&shape, |y: &mut [f32]| {
            let mut rows = y.chunks_exact_mut(self.count);
            self.categories.find(x, |position| {
                let row = rows.next();
                match position {
                    Some(position) => {
                        let slot = row.and_then(|row| row.get_mut(position));
                        *slot.ok_or_else(|| anyhow!("more values than rows"))? = 1.0;
                    }
                    None if live > 0 => {
                        bail!("a category is unknown, and the model takes known ones only");
                    }
                    None => {}
                }
                live = live.saturating_sub(1);
                Ok(())
            })
        })?;
        Ok(tvec!(y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ops::tensors::{tensor_of, values};

    fn encoder(zeros: bool) -> OneHotEncoder {
        OneHotEncoder {
            categories: Keys::strings(&["a".to_owned(), "b".to_owned()], Twice::Last),
            count: 2,
            zeros,
        }
    }

    fn texts(texts: &[&str]) -> TValue {
        let owned = texts.iter().map(|text| (*text).to_owned()).collect();
        tensor_of(&[texts.len(), 1], owned).unwrap()
    }

    #[test]
    fn categories_become_rows() {
        let y = encoder(true).eval(&[texts(&["b", "x", "a"])]).unwrap();
        assert_eq!(y[0].shape(), [3, 1, 2]);
        assert_eq!(
            values::<f32>(&y[0]).unwrap(),
            [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]
        );
        let kernel = OneHotEncoder {
            categories: Keys::ints(&[0, 1, -1], Twice::Last),
            count: 3,
            zeros: true,
        };
        let x = tensor_of(&[3], vec![f32::NAN, -1.2, 0.0]).unwrap();
        let y = kernel.eval(&[x]).unwrap();
        let expected = [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0];
        assert_eq!(values::<f32>(&y[0]).unwrap(), expected);
        let fact = Fact::new(String::datum_type(), [TDim::from(3)]);
        assert!(kernel.facts(&[fact]).is_err());
    }

    #[test]
    fn an_unknown_category_fails_where_it_must_but_padding_does_not() {
        let x = [texts(&["a", "b", ""])];
        let error = encoder(false).eval(&x).unwrap_err().to_string();
        assert!(error.contains("a category is unknown"), "{error}");
        live_rows::with(3, 2, || encoder(false).eval(&x).unwrap());
    }
}
