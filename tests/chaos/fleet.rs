//! The instances: each a process of its own, started, watched, and started again.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::stage::Stage;
use crate::support::{Process, try_http_get};

/// What the service may exit with by itself: a call of the Kafka client hung.
pub const DOCUMENTED_EXIT: i32 = 75;
/// From SIGTERM to the end: `shutdown_timeout`, and the last words.
const STOP_DEADLINE: Duration = Duration::from_secs(14);
const ADDRESS: &str = "listens on http://";

/// A place for an instance, with its stable id.
#[derive(Debug)]
pub struct Slot {
    pub id: String,
    process: Option<Process>,
    /// What the process before said is kept for a failed run.
    started: usize,
}

/// All instances.
#[derive(Debug)]
pub struct Fleet {
    slots: Vec<Slot>,
    logs: PathBuf,
    /// Exits with [`DOCUMENTED_EXIT`].
    pub documented_exits: u64,
    /// Largest resident memory seen, bytes.
    pub peak_memory: u64,
    failures: Vec<String>,
}

impl Fleet {
    pub fn new(ids: &[&str], logs: PathBuf) -> Self {
        let slot = |id: &&str| Slot {
            id: (*id).to_owned(),
            process: None,
            started: 0,
        };
        std::fs::create_dir_all(&logs).expect("the directory of logs");
        Self {
            slots: ids.iter().map(slot).collect(),
            logs,
            documented_exits: 0,
            peak_memory: 0,
            failures: Vec::new(),
        }
    }

    pub fn id(&self, slot: usize) -> &str {
        &self.slots[slot].id
    }

    pub fn process(&mut self, slot: usize) -> &mut Process {
        let process = self.slots[slot].process.as_mut();
        process.expect("the instance runs")
    }

    /// Starts an instance; `failpoints` are added to what the stage breaks anyway.
    pub fn start(&mut self, stage: &Stage, slot: usize, failpoints: Option<&str>) {
        let slot = &mut self.slots[slot];
        assert!(slot.process.is_none(), "{} runs already", slot.id);
        let mut command = stage.instance(&slot.id);
        let broken = stage.broken.as_ref().map(|name| format!("{name}=return"));
        let points: Vec<&str> = broken.as_deref().into_iter().chain(failpoints).collect();
        if !points.is_empty() {
            command.env("FAILPOINTS", points.join(";"));
        }
        slot.process = Some(Process::spawn(&mut command));
        slot.started += 1;
    }

    /// SIGKILL, whatever it does at the moment.
    pub fn kill(&mut self, slot: usize) {
        if let Some(mut process) = self.slots[slot].process.take() {
            process.kill9();
            self.keep(slot, &process, "killed");
        }
    }

    /// SIGTERM; it must end in order and in time.
    pub fn terminate(&mut self, slot: usize) {
        self.take_memory();
        let Some(mut process) = self.slots[slot].process.take() else {
            return;
        };
        let start = Instant::now();
        process.terminate();
        while process.is_running() && start.elapsed() < STOP_DEADLINE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let id = self.slots[slot].id.clone();
        if process.is_running() {
            process.kill9();
            self.failures.push(format!(
                "{id} has not stopped {STOP_DEADLINE:?} after SIGTERM"
            ));
        } else {
            let status = process.wait_exit(STOP_DEADLINE);
            if status.code() == Some(DOCUMENTED_EXIT) {
                self.documented_exits += 1;
            } else if !status.success() {
                self.failures
                    .push(format!("{id} ended with {status} after SIGTERM"));
            }
        }
        self.keep(slot, &process, "terminated");
    }

