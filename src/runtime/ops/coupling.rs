//! From the probabilities of pairs of classes to those of the classes: the second method of T.-F.
//! Wu, C.-J. Lin and R. C. Weng, "Probability Estimates for Multi-class Classification by Pairwise
//! Coupling" (2004), as LIBSVM and ONNX Runtime compute it.

use super::math::logistic;

/// Bounds of a pair's probability.
const LEAST: f32 = 1e-7;

/// How often the estimate is improved at most.
const ROUNDS: usize = 100;

/// The probability of the first class of a pair, from its decision value.
pub(super) fn pairwise_probability(decision: f32, [slope, offset]: [f32; 2]) -> f32 {
    let probability = 1.0 - logistic(decision * slope + offset);
    probability.clamp(LEAST, 1.0 - LEAST)
}

/// The pairwise probabilities of one row, and the memory to solve them.
#[derive(Debug)]
pub(super) struct Coupling {
    classes: usize,
    /// Row `i`, column `j`: how probable class `i` is against class `j`.
    pairs: Vec<f32>,
    matrix: Vec<f32>,
    product: Vec<f32>,
}

impl Coupling {
    pub(super) fn new(classes: usize) -> Self {
        Self {
            classes,
            pairs: vec![0.0; classes * classes],
            matrix: vec![0.0; classes * classes],
            product: vec![0.0; classes],
        }
    }

    pub(super) fn set(&mut self, first: usize, second: usize, probability: f32) {
        let classes = self.classes;
        for (index, value) in [
            (first * classes + second, probability),
            (second * classes + first, 1.0 - probability),
        ] {
            if let Some(slot) = self.pairs.get_mut(index) {
                *slot = value;
            }
        }
    }

    /// Puts the classes' probabilities into `p`.
    pub(super) fn solve(&mut self, p: &mut [f32]) {
        let classes = self.classes;
        self.fill_matrix();
        p.fill(1.0 / classes as f32);
        let tolerance = 0.005 / classes as f32;
        for _ in 0..ROUNDS {
            let mut quadratic = 0.0;
            let rows = self.matrix.chunks_exact(classes.max(1));
            for ((product, row), p_of_row) in self.product.iter_mut().zip(rows).zip(&*p) {
                *product = row.iter().zip(&*p).fold(0.0, |sum, (q, p)| sum + q * p);
                quadratic += p_of_row * *product;
            }
            let errors = self
                .product
                .iter()
                .map(|product| (product - quadratic).abs());
            if errors.fold(0.0, f32::max) < tolerance {
                break;
            }
            self.improve(p, quadratic);
        }
    }

    fn fill_matrix(&mut self) {
        let classes = self.classes;
        let pairs = &self.pairs;
        let pair = |i: usize, j: usize| pairs.get(i * classes + j).copied().unwrap_or_default();
        for (index, slot) in self.matrix.iter_mut().enumerate() {
            let (i, j) = (index / classes, index % classes);
            *slot = if i == j {
                let others = (0..classes).filter(|other| *other != i);
                others.fold(0.0, |sum, other| sum + pair(other, i) * pair(other, i))
            } else {
                -pair(j, i) * pair(i, j)
            };
        }
    }

    /// One step of the iteration: coordinate by coordinate, kept normalised.
    fn improve(&mut self, p: &mut [f32], mut quadratic: f32) {
        let classes = self.classes;
        for class in 0..classes {
            let row = self.matrix.get(class * classes..(class + 1) * classes);
            let (Some(row), Some(product)) = (row, self.product.get(class).copied()) else {
                return;
            };
            let diagonal = row.get(class).copied().unwrap_or(1.0);
            let step = (quadratic - product) / diagonal;
            if let Some(p) = p.get_mut(class) {
                *p += step;
            }
            let grown = 1.0 + step;
            quadratic = (quadratic + step * (step * diagonal + 2.0 * product)) / grown / grown;
            for ((product, q), p) in self.product.iter_mut().zip(row).zip(&mut *p) {
                *product = (*product + step * q) / grown;
                *p /= grown;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consistent_pairs_give_back_their_classes() {
        let wanted = [0.5_f32, 0.3, 0.2];
        let mut coupling = Coupling::new(3);
        for first in 0..3 {
            for second in first + 1..3 {
                let sum = wanted[first] + wanted[second];
                coupling.set(first, second, wanted[first] / sum);
            }
        }
        let mut got = [0.0; 3];
        coupling.solve(&mut got);
        for (got, wanted) in got.iter().zip(wanted) {
            assert!((got - wanted).abs() < 5e-3, "{got} is not {wanted}");
        }
    }

    #[test]
    fn two_classes_share_one_probability() {
        // ONNX Runtime 1.32 gives 0.455553 and 0.544447.
        let decision = 0.078_123_76;
        let mut coupling = Coupling::new(2);
        coupling.set(0, 1, pairwise_probability(decision, [-1.0, 0.1]));
        let mut got = [0.0; 2];
        coupling.solve(&mut got);
        assert!((got[0] + got[1] - 1.0).abs() < 1e-6, "{got:?}");
    }
}
