//! `swapstream model history`: who deployed what, when and why, and for how long it served.

use clap::Args;
use serde::Serialize;

use super::table::{or_dash, table};
use super::{Context, Failure, Output, now_ms, print, time};
use crate::config::duration;
use crate::model::{Digest, ModelName, Version};
use crate::registry::{HistoryEntry, ModelLog, Outcome, read_deployments_left};

#[derive(Debug, Args)]
#[command(
    after_help = "Example: swapstream model history late-arrival --output json | jq '.events[-1]'"
)]
pub(super) struct HistoryArgs {
    /// The model.
    model: ModelName,
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    model: &'a ModelName,
    /// Oldest first.
    events: Vec<Event<'a>>,
}

#[derive(Serialize)]
struct Event<'a> {
    revision: i64,
    action: Option<&'static str>,
    version: Option<&'a Version>,
    digest: Option<Digest>,
    by: Option<&'a str>,
    reason: Option<&'a str>,
    if_revision: Option<i64>,
    /// The broker's clock.
    at: Option<String>,
    effective: bool,
    /// Why it does not count.
    why: Option<&'a str>,
    /// When the next event that counts took its place.
    until: Option<String>,
    /// How long it was what is to serve, up to now.
    served_ms: Option<u64>,
    /// Whether it is what is to serve now.
    current: bool,
}

pub(super) fn run(args: &HistoryArgs, context: &Context) -> Result<(), Failure> {
    let log = read_deployments_left(&context.logs())?;
    let Some(model) = log.model(&args.model) else {
        return Err(Failure::Failed(format!(
            "model {} was never deployed",
            args.model
        )));
    };
    let report = Report {
        schema: "swapstream.model-history/v1",
        model: &args.model,
        events: events(model, now_ms()),
    };
    print(args.output, &report, || text(&report))
}

fn events(log: &ModelLog, now: i64) -> Vec<Event<'_>> {
    let current = log.desired().map(|candidate| candidate.revision);
    let one = |entry: &HistoryEntry| current == Some(entry.revision);
    log.history()
        .iter()
        .map(|entry| {
            let event = entry.event.as_ref();
            let tenure = log.tenure(entry.revision);
            Event {
                revision: entry.revision,
                action: event.map(|event| event.action.as_str()),
                version: event.and_then(|event| event.version.as_ref()),
                digest: event.and_then(|event| event.digest),
                by: event.and_then(|event| event.by.as_deref()),
                reason: event.and_then(|event| event.reason.as_deref()),
                if_revision: event.and_then(|event| event.if_revision),
                at: time(entry.timestamp),
                effective: entry.outcome.is_effective(),
                why: match &entry.outcome {
                    Outcome::Effective => None,
                    Outcome::Void(why) | Outcome::NotFollowed(why) => Some(why),
                },
                until: tenure.and_then(|tenure| time(tenure.until)),
                served_ms: tenure.map(|tenure| tenure.ms(now)),
                current: one(entry),
            }
        })
        .collect()
}

fn text(report: &Report<'_>) -> String {
    let rows: Vec<Vec<String>> = report.events.iter().map(row).collect();
    table(
        &[
            "REVISION", "AT", "WHAT", "VERSION", "BY", "SERVED", "REASON",
        ],
        &rows,
    )
}

fn row(event: &Event<'_>) -> Vec<String> {
    let served = event.served_ms.map(|ms| {
        let seconds = std::time::Duration::from_secs(ms / 1000);
        let length = if ms < 1000 {
            format!("{ms}ms")
        } else {
            duration(seconds)
        };
        if event.current {
            format!("{length}, now")
        } else {
            length
        }
    });
    let what = event.action.unwrap_or("unreadable");
    vec![
        event.revision.to_string(),
        or_dash(event.at.as_deref()),
        if event.effective {
            what.to_owned()
        } else {
            format!("{what} (void)")
        },
        or_dash(event.version),
        or_dash(event.by),
        or_dash(served),
        or_dash(event.reason.or(event.why)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::DeploymentLog;

    #[test]
    fn who_what_when_and_for_how_long() {
        let mut log = DeploymentLog::new();
        let mut put = |offset: i64, rest: &str| {
            let text = format!(r#"{{"schema":"swapstream.deployment/v1","model":"m",{rest}}}"#);
            log.apply(
                offset,
                Some(b"m"),
                Some(text.as_bytes()),
                Some(offset * 60_000),
            );
        };
        put(
            0,
            r#""action":"deploy","version":"1","by":"ann","reason":"first""#,
        );
        put(
            1,
            r#""action":"deploy","version":"2","by":"bob","if_revision":-1"#,
        );
        put(
            2,
            r#""action":"deploy","version":"2","by":"bob","if_revision":0"#,
        );
        put(3, r#""action":"canary","version":"3""#);
        let model = ModelName::new("m").unwrap();
        let events = events(log.model(&model).unwrap(), 4 * 60_000);
        assert_eq!(events[0].served_ms, Some(120_000));
        assert_eq!((events[1].effective, events[1].served_ms), (false, None));
        assert!(events[1].why.unwrap().contains("expects revision -1"));
        assert_eq!(
            (events[2].served_ms, events[2].current),
            (Some(120_000), true)
        );
        assert_eq!(events[3].action, None);
        let report = Report {
            schema: "s",
            model: &model,
            events,
        };
        let text = text(&report);
        for part in [
            "ann",
            "2m",
            "2m, now",
            "deploy (void)",
            "unreadable (void)",
            "first",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
