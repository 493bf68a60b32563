//! The one place that knows all running parts: it builds them, starts them in order, and drains
//! them in flow order.
//!
//! HTTP listens first, so that a probe gets an answer from the start; then the registry is
//! followed; then the streams start, whose workers wait outside their groups until their model
//! serves. Everything retries for as long as it takes: a broker that is not there yet makes the
//! instance unready, not dead.

mod child_probe;
mod health;
mod observer;
mod probe;
mod watchdog;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

pub use self::child_probe::{ChildProbe, PROBE_COMMAND};
use self::health::Health;
use self::probe::BrokerProbe;
pub use self::watchdog::EXIT_HUNG;
use crate::config::Config;
use crate::http::{self, Endpoints};
use crate::kafka::{ClientShare, SharedAdmin};
use crate::registry::{
    Board, InstanceInfo, KafkaLogs, KafkaStatusSink, LoadGuard, LoadSafety, ModelMemory, Origin,
    RegistryLoader, Reporter, StatusSink, Sweeper, SweeperParts, Watcher, WatcherParts,
};
use crate::serving::Serving;
use crate::stream::{Stream, StreamContext, StreamSettings};
use crate::telemetry::Metrics;

/// How long the control plane may take to write its last words, once the streams are gone.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(3);
/// The same where no broker answers, and for what has nothing to write.
const CONTROL_TIMEOUT_SILENT: Duration = Duration::from_millis(300);

/// How long HTTP may take to end.
const HTTP_TIMEOUT: Duration = Duration::from_millis(100);

/// What the process itself takes to end.
const EXIT_TIME: Duration = Duration::from_millis(250);

/// What of the time for a shutdown is left to the control plane, once the streams are gone.
fn control_share(time: Duration) -> Duration {
    (time / 3).min(CONTROL_TIMEOUT + HTTP_TIMEOUT * 2)
}

/// What differs between the service and the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppOptions {
    /// Whether the broker can tell topic settings; off for the embedded one.
    pub describe_topics: bool,
    /// Whether this program is run as a child to load a model there first. Only for programs
    /// whose `main` is [`crate::cli::main`].
    pub probe_models: bool,
}

impl Default for AppOptions {
    fn default() -> Self {
        Self {
            describe_topics: true,
            probe_models: false,
        }
    }
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// HTTP.
    #[error(transparent)]
    Http(#[from] http::HttpError),
    /// The system gives no thread.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// The running service.
#[derive(Debug)]
pub struct App {
    instance_id: String,
    shutdown_timeout: Duration,
    http_address: SocketAddr,
    health: Arc<Health>,
    guard: Arc<LoadGuard>,
    watcher: Watcher,
    reporter: Reporter,
    sweeper: Sweeper,
    probe: BrokerProbe,
    stop_http: oneshot::Sender<()>,
    runtime: tokio::runtime::Runtime,
}

impl App {
    /// Starts everything. Returns once HTTP listens and the threads run; use [`Self::ready`] to
    /// know when events are scored.
    pub fn start(config: &Config, options: AppOptions) -> Result<Self, AppError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("control")
            .enable_all()
            .build()?;
        let listener = runtime.block_on(http::bind(&config.http))?;
        let http_address = listener.local_addr()?;
        let instance_id = config
            .instance_id
            .clone()
            .unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        crate::runtime::configure(&config.runtime);
        let metrics = Arc::new(Metrics::new());
        let serving = Arc::new(Serving::new());
        let board = Arc::new(Board::new());
        let topic = config
            .streams
            .first()
            .and_then(|stream| stream.input_topics.first());
        let probe = BrokerProbe::start(&config.kafka, topic.cloned().unwrap_or_default())?;
        let guard = load_guard(config, &instance_id);
        let watcher = start_watcher(config, options, &metrics, &serving, &board, &guard)?;
        let info = instance_info(config, &instance_id);
        let sink = KafkaStatusSink::new(config.kafka.clone(), &config.registry);
        let reporter = Reporter::start(Arc::clone(&board), info, Box::new(sink))?;
        let sweeper = start_sweeper(config, &instance_id)?;
        let streams = start_streams(config, options, &instance_id, &metrics, &serving)?;
        let health = Arc::new(Health::new(
            board,
            probe.status(),
            streams,
            Arc::clone(&metrics),
        ));
        watchdog::start(&health)?;
        let endpoints = Endpoints {
            metrics,
            health: Arc::clone(&health) as Arc<dyn http::HealthSource>,
            models: Arc::new(move || http::serving_models(&serving.load())),
        };
        let (stop_http, stopped) = oneshot::channel();
        runtime.spawn(http::serve(listener, endpoints, async {
            // Dropping the sender is a stop as well.
            drop(stopped.await);
        }));
        Ok(Self {
            instance_id,
            shutdown_timeout: config.shutdown_timeout,
            http_address,
            health,
            guard,
            watcher,
            reporter,
            sweeper,
            probe,
            stop_http,
            runtime,
        })
    }

    /// The name of this instance.
    pub fn instance_id(&self) -> &str {
        &self.instance_id
    }

    /// Where HTTP listens.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Why not every stream takes records; empty: all do.
    pub fn ready(&self) -> Vec<String> {
        http::HealthSource::ready(&*self.health).reasons
    }

    /// Waits for a signal to stop: SIGTERM or SIGINT.
    pub fn wait_for_signal(&self) -> std::io::Result<&'static str> {
        self.runtime.block_on(signal())
    }

