//! Everything that speaks to Kafka; the only importer of rdkafka.

mod settings;

pub use settings::{DEFAULT_KAFKA_MEMORY, KafkaSettings, RESERVED_PROPERTIES, SECRET_PROPERTIES};
