//! Tests of the decision: one instance with simulated loads, against what the rules promise.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::deployment_log::DeploymentLog;
use super::deployment_log::tests::{Step as Event, step as event, value};
use super::deployment_log::{Candidate, ModelLog};
use super::lifecycle::*;
use crate::model::{Digest, ModelName, Version};

/// What a load of a version comes to, and how often it fails before.
#[derive(Debug, Clone, Copy)]
struct Fate {
    passes: bool,
    failures: u32,
}

fn digest(version: &Version) -> Digest {
    Digest::of(version.as_str().as_bytes())
}

/// One instance, its loads simulated.
struct Instance {
    log: DeploymentLog,
    served: Option<Served>,
    refused: BTreeMap<i64, Refusal>,
    failures: BTreeMap<i64, Failure>,
    now: Instant,
    loads: u32,
}

impl Instance {
    fn new(now: Instant) -> Self {
        Self {
            log: DeploymentLog::new(),
            served: None,
            refused: BTreeMap::new(),
            failures: BTreeMap::new(),
            now,
            loads: 0,
        }
    }

    fn model(&self) -> ModelLog {
        self.log
            .model(&ModelName::new("m").unwrap())
            .cloned()
            .unwrap_or_default()
    }

    fn decide(&self) -> Decision {
        let log = self.model();
        let situation = Situation {
            log: Some(&log),
            served: self.served.as_ref(),
            refused: &self.refused,
            failures: &self.failures,
            now: self.now,
        };
        decide(&situation, |c| Lookup::Manifest(digest(&c.version)))
    }

    /// Does one step; false: nothing left to do.
    fn act(&mut self, fates: &[Fate]) -> bool {
        match self.decide().step {
            Step::Keep => return false,
            Step::Retire => self.served = None,
            Step::Retag(c) => self.serve(&c),
            Step::Wait(_, until) => self.now = until,
            Step::Confirm(_) => panic!("nothing is missing"),
            Step::Load(c) => {
                self.loads += 1;
                let fate = fates[c.version.as_str().parse::<usize>().unwrap()];
                let tried = self.failures.get(&c.revision).map_or(0, |f| f.attempts);
                if tried < fate.failures {
                    let failure = Failure {
                        attempts: tried + 1,
                        retry_at: self.now + backoff(tried + 1),
                        reason: "broker".to_owned(),
                    };
                    self.failures.insert(c.revision, failure);
                } else if fate.passes {
                    self.serve(&c);
                } else {
                    let refusal = Refusal {
                        stage: LoadState::Compiled,
                        reason: "bad".to_owned(),
                    };
                    self.refused.insert(c.revision, refusal);
                }
            }
        }
        true
    }

    fn serve(&mut self, c: &Candidate) {
        self.served = Some(Served {
            revision: c.revision,
            version: c.version.clone(),
            digest: digest(&c.version),
        });
    }
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = (any::<bool>(), 0..3_u32).prop_map(|(passes, failures)| Fate { passes, failures });
    prop::collection::vec(fate, 4)
}

