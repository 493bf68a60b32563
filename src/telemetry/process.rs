//! The `process_*` metrics, read from `/proc/self` when they are asked for; nothing elsewhere than
//! on Linux.

use std::fs;
use std::sync::{Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

use super::metrics;

/// Clock ticks per second in `/proc`: part of the kernel's interface, 100 wherever Rust runs.
const TICKS_PER_SECOND: f64 = 100.0;

/// What `/proc` says about a process at one moment.
#[derive(Debug, Default, PartialEq)]
struct Sample {
    resident_bytes: f64,
    cpu_seconds: f64,
    threads: f64,
    open_fds: f64,
    start_seconds: f64,
}

impl Sample {
    fn take() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let system = fs::read_to_string("/proc/stat").ok()?;
        let open_fds = fs::read_dir("/proc/self/fd").ok()?.count();
        Self::parse(&stat, &status, &system, open_fds)
    }

    fn parse(stat: &str, status: &str, system: &str, open_fds: usize) -> Option<Self> {
        // The name of the program stands in parentheses and may hold anything.
        let (_, after_name) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        // `fields` starts with field 3 of proc_pid_stat(5).
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let resident_kib = line_value(status, "VmRSS:")?;
        let booted = line_value(system, "btime")?;
        Some(Self {
            resident_bytes: resident_kib * 1024.0,
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            threads: field(20)?,
            open_fds: open_fds as f64,
            start_seconds: booted + field(22)? / TICKS_PER_SECOND,
        })
    }
}

fn line_value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Collects the `process_*` families.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    resident: Gauge,
    threads: Gauge,
    open_fds: Gauge,
    start: Gauge,
    /// Locked for the whole of a collection: the counter is set by what it grew.
    cpu: Mutex<Counter>,
}

impl ProcessCollector {
    pub(super) fn new() -> prometheus::Result<Self> {
        let gauge = |family: &metrics::Family| Gauge::new(family.name, family.help);
        let cpu = metrics::PROCESS_CPU_SECONDS;
        Ok(Self {
            resident: gauge(&metrics::PROCESS_RESIDENT_MEMORY)?,
            threads: gauge(&metrics::PROCESS_THREADS)?,
            open_fds: gauge(&metrics::PROCESS_OPEN_FDS)?,
            start: gauge(&metrics::PROCESS_START_TIME)?,
            cpu: Mutex::new(Counter::new(cpu.name, cpu.help)?),
        })
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        // The counter's description is left out: it lives behind the lock. The registry uses
        // descriptions to find duplicates only, and these names occur once.
        [&self.resident, &self.threads, &self.open_fds, &self.start]
            .into_iter()
            .flat_map(Collector::desc)
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let cpu = self.cpu.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sample) = Sample::take() else {
            return Vec::new();
        };
        self.resident.set(sample.resident_bytes);
        self.threads.set(sample.threads);
        self.open_fds.set(sample.open_fds);
        self.start.set(sample.start_seconds);
        cpu.inc_by((sample.cpu_seconds - cpu.get()).max(0.0));
        let mut families = cpu.collect();
        for gauge in [&self.resident, &self.threads, &self.open_fds, &self.start] {
            families.extend(gauge.collect());
        }
        families
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_hostile_program_name() {
        let stat = "7 (a) b) c) S 1 1 1 0 -1 4 9 9 9 9 250 50 0 0 20 0 12 0 6000 1 1";
        let status = "Name:\tx\nVmRSS:\t    2048 kB\n";
        let sample = Sample::parse(stat, status, "cpu 1\nbtime 1000\n", 5).unwrap();
        let expected = Sample {
            resident_bytes: 2_097_152.0,
            cpu_seconds: 3.0,
            threads: 12.0,
            open_fds: 5.0,
            start_seconds: 1060.0,
        };
        assert_eq!(sample, expected);
        assert_eq!(Sample::parse("", "", "", 0), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_threads_and_a_start() {
        let sample = Sample::take().unwrap();
        assert!(sample.resident_bytes > 100_000.0 && sample.threads >= 1.0);
        assert!(sample.open_fds >= 3.0 && sample.start_seconds > 1.0e9);
    }
}
