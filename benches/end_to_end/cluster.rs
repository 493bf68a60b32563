//! The broker, and what the harness does with topics: create, fill, watch, read back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use swapstream::kafka::{Admin, DEFAULT_KAFKA_MEMORY, KafkaSettings};

use crate::store::Store;
use crate::support::{Broker, BrokerOptions, eventually, unique};
use crate::workload::Workload;

/// How long anything may take that only has to work.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Partitions of input and output topics.
pub const PARTITIONS: i32 = 4;

/// One broker for all runs.
pub struct Cluster {
    broker: Broker,
    // Dropped after the broker.
    store: Store,
    watcher: BaseConsumer,
    admin: Admin,
}

/// A record that was read back.
#[derive(Debug)]
pub struct Output {
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub headers: usize,
}

impl Cluster {
    /// Starts Apache Kafka with heap and JVM options of its own start script.
    pub fn start(store: Store) -> Self {
        let options = BrokerOptions {
            heap_mb: 1024,
            as_shipped: true,
            properties: [
                ("num.io.threads", "4"),
                ("log.segment.bytes", "268435456"),
                // Deleted topics make room at once.
                ("log.segment.delete.delay.ms", "1000"),
                ("group.min.session.timeout.ms", "1000"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
            data_dir: Some(store.path().to_owned()),
            ..BrokerOptions::default()
        };
        let broker = Broker::start(&options).unwrap_or_else(|error| panic!("{error}"));
        let watcher = client(broker.bootstrap()).create().unwrap();
        let admin = Admin::new(&settings(broker.bootstrap())).unwrap();
        Self {
            broker,
            store,
            watcher,
            admin,
        }
    }

    pub fn bootstrap(&self) -> &str {
        self.broker.bootstrap()
    }

    /// Where the broker's data lies.
    pub fn storage(&self) -> &'static str {
        if self.store.in_memory {
            "memory"
        } else {
            "disk"
        }
    }

    pub fn version(&self) -> &str {
        self.broker.version()
    }

    /// Creates a topic of a fresh name.
    pub fn topic(&self, prefix: &str, config: &[(&str, &str)]) -> String {
        let name = unique(prefix);
        self.create(&name, PARTITIONS, config);
        // A topic is there before all of its partitions have a leader, and a client that asks for
        // one too early remembers that there was none.
        eventually("the topic has leaders", PATIENCE, || {
            let metadata = self.watcher.fetch_metadata(Some(&name), PATIENCE);
            let metadata = metadata.map_err(|error| error.to_string())?;
            let partitions = metadata.topics()[0].partitions();
            let led = partitions.iter().filter(|p| p.leader() >= 0).count();
            let all = led == PARTITIONS as usize;
            all.then_some(()).ok_or_else(|| format!("{led} leaders"))
        });
        name
    }

    pub fn create(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        self.admin
            .create_topic(name, partitions, config, PATIENCE)
            .unwrap();
    }

    /// A topic for outputs: the broker's clock says when a record became visible.
    pub fn output_topic(&self, prefix: &str) -> String {
        let config = [
            ("message.timestamp.type", "LogAppendTime"),
            ("max.message.bytes", "4000000"),
        ];
        self.topic(prefix, &config)
    }

    /// Deletes topics whose records nobody needs any more.
    pub fn delete(&self, names: &[&str]) {
        self.admin.delete_topics(names, PATIENCE).unwrap();
    }

    /// Fills `topic` with `count` of the workload's events: record n goes to partition
    /// n mod [`PARTITIONS`].
    pub fn fill(&self, topic: &str, workload: &Workload, count: usize) {
        let producer = filler(self.bootstrap(), workload.compression);
        for number in 0..count {
            let (key, value) = &workload.events[number % workload.events.len()];
            let partition = (number % PARTITIONS as usize) as i32;
            send(&producer, topic, partition, key, value);
        }
        flush(&producer);
    }

    /// The end of each partition.
    pub fn ends(&self, topic: &str) -> Vec<i64> {
        let all = || {
            let mut asked = TopicPartitionList::new();
            for partition in 0..PARTITIONS {
                let added = asked.add_partition_offset(topic, partition, Offset::End);
                added.map_err(|error| error.to_string())?;
            }
            // One request for all partitions: a broker that is asked often has less for what is timed.
            let ends = self.watcher.offsets_for_times(asked, PATIENCE);
            let ends = ends.map_err(|error| error.to_string())?;
            let end = |partition| match ends.find_partition(topic, partition).map(|e| e.offset()) {
                Some(Offset::Offset(end)) => Ok(end),
                other => Err(format!("partition {partition} of {topic}: {other:?}")),
            };
            (0..PARTITIONS).map(end).collect()
        };
        // The leader of a new partition may not know yet that it is.
        eventually("the ends of a topic", PATIENCE, all)
    }

    /// Records in `topic`, transaction markers counted.
    pub fn count(&self, topic: &str) -> i64 {
        self.ends(topic).iter().sum()
    }

    /// Hands every committed record of `topic` to `take`, each partition in order.
    pub fn read(&self, topic: &str, mut take: impl FnMut(i32, i64, Output)) {
        let mut left: BTreeMap<i32, i64> = self
            .ends(topic)
            .into_iter()
            .zip(0..)
            .filter(|(end, _)| *end > 0)
            .map(|(end, partition)| (partition, end))
            .collect();
        let mut config = client(self.bootstrap());
        config
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("queued.max.messages.kbytes", "65536")
            .set("fetch.queue.backoff.ms", "5");
        let reader: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        for partition in left.keys() {
            list.add_partition_offset(topic, *partition, Offset::Beginning)
                .unwrap();
        }
        reader.assign(&list).unwrap();
        let mut heard = Instant::now();
        while !left.is_empty() {
            assert!(heard.elapsed() < PATIENCE, "{topic} is not read to its end");
            match reader.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let output = Output {
                        timestamp: message.timestamp().to_millis().unwrap(),
                        key: message.key().map(<[u8]>::to_vec),
                        value: message.payload().unwrap_or_default().to_vec(),
                        headers: message.headers().map_or(0, Headers::count),
                    };
                    take(message.partition(), message.offset(), output);
                }
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => {
                    left.remove(&partition);
                }
                Some(Err(error)) => panic!("{topic}: {error}"),
                None => {}
            }
        }
    }
}

