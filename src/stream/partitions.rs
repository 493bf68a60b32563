//! The partitions that a worker owns: how far each is read, scored and committed. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::record::{NextOffset, RecordOffset, TopicPartition};

/// One owned partition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    /// What the group holds, as far as is known.
    committed: Option<NextOffset>,
    /// Where reading started without a commit.
    start: Option<NextOffset>,
    /// What may be committed once everything sent is acknowledged.
    next: Option<NextOffset>,
    /// Newest revision that scored a record of this partition.
    revision: i64,
    hold: Option<Hold>,
}

/// Why a partition is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hold {
    revision: i64,
    since: Instant,
}

/// How a hold ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HoldEnd {
    /// The revision is reached or refused.
    Reached,
    /// It took longer than `revision_hold`.
    Expired,
}

/// An offset to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ToCommit {
    pub(super) partition: TopicPartition,
    pub(super) next: NextOffset,
    pub(super) revision: i64,
}

/// All partitions of one worker.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    owned: BTreeMap<TopicPartition, Owned>,
    /// The cycle that has ended and whose records are not all acknowledged.
    closing: Option<UnderWay>,
    /// Commits under way, oldest first: answers come in order.
    under_way: VecDeque<UnderWay>,
    /// Records of commits that failed.
    failed: usize,
}

/// A commit that is not answered, or not yet sent.
#[derive(Debug)]
struct UnderWay {
    offsets: Vec<ToCommit>,
    /// Records that it settles.
    records: usize,
}

impl Partitions {
    /// Takes `partition` over. `committed` is what the group holds; `start` is where reading
    /// starts where that is nothing, and is committed with the next cycle, so that a start at the
    /// end stays where it is.
    pub(super) fn add(
        &mut self,
        partition: TopicPartition,
        committed: Option<NextOffset>,
        start: Option<NextOffset>,
        revision: i64,
    ) {
        let owned = Owned {
            committed,
            start,
            next: committed.or(start),
            revision,
            hold: None,
        };
        self.owned.insert(partition, owned);
    }

    /// Holds `partition` back until `revision` is settled.
    pub(super) fn hold(&mut self, partition: &TopicPartition, revision: i64, now: Instant) {
        if let Some(owned) = self.owned.get_mut(partition) {
            owned.hold = Some(Hold {
                revision,
                since: now,
            });
        }
    }

    /// Partitions whose hold ends: `settled` has reached their revision, or it took longer than
    /// `limit`. They are no longer held.
    pub(super) fn end_holds(
        &mut self,
        settled: i64,
        now: Instant,
        limit: Duration,
    ) -> Vec<(TopicPartition, HoldEnd)> {
        let mut ended = Vec::new();
        for (partition, owned) in &mut self.owned {
            let Some(hold) = owned.hold else { continue };
            let end = if settled >= hold.revision {
                HoldEnd::Reached
            } else if now.duration_since(hold.since) >= limit {
                HoldEnd::Expired
            } else {
                continue;
            };
            owned.hold = None;
            ended.push((partition.clone(), end));
        }
        ended
    }

    /// Whether any partition is held back.
    pub(super) fn held(&self) -> usize {
        self.owned
            .values()
            .filter(|owned| owned.hold.is_some())
            .count()
    }

    /// Number of owned partitions.
    pub(super) fn count(&self) -> usize {
        self.owned.len()
    }

    /// The next offset of `partition` that is to be scored, where it is known.
    pub(super) fn next(&self, partition: &TopicPartition) -> Option<NextOffset> {
        self.owned.get(partition).and_then(|owned| owned.next)
    }

    /// [`Self::next`] of partition `number` of `topic`.
    pub(super) fn next_of(&self, topic: &str, number: i32) -> Option<NextOffset> {
        // A worker owns few partitions: a walk is cheaper than making a key.
        let mut all = self.owned.iter();
        let found = all.find(|(p, _)| p.partition == number && *p.topic == *topic);
        found.and_then(|(_, owned)| owned.next)
    }

    /// Gives partitions up; gives the number that were held back.
    pub(super) fn remove(&mut self, partitions: &[TopicPartition]) -> usize {
        if let Some(closing) = &mut self.closing {
            let kept = |one: &ToCommit| !partitions.contains(&one.partition);
            closing.offsets.retain(kept);
        }
        let removed = partitions
            .iter()
            .filter_map(|partition| self.owned.remove(partition));
        removed.filter(|owned| owned.hold.is_some()).count()
    }

    /// Notes that the record at `offset` is done: its prediction or dead letter was sent, or it
    /// was skipped. `revision` scored it.
    pub(super) fn done(&mut self, topic: &str, number: i32, offset: RecordOffset, revision: i64) {
        let mut all = self.owned.iter_mut();
        let found = all.find(|(p, _)| p.partition == number && *p.topic == *topic);
        if let Some((_, owned)) = found {
            owned.next = owned.next.max(Some(offset.next()));
            owned.revision = owned.revision.max(revision);
        }
    }

