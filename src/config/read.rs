//! Reads the whole tree: each section into the settings of its part.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::error::{ConfigError, ConfigErrors, Place};
use super::section::{Errors, Section};
use super::tree::Table;
use super::{Config, Streams, client, keys, rules, stream};
use crate::http::HttpSettings;
use crate::kafka::{DEFAULT_KAFKA_MEMORY, KafkaSettings};
use crate::model::ModelName;
use crate::registry::{CacheSettings, ProbeLimits, RegistrySettings, Trust, TrustedKey};
use crate::runtime::RuntimeSettings;
use crate::telemetry::{LogFormat, LogSettings, check_level};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Reads everything; gives the configuration or every mistake, `found` included.
pub(super) fn config(
    root: &Table,
    place: &Place,
    streams: Streams,
    found: Vec<ConfigError>,
) -> Result<Config, ConfigErrors> {
    let errors: Errors = RefCell::new(found);
    let top = Section::top(root, place, &errors);
    let limits = top.sub("limits", &keys::known("limits"));
    let (kafka, from_files) = kafka(&top, &limits);
    let registry = registry(&top, &limits);
    let drafts = streams_of(&top, streams);
    rules::check(&drafts, &kafka, &registry, &top);
    let streams = drafts.into_iter().filter_map(|draft| draft.settings);
    let config = Config {
        instance_id: top.parsed("instance_id", instance_id),
        shutdown_timeout: top
            .duration("shutdown_timeout", SECOND..=HOUR)
            .unwrap_or(Duration::from_secs(30)),
        streams: streams.collect(),
        http: http(&top),
        runtime: runtime(&top),
        log: log(&top),
        probe: probe(&limits),
        kafka,
        registry,
        from_files,
    };
    let errors = errors.into_inner();
    if errors.is_empty() {
        Ok(config)
    } else {
        Err(ConfigErrors::new(errors))
    }
}

/// Reads the section `runtime` alone.
pub(super) fn runtime_alone(
    root: &Table,
    place: &Place,
    found: Vec<ConfigError>,
) -> Result<RuntimeSettings, ConfigErrors> {
    let errors: Errors = RefCell::new(found);
    let settings = runtime(&Section::top(root, place, &errors));
    let errors = errors.into_inner();
    if errors.is_empty() {
        Ok(settings)
    } else {
        Err(ConfigErrors::new(errors))
    }
}

fn probe(limits: &Section<'_>) -> ProbeLimits {
    let default = ProbeLimits::default();
    ProbeLimits {
        memory: limits
            .size("probe_memory", 64 * MIB..=1024 * GIB)
            .unwrap_or(default.memory),
        time: limits
            .duration("probe_time", SECOND..=HOUR)
            .unwrap_or(default.time),
    }
}

fn instance_id(text: &str) -> Result<String, String> {
    // In the status topic `instance/<id>` is a heartbeat and `<id>/<model>` an entry.
    if text == "instance" {
        return Err("\"instance\" is taken by the status topic's keys; choose another".to_owned());
    }
    // Instances and models share those keys, and so their alphabet.
    ModelName::new(text)
        .map(String::from)
        .map_err(|error| error.to_string())
}

fn kafka(top: &Section<'_>, limits: &Section<'_>) -> (KafkaSettings, BTreeSet<String>) {
    let section = top.sub("kafka", &keys::known("kafka"));
    section.require(
        "bootstrap_servers",
        "host:port of one broker or more; SWAPSTREAM__KAFKA__BOOTSTRAP_SERVERS sets it too",
    );
    let (client, from_files) = client::read(&section);
    let settings = KafkaSettings {
        bootstrap_servers: section
            .parsed("bootstrap_servers", bootstrap_servers)
            .unwrap_or_default(),
        client,
        memory: limits
            .size("kafka_memory", 16 * MIB..=64 * GIB)
            .unwrap_or(DEFAULT_KAFKA_MEMORY),
    };
    (settings, from_files)
}

/// Checks the form of a broker list: librdkafka itself drops what it does not understand.
fn bootstrap_servers(text: &str) -> Result<String, String> {
    for server in text.split(',').map(str::trim) {
        let address = server.rsplit_once("://").map_or(server, |(_, rest)| rest);
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "9092"));
        let port_ok = port.parse::<u16>().is_ok_and(|port| port > 0);
        if host.is_empty() || !port_ok || host.contains(char::is_whitespace) {
            return Err(format!(
                "{server:?} is no broker: expected host:port, comma-separated"
            ));
        }
    }
    Ok(text.to_owned())
}

