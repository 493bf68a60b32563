//! Walks packed trees. The hot loop of tree ensembles, and for its sake without bounds checks.
//!
//! A node is eight bytes: threshold, column, and how far away its right child is; the left child is
//! in front of that. `x <= threshold` goes left, anything else right. A leaf is a node that reads
//! column 0, which holds -inf, and so goes left for ever, to itself: walks take steps without a
//! branch, as many as the tree is deep, or fewer where all have come to a leaf. A leaf's threshold
//! holds its payload, any bits that are no NaN.
//!
//! One walk waits for memory at every step, so [`LANES`] are interleaved: rows of a batch in one
//! tree, or a single row in as many trees. Distances, not places, keep each walk in one register.
#![expect(
    unsafe_code,
    reason = "bounds checks take half of the time; `Forest::new` checks every index once"
)]
#![expect(
    clippy::inline_always,
    reason = "a call per tree and a spilled row address cost more than the walk"
)]

use super::bits::{BitTree, BitTrees};
#[cfg(target_arch = "x86_64")]
use super::gather;

/// Walks side by side.
pub(crate) const LANES: usize = 16;
/// Steps between two looks whether all walks have ended.
const STEPS: u32 = 4;
/// Nodes of eight bytes in a line of the cache.
pub(super) const LINE: usize = 8;

/// A packed node.
pub(crate) trait Node: Copy {
    /// What thresholds are compared with.
    type Value: Copy + PartialOrd;
    /// A comparison; `None` where it does not fit.
    fn test(threshold: f64, column: usize, left: isize) -> Option<Self>;
    fn leaf(payload: u32) -> Self;
    /// What stands behind the last node of a tree: its children are the one before and itself.
    fn end() -> Self;
    fn column(self) -> usize;
    /// Nodes from this one to its left child; 0 for a leaf.
    fn left(self) -> isize;
    fn payload(self) -> u32;
    /// The threshold, where thresholds are floats.
    fn float(self) -> Option<f32>;
    /// Nodes of eight bytes as such.
    fn narrow(_nodes: &[Self]) -> Option<&[Narrow]> {
        None
    }
    /// Nodes from this one to where a row with this value in its column goes on.
    fn next(self, value: Self::Value) -> isize;
}

/// Eight bytes; at most 65,536 columns, and as many nodes between one and its children.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Narrow {
    threshold: f32,
    column: u16,
    right: u16,
}

/// Twelve bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Wide {
    threshold: f32,
    column: u32,
    right: i32,
}

/// Sixteen bytes, for thresholds that are no floats.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Double {
    threshold: f64,
    column: u32,
    right: i32,
}

macro_rules! node {
    ($node:ident, $value:ident, $from_payload:expr, $to_payload:expr, $float:expr $(, $narrow:expr)?) => {
        impl Node for $node {
            type Value = $value;

            fn test(threshold: f64, column: usize, left: isize) -> Option<Self> {
                Some(Self {
                    threshold: threshold as $value,
                    column: column.try_into().ok()?,
                    right: (left + 1).try_into().ok()?,
                })
            }

            fn leaf(payload: u32) -> Self {
                Self {
                    threshold: $from_payload(payload),
                    column: 0,
                    right: 1,
                }
            }

            fn end() -> Self {
                Self {
                    right: 0,
                    ..Self::leaf(0)
                }
            }

            #[inline(always)]
            fn column(self) -> usize {
                self.column as usize
            }

            #[inline(always)]
            fn left(self) -> isize {
                self.right as isize - 1
            }

            #[inline(always)]
            fn payload(self) -> u32 {
                $to_payload(self.threshold)
            }

            #[inline(always)]
            fn float(self) -> Option<f32> {
                $float(self.threshold)
            }

            $(fn narrow(nodes: &[Self]) -> Option<&[Narrow]> {
                $narrow(nodes)
            })?

            #[inline(always)]
            fn next(self, value: $value) -> isize {
                self.right as isize - isize::from(value <= self.threshold)
            }
        }
    };
}

node!(Narrow, f32, f32::from_bits, f32::to_bits, Some, Some);
node!(Wide, f32, f32::from_bits, f32::to_bits, Some);
node!(
    Double,
    f64,
    |payload| f64::from_bits(u64::from(payload)),
    |threshold: f64| threshold.to_bits() as u32,
    |_| None
);

/// Where a tree lies, how many places it has, and how deep it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tree {
    start: u32,
    len: u32,
    depth: u32,
}

