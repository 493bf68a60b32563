//! `swapstream model gc`: collects chunks that no manifest names and the status of instances that
//! are gone.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{Context, Failure, Output, duration, now_ms, print};
use crate::config::size;
use crate::registry::{CollectRequest, Collected, collect};

#[derive(Debug, Args)]
#[command(
    after_help = "An interrupted publication leaves chunks without a manifest; this frees them."
)]
pub(super) struct GcArgs {
    /// What is younger stays: somebody may be publishing.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    older_than: Duration,
    /// Only say what would go.
    #[arg(long)]
    dry_run: bool,
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    dry_run: bool,
    orphans: Vec<Orphan<'a>>,
    bytes: u64,
    kept: usize,
    instances: &'a [String],
}

#[derive(Serialize)]
struct Orphan<'a> {
    upload: &'a str,
    chunks: u64,
    bytes: u64,
}

pub(super) fn run(args: &GcArgs, context: &Context) -> Result<(), Failure> {
    let request = CollectRequest {
        older_than: args.older_than,
        dry_run: args.dry_run,
        now: now_ms(),
    };
    let collected = collect(&context.kafka, &context.registry, request)?;
    let report = report(&collected, args.dry_run);
    print(args.output, &report, || text(&report))
}

fn report(collected: &Collected, dry_run: bool) -> Report<'_> {
    let orphans = collected.orphans.iter().map(|orphan| Orphan {
        upload: &orphan.upload,
        chunks: orphan.chunks,
        bytes: orphan.bytes,
    });
    Report {
        schema: "swapstream.model-gc/v1",
        dry_run,
        orphans: orphans.collect(),
        bytes: collected.orphans.iter().map(|orphan| orphan.bytes).sum(),
        kept: collected.kept,
        instances: &collected.instances,
    }
}

fn text(report: &Report<'_>) -> String {
    let done = if report.dry_run {
        "would free"
    } else {
        "freed"
    };
    let mut text = format!(
        "{done} {} in {} uploads without a manifest; {} uploads stay",
        size(report.bytes),
        report.orphans.len(),
        report.kept
    );
    if !report.instances.is_empty() {
        let done = if report.dry_run {
            "would forget"
        } else {
            "forgot"
        };
        // Writing to a string does not fail.
        _ = write!(text, "\n{done} instances {}", report.instances.join(", "));
    }
    text
}
