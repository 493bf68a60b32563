//! Times models on random rows, side by side: rounds take turns, so that whatever slows the
//! machine slows all of them.

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::samples::{Random, append, random_row};
use super::{CompiledModel, RunError, Runner, live_rows};
use crate::codec::Columns;

/// The batch sizes that are timed.
const BATCHES: [usize; 5] = [1, 8, 32, 128, 512];

/// A batch size is timed in this many rounds, or as many as fit into [`TIME_PER_BATCH`] for each
/// model.
const ROUNDS: usize = 51;
const TIME_PER_BATCH: Duration = Duration::from_millis(300);

/// Random rows that the batches of one size are made of, if those of two batches are not more:
/// always the same row would flatter the caches.
const ROWS: usize = 64;

/// Time per batch of one size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BatchTime {
    /// Rows of the batch.
    pub rows: usize,
    /// Median time to run it.
    pub median_us: f64,
}

/// Times each of `models` at the usual batch sizes; a size at which one fails on random rows is
/// left out for it.
pub fn measure(models: &[&dyn CompiledModel]) -> Vec<Vec<BatchTime>> {
    // Made-up rows hold no known categories; that is not what is timed.
    live_rows::on_trial(|| measure_all(models))
}

fn measure_all(models: &[&dyn CompiledModel]) -> Vec<Vec<BatchTime>> {
    let mut times = vec![Vec::new(); models.len()];
    for rows in BATCHES {
        let mut runs: Vec<_> = models.iter().map(|model| Run::new(*model, rows)).collect();
        let begin = Instant::now();
        let budget = TIME_PER_BATCH * u32::try_from(models.len()).unwrap_or(u32::MAX);
        for round in 0..ROUNDS {
            if round > 0 && begin.elapsed() > budget {
                break;
            }
            for run in &mut runs {
                if run.as_mut().is_ok_and(|run| run.round(round).is_err()) {
                    *run = Err(RunError::Failed("failed in a later round".to_owned()));
                }
            }
        }
        for (times, run) in times.iter_mut().zip(runs) {
            times.extend(run.ok().map(|run| run.median(rows)));
        }
    }
    times
}

/// How many times faster `a` is than `b`: the geometric mean over the batch sizes of both.
/// `None`: they have no size in common.
pub fn faster(a: &[BatchTime], b: &[BatchTime]) -> Option<f64> {
    let ratio = |a: &BatchTime| {
        let b = b.iter().find(|b| b.rows == a.rows)?;
        Some((b.median_us / a.median_us).ln())
    };
    let ratios: Vec<f64> = a.iter().filter_map(ratio).collect();
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    mean.is_finite().then(|| mean.exp())
}

/// One model at one batch size.
struct Run {
    runner: Box<dyn Runner>,
    batches: Vec<Columns>,
    outputs: Columns,
    times: Vec<Duration>,
}

impl Run {
    /// Runs every batch once.
    fn new(model: &dyn CompiledModel, rows: usize) -> Result<Self, RunError> {
        let signature = model.signature();
        let mut random = Random(rows as u64);
        let batch = |_| {
            let mut batch = Columns::new(&signature.inputs);
            for _ in 0..rows {
                append(&mut batch, &random_row(&signature.inputs, &mut random, 1.0));
            }
            batch
        };
        let mut run = Self {
            runner: model.runner()?,
            batches: (0..(ROWS / rows).max(2)).map(batch).collect(),
            outputs: Columns::new(&signature.outputs),
            times: Vec::with_capacity(ROUNDS),
        };
        for index in 0..run.batches.len() {
            run.round(index)?;
        }
        run.times.clear();
        Ok(run)
    }

    fn round(&mut self, round: usize) -> Result<(), RunError> {
        let Some(batch) = self.batches.get(round % self.batches.len()) else {
            return Ok(());
        };
        let start = Instant::now();
        self.runner.run(batch, &mut self.outputs)?;
        self.times.push(start.elapsed());
        Ok(())
    }

    fn median(mut self, rows: usize) -> BatchTime {
        self.times.sort_unstable();
        let median = self.times.get(self.times.len() / 2).copied();
        BatchTime {
            rows,
            median_us: median.unwrap_or_default().as_secs_f64() * 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faster_is_a_geometric_mean_over_common_sizes() {
        let times = |times: &[(usize, f64)]| -> Vec<BatchTime> {
            let time = |&(rows, median_us)| BatchTime { rows, median_us };
            times.iter().map(time).collect()
        };
        let a = times(&[(1, 1.0), (8, 1.0), (32, 5.0)]);
        let b = times(&[(1, 2.0), (8, 8.0), (512, 1.0)]);
        assert!((faster(&a, &b).unwrap() - 4.0).abs() < 1e-9);
        assert_eq!(faster(&a, &[]), None);
    }
}
