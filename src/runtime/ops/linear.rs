//! `LinearClassifier` and `LinearRegressor`: a dot product a row and target.
//!
//! Semantics as in ONNX Runtime (`onnxruntime/core/providers/cpu/ml/linearclassifier.cc` and
//! `linearregressor.cc`): any number type is scored as float, and the label is found before the
//! scores are transformed.

use std::sync::OnceLock;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Datum, TDim, TValue, TVec, TractResult, tvec};
use tract_onnx::tract_hir::internal::bail;

use super::attributes;
use super::direct::{Rows, Score, append_labels, room};
use super::kernel::{Built, Fact, Kernel, operator};
use super::labels::{Labels, best_class};
use super::post_transform::PostTransform;
use super::tensors::{check_number, filled, floats, input, known, matrix};
use super::weights::Weights;
use crate::codec::Values;

/// One row of coefficients and one intercept for each target.
#[derive(Debug, Default)]
pub(super) struct Linear {
    coefficients: Vec<f32>,
    intercepts: Vec<f32>,
    /// The coefficients as they are used; made when the length of a row is known.
    weights: OnceLock<Weights>,
}

impl Linear {
    fn of(node: &NodeProto) -> TractResult<Self> {
        Ok(Self {
            coefficients: attributes::floats(node, "coefficients")?,
            intercepts: attributes::floats(node, "intercepts")?,
            weights: OnceLock::new(),
        })
    }

    /// The number of targets where a row has `features` values.
    fn targets(&self, features: usize) -> TractResult<usize> {
        let coefficients = self.coefficients.len();
        if features == 0 || coefficients == 0 || !coefficients.is_multiple_of(features) {
            bail!("has {coefficients} coefficients for rows of {features} values");
        }
        let targets = coefficients / features;
        match self.intercepts.len() {
            0 => Ok(targets),
            intercepts if intercepts == targets => Ok(targets),
            intercepts => bail!("has {intercepts} intercepts for {targets} targets"),
        }
    }

    /// Bytes of the coefficients, twice: as listed, and as they are used.
    fn bytes(&self) -> usize {
        2 * (size_of_val(self.coefficients.as_slice()) + size_of_val(self.intercepts.as_slice()))
    }

    /// The scores of all rows of `x`.
    fn scores(&self, x: &[f32], features: usize, scores: &mut [f32]) {
        let weights = self
            .weights
            .get_or_init(|| Weights::new(&self.coefficients, &self.intercepts, features));
        weights.apply(x, scores);
    }
}

#[derive(Debug)]
struct LinearRegressor {
    linear: Linear,
    post: PostTransform,
}

/// Builds `LinearRegressor`.
pub(super) fn regressor(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let mut linear = Linear::of(node)?;
    let targets = attributes::int(node, "targets", 1)?;
    // Intercepts of another length are none.
    if usize::try_from(targets).ok() != Some(linear.intercepts.len()) {
        linear.intercepts.clear();
    }
    let post = PostTransform::parse(&attributes::string(node, "post_transform", "NONE")?)?;
    Ok(operator(LinearRegressor { linear, post }))
}

impl Kernel for LinearRegressor {
    fn name(&self) -> &'static str {
        "LinearRegressor"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (rows, features) = one_matrix(inputs)?;
        let targets = self.linear.targets(features)?;
        Ok(tvec!(Fact::new(f32::datum_type(), [rows, targets.into()])))
    }

    fn bytes(&self) -> usize {
        self.linear.bytes()
    }

    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = input(inputs, 0)?;
        let [rows, features] = matrix(x.shape())?;
        let targets = self.linear.targets(features)?;
        let x = floats(x)?;
        let scores = filled(&[rows, targets], |scores| {
            self.linear.scores(&x, features, scores);
            self.post.apply(scores, targets);
            Ok(())
        })?;
        Ok(tvec!(scores))
    }
}

impl Score for LinearRegressor {
    fn append(
        &self,
        rows: Rows<'_>,
        scores: &mut Vec<f32>,
        _: Option<&mut Values>,
    ) -> TractResult<()> {
        let targets = self.linear.targets(rows.width)?;
        let scores = room(scores, rows.count * targets);
        self.linear.scores(rows.values, rows.width, scores);
        self.post.apply(scores, targets);
        Ok(())
    }
}

#[derive(Debug)]
struct LinearClassifier {
    linear: Linear,
    labels: Labels,
    post: PostTransform,
}

/// Builds `LinearClassifier`.
pub(super) fn classifier(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    Ok(operator(LinearClassifier {
        linear: Linear::of(node)?,
        labels: Labels::of(node, "classlabels_ints")?,
        post: PostTransform::parse(&attributes::string(node, "post_transform", "NONE")?)?,
    }))
}

