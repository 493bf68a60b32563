//! Every key: its section, type, default, what is allowed and what it means. The example file, the
//! documentation and the check for unknown keys are made from this table.

/// Whether a key must be there, and what [`KeyDoc::value`] then is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It must be there; the value is an example.
    Required,
    /// The value is what holds without the key.
    Default,
    /// Without the key something is derived; the value is an example.
    Optional,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct KeyDoc {
    /// Its section, `""` at the top; `<name>` stands for a name that users choose.
    pub section: &'static str,
    /// The key itself.
    pub key: &'static str,
    /// Type and allowed values.
    pub kind: &'static str,
    /// Whether it must be there.
    pub presence: Presence,
    /// A value as TOML: the default, or an example.
    pub value: &'static str,
    /// What it means.
    pub doc: &'static str,
}

/// The section of streams.
pub(super) const STREAM: &str = "streams.<name>";

/// All sections in the order of the example, with what they are for.
pub(super) const SECTIONS: &[(&str, &str)] = &[
    ("", "The process."),
    ("kafka", "How to reach Kafka."),
    (
        "kafka.client",
        "Any librdkafka property, unchanged (TLS, SASL, timeouts). Quote names with dots.\n\
         A value may be read from a file: \"sasl.password\" = { file = \"/run/secrets/kafka\" }.",
    ),
    ("registry", "The topics in which models are kept."),
    (
        STREAM,
        "One section for each stream: input topics, a model, an output topic, a dead-letter topic.",
    ),
    (
        "http",
        "Metrics, health and models over HTTP. It only reads.",
    ),
    ("runtime", "What executes models, besides tract."),
    ("limits", "What the process may take."),
    ("log", "Logs, on stderr."),
];

use Presence::{Default, Optional, Required};

macro_rules! keys {
    ($($section:expr => { $($key:literal: $kind:literal, $presence:ident $value:literal, $doc:literal;)* })*) => {
        /// All keys, section by section.
        pub const KEYS: &[KeyDoc] = &[$($(KeyDoc {
            section: $section,
            key: $key,
            kind: $kind,
            presence: $presence,
            value: $value,
            doc: $doc,
        },)*)*];
    };
}

