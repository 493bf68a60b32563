//! How each fault is done. Each gives proof that it happened, or says why it could not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::Kind;
use super::feed::{Feed, take_over};
use super::fleet::Fleet;
use super::oracle::MODEL;
use super::proxy::{
    ADD_OFFSETS_TO_TXN, Action, END_TXN, OFFSET_COMMIT, PRODUCE, Rule, TXN_OFFSET_COMMIT,
    end_txn_error,
};
use super::rng::Rng;
use super::schedule::Fault;
use super::stage::{PARTITIONS, Stage, flights};
use super::swaps::{Swaps, deploy};
use super::verifier::Guarantee;

/// The instances that run all the time, and the one that comes and goes.
pub const STEADY: [usize; 2] = [0, 1];
pub const GUEST: usize = 2;

/// The fail points of a worker, from `stream/failpoints.rs`.
const POINTS: [&str; 6] = [
    "before-produce",
    "after-produce",
    "before-send-offsets",
    "before-commit",
    "after-commit",
    "in-revoke",
];

/// How long a proof is waited for.
const PROOF: Duration = Duration::from_secs(20);
/// A worker waits for its commit as long as a transaction may be open, and then joins its group anew.
const TAKES_OVER: Duration = Duration::from_secs(45);

/// What faults act on.
#[derive(Debug)]
pub struct Hands<'a> {
    pub stage: &'a Arc<Stage>,
    pub fleet: &'a mut Fleet,
    pub feed: &'a Feed,
    pub swaps: &'a Swaps,
    pub rng: &'a mut Rng,
    /// Number of the round.
    pub round: usize,
}

/// What came of it: a few words for the log.
pub type Happened = Result<String, NotDone>;

/// Why a fault was not done.
#[derive(Debug)]
pub enum NotDone {
    /// This machine does not allow it.
    Impossible(String),
    /// It should have worked.
    Failed(String),
}

fn failed(what: impl Into<String>) -> NotDone {
    NotDone::Failed(what.into())
}

