//! Sets up tracing: text or JSON lines on stderr.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Log settings, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// How log lines look.
    pub format: LogFormat,
    /// What is logged: a level, or levels by module (`info,swapstream::stream=debug`).
    pub level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A part of a filter is neither a level nor `module=level`.
    #[error(
        "{part:?} is no log level: allowed are off, error, warn, info, debug, trace, alone or as \
         module=level, comma-separated"
    )]
    Level {
        /// The part of the filter that is wrong.
        part: String,
    },
    /// Something has set up logging before.
    #[error("logging is set up already: {0}")]
    Twice(String),
}

/// Checks that `level` is a filter that means something.
///
/// The filter syntax itself takes any word for a module's name: `inof` would log nothing at all.
pub fn check_level(level: &str) -> Result<(), LogError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for part in level.split(',').map(str::trim) {
        let word = part.rsplit_once('=').map_or(part, |(_, word)| word.trim());
        if !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word)) {
            return Err(LogError::Level {
                part: part.chars().take(100).collect(),
            });
        }
    }
    Ok(())
}

/// Starts logging to stderr. `rust_log`, the variable `RUST_LOG`, wins over the configured level.
///
/// To be called once, by the program; libraries and tests leave it alone.
pub fn init(settings: &LogSettings, rust_log: Option<&str>) -> Result<(), LogError> {
    let level = match rust_log.map(str::trim) {
        Some(level) if !level.is_empty() => level.to_owned(),
        // tract warns of every file whose opset is newer than the ones it lists; what it cannot
        // run is refused all the same. What is configured for it comes later, and wins.
        _ => format!("tract_onnx=error,{}", settings.level),
    };
    let filter = EnvFilter::builder()
        .parse(&level)
        .map_err(|_| LogError::Level {
            part: level.chars().take(100).collect(),
        })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match settings.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| LogError::Twice(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_an_error_and_not_a_module() {
        for good in [
            "info",
            "WARN",
            "info,swapstream::stream=debug",
            "off, a=trace",
        ] {
            assert!(check_level(good).is_ok(), "{good}");
        }
        for bad in ["inof", "", "info,", "swapstream", "a=loud"] {
            assert!(check_level(bad).is_err(), "{bad}");
        }
    }
}
