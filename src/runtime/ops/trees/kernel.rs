//! Walks packed trees. The hot loop of tree ensembles, and for its sake without bounds checks.
//!
//! A node is eight bytes: threshold, column, and the place of its left child; the right child is
//! next to it. `x <= threshold` goes left, anything else right. A leaf is a node that reads
//! column 0, which holds -inf, and so goes left for ever, to itself: all walks of a tree take
//! the same number of steps, without a branch. A leaf's threshold holds its payload, any bits
//! that are no NaN.
//!
//! One walk waits for memory at every step, so several are interleaved: a batch takes
//! [`ROWS`] rows through one tree at a time, a single row goes through [`TREES`] trees at a time.
#![expect(
    unsafe_code,
    reason = "bounds checks take half of the time; `Forest::new` checks every index once"
)]
#![expect(
    clippy::inline_always,
    reason = "a call per tree and a spilled row address cost more than the walk"
)]

use super::bits::{BitTree, BitTrees};

/// Rows that walk together.
pub(crate) const ROWS: usize = 16;
/// Trees that one row walks together.
pub(crate) const TREES: usize = 8;

/// A packed node.
pub(crate) trait Node: Copy {
    /// What thresholds are compared with.
    type Value: Copy + PartialOrd;
    /// A comparison; `None` where it does not fit.
    fn test(threshold: f64, column: usize, left: usize) -> Option<Self>;
    /// A leaf at `place`; `None` where it does not fit.
    fn leaf(payload: u32, place: usize) -> Option<Self>;
    fn column(self) -> usize;
    fn left(self) -> usize;
    fn payload(self) -> u32;
    /// The threshold, where thresholds are floats.
    fn float(self) -> Option<f32>;
    /// Where a row with this value in the node's column goes on.
    fn next(self, value: Self::Value) -> usize;
}

/// Eight bytes; at most 65,536 columns, and nodes in a tree.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Narrow {
    threshold: f32,
    column: u16,
    left: u16,
}

/// Twelve bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Wide {
    threshold: f32,
    column: u32,
    left: u32,
}

/// Sixteen bytes, for thresholds that are no floats.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Double {
    threshold: f64,
    column: u32,
    left: u32,
}

macro_rules! node {
    ($node:ident, $value:ident, $index:ident, $from_payload:expr, $to_payload:expr, $float:expr) => {
        impl Node for $node {
            type Value = $value;

            fn test(threshold: f64, column: usize, left: usize) -> Option<Self> {
                Some(Self {
                    threshold: threshold as $value,
                    column: column.try_into().ok()?,
                    left: left.try_into().ok()?,
                })
            }

            fn leaf(payload: u32, place: usize) -> Option<Self> {
                Some(Self {
                    threshold: $from_payload(payload),
                    column: 0,
                    left: place.try_into().ok()?,
                })
            }

            #[inline(always)]
            fn column(self) -> usize {
                self.column as usize
            }

            #[inline(always)]
            fn left(self) -> usize {
                self.left as usize
            }

            #[inline(always)]
            fn payload(self) -> u32 {
                $to_payload(self.threshold)
            }

            #[inline(always)]
            fn float(self) -> Option<f32> {
                $float(self.threshold)
            }

            #[inline(always)]
            #[expect(clippy::neg_cmp_op_on_partial_ord, reason = "NaN goes right")]
            fn next(self, value: $value) -> usize {
                self.left as usize + usize::from(!(value <= self.threshold))
            }
        }
    };
}

node!(Narrow, f32, u16, f32::from_bits, f32::to_bits, Some);
node!(Wide, f32, u32, f32::from_bits, f32::to_bits, Some);
node!(
    Double,
    f64,
    u32,
    |payload| f64::from_bits(u64::from(payload)),
    |threshold: f64| threshold.to_bits() as u32,
    |_| None
);

/// Where a tree lies and how deep it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tree {
    start: u32,
    depth: u32,
}

/// Packed trees, every index of which was checked.
#[derive(Debug)]
pub(crate) struct Forest<N> {
    nodes: Vec<N>,
    trees: Vec<Tree>,
    /// The trees that many rows need not walk through.
    bits: Vec<Option<BitTree>>,
    has_bits: [bool; 2],
    singles: Option<BitTrees>,
    columns: usize,
}

