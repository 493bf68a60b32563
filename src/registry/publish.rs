//! Publishing a version: chunks first, then the manifest as the commit point.

use std::time::SystemTime;

use super::bundle::Bundle;
use super::catalog::{Catalog, Entry, EntryKind, parse_version_key};
use super::chunks::{
    CHUNK_BYTES, CHUNKS_HEADER, CHUNKS_SCHEMA, ChunksHeader, GOLDEN_CHUNKS_HEADER, chunk_count,
    chunk_key,
};
use super::decided::wait_until_decided;
use super::error::RegistryError;
use super::logs::{KafkaLogs, REQUEST_TIMEOUT, Reading, RegistryLogs, read_to_end};
use super::replace::{Replacement, replace};
use super::settings::RegistrySettings;
use super::topics::{RegistryTopic, ensure_topics};
use super::trust::Trust;
use crate::kafka::{KafkaSettings, LogStart, Publisher};
use crate::model::{Artifact, Digest, GoldenRow, Manifest, ManifestDraft, ModelName, Version};
use crate::record::{Header, OutRecord};

/// What is done, told while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// These topics were missing and are there now.
    TopicsCreated(Vec<String>),
    /// So many of the artifact's bytes are acknowledged.
    Uploaded {
        /// Bytes so far.
        bytes: u64,
        /// All bytes.
        of: u64,
    },
    /// The chunks are there; the manifest follows.
    Committing,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// The version is there now.
    New {
        /// Offset of its manifest.
        offset: i64,
        /// Number of chunks.
        chunks: u64,
    },
    /// It was there before, with the same artifact; nothing was written.
    Unchanged {
        /// Offset of its manifest.
        offset: i64,
        /// Whether what is there says the same about running the model and where the artifact lies,
        /// and is signed where this one is.
        same: bool,
        /// Whether what is there is signed.
        signed: bool,
    },
}

impl Published {
    /// Offset of the version's manifest.
    pub fn offset(&self) -> i64 {
        match self {
            Self::New { offset, .. } | Self::Unchanged { offset, .. } => *offset,
        }
    }
}

/// The manifest of `bytes`, complete.
pub fn finish_manifest(
    draft: ManifestDraft,
    model: ModelName,
    version: Version,
    bytes: &[u8],
    golden: Vec<GoldenRow>,
) -> Manifest {
    let artifact = Artifact {
        digest: Digest::of(bytes),
        bytes: bytes.len() as u64,
        uri: None,
    };
    draft.finish(model, version, artifact, golden)
}

/// Publishes a version. A second time with the same artifact it does nothing; interrupted at any
/// point, it can be run again.
pub fn publish(
    kafka: &KafkaSettings,
    settings: &RegistrySettings,
    bundle: &Bundle,
    progress: &mut dyn FnMut(Progress),
) -> Result<Published, RegistryError> {
    let manifest = bundle.manifest();
    if let Err(why) = settings.trust.admit(bundle.raw(), bundle.signature()) {
        let Manifest { model, version, .. } = manifest;
        return Err(RegistryError::Refused(format!(
            "version {version} of {model} would not be served: {why}"
        )));
    }
    let created = ensure_topics(kafka, settings, REQUEST_TIMEOUT)?;
    if !created.is_empty() {
        progress(Progress::TopicsCreated(created));
    }
    let logs = KafkaLogs::new(kafka.clone(), settings.clone());
    let (model, version) = (&manifest.model, &manifest.version);
    let there = || {
        compare(
            find(&logs, model, version)?.as_ref(),
            bundle,
            &settings.trust,
        )
    };
    // Asked before the upload to spare it. That nothing is there is no answer yet: only that inside of
    // the transaction counts.
    if there()?.is_some() {
        wait_until_decided(&logs, RegistryTopic::Versions)?;
        if let Some(done) = there()? {
            return Ok(done);
        }
    }
    let mut headers: Vec<Header> = bundle.signature_header().into_iter().collect();
    let mut chunks = 0;
    let sets = [
        (CHUNKS_HEADER, bundle.artifact()),
        (GOLDEN_CHUNKS_HEADER, bundle.golden()),
    ];
    for (name, bytes) in sets {
        let Some(bytes) = bytes else { continue };
        let header = upload(kafka, settings, bytes, progress)?;
        chunks += header.count;
        headers.push(Header {
            key: name.to_owned(),
            value: Some(serde_json::to_vec(&header)?),
        });
    }
    progress(Progress::Committing);
    let record = Replacement {
        value: bundle.raw().to_vec(),
        headers,
    };
    let found = std::cell::Cell::new(None);
    let offset = replace(kafka, settings, &logs, model, version, record, &|| {
        let there = there()?;
        let offset = there.as_ref().map(Published::offset);
        found.set(there);
        Ok(offset)
    })?;
    Ok(found
        .into_inner()
        .unwrap_or(Published::New { offset, chunks }))
}

