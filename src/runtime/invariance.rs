//! Finds out whether a row's output bits depend on its batch: random rows are run alone, in every
//! position, in company and split over plans, and compared.

use std::time::{Duration, Instant};

use super::Runner;
use super::samples::{Random, append, hostile_row, random_row};
use crate::codec::{Columns, Values};
use crate::model::Signature;

/// Rows that are run alone, to compare the others with; and batches that they are put in. tract's
/// softmax, for one, rounds by the alignment of a row in memory: in some positions one row out of
/// ten differs in its last bit. So many are tried; but a model that takes long gets away with the
/// least after [`BUDGET`].
const SAMPLES: Tried = Tried { least: 6, most: 64 };
const BATCHES: Tried = Tried {
    least: 4,
    most: 256,
};
const BUDGET: Duration = Duration::from_millis(500);

struct Tried {
    least: usize,
    most: usize,
}

/// Whether every sample gave the same bits wherever it was run. Rows that the model fails on are
/// left out; where none is left, nothing was found and the answer is no.
pub(super) fn holds(runner: &mut dyn Runner, signature: &Signature, plan_rows: usize) -> bool {
    let start = Instant::now();
    let mut random = Random(0x5eed);
    let mut samples = Vec::new();
    for index in 0..SAMPLES.most {
        if index >= SAMPLES.least && start.elapsed() > BUDGET / 2 {
            break;
        }
        let scale = [1.0, 0.1, 10.0].get(index % 3).copied().unwrap_or(1.0);
        let row = random_row(&signature.inputs, &mut random, scale);
        let mut alone = Columns::new(&signature.outputs);
        if runner.run(&row, &mut alone).is_ok() {
            samples.push((row, alone));
        }
    }
    if samples.is_empty() {
        return false;
    }
    (0..BATCHES.most)
        .take_while(|round| *round < BATCHES.least || start.elapsed() < BUDGET)
        .all(|round| {
            let picks = picks(round, samples.len(), plan_rows);
            same_as_alone(runner, signature, &samples, &picks)
        })
}

/// Which sample stands in which position of the batch of `round`; `None` is a hostile row.
fn picks(round: usize, samples: usize, plan_rows: usize) -> Vec<Option<usize>> {
    let rows = match round {
        1 => plan_rows.div_ceil(2),
        2 => plan_rows + 3,
        _ => plan_rows,
    };
    (0..rows)
        .map(|row| (round != 3 || row % 3 != 1).then_some((row + 13 * round) % samples))
        .collect()
}

fn same_as_alone(
    runner: &mut dyn Runner,
    signature: &Signature,
    samples: &[(Columns, Columns)],
    picks: &[Option<usize>],
) -> bool {
    let sample = |pick: &Option<usize>| pick.and_then(|index| samples.get(index));
    let mut inputs = Columns::new(&signature.inputs);
    for pick in picks {
        match sample(pick) {
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
        sample(pick).is_none_or(|(_, alone)| same_row(alone, 0, &outputs, position))
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ElementType, TensorSpec};
    use crate::runtime::RunError;

    /// A model of one float a row, computed from the row, its position and the whole batch.
    struct Fake<F>(F);

    impl<F: FnMut(f32, usize, &[f32]) -> Result<f32, RunError> + Send> Runner for Fake<F> {
        fn run(&mut self, inputs: &Columns, outputs: &mut Columns) -> Result<(), RunError> {
            outputs.clear();
            let Values::Float(x) = &inputs.columns[0].values else {
                panic!("not floats");
            };
            let y = x
                .iter()
                .enumerate()
                .map(|(i, value)| (self.0)(*value, i, x));
            outputs.columns[0].values = Values::Float(y.collect::<Result<_, _>>()?);
            outputs.rows = inputs.rows;
            Ok(())
        }
    }

    fn check(model: impl FnMut(f32, usize, &[f32]) -> Result<f32, RunError> + Send) -> bool {
        let spec = |name: &str| TensorSpec {
            name: name.to_owned(),
            element: ElementType::Float,
            row_shape: vec![],
            classes: None,
        };
        let signature = Signature {
            inputs: vec![spec("x")],
            outputs: vec![spec("y")],
        };
        holds(&mut Fake(model), &signature, 32)
    }

    #[test]
    fn a_row_that_depends_on_its_batch_is_found() {
        let failure = || RunError::Failed("no".to_owned());
        assert!(check(|x, _, _| Ok(x * 2.0)));
        assert!(check(|_, _, _| Ok(f32::NAN)));
        // By the position, the last one alone included.
        assert!(!check(|x, i, _| Ok(x + i as f32)));
        assert!(!check(|x, i, _| Ok(if i == 31 { x + 1.0 } else { x })));
        // By the company.
        assert!(!check(|x, _, all| Ok(x + all.len() as f32)));
        assert!(!check(|x, _, all| Ok(x + 0.0 * all.iter().sum::<f32>())));
        // A last bit, in one row out of fifty.
        assert!(!check(|x, i, _| {
            let unlucky = i % 2 == 1 && x.to_bits() % 25 == 0;
            Ok(f32::from_bits(x.to_bits() ^ u32::from(unlucky)))
        }));
        // Rows that fail are left out, but not all of them.
        assert!(check(|x, _, _| if x.is_nan() {
            Err(failure())
        } else {
            Ok(x)
        }));
        assert!(check(|x, _, _| if x > 1.0 {
            Err(failure())
        } else {
            Ok(x)
        }));
        assert!(!check(|_, _, _| Err(failure())));
        assert!(!check(|x, _, all| if all.len() > 1 {
            Err(failure())
        } else {
            Ok(x)
        }));
    }
}
