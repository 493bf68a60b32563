//! `swapstream model publish`: an ONNX file and its manifest become an immutable version.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::super::draft;
use super::{Context, Failure, Output, lineage, measure, sign, terminal, upload};
use crate::config::about;
use crate::model::{Manifest, ModelName, Version};
use crate::registry::{Bundle, FetchLimits, fetch_uri, finish_manifest};
use crate::runtime::{self, OnnxSummary};

/// How long the file at `--uri` may take to be read.
const LOOK: Duration = Duration::from_mins(30);

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
    /// Time the model with every runtime of this build that runs it rightly, and write the better
    /// one into the manifest.
    #[arg(long, conflicts_with = "no_check")]
    measure: bool,
    /// Where the file lies: instances read it from there, `file:///…`, and not from Kafka.
    #[arg(long, value_name = "ADDRESS")]
    uri: Option<String>,
    /// With --uri: put the file into Kafka all the same; the address is kept as a note.
    #[arg(long, requires = "uri")]
    inline: bool,
    /// Sign the manifest with this minisign key; its password comes from
    /// `SWAPSTREAM_SIGN_PASSWORD`, or is asked for.
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
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
    let mut manifest = manifest(args, &bytes)?;
    let mut measured = Vec::new();
    if args.measure {
        measured = measure::choose(&bytes, &mut manifest, limit)?;
    }
    let fail = |error: &dyn std::fmt::Display| Failure::Failed(format!("{file}: {error}"));
    if !args.measure && !args.no_check {
        upload::check(&file.to_string(), &bytes, &manifest, limit)?;
    }
    if let Some(uri) = &args.uri {
        if !args.no_check && !args.inline {
            found_there(uri, &manifest, limit)?;
        }
        manifest.artifact.uri = Some(uri.clone());
    }
    let inline = args.uri.is_none() || args.inline;
    let mut bundle =
        Bundle::new(&manifest, inline.then_some(bytes)).map_err(|error| fail(&error))?;
    if let Some(key) = &args.sign {
        bundle = sign::sign(bundle, key)?;
    }
    upload::put(
        &context.kafka,
        &context.registry,
        &bundle,
        &measured,
        args.output,
    )
}

/// Whether the address leads to the very file that is published.
fn found_there(uri: &str, manifest: &Manifest, max_bytes: u64) -> Result<(), Failure> {
    let limits = FetchLimits {
        max_bytes,
        max_time: LOOK,
    };
    let found = fetch_uri(uri, &manifest.artifact, limits, &|| true);
    found.map(drop).map_err(|error| {
        Failure::Failed(format!(
            "--uri: {error}; --no-check publishes it for instances that reach it"
        ))
    })
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
