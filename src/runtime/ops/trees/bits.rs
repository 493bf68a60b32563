//! Trees, or their tops, without walking: every comparison is made, for many rows at once, and
//! strikes out the ends that it rules out; the first end that is left is the row's.
//!
//! The comparisons nearest to the root are taken, so many that walks below have only so many steps;
//! what they lead to are the ends, leaves or where a walk goes on. Up to 32 ends have a bit each, the
//! leftmost highest. A comparison that fails goes right, so no end on its left can be the one. No
//! comparison waits for the one before, and vectors take one for all rows of a block at a time, so
//! that the few nodes at the top cost less than the steps through them, and so do all nodes of the
//! deep, unbalanced trees that gradient boosting without a limit of depth makes.

#![expect(
    clippy::inline_always,
    reason = "the loops have to be compiled into a function of their level"
)]

use super::super::wide::{LANES, Level, Vector, Wide, level, wide};
use super::kernel::Node;

/// Ends that have a bit each.
const ENDS: usize = 32;

/// What finding the end costs, in comparisons.
const FIND: usize = 4;

/// What beginning a walk costs, in steps of one.
const WALK: usize = 5;

/// Columns of a row that is held in registers.
const TABLE: usize = 64;

/// A tree, or its top, as a list of comparisons.
#[derive(Debug)]
pub(crate) struct BitTree {
    tests: Vec<Test>,
    /// What the ends are: the payloads of leaves, or places of the tree where there are steps left.
    ends: [u32; ENDS],
    /// Steps that a walk from an end takes at most.
    steps: u32,
}

/// [`LANES`] comparisons side by side, filled up with such that rule out nothing.
#[derive(Debug)]
#[repr(align(64))]
struct Group {
    columns: [u32; LANES],
    thresholds: [f32; LANES],
    keeps: [u32; LANES],
}

/// Small trees as a single row takes them: all comparisons of a tree at once.
#[derive(Debug)]
pub(crate) struct BitTrees {
    groups: Vec<[Group; ENDS / LANES]>,
    payloads: Vec<[u32; ENDS]>,
}

impl Group {
    fn new(tests: &[Test]) -> Self {
        let mut group = Self {
            columns: [0; LANES],
            thresholds: [0.0; LANES],
            keeps: [u32::MAX; LANES],
        };
        let lanes = group.columns.iter_mut().zip(&mut group.thresholds);
        for (((column, threshold), keeps), test) in lanes.zip(&mut group.keeps).zip(tests) {
            (*column, *threshold, *keeps) = (test.column, test.threshold, test.keeps);
        }
        group
    }
}

/// `value <= threshold` rules out nothing, anything else all ends but `keeps`.
#[derive(Debug, Clone, Copy)]
struct Test {
    threshold: f32,
    column: u32,
    keeps: u32,
}

/// What one step of a walk costs, in comparisons, where each takes a block of rows; twice as much
/// where it takes [`TOGETHER`] blocks.
fn step() -> usize {
    match level() {
        Level::Avx512 => 8,
        Level::Avx2 => 5,
        Level::Basic => 3,
    }
}

/// From so many rows on, a block of them with empty lanes is faster than walks.
pub(crate) fn least_rows() -> usize {
    match level() {
        Level::Avx512 => 2,
        Level::Avx2 => 3,
        Level::Basic => 5,
    }
}

impl BitTree {
    /// So much of the top of a tree as makes it fastest; `None` where that is nothing. The root is
    /// the first of `nodes`, and `heights` says how many steps there are from each to its farthest
    /// leaf.
    pub(crate) fn top<N: Node>(nodes: &[N], heights: &[u32]) -> Option<Self> {
        let height = *heights.first()?;
        // The lower the cut, the more comparisons: the first that has too many is the last.
        let cuts = (0..height)
            .rev()
            .map_while(|steps| Self::cut(nodes, heights, steps));
        let gain = |tree: &Self| {
            let walk = if tree.steps == 0 { WALK } else { 0 };
            let saved = ((height - tree.steps) as usize * 2 + walk) * step();
            saved.checked_sub(tree.tests.len() + FIND)
        };
        cuts.filter_map(|tree| Some((gain(&tree)?, tree)))
            .max_by_key(|(gain, _)| *gain)
            .map(|(_, tree)| tree)
    }

    /// The whole tree; `None` where it has too many leaves, or where walks are faster.
    pub(crate) fn whole<N: Node>(nodes: &[N], heights: &[u32]) -> Option<Self> {
        let steps = *heights.first()? as usize;
        Self::cut(nodes, heights, 0).filter(|tree| tree.tests.len() <= steps * step())
    }

    /// The top of a tree, down to where walks have `steps` left; `None` where it has too many ends.
    fn cut<N: Node>(nodes: &[N], heights: &[u32], steps: u32) -> Option<Self> {
        let mut tree = Self {
            tests: Vec::new(),
            ends: [0; ENDS],
            steps,
        };
        let mut ends = 0;
        // Places still to be visited; the ends come from left to right. Where all ends on the left
        // of a test have been seen, the test is done.
        let mut stack = vec![Visit::Node(0)];
        while let Some(visit) = stack.pop() {
            match visit {
                Visit::Node(place) => {
                    let node = *nodes.get(place)?;
                    if *heights.get(place)? <= steps {
                        // Rows of doubles have no lanes, not even for a tree of one leaf.
                        node.float()?;
                        *tree.ends.get_mut(ends)? = match steps {
                            0 => node.payload(),
                            _ => place.try_into().ok()?,
                        };
                        ends += 1;
                        continue;
                    }
                    if stack.len() > 2 * ENDS {
                        return None;
                    }
                    let left = place.checked_add_signed(node.left())?;
                    stack.push(Visit::Node(left + 1));
                    stack.push(Visit::Left(place, ends));
                    stack.push(Visit::Node(left));
                }
                Visit::Left(place, first) => {
                    let node = *nodes.get(place)?;
                    tree.tests.push(Test {
                        threshold: node.float()?,
                        column: u32::try_from(node.column()).ok()?,
                        keeps: !(from(first) & !from(ends)),
                    });
                }
            }
        }
        Some(tree)
    }