pub fn settings(bootstrap: &str) -> KafkaSettings {
    KafkaSettings {
        bootstrap_servers: bootstrap.to_owned(),
        client: BTreeMap::new(),
        memory: DEFAULT_KAFKA_MEMORY,
    }
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false");
    config
}

/// A producer of input events.
fn filler(bootstrap: &str, compression: &str) -> BaseProducer {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("linger.ms", "20")
        .set("compression.type", compression)
        // Without it a retry changes the order, which says which event a record is.
        .set("enable.idempotence", "true")
        .set("queue.buffering.max.messages", "500000")
        .set("queue.buffering.max.kbytes", "131072")
        .set("batch.size", "262144")
        .create()
        .unwrap()
}

/// Takes a record into the producer's queue, waiting for room.
fn send(producer: &BaseProducer, topic: &str, partition: i32, key: &[u8], value: &[u8]) {
    let mut record = BaseRecord::to(topic)
        .partition(partition)
        .key(key)
        .payload(value);
    loop {
        match producer.send(record) {
            Ok(()) => break,
            Err((error, back)) => {
                let full =
                    error.rdkafka_error_code() == Some(rdkafka::error::RDKafkaErrorCode::QueueFull);
                assert!(full, "{error}");
                producer.poll(Duration::from_millis(1));
                record = back;
            }
        }
    }
}

fn flush(producer: &BaseProducer) {
    producer.flush(PATIENCE).unwrap();
}
