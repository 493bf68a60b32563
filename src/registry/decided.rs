//! Waits for what an open transaction hides in a topic of the registry.

use std::time::Duration;

use super::error::RegistryError;
use super::logs::RegistryLogs;
use super::topics::RegistryTopic;
use crate::kafka::{LogStart, Look, OF_A_VERSION, UNTIL_ENDED, wait_for_hidden};

/// How long a publisher that was killed holds readers back at most.
const OPEN_AT_MOST: Duration = OF_A_VERSION.saturating_add(UNTIL_ENDED);

/// Waits until readers of committed records see the one at `offset`: the broker answers a commit before it
/// has written the markers, and an open transaction of somebody else hides what comes after it. Gives
/// whether they do; a broker that is away meanwhile changes nothing, since the record is there.
pub(super) fn wait_until_visible(
    logs: &dyn RegistryLogs,
    topic: RegistryTopic,
    offset: i64,
) -> bool {
    match stable(logs, topic, offset + 1, OPEN_AT_MOST) {
        Ok(visible) => visible,
        Err(error) => {
            tracing::debug!("whether offset {offset} can be seen: {error}");
            false
        }
    }
}

/// Waits until everything is decided that was written to `topic` so far. What a rival has committed may lie
/// behind the open transaction of a third, where no reader sees it yet.
pub(super) fn wait_until_decided(
    logs: &dyn RegistryLogs,
    topic: RegistryTopic,
) -> Result<(), RegistryError> {
    let end = logs.written_end(topic)?;
    if stable(logs, topic, end, OPEN_AT_MOST)? {
        return Ok(());
    }
    Err(RegistryError::Held {
        topic: logs.name(topic),
        waited: OPEN_AT_MOST,
    })
}

/// Waits until the stable end of `topic` has come to `end`, at most for `patience`; gives whether it has.
fn stable(
    logs: &dyn RegistryLogs,
    topic: RegistryTopic,
    end: i64,
    patience: Duration,
) -> Result<bool, RegistryError> {
    let mut log = logs.open(topic, LogStart::Beginning)?;
    let mut last = None;
    let reached = wait_for_hidden(&logs.name(topic), patience, || match log.stable_end() {
        Ok(found) => {
            last = None;
            Ok(if found >= end {
                Look::Visible
            } else {
                Look::Hidden
            })
        }
        Err(error) if error.is_retriable() => {
            last = Some(error);
            Ok(Look::Unknown)
        }
        Err(error) => Err(error),
    })?;
    match last {
        Some(error) if !reached => Err(error.into()),
        _ => Ok(reached),
    }
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
        assert!(stable(&logs, topic, 2, Duration::ZERO).unwrap());
        logs.0.lock().unwrap().open = Some(0);
        assert!(stable(&logs, topic, 0, Duration::ZERO).unwrap());
        assert!(!stable(&logs, topic, 1, Duration::ZERO).unwrap());
        let waiting = {
            let logs = logs.clone();
            std::thread::spawn(move || wait_until_decided(&logs, topic))
        };
        // It has looked at least once before the transaction ends.
        while logs.0.lock().unwrap().looks < 4 {
            std::thread::yield_now();
        }
        assert!(!waiting.is_finished());
        logs.0.lock().unwrap().open = None;
        waiting.join().unwrap().unwrap();
    }
}
