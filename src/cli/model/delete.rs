//! `swapstream model delete`: takes a version that nobody needs out of the registry.

use std::time::SystemTime;

use clap::Args;
use serde::Serialize;

use super::{Context, Failure, Output, lineage, now_ms, print};
use crate::model::{Digest, ModelName, Version};
use crate::registry::{Attribution, DeleteRequest, delete, rfc3339};

#[derive(Debug, Args)]
#[command(
    after_help = "What is deployed, or was within registry.retention, is not deleted. The number \
                  never returns with another file."
)]
pub(super) struct DeleteArgs {
    /// The model.
    model: ModelName,
    /// The version.
    version: Version,
    /// Why; kept in the deletion record.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who; default: the user of this process.
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    model: &'a ModelName,
    version: &'a Version,
    digest: Option<Digest>,
    outcome: &'static str,
    offset: i64,
    chunks: u64,
}

pub(super) fn run(args: &DeleteArgs, context: &Context) -> Result<(), Failure> {
    let (model, version) = (&args.model, &args.version);
    let request = DeleteRequest {
        model,
        version,
        who: Attribution {
            by: args.by.clone().or_else(lineage::user),
            reason: args.reason.clone(),
            at: rfc3339(SystemTime::now()),
        },
        now: now_ms(),
    };
    let deleted = delete(&context.kafka, &context.registry, &request)?;
    let outcome = if deleted.before {
        "unchanged"
    } else {
        "deleted"
    };
    let report = Report {
        schema: "swapstream.model-deleted/v1",
        model,
        version,
        digest: deleted.digest,
        outcome,
        offset: deleted.offset,
        chunks: deleted.chunks,
    };
    print(args.output, &report, || {
        if deleted.before {
            format!("{model} {version} was deleted before")
        } else {
            format!(
                "deleted {model} {version}; {} chunks are freed",
                deleted.chunks
            )
        }
    })
}
