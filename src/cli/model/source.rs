//! Where `model publish` takes the ONNX file from: a file here, or the address that the version is to
//! name. Long reading shows a bar.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use super::Failure;
use super::upload::bar;
use crate::config::about;
use crate::model::{Artifact, Digest, Hasher};
use crate::registry::{FetchError, FetchLimits, RegistrySettings, fetch_uri, read_uri, shown};

/// How long a command may take to fetch an artifact: somebody watches it, and may end it.
const FETCH_TIME: Duration = Duration::from_mins(30);

/// How much is read before the bar moves.
const PIECE: usize = 1 << 20;

/// An ONNX file and its digest.
pub(super) struct Source {
    /// What it is called in messages.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
}

/// Reads and hashes a file.
pub(super) fn file(path: &Path, limit: u64) -> Result<Source, Failure> {
    let name = path.display().to_string();
    let fail = |error: &dyn std::fmt::Display| Failure::Failed(format!("{name}: {error}"));
    let mut file = File::open(path).map_err(|error| fail(&error))?;
    let size = file.metadata().map_err(|error| fail(&error))?.len();
    if size > limit {
        return Err(fail(&format!(
            "it has {}, limits.max_artifact_bytes allows {}",
            about(size),
            about(limit)
        )));
    }
    let bar = bar(size, "reading");
    let mut bytes = Vec::new();
    let mut hasher = Hasher::default();
    loop {
        let start = bytes.len();
        let piece = (&mut file).take(PIECE as u64);
        let read = { piece }
            .read_to_end(&mut bytes)
            .map_err(|error| fail(&error))?;
        if read == 0 {
            break;
        }
        hasher.update(bytes.get(start..).unwrap_or_default());
        bar.set_position(bytes.len() as u64);
    }
    bar.finish_and_clear();
    Ok(Source {
        name,
        bytes,
        digest: hasher.finish(),
    })
}

/// Fetches and hashes what lies at an address.
pub(super) fn address(uri: &str, limit: u64) -> Result<Source, Failure> {
    let bar = bar(0, "fetching");
    let watch = |bytes: u64| {
        bar.set_position(bytes);
        true
    };
    let bytes = read_uri(uri, limits(limit), &watch);
    bar.finish_and_clear();
    let bytes = bytes.map_err(|error| Failure::Failed(format!("--uri: {error}")))?;
    Ok(Source {
        name: shown(uri),
        digest: Digest::of(&bytes),
        bytes,
    })
}

/// The very artifact of a manifest from its address, and not from what this machine has kept.
pub(super) fn at_address(
    uri: &str,
    artifact: &Artifact,
    registry: &RegistrySettings,
) -> Result<Vec<u8>, FetchError> {
    let bar = bar(artifact.bytes, "fetching");
    let watch = |bytes: u64| {
        bar.set_position(bytes);
        true
    };
    let limits = limits(registry.max_artifact_bytes);
    let bytes = fetch_uri(uri, artifact, None, limits, &watch);
    bar.finish_and_clear();
    bytes
}

fn limits(max_bytes: u64) -> FetchLimits {
    FetchLimits {
        max_bytes,
        max_time: FETCH_TIME,
    }
}
