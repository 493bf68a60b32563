//! What the demo comes to: the one JSON object, the table for people, and whether it is a success.
//! Pure.

use std::fmt::Write as _;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::progress::{self, VersionProgress};
use super::tally::Tally;
use super::view::thousands;

/// Value of `schema` in a summary.
pub const DEMO_SCHEMA: &str = "swapstream.demo/v1";

/// The summary, as `--output json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Summary {
    /// Always `swapstream.demo/v1`.
    pub schema: &'static str,
    /// `embedded`, or the address of the broker.
    pub broker: String,
    /// Events sent.
    pub events: u64,
    /// Records in the output topic.
    pub predictions: u64,
    /// Records in the dead-letter topic.
    pub dead_letters: u64,
    /// Events with neither a prediction nor a dead letter.
    pub lost: u64,
    /// Predictions and dead letters beyond the first of the same event.
    pub duplicated: u64,
    /// The swaps that showed in the output.
    pub swaps: Vec<Swap>,
    /// From sending an event to reading its answer from the output topic.
    pub latency_ms: LatencyMs,
    /// Answers a second while events were fed.
    pub throughput_per_s: f64,
    /// How good the versions' answers were.
    pub quality: QualityChange,
}

/// One change of the version that serves.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Swap {
    /// The version before.
    pub from: String,
    /// The version after.
    pub to: String,
    /// The offset of the deployment event.
    pub revision: i64,
    /// From the deployment event to the first prediction of the new version, both as a reader of
    /// the topics sees them.
    pub activated_after_ms: f64,
}

/// Latencies in milliseconds; `null` where nothing was answered.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct LatencyMs {
    /// The median.
    pub p50: Option<f64>,
    /// What 99 of 100 do not exceed.
    pub p99: Option<f64>,
    /// What 999 of 1000 do not exceed.
    pub p999: Option<f64>,
}

/// The quality of two versions, each over the events that it scored.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct QualityChange {
    /// `auc`.
    pub metric: &'static str,
    /// Of the version that served first.
    pub before: Option<f64>,
    /// Of the version that served last.
    pub after: Option<f64>,
}

/// What only the director knows.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) broker: String,
    pub(super) model: String,
    pub(super) before: String,
    pub(super) after: String,
    pub(super) swap: Option<Swap>,
    /// Ended by the user.
    pub(super) stopped: bool,
}

/// The summary, and what people are told besides.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The summary.
    pub summary: Summary,
    /// Why the demo is a failure; empty: it is none.
    pub problems: Vec<String>,
    model: String,
    fed: Duration,
    versions: Vec<VersionProgress>,
}

/// Sums up a run that is over.
pub(super) fn sum_up(tally: &Tally, run: Run) -> Outcome {
    let started = tally.started.unwrap_or_default();
    let fed = tally.last_answer.unwrap_or(started).saturating_sub(started);
    let answered = tally.ledger.sent() - tally.ledger.unanswered();
    let versions = progress::versions(tally);
    let auc = |name: &str| {
        let found = versions.iter().find(|version| version.version == name);
        found
            .and_then(|version| version.auc)
            .map(|auc| round(auc, 4))
    };
    let quantile = |share| tally.latencies.quantile_ms(share).map(|ms| round(ms, 3));
    let seconds = fed.as_secs_f64();
    let summary = Summary {
        schema: DEMO_SCHEMA,
        broker: run.broker,
        events: tally.ledger.sent(),
        predictions: tally.predictions,
        dead_letters: tally.dead_letters,
        lost: tally.ledger.unanswered(),
        duplicated: tally.ledger.duplicated(),
        swaps: run.swap.into_iter().collect(),
        latency_ms: LatencyMs {
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
        },
        throughput_per_s: if seconds > 0.0 {
            round(answered as f64 / seconds, 1)
        } else {
            0.0
        },
        quality: QualityChange {
            metric: "auc",
            before: auc(&run.before),
            after: auc(&run.after),
        },
    };
    let problems = problems(&summary, tally.ledger.wrong(), run.stopped);
    Outcome {
        summary,
        problems,
        model: run.model,
        fed,
        versions,
    }
}

fn problems(summary: &Summary, wrong: u64, stopped: bool) -> Vec<String> {
    let mut problems = Vec::new();
    if summary.lost > 0 {
        let lost = thousands(summary.lost);
        problems.push(format!(
            "{lost} events have neither a prediction nor a dead letter"
        ));
    }
    if summary.duplicated > 0 {
        let duplicated = thousands(summary.duplicated);
        problems.push(format!(
            "{duplicated} predictions or dead letters answer an event again"
        ));
    }
    if wrong > 0 {
        let wrong = thousands(wrong);
        problems.push(format!(
            "{wrong} records in the output topics answer no event that was sent"
        ));
    }
    // Who stops it before half time did not want to see the swap.
    if summary.swaps.is_empty() && !stopped {
        problems.push("no prediction of the second version was seen: no swap".to_owned());
    }
    problems
}

