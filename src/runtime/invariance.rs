//! Finds out whether a row's output bits depend on its batch: some rows are run alone, in every
//! position, in company and split over plans, and compared.

use super::Runner;
use super::samples::{Random, append, hostile_row, random_row};
use crate::codec::{Columns, Values};
use crate::model::Signature;

/// Rows that are run alone, to compare the others with.
const SAMPLES: usize = 6;

/// Whether every sample gave the same bits wherever it was run. Rows that the model fails on are
/// left out; where none is left, nothing was found and the answer is no.
pub(super) fn holds(runner: &mut dyn Runner, signature: &Signature, plan_rows: usize) -> bool {
    let mut random = Random(0x5eed);
    let mut samples = Vec::new();
    for scale in [1.0, 1.0, 0.01, 1.0, 100.0, 1.0].into_iter().take(SAMPLES) {
        let row = random_row(&signature.inputs, &mut random, scale);
        let mut alone = Columns::new(&signature.outputs);
        if runner.run(&row, &mut alone).is_ok() {
            samples.push((row, alone));
        }
    }
    if samples.is_empty() {
        return false;
    }
    batches(samples.len(), plan_rows).iter().all(|picks| {
        let mut inputs = Columns::new(&signature.inputs);
        for pick in picks {
            match pick.and_then(|sample| samples.get(sample)) {
                Some((row, _)) => append(&mut inputs, row),
                None => append(&mut inputs, &hostile_row(&signature.inputs)),
            }
        }
        let mut outputs = Columns::new(&signature.outputs);
        if runner.run(&inputs, &mut outputs).is_err() {
            // Only hostile rows may fail a batch.
            return picks.contains(&None);
        }
        picks.iter().enumerate().all(|(position, pick)| {
            pick.and_then(|sample| samples.get(sample))
                .is_none_or(|(_, alone)| same_row(alone, 0, &outputs, position))
        })
    })
}

/// Which sample stands in which position of each batch; `None` is a hostile row.
fn batches(samples: usize, plan_rows: usize) -> Vec<Vec<Option<usize>>> {
    let turn = |rows: usize, first: usize| (0..rows).map(move |row| Some((row + first) % samples));
    let spoil = |(row, pick)| if row % 3 == 1 { None } else { pick };
    vec![
        turn(plan_rows, 0).collect(),
        turn(plan_rows.div_ceil(2), 1).collect(),
        turn(plan_rows + 3, 2).collect(),
        turn(plan_rows, 3).enumerate().map(spoil).collect(),
    ]
}

fn same_row(a: &Columns, row_a: usize, b: &Columns, row_b: usize) -> bool {
    a.columns.iter().zip(&b.columns).all(|(a, b)| {
        let range = |row: usize| row * a.row_len..(row + 1) * a.row_len;
        let mut ours = Values::new(a.values.element());
        ours.extend_from(&a.values, range(row_a));
        let mut theirs = Values::new(b.values.element());
        theirs.extend_from(&b.values, range(row_b));
        ours.len() == a.row_len && same_bits(&ours, &theirs)
    })
}

/// Equality of bits, except that any NaN is as good as another: it is no answer anyway.
fn same_bits(a: &Values, b: &Values) -> bool {
    macro_rules! same {
        ($a:ident, $b:ident) => {
            $a.len() == $b.len()
                && $a
                    .iter()
                    .zip($b)
                    .all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
        };
    }
    match (a, b) {
        (Values::Float(a), Values::Float(b)) => same!(a, b),
        (Values::Double(a), Values::Double(b)) => same!(a, b),
        (a, b) => a == b,
    }
}
