//! The processors that are compared, each a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use swapstream::model::Digest;
use swapstream::record::OutRecord;

use crate::cluster::{Cluster, PATIENCE};
use crate::floor;
use crate::support::{Process, bin, eventually, try_http_get, unique};
use crate::workload::Workload;

/// Which program processes the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Ours,
    /// Another build of ours: `--against FILE`.
    Against,
    KafkaStreams,
    PythonBatch,
    PythonPlain,
    Passthrough,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Ours,
        Self::Against,
        Self::KafkaStreams,
        Self::PythonBatch,
        Self::PythonPlain,
        Self::Passthrough,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ours => "swapstream",
            Self::Against => "against",
            Self::KafkaStreams => "kafka_streams",
            Self::PythonBatch => "python_batch",
            Self::PythonPlain => "python_plain",
            Self::Passthrough => "passthrough",
        }
    }

    /// Whether it is a build of ours.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Ours | Self::Against)
    }

    /// How long it takes to run at its full speed: a JVM compiles first.
    pub fn warm_up(self) -> Duration {
        match self {
            Self::KafkaStreams => Duration::from_secs(10),
            _ => Duration::from_secs(2),
        }
    }
}

/// How a processor is run.
#[derive(Debug, Clone)]
pub struct Setup {
    pub exactly_once: bool,
    pub workers: usize,
    /// Lines for our `[streams.bench]`.
    pub stream: String,
    /// Lines for our `[kafka.client]`, and the floor's.
    pub client: Vec<(String, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            exactly_once: false,
            workers: 1,
            stream: String::new(),
            client: Vec::new(),
        }
    }
}

/// The registry of a workload, and all that its processors share.
pub struct Job<'a> {
    pub cluster: &'a Cluster,
    pub workload: &'a Workload,
    /// Sample predictions, one a line: what the floor sends.
    pub predictions: PathBuf,
    pub folder: &'a Path,
    registry: String,
    digest: Digest,
}

/// How long every processor waits for more records before it sends, at full speed: what Kafka's own
/// producer does unless it is told otherwise (since 4.0, KIP-1030). Ours waits 1 ms unless it is set.
pub const LINGER_MS: u32 = 5;

/// The model's name in all runs.
pub const MODEL: &str = "bench";

impl<'a> Job<'a> {
    /// Publishes and deploys the workload's model.
    pub fn new(cluster: &'a Cluster, workload: &'a Workload, folder: &'a Path) -> Self {
        let bytes = std::fs::read(&workload.model).unwrap();
        let job = Self {
            cluster,
            workload,
            predictions: folder.join(format!("{}-predictions.jsonl", workload.name)),
            folder,
            registry: unique(workload.name),
            digest: Digest::of(&bytes),
        };
        let samples = floor::sample_predictions(workload, MODEL, &unique("in"));
        std::fs::write(&job.predictions, samples.join(&b'\n')).unwrap();
        job.publish(MODEL, "1");
        job.deploy(MODEL, "1");
        job
    }

    /// The event that deploys `version` of `model`.
    pub fn deployment(&self, model: &str, version: &str) -> OutRecord {
        let event = json!({
            "schema": "swapstream.deployment/v1", "action": "deploy", "model": model,
            "version": version,
        });
        OutRecord {
            topic: self.deployments(),
            partition: Some(0),
            key: Some(model.into()),
            value: Some(event.to_string().into_bytes()),
            ..OutRecord::default()
        }
    }

    /// The topic of deployment events.
    pub fn deployments(&self) -> String {
        format!("{}-deployments", self.registry)
    }

    /// What our clients and the floor's are set to beside their own properties.
    fn client(&self, setup: &Setup) -> Vec<(String, String)> {
        let compression = self.workload.compression.to_owned();
        let mut client = vec![("compression.type".to_owned(), compression)];
        client.extend(setup.client.iter().cloned());
        client
    }

    /// Publishes the workload's model under another name or version.
    pub fn publish(&self, model: &str, version: &str) {
        let (file, manifest) = (&self.workload.model, &self.workload.manifest);
        self.command(&[
            "model",
            "publish",
            file.to_str().unwrap(),
            "--manifest",
            manifest.to_str().unwrap(),
            "--model",
            model,
            "--version",
            version,
        ]);
    }

    /// Deploys a version; gives the deployment's revision.
    pub fn deploy(&self, model: &str, version: &str) -> i64 {
        let said = self.command(&["model", "deploy", model, version]);
        said["revision"].as_i64().unwrap()
    }

