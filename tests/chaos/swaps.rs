//! A stream of model swaps beside the faults: deploys of the good versions in turn, by the
//! command that operators use.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use swapstream::kafka::{LogStart, read_to_end};
use swapstream::record::OwnedRecord;

use super::oracle::MODEL;
use super::rng::Rng;
use super::stage::Stage;

/// Pause between two deploys, milliseconds.
const PAUSE: (u64, u64) = (1_000, 4_000);
/// And so many times what the last deployment took: on a busy machine loading a version takes
/// longer, too, and an instance that has just started gives a load up for the next version's.
const TIMES_TAKEN: u32 = 10;
/// But no longer than this.
const LONGEST: Duration = Duration::from_secs(20);

/// The running swaps.
#[derive(Debug)]
pub struct Swaps {
    stop: Arc<AtomicBool>,
    paused: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Swaps {
    pub fn start(stage: &Arc<Stage>, versions: &[&'static str], seed: u64) -> Self {
        let mut swaps = Self {
            stop: Arc::default(),
            paused: Arc::default(),
            done: Arc::default(),
            thread: None,
        };
        let (stop, paused, done) = (
            Arc::clone(&swaps.stop),
            Arc::clone(&swaps.paused),
            Arc::clone(&swaps.done),
        );
        let (stage, versions) = (Arc::clone(stage), versions.to_vec());
        let mut rng = Rng::branch(seed, 3);
        let thread = thread::spawn(move || {
            let mut taken = Duration::ZERO;
            for version in versions.iter().cycle() {
                let pause = Duration::from_millis(rng.between(PAUSE.0, PAUSE.1));
                let until = Instant::now() + (pause + taken * TIMES_TAKEN).min(LONGEST);
                while Instant::now() < until || paused.load(Ordering::SeqCst) {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                // The broker may be down: then it is the next one's turn.
                let begin = Instant::now();
                let deployed = deploy(&stage, version);
                taken = begin.elapsed();
                if deployed.is_ok() {
                    done.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        swaps.thread = Some(thread);
        swaps
    }

    /// How many were deployed.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
    }

    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the swaps do not panic");
        }
    }
}

impl Drop for Swaps {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Deploys a version.
pub fn deploy(stage: &Stage, version: &str) -> Result<(), String> {
    let args = ["model", "deploy", MODEL, version, "--output", "json"];
    stage.run(&args).map(drop)
}

/// Which version each revision of the deployment log names, read from the log itself.
pub fn revisions(stage: &Stage) -> Result<BTreeMap<i64, String>, String> {
    let topic = format!("{}-model-deployments", stage.topics.name);
    let mut versions = BTreeMap::new();
    let mut note = |record: OwnedRecord| {
        let value = record.value.as_deref().unwrap_or_default();
        let event: Result<serde_json::Value, _> = serde_json::from_slice(value);
        let version = event
            .ok()
            .and_then(|event| Some(event["version"].as_str()?.to_owned()));
        if let Some(version) = version {
            versions.insert(record.offset, version);
        }
        ControlFlow::Continue(())
    };
    let patience = Duration::from_secs(20);
    read_to_end(
        &stage.kafka,
        &topic,
        LogStart::Beginning,
        patience,
        &mut note,
    )
    .map_err(|error| error.to_string())?;
    Ok(versions)
}
