//! Commit cycles: everything sent is acknowledged, then the offsets are committed. Where offsets are
//! committed by themselves the next cycle goes on meanwhile, so that no event waits for a commit. An
//! acknowledgement never passes a failure: the first failed delivery ends the session.

use std::time::{Duration, Instant};

use super::fence;
use super::partitions::ToCommit;
use super::session::{Exit, Session, Step};
use super::stall::LIMIT;
use crate::failpoints::fail_point;
use crate::kafka::KafkaError;
use crate::record::NextOffset;
use crate::telemetry::{CommitOutcome, KafkaClient, KafkaErrorKind, WorkerState};

/// A wait that is longer looks for events as well, so that the group knows that the worker lives.
const WAIT_BEFORE_POLL: Duration = Duration::from_secs(1);
/// One step of a wait.
const STEP: Duration = Duration::from_millis(1);
/// Before a refused commit is repeated.
const COMMIT_AGAIN: Duration = Duration::from_millis(20);
/// One poll while reading waits for commits.
const HELD_BACK_POLL: Duration = Duration::from_millis(50);

impl Session<'_> {
    /// Whether the cycle is to end now.
    pub(super) fn cycle_due(&self, now: Instant) -> bool {
        self.cycle_records >= self.settings.max_cycle_records
            || now.duration_since(self.cycle_start) >= self.settings.commit_interval
    }

    /// Time until the cycle ends by itself.
    pub(super) fn until_cycle_end(&self) -> Duration {
        self.settings
            .commit_interval
            .saturating_sub(self.cycle_start.elapsed())
    }

    /// Ends the cycle without waiting: it is committed by [`Self::settle_cycle`]. Only if the one before
    /// it is not acknowledged yet, that is waited for. A transaction is committed at once.
    pub(super) fn turn_cycle(&mut self) -> Step {
        if self.settings.exactly_once() {
            return self.end_cycle(None);
        }
        if self.partitions.is_closing() {
            self.wait(None, |session| session.producer.in_flight_before() == 0)?;
            self.settle_cycle()?;
        }
        self.cycle_start = Instant::now();
        self.partitions
            .close(std::mem::take(&mut self.cycle_records));
        self.producer.begin_span();
        self.settle_cycle()
    }

    /// Commits the cycle that has ended, if all of it is acknowledged.
    pub(super) fn settle_cycle(&mut self) -> Step {
        if !self.partitions.is_closing() || self.producer.in_flight_before() > 0 {
            return Ok(());
        }
        let (offsets, records) = self.partitions.closed();
        self.commit_offsets(offsets, records)
    }

    /// Ends the cycle: waits for every acknowledgement, then commits. With a deadline it also
    /// waits until the commit is stored, and gives up at the deadline without committing.
    pub(super) fn end_cycle(&mut self, deadline: Option<Instant>) -> Step {
        self.wait(deadline, |session| session.producer.in_flight() == 0)?;
        if self.settings.exactly_once() {
            return self.end_transaction(deadline);
        }
        self.cycle_start = Instant::now();
        let records = std::mem::take(&mut self.cycle_records);
        let (offsets, records) = self.partitions.due(records);
        self.commit_offsets(offsets, records)?;
        match deadline {
            Some(deadline) => self.await_commits(deadline),
            None => Ok(()),
        }
    }

    /// Waits until the commits under way are stored. One that is refused is repeated until the deadline: where
    /// several members leave at once, each begins a rebalance, in which the broker refuses the others' commits
    /// for a moment.
    fn await_commits(&mut self, deadline: Instant) -> Step {
        loop {
            self.wait(Some(deadline), |session| {
                session.partitions.commits_under_way() == 0
            })?;
            let Some(error) = &self.commit_error else {
                return Ok(());
            };
            if self.partitions.to_commit().is_empty() {
                return Ok(());
            }
            if !error.is_retriable() || Instant::now() + COMMIT_AGAIN >= deadline {
                let stream = &self.settings.name;
                tracing::warn!(stream, "{error}; what it covers will be read again");
                return Ok(());
            }
            let event = self.source.poll_event(COMMIT_AGAIN);
            self.on_event(event)?;
            let (offsets, records) = self.partitions.due(0);
            self.commit_offsets(offsets, records)?;
        }
    }

    /// Commits offsets up to which everything is acknowledged, for a cycle of `records`. Does not wait.
    fn commit_offsets(&mut self, commit: Vec<ToCommit>, records: usize) -> Step {
        if !commit.is_empty() {
            let offsets: Vec<(_, NextOffset, String)> = commit
                .iter()
                .map(|one| {
                    (
                        one.partition.clone(),
                        one.next,
                        fence::metadata(one.revision),
                    )
                })
                .collect();
            fail_point("before-send-offsets");
            fail_point("before-commit");
            self.source.commit(&offsets)?;
            self.partitions.commit_sent(commit, records);
            fail_point("after-commit");
        }
        Ok(())
    }

    /// While commits fail or are not answered, scoring goes on for one more cycle, and then waits:
    /// a crash must not repeat a whole backlog. Gives whether it waits.
    pub(super) fn hold_back(&mut self) -> Step<bool> {
        // The cycle that goes on, the one whose records are not acknowledged, and the one whose commit
        // is not answered.
        let settings = self.settings;
        let most = settings.max_cycle_records.max(settings.max_batch_size);
        let limit = most.saturating_mul(3);
        let over = self.cycle_records + self.partitions.unsettled() >= limit;
        if over != self.held_back {
            let why = over.then(|| "commits are not answered; reading waits for them".to_owned());
            if let Some(why) = &why {
                tracing::warn!(stream = self.settings.name, "{why}");
            }
            self.health.set(WorkerState::Running, why);
            self.held_back = over;
        }
        if over {
            self.serve_producer()?;
            self.settle_cycle()?;
            let event = self.source.poll_event(HELD_BACK_POLL);
            self.on_event(event)?;
            if self.partitions.commits_under_way() == 0 && self.cycle_due(Instant::now()) {
                self.end_cycle(None)?;
            }
        }
        Ok(over)
    }

    /// Leaves in order: what is sent is acknowledged and committed, what is not scored is left to
    /// the next owner.
    pub(super) fn leave(&mut self) -> Step {
        self.batch.clear();
        let deadline = Some(self.parts.leave_deadline());
        match self.end_cycle(deadline) {
            Err(Exit::Abort(reason)) => self.abort(&reason, deadline),
            ended => ended,
        }
    }

    /// Serves acknowledgements until `done`, without ever ceasing to poll.
    pub(super) fn wait(&mut self, deadline: Option<Instant>, done: impl Fn(&Self) -> bool) -> Step {
        let start = Instant::now();
        loop {
            self.serve_producer()?;
            if done(self) {
                break;
            }
            let now = Instant::now();
            if deadline.is_some_and(|at| now >= at) {
                let waited = now.duration_since(start);
                let (records, commits) = (
                    self.producer.in_flight(),
                    self.partitions.commits_under_way(),
                );
                return Err(Exit::Rebuild(format!(
                    "{records} records and {commits} commits were not acknowledged within {waited:.1?}; what \
                     was not acknowledged is not committed and will be read again"
                )));
            }
            if deadline.is_none() && self.parts.leave_overdue(now) {
                return Err(Exit::Shutdown);
            }
            self.health.beat();
            self.producer.poll(STEP);
            // A commit's answer comes out of the consumer's poll, whichever wait this is.
            if now.duration_since(start) >= WAIT_BEFORE_POLL
                || self.partitions.commits_under_way() > 0
            {
                let event = self.source.poll_event(Duration::ZERO);
                self.on_event(event)?;
            }
        }
        Ok(())
    }

    pub(super) fn on_committed(&mut self, result: Result<(), KafkaError>) {
        match result {
            Ok(()) => {
                self.commit_error = None;
                self.metrics.commits.inc(CommitOutcome::Committed);
                self.partitions.commit_answered(true);
                let failed = self.failed_commits.over();
                if failed > 1 {
                    let stream = &self.settings.name;
                    tracing::info!(stream, "committed again after {failed} commits that failed");
                }
            }
            Err(error) => {
                self.metrics.commits.inc(CommitOutcome::Failed);
                self.parts
                    .metrics
                    .kafka_error(KafkaClient::Consumer, KafkaErrorKind::Retriable);
                self.partitions.commit_answered(false);
                // In a rebalance every commit that is under way fails for the same reason.
                let stream = &self.settings.name;
                let text = format!("{error}; the next commit covers it");
                if self.failed_commits.note(&text) {
                    tracing::warn!(stream, "{text}");
                } else {
                    tracing::debug!(stream, "{text}");
                }
                self.commit_error = Some(error);
            }
        }
    }

    /// Takes acknowledgements. A failed delivery ends the session before anything is committed.
    pub(super) fn serve_producer(&mut self) -> Step {
        self.producer.poll(Duration::ZERO);
        if let Some(error) = self.producer.failure() {
            self.parts
                .metrics
                .kafka_error(KafkaClient::Producer, KafkaErrorKind::Fatal);
            return Err(if self.settings.exactly_once() {
                self.delivery_failed(&error)
            } else {
                Exit::Rebuild(error.to_string())
            });
        }
        self.producer.take_acknowledged(&mut self.tokens);
        let in_flight = self.producer.in_flight() as i64;
        if !self.settings.exactly_once() {
            // A transaction has a time-out of its own.
            let acknowledged = !self.tokens.is_empty();
            self.count_settled();
            let is_member = || self.source.is_member();
            if self
                .stall
                .after(acknowledged, in_flight > 0, Instant::now(), is_member)
            {
                return Err(Exit::Rebuild(format!(
                    "none of {in_flight} records was acknowledged within {LIMIT:?}, although the \
                     group's broker answers"
                )));
            }
        }
        self.metrics.in_flight.add(in_flight - self.in_flight_shown);
        self.in_flight_shown = in_flight;
        Ok(())
    }
}
