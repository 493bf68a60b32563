//! Deploying and undeploying: append an event, read it back, and say what it came to.

use std::time::{Duration, Instant};

use super::catalog::{Catalog, Entry, EntryKind};
use super::decided::wait_until_visible;
use super::deployment::{Action, DEPLOYMENT_SCHEMA, DeploymentEvent};
use super::deployment_log::{DeploymentLog, HistoryEntry, ModelLog, Outcome};
use super::error::RegistryError;
use super::logs::{KafkaLogs, RegistryLogs};
use super::publish::find;
use super::read::read_deployments;
use super::settings::RegistrySettings;
use super::topics::RegistryTopic;
use crate::kafka::{KafkaSettings, Publisher};
use crate::model::{Digest, ModelName, Version};
use crate::record::OutRecord;

/// How long a deletion that sees a deployment is given to put the version back.
const PUT_BACK: Duration = Duration::from_secs(2);

/// Who does something, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attribution {
    /// Who.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// When, RFC 3339.
    pub at: String,
}

/// What an appended event came to.
#[derive(Debug, Clone)]
pub struct Appended {
    /// Offset of the event.
    pub revision: i64,
    /// The event.
    pub event: DeploymentEvent,
    /// What it came to.
    pub outcome: Outcome,
    /// The last effective event of the model, where the appended one is not effective.
    pub winner: Option<HistoryEntry>,
    /// Why no instance can load the version any more: somebody deleted it at the same time.
    pub gone: Option<String>,
}

/// The event that deploys `version`, which must exist.
pub fn deploy_event(
    catalog: &Catalog,
    model: &ModelName,
    version: &Version,
    if_revision: Option<i64>,
    who: Attribution,
) -> Result<DeploymentEvent, RegistryError> {
    let digest = deployable(catalog, model, version)?;
    Ok(event(
        Action::Deploy,
        model,
        Some((version.clone(), digest)),
        if_revision,
        who,
    ))
}

/// The event that undeploys `model`, of which something must be deployed.
pub fn undeploy_event(
    log: &DeploymentLog,
    model: &ModelName,
    if_revision: Option<i64>,
    who: Attribution,
) -> Result<DeploymentEvent, RegistryError> {
    let known = log.model(model);
    // An undeploy without if_revision also ends a freeze.
    let something = |log: &ModelLog| log.desired().is_some() || log.frozen().is_some();
    if !known.is_some_and(something) {
        return Err(RegistryError::NotThere(format!(
            "nothing of model {model} is deployed"
        )));
    }
    Ok(event(Action::Undeploy, model, None, if_revision, who))
}

pub(super) fn event(
    action: Action,
    model: &ModelName,
    version: Option<(Version, Digest)>,
    if_revision: Option<i64>,
    who: Attribution,
) -> DeploymentEvent {
    let (version, digest) = version.unzip();
    DeploymentEvent {
        schema: DEPLOYMENT_SCHEMA.to_owned(),
        action,
        model: model.clone(),
        version,
        digest,
        if_revision,
        at: Some(who.at),
        by: who.by,
        reason: who.reason,
    }
}

pub(super) fn deployable(
    catalog: &Catalog,
    model: &ModelName,
    version: &Version,
) -> Result<Digest, RegistryError> {
    let refuse = |why: String| Err(RegistryError::NotThere(why));
    let entry = catalog.get(model, version);
    if let Some(why) = entry.and_then(|entry| entry.untrusted.as_ref()) {
        return refuse(format!(
            "version {version} of {model} would not be served: {why}"
        ));
    }
    match entry.map(|entry| &entry.kind) {
        Some(EntryKind::Manifest(manifest)) => Ok(manifest.artifact.digest),
        Some(EntryKind::Deleted(_)) => refuse(format!("version {version} of {model} was deleted")),
        Some(EntryKind::Unreadable(why)) => refuse(format!(
            "version {version} of {model} cannot be read: {why}"
        )),
        None => {
            let known: Vec<_> = catalog
                .versions(model)
                .iter()
                .map(|(v, _)| v.to_string())
                .collect();
            refuse(if known.is_empty() {
                format!("there is no model {model}; publish it first")
            } else {
                format!(
                    "model {model} has no version {version}; it has {}",
                    known.join(", ")
                )
            })
        }
    }
}

/// Appends `event` and reads it back.
pub fn append_event(
    kafka: &KafkaSettings,
    settings: &RegistrySettings,
    event: DeploymentEvent,
) -> Result<Appended, RegistryError> {
    let logs = KafkaLogs::new(kafka.clone(), settings.clone());
    logs.check(&[RegistryTopic::Deployments])?;
    let record = OutRecord {
        topic: settings.deployments_topic.clone(),
        partition: Some(0),
        key: Some(event.model.as_str().as_bytes().to_vec()),
        value: Some(event.to_json()?),
        ..OutRecord::default()
    };
    let model = event.model.to_string();
    let sent = Publisher::idempotent(kafka)?.send(&record);
    let revision = match sent {
        Ok(delivery) => delivery.offset,
        Err(error) if error.is_retriable() => {
            return Err(RegistryError::Unacknowledged { model, error });
        }
        Err(error) => return Err(error.into()),
    };
    read_back(&logs, event, revision).map_err(|error| RegistryError::Unread {
        model,
        revision,
        error: Box::new(error),
    })
}

