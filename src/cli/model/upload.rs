//! Puts a whole version into a registry, with a progress bar for people, and tells how it ended:
//! what `publish`, `import` and `copy` have in common.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::measure::Measured;
use super::{Failure, Output, print, source, terminal};
use crate::config::about;
use crate::kafka::KafkaSettings;
use crate::model::{Digest, Manifest, ModelName, RuntimeKind, Version};
use crate::registry::{Bundle, Progress, Published, RegistrySettings, prepare, publish};

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
    signed: bool,
    runtime: RuntimeKind,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    measured: &'a [Measured],
}

/// Loads a version on trial, as an instance would.
pub(super) fn check(
    what: &str,
    artifact: &[u8],
    manifest: &Manifest,
    max_bytes: u64,
) -> Result<(), Failure> {
    prepare(artifact, manifest, max_bytes, &mut |_| {}).map_err(|refusal| {
        Failure::Failed(format!(
            "{what} would be refused, it is not {}: {}; --no-check publishes it all the same",
            refusal.stage, refusal.reason
        ))
    })?;
    Ok(())
}

/// The same for a version that comes from elsewhere. A file that is not with it is fetched from where
/// the manifest says that it lies.
pub(super) fn check_bundle(
    what: &str,
    bundle: &Bundle,
    registry: &RegistrySettings,
) -> Result<(), Failure> {
    let manifest = bundle.whole_manifest();
    let manifest =
        &manifest.map_err(|error| Failure::Failed(format!("{what}: the golden file: {error}")))?;
    let max_bytes = registry.max_artifact_bytes;
    match (bundle.artifact(), &manifest.artifact.uri) {
        (Some(artifact), _) => check(what, artifact, manifest, max_bytes),
        (None, Some(uri)) => {
            let artifact = source::at_address(uri, &manifest.artifact, registry);
            let artifact = artifact.map_err(|error| {
                Failure::Failed(format!(
                    "{what}: {error}; --no-check publishes it all the same"
                ))
            })?;
            check(what, &artifact, manifest, max_bytes)
        }
        (None, None) => Ok(()),
    }
}

/// Publishes and tells.
pub(super) fn put(
    kafka: &KafkaSettings,
    registry: &RegistrySettings,
    bundle: &Bundle,
    measured: &[Measured],
    output: Output,
) -> Result<(), Failure> {
    let bytes = |part: Option<&[u8]>| part.map_or(0, |bytes| bytes.len() as u64);
    let bar = bar(bytes(bundle.artifact()).max(bytes(bundle.golden())), "");
    let published = publish(kafka, registry, bundle, &mut |progress| match progress {
        Progress::TopicsCreated(topics) => {
            let topics = topics.join(", ");
            bar.suspend(|| terminal::note(&format!("created topics {topics}")));
        }
        Progress::Uploaded { bytes, .. } => bar.set_position(bytes),
        Progress::Committing => bar.set_message("committing"),
    });
    bar.finish_and_clear();
    tell(output, bundle, measured, &published?)
}

/// A bar of bytes, without an end where none is known; hidden where nobody watches.
pub(super) fn bar(bytes: u64, doing: &'static str) -> ProgressBar {
    if !terminal::is_watched() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    let style = match bytes {
        0 => "{bytes} {bytes_per_sec} {msg}",
        _ => "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {msg}",
    };
    let bar = match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    };
    bar.with_message(doing)
}

fn tell(
    output: Output,
    bundle: &Bundle,
    measured: &[Measured],
    published: &Published,
) -> Result<(), Failure> {
    let manifest = bundle.manifest();
    let (outcome, chunks, signed) = match published {
        Published::New { chunks, .. } => ("published", Some(*chunks), bundle.signature().is_some()),
        Published::Unchanged { same, signed, .. } => {
            if !same {
                terminal::note(
                    "note: the version is there with the same ONNX file and another manifest, \
                     address or signature, and stays as it is; publish a new version to change it",
                );
            }
            ("unchanged", None, *signed)
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
        offset: published.offset(),
        chunks,
        signed,
        runtime: manifest.runtime,
        measured,
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
