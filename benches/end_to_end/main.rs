//! `cargo bench --bench end_to_end [-- PART…] [--quick]`: Swapstream against its peers and against
//! the floors, on Apache Kafka, each processor in a process of its own.
//!
//! Parts: the workloads `tabular`, `crayfish`, `crayfish_array`, `wide`, `heavy`; `latency`, `swaps`,
//! `scaling`. Without one all run. `--only a,b` runs some processors only, `--rounds N` and
//! `--seconds N` say how often and how long each is counted. What is needed besides Cargo: a JDK 17+,
//! Maven, Python 3.11+; the first run downloads the peers' libraries.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::too_many_lines,
    unreachable_pub,
    missing_docs,
    reason = "a benchmark prints, and fails by panicking"
)]

mod cluster;
mod floor;
mod models;
mod onnx;
mod processor;
mod random;
mod report;
mod stats;
mod throughput;
mod usage;
mod verify;
mod workload;

#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use cluster::Cluster;
use floor::Inference;
use processor::{Job, Kind, Setup};
use stats::median;
use workload::Workload;

/// What is asked for.
struct Options {
    parts: Vec<String>,
    only: Option<Vec<String>>,
    rounds: usize,
    seconds: u64,
    quick: bool,
    exactly_once: bool,
}

impl Options {
    fn parse(arguments: &[String]) -> Self {
        let flag = |name: &str| arguments.iter().any(|a| a == name);
        let value = |name: &str| {
            let at = arguments.iter().position(|a| a == name)?;
            arguments.get(at + 1).cloned()
        };
        let number = |name: &str| value(name).map(|text| text.parse::<u64>().expect(name));
        let quick = flag("--quick");
        let values = ["--only", "--rounds", "--seconds"];
        let parts = arguments.iter().enumerate().filter(|(at, argument)| {
            let of_option = *at > 0 && values.contains(&arguments[at - 1].as_str());
            !argument.starts_with('-') && !of_option
        });
        Self {
            parts: parts.map(|(_, part)| part.clone()).collect(),
            only: value("--only").map(|list| list.split(',').map(str::to_owned).collect()),
            rounds: number("--rounds").map_or(if quick { 1 } else { 5 }, |n| n as usize),
            seconds: number("--seconds").unwrap_or(if quick { 4 } else { 8 }),
            quick,
            exactly_once: flag("--exactly-once"),
        }
    }

    fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|p| p == part)
    }

    fn kinds(&self) -> Vec<Kind> {
        let wanted = |kind: &Kind| {
            let only = self.only.as_ref();
            only.is_none_or(|only| only.iter().any(|name| name == kind.as_str()))
        };
        Kind::ALL.into_iter().filter(wanted).collect()
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, job] = arguments.as_slice()
        && mode == "--passthrough"
    {
        return floor::passthrough(Path::new(job));
    }
    // `cargo test --all-targets` starts benchmarks without `--bench`.
    if !arguments.iter().any(|a| a == "--bench") {
        return;
    }
    let options = Options::parse(&arguments);
    let cluster = Cluster::start();
    let files = tempfile::tempdir().unwrap();
    let machine = json!({
        "machine": usage::machine(),
        "kafka": cluster.version(),
        "swapstream": env!("CARGO_PKG_VERSION"),
    });
    for name in workload::NAMES {
        if options.wants(name) {
            compare(&cluster, name, files.path(), &options, &machine);
        }
    }
}

/// Full speed of all processors with one workload, in turns.
fn compare(cluster: &Cluster, name: &str, files: &Path, options: &Options, machine: &Value) {
    let workload = Workload::new(name, files);
    let expected: Vec<Value> = processor::score(&workload)
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let job = Job::new(cluster, &workload, files);
    let filled = workload.records / if options.quick { 3 } else { 1 };
    let input = cluster.topic("in", &[("max.message.bytes", "4000000")]);
    cluster.fill(&input, &workload, filled);
    println!(
        "\n{name}: {}; {} bytes an event",
        workload.about,
        workload.event_bytes()
    );
    let setup = Setup {
        exactly_once: options.exactly_once,
        ..Setup::default()
    };
    let mut runs = Vec::new();
    let mut alone = Vec::new();
    let inference = Inference::new(&workload, 256);
    for round in 0..options.rounds {
        for kind in options.kinds() {
            let topic = (input.as_str(), filled);
            let window = throughput::run(&job, kind, &setup, topic, options.seconds, &expected);
            println!(
                "{round} {:<14} {:>9.0} events/s {:>8.3} CPU s/M {:>6.0} MiB",
                kind.as_str(),
                window.events_per_second,
                window.cpu,
                window.rss_mib
            );
            runs.push((kind, window));
        }
        let (rate, cpu) = inference.run(1, Duration::from_secs(options.seconds.min(3)));
        println!("{round} {:<14} {rate:>9.0} events/s {cpu:>8.3} CPU s/M", "inference");
        alone.push(cpu);
    }
    let cpu = |kind: Kind| {
        let own = runs.iter().filter(|(k, _)| *k == kind);
        median(&own.map(|(_, window)| window.cpu).collect::<Vec<f64>>())
    };
    let over = |a: Kind, b: Kind| {
        // The ratio of each round, then their median: what disturbs a round disturbs both.
        let of = |kind: Kind| runs.iter().filter(move |(k, _)| *k == kind);
        let ratios = of(a).zip(of(b)).map(|((_, a), (_, b))| a.cpu / b.cpu);
        median(&ratios.collect::<Vec<f64>>())
    };
    let mut ratios = Vec::new();
    let rss = runs.iter().filter(|(kind, _)| *kind == Kind::Ours);
    let rss = rss.map(|(_, window)| window.rss_mib).fold(0.0, f64::max);
    match name {
        "tabular" => {
            ratios.push((
                "tabular_kafka_streams_over_ours",
                over(Kind::KafkaStreams, Kind::Ours),
            ));
            ratios.push((
                "tabular_python_over_ours",
                over(Kind::PythonBatch, Kind::Ours),
            ));
            ratios.push((
                "tabular_plain_python_over_ours",
                over(Kind::PythonPlain, Kind::Ours),
            ));
            ratios.push((
                "tabular_ours_over_passthrough",
                over(Kind::Ours, Kind::Passthrough),
            ));
            let without = (cpu(Kind::Ours) - median(&alone)) / cpu(Kind::Passthrough);
            ratios.push(("tabular_ours_without_inference_over_passthrough", without));
            ratios.push(("rss_mib", rss));
        }
        "crayfish" => ratios.push((
            "crayfish_kafka_streams_over_ours",
            over(Kind::KafkaStreams, Kind::Ours),
        )),
        "heavy" => ratios.push((
            "heavy_ours_over_inference_only",
            cpu(Kind::Ours) / median(&alone),
        )),
        _ => {}
    }
    let guarantee = if options.exactly_once { "-eos" } else { "" };
    let figures = json!({
        "workload": name,
        "about": workload.about,
        "event_bytes": workload.event_bytes(),
        "exactly_once": options.exactly_once,
        "machine": machine,
        "runs": runs.iter().map(|(kind, window)| window.json(*kind)).collect::<Vec<_>>(),
        "inference_only_cpu_seconds_per_million": alone,
    });
    report::write(&format!("end_to_end-{name}{guarantee}"), &figures);
    ratios.retain(|(_, value)| value.is_finite());
    if !options.exactly_once {
        report::ratios(&ratios, machine);
    }
    cluster.delete(&[&input]);
}
