//! A spawned `swapstream` whose log can be waited for and which never outlives its test.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::supervisor::{send_signal, wait_child};

/// How many lines of the log a failure shows.
const TAIL_LINES: usize = 30;

/// A running program with its output captured line by line. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
}

impl Process {
    /// Starts `command` with no stdin and with both outputs captured.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Process {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start {command:?}: {error}"),
        };
        let stdout = Lines::capture(child.stdout.take());
        let stderr = Lines::capture(child.stderr.take());
        Process {
            child,
            stdout,
            stderr,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stderr so far.
    pub fn stderr_lines(&self) -> Vec<String> {
        self.stderr.state().lines.clone()
    }

    /// What it has written to stdout so far.
    pub fn stdout_lines(&self) -> Vec<String> {
        self.stdout.state().lines.clone()
    }

    /// Waits for a line on stderr that contains `needle`, wherever in the log it is, and returns it.
    ///
    /// # Panics
    /// With the end of the log, as soon as the line can no longer come.
    #[track_caller]
    pub fn wait_for_line(&self, needle: &str, deadline: Duration) -> String {
        self.wait_for_line_from(0, needle, deadline)
    }

    /// Like [`wait_for_line`](Self::wait_for_line), but overlooks the first `from` lines: for
    /// something that must happen a second time. `stderr_lines().len()` is the mark to take before.
    #[track_caller]
    pub fn wait_for_line_from(&self, from: usize, needle: &str, deadline: Duration) -> String {
        let started = Instant::now();
        let mut state = self.stderr.state();
        loop {
            if let Some(line) = state
                .lines
                .iter()
                .skip(from)
                .find(|line| line.contains(needle))
            {
                return line.clone();
            }
            let left = deadline.saturating_sub(started.elapsed());
            let why = if state.closed { "it ended" } else { "in time" };
            if state.closed || left.is_zero() {
                let tail = tail(&state.lines);
                drop(state);
                panic!(
                    "no line with {needle:?} before {why} ({deadline:?}); stderr ends with:\n{tail}"
                );
            }
            let woken = self.stderr.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// SIGTERM: asks it to stop in order. [`wait_exit`](Self::wait_exit) tells how it went.
    #[track_caller]
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// SIGKILL, and waits until it is gone: nothing of it can happen after this returns.
    #[track_caller]
    pub fn kill9(&mut self) -> ExitStatus {
        self.signal("KILL");
        self.wait_exit(Duration::from_secs(30))
    }

    /// SIGSTOP: it keeps its connections and its memory, and does nothing.
    #[track_caller]
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT: it goes on where [`pause`](Self::pause) stopped it.
    #[track_caller]
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Whether it has not ended yet.
    #[track_caller]
    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the state of a child")
            .is_none()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// With the end of the log when it still runs after `deadline`.
    #[track_caller]
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        match wait_child(&mut self.child, deadline) {
            Some(status) => status,
            None => panic!(
                "still running after {deadline:?}; stderr ends with:\n{}",
                tail(&self.stderr_lines())
            ),
        }
    }

    #[track_caller]
    fn signal(&self, name: &str) {
        // A child that nobody has waited for keeps its pid even when it is dead, so this can miss
        // but never hit a stranger.
        if let Err(reason) = send_signal(self.child.id(), name) {
            panic!(
                "{reason}; stderr ends with:\n{}",
                tail(&self.stderr_lines())
            );
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            // Only a failure to reap is possible here, and the test is over anyway.
            drop(self.child.wait());
        }
    }
}

fn tail(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// One output, collected by a thread so that the program never blocks on a full pipe.
#[derive(Debug, Default)]
struct Lines {
    state: Mutex<LinesState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LinesState {
    lines: Vec<String>,
    closed: bool,
}

impl Lines {
    fn capture(output: Option<impl Read + Send + 'static>) -> Arc<Lines> {
        let lines = Arc::new(Lines::default());
        let written = Arc::clone(&lines);
        thread::spawn(move || {
            let mut reader = BufReader::new(output.expect("the output was asked for as a pipe"));
            let mut line = Vec::new();
            while reader
                .read_until(b'\n', &mut line)
                .is_ok_and(|length| length > 0)
            {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                written.state().lines.push(text);
                written.changed.notify_all();
                line.clear();
            }
            written.state().closed = true;
            written.changed.notify_all();
        });
        lines
    }

    fn state(&self) -> MutexGuard<'_, LinesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
