//! `ArrayFeatureExtractor`: picks positions of the last axis.
//!
//! Semantics as in ONNX Runtime (`onnxruntime/core/providers/cpu/ml/array_feature_extractor.cc`):
//! a single axis gives one row; a position that is not there is an error.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Datum, DatumType, TDim, TValue, TVec, Tensor, TractResult, tvec};
use tract_onnx::tract_hir::internal::{DimLike, anyhow, bail};

use super::kernel::{Built, Fact, Kernel, operator};
use super::tensors::{input, tensor_of, values, with_number_type};

#[derive(Debug)]
struct ArrayFeatureExtractor;

/// Builds `ArrayFeatureExtractor`.
#[expect(clippy::unnecessary_wraps, reason = "the signature is tract's")]
pub(super) fn array_feature_extractor(_: &ParsingContext<'_>, _: &NodeProto) -> Built {
    Ok(operator(ArrayFeatureExtractor))
}

/// The output's shape: all axes but the last, then the number of positions.
fn picked_shape<D: Clone + From<usize>>(shape: &[D], picked: D) -> TractResult<Vec<D>> {
    match shape {
        [] => bail!("takes no single value; it needs an axis"),
        [_] => Ok(vec![D::from(1), picked]),
        [outer @ .., _] => Ok(outer.iter().cloned().chain([picked]).collect()),
    }
}

fn pick<T: Datum + Clone>(x: &Tensor, positions: &[usize]) -> TractResult<TValue> {
    let axis = x.shape().last().copied().unwrap_or_default();
    let mut picked = Vec::with_capacity(x.len().checked_div(axis).unwrap_or(0) * positions.len());
    for row in values::<T>(x)?.chunks_exact(axis.max(1)) {
        for position in positions {
            let value = row.get(*position).ok_or_else(|| {
                anyhow!("position {position} is not there, the last axis has {axis}")
            })?;
            picked.push(value.clone());
        }
    }
    tensor_of(&picked_shape(x.shape(), positions.len())?, picked)
}

impl Kernel for ArrayFeatureExtractor {
    fn name(&self) -> &'static str {
        "ArrayFeatureExtractor"
    }

    fn inputs(&self) -> usize {
        2
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let [x, positions] = inputs else {
            bail!("takes two inputs, not {}", inputs.len());
        };
        let picked = positions
            .shape
            .iter()
            .fold(TDim::from(1), |count, axis| count * axis);
        if picked.as_usize() == Some(0) {
            bail!("picks no position");
        }
        Ok(tvec!(Fact::new(x.element, picked_shape(&x.shape, picked)?)))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = input(inputs, 0)?;
        let positions = input(inputs, 1)?.cast_to::<i64>()?;
        let positions: Vec<usize> = values::<i64>(&positions)?
            .iter()
            .map(|at| usize::try_from(*at).map_err(|_| anyhow!("position {at} is negative")))
            .collect::<TractResult<_>>()?;
        let picked = match x.datum_type() {
            DatumType::String => pick::<String>(x, &positions)?,
            DatumType::Bool => pick::<bool>(x, &positions)?,
            other => with_number_type!(other, T => pick::<T>(x, &positions)?),
        };
        Ok(tvec!(picked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_of_the_last_axis_are_picked() {
        let run = |x: TractResult<TValue>, positions: Vec<i64>| {
            let positions = tensor_of(&[positions.len()], positions).unwrap();
            ArrayFeatureExtractor.eval(&[x.unwrap(), positions])
        };
        let x = || tensor_of(&[2, 3], vec![1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let picked = run(x(), vec![2, 0]).unwrap();
        assert_eq!(picked[0].shape(), [2, 2]);
        assert_eq!(values::<f32>(&picked[0]).unwrap(), [3.0, 1.0, 6.0, 4.0]);
        let names = || tensor_of(&[2], vec!["a".to_owned(), "b".to_owned()]);
        let picked = run(names(), vec![1, 1, 0]).unwrap();
        assert_eq!(picked[0].shape(), [1, 3]);
        assert_eq!(values::<String>(&picked[0]).unwrap(), ["b", "b", "a"]);
        let error = run(x(), vec![3]).unwrap_err().to_string();
        assert_eq!(error, "position 3 is not there, the last axis has 3");
        assert!(run(x(), vec![-1]).is_err());
    }
}
