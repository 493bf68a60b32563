//! How to reach Kafka.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

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

/// Default of `transaction.timeout.ms`. A transaction that nobody ends holds readers back this long.
pub const DEFAULT_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The property that sets how long a transaction may stay open.
pub const TRANSACTION_TIMEOUT: &str = "transaction.timeout.ms";

impl KafkaSettings {
    /// Whether the configuration sets the property `name`, by whichever of its names.
    pub(super) fn sets(&self, name: &str) -> bool {
        self.client.keys().any(|key| property_name(key) == name)
    }

    /// How long a transaction may stay open before the broker aborts it.
    pub fn transaction_timeout(&self) -> Duration {
        let configured = self.client.get(TRANSACTION_TIMEOUT);
        configured
            .and_then(|text| text.trim().parse().ok())
            .map_or(DEFAULT_TRANSACTION_TIMEOUT, Duration::from_millis)
    }
}

/// How a worker is a member of its group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    /// A name that survives restarts: the group then keeps the member's partitions for it.
    pub static_id: Option<String>,
    /// Which protocol the group speaks.
    pub protocol: GroupProtocol,
}

/// Which protocol a consumer group speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupProtocol {
    /// The members assign the partitions, cooperative and sticky.
    #[default]
    Classic,
    /// The broker assigns them (KIP-848); needs Kafka 4.0.
    Consumer,
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

/// Other names that librdkafka has for a property, each with the one that is used here. A client takes
/// both, in no order: the last one counts. (The table of librdkafka's CONFIGURATION.md.)
const ALIASES: &[(&str, &str)] = &[
    ("compression.codec", "compression.type"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("message.send.max.retries", "retries"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("request.required.acks", "acks"),
    ("sasl.mechanisms", "sasl.mechanism"),
    (
        "sasl.oauthbearer.client.credentials.client.id",
        "sasl.oauthbearer.client.id",
    ),
    (
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.client.secret",
    ),
];

/// The one name of a property.
pub fn property_name(name: &str) -> &str {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    alias.map_or(name, |(_, name)| name)
}

/// Properties that the configuration may not set, with the reason.
pub const RESERVED_PROPERTIES: &[(&str, &str)] = &[
    ("bootstrap.servers", "set kafka.bootstrap_servers"),
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
        "enable.gapless.guarantee",
        "nothing is delivered behind a batch that was refused",
    ),
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
    ("group.protocol", "set streams.<name>.group_protocol"),
    (
        "group.instance.id",
        "set streams.<name>.static_membership: each worker gets a name of its own",
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
