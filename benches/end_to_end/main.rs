//! `cargo bench --bench end_to_end [-- PART…]`: Swapstream against its peers and against the floors, on
//! Apache Kafka, each processor in a process of its own.
//!
//! Parts: the workloads `tabular`, `crayfish`, `crayfish_array`, `wide`, `heavy`; `latency`, `swaps`, `loads`;
//! `workers`, `instances`, `models`, `batches`, `sizes`, which are `scaling` together. Without one all run.
//! Presets: `--figures` is the parts with a target, on a machine that is quiet (45 minutes); `--growth`
//! all others, both guarantees.
//!
//! `--build` only builds the peers; `--resume` leaves out parts whose file is there; `--tables` only writes
//! the tables. `--only a,b` runs some processors only, `--rounds N` and `--seconds N` say how often and how
//! long each is counted, `--records N` of how many events, `--quick` once and shortly. `--exactly-once` takes that guarantee at full speed,
//! `--against FILE` runs another build of ours beside this one, `--client key=value,…` sets client properties of ours and of the floor; `--rate N` and
//! `--swap-seconds N` set what latency and swaps are measured at. `--data DIR` is where the broker keeps its
//! data, which is memory where there is enough.
//!
//! What is needed besides Cargo: a JDK 17+, Maven, Python 3.11+; the first run downloads the peers'
//! libraries.
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
mod compare;
mod feeder;
mod floor;
mod latency;
mod loads;
mod models;
mod onnx;
mod options;
mod processor;
mod random;
mod report;
mod scaling;
mod stats;
mod store;
mod svg;
mod swaps;
mod tables;
mod throughput;
mod usage;
mod verify;
mod workload;

#[path = "../../tests/support/mod.rs"]
mod support;

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use cluster::Cluster;
use latency::Plan;
use options::{OTHERS, Options};
use processor::{Job, Kind, Setup};
use stats::median;
use store::Store;
use workload::Workload;

/// The program's own, for the floors' sake, which are run by this one.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The first lines of this file say what there is.
fn help() {
    let lines = include_str!("main.rs").lines();
    for line in lines.map_while(|line| line.strip_prefix("//!")) {
        println!("{}", line.strip_prefix(' ').unwrap_or(line));
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, job] = arguments.as_slice()
        && mode == "--passthrough"
    {
        return floor::passthrough(Path::new(job));
    }
    if arguments.iter().any(|a| a == "--help" || a == "-h") {
        return help();
    }
    // `cargo test --all-targets` starts benchmarks without `--bench`.
    if !arguments.iter().any(|a| a == "--bench") {
        return;
    }
    let options = Options::parse(&arguments);
    let has = |flag: &str| arguments.iter().any(|a| a == flag);
    if has("--tables") {
        return tables::write();
    }
    if has("--build") || options.parts.is_empty() || options.figures || options.growth {
        processor::build_peers();
    }
    if has("--build") {
        return;
    }
    let cluster = Cluster::start(Store::new(options.data.as_deref()));
    let files = tempfile::tempdir().unwrap();
    let bench = Bench {
        machine: json!({
            "machine": usage::machine(),
            "kafka": cluster.version(),
            "broker_data": cluster.storage(),
            "swapstream": env!("CARGO_PKG_VERSION"),
        }),
        cluster: &cluster,
        files: files.path(),
        half_rate: Cell::new(None),
        is_warm: Cell::new(false),
    };
    for name in workload::NAMES {
        if options.wants(name) {
            let mut guarantees = vec![options.exactly_once];
            if options.growth && !options.exactly_once {
                guarantees.push(true);
            }
            for exactly_once in guarantees {
                let options = Options {
                    exactly_once,
                    ..options.clone()
                };
                timed(&file_of(name, exactly_once), &options, || {
                    bench.compare(name, &options);
                });
            }
        }
    }
    // The other guarantee of what `--figures` counts.
    if options.growth {
        for name in ["tabular", "crayfish", "heavy"] {
            let options = Options {
                exactly_once: true,
                ..options.clone()
            };
            timed(&file_of(name, true), &options, || {
                bench.compare(name, &options);
            });
        }
    }
    for part in OTHERS {
        if options.wants(part) {
            timed(part, &options, || bench.part(part, &options));
        }
    }
    tables::write();
}

/// The name that a workload's file has.
fn file_of(workload: &str, exactly_once: bool) -> String {
    format!("{workload}{}", if exactly_once { "-eos" } else { "" })
}

