//! Asks the broker for its metadata every few seconds: an idle client would not notice that it is
//! gone, and readiness must.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::kafka::{Admin, KafkaSettings};

const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(3);

/// Whether the broker answers.
#[derive(Debug)]
pub(super) struct BrokerStatus {
    problem: Mutex<Option<String>>,
}

impl BrokerStatus {
    /// Why there is no broker; `None`: it answers.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

/// The thread that asks.
#[derive(Debug)]
pub(super) struct BrokerProbe {
    status: Arc<BrokerStatus>,
    running: Arc<()>,
    thread: JoinHandle<()>,
}

impl BrokerProbe {
    /// Asks for `topic`; that it is not there is an answer, too.
    pub(super) fn start(kafka: &KafkaSettings, topic: String) -> std::io::Result<Self> {
        let first = "it has not answered yet".to_owned();
        let status = Arc::new(BrokerStatus {
            problem: Mutex::new(Some(first)),
        });
        let running = Arc::new(());
        let (shared, alive) = (Arc::clone(&status), Arc::downgrade(&running));
        let kafka = kafka.clone();
        let thread = std::thread::Builder::new()
            .name("broker-probe".to_owned())
            .spawn(move || {
                let admin = match Admin::new(&kafka) {
                    Ok(admin) => admin,
                    Err(error) => return shared.set(Some(error.to_string())),
                };
                while alive.strong_count() > 0 {
                    let answer = admin.partitions(&topic, TIMEOUT);
                    shared.set(answer.err().map(|error| error.to_string()));
                    let pause = if shared.problem().is_some() {
                        INTERVAL / 10
                    } else {
                        INTERVAL
                    };
                    let end = Instant::now() + pause;
                    while alive.strong_count() > 0 && Instant::now() < end {
                        std::thread::park_timeout(end.saturating_duration_since(Instant::now()));
                    }
                }
            })?;
        Ok(Self {
            status,
            running,
            thread,
        })
    }

    pub(super) fn status(&self) -> Arc<BrokerStatus> {
        Arc::clone(&self.status)
    }

    /// Lets the thread end; it may be inside a request, and is not waited for.
    pub(super) fn stop(self) {
        drop(self.running);
        self.thread.thread().unpark();
    }
}
