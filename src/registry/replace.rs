//! Writes the one record of a version in a transaction of the version's own id: of several who try at
//! once, publishers and deleters alike, one wins and the others see what it wrote.

use std::time::Duration;

use super::catalog::version_key;
use super::decided::{wait_until_decided, wait_until_visible};
use super::error::RegistryError;
use super::logs::KafkaLogs;
use super::settings::RegistrySettings;
use crate::kafka::{KafkaError, KafkaSettings, Publisher};
use crate::model::{ModelName, Version};
use crate::record::{Header, OutRecord};

/// How long a rival that fenced this publication is given to commit its own.
const SETTLE: Duration = Duration::from_secs(1);

/// How often a record that could not be written is tried.
const COMMIT_ATTEMPTS: u32 = 3;

/// The transactional id under which a version is written or deleted.
fn transactional_id(model: &ModelName, version: &Version) -> String {
    format!("swapstream-publish-{model}-{version}")
}

/// What is to stand under a version's key.
#[derive(Debug)]
pub(super) struct Replacement {
    pub(super) value: Vec<u8>,
    pub(super) headers: Vec<Header>,
}

/// Writes a version's record in a transaction of the version's own id, unless `done` finds that
/// nothing is to be written any more; `done` is asked once no rival can commit. Gives the offset.
pub(super) fn replace(
    kafka: &KafkaSettings,
    settings: &RegistrySettings,
    logs: &KafkaLogs,
    model: &ModelName,
    version: &Version,
    replacement: Replacement,
    done: &dyn Fn() -> Result<Option<i64>, RegistryError>,
) -> Result<i64, RegistryError> {
    let id = transactional_id(model, version);
    let record = OutRecord {
        topic: settings.versions_topic.clone(),
        partition: Some(0),
        key: Some(version_key(model, version)),
        value: Some(replacement.value),
        headers: replacement.headers,
        timestamp: None,
    };
    let mut attempt = 1;
    loop {
        // From here on no rival can commit: its transaction was ended or is fenced.
        let mut publisher = Publisher::transactional(kafka, &id)?;
        wait_until_decided(logs)?;
        if let Some(offset) = done()? {
            return Ok(offset);
        }
        let error = match write(&mut publisher, &record) {
            Ok(offset) => {
                wait_until_visible(logs, offset)?;
                return Ok(offset);
            }
            Err(error) => error,
        };
        drop(publisher);
        // Fenced by a rival, or the broker went away: whose manifest is there counts. Where there
        // is none the rival has failed, or was another registry's on the same cluster, whose
        // transactional id is the same.
        std::thread::sleep(SETTLE);
        if let Some(offset) = done()? {
            return Ok(offset);
        }
        if attempt == COMMIT_ATTEMPTS {
            return Err(RegistryError::Interrupted {
                model: model.to_string(),
                version: version.to_string(),
                error,
            });
        }
        tracing::debug!(
            attempt,
            "the manifest was not written, trying again: {error}"
        );
        attempt += 1;
    }
}

/// Writes the manifest in a transaction; gives its offset.
fn write(publisher: &mut Publisher, record: &OutRecord) -> Result<i64, KafkaError> {
    publisher.begin()?;
    match publisher.send(record) {
        Ok(delivery) => publisher.commit().map(|()| delivery.offset),
        Err(error) => {
            // The next publisher of this id ends the transaction as well.
            if let Err(second) = publisher.abort() {
                tracing::debug!("aborting the publication: {second}");
            }
            Err(error)
        }
    }
}
