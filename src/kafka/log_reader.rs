//! Reads a topic of one partition as a log: from its start to its stable end, and on from there.
//! Outside any consumer group, committed records only.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::metadata::MetadataTopic;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::context::LogContext;
use super::ffi::log::{self, LogPoll};
use super::{ErrorKind, KafkaError, KafkaSettings, properties};
use crate::record::OwnedRecord;

impl ConsumerContext for LogContext {}

/// Where reading starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStart {
    /// The first record there is.
    Beginning,
    /// This offset, or the first record after it.
    Offset(i64),
}

/// What a poll gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// The next record.
    Record(OwnedRecord),
    /// Nothing follows for now. `next` is the offset after all that was seen, control records of
    /// transactions included.
    EndOfLog {
        /// Offset of the next record.
        next: i64,
    },
    /// Nothing happened within the time given.
    Idle,
}

/// Reader of one partition.
pub struct LogReader {
    consumer: BaseConsumer<LogContext>,
    topic: String,
    /// Where reading starts at the next poll. A fetch that has begun keeps its connection busy
    /// for `fetch.wait.max.ms`, so nothing is fetched while ends are still being asked for.
    start: Option<LogStart>,
    /// What was polled to hear why a request has failed.
    polled: RefCell<VecDeque<LogPoll>>,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl LogReader {
    /// Opens partition 0 of `topic`. Does not wait for the broker.
    pub fn open(kafka: &KafkaSettings, topic: &str, start: LogStart) -> Result<Self, KafkaError> {
        Self::create(&properties::log_reader(kafka), topic, start)
    }

    /// The same for one that is at the end: what comes is there as soon, [`LogEvent::EndOfLog`] later,
    /// and a broker that has nothing is asked less often.
    pub fn follow(kafka: &KafkaSettings, topic: &str, start: LogStart) -> Result<Self, KafkaError> {
        Self::create(&properties::log_follower(kafka), topic, start)
    }

    fn create(config: &ClientConfig, topic: &str, start: LogStart) -> Result<Self, KafkaError> {
        let context = || format!("opening topic {topic:?}");
        let consumer: BaseConsumer<LogContext> = config
            .create_with_context(LogContext::new("log reader"))
            .map_err(|error| KafkaError::client(context(), &error))?;
        Ok(Self {
            consumer,
            topic: topic.to_owned(),
            start: Some(start),
            polled: RefCell::default(),
        })
    }

    fn assign(&self, start: LogStart) -> Result<(), KafkaError> {
        let offset = match start {
            // The client asks for a logical start only once it knows the leader, and looks again
            // after half a second; where 0 is gone, the reset to the earliest finds the start.
            LogStart::Beginning => Offset::Offset(0),
            LogStart::Offset(offset) => Offset::Offset(offset),
        };
        let mut partitions = TopicPartitionList::new();
        partitions
            .add_partition_offset(&self.topic, 0, offset)
            .and_then(|()| self.consumer.assign(&partitions))
            .map_err(|error| self.error("assigning", &error))
    }

    fn error(&self, doing: &str, error: &ClientError) -> KafkaError {
        KafkaError::client(format!("{doing} topic {:?}", self.topic), error)
            .with_cause(self.consumer.context().last_error())
    }

    /// An error of a request, with the cause that lies in the queue of what is polled.
    fn request_error(&self, doing: &str, error: &ClientError) -> KafkaError {
        while let Some(polled) = log::poll_log(&self.consumer, Duration::ZERO) {
            self.polled.borrow_mut().push_back(polled);
        }
        self.error(doing, error)
    }

    /// Goes on at `offset`.
    pub fn seek(&mut self, offset: i64) {
        self.polled.get_mut().clear();
        self.start = Some(LogStart::Offset(offset));
    }

    /// The offset that ends what can be read now: the last stable offset. An error of kind
    /// [`ErrorKind::MissingTopic`] where the topic does not exist.
    pub fn stable_end(&self, timeout: Duration) -> Result<i64, KafkaError> {
        self.watermarks(timeout).map(|(_, end)| end)
    }

    /// The offset of the first record that is still there.
    pub fn log_start(&self, timeout: Duration) -> Result<i64, KafkaError> {
        self.watermarks(timeout).map(|(start, _)| start)
    }

    fn watermarks(&self, timeout: Duration) -> Result<(i64, i64), KafkaError> {
        // The metadata says more clearly than the offset request whether the topic exists, and
        // how many partitions it has.
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), timeout)
            .map_err(|error| self.request_error("looking up", &error))?;
        let partitions = metadata
            .topics()
            .first()
            .map_or(0, |topic| topic.partitions().len());
        if let Some(error) = metadata.topics().first().and_then(MetadataTopic::error) {
            let error = ClientError::MetadataFetch(error.into());
            return Err(self.error("looking up", &error));
        }
        if partitions == 0 {
            let context = format!("looking up topic {:?}", self.topic);
            return Err(KafkaError::new(
                ErrorKind::MissingTopic,
                context,
                "no such topic",
            ));
        }
        // With isolation.level = read_committed the high end is the last stable offset.
        self.consumer
            .fetch_watermarks(&self.topic, 0, timeout)
            .map_err(|error| self.request_error("asking for the end of", &error))
    }

    /// The next record or event, waiting at most `timeout`.
    pub fn poll(&mut self, timeout: Duration) -> Result<LogEvent, KafkaError> {
        if let Some(start) = self.start.take() {
            self.assign(start)?;
        }
        let waiting = self.polled.get_mut().pop_front();
        match waiting.or_else(|| log::poll_log(&self.consumer, timeout)) {
            None | Some(LogPoll::Heard) => Ok(LogEvent::Idle),
            Some(LogPoll::Record(record)) => Ok(LogEvent::Record(record)),
            Some(LogPoll::EndOfPartition(_, next)) => Ok(LogEvent::EndOfLog { next }),
            Some(LogPoll::Error(code)) => {
                Err(self.error("reading", &ClientError::MessageConsumption(code)))
            }
        }
    }
}

