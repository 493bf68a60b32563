//! Reads what people write about a model: the manifest draft, by hand or inside the ONNX file,
//! and its golden rows.

use std::path::Path;

use super::Failure;
use crate::config::about;
use crate::model::{GOLDEN_MAX_BYTES, GoldenRow, METADATA_KEY, ManifestDraft};
use crate::runtime::OnnxSummary;

/// The draft of `manifest`, else the one inside the ONNX file, else an empty one; the path of its
/// `golden_file` is made one from here.
pub(crate) fn load(
    manifest: Option<&Path>,
    summary: &OnnxSummary,
) -> Result<ManifestDraft, Failure> {
    match manifest {
        Some(path) => read(path),
        None => match summary.metadata_props.get(METADATA_KEY) {
            Some(text) => ManifestDraft::from_json(text.as_bytes()).map_err(|error| {
                Failure::Failed(format!("metadata_props key {METADATA_KEY:?}: {error}"))
            }),
            None => Ok(ManifestDraft::default()),
        },
    }
}

/// Reads a draft: TOML, or JSON where the file's name ends in `.json`.
pub(crate) fn read(path: &Path) -> Result<ManifestDraft, Failure> {
    let fail =
        |error: &dyn std::fmt::Display| Failure::Failed(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| fail(&e))?;
    let json = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let draft = if json {
        ManifestDraft::from_json(text.as_bytes())
    } else {
        ManifestDraft::from_toml(&text)
    };
    let mut draft = draft.map_err(|e| fail(&e))?;
    if let Some(file) = &mut draft.checks.golden_file {
        let from_here = path.parent().unwrap_or(Path::new(".")).join(&*file);
        *file = from_here.to_string_lossy().into_owned();
    }
    Ok(draft)
}

/// The lines of files of golden rows, one after the other; what is no row is named with its place.
pub(crate) fn golden_lines(paths: &[&Path]) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    for path in paths {
        let fail =
            |error: &dyn std::fmt::Display| Failure::Failed(format!("{}: {error}", path.display()));
        let size = std::fs::metadata(path).map_err(|error| fail(&error))?.len();
        if size + all.len() as u64 > GOLDEN_MAX_BYTES {
            let limit = about(GOLDEN_MAX_BYTES);
            return Err(fail(&format!("more than {limit} of golden rows")));
        }
        let text = std::fs::read(path).map_err(|error| fail(&error))?;
        GoldenRow::parse_lines(&text).map_err(|error| fail(&error))?;
        if all.last().is_some_and(|last| *last != b'\n') {
            all.push(b'\n');
        }
        all.extend(text);
    }
    Ok(all)
}
