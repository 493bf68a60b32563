//! Writes control-plane records: chunks, manifests, deployment events, status entries. Every
//! record is acknowledged before a call returns.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{DeliveryResult, Header as ClientHeader, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::context::{LogContext, log_through};
use super::{ErrorKind, KafkaError, KafkaSettings, properties};
use crate::record::{Header, OutRecord};

/// How long one record may take to be acknowledged.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a call of the transaction protocol may take.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Records under way at once: bounds memory to about 15 chunks.
const MAX_IN_FLIGHT: usize = 15;

/// Where a record landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

struct Context {
    log: LogContext,
    delivered: Mutex<BTreeMap<usize, Result<Delivery, ClientError>>>,
}

log_through!(Context);

impl ProducerContext for Context {
    type DeliveryOpaque = usize;
    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let result = match result {
            Ok(message) => Ok(Delivery {
                partition: message.partition(),
                offset: message.offset(),
            }),
            Err((error, _)) => Err(error.clone()),
        };
        self.delivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(index, result);
    }
}

/// Producer of control-plane records.
pub struct Publisher {
    producer: BaseProducer<Context>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

impl Publisher {
    /// An idempotent producer. Does not wait for the broker.
    pub fn idempotent(kafka: &KafkaSettings) -> Result<Self, KafkaError> {
        Self::create(&properties::publisher(kafka, None))
    }

    /// A transactional producer. Waits until the broker has fenced every rival of the same id
    /// and ended its open transaction.
    pub fn transactional(kafka: &KafkaSettings, id: &str) -> Result<Self, KafkaError> {
        Self::started(&properties::publisher(kafka, Some(id)), id)
    }

    /// Like [`Self::transactional`], for records that other programs wrote: of any size, each in
    /// a batch of its own, so that a topic takes it where it takes the record. Keys decide the
    /// partition as with Java's producer.
    pub fn transactional_for_any(kafka: &KafkaSettings, id: &str) -> Result<Self, KafkaError> {
        Self::started(&properties::republisher(kafka, id), id)
    }

    fn started(config: &ClientConfig, id: &str) -> Result<Self, KafkaError> {
        let publisher = Self::create(config)?;
        publisher.step("starting transactions as", id, |producer| {
            producer.init_transactions(TRANSACTION_TIMEOUT)
        })?;
        Ok(publisher)
    }

    fn create(config: &ClientConfig) -> Result<Self, KafkaError> {
        let context = Context {
            log: LogContext::new("publisher"),
            delivered: Mutex::default(),
        };
        let producer = config
            .create_with_context(context)
            .map_err(|error| KafkaError::client("creating a producer", &error))?;
        Ok(Self { producer })
    }

    fn error(&self, context: String, error: &ClientError) -> KafkaError {
        // "Fatal error" says nothing by itself.
        if let Some((code, _)) = self.producer.client().fatal_error() {
            return KafkaError::client(context, &ClientError::Global(code));
        }
        KafkaError::client(context, error).with_cause(self.producer.context().log.last_error())
    }

    /// One call of the transaction protocol, repeated while librdkafka says that it may be.
    fn step(
        &self,
        doing: &str,
        what: &str,
        call: impl Fn(&BaseProducer<Context>) -> Result<(), ClientError>,
    ) -> Result<(), KafkaError> {
        let deadline = Instant::now() + TRANSACTION_TIMEOUT;
        loop {
            match call(&self.producer) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    let error = self.error(format!("{doing} {what:?}"), &error);
                    if !error.is_retriable() || Instant::now() >= deadline {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Result<(), KafkaError> {
        self.step("beginning", "transaction", BaseProducer::begin_transaction)
    }

    /// Commits the transaction. After an error the outcome is unknown until a new producer of the
    /// same id has started and the topic has been read.
    pub fn commit(&self) -> Result<(), KafkaError> {
        self.step("committing", "transaction", |producer| {
            producer.commit_transaction(TRANSACTION_TIMEOUT)
        })
    }

    /// Aborts the transaction.
    pub fn abort(&self) -> Result<(), KafkaError> {
        self.step("aborting", "transaction", |producer| {
            producer.abort_transaction(TRANSACTION_TIMEOUT)
        })
    }

    /// Writes one record and waits for its acknowledgement.
    pub fn send(&mut self, record: &OutRecord) -> Result<Delivery, KafkaError> {
        self.enqueue(record, 0)?;
        self.wait_for(0, &record.topic)
    }

    /// Writes records in order, several under way at once, and waits for all of them.
    /// `progress` is called with the number acknowledged so far. Gives their offsets.
    pub fn send_all(
        &mut self,
        records: impl Iterator<Item = OutRecord>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<i64>, KafkaError> {
        let mut offsets = Vec::new();
        let mut topic = String::new();
        let mut sent = 0;
        for record in records {
            if sent - offsets.len() >= MAX_IN_FLIGHT {
                offsets.push(self.wait_for(offsets.len(), &record.topic)?.offset);
                progress(offsets.len());
            }
            self.enqueue(&record, sent)?;
            topic = record.topic;
            sent += 1;
        }
        while offsets.len() < sent {
            offsets.push(self.wait_for(offsets.len(), &topic)?.offset);
            progress(offsets.len());
        }
        Ok(offsets)
    }

    fn enqueue(&self, record: &OutRecord, index: usize) -> Result<(), KafkaError> {
        let deadline = Instant::now() + DELIVERY_TIMEOUT;
        loop {
            let mut out = BaseRecord::with_opaque_to(&record.topic, index);
            out.key = record.key.as_deref();
            out.payload = record.value.as_deref();
            out.partition = record.partition;
            out.timestamp = record.timestamp;
            out.headers = (!record.headers.is_empty()).then(|| headers(&record.headers));
            let Err((error, _)) = self.producer.send::<[u8], [u8]>(out) else {
                return Ok(());
            };
            let error = self.error(format!("writing to topic {:?}", record.topic), &error);
            if error.kind != ErrorKind::QueueFull || Instant::now() >= deadline {
                return Err(error);
            }
            self.serve();
        }
    }

    /// Serves acknowledgements; sleeps by itself, since the client crate's wait would spin.
    fn serve(&self) {
        std::thread::park_timeout(Duration::from_millis(1));
        self.producer.poll(Duration::ZERO);
    }

    fn wait_for(&self, index: usize, topic: &str) -> Result<Delivery, KafkaError> {
        let deadline = Instant::now() + DELIVERY_TIMEOUT;
        let context = || format!("writing to topic {topic:?}");
        loop {
            let delivered = self.producer.context();
            let result = delivered
                .delivered
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&index);
            match result {
                Some(Ok(delivery)) => return Ok(delivery),
                Some(Err(error)) => return Err(self.error(context(), &error)),
                None if Instant::now() >= deadline => {
                    let message = format!("not acknowledged within {DELIVERY_TIMEOUT:?}");
                    return Err(KafkaError::new(ErrorKind::Retriable, context(), message)
                        .with_cause(self.producer.context().log.last_error()));
                }
                None => self.serve(),
            }
        }
    }
}

/// Headers as the client takes them.
pub(super) fn headers(headers: &[Header]) -> OwnedHeaders {
    headers.iter().fold(
        OwnedHeaders::new_with_capacity(headers.len()),
        |all, header| {
            all.insert(ClientHeader {
                key: &header.key,
                value: header.value.as_deref(),
            })
        },
    )
}
