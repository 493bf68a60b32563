//! Collects what nobody needs: reads the topics, lets `garbage` decide, tombstones.

use std::time::Duration;

use super::decided::wait_until_decided;
use super::delete::tombstone;
use super::error::RegistryError;
use super::fleet::Fleet;
use super::garbage::{Attendance, Uploads, needed_uploads};
use super::logs::{KafkaLogs, RegistryLogs};
use super::read::{read, read_catalog};
use super::settings::RegistrySettings;
use super::topics::RegistryTopic;
use crate::kafka::KafkaSettings;

/// What to collect.
#[derive(Debug, Clone, Copy)]
pub struct CollectRequest {
    /// What is younger stays: somebody may be publishing.
    pub older_than: Duration,
    /// Only say what would go.
    pub dry_run: bool,
    /// This moment, milliseconds since 1970.
    pub now: i64,
}

/// One upload that no manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Its id.
    pub upload: String,
    /// Chunks that are there.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What was collected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// Chunk sets without a manifest.
    pub orphans: Vec<Orphan>,
    /// Chunk sets that stay.
    pub kept: usize,
    /// Instances that have said nothing for so long, whose status goes.
    pub instances: Vec<String>,
}

/// Tombstones orphaned chunks and the status of instances that are gone.
pub fn collect(
    kafka: &KafkaSettings,
    settings: &RegistrySettings,
    request: CollectRequest,
) -> Result<Collected, RegistryError> {
    let logs = KafkaLogs::new(kafka.clone(), settings.clone());
    logs.check(&RegistryTopic::ALL)?;
    // The chunks first: a manifest that is committed meanwhile is then seen with its chunks.
    let mut uploads = Uploads::new();
    read(&logs, RegistryTopic::Artifacts, &mut |record| {
        let bytes = record.value.as_ref().map(Vec::len);
        uploads.apply(record.key.as_deref(), bytes, record.timestamp);
    })?;
    wait_until_decided(&logs, RegistryTopic::Versions)?;
    let needed = needed_uploads(&read_catalog(&logs)?).map_err(RegistryError::Refused)?;
    let (mut fleet, mut attendance) = (Fleet::new(), Attendance::new());
    read(&logs, RegistryTopic::Status, &mut |record| {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        fleet.apply(key, value, record.timestamp);
        attendance.apply(key, value.is_none(), record.timestamp);
    })?;
    let orphans = uploads.orphans(&needed, request.now, request.older_than);
    let gone = attendance.gone(&fleet, request.now, request.older_than);
    if !request.dry_run {
        let keys = orphans
            .iter()
            .flat_map(|(_, upload)| upload.keys().cloned());
        tombstone(kafka, &settings.artifacts_topic, keys)?;
        let keys = gone.iter().flat_map(|(_, keys)| keys.iter().cloned());
        tombstone(kafka, &settings.status_topic, keys)?;
    }
    let kept = uploads.len() - orphans.len();
    Ok(Collected {
        orphans: orphans
            .into_iter()
            .map(|(id, upload)| Orphan {
                upload: id.to_owned(),
                chunks: upload.keys().count() as u64,
                bytes: upload.bytes(),
            })
            .collect(),
        kept,
        instances: gone.into_iter().map(|(id, _)| id.to_owned()).collect(),
    })
}
