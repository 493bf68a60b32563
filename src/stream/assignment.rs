//! Answers rebalances: where each new partition starts, which are held back for their revision,
//! and what happens to those that go.

use std::time::{Duration, Instant, UNIX_EPOCH};

use super::partitions::HoldEnd;
use super::session::{Rebalance, Session, Step};
use super::{OnDataLoss, StartFrom, fence};
use crate::kafka::{Committed, KafkaError, Position};
use crate::record::{NextOffset, TopicPartition};
use crate::telemetry::{HoldOutcome, WorkerState};

/// One attempt to look offsets up. The worker polls between attempts.
const LOOK_UP: Duration = Duration::from_millis(900);

/// Where a partition starts, and from which revision on.
struct Start {
    partition: TopicPartition,
    committed: Option<NextOffset>,
    at: NextOffset,
    revision: Option<i64>,
}

impl Session<'_> {
    /// Answers the rebalances that wait, oldest first.
    pub(super) fn answer_rebalances(&mut self) -> Step {
        while let Some(rebalance) = self.rebalances.pop_front() {
            match rebalance {
                Rebalance::Assigned(partitions) => match self.look_up(&partitions) {
                    Ok(starts) => self.take_over(starts)?,
                    Err(error) => {
                        // The group waits for the answer; the next turn tries again.
                        tracing::warn!(stream = self.settings.name, "{error}");
                        self.health
                            .set(WorkerState::Running, Some(error.to_string()));
                        self.rebalances.push_front(Rebalance::Assigned(partitions));
                        return Ok(());
                    }
                },
                Rebalance::Revoked(partitions) => {
                    // Everything scored is committed before another member reads on. What was
                    // lost was forgotten when it was noticed, so it is not in this commit.
                    let deadline = Instant::now() + self.parts.revoke_timeout;
                    self.end_cycle(Some(deadline))?;
                    self.forget(&partitions);
                    self.source.give_up(&partitions)?;
                    tracing::info!(stream = self.settings.name, "gave up {}", list(&partitions));
                }
            }
        }
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
        let at = if let Some(next) = next {
            next
        } else {
            // Asked for now, so that a start at the end is one place and can be committed.
            let (first, end) = self.source.bounds(&partition, LOOK_UP)?;
            match self.settings.start_from {
                StartFrom::Earliest => first,
                StartFrom::Latest => end,
                StartFrom::Time(time) => {
                    let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default();
                    let millis = millis.as_millis() as i64;
                    self.source
                        .offset_at(&partition, millis, LOOK_UP)?
                        .unwrap_or(end)
                }
            }
        };
        let revision = next.and_then(|_| fence::revision(&metadata));
        Ok(Start {
            partition,
            committed: next,
            at,
            revision,
        })
    }

    fn take_over(&mut self, starts: Vec<Start>) -> Step {
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
        // librdkafka keeps the pause of a partition that was taken away during a wait.
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
        self.health.set(WorkerState::Running, None);
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

    /// Moves partitions whose position lies outside their log to where `on_data_loss` says.
    pub(super) fn reposition_lost(&mut self) -> Step {
        let positions: Vec<(TopicPartition, NextOffset)> = self
            .partitions
            .positions()
            .filter_map(|(partition, next)| Some((partition.clone(), next?)))
            .collect();
        for (partition, next) in positions {
            let (first, end) = self.source.bounds(&partition, LOOK_UP)?;
            if next >= first && next <= end {
                continue;
            }
            let at = match self.settings.on_data_loss {
                OnDataLoss::Latest => end,
                OnDataLoss::Earliest | OnDataLoss::Fail => first,
            };
            tracing::error!(
                stream = self.settings.name,
                "offset {} of {partition} is outside its log ({} to {}): records were deleted \
                 before they were scored; going on at {}",
                next.0,
                first.0,
                end.0,
                at.0
            );
            self.partitions.moved(&partition, at);
            self.source.seek(&partition, Position::At(at), LOOK_UP)?;
        }
        Ok(())
    }
}

fn list(partitions: &[TopicPartition]) -> String {
    partitions
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
