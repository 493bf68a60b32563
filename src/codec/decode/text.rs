//! What is checked or copied on the bytes of an event, outside the JSON parser.

use serde::de::IgnoredAny;

use super::MAX_NESTING;
use crate::codec::{RowError, Stage};

/// The event as text that begins with `{`, or why it is none. Nothing here recurses: the depth is
/// known to be small before the parser starts.
pub(super) fn event_text(value: Option<&[u8]>) -> Result<&str, RowError> {
    let error = |class, message: String| RowError::new(Stage::Decode, class, message);
    let Some(bytes) = value else {
        return Err(error("tombstone", "the record has no value".to_owned()));
    };
    let Some(first) = bytes.iter().find(|byte| !is_space(**byte)) else {
        return Err(error("empty", "the value is empty".to_owned()));
    };
    let text = simdutf8::basic::from_utf8(bytes).map_err(|_| {
        // The quick check does not know where.
        let at = str::from_utf8(bytes).map_or_else(|utf8| utf8.valid_up_to(), str::len);
        error(
            "invalid_utf8",
            format!("the value is not UTF-8 from byte {at} on"),
        )
    })?;
    if is_too_deep(bytes) {
        let message = format!("the value nests deeper than {MAX_NESTING} levels");
        return Err(error("too_deep", message));
    }
    if *first == b'{' {
        return Ok(text);
    }
    if let Err(syntax) = serde_json::from_str::<IgnoredAny>(text) {
        return Err(invalid_json(&syntax));
    }
    let found = match *first {
        b'n' => "null",
        b't' | b'f' => "a boolean",
        b'"' => "a string",
        b'[' => "an array",
        _ => "a number",
    };
    let message = format!("an event is a JSON object, this is {found}");
    Err(error("not_an_object", message))
}

/// The error for what the parser refuses; its message has line and column.
pub(super) fn invalid_json(error: &serde_json::Error) -> RowError {
    RowError::new(Stage::Decode, "invalid_json", error.to_string())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_too_deep(bytes: &[u8]) -> bool {
    // `[` and `{` differ in this bit only. Counting them is all that most events cost here; parts
    // so short that a byte holds their count are counted many bytes at a time.
    let opening = |byte: &u8| u8::from(*byte | 0x20 == b'{');
    let counts = bytes
        .chunks(192)
        .map(|part| part.iter().map(opening).sum::<u8>());
    if counts.map(usize::from).sum::<usize>() <= MAX_NESTING {
        return false;
    }
    let mut depth = 0_usize;
    let mut deepest = 0;
    outside_strings(bytes, |byte| match byte {
        b'[' | b'{' => {
            depth += 1;
            deepest = deepest.max(depth);
        }
        b']' | b'}' => depth = depth.saturating_sub(1),
        _ => {}
    });
    deepest > MAX_NESTING
}

fn outside_strings(bytes: &[u8], mut visit: impl FnMut(u8)) {
    let mut in_string = false;
    let mut escaped = false;
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            other => visit(*other),
        }
    }
}

/// Appends the JSON value `raw` without insignificant white space.
pub(super) fn write_compact(raw: &str, out: &mut Vec<u8>) {
    let bytes = raw.as_bytes();
    // A scalar has no white space outside its string, and most programs write none anywhere.
    let space = |byte: &u8| u8::from(is_space(*byte));
    let none = || {
        bytes
            .chunks(192)
            .all(|part| part.iter().map(space).sum::<u8>() == 0)
    };
    if !matches!(bytes.first(), Some(b'[' | b'{')) || none() {
        out.extend_from_slice(bytes);
        return;
    }
    let mut in_string = false;
    let mut escaped = false;
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            space if !in_string && is_space(*space) => continue,
            _ => {}
        }
        out.push(*byte);
    }
}
