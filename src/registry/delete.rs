//! Deleting a version: its manifest is replaced by a deletion record, under the version's own
//! transactional id, then its chunks are tombstoned. The number never returns with other bytes. Where it
//! was deployed meanwhile, the manifest is put back.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Instant;

use super::catalog::{Catalog, DELETION_SCHEMA, Deletion, Entry, EntryKind};
use super::chunks::{ChunksHeader, chunk_count};
use super::error::RegistryError;
use super::logs::{KafkaLogs, RegistryLogs};
use super::operate::Attribution;
use super::publish::find;
use super::read::{read_catalog, read_deployments, read_fleet};
use super::replace::{Replacement, replace};
use super::retention::Question;
use super::settings::RegistrySettings;
use super::topics::RegistryTopic;
use crate::failpoints::fail_point;
use crate::kafka::{KafkaSettings, Publisher};
use crate::model::{Digest, GOLDEN_MAX_BYTES, ModelName, Version};
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
    request: &DeleteRequest<'_>,
) -> Result<Deleted, RegistryError> {
    let logs = KafkaLogs::new(kafka.clone(), settings.clone());
    logs.check(&RegistryTopic::ALL)?;
    let (model, version) = (request.model, request.version);
    let catalog = read_catalog(&logs)?;
    let Some(entry) = catalog.get(model, version) else {
        let why = format!("there is no version {version} of {model}");
        return Err(RegistryError::NotThere(why));
    };
    let done = |digest, offset, chunks, before| Deleted {
        digest,
        offset,
        chunks,
        before,
    };
    let digest = match &entry.kind {
        EntryKind::Deleted(deletion) => return Ok(done(deletion.digest, entry.offset, 0, true)),
        EntryKind::Manifest(manifest) => Some(manifest.artifact.digest),
        EntryKind::Unreadable(_) => None,
    };
    let deletion = Deleting {
        kafka,
        settings,
        logs: &logs,
        request,
        entry,
        asked: Instant::now(),
    };
    deletion.refuse_if_kept()?;
    let offset = match deletion.write(digest)? {
        Written::ByUs(offset) => offset,
        Written::ByARival(offset) => return Ok(done(digest, offset, 0, true)),
    };
    fail_point("after-deletion");
    deletion.look_again(offset)?;
    let freed = tombstone_chunks(kafka, settings, &catalog, entry);
    let chunks = freed.unwrap_or_else(|error| {
        tracing::warn!(
            "it is deleted, its chunks are not freed: {error}; `swapstream model gc` frees them"
        );
        0
    });
    Ok(done(digest, offset, chunks, false))
}

/// Who has written the deletion, at which offset.
enum Written {
    ByUs(i64),
    /// At the same time; the rest is the rival's as well.
    ByARival(i64),
}

/// What the record that stands under the version's key makes of a write: the offset of what counts, or `None` to
/// go on.
type Standing<'s> = &'s dyn Fn(Option<&Entry>) -> Result<Option<i64>, RegistryError>;

/// A deletion under way.
struct Deleting<'d> {
    kafka: &'d KafkaSettings,
    settings: &'d RegistrySettings,
    logs: &'d KafkaLogs,
    request: &'d DeleteRequest<'d>,
    /// What is deleted.
    entry: &'d Entry,
    /// When it was asked for.
    asked: Instant,
}

