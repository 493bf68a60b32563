//! Random ensembles against a plain recursive evaluator that adds in the same order: equal bits.

use proptest::prelude::*;

use super::compiled::Compiled;
use super::ensemble::{
    Aggregate, Branch, Classifier, Ensemble, Mode, Node, PostTransform, Precision, Task, Weight,
};
use super::head::Head;
use super::random::{build, features, shapes};
use super::real::{Feature, Real};
use crate::runtime::samples::Random;

/// More than two times as many as take a comparison together, and some.
const ROWS: usize = 150;

fn holds(ensemble: &Ensemble, branch: &Branch, x: f64) -> bool {
    let value = branch.value;
    let holds = match branch.mode {
        Mode::Leq => x <= value,
        Mode::Lt => x < value,
        Mode::Gte => x >= value,
        Mode::Gt => x > value,
        Mode::Eq => x == value,
        Mode::Neq => x != value,
        Mode::Member(set) => ensemble.members[set as usize].contains(&x),
    };
    holds || (branch.missing_is_yes && x.is_nan())
}

fn leaf<'a>(ensemble: &'a Ensemble, node: u32, row: &[f64]) -> &'a [Weight] {
    match &ensemble.nodes[node as usize] {
        Node::Leaf(range) => &ensemble.weights[range.start as usize..range.end as usize],
        Node::Branch(branch) => {
            let yes = holds(ensemble, branch, row[branch.feature as usize]);
            leaf(ensemble, if yes { branch.yes } else { branch.no }, row)
        }
    }
}

/// Scores and the label's place of one row.
fn plain<A: Real>(ensemble: &Ensemble, task: &Task, row: &[f64]) -> (Vec<f32>, i64) {
    let mut sums = vec![None; ensemble.targets];
    for root in &ensemble.roots {
        for weight in leaf(ensemble, *root, row) {
            let value = A::of(weight.value);
            let sum = &mut sums[weight.target as usize];
            *sum = Some(match (*sum, task.aggregate) {
                (None, Aggregate::Min | Aggregate::Max) => value,
                (None, _) => A::default() + value,
                (Some(sum), Aggregate::Sum | Aggregate::Average) => sum + value,
                (Some(sum), Aggregate::Min) => {
                    if value < sum {
                        value
                    } else {
                        sum
                    }
                }
                (Some(sum), Aggregate::Max) => {
                    if value > sum {
                        value
                    } else {
                        sum
                    }
                }
            });
        }
    }
    let mut scores: Vec<A> = sums.iter().map(|sum| sum.unwrap_or_default()).collect();
    let head = Head::new(task.clone(), ensemble.roots.len());
    let label = head.finish(&mut scores, |target| sums[target].is_some());
    (
        scores.iter().map(|score| score.single()).collect(),
        i64::from(label),
    )
}

fn task(aggregate: Aggregate, classifier: bool, doubles: bool) -> Task {
    Task {
        aggregate,
        post_transform: PostTransform::None,
        base_values: vec![],
        classifier: classifier.then_some(Classifier {
            binary: false,
            weights_are_positive: false,
        }),
        doubles,
    }
}

fn bits(scores: &[f32]) -> Vec<u32> {
    scores.iter().map(|score| score.to_bits()).collect()
}

