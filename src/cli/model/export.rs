//! `swapstream model export`: writes a version with its exact manifest and its signature to a file.

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::{Context, Failure, Output, manifest_of, print, upload};
use crate::config::about;
use crate::model::{Digest, ModelName, Version};
use crate::registry::{Bundle, read_catalog, take_out};

#[derive(Debug, Args)]
#[command(
    after_help = "The file is a tar archive of manifest.json, manifest.json.minisig where the \
                  version is signed, model.onnx, and golden.jsonl where the manifest names a \
                  golden file.\nExample: swapstream model export \
                  late-arrival 2 -o late-arrival-2.tar"
)]
pub(super) struct ExportArgs {
    /// The model.
    model: ModelName,
    /// The version.
    version: Version,
    /// The file to write.
    #[arg(short = 'o', long, value_name = "FILE")]
    file: PathBuf,
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
    signed: bool,
    file: &'a Path,
}

pub(super) fn run(args: &ExportArgs, context: &Context) -> Result<(), Failure> {
    let (model, version) = (&args.model, &args.version);
    let bundle = fetch(context, model, version)?;
    write(&bundle, &args.file)
        .map_err(|error| Failure::Failed(format!("{}: {error}", args.file.display())))?;
    let artifact = &bundle.manifest().artifact;
    let report = Report {
        schema: "swapstream.model-exported/v1",
        model,
        version,
        digest: artifact.digest,
        bytes: artifact.bytes,
        signed: bundle.signature().is_some(),
        file: &args.file,
    };
    print(args.output, &report, || {
        format!(
            "exported {model} {version} ({}, {}) to {}",
            about(artifact.bytes),
            artifact.digest.short(),
            args.file.display()
        )
    })
}

/// A version out of the registry, verified.
pub(super) fn fetch(
    context: &Context,
    model: &ModelName,
    version: &Version,
) -> Result<Bundle, Failure> {
    let logs = context.logs();
    let catalog = read_catalog(&logs)?;
    manifest_of(&catalog, model, version)?;
    let Some(entry) = catalog.get(model, version) else {
        return Err(Failure::Failed(format!(
            "there is no version {version} of {model}"
        )));
    };
    let bytes = entry.manifest().map_or(0, |m| m.artifact.bytes);
    let bar = upload::bar(bytes, "fetching");
    let watch = |bytes: u64| {
        bar.set_position(bytes);
        true
    };
    let bundle = take_out(&logs, entry, context.registry.max_artifact_bytes, &watch);
    bar.finish_and_clear();
    bundle.map_err(|error| Failure::Failed(format!("version {version} of {model}: {error}")))
}

/// Under another name first, so that no half of a bundle ever has the right one.
fn write(bundle: &Bundle, file: &Path) -> std::io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = file.with_file_name(name);
    let written = std::fs::File::create_new(&part).and_then(|file| {
        let mut to = BufWriter::new(file);
        bundle.write_to(&mut to)?;
        to.flush()?;
        to.get_ref().sync_all()
    });
    let done = written.and_then(|()| std::fs::rename(&part, file));
    if done.is_err() {
        std::fs::remove_file(&part).ok();
    }
    done
}
