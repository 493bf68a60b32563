//! Writes the events: transactions of a random size, of which 1 in 32 is aborted, with numbers
//! that grow for each key and never come again. What was committed, the input topic itself tells.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use super::event::{HEADER, Kind, Mark};
use super::rng::Rng;

/// Keys there are; key n lives in partition n modulo the partitions.
pub const KEYS: u64 = 64;
/// Most events of a transaction.
const LARGEST: u64 = 48;
/// Pause between two transactions, milliseconds.
const PAUSE: (u64, u64) = (20, 120);
/// One in so many transactions is aborted.
const ABORTED: u64 = 32;
/// How long one call to the broker may take before the producer is made anew.
const CALL: Duration = Duration::from_secs(15);

/// The running feed.
#[derive(Debug)]
pub struct Feed {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    committed: AtomicU64,
    aborted: AtomicU64,
    unknown: AtomicU64,
    rebuilt: AtomicU64,
    /// Kinds that go at the end of the next transaction, in every partition.
    poison: Mutex<Vec<Kind>>,
    poisoned: AtomicU64,
}

/// What the feed has done, in events.
#[derive(Debug, Clone, Copy)]
pub struct Fed {
    pub committed: u64,
    pub aborted: u64,
    /// In transactions whose end is not known.
    pub unknown: u64,
    pub poisoned: u64,
    pub rebuilt: u64,
}

/// Where it writes.
#[derive(Debug, Clone)]
pub struct Target {
    pub servers: String,
    pub topic: String,
    pub partitions: u64,
}

impl Feed {
    pub fn start(target: Target, samples: Vec<String>, seed: u64) -> Self {
        let shared = Arc::new(Shared::default());
        let mut writer = Writer {
            target,
            samples,
            rng: Rng::branch(seed, 2),
            seq: 0,
            shared: Arc::clone(&shared),
        };
        let thread = thread::spawn(move || writer.run());
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Puts events of these kinds at the end of the next transaction.
    pub fn poison(&self, kinds: &[Kind]) {
        let mut waiting = self
            .shared
            .poison
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        waiting.extend(kinds);
    }

    pub fn fed(&self) -> Fed {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Fed {
            committed: read(&self.shared.committed),
            aborted: read(&self.shared.aborted),
            unknown: read(&self.shared.unknown),
            poisoned: read(&self.shared.poisoned),
            rebuilt: read(&self.shared.rebuilt),
        }
    }

    /// Ends it after its transaction.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the feed does not panic");
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

struct Writer {
    target: Target,
    samples: Vec<String>,
    rng: Rng,
    seq: u64,
    shared: Arc<Shared>,
}

impl Writer {
    fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    fn run(&mut self) {
        while !self.stopping() {
            // An error is the broker's fault, as it is meant to be: a new producer ends what the
            // last one left open.
            if self.produce().is_err() {
                self.shared.rebuilt.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(200));
            }
        }
        // Nothing stays open.
        drop(self.producer());
    }

    fn producer(&self) -> Result<BaseProducer, KafkaError> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.target.servers)
            .set("transactional.id", format!("{}-feed", self.target.topic))
            .set("transaction.timeout.ms", "10000")
            .set("linger.ms", "0")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "300")
            .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg)
            .create()?;
        producer.init_transactions(CALL)?;
        Ok(producer)
    }

    fn produce(&mut self) -> Result<(), KafkaError> {
        let producer = self.producer()?;
        while !self.stopping() {
            self.transaction(&producer)?;
            let pause = self.rng.between(PAUSE.0, PAUSE.1);
            thread::sleep(Duration::from_millis(pause));
        }
        Ok(())
    }

    /// One transaction; whatever it comes to, its numbers never come again.
    fn transaction(&mut self, producer: &BaseProducer) -> Result<(), KafkaError> {
        let poison = std::mem::take(
            &mut *{ &self.shared.poison }
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let abort = poison.is_empty() && self.rng.one_in(ABORTED);
        producer.begin_transaction()?;
        let mut count = self.rng.between(1, LARGEST);
        for _ in 0..count {
            let key = self.rng.between(0, KEYS);
            self.send(producer, key, Kind::Good)?;
        }
        for kind in poison {
            for partition in 0..self.target.partitions {
                self.send(producer, partition, kind)?;
                self.shared.poisoned.fetch_add(1, Ordering::SeqCst);
                count += 1;
            }
        }
        // The wrapper's commit would wait 100 ms for what is still in flight.
        let deadline = std::time::Instant::now() + CALL;
        while producer.in_flight_count() > 0 && std::time::Instant::now() < deadline {
            producer.poll(Duration::from_millis(1));
        }
        let (done, counter) = if abort {
            (producer.abort_transaction(CALL), &self.shared.aborted)
        } else {
            (producer.commit_transaction(CALL), &self.shared.committed)
        };
        let counter = if done.is_ok() {
            counter
        } else {
            &self.shared.unknown
        };
        counter.fetch_add(count, Ordering::SeqCst);
        done
    }

    fn send(&mut self, producer: &BaseProducer, key: u64, kind: Kind) -> Result<(), KafkaError> {
        self.seq += 1;
        let mark = Mark {
            key: key as u32,
            seq: self.seq,
            kind,
        };
        let (record_key, value) = (mark.record_key(), mark.value(&self.samples));
        let text = mark.text();
        let headers = OwnedHeaders::new().insert(Header {
            key: HEADER,
            value: Some(&text),
        });
        let mut record = BaseRecord::<_, _, ()>::to(&self.target.topic)
            .partition((key % self.target.partitions) as i32)
            .key(&record_key)
            .headers(headers);
        record.payload = value.as_ref();
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    record = again;
                    producer.poll(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }
}

/// Takes a transactional id away from whoever has it.
pub fn take_over(servers: &str, transactional_id: &str) -> Result<(), KafkaError> {
    let producer: BaseProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", "10000")
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg)
        .create()?;
    producer.init_transactions(CALL)
}
