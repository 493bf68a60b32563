//! Reads inputs and answers as they come, committed ones only, and hands them to the verifiers;
//! the same code reads everything again from the start when the run is over.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use swapstream::kafka::{KafkaSettings, TopicEvent, TopicReader};
use swapstream::record::OwnedRecord;

use super::oracle::{Oracle, mark_of};
use super::stage::Topics;
use super::verifier::{Guarantee, Input, Outlet, Verifier};

/// How long reading everything again may take.
const REREAD: Duration = Duration::from_mins(15);

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
    reopened: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// A reader that hears nothing for so long, though there is something, is opened anew.
const SILENCE: Duration = Duration::from_secs(8);

/// Reads on from where it was. The reader's client may stop fetching when its broker is
/// restarted; that is counted, and the second reading finds what it has cost.
struct Follower {
    reader: TopicReader,
    reopen: Box<dyn Fn() -> TopicReader + Send>,
    /// Offset after the last record or marker that was seen, by partition.
    next: BTreeMap<(String, i32), i64>,
    heard: Instant,
    reopened: Arc<AtomicU64>,
}

impl Follower {
    fn poll(&mut self) -> Result<Option<OwnedRecord>, String> {
        match self.reader.poll(Duration::from_millis(50)) {
            Ok(TopicEvent::Record(record)) => {
                let place = (record.topic.clone(), record.partition);
                let next = self.next.entry(place).or_insert(0);
                if record.offset < *next {
                    return Ok(None);
                }
                *next = record.offset + 1;
                self.heard = Instant::now();
                return Ok(Some(record));
            }
            Ok(TopicEvent::EndOfPartition {
                topic,
                partition,
                next,
            }) => {
                let known = self.next.entry((topic, partition)).or_insert(0);
                *known = next.max(*known);
            }
            Ok(TopicEvent::Idle) => {}
            // The broker is down now and then.
            Err(error) if error.is_retriable() => {}
            Err(error) => return Err(format!("reading: {error}")),
        }
        if self.heard.elapsed() > SILENCE {
            self.heard = Instant::now();
            if self.is_behind() {
                self.reopened.fetch_add(1, Ordering::SeqCst);
                self.reader = (self.reopen)();
            }
        }
        Ok(None)
    }

    /// Whether there is more than was seen; not known while the broker is down.
    fn is_behind(&self) -> bool {
        let Ok(ends) = self.reader.ends(Duration::from_secs(1)) else {
            return false;
        };
        ends.iter().any(|(at, end)| {
            let place = (at.topic.to_string(), at.partition);
            *end > self.next.get(&place).copied().unwrap_or(0)
        })
    }
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
        let mut follower = Follower {
            reader: open(kafka, topics, guarantees),
            reopen: {
                let (kafka, topics) = (kafka.clone(), topics.clone());
                let guarantees = guarantees.to_vec();
                Box::new(move || open(&kafka, &topics, &guarantees))
            },
            next: BTreeMap::new(),
            heard: Instant::now(),
            reopened: Arc::default(),
        };
        let reopened = Arc::clone(&follower.reopened);
        let (shared, ending) = (Arc::clone(&seen), Arc::clone(&stop));
        let (topics, oracle) = (topics.clone(), Arc::clone(oracle));
        let thread = thread::spawn(move || {
            while !ending.load(Ordering::SeqCst) {
                match follower.poll() {
                    Ok(Some(record)) => lock(&shared).take(&topics, &oracle, &record),
                    Ok(None) => {}
                    Err(what) => {
                        lock(&shared).trouble = Some(what);
                        return;
                    }
                }
            }
        });
        Self {
            seen,
            stop,
            reopened,
            thread: Some(thread),
        }
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// How often the reader stood still and was opened anew.
    pub fn reopened(&self) -> u64 {
        self.reopened.load(Ordering::SeqCst)
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
