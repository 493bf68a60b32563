//! Everything that needs Apache Kafka: one target, so that one broker serves all its tests.

mod scoring;
mod world;

#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut trials = Vec::new();
    trials.extend(scoring::trials());
    support::trials::run(trials)
}
