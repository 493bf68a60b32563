//! `swapstream dlq show`: one dead letter with its headers, key and value.

use std::fmt::Write as _;
use std::io::Write as _;

use super::filter::place;
use super::{Context, Failure, Output, TopicArgs, terminal};
use crate::cli::model::{print, time};
use crate::dlq::{DeadLetterTopic, Found, ShownRecord};
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Its place in the dead-letter topic, as `list` shows it.
    #[arg(value_name = "PARTITION:OFFSET", value_parser = place)]
    place: (i32, i64),
    #[command(flatten)]
    pub(super) topic: TopicArgs,
    /// Print the value alone, byte by byte.
    #[arg(long, conflicts_with = "output")]
    raw: bool,
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &ShowArgs, context: &Context) -> Result<(), Failure> {
    let (partition, offset) = args.place;
    let topic = DeadLetterTopic::open(&context.kafka, &context.topic)?;
    let found = topic.find(partition, offset)?.ok_or_else(|| {
        Failure::Failed(format!(
            "no record at offset {offset} of {}-{partition}; `swapstream dlq list` shows what is \
             there",
            context.topic
        ))
    })?;
    if args.raw {
        let value = found.record.value.as_deref().unwrap_or_default();
        let mut out = std::io::stdout().lock();
        return terminal::written(out.write_all(value).and_then(|()| out.flush()));
    }
    let shown = ShownRecord::from(&found);
    print(args.output, &shown, || text(&found))
}

fn text(found: &Found) -> String {
    let record = &found.record;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string does not fail.
        _ = writeln!(text, "{name:<10} {value}");
    };
    let place = format!("{} {}:{}", record.topic, record.partition, record.offset);
    line("record", &place);
    line("time", time(record.timestamp).as_deref().unwrap_or("none"));
    let state = match (&found.letter, found.redriven) {
        (None, _) => "no dead letter of Swapstream's",
        (Some(_), true) => "redriven",
        (Some(letter), false) if letter.truncated => "cut: it cannot be redriven",
        (Some(_), false) => "pending",
    };
    line("state", state);
    for header in &record.headers {
        let value = escaped(header.value.as_deref());
        line(
            "header",
            &format!("{} = {value}", escaped(Some(header.key.as_bytes()))),
        );
    }
    line("key", &escaped(record.key.as_deref()));
    line("value", &escaped(record.value.as_deref()));
    text
}

/// Bytes as text that does nothing to a terminal.
pub(super) fn escaped(bytes: Option<&[u8]>) -> String {
    match bytes.map(|bytes| (bytes, str::from_utf8(bytes))) {
        None => "null".to_owned(),
        Some((_, Ok(text))) => {
            let mut out = String::with_capacity(text.len());
            for c in text.chars() {
                match c {
                    '"' | '\'' => out.push(c),
                    c => out.extend(c.escape_debug()),
                }
            }
            out
        }
        Some((bytes, Err(_))) => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_without_harm() {
        assert_eq!(escaped(None), "null");
        assert_eq!(escaped(Some("{\"a\":\"ä\"}".as_bytes())), "{\"a\":\"ä\"}");
        assert_eq!(escaped(Some(b"\x1b[2J\n\\")), "\\u{1b}[2J\\n\\\\");
        assert_eq!(escaped(Some(b"\xff\x00")), "\\xff\\x00");
    }
}
