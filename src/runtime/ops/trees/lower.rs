//! Turns every kind of test into the one that the kernel knows: `x <= threshold` goes left,
//! everything else, NaN included, goes right. The transformation is exact.
//!
//! A test answers yes or no for each value of its feature. On the line from -inf to +inf, with NaN
//! beyond +inf, its answer changes at a few cuts only: at one for `<`, `<=`, `>` and `>=`, at two
//! for `==` and `!=`, at two per member of a set. So each test is a small balanced tree of
//! comparisons over its cuts. Where NaN has to go left instead, the comparison reads a column in
//! which NaN was replaced by -inf.

use std::collections::HashMap;

use super::ensemble::{Branch, Ensemble, Mode, Node, Precision, TreeError};

/// Trees of comparisons.
#[derive(Debug)]
pub(crate) struct Lowered {
    pub(crate) nodes: Vec<Low>,
    /// Steps from a node to its deepest leaf.
    pub(crate) depths: Vec<u32>,
    /// Roots in the order of the trees.
    pub(crate) roots: Vec<u32>,
    /// What the comparisons read; column 0 of the kernel is none of them.
    pub(crate) columns: Vec<Column>,
    /// What the thresholds are.
    pub(crate) thresholds: Precision,
}

/// A node: a comparison, or a leaf of the ensemble.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Low {
    Test {
        /// Index into [`Lowered::columns`].
        column: u32,
        threshold: f64,
        left: u32,
        right: u32,
    },
    Leaf {
        start: u32,
        end: u32,
    },
}

/// A feature as a comparison wants to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Column {
    pub(crate) view: View,
    pub(crate) feature: u32,
}

/// How a feature's value is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct View {
    /// NaN becomes -inf.
    pub(crate) nan_is_low: bool,
    /// How a double becomes a float without changing the outcome of the comparison.
    pub(crate) rounding: Rounding,
}

/// `x <= t` equals `up(x) <= t`, and `x < t` equals `down(x) < t`, where `t` is a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rounding {
    Exact,
    Up,
    Down,
}

/// The values `<= value` lie before the cut, or those `< value`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cut {
    value: f64,
    inclusive: bool,
}

/// Lowers `ensemble` for features of `input` precision.
pub(crate) fn lower(ensemble: &Ensemble, input: Precision) -> Result<Lowered, TreeError> {
    let thresholds = match input {
        Precision::Double if !all_single(ensemble) => Precision::Double,
        _ => Precision::Single,
    };
    let mut lowering = Lowering {
        ensemble,
        input,
        thresholds,
        out: Lowered {
            nodes: Vec::new(),
            depths: Vec::new(),
            roots: Vec::new(),
            columns: Vec::new(),
            thresholds,
        },
        columns: HashMap::new(),
        states: vec![State::Unseen; ensemble.nodes.len()],
    };
    for root in &ensemble.roots {
        let root = lowering.tree(*root)?;
        lowering.out.roots.push(root);
    }
    lowering.sort_columns();
    Ok(lowering.out)
}

/// Whether all thresholds are floats.
fn all_single(ensemble: &Ensemble) -> bool {
    let single = |value: f64| value.is_nan() || f64::from(value as f32) == value;
    let nodes = ensemble.nodes.iter().all(|node| match node {
        Node::Branch(branch) => single(branch.value),
        Node::Leaf(_) => true,
    });
    nodes
        && ensemble
            .members
            .iter()
            .flatten()
            .all(|value| single(*value))
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Unseen,
    /// Its children are being lowered: whoever leads here leads in a circle.
    Open,
    Done(u32),
}

struct Lowering<'a> {
    ensemble: &'a Ensemble,
    input: Precision,
    thresholds: Precision,
    out: Lowered,
    columns: HashMap<Column, u32>,
    states: Vec<State>,
}

impl<'a> Lowering<'a> {
    /// Lowers what `root` leads to, children first, without recursion.
    fn tree(&mut self, root: u32) -> Result<u32, TreeError> {
        let mut stack = vec![root];
        while let Some(&index) = stack.last() {
            let (node, state) = self.look(index)?;
            let lowered = match (state, node) {
                (State::Done(_), _) => {
                    stack.pop();
                    continue;
                }
                (_, Node::Leaf(weights)) => self.leaf(weights.start, weights.end)?,
                (_, Node::Branch(branch)) => {
                    let (yes, no) = (self.look(branch.yes)?.1, self.look(branch.no)?.1);
                    if let (State::Done(yes), State::Done(no)) = (yes, no) {
                        self.test(branch, yes, no)?
                    } else {
                        if [yes, no].contains(&State::Open)
                            || [branch.yes, branch.no].contains(&index)
                        {
                            return Err(TreeError(format!("node {index} leads in a circle")));
                        }
                        self.set(index, State::Open);
                        stack.extend([branch.no, branch.yes]);
                        continue;
                    }
                }
            };
            self.set(index, State::Done(lowered));
            stack.pop();
        }
        match self.look(root)?.1 {
            State::Done(lowered) => Ok(lowered),
            _ => Err(TreeError(format!("node {root} leads nowhere"))),
        }
    }

