//! The calling thread's processor time: what a model takes, however long the thread had to wait for a
//! core. Loads run behind scoring, and their measurements decide.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor time of the calling thread since it began.
pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_counts_and_waiting_does_not() {
        let start = thread_time();
        std::thread::sleep(Duration::from_millis(50));
        let since = || thread_time().saturating_sub(start);
        let waited = since();
        assert!(waited < Duration::from_millis(40), "{waited:?}");
        while since() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
    }
}
