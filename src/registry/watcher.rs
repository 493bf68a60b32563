//! The control task: one thread that follows `model-versions` and `model-deployments`, lets the
//! control state decide, and puts what it decides into the serving snapshot. Loads run on threads
//! of their own, so that following goes on.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::background::{self, Standing};
use super::board::Board;
use super::control::{Control, ControlEvent, Effect};
use super::error::RegistryError;
use super::followed::Followed;
use super::lifecycle::{LoadState, Refusal};
use super::loader::{LoadFailure, LoadJob, Loaded, Loader};
use super::logs::RegistryLogs;
use super::topics::{RegistryTopic, check_log_start};
use super::trust::Trust;
use crate::kafka::LogStart;
use crate::model::ModelName;
use crate::serving::{Serving, ServingModel};

/// How long a look at one topic waits for a record: what a deployment may wait at most, twice.
const POLL: Duration = Duration::from_millis(20);

/// The same while something loads: what its end may wait.
const POLL_LOADING: Duration = Duration::from_millis(2);

/// A load that takes longer is given some of the workers' time: they may leave it none.
const SLOW: Duration = Duration::from_secs(5);

/// Loads that run at the same time.
const MAX_LOADS: usize = 2;

/// Pause after the first failed attempt to reach the topics, and the longest one.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Told of everything that happens to a model; must not block.
pub type Observer = Arc<dyn Fn(&ControlEvent) + Send + Sync>;

/// What the watcher works with.
pub struct WatcherParts {
    /// The registry's topics.
    pub logs: Arc<dyn RegistryLogs>,
    /// Brings versions into memory.
    pub loader: Arc<dyn Loader>,
    /// Where what serves is put.
    pub serving: Arc<Serving>,
    /// Where the state is shown.
    pub board: Arc<Board>,
    /// The models that this instance's streams need.
    pub models: BTreeSet<ModelName>,
    /// Whose versions are served.
    pub trust: Trust,
    /// Metrics.
    pub observer: Observer,
}

impl std::fmt::Debug for WatcherParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatcherParts")
            .field("models", &self.models)
            .finish_non_exhaustive()
    }
}

/// The running control task.
#[derive(Debug)]
pub struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watcher {
    /// Starts the thread. It retries for ever: a registry that is not there yet makes the
    /// instance unready, not dead.
    pub fn start(parts: WatcherParts) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut task = Task::new(parts, Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("registry-watcher".into())
            .spawn(move || task.run())?;
        Ok(Self { stop, thread })
    }

    /// Whether the thread lives; it ends by [`Self::stop`] or by a defect only.
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Stops following, waiting at most `timeout`; gives whether the thread has ended. What serves
    /// stays. A load that is under way is told to end and left behind.
    pub fn stop(self, timeout: Duration) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        join(self.thread, timeout)
    }
}

/// Waits for a thread at most `timeout`; gives whether it has ended.
pub(super) fn join(thread: JoinHandle<()>, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    if thread.join().is_err() {
        tracing::error!("a registry thread panicked");
    }
    true
}

enum Message {
    Reached(ModelName, i64, LoadState, Instant),
    Ended(Box<LoadJob>, Box<Result<Loaded, LoadFailure>>),
}

struct Task {
    parts: WatcherParts,
    stop: Arc<AtomicBool>,
    control: Control,
    sender: SyncSender<Message>,
    messages: Receiver<Message>,
    started: Instant,
    deployments_next: i64,
    versions_next: i64,
    caught_up: bool,
    dirty: bool,
    wake: Option<Instant>,
    /// Retired versions: freed here once the last worker has let go, not on a worker.
    retired: Vec<Arc<ServingModel>>,
}