    /// Steps that a walk from an end takes at most.
    pub(crate) fn steps(&self) -> u32 {
        self.steps
    }

    /// Bytes of the comparisons.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.tests.as_slice())
    }

    /// The ends of blocks of [`LANES`] rows each: `cells` has `columns` vectors for each block.
    pub(crate) fn find(&self, cells: &[[f32; LANES]], columns: usize, ends: &mut [[u32; LANES]]) {
        wide(Find {
            tree: self,
            cells,
            columns,
            ends,
        });
    }
}

impl BitTrees {
    /// All of `trees`, which are whole, for rows of `columns`; `None` where single rows are better
    /// walked.
    pub(crate) fn new(trees: &[BitTree], columns: usize) -> Option<Self> {
        if level() != Level::Avx512 || columns > TABLE {
            return None;
        }
        let group = |tree: &BitTree, index: usize| {
            let tests = tree.tests.chunks(LANES).nth(index);
            Group::new(tests.unwrap_or_default())
        };
        Some(Self {
            groups: trees
                .iter()
                .map(|tree| std::array::from_fn(|index| group(tree, index)))
                .collect(),
            payloads: trees.iter().map(|tree| tree.ends).collect(),
        })
    }

    /// Bytes of the comparisons and payloads.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.groups.as_slice()) + size_of_val(self.payloads.as_slice())
    }

    /// Hands the payload of `row` in each tree to `found`.
    pub(crate) fn find(&self, row: &[f32], found: impl FnMut(usize, u32)) {
        if row.len() <= TABLE / 2 {
            wide(FindOne::<_, { TABLE / LANES / 2 }> {
                trees: self,
                row,
                found,
            });
        } else {
            wide(FindOne::<_, { TABLE / LANES }> {
                trees: self,
                row,
                found,
            });
        }
    }
}

struct FindOne<'a, F, const N: usize> {
    trees: &'a BitTrees,
    row: &'a [f32],
    found: F,
}

impl<F: FnMut(usize, u32), const N: usize> Wide for FindOne<'_, F, N> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let mut table = [[0.0; LANES]; N];
        let slots = table.as_flattened_mut().iter_mut();
        slots.zip(self.row).for_each(|(slot, value)| *slot = *value);
        let BitTrees { groups, payloads } = self.trees;
        for (index, ([first, second], payloads)) in groups.iter().zip(payloads).enumerate() {
            let values = V::look_up(&table, &first.columns);
            let left = values.strike_each(&first.thresholds, &first.keeps, V::all());
            let values = V::look_up(&table, &second.columns);
            let left = values.strike_each(&second.thresholds, &second.keeps, left);
            let leaf = V::common(left).leading_zeros() as usize % ENDS;
            let payload = payloads.get(leaf).copied();
            (self.found)(index, payload.unwrap_or_default());
        }
    }
}

enum Visit {
    /// The node at a place, with all below it.
    Node(usize),
    /// The node at a place, after all on its left; the number of the first end there.
    Left(usize, usize),
}

/// The bits of the ends from number `first` on.
fn from(first: usize) -> u32 {
    u32::MAX.checked_shr(first as u32).unwrap_or_default()
}

struct Find<'a> {
    tree: &'a BitTree,
    cells: &'a [[f32; LANES]],
    columns: usize,
    ends: &'a mut [[u32; LANES]],
}

/// Blocks that take a comparison together: what it says is then read once for all of them.
const TOGETHER: usize = 4;

impl Wide for Find<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let columns = self.columns.max(1);
        let count = self.cells.len() / columns;
        let ends = self.ends.get_mut(..count).unwrap_or_default();
        let (many, rest) = ends.as_chunks_mut::<TOGETHER>();
        let (cells, rest_cells) = self.cells.split_at(many.len() * TOGETHER * columns);
        for (cells, ends) in cells.chunks_exact(TOGETHER * columns).zip(many) {
            self.tree.strike::<V, TOGETHER>(cells, columns, ends);
        }
        for (cells, ends) in rest_cells.chunks_exact(columns).zip(rest) {
            let ends = std::array::from_mut(ends);
            self.tree.strike::<V, 1>(cells, columns, ends);
        }
    }
}

impl BitTree {
    /// The ends of `N` blocks.
    #[inline(always)]
    fn strike<V: Vector, const N: usize>(
        &self,
        cells: &[[f32; LANES]],
        columns: usize,
        ends: &mut [[u32; LANES]; N],
    ) {
        let mut left = [V::all(); N];
        for test in &self.tests {
            let values = cells.get(test.column as usize..).unwrap_or_default();
            for (values, left) in values.iter().step_by(columns).zip(&mut left) {
                *left = V::load(values).strike(test.threshold, test.keeps, *left);
            }
        }
        for (left, ends) in left.into_iter().zip(ends) {
            *ends = V::pick(left, &self.ends);
        }
    }
}