    fn look(&self, index: u32) -> Result<(&'a Node, State), TreeError> {
        let at = index as usize;
        match (self.ensemble.nodes.get(at), self.states.get(at)) {
            (Some(node), Some(state)) => Ok((node, *state)),
            _ => Err(TreeError(format!("there is no node {index}"))),
        }
    }

    fn set(&mut self, index: u32, to: State) {
        if let Some(state) = self.states.get_mut(index as usize) {
            *state = to;
        }
    }

    fn leaf(&mut self, start: u32, end: u32) -> Result<u32, TreeError> {
        let weights = self.ensemble.weights.get(start as usize..end as usize);
        let weights = weights.ok_or_else(|| TreeError("a leaf has no such weights".to_owned()))?;
        let targets = self.ensemble.targets;
        match weights
            .iter()
            .find(|weight| weight.target as usize >= targets)
        {
            Some(weight) => Err(TreeError(format!(
                "a leaf adds to target {}, but there are {targets}",
                weight.target
            ))),
            None => self.push(Low::Leaf { start, end }, 0),
        }
    }

    /// The comparisons of one branch.
    fn test(&mut self, branch: &Branch, yes: u32, no: u32) -> Result<u32, TreeError> {
        if yes == no {
            return Ok(yes);
        }
        let mut answers = self.answers(branch)?;
        answers.thresholds.dedup_pairs();
        let Answers {
            first,
            thresholds: Thresholds(mut thresholds),
            nan,
        } = answers;
        let last = first ^ (thresholds.len() % 2 == 1);
        let nan_is_low = nan != last && nan == first && !thresholds.is_empty();
        if nan != last && !nan_is_low {
            let rounding = if self.rounds() {
                Rounding::Up
            } else {
                Rounding::Exact
            };
            thresholds.push((f64::INFINITY, rounding));
        }
        let node = |answer: bool| if answer { yes } else { no };
        // Interval i lies before threshold i; answers alternate. Merged from the leaves up.
        let mut level: Vec<u32> = (0..=thresholds.len())
            .map(|interval| node(first ^ (interval % 2 == 1)))
            .collect();
        let mut between: Vec<(f64, Rounding)> = thresholds;
        while level.len() > 1 {
            let mut next = Vec::with_capacity(level.len().div_ceil(2));
            let mut next_between = Vec::with_capacity(between.len() / 2);
            for (pair, children) in level.chunks(2).enumerate() {
                match (children, between.get(2 * pair)) {
                    ([left, right], Some((threshold, rounding))) => {
                        let view = View {
                            nan_is_low,
                            rounding: *rounding,
                        };
                        let column = self.column(branch.feature, view);
                        next.push(self.compare(column, *threshold, *left, *right)?);
                    }
                    _ => next.extend(children),
                }
                next_between.extend(between.get(2 * pair + 1));
            }
            (level, between) = (next, next_between);
        }
        level
            .first()
            .copied()
            .ok_or_else(|| TreeError("a test without answers".to_owned()))
    }

    fn compare(
        &mut self,
        column: u32,
        threshold: f64,
        left: u32,
        right: u32,
    ) -> Result<u32, TreeError> {
        let depth = |node: u32| {
            self.out
                .depths
                .get(node as usize)
                .copied()
                .unwrap_or_default()
        };
        let depth = depth(left).max(depth(right)) + 1;
        let test = Low::Test {
            column,
            threshold,
            left,
            right,
        };
        self.push(test, depth)
    }

    fn push(&mut self, low: Low, depth: u32) -> Result<u32, TreeError> {
        let index = u32::try_from(self.out.nodes.len())
            .map_err(|_| TreeError("the ensemble has too many nodes".to_owned()))?;
        self.out.nodes.push(low);
        self.out.depths.push(depth);
        Ok(index)
    }

