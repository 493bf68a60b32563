//! Tries to break the promises of both guarantees: instances, broker and network fail by a seeded
//! schedule while models are swapped, and a verifier holds what came out against what went in.
//!
//! `CHAOS_ROUNDS` and `CHAOS_SEED` make it long and repeat it; `CHAOS_FAULTS=kill,hijack` picks
//! faults, `CHAOS_GUARANTEES=exactly_once` a guarantee, `CHAOS_MEMBERSHIP=static` or `consumer` how
//! workers join their group, and `CHAOS_BROKEN=commit-first`,
//! `ignore-revoke` or `reuse-producer` a deliberately broken variant, which must be caught.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::too_many_arguments,
    clippy::format_push_string,
    missing_docs,
    unreachable_pub,
    reason = "test code: a panic is how a test reports"
)]

#[path = "chaos/disk.rs"]
mod disk;
#[path = "chaos/event.rs"]
mod event;
#[path = "chaos/faults.rs"]
mod faults;
#[path = "chaos/feed.rs"]
mod feed;
#[path = "chaos/fleet.rs"]
mod fleet;
#[path = "chaos/observer.rs"]
mod observer;
#[path = "chaos/oracle.rs"]
mod oracle;
#[path = "chaos/proxy.rs"]
mod proxy;
#[path = "chaos/report.rs"]
mod report;
#[path = "chaos/rng.rs"]
mod rng;
#[path = "chaos/run.rs"]
mod run;
#[path = "chaos/schedule.rs"]
mod schedule;
#[path = "chaos/stage.rs"]
mod stage;
#[path = "support/mod.rs"]
mod support;
#[path = "chaos/swaps.rs"]
mod swaps;
#[path = "chaos/traces.rs"]
mod traces;
#[path = "chaos/verdict.rs"]
mod verdict;
#[path = "chaos/verifier.rs"]
mod verifier;
#[path = "chaos/verifier_tests.rs"]
mod verifier_tests;

use std::process::ExitCode;

use libtest_mimic::{Completion, Failed, Trial};

use run::{Membership, Outcome, Plan};
use schedule::Fault;
use support::trials::TestResult;
use support::{Skip, trials};
use verifier::Guarantee;

/// Rounds unless `CHAOS_ROUNDS` says otherwise: what fits into two minutes.
const ROUNDS: usize = 10;
/// Rounds in which a broken variant must have been caught.
const BROKEN_ROUNDS: usize = 12;

fn main() -> ExitCode {
    trials::run(vec![
        trials::without_broker("the_verifier_catches_every_damage", || {
            verifier_tests::run();
            Ok(())
        }),
        trials::without_broker("a_seed_gives_one_schedule_with_every_fault", || {
            schedules();
            Ok(())
        }),
        trials::without_broker("events_are_what_their_marks_say", marks),
        Trial::ignorable_test("own_broker::promises_hold_under_chaos", chaos),
    ])
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What the environment asks for.
fn plan() -> Result<Plan, String> {
    let number = |name: &str, default: u64| match set(name) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| format!("{name}={text} is no number")),
    };
    let broken = set("CHAOS_BROKEN").map(|name| format!("broken-{name}"));
    let rounds = if broken.is_some() {
        BROKEN_ROUNDS
    } else {
        ROUNDS
    };
    let mut only = Vec::new();
    for name in set("CHAOS_FAULTS")
        .iter()
        .flat_map(|names| names.split(','))
    {
        only.push(Fault::named(name).ok_or_else(|| format!("CHAOS_FAULTS: no fault {name}"))?);
    }
    if only.is_empty() {
        only = broken.as_deref().map(provoking).unwrap_or_default();
    }
    let mut guarantees = vec![Guarantee::ExactlyOnce, Guarantee::AtLeastOnce];
    if let Some(name) = set("CHAOS_GUARANTEES") {
        guarantees.retain(|guarantee| name.split(',').any(|one| one == guarantee.name()));
    }
    if guarantees.is_empty() {
        return Err("CHAOS_GUARANTEES names none".to_owned());
    }
    Ok(Plan {
        seed: number("CHAOS_SEED", 1)?,
        rounds: number("CHAOS_ROUNDS", rounds as u64)? as usize,
        guarantees,
        broken,
        only,
        membership: match set("CHAOS_MEMBERSHIP").as_deref() {
            None => Membership::Dynamic,
            Some("static") => Membership::Static,
            Some("consumer") => Membership::Consumer,
            Some(other) => return Err(format!("CHAOS_MEMBERSHIP={other}: static or consumer")),
        },
    })
}

