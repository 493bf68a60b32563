//! `SVMClassifier`: one vote for each pair of classes, with probabilities where the model has
//! their parameters; or one linear score for each class where there are no support vectors.
//!
//! Semantics as in ONNX Runtime (`onnxruntime/core/providers/cpu/ml/svmclassifier.cc`).

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Datum, TValue, TVec, TractResult, tvec};
use tract_onnx::tract_hir::internal::{anyhow, bail};

use super::attributes;
use super::coupling::{Coupling, pairwise_probability};
use super::kernel::{Built, Fact, Kernel, operator};
use super::labels::{Labels, best_class};
use super::linear::one_matrix;
use super::math::dot;
use super::post_transform::PostTransform;
use super::svm::Function;
use super::tensors::{filled, floats, input, matrix};

#[derive(Debug)]
struct SvmClassifier {
    labels: Labels,
    post: PostTransform,
    model: Model,
}

#[derive(Debug)]
enum Model {
    Linear(LinearModel),
    Pairs(PairsModel),
}

/// One row of coefficients for each class.
#[derive(Debug)]
struct LinearModel {
    coefficients: Vec<f32>,
    rho: f32,
    classes: usize,
    all_positive: bool,
}

/// Support vectors in class order, and a decision between each pair of classes.
#[derive(Debug)]
struct PairsModel {
    function: Function,
    vectors: Vec<f32>,
    /// Number of support vectors.
    supports: usize,
    pairs: Vec<Pair>,
    coefficients: Vec<f32>,
    classes: usize,
    has_probabilities: bool,
}

/// How class `first` is told from class `second`.
#[derive(Debug, PartialEq)]
struct Pair {
    first: usize,
    second: usize,
    /// The coefficients and the support vectors that they go with, for both classes.
    parts: [Part; 2],
    rho: f32,
    /// Slope and offset of the probability.
    probability: [f32; 2],
}

#[derive(Debug, PartialEq)]
struct Part {
    coefficients: usize,
    vectors: usize,
    len: usize,
}

/// Builds `SVMClassifier`.
pub(super) fn classifier(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let labels = Labels::of(node, "classlabels_ints")?;
    let per_class = attributes::ints(node, "vectors_per_class")?;
    let model = if per_class.iter().any(|count| *count > 0) {
        Model::Pairs(pairs_model(node, &per_class, labels.len())?)
    } else {
        let coefficients = attributes::floats(node, "coefficients")?;
        let rho = attributes::floats(node, "rho")?;
        Model::Linear(LinearModel {
            all_positive: coefficients.iter().all(|value| *value >= 0.0),
            coefficients,
            rho: rho.first().copied().unwrap_or_default(),
            classes: labels.len(),
        })
    };
    let post = PostTransform::parse(&attributes::string(node, "post_transform", "NONE")?)?;
    Ok(operator(SvmClassifier {
        labels,
        post,
        model,
    }))
}

fn pairs_model(node: &NodeProto, per_class: &[i64], classes: usize) -> TractResult<PairsModel> {
    if classes < 2 || per_class.len() != classes {
        bail!(
            "has vectors_per_class for {} classes and {classes} labels; two or more of both are \
             needed",
            per_class.len()
        );
    }
    let counts: Vec<usize> = per_class
        .iter()
        .map(|count| usize::try_from(*count))
        .collect::<Result<_, _>>()?;
    let rho = attributes::floats(node, "rho")?;
    let slopes = attributes::floats(node, "prob_a")?;
    let offsets = attributes::floats(node, "prob_b")?;
    let coefficients = attributes::floats(node, "coefficients")?;
    let supports: usize = counts.iter().sum();
    let pair_count = classes * (classes - 1) / 2;
    if coefficients.len() < (classes - 1) * supports || rho.len() < pair_count {
        bail!(
            "has too few coefficients or rho for {supports} support vectors of {classes} classes"
        );
    }
    let has_probabilities = !slopes.is_empty();
    if has_probabilities && (slopes.len() < pair_count || slopes.len() != offsets.len()) {
        bail!("has too few of prob_a or prob_b for {classes} classes");
    }
    let starts: Vec<usize> = counts
        .iter()
        .scan(0, |next, count| {
            let start = *next;
            *next += count;
            Some(start)
        })
        .collect();
    let mut pairs = Vec::with_capacity(pair_count);
    for (first, (first_start, first_len)) in starts.iter().zip(&counts).enumerate() {
        let later = starts.iter().zip(&counts).enumerate().skip(first + 1);
        for (second, (second_start, second_len)) in later {
            let index = pairs.len();
            let at = |values: &[f32]| values.get(index).copied().unwrap_or_default();
            // Row c of the coefficients is for class c+1 in the columns of the classes up to c,
            // and for class c in those of the later classes.
            let part = |row: usize, vectors: usize, len: usize| Part {
                coefficients: row * supports + vectors,
                vectors,
                len,
            };
            pairs.push(Pair {
                first,
                second,
                parts: [
                    part(second - 1, *first_start, *first_len),
                    part(first, *second_start, *second_len),
                ],
                rho: at(&rho),
                probability: [at(&slopes), at(&offsets)],
            });
        }
    }
    Ok(PairsModel {
        function: Function::of(node)?,
        vectors: attributes::floats(node, "support_vectors")?,
        supports,
        pairs,
        coefficients,
        classes,
        has_probabilities,
    })
}

