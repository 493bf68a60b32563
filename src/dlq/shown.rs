//! One record of a dead-letter topic, whole, as programs read it.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Found, Letter};

/// Value of `schema` in what is shown of a record.
pub const RECORD_SCHEMA: &str = "swapstream.dlq-record/v1";

/// Bytes of a record: a text where they are one, else hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Bytes {
    /// UTF-8.
    Text(String),
    /// Anything else, two digits a byte.
    Hex(String),
}

impl Bytes {
    fn new(bytes: &[u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex(bytes.iter().fold(String::new(), |mut hex, byte| {
                // Writing to a string does not fail.
                _ = write!(hex, "{byte:02x}");
                hex
            })),
        }
    }
}

/// One header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShownHeader {
    /// Its name; not unique.
    pub name: String,
    /// Its value, or null.
    pub value: Option<Bytes>,
}

/// Everything of one record of a dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShownRecord {
    /// Always `swapstream.dlq-record/v1`.
    pub schema: String,
    /// The dead-letter topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// What the headers say; null where it is no dead letter of Swapstream's.
    pub dead_letter: Option<Letter>,
    /// Whether it was sent again.
    pub redriven: bool,
    /// Its headers, in order.
    pub headers: Vec<ShownHeader>,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; null is a tombstone.
    pub value: Option<Bytes>,
}

impl From<&Found> for ShownRecord {
    fn from(found: &Found) -> Self {
        let record = &found.record;
        let bytes = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(Bytes::new);
        let headers = record.headers.iter().map(|header| ShownHeader {
            name: header.key.clone(),
            value: bytes(&header.value),
        });
        Self {
            schema: RECORD_SCHEMA.to_owned(),
            topic: record.topic.clone(),
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            dead_letter: found.letter.clone(),
            redriven: found.redriven,
            headers: headers.collect(),
            key: bytes(&record.key),
            value: bytes(&record.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_or_hexadecimal() {
        assert_eq!(Bytes::new("ä".as_bytes()), Bytes::Text("ä".to_owned()));
        assert_eq!(Bytes::new(b"\xff\x00"), Bytes::Hex("ff00".to_owned()));
    }
}
