//! Sending: headers that are made once and copied, topics that are looked up once, acknowledgements
//! read where they lie.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_void};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

use super::{Event, Queue};

/// Leaves the partition to the key (`RD_KAFKA_PARTITION_UA`).
const BY_KEY: i32 = -1;

/// Headers of a record that is not sent yet.
#[derive(Debug)]
pub(in crate::kafka) struct Headers(NonNull<sys::rd_kafka_headers_t>);

impl Drop for Headers {
    fn drop(&mut self) {
        // SAFETY: the headers are ours.
        unsafe { sys::rd_kafka_headers_destroy(self.0.as_ptr()) };
    }
}

/// librdkafka ends the process itself where there is no memory, and gives no null.
fn made(headers: *mut sys::rd_kafka_headers_t) -> Headers {
    NonNull::new(headers).map_or_else(|| std::process::abort(), Headers)
}

impl Headers {
    pub(in crate::kafka) fn new(capacity: usize) -> Self {
        // SAFETY: takes no pointer.
        made(unsafe { sys::rd_kafka_headers_new(capacity) })
    }

    pub(in crate::kafka) fn copy(&self) -> Self {
        // SAFETY: the headers are ours and live.
        made(unsafe { sys::rd_kafka_headers_copy(self.0.as_ptr()) })
    }

    /// How many there are.
    fn count(&self) -> usize {
        // SAFETY: the headers are ours and live.
        unsafe { sys::rd_kafka_header_cnt(self.0.as_ptr()) }
    }

    pub(in crate::kafka) fn add(&mut self, name: &str, value: Option<&[u8]>) {
        let bytes = value.map_or(std::ptr::null(), <[u8]>::as_ptr);
        let len = value.map_or(0, <[u8]>::len) as isize;
        // SAFETY: the headers are ours; name and value are copied, and their lengths fit.
        unsafe {
            sys::rd_kafka_header_add(
                self.0.as_ptr(),
                name.as_ptr().cast(),
                name.len() as isize,
                bytes.cast(),
                len,
            );
        }
    }
}

/// Where the highest 16 bits of a token begin: the slot, which says whose headers a record has.
pub(in crate::kafka) const SLOT_SHIFT: u32 = 48;

/// A record to send; its bytes are copied.
pub(in crate::kafka) struct RawOutgoing<'a> {
    pub(in crate::kafka) topic: &'a str,
    pub(in crate::kafka) partition: Option<i32>,
    pub(in crate::kafka) key: Option<&'a [u8]>,
    pub(in crate::kafka) value: Option<&'a [u8]>,
    pub(in crate::kafka) timestamp: Option<i64>,
    pub(in crate::kafka) token: u64,
}

/// Headers that most records carry, and copies of them that acknowledged records gave back: a copy is
/// eight allocations.
struct Template {
    /// The slot of records with these headers.
    slot: u16,
    headers: Headers,
    count: usize,
    copies: Vec<Headers>,
    /// Copies of earlier templates. They are freed a few at a time: all at once would hold up the
    /// first records of a version.
    stale: Vec<Headers>,
}

/// As many copies as the acknowledgement of one batch gives back: 5 MB.
const KEPT_COPIES: usize = 10_000;

impl Template {
    fn new(slot: u16, headers: Headers, last: Option<Self>) -> Self {
        let stale = last.map(|last| {
            let mut stale = last.stale;
            stale.extend(last.copies);
            stale
        });
        Self {
            slot,
            count: headers.count(),
            headers,
            copies: Vec::new(),
            stale: stale.unwrap_or_default(),
        }
    }

    /// The headers for one record.
    fn take(&mut self) -> Headers {
        let left = self.stale.len().saturating_sub(2);
        self.stale.truncate(left);
        let back = self.copies.pop();
        back.unwrap_or_else(|| self.headers.copy())
    }

    /// Takes back the headers of an acknowledged record, unless something was added to them.
    fn give_back(&mut self, token: u64, headers: Headers) {
        let ours = token >> SLOT_SHIFT == u64::from(self.slot);
        if ours && self.copies.len() < KEPT_COPIES && headers.count() == self.count {
            self.copies.push(headers);
        }
    }
}

/// A producer with references to its queue and its topics, which are given back before the producer is
/// closed.
pub(in crate::kafka) struct Sender<C: ProducerContext + 'static> {
    topics: RefCell<Vec<(String, Topic)>>,
    template: RefCell<Option<Template>>,
    queue: Queue,
    producer: Arc<BaseProducer<C>>,
}

struct Topic(NonNull<sys::rd_kafka_topic_t>);

// SAFETY: topics of librdkafka may be used by any thread.
unsafe impl Send for Topic {}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: the reference is ours, and its client still lives: see `Sender`.
        unsafe { sys::rd_kafka_topic_destroy(self.0.as_ptr()) };
    }
}

