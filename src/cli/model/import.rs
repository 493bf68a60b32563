//! `swapstream model import`: puts an exported version into this registry as it is.

use std::io::BufReader;
use std::path::PathBuf;

use clap::Args;

use super::{Context, Failure, Output, upload};
use crate::registry::Bundle;

#[derive(Debug, Args)]
#[command(
    after_help = "Manifest, digest and signature stay as they are.\nExample: swapstream model \
                  import late-arrival-2.tar"
)]
pub(super) struct ImportArgs {
    /// What `model export` wrote.
    file: PathBuf,
    /// Import although this build cannot run it: for a registry that serves other builds.
    #[arg(long)]
    no_check: bool,
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &ImportArgs, context: &Context) -> Result<(), Failure> {
    let name = args.file.display();
    let fail = |error: &dyn std::fmt::Display| Failure::Failed(format!("{name}: {error}"));
    let limit = context.registry.max_artifact_bytes;
    let file = std::fs::File::open(&args.file).map_err(|error| fail(&error))?;
    let bundle = Bundle::read_from(BufReader::new(file), limit).map_err(|error| fail(&error))?;
    if !args.no_check {
        upload::check_bundle(&name.to_string(), &bundle, &context.registry)?;
    }
    upload::put(&context.kafka, &context.registry, &bundle, &[], args.output)
}
