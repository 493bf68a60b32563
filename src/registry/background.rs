//! Threads that stand back behind scoring: they load versions and free retired ones.

use std::io;
use std::thread::JoinHandle;

/// How much they stand back.
const NICENESS: i32 = 10;

/// Runs `work` on a thread that has what scoring leaves of the cores. So have the threads and the
/// processes that it starts: the clients that fetch, the probe.
pub(super) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(move || {
        lower_priority();
        work();
    })
}

/// On Linux this is the thread's own, and it ends with it.
fn lower_priority() {
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!("loading at the same priority as scoring: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// What a thread of the caller's and a process of the caller's are told about their niceness.
    fn niceness() -> [i32; 2] {
        let own = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // Fields are counted from after the name, which may have blanks: state is the third.
            let after = stat.rsplit(") ").next().unwrap();
            after.split(' ').nth(16).unwrap().parse().unwrap()
        };
        let thread = std::thread::spawn(own).join().unwrap();
        let child = Command::new("nice").output().unwrap().stdout;
        let child = String::from_utf8(child).unwrap().trim().parse().unwrap();
        [thread, child]
    }

    #[test]
    fn what_it_starts_stands_back_with_it_and_nobody_else() {
        let before = niceness();
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let thread = super::spawn("load", move || sender.send(niceness()).unwrap());
        let inside = receiver.recv().unwrap();
        thread.unwrap().join().unwrap();
        assert_eq!(inside, before.map(|nice| (nice + super::NICENESS).min(19)));
        assert_eq!(niceness(), before);
    }
}
