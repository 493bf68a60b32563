//! The control plane: what versions there are, which of them is to serve, and its way from the
//! registry's topics into the serving snapshot.
//!
//! ```text
//! publish ──▶ model-artifacts, model-versions          operate ──▶ model-deployments
//!                    │            │                                      │
//!                    │         catalog (fold)                deployment_log (fold)
//!                    │            └──────────▶ lifecycle ◀───────────────┘
//!                    ▼                            │ decides
//!                  fetch ──▶ loader ◀── watcher, control ──▶ serving snapshot
//!                                                 └──▶ board ──▶ reporter ──▶ model-status ──▶ fleet view
//! ```
//!
//! `deployment`, `deployment_log`, `catalog`, `chunks`, `status`, `lifecycle` and `control` are
//! pure. One thread follows the topics, one at a time loads a model, one writes status; none of
//! them ever touches the workers, which see a new serving snapshot and nothing else.

mod address;
mod attempts;
mod background;
mod board;
mod bundle;
mod cache;
mod catalog;
mod chunks;
mod collect;
mod control;
mod decided;
mod delete;
mod deployment;
mod deployment_log;
mod error;
mod fetch;
mod fleet;
mod followed;
mod garbage;
mod guard;
mod history;
mod lifecycle;
mod loader;
mod logs;
mod memory;
mod operate;
mod origin;
mod passed;
mod probe;
mod publish;
mod read;
#[cfg(feature = "object-store")]
mod remote;
mod replace;
mod reporter;
mod retention;
mod rollback;
mod settings;
mod status;
mod store;
mod sweeper;
mod topics;
mod transfer;
mod trust;
mod turn;
mod watcher;

#[cfg(test)]
mod control_tests;
#[cfg(test)]
mod lifecycle_tests;
#[cfg(all(test, feature = "object-store"))]
mod remote_tests;

pub use address::{Location, Remote, locate, names_a_user, shown};
pub use attempts::{Attempts, LOADING_SCHEMA, LoadingNote, LoadingNotes, Permit, loading_key};
pub use board::{Board, BoardView};
pub use bundle::{Bundle, BundleError};
pub use cache::{ArtifactCache, CacheSettings, Incoming};
pub use catalog::{
    Catalog, DELETION_SCHEMA, Deletion, Entry, EntryKind, parse_version_key, version_key,
};
pub use chunks::{
    Assembler, CHUNK_BYTES, CHUNKS_HEADER, CHUNKS_SCHEMA, ChunkError, ChunksHeader,
    GOLDEN_CHUNKS_HEADER, MIN_CHUNK_BYTES, chunk_count, chunk_key,
};
pub use collect::{CollectRequest, Collected, Orphan, collect};
pub use control::ControlEvent;
pub use delete::{DeleteRequest, Deleted, delete};
pub use deployment::{Action, DEPLOYMENT_SCHEMA, DeploymentEvent, EventError};
pub use deployment_log::{
    Applied, Candidate, DeploymentLog, Frozen, HistoryEntry, ModelLog, Outcome,
};
pub use error::RegistryError;
pub use fetch::{FetchError, FetchLimits, Watch, fetch};
pub use fleet::{Convergence, Fleet, InstanceView};
pub use garbage::{Attendance, Upload, Uploads, needed_uploads};
pub use guard::LoadGuard;
pub use history::Tenure;
pub use lifecycle::{Failure, LoadState, Refusal};
pub use loader::{
    LoadFailure, LoadJob, LoadSafety, Loaded, Loader, RegistryLoader, prepare, prepare_for,
};
pub use logs::{KafkaLogs, RegistryLog, RegistryLogs};
pub use memory::{Lease, MemoryObserver, ModelMemory, NoMemory};
pub use operate::{Appended, Attribution, append_event, deploy_event, undeploy_event};
pub use origin::Origin;
pub use probe::{
    ModelProbe, PROBE_SCHEMA, ProbeAnswer, ProbeCandidate, ProbeHead, ProbeLimits, ProbeRefusal,
    ProbeReport, ProbeSystem, run_probe,
};
pub use publish::{Progress, Published, finish_manifest, publish, rfc3339};
pub use read::{
    read_catalog, read_catalog_trusting, read_deployments, read_deployments_left, read_fleet,
};
pub use reporter::{InstanceInfo, KafkaStatusSink, Reporter, StatusSink};
pub use rollback::rollback_event;
pub use settings::RegistrySettings;
pub use status::{
    Desired, Heartbeat, INSTANCE_SCHEMA, ModelReport, RefusedReport, STATUS_SCHEMA, ServingReport,
    StatusEntry, WorkingOn, heartbeat_key, status_key,
};
pub use store::{fetch_uri, read_uri};
pub use sweeper::{Sweeper, SweeperParts};
pub use topics::{Problem, RegistryTopic, check_log_start, check_topics, ensure_topics};
pub use transfer::take_out;
pub use trust::{SIGNATURE_HEADER, Standing, Trust, TrustedKey};
pub use watcher::{Observer, Watcher, WatcherParts};

/// The JSON Schemas of what the registry's topics hold, by the value of `schema` in it.
pub fn schemas() -> Vec<(&'static str, schemars::Schema)> {
    use schemars::schema_for;
    vec![
        (
            crate::model::MANIFEST_SCHEMA,
            schema_for!(crate::model::Manifest),
        ),
        (CHUNKS_SCHEMA, schema_for!(ChunksHeader)),
        (DELETION_SCHEMA, schema_for!(Deletion)),
        (DEPLOYMENT_SCHEMA, schema_for!(DeploymentEvent)),
        (INSTANCE_SCHEMA, schema_for!(Heartbeat)),
        (LOADING_SCHEMA, schema_for!(LoadingNote)),
        (STATUS_SCHEMA, schema_for!(StatusEntry)),
    ]
}
