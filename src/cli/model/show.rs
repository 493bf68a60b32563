//! `swapstream model show`: one version, for people, for programs, or its exact bytes.

use std::fmt::Write as _;
use std::io::Write as _;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Context, Failure, Output, manifest_of, print, terminal, time};
use crate::config::about;
use crate::model::{FeatureSpec, Lineage, Manifest, ModelName, Version};
use crate::registry::{
    ChunksHeader, Entry, ModelLog, Standing, read_catalog, read_deployments_left, shown,
};

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The model.
    model: ModelName,
    /// The version.
    version: Version,
    /// Print the manifest's exact bytes and nothing else: what a signature covers.
    #[arg(long, conflicts_with = "output")]
    raw: bool,
    /// Print the manifest's signature as minisign writes it, and nothing else.
    #[arg(long, conflicts_with_all = ["output", "raw"])]
    signature: bool,
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    model: &'a ModelName,
    version: &'a Version,
    offset: i64,
    published_at: Option<String>,
    /// Revision of the event that deploys it now.
    deployed: Option<i64>,
    chunks: Option<&'a ChunksHeader>,
    /// `unsigned`, `trusted` or `untrusted`, by `registry.trusted_keys` of this configuration.
    signature: &'static str,
    manifest: &'a RawValue,
}

pub(super) fn run(args: &ShowArgs, context: &Context) -> Result<(), Failure> {
    let (model, version) = (&args.model, &args.version);
    let logs = context.logs();
    let catalog = read_catalog(&logs)?;
    let Some(entry) = catalog.get(model, version) else {
        return Err(Failure::Failed(format!(
            "there is no version {version} of {model}"
        )));
    };
    if args.raw {
        return terminal::written(std::io::stdout().lock().write_all(&entry.raw));
    }
    if args.signature {
        let Some(signature) = &entry.signature else {
            let text = format!("version {version} of {model} is not signed");
            return Err(Failure::Failed(text));
        };
        return terminal::written(std::io::stdout().lock().write_all(signature));
    }
    let manifest = manifest_of(&catalog, model, version)?;
    let log = read_deployments_left(&logs)?;
    let deployed = log
        .model(model)
        .and_then(ModelLog::desired)
        .filter(|candidate| candidate.version == *version)
        .map(|candidate| candidate.revision);
    let standing = context
        .registry
        .trust
        .look(&entry.raw, entry.signature.as_deref());
    let report = Report {
        schema: "swapstream.model-version/v1",
        model,
        version,
        offset: entry.offset,
        published_at: time(entry.timestamp),
        deployed,
        chunks: entry
            .chunks
            .as_ref()
            .and_then(|chunks| chunks.as_ref().ok()),
        signature: standing.as_str(),
        manifest: serde_json::from_slice(&entry.raw).map_err(Failure::failed)?,
    };
    print(args.output, &report, || {
        text(manifest, entry, deployed, &standing)
    })
}

fn text(manifest: &Manifest, entry: &Entry, deployed: Option<i64>, standing: &Standing) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string does not fail.
        _ = writeln!(out, "{name:<16} {value}");
    };
    let artifact = &manifest.artifact;
    line("model", manifest.model.to_string());
    line("version", manifest.version.to_string());
    line("digest", artifact.digest.to_string());
    line("size", about(artifact.bytes));
    if let Some(at) = time(entry.timestamp) {
        line("published", at);
    }
    line(
        "deployed",
        deployed.map_or_else(|| "no".to_owned(), |r| format!("revision {r}")),
    );
    match standing {
        Standing::Unsigned => line("signature", "none".to_owned()),
        Standing::Trusted { key, comment } => {
            line("signature", format!("by trusted key {key}: {comment}"));
        }
        Standing::Untrusted(why) => line("signature", format!("not trusted: {why}")),
    }
    match &entry.chunks {
        Some(Ok(chunks)) => line(
            "chunks",
            format!("{} of upload {}", chunks.count, chunks.upload),
        ),
        Some(Err(error)) => line("chunks", error.to_string()),
        None => line("chunks", "none".to_owned()),
    }
    if let Some(uri) = &artifact.uri {
        line("lies at", shown(uri));
    }
    line("runtime", manifest.runtime.as_str().to_owned());
    for input in &manifest.inputs {
        let features = input.features.iter().map(|feature| match feature {
            FeatureSpec::Name(name) | FeatureSpec::Detailed { name, .. } => name.as_str(),
        });
        let features = features.collect::<Vec<_>>().join(", ");
        line("input", format!("{}: {features}", input.name));
    }
    for output in &manifest.outputs {
        let rename = output
            .rename
            .as_ref()
            .map(|to| format!(" as {to}"))
            .unwrap_or_default();
        line("output", format!("{}{rename}", output.name));
    }
    lineage(&manifest.lineage, &mut line);
    let checks = &manifest.checks;
    if let Some(file) = &checks.golden_file {
        let (rows, size, digest) = (file.rows, about(file.bytes), file.digest);
        line("golden file", format!("{rows} rows, {size}, {digest}"));
    }
    if !checks.golden.is_empty() {
        let (rows, tolerance) = (checks.golden.len(), checks.tolerance);
        line("golden rows", format!("{rows}, tolerance {tolerance:e}"));
    }
    if let Some(budget) = &checks.latency {
        line(
            "latency",
            format!("{} ms for {} rows", budget.ms, budget.rows),
        );
    }
    out
}

fn lineage(lineage: &Lineage, line: &mut impl FnMut(&str, String)) {
    for data in &lineage.training_data {
        let rows = data
            .rows
            .map(|rows| format!(", {rows} rows"))
            .unwrap_or_default();
        let digest = data
            .digest
            .as_deref()
            .map(|d| format!(", {d}"))
            .unwrap_or_default();
        line(
            "training data",
            format!("{}{rows}{digest}", shown(&data.uri)),
        );
    }
    if let Some(code) = &lineage.code {
        let commit = code
            .commit
            .as_deref()
            .map(|c| format!(" {c}"))
            .unwrap_or_default();
        let dirty = if code.dirty == Some(true) {
            " (with changes)"
        } else {
            ""
        };
        line("code", format!("{}{commit}{dirty}", code.repository));
    }
    for (name, map) in [
        ("hyperparameters", &lineage.hyperparameters),
        ("metrics", &lineage.metrics),
        ("opsets", &lineage.opsets),
        ("onnx inputs", &lineage.onnx_inputs),
        ("onnx outputs", &lineage.onnx_outputs),
    ] {
        if !map.is_empty() {
            let pairs = map.iter().map(|(key, value)| match value {
                Value::String(text) => format!("{key} {text}"),
                other => format!("{key} {other}"),
            });
            line(name, pairs.collect::<Vec<_>>().join(", "));
        }
    }
    for (name, value) in [
        ("framework", &lineage.framework),
        ("run id", &lineage.run_id),
        ("author", &lineage.author),
        ("created", &lineage.created_at),
        ("onnx producer", &lineage.onnx_producer),
    ] {
        if let Some(value) = value {
            line(name, value.clone());
        }
    }
    if let Some(parent) = &lineage.parent {
        line("parent", parent.to_string());
    }
}
