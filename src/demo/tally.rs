//! What the feed and the verifier have seen so far: the one value that they share. Pure: records
//! and times come in as arguments.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use super::flights::{Flights, OUTPUT};
use super::latency::Latencies;
use super::ledger::{Answer, Ledger};
use super::quality::Quality;
use super::stage::StreamTopics;
use crate::codec::ERROR_PREFIX;
use crate::record::OwnedRecord;

/// Length of one bar of the rate's history.
pub(super) const BAR: Duration = Duration::from_millis(500);
/// Bars that are kept.
pub(super) const BARS: usize = 40;

/// What one version has answered.
#[derive(Debug)]
pub(super) struct VersionTally {
    /// Its revision, the newest if it was deployed more than once.
    pub(super) revision: i64,
    /// How good its answers are.
    pub(super) quality: Quality,
}

/// Everything seen so far. Times count from the start of the program's clock.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) ledger: Ledger,
    pub(super) latencies: Latencies,
    pub(super) predictions: u64,
    pub(super) dead_letters: u64,
    /// By version.
    pub(super) versions: BTreeMap<String, VersionTally>,
    /// When each deployment event was seen in its topic, by revision.
    pub(super) deployed: BTreeMap<i64, Duration>,
    /// When the first prediction of each revision was seen.
    pub(super) first_seen: BTreeMap<i64, Duration>,
    /// The version of the newest prediction.
    pub(super) serving: Option<String>,
    /// When feeding at the rate began.
    pub(super) started: Option<Duration>,
    /// When the last answer was seen.
    pub(super) last_answer: Option<Duration>,
    /// Answers in each [`BAR`], by its number.
    pub(super) bars: BTreeMap<u64, u64>,
}

/// The fields of a prediction that matter here.
#[derive(Deserialize)]
struct Prediction {
    version: String,
    revision: i64,
    outputs: BTreeMap<String, f64>,
    input: Input,
}

#[derive(Deserialize)]
struct Input {
    topic: String,
    partition: i32,
    offset: i64,
}

impl Tally {
    pub(super) fn new(partitions: i32) -> Self {
        Self {
            ledger: Ledger::new(usize::try_from(partitions).unwrap_or_default()),
            latencies: Latencies::default(),
            predictions: 0,
            dead_letters: 0,
            versions: BTreeMap::new(),
            deployed: BTreeMap::new(),
            first_seen: BTreeMap::new(),
            serving: None,
            started: None,
            last_answer: None,
            bars: BTreeMap::new(),
        }
    }

    /// Takes in a record of one of the topics that the verifier reads, seen at `now`.
    pub(super) fn observe(
        &mut self,
        record: &OwnedRecord,
        topics: &StreamTopics,
        flights: &Flights,
        now: Duration,
    ) {
        if record.topic == topics.output {
            self.predictions += 1;
            self.prediction(record, topics, flights, now);
        } else if record.topic == topics.deployments {
            self.deployed.entry(record.offset).or_insert(now);
        } else {
            self.dead_letters += 1;
            match error_origin(record) {
                Some(input) => _ = self.answer(&input, record, topics, flights, now),
                None => self.ledger.unreadable(),
            }
        }
    }

    fn prediction(
        &mut self,
        record: &OwnedRecord,
        topics: &StreamTopics,
        flights: &Flights,
        now: Duration,
    ) {
        let value = record.value.as_deref().unwrap_or_default();
        let Ok(prediction) = serde_json::from_slice::<Prediction>(value) else {
            return self.ledger.unreadable();
        };
        let Some(score) = prediction.outputs.get(OUTPUT) else {
            return self.ledger.unreadable();
        };
        let answer = self.answer(&prediction.input, record, topics, flights, now);
        let Answer::First { event, .. } = answer else {
            return;
        };
        let Some(flight) = flights.get(event) else {
            return;
        };
        self.first_seen.entry(prediction.revision).or_insert(now);
        let newest = self
            .first_seen
            .last_key_value()
            .map(|(revision, _)| *revision);
        let version = self
            .versions
            .entry(prediction.version.clone())
            .or_insert(VersionTally {
                revision: prediction.revision,
                quality: Quality::default(),
            });
        version.revision = version.revision.max(prediction.revision);
        version.quality.add(*score, flight.late);
        // The partitions switch a moment apart: what serves is the newest that was seen.
        if newest == Some(prediction.revision) {
            self.serving = Some(prediction.version);
        }
    }

