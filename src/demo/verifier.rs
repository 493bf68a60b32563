//! Reads the output and dead-letter topics as any consumer would and holds them against what was
//! sent; and the deployment log, to see when a deployment began. It knows nothing of the workers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::DemoError;
use super::flights::Flights;
use super::stage::{PARTITIONS, Stage};
use super::tally::SharedTally;
use crate::kafka::{ErrorKind, KafkaError, TopicEvent, TopicReader};
use crate::record::TopicPartition;

/// How long the reading up to the ends may take once nobody writes any more.
const FINISH_TIMEOUT: Duration = Duration::from_secs(30);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// What the verifier needs.
#[derive(Debug)]
pub(super) struct Verifier<'a> {
    pub(super) stage: &'a Stage,
    pub(super) flights: &'a Flights,
    pub(super) tally: &'a SharedTally,
    /// The clock of the demo.
    pub(super) clock: Instant,
    /// Set when nobody writes to the topics any more.
    pub(super) finish: &'a AtomicBool,
}

impl Verifier<'_> {
    /// Reads until it is told to finish, and then up to the ends of all partitions: whatever was
    /// written twice is found, however late.
    pub(super) fn run(&self) -> Result<(), DemoError> {
        let topics = &self.stage.topics;
        let read = [
            (topics.output.clone(), PARTITIONS),
            (topics.dead_letters.clone(), PARTITIONS),
            (topics.deployments.clone(), 1),
        ];
        let mut reader = TopicReader::open(self.stage.kafka(), &read)?;
        let mut positions = BTreeMap::new();
        while !self.finish.load(Ordering::Acquire) {
            self.step(&mut reader, &mut positions)?;
        }
        let deadline = Instant::now() + FINISH_TIMEOUT;
        let ends = reader.ends(REQUEST_TIMEOUT)?;
        let behind = |positions: &BTreeMap<TopicPartition, i64>| {
            ends.iter()
                .find(|(tp, end)| positions.get(tp).is_none_or(|next| next < end))
                .is_some()
        };
        while behind(&positions) {
            self.step(&mut reader, &mut positions)?;
            if Instant::now() >= deadline {
                let message = "not read to its end within 30s";
                return Err(KafkaError::new(ErrorKind::Retriable, "verifying", message).into());
            }
        }
        self.check_input()
    }

    fn step(
        &self,
        reader: &mut TopicReader,
        positions: &mut BTreeMap<TopicPartition, i64>,
    ) -> Result<(), DemoError> {
        match reader.poll(POLL) {
            Ok(TopicEvent::Record(record)) => {
                let now = self.clock.elapsed();
                let tp = TopicPartition::new(record.topic.as_str(), record.partition);
                positions.insert(tp, record.offset + 1);
                self.tally
                    .lock()
                    .observe(&record, &self.stage.topics, self.flights, now);
            }
            Ok(TopicEvent::EndOfPartition {
                topic,
                partition,
                next,
            }) => {
                let next_seen = positions
                    .entry(TopicPartition::new(topic, partition))
                    .or_default();
                *next_seen = next.max(*next_seen);
            }
            Ok(TopicEvent::Idle) => {}
            Err(error) if error.is_retriable() => tracing::debug!("{error}"),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The accounts rest on every event having the offset that the feed counted for it.
    fn check_input(&self) -> Result<(), DemoError> {
        let topic = &self.stage.topics.input;
        let ends = TopicReader::open(self.stage.kafka(), &[(topic.clone(), PARTITIONS)])?
            .ends(REQUEST_TIMEOUT)?;
        for (tp, end) in ends {
            let partition = usize::try_from(tp.partition).unwrap_or_default();
            let sent = self.tally.lock().ledger.sent_to(partition);
            if sent != end {
                return Err(DemoError::Input {
                    partition: tp,
                    sent,
                    end,
                });
            }
        }
        Ok(())
    }
}
