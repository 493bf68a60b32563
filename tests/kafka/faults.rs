//! Brokers that stop, die and freeze, and a commit that is not answered in time: nothing is lost, and the
//! service goes on by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::support::trials::{TestResult, on_own_broker, on_shared_broker};
use crate::support::{Broker, BrokerOptions, eventually};
use crate::world::{PATIENCE, Tail, World, events, predictions};

pub fn trials() -> Vec<Trial> {
    let own = |name, test| on_own_broker(name, BrokerOptions::default, test);
    vec![
        own(
            "a_broker_that_restarts_or_dies_loses_nothing",
            restarts_and_deaths,
        ),
        own("a_broker_that_freezes_loses_nothing", a_freeze),
        own(
            "a_stop_without_a_broker_ends_in_time",
            a_stop_without_a_broker,
        ),
        on_shared_broker(
            "a_revocation_that_is_not_finished_holds_nobody_up",
            an_unfinished_revocation,
        ),
    ]
}

/// What has been sent, and what of it has come out.
struct Backlog {
    sample: Vec<Vec<u8>>,
    sent: usize,
    tail: Tail,
    counted: usize,
    seen: BTreeSet<(i32, i64)>,
}

/// The longest that anything may take after a fault: a session time-out, rejoining, and the rest
/// of the backlog on a busy machine.
const RECOVERY: Duration = Duration::from_mins(3);
const PARTITIONS: usize = 2;

impl Backlog {
    fn new(world: &World) -> Self {
        Self {
            sample: events(),
            sent: 0,
            tail: world.tail(&world.output()),
            counted: 0,
            seen: BTreeSet::new(),
        }
    }

    fn send(&mut self, world: &World, count: usize) {
        let (from, sample) = (self.sent, &self.sample);
        world.produce((from..from + count).map(|index| {
            let event = sample[index % sample.len()].as_slice();
            ((index % PARTITIONS) as i32, None, Some(event))
        }));
        self.sent += count;
    }

    /// Waits until so many inputs have their predictions.
    fn wait_for(&mut self, count: usize) {
        let end = Instant::now() + RECOVERY;
        while self.seen.len() < count {
            self.tail.turn(Duration::from_millis(20));
            for one in predictions(&self.tail.records[self.counted..]) {
                self.seen.insert((one.partition, one.offset));
            }
            self.counted = self.tail.records.len();
            assert!(Instant::now() < end, "{}", self.missing(count));
        }
    }

    /// What is missing, and whether another reader finds it.
    fn missing(&self, count: usize) -> String {
        let wanted = (0..self.sent).map(|i| ((i % PARTITIONS) as i32, (i / PARTITIONS) as i64));
        let missing: Vec<_> = wanted.filter(|one| !self.seen.contains(one)).collect();
        format!(
            "{} of {count} inputs have predictions in {} records; {} of {} are missing, from {:?} \
             to {:?}",
            self.seen.len(),
            self.counted,
            missing.len(),
            self.sent,
            missing.first(),
            missing.last()
        )
    }

    /// Every input has its prediction; repeats begin anew where a commit was, and never leave
    /// something out.
    fn finish(mut self) -> usize {
        self.wait_for(self.sent);
        self.tail.settle();
        let mut highest: BTreeMap<i32, i64> = BTreeMap::new();
        for one in predictions(&self.tail.records) {
            let highest = highest.entry(one.partition).or_insert(-1);
            assert!(
                one.offset <= *highest + 1,
                "offset {} after {highest}",
                one.offset
            );
            *highest = one.offset.max(*highest);
        }
        self.wait_for(self.sent);
        assert_eq!(self.seen.len(), self.sent);
        self.tail.records.len() - self.sent
    }
}

fn prepared(broker: &Broker) -> World {
    let world = World::new(broker, PARTITIONS as i32);
    world.publish("v2", "2").ok();
    world.deploy("2");
    world
}

fn restarts_and_deaths(broker: &Broker) -> TestResult {
    let mut world = prepared(broker);
    // Small batches, so that a backlog is still there when the broker goes.
    world.stream_extra.push_str("max_batch_size = 8");
    let mut backlog = Backlog::new(&world);
    backlog.send(&world, 100);
    let mut instance = world.start_ready("a");
    backlog.wait_for(100);
    for kill in [false, true] {
        backlog.send(&world, 40_000);
        backlog.wait_for(backlog.sent - 39_000);
        if kill {
            broker.kill();
        } else {
            broker.terminate();
        }
        let left = backlog.sent - backlog.seen.len();
        assert!(
            left > 1_000,
            "the backlog was gone before the broker: {left}"
        );
        broker.restart();
        backlog.wait_for(backlog.sent);
        instance.wait_ready();
    }
    assert!(
        instance.process.is_running(),
        "without a restart of its own"
    );
    backlog.send(&world, 100);
    let repeated = backlog.finish();
    eprintln!("repeated after a restart and a death of the broker: {repeated}");
    instance.stop();
    let total = world
        .committed()
        .iter()
        .filter_map(|(next, _)| *next)
        .sum::<i64>();
    assert_eq!(total, 80_200);
    Ok(())
}

