//! A group member and its two queues: records as they lie in the client, a batch at a time, and
//! rebalances, commits and errors as events.
//!
//! librdkafka takes the time twice, locks the partition and adds to a histogram for each record that is
//! polled as an event, and does it once for a batch. But a batch from the consumer's own queue answers
//! rebalances by itself (`rd_kafka_poll_cb` unassigns where no callback is set), so that each partition's
//! queue is forwarded to one that only records come to; a rebalance is still an event.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};

use super::{Event, Queue};
use crate::record::{Origin, TopicPartition};

/// Most records of one call.
const MOST: usize = 1024;

/// What a poll gives.
pub(in crate::kafka) enum Heard {
    /// Records were added.
    Records,
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
    /// The answer to a commit: stored only where each of its partitions is.
    Committed(Result<(), ClientError>),
    Error(ClientError),
    /// A partition cannot be read. Where librdkafka would go on after a pause is not to be relied on from
    /// then on: it counts the error as a record (its pull request 5213).
    PartitionError(TopicPartition, ClientError),
}

/// Rung by the client's threads when something comes to an empty queue.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    ringing: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ringing.notify_one();
    }

    /// Waits until it has rung since the last wait; `false` where it has not.
    fn wait(&self, timeout: Duration) -> bool {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .ringing
            .wait_timeout_while(rung, timeout, |rung| !*rung);
        let (mut rung, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *rung)
    }
}

/// # Safety
/// `bell` points to a [`Bell`].
unsafe extern "C" fn ring(_: *mut sys::rd_kafka_t, bell: *mut c_void) {
    // SAFETY: promised by the caller.
    unsafe { &*bell.cast::<Bell>() }.ring();
}

/// A consumer with references to its queues, which are given back before the consumer is closed.
pub(in crate::kafka) struct Member<C: ConsumerContext + 'static> {
    /// Everything but records.
    events: Queue,
    /// Records of the assigned partitions, and errors of single ones.
    records: Queue,
    /// Room for the records of one call.
    taken: RefCell<Vec<*mut sys::rd_kafka_message_t>>,
    /// Errors that came with records.
    failed: RefCell<VecDeque<(TopicPartition, ClientError)>>,
    bell: Box<Bell>,
    consumer: BaseConsumer<C>,
}

// SAFETY: the pointers in `taken` are used in one call only; all else may be sent.
unsafe impl<C: ConsumerContext> Send for Member<C> {}

impl<C: ConsumerContext> Deref for Member<C> {
    type Target = BaseConsumer<C>;

    fn deref(&self) -> &BaseConsumer<C> {
        &self.consumer
    }
}

impl<C: ConsumerContext + 'static> Drop for Member<C> {
    fn drop(&mut self) {
        for queue in [&self.events, &self.records] {
            // SAFETY: the queue is ours and its client lives. After this call nobody rings: it takes
            // the lock that ringing holds.
            unsafe {
                sys::rd_kafka_queue_cb_event_enable(queue.0.as_ptr(), None, std::ptr::null_mut());
            }
        }
    }
}

impl<C: ConsumerContext> Member<C> {
    pub(in crate::kafka) fn new(consumer: BaseConsumer<C>) -> Result<Self, ClientError> {
        let client = consumer.client().native_ptr();
        // SAFETY: the consumer, dropped after its queues, outlives the references that it gives.
        let (events, records) = unsafe {
            (
                Queue::owned(sys::rd_kafka_queue_get_consumer(client))?,
                Queue::owned(sys::rd_kafka_queue_new(client))?,
            )
        };
        let bell = Box::<Bell>::default();
        for queue in [&events, &records] {
            let bell = std::ptr::from_ref::<Bell>(&bell).cast_mut().cast();
            // SAFETY: the bell outlives its use, which ends before it is dropped.
            unsafe { sys::rd_kafka_queue_cb_event_enable(queue.0.as_ptr(), Some(ring), bell) };
        }
        Ok(Self {
            events,
            records,
            taken: RefCell::default(),
            failed: RefCell::default(),
            bell,
            consumer,
        })
    }