/// `value` with at most `digits` decimals.
pub(super) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

impl Outcome {
    /// The table for people.
    pub fn text(&self) -> String {
        let summary = &self.summary;
        let latency_ms = &summary.latency_ms;
        let mut out = String::new();
        let mut line = |name: &str, value: &str, note: &str| {
            // Writing to a string does not fail.
            _ = writeln!(
                out,
                "{}",
                format!("  {name:<14} {value:>11}   {note}").trim_end()
            );
        };
        line(
            "events",
            &thousands(summary.events),
            &format!(
                "real flights in {:.1} s, model {}",
                self.fed.as_secs_f64(),
                self.model
            ),
        );
        let rate = thousands(summary.throughput_per_s.round() as u64);
        line(
            "predictions",
            &thousands(summary.predictions),
            &format!("{rate} a second"),
        );
        line("dead letters", &thousands(summary.dead_letters), "");
        line(
            "lost",
            &thousands(summary.lost),
            "counted from the output topics,",
        );
        line(
            "duplicated",
            &thousands(summary.duplicated),
            "event by event",
        );
        let ms = |value: Option<f64>| value.map_or("–".to_owned(), |ms| format!("{ms:.1} ms"));
        let tail = format!(
            "median; p99 {}, p99.9 {}",
            ms(latency_ms.p99),
            ms(latency_ms.p999)
        );
        line("latency", &ms(latency_ms.p50), &tail);
        for swap in &summary.swaps {
            let note = format!(
                "first prediction {:.0} ms after the deployment",
                swap.activated_after_ms
            );
            line("swap", &format!("{} → {}", swap.from, swap.to), &note);
        }
        for (name, version) in ["quality (AUC)", ""].iter().zip(&self.versions) {
            let auc = version
                .auc
                .map_or("–".to_owned(), |auc| format!("{auc:.3}"));
            let note = format!(
                "version {}, {} events",
                version.version,
                thousands(version.events)
            );
            line(name, &auc, &note);
        }
        if summary.broker == "embedded" {
            out.push_str(
                "\nThe embedded broker is a stand-in: it keeps nothing and its transactions are\n\
                 empty. The guarantees are tested on Apache Kafka: `cargo test`.\n",
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stopped: bool) -> Run {
        Run {
            broker: "embedded".into(),
            model: "late-arrival".into(),
            before: "1".into(),
            after: "2".into(),
            swap: None,
            stopped,
        }
    }

    fn swap() -> Swap {
        Swap {
            from: "1".into(),
            to: "2".into(),
            revision: 1,
            activated_after_ms: 12.5,
        }
    }

    #[test]
    fn the_object_has_the_agreed_fields_in_order() {
        let outcome = sum_up(
            &Tally::new(1),
            Run {
                swap: Some(swap()),
                ..run(false)
            },
        );
        assert_eq!(
            serde_json::to_string(&outcome.summary).unwrap(),
            r#"{"schema":"swapstream.demo/v1","broker":"embedded","events":0,"predictions":0,"#
                .to_owned()
                + r#""dead_letters":0,"lost":0,"duplicated":0,"#
                + r#""swaps":[{"from":"1","to":"2","revision":1,"activated_after_ms":12.5}],"#
                + r#""latency_ms":{"p50":null,"p99":null,"p999":null},"throughput_per_s":0.0,"#
                + r#""quality":{"metric":"auc","before":null,"after":null}}"#
        );
        assert_eq!(outcome.problems, [""; 0]);
    }

    #[test]
    fn what_went_wrong_is_said() {
        let mut tally = Tally::new(1);
        tally.ledger.send(0, 0, 1, Duration::ZERO);
        tally.ledger.send(0, 1, 1, Duration::ZERO);
        tally.ledger.answer(0, 0, |_| true);
        tally.ledger.answer(0, 0, |_| true);
        tally.ledger.answer(0, 9, |_| true);
        let outcome = sum_up(&tally, run(false));
        assert_eq!((outcome.summary.lost, outcome.summary.duplicated), (1, 1));
        assert_eq!(outcome.problems.len(), 4, "{:?}", outcome.problems);
        assert_eq!(sum_up(&Tally::new(1), run(true)).problems, [""; 0]);
        assert_eq!(sum_up(&Tally::new(1), run(false)).problems.len(), 1);
    }

    #[test]
    fn the_table_fits_a_terminal_and_names_the_stand_in() {
        let mut tally = Tally::new(1);
        tally.started = Some(Duration::ZERO);
        tally.latencies.add(Duration::from_micros(123_456_789));
        let outcome = sum_up(
            &tally,
            Run {
                swap: Some(swap()),
                ..run(false)
            },
        );
        let text = outcome.text();
        assert!(
            text.contains("stand-in") && text.contains("cargo test"),
            "{text}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    }
}
