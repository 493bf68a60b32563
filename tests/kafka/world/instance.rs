//! A running instance: its endpoints, its metrics, its end.

use std::time::{Duration, Instant};

use super::PATIENCE;
use crate::support::{Process, eventually, try_http_get};

/// A running instance.
pub struct Instance {
    pub process: Process,
    pub http: String,
}

/// A test that fails shows what its instances said.
impl Drop for Instance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.process.stderr_lines();
            let lines = &lines[lines.len().saturating_sub(200)..];
            eprintln!("the instance at {} said:\n{}", self.http, lines.join("\n"));
        }
    }
}

impl Instance {
    pub fn wait_ready(&self) {
        eventually("the instance is ready", PATIENCE, || self.ready());
    }

    /// Ready, or the answer of `/readyz`.
    pub fn ready(&self) -> Result<(), String> {
        match try_http_get(&self.http, "/readyz")? {
            (200, _) => Ok(()),
            (_, body) => Err(format!(
                "{body}\n{}",
                self.process.stderr_lines().join("\n")
            )),
        }
    }

    /// Waits until the deployment at `revision` serves.
    pub fn wait_serves(&self, revision: i64) {
        let wanted = format!("revision=\"{revision}\"");
        eventually("the deployment serves", PATIENCE, || {
            let metrics = self.metrics();
            let mut infos = metrics
                .lines()
                .filter(|line| line.starts_with("swapstream_model_info{"));
            match infos.find(|line| line.contains(&wanted)) {
                Some(_) => Ok(()),
                None => Err(format!(
                    "{wanted}\n{}",
                    self.process.stderr_lines().join("\n")
                )),
            }
        });
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        try_http_get(&self.http, path).unwrap()
    }

    /// The value of one series, named as `/metrics` shows it; 0 where it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let metrics = self.metrics();
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    pub fn metrics(&self) -> String {
        let (code, body) = try_http_get(&self.http, "/metrics").unwrap();
        assert_eq!(code, 200);
        body
    }

    /// Stops in order and checks that it went well, and fast: a worker that waits for what never
    /// comes ends at its deadline, which is no failure by itself.
    pub fn stop(mut self) -> Vec<String> {
        let start = Instant::now();
        self.process.terminate();
        let status = self.process.wait_exit(PATIENCE);
        let lines = self.process.stderr_lines();
        assert!(status.success(), "{status}: {}", lines.join("\n"));
        assert!(
            start.elapsed() < Duration::from_secs(8),
            "slow stop: {}",
            lines.join("\n")
        );
        lines
    }
}
