//! Plain data that the parts exchange: records, offsets, headers. No behaviour of Kafka's in here.

use std::fmt;
use std::sync::Arc;

/// Offset of one record: its position in its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordOffset(pub i64);

impl RecordOffset {
    /// The offset to commit once this record is done: the next one to read.
    pub fn next(self) -> NextOffset {
        NextOffset(self.0 + 1)
    }
}

/// Offset of the next record to read; what Kafka calls the committed offset.
///
/// A type of its own: client libraries mix both conventions, and a mix-up loses or repeats one
/// record a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextOffset(pub i64);

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// A partition of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Where an input record lies; travels with its prediction or dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The input topic.
    pub topic: &'a str,
    /// The input partition.
    pub partition: i32,
    /// The input record's offset.
    pub offset: i64,
    /// The input record's timestamp, milliseconds since 1970; `None` where the record has none.
    pub timestamp: Option<i64>,
}

/// One header of a record: a name and a value that may be null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The header's name; not unique within a record.
    pub key: String,
    /// The header's bytes, or null.
    pub value: Option<Vec<u8>>,
}

impl Header {
    /// A header with a text value.
    pub fn text(key: impl Into<String>, value: impl fmt::Display) -> Self {
        Self {
            key: key.into(),
            value: Some(value.to_string().into_bytes()),
        }
    }
}

/// A record with everything owned: what log readers hand out and rare paths produce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    /// The record's topic.
    pub topic: String,
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// Milliseconds since 1970, where the record has a timestamp.
    pub timestamp: Option<i64>,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The record's headers, in order.
    pub headers: Vec<Header>,
}

/// A record to be produced, with everything owned: registry records and other rare ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutRecord {
    /// The topic to write to.
    pub topic: String,
    /// The partition; `None` leaves it to the key.
    pub partition: Option<i32>,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The record's headers, in order.
    pub headers: Vec<Header>,
    /// Milliseconds since 1970; `None` is the moment of sending.
    pub timestamp: Option<i64>,
}
