//! Looks a stream's topics up before its workers start: they must exist, and their partition
//! counts and record limits decide how the workers produce.

use std::collections::BTreeMap;
use std::time::Duration;

use super::StreamSettings;
use super::routes::Routes;
use crate::kafka::{Admin, ErrorKind, KafkaError, RecordLimits};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Kafka's default `max.message.bytes`.
const DEFAULT_MAX_MESSAGE_BYTES: usize = 1_048_588;

/// What the workers need to know of the stream's topics.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    /// Partitions of all input topics together.
    pub(super) input_partitions: i32,
    pub(super) output_routes: Routes,
    pub(super) dead_letter_routes: Routes,
    pub(super) output_max_bytes: usize,
    pub(super) dead_letter_max_bytes: usize,
}

impl Topics {
    /// Looks all topics of `stream` up. `describe` is off for a broker that cannot tell settings.
    pub(super) fn look_up(
        admin: &Admin,
        stream: &StreamSettings,
        describe: bool,
    ) -> Result<Self, KafkaError> {
        let mut inputs = BTreeMap::new();
        for topic in &stream.input_topics {
            inputs.insert(topic.clone(), look_up(admin, topic, "input", false)?.0);
        }
        let (outputs, output_max_bytes) = look_up(admin, &stream.output_topic, "output", describe)?;
        let (dead_letters, dead_letter_max_bytes) =
            look_up(admin, &stream.dead_letter_topic, "dead-letter", describe)?;
        Ok(Self {
            input_partitions: inputs.values().sum(),
            output_routes: Routes::new(inputs.clone(), outputs),
            dead_letter_routes: Routes::new(inputs, dead_letters),
            output_max_bytes,
            dead_letter_max_bytes,
        })
    }

    /// What the producer may send.
    pub(super) fn limits(&self) -> RecordLimits {
        RecordLimits {
            record: self.output_max_bytes.max(self.dead_letter_max_bytes),
            batch: self.output_max_bytes.min(self.dead_letter_max_bytes),
        }
    }
}

/// Partitions and record limit of one topic.
fn look_up(
    admin: &Admin,
    topic: &str,
    role: &str,
    describe: bool,
) -> Result<(i32, usize), KafkaError> {
    let missing = || {
        KafkaError::new(
            ErrorKind::MissingTopic,
            format!("{role} topic {topic:?}"),
            "does not exist: create it, for example with kafka-topics.sh --create, \
             or correct its name in the configuration",
        )
    };
    if !describe {
        let partitions = admin.partitions(topic, TIMEOUT)?.ok_or_else(missing)?;
        return Ok((partitions, DEFAULT_MAX_MESSAGE_BYTES));
    }
    let info = admin.topic(topic, TIMEOUT)?.ok_or_else(missing)?;
    let limit = info
        .config
        .get("max.message.bytes")
        .and_then(|text| text.parse().ok());
    Ok((info.partitions, limit.unwrap_or(DEFAULT_MAX_MESSAGE_BYTES)))
}
