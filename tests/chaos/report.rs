//! The one line that a run prints. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::verifier::Totals;

/// Number of checks.
pub const CHECKS: u8 = 9;

#[derive(Debug, Serialize)]
pub struct Report {
    schema: &'static str,
    pub seed: u64,
    pub rounds: usize,
    pub inputs: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub at_least_once: Least,
    pub faults: BTreeMap<&'static str, u64>,
    pub checks: BTreeMap<String, &'static str>,
    pub recovery_s_max: f64,
    pub ok: bool,
}

#[derive(Debug, Default, Serialize)]
pub struct Least {
    pub inputs: u64,
    pub lost: u64,
    pub duplicated: u64,
}

impl From<Totals> for Least {
    fn from(totals: Totals) -> Self {
        Self {
            inputs: totals.inputs,
            lost: totals.lost,
            duplicated: totals.duplicated,
        }
    }
}

impl Report {
    /// `failed` are the checks that did not hold, `exactly_once` and `at_least_once` what was
    /// counted where that guarantee was tested.
    pub fn new(
        seed: u64,
        rounds: usize,
        exactly_once: Totals,
        at_least_once: Totals,
        faults: BTreeMap<&'static str, u64>,
        failed: &[u8],
        recovery: Duration,
        ok: bool,
    ) -> Self {
        let check = |number: u8| {
            let state = if failed.contains(&number) {
                "fail"
            } else {
                "pass"
            };
            (number.to_string(), state)
        };
        Self {
            schema: "swapstream.chaos/v1",
            seed,
            rounds,
            inputs: exactly_once.inputs,
            lost: exactly_once.lost,
            duplicated: exactly_once.duplicated,
            at_least_once: at_least_once.into(),
            faults,
            checks: (1..=CHECKS).map(check).collect(),
            recovery_s_max: (recovery.as_secs_f64() * 1000.0).round() / 1000.0,
            ok,
        }
    }

    pub fn line(&self) -> String {
        let json = serde_json::to_string(self).expect("a report is JSON");
        format!("chaos: {json}")
    }
}
