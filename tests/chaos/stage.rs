//! What a run stands on: the broker behind the proxy, topics, configuration, versions, commands.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, TopicPartitionList};
use swapstream::kafka::{Admin, DEFAULT_KAFKA_MEMORY, KafkaSettings};
use tempfile::TempDir;

use super::disk::Disk;
use super::oracle::MODEL;
use super::proxy::Proxy;
use super::run::{Membership, Plan};
use super::verifier::{Guarantee, Outlet};
use crate::support::{
    Broker, BrokerOptions, KEEPS_MARKERS, Listener, Unavailable, bin, eventually, free_ports,
    unique,
};

const PATIENCE: Duration = Duration::from_mins(1);
/// How long reading everything may take.
const READ_ALL: Duration = Duration::from_mins(15);
/// The session of members of the classic protocol; the broker decides it for the other one.
const SESSION: &str = "\"session.timeout.ms\" = \"6000\"\n\"heartbeat.interval.ms\" = \"500\"";
/// Partitions of every topic of events.
pub const PARTITIONS: usize = 4;

/// The controller fences a broker that it has not heard of for so long, and nothing may fence it
/// but the faults: on a machine with more work than cores a heartbeat is late by seconds.
const BROKER_SESSION: &str = "8000";

/// What the broker says of itself, so that a failed run can be explained: transactions and their
/// markers, the recovery of logs, the loading of coordinators.
const LOGGERS: [(&str, &str); 6] = [
    ("kafka.coordinator.transaction", "info"),
    ("org.apache.kafka.coordinator.transaction", "info"),
    ("kafka.log", "info"),
    ("org.apache.kafka.storage", "info"),
    ("org.apache.kafka.coordinator.common", "info"),
    ("state.change.logger", "info"),
];

/// Names of the topics.
#[derive(Debug, Clone)]
pub struct Topics {
    pub name: String,
    pub input: String,
    pub partitions: usize,
}

impl Topics {
    pub fn outlet(&self, guarantee: Guarantee, outlet: Outlet) -> String {
        let kind = match outlet {
            Outlet::Predictions => "out",
            Outlet::DeadLetters => "dlq",
        };
        format!("{}-{}-{kind}", self.name, guarantee.name())
    }

    /// The stream's consumer group.
    pub fn group(&self, guarantee: Guarantee) -> String {
        format!("{}-{}", self.name, guarantee.name())
    }

    /// Topics of answers with their partitions.
    pub fn outlets(&self, guarantees: &[Guarantee]) -> Vec<(String, i32)> {
        let outlets = [Outlet::Predictions, Outlet::DeadLetters];
        let pairs = { guarantees.iter() }.flat_map(|g| outlets.map(|outlet| (*g, outlet)));
        pairs
            .map(|(guarantee, outlet)| (self.outlet(guarantee, outlet), self.partitions as i32))
            .collect()
    }

    /// Inputs and answers.
    pub fn all(&self, guarantees: &[Guarantee]) -> Vec<(String, i32)> {
        let mut all = self.outlets(guarantees);
        all.push((self.input.clone(), self.partitions as i32));
        all
    }
}

/// What a run stands on.
#[derive(Debug)]
pub struct Stage {
    pub broker: Broker,
    pub proxy: Proxy,
    /// Straight to the broker.
    pub kafka: KafkaSettings,
    pub topics: Topics,
    pub guarantees: Vec<Guarantee>,
    pub disk: Result<Disk, String>,
    /// What instances are told to do wrong.
    pub broken: Option<String>,
    /// `commit_interval` of the streams.
    commit_interval: &'static str,
    membership: Membership,
    dir: TempDir,
    proxied: String,
}

pub fn flights() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/flights")
}

