//! Scoring while another model of 100 MB loads: whether the loads can be found in the latencies.
//!
//! The instance has a second stream, which gets no events; its model is replaced over and over, each
//! time by another file: fetched, probed, compiled, warmed up, and the last one freed. A window runs
//! from the append of the deployment event until the version serves. The control runs are the same
//! without deployments, one before and one after each run with loads, cut at the same times. A third
//! control has a process in these windows that only counts, with `SCHED_IDLE` as loads have it: what
//! it does to the latencies comes from cores that are no longer idle, not from what a load does.

use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use swapstream::kafka::Publisher;
use swapstream::model::ModelName;
use swapstream::registry::{KafkaLogs, RegistrySettings, read_fleet};

use crate::cluster::{PATIENCE, settings};
use crate::latency::{self, Plan, Run, now_millis};
use crate::models;
use crate::processor::{Job, Kind, Setup};
use crate::stats::{Latencies, median};
use crate::support::unique;
use crate::svg;

/// The model that is loaded.
const LARGE: &str = "large";

/// Time between the end of a load and the next one.
const PAUSE: Duration = Duration::from_secs(2);

/// How often is looked whether the version serves, in the control as well.
const LOOK: Duration = Duration::from_millis(250);

/// A load: when its event was appended and when its version served, since counting began.
type Window = (i64, i64);

