//! A topic that the watcher follows: from where it was left off to its end, and on from there.

use std::time::Duration;

use super::error::RegistryError;
use super::logs::{RegistryLog, RegistryLogs};
use super::topics::RegistryTopic;
use crate::kafka::{KafkaError, LogEvent, LogStart};
use crate::record::OwnedRecord;

/// Most records taken from one topic before the other has its turn.
const TURN: usize = 1000;

/// A topic that is followed.
pub(super) struct Followed {
    topic: RegistryTopic,
    log: Box<dyn RegistryLog>,
    /// Whether `log` is one that was opened at the end.
    settled: bool,
    /// The next offset to read.
    pub(super) next: i64,
    /// The stable end when it was opened.
    end: i64,
}

impl Followed {
    /// Opens `topic` at `next`; gives its first offset as well.
    pub(super) fn open(
        logs: &dyn RegistryLogs,
        topic: RegistryTopic,
        next: i64,
    ) -> Result<(Self, i64), RegistryError> {
        let start = if next == 0 {
            LogStart::Beginning
        } else {
            LogStart::Offset(next)
        };
        let mut log = logs.open(topic, start)?;
        let (first, end) = (log.log_start()?, log.stable_end()?);
        if end < next {
            return Err(RegistryError::Shrunk {
                topic: logs.name(topic),
                end,
                read: next,
            });
        }
        // Nothing is left of what lies before the first offset.
        let next = next.max(first.min(end));
        let followed = Self {
            topic,
            log,
            settled: false,
            next,
            end,
        };
        Ok((followed, first))
    }

    /// Goes on with a reader that asks a quiet broker less often, once this one has come to the end.
    pub(super) fn settle(&mut self, logs: &dyn RegistryLogs) -> Result<(), RegistryError> {
        if !self.settled && self.done() {
            self.log = logs.follow(self.topic, LogStart::Offset(self.next))?;
            self.settled = true;
        }
        Ok(())
    }

    /// Whether it was read to the end that it had when it was opened.
    pub(super) fn done(&self) -> bool {
        self.next >= self.end
    }

    /// Takes records until none is there, waiting at most `wait` for the first one; gives whether
    /// anything was new.
    pub(super) fn take(
        &mut self,
        mut wait: Duration,
        mut apply: impl FnMut(OwnedRecord),
    ) -> Result<bool, KafkaError> {
        let before = self.next;
        for _ in 0..TURN {
            match self.log.poll(wait)? {
                LogEvent::Record(record) => {
                    self.next = self.next.max(record.offset + 1);
                    apply(record);
                    wait = Duration::ZERO;
                }
                LogEvent::EndOfLog { next } => {
                    self.next = self.next.max(next);
                    break;
                }
                LogEvent::Idle => break,
            }
        }
        Ok(self.next > before)
    }
}

#[cfg(test)]
mod tests {
    use super::super::logs::fake::FakeLogs;
    use super::*;

    #[test]
    fn it_settles_at_the_end_and_misses_nothing() {
        let topic = RegistryTopic::Versions;
        let logs = FakeLogs::default();
        let append = || logs.append(topic, b"k", Some(Vec::new()), Vec::new());
        append();
        logs.marker(topic);
        let (mut followed, _) = Followed::open(&logs, topic, 0).unwrap();
        let take = |followed: &mut Followed| {
            let mut seen = Vec::new();
            let taken = followed.take(Duration::ZERO, |record| seen.push(record.offset));
            taken.unwrap();
            seen
        };
        followed.settle(&logs).unwrap();
        assert_eq!(
            logs.0.lock().unwrap().followed,
            [],
            "it is not at the end yet"
        );
        assert_eq!(take(&mut followed), [0]);
        // The marker at the end counts.
        append();
        followed.settle(&logs).unwrap();
        followed.settle(&logs).unwrap();
        let at = (topic, LogStart::Offset(2));
        assert_eq!(logs.0.lock().unwrap().followed, [at]);
        append();
        assert_eq!(take(&mut followed), [2, 3]);
    }
}
