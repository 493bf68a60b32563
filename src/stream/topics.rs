//! Looks a stream's topics up before its workers start: they must exist, and their partition
//! counts and settings decide how the workers produce.

use std::collections::BTreeMap;
use std::time::Duration;

use super::StreamSettings;
use super::acceptance::Acceptance;
use super::routes::Routes;
use crate::kafka::{Admin, ErrorKind, KafkaError, RecordLimits};

const TIMEOUT: Duration = Duration::from_secs(10);

/// What the workers need to know of the stream's topics.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    /// Partitions of all input topics together.
    pub(super) input_partitions: i32,
    pub(super) output_routes: Routes,
    pub(super) dead_letter_routes: Routes,
    /// What the output topic takes.
    pub(super) output: Acceptance,
    /// What the dead-letter topic takes.
    pub(super) dead_letter: Acceptance,
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
        let (outputs, output) = look_up(admin, &stream.output_topic, "output", describe)?;
        let (dead_letters, dead_letter) =
            look_up(admin, &stream.dead_letter_topic, "dead-letter", describe)?;
        Ok(Self {
            input_partitions: inputs.values().sum(),
            output_routes: Routes::new(inputs.clone(), outputs),
            dead_letter_routes: Routes::new(inputs, dead_letters),
            output,
            dead_letter,
        })
    }

    /// What the producer may send.
    pub(super) fn limits(&self) -> RecordLimits {
        RecordLimits {
            record: self.output.max_bytes.max(self.dead_letter.max_bytes),
            batch: self.output.max_bytes.min(self.dead_letter.max_bytes),
        }
    }
}

/// Partitions of one topic, and what it takes.
fn look_up(
    admin: &Admin,
    topic: &str,
    role: &str,
    describe: bool,
) -> Result<(i32, Acceptance), KafkaError> {
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
        return Ok((partitions, Acceptance::default()));
    }
    let info = admin.topic(topic, TIMEOUT)?.ok_or_else(missing)?;
    Ok((info.partitions, Acceptance::of(&info)))
}
