//! Looks topics up and creates them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};

use super::context::LogContext;
use super::error::kind_of;
use super::{ErrorKind, KafkaError, KafkaSettings, ffi, properties};

/// What is known of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Number of partitions.
    pub partitions: i32,
    /// Its effective configuration; empty where the broker does not let it be read.
    pub config: BTreeMap<String, String>,
}

/// Kafka's default `max.message.bytes`.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 1_048_588;

impl TopicInfo {
    /// Largest batch that it takes, in bytes; where that is not told, Kafka's default.
    pub fn max_message_bytes(&self) -> usize {
        let text = self.config.get("max.message.bytes");
        text.and_then(|text| text.parse().ok())
            .unwrap_or(DEFAULT_MAX_MESSAGE_BYTES)
    }
}

/// Whether a topic had to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It is new.
    Created,
    /// It was there.
    Existed,
}

/// Administrator of topics.
pub struct Admin {
    client: AdminClient<LogContext>,
    runtime: tokio::runtime::Runtime,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

/// One administrator for whoever asks at the same time; it is closed with the last of them.
#[derive(Debug, Clone, Default)]
pub struct SharedAdmin(Arc<Mutex<Weak<Admin>>>);

impl SharedAdmin {
    /// The administrator that somebody else uses, or a new one. See [`Admin::new`].
    pub fn get(&self, kafka: &KafkaSettings) -> Result<Arc<Admin>, KafkaError> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(admin) = shared.upgrade() {
            return Ok(admin);
        }
        let admin = Arc::new(Admin::new(kafka)?);
        *shared = Arc::downgrade(&admin);
        Ok(admin)
    }
}

impl Admin {
    /// An administrator. Does not wait for the broker. Not for async threads: its calls block.
    pub fn new(kafka: &KafkaSettings) -> Result<Self, KafkaError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|e| KafkaError::new(ErrorKind::Fatal, "creating an admin client", e))?;
        let client = properties::admin(kafka)
            .create_with_context(LogContext::new("admin"))
            .map_err(|error| KafkaError::client("creating an admin client", &error))?;
        Ok(Self { client, runtime })
    }

    fn error(&self, context: String, error: &ClientError) -> KafkaError {
        ffi::log::hear(self.client.inner());
        KafkaError::client(context, error).with_cause(self.client.inner().context().last_error())
    }

    /// Number of partitions of `name`; `None` where there is no such topic.
    pub fn partitions(&self, name: &str, timeout: Duration) -> Result<Option<i32>, KafkaError> {
        ffi::log::hear(self.client.inner());
        let context = || format!("looking up topic {name:?}");
        let metadata = self
            .client
            .inner()
            .fetch_metadata(Some(name), timeout)
            .map_err(|error| self.error(context(), &error))?;
        let Some(topic) = metadata.topics().first() else {
            return Ok(None);
        };
        match topic.error().map(RDKafkaErrorCode::from) {
            None if topic.partitions().is_empty() => Ok(None),
            None => Ok(Some(topic.partitions().len() as i32)),
            Some(code) if kind_of(code) == ErrorKind::MissingTopic => Ok(None),
            Some(code) => Err(self.error(context(), &ClientError::MetadataFetch(code))),
        }
    }

    /// Partitions and configuration of `name`; `None` where there is no such topic.
    pub fn topic(&self, name: &str, timeout: Duration) -> Result<Option<TopicInfo>, KafkaError> {
        let Some(partitions) = self.partitions(name, timeout)? else {
            return Ok(None);
        };
        let context = || format!("reading the configuration of topic {name:?}");
        let options = AdminOptions::new().request_timeout(Some(timeout));
        let described = self
            .runtime
            .block_on(
                self.client
                    .describe_configs([&ResourceSpecifier::Topic(name)], &options),
            )
            .map_err(|error| self.error(context(), &error))?;
        let mut config = BTreeMap::new();
        for resource in described {
            match resource {
                Ok(resource) => config.extend(resource.entries.into_iter().filter_map(|entry| {
                    let value = entry.value?;
                    Some((entry.name, value))
                })),
                // Without the right to read settings they are taken to be right.
                Err(code) if kind_of(code) == ErrorKind::Authorization => {}
                Err(code) => return Err(self.error(context(), &ClientError::AdminOp(code))),
            }
        }
        Ok(Some(TopicInfo { partitions, config }))
    }

    /// Creates `name` with the broker's default replication.
    pub fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        config: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<Created, KafkaError> {
        let context = || format!("creating topic {name:?}");
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        for (key, value) in config {
            topic = topic.set(key, value);
        }
        let options = AdminOptions::new()
            .request_timeout(Some(timeout))
            .operation_timeout(Some(timeout));
        let results = self
            .runtime
            .block_on(self.client.create_topics([&topic], &options))
            .map_err(|error| self.error(context(), &error))?;
        match results.into_iter().next() {
            Some(Ok(_)) => Ok(Created::Created),
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(Created::Existed),
            Some(Err((_, code))) => Err(self.error(context(), &ClientError::AdminOp(code))),
            None => Err(KafkaError::new(
                ErrorKind::Retriable,
                context(),
                "the broker is silent",
            )),
        }
    }

    /// Deletes `names`; one that does not exist is no error.
    pub fn delete_topics(&self, names: &[&str], timeout: Duration) -> Result<(), KafkaError> {
        let context = |name: &str| format!("deleting topic {name:?}");
        let options = AdminOptions::new()
            .request_timeout(Some(timeout))
            .operation_timeout(Some(timeout));
        let results = self
            .runtime
            .block_on(self.client.delete_topics(names, &options))
            .map_err(|error| self.error(context(&names.join(", ")), &error))?;
        for (name, code) in results.into_iter().filter_map(Result::err) {
            if kind_of(code) != ErrorKind::MissingTopic {
                return Err(self.error(context(&name), &ClientError::AdminOp(code)));
            }
        }
        Ok(())
    }

    /// Deletes the consumer group `name`, which nobody is in.
    pub fn delete_group(&self, name: &str, timeout: Duration) -> Result<(), KafkaError> {
        let context = || format!("deleting consumer group {name:?}");
        let options = AdminOptions::new().request_timeout(Some(timeout));
        let results = self
            .runtime
            .block_on(self.client.delete_groups(&[name], &options))
            .map_err(|error| self.error(context(), &error))?;
        match results.into_iter().find_map(Result::err) {
            Some((_, code)) => Err(self.error(context(), &ClientError::AdminOp(code))),
            None => Ok(()),
        }
    }
}
