//! A worker's producer: predictions and dead letters, acknowledged in the thread that polls.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

use super::context::{LogContext, log_through};
use super::error::kind_of;
use super::ffi::produce::{Headers, RawOutgoing, Sender};
use super::{ClientMemory, ErrorKind, KafkaError, KafkaSettings, RecordLimits, ffi, properties};

/// Where the slot in a token begins.
pub const SLOT_SHIFT: u32 = ffi::produce::SLOT_SHIFT;

/// Headers of an outgoing record.
#[derive(Debug)]
pub struct RecordHeaders(Option<Headers>);

impl RecordHeaders {
    /// No headers, with room for `capacity`.
    pub fn new(capacity: usize) -> Self {
        Self((capacity > 0).then(|| Headers::new(capacity)))
    }

    /// Appends a header.
    pub fn with(mut self, key: &str, value: Option<&[u8]>) -> Self {
        let headers = self.0.get_or_insert_with(|| Headers::new(1));
        headers.add(key, value);
        self
    }
}

/// A record to send; its bytes are copied.
#[derive(Debug)]
pub struct OutgoingRecord<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition; `None` leaves it to the key.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// The headers.
    pub headers: RecordHeaders,
    /// Comes back when the record is acknowledged. Its highest 16 bits, from [`SLOT_SHIFT`] on, are the
    /// slot: another one than the template's, unless the headers begin with those of the template.
    pub token: u64,
}

/// Why a record was not taken.
#[derive(Debug)]
pub enum SendError {
    /// The queue is full: poll, then send again.
    Full,
    /// The record is larger than the topic allows.
    TooLarge(KafkaError),
    /// The producer cannot go on.
    Failed(KafkaError),
}

#[derive(Debug, Default)]
struct Delivered {
    count: u64,
    tokens: Vec<u64>,
    /// The first failed delivery, and its topic.
    failure: Option<(String, ClientError)>,
}

impl Delivered {
    fn take(&mut self, report: Result<u64, (ClientError, String)>) {
        self.count += 1;
        match report {
            Ok(token) => self.tokens.push(token),
            Err((error, topic)) => {
                self.failure.get_or_insert((topic, error));
            }
        }
    }
}

pub(super) struct Context {
    pub(super) log: LogContext,
    delivered: Mutex<Delivered>,
}

log_through!(Context);

impl ProducerContext for Context {
    type DeliveryOpaque = usize;
    /// Reached by way of the crate's calls that serve acknowledgements while they wait.
    fn delivery(&self, result: &DeliveryResult<'_>, token: usize) {
        let mut delivered = self
            .delivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        delivered.take(match result {
            Ok(_) => Ok(token as u64),
            Err((error, record)) => Err((error.clone(), record.topic().to_owned())),
        });
    }
}

/// A worker's producer. Not shared: its counters belong to one thread.
pub struct Producer {
    pub(super) client: Sender<Context>,
    sent: Cell<u64>,
    /// How long a transaction may stay open; zero without transactions.
    pub(super) transaction_timeout: Duration,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}

impl Producer {
    /// A producer for topics that allow `limits`. Does not wait for the broker.
    pub fn new(
        kafka: &KafkaSettings,
        memory: ClientMemory,
        limits: RecordLimits,
    ) -> Result<Self, KafkaError> {
        Self::create(&properties::producer(kafka, memory, limits), Duration::ZERO)
    }

    pub(super) fn create(config: &ClientConfig, timeout: Duration) -> Result<Self, KafkaError> {
        let context = Context {
            log: LogContext::new("producer"),
            delivered: Mutex::default(),
        };
        let producer: BaseProducer<Context> = config
            .create_with_context(context)
            .map_err(|error| KafkaError::client("creating a producer", &error))?;
        let client = Sender::new(producer)
            .map_err(|error| KafkaError::client("creating a producer", &error))?;
        Ok(Self {
            client,
            sent: Cell::new(0),
            transaction_timeout: timeout,
        })
    }

    fn delivered(&self) -> std::sync::MutexGuard<'_, Delivered> {
        self.client
            .context()
            .delivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a record into the queue.
    ///
    /// # Errors
    /// Gives the record's headers back where the queue is full.
    pub fn send(&self, record: &mut OutgoingRecord<'_>) -> Result<(), SendError> {
        let out = RawOutgoing {
            topic: record.topic,
            partition: record.partition,
            key: record.key,
            value: record.value,
            timestamp: record.timestamp,
            token: record.token,
        };
        match self.client.send(&out, record.headers.0.take()) {
            Ok(()) => {
                self.sent.set(self.sent.get() + 1);
                Ok(())
            }
            Err((error, headers)) => {
                record.headers.0 = headers;
                let context = format!("writing to topic {:?}", record.topic);
                let error = self.explain(KafkaError::client(context, &error));
                Err(match error.kind {
                    ErrorKind::QueueFull => SendError::Full,
                    ErrorKind::TooLarge => SendError::TooLarge(error),
                    _ => SendError::Failed(error),
                })
            }
        }
    }

    /// Serves the acknowledgements that are there; where there are none, sleeps at most `timeout` for
    /// the first.
    pub fn poll(&self, timeout: Duration) {
        let mut delivered = self.delivered();
        self.client.serve(timeout, |report| delivered.take(report));
    }

    /// From now on records whose tokens have this slot carry `headers`, with or without others behind
    /// them: what [`Self::template`] gives. A slot is used again only when no record of it is in flight.
    pub fn set_template(&self, slot: u16, headers: RecordHeaders) {
        if let Some(headers) = headers.0 {
            self.client.set_template(slot, headers);
        }
    }

    /// The headers of the template, for one record; none where there is no template.
    pub fn template(&self) -> RecordHeaders {
        RecordHeaders(self.client.template())
    }

    /// Records sent and not yet acknowledged.
    pub fn in_flight(&self) -> u64 {
        self.sent.get() - self.delivered().count
    }

    /// Moves the tokens of acknowledged records into `tokens`.
    pub fn take_acknowledged(&self, tokens: &mut Vec<u64>) {
        tokens.append(&mut self.delivered().tokens);
    }

    /// The first failed delivery, if there was one: nothing may be committed past it, and the
    /// producer is to be replaced.
    pub fn failure(&self) -> Option<KafkaError> {
        let failure = self.delivered().failure.clone();
        failure
            .map(|(topic, error)| {
                self.explain(KafkaError::client(
                    format!("writing to topic {topic:?}"),
                    &error,
                ))
            })
            .map(|error| error.with_cause(self.client.context().log.last_error()))
    }

    /// Once a client has failed for good, every call says only that: the cause says what to do.
    pub(super) fn explain(&self, mut error: KafkaError) -> KafkaError {
        if let Some((code, text)) = self.client.client().fatal_error() {
            error.kind = match kind_of(code) {
                kind @ (ErrorKind::Fenced | ErrorKind::Authorization) => kind,
                _ => ErrorKind::Fatal,
            };
            error.message = text;
        }
        error
    }

    /// Forgets failed deliveries: their transaction is aborted.
    pub(super) fn clear_failure(&self) {
        let mut delivered = self.delivered();
        delivered.failure = None;
        delivered.tokens.clear();
    }

    /// What the client last heard from the network, where that was an error.
    pub fn last_error(&self) -> Option<String> {
        self.client.context().log.last_error()
    }
}
