//! The fold over `model-versions`: which versions there are, what their manifests say and where
//! their artifacts lie. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::chunks::{CHUNKS_HEADER, ChunkError, ChunksHeader, GOLDEN_CHUNKS_HEADER};
use super::trust::{Trust, signature_header, signature_of};
use crate::model::{Digest, MANIFEST_MAX_BYTES, Manifest, ModelName, Version};
use crate::record::{Header, OwnedRecord};

/// A version as its newest record has it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What the record is.
    pub kind: EntryKind,
    /// The record's exact value, which a signature covers; empty in the catalog of an instance.
    pub raw: Arc<[u8]>,
    /// The record's offset.
    pub offset: i64,
    /// The record's timestamp, milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// The detached signature over [`Self::raw`], if the record carries one.
    pub signature: Option<Vec<u8>>,
    /// Why the signature does not let it serve, where one is required.
    pub untrusted: Option<String>,
    /// Where the artifact lies; `None` where the record does not say.
    pub chunks: Option<Result<ChunksHeader, ChunkError>>,
    /// Where the golden file lies; `None` where the record does not say.
    pub golden_chunks: Option<Result<ChunksHeader, ChunkError>>,
}

/// What the record of a version is.
#[derive(Debug, Clone)]
pub enum EntryKind {
    /// The version's manifest.
    Manifest(Arc<Manifest>),
    /// The version was deleted; its number never returns with other bytes.
    Deleted(Deletion),
    /// Nothing that this build can read, for this reason.
    Unreadable(String),
}

/// Value of `schema` in a deletion record.
pub const DELETION_SCHEMA: &str = "swapstream.deletion/v1";

/// What stands in a deleted version's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deletion {
    /// Always `swapstream.deletion/v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Always true.
    pub deleted: bool,
    /// Digest of what was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Entry {
    /// The chunk sets of the version, by the names of their headers.
    pub fn chunk_sets(&self) -> impl Iterator<Item = &Result<ChunksHeader, ChunkError>> {
        self.chunks.iter().chain(&self.golden_chunks)
    }

    /// The headers of its record, as far as a registry's own were read from it.
    pub(super) fn headers(&self) -> serde_json::Result<Vec<Header>> {
        let mut headers: Vec<Header> = self
            .signature
            .clone()
            .map(signature_header)
            .into_iter()
            .collect();
        let sets = [
            (CHUNKS_HEADER, &self.chunks),
            (GOLDEN_CHUNKS_HEADER, &self.golden_chunks),
        ];
        for (name, set) in sets {
            if let Some(Ok(header)) = set {
                headers.push(Header {
                    key: name.to_owned(),
                    value: Some(serde_json::to_vec(header)?),
                });
            }
        }
        Ok(headers)
    }

    /// The manifest, if the version has one that can be read.
    pub fn manifest(&self) -> Option<&Arc<Manifest>> {
        match &self.kind {
            EntryKind::Manifest(manifest) => Some(manifest),
            _ => None,
        }
    }

    fn read(
        model: &ModelName,
        version: &Version,
        record: &OwnedRecord,
        value: Vec<u8>,
        trust: &Trust,
    ) -> Self {
        let signature = signature_of(&record.headers);
        Self {
            untrusted: trust.admit(&value, signature.as_deref()).err(),
            signature,
            kind: kind(model, version, &value),
            raw: value.into(),
            offset: record.offset,
            timestamp: record.timestamp,
            chunks: chunks(&record.headers, CHUNKS_HEADER),
            golden_chunks: chunks(&record.headers, GOLDEN_CHUNKS_HEADER),
        }
    }
}

fn kind(model: &ModelName, version: &Version, value: &[u8]) -> EntryKind {
    if value.len() > MANIFEST_MAX_BYTES {
        return EntryKind::Unreadable(format!(
            "manifest has {} bytes, at most {MANIFEST_MAX_BYTES} are allowed",
            value.len()
        ));
    }
    if let Ok(deletion) = serde_json::from_slice::<Deletion>(value)
        && deletion.deleted
    {
        return EntryKind::Deleted(deletion);
    }
    match Manifest::from_json(value) {
        Ok(manifest) if manifest.model != *model || manifest.version != *version => {
            EntryKind::Unreadable(format!(
                "manifest is of {} {}, its key says {model} {version}",
                manifest.model, manifest.version
            ))
        }
        Ok(manifest) => EntryKind::Manifest(Arc::new(manifest)),
        Err(error) => EntryKind::Unreadable(error.to_string()),
    }
}

fn chunks(headers: &[Header], name: &str) -> Option<Result<ChunksHeader, ChunkError>> {
    // The last of several headers of one name counts, as in Kafka's own clients.
    let header = headers.iter().rfind(|header| header.key == name)?;
    Some(ChunksHeader::parse(header.value.as_deref()))
}

/// The key of a version's record.
pub fn version_key(model: &ModelName, version: &Version) -> Vec<u8> {
    format!("{model}/{version}").into_bytes()
}

/// The model and version that a record's key names.
pub fn parse_version_key(key: Option<&[u8]>) -> Option<(ModelName, Version)> {
    let (model, version) = std::str::from_utf8(key?).ok()?.split_once('/')?;
    Some((ModelName::new(model).ok()?, Version::new(version).ok()?))
}

