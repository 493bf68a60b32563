//! Small trees without walking: every comparison of a tree is made, for many rows at once, and
//! strikes out the leaves that it rules out; the first leaf that is left is the row's.
//!
//! A tree of up to 32 leaves has a bit for each, the leftmost highest. A comparison that fails goes
//! right, so no leaf on its left can be the one. No step waits for the one before, and vectors
//! take a comparison for all rows of a block at a time, so that this beats a walk of a few
//! unpredictable steps through deep, unbalanced trees, which gradient boosting without a limit of
//! depth makes.

#![expect(
    clippy::inline_always,
    reason = "the loops have to be compiled into a function of their level"
)]

use super::super::wide::{LANES, Level, Vector, Wide, level, wide};
use super::kernel::Node;

/// Leaves of a tree that has a bit for each.
const LEAVES: usize = 32;

/// Columns of a row that is held in registers.
const TABLE: usize = 64;

/// A tree as a list of comparisons.
#[derive(Debug)]
pub(crate) struct BitTree {
    tests: Vec<Test>,
    payloads: [u32; LEAVES],
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
    groups: Vec<[Group; LEAVES / LANES]>,
    payloads: Vec<[u32; LEAVES]>,
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

/// `value <= threshold` rules out nothing, anything else all leaves but `keeps`.
#[derive(Debug, Clone, Copy)]
struct Test {
    threshold: f32,
    column: u32,
    keeps: u32,
}

/// What one step of a walk costs, in comparisons, where each takes a whole block of rows.
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
    /// The tree whose root is the first of `nodes`; `None` where it has too many leaves, or where
    /// walking down `depth` steps is faster.
    pub(crate) fn new<N: Node>(nodes: &[N], depth: u32) -> Option<Self> {
        let mut tree = Self {
            tests: Vec::new(),
            payloads: [0; LEAVES],
        };
        let mut leaves = 0;
        // Places still to be visited; the leaves come from left to right. Where all leaves on the
        // left of a test have been seen, the test is done.
        let mut stack = vec![Visit::Node(0)];
        while let Some(visit) = stack.pop() {
            match visit {
                Visit::Node(place) => {
                    let node = *nodes.get(place)?;
                    if node.left() == 0 {
                        // Rows of doubles have no lanes, not even for a tree of one leaf.
                        node.float()?;
                        *tree.payloads.get_mut(leaves)? = node.payload();
                        leaves += 1;
                        continue;
                    }
                    if stack.len() > 2 * LEAVES {
                        return None;
                    }
                    let left = place.checked_add_signed(node.left())?;
                    stack.push(Visit::Node(left + 1));
                    stack.push(Visit::Left(place, leaves));
                    stack.push(Visit::Node(left));
                }
                Visit::Left(place, first) => {
                    let node = *nodes.get(place)?;
                    tree.tests.push(Test {
                        threshold: node.float()?,
                        column: u32::try_from(node.column()).ok()?,
                        keeps: !(from(first) & !from(leaves)),
                    });
                }
            }
        }
        (tree.tests.len() <= depth as usize * step()).then_some(tree)
    }

    /// Bytes of the comparisons.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.tests.as_slice())
    }

    /// The payloads of blocks of [`LANES`] rows each: `cells` has `columns` vectors for each block.
    pub(crate) fn find(
        &self,
        cells: &[[f32; LANES]],
        columns: usize,
        payloads: &mut [[u32; LANES]],
    ) {
        wide(Find {
            tree: self,
            cells,
            columns,
            payloads,
        });
    }
}

impl BitTrees {
    /// All of `trees`, for rows of `columns`; `None` where single rows are better walked.
    pub(crate) fn new(trees: &[Option<BitTree>], columns: usize) -> Option<Self> {
        if level() != Level::Avx512 || columns > TABLE {
            return None;
        }
        let trees = trees.iter().map(Option::as_ref);
        let trees = trees.collect::<Option<Vec<_>>>()?;
        let group = |tree: &BitTree, index: usize| {
            let tests = tree.tests.chunks(LANES).nth(index);
            Group::new(tests.unwrap_or_default())
        };
        Some(Self {
            groups: trees
                .iter()
                .map(|tree| std::array::from_fn(|index| group(tree, index)))
                .collect(),
            payloads: trees.iter().map(|tree| tree.payloads).collect(),
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
            let leaf = V::common(left).leading_zeros() as usize % LEAVES;
            let payload = payloads.get(leaf).copied();
            (self.found)(index, payload.unwrap_or_default());
        }
    }
}

enum Visit {
    /// The node at a place, with all below it.
    Node(usize),
    /// The node at a place, after all on its left; the number of the first leaf there.
    Left(usize, usize),
}

/// The bits of the leaves from number `first` on.
fn from(first: usize) -> u32 {
    u32::MAX.checked_shr(first as u32).unwrap_or_default()
}

struct Find<'a> {
    tree: &'a BitTree,
    cells: &'a [[f32; LANES]],
    columns: usize,
    payloads: &'a mut [[u32; LANES]],
}

impl Wide for Find<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let blocks = self.cells.chunks_exact(self.columns.max(1));
        for (block, payloads) in blocks.zip(self.payloads) {
            let mut left = V::all();
            for test in &self.tree.tests {
                if let Some(values) = block.get(test.column as usize) {
                    left = V::load(values).strike(test.threshold, test.keeps, left);
                }
            }
            *payloads = V::pick(left, &self.tree.payloads);
        }
    }
}
