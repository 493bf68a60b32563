//! How cost grows: workers, models, batches, the size of a model.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use swapstream::kafka::Publisher;
use swapstream::model::Manifest;
use swapstream::record::{Header, OutRecord};
use swapstream::registry::{CHUNK_BYTES, KafkaLogs, RegistrySettings, read_catalog};

use crate::cluster::{PATIENCE, settings};
use crate::floor::Inference;
use crate::latency::{self, Plan};
use crate::processor::{Job, Kind, MODEL, Running, Setup};
use crate::stats::median;
use crate::support::{Process, bin, eventually, try_http_get, unique};
use crate::{throughput, usage};

/// Two workers against one, and two threads of inference alone against one, in turns.
pub fn workers(
    job: &Job<'_>,
    input: (&str, usize),
    rounds: usize,
    seconds: u64,
    expected: &[Value],
) -> (Value, f64) {
    let inference = Inference::new(job.workload, 256);
    let mut rows = Vec::new();
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let rate = |workers: usize| {
            let setup = Setup {
                workers,
                ..Setup::default()
            };
            let window = throughput::run(job, Kind::Ours, &setup, input, seconds, expected);
            window.expect("enough events")
        };
        let alone = |threads| inference.run(threads, Duration::from_secs(seconds)).0;
        // Each beside its own: the machine's speed changes.
        let (one, alone_one) = (rate(1), alone(1));
        let (two, alone_two) = (rate(2), alone(2));
        let cpu = [one.cpu, two.cpu].map(f64::round);
        let [one, two] = [one, two].map(|window| window.events_per_second);
        let ratio = (two / one) / (alone_two / alone_one);
        println!(
            "workers: {one:.0} and {two:.0} events/s with 1 and 2, at {:.0} and {:.0} CPU s/M; inference \
             alone {alone_one:.0} and {alone_two:.0}: {ratio:.3}",
            cpu[0], cpu[1]
        );
        ratios.push(ratio);
        rows.push(json!({
            "workers_1": one, "workers_2": two, "cpu_1": cpu[0], "cpu_2": cpu[1],
            "inference_threads_1": alone_one, "inference_threads_2": alone_two,
            "ratio": ratio, "load_average": usage::load(),
        }));
    }
    (json!(rows), median(&ratios))
}

/// So many instances of one worker each, in one group.
pub fn instances(
    job: &Job<'_>,
    input: (&str, usize),
    counts: &[usize],
    seconds: u64,
    expected: &[Value],
) -> Value {
    let mut rows = Vec::new();
    for count in counts {
        let window = throughput::instances(job, *count, input, seconds, expected);
        println!(
            "instances: {count}: {:.0} events/s, {:.2} CPU s/M, {:.0} MiB",
            window.events_per_second, window.cpu, window.rss_mib
        );
        rows.push(json!({
            "instances": count, "events_per_second": window.events_per_second.round(),
            "cpu_seconds_per_million": window.cpu, "rss_mib_of_all": window.rss_mib,
            "load_average": window.load,
        }));
    }
    json!(rows)
}

/// Offered rate against the batches that form by themselves, and what they cost.
pub fn batches(job: &Job<'_>, rates: &[u32], seconds: u64, expected: &[Value]) -> Value {
    let mut rows = Vec::new();
    for rate in rates {
        let plan = Plan {
            rate: f64::from(*rate),
            warm_up: Duration::from_secs(2),
            counted: Duration::from_secs(seconds),
        };
        let mean = Mutex::new(0.0);
        let setup = Setup::default();
        let run = latency::run(job, Kind::Ours, &setup, plan, expected, |running, over| {
            let read = || {
                let names = ["swapstream_batch_size_sum", "swapstream_batch_size_count"];
                names.map(|name| running.metric(name))
            };
            let before = read();
            while !over.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(50));
            }
            let after = read();
            *mean.lock().unwrap() = (after[0] - before[0]) / (after[1] - before[1]);
        });
        run.verified.assert_exactly_once();
        let mean = *mean.lock().unwrap();
        let latencies = run.latencies();
        let [p50, p99] = [0.5, 0.99].map(|q| latencies.quantile(q));
        println!(
            "batches: {rate} events/s: {mean:.1} a batch, {:.2} CPU s/M, p50 {p50:.2} ms, p99 {p99:.2}",
            run.cpu
        );
        rows.push(json!({
            "events_per_second": rate, "mean_batch": mean, "cpu_seconds_per_million": run.cpu,
            "p50_ms": p50, "p99_ms": p99, "load_average": run.load,
        }));
    }
    json!(rows)
}

