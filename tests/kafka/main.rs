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
    reason = "test code: a panic is how a test reports"
)]

mod bad_events;
mod demo;
mod refusals;
mod scoring;
mod starts;
mod world;

#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut trials = Vec::new();
    trials.extend(demo::trials());
    trials.extend(scoring::trials());
    trials.extend(starts::trials());
    trials.extend(refusals::trials());
    trials.extend(bad_events::trials());
    support::trials::run(trials)
}
