//! Reads all partitions of some topics from their start, outside any consumer group, committed
//! records only: what a verifier needs, and whoever looks through a topic.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::{Offset, TopicPartitionList};

use super::context::LogContext;
use super::ffi::log::{self, LogPoll};
use super::{KafkaError, KafkaSettings, properties};
use crate::record::{OwnedRecord, TopicPartition};

/// What a poll gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicEvent {
    /// A record; those of one partition come in order.
    Record(OwnedRecord),
    /// Nothing follows in this partition for now.
    EndOfPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Offset of the next record, control records of transactions counted.
        next: i64,
    },
    /// Nothing happened within the time given.
    Idle,
}

/// Reader of all partitions of some topics.
pub struct TopicReader {
    consumer: BaseConsumer<LogContext>,
    topics: Vec<String>,
    partitions: Vec<TopicPartition>,
}

impl std::fmt::Debug for TopicReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicReader")
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

impl TopicReader {
    /// Opens `topics`, each a name and its number of partitions, at their first records. Does not
    /// wait for the broker.
    pub fn open(kafka: &KafkaSettings, topics: &[(String, i32)]) -> Result<Self, KafkaError> {
        let names = topics.iter().map(|(name, _)| name.clone()).collect();
        // As in a log reader: quicker than asking for the beginning, and where 0 is gone, the
        // reset to the earliest finds it.
        let starts = topics.iter().flat_map(|(name, count)| {
            (0..*count).map(|number| (TopicPartition::new(name.as_str(), number), 0))
        });
        Self::assigned(kafka, names, starts.collect())
    }

    /// Opens one partition at `offset`, or at the first record after it. Does not wait for the
    /// broker.
    pub fn open_at(
        kafka: &KafkaSettings,
        partition: &TopicPartition,
        offset: i64,
    ) -> Result<Self, KafkaError> {
        let names = vec![partition.topic.to_string()];
        Self::assigned(kafka, names, vec![(partition.clone(), offset)])
    }

    fn assigned(
        kafka: &KafkaSettings,
        names: Vec<String>,
        starts: Vec<(TopicPartition, i64)>,
    ) -> Result<Self, KafkaError> {
        let failed = |error: &ClientError| {
            KafkaError::client(format!("opening topics {}", names.join(", ")), error)
        };
        let consumer: BaseConsumer<LogContext> = properties::topic_reader(kafka)
            .create_with_context(LogContext::new("topic reader"))
            .map_err(|error| failed(&error))?;
        let mut list = TopicPartitionList::new();
        for (tp, offset) in &starts {
            list.add_partition_offset(&tp.topic, tp.partition, Offset::Offset(*offset))
                .map_err(|error| failed(&error))?;
        }
        consumer.assign(&list).map_err(|error| failed(&error))?;
        Ok(Self {
            consumer,
            topics: names,
            partitions: starts.into_iter().map(|(tp, _)| tp).collect(),
        })
    }

    /// Where each partition ends now: the offset after its last committed record.
    pub fn ends(&self, timeout: Duration) -> Result<BTreeMap<TopicPartition, i64>, KafkaError> {
        super::ends::ends(&self.consumer, &self.partitions, timeout)
    }

    /// The next record or event, waiting at most `timeout`.
    ///
    /// # Errors
    /// What Kafka says; of the retriable kind where reading goes on by itself.
    pub fn poll(&mut self, timeout: Duration) -> Result<TopicEvent, KafkaError> {
        match log::poll_log(&self.consumer, timeout) {
            None | Some(LogPoll::Heard) => Ok(TopicEvent::Idle),
            Some(LogPoll::Record(record)) => Ok(TopicEvent::Record(record)),
            Some(LogPoll::EndOfPartition(tp, next)) => {
                let (topic, partition) = (tp.topic.to_string(), tp.partition);
                Ok(TopicEvent::EndOfPartition {
                    topic,
                    partition,
                    next,
                })
            }
            Some(LogPoll::Error(code)) => {
                let context = format!("reading topics {}", self.topics.join(", "));
                Err(
                    KafkaError::client(context, &ClientError::MessageConsumption(code))
                        .with_cause(self.consumer.context().last_error()),
                )
            }
        }
    }
}
