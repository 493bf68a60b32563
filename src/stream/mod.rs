//! The data plane: a stream's workers.
//!
//! A worker is one thread with its own consumer and its own producer. It shares nothing with its
//! neighbours: the consumer group is the only scheduler. What it promises: an offset is committed
//! only after every prediction and dead letter up to it is acknowledged (`at_least_once`), or in
//! one transaction with them (`exactly_once`).
//!
//! | file | job |
//! |---|---|
//! | `worker` | waits for the model, joins the group, starts anew after what can be mended |
//! | `session` | one time in the group: poll, score, produce |
//! | `assignment` | answers rebalances, holds partitions back for their revision |
//! | `cycle` | acknowledgements, then commits |
//! | `exactly_once` | commits by transactions, aborts, rewinds |
//! | `intake` | forms batches of what was polled |
//! | `emit` | predictions, dead letters, policies |
//! | `acceptance` | which records a topic takes |
//! | `partitions`, `transaction`, `fence`, `routes`, `pace` | the pure parts |

mod acceptance;
mod assignment;
mod complaints;
mod cycle;
mod emit;
mod exactly_once;
mod fence;
mod health;
mod intake;
mod pace;
mod partitions;
mod parts;
mod room;
mod routes;
mod session;
mod settings;
mod stall;
mod topics;
mod transaction;
mod worker;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use settings::{
    ErrorPolicy, GroupProtocol, NonFiniteOutputs, OnDataLoss, ProcessingGuarantee, StartFrom,
    StreamSettings,
};

use self::health::WorkerHealth;
use self::parts::Parts;
use self::topics::Topics;
use self::worker::Worker;
use crate::kafka::{ClientShare, KafkaSettings, SharedAdmin};
use crate::serving::Serving;
use crate::telemetry::{Metrics, WorkerState};

/// A worker whose loop has not turned for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_mins(1);
/// Pauses between attempts to look the topics up.
const LOOK_UP_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Pause before a worker that panicked is started again.
const PANIC_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// A client call that takes so much longer than it may makes the process not live.
const OVERDUE: Duration = Duration::from_secs(2);
/// One that takes so much longer hangs: it cannot be cancelled, the process has to be restarted. The
/// broker has ended the transaction by then, so that waiting on helps nobody.
const HUNG: Duration = Duration::from_secs(5);

/// What a stream needs besides its settings.
#[derive(Debug, Clone)]
pub struct StreamContext {
    /// How to reach Kafka.
    pub kafka: KafkaSettings,
    /// Looks topics up, for all streams.
    pub admin: SharedAdmin,
    /// What each worker's clients take of what all share.
    pub share: ClientShare,
    /// What serves.
    pub serving: Arc<Serving>,
    /// Where to count.
    pub metrics: Arc<Metrics>,
    /// The name of this instance.
    pub instance_id: String,
    /// Whether the broker can tell topic settings; off for the embedded one.
    pub describe_topics: bool,
}

/// What a stream says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamReport {
    /// The stream's name.
    pub name: String,
    /// Whether all its workers' loops turn.
    pub live: bool,
    /// Whether its workers are in their group.
    pub ready: bool,
    /// Partitions assigned to this instance.
    pub partitions: usize,
    /// Why it is not live or not ready, or what else is wrong.
    pub problems: Vec<String>,
}

/// Why a stream asks for the end of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fatal {
    /// A call into the Kafka client does not return. A restart helps.
    Hung(String),
    /// An operator has to change something.
    GivenUp(String),
}

/// A running stream.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    supervisor: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    settings: Arc<StreamSettings>,
    context: StreamContext,
    parts: Arc<Parts>,
    workers: Mutex<Vec<Arc<WorkerHealth>>>,
    /// What keeps the workers from being started.
    starting: Mutex<Option<String>>,
    /// Whether there are workers that have to be waited for.
    began: Mutex<bool>,
}

impl Stream {
    /// Starts the stream: looks its topics up, for as long as it takes, then starts its workers.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(settings: StreamSettings, context: StreamContext) -> std::io::Result<Self> {
        let parts = Parts::new(
            context.kafka.clone(),
            context.share,
            Arc::clone(&context.metrics),
            context.instance_id.clone(),
        );
        let shared = Arc::new(Shared {
            settings: Arc::new(settings),
            context,
            parts: Arc::new(parts),
            workers: Mutex::default(),
            starting: Mutex::new(Some("looking up its topics".to_owned())),
            began: Mutex::new(false),
        });
        let supervised = Arc::clone(&shared);
        let supervisor = std::thread::Builder::new()
            .name(format!("stream-{}", shared.settings.name))
            .spawn(move || supervised.supervise())?;
        Ok(Self { shared, supervisor })
    }

    /// What the stream says of itself.
    pub fn report(&self) -> StreamReport {
        self.shared.report()
    }

    /// Whether only the end of the process helps.
    pub fn fatal(&self) -> Option<Fatal> {
        let name = &self.shared.settings.name;
        if let Some(reason) = self.shared.parts.given_up() {
            return Some(Fatal::GivenUp(format!("stream {name}: {reason}")));
        }
        let workers = self.shared.workers.lock();
        let workers = workers.unwrap_or_else(PoisonError::into_inner);
        let mut overdue = workers.iter().filter_map(|worker| worker.report().overdue);
        overdue.find(|(_, over)| *over >= HUNG).map(|(call, over)| {
            Fatal::Hung(format!(
                "stream {name}: {call} hangs, {}s longer than it may",
                over.as_secs()
            ))
        })
    }

    /// Asks the workers to finish what they have and to leave, by `deadline`.
    pub fn stop(&self, deadline: Instant) {
        self.shared.parts.stop(deadline);
    }

    /// Whether all workers are gone. A look-up of the topics that is under way may wait for a
    /// broker that is not there; nothing is lost with it, and no worker follows it any more.
    pub fn is_stopped(&self) -> bool {
        let waiting = || self.shared.parts.stopping() && !*self.shared.lock_began();
        self.supervisor.is_finished() || waiting()
    }
}

