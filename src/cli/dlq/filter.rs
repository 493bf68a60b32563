//! The options that say which dead letters are meant.

use std::time::{Duration, SystemTime};

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::codec::Stage;
use crate::dlq::Filter;

/// Which dead letters are meant. What is given several times, or comma-separated, lets each
/// through.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which dead letters")]
pub(super) struct FilterArgs {
    /// Only those that failed in this stage.
    #[arg(long, value_name = "STAGE", value_delimiter = ',', value_parser = stages())]
    stage: Vec<String>,
    /// Only those of this class.
    #[arg(long, value_name = "CLASS", value_delimiter = ',')]
    class: Vec<String>,
    /// Only those that failed under this model.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    model: Vec<String>,
    /// Only those that failed under this version.
    #[arg(long = "model-version", value_name = "VERSION", value_delimiter = ',')]
    version: Vec<String>,
    /// Only those whose input is in this topic.
    #[arg(long, value_name = "TOPIC", value_delimiter = ',')]
    source_topic: Vec<String>,
    /// Only the record at this place in the dead-letter topic.
    #[arg(long = "record", value_name = "PARTITION:OFFSET", value_delimiter = ',', value_parser = place)]
    places: Vec<(i32, i64)>,
    /// Only those with this timestamp or a later one: a time in UTC, such as
    /// 2026-01-31T08:00:00Z, or how long ago, such as 2h.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<SystemTime>,
    /// Only those with an earlier timestamp.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<SystemTime>,
}

impl FilterArgs {
    pub(super) fn filter(&self) -> Filter {
        let named = |stage: &Stage| self.stage.iter().any(|name| name == stage.as_str());
        Filter {
            stages: Stage::ALL.into_iter().filter(named).collect(),
            classes: self.class.clone(),
            models: self.model.clone(),
            versions: self.version.clone(),
            source_topics: self.source_topic.clone(),
            places: self.places.clone(),
            since: self.since.map(milliseconds),
            until: self.until.map(milliseconds),
        }
    }
}

fn stages() -> PossibleValuesParser {
    PossibleValuesParser::new(Stage::ALL.map(Stage::as_str))
}

/// A place in the dead-letter topic.
pub(super) fn place(text: &str) -> Result<(i32, i64), String> {
    let parsed = text.split_once(':').and_then(|(partition, offset)| {
        let place: (i32, i64) = (partition.parse().ok()?, offset.parse().ok()?);
        (place.0 >= 0 && place.1 >= 0).then_some(place)
    });
    parsed.ok_or_else(|| "expected PARTITION:OFFSET, such as 0:17".to_owned())
}

fn moment(text: &str) -> Result<SystemTime, String> {
    at(text, SystemTime::now())
}

/// A time, or how long before `now`.
fn at(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let ago = |ago: Duration| now.checked_sub(ago);
    humantime::parse_rfc3339_weak(text)
        .ok()
        .or_else(|| humantime::parse_duration(text).ok().and_then(ago))
        .ok_or_else(|| {
            "expected a time in UTC, such as 2026-01-31T08:00:00Z, or how long ago, such as 2h"
                .to_owned()
        })
}

/// Milliseconds since 1970; 0 for what is before.
fn milliseconds(time: SystemTime) -> i64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moments_or_spans() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        let read = |text| at(text, now).map(milliseconds);
        assert_eq!(read("1970-01-01T00:00:01Z"), Ok(1_000));
        assert_eq!(read("1970-01-01 00:00:01"), Ok(1_000));
        assert_eq!(read("2h"), Ok(2_800_000));
        assert!(read("yesterday").is_err());
    }

    #[test]
    fn places_are_not_negative() {
        assert_eq!(place("3:17"), Ok((3, 17)));
        for wrong in ["3", "3:", "-1:2", "1:-2", "a:b"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
