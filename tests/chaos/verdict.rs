//! The end of a run: what is left is waited for, everything is read again and judged.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::observer::{Seen, reread};
use super::oracle::Oracle;
use super::report::Report;
use super::run::{Outcome, Run};
use super::swaps::revisions;
use super::verifier::{Guarantee, Totals};

/// How long the service may take for what is left when nothing comes any more.
const QUIESCENCE: Duration = Duration::from_secs(40);
/// Largest resident memory of an instance: `limits.kafka_memory` (32 MiB here), and three times that
/// for the program, its models and two streams.
const MEMORY_BOUND: u64 = 128 << 20;
/// A coordinator takes a partition without a leader for a deleted one.
const MARKERS_SKIPPED: &str = "Couldn't find leader endpoint for partitions";
/// Recovery has cut a log: after a full disk, the part of a batch that was written.
const CUT: &str = "Corruption found in segment";

impl Run {
    pub(super) fn finish(mut self, rounds: usize) -> Outcome {
        self.swaps.stop();
        self.feed.stop();
        let quiet = self.quiesce();
        if let Err(what) = &quiet {
            println!("chaos: not everything is answered: {what}");
        }
        for failure in self.fleet.stop() {
            self.broken.push((0, format!("at the end: {failure}")));
        }
        self.stable_to_the_end();
        let totals = match self.judge() {
            Ok(totals) => totals,
            Err(what) => {
                self.broken.push((0, format!("judging: {what}")));
                BTreeMap::new()
            }
        };
        self.bounds();
        self.broker_kept_its_word(&totals);
        self.outcome(rounds, &totals)
    }

