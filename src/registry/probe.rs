//! The probe: a version is loaded in a process of its own before it is loaded here, because an
//! allocation that fails or a stack that overflows ends the process it happens in.
//!
//! This file has the two sides' common words and what the child does; the parent's side is behind
//! [`ModelProbe`]. On the child's stdin come one line of JSON, [`ProbeHead`], then the manifest,
//! then the golden file where it has one, then the artifact to the end; on its stdout goes one line of JSON, [`ProbeAnswer`].

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::lifecycle::{LoadState, Refusal};
use super::loader::{LoadFailure, prepare};
use crate::model::Manifest;
use crate::runtime::{self, RuntimeSettings};

/// Value of `schema` in a probe's request and answer.
pub const PROBE_SCHEMA: &str = "swapstream.probe/v1";

/// Stack of the thread that loads in the child: less than a thread has in the service, so that
/// what passes here does not overflow there.
const STACK_BYTES: usize = 7 * 256 * 1024;

/// What a version may take while it is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeLimits {
    /// Address space beyond the empty process, in bytes; default 4 GiB.
    pub memory: u64,
    /// Processor time; default one minute.
    pub time: Duration,
}

impl Default for ProbeLimits {
    fn default() -> Self {
        Self {
            memory: 4 << 30,
            time: Duration::from_mins(1),
        }
    }
}

/// The first line that the child reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeHead {
    /// Always `swapstream.probe/v1`.
    pub schema: String,
    /// Address space that may be added, in bytes.
    pub memory: u64,
    /// Processor time, in whole seconds.
    pub seconds: u64,
    /// Largest artifact and largest sum of weights, in bytes.
    pub max_bytes: u64,
    /// ONNX Runtime's shared library, where one is configured.
    #[serde(default)]
    pub onnxruntime_library: Option<PathBuf>,
    /// Length of the manifest.
    pub manifest_bytes: u64,
    /// Length of the golden file.
    #[serde(default)]
    pub golden_bytes: u64,
}

/// The line that the child writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// Always `swapstream.probe/v1`.
    pub schema: String,
    /// Why the version cannot be loaded.
    pub refused: Option<ProbeRefusal>,
    /// What it took.
    pub took: ProbeReport,
}

/// A refusal as it is handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRefusal {
    /// The state that was not reached.
    pub stage: LoadState,
    /// Why not.
    pub reason: String,
}

/// What loading a version took in the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The most memory that was held, in bytes, the artifact included and the program's own pages
    /// left out; 0: this system does not tell.
    pub peak_memory: u64,
    /// What the empty process held, in bytes.
    #[serde(default)]
    pub base_memory: u64,
    /// What was held once the version was loaded, the empty process included, in bytes.
    #[serde(default)]
    pub held_memory: u64,
    /// Time from the end of reading to the answer, in milliseconds.
    pub load_ms: u64,
}

/// A version to probe.
#[derive(Debug, Clone, Copy)]
pub struct ProbeCandidate<'a> {
    /// The artifact.
    pub bytes: &'a [u8],
    /// The golden file; empty where the manifest names none.
    pub golden: &'a [u8],
    /// The manifest.
    pub manifest: &'a Manifest,
    /// Largest artifact and largest sum of weights, in bytes.
    pub max_bytes: u64,
}

/// Loads a version somewhere else first.
pub trait ModelProbe: Send + Sync + fmt::Debug {
    /// Gives what it took; gives up when it is no longer `wanted`.
    ///
    /// # Errors
    /// A refusal where the version cannot be loaded, at stage [`LoadState::Probed`] where loading
    /// it ended the process or went over a limit; a transient failure where nothing was found out.
    fn probe(
        &self,
        candidate: ProbeCandidate<'_>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<ProbeReport, LoadFailure>;
}

impl ProbeCandidate<'_> {
    /// Writes what the child reads.
    pub fn write_to(
        &self,
        limits: ProbeLimits,
        runtime: &RuntimeSettings,
        to: &mut dyn Write,
    ) -> io::Result<()> {
        let manifest = self.manifest.to_json().map_err(io::Error::other)?;
        let seconds = limits.time.as_secs() + u64::from(limits.time.subsec_nanos() > 0);
        let head = ProbeHead {
            schema: PROBE_SCHEMA.to_owned(),
            memory: limits.memory,
            seconds: seconds.max(1),
            max_bytes: self.max_bytes,
            onnxruntime_library: runtime.onnxruntime_library.clone(),
            manifest_bytes: manifest.len() as u64,
            golden_bytes: self.golden.len() as u64,
        };
        serde_json::to_writer(&mut *to, &head)?;
        to.write_all(b"\n")?;
        to.write_all(&manifest)?;
        to.write_all(self.golden)?;
        to.write_all(self.bytes)?;
        to.flush()
    }
}

