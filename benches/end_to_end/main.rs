//! `cargo bench --bench end_to_end [-- PART…] [--quick]`: Swapstream against its peers and against
//! the floors, on Apache Kafka, each processor in a process of its own.
//!
//! Parts: the workloads `tabular`, `crayfish`, `crayfish_array`, `wide`, `heavy`; `latency`, `swaps`,
//! `loads`, `scaling`. Without one all run. `--only a,b` runs some processors only, `--rounds N` and
//! `--seconds N` say how often and how long each is counted, `--exactly-once` takes that guarantee at
//! full speed, `--client key=value,…` sets client properties of ours and of the floor, `--rate N` and `--swap-seconds N` set what latency and swaps are measured at. What is needed besides Cargo: a JDK 17+,
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
    clippy::unchecked_time_subtraction,
    clippy::struct_field_names,
    clippy::format_collect,
    clippy::format_push_string,
    unreachable_pub,
    missing_docs,
    reason = "a benchmark prints, and fails by panicking"
)]

mod cluster;
mod floor;
mod latency;
mod loads;
mod models;
mod onnx;
mod processor;
mod random;
mod report;
mod scaling;
mod stats;
mod svg;
mod swaps;
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
use latency::Plan;
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
    /// Events a second for latency and swaps, instead of half of what full speed gives.
    rate: Option<f64>,
    /// Client properties, ours and the floor's: what a setting is worth.
    client: Vec<(String, String)>,
    /// Seconds of the run with swaps.
    swaps: Option<u64>,
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
        let values = [
            "--only",
            "--rounds",
            "--seconds",
            "--rate",
            "--swap-seconds",
            "--client",
        ];
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
            client: value("--client")
                .iter()
                .flat_map(|list| list.split(','))
                .map(|pair| {
                    let (key, value) = pair.split_once('=').expect("--client key=value,…");
                    (key.to_owned(), value.to_owned())
                })
                .collect(),
            rate: number("--rate").map(|n| n as f64),
            swaps: number("--swap-seconds"),
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
    if ["latency", "swaps", "loads"]
        .iter()
        .any(|part| options.wants(part))
    {
        at_half_load(&cluster, files.path(), &options, &machine);
    }
    if options.wants("scaling") {
        scale(&cluster, files.path(), &options, &machine);
    }
}

/// A workload with its input topic filled and what `swapstream score` answers.
struct Ready<'a> {
    job: Job<'a>,
    input: String,
    filled: usize,
    expected: Vec<Value>,
}

impl<'a> Ready<'a> {
    fn new(cluster: &'a Cluster, workload: &'a Workload, files: &'a Path, quick: bool) -> Self {
        let lines = processor::score(workload);
        let filled = workload.records / if quick { 3 } else { 1 };
        let input = cluster.topic("in", &[("max.message.bytes", "4000000")]);
        cluster.fill(&input, workload, filled);
        Self {
            job: Job::new(cluster, workload, files),
            input,
            filled,
            expected: lines
                .iter()
                .map(|l| serde_json::from_str(l).unwrap())
                .collect(),
        }
    }

    fn topic(&self) -> (&str, usize) {
        (&self.input, self.filled)
    }
}

/// Latency at half of our maximum rate, ours and the floor's in turns; and swaps at that rate.
fn at_half_load(cluster: &Cluster, files: &Path, options: &Options, machine: &Value) {
    let workload = Workload::new("tabular", files);
    let ready = Ready::new(cluster, &workload, files, options.quick);
    let setup = Setup::default();
    let rate = options.rate.unwrap_or_else(|| {
        let run = || {
            let (topic, seconds) = (ready.topic(), options.seconds);
            throughput::run(
                &ready.job,
                Kind::Ours,
                &setup,
                topic,
                seconds,
                &ready.expected,
            )
        };
        let rates: Vec<f64> = (0..options.rounds.min(3))
            .map(|_| run().expect("enough events").events_per_second)
            .collect();
        median(&rates) / 2.0
    });
    println!("\nhalf of our maximum rate: {rate:.0} events/s");
    if options.wants("latency") {
        latencies(&ready, rate, options, machine);
    }
    if options.wants("swaps") {
        let plan = Plan {
            rate,
            warm_up: Duration::from_secs(5),
            counted: Duration::from_secs(options.swaps.unwrap_or(if options.quick {
                30
            } else {
                300
            })),
        };
        let every = Duration::from_secs(1);
        let (figures, ratios) = swaps::measure(&ready.job, plan, every, &ready.expected);
        let figures = json!({ "machine": machine, "figures": figures });
        report::write("end_to_end-swaps", &figures);
        report::ratios(&ratios, machine);
    }
    if options.wants("loads") {
        let plan = Plan {
            rate,
            warm_up: Duration::from_secs(5),
            counted: Duration::from_secs(if options.quick { 30 } else { 60 }),
        };
        let rounds = options.rounds.min(if options.quick { 1 } else { 3 });
        let (figures, ratios) = loads::measure(&ready.job, plan, rounds, &ready.expected);
        let figures = json!({ "machine": machine, "figures": figures });
        report::write("end_to_end-loads", &figures);
        report::ratios(&ratios, machine);
    }
    cluster.delete(&[&ready.input]);
}

