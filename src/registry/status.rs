//! What instances report to `model-status`: the JSON forms and the keys of its records.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::deployment_log::Candidate;
use crate::model::{Digest, ModelName, Version};

/// Value of `schema` in a status entry.
pub const STATUS_SCHEMA: &str = "swapstream.status/v1";

/// Value of `schema` in a heartbeat.
pub const INSTANCE_SCHEMA: &str = "swapstream.instance/v1";

/// What the newest deployment event wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Desired {
    /// The version.
    pub version: Version,
    /// Offset of the event.
    pub revision: i64,
}

impl From<&Candidate> for Desired {
    fn from(candidate: &Candidate) -> Self {
        Self {
            version: candidate.version.clone(),
            revision: candidate.revision,
        }
    }
}

/// What serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServingReport {
    /// The version.
    pub version: Version,
    /// Digest of its artifact.
    pub digest: Digest,
    /// Offset of the event that deployed it.
    pub revision: i64,
    /// What runs it.
    pub runtime: String,
    /// Whether a row's answer was found not to depend on its batch.
    pub batch_invariant: bool,
}

/// What is being loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkingOn {
    /// The version.
    pub version: Version,
    /// How far it has come: `announced`, `fetched`, `verified`, `probe`, `compiled`, `checked`,
    /// `warmed_up`; or `waiting` before it is tried again.
    pub state: String,
    /// Why it has to be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefusedReport {
    /// The version; null where a deployment event cannot be followed.
    pub version: Option<Version>,
    /// Offset of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// The state that it did not reach.
    pub stage: String,
    /// Why.
    pub reason: String,
}

/// What an instance does about one model.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ModelReport {
    /// What is to serve.
    pub desired: Option<Desired>,
    /// What serves.
    pub serving: Option<ServingReport>,
    /// What is being loaded.
    pub working_on: Option<WorkingOn>,
    /// The newest refusal since what serves was deployed.
    pub refused: Option<RefusedReport>,
}

/// Value of `<instance>/<model>` in `model-status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusEntry {
    /// Always `swapstream.status/v1`.
    pub schema: String,
    /// The instance.
    pub instance: String,
    /// The model.
    pub model: ModelName,
    /// What it does.
    #[serde(flatten)]
    pub report: ModelReport,
    /// When that began, RFC 3339.
    pub at: String,
}

/// Value of `instance/<id>` in `model-status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Heartbeat {
    /// Always `swapstream.instance/v1`.
    pub schema: String,
    /// The instance.
    pub instance: String,
    /// Version of the program.
    pub build: String,
    /// Its streams: name to model.
    pub streams: BTreeMap<String, ModelName>,
    /// Runtime and CPU features; bits are equal only where these are.
    pub fingerprint: String,
    /// Time between heartbeats, milliseconds.
    pub interval_ms: u64,
    /// When it started, RFC 3339.
    pub started_at: String,
    /// When this was written, RFC 3339.
    pub at: String,
}

/// Key of a heartbeat.
pub fn heartbeat_key(instance: &str) -> String {
    format!("instance/{instance}")
}

/// Key of a status entry.
pub fn status_key(instance: &str, model: &ModelName) -> String {
    format!("{instance}/{model}")
}
