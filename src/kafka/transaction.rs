//! A worker's transactions: its records and its input offsets are committed together or not at all.
//!
//! Each call answers with a [`KafkaError`] whose kind says what the worker does. Calls block, at
//! most for the time given. A watchdog stands beside them all the same: librdkafka promises little.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use rdkafka::error::KafkaError as ClientError;
use rdkafka::producer::{BaseProducer, Producer as _};

use super::producer::{Context, Producer};
use super::{ClientShare, ErrorKind, KafkaError, KafkaSettings, RecordLimits, Source, properties};
use crate::record::{NextOffset, TopicPartition};

/// First step of an abort: librdkafka drops what is queued, and waits for acknowledgements that
/// only this thread can serve.
const PURGE: Duration = Duration::from_millis(100);
/// What a call that may hang is given beyond its time.
const BEYOND: Duration = Duration::from_secs(1);

/// Runs `call` on a thread of its own; nothing where it takes longer than `limit`, and then it is left
/// behind, with all that it holds.
fn within<T: Send + 'static>(
    limit: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>, std::io::Error> {
    let (done, wait) = sync_channel(1);
    let run = move || {
        // Nobody waits any more where this fails.
        drop(done.send(call()));
    };
    std::thread::Builder::new()
        .name("transaction".to_owned())
        .spawn(run)?;
    match wait.recv_timeout(limit) {
        Ok(ended) => Ok(Some(ended)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(std::io::Error::other("the call has panicked")),
    }
}

impl Producer {
    /// A transactional producer. Does not wait for the broker; to be followed by [`Self::init`].
    pub fn transactional(
        kafka: &KafkaSettings,
        share: ClientShare,
        limits: RecordLimits,
        id: &str,
    ) -> Result<Self, KafkaError> {
        let config = properties::transactional_producer(kafka, share, limits, id);
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
        self.answer(doing, call(&self.client))
    }

    fn answer(&self, doing: &str, ended: Result<(), ClientError>) -> Result<(), KafkaError> {
        ended.map_err(|error| {
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
    ///
    /// librdkafka looks for the group's coordinator without a limit of time, and where its question is
    /// lost while no connection comes or goes it asks no second time (`rd_kafka_coord_req_fsm` waits for
    /// the next change of a broker's state). So the call gets a thread of its own, and the client is left
    /// behind with it where it does not return; it must not be used again then.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] for a call that did not return, too.
    pub fn send_offsets(
        &self,
        source: &Source,
        offsets: &[(TopicPartition, NextOffset, String)],
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let (list, member) = source.offsets_for_transaction(offsets)?;
        let doing = "sending offsets to the transaction";
        let client = self.client.shared();
        let ended = within(timeout + BEYOND, move || {
            client.send_offsets_to_transaction(&list, &member, timeout)
        });
        let hangs = |why: String| {
            Err(KafkaError::new(ErrorKind::TimedOut, doing, why).with_cause(self.last_error()))
        };
        match ended {
            Ok(Some(ended)) => self.answer(doing, ended),
            Ok(None) => hangs(format!(
                "the client has not answered within {timeout:?}, which it may have; it is left behind"
            )),
            Err(error) => hangs(format!("the call could not be made: {error}")),
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn a_call_that_hangs_is_left_behind_with_what_it_holds() {
        assert_eq!(within(Duration::from_mins(1), || 7).unwrap(), Some(7));
        let held = Arc::new(());
        let client = Arc::clone(&held);
        let (release, hang) = sync_channel::<()>(1);
        let (ended, end) = sync_channel(1);
        let call = move || {
            hang.recv().unwrap();
            drop(client);
            ended.send(()).unwrap();
        };
        assert_eq!(within(Duration::from_millis(10), call).unwrap(), None);
        assert_eq!(Arc::strong_count(&held), 2);
        release.send(()).unwrap();
        end.recv().unwrap();
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
