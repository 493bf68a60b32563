//! Reads inputs and answers as they come, committed ones only, and hands them to the verifiers;
//! the same code reads everything again from the start when the run is over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use swapstream::kafka::{KafkaSettings, TopicEvent, TopicReader};
use swapstream::record::OwnedRecord;

use super::oracle::{Oracle, mark_of};
use super::stage::Topics;
use super::verifier::{Guarantee, Input, Outlet, Verifier};

/// How long reading everything again may take.
const REREAD: Duration = Duration::from_mins(5);

/// The verifiers, one for each guarantee that is tested.
#[derive(Debug)]
pub struct Seen {
    pub verifiers: Vec<(Guarantee, Verifier)>,
    /// What should be impossible, and is no broken promise of the service.
    pub trouble: Option<String>,
}

impl Seen {
    pub fn new(guarantees: &[Guarantee], partitions: usize) -> Self {
        let one = |guarantee: &Guarantee| (*guarantee, Verifier::new(*guarantee, partitions));
        Self {
            verifiers: guarantees.iter().map(one).collect(),
            trouble: None,
        }
    }

    fn take(&mut self, topics: &Topics, oracle: &Oracle, record: &OwnedRecord) {
        if record.topic == topics.input {
            let Some(mark) = mark_of(record) else {
                self.trouble = Some(format!("an input without a mark at {}", record.offset));
                return;
            };
            let input = Input {
                partition: record.partition as usize,
                offset: record.offset,
                key: mark.key,
                seq: mark.seq,
            };
            for (_, verifier) in &mut self.verifiers {
                verifier.input(&input);
            }
            return;
        }
        for (guarantee, verifier) in &mut self.verifiers {
            for outlet in [Outlet::Predictions, Outlet::DeadLetters] {
                if record.topic != topics.outlet(*guarantee, outlet) {
                    continue;
                }
                match oracle.judge(outlet, record) {
                    Ok(answer) => verifier.answer(&answer),
                    Err(what) => verifier.violate(4, what),
                }
            }
        }
    }
}

/// The reader that runs beside the service.
#[derive(Debug)]
pub struct Observer {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    pub fn start(
        kafka: &KafkaSettings,
        topics: &Topics,
        oracle: &Arc<Oracle>,
        guarantees: &[Guarantee],
    ) -> Self {
        let seen = Arc::new(Mutex::new(Seen::new(guarantees, topics.partitions)));
        let stop = Arc::new(AtomicBool::new(false));
        let mut reader = open(kafka, topics, guarantees);
        let (shared, ending) = (Arc::clone(&seen), Arc::clone(&stop));
        let (topics, oracle) = (topics.clone(), Arc::clone(oracle));
        let thread = thread::spawn(move || {
            while !ending.load(Ordering::SeqCst) {
                match reader.poll(Duration::from_millis(50)) {
                    Ok(TopicEvent::Record(record)) => {
                        lock(&shared).take(&topics, &oracle, &record);
                    }
                    Ok(_) => {}
                    // The broker is down now and then.
                    Err(error) if error.is_retriable() => {}
                    Err(error) => {
                        lock(&shared).trouble = Some(format!("reading: {error}"));
                        return;
                    }
                }
            }
        });
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the observer does not panic");
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(kafka: &KafkaSettings, topics: &Topics, guarantees: &[Guarantee]) -> TopicReader {
    TopicReader::open(kafka, &topics.all(guarantees)).expect("a reader")
}

/// Reads everything from the start to the end that holds now.
pub fn reread(
    kafka: &KafkaSettings,
    topics: &Topics,
    oracle: &Oracle,
    guarantees: &[Guarantee],
) -> Result<Seen, String> {
    let mut seen = Seen::new(guarantees, topics.partitions);
    let mut reader = open(kafka, topics, guarantees);
    let ends = reader
        .ends(Duration::from_secs(20))
        .map_err(|e| e.to_string())?;
    let mut left = ends.values().filter(|end| **end > 0).count();
    let deadline = Instant::now() + REREAD;
    while left > 0 {
        match reader.poll(Duration::from_millis(50)) {
            Ok(TopicEvent::Record(record)) => seen.take(topics, oracle, &record),
            Ok(TopicEvent::EndOfPartition { next, .. }) if next > 0 => left -= 1,
            Ok(_) => {}
            Err(error) if error.is_retriable() => {}
            Err(error) => return Err(error.to_string()),
        }
        if Instant::now() > deadline {
            return Err(format!("{left} partitions are not read to their end"));
        }
    }
    Ok(seen)
}
