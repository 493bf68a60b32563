//! Configuration as TOML: the effective one, with secrets masked, and the commented example.

use std::fmt::Display;
use std::time::Duration;

use super::keys::{KEYS, KeyDoc, Presence, SECTIONS, STREAM};
use super::{Config, client};
use crate::codec::Stage;
use crate::stream::{
    ErrorPolicy, GroupProtocol, NonFiniteOutputs, OnDataLoss, ProcessingGuarantee, StartFrom,
    StreamSettings,
};
use crate::telemetry::LogFormat;

/// What is printed in place of a secret.
const MASK: &str = "***";

/// A duration as it is written in the configuration: `1s`, `100ms`, `1m 30s`.
pub fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A size as it is written in the configuration: `128MiB`; exact.
pub fn size(bytes: u64) -> String {
    let units = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    let fits = |(unit, _): &&(u64, &str)| bytes >= *unit && bytes.is_multiple_of(*unit);
    match units.iter().find(fits) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// A size for people: `7.7 KiB`; rounded.
pub fn about(bytes: u64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

/// TOML text in the making.
#[derive(Default)]
struct Toml(String);

impl Toml {
    fn section(&mut self, path: &str) {
        self.0.extend(["\n[", path, "]\n"]);
    }

    fn raw(&mut self, key: &str, value: impl Display) {
        self.0.extend([key, " = ", &value.to_string(), "\n"]);
    }

    fn text(&mut self, key: &str, value: &str) {
        self.raw(key, quoted(value));
    }

    fn list(&mut self, key: &str, values: &[String]) {
        let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
        self.raw(key, format!("[{}]", values.join(", ")));
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The effective configuration; reading it gives the same, secrets aside.
pub(super) fn render(config: &Config) -> String {
    let mut toml = Toml::default();
    match &config.instance_id {
        Some(id) => toml.text("instance_id", id),
        None => toml.0.push_str("# instance_id: random per start\n"),
    }
    toml.text("shutdown_timeout", &duration(config.shutdown_timeout));
    toml.section("kafka");
    toml.text("bootstrap_servers", &config.kafka.bootstrap_servers);
    if !config.kafka.client.is_empty() {
        toml.section("kafka.client");
    }
    for (property, value) in &config.kafka.client {
        let secret = client::is_secret(property) || config.from_files.contains(property);
        toml.text(&quoted(property), if secret { MASK } else { value });
    }
    let registry = &config.registry;
    toml.section("registry");
    toml.text("versions_topic", &registry.versions_topic);
    toml.text("artifacts_topic", &registry.artifacts_topic);
    toml.text("deployments_topic", &registry.deployments_topic);
    toml.text("status_topic", &registry.status_topic);
    toml.text("retention", &duration(registry.retention));
    toml.text(
        "cache_directory",
        &registry.cache.directory.display().to_string(),
    );
    toml.raw("require_signature", registry.trust.required);
    let keys = registry
        .trust
        .keys
        .iter()
        .map(|key| key.as_str().to_owned());
    toml.list("trusted_keys", &keys.collect::<Vec<_>>());
    toml.text("heartbeat_interval", &duration(registry.heartbeat_interval));
    for stream in &config.streams {
        render_stream(&mut toml, stream);
    }
    toml.section("http");
    toml.text("listen", &config.http.listen.to_string());
    toml.section("runtime");
    match &config.runtime.onnxruntime_library {
        Some(path) => toml.text("onnxruntime_library", &path.display().to_string()),
        None => toml
            .0
            .push_str("# onnxruntime_library: that of an installed Python wheel\n"),
    }
    toml.section("limits");
    toml.text("kafka_memory", &size(config.kafka.memory));
    toml.text("probe_memory", &size(config.probe.memory));
    toml.text("probe_time", &duration(config.probe.time));
    toml.text("model_memory", &size(registry.model_memory));
    toml.text("max_artifact_bytes", &size(registry.max_artifact_bytes));
    toml.text("fetch_time", &duration(registry.fetch_time));
    toml.text("artifact_cache", &size(registry.cache.max_bytes));
    toml.section("log");
    let format = match config.log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    toml.text("format", format);
    toml.text("level", &config.log.level);
    toml.0
}

fn render_stream(toml: &mut Toml, stream: &StreamSettings) {
    toml.section(&format!("streams.{}", quoted_key(&stream.name)));
    toml.text("group_id", &stream.group_id);
    toml.list("input_topics", &stream.input_topics);
    toml.text("output_topic", &stream.output_topic);
    toml.text("dead_letter_topic", &stream.dead_letter_topic);
    toml.text("model", stream.model.as_str());
    match stream.workers {
        Some(workers) => toml.raw("workers", workers),
        None => toml
            .0
            .push_str("# workers: the smaller of cores and input partitions\n"),
    }
    toml.raw("max_batch_size", stream.max_batch_size);
    toml.text("max_queue_delay", &duration(stream.max_queue_delay));
    toml.text("max_batch_time", &duration(stream.max_batch_time));
    toml.text("commit_interval", &duration(stream.commit_interval));
    toml.raw("max_cycle_records", stream.max_cycle_records);
    toml.text("revision_hold", &duration(stream.revision_hold));
    let guarantee = match stream.processing_guarantee {
        ProcessingGuarantee::AtLeastOnce => "at_least_once",
        ProcessingGuarantee::ExactlyOnce => "exactly_once",
    };
    toml.text("processing_guarantee", guarantee);
    toml.raw("static_membership", stream.static_membership);
    let protocol = match stream.group_protocol {
        GroupProtocol::Classic => "classic",
        GroupProtocol::Consumer => "consumer",
    };
    toml.text("group_protocol", protocol);
    let start_from = match stream.start_from {
        StartFrom::Earliest => "earliest".to_owned(),
        StartFrom::Latest => "latest".to_owned(),
        StartFrom::Time(time) => humantime::format_rfc3339(time).to_string(),
    };
    toml.text("start_from", &start_from);
    let on_data_loss = match stream.on_data_loss {
        OnDataLoss::Fail => "fail",
        OnDataLoss::Earliest => "earliest",
        OnDataLoss::Latest => "latest",
    };
    toml.text("on_data_loss", on_data_loss);
    toml.list("include", &stream.include);
    let policies: Vec<String> = Stage::ALL
        .map(|stage| format!("{stage} = {}", quoted(policy(stream.policy(stage)))))
        .to_vec();
    toml.raw("on_error", format!("{{ {} }}", policies.join(", ")));
    let non_finite = match stream.non_finite_outputs {
        NonFiniteOutputs::Reject => "reject",
        NonFiniteOutputs::Null => "null",
    };
    toml.text("non_finite_outputs", non_finite);
}

fn policy(policy: ErrorPolicy) -> &'static str {
    match policy {
        ErrorPolicy::DeadLetter => "dead_letter",
        ErrorPolicy::Skip => "skip",
        ErrorPolicy::Fail => "fail",
    }
}

/// A key, quoted where TOML needs it.
fn quoted_key(key: &str) -> String {
    if key.contains('.') {
        quoted(key)
    } else {
        key.to_owned()
    }
}

/// A commented file with every key: required ones with an example, the others with what holds
/// without them.
pub fn example() -> String {
    let mut text = String::from(
        "# Swapstream's configuration. Keys that are commented out show their default, or an\n\
         # example where it says so. The variable SWAPSTREAM__SECTION__KEY overrides any key.\n",
    );
    for (section, doc) in SECTIONS {
        text.push('\n');
        for line in doc.lines() {
            text.extend(["# ", line, "\n"]);
        }
        if !section.is_empty() {
            let path = if *section == STREAM {
                "streams.events"
            } else {
                section
            };
            text.extend(["[", path, "]\n"]);
        }
        if *section == "kafka.client" {
            text.push_str("# \"security.protocol\" = \"SASL_SSL\"\n");
        }
        let keys = KEYS.iter().filter(|doc| doc.section == *section);
        text.extend(keys.map(example_key));
    }
    text
}

fn example_key(doc: &KeyDoc) -> String {
    let (mark, note) = match doc.presence {
        Presence::Required => ("", ""),
        Presence::Default => ("# ", ""),
        Presence::Optional => ("# ", "; example:"),
    };
    let value = doc.value.replace("<name>", "events");
    format!(
        "\n# {}\n# {}{note}\n{mark}{} = {value}\n",
        doc.doc, doc.kind, doc.key
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_written_as_they_are_read() {
        let cases = [
            (0, "0s"),
            (1, "1ms"),
            (100, "100ms"),
            (1000, "1s"),
            (90_000, "1m 30s"),
        ];
        for (milliseconds, text) in cases {
            assert_eq!(duration(Duration::from_millis(milliseconds)), text);
        }
        let cases = [
            (128 << 20, "128MiB"),
            (2 << 30, "2GiB"),
            (1000, "1000B"),
            (1 << 40, "1TiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
            assert_eq!(text.parse::<bytesize::ByteSize>().unwrap().as_u64(), bytes);
        }
    }
}
