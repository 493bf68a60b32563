//! Artifacts by reference: reads what a manifest's `uri` names. What it says is verified like a
//! chunked artifact: size and digest are the manifest's, or the version is refused. What comes from
//! another machine is kept on this one.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use super::address::{Location, Remote, locate, shown};
use super::cache::ArtifactCache;
use super::fetch::{FetchError, FetchLimits, Watch};
#[cfg(feature = "object-store")]
use super::remote::download;
use crate::model::{Artifact, Digest, Hasher};

/// How much is read before it is asked again whether to go on.
const PIECE: usize = 1 << 20;

/// The artifact at `uri`, verified. `watch` is asked now and then. Without a cache it is read from
/// where it lies, whatever was kept of it before.
pub fn fetch_uri(
    uri: &str,
    artifact: &Artifact,
    cache: Option<&ArtifactCache>,
    limits: FetchLimits,
    watch: Watch<'_>,
) -> Result<Vec<u8>, FetchError> {
    let location = locate(uri).map_err(FetchError::Refused)?;
    let (wanted, limit) = (artifact.bytes, limits.max_bytes);
    if wanted > limit {
        return Err(FetchError::Refused(format!(
            "the artifact has {wanted} bytes, limits.max_artifact_bytes allows {limit}"
        )));
    }
    if wanted == 0 {
        let why = "the manifest says that the artifact has no bytes";
        return Err(FetchError::Refused(why.to_owned()));
    }
    match location {
        Location::File(path) => {
            let bytes = read_file(&path, wanted, limits, watch)?;
            verify(uri, artifact, Digest::of(&bytes))?;
            Ok(bytes)
        }
        Location::Remote(remote) => {
            match cache.and_then(|cache| cache.get(&artifact.digest, wanted)) {
                Some(bytes) => Ok(bytes),
                None => read_remote(uri, &remote, artifact, cache, limits, watch),
            }
        }
    }
}

fn verify(uri: &str, artifact: &Artifact, found: Digest) -> Result<(), FetchError> {
    if found == artifact.digest {
        return Ok(());
    }
    Err(FetchError::Elsewhere(format!(
        "the file at {:?} has digest {found}, the manifest says {}",
        shown(uri),
        artifact.digest
    )))
}

/// Reads from another machine, into memory and on the way into the cache.
fn read_remote(
    uri: &str,
    remote: &Remote,
    artifact: &Artifact,
    cache: Option<&ArtifactCache>,
    limits: FetchLimits,
    watch: Watch<'_>,
) -> Result<Vec<u8>, FetchError> {
    let no_memory = |error: &dyn std::fmt::Display| {
        let wanted = artifact.bytes;
        FetchError::Transient(format!("no memory for {wanted} bytes: {error}"))
    };
    let mut bytes = Vec::new();
    let size = usize::try_from(artifact.bytes).map_err(|error| no_memory(&error))?;
    bytes
        .try_reserve_exact(size)
        .map_err(|error| no_memory(&error))?;
    let mut hasher = Hasher::default();
    let mut incoming = cache.and_then(|cache| cache.begin(&artifact.digest, artifact.bytes));
    download(remote, Some(artifact.bytes), limits, watch, &mut |piece| {
        hasher.update(piece);
        bytes.extend_from_slice(piece);
        if let Some(incoming) = &mut incoming {
            incoming.write(piece);
        }
    })
    .map_err(|error| named(uri, error))?;
    verify(uri, artifact, hasher.finish())?;
    if let Some(incoming) = incoming {
        incoming.keep();
    }
    Ok(bytes)
}

fn named(uri: &str, error: FetchError) -> FetchError {
    let at = |why: String| format!("{:?}: {why}", shown(uri));
    match error {
        FetchError::Transient(why) => FetchError::Transient(at(why)),
        FetchError::Elsewhere(why) => FetchError::Elsewhere(at(why)),
        FetchError::Refused(why) => FetchError::Refused(at(why)),
        other => other,
    }
}

/// What lies at `uri` now, whatever it is: for the one who publishes it.
pub fn read_uri(uri: &str, limits: FetchLimits, watch: Watch<'_>) -> Result<Vec<u8>, FetchError> {
    match locate(uri).map_err(FetchError::Refused)? {
        Location::File(path) => {
            let found = std::fs::metadata(&path)
                .map_err(|error| FetchError::Transient(format!("{}: {error}", path.display())))?;
            let (bytes, limit) = (found.len(), limits.max_bytes);
            if bytes > limit {
                return Err(FetchError::Refused(format!(
                    "{} has {bytes} bytes, limits.max_artifact_bytes allows {limit}",
                    path.display()
                )));
            }
            read_file(&path, bytes, limits, watch)
        }
        Location::Remote(remote) => {
            let mut bytes = Vec::new();
            let mut take = |piece: &[u8]| bytes.extend_from_slice(piece);
            download(&remote, None, limits, watch, &mut take).map_err(|error| named(uri, error))?;
            Ok(bytes)
        }
    }
}

