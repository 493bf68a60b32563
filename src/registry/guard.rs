//! Notes in `model-status` that a load is under way, acknowledged before it begins: what
//! [`super::attempts`] learns from after the process has died in it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::attempts::{Attempts, LOADING_SCHEMA, LoadingNote, LoadingNotes, Permit, loading_key};
use super::fleet::{Fleet, is_fresh};
use super::lifecycle::{LoadState, Refusal};
use super::loader::{LoadFailure, LoadJob};
use super::logs::RegistryLogs;
use super::origin::Origin;
use super::publish::rfc3339;
use super::read::read;
use super::reporter::StatusSink;
use super::topics::RegistryTopic;
use crate::model::ModelName;

/// How often an instance is taken to be heard of that has not said how often it is.
const USUAL_INTERVAL_MS: u64 = 10_000;

/// What the notes are written with.
struct State {
    /// `None` until the notes of the last life are read.
    attempts: Option<Attempts>,
    sink: Box<dyn StatusSink>,
    /// Notes that stand: how many loads of the model are under way.
    open: BTreeMap<ModelName, u32>,
}

/// Notes the loads of one instance.
pub struct LoadGuard {
    instance: String,
    /// Where it runs, where its name is new with each start.
    origin: Option<Origin>,
    logs: Arc<dyn RegistryLogs>,
    state: Mutex<State>,
}

impl fmt::Debug for LoadGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadGuard")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// A load that is noted; dropped, the note is taken back, also when the load panics.
#[derive(Debug)]
pub(super) struct Noted<'a> {
    guard: &'a LoadGuard,
    model: ModelName,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.guard.end(&self.model);
    }
}

