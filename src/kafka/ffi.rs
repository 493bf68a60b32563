//! The few calls into librdkafka that the rdkafka crate does not offer, and those that cost less than
//! the crate's own. Here and in the files below is the only unsafe code of this part; each block says why it is
//! sound.
#![allow(
    unsafe_code,
    reason = "calls into librdkafka that the rdkafka crate does not wrap"
)]

pub(super) mod consume;
pub(super) mod log;
pub(super) mod produce;

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_void};
use std::ptr::NonNull;

use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::client::Client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};

/// A reference of ours to a client's queue; it is given back before the client is closed.
struct Queue(NonNull<sys::rd_kafka_queue_t>);

// SAFETY: queues of librdkafka may be used by any thread.
unsafe impl Send for Queue {}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the reference is ours, and its client still lives, see [`Self::owned`].
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) };
    }
}

impl Queue {
    /// # Safety
    /// `queue` is null or a reference that nobody else gives back, of a client that outlives this.
    unsafe fn owned(queue: *mut sys::rd_kafka_queue_t) -> Result<Self, ClientError> {
        let none = || ClientError::ClientCreation("the client has no queue".to_owned());
        NonNull::new(queue).map(Self).ok_or_else(none)
    }

    /// The next event; sleeps at most so long for it.
    fn poll(&self, millis: i32) -> Option<Event> {
        // SAFETY: the queue is ours and its client lives.
        NonNull::new(unsafe { sys::rd_kafka_queue_poll(self.0.as_ptr(), millis) }).map(Event)
    }
}

/// An event that is ours.
struct Event(NonNull<sys::rd_kafka_event_t>);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is ours, and destroyed only here.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}

impl Event {
    fn kind(&self) -> sys::rd_kafka_event_type_t {
        // SAFETY: the event is live.
        unsafe { sys::rd_kafka_event_type(self.0.as_ptr()) }
    }

    fn error(&self) -> sys::rd_kafka_resp_err_t {
        // SAFETY: the event is live.
        unsafe { sys::rd_kafka_event_error(self.0.as_ptr()) }
    }

    /// Hands an error or a log line to the client's context.
    fn tell(&self, context: &impl ClientContext) {
        match self.kind() {
            sys::RD_KAFKA_EVENT_ERROR => {
                // SAFETY: the event is live, and its text lives as long.
                let reason =
                    unsafe { CStr::from_ptr(sys::rd_kafka_event_error_string(self.0.as_ptr())) };
                let error = ClientError::Global(self.error().into());
                context.error(error, reason.to_string_lossy().trim());
            }
            // SAFETY: the event is live and a log's.
            sys::RD_KAFKA_EVENT_LOG => unsafe { log_event(self.0.as_ptr(), context) },
            _ => {}
        }
    }
}

/// Hands a log line to the context.
///
/// # Safety
/// `event` points to a live event of that type.
unsafe fn log_event(event: *mut sys::rd_kafka_event_t, context: &impl ClientContext) {
    let (mut facility, mut text, mut level) = (std::ptr::null(), std::ptr::null(), 0);
    // SAFETY: the out-pointers are valid for writes, and what they receive lives as long as the
    // event.
    unsafe {
        if sys::rd_kafka_event_log(event, &raw mut facility, &raw mut text, &raw mut level) == 0 {
            let facility = CStr::from_ptr(facility).to_string_lossy();
            let text = CStr::from_ptr(text).to_string_lossy();
            context.log(log_level(level), facility.trim(), text.trim());
        }
    }
}

/// A level as syslog numbers them.
fn log_level(level: i32) -> RDKafkaLogLevel {
    match level {
        ..=0 => RDKafkaLogLevel::Emerg,
        1 => RDKafkaLogLevel::Alert,
        2 => RDKafkaLogLevel::Critical,
        3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 => RDKafkaLogLevel::Notice,
        6 => RDKafkaLogLevel::Info,
        7.. => RDKafkaLogLevel::Debug,
    }
}

/// The header at `index`. The crate's own way panics where a name is not UTF-8, and any program
/// that may write to an input topic can send such a record.
///
/// # Safety
/// `headers` is null or points to headers that live for `'h`.
unsafe fn header<'h>(
    headers: *const sys::rd_kafka_headers_t,
    index: usize,
) -> Option<(Cow<'h, str>, Option<&'h [u8]>)> {
    if headers.is_null() {
        return None;
    }
    let (mut name, mut value, mut len) = (std::ptr::null(), std::ptr::null(), 0);
    // SAFETY: promised by the caller; the out-pointers are valid for writes, and what they receive
    // lives as long as the headers.
    unsafe {
        let found = sys::rd_kafka_header_get_all(
            headers,
            index,
            &raw mut name,
            &raw mut value,
            &raw mut len,
        );
        if found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        Some((CStr::from_ptr(name).to_string_lossy(), bytes(value, len)))
    }
}

