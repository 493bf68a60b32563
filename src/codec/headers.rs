//! The headers of a prediction.

use crate::model::{Digest, ModelName, Version};
use crate::record::Header;

/// Header with the model's name.
pub const MODEL_NAME: &str = "model-name";
/// Header with the version.
pub const MODEL_VERSION: &str = "model-version";
/// Header with the digest of the ONNX file.
pub const MODEL_DIGEST: &str = "model-digest";

/// What the names of a dead letter's own headers begin with.
pub const ERROR_PREFIX: &str = "__swapstream.errors.";

/// The headers that tag a prediction with what made it.
pub fn model_headers(model: &ModelName, version: &Version, digest: &Digest) -> [Header; 3] {
    [
        Header::text(MODEL_NAME, model),
        Header::text(MODEL_VERSION, version),
        Header::text(MODEL_DIGEST, digest),
    ]
}

/// Whether an input header of this name goes into the prediction. All do, but for the tags of a
/// prediction that is scored in turn and the error headers of a dead letter that was redriven:
/// they tell of another attempt.
pub fn passes_through(name: &str) -> bool {
    !matches!(name, MODEL_NAME | MODEL_VERSION | MODEL_DIGEST) && !is_error_header(name)
}

/// Whether a dead letter sets the header `name` itself.
pub fn is_error_header(name: &str) -> bool {
    name.starts_with(ERROR_PREFIX)
}
