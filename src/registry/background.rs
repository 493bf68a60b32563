//! Threads that stand back behind scoring: they load versions and free retired ones.

use std::io;
use std::thread::JoinHandle;

/// How much a thread stands back that is waited for, or that has no better way.
const NICENESS: i32 = 10;

/// How far a thread stands back behind scoring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Runs while nobody else wants the core, and leaves it the moment somebody does: a thread that
    /// merely has a small share keeps a core for milliseconds.
    Behind,
    /// Has a small share of the cores whatever the others do: a stream waits for it.
    Awaited,
}

/// Runs `work` on a thread that has what scoring leaves of the cores. So have the threads and the
/// processes that it starts: the clients that fetch, the probe.
pub(super) fn spawn(
    name: &str,
    standing: Standing,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(move || {
        if standing == Standing::Awaited || !only_when_idle() {
            lower_priority();
        }
        work();
    })
}

/// On Linux this is the thread's own, and it ends with it.
fn lower_priority() {
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!("loading at the same priority as scoring: {error}");
    }
}

/// Gives the calling thread Linux's `SCHED_IDLE`, see sched(7). There is no way back without a
/// privilege. False where there is no such thing or it is not allowed.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "a system call that no safe crate has")]
fn only_when_idle() -> bool {
    // SAFETY: plain data, for which zeros are valid.
    let priority: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for reads; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const priority) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn only_when_idle() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::Standing;

    /// Niceness and scheduling policy, out of `/proc/…/stat`.
    fn of(stat: &str) -> (i32, u32) {
        // Fields are counted from after the name, which may have blanks: state is the third.
        let after: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        (after[16].parse().unwrap(), after[38].parse().unwrap())
    }

    /// Those of a thread of the caller's and of a process of the caller's.
    fn seen() -> [(i32, u32); 2] {
        let own = || of(&std::fs::read_to_string("/proc/thread-self/stat").unwrap());
        let thread = std::thread::spawn(own).join().unwrap();
        let child = Command::new("cat").arg("/proc/self/stat").output().unwrap();
        [thread, of(&String::from_utf8(child.stdout).unwrap())]
    }

    fn seen_in(standing: Standing) -> [(i32, u32); 2] {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let thread = super::spawn("load", standing, move || sender.send(seen()).unwrap());
        let inside = receiver.recv().unwrap();
        thread.unwrap().join().unwrap();
        inside
    }

    #[test]
    fn what_it_starts_stands_back_with_it_and_nobody_else() {
        const IDLE: u32 = libc::SCHED_IDLE as u32;
        let before = seen();
        let nicer = before.map(|(nice, policy)| ((nice + super::NICENESS).min(19), policy));
        assert_eq!(seen_in(Standing::Awaited), nicer);
        let policies = seen_in(Standing::Behind).map(|(_, policy)| policy);
        assert_eq!(policies, [IDLE; 2]);
        assert_eq!(seen(), before);
    }
}