    /// Waits until every committed input is answered and its offset committed.
    fn quiesce(&mut self) -> Result<(), String> {
        let end = Instant::now() + QUIESCENCE;
        loop {
            self.look_after("at the end");
            match self.left() {
                Ok(()) => return Ok(()),
                Err(what) if Instant::now() > end => return Err(what),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn left(&self) -> Result<(), String> {
        let unstable = self.stage.unstable()?;
        if let Some(first) = unstable.first() {
            return Err(format!("open transaction: {first}"));
        }
        for index in 0..self.plan.guarantees.len() {
            let guarantee = self.plan.guarantees[index];
            let committed = self.stage.committed(guarantee)?;
            let mut seen = self.observer.seen();
            let (_, verifier) = &mut seen.verifiers[index];
            for (partition, next) in committed.iter().enumerate() {
                let Some(last) = verifier.last_input(partition) else {
                    continue;
                };
                let name = guarantee.name();
                if let Some(offset) = verifier.unanswered(partition, last) {
                    return Err(format!("{name}: input {partition} offset {offset}"));
                }
                if *next != Some(last + 1) {
                    return Err(format!(
                        "{name}: input {partition} committed {next:?}, last {last}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Check 5, with the instances gone: no transaction is left open.
    fn stable_to_the_end(&mut self) {
        let end = Instant::now() + super::schedule::TRANSACTION + Duration::from_secs(4);
        loop {
            let open = match self.stage.unstable() {
                Ok(open) if open.is_empty() => return,
                Ok(open) => open.join(", "),
                Err(error) => error,
            };
            if Instant::now() > end {
                let what = format!("check 5: last stable offset before the end: {open}");
                self.broken.push((5, what));
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Reads everything again from the start, and compares with what was seen on the way.
    fn judge(&mut self) -> Result<BTreeMap<Guarantee, Totals>, String> {
        let mut oracle = Oracle::clone(&self.oracle);
        oracle.log = revisions(&self.stage)?;
        let guarantees = &self.plan.guarantees;
        let mut again = reread(&self.stage.kafka, &self.stage.topics, &oracle, guarantees)?;
        // The observer reads to the same end.
        let agree = |online: &Seen| {
            let pairs = online.verifiers.iter().zip(&again.verifiers);
            pairs.fold(true, |same, (a, b)| same && a.1.held() == b.1.held())
        };
        let end = Instant::now() + Duration::from_secs(10);
        while !agree(&self.observer.seen()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.observer.stop();
        let online = self.observer.seen();
        let mut totals = BTreeMap::new();
        for ((guarantee, verifier), (_, before)) in
            again.verifiers.iter_mut().zip(&online.verifiers)
        {
            for (place, held) in before.held() {
                let now = verifier.held().get(place).copied();
                if now != Some(*held) {
                    let what = format!(
                        "{place:?}: readers disagree, {held:?} on the way and {now:?} from the start"
                    );
                    verifier.violate(3, what);
                }
            }
            if *guarantee == Guarantee::ExactlyOnce {
                let hidden = self
                    .stage
                    .written(*guarantee)?
                    .checked_sub(verifier.answers());
                println!(
                    "chaos: answers in aborted transactions, none of them visible: {hidden:?}"
                );
            }
            let committed = self.stage.committed(*guarantee)?;
            totals.insert(*guarantee, verifier.finish(&committed));
            for violation in verifier.violations() {
                let text = violation.to_string();
                if !self.broken.iter().any(|(_, known)| known.ends_with(&text)) {
                    self.broken
                        .push((violation.check, format!("at the end: {text}")));
                }
            }
        }
        Ok(totals)
    }

    /// Checks 8 and 9.
    fn bounds(&mut self) {
        let peak = self.fleet.peak_memory;
        if peak > MEMORY_BOUND {
            let what = format!("check 8: {peak} bytes resident, more than {MEMORY_BOUND}");
            self.broken.push((8, what));
        }
        let fed = self.feed.fed();
        let swaps = self.swaps.done();
        println!(
            "chaos: events committed {}, aborted {}, unknown {}, poison {}; swaps {swaps}; \
             documented exits {}; peak memory {} MiB; feed rebuilt {} times, reader {}",
            fed.committed,
            fed.aborted,
            fed.unknown,
            fed.poisoned,
            self.fleet.documented_exits,
            peak >> 20,
            fed.rebuilt,
            self.observer.reopened()
        );
        for (name, reason) in &self.skipped {
            println!("chaos: {name} is skipped: {reason}");
        }
        let nothing = [
            ("events", fed.committed),
            ("aborted events", fed.aborted),
            ("swaps", swaps),
            ("faults", self.faults.values().sum()),
        ];
        for (what, count) in nothing {
            if count == 0 {
                self.broken
                    .push((9, format!("check 9: there were no {what}")));
            }
        }
    }

    /// What no client can make up for: a broker that loses what it has acknowledged.
    fn broker_kept_its_word(&mut self, totals: &BTreeMap<Guarantee, Totals>) {
        let fed = self.feed.fed();
        let possible = fed.committed..=fed.committed + fed.unknown;
        let read = totals.values().map(|totals| totals.inputs);
        for inputs in read.filter(|inputs| !possible.contains(inputs)) {
            let what = format!(
                "the broker acknowledged {} inputs, and {} more were not answered; it has {inputs}",
                fed.committed, fed.unknown
            );
            self.broken.push((0, what));
        }
        let skipped = self.traces.broker_said(MARKERS_SKIPPED);
        if let Some(first) = skipped.first() {
            let what = format!(
                "the broker ended {} transactions without their markers (KAFKA-20734), which no \
                 client can notice: {first}",
                skipped.len()
            );
            self.broken.push((0, what));
        }
        let cut = self.traces.broker_said(CUT).len();
        if cut > 0 {
            println!("chaos: the broker cut the unfinished end of a log {cut} times");
        }
    }

    fn outcome(self, rounds: usize, totals: &BTreeMap<Guarantee, Totals>) -> Outcome {
        let of = |guarantee| totals.get(&guarantee).copied().unwrap_or_default();
        if !self.broken.is_empty() {
            let tail = self.stage.broker.log_tail(40);
            println!("chaos: the broker's log ends with:\n{tail}");
            self.traces.keep();
        }
        let failed: Vec<u8> = self.broken.iter().map(|(check, _)| *check).collect();
        let report = Report::new(
            self.plan.seed,
            rounds,
            of(Guarantee::ExactlyOnce),
            of(Guarantee::AtLeastOnce),
            self.faults.clone(),
            &failed,
            self.slowest,
            self.broken.is_empty(),
        );
        Outcome {
            report,
            broken: self.broken,
        }
    }
}
