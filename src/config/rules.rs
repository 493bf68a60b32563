//! Rules between keys: what each value may be given the others.

use std::collections::BTreeMap;
use std::time::Duration;

use super::render::duration;
use super::section::Section;
use super::stream::Draft;
use crate::kafka::{
    DEFAULT_TRANSACTION_TIMEOUT, GroupProtocol, KafkaSettings, TRANSACTION_TIMEOUT,
};
use crate::registry::RegistrySettings;
use crate::stream::ProcessingGuarantee;

const MAX_POLL_INTERVAL: &str = "max.poll.interval.ms";
/// librdkafka's default of [`MAX_POLL_INTERVAL`].
const DEFAULT_POLL_INTERVAL: Duration = Duration::from_mins(5);

/// Notes every broken rule.
pub(super) fn check(
    streams: &[Draft<'_>],
    kafka: &KafkaSettings,
    registry: &RegistrySettings,
    top: &Section<'_>,
) {
    let registry_topics = [
        ("versions_topic", &registry.versions_topic),
        ("artifacts_topic", &registry.artifacts_topic),
        ("deployments_topic", &registry.deployments_topic),
        ("status_topic", &registry.status_topic),
    ];
    distinct_registry_topics(top, &registry_topics);
    let poll_interval = poll_interval(top, kafka);
    for stream in streams {
        topics(stream, &registry_topics);
        if let Some(poll_interval) = poll_interval {
            cycle_time(stream, MAX_POLL_INTERVAL, poll_interval);
        }
        membership(stream, kafka, top);
    }
    transactions(streams, kafka, top, poll_interval);
    groups(streams);
}

fn distinct_registry_topics(top: &Section<'_>, topics: &[(&str, &String); 4]) {
    let section = top.open("registry");
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (key, topic) in topics {
        if let Some(other) = seen.insert(topic, key) {
            section.error(key, format!("{topic:?} is {other} already"));
        }
    }
}

fn poll_interval(top: &Section<'_>, kafka: &KafkaSettings) -> Option<Duration> {
    milliseconds(top, kafka, MAX_POLL_INTERVAL, DEFAULT_POLL_INTERVAL)
}

/// A client property that is a time; `None` where it is none.
fn milliseconds(
    top: &Section<'_>,
    kafka: &KafkaSettings,
    property: &str,
    default: Duration,
) -> Option<Duration> {
    let Some(text) = kafka.client.get(property) else {
        return Some(default);
    };
    let milliseconds = text.trim().parse().ok();
    if milliseconds.is_none() {
        let message = "expected a number of milliseconds";
        top.open("kafka").open("client").error(property, message);
    }
    milliseconds.map(Duration::from_millis)
}

/// What a stream's membership in its group needs.
fn membership(stream: &Draft<'_>, kafka: &KafkaSettings, top: &Section<'_>) {
    let settings = stream.settings.as_ref();
    if settings.is_some_and(|settings| settings.static_membership) && !top.has("instance_id") {
        let message = "needs instance_id: the group knows a worker by it after a restart";
        stream.section.error("static_membership", message);
    }
    if stream.group_protocol == GroupProtocol::Consumer {
        for property in ["session.timeout.ms", "heartbeat.interval.ms"] {
            if kafka.client.contains_key(property) {
                let message = format!(
                    "\"consumer\" does not go with kafka.client.{property}: with this protocol the \
                     broker sets it"
                );
                stream.section.error("group_protocol", message);
            }
        }
    }
}

/// What streams with transactions need.
fn transactions(
    streams: &[Draft<'_>],
    kafka: &KafkaSettings,
    top: &Section<'_>,
    poll_interval: Option<Duration>,
) {
    let exactly_once =
        |stream: &&Draft<'_>| stream.processing_guarantee == ProcessingGuarantee::ExactlyOnce;
    let mut groups: BTreeMap<&str, &str> = BTreeMap::new();
    for stream in streams.iter().filter(exactly_once) {
        if let Some(other) = groups.insert(&stream.group_id, &stream.name) {
            let message = format!(
                "stream {other:?} has transactions in the group {:?} as well, and their ids are \
                 made from it: give each stream its own group_id",
                stream.group_id
            );
            stream.section.error("group_id", message);
        }
    }
    if groups.is_empty() {
        return;
    }
    let default = DEFAULT_TRANSACTION_TIMEOUT;
    let Some(timeout) = milliseconds(top, kafka, TRANSACTION_TIMEOUT, default) else {
        return;
    };
    if poll_interval.is_some_and(|poll_interval| timeout >= poll_interval) {
        let message = format!(
            "{} must stay below {MAX_POLL_INTERVAL}: a commit may take this long, and nothing is \
             polled meanwhile",
            duration(timeout)
        );
        top.open("kafka")
            .open("client")
            .error(TRANSACTION_TIMEOUT, message);
    }
    for stream in streams.iter().filter(exactly_once) {
        cycle_time(stream, TRANSACTION_TIMEOUT, timeout);
    }
}

/// No topic has two roles in one stream, and none is one of the registry's.
fn topics(stream: &Draft<'_>, registry: &[(&str, &String); 4]) {
    let section = &stream.section;
    let mut roles: BTreeMap<&str, &str> = BTreeMap::new();
    for topic in &stream.input_topics {
        roles.insert(topic, "an input topic of this stream");
    }
    for (key, topic) in registry {
        roles.insert(topic, "a topic of the registry");
        if stream.input_topics.contains(topic) {
            let message = format!("{topic:?} is registry.{key}: events need a topic of their own");
            section.error("input_topics", message);
        }
    }
    let outputs = [
        (
            "output_topic",
            &stream.output_topic,
            "the output topic of this stream",
        ),
        ("dead_letter_topic", &stream.dead_letter_topic, ""),
    ];
    for (key, topic, role) in outputs {
        let Some(topic) = topic else { continue };
        if let Some(other) = roles.insert(topic, role) {
            section.error(
                key,
                format!("{topic:?} is {other}: it must be another topic"),
            );
        }
    }
}

/// A worker polls between cycles at the latest, and a transaction is as long as a cycle.
fn cycle_time(stream: &Draft<'_>, property: &str, limit: Duration) {
    let sum = stream.commit_interval + stream.max_batch_time;
    if sum >= limit {
        let key = if stream.section.has("commit_interval") || !stream.section.has("max_batch_time")
        {
            "commit_interval"
        } else {
            "max_batch_time"
        };
        let (sum, limit) = (duration(sum), duration(limit));
        stream.section.error(
            key,
            format!(
                "commit_interval and max_batch_time are {sum} together and must stay below \
                 {property}, which is {limit}"
            ),
        );
    }
}

/// Two streams in one group that share a topic would each see a part of its partitions.
fn groups(streams: &[Draft<'_>]) {
    for (number, stream) in streams.iter().enumerate() {
        let earlier = streams.iter().take(number);
        for other in earlier.filter(|other| other.group_id == stream.group_id) {
            let shared = stream
                .input_topics
                .iter()
                .find(|topic| other.input_topics.contains(topic));
            if let Some(topic) = shared {
                let (group, other) = (&stream.group_id, &other.name);
                let message = format!(
                    "stream {other:?} reads {topic:?} in the group {group:?} as well, and each \
                     would get only a part of it: give each stream its own group_id"
                );
                stream.section.error("group_id", message);
            }
        }
    }
}
