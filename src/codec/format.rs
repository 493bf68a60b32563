//! Predictions and error lines as types: what readers parse, and where the JSON Schemas come from.

use schemars::{JsonSchema, Schema, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Stage;
use crate::model::{Digest, ModelName, Version};

/// Value of `schema` in a prediction.
pub const PREDICTION_SCHEMA: &str = "swapstream.prediction/v1";

/// Value of `schema` in an error line.
pub const ERROR_SCHEMA: &str = "swapstream.error/v1";

/// The answer of one version to one event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Prediction {
    /// Always `swapstream.prediction/v1`.
    pub schema: String,
    /// The model; null where `score` was given a file that names none.
    pub model: Option<ModelName>,
    /// The version; null in `score`.
    pub version: Option<Version>,
    /// Digest of the ONNX file that answered.
    pub digest: Digest,
    /// Offset of the deployment event that deployed the version; null in `score`.
    pub revision: Option<i64>,
    /// The model's outputs by name: a scalar, or nested arrays of the row's shape.
    pub outputs: Map<String, Value>,
    /// Where the event comes from.
    pub input: PredictionInput,
    /// Fields copied from the event; only where the stream includes some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<Map<String, Value>>,
}

/// Where a prediction's event comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PredictionInput {
    /// A Kafka record.
    Record(RecordInput),
    /// A line of `score`'s input.
    Line(LineInput),
}

/// An event that was a Kafka record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordInput {
    /// The record's topic.
    pub topic: String,
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The record's timestamp, milliseconds since 1970; null where it has none.
    pub timestamp: Option<i64>,
}

/// An event that was a line of `score`'s input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LineInput {
    /// The line, from 1.
    pub line: u64,
}

/// What `score` prints for an event that cannot be scored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorLine {
    /// Always `swapstream.error/v1`.
    pub schema: String,
    /// The event's line.
    pub input: LineInput,
    /// Where the event failed.
    pub stage: Stage,
    /// Stable name of the cause.
    pub class: String,
    /// What exactly, for people.
    pub message: String,
}

/// The JSON Schemas of what the codec writes, by the value of `schema` in it.
pub fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        (PREDICTION_SCHEMA, schema_for!(Prediction)),
        (ERROR_SCHEMA, schema_for!(ErrorLine)),
    ]
}
