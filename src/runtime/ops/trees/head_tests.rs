//! Scores and labels, compared with what ONNX Runtime answered.

use super::ensemble::{Aggregate, Classifier, PostTransform, Task};
use super::head::Head;

type Case = (
    PostTransform,
    &'static [f64],
    [Option<f32>; 2],
    bool,
    bool,
    u32,
    [f32; 2],
);

/// What ONNX Runtime 1.32 answered: post-transform, base values, sums, whether the model is
/// binary and its weights are positive, the label's place, scores.
const TWO_CLASSES: [Case; 17] = {
    use PostTransform::{Logistic, None as Plain, Probit, Softmax, SoftmaxZero};
    const NO: Option<f32> = None;
    [
        (Plain, &[], [Some(0.25), NO], true, true, 0, [0.75, 0.25]),
        (Plain, &[], [Some(0.75), NO], true, true, 1, [0.25, 0.75]),
        (Plain, &[], [Some(-0.25), NO], true, false, 0, [0.25, -0.25]),
        (Plain, &[], [NO, Some(0.75)], true, false, 1, [0.0, 0.75]),
        (
            Plain,
            &[],
            [Some(0.6), Some(-0.4)],
            false,
            false,
            0,
            [0.6, -0.4],
        ),
        (Plain, &[0.1], [Some(0.25), NO], true, true, 0, [0.65, 0.35]),
        (
            Plain,
            &[0.1, 0.3],
            [Some(0.25), NO],
            true,
            true,
            0,
            [0.35, 0.0],
        ),
        (
            Plain,
            &[0.1, 0.3],
            [NO, Some(0.25)],
            true,
            true,
            0,
            [0.0, 0.3],
        ),
        (
            Plain,
            &[0.1, 0.3],
            [Some(0.25), Some(0.75)],
            false,
            true,
            1,
            [-0.55, 0.55],
        ),
        (
            Logistic,
            &[],
            [Some(0.25), NO],
            true,
            true,
            0,
            [0.437_823_47, 0.562_176_5],
        ),
        (
            Logistic,
            &[],
            [NO, Some(-0.25)],
            true,
            false,
            0,
            [0.5, 0.437_823_47],
        ),
        (
            Logistic,
            &[0.1, 0.3],
            [Some(0.25), NO],
            true,
            true,
            0,
            [0.586_617_6, 0.5],
        ),
        (Softmax, &[], [Some(0.25), NO], true, true, 0, [0.75, 0.25]),
        (
            Softmax,
            &[],
            [Some(-0.25), NO],
            false,
            false,
            0,
            [0.25, -0.25],
        ),
        (
            Softmax,
            &[],
            [Some(0.25), Some(0.75)],
            false,
            true,
            1,
            [0.377_540_68, 0.622_459_35],
        ),
        (
            SoftmaxZero,
            &[],
            [NO, Some(0.75)],
            true,
            false,
            1,
            [0.0, 1.0],
        ),
        (
            Probit,
            &[],
            [Some(0.25), Some(0.75)],
            false,
            true,
            1,
            [-0.674_574_3, 0.674_574_3],
        ),
    ]
};

fn close(found: &[f32], expected: &[f32]) {
    for (a, b) in found.iter().zip(expected) {
        assert!(
            (a - b).abs() <= 1e-6 || (a.is_nan() && b.is_nan()),
            "{found:?} {expected:?}"
        );
    }
}

fn head(transform: PostTransform, base: &[f64], rules: Option<(bool, bool)>) -> Head<f32> {
    Head::new(task(transform, base, rules), 4)
}

fn task(transform: PostTransform, base_values: &[f64], rules: Option<(bool, bool)>) -> Task {
    Task {
        aggregate: Aggregate::Sum,
        post_transform: transform,
        base_values: base_values.to_vec(),
        classifier: rules.map(|(binary, weights_are_positive)| Classifier {
            binary,
            weights_are_positive,
        }),
        doubles: false,
    }
}

#[test]
fn two_classes_are_scored_as_by_onnx_runtime() {
    for case in TWO_CLASSES {
        let (transform, base, sums, binary, positive, label, expected) = case;
        let mut scores = sums.map(Option::unwrap_or_default);
        let head = head(transform, base, Some((binary, positive)));
        let found = head.finish(&mut scores, |target| sums[target].is_some());
        assert_eq!(found, label, "{case:?}");
        close(&scores, &expected);
    }
}

#[test]
fn where_onnx_runtime_leaves_a_score_undefined_ours_is_not() {
    let mut scores = [0.25, 0.0];
    let probit = head(PostTransform::Probit, &[], Some((true, true)));
    assert_eq!(probit.finish(&mut scores, |target| target == 0), 0);
    close(&scores, &[0.674_574_3, -0.674_574_3]);
    let mut scores = [0.25, 0.0];
    let one_base = head(PostTransform::None, &[0.1], Some((false, true)));
    assert_eq!(one_base.finish(&mut scores, |target| target == 0), 1);
    close(&scores, &[0.35, 0.0]);
}

#[test]
fn many_classes_take_the_first_of_the_best() {
    let label = |sums: [f32; 3], base: &[f64], scored: [bool; 3]| {
        let mut sums = sums;
        let head = head(PostTransform::None, base, Some((false, false)));
        head.finish(&mut sums, |class| scored[class])
    };
    assert_eq!(label([0.1, 0.3, 0.3], &[], [true; 3]), 1);
    // What was not scored does not win.
    assert_eq!(label([0.0, -0.75, 0.0], &[], [false, true, false]), 1);
    assert_eq!(
        label([-0.25, 0.0, 0.0], &[0.1, 0.2, -0.3], [true, false, false]),
        1
    );
    assert_eq!(label([f32::NAN, 1.0, 2.0], &[], [true; 3]), 0);
    let mut zeros = [0.0, 0.0, -0.75];
    head(PostTransform::SoftmaxZero, &[], Some((false, false))).finish(&mut zeros, |_| true);
    close(&zeros, &[0.0, 0.0, 1.0]);
}

#[test]
fn a_single_target_is_not_transformed_but_by_probit() {
    for (transform, expected) in [
        (PostTransform::None, 0.75),
        (PostTransform::Logistic, 0.75),
        (PostTransform::Softmax, 0.75),
        (PostTransform::Probit, 0.674_574_3),
    ] {
        let mut sums = [0.5];
        head(transform, &[0.25], None).finish(&mut sums, |_| true);
        close(&sums, &[expected]);
    }
    let mut sums = [0.25, 0.0];
    head(PostTransform::None, &[10.0, 20.0], None).finish(&mut sums, |target| target == 0);
    close(&sums, &[10.25, 0.0]);
    let mut sums = [2.0, 4.0];
    let average = Task {
        aggregate: Aggregate::Average,
        ..task(PostTransform::None, &[1.0, 0.0], None)
    };
    Head::new(average, 4).finish(&mut sums, |_| true);
    close(&sums, &[1.5, 1.0]);
}
