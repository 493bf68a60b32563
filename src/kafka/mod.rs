//! Everything that speaks to Kafka; the only importer of rdkafka.
//!
//! It takes and gives the plain types of [`crate::record`] and its own [`KafkaError`], whose kind
//! says what a caller does about it. Calls block: they are for worker threads and the control
//! plane's own threads, never for async ones.

mod admin;
mod context;
mod embedded;
mod ends;
mod error;
mod ffi;
mod log_reader;
mod producer;
mod properties;
mod publisher;
mod settings;
mod source;
mod topic_reader;
mod transaction;

pub use admin::{Admin, Created, DEFAULT_MAX_MESSAGE_BYTES, SharedAdmin, TopicInfo};
pub use embedded::{EMBEDDED_RETENTION_BYTES, EmbeddedBroker};
pub use ends::{EndReader, Look, UNTIL_ENDED, wait_for_hidden};
pub use error::{ErrorKind, KafkaError};
pub use log_reader::{LogEvent, LogReader, LogStart, read_to_end};
pub use producer::{OutgoingRecord, Producer, RecordHeaders, SLOT_SHIFT, SendError, TOKEN_BITS};
#[doc(hidden)]
pub use properties::worker_properties;
pub use properties::{ClientShare, OF_A_VERSION, RecordLimits};
pub use publisher::{Delivery, Publisher};
pub use settings::{
    DEFAULT_KAFKA_MEMORY, DEFAULT_TRANSACTION_TIMEOUT, GroupProtocol, KafkaSettings, Membership,
    RESERVED_PROPERTIES, SECRET_PROPERTIES, TRANSACTION_TIMEOUT, property_name,
};
pub use source::{Committed, InputRecord, Polled, Position, Source};
pub use topic_reader::{TopicEvent, TopicReader};
