//! Every metric: its name, labels, buckets and help, and every value that a label may take unless
//! it is the name of something configured. Nothing is exported that is not in this file.

/// What kind of metric a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

impl Kind {
    /// The kind's name in the exposition format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric family.
#[derive(Debug)]
pub struct Family {
    /// Full name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub help: &'static str,
    /// Upper bounds of a histogram's buckets; empty for the other kinds.
    pub buckets: &'static [f64],
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    family(name, Kind::Counter, labels, help, &[])
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    family(name, Kind::Gauge, labels, help, &[])
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    buckets: &'static [f64],
    help: &'static str,
) -> Family {
    family(name, Kind::Histogram, labels, help, buckets)
}

const fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    buckets: &'static [f64],
) -> Family {
    Family {
        name,
        kind,
        labels,
        help,
        buckets,
    }
}

/// 10 µs to 10 s: from one row of a small net to a big batch of a large one.
const INFERENCE_SECONDS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// 1 ms to 60 s: below a millisecond record timestamps say nothing.
const END_TO_END_SECONDS: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
];
/// 1 ms to 2 min: from a cached small model to a large one over a slow network.
const LOAD_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];
/// 1 ms to 30 s: around the commit interval, up to what a broker lets be open.
const TRANSACTION_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Up to the largest batch that can be configured.
const BATCH_RECORDS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0, 65536.0,
];

