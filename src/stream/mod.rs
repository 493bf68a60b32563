//! The data plane.

mod settings;

pub use settings::{
    ErrorPolicy, NonFiniteOutputs, OnDataLoss, ProcessingGuarantee, StartFrom, StreamSettings,
};
