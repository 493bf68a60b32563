//! Rows that a model is tried out with at load: zeros, random ones, hostile ones.

use crate::codec::{Columns, Values};
use crate::model::TensorSpec;
use crate::with_values;

/// `rows` rows of zeros (empty strings, false).
pub(super) fn zeros(specs: &[TensorSpec], rows: usize) -> Columns {
    let mut columns = Columns::new(specs);
    for column in &mut columns.columns {
        let len = rows * column.row_len;
        with_values!(&mut column.values, v => v.resize_with(len, Default::default));
    }
    columns.rows = rows;
    columns
}

/// A random row: floats about normal times `scale`, whole numbers 0 or 1 so that they are indices
/// into any table.
pub(super) fn random_row(specs: &[TensorSpec], random: &mut Random, scale: f64) -> Columns {
    let mut row = zeros(specs, 1);
    for column in &mut row.columns {
        macro_rules! fill {
            ($($variant:ident($x:ident) => $value:expr),* $(,)?) => {
                match &mut column.values {
                    $(Values::$variant(values) => values.iter_mut().for_each(|$x| *$x = $value),)*
                }
            };
        }
        fill!(
            Float(x) => (random.normal() * scale) as f32,
            Double(x) => random.normal() * scale,
            Int8(x) => random.coin().into(),
            Int16(x) => random.coin().into(),
            Int32(x) => random.coin().into(),
            Int64(x) => random.coin().into(),
            Uint8(x) => random.coin().into(),
            Uint16(x) => random.coin().into(),
            Uint32(x) => random.coin().into(),
            Uint64(x) => random.coin().into(),
            Bool(x) => random.coin(),
            String(x) => if random.coin() { "a" } else { "b" }.to_owned(),
        );
    }
    row
}

/// A neighbour that spoils whatever it leaks into.
pub(super) fn hostile_row(specs: &[TensorSpec]) -> Columns {
    let mut row = zeros(specs, 1);
    for column in &mut row.columns {
        match &mut column.values {
            Values::Float(v) => v.fill(f32::NAN),
            Values::Double(v) => v.fill(f64::NAN),
            _ => {}
        }
    }
    row
}

/// Appends `rows` to `to`; both have the same columns.
pub(super) fn append(to: &mut Columns, rows: &Columns) {
    for (to, from) in to.columns.iter_mut().zip(&rows.columns) {
        to.values.extend_from(&from.values, 0..from.values.len());
    }
    to.rows += rows.rows;
}

/// `SplitMix64`: small, seeded, the same everywhere.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    /// Mean 0, variance 1, by the sum of twelve uniform numbers.
    pub(super) fn normal(&mut self) -> f64 {
        let uniform = |bits: u64| (bits >> 11) as f64 / (1u64 << 53) as f64;
        (0..12).map(|_| uniform(self.next())).sum::<f64>() - 6.0
    }
}
