//! Sends the events: first one to each partition, to see that the workers have joined, then all
//! at the rate, for as long as it is not told to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::DemoError;
use super::flights::Flights;
use super::pace::Pace;
use super::stage::{PARTITIONS, Stage};
use super::tally::SharedTally;
use crate::kafka::{
    ClientShare, ErrorKind, KafkaError, OutgoingRecord, Producer, RecordHeaders, RecordLimits,
    SendError,
};

/// The feed waits while a partition has more than this unanswered: the embedded broker forgets
/// past 5 MiB.
const MAX_LAG_BYTES: u64 = 2 << 20;
/// Kafka's own default limits a batch to a little more than this.
const MAX_BATCH_BYTES: usize = 1_000_000;
/// What the feed may have sent and unanswered.
const PRODUCE_MEMORY: u64 = 16 << 20;
/// How long the last events may take to be acknowledged.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two looks at the clock.
const TICK: Duration = Duration::from_millis(1);

/// What the feed needs.
#[derive(Debug)]
pub(super) struct Feed<'a> {
    pub(super) stage: &'a Stage,
    pub(super) flights: &'a Flights,
    pub(super) tally: &'a SharedTally,
    /// The clock of the demo.
    pub(super) clock: Instant,
    /// Events a second.
    pub(super) rate: u32,
    /// Set from outside.
    pub(super) stop: &'a AtomicBool,
}

impl Feed<'_> {
    /// Feeds until it is stopped; then waits until everything is acknowledged.
    pub(super) fn run(&self) -> Result<(), DemoError> {
        let limits = RecordLimits {
            record: MAX_BATCH_BYTES,
            batch: MAX_BATCH_BYTES,
        };
        let kafka = self.stage.kafka();
        let share = ClientShare {
            produce: PRODUCE_MEMORY,
            ..ClientShare::of(kafka.memory, 1)
        };
        let producer = Producer::new(kafka, share, limits)?;
        let mut number = self.first_events(&producer)?;
        let start = self.clock.elapsed();
        self.tally.lock().started = Some(start);
        let mut pace = Pace::new(self.rate, start);
        while !self.stopped() {
            for _ in 0..pace.due(self.clock.elapsed()) {
                if self.stopped() || !self.has_room(number) {
                    break;
                }
                self.send(&producer, number)?;
                number += 1;
                pace.sent();
            }
            serve(&producer, TICK)?;
        }
        flush(&producer)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One event to each partition; gives the number of the next one.
    fn first_events(&self, producer: &Producer) -> Result<u64, DemoError> {
        let count = u64::try_from(PARTITIONS).unwrap_or_default();
        for number in 0..count {
            self.send(producer, number)?;
        }
        while !self.stopped() && self.tally.lock().ledger.unanswered() > 0 {
            serve(producer, TICK)?;
        }
        Ok(count)
    }

    /// An event always goes to the same partition, so that the order of its key holds when the
    /// sample begins anew.
    fn partition(&self, number: u64) -> usize {
        self.flights.index(number) % usize::try_from(PARTITIONS).unwrap_or(1)
    }

    fn has_room(&self, number: u64) -> bool {
        self.tally.lock().ledger.lag_bytes(self.partition(number)) < MAX_LAG_BYTES
    }

    fn send(&self, producer: &Producer, number: u64) -> Result<(), DemoError> {
        let (index, partition) = (self.flights.index(number), self.partition(number));
        let Some(flight) = self.flights.get(index) else {
            return Ok(());
        };
        let bytes = (flight.key.len() + flight.value.len()) as u64;
        let mut record = OutgoingRecord {
            topic: &self.stage.topics.input,
            partition: Some(partition as i32),
            key: Some(flight.key),
            value: Some(flight.value),
            timestamp: None,
            headers: RecordHeaders::new(0),
            token: number,
        };
        // Before it is sent: its answer must not come first.
        self.tally
            .lock()
            .ledger
            .send(partition, index, bytes, self.clock.elapsed());
        loop {
            match producer.send(&mut record) {
                Ok(()) => return Ok(()),
                Err(SendError::Full) => serve(producer, TICK)?,
                Err(SendError::TooLarge(error) | SendError::Failed(error)) => {
                    return Err(error.into());
                }
            }
        }
    }
}

/// Serves all acknowledgements that are there, then pauses for `time`.
fn serve(producer: &Producer, time: Duration) -> Result<(), DemoError> {
    // A poll takes one event of possibly many.
    loop {
        let before = producer.in_flight();
        producer.poll(Duration::ZERO);
        if producer.in_flight() == before {
            break;
        }
    }
    std::thread::sleep(time);
    producer.take_acknowledged(&mut Vec::new());
    producer.failure().map_or(Ok(()), |error| Err(error.into()))
}

fn flush(producer: &Producer) -> Result<(), DemoError> {
    let deadline = Instant::now() + FLUSH_TIMEOUT;
    while producer.in_flight() > 0 {
        serve(producer, TICK)?;
        if Instant::now() >= deadline {
            let message = format!(
                "{} events not acknowledged within 30s",
                producer.in_flight()
            );
            return Err(KafkaError::new(ErrorKind::Retriable, "feeding", message).into());
        }
    }
    Ok(())
}
