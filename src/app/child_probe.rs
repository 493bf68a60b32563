//! The probe's parent: runs this program as a child that loads a version, and says how it ended.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::config::{duration, size};
use crate::registry::{
    LoadFailure, LoadState, ModelProbe, ProbeAnswer, ProbeCandidate, ProbeLimits, ProbeReport,
    Refusal,
};
use crate::runtime::RuntimeSettings;

/// The hidden command of the child.
pub const PROBE_COMMAND: &str = "__probe";

/// The child ends itself by processor time; one that sleeps, or waits for a processor, is ended
/// after so many times that.
const PATIENCE: u32 = 4;

/// What is kept of the child's stdout and stderr.
const MOST_OUTPUT: u64 = 64 * 1024;

const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const SIGXCPU: i32 = 24;

/// Runs a program that has the command [`PROBE_COMMAND`].
#[derive(Debug, Clone)]
pub struct ChildProbe {
    program: PathBuf,
    limits: ProbeLimits,
    runtime: RuntimeSettings,
}

impl ChildProbe {
    /// Runs `program` within `limits`.
    pub fn new(program: PathBuf, limits: ProbeLimits, runtime: RuntimeSettings) -> Self {
        Self {
            program,
            limits,
            runtime,
        }
    }

    /// Runs this program, even after its file was replaced.
    pub fn of_this_program(limits: ProbeLimits, runtime: &RuntimeSettings) -> io::Result<Self> {
        let linux = PathBuf::from("/proc/self/exe");
        let program = if linux.exists() {
            linux
        } else {
            std::env::current_exe()?
        };
        Ok(Self::new(program, limits, runtime.clone()))
    }

    fn spawn(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command
            .arg(PROBE_COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal is not for the child.
            .process_group(0);
        // The model has no business with secrets of the configuration and of object stores.
        let secret = ["SWAPSTREAM__", "SWAPSTREAM_SIGN_", "AWS_"];
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if secret.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.spawn()
    }

    /// Feeds a child and waits for it; ends it where it stays too long or is no longer wanted, which
    /// is `None`.
    fn attend(
        &self,
        mut child: Child,
        candidate: ProbeCandidate<'_>,
        wanted: &dyn Fn() -> bool,
    ) -> io::Result<Option<Ended>> {
        let deadline = Instant::now() + self.limits.time.saturating_mul(PATIENCE);
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        std::thread::scope(|scope| {
            // A child that ends early closes its pipe; how it ended says more than that.
            let feed = scope.spawn(move || {
                stdin.map(|stdin| {
                    candidate.write_to(self.limits, &self.runtime, &mut io::BufWriter::new(stdin))
                })
            });
            let stdout = scope.spawn(move || stdout.map(read_some).unwrap_or_default());
            let stderr = scope.spawn(move || stderr.map(read_some).unwrap_or_default());
            let outcome = wait(&mut child, deadline, wanted);
            if !matches!(outcome, Ok(Waited::Ended)) {
                // It may have ended this very moment.
                child.kill().ok();
            }
            let status = child.wait()?;
            drop(feed.join());
            let ended = Ended {
                status,
                timed_out: matches!(outcome?, Waited::TooLong),
                stdout: stdout.join().unwrap_or_default(),
                stderr: stderr.join().unwrap_or_default(),
            };
            Ok(wanted().then_some(ended))
        })
    }

    fn verdict(&self, ended: &Ended) -> Result<ProbeReport, LoadFailure> {
        if let Some(answer) = ended.answer() {
            return match answer.refused {
                None => Ok(answer.took),
                Some(refused) => Err(LoadFailure::Refused(Refusal {
                    stage: refused.stage,
                    reason: refused.reason,
                })),
            };
        }
        let time = duration(self.limits.time);
        let memory = size(self.limits.memory);
        let said = |text: &str| ended.stderr.contains(text);
        let refuse = |reason: String| {
            Err(LoadFailure::Refused(Refusal {
                stage: LoadState::Probed,
                reason,
            }))
        };
        match ended.status.signal() {
            _ if ended.timed_out => refuse(format!(
                "loading it did not end within {PATIENCE} times limits.probe_time ({time})"
            )),
            Some(SIGXCPU) => refuse(format!(
                "loading it takes more processor time than limits.probe_time ({time}) allows"
            )),
            _ if said("memory allocation of") || said("Cannot allocate memory") => refuse(format!(
                "loading it takes more memory than limits.probe_memory ({memory}) allows"
            )),
            _ if said("has overflowed its stack") => {
                refuse("loading it overflows the stack".to_owned())
            }
            Some(SIGINT | SIGTERM) => {
                Err(LoadFailure::Transient("the probe was stopped".to_owned()))
            }
            Some(SIGKILL) => refuse(
                "loading it in a process of its own got that process killed; the system may be \
                 short of memory"
                    .to_owned(),
            ),
            Some(signal) => refuse(format!(
                "loading it in a process of its own ended that process by signal {signal}{}",
                ended.last_words()
            )),
            None => Err(LoadFailure::Transient(format!(
                "the probe gave no answer ({}){}",
                ended.status,
                ended.last_words()
            ))),
        }
    }
}

impl ModelProbe for ChildProbe {
    fn probe(
        &self,
        candidate: ProbeCandidate<'_>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<ProbeReport, LoadFailure> {
        let transient = |error: io::Error| {
            LoadFailure::Transient(format!(
                "cannot run {} to probe it: {error}",
                self.program.display()
            ))
        };
        let child = self.spawn().map_err(transient)?;
        match self.attend(child, candidate, wanted).map_err(transient)? {
            Some(ended) => self.verdict(&ended),
            None => Err(LoadFailure::Cancelled),
        }
    }
}

/// How a child ended.
#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    timed_out: bool,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn answer(&self) -> Option<ProbeAnswer> {
        let complete = self.status.success() && !self.timed_out;
        let answer = self.stdout.lines().next_back().filter(|_| complete)?;
        serde_json::from_str(answer).ok()
    }

    fn last_words(&self) -> String {
        match self.stderr.lines().rfind(|line| !line.trim().is_empty()) {
            Some(line) => format!(": {}", line.chars().take(300).collect::<String>()),
            None => String::new(),
        }
    }
}

enum Waited {
    Ended,
    TooLong,
    Unwanted,
}

fn wait(child: &mut Child, deadline: Instant, wanted: &dyn Fn() -> bool) -> io::Result<Waited> {
    let mut pause = Duration::from_millis(1);
    loop {
        if child.try_wait()?.is_some() {
            return Ok(Waited::Ended);
        }
        if !wanted() {
            return Ok(Waited::Unwanted);
        }
        if Instant::now() >= deadline {
            return Ok(Waited::TooLong);
        }
        std::thread::park_timeout(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// The start of what comes; the rest is read and dropped, so that nobody waits.
fn read_some(mut from: impl Read) -> String {
    let mut kept = Vec::new();
    let kept_all = from.by_ref().take(MOST_OUTPUT).read_to_end(&mut kept);
    if kept_all.is_ok() {
        io::copy(&mut from, &mut io::sink()).ok();
    }
    String::from_utf8_lossy(&kept).into_owned()
}
