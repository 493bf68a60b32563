//! Writes control-plane records: chunks, manifests, deployment events, status entries. Every
//! record is acknowledged before a call returns.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{DeliveryResult, Header as ClientHeader, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::context::{LogContext, log_through};
use super::{ErrorKind, KafkaError, KafkaSettings, properties};
use crate::record::{Header, OutRecord};

/// How long one record may take to be acknowledged, if nothing else is said.
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

/// Acknowledgements by the record's number, which is given once only: what comes after its time is
/// nobody else's.
#[derive(Debug, Default)]
struct Answers {
    next: usize,
    /// Records that somebody waits for.
    awaited: BTreeMap<usize, Option<Result<Delivery, ClientError>>>,
}

impl Answers {
    /// The number of a record that is waited for from now on.
    fn expect(&mut self) -> usize {
        let number = self.next;
        self.next += 1;
        self.awaited.insert(number, None);
        number
    }

    fn give(&mut self, number: usize, answer: Result<Delivery, ClientError>) {
        // Nobody waits any more for a record that was given up.
        if let Some(awaited) = self.awaited.get_mut(&number) {
            *awaited = Some(answer);
        }
    }

    /// The answer, if it is there; it is not waited for any more then.
    fn take(&mut self, number: usize) -> Option<Result<Delivery, ClientError>> {
        self.awaited.get(&number)?.as_ref()?;
        self.awaited.remove(&number).flatten()
    }
}

struct Context {
    log: LogContext,
    answers: Mutex<Answers>,
}

impl Context {
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

log_through!(Context);

impl ProducerContext for Context {
    type DeliveryOpaque = usize;
    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let result = match result {
            Ok(message) => Ok(Delivery {
                partition: message.partition(),
                offset: message.offset(),
            }),
            Err((error, _)) => Err(error.clone()),
        };
        self.answers().give(number, result);
    }
}

/// Producer of control-plane records.
pub struct Publisher {
    producer: BaseProducer<Context>,
    /// How long one record may take to be acknowledged.
    patience: Duration,
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
            answers: Mutex::default(),
        };
        let producer = config
            .create_with_context(context)
            .map_err(|error| KafkaError::client("creating a producer", &error))?;
        Ok(Self {
            producer,
            patience: DELIVERY_TIMEOUT,
        })
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
        let number = self.enqueue(record)?;
        self.wait_for(number, &record.topic)
    }

    /// Writes records in order, several under way at once, and waits for all of them.
    /// `progress` is called with the number acknowledged so far. Gives their offsets.
    pub fn send_all(
        &mut self,
        records: impl Iterator<Item = OutRecord>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<i64>, KafkaError> {
        let sent = self.send_in_turn(records, progress);
        if sent.is_err() {
            // Nobody waits for the others any more.
            self.producer.context().answers().awaited.clear();
        }
        sent
    }

    fn send_in_turn(
        &self,
        records: impl Iterator<Item = OutRecord>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<i64>, KafkaError> {
        let mut offsets = Vec::new();
        let mut under_way: VecDeque<(usize, String)> = VecDeque::new();
        let mut records = records.fuse();
        loop {
            while under_way.len() < MAX_IN_FLIGHT
                && let Some(record) = records.next()
            {
                under_way.push_back((self.enqueue(&record)?, record.topic));
            }
            let Some((number, topic)) = under_way.pop_front() else {
                return Ok(offsets);
            };
            offsets.push(self.wait_for(number, &topic)?.offset);
            progress(offsets.len());
        }
    }

    /// Gives the record's number.
    fn enqueue(&self, record: &OutRecord) -> Result<usize, KafkaError> {
        let number = self.producer.context().answers().expect();
        let queued = self.queue(record, number);
        if queued.is_err() {
            self.give_up(number);
        }
        queued.map(|()| number)
    }

    fn give_up(&self, number: usize) {
        self.producer.context().answers().awaited.remove(&number);
    }

    fn queue(&self, record: &OutRecord, number: usize) -> Result<(), KafkaError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let mut out = BaseRecord::with_opaque_to(&record.topic, number);
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

    fn wait_for(&self, number: usize, topic: &str) -> Result<Delivery, KafkaError> {
        let deadline = Instant::now() + self.patience;
        let context = || format!("writing to topic {topic:?}");
        loop {
            let answer = self.producer.context().answers().take(number);
            match answer {
                Some(Ok(delivery)) => return Ok(delivery),
                Some(Err(error)) => return Err(self.error(context(), &error)),
                None if Instant::now() >= deadline => {
                    self.give_up(number);
                    let message = format!("not acknowledged within {:?}", self.patience);
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

#[cfg(test)]
mod tests {
    use super::super::DEFAULT_KAFKA_MEMORY;
    use super::super::embedded::EmbeddedBroker;
    use super::*;

    #[test]
    fn an_answer_that_comes_too_late_is_not_the_next_records() {
        let topics = [("slow".to_owned(), 1), ("next".to_owned(), 2)];
        let broker = EmbeddedBroker::start(&topics).unwrap();
        let mut publisher = Publisher::idempotent(&KafkaSettings {
            bootstrap_servers: broker.bootstrap_servers().to_owned(),
            client: BTreeMap::new(),
            memory: DEFAULT_KAFKA_MEMORY,
        })
        .unwrap();
        let record = |topic: &str, partition| OutRecord {
            topic: topic.to_owned(),
            partition: Some(partition),
            value: Some(b"x".to_vec()),
            ..OutRecord::default()
        };
        // Given up before anything can have answered, and acknowledged later all the same.
        publisher.patience = Duration::ZERO;
        let error = publisher.send(&record("slow", 0)).unwrap_err();
        assert!(
            error.to_string().contains("not acknowledged within"),
            "{error}"
        );
        publisher.patience = DELIVERY_TIMEOUT;
        let delivery = publisher.send(&record("next", 1)).unwrap();
        assert_eq!((delivery.partition, delivery.offset), (1, 0));
        publisher.producer.flush(DELIVERY_TIMEOUT).unwrap();
        let answers = publisher.producer.context().answers();
        assert!(answers.awaited.is_empty(), "{answers:?}");
        assert_eq!(answers.next, 2);
    }

    #[test]
    fn many_records_are_acknowledged_in_order() {
        let broker = EmbeddedBroker::start(&[("many".to_owned(), 1)]).unwrap();
        let mut publisher = Publisher::idempotent(&KafkaSettings {
            bootstrap_servers: broker.bootstrap_servers().to_owned(),
            client: BTreeMap::new(),
            memory: DEFAULT_KAFKA_MEMORY,
        })
        .unwrap();
        let count = MAX_IN_FLIGHT * 3 + 1;
        let records = (0..count).map(|n| OutRecord {
            topic: "many".to_owned(),
            partition: Some(0),
            value: Some(n.to_string().into_bytes()),
            ..OutRecord::default()
        });
        let mut told = Vec::new();
        let offsets = publisher.send_all(records, &mut |n| told.push(n)).unwrap();
        assert_eq!(offsets, (0..count as i64).collect::<Vec<_>>());
        assert_eq!(told, (1..=count).collect::<Vec<_>>());
        assert!(
            publisher
                .send_all(std::iter::empty(), &mut |_| {})
                .unwrap()
                .is_empty()
        );
    }
}
