//! `swapstream __probe`, hidden: the child in which a version is loaded first. It limits itself,
//! reads the version from stdin and answers on stdout.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::Failure;
use crate::registry::{ProbeSystem, run_probe};

pub(super) fn run() -> Result<(), Failure> {
    let system = ProbeSystem {
        limit,
        peak_memory,
        memory,
    };
    run_probe(io::stdin().lock(), io::stdout().lock(), system).map_err(Failure::failed)
}

fn limit(memory: u64, seconds: u64) -> io::Result<()> {
    let most = |amount| Rlimit {
        current: Some(amount),
        maximum: Some(amount),
    };
    let used = status("VmSize:").unwrap_or_default();
    setrlimit(Resource::As, most(used.saturating_add(memory)))?;
    // The first limit ends the process by SIGXCPU, which tells what happened.
    let time = Rlimit {
        current: Some(seconds),
        maximum: Some(seconds + 1),
    };
    setrlimit(Resource::Cpu, time)?;
    setrlimit(Resource::Core, most(0))?;
    // Where memory runs out, this process goes first, and not the service.
    std::fs::write("/proc/self/oom_score_adj", "1000").ok();
    Ok(())
}

/// Without the pages of the program's own file, which the service has as well.
fn peak_memory() -> u64 {
    let program = status("RssFile:").unwrap_or_default();
    status("VmHWM:").unwrap_or_default().saturating_sub(program)
}

fn memory() -> u64 {
    status("RssAnon:").unwrap_or_default()
}

/// A line of Linux's `/proc/self/status`, in bytes.
fn status(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}
