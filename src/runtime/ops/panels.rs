//! The product of rows with a matrix, whatever it is for: linear models, dense layers, attention.
//!
//! Each sum is taken over the depth in one order that only the matrix decides: from front to back, or,
//! where it has few columns, in running sums side by side. So a value's bits are the same alone, in any batch and in any place: how many rows are taken
//! together changes what is computed at a time, not in which order.

#![expect(
    clippy::inline_always,
    reason = "the loops have to be compiled into a function of their level"
)]

use super::math::dot;
use super::wide::{LANES, Level, Vector, Wide, level, wide};

/// Rows whose values stay in the cache while the whole matrix passes.
const BLOCK: usize = 64;

/// Rows that are taken together where they are too few for the registers.
const FEW: usize = 3;

/// Up to so many columns are summed along the depth, since they would leave most lanes empty.
const NARROW: usize = 3;

/// Up to so deep, sums of the lanes cost more than wide vectors save.
const SHALLOW: usize = 64;

/// A matrix as it is read: [`LANES`] columns side by side, from front to back, then the next ones;
/// where there are few columns, one after the other. Filled up with zeros.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Panels {
    lines: Vec<Line>,
    /// Column after column, where the matrix is small and narrow; the lines are empty then.
    dots: Vec<f32>,
    depth: usize,
    columns: usize,
}

/// As long as a line of the cache, and in one.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(align(64))]
struct Line([f32; LANES]);

/// What becomes of the sums.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Finish {
    /// A value for each column, added last; no line where there are none.
    bias: Vec<[f32; LANES]>,
    /// Negative values become 0.
    pub(super) relu: bool,
    /// Larger values become this one.
    pub(super) most: Option<f32>,
}

impl Panels {
    /// Of a matrix with `depth` rows and `columns`, whose values `value` gives.
    pub(super) fn new(depth: usize, columns: usize, value: impl Fn(usize, usize) -> f32) -> Self {
        let mut lines = Vec::new();
        let mut dots = Vec::new();
        if columns <= NARROW && depth <= SHALLOW {
            for column in 0..columns {
                dots.extend((0..depth).map(|place| value(place, column)));
            }
        } else if columns <= NARROW {
            for column in 0..columns {
                for first in (0..depth).step_by(LANES) {
                    let places = first..depth.min(first + LANES);
                    lines.push(Line(line(places.map(|place| value(place, column)))));
                }
            }
        } else {
            for first in (0..columns).step_by(LANES) {
                for place in 0..depth {
                    let columns = first..columns.min(first + LANES);
                    lines.push(Line(line(columns.map(|column| value(place, column)))));
                }
            }
        }
        Self {
            lines,
            dots,
            depth,
            columns,
        }
    }

    /// The product of `rows` with the matrix, as many rows as `to` takes.
    pub(super) fn multiply(&self, rows: &[f32], finish: &Finish, to: &mut [f32]) {
        if self.depth == 0 {
            let columns = self.columns.max(1);
            for to in to.chunks_exact_mut(columns) {
                to.fill(0.0);
                finish.apply(to);
            }
            return;
        }
        if self.lines.is_empty() {
            for (row, to) in rows
                .chunks_exact(self.depth)
                .zip(to.chunks_exact_mut(self.columns.max(1)))
            {
                let columns = self.dots.chunks_exact(self.depth);
                to.iter_mut()
                    .zip(columns)
                    .for_each(|(to, column)| *to = dot(row, column));
                finish.apply(to);
            }
            return;
        }
        wide(Multiply {
            rows,
            panels: self,
            finish,
            to,
        });
    }
}

fn line(values: impl Iterator<Item = f32>) -> [f32; LANES] {
    let mut line = [0.0; LANES];
    line.iter_mut()
        .zip(values)
        .for_each(|(to, from)| *to = from);
    line
}

impl Finish {
    /// Adds these values, one for each column.
    pub(super) fn adding(bias: &[f32]) -> Self {
        let lines = bias.chunks(LANES);
        Self {
            bias: lines.map(|values| line(values.iter().copied())).collect(),
            ..Self::default()
        }
    }

    /// Finishes sums of the columns of a panel.
    #[inline(always)]
    pub(super) fn finish<V: Vector>(&self, mut sums: V, panel: usize) -> V {
        if let Some(bias) = self.bias.get(panel) {
            sums = sums.add(V::load(bias));
        }
        if self.relu {
            sums = sums.positive();
        }
        match self.most {
            Some(most) => sums.at_most(most),
            None => sums,
        }
    }

    /// Finishes the sums of a row.
    #[inline(always)]
    fn apply(&self, sums: &mut [f32]) {
        let bias = self.bias.as_flattened();
        sums.iter_mut()
            .zip(bias)
            .for_each(|(sum, bias)| *sum += bias);
        if self.relu {
            // NaN stays.
            let negative = sums.iter_mut().filter(|sum| **sum < 0.0);
            negative.for_each(|sum| *sum = 0.0);
        }
        if let Some(most) = self.most {
            let larger = sums.iter_mut().filter(|sum| **sum > most);
            larger.for_each(|sum| *sum = most);
        }
    }
}

struct Multiply<'a> {
    rows: &'a [f32],
    panels: &'a Panels,
    finish: &'a Finish,
    to: &'a mut [f32],
}

impl Wide for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Panels { depth, columns, .. } = *self.panels;
        if columns <= NARROW {
            return self.narrow::<V>();
        }
        let blocks = self.rows.chunks(depth * BLOCK);
        for (rows, to) in blocks.zip(self.to.chunks_mut(columns * BLOCK)) {
            let block = Multiply { rows, to, ..self };
            // As many sums as there are registers for.
            match level() {
                Level::Avx512 => block.wide::<V, 8, 2>(),
                Level::Avx2 => block.wide::<V, 4, 1>(),
                Level::Basic => block.wide::<V, 2, 1>(),
            }
        }
    }
}