impl LinearClassifier {
    /// The number of targets, and of scores a row: a second score is added where two labels share
    /// one target.
    fn targets(&self, features: usize) -> TractResult<[usize; 2]> {
        let targets = self.linear.targets(features)?;
        let labels = self.labels.len();
        match targets {
            1 => Ok([1, if labels == 2 { 2 } else { 1 }]),
            _ if labels >= targets => Ok([targets, targets]),
            _ => bail!("has {labels} labels for {targets} targets"),
        }
    }

    /// Scores and classes of rows of `features` values.
    fn both(
        &self,
        x: &[f32],
        features: usize,
        scores: &mut [f32],
        classes: &mut [usize],
    ) -> TractResult<()> {
        let [targets, width] = self.targets(features)?;
        if targets == 1 {
            self.single(x, features, scores, classes);
            return Ok(());
        }
        self.linear.scores(x, features, scores);
        for (class, scores) in classes.iter_mut().zip(scores.chunks_exact(width)) {
            *class = best_class(scores);
        }
        self.post.apply(scores, width);
        Ok(())
    }

    /// Scores and classes of a model with one target.
    fn single(&self, x: &[f32], features: usize, scores: &mut [f32], classes: &mut [usize]) {
        let width = scores.len().checked_div(classes.len()).unwrap_or(1).max(1);
        let mut single = vec![0.0; classes.len()];
        self.linear.scores(x, features, &mut single);
        let outputs = scores.chunks_exact_mut(width).zip(classes);
        for (score, (scores, class)) in single.into_iter().zip(outputs) {
            *class = usize::from(score > 0.0);
            if let [first, second] = scores {
                [*first, *second] = self.post.pair(score, false);
            } else {
                scores.fill(score);
                self.post.apply(scores, 1);
            }
        }
    }
}

impl Kernel for LinearClassifier {
    fn name(&self) -> &'static str {
        "LinearClassifier"
    }

    fn outputs(&self) -> usize {
        2
    }

    fn bytes(&self) -> usize {
        self.linear.bytes()
    }

    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (rows, features) = one_matrix(inputs)?;
        let [_, width] = self.targets(features)?;
        Ok(tvec!(
            Fact::new(self.labels.element(), [rows.clone()]),
            Fact::new(f32::datum_type(), [rows, width.into()])
        ))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = input(inputs, 0)?;
        let [rows, features] = matrix(x.shape())?;
        let [targets, width] = self.targets(features)?;
        let x = floats(x)?;
        let mut classes = vec![0; rows];
        let scores = filled(&[rows, width], |scores| {
            self.both(&x, features, scores, &mut classes)
        })?;
        let labels = if targets == 1 && width == 1 {
            self.labels.zero_and_one().tensor(&classes)?
        } else {
            self.labels.tensor(&classes)?
        };
        Ok(tvec!(labels, scores))
    }
}

impl Score for LinearClassifier {
    fn append(
        &self,
        rows: Rows<'_>,
        scores: &mut Vec<f32>,
        labels: Option<&mut Values>,
    ) -> TractResult<()> {
        let [targets, width] = self.targets(rows.width)?;
        let mut classes = vec![0; rows.count];
        let scores = room(scores, rows.count * width);
        self.both(rows.values, rows.width, scores, &mut classes)?;
        let Some(to) = labels else {
            return Ok(());
        };
        let other = (targets == 1 && width == 1).then(|| self.labels.zero_and_one());
        let (ints, strings): (&[i64], &[String]) = match other.as_ref().unwrap_or(&self.labels) {
            Labels::Ints(ints) => (ints, &[]),
            Labels::Strings(strings) => (&[], strings),
        };
        append_labels(to, classes.into_iter(), ints, strings)
    }
}

