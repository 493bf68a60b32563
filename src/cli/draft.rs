//! Reads what people write about a model: the manifest draft, by hand or inside the ONNX file,
//! and its golden rows.

use std::path::Path;

use super::Failure;
use crate::model::{GoldenRow, METADATA_KEY, ManifestDraft};
use crate::runtime::OnnxSummary;

/// The draft of `manifest`, else the one inside the ONNX file, else an empty one; golden rows of
/// its `golden_file` are read into it.
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
    if let Some(file) = draft.checks.golden_file.take() {
        let file = path.parent().unwrap_or(Path::new(".")).join(file);
        draft.checks.golden.extend(golden_rows(&file)?);
    }
    Ok(draft)
}

/// Reads golden rows, one JSON object a line.
pub(crate) fn golden_rows(path: &Path) -> Result<Vec<GoldenRow>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| {
                Failure::Failed(format!("{}:{}: {error}", path.display(), index + 1))
            })
        })
        .collect()
}
