//! Full speed: a topic that is filled before, a window in the middle of the run that is counted.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::PARTITIONS;
use crate::processor::{Job, Kind, Running, Setup};
use crate::support::unique;
use crate::{usage, verify};

/// How often the output's end is asked for: what that takes is missing on a machine of two cores.
const LOOK: Duration = Duration::from_millis(250);
/// A run ends after this share of the input at the latest: its last batches are not at full speed.
const MOST: f64 = 0.98;
/// A processor that writes nothing for so long is stuck.
const STUCK: Duration = Duration::from_mins(2);

/// One counted window.
#[derive(Debug, Clone)]
pub struct Window {
    pub events_per_second: f64,
    /// Processor seconds for a million events: microseconds for one.
    pub cpu: f64,
    pub rss_mib: f64,
    pub events: i64,
    pub load: f64,
}

impl Window {
    pub fn json(&self, kind: Kind) -> Value {
        json!({
            "processor": kind.as_str(),
            "events_per_second": self.events_per_second.round(),
            "cpu_seconds_per_million": (self.cpu * 1000.0).round() / 1000.0,
            "peak_rss_mib": (self.rss_mib * 10.0).round() / 10.0,
            "events": self.events,
            "load_average": self.load,
        })
    }
}

#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    cpu: Duration,
    count: i64,
}

/// Runs `kind` over `input`, which holds `filled` events, and counts for `seconds`. Nothing where the
/// events are over before counting begins.
pub fn run(
    job: &Job<'_>,
    kind: Kind,
    setup: &Setup,
    input: (&str, usize),
    seconds: u64,
    expected: &[Value],
) -> Option<Window> {
    let output = job.cluster.output_topic("out");
    let running = vec![job.start(kind, input.0, &output, setup)];
    let warm_up = warm_up(kind, setup.workers);
    count(
        job,
        running,
        (input.1, &output),
        (warm_up, seconds),
        expected,
    )
}

/// Until all members of a group share its partitions, which they learn of by a heartbeat, every 3 s, and
/// then once more: the first to join has all of them.
const SHARED: Duration = Duration::from_secs(10);

fn warm_up(kind: Kind, members: usize) -> Duration {
    if members > 1 {
        SHARED.max(kind.warm_up())
    } else {
        kind.warm_up()
    }
}

/// Runs `number` of our instances together; their memory and processor time are summed.
pub fn instances(
    job: &Job<'_>,
    number: usize,
    (input, filled): (&str, usize),
    seconds: u64,
    expected: &[Value],
) -> Window {
    let output = job.cluster.output_topic("out");
    job.dead_letters(&output);
    let group = unique("instances");
    let start = |number| {
        let name = format!("{group}-{number}");
        job.instance(Kind::Ours, &name, &group, input, &output, &Setup::default())
    };
    let running = (0..number).map(start).collect();
    let times = (warm_up(Kind::Ours, number), seconds);
    let window = count(job, running, (filled, &output), times, expected);
    window.expect("enough events")
}

fn count(
    job: &Job<'_>,
    mut running: Vec<Running>,
    (filled, output): (usize, &str),
    (warm_up, seconds): (Duration, u64),
    expected: &[Value],
) -> Option<Window> {
    let kind = running[0].kind;
    let pids: Vec<u32> = running.iter().map(Running::pid).collect();
    let look = || Look {
        count: job.cluster.count(output),
        at: Instant::now(),
        cpu: pids.iter().map(|pid| usage::cpu(*pid)).sum(),
    };
    let last = (filled as f64 * MOST) as i64;
    let mut moved = look();
    let mut first: Option<Instant> = None;
    let mut from: Option<Look> = None;
    let to = loop {
        std::thread::park_timeout(LOOK);
        let now = look();
        running.iter_mut().for_each(Running::assert_running);
        // A window begins and ends with a batch: of a slow model there are few of them.
        let has_moved = now.count > moved.count;
        if has_moved {
            moved = now;
        }
        assert!(moved.at.elapsed() < STUCK, "{} is stuck", kind.as_str());
        if now.count == 0 {
            continue;
        }
        let start = *first.get_or_insert(now.at);
        match from {
            None if has_moved && start.elapsed() >= warm_up => from = Some(now),
            Some(from) if has_moved && from.at.elapsed() >= Duration::from_secs(seconds) => {
                break now;
            }
            _ if now.count >= last => break now,
            _ => {}
        }
    };
    let load = usage::load();
    let peaks = pids.iter().map(|pid| usage::memory_mib(*pid, "VmHWM"));
    let rss_mib = peaks.sum();
    running.into_iter().for_each(Running::stop);
    let verified = verify::read(job.cluster, output, kind, job.workload, expected, |_| {});
    verified.assert_exactly_once();
    let reached = verified.records as i64 >= to.count - i64::from(PARTITIONS) * 1000;
    assert!(reached, "{verified:?} of {}", to.count);
    job.cluster.delete(&[output]);
    let from = from.filter(|from| to.count > from.count)?;
    let events = to.count - from.count;
    Some(Window {
        events_per_second: events as f64 / (to.at - from.at).as_secs_f64(),
        cpu: to.cpu.saturating_sub(from.cpu).as_secs_f64() * 1e6 / events as f64,
        rss_mib,
        events,
        load,
    })
}
