//! One version's way from the registry into memory: fetch, verify, probe, compile, hold against its
//! contract, check, warm up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::cache::ArtifactCache;
use super::chunks::{CHUNKS_HEADER, ChunkError, ChunksHeader, GOLDEN_CHUNKS_HEADER};
use super::fetch::{FetchError, FetchLimits, fetch};
use super::guard::LoadGuard;
use super::lifecycle::{LoadState, Refusal};
use super::logs::RegistryLogs;
use super::memory::{Lease, Leased, ModelMemory, NoMemory};
use super::passed::Passed;
use super::probe::{ModelProbe, ProbeCandidate, ProbeReport};
use super::settings::RegistrySettings;
use super::store::fetch_uri;
use crate::model::{Contract, Digest, GOLDEN_MAX_BYTES, Manifest, RuntimeKind};
use crate::runtime::{self, CompiledModel, LoadLimits};
use crate::scorer::golden;
use crate::scorer::warm_up::warm_up;

/// How long a load waits for what was retired to be freed: the longest batches and a margin.
const MEMORY_PATIENCE: Duration = Duration::from_secs(10);

/// A version to load.
#[derive(Debug, Clone)]
pub struct LoadJob {
    /// Offset of the event that deploys it.
    pub revision: i64,
    /// Its manifest.
    pub manifest: Arc<Manifest>,
    /// Where its artifact lies.
    pub chunks: Option<Result<ChunksHeader, ChunkError>>,
    /// Where its golden file lies, if it has one.
    pub golden_chunks: Option<Result<ChunksHeader, ChunkError>>,
    /// Set when it is no longer wanted.
    pub cancelled: Arc<AtomicBool>,
}

impl LoadJob {
    fn wanted(&self) -> bool {
        !self.cancelled.load(Ordering::Relaxed)
    }
}

/// A version in memory, ready to serve.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// How events fill its inputs and which outputs it emits.
    pub contract: Contract,
    /// What runs it.
    pub compiled: Arc<dyn CompiledModel>,
}

/// Why a version is not in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadFailure {
    /// It never will be, as long as its deployment stands.
    Refused(Refusal),
    /// Not for this long; meanwhile others take its place.
    Banned(Refusal, Duration),
    /// It may be later.
    Transient(String),
    /// It is no longer wanted.
    Cancelled,
}

/// Brings versions into memory. Called on a thread of its own for each load.
pub trait Loader: Send + Sync {
    /// Loads; tells each state that is reached.
    fn load(
        &self,
        job: &LoadJob,
        reached: &mut dyn FnMut(LoadState),
    ) -> Result<Loaded, LoadFailure>;
}

/// Loads from the registry's topics into the runtime.
#[derive(Debug)]
pub struct RegistryLoader {
    logs: Arc<dyn RegistryLogs>,
    max_bytes: u64,
    fetch_time: Duration,
    cache: ArtifactCache,
    safety: LoadSafety,
    passed: Mutex<Passed>,
}

/// What keeps a bad version from harming this process.
#[derive(Debug, Clone, Default)]
pub struct LoadSafety {
    /// Loads it somewhere else first. Without one, a model that ends the process it is loaded in
    /// ends this one.
    pub probe: Option<Arc<dyn ModelProbe>>,
    /// Notes that a load is under way, and refuses one that ended the process repeatedly.
    pub guard: Option<Arc<LoadGuard>>,
    /// Bounds what all models take together, by what the probe measures.
    pub memory: Option<Arc<ModelMemory>>,
}

impl RegistryLoader {
    /// Of these topics.
    pub fn new(
        logs: Arc<dyn RegistryLogs>,
        settings: &RegistrySettings,
        safety: LoadSafety,
    ) -> Self {
        Self {
            logs,
            max_bytes: settings.max_artifact_bytes,
            fetch_time: settings.fetch_time,
            cache: ArtifactCache::new(settings.cache.clone()),
            safety,
            passed: Mutex::default(),
        }
    }

    /// Finds out whether a version can be loaded, and what that takes; keeps nothing in memory.
    pub fn verify(&self, job: &LoadJob) -> Result<ProbeReport, LoadFailure> {
        let (bytes, golden) = (self.fetch(job)?, self.fetch_golden(job)?);
        if let Some(took) = self.probe(&bytes, &golden, job)? {
            return Ok(took);
        }
        let manifest = whole(&job.manifest, &golden)?;
        prepare(&bytes, &manifest, self.max_bytes, &mut |_| {})
            .map(|_| ProbeReport::default())
            .map_err(LoadFailure::Refused)
    }

