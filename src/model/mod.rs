//! What a model is, without running it: names, versions, digests, signatures, manifests and the
//! feature contract. Pure: no Kafka, no runtime, no clock.

mod contract;
mod digest;
mod golden;
mod manifest;
mod name;
mod signature;

pub use contract::{
    Contract, ContractError, Feature, InputContract, InputSource, Missing, MissingPolicy,
    OutputContract, Separator,
};
pub use digest::{Digest, Hasher};
pub use golden::{GOLDEN_INLINE_BYTES, GOLDEN_MAX_BYTES, GoldenFile, GoldenFileError};
pub use manifest::{
    Artifact, Checks, ChecksDraft, Code, FeatureSpec, GoldenRow, InputSpec, LatencyBudget, Lineage,
    MANIFEST_MAX_BYTES, MANIFEST_SCHEMA, METADATA_KEY, Manifest, ManifestDraft, ManifestError,
    MissingSpec, NamedPolicy, OutputSpec, PolicySpec, RuntimeKind, TextConstant, TrainingData,
};
pub use name::{ModelName, NameError, Version};
pub use signature::{ElementType, Signature, TensorSpec};
