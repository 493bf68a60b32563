//! Deleting a version: its manifest is replaced by a deletion record, under the version's own
//! transactional id, then its chunks are tombstoned. The number never returns with other bytes.

use std::time::Duration;

use super::catalog::{DELETION_SCHEMA, Deletion, Entry, EntryKind};
use super::chunks::chunk_count;
use super::error::RegistryError;
use super::logs::{KafkaLogs, RegistryLogs};
use super::operate::Attribution;
use super::publish::find;
use super::read::{read_catalog, read_deployments, read_fleet};
use super::replace::{Replacement, replace};
use super::retention::Question;
use super::settings::RegistrySettings;
use super::topics::RegistryTopic;
use crate::kafka::{KafkaSettings, Publisher};
use crate::model::{Digest, ModelName, Version};
use crate::record::OutRecord;

/// A version to delete.
#[derive(Debug)]
pub struct DeleteRequest<'a> {
    /// The model.
    pub model: &'a ModelName,
    /// The version.
    pub version: &'a Version,
    /// Who deletes it, and why.
    pub who: Attribution,
    /// This moment, milliseconds since 1970.
    pub now: i64,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// Digest of what was deleted.
    pub digest: Option<Digest>,
    /// Offset of the deletion record.
    pub offset: i64,
    /// Number of chunks that were tombstoned.
    pub chunks: u64,
    /// It had been deleted before; nothing was written.
    pub before: bool,
}

/// Deletes a version that is not needed.
pub fn delete(
    kafka: &KafkaSettings,
    settings: &RegistrySettings,
    request: DeleteRequest<'_>,
) -> Result<Deleted, RegistryError> {
    let logs = KafkaLogs::new(kafka.clone(), settings.clone());
    logs.check(&RegistryTopic::ALL)?;
    let (model, version) = (request.model, request.version);
    let catalog = read_catalog(&logs)?;
    let Some(entry) = catalog.get(model, version) else {
        let why = format!("there is no version {version} of {model}");
        return Err(RegistryError::NotThere(why));
    };
    let digest = match &entry.kind {
        EntryKind::Deleted(deletion) => {
            return Ok(Deleted {
                digest: deletion.digest,
                offset: entry.offset,
                chunks: 0,
                before: true,
            });
        }
        EntryKind::Manifest(manifest) => Some(manifest.artifact.digest),
        EntryKind::Unreadable(_) => None,
    };
    refuse_if_kept(&logs, &request, settings.retention)?;
    let deletion = Deletion {
        schema: Some(DELETION_SCHEMA.to_owned()),
        deleted: true,
        digest,
        at: Some(request.who.at),
        by: request.who.by,
        reason: request.who.reason,
    };
    let record = Replacement {
        value: serde_json::to_vec(&deletion)?,
        headers: Vec::new(),
    };
    let seen = entry.offset;
    let unchanged = |now: Option<&Entry>| match now {
        Some(now) if now.offset == seen => Ok(None),
        // Somebody else has deleted it at the same time.
        Some(now) if matches!(now.kind, EntryKind::Deleted(_)) => Ok(Some(now.offset)),
        _ => Err(RegistryError::Refused(format!(
            "version {version} of {model} has changed meanwhile; nothing was deleted"
        ))),
    };
    let offset = replace(kafka, settings, &logs, model, version, record, &|| {
        unchanged(find(&logs, model, version)?.as_ref())
    })?;
    let chunks = tombstone_chunks(kafka, settings, entry)?;
    Ok(Deleted {
        digest,
        offset,
        chunks,
        before: false,
    })
}

fn refuse_if_kept(
    logs: &KafkaLogs,
    request: &DeleteRequest<'_>,
    retention: Duration,
) -> Result<(), RegistryError> {
    let (model, version) = (request.model, request.version);
    let (log, fleet) = (read_deployments(logs)?, read_fleet(logs)?);
    let serving: Vec<String> = fleet
        .live(model, request.now)
        .filter(|(_, entry)| {
            let serving = entry.and_then(|entry| entry.report.serving.as_ref());
            serving.is_some_and(|serving| serving.version == *version)
        })
        .map(|(instance, _)| instance.to_owned())
        .collect();
    let question = Question {
        log: log.model(model),
        serving: &serving,
        version,
        retention,
        now: request.now,
    };
    match question.kept() {
        None => Ok(()),
        Some(why) => Err(RegistryError::Refused(format!(
            "version {version} of {model} is not deleted: {why}"
        ))),
    }
}

/// Frees the chunks. What is left when this is interrupted, `model gc` collects.
fn tombstone_chunks(
    kafka: &KafkaSettings,
    settings: &RegistrySettings,
    entry: &Entry,
) -> Result<u64, RegistryError> {
    let manifest = entry.manifest();
    let sets = [
        (&entry.chunks, manifest.map(|m| m.artifact.bytes)),
        (
            &entry.golden_chunks,
            manifest.and_then(|m| Some(m.checks.golden_file.as_ref()?.bytes)),
        ),
    ];
    let mut keys = Vec::new();
    for (set, bytes) in sets {
        let Some(Ok(header)) = set else { continue };
        // The count is held against the manifest: a huge one must not be written out.
        if chunk_count(bytes.unwrap_or(0), header.chunk_bytes) == header.count {
            keys.extend((0..header.count).map(|index| header.key(index)));
        }
    }
    if keys.is_empty() {
        return Ok(0);
    }
    tombstone(kafka, &settings.artifacts_topic, keys.into_iter())
}

/// Writes a tombstone for each key; gives their number.
pub(super) fn tombstone(
    kafka: &KafkaSettings,
    topic: &str,
    keys: impl Iterator<Item = Vec<u8>>,
) -> Result<u64, RegistryError> {
    let records = keys.map(|key| OutRecord {
        topic: topic.to_owned(),
        partition: Some(0),
        key: Some(key),
        ..OutRecord::default()
    });
    let written = Publisher::idempotent(kafka)?.send_all(records, &mut |_| {})?;
    Ok(written.len() as u64)
}
