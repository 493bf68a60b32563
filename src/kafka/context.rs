//! What every client has in common: librdkafka's log lines and errors go to tracing, and the last
//! network error is kept so that a time-out can say its cause.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};

/// A repeated network error is logged again after this long.
const REPEAT_AFTER: Duration = Duration::from_secs(30);

/// Receives a client's log lines and errors.
#[derive(Debug)]
pub(super) struct LogContext {
    role: &'static str,
    last: Mutex<Option<(Instant, String)>>,
}

impl LogContext {
    pub(super) fn new(role: &'static str) -> Self {
        Self {
            role,
            last: Mutex::new(None),
        }
    }

    /// The newest network error of the last minute.
    pub(super) fn last_error(&self) -> Option<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref()
            .filter(|(at, _)| at.elapsed().as_secs() < 60)
            .map(|(_, text)| text.clone())
    }

    fn note(&self, text: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last
            .as_ref()
            .is_some_and(|(at, known)| at.elapsed() < REPEAT_AFTER && similar(known, text));
        if !known {
            tracing::warn!(client = self.role, "kafka: {text}");
            *last = Some((Instant::now(), text.to_owned()));
        }
    }
}

/// Whether two network errors differ only in their times and counters.
fn similar(a: &str, b: &str) -> bool {
    let letters = |text: &str| -> Vec<char> {
        text.chars()
            .take_while(|c| *c != '(')
            .filter(|c| !c.is_ascii_digit())
            .collect()
    };
    letters(a) == letters(b)
}

impl ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // librdkafka repeats as log lines what it also reports as errors.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(client = self.role, facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Debug => {
                tracing::trace!(client = self.role, facility, "librdkafka: {message}");
            }
            _ => tracing::debug!(client = self.role, facility, "librdkafka: {message}"),
        }
    }

    fn error(&self, error: ClientError, reason: &str) {
        // "all brokers down" follows the broker's own error, which says more; the end of a
        // partition is no error.
        let code = super::error::code(&error);
        if !matches!(
            code,
            Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::PartitionEOF)
        ) {
            self.note(reason.trim());
        }
    }

    fn stats_raw(&self, _: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_do_not_make_an_error_new() {
        assert!(similar(
            "localhost:1/bootstrap: connect failed (after 0ms in state CONNECT)",
            "localhost:1/bootstrap: connect failed (after 1ms in state CONNECT, 3 identical)",
        ));
        assert!(!similar("connect failed", "authentication failed"));
    }
}
