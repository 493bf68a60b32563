//! A version as it is moved about: the manifest's exact bytes, its signature, the ONNX file. As a
//! file it is a tar archive, so that other programs can look into it.
//!
//! | entry | |
//! |---|---|
//! | `manifest.json` | the manifest's exact bytes |
//! | `manifest.json.minisig` | its signature, where it has one |
//! | `model.onnx` | the artifact, unless it lies elsewhere |
//! | `golden.jsonl` | the golden file, where the manifest names one |

use std::io::{self, Read, Write};

use super::trust::signature_header;
use crate::model::{
    Digest, GOLDEN_MAX_BYTES, GoldenFileError, MANIFEST_MAX_BYTES, Manifest, ManifestError,
};

const MANIFEST_ENTRY: &str = "manifest.json";
const SIGNATURE_ENTRY: &str = "manifest.json.minisig";
const ARTIFACT_ENTRY: &str = "model.onnx";
const GOLDEN_ENTRY: &str = "golden.jsonl";

/// The largest signature that a bundle may hold.
const SIGNATURE_MAX_BYTES: u64 = 8 * 1024;

/// Why a bundle is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// It cannot be read.
    #[error("not a bundle: {0}")]
    Read(#[from] io::Error),
    /// An entry is not there.
    #[error("not a bundle: it has no entry {0:?}")]
    Missing(&'static str),
    /// An entry is there twice.
    #[error("not a bundle: entry {0:?} is there twice")]
    Twice(&'static str),
    /// An entry is larger than is allowed.
    #[error("entry {entry:?} has {bytes} bytes, at most {limit} are allowed")]
    TooLarge {
        /// The entry.
        entry: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The manifest is none.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The ONNX file, or the golden file, is not the manifest's.
    #[error(
        "{entry} has {found} ({found_bytes} bytes), the manifest says {wanted} ({bytes} bytes)"
    )]
    Altered {
        /// The entry.
        entry: &'static str,
        /// Digest of the file.
        found: Digest,
        /// Its size.
        found_bytes: u64,
        /// Digest by the manifest.
        wanted: Digest,
        /// Size by the manifest.
        bytes: u64,
    },
}

/// A whole version.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    manifest: Manifest,
    raw: Vec<u8>,
    signature: Option<Vec<u8>>,
    artifact: Option<Vec<u8>>,
    golden: Option<Vec<u8>>,
}

impl Bundle {
    /// A new version: the manifest's bytes are made here. An artifact that lies elsewhere is `None`,
    /// and so is the golden file of a manifest that names none.
    pub fn new(
        manifest: &Manifest,
        artifact: Option<Vec<u8>>,
        golden: Option<Vec<u8>>,
    ) -> Result<Self, BundleError> {
        let raw = manifest.to_json()?;
        Self::of(raw, None, artifact, golden)
    }

    /// From parts that were stored; they are held against each other.
    pub fn of(
        raw: Vec<u8>,
        signature: Option<Vec<u8>>,
        artifact: Option<Vec<u8>>,
        golden: Option<Vec<u8>>,
    ) -> Result<Self, BundleError> {
        let manifest = Manifest::from_json(&raw)?;
        let wanted = &manifest.artifact;
        match &artifact {
            None if wanted.uri.is_none() => return Err(BundleError::Missing(ARTIFACT_ENTRY)),
            None => {}
            Some(bytes) => verify(ARTIFACT_ENTRY, bytes, wanted.digest, wanted.bytes)?,
        }
        let golden = match (&manifest.checks.golden_file, golden) {
            (None, _) => None,
            (Some(_), None) => return Err(BundleError::Missing(GOLDEN_ENTRY)),
            (Some(wanted), Some(bytes)) => {
                verify(GOLDEN_ENTRY, &bytes, wanted.digest, wanted.bytes)?;
                Some(bytes)
            }
        };
        Ok(Self {
            manifest,
            raw,
            signature,
            artifact,
            golden,
        })
    }

    /// The same with a signature over [`Self::raw`].
    pub fn signed(mut self, signature: Vec<u8>) -> Self {
        self.signature = Some(signature);
        self
    }

    /// What the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest's exact bytes: what a signature covers.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The detached signature, as minisign writes it.
    pub fn signature(&self) -> Option<&[u8]> {
        self.signature.as_deref()
    }

    /// The ONNX file; `None` where it lies elsewhere.
    pub fn artifact(&self) -> Option<&[u8]> {
        self.artifact.as_deref()
    }

    /// The golden file, where the manifest names one.
    pub fn golden(&self) -> Option<&[u8]> {
        self.golden.as_deref()
    }

    /// The manifest with all golden rows in it: what the version is checked by.
    pub fn whole_manifest(&self) -> Result<Manifest, GoldenFileError> {
        let golden = self.golden().unwrap_or_default();
        self.manifest.with_golden_file(golden)
    }

