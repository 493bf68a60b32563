//! The verifier on made-up histories: right ones pass, and each kind of damage is caught by its
//! check. A verifier that misses one would let a broken build pass.

use std::collections::{BTreeMap, BTreeSet};

use super::rng::Rng;
use super::verifier::{Answer, Guarantee, Input, Outlet, Totals, Verifier};

const PARTITIONS: usize = 3;

/// What a right service leaves behind.
#[derive(Debug, Clone)]
pub struct History {
    guarantee: Guarantee,
    inputs: Vec<Input>,
    /// Offsets that were aborted, by partition.
    aborted: Vec<(usize, i64)>,
    /// By output partition and outlet, in the order of their offsets.
    answers: BTreeMap<(Outlet, usize), Vec<Answer>>,
    committed: Vec<Option<i64>>,
}

impl History {
    /// A random right history: transactions of which some abort, a reader that in
    /// `at_least_once` goes back now and then, revisions that grow.
    pub fn random(guarantee: Guarantee, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut history = Self {
            guarantee,
            inputs: Vec::new(),
            aborted: Vec::new(),
            answers: BTreeMap::new(),
            committed: vec![None; PARTITIONS],
        };
        let mut seq = 0;
        let mut next = [0_i64; PARTITIONS];
        for _ in 0..rng.between(10, 40) {
            let aborted = rng.one_in(5);
            for _ in 0..rng.between(1, 12) {
                seq += 1;
                let key = rng.between(0, 9) as u32;
                let partition = key as usize % PARTITIONS;
                let offset = next[partition];
                next[partition] += 1;
                if aborted {
                    history.aborted.push((partition, offset));
                } else {
                    history.inputs.push(Input {
                        partition,
                        offset,
                        key,
                        seq,
                    });
                }
            }
            // The marker of the transaction.
            for next in &mut next {
                *next += 1;
            }
        }
        for partition in 0..PARTITIONS {
            history.score(partition, &mut rng);
        }
        history
    }

    fn score(&mut self, partition: usize, rng: &mut Rng) {
        let all: Vec<Input> = { &self.inputs }
            .iter()
            .filter(|input| input.partition == partition)
            .copied()
            .collect();
        let (mut at, mut committed, mut revision) = (0, 0, 1);
        while at < all.len() {
            revision += i64::from(rng.one_in(10));
            if rng.one_in(4) {
                committed = at;
            }
            if self.guarantee == Guarantee::AtLeastOnce && rng.one_in(8) {
                at = committed;
            }
            let input = all[at];
            let dead = input.seq.is_multiple_of(7);
            let outlet = if dead {
                Outlet::DeadLetters
            } else {
                Outlet::Predictions
            };
            let list = self.answers.entry((outlet, partition)).or_default();
            list.push(Answer {
                outlet,
                partition,
                offset: 0,
                of: (partition, input.offset),
                key: input.key,
                seq: input.seq,
                revision: (!dead).then_some(revision),
                wrong: None,
                fingerprint: rng.next(),
            });
            at += 1;
        }
        self.committed[partition] = all.last().map(|input| input.offset + 1);
    }

    /// The checks that fail, and the totals.
    pub fn verify(&self) -> (BTreeSet<u8>, Totals) {
        let mut verifier = Verifier::new(self.guarantee, PARTITIONS);
        // Answers may be read before their inputs.
        let (early, late) = self.inputs.split_at(self.inputs.len() / 2);
        for input in early {
            verifier.input(input);
        }
        for list in self.answers.values() {
            for (offset, answer) in list.iter().enumerate() {
                let offset = offset as i64;
                verifier.answer(&Answer {
                    offset,
                    ..answer.clone()
                });
            }
        }
        for input in late {
            verifier.input(input);
        }
        let totals = verifier.finish(&self.committed);
        let checks = verifier.violations().iter().map(|one| one.check).collect();
        (checks, totals)
    }

    fn list(&mut self, rng: &mut Rng) -> Option<&mut Vec<Answer>> {
        let mut lists: Vec<_> = self.answers.values_mut().filter(|l| l.len() > 3).collect();
        if lists.is_empty() {
            return None;
        }
        let index = rng.between(0, lists.len() as u64) as usize;
        Some(lists.swap_remove(index))
    }
}

