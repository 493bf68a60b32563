//! The few calls into librdkafka that the rdkafka crate does not offer. The only unsafe code of
//! this folder; each block says why it is sound.
#![allow(
    unsafe_code,
    reason = "calls into librdkafka that the rdkafka crate does not wrap"
)]

use std::ffi::{CStr, CString, c_void};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

use crate::record::{Header, OwnedRecord, TopicPartition};

/// What [`poll_log`] gives.
pub(super) enum LogPoll {
    /// A record, copied out.
    Record(OwnedRecord),
    /// The end of the partition; the offset of the next record, control records counted. The
    /// crate's own poll drops this offset.
    EndOfPartition(TopicPartition, i64),
    /// An error.
    Error(RDKafkaErrorCode),
}

/// Polls a consumer that uses `assign` (never `subscribe`: rebalances are not served here).
pub(super) fn poll_log<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    timeout: Duration,
) -> Option<LogPoll> {
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client outlives the call; the message is ours until it is destroyed below, and
    // everything is copied out of it before; records and ends of partitions name their topic.
    unsafe {
        let message = sys::rd_kafka_consumer_poll(consumer.client().native_ptr(), millis);
        let raw = message.as_ref()?;
        let polled = match raw.err {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {
                LogPoll::Record(copy_message(message, raw))
            }
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                let topic = CStr::from_ptr(sys::rd_kafka_topic_name(raw.rkt)).to_string_lossy();
                let partition = TopicPartition::new(topic.as_ref(), raw.partition);
                LogPoll::EndOfPartition(partition, raw.offset)
            }
            error => LogPoll::Error(error.into()),
        };
        sys::rd_kafka_message_destroy(message);
        Some(polled)
    }
}

/// Copies a message.
///
/// # Safety
/// `message` points to a live message without error and `raw` is a view of it.
unsafe fn copy_message(
    message: *mut sys::rd_kafka_message_t,
    raw: &sys::rd_kafka_message_t,
) -> OwnedRecord {
    // SAFETY: librdkafka gives pointers that live as long as the message, lengths that fit them,
    // and a topic handle that has a name.
    unsafe {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        let timestamp = sys::rd_kafka_message_timestamp(message, &raw mut kind);
        let topic = CStr::from_ptr(sys::rd_kafka_topic_name(raw.rkt));
        OwnedRecord {
            topic: topic.to_string_lossy().into_owned(),
            partition: raw.partition,
            offset: raw.offset,
            timestamp: (timestamp >= 0).then_some(timestamp),
            key: copy_bytes(raw.key, raw.key_len),
            value: copy_bytes(raw.payload, raw.len),
            headers: copy_headers(message),
        }
    }
}

/// Copies the headers of a live message.
///
/// # Safety
/// `message` points to a live message.
unsafe fn copy_headers(message: *mut sys::rd_kafka_message_t) -> Vec<Header> {
    let mut copied = Vec::new();
    let mut headers = std::ptr::null_mut();
    // SAFETY: the out-pointers are valid for writes, and what they receive lives as long as the
    // message.
    unsafe {
        if sys::rd_kafka_message_headers(message, &raw mut headers)
            != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return copied;
        }
        loop {
            let (mut name, mut value, mut len) = (std::ptr::null(), std::ptr::null(), 0);
            let found = sys::rd_kafka_header_get_all(
                headers,
                copied.len(),
                &raw mut name,
                &raw mut value,
                &raw mut len,
            );
            if found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return copied;
            }
            let key = CStr::from_ptr(name).to_string_lossy().into_owned();
            copied.push(Header {
                key,
                value: copy_bytes(value, len),
            });
        }
    }
}

/// Copies `len` bytes; `None` for a null pointer.
///
/// # Safety
/// `data` is null or points to `len` readable bytes.
unsafe fn copy_bytes(data: *const c_void, len: usize) -> Option<Vec<u8>> {
    // SAFETY: promised by the caller.
    (!data.is_null())
        .then(|| unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) }.to_vec())
}

/// Commits offsets without waiting; the answer comes out of the consumer's own queue as an event.
/// The crate's asynchronous commit asks for no answer, and so never gives one.
pub(super) fn commit<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    offsets: &TopicPartitionList,
) -> Result<(), RDKafkaErrorCode> {
    let client = consumer.client().native_ptr();
    // SAFETY: client and list outlive the call, which copies the list; the queue is a reference of
    // our own, given back below; without a callback the opaque pointer is not used.
    let error = unsafe {
        let queue = sys::rd_kafka_queue_get_consumer(client);
        let error =
            sys::rd_kafka_commit_queue(client, offsets.ptr(), queue, None, std::ptr::null_mut());
        sys::rd_kafka_queue_destroy(queue);
        error
    };
    match error {
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        error => Err(error.into()),
    }
}

/// The high watermark of a partition as the last fetch saw it, without a request.
pub(super) fn cached_high_watermark<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> Option<i64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1_i64, -1_i64);
    // SAFETY: the client outlives the call and the out-pointers are valid for writes.
    let error = unsafe {
        sys::rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            topic.as_ptr(),
            partition,
            &raw mut low,
            &raw mut high,
        )
    };
    let known = error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0;
    known.then_some(high)
}

/// How long a new group of a mock cluster waits for its members; by default 3 s.
pub(super) fn set_rebalance_delay<C: ClientContext>(
    client: &rdkafka::client::Client<C>,
    delay_ms: i32,
) {
    // SAFETY: the client outlives the call; the handle is null unless the client owns a mock
    // cluster, and lives as long as the client.
    unsafe {
        let cluster = sys::rd_kafka_handle_mock_cluster(client.native_ptr());
        if !cluster.is_null() {
            sys::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, delay_ms);
        }
    }
}