impl Deleting<'_> {
    /// Writes the deletion, where the version is what it was and is not needed.
    fn write(&self, digest: Option<Digest>) -> Result<Written, RegistryError> {
        let record = deletion(&self.request.who, digest)?;
        let ours = record.value.clone();
        let rival = Cell::new(false);
        let offset = self.replace(record, &|now| match now {
            Some(now) if now.offset == self.entry.offset => {
                // It may have taken long to come here.
                self.refuse_if_kept()?;
                Ok(None)
            }
            Some(now) if matches!(now.kind, EntryKind::Deleted(_)) => {
                rival.set(*now.raw != *ours);
                Ok(Some(now.offset))
            }
            _ => Err(RegistryError::Refused(format!(
                "{} has changed meanwhile; nothing was deleted",
                self.what()
            ))),
        })?;
        Ok(if rival.get() {
            Written::ByARival(offset)
        } else {
            Written::ByUs(offset)
        })
    }

    /// Looks whether the version was deployed meanwhile, and puts its manifest back then. Who deploys looks
    /// whether the version is still there after the event was written: of a deletion and a deployment at once
    /// one sees the other. What cannot be read may have been deployed.
    fn look_again(&self, deleted: i64) -> Result<(), RegistryError> {
        let why = match self.kept() {
            Ok(None) => return Ok(()),
            Ok(Some(why)) => why,
            Err(error) => format!("whether it is needed cannot be read: {error}"),
        };
        Err(match self.put_back(deleted) {
            Ok(()) => self.refused(&why),
            Err(error) => RegistryError::Refused(format!(
                "{} is deleted and should have stayed, since {why}; its manifest could not be put \
                 back: {error}; deploy another version",
                self.what()
            )),
        })
    }

    /// Writes the record of the version again in place of its deletion at `deleted`.
    fn put_back(&self, deleted: i64) -> Result<(), RegistryError> {
        let record = Replacement {
            value: self.entry.raw.to_vec(),
            headers: self.entry.headers()?,
        };
        self.replace(record, &|now| {
            // Somebody else's record stays.
            Ok(now
                .map(|now| now.offset)
                .filter(|offset| *offset != deleted))
        })?;
        Ok(())
    }

    /// Writes `record` under the version's key, unless `done` finds by what stands there that it is not to be.
    fn replace(&self, record: Replacement, done: Standing<'_>) -> Result<i64, RegistryError> {
        let (logs, model, version) = (self.logs, self.request.model, self.request.version);
        let done = || done(find(logs, model, version)?.as_ref());
        replace(
            self.kafka,
            self.settings,
            logs,
            model,
            version,
            record,
            &done,
        )
    }

    /// Refuses to delete what is needed now.
    fn refuse_if_kept(&self) -> Result<(), RegistryError> {
        let why = self.kept()?;
        why.map_or(Ok(()), |why| Err(self.refused(&why)))
    }

    fn refused(&self, why: &str) -> RegistryError {
        RegistryError::Refused(format!("{} is not deleted: {why}", self.what()))
    }

    /// Why the version is needed now.
    fn kept(&self) -> Result<Option<String>, RegistryError> {
        let model = self.request.model;
        let passed = i64::try_from(self.asked.elapsed().as_millis()).unwrap_or(i64::MAX);
        let now = self.request.now.saturating_add(passed);
        let (log, fleet) = (read_deployments(self.logs)?, read_fleet(self.logs)?);
        let silent = fleet.live(model, now).find(|(_, entry)| entry.is_none());
        if let Some((instance, _)) = silent {
            return Ok(Some(format!(
                "instance {instance} lives and has not said what it serves; try again in a moment"
            )));
        }
        let serving: Vec<String> = fleet
            .live(model, now)
            .filter(|(_, entry)| {
                let serving = entry.and_then(|entry| entry.report.serving.as_ref());
                serving.is_some_and(|serving| serving.version == *self.request.version)
            })
            .map(|(instance, _)| instance.to_owned())
            .collect();
        let question = Question {
            log: log.model(model),
            serving: &serving,
            version: self.request.version,
            retention: self.settings.retention,
            now,
        };
        Ok(question.kept())
    }

    fn what(&self) -> String {
        let DeleteRequest { model, version, .. } = self.request;
        format!("version {version} of {model}")
    }
}

/// What stands in a deleted version's place.
fn deletion(who: &Attribution, digest: Option<Digest>) -> serde_json::Result<Replacement> {
    let deletion = Deletion {
        schema: Some(DELETION_SCHEMA.to_owned()),
        deleted: true,
        digest,
        at: Some(who.at.clone()),
        by: who.by.clone(),
        reason: who.reason.clone(),
    };
    Ok(Replacement {
        value: serde_json::to_vec(&deletion)?,
        headers: Vec::new(),
    })
}

/// Frees the chunks. What is left when this is interrupted, `model gc` collects.
fn tombstone_chunks(
    kafka: &KafkaSettings,
    settings: &RegistrySettings,
    catalog: &Catalog,
    entry: &Entry,
) -> Result<u64, RegistryError> {
    let others = others(catalog, entry);
    let keys: Vec<_> = chunk_sets(entry, settings.max_artifact_bytes)
        .filter(|header| !others.contains(&*header.upload))
        .flat_map(|header| (0..header.count).map(|index| header.key(index)))
        .collect();
    if keys.is_empty() {
        return Ok(0);
    }
    tombstone(kafka, &settings.artifacts_topic, keys.into_iter())
}

