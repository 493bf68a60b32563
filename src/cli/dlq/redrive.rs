//! `swapstream dlq redrive`: sends dead letters back to their input topics, each once.

use std::time::SystemTime;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::filter::FilterArgs;
use super::{Context, Failure, Output, TopicArgs, terminal};
use crate::cli::model::lineage::user;
use crate::cli::model::print;
use crate::dlq::{self, RedriveReport, RedriveRequest, Rules};
use crate::registry::rfc3339;

#[derive(Debug, Args)]
#[command(
    after_help = "A record is sent once, whichever options are used and however often the command \
    runs: what was\nsent is marked in the dead-letter topic, in the same transaction. To send \
    everything that failed\nunder version 7 of a model: swapstream dlq redrive --model-version 7"
)]
pub(super) struct RedriveArgs {
    #[command(flatten)]
    pub(super) topic: TopicArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Send nothing, tell what would be sent.
    #[arg(long)]
    dry_run: bool,
    /// Send to this topic; default: the input topic that the headers name.
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,
    /// Leave events that have failed this often.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: u32,
    /// Send at most so many.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// The timestamp of what is sent.
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    timestamps: Timestamps,
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Timestamps {
    /// The dead letter's, which is the input's.
    #[default]
    Original,
    /// The moment of sending.
    Now,
}

pub(super) fn run(args: &RedriveArgs, context: &Context) -> Result<(), Failure> {
    let topic = &context.topic;
    if args.to.as_ref() == Some(topic) {
        let message = format!("--to {topic:?} is the dead-letter topic itself");
        return Err(Failure::Usage(message));
    }
    let request = RedriveRequest {
        rules: Rules {
            filter: args.filter.filter(),
            max_attempts: args.max_attempts,
            to: args.to.clone(),
            sources: context.sources.clone(),
            timestamps: match args.timestamps {
                Timestamps::Original => dlq::Timestamps::Original,
                Timestamps::Now => dlq::Timestamps::Now,
            },
        },
        limit: args.limit,
        at: Some(rfc3339(SystemTime::now())),
        by: user(),
    };
    let report = if args.dry_run {
        dlq::dry_run(&context.kafka, topic, &request)?
    } else {
        let bar = bar();
        let report = dlq::redrive(&context.kafka, topic, &request, &mut |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        report?
    };
    print(args.output, &report, || text(&report))
}

fn bar() -> ProgressBar {
    if !terminal::is_watched() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("{bar:40} {pos}/{len} dead letters {per_sec}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn text(report: &RedriveReport) -> String {
    let done = if report.dry_run {
        "would be redriven"
    } else {
        "redriven"
    };
    let (all, sent) = (report.dead_letters, report.redriven);
    let mut lines = vec![format!(
        "{sent} of {all} dead letters of {} {done}",
        report.topic
    )];
    for sent in &report.sent {
        lines.push(format!("{:>8} to {}", sent.records, sent.topic));
    }
    let left = [
        (report.already_redriven, "redriven before"),
        (
            report.max_attempts,
            "failed as often as --max-attempts allows",
        ),
        (
            report.truncated,
            "cut: the whole is only where the input is",
        ),
        (report.too_large, "larger than the topic takes"),
        (
            report.other_source,
            "from no input topic of a configured stream: name a topic with --to",
        ),
        (report.over_limit, "more than --limit"),
    ];
    for (count, why) in left.into_iter().filter(|(count, _)| *count > 0) {
        lines.push(format!("{count:>8} left: {why}"));
    }
    lines.join("\n")
}
