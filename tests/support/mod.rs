//! What the integration tests share: a real Apache Kafka broker, a handle on a spawned
//! `swapstream`, waiting for conditions, and a small HTTP client.
//!
//! A test target takes it in with `#[path = "../support/mod.rs"] mod support;`. Only the standard
//! library is used here, except in [`trials`], which needs libtest-mimic.
//!
//! Whether a broker can be had is a `Result`, because a machine without one is a normal case.
//! Everything after that panics with what was seen (the last error, the end of the log): inside a
//! test there is nothing better to do with it.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs,
    reason = "compiled once per test target, and each target uses only a part of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "test code: a panic is how a test reports"
)]

mod http;
mod kafka_broker;
mod kafka_jars;
mod kafka_node;
mod kafka_wire;
mod process;
mod supervisor;
pub mod trials;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use http::{http_get, try_http_get};
pub use kafka_broker::{Broker, BrokerOptions, Listener, shared};
pub use kafka_jars::{KEEPS_MARKERS, Kit, PINNED_VERSION, Unavailable};
pub use kafka_wire::{Operation, Resource, allow, free_ports, round_trip};
pub use process::Process;

/// How long [`eventually`] sleeps between two looks: short against anything a broker does, long
/// enough not to compete with it for a core.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The `swapstream` program: the one that Cargo builds before any integration test, or the one
/// that `SWAPSTREAM_TEST_BIN` names.
pub fn bin() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_BIN_EXE_swapstream"));
    std::env::var_os("SWAPSTREAM_TEST_BIN").map_or_else(built, PathBuf::from)
}

/// Whether this is a CI run, where a missing broker is a failure and not a reason to skip: a green
/// run that tested nothing is worse than a red one.
pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// A name nobody has used before, so that tests can share one broker (even a foreign one with
/// yesterday's topics on it) without seeing each other's records.
pub fn unique(prefix: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since_epoch.map_or(0, |elapsed| elapsed.as_millis());
    format!("{prefix}-{}-{count}-{millis}", std::process::id())
}

/// Polls `look` until it is `Ok` and returns its value.
///
/// # Panics
/// When `deadline` has passed, with `what` and the last `Err`, so that the failure says how far
/// it came.
#[track_caller]
pub fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let started = Instant::now();
    loop {
        match look() {
            Ok(value) => return value,
            Err(reason) if started.elapsed() >= deadline => {
                panic!("not within {deadline:?}: {what}; last seen: {reason}")
            }
            Err(_) => thread::sleep(POLL_INTERVAL),
        }
    }
}

/// What a test does that cannot have its broker.
#[derive(Debug, Clone)]
pub enum Skip {
    /// Be shown as ignored, with this reason.
    Ignore(String),
    /// Fail with this reason: in CI, or when the set-up is there but broken.
    Fail(String),
}

impl From<Unavailable> for Skip {
    fn from(unavailable: Unavailable) -> Self {
        if unavailable.broken || in_ci() {
            Skip::Fail(unavailable.reason)
        } else {
            Skip::Ignore(unavailable.reason)
        }
    }
}

/// The broker that the tests of this process share, started at the first call.
pub fn require_kafka() -> Result<&'static Broker, Skip> {
    shared().map_err(Skip::from)
}
