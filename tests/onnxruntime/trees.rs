//! Random ensembles on values that comparisons go wrong at, against ONNX Runtime: the same leaves,
//! and so the same sums and labels, for single rows and for batches.

#[path = "../support/trees.rs"]
mod ensembles;

use std::sync::Arc;

use ensembles::{Labels, Scores, Shape, Weights};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use swapstream::codec::{Columns, Values};
use swapstream::model::RuntimeKind;
use swapstream::runtime::{CompiledModel, LoadLimits, load};

use super::{here, run};

const TRANSFORMS: [&str; 5] = ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"];

/// Sizes of ensembles; no targets and no classes yet.
fn sizes() -> impl Strategy<Value = Shape> {
    let numbers = (any::<u64>(), 1..40_usize, 2..60_usize, 1..70_usize);
    (numbers, any::<bool>()).prop_map(|((seed, trees, leaves, features), one_mode)| Shape {
        seed,
        trees,
        leaves,
        features,
        targets: 1,
        classifier: false,
        one_mode,
        scores: Scores::All,
        weights: Weights::Exact,
        post_transform: "NONE",
        labels: Labels::From(10),
        base: 0,
    })
}

/// Regressors of a few targets, and classifiers of three and more classes.
fn many_targets() -> impl Strategy<Value = Shape> {
    (sizes(), 1..5_usize, any::<bool>()).prop_map(|(shape, targets, classifier)| Shape {
        targets: if classifier { targets + 2 } else { targets },
        classifier,
        ..shape
    })
}

/// Classifiers of two classes. Boosted ones score one of them, forests both.
fn two_classes() -> impl Strategy<Value = Shape> {
    let weights = prop_oneof![
        Just(Weights::Exact),
        Just(Weights::Positive),
        Just(Weights::Any)
    ];
    let scores = prop_oneof![
        Just(Scores::All),
        Just(Scores::One(0)),
        Just(Scores::One(1))
    ];
    let parts = (
        scores,
        weights,
        0..TRANSFORMS.len(),
        any::<bool>(),
        0..3_usize,
    );
    (sizes(), parts).prop_map(
        |(shape, (scores, weights, transform, strings, base))| Shape {
            targets: 2,
            classifier: true,
            scores,
            weights,
            // The quantile's slope has no bound: it makes any error of a sum large.
            post_transform: match TRANSFORMS[transform] {
                "PROBIT" if weights == Weights::Any => "NONE",
                name => name,
            },
            labels: match scores {
                // With weights for both classes ONNX Runtime answers 0 or 1, whatever they are called.
                Scores::All => Labels::From(0),
                Scores::One(_) if strings => Labels::Strings,
                Scores::One(_) => Labels::From(10),
            },
            // One base value with weights for both classes leaves a score undefined there.
            base: match scores {
                Scores::All => base / 2 * 2,
                Scores::One(_) => base.min(1),
            },
            ..shape
        },
    )
}

/// Both runtimes' answers to `rows` rows.
fn answers(models: &[Arc<dyn CompiledModel>; 2], shape: Shape, rows: usize) -> [Columns; 2] {
    models.each_ref().map(|model| {
        let mut inputs = Columns::new(&model.signature().inputs);
        inputs.columns[0].values = Values::Float(ensembles::rows(shape, rows));
        inputs.rows = rows;
        run(&**model, &inputs).unwrap()
    })
}

/// The last output.
fn scores(outputs: &Columns) -> &[f32] {
    match outputs.columns.last().map(|column| &column.values) {
        Some(Values::Float(scores)) => scores,
        other => panic!("no scores: {other:?}"),
    }
}

/// The labels as text.
fn labels(outputs: &Columns) -> Vec<String> {
    match &outputs.columns[0].values {
        Values::Int64(labels) => labels.iter().map(ToString::to_string).collect(),
        Values::String(labels) => labels.clone(),
        other => panic!("no labels: {other:?}"),
    }
}

fn near(a: f32, b: f32) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-6 + 1e-5 * b.abs()
}

/// Whether nobody can say which class has the most: rounding decides, or the order.
fn tie(shape: Shape, scores: &[f32]) -> bool {
    if shape.targets == 2 && shape.weights != Weights::Any {
        return false;
    }
    let mut sorted = scores.to_vec();
    sorted.sort_by(f32::total_cmp);
    match sorted.as_slice() {
        [.., second, first] if near(*second, *first) => true,
        // Binary classifiers compare one score with 0 or 1/2.
        [low, high] => [low, high].iter().any(|s| near(**s, 0.0) || near(**s, 0.5)),
        _ => false,
    }
}

fn compare(shape: Shape) -> Result<(), TestCaseError> {
    let bytes = ensembles::model(shape);
    let models = [RuntimeKind::Tract, RuntimeKind::OnnxRuntime]
        .map(|kind| load(&bytes, kind, LoadLimits::default()).unwrap());
    for rows in [1, 7, 50] {
        let [ours, theirs] = answers(&models, shape, rows);
        let width = shape.targets;
        let pairs = scores(&ours)
            .chunks(width)
            .zip(scores(&theirs).chunks(width));
        let mut ties = Vec::new();
        for (found, expected) in pairs {
            for (a, b) in found.iter().zip(expected) {
                // ONNX Runtime leaves the second score undefined, and the first one is the other
                // class's; ours are those of ONNX's reference implementation.
                if shape.post_transform == "PROBIT" && shape.scores != Scores::All {
                    continue;
                }
                let plain = shape.post_transform == "NONE" && shape.weights != Weights::Any;
                // Exact sums are equal, but for the sign of 0.
                let same = if plain { a == b } else { near(*a, *b) };
                prop_assert!(same, "{} {} in {:?} {:?}", a, b, found, expected);
            }
            ties.push(tie(shape, expected));
        }
        if shape.classifier {
            let [ours, theirs] = [labels(&ours), labels(&theirs)];
            prop_assert_eq!(ours.len(), theirs.len());
            for ((a, b), tie) in ours.iter().zip(&theirs).zip(ties) {
                prop_assert!(a == b || tie, "{} {}", a, b);
            }
        }
    }
    Ok(())
}

/// `SWAPSTREAM_TEST_TREES` multiplies the cases.
fn hold(cases: u32, shapes: &impl Strategy<Value = Shape>) {
    if !here() {
        return;
    }
    let times = std::env::var("SWAPSTREAM_TEST_TREES").map_or(1, |times| times.parse().unwrap());
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(cases * times)
    });
    let result = runner.run(shapes, compare);
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn trees_find_the_same_leaves() {
    hold(100, &many_targets());
}

#[test]
fn trees_of_any_weights_sum_up_to_the_same() {
    let any = |shape| Shape {
        weights: Weights::Any,
        ..shape
    };
    hold(30, &many_targets().prop_map(any));
}

#[test]
fn trees_of_two_classes_give_the_same_scores_and_labels() {
    hold(80, &two_classes());
}
