//! Reading a log: consumers outside any group, records copied out, the offset of a partition's end.

use std::ffi::{CStr, c_void};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};

use super::{bytes, log_event};
use crate::kafka::context::LogContext;
use crate::record::{Header, OwnedRecord, TopicPartition};

/// What [`poll_log`] gives.
pub(in crate::kafka) enum LogPoll {
    /// A record, copied out.
    Record(OwnedRecord),
    /// The end of the partition; the offset of the next record, control records counted. The
    /// crate's own poll drops this offset.
    EndOfPartition(TopicPartition, i64),
    /// An error.
    Error(RDKafkaErrorCode),
    /// Something for the client's context alone.
    Heard,
}

/// Polls a consumer that uses `assign` (never `subscribe`: rebalances are not served here). Log
/// lines and errors go to the client's context, as with the crate's own poll.
pub(in crate::kafka) fn poll_log(
    consumer: &BaseConsumer<LogContext>,
    timeout: Duration,
) -> Option<LogPoll> {
    let client = consumer.client();
    // SAFETY: the client outlives the call; the queue is a reference of our own, given back by the
    // call below.
    unsafe {
        let queue = sys::rd_kafka_queue_get_consumer(client.native_ptr());
        poll_queue(queue, client.context(), timeout)
    }
}

/// Hands what a client has said meanwhile to its context. For clients whose main queue nobody
/// polls: it would never be heard, and kept for ever.
pub(in crate::kafka) fn hear(client: &Client<LogContext>) {
    loop {
        // SAFETY: as in `poll_log`.
        let heard = unsafe {
            let queue = sys::rd_kafka_queue_get_main(client.native_ptr());
            poll_queue(queue, client.context(), Duration::ZERO)
        };
        if heard.is_none() {
            return;
        }
    }
}

/// Takes one event from `queue`.
///
/// # Safety
/// `queue` is null or a live reference, which is given back here.
unsafe fn poll_queue(
    queue: *mut sys::rd_kafka_queue_t,
    context: &LogContext,
    timeout: Duration,
) -> Option<LogPoll> {
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the queue is live by the caller's promise; the event is ours until it is destroyed,
    // and everything is copied out of it before.
    unsafe {
        if queue.is_null() {
            return None;
        }
        let event = sys::rd_kafka_queue_poll(queue, millis);
        sys::rd_kafka_queue_destroy(queue);
        if event.is_null() {
            return None;
        }
        let polled = match sys::rd_kafka_event_type(event) {
            sys::RD_KAFKA_EVENT_FETCH => {
                // The message belongs to the event.
                let message = sys::rd_kafka_event_message_next(event).cast_mut();
                let raw = message.as_ref();
                raw.map_or(LogPoll::Heard, |raw| {
                    LogPoll::Record(copy_message(message, raw))
                })
            }
            sys::RD_KAFKA_EVENT_ERROR => error_event(event, context),
            sys::RD_KAFKA_EVENT_LOG => {
                log_event(event, context);
                LogPoll::Heard
            }
            _ => LogPoll::Heard,
        };
        sys::rd_kafka_event_destroy(event);
        Some(polled)
    }
}

/// Reads an error event, which may be the end of a partition.
///
/// # Safety
/// `event` points to a live event of that type.
unsafe fn error_event(event: *mut sys::rd_kafka_event_t, context: &LogContext) -> LogPoll {
    // SAFETY: promised by the caller; the partition is ours and destroyed here, and has a name.
    unsafe {
        let error = sys::rd_kafka_event_error(event);
        if error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF {
            let found = sys::rd_kafka_event_topic_partition(event);
            let Some(raw) = found.as_ref() else {
                return LogPoll::Heard;
            };
            let topic = CStr::from_ptr(raw.topic).to_string_lossy();
            let partition = TopicPartition::new(topic.as_ref(), raw.partition);
            let next = raw.offset;
            sys::rd_kafka_topic_partition_destroy(found);
            return LogPoll::EndOfPartition(partition, next);
        }
        // The client looks for the coordinator of a group that readers of logs never use: they
        // need no right to it.
        if error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED {
            return LogPoll::Heard;
        }
        let reason = CStr::from_ptr(sys::rd_kafka_event_error_string(event)).to_string_lossy();
        context.error(ClientError::Global(error.into()), &reason);
        LogPoll::Error(error.into())
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
    unsafe { bytes(data, len) }.map(<[u8]>::to_vec)
}
