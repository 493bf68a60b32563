//! A tree ensemble in plain words, as the attributes of its operator describe it. Nothing is
//! prepared for speed here, and nothing is trusted: [`lower`](super::lower) checks what it walks.

use std::ops::Range;

/// Why an ensemble is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TreeError(pub(crate) String);

/// Trees whose leaves add weights to targets (or classes).
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ensemble {
    /// The nodes of all trees.
    pub(crate) nodes: Vec<Node>,
    /// The root of each tree, in the order in which trees are summed.
    pub(crate) roots: Vec<u32>,
    /// What leaves add, by ranges of this.
    pub(crate) weights: Vec<Weight>,
    /// The sets of [`Mode::Member`].
    pub(crate) members: Vec<Vec<f64>>,
    /// Number of targets or classes.
    pub(crate) targets: usize,
}

/// A node of a tree.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    /// Asks for a feature.
    Branch(Branch),
    /// Adds these weights.
    Leaf(Range<u32>),
}

/// Goes to `yes` where the test holds, else to `no`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Branch {
    pub(crate) feature: u32,
    pub(crate) mode: Mode,
    /// What the feature is compared with.
    pub(crate) value: f64,
    /// NaN goes to `yes`, whatever the comparison says.
    pub(crate) missing_is_yes: bool,
    pub(crate) yes: u32,
    pub(crate) no: u32,
}

/// A comparison `feature ? value`. All but [`Mode::Neq`] are false for NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Leq,
    Lt,
    Gte,
    Gt,
    Eq,
    Neq,
    /// Is one of this set of [`Ensemble::members`].
    Member(u32),
}

/// What a leaf adds to one target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Weight {
    pub(crate) target: u32,
    pub(crate) value: f64,
}

/// How the trees' answers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregate {
    Sum,
    /// The sum divided by the number of trees.
    Average,
    Min,
    Max,
}

/// What is done to the scores at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PostTransform {
    None,
    Softmax,
    Logistic,
    SoftmaxZero,
    Probit,
}

/// What becomes of the sums.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Task {
    pub(crate) aggregate: Aggregate,
    pub(crate) post_transform: PostTransform,
    /// Added to the targets; empty for none.
    pub(crate) base_values: Vec<f64>,
    /// Present in a classifier.
    pub(crate) classifier: Option<Classifier>,
    /// Whether weights or thresholds are given as doubles: sums are then doubles as well.
    pub(crate) doubles: bool,
}

/// How a classifier picks its label. These rules are ONNX Runtime's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Classifier {
    /// Two classes, and all weights are for one of them.
    pub(crate) binary: bool,
    /// No weight is negative: the binary threshold is 0.5 then, else 0.
    pub(crate) weights_are_positive: bool,
}

/// The precision of the values that a model is fed with, after integers became floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    Single,
    Double,
}
