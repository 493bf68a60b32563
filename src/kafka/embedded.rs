//! A Kafka broker inside the process: librdkafka's mock cluster. A stand-in for the demo: it has
//! no durability, no transactions behind its answers, and forgets data past 5 MiB a partition.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};

use super::{ErrorKind, KafkaError, ffi};

/// What the mock cluster keeps of a partition, in bytes; older data vanishes.
pub const EMBEDDED_RETENTION_BYTES: u64 = 5 << 20;

/// How long a new group waits for its members. Enough for the workers of a process: whoever comes
/// later waits for almost a session time-out, in which the mock cluster refuses all commits.
const GROUP_DELAY_MS: i32 = 300;

/// A broker on a random port of the loopback interface; stops when dropped.
#[derive(Debug)]
pub struct EmbeddedBroker {
    bootstrap_servers: String,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedBroker {
    /// Starts a broker with `topics`, each a name and a number of partitions.
    pub fn start(topics: &[(String, i32)]) -> Result<Self, KafkaError> {
        let (ready_tx, ready_rx) = sync_channel(1);
        let (stop_tx, stop_rx) = sync_channel::<()>(1);
        let topics = topics.to_vec();
        // The cluster is not Send: it lives and dies on a thread of its own.
        let thread = std::thread::Builder::new()
            .name("embedded-broker".to_owned())
            .spawn(move || {
                let owner = match create(&topics) {
                    Ok((owner, address)) => {
                        if ready_tx.send(Ok(address)).is_err() {
                            return;
                        }
                        owner
                    }
                    Err(error) => {
                        // The starter waits for exactly one answer.
                        drop(ready_tx.send(Err(error)));
                        return;
                    }
                };
                // Ends when the handle is dropped, which closes the channel.
                while stop_rx.recv().is_ok() {}
                drop(owner);
            })
            .map_err(failed)?;
        let bootstrap_servers = ready_rx.recv().map_err(failed)??;
        Ok(Self {
            bootstrap_servers,
            stop: Some(stop_tx),
            thread: Some(thread),
        })
    }

    /// `host:port`.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic of the broker's thread was printed by the panic hook already.
            drop(thread.join());
        }
    }
}

fn failed(error: impl std::fmt::Display) -> KafkaError {
    KafkaError::new(ErrorKind::Fatal, "starting the embedded broker", error)
}

fn create(topics: &[(String, i32)]) -> Result<(BaseProducer, String), KafkaError> {
    let mut config = ClientConfig::new();
    config.set("test.mock.num.brokers", "1");
    config.set_log_level(rdkafka::config::RDKafkaLogLevel::Critical);
    let owner: BaseProducer = config.create().map_err(failed)?;
    ffi::set_rebalance_delay(owner.client(), GROUP_DELAY_MS);
    let address = {
        let cluster = owner
            .client()
            .mock_cluster()
            .ok_or_else(|| failed("no mock cluster"))?;
        for (name, partitions) in topics {
            cluster.create_topic(name, *partitions, 1).map_err(failed)?;
        }
        cluster.bootstrap_servers()
    };
    Ok((owner, address))
}