/// A workload with its input topic filled and what `swapstream score` answers.
struct Ready<'a> {
    job: Job<'a>,
    input: String,
    filled: usize,
    expected: Vec<Value>,
}

impl<'a> Ready<'a> {
    /// With an input topic that is full if `fill`, else empty.
    fn new(
        cluster: &'a Cluster,
        workload: &'a Workload,
        files: &'a Path,
        options: &Options,
        fill: bool,
    ) -> Self {
        let lines = processor::score(workload);
        let own = workload.records / if options.quick { 3 } else { 1 };
        let filled = usize::from(fill) * options.records.unwrap_or(own);
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

/// What all parts share.
struct Bench<'a> {
    cluster: &'a Cluster,
    files: &'a Path,
    machine: Value,
    /// Half of our maximum rate, once it was measured.
    half_rate: Cell<Option<f64>>,
    /// Whether the broker has worked at a rate for a while.
    is_warm: Cell<bool>,
}

/// Runs a part and says how long it took, unless its file is there and may stay.
fn timed(part: &str, options: &Options, run: impl FnOnce()) {
    if options.resume && report::is_there(&format!("end_to_end-{part}")) {
        println!("\n{part}: its file is there");
        return;
    }
    let start = Instant::now();
    run();
    println!("{part} took {:.0} s", start.elapsed().as_secs_f64());
}

impl Bench<'_> {
    fn part(&self, part: &str, options: &Options) {
        let name = if part == "workers" {
            "heavy"
        } else {
            "tabular"
        };
        let workload = Workload::new(name, self.files);
        let filled = matches!(
            part,
            "latency" | "swaps" | "loads" | "workers" | "instances"
        );
        // Several members need 10 s to share the partitions, in which the first of them has all.
        let several = (part == "instances").then_some(workload.records * 3);
        let options = &Options {
            records: options.records.or(several),
            ..options.clone()
        };
        let ready = Ready::new(self.cluster, &workload, self.files, options, filled);
        let quick = options.quick;
        let rows = match part {
            "latency" => return self.latencies(&ready, options),
            "swaps" => return self.swaps(&ready, options),
            "loads" => return self.loads(&ready, options),
            "workers" => {
                let (rounds, seconds) = (options.rounds, options.seconds);
                let measured =
                    scaling::workers(&ready.job, ready.topic(), rounds, seconds, &ready.expected);
                let (rows, ratio) = measured;
                report::ratios(&[("two_workers_over_one", ratio)], &self.machine);
                rows
            }
            "instances" => {
                let counts = [1, 2, 3];
                let seconds = options.seconds;
                scaling::instances(&ready.job, ready.topic(), &counts, seconds, &ready.expected)
            }
            "models" if quick => scaling::models(&ready.job, &[1, 10]),
            "models" => scaling::models(&ready.job, &[1, 10, 100, 1000]),
            "batches" => {
                let rates = [1_000, 10_000, 50_000, 100_000, 200_000];
                let rates = if quick { &rates[..2] } else { &rates[..] };
                scaling::batches(&ready.job, rates, options.seconds, &ready.expected)
            }
            _ if quick => scaling::model_sizes(&ready.job, &[0, 10], self.files),
            _ => scaling::model_sizes(&ready.job, &[0, 1, 10, 50], self.files),
        };
        let figures = json!({ "machine": self.machine, "rows": rows });
        report::write(&format!("end_to_end-{part}"), &figures);
        self.cluster.delete(&[&ready.input]);
    }

    /// Half of our maximum rate: as given, as another part found it, or by some runs at full speed.
    fn half_rate(&self, ready: &Ready<'_>, options: &Options) -> f64 {
        let known = || report::read("end_to_end-latency")["rate"].as_f64();
        let rate = options.rate.or(self.half_rate.get());
        let rate = rate.or_else(|| known().filter(|_| options.resume));
        let rate = rate.unwrap_or_else(|| {
            let run = || {
                let (topic, seconds) = (ready.topic(), options.seconds);
                let (kind, setup) = (Kind::Ours, Setup::default());
                throughput::run(&ready.job, kind, &setup, topic, seconds, &ready.expected)
            };
            let rates: Vec<f64> = (0..options.rounds.min(3))
                .map(|_| run().expect("enough events").events_per_second)
                .collect();
            median(&rates) / 2.0
        });
        println!("\nhalf of our maximum rate: {rate:.0} events/s");
        self.half_rate.set(Some(rate));
        rate
    }

