//! Client properties by role. Every value that is not librdkafka's default has its reason here.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::settings::{GroupProtocol, KafkaSettings, Membership, property_name};

/// How many requests of a connection may wait for their answers.
const IN_FLIGHT: &str = "max.in.flight.requests.per.connection";

/// What the clients of one worker take of what all workers of the process share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientShare {
    /// Fetched records, bytes.
    pub fetch: u64,
    /// Records not yet acknowledged, bytes.
    pub produce: u64,
    /// How long the broker holds a fetch back for which there is no record.
    pub fetch_wait: Duration,
}

/// Shortest and longest `fetch.wait.max.ms`. A record ends the wait at once. Other requests of the
/// connection stand behind it, so it is short: a rebalance asks for the ends of partitions. But each idle worker
/// asks so often, which hundreds of them feel: together they ask a hundred times a second,
/// until the longest wait is reached, which is librdkafka's own.
const FETCH_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));

impl ClientShare {
    /// Divides `kafka_memory` among `workers` workers, leaving an eighth for the control plane.
    ///
    /// A consumer overshoots its limit by the response under way, so it gets less than the
    /// producer's share of the bytes that are really held.
    pub fn of(kafka_memory: u64, workers: usize) -> Self {
        let share = kafka_memory / 8 * 7 / workers.max(1) as u64;
        let wait = Duration::from_millis(10).saturating_mul(workers.try_into().unwrap_or(u32::MAX));
        Self {
            fetch: (share / 2).max(256 << 10),
            produce: (share / 2).max(1 << 20),
            fetch_wait: wait.clamp(FETCH_WAIT.0, FETCH_WAIT.1),
        }
    }
}

fn base(kafka: &KafkaSettings, role: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", format!("swapstream-{role}"))
        // A broker that comes back is found at once, not after 10 s.
        .set("reconnect.backoff.max.ms", "1000")
        .set("reconnect.backoff.ms", "50")
        // Half of a request's round trip is otherwise spent waiting for a full packet.
        .set("socket.nagle.disable", "true")
        // An idle connection that a firewall has dropped is noticed.
        .set("socket.keepalive.enable", "true")
        // By default every 5 minutes: until then a partition stands still whose leader was away for a
        // moment. The client drops the news that it is back while it still acts on the news before
        // (https://github.com/confluentinc/librdkafka/pull/5401); what comes later it takes.
        .set("topic.metadata.refresh.interval.ms", "10000");
    for (key, value) in &kafka.client {
        config.set(property_name(key), value);
    }
    config.set("bootstrap.servers", &kafka.bootstrap_servers);
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

/// A worker's consumer, member of the stream's group.
pub(super) fn group_consumer(
    kafka: &KafkaSettings,
    group_id: &str,
    membership: &Membership,
    share: ClientShare,
) -> ClientConfig {
    let mut config = base(kafka, "worker");
    let fetch_kbytes = (share.fetch / 1024).max(256);
    let defaults = [
        // Records wait in the client, not in a round trip to the broker: of each partition what
        // is more than a response of small ones. Ten times as many took 90 MiB more for half a kilobyte.
        ("queued.min.messages", "10000".to_owned()),
        ("queued.max.messages.kbytes", fetch_kbytes.to_string()),
        // Default 1000: the fetcher would sleep a second whenever the queue limit is reached.
        ("fetch.queue.backoff.ms", "5".to_owned()),
        (
            "fetch.wait.max.ms",
            share.fetch_wait.as_millis().to_string(),
        ),
        // One response is at most a quarter of what may be buffered.
        (
            "fetch.max.bytes",
            (share.fetch / 4).clamp(64 << 10, 50 << 20).to_string(),
        ),
        (
            "max.partition.fetch.bytes",
            (share.fetch / 4).clamp(64 << 10, 1 << 20).to_string(),
        ),
    ];
    for (key, value) in defaults {
        if !kafka.sets(key) {
            config.set(key, value);
        }
    }
    config
        .set("group.id", group_id)
        // No more than a response may have, or the client is refused; it says nothing else to a
        // consumer, and a larger record comes alone (KIP-74).
        .set("message.max.bytes", "1000")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        // Of aborted transactions nothing is read; and committed offsets are asked for with
        // "require stable", so that a transaction that is still open is waited for.
        .set("isolation.level", "read_committed")
        // An end is an error to a batch, see `ffi::consume`; and nobody asks for it.
        .set("enable.partition.eof", "false")
        .set("allow.auto.create.topics", "false");
    match membership.protocol {
        GroupProtocol::Classic => {
            config.set("partition.assignment.strategy", "cooperative-sticky");
        }
        // The broker assigns; a strategy may not be set.
        GroupProtocol::Consumer => {
            config.set("group.protocol", "consumer");
        }
    }
    if let Some(id) = &membership.static_id {
        config.set("group.instance.id", id);
    }
    config
}

/// What the topics that a producer writes to allow, in bytes. A broker refuses a whole batch for
/// its size, so that batches must fit the smallest of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordLimits {
    /// Largest record: the largest `max.message.bytes`.
    pub record: usize,
    /// Largest batch: the smallest `max.message.bytes`.
    pub batch: usize,
}

