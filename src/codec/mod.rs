//! From event to columns and from columns to prediction. Pure: bytes in, bytes out; `score` uses
//! it without Kafka.

mod columns;
mod dead_letter;
mod decode;
mod encode;
mod error;
mod format;
mod headers;

#[cfg(test)]
mod tests;

pub use columns::{Column, Columns, Values};
pub use dead_letter::{DeadLetter, cut, record_size};
pub use decode::{Decoder, MAX_NESTING};
pub use encode::{InputRef, NonFiniteOutputs, PredictionEncoder, encode_error};
pub use error::{RowError, Stage};
pub use format::{
    ERROR_SCHEMA, ErrorLine, LineInput, PREDICTION_SCHEMA, Prediction, PredictionInput,
    RecordInput, schemas,
};
pub use headers::{
    ERROR_PREFIX, MODEL_DIGEST, MODEL_NAME, MODEL_VERSION, is_error_header, model_headers,
    passes_through,
};
