//! Ends the process where nothing less helps: a call into the Kafka client that does not return
//! cannot be cancelled, and two instances of one name would take turns for ever.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::health::Health;
use crate::stream::{Fatal, Stream};

/// The exit code when a call into the Kafka client hangs: to be started again, nothing is lost.
pub const EXIT_HUNG: i32 = 75;
/// The exit code when an operator has to change something.
const EXIT_GIVEN_UP: i32 = 1;

const INTERVAL: Duration = Duration::from_millis(250);

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
    while let Some(health) = health.upgrade() {
        match health.streams().iter().find_map(Stream::fatal) {
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