    /// What is done and neither committed nor about to be.
    pub(super) fn to_commit(&self) -> Vec<ToCommit> {
        self.owned
            .iter()
            .filter_map(|(partition, owned)| {
                let next = owned.next?;
                let known = self.sent(partition).or(owned.committed);
                (known < Some(next)).then(|| ToCommit {
                    partition: partition.clone(),
                    next,
                    revision: owned.revision,
                })
            })
            .collect()
    }

    /// Ends a cycle of `records`: [`Self::closed`] gives what was done until now, once it is
    /// acknowledged.
    pub(super) fn close(&mut self, records: usize) {
        debug_assert!(self.closing.is_none(), "one cycle at a time");
        let (offsets, records) = self.due(records);
        self.closing = Some(UnderWay { offsets, records });
    }

    /// What a commit now is to hold, after `records` of the cycle that goes on: everything done, what a
    /// cycle that has ended or a commit that failed has left included. Gives all records that it settles.
    pub(super) fn due(&mut self, records: usize) -> (Vec<ToCommit>, usize) {
        let (_, ended) = self.closed();
        let failed = std::mem::take(&mut self.failed);
        (self.to_commit(), records + ended + failed)
    }

    /// Whether a cycle has ended and is not committed.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// The cycle that has ended, to be committed: its offsets, of partitions that are still owned, and
    /// its records.
    pub(super) fn closed(&mut self) -> (Vec<ToCommit>, usize) {
        let closing = self.closing.take();
        closing.map_or_else(Default::default, |cycle| (cycle.offsets, cycle.records))
    }

    /// Newest offset of `partition` in a commit under way.
    fn sent(&self, partition: &TopicPartition) -> Option<NextOffset> {
        let commits = self.under_way.iter().flat_map(|commit| &commit.offsets);
        commits
            .filter(|commit| commit.partition == *partition)
            .map(|commit| commit.next)
            .max()
    }

    /// Notes that `offsets` are under way, which settle so many `records`.
    pub(super) fn commit_sent(&mut self, offsets: Vec<ToCommit>, records: usize) {
        self.under_way.push_back(UnderWay { offsets, records });
    }

    /// Records of ended cycles whose commits are not sent, not answered, or failed: a crash repeats
    /// them.
    pub(super) fn unsettled(&self) -> usize {
        let ended = self.closing.iter().chain(&self.under_way);
        let under_way = ended.map(|commit| commit.records);
        self.failed + under_way.sum::<usize>()
    }

    /// Notes the answer to the oldest commit under way. A failed one is due again.
    pub(super) fn commit_answered(&mut self, stored: bool) {
        let Some(commit) = self.under_way.pop_front() else {
            return;
        };
        if !stored {
            self.failed += commit.records;
            return;
        }
        for done in commit.offsets {
            if let Some(owned) = self.owned.get_mut(&done.partition) {
                owned.committed = owned.committed.max(Some(done.next));
            }
        }
    }

    /// Takes back what is not committed: it is to be read again.
    pub(super) fn rewind(&mut self) {
        self.closing = None;
        for owned in self.owned.values_mut() {
            owned.next = owned.committed.or(owned.start);
        }
    }

    /// Where reading goes on, for the partitions that are not held back.
    pub(super) fn positions(&self) -> Vec<(TopicPartition, NextOffset)> {
        let running = self.owned.iter().filter(|(_, owned)| owned.hold.is_none());
        running
            .filter_map(|(partition, owned)| Some((partition.clone(), owned.next?)))
            .collect()
    }

