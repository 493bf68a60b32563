//! What can go wrong between a command, or the watcher, and the registry's topics.

use std::time::Duration;

use super::bundle::BundleError;
use super::topics::Problem;
use crate::kafka::{ErrorKind, KafkaError};
use crate::model::{Digest, ManifestError};

/// Why something about the registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Kafka failed.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// Topics that do not exist.
    #[error(
        "registry topics do not exist: {}; `swapstream model publish` creates them",
        .0.join(", ")
    )]
    MissingTopics(Vec<String>),
    /// Topics whose settings are wrong.
    #[error("{}", list(.0))]
    Topics(Vec<Problem>),
    /// The topic is shorter than what was read from it.
    #[error(
        "topic {topic:?} ends at {end}, {read} was read before: it was deleted and created again; restart this instance"
    )]
    Shrunk {
        /// The topic.
        topic: String,
        /// Where it ends.
        end: i64,
        /// What was read.
        read: i64,
    },
    /// The manifest cannot be written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The version is there with other bytes.
    #[error(
        "version {version} of {model} exists with digest {found}, this file has {given}: versions are immutable, publish it under a new one"
    )]
    Conflict {
        /// The model.
        model: String,
        /// The version.
        version: String,
        /// The digest that is there.
        found: Digest,
        /// The file's.
        given: Digest,
    },
    /// The version was deleted, or its record cannot be read.
    #[error("version {version} of {model} cannot be published: {reason}")]
    Taken {
        /// The model.
        model: String,
        /// The version.
        version: String,
        /// What stands there.
        reason: String,
    },
    /// The version's record was sent, and nobody can tell whether it is there.
    #[error(
        "whether version {version} of {model} is written is not known: {error}; running it again is \
         safe, and tells"
    )]
    Interrupted {
        /// The model.
        model: String,
        /// The version.
        version: String,
        /// What happened.
        error: Box<RegistryError>,
    },
    /// A deployment event was not acknowledged, and may be in the log all the same.
    #[error(
        "{error}; the event may be in the log all the same: see `swapstream model history {model}` \
         before you give it again"
    )]
    Unacknowledged {
        /// The model.
        model: String,
        /// What happened.
        error: KafkaError,
    },
    /// A deployment event is in the log, and cannot be read back.
    #[error(
        "the event is in the log at revision {revision}; whether it counts cannot be read: {error}; do \
         not give it again, see `swapstream model history {model}`"
    )]
    Unread {
        /// The model.
        model: String,
        /// Offset of the event.
        revision: i64,
        /// What happened.
        error: Box<RegistryError>,
    },
    /// Nobody can tell what stands in the topic.
    #[error(
        "an open transaction of another publisher has held readers of topic {topic:?} back for {}; \
         run this again once it has ended (kafka-transactions.sh find-hanging and abort, where it \
         never does)",
        humantime::format_duration(*waited)
    )]
    Held {
        /// The topic.
        topic: String,
        /// How long was waited.
        waited: Duration,
    },
    /// What a command asks for is not done.
    #[error("{0}")]
    Refused(String),
    /// A version as it is moved about.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// What a command names is not there.
    #[error("{0}")]
    NotThere(String),
    /// A value cannot be written as JSON.
    #[error("cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl RegistryError {
    /// Whether the registry's topics are not there yet.
    pub fn is_missing_topic(&self) -> bool {
        match self {
            Self::MissingTopics(_) => true,
            Self::Kafka(error) => error.kind == ErrorKind::MissingTopic,
            _ => false,
        }
    }
}

fn list(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}
