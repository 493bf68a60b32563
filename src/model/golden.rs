//! Golden rows as lines of JSON: a file of them beside the artifact, where they are too many for the
//! manifest. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Digest, GoldenRow, Manifest};

/// Rows of files up to this size, in bytes, are written into the manifest.
pub const GOLDEN_INLINE_BYTES: usize = 64 * 1024;

/// The largest file of golden rows, in bytes: all of it is scored at each load.
pub const GOLDEN_MAX_BYTES: u64 = 32 << 20;

/// A file of golden rows that lies beside the artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GoldenFile {
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Number of its rows.
    pub rows: u64,
}

/// Why a text is no golden rows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoldenFileError {
    /// A line is no row.
    #[error("line {line}: {message}")]
    Line {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// There are more or fewer rows than the manifest says.
    #[error("it has {found} rows, the manifest says {wanted}")]
    Rows {
        /// The rows that are there.
        found: u64,
        /// Those of the manifest.
        wanted: u64,
    },
}

impl GoldenRow {
    /// Reads rows, one JSON object a line. Empty lines are passed over.
    pub fn parse_lines(text: &[u8]) -> Result<Vec<Self>, GoldenFileError> {
        text.split(|byte| *byte == b'\n')
            .enumerate()
            .filter(|(_, line)| !line.trim_ascii().is_empty())
            .map(|(index, line)| {
                serde_json::from_slice(line).map_err(|error| GoldenFileError::Line {
                    line: index + 1,
                    message: error.to_string(),
                })
            })
            .collect()
    }
}

impl Manifest {
    /// The manifest with the rows of its golden file in it: what a version is checked by. `file` is
    /// that file, whose digest was verified; it counts for nothing where the manifest names none.
    pub fn with_golden_file(&self, file: &[u8]) -> Result<Self, GoldenFileError> {
        let mut whole = self.clone();
        if let Some(named) = whole.checks.golden_file.take() {
            let rows = GoldenRow::parse_lines(file)?;
            let found = rows.len() as u64;
            if found != named.rows {
                let wanted = named.rows;
                return Err(GoldenFileError::Rows { found, wanted });
            }
            whole.checks.golden.extend(rows);
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Artifact, ManifestDraft, ModelName, Version};
    use super::*;

    #[test]
    fn rows_come_out_of_their_lines_or_the_line_is_named() {
        let row = r#"{"input":{"a":1},"outputs":{"p":0.5}}"#;
        let text = format!("{row}\n\n  \r\n{row}\r\n{row}");
        assert_eq!(GoldenRow::parse_lines(text.as_bytes()).unwrap().len(), 3);
        assert!(GoldenRow::parse_lines(b"").unwrap().is_empty());
        for bad in [
            "{",
            "[]",
            r#"{"input":1}"#,
            r#"{"input":1,"outputs":{},"x":1}"#,
        ] {
            let error = GoldenRow::parse_lines(format!("{row}\n{bad}\n").as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with("line 2: "), "{error}");
        }
        assert!(GoldenRow::parse_lines(b"\xff").is_err());
    }

    #[test]
    fn a_file_counts_only_where_it_is_named_and_with_all_its_rows() {
        let artifact = Artifact {
            digest: Digest::of(b"x"),
            bytes: 1,
            uri: None,
        };
        let (model, version) = (ModelName::new("m").unwrap(), Version::new("1").unwrap());
        let mut manifest = ManifestDraft::default().finish(model, version, artifact, Vec::new());
        let text = b"{\"input\":{\"a\":1},\"outputs\":{}}\n";
        assert_eq!(manifest.with_golden_file(text).unwrap(), manifest);
        manifest.checks.golden_file = Some(GoldenFile {
            digest: Digest::of(text),
            bytes: text.len() as u64,
            rows: 1,
        });
        let whole = manifest.with_golden_file(text).unwrap();
        assert_eq!(whole.checks.golden.len(), 1);
        assert_eq!(whole.checks.golden_file, None);
        let error = manifest.with_golden_file(b"").unwrap_err().to_string();
        assert_eq!(error, "it has 0 rows, the manifest says 1");
        // It is read back by its name alone.
        let json = manifest.to_json().unwrap();
        assert_eq!(Manifest::from_json(&json).unwrap(), manifest);
    }
}