/// A worker's producer.
pub(super) fn producer(
    kafka: &KafkaSettings,
    share: ClientShare,
    limits: RecordLimits,
) -> ClientConfig {
    let mut config = any_producer(kafka, share, limits);
    if !kafka.sets(IN_FLIGHT) {
        // With more, librdkafka's thread never sleeps while records of an idempotent producer wait
        // for the request before them (rd_kafka_msgq_allow_wakeup_at asks for a wake-up at once):
        // half of the processor time where the broker is the limit. Nothing is lost by it but a
        // round trip: a broker takes the requests of a connection one after the other.
        config.set(IN_FLIGHT, "1");
    }
    // A batch that a broker refuses for good ends the client, as it ends the session: else what waits
    // behind it would be delivered first, and again after it.
    config.set("enable.gapless.guarantee", "true");
    config
}

/// What the two kinds of producers have in common.
fn any_producer(kafka: &KafkaSettings, share: ClientShare, limits: RecordLimits) -> ClientConfig {
    let mut config = base(kafka, "worker");
    let defaults = [
        // Long enough to fill batches under load, short enough not to show in the latency.
        ("linger.ms", "1".to_owned()),
        ("compression.type", "lz4".to_owned()),
        // The bytes are the limit, not the count.
        ("queue.buffering.max.messages", "500000".to_owned()),
        (
            "queue.buffering.max.kbytes",
            // One record at least, or it would wait for room for ever.
            (share.produce / 1024)
                .max(1024)
                .max(limits.record as u64 / 1024 + 1)
                .min(i32::MAX as u64)
                .to_string(),
        ),
        ("batch.num.messages", "10000".to_owned()),
    ];
    for (key, value) in defaults {
        if !kafka.sets(key) {
            config.set(key, value);
        }
    }
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // Never: while the broker is down, outputs wait.
        .set("message.timeout.ms", "0")
        // Java's partitioner: predictions land where a Java producer would put the same key.
        .set("partitioner", "murmur2_random")
        .set(
            "message.max.bytes",
            limits.record.clamp(1_000, 1_000_000_000).to_string(),
        )
        .set(
            "batch.size",
            limits.batch.clamp(1_000, 1_000_000).to_string(),
        );
    config
}

/// A worker's producer whose records are committed together with the offsets. It has librdkafka's
/// own number of requests in flight, which the chaos runs were made with: with one, a producer whose
/// broker had restarted once went on for a minute without delivering, for a reason not found.
pub(super) fn transactional_producer(
    kafka: &KafkaSettings,
    share: ClientShare,
    limits: RecordLimits,
    id: &str,
) -> ClientConfig {
    let mut config = any_producer(kafka, share, limits);
    config.set("transactional.id", id);
    open_at_most(&mut config, kafka.transaction_timeout());
    config
}

/// The properties of a worker's consumer and producer, so that the benchmark's floor, which only
/// moves bytes, runs with the same ones.
#[doc(hidden)]
pub fn worker_properties(
    kafka: &KafkaSettings,
    group_id: &str,
    limits: RecordLimits,
) -> [BTreeMap<String, String>; 2] {
    let share = ClientShare::of(kafka.memory, 1);
    [
        group_consumer(kafka, group_id, &Membership::default(), share),
        producer(kafka, share, limits),
    ]
    .map(|config| {
        let pairs = config.config_map().into_iter();
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    })
}

/// How long a transaction of a version may be open, which is one record long: where its publisher was
/// killed, readers see nothing that comes after it until the broker ends it.
pub const OF_A_VERSION: Duration = Duration::from_secs(10);

