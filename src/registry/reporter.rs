//! Writes this instance's state to `model-status`: a heartbeat at every interval, an entry for a
//! model when it changes, tombstones at a clean stop. Whatever happens to it, scoring goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::board::{Board, BoardView};
use super::publish::rfc3339;
use super::settings::RegistrySettings;
use super::status::{
    Heartbeat, INSTANCE_SCHEMA, ModelReport, STATUS_SCHEMA, StatusEntry, heartbeat_key, status_key,
};
use super::watcher::join;
use crate::kafka::{ErrorKind, KafkaError, KafkaSettings, Publisher};
use crate::model::ModelName;
use crate::record::OutRecord;

/// Pause after a failed write.
const RETRY: Duration = Duration::from_secs(2);

/// What a heartbeat tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceInfo {
    /// The instance's id.
    pub id: String,
    /// Version of the program.
    pub build: String,
    /// Its streams: name to model.
    pub streams: BTreeMap<String, ModelName>,
    /// Runtime and CPU features.
    pub fingerprint: String,
    /// Time between heartbeats.
    pub interval: Duration,
    /// When it started.
    pub started_at: SystemTime,
}

/// Where status is written.
pub trait StatusSink: Send {
    /// Writes one record; `None` is a tombstone.
    fn write(&mut self, key: &str, value: Option<Vec<u8>>) -> Result<(), KafkaError>;
}

/// The status topic.
#[derive(Debug)]
pub struct KafkaStatusSink {
    kafka: KafkaSettings,
    topic: String,
    publisher: Option<Publisher>,
}

impl KafkaStatusSink {
    /// Of these settings.
    pub fn new(kafka: KafkaSettings, settings: &RegistrySettings) -> Self {
        Self {
            kafka,
            topic: settings.status_topic.clone(),
            publisher: None,
        }
    }
}

impl StatusSink for KafkaStatusSink {
    fn write(&mut self, key: &str, value: Option<Vec<u8>>) -> Result<(), KafkaError> {
        let mut publisher = match self.publisher.take() {
            Some(publisher) => publisher,
            None => Publisher::idempotent(&self.kafka)?,
        };
        let result = publisher.send(&OutRecord {
            topic: self.topic.clone(),
            partition: Some(0),
            key: Some(key.as_bytes().to_vec()),
            value,
            ..OutRecord::default()
        });
        if !matches!(&result, Err(e) if matches!(e.kind, ErrorKind::Fatal | ErrorKind::Fenced)) {
            self.publisher = Some(publisher);
        }
        result.map(|_| ())
    }
}

/// The running reporter.
#[derive(Debug)]
pub struct Reporter {
    stop: Arc<AtomicBool>,
    board: Arc<Board>,
    thread: JoinHandle<()>,
}

impl Reporter {
    /// Starts the thread.
    pub fn start(
        board: Arc<Board>,
        info: InstanceInfo,
        sink: Box<dyn StatusSink>,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let task = (Arc::clone(&stop), Arc::clone(&board));
        let thread = std::thread::Builder::new()
            .name("registry-reporter".into())
            .spawn(move || run(&task.0, &task.1, info, sink))?;
        Ok(Self {
            stop,
            board,
            thread,
        })
    }

    /// Writes the tombstones and ends, waiting at most `timeout`; gives whether it has ended.
    pub fn stop(self, timeout: Duration) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        self.board.wake();
        join(self.thread, timeout)
    }
}

fn run(stop: &AtomicBool, board: &Board, info: InstanceInfo, mut sink: Box<dyn StatusSink>) {
    let mut reports = Reports::new(info, Instant::now());
    let mut failing = None;
    let mut seen = board.generation();
    while !stop.load(Ordering::Relaxed) {
        let mut wait = reports.idle(Instant::now());
        let (now, time) = (Instant::now(), SystemTime::now());
        let due = board.look(|view| reports.due(view, now, time));
        for record in due {
            match write(&mut *sink, &record) {
                Ok(()) => {
                    failing = None;
                    reports.written(record, Instant::now());
                }
                Err(text) => {
                    if failing.as_ref() != Some(&text) {
                        tracing::warn!("status cannot be written: {text}");
                    }
                    failing = Some(text);
                    break;
                }
            }
            wait = reports.idle(Instant::now());
        }
        if failing.is_some() {
            pause(stop, RETRY);
        } else {
            seen = board.wait_for_change(seen, wait);
        }
    }
    for key in reports.keys() {
        if let Err(error) = sink.write(&key, None) {
            tracing::warn!("status is left behind: {error}");
            return;
        }
    }
}

fn write(sink: &mut dyn StatusSink, record: &Due) -> Result<(), String> {
    let value = record.value.as_ref().map_err(Clone::clone)?;
    sink.write(&record.key, Some(value.clone()))
        .map_err(|error| error.to_string())
}

