//! The registry's four topics: their exact settings, and the check that they have them.

use std::fmt;
use std::time::Duration;

use super::error::RegistryError;
use super::settings::RegistrySettings;
use crate::kafka::{Admin, KafkaError, KafkaSettings, TopicInfo};

/// One of the registry's topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RegistryTopic {
    /// Manifests.
    Versions,
    /// Artifact chunks.
    Artifacts,
    /// Deployment events.
    Deployments,
    /// What instances serve.
    Status,
}

/// A record of 900 KiB and its headers fit; it is also Kafka's own default.
const MAX_MESSAGE_BYTES: &str = "1048588";

/// Settings of a compacted topic with few records: without small segments and a longest lag the
/// log cleaner never comes to it.
const VERSIONS: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("max.message.bytes", MAX_MESSAGE_BYTES),
    ("segment.ms", "86400000"),
    ("segment.bytes", "67108864"),
    ("min.compaction.lag.ms", "0"),
    ("max.compaction.lag.ms", "604800000"),
    ("min.cleanable.dirty.ratio", "0.1"),
    ("message.timestamp.type", "LogAppendTime"),
];

const ARTIFACTS: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("max.message.bytes", MAX_MESSAGE_BYTES),
    ("segment.ms", "604800000"),
    ("segment.bytes", "268435456"),
    ("min.compaction.lag.ms", "0"),
    ("max.compaction.lag.ms", "604800000"),
    ("min.cleanable.dirty.ratio", "0.1"),
    ("message.timestamp.type", "LogAppendTime"),
];

const DEPLOYMENTS: &[(&str, &str)] = &[
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("max.message.bytes", MAX_MESSAGE_BYTES),
    ("message.timestamp.type", "LogAppendTime"),
];

const STATUS: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("max.message.bytes", MAX_MESSAGE_BYTES),
    ("segment.ms", "3600000"),
    ("segment.bytes", "16777216"),
    ("min.compaction.lag.ms", "0"),
    ("max.compaction.lag.ms", "86400000"),
    ("min.cleanable.dirty.ratio", "0.1"),
    ("message.timestamp.type", "LogAppendTime"),
];

/// Settings that a topic must have; the others only keep it small.
const REQUIRED: &[&str] = &[
    "cleanup.policy",
    "retention.ms",
    "retention.bytes",
    "max.message.bytes",
];

impl RegistryTopic {
    /// All four, in the order in which they are created.
    pub const ALL: [Self; 4] = [
        Self::Versions,
        Self::Artifacts,
        Self::Deployments,
        Self::Status,
    ];

    /// Its configured name.
    pub fn name(self, settings: &RegistrySettings) -> &str {
        match self {
            Self::Versions => &settings.versions_topic,
            Self::Artifacts => &settings.artifacts_topic,
            Self::Deployments => &settings.deployments_topic,
            Self::Status => &settings.status_topic,
        }
    }

    /// The exact settings it is created with; all have one partition.
    pub fn config(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Versions => VERSIONS,
            Self::Artifacts => ARTIFACTS,
            Self::Deployments => DEPLOYMENTS,
            Self::Status => STATUS,
        }
    }

    fn must_have(self, setting: &str) -> bool {
        // Liveness is told by the broker's clock.
        REQUIRED.contains(&setting) || (self == Self::Status && setting == "message.timestamp.type")
    }

    /// What is wrong with the topic called `name`, as the broker describes it.
    pub fn check(self, name: &str, info: &TopicInfo) -> Vec<Problem> {
        let mut problems = Vec::new();
        if info.partitions != 1 {
            problems.push(Problem {
                topic: name.to_owned(),
                setting: "partitions".to_owned(),
                found: info.partitions.to_string(),
                wanted: "1".to_owned(),
                fix: "partitions cannot be taken away: create a topic of one partition under \
                      another name, copy the records, and configure it under [registry]"
                    .to_owned(),
            });
        }
        for (setting, wanted) in self.config().iter().filter(|(s, _)| self.must_have(s)) {
            let Some(found) = info.config.get(*setting) else {
                continue;
            };
            if !satisfies(setting, found, wanted) {
                problems.push(Problem {
                    topic: name.to_owned(),
                    setting: (*setting).to_owned(),
                    found: found.clone(),
                    wanted: (*wanted).to_owned(),
                    fix: format!(
                        "kafka-configs.sh --bootstrap-server <host:port> --alter --entity-type \
                         topics --entity-name {name} --add-config {setting}={wanted}"
                    ),
                });
            }
        }
        problems
    }
}

fn satisfies(setting: &str, found: &str, wanted: &str) -> bool {
    match (setting, found.parse::<i64>(), wanted.parse::<i64>()) {
        ("max.message.bytes", Ok(found), Ok(wanted)) => found >= wanted,
        _ => found.trim().eq_ignore_ascii_case(wanted),
    }
}

