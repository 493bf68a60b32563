//! Waits until all live instances have done what a deployment event wants.

use std::time::{Duration, Instant};

use super::{Context, Failure, now_ms, terminal};
use crate::model::ModelName;
use crate::registry::{Convergence, Desired, ModelLog, read_deployments, read_fleet};

/// Pause between two looks at the status topic.
const LOOK: Duration = Duration::from_millis(500);

/// How waiting ended.
#[derive(Debug)]
pub(super) struct Awaited {
    pub(super) convergence: Convergence,
    /// A later event took this one's place.
    superseded: Option<i64>,
    timeout: Duration,
}

impl Awaited {
    pub(super) fn is_done(&self) -> bool {
        self.superseded.is_none() && self.convergence.is_converged()
    }

    /// Why it is not done.
    pub(super) fn failure(&self) -> String {
        if let Some(revision) = self.superseded {
            return format!("the event was superseded by revision {revision}");
        }
        let all = &self.convergence;
        if all.done.is_empty() && all.waiting.is_empty() && all.refused.is_empty() {
            let seconds = self.timeout.as_secs();
            return format!("no live instance has a stream for this model after {seconds} s");
        }
        let refused = all.refused.iter().chain(&all.waiting);
        let lines: Vec<String> = refused
            .map(|(id, why)| format!("instance {id}: {why}"))
            .collect();
        format!("not all live instances have done it\n{}", lines.join("\n"))
    }
}

/// Waits for what the event at `revision` wants: `want`, or nothing.
pub(super) fn wait_for(
    context: &Context,
    model: &ModelName,
    want: Option<&Desired>,
    revision: i64,
    timeout: Duration,
) -> Result<Awaited, Failure> {
    let logs = context.logs();
    let deadline = Instant::now() + timeout;
    let mut told = String::new();
    loop {
        let fleet = read_fleet(&logs)?;
        let convergence = fleet.convergence(model, want, now_ms());
        let log = read_deployments(&logs)?;
        let newest = log.model(model).map_or(revision, ModelLog::last_effective);
        let superseded = (newest > revision).then_some(newest);
        let stuck = !convergence.refused.is_empty() && convergence.waiting.is_empty();
        let awaited = Awaited {
            convergence,
            superseded,
            timeout,
        };
        let over = superseded.is_some() || stuck || Instant::now() >= deadline;
        if awaited.is_done() || over {
            return Ok(awaited);
        }
        let text = progress(&awaited.convergence);
        if text != told && terminal::is_watched() {
            terminal::note(&text);
            told = text;
        }
        std::thread::sleep(LOOK);
    }
}

fn progress(all: &Convergence) -> String {
    let count = all.done.len() + all.waiting.len() + all.refused.len();
    let first = all
        .waiting
        .first()
        .map(|(id, why)| format!("; {id} {why}"))
        .unwrap_or_default();
    format!("{} of {count} live instances{first}", all.done.len())
}