impl Multiply<'_> {
    /// Many rows take `WIDTH` panels at a time, what is left over is taken in threes, and single
    /// rows take more panels.
    #[inline(always)]
    fn wide<V: Vector, const ROWS: usize, const WIDTH: usize>(self) {
        let Panels { depth, columns, .. } = *self.panels;
        let together = self.to.len() / columns / ROWS * ROWS;
        let (many, few) = self.rows.split_at(together * depth);
        let (many_to, few_to) = self.to.split_at_mut(together * columns);
        let part = |rows, to| Multiply {
            rows,
            to,
            panels: self.panels,
            finish: self.finish,
        };
        if !many.is_empty() {
            part(many, many_to).rows::<V, ROWS, WIDTH>();
        }
        let three = few_to.len() / columns / FEW * FEW;
        let (three, few) = few.split_at(three * depth);
        let (three_to, few_to) = few_to.split_at_mut(three.len() / depth * columns);
        if !three.is_empty() {
            part(three, three_to).rows::<V, FEW, 2>();
        }
        if !few.is_empty() {
            part(few, few_to).rows::<V, 1, 4>();
        }
    }

    #[inline(always)]
    fn rows<V: Vector, const ROWS: usize, const WIDTH: usize>(mut self) {
        let panels = self.panels.columns.div_ceil(LANES);
        let mut panel = 0;
        while panel < panels {
            if panel + WIDTH <= panels {
                self.tiles::<V, ROWS, WIDTH>(panel);
                panel += WIDTH;
            } else if WIDTH > 2 && panel + 2 <= panels {
                self.tiles::<V, ROWS, 2>(panel);
                panel += 2;
            } else {
                self.tiles::<V, ROWS, 1>(panel);
                panel += 1;
            }
        }
    }

    /// All rows with `WIDTH` panels.
    #[inline(always)]
    fn tiles<V: Vector, const ROWS: usize, const WIDTH: usize>(&mut self, panel: usize) {
        let Panels { depth, columns, .. } = *self.panels;
        let lines = self.panels.lines.get(panel * depth..);
        let lines = lines.unwrap_or_default();
        let groups = self.rows.chunks_exact(ROWS * depth);
        for (rows, to) in groups.zip(self.to.chunks_exact_mut(ROWS * columns)) {
            let sums = tile::<V, ROWS, WIDTH>(rows, lines, depth);
            for (sums, to) in sums.iter().zip(to.chunks_exact_mut(columns)) {
                let parts = to.chunks_mut(LANES).skip(panel);
                for ((index, sums), to) in sums.iter().enumerate().zip(parts) {
                    self.finish.finish(*sums, panel + index).store_into(to);
                }
            }
        }
    }

    /// Each value as a sum along the depth, in as many parts as there are lanes.
    #[inline(always)]
    fn narrow<V: Vector>(self) {
        let Panels { depth, columns, .. } = *self.panels;
        let lines = self.panels.lines.chunks_exact(depth.div_ceil(LANES));
        let rows = self.rows.chunks_exact(depth);
        for (row, to) in rows.zip(self.to.chunks_exact_mut(columns)) {
            let (parts, rest) = row.as_chunks::<LANES>();
            for (lines, to) in lines.clone().zip(&mut *to) {
                let mut sums = V::zero();
                for (part, line) in parts.iter().zip(lines) {
                    sums = sums.add_products(V::load(part), V::load(&line.0));
                }
                if let (false, Some(last)) = (rest.is_empty(), lines.last()) {
                    let part = line(rest.iter().copied());
                    sums = sums.add_products(V::load(&part), V::load(&last.0));
                }
                *to = total(sums.store());
            }
            self.finish.apply(to);
        }
    }
}

/// The sum of the lanes, by halves.
#[inline(always)]
fn total(sums: [f32; LANES]) -> f32 {
    let [a, b, c, d] = halves::<4>(&halves::<8>(&sums));
    (a + c) + (b + d)
}

/// The first half of the values and the second one, added.
#[inline(always)]
fn halves<const N: usize>(values: &[f32]) -> [f32; N] {
    let (first, second) = values.split_at(values.len() / 2);
    let mut sums = [0.0; N];
    for ((sum, a), b) in sums.iter_mut().zip(first).zip(second) {
        *sum = a + b;
    }
    sums
}

/// The sums of `ROWS` rows with `WIDTH` panels.
#[inline(always)]
fn tile<V: Vector, const ROWS: usize, const WIDTH: usize>(
    rows: &[f32],
    lines: &[Line],
    depth: usize,
) -> [[V; WIDTH]; ROWS] {
    let mut sums = [[V::zero(); WIDTH]; ROWS];
    let mut parts = rows.chunks_exact(depth);
    let rows: [&[f32]; ROWS] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    let mut parts = lines.chunks_exact(depth);
    let panels: [&[Line]; WIDTH] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    // So that the compiler knows it: a comparison for each value would double the time.
    if rows.iter().any(|row| row.len() != depth) || panels.iter().any(|lines| lines.len() != depth)
    {
        return sums;
    }
    for place in 0..depth {
        let lines: [V; WIDTH] = std::array::from_fn(|panel| {
            let line = panels.get(panel).and_then(|lines| lines.get(place));
            line.map_or(V::zero(), |line| V::load(&line.0))
        });
        for (row, sums) in rows.iter().zip(&mut sums) {
            let x = row.get(place).copied().unwrap_or_default();
            for (sum, line) in sums.iter_mut().zip(lines) {
                *sum = sum.add_product(x, line);
            }
        }
    }
    sums
}
