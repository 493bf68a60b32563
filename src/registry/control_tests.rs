//! Tests of the control state and the watcher: logs in memory, a loader that loads nothing.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use super::board::Board;
use super::catalog::tests::manifest;
use super::control::ControlEvent;
use super::lifecycle::{LoadState, Refusal};
use super::loader::{LoadFailure, LoadJob, Loaded, Loader};
use super::logs::fake::FakeLogs;
use super::status::ModelReport;
use super::topics::RegistryTopic;
use super::trust::Trust;
use super::watcher::{Watcher, WatcherParts};
use crate::model::{Contract, Digest, ModelName, Signature};
use crate::runtime::{CompiledInfo, CompiledModel, RunError, Runner};
use crate::serving::Serving;

/// How long a version `banned…` is refused.
const BAN: Duration = Duration::from_millis(300);

/// How a version's load ends: by the first letter of its name.
#[derive(Debug, Default)]
struct FakeLoader {
    /// Versions in the order of their loads.
    loads: Mutex<Vec<String>>,
    /// A load of a version `slow…` waits for this.
    gate: Mutex<Option<Receiver<()>>>,
}

#[derive(Debug)]
struct FakeModel {
    signature: Signature,
    info: CompiledInfo,
}

impl CompiledModel for FakeModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn info(&self) -> &CompiledInfo {
        &self.info
    }
    fn runner(&self) -> Result<Box<dyn Runner>, RunError> {
        Err(RunError::Failed("not a model".to_owned()))
    }
}

impl Loader for FakeLoader {
    fn load(
        &self,
        job: &LoadJob,
        reached: &mut dyn FnMut(LoadState),
    ) -> Result<Loaded, LoadFailure> {
        let version = job.manifest.version.to_string();
        let nth = {
            let mut loads = self.loads.lock().unwrap();
            loads.push(version.clone());
            loads.iter().filter(|v| **v == version).count()
        };
        reached(LoadState::Fetched);
        reached(LoadState::Verified);
        if version.starts_with("slow") {
            self.gate.lock().unwrap().as_ref().unwrap().recv().unwrap();
        }
        if version.starts_with("bad") {
            let reason = "no such operator".to_owned();
            let stage = LoadState::Compiled;
            return Err(LoadFailure::Refused(Refusal { stage, reason }));
        }
        if version.starts_with("flaky") && nth == 1 {
            return Err(LoadFailure::Transient("broker down".to_owned()));
        }
        if version.starts_with("banned") && nth == 1 {
            let reason = "died twice".to_owned();
            let stage = LoadState::Compiled;
            return Err(LoadFailure::Banned(Refusal { stage, reason }, BAN));
        }
        assert!(!version.starts_with("panic"), "as told");
        let info = CompiledInfo {
            runtime: "fake",
            batch_invariant: true,
            plan_rows: 1,
            plans: 2,
            plan_bytes: 77,
        };
        let compiled = Arc::new(FakeModel {
            signature: Signature::default(),
            info,
        });
        let contract = Contract {
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        Ok(Loaded { contract, compiled })
    }
}

struct Rig {
    logs: FakeLogs,
    loader: Arc<FakeLoader>,
    serving: Arc<Serving>,
    board: Arc<Board>,
    events: Arc<Mutex<Vec<ControlEvent>>>,
    gate: Sender<()>,
    watcher: Option<Watcher>,
}

impl Rig {
    #[expect(clippy::disallowed_methods, reason = "one message a test")]
    fn new() -> Self {
        let (gate, gated) = std::sync::mpsc::channel();
        let loader = FakeLoader {
            gate: Mutex::new(Some(gated)),
            ..FakeLoader::default()
        };
        Self {
            logs: FakeLogs::default(),
            loader: Arc::new(loader),
            serving: Arc::new(Serving::new()),
            board: Arc::new(Board::new()),
            events: Arc::default(),
            gate,
            watcher: None,
        }
    }