    /// Lets the broker's JVM compile what it does at a rate, which at full speed is little of it: the
    /// first seconds would have latencies of hundreds of milliseconds.
    fn warm_up(&self, ready: &Ready<'_>, rate: f64, options: &Options) {
        if self.is_warm.replace(true) {
            return;
        }
        let plan = Plan {
            rate,
            warm_up: Duration::from_secs(1),
            counted: Duration::from_secs(if options.quick { 5 } else { 20 }),
        };
        let setup = Setup::default();
        for kind in [Kind::Ours, Kind::Passthrough] {
            latency::run(&ready.job, kind, &setup, plan, &ready.expected, |_, _| {});
        }
    }

    /// Swaps at half of our maximum rate.
    fn swaps(&self, ready: &Ready<'_>, options: &Options) {
        let quick = if options.quick { 30 } else { 300 };
        let plan = Plan {
            rate: self.half_rate(ready, options),
            warm_up: Duration::from_secs(5),
            counted: Duration::from_secs(options.swaps.unwrap_or(quick)),
        };
        self.warm_up(ready, plan.rate, options);
        let every = Duration::from_secs(1);
        let (figures, ratios) = swaps::measure(&ready.job, plan, every, &ready.expected);
        let figures = json!({ "machine": self.machine, "figures": figures });
        report::write("end_to_end-swaps", &figures);
        report::ratios(&ratios, &self.machine);
        self.cluster.delete(&[&ready.input]);
    }

    /// Loads of large models at a quarter of our maximum rate: at half of it the broker, the feeder and
    /// the scoring take two cores, and nothing is left for a load.
    fn loads(&self, ready: &Ready<'_>, options: &Options) {
        let rate = options
            .rate
            .unwrap_or_else(|| self.half_rate(ready, options) / 2.0);
        let plan = Plan {
            rate,
            warm_up: Duration::from_secs(5),
            counted: Duration::from_secs(if options.quick { 30 } else { 60 }),
        };
        self.warm_up(ready, plan.rate, options);
        let rounds = options.rounds.min(if options.quick { 1 } else { 3 });
        let (mut figures, ratios) = loads::measure(&ready.job, plan, rounds, &ready.expected);
        figures["machine"] = self.machine.clone();
        report::write("end_to_end-loads", &figures);
        report::ratios(&ratios, &self.machine);
        self.cluster.delete(&[&ready.input]);
    }

    /// Latency at half of our maximum rate, ours and the floor's in turns.
    fn latencies(&self, ready: &Ready<'_>, options: &Options) {
        let rate = self.half_rate(ready, options);
        let plan = Plan {
            rate,
            warm_up: Duration::from_secs(3),
            counted: Duration::from_secs(options.seconds * 2),
        };
        self.warm_up(ready, rate, options);
        let setup = Setup::default();
        let pairs = if options.quick {
            2
        } else {
            options.rounds.max(10)
        };
        let (mut ratios, mut rows) = (Vec::new(), Vec::new());
        let mut tails = [stats::Latencies::default(), stats::Latencies::default()];
        for pair in 0..pairs {
            let mut kinds = [Kind::Ours, Kind::Passthrough];
            // Neither is always the first.
            if pair % 2 == 1 {
                kinds.reverse();
            }
            let mut p99 = [0.0; 2];
            for kind in kinds {
                let run = latency::run(&ready.job, kind, &setup, plan, &ready.expected, |_, _| {});
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
                let own = usize::from(kind != Kind::Ours);
                tails[own].merge(&all);
                p99[own] = at[1];
            }
            ratios.push(p99[0] / p99[1]);
        }
        let lines: Vec<_> = ["swapstream", "passthrough"]
            .into_iter()
            .zip(&tails)
            .collect();
        let title = "Share of events that take longer, at half of the maximum rate";
        svg::latencies("latency", title, &lines);
        let figures = json!({ "machine": self.machine, "rate": rate.round(), "runs": rows });
        report::write("end_to_end-latency", &figures);
        let ratio = median(&ratios);
        report::ratios(
            &[("half_load_p99_ours_over_passthrough", ratio)],
            &self.machine,
        );
        self.cluster.delete(&[&ready.input]);
    }
}