impl<C: ProducerContext> Deref for Sender<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &BaseProducer<C> {
        &self.producer
    }
}

impl<C: ProducerContext> Sender<C> {
    pub(in crate::kafka) fn new(producer: BaseProducer<C>) -> Result<Self, ClientError> {
        // SAFETY: the producer, dropped after its queue, outlives the reference that it gives.
        let queue =
            unsafe { Queue::owned(sys::rd_kafka_queue_get_main(producer.client().native_ptr())) }?;
        Ok(Self {
            topics: RefCell::default(),
            template: RefCell::default(),
            queue,
            producer: Arc::new(producer),
        })
    }

    /// The client, which lives as long as this is held.
    pub(in crate::kafka) fn shared(&self) -> Arc<BaseProducer<C>> {
        Arc::clone(&self.producer)
    }

    /// From now on records with this slot carry these headers, with or without others behind them.
    pub(in crate::kafka) fn set_template(&self, slot: u16, headers: Headers) {
        let mut template = self.template.borrow_mut();
        *template = Some(Template::new(slot, headers, template.take()));
    }

    /// The template's headers, for one record.
    pub(in crate::kafka) fn template(&self) -> Option<Headers> {
        self.template.borrow_mut().as_mut().map(Template::take)
    }

    fn topic(&self, name: &str) -> Result<*mut sys::rd_kafka_topic_t, ClientError> {
        let mut topics = self.topics.borrow_mut();
        if let Some((_, topic)) = topics.iter().find(|(known, _)| known == name) {
            return Ok(topic.0.as_ptr());
        }
        let text = CString::new(name)?;
        // SAFETY: the client outlives the call, which copies the name.
        let topic = unsafe {
            let client = self.producer.client().native_ptr();
            sys::rd_kafka_topic_new(client, text.as_ptr(), std::ptr::null_mut())
        };
        let Some(topic) = NonNull::new(topic) else {
            return Err(ClientError::MessageProduction(
                RDKafkaErrorCode::InvalidTopic,
            ));
        };
        topics.push((name.to_owned(), Topic(topic)));
        Ok(topic.as_ptr())
    }

    /// Takes a record into the client's queue; gives the headers back where it is refused.
    pub(in crate::kafka) fn send(
        &self,
        record: &RawOutgoing<'_>,
        headers: Option<Headers>,
    ) -> Result<(), (ClientError, Option<Headers>)> {
        use sys::rd_kafka_vtype_t as T;
        type Union = sys::rd_kafka_vu_s__bindgen_ty_1;
        let topic = match self.topic(record.topic) {
            Ok(topic) => topic,
            Err(error) => return Err((error, headers)),
        };
        let memory = |bytes: Option<&[u8]>| Union {
            mem: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
                ptr: bytes
                    .map_or(std::ptr::null(), <[u8]>::as_ptr)
                    .cast_mut()
                    .cast(),
                size: bytes.map_or(0, <[u8]>::len),
            },
        };
        let fields = [
            (T::RD_KAFKA_VTYPE_RKT, Union { rkt: topic }),
            (
                T::RD_KAFKA_VTYPE_PARTITION,
                Union {
                    i32_: record.partition.unwrap_or(BY_KEY),
                },
            ),
            (
                T::RD_KAFKA_VTYPE_MSGFLAGS,
                Union {
                    i: sys::RD_KAFKA_MSG_F_COPY,
                },
            ),
            (T::RD_KAFKA_VTYPE_VALUE, memory(record.value)),
            (T::RD_KAFKA_VTYPE_KEY, memory(record.key)),
            (
                T::RD_KAFKA_VTYPE_OPAQUE,
                Union {
                    ptr: record.token as usize as *mut c_void,
                },
            ),
            // 0 stands for now.
            (
                T::RD_KAFKA_VTYPE_TIMESTAMP,
                Union {
                    i64_: record.timestamp.unwrap_or(0),
                },
            ),
            // No headers where there are none.
            (
                T::RD_KAFKA_VTYPE_HEADERS,
                Union {
                    headers: headers
                        .as_ref()
                        .map_or(std::ptr::null_mut(), |h| h.0.as_ptr()),
                },
            ),
        ]
        .map(|(vtype, u)| sys::rd_kafka_vu_t { vtype, u });
        // SAFETY: client, topic and headers live; each field's type says which part of its union is
        // set; key and value are copied by the flag, and lengths fit. The opaque is a number that
        // nobody follows. Headers belong to the client only where it gives no error.
        unsafe {
            let client = self.producer.client().native_ptr();
            let error = sys::rd_kafka_produceva(client, fields.as_ptr(), fields.len());
            if error.is_null() {
                std::mem::forget(headers);
                return Ok(());
            }
            let code = sys::rd_kafka_error_code(error);
            sys::rd_kafka_error_destroy(error);
            Err((ClientError::MessageProduction(code.into()), headers))
        }
    }

    /// Hands every acknowledgement that is there to `take`: its token, and why its delivery failed, if
    /// it did, with the topic. Where there is none it sleeps up to `timeout` for the first. Gives whether there
    /// were any.
    pub(in crate::kafka) fn serve(
        &self,
        timeout: Duration,
        mut take: impl FnMut(u64, Result<(), (ClientError, String)>),
    ) -> bool {
        let mut millis = 0;
        let mut any = false;
        loop {
            let Some(event) = self.queue.poll(millis) else {
                let wait = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
                if any || wait == 0 || millis > 0 {
                    return any;
                }
                millis = wait;
                continue;
            };
            if event.kind() == sys::RD_KAFKA_EVENT_DR {
                any = true;
                reports(&event, self.template.borrow_mut().as_mut(), &mut take);
            } else {
                event.tell(self.producer.client().context().as_ref());
            }
            if any {
                millis = 0;
            }
        }
    }
}