    fn probe(
        &self,
        bytes: &[u8],
        golden: &[u8],
        job: &LoadJob,
    ) -> Result<Option<ProbeReport>, LoadFailure> {
        let Some(probe) = &self.safety.probe else {
            return Ok(None);
        };
        let manifest = &job.manifest;
        let written = manifest.to_json();
        let known = written.as_ref().ok().map(|bytes| Digest::of(bytes));
        let passed = || self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(took) = known.and_then(|known| passed().get(&known)) {
            return Ok(Some(took));
        }
        let candidate = ProbeCandidate {
            bytes,
            golden,
            manifest,
            max_bytes: self.max_bytes,
        };
        let took = probe.probe(candidate, &|| job.wanted())?;
        tracing::info!(
            model = %manifest.model,
            version = %manifest.version,
            load_bytes = took.load_bytes(),
            held_bytes = took.held_bytes(),
            load_ms = took.load_ms,
            "probed"
        );
        if let Some(known) = known {
            passed().add(known, took);
        }
        Ok(Some(took))
    }

    /// Memory for what the probe measured; `None`: there is no limit.
    fn lease(&self, job: &LoadJob, took: &ProbeReport) -> Option<Result<Lease, LoadFailure>> {
        let memory = self.safety.memory.as_ref()?;
        let bytes = took.load_bytes();
        let lease = memory.lease(bytes, MEMORY_PATIENCE, &|| job.wanted());
        Some(lease.map_err(|error| match error {
            NoMemory::Unwanted => LoadFailure::Cancelled,
            NoMemory::Used(used) => LoadFailure::Refused(Refusal {
                stage: LoadState::Compiled,
                reason: format!(
                    "loading it takes {bytes} bytes and the loaded models hold {used}: together \
                     more than the {} of limits.model_memory",
                    memory.limit()
                ),
            }),
        }))
    }

    fn fetch(&self, job: &LoadJob) -> Result<Vec<u8>, LoadFailure> {
        let refuse = |stage, reason: String| Err(LoadFailure::Refused(Refusal { stage, reason }));
        let artifact = &job.manifest.artifact;
        let limits = FetchLimits {
            max_bytes: self.max_bytes,
            max_time: self.fetch_time,
        };
        let watch = |_: u64| job.wanted();
        let fetched = match (&job.chunks, &artifact.uri) {
            (Some(Ok(header)), _) => {
                let (bytes, digest) = (artifact.bytes, &artifact.digest);
                fetch(&*self.logs, header, bytes, digest, limits, &watch)
            }
            (Some(Err(error)), _) => {
                return refuse(
                    LoadState::Fetched,
                    format!("header {CHUNKS_HEADER:?}: {error}"),
                );
            }
            (None, Some(uri)) => fetch_uri(uri, artifact, Some(&self.cache), limits, &watch),
            (None, None) => {
                let why = format!("the manifest's record has no header {CHUNKS_HEADER:?}");
                return refuse(LoadState::Fetched, why);
            }
        };
        fetched.map_err(|error| failure(error, ""))
    }

    /// The golden file, verified; empty where the manifest names none.
    fn fetch_golden(&self, job: &LoadJob) -> Result<Vec<u8>, LoadFailure> {
        let Some(file) = &job.manifest.checks.golden_file else {
            return Ok(Vec::new());
        };
        let refused = |why: String| failure(FetchError::Refused(why), GOLDEN);
        let header = match &job.golden_chunks {
            Some(Ok(header)) => header,
            Some(Err(error)) => return Err(refused(error.to_string())),
            None => {
                let why = format!("the manifest's record has no header {GOLDEN_CHUNKS_HEADER:?}");
                return Err(refused(why));
            }
        };
        if file.bytes > GOLDEN_MAX_BYTES {
            let bytes = file.bytes;
            let why = format!("it has {bytes} bytes, at most {GOLDEN_MAX_BYTES} are allowed");
            return Err(refused(why));
        }
        let limits = FetchLimits {
            max_bytes: GOLDEN_MAX_BYTES,
            max_time: self.fetch_time,
        };
        let watch = |_: u64| job.wanted();
        let (bytes, digest) = (file.bytes, &file.digest);
        fetch(&*self.logs, header, bytes, digest, limits, &watch)
            .map_err(|error| failure(error, GOLDEN))
    }
}