/// What is wrong with a deployment log that starts at offset `start`.
pub fn check_log_start(name: &str, start: i64) -> Option<Problem> {
    (start != 0).then(|| Problem {
        topic: name.to_owned(),
        setting: "first offset".to_owned(),
        found: start.to_string(),
        wanted: "0".to_owned(),
        fix: "deployment events were deleted, so what is to serve cannot be told: configure \
              another registry.deployments_topic and deploy each model again; streams then wait out \
              revision_hold once, since their commits name higher revisions"
            .to_owned(),
    })
}

/// A setting of a registry topic that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The topic.
    pub topic: String,
    /// The setting.
    pub setting: String,
    /// What the topic has.
    pub found: String,
    /// What it needs.
    pub wanted: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topic,
            setting,
            found,
            wanted,
            fix,
        } = self;
        write!(
            f,
            "topic {topic:?} has {setting} {found:?}, it must be {wanted:?}; to fix it: {fix}"
        )
    }
}

/// Checks the settings of `topics`; all must exist.
pub fn check_topics(
    kafka: &KafkaSettings,
    settings: &RegistrySettings,
    topics: &[RegistryTopic],
    timeout: Duration,
) -> Result<(), RegistryError> {
    if !settings.check_topics {
        return Ok(());
    }
    let admin = Admin::new(kafka)?;
    let (mut missing, mut problems) = (Vec::new(), Vec::new());
    for topic in topics {
        let name = topic.name(settings);
        match admin.topic(name, timeout)? {
            None => missing.push(name.to_owned()),
            Some(info) => problems.extend(topic.check(name, &info)),
        }
    }
    if !missing.is_empty() {
        return Err(RegistryError::MissingTopics(missing));
    }
    refuse(problems)
}

/// Creates the topics that are missing and checks those that are there. Gives the names of those
/// it created.
pub fn ensure_topics(
    kafka: &KafkaSettings,
    settings: &RegistrySettings,
    timeout: Duration,
) -> Result<Vec<String>, RegistryError> {
    if !settings.check_topics {
        return Ok(Vec::new());
    }
    let admin = Admin::new(kafka)?;
    let (mut created, mut problems) = (Vec::new(), Vec::new());
    for topic in RegistryTopic::ALL {
        let name = topic.name(settings);
        if let Some(info) = admin.topic(name, timeout)? {
            problems.extend(topic.check(name, &info));
        } else {
            create(&admin, topic, name, timeout)?;
            created.push(name.to_owned());
        }
    }
    refuse(problems)?;
    Ok(created)
}

fn create(
    admin: &Admin,
    topic: RegistryTopic,
    name: &str,
    timeout: Duration,
) -> Result<(), KafkaError> {
    admin
        .create_topic(name, 1, topic.config(), timeout)
        .map(|_| ())
}

fn refuse(problems: Vec<Problem>) -> Result<(), RegistryError> {
    if problems.is_empty() {
        Ok(())
    } else {
        Err(RegistryError::Topics(problems))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn info(topic: RegistryTopic) -> TopicInfo {
        let config = topic.config().iter();
        TopicInfo {
            partitions: 1,
            config: config
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn topics_as_created_pass() {
        for topic in RegistryTopic::ALL {
            assert_eq!(topic.check("t", &info(topic)), []);
        }
    }

    #[test]
    fn wrong_settings_are_named_with_their_fix() {
        for (topic, setting, found, fixed) in [
            (
                RegistryTopic::Versions,
                "cleanup.policy",
                "compact,delete",
                "cleanup.policy=compact",
            ),
            (
                RegistryTopic::Deployments,
                "cleanup.policy",
                "compact",
                "cleanup.policy=delete",
            ),
            (
                RegistryTopic::Deployments,
                "retention.ms",
                "604800000",
                "retention.ms=-1",
            ),
            (
                RegistryTopic::Artifacts,
                "max.message.bytes",
                "1000",
                "max.message.bytes=1048588",
            ),
            (
                RegistryTopic::Status,
                "message.timestamp.type",
                "CreateTime",
                "message.timestamp.type=LogAppendTime",
            ),
        ] {
            let mut bad = info(topic);
            bad.config.insert(setting.to_owned(), found.to_owned());
            let problems = topic.check("my-topic", &bad);
            assert_eq!(problems.len(), 1, "{setting}");
            let text = problems[0].to_string();
            for part in [setting, found, "my-topic", fixed, "kafka-configs.sh"] {
                assert!(text.contains(part), "{text}");
            }
        }
    }

    #[test]
    fn larger_limits_and_other_housekeeping_pass() {
        let mut fine = info(RegistryTopic::Versions);
        fine.config
            .insert("max.message.bytes".into(), "9999999".into());
        fine.config.insert("segment.ms".into(), "1".into());
        fine.config
            .insert("message.timestamp.type".into(), "CreateTime".into());
        assert_eq!(RegistryTopic::Versions.check("t", &fine), []);
        fine.partitions = 3;
        assert_eq!(RegistryTopic::Versions.check("t", &fine).len(), 1);
    }

    #[test]
    fn a_log_that_lost_its_start_is_refused() {
        assert_eq!(check_log_start("d", 0), None);
        assert!(
            check_log_start("d", 5)
                .unwrap()
                .to_string()
                .contains("\"5\"")
        );
    }
}
