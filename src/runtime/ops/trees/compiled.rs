//! A tree ensemble that is ready to run. For each row the weights of the trees are added in the
//! order of the trees, whatever the batch: a row's bits do not depend on it.

use super::ensemble::{Aggregate, Ensemble, Precision, Task, TreeError, Weight};
use super::head::Head;
use super::kernel::{Forest, LANES, Node};
use super::leaves::{self, Leaves, Scored};
use super::lower::{self, Column, View};
use super::pack::{self, Packed};
use super::real::{Buffer, Feature, Real, with_buffer};
use super::walk::walk;

/// A compiled ensemble.
#[derive(Debug)]
pub(crate) struct Compiled {
    packed: Packed,
    runs: Vec<Run>,
    /// Features that a row must have at least.
    width: usize,
    targets: usize,
    sums: Sums,
}

#[derive(Debug)]
enum Sums {
    Single(Summing<f32>),
    Double(Summing<f64>),
}

/// Neighbouring columns that hold neighbouring features.
#[derive(Debug)]
struct Run {
    view: View,
    column: usize,
    feature: usize,
    count: usize,
}

#[derive(Debug)]
struct Summing<A> {
    targets: usize,
    scored: Vec<bool>,
    head: Head<A>,
    adding: Adding<A>,
}

/// How a leaf is added.
#[derive(Debug)]
enum Adding<A> {
    /// All trees to this target.
    One(usize),
    /// Each tree to its target.
    PerTree(Vec<u32>),
    /// Each leaf to all targets.
    Dense(Vec<A>),
    /// Each leaf to some targets, or not as a sum; in the front half of a row are the values, in
    /// the other half whether there is one.
    Sparse {
        starts: Vec<u32>,
        weights: Vec<Weight>,
        aggregate: Aggregate,
    },
}

impl<A> Adding<A> {
    fn bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::PerTree(targets) => size_of_val(targets.as_slice()),
            Self::Dense(values) => size_of_val(values.as_slice()),
            Self::Sparse {
                starts, weights, ..
            } => size_of_val(starts.as_slice()) + size_of_val(weights.as_slice()),
        }
    }
}

/// Rows of one block, and values in it: the rows stay in the cache while all trees are walked.
pub(crate) const BLOCK_ROWS: usize = 128;
const BLOCK_VALUES: usize = 16 << 10;

impl Compiled {
    /// Compiles `ensemble` for features of this precision.
    pub(crate) fn new(
        ensemble: &Ensemble,
        task: &Task,
        input: Precision,
    ) -> Result<Self, TreeError> {
        let targets = ensemble.targets;
        if targets == 0 || ensemble.roots.is_empty() {
            return Err(TreeError(
                "the ensemble has no trees or no targets".to_owned(),
            ));
        }
        let lowered = lower::lower(ensemble, input)?;
        let places = pack::places(&lowered)?;
        let scored = leaves::scored(ensemble, &lowered, &places);
        let sparse = matches!(task.aggregate, Aggregate::Min | Aggregate::Max);
        let (leaves, payloads) = leaves::leaves(ensemble, &lowered, &places, &scored, sparse)?;
        let packed = pack::pack(&lowered, &places, &payloads)?;
        let sums = if input == Precision::Double || task.doubles {
            Sums::Double(Summing::new(targets, &scored, task, leaves, places.len()))
        } else {
            Sums::Single(Summing::new(targets, &scored, task, leaves, places.len()))
        };
        let features = lowered
            .columns
            .iter()
            .map(|column| column.feature as usize + 1);
        Ok(Self {
            packed,
            width: features.max().unwrap_or_default(),
            runs: runs(&lowered.columns),
            targets,
            sums,
        })
    }

    /// Features that a row must have at least.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Bytes of nodes, comparisons and weights.
    pub(crate) fn bytes(&self) -> usize {
        let forest = match &self.packed {
            Packed::Narrow(forest) => forest.bytes(),
            Packed::Wide(forest) => forest.bytes(),
            Packed::Double(forest) => forest.bytes(),
        };
        forest
            + match &self.sums {
                Sums::Single(summing) => summing.adding.bytes(),
                Sums::Double(summing) => summing.adding.bytes(),
            }
    }

