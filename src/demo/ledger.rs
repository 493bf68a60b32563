//! Who was sent and who was answered: events by input partition and offset, held against the
//! records of the output and dead-letter topics. Pure; its memory is bounded by the lag.

use std::collections::VecDeque;
use std::time::Duration;

/// An event that was sent and waits for its answer.
#[derive(Debug, Clone, Copy)]
struct Sent {
    event: usize,
    bytes: u64,
    at: Duration,
    answered: bool,
}

/// A partition's events from the first unanswered one on; all before it were answered.
#[derive(Debug, Default)]
struct Partition {
    first: i64,
    waiting: VecDeque<Sent>,
    lag_bytes: u64,
}

/// What a record in the output or dead-letter topic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The first answer to this event, which was sent at that time.
    First {
        /// The event's index in the sample.
        event: usize,
        /// When it was sent.
        sent: Duration,
    },
    /// The event was answered before.
    Duplicate,
    /// No such event was sent, or the answer is not to it.
    Wrong,
}

/// All that was sent, and how it was answered.
#[derive(Debug)]
pub(super) struct Ledger {
    partitions: Vec<Partition>,
    sent: u64,
    answered: u64,
    duplicated: u64,
    wrong: u64,
}

impl Ledger {
    /// Nothing sent to any of `partitions` partitions.
    pub(super) fn new(partitions: usize) -> Self {
        let partitions = (0..partitions).map(|_| Partition::default()).collect();
        Self {
            partitions,
            sent: 0,
            answered: 0,
            duplicated: 0,
            wrong: 0,
        }
    }

    /// Notes that the event with index `event` is about to be sent to `partition`, to which
    /// nobody else writes: its offset is the number of those before it.
    pub(super) fn send(&mut self, partition: usize, event: usize, bytes: u64, at: Duration) {
        let Some(partition) = self.partitions.get_mut(partition) else {
            return;
        };
        partition.waiting.push_back(Sent {
            event,
            bytes,
            at,
            answered: false,
        });
        partition.lag_bytes += bytes;
        self.sent += 1;
    }

    /// Notes an answer to the event at `offset` of `partition`; `fits` tells from the event's
    /// index whether the answer is to that event.
    pub(super) fn answer(
        &mut self,
        partition: i32,
        offset: i64,
        fits: impl FnOnce(usize) -> bool,
    ) -> Answer {
        let answer = self.judge(partition, offset, fits);
        match answer {
            Answer::First { .. } => self.answered += 1,
            Answer::Duplicate => self.duplicated += 1,
            Answer::Wrong => self.wrong += 1,
        }
        answer
    }

    fn judge(&mut self, partition: i32, offset: i64, fits: impl FnOnce(usize) -> bool) -> Answer {
        let found = usize::try_from(partition)
            .ok()
            .and_then(|n| self.partitions.get_mut(n));
        let Some(partition) = found.filter(|_| offset >= 0) else {
            return Answer::Wrong;
        };
        let Ok(index) = usize::try_from(offset - partition.first) else {
            return Answer::Duplicate;
        };
        let Some(sent) = partition.waiting.get_mut(index) else {
            return Answer::Wrong;
        };
        if !fits(sent.event) {
            return Answer::Wrong;
        }
        if sent.answered {
            return Answer::Duplicate;
        }
        sent.answered = true;
        partition.lag_bytes -= sent.bytes;
        let first = Answer::First {
            event: sent.event,
            sent: sent.at,
        };
        while partition.waiting.front().is_some_and(|sent| sent.answered) {
            partition.waiting.pop_front();
            partition.first += 1;
        }
        first
    }

    /// Notes a record that is no answer at all.
    pub(super) fn unreadable(&mut self) {
        self.wrong += 1;
    }

    /// Events sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Events sent to each partition.
    pub(super) fn sent_to(&self, partition: usize) -> i64 {
        self.partitions
            .get(partition)
            .map_or(0, |p| p.first + p.waiting.len() as i64)
    }

    /// Bytes of the events in `partition` that wait for their answer.
    pub(super) fn lag_bytes(&self, partition: usize) -> u64 {
        self.partitions.get(partition).map_or(0, |p| p.lag_bytes)
    }

    /// Events that have no answer: the lag while it runs, lost when it is over.
    pub(super) fn unanswered(&self) -> u64 {
        self.sent - self.answered
    }

    /// Answers beyond the first to the same event.
    pub(super) fn duplicated(&self) -> u64 {
        self.duplicated
    }

    /// Records that answer nothing that was sent.
    pub(super) fn wrong(&self) -> u64 {
        self.wrong
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const AT: Duration = Duration::from_millis(7);

    #[test]
    fn answers_are_told_apart() {
        let mut ledger = Ledger::new(2);
        for (partition, event) in [(0, 10), (0, 12), (1, 11)] {
            ledger.send(partition, event, 100, AT);
        }
        let mut answer = |partition, offset, event| {
            ledger.answer(partition, offset, |expected| expected == event)
        };
        assert_eq!(
            answer(0, 1, 12),
            Answer::First {
                event: 12,
                sent: AT
            }
        );
        assert_eq!(answer(0, 1, 12), Answer::Duplicate, "not yet forgotten");
        assert_eq!(
            answer(0, 0, 11),
            Answer::Wrong,
            "the answer to another event"
        );
        assert_eq!(
            answer(0, 0, 10),
            Answer::First {
                event: 10,
                sent: AT
            }
        );
        assert_eq!(answer(0, 0, 10), Answer::Duplicate, "forgotten");
        for (partition, offset) in [(0, 2), (0, -1), (2, 0), (-1, 0)] {
            assert_eq!(answer(partition, offset, 10), Answer::Wrong, "never sent");
        }
        assert_eq!((ledger.sent(), ledger.unanswered()), (3, 1));
        assert_eq!((ledger.duplicated(), ledger.wrong()), (2, 5));
        assert_eq!((ledger.lag_bytes(0), ledger.lag_bytes(1)), (0, 100));
        assert_eq!((ledger.sent_to(0), ledger.sent_to(1)), (2, 1));
    }

    proptest! {
        /// Held against a map from (partition, offset) to the number of answers.
        #[test]
        fn it_counts_as_a_map_would(
            sends in prop::collection::vec(0..3_usize, 0..40),
            answers in prop::collection::vec((0..3_i32, 0..20_i64), 0..120),
        ) {
            let mut ledger = Ledger::new(3);
            let mut counts = BTreeMap::new();
            let mut next = [0_i64; 3];
            for (event, partition) in sends.iter().enumerate() {
                ledger.send(*partition, event, 5, AT);
                counts.insert((*partition as i32, next[*partition]), 0_u64);
                next[*partition] += 1;
            }
            let mut wrong = 0;
            for (partition, offset) in answers {
                match counts.get_mut(&(partition, offset)) {
                    Some(count) => *count += 1,
                    None => wrong += 1,
                }
                ledger.answer(partition, offset, |_| true);
            }
            let lost = counts.values().filter(|count| **count == 0).count() as u64;
            let duplicated: u64 = counts.values().map(|count| count.saturating_sub(1)).sum();
            prop_assert_eq!(ledger.unanswered(), lost);
            prop_assert_eq!(ledger.duplicated(), duplicated);
            prop_assert_eq!(ledger.wrong(), wrong);
            prop_assert_eq!((0..3).map(|p| ledger.lag_bytes(p)).sum::<u64>(), lost * 5);
        }
    }
}
