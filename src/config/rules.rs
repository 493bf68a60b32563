//! Rules between keys: what each value may be given the others.

use std::collections::BTreeMap;
use std::time::Duration;

use super::render::duration;
use super::section::Section;
use super::stream::Draft;
use crate::kafka::KafkaSettings;
use crate::registry::RegistrySettings;

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
            cycle_time(stream, poll_interval);
        }
    }
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
    let Some(text) = kafka.client.get(MAX_POLL_INTERVAL) else {
        return Some(DEFAULT_POLL_INTERVAL);
    };
    let milliseconds = text.trim().parse().ok();
    if milliseconds.is_none() {
        let message = "expected a number of milliseconds";
        top.open("kafka")
            .open("client")
            .error(MAX_POLL_INTERVAL, message);
    }
    milliseconds.map(Duration::from_millis)
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

/// A worker polls between cycles at the latest.
fn cycle_time(stream: &Draft<'_>, poll_interval: Duration) {
    let sum = stream.commit_interval + stream.max_batch_time;
    if sum >= poll_interval {
        let key = if stream.section.has("commit_interval") || !stream.section.has("max_batch_time")
        {
            "commit_interval"
        } else {
            "max_batch_time"
        };
        let (sum, limit) = (duration(sum), duration(poll_interval));
        stream.section.error(
            key,
            format!(
                "commit_interval and max_batch_time are {sum} together and must stay below \
                 {MAX_POLL_INTERVAL}, which is {limit}"
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
