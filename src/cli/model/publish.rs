//! `swapstream model publish`: an ONNX file and its manifest become an immutable version.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;

use super::super::draft;
use super::source::{self, Source};
use super::{Context, Failure, Output, lineage, measure, sign, terminal, upload};
use crate::model::{
    Artifact, Digest, GOLDEN_INLINE_BYTES, GoldenFile, GoldenRow, Manifest, ModelName, Version,
};
use crate::registry::{Bundle, names_a_user, shown};
use crate::runtime::{self, OnnxSummary};

#[derive(Debug, Args)]
#[command(
    after_help = "Example: swapstream model publish models/flights/v1.onnx \\\n           \
    --manifest models/flights/v1.toml --model late-arrival --version 1\n\
    Where the file lies elsewhere: swapstream model publish --uri s3://models/v1.onnx \\\n           \
    --manifest models/flights/v1.toml"
)]
pub(super) struct PublishArgs {
    /// The ONNX file; without it, what lies at --uri is published.
    #[arg(required_unless_present = "uri")]
    file: Option<PathBuf>,
    /// The model's name; default: the manifest's.
    #[arg(long, value_name = "NAME")]
    model: Option<ModelName>,
    /// The version; default: the manifest's.
    #[arg(long, value_name = "V")]
    version: Option<Version>,
    /// The manifest, TOML or JSON; default: the one inside the ONNX file, else all is derived.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Golden rows, one {"input":{…},"outputs":{…}} a line, in addition to the manifest's. More than
    /// 64 KiB of them are kept as a file beside the artifact, named by its digest.
    #[arg(long, value_name = "ROWS.jsonl")]
    golden: Option<PathBuf>,
    /// Publish although this build cannot run it: for a registry that serves other builds.
    #[arg(long)]
    no_check: bool,
    /// Time the model with every runtime of this build that runs it rightly, and write the better
    /// one into the manifest.
    #[arg(long, conflicts_with = "no_check")]
    measure: bool,
    /// Where the file lies: instances read it from there, and not from Kafka. `file:///…`,
    /// `https://…` or `s3://bucket/key`; credentials and endpoint come from `AWS_…` variables.
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
    let limit = context.registry.max_artifact_bytes;
    let source = match (&args.file, &args.uri) {
        (Some(path), _) => source::file(path, limit)?,
        (None, Some(uri)) => source::address(uri, limit)?,
        (None, None) => {
            let why = "name the ONNX file, or where it lies with --uri";
            return Err(Failure::Usage(why.to_owned()));
        }
    };
    let name = &source.name;
    let (mut manifest, golden) = manifest(args, &source)?;
    let fail = |error: &dyn std::fmt::Display| Failure::Failed(format!("{name}: {error}"));
    let mut whole = manifest
        .with_golden_file(golden.as_deref().unwrap_or_default())
        .map_err(|error| fail(&error))?;
    let mut measured = Vec::new();
    if args.measure {
        measured = measure::choose(&source.bytes, &mut whole, limit)?;
        manifest.runtime = whole.runtime;
    } else if !args.no_check {
        upload::check(name, &source.bytes, &whole, limit)?;
    }
    if let Some(uri) = &args.uri {
        refer(args, uri, &manifest, context)?;
        manifest.artifact.uri = Some(uri.clone());
    }
    let inline = args.uri.is_none() || args.inline;
    let mut bundle = Bundle::new(&manifest, inline.then_some(source.bytes), golden)
        .map_err(|error| fail(&error))?;
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

/// Looks at the address that the manifest is to name: whether it is one, whether it leads to the very
/// file, and whether it may hold a secret.
fn refer(
    args: &PublishArgs,
    uri: &str,
    manifest: &Manifest,
    context: &Context,
) -> Result<(), Failure> {
    if uri.split(['?', '#']).count() > 1 && !uri.starts_with("file:") && !uri.starts_with("s3:") {
        terminal::note(
            "note: --uri has a query, which everybody who reads the registry sees and which stays \
             there; an address that needs no signature is better",
        );
    }
    if names_a_user(uri) {
        return Err(Failure::Failed(format!(
            "--uri {} holds a user or a password: everybody who reads the registry would have them",
            shown(uri)
        )));
    }
    if args.no_check || args.inline || args.file.is_none() {
        return Ok(());
    }
    source::at_address(uri, &manifest.artifact, &context.registry)
        .map(drop)
        .map_err(|error| {
            Failure::Failed(format!(
                "--uri: {error}; --no-check publishes it for instances that reach it"
            ))
        })
}

/// The manifest, and the golden file that it names.
fn manifest(args: &PublishArgs, source: &Source) -> Result<(Manifest, Option<Vec<u8>>), Failure> {
    let file = &source.name;
    let summary = match runtime::metadata(&source.bytes) {
        Ok(summary) => summary,
        Err(error) if args.no_check => {
            terminal::note(&format!("note: {file}: {error}; published unchecked"));
            nothing_known()
        }
        Err(error) => return Err(Failure::Failed(format!("{file}: {error}"))),
    };
    let mut draft = draft::load(args.manifest.as_deref(), &summary)?;
    let named = draft.checks.golden_file.take().map(PathBuf::from);
    if named.is_some() && args.manifest.is_none() {
        return Err(Failure::Failed(format!(
            "{file}: the manifest inside names a golden_file; give the rows with --golden"
        )));
    }
    let golden: Vec<&Path> = [&named, &args.golden]
        .into_iter()
        .filter_map(Option::as_deref)
        .collect();
    let golden = draft::golden_lines(&golden)?;
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
    lineage::fill(&mut draft.lineage, &summary, Path::new("."));
    let artifact = Artifact {
        digest: source.digest,
        bytes: source.bytes.len() as u64,
        uri: None,
    };
    let rows = GoldenRow::parse_lines(&golden).map_err(Failure::failed)?;
    let inline = golden.len() <= GOLDEN_INLINE_BYTES;
    let named = (!inline).then(|| GoldenFile {
        digest: Digest::of(&golden),
        bytes: golden.len() as u64,
        rows: rows.len() as u64,
    });
    let rows = if inline { rows } else { Vec::new() };
    let mut manifest = draft.finish(model, version, artifact, rows);
    manifest.checks.golden_file = named;
    // Before anything is uploaded: what is too large is named.
    manifest
        .to_json()
        .map_err(|error| Failure::Failed(format!("{file}: {error}")))?;
    Ok((manifest, (!inline).then_some(golden)))
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
