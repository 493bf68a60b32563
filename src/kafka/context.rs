//! What every client has in common: librdkafka's log lines and errors go to tracing, and the last
//! network error is kept so that a time-out can say its cause.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};

/// A repeated network error is logged again after this long.
const REPEAT_AFTER: Duration = Duration::from_secs(30);

/// Network errors that were logged, by any client of the process: when a broker goes away, all of
/// them hear the same.
static LOGGED: Mutex<Vec<(Instant, String)>> = Mutex::new(Vec::new());

/// Receives a client's log lines and errors.
#[derive(Debug)]
pub(super) struct LogContext {
    role: &'static str,
    /// The last network error.
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

    fn remember(&self, text: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((Instant::now(), without_counters(text).to_owned()));
    }

    fn log_line(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // For a client that failed before it was polled this is the only word of the cause.
        if matches!(level, RDKafkaLogLevel::Error) && facility == "FAIL" {
            let text = message.split_once("]: ").map_or(message, |(_, text)| text);
            self.remember(text.trim());
        }
        match level {
            // librdkafka repeats as log lines, and often, what it also reports as errors. A fatal one
            // is what every call of the client gives from then on: who calls knows what it means.
            _ if facility == "ERROR" || facility == "FATAL" => {
                tracing::trace!(client = self.role, facility, "librdkafka: {message}");
            }
            // `[kafka.client]` is for producers and consumers: what one ignores is the other's.
            _ if facility == "CONFWARN" && message.contains("will be ignored by this") => {
                tracing::trace!(client = self.role, facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(client = self.role, facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Debug => {
                tracing::trace!(client = self.role, facility, "librdkafka: {message}");
            }
            _ => tracing::debug!(client = self.role, facility, "librdkafka: {message}"),
        }
    }

    fn note(&self, text: &str) {
        self.remember(text);
        let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
        logged.retain(|(at, _)| at.elapsed() < REPEAT_AFTER);
        if !logged.iter().any(|(_, known)| similar(known, text)) {
            tracing::warn!(client = self.role, "kafka: {text}");
            logged.push((Instant::now(), text.to_owned()));
        }
    }
}

/// A network error without its times and counters, which change with every attempt.
fn without_counters(text: &str) -> &str {
    text.split_once(" (after ").map_or(text, |(what, _)| what)
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
        self.log_line(level, facility, message);
    }

    fn error(&self, error: ClientError, reason: &str) {
        // "all brokers down" follows the broker's own error, which says more; the end of a
        // partition is no error; that another producer has taken the id over, as two publications
        // of one version do to each other, is told by whoever is fenced.
        let code = super::error::code(&error);
        if !matches!(
            code,
            Some(
                RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::PartitionEOF
                    | RDKafkaErrorCode::Fatal
                    | RDKafkaErrorCode::Fenced
                    | RDKafkaErrorCode::ProducerFenced
                    | RDKafkaErrorCode::InvalidProducerEpoch
            )
        ) {
            self.note(reason.trim());
        }
    }

    fn stats_raw(&self, _: &[u8]) {}
}

/// Gives a context with a field `log` the log lines and errors of [`LogContext`].
macro_rules! log_through {
    ($context:ty) => {
        impl rdkafka::ClientContext for $context {
            fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, text: &str) {
                self.log.log(level, facility, text);
            }
            fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
                self.log.error(error, reason);
            }
            fn stats_raw(&self, _: &[u8]) {}
        }
    };
}
pub(super) use log_through;

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

    #[test]
    fn the_cause_of_a_time_out_is_heard_in_log_lines_as_well() {
        let context = LogContext::new("admin");
        assert_eq!(context.last_error(), None);
        let failed = "[thrd:localhost:1/bootstrap]: localhost:1/bootstrap: Connect failed: refused";
        let counted = format!("{failed} (after 0ms in state CONNECT, 3 identical)");
        context.log(RDKafkaLogLevel::Error, "FAIL", &counted);
        context.log(RDKafkaLogLevel::Info, "FAIL", "[thrd:main]: idle");
        assert_eq!(
            context.last_error().as_deref(),
            Some("localhost:1/bootstrap: Connect failed: refused")
        );
    }
}
