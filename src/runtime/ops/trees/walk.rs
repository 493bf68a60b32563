//! Takes a block of rows through all trees: many rows side by side, the rest one by one.

use super::bits;
use super::compiled::BLOCK_ROWS;
use super::kernel::{Forest, LANES, Node};
use super::real::{Buffer, Real, with_buffer};

/// Trees that are not worth [`LANES`] walks.
const FEW: usize = 4;

/// Hands every row's payloads to `add`, tree by tree. `cells` holds at most [`BLOCK_ROWS`] rows,
/// and `sums` as many of `stride` values.
#[inline]
pub(super) fn walk<N: Node<Value: Real>, A>(
    forest: &Forest<N>,
    cells: &[N::Value],
    sums: &mut [A],
    stride: usize,
    add: impl Fn(&mut [A], usize, u32),
) {
    let columns = forest.columns();
    let rows = cells.len() / columns;
    let many = rows / LANES * LANES;
    // Empty lanes cost less than walks.
    let few = if forest.whole().is_empty() || rows - many < bits::least_rows() {
        0
    } else {
        rows - many
    };
    let (many_cells, cells) = cells.split_at(many * columns);
    let (many_sums, sums) = sums.split_at_mut(many * stride);
    if many > 0 {
        let tops = forest.tops().iter().any(Option::is_some);
        let lanes = if tops || forest.fetches() {
            many_cells
        } else {
            &[]
        };
        side_by_side(lanes, columns, |lanes| {
            by_tree(forest, many_cells, lanes, many_sums, stride, &add);
        });
    }
    let (few_cells, rest) = cells.split_at(few * columns);
    let (few_sums, rest_sums) = sums.split_at_mut(few * stride);
    if few > 0 {
        side_by_side(few_cells, columns, |lanes| {
            let mut found = [[0; LANES]];
            for (tree, bits) in forest.whole().iter().enumerate() {
                bits.find(lanes, columns, &mut found);
                let found = found.as_flattened();
                for (sums, payload) in few_sums.chunks_exact_mut(stride).zip(found) {
                    add(sums, tree, *payload);
                }
            }
        });
    }
    for (row, sums) in rest
        .chunks_exact(columns)
        .zip(rest_sums.chunks_exact_mut(stride))
    {
        if let (Some(trees), Some(row)) = (forest.singles(), N::Value::row(row)) {
            trees.find(row, |tree, payload| add(sums, tree, payload));
            continue;
        }
        let trees = forest.trees().len();
        let mut first = 0;
        while trees - first > FEW {
            let found = forest.walk_trees::<LANES>(first, row);
            let end = trees.min(first + LANES);
            for (tree, payload) in (first..end).zip(found) {
                add(sums, tree, payload);
            }
            first = end;
        }
        if first < trees {
            let found = forest.walk_trees::<FEW>(first, row);
            for (tree, payload) in (first..trees).zip(found) {
                add(sums, tree, payload);
            }
        }
    }
}

/// All rows through one tree after the other; `lanes` holds them side by side.
#[inline]
fn by_tree<N: Node<Value: Real>, A>(
    forest: &Forest<N>,
    cells: &[N::Value],
    lanes: &[[f32; LANES]],
    sums: &mut [A],
    stride: usize,
    add: &impl Fn(&mut [A], usize, u32),
) {
    let columns = forest.columns();
    let blocks = cells.len() / (LANES * columns);
    let mut found = [[0; LANES]; BLOCK_ROWS / LANES];
    let found = found.get_mut(..blocks).unwrap_or_default();
    for (tree, top) in forest.tops().iter().enumerate() {
        let steps = if let Some(top) = top {
            top.find(lanes, columns, found);
            top.steps()
        } else {
            found.fill([0; LANES]);
            forest.depth(tree)
        };
        // A whole tree that was taken by its comparisons has given payloads.
        if steps > 0 || top.is_none() {
            let taken = forest.walk_lanes(tree, lanes, found, steps);
            let rows = cells.chunks_exact(LANES * columns);
            for (rows, found) in rows.zip(&mut *found).skip(taken) {
                *found = forest.walk_on(tree, rows, *found, steps);
            }
        }
        let found = found.as_flattened();
        for (sums, payload) in sums.chunks_exact_mut(stride).zip(found) {
            add(sums, tree, *payload);
        }
    }
}

/// Hands `work` the values of `cells` for each block of [`LANES`] rows and each column; lanes
/// without a row hold anything. Nothing for doubles.
fn side_by_side<V: Real>(cells: &[V], columns: usize, work: impl FnOnce(&[[f32; LANES]])) {
    let blocks = (cells.len() / columns).div_ceil(LANES);
    with_buffer::<V, _>(Buffer::Lanes, blocks * columns * LANES, |lanes| {
        let (lanes, _) = lanes.as_chunks_mut::<LANES>();
        let blocks = lanes.chunks_exact_mut(columns);
        for (rows, block) in cells.chunks(columns * LANES).zip(blocks) {
            for (lane, row) in rows.chunks_exact(columns).enumerate() {
                for (values, value) in block.iter_mut().zip(row) {
                    if let Some(slot) = values.get_mut(lane) {
                        *slot = *value;
                    }
                }
            }
        }
        work(V::floats(lanes).unwrap_or_default());
    });
}