/// Frozen for longer than the session time-out: connections stay open and nothing answers.
fn a_freeze(broker: &Broker) -> TestResult {
    let mut world = prepared(broker);
    world.stream_extra.push_str("max_batch_size = 8");
    let mut backlog = Backlog::new(&world);
    backlog.send(&world, 40_000);
    let mut instance = world.start_ready("a");
    backlog.wait_for(1_000);
    broker.pause();
    let start = Instant::now();
    let frozen = Duration::from_secs(10);
    while start.elapsed() < frozen {
        assert!(instance.process.is_running());
        assert_eq!(
            instance.get("/livez").0,
            200,
            "a frozen broker is no reason to restart"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    let (code, body) = instance.get("/readyz");
    assert!(code == 503 && body.contains("no broker"), "{code} {body}");
    broker.resume();
    backlog.wait_for(backlog.sent);
    // With all workers: one can have made the other's predictions, while that one still waits for what
    // it has sent.
    instance.wait_ready();
    backlog.send(&world, 100);
    let repeated = backlog.finish();
    eprintln!("repeated after a freeze of the broker: {repeated}");
    let in_flight = "swapstream_in_flight_records{stream=\"flights\"}";
    eventually("everything is acknowledged", PATIENCE, || {
        match instance.metric(in_flight) {
            0.0 => Ok(()),
            count => Err(format!("{count} records are in flight")),
        }
    });
    instance.stop();
    Ok(())
}

fn a_stop_without_a_broker(broker: &Broker) -> TestResult {
    let mut world = prepared(broker);
    world.shutdown_timeout = "5s";
    world.stream_extra.push_str("max_batch_size = 8");
    let mut backlog = Backlog::new(&world);
    backlog.send(&world, 40_000);
    let mut instance = world.start_ready("a");
    backlog.wait_for(1_000);
    broker.kill();
    let start = Instant::now();
    instance.process.terminate();
    let status = instance.process.wait_exit(PATIENCE);
    let took = start.elapsed();
    let lines = instance.process.stderr_lines().join("\n");
    assert!(status.success(), "{status}: {lines}");
    // The deadline, and the time to leave clients behind whose broker is gone.
    assert!(took <= Duration::from_secs(5), "{took:?}: {lines}");
    broker.restart();
    let next = world.start_ready("a");
    let repeated = backlog.finish();
    eprintln!("stopped without a broker in {took:.1?}, repeated after it: {repeated}");
    next.stop();
    Ok(())
}

/// A worker that is not through with its commit when it has to give partitions up starts anew, and
/// its client closes: the group does not wait for it.
fn an_unfinished_revocation(broker: &'static Broker) -> TestResult {
    const COUNT: usize = 80;
    let mut world = World::new(broker, 8);
    world.publish("v2", "2").ok();
    world.deploy("2");
    // So that there is something to commit when partitions go.
    world.stream_extra.push_str("commit_interval = \"2m\"");
    // Longer than a revocation may take: the commit's answer comes too late.
    world.env = vec![("FAILPOINTS", "in-revoke=1*sleep(10500)".to_owned())];
    let sample = events();
    let send = |world: &World| {
        world.produce((0..COUNT).map(|index| {
            let event = sample[index % sample.len()].as_slice();
            ((index % 8) as i32, None, Some(event))
        }));
    };
    let seen = |records: &[_]| -> BTreeSet<(i32, i64)> {
        let read = predictions(records).into_iter();
        read.map(|one| (one.partition, one.offset)).collect()
    };
    let mut tail = world.tail(&world.output());
    send(&world);
    let a = world.start_ready("a");
    tail.until(COUNT, PATIENCE);
    world.env.clear();
    let b = world.start("b");
    let why = a.process.wait_for_line("rebuilding clients", PATIENCE);
    assert!(
        why.contains("commits were not acknowledged within"),
        "{why}"
    );
    send(&world);
    tail.until_that("all is scored", PATIENCE, |records| {
        seen(records).len() == 2 * COUNT
    });
    let said = a.stop();
    let left_behind = said.iter().find(|line| line.contains("did not close"));
    assert_eq!(left_behind, None);
    b.stop();
    // What could not be committed in the midst of a rebalance is left to the next owner.
    world.stream_extra.clear();
    let next = world.start_ready("c");
    eventually("all is committed", PATIENCE, || {
        let committed = world.committed().into_iter();
        match committed.filter_map(|(next, _)| next).sum::<i64>() {
            total if total == 2 * COUNT as i64 => Ok(()),
            total => Err(format!("{total} of {} are", 2 * COUNT)),
        }
    });
    next.stop();
    Ok(())
}
