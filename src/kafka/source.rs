//! A worker's consumer: member of the stream's group, polled by one thread.
//!
//! Rebalances come out of [`Source::poll`] as events, before any record, and are answered by
//! [`Source::assign`] and [`Source::give_up`]; until the answer, librdkafka holds the rebalance open and
//! fetches nothing. So the worker finishes what it has in straight-line code instead of inside a
//! callback.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use super::context::{LogContext, log_through};
use super::ffi::consume::{Heard, Member, RawRecord};
use super::{ClientShare, ErrorKind, KafkaError, KafkaSettings, Membership, ffi, properties};
use crate::record::{NextOffset, Origin, TopicPartition};

/// What a poll gives.
#[derive(Debug)]
pub enum Polled {
    /// Records: as many as are there and there was room for.
    Records,
    /// Partitions were assigned; they are read from once [`Source::assign`] is called.
    Assigned(Vec<TopicPartition>),
    /// Partitions are to be given up with [`Source::give_up`].
    Revoked {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// Another member may own them already: committing their offsets is too late.
        lost: bool,
    },
    /// The answer to [`Source::commit`].
    Committed(Result<(), KafkaError>),
    /// Nothing happened within the time given.
    Idle,
    /// Something is wrong.
    Error(KafkaError),
    /// A partition cannot be read. It, at least, is to be rewound to where reading had got to: the client
    /// does not know any more.
    PartitionError(KafkaError),
}

/// A polled record; its bytes lie in the client until it is dropped.
pub struct InputRecord<'a>(RawRecord<'a>);

/// Takes records in their outer form.
struct Unwrapped<'e, E>(&'e mut E);

impl<'s, E: Extend<InputRecord<'s>>> Extend<RawRecord<'s>> for Unwrapped<'_, E> {
    fn extend<I: IntoIterator<Item = RawRecord<'s>>>(&mut self, records: I) {
        self.0.extend(records.into_iter().map(InputRecord));
    }
}

impl std::fmt::Debug for InputRecord<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("InputRecord").field(&self.origin()).finish()
    }
}

impl InputRecord<'_> {
    /// Where the record lies.
    pub fn origin(&self) -> Origin<'_> {
        self.0.origin()
    }

    /// The record's key.
    pub fn key(&self) -> Option<&[u8]> {
        self.0.key()
    }

    /// The record's value; `None` is a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        self.0.value()
    }

    /// The record's headers, in order. In a name that is not UTF-8, which Kafka does not allow and
    /// brokers do not check, U+FFFD stands for what is none.
    pub fn headers(&self) -> impl Iterator<Item = (Cow<'_, str>, Option<&[u8]>)> {
        self.0.headers()
    }
}

/// A partition's committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The partition.
    pub partition: TopicPartition,
    /// The committed offset; `None` where nothing was committed.
    pub next: Option<NextOffset>,
    /// The metadata that was committed with it.
    pub metadata: String,
}

/// Where reading a partition starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The first record there is.
    Beginning,
    /// The end.
    End,
    /// This offset.
    At(NextOffset),
}

impl From<Position> for Offset {
    fn from(position: Position) -> Self {
        match position {
            Position::Beginning => Self::Beginning,
            Position::End => Self::End,
            Position::At(next) => Self::Offset(next.0),
        }
    }
}

struct Context {
    log: LogContext,
}

log_through!(Context);

impl ConsumerContext for Context {
    /// Reached only by way of the crate's own polls, while the consumer is closed: the worker is gone
    /// then, and without an answer closing would wait for ever.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        _: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        drop(consumer.incremental_unassign(partitions));
    }

    fn commit_callback(&self, _: Result<(), ClientError>, _: &TopicPartitionList) {}
}

fn to_list<'a>(
    partitions: impl IntoIterator<Item = (&'a TopicPartition, Offset)>,
) -> Result<TopicPartitionList, ClientError> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in partitions {
        list.add_partition_offset(&partition.topic, partition.partition, offset)?;
    }
    Ok(list)
}

