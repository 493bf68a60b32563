//! One test's world on a broker: its topics, its configuration, its instances, its command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use swapstream::kafka::{
    Admin, ClientMemory, DEFAULT_KAFKA_MEMORY, KafkaSettings, OutgoingRecord, Producer, Publisher,
    RecordHeaders, RecordLimits, SendError, TopicEvent, TopicReader,
};
use swapstream::record::{Header, OutRecord, OwnedRecord};
use tempfile::TempDir;

use crate::support::{Broker, Process, bin, eventually, try_http_get, unique};

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

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// The one JSON object on stdout.
    pub fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "one line: {self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self
    }
}

/// A running instance.
pub struct Instance {
    pub process: Process,
    pub http: String,
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
instance_id = "{instance}"
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

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Done {
        let config = self.config("cli");
        let mut command = Command::new(bin());
        command
            .arg("-c")
            .arg(config)
            .args(args)
            .stdin(Stdio::null());
        let out = command.output().unwrap();
        Done {
            code: out.status.code().unwrap_or(-1),
            stdout: String::from_utf8(out.stdout).unwrap(),
            stderr: String::from_utf8(out.stderr).unwrap(),
        }
    }

    /// Publishes one of the flights models under `version`.
    pub fn publish(&self, flights: &str, version: &str) -> Done {
        let file = models().join(format!("{flights}.onnx"));
        let manifest = models().join(format!("{flights}.toml"));
        let (file, manifest) = (file.to_str().unwrap(), manifest.to_str().unwrap());
        self.publish_file(file, &["--manifest", manifest], "late-arrival", version)
    }

    pub fn publish_file(&self, file: &str, more: &[&str], model: &str, version: &str) -> Done {
        let mut args = vec![
            "model",
            "publish",
            file,
            "--model",
            model,
            "--version",
            version,
        ];
        args.extend(more);
        args.extend(["--output", "json"]);
        self.run(&args)
    }

    pub fn deploy(&self, version: &str) -> i64 {
        let done = self
            .run(&[
                "model",
                "deploy",
                "late-arrival",
                version,
                "--output",
                "json",
            ])
            .ok();
        done.json()["revision"]
            .as_i64()
            .unwrap_or_else(|| panic!("{done:?}"))
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
        let memory = ClientMemory::divide(DEFAULT_KAFKA_MEMORY, 1);
        let producer = Producer::new(&self.kafka, memory, limits).unwrap();
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

    /// Reads `topic` until it holds `count` records, and then for what else comes within a moment.
    pub fn read(&self, topic: &str, count: usize) -> Vec<OwnedRecord> {
        let mut tail = self.tail(topic);
        tail.until(count, PATIENCE);
        tail.settle();
        tail.records
    }

    /// Everything that is in `topic` now.
    pub fn all(&self, topic: &str) -> Vec<OwnedRecord> {
        self.tail(topic).read_to_end()
    }

    /// Follows `topic`.
    pub fn tail(&self, topic: &str) -> Tail {
        let partitions = if topic == self.input() {
            self.partitions
        } else {
            self.output_partitions
        };
        self.tail_of(topic, partitions)
    }

    /// Follows `topic`, which has so many partitions.
    pub fn tail_of(&self, topic: &str, partitions: i32) -> Tail {
        let topics = [(topic.to_owned(), partitions)];
        Tail {
            reader: TopicReader::open(&self.kafka, &topics).unwrap(),
            records: Vec::new(),
        }
    }

    /// The status of the model as `model status --output json` gives it.
    pub fn status(&self) -> Value {
        self.run(&["model", "status", "late-arrival", "--output", "json"])
            .ok()
            .json()
    }
}

/// A reader that keeps what it has read.
pub struct Tail {
    reader: TopicReader,
    pub records: Vec<OwnedRecord>,
}

impl Tail {
    /// Reads on for a moment; gives whether something came.
    pub fn turn(&mut self, wait: Duration) -> bool {
        match self.reader.poll(wait) {
            Ok(TopicEvent::Record(record)) => {
                self.records.push(record);
                true
            }
            Ok(_) => false,
            Err(error) if error.is_retriable() => false,
            Err(error) => panic!("{error}"),
        }
    }

    pub fn until(&mut self, count: usize, deadline: Duration) {
        self.until_that(&format!("{count} records"), deadline, |records| {
            records.len() >= count
        });
    }