    fn start(&mut self) {
        let events = Arc::clone(&self.events);
        let parts = WatcherParts {
            trust: Trust::default(),
            logs: Arc::new(self.logs.clone()),
            loader: Arc::clone(&self.loader) as Arc<dyn Loader>,
            serving: Arc::clone(&self.serving),
            board: Arc::clone(&self.board),
            models: BTreeSet::from([model()]),
            observer: Arc::new(move |event| events.lock().unwrap().push(event.clone())),
        };
        self.watcher = Some(Watcher::start(parts).unwrap());
    }

    fn version(&self, version: &str) {
        let json = manifest("m", version, version.as_bytes())
            .to_json()
            .unwrap();
        let key = format!("m/{version}");
        self.logs.append(
            RegistryTopic::Versions,
            key.as_bytes(),
            Some(json),
            Vec::new(),
        );
        self.logs.marker(RegistryTopic::Versions);
    }

    fn event(&self, action: &str, version: Option<&str>) -> i64 {
        let mut event =
            json!({"schema": "swapstream.deployment/v1", "action": action, "model": "m"});
        if let Some(version) = version {
            event["version"] = version.into();
            event["digest"] = Digest::of(version.as_bytes()).to_string().into();
        }
        let value = event.to_string().into_bytes();
        self.logs
            .append(RegistryTopic::Deployments, b"m", Some(value), Vec::new())
    }

    fn deploy(&self, version: &str) -> i64 {
        self.event("deploy", Some(version))
    }

    fn served(&self) -> Option<(String, i64)> {
        let snapshot = self.serving.load();
        snapshot
            .serving(&model())
            .map(|s| (s.version.to_string(), s.revision))
    }

    fn settled(&self) -> Option<i64> {
        self.serving
            .load()
            .get(&model())
            .map(|state| state.settled_revision)
    }

    fn report(&self) -> ModelReport {
        self.board
            .view()
            .models
            .get(&model())
            .cloned()
            .unwrap_or_default()
    }

    fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition(self) {
            let state = (self.served(), self.settled(), self.board.view());
            assert!(Instant::now() < deadline, "never {what}: {state:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn until_served(&self, version: &str, revision: i64) {
        let wanted = Some((version.to_owned(), revision));
        self.until(&format!("served {version} {revision}"), |rig| {
            rig.served() == wanted
        });
    }
}

impl Rig {
    /// What was told when the watcher has ended: a change is told after it can be seen.
    fn told(&mut self) -> Vec<ControlEvent> {
        self.stop();
        self.events.lock().unwrap().clone()
    }