/// Faults in which a broken variant shows.
fn provoking(broken: &str) -> Vec<Fault> {
    match broken {
        "broken-commit-first" => vec![Fault::Kill, Fault::KillAtPoint],
        "broken-ignore-revoke" => vec![Fault::Churn, Fault::Term],
        "broken-reuse-producer" => vec![Fault::ProxySwallow, Fault::BrokerStop],
        _ => Vec::new(),
    }
}

fn chaos() -> Result<Completion, Failed> {
    if set("SWAPSTREAM_TEST_KAFKA").is_some() {
        let reason = "needs its own broker, and SWAPSTREAM_TEST_KAFKA gives another one";
        return Ok(Completion::ignored_with(reason));
    }
    let plan = plan()?;
    match run::run(plan.clone()) {
        Ok(outcome) => judge(&plan, &outcome).map(|()| Completion::Completed),
        Err(unavailable) => match Skip::from(unavailable) {
            Skip::Ignore(reason) => Ok(Completion::ignored_with(reason)),
            Skip::Fail(reason) => Err(Failed::from(reason)),
        },
    }
}

fn judge(plan: &Plan, outcome: &Outcome) -> TestResult {
    println!("{}", outcome.report.line());
    if let Some(broken) = &plan.broken {
        let caught = outcome
            .broken
            .iter()
            .filter(|(check, _)| (1..=7).contains(check));
        let Some((check, what)) = caught.clone().next() else {
            return Err(format!("{broken} was not caught: {:?}", outcome.broken).into());
        };
        let checks: std::collections::BTreeSet<u8> = caught.map(|(check, _)| *check).collect();
        println!("chaos: {broken} was caught first by check {check}, in all by {checks:?}: {what}");
        return Ok(());
    }
    if outcome.broken.is_empty() {
        return Ok(());
    }
    let list: Vec<&str> = outcome
        .broken
        .iter()
        .map(|(_, what)| what.as_str())
        .collect();
    let (seed, rounds) = (plan.seed, plan.rounds);
    Err(format!(
        "{}\nrepeat it: CHAOS_SEED={seed} CHAOS_ROUNDS={rounds} cargo test --test chaos promises",
        list.join("\n")
    )
    .into())
}

fn schedules() {
    for seed in 0..100 {
        let long = schedule::schedule(seed, 60, &[]);
        assert_eq!(long, schedule::schedule(seed, 60, &[]));
        for (fault, count) in Fault::BAG {
            let times = long.iter().filter(|one| **one == fault).count();
            assert!(
                times >= 2 * count,
                "seed {seed}: {fault:?} comes {times} times"
            );
            assert_eq!(Fault::named(fault.name()), Some(fault));
        }
    }
    let only = schedule::schedule(7, 30, &[Fault::Kill]);
    assert!(only.iter().all(|fault| *fault == Fault::Kill));
}

fn marks() -> TestResult {
    let sample = r#"{"distance_miles":529,"flight_id":"x"}"#.to_owned();
    for kind in event::Kind::POISON.into_iter().chain([event::Kind::Good]) {
        let mark = event::Mark {
            key: 3,
            seq: 99,
            kind,
        };
        assert_eq!(event::Mark::parse(&mark.text()), Some(mark));
        let value = mark.value(std::slice::from_ref(&sample));
        let json = value.and_then(|value| serde_json::from_slice::<serde_json::Value>(&value).ok());
        if kind == event::Kind::Good {
            assert_eq!(json.ok_or("good events are JSON")?["seq"], 99);
        }
    }
    Ok(())
}
