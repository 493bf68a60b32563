//! Reading a world's topics: followed, to the end, as predictions.

use std::time::{Duration, Instant};

use serde_json::Value;
use swapstream::kafka::{TopicEvent, TopicReader};
use swapstream::record::OwnedRecord;

use super::{PATIENCE, World};

impl World {
    /// Reads `topic` until it holds `count` records, and then for what else comes within a moment.
    pub fn read(&self, topic: &str, count: usize) -> Vec<OwnedRecord> {
        let mut tail = self.tail(topic);
        tail.until(count, PATIENCE);
        tail.settle();
        tail.records
    }

    /// Everything that is in `topic` now.
    pub fn all(&self, topic: &str) -> Vec<OwnedRecord> {
        self.tail(topic).read_to_end()
    }

    /// Follows `topic`.
    pub fn tail(&self, topic: &str) -> Tail {
        let partitions = if topic == self.input() {
            self.partitions
        } else {
            self.output_partitions
        };
        self.tail_of(topic, partitions)
    }

    /// Follows `topic`, which has so many partitions.
    pub fn tail_of(&self, topic: &str, partitions: i32) -> Tail {
        let topics = [(topic.to_owned(), partitions)];
        Tail {
            reader: TopicReader::open(&self.kafka, &topics).unwrap(),
            records: Vec::new(),
        }
    }
}

/// A reader that keeps what it has read.
pub struct Tail {
    reader: TopicReader,
    pub records: Vec<OwnedRecord>,
}

impl Tail {
    /// Reads on for a moment; gives whether something came.
    pub fn turn(&mut self, wait: Duration) -> bool {
        match self.reader.poll(wait) {
            Ok(TopicEvent::Record(record)) => {
                self.records.push(record);
                true
            }
            Ok(_) => false,
            Err(error) if error.is_retriable() => false,
            Err(error) => panic!("{error}"),
        }
    }

    pub fn until(&mut self, count: usize, deadline: Duration) {
        self.until_that(&format!("{count} records"), deadline, |records| {
            records.len() >= count
        });
    }

    pub fn until_that(
        &mut self,
        what: &str,
        deadline: Duration,
        mut done: impl FnMut(&[OwnedRecord]) -> bool,
    ) {
        let end = Instant::now() + deadline;
        while !done(&self.records) {
            assert!(
                Instant::now() < end,
                "not within {deadline:?}: {what}; {} records so far",
                self.records.len()
            );
            self.turn(Duration::from_millis(20));
        }
    }

    /// Reads to the ends that hold now and gives everything.
    pub fn read_to_end(mut self) -> Vec<OwnedRecord> {
        let ends = self.reader.ends(PATIENCE).unwrap();
        let mut left = ends.values().filter(|end| **end > 0).count();
        let deadline = Instant::now() + PATIENCE;
        while left > 0 {
            assert!(Instant::now() < deadline, "not read to its end");
            match self.reader.poll(Duration::from_millis(20)) {
                Ok(TopicEvent::Record(record)) => self.records.push(record),
                Ok(TopicEvent::EndOfPartition { next, .. }) if next > 0 => left -= 1,
                Ok(_) => {}
                Err(error) => assert!(error.is_retriable(), "{error}"),
            }
        }
        self.records
    }

    /// Reads what is there until nothing has come for half a second.
    pub fn settle(&mut self) {
        let mut quiet = Instant::now();
        while quiet.elapsed() < Duration::from_millis(500) {
            if self.turn(Duration::from_millis(20)) {
                quiet = Instant::now();
            }
        }
    }
}

/// A prediction and the record it came in.
pub struct Read {
    pub partition: i32,
    pub offset: i64,
    pub version: String,
    pub revision: i64,
    pub value: Value,
}

/// Parses predictions.
pub fn predictions(records: &[OwnedRecord]) -> Vec<Read> {
    records
        .iter()
        .map(|record| {
            let value: Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
            Read {
                partition: value["input"]["partition"].as_i64().unwrap() as i32,
                offset: value["input"]["offset"].as_i64().unwrap(),
                version: value["version"].as_str().unwrap().to_owned(),
                revision: value["revision"].as_i64().unwrap(),
                value,
            }
        })
        .collect()
}