    /// What a branch answers along the line of values.
    fn answers(&self, branch: &Branch) -> Result<Answers, TreeError> {
        let value = branch.value;
        let cut = |inclusive: bool| Cut { value, inclusive };
        let (mut first, cuts) = match branch.mode {
            // Nothing compares with NaN.
            Mode::Neq if value.is_nan() => (true, vec![]),
            Mode::Member(set) => {
                let members = self.ensemble.members.get(set as usize);
                let members = members.ok_or_else(|| TreeError(format!("there is no set {set}")))?;
                (false, around(members))
            }
            _ if value.is_nan() => (false, vec![]),
            Mode::Leq => (true, vec![cut(true)]),
            Mode::Lt => (true, vec![cut(false)]),
            Mode::Gte => (false, vec![cut(false)]),
            Mode::Gt => (false, vec![cut(true)]),
            Mode::Eq => (false, vec![cut(false), cut(true)]),
            Mode::Neq => (true, vec![cut(false), cut(true)]),
        };
        let mut thresholds = Vec::with_capacity(cuts.len());
        for cut in cuts {
            match cut {
                // Nothing lies before this cut, or behind that.
                Cut {
                    value: f64::NEG_INFINITY,
                    inclusive: false,
                } => first = !first,
                Cut {
                    value: f64::INFINITY,
                    inclusive: true,
                } => {}
                cut => thresholds.push(self.threshold(cut)),
            }
        }
        Ok(Answers {
            first,
            thresholds: Thresholds(thresholds),
            nan: branch.missing_is_yes || branch.mode == Mode::Neq,
        })
    }

    /// The `t` of `x <= t` that is the same as the cut, and how `x` has to be rounded for it.
    fn threshold(&self, cut: Cut) -> (f64, Rounding) {
        let at_most = if cut.inclusive {
            cut.value
        } else {
            cut.value.next_down()
        };
        match (self.input, self.thresholds) {
            (Precision::Double, Precision::Double) => (at_most, Rounding::Exact),
            (Precision::Double, Precision::Single) if cut.inclusive => (cut.value, Rounding::Up),
            (Precision::Double, Precision::Single) => {
                (f64::from((cut.value as f32).next_down()), Rounding::Down)
            }
            (Precision::Single, _) => (f64::from(floor(at_most)), Rounding::Exact),
        }
    }

    fn rounds(&self) -> bool {
        self.input == Precision::Double && self.thresholds == Precision::Single
    }

    fn column(&mut self, feature: u32, view: View) -> u32 {
        let columns = &mut self.out.columns;
        let column = Column { view, feature };
        *self.columns.entry(column).or_insert_with(|| {
            columns.push(column);
            columns.len() as u32 - 1
        })
    }

    /// Columns of neighbouring features become neighbours: they are filled together.
    fn sort_columns(&mut self) {
        let mut order: Vec<(Column, u32)> = self.columns.drain().collect();
        order.sort_unstable();
        let mut places = vec![0; order.len()];
        for (place, (_, before)) in order.iter().enumerate() {
            if let Some(slot) = places.get_mut(*before as usize) {
                *slot = place as u32;
            }
        }
        self.out.columns = order.into_iter().map(|(column, _)| column).collect();
        for low in &mut self.out.nodes {
            if let Low::Test { column, .. } = low {
                *column = places.get(*column as usize).copied().unwrap_or_default();
            }
        }
    }
}

/// The answer before the first threshold; it turns at each. Then the answer to NaN.
struct Answers {
    first: bool,
    thresholds: Thresholds,
    nan: bool,
}

struct Thresholds(Vec<(f64, Rounding)>);

impl Thresholds {
    /// Two equal thresholds have no value between them: the answer turns and turns back.
    fn dedup_pairs(&mut self) {
        let mut kept: Vec<(f64, Rounding)> = Vec::with_capacity(self.0.len());
        for threshold in self.0.drain(..) {
            match kept.last() {
                Some(last) if *last == threshold => {
                    kept.pop();
                }
                _ => kept.push(threshold),
            }
        }
        self.0 = kept;
    }
}

/// The cuts around each member of a set.
fn around(members: &[f64]) -> Vec<Cut> {
    let mut members: Vec<f64> = members.iter().copied().filter(|m| !m.is_nan()).collect();
    members.sort_unstable_by(f64::total_cmp);
    members.dedup();
    let cut = |value, inclusive| Cut { value, inclusive };
    members
        .into_iter()
        .flat_map(|value| [cut(value, false), cut(value, true)])
        .collect()
}

/// The greatest float that is at most `value`.
fn floor(value: f64) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) > value {
        nearest.next_down()
    } else {
        nearest
    }
}