    /// Runs one of our commands to its end; gives what it printed.
    pub fn command(&self, arguments: &[&str]) -> Value {
        let config = self.config(
            "cli",
            "unused",
            "unused-in",
            "unused-out",
            &Setup::default(),
        );
        let out = Command::new(bin())
            .arg("-c")
            .arg(&config)
            .args(arguments)
            .args(["--output", "json"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        std::fs::remove_file(config).unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// Writes a configuration of ours.
    pub fn config(
        &self,
        instance: &str,
        group: &str,
        input: &str,
        output: &str,
        setup: &Setup,
    ) -> PathBuf {
        let path = self.folder.join(format!("{}.toml", unique(instance)));
        let client: String = self
            .client(setup)
            .iter()
            .map(|(key, value)| format!("\"{key}\" = \"{value}\"\n"))
            .collect();
        let guarantee = if setup.exactly_once {
            "exactly_once"
        } else {
            "at_least_once"
        };
        let include = serde_json::to_string(self.workload.include).unwrap();
        let text = format!(
            r#"instance_id = "{instance}"
[kafka]
bootstrap_servers = "{servers}"
[kafka.client]
{client}
[registry]
versions_topic = "{registry}-versions"
artifacts_topic = "{registry}-artifacts"
deployments_topic = "{registry}-deployments"
status_topic = "{registry}-status"
[http]
listen = "127.0.0.1:0"
[streams.bench]
group_id = "{group}"
input_topics = ["{input}"]
output_topic = "{output}"
dead_letter_topic = "{output}-dlq"
model = "{MODEL}"
include = {include}
workers = {workers}
processing_guarantee = "{guarantee}"
{stream}
"#,
            servers = self.cluster.bootstrap(),
            registry = self.registry,
            workers = setup.workers,
            stream = setup.stream,
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts a processor from `input` to `output`.
    pub fn start(&self, kind: Kind, input: &str, output: &str, setup: &Setup) -> Running {
        let group = unique(kind.as_str());
        let mut command = match kind {
            Kind::Ours | Kind::Against => {
                self.dead_letters(output);
                return self.instance(kind, &group, &group, input, output, setup);
            }
            Kind::Passthrough => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.arg("--passthrough");
                command
            }
            Kind::KafkaStreams => java(),
            Kind::PythonBatch | Kind::PythonPlain => {
                let mut command = Command::new(python());
                command.arg(peers().join("python/peer.py"));
                command
            }
        };
        command.arg(self.job_file(&group, input, output, setup));
        match kind {
            Kind::PythonBatch => drop(command.arg("batch")),
            Kind::PythonPlain => drop(command.arg("plain")),
            _ => {}
        }
        let process = Process::spawn(&mut command);
        Running { kind, process }
    }

    /// Creates the topic of dead letters that goes with `output`.
    pub fn dead_letters(&self, output: &str) {
        let config = [("max.message.bytes", "4000000")];
        let partitions = crate::cluster::PARTITIONS;
        self.cluster
            .create(&format!("{output}-dlq"), partitions, &config);
    }

    /// Starts one of our instances in `group`.
    pub fn instance(
        &self,
        kind: Kind,
        name: &str,
        group: &str,
        input: &str,
        output: &str,
        setup: &Setup,
    ) -> Running {
        let config = self.config(name, group, input, output, setup);
        let program = match kind {
            Kind::Against => against().expect("--against FILE"),
            _ => bin(),
        };
        let mut command = Command::new(program);
        command.arg("-c").arg(config).arg("run");
        Running {
            kind,
            process: Process::spawn(&mut command),
        }
    }

    /// What a processor that is not ours has to know.
    fn job_file(&self, group: &str, input: &str, output: &str, setup: &Setup) -> PathBuf {
        let path = self.folder.join(format!("{group}.json"));
        let state = self.folder.join(format!("{group}-state"));
        let client: serde_json::Map<String, Value> = self
            .client(setup)
            .into_iter()
            .map(|(key, value)| (key, Value::from(value)))
            .collect();
        let job = json!({
            "bootstrap": self.cluster.bootstrap(),
            "group": group,
            "input_topic": input,
            "output_topic": output,
            "exactly_once": setup.exactly_once,
            "linger_ms": LINGER_MS,
            "compression": self.workload.compression,
            "model_file": self.workload.model,
            "model": MODEL,
            "version": "1",
            "digest": self.digest.to_string(),
            "format": self.workload.format.as_str(),
            "features": self.workload.features,
            "include": self.workload.include,
            "state_dir": state,
            "predictions": self.predictions,
            "client": client,
        });
        std::fs::write(&path, job.to_string()).unwrap();
        path
    }
}

/// A processor that runs.
pub struct Running {
    pub kind: Kind,
    pub process: Process,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where ours answers HTTP.
    pub fn address(&self) -> String {
        let line = self.process.wait_for_line("listens on http://", PATIENCE);
        line.rsplit("http://").next().unwrap().trim().to_owned()
    }

    /// A metric of ours, summed over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = try_http_get(&self.address(), "/metrics").unwrap();
        let samples = text.lines().filter(|line| {
            let behind = line.strip_prefix(name);
            behind.is_some_and(|behind| behind.starts_with(['{', ' ']))
        });
        let values = samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }

    /// Waits until ours is ready.
    pub fn wait_ready(&self) {
        let address = self.address();
        eventually("the instance is ready", PATIENCE, || {
            match try_http_get(&address, "/readyz")? {
                (200, _) => Ok(()),
                (_, body) => Err(body),
            }
        });
    }

    /// Asks it to stop in order, and waits for that.
    pub fn stop(mut self) {
        self.process.terminate();
        let status = self.process.wait_exit(PATIENCE);
        // A JVM that ends by a signal says so, also where its hooks have run; the floor just ends.
        let by_signal = matches!(self.kind, Kind::KafkaStreams | Kind::Passthrough);
        let in_order = status.success() || by_signal;
        let said = self.process.stderr_lines();
        let said = said[said.len().saturating_sub(20)..].join("\n");
        assert!(in_order, "{}: {status}\n{said}", self.kind.as_str());
    }

    /// Panics with what it said when it does not run any more.
    pub fn assert_running(&mut self) {
        if !self.process.is_running() {
            let said = self.process.stderr_lines();
            let said = said[said.len().saturating_sub(40)..].join("\n");
            panic!("{} ended:\n{said}", self.kind.as_str());
        }
    }
}

/// What `swapstream score` says about each of the workload's events.
pub fn score(workload: &Workload) -> Vec<String> {
    use std::io::Write;
    let mut child = Command::new(bin())
        .arg("score")
        .arg("--model")
        .arg(&workload.model)
        .arg("--manifest")
        .arg(&workload.manifest)
        .arg(format!("--include={}", workload.include.join(",")))
        .arg("--strict")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut events = Vec::new();
    for (_, event) in &workload.events {
        events.extend_from_slice(event);
        events.push(b'\n');
    }
    let writer = std::thread::spawn(move || stdin.write_all(&events).unwrap());
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(out.status.success(), "swapstream score: {}", out.status);
    let lines = String::from_utf8(out.stdout).unwrap();
    lines.lines().map(str::to_owned).collect()
}

/// The other build of ours that is asked for.
pub fn against() -> Option<PathBuf> {
    let mut arguments = std::env::args_os().skip_while(|argument| argument != "--against");
    arguments.nth(1).map(PathBuf::from)
}

/// The folder of the peers' programs.
fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers")
}

/// Where what is built of the peers goes.
fn built() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    target.join("bench/peers")
}

/// Builds what the peers need, so that no run waits for it.
pub fn build_peers() {
    println!("Kafka Streams: {}", java().get_program().display());
    println!("Python: {}", python().display());
}

fn run(command: &mut Command) {
    let out = command.stdin(Stdio::null()).output();
    let out = out.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        out.status.success(),
        "{command:?}: {}\n{}{}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

/// The Kafka Streams peer, built once by Maven.
fn java() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let folder = built().join("kafka-streams");
        let libraries = folder.join("lib");
        run(Command::new("mvn")
            .args(["-q", "-B", "-f"])
            .arg(peers().join("kafka-streams/pom.xml"))
            .args(["compile", "dependency:copy-dependencies"])
            .args(["-DincludeScope=runtime"])
            .arg(format!("-DoutputDirectory={}", libraries.display()))
            .arg(format!("-DoutputFolder={}", folder.display())));
        folder
    });
    let classes = folder.join("classes");
    let libraries = folder.join("lib/*");
    let mut command = Command::new("java");
    command
        .args(["-Xms512m", "-Xmx512m", "-XX:+UseParallelGC"])
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        .arg("-cp")
        .arg(format!("{}:{}", classes.display(), libraries.display()))
        .arg("peer.Peer");
    command
}

/// The Python of the peers, in an environment of its own that is made once.
fn python() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let folder = built().join("python");
        let python = folder.join("bin/python");
        if !python.exists() {
            run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        }
        run(Command::new(&python)
            .args(["-m", "pip", "install", "-q", "-r"])
            .arg(peers().join("python/requirements.txt")));
        python
    });
    made.clone()
}
