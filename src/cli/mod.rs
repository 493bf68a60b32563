//! The command line. One file a command; the only place that prints.
//!
//! Exit codes: 0 done, 1 failed or refused, 2 wrong usage or configuration.

mod config;
mod demo;
mod dlq;
mod draft;
mod inspect;
mod model;
mod probe;
mod run;
mod score;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::telemetry::LogSettings;

/// Scores Kafka streams with ONNX models that are replaced while the stream runs.
#[derive(Debug, Parser)]
#[command(name = "swapstream", version, about, max_term_width = 100)]
#[command(
    after_help = "Try it: swapstream demo\nExit codes: 0 done, 1 failed or refused, 2 wrong \
                        usage or configuration."
)]
struct Cli {
    /// Configuration file; without it ./swapstream.toml if it is there, else the environment
    /// alone (`SWAPSTREAM__KAFKA__BOOTSTRAP_SERVERS` is enough for all of `model` and `dlq`).
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service: score the configured streams, follow the deployments.
    Run,
    /// Show it all in one process: events, models, a swap mid-stream. Needs nothing.
    Demo(demo::DemoArgs),
    /// Publish, deploy and look at models.
    Model(model::ModelArgs),
    /// Look at dead letters, and send them again.
    Dlq(dlq::DlqArgs),
    /// Score events from stdin to stdout, exactly as the service would.
    Score(score::ScoreArgs),
    /// Load a model in a process of its own; for `run`.
    #[command(name = crate::app::PROBE_COMMAND, hide = true)]
    Probe,
    /// Check the configuration, or print an example.
    Config(config::ConfigArgs),
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: one line, one JSON object.
    Json,
}

/// Why a command ends without having done its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Exit code 1: failed or refused.
    Failed(String),
    /// Exit code 2: wrong usage or configuration.
    Usage(String),
    /// Exit code 1, and everything was said already.
    Silent,
}

impl Failure {
    pub(crate) fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Runs the program with the arguments and the environment of the process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = cli.config.as_deref();
    let done = match cli.command {
        Command::Run => run::run(config),
        Command::Demo(args) => demo::run(&args),
        Command::Model(args) => model::run(args, config),
        Command::Dlq(args) => dlq::run(args, config),
        Command::Score(args) => score::run(&args, config),
        Command::Probe => probe::run(),
        Command::Config(args) => config::run(&args, config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => {
            terminal::error(&message);
            ExitCode::from(1)
        }
        Err(Failure::Usage(message)) => {
            terminal::error(&message);
            ExitCode::from(2)
        }
        Err(Failure::Silent) => ExitCode::from(1),
    }
}

/// The configuration of a command that needs Kafka only, with logs at `warn` for people who look
/// at the command's own output.
pub(crate) fn load_for_commands(path: Option<&Path>) -> Result<Config, Failure> {
    let (config, _) = Config::load_for_model_commands(path, crate::config::environment())
        .map_err(|errors| Failure::Usage(errors.to_string()))?;
    quiet_logs()?;
    crate::runtime::configure(&config.runtime);
    Ok(config)
}

/// Logs and runtimes of a command that needs no Kafka: of the configuration it reads `[runtime]`.
pub(crate) fn prepare_offline(path: Option<&Path>) -> Result<(), Failure> {
    let settings = Config::load_runtime(path, crate::config::environment())
        .map_err(|errors| Failure::Usage(errors.to_string()))?;
    quiet_logs()?;
    crate::runtime::configure(&settings);
    Ok(())
}

/// Logs of a command: warnings only, unless `RUST_LOG` asks for more.
pub(crate) fn quiet_logs() -> Result<(), Failure> {
    let settings = LogSettings {
        level: "warn".to_owned(),
        ..LogSettings::default()
    };
    start_logs(&settings)
}

/// Starts logging.
pub(crate) fn start_logs(settings: &LogSettings) -> Result<(), Failure> {
    let rust_log = std::env::var("RUST_LOG").ok();
    crate::telemetry::init(settings, rust_log.as_deref()).map_err(|e| Failure::Usage(e.to_string()))
}
