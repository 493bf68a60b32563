//! Random ensembles and rows, rich in what comparisons go wrong at.

use proptest::prelude::*;

use super::ensemble::{Branch, Ensemble, Mode, Node, Weight};
use crate::runtime::samples::Random;

/// Values that comparisons go wrong at. Those at the end are no floats.
const VALUES: [f64; 19] = [
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    0.0,
    -0.0,
    1.0,
    -1.0,
    1.401_298_464_324_817e-45,
    -1.401_298_464_324_817e-45,
    1.175_494_350_822_287_5e-38,
    f32::MAX as f64,
    f32::MIN as f64,
    16_777_216.0,
    2.5,
    0.1,
    1e300,
    -1e300,
    1e-320,
    -1e-320,
];
const FLOATS: usize = 14;

/// How the leaves of an ensemble look.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    OneTarget,
    TargetPerTree,
    AllTargets,
    Anything,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) seed: u64,
    pub(super) trees: usize,
    pub(super) branches: usize,
    pub(super) features: u32,
    pub(super) targets: usize,
    pub(super) kind: Kind,
    pub(super) doubles: bool,
}

pub(super) fn shapes() -> impl Strategy<Value = Shape> {
    let kind = prop_oneof![
        Just(Kind::OneTarget),
        Just(Kind::TargetPerTree),
        Just(Kind::AllTargets),
        Just(Kind::Anything)
    ];
    (
        any::<u64>(),
        1..20_usize,
        // Trees that have few enough leaves for a bit each, and others.
        prop_oneof![0..40_usize, 40..160_usize],
        1..6_u32,
        1..5_usize,
        kind,
        any::<bool>(),
    )
        .prop_map(
            |(seed, trees, branches, features, targets, kind, doubles)| Shape {
                seed,
                trees,
                branches,
                features,
                targets,
                kind,
                doubles,
            },
        )
}

struct Builder {
    random: Random,
    shape: Shape,
    ensemble: Ensemble,
}

impl Builder {
    fn below(&mut self, most: usize) -> usize {
        (self.random.next() % most as u64) as usize
    }

    fn value(&mut self) -> f64 {
        let most = if self.shape.doubles {
            VALUES.len()
        } else {
            FLOATS
        };
        VALUES[self.below(most)]
    }

    fn weight(&mut self) -> f64 {
        let weight = self.random.normal();
        if self.shape.doubles {
            weight
        } else {
            f64::from(weight as f32)
        }
    }

    fn node(&mut self, node: Node) -> u32 {
        self.ensemble.nodes.push(node);
        self.ensemble.nodes.len() as u32 - 1
    }

    fn leaf(&mut self, tree: usize) -> u32 {
        let targets = self.shape.targets as u32;
        let chosen: Vec<u32> = match self.shape.kind {
            Kind::OneTarget => vec![0],
            Kind::TargetPerTree => vec![tree as u32 % targets],
            Kind::AllTargets => (0..targets).collect(),
            Kind::Anything => {
                let count = self.below(4);
                (0..count)
                    .map(|_| self.below(targets as usize) as u32)
                    .collect()
            }
        };
        let start = self.ensemble.weights.len() as u32;
        for target in &chosen {
            let value = self.weight();
            self.ensemble.weights.push(Weight {
                target: *target,
                value,
            });
        }
        self.node(Node::Leaf(start..start + chosen.len() as u32))
    }

    /// A tree from the leaves up: branches join nodes that may be joined by others as well.
    fn tree(&mut self, tree: usize) {
        let mut loose: Vec<u32> = (0..3).map(|_| self.leaf(tree)).collect();
        let branches = self.below(self.shape.branches + 1);
        for _ in 0..branches {
            let mut pick = |keep: usize| {
                let at = self.below(loose.len());
                if self.below(keep) == 0 {
                    loose[at]
                } else {
                    loose.swap_remove(at)
                }
            };
            let yes = pick(8);
            let no = if loose.is_empty() {
                yes
            } else {
                let at = self.below(loose.len());
                loose[at]
            };
            let value = self.value();
            let mode = [
                Mode::Leq,
                Mode::Lt,
                Mode::Gte,
                Mode::Gt,
                Mode::Eq,
                Mode::Neq,
                Mode::Member(0),
            ][self.below(7)];
            let mode = match mode {
                Mode::Member(_) => {
                    let set = (0..self.below(6)).map(|_| self.value()).collect();
                    self.ensemble.members.push(set);
                    Mode::Member(self.ensemble.members.len() as u32 - 1)
                }
                mode => mode,
            };
            let branch = Branch {
                feature: self.below(self.shape.features as usize) as u32,
                mode,
                value,
                missing_is_yes: self.below(2) == 0,
                yes,
                no,
            };
            let joined = self.node(Node::Branch(branch));
            loose.push(joined);
            if self.below(3) == 0 {
                let leaf = self.leaf(tree);
                loose.push(leaf);
            }
        }
        let root = *loose.last().unwrap();
        self.ensemble.roots.push(root);
    }
}

pub(super) fn build(shape: Shape) -> Ensemble {
    let mut builder = Builder {
        random: Random(shape.seed),
        shape,
        ensemble: Ensemble {
            targets: shape.targets,
            ..Ensemble::default()
        },
    };
    (0..shape.trees).for_each(|tree| builder.tree(tree));
    builder.ensemble
}

pub(super) fn features(shape: Shape, rows: usize) -> Vec<f64> {
    let mut random = Random(!shape.seed);
    let mut next = || random.next();
    (0..rows * shape.features as usize)
        .map(|_| {
            let value = VALUES[(next() % VALUES.len() as u64) as usize];
            match next() % 6 {
                0 => value.next_up(),
                1 => value.next_down(),
                2 => f64::from((value as f32).next_up()),
                3 => f64::from((value as f32).next_down()),
                _ => value,
            }
        })
        .collect()
}
