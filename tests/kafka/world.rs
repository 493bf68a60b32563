//! One test's world on a broker: its topics, its configuration, what is written to them. `commands`
//! is its command line, `instance` what runs in it, `tail` reads its topics.

mod commands;
mod instance;
mod tail;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use swapstream::kafka::{
    Admin, ClientShare, DEFAULT_KAFKA_MEMORY, KafkaSettings, OutgoingRecord, Producer, Publisher,
    RecordHeaders, RecordLimits, SendError,
};
use swapstream::record::{Header, OutRecord, OwnedRecord};
use tempfile::TempDir;

pub use self::commands::Done;
pub use self::instance::Instance;
pub use self::tail::{Read, Tail, predictions};
use crate::support::{Broker, Process, bin, eventually, unique};

/// How long anything may take that only has to work.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A test's own topics and configuration.
pub struct World {
    pub kafka: KafkaSettings,
    pub name: String,
    pub partitions: i32,
    /// Partitions of the output and dead-letter topics.
    pub output_partitions: i32,
    dir: TempDir,
    /// Of [`Self::append`]: a new one takes longer than what it writes.
    publisher: Mutex<Option<Publisher>>,
    pub shutdown_timeout: &'static str,
    /// Whether instances have a name of their own, `instance_id`.
    pub named: bool,
    /// Another address for instances and commands.
    pub servers: Option<String>,
    /// Variables of the instances that are started.
    pub env: Vec<(&'static str, String)>,
    /// Lines of the `[kafka.client]` table.
    pub client: String,
    /// Lines that go into the `[streams.flights]` table.
    pub stream_extra: String,
    /// Lines that go into the `[registry]` table.
    pub registry_extra: String,
    /// Lines that go at the end of the configuration.
    pub extra: String,
}

pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/flights")
}

impl World {
    /// A world with its topics, on a broker that runs.
    pub fn new(broker: &Broker, partitions: i32) -> Self {
        Self::with_counts(broker, partitions, partitions)
    }

    /// A world whose output and dead-letter topics have a partition count of their own.
    pub fn with_counts(broker: &Broker, partitions: i32, output_partitions: i32) -> Self {
        let mut world = Self::at(broker.bootstrap(), partitions);
        world.output_partitions = output_partitions;
        world.create_topics();
        world
    }

    /// A world without topics at an address where a broker may or may not be.
    pub fn at(servers: &str, partitions: i32) -> Self {
        let kafka = KafkaSettings {
            bootstrap_servers: servers.to_owned(),
            client: BTreeMap::new(),
            memory: DEFAULT_KAFKA_MEMORY,
        };
        Self {
            kafka,
            name: unique("t"),
            partitions,
            output_partitions: partitions,
            dir: tempfile::tempdir().unwrap(),
            publisher: Mutex::default(),
            shutdown_timeout: "20s",
            named: true,
            servers: None,
            env: Vec::new(),
            client: "\"session.timeout.ms\" = \"6000\"\n\"heartbeat.interval.ms\" = \"500\"".into(),
            stream_extra: String::new(),
            registry_extra: String::new(),
            extra: String::new(),
        }
    }

    /// Creates the stream's topics.
    pub fn create_topics(&self) {
        let big = [("max.message.bytes", "12000000")];
        self.create_topic(&self.input(), self.partitions, &big);
        self.create_topic(&self.output(), self.output_partitions, &[]);
        self.create_topic(&self.dead_letters(), self.output_partitions, &[]);
    }

