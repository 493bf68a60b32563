//! From the configuration file and the environment to the validated settings of each part. Every
//! mistake is reported, with its place, at once.

mod client;
mod error;
mod keys;
mod read;
mod render;
mod rules;
mod section;
mod stream;
mod tree;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::{ConfigError, ConfigErrors, Place};
pub use keys::{KEYS, KeyDoc, Presence, markdown};
pub use render::{about, duration, example, size};

use crate::http::HttpSettings;
use crate::kafka::KafkaSettings;
use crate::registry::{ProbeLimits, RegistrySettings};
use crate::runtime::RuntimeSettings;
use crate::stream::StreamSettings;
use crate::telemetry::LogSettings;

/// The file that is read from the working directory when no other is named.
pub const DEFAULT_FILE: &str = "swapstream.toml";

/// The whole configuration, validated.
#[derive(Clone, PartialEq)]
pub struct Config {
    /// Name of this instance; `None`: random per start.
    pub instance_id: Option<String>,
    /// How long a shutdown may take; default 30 s.
    pub shutdown_timeout: Duration,
    /// How to reach Kafka, `limits.kafka_memory` included.
    pub kafka: KafkaSettings,
    /// What a model may take while it is probed: `limits.probe_memory`, `limits.probe_time`.
    pub probe: ProbeLimits,
    /// The registry's topics, `limits.max_artifact_bytes` included.
    pub registry: RegistrySettings,
    /// The streams, by name.
    pub streams: Vec<StreamSettings>,
    /// The HTTP endpoints.
    pub http: HttpSettings,
    /// What executes models.
    pub runtime: RuntimeSettings,
    /// Logs.
    pub log: LogSettings,
    /// Client properties whose value came from a file: never printed.
    from_files: BTreeSet<String>,
}

/// Shows what [`Config::render`] shows: secrets stay masked in logs and panics.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render())
    }
}

/// Where the configuration came from; variables of the environment may add to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigSource {
    /// This file.
    File(PathBuf),
    /// Variables alone.
    Environment,
}

impl fmt::Display for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment => f.write_str("the environment"),
        }
    }
}

/// Whether a command needs streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// At least one: `run`, `config check`.
    Required,
    /// Kafka is enough: `model`, `dlq`. Streams that are there are checked all the same.
    Optional,
}

impl Config {
    /// Reads the configuration of `run`: the file `path`, else `./swapstream.toml` if it is
    /// there, else the environment alone. Variables `SWAPSTREAM__SECTION__KEY` override the file.
    pub fn load(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Self, ConfigSource), ConfigErrors> {
        Self::load_with(path, env, Streams::Required)
    }

    /// Like [`Self::load`], for commands that need Kafka only.
    pub fn load_for_model_commands(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Self, ConfigSource), ConfigErrors> {
        Self::load_with(path, env, Streams::Optional)
    }

    /// The `[runtime]` section alone, from the same places, for commands that need no Kafka:
    /// whatever else the file says is not theirs.
    pub fn load_runtime(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<RuntimeSettings, ConfigErrors> {
        let file = find(path)?;
        let file = file.as_ref().map(|(path, text)| (*path, text.as_str()));
        let (root, place, errors) = tree(file, env)?;
        read::runtime_alone(&root, &place, errors)
    }

    fn load_with(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        streams: Streams,
    ) -> Result<(Self, ConfigSource), ConfigErrors> {
        if let Some((file, text)) = find(path)? {
            let config = Self::parse(Some((file, &text)), env, streams)?;
            return Ok((config, ConfigSource::File(file.to_owned())));
        }
        let config = Self::parse(None, env, streams)?;
        Ok((config, ConfigSource::Environment))
    }

    /// Reads the configuration from the text of a file, if there is one, and variables.
    ///
    /// Files that client properties name are read as well; nothing else is.
    pub fn parse(
        file: Option<(&Path, &str)>,
        env: impl IntoIterator<Item = (String, String)>,
        streams: Streams,
    ) -> Result<Self, ConfigErrors> {
        let (root, place, errors) = tree(file, env)?;
        read::config(&root, &place, streams, errors)
    }

    /// The effective configuration as TOML, with secrets masked.
    pub fn render(&self) -> String {
        render::render(self)
    }
}

/// The file `path`, else the one in the working directory, if it is there, and its text.
fn find(path: Option<&Path>) -> Result<Option<(&Path, String)>, ConfigErrors> {
    let (file, must_exist) = match path {
        Some(path) => (path, true),
        None => (Path::new(DEFAULT_FILE), false),
    };
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some((file, text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => Ok(None),
        Err(error) => Err(ConfigErrors::unreadable(file, &error)),
    }
}

/// What file and variables say together, and what is wrong with the variables.
fn tree(
    file: Option<(&Path, &str)>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<(tree::Table, Place, Vec<ConfigError>), ConfigErrors> {
    let mut errors = Vec::new();
    let (mut root, place) = match file {
        Some((path, text)) => tree::from_toml(path, text)?,
        None => (tree::Table::default(), Place::Environment),
    };
    tree::apply_environment(&mut root, env, &mut errors);
    Ok((root, place, errors))
}

/// The environment of this process, without what is no Unicode.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
