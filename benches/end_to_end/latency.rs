//! Produce-to-visible latency at an offered rate: from the input record's timestamp to the time at
//! which the broker appended the output.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::cluster::{PARTITIONS, PATIENCE};
use crate::processor::{Job, Kind, Running, Setup};
use crate::stats::Latencies;
use crate::verify::{self, Answer, Verified};
use crate::{feeder, support, usage};

/// What is to be measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Events a second.
    pub rate: f64,
    /// Time before anything counts.
    pub warm_up: Duration,
    /// Time that counts.
    pub counted: Duration,
}

/// One answered event: when it was sent, when its answer was there, and what served it.
#[derive(Debug, Clone, Copy)]
pub struct Timed {
    pub sent: i64,
    pub visible: i64,
    pub revision: i64,
}

/// A run.
#[derive(Debug)]
pub struct Run {
    pub events: Vec<Timed>,
    pub verified: Verified,
    /// Inputs that never got an answer.
    pub unanswered: u64,
    /// When counting began, milliseconds since 1970.
    pub start: i64,
    /// Memory of the processor, once a second.
    pub rss_mib: Vec<f64>,
    pub cpu: f64,
    pub load: f64,
    /// Processor time that the machine was denied by its host, in seconds.
    pub stolen: f64,
}

impl Run {
    /// The latencies of all counted events.
    pub fn latencies(&self) -> Latencies {
        let mut latencies = Latencies::default();
        for event in &self.events {
            latencies.add(event.visible - event.sent);
        }
        latencies
    }
}

pub fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() as i64
}

/// Offers events at the plan's rate to `kind`. `meanwhile` runs beside, from the start of counting
/// until it says that it is over.
pub fn run(
    job: &Job<'_>,
    kind: Kind,
    setup: &Setup,
    plan: Plan,
    expected: &[Value],
    meanwhile: impl FnOnce(&Running, &AtomicBool) + Send,
) -> Run {
    let cluster = job.cluster;
    let input = cluster.topic("in", &[("max.message.bytes", "4000000")]);
    let output = cluster.output_topic("out");
    let running = job.start(kind, &input, &output, setup);
    let pid = running.pid();
    // The first answers: the group is joined and everything is connected.
    let first = PARTITIONS as usize;
    cluster.fill(&input, job.workload, first);
    support::eventually("the first answers", PATIENCE, || {
        let count = cluster.count(&output);
        let there = count >= first as i64;
        there.then_some(()).ok_or_else(|| format!("{count}"))
    });
    let stolen = usage::stolen();
    let start = now_millis() + plan.warm_up.as_millis() as i64;
    let over = AtomicBool::new(false);
    let mut rss_mib = Vec::new();
    let (sent, cpu) = std::thread::scope(|scope| {
        let feeding = scope.spawn(|| feeder::feed(job, &input, first, plan));
        let beside = scope.spawn(|| {
            std::thread::sleep(plan.warm_up);
            meanwhile(&running, &over);
        });
        let cpu = usage::cpu(pid);
        while !feeding.is_finished() {
            std::thread::sleep(Duration::from_secs(1));
            rss_mib.push(usage::memory_mib(pid, "VmRSS"));
        }
        over.store(true, Ordering::Relaxed);
        beside.join().unwrap();
        (feeding.join().unwrap(), usage::cpu(pid).saturating_sub(cpu))
    });
    let load = usage::load();
    let stolen = usage::stolen() - stolen;
    let total = sent.total() as i64;
    support::eventually("all answers", PATIENCE, || {
        let count = cluster.count(&output);
        let there = count >= total;
        there
            .then_some(())
            .ok_or_else(|| format!("{count} of {total}"))
    });
    running.stop();
    let mut events = Vec::new();
    let take = |answer: Answer| {
        let sent = sent.at(answer.offset);
        if sent >= start {
            events.push(Timed {
                sent,
                visible: answer.appended,
                revision: answer.revision,
            });
        }
    };
    let verified = verify::read(cluster, &output, kind, job.workload, expected, take);
    cluster.delete(&[&input, &output]);
    let answered = verified.records - verified.duplicated;
    Run {
        events,
        unanswered: total as u64 - answered,
        verified,
        start,
        rss_mib,
        cpu: cpu.as_secs_f64() * 1e6 / total as f64,
        load,
        stolen,
    }
}
