//! Keeps a program from outliving the test process, even when that is killed with SIGKILL.
//!
//! The program runs under a small shell whose stdin is a pipe that only the test process holds
//! open. However the test process ends, the kernel closes the pipe; the shell then kills the
//! program and removes its directory. (The usual ways, a parent-death signal or a pre-exec hook,
//! need unsafe code.) The shell has a process group of its own, so a Ctrl-C in the terminal
//! reaches the test process only, and the pipe does the rest.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// `$1` is the directory to remove, `$2` the log; the rest is the program with its arguments.
///
/// HUP is ignored because the kernel sends one to a process group that has lost its last parent
/// outside and holds a stopped member: a paused broker at the death of the test process.
/// The mark `abandoned` tells a death on our order (remove the directory) from any other (keep it:
/// the broker may be started again on it).
const SCRIPT: &str = r#"
dir=$1 log=$2
shift 2
exec 3<&0 </dev/null
trap '' HUP INT
"$@" 3<&- >>"$log" 2>&1 &
program=$!
echo "$program"
exec >/dev/null 2>&1
( read -r _ <&3; : >"$dir/abandoned"; kill -9 "$program" ) &
watcher=$!
exec 3<&-
wait "$program"
status=$?
kill -9 "$watcher"
if [ -e "$dir/abandoned" ]; then rm -rf "$dir"; fi
exit "$status"
"#;

/// How long a killed program may take to be gone; giving its memory back takes a while on a busy
/// machine.
const DEATH_DEADLINE: Duration = Duration::from_secs(30);

/// A program that ends with this value, or with this process.
#[derive(Debug)]
pub struct Supervised {
    shell: Child,
    /// Never written to. Apart from [`Child`], because `Child::wait` closes the stdin it owns,
    /// which here would be an order to kill.
    lifeline: Option<ChildStdin>,
    pid: u32,
}

impl Supervised {
    /// Starts `program` in `dir` with both its outputs appended to `log`.
    pub fn start(program: &Command, dir: &Path, log: &Path) -> Result<Supervised, String> {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .args([dir, log])
            .arg(program.get_program())
            .args(program.get_args())
            .current_dir(dir)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start sh: {error}"))?;
        let lifeline = shell.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = shell.stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(|error| format!("cannot read from sh: {error}"))?;
        }
        let pid = line
            .trim()
            .parse()
            .map_err(|_| format!("sh did not tell a pid but {line:?}"))?;
        Ok(Supervised {
            shell,
            lifeline,
            pid,
        })
    }

    /// The pid of the program itself, not of its shell.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal to the program, unless it has ended and its pid may be somebody else's.
    pub fn signal(&mut self, name: &str) -> Result<(), String> {
        if let Some(status) = self.exit_status() {
            return Err(format!("no SIG{name}: it has ended ({status})"));
        }
        send_signal(self.pid, name)
    }

    /// How the program ended, if it has; a death by signal n is the shell's exit code 128 + n.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.shell.try_wait().ok().flatten()
    }

    /// Waits for the end of the program; `None` when it still runs after `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> Option<ExitStatus> {
        wait_child(&mut self.shell, deadline)
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.lifeline = None;
        wait_child(&mut self.shell, DEATH_DEADLINE);
    }
}

/// Waits for the end of `child` by looking: the standard library has no wait with a deadline.
pub fn wait_child(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if started.elapsed() < deadline => thread::sleep(Duration::from_millis(10)),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Sends the signal `name` (without `SIG`) through the `kill` program, as the standard library
/// knows SIGKILL only.
pub fn send_signal(pid: u32, name: &str) -> Result<(), String> {
    let output = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .output()
        .map_err(|error| format!("cannot run kill: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        let reason = String::from_utf8_lossy(&output.stderr);
        Err(format!("cannot send SIG{name} to {pid}: {}", reason.trim()))
    }
}