/// Reads the reports of an event; headers of acknowledged records go back to the template.
fn reports(
    event: &Event,
    mut template: Option<&mut Template>,
    take: &mut impl FnMut(u64, Result<(), (ClientError, String)>),
) {
    loop {
        // SAFETY: the event is live; its messages live as long, and have a topic with a name.
        let (token, report) = unsafe {
            let raw = sys::rd_kafka_event_message_next(event.0.as_ptr());
            let Some(message) = raw.as_ref() else {
                return;
            };
            let token = message._private as usize as u64;
            let report = match message.err {
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {
                    if let Some(template) = &mut template
                        && let Some(headers) = detach(raw.cast_mut())
                    {
                        template.give_back(token, headers);
                    }
                    Ok(())
                }
                error => {
                    let topic = CStr::from_ptr(sys::rd_kafka_topic_name(message.rkt));
                    let topic = topic.to_string_lossy().into_owned();
                    Err((ClientError::MessageProduction(error.into()), topic))
                }
            };
            (token, report)
        };
        take(token, report);
    }
}

/// Takes the headers out of an acknowledged record, if it has any.
///
/// # Safety
/// `message` points to a live message.
unsafe fn detach(message: *mut sys::rd_kafka_message_t) -> Option<Headers> {
    let mut headers = std::ptr::null_mut();
    // SAFETY: promised by the caller; the out-pointer is valid for writes, and what it receives is ours.
    let found = unsafe { sys::rd_kafka_message_detach_headers(message, &raw mut headers) };
    let none = found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    NonNull::new(headers).filter(|_| !none).map(Headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(version: &str) -> Headers {
        let mut headers = Headers::new(2);
        headers.add("model-name", Some(b"m"));
        headers.add("model-version", Some(version.as_bytes()));
        headers
    }

    fn version(headers: &Headers) -> String {
        // SAFETY: the headers are live.
        let found = unsafe { crate::kafka::ffi::header(headers.0.as_ptr(), 1) };
        String::from_utf8(found.unwrap().1.unwrap().to_vec()).unwrap()
    }

    #[test]
    fn only_the_templates_own_headers_serve_again() {
        let token = |slot: u64| (slot << SLOT_SHIFT) + 1_700_000_000_000;
        let mut template = Template::new(1, headers("1"), None);
        let given = [template.take(), template.take(), template.take()];
        for headers in given {
            template.give_back(token(1), headers);
        }
        assert_eq!(template.copies.len(), 3);
        // What is on its way while the next version comes belongs to the last one.
        let late = template.take();
        let mut template = Template::new(2, headers("2"), Some(template));
        template.give_back(token(1), late);
        let mut longer = template.take();
        longer.add("trace", None);
        template.give_back(token(2), longer);
        // Of a record without a slot: a dead letter.
        template.give_back(1, headers("letter"));
        assert!(template.copies.is_empty());
        assert_eq!(version(&template.take()), "2");
        let own = template.take();
        template.give_back(token(2), own);
        assert_eq!(template.copies.len(), 1);
        assert_eq!(version(&template.take()), "2");
        assert!(template.stale.is_empty(), "freed meanwhile");
    }

    #[test]
    fn copies_are_not_kept_without_end() {
        let mut template = Template::new(1, headers("1"), None);
        for _ in 0..KEPT_COPIES + 10 {
            template.give_back(1 << SLOT_SHIFT, headers("1"));
        }
        assert_eq!(template.copies.len(), KEPT_COPIES);
    }
}
