//! The manifest: everything known about a version. Its record in the registry *is* the version.
//!
//! Two types: [`Manifest`] is what the registry holds, complete, with unknown fields ignored so
//! that older instances read newer manifests; [`ManifestDraft`] is what people write by hand
//! (TOML or JSON) or put into the ONNX file's `metadata_props` under `swapstream.manifest`, where
//! an unknown field is a typing error.

use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Digest, GoldenFile, ModelName, Version};

/// Value of `schema` in a manifest.
pub const MANIFEST_SCHEMA: &str = "swapstream.manifest/v1";

/// The largest manifest that is written or read, in bytes.
pub const MANIFEST_MAX_BYTES: usize = 512 * 1024;

/// Key of the ONNX file's `metadata_props` that may hold a draft.
pub const METADATA_KEY: &str = "swapstream.manifest";

/// Why a text is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not of the manifest's shape.
    #[error("not a manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// Not TOML, or not of the draft's shape.
    #[error("not a manifest: {0}")]
    Toml(#[from] toml::de::Error),
    /// A schema that this build does not know.
    #[error("manifest has schema {0:?}, this build reads {MANIFEST_SCHEMA:?}")]
    Schema(String),
    /// Larger than [`MANIFEST_MAX_BYTES`].
    #[error("manifest has {0} bytes, at most {MANIFEST_MAX_BYTES} are allowed")]
    TooLarge(usize),
}

#[derive(Deserialize)]
struct Head {
    schema: String,
}

/// Everything known about a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// Always `swapstream.manifest/v1`.
    pub schema: String,
    /// The model's name.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// The ONNX file.
    pub artifact: Artifact,
    /// What executes the model.
    #[serde(default)]
    pub runtime: RuntimeKind,
    /// How each ONNX input is filled from an event; an input that is not named takes the event
    /// field of its own name.
    #[serde(default)]
    pub inputs: Vec<InputSpec>,
    /// Which outputs a prediction carries, in this order; empty means all.
    #[serde(default)]
    pub outputs: Vec<OutputSpec>,
    /// Where the version comes from.
    #[serde(default)]
    pub lineage: Lineage,
    /// What is verified before the version serves.
    #[serde(default)]
    pub checks: Checks,
}

impl Manifest {
    /// Reads a manifest as the registry holds it.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_MAX_BYTES {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let head: Head = serde_json::from_slice(bytes)?;
        if head.schema != MANIFEST_SCHEMA {
            return Err(ManifestError::Schema(head.schema));
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The exact bytes that are stored and signed: compact JSON, fields in declaration order.
    pub fn to_json(&self) -> Result<Vec<u8>, ManifestError> {
        let bytes = serde_json::to_vec(self)?;
        if bytes.len() > MANIFEST_MAX_BYTES {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }
}

/// The ONNX file of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Where the file lies when it is not in the registry's own topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

/// What executes a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// tract, in the process.
    #[default]
    Tract,
    /// ONNX Runtime, a shared library.
    OnnxRuntime,
    /// tract if it runs the graph and passes the golden rows, else ONNX Runtime.
    Auto,
}

impl RuntimeKind {
    /// Its name in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tract => "tract",
            Self::OnnxRuntime => "onnxruntime",
            Self::Auto => "auto",
        }
    }
}

/// How one ONNX input is filled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// The ONNX input.
    pub name: String,
    /// Event fields, in column order, one scalar each. Empty: the event field of the input's own
    /// name holds the whole row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<FeatureSpec>,
    /// The event field of the input's name holds the row as a string: numbers with this character
    /// between them, and perhaps one at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separator: Option<char>,
    /// What happens when a field is not there or null.
    #[serde(default, skip_serializing_if = "MissingSpec::is_default")]
    pub missing: MissingSpec,
}