    /// Scores of a row.
    pub(crate) fn targets(&self) -> usize {
        self.targets
    }

    /// Scores rows of `width` features each, and finds the places of their labels. `scores` takes
    /// [`targets`](Self::targets) values a row; `labels` may be empty.
    pub(crate) fn run<X: Feature, O: Real>(
        &self,
        features: &[X],
        width: usize,
        scores: &mut [O],
        labels: &mut [i64],
    ) -> Result<(), TreeError> {
        if width < self.width {
            return Err(TreeError(format!(
                "the trees ask for feature {}, but a row has {width}",
                self.width - 1
            )));
        }
        let rows = scores.len() / self.targets;
        if rows
            .checked_mul(width)
            .is_none_or(|values| features.len() < values)
        {
            return Err(TreeError(
                "there are fewer features than rows of them".to_owned(),
            ));
        }
        match &self.packed {
            Packed::Narrow(forest) => self.blocks(forest, features, width, scores, labels),
            Packed::Wide(forest) => self.blocks(forest, features, width, scores, labels),
            Packed::Double(forest) => self.blocks(forest, features, width, scores, labels),
        }
        Ok(())
    }

    fn blocks<X: Feature, N: Node<Value: Real>, O: Real>(
        &self,
        forest: &Forest<N>,
        features: &[X],
        width: usize,
        scores: &mut [O],
        labels: &mut [i64],
    ) {
        let columns = forest.columns();
        let rows = scores.len() / self.targets;
        let fitting = (BLOCK_VALUES / columns).clamp(LANES, BLOCK_ROWS) / LANES * LANES;
        let block = fitting.min(rows).max(1);
        with_buffer::<N::Value, _>(Buffer::Cells, block * columns, |cells| {
            let mut features = features.chunks(width.max(1) * block);
            let mut labels = labels.chunks_mut(block);
            for scores in scores.chunks_mut(block * self.targets) {
                let features = features.next().unwrap_or_default();
                let rows = scores.len() / self.targets;
                for (index, cells) in cells.chunks_exact_mut(columns).take(rows).enumerate() {
                    let row = features.get(index * width..).unwrap_or_default();
                    self.fill(row, cells);
                }
                let labels = labels.next().unwrap_or_default();
                let cells = cells.get(..rows * columns).unwrap_or_default();
                match &self.sums {
                    Sums::Single(summing) => summing.run(forest, cells, scores, labels),
                    Sums::Double(summing) => summing.run(forest, cells, scores, labels),
                }
            }
        });
    }

    /// Puts the features of a row where the kernel reads them.
    fn fill<X: Feature, V: Real>(&self, row: &[X], cells: &mut [V]) {
        if let Some(first) = cells.first_mut() {
            *first = V::LOWEST;
        }
        for run in &self.runs {
            let to = cells.get_mut(run.column..run.column + run.count);
            let from = row.get(run.feature..run.feature + run.count);
            let view = run.view;
            for (cell, feature) in to
                .unwrap_or_default()
                .iter_mut()
                .zip(from.unwrap_or_default())
            {
                *cell = V::read(*feature, view);
            }
        }
    }
}

/// Column 0 is the kernel's own.
fn runs(columns: &[Column]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (index, column) in columns.iter().enumerate() {
        let feature = column.feature as usize;
        match runs.last_mut() {
            Some(run) if run.view == column.view && run.feature + run.count == feature => {
                run.count += 1;
            }
            _ => runs.push(Run {
                view: column.view,
                column: index + 1,
                feature,
                count: 1,
            }),
        }
    }
    runs
}

impl<A: Real> Summing<A> {
    fn new(targets: usize, scored: &[Scored], task: &Task, leaves: Leaves, trees: usize) -> Self {
        let adding = match leaves {
            Leaves::Single(by_tree) => match by_tree.split_first() {
                Some((first, rest)) if rest.iter().all(|target| target == first) => {
                    Adding::One(*first as usize)
                }
                _ => Adding::PerTree(by_tree),
            },
            Leaves::Dense(values) => {
                Adding::Dense(values.into_iter().map(|value| A::of(value)).collect())
            }
            Leaves::Sparse { starts, weights } => Adding::Sparse {
                starts,
                weights,
                aggregate: task.aggregate,
            },
        };
        Self {
            targets,
            scored: scored
                .iter()
                .map(|scored| *scored == Scored::Always)
                .collect(),
            head: Head::new(task.clone(), trees),
            adding,
        }
    }

