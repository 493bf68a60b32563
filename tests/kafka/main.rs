//! Everything that needs Apache Kafka: one target, so that one broker serves all its tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    clippy::unnecessary_wraps,
    clippy::too_many_lines,
    clippy::assigning_clones,
    clippy::items_after_statements,
    reason = "test code: a panic is how a test reports, and a scenario reads best in one piece"
)]

mod acceptance;
mod at_once;
mod bad_events;
mod demo;
mod dlq;
mod exactly_once;
mod faults;
mod fence;
mod golden;
mod injection;
mod lives;
mod loads;
mod logs;
mod many;
mod matrix;
mod object_store;
mod observability;
mod onnx;
mod operators;
mod policies;
mod publish;
mod readers;
mod rebuild;
mod refusals;
mod registry;
mod scoring;
mod security;
mod several;
mod signatures;
mod starts;
mod startup;
mod world;

#[path = "../support/prometheus.rs"]
mod prometheus;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The longest first: they run beside the others.
    let mut trials = Vec::new();
    trials.extend(demo::trials());
    trials.extend(scoring::trials());
    trials.extend(exactly_once::trials());
    trials.extend(injection::trials());
    trials.extend(starts::trials());
    trials.extend(refusals::trials());
    trials.extend(loads::trials());
    trials.extend(lives::trials());
    trials.extend(many::trials());
    trials.extend(matrix::trials());
    trials.extend(readers::trials());
    trials.extend(object_store::trials());
    trials.extend(rebuild::trials());
    trials.extend(registry::trials());
    trials.extend(golden::trials());
    trials.extend(signatures::trials());
    trials.extend(faults::trials());
    trials.extend(security::trials());
    trials.extend(startup::trials());
    trials.extend(publish::trials());
    trials.extend(acceptance::trials());
    trials.extend(at_once::trials());
    trials.extend(operators::trials());
    trials.extend(bad_events::trials());
    trials.extend(dlq::trials());
    trials.extend(policies::trials());
    trials.extend(fence::trials());
    trials.extend(several::trials());
    trials.extend(logs::trials());
    trials.extend(observability::trials());
    support::trials::run(trials)
}