/// Packed trees, every index of which was checked.
#[derive(Debug)]
pub(crate) struct Forest<N> {
    nodes: Vec<N>,
    trees: Vec<Tree>,
    /// What many rows need not walk through.
    tops: Vec<Option<BitTree>>,
    /// The whole trees, where no row needs to walk.
    whole: Vec<BitTree>,
    singles: Option<BitTrees>,
    columns: usize,
}

impl<N: Node> Forest<N> {
    /// `trees` holds the nodes of each tree and how many steps there are from each to its farthest
    /// leaf; rows have `columns` values, the first of them -inf. `None` where a node leads out of its
    /// tree or its row, be it a leaf: both its place and the next have to exist.
    pub(crate) fn new(trees: Vec<(Vec<N>, Vec<u32>)>, columns: usize) -> Option<Self> {
        let count: usize = trees.iter().map(|(nodes, _)| nodes.len() + LINE).sum();
        let mut forest = Self {
            nodes: Vec::with_capacity(count + LINE),
            trees: Vec::with_capacity(trees.len()),
            tops: Vec::with_capacity(trees.len()),
            whole: Vec::new(),
            singles: None,
            columns,
        };
        // All children lie in pairs behind the root: with the root as the last of a line, no pair
        // lies in two.
        let aligned = forest
            .nodes
            .as_ptr()
            .align_offset(LINE * size_of::<Narrow>());
        let first = aligned.min(LINE) % LINE;
        let whole = |(nodes, heights): &(Vec<N>, Vec<u32>)| BitTree::whole(nodes, heights);
        let whole: Option<Vec<_>> = trees.iter().map(whole).collect();
        for (nodes, heights) in trees {
            if nodes.is_empty() || !are_inside(&nodes, columns) {
                return None;
            }
            while forest.nodes.len() % LINE != (first + LINE - 1) % LINE {
                forest.nodes.push(N::end());
            }
            let start = forest.nodes.len().try_into().ok()?;
            forest.trees.push(Tree {
                start,
                len: nodes.len().try_into().ok()?,
                depth: *heights.first()?,
            });
            forest.tops.push(BitTree::top(&nodes, &heights));
            forest.nodes.extend(nodes);
        }
        if let Some(whole) = whole {
            forest.singles = BitTrees::new(&whole, columns);
            forest.whole = whole;
        }
        Some(forest)
    }

    pub(crate) fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// The top of each tree as a list of comparisons, where that is faster for many rows.
    pub(crate) fn tops(&self) -> &[Option<BitTree>] {
        &self.tops
    }

    /// All trees as lists of comparisons, where that is faster for some rows; else none.
    pub(crate) fn whole(&self) -> &[BitTree] {
        &self.whole
    }

    /// All trees for a single row, where that is faster than walks.
    pub(crate) fn singles(&self) -> Option<&BitTrees> {
        self.singles.as_ref()
    }

    /// Bytes of the nodes and the lists of comparisons.
    pub(crate) fn bytes(&self) -> usize {
        let bits = self.tops.iter().flatten().chain(&self.whole);
        let singles = self.singles.as_ref().map_or(0, BitTrees::bytes);
        size_of_val(self.nodes.as_slice())
            + size_of_val(self.trees.as_slice())
            + size_of_val(self.tops.as_slice())
            + size_of_val(self.whole.as_slice())
            + bits.map(BitTree::bytes).sum::<usize>()
            + singles
    }

    /// Values of a row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Steps from the root of a tree to its farthest leaf.
    pub(crate) fn depth(&self, tree: usize) -> u32 {
        self.trees.get(tree).map_or(0, |tree| tree.depth)
    }