    pub fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        let admin = Admin::new(&self.kafka).unwrap();
        admin
            .create_topic(name, partitions, config, PATIENCE)
            .unwrap();
    }

    pub fn input(&self) -> String {
        format!("{}-in", self.name)
    }
    pub fn output(&self) -> String {
        format!("{}-out", self.name)
    }
    pub fn dead_letters(&self) -> String {
        format!("{}-dlq", self.name)
    }
    pub fn registry_topic(&self, kind: &str) -> String {
        format!("{}-model-{kind}", self.name)
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the configuration of an instance and gives its path.
    pub fn config(&self, instance: &str) -> PathBuf {
        // Written under a name of its own: another command may be reading the last one.
        let path = self.path(&unique(instance));
        let name = &self.name;
        let text = format!(
            r#"
{instance_id}
shutdown_timeout = "{shutdown_timeout}"
[kafka]
bootstrap_servers = "{servers}"
[kafka.client]
{client}
[registry]
versions_topic = "{name}-model-versions"
artifacts_topic = "{name}-model-artifacts"
deployments_topic = "{name}-model-deployments"
status_topic = "{name}-model-status"
heartbeat_interval = "1s"
{registry_extra}
[http]
listen = "127.0.0.1:0"
[streams.flights]
group_id = "{name}"
input_topics = ["{input}"]
output_topic = "{output}"
dead_letter_topic = "{dlq}"
model = "late-arrival"
include = ["flight_id"]
{stream_extra}
{extra}
"#,
            instance_id = if self.named {
                format!("instance_id = \"{instance}\"")
            } else {
                String::new()
            },
            shutdown_timeout = self.shutdown_timeout,
            client = self.client,
            servers = { self.servers.as_ref() }.unwrap_or(&self.kafka.bootstrap_servers),
            input = self.input(),
            output = self.output(),
            dlq = self.dead_letters(),
            stream_extra = self.stream_extra,
            registry_extra = self.registry_extra,
            extra = self.extra,
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Leaves a transaction open in partition 0 of `topic`, as a producer does that dies. The broker ends it after
    /// 30 s.
    pub fn open_transaction(&self, topic: &str) -> Publisher {
        let mut publisher = Publisher::transactional_for_any(&self.kafka, &self.name).unwrap();
        publisher.begin().unwrap();
        let record = OutRecord {
            topic: topic.to_owned(),
            partition: Some(0),
            key: Some(b"of another/1".to_vec()),
            ..OutRecord::default()
        };
        publisher.send(&record).unwrap();
        publisher
    }

    /// Starts an instance; does not wait until it is ready.
    pub fn start(&self, instance: &str) -> Instance {
        let config = self.config(instance);
        let mut command = Command::new(bin());
        command
            .arg("-c")
            .arg(config)
            .arg("run")
            .env("RUST_LOG", "info,swapstream=debug")
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        let process = Process::spawn(&mut command);
        let line = process.wait_for_line("listens on http://", PATIENCE);
        let http = line.rsplit("http://").next().unwrap().trim().to_owned();
        Instance { process, http }
    }

    /// Appends one record to a topic's partition 0, as a program other than ours would; gives its
    /// offset.
    pub fn append(
        &self,
        topic: &str,
        key: &str,
        value: Option<Vec<u8>>,
        headers: Vec<Header>,
    ) -> i64 {
        let record = OutRecord {
            topic: topic.to_owned(),
            partition: Some(0),
            key: Some(key.as_bytes().to_vec()),
            value,
            headers,
            timestamp: None,
        };
        let mut publisher = self.publisher.lock().unwrap();
        let publisher =
            publisher.get_or_insert_with(|| Publisher::idempotent(&self.kafka).unwrap());
        publisher.send(&record).unwrap().offset
    }

    /// Appends a deployment event that no command would write; gives its revision.
    pub fn append_deploy(&self, version: &str, digest: Option<&str>) -> i64 {
        let event = serde_json::json!({
            "schema": "swapstream.deployment/v1", "action": "deploy", "model": "late-arrival",
            "version": version, "digest": digest,
        });
        let topic = self.registry_topic("deployments");
        let value = Some(event.to_string().into_bytes());
        self.append(&topic, "late-arrival", value, Vec::new())
    }

    /// A consumer with the stream's group id that never joins the group.
    fn bystander(&self) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", &self.kafka.bootstrap_servers)
            .set("group.id", &self.name)
            .create()
            .unwrap()
    }

    /// Offsets and metadata that the stream's group has committed, by partition.
    pub fn committed(&self) -> Vec<(Option<i64>, String)> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.input(), 0, self.partitions - 1);
        let committed = self.bystander().committed_offsets(list, PATIENCE).unwrap();
        let elements = committed.elements();
        let one = |element: &TopicPartitionListElem<'_>| {
            let offset = element.offset().to_raw().filter(|offset| *offset >= 0);
            (offset, element.metadata().to_owned())
        };
        elements.iter().map(one).collect()
    }

    /// Commits an offset for the stream's group, which must have no members.
    pub fn commit(&self, partition: i32, offset: i64, metadata: &str) {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&self.input(), partition);
        element.set_offset(Offset::Offset(offset)).unwrap();
        element.set_metadata(metadata);
        let bystander = self.bystander();
        eventually("the offset is committed", PATIENCE, || {
            let done = bystander.commit(&list, CommitMode::Sync);
            done.map_err(|error| error.to_string())
        });
    }

    /// Deletes the records of a topic's partition 0 before `offset`.
    pub fn delete_records(&self, topic: &str, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Offset(offset))
            .unwrap();
        let admin: AdminClient<_> = ClientConfig::new()
            .set("bootstrap.servers", &self.kafka.bootstrap_servers)
            .create()
            .unwrap();
        let deleted = admin.delete_records(&list, &AdminOptions::new());
        let runtime = tokio::runtime::Builder::new_current_thread();
        let deleted = { runtime }.build().unwrap().block_on(deleted).unwrap();
        deleted.elements()[0].error().unwrap();
    }

    /// Starts an instance and waits until it is ready.
    pub fn start_ready(&self, instance: &str) -> Instance {
        let instance = self.start(instance);
        instance.wait_ready();
        instance
    }

    /// Sends records to the input topic and waits until they are stored: partition, key, value.
    pub fn produce<'a>(
        &self,
        records: impl IntoIterator<Item = (i32, Option<&'a [u8]>, Option<&'a [u8]>)>,
    ) {
        self.produce_with_headers(records.into_iter().map(|(p, k, v)| (p, k, v, Vec::new())));
    }

    pub fn produce_with_headers<'a>(
        &self,
        records: impl IntoIterator<Item = (i32, Option<&'a [u8]>, Option<&'a [u8]>, Vec<Header>)>,
    ) {
        self.produce_to(&self.input(), records);
    }

    /// Sends records to a topic and waits until they are stored.
    pub fn produce_to<'a>(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = (i32, Option<&'a [u8]>, Option<&'a [u8]>, Vec<Header>)>,
    ) {
        let limits = RecordLimits {
            record: 12_000_000,
            batch: 1_000_000,
        };
        let share = ClientShare::of(DEFAULT_KAFKA_MEMORY, 1);
        let producer = Producer::new(&self.kafka, share, limits).unwrap();
        for (partition, key, value, headers) in records {
            let headers = headers
                .iter()
                .fold(RecordHeaders::new(headers.len()), |all, header| {
                    all.with(&header.key, header.value.as_deref())
                });
            let mut record = OutgoingRecord {
                topic,
                partition: Some(partition),
                key,
                value,
                timestamp: None,
                headers,
                token: 0,
            };
            while let Err(error) = producer.send(&mut record) {
                assert!(matches!(error, SendError::Full), "{error:?}");
                producer.poll(Duration::from_millis(1));
            }
            producer.poll(Duration::ZERO);
        }
        let end = Instant::now() + PATIENCE;
        while producer.in_flight() > 0 {
            assert!(Instant::now() < end, "records are not acknowledged");
            producer.poll(Duration::from_millis(1));
        }
        assert!(producer.failure().is_none(), "{:?}", producer.failure());
    }
}

/// The sample events that ship with the project.
pub fn events() -> Vec<Vec<u8>> {
    use std::io::Read;
    let file = std::fs::File::open(models().join("events.jsonl.gz")).unwrap();
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(file)
        .read_to_end(&mut text)
        .unwrap();
    text.split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

/// A header's text.
pub fn header<'a>(record: &'a OwnedRecord, name: &str) -> Option<&'a str> {
    let found = record.headers.iter().find(|header| header.key == name)?;
    str::from_utf8(found.value.as_deref()?).ok()
}
