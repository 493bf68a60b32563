//! Where partitions end. An open transaction hides what comes after its first record, whoever wrote it,
//! from readers of committed records: who must know all that is committed waits here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::context::LogContext;
use super::{KafkaError, KafkaSettings, properties};
use crate::record::TopicPartition;

/// Most time between two looks of a broker for transactions that are over their time
/// (`transaction.abort.timed.out.transaction.cleanup.interval.ms`, by default), and as much again.
pub const UNTIL_ENDED: Duration = Duration::from_secs(20);

/// After this long somebody who waits wants to know why.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// Shortest and longest time between two looks.
const LOOKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// What a look for hidden records comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Everything can be seen.
    Visible,
    /// An open transaction hides something.
    Hidden,
    /// That cannot be told now.
    Unknown,
}

/// Looks until all is visible, at most for `patience`; gives whether it is. Says so once where it is hidden for
/// long.
///
/// # Errors
/// What `look` says.
pub fn wait_for_hidden<E>(
    topic: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<Look, E>,
) -> Result<bool, E> {
    let start = Instant::now();
    let (mut pause, mut told) = (LOOKS.0, false);
    loop {
        let found = look()?;
        if found == Look::Visible {
            return Ok(true);
        }
        let waited = start.elapsed();
        if waited >= patience {
            return Ok(false);
        }
        if waited >= TELL_AFTER && found == Look::Hidden && !told {
            told = true;
            tracing::warn!(
                "waiting: an open transaction of another producer holds readers of topic {topic:?} \
                 back, until it ends or the broker ends it"
            );
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LOOKS.1);
    }
}

/// Asks where partitions end, and reads nothing.
pub struct EndReader {
    consumer: BaseConsumer<LogContext>,
    partitions: Vec<TopicPartition>,
}

impl std::fmt::Debug for EndReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndReader")
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}

impl EndReader {
    /// Of what readers of committed records see. Does not wait for the broker.
    pub fn stable(
        kafka: &KafkaSettings,
        partitions: Vec<TopicPartition>,
    ) -> Result<Self, KafkaError> {
        Self::create(&properties::log_reader(kafka), partitions)
    }

    /// Of what was written, records of open transactions included. Does not wait for the broker.
    pub fn written(
        kafka: &KafkaSettings,
        partitions: Vec<TopicPartition>,
    ) -> Result<Self, KafkaError> {
        Self::create(&properties::end_reader(kafka), partitions)
    }

    fn create(config: &ClientConfig, partitions: Vec<TopicPartition>) -> Result<Self, KafkaError> {
        let consumer = config
            .create_with_context(LogContext::new("end reader"))
            .map_err(|error| KafkaError::client("creating a consumer", &error))?;
        Ok(Self {
            consumer,
            partitions,
        })
    }

    /// The offset after the last record of each partition now; a request may take `timeout`.
    pub fn ends(&self, timeout: Duration) -> Result<BTreeMap<TopicPartition, i64>, KafkaError> {
        ends(&self.consumer, &self.partitions, timeout)
    }
}

/// The same of any consumer.
pub(super) fn ends(
    consumer: &BaseConsumer<LogContext>,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<BTreeMap<TopicPartition, i64>, KafkaError> {
    let end = |tp: &TopicPartition| {
        let watermarks = consumer.fetch_watermarks(&tp.topic, tp.partition, timeout);
        let (_, end) = watermarks.map_err(|error| {
            let context = format!("asking for the end of partition {tp}");
            KafkaError::client(context, &error).with_cause(consumer.context().last_error())
        })?;
        Ok((tp.clone(), end))
    };
    partitions.iter().map(end).collect()
}