/// What is done to a right history, and the check that must catch it.
type Damage = (&'static str, u8, fn(&mut History, &mut Rng) -> bool);

pub const DAMAGES: [Damage; 9] = [
    ("lost", 1, |history, rng| {
        let Some(list) = history.list(rng) else {
            return false;
        };
        let of = list[rng.between(0, list.len() as u64) as usize].of;
        list.retain(|answer| answer.of != of);
        true
    }),
    ("duplicated", 1, |history, rng| {
        if history.guarantee == Guarantee::AtLeastOnce {
            return false;
        }
        let Some(list) = history.list(rng) else {
            return false;
        };
        let at = rng.between(0, list.len() as u64) as usize;
        let again = list[at].clone();
        let to = rng.between(at as u64, list.len() as u64 + 1) as usize;
        list.insert(to, again);
        true
    }),
    ("answers an aborted input", 1, |history, rng| {
        let Some(&(partition, offset)) = history.aborted.first() else {
            return false;
        };
        let Some(list) = history.list(rng) else {
            return false;
        };
        let at = rng.between(0, list.len() as u64) as usize;
        list[at].of = (partition, offset);
        true
    }),
    ("reordered", 2, |history, rng| {
        let Some(list) = history.list(rng) else {
            return false;
        };
        // Two neighbours of one key, both answered once.
        let once = |one: &Answer, list: &[Answer]| {
            list.iter().filter(|other| other.of == one.of).count() == 1
        };
        let pair = (0..list.len()).flat_map(|a| (a + 1..list.len()).map(move |b| (a, b)));
        let mut pair = pair.filter(|(a, b)| {
            list[*a].key == list[*b].key && once(&list[*a], list) && once(&list[*b], list)
        });
        let Some((a, b)) = pair.next() else {
            return false;
        };
        list.swap(a, b);
        true
    }),
    ("counts differ", 3, |history, rng| {
        if history.guarantee == Guarantee::AtLeastOnce {
            return false;
        }
        let Some(list) = history.list(rng) else {
            return false;
        };
        list.pop();
        true
    }),
    ("wrong bits", 4, |history, rng| {
        let Some(list) = history.list(rng) else {
            return false;
        };
        let at = rng.between(0, list.len() as u64) as usize;
        list[at].wrong = Some("0.1 and not 0.2".to_owned());
        true
    }),
    ("committed too far", 6, |history, _| {
        let Some(Some(next)) = history.committed.first_mut() else {
            return false;
        };
        *next += 1;
        true
    }),
    ("committed too little", 6, |history, _| {
        let Some(next) = history.committed.first_mut() else {
            return false;
        };
        next.take().is_some()
    }),
    ("revision goes back", 7, |history, rng| {
        if history.guarantee == Guarantee::AtLeastOnce {
            return false;
        }
        let Some(list) = history.list(rng) else {
            return false;
        };
        let Some(last) = list.last_mut() else {
            return false;
        };
        let Some(revision) = &mut last.revision else {
            return false;
        };
        *revision = 0;
        true
    }),
];

/// Right histories pass, damaged ones do not. Run as a trial, since this target has its own main.
pub fn run() {
    let mut caught = BTreeMap::new();
    for seed in 0..400 {
        for guarantee in [Guarantee::ExactlyOnce, Guarantee::AtLeastOnce] {
            let history = History::random(guarantee, seed);
            let (checks, totals) = history.verify();
            assert!(checks.is_empty(), "seed {seed}, {guarantee:?}: {checks:?}");
            assert_eq!(totals.lost, 0);
            assert_eq!(totals.inputs, history.inputs.len() as u64);
            for (name, check, damage) in DAMAGES {
                let mut damaged = history.clone();
                if damage(&mut damaged, &mut Rng::new(seed)) {
                    let (checks, _) = damaged.verify();
                    assert!(
                        checks.contains(&check),
                        "seed {seed}, {guarantee:?}: {name} is not caught by {check} but {checks:?}"
                    );
                    *caught.entry(name).or_insert(0) += 1;
                }
            }
        }
    }
    for (name, ..) in DAMAGES {
        let count = caught.get(name).copied().unwrap_or(0);
        assert!(count > 20, "{name} was tried {count} times only");
    }
}