/// Without the feature no address leads to another machine.
#[cfg(not(feature = "object-store"))]
fn download(
    remote: &Remote,
    _: Option<u64>,
    _: FetchLimits,
    _: Watch<'_>,
    _: &mut dyn FnMut(&[u8]),
) -> Result<(), FetchError> {
    Err(FetchError::Refused(format!("{remote:?} cannot be read")))
}

fn read_file(
    path: &Path,
    wanted: u64,
    limits: FetchLimits,
    watch: Watch<'_>,
) -> Result<Vec<u8>, FetchError> {
    let deadline = Instant::now() + limits.max_time;
    let shown = path.display();
    let transient = |why: &dyn std::fmt::Display| FetchError::Transient(format!("{shown}: {why}"));
    // What is not there may be mounted, or copied, later.
    let mut file = File::open(path).map_err(|error| transient(&error))?;
    let found = file.metadata().map_err(|error| transient(&error))?;
    if !found.is_file() {
        return Err(FetchError::Refused(format!("{shown} is no regular file")));
    }
    if found.len() > wanted {
        let len = found.len();
        let why = format!("{shown} has {len} bytes, the manifest says {wanted}");
        return Err(FetchError::Refused(why));
    }
    if found.len() < wanted {
        let len = found.len();
        let why = format!("it has {len} bytes of {wanted}: is it being copied?");
        return Err(transient(&why));
    }
    let mut bytes = Vec::new();
    let size = usize::try_from(wanted).map_err(|error| transient(&error))?;
    bytes
        .try_reserve_exact(size)
        .map_err(|error| transient(&error))?;
    loop {
        if !watch(bytes.len() as u64) {
            return Err(FetchError::Cancelled);
        }
        if Instant::now() >= deadline {
            let seconds = limits.max_time.as_secs();
            return Err(transient(&format!("not read within {seconds} s")));
        }
        let piece = (&mut file).take(PIECE as u64);
        let read = { piece }
            .read_to_end(&mut bytes)
            .map_err(|error| transient(&error))?;
        if read == 0 {
            return Ok(bytes);
        }
        if bytes.len() > size {
            let why = format!("{shown} grows while it is read");
            return Err(FetchError::Transient(why));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::cache::CacheSettings;
    use super::*;

    const LIMITS: FetchLimits = FetchLimits {
        max_bytes: 1 << 20,
        max_time: Duration::from_mins(1),
    };

    #[test]
    fn only_the_very_file_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.onnx");
        let uri = format!("file://{}", path.display());
        let artifact = Artifact {
            digest: Digest::of(b"right"),
            bytes: 5,
            uri: Some(uri.clone()),
        };
        let cache = ArtifactCache::new(CacheSettings {
            directory: directory.path().join("cache"),
            max_bytes: 1 << 20,
        });
        let fetch = || fetch_uri(&uri, &artifact, Some(&cache), LIMITS, &|_| true);
        assert!(
            matches!(fetch(), Err(FetchError::Transient(_))),
            "not there yet"
        );
        std::fs::write(&path, b"rig").unwrap();
        assert!(matches!(fetch(), Err(FetchError::Transient(why)) if why.contains("3 bytes of 5")));
        std::fs::write(&path, b"right").unwrap();
        assert_eq!(fetch().unwrap(), b"right");
        std::fs::write(&path, b"wrong").unwrap();
        assert!(matches!(fetch(), Err(FetchError::Elsewhere(why)) if why.contains("digest")));
        std::fs::write(&path, b"longer").unwrap();
        assert!(matches!(fetch(), Err(FetchError::Refused(_))));
        let small = FetchLimits {
            max_bytes: 4,
            ..LIMITS
        };
        assert!(matches!(
            fetch_uri(&uri, &artifact, Some(&cache), small, &|_| true),
            Err(FetchError::Refused(why)) if why.contains("limits.max_artifact_bytes")
        ));
        let gone = fetch_uri(
            &uri,
            &Artifact {
                bytes: 6,
                ..artifact.clone()
            },
            Some(&cache),
            LIMITS,
            &|_| false,
        );
        assert!(matches!(gone, Err(FetchError::Cancelled)));
        let folder = format!("file://{}", directory.path().display());
        assert!(matches!(
            fetch_uri(&folder, &artifact, Some(&cache), LIMITS, &|_| true),
            Err(FetchError::Refused(_))
        ));
        assert!(
            !directory.path().join("cache").exists(),
            "it is here already"
        );
    }
}