proptest! {
    #[test]
    fn every_instance_ends_with_the_newest_candidate_that_passes(
        events in prop::collection::vec((event(), 0..4_usize), 0..16),
        fates in fates(),
    ) {
        let start = Instant::now();
        // One follows the log step by step, acting now and then; one starts late.
        let mut follower = Instance::new(start);
        for (offset, (event, acts)) in (0..).zip(&events) {
            follower.log.apply(offset, Some(b"m"), Some(&value("m", event)), None);
            for _ in 0..*acts {
                follower.act(&fates);
            }
        }
        let mut late = Instance::new(start);
        late.log = follower.log.clone();
        for instance in [&mut follower, &mut late] {
            let mut steps = 0;
            while instance.act(&fates) {
                steps += 1;
                prop_assert!(steps < 200, "it never comes to rest");
            }
            let log = instance.model();
            let wanted = log.candidates().find(|c| {
                fates[c.version.as_str().parse::<usize>().unwrap()].passes
            });
            prop_assert_eq!(
                instance.served.as_ref().map(|s| s.revision),
                wanted.map(|c| c.revision)
            );
            prop_assert_eq!(instance.decide().settled_revision, log.last_effective());
        }
    }

    #[test]
    fn what_serves_changes_only_forwards_or_by_an_undeploy(
        events in prop::collection::vec((event(), 0..4_usize), 0..16),
        fates in fates(),
    ) {
        let mut instance = Instance::new(Instant::now());
        for (offset, (event, acts)) in (0..).zip(&events) {
            instance.log.apply(offset, Some(b"m"), Some(&value("m", event)), None);
            for _ in 0..*acts {
                let before = instance.served.clone();
                let decision = instance.decide();
                instance.act(&fates);
                let after = instance.served.clone();
                let log = instance.model();
                prop_assert!(decision.settled_revision <= log.last_effective());
                if let Some(before) = &before {
                    let stands = log.candidate(before.revision).is_some();
                    prop_assert_eq!(stands, decision.step != Step::Retire);
                    match &after {
                        Some(after) => prop_assert!(after.revision >= before.revision),
                        None => prop_assert!(!stands),
                    }
                    // Nothing that serves is settled less than what it serves.
                    if stands {
                        prop_assert!(decision.settled_revision >= before.revision);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_settled_was_judged(
        events in prop::collection::vec((event(), 0..4_usize), 0..16),
        fates in fates(),
    ) {
        let mut instance = Instance::new(Instant::now());
        for (offset, (event, acts)) in (0..).zip(&events) {
            instance.log.apply(offset, Some(b"m"), Some(&value("m", event)), None);
            for _ in 0..*acts {
                instance.act(&fates);
            }
            let settled = instance.decide().settled_revision;
            let serving = instance.served.as_ref().map_or(-1, |s| s.revision);
            for candidate in instance.model().candidates() {
                if candidate.revision <= settled && candidate.revision > serving {
                    prop_assert!(instance.refused.contains_key(&candidate.revision));
                }
            }
        }
    }
}

fn one(event: &[Event]) -> Instance {
    let mut instance = Instance::new(Instant::now());
    for (offset, event) in (0..).zip(event) {
        instance
            .log
            .apply(offset, Some(b"m"), Some(&value("m", event)), None);
    }
    instance
}

fn with_lookup(instance: &Instance, lookup: impl Fn(&Candidate) -> Lookup) -> Decision {
    let log = instance.model();
    let situation = Situation {
        log: Some(&log),
        served: instance.served.as_ref(),
        refused: &instance.refused,
        failures: &instance.failures,
        now: instance.now,
    };
    decide(&situation, lookup)
}

#[test]
fn a_missing_version_is_confirmed_then_refused_then_loaded_when_it_appears() {
    let instance = one(&[Event::Deploy(1, None), Event::Deploy(2, None)]);
    let lookup = |certain: Option<bool>| {
        with_lookup(&instance, |c| match certain {
            Some(certain) if c.version.as_str() == "2" => Lookup::Missing { certain },
            _ => Lookup::Manifest(digest(&c.version)),
        })
    };
    assert!(matches!(lookup(Some(false)).step, Step::Confirm(c) if c.revision == 1));
    let refused = lookup(Some(true));
    assert!(matches!(refused.step, Step::Load(c) if c.revision == 0));
    let (candidate, refusal) = refused.refused.unwrap();
    assert_eq!(
        (candidate.revision, refusal.stage),
        (1, LoadState::Announced)
    );
    assert_eq!(refused.settled_revision, -1);
    assert!(matches!(lookup(None).step, Step::Load(c) if c.revision == 1));
}

#[test]
fn a_transient_failure_does_not_fall_through() {
    let mut instance = one(&[Event::Deploy(1, None), Event::Deploy(2, None)]);
    let retry_at = instance.now + Duration::from_secs(5);
    let failure = Failure {
        attempts: 1,
        retry_at,
        reason: String::new(),
    };
    instance.failures.insert(1, failure);
    assert!(matches!(instance.decide().step, Step::Wait(c, t) if c.revision == 1 && t == retry_at));
    instance.now = retry_at;
    assert!(matches!(instance.decide().step, Step::Load(c) if c.revision == 1));
}

#[test]
fn the_same_bytes_deployed_again_are_not_loaded_again() {
    let fates = [Fate {
        passes: true,
        failures: 0,
    }; 4];
    let mut instance = one(&[Event::Deploy(1, None)]);
    while instance.act(&fates) {}
    instance.log.apply(
        7,
        Some(b"m"),
        Some(&value("m", &Event::Deploy(1, None))),
        None,
    );
    while instance.act(&fates) {}
    assert_eq!((instance.loads, instance.served.unwrap().revision), (1, 7));
}

#[test]
fn a_deployment_with_another_digest_is_refused() {
    let instance = one(&[Event::Deploy(1, None)]);
    let log = instance.model();
    let mut other = log.desired().unwrap().clone();
    other.digest = Some(Digest::of(b"other"));
    let situation = Situation {
        log: Some(&log),
        served: None,
        refused: &instance.refused,
        failures: &instance.failures,
        now: instance.now,
    };
    let verdict = judge(&situation, None, &other, &|c| {
        Lookup::Manifest(digest(&c.version))
    });
    assert!(matches!(verdict, Verdict::Refused(r) if r.reason.contains("names digest")));
}

#[test]
fn the_pause_grows_and_has_an_end() {
    assert_eq!(backoff(1), Duration::from_secs(1));
    assert_eq!(backoff(4), Duration::from_secs(8));
    assert_eq!(backoff(99), Duration::from_mins(1));
}