    pub fn until_that(
        &mut self,
        what: &str,
        deadline: Duration,
        mut done: impl FnMut(&[OwnedRecord]) -> bool,
    ) {
        let end = Instant::now() + deadline;
        while !done(&self.records) {
            assert!(
                Instant::now() < end,
                "not within {deadline:?}: {what}; {} records so far",
                self.records.len()
            );
            self.turn(Duration::from_millis(20));
        }
    }

    /// Reads to the ends that hold now and gives everything.
    pub fn read_to_end(mut self) -> Vec<OwnedRecord> {
        let ends = self.reader.ends(PATIENCE).unwrap();
        let mut left = ends.values().filter(|end| **end > 0).count();
        let deadline = Instant::now() + PATIENCE;
        while left > 0 {
            assert!(Instant::now() < deadline, "not read to its end");
            match self.reader.poll(Duration::from_millis(20)) {
                Ok(TopicEvent::Record(record)) => self.records.push(record),
                Ok(TopicEvent::EndOfPartition { next, .. }) if next > 0 => left -= 1,
                Ok(_) => {}
                Err(error) => assert!(error.is_retriable(), "{error}"),
            }
        }
        self.records
    }

    /// Reads what is there until nothing has come for half a second.
    pub fn settle(&mut self) {
        let mut quiet = Instant::now();
        while quiet.elapsed() < Duration::from_millis(500) {
            if self.turn(Duration::from_millis(20)) {
                quiet = Instant::now();
            }
        }
    }
}

/// A test that fails shows what its instances said.
impl Drop for Instance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.process.stderr_lines();
            let lines = &lines[lines.len().saturating_sub(200)..];
            eprintln!("the instance at {} said:\n{}", self.http, lines.join("\n"));
        }
    }
}

impl Instance {
    pub fn wait_ready(&self) {
        eventually("the instance is ready", PATIENCE, || self.ready());
    }

    /// Ready, or the answer of `/readyz`.
    pub fn ready(&self) -> Result<(), String> {
        match try_http_get(&self.http, "/readyz")? {
            (200, _) => Ok(()),
            (_, body) => Err(format!(
                "{body}\n{}",
                self.process.stderr_lines().join("\n")
            )),
        }
    }

    /// Waits until the deployment at `revision` serves.
    pub fn wait_serves(&self, revision: i64) {
        let wanted = format!("revision=\"{revision}\"");
        eventually("the deployment serves", PATIENCE, || {
            let metrics = self.metrics();
            let mut infos = metrics
                .lines()
                .filter(|line| line.starts_with("swapstream_model_info{"));
            match infos.find(|line| line.contains(&wanted)) {
                Some(_) => Ok(()),
                None => Err(format!(
                    "{wanted}\n{}",
                    self.process.stderr_lines().join("\n")
                )),
            }
        });
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        try_http_get(&self.http, path).unwrap()
    }

    /// The value of one series, named as `/metrics` shows it; 0 where it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let metrics = self.metrics();
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    pub fn metrics(&self) -> String {
        let (code, body) = try_http_get(&self.http, "/metrics").unwrap();
        assert_eq!(code, 200);
        body
    }

    /// Stops in order and checks that it went well, and fast: a worker that waits for what never
    /// comes ends at its deadline, which is no failure by itself.
    pub fn stop(mut self) -> Vec<String> {
        let start = Instant::now();
        self.process.terminate();
        let status = self.process.wait_exit(PATIENCE);
        let lines = self.process.stderr_lines();
        assert!(status.success(), "{status}: {}", lines.join("\n"));
        assert!(
            start.elapsed() < Duration::from_secs(8),
            "slow stop: {}",
            lines.join("\n")
        );
        lines
    }
}

/// A prediction and the record it came in.
pub struct Read {
    pub partition: i32,
    pub offset: i64,
    pub version: String,
    pub revision: i64,
    pub value: Value,
}

/// Parses predictions.
pub fn predictions(records: &[OwnedRecord]) -> Vec<Read> {
    records
        .iter()
        .map(|record| {
            let value: Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
            Read {
                partition: value["input"]["partition"].as_i64().unwrap() as i32,
                offset: value["input"]["offset"].as_i64().unwrap(),
                version: value["version"].as_str().unwrap().to_owned(),
                revision: value["revision"].as_i64().unwrap(),
                value,
            }
        })
        .collect()
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