/// One feature: its event field, or that with a policy of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum FeatureSpec {
    /// The event field.
    Name(String),
    /// The event field, with what happens when it is missing.
    Detailed {
        /// The event field.
        name: String,
        /// Overrides the input's policy.
        #[serde(default)]
        missing: MissingSpec,
    },
}

/// What happens when a field is not in the event, or is null.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MissingSpec {
    /// The field is not there. Default: reject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<PolicySpec>,
    /// The field is null. Default: NaN in a float input, reject elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null: Option<PolicySpec>,
}

impl MissingSpec {
    fn is_default(&self) -> bool {
        self.absent.is_none() && self.null.is_none()
    }
}

/// `"reject"`, `"nan"`, the number to use instead, or `{ text = "…" }` in a text input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PolicySpec {
    /// `"reject"` or `"nan"`.
    Named(NamedPolicy),
    /// This number.
    Constant(f64),
    /// This text.
    Text(TextConstant),
}

/// A text that stands in for a missing one: a table, since a bare text is a policy's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextConstant {
    /// The text.
    pub text: String,
}

/// The policies that have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NamedPolicy {
    /// The event is a dead letter.
    Reject,
    /// The value is NaN; float inputs only.
    Nan,
}

/// One output to emit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// The ONNX output.
    pub name: String,
    /// Its name in the prediction; default: the ONNX name.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub rename: Option<String>,
}

/// Where a version comes from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Lineage {
    /// The data it was trained on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub training_data: Vec<TrainingData>,
    /// The code that trained it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Hyperparameters, free form.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub hyperparameters: Map<String, Value>,
    /// Measured metrics, free form.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metrics: Map<String, Value>,
    /// Training framework and version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub framework: Option<String>,
    /// Identifier of the training run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// When it was made, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// The version it was derived from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Version>,
    /// What produced the ONNX file, from the file itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onnx_producer: Option<String>,
    /// Operator sets of the ONNX file, from the file itself: domain to version.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub opsets: Map<String, Value>,
    /// What goes into the ONNX file, from the file itself: name to type and axes.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub onnx_inputs: Map<String, Value>,
    /// What comes out of it.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub onnx_outputs: Map<String, Value>,
}

/// Data a version was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrainingData {
    /// Where the data is.
    pub uri: String,
    /// Its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Its number of rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// Code that trained a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Code {
    /// Where the code is.
    pub repository: String,
    /// The commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Whether the work tree had changes that are not in the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty: Option<bool>,
}

/// What is verified before a version serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Checks {
    /// Events with the outputs that the training framework gives for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub golden: Vec<GoldenRow>,
    /// More of them, in a file that is kept beside the artifact: there are too many for the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub golden_file: Option<GoldenFile>,
    /// Largest accepted |a−b| / max(1, |b|) between an output and its golden value.
    pub tolerance: f64,
    /// How much processor time scoring may take; a version that takes more is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyBudget>,
}

/// How much processor time a batch may take, at best of several tries while the version is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LatencyBudget {
    /// Events in the batch: the golden rows, over and over.
    pub rows: NonZeroU16,
    /// The most processor time that the model may take for it, in milliseconds.
    pub ms: f64,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            golden: Vec::new(),
            golden_file: None,
            tolerance: 1e-5,
            latency: None,
        }
    }
}

/// One event and the outputs expected for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GoldenRow {
    /// The event.
    pub input: Value,
    /// The outputs, as a prediction carries them.
    pub outputs: Map<String, Value>,
}

/// A manifest as people write it: all that cannot be derived from the ONNX file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ManifestDraft {
    /// `swapstream.manifest/v1`, optional.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The model's name; the command line wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelName>,
    /// The version; the command line wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// What executes the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeKind>,
    /// How the ONNX inputs are filled.
    pub inputs: Vec<InputSpec>,
    /// Which outputs a prediction carries.
    pub outputs: Vec<OutputSpec>,
    /// Where the version comes from.
    pub lineage: Lineage,
    /// What is verified before the version serves.
    pub checks: ChecksDraft,
}

