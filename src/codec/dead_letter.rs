//! Dead letters: the input as it came, with headers that say where and why it failed, cut where
//! it would be too large.

use std::fmt;

use super::headers::{ERROR_PREFIX, is_error_header};
use super::{RowError, Stage};
use crate::model::{Digest, ModelName, Version};
use crate::record::{Header, Origin};

/// Most bytes that Kafka adds to a lone record: the batch's header (61) and the record's own
/// lengths and deltas (36).
const RECORD_OVERHEAD: usize = 61 + 36;

/// Most bytes that Kafka adds to a header: two lengths.
const HEADER_OVERHEAD: usize = 10;

/// An upper bound of the bytes that a record takes on the wire, uncompressed; to compare with
/// `max.message.bytes`.
pub fn record_size(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header]) -> usize {
    let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let headers = headers
        .iter()
        .map(|header| HEADER_OVERHEAD + header.key.len() + len(header.value.as_deref()));
    RECORD_OVERHEAD + len(key) + len(value) + headers.sum::<usize>()
}

/// A dead letter; its key is the input's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The input's value, possibly cut.
    pub value: Option<Vec<u8>>,
    /// The input's headers in their order, then the error's.
    pub headers: Vec<Header>,
}

impl DeadLetter {
    /// The dead letter of the input at `origin`, which failed under the model and version
    /// `served`, if any. Error headers of an earlier attempt are replaced.
    pub fn new(
        origin: Origin<'_>,
        error: &RowError,
        served: Option<(&ModelName, &Version)>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> Self {
        let attempt = attempt(headers);
        let mut headers: Vec<Header> = headers
            .iter()
            .filter(|header| !is_error_header(&header.key))
            .cloned()
            .collect();
        let mut add =
            |name: &str, value: &dyn fmt::Display| headers.push(error_header(name, value));
        add("topic", &origin.topic);
        add("partition", &origin.partition);
        add("offset", &origin.offset);
        if let Some(timestamp) = origin.timestamp {
            add("timestamp", &timestamp);
        }
        add("stage", &error.stage);
        add("class", &error.class);
        add("message", &error.message);
        if let Some((model, version)) = served {
            add("model", model);
            add("version", version);
        }
        add("attempt", &attempt);
        Self {
            value: value.map(<[u8]>::to_vec),
            headers,
        }
    }

    /// Makes the record at most `limit` bytes large, [`record_size`] of it with `key`: cuts the
    /// value and, where that is not enough, leaves the input's headers out. Fails if key and error
    /// headers alone are larger.
    pub fn fit(&mut self, key: Option<&[u8]>, limit: usize) -> Result<(), RowError> {
        if record_size(key, self.value.as_deref(), &self.headers) <= limit {
            return Ok(());
        }
        let original = self.value.take();
        self.headers.extend(cut_headers(original.as_deref()));
        if record_size(key, None, &self.headers) > limit {
            self.headers.retain(|header| is_error_header(&header.key));
        }
        let room = limit.checked_sub(record_size(key, None, &self.headers));
        let room = room.ok_or_else(|| {
            RowError::new(
                Stage::Produce,
                "dead_letter_too_large",
                format!("key and error headers alone are larger than {limit} bytes"),
            )
        })?;
        self.value = original.map(|value| cut(&value, room).to_vec());
        Ok(())
    }
}

/// The first `limit` bytes of `value`, or all of it.
pub fn cut(value: &[u8], limit: usize) -> &[u8] {
    value.get(..limit).unwrap_or(value)
}

/// The headers that tell of a cut: what the whole value was.
fn cut_headers(original: Option<&[u8]>) -> [Header; 3] {
    let original = original.unwrap_or_default();
    let digest = Digest::of(original).to_string();
    let hex = digest.strip_prefix("sha256:").unwrap_or(&digest);
    [
        error_header("truncated", &true),
        error_header("original_bytes", &original.len()),
        error_header("sha256", &hex),
    ]
}

fn error_header(name: &str, value: &dyn fmt::Display) -> Header {
    Header::text(format!("{ERROR_PREFIX}{name}"), value)
}

/// Which failure of the event this is: 1, or one more than the error headers that it came with
/// say.
fn attempt(headers: &[Header]) -> u32 {
    headers
        .iter()
        .rev()
        .find(|header| header.key.strip_prefix(ERROR_PREFIX) == Some("attempt"))
        .and_then(|header| str::from_utf8(header.value.as_deref()?).ok()?.parse().ok())
        .map_or(1, |before: u32| before.saturating_add(1))
}
