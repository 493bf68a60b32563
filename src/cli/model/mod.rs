//! `swapstream model …`: publish, deploy and look at models. One file a subcommand.

mod copy;
mod delete;
mod deploy;
mod diff;
mod export;
mod gc;
mod history;
mod import;
pub(super) mod lineage;
mod list;
mod measure;
mod publish;
mod rollback;
mod show;
mod sign;
mod source;
mod status;
pub(super) mod table;
mod undeploy;
mod upload;
mod wait;

use std::path::Path;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Failure, Output, inspect, load_for_commands, terminal};
use crate::kafka::KafkaSettings;
use crate::model::{Manifest, ModelName, Version};
use crate::registry::{
    Attribution, Catalog, EntryKind, KafkaLogs, ProbeLimits, RegistryError, RegistrySettings,
    rfc3339,
};
use crate::runtime::RuntimeSettings;

#[derive(Debug, Args)]
pub(super) struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    /// Put an ONNX file and its manifest into the registry as an immutable version.
    Publish(publish::PublishArgs),
    /// Let a version serve from now on.
    Deploy(deploy::DeployArgs),
    /// Let the version before serve again, or a named one.
    Rollback(rollback::RollbackArgs),
    /// Let nothing of a model serve: its streams wait.
    Undeploy(undeploy::UndeployArgs),
    /// Show who deployed what, when and why, and for how long it served.
    History(history::HistoryArgs),
    /// Compare two versions: metrics, lineage, signature, contract, size.
    Diff(diff::DiffArgs),
    /// List the models, their versions and what is deployed.
    List(list::ListArgs),
    /// Show a version: its manifest with contract, lineage and checks.
    Show(show::ShowArgs),
    /// Show which version each live instance serves, works on, or refused and why.
    Status(status::StatusArgs),
    /// Take a version that nobody needs out of the registry, for good.
    Delete(delete::DeleteArgs),
    /// Write a version with its manifest and signature to a file.
    Export(export::ExportArgs),
    /// Put an exported version into this registry as it is.
    Import(import::ImportArgs),
    /// Copy a version into another registry as it is.
    Copy(copy::CopyArgs),
    /// Free what interrupted publications and instances that are gone have left.
    Gc(gc::GcArgs),
    /// Show what an ONNX file holds and whether this build runs it. Needs no Kafka.
    Inspect(inspect::InspectArgs),
}

pub(super) fn run(args: ModelArgs, config: Option<&Path>) -> Result<(), Failure> {
    let context = || Context::load(config);
    match args.command {
        ModelCommand::Publish(args) => publish::run(&args, &context()?),
        ModelCommand::Deploy(args) => deploy::run(&args, &context()?),
        ModelCommand::Rollback(args) => rollback::run(&args, &context()?),
        ModelCommand::History(args) => history::run(&args, &context()?),
        ModelCommand::Diff(args) => diff::run(&args, &context()?),
        ModelCommand::Undeploy(args) => undeploy::run(&args, &context()?),
        ModelCommand::List(args) => list::run(&args, &context()?),
        ModelCommand::Show(args) => show::run(&args, &context()?),
        ModelCommand::Status(args) => status::run(&args, &context()?),
        ModelCommand::Inspect(args) => inspect::run(&args, config),
        ModelCommand::Delete(args) => delete::run(&args, &context()?),
        ModelCommand::Export(args) => export::run(&args, &context()?),
        ModelCommand::Import(args) => import::run(&args, &context()?),
        ModelCommand::Copy(args) => copy::run(&args, &context()?),
        ModelCommand::Gc(args) => gc::run(&args, &context()?),
    }
}

/// What every subcommand that needs Kafka works with.
struct Context {
    kafka: KafkaSettings,
    registry: RegistrySettings,
    probe: ProbeLimits,
    runtime: RuntimeSettings,
}

impl Context {
    fn load(config: Option<&Path>) -> Result<Self, Failure> {
        let config = load_for_commands(config)?;
        Ok(Self {
            kafka: config.kafka,
            registry: config.registry,
            probe: config.probe,
            runtime: config.runtime,
        })
    }

    fn logs(&self) -> KafkaLogs {
        KafkaLogs::new(self.kafka.clone(), self.registry.clone())
    }
}

/// The manifest of a version; where there is none, why.
fn manifest_of<'a>(
    catalog: &'a Catalog,
    model: &ModelName,
    version: &Version,
) -> Result<&'a Manifest, Failure> {
    let what = format!("version {version} of {model}");
    let why = match catalog.get(model, version).map(|entry| &entry.kind) {
        Some(EntryKind::Manifest(manifest)) => return Ok(manifest),
        Some(EntryKind::Deleted(deletion)) => {
            let by = deletion.by.as_deref().unwrap_or("unknown");
            let at = deletion.at.as_deref().unwrap_or("unknown");
            format!("{what} was deleted, by {by}, at {at}")
        }
        Some(EntryKind::Unreadable(why)) => format!("{what} cannot be read: {why}"),
        None => format!("there is no {what}"),
    };
    Err(Failure::Failed(why))
}

/// Who does something and why.
#[derive(Debug, Args)]
struct WhoArgs {
    /// Do it only if this is the revision of the model's last effective event (-1: none).
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    if_revision: Option<i64>,
    /// Why; kept in the deployment log.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who; default: the user of this process.
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
}

impl WhoArgs {
    fn attribution(&self) -> Attribution {
        Attribution {
            by: self.by.clone().or_else(lineage::user),
            reason: self.reason.clone(),
            at: rfc3339(SystemTime::now()),
        }
    }
}

/// How long to wait for the instances.
#[derive(Debug, Args)]
struct WaitArgs {
    /// Return once all live instances have done it; fail with their reasons if they do not.
    #[arg(long)]
    wait: bool,
    /// How long `--wait` waits.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    timeout: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::failed(error)
    }
}

/// Prints `value` as one line of JSON, or `text`.
pub(super) fn print(
    output: Output,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    match output {
        Output::Json => terminal::line(&serde_json::to_string(value).map_err(Failure::failed)?),
        Output::Text => terminal::line(text().trim_end()),
    }
}

/// This moment, milliseconds since 1970.
fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A record's timestamp, RFC 3339.
pub(super) fn time(milliseconds: Option<i64>) -> Option<String> {
    let milliseconds = u64::try_from(milliseconds?).ok()?;
    Some(rfc3339(
        SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(time(Some(0)).as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(time(Some(-1)), None);
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert!(duration("soon").is_err());
    }
}
