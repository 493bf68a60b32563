//! A group member and its queue: records as they lie in the client, rebalances and commits as events.
//!
//! The crate's own poll allocates for each record, asks for the time twice, and spins through the
//! last millisecond of each wait.

use std::borrow::Cow;
use std::ffi::CStr;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};

use super::{Event, Queue};
use crate::record::{Origin, TopicPartition};

/// A step of a wait that is shorter than librdkafka can wait.
const SHORT_STEP: Duration = Duration::from_micros(100);

/// What a poll gives.
pub(in crate::kafka) enum Heard<'c> {
    Record(RawRecord<'c>),
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
    /// The answer to a commit: stored only where each of its partitions is.
    Committed(Result<(), ClientError>),
    EndOfPartition,
    Error(ClientError),
    /// Something for the client's context alone.
    Nothing,
}

/// A consumer with a reference to its queue, which is given back before the consumer is closed.
pub(in crate::kafka) struct Member<C: ConsumerContext + 'static> {
    queue: Queue,
    consumer: BaseConsumer<C>,
}

impl<C: ConsumerContext> Deref for Member<C> {
    type Target = BaseConsumer<C>;

    fn deref(&self) -> &BaseConsumer<C> {
        &self.consumer
    }
}

impl<C: ConsumerContext> Member<C> {
    pub(in crate::kafka) fn new(consumer: BaseConsumer<C>) -> Result<Self, ClientError> {
        // SAFETY: the consumer, dropped after its queue, outlives the reference that it gives.
        let queue = unsafe {
            Queue::owned(sys::rd_kafka_queue_get_consumer(
                consumer.client().native_ptr(),
            ))
        }?;
        Ok(Self { queue, consumer })
    }

    /// The next record or event; sleeps at most `timeout` for it.
    pub(in crate::kafka) fn poll(&self, timeout: Duration) -> Option<Heard<'_>> {
        // Looking without waiting asks for no time, which a record that is there would pay for.
        let heard = self.take(0);
        if heard.is_some() || timeout.is_zero() {
            return heard;
        }
        let millis = timeout.as_millis();
        if millis > 0 {
            return self.take(i32::try_from(millis).unwrap_or(i32::MAX));
        }
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            std::thread::park_timeout(left.min(SHORT_STEP));
            let heard = self.take(0);
            if heard.is_some() {
                return heard;
            }
        }
    }

    fn take(&self, millis: i32) -> Option<Heard<'_>> {
        let event = self.queue.poll(millis)?;
        Some(match event.kind() {
            sys::RD_KAFKA_EVENT_FETCH => RawRecord::of(event).map_or(Heard::Nothing, Heard::Record),
            sys::RD_KAFKA_EVENT_ERROR => self.error(&event),
            sys::RD_KAFKA_EVENT_REBALANCE => {
                let listed = event.partitions().map(|(partition, _)| partition);
                match event.error() {
                    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                        Heard::Assigned(listed.collect())
                    }
                    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                        Heard::Revoked(listed.collect())
                    }
                    _ => Heard::Nothing,
                }
            }
            sys::RD_KAFKA_EVENT_OFFSET_COMMIT => {
                let each = event.partitions().map(|(_, error)| error);
                let failed = std::iter::once(event.error())
                    .chain(each)
                    .find(|error| is_error(*error));
                Heard::Committed(match failed {
                    Some(error) => Err(ClientError::ConsumerCommit(error.into())),
                    None => Ok(()),
                })
            }
            _ => {
                event.tell(self.consumer.client().context().as_ref());
                Heard::Nothing
            }
        })
    }

    /// An error, told to the context as well, or the end of a partition.
    fn error(&self, event: &Event) -> Heard<'_> {
        let error = event.error();
        if !is_error(error) {
            return Heard::Nothing;
        }
        if error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF {
            return Heard::EndOfPartition;
        }
        event.tell(self.consumer.client().context().as_ref());
        let code = RDKafkaErrorCode::from(error);
        // SAFETY: the event is live.
        let fatal = unsafe { sys::rd_kafka_event_error_is_fatal(event.0.as_ptr()) != 0 };
        Heard::Error(if fatal {
            ClientError::MessageConsumptionFatal(code)
        } else {
            ClientError::MessageConsumption(code)
        })
    }
}

