//! Why one record cannot be scored: the stage it failed in, a stable class, and a message.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where in its way a record failed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The bytes are no event.
    Decode,
    /// The event does not fill the model's inputs.
    Features,
    /// The model fails on the row, or answers with what is no number.
    Infer,
    /// The outputs cannot be written as a prediction.
    Encode,
    /// The prediction cannot be stored, by its size.
    Produce,
}

impl Stage {
    /// All stages, in flow order.
    pub const ALL: [Self; 5] = [
        Self::Decode,
        Self::Features,
        Self::Infer,
        Self::Encode,
        Self::Produce,
    ];

    /// The stage's name in headers, metrics and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Features => "features",
            Self::Infer => "infer",
            Self::Encode => "encode",
            Self::Produce => "produce",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why one record cannot be scored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{stage}: {class}: {message}")]
pub struct RowError {
    /// Where it failed.
    pub stage: Stage,
    /// Stable name of the cause, in `snake_case`; listed in `docs/dead-letters.md`.
    pub class: &'static str,
    /// What exactly, for people; at most 300 characters.
    pub message: String,
}

/// The longest message, in characters.
const MESSAGE_MAX: usize = 300;

impl RowError {
    /// An error of `stage`; a message of more than 300 characters is cut.
    pub fn new(stage: Stage, class: &'static str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_MAX) {
            let cut = message.get(..end).unwrap_or_default();
            message = cut.chars().take(MESSAGE_MAX - 1).chain(['…']).collect();
        }
        Self {
            stage,
            class,
            message,
        }
    }
}
