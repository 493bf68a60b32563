//! Holds what came out against what went in. Pure: it is fed inputs and answers in any order
//! between topics, in offset order within a partition.
//!
//! An *answer* is a prediction or a dead letter. Checks have the numbers of `docs/reliability.md`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// What is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guarantee {
    ExactlyOnce,
    AtLeastOnce,
}

impl Guarantee {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly_once",
            Self::AtLeastOnce => "at_least_once",
        }
    }
}

/// Where an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outlet {
    Predictions,
    DeadLetters,
}

/// A committed input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    pub partition: usize,
    pub offset: i64,
    pub key: u32,
    pub seq: u64,
}

/// A prediction or a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub outlet: Outlet,
    pub partition: usize,
    pub offset: i64,
    /// Partition and offset of the input.
    pub of: (usize, i64),
    pub key: u32,
    pub seq: u64,
    /// The revision that a prediction carries.
    pub revision: Option<i64>,
    /// What is wrong with its bytes.
    pub wrong: Option<String>,
    /// Stands for all its bytes.
    pub fingerprint: u64,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub check: u8,
    pub guarantee: Guarantee,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, what, .. } = self;
        write!(f, "check {check}, {}: {what}", self.guarantee.name())
    }
}

/// Most violations of one check that are kept: the first ones tell.
const KEPT: usize = 20;

/// How often an offset was answered, and what its input is.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    input: Option<(u32, u64)>,
    /// Key and sequence number as the first answer has them.
    answered: Option<(u32, u64)>,
    answers: u32,
}

/// What a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub inputs: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub dead_letters: u64,
}

/// The verifier of one guarantee.
#[derive(Debug)]
pub struct Verifier {
    guarantee: Guarantee,
    slots: Vec<Vec<Slot>>,
    /// Highest sequence number of a key among first answers.
    order: HashMap<(Outlet, u32), u64>,
    revisions: Vec<Option<i64>>,
    /// Count and fingerprint of what a partition holds.
    held: BTreeMap<(Outlet, usize), (u64, u64)>,
    /// Highest input offset answered, and offset below which every committed input is answered.
    highest: Vec<i64>,
    settled: Vec<usize>,
    violations: Vec<Violation>,
    answers: u64,
    dead_letters: u64,
}

impl Verifier {
    pub fn new(guarantee: Guarantee, partitions: usize) -> Self {
        Self {
            guarantee,
            slots: vec![Vec::new(); partitions],
            order: HashMap::new(),
            revisions: vec![None; partitions],
            held: BTreeMap::new(),
            highest: vec![-1; partitions],
            settled: vec![0; partitions],
            violations: Vec::new(),
            answers: 0,
            dead_letters: 0,
        }
    }

    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    pub fn violate(&mut self, check: u8, what: String) {
        let known = self.violations.iter().filter(|one| one.check == check);
        if known.count() < KEPT {
            self.violations.push(Violation {
                check,
                guarantee: self.guarantee,
                what,
            });
        }
    }

    fn slot(&mut self, partition: usize, offset: i64) -> &mut Slot {
        let slots = &mut self.slots[partition];
        let index = usize::try_from(offset).expect("offsets are not negative");
        if slots.len() <= index {
            slots.resize(index + 1, Slot::default());
        }
        &mut slots[index]
    }

    /// Notes a committed input.
    pub fn input(&mut self, input: &Input) {
        let slot = self.slot(input.partition, input.offset);
        slot.input = Some((input.key, input.seq));
        let answered = slot.answered;
        self.compare(input.partition, input.offset, answered);
    }

