//! The plans of one model: a few batch sizes, and which of them a batch is cut into.

use std::sync::Arc;
use std::time::Duration;

use tract_onnx::prelude::TypedSimplePlan;

use super::Runner;
use super::clock::thread_time;
use super::samples::zeros;
use crate::codec::Columns;
use crate::model::Signature;

/// Rows of the plan that every model has.
pub const PLAN_ROWS: usize = 32;

/// Rows of the plans of a model that leaves the batch size open.
const SIZES: [usize; 5] = [1, 8, PLAN_ROWS, 128, 512];

/// At most so many rows of a run are padding where a smaller plan would do: a run costs about as
/// much as a few rows of a small model.
const PADDING: usize = 4;

/// A run of [`PLAN_ROWS`] that takes longer is not sped up by larger plans: what a run costs
/// besides its rows is microseconds.
const LONG_RUN: Duration = Duration::from_millis(1);

/// Each plan may hold a copy of the weights.
const MOST_WEIGHTS: usize = 256 << 20;

/// One compiled graph for batches of `rows`.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) rows: usize,
    pub(super) graph: Arc<TypedSimplePlan>,
}

/// The plan, by its index in `sizes` (ascending), that the next rows of `left` are run with.
pub(super) fn next(sizes: &[usize], left: usize) -> usize {
    let fitting = sizes.partition_point(|rows| *rows <= left);
    match (fitting.checked_sub(1), sizes.get(fitting)) {
        (None, _) => 0,
        (Some(_), Some(larger)) if larger - left <= PADDING => fitting,
        (Some(smaller), _) => smaller,
    }
}

/// The sizes besides [`PLAN_ROWS`] that are worth compiling for a model that runs a plan of that
/// size in `time`, and whose weights take `weights` bytes.
pub(super) fn others(time: Duration, weights: usize) -> Vec<usize> {
    let most = if time > LONG_RUN {
        PLAN_ROWS
    } else {
        usize::MAX
    };
    let count = (MOST_WEIGHTS / weights.max(1)).saturating_sub(1);
    let sizes = SIZES
        .into_iter()
        .filter(|rows| *rows != PLAN_ROWS && *rows <= most);
    sizes.take(count).collect()
}

/// The sets of plans to try, best first: different sizes may run different kernels, which round
/// differently. The last one is a single plan.
pub(super) fn sets(plans: &[Plan], main: usize) -> Vec<Vec<Plan>> {
    let from = |least: usize| -> Vec<Plan> {
        plans
            .iter()
            .filter(|plan| plan.rows >= least)
            .cloned()
            .collect()
    };
    let main: Vec<Plan> = plans
        .iter()
        .filter(|plan| plan.rows == main)
        .cloned()
        .collect();
    let mut sets = vec![from(0), from(2), main];
    sets.dedup_by_key(|set| set.iter().map(|plan| plan.rows).collect::<Vec<_>>());
    sets
}

/// Processor time of one full batch of zeros: the least of a few, as the first one sets things up and
/// others find cold caches.
pub(super) fn time(runner: &mut dyn Runner, signature: &Signature, rows: usize) -> Duration {
    let batch = zeros(&signature.inputs, rows);
    let mut outputs = Columns::new(&signature.outputs);
    let mut took = Duration::MAX;
    for _ in 0..4 {
        let start = thread_time();
        if runner.run(&batch, &mut outputs).is_err() {
            return Duration::MAX;
        }
        took = took.min(thread_time().saturating_sub(start));
    }
    took
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(sizes: &[usize], mut left: usize) -> Vec<usize> {
        let mut plans = Vec::new();
        while left > 0 {
            let rows = sizes[next(sizes, left)];
            plans.push(rows);
            left = left.saturating_sub(rows);
        }
        plans
    }

    #[test]
    fn batches_are_cut_with_little_padding() {
        assert_eq!(cut(&SIZES, 1), [1]);
        assert_eq!(cut(&SIZES, 3), [1, 1, 1]);
        assert_eq!(cut(&SIZES, 4), [8]);
        assert_eq!(cut(&SIZES, 9), [8, 1]);
        assert_eq!(cut(&SIZES, 20), [8, 8, 8]);
        assert_eq!(cut(&SIZES, 28), [32]);
        assert_eq!(cut(&SIZES, 256), [128, 128]);
        assert_eq!(cut(&SIZES, 509), [512]);
        assert_eq!(cut(&SIZES, 1100), [512, 512, 32, 32, 8, 8]);
        // One plan takes it all, and so does the smallest where none fits.
        assert_eq!(cut(&[32], 33), [32, 32]);
        assert_eq!(cut(&[8, 32], 1), [8]);
    }

    #[test]
    fn slow_and_large_models_get_fewer_plans() {
        assert_eq!(others(Duration::ZERO, 0), [1, 8, 128, 512]);
        assert_eq!(others(Duration::from_millis(2), 0), [1, 8]);
        assert_eq!(others(Duration::ZERO, 100 << 20), [1]);
        assert_eq!(others(Duration::ZERO, 200 << 20), [0_usize; 0]);
    }
}
