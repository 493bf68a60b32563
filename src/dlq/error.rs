//! Why looking through a dead-letter topic, or sending from it, ends.

use std::time::Duration;

use crate::kafka::KafkaError;

/// Why looking through a dead-letter topic, or sending from it, ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DlqError {
    /// What Kafka says.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The dead-letter topic is not there.
    #[error("dead-letter topic {0:?} does not exist")]
    MissingTopic(String),
    /// Nobody can tell what was sent again.
    #[error(
        "an open transaction of another producer has held readers of topic {topic:?} back for {}; \
         nothing was sent; run this again once it has ended (kafka-transactions.sh find-hanging and \
         abort, where it never does)",
        humantime::format_duration(*waited)
    )]
    Held {
        /// The dead-letter topic.
        topic: String,
        /// How long was waited.
        waited: Duration,
    },
    /// Another process sends from the same topic, and started later.
    #[error(
        "another `dlq redrive` of topic {0:?} has started and taken over: it goes on where this \
         one was (if nobody has, this one stood still for longer than a transaction may: run it again)"
    )]
    Rival(String),
    /// A topic that records would go back to is not there.
    #[error("topic {0:?} does not exist: create it, or name another one with --to")]
    MissingTarget(String),
    /// A mark of another form, which may say anything.
    #[error(
        "the record at offset {offset} of {topic}-{partition} is a mark of redriven records that \
         this build cannot read ({reason}): use the build that wrote it, or a newer one"
    )]
    UnreadableMark {
        /// The dead-letter topic.
        topic: String,
        /// The mark's partition.
        partition: i32,
        /// The mark's offset.
        offset: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// Sending ended half-way; what was counted is committed.
    #[error(
        "{cause}; {redriven} records were redriven before that, and are marked: running the \
         command again goes on with the others"
    )]
    Interrupted {
        /// Records that were sent and committed.
        redriven: u64,
        /// Why it ended.
        cause: Box<DlqError>,
    },
}
