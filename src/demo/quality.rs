//! How well a version tells late flights from punctual ones: the area under the ROC curve, exact,
//! ties counted half. Pure; its memory is bounded by the number of different scores.

use std::collections::BTreeMap;

/// Scores by their order, each with how many events of either label got it.
#[derive(Debug, Default)]
pub(super) struct Quality {
    scores: BTreeMap<u64, Labels>,
    events: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Labels {
    negative: u64,
    positive: u64,
}

impl Quality {
    /// Adds an event that got `score` and whose label is `positive`.
    pub(super) fn add(&mut self, score: f64, positive: bool) {
        let labels = self.scores.entry(ordered(score)).or_default();
        if positive {
            labels.positive += 1;
        } else {
            labels.negative += 1;
        }
        self.events += 1;
    }

    /// Events added.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// The probability that a positive event has a higher score than a negative one; `None`
    /// where there is no pair to compare.
    pub(super) fn auc(&self) -> Option<f64> {
        let (mut below, mut positives, mut twice_won) = (0_u64, 0_u64, 0_u128);
        for labels in self.scores.values() {
            let beaten = 2 * u128::from(below) + u128::from(labels.negative);
            twice_won += u128::from(labels.positive) * beaten;
            below += labels.negative;
            positives += labels.positive;
        }
        let pairs = u128::from(below) * u128::from(positives);
        (pairs > 0).then(|| twice_won as f64 / (2 * pairs) as f64)
    }
}

/// Bits that sort as the numbers do; both zeros are one.
fn ordered(score: f64) -> u64 {
    let bits = (score + 0.0).to_bits();
    if bits >> 63 == 0 {
        bits | 1 << 63
    } else {
        !bits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn auc(events: &[(f64, bool)]) -> Option<f64> {
        let mut quality = Quality::default();
        for (score, positive) in events {
            quality.add(*score, *positive);
        }
        assert_eq!(quality.events(), events.len() as u64);
        quality.auc()
    }

    #[test]
    fn known_values() {
        assert_eq!(auc(&[]), None);
        assert_eq!(auc(&[(0.5, true)]), None);
        assert_eq!(auc(&[(0.1, false), (0.9, true)]), Some(1.0));
        assert_eq!(auc(&[(0.9, false), (0.1, true)]), Some(0.0));
        assert_eq!(auc(&[(0.5, false), (0.5, true)]), Some(0.5));
        assert_eq!(auc(&[(-0.0, false), (0.0, true)]), Some(0.5));
        assert_eq!(auc(&[(-2.0, false), (-1.0, true), (0.0, false)]), Some(0.5));
    }

    proptest! {
        #[test]
        fn it_is_the_share_of_pairs_in_order(
            events in prop::collection::vec((-5..5_i32, any::<bool>()), 0..60),
        ) {
            let events: Vec<(f64, bool)> =
                events.into_iter().map(|(score, label)| (f64::from(score) / 4.0, label)).collect();
            let (mut won, mut pairs) = (0.0, 0.0);
            for (p, _) in events.iter().filter(|(_, label)| *label) {
                for (n, _) in events.iter().filter(|(_, label)| !*label) {
                    pairs += 1.0;
                    won += if p > n { 1.0 } else if p == n { 0.5 } else { 0.0 };
                }
            }
            match auc(&events) {
                None => prop_assert_eq!(pairs, 0.0),
                Some(auc) => prop_assert!((auc - won / pairs).abs() < 1e-12),
            }
        }
    }
}
