//! How the registry reads its topics: a trait, so that everything above it runs without Kafka in
//! tests, and the one implementation that is Kafka.

use std::fmt;
use std::time::{Duration, Instant};

use super::error::RegistryError;
use super::settings::RegistrySettings;
use super::topics::{RegistryTopic, check_topics};
use crate::kafka::{
    EndReader, ErrorKind, KafkaError, KafkaSettings, LogEvent, LogReader, LogStart,
};
use crate::record::{OwnedRecord, TopicPartition};

/// How long one request to the broker may take.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a reader waits for the next record before it says why it cannot go on.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// Reader of one registry topic, committed records only.
pub trait RegistryLog: Send {
    /// Offset that ends what can be read now.
    fn stable_end(&mut self) -> Result<i64, KafkaError>;
    /// Offset of the first record that is still there.
    fn log_start(&mut self) -> Result<i64, KafkaError>;
    /// The next record or event, waiting at most `timeout`.
    fn poll(&mut self, timeout: Duration) -> Result<LogEvent, KafkaError>;
}

/// Opens readers of the registry's topics.
pub trait RegistryLogs: Send + Sync + fmt::Debug {
    /// A reader of `topic`.
    fn open(
        &self,
        topic: RegistryTopic,
        start: LogStart,
    ) -> Result<Box<dyn RegistryLog>, RegistryError>;

    /// A reader of `topic` that is at its end and follows it from there.
    fn follow(
        &self,
        topic: RegistryTopic,
        start: LogStart,
    ) -> Result<Box<dyn RegistryLog>, RegistryError>;

    /// Offset that ends what was written to `topic`, transactions that are still open included.
    fn written_end(&self, topic: RegistryTopic) -> Result<i64, RegistryError>;

    /// Whether `topics` exist with the right settings.
    fn check(&self, topics: &[RegistryTopic]) -> Result<(), RegistryError>;

    /// The configured name of `topic`.
    fn name(&self, topic: RegistryTopic) -> String;
}

/// The registry's topics in Kafka.
#[derive(Debug, Clone)]
pub struct KafkaLogs {
    kafka: KafkaSettings,
    registry: RegistrySettings,
}

impl KafkaLogs {
    /// Of these settings.
    pub fn new(kafka: KafkaSettings, registry: RegistrySettings) -> Self {
        Self { kafka, registry }
    }
}

impl RegistryLogs for KafkaLogs {
    fn open(
        &self,
        topic: RegistryTopic,
        start: LogStart,
    ) -> Result<Box<dyn RegistryLog>, RegistryError> {
        let reader = LogReader::open(&self.kafka, topic.name(&self.registry), start)?;
        Ok(Box::new(reader))
    }

    fn follow(
        &self,
        topic: RegistryTopic,
        start: LogStart,
    ) -> Result<Box<dyn RegistryLog>, RegistryError> {
        let reader = LogReader::follow(&self.kafka, topic.name(&self.registry), start)?;
        Ok(Box::new(reader))
    }

    fn written_end(&self, topic: RegistryTopic) -> Result<i64, RegistryError> {
        let partition = TopicPartition::new(topic.name(&self.registry), 0);
        let ends = EndReader::written(&self.kafka, vec![partition])?.ends(REQUEST_TIMEOUT)?;
        Ok(ends.into_values().next().unwrap_or(0))
    }

    fn check(&self, topics: &[RegistryTopic]) -> Result<(), RegistryError> {
        check_topics(&self.kafka, &self.registry, topics, REQUEST_TIMEOUT)
    }

    fn name(&self, topic: RegistryTopic) -> String {
        topic.name(&self.registry).to_owned()
    }
}

impl RegistryLog for LogReader {
    fn stable_end(&mut self) -> Result<i64, KafkaError> {
        Self::stable_end(self, REQUEST_TIMEOUT)
    }