/// What the event at `revision` came to, and whether its version is still there: a deletion looks at the
/// log after it was written, so that of a deletion and a deployment at once one sees the other.
fn read_back(
    logs: &dyn RegistryLogs,
    event: DeploymentEvent,
    revision: i64,
) -> Result<Appended, RegistryError> {
    wait_until_visible(logs, RegistryTopic::Deployments, revision);
    let mut appended = judge(&read_deployments(logs)?, event, revision)?;
    if appended.outcome.is_effective()
        && let Some(version) = &appended.event.version
    {
        let model = &appended.event.model;
        appended.gone = is_deleted(logs, model, version)?.then(|| {
            format!(
                "version {version} of {model} was deleted meanwhile, and no instance can load it: what \
                 serves serves on; deploy another version"
            )
        });
    }
    Ok(appended)
}

/// Whether the version is deleted, and stays so: a deletion that sees the event puts it back.
fn is_deleted(
    logs: &dyn RegistryLogs,
    model: &ModelName,
    version: &Version,
) -> Result<bool, RegistryError> {
    let deadline = Instant::now() + PUT_BACK;
    loop {
        let found = find(logs, model, version)?;
        let deleted = |entry: Entry| matches!(entry.kind, EntryKind::Deleted(_));
        if !found.is_some_and(deleted) {
            return Ok(false);
        }
        if Instant::now() >= deadline {
            return Ok(true);
        }
        std::thread::sleep(PUT_BACK / 10);
    }
}

/// What the event at `revision` came to.
fn judge(
    log: &DeploymentLog,
    event: DeploymentEvent,
    revision: i64,
) -> Result<Appended, RegistryError> {
    let model = log.model(&event.model);
    let Some((model, entry)) = model.and_then(|m| m.entry(revision).map(|entry| (m, entry))) else {
        return Err(RegistryError::NotThere(format!(
            "no reader sees it at offset {revision}"
        )));
    };
    let outcome = entry.outcome.clone();
    let winner = model
        .history()
        .iter()
        .rfind(|e| e.outcome.is_effective() && e.revision < revision);
    let winner = winner.filter(|_| !outcome.is_effective()).cloned();
    Ok(Appended {
        revision,
        event,
        outcome,
        winner,
        gone: None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::catalog::tests::{manifest, record};
    use super::super::read::read_catalog;
    use super::*;

    fn who(by: &str) -> Attribution {
        Attribution {
            by: Some(by.to_owned()),
            reason: None,
            at: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    #[test]
    fn a_stale_operator_is_told_who_won() {
        let mut catalog = Catalog::new();
        catalog.apply(record(
            0,
            "m/1",
            Some(manifest("m", "1", b"x").to_json().unwrap()),
        ));
        let model = ModelName::new("m").unwrap();
        let version = Version::new("1").unwrap();
        let mut log = DeploymentLog::new();
        for (offset, by) in [(0, "ann"), (1, "bob")] {
            let event = deploy_event(&catalog, &model, &version, Some(-1), who(by)).unwrap();
            log.apply(offset, Some(b"m"), Some(&event.to_json().unwrap()), None);
            let appended = judge(&log, event, offset).unwrap();
            assert_eq!(appended.outcome.is_effective(), by == "ann");
            let winner = appended.winner.and_then(|w| w.event).and_then(|e| e.by);
            assert_eq!(winner.as_deref(), (by == "bob").then_some("ann"));
        }
    }

    #[test]
    fn a_version_that_was_deleted_meanwhile_is_told() {
        use super::super::logs::fake::FakeLogs;
        let logs = FakeLogs::default();
        let (model, version) = (ModelName::new("m").unwrap(), Version::new("1").unwrap());
        let json = manifest("m", "1", b"x").to_json().unwrap();
        let put = |value| logs.append(RegistryTopic::Versions, b"m/1", Some(value), Vec::new());
        put(json);
        let catalog = read_catalog(&logs).unwrap();
        let event = deploy_event(&catalog, &model, &version, None, who("ann")).unwrap();
        let json = event.to_json().unwrap();
        let revision = logs.append(RegistryTopic::Deployments, b"m", Some(json), Vec::new());
        let gone =
            |event: &DeploymentEvent| read_back(&logs, event.clone(), revision).unwrap().gone;
        assert_eq!(gone(&event), None);
        put(br#"{"deleted":true}"#.to_vec());
        assert!(
            gone(&event)
                .unwrap()
                .contains("version 1 of m was deleted meanwhile")
        );
        let undeploy = super::event(Action::Undeploy, &model, None, None, who("ann"));
        let json = undeploy.to_json().unwrap();
        let revision = logs.append(RegistryTopic::Deployments, b"m", Some(json), Vec::new());
        assert_eq!(read_back(&logs, undeploy, revision).unwrap().gone, None);
    }

    #[test]
    fn only_what_is_there_is_deployed_or_undeployed() {
        let mut catalog = Catalog::new();
        catalog.apply(record(
            0,
            "m/1",
            Some(manifest("m", "1", b"x").to_json().unwrap()),
        ));
        catalog.apply(record(1, "m/2", Some(br#"{"deleted":true}"#.to_vec())));
        let model = ModelName::new("m").unwrap();
        let refusal = |model: &ModelName, version: &str| {
            let version = Version::new(version).unwrap();
            deploy_event(&catalog, model, &version, None, who("a"))
                .unwrap_err()
                .to_string()
        };
        assert!(refusal(&model, "2").contains("deleted"));
        assert!(refusal(&model, "3").contains("it has 1, 2"));
        assert!(refusal(&ModelName::new("n").unwrap(), "1").contains("no model n"));
        let log = DeploymentLog::new();
        assert!(undeploy_event(&log, &model, None, who("a")).is_err());
    }
}
