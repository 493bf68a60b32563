//! `swapstream config`: check the configuration, print an example.

use std::path::Path;

use clap::{Args, Subcommand};

use super::{Failure, terminal};
use crate::config::{Config, environment, example};

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report every mistake with its place, or print the effective configuration, secrets masked.
    Check,
    /// Print a configuration with every key, its default and its meaning.
    Example,
}

pub(super) fn run(args: &ConfigArgs, path: Option<&Path>) -> Result<(), Failure> {
    match args.command {
        ConfigCommand::Example => terminal::line(example().trim_end()),
        ConfigCommand::Check => {
            let (config, source) = Config::load(path, environment())
                .map_err(|errors| Failure::Usage(errors.to_string()))?;
            terminal::note(&format!("configuration from {source} is valid"));
            terminal::line(config.render().trim_end())
        }
    }
}