/// The same for records that other programs wrote, hundreds in a transaction.
const OF_LETTERS: Duration = Duration::from_secs(30);

/// Sets how long a transaction may be open.
fn open_at_most(config: &mut ClientConfig, time: Duration) {
    let millis = time.as_millis().to_string();
    // The client refuses to wait longer for an answer. By default it makes that shorter by itself.
    let answer = config
        .get("socket.timeout.ms")
        .and_then(|text| text.parse().ok());
    if answer.is_some_and(|answer: u128| answer > time.as_millis()) {
        config.set("socket.timeout.ms", &millis);
    }
    config
        .set("transaction.timeout.ms", &millis)
        // What is not acknowledged by then cannot be committed any more.
        .set("message.timeout.ms", &millis);
}

/// A control-plane producer.
pub(super) fn publisher(kafka: &KafkaSettings, transactional_id: Option<&str>) -> ClientConfig {
    control_producer(kafka, transactional_id, OF_A_VERSION)
}

fn control_producer(
    kafka: &KafkaSettings,
    transactional_id: Option<&str>,
    open: Duration,
) -> ClientConfig {
    let mut config = base(kafka, "registry");
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("message.max.bytes", "1000000")
        .set("queue.buffering.max.kbytes", "16384");
    if let Some(id) = transactional_id {
        config.set("transactional.id", id);
        open_at_most(&mut config, open);
    }
    config
}

/// A producer, in transactions, of records that other programs wrote.
pub(super) fn republisher(kafka: &KafkaSettings, id: &str) -> ClientConfig {
    let mut config = control_producer(kafka, Some(id), OF_LETTERS);
    config
        .set("partitioner", "murmur2_random")
        // The topics decide what is too large: the client's limit is out of the way.
        .set("message.max.bytes", "1000000000")
        .set("queue.buffering.max.kbytes", "1048576")
        // A broker refuses a whole batch for its size.
        .set("batch.num.messages", "1");
    config
}

/// How long the broker holds a fetch of a log back while there is nothing: what a reader waits for to
/// hear that it is at the end.
const TO_THE_END: &str = "50";

/// The same where the end is known: each answer without records costs the broker a request.
const FOLLOWING: &str = "500";

/// A reader of one partition, outside any group.
pub(super) fn log_reader(kafka: &KafkaSettings) -> ClientConfig {
    log_reader_that_waits(kafka, TO_THE_END)
}

/// A reader of one partition that has been read to its end, and is followed from there.
pub(super) fn log_follower(kafka: &KafkaSettings) -> ClientConfig {
    log_reader_that_waits(kafka, FOLLOWING)
}

fn log_reader_that_waits(kafka: &KafkaSettings, milliseconds: &str) -> ClientConfig {
    let mut config = base(kafka, "registry");
    config
        // The client wants a group id for its consumer API; nothing is ever joined or committed.
        .set("group.id", "swapstream-log-reader")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .set("queued.max.messages.kbytes", "8192")
        .set("fetch.queue.backoff.ms", "5");
    if !kafka.sets("fetch.wait.max.ms") {
        config.set("fetch.wait.max.ms", milliseconds);
    }
    config
}

/// Asks where partitions end, records of open transactions included.
pub(super) fn end_reader(kafka: &KafkaSettings) -> ClientConfig {
    let mut config = log_reader(kafka);
    config.set("isolation.level", "read_uncommitted");
    config
}

/// A reader of all partitions of some topics, outside any group.
pub(super) fn topic_reader(kafka: &KafkaSettings) -> ClientConfig {
    let mut config = log_reader(kafka);
    config.set("queued.max.messages.kbytes", "16384");
    config
}

