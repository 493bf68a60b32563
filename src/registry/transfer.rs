//! Takes a whole version out of the registry, its digest verified.

use std::time::Duration;

use super::bundle::Bundle;
use super::catalog::{Entry, EntryKind};
use super::chunks::{CHUNKS_HEADER, ChunkError, ChunksHeader, GOLDEN_CHUNKS_HEADER};
use super::error::RegistryError;
use super::fetch::{FetchLimits, Watch, fetch};
use super::logs::RegistryLogs;
use crate::model::GOLDEN_MAX_BYTES;

/// Longest time to fetch an artifact for a command.
const FETCH_TIMEOUT: Duration = Duration::from_mins(30);

/// The version of `entry` with the exact bytes of its manifest.
pub fn take_out(
    logs: &dyn RegistryLogs,
    entry: &Entry,
    max_bytes: u64,
    watch: Watch<'_>,
) -> Result<Bundle, RegistryError> {
    let refuse = |why: String| Err(refuse_text(why));
    let manifest = match &entry.kind {
        EntryKind::Manifest(manifest) => manifest,
        EntryKind::Deleted(_) => return refuse("the version was deleted".to_owned()),
        EntryKind::Unreadable(why) => return refuse(format!("the version cannot be read: {why}")),
    };
    let (artifact, golden) = (&manifest.artifact, &manifest.checks.golden_file);
    let no_header =
        |name: &str| refuse_text(format!("the manifest's record has no header {name:?}"));
    let fetch = |set: &Result<ChunksHeader, ChunkError>, bytes, digest, max_bytes| {
        let header = set
            .as_ref()
            .map_err(|error| refuse_text(error.to_string()))?;
        let limits = FetchLimits {
            max_bytes,
            max_time: FETCH_TIMEOUT,
        };
        fetch(logs, header, bytes, digest, limits, watch)
            .map_err(|error| refuse_text(error.to_string()))
    };
    let bytes = match &entry.chunks {
        Some(set) => Some(fetch(set, artifact.bytes, &artifact.digest, max_bytes)?),
        None if artifact.uri.is_some() => None,
        None => return Err(no_header(CHUNKS_HEADER)),
    };
    let golden = match (golden, &entry.golden_chunks) {
        (None, _) => None,
        (Some(_), None) => return Err(no_header(GOLDEN_CHUNKS_HEADER)),
        (Some(file), Some(set)) => Some(fetch(set, file.bytes, &file.digest, GOLDEN_MAX_BYTES)?),
    };
    Ok(Bundle::of(
        entry.raw.to_vec(),
        entry.signature.clone(),
        bytes,
        golden,
    )?)
}

fn refuse_text(why: String) -> RegistryError {
    RegistryError::Refused(why)
}
