//! What a run leaves behind for whoever looks for a cause.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::stage::Stage;

/// Where a run leaves its logs; a run that panics leaves its broker there, too.
#[derive(Debug)]
pub struct Traces {
    pub dir: PathBuf,
    stage: Arc<Stage>,
}

impl Traces {
    pub fn new(stage: &Arc<Stage>) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        Self {
            dir: dir.join(format!("chaos-{}", stage.topics.name)),
            stage: Arc::clone(stage),
        }
    }

    pub fn keep(&self) {
        match self.stage.broker.keep(&self.dir.join("broker")) {
            Ok(()) => println!(
                "chaos: logs and the broker's data are kept in {}",
                self.dir.display()
            ),
            Err(error) => println!("chaos: the broker's data are not kept: {error}"),
        }
    }

    /// What the broker says of itself that a run must not pass over.
    pub fn broker_said(&self, what: &str) -> Vec<String> {
        let log = self.stage.broker.log_tail(usize::MAX);
        let lines = log.lines().filter(|line| line.contains(what));
        lines.map(str::to_owned).collect()
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
        }
    }
}
