//! When the series of versions that serve no more are removed: late enough that the last counts
//! have been scraped. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long the series of a version outlive its service.
pub(super) const KEPT_FOR: Duration = Duration::from_mins(15);

/// Versions that serve no more, by model and version.
#[derive(Debug, Default)]
pub(super) struct Retirements(BTreeMap<(String, String), Instant>);

impl Retirements {
    /// The version serves no more.
    pub(super) fn retire(&mut self, model: &str, version: &str, now: Instant) {
        let key = (model.to_owned(), version.to_owned());
        self.0.insert(key, now + KEPT_FOR);
    }

    /// The version serves.
    pub(super) fn serve(&mut self, model: &str, version: &str) {
        self.0.remove(&(model.to_owned(), version.to_owned()));
    }

    /// Takes out those whose time has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(String, String)> {
        let (due, kept) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(_, at)| *at <= now);
        self.0 = kept;
        BTreeMap::into_keys(due).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_forgotten_a_quarter_of_an_hour_after_it_served() {
        let start = Instant::now();
        let after = |minutes| start + Duration::from_mins(minutes);
        let mut all = Retirements::default();
        all.retire("m", "1", start);
        all.retire("m", "2", after(1));
        all.retire("m", "3", after(2));
        assert!(all.take_due(after(14)).is_empty());
        // Served again: it is kept, until it is retired anew.
        all.serve("m", "2");
        let due = |all: &mut Retirements, minutes| {
            let due = all.take_due(after(minutes)).into_iter();
            due.map(|(_, version)| version).collect::<Vec<_>>()
        };
        assert_eq!(due(&mut all, 16), ["1"]);
        assert_eq!(due(&mut all, 99), ["3"]);
        all.retire("m", "2", after(99));
        assert_eq!(due(&mut all, 200), ["2"]);
        assert!(due(&mut all, 999).is_empty());
    }
}