impl PairsModel {
    /// Scores a row.
    fn width(&self) -> usize {
        match (self.has_probabilities, self.classes) {
            (true, classes) => classes,
            (false, 2) => 2,
            (false, _) => self.pairs.len(),
        }
    }

    fn decision(&self, pair: &Pair, kernels: &[f32]) -> f32 {
        let mut sum = 0.0;
        for part in &pair.parts {
            let weights = self.coefficients.iter().skip(part.coefficients);
            let kernels = kernels.iter().skip(part.vectors);
            for (weight, kernel) in weights.zip(kernels).take(part.len) {
                sum += f64::from(weight * kernel);
            }
        }
        (sum + f64::from(pair.rho)) as f32
    }

    /// The class of each row of `x`; its scores go to `scores`.
    fn run(
        &self,
        x: &[f32],
        features: usize,
        post: PostTransform,
        scores: &mut [f32],
    ) -> Vec<usize> {
        let width = self.width().max(1);
        let mut kernels = vec![0.0; self.supports];
        let mut decisions = vec![0.0; self.pairs.len()];
        let mut votes = vec![0_usize; self.classes];
        let mut coupling = Coupling::new(self.classes);
        let rows = x.chunks_exact(features.max(1));
        rows.zip(scores.chunks_exact_mut(width))
            .map(|(row, scores)| {
                self.function.each(row, &self.vectors, &mut kernels);
                votes.fill(0);
                for (pair, decision) in self.pairs.iter().zip(&mut decisions) {
                    *decision = self.decision(pair, &kernels);
                    let winner = if *decision > 0.0 {
                        pair.first
                    } else {
                        pair.second
                    };
                    if let Some(votes) = votes.get_mut(winner) {
                        *votes += 1;
                    }
                }
                if self.has_probabilities {
                    for (pair, decision) in self.pairs.iter().zip(&decisions) {
                        let probability = pairwise_probability(*decision, pair.probability);
                        coupling.set(pair.first, pair.second, probability);
                    }
                    coupling.solve(scores);
                    post.apply(scores, width);
                } else if let ([first, second], [decision]) = (&mut *scores, decisions.as_slice()) {
                    [*first, *second] = post.pair(*decision, true);
                } else {
                    scores.copy_from_slice(&decisions);
                    post.apply(scores, width);
                }
                most_votes(&votes)
            })
            .collect()
    }
}

/// The first class with the most votes.
fn most_votes(votes: &[usize]) -> usize {
    let most = votes.iter().max();
    let first = votes.iter().position(|count| Some(count) == most);
    first.unwrap_or_default()
}

impl LinearModel {
    fn run(
        &self,
        x: &[f32],
        features: usize,
        post: PostTransform,
        scores: &mut [f32],
    ) -> Vec<usize> {
        let features = features.max(1);
        let rows = x.chunks_exact(features);
        let classes = rows
            .zip(scores.chunks_exact_mut(self.classes.max(1)))
            .map(|(row, scores)| {
                for (score, weights) in scores
                    .iter_mut()
                    .zip(self.coefficients.chunks_exact(features))
                {
                    *score = dot(row, weights) + self.rho;
                }
                self.class(scores)
            })
            .collect();
        post.apply(scores, self.classes);
        classes
    }

    /// Of two classes ONNX Runtime takes the second wherever the larger score is positive (or at
    /// least a half, where no coefficient is negative).
    fn class(&self, scores: &[f32]) -> usize {
        let best = best_class(scores);
        let most = scores.get(best).copied().unwrap_or_default();
        let second = if self.all_positive {
            most >= 0.5
        } else {
            most > 0.0
        };
        if self.classes == 2 && second { 1 } else { best }
    }
}

impl Kernel for SvmClassifier {
    fn name(&self) -> &'static str {
        "SVMClassifier"
    }

    fn outputs(&self) -> usize {
        2
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (rows, features) = one_matrix(inputs)?;
        let (width, wanted) = match &self.model {
            Model::Linear(model) => (
                model.classes,
                model.coefficients.len() / model.classes.max(1),
            ),
            Model::Pairs(model) => (model.width(), model.vectors.len() / model.supports.max(1)),
        };
        if features != wanted || features == 0 {
            bail!("is made for rows of {wanted} values, not of {features}");
        }
        Ok(tvec!(
            Fact::new(self.labels.element(), [rows.clone()]),
            Fact::new(f32::datum_type(), [rows, width.into()])
        ))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = input(inputs, 0)?;
        let [rows, features] = matrix(x.shape())?;
        let x = floats(x)?;
        let width = match &self.model {
            Model::Linear(model) => model.classes,
            Model::Pairs(model) => model.width(),
        };
        let mut classes = Vec::new();
        let scores = filled(&[rows, width], |scores| {
            classes = match &self.model {
                Model::Linear(model) => model.run(&x, features, self.post, scores),
                Model::Pairs(model) => model.run(&x, features, self.post, scores),
            };
            Ok(())
        })?;
        if classes.len() != rows {
            return Err(anyhow!("scored {} of {rows} rows", classes.len()));
        }
        Ok(tvec!(self.labels.tensor(&classes)?, scores))
    }
}
