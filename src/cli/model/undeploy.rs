//! `swapstream model undeploy`: nothing of a model serves any more; its streams wait.

use clap::Args;

use super::{Context, Failure, Output, WaitArgs, WhoArgs, deploy};
use crate::model::ModelName;
use crate::registry::{read_deployments, undeploy_event};

#[derive(Debug, Args)]
pub(super) struct UndeployArgs {
    /// The model.
    model: ModelName,
    #[command(flatten)]
    who: WhoArgs,
    #[command(flatten)]
    wait: WaitArgs,
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &UndeployArgs, context: &Context) -> Result<(), Failure> {
    let log = read_deployments(&context.logs())?;
    let who = args.who.attribution();
    let event = undeploy_event(&log, &args.model, args.who.if_revision, who)?;
    deploy::finish(context, event, &args.wait, args.output)
}
