//! Answers rebalances: where each new partition starts, which are held back for their revision,
//! and what happens to those that go.

use std::time::{Duration, Instant, UNIX_EPOCH};

use super::partitions::HoldEnd;
use super::session::{Exit, Rebalance, Session, Step};
use super::{OnDataLoss, StartFrom, fence};
use crate::failpoints::{broken, fail_point};
use crate::kafka::{Committed, ErrorKind, KafkaError, Position, UNTIL_ENDED};
use crate::record::{NextOffset, TopicPartition};
use crate::telemetry::HoldOutcome;

/// One attempt to look offsets up. The worker polls between attempts.
const LOOK_UP: Duration = Duration::from_millis(900);

/// When looking up has failed for so long, a new client is to try; with `exactly_once` not before a transaction
/// that nobody ends, which holds committed offsets back, is ended by the broker.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(15);

/// Where a partition starts, and from which revision on.
struct Start {
    partition: TopicPartition,
    committed: Option<NextOffset>,
    at: NextOffset,
    revision: Option<i64>,
    /// The partition's log, where the committed offset lies outside of it.
    lost: Option<(NextOffset, NextOffset)>,
    /// Whether it is the end of the log, which is another place when it is looked up again.
    moves: bool,
}

/// The group has taken this worker in as another member since it last took partitions over, and it still holds
/// some. A static member that was away for longer than its session, in the midst of a rebalance, is told
/// nothing of it, and what it holds may have been another's meanwhile.
pub(super) fn another_member() -> KafkaError {
    KafkaError::new(
        ErrorKind::Fatal,
        "going on with partitions",
        "the group has taken this worker in anew: what it held may have been another's meanwhile",
    )
}