    /// Number of commits under way.
    pub(super) fn commits_under_way(&self) -> usize {
        self.under_way.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tp(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    #[test]
    fn a_start_without_a_commit_is_committed_and_a_failed_commit_is_due_again() {
        let mut partitions = Partitions::default();
        partitions.add(tp(0), None, Some(NextOffset(7)), -1);
        let (commit, records) = partitions.due(7);
        assert_eq!((commit[0].next, records), (NextOffset(7), 7));
        partitions.commit_sent(commit.clone(), records);
        assert_eq!(partitions.unsettled(), 7);
        // It does not hold what is under way, and so does not settle it.
        partitions.close(1);
        assert_eq!(partitions.unsettled(), 8);
        partitions.commit_answered(false);
        assert_eq!(partitions.closed(), (Vec::new(), 1));
        assert_eq!(partitions.to_commit(), commit);
        assert_eq!(partitions.unsettled(), 7);
        partitions.close(1);
        let closed = partitions.closed();
        assert_eq!(closed, (commit, 8));
        partitions.commit_sent(closed.0, closed.1);
        assert_eq!(partitions.unsettled(), 8);
        partitions.commit_answered(true);
        assert_eq!(partitions.unsettled(), 0);
        assert!(partitions.to_commit().is_empty());
    }

    #[test]
    fn holds_end_when_reached_or_after_their_time() {
        let start = Instant::now();
        let mut partitions = Partitions::default();
        partitions.add(tp(0), Some(NextOffset(1)), None, 5);
        partitions.add(tp(1), Some(NextOffset(1)), None, 9);
        partitions.hold(&tp(0), 5, start);
        partitions.hold(&tp(1), 9, start);
        let limit = Duration::from_secs(30);
        assert!(partitions.end_holds(4, start, limit).is_empty());
        assert_eq!(
            partitions.end_holds(5, start, limit),
            [(tp(0), HoldEnd::Reached)]
        );
        assert_eq!(partitions.positions(), [(tp(0), NextOffset(1))]);
        let later = start + limit;
        assert_eq!(
            partitions.end_holds(5, later, limit),
            [(tp(1), HoldEnd::Expired)]
        );
        assert_eq!(partitions.held(), 0);
    }

    #[test]
    fn a_rewind_goes_back_to_what_is_committed() {
        let mut partitions = Partitions::default();
        partitions.add(tp(0), Some(NextOffset(5)), None, 1);
        partitions.add(tp(1), None, Some(NextOffset(9)), 1);
        partitions.add(tp(2), Some(NextOffset(1)), None, 1);
        partitions.hold(&tp(2), 7, Instant::now());
        for offset in 5..20 {
            partitions.done("t", 0, RecordOffset(offset), 1);
            partitions.done("t", 1, RecordOffset(offset + 4), 1);
        }
        let commit = partitions.to_commit();
        partitions.commit_sent(commit, 30);
        partitions.commit_answered(true);
        partitions.done("t", 0, RecordOffset(20), 1);
        partitions.rewind();
        // What is held back has not been read from.
        let positions = partitions.positions();
        assert_eq!(
            positions,
            [(tp(0), NextOffset(20)), (tp(1), NextOffset(24))]
        );
        assert!(partitions.to_commit().is_empty());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add(i32),
        Remove(i32),
        Done(i32),
        Close,
        Closed,
        Commit,
        Answer(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => (0..3).prop_map(Step::Add),
            1 => (0..3).prop_map(Step::Remove),
            6 => (0..3).prop_map(Step::Done),
            2 => Just(Step::Close),
            2 => Just(Step::Closed),
            2 => Just(Step::Commit),
            2 => any::<bool>().prop_map(Step::Answer),
        ]
    }

    proptest! {
        /// A commit never passes what is done, that of a cycle never what was done when it ended, and
        /// holds nothing that was given up since; none goes back while a partition stays owned, and
        /// after a last answered commit everything done is committed.
        #[test]
        fn commits_follow_what_is_done(steps in prop::collection::vec(step(), 0..200)) {
            let mut partitions = Partitions::default();
            let mut done: BTreeMap<i32, i64> = BTreeMap::new();
            let mut sent: BTreeMap<i32, i64> = BTreeMap::new();
            let mut at_end: BTreeMap<i32, i64> = BTreeMap::new();
            let commit = |partitions: &mut Partitions, sent: &mut BTreeMap<i32, i64>,
                          done: &BTreeMap<i32, i64>, check: bool| {
                let (commit, records) = partitions.due(1);
                for one in &commit {
                    let p = one.partition.partition;
                    assert_eq!(one.next.0, done[&p]);
                    if check {
                        assert!(sent.get(&p).is_none_or(|s| *s < one.next.0));
                    }
                    sent.insert(p, one.next.0);
                }
                if !commit.is_empty() {
                    partitions.commit_sent(commit, records);
                }
            };
            let mut failed = false;
            for step in steps {
                match step {
                    Step::Add(p) if !done.contains_key(&p) => {
                        partitions.add(tp(p), Some(NextOffset(0)), None, 0);
                        done.insert(p, 0);
                        sent.remove(&p);
                    }
                    Step::Remove(p) => {
                        partitions.remove(&[tp(p)]);
                        done.remove(&p);
                        at_end.remove(&p);
                        failed = true; // answers of the old ownership may still come
                    }
                    Step::Done(p) if done.contains_key(&p) => {
                        let next = done[&p] + 1;
                        partitions.done("t", p, RecordOffset(next - 1), 1);
                        done.insert(p, next);
                    }
                    Step::Close if !partitions.is_closing() => {
                        partitions.close(1);
                        at_end.clone_from(&done);
                        prop_assert!(partitions.unsettled() > 0);
                    }
                    Step::Closed if partitions.is_closing() => {
                        let (offsets, records) = partitions.closed();
                        prop_assert!(records >= 1);
                        for one in &offsets {
                            let p = one.partition.partition;
                            prop_assert_eq!(Some(&one.next.0), at_end.get(&p));
                            prop_assert!(failed || sent.get(&p).is_none_or(|s| *s < one.next.0));
                            sent.insert(p, one.next.0);
                        }
                        if !offsets.is_empty() {
                            partitions.commit_sent(offsets, records);
                        }
                    }
                    Step::Commit => commit(&mut partitions, &mut sent, &done, !failed),
                    Step::Answer(stored) => {
                        failed |= !stored;
                        partitions.commit_answered(stored);
                    }
                    _ => {}
                }
            }
            while partitions.commits_under_way() > 0 {
                partitions.commit_answered(false);
            }
            commit(&mut partitions, &mut sent, &done, false);
            while partitions.commits_under_way() > 0 {
                partitions.commit_answered(true);
            }
            prop_assert!(partitions.to_commit().is_empty());
        }
    }
}
