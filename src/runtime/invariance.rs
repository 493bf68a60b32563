//! Finds out whether a row's output bits depend on its batch: random rows are run alone, in every
//! position, in company and split over plans, and compared.

use std::time::Duration;

use super::Runner;
use super::clock::thread_time;
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

/// A decision that has taken so much processor time is no: the model runs as it would anyway.
const LIMIT: Duration = Duration::from_secs(10);

/// Up to so many bytes of weights a model is tried out in full; the larger it is, the less.
const SMALL: usize = 1 << 20;

struct Tried {
    least: usize,
    most: usize,
}

/// What the answer is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// To be reported: trying may end with the time for it.
    Report,
    /// To decide how the model is run, and so which bits it gives. How much is tried follows from
    /// the bytes of its weights and never from the time it takes: on a busy machine too little
    /// would be tried, and the model run in another way than elsewhere.
    Decide {
        /// Bytes of the model's weights, counted as often as a row is multiplied with them.
        weights: usize,
    },
}

impl Purpose {
    /// How much of `tried` there is at most.
    fn most(self, tried: &Tried) -> usize {
        match self {
            Self::Report => tried.most,
            Self::Decide { weights } => {
                (tried.most / weights.div_ceil(SMALL).max(1)).max(tried.least)
            }
        }
    }

    /// Whether trying may end now, after at least what is needed.
    fn is_enough(self, spent: Duration, budget: Duration) -> bool {
        matches!(self, Self::Report) && spent > budget
    }
}

/// Batch sizes that show whether plans of so many rows treat these alike: full, padded, and more
/// than one run.
pub(super) fn sizes_of_plans(plan_rows: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let sizes = plan_rows.into_iter();
    sizes
        .flat_map(|rows| [rows, rows - rows / 8, rows.div_ceil(2), rows + 3])
        .collect()
}

/// Whether every sample gave the same bits wherever it was run: alone, and in batches of `sizes`.
/// Rows that the model fails on are left out; where none is left, nothing was found and the answer
/// is no.
pub(super) fn holds(
    runner: &mut dyn Runner,
    signature: &Signature,
    sizes: &[usize],
    purpose: Purpose,
) -> bool {
    let start = thread_time();
    let spent = || thread_time().saturating_sub(start);
    let mut random = Random(0x5eed);
    let mut samples = Vec::new();
    for index in 0..purpose.most(&SAMPLES) {
        if index >= SAMPLES.least && purpose.is_enough(spent(), BUDGET / 2) {
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
    // Every size, and one of them in bad company.
    let least = BATCHES.least.max(sizes.len() + 1);
    let rounds = purpose.most(&BATCHES).max(least);
    let rounds = sizes.iter().cycle().enumerate().take(rounds);
    rounds
        .take_while(|(round, _)| *round < least || !purpose.is_enough(spent(), BUDGET))
        .all(|(round, &rows)| {
            if matches!(purpose, Purpose::Decide { .. }) && spent() > LIMIT {
                return false;
            }
            let picks = picks(round, samples.len(), rows, round == sizes.len());
            same_as_alone(runner, signature, &samples, &picks)
        })
}

/// Which sample stands in which position of the batch of `round`; `None` is a hostile row.
fn picks(round: usize, samples: usize, rows: usize, hostile: bool) -> Vec<Option<usize>> {
    (0..rows)
        .map(|row| (!hostile || row % 3 != 1).then_some((row + 13 * round) % samples))
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
        check_for(Purpose::Report, model)
    }

    fn check_for(
        purpose: Purpose,
        model: impl FnMut(f32, usize, &[f32]) -> Result<f32, RunError> + Send,
    ) -> bool {
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
        holds(&mut Fake(model), &signature, &sizes_of_plans([32]), purpose)
    }

    #[test]
    fn what_decides_does_not_depend_on_the_time_it_takes() {
        // Slow, and wrong in a way that shows late: cut short, nothing would be found.
        let slow = || {
            let mut runs = 0;
            move |x: f32, i: usize, _: &[f32]| {
                if i == 0 {
                    runs += 1;
                    let until = thread_time() + Duration::from_millis(4);
                    while thread_time() < until {
                        std::hint::spin_loop();
                    }
                }
                Ok(if runs > 150 { x + 1.0 } else { x })
            }
        };
        assert!(check_for(Purpose::Report, slow()));
        assert!(!check_for(Purpose::Decide { weights: 1000 }, slow()));
        // A large model is tried out less, but as much everywhere.
        let large = Purpose::Decide { weights: 64 << 20 };
        assert_eq!((large.most(&SAMPLES), large.most(&BATCHES)), (6, 4));
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
