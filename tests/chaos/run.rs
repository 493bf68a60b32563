//! One run: a service under load and swaps, a fault a round, and the verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::faults::{Hands, NotDone, STEADY};
use super::feed::{Feed, Target};
use super::fleet::Fleet;
use super::observer::Observer;
use super::oracle::Oracle;
use super::report::Report;
use super::rng::Rng;
use super::schedule::{BOUND, Fault, recovery, schedule};
use super::stage::{PARTITIONS, Stage, flights};
use super::swaps::{Swaps, deploy};
use super::traces::Traces;
use super::verifier::Guarantee;
use crate::support::{Unavailable, eventually};

/// How long a run waits for a service that does not come back, before it gives up.
const GIVE_UP: Duration = Duration::from_mins(1);
/// How long a round waits for both instances to have their share.
const SETTLED: Duration = Duration::from_secs(10);
/// Events that all others are made from.
const SAMPLES: usize = 200;

/// What is run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub rounds: usize,
    pub guarantees: Vec<Guarantee>,
    /// A variant that breaks a promise on purpose.
    pub broken: Option<String>,
    /// The faults to draw from; all where empty.
    pub only: Vec<Fault>,
    pub membership: Membership,
}

/// How workers are members of their group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Membership {
    #[default]
    Dynamic,
    Static,
    /// The protocol of KIP-848.
    Consumer,
}

impl Plan {
    /// Mostly the default; with a long one more is open whenever something happens. Partitions
    /// that are given up show what was left open only then: a rebalance takes longer than 100 ms.
    pub fn commit_interval(&self) -> &'static str {
        match self.broken.as_deref() {
            Some("broken-ignore-revoke") => "3s",
            _ if self.seed.is_multiple_of(3) => "1s",
            _ => "100ms",
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub report: Report,
    /// Broken promises with their check; 0 where it has no number.
    pub broken: Vec<(u8, String)>,
}

/// Everything that runs.
pub(super) struct Run {
    pub(super) traces: Traces,
    pub(super) begun: Instant,
    pub(super) plan: Plan,
    pub(super) stage: Arc<Stage>,
    pub(super) oracle: Arc<Oracle>,
    pub(super) fleet: Fleet,
    pub(super) feed: Feed,
    pub(super) swaps: Swaps,
    pub(super) observer: Observer,
    pub(super) rng: Rng,
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) skipped: BTreeMap<&'static str, String>,
    pub(super) slowest: Duration,
    /// Inputs that the last round has seen passed over.
    pub(super) left_out: Vec<(Guarantee, usize, i64)>,
    pub(super) broken: Vec<(u8, String)>,
}

/// Runs `plan` to its end, or to the first round that breaks a promise.
pub fn run(plan: Plan) -> Result<Outcome, Unavailable> {
    let mut run = Run::start(plan)?;
    let rounds = schedule(run.plan.seed, run.plan.rounds, &run.plan.only);
    let mut done = 0;
    for (index, fault) in rounds.into_iter().enumerate() {
        run.round(index + 1, fault);
        done += 1;
        if !run.broken.is_empty() {
            break;
        }
    }
    Ok(run.finish(done))
}

