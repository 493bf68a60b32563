//! The coefficients of linear models, ready to be multiplied with rows.

use super::panels::{Finish, Panels};

/// Coefficients and intercepts.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Weights {
    /// One column for each target.
    Targets { panels: Panels, finish: Finish },
    /// Two targets with opposite coefficients, as binary models have them: the second's. Rounding
    /// knows no sign, so that the first sum is the exact opposite of the second.
    Opposite {
        second: Panels,
        intercepts: [f32; 2],
    },
}

impl Weights {
    /// From one row of `features` coefficients for each target, and as many intercepts or none.
    pub(super) fn new(coefficients: &[f32], intercepts: &[f32], features: usize) -> Self {
        let targets: Vec<&[f32]> = coefficients.chunks_exact(features.max(1)).collect();
        let panels = |targets: &[&[f32]]| {
            let value = |feature: usize, target: usize| {
                let value = targets.get(target).and_then(|target| target.get(feature));
                value.copied().unwrap_or_default()
            };
            Panels::new(features, targets.len(), value)
        };
        match *targets {
            [first, second] if first.iter().zip(second).all(|(a, b)| *a == -b) => Self::Opposite {
                second: panels(&[second]),
                intercepts: match *intercepts {
                    [first, second] => [first, second],
                    _ => [0.0; 2],
                },
            },
            _ => Self::Targets {
                panels: panels(&targets),
                finish: Finish::adding(intercepts),
            },
        }
    }

    /// The scores of `rows`, one for each target.
    pub(super) fn apply(&self, rows: &[f32], scores: &mut [f32]) {
        match self {
            Self::Targets { panels, finish } => panels.multiply(rows, finish, scores),
            Self::Opposite { second, intercepts } => {
                // One sum a row, into the front half; then both scores from back to front.
                let rows_of = scores.len() / 2;
                if let Some(sums) = scores.get_mut(..rows_of) {
                    second.multiply(rows, &Finish::default(), sums);
                }
                let [first, second] = *intercepts;
                for row in (0..rows_of).rev() {
                    let sum = scores.get(row).copied().unwrap_or_default();
                    if let Some(pair) = scores.get_mut(2 * row..2 * row + 2) {
                        pair.copy_from_slice(&[-sum + first, sum + second]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn apply(coefficients: &[f32], intercepts: &[f32], features: usize, rows: &[f32]) -> Vec<f32> {
        let targets = coefficients.len() / features;
        let mut scores = vec![0.0; rows.len() / features * targets];
        Weights::new(coefficients, intercepts, features).apply(rows, &mut scores);
        scores
    }

    #[test]
    fn opposite_targets_are_summed_once() {
        let coefficients = [1.0, -2.0, -1.0, 2.0];
        let weights = Weights::new(&coefficients, &[], 2);
        assert!(matches!(weights, Weights::Opposite { .. }));
        let rows = [3.0, 0.5, 1.0, 0.0, 0.0, 0.0];
        assert_eq!(
            apply(&coefficients, &[], 2, &rows),
            [2.0, -2.0, 1.0, -1.0, 0.0, 0.0]
        );
        assert_eq!(
            apply(&coefficients, &[0.5, 4.0], 2, &rows),
            [2.5, 2.0, 1.5, 3.0, 0.5, 4.0]
        );
    }

    proptest! {
        #[test]
        fn scores_are_right_and_do_not_depend_on_the_batch(
            features in 1..40_usize,
            targets in 1..40_usize,
            rows in 1..30_usize,
            seed in any::<u16>(),
        ) {
            let value = |i: usize| ((i as f32 + 1.0) * (f32::from(seed) + 0.31)).sin();
            let coefficients: Vec<f32> = (0..features * targets).map(value).collect();
            let intercepts: Vec<f32> = (0..targets).map(|i| value(i + 7)).collect();
            let x: Vec<f32> = (0..rows * features).map(|i| value(3 * i)).collect();
            let together = apply(&coefficients, &intercepts, features, &x);
            for (row, scores) in x.chunks(features).zip(together.chunks(targets)) {
                let alone = apply(&coefficients, &intercepts, features, row);
                prop_assert_eq!(&alone, scores);
                for (target, score) in scores.iter().enumerate() {
                    let weights = &coefficients[target * features..(target + 1) * features];
                    let exact = row.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w));
                    let exact = exact.sum::<f64>() + f64::from(intercepts[target]);
                    prop_assert!((exact - f64::from(*score)).abs() < 1e-5, "{} {}", exact, score);
                }
            }
        }
    }
}
