//! Forms batches of what has been polled.

use std::time::{Duration, Instant};

use super::session::{Session, Step};
use crate::kafka::Polled;

/// Longest time one poll waits while something is about to change.
const POLL_WAIT: Duration = Duration::from_millis(50);
/// The same while nothing is: also how soon an idle worker notices a shutdown. Hundreds of idle workers
/// that look more often are a load.
const POLL_WAIT_IDLE: Duration = Duration::from_millis(250);
/// While acknowledgements are outstanding the producer is served this often.
const POLL_WAIT_IN_FLIGHT: Duration = Duration::from_millis(2);

impl Session<'_> {
    /// Takes what is there, up to the batch limit, and waits at most `max_queue_delay` for more.
    pub(super) fn fill_batch(&mut self) -> Step {
        debug_assert!(self.batch.is_empty());
        let limit = self
            .pace
            .rows(self.settings.max_batch_size, self.settings.max_batch_time);
        let mut deadline: Option<Instant> = None;
        while self.batch.len() < limit {
            let wait = match deadline {
                None if self.producer.in_flight() > 0 => POLL_WAIT_IN_FLIGHT,
                None if self.cycle_records == 0 => self.poll_wait(),
                None => self.poll_wait().min(self.until_cycle_end()),
                Some(_) if self.settings.max_queue_delay.is_zero() => Duration::ZERO,
                Some(at) => at
                    .saturating_duration_since(Instant::now())
                    .min(POLL_WAIT_IDLE),
            };
            let room = limit - self.batch.len();
            match self.source.poll(wait, room, &mut self.batch) {
                Polled::Records => {
                    self.clear_trouble();
                    deadline.get_or_insert_with(|| Instant::now() + self.queue_delay());
                    if self.is_heavy() {
                        break;
                    }
                }
                Polled::Idle if self.parts.stopping() => break,
                Polled::Idle if deadline.is_some_and(|at| Instant::now() < at) => {}
                Polled::Idle => break,
                event => {
                    self.on_event(event)?;
                    // A rebalance is answered, and a rewind done, before anything else is read.
                    if !self.rebalances.is_empty() || self.rewind_due {
                        break;
                    }
                }
            }
        }
        self.drop_done();
        self.metrics.records_in.inc_by(self.batch.len() as u64);
        Ok(())
    }

    /// How long the first record of a batch waits for more: no longer than the cycle goes on that has begun,
    /// since a transaction may be open.
    fn queue_delay(&self) -> Duration {
        if self.partitions.is_closing() {
            // The cycle before is committed by the next turn.
            return Duration::ZERO;
        }
        let delay = self.settings.max_queue_delay;
        match self.cycle_records {
            0 => delay,
            _ => delay.min(self.until_cycle_end()),
        }
    }

    /// Whether a batch that waits for more has as many bytes as the client may keep ready.
    fn is_heavy(&self) -> bool {
        let delayed = !self.settings.max_queue_delay.is_zero();
        let values = self.batch.iter().map(|record| record.value());
        delayed && values.flatten().map(<[u8]>::len).sum::<usize>() as u64 >= self.parts.share.fetch
    }

    /// Drops polled records that are done already. Where a rebalance begins while records are being
    /// polled, librdkafka may fetch them again after it: it notes how far it is only afterwards.
    fn drop_done(&mut self) {
        let partitions = &self.partitions;
        let mut last = None;
        self.batch.retain(|record| {
            let origin = record.origin();
            let place = (origin.topic.as_ptr(), origin.partition);
            let next = match last {
                Some((known, next)) if known == place => next,
                _ => partitions.next_of(origin.topic, origin.partition),
            };
            last = Some((place, next));
            next.is_none_or(|next| origin.offset >= next.0)
        });
    }

    /// How long a poll may wait where nothing is under way.
    fn poll_wait(&self) -> Duration {
        // Answers that are to be tried again, revisions and the group's own are looked for.
        let settled = self.member
            && self.rebalances.is_empty()
            && self.partitions.held() == 0
            && !self.rewind_due;
        if settled { POLL_WAIT_IDLE } else { POLL_WAIT }
    }
}
