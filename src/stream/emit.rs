//! Sends what became of a record: its prediction, its dead letter, or nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::ErrorPolicy;
use super::session::{Exit, Session, Step};
use crate::codec::{DeadLetter, InputRef, RowError, Stage, passes_through, record_size};
use crate::kafka::{InputRecord, OutgoingRecord, RecordHeaders, SLOT_SHIFT, SendError, TOKEN_BITS};
use crate::record::Header;

/// The lowest bits of a token hold the input's timestamp.
const TIMESTAMP: u64 = (1 << TOKEN_BITS) - 1;
/// Token of a record whose latency is not measured.
const UNMEASURED: u64 = 0;

impl Session<'_> {
    /// Sends the prediction of the batch's record `index`, or what the policy has for it.
    pub(super) fn emit(&mut self, index: usize, record: &InputRecord<'_>) -> Step {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let input = InputRef::Record(record.origin());
        let encoded = self.active.scorer.encode(index, input, &mut text);
        let sent = match encoded {
            Ok(()) => self.send_prediction(record, &text)?,
            Err(error) => Err(error),
        };
        self.text = text;
        match sent {
            Ok(()) => Ok(()),
            Err(error) => self.refuse(record, &error),
        }
    }

    /// Why the output topic would refuse a prediction of `size` bytes, by its settings.
    fn not_taken(
        &self,
        size: usize,
        key: Option<&[u8]>,
        timestamp: Option<i64>,
    ) -> Option<RowError> {
        let topic = &self.settings.output_topic;
        let takes = &self.topics.output;
        let (class, why) = if size > takes.max_bytes {
            let limit = takes.max_bytes;
            let why = format!("the prediction has {size} bytes, topic {topic:?} takes {limit}");
            ("too_large", why)
        } else if !takes.takes_time(timestamp, self.now_ms) {
            let why = format!(
                "the event's timestamp, {} ms since 1970, is further from now than topic {topic:?} takes \
                 (message.timestamp.before.max.ms, message.timestamp.after.max.ms)",
                timestamp.unwrap_or_default()
            );
            ("timestamp", why)
        } else if takes.keyed && key.is_none() {
            let why = format!("the event has no key, and topic {topic:?} is compacted");
            ("missing_key", why)
        } else {
            return None;
        };
        Some(RowError::new(Stage::Produce, class, why))
    }

    /// The inner error is a prediction that its topic would refuse.
    fn send_prediction(
        &mut self,
        record: &InputRecord<'_>,
        text: &[u8],
    ) -> Step<Result<(), RowError>> {
        let mut headers = self.producer.template();
        let mut size = record_size(record.key(), Some(text), &[]) + 256;
        for (name, value) in record.headers().filter(|(name, _)| passes_through(name)) {
            size += name.len() + value.map_or(0, <[u8]>::len) + 10;
            headers = headers.with(&name, value);
        }
        let origin = record.origin();
        if let Some(error) = self.not_taken(size, record.key(), origin.timestamp) {
            return Ok(Err(error));
        }
        let timestamp = origin.timestamp.unwrap_or(0).max(0) as u64;
        let token = u64::from(self.active.slot) << SLOT_SHIFT | timestamp & TIMESTAMP;
        let settings = self.settings;
        let routes = &self.topics.output_routes;
        self.send(OutgoingRecord {
            topic: &settings.output_topic,
            partition: routes.partition(origin.topic, origin.partition, record.key().is_some()),
            key: record.key(),
            value: Some(text),
            timestamp: origin.timestamp,
            headers,
            token,
        })
    }

    /// Does with a failed record what the policy of its stage says.
    fn refuse(&mut self, record: &InputRecord<'_>, error: &RowError) -> Step {
        let origin = record.origin();
        match self.settings.policy(error.stage) {
            ErrorPolicy::DeadLetter => self.send_dead_letter(record, error),
            ErrorPolicy::Skip => {
                self.failed.push((ErrorPolicy::Skip, error.stage));
                tracing::debug!(
                    stream = self.settings.name,
                    "skipped {}-{} offset {}: {error}",
                    origin.topic,
                    origin.partition,
                    origin.offset
                );
                Ok(())
            }
            ErrorPolicy::Fail => Err(Exit::Failed(format!(
                "record at offset {} of {}-{} failed: {error}; the policy \
                 streams.{}.on_error.{} is \"fail\"",
                origin.offset, origin.topic, origin.partition, self.settings.name, error.stage
            ))),
        }
    }

    fn send_dead_letter(&mut self, record: &InputRecord<'_>, error: &RowError) -> Step {
        let serving = std::sync::Arc::clone(&self.active.serving);
        let headers: Vec<Header> = record
            .headers()
            .map(|(key, value)| Header {
                key: key.into_owned(),
                value: value.map(<[u8]>::to_vec),
            })
            .collect();
        let served = Some((&serving.model, &serving.version));
        let origin = record.origin();
        let mut letter = DeadLetter::new(origin, error, served, record.value(), &headers);
        if let Err(error) = letter.fit(record.key(), self.topics.dead_letter.max_bytes) {
            return Err(Exit::Failed(format!(
                "the dead letter of offset {} of {}-{} does not fit topic {:?}: {error}; raise \
                 the topic's max.message.bytes",
                origin.offset, origin.topic, origin.partition, self.settings.dead_letter_topic
            )));
        }
        if self.topics.dead_letter.keyed && record.key().is_none() {
            return Err(Exit::Failed(format!(
                "the dead letter of offset {} of {}-{} has no key, and topic {:?} is compacted: name \
                 another dead_letter_topic",
                origin.offset, origin.topic, origin.partition, self.settings.dead_letter_topic
            )));
        }
        // Its headers tell the input's.
        let takes_time = self
            .topics
            .dead_letter
            .takes_time(origin.timestamp, self.now_ms);
        let timestamp = origin.timestamp.filter(|_| takes_time);
        let headers = letter
            .headers
            .iter()
            .fold(RecordHeaders::new(letter.headers.len()), |all, header| {
                all.with(&header.key, header.value.as_deref())
            });
        let settings = self.settings;
        let routes = &self.topics.dead_letter_routes;
        let sent = self.send(OutgoingRecord {
            topic: &settings.dead_letter_topic,
            partition: routes.partition(origin.topic, origin.partition, record.key().is_some()),
            key: record.key(),
            value: letter.value.as_deref(),
            timestamp,
            headers,
            token: UNMEASURED,
        })?;
        match sent {
            Ok(()) => {
                self.failed.push((ErrorPolicy::DeadLetter, error.stage));
                tracing::debug!(
                    stream = self.settings.name,
                    "dead letter for {}-{} offset {}: {error}",
                    origin.topic,
                    origin.partition,
                    origin.offset
                );
                Ok(())
            }
            Err(error) => Err(Exit::Failed(format!("dead letter: {error}"))),
        }
    }

    /// Sends a record, waiting for room in the queue where there is none.
    fn send(&mut self, mut record: OutgoingRecord<'_>) -> Step<Result<(), RowError>> {
        self.begin_transaction()?;
        loop {
            match self.producer.send(&mut record) {
                Ok(()) => return Ok(Ok(())),
                Err(SendError::Full) => {
                    let before = self.producer.in_flight();
                    if before == 0 {
                        return Ok(Err(RowError::new(
                            Stage::Produce,
                            "too_large",
                            "it does not fit into the empty queue of the producer: raise \
                             queue.buffering.max.kbytes in [kafka.client]"
                                .to_owned(),
                        )));
                    }
                    self.wait(None, |session| session.producer.in_flight() < before)?;
                }
                Err(SendError::TooLarge(error)) => {
                    return Ok(Err(RowError::new(
                        Stage::Produce,
                        "too_large",
                        error.to_string(),
                    )));
                }
                Err(SendError::Failed(error)) if self.settings.exactly_once() => {
                    return Err(self.delivery_failed(&error));
                }
                Err(SendError::Failed(error)) => return Err(Exit::Rebuild(error.to_string())),
            }
        }
    }

    /// Counts what is settled: acknowledged (`at_least_once`) or committed (`exactly_once`)
    /// predictions and their latency, dead letters, skipped records.
    pub(super) fn count_settled(&mut self) {
        for (policy, stage) in self.failed.drain(..) {
            match policy {
                ErrorPolicy::Skip => self.metrics.skipped(stage.as_str()),
                _ => self.metrics.dead_letter(stage.as_str()),
            }
        }
        if self.tokens.is_empty() {
            return;
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let now = now.as_millis() as u64;
        let active = &self.active;
        // Buffers without atomics: these are as many as predictions.
        let latencies = active.metrics.end_to_end.local();
        let mut predictions = 0;
        for token in self.tokens.drain(..).filter(|token| *token != UNMEASURED) {
            let slot = (token >> SLOT_SHIFT) as u16;
            let sent_at = token & TIMESTAMP;
            let latency = || now.saturating_sub(sent_at) as f64 / 1000.0;
            if slot == active.slot {
                predictions += 1;
                if sent_at > 0 {
                    latencies.observe(latency());
                }
                continue;
            }
            let mut versions = self.versions.iter();
            if let Some((_, metrics)) = versions.find(|(known, _)| *known == slot) {
                metrics.predictions.inc();
                if sent_at > 0 {
                    metrics.end_to_end.observe(latency());
                }
            }
        }
        active.metrics.predictions.inc_by(predictions);
        latencies.flush();
    }

    /// Forgets what was not settled: it is scored again.
    pub(super) fn forget_settled(&mut self) {
        self.failed.clear();
        self.tokens.clear();
    }
}
