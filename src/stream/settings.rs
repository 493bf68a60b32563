//! One configured stream, validated.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

pub use crate::codec::NonFiniteOutputs;
use crate::codec::Stage;
pub use crate::kafka::GroupProtocol;
use crate::model::ModelName;

/// One stream: input topics, a model, an output topic, a dead-letter topic.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamSettings {
    /// The stream's name, from `[streams.<name>]`.
    pub name: String,
    /// Consumer group; default `swapstream-<name>`.
    pub group_id: String,
    /// Topics of feature events; at least one.
    pub input_topics: Vec<String>,
    /// Topic of predictions.
    pub output_topic: String,
    /// Topic of dead letters.
    pub dead_letter_topic: String,
    /// The model that scores the stream.
    pub model: ModelName,
    /// Worker threads; `None`: min(cores, input partitions).
    pub workers: Option<usize>,
    /// Most records in one batch; default 256.
    pub max_batch_size: usize,
    /// How long a batch waits for more records; default 0.
    pub max_queue_delay: Duration,
    /// Longest time a scoring call may take by the measured cost per row; default 1 s.
    pub max_batch_time: Duration,
    /// Time between commits; default 1 s.
    pub commit_interval: Duration,
    /// Most records between commits; default 50,000.
    pub max_cycle_records: usize,
    /// Longest time a partition is held back for the revision in its committed offset; default
    /// 30 s.
    pub revision_hold: Duration,
    /// What is promised.
    pub processing_guarantee: ProcessingGuarantee,
    /// Whether the group keeps a worker's partitions for it while it restarts.
    pub static_membership: bool,
    /// Which protocol the group speaks.
    pub group_protocol: GroupProtocol,
    /// Where a partition without a committed offset starts.
    pub start_from: StartFrom,
    /// What happens when a committed offset is out of range.
    pub on_data_loss: OnDataLoss,
    /// Event fields that are copied into the prediction.
    pub include: Vec<String>,
    /// What happens to records that fail, by stage; a stage that is not named is a dead letter.
    pub on_error: BTreeMap<Stage, ErrorPolicy>,
    /// What a NaN or infinite output is.
    pub non_finite_outputs: NonFiniteOutputs,
}

impl StreamSettings {
    /// What happens to records that fail in `stage`.
    pub fn policy(&self, stage: Stage) -> ErrorPolicy {
        self.on_error.get(&stage).copied().unwrap_or_default()
    }
}

/// What a stream promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProcessingGuarantee {
    /// A crash can repeat, never lose.
    #[default]
    AtLeastOnce,
    /// Predictions, dead letters and input offsets are committed together: a reader of committed
    /// records sees each input once.
    ExactlyOnce,
}

/// Where a partition without a committed offset starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartFrom {
    /// The first record there is.
    #[default]
    Earliest,
    /// Records that arrive from now on.
    Latest,
    /// The first record at or after this time.
    Time(SystemTime),
}

/// What happens when a committed offset lies outside the partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDataLoss {
    /// The stream stops on this instance and says so.
    #[default]
    Fail,
    /// Go on with the first record there is.
    Earliest,
    /// Go on with records that arrive from now on.
    Latest,
}

/// What happens to a record that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorPolicy {
    /// It goes to the dead-letter topic and the stream goes on.
    #[default]
    DeadLetter,
    /// It is counted, logged and left out.
    Skip,
    /// The stream leaves its group on this instance.
    Fail,
}