/// An instance with so many models, each with a stream of its own: time until all serve, memory, what
/// it takes while nothing comes, and a swap of one of them.
pub fn models(job: &Job<'_>, counts: &[usize]) -> Value {
    let mut rows = Vec::new();
    for count in counts {
        let prefix = unique("many");
        let names: Vec<String> = (0..*count).map(|n| format!("{prefix}-{n}")).collect();
        publish_many(job, &names);
        let config = many_streams(job, &prefix, &names);
        let start = Instant::now();
        let mut command = std::process::Command::new(bin());
        command.arg("-c").arg(config).arg("run");
        // A thousand are more than the default allows, by what their probes measure.
        command.env("SWAPSTREAM__LIMITS__MODEL_MEMORY", "16GiB");
        let process = Process::spawn(&mut command);
        let pid = process.pid();
        let running = Running {
            kind: Kind::Ours,
            process,
        };
        wait_ready(&running);
        let ready = start.elapsed();
        let to_ready = usage::cpu(pid).as_secs_f64();
        let cpu = usage::cpu(pid);
        std::thread::park_timeout(Duration::from_secs(10));
        let idle = usage::cpu(pid).saturating_sub(cpu).as_secs_f64() / 10.0;
        let rss = usage::memory_mib(pid, "VmRSS");
        let held = |what: &str| {
            let folder = std::fs::read_dir(format!("/proc/{pid}/{what}"));
            folder.unwrap().count()
        };
        let (threads, files) = (held("task"), held("fd"));
        job.publish(&names[0], "2");
        let deployed = Instant::now();
        let revision = job.deploy(&names[0], "2");
        wait_serving(&running, revision);
        let swap = deployed.elapsed();
        running.stop();
        println!(
            "models: {count}: ready after {:.1} s and {to_ready:.1} CPU s, {rss:.0} MiB, {threads} \
             threads, {files} files, idle {:.1} % of a core, swap of one {:.2} s",
            ready.as_secs_f64(),
            idle * 100.0,
            swap.as_secs_f64()
        );
        rows.push(json!({
            "models": count, "ready_seconds": ready.as_secs_f64(), "ready_cpu_seconds": to_ready,
            "rss_mib": rss, "idle_cores": idle, "threads": threads, "files": files,
            "swap_seconds": swap.as_secs_f64(),
        }));
    }
    json!(rows)
}

/// Waits until all streams are ready. The answer lists what is not: looked at as often as a probe
/// would, so that looking is not what is measured.
fn wait_ready(running: &Running) {
    let address = running.address();
    let pause = Duration::from_millis(200);
    eventually(
        "all streams are ready",
        PATIENCE * 10,
        || match try_http_get(&address, "/readyz")? {
            (200, _) => Ok(()),
            (_, body) => {
                std::thread::park_timeout(pause);
                Err(body)
            }
        },
    );
}

/// Waits until the deployment `revision` serves.
fn wait_serving(running: &Running, revision: i64) {
    let address = running.address();
    let wanted = format!("revision=\"{revision}\"");
    eventually("the deployment serves", PATIENCE, || {
        let (_, metrics) = try_http_get(&address, "/metrics")?;
        let mut infos = metrics
            .lines()
            .filter(|line| line.starts_with("swapstream_model_info{"));
        let served = infos.any(|line| line.contains(&wanted));
        served.then_some(()).ok_or_else(|| wanted.clone())
    });
}

