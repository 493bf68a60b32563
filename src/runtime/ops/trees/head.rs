//! From sums to answers: base values, the post-transform, a classifier's label.
//!
//! The rules are those of ONNX Runtime 1.32 (`tree_ensemble_aggregator.h` and `ml_common.h` in
//! its sources, and tried out on the released library). We differ in three places only:
//! * where it leaves an output undefined: the second score of a binary classifier with one column
//!   of scores and PROBIT, or with one base value and weights for both classes; ours follow the
//!   reference implementation of ONNX;
//! * in the opset 5 operator it takes 1 for LOGISTIC and 2 for SOFTMAX; the specification and the
//!   exporters have it the other way round, and so have we;
//! * a classifier of two classes with weights for both answers `1` or `0` there whatever its
//!   labels are; ours gives the labels.

use super::ensemble::{Aggregate, PostTransform, Task};
use super::real::Real;

/// [`Task`] in the precision of the sums.
#[derive(Debug)]
pub(crate) struct Head<A> {
    task: Task,
    base: Vec<A>,
    trees: A,
}

impl<A: Real> Head<A> {
    pub(crate) fn new(task: Task, trees: usize) -> Self {
        Self {
            base: task.base_values.iter().map(|value| A::of(*value)).collect(),
            task,
            trees: A::of(trees as f64),
        }
    }

    /// Makes scores of one row's sums, in place; then the place of its label, if there are labels.
    /// `scored` says of a target whether the row got a weight for it; its sum is 0 if not.
    pub(crate) fn finish(&self, sums: &mut [A], scored: impl Fn(usize) -> bool) -> u32 {
        match self.task.classifier {
            None => {
                self.regress(sums, scored);
                0
            }
            Some(_) if sums.len() == 1 => self.one_class(sums),
            Some(rules) if sums.len() == 2 => {
                let positive = rules.weights_are_positive;
                self.two_classes(sums, [scored(0), scored(1)], rules.binary, positive)
            }
            Some(_) => self.many_classes(sums, scored),
        }
    }

    fn regress(&self, sums: &mut [A], scored: impl Fn(usize) -> bool) {
        let one_target = sums.len() == 1;
        for (target, sum) in sums.iter_mut().enumerate() {
            if self.task.aggregate == Aggregate::Average {
                *sum = *sum / self.trees;
            }
            if let Some(base) = self.base.get(target) {
                *sum = *sum + *base;
            }
            // One of several that got no weight stays zero, whatever its base value.
            if !one_target && !scored(target) {
                *sum = A::default();
            }
        }
        match (sums, self.task.post_transform) {
            ([sum], PostTransform::Probit) => *sum = probit(*sum),
            // A single target is left as it is.
            ([_], _) => {}
            (sums, transform) => apply(transform, sums),
        }
    }

    fn one_class(&self, sums: &mut [A]) -> u32 {
        let [sum] = sums else {
            return 0;
        };
        if let Some(base) = self.base.first() {
            *sum = *sum + *base;
        }
        let label = u32::from(*sum > A::default());
        if self.task.post_transform == PostTransform::Probit {
            *sum = probit(*sum);
        }
        label
    }

    fn two_classes(
        &self,
        sums: &mut [A],
        scored: [bool; 2],
        binary: bool,
        weights_are_positive: bool,
    ) -> u32 {
        let [first, second] = sums else {
            return 0;
        };
        let zero = A::default();
        let [has_first, has_second] = scored;
        match self.base.as_slice() {
            [_, base] if has_second => {
                *second = *base + *first;
                *first = -*second;
            }
            [base, ..] => *first = *first + *base,
            [] => {}
        }
        // What was not scored counts as zero, whatever its base value.
        if !has_first {
            *first = zero;
        }
        let positive = if has_second { *second } else { *first };
        let half = A::ONE / (A::ONE + A::ONE);
        let threshold = if binary && weights_are_positive {
            half
        } else {
            zero
        };
        let label = u32::from(positive > threshold);

        let transform = self.task.post_transform;
        let one_column = !has_second && self.base.len() < 2;
        if one_column && (binary || self.base.is_empty()) {
            let score = *first;
            (*first, *second) = match transform {
                PostTransform::Logistic => (logistic(-score), logistic(score)),
                PostTransform::Probit => (probit(A::ONE - score), probit(score)),
                _ if binary && weights_are_positive => (A::ONE - score, score),
                _ => (-score, score),
            };
        } else {
            apply(transform, sums);
        }
        label
    }

    fn many_classes(&self, sums: &mut [A], scored: impl Fn(usize) -> bool) -> u32 {
        for (sum, base) in sums.iter_mut().zip(&self.base) {
            *sum = *sum + *base;
        }
        let mut best: Option<(usize, A)> = None;
        for (class, sum) in sums.iter().enumerate() {
            let counts = !self.base.is_empty() || scored(class);
            if counts && best.is_none_or(|(_, most)| *sum > most) {
                best = Some((class, *sum));
            }
        }
        apply(self.task.post_transform, sums);
        best.map_or(0, |(class, _)| class as u32)
    }
}

fn apply<A: Real>(transform: PostTransform, scores: &mut [A]) {
    match transform {
        PostTransform::None => {}
        PostTransform::Logistic => scores
            .iter_mut()
            .for_each(|score| *score = logistic(*score)),
        PostTransform::Probit => scores.iter_mut().for_each(|score| *score = probit(*score)),
        PostTransform::Softmax => softmax(scores, |_| true),
        PostTransform::SoftmaxZero => {
            let tiny = A::of(1e-7_f32.into());
            softmax(scores, |score| score > tiny || score < -tiny);
        }
    }
}

/// Over those that `counts`; the others are near zero and stay there.
fn softmax<A: Real>(scores: &mut [A], counts: impl Fn(A) -> bool) {
    let most = scores.iter().fold(
        A::LOWEST,
        |most, score| if *score > most { *score } else { most },
    );
    let mut sum = A::default();
    for score in &mut *scores {
        if counts(*score) {
            *score = (*score - most).exp();
            sum = sum + *score;
        } else {
            *score = *score * (-most).exp();
        }
    }
    for score in scores {
        *score = *score / sum;
    }
}

/// In single precision, as ONNX Runtime computes it, and without overflow.
fn logistic<A: Real>(score: A) -> A {
    let score = score.single();
    let above = 1.0 / (1.0 + (-score.abs()).exp());
    A::of_single(if score < 0.0 { 1.0 - above } else { above })
}

/// The quantile of the normal distribution, by the approximation of the inverse error function
/// (S. Winitzki, 2008) that ONNX Runtime takes.
fn probit<R: Real>(score: R) -> R {
    const A: f32 = 0.147;
    let x = 2.0 * score.single() - 1.0;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let half = 2.0 / (std::f32::consts::PI * A) + 0.5 * log;
    let inverse = (-half + (half * half - log / A).sqrt()).sqrt();
    R::of_single(std::f32::consts::SQRT_2 * if x < 0.0 { -inverse } else { inverse })
}
