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
    let [some, all] = forest.has_bits();
    let mut blocks = rows / LANES;
    // Empty lanes cost less than walks.
    if all && rows % LANES >= bits::least_rows() {
        blocks += 1;
    }
    let together = rows.min(blocks * LANES);
    let (many, rest) = cells.split_at(together * columns);
    let (many_sums, rest_sums) = sums.split_at_mut(together * stride);
    let lanes = if some { blocks * columns * LANES } else { 0 };
    if !many.is_empty() {
        with_buffer::<N::Value, _>(Buffer::Lanes, lanes, |lanes| {
            let (lanes, _) = lanes.as_chunks_mut::<LANES>();
            put_side_by_side(many, columns, lanes);
            by_tree(
                forest,
                many,
                N::Value::floats(lanes),
                many_sums,
                stride,
                &add,
            );
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

/// All rows through one tree after the other.
#[inline]
fn by_tree<N: Node<Value: Real>, A>(
    forest: &Forest<N>,
    cells: &[N::Value],
    lanes: Option<&[[f32; LANES]]>,
    sums: &mut [A],
    stride: usize,
    add: &impl Fn(&mut [A], usize, u32),
) {
    let columns = forest.columns();
    let mut found = [[0; LANES]; BLOCK_ROWS / LANES];
    for tree in 0..forest.trees().len() {
        if let (Some(bits), Some(lanes)) = (forest.bits(tree), lanes) {
            bits.find(lanes, columns, &mut found);
            let found = found.as_flattened();
            for (sums, payload) in sums.chunks_exact_mut(stride).zip(found) {
                add(sums, tree, *payload);
            }
            continue;
        }
        let blocks = cells.chunks_exact(LANES * columns);
        for (rows, sums) in blocks.zip(sums.chunks_exact_mut(LANES * stride)) {
            let payloads = forest.walk_rows(tree, rows);
            for (sums, payload) in sums.chunks_exact_mut(stride).zip(payloads) {
                add(sums, tree, payload);
            }
        }
    }
}

/// For each block of [`LANES`] rows and each column the values of the rows. Lanes without a row
/// hold anything.
fn put_side_by_side<V: Copy>(cells: &[V], columns: usize, lanes: &mut [[V; LANES]]) {
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
}
