//! A dead-letter topic as it is at one moment: read from its first record to the ends that held
//! then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{DlqError, Letter, Marks};
use crate::kafka::{
    Admin, EndReader, ErrorKind, KafkaError, KafkaSettings, Look, TopicEvent, TopicReader,
    UNTIL_ENDED, wait_for_hidden,
};
use crate::record::{OwnedRecord, TopicPartition};

/// How long a request may take, and how long reading waits for the next record.
const TIMEOUT: Duration = Duration::from_secs(30);
/// One step of that wait.
const STEP: Duration = Duration::from_millis(100);

/// A record of a dead-letter topic and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The record.
    pub record: OwnedRecord,
    /// What it says of itself; `None` where it is no dead letter of Swapstream's.
    pub letter: Option<Letter>,
    /// Whether it was sent again.
    pub redriven: bool,
}

/// A dead-letter topic and where its partitions ended when it was looked at.
#[derive(Debug, Clone)]
pub struct DeadLetterTopic {
    kafka: KafkaSettings,
    name: String,
    ends: BTreeMap<i32, i64>,
}

/// The partitions of the topic `name`.
fn partitions(kafka: &KafkaSettings, name: &str) -> Result<Vec<TopicPartition>, DlqError> {
    let count = Admin::new(kafka)?.partitions(name, TIMEOUT)?;
    let count = count.ok_or_else(|| DlqError::MissingTopic(name.to_owned()))?;
    let partitions = (0..count).map(|number| TopicPartition::new(name, number));
    Ok(partitions.collect())
}

impl DeadLetterTopic {
    /// Looks at the topic `name`.
    pub fn open(kafka: &KafkaSettings, name: &str) -> Result<Self, DlqError> {
        let partitions = partitions(kafka, name)?;
        let ends = EndReader::stable(kafka, partitions)?.ends(TIMEOUT)?;
        Ok(Self::ending(kafka, name, ends))
    }

    /// The same with all that is committed, which may lie behind a transaction that is still open: a
    /// stream that delivers exactly once writes its dead letters in one.
    pub(super) fn open_decided(kafka: &KafkaSettings, name: &str) -> Result<Self, DlqError> {
        let partitions = partitions(kafka, name)?;
        let written = EndReader::written(kafka, partitions.clone())?.ends(TIMEOUT)?;
        let reader = EndReader::stable(kafka, partitions)?;
        let patience = kafka.transaction_timeout() + UNTIL_ENDED;
        let mut ends = BTreeMap::new();
        let decided = wait_for_hidden(name, patience, || {
            ends = reader.ends(TIMEOUT)?;
            let all = written.iter().all(|(tp, end)| ends.get(tp) >= Some(end));
            Ok::<_, KafkaError>(if all { Look::Visible } else { Look::Hidden })
        })?;
        if !decided {
            return Err(DlqError::Held {
                topic: name.to_owned(),
                waited: patience,
            });
        }
        Ok(Self::ending(kafka, name, ends))
    }

    fn ending(kafka: &KafkaSettings, name: &str, ends: BTreeMap<TopicPartition, i64>) -> Self {
        let ends = ends.into_iter().map(|(tp, end)| (tp.partition, end));
        Self {
            kafka: kafka.clone(),
            name: name.to_owned(),
            ends: ends.collect(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its partitions that may hold something.
    pub(super) fn partitions(&self) -> impl Iterator<Item = i32> {
        let filled = self.ends.iter().filter(|(_, end)| **end > 0);
        filled.map(|(partition, _)| *partition)
    }

    /// Hands over every record; those of one partition come in order.
    pub(super) fn each(
        &self,
        on_record: &mut dyn FnMut(OwnedRecord) -> Result<(), DlqError>,
    ) -> Result<(), DlqError> {
        let count = self.ends.keys().next_back().map_or(0, |last| last + 1);
        let ends: BTreeMap<i32, i64> = self.partitions().map(|p| (p, self.end(p))).collect();
        if ends.is_empty() {
            return Ok(());
        }
        let reader = TopicReader::open(&self.kafka, &[(self.name.clone(), count)])?;
        self.read(reader, ends, on_record)
    }

    /// Hands over the records of `partition` from `offset` on, in order.
    pub(super) fn each_of(
        &self,
        partition: i32,
        offset: i64,
        on_record: &mut dyn FnMut(OwnedRecord) -> Result<(), DlqError>,
    ) -> Result<(), DlqError> {
        let end = self.end(partition);
        if offset >= end {
            return Ok(());
        }
        let tp = TopicPartition::new(self.name.as_str(), partition);
        let reader = TopicReader::open_at(&self.kafka, &tp, offset)?;
        self.read(reader, BTreeMap::from([(partition, end)]), on_record)
    }

    fn end(&self, partition: i32) -> i64 {
        self.ends.get(&partition).copied().unwrap_or(0)
    }

    fn read(
        &self,
        mut reader: TopicReader,
        mut left: BTreeMap<i32, i64>,
        on_record: &mut dyn FnMut(OwnedRecord) -> Result<(), DlqError>,
    ) -> Result<(), DlqError> {
        let mut heard = Instant::now();
        while !left.is_empty() {
            match reader.poll(STEP) {
                Ok(TopicEvent::Record(record)) => {
                    heard = Instant::now();
                    let (partition, offset) = (record.partition, record.offset);
                    let Some(end) = left.get(&partition).copied() else {
                        continue;
                    };
                    if offset < end {
                        on_record(record)?;
                    }
                    if offset + 1 >= end {
                        left.remove(&partition);
                    }
                }
                Ok(TopicEvent::EndOfPartition {
                    partition, next, ..
                }) => {
                    if left.get(&partition).is_some_and(|end| next >= *end) {
                        left.remove(&partition);
                    }
                }
                Ok(TopicEvent::Idle) => {}
                Err(error) if error.is_retriable() => tracing::debug!("{error}"),
                Err(error) => return Err(error.into()),
            }
            if heard.elapsed() >= TIMEOUT {
                let context = format!("reading topic {:?}", self.name);
                let message = format!("nothing came for {TIMEOUT:?}, before its end");
                return Err(KafkaError::new(ErrorKind::Retriable, context, message).into());
            }
        }
        Ok(())
    }

    /// Which of its dead letters were sent again.
    pub(super) fn marks(&self, on_other: &mut dyn FnMut(&OwnedRecord)) -> Result<Marks, DlqError> {
        let mut marks = Marks::default();
        self.each(&mut |record| {
            if !marks.apply(&record)? {
                on_other(&record);
            }
            Ok(())
        })?;
        Ok(marks)
    }

    /// The record at `offset` of `partition`; `None` where there is none, or none any more.
    pub fn find(&self, partition: i32, offset: i64) -> Result<Option<Found>, DlqError> {
        let mut found = None;
        let mut marks = Marks::default();
        self.each_of(partition, offset.max(0), &mut |record| {
            if record.offset == offset {
                found = Some(record);
            } else {
                marks.apply(&record)?;
            }
            Ok(())
        })?;
        Ok(found.map(|record| Found {
            letter: Letter::read(&record),
            redriven: marks.contains(partition, offset),
            record,
        }))
    }
}
