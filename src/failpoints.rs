//! Points at which tests interrupt a worker or a command, and variants that break its promises on purpose, to
//! show that the tests notice. In normal builds there is nothing of it: the cargo feature
//! `failpoints` is switched on by the crate's own tests only.
//!
//! Configured by the variable `FAILPOINTS`, as the `fail` crate has it:
//! `FAILPOINTS='before-commit=1%return(kill)'`. Besides its actions there are `return(kill)`, which
//! ends the process by SIGKILL, and `return(stop)`, which stops it by SIGSTOP.
//!
//! | point | where |
//! |---|---|
//! | `before-produce` | a batch is scored and nothing of it is sent |
//! | `after-produce` | all of a batch is sent, and not acknowledged |
//! | `before-send-offsets` | everything is acknowledged, offsets are not sent |
//! | `before-commit` | offsets are sent, the transaction is not committed; `at_least_once`: as above |
//! | `after-commit` | the commit is done; `at_least_once`: it is sent |
//! | `in-revoke` | partitions are to be given up, nothing of them is committed |
//! | `after-deletion` | a version is deleted, and its deployments are not looked at again yet |
//!
//! | variant | what it breaks |
//! |---|---|
//! | `broken-commit-first` | offsets are committed before the batch is sent |
//! | `broken-ignore-revoke` | partitions are given up without a commit, and scored on |
//! | `broken-reuse-producer` | a commit of unknown outcome counts as failed |

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::Once;

    use rustix::process::{Signal, getpid, kill_process};

    /// What `return(…)` says at `name`, if it is to happen now.
    fn eval(name: &'static str) -> Option<String> {
        static ARMED: Once = Once::new();
        // The scenario lasts as long as the process.
        ARMED.call_once(|| std::mem::forget(fail::FailScenario::setup()));
        fail::eval(name, Option::unwrap_or_default)
    }

    pub(crate) fn fail_point(name: &'static str) {
        let signal = match eval(name).as_deref() {
            Some("kill") => Signal::KILL,
            Some("stop") => Signal::STOP,
            _ => return,
        };
        if kill_process(getpid(), signal).is_err() {
            std::process::abort();
        }
    }

    pub(crate) fn broken(name: &'static str) -> bool {
        eval(name).is_some()
    }
}

#[cfg(feature = "failpoints")]
pub(crate) use armed::{broken, fail_point};

/// Does nothing in this build.
#[cfg(not(feature = "failpoints"))]
pub(crate) const fn fail_point(_: &'static str) {}

/// Never in this build.
#[cfg(not(feature = "failpoints"))]
pub(crate) const fn broken(_: &'static str) -> bool {
    false
}