    /// From now on records of `partition` come to the records' queue. To be called before it is assigned:
    /// until then librdkafka would forward them to the consumer's own.
    pub(in crate::kafka) fn forward(&self, partition: &TopicPartition) -> Result<(), ClientError> {
        let topic = CString::new(&*partition.topic)?;
        let client = self.consumer.client().native_ptr();
        // SAFETY: the client and the name outlive the calls; the reference is given back here, and
        // forwarding holds references of its own.
        unsafe {
            let queue = Queue::owned(sys::rd_kafka_queue_get_partition(
                client,
                topic.as_ptr(),
                partition.partition,
            ))?;
            sys::rd_kafka_queue_forward(queue.0.as_ptr(), self.records.0.as_ptr());
        }
        Ok(())
    }

    /// The next event, or at most `room` records, which are added to `records`; waits at most `timeout`.
    pub(in crate::kafka) fn poll<'c>(
        &'c self,
        timeout: Duration,
        room: usize,
        records: &mut impl Extend<RawRecord<'c>>,
    ) -> Option<Heard> {
        // Looking without waiting asks for no time.
        let mut end = None;
        loop {
            if let Some(heard) = self.event() {
                return Some(heard);
            }
            if let Some((partition, error)) = self.failed.borrow_mut().pop_front() {
                return Some(Heard::PartitionError(partition, error));
            }
            if self.take(room.min(MOST), records) {
                return Some(Heard::Records);
            }
            if !self.failed.borrow().is_empty() {
                continue;
            }
            if timeout.is_zero() {
                return None;
            }
            let now = Instant::now();
            let left = end
                .get_or_insert_with(|| now + timeout)
                .saturating_duration_since(now);
            if left.is_zero() || !self.bell.wait(left) {
                return None;
            }
        }
    }

    /// The next event that is there.
    fn event(&self) -> Option<Heard> {
        loop {
            let event = self.events.poll(0)?;
            let heard = match event.kind() {
                sys::RD_KAFKA_EVENT_ERROR => self.error(&event),
                sys::RD_KAFKA_EVENT_REBALANCE => {
                    let listed = event.partitions().map(|(partition, _)| partition);
                    match event.error() {
                        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                            Some(Heard::Assigned(listed.collect()))
                        }
                        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                            Some(Heard::Revoked(listed.collect()))
                        }
                        _ => None,
                    }
                }
                sys::RD_KAFKA_EVENT_OFFSET_COMMIT => {
                    let each = event.partitions().map(|(_, error)| error);
                    let failed = std::iter::once(event.error())
                        .chain(each)
                        .find(|error| is_error(*error));
                    Some(Heard::Committed(match failed {
                        Some(error) => Err(ClientError::ConsumerCommit(error.into())),
                        None => Ok(()),
                    }))
                }
                _ => {
                    event.tell(self.consumer.client().context().as_ref());
                    None
                }
            };
            if heard.is_some() {
                return heard;
            }
        }
    }

    /// An error, told to the context as well.
    fn error(&self, event: &Event) -> Option<Heard> {
        let error = event.error();
        if !is_error(error) {
            return None;
        }
        event.tell(self.consumer.client().context().as_ref());
        // SAFETY: the event is live.
        let fatal = unsafe { sys::rd_kafka_event_error_is_fatal(event.0.as_ptr()) != 0 };
        Some(Heard::Error(consumption(error, fatal)))
    }

    /// Adds at most `room` records that are there; gives whether there were any.
    fn take<'c>(&'c self, room: usize, records: &mut impl Extend<RawRecord<'c>>) -> bool {
        if room == 0 {
            return false;
        }
        let mut taken = self.taken.borrow_mut();
        taken.resize(room, std::ptr::null_mut());
        // SAFETY: the queue is ours, and the array has room for as many.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(
                self.records.0.as_ptr(),
                0,
                taken.as_mut_ptr(),
                taken.len(),
            )
        };
        let count = usize::try_from(count).unwrap_or_default();
        let (mut topic, mut failed) = (None, 0);
        let messages = taken.iter().take(count);
        records.extend(messages.filter_map(|message| {
            // SAFETY: each is a message that is ours, and owned by nothing else.
            let record = unsafe { RawRecord::of(NonNull::new(*message)?, &mut topic) };
            let error = record.message().err;
            if !is_error(error) {
                return Some(record);
            }
            failed += 1;
            self.note(&record, error);
            topic = None;
            None
        }));
        count > failed
    }

    /// Keeps the error that came in a record's place.
    fn note(&self, record: &RawRecord<'_>, error: sys::rd_kafka_resp_err_t) {
        // SAFETY: the message is live, and its text lives as long.
        let reason =
            unsafe { CStr::from_ptr(sys::rd_kafka_message_errstr(record.message.as_ptr())) };
        let reason = reason.to_string_lossy();
        let context = self.consumer.client().context();
        context.error(ClientError::Global(error.into()), reason.trim());
        let origin = record.origin();
        let partition = TopicPartition::new(origin.topic, origin.partition);
        let fatal = error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__FATAL;
        let error = consumption(error, fatal);
        self.failed.borrow_mut().push_back((partition, error));
    }
}