/// `len` bytes where they lie; `None` for a null pointer.
///
/// # Safety
/// `data` is null or points to `len` bytes that live for `'b`.
unsafe fn bytes<'b>(data: *const c_void, len: usize) -> Option<&'b [u8]> {
    // SAFETY: promised by the caller.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) })
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

/// The generation (classic protocol) or member epoch (consumer protocol) of a group member; not
/// positive while it is no member.
pub(super) fn generation<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<i32> {
    // SAFETY: the client outlives the call; the metadata is ours and destroyed here.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return None;
        }
        let generation = sys::rd_kafka_consumer_group_metadata_generation_id(metadata);
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        Some(generation)
    }
}

/// The id that the group knows a member by; empty while it has none.
pub(super) fn member_id<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> String {
    // SAFETY: the client outlives the call; the metadata is ours and destroyed here, after its text was
    // copied.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return String::new();
        }
        let id = sys::rd_kafka_consumer_group_metadata_member_id(metadata);
        let copied = if id.is_null() {
            String::new()
        } else {
            CStr::from_ptr(id).to_string_lossy().into_owned()
        };
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        copied
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
pub(super) fn set_rebalance_delay<C: ClientContext>(client: &Client<C>, delay_ms: i32) {
    // SAFETY: the client outlives the call; the handle is null unless the client owns a mock
    // cluster, and lives as long as the client.
    unsafe {
        let cluster = sys::rd_kafka_handle_mock_cluster(client.native_ptr());
        if !cluster.is_null() {
            sys::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, delay_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use rdkafka::ClientConfig;
    use rdkafka::producer::{DeliveryResult, Producer as _, ProducerContext};

    use super::consume::Member;
    use super::produce::Sender;
    use super::*;

    /// Keeps the facilities of the log lines that it is told.
    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Told {
        /// Calls `turn` until a line about a failed connection was told.
        fn until_failed(&self, mut turn: impl FnMut()) {
            let end = Instant::now() + Duration::from_secs(30);
            while !self.0.lock().unwrap().iter().any(|line| line == "FAIL") {
                assert!(Instant::now() < end, "no line: {:?}", self.0.lock());
                turn();
            }
        }
    }

    impl ClientContext for Told {
        fn log(&self, _: RDKafkaLogLevel, facility: &str, _: &str) {
            self.0.lock().unwrap().push(facility.to_owned());
        }
        fn error(&self, _: ClientError, _: &str) {}
    }

    impl ConsumerContext for Told {}

    impl ProducerContext for Told {
        type DeliveryOpaque = ();
        fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
    }

    #[test]
    fn log_lines_of_group_members_and_producers_reach_their_contexts() {
        let mut config = ClientConfig::new();
        // Nobody listens there.
        config.set("bootstrap.servers", "127.0.0.1:1");
        let producer = config.create_with_context(Told::default()).unwrap();
        let producer = Sender::new(producer).unwrap();
        producer.client().context().until_failed(|| {
            producer.serve(Duration::from_millis(20), |_, _| {});
        });
        config.set("group.id", "g");
        let consumer: BaseConsumer<Told> = config.create_with_context(Told::default()).unwrap();
        let member = Member::new(consumer).unwrap();
        member.subscribe(&["t"]).unwrap();
        member.client().context().until_failed(|| {
            member.poll(Duration::from_millis(20), 0, &mut Vec::new());
        });
    }

    #[test]
    fn headers_are_read_whatever_their_names_and_values_are() {
        let given: [(&[u8], Option<&[u8]>); 4] = [
            (b"a", None),
            (b"a", Some(b"")),
            (b"", Some(b"\xff\x00")),
            (b"n\xffme", Some(b"v")),
        ];
        // SAFETY: the headers are ours from `new` to `destroy`, lengths fit what they are of, and
        // the bytes are copied by `add`.
        unsafe {
            let native = sys::rd_kafka_headers_new(given.len());
            for (name, value) in given {
                let bytes = value.map_or(std::ptr::null(), <[u8]>::as_ptr);
                let len = value.map_or(0, <[u8]>::len) as isize;
                let name_len = name.len() as isize;
                sys::rd_kafka_header_add(native, name.as_ptr().cast(), name_len, bytes.cast(), len);
            }
            let read: Vec<_> = (0..5).map_while(|index| header(native, index)).collect();
            let wanted: [(&str, Option<&[u8]>); 4] = [
                ("a", None),
                ("a", Some(b"")),
                ("", Some(b"\xff\x00")),
                ("n\u{fffd}me", Some(b"v")),
            ];
            assert_eq!(read.len(), wanted.len());
            for (read, wanted) in read.iter().zip(wanted) {
                assert_eq!((read.0.as_ref(), read.1), wanted);
            }
            sys::rd_kafka_headers_destroy(native);
        }
    }
}
