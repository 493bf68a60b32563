//! Swaps under load: whether a deployment can be found in the latencies.
//!
//! A window runs from the append of the deployment event to the first prediction of the new version
//! and 100 ms more. The control is a run without deployments, cut at the same times into windows of
//! the same lengths. The ratio is the median over slices of the run: one moment at which the machine
//! stands still has a thousandth of all events in it, and decides a ratio of its own slice only.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use swapstream::kafka::Publisher;

use crate::cluster::settings;
use crate::latency::{self, Plan, Run, Timed, now_millis};
use crate::processor::{Job, Kind, MODEL, Setup};
use crate::random::Random;
use crate::stats::{Latencies, central, median};
use crate::svg;

/// What is added to a window after the first prediction of the new version, milliseconds.
const AFTER: i64 = 100;
/// Length of a slice, milliseconds.
const SLICE: i64 = 30_000;
/// How often the control's windows are drawn anew to see how its ratio varies by chance.
const DRAWS: usize = 1000;

/// One deployment in a run.
#[derive(Debug, Clone, Copy)]
struct Swap {
    /// From its event's append, milliseconds since counting began.
    from: i64,
    /// Until the first prediction of its version.
    first: i64,
}

/// Measures, and gives the figures and the ratios.
pub fn measure(
    job: &Job<'_>,
    plan: Plan,
    every: Duration,
    expected: &[Value],
) -> (Value, Vec<(&'static str, f64)>) {
    variant(job);
    let control = latency::run(
        job,
        Kind::Ours,
        &Setup::default(),
        plan,
        expected,
        |_, _| {},
    );
    let deployed: Mutex<Vec<(i64, i64)>> = Mutex::default();
    let run = latency::run(
        job,
        Kind::Ours,
        &Setup::default(),
        plan,
        expected,
        |_, over| {
            deploy(job, over, every, plan.counted, &deployed);
        },
    );
    let deployed = deployed.into_inner().unwrap();
    let swaps = swaps(&run, &deployed);
    let delays: Vec<f64> = swaps.iter().map(|s| (s.first - s.from) as f64).collect();
    let (inside, outside) = split(&run, &swaps);
    let (still_inside, still_outside) = split(&control, &swaps);
    let ratios = sliced(&run, &swaps);
    let (ratio, control_ratio) = (median(&ratios), median(&sliced(&control, &swaps)));
    let (low, high) = central(&draws(&control, &swaps, ratios.len().max(1)));
    let whole = inside.quantile(0.999) / outside.quantile(0.999);
    println!(
        "swaps: {} of {} served, median {:.0} ms, p99.9 {:.2} ms inside, {:.2} outside: {whole:.3}; \
         median of {} slices {ratio:.3} (control {control_ratio:.3}, by chance {low:.3} to {high:.3})",
        swaps.len(),
        deployed.len(),
        median(&delays),
        inside.quantile(0.999),
        outside.quantile(0.999),
        ratios.len(),
    );
    let lines = [
        ("in swap windows", &inside),
        ("outside", &outside),
        ("without deployments, same windows", &still_inside),
        ("without deployments, outside", &still_outside),
    ];
    svg::latencies("swaps", "Share of events that take longer", &lines);
    let lost = run.verified.lost + run.unanswered;
    let quantiles = |l: &Latencies| {
        let at = [0.5, 0.99, 0.999].map(|q| (l.quantile(q) * 1000.0).round() / 1000.0);
        json!({ "events": l.len(), "p50_ms": at[0], "p99_ms": at[1], "p999_ms": at[2] })
    };
    let figures = json!({
        "rate": plan.rate.round(),
        "seconds": plan.counted.as_secs(),
        "deployments": deployed.len(),
        "deployments_that_served": swaps.len(),
        "event_to_first_prediction_ms": { "median": median(&delays), "all": delays },
        "inside": quantiles(&inside),
        "outside": quantiles(&outside),
        "control_inside": quantiles(&still_inside),
        "control_outside": quantiles(&still_outside),
        "p999_inside_over_outside": ratio,
        "p999_inside_over_outside_by_slice": ratios,
        "p999_inside_over_outside_of_all": whole,
        "control_ratio": control_ratio,
        "control_ratio_by_chance": [low, high],
        "lost": lost,
        "duplicated": run.verified.duplicated,
        "max_ms_by_second": longest(&run),
        "control_max_ms_by_second": longest(&control),
        "stolen_seconds": run.stolen,
        "control_stolen_seconds": control.stolen,
        "rss_mib": run.rss_mib,
        "control_rss_mib": control.rss_mib,
        "cpu_us_per_event": run.cpu,
        "control_cpu_us_per_event": control.cpu,
        "load_average": run.load,
    });
    let ratios = vec![
        ("swap_p999_inside_over_outside", ratio),
        ("swap_p999_control_low", low),
        ("swap_p999_control_high", high),
        ("swap_lost", lost as f64),
        ("swap_duplicated", run.verified.duplicated as f64),
    ];
    (figures, ratios)
}

/// The longest latency of the events sent in each second, milliseconds: where the machine stood still.
fn longest(run: &Run) -> Vec<i64> {
    let mut longest = Vec::new();
    for event in &run.events {
        let second = ((event.sent - run.start) / 1000) as usize;
        if second >= longest.len() {
            longest.resize(second + 1, 0);
        }
        longest[second] = longest[second].max(event.visible - event.sent);
    }
    longest
}

/// Publishes a second version that answers alike and is another file, so that it is loaded.
fn variant(job: &Job<'_>) {
    let mut bytes = std::fs::read(&job.workload.model).unwrap();
    // ONNX's `doc_string`, appended to the message.
    let text = b"the same model, another file";
    bytes.extend([0x32, text.len() as u8]);
    bytes.extend(text);
    let file = job.folder.join("variant.onnx");
    std::fs::write(&file, bytes).unwrap();
    let manifest = job.workload.manifest.to_str().unwrap();
    job.command(&[
        "model",
        "publish",
        file.to_str().unwrap(),
        "--manifest",
        manifest,
        "--model",
        MODEL,
        "--version",
        "2",
    ]);
}

/// Appends a deployment event every so often, the two versions in turns; notes when each was
/// appended and its revision.
fn deploy(
    job: &Job<'_>,
    over: &AtomicBool,
    every: Duration,
    length: Duration,
    deployed: &Mutex<Vec<(i64, i64)>>,
) {
    let mut publisher = Publisher::idempotent(&settings(job.cluster.bootstrap())).unwrap();
    let start = Instant::now();
    let mut number = 0_u32;
    loop {
        number += 1;
        let next = start + every * number;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        // The last one has time to serve.
        if over.load(Ordering::Relaxed) || start.elapsed() + every * 2 >= length {
            return;
        }
        let version = if number % 2 == 1 { "2" } else { "1" };
        let record = job.deployment(MODEL, version);
        let appended = now_millis();
        let revision = publisher.send(&record).unwrap().offset;
        deployed.lock().unwrap().push((appended, revision));
    }
}

/// The deployments whose version has served, each with its first prediction.
fn swaps(run: &Run, deployed: &[(i64, i64)]) -> Vec<Swap> {
    let first = |revision: i64| {
        let own = run.events.iter().filter(|e| e.revision == revision);
        own.map(|event| event.visible).min()
    };
    let served = deployed.iter().filter_map(|(appended, revision)| {
        Some(Swap {
            from: appended - run.start,
            first: first(*revision)? - run.start,
        })
    });
    served.collect()
}

/// Whether any of the event's life lies in a window.
fn is_inside(event: &Timed, start: i64, swap: &Swap) -> bool {
    event.visible >= start + swap.from && event.sent <= start + swap.first + AFTER
}

/// Whether any of the event's life lies in one of the windows, which begin one after the other and
/// reach into the next ones at most.
fn is_windowed(event: &Timed, start: i64, swaps: &[Swap]) -> bool {
    let begun = swaps.partition_point(|swap| start + swap.from <= event.visible);
    let near = swaps[begun.saturating_sub(4)..begun].iter();
    near.rev().any(|swap| is_inside(event, start, swap))
}

fn split(run: &Run, swaps: &[Swap]) -> (Latencies, Latencies) {
    let (mut inside, mut outside) = (Latencies::default(), Latencies::default());
    for event in &run.events {
        let windowed = is_windowed(event, run.start, swaps);
        let latencies = if windowed { &mut inside } else { &mut outside };
        latencies.add(event.visible - event.sent);
    }
    (inside, outside)
}

/// Inside over outside of each slice of the run that has both.
fn sliced(run: &Run, swaps: &[Swap]) -> Vec<f64> {
    let mut slices: Vec<(Latencies, Latencies)> = Vec::new();
    for event in &run.events {
        let slice = ((event.sent - run.start) / SLICE) as usize;
        if slice >= slices.len() {
            slices.resize(slice + 1, <(Latencies, Latencies)>::default());
        }
        let windowed = is_windowed(event, run.start, swaps);
        let (inside, outside) = &mut slices[slice];
        let latencies = if windowed { inside } else { outside };
        latencies.add(event.visible - event.sent);
    }
    let ratio = |(inside, outside): &(Latencies, Latencies)| {
        (inside.len() > 0 && outside.len() > 0)
            .then(|| inside.quantile(0.999) / outside.quantile(0.999))
    };
    slices.iter().filter_map(ratio).collect()
}

/// Ratios of the control with as many of its windows drawn at random, with repeats: what the ratio
/// is by chance, again as a median of so many slices. A window's neighbourhood until the next one is
/// drawn with it.
fn draws(control: &Run, swaps: &[Swap], slices: usize) -> Vec<f64> {
    let mut parts = vec![(Latencies::default(), Latencies::default()); swaps.len()];
    for event in &control.events {
        let after = swaps.partition_point(|swap| control.start + swap.from <= event.visible);
        let Some(index) = after.checked_sub(1) else {
            continue;
        };
        let (inside, outside) = &mut parts[index];
        let part = if is_inside(event, control.start, &swaps[index]) {
            inside
        } else {
            outside
        };
        part.add(event.visible - event.sent);
    }
    let mut random = Random::new(7);
    let mut slice = || {
        let (mut inside, mut outside) = (Latencies::default(), Latencies::default());
        for _ in 0..parts.len().div_ceil(slices) {
            let drawn = &parts[(random.next() * parts.len() as f32) as usize];
            inside.merge(&drawn.0);
            outside.merge(&drawn.1);
        }
        inside.quantile(0.999) / outside.quantile(0.999)
    };
    (0..DRAWS)
        .map(|_| median(&(0..slices).map(|_| slice()).collect::<Vec<_>>()))
        .filter(|r: &f64| r.is_finite())
        .collect()
}