fn is_error(error: sys::rd_kafka_resp_err_t) -> bool {
    error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

impl Event {
    /// The partitions that the event is about, each with its error.
    fn partitions(&self) -> impl Iterator<Item = (TopicPartition, sys::rd_kafka_resp_err_t)> {
        // SAFETY: the list belongs to the live event; its length fits its elements.
        let listed = unsafe {
            let list = sys::rd_kafka_event_topic_partition_list(self.0.as_ptr());
            list.as_ref().map_or(&[][..], |list| {
                let count = usize::try_from(list.cnt).unwrap_or_default();
                match NonNull::new(list.elems) {
                    Some(elements) => std::slice::from_raw_parts(elements.as_ptr(), count),
                    None => &[],
                }
            })
        };
        listed.iter().map(|element| {
            // SAFETY: each element has a name, which lives as long as the list.
            let topic = unsafe { CStr::from_ptr(element.topic) }.to_string_lossy();
            let partition = TopicPartition::new(topic.as_ref(), element.partition);
            (partition, element.err)
        })
    }
}

/// A polled record; its bytes lie in the client.
pub(in crate::kafka) struct RawRecord<'c> {
    /// Keeps the message.
    _event: Event,
    message: NonNull<sys::rd_kafka_message_t>,
    topic: NonNull<str>,
    client: PhantomData<&'c ()>,
}

impl RawRecord<'_> {
    fn of(event: Event) -> Option<Self> {
        // SAFETY: the event is live and a fetch's: its message lives as long as it does, and the
        // message's topic, whose name is asked for, too.
        unsafe {
            let message = sys::rd_kafka_event_message_next(event.0.as_ptr());
            let message = NonNull::new(message.cast_mut())?;
            let name = CStr::from_ptr(sys::rd_kafka_topic_name(message.as_ref().rkt));
            Some(Self {
                _event: event,
                message,
                // The broker takes none that is not ASCII.
                topic: name.to_str().unwrap_or_default().into(),
                client: PhantomData,
            })
        }
    }

    fn message(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: it lives as long as the event.
        unsafe { self.message.as_ref() }
    }

    pub(in crate::kafka) fn origin(&self) -> Origin<'_> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is live, the out-pointer valid for writes; the name lives as long as
        // the message.
        let (timestamp, topic) = unsafe {
            let timestamp = sys::rd_kafka_message_timestamp(self.message.as_ptr(), &raw mut kind);
            (timestamp, self.topic.as_ref())
        };
        let known = kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        let message = self.message();
        Origin {
            topic,
            partition: message.partition,
            offset: message.offset,
            timestamp: (known && timestamp != -1).then_some(timestamp),
        }
    }

    pub(in crate::kafka) fn key(&self) -> Option<&[u8]> {
        let message = self.message();
        // SAFETY: librdkafka's pointers live as long as the message, and lengths fit them.
        unsafe { super::bytes(message.key, message.key_len) }
    }

    pub(in crate::kafka) fn value(&self) -> Option<&[u8]> {
        let message = self.message();
        // SAFETY: as above.
        unsafe { super::bytes(message.payload, message.len) }
    }

    /// The record's headers, in order.
    pub(in crate::kafka) fn headers(&self) -> impl Iterator<Item = (Cow<'_, str>, Option<&[u8]>)> {
        let mut headers = std::ptr::null_mut();
        // SAFETY: the message is live, the out-pointer valid for writes.
        let found =
            unsafe { sys::rd_kafka_message_headers(self.message.as_ptr(), &raw mut headers) };
        let headers = if is_error(found) {
            std::ptr::null_mut()
        } else {
            headers
        };
        (0..).map_while(move |index| {
            // SAFETY: null or the headers of the live message.
            unsafe { super::header(headers, index) }
        })
    }
}
