//! `swapstream model rollback`: the version before serves again, or a named one; loaded on trial
//! first, so that a rollback does not end in a refusal.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;

use super::{Context, Failure, Output, WaitArgs, WhoArgs, deploy, terminal};
use crate::app::ChildProbe;
use crate::model::{ModelName, Version};
use crate::registry::{
    Catalog, LoadFailure, LoadJob, LoadSafety, RegistryLoader, read_catalog_trusting,
    read_deployments, rollback_event,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Without --to it walks the deployments back like a stack: 3, then 2, then 1.\n\
                  Example: swapstream model rollback late-arrival --reason 'too many alarms' --wait"
)]
pub(super) struct RollbackArgs {
    /// The model.
    model: ModelName,
    /// The version to return to; default: the one before.
    #[arg(long, value_name = "V")]
    to: Option<Version>,
    /// Do not load the version on trial first: for a registry that serves other builds.
    #[arg(long)]
    no_check: bool,
    #[command(flatten)]
    who: WhoArgs,
    #[command(flatten)]
    wait: WaitArgs,
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &RollbackArgs, context: &Context) -> Result<(), Failure> {
    let logs = context.logs();
    let (log, catalog) = (
        read_deployments(&logs)?,
        read_catalog_trusting(&logs, &context.registry.trust)?,
    );
    let event = rollback_event(
        &log,
        &catalog,
        &args.model,
        args.to.as_ref(),
        args.who.if_revision,
        args.who.attribution(),
    )?;
    if let Some(version) = event.version.as_ref().filter(|_| !args.no_check) {
        if terminal::is_watched() {
            terminal::note(&format!("loading {} {version} on trial", args.model));
        }
        try_load(context, &catalog, &args.model, version)?;
    }
    deploy::finish(context, event, &args.wait, args.output)
}

/// Fetches a version and loads it in a process of its own, as an instance would.
fn try_load(
    context: &Context,
    catalog: &Catalog,
    model: &ModelName,
    version: &Version,
) -> Result<(), Failure> {
    let Some(entry) = catalog.get(model, version) else {
        return Ok(());
    };
    let Some(manifest) = entry.manifest() else {
        return Ok(());
    };
    let probe =
        ChildProbe::of_this_program(context.probe, &context.runtime).map_err(Failure::failed)?;
    let loader = RegistryLoader::new(
        Arc::new(context.logs()),
        &context.registry,
        LoadSafety {
            probe: Some(Arc::new(probe)),
            ..LoadSafety::default()
        },
    );
    let job = LoadJob {
        revision: -1,
        manifest: Arc::clone(manifest),
        chunks: entry.chunks.clone(),
        golden_chunks: entry.golden_chunks.clone(),
        cancelled: Arc::new(AtomicBool::new(false)),
    };
    let why = match loader.verify(&job) {
        Ok(_) | Err(LoadFailure::Cancelled) => return Ok(()),
        Err(LoadFailure::Refused(refusal) | LoadFailure::Banned(refusal, _)) => format!(
            "version {version} of {model} would be refused, it is not {}: {}; name another with \
             --to, or --no-check rolls back all the same",
            refusal.stage, refusal.reason
        ),
        Err(LoadFailure::Transient(why)) => {
            format!("whether version {version} of {model} can be loaded cannot be told: {why}")
        }
    };
    Err(Failure::Failed(why))
}
