//! The coefficients of linear models, laid out for one pass over each row.
//!
//! A score is summed in an order that only the model decides, by its number of targets: one target
//! in the order of [`dot`], several in that of [`block`].

use super::math::dot;

/// Targets that are summed side by side.
const WIDTH: usize = 4;

/// Coefficients, ready to be multiplied with rows.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Weights {
    /// One target.
    Single(Vec<f32>),
    /// Two targets with opposite coefficients, as binary models have them: the second's. Rounding
    /// knows no sign, so that the first score is the exact opposite of the second.
    Opposite(Vec<f32>),
    /// [`WIDTH`] targets in each block, filled up with zeros.
    Blocks(Vec<Block>),
}

/// The coefficients of [`WIDTH`] targets: for each feature those of all targets.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Block {
    fours: Vec<[[f32; WIDTH]; 4]>,
    rest: Vec<[f32; WIDTH]>,
}

impl Weights {
    /// From one row of `features` coefficients for each target.
    pub(super) fn new(coefficients: &[f32], features: usize) -> Self {
        let targets: Vec<&[f32]> = coefficients.chunks_exact(features.max(1)).collect();
        match targets.as_slice() {
            [one] => Self::Single(one.to_vec()),
            [first, second] if first.iter().zip(*second).all(|(a, b)| *a == -b) => {
                Self::Opposite(second.to_vec())
            }
            many => {
                let block = |targets: &[&[f32]]| Block::new(targets, features);
                Self::Blocks(many.chunks(WIDTH).map(block).collect())
            }
        }
    }

    /// The scores of `row`, one for each target.
    #[inline]
    pub(super) fn apply(&self, row: &[f32], scores: &mut [f32]) {
        match (self, scores) {
            (Self::Single(weights), [score]) => *score = dot(row, weights),
            (Self::Opposite(weights), [first, second]) => {
                *second = dot(row, weights);
                *first = -*second;
            }
            (Self::Blocks(blocks), scores) => {
                for (block, scores) in blocks.iter().zip(scores.chunks_mut(WIDTH)) {
                    let sums = block.apply(row);
                    scores.iter_mut().zip(sums).for_each(|(to, sum)| *to = sum);
                }
            }
            (Self::Single(_) | Self::Opposite(_), _) => {}
        }
    }
}

impl Block {
    fn new(targets: &[&[f32]], features: usize) -> Self {
        let column = |feature: usize| {
            let mut column = [0.0; WIDTH];
            for (to, target) in column.iter_mut().zip(targets) {
                *to = target.get(feature).copied().unwrap_or_default();
            }
            column
        };
        let columns: Vec<[f32; WIDTH]> = (0..features).map(column).collect();
        let (fours, rest) = columns.as_chunks::<4>();
        Self {
            fours: fours.to_vec(),
            rest: rest.to_vec(),
        }
    }

    /// Each target's sum: four running sums over every fourth feature, then a fixed tree.
    #[inline]
    fn apply(&self, row: &[f32]) -> [f32; WIDTH] {
        let mut sums = [[0.0; WIDTH]; 4];
        let (fours, rest) = row.as_chunks::<4>();
        for (x, weights) in fours.iter().zip(&self.fours) {
            for ((sums, x), weights) in sums.iter_mut().zip(x).zip(weights) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum += x * weight;
                }
            }
        }
        for ((sums, x), weights) in sums.iter_mut().zip(rest).zip(&self.rest) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += x * weight;
            }
        }
        let [s0, s1, s2, s3] = sums;
        let mut total = [0.0; WIDTH];
        let (even, odd) = (s0.iter().zip(s2), s1.iter().zip(s3));
        for ((to, (s0, s2)), (s1, s3)) in total.iter_mut().zip(even).zip(odd) {
            *to = (s0 + s2) + (s1 + s3);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn apply(coefficients: &[f32], row: &[f32]) -> Vec<f32> {
        let mut scores = vec![0.0; coefficients.len() / row.len()];
        Weights::new(coefficients, row.len()).apply(row, &mut scores);
        scores
    }

    #[test]
    fn opposite_targets_are_scored_once() {
        let weights = Weights::new(&[1.0, -2.0, -1.0, 2.0], 2);
        assert_eq!(weights, Weights::Opposite(vec![-1.0, 2.0]));
        assert_eq!(apply(&[1.0, -2.0, -1.0, 2.0], &[3.0, 0.5]), [2.0, -2.0]);
    }

    proptest! {
        /// The plain definition of the order.
        #[test]
        fn several_targets_are_summed_in_the_fixed_order(
            row in prop::collection::vec(-10.0_f32..10.0, 1..20),
            targets in 2..10_usize,
            seed in any::<u16>(),
        ) {
            let features = row.len();
            let coefficients: Vec<f32> = (0..features * targets)
                .map(|i| (i as f32 + f32::from(seed)).sin())
                .collect();
            let expected: Vec<u32> = coefficients
                .chunks(features)
                .map(|weights| {
                    let every_fourth = |start: usize| {
                        let pairs = row.iter().zip(weights).skip(start).step_by(4);
                        pairs.fold(0.0_f32, |sum, (x, w)| sum + x * w)
                    };
                    let even = every_fourth(0) + every_fourth(2);
                    (even + (every_fourth(1) + every_fourth(3))).to_bits()
                })
                .collect();
            let got: Vec<u32> = apply(&coefficients, &row).iter().map(|s| s.to_bits()).collect();
            prop_assert_eq!(got, expected);
        }
    }
}