    /// Notes an answer.
    pub fn answer(&mut self, answer: &Answer) {
        let (partition, offset) = answer.of;
        let place = format!(
            "{:?}-{} offset {} answers input {partition} offset {offset}",
            answer.outlet, answer.partition, answer.offset
        );
        if let Some(wrong) = &answer.wrong {
            self.violate(4, format!("{place}: {wrong}"));
        }
        if answer.partition != partition {
            self.violate(2, format!("{place}: another partition"));
        }
        self.answers += 1;
        self.dead_letters += u64::from(answer.outlet == Outlet::DeadLetters);
        let held = self
            .held
            .entry((answer.outlet, answer.partition))
            .or_default();
        held.0 += 1;
        held.1 = (held.1 ^ answer.fingerprint ^ answer.offset as u64)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(29);

        let slot = self.slot(partition, offset);
        slot.answers += 1;
        let first = slot.answers == 1;
        let pair = (answer.key, answer.seq);
        slot.answered.get_or_insert(pair);
        self.compare(partition, offset, Some(pair));
        if first {
            let highest = self.order.entry((answer.outlet, answer.key)).or_insert(0);
            let last = std::mem::replace(highest, answer.seq.max(*highest));
            if answer.seq <= last {
                let (key, seq) = pair;
                self.violate(
                    2,
                    format!("{place}: key {key} has number {seq} after {last}"),
                );
            }
        } else if self.guarantee == Guarantee::ExactlyOnce {
            self.violate(1, format!("{place}, which was answered before"));
        }
        if let Some(revision) = answer.revision {
            let last = self.revisions[answer.partition].replace(revision);
            if self.guarantee == Guarantee::ExactlyOnce && last.is_some_and(|last| revision < last)
            {
                let last = last.unwrap_or_default();
                self.violate(7, format!("{place}: revision {revision} after {last}"));
            }
        }
        self.highest[partition] = self.highest[partition].max(offset);
    }

    /// An answer must carry its input's key and number.
    fn compare(&mut self, partition: usize, offset: i64, answered: Option<(u32, u64)>) {
        let input = self.slot(partition, offset).input;
        if let (Some(input), Some(answered)) = (input, answered)
            && input != answered
        {
            self.violate(
                1,
                format!(
                    "input {partition} offset {offset} is key and number {input:?}, its answer \
                     says {answered:?}"
                ),
            );
        }
    }

    /// The highest input offset of a partition that was answered.
    pub fn highest_answered(&self, partition: usize) -> i64 {
        self.highest[partition]
    }

    /// The last committed input of a partition that was seen.
    pub fn last_input(&self, partition: usize) -> Option<i64> {
        let slots = &self.slots[partition];
        let last = slots.iter().rposition(|slot| slot.input.is_some());
        last.map(|index| index as i64)
    }

    /// The first committed input at or below `mark` that nothing answers.
    pub fn unanswered(&mut self, partition: usize, mark: i64) -> Option<i64> {
        let slots = &self.slots[partition];
        let settled = &mut self.settled[partition];
        while let Some(slot) = slots.get(*settled) {
            if *settled as i64 > mark {
                break;
            }
            if slot.input.is_some() && slot.answers == 0 {
                return Some(*settled as i64);
            }
            *settled += 1;
        }
        None
    }

    /// Number of answers that were seen.
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// Number and fingerprint of what each partition holds: two readers must agree.
    pub fn held(&self) -> &BTreeMap<(Outlet, usize), (u64, u64)> {
        &self.held
    }

    /// What holds once nothing comes any more. `committed` are the group's offsets.
    pub fn finish(&mut self, committed: &[Option<i64>]) -> Totals {
        let mut totals = Totals {
            dead_letters: self.dead_letters,
            ..Totals::default()
        };
        let mut below = 0_u64;
        for (partition, next) in committed.iter().enumerate() {
            let slots = self.slots[partition].clone();
            for (offset, slot) in slots.iter().enumerate() {
                self.settle(partition, offset, *slot, &mut totals);
                if slot.input.is_some() && next.is_some_and(|next| (offset as i64) < next) {
                    below += 1;
                }
            }
            let wanted = self.last_input(partition).map(|last| last + 1);
            // Where nothing came, the place to start from may be committed.
            if wanted.is_some() && *next != wanted {
                self.violate(
                    6,
                    format!("input {partition}: committed offset {next:?}, not {wanted:?}"),
                );
            }
        }
        if self.guarantee == Guarantee::ExactlyOnce && self.answers != below {
            let answers = self.answers;
            self.violate(
                3,
                format!("{answers} answers to {below} inputs below the committed offsets"),
            );
        }
        totals
    }

    fn settle(&mut self, partition: usize, offset: usize, slot: Slot, totals: &mut Totals) {
        let place = format!("input {partition} offset {offset}");
        match slot {
            Slot {
                input: None,
                answers: 1..,
                ..
            } => {
                self.violate(1, format!("{place} was never committed, and is answered"));
            }
            Slot {
                input: Some((key, seq)),
                answers: 0,
                ..
            } => {
                totals.lost += 1;
                self.violate(1, format!("{place} (key {key}, number {seq}) is lost"));
            }
            Slot { .. } => {}
        }
        totals.inputs += u64::from(slot.input.is_some());
        totals.duplicated += u64::from(slot.answers.saturating_sub(1));
    }
}
