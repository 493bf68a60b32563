//! What classifiers and regressors of `ai.onnx.ml` do to their scores: the attribute
//! `post_transform`.
//!
//! Semantics as in ONNX Runtime (`onnxruntime/core/providers/cpu/ml/ml_common.h`), which goes
//! beyond the specification for a single score.

use tract_onnx::prelude::TractResult;
use tract_onnx::tract_hir::internal::bail;

use super::math::{exp, logistic, logistic_pair, probit, sum};

/// The attribute `post_transform`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::runtime) enum PostTransform {
    /// Scores as they are.
    #[default]
    None,
    /// The logistic function of each score.
    Logistic,
    /// The softmax of the row.
    Softmax,
    /// The softmax of the scores other than 0, which stay 0.
    SoftmaxZero,
    /// The normal quantile of each score.
    Probit,
}

/// Scores closer to 0 than this are 0 to [`PostTransform::SoftmaxZero`].
const ZERO: f32 = 1e-7;

impl PostTransform {
    pub(in crate::runtime) fn parse(name: &str) -> TractResult<Self> {
        Ok(match name {
            "NONE" => Self::None,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX" => Self::Softmax,
            "SOFTMAX_ZERO" => Self::SoftmaxZero,
            "PROBIT" => Self::Probit,
            other => bail!("post_transform is {other:?}, which is not in the specification"),
        })
    }

    /// Transforms rows of `width` scores. A single score a row is left alone by all but the
    /// probit.
    pub(in crate::runtime) fn apply(self, scores: &mut [f32], width: usize) {
        match self {
            Self::Probit => scores.iter_mut().for_each(|score| *score = probit(*score)),
            _ if width < 2 => {}
            Self::None => {}
            Self::Logistic => scores
                .iter_mut()
                .for_each(|score| *score = logistic(*score)),
            Self::Softmax => softmaxes(scores, width),
            Self::SoftmaxZero => scores.chunks_exact_mut(width).for_each(softmax_zero),
        }
    }

    /// The scores of both classes, from the one `score` of a binary model. `signed`: without a
    /// transform the other class has the opposite score, not the rest to 1.
    pub(in crate::runtime) fn pair(self, score: f32, signed: bool) -> [f32; 2] {
        match self {
            Self::Logistic => logistic_pair(score),
            // ONNX Runtime leaves the second score undefined.
            Self::Probit => [probit(1.0 - score), probit(score)],
            Self::None if signed => [-score, score],
            Self::None | Self::Softmax | Self::SoftmaxZero => [1.0 - score, score],
        }
    }
}

/// The largest value that is no NaN, found in four lanes, since one would wait for itself.
fn largest(row: &[f32]) -> f32 {
    let mut lanes = [f32::MIN; 4];
    let (fours, rest) = row.as_chunks::<4>();
    for four in fours {
        let pairs = lanes.iter_mut().zip(four);
        pairs.for_each(|(lane, value)| *lane = lane.max(*value));
    }
    lanes.iter().chain(rest).copied().fold(f32::MIN, f32::max)
}

/// The softmax of each row, in place: the exponentials of all rows at once, which vectors take.
fn softmaxes(scores: &mut [f32], width: usize) {
    for row in scores.chunks_exact_mut(width) {
        let max = largest(row);
        for value in row {
            *value -= max;
        }
    }
    for value in scores.iter_mut() {
        *value = exp(*value);
    }
    for row in scores.chunks_exact_mut(width) {
        let total = sum(row, |value| value);
        for value in row {
            *value /= total;
        }
    }
}

/// The softmax of a row, in place.
pub(in crate::runtime) fn softmax(row: &mut [f32]) {
    let width = row.len().max(1);
    softmaxes(row, width);
}

fn softmax_zero(row: &mut [f32]) {
    let max = largest(row);
    let zero = exp(-max);
    let mut total = 0.0;
    for value in row.iter_mut() {
        if value.abs() > ZERO || value.is_nan() {
            *value = exp(*value - max);
            total += *value;
        } else {
            *value *= zero;
        }
    }
    for value in row {
        *value /= total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: &[f32], expected: &[f32]) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-6, "{got} is not {expected}");
        }
    }

    fn applied(name: &str, scores: &[f32], width: usize) -> Vec<f32> {
        let mut scores = scores.to_vec();
        PostTransform::parse(name)
            .unwrap()
            .apply(&mut scores, width);
        scores
    }

    // The expected numbers are ONNX Runtime's, 1.32.
    #[test]
    fn rows_are_transformed_as_onnx_runtime_does() {
        close(
            &applied("SOFTMAX", &[0.0, 0.3, 0.8, -0.4], 2),
            &[0.425_557_46, 0.574_442_5, 0.768_524_8, 0.231_475_2],
        );
        close(
            &applied("SOFTMAX_ZERO", &[0.0, 0.3, 0.8, 0.2], 2),
            &[0.0, 1.0, 0.645_656_3, 0.354_343_7],
        );
        close(&applied("LOGISTIC", &[0.0, 0.3], 2), &[0.5, 0.574_442_5]);
        close(
            &applied("PROBIT", &[0.8, 0.2], 2),
            &[0.841_756_1, -0.841_756_1],
        );
        close(&applied("NONE", &[0.8, 0.2], 2), &[0.8, 0.2]);
        assert!(PostTransform::parse("TANH").is_err());
    }

    #[test]
    fn a_single_score_keeps_its_value_but_for_the_probit() {
        close(&applied("LOGISTIC", &[0.8, 0.3], 1), &[0.8, 0.3]);
        close(&applied("SOFTMAX", &[0.8], 1), &[0.8]);
        close(&applied("PROBIT", &[0.8], 1), &[0.841_756_1]);
    }

    #[test]
    fn two_classes_share_one_score() {
        let pair = |name: &str, signed| PostTransform::parse(name).unwrap().pair(0.8, signed);
        close(&pair("NONE", false), &[0.2, 0.8]);
        close(&pair("NONE", true), &[-0.8, 0.8]);
        close(&pair("LOGISTIC", true), &[0.310_025_5, 0.689_974_5]);
        close(&pair("SOFTMAX", true), &[0.2, 0.8]);
    }

    #[test]
    fn a_row_with_nan_is_all_nan() {
        let got = applied("SOFTMAX", &[f32::NAN, 1.0, 2.0], 3);
        assert!(got.iter().all(|value| value.is_nan()), "{got:?}");
    }
}
