//! A worker's producer: predictions and dead letters, acknowledged in the thread that polls.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

use super::context::{LogContext, log_through};
use super::error::kind_of;
use super::ffi::produce::{Headers, RawOutgoing, Sender};
use super::{ClientShare, ErrorKind, KafkaError, KafkaSettings, RecordLimits, ffi, properties};

/// Where the slot in a token begins.
pub const SLOT_SHIFT: u32 = ffi::produce::SLOT_SHIFT;

/// The bit of a token below the slot: which of two spans the record belongs to.
const SPAN_SHIFT: u32 = SLOT_SHIFT - 1;

/// The bits of a token below the span: the caller's own.
pub const TOKEN_BITS: u32 = SPAN_SHIFT;

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
    /// slot: another one than the template's, unless the headers begin with those of the template. The
    /// lowest [`TOKEN_BITS`] are free; the bit between is 0.
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
    /// Answered records of each span.
    count: [u64; 2],
    tokens: Vec<u64>,
    /// The first failed delivery, and its topic.
    failure: Option<(String, ClientError)>,
}

impl Delivered {
    fn take(&mut self, token: u64, report: Result<(), (ClientError, String)>) {
        let [first, second] = &mut self.count;
        let second_span = token >> SPAN_SHIFT & 1 == 1;
        *if second_span { second } else { first } += 1;
        match report {
            Ok(()) => self.tokens.push(token & !(1 << SPAN_SHIFT)),
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
        let report = match result {
            Ok(_) => Ok(()),
            Err((error, record)) => Err((error.clone(), record.topic().to_owned())),
        };
        delivered.take(token as u64, report);
    }
}

/// A worker's producer. Not shared: its counters belong to one thread.
pub struct Producer {
    pub(super) client: Sender<Context>,
    /// Records sent in each span.
    sent: Cell<[u64; 2]>,
    /// Which of the two goes on.
    second_span: Cell<bool>,
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
        share: ClientShare,
        limits: RecordLimits,
    ) -> Result<Self, KafkaError> {
        Self::create(&properties::producer(kafka, share, limits), Duration::ZERO)
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
            sent: Cell::default(),
            second_span: Cell::new(false),
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
            token: record.token | u64::from(self.second_span.get()) << SPAN_SHIFT,
        };
        match self.client.send(&out, record.headers.0.take()) {
            Ok(()) => {
                let [first, second] = self.sent.get();
                self.sent.set(if self.second_span.get() {
                    [first, second + 1]
                } else {
                    [first + 1, second]
                });
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
        self.client
            .serve(timeout, |token, report| delivered.take(token, report));
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
        let sum = |of: [u64; 2]| of.iter().sum::<u64>();
        sum(self.sent.get()) - sum(self.delivered().count)
    }

    /// Begins a span: [`Self::in_flight_before`] counts what was sent until now. What was sent before the
    /// last span began must be answered.
    pub fn begin_span(&self) {
        debug_assert_eq!(self.in_flight_before(), 0, "two spans at most");
        self.second_span.set(!self.second_span.get());
    }

    /// Records sent before the span began and not yet acknowledged. Acknowledgements of different
    /// partitions overtake each other, so that only counting by span tells when all of one are there.
    pub fn in_flight_before(&self) -> u64 {
        let ([first, second], [one, two]) = (self.sent.get(), self.delivered().count);
        if self.second_span.get() {
            first - one
        } else {
            second - two
        }
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
                // What was refused says of what kind it is; the text names it.
                _ if code == RDKafkaErrorCode::GaplessGuarantee => error.kind,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_span_and_tokens_come_back_without_it() {
        let mut delivered = Delivered::default();
        let timestamp = 1_790_000_000_000;
        let token = 7 << SLOT_SHIFT | timestamp;
        delivered.take(token, Ok(()));
        delivered.take(token | 1 << SPAN_SHIFT, Ok(()));
        let error = ClientError::MessageProduction(RDKafkaErrorCode::QueueFull);
        delivered.take(1 << SPAN_SHIFT, Err((error, "t".to_owned())));
        assert_eq!(delivered.count, [1, 2]);
        assert_eq!(delivered.tokens, [token, token]);
        assert_eq!(delivered.failure.unwrap().0, "t");
    }
}
