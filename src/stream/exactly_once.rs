//! Ends a cycle by a transaction: predictions, dead letters and input offsets together, or none.

use std::time::{Duration, Instant};

use super::assignment::another_member;
use super::fence;
use super::session::{Exit, Session, Step};
use super::transaction::{Call, Next};
use super::{ProcessingGuarantee, StreamSettings};
use crate::failpoints::{broken, fail_point};
use crate::kafka::{ErrorKind, KafkaError, Producer, Source};
use crate::record::{NextOffset, TopicPartition};
use crate::telemetry::{CommitOutcome, KafkaClient, KafkaErrorKind, TransactionOutcome};

/// The least time a call is given, however near its deadline is.
const LEAST: Duration = Duration::from_millis(200);
/// Pause before a call is repeated.
const AGAIN: Duration = Duration::from_millis(10);
/// How long rewinding may take: it asks nobody.
const REWIND: Duration = Duration::from_secs(1);

impl StreamSettings {
    pub(super) fn exactly_once(&self) -> bool {
        self.processing_guarantee == ProcessingGuarantee::ExactlyOnce
    }
}

/// An offset to commit, with its metadata.
type Offsets = Vec<(TopicPartition, NextOffset, String)>;

impl Session<'_> {
    /// Begins a transaction where none is open. Called before anything is sent.
    pub(super) fn begin_transaction(&mut self) -> Step {
        if !self.settings.exactly_once() || self.transaction.is_open() {
            return Ok(());
        }
        self.call(Call::Begin, None, |producer, _, _| producer.begin())
    }

    /// Commits everything scored, all of whose records are acknowledged, with its offsets.
    pub(super) fn end_transaction(&mut self, deadline: Option<Instant>) -> Step {
        let commit = self.partitions.to_commit();
        if commit.is_empty() && !self.transaction.is_open() {
            // The cycle goes on with the next record: after a pause it is committed at once.
            return Ok(());
        }
        self.begin_transaction()?;
        let offsets: Offsets = commit
            .iter()
            .map(|one| {
                let metadata = fence::metadata(one.revision);
                (one.partition.clone(), one.next, metadata)
            })
            .collect();
        fail_point("before-send-offsets");
        if !offsets.is_empty() {
            let member = self.member_id.clone();
            self.call(Call::SendOffsets, deadline, |producer, source, timeout| {
                if source.is_another(&member) {
                    return Err(another_member());
                }
                producer.send_offsets(source, &offsets, timeout)
            })?;
        }
        fail_point("before-commit");
        let age = self.transaction.age(Instant::now()).unwrap_or_default();
        self.call(Call::Commit, deadline, |producer, _, timeout| {
            producer.commit(timeout)
        })?;
        fail_point("after-commit");
        self.partitions.commit_sent(commit, self.cycle_records);
        self.partitions.commit_answered(true);
        self.metrics.commits.inc(CommitOutcome::Committed);
        self.metrics.transactions.inc(TransactionOutcome::Committed);
        self.metrics.transaction_time.observe(age.as_secs_f64());
        self.count_settled();
        self.cycle_start = Instant::now();
        self.cycle_records = 0;
        Ok(())
    }

    /// Aborts what is open and forgets what was scored in it. Before anything else is read, every
    /// partition that is still owned is rewound.
    pub(super) fn abort(&mut self, reason: &str, deadline: Option<Instant>) -> Step {
        let stream = &self.settings.name;
        tracing::warn!(
            stream,
            "{reason}; aborting the transaction and reading again"
        );
        self.batch.clear();
        if self.transaction.is_open() {
            self.call(Call::Abort, deadline, |producer, _, timeout| {
                producer.abort(timeout)
            })?;
            self.metrics.transactions.inc(TransactionOutcome::Aborted);
        }
        self.forget_settled();
        self.partitions.rewind();
        self.rewind_due = true;
        self.cycle_start = Instant::now();
        self.cycle_records = 0;
        Ok(())
    }

    /// Ends what is open when the session ends for another reason: readers wait for it.
    pub(super) fn abort_at_exit(&mut self) {
        if self.transaction.is_open() {
            let soon = Instant::now() + LEAST;
            if let Err(exit) = self.abort("the session ends", Some(soon)) {
                tracing::debug!("the transaction is left to its time-out: {exit:?}");
            }
        }
    }

    /// Rewinds after an abort, or where the client does not know how far it has read.
    pub(super) fn rewind(&mut self) -> Step {
        if !std::mem::take(&mut self.rewind_due) {
            return Ok(());
        }
        let positions = self.partitions.positions();
        Ok(self.source.rewind(&positions, REWIND)?)
    }

    /// One call of the protocol, until it is done or something else follows.
    fn call(
        &mut self,
        call: Call,
        deadline: Option<Instant>,
        run: impl Fn(&Producer, &Source, Duration) -> Result<(), KafkaError>,
    ) -> Step {
        let limit = self.producer.transaction_timeout();
        let start = Instant::now();
        loop {
            let left = deadline.map_or(limit, |at| at.saturating_duration_since(Instant::now()));
            let timeout = left.clamp(LEAST, limit.max(LEAST));
            let ended = {
                let _watch = self.health.watch(call.name(), limit);
                run(&self.producer, self.source, timeout)
            };
            let kind = ended.as_ref().map_err(|error| error.kind).copied();
            let now = Instant::now();
            let spent = now.duration_since(start);
            let next = self.transaction.after(call, kind, spent, limit, now);
            let Err(error) = ended else { return Ok(()) };
            self.count_error(&error);
            match next {
                Next::GoOn => return Ok(()),
                Next::Again => {
                    tracing::debug!(stream = self.settings.name, "{error}; again");
                    std::thread::park_timeout(AGAIN);
                }
                Next::Abort => return Err(Exit::Abort(error.to_string())),
                Next::Rebuild { fenced } => {
                    if call == Call::Commit && broken("broken-reuse-producer") {
                        return self.reuse_producer(&run);
                    }
                    return Err(self.broken_off(&error, fenced));
                }
            }
        }
    }

    /// A failed delivery: nothing of the transaction can be committed.
    pub(super) fn delivery_failed(&mut self, error: &KafkaError) -> Exit {
        let limit = self.producer.transaction_timeout();
        let next = self
            .transaction
            .after_delivery(error.kind, limit, Instant::now());
        match next {
            Next::Rebuild { fenced } => self.broken_off(error, fenced),
            _ => Exit::Abort(error.to_string()),
        }
    }

    fn broken_off(&self, error: &KafkaError, fenced: bool) -> Exit {
        let outcome = match error.kind {
            ErrorKind::Fenced => TransactionOutcome::Fenced,
            _ => TransactionOutcome::Unknown,
        };
        self.metrics.transactions.inc(outcome);
        if fenced {
            Exit::Fenced(error.to_string())
        } else {
            Exit::Rebuild(error.to_string())
        }
    }

    fn count_error(&self, error: &KafkaError) {
        let kind = match error.kind {
            ErrorKind::Retriable | ErrorKind::TimedOut | ErrorKind::QueueFull => {
                KafkaErrorKind::Retriable
            }
            ErrorKind::Abortable => KafkaErrorKind::Abortable,
            _ => KafkaErrorKind::Fatal,
        };
        self.parts.metrics.kafka_error(KafkaClient::Producer, kind);
    }

    /// The deliberately broken variant `broken-reuse-producer`: takes a commit whose outcome is
    /// unknown for one that failed, and goes on with the same producer.
    fn reuse_producer(
        &mut self,
        commit: &impl Fn(&Producer, &Source, Duration) -> Result<(), KafkaError>,
    ) -> Step {
        let limit = self.producer.transaction_timeout();
        while let Err(error) = commit(&self.producer, self.source, limit) {
            if !error.is_retriable() {
                return Err(Exit::Rebuild(error.to_string()));
            }
        }
        self.transaction = super::transaction::Transaction::default();
        Err(Exit::Abort("broken on purpose".to_owned()))
    }
}
