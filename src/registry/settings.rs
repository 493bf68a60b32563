//! The registry's topics and limits, validated.

use std::time::Duration;

use super::cache::CacheSettings;
use super::trust::Trust;

/// Where the registry lives and how much it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrySettings {
    /// Topic of manifests; default `model-versions`.
    pub versions_topic: String,
    /// Topic of artifact chunks; default `model-artifacts`.
    pub artifacts_topic: String,
    /// Topic of deployment events; default `model-deployments`.
    pub deployments_topic: String,
    /// Topic of status entries; default `model-status`.
    pub status_topic: String,
    /// Largest artifact that is fetched, in bytes; default 1 GiB.
    pub max_artifact_bytes: u64,
    /// How long fetching an artifact may take; default 5 min.
    pub fetch_time: Duration,
    /// Where artifacts that lie on other machines are kept; default 4 GiB in the user's directory
    /// for caches.
    pub cache: CacheSettings,
    /// What all loaded models may hold together, in bytes; default 4 GiB.
    pub model_memory: u64,
    /// How long a version is kept once it is no longer deployed; default 7 days.
    pub retention: Duration,
    /// Whose versions are served; default: everybody's.
    pub trust: Trust,
    /// Time between heartbeats; default 10 s.
    pub heartbeat_interval: Duration,
    /// Whether topic settings are checked and refused when wrong. Off only for the embedded
    /// broker, which cannot tell them.
    pub check_topics: bool,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            versions_topic: "model-versions".to_owned(),
            artifacts_topic: "model-artifacts".to_owned(),
            deployments_topic: "model-deployments".to_owned(),
            status_topic: "model-status".to_owned(),
            max_artifact_bytes: 1 << 30,
            fetch_time: Duration::from_mins(5),
            cache: CacheSettings::default(),
            model_memory: 4 << 30,
            retention: Duration::from_hours(7 * 24),
            trust: Trust::default(),
            heartbeat_interval: Duration::from_secs(10),
            check_topics: true,
        }
    }
}