fn pause(stop: &AtomicBool, pause: Duration) {
    let until = Instant::now() + pause;
    while !stop.load(Ordering::Relaxed) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A record to write now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Due {
    key: String,
    value: Result<Vec<u8>, String>,
    /// What it tells; `None`: a heartbeat.
    told: Option<(ModelName, ModelReport)>,
}

/// What was written, and so what has to be.
#[derive(Debug)]
struct Reports {
    info: InstanceInfo,
    told: BTreeMap<ModelName, ModelReport>,
    next_heartbeat: Instant,
    began: bool,
}

impl Reports {
    fn new(info: InstanceInfo, now: Instant) -> Self {
        Self {
            info,
            told: BTreeMap::new(),
            next_heartbeat: now,
            began: false,
        }
    }

    /// Time to the next heartbeat.
    fn idle(&self, now: Instant) -> Duration {
        self.next_heartbeat.saturating_duration_since(now)
    }

    fn due(&self, view: &BoardView, now: Instant, time: SystemTime) -> Vec<Due> {
        let mut due = Vec::new();
        if now >= self.next_heartbeat {
            due.push(Due {
                key: heartbeat_key(&self.info.id),
                value: serde_json::to_vec(&self.heartbeat(time)).map_err(|e| e.to_string()),
                told: None,
            });
        }
        for (model, report) in &view.models {
            if self.told.get(model) != Some(report) {
                let entry = StatusEntry {
                    schema: STATUS_SCHEMA.to_owned(),
                    instance: self.info.id.clone(),
                    model: model.clone(),
                    report: report.clone(),
                    at: rfc3339(time),
                };
                due.push(Due {
                    key: status_key(&self.info.id, model),
                    value: serde_json::to_vec(&entry).map_err(|e| e.to_string()),
                    told: Some((model.clone(), report.clone())),
                });
            }
        }
        due
    }

    fn heartbeat(&self, time: SystemTime) -> Heartbeat {
        Heartbeat {
            schema: INSTANCE_SCHEMA.to_owned(),
            instance: self.info.id.clone(),
            build: self.info.build.clone(),
            streams: self.info.streams.clone(),
            fingerprint: self.info.fingerprint.clone(),
            interval_ms: u64::try_from(self.info.interval.as_millis()).unwrap_or(u64::MAX),
            started_at: rfc3339(self.info.started_at),
            at: rfc3339(time),
        }
    }

    fn written(&mut self, due: Due, now: Instant) {
        if let Some((model, report)) = due.told {
            self.told.insert(model, report);
        } else {
            self.began = true;
            self.next_heartbeat = now + self.info.interval;
        }
    }

    /// Keys of all that was written.
    fn keys(&self) -> Vec<String> {
        let entries = self
            .told
            .keys()
            .map(|model| status_key(&self.info.id, model));
        entries
            .chain(self.began.then(|| heartbeat_key(&self.info.id)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::fleet::Fleet;
    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Sink(Arc<Mutex<(Vec<Record>, u32)>>);

    type Record = (String, Option<Vec<u8>>);

    impl StatusSink for Sink {
        fn write(&mut self, key: &str, value: Option<Vec<u8>>) -> Result<(), KafkaError> {
            let mut sink = self.0.lock().unwrap();
            if sink.1 > 0 {
                sink.1 -= 1;
                return Err(KafkaError::new(
                    ErrorKind::Retriable,
                    "writing",
                    "broker down",
                ));
            }
            sink.0.push((key.to_owned(), value));
            Ok(())
        }
    }

    fn info() -> InstanceInfo {
        let model = ModelName::new("m").unwrap();
        InstanceInfo {
            id: "i".to_owned(),
            build: "1".to_owned(),
            streams: BTreeMap::from([("s".to_owned(), model)]),
            fingerprint: "cpu".to_owned(),
            interval: Duration::from_secs(10),
            started_at: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn heartbeats_come_at_their_interval_and_entries_on_change() {
        let start = Instant::now();
        let mut reports = Reports::new(info(), start);
        let mut view = BoardView::default();
        let at = |reports: &mut Reports, view: &BoardView, seconds| {
            let now = start + Duration::from_secs(seconds);
            let due = reports.due(view, now, SystemTime::UNIX_EPOCH);
            let keys: Vec<String> = due.iter().map(|d| d.key.clone()).collect();
            for record in due {
                reports.written(record, now);
            }
            keys
        };
        assert_eq!(at(&mut reports, &view, 0), ["instance/i"]);
        view.models
            .insert(ModelName::new("m").unwrap(), ModelReport::default());
        assert_eq!(at(&mut reports, &view, 1), ["i/m"]);
        assert!(at(&mut reports, &view, 9).is_empty());
        assert_eq!(at(&mut reports, &view, 10), ["instance/i"]);
        assert_eq!(reports.keys(), ["i/m", "instance/i"]);
    }

    #[test]
    fn what_failed_is_written_later_and_a_stop_leaves_nothing() {
        let sink = Sink::default();
        sink.0.lock().unwrap().1 = 1;
        let board = Arc::new(Board::new());
        board.set_report(&ModelName::new("m").unwrap(), ModelReport::default());
        let reporter = Reporter::start(Arc::clone(&board), info(), Box::new(sink.clone())).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while sink.0.lock().unwrap().0.len() < 2 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(reporter.stop(Duration::from_secs(20)));
        let written = sink.0.lock().unwrap().0.clone();
        let mut fleet = Fleet::new();
        let mut most = 0;
        for (key, value) in &written {
            fleet.apply(Some(key.as_bytes()), value.as_deref(), Some(0));
            most = most.max(fleet.instances().count());
        }
        assert_eq!(
            (most, fleet.instances().count(), fleet.models().len()),
            (1, 0, 0)
        );
    }
}
