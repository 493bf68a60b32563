//! `swapstream demo`: everything in one process. Real events, two real versions of a model, the
//! whole service, a deployment mid-stream; and a verifier that counts from the topics alone what
//! was lost or answered twice.
//!
//! ```text
//!  feed ──▶ flights ──▶ the service ──▶ flights-predictions ──▶ verifier
//!    └────────────── ledger: sent ◀── held against ── answered ────┘
//! ```
//!
//! `ledger`, `quality`, `latency`, `pace`, `tally`, `summary` and `view` are pure. The director
//! gives each part its cue. Nothing here prints: the command does.

mod director;
mod feed;
mod flights;
mod latency;
mod ledger;
mod pace;
mod progress;
mod quality;
mod stage;
mod summary;
mod tally;
mod verifier;
mod view;

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use progress::{Progress, VersionProgress};
pub use summary::{DEMO_SCHEMA, LatencyMs, Outcome, QualityChange, Summary, Swap};
pub use view::{frame, thousands};

use self::director::Director;
use self::flights::Flights;
use self::stage::Stage;
use crate::app::AppError;
use crate::kafka::KafkaError;
use crate::record::TopicPartition;
use crate::registry::RegistryError;

/// Events a second unless others are asked for.
pub const DEFAULT_RATE: u32 = 4_000;
/// How long events are fed unless told otherwise.
pub const DEFAULT_DURATION: Duration = Duration::from_secs(20);

/// What to show, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoOptions {
    /// How long events are fed.
    pub duration: Duration,
    /// Events a second.
    pub rate: u32,
    /// A real broker; `None`: the embedded one.
    pub bootstrap_servers: Option<String>,
    /// Goes on until it is stopped.
    pub keep_running: bool,
    /// Where HTTP listens; `None`: the usual address, or a free port where that is taken.
    pub http: Option<SocketAddr>,
    /// Variables `SWAPSTREAM__KAFKA__CLIENT…`: how to reach a broker that wants credentials.
    pub client_environment: Vec<(String, String)>,
    /// Whether somebody looks at [`Report::Progress`].
    pub watched: bool,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self {
            duration: DEFAULT_DURATION,
            rate: DEFAULT_RATE,
            bootstrap_servers: None,
            keep_running: false,
            http: None,
            client_environment: Vec::new(),
            watched: false,
        }
    }
}

/// What is told while it goes on.
#[derive(Debug)]
pub enum Report<'a> {
    /// This is being done now.
    Step(&'a str),
    /// Events are fed from now on.
    Started(&'a Started),
    /// How far it is; only where [`DemoOptions::watched`].
    Progress(&'a Progress),
    /// The new version has answered.
    Swapped(&'a Swap),
    /// Something the user should know.
    Note(&'a str),
}

/// What runs, where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// `embedded`, or the address of the broker.
    pub broker: String,
    /// The input topic; the others begin alike.
    pub input_topic: String,
    /// Where HTTP listens.
    pub http: SocketAddr,
}

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The sample inside the program cannot be read.
    #[error("the sample of flights inside this program is damaged: {0}")]
    Sample(String),
    /// The configuration is refused, because of the environment or the address.
    #[error("{0}")]
    Configuration(String),
    /// No broker answers at the address that was given.
    #[error("no broker answers at {address}: {cause}")]
    NoBroker {
        /// The address.
        address: String,
        /// What was tried, and what came of it.
        cause: KafkaError,
    },
    /// Kafka failed.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// Publishing or deploying failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The service did not start.
    #[error(transparent)]
    App(#[from] AppError),
    /// The service did not become ready.
    #[error("not ready after {} s: {}", after.as_secs(), reasons.join("; "))]
    NotReady {
        /// How long it was waited for.
        after: Duration,
        /// Why.
        reasons: Vec<String>,
    },
    /// The input topic does not hold what was sent.
    #[error(
        "partition {partition} ends at offset {end} after {sent} events were sent to it: \
         something else writes to it, so nothing can be counted"
    )]
    Input {
        /// The partition.
        partition: TopicPartition,
        /// Events sent.
        sent: i64,
        /// Where it ends.
        end: i64,
    },
    /// Stopped before there was anything to sum up.
    #[error("stopped before the first event was fed")]
    Stopped,
    /// A thread of the demo ended by a panic, whose message is on stderr.
    #[error("the {0} ended by a defect in this program")]
    Defect(&'static str),
}

/// Runs the demo until its time is over or `stop` is set. Blocks; not for async threads.
pub fn run(
    options: &DemoOptions,
    stop: &AtomicBool,
    report: &mut dyn FnMut(Report<'_>),
) -> Result<Outcome, DemoError> {
    report(Report::Step(match options.bootstrap_servers {
        None => "starting the embedded broker",
        Some(_) => "creating topics",
    }));
    let flights = Flights::load()?;
    let stage = Stage::build(options)?;
    stage.look_up_broker()?;
    let created = stage.create_topics();
    let done = created.and_then(|()| Director::new(options, &stage, &flights, stop).run(report));
    tidy(&stage, options, done.is_ok(), report);
    done
}

/// Deletes the topics on a real broker, or names those that stay.
fn tidy(stage: &Stage, options: &DemoOptions, done: bool, report: &mut dyn FnMut(Report<'_>)) {
    if stage.is_embedded() {
        return;
    }
    let names = stage.topic_names().join(", ");
    if options.keep_running {
        let note = format!("left on {}, delete them when done: {names}", stage.broker);
        return report(Report::Note(&note));
    }
    report(Report::Step("deleting the topics"));
    // What went wrong before says more than a failure to tidy up after it.
    if let (Err(error), true) = (stage.clean_up(), done) {
        report(Report::Note(&format!(
            "topics were left on {} ({error}): {names}",
            stage.broker
        )));
    }
}
