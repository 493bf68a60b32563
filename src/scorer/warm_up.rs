//! The warm-up: before a version serves it scores its golden rows in batches of the sizes that a
//! stream makes, and is held against its latency budget.

use std::sync::Arc;
use std::time::Duration;

use super::{Scorer, Tag};
use crate::codec::NonFiniteOutputs;
use crate::model::{Checks, Contract, Digest};
use crate::runtime::{CompiledModel, thread_time};

/// Batches of a stream at low, middling and high load.
const SIZES: [usize; 3] = [1, 32, 256];

/// Of a large golden file, so many rows are enough to warm up on.
const MOST_EVENTS: usize = 4096;

/// Tries to keep within the budget: one that found cold caches proves nothing, the best of several
/// does.
const TRIES: u32 = 7;

/// Why a version is not warmed up.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WarmUpError {
    /// It cannot be run.
    #[error("{0}")]
    Run(String),
    /// There is nothing to run it on.
    #[error("checks.latency needs golden rows to score")]
    NoRows,
    /// It takes too long.
    #[error(
        "scoring {rows} events takes {best_ms:.3} ms of a processor at best, checks.latency allows {allowed_ms} ms"
    )]
    Slow {
        /// Events in the batch.
        rows: usize,
        /// The best of several times.
        best_ms: f64,
        /// The budget.
        allowed_ms: f64,
    },
}

/// Scores the golden rows of `checks`, which are real events, over and over.
///
/// # Errors
/// Where the budget cannot be kept.
pub fn warm_up(
    compiled: &Arc<dyn CompiledModel>,
    contract: &Contract,
    checks: &Checks,
) -> Result<(), WarmUpError> {
    let events: Vec<Vec<u8>> = checks
        .golden
        .iter()
        .take(MOST_EVENTS)
        .map(|row| row.input.to_string().into_bytes())
        .collect();
    if events.is_empty() {
        return match checks.latency {
            Some(_) => Err(WarmUpError::NoRows),
            None => Ok(()),
        };
    }
    let digest = Digest::of(&[]);
    let tag = Tag {
        model: None,
        version: None,
        digest: &digest,
        revision: None,
    };
    let null = NonFiniteOutputs::Null;
    let mut scorer = Scorer::new(Arc::clone(compiled), contract, tag, &[], null)
        .map_err(|error| WarmUpError::Run(error.to_string()))?;
    for rows in SIZES {
        score(&mut scorer, &events, rows);
    }
    let Some(budget) = checks.latency else {
        return Ok(());
    };
    let rows = usize::from(budget.rows.get());
    let times = (0..TRIES).map(|_| score(&mut scorer, &events, rows));
    let best = times.min().unwrap_or_default().as_secs_f64() * 1e3;
    if best > budget.ms {
        return Err(WarmUpError::Slow {
            rows,
            best_ms: best,
            allowed_ms: budget.ms,
        });
    }
    Ok(())
}

/// Scores one batch of `rows` events; gives the processor time that the model took.
fn score(scorer: &mut Scorer, events: &[Vec<u8>], rows: usize) -> Duration {
    scorer.clear();
    for event in events.iter().cycle().take(rows) {
        scorer.push(Some(event));
    }
    let start = thread_time();
    scorer.run();
    thread_time().saturating_sub(start)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::model::{GoldenRow, LatencyBudget, RuntimeKind};
    use crate::runtime::{self, LoadLimits};

    #[test]
    fn a_budget_is_kept_or_the_time_is_named() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mlp.onnx");
        let bytes = std::fs::read(path).unwrap();
        let compiled = runtime::load(&bytes, RuntimeKind::Tract, LoadLimits::default()).unwrap();
        let signature = compiled.signature();
        let contract = Contract::resolve(&[], &[], signature).unwrap();
        let zeros = |count: usize| vec![0.0; count];
        let input: serde_json::Map<_, _> = signature
            .inputs
            .iter()
            .map(|tensor| {
                let count = tensor.row_shape.iter().product::<usize>().max(1);
                (tensor.name.clone(), zeros(count).into())
            })
            .collect();
        let mut checks = Checks {
            latency: Some(LatencyBudget {
                rows: NonZeroU16::new(64).unwrap(),
                ms: 60_000.0,
            }),
            ..Checks::default()
        };
        let see = |checks: &Checks| warm_up(&compiled, &contract, checks);
        assert_eq!(see(&checks), Err(WarmUpError::NoRows));
        checks.golden.push(GoldenRow {
            input: input.into(),
            outputs: serde_json::Map::new(),
        });
        assert_eq!(see(&checks), Ok(()));
        if let Some(budget) = &mut checks.latency {
            budget.ms = 1e-6;
        }
        let error = see(&checks).unwrap_err().to_string();
        assert!(error.starts_with("scoring 64 events takes"), "{error}");
        checks.latency = None;
        assert_eq!(see(&checks), Ok(()));
    }
}