/// Offsets to commit, each with its metadata.
fn offsets_list(
    offsets: &[(TopicPartition, NextOffset, String)],
) -> Result<TopicPartitionList, ClientError> {
    let positions = offsets.iter();
    let list = to_list(positions.map(|(p, next, _)| (p, Offset::Offset(next.0))))?;
    for (partition, _, metadata) in offsets {
        if let Some(mut element) = list.find_partition(&partition.topic, partition.partition) {
            element.set_metadata(metadata);
        }
    }
    Ok(list)
}

/// A group member.
pub struct Source {
    consumer: Member<Context>,
    group: Arc<str>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl Source {
    /// Joins `group` for `topics`. Does not wait for the broker.
    pub fn join(
        kafka: &KafkaSettings,
        group: &str,
        topics: &[String],
        membership: &Membership,
        share: ClientShare,
    ) -> Result<Self, KafkaError> {
        let context = Context {
            log: LogContext::new("consumer"),
        };
        let doing = || format!("joining group {group:?}");
        let config = properties::group_consumer(kafka, group, membership, share);
        let consumer: BaseConsumer<Context> = config
            .create_with_context(context)
            .map_err(|error| KafkaError::client(doing(), &error))?;
        let consumer =
            Member::new(consumer).map_err(|error| KafkaError::client(doing(), &error))?;
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer
            .subscribe(&topics)
            .map_err(|error| KafkaError::client(doing(), &error))?;
        Ok(Self {
            consumer,
            group: group.into(),
        })
    }

    fn error(&self, doing: &str, error: &ClientError) -> KafkaError {
        KafkaError::client(format!("{doing} (group {:?})", self.group), error)
            .with_cause(self.consumer.context().log.last_error())
    }

    /// What the client last heard from the network, where that was an error.
    pub fn last_error(&self) -> Option<String> {
        self.consumer.context().log.last_error()
    }

    /// The next event, or at most `room` records, which are added to `records`; waits at most `timeout`.
    /// Events come first. Without room records stay where they are, and the group knows that the worker
    /// lives.
    pub fn poll<'s>(
        &'s self,
        timeout: Duration,
        room: usize,
        records: &mut impl Extend<InputRecord<'s>>,
    ) -> Polled {
        match self.consumer.poll(timeout, room, &mut Unwrapped(records)) {
            Some(Heard::Records) => Polled::Records,
            Some(Heard::Assigned(partitions)) => Polled::Assigned(partitions),
            Some(Heard::Revoked(partitions)) => Polled::Revoked {
                partitions,
                lost: self.consumer.assignment_lost(),
            },
            Some(Heard::Committed(result)) => Polled::Committed(result.map_err(|error| {
                let doing = format!("committing offsets of group {:?}", self.group);
                KafkaError::client(doing, &error)
            })),
            Some(Heard::Error(error)) => Polled::Error(self.error("reading", &error)),
            Some(Heard::PartitionError(partition, error)) => {
                Polled::PartitionError(self.error(&format!("reading {partition}"), &error))
            }
            None => Polled::Idle,
        }
    }

    /// The next event, as [`Self::poll`] without room.
    pub fn poll_event(&self, timeout: Duration) -> Polled {
        self.poll(timeout, 0, &mut Vec::new())
    }

