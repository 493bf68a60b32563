//! Reads one `[streams.<name>]`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::error::Place;
use super::keys::{self, STREAM};
use super::read::topic_name;
use super::section::Section;
use crate::codec::Stage;
use crate::model::ModelName;
use crate::stream::{
    ErrorPolicy, GroupProtocol, NonFiniteOutputs, OnDataLoss, ProcessingGuarantee, StartFrom,
    StreamSettings,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// What could be read of a stream: enough for the rules between keys, even where some are wrong.
pub(super) struct Draft<'t> {
    pub(super) section: Section<'t>,
    pub(super) name: String,
    pub(super) group_id: String,
    pub(super) input_topics: Vec<String>,
    pub(super) output_topic: Option<String>,
    pub(super) dead_letter_topic: Option<String>,
    pub(super) processing_guarantee: ProcessingGuarantee,
    pub(super) group_protocol: GroupProtocol,
    pub(super) commit_interval: Duration,
    pub(super) max_batch_time: Duration,
    /// The whole, unless something required is missing.
    pub(super) settings: Option<StreamSettings>,
}

/// Reads the stream `name`, whose head is at `place`.
pub(super) fn read<'t>(streams: &Section<'t>, name: &str, place: &Place) -> Draft<'t> {
    if let Err(error) = ModelName::new(name) {
        streams.error_at(place, name, error.to_string());
    }
    let section = streams.sub(name, &keys::known(STREAM));
    section.require("input_topics", "the topics of feature events");
    section.require("output_topic", "the topic of predictions");
    section.require("dead_letter_topic", "the topic of records that fail");
    section.require("model", "the name of the model that scores the stream");
    let group_id = section.text("group_id");
    let guarantees = [
        ("at_least_once", ProcessingGuarantee::AtLeastOnce),
        ("exactly_once", ProcessingGuarantee::ExactlyOnce),
    ];
    let guarantee = section.choice("processing_guarantee", &guarantees);
    let processing_guarantee = guarantee.unwrap_or_default();
    let commit_interval = match processing_guarantee {
        ProcessingGuarantee::AtLeastOnce => SECOND,
        ProcessingGuarantee::ExactlyOnce => 100 * MILLISECOND,
    };
    let protocols = [
        ("classic", GroupProtocol::Classic),
        ("consumer", GroupProtocol::Consumer),
    ];
    let group_protocol = section.choice("group_protocol", &protocols);
    let mut draft = Draft {
        name: name.to_owned(),
        group_id: group_id.unwrap_or_else(|| format!("swapstream-{name}")),
        input_topics: input_topics(&section),
        output_topic: section.parsed("output_topic", topic_name),
        dead_letter_topic: section.parsed("dead_letter_topic", topic_name),
        commit_interval: section
            .duration("commit_interval", 50 * MILLISECOND..=600 * SECOND)
            .unwrap_or(commit_interval),
        processing_guarantee,
        group_protocol: group_protocol.unwrap_or_default(),
        max_batch_time: section
            .duration("max_batch_time", MILLISECOND..=600 * SECOND)
            .unwrap_or(SECOND),
        settings: None,
        section,
    };
    draft.settings = settings(&draft);
    draft
}

fn input_topics(section: &Section<'_>) -> Vec<String> {
    let topics = section.list("input_topics").unwrap_or_default();
    if topics.is_empty() && section.has("input_topics") {
        section.error("input_topics", "must name at least one topic");
    }
    for topic in &topics {
        if let Err(message) = topic_name(topic) {
            section.error("input_topics", message);
        }
    }
    topics
}

fn settings(draft: &Draft<'_>) -> Option<StreamSettings> {
    let section = &draft.section;
    let integer = |key: &str, most: u64, default: usize| {
        let value = section.integer(key, 1..=most);
        value.map_or(default, |value| value as usize)
    };
    let max_batch_size = integer("max_batch_size", 65_536, 1024);
    let max_cycle_records = integer("max_cycle_records", 10_000_000, 50_000);
    let workers = section.integer("workers", 1..=1024);
    let max_queue_delay = section.duration("max_queue_delay", Duration::ZERO..=10 * SECOND);
    let revision_hold = section.duration("revision_hold", Duration::ZERO..=3600 * SECOND);
    let losses = [
        ("fail", OnDataLoss::Fail),
        ("earliest", OnDataLoss::Earliest),
        ("latest", OnDataLoss::Latest),
    ];
    let on_data_loss = section.choice("on_data_loss", &losses);
    let non_finite = [
        ("reject", NonFiniteOutputs::Reject),
        ("null", NonFiniteOutputs::Null),
    ];
    let non_finite_outputs = section.choice("non_finite_outputs", &non_finite);
    let static_membership = section.flag("static_membership");
    let start_from = section.parsed("start_from", start_from);
    let include = section.list("include");
    let on_error = on_error(section);
    let model = section.parsed("model", ModelName::new);
    Some(StreamSettings {
        name: draft.name.clone(),
        group_id: draft.group_id.clone(),
        input_topics: draft.input_topics.clone(),
        output_topic: draft.output_topic.clone()?,
        dead_letter_topic: draft.dead_letter_topic.clone()?,
        model: model?,
        workers: workers.map(|workers| workers as usize),
        max_batch_size,
        max_queue_delay: max_queue_delay.unwrap_or_default(),
        max_batch_time: draft.max_batch_time,
        commit_interval: draft.commit_interval,
        max_cycle_records,
        revision_hold: revision_hold.unwrap_or(30 * SECOND),
        processing_guarantee: draft.processing_guarantee,
        static_membership: static_membership.unwrap_or_default(),
        group_protocol: draft.group_protocol,
        start_from: start_from.unwrap_or_default(),
        on_data_loss: on_data_loss.unwrap_or_default(),
        include: include.unwrap_or_default(),
        on_error,
        non_finite_outputs: non_finite_outputs.unwrap_or_default(),
    })
}

fn start_from(text: &str) -> Result<StartFrom, String> {
    match text {
        "earliest" => Ok(StartFrom::Earliest),
        "latest" => Ok(StartFrom::Latest),
        time => humantime::parse_rfc3339(time)
            .ok()
            .filter(|time| *time >= SystemTime::UNIX_EPOCH)
            .map(StartFrom::Time)
            .ok_or_else(|| {
                format!(
                    "{time:?} is not allowed: expected \"earliest\", \"latest\" or a time in UTC \
                     such as \"2026-01-31T08:00:00Z\""
                )
            }),
    }
}

fn on_error(stream: &Section<'_>) -> BTreeMap<Stage, ErrorPolicy> {
    let section = stream.sub("on_error", &Stage::ALL.map(Stage::as_str));
    let policies = [
        ("dead_letter", ErrorPolicy::DeadLetter),
        ("skip", ErrorPolicy::Skip),
        ("fail", ErrorPolicy::Fail),
    ];
    let policy = |stage: Stage| Some((stage, section.choice(stage.as_str(), &policies)?));
    Stage::ALL.into_iter().filter_map(policy).collect()
}