/// Rows and features of the only input, which holds numbers.
pub(super) fn one_matrix(inputs: &[Fact]) -> TractResult<(TDim, usize)> {
    let [input] = inputs else {
        bail!("takes one input, not {}", inputs.len());
    };
    check_number(input.element)?;
    let [rows, features] = matrix(&input.shape)?;
    Ok((rows, known(&features)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ops::tensors::{tensor_of, values};

    fn linear(coefficients: &[f32], intercepts: &[f32]) -> Linear {
        Linear {
            coefficients: coefficients.to_vec(),
            intercepts: intercepts.to_vec(),
            weights: OnceLock::new(),
        }
    }

    fn classify(linear: Linear, labels: &[i64], post: &str, x: &[f32]) -> (Vec<i64>, Vec<f32>) {
        let kernel = LinearClassifier {
            linear,
            labels: Labels::Ints(labels.to_vec()),
            post: PostTransform::parse(post).unwrap(),
        };
        let x = tensor_of(&[x.len() / 2, 2], x.to_vec()).unwrap();
        let outputs = kernel.eval(&[x]).unwrap();
        (
            values::<i64>(&outputs[0]).unwrap().to_vec(),
            values::<f32>(&outputs[1]).unwrap().to_vec(),
        )
    }

    const X: [f32; 6] = [1.0, -2.0, 0.5, 0.5, -1.0, 3.0];

    #[test]
    fn a_regressor_adds_up_and_its_single_score_is_not_transformed() {
        let kernel = LinearRegressor {
            linear: linear(&[2.0, 4.0], &[1.0]),
            post: PostTransform::Logistic,
        };
        let x = tensor_of(&[3, 2], X.to_vec()).unwrap();
        let outputs = kernel.eval(&[x]).unwrap();
        assert_eq!(outputs[0].shape(), [3, 1]);
        assert_eq!(values::<f32>(&outputs[0]).unwrap(), [-5.0, 4.0, 11.0]);
    }

    #[test]
    fn integers_and_doubles_are_scored_as_floats() {
        let kernel = LinearRegressor {
            linear: linear(&[2.0, 4.0], &[]),
            post: PostTransform::None,
        };
        for x in [
            tensor_of(&[1, 2], vec![3_i64, -1]),
            tensor_of(&[1, 2], vec![3_i32, -1]),
            tensor_of(&[1, 2], vec![3.0_f64, -1.0]),
            tensor_of(&[2], vec![3.0_f32, -1.0]),
        ] {
            let outputs = kernel.eval(&[x.unwrap()]).unwrap();
            assert_eq!(values::<f32>(&outputs[0]).unwrap(), [2.0]);
        }
    }

    #[test]
    fn one_target_gives_two_scores() {
        let one = || linear(&[2.0, 4.0], &[1.0]);
        let (labels, scores) = classify(one(), &[5, 7], "NONE", &X);
        assert_eq!(labels, [5, 7, 7]);
        assert_eq!(scores, [6.0, -5.0, -3.0, 4.0, -10.0, 11.0]);
        let (labels, scores) = classify(one(), &[5, 7], "LOGISTIC", &X);
        assert_eq!(labels, [5, 7, 7]);
        assert!((scores[3] - 0.982_013_8).abs() < 1e-6, "{scores:?}");
        assert!((scores[2] + scores[3] - 1.0).abs() < 1e-6);
        // With one label there is one score, and the labels are 0 and 1.
        let (labels, scores) = classify(one(), &[5], "LOGISTIC", &X);
        assert_eq!((labels, scores), (vec![0, 1, 1], vec![-5.0, 4.0, 11.0]));
    }

    #[test]
    fn the_label_has_the_largest_score() {
        let three = || linear(&[1.0, 0.0, 0.0, 1.0, 0.0, 0.0], &[0.0, 0.0, 0.75]);
        let (labels, scores) = classify(three(), &[5, 6, 7], "NONE", &X);
        assert_eq!(labels, [5, 7, 6]);
        assert_eq!(scores, [1.0, -2.0, 0.75, 0.5, 0.5, 0.75, -1.0, 3.0, 0.75]);
        let (same, softmax) = classify(three(), &[5, 6, 7], "SOFTMAX", &X);
        assert_eq!(same, labels);
        let sums = softmax.chunks(3).map(|row| row.iter().sum::<f32>());
        assert!(sums.into_iter().all(|sum| (sum - 1.0).abs() < 1e-6));
    }

    #[test]
    fn attributes_that_do_not_fit_are_refused() {
        let fact = |features: usize| [Fact::new(f32::datum_type(), [3.into(), features.into()])];
        let kernel = |linear, labels| LinearClassifier {
            linear,
            labels: Labels::Ints(labels),
            post: PostTransform::None,
        };
        let error = |kernel: LinearClassifier, features| {
            kernel.facts(&fact(features)).unwrap_err().to_string()
        };
        let two = || linear(&[1.0; 4], &[]);
        assert!(kernel(two(), vec![1, 2]).facts(&fact(2)).is_ok());
        assert!(error(kernel(two(), vec![1]), 2).contains("1 labels for 2 targets"));
        assert!(error(kernel(two(), vec![1, 2]), 3).contains("4 coefficients for rows of 3"));
        assert!(error(kernel(two(), vec![1, 2]), 0).contains("rows of 0"));
        let error = error(kernel(linear(&[1.0; 4], &[1.0]), vec![1, 2]), 2);
        assert!(error.contains("1 intercepts for 2 targets"), "{error}");
    }
}