impl Stage {
    /// A broker with its proxy, and all topics.
    pub fn new(plan: &Plan) -> Result<Self, Unavailable> {
        let guarantees = &plan.guarantees;
        let (behind, before) = free_ports().map_err(|e| Unavailable::broken(e.to_string()))?;
        let disk = Disk::mount();
        let options = BrokerOptions {
            kafka: KEEPS_MARKERS,
            listeners: vec![Listener {
                name: "PROXIED".to_owned(),
                protocol: "PLAINTEXT".to_owned(),
                port: behind,
                advertised: before,
            }],
            data_dir: disk.as_ref().ok().map(|disk| disk.path().to_owned()),
            loggers: LOGGERS.to_vec(),
            properties: vec![(
                "broker.session.timeout.ms".to_owned(),
                BROKER_SESSION.to_owned(),
            )],
            ..BrokerOptions::default()
        };
        let broker = Broker::start(&options)?;
        let listener = TcpListener::bind(("127.0.0.1", before))
            .map_err(|e| Unavailable::broken(format!("the proxy's port: {e}")))?;
        let proxy = Proxy::start(listener, ([127, 0, 0, 1], behind).into());
        let name = unique("chaos");
        // What reads and checks finds a broker that comes back at once.
        let client = [("reconnect.backoff.max.ms", "300"), ("log_level", "0")];
        let client = client.map(|(k, v)| (k.to_owned(), v.to_owned()));
        let stage = Self {
            kafka: KafkaSettings {
                bootstrap_servers: broker.bootstrap().to_owned(),
                client: BTreeMap::from(client),
                memory: DEFAULT_KAFKA_MEMORY,
            },
            broker,
            proxy,
            topics: Topics {
                input: format!("{name}-in"),
                name,
                partitions: PARTITIONS,
            },
            guarantees: guarantees.clone(),
            disk,
            broken: plan.broken.clone(),
            commit_interval: plan.commit_interval(),
            membership: plan.membership,
            dir: tempfile::tempdir().expect("a directory"),
            proxied: format!("127.0.0.1:{before}"),
        };
        let admin = Admin::new(&stage.kafka).expect("an administrator");
        for (topic, partitions) in stage.topics.all(guarantees) {
            let created = admin.create_topic(&topic, partitions, &[], PATIENCE);
            created.unwrap_or_else(|error| panic!("{error}"));
        }
        Ok(stage)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the configuration of an instance, or of commands, and gives its path.
    pub fn config(&self, instance: &str, servers: &str) -> PathBuf {
        let name = &self.topics.name;
        let (client, stream_extra) = match self.membership {
            Membership::Dynamic => (SESSION, ""),
            Membership::Static => (SESSION, "static_membership = true"),
            Membership::Consumer => ("", "group_protocol = \"consumer\""),
        };
        let mut text = format!(
            r#"
instance_id = "{instance}"
shutdown_timeout = "10s"
[kafka]
bootstrap_servers = "{servers}"
[kafka.client]
{client}
[limits]
kafka_memory = "32MiB"
[registry]
versions_topic = "{name}-model-versions"
artifacts_topic = "{name}-model-artifacts"
deployments_topic = "{name}-model-deployments"
status_topic = "{name}-model-status"
heartbeat_interval = "2s"
[http]
listen = "127.0.0.1:0"
"#
        );
        for guarantee in &self.guarantees {
            let stream = guarantee.name();
            let (input, group) = (&self.topics.input, self.topics.group(*guarantee));
            let interval = self.commit_interval;
            let output = self.topics.outlet(*guarantee, Outlet::Predictions);
            let dead_letters = self.topics.outlet(*guarantee, Outlet::DeadLetters);
            text.push_str(&format!(
                r#"
[streams.{stream}]
group_id = "{group}"
input_topics = ["{input}"]
output_topic = "{output}"
dead_letter_topic = "{dead_letters}"
model = "{MODEL}"
processing_guarantee = "{stream}"
commit_interval = "{interval}"
workers = 1
max_batch_size = 32
include = ["k", "seq", "flight_id"]
{stream_extra}
"#
            ));
        }
        let path = self.path(&unique(instance));
        std::fs::write(&path, text).expect("the configuration is written");
        path
    }

    /// A command of an instance, behind the proxy.
    pub fn instance(&self, instance: &str) -> Command {
        let config = self.config(instance, &self.proxied);
        let mut command = Command::new(bin());
        command.arg("-c").arg(config).arg("run");
        command.env("RUST_LOG", "info,swapstream::stream=debug");
        command
    }

    /// Whether many commits happen within seconds.
    pub fn commits_often(&self) -> bool {
        self.commit_interval.ends_with("ms")
    }

    /// Runs a command straight on the broker; its output, or why it failed.
    pub fn run(&self, args: &[&str]) -> Result<String, String> {
        let config = self.config("cli", &self.kafka.bootstrap_servers);
        let done = Command::new(bin())
            .arg("-c")
            .arg(&config)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        // It may be gone with the directory.
        drop(std::fs::remove_file(config));
        if done.status.success() {
            Ok(String::from_utf8_lossy(&done.stdout).into_owned())
        } else {
            Err(format!(
                "{args:?}: {}",
                String::from_utf8_lossy(&done.stderr)
            ))
        }
    }

    /// Publishes a file as a version.
    pub fn publish(&self, file: &Path, manifest: &Path, version: &str, more: &[&str]) {
        let (file, manifest) = (
            file.to_str().expect("UTF-8"),
            manifest.to_str().expect("UTF-8"),
        );
        let mut args = vec![
            "model",
            "publish",
            file,
            "--model",
            MODEL,
            "--version",
            version,
        ];
        args.extend(["--manifest", manifest]);
        args.extend(more);
        eventually(&format!("version {version} is published"), PATIENCE, || {
            self.run(&args)
        });
    }

    /// Offsets that a group has committed, by partition; waits for open transactions.
    pub fn committed(&self, guarantee: Guarantee) -> Result<Vec<Option<i64>>, String> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.topics.input, 0, PARTITIONS as i32 - 1);
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", self.topics.group(guarantee))
            .set("isolation.level", "read_committed")
            .create()
            .map_err(|error| error.to_string())?;
        let committed = consumer
            .committed_offsets(list, Duration::from_secs(20))
            .map_err(|error| error.to_string())?;
        let elements = committed.elements();
        let offset = |partition: usize| {
            let mut all = elements.iter();
            let found = all.find(|one| one.partition() == partition as i32);
            found
                .and_then(|one| one.offset().to_raw())
                .filter(|at| *at >= 0)
        };
        Ok((0..PARTITIONS).map(offset).collect())
    }

    /// Number of answers that are in the log, those of aborted transactions included.
    pub fn written(&self, guarantee: Guarantee) -> Result<u64, String> {
        let consumer: BaseConsumer = { self.client() }
            .set("group.id", "chaos-written")
            .set("isolation.level", "read_uncommitted")
            .set("enable.partition.eof", "true")
            .create()
            .map_err(|error| error.to_string())?;
        let topics = self.topics.outlets(&[guarantee]);
        let mut list = TopicPartitionList::new();
        for (topic, partitions) in &topics {
            for partition in 0..*partitions {
                let start = rdkafka::Offset::Offset(0);
                let added = list.add_partition_offset(topic, partition, start);
                added.map_err(|error| error.to_string())?;
            }
        }
        consumer.assign(&list).map_err(|error| error.to_string())?;
        let (mut count, mut left) = (0, list.count());
        let end = Instant::now() + READ_ALL;
        while left > 0 && Instant::now() < end {
            match consumer.poll(Duration::from_millis(50)) {
                Some(Ok(_)) => count += 1,
                Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
                Some(Err(_)) | None => {}
            }
        }
        (left == 0)
            .then_some(count)
            .ok_or_else(|| "not read to the end".to_owned())
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.kafka.bootstrap_servers)
            .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
        config
    }

    /// Partitions of answers whose last stable offset is not at the end.
    pub fn unstable(&self) -> Result<Vec<String>, String> {
        let end = |isolation: &str, topic: &str, partition: i32| -> Result<i64, String> {
            let consumer: BaseConsumer = { self.client() }
                .set("group.id", "chaos-ends")
                .set("isolation.level", isolation)
                .create()
                .map_err(|error| error.to_string())?;
            let ends = consumer.fetch_watermarks(topic, partition, Duration::from_secs(10));
            ends.map(|(_, end)| end).map_err(|error| error.to_string())
        };
        let mut unstable = Vec::new();
        for (topic, partitions) in self.topics.all(&self.guarantees) {
            for partition in 0..partitions {
                let all = end("read_uncommitted", &topic, partition)?;
                let stable = end("read_committed", &topic, partition)?;
                if stable != all {
                    unstable.push(format!("{topic}-{partition}: {stable} of {all}"));
                }
            }
        }
        Ok(unstable)
    }
}
