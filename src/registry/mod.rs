//! The control plane.

mod settings;

pub use settings::RegistrySettings;
