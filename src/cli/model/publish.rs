//! `swapstream model publish`: an ONNX file and its manifest become an immutable version.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::super::draft;
use super::{Context, Failure, Output, lineage, print, terminal};
use crate::config::about;
use crate::model::{Digest, Manifest, ModelName, Version};
use crate::registry::{Progress, PublishRequest, Published, finish_manifest, prepare, publish};
use crate::runtime::{self, OnnxSummary};

#[derive(Debug, Args)]
#[command(
    after_help = "Example: swapstream model publish models/flights/v1.onnx \\\n           \
    --manifest models/flights/v1.toml --model late-arrival --version 1"
)]
pub(super) struct PublishArgs {
    /// The ONNX file.
    file: PathBuf,
    /// The model's name; default: the manifest's.
    #[arg(long, value_name = "NAME")]
    model: Option<ModelName>,
    /// The version; default: the manifest's.
    #[arg(long, value_name = "V")]
    version: Option<Version>,
    /// The manifest, TOML or JSON; default: the one inside the ONNX file, else all is derived.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Golden rows, one {"input":{…},"outputs":{…}} a line, in addition to the manifest's.
    #[arg(long, value_name = "ROWS.jsonl")]
    golden: Option<PathBuf>,
    /// Publish although this build cannot run it: for a registry that serves other builds.
    #[arg(long)]
    no_check: bool,
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    model: &'a ModelName,
    version: &'a Version,
    digest: Digest,
    bytes: u64,
    outcome: &'static str,
    offset: i64,
    chunks: Option<u64>,
}

pub(super) fn run(args: &PublishArgs, context: &Context) -> Result<(), Failure> {
    let file = args.file.display();
    let bytes =
        std::fs::read(&args.file).map_err(|error| Failure::Failed(format!("{file}: {error}")))?;
    let limit = context.registry.max_artifact_bytes;
    if bytes.len() as u64 > limit {
        return Err(Failure::Failed(format!(
            "{file} has {}, limits.max_artifact_bytes allows {}",
            about(bytes.len() as u64),
            about(limit)
        )));
    }
    let manifest = manifest(args, &bytes)?;
    if !args.no_check {
        prepare(&bytes, &manifest, limit, &mut |_| {}).map_err(|refusal| {
            Failure::Failed(format!(
                "{file} would be refused, it is not {}: {}; --no-check publishes it all the same",
                refusal.stage, refusal.reason
            ))
        })?;
    }
    let request = PublishRequest {
        bytes: &bytes,
        manifest: &manifest,
    };
    let bar = bar(bytes.len() as u64);
    let published = publish(
        &context.kafka,
        &context.registry,
        &request,
        &mut |progress| match progress {
            Progress::TopicsCreated(topics) => {
                let topics = topics.join(", ");
                bar.suspend(|| terminal::note(&format!("created topics {topics}")));
            }
            Progress::Uploaded { bytes, .. } => bar.set_position(bytes),
            Progress::Committing => bar.set_message("committing"),
        },
    );
    bar.finish_and_clear();
    tell(args.output, &manifest, &published?)
}

fn manifest(args: &PublishArgs, bytes: &[u8]) -> Result<Manifest, Failure> {
    let file = args.file.display();
    let summary = match runtime::metadata(bytes) {
        Ok(summary) => summary,
        Err(error) if args.no_check => {
            terminal::note(&format!("note: {file}: {error}; published unchecked"));
            nothing_known()
        }
        Err(error) => return Err(Failure::Failed(format!("{file}: {error}"))),
    };
    let mut draft = draft::load(args.manifest.as_deref(), &summary)?;
    if draft.checks.golden_file.is_some() {
        return Err(Failure::Failed(format!(
            "{file}: the manifest inside names a golden_file; give the rows with --golden"
        )));
    }
    let missing =
        |what: &str| Failure::Usage(format!("neither --{what} nor the manifest names it"));
    let model = args
        .model
        .clone()
        .or(draft.model.take())
        .ok_or_else(|| missing("model"))?;
    let version = args
        .version
        .clone()
        .or(draft.version.take())
        .ok_or_else(|| missing("version"))?;
    let golden = match &args.golden {
        Some(path) => draft::golden_rows(path)?,
        None => Vec::new(),
    };
    lineage::fill(&mut draft.lineage, &summary, Path::new("."));
    let manifest = finish_manifest(draft, model, version, bytes, golden);
    // Before anything is uploaded: what is too large is named.
    manifest
        .to_json()
        .map_err(|error| Failure::Failed(format!("{file}: {error}")))?;
    Ok(manifest)
}

/// What a file that this build cannot read says about itself.
fn nothing_known() -> OnnxSummary {
    OnnxSummary {
        ir_version: 0,
        producer: String::new(),
        opsets: BTreeMap::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        operators: Vec::new(),
        initialiser_bytes: 0,
        metadata_props: BTreeMap::new(),
    }
}

fn bar(bytes: u64) -> ProgressBar {
    if !terminal::is_watched() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    let style = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {msg}";
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn tell(output: Output, manifest: &Manifest, published: &Published) -> Result<(), Failure> {
    let (outcome, offset, chunks) = match published {
        Published::New { offset, chunks } => ("published", *offset, Some(*chunks)),
        Published::Unchanged {
            offset,
            same_contract,
        } => {
            if !same_contract {
                terminal::note(
                    "note: the version is there with the same ONNX file and another manifest, \
                     which stays as it is; publish a new version to change it",
                );
            }
            ("unchanged", *offset, None)
        }
    };
    let (model, version, artifact) = (&manifest.model, &manifest.version, &manifest.artifact);
    let report = Report {
        schema: "swapstream.model-published/v1",
        model,
        version,
        digest: artifact.digest,
        bytes: artifact.bytes,
        outcome,
        offset,
        chunks,
    };
    print(output, &report, || match chunks {
        Some(_) => format!(
            "published {model} {version} ({}, {})\nto serve it: swapstream model deploy {model} \
             {version}",
            about(artifact.bytes),
            artifact.digest.short()
        ),
        None => format!(
            "{model} {version} is there already ({})",
            artifact.digest.short()
        ),
    })
}
