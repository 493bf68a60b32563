//! Tests that need a Kafka broker, as trials of libtest-mimic: the built-in test runner decides at
//! compile time what is ignored, and whether there is a broker shows only at run time.
//!
//! The rule: without a broker a test is *ignored, with the reason shown*; in CI (`CI=true`) it
//! fails. What is there but does not work fails everywhere. A panic in a test fails it, too.
//!
//! ```ignore
//! fn main() -> ExitCode {
//!     trials::run(vec![
//!         trials::on_shared_broker("scores_every_record", scores_every_record),
//!         trials::on_own_broker("survives_a_restart", BrokerOptions::default, survives_a_restart),
//!     ])
//! }
//! ```

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use super::kafka_broker::foreign_address;
use super::{Broker, BrokerOptions, Skip, require_kafka};

/// What a test returns; `?` turns every error that can be displayed into a failure.
pub type TestResult = Result<(), Failed>;

/// A test that shares its broker with others: it uses names from `unique` and leaves the broker
/// alone.
pub fn on_shared_broker(name: &str, test: fn(&'static Broker) -> TestResult) -> Trial {
    Trial::ignorable_test(name, move || match require_kafka() {
        Ok(broker) => test(broker).map(|()| Completion::Completed),
        Err(skip) => not_run(skip),
    })
}

/// A test with a broker of its own, because it stops or kills it or needs another configuration.
///
/// It is called `own_broker::NAME`, is ignored when a foreign broker is given, and never runs
/// beside another one of its kind: a broker takes half a gigabyte and half of a small machine.
pub fn on_own_broker(
    name: &str,
    options: fn() -> BrokerOptions,
    test: fn(&Broker) -> TestResult,
) -> Trial {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    Trial::ignorable_test(format!("own_broker::{name}"), move || {
        if foreign_address().is_some() {
            let reason = "needs its own broker, and SWAPSTREAM_TEST_KAFKA gives another one";
            return Ok(Completion::ignored_with(reason));
        }
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        match Broker::start(&options()) {
            Ok(broker) => {
                let _log = LogOnPanic(&broker);
                test(&broker).map(|()| Completion::Completed)
            }
            Err(unavailable) => not_run(Skip::from(unavailable)),
        }
    })
}

/// Shows how the log of a test's own broker ends, where the test panics: it goes with the broker.
struct LogOnPanic<'a>(&'a Broker);

impl Drop for LogOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let tail = self.0.log_tail(30);
            eprintln!("the broker's log ends so:\n{tail}");
        }
    }
}

/// A test that needs no broker, or the absence of one.
pub fn without_broker(name: &str, test: fn() -> TestResult) -> Trial {
    Trial::test(name, test)
}

/// The `main` of a test target: runs `trials` as the command line says.
pub fn run(trials: Vec<Trial>) -> ExitCode {
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn not_run(skip: Skip) -> Result<Completion, Failed> {
    match skip {
        Skip::Ignore(reason) => Ok(Completion::ignored_with(format!(
            "needs Apache Kafka: {reason}"
        ))),
        Skip::Fail(reason) => Err(Failed::from(format!("needs Apache Kafka: {reason}"))),
    }
}
