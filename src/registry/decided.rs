//! Waits for what an open transaction hides in the topic of the versions.

use std::time::Duration;

use super::error::RegistryError;
use super::logs::RegistryLogs;
use super::topics::RegistryTopic;
use crate::kafka::{LogStart, OF_A_VERSION, UNTIL_ENDED, wait_for_hidden};

/// How long a publisher that was killed holds readers back at most.
const OPEN_AT_MOST: Duration = OF_A_VERSION.saturating_add(UNTIL_ENDED);

/// Waits until readers of committed records see the version at `offset`: the broker answers a commit
/// before it has written the markers, and who deploys next must find the version.
pub(super) fn wait_until_visible(
    logs: &dyn RegistryLogs,
    offset: i64,
) -> Result<(), RegistryError> {
    if !stable(logs, offset + 1, OPEN_AT_MOST)? {
        // Somebody else's open transaction; ours is committed.
        tracing::warn!("the version is stored, and readers do not see it yet");
    }
    Ok(())
}

/// Waits until everything is decided that was written so far. What a rival has committed may lie
/// behind the open transaction of a third, where no reader sees it yet.
pub(super) fn wait_until_decided(logs: &dyn RegistryLogs) -> Result<(), RegistryError> {
    let end = logs.written_end(RegistryTopic::Versions)?;
    if stable(logs, end, OPEN_AT_MOST)? {
        return Ok(());
    }
    Err(RegistryError::Held {
        topic: logs.name(RegistryTopic::Versions),
        waited: OPEN_AT_MOST,
    })
}

/// Waits until the stable end of the versions has come to `end`, at most for `patience`; gives
/// whether it has.
fn stable(logs: &dyn RegistryLogs, end: i64, patience: Duration) -> Result<bool, RegistryError> {
    let mut log = logs.open(RegistryTopic::Versions, LogStart::Beginning)?;
    let topic = logs.name(RegistryTopic::Versions);
    wait_for_hidden(&topic, patience, || Ok(log.stable_end()? >= end))
}

#[cfg(test)]
mod tests {
    use super::super::logs::fake::FakeLogs;
    use super::*;

    #[test]
    fn what_an_open_transaction_hides_is_waited_for() {
        let topic = RegistryTopic::Versions;
        let logs = FakeLogs::default();
        for key in [b"open", b"mine"] {
            logs.append(topic, key, Some(Vec::new()), Vec::new());
        }
        assert!(stable(&logs, 2, Duration::ZERO).unwrap());
        logs.0.lock().unwrap().open = Some(0);
        assert!(stable(&logs, 0, Duration::ZERO).unwrap());
        assert!(!stable(&logs, 1, Duration::ZERO).unwrap());
        let waiting = {
            let logs = logs.clone();
            std::thread::spawn(move || wait_until_decided(&logs))
        };
        // It has looked at least once before the transaction ends.
        while logs.0.lock().unwrap().opened.len() < 4 {
            std::thread::yield_now();
        }
        assert!(!waiting.is_finished());
        logs.0.lock().unwrap().open = None;
        waiting.join().unwrap().unwrap();
    }
}
