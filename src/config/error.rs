//! Mistakes in the configuration: each with its place, its key, what is wrong and what is allowed.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A file as a whole.
    File(Arc<str>),
    /// A place in a file; line and column count from 1.
    Line {
        /// The file.
        file: Arc<str>,
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// The environment as a whole.
    Environment,
    /// A variable of the environment.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => f.write_str(file),
            Self::Line { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Environment => f.write_str("environment"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigError {
    /// Where it is.
    pub place: Place,
    /// The key's path, such as `streams.flights.workers`; empty for a file that cannot be read.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.place, self.message)
        } else {
            write!(f, "{}: {}: {}", self.place, self.key, self.message)
        }
    }
}

/// All mistakes of a configuration, in the order of the file and then of the variables' names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Sorts `errors`, of which there is at least one.
    pub(super) fn new(mut errors: Vec<ConfigError>) -> Self {
        debug_assert!(!errors.is_empty(), "an error without errors");
        errors.sort();
        errors.dedup();
        Self(errors)
    }

    pub(super) fn unreadable(file: &Path, error: &io::Error) -> Self {
        Self::new(vec![ConfigError {
            place: Place::File(file.display().to_string().into()),
            key: String::new(),
            message: format!("cannot be read: {error}"),
        }])
    }

    /// The mistakes.
    pub fn errors(&self) -> &[ConfigError] {
        &self.0
    }
}

/// One mistake a line.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(error, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
