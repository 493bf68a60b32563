//! Reads what a dead letter's headers say; the other half of [`DeadLetter::new`].
//!
//! [`DeadLetter::new`]: crate::codec::DeadLetter::new

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codec::ERROR_PREFIX;
use crate::record::{Header, OwnedRecord};

/// Where the input of a dead letter is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// Its topic.
    pub topic: Option<String>,
    /// Its partition.
    pub partition: Option<i32>,
    /// Its offset.
    pub offset: Option<i64>,
    /// Its timestamp, milliseconds since 1970.
    pub timestamp: Option<i64>,
}

/// What a dead letter says of itself, without key and value: they may be confidential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Letter {
    /// Its partition in the dead-letter topic.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Its timestamp, milliseconds since 1970: the input's, unless the topic sets its own.
    pub timestamp: Option<i64>,
    /// Where the input failed.
    pub stage: String,
    /// Stable name of the cause.
    pub class: String,
    /// What exactly.
    pub message: Option<String>,
    /// The model that served.
    pub model: Option<String>,
    /// The version that served.
    pub version: Option<String>,
    /// How often the event had failed by then.
    pub attempt: u32,
    /// Where the input is.
    pub source: Source,
    /// Bytes of the value; null for a tombstone.
    pub bytes: Option<u64>,
    /// Bytes of the whole value, where it was cut.
    pub original_bytes: Option<u64>,
    /// Whether it was cut: then it cannot be sent again.
    pub truncated: bool,
}

impl Letter {
    /// Reads a record of a dead-letter topic; `None` where it is no dead letter of Swapstream's.
    pub fn read(record: &OwnedRecord) -> Option<Self> {
        let headers = &record.headers;
        Some(Self {
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            stage: text(headers, "stage")?,
            class: text(headers, "class")?,
            message: text(headers, "message"),
            model: text(headers, "model"),
            version: text(headers, "version"),
            attempt: parsed(headers, "attempt").unwrap_or(1),
            source: Source {
                topic: text(headers, "topic"),
                partition: parsed(headers, "partition"),
                offset: parsed(headers, "offset"),
                timestamp: parsed(headers, "timestamp"),
            },
            bytes: record.value.as_ref().map(|value| value.len() as u64),
            original_bytes: parsed(headers, "original_bytes"),
            truncated: find(headers, "truncated").is_some(),
        })
    }
}

fn find<'h>(headers: &'h [Header], name: &str) -> Option<&'h [u8]> {
    headers
        .iter()
        .rev()
        .find(|header| header.key.strip_prefix(ERROR_PREFIX) == Some(name))
        .and_then(|header| header.value.as_deref())
}

fn text(headers: &[Header], name: &str) -> Option<String> {
    find(headers, name).map(|value| String::from_utf8_lossy(value).into_owned())
}

fn parsed<T: std::str::FromStr>(headers: &[Header], name: &str) -> Option<T> {
    str::from_utf8(find(headers, name)?).ok()?.parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{DeadLetter, RowError, Stage};
    use crate::record::Origin;

    /// The record of a dead letter with these headers of the input, which failed at `origin`.
    pub(in super::super) fn dead(
        origin: Origin<'_>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> OwnedRecord {
        let error = RowError::new(Stage::Decode, "invalid_json", "no JSON");
        let letter = DeadLetter::new(origin, &error, None, value, headers);
        OwnedRecord {
            topic: "dlq".to_owned(),
            partition: 2,
            offset: 7,
            timestamp: origin.timestamp,
            key: Some(b"key".to_vec()),
            value: letter.value,
            headers: letter.headers,
        }
    }

    #[test]
    fn what_is_no_dead_letter_is_none() {
        let record = OwnedRecord {
            headers: vec![Header::text("stage", "decode")],
            ..dead(
                Origin {
                    topic: "t",
                    partition: 0,
                    offset: 0,
                    timestamp: None,
                },
                None,
                &[],
            )
        };
        assert_eq!(Letter::read(&record), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            topic in "[a-z]{1,9}",
            partition in 0..100_i32,
            offset in 0..i64::MAX,
            timestamp in proptest::option::of(0..i64::MAX),
            attempt in 1..1000_u32,
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)),
        ) {
            let origin = Origin { topic: &topic, partition, offset, timestamp };
            let before = Header::text(format!("{ERROR_PREFIX}attempt"), attempt);
            let letter = Letter::read(&dead(origin, value.as_deref(), &[before])).unwrap();
            prop_assert_eq!((letter.partition, letter.offset), (2, 7));
            prop_assert_eq!(letter.attempt, attempt + 1);
            prop_assert_eq!((letter.stage.as_str(), letter.class.as_str()), ("decode", "invalid_json"));
            prop_assert!(!letter.truncated);
            prop_assert_eq!(letter.bytes, value.map(|value| value.len() as u64));
            let source = Source {
                topic: Some(topic.clone()),
                partition: Some(partition),
                offset: Some(offset),
                timestamp,
            };
            prop_assert_eq!(letter.source, source);
        }
    }
}