    /// Waits for the end of an instance that ends by itself at a fail point.
    pub fn wait_for_end(&mut self, slot: usize, deadline: Duration) -> Option<ExitStatus> {
        let process = self.slots[slot].process.as_mut()?;
        let start = Instant::now();
        while process.is_running() {
            if start.elapsed() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut process = self.slots[slot].process.take()?;
        let status = process.wait_exit(deadline);
        self.keep(slot, &process, "at a fail point");
        Some(status)
    }

    /// Whether a process is stopped by a signal.
    pub fn is_stopped(&self, slot: usize) -> bool {
        let Some(process) = &self.slots[slot].process else {
            return false;
        };
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid()));
        stat.is_ok_and(|stat| {
            stat.rsplit(')')
                .next()
                .is_some_and(|rest| rest.starts_with(" T"))
        })
    }

    /// Starts again what has ended by itself, and says what should not have.
    pub fn look_after(&mut self, stage: &Stage) -> Vec<String> {
        self.take_memory();
        for slot in 0..self.slots.len() {
            let Some(process) = self.slots[slot].process.as_mut() else {
                continue;
            };
            if process.is_running() {
                continue;
            }
            let status = process.wait_exit(STOP_DEADLINE);
            let id = self.slots[slot].id.clone();
            let process = self.slots[slot].process.take();
            let process = process.expect("it was there");
            let lines = process.stderr_lines();
            let last = lines.last().cloned().unwrap_or_default();
            self.keep(slot, &process, &format!("ended by itself: {status}"));
            if status.code() == Some(DOCUMENTED_EXIT) {
                self.documented_exits += 1;
                println!("chaos: {id} ended with the documented code, started again: {last}");
            } else {
                self.failures
                    .push(format!("{id} ended by itself with {status}: {last}"));
            }
            self.start(stage, slot, None);
        }
        std::mem::take(&mut self.failures)
    }

    /// The value of the series of an instance that start like this, added up.
    pub fn metric(&self, slot: usize, series: &str) -> Option<f64> {
        let body = self.get(slot, "/metrics")?;
        let values = body.lines().filter(|line| line.starts_with(series));
        Some(
            values
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum(),
        )
    }

    /// Whether an instance is ready and owns partitions of `streams` streams.
    pub fn has_work(&self, slot: usize, streams: usize) -> bool {
        let Some(body) = self.get(slot, "/metrics") else {
            return false;
        };
        let lags = { body.lines() }.filter_map(|line| {
            let labels = line.strip_prefix("swapstream_consumer_lag_records{")?;
            let (_, rest) = labels.split_once("stream=\"")?;
            rest.split('"').next().map(str::to_owned)
        });
        let with_work: std::collections::BTreeSet<String> = lags.collect();
        with_work.len() >= streams && self.is_ready(slot)
    }

    /// Whether an instance says that it is ready.
    pub fn is_ready(&self, slot: usize) -> bool {
        self.get(slot, "/readyz").is_some()
    }

    fn get(&self, slot: usize, path: &str) -> Option<String> {
        let process = self.slots[slot].process.as_ref()?;
        let lines = process.stderr_lines();
        let line = lines.iter().find(|line| line.contains(ADDRESS))?;
        let address = line.rsplit("http://").next()?.trim();
        let (code, body) = try_http_get(address, path).ok()?;
        (code == 200).then_some(body)
    }

    /// Looks how much memory the instances take at most so far.
    pub fn take_memory(&mut self) {
        let pids = { self.slots.iter() }.filter_map(|slot| Some(slot.process.as_ref()?.pid()));
        for pid in pids {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
            let peak = status.ok().and_then(|text| {
                let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
                line.split_whitespace().nth(1)?.parse::<u64>().ok()
            });
            self.peak_memory = self.peak_memory.max(peak.unwrap_or(0) * 1024);
        }
    }

    fn keep(&mut self, slot: usize, process: &Process, how: &str) {
        let slot = &self.slots[slot];
        let path = self.logs.join(format!("{}.log", slot.id));
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path);
        if let Ok(mut file) = file {
            let text = process.stderr_lines().join("\n");
            drop(writeln!(file, "{text}\n== start {} {how}\n", slot.started));
        }
    }

    /// Ends all in order.
    pub fn stop(&mut self) -> Vec<String> {
        for slot in 0..self.slots.len() {
            self.terminate(slot);
        }
        std::mem::take(&mut self.failures)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for slot in 0..self.slots.len() {
            if let Some(process) = self.slots[slot].process.take() {
                self.keep(slot, &process, "at the end of the run");
            }
        }
    }
}
