//! What the control plane has come to on this instance, for whoever wants to know: readiness, the
//! `/models` page, the status reporter. Written by the watcher only.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::status::ModelReport;
use crate::model::ModelName;

/// The state of the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BoardView {
    /// Whether both logs were once read to the end they had at start.
    pub caught_up: bool,
    /// Why the registry's topics cannot be followed now.
    pub problem: Option<String>,
    /// What this instance does about each model that its streams need.
    pub models: BTreeMap<ModelName, ModelReport>,
}

impl BoardView {
    /// Why this instance cannot score, as far as the registry knows; empty: it can.
    pub fn unready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.caught_up {
            reasons.push(match &self.problem {
                Some(problem) => format!("the registry cannot be read: {problem}"),
                None => "the registry's topics are being read".to_owned(),
            });
        }
        for (model, report) in &self.models {
            if report.serving.is_none() {
                reasons.push(format!("model {model} does not serve: {}", why_not(report)));
            }
        }
        reasons
    }
}

fn why_not(report: &ModelReport) -> String {
    match (&report.working_on, &report.refused) {
        (Some(work), _) => {
            let error = work
                .error
                .as_deref()
                .map(|e| format!(": {e}"))
                .unwrap_or_default();
            format!(
                "version {} is on its way ({}){error}",
                work.version, work.state
            )
        }
        (None, Some(refused)) => match &refused.version {
            Some(version) => format!("version {version} was refused: {}", refused.reason),
            None => refused.reason.clone(),
        },
        (None, None) => "nothing is deployed".to_owned(),
    }
}

#[derive(Debug, Default)]
struct State {
    view: BoardView,
    generation: u64,
}

/// The shared state.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
    changed: Condvar,
    /// When the watcher's loop last turned.
    beat: Mutex<Option<Instant>>,
}

impl Board {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut BoardView)) {
        let mut state = self.lock();
        change(&mut state.view);
        state.generation += 1;
        drop(state);
        self.changed.notify_all();
    }

    /// The watcher's loop has turned.
    pub(super) fn beat(&self) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long the watcher's loop has not turned; `None` before its first turn.
    pub fn silent_for(&self) -> Option<Duration> {
        let beat = *self.beat.lock().unwrap_or_else(PoisonError::into_inner);
        beat.map(|beat| beat.elapsed())
    }

    pub(super) fn set_caught_up(&self) {
        self.update(|view| view.caught_up = true);
    }

    /// Gives whether the problem is another one than before, counters apart.
    pub(super) fn set_problem(&self, problem: Option<String>) -> bool {
        let before = self.lock().view.problem.clone();
        if before == problem {
            return false;
        }
        // Network errors carry times and counters that change with each try.
        let letters = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
        let new = before.as_deref().map(letters) != problem.as_deref().map(letters);
        self.update(|view| view.problem = problem);
        new
    }

    pub(super) fn set_report(&self, model: &ModelName, report: ModelReport) {
        self.update(|view| {
            view.models.insert(model.clone(), report);
        });
    }

    /// The state of this moment.
    pub fn view(&self) -> BoardView {
        self.look(BoardView::clone)
    }

    /// What `look` makes of the state of this moment. The watcher waits for it meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&BoardView) -> T) -> T {
        look(&self.lock().view)
    }

    /// Wakes everyone who waits.
    pub(super) fn wake(&self) {
        self.update(|_| {});
    }

    /// Number of changes so far.
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Blocks until something has changed since `seen`, at most `timeout`; gives the newest
    /// generation. Not for async threads.
    pub fn wait_for_change(&self, seen: u64, timeout: Duration) -> u64 {
        let guard = self.lock();
        let waited = self
            .changed
            .wait_timeout_while(guard, timeout, |state| state.generation == seen);
        waited.unwrap_or_else(PoisonError::into_inner).0.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unready_says_why() {
        let board = Board::new();
        assert_eq!(
            board.view().unready(),
            ["the registry's topics are being read"]
        );
        assert!(board.set_problem(Some("broker down after 3 ms".to_owned())));
        assert!(!board.set_problem(Some("broker down after 17 ms".to_owned())));
        assert!(board.view().unready()[0].contains("17 ms"));
        assert!(board.set_problem(None));
        board.set_caught_up();
        assert!(board.view().unready().is_empty());
        board.set_report(&ModelName::new("m").unwrap(), ModelReport::default());
        assert_eq!(
            board.view().unready(),
            ["model m does not serve: nothing is deployed"]
        );
    }

    #[test]
    fn a_change_wakes_who_waits() {
        let board = Board::new();
        let seen = board.generation();
        assert_eq!(board.wait_for_change(seen, Duration::from_millis(1)), seen);
        board.set_caught_up();
        assert_ne!(board.wait_for_change(seen, Duration::from_mins(1)), seen);
    }
}
