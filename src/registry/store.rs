//! Artifacts by reference: reads the file that a manifest's `uri` names. What it says is verified
//! like a chunked artifact: size and digest are the manifest's, or the version is refused.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::fetch::{FetchError, FetchLimits};
use crate::model::{Artifact, Digest};

/// How much is read before it is asked again whether to go on.
const PIECE: usize = 1 << 20;

/// The cargo feature that reads the other addresses.
const FEATURE: &str = "object-store";

/// Where an address leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// To a file of this machine, or of what is mounted on it.
    File(PathBuf),
}

/// Reads an address; why it leads nowhere.
pub fn locate(uri: &str) -> Result<Location, String> {
    let shown: String = uri.chars().take(200).collect();
    let scheme = uri
        .split_once(':')
        .map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("file") => file_path(uri)
            .map(Location::File)
            .ok_or_else(|| format!("{shown:?} is no file: expected file:///absolute/path")),
        Some("http" | "https" | "s3") => Err(format!(
            "the artifact lies at {shown:?}, and this build was made without the cargo feature {FEATURE:?}"
        )),
        _ => Err(format!(
            "the artifact lies at {shown:?}, which is no address that can be read: expected \
             file:///…"
        )),
    }
}

/// `file:///a/b` or `file://localhost/a/b`, with `%xx` for what an address may not hold.
fn file_path(uri: &str) -> Option<PathBuf> {
    let rest = uri.get(5..)?;
    let path = match rest.strip_prefix("//") {
        Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
        None => rest,
    };
    if !path.starts_with('/') {
        return None;
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut left = path.bytes();
    while let Some(byte) = left.next() {
        bytes.push(if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            u8::try_from(digit(left.next())? * 16 + digit(left.next())?).ok()?
        } else {
            byte
        });
    }
    if bytes.contains(&0) {
        return None;
    }
    Some(PathBuf::from(String::from_utf8(bytes).ok()?))
}

/// The artifact at `uri`, verified. `go_on` is asked now and then.
pub fn fetch_uri(
    uri: &str,
    artifact: &Artifact,
    limits: FetchLimits,
    go_on: &dyn Fn() -> bool,
) -> Result<Vec<u8>, FetchError> {
    let Location::File(path) = locate(uri).map_err(FetchError::Refused)?;
    let (wanted, limit) = (artifact.bytes, limits.max_bytes);
    if wanted > limit {
        return Err(FetchError::Refused(format!(
            "the artifact has {wanted} bytes, limits.max_artifact_bytes allows {limit}"
        )));
    }
    let bytes = read_file(&path, wanted, limits, go_on)?;
    let found = Digest::of(&bytes);
    if found != artifact.digest {
        return Err(FetchError::Elsewhere(format!(
            "the file at {uri:?} has digest {found}, the manifest says {}",
            artifact.digest
        )));
    }
    Ok(bytes)
}

fn read_file(
    path: &Path,
    wanted: u64,
    limits: FetchLimits,
    go_on: &dyn Fn() -> bool,
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
        if !go_on() {
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

    use super::*;

    const LIMITS: FetchLimits = FetchLimits {
        max_bytes: 1 << 20,
        max_time: Duration::from_mins(1),
    };

    #[test]
    fn addresses_are_read_or_refused_with_a_reason() {
        let file = |path: &str| Ok(Location::File(PathBuf::from(path)));
        assert_eq!(
            locate("file:///models/a%20b.onnx"),
            file("/models/a b.onnx")
        );
        assert_eq!(locate("FILE://localhost/m.onnx"), file("/m.onnx"));
        assert_eq!(locate("file:/m.onnx"), file("/m.onnx"));
        for (uri, part) in [
            ("s3://bucket/m.onnx", "\"object-store\""),
            ("https://host/m.onnx", "\"object-store\""),
            ("ftp://host/m.onnx", "no address that can be read"),
            ("m.onnx", "no address that can be read"),
            ("file:m.onnx", "expected file:///"),
            ("file://host/m.onnx", "expected file:///"),
            ("file:///a%zz", "expected file:///"),
            ("file:///a%00b", "expected file:///"),
            ("file:///a%c3", "expected file:///"),
        ] {
            let why = locate(uri).unwrap_err();
            assert!(why.contains(part), "{uri}: {why}");
        }
    }

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
        let fetch = || fetch_uri(&uri, &artifact, LIMITS, &|| true);
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
            fetch_uri(&uri, &artifact, small, &|| true),
            Err(FetchError::Refused(why)) if why.contains("limits.max_artifact_bytes")
        ));
        let gone = fetch_uri(
            &uri,
            &Artifact {
                bytes: 6,
                ..artifact.clone()
            },
            LIMITS,
            &|| false,
        );
        assert!(matches!(gone, Err(FetchError::Cancelled)));
        let folder = format!("file://{}", directory.path().display());
        assert!(matches!(
            fetch_uri(&folder, &artifact, LIMITS, &|| true),
            Err(FetchError::Refused(_))
        ));
    }
}