    fn answer(
        &mut self,
        input: &Input,
        record: &OwnedRecord,
        topics: &StreamTopics,
        flights: &Flights,
        now: Duration,
    ) -> Answer {
        if input.topic != topics.input {
            self.ledger.unreadable();
            return Answer::Wrong;
        }
        let key = record.key.as_deref();
        let answer = self.ledger.answer(input.partition, input.offset, |event| {
            flights.get(event).map(|flight| flight.key) == key
        });
        if let Answer::First { sent, .. } = answer {
            self.last_answer = Some(now);
            // What was sent to see whether the workers have joined waited for just that.
            if self.started.is_some_and(|started| sent >= started) {
                self.latencies.add(now.saturating_sub(sent));
            }
            let bar = (now.as_millis() / BAR.as_millis()) as u64;
            *self.bars.entry(bar).or_default() += 1;
            while self.bars.len() > BARS {
                self.bars.pop_first();
            }
        }
        answer
    }
}

/// Where the event of a dead letter lay.
fn error_origin(record: &OwnedRecord) -> Option<Input> {
    let header = |name: &str| {
        let named = |key: &str| key.strip_prefix(ERROR_PREFIX) == Some(name);
        let header = record
            .headers
            .iter()
            .rev()
            .find(|header| named(&header.key))?;
        str::from_utf8(header.value.as_deref()?).ok()
    };
    Some(Input {
        topic: header("topic")?.to_owned(),
        partition: header("partition")?.parse().ok()?,
        offset: header("offset")?.parse().ok()?,
    })
}

/// The tally, shared by the threads of the demo.
#[derive(Debug)]
pub(super) struct SharedTally(Mutex<Tally>);

impl SharedTally {
    pub(super) fn new(partitions: i32) -> Self {
        Self(Mutex::new(Tally::new(partitions)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Header;

    fn topics() -> StreamTopics {
        StreamTopics {
            input: "in".into(),
            output: "out".into(),
            dead_letters: "dlq".into(),
            deployments: "deployments".into(),
        }
    }

    fn record(topic: &str, key: &[u8], value: String, headers: Vec<Header>) -> OwnedRecord {
        OwnedRecord {
            topic: topic.to_owned(),
            partition: 0,
            offset: 0,
            timestamp: None,
            key: Some(key.to_vec()),
            value: Some(value.into_bytes()),
            headers,
        }
    }

    fn prediction(input: &str, offset: i64, version: &str, revision: i64) -> String {
        format!(
            r#"{{"schema":"x","model":"m","version":"{version}","digest":"d","revision":{revision},
            "outputs":{{"late_probability":0.25}},
            "input":{{"topic":"{input}","partition":0,"offset":{offset},"timestamp":1}}}}"#
        )
    }

    fn dead_letter(offset: i64) -> Vec<Header> {
        [
            ("topic", "in".to_owned()),
            ("partition", "0".into()),
            ("offset", offset.to_string()),
        ]
        .map(|(name, value)| Header::text(format!("{ERROR_PREFIX}{name}"), value))
        .to_vec()
    }

    #[test]
    fn records_are_counted_for_what_they_are() {
        let flights = Flights::load().unwrap();
        let keys: Vec<Vec<u8>> = (0..5)
            .map(|i| flights.get(i).unwrap().key.to_vec())
            .collect();
        let mut tally = Tally::new(1);
        tally.started = Some(Duration::ZERO);
        for event in 0..5 {
            tally.ledger.send(0, event, 1, Duration::from_millis(10));
        }
        let mut see = |topic: &str, key: usize, value: String, headers| {
            let record = record(topic, &keys[key], value, headers);
            tally.observe(&record, &topics(), &flights, Duration::from_millis(14));
        };
        see("out", 0, prediction("in", 0, "1", 0), vec![]);
        see("out", 1, prediction("in", 1, "2", 3), vec![]);
        see("out", 2, prediction("in", 2, "1", 0), vec![]);
        see("out", 2, prediction("in", 2, "2", 3), vec![]);
        see("dlq", 3, "{".into(), dead_letter(3));
        see("dlq", 3, "{".into(), vec![]);
        see("deployments", 0, "{}".into(), vec![]);
        see("out", 3, prediction("in", 4, "1", 0), vec![]);
        see("out", 4, prediction("other", 4, "1", 0), vec![]);
        see("out", 4, "{}".into(), vec![]);
        assert_eq!((tally.predictions, tally.dead_letters), (7, 2));
        assert_eq!(
            (tally.ledger.unanswered(), tally.ledger.duplicated()),
            (1, 1)
        );
        assert_eq!(tally.ledger.wrong(), 4);
        assert_eq!(tally.deployed.len(), 1);
        assert_eq!(
            tally.serving.as_deref(),
            Some("2"),
            "a late answer of 1 changes nothing"
        );
        assert_eq!(tally.versions["1"].quality.events(), 2);
        assert_eq!(tally.versions["2"].revision, 3);
        assert!((tally.latencies.quantile_ms(0.5).unwrap() - 4.0).abs() < 0.05);
    }
}