    /// Committed offsets of `partitions`.
    pub fn committed(
        &self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Result<Vec<Committed>, KafkaError> {
        let error = |error: &ClientError| self.error("reading committed offsets", error);
        let list =
            to_list(partitions.iter().map(|p| (p, Offset::Invalid))).map_err(|e| error(&e))?;
        let list = self
            .consumer
            .committed_offsets(list, timeout)
            .map_err(|e| error(&e))?;
        let elements = list.elements();
        elements
            .iter()
            .map(|element| {
                element.error().map_err(|e| error(&e))?;
                let next = match element.offset() {
                    Offset::Offset(offset) => Some(NextOffset(offset)),
                    _ => None,
                };
                Ok(Committed {
                    partition: TopicPartition::new(element.topic(), element.partition()),
                    next,
                    metadata: element.metadata().to_owned(),
                })
            })
            .collect()
    }

    /// First and end offset of a partition, as the broker has them now.
    pub fn bounds(
        &self,
        partition: &TopicPartition,
        timeout: Duration,
    ) -> Result<(NextOffset, NextOffset), KafkaError> {
        self.consumer
            .fetch_watermarks(&partition.topic, partition.partition, timeout)
            .map(|(low, high)| (NextOffset(low), NextOffset(high)))
            .map_err(|error| self.error(&format!("asking for the ends of {partition}"), &error))
    }

    /// Offset of the first record at or after `millis` since 1970; `None` where all are older.
    pub fn offset_at(
        &self,
        partition: &TopicPartition,
        millis: i64,
        timeout: Duration,
    ) -> Result<Option<NextOffset>, KafkaError> {
        let error =
            |error: &ClientError| self.error(&format!("looking up a time in {partition}"), error);
        let list = to_list([(partition, Offset::Offset(millis))]).map_err(|e| error(&e))?;
        let list = self
            .consumer
            .offsets_for_times(list, timeout)
            .map_err(|e| error(&e))?;
        let found = list.find_partition(&partition.topic, partition.partition);
        Ok(found.and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some(NextOffset(offset)),
            _ => None,
        }))
    }

    /// Answers [`Polled::Assigned`]: reads `partitions` from where each says.
    pub fn assign(&self, partitions: &[(TopicPartition, Position)]) -> Result<(), KafkaError> {
        let mut forwarded = partitions.iter();
        forwarded
            .try_for_each(|(partition, _)| self.consumer.forward(partition))
            .and_then(|()| to_list(partitions.iter().map(|(p, at)| (p, Offset::from(*at)))))
            .and_then(|list| self.consumer.incremental_assign(&list))
            .map_err(|error| self.error("taking over partitions", &error))
    }

    /// Answers [`Polled::Revoked`].
    pub fn give_up(&self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        to_list(partitions.iter().map(|p| (p, Offset::Invalid)))
            .and_then(|list| self.consumer.incremental_unassign(&list))
            .map_err(|error| self.error("giving up partitions", &error))
    }

    /// Reads `partitions`, which are assigned, from where each says. What was fetched of them is
    /// dropped.
    pub fn rewind(
        &self,
        positions: &[(TopicPartition, NextOffset)],
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        if positions.is_empty() {
            return Ok(());
        }
        let error = |error: &ClientError| self.error("rewinding", error);
        let list = to_list(positions.iter().map(|(p, at)| (p, Offset::Offset(at.0))));
        let sought = list
            .and_then(|list| self.consumer.seek_partitions(list, timeout))
            .map_err(|e| error(&e))?;
        let mut each = sought.elements().into_iter();
        each.try_for_each(|element| element.error())
            .map_err(|e| error(&e))
    }

    /// Whether the client is a member of its group, as far as it knows.
    pub fn is_member(&self) -> bool {
        ffi::generation(&self.consumer).is_some_and(|generation| generation > 0)
    }

    /// The id that the group knows this member by; empty while it has none.
    pub fn member_id(&self) -> String {
        ffi::member_id(&self.consumer)
    }

    /// Whether the group knows this member by another id than `id` now.
    pub fn is_another(&self, id: &str) -> bool {
        let now = self.member_id();
        !now.is_empty() && now != id
    }

    /// Sends offsets, each with its metadata, into the producer's transaction. The group
    /// coordinator refuses them if the group has a newer generation than this member.
    pub(super) fn offsets_for_transaction(
        &self,
        offsets: &[(TopicPartition, NextOffset, String)],
    ) -> Result<(TopicPartitionList, ConsumerGroupMetadata), KafkaError> {
        let context = format!("committing offsets (group {:?})", self.group);
        let list = offsets_list(offsets).map_err(|e| KafkaError::client(&context, &e))?;
        // Taken fresh each time: it carries the generation.
        let metadata = self.consumer.group_metadata();
        // A client that has lost its membership gives metadata without a generation, and a
        // coordinator takes that from anybody. Asked for after the metadata: it can become valid
        // again only by a poll of this thread.
        match metadata {
            Some(metadata) if self.is_member() => Ok((list, metadata)),
            _ => Err(KafkaError::new(
                ErrorKind::Abortable,
                context,
                "the worker is no longer a member of its group",
            )),
        }
    }

    /// Stops fetching `partitions`; what was fetched of them is dropped and fetched again later.
    pub fn pause(&self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        to_list(partitions.iter().map(|p| (p, Offset::Invalid)))
            .and_then(|list| self.consumer.pause(&list))
            .map_err(|error| self.error("pausing partitions", &error))
    }

    /// Goes on fetching `partitions`.
    pub fn resume(&self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        to_list(partitions.iter().map(|p| (p, Offset::Invalid)))
            .and_then(|list| self.consumer.resume(&list))
            .map_err(|error| self.error("resuming partitions", &error))
    }

    /// Sends offsets, each with its metadata, to be committed; [`Polled::Committed`] answers.
    pub fn commit(
        &self,
        offsets: &[(TopicPartition, NextOffset, String)],
    ) -> Result<(), KafkaError> {
        let error = |error: &ClientError| self.error("committing offsets", error);
        let list = offsets_list(offsets).map_err(|e| error(&e))?;
        let sent = ffi::commit(&self.consumer, &list);
        sent.map_err(|code| error(&ClientError::ConsumerCommit(code)))
    }

    /// End of a partition as the last fetch saw it, without a request.
    pub fn cached_end(&self, partition: &TopicPartition) -> Option<NextOffset> {
        ffi::cached_high_watermark(&self.consumer, &partition.topic, partition.partition)
            .map(NextOffset)
    }

    /// Number of partitions of `topic`.
    pub fn partitions_of(&self, topic: &str, timeout: Duration) -> Result<i32, KafkaError> {
        let context = format!("looking up topic {topic:?}");
        let metadata = self
            .consumer
            .fetch_metadata(Some(topic), timeout)
            .map_err(|error| self.error(&context, &error))?;
        match metadata
            .topics()
            .first()
            .map_or(0, |found| found.partitions().len())
        {
            0 => Err(KafkaError::new(
                ErrorKind::MissingTopic,
                context,
                "no such topic",
            )),
            count => Ok(count as i32),
        }
    }

    /// Answers a rebalance whose partitions are of no use any more.
    fn answer_while_closing(&self, event: Polled) {
        let answered = match event {
            Polled::Assigned(partitions) => {
                let at_end: Vec<_> = partitions.into_iter().map(|p| (p, Position::End)).collect();
                self.assign(&at_end)
            }
            Polled::Revoked { partitions, .. } => self.give_up(&partitions),
            _ => Ok(()),
        };
        if let Err(error) = answered {
            tracing::debug!("{error}");
        }
    }

    /// Answers a rebalance that was polled and will not be acted on, before [`Self::close`].
    pub fn abandon(&self, assigned: Vec<TopicPartition>, revoked: &[TopicPartition]) {
        if !assigned.is_empty() {
            self.answer_while_closing(Polled::Assigned(assigned));
        }
        if !revoked.is_empty() {
            self.answer_while_closing(Polled::Revoked {
                partitions: revoked.to_vec(),
                lost: true,
            });
        }
    }

    /// Leaves the group and closes the client, waiting at most `timeout`: a client whose broker
    /// is gone may take longer, and is then left to end by itself.
    pub fn close(self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let closer = std::thread::Builder::new()
            .name("consumer-close".to_owned())
            .spawn(move || drop(self.consumer));
        let Ok(closer) = closer else { return };
        while !closer.is_finished() {
            if Instant::now() >= deadline {
                tracing::warn!("a consumer did not close within {timeout:?}; it is left behind");
                return;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}