keys! {
"" => {
    "instance_id": "string of A-Z a-z 0-9 . _ -, at most 128", Optional "\"scorer-1\"",
        "Name of this instance. Random per start unless set; set it where names are stable, as in a StatefulSet.";
    "shutdown_timeout": "duration, 1s to 1h", Default "\"30s\"",
        "How long a shutdown may take: after it, what is not acknowledged is left to the next instance.";
}
"kafka" => {
    "bootstrap_servers": "string, host:port, comma-separated", Required "\"localhost:9092\"",
        "The brokers to ask first.";
}
"registry" => {
    "versions_topic": "topic name", Default "\"model-versions\"",
        "Topic of manifests: the versions there are.";
    "artifacts_topic": "topic name", Default "\"model-artifacts\"",
        "Topic of the models' bytes, in chunks.";
    "deployments_topic": "topic name", Default "\"model-deployments\"",
        "Log of deployment events: what is to serve.";
    "status_topic": "topic name", Default "\"model-status\"",
        "Topic in which instances say what they serve.";
    "retention": "duration, 0s to 3650d", Default "\"7d\"",
        "How long `swapstream model delete` keeps a version once it is no longer deployed.";
    "cache_directory": "path of a directory", Optional "\"/var/cache/swapstream/artifacts\"",
        "Where artifacts that were fetched from `http:`, `https:` and `s3:` addresses are kept; several instances may share it. Without it `swapstream/artifacts` in `XDG_CACHE_HOME`, else in `~/.cache`.";
    "require_signature": "true or false", Default "false",
        "Whether a version is served, published and imported only with a signature of one of `trusted_keys`.";
    "trusted_keys": "list of minisign public keys", Default "[]",
        "Their lines of base64. While keys are changed, list both.";
    "heartbeat_interval": "duration, 1s to 10m", Default "\"10s\"",
        "Time between heartbeats; an instance counts as live for three of them.";
}
STREAM => {
    "group_id": "string", Optional "\"swapstream-<name>\"",
        "Consumer group that the instances of the stream share; derived from the stream's name.";
    "input_topics": "list of topic names, at least one", Required "[\"events\"]",
        "Topics of feature events.";
    "output_topic": "topic name", Required "\"predictions\"",
        "Topic of predictions.";
    "dead_letter_topic": "topic name", Required "\"events-dlq\"",
        "Topic of records that cannot be scored.";
    "model": "name of a model", Required "\"my-model\"",
        "The model that scores the stream; which version serves is decided by `swapstream model deploy`.";
    "workers": "integer, 1 to 1024", Optional "2",
        "Worker threads on this instance; without it the smaller of cores and input partitions.";
    "max_batch_size": "integer, 1 to 65536", Default "1024",
        "Most records that are scored together.";
    "max_queue_delay": "duration, 0s to 10s", Default "\"0s\"",
        "How long a batch waits for more records. 0: a batch is what is there.";
    "max_batch_time": "duration, 1ms to 10m", Default "\"1s\"",
        "Longest time one scoring call may take, by the measured cost per row; bounds the batch size.";
    "commit_interval": "duration, 50ms to 10m", Default "\"1s\"",
        "Time between commits. With `exactly_once` the default is 100ms: predictions can be read once they are committed.";
    "max_cycle_records": "integer, 1 to 10000000", Default "50000",
        "Most records between two commits.";
    "revision_hold": "duration, 0s to 1h", Default "\"30s\"",
        "Longest time a partition waits for this instance to reach the revision in its committed offset.";
    "processing_guarantee": "\"at_least_once\" or \"exactly_once\"", Default "\"at_least_once\"",
        "What a crash may do: repeat predictions but never lose one; or neither, for readers of committed records.";
    "static_membership": "true or false", Default "false",
        "Whether workers keep their partitions while the instance restarts, for up to `session.timeout.ms`. Needs `instance_id`.";
    "group_protocol": "\"classic\" or \"consumer\"", Default "\"classic\"",
        "Which protocol the group speaks. `consumer` (KIP-848, Kafka 4.0) is experimental.";
    "start_from": "\"earliest\", \"latest\" or a time in UTC such as \"2026-01-31T08:00:00Z\"", Default "\"earliest\"",
        "Where partitions without a committed offset start.";
    "on_data_loss": "\"fail\", \"earliest\" or \"latest\"", Default "\"fail\"",
        "What happens when a committed offset is no longer in the topic: stop the stream, or go on from there.";
    "include": "list of field names", Default "[]",
        "Event fields that are copied into the prediction.";
    "on_error": "`stage = policy`; stages decode, features, infer, encode, produce; policies \"dead_letter\", \"skip\", \"fail\"", Default "{ decode = \"dead_letter\", features = \"dead_letter\", infer = \"dead_letter\", encode = \"dead_letter\", produce = \"dead_letter\" }",
        "What happens to records that fail, by stage; stages that are not named keep dead_letter.";
    "non_finite_outputs": "\"reject\" or \"null\"", Default "\"reject\"",
        "What a NaN or infinite output is: a failure of the stage infer, or null.";
}
"http" => {
    "listen": "IP address and port", Default "\"127.0.0.1:9464\"",
        "Where to listen. All that is served can be read by all who reach it.";
}
"runtime" => {
    "onnxruntime_library": "path of a file", Optional "\"/usr/lib/libonnxruntime.so\"",
        "ONNX Runtime's shared library, for models whose manifest asks for it. `ORT_DYLIB_PATH` wins over it; without both, that of an installed Python wheel `onnxruntime` is taken.";
}
"limits" => {
    "kafka_memory": "size, 16MiB to 64GiB", Default "\"128MiB\"",
        "What all Kafka clients of the process may buffer together.";
    "probe_memory": "size, 64MiB to 1TiB", Default "\"4GiB\"",
        "What a model may take in the process in which it is loaded first; one that takes more is refused.";
    "probe_time": "duration, 1s to 1h", Default "\"1m\"",
        "How much processor time loading it may take there, in whole seconds.";
    "model_memory": "size, 16MiB to 1TiB", Default "\"4GiB\"",
        "What all loaded models may hold together, by what their probes measured; a load that would go over it is refused before it compiles.";
    "max_artifact_bytes": "size, 1KiB to 16GiB", Default "\"1GiB\"",
        "Largest artifact that is fetched.";
    "fetch_time": "duration, 1s to 1h", Default "\"5m\"",
        "How long fetching an artifact may take, from Kafka or elsewhere; then it is tried again later.";
    "artifact_cache": "size, 0B to 16TiB", Default "\"4GiB\"",
        "What the artifacts in `registry.cache_directory` may take; those that were used least recently go first.";
}
"log" => {
    "format": "\"text\" or \"json\"", Default "\"text\"",
        "How log lines look.";
    "level": "off, error, warn, info, debug, trace; or by module", Default "\"info\"",
        "What is logged, such as `info,swapstream::stream=debug`. The variable RUST_LOG wins over it.";
}
}

/// The keys that `section` may have, the sections inside it included.
pub(super) fn known(section: &str) -> Vec<&'static str> {
    let keys = KEYS.iter().filter(|doc| doc.section == section);
    let mut known: Vec<&str> = keys.map(|doc| doc.key).collect();
    match section {
        "" => {
            let sections = SECTIONS.iter().map(|(path, _)| *path);
            known.extend(sections.filter(|path| !path.is_empty() && !path.contains('.')));
            known.push("streams");
        }
        "kafka" => known.push("client"),
        _ => {}
    }
    known
}

/// The table of keys in Markdown, for `docs/configuration.md`.
pub fn markdown() -> String {
    let mut text = String::new();
    for (section, doc) in SECTIONS {
        let title = if section.is_empty() {
            "### Top of the file".to_owned()
        } else {
            format!("### `[{section}]`")
        };
        text.extend([title.as_str(), "\n\n", doc, "\n\n"]);
        let rows: Vec<String> = KEYS
            .iter()
            .filter(|doc| doc.section == *section)
            .map(row)
            .collect();
        if !rows.is_empty() {
            text.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
            text.push_str(&rows.concat());
            text.push('\n');
        }
    }
    text.trim_end().to_owned() + "\n"
}

fn row(doc: &KeyDoc) -> String {
    let default = match doc.presence {
        Required => "required".to_owned(),
        // Its value is the long form of what the meaning says.
        Default if doc.value.starts_with('{') => "`{}`".to_owned(),
        Default => format!("`{}`", doc.value),
        Optional => "–".to_owned(),
    };
    let (key, kind, meaning) = (doc.key, doc.kind, doc.doc);
    format!("| `{key}` | {kind} | {default} | {meaning} |\n")
}
