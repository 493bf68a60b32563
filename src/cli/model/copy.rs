//! `swapstream model copy`: a version goes from this registry into another one as it is.

use std::path::PathBuf;

use clap::Args;

use super::{Context, Failure, Output, export, upload};
use crate::config::Config;
use crate::model::{ModelName, Version};

#[derive(Debug, Args)]
#[command(
    after_help = "Manifest, digest and signature stay as they are. Variables of the environment \
                  count for the registry that is copied from; the other one is what its file says."
)]
pub(super) struct CopyArgs {
    /// The model.
    model: ModelName,
    /// The version.
    version: Version,
    /// Configuration file of the registry to copy to.
    #[arg(long, value_name = "CONFIG")]
    to: PathBuf,
    /// Copy although this build cannot run it: for a registry that serves other builds.
    #[arg(long)]
    no_check: bool,
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &CopyArgs, context: &Context) -> Result<(), Failure> {
    let (other, _) = Config::load_for_model_commands(Some(&args.to), [])
        .map_err(|errors| Failure::Usage(errors.to_string()))?;
    let bundle = export::fetch(context, &args.model, &args.version)?;
    if !args.no_check {
        let what = format!("{} {}", args.model, args.version);
        upload::check_bundle(&what, &bundle, &other.registry)?;
    }
    upload::put(&other.kafka, &other.registry, &bundle, &[], args.output)
}