/// What goes on beside the scoring.
#[derive(Clone, Copy)]
enum Beside<'a> {
    Nothing,
    /// Loads, counted through all runs: what serves already would not be loaded.
    Loads(&'a AtomicU32),
    /// A process that only counts, in these windows.
    Counting(&'a [Window]),
}

/// Measures `rounds` times, and gives the figures and the ratios.
pub fn measure(
    job: &Job<'_>,
    plan: Plan,
    rounds: usize,
    expected: &[Value],
) -> (Value, Vec<(&'static str, f64)>) {
    publish(job);
    let setup = second_stream(job);
    let loads = AtomicU32::new(0);
    let run = |beside: Beside<'_>, done: &Mutex<Vec<Window>>| {
        latency::run(job, Kind::Ours, &setup, plan, expected, |_, over| {
            over_and_over(job, beside, over, plan.counted, done);
        })
    };
    let (mut rows, mut ratios, mut by_chance) = (Vec::new(), Vec::new(), Vec::new());
    let mut all: [Latencies; 3] = Default::default();
    let mut over_counting = Vec::new();
    for round in 0..rounds {
        let (windows, none) = (Mutex::default(), Mutex::default());
        let before = run(Beside::Nothing, &none);
        let loaded = run(Beside::Loads(&loads), &windows);
        let windows = windows.into_inner().unwrap();
        assert!(!windows.is_empty(), "no load ended within the run");
        let counting = run(Beside::Counting(&windows), &none);
        let after = run(Beside::Nothing, &none);
        let inside = cut(&loaded, &windows);
        let counted = cut(&counting, &windows);
        let control = [cut(&before, &windows), cut(&after, &windows)];
        let mut both = control[0].clone();
        both.merge(&control[1]);
        let at = |latencies: &Latencies, quantile| latencies.quantile(quantile);
        for (all, of_round) in all.iter_mut().zip([&inside, &both, &counted]) {
            all.merge(of_round);
        }
        let ratio = at(&inside, 0.99) / at(&both, 0.99);
        let chance = at(&control[1], 0.99) / at(&control[0], 0.99);
        let seconds: Vec<f64> = windows.iter().map(|(a, b)| (b - a) as f64 / 1e3).collect();
        println!(
            "loads {round}: {} of {:.1} s, p99 {:.2} ms against {:.2} without: {ratio:.3} (the two \
             without: {chance:.3}), {:.2} beside one that counts; p99.9 {:.2} against {:.2}, {:.2}; RSS \
             {:.0} MiB, {:.0} without",
            windows.len(),
            median(&seconds),
            at(&inside, 0.99),
            at(&both, 0.99),
            at(&counted, 0.99),
            at(&inside, 0.999),
            at(&both, 0.999),
            at(&counted, 0.999),
            most(&loaded),
            most(&before),
        );
        for run in [&before, &loaded, &counting, &after] {
            run.verified.assert_exactly_once();
            assert_eq!(run.unanswered, 0);
        }
        let rounded = |value: f64| (value * 1e3).round() / 1e3;
        rows.push(json!({
            "loads": windows.len(), "median_load_seconds": rounded(median(&seconds)),
            "events_inside": inside.len(),
            "p50_ms": rounded(at(&inside, 0.5)), "p50_without_ms": rounded(at(&both, 0.5)),
            "p99_ms": rounded(at(&inside, 0.99)), "p99_without_ms": rounded(at(&both, 0.99)),
            "p999_ms": rounded(at(&inside, 0.999)), "p999_without_ms": rounded(at(&both, 0.999)),
            "p50_counting_ms": rounded(at(&counted, 0.5)),
            "p99_counting_ms": rounded(at(&counted, 0.99)),
            "p999_counting_ms": rounded(at(&counted, 0.999)),
            "p99_ratio": rounded(ratio), "p99_ratio_of_those_without": rounded(chance),
            "p99_ms_by_step": by_step(&loaded, &windows),
            "p99_without_ms_by_step": by_step(&after, &windows),
            "rss_mib": most(&loaded), "rss_without_mib": most(&before),
            "load_average": loaded.load,
        }));
        ratios.push(ratio);
        by_chance.push(chance);
        over_counting.push(at(&inside, 0.99) / at(&counted, 0.99));
    }
    let names = [
        "while a model loads",
        "without",
        "beside a process that counts",
    ];
    let lines: Vec<_> = names.into_iter().zip(&all).collect();
    svg::latencies("loads", "Share of events that take longer", &lines);
    let figures = json!({
        "rate": plan.rate.round(), "seconds": plan.counted.as_secs(), "rows": rows,
    });
    let ratios = vec![
        ("load_p99_inside_over_control", median(&ratios)),
        ("load_p99_control_over_control", median(&by_chance)),
        ("load_p99_inside_over_counting", median(&over_counting)),
    ];
    (figures, ratios)
}

fn most(run: &Run) -> f64 {
    run.rss_mib.iter().copied().fold(0.0, f64::max)
}

/// Latencies of the events any of whose life lies in a window.
fn cut(run: &Run, windows: &[Window]) -> Latencies {
    let mut latencies = Latencies::default();
    for event in &run.events {
        let lies =
            |(from, to): &Window| event.visible >= run.start + from && event.sent <= run.start + to;
        if windows.iter().any(lies) {
            latencies.add(event.visible - event.sent);
        }
    }
    latencies
}

/// The p99 of events by when they were sent, in steps of [`LOOK`] since their window began: which part of
/// a load they met.
fn by_step(run: &Run, windows: &[Window]) -> Vec<f64> {
    let mut steps: Vec<Latencies> = Vec::new();
    for event in &run.events {
        let since = |(from, to): &Window| {
            let sent = event.sent - run.start;
            (sent >= *from && sent < *to).then(|| sent - from)
        };
        if let Some(since) = windows.iter().find_map(since) {
            let step = since as usize / LOOK.as_millis() as usize;
            if steps.len() <= step {
                steps.resize_with(step + 1, Latencies::default);
            }
            steps[step].add(event.visible - event.sent);
        }
    }
    let p99 = steps.iter().map(|step| step.quantile(0.99));
    p99.map(|p99| (p99 * 10.0).round() / 10.0).collect()
}

/// Publishes two files of 105 MB, and deploys the first.
fn publish(job: &Job<'_>) {
    for version in ["1", "2"] {
        let file = job.folder.join(format!("large-{version}.onnx"));
        std::fs::write(&file, models::large(version.parse().unwrap())).unwrap();
        let file = file.to_str().unwrap();
        // The instance's own load is what is measured.
        job.command(&[
            "model",
            "publish",
            file,
            "--model",
            LARGE,
            "--version",
            version,
            "--no-check",
        ]);
    }
    job.deploy(LARGE, "1");
}

/// A stream of the large model whose topic stays empty.
fn second_stream(job: &Job<'_>) -> Setup {
    let (input, output, group) = (unique("idle-in"), unique("idle-out"), unique("idle"));
    for topic in [&input, &output, &format!("{output}-dlq")] {
        job.cluster.create(topic, 1, &[]);
    }
    let stream = format!(
        "[streams.large]\ngroup_id = \"{group}\"\ninput_topics = [\"{input}\"]\noutput_topic = \
         \"{output}\"\ndead_letter_topic = \"{output}-dlq\"\nmodel = \"{LARGE}\"\nworkers = 1\n"
    );
    Setup {
        stream,
        ..Setup::default()
    }
}

/// Deploys the other version, waits until it serves, and so on; the controls only look.
fn over_and_over(
    job: &Job<'_>,
    beside: Beside<'_>,
    over: &AtomicBool,
    length: Duration,
    done: &Mutex<Vec<Window>>,
) {
    let deployments = job.deployments();
    let registry = deployments.trim_end_matches("-deployments");
    let logs = KafkaLogs::new(
        settings(job.cluster.bootstrap()),
        RegistrySettings {
            status_topic: format!("{registry}-status"),
            ..RegistrySettings::default()
        },
    );
    let model = ModelName::new(LARGE).unwrap();
    let mut publisher = Publisher::idempotent(&settings(job.cluster.bootstrap())).unwrap();
    // All of this run's windows are told since its beginning.
    let (start, began) = (Instant::now(), now_millis());
    let over = || over.load(Ordering::Relaxed) || start.elapsed() >= length;
    std::thread::scope(|scope| {
        if let Beside::Counting(windows) = beside {
            scope.spawn(move || windows.iter().for_each(|window| count(start, *window)));
        }
        while !over() {
            let from = now_millis();
            let revision = match beside {
                Beside::Loads(loads) => {
                    let even = loads.fetch_add(1, Ordering::Relaxed) % 2 == 0;
                    let version = if even { "2" } else { "1" };
                    Some(
                        publisher
                            .send(&job.deployment(LARGE, version))
                            .unwrap()
                            .offset,
                    )
                }
                _ => None,
            };
            let deadline = Instant::now() + PATIENCE;
            loop {
                if over() {
                    return;
                }
                std::thread::sleep(LOOK);
                let fleet = read_fleet(&logs).unwrap();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                let serves = fleet
                    .live(&model, now.as_millis() as i64)
                    .filter_map(|(_, entry)| entry?.report.serving.as_ref())
                    .any(|serving| Some(serving.revision) == revision);
                if serves {
                    break;
                }
                let waits = revision.is_none() || Instant::now() < deadline;
                assert!(waits, "revision {revision:?} does not serve");
            }
            let window = (from - began, now_millis() - began);
            done.lock().unwrap().push(window);
            std::thread::sleep(PAUSE);
        }
    });
}

/// Lets a process count from one end of the window to the other, while nobody else wants the core.
fn count(start: Instant, (from, to): Window) {
    let at = |millis: i64| start + Duration::from_millis(millis.unsigned_abs());
    let sleep =
        |until: Instant| std::thread::sleep(until.saturating_duration_since(Instant::now()));
    sleep(at(from));
    let counts = Counts::start();
    sleep(at(to));
    drop(counts);
}

/// Counts until the process that started it is gone: it would spoil whatever is measured next.
const COUNT: &str =
    "while kill -0 $PPID; do i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; done";

/// A process that counts until this is dropped.
struct Counts(Child);

impl Counts {
    fn start() -> Self {
        let mut command = Command::new("chrt");
        command.args(["--idle", "0", "sh", "-c", COUNT]);
        let child = command.stdin(Stdio::null()).spawn();
        Self(child.expect("chrt of util-linux"))
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