/// [`Checks`] as people write them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChecksDraft {
    /// Golden rows, inline.
    pub golden: Vec<GoldenRow>,
    /// A file of golden rows, one JSON object a line, relative to the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub golden_file: Option<String>,
    /// See [`Checks::tolerance`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    /// See [`Checks::latency`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyBudget>,
}

impl ManifestDraft {
    /// Reads a draft written as TOML.
    pub fn from_toml(text: &str) -> Result<Self, ManifestError> {
        toml::from_str::<Self>(text)?.checked()
    }

    /// Reads a draft written as JSON.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        serde_json::from_slice::<Self>(bytes)?.checked()
    }

    fn checked(self) -> Result<Self, ManifestError> {
        match &self.schema {
            Some(schema) if schema != MANIFEST_SCHEMA => Err(ManifestError::Schema(schema.clone())),
            _ => Ok(self),
        }
    }

    /// The manifest of `artifact` as `model` / `version`, with golden rows of the draft's file
    /// already read into `golden`.
    pub fn finish(
        self,
        model: ModelName,
        version: Version,
        artifact: Artifact,
        golden: Vec<GoldenRow>,
    ) -> Manifest {
        let mut rows = self.checks.golden;
        rows.extend(golden);
        Manifest {
            schema: MANIFEST_SCHEMA.to_owned(),
            model,
            version,
            artifact,
            runtime: self.runtime.unwrap_or_default(),
            inputs: self.inputs,
            outputs: self.outputs,
            lineage: self.lineage,
            checks: Checks {
                golden: rows,
                golden_file: None,
                tolerance: self.checks.tolerance.unwrap_or(Checks::default().tolerance),
                latency: self.checks.latency,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAFT: &str = r#"
        model = "fraud"
        [[inputs]]
        name = "x"
        features = ["a", { name = "b", missing = { null = 1.5 } }]
        missing = { absent = "reject", null = "nan" }
        [[inputs]]
        name = "t"
        missing = { absent = { text = "reject" }, null = { text = "" } }
        [[outputs]]
        name = "p"
        as = "probability"
        [lineage]
        hyperparameters = { depth = 3 }
        [checks]
        tolerance = 1e-6
    "#;

    fn manifest() -> Manifest {
        let draft = ManifestDraft::from_toml(DRAFT).unwrap();
        let artifact = Artifact {
            digest: Digest::of(b"x"),
            bytes: 1,
            uri: None,
        };
        draft.finish(
            ModelName::new("fraud").unwrap(),
            Version::new("7").unwrap(),
            artifact,
            Vec::new(),
        )
    }

    #[test]
    fn a_draft_becomes_a_manifest_that_reads_back() {
        let manifest = manifest();
        let bytes = manifest.to_json().unwrap();
        assert_eq!(Manifest::from_json(&bytes).unwrap(), manifest);
        assert_eq!(manifest.checks.tolerance, 1e-6);
        assert_eq!(manifest.inputs[0].features.len(), 2);
        let text = |text: &str| {
            Some(PolicySpec::Text(TextConstant {
                text: text.to_owned(),
            }))
        };
        let missing = &manifest.inputs[1].missing;
        assert_eq!(
            (&missing.absent, &missing.null),
            (&text("reject"), &text(""))
        );
    }

    #[test]
    fn a_draft_with_a_typing_error_is_refused_and_a_newer_manifest_is_read() {
        assert!(ManifestDraft::from_toml("modle = \"x\"").is_err());
        let mut value = serde_json::to_value(manifest()).unwrap();
        value["later"] = Value::Bool(true);
        assert!(Manifest::from_json(value.to_string().as_bytes()).is_ok());
        value["schema"] = "swapstream.manifest/v9".into();
        let error = Manifest::from_json(value.to_string().as_bytes()).unwrap_err();
        assert!(
            error.to_string().contains("swapstream.manifest/v9"),
            "{error}"
        );
    }
}
