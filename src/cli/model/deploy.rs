//! `swapstream model deploy`: appends a deployment event, reads it back, and says what it came to.

use clap::Args;
use serde::Serialize;

use super::wait::{Awaited, wait_for};
use super::{Context, Failure, Output, WaitArgs, WhoArgs, print};
use crate::model::{ModelName, Version};
use crate::registry::{
    Appended, Convergence, DeploymentEvent, Desired, HistoryEntry, Outcome, append_event,
    deploy_event, read_catalog_trusting,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Example: swapstream model deploy late-arrival 2 --reason 'better AUC' --wait"
)]
pub(super) struct DeployArgs {
    /// The model.
    model: ModelName,
    /// The version.
    version: Version,
    #[command(flatten)]
    who: WhoArgs,
    #[command(flatten)]
    wait: WaitArgs,
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &DeployArgs, context: &Context) -> Result<(), Failure> {
    let catalog = read_catalog_trusting(&context.logs(), &context.registry.trust)?;
    let who = args.who.attribution();
    let event = deploy_event(
        &catalog,
        &args.model,
        &args.version,
        args.who.if_revision,
        who,
    )?;
    finish(context, event, &args.wait, args.output)
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    revision: i64,
    effective: bool,
    event: &'a DeploymentEvent,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    winner: Option<Winner<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    converged: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    instances: Vec<Instance<'a>>,
}

#[derive(Serialize)]
struct Winner<'a> {
    revision: i64,
    event: Option<&'a DeploymentEvent>,
}

#[derive(Serialize)]
struct Instance<'a> {
    #[serde(rename = "instance")]
    id: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Appends `event`, waits if asked to, and tells how it ended.
pub(super) fn finish(
    context: &Context,
    event: DeploymentEvent,
    wait: &WaitArgs,
    output: Output,
) -> Result<(), Failure> {
    let appended = append_event(&context.kafka, &context.registry, event)?;
    let effective = appended.outcome.is_effective();
    let awaited = if effective && wait.wait && appended.gone.is_none() {
        let event = &appended.event;
        let desired = event.version.as_ref().map(|version| Desired {
            version: version.clone(),
            revision: appended.revision,
        });
        Some(wait_for(
            context,
            &event.model,
            desired.as_ref(),
            appended.revision,
            wait.timeout,
        ))
    } else {
        None
    };
    let why = match &appended.outcome {
        Outcome::Effective => None,
        Outcome::Void(why) | Outcome::NotFollowed(why) => Some(why.as_str()),
    };
    let report = Report {
        schema: "swapstream.model-deployment/v1",
        revision: appended.revision,
        effective,
        event: &appended.event,
        why,
        winner: appended.winner.as_ref().map(|winner| Winner {
            revision: winner.revision,
            event: winner.event.as_ref(),
        }),
        converged: awaited.as_ref().map(Awaited::is_done),
        instances: awaited
            .as_ref()
            .map(|a| instances(&a.convergence))
            .unwrap_or_default(),
    };
    print(output, &report, || text(&appended, why, awaited.as_ref()))?;
    if let Some(gone) = appended.gone {
        return Err(Failure::Failed(gone));
    }
    match awaited {
        Some(awaited) if !awaited.is_done() => Err(Failure::Failed(awaited.failure())),
        _ if !effective => Err(Failure::Silent),
        _ => Ok(()),
    }
}

fn instances(convergence: &Convergence) -> Vec<Instance<'_>> {
    let done = convergence
        .done
        .iter()
        .map(|instance| (instance, "done", None));
    let waiting = convergence
        .waiting
        .iter()
        .map(|(i, why)| (i, "waiting", Some(why.as_str())));
    let refused = convergence
        .refused
        .iter()
        .map(|(i, why)| (i, "refused", Some(why.as_str())));
    done.chain(waiting)
        .chain(refused)
        .map(|(id, state, reason)| Instance { id, state, reason })
        .collect()
}

fn text(appended: &Appended, why: Option<&str>, awaited: Option<&Awaited>) -> String {
    let event = &appended.event;
    let what = match &event.version {
        Some(version) => format!("{} {version}", event.model),
        None => event.model.to_string(),
    };
    let (action, revision) = (event.action.as_str(), appended.revision);
    if let Some(why) = why {
        let winner = appended.winner.as_ref().map(won).unwrap_or_default();
        return format!("{action} of {what} has no effect (revision {revision}): {why}{winner}");
    }
    let text = format!("{action} of {what} is in the log at revision {revision}");
    match awaited.filter(|awaited| awaited.is_done()) {
        Some(awaited) => format!("{text}\ndone on {}", awaited.convergence.done.join(", ")),
        None => text,
    }
}

/// Who was first.
fn won(entry: &HistoryEntry) -> String {
    let Some(event) = &entry.event else {
        return String::new();
    };
    let version = event
        .version
        .as_ref()
        .map(|v| format!(" of version {v}"))
        .unwrap_or_default();
    let by = event
        .by
        .as_deref()
        .map(|by| format!(" by {by}"))
        .unwrap_or_default();
    let at = event
        .at
        .as_deref()
        .map(|at| format!(" at {at}"))
        .unwrap_or_default();
    format!("; it was the {}{version}{by}{at}", event.action.as_str())
}