fn upload(
    kafka: &KafkaSettings,
    settings: &RegistrySettings,
    artifact: &[u8],
    progress: &mut dyn FnMut(Progress),
) -> Result<ChunksHeader, RegistryError> {
    let upload = uuid::Uuid::new_v4().to_string();
    let total = artifact.len() as u64;
    let records = (0..)
        .zip(artifact.chunks(CHUNK_BYTES as usize))
        .map(|(index, chunk)| OutRecord {
            topic: settings.artifacts_topic.clone(),
            partition: Some(0),
            key: Some(chunk_key(&upload, index)),
            value: Some(chunk.to_vec()),
            ..OutRecord::default()
        });
    let offsets = Publisher::idempotent(kafka)?.send_all(records, &mut |acknowledged| {
        let bytes = (acknowledged as u64 * u64::from(CHUNK_BYTES)).min(total);
        progress(Progress::Uploaded { bytes, of: total });
    })?;
    Ok(ChunksHeader {
        schema: CHUNKS_SCHEMA.to_owned(),
        count: chunk_count(total, CHUNK_BYTES),
        chunk_bytes: CHUNK_BYTES,
        first_offset: offsets.iter().min().copied(),
        last_offset: offsets.iter().max().copied(),
        upload,
    })
}

/// The newest record of a version.
pub(super) fn find(
    logs: &dyn RegistryLogs,
    model: &ModelName,
    version: &Version,
) -> Result<Option<Entry>, RegistryError> {
    let mut catalog = Catalog::new();
    let mut log = logs.open(RegistryTopic::Versions, LogStart::Beginning)?;
    let name = format!("topic {:?}", logs.name(RegistryTopic::Versions));
    read_to_end(&mut *log, &name, &mut |record| {
        let of = parse_version_key(record.key.as_deref());
        if of.is_some_and(|(m, v)| m == *model && v == *version) {
            catalog.apply(record);
        }
        Reading::GoOn
    })?;
    Ok(catalog.get(model, version).cloned())
}

