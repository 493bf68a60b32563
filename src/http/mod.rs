//! The HTTP endpoints: metrics, health, models. They only read; what they show comes from handles
//! that the application passes in.

mod routes;
mod server;
mod settings;

use std::fmt;
use std::sync::Arc;

pub use routes::{HEALTH_SCHEMA, MODELS_SCHEMA, serving_models};
pub use server::{HttpError, bind, serve};
pub use settings::HttpSettings;

use crate::telemetry::Metrics;

/// The answer of a health check: why it fails, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// One sentence for each reason; none: all is well.
    pub reasons: Vec<String>,
}

impl Report {
    /// All is well.
    pub fn ok() -> Self {
        Self::default()
    }

    /// Whether all is well.
    pub fn is_ok(&self) -> bool {
        self.reasons.is_empty()
    }
}

impl FromIterator<String> for Report {
    fn from_iter<I: IntoIterator<Item = String>>(reasons: I) -> Self {
        Self {
            reasons: reasons.into_iter().collect(),
        }
    }
}

/// What knows whether the process is well. Asked for each request: it must not block.
pub trait HealthSource: Send + Sync {
    /// Whether the process works, or had better be restarted.
    fn live(&self) -> Report;
    /// Whether every stream takes records.
    fn ready(&self) -> Report;
}

/// The entries of `/models`, a JSON array. Asked for each request: it must not block.
pub type ModelsSource = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What the endpoints show.
#[derive(Clone)]
pub struct Endpoints {
    /// `/metrics`.
    pub metrics: Arc<Metrics>,
    /// `/livez` and `/readyz`.
    pub health: Arc<dyn HealthSource>,
    /// `/models`.
    pub models: ModelsSource,
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
