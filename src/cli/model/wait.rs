//! Waits until all live instances have done what a deployment event wants.

use std::time::{Duration, Instant};

use super::{Context, now_ms, terminal};
use crate::model::ModelName;
use crate::registry::{
    Convergence, Desired, KafkaLogs, ModelLog, RegistryError, read_deployments, read_fleet,
};

/// Pause between two looks at the status topic.
const LOOK: Duration = Duration::from_millis(500);

/// How waiting ended.
#[derive(Debug)]
pub(super) struct Awaited {
    pub(super) convergence: Convergence,
    /// A later event took this one's place.
    superseded: Option<i64>,
    /// Why the last look at the topics told nothing.
    trouble: Option<String>,
    timeout: Duration,
}

impl Awaited {
    pub(super) fn is_done(&self) -> bool {
        self.superseded.is_none() && self.trouble.is_none() && self.convergence.is_converged()
    }

    /// Why it is not done.
    pub(super) fn failure(&self) -> String {
        if let Some(revision) = self.superseded {
            return format!("the event was superseded by revision {revision}");
        }
        if let Some(trouble) = &self.trouble {
            return format!("whether live instances have done it cannot be read: {trouble}");
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

/// Waits for what the event at `revision` wants: `want`, or nothing. Topics that cannot be read for a while
/// are waited for as well.
pub(super) fn wait_for(
    context: &Context,
    model: &ModelName,
    want: Option<&Desired>,
    revision: i64,
    timeout: Duration,
) -> Awaited {
    let logs = context.logs();
    let deadline = Instant::now() + timeout;
    let mut told = String::new();
    tracing::info!(revision, "waiting for live instances");
    loop {
        let found = look(&logs, model, want, revision);
        let (over, (convergence, superseded), trouble) = match found {
            Ok(found) => (found.0.is_stuck() || found.1.is_some(), found, None),
            Err(error) => {
                let passing = matches!(&error, RegistryError::Kafka(error) if error.is_retriable());
                (!passing, Default::default(), Some(error.to_string()))
            }
        };
        let awaited = Awaited {
            convergence,
            superseded,
            trouble,
            timeout,
        };
        if awaited.is_done() || over || Instant::now() >= deadline {
            return awaited;
        }
        let text = match &awaited.trouble {
            Some(trouble) => trouble.clone(),
            None => progress(&awaited.convergence),
        };
        if text != told {
            if awaited.trouble.is_some() {
                tracing::warn!("still waiting for the event at revision {revision}: {text}");
            } else if terminal::is_watched() {
                terminal::note(&text);
            }
            told = text;
        }
        std::thread::sleep(LOOK);
    }
}

/// What live instances have come to, and a later event of the model.
fn look(
    logs: &KafkaLogs,
    model: &ModelName,
    want: Option<&Desired>,
    revision: i64,
) -> Result<(Convergence, Option<i64>), RegistryError> {
    let convergence = read_fleet(logs)?.convergence(model, want, now_ms());
    let log = read_deployments(logs)?;
    let newest = log.model(model).map_or(revision, ModelLog::last_effective);
    Ok((convergence, (newest > revision).then_some(newest)))
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