    /// Scores the rows in `cells`.
    fn run<N: Node<Value: Real>, O: Real>(
        &self,
        forest: &Forest<N>,
        cells: &[N::Value],
        scores: &mut [O],
        labels: &mut [i64],
    ) {
        let rows = scores.len() / self.targets;
        let stride = match &self.adding {
            Adding::One(_) => 1,
            Adding::PerTree(_) | Adding::Dense(_) => self.targets,
            Adding::Sparse { .. } => 2 * self.targets,
        };
        // Behind the sums there is room for one row while it is finished.
        with_buffer::<A, _>(Buffer::Sums, rows * stride + self.targets, |buffer| {
            let (sums, row) = buffer.split_at_mut(rows * stride);
            sums.fill(A::default());
            self.sum(forest, cells, sums, stride);
            let mut labels = labels.iter_mut();
            for (sums, scores) in sums
                .chunks_exact(stride)
                .zip(scores.chunks_mut(self.targets))
            {
                let label = self.finish(sums, row);
                for (score, value) in scores.iter_mut().zip(&*row) {
                    *score = O::of(value.double());
                }
                if let Some(slot) = labels.next() {
                    *slot = i64::from(label);
                }
            }
        });
    }

    fn sum<N: Node<Value: Real>>(
        &self,
        forest: &Forest<N>,
        cells: &[N::Value],
        sums: &mut [A],
        stride: usize,
    ) {
        match &self.adding {
            Adding::One(_) => walk(forest, cells, sums, stride, |sums, _, payload| {
                if let Some(sum) = sums.first_mut() {
                    *sum = *sum + A::of_single(f32::from_bits(payload));
                }
            }),
            Adding::PerTree(targets) => walk(forest, cells, sums, stride, |sums, tree, payload| {
                let target = targets.get(tree).copied().unwrap_or_default();
                if let Some(sum) = sums.get_mut(target as usize) {
                    *sum = *sum + A::of_single(f32::from_bits(payload));
                }
            }),
            Adding::Dense(values) => walk(forest, cells, sums, stride, |sums, _, payload| {
                let at = payload as usize * stride;
                let values = values.get(at..at + stride).unwrap_or_default();
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = *sum + *value;
                }
            }),
            Adding::Sparse {
                starts,
                weights,
                aggregate,
            } => walk(forest, cells, sums, stride, |sums, _, payload| {
                let range = match starts.get(payload as usize..) {
                    Some([start, end, ..]) => *start as usize..*end as usize,
                    _ => return,
                };
                let (sums, scored) = sums.split_at_mut(stride / 2);
                for weight in weights.get(range).unwrap_or_default() {
                    let target = weight.target as usize;
                    if let (Some(sum), Some(scored)) =
                        (sums.get_mut(target), scored.get_mut(target))
                    {
                        let value = A::of(weight.value);
                        let first = *scored != A::ONE;
                        *sum = match aggregate {
                            Aggregate::Sum | Aggregate::Average => *sum + value,
                            Aggregate::Min if first || value < *sum => value,
                            Aggregate::Max if first || value > *sum => value,
                            Aggregate::Min | Aggregate::Max => *sum,
                        };
                        *scored = A::ONE;
                    }
                }
            }),
        }
    }

    /// Makes the scores of a row of its sums, and finds its label.
    fn finish(&self, sums: &[A], row: &mut [A]) -> u32 {
        let always = |target: usize| self.scored.get(target).copied().unwrap_or_default();
        match &self.adding {
            Adding::One(target) => {
                row.fill(A::default());
                if let (Some(slot), Some(sum)) = (row.get_mut(*target), sums.first()) {
                    *slot = *sum;
                }
                self.head.finish(row, always)
            }
            Adding::PerTree(_) | Adding::Dense(_) => {
                row.copy_from_slice(sums);
                self.head.finish(row, always)
            }
            Adding::Sparse { .. } => {
                let (sums, scored) = sums.split_at(self.targets);
                row.copy_from_slice(sums);
                self.head
                    .finish(row, |target| scored.get(target) == Some(&A::ONE))
            }
        }
    }
}