    fn log_start(&mut self) -> Result<i64, KafkaError> {
        Self::log_start(self, REQUEST_TIMEOUT)
    }

    fn poll(&mut self, timeout: Duration) -> Result<LogEvent, KafkaError> {
        Self::poll(self, timeout)
    }
}

/// What a record says to the reading on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    GoOn,
    Enough,
}

/// Hands out every record up to the stable end of this moment, or until it is told that it is
/// enough. Errors of the network are waited out for as long as records stay away.
pub(super) fn read_to_end(
    log: &mut dyn RegistryLog,
    what: &str,
    on_record: &mut dyn FnMut(OwnedRecord) -> Reading,
) -> Result<(), KafkaError> {
    // One request only: a second one would wait for the fetch that has begun meanwhile.
    let end = log.stable_end()?;
    if end == 0 {
        return Ok(());
    }
    let mut last = Instant::now();
    let mut problem = None;
    loop {
        match log.poll(Duration::from_millis(200)) {
            Ok(LogEvent::Record(record)) => {
                last = Instant::now();
                if record.offset >= end {
                    return Ok(());
                }
                let next = record.offset + 1;
                if on_record(record) == Reading::Enough || next >= end {
                    return Ok(());
                }
            }
            Ok(LogEvent::EndOfLog { next }) if next >= end => return Ok(()),
            Ok(LogEvent::EndOfLog { .. } | LogEvent::Idle) => {}
            Err(error) if error.is_retriable() => problem = Some(error),
            Err(error) => return Err(error),
        }
        if last.elapsed() > STALLED_AFTER {
            return Err(problem.unwrap_or_else(|| {
                KafkaError::new(
                    ErrorKind::Retriable,
                    format!("reading {what} to its end at offset {end}"),
                    "no record arrives",
                )
            }));
        }
    }
}

/// Topics in memory, for tests.
#[cfg(test)]
pub(super) mod fake {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::record::Header;

    /// A place in a log: a record, or a transaction marker that no reader sees.
    #[derive(Debug, Clone)]
    pub(crate) enum Slot {
        Record(OwnedRecord),
        Marker,
    }

    #[derive(Debug, Default)]
    pub(crate) struct State {
        pub(crate) topics: BTreeMap<RegistryTopic, Vec<Slot>>,
        pub(crate) missing: bool,
        pub(crate) down: bool,
        pub(crate) log_start: i64,
        /// How often an end was asked for.
        pub(crate) looks: usize,
        /// First record of a transaction that is open.
        pub(crate) open: Option<usize>,
        pub(crate) opened: Vec<(RegistryTopic, LogStart)>,
        pub(crate) followed: Vec<(RegistryTopic, LogStart)>,
    }

    /// Topics in memory.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct FakeLogs(pub(crate) Arc<Mutex<State>>);

    impl FakeLogs {
        pub(crate) fn append(
            &self,
            topic: RegistryTopic,
            key: &[u8],
            value: Option<Vec<u8>>,
            headers: Vec<Header>,
        ) -> i64 {
            let mut state = self.0.lock().unwrap();
            let slots = state.topics.entry(topic).or_default();
            let offset = slots.len() as i64;
            slots.push(Slot::Record(OwnedRecord {
                topic: format!("{topic:?}"),
                partition: 0,
                offset,
                timestamp: Some(offset),
                key: Some(key.to_vec()),
                value,
                headers,
            }));
            offset
        }

        pub(crate) fn marker(&self, topic: RegistryTopic) {
            self.0
                .lock()
                .unwrap()
                .topics
                .entry(topic)
                .or_default()
                .push(Slot::Marker);
        }
    }

    impl FakeLogs {
        fn log(&self, topic: RegistryTopic, start: LogStart) -> Box<dyn RegistryLog> {
            let next = match start {
                LogStart::Beginning => 0,
                LogStart::Offset(offset) => offset as usize,
            };
            Box::new(FakeLog {
                logs: self.clone(),
                topic,
                next,
                told: None,
            })
        }
    }