impl Hands<'_> {
    /// Does `fault` and returns when it is over.
    pub fn inject(&mut self, fault: Fault) -> Happened {
        let victim = STEADY[self.rng.between(0, STEADY.len() as u64) as usize];
        let name = self.fleet.id(victim).to_owned();
        match fault {
            Fault::Kill => {
                self.fleet.kill(victim);
                self.pause(0, 1_000);
                self.fleet.start(self.stage, victim, None);
                Ok(name)
            }
            Fault::KillAtPoint => self.kill_at_point(victim),
            Fault::Term => {
                self.fleet.terminate(victim);
                self.pause(0, 500);
                self.fleet.start(self.stage, victim, None);
                Ok(name)
            }
            Fault::StopSession => self.freeze(victim, Duration::from_millis(7_500)),
            Fault::StopTransaction => self.freeze(victim, Duration::from_millis(12_500)),
            Fault::Churn => Ok(self.churn()),
            Fault::BrokerTerm => {
                self.stage.broker.terminate();
                self.pause(0, 2_000);
                self.stage.broker.restart();
                Ok(String::new())
            }
            Fault::BrokerKill => {
                self.stage.broker.kill();
                self.pause(0, 2_000);
                self.stage.broker.restart();
                Ok(String::new())
            }
            Fault::BrokerStop => {
                let time = Duration::from_millis(self.rng.between(1_000, 12_000));
                self.stage.broker.pause();
                std::thread::sleep(time);
                self.stage.broker.resume();
                Ok(format!("{time:?}"))
            }
            Fault::Hijack => self.hijack(victim),
            Fault::ProxyDelay => self.proxy_delay(),
            Fault::ProxyDrop => self.proxy_lose(Action::Cut),
            Fault::ProxySwallow => self.proxy_lose(Action::Swallow),
            Fault::ProxyLate => self.proxy_late(),
            Fault::ProxyCut => self.proxy_cut(),
            Fault::Poison => self.poison(),
            Fault::BadModel => self.bad_model(),
            Fault::DiskFull => self.disk_full(),
        }
    }

    fn pause(&mut self, low: u64, high: u64) {
        std::thread::sleep(Duration::from_millis(self.rng.between(low, high)));
    }

    fn await_that(what: &str, done: impl FnMut() -> bool) -> Result<(), NotDone> {
        Self::await_within(PROOF, what, done)
    }

    fn await_within(
        patience: Duration,
        what: &str,
        mut done: impl FnMut() -> bool,
    ) -> Result<(), NotDone> {
        let end = Instant::now() + patience;
        while !done() {
            if Instant::now() > end {
                return Err(failed(format!("not within {patience:?}: {what}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The victim is started anew so that it kills, or stops, itself at a fail point.
    fn kill_at_point(&mut self, victim: usize) -> Happened {
        let point = POINTS[self.rng.between(0, POINTS.len() as u64) as usize];
        // With a commit every second the fortieth is far away.
        let most = if self.stage.commits_often() { 40 } else { 6 };
        let after = match point {
            "in-revoke" => 0,
            _ => self.rng.between(0, most),
        };
        let stop = self.rng.one_in(4);
        let action = if stop { "stop" } else { "kill" };
        let armed = format!("{point}={after}*off->1*return({action})->off");
        self.fleet.terminate(victim);
        self.fleet.start(self.stage, victim, Some(&armed));
        let other = STEADY[usize::from(victim == STEADY[0])];
        if point == "in-revoke" {
            // It must own everything, so that the other one's return takes something away.
            self.fleet.terminate(other);
            let streams = self.stage.guarantees.len();
            let owns = || self.fleet.has_work(victim, streams);
            Self::await_that("the victim owns partitions", owns)?;
            self.pause(200, 1_500);
            self.fleet.start(self.stage, other, None);
        }
        let done = if stop {
            let time = Duration::from_millis(self.rng.between(1_000, 13_000));
            let stopped = Self::await_that(&armed, || self.fleet.is_stopped(victim));
            std::thread::sleep(time);
            self.fleet.process(victim).resume();
            stopped
        } else {
            let end = self.fleet.wait_for_end(victim, PROOF);
            if end.is_none() {
                self.fleet.kill(victim);
            }
            self.fleet.start(self.stage, victim, None);
            end.map(drop)
                .ok_or_else(|| failed(format!("{armed} was not reached")))
        };
        done.map(|()| armed)
    }

    fn freeze(&mut self, victim: usize, time: Duration) -> Happened {
        self.fleet.process(victim).pause();
        Self::await_that("it is stopped", || self.fleet.is_stopped(victim))?;
        std::thread::sleep(time);
        self.fleet.process(victim).resume();
        Ok(format!("{} for {time:?}", self.fleet.id(victim)))
    }

    fn churn(&mut self) -> String {
        for _ in 0..3 {
            let begin = Instant::now();
            self.fleet.start(self.stage, GUEST, None);
            std::thread::sleep(Duration::from_secs(2).saturating_sub(begin.elapsed()));
            self.fleet.terminate(GUEST);
        }
        "3 times".to_owned()
    }

    fn hijack(&mut self, victim: usize) -> Happened {
        let group = self.stage.topics.group(Guarantee::ExactlyOnce);
        let id = format!("{group}-{}-0", self.fleet.id(victim));
        let series = "swapstream_transactions_total{outcome=\"fenced\"";
        // One that has not begun yet would fence us.
        let streams = self.stage.guarantees.len();
        let works = || self.fleet.has_work(victim, streams);
        Self::await_that("the victim has work", works)?;
        let fenced = || self.fleet.metric(victim, series).unwrap_or(0.0);
        let before = fenced();
        take_over(&self.stage.kafka.bootstrap_servers, &id)
            .map_err(|error| failed(format!("{id}: {error}")))?;
        Self::await_that("the worker notices that it is fenced", || fenced() > before)?;
        Ok(id)
    }

    fn proxy_delay(&mut self) -> Happened {
        let hold = Duration::from_millis(self.rng.between(200, 1_500));
        let rule = |count| Rule {
            apis: Vec::new(),
            count,
            action: Action::Delay(hold),
        };
        self.stage.proxy.set(rule(u64::MAX));
        std::thread::sleep(Duration::from_millis(2_500));
        let hits = self.stage.proxy.set(Rule::default());
        if hits == 0 {
            return Err(failed("no response was held back"));
        }
        Ok(format!("{hits} responses by {hold:?}"))
    }

    fn proxy_lose(&mut self, action: Action) -> Happened {
        let apis = [
            END_TXN,
            TXN_OFFSET_COMMIT,
            ADD_OFFSETS_TO_TXN,
            OFFSET_COMMIT,
            PRODUCE,
        ];
        // A swallowed answer is waited for until the request's time-out: EndTxn's is shortest.
        let among = if action == Action::Cut { apis.len() } else { 1 };
        let exactly_once = self.stage.guarantees.contains(&Guarantee::ExactlyOnce);
        let api = match apis[self.rng.between(0, among as u64) as usize] {
            END_TXN | TXN_OFFSET_COMMIT | ADD_OFFSETS_TO_TXN if !exactly_once => OFFSET_COMMIT,
            api => api,
        };
        let count = self.rng.between(1, 4);
        let rule = Rule {
            apis: vec![api],
            count,
            action,
        };
        self.stage.proxy.set(rule);
        let lost = Self::await_that("responses are lost", || self.stage.proxy.hits() >= count);
        let hits = self.stage.proxy.set(Rule::default());
        // Between two starts there may be fewer than asked for.
        if hits == 0 {
            lost?;
        }
        Ok(format!("{hits} responses to api {api}"))
    }

    /// A commit comes late: its request is held back until the producer it is from has been
    /// replaced, by the worker itself when it has waited long enough, or because its process was
    /// killed. The broker must refuse it, or it would end a transaction of the new producer.
    fn proxy_late(&mut self) -> Happened {
        if !self.stage.guarantees.contains(&Guarantee::ExactlyOnce) {
            return Err(NotDone::Impossible("needs transactions".to_owned()));
        }
        self.stage.proxy.set(Rule {
            apis: vec![END_TXN],
            count: 1,
            action: Action::Hold,
        });
        let held = Self::await_that("a request is held back", || self.stage.proxy.hits() > 0);
        self.stage.proxy.set(Rule::default());
        held?;
        let group = self.stage.topics.group(Guarantee::ExactlyOnce);
        let owner = |slot: &usize| {
            let id = format!("{group}-{}-0", self.fleet.id(*slot));
            self.stage.proxy.holds(&id)
        };
        let victim = STEADY.into_iter().find(owner);
        let victim = victim.ok_or_else(|| failed("the held request is nobody's"))?;
        let kill = self.rng.one_in(2);
        let committed = "swapstream_transactions_total{outcome=\"committed\"";
        let count = |fleet: &Fleet| fleet.metric(victim, committed).unwrap_or(0.0);
        let mut before = count(self.fleet);
        if kill {
            self.fleet.kill(victim);
            self.fleet.start(self.stage, victim, None);
            before = 0.0;
        }
        // The producer's successor commits, so that it also has a transaction open, mostly.
        let goes_on = || count(self.fleet) > before;
        Self::await_within(TAKES_OVER, "the producer's successor commits", goes_on)?;
        let answers = self.stage.proxy.deliver(PROOF).map_err(failed)?;
        let errors: Vec<Option<i16>> = answers.iter().map(|a| end_txn_error(a)).collect();
        if errors.iter().any(|error| matches!(error, None | Some(0))) {
            return Err(failed(format!("the late commit was taken: {errors:?}")));
        }
        let how = if kill { "killed" } else { "given up" };
        Ok(format!(
            "{} {how}, refused with {errors:?}",
            self.fleet.id(victim)
        ))
    }

    fn proxy_cut(&mut self) -> Happened {
        let mut cut = 0;
        for _ in 0..self.rng.between(1, 6) {
            cut += self.stage.proxy.cut();
            self.pause(50, 600);
        }
        if cut == 0 {
            return Err(failed("there was no connection to cut"));
        }
        Ok(format!("{cut} connections"))
    }

    fn poison(&mut self) -> Happened {
        let before = self.feed.fed().poisoned;
        let mut kinds = Kind::POISON.to_vec();
        self.rng.shuffle(&mut kinds);
        let count = self.rng.between(1, kinds.len() as u64 + 1) as usize;
        kinds.truncate(count);
        self.feed.poison(&kinds);
        let wanted = before + (count * PARTITIONS) as u64;
        Self::await_that("the feed sends them", || self.feed.fed().poisoned >= wanted)?;
        Ok(format!("{kinds:?}"))
    }

    /// A version that does not do what its manifest says, published past the check.
    fn bad_model(&mut self) -> Happened {
        let version = format!("bad-{}", self.round);
        let flights = flights();
        let (file, manifest) = if self.rng.one_in(2) {
            (flights.join("v1.onnx"), flights.join("v2.toml"))
        } else {
            let cut = self.stage.path(&format!("{version}.onnx"));
            let whole =
                std::fs::read(flights.join("v2.onnx")).map_err(|e| failed(e.to_string()))?;
            let part = &whole[..whole.len() / 2];
            std::fs::write(&cut, part).map_err(|e| failed(e.to_string()))?;
            (cut, flights.join("v2.toml"))
        };
        let series =
            format!("swapstream_model_swaps_total{{model=\"{MODEL}\",outcome=\"refused\"}}");
        self.swaps.pause(true);
        let refused = || self.fleet.metric(0, &series).unwrap_or(0.0);
        let before = refused();
        self.stage
            .publish(&file, &manifest, &version, &["--no-check"]);
        let deployed = deploy(self.stage, &version).map_err(failed);
        let done = deployed
            .and_then(|()| Self::await_that("the version is refused", || refused() > before));
        self.swaps.pause(false);
        done.map(|()| version)
    }

    fn disk_full(&mut self) -> Happened {
        let disk = match &self.stage.disk {
            Ok(disk) => disk,
            Err(reason) => return Err(NotDone::Impossible(reason.clone())),
        };
        disk.fill().map_err(failed)?;
        // Kafka ends when it cannot write to its only directory.
        let ended = Self::await_that("the broker ends", || !self.stage.broker.is_running());
        if ended.is_err() {
            self.stage.broker.kill();
        }
        self.pause(0, 1_000);
        disk.free().map_err(failed)?;
        self.stage.broker.restart();
        ended.map(|()| "the broker ended, and was started with room".to_owned())
    }
}
