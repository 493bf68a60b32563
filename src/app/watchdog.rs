//! Ends the process where nothing less helps: a call into the Kafka client that does not return
//! cannot be cancelled, and two instances of one name would take turns for ever.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::health::Health;
use crate::stream::{Fatal, Stream};

/// The exit code when a call into the Kafka client hangs: to be started again, nothing is lost.
pub const EXIT_HUNG: i32 = 75;
/// The exit code when an operator has to change something.
const EXIT_GIVEN_UP: i32 = 1;

const INTERVAL: Duration = Duration::from_millis(250);

/// Ends the process with [`EXIT_HUNG`] at `deadline`, unless what this gives is dropped before: a
/// stop that waits for a call into the Kafka client would outlast the time it may take.
pub(super) fn end_at(deadline: Instant) -> Option<SyncSender<()>> {
    #[expect(clippy::exit, reason = "what holds the stop up cannot be cancelled")]
    let end = || {
        tracing::error!(
            "not stopped within shutdown_timeout; ending with code {EXIT_HUNG}: what was not \
             committed is left to the next owner"
        );
        std::process::exit(EXIT_HUNG);
    };
    at(deadline, end)
}

/// Runs `end` in a thread of its own at `deadline`, unless the sender is dropped before.
fn at(deadline: Instant, end: impl FnOnce() + Send + 'static) -> Option<SyncSender<()>> {
    let (done, waiting) = sync_channel(0);
    let thread = std::thread::Builder::new().name("stop".to_owned());
    let started = thread.spawn(move || {
        let left = deadline.saturating_duration_since(Instant::now());
        if waiting.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            end();
        }
    });
    started.is_ok().then_some(done)
}

/// Starts the thread that looks. It ends with the application.
pub(super) fn start(health: &Arc<Health>) -> std::io::Result<()> {
    let health = Arc::downgrade(health);
    std::thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || watch(&health))?;
    Ok(())
}

#[expect(
    clippy::exit,
    reason = "the workers cannot be asked to stop: one hangs, or none may go on"
)]
fn watch(health: &Weak<Health>) {
    let mut wakefulness = Wakefulness::new(Instant::now());
    while let Some(health) = health.upgrade() {
        let settled = wakefulness.look(Instant::now());
        match health.streams().iter().find_map(Stream::fatal) {
            Some(Fatal::Hung(_)) if !settled => {}
            Some(Fatal::Hung(reason)) => {
                tracing::error!("{reason}; ending with code {EXIT_HUNG}: start it again");
                std::process::exit(EXIT_HUNG);
            }
            Some(Fatal::GivenUp(reason)) => {
                tracing::error!("{reason}; ending with code {EXIT_GIVEN_UP}");
                std::process::exit(EXIT_GIVEN_UP);
            }
            None => {}
        }
        drop(health);
        std::thread::park_timeout(INTERVAL);
    }
}

/// Whether the process has been running for a while: time in which it was stopped, or its machine
/// was, is no time in which a call hung.
#[derive(Debug)]
struct Wakefulness {
    looked: Instant,
    awake_since: Instant,
}

impl Wakefulness {
    /// A pause between two looks that is longer: the process was stopped.
    const PAUSE: Duration = Duration::from_secs(2);
    /// How long a call may take to come back after that.
    const CATCH_UP: Duration = Duration::from_secs(5);

    fn new(now: Instant) -> Self {
        Self {
            looked: now,
            awake_since: now,
        }
    }

    /// Notes a look; whether what it finds counts.
    fn look(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.looked) > Self::PAUSE {
            self.awake_since = now;
        }
        self.looked = now;
        now.saturating_duration_since(self.awake_since) >= Self::CATCH_UP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_that_takes_too_long_is_ended_and_no_other() {
        let (tell, told) = sync_channel(0);
        let end = move || tell.send(()).unwrap();
        let held = at(Instant::now() + Duration::from_millis(20), end);
        told.recv_timeout(Duration::from_secs(20)).unwrap();
        drop(held);

        let (tell, told) = sync_channel::<()>(0);
        let end = move || tell.send(()).unwrap();
        drop(at(Instant::now() + Duration::from_mins(1), end));
        // The thread gives its end up with the sender in it.
        let waited = told.recv_timeout(Duration::from_secs(20));
        assert_eq!(waited, Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn time_in_which_the_process_was_stopped_does_not_count() {
        let start = Instant::now();
        let mut wakefulness = Wakefulness::new(start);
        let mut look = |millis: u64| wakefulness.look(start + Duration::from_millis(millis));
        assert!(!look(250), "just started");
        for at in (500..5_000).step_by(250) {
            assert!(!look(at), "{at}");
        }
        assert!(look(5_000));
        assert!(!look(60_000), "stopped for 55 s");
        for at in (60_250..65_000).step_by(250) {
            assert!(!look(at), "{at}");
        }
        assert!(look(65_000), "awake for 5 s");
    }
}