    /// Writes the archive. The same version gives the same bytes.
    pub fn write_to(&self, to: impl Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(to);
        let mut put = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(0);
            archive.append_data(&mut header, name, bytes)
        };
        put(MANIFEST_ENTRY, &self.raw)?;
        if let Some(signature) = &self.signature {
            put(SIGNATURE_ENTRY, signature)?;
        }
        if let Some(artifact) = &self.artifact {
            put(ARTIFACT_ENTRY, artifact)?;
        }
        if let Some(golden) = &self.golden {
            put(GOLDEN_ENTRY, golden)?;
        }
        archive.into_inner()?.flush()
    }

    /// Reads an archive whose ONNX file has at most `max_bytes`. Other entries are passed over.
    pub fn read_from(from: impl Read, max_bytes: u64) -> Result<Self, BundleError> {
        let (mut raw, mut signature) = (None, None);
        let (mut artifact, mut golden) = (None, None);
        for entry in tar::Archive::new(from).entries()? {
            let mut entry = entry?;
            let path = entry.path_bytes().into_owned();
            let (name, limit, slot) = match path.as_slice() {
                b"manifest.json" => (MANIFEST_ENTRY, MANIFEST_MAX_BYTES as u64, &mut raw),
                b"manifest.json.minisig" => (SIGNATURE_ENTRY, SIGNATURE_MAX_BYTES, &mut signature),
                b"model.onnx" => (ARTIFACT_ENTRY, max_bytes, &mut artifact),
                b"golden.jsonl" => (GOLDEN_ENTRY, GOLDEN_MAX_BYTES, &mut golden),
                _ => continue,
            };
            let bytes = entry.size();
            if bytes > limit {
                return Err(BundleError::TooLarge {
                    entry: name,
                    bytes,
                    limit,
                });
            }
            let mut value = Vec::new();
            entry.read_to_end(&mut value)?;
            if slot.replace(value).is_some() {
                return Err(BundleError::Twice(name));
            }
        }
        let raw = raw.ok_or(BundleError::Missing(MANIFEST_ENTRY))?;
        Self::of(raw, signature, artifact, golden)
    }

    /// The headers of the manifest's record that say who signed it.
    pub(super) fn signature_header(&self) -> Option<crate::record::Header> {
        self.signature.clone().map(signature_header)
    }
}

fn verify(
    entry: &'static str,
    found: &[u8],
    wanted: Digest,
    bytes: u64,
) -> Result<(), BundleError> {
    let found_bytes = found.len() as u64;
    let found = Digest::of(found);
    if found == wanted && found_bytes == bytes {
        return Ok(());
    }
    Err(BundleError::Altered {
        entry,
        found,
        found_bytes,
        wanted,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::catalog::tests::manifest;
    use super::*;
    use crate::model::GoldenFile;

    fn archive(bundle: &Bundle) -> Vec<u8> {
        let mut bytes = Vec::new();
        bundle.write_to(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_no_bundle_is_refused() {
        let good = Bundle::new(&manifest("m", "1", b"onnx"), Some(b"onnx".to_vec()), None).unwrap();
        let bytes = archive(&good);
        assert_eq!(bytes, archive(&good), "the same bytes each time");
        let read = |bytes: &[u8]| Bundle::read_from(bytes, 1 << 20);
        assert!(matches!(
            Bundle::read_from(&*bytes, 3),
            Err(BundleError::TooLarge {
                entry: "model.onnx",
                ..
            })
        ));
        assert!(read(b"").is_err());
        assert!(read(&[0x50; 2000]).is_err());
        let raw = good.raw().to_vec();
        assert!(matches!(
            Bundle::of(raw.clone(), None, Some(b"onnY".to_vec()), None),
            Err(BundleError::Altered { .. })
        ));
        assert!(matches!(
            Bundle::of(raw.clone(), None, None, None),
            Err(BundleError::Missing("model.onnx"))
        ));
        let mut twice = archive(&good);
        // Without the two empty blocks that end the archive.
        twice.truncate(twice.len() - 1024);
        twice.extend(archive(&good));
        assert!(matches!(read(&twice), Err(BundleError::Twice(_))));
        let mut elsewhere = manifest("m", "1", b"onnx");
        elsewhere.artifact.uri = Some("file:///models/1.onnx".to_owned());
        assert!(Bundle::new(&elsewhere, None, None).is_ok());
    }

    proptest! {
        #[test]
        fn a_bundle_reads_back(
            artifact in prop::collection::vec(any::<u8>(), 1..3000),
            signature in prop::option::of(prop::collection::vec(any::<u8>(), 0..400)),
            golden in prop::option::of(prop::collection::vec(any::<u8>(), 0..400)),
            spaces in 0..5_usize,
        ) {
            // Bytes that this program would not have written stay as they are.
            let mut manifest = manifest("m", "1", &artifact);
            manifest.checks.golden_file = golden.as_ref().map(|golden| GoldenFile {
                digest: Digest::of(golden),
                bytes: golden.len() as u64,
                rows: 0,
            });
            let mut raw = manifest.to_json().unwrap();
            raw.extend(vec![b' '; spaces]);
            let made = |golden| Bundle::of(raw.clone(), signature.clone(), Some(artifact.clone()), golden);
            if golden.is_some() {
                prop_assert!(matches!(made(None), Err(BundleError::Missing("golden.jsonl"))));
                let other = Some(b"other".to_vec());
                let altered = matches!(made(other), Err(BundleError::Altered { .. }));
                prop_assert!(altered);
            }
            let bundle = made(golden.clone()).unwrap();
            let back = Bundle::read_from(&*archive(&bundle), 1 << 20).unwrap();
            prop_assert_eq!(&back, &bundle);
            prop_assert_eq!(back.raw(), &*raw);
            prop_assert_eq!(back.signature(), signature.as_deref());
            prop_assert_eq!(back.golden(), golden.as_deref());
        }

        #[test]
        fn a_cut_or_altered_archive_never_gives_another_version(at in any::<prop::sample::Index>(), flip in any::<bool>()) {
            let bundle = Bundle::new(&manifest("m", "1", b"onnx"), Some(b"onnx".to_vec()), None).unwrap();
            let mut bytes = archive(&bundle);
            let at = at.index(bytes.len());
            if flip { bytes[at] ^= 1 } else { bytes.truncate(at) }
            if let Ok(back) = Bundle::read_from(&*bytes, 1 << 20) {
                prop_assert_eq!(back.artifact(), bundle.artifact());
                prop_assert_eq!(back.manifest().artifact.digest, bundle.manifest().artifact.digest);
            }
        }
    }
}