impl Task {
    fn new(parts: WatcherParts, stop: Arc<AtomicBool>) -> Self {
        let (sender, messages) = sync_channel(64);
        let control = Control::new(parts.models.clone(), MAX_LOADS, parts.trust.clone());
        Self {
            parts,
            stop,
            control,
            sender,
            messages,
            started: Instant::now(),
            deployments_next: 0,
            versions_next: 0,
            caught_up: false,
            dirty: true,
            wake: None,
            retired: Vec::new(),
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn run(&mut self) {
        let (mut pause, longest) = PAUSE;
        while !self.stopped() {
            self.parts.board.beat();
            let problem = match self.open() {
                Ok((deployments, versions)) => {
                    pause = PAUSE.0;
                    if self.parts.board.set_problem(None) {
                        tracing::info!("following the registry's topics");
                    }
                    self.follow(deployments, versions).err()
                }
                Err(error) => Some(error),
            };
            if let Some(problem) = problem.filter(|_| !self.stopped()) {
                let text = problem.to_string();
                if self.parts.board.set_problem(Some(text.clone())) {
                    tracing::warn!("the registry cannot be followed, trying again: {text}");
                }
                self.pause(pause);
                pause = (pause * 2).min(longest);
            }
        }
        self.control.cancel();
        self.parts.serving.set_cramped(false);
    }

    /// Waits; what does not need the topics goes on.
    fn pause(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        while !self.stopped() && Instant::now() < until {
            if let Err(error) = self.act(false) {
                tracing::debug!("while the registry cannot be followed: {error}");
            }
            std::thread::sleep(POLL);
        }
    }

    fn open(&self) -> Result<(Followed, Followed), RegistryError> {
        let logs = &*self.parts.logs;
        logs.check(&RegistryTopic::ALL)?;
        let (deployments, first) =
            Followed::open(logs, RegistryTopic::Deployments, self.deployments_next)?;
        if let Some(problem) = check_log_start(&logs.name(RegistryTopic::Deployments), first) {
            return Err(RegistryError::Topics(vec![problem]));
        }
        let (versions, _) = Followed::open(logs, RegistryTopic::Versions, self.versions_next)?;
        Ok((deployments, versions))
    }

    /// Follows both topics until it is stopped or one of them fails.
    fn follow(
        &mut self,
        mut deployments: Followed,
        mut versions: Followed,
    ) -> Result<(), RegistryError> {
        let logs = Arc::clone(&self.parts.logs);
        while !self.stopped() {
            let control = &mut self.control;
            let wait = if control.is_loading() {
                POLL_LOADING
            } else {
                POLL
            };
            let new_deployments = deployments.take(wait, |record| control.deployment(&record));
            self.deployments_next = deployments.next;
            let new_versions = versions.take(wait, |record| control.version(record));
            self.versions_next = versions.next;
            control.versions_read_to(versions.next);
            self.dirty |= new_deployments? | new_versions?;
            if !self.caught_up && deployments.done() && versions.done() {
                self.caught_up = true;
                self.dirty = true;
                // What serves is shown before readiness, and readiness only with it.
                self.act(true)?;
                self.parts.board.set_caught_up();
                let ms = self.started.elapsed().as_millis();
                tracing::info!(ms, "the registry's topics are read to their end");
            }
            self.act(true)?;
            if self.caught_up {
                deployments.settle(&*logs)?;
                versions.settle(&*logs)?;
            }
        }
        Ok(())
    }

    /// Lets the control state decide and does what it says; what takes the topics where they are
    /// followed only.
    fn act(&mut self, follows: bool) -> Result<(), RegistryError> {
        self.parts.board.beat();
        self.hear();
        self.free_retired();
        let now = Instant::now();
        let since = self.control.loading_since();
        let cramped = since.is_some_and(|since| now.saturating_duration_since(since) >= SLOW);
        self.parts.serving.set_cramped(cramped);
        let due = self.wake.is_some_and(|wake| wake <= now);
        if !self.caught_up || !(self.dirty || due) {
            return Ok(());
        }
        self.dirty = false;
        let (effects, wake) = self.control.step(now);
        self.wake = wake;
        let mut failed = None;
        for effect in self.serve(effects) {
            match effect {
                Effect::Serve(..) => {}
                Effect::Load(job) => self.load(&job),
                Effect::AskVersionsEnd(model, revision) => {
                    self.dirty = true;
                    if !follows {
                        continue;
                    }
                    match self.versions_end() {
                        Ok(end) => self.control.versions_end(&model, revision, end),
                        Err(error) => failed = Some(error),
                    }
                }
                Effect::Report(model, report) => self.parts.board.set_report(&model, report),
                Effect::Event(event) => self.tell(&event),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The offset that ends what can be read of the versions now. Asked for with a reader that fetches
    /// nothing: a request waits until the fetch before it is answered.
    fn versions_end(&self) -> Result<i64, RegistryError> {
        let versions = RegistryTopic::Versions;
        let mut log = self.parts.logs.open(versions, LogStart::Beginning)?;
        Ok(log.stable_end()?)
    }

    /// Puts what is to serve into the snapshot, all of it in one swap and before anything else,
    /// and gives the other effects.
    fn serve(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let (mut states, mut others) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Serve(model, state) => states.push((model, state)),
                other => others.push(other),
            }
        }
        if states.is_empty() {
            return others;
        }
        let before = self.parts.serving.load();
        for (model, state) in &states {
            // A state may be new and serve the same: a second hold on it would never end.
            let new = state.serving.as_ref().map(Arc::as_ptr);
            let old = before.serving(model);
            let replaced = old.filter(|old| Some(Arc::as_ptr(old)) != new);
            self.retired.extend(replaced.cloned());
        }
        drop(before);
        self.parts.serving.set_all(states);
        others
    }

    /// Frees the retired versions that no worker uses any more: hundreds of megabytes take their
    /// time, so not here, and behind scoring.
    fn free_retired(&mut self) {
        let unused = |model: &mut Arc<ServingModel>| Arc::strong_count(model) == 1;
        let unused: Vec<_> = self.retired.extract_if(.., unused).collect();
        if !unused.is_empty() {
            // Without a thread they are freed here.
            let free = move || drop(unused);
            drop(background::spawn("free-models", Standing::Behind, free));
        }
    }

    /// Takes what the loads say.
    fn hear(&mut self) {
        loop {
            match self.messages.try_recv() {
                Ok(Message::Reached(model, revision, state, at)) => {
                    let event = self.control.load_reached(&model, revision, state, at);
                    if let Some(event) = event {
                        self.tell(&event);
                    }
                }
                Ok(Message::Ended(job, result)) => {
                    let event = self.control.load_ended(&job, *result, Instant::now());
                    if let Some(event) = event {
                        self.tell(&event);
                    }
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
            self.dirty = true;
        }
    }

    fn load(&mut self, job: &LoadJob) {
        let loader = Arc::clone(&self.parts.loader);
        let sender = self.sender.clone();
        let name = format!("load-{}", job.manifest.model);
        let thread_job = job.clone();
        // Nothing of the model serves: its streams wait.
        let standing = match self.parts.serving.load().serving(&job.manifest.model) {
            Some(_) => Standing::Behind,
            None => Standing::Awaited,
        };
        let run = move || run_load(&*loader, thread_job, &sender);
        let spawned = background::spawn(&name, standing, run);
        if let Err(error) = spawned {
            let failure = LoadFailure::Transient(format!("no thread to load it: {error}"));
            if let Some(event) = self.control.load_ended(job, Err(failure), Instant::now()) {
                self.tell(&event);
            }
            self.dirty = true;
        }
    }

    fn tell(&self, event: &ControlEvent) {
        match event {
            ControlEvent::Activated {
                model,
                version,
                revision,
                previous,
                took,
                ..
            } => {
                let previous = previous.as_ref().map(tracing::field::display);
                let ms = took.map(|took| took.as_millis());
                tracing::info!(%model, %version, revision, previous, ms, "serves");
            }
            ControlEvent::Reached {
                model,
                version,
                state,
                took,
            } => {
                let ms = took.as_millis();
                tracing::debug!(%model, %version, %state, ms, "loading");
            }
            ControlEvent::Retired { model, version } => {
                tracing::info!(%model, %version, "undeployed: no longer serves");
            }
            ControlEvent::Refused {
                model,
                version,
                revision,
                refusal,
            } => {
                let stage = refusal.stage;
                tracing::warn!(%model, %version, revision, %stage, "refused: {}", refusal.reason);
            }
            ControlEvent::Retrying {
                model,
                version,
                failure,
            } => {
                let attempt = failure.attempts;
                tracing::warn!(%model, %version, attempt, "load failed, trying again: {}", failure.reason);
            }
        }
        (self.parts.observer)(event);
    }
}

fn run_load(loader: &dyn Loader, job: LoadJob, sender: &SyncSender<Message>) {
    let mut last = LoadState::Announced;
    let result = catch_unwind(AssertUnwindSafe(|| {
        loader.load(&job, &mut |reached| {
            last = reached;
            let model = job.manifest.model.clone();
            // Nobody listens once the watcher has stopped.
            sender
                .send(Message::Reached(
                    model,
                    job.revision,
                    reached,
                    Instant::now(),
                ))
                .ok();
        })
    }));
    let result = result.unwrap_or_else(|_| {
        let stage = next_state(last);
        let reason = "loading it panicked; see the log".to_owned();
        Err(LoadFailure::Refused(Refusal { stage, reason }))
    });
    sender
        .send(Message::Ended(Box::new(job), Box::new(result)))
        .ok();
}

fn next_state(state: LoadState) -> LoadState {
    match state {
        LoadState::Announced => LoadState::Fetched,
        LoadState::Fetched => LoadState::Verified,
        LoadState::Verified | LoadState::Probed => LoadState::Compiled,
        LoadState::Compiled => LoadState::Checked,
        LoadState::Checked => LoadState::WarmedUp,
        LoadState::WarmedUp | LoadState::Active => LoadState::Active,
    }
}