impl Run {
    fn start(plan: Plan) -> Result<Self, Unavailable> {
        let stage = Arc::new(Stage::new(&plan)?);
        let flights = flights();
        let file = |name: &str| flights.join(name);
        let versions = [("1", "v1"), ("2", "v2")];
        let paths: Vec<_> = { versions.iter() }
            .map(|(name, v)| {
                (
                    *name,
                    file(&format!("{v}.onnx")),
                    file(&format!("{v}.toml")),
                )
            })
            .collect();
        let known: Vec<_> = { paths.iter() }
            .map(|(name, model, manifest)| (*name, model.as_path(), manifest.as_path()))
            .collect();
        let oracle = Arc::new(Oracle::new(samples(), &known, &stage.topics.input));
        for (name, model, manifest) in &known {
            stage.publish(model, manifest, name, &[]);
        }
        let minute = Duration::from_mins(1);
        eventually("a version is deployed", minute, || deploy(&stage, "1"));

        let traces = Traces::new(&stage);
        let logs = traces.dir.clone();
        let (seed, interval) = (plan.seed, plan.commit_interval());
        println!(
            "chaos: seed {seed}, commits every {interval}, logs in {}",
            logs.display()
        );
        let mut fleet = Fleet::new(&["c0", "c1", "guest"], logs);
        for slot in STEADY {
            fleet.start(&stage, slot, None);
        }
        let observer = Observer::start(&stage.kafka, &stage.topics, &oracle, &plan.guarantees);
        let target = Target {
            servers: stage.kafka.bootstrap_servers.clone(),
            topic: stage.topics.input.clone(),
            partitions: PARTITIONS as u64,
        };
        let feed = Feed::start(target, oracle.samples.clone(), plan.seed);
        let swaps = Swaps::start(&stage, &["2", "1"], plan.seed);
        let mut run = Self {
            rng: Rng::branch(plan.seed, 4),
            traces,
            begun: Instant::now(),
            plan,
            stage,
            oracle,
            fleet,
            feed,
            swaps,
            observer,
            faults: BTreeMap::new(),
            skipped: BTreeMap::new(),
            slowest: Duration::ZERO,
            left_out: Vec::new(),
            broken: Vec::new(),
        };
        let marks = run.marks();
        if run.scoring_again(&marks, minute).is_none() {
            run.broken
                .push((0, "the service does not start to score".to_owned()));
        }
        Ok(run)
    }

    /// The last committed input of each partition that was seen.
    fn marks(&self) -> Vec<i64> {
        let seen = self.observer.seen();
        let (_, verifier) = seen.verifiers.first().expect("a guarantee is tested");
        (0..PARTITIONS)
            .map(|partition| verifier.last_input(partition).unwrap_or(-1))
            .collect()
    }

    fn round(&mut self, number: usize, fault: Fault) {
        // Mostly a fault finds all at work, and sometimes in the middle of the last recovery.
        if !self.rng.one_in(4) {
            self.all_at_work();
        }
        let pause = self.rng.between(100, 600);
        std::thread::sleep(Duration::from_millis(pause));
        self.look_after(&format!("before round {number}"));
        let before = self.marks();
        let begin = Instant::now();
        let happened = Hands {
            stage: &self.stage,
            fleet: &mut self.fleet,
            feed: &self.feed,
            swaps: &self.swaps,
            rng: &mut self.rng,
            round: number,
        }
        .inject(fault);
        let took = begin.elapsed();
        let name = fault.name();
        let what = match happened {
            Ok(what) => {
                *self.faults.entry(name).or_default() += 1;
                what
            }
            Err(NotDone::Impossible(reason)) => {
                self.skipped.insert(name, reason.clone());
                format!("skipped: {reason}")
            }
            Err(NotDone::Failed(reason)) => {
                self.broken
                    .push((9, format!("{name} did not happen: {reason}")));
                reason
            }
        };
        let marks = self.marks();
        let raw = self.scoring_again(&marks, GIVE_UP);
        let counted = raw.map(|raw| recovery(raw, took, fault));
        println!(
            "chaos: {:.0} s: round {number} of {}: {name} ({what}), {:.1} s; scoring again after {}",
            self.begun.elapsed().as_secs_f64(),
            self.plan.rounds,
            took.as_secs_f64(),
            raw.map_or("never".to_owned(), |raw| format!(
                "{:.1} s",
                raw.as_secs_f64()
            ))
        );
        self.slowest = self.slowest.max(counted.unwrap_or(GIVE_UP));
        if counted.is_none_or(|counted| counted > BOUND) {
            let text = format!("round {number}, {name}: not scoring again within {BOUND:?}");
            self.broken
                .push((0, format!("{text}: {raw:?} after a fault of {took:?}")));
        }
        self.look_after(&format!("round {number}, {name}"));
        self.nothing_left_out(number, &before);
    }