impl Loader for RegistryLoader {
    fn load(
        &self,
        job: &LoadJob,
        reached: &mut dyn FnMut(LoadState),
    ) -> Result<Loaded, LoadFailure> {
        let (bytes, golden) = (self.fetch(job)?, self.fetch_golden(job)?);
        // The digests were verified before the bytes were handed out.
        reached(LoadState::Fetched);
        reached(LoadState::Verified);
        if !job.wanted() {
            return Err(LoadFailure::Cancelled);
        }
        let took = self.probe(&bytes, &golden, job)?;
        reached(LoadState::Probed);
        if !job.wanted() {
            return Err(LoadFailure::Cancelled);
        }
        let mut lease = took.and_then(|took| self.lease(job, &took)).transpose()?;
        let noted = self.safety.guard.as_ref().map(|guard| guard.begin(job));
        let noted = noted.transpose()?;
        let manifest = whole(&job.manifest, &golden)?;
        let mut loaded =
            prepare(&bytes, &manifest, self.max_bytes, reached).map_err(LoadFailure::Refused)?;
        drop(noted);
        if let (Some(mut lease), Some(took)) = (lease.take(), took) {
            lease.shrink(took.held_bytes());
            loaded.compiled = Leased::hold(loaded.compiled, lease);
        }
        Ok(loaded)
    }
}

/// What a failed fetch of the golden file is said of.
const GOLDEN: &str = "the golden file: ";

fn failure(error: FetchError, of: &str) -> LoadFailure {
    let refused = |stage, why: &dyn std::fmt::Display| {
        // What chunks say of themselves, they say of an artifact.
        let why = why.to_string();
        let reason = match of {
            "" => why,
            of => format!("{of}{}", why.replacen("the artifact", "it", 1)),
        };
        LoadFailure::Refused(Refusal { stage, reason })
    };
    match error {
        FetchError::Refused(why) => refused(LoadState::Fetched, &why),
        error @ (FetchError::Altered(_) | FetchError::Elsewhere(_)) => {
            refused(LoadState::Verified, &error)
        }
        FetchError::Transient(why) => LoadFailure::Transient(format!("{of}{why}")),
        FetchError::Cancelled => LoadFailure::Cancelled,
    }
}

/// The manifest with the rows of its golden file.
fn whole(manifest: &Arc<Manifest>, golden: &[u8]) -> Result<Arc<Manifest>, LoadFailure> {
    if manifest.checks.golden_file.is_none() {
        return Ok(Arc::clone(manifest));
    }
    let whole = manifest.with_golden_file(golden);
    whole.map(Arc::new).map_err(|error| {
        LoadFailure::Refused(Refusal {
            stage: LoadState::Checked,
            reason: format!("{GOLDEN}{error}"),
        })
    })
}

/// Compiles an artifact, holds it against its manifest's contract and runs the golden rows. Also
/// what `model publish` does before it uploads. For `auto` the first runtime counts with which all
/// of that goes well.
pub fn prepare(
    bytes: &[u8],
    manifest: &Manifest,
    max_bytes: u64,
    reached: &mut dyn FnMut(LoadState),
) -> Result<Loaded, Refusal> {
    let mut refusals: Vec<(RuntimeKind, Refusal)> = Vec::new();
    for &kind in runtime::candidates(manifest.runtime) {
        match prepare_for(kind, bytes, manifest, max_bytes, reached) {
            Ok(loaded) => return Ok(loaded),
            Err(refusal) => {
                tracing::debug!(runtime = kind.as_str(), "{}", refusal.reason);
                refusals.push((kind, refusal));
            }
        }
    }
    // As far as the one came that came farthest.
    let stages = refusals.iter().map(|(_, refusal)| refusal.stage);
    let stage = stages.max().unwrap_or(LoadState::Compiled);
    let reasons = refusals.into_iter().map(|(kind, r)| (kind, r.reason));
    let reason = runtime::all_refusals(&reasons.collect::<Vec<_>>());
    Err(Refusal { stage, reason })
}

/// Like [`prepare`], for one runtime.
pub fn prepare_for(
    kind: RuntimeKind,
    bytes: &[u8],
    manifest: &Manifest,
    max_bytes: u64,
    reached: &mut dyn FnMut(LoadState),
) -> Result<Loaded, Refusal> {
    let refuse = |stage, reason: String| Refusal { stage, reason };
    let limit = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let limits = LoadLimits {
        max_bytes: limit,
        max_initialiser_bytes: limit,
        ..LoadLimits::default()
    };
    let compiled = runtime::load(bytes, kind, limits)
        .map_err(|error| refuse(LoadState::Compiled, error.to_string()))?;
    let contract = Contract::resolve(&manifest.inputs, &manifest.outputs, compiled.signature())
        .map_err(|error| refuse(LoadState::Compiled, error.to_string()))?;
    reached(LoadState::Compiled);
    golden::check(&compiled, &contract, &manifest.checks)
        .map_err(|error| refuse(LoadState::Checked, error.to_string()))?;
    reached(LoadState::Checked);
    warm_up(&compiled, &contract, &manifest.checks)
        .map_err(|error| refuse(LoadState::WarmedUp, error.to_string()))?;
    reached(LoadState::WarmedUp);
    Ok(Loaded { contract, compiled })
}