impl LoadGuard {
    /// For `instance`. With a name that is the same after a restart it knows its earlier lives by
    /// that, else by their `origin`.
    pub fn new(
        instance: String,
        origin: Option<Origin>,
        logs: Arc<dyn RegistryLogs>,
        sink: Box<dyn StatusSink>,
    ) -> Self {
        Self {
            instance,
            origin,
            logs,
            state: Mutex::new(State {
                attempts: None,
                sink,
                open: BTreeMap::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a load begins, or refuses it.
    pub(super) fn begin(&self, job: &LoadJob) -> Result<Noted<'_>, LoadFailure> {
        let mut state = self.lock();
        if state.attempts.is_none() {
            state.attempts = Some(self.read()?);
        }
        let (manifest, time) = (&job.manifest, SystemTime::now());
        let (model, digest) = (&manifest.model, &manifest.artifact.digest);
        let attempts = state.attempts.get_or_insert_default();
        let attempt = match attempts.permit(model, digest, job.revision, millis(time)) {
            Permit::Go(attempt) => attempt,
            Permit::Refuse { deaths, left } => {
                let left = std::time::Duration::from_secs(left.as_secs() + 1);
                let reason = format!(
                    "this instance died {deaths} times in a row while loading it, although the \
                     probe let it pass; it is refused for {} more, or until it is deployed anew",
                    humantime::format_duration(left)
                );
                let refusal = Refusal {
                    stage: LoadState::Compiled,
                    reason,
                };
                return Err(LoadFailure::Banned(refusal, left));
            }
        };
        if attempt > 1 {
            let version = &manifest.version;
            tracing::warn!(%model, %version, attempt, "this instance died while loading it before");
        }
        let note = LoadingNote {
            schema: LOADING_SCHEMA.to_owned(),
            instance: self.instance.clone(),
            model: model.clone(),
            version: manifest.version.clone(),
            digest: *digest,
            revision: job.revision,
            attempt,
            at: rfc3339(time),
            origin: self.origin.clone(),
        };
        let value = serde_json::to_vec(&note).map_err(|e| LoadFailure::Transient(e.to_string()))?;
        let key = loading_key(&self.instance, model);
        match state.sink.write(&key, Some(value)) {
            // What earlier lives have noted under other names is in the new note.
            Ok(()) => {
                let names = state.attempts.as_ref();
                let names = names.map(|all| all.other_names(model, &self.instance));
                for name in names.unwrap_or_default() {
                    Self::take_back(&mut state, &name, model);
                }
            }
            Err(error) if error.is_retriable() => {
                return Err(LoadFailure::Transient(format!(
                    "that it is being loaded cannot be noted: {error}"
                )));
            }
            // A model that may not be noted is better than none.
            Err(error) => tracing::warn!(%model, "loading without a note of it: {error}"),
        }
        *state.open.entry(model.clone()).or_default() += 1;
        Ok(Noted {
            guard: self,
            model: model.clone(),
        })
    }

    /// What the notes tell that earlier lives of this instance have left.
    fn read(&self) -> Result<Attempts, LoadFailure> {
        let (mut notes, mut fleet) = (LoadingNotes::new(), Fleet::new());
        let done = read(&*self.logs, RegistryTopic::Status, &mut |record| {
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            notes.apply(
                key.unwrap_or_default(),
                value,
                record.timestamp.unwrap_or(0),
            );
            fleet.apply(key, value, record.timestamp);
        });
        done.map_err(|error| LoadFailure::Transient(error.to_string()))?;
        let now = millis(SystemTime::now());
        let origin = self.origin.as_ref();
        Ok(notes.deaths(&self.instance, origin, |note, at| {
            let seen = origin.and_then(|origin| origin.sees_running(note.origin.as_ref()?));
            // One that cannot be seen is given the time that any instance is given.
            let heard = fleet.instance(&note.instance);
            let last = heard.map_or(at, |view| view.seen_at.max(at));
            let interval = heard.map_or(USUAL_INTERVAL_MS, |view| view.heartbeat.interval_ms);
            !seen.unwrap_or_else(|| is_fresh(last, interval, now))
        }))
    }

    fn end(&self, model: &ModelName) {
        let mut state = self.lock();
        if let Some(attempts) = &mut state.attempts {
            attempts.ended(model);
        }
        if let Some(open) = state.open.get_mut(model) {
            *open -= 1;
            if *open > 0 {
                return;
            }
        }
        // Taken back at a clean stop, where the load is left behind.
        if state.open.remove(model).is_some() {
            Self::take_back(&mut state, &self.instance, model);
        }
    }

    fn take_back(state: &mut State, instance: &str, model: &ModelName) {
        if let Err(error) = state.sink.write(&loading_key(instance, model), None) {
            tracing::warn!(%model, "that it is no longer loaded cannot be noted: {error}");
        }
    }

    /// A clean stop: loads that are left behind did not end the process.
    pub fn stop(&self) {
        // A load that is being noted this moment holds the lock for a request at most.
        let mut state = self.lock();
        for model in std::mem::take(&mut state.open).into_keys() {
            Self::take_back(&mut state, &self.instance, &model);
        }
    }
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::super::catalog::tests::manifest;
    use super::super::logs::fake::FakeLogs;
    use super::*;
    use crate::kafka::KafkaError;

    struct Sink(FakeLogs);

    impl StatusSink for Sink {
        fn write(&mut self, key: &str, value: Option<Vec<u8>>) -> Result<(), KafkaError> {
            self.0
                .append(RegistryTopic::Status, key.as_bytes(), value, Vec::new());
            Ok(())
        }
    }

    /// One life of an instance.
    fn life(logs: &FakeLogs) -> LoadGuard {
        life_of("i", None, logs)
    }

    fn life_of(name: &str, origin: Option<Origin>, logs: &FakeLogs) -> LoadGuard {
        let sink = Box::new(Sink(logs.clone()));
        LoadGuard::new(name.to_owned(), origin, Arc::new(logs.clone()), sink)
    }

    fn job(revision: i64) -> LoadJob {
        LoadJob {
            golden_chunks: None,
            revision,
            manifest: Arc::new(manifest("m", "1", b"x")),
            chunks: None,
            cancelled: Arc::new(AtomicBool::new(false)),
        }
    }

    /// The fake's timestamps are its offsets, long ago: a refusal would be over.
    fn dies(logs: &FakeLogs, attempt: u32) {
        let guard = life(logs);
        let noted = guard.begin(&job(5)).unwrap();
        std::mem::forget(noted);
        let state = logs.0.lock().unwrap();
        let super::super::logs::fake::Slot::Record(last) =
            state.topics[&RegistryTopic::Status].last().unwrap()
        else {
            panic!("a record")
        };
        let note: LoadingNote = serde_json::from_slice(last.value.as_deref().unwrap()).unwrap();
        assert_eq!((note.attempt, &*note.instance), (attempt, "i"));
    }

    #[test]
    fn notes_outlive_the_process_and_are_taken_back_by_whatever_ends_the_load() {
        let logs = FakeLogs::default();
        dies(&logs, 1);
        dies(&logs, 2);
        dies(&logs, 3);
        let guard = life(&logs);
        drop(guard.begin(&job(5)).unwrap());
        dies(&logs, 1);
        // A panic is no death.
        let guard = life(&logs);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _noted = guard.begin(&job(5)).unwrap();
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        dies(&logs, 1);
        // Nor is a clean stop.
        let guard = life(&logs);
        let noted = guard.begin(&job(5)).unwrap();
        guard.stop();
        let count = |logs: &FakeLogs| logs.0.lock().unwrap().topics[&RegistryTopic::Status].len();
        let before = count(&logs);
        drop(noted);
        assert_eq!(count(&logs), before, "one tombstone is enough");
        dies(&logs, 1);
    }

    #[test]
    fn the_refusal_says_why_and_for_how_long() {
        let logs = FakeLogs::default();
        let guard = life(&logs);
        let now = SystemTime::now();
        let note = LoadingNote {
            schema: LOADING_SCHEMA.to_owned(),
            instance: "i".to_owned(),
            model: ModelName::new("m").unwrap(),
            version: job(5).manifest.version.clone(),
            digest: job(5).manifest.artifact.digest,
            revision: 5,
            attempt: 2,
            at: rfc3339(now),
            origin: None,
        };
        let value = serde_json::to_vec(&note).unwrap();
        let mut notes = LoadingNotes::new();
        notes.apply(b"i/m/loading", Some(&value), millis(now));
        guard.lock().attempts = Some(notes.deaths("i", None, |_, _| true));
        let Err(LoadFailure::Banned(refusal, left)) = guard.begin(&job(5)) else {
            panic!("refused")
        };
        assert!(
            refusal.reason.contains("died 2 times in a row"),
            "{}",
            refusal.reason
        );
        assert!(left.as_secs() > 590 && left.as_secs() <= 601);
        assert!(guard.begin(&job(6)).is_ok(), "deployed anew");
    }

    /// The attempts that the notes of `model-status` tell of, by the instance's name.
    fn standing(logs: &FakeLogs) -> BTreeMap<String, u32> {
        let mut all = BTreeMap::new();
        read(logs, RegistryTopic::Status, &mut |record| {
            let key = String::from_utf8(record.key.unwrap()).unwrap();
            match record.value {
                Some(value) => {
                    let note: LoadingNote = serde_json::from_slice(&value).unwrap();
                    all.insert(key, note.attempt);
                }
                None => drop(all.remove(&key)),
            }
        })
        .unwrap();
        all
    }

    #[test]
    fn a_name_that_is_new_at_every_start_does_not_hide_the_deaths_before() {
        let logs = FakeLogs::default();
        let here = Origin::of_this_process().unwrap();
        // Processes of this host that run no more, and one that does.
        let gone = |n: u64| {
            let began = here.began + n;
            Some(Origin {
                began,
                ..here.clone()
            })
        };
        let die = |name: &str, origin| {
            let guard = life_of(name, origin, &logs);
            std::mem::forget(guard.begin(&job(5)).unwrap());
        };
        die("first", gone(1));
        die("runs", Some(here.clone()));
        assert_eq!(standing(&logs)["runs/m/loading"], 2);
        // The one that runs is a neighbour, and the first one's death is told by its note.
        die("third", gone(3));
        let notes = standing(&logs);
        assert_eq!(notes["third/m/loading"], 1);
        assert!(!notes.contains_key("first/m/loading"), "{notes:?}");
        die("fourth", gone(4));
        assert_eq!(standing(&logs)["fourth/m/loading"], 2);
        // A load that ends takes back what was noted before it.
        drop(life_of("fifth", gone(5), &logs).begin(&job(5)).unwrap());
        assert_eq!(
            standing(&logs).into_keys().collect::<Vec<_>>(),
            ["runs/m/loading"]
        );
        // Containers see one another by their heartbeats only, and the fake's records are old.
        let elsewhere = |n: &str| {
            let processes = format!("pid:[{n}]");
            Some(Origin {
                processes,
                ..here.clone()
            })
        };
        logs.append(RegistryTopic::Status, b"runs/m/loading", None, Vec::new());
        die("container", elsewhere("1"));
        die("next-container", elsewhere("2"));
        let notes = standing(&logs);
        assert_eq!(
            notes.into_iter().collect::<Vec<_>>(),
            [("next-container/m/loading".to_owned(), 2)]
        );
    }
}