    /// Drains in flow order: the streams finish and commit what they have, then the control plane
    /// ends with its tombstones, then HTTP. A second signal ends the process at once.
    pub fn stop(self) {
        let start = Instant::now();
        let _watched = watchdog::end_at(start + self.shutdown_timeout);
        let time = self.shutdown_timeout.saturating_sub(EXIT_TIME);
        let deadline = start + time;
        let streams_by = start + time.saturating_sub(control_share(time));
        self.runtime.spawn(async {
            if signal().await.is_ok() {
                tracing::warn!("second signal: ending at once; what is not committed is repeated");
                std::process::exit(1);
            }
        });
        for stream in self.health.streams() {
            stream.stop(streams_by);
        }
        // A moment more than the workers take for themselves, to close their clients.
        let patience = streams_by + control_share(time) / 3;
        while !self.health.streams().iter().all(Stream::is_stopped) {
            if Instant::now() >= patience {
                tracing::error!(
                    "workers did not stop in time; what is not committed is left to the next owner"
                );
                break;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let left = |most: Duration| {
            let left = deadline.saturating_duration_since(Instant::now());
            most.min(left.saturating_sub(HTTP_TIMEOUT))
        };
        if !self.watcher.stop(left(CONTROL_TIMEOUT_SILENT)) {
            tracing::debug!("the registry watcher is left in a request");
        }
        let patience = match self.probe.status().problem() {
            Some(_) => CONTROL_TIMEOUT_SILENT,
            None => CONTROL_TIMEOUT,
        };
        // A broker that is away would hold up the stop: the note then tells of one death too many.
        if patience == CONTROL_TIMEOUT {
            self.guard.stop();
        }
        self.sweeper.stop();
        if !self.reporter.stop(left(patience)) {
            tracing::warn!("the status tombstones were not written in time");
        }
        self.probe.stop();
        if self.stop_http.send(()).is_err() {
            tracing::debug!("http had ended before");
        }
        self.runtime.shutdown_timeout(HTTP_TIMEOUT);
        tracing::info!("stopped after {:.1}s", start.elapsed().as_secs_f64());
    }
}

async fn signal() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

fn load_guard(config: &Config, instance_id: &str) -> Arc<LoadGuard> {
    let logs = KafkaLogs::new(config.kafka.clone(), config.registry.clone());
    let sink = KafkaStatusSink::new(config.kafka.clone(), &config.registry);
    // A name of its own is the better word: it may move to another host.
    let origin = match config.instance_id {
        Some(_) => None,
        None => Origin::of_this_process(),
    };
    if config.instance_id.is_none() && origin.is_none() {
        tracing::warn!(
            "instance_id is not set, and this system does not tell one start from the next: a \
             version that ends the process while it is loaded is tried again at every start"
        );
    }
    Arc::new(LoadGuard::new(
        instance_id.to_owned(),
        origin,
        Arc::new(logs),
        Box::new(sink),
    ))
}

fn model_memory(limit: u64, metrics: &Arc<Metrics>) -> Arc<ModelMemory> {
    let metrics = Arc::clone(metrics);
    ModelMemory::new(
        limit,
        Arc::new(move |used| metrics.set_model_memory(used, limit)),
    )
}

fn start_watcher(
    config: &Config,
    options: AppOptions,
    metrics: &Arc<Metrics>,
    serving: &Arc<Serving>,
    board: &Arc<Board>,
    guard: &Arc<LoadGuard>,
) -> std::io::Result<Watcher> {
    let logs = Arc::new(KafkaLogs::new(
        config.kafka.clone(),
        config.registry.clone(),
    ));
    let models: BTreeSet<_> = config
        .streams
        .iter()
        .map(|stream| stream.model.clone())
        .collect();
    let observer = observer::observer(Arc::clone(metrics), models.iter());
    let probe = if options.probe_models {
        Some(Arc::new(ChildProbe::of_this_program(config.probe, &config.runtime)?) as Arc<_>)
    } else {
        None
    };
    Watcher::start(WatcherParts {
        loader: Arc::new(RegistryLoader::new(
            Arc::<KafkaLogs>::clone(&logs),
            &config.registry,
            LoadSafety {
                probe,
                guard: Some(Arc::clone(guard)),
                memory: Some(model_memory(config.registry.model_memory, metrics)),
            },
        )),
        logs,
        serving: Arc::clone(serving),
        board: Arc::clone(board),
        models,
        trust: config.registry.trust.clone(),
        observer,
    })
}

fn start_sweeper(config: &Config, instance_id: &str) -> std::io::Result<Sweeper> {
    let (kafka, registry) = (config.kafka.clone(), config.registry.clone());
    let logs = KafkaLogs::new(kafka.clone(), registry.clone());
    let sink = move || {
        let sink = KafkaStatusSink::new(kafka.clone(), &registry);
        Box::new(sink) as Box<dyn StatusSink>
    };
    let instance = instance_id.to_owned();
    Sweeper::start(SweeperParts::new(instance, Arc::new(logs), Box::new(sink)))
}

fn instance_info(config: &Config, instance_id: &str) -> InstanceInfo {
    let streams: BTreeMap<_, _> = config
        .streams
        .iter()
        .map(|s| (s.name.clone(), s.model.clone()))
        .collect();
    InstanceInfo {
        id: instance_id.to_owned(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        streams,
        fingerprint: crate::runtime::fingerprint(),
        interval: config.registry.heartbeat_interval,
        started_at: SystemTime::now(),
    }
}

fn start_streams(
    config: &Config,
    options: AppOptions,
    instance_id: &str,
    metrics: &Arc<Metrics>,
    serving: &Arc<Serving>,
) -> std::io::Result<Vec<Stream>> {
    let share = ClientShare::of(config.kafka.memory, worker_count(&config.streams));
    let admin = SharedAdmin::default();
    let start = |settings: &StreamSettings| {
        let context = StreamContext {
            kafka: config.kafka.clone(),
            admin: admin.clone(),
            share,
            serving: Arc::clone(serving),
            metrics: Arc::clone(metrics),
            instance_id: instance_id.to_owned(),
            describe_topics: options.describe_topics,
        };
        Stream::start(settings.clone(), context)
    };
    config.streams.iter().map(start).collect()
}

/// Workers of all streams; one per core where a stream leaves it open, which is the most it takes.
fn worker_count(streams: &[StreamSettings]) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    streams
        .iter()
        .map(|stream| stream.workers.unwrap_or(cores))
        .sum()
}
