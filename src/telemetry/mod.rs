//! Logs and metrics. Usable from anywhere in the crate; imports nothing of it.

mod families;
mod handles;
mod logging;
pub mod metrics;
mod process;
mod retirement;

pub use handles::{
    Counters, LagGauge, Metrics, ModelMetrics, Served, StreamMetrics, VersionMetrics, WorkerGauge,
};
pub use logging::{LogError, LogFormat, LogSettings, check_level, init};
pub use metrics::{
    CommitOutcome, HoldOutcome, KafkaClient, KafkaErrorKind, Label, LoadStage, RebalanceKind,
    SwapOutcome, TransactionOutcome, WorkerState,
};