/// What is there, held against what is to be published; `None`: nothing is there.
fn compare(
    found: Option<&Entry>,
    bundle: &Bundle,
    trust: &Trust,
) -> Result<Option<Published>, RegistryError> {
    let Some(entry) = found else { return Ok(None) };
    let manifest = bundle.manifest();
    let taken = |reason: String| RegistryError::Taken {
        model: manifest.model.to_string(),
        version: manifest.version.to_string(),
        reason,
    };
    match &entry.kind {
        EntryKind::Manifest(there) if there.artifact.digest == manifest.artifact.digest => {
            // What is given may be signed, and what is there not.
            if let Err(why) = trust.admit(&entry.raw, entry.signature.as_deref()) {
                return Err(taken(format!(
                    "it is there with the same ONNX file, and would not be served: {why}"
                )));
            }
            let signed = entry.signature.is_some();
            Ok(Some(Published::Unchanged {
                offset: entry.offset,
                same: there.runtime == manifest.runtime
                    && there.inputs == manifest.inputs
                    && there.outputs == manifest.outputs
                    && there.checks == manifest.checks
                    && there.artifact.uri == manifest.artifact.uri
                    && (signed || bundle.signature().is_none()),
                signed,
            }))
        }
        EntryKind::Manifest(there) => Err(RegistryError::Conflict {
            model: manifest.model.to_string(),
            version: manifest.version.to_string(),
            found: there.artifact.digest,
            given: manifest.artifact.digest,
        }),
        EntryKind::Deleted(deletion) => {
            let by = deletion
                .by
                .as_deref()
                .map(|by| format!(" by {by}"))
                .unwrap_or_default();
            let at = deletion
                .at
                .as_deref()
                .map(|at| format!(" at {at}"))
                .unwrap_or_default();
            Err(taken(format!(
                "it was deleted{by}{at}, and its number never returns"
            )))
        }
        EntryKind::Unreadable(why) => Err(taken(format!(
            "the record at offset {} has its key and is no manifest: {why}",
            entry.offset
        ))),
    }
}

/// This moment, RFC 3339.
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::catalog::tests::{manifest, record};
    use super::*;

    fn there(value: Vec<u8>) -> Entry {
        let mut catalog = Catalog::new();
        let (model, version) = catalog.apply(record(4, "m/1", Some(value))).unwrap();
        catalog.get(&model, &version).cloned().unwrap()
    }

    #[test]
    fn what_is_there_decides() {
        let bundle =
            |manifest: &Manifest| Bundle::new(manifest, Some(b"bytes".to_vec()), None).unwrap();
        let new = manifest("m", "1", b"bytes");
        let given = bundle(&new);
        let any = Trust::default();
        assert_eq!(compare(None, &given, &any).unwrap(), None);
        let same = there(new.to_json().unwrap());
        let unchanged = |bundle: &Bundle| compare(Some(&same), bundle, &any).unwrap().unwrap();
        let told = |same| Published::Unchanged {
            offset: 4,
            same,
            signed: false,
        };
        assert_eq!(unchanged(&given), told(true));
        let mut other_checks = new.clone();
        other_checks.checks.tolerance = 0.5;
        assert_eq!(unchanged(&bundle(&other_checks)), told(false));
        let mut elsewhere = new.clone();
        elsewhere.artifact.uri = Some("file:///models/m.onnx".to_owned());
        assert_eq!(unchanged(&bundle(&elsewhere)), told(false));
        assert_eq!(
            unchanged(&given.clone().signed(b"sig".to_vec())),
            told(false)
        );
        let required = Trust {
            required: true,
            ..Trust::default()
        };
        let error = compare(Some(&same), &given, &required).unwrap_err();
        assert!(error.to_string().contains("would not be served"), "{error}");
        let other = there(manifest("m", "1", b"other").to_json().unwrap());
        assert!(matches!(
            compare(Some(&other), &given, &any),
            Err(RegistryError::Conflict { .. })
        ));
        for value in [br#"{"deleted":true}"#.to_vec(), b"{".to_vec()] {
            let error = compare(Some(&there(value)), &given, &any).unwrap_err();
            assert!(matches!(error, RegistryError::Taken { .. }), "{error}");
        }
    }

    #[test]
    fn the_version_is_looked_up_among_others() {
        use super::super::logs::fake::FakeLogs;
        let logs = FakeLogs::default();
        for version in ["1", "2"] {
            let json = manifest("m", version, b"x").to_json().unwrap();
            let key = format!("m/{version}");
            logs.append(
                RegistryTopic::Versions,
                key.as_bytes(),
                Some(json),
                Vec::new(),
            );
            logs.marker(RegistryTopic::Versions);
        }
        let found = |version: &str| {
            let model = ModelName::new("m").unwrap();
            find(&logs, &model, &Version::new(version).unwrap()).unwrap()
        };
        assert_eq!(found("2").unwrap().offset, 2);
        assert!(found("3").is_none());
    }
}