    impl RegistryLogs for FakeLogs {
        fn open(
            &self,
            topic: RegistryTopic,
            start: LogStart,
        ) -> Result<Box<dyn RegistryLog>, RegistryError> {
            self.0.lock().unwrap().opened.push((topic, start));
            Ok(self.log(topic, start))
        }

        fn follow(
            &self,
            topic: RegistryTopic,
            start: LogStart,
        ) -> Result<Box<dyn RegistryLog>, RegistryError> {
            self.0.lock().unwrap().followed.push((topic, start));
            Ok(self.log(topic, start))
        }

        fn written_end(&self, topic: RegistryTopic) -> Result<i64, RegistryError> {
            let state = self.0.lock().unwrap();
            Ok(state.topics.get(&topic).map_or(0, Vec::len) as i64)
        }

        fn check(&self, _: &[RegistryTopic]) -> Result<(), RegistryError> {
            let state = self.0.lock().unwrap();
            if state.down {
                return Err(down().into());
            }
            if state.missing {
                return Err(RegistryError::MissingTopics(vec![
                    "model-versions".to_owned(),
                ]));
            }
            Ok(())
        }

        fn name(&self, topic: RegistryTopic) -> String {
            format!("{topic:?}")
        }
    }

    fn down() -> KafkaError {
        KafkaError::new(ErrorKind::Retriable, "reading", "broker down")
    }

    struct FakeLog {
        logs: FakeLogs,
        topic: RegistryTopic,
        next: usize,
        told: Option<usize>,
    }

    impl RegistryLog for FakeLog {
        fn stable_end(&mut self) -> Result<i64, KafkaError> {
            let mut state = self.logs.0.lock().unwrap();
            if state.down {
                return Err(down());
            }
            state.looks += 1;
            let written = state.topics.get(&self.topic).map_or(0, Vec::len);
            Ok(state.open.map_or(written, |open| written.min(open)) as i64)
        }

        fn log_start(&mut self) -> Result<i64, KafkaError> {
            Ok(self.logs.0.lock().unwrap().log_start)
        }

        fn poll(&mut self, timeout: Duration) -> Result<LogEvent, KafkaError> {
            {
                let state = self.logs.0.lock().unwrap();
                if state.down {
                    return Err(down());
                }
                let slots = state.topics.get(&self.topic).map_or(&[][..], Vec::as_slice);
                let stable = state.open.unwrap_or(slots.len()).min(slots.len());
                let slots = &slots[..stable];
                while let Some(slot) = slots.get(self.next) {
                    self.next += 1;
                    if let Slot::Record(record) = slot {
                        return Ok(LogEvent::Record(record.clone()));
                    }
                }
                if self.told != Some(self.next) {
                    self.told = Some(self.next);
                    return Ok(LogEvent::EndOfLog {
                        next: self.next as i64,
                    });
                }
            }
            std::thread::sleep(timeout.min(Duration::from_millis(1)));
            Ok(LogEvent::Idle)
        }
    }

    #[test]
    fn reading_ends_at_the_stable_end_markers_included() {
        let logs = FakeLogs::default();
        let read = |logs: &FakeLogs| {
            let mut seen = 0;
            let mut log = logs
                .open(RegistryTopic::Versions, LogStart::Beginning)
                .unwrap();
            read_to_end(&mut *log, "versions", &mut |_| {
                seen += 1;
                Reading::GoOn
            })
            .unwrap();
            seen
        };
        assert_eq!(read(&logs), 0);
        logs.marker(RegistryTopic::Versions);
        assert_eq!(read(&logs), 0);
        logs.append(RegistryTopic::Versions, b"k", None, Vec::new());
        assert_eq!(read(&logs), 1);
        logs.marker(RegistryTopic::Versions);
        assert_eq!(read(&logs), 1);
    }
}