/// Runs `rows` in batches of these sizes and compares every row.
fn compare<X: Feature>(
    ensemble: &Ensemble,
    task: &Task,
    precision: Precision,
    rows: &[X],
    width: usize,
    batches: &[usize],
) {
    let compiled = Compiled::new(ensemble, task, precision).unwrap();
    let total = rows.len() / width;
    let expected: Vec<(Vec<f32>, i64)> = rows
        .chunks(width)
        .map(|row| match precision {
            Precision::Single => {
                let row: Vec<f64> = row.iter().map(|x| f64::from(x.single())).collect();
                if task.doubles {
                    plain::<f64>(ensemble, task, &row)
                } else {
                    plain::<f32>(ensemble, task, &row)
                }
            }
            Precision::Double => {
                let row: Vec<f64> = row.iter().map(|x| x.double()).collect();
                plain::<f64>(ensemble, task, &row)
            }
        })
        .collect();
    let mut start = 0;
    for size in batches.iter().cycle() {
        let end = total.min(start + size);
        let mut scores = vec![0.0_f32; (end - start) * ensemble.targets];
        let mut labels = vec![7; end - start];
        let some = &rows[start * width..end * width];
        compiled.run(some, width, &mut scores, &mut labels).unwrap();
        for (index, (expected, label)) in expected[start..end].iter().enumerate() {
            let found = &scores[index * ensemble.targets..(index + 1) * ensemble.targets];
            assert_eq!(
                bits(found),
                bits(expected),
                "row {} of {size}",
                start + index
            );
            assert_eq!(labels[index], *label);
        }
        start = end;
        if start == total {
            break;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn trees_give_the_same_bits_as_a_plain_walk_in_any_batch(
        shape in shapes(),
        aggregate in prop_oneof![
            4 => Just(Aggregate::Sum), 1 => Just(Aggregate::Average),
            1 => Just(Aggregate::Min), 1 => Just(Aggregate::Max)
        ],
        classifier in any::<bool>(),
        batches in prop::collection::vec(1..ROWS, 1..4),
    ) {
        let ensemble = build(shape);
        let aggregate = if classifier { Aggregate::Sum } else { aggregate };
        let task = task(aggregate, classifier, shape.doubles);
        let rows = features(shape, ROWS);
        let width = shape.features as usize;
        let singles: Vec<f32> = rows.iter().map(|x| *x as f32).collect();
        let whole: Vec<i64> = rows.iter().map(|x| *x as i64).collect();
        compare(&ensemble, &task, Precision::Single, &singles, width, &batches);
        compare(&ensemble, &task, Precision::Single, &singles, width, &[ROWS]);
        compare(&ensemble, &task, Precision::Single, &whole, width, &batches);
        compare(&ensemble, &task, Precision::Double, &rows, width, &batches);
        compare(&ensemble, &task, Precision::Double, &rows, width, &[ROWS]);
    }

    #[test]
    fn damaged_ensembles_are_refused_or_run(
        shape in shapes(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0..80_u32, 0..3), 1..6),
    ) {
        let mut ensemble = build(shape);
        for (at, to, what) in damage {
            let index = at.index(ensemble.nodes.len());
            match (&mut ensemble.nodes[index], what) {
                (Node::Branch(branch), 0) => branch.yes = to,
                (Node::Branch(branch), 1) => branch.no = to,
                (Node::Branch(branch), _) => branch.mode = Mode::Member(to),
                (Node::Leaf(range), 0) => range.end = to,
                (Node::Leaf(range), _) => range.start = to,
            }
        }
        let task = task(Aggregate::Sum, false, false);
        let width = shape.features as usize;
        if let Ok(compiled) = Compiled::new(&ensemble, &task, Precision::Single) {
            let mut scores = vec![0.0_f32; 20 * shape.targets];
            compiled.run(&vec![0.5_f32; 20 * width], width, &mut scores, &mut []).unwrap();
        }
    }
}

fn stump(feature: u32, value: f64, leaves: [u32; 2]) -> Node {
    Node::Branch(Branch {
        feature,
        mode: Mode::Leq,
        value,
        missing_is_yes: feature.is_multiple_of(2),
        yes: leaves[0],
        no: leaves[1],
    })
}

#[test]
fn a_tree_or_a_row_may_be_too_large_for_small_nodes() {
    // One tree of 70,000 branches, a ladder on top of a balanced tree; then as many trees, each
    // with a feature of its own.
    let mut balanced = Ensemble {
        targets: 1,
        ..Ensemble::default()
    };
    let mut level: Vec<u32> = (0..1 << 16)
        .inspect(|&index| {
            balanced.weights.push(Weight {
                target: 0,
                value: f64::from(index),
            });
            balanced.nodes.push(Node::Leaf(index..index + 1));
        })
        .collect();
    while level.len() > 1 {
        let depth = level.len().ilog2();
        level = level
            .chunks(2)
            .map(|pair| {
                balanced
                    .nodes
                    .push(stump(depth, f64::from(depth), [pair[0], pair[1]]));
                balanced.nodes.len() as u32 - 1
            })
            .collect();
    }
    balanced.roots.push(level[0]);
    let mut many = Ensemble {
        targets: 1,
        weights: vec![
            Weight {
                target: 0,
                value: 1.0,
            },
            Weight {
                target: 0,
                value: -0.5,
            },
        ],
        nodes: vec![Node::Leaf(0..1), Node::Leaf(1..2)],
        ..Ensemble::default()
    };
    for feature in 0..70_000 {
        many.nodes.push(stump(feature, 0.0, [0, 1]));
        many.roots.push(feature + 2);
    }
    for (ensemble, width) in [(balanced, 17), (many, 70_000)] {
        let mut random = Random(3);
        let rows: Vec<f32> = (0..20 * width)
            .map(|_| {
                if random.next().is_multiple_of(9) {
                    f32::NAN
                } else {
                    (random.normal() * 9.0) as f32
                }
            })
            .collect();
        let task = task(Aggregate::Sum, false, false);
        compare(&ensemble, &task, Precision::Single, &rows, width, &[20]);
        compare(&ensemble, &task, Precision::Single, &rows, width, &[1, 18]);
    }
}

#[test]
fn what_is_no_tree_is_refused() {
    let leaf = || {
        vec![Weight {
            target: 0,
            value: 1.0,
        }]
    };
    let ensemble = |nodes: Vec<Node>| Ensemble {
        nodes,
        roots: vec![0],
        weights: leaf(),
        members: vec![],
        targets: 1,
    };
    let refusal = |ensemble: &Ensemble| {
        let task = task(Aggregate::Sum, false, false);
        Compiled::new(ensemble, &task, Precision::Single)
            .unwrap_err()
            .0
    };
    let to = |yes, no| stump(0, 0.0, [yes, no]);
    assert_eq!(
        refusal(&ensemble(vec![to(0, 1), Node::Leaf(0..1)])),
        "node 0 leads in a circle"
    );
    assert_eq!(
        refusal(&ensemble(vec![to(1, 2), to(2, 0), Node::Leaf(0..1)])),
        "node 1 leads in a circle"
    );
    assert_eq!(
        refusal(&ensemble(vec![to(1, 2), Node::Leaf(0..1)])),
        "there is no node 2"
    );
    assert_eq!(
        refusal(&ensemble(vec![Node::Leaf(0..2)])),
        "a leaf has no such weights"
    );
    let mut none = ensemble(vec![Node::Leaf(0..1)]);
    none.targets = 0;
    assert_eq!(refusal(&none), "the ensemble has no trees or no targets");
    // Trees may share nodes, but not for ever.
    let mut shared = ensemble((1..2000).map(|next| to(next, next - 1 + 2000)).collect());
    shared.nodes.extend((0..2000).map(|_| Node::Leaf(0..1)));
    shared.roots = vec![0; 1000];
    assert_eq!(refusal(&shared), "the trees share too many nodes");
    // A row that is too short.
    let compiled = Compiled::new(
        &ensemble(vec![
            stump(4, 0.0, [1, 2]),
            Node::Leaf(0..1),
            Node::Leaf(0..0),
        ]),
        &task(Aggregate::Sum, false, false),
        Precision::Single,
    );
    let compiled = compiled.unwrap();
    let error = compiled
        .run(&[0.0_f32; 8], 4, &mut [0.0_f32; 2], &mut [])
        .unwrap_err();
    assert_eq!(error.0, "the trees ask for feature 4, but a row has 4");
}
