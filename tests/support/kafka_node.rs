//! One node of Apache Kafka in its own JVM: ports, directory, configuration, start.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::kafka_broker::{BrokerOptions, Listener};
use super::kafka_jars::Kit;
use super::kafka_wire::{check_serving, free_ports};
use super::supervisor::Supervised;
use super::unique;

/// From the start of the JVM to the first answer.
const READY_DEADLINE: Duration = Duration::from_mins(1);
const FORMAT_DEADLINE: Duration = Duration::from_mins(1);
/// How many lines of its log a failed start shows.
const TAIL_LINES: usize = 40;

/// One collector thread and no C2: tests share few cores with this JVM.
const SPARING: &[&str] = &["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
/// `KAFKA_JVM_PERFORMANCE_OPTS` of `bin/kafka-run-class.sh`.
const SHIPPED: &[&str] = &[
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// A broker that is its own controller, and its files.
#[derive(Debug)]
pub struct Node {
    kit: Arc<Kit>,
    options: BrokerOptions,
    pub dir: PathBuf,
    pub address: SocketAddr,
    process: Mutex<Option<Supervised>>,
}

impl Node {
    /// Chooses ports and prepares the directory.
    pub fn create(kit: Arc<Kit>, options: BrokerOptions) -> Result<Node, String> {
        let (port, controller_port) =
            free_ports().map_err(|error| format!("no free port: {error}"))?;
        let own = Node {
            kit,
            options,
            dir: std::env::temp_dir().join(unique("swapstream-kafka")),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            process: Mutex::new(None),
        };
        let filed =
            |error: std::io::Error| format!("cannot write to {}: {error}", own.dir.display());
        fs::create_dir_all(&own.dir).map_err(filed)?;
        fs::create_dir_all(own.data_dir()).map_err(filed)?;
        fs::write(own.properties_file(), own.properties(controller_port)).map_err(filed)?;
        own.format_storage()?;
        Ok(own)
    }

    fn data_dir(&self) -> PathBuf {
        let set = self.options.data_dir.clone();
        set.unwrap_or_else(|| self.dir.join("data"))
    }

    fn properties_file(&self) -> PathBuf {
        self.dir.join("server.properties")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("broker.log")
    }

    fn properties(&self, controller_port: u16) -> String {
        let client = self.address;
        let controller = SocketAddr::new(client.ip(), controller_port);
        let data = self.data_dir();
        let data = data.display();
        let more = &self.options.listeners;
        let each = |entry: &dyn Fn(&Listener) -> String| -> String {
            let entries: Vec<String> = more.iter().map(entry).collect();
            entries.concat()
        };
        let ip = client.ip();
        let listeners = each(&|one| format!(",{}://{ip}:{}", one.name, one.port));
        let advertised = each(&|one| format!(",{}://{ip}:{}", one.name, one.advertised));
        let protocols = each(&|one| format!(",{}:{}", one.name, one.protocol));
        let mut text = format!(
            "controller.quorum.bootstrap.servers={controller}\n\
             listeners=PLAINTEXT://{client},CONTROLLER://{controller}{listeners}\n\
             advertised.listeners=PLAINTEXT://{client},CONTROLLER://{controller}{advertised}\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{protocols}\n\
             log.dirs={data}\n\
             {FIXED_PROPERTIES}"
        );
        for (key, value) in &self.options.properties {
            text.push_str(key);
            text.push('=');
            text.push_str(value);
            text.push('\n');
        }
        text
    }

    /// Writes the cluster id and the first metadata into the empty data directory.
    fn format_storage(&self) -> Result<(), String> {
        let mut tool = self.java();
        tool.args(["kafka.tools.StorageTool", "format", "--standalone"])
            .args(["--cluster-id", CLUSTER_ID, "--config"])
            .arg(self.properties_file())
            .args(&self.options.format_args);
        let log = self.dir.join("format.log");
        let mut process = Supervised::start(&tool, &self.dir, &log)?;
        match process.wait(FORMAT_DEADLINE) {
            Some(status) if status.success() => Ok(()),
            Some(status) => {
                let said = fs::read_to_string(log).unwrap_or_default();
                Err(format!("StorageTool: {status}: {}", said.trim()))
            }
            None => Err(format!("StorageTool: not done in {FORMAT_DEADLINE:?}")),
        }
    }

    /// Starts the JVM and waits until it serves. On a failure nothing is left running.
    pub fn launch(&self) -> Result<(), String> {
        let mut kafka = self.java();
        kafka.arg("kafka.Kafka").arg(self.properties_file());
        let mut process = Supervised::start(&kafka, &self.dir, &self.log_file())?;
        self.wait_until_serving(&mut process)?;
        *self.process() = Some(process);
        Ok(())
    }

    fn wait_until_serving(&self, process: &mut Supervised) -> Result<(), String> {
        let started = Instant::now();
        loop {
            // The order matters: somebody else may serve at our port when ours has died of that.
            let serving = check_serving(self.address);
            let problem = match (process.exit_status(), serving) {
                (Some(status), _) => format!("it ended ({status})"),
                (None, Ok(())) => return Ok(()),
                (None, Err(error)) if started.elapsed() >= READY_DEADLINE => {
                    format!("it does not serve within {READY_DEADLINE:?} ({error})")
                }
                (None, Err(_)) => {
                    thread::sleep(Duration::from_millis(25));
                    continue;
                }
            };
            return Err(format!(
                "{problem}; its log ends with:\n{}",
                self.log_tail(TAIL_LINES)
            ));
        }
    }

    /// A JVM with the jars of Kafka, still without a class to run.
    fn java(&self) -> Command {
        let heap_mb = self.options.heap_mb;
        let first_mb = if self.options.as_shipped {
            heap_mb
        } else {
            heap_mb.min(256)
        };
        let mut java = Command::new(&self.kit.java);
        java.arg(format!("-Xms{first_mb}m"))
            .arg(format!("-Xmx{heap_mb}m"))
            .args(if self.options.as_shipped {
                SHIPPED
            } else {
                SPARING
            })
            // Its file in the temporary directory would outlive a SIGKILL.
            .arg("-XX:-UsePerfData")
            .arg("-Djava.awt.headless=true")
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
            .arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS");
        for (logger, level) in &self.options.loggers {
            java.arg(format!("-Dorg.slf4j.simpleLogger.log.{logger}={level}"));
        }
        java.arg("-cp").arg(self.kit.jars.join("*"));
        java
    }

    /// Copies everything it has, its data as `data`.
    pub fn keep(&self, to: &Path) -> Result<(), String> {
        copy(&self.dir, to)?;
        copy(&self.data_dir(), &to.join("data"))
    }

    /// The end of its log, of all its starts.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let all: Vec<&str> = log.lines().collect();
        let skipped = all.len().saturating_sub(lines);
        all.get(skipped..).unwrap_or_default().join("\n")
    }

    /// The JVM while it runs.
    pub fn process(&self) -> MutexGuard<'_, Option<Supervised>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies a directory with what is in it.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let filed = |error: std::io::Error| format!("cannot copy {}: {error}", from.display());
    fs::create_dir_all(to).map_err(filed)?;
    for entry in fs::read_dir(from).map_err(filed)? {
        let entry = entry.map_err(filed)?;
        let target = to.join(entry.file_name());
        if entry.file_type().map_err(filed)?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).map_err(filed)?;
        }
    }
    Ok(())
}

impl Drop for Node {
    fn drop(&mut self) {
        *self.process() = None;
        // Usually gone with the process; a failure to remove it must not hide a test's result.
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// Any 22 letters of base64 will do: a cluster of one node is never mixed up with another.
const CLUSTER_ID: &str = "SwapstreamTestClusterA";

/// One node, quick reactions, small files; the lower limits are there for tests to go down to.
/// After a SIGKILL the controller refuses a new start of the broker until the session of the old
/// one is over, which is why that is short.
const FIXED_PROPERTIES: &str = "\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
num.partitions=1
num.network.threads=2
num.io.threads=2
auto.create.topics.enable=false
delete.topic.enable=true
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=1000
log.segment.bytes=67108864
log.cleaner.backoff.ms=500
log.cleaner.dedupe.buffer.size=16777216
";
