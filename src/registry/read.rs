//! Reads registry topics to their end, for commands.

use super::catalog::Catalog;
use super::deployment_log::DeploymentLog;
use super::error::RegistryError;
use super::fleet::Fleet;
use super::logs::{Reading, RegistryLog, RegistryLogs, read_to_end};
use super::topics::{RegistryTopic, check_log_start};
use super::trust::Trust;
use crate::kafka::{ErrorKind, KafkaError, LogStart};
use crate::record::OwnedRecord;

/// Every version there is.
pub fn read_catalog(logs: &dyn RegistryLogs) -> Result<Catalog, RegistryError> {
    read_catalog_trusting(logs, &Trust::default())
}

/// Every version there is, held against the keys that are trusted.
pub fn read_catalog_trusting(
    logs: &dyn RegistryLogs,
    trust: &Trust,
) -> Result<Catalog, RegistryError> {
    let mut catalog = Catalog::trusting(trust.clone());
    read(logs, RegistryTopic::Versions, &mut |record| {
        catalog.apply(record);
    })?;
    Ok(catalog)
}

/// What every deployment event came to.
///
/// # Errors
/// What Kafka says; and that the log has lost its start, where what is deployed cannot be told.
pub fn read_deployments(logs: &dyn RegistryLogs) -> Result<DeploymentLog, RegistryError> {
    read_deployments_if(logs, &|name, first| match check_log_start(name, first) {
        Some(problem) => Err(RegistryError::Topics(vec![problem])),
        None => Ok(()),
    })
}

/// The same of what is left of the log, to look at.
pub fn read_deployments_left(logs: &dyn RegistryLogs) -> Result<DeploymentLog, RegistryError> {
    read_deployments_if(logs, &|_, _| Ok(()))
}

/// The same where `begins` has nothing against the topic's name and first offset.
fn read_deployments_if(
    logs: &dyn RegistryLogs,
    begins: &dyn Fn(&str, i64) -> Result<(), RegistryError>,
) -> Result<DeploymentLog, RegistryError> {
    let topic = RegistryTopic::Deployments;
    let name = logs.name(topic);
    let mut reader = logs.open(topic, LogStart::Beginning)?;
    let first = reader.log_start();
    begins(&name, first.map_err(|error| missing(error, name.clone()))?)?;
    let mut log = DeploymentLog::new();
    read_all(&mut *reader, name, &mut |record| {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        log.apply(record.offset, key, value, record.timestamp);
    })?;
    Ok(log)
}

/// What every instance said last.
pub fn read_fleet(logs: &dyn RegistryLogs) -> Result<Fleet, RegistryError> {
    let mut fleet = Fleet::new();
    read(logs, RegistryTopic::Status, &mut |record| {
        fleet.apply(
            record.key.as_deref(),
            record.value.as_deref(),
            record.timestamp,
        );
    })?;
    Ok(fleet)
}

/// Every record of `topic`.
pub(super) fn read(
    logs: &dyn RegistryLogs,
    topic: RegistryTopic,
    on_record: &mut dyn FnMut(OwnedRecord),
) -> Result<(), RegistryError> {
    let mut log = logs.open(topic, LogStart::Beginning)?;
    read_all(&mut *log, logs.name(topic), on_record)
}

fn read_all(
    log: &mut dyn RegistryLog,
    name: String,
    on_record: &mut dyn FnMut(OwnedRecord),
) -> Result<(), RegistryError> {
    let read = read_to_end(log, &format!("topic {name:?}"), &mut |record| {
        on_record(record);
        Reading::GoOn
    });
    read.map_err(|error| missing(error, name))
}

fn missing(error: KafkaError, topic: String) -> RegistryError {
    match error.kind {
        ErrorKind::MissingTopic => RegistryError::MissingTopics(vec![topic]),
        _ => error.into(),
    }
}
