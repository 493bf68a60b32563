//! Writes the one record of a version in a transaction of the version's own id: of several who try at
//! once, publishers and deleters alike, one wins and the others see what it wrote.

use std::time::Duration;

use super::catalog::version_key;
use super::decided::{wait_until_decided, wait_until_visible};
use super::error::RegistryError;
use super::logs::KafkaLogs;
use super::settings::RegistrySettings;
use super::topics::RegistryTopic;
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
///
/// # Errors
/// What `done` says, as it is. Of the rest, what comes once the record may have been written is
/// [`RegistryError::Interrupted`].
pub(super) fn replace(
    kafka: &KafkaSettings,
    settings: &RegistrySettings,
    logs: &KafkaLogs,
    model: &ModelName,
    version: &Version,
    replacement: Replacement,
    done: &dyn Fn() -> Result<Option<i64>, RegistryError>,
) -> Result<i64, RegistryError> {
    let record = OutRecord {
        topic: settings.versions_topic.clone(),
        partition: Some(0),
        key: Some(version_key(model, version)),
        value: Some(replacement.value),
        headers: replacement.headers,
        timestamp: None,
    };
    let unsure = |error: RegistryError| match error {
        RegistryError::Kafka(_) | RegistryError::Held { .. } => RegistryError::Interrupted {
            model: model.to_string(),
            version: version.to_string(),
            error: Box::new(error),
        },
        other => other,
    };
    let id = transactional_id(model, version);
    let mut turns = 1;
    let error = loop {
        let error = match turn(kafka, logs, &id, &record, done) {
            Ok(Turn::Done(offset)) => return Ok(offset),
            Ok(Turn::Failed(error)) => error,
            Err(error) if turns == 1 => return Err(error),
            Err(error) => return Err(unsure(error)),
        };
        tracing::debug!(turns, "the record was not written: {error}");
        // Fenced by a rival, or the broker went away: whose record is there counts, which the next turn finds.
        // Where there is none the rival has failed, or was another registry's on the same cluster, whose
        // transactional id is the same.
        std::thread::sleep(SETTLE);
        if turns == COMMIT_ATTEMPTS {
            break error;
        }
        turns += 1;
    };
    match done().map_err(unsure)? {
        Some(offset) => Ok(offset),
        None => Err(unsure(error.into())),
    }
}

/// How a turn ended.
enum Turn {
    /// The record that counts is at this offset.
    Done(i64),
    /// It was tried, and whether it is there is not known.
    Failed(KafkaError),
}

fn turn(
    kafka: &KafkaSettings,
    logs: &KafkaLogs,
    id: &str,
    record: &OutRecord,
    done: &dyn Fn() -> Result<Option<i64>, RegistryError>,
) -> Result<Turn, RegistryError> {
    // From here on no rival can commit: its transaction was ended or is fenced.
    let mut publisher = Publisher::transactional(kafka, id)?;
    wait_until_decided(logs, RegistryTopic::Versions)?;
    if let Some(offset) = done()? {
        return Ok(Turn::Done(offset));
    }
    Ok(match write(&mut publisher, record) {
        Ok(offset) => {
            if !wait_until_visible(logs, RegistryTopic::Versions, offset) {
                tracing::warn!("it is stored, and readers do not see it yet");
            }
            Turn::Done(offset)
        }
        Err(error) => Turn::Failed(error),
    })
}

/// Writes the record in a transaction; gives its offset.
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