    fn stop(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.stop(Duration::from_secs(10));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop();
    }
}

fn model() -> ModelName {
    ModelName::new("m").unwrap()
}

#[test]
fn an_empty_registry_is_caught_up_at_once_and_a_missing_one_is_waited_for() {
    let mut rig = Rig::new();
    rig.logs.0.lock().unwrap().missing = true;
    rig.start();
    rig.until("named", |rig| {
        rig.board
            .view()
            .problem
            .is_some_and(|p| p.contains("model-versions"))
    });
    assert!(!rig.board.view().caught_up);
    rig.logs.0.lock().unwrap().missing = false;
    rig.until("caught up", |rig| rig.board.view().caught_up);
    assert_eq!(rig.board.view().problem, None);
    assert_eq!(
        rig.board.view().unready(),
        ["model m does not serve: nothing is deployed"]
    );
}

#[test]
fn a_log_that_lost_its_start_is_refused() {
    let mut rig = Rig::new();
    rig.logs.0.lock().unwrap().log_start = 3;
    rig.start();
    rig.until("refused", |rig| {
        rig.board
            .view()
            .problem
            .is_some_and(|p| p.contains("first offset"))
    });
}

#[test]
fn nothing_is_loaded_before_the_end_of_the_log_was_read() {
    let mut rig = Rig::new();
    for version in ["1", "2", "3"] {
        rig.version(version);
        rig.deploy(version);
    }
    rig.logs.marker(RegistryTopic::Deployments);
    rig.start();
    rig.until_served("3", 2);
    assert_eq!(
        *rig.loader.loads.lock().unwrap(),
        ["3"],
        "older versions are not loaded"
    );
    assert_eq!(rig.settled(), Some(2));
}

#[test]
fn versions_are_swapped_refused_and_retired() {
    let mut rig = Rig::new();
    rig.version("1");
    rig.version("bad");
    rig.version("2");
    rig.start();
    let first = rig.deploy("1");
    rig.until_served("1", first);
    let bad = rig.deploy("bad");
    rig.until("refused", |rig| rig.report().refused.is_some());
    let refused = rig.report().refused.unwrap();
    assert_eq!(
        (refused.stage.as_str(), refused.reason.as_str()),
        ("compiled", "no such operator")
    );
    rig.until("settled", |rig| rig.settled() == Some(bad));
    assert_eq!(rig.served(), Some(("1".to_owned(), first)));
    let second = rig.deploy("2");
    rig.until_served("2", second);
    rig.until("clean", |rig| {
        rig.report().refused.is_none() && rig.report().working_on.is_none()
    });
    let again = rig.deploy("2");
    rig.until_served("2", again);
    assert_eq!(*rig.loader.loads.lock().unwrap(), ["1", "bad", "2"]);
    let gone = rig.event("undeploy", None);
    rig.until("retired", |rig| {
        rig.served().is_none() && rig.settled() == Some(gone)
    });
    let events = rig.told();
    let kinds: Vec<&str> = events
        .iter()
        .filter(|event| !matches!(event, ControlEvent::Reached { .. }))
        .map(|event| match event {
            ControlEvent::Activated { .. } => "activated",
            ControlEvent::Retired { .. } => "retired",
            ControlEvent::Refused { .. } => "refused",
            ControlEvent::Retrying { .. } => "retrying",
            ControlEvent::Reached { .. } => "reached",
        })
        .collect();
    assert_eq!(
        kinds,
        ["activated", "refused", "activated", "activated", "retired"]
    );
}

#[test]
fn a_first_start_falls_back_past_what_is_refused() {
    let mut rig = Rig::new();
    for version in ["1", "bad", "panic"] {
        rig.version(version);
        rig.deploy(version);
    }
    rig.start();
    rig.until_served("1", 0);
    rig.until("settled", |rig| rig.settled() == Some(2));
    let refused = rig.report().refused.unwrap();
    assert_eq!(refused.version.unwrap().as_str(), "panic");
    assert!(refused.reason.contains("panicked"));
}

#[test]
fn a_missing_version_is_refused_and_served_once_it_is_there() {
    let mut rig = Rig::new();
    rig.version("1");
    rig.deploy("1");
    rig.start();
    rig.until_served("1", 0);
    let missing = rig.deploy("2");
    rig.until("refused", |rig| rig.settled() == Some(missing));
    assert!(
        rig.report()
            .refused
            .unwrap()
            .reason
            .contains("no version 2")
    );
    rig.version("2");
    rig.until_served("2", missing);
    assert_eq!(rig.report().refused, None);
}

#[test]
fn a_transient_failure_is_tried_again() {
    let mut rig = Rig::new();
    rig.version("1");
    rig.version("flaky");
    rig.deploy("1");
    rig.deploy("flaky");
    rig.start();
    rig.until("waiting", |rig| {
        rig.report()
            .working_on
            .is_some_and(|w| w.state == "waiting")
    });
    assert_eq!(
        rig.served(),
        None,
        "a transient failure does not fall through"
    );
    rig.until_served("flaky", 1);
    assert_eq!(*rig.loader.loads.lock().unwrap(), ["flaky", "flaky"]);
}

#[test]
fn a_superseded_load_is_abandoned_and_following_goes_on_meanwhile() {
    let mut rig = Rig::new();
    rig.version("slow");
    rig.version("2");
    rig.start();
    rig.deploy("slow");
    rig.until("verified", |rig| {
        rig.report()
            .working_on
            .is_some_and(|w| w.state == "verified")
    });
    rig.deploy("2");
    rig.until("seen", |rig| {
        rig.report().desired.is_some_and(|d| d.revision == 1)
    });
    assert_eq!(rig.served(), None);
    rig.gate.send(()).unwrap();
    rig.until_served("2", 1);
    let events = rig.told();
    let activated = events
        .iter()
        .filter(|e| matches!(e, ControlEvent::Activated { .. }));
    assert_eq!(activated.count(), 1, "the superseded version never served");
}

#[test]
fn a_slow_load_is_given_room_until_it_ends() {
    let mut rig = Rig::new();
    rig.version("slow");
    let revision = rig.deploy("slow");
    rig.start();
    rig.until("loading", |rig| {
        !rig.loader.loads.lock().unwrap().is_empty()
    });
    assert!(!rig.serving.is_cramped(), "not at once");
    rig.until("cramped", |rig| rig.serving.is_cramped());
    rig.gate.send(()).unwrap();
    rig.until_served("slow", revision);
    rig.until("at ease", |rig| !rig.serving.is_cramped());
}

#[test]
fn a_broker_that_goes_away_changes_nothing_that_serves() {
    let mut rig = Rig::new();
    rig.version("1");
    rig.deploy("1");
    rig.start();
    rig.until_served("1", 0);
    rig.logs.0.lock().unwrap().down = true;
    rig.until("told", |rig| rig.board.view().problem.is_some());
    assert_eq!(rig.served(), Some(("1".to_owned(), 0)));
    rig.version("2");
    let second = rig.deploy("2");
    rig.logs.0.lock().unwrap().down = false;
    rig.until_served("2", second);
    rig.until("told", |rig| rig.board.view().problem.is_none());
}

#[test]
fn an_unknown_event_freezes_what_serves_and_says_so() {
    let mut rig = Rig::new();
    rig.version("1");
    rig.version("2");
    rig.start();
    let first = rig.deploy("1");
    rig.until_served("1", first);
    rig.event("canary", Some("2"));
    rig.deploy("2");
    rig.until("told", |rig| {
        rig.report()
            .refused
            .is_some_and(|r| r.reason.contains("canary"))
    });
    assert_eq!(rig.served(), Some(("1".to_owned(), first)));
    rig.event("undeploy", None);
    let fresh = rig.deploy("2");
    rig.until_served("2", fresh);
    assert_eq!(rig.report().refused, None);
}

#[test]
fn what_was_undeployed_is_freed_whatever_was_refused_in_between() {
    let mut rig = Rig::new();
    for version in ["1", "bad1", "bad2"] {
        rig.version(version);
    }
    rig.start();
    let first = rig.deploy("1");
    rig.until_served("1", first);
    let held = Arc::downgrade(rig.serving.load().serving(&model()).unwrap());
    // Each changes what is settled, and not what serves.
    for version in ["bad1", "bad2"] {
        let bad = rig.deploy(version);
        rig.until("settled", |rig| rig.settled() == Some(bad));
    }
    rig.event("undeploy", None);
    rig.until("freed", |_| held.upgrade().is_none());
}

#[test]
fn a_refusal_that_ends_lets_the_fallback_serve_meanwhile_and_the_version_later() {
    let mut rig = Rig::new();
    rig.version("1");
    rig.version("banned");
    let (first, second) = (rig.deploy("1"), rig.deploy("banned"));
    rig.start();
    rig.until_served("1", first);
    rig.until_served("banned", second);
    assert_eq!(*rig.loader.loads.lock().unwrap(), ["banned", "1", "banned"]);
    assert_eq!(rig.report().refused, None);
}