    /// Waits, not for ever, until every steady instance has partitions of every stream.
    fn all_at_work(&mut self) {
        let begin = Instant::now();
        let streams = self.plan.guarantees.len();
        while begin.elapsed() < SETTLED
            && !STEADY
                .iter()
                .all(|slot| self.fleet.has_work(*slot, streams))
        {
            self.look_after("between rounds");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The time until every partition has answers to inputs after `marks`, under every guarantee.
    /// Where the feed itself is late, it counts from its first input.
    fn scoring_again(&mut self, marks: &[i64], patience: Duration) -> Option<Duration> {
        let begin = Instant::now();
        let mut fed_at = [None; PARTITIONS];
        let mut answered_at = [None; PARTITIONS];
        while begin.elapsed() < patience {
            {
                let seen = self.observer.seen();
                for (partition, mark) in marks.iter().enumerate() {
                    let all = |test: &dyn Fn(&super::verifier::Verifier) -> bool| {
                        seen.verifiers.iter().all(|(_, verifier)| test(verifier))
                    };
                    if all(&|v| v.last_input(partition).is_some_and(|last| last > *mark)) {
                        fed_at[partition].get_or_insert_with(Instant::now);
                    }
                    if all(&|v| v.highest_answered(partition) > *mark) {
                        answered_at[partition].get_or_insert_with(Instant::now);
                    }
                }
            }
            let fed = fed_at.iter().copied().collect::<Option<Vec<Instant>>>();
            let answered = answered_at
                .iter()
                .copied()
                .collect::<Option<Vec<Instant>>>();
            if let (Some(fed), Some(answered)) = (fed, answered) {
                let from = fed.iter().max().copied().unwrap_or(begin);
                let to = answered.iter().max().copied().unwrap_or(begin);
                return Some(to.saturating_duration_since(from));
            }
            self.look_after("while waiting");
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// Restarts what may end, and notes what may not; and what the verifiers have found.
    pub(super) fn look_after(&mut self, when: &str) {
        for failure in self.fleet.look_after(&self.stage) {
            self.broken.push((0, format!("{when}: {failure}")));
        }
        let seen = self.observer.seen();
        if let Some(trouble) = &seen.trouble {
            self.broken.push((0, format!("{when}: {trouble}")));
        }
        if self.broken.is_empty() {
            for (_, verifier) in &seen.verifiers {
                for violation in verifier.violations() {
                    self.broken
                        .push((violation.check, format!("{when}: {violation}")));
                }
            }
        }
    }

    /// What was there before the round is answered by now, since later ones are. Predictions and
    /// dead letters are read from different topics, so that one look may come too early.
    fn nothing_left_out(&mut self, number: usize, before: &[i64]) {
        let mut left_out = Vec::new();
        let mut seen = self.observer.seen();
        for (guarantee, verifier) in &mut seen.verifiers {
            for (partition, mark) in before.iter().enumerate() {
                if verifier.highest_answered(partition) > *mark
                    && let Some(offset) = verifier.unanswered(partition, *mark)
                {
                    left_out.push((*guarantee, partition, offset));
                }
            }
        }
        for one in &left_out {
            let (guarantee, partition, offset) = one;
            let name = guarantee.name();
            let what =
                format!("round {number}: check 1, {name}: input {partition} offset {offset}");
            if self.left_out.contains(one) {
                let what = format!("{what} is lost: not answered a round later, others are");
                self.broken.push((1, what));
            } else {
                println!("chaos: {what} is not answered yet, later ones are");
            }
        }
        drop(seen);
        self.left_out = left_out;
    }
}

/// Sample events that ship with the project.
fn samples() -> Vec<String> {
    use std::io::Read;
    let file = std::fs::File::open(flights().join("events.jsonl.gz")).expect("the events");
    let mut text = String::new();
    let mut reader = flate2::read::GzDecoder::new(file);
    reader.read_to_string(&mut text).expect("JSON is UTF-8");
    // Spread over the year.
    let lines: Vec<&str> = text.lines().collect();
    let step = (lines.len() / SAMPLES).max(1);
    lines
        .iter()
        .step_by(step)
        .take(SAMPLES)
        .map(|line| (*line).to_owned())
        .collect()
}