macro_rules! families {
    ($($(#[$doc:meta])* $id:ident = $family:expr;)*) => {
        $(
            #[doc = concat!("See its help text; the family `", stringify!($id), "`.")]
            $(#[$doc])*
            pub const $id: Family = $family;
        )*
        /// All families, in the order in which they are documented.
        pub const CATALOGUE: &[Family] = &[$($id),*];
    };
}

families! {
    RECORDS_IN = counter("swapstream_records_in_total", &["stream"],
        "Input records taken from Kafka, those that are read again after a rewind included.");
    PREDICTIONS = counter("swapstream_predictions_total", &["stream", "model", "version"],
        "Predictions that the output topic has acknowledged; with `exactly_once`, that are committed.");
    DEAD_LETTERS = counter("swapstream_dead_letters_total", &["stream", "stage"],
        "Records that went to the dead-letter topic, by the stage they failed in.");
    SKIPPED_RECORDS = counter("swapstream_skipped_records_total", &["stream", "stage"],
        "Records left out by the policy `skip`, by the stage they failed in.");
    BATCH_SIZE = histogram("swapstream_batch_size", &["stream"], BATCH_RECORDS,
        "Records scored together in one batch.");
    INFERENCE_DURATION = histogram("swapstream_inference_duration_seconds",
        &["stream", "model", "version"], INFERENCE_SECONDS,
        "Time that the model took for one batch.");
    END_TO_END_LATENCY = histogram("swapstream_end_to_end_latency_seconds",
        &["stream", "model", "version"], END_TO_END_SECONDS,
        "Time from the input record's timestamp to the acknowledgement of its prediction, or to its commit with `exactly_once`.");
    CONSUMER_LAG = gauge("swapstream_consumer_lag_records", &["stream", "topic", "partition"],
        "Records between this instance's position and the end of a partition assigned to it.");
    IN_FLIGHT_RECORDS = gauge("swapstream_in_flight_records", &["stream"],
        "Records produced to the output or dead-letter topic and not acknowledged yet.");
    COMMITS = counter("swapstream_commits_total", &["stream", "outcome"],
        "Offset commits, by outcome.");
    TRANSACTIONS = counter("swapstream_transactions_total", &["stream", "outcome"],
        "Transactions of a stream with `exactly_once`, by how they ended.");
    TRANSACTION_DURATION = histogram("swapstream_transaction_duration_seconds", &["stream"],
        TRANSACTION_SECONDS,
        "Time from the start of a committed transaction to its commit.");
    REBALANCES = counter("swapstream_rebalances_total", &["stream", "kind"],
        "Rebalance events of the stream's workers, by kind.");
    WORKERS = gauge("swapstream_workers", &["stream", "state"],
        "Worker threads on this instance, by state.");
    HELD_PARTITIONS = gauge("swapstream_held_partitions", &["stream"],
        "Partitions held back until this instance has reached the revision in their commit.");
    REVISION_HOLDS = counter("swapstream_revision_holds_total", &["stream", "outcome"],
        "Partitions that were held back for a revision, by how the hold ended.");
    MODEL_INFO = gauge("swapstream_model_info",
        &["model", "version", "digest", "revision", "runtime"],
        "1 for the version that serves each model on this instance; no series while none does.");
    MODEL_PLANS = gauge("swapstream_model_plans", &["model", "version"],
        "Plans that the serving version is compiled into, each for batches of one size; 0 with ONNX Runtime, which has none.");
    MODEL_PLAN_BYTES = gauge("swapstream_model_plan_bytes", &["model", "version"],
        "Constants and tables of the serving version's plans, what they share counted once; 0 with ONNX Runtime, which does not tell.");
    MODEL_SWAPS = counter("swapstream_model_swaps_total", &["model", "outcome"],
        "Deployment events that this instance has acted on, by outcome.");
    MODEL_LOAD_DURATION = histogram("swapstream_model_load_duration_seconds",
        &["model", "stage"], LOAD_SECONDS,
        "Time that each stage of loading a version took.");
    MODEL_MEMORY = gauge("swapstream_model_memory_bytes", &[],
        "Memory that the loaded models hold, as their probes measured it.");
    MODEL_MEMORY_LIMIT = gauge("swapstream_model_memory_limit_bytes", &[],
        "limits.model_memory: a load that would go over it is refused.");
    REGISTRY_CAUGHT_UP = gauge("swapstream_registry_caught_up", &[],
        "1 once this instance has read the registry topics to their end, 0 before.");
    KAFKA_ERRORS = counter("swapstream_kafka_errors_total", &["client", "kind"],
        "Errors that the Kafka clients reported, by client and by what they force.");
    BUILD_INFO = gauge("swapstream_build_info", &["version", "target"],
        "1; the labels say which build runs.");
    PROCESS_RESIDENT_MEMORY = gauge("process_resident_memory_bytes", &[],
        "Resident memory of the process.");
    PROCESS_CPU_SECONDS = counter("process_cpu_seconds_total", &[],
        "User and system CPU time of the process.");
    PROCESS_OPEN_FDS = gauge("process_open_fds", &[],
        "Open file descriptors of the process.");
    PROCESS_THREADS = gauge("process_threads", &[],
        "Threads of the process.");
    PROCESS_START_TIME = gauge("process_start_time_seconds", &[],
        "Start of the process, in seconds since 1970.");
}

/// The stages that label dead letters and skipped records: `codec::Stage`, by name.
pub const STAGES: [&str; 5] = ["decode", "features", "infer", "encode", "produce"];

/// The values of one label.
pub trait Label: Copy + 'static {
    /// Every value.
    const ALL: &'static [Self];
    /// The value as it is exported.
    fn as_str(self) -> &'static str;
    /// Its position in [`Self::ALL`].
    fn index(self) -> usize;
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),*];
            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    )*};
}

