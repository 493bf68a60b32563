//! `swapstream dlq list`: counts by stage and class, and the newest dead letters.

use std::fmt::Write as _;

use clap::Args;

use super::filter::FilterArgs;
use super::show::escaped;
use super::{Context, Failure, Output, TopicArgs};
use crate::cli::model::table::{or_dash, table};
use crate::cli::model::{print, time};
use crate::dlq::{DeadLetterTopic, Listing, Row, list};

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) topic: TopicArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Leave out what was sent again.
    #[arg(long)]
    pending: bool,
    /// Show at most so many rows, the newest; the counts are of all.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &ListArgs, context: &Context) -> Result<(), Failure> {
    let topic = DeadLetterTopic::open(&context.kafka, &context.topic)?;
    let listing = list(&topic, &args.filter.filter(), args.pending, args.limit)?;
    print(args.output, &listing, || text(&listing))
}

fn text(listing: &Listing) -> String {
    let topic = &listing.topic;
    if listing.dead_letters == 0 {
        return format!("no such dead letters in {topic}");
    }
    let counts: Vec<Vec<String>> = listing
        .counts
        .iter()
        .map(|count| {
            vec![
                count.stage.clone(),
                count.class.clone(),
                count.dead_letters.to_string(),
                count.redriven.to_string(),
            ]
        })
        .collect();
    let mut text = table(&["STAGE", "CLASS", "DEAD LETTERS", "REDRIVEN"], &counts);
    if listing.other_records > 0 {
        // Writing to a string does not fail.
        _ = writeln!(text, "and {} records of others", listing.other_records);
    }
    if !listing.records.is_empty() {
        let rows: Vec<Vec<String>> = listing.records.iter().map(row).collect();
        let head = [
            "RECORD", "TIME", "STAGE", "CLASS", "MODEL", "ATTEMPT", "INPUT", "STATE", "MESSAGE",
        ];
        text.push('\n');
        text.push_str(&table(&head, &rows));
    }
    let hidden = listing.dead_letters - listing.records.len() as u64;
    if hidden > 0 {
        _ = writeln!(text, "{hidden} older ones are not shown: --limit");
    }
    text
}

fn row(row: &Row) -> Vec<String> {
    let letter = &row.letter;
    let model = letter.model.as_ref().map(|model| {
        let version = letter.version.as_deref().unwrap_or("?");
        format!("{model} {version}")
    });
    let source = &letter.source;
    let input = match (&source.topic, source.partition, source.offset) {
        (Some(topic), Some(partition), Some(offset)) => {
            Some(format!("{topic} {partition}:{offset}"))
        }
        _ => None,
    };
    let state = match (row.redriven, letter.truncated) {
        (true, _) => "redriven",
        (false, true) => "cut",
        (false, false) => "pending",
    };
    vec![
        format!("{}:{}", letter.partition, letter.offset),
        or_dash(time(letter.timestamp)),
        letter.stage.clone(),
        letter.class.clone(),
        or_dash(model),
        letter.attempt.to_string(),
        or_dash(input),
        state.to_owned(),
        // A message is for people and may hold anything that a model or a runtime says.
        or_dash(
            letter
                .message
                .as_deref()
                .map(|text| escaped(Some(text.as_bytes()))),
        ),
    ]
}