impl<N: Node> Forest<N> {
    /// `trees` holds the nodes and the depth of each tree; rows have `columns` values, the first
    /// of them -inf. `None` where a node leads out of its tree or its row, be it a leaf: both its
    /// place and the next have to exist.
    pub(crate) fn new(trees: Vec<(Vec<N>, u32)>, columns: usize) -> Option<Self> {
        let mut forest = Self {
            nodes: Vec::with_capacity(trees.iter().map(|(nodes, _)| nodes.len()).sum()),
            trees: Vec::with_capacity(trees.len()),
            bits: Vec::with_capacity(trees.len()),
            has_bits: [false; 2],
            singles: None,
            columns,
        };
        for (nodes, depth) in trees {
            let inside = |node: &N| node.column() < columns && node.left() + 1 < nodes.len();
            if nodes.is_empty() || !nodes.iter().all(inside) {
                return None;
            }
            let start = forest.nodes.len().try_into().ok()?;
            forest.trees.push(Tree { start, depth });
            forest.bits.push(BitTree::new(&nodes, depth));
            forest.nodes.extend(nodes);
        }
        let mut bits = forest.bits.iter().map(Option::is_some);
        forest.has_bits = [bits.clone().any(|has| has), bits.all(|has| has)];
        forest.singles = BitTrees::new(&forest.bits, columns);
        Some(forest)
    }

    pub(crate) fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// A tree as a list of comparisons, where that is faster for many rows.
    pub(crate) fn bits(&self, tree: usize) -> Option<&BitTree> {
        self.bits.get(tree)?.as_ref()
    }

    /// All trees for a single row, where that is faster than walks.
    pub(crate) fn singles(&self) -> Option<&BitTrees> {
        self.singles.as_ref()
    }

    /// Whether there are such trees, and no others.
    pub(crate) fn has_bits(&self) -> [bool; 2] {
        self.has_bits
    }

    /// Values of a row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The payloads that [`ROWS`] rows, which lie one behind the other, find in one tree.
    #[inline(always)]
    pub(crate) fn walk_rows(&self, tree: usize, rows: &[N::Value]) -> [u32; ROWS] {
        assert!(rows.len() >= ROWS * self.columns && tree < self.trees.len());
        let mut places = [0; ROWS];
        // SAFETY: the tree was asserted to exist, and its nodes lie in `nodes`. A place in it is 0,
        // or the `left` or `left + 1` of one of its nodes: `new` found both to be inside the tree,
        // for leaves as well. Columns are less than `columns`, and so many values has each row.
        unsafe {
            let Tree { start, depth } = *self.trees.get_unchecked(tree);
            let nodes = self.nodes.as_ptr().add(start as usize);
            let rows = rows.as_ptr();
            for _ in 0..depth {
                for (row, place) in places.iter_mut().enumerate() {
                    let node = *nodes.add(*place);
                    let value = *rows.add(row * self.columns + node.column());
                    *place = node.next(value);
                }
            }
            places.map(|place| (*nodes.add(place)).payload())
        }
    }

    /// The payloads that one row finds in [`TREES`] trees, `first` and those behind it.
    #[inline(always)]
    pub(crate) fn walk_trees(&self, first: usize, row: &[N::Value]) -> [u32; TREES] {
        assert!(row.len() >= self.columns && first + TREES <= self.trees.len());
        // SAFETY: as in `walk_rows`; a tree that is less deep than the others stays at its leaf, or
        // wherever else in itself its nodes lead.
        unsafe {
            let trees = self.trees.as_ptr().add(first);
            let mut depth = 0;
            let mut nodes = [self.nodes.as_ptr(); TREES];
            for (tree, nodes) in nodes.iter_mut().enumerate() {
                let tree = *trees.add(tree);
                *nodes = nodes.add(tree.start as usize);
                depth = depth.max(tree.depth);
            }
            let row = row.as_ptr();
            let mut places = [0; TREES];
            for _ in 0..depth {
                for (place, nodes) in places.iter_mut().zip(nodes) {
                    let node = *nodes.add(*place);
                    let value = *row.add(node.column());
                    *place = node.next(value);
                }
            }
            let mut payloads = [0; TREES];
            for ((payload, place), nodes) in payloads.iter_mut().zip(places).zip(nodes) {
                *payload = (*nodes.add(place)).payload();
            }
            payloads
        }
    }

    /// The payload that one row finds in one tree.
    #[inline(always)]
    pub(crate) fn walk(&self, tree: usize, row: &[N::Value]) -> u32 {
        assert!(row.len() >= self.columns && tree < self.trees.len());
        // SAFETY: as in `walk_rows`.
        unsafe {
            let Tree { start, depth } = *self.trees.get_unchecked(tree);
            let nodes = self.nodes.as_ptr().add(start as usize);
            let mut place = 0;
            for _ in 0..depth {
                let node = *nodes.add(place);
                let value = *row.as_ptr().add(node.column());
                place = node.next(value);
            }
            (*nodes.add(place)).payload()
        }
    }
}