/// The fold over `model-versions`.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    trust: Trust,
    /// Whether [`Entry::raw`] is left empty.
    lean: bool,
    models: BTreeMap<ModelName, BTreeMap<Version, Entry>>,
}

impl Catalog {
    /// No versions.
    pub fn new() -> Self {
        Self::default()
    }

    /// No versions; those that come are held against `trust`.
    pub fn trusting(trust: Trust) -> Self {
        Self {
            trust,
            ..Self::default()
        }
    }

    /// The same without the records' exact bytes, of which an instance needs nothing: those that cannot be
    /// read, or that nobody trusted has signed, may be large and many.
    pub(super) fn for_serving(trust: Trust) -> Self {
        Self {
            lean: true,
            ..Self::trusting(trust)
        }
    }

    /// Takes the next record; gives the version it belongs to, `None` if to none.
    pub fn apply(&mut self, record: OwnedRecord) -> Option<(ModelName, Version)> {
        let (model, version) = parse_version_key(record.key.as_deref())?;
        let mut record = record;
        if let Some(value) = record.value.take() {
            let mut entry = Entry::read(&model, &version, &record, value, &self.trust);
            if self.lean {
                entry.raw = Arc::default();
            }
            let versions = self.models.entry(model.clone()).or_default();
            versions.insert(version.clone(), entry);
        } else if let Some(versions) = self.models.get_mut(&model) {
            versions.remove(&version);
        }
        Some((model, version))
    }

    /// What is known of a version.
    pub fn get(&self, model: &ModelName, version: &Version) -> Option<&Entry> {
        self.models.get(model)?.get(version)
    }

    /// All versions of `model`, in the order of their publication.
    pub fn versions(&self, model: &ModelName) -> Vec<(&Version, &Entry)> {
        let mut all: Vec<_> = self.models.get(model).into_iter().flatten().collect();
        all.sort_by_key(|(_, entry)| entry.offset);
        all
    }

    /// All models that have a version.
    pub fn models(&self) -> impl Iterator<Item = &ModelName> {
        self.models
            .iter()
            .filter(|(_, versions)| !versions.is_empty())
            .map(|(model, _)| model)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{Artifact, ManifestDraft};

    pub(crate) fn manifest(model: &str, version: &str, artifact: &[u8]) -> Manifest {
        ManifestDraft::default().finish(
            ModelName::new(model).unwrap(),
            Version::new(version).unwrap(),
            Artifact {
                digest: Digest::of(artifact),
                bytes: artifact.len() as u64,
                uri: None,
            },
            Vec::new(),
        )
    }

    pub(crate) fn record(offset: i64, key: &str, value: Option<Vec<u8>>) -> OwnedRecord {
        OwnedRecord {
            topic: "model-versions".to_owned(),
            partition: 0,
            offset,
            timestamp: Some(0),
            key: Some(key.as_bytes().to_vec()),
            value,
            headers: Vec::new(),
        }
    }

    #[test]
    fn the_newest_record_of_a_version_counts() {
        let mut catalog = Catalog::new();
        let (model, version) = (ModelName::new("m").unwrap(), Version::new("1").unwrap());
        let json = manifest("m", "1", b"a").to_json().unwrap();
        let mut first = record(3, "m/1", Some(json.clone()));
        first.headers = vec![
            Header::text(CHUNKS_HEADER, "no"),
            Header::text(
                CHUNKS_HEADER,
                r#"{"schema":"swapstream.artifact-chunks/v1","upload":"u","count":1,"chunk_bytes":1024}"#,
            ),
        ];
        catalog.apply(first);
        let entry = catalog.get(&model, &version).unwrap();
        assert_eq!(&*entry.raw, &json[..]);
        assert_eq!(entry.chunks.as_ref().unwrap().as_ref().unwrap().upload, "u");
        assert!(entry.manifest().is_some());

        catalog.apply(record(
            4,
            "m/1",
            Some(br#"{"deleted":true,"by":"ann"}"#.to_vec()),
        ));
        let entry = catalog.get(&model, &version).unwrap();
        assert!(matches!(&entry.kind, EntryKind::Deleted(d) if d.by.as_deref() == Some("ann")));

        catalog.apply(record(5, "m/1", None));
        assert!(catalog.get(&model, &version).is_none());
        assert_eq!(catalog.models().count(), 0);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let mut catalog = Catalog::new();
        let json = manifest("m", "1", b"a").to_json().unwrap();
        let other = ModelName::new("m").unwrap();
        for (key, value, part) in [
            ("m/2", json.clone(), "its key says m 2"),
            ("m/3", b"{".to_vec(), "not a manifest"),
            ("m/4", vec![b' '; MANIFEST_MAX_BYTES + 1], "bytes"),
            (
                "m/5",
                br#"{"schema":"swapstream.manifest/v9"}"#.to_vec(),
                "v9",
            ),
        ] {
            let (_, version) = catalog.apply(record(0, key, Some(value))).unwrap();
            let entry = catalog.get(&other, &version).unwrap();
            assert!(
                matches!(&entry.kind, EntryKind::Unreadable(why) if why.contains(part)),
                "{key}: {:?}",
                entry.kind
            );
        }
        for key in ["m", "m/a/b", "/1", "m/"] {
            assert!(
                catalog.apply(record(0, key, Some(json.clone()))).is_none(),
                "{key}"
            );
        }
    }
}