/// An administrator.
pub(super) fn admin(kafka: &KafkaSettings) -> ClientConfig {
    let mut config = base(kafka, "admin");
    config.set("allow.auto.create.topics", "false");
    config
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::BaseConsumer;
    use rdkafka::producer::BaseProducer;

    use super::*;

    fn settings(client: &[(&str, &str)]) -> KafkaSettings {
        KafkaSettings {
            bootstrap_servers: "localhost:9092".to_owned(),
            client: client
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            memory: 128 << 20,
        }
    }

    #[test]
    fn the_configuration_wins_except_over_guarantees() {
        let kafka = settings(&[("linger.ms", "50"), ("message.timeout.ms", "1")]);
        let limits = RecordLimits {
            record: 1_000_000,
            batch: 1_000_000,
        };
        let config = producer(&kafka, ClientShare::of(kafka.memory, 2), limits);
        assert_eq!(config.get("linger.ms"), Some("50"));
        assert_eq!(config.get("message.timeout.ms"), Some("0"));
        assert_eq!(config.get(IN_FLIGHT), Some("1"));
        let share = ClientShare::of(kafka.memory, 2);
        let transactional = transactional_producer(&kafka, share, limits, "id");
        assert_eq!(transactional.get(IN_FLIGHT), None);
        let kafka = settings(&[("max.in.flight", "5")]);
        let config = producer(&kafka, ClientShare::of(kafka.memory, 2), limits);
        assert_eq!(config.get(IN_FLIGHT), Some("5"), "set by its other name");
    }

    #[test]
    fn a_property_has_one_name() {
        // Of two names for one the client takes the last, and they have no order.
        let kafka = settings(&[
            ("delivery.timeout.ms", "120000"),
            ("socket.timeout.ms", "20000"),
            ("fetch.message.max.bytes", "4096"),
            ("queue.buffering.max.ms", "7"),
        ]);
        let limits = RecordLimits {
            record: 1_000_000,
            batch: 1_000_000,
        };
        let share = ClientShare::of(kafka.memory, 2);
        let transactional = transactional_producer(&kafka, share, limits, "id");
        let plain = producer(&kafka, share, limits);
        let publisher = publisher(&kafka, Some("id"));
        for (config, timeout) in [
            (&transactional, "10000"),
            (&plain, "0"),
            (&publisher, "10000"),
        ] {
            assert_eq!(config.get("message.timeout.ms"), Some(timeout));
            assert_eq!(config.get("delivery.timeout.ms"), None);
            config.create::<BaseProducer>().unwrap();
        }
        assert_eq!(plain.get("linger.ms"), Some("7"));
        assert_eq!(plain.get("queue.buffering.max.ms"), None);
        republisher(&kafka, "id").create::<BaseProducer>().unwrap();
        let consumer = group_consumer(&kafka, "g", &Membership::default(), share);
        assert_eq!(consumer.get("max.partition.fetch.bytes"), Some("4096"));
        consumer.create::<BaseConsumer>().unwrap();
    }

    #[test]
    fn any_number_of_workers_gets_its_clients() {
        let kafka = settings(&[]);
        let limits = RecordLimits {
            record: 1_000_000,
            batch: 1_000_000,
        };
        for workers in [1, 15, 100, 1000, 100_000] {
            let share = ClientShare::of(kafka.memory, workers);
            let consumer = group_consumer(&kafka, "g", &Membership::default(), share);
            consumer.create::<BaseConsumer>().unwrap();
            let producer = producer(&kafka, share, limits);
            producer.create::<BaseProducer>().unwrap();
        }
    }

    #[test]
    fn memory_is_divided() {
        let share = ClientShare::of(128 << 20, 4);
        assert!(4 * (share.fetch + share.produce) <= 128 << 20);
        assert_eq!(ClientShare::of(0, 0).fetch, 256 << 10);
    }

    #[test]
    fn many_idle_workers_ask_less_often_each() {
        let waits = [0, 1, 10, 30, 50, 1000, usize::MAX];
        let waits = waits.map(|workers| ClientShare::of(0, workers).fetch_wait.as_millis());
        assert_eq!(waits, [100, 100, 100, 300, 500, 500, 500]);
        let kafka = settings(&[]);
        let share = ClientShare::of(kafka.memory, 30);
        let config = group_consumer(&kafka, "g", &Membership::default(), share);
        assert_eq!(config.get("fetch.wait.max.ms"), Some("300"));
    }

    #[test]
    fn a_log_at_its_end_is_asked_for_less_often_unless_a_user_says_how_often() {
        let wait = |config: &ClientConfig| config.get("fetch.wait.max.ms").map(str::to_owned);
        let own = settings(&[]);
        let waits = [log_reader(&own), log_follower(&own)].map(|config| wait(&config));
        assert_eq!(waits, [Some("50".to_owned()), Some("500".to_owned())]);
        // What a user sets is put in for every client, so these two leave it.
        let set = settings(&[("fetch.wait.max.ms", "300")]);
        let waits = [log_reader(&set), log_follower(&set)].map(|config| wait(&config));
        assert_eq!(waits, [Some("300".to_owned()), Some("300".to_owned())]);
    }
}