impl Shared {
    fn supervise(self: &Arc<Self>) {
        let Some(topics) = self.look_up_topics() else {
            return;
        };
        if !self.begin() {
            return;
        }
        let topics = Arc::new(topics);
        let metrics = Arc::new(self.context.metrics.stream(&self.settings.name));
        let count = self.settings.workers.unwrap_or_else(|| {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            cores.min(topics.input_partitions.max(1) as usize)
        });
        let mut threads = Vec::new();
        for number in 0..count {
            let health = Arc::new(WorkerHealth::new(
                metrics.worker(WorkerState::WaitingForModel),
            ));
            self.workers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Arc::clone(&health));
            let worker = Worker {
                settings: Arc::clone(&self.settings),
                topics: Arc::clone(&topics),
                serving: Arc::clone(&self.context.serving),
                metrics: Arc::clone(&metrics),
                parts: Arc::clone(&self.parts),
                health: Arc::clone(&health),
                number,
            };
            let name = format!("{}-{number}", self.settings.name);
            match std::thread::Builder::new()
                .name(name)
                .spawn(move || supervise_worker(&worker))
            {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    health.set(WorkerState::Failed, Some(format!("no thread: {error}")));
                }
            }
        }
        self.set_starting(None);
        for thread in threads {
            // Panics are caught inside.
            drop(thread.join());
        }
    }

    fn lock_began(&self) -> MutexGuard<'_, bool> {
        self.began.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether workers may start: no more once the stream was told to stop.
    fn begin(&self) -> bool {
        let mut began = self.lock_began();
        *began = !self.parts.stopping();
        *began
    }

    fn set_starting(&self, why: Option<String>) {
        *self.starting.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Looks the topics up until they are all there; `None` when the process stops before.
    fn look_up_topics(&self) -> Option<Topics> {
        let mut pause = LOOK_UP_BACKOFF.0;
        let mut told = String::new();
        let mut admin: Option<Arc<_>> = None;
        while !self.parts.stopping() {
            let describe = self.context.describe_topics;
            let found = match &admin {
                Some(admin) => Topics::look_up(admin, &self.settings, describe),
                None => match self.context.admin.get(&self.context.kafka) {
                    Ok(new) => {
                        admin = Some(new);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            let problem = match found {
                Ok(topics) => return Some(topics),
                Err(error) => error.to_string(),
            };
            if problem != told {
                let stream = &self.settings.name;
                tracing::warn!(stream, "{problem}; trying again until it works");
                told.clone_from(&problem);
            }
            self.set_starting(Some(problem));
            let end = Instant::now() + pause;
            while !self.parts.stopping() && Instant::now() < end {
                std::thread::park_timeout(Duration::from_millis(100));
            }
            pause = (pause * 2).min(LOOK_UP_BACKOFF.1);
        }
        None
    }

    fn report(&self) -> StreamReport {
        let name = self.settings.name.clone();
        let starting = self
            .starting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut problems: Vec<String> = starting.iter().cloned().collect();
        let mut report = StreamReport {
            name,
            live: true,
            ready: starting.is_none(),
            partitions: 0,
            problems: Vec::new(),
        };
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        for worker in workers.iter() {
            let worker = worker.report();
            report.partitions += worker.partitions;
            let failed = worker.state == WorkerState::Failed;
            if let Some((call, over)) = worker.overdue.filter(|(_, over)| *over >= OVERDUE) {
                report.live = false;
                let over = over.as_secs();
                problems.push(format!(
                    "a worker is stuck: {call}, {over}s longer than it may"
                ));
            } else if !failed && worker.silent_for >= STUCK_AFTER {
                report.live = false;
                problems.push(format!(
                    "a worker is stuck for {}s",
                    worker.silent_for.as_secs()
                ));
            }
            report.live &= !failed;
            report.ready &= worker.state == WorkerState::Running && worker.member;
            problems.extend(worker.detail);
        }
        problems.sort();
        problems.dedup();
        report.problems = problems;
        report
    }
}

/// Runs a worker; a panic is our mistake, and costs a restart, not the stream.
fn supervise_worker(worker: &Worker) {
    let stream = &worker.settings.name;
    let mut pause = PANIC_BACKOFF.0;
    loop {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.run()));
        match ended {
            Ok(Ok(())) => return,
            Ok(Err(reason)) => {
                tracing::error!(stream, "worker stopped, an operator is needed: {reason}");
                worker.health.set(WorkerState::Failed, Some(reason));
                return;
            }
            Err(_) => {
                tracing::error!(stream, "worker panicked; starting it again");
                let reason = "panicked, see the log".to_owned();
                worker.health.set(WorkerState::Recovering, Some(reason));
                let end = Instant::now() + pause;
                pause = (pause * 2).min(PANIC_BACKOFF.1);
                while Instant::now() < end {
                    if worker.parts.stopping() {
                        return;
                    }
                    worker.health.beat();
                    std::thread::park_timeout(Duration::from_millis(100));
                }
            }
        }
    }
}