labels! {
    /// How a commit ended.
    CommitOutcome {
        /// The group coordinator has stored the offsets.
        Committed = "committed",
        /// It has not; the records may be read again.
        Failed = "failed",
    }
    /// How a transaction ended.
    TransactionOutcome {
        /// It is committed.
        Committed = "committed",
        /// It was aborted, and what was in it is scored again.
        Aborted = "aborted",
        /// Another producer of the same id, or the broker's time-out, has ended it.
        Fenced = "fenced",
        /// Its producer failed or did not answer in time: the committed offsets tell.
        Unknown = "unknown",
    }
    /// What a rebalance did to a worker.
    RebalanceKind {
        /// Partitions were added.
        Assigned = "assigned",
        /// Partitions were given away in order.
        Revoked = "revoked",
        /// Partitions were taken away: the worker had left the group without knowing.
        Lost = "lost",
    }
    /// What a worker is doing.
    WorkerState {
        /// No version of its model serves: it is not in its group.
        WaitingForModel = "waiting_for_model",
        /// In its group, taking records.
        Running = "running",
        /// Rebuilding its clients after a delivery failure.
        Recovering = "recovering",
        /// Finishing what it has before it leaves.
        Draining = "draining",
        /// Stopped by an error; needs an operator.
        Failed = "failed",
    }
    /// How a hold for a revision ended.
    HoldOutcome {
        /// This instance reached or refused the revision.
        Reached = "reached",
        /// `revision_hold` passed first.
        Expired = "expired",
        /// The partition was given away first.
        Revoked = "revoked",
    }
    /// What came of a deployment event.
    SwapOutcome {
        /// The version serves.
        Activated = "activated",
        /// The version was refused for good; what served before still does.
        Refused = "refused",
        /// The model was undeployed.
        Undeployed = "undeployed",
    }
    /// A stage of loading a version.
    LoadStage {
        /// Reading the artifact.
        Fetch = "fetch",
        /// Comparing its digest.
        Verify = "verify",
        /// Loading it in a process of its own.
        Probe = "probe",
        /// Building the plans.
        Compile = "compile",
        /// Comparing contract and golden rows.
        Check = "check",
        /// The first runs.
        WarmUp = "warm_up",
    }
    /// Which client reported an error.
    KafkaClient {
        /// A worker's consumer.
        Consumer = "consumer",
        /// A worker's producer.
        Producer = "producer",
        /// A reader of registry topics.
        LogReader = "log_reader",
        /// A writer of registry topics, or an administrative request.
        Admin = "admin",
    }
    /// What an error forces.
    KafkaErrorKind {
        /// Try again.
        Retriable = "retriable",
        /// Drop the current cycle and rewind.
        Abortable = "abortable",
        /// Build the client anew, or stop.
        Fatal = "fatal",
    }
}

/// Every value of a label of a family, unless it is the name of something configured.
pub fn label_values(family: &str, label: &str) -> Option<Vec<&'static str>> {
    fn all<L: Label>() -> Vec<&'static str> {
        L::ALL.iter().map(|value| value.as_str()).collect()
    }
    let is = |expected: &Family| family == expected.name;
    let values = match label {
        "outcome" if is(&COMMITS) => all::<CommitOutcome>(),
        "outcome" if is(&TRANSACTIONS) => all::<TransactionOutcome>(),
        "outcome" if is(&REVISION_HOLDS) => all::<HoldOutcome>(),
        "outcome" if is(&MODEL_SWAPS) => all::<SwapOutcome>(),
        "stage" if is(&MODEL_LOAD_DURATION) => all::<LoadStage>(),
        "stage" => STAGES.to_vec(),
        "kind" if is(&REBALANCES) => all::<RebalanceKind>(),
        "kind" if is(&KAFKA_ERRORS) => all::<KafkaErrorKind>(),
        "client" => all::<KafkaClient>(),
        "state" => all::<WorkerState>(),
        _ => return None,
    };
    Some(values)
}

/// The catalogue as a Markdown table, for `docs/operations.md`.
pub fn markdown() -> String {
    let row = |family: &Family| {
        let labels: Vec<String> = family.labels.iter().map(|l| format!("`{l}`")).collect();
        let (labels, kind) = (labels.join(", "), family.kind.as_str());
        format!(
            "| `{}` | {kind} | {labels} | {} |\n",
            family.name, family.help
        )
    };
    let head = "| metric | kind | labels | meaning |\n|---|---|---|---|\n";
    let rows: String = CATALOGUE.iter().map(row).collect();
    head.to_owned() + &rows
}