impl Session<'_> {
    /// Answers the rebalances that wait, oldest first. One without its answer stays, and
    /// gets it when the session ends.
    pub(super) fn answer_rebalances(&mut self) -> Step {
        while let Some(rebalance) = self.rebalances.pop_front() {
            let answered = match &rebalance {
                Rebalance::Assigned(partitions) => self.answer_assigned(partitions),
                Rebalance::Revoked(partitions) => self.answer_revoked(partitions).map(|()| true),
            };
            if !matches!(answered, Ok(true)) {
                self.rebalances.push_front(rebalance);
                return answered.map(drop);
            }
        }
        Ok(())
    }

    /// Takes partitions over; `false` where that has to be tried again.
    fn answer_assigned(&mut self, partitions: &[TopicPartition]) -> Step<bool> {
        match self.look_up(partitions) {
            Ok(starts) if starts.iter().any(|start| start.moves) => {
                self.pin(&starts)?;
                Ok(false)
            }
            Ok(starts) => {
                self.look_up_since = None;
                self.take_over(starts)?;
                Ok(true)
            }
            Err(error) => {
                self.not_looked_up(error)?;
                Ok(false)
            }
        }
    }

    /// The group waits for the answer; the next turn tries again.
    fn not_looked_up(&mut self, error: KafkaError) -> Step {
        let since = *self.look_up_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.look_up_limit() {
            return Err(error.into());
        }
        self.trouble(&error);
        Ok(())
    }

    /// When looking up has failed for so long, a new client is to try.
    fn look_up_limit(&self) -> Duration {
        if self.settings.exactly_once() {
            LOOK_UP_LIMIT.max(self.producer.transaction_timeout() + UNTIL_ENDED)
        } else {
            LOOK_UP_LIMIT
        }
    }

    /// Commits the starts that are ends of logs, before anything is read: what is read from there and not
    /// answered, because the output is refused or the process dies, would be passed over by the next look. That
    /// finds them committed.
    fn pin(&mut self, starts: &[Start]) -> Step {
        self.judge_losses(starts)?;
        let moving = starts.iter().filter(|start| start.moves);
        let offsets: Vec<_> = moving
            .map(|start| {
                let metadata = fence::metadata(start.revision.unwrap_or(-1));
                (start.partition.clone(), start.at, metadata)
            })
            .collect();
        match self.source.commit(&offsets) {
            Ok(()) => {
                self.partitions.commit_sent(Vec::new(), 0);
                // Answers come in order, and a transaction counts on that none is awaited.
                self.wait(Some(Instant::now() + LOOK_UP_LIMIT), |session| {
                    session.partitions.commits_under_way() == 0
                })?;
                match self.commit_error.clone() {
                    Some(refused) => self.not_looked_up(refused),
                    None => Ok(()),
                }
            }
            Err(error) => self.not_looked_up(error),
        }
    }

    /// Gives partitions up. Everything scored is committed before another member reads on. What was
    /// lost was forgotten when it was noticed, so it is not in this commit.
    fn answer_revoked(&mut self, partitions: &[TopicPartition]) -> Step {
        let deadline = Instant::now() + self.parts.revoke_timeout;
        fail_point("in-revoke");
        if broken("broken-ignore-revoke") {
            return Ok(self.source.give_up(partitions)?);
        }
        match self.end_cycle(Some(deadline)) {
            Err(Exit::Abort(reason)) => self.abort(&reason, Some(deadline))?,
            ended => ended?,
        }
        self.forget(partitions);
        self.source.give_up(partitions)?;
        tracing::info!(stream = self.settings.name, "gave up {}", list(partitions));
        Ok(())
    }

    /// Where each of `partitions` starts.
    fn look_up(&self, partitions: &[TopicPartition]) -> Result<Vec<Start>, KafkaError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let committed = self.source.committed(partitions, LOOK_UP)?;
        committed
            .into_iter()
            .map(|committed| self.start_of(committed))
            .collect()
    }

    fn start_of(&self, committed: Committed) -> Result<Start, KafkaError> {
        let Committed {
            partition,
            next,
            metadata,
        } = committed;
        // Asked for now, so that a start at the end is one place and can be committed, and so
        // that a loss is known before anything is fetched.
        let (first, end) = self.source.bounds(&partition, LOOK_UP)?;
        let lost = next.filter(|next| *next < first || *next > end);
        let moves = match (next, lost) {
            (Some(_), None) => false,
            (Some(_), Some(_)) => self.settings.on_data_loss == OnDataLoss::Latest,
            (None, _) => self.settings.start_from == StartFrom::Latest,
        };
        let at = match (next, lost, self.settings.on_data_loss) {
            (Some(_), Some(_), OnDataLoss::Latest) => end,
            (Some(_), Some(_), OnDataLoss::Earliest | OnDataLoss::Fail) => first,
            (Some(next), None, _) => next,
            (None, ..) => match self.settings.start_from {
                StartFrom::Earliest => first,
                StartFrom::Latest => end,
                StartFrom::Time(time) => {
                    let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default();
                    let millis = millis.as_millis() as i64;
                    self.source
                        .offset_at(&partition, millis, LOOK_UP)?
                        .unwrap_or(end)
                }
            },
        };
        Ok(Start {
            revision: next.and_then(|_| fence::revision(&metadata)),
            committed: next.filter(|_| lost.is_none()),
            lost: lost.map(|_| (first, end)),
            moves,
            at,
            partition,
        })
    }

    /// What `on_data_loss` says to a committed offset outside the log.
    fn judge_losses(&self, starts: &[Start]) -> Step {
        for start in starts {
            let Some((first, end)) = start.lost else {
                continue;
            };
            let loss = format!(
                "the committed offset of {} lies outside its log ({} to {}): records were \
                 deleted before they were scored",
                start.partition, first.0, end.0
            );
            if self.settings.on_data_loss == OnDataLoss::Fail {
                return Err(Exit::Failed(format!(
                    "{loss}. Set streams.{}.on_data_loss to \"earliest\" or \"latest\" to go on \
                     without them",
                    self.settings.name
                )));
            }
            tracing::error!(
                stream = self.settings.name,
                "{loss}; going on at {}",
                start.at.0
            );
        }
        Ok(())
    }

    fn take_over(&mut self, starts: Vec<Start>) -> Step {
        self.judge_losses(&starts)?;
        if self.partitions.count() > 0 && self.source.is_another(&self.member_id) {
            return Err(another_member().into());
        }
        self.member_id = self.source.member_id();
        let positions: Vec<(TopicPartition, Position)> = starts
            .iter()
            .map(|s| (s.partition.clone(), Position::At(s.at)))
            .collect();
        self.source.assign(&positions)?;
        let settled = self.settled_revision();
        let now = Instant::now();
        let mut held = Vec::new();
        for start in starts {
            let revision = start.revision.unwrap_or(-1);
            let Start {
                partition,
                committed,
                at,
                ..
            } = start;
            self.partitions
                .add(partition.clone(), committed, Some(at), revision);
            let gauge = self.metrics.lag(&partition.topic, partition.partition);
            self.lag.push((partition.clone(), gauge));
            if revision > settled {
                self.partitions.hold(&partition, revision, now);
                tracing::info!(
                    stream = self.settings.name,
                    "holding {partition} back until revision {revision} of model {} is here",
                    self.settings.model
                );
                held.push(partition);
            }
        }
        let names: Vec<TopicPartition> = positions.into_iter().map(|(p, _)| p).collect();
        // librdkafka keeps the pause of a partition that was taken away while it was held.
        let go: Vec<_> = names
            .iter()
            .filter(|p| !held.contains(p))
            .cloned()
            .collect();
        self.source.resume(&go)?;
        if !held.is_empty() {
            self.metrics.held_partitions.add(held.len() as i64);
            self.source.pause(&held)?;
        }
        self.health.set_partitions(self.partitions.count());
        self.clear_trouble();
        if !names.is_empty() {
            tracing::info!(stream = self.settings.name, "took over {}", list(&names));
        }
        Ok(())
    }

    fn settled_revision(&self) -> i64 {
        self.serving
            .load()
            .get(&self.settings.model)
            .map_or(-1, |state| state.settled_revision)
    }

    /// Lets partitions go on whose revision is here, or that were held back long enough.
    pub(super) fn end_holds(&mut self) -> Step {
        if self.partitions.held() == 0 {
            return Ok(());
        }
        let limit = self.settings.revision_hold;
        let ended = self
            .partitions
            .end_holds(self.settled_revision(), Instant::now(), limit);
        if ended.is_empty() {
            return Ok(());
        }
        for (partition, end) in &ended {
            self.metrics.held_partitions.dec();
            match end {
                HoldEnd::Reached => self.metrics.revision_holds.inc(HoldOutcome::Reached),
                HoldEnd::Expired => {
                    self.metrics.revision_holds.inc(HoldOutcome::Expired);
                    tracing::warn!(
                        stream = self.settings.name,
                        "{partition} goes on with an older revision: the one in its commit did \
                         not arrive within {limit:?}"
                    );
                }
            }
        }
        let partitions: Vec<TopicPartition> = ended.into_iter().map(|(p, _)| p).collect();
        Ok(self.source.resume(&partitions)?)
    }
}

/// Partitions, for people.
pub(super) fn list(partitions: &[TopicPartition]) -> String {
    partitions
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