/// The uploads that other records than `entry` name: of a record that was copied under another key the
/// chunks are shared.
fn others<'c>(catalog: &'c Catalog, entry: &Entry) -> BTreeSet<&'c str> {
    let models = catalog.models();
    let entries = models.flat_map(|model| catalog.versions(model));
    entries
        .filter(|(_, other)| other.offset != entry.offset)
        .flat_map(|(_, other)| other.chunk_sets())
        .filter_map(|set| set.as_ref().ok().map(|header| &*header.upload))
        .collect()
}

/// Chunk sets of `entry` that are as large as the manifest says, and no larger than may be: a huge count
/// must not be written out.
fn chunk_sets(entry: &Entry, max_bytes: u64) -> impl Iterator<Item = &ChunksHeader> {
    let manifest = entry.manifest();
    let artifact = manifest.map(|manifest| manifest.artifact.bytes);
    let golden = manifest.and_then(|manifest| manifest.checks.golden_file.as_ref());
    let sets = [
        (&entry.chunks, artifact, max_bytes),
        (
            &entry.golden_chunks,
            golden.map(|file| file.bytes),
            GOLDEN_MAX_BYTES,
        ),
    ];
    sets.into_iter().filter_map(|(set, bytes, most)| {
        let header = set.as_ref()?.as_ref().ok()?;
        let bytes = bytes.filter(|bytes| *bytes <= most)?;
        (chunk_count(bytes, header.chunk_bytes) == header.count).then_some(header)
    })
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

#[cfg(test)]
mod tests {
    use super::super::catalog::tests::{manifest, record};
    use super::super::chunks::{CHUNK_BYTES, CHUNKS_HEADER, CHUNKS_SCHEMA};
    use super::*;
    use crate::record::{Header, OwnedRecord};

    fn version(offset: i64, version: &str, bytes: u64, upload: &str) -> OwnedRecord {
        let mut manifest = manifest("m", version, b"x");
        manifest.artifact.bytes = bytes;
        let header = ChunksHeader {
            schema: CHUNKS_SCHEMA.to_owned(),
            upload: upload.to_owned(),
            count: chunk_count(bytes, CHUNK_BYTES),
            chunk_bytes: CHUNK_BYTES,
            first_offset: None,
            last_offset: None,
        };
        let json = serde_json::to_string(&header).unwrap();
        let mut record = record(
            offset,
            &format!("m/{version}"),
            Some(manifest.to_json().unwrap()),
        );
        record.headers = vec![Header::text(CHUNKS_HEADER, json)];
        record
    }

    #[test]
    fn chunks_that_are_huge_or_shared_stay() {
        let mut catalog = Catalog::new();
        catalog.apply(version(0, "1", 3, "own"));
        catalog.apply(version(1, "2", 1 << 50, "huge"));
        catalog.apply(version(2, "3", 3, "shared"));
        catalog.apply(version(3, "4", 3, "shared"));
        let model = ModelName::new("m").unwrap();
        let freed = |version: &str| {
            let entry = catalog
                .get(&model, &Version::new(version).unwrap())
                .unwrap();
            let others = others(&catalog, entry);
            let sets = chunk_sets(entry, 1 << 30).filter(|set| !others.contains(&*set.upload));
            sets.map(|set| set.upload.clone()).collect::<Vec<_>>()
        };
        assert_eq!(freed("1"), ["own"]);
        assert!(
            ["2", "3", "4"]
                .into_iter()
                .all(|version| freed(version).is_empty())
        );
    }

    #[test]
    fn what_is_put_back_is_what_was_there() {
        let mut catalog = Catalog::new();
        let mut record = version(0, "1", 3, "own");
        record
            .headers
            .insert(0, super::super::trust::signature_header(b"sig".to_vec()));
        let (model, version) = catalog.apply(record.clone()).unwrap();
        let entry = catalog.get(&model, &version).unwrap();
        assert_eq!(Some(entry.raw.to_vec()), record.value);
        assert_eq!(entry.headers().unwrap(), record.headers);
    }
}
