//! `swapstream dlq …`: look at dead letters and send them again. One file a subcommand.

mod filter;
mod list;
mod redrive;
mod show;

use std::collections::BTreeSet;
use std::path::Path;

use clap::{Args, Subcommand};

use super::{Failure, Output, load_for_commands, terminal};
use crate::dlq::DlqError;
use crate::kafka::KafkaSettings;
use crate::stream::StreamSettings;

#[derive(Debug, Args)]
pub(super) struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Debug, Subcommand)]
enum DlqCommand {
    /// Count the dead letters by stage and class, and list the newest.
    List(list::ListArgs),
    /// Show one dead letter with its headers, key and value.
    Show(show::ShowArgs),
    /// Send dead letters back to their input topics, each once.
    Redrive(redrive::RedriveArgs),
}

pub(super) fn run(args: DlqArgs, config: Option<&Path>) -> Result<(), Failure> {
    match args.command {
        DlqCommand::List(args) => list::run(&args, &args.topic.open(config)?),
        DlqCommand::Show(args) => show::run(&args, &args.topic.open(config)?),
        DlqCommand::Redrive(args) => redrive::run(&args, &args.topic.open(config)?),
    }
}

/// Which dead-letter topic.
#[derive(Debug, Args)]
struct TopicArgs {
    /// The stream whose dead letters are meant; default: the only one of the configuration.
    #[arg(long, value_name = "NAME", conflicts_with = "topic")]
    stream: Option<String>,
    /// The dead-letter topic, instead of a stream.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
}

/// What every subcommand works with.
#[derive(Debug)]
struct Context {
    kafka: KafkaSettings,
    /// The dead-letter topic.
    topic: String,
    /// The input topics of the configured streams that write to it; `None` where there are none.
    sources: Option<BTreeSet<String>>,
}

impl TopicArgs {
    fn open(&self, config: Option<&Path>) -> Result<Context, Failure> {
        let config = load_for_commands(config)?;
        let topic = choose(
            self.topic.as_deref(),
            self.stream.as_deref(),
            &config.streams,
        )
        .map_err(Failure::Usage)?;
        let sources: BTreeSet<String> = config
            .streams
            .iter()
            .filter(|stream| stream.dead_letter_topic == topic)
            .flat_map(|stream| stream.input_topics.iter().cloned())
            .collect();
        Ok(Context {
            kafka: config.kafka,
            topic,
            sources: (!sources.is_empty()).then_some(sources),
        })
    }
}

/// The dead-letter topic that is meant.
fn choose(
    topic: Option<&str>,
    stream: Option<&str>,
    streams: &[StreamSettings],
) -> Result<String, String> {
    let names = || {
        let names: Vec<&str> = streams.iter().map(|stream| stream.name.as_str()).collect();
        names.join(", ")
    };
    let chosen = match (topic, stream, streams) {
        (Some(topic), ..) => return Ok(topic.to_owned()),
        (None, Some(name), _) => streams
            .iter()
            .find(|stream| stream.name == name)
            .ok_or_else(|| format!("no stream {name:?} is configured; there are: {}", names()))?,
        (None, None, [only]) => only,
        (None, None, []) => {
            return Err("no stream is configured: name the topic with --topic".to_owned());
        }
        (None, None, [first, others @ ..]) => {
            let topic = &first.dead_letter_topic;
            if others.iter().any(|other| other.dead_letter_topic != *topic) {
                return Err(format!(
                    "several streams are configured: name one with --stream ({})",
                    names()
                ));
            }
            first
        }
    };
    Ok(chosen.dead_letter_topic.clone())
}

impl From<DlqError> for Failure {
    fn from(error: DlqError) -> Self {
        Self::failed(error)
    }
}