fn registry(top: &Section<'_>, limits: &Section<'_>) -> RegistrySettings {
    let section = top.sub("registry", &keys::known("registry"));
    let default = RegistrySettings::default();
    let topic = |key: &str, default: String| section.parsed(key, topic_name).unwrap_or(default);
    RegistrySettings {
        versions_topic: topic("versions_topic", default.versions_topic),
        artifacts_topic: topic("artifacts_topic", default.artifacts_topic),
        deployments_topic: topic("deployments_topic", default.deployments_topic),
        status_topic: topic("status_topic", default.status_topic),
        max_artifact_bytes: limits
            .size("max_artifact_bytes", 1024..=16 * GIB)
            .unwrap_or(default.max_artifact_bytes),
        fetch_time: limits
            .duration("fetch_time", SECOND..=HOUR)
            .unwrap_or(default.fetch_time),
        cache: CacheSettings {
            directory: section
                .parsed("cache_directory", |text| match text {
                    "" => Err("must name a directory"),
                    path => Ok(PathBuf::from(path)),
                })
                .unwrap_or(default.cache.directory),
            max_bytes: limits
                .size("artifact_cache", 0..=16 * 1024 * GIB)
                .unwrap_or(default.cache.max_bytes),
        },
        model_memory: limits
            .size("model_memory", 16 * MIB..=1024 * GIB)
            .unwrap_or(default.model_memory),
        retention: section
            .duration("retention", Duration::ZERO..=3650 * 24 * HOUR)
            .unwrap_or(default.retention),
        trust: trust(&section),
        heartbeat_interval: section
            .duration("heartbeat_interval", SECOND..=600 * SECOND)
            .unwrap_or(default.heartbeat_interval),
        check_topics: default.check_topics,
    }
}

fn trust(section: &Section<'_>) -> Trust {
    let required = section.flag("require_signature").unwrap_or(false);
    let mut keys = Vec::new();
    for text in section.list("trusted_keys").unwrap_or_default() {
        match TrustedKey::parse(&text) {
            Ok(key) => keys.push(key),
            Err(why) => section.error("trusted_keys", why),
        }
    }
    if required && !section.has("trusted_keys") {
        let why = "needs registry.trusted_keys: without a trusted key nothing could serve";
        section.error("require_signature", why);
    }
    Trust { required, keys }
}

fn streams_of<'t>(top: &Section<'t>, needed: Streams) -> Vec<stream::Draft<'t>> {
    let section = top.open("streams");
    let entries: Vec<_> = section.entries().collect();
    if entries.is_empty() && needed == Streams::Required {
        section.error(
            "",
            "no stream is configured: add a section [streams.<name>]; `swapstream config example` \
             shows one",
        );
    }
    entries
        .into_iter()
        .map(|(name, node)| stream::read(&section, name, &node.key_place))
        .collect()
}

fn http(top: &Section<'_>) -> HttpSettings {
    let section = top.sub("http", &keys::known("http"));
    let listen = section.parsed("listen", |text| {
        text.parse::<SocketAddr>().map_err(|_| {
            format!("{text:?} is not allowed: expected an IP address and a port, such as \"127.0.0.1:9464\"")
        })
    });
    listen.map_or_else(HttpSettings::default, |listen| HttpSettings { listen })
}

fn runtime(top: &Section<'_>) -> RuntimeSettings {
    let section = top.sub("runtime", &keys::known("runtime"));
    RuntimeSettings {
        onnxruntime_library: section.parsed("onnxruntime_library", |text| match text {
            "" => Err("must name a file"),
            path => Ok(PathBuf::from(path)),
        }),
    }
}

fn log(top: &Section<'_>) -> LogSettings {
    let section = top.sub("log", &keys::known("log"));
    let default = LogSettings::default();
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    LogSettings {
        format: section.choice("format", &formats).unwrap_or(default.format),
        level: section
            .parsed("level", |text| check_level(text).map(|()| text.to_owned()))
            .unwrap_or(default.level),
    }
}

/// Checks a topic's name by Kafka's rule.
pub(super) fn topic_name(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let length = (1..=249).contains(&text.len());
    if length && text.chars().all(legal) && text != "." && text != ".." {
        Ok(text.to_owned())
    } else {
        let start: String = text.chars().take(60).collect();
        Err(format!(
            "{start:?} is no topic name: 1 to 249 of A-Z a-z 0-9 . _ - are allowed"
        ))
    }
}
