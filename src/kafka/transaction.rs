//! A worker's transactions: its records and its input offsets are committed together or not at all.
//!
//! Each call answers with a [`KafkaError`] whose kind says what the worker does. Calls block, at
//! most for the time given, except [`Producer::send_offsets`], which librdkafka may keep for as
//! long as the group coordinator is away: a watchdog has to stand beside it.

use std::time::Duration;

use rdkafka::error::KafkaError as ClientError;
use rdkafka::producer::{BaseProducer, Producer as _};

use super::producer::{Context, Producer};
use super::{ClientMemory, ErrorKind, KafkaError, KafkaSettings, RecordLimits, Source, properties};
use crate::record::{NextOffset, TopicPartition};

/// First step of an abort: librdkafka drops what is queued, and waits for acknowledgements that
/// only this thread can serve.
const PURGE: Duration = Duration::from_millis(100);

impl Producer {
    /// A transactional producer. Does not wait for the broker; to be followed by [`Self::init`].
    pub fn transactional(
        kafka: &KafkaSettings,
        memory: ClientMemory,
        limits: RecordLimits,
        id: &str,
    ) -> Result<Self, KafkaError> {
        let config = properties::transactional_producer(kafka, memory, limits, id);
        Self::create(&config, kafka.transaction_timeout())
    }

    /// How long a transaction may stay open.
    pub fn transaction_timeout(&self) -> Duration {
        self.transaction_timeout
    }

    fn call(
        &self,
        doing: &str,
        call: impl FnOnce(&BaseProducer<Context>) -> Result<(), ClientError>,
    ) -> Result<(), KafkaError> {
        call(&self.client).map_err(|error| {
            // The crate flushes before it commits; that it could not is no word of the commit.
            let mut found = KafkaError::client(doing, &error);
            if matches!(error, ClientError::Flush(_)) {
                found.kind = ErrorKind::TimedOut;
            }
            self.explain(found)
                .with_cause(self.client.context().log.last_error())
        })
    }

    /// Fences every other producer of this id and ends its open transaction. After a time-out or
    /// a retriable error the same call goes on where it was.
    pub fn init(&self, timeout: Duration) -> Result<(), KafkaError> {
        self.call("starting transactions", |p| p.init_transactions(timeout))
    }

    /// Begins a transaction. Sends nothing.
    pub fn begin(&self) -> Result<(), KafkaError> {
        self.call("beginning a transaction", BaseProducer::begin_transaction)
    }

    /// Sends offsets, each with its metadata, into the transaction, as a member of the source's
    /// group: the coordinator refuses them from a member that was left behind.
    pub fn send_offsets(
        &self,
        source: &Source,
        offsets: &[(TopicPartition, NextOffset, String)],
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let (list, member) = source.offsets_for_transaction(offsets)?;
        self.call("sending offsets to the transaction", |p| {
            p.send_offsets_to_transaction(&list, &member, timeout)
        })
    }

    /// Commits the transaction, all of whose records are acknowledged. After a time-out nobody
    /// knows whether it is committed: the producer must not be used again.
    pub fn commit(&self, timeout: Duration) -> Result<(), KafkaError> {
        self.call("committing the transaction", |p| {
            p.commit_transaction(timeout)
        })
    }

    /// Aborts the transaction: drops what is queued, waits for what is under way, forgets failed
    /// deliveries. After a time-out the producer must not be used again.
    pub fn abort(&self, timeout: Duration) -> Result<(), KafkaError> {
        let abort = |timeout: Duration| {
            self.call("aborting the transaction", |p| p.abort_transaction(timeout))
        };
        let start = std::time::Instant::now();
        if self.in_flight() > 0 {
            match abort(PURGE) {
                Err(error) if error.is_retriable() => {}
                ended => return ended.map(|()| self.clear_failure()),
            }
            while self.in_flight() > 0 {
                if start.elapsed() >= timeout {
                    let why = format!("{} records are not answered", self.in_flight());
                    let doing = "aborting the transaction";
                    return Err(KafkaError::new(ErrorKind::TimedOut, doing, why)
                        .with_cause(self.last_error()));
                }
                self.poll(Duration::from_millis(1));
            }
        }
        abort(timeout.saturating_sub(start.elapsed()).max(PURGE))?;
        self.clear_failure();
        Ok(())
    }
}
