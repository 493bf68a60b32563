//! Takes a whole version out of the registry, its digest verified.

use std::time::Duration;

use super::bundle::Bundle;
use super::catalog::{Entry, EntryKind};
use super::chunks::CHUNKS_HEADER;
use super::error::RegistryError;
use super::fetch::{FetchLimits, Watch, fetch};
use super::logs::RegistryLogs;

/// Longest time to fetch an artifact for a command.
const FETCH_TIMEOUT: Duration = Duration::from_mins(30);

/// The version of `entry` with the exact bytes of its manifest.
pub fn take_out(
    logs: &dyn RegistryLogs,
    entry: &Entry,
    max_bytes: u64,
    watch: Watch<'_>,
) -> Result<Bundle, RegistryError> {
    let refuse = |why: String| Err(RegistryError::Refused(why));
    let manifest = match &entry.kind {
        EntryKind::Manifest(manifest) => manifest,
        EntryKind::Deleted(_) => return refuse("the version was deleted".to_owned()),
        EntryKind::Unreadable(why) => return refuse(format!("the version cannot be read: {why}")),
    };
    let artifact = &manifest.artifact;
    let bytes = match &entry.chunks {
        Some(Ok(header)) => {
            let limits = FetchLimits {
                max_bytes,
                max_time: FETCH_TIMEOUT,
            };
            let fetched = fetch(
                logs,
                header,
                artifact.bytes,
                &artifact.digest,
                limits,
                watch,
            );
            Some(fetched.map_err(|error| RegistryError::Refused(error.to_string()))?)
        }
        Some(Err(error)) => return refuse(error.to_string()),
        None if artifact.uri.is_some() => None,
        None => {
            return refuse(format!(
                "the manifest's record has no header {CHUNKS_HEADER:?}"
            ));
        }
    };
    Ok(Bundle::of(
        entry.raw.to_vec(),
        entry.signature.clone(),
        bytes,
    )?)
}