    /// The payloads that [`LANES`] rows, which lie one behind the other, find in one tree from these
    /// places of it on, no leaf farther than `steps`.
    #[inline(always)]
    pub(crate) fn walk_on(
        &self,
        tree: usize,
        rows: &[N::Value],
        places: [u32; LANES],
        steps: u32,
    ) -> [u32; LANES] {
        assert!(rows.len() >= LANES * self.columns && tree < self.trees.len());
        let farthest = places.iter().fold(0, |most, place| most.max(*place));
        // SAFETY: the tree was asserted to exist and the places to lie in it. A step leads from a
        // node to one that is as far away as one of its children: `new` found both to be inside the
        // tree, for leaves as well. Columns are less than `columns`, and so many values has each
        // row.
        unsafe {
            let Tree { start, len, .. } = *self.trees.get_unchecked(tree);
            assert!(farthest < len);
            let root = self.nodes.as_ptr().add(start as usize);
            let rows = rows.as_ptr();
            // One root for all: places are counted from it, which takes fewer instructions a step.
            let mut places = places.map(|place| place as usize);
            for _ in 0..steps {
                for (lane, place) in places.iter_mut().enumerate() {
                    let node = *root.add(*place);
                    let value = *rows.add(lane * self.columns + node.column());
                    *place = place.wrapping_add_signed(node.next(value));
                }
            }
            places.map(|place| (*root.add(place)).payload())
        }
    }

    /// Whether rows that lie side by side are better walked by [`walk_lanes`](Self::walk_lanes).
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn fetches(&self) -> bool {
        N::narrow(&self.nodes).is_some() && gather::is_fast()
    }

    /// Whether rows that lie side by side are better walked by [`walk_lanes`](Self::walk_lanes).
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn fetches(&self) -> bool {
        false
    }

    /// [`walk_on`](Self::walk_on) for blocks of rows that lie side by side in `lanes`: from the places
    /// in `found` to the payloads there. Gives how many blocks it took, which are the first ones.
    pub(crate) fn walk_lanes(
        &self,
        tree: usize,
        lanes: &[[f32; LANES]],
        found: &mut [[u32; LANES]],
        steps: u32,
    ) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.fetches()
            && let Some(Tree { start, len, .. }) = self.trees.get(tree)
            && let Some(nodes) = N::narrow(&self.nodes)
            && let Some(nodes) = nodes.get(*start as usize..(*start + *len) as usize)
        {
            // SAFETY: the processor fetches; `new` found what the nodes lead to inside the tree, and
            // their columns less than `columns`.
            return unsafe { gather::walk(nodes, lanes, self.columns, found, steps) };
        }
        0
    }

    /// The payloads that one row finds in `L` trees, `first` and those behind it; the last tree's
    /// where there are fewer.
    #[inline(always)]
    pub(crate) fn walk_trees<const L: usize>(&self, first: usize, row: &[N::Value]) -> [u32; L] {
        assert!(row.len() >= self.columns && first < self.trees.len());
        let last = self.trees.len() - 1;
        let mut deepest = 0;
        // SAFETY: as in `walk_on`; a tree that is less deep than the others stays at its leaf, or
        // wherever else in itself its nodes lead.
        unsafe {
            let roots = std::array::from_fn(|lane| {
                let tree = *self.trees.get_unchecked((first + lane).min(last));
                deepest = deepest.max(tree.depth);
                self.nodes.as_ptr().add(tree.start as usize)
            });
            walk(roots, deepest, |_| row.as_ptr())
        }
    }
}

/// Whether every node leads to two that there are, and reads one of `columns`.
fn are_inside<N: Node>(nodes: &[N], columns: usize) -> bool {
    nodes.iter().enumerate().all(|(place, node)| {
        let left = place.checked_add_signed(node.left());
        node.column() < columns && left.is_some_and(|left| left + 1 < nodes.len())
    })
}

/// The payloads at the ends of `L` walks of at most `depth` steps.
///
/// # Safety
/// Every node that can be reached from `places` has both its children, and `row` points to a value
/// for each of their columns.
#[inline(always)]
unsafe fn walk<N: Node, const L: usize>(
    mut places: [*const N; L],
    depth: u32,
    row: impl Fn(usize) -> *const N::Value,
) -> [u32; L] {
    let mut left = depth;
    // SAFETY: the caller's promise.
    unsafe {
        let step = |lane: usize, place: &mut *const N| {
            let node = **place;
            let value = *row(lane).add(node.column());
            *place = place.offset(node.next(value));
            node.left()
        };
        while left > STEPS {
            for _ in 1..STEPS {
                for (lane, place) in places.iter_mut().enumerate() {
                    step(lane, place);
                }
            }
            let mut moved = 0;
            for (lane, place) in places.iter_mut().enumerate() {
                moved |= step(lane, place);
            }
            if moved == 0 {
                return places.map(|place| (*place).payload());
            }
            left -= STEPS;
        }
        for _ in 0..left {
            for (lane, place) in places.iter_mut().enumerate() {
                step(lane, place);
            }
        }
        places.map(|place| (*place).payload())
    }
}
