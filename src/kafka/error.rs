//! What went wrong with Kafka, sorted by what the caller does about it.

use std::fmt;

use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};

/// What the caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Repeat, after a pause.
    Retriable,
    /// A call of the transaction protocol did not end in its time: its outcome is unknown.
    TimedOut,
    /// Abort the transaction, rewind, go on.
    Abortable,
    /// Rebuild the client.
    Fatal,
    /// Another client has taken over this client's id.
    Fenced,
    /// The broker refuses: credentials or ACL.
    Authorization,
    /// The topic, or the partition, does not exist.
    MissingTopic,
    /// The record is larger than the topic or the client allows.
    TooLarge,
    /// The client's queue is full: serve it, then repeat.
    QueueFull,
    /// The committed offset lies outside the partition's log.
    OffsetOutOfRange,
    /// A setting is wrong: repeating does not help.
    Configuration,
}

/// An error of Kafka's, with what was being done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{context}: {message}")]
pub struct KafkaError {
    /// What the caller does about it.
    pub kind: ErrorKind,
    /// What was being done, naming topic, partition or group.
    pub context: String,
    /// What Kafka or its client says.
    pub message: String,
}

impl KafkaError {
    /// An error of `kind` while doing `context`.
    pub fn new(kind: ErrorKind, context: impl Into<String>, message: impl fmt::Display) -> Self {
        Self {
            kind,
            context: context.into(),
            message: message.to_string(),
        }
    }

    pub(super) fn client(context: impl Into<String>, error: &ClientError) -> Self {
        let message = match error {
            ClientError::ClientConfig(_, text, key, value) if !secret(key) => {
                format!("{text} ({key} = {value})")
            }
            ClientError::ClientConfig(_, _, key, _) => format!("the value of {key} is refused"),
            other => match code(other) {
                Some(code) => describe(code),
                None => other.to_string(),
            },
        };
        Self {
            kind: kind(error),
            context: context.into(),
            message,
        }
    }

    /// Whether the same call may be repeated.
    pub fn is_retriable(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Retriable | ErrorKind::TimedOut | ErrorKind::QueueFull
        )
    }

    /// Adds what the client last heard from the network, where that says more than the error.
    pub(super) fn with_cause(mut self, cause: Option<String>) -> Self {
        if let Some(cause) =
            cause.filter(|_| matches!(self.kind, ErrorKind::Retriable | ErrorKind::TimedOut))
        {
            self.message = format!("{} ({cause})", self.message);
        }
        self
    }
}

fn secret(key: &str) -> bool {
    super::SECRET_PROPERTIES.contains(&key)
}

/// librdkafka's description of a code, without its enum name.
fn describe(code: Code) -> String {
    code.to_string().split_once(" (").map_or_else(
        || code.to_string(),
        |(name, rest)| {
            rest.strip_suffix(')')
                .map_or_else(|| name.to_owned(), str::to_owned)
        },
    )
}

/// The code inside a client error, where there is one.
pub(super) fn code(error: &ClientError) -> Option<Code> {
    match error {
        ClientError::Transaction(error) => Some(error.code()),
        other => other.rdkafka_error_code(),
    }
}

fn kind(error: &ClientError) -> ErrorKind {
    match error {
        ClientError::Transaction(inner) if inner.is_fatal() => match kind_of(inner.code()) {
            ErrorKind::Fenced => ErrorKind::Fenced,
            ErrorKind::Authorization => ErrorKind::Authorization,
            _ => ErrorKind::Fatal,
        },
        ClientError::Transaction(inner) if inner.txn_requires_abort() => ErrorKind::Abortable,
        ClientError::Transaction(inner) if inner.is_retriable() => match inner.code() {
            Code::OperationTimedOut | Code::RequestTimedOut => ErrorKind::TimedOut,
            _ => ErrorKind::Retriable,
        },
        // Neither fatal nor abortable nor to be repeated: librdkafka says to treat it as fatal.
        ClientError::Transaction(inner) => match kind_of(inner.code()) {
            kind @ (ErrorKind::Fenced | ErrorKind::Authorization) => kind,
            _ => ErrorKind::Fatal,
        },
        ClientError::MessageConsumptionFatal(_) => ErrorKind::Fatal,
        ClientError::ClientConfig(..) | ClientError::ClientCreation(_) | ClientError::Nul(_) => {
            ErrorKind::Configuration
        }
        other => code(other).map_or(ErrorKind::Fatal, kind_of),
    }
}

/// What to do about a code. Codes that are not named here are repeated: a wrong guess that way
/// costs time, the other way it costs the client.
pub(super) fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::Fenced
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::FencedInstanceId => ErrorKind::Fenced,
        Code::Fatal | Code::InconsistentGroupProtocol | Code::UnsupportedVersion => {
            ErrorKind::Fatal
        }
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::Authentication => ErrorKind::Authorization,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            ErrorKind::MissingTopic
        }
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => ErrorKind::TooLarge,
        Code::QueueFull => ErrorKind::QueueFull,
        Code::AutoOffsetReset | Code::OffsetOutOfRange => ErrorKind::OffsetOutOfRange,
        Code::InvalidArgument | Code::InvalidConfig | Code::InvalidTopic => {
            ErrorKind::Configuration
        }
        _ => ErrorKind::Retriable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_by_what_to_do() {
        assert_eq!(
            kind_of(Code::UnknownTopicOrPartition),
            ErrorKind::MissingTopic
        );
        assert_eq!(kind_of(Code::AllBrokersDown), ErrorKind::Retriable);
        assert_eq!(kind_of(Code::ProducerFenced), ErrorKind::Fenced);
        assert_eq!(kind_of(Code::QueueFull), ErrorKind::QueueFull);
    }

    #[test]
    fn a_cause_is_added_to_what_can_be_repeated_only() {
        let error = KafkaError::new(ErrorKind::Retriable, "reading", "timed out");
        let text = error
            .clone()
            .with_cause(Some("connection refused".into()))
            .to_string();
        assert_eq!(text, "reading: timed out (connection refused)");
        assert_eq!(error.with_cause(None).to_string(), "reading: timed out");
    }
}