/// Reads `topic` from `start` to the stable end that holds when the call is made, and hands each
/// record to `on_record`, which may end the reading. Gives the offset after what was read.
///
/// # Errors
/// What Kafka says, a missing topic included; or a time-out naming how far it came.
pub fn read_to_end(
    kafka: &KafkaSettings,
    topic: &str,
    start: LogStart,
    timeout: Duration,
    on_record: &mut dyn FnMut(OwnedRecord) -> ControlFlow<()>,
) -> Result<i64, KafkaError> {
    let deadline = Instant::now() + timeout;
    let mut reader = LogReader::open(kafka, topic, start)?;
    let end = reader.stable_end(timeout)?;
    let mut next = match start {
        LogStart::Beginning => reader.log_start(timeout)?,
        LogStart::Offset(offset) => offset,
    };
    while next < end {
        match reader.poll(Duration::from_millis(100)) {
            Ok(LogEvent::Record(record)) if record.offset >= end => break,
            Ok(LogEvent::Record(record)) => {
                next = record.offset + 1;
                if on_record(record).is_break() {
                    break;
                }
            }
            Ok(LogEvent::EndOfLog { next: seen }) => next = next.max(seen),
            Ok(LogEvent::Idle) => {}
            Err(error) if error.is_retriable() => tracing::debug!("{error}"),
            Err(error) => return Err(error),
        }
        if Instant::now() >= deadline {
            let context = format!("reading topic {topic:?}");
            let message = format!("no answer within {timeout:?}, came to offset {next} of {end}");
            return Err(KafkaError::new(ErrorKind::Retriable, context, message)
                .with_cause(reader.consumer.context().last_error()));
        }
    }
    Ok(next)
}