/// What the child asks of the system it runs on.
#[derive(Debug, Clone, Copy)]
pub struct ProbeSystem {
    /// Limits this process: address space beyond what it has, in bytes, and seconds of processor
    /// time.
    pub limit: fn(u64, u64) -> io::Result<()>,
    /// The most memory that this process has held, in bytes.
    pub peak_memory: fn() -> u64,
    /// The memory that this process holds, in bytes.
    pub memory: fn() -> u64,
}

impl ProbeReport {
    /// What loading takes beyond the empty process, in bytes.
    pub fn load_bytes(&self) -> u64 {
        self.peak_memory.saturating_sub(self.base_memory)
    }

    /// What the loaded version keeps, in bytes.
    pub fn held_bytes(&self) -> u64 {
        self.held_memory.saturating_sub(self.base_memory)
    }
}

/// The child: reads a version, loads it within limits, answers.
pub fn run_probe(
    mut from: impl BufRead,
    mut to: impl Write,
    system: ProbeSystem,
) -> io::Result<()> {
    let mut line = String::new();
    (&mut from).take(4096).read_line(&mut line)?;
    let head: ProbeHead = serde_json::from_str(&line)?;
    if head.schema != PROBE_SCHEMA {
        let message = format!("schema {:?} instead of {PROBE_SCHEMA:?}", head.schema);
        return Err(io::Error::other(message));
    }
    (system.limit)(head.memory, head.seconds)?;
    let base_memory = (system.memory)();
    runtime::configure(&RuntimeSettings {
        onnxruntime_library: head.onnxruntime_library,
    });
    let mut manifest = Vec::new();
    (&mut from)
        .take(head.manifest_bytes)
        .read_to_end(&mut manifest)?;
    let manifest = Manifest::from_json(&manifest).map_err(io::Error::other)?;
    let mut golden = Vec::new();
    (&mut from)
        .take(head.golden_bytes)
        .read_to_end(&mut golden)?;
    let mut bytes = Vec::with_capacity(usize::try_from(manifest.artifact.bytes).unwrap_or(0));
    from.read_to_end(&mut bytes)?;

    let start = Instant::now();
    let load = move || {
        let whole = manifest.with_golden_file(&golden).map_err(|error| Refusal {
            stage: LoadState::Checked,
            reason: format!("the golden file: {error}"),
        });
        drop(golden);
        let loaded = whole.and_then(|whole| prepare(&bytes, &whole, head.max_bytes, &mut |_| {}));
        drop(bytes);
        let holds = (system.memory)();
        // Taking it down is part of the trial.
        loaded.map(|loaded| {
            drop(loaded);
            holds
        })
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    let loaded = thread.spawn(load)?.join().unwrap_or_else(|_| {
        Err(Refusal {
            stage: LoadState::Probed,
            reason: "loading it panicked".to_owned(),
        })
    });
    let held_memory = loaded.as_ref().copied().unwrap_or_default();
    let refused = loaded.err();
    let answer = ProbeAnswer {
        schema: PROBE_SCHEMA.to_owned(),
        refused: refused.map(|Refusal { stage, reason }| ProbeRefusal { stage, reason }),
        took: ProbeReport {
            peak_memory: (system.peak_memory)(),
            base_memory,
            held_memory,
            load_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        },
    };
    serde_json::to_writer(&mut to, &answer)?;
    to.write_all(b"\n")?;
    to.flush()
}