/// Publishes the workload's model under all `names` and deploys it, as the commands would, at once.
fn publish_many(job: &Job<'_>, names: &[String]) {
    let deployments = job.deployments();
    let topic = |kind: &str| deployments.replace("-deployments", &format!("-{kind}"));
    let settings = settings(job.cluster.bootstrap());
    let logs = KafkaLogs::new(
        settings.clone(),
        RegistrySettings {
            versions_topic: topic("versions"),
            ..RegistrySettings::default()
        },
    );
    let catalog = read_catalog(&logs).unwrap();
    let (model, version) = (MODEL.parse().unwrap(), "1".parse().unwrap());
    let template = catalog.get(&model, &version).unwrap().manifest().unwrap();
    let artifact = std::fs::read(&job.workload.model).unwrap();
    let chunks: Vec<&[u8]> = artifact.chunks(CHUNK_BYTES as usize).collect();
    let mut publisher = Publisher::idempotent(&settings).unwrap();
    let mut send = |kind: &str, key: String, value: Vec<u8>, headers: Vec<Header>| {
        let record = OutRecord {
            topic: topic(kind),
            partition: Some(0),
            key: Some(key.into_bytes()),
            value: Some(value),
            headers,
            timestamp: None,
        };
        publisher.send(&record).unwrap().offset
    };
    for name in names {
        let offsets: Vec<i64> = (0..chunks.len())
            .map(|n| {
                send(
                    "artifacts",
                    format!("{name}/{n}"),
                    chunks[n].to_vec(),
                    Vec::new(),
                )
            })
            .collect();
        let manifest = Manifest {
            model: name.parse().unwrap(),
            ..Manifest::clone(template)
        };
        let header = json!({
            "schema": "swapstream.artifact-chunks/v1", "upload": name, "count": chunks.len(),
            "chunk_bytes": CHUNK_BYTES, "first_offset": offsets[0],
            "last_offset": offsets[offsets.len() - 1],
        });
        let headers = vec![Header::text("artifact-chunks", header)];
        send(
            "versions",
            format!("{name}/1"),
            manifest.to_json().unwrap(),
            headers,
        );
        let event = json!({
            "schema": "swapstream.deployment/v1", "action": "deploy", "model": name, "version": "1",
        });
        send(
            "deployments",
            name.clone(),
            event.to_string().into_bytes(),
            Vec::new(),
        );
    }
}

fn many_streams(job: &Job<'_>, prefix: &str, names: &[String]) -> std::path::PathBuf {
    let setup = Setup::default();
    let path = job.config(prefix, prefix, "unused-in", "unused-out", &setup);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut text = text.split("[streams.bench]").next().unwrap().to_owned();
    let (input, output) = (format!("{prefix}-in"), format!("{prefix}-out"));
    for topic in [&input, &output, &format!("{output}-dlq")] {
        job.cluster.create(topic, 1, &[]);
    }
    for (number, name) in names.iter().enumerate() {
        text.push_str(&format!(
            "[streams.s{number}]\ngroup_id = \"{prefix}-{number}\"\ninput_topics = [\"{input}\"]\n\
             output_topic = \"{output}\"\ndead_letter_topic = \"{output}-dlq\"\nmodel = \"{name}\"\n\
             workers = 1\n"
        ));
    }
    std::fs::write(&path, text).unwrap();
    path
}

/// From the deployment of a file of some size until it serves, by the command's own `--wait`.
pub fn model_sizes(job: &Job<'_>, mib: &[usize], folder: &Path) -> Value {
    let setup = Setup::default();
    let input = job.cluster.topic("in", &[]);
    let output = job.cluster.output_topic("out");
    let running = job.start(Kind::Ours, &input, &output, &setup);
    running.wait_ready();
    let mut rows = Vec::new();
    for (number, size) in mib.iter().enumerate() {
        let mut bytes = std::fs::read(&job.workload.model).unwrap();
        // A `doc_string` of random text: bytes to fetch, verify and read that change no answer.
        let mut random = crate::random::Random::new(*size as u64);
        let text: Vec<u8> = (0..size << 20)
            .map(|_| b'a' + (random.next() * 26.0) as u8)
            .collect();
        bytes.push(0x32);
        let mut length = text.len();
        while length >= 0x80 {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend(text);
        let file = folder.join(format!("size-{size}.onnx"));
        std::fs::write(&file, bytes).unwrap();
        let version = format!("size-{number}");
        job.command(&[
            "model",
            "publish",
            file.to_str().unwrap(),
            "--manifest",
            job.workload.manifest.to_str().unwrap(),
            "--model",
            MODEL,
            "--version",
            &version,
        ]);
        let start = Instant::now();
        let revision = job.deploy(MODEL, &version);
        let appended = start.elapsed();
        wait_serving(&running, revision);
        let took = start.elapsed().saturating_sub(appended);
        println!(
            "model size: {size} MiB serve after {:.2} s",
            took.as_secs_f64()
        );
        rows.push(json!({ "mib": size, "seconds_after_the_command": took.as_secs_f64() }));
    }
    running.stop();
    json!(rows)
}
