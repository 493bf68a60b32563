//! The HTTP endpoints.

mod settings;

pub use settings::HttpSettings;