/// The crate's form of an error of reading.
fn consumption(error: sys::rd_kafka_resp_err_t, fatal: bool) -> ClientError {
    let code = RDKafkaErrorCode::from(error);
    if fatal {
        ClientError::MessageConsumptionFatal(code)
    } else {
        ClientError::MessageConsumption(code)
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
    message: NonNull<sys::rd_kafka_message_t>,
    topic: NonNull<str>,
    /// Kept, since it is asked for several times.
    timestamp: Option<i64>,
    client: PhantomData<&'c ()>,
}

impl Drop for RawRecord<'_> {
    fn drop(&mut self) {
        // SAFETY: the message is ours, and destroyed only here.
        unsafe { sys::rd_kafka_message_destroy(self.message.as_ptr()) };
    }
}

/// A topic of a client, and its name.
type Named = Option<(*mut sys::rd_kafka_topic_t, NonNull<str>)>;

impl RawRecord<'_> {
    /// # Safety
    /// `message` is live and belongs to nothing else; the topic in `last` is that of a live message.
    unsafe fn of(message: NonNull<sys::rd_kafka_message_t>, last: &mut Named) -> Self {
        // SAFETY: promised by the caller; a message's topic lives as long as the message.
        let topic = unsafe { message.as_ref().rkt };
        let name = match *last {
            Some((known, name)) if known == topic => name,
            _ => {
                // SAFETY: as above; an error that is no partition's has no topic.
                let name = unsafe {
                    (!topic.is_null()).then(|| CStr::from_ptr(sys::rd_kafka_topic_name(topic)))
                };
                // The broker takes none that is not ASCII.
                let name = name.and_then(|name| name.to_str().ok());
                let name = NonNull::from(name.unwrap_or_default());
                *last = Some((topic, name));
                name
            }
        };
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is live, the out-pointer valid for writes.
        let timestamp = unsafe { sys::rd_kafka_message_timestamp(message.as_ptr(), &raw mut kind) };
        let known = kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        Self {
            message,
            topic: name,
            timestamp: (known && timestamp != -1).then_some(timestamp),
            client: PhantomData,
        }
    }

    fn message(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: it is ours and live.
        unsafe { self.message.as_ref() }
    }

    pub(in crate::kafka) fn origin(&self) -> Origin<'_> {
        let message = self.message();
        Origin {
            // SAFETY: the name lives as long as the message.
            topic: unsafe { self.topic.as_ref() },
            partition: message.partition,
            offset: message.offset,
            timestamp: self.timestamp,
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