fn latencies(ready: &Ready<'_>, rate: f64, options: &Options, machine: &Value) {
    let plan = Plan {
        rate,
        warm_up: Duration::from_secs(3),
        counted: Duration::from_secs(options.seconds * 2),
    };
    let setup = Setup::default();
    let pairs = if options.quick {
        2
    } else {
        options.rounds.max(10)
    };
    let (mut ratios, mut rows) = (Vec::new(), Vec::new());
    let mut tails = [stats::Latencies::default(), stats::Latencies::default()];
    for pair in 0..pairs {
        let kinds = [Kind::Ours, Kind::Passthrough];
        let quantiles = kinds.map(|kind| {
            let run = latency::run(&ready.job, kind, &setup, plan, &ready.expected, |_| {});
            run.verified.assert_exactly_once();
            assert_eq!(run.unanswered, 0, "{}", kind.as_str());
            let all = run.latencies();
            let at = [0.5, 0.99, 0.999].map(|q| all.quantile(q));
            println!(
                "{pair} {:<14} p50 {:.2} ms, p99 {:.2}, p99.9 {:.2}; {:.2} CPU s/M",
                kind.as_str(),
                at[0],
                at[1],
                at[2],
                run.cpu
            );
            rows.push(json!({
                "processor": kind.as_str(), "rate": rate.round(), "events": all.len(),
                "p50_ms": at[0], "p99_ms": at[1], "p999_ms": at[2],
                "cpu_seconds_per_million": run.cpu, "load_average": run.load,
            }));
            tails[usize::from(kind != Kind::Ours)].merge(&all);
            at[1]
        });
        ratios.push(quantiles[0] / quantiles[1]);
    }
    let lines: Vec<_> = ["swapstream", "passthrough"]
        .into_iter()
        .zip(&tails)
        .map(|(name, tail)| (name.to_owned(), tail.exceeding()))
        .collect();
    let title = "Share of events that take longer, at half of the maximum rate";
    svg::tails(&report::folder().join("latency.svg"), title, 1e-5, &lines);
    let figures = json!({ "machine": machine, "rate": rate.round(), "runs": rows });
    report::write("end_to_end-latency", &figures);
    report::ratios(
        &[("half_load_p99_ours_over_passthrough", median(&ratios))],
        machine,
    );
}

/// Workers, models and sizes.
fn scale(cluster: &Cluster, files: &Path, options: &Options, machine: &Value) {
    let heavy = Workload::new("heavy", files);
    let ready = Ready::new(cluster, &heavy, files, options.quick);
    let rounds = options.rounds;
    let (workers, ratio) = scaling::workers(
        &ready.job,
        ready.topic(),
        rounds,
        options.seconds,
        &ready.expected,
    );
    let small = Workload::new("tabular", files);
    let job = Job::new(cluster, &small, files);
    let counts: &[usize] = if options.quick {
        &[1, 10]
    } else {
        &[1, 10, 100, 1000]
    };
    let models = scaling::models(&job, counts);
    let sizes: &[usize] = if options.quick {
        &[0, 10]
    } else {
        &[0, 1, 10, 50]
    };
    let sizes = scaling::model_sizes(&job, sizes, files);
    let figures = json!({
        "machine": machine, "workers": workers, "models": models, "model_sizes": sizes,
    });
    report::write("end_to_end-scaling", &figures);
    report::ratios(&[("two_workers_over_one", ratio)], machine);
    cluster.delete(&[&ready.input]);
}

/// Full speed of all processors with one workload, in turns.
fn compare(cluster: &Cluster, name: &str, files: &Path, options: &Options, machine: &Value) {
    let workload = Workload::new(name, files);
    let ready = Ready::new(cluster, &workload, files, options.quick);
    println!(
        "\n{name}: {}; {} bytes an event",
        workload.about,
        workload.event_bytes()
    );
    let setup = Setup {
        exactly_once: options.exactly_once,
        client: options.client.clone(),
        ..Setup::default()
    };
    let mut runs = Vec::new();
    let mut alone = Vec::new();
    let inference = Inference::new(&workload, 256);
    for round in 0..options.rounds {
        for kind in options.kinds() {
            let (topic, seconds) = (ready.topic(), options.seconds);
            let window = throughput::run(&ready.job, kind, &setup, topic, seconds, &ready.expected);
            let Some(window) = window else {
                println!(
                    "{round} {:<14} was through before counting began",
                    kind.as_str()
                );
                continue;
            };
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
        println!(
            "{round} {:<14} {rate:>9.0} events/s {cpu:>8.3} CPU s/M",
            "inference"
        );
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
    let mut bars: Vec<(String, f64)> = options
        .kinds()
        .into_iter()
        .map(|kind| (kind.as_str().to_owned(), cpu(kind)))
        .collect();
    bars.push(("inference alone".to_owned(), median(&alone)));
    let title = format!("{name}: processor seconds for a million events");
    svg::bars(&report::folder().join(format!("{name}.svg")), &title, &bars);
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
    cluster.delete(&[&ready.input]);
}
