//! What a process uses, as Linux tells it.

use std::time::Duration;

/// Ticks of `/proc/<pid>/stat` in a second; the same on every Linux that has processors to bench on.
const TICKS: u64 = 100;

/// Processor time of a process and of its ended children.
pub fn cpu(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold blanks.
    let fields = text.rsplit(')').next().unwrap_or_default();
    let fields: Vec<u64> = fields
        .split_whitespace()
        .map(|field| field.parse().unwrap_or_default())
        .collect();
    let ticks: u64 = fields.get(11..15).unwrap_or_default().iter().sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// Processor time of the calling thread.
pub fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = text.split_whitespace().next().unwrap().parse().unwrap();
    Duration::from_nanos(nanos)
}

/// A line of `/proc/<pid>/status` in MiB: `VmHWM` is the peak, `VmRSS` what is held now.
pub fn memory_mib(pid: u32, line: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let found = text.lines().find_map(|l| l.strip_prefix(line));
    let kib = found.and_then(|l| {
        l.trim_start_matches(':')
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    kib.unwrap_or(0.0) / 1024.0
}

/// The machine: processor, cores, memory, kernel.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.and_then(|line| line.split(':').nth(1));
        line.unwrap_or("?").trim().to_owned()
    };
    let cpu = value(&read("/proc/cpuinfo"), "model name");
    let memory = value(&read("/proc/meminfo"), "MemTotal");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cpu}, {cores} cores, {memory} memory, Linux {}",
        kernel.trim()
    )
}

/// The load of the last minute: whether figures of time on the clock can be trusted.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next().unwrap_or_default();
    first.parse().unwrap_or_default()
}

/// Processor time that the machine's host has denied it since the start, in seconds.
pub fn stolen() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let mut fields = text.lines().next().unwrap_or_default().split_whitespace();
    let ticks: Option<u64> = fields.nth(8).and_then(|field| field.parse().ok());
    ticks.unwrap_or_default() as f64 / TICKS as f64
}
