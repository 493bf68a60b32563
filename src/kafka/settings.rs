//! How to reach Kafka.

use std::collections::BTreeMap;
use std::fmt;

/// Connection settings, shared by every client of the process.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// `host:port`, comma-separated.
    pub bootstrap_servers: String,
    /// Any librdkafka property, unchanged; wins over what Swapstream sets, except where a
    /// guarantee depends on it.
    pub client: BTreeMap<String, String>,
    /// What all clients of the process may buffer together, in bytes.
    pub memory: u64,
}

/// Values may be secrets, whatever their name: only the names are shown.
impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("client", &self.client.keys().collect::<Vec<_>>())
            .field("memory", &self.memory)
            .finish()
    }
}

/// Default of `limits.kafka_memory`: 128 MiB.
pub const DEFAULT_KAFKA_MEMORY: u64 = 128 << 20;

/// Properties that the configuration may not set, with the reason.
pub const RESERVED_PROPERTIES: &[(&str, &str)] = &[
    ("bootstrap.servers", "set kafka.bootstrap_servers"),
    ("metadata.broker.list", "set kafka.bootstrap_servers"),
    ("group.id", "set streams.<name>.group_id"),
    (
        "enable.auto.commit",
        "offsets are committed after acknowledgement only",
    ),
    (
        "enable.auto.offset.store",
        "offsets are committed after acknowledgement only",
    ),
    (
        "auto.offset.reset",
        "set streams.<name>.start_from and on_data_loss",
    ),
    ("isolation.level", "input is read committed"),
    ("enable.idempotence", "the producer is always idempotent"),
    ("acks", "every replica in sync acknowledges"),
    (
        "transactional.id",
        "derived from the group and the instance",
    ),
    ("enable.partition.eof", "log readers depend on it"),
    (
        "allow.auto.create.topics",
        "topics are created on purpose only",
    ),
    (
        "partition.assignment.strategy",
        "rebalances are cooperative-sticky",
    ),
];

/// Properties whose value is a secret: masked wherever configuration is printed.
pub const SECRET_PROPERTIES: &[&str] = &[
    "sasl.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "ssl.key.password",
    "ssl.keystore.password",
    "ssl.key.pem",
];
