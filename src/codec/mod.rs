//! From event to columns and from columns to prediction. Pure: bytes in, bytes out; `score` uses
//! it without Kafka.

mod columns;
mod error;

pub use columns::{Column, Columns, Values};
pub use error::{RowError, Stage};
